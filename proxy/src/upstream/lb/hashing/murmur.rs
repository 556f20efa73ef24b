//! MurmurHash2, 64 bits, as GNU's `std::hash<string>` computes it: what older rings were built with.

const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
const SEED: u64 = 0xc70f_6907;

/// The hash of `bytes`.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = mix(u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
        hash = (hash ^ mixed).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(MULTIPLIER);
    }
    mix(mix(hash).wrapping_mul(MULTIPLIER))
}

const fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `std::hash<std::string>` of libstdc++.
    #[test]
    fn equals_gnus_string_hash() {
        for (text, expected) in [
            ("", 6_142_509_188_972_423_790),
            ("a", 4_993_892_634_952_068_459),
            ("hello", 2_762_169_579_135_187_400),
            ("12345678", 10_113_836_418_918_046_885),
            ("127.0.0.1:8080_12", 13_359_345_509_635_455_857),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }
}

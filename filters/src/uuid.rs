//! Random (version 4) UUIDs, RFC 9562 section 5.4.

/// Length of a UUID's text.
pub const LEN: usize = 36;

/// A random UUID in its usual text form.
pub fn v4(rng: &mut fastrand::Rng) -> [u8; LEN] {
    of(rng.u128(..))
}

/// The UUID of this randomness, always the same.
pub fn of(random: u128) -> [u8; LEN] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = random.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; LEN];
    let mut at = 0;
    for byte in bytes {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0xf)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_version_and_variant() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let text = v4(&mut rng);
            for (at, byte) in text.iter().enumerate() {
                match at {
                    8 | 13 | 18 | 23 => assert_eq!(*byte, b'-'),
                    14 => assert_eq!(*byte, b'4'),
                    19 => assert!(b"89ab".contains(byte)),
                    _ => assert!(byte.is_ascii_hexdigit()),
                }
            }
        }
        assert_ne!(v4(&mut rng), v4(&mut rng));
    }
}

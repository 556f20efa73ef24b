//! What tells two versions of a listener apart, taken from the bytes as received: no deterministic re-encoding is needed
//! and nothing of the message has to be kept.

use xxhash_rust::xxh64::Xxh64;

const SEED: u64 = 0;
/// Fields of `Listener` an in-place update may change: `filter_chains`, `default_filter_chain`, `filter_chain_matcher`.
const FILTER_CHAINS: u64 = 3;
const DEFAULT_FILTER_CHAIN: u64 = 25;
const FILTER_CHAIN_MATCHER: u64 = 32;

/// Hashes of a serialised `Listener` and of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The whole message: equal means nothing changed.
    pub whole: u64,
    /// All but the filter chains: equal means the sockets and everything before the choice of a chain may stay.
    pub frame: u64,
    /// Each of `filter_chains`, in order.
    pub chains: Vec<u64>,
    /// `default_filter_chain`; 0 when there is none.
    pub default_chain: u64,
}

impl Fingerprint {
    /// Reads the top level of a serialised `Listener`.
    ///
    /// # Errors
    /// When the bytes are no protobuf message.
    pub fn of(raw: &[u8]) -> Result<Self, Malformed> {
        let mut frame = Xxh64::new(SEED);
        let mut found = Self { whole: xxhash_rust::xxh64::xxh64(raw, SEED), ..Self::default() };
        let mut rest = raw;
        while !rest.is_empty() {
            let (field, after) = field(rest)?;
            let length = rest.len() - after.len();
            match field.number {
                FILTER_CHAINS => found.chains.push(identity(field.payload)),
                DEFAULT_FILTER_CHAIN => found.default_chain = identity(field.payload),
                FILTER_CHAIN_MATCHER => {}
                _ => frame.update(rest.get(..length).unwrap_or_default()),
            }
            rest = after;
        }
        found.frame = frame.digest();
        Ok(found)
    }
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf message")]
pub struct Malformed;

struct Field<'a> {
    number: u64,
    payload: &'a [u8],
}

/// 0 stands for "no chain", so no chain hashes to it.
fn identity(payload: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(payload, SEED).max(1)
}

fn field(raw: &[u8]) -> Result<(Field<'_>, &[u8]), Malformed> {
    let (tag, rest) = varint(raw)?;
    let (skip, rest) = match tag & 7 {
        0 => {
            let (_, after) = varint(rest)?;
            (rest.len() - after.len(), rest)
        }
        1 => (8, rest),
        2 => {
            let (length, rest) = varint(rest)?;
            (usize::try_from(length).map_err(|_| Malformed)?, rest)
        }
        5 => (4, rest),
        _ => return Err(Malformed),
    };
    let (payload, rest) = rest.split_at_checked(skip).ok_or(Malformed)?;
    Ok((Field { number: tag >> 3, payload }, rest))
}

fn varint(raw: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0_u64;
    for (index, byte) in raw.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, raw.get(index + 1..).unwrap_or_default()));
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn chain(name: &str) -> FilterChain {
        FilterChain { name: name.to_owned(), ..FilterChain::default() }
    }

    fn of(listener: &Listener) -> Fingerprint {
        Fingerprint::of(&listener.encode_to_vec()).expect("well formed")
    }

    #[test]
    fn a_changed_chain_leaves_the_frame_alone_and_the_rest_does_not() {
        let base = Listener { name: "l".into(), filter_chains: vec![chain("a"), chain("b")], ..Listener::default() };
        let chains = Listener { filter_chains: vec![chain("a"), chain("c")], ..base.clone() };
        let frame = Listener { name: "m".into(), ..base.clone() };
        let default = Listener { default_filter_chain: Some(chain("d")), ..base.clone() };
        let base = of(&base);
        assert_eq!(of(&chains).frame, base.frame);
        assert_eq!(of(&chains).chains[0], base.chains[0]);
        assert_ne!(of(&chains).chains[1], base.chains[1]);
        assert_ne!(of(&chains).whole, base.whole);
        assert_ne!(of(&frame).frame, base.frame);
        assert_eq!(of(&default).frame, base.frame);
        assert_eq!((base.default_chain, of(&default).default_chain == 0), (0, false));
    }

    proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Fingerprint::of(&raw);
        }
    }
}

//! The requests and their answers: made from a number, so that both ends can tell whether they were carried unharmed.

use std::time::Duration;

use bytes::Bytes;

use super::diary::RequestId;
use super::fault::Protocol;

/// The header that carries a request's number, both ways.
pub(super) const ID: &str = "x-drill-id";
/// The header that says how long a request's body is.
pub(super) const LENGTH: &str = "x-drill-length";
/// How long bodies of answers are.
pub(super) const ANSWER: usize = 300;
/// How much of a request the proxy keeps to be able to send it again.
pub(super) const KEPT: usize = 64 << 10;

/// How long the body of a request is: most have none, some a few kilobytes, and one in a hundred is longer than what is
/// kept for a retry.
pub(super) fn body_length(id: RequestId, protocol: Protocol) -> usize {
    let random = fastrand::Rng::with_seed(id).u64(..);
    let length = usize::try_from(random >> 32 & 0x1fff).unwrap_or_default();
    match random % 100 {
        0 => KEPT + (32 << 10) + length,
        1..=20 => 1 + length,
        _ if protocol == Protocol::Grpc => 1 + length % 200,
        _ => 0,
    }
}

/// Whether a request is so long that retries of it may be given up.
pub(super) fn is_too_long(id: RequestId, protocol: Protocol) -> bool {
    body_length(id, protocol) >= KEPT
}

/// How long a client waits that does not wait for long; one in fifty is one, and mostly answered none the less.
pub(super) fn is_abandoned(id: RequestId) -> Option<Duration> {
    id.is_multiple_of(50).then(|| Duration::from_millis(1 + id / 50 % 100))
}

/// The body of a message with this number and length, as it goes over the wire: by gRPC it has a frame around it.
pub(super) fn body(id: RequestId, length: usize, protocol: Protocol) -> Bytes {
    let pattern = Pattern::new(id, length, protocol);
    (0..pattern.length).map(|index| pattern.octet(index)).collect()
}

/// A check of a body as it comes.
#[derive(Debug)]
pub(super) struct Check {
    pattern: Pattern,
    come: usize,
    wrong: bool,
}

impl Check {
    /// Of the body with this number and length.
    pub(super) fn new(id: RequestId, length: usize, protocol: Protocol) -> Self {
        Self { pattern: Pattern::new(id, length, protocol), come: 0, wrong: false }
    }

    /// More of it has come.
    pub(super) fn add(&mut self, data: &[u8]) {
        for (index, byte) in data.iter().enumerate() {
            self.wrong |= *byte != self.pattern.octet(self.come + index);
        }
        self.come += data.len();
    }

    /// Whether all of it has come, and nothing else.
    pub(super) const fn is_right(&self) -> bool {
        !self.wrong && self.come == self.pattern.length
    }
}

/// What the bytes of a body are.
#[derive(Debug)]
struct Pattern {
    id: RequestId,
    /// With the frame.
    length: usize,
    frame: [u8; FRAME],
    framed: usize,
}

/// How long the frame around a gRPC message is: a flag, and its length.
const FRAME: usize = 5;

impl Pattern {
    fn new(id: RequestId, length: usize, protocol: Protocol) -> Self {
        let framed = if protocol == Protocol::Grpc { FRAME } else { 0 };
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        Self { id, length: framed + length, frame: [0, a, b, c, d], framed }
    }

    fn octet(&self, index: usize) -> u8 {
        match index.checked_sub(self.framed) {
            // Every position and every request differ from their neighbours, with a period that no buffer has.
            Some(index) => (self.id.wrapping_mul(31).wrapping_add(index as u64) % 251).to_le_bytes()[0],
            None => self.frame.get(index).copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_finds_what_is_missing_added_or_of_another() {
        let right = body(7, 1000, Protocol::Grpc);
        assert_eq!(right[..FRAME], [0, 0, 0, 3, 232]);
        let judge = |pieces: &[&[u8]]| {
            let mut check = Check::new(7, 1000, Protocol::Grpc);
            pieces.iter().for_each(|piece| check.add(piece));
            check.is_right()
        };
        assert!(judge(&[&right]) && judge(&[&right[..10], &right[10..]]));
        assert!(!judge(&[&right[..1004]]));
        assert!(!judge(&[&right, b"x"]));
        assert!(!judge(&[&right[..10], &right[..995]]));
        assert!(!judge(&[&body(8, 1000, Protocol::Grpc)]));
    }

    #[test]
    fn most_requests_are_short_and_few_cannot_be_kept() {
        for protocol in Protocol::ALL {
            let long = (0..10_000).filter(|id| is_too_long(*id, protocol)).count();
            assert!((50..200).contains(&long), "{protocol}: {long}");
        }
        let without = (0..10_000).filter(|id| body_length(*id, Protocol::Http1) == 0).count();
        assert!((7000..9000).contains(&without), "{without}");
    }
}

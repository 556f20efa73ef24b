//! What waits to be written to a socket: heads, framing and small data in one growing piece, larger data as it came.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::chars::count_line_breakers;
use super::encode::EncodeError;

/// An output queue made for one vectored write. Small pieces are copied into its tail, whose memory is used again once
/// everything is written; larger ones keep their bytes.
#[derive(Debug, Default)]
pub struct WriteBuf {
    /// Pieces before the tail, oldest first.
    queue: VecDeque<Bytes>,
    queued: usize,
    tail: BytesMut,
}

/// Data up to this size is copied behind the head: cheaper than another entry of the vector.
const COPY: usize = 1024;

impl WriteBuf {
    /// An empty queue that allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued + self.tail.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued == 0 && self.tail.is_empty()
    }

    /// Fills `slices` with what waits, oldest first; answers how many it used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let mut used = 0;
        for (slot, piece) in slices.iter_mut().zip(self.queue.iter().map(|piece| &piece[..]).chain(tail)) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Drops the `n` bytes that were written.
    pub fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let Some(first) = self.queue.front_mut() else {
                if n >= self.tail.len() {
                    self.tail.clear();
                } else {
                    self.tail.advance(n);
                }
                return;
            };
            let step = n.min(first.len());
            first.advance(step);
            if first.is_empty() {
                self.queue.pop_front();
            }
            self.queued -= step;
            n -= step;
        }
    }

    /// Gives the memory back, for a connection that goes idle. What waits is kept.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Appends data as it is: tunnel bytes, or a body framed by someone else.
    pub fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.tail.extend_from_slice(&data);
            return;
        }
        self.flush_tail();
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Appends a few bytes by copying them.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Grows the tail by `n` zero bytes and hands them out to be filled.
    pub(super) fn grow(&mut self, n: usize) -> &mut [u8] {
        let at = self.tail.len();
        self.tail.resize(at + n, 0);
        &mut self.tail[at..]
    }

    /// Ends a section of `size` bytes just filled. It must have `lines` lines and no NUL; otherwise a value would have
    /// started a line of its own, and the section is taken back.
    pub(super) fn seal(&mut self, size: usize, lines: usize) -> Result<(), EncodeError> {
        let start = self.tail.len().saturating_sub(size);
        if count_line_breakers(&self.tail[start..]) == 2 * lines {
            return Ok(());
        }
        self.tail.truncate(start);
        Err(EncodeError::InvalidHead)
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queued += self.tail.len();
            self.queue.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_whatever_the_writes_take() {
        let big = Bytes::from(vec![b'x'; 3000]);
        for step in [1, 7, 1000, 10_000] {
            let mut out = WriteBuf::new();
            out.put(b"head");
            out.push(Bytes::from_static(b"small"));
            out.push(big.clone());
            out.put(b"tail");
            let whole = [b"headsmall", &big[..], b"tail"].concat();
            assert_eq!(out.len(), whole.len());
            let mut written = Vec::new();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let used = out.slices(&mut slices);
                let ready: Vec<u8> = slices[..used].iter().flat_map(|s| s.iter().copied()).take(step).collect();
                out.advance(ready.len());
                written.extend(ready);
            }
            assert_eq!(written, whole);
        }
    }
}

//! Authorities that the codec cannot be given.
//!
//! `h2` takes an authority as a part of a URI (RFC 3986); Envoy says whatever it is told to, as the cluster's name
//! `outbound|80||x` that its health checks ask for. On a connection whose requests all go to one such authority, `h2` gets
//! a stand-in of the same length, and where that leaves as a literal the authority takes its place. Later requests refer to
//! the literal by its index: the lengths are the same, so that the peer's table evicts what `h2` believes it evicts.

use bytes::{Bytes, BytesMut};

use super::frame::{self, Frame, HEAD};
use super::hpack::integer;
use super::inbound::PREFACE;

/// The longest authority that is sent this way: with it a head still fits in a frame.
pub const LONGEST_AUTHORITY: usize = 4096;

/// The index of `:authority` in HPACK's static table.
const AUTHORITY: u32 = 1;

/// Puts an authority in the place of its stand-in, in what one connection writes.
#[derive(Debug)]
pub struct StandIn {
    authority: Bytes,
    /// Bytes that pass as they are: of the preface, or of a payload.
    passing: usize,
    /// The beginning of a frame that is not decided on yet.
    held: BytesMut,
    out: BytesMut,
}

impl StandIn {
    /// For a connection that has written nothing yet.
    #[must_use]
    pub fn new(authority: Bytes) -> Self {
        Self { authority, passing: PREFACE.len(), held: BytesMut::new(), out: BytesMut::new() }
    }

    /// Takes what the codec writes, in pieces of any size.
    pub fn take(&mut self, mut bytes: &[u8]) {
        loop {
            let passing = self.passing.min(bytes.len());
            self.out.extend_from_slice(split(&mut bytes, passing));
            self.passing -= passing;
            if self.passing > 0 || !self.hold(&mut bytes, HEAD) {
                return;
            }
            let Some(head) = self.held.first_chunk::<HEAD>() else { return };
            let frame = Frame::parse(*head);
            if frame.kind != frame::HEADERS || frame.has(frame::PADDED) || frame.has(frame::HAS_PRIORITY) {
                self.out.unsplit(self.held.split());
                self.passing = frame.length as usize;
                continue;
            }
            if !self.hold(&mut bytes, HEAD + frame.length as usize) {
                return;
            }
            let whole = self.held.split();
            self.write(&whole);
        }
    }

    /// What is to be written now.
    pub const fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Holds `want` bytes; whether there are as many.
    fn hold(&mut self, bytes: &mut &[u8], want: usize) -> bool {
        let taken = want.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(split(bytes, taken));
        self.held.len() >= want
    }

    fn write(&mut self, frame: &[u8]) {
        let (head, block) = frame.split_at(HEAD);
        let Some(value) = literal_authority(block) else { return self.out.extend_from_slice(frame) };
        let mut text = length(self.authority.len());
        text.extend_from_slice(&self.authority);
        let size = u32::try_from(block.len() - value.len() + text.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.out.extend_from_slice(&size[1..]);
        self.out.extend_from_slice(&head[3..]);
        self.out.extend_from_slice(&block[..value.start]);
        self.out.extend_from_slice(&text);
        self.out.extend_from_slice(&block[value.end..]);
    }
}

fn split<'b>(bytes: &mut &'b [u8], at: usize) -> &'b [u8] {
    let (first, rest) = bytes.split_at(at);
    *bytes = rest;
    first
}

/// Where the value of `:authority` lies in a block, with its length in front, if it is said there (RFC 7541 section 6).
fn literal_authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    while let Some(first) = block.get(at) {
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, taken) = integer(block.get(at..)?, prefix).ok()??;
        at += taken;
        if !literal {
            continue;
        }
        if index == 0 {
            at = string_end(block, at)?;
        }
        let end = string_end(block, at)?;
        if index == AUTHORITY {
            return Some(at..end);
        }
        at = end;
    }
    None
}

fn string_end(block: &[u8], at: usize) -> Option<usize> {
    let (length, taken) = integer(block.get(at..)?, 7).ok()??;
    let end = at + taken + length as usize;
    (end <= block.len()).then_some(end)
}

/// The length of a string that is not Huffman-coded (RFC 7541 sections 5.1 and 5.2).
fn length(mut length: usize) -> Vec<u8> {
    const FULL: u8 = 0x7f;
    let Some(left) = length.checked_sub(FULL.into()) else {
        return vec![u8::try_from(length).unwrap_or(FULL)];
    };
    let mut bytes = vec![FULL];
    length = left;
    while length >= 0x80 {
        bytes.push(0x80 | u8::try_from(length & 0x7f).unwrap_or(FULL));
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap_or(FULL));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// However the bytes are cut, the same leaves, and only the value is another.
    #[test]
    fn the_authority_takes_the_place_of_its_stand_in() {
        // :method POST, :scheme http, :authority (Huffman "000"), :path "/", then a field of its own.
        let block = b"\x83\x86\x41\x82\x00\x01\x84\x40\x01a\x01b";
        let settings = frame(4, 0, &[0, 3, 0, 0, 0, 9]);
        let data = frame(0, 1, b"A\x41\x01x");
        let later = frame(1, 5, b"\x83\x86\xbf\x84");
        let written = [PREFACE, &settings[..], &frame(1, 4, block), &data, &later].concat();
        let there = frame(1, 4, b"\x83\x86\x41\x03a|b\x84\x40\x01a\x01b");
        let expected = [PREFACE, &settings[..], &there, &data, &later].concat();
        for piece in 1..written.len() {
            let mut stand_in = StandIn::new(Bytes::from_static(b"a|b"));
            for piece in written.chunks(piece) {
                stand_in.take(piece);
            }
            assert_eq!(stand_in.out()[..], expected[..], "in pieces of {piece}");
        }
    }

    #[test]
    fn long_lengths_take_more_bytes() {
        for (number, bytes) in
            [(0, &[0][..]), (126, &[126]), (127, &[127, 0]), (254, &[127, 127]), (255, &[127, 128, 1])]
        {
            assert_eq!(length(number), bytes, "{number}");
            let text = [&length(number)[..], &vec![b'x'; number]].concat();
            assert_eq!(string_end(&text, 0), Some(text.len()), "{number}");
        }
    }

    #[test]
    fn blocks_without_it_pass() {
        for block in [&b"\x82\x84"[..], b"", b"\x41", b"\x41\x7f", b"\x00\x01a", b"\x40\x01a\x7f\xff"] {
            let mut stand_in = StandIn::new(Bytes::from_static(b"a|b"));
            let written = [PREFACE, &frame(1, 5, block)[..]].concat();
            stand_in.take(&written);
            assert_eq!(stand_in.out()[..], written[..], "{block:?}");
        }
    }
}

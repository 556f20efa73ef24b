//! Frames as they lie in the byte stream (RFC 9113 section 4.1).

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// A type nobody defines: a codec that meets it passes over the frame.
pub(super) const IGNORED: u8 = 0xff;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const HAS_PRIORITY: u8 = 0x20;

/// Bytes in front of a frame's payload.
pub(super) const HEAD: usize = 9;
/// The largest payload taken: what `SETTINGS_MAX_FRAME_SIZE` says unless it is sent.
pub(super) const MAX_PAYLOAD: u32 = 16_384;

/// What stands in front of a frame's payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
}

impl Frame {
    pub(super) const fn parse(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A RST_STREAM frame.
pub(super) fn reset(stream: u32, code: u32) -> [u8; HEAD + 4] {
    let mut bytes = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (head, payload) = bytes.split_at_mut(HEAD);
    if let Some(place) = head.get_mut(5..) {
        place.copy_from_slice(&stream.to_be_bytes());
    }
    payload.copy_from_slice(&code.to_be_bytes());
    bytes
}

/// Collects a frame's head from pieces of the byte stream.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    bytes: [u8; HEAD],
    have: usize,
}

impl HeadReader {
    /// Takes bytes off the front of `bytes`; the frame, once its head is complete.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEAD>()
        {
            *bytes = rest;
            return Some(Frame::parse(*head));
        }
        while self.have < HEAD {
            let (byte, rest) = bytes.split_first()?;
            self.bytes[self.have] = *byte;
            self.have += 1;
            *bytes = rest;
        }
        self.have = 0;
        Some(Frame::parse(self.bytes))
    }

    /// Whether a head has begun.
    pub(super) const fn is_inside(&self) -> bool {
        self.have > 0
    }
}

/// A number at the front of a payload.
pub(super) fn word(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The answer to the PING by which `h2` learns that the peer has seen its GOAWAY.
pub const SHUTDOWN_ANSWER: [u8; 17] = [0, 0, 8, PING, ACK, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// A GOAWAY frame (RFC 9113 section 6.8).
#[must_use]
pub fn goaway(last_stream: u32, code: u32) -> [u8; 17] {
    let mut frame = [0; 17];
    frame[2] = 8;
    frame[3] = GOAWAY;
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame[13..].copy_from_slice(&code.to_be_bytes());
    frame
}

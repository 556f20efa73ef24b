//! What this side writes: frames counted, streams ended.

use h2::Reason;

use super::frame::{self, Frame};
use super::inbound::flooded;
use super::streams::By;
use super::{Inspector, Role};

/// Payload whose first words are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    None,
    /// Of RST_STREAM: what was read of the error code.
    Reset(u32),
    /// Of GOAWAY: what was read of the last stream and the error code.
    GoAway(u64),
}

impl Inspector {
    /// Bytes left for the peer.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        self.counts.tx_bytes += bytes.len() as u64;
        let preface = self.preface_out.min(bytes.len());
        self.preface_out -= preface;
        bytes = bytes.get(preface..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.out_left == 0 {
                let Some(frame) = self.head_out.read(&mut bytes) else { return };
                self.out_left = frame.length;
                self.sending(&frame);
                continue;
            }
            let taken = bytes.len().min(self.out_left as usize);
            let (piece, rest) = bytes.split_at(taken);
            self.coded(piece);
            bytes = rest;
            self.out_left -= u32::try_from(taken).unwrap_or(self.out_left);
        }
    }

    /// All that came has been read: what was to be answered has been.
    pub const fn drained(&mut self) {
        self.tally.paid();
    }

    fn owe(&mut self) {
        if let Err(flood) = self.tally.owe(&self.options.protocol)
            && self.fault.is_none()
        {
            self.fault = Some(flooded(flood, 0, &mut self.counts));
        }
    }

    fn sending(&mut self, frame: &Frame) {
        self.out_code = Code::None;
        match frame.kind {
            frame::DATA => {
                self.tally.data_sent += 1;
                self.tally.window -= i64::from(frame.length);
                self.streams.sent(frame.stream, frame.length);
                if frame.has(frame::END_STREAM) {
                    self.streams.ended(frame.stream, By::Us);
                }
            }
            frame::HEADERS => {
                if self.role == Role::Client
                    && self.streams.get(frame.stream).is_none()
                    && frame.stream > self.last_stream
                {
                    self.last_stream = frame.stream;
                    self.tally.streams += 1;
                    self.streams.open_own(frame.stream);
                }
                if frame.has(frame::END_STREAM) {
                    self.streams.ended(frame.stream, By::Us);
                }
            }
            frame::RST_STREAM => {
                self.counts.tx_reset += 1;
                self.out_code = Code::Reset(1);
                self.streams.reset(frame.stream, By::Us);
                self.owe();
            }
            frame::GOAWAY => self.out_code = Code::GoAway(1),
            _ => {}
        }
    }

    /// Reads the code of a payload, whose number of digits so far is marked by a leading one.
    fn coded(&mut self, piece: &[u8]) {
        match &mut self.out_code {
            Code::None => {}
            Code::Reset(code) => {
                for byte in piece {
                    if *code >> 24 != 0 {
                        // The fourth byte completes it.
                        if *code << 8 | u32::from(*byte) == u32::from(Reason::REFUSED_STREAM) {
                            self.counts.stream_refused_errors += 1;
                        }
                        self.out_code = Code::None;
                        return;
                    }
                    *code = *code << 8 | u32::from(*byte);
                }
            }
            Code::GoAway(code) => {
                for byte in piece {
                    if *code >> 56 != 0 {
                        let whole = *code << 8 | u64::from(*byte);
                        // A first GOAWAY names the highest stream there can be, and is only a notice.
                        if whole >> 32 != 0x7fff_ffff && self.role == Role::Server {
                            self.counts.goaway_sent += 1;
                        }
                        self.out_code = Code::None;
                        return;
                    }
                    *code = *code << 8 | u64::from(*byte);
                }
            }
        }
    }
}

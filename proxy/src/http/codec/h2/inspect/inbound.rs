//! What the peer sends: each frame judged before the codec sees the whole of it.

use filters::flags::details;
use h2::Reason;

use super::frame::{self, Frame, SHUTDOWN_ANSWER};
use super::limits::Flood;
use super::streams::By;
use super::{Fault, Inspector, Refusal, Role};

/// What a client says first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// CONTINUATION frames of one header block.
const MAX_CONTINUATIONS: u32 = 8;
/// Entries of one SETTINGS frame.
const MAX_SETTINGS: u32 = 32;
pub(super) const MAX_WINDOW: i64 = 0x7fff_ffff;

/// A verdict of the library Envoy uses, which Envoy makes an error of its codec.
const CALLBACK_FAILED: &str = "codec_error:The_user_callback_function_failed";

pub(super) type Verdict = Result<(), Fault>;

impl Fault {
    /// The connection closes without a word.
    pub(super) const fn silent() -> Self {
        Self { goaway: None, protocol_error: true, details: CALLBACK_FAILED, offender: None }
    }

    const fn flood(flood: Flood) -> Self {
        Self { goaway: None, protocol_error: false, details: flood.details(), offender: None }
    }

    pub(super) const fn of(self, stream: u32, details: &'static str) -> Self {
        Self { offender: Some((stream, details)), ..self }
    }
}

impl Inspector {
    /// Bytes came from the peer: how many of them the codec may see. Fewer than all only behind a [`Fault`].
    pub fn received(&mut self, bytes: &mut [u8]) -> usize {
        self.counts.rx_bytes += bytes.len() as u64;
        if self.fault.is_some() {
            return 0;
        }
        let mut at = match self.read_preface(bytes) {
            Ok(at) => at,
            Err(fault) => return self.fail(fault, 0),
        };
        // Where the frame being read begins; 0 when it began before these bytes.
        let mut begins = 0;
        // The place of its flags, if it is among these bytes.
        let mut flags = None;
        while at < bytes.len() {
            if self.left == 0 {
                if !self.head_in.is_inside() {
                    begins = at;
                }
                let mut rest = bytes.get(at..).unwrap_or_default();
                let before = rest.len();
                let Some(frame) = self.head_in.read(&mut rest) else { break };
                at += before - rest.len();
                self.heard = true;
                flags = at.checked_sub(frame::HEAD).map(|head| head + 4);
                if let Err(fault) = self.begin(frame) {
                    return self.fail(fault, begins);
                }
                self.hide_end(&frame, flags, bytes);
                let held = self.shutdown_held
                    && frame.kind == frame::PING
                    && at.checked_sub(frame::HEAD).and_then(|at| bytes.get(at..)?.first_chunk())
                        == Some(&SHUTDOWN_ANSWER);
                let unheeded = match frame.kind {
                    // Long without meaning; a codec may still object to what it says.
                    frame::PRIORITY => true,
                    // A client that goes away closes when it has what it asked for; the codec would not wait. One that
                    // serves no more is asked no more, and streams it will not serve are refused one by one.
                    frame::GOAWAY => true,
                    _ => held,
                };
                if unheeded && let Some(kind) = at.checked_sub(frame::HEAD - 3).and_then(|at| bytes.get_mut(at)) {
                    *kind = frame::IGNORED;
                }
                if frame.length > 0 {
                    continue;
                }
            }
            let taken = (self.left as usize).min(bytes.len() - at);
            let piece = bytes.get(at..at + taken).unwrap_or_default();
            self.left -= u32::try_from(taken).unwrap_or(self.left);
            if let Err(fault) = self.payload(piece) {
                return self.fail(fault, begins);
            }
            for place in self.mends.drain(..) {
                if let Some(bad) = bytes.get_mut(at + place.start..at + place.end) {
                    bad.fill(b'x');
                }
            }
            if self.left == 0 {
                let frame = self.frame;
                self.hide_end(&frame, flags, bytes);
            }
            at += taken;
        }
        self.fault = self.late_fault.take();
        bytes.len()
    }

    /// Takes a frame's END_STREAM away, as far as it has not passed.
    fn hide_end(&self, frame: &Frame, flags: Option<usize>, bytes: &mut [u8]) {
        if matches!(frame.kind, frame::DATA | frame::HEADERS)
            && self.hides_end(frame)
            && let Some(flags) = flags.and_then(|at| bytes.get_mut(at))
        {
            *flags &= !frame::END_STREAM;
        }
    }

    fn fail(&mut self, fault: Fault, passes: usize) -> usize {
        self.fault = Some(fault);
        passes
    }

    fn read_preface(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let taken = self.preface.min(bytes.len());
        let expected = PREFACE.len() - self.preface;
        if bytes.get(..taken) != PREFACE.get(expected..expected + taken) {
            return Err(Fault { details: "codec_error:Received_bad_client_magic_byte_string", ..Fault::silent() });
        }
        self.preface -= taken;
        Ok(taken)
    }

    /// Ends the connection with GOAWAY.
    pub(super) const fn goaway(&self, reason: Reason) -> Fault {
        let last = match self.role {
            Role::Server => self.last_stream,
            Role::Client => 0,
        };
        Fault { goaway: Some((last, reason)), ..Fault::silent() }
    }

    /// Whether the stream was never opened.
    const fn is_idle(&self, stream: u32) -> bool {
        stream > self.last_stream || stream.is_multiple_of(2)
    }

    /// A frame's head is there.
    fn begin(&mut self, frame: Frame) -> Verdict {
        self.frame = frame;
        self.left = frame.length;
        let refuse = |this: &Self, reason| Err(this.goaway(reason));
        if !self.settings && (frame.kind != frame::SETTINGS || frame.has(frame::ACK)) {
            return refuse(self, Reason::PROTOCOL_ERROR);
        }
        self.settings = true;
        if frame.length > frame::MAX_PAYLOAD {
            return refuse(self, Reason::FRAME_SIZE_ERROR);
        }
        if let Some(block) = &mut self.block {
            if frame.kind != frame::CONTINUATION || frame.stream != block.stream {
                return refuse(self, Reason::PROTOCOL_ERROR);
            }
            block.continuations += 1;
            if block.continuations > MAX_CONTINUATIONS {
                let details = "codec_error:Too_many_CONTINUATION_frames_following_a_HEADER_frame";
                return Err(Fault { details, ..Fault::silent() });
            }
        }
        match frame.kind {
            frame::DATA => self.begin_data(&frame)?,
            frame::CONTINUATION if self.block.is_none() => return refuse(self, Reason::PROTOCOL_ERROR),
            frame::HEADERS if frame.has(frame::PADDED) && frame.length == 0 => {
                return refuse(self, Reason::PROTOCOL_ERROR);
            }
            frame::HEADERS if frame.has(frame::HAS_PRIORITY) && frame.length < 5 => {
                return refuse(self, Reason::FRAME_SIZE_ERROR);
            }
            frame::PRIORITY if frame.length != 5 => return refuse(self, Reason::FRAME_SIZE_ERROR),
            frame::RST_STREAM | frame::WINDOW_UPDATE if frame.length != 4 => {
                return refuse(self, Reason::FRAME_SIZE_ERROR);
            }
            frame::PING if frame.length != 8 => return refuse(self, Reason::FRAME_SIZE_ERROR),
            frame::GOAWAY if frame.length < 8 => return refuse(self, Reason::FRAME_SIZE_ERROR),
            frame::SETTINGS if !frame.length.is_multiple_of(6) || frame.has(frame::ACK) && frame.length > 0 => {
                return refuse(self, Reason::FRAME_SIZE_ERROR);
            }
            frame::SETTINGS if frame.length / 6 > MAX_SETTINGS => return refuse(self, Reason::ENHANCE_YOUR_CALM),
            frame::PUSH_PROMISE => return Err(Fault::silent()),
            _ => {}
        }
        // Frames with padding are counted when it is known how much there is.
        if matches!(frame.kind, frame::DATA | frame::HEADERS) {
            return Ok(());
        }
        self.tally(&frame, frame.length)
    }

    pub(super) fn tally(&mut self, frame: &Frame, content: u32) -> Verdict {
        self.tally
            .received(frame, content, &self.options.protocol)
            .map_err(|flood| flooded(flood, frame.stream, &mut self.counts))
    }

    fn begin_data(&self, frame: &Frame) -> Verdict {
        if frame.stream == 0 || self.is_idle(frame.stream) {
            return Err(self.goaway(Reason::PROTOCOL_ERROR));
        }
        if self.streams.get(frame.stream).is_some_and(|stream| stream.remote_done) {
            return Err(self.goaway(Reason::STREAM_CLOSED));
        }
        if frame.has(frame::PADDED) && frame.length == 0 {
            return Err(self.goaway(Reason::PROTOCOL_ERROR));
        }
        Ok(())
    }

    /// A piece of the frame's payload; the last one when nothing is left.
    fn payload(&mut self, piece: &[u8]) -> Verdict {
        let frame = self.frame;
        if frame.kind == frame::DATA {
            return self.data(&frame, piece);
        }
        if frame.kind > frame::CONTINUATION {
            return Ok(());
        }
        if self.left > 0 {
            self.pending.extend_from_slice(piece);
            return Ok(());
        }
        if self.pending.is_empty() {
            return self.whole(&frame, piece);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(piece);
        self.whole(&frame, &joined)?;
        if !self.mends.is_empty() {
            // Some of it has passed already.
            self.mends.clear();
            return Err(Fault::silent());
        }
        Ok(())
    }

    /// Bodies pass by: only the length of padding is looked at, and the end.
    fn data(&mut self, frame: &Frame, piece: &[u8]) -> Verdict {
        let first = piece.len() + self.left as usize == frame.length as usize;
        if first {
            let mut content = frame.length;
            if frame.has(frame::PADDED)
                && let Some(padding) = piece.first()
            {
                let padding = u32::from(*padding) + 1;
                if padding > frame.length {
                    return Err(self.goaway(Reason::PROTOCOL_ERROR));
                }
                content -= padding;
            }
            self.tally(frame, content)?;
            self.body(frame.stream, content);
        }
        if self.left == 0 && frame.has(frame::END_STREAM) {
            self.streams.ended(frame.stream, By::Peer);
            self.note_end();
        }
        Ok(())
    }

    /// So many bytes of body come on a stream.
    fn body(&mut self, number: u32, content: u32) {
        let Some(stream) = self.streams.get_mut(number) else { return };
        stream.body += u64::from(content);
        if self.role == Role::Client && content > 0 && stream.message.has_no_body() {
            let details = details::HTTP2_VIOLATION;
            self.spoil(number, false, Refusal { reason: Reason::PROTOCOL_ERROR, details, protocol_error: true });
        }
    }

    /// A frame that is not DATA is complete.
    fn whole(&mut self, frame: &Frame, payload: &[u8]) -> Verdict {
        match frame.kind {
            frame::HEADERS => self.headers(frame, payload),
            frame::CONTINUATION => self.fragment(payload, frame.has(frame::END_HEADERS)),
            frame::SETTINGS => self.settings(frame, payload),
            frame::RST_STREAM => self.reset(frame),
            frame::WINDOW_UPDATE => self.window_update(frame, payload),
            frame::PING | frame::GOAWAY if frame.stream != 0 => Err(Fault::silent()),
            frame::PING => {
                self.pong |= frame.has(frame::ACK);
                Ok(())
            }
            frame::GOAWAY => self.goaway_received(payload),
            frame::PRIORITY if frame.stream == 0 => Err(Fault::silent()),
            _ => Ok(()),
        }
    }

    fn settings(&mut self, frame: &Frame, payload: &[u8]) -> Verdict {
        if frame.stream != 0 {
            return Err(Fault::silent());
        }
        if frame.has(frame::ACK) {
            // The codec sends one SETTINGS frame per connection, so there is one answer.
            return if std::mem::replace(&mut self.settings_known, true) { Err(Fault::silent()) } else { Ok(()) };
        }
        for entry in payload.chunks_exact(6) {
            let [i0, i1, v0, v1, v2, v3] = entry else { continue };
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            let fine = match u16::from_be_bytes([*i0, *i1]) {
                2 => value == 0 || value == 1 && self.role == Role::Server,
                4 => self.streams.window_begins(value),
                5 => (16_384..=0x00ff_ffff).contains(&value),
                8 => value <= 1,
                _ => true,
            };
            if !fine {
                return Err(Fault::silent());
            }
        }
        Ok(())
    }

    fn reset(&mut self, frame: &Frame) -> Verdict {
        if frame.stream == 0 || self.is_idle(frame.stream) {
            return Err(Fault::silent());
        }
        if self.streams.get(frame.stream).is_some() {
            self.counts.rx_reset += 1;
            self.streams.reset(frame.stream, By::Peer);
        }
        if self.role == Role::Server && !self.tally.reset(self.began.elapsed().as_secs(), &self.options.protocol) {
            let fault = self.goaway(Reason::INTERNAL_ERROR);
            self.late_fault.get_or_insert(fault);
        }
        Ok(())
    }

    fn window_update(&mut self, frame: &Frame, payload: &[u8]) -> Verdict {
        let more = i64::from(frame::word(payload) & 0x7fff_ffff);
        if frame.stream == 0 {
            self.tally.window += more;
            return if more == 0 || self.tally.window > MAX_WINDOW { Err(Fault::silent()) } else { Ok(()) };
        }
        if self.is_idle(frame.stream) || !self.streams.widen(frame.stream, more) {
            Err(Fault::silent().of(frame.stream, details::HTTP2_UNKNOWN_ERROR))
        } else {
            Ok(())
        }
    }
}

/// The end by a flood on this stream.
pub(super) const fn flooded(flood: Flood, stream: u32, counts: &mut super::Counts) -> Fault {
    flood.count(counts);
    let fault = Fault::flood(flood);
    match flood {
        Flood::EmptyFrames => fault.of(stream, details::HTTP2_EMPTY_FRAMES_FLOOD),
        _ => fault,
    }
}

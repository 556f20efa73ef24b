//! Header blocks: heads and trailers, judged field by field.

use std::ops::Range;

use bytes::Bytes;
use filters::flags::details;
use h2::Reason;

use super::field::{Field, Name, Value};
use super::frame::{self, Frame};
use super::hpack::Literal;
use super::inbound::Verdict;
use super::message::{InvalidField, Message, Violation};
use super::streams::By;
use super::{Fault, Inspector, Refusal, Role};
use crate::config::hcm::Underscores;

/// A header block that has begun and not ended.
pub(super) struct Block {
    pub(super) stream: u32,
    end_stream: bool,
    kind: Kind,
    message: Message,
    /// Fields and bytes so far, as Envoy counts them.
    fields: u32,
    size: u32,
    pub(super) continuations: u32,
    path: Option<Bytes>,
    refusal: Option<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Trailers,
    /// Of a stream that is over: read for the table's sake only.
    Stale,
}

/// Something is wrong with a message.
enum Wrong {
    Field,
    Message,
}

impl Inspector {
    pub(super) fn headers(&mut self, frame: &Frame, payload: &[u8]) -> Verdict {
        let mut block = payload;
        let mut padding = 0;
        if frame.has(frame::PADDED)
            && let Some((length, rest)) = block.split_first()
        {
            (padding, block) = (usize::from(*length), rest);
        }
        let mut depends_on = None;
        if frame.has(frame::HAS_PRIORITY) {
            depends_on = Some(frame::word(block) & 0x7fff_ffff);
            block = block.get(5..).ok_or_else(|| self.goaway(Reason::PROTOCOL_ERROR))?;
        }
        let length = block.len().checked_sub(padding).ok_or_else(|| self.goaway(Reason::PROTOCOL_ERROR))?;
        let kind = self.kind(frame, depends_on)?;
        self.tally(frame, frame.length.saturating_sub(u32::from(frame.has(frame::PADDED)) + padding as u32))?;
        let message = self.streams.get(frame.stream).map(|stream| stream.message).unwrap_or_default();
        self.block = Some(Block {
            stream: frame.stream,
            end_stream: frame.has(frame::END_STREAM),
            kind,
            message,
            fields: 0,
            size: 0,
            continuations: 0,
            path: None,
            refusal: None,
        });
        let skipped = payload.len() - block.len();
        let judged = self.fragment(block.get(..length).unwrap_or_default(), frame.has(frame::END_HEADERS));
        for place in &mut self.mends {
            *place = place.start + skipped..place.end + skipped;
        }
        judged
    }

    /// What a header block on this stream is; opens the stream if it is new.
    fn kind(&mut self, frame: &Frame, depends_on: Option<u32>) -> Result<Kind, Fault> {
        let number = frame.stream;
        if let Some(stream) = self.streams.get_mut(number) {
            if stream.remote_done {
                return Err(Fault::silent());
            }
            if !stream.head_seen {
                return Ok(Kind::Head);
            }
            if self.role == Role::Server {
                self.counts.trailers += 1;
            }
            return Ok(Kind::Trailers);
        }
        if number.is_multiple_of(2) {
            return Err(Fault::silent());
        }
        if number <= self.last_stream {
            return Ok(Kind::Stale);
        }
        let full = self.streams.open_count() >= self.options.protocol.max_concurrent_streams as usize;
        if self.role == Role::Client || full && self.settings_known || depends_on == Some(number) {
            return Err(Fault::silent());
        }
        self.last_stream = number;
        if full {
            // The client does not know the limit yet; the codec refuses the stream.
            return Ok(Kind::Stale);
        }
        self.tally.streams += 1;
        self.streams.open(number);
        Ok(Kind::Head)
    }

    /// A piece of the header block, its last one if `last`.
    pub(super) fn fragment(&mut self, piece: &[u8], last: bool) -> Verdict {
        let Some(mut block) = self.block.take() else { return Ok(()) };
        let mut wrong = None;
        let (role, options, counts) = (self.role, &self.options, &mut self.counts);
        let mend = self.options.protocol.stream_error_on_invalid_http_message;
        let mut mends = Mends::default();
        let read = self.decoder.read(piece, last, |field, literal| {
            if mend && field.value == Value::Bad {
                mends.add(&field, literal.as_ref());
            }
            if wrong.is_some() || block.refusal.is_some() || block.kind == Kind::Stale {
                return;
            }
            if block.judge(&field, literal.as_ref(), role, options.protocol.allow_connect).is_err() {
                wrong = Some(Wrong::Field);
                return;
            }
            if let Some((refusal, count)) = block.count(&field, options) {
                block.refusal = Some(refusal);
                count(counts);
            } else if field.name == Name::Underscore && options.underscores == Underscores::Drop {
                counts.dropped_headers_with_underscores += 1;
            }
        });
        if read.is_err() {
            return Err(self.goaway(Reason::COMPRESSION_ERROR));
        }
        if last && wrong.is_none() && block.refusal.is_none() {
            let ends_early = block.end_stream && !self.may_end(&block);
            if ends_early || block.complete(role).is_err() {
                wrong = Some(Wrong::Message);
            }
        }
        if let Some(wrong) = wrong {
            self.counts.rx_messaging_error += 1;
            let details = match wrong {
                Wrong::Field => details::HTTP2_INVALID_HEADER_FIELD,
                Wrong::Message => details::HTTP2_VIOLATION,
            };
            if !mend || mends.hopeless {
                return Err(Fault::silent().of(block.stream, details));
            }
            block.refusal = Some(Refusal { reason: Reason::PROTOCOL_ERROR, details, protocol_error: true });
        }
        self.mends.append(&mut mends.places);
        if last {
            self.end_block(block);
        } else {
            self.block = Some(block);
        }
        Ok(())
    }

    /// Whether a message may end with this block: its length is what it said.
    fn may_end(&self, block: &Block) -> bool {
        let of = |body| block.message.may_end_with(body) || self.is_bodiless(block.stream);
        match block.kind {
            Kind::Stale => true,
            Kind::Head => of(0),
            Kind::Trailers => of(self.streams.get(block.stream).map_or(0, |stream| stream.body)),
        }
    }

    fn end_block(&mut self, block: Block) {
        if let Some(refusal) = block.refusal {
            self.spoil(block.stream, block.kind == Kind::Head, refusal);
        }
        let Some(stream) = self.streams.get_mut(block.stream) else { return };
        if block.kind == Kind::Head {
            stream.head_seen = self.role == Role::Server || block.message.response_complete() != Ok(false);
            stream.message = if stream.head_seen { block.message } else { Message::default() };
        }
        if block.refusal.is_some() {
            match block.kind {
                Kind::Head => stream.remark().refusal = block.refusal,
                Kind::Trailers | Kind::Stale => stream.remark().trailers = block.refusal,
            }
        }
        if block.path.is_some() {
            stream.remark().path = block.path;
        }
        if block.end_stream {
            self.streams.ended(block.stream, By::Peer);
            self.note_end();
        }
    }
}

/// What is written over in a head that is refused while its connection goes on. The codec must read it for its table's
/// sake, but ends the connection over what is no header at all.
#[derive(Default)]
struct Mends {
    places: Vec<Range<usize>>,
    /// There is something that cannot be mended in place.
    hopeless: bool,
}

impl Mends {
    fn add(&mut self, field: &Field, literal: Option<&Literal<'_>>) {
        if matches!(field.name, Name::ConnectionSpecific | Name::Te | Name::ContentLength) {
            // To the codec these are an error of the stream, too.
            return;
        }
        let Some(Literal { name_at, value_at, .. }) = literal else { return };
        match (name_at, value_at) {
            (Some(name), _) if name.is_empty() => self.hopeless = true,
            (None, _) if field.name == Name::Invalid || field.name == Name::OtherPseudo => self.hopeless = true,
            (name, Some(value)) => {
                self.places.extend(name.clone());
                self.places.push(value.clone());
            }
            (_, None) => self.hopeless = true,
        }
    }
}

/// What is counted for a refused head.
type Count = fn(&mut super::Counts);

impl Block {
    fn judge(
        &mut self,
        field: &Field,
        literal: Option<&Literal<'_>>,
        role: Role,
        connect: bool,
    ) -> Result<(), InvalidField> {
        let trailer = self.kind == Kind::Trailers;
        match role {
            Role::Server => self.message.request_field(field, trailer, connect)?,
            Role::Client => self.message.response_field(field, trailer)?,
        }
        if field.value == Value::Fragment {
            // Out of a table the bytes are not known; that there is a fragment decides.
            self.path = Some(Bytes::copy_from_slice(literal.map_or(b"/#", |literal| literal.value)));
        }
        Ok(())
    }

    fn complete(&self, role: Role) -> Result<(), Violation> {
        match (self.kind, role) {
            (Kind::Stale, _) => Ok(()),
            (Kind::Trailers, _) if self.end_stream => Ok(()),
            (Kind::Trailers, _) => Err(Violation),
            (Kind::Head, Role::Server) => self.message.request_complete(self.end_stream),
            (Kind::Head, Role::Client) => match self.message.response_complete()? {
                false if self.end_stream => Err(Violation),
                _ => Ok(()),
            },
        }
    }

    /// Counts a field against Envoy's limits of a head.
    fn count(&mut self, field: &Field, options: &super::Http2Options) -> Option<(Refusal, Count)> {
        let refuse = |details| Refusal { reason: Reason::INTERNAL_ERROR, details, protocol_error: false };
        if field.name == Name::Underscore {
            match options.underscores {
                Underscores::Reject => {
                    return Some((refuse(details::HTTP2_UNEXPECTED_UNDERSCORE), |counts| {
                        counts.requests_rejected_with_underscores_in_headers += 1;
                    }));
                }
                Underscores::Drop => return None,
                Underscores::Allow => {}
            }
        }
        self.fields += 1;
        self.size = self.size.saturating_add(field.size());
        if self.size > options.max_headers_bytes {
            return Some((refuse(details::HTTP2_HEADER_LIST_TOO_LARGE), |counts| {
                counts.header_list_size_too_large += 1;
            }));
        }
        (self.fields > options.max_headers_count).then(|| -> (Refusal, Count) {
            (refuse(details::HTTP2_TOO_MANY_HEADERS), |counts| counts.header_overflow += 1)
        })
    }
}

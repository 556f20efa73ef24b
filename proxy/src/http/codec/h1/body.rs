//! Bodies: lengths, chunks and trailers.

use bytes::{Buf, Bytes, BytesMut};
use filters::flags::details;
use filters::http::Headers;

use super::fields::{FieldParser, FieldRules, is_forbidden_trailer};
use super::scan::HeadScanner;
use super::{BodyKind, DecodeError};

/// Limits and choices for what a body may carry beside data.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyRules {
    pub(super) fields: FieldRules,
    pub(super) max_trailer_bytes: usize,
    /// Whether trailers are passed on; otherwise they are checked and dropped.
    pub(super) enable_trailers: bool,
}

/// One step of a body.
#[derive(Debug)]
pub(super) enum BodyEvent {
    Data(Bytes),
    Trailers(Box<Headers>),
    End,
}

/// Decodes the body of one message; reused for the next.
#[derive(Debug, Default)]
pub(super) struct BodyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Done,
    Length(u64),
    Raw,
    /// Inside a chunk's size line.
    Size(SizeLine),
    ChunkData(u64),
    /// After a chunk's data: CR LF, or LF alone as Envoy accepts.
    DataCr,
    DataLf,
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SizeLine {
    size: u64,
    /// Bytes of the line so far.
    length: u32,
    part: SizePart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SizePart {
    Digits,
    /// White space after the digits.
    Blank,
    Extension,
    Lf,
}

/// A chunk's size line with its extensions may not be longer.
const MAX_SIZE_LINE: u32 = 16 * 1024;

/// Pieces of at least this size are handed on as slices; smaller ones that follow each other in one read are joined, so
/// that a peer sending one-byte chunks costs no frame for each.
const SLICE: usize = 1024;

/// Joined pieces are handed on when they have grown to this size.
const JOINED: usize = 16 * 1024;

impl SizeLine {
    const NEW: Self = Self { size: 0, length: 0, part: SizePart::Digits };
}

impl BodyDecoder {
    /// Starts a body.
    pub(super) const fn start(&mut self, kind: BodyKind) {
        self.state = match kind {
            BodyKind::Empty => State::Done,
            BodyKind::Length(length) => State::Length(length),
            BodyKind::Chunked => State::Size(SizeLine::NEW),
            BodyKind::UntilClose | BodyKind::Tunnel => State::Raw,
        };
    }

    /// Whether an end of the connection here is the body's own end.
    pub(super) const fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::Raw)
    }

    /// Whether nothing but the end is left of a body of known length.
    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Length(0))
    }

    /// The next step, or `None` when `buf` holds none.
    pub(super) fn decode(
        &mut self,
        buf: &mut BytesMut,
        rules: &BodyRules,
        scanner: &mut HeadScanner,
        parser: &mut FieldParser,
    ) -> Result<Option<BodyEvent>, DecodeError> {
        match self.state {
            State::Done => Ok(Some(BodyEvent::End)),
            State::Raw if buf.is_empty() => Ok(None),
            State::Raw => Ok(Some(BodyEvent::Data(buf.split().freeze()))),
            State::Length(0) => {
                self.state = State::Done;
                Ok(Some(BodyEvent::End))
            }
            State::Length(_) if buf.is_empty() => Ok(None),
            State::Length(left) => {
                let n = available(left, buf);
                self.state = State::Length(left - n as u64);
                Ok(Some(BodyEvent::Data(buf.split_to(n).freeze())))
            }
            _ => self.decode_chunked(buf, rules, scanner, parser),
        }
    }

    fn decode_chunked(
        &mut self,
        buf: &mut BytesMut,
        rules: &BodyRules,
        scanner: &mut HeadScanner,
        parser: &mut FieldParser,
    ) -> Result<Option<BodyEvent>, DecodeError> {
        let mut joined = Joined::default();
        loop {
            match self.state {
                State::ChunkData(left) => {
                    if buf.is_empty() {
                        break;
                    }
                    let n = available(left, buf);
                    if !joined.is_empty() && (n >= SLICE || joined.len() >= JOINED) {
                        break;
                    }
                    joined.push(buf.split_to(n).freeze());
                    self.state = if left == n as u64 { State::DataCr } else { State::ChunkData(left - n as u64) };
                    if n >= SLICE {
                        break;
                    }
                }
                State::Trailers => {
                    if !joined.is_empty() {
                        break;
                    }
                    return self.decode_trailers(buf, rules, scanner, parser);
                }
                State::Size(line) => {
                    let Some(byte) = buf.first().copied() else { break };
                    // What stands before a fault is still delivered.
                    match line.next(byte) {
                        Ok(state) => self.state = state,
                        Err(_) if !joined.is_empty() => break,
                        Err(error) => return Err(error),
                    }
                    buf.advance(1);
                }
                State::DataCr | State::DataLf => {
                    let Some(byte) = buf.first().copied() else { break };
                    self.state = match (self.state, byte) {
                        (State::DataCr, b'\r') => State::DataLf,
                        (_, b'\n') => State::Size(SizeLine::NEW),
                        // Envoy skips whatever stands between a chunk and the next LF; a front end that does not would
                        // see other chunks than we do.
                        _ if !joined.is_empty() => break,
                        _ => return Err(DecodeError::codec()),
                    };
                    buf.advance(1);
                }
                State::Done | State::Length(_) | State::Raw => break,
            }
        }
        Ok(joined.take().map(BodyEvent::Data))
    }

    fn decode_trailers(
        &mut self,
        buf: &mut BytesMut,
        rules: &BodyRules,
        scanner: &mut HeadScanner,
        parser: &mut FieldParser,
    ) -> Result<Option<BodyEvent>, DecodeError> {
        let too_large = || DecodeError::new(431, details::HTTP1_HEADERS_TOO_LARGE);
        let Some(length) = scanner.scan(buf) else {
            return if buf.len() >= rules.max_trailer_bytes { Err(too_large()) } else { Ok(None) };
        };
        if length > rules.max_trailer_bytes {
            return Err(too_large());
        }
        let mut section = buf.split_to(length);
        let mut fields = rules.fields;
        if !rules.enable_trailers {
            fields.max_count = usize::MAX;
            fields.underscores = super::UnderscoreAction::Allow;
        }
        if super::chars::has_controls(&section) {
            return Err(DecodeError::new(400, details::HTTP1_INVALID_CHARACTERS));
        }
        scanner.regularize(&mut section, 0)?;
        let trailers = parser.parse_trailers(section, scanner.lines(), fields)?;
        scanner.reset();
        self.state = State::Done;
        let mut trailers = if rules.enable_trailers { trailers } else { Headers::new() };
        trailers.retain(|header| !is_forbidden_trailer(&header.name));
        Ok(Some(if trailers.is_empty() { BodyEvent::End } else { BodyEvent::Trailers(Box::new(trailers)) }))
    }
}

impl SizeLine {
    /// Takes one byte of a size line (RFC 9112 section 7.1).
    fn next(mut self, byte: u8) -> Result<State, DecodeError> {
        self.length += 1;
        if self.length > MAX_SIZE_LINE {
            return Err(DecodeError::codec());
        }
        match (self.part, byte) {
            // No size at all: `length` counts this byte too.
            (SizePart::Digits, _) if self.length == 1 && !byte.is_ascii_hexdigit() => return Err(DecodeError::codec()),
            (SizePart::Digits | SizePart::Blank | SizePart::Extension, b'\r') => self.part = SizePart::Lf,
            (SizePart::Digits | SizePart::Blank, b' ' | b'\t') => self.part = SizePart::Blank,
            (SizePart::Digits | SizePart::Blank, b';') => self.part = SizePart::Extension,
            (SizePart::Digits, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or_else(DecodeError::codec)?;
                if self.size >> 60 != 0 {
                    return Err(DecodeError::codec());
                }
                self.size = self.size << 4 | u64::from(digit);
            }
            (SizePart::Lf, b'\n') => {
                return Ok(if self.size == 0 { State::Trailers } else { State::ChunkData(self.size) });
            }
            // A bare LF inside or at the end of the line is where parsers disagree.
            (SizePart::Extension, b'\n') | (SizePart::Lf | SizePart::Blank, _) => return Err(DecodeError::codec()),
            (SizePart::Extension, _) => {}
        }
        Ok(State::Size(self))
    }
}

/// Data pieces of one read, joined only when there is more than one.
#[derive(Debug, Default)]
struct Joined {
    first: Bytes,
    more: BytesMut,
}

impl Joined {
    const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    fn len(&self) -> usize {
        self.more.len().max(self.first.len())
    }

    fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(SLICE.max(self.first.len() * 4));
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&piece);
    }

    fn take(self) -> Option<Bytes> {
        if !self.more.is_empty() {
            return Some(self.more.freeze());
        }
        (!self.first.is_empty()).then_some(self.first)
    }
}

/// How many of the `left` bytes of a body are in `buf`.
fn available(left: u64, buf: &BytesMut) -> usize {
    usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()))
}

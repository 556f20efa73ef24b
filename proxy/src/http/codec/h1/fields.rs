//! Header and trailer sections: lines to [`Headers`], and the facts framing depends on.

use bytes::{Bytes, BytesMut};
use filters::flags::details;
use filters::http::{HeaderName, Headers, Known};

use super::DecodeError;
use super::case::HeaderCase;
use super::chars::{list, lower_token};
use super::request::UnderscoreAction;
use super::scan::Line;

/// What a section may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldRules {
    pub(super) max_count: usize,
    pub(super) underscores: UnderscoreAction,
    pub(super) preserve_case: bool,
}

/// What the headers of a message say about framing and the connection.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) content_length: Option<u64>,
    pub(super) transfer_encoding: Option<TransferEncoding>,
    /// `host` values joined by commas, as Envoy joins them; `None` when there was no such header.
    pub(super) host: Option<Bytes>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) proxy_close: bool,
    pub(super) connection_upgrade: bool,
    /// Whether `connection` holds more than `close`, `keep-alive` and `upgrade`.
    pub(super) nominates: bool,
    pub(super) upgrade: Option<Bytes>,
    pub(super) expect_continue: bool,
    pub(super) dropped_underscores: u32,
}

/// What `transfer-encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    /// Exactly `chunked`, once.
    Chunked,
    /// Anything else; we know whether `chunked` was one of several lines.
    Other { chunked_line: bool },
}

impl Facts {
    /// Whether the message asks to switch protocols (RFC 9110 section 7.8).
    pub(super) fn is_upgrade(&self) -> bool {
        self.connection_upgrade && self.upgrade.as_ref().is_some_and(|value| !value.is_empty())
    }
}

/// Scratch of one field between the pass that lower-cases names and the one that slices.
#[derive(Debug)]
struct Field {
    known: Option<Known>,
    name: Line,
    value: Line,
}

/// Reusable parser of one section after another.
#[derive(Debug, Default)]
pub(super) struct FieldParser {
    fields: Vec<Field>,
}

/// Room for the headers the proxy adds to a message before it goes on.
const ROOM: usize = 8;

impl FieldParser {
    /// Parses `lines` of `head`, which must hold no folds, bare CRs or control characters. Answers the frozen head too:
    /// the first line's parts are slices of it.
    pub(super) fn parse(
        &mut self,
        mut head: BytesMut,
        lines: &[Line],
        rules: FieldRules,
    ) -> Result<(Bytes, Headers, Facts, Option<HeaderCase>), DecodeError> {
        if lines.len() > rules.max_count {
            return Err(DecodeError::new(431, details::HTTP1_TOO_MANY_HEADERS));
        }
        let mut case = rules.preserve_case.then(HeaderCase::default);
        let dropped_underscores = self.lower(&mut head, lines, rules, &mut case)?;
        let mut facts = Facts { dropped_underscores, ..Facts::default() };

        let head = head.freeze();
        let mut headers = Headers::new();
        headers.reserve(self.fields.len() + ROOM);
        for field in &self.fields {
            let value = head.slice(field.value.range());
            let Some(known) = field.known else {
                headers.append(HeaderName::from_unknown_lowercase(head.slice(field.name.range())), value);
                continue;
            };
            if facts.note(known, &value)? {
                headers.append(known, value);
            }
        }
        Ok((head, headers, facts, case))
    }

    /// Parses a trailer section: fields as in a head, without meaning.
    pub(super) fn parse_trailers(
        &mut self,
        section: BytesMut,
        lines: &[Line],
        rules: FieldRules,
    ) -> Result<Headers, DecodeError> {
        let mut trailers = Headers::new();
        let mut section = section;
        if lines.len() > rules.max_count {
            return Err(DecodeError::new(431, details::HTTP1_TOO_MANY_HEADERS));
        }
        self.lower(&mut section, lines, rules, &mut None)?;
        let section = section.freeze();
        for field in &self.fields {
            let name = match field.known {
                Some(known) => known.into(),
                None => HeaderName::from_unknown_lowercase(section.slice(field.name.range())),
            };
            trailers.append(name, section.slice(field.value.range()));
        }
        Ok(trailers)
    }

    /// Finds names and values, and lower-cases the names in place. Answers how many fields were dropped for an
    /// underscore.
    fn lower(
        &mut self,
        head: &mut BytesMut,
        lines: &[Line],
        rules: FieldRules,
        case: &mut Option<HeaderCase>,
    ) -> Result<u32, DecodeError> {
        let mut dropped = 0;
        self.fields.clear();
        for line in lines {
            let text = head.get_mut(line.range()).ok_or_else(DecodeError::codec)?;
            if let Some(case) = case {
                case.record(text.split(|b| *b == b':').next().unwrap_or_default());
            }
            let colon = lower_token(text);
            if colon == 0 || text.get(colon) != Some(&b':') {
                return Err(DecodeError::codec());
            }
            let name = &text[..colon];
            if rules.underscores != UnderscoreAction::Allow && memchr::memchr(b'_', name).is_some() {
                if rules.underscores == UnderscoreAction::RejectRequest {
                    return Err(DecodeError::new(400, details::HTTP1_UNEXPECTED_UNDERSCORE));
                }
                dropped += 1;
                continue;
            }
            let name_end = line.start + u32::try_from(colon).unwrap_or(u32::MAX);
            let mut value = Line { start: name_end + 1, end: line.end };
            while value.start < value.end && is_blank(text, value.start - line.start) {
                value.start += 1;
            }
            while value.start < value.end && is_blank(text, value.end - 1 - line.start) {
                value.end -= 1;
            }
            self.fields.push(Field {
                known: Known::from_lowercase(name),
                name: Line { start: line.start, end: name_end },
                value,
            });
        }
        Ok(dropped)
    }
}

impl Facts {
    /// Takes note of a header; whether it stays among the message's headers.
    fn note(&mut self, known: Known, value: &Bytes) -> Result<bool, DecodeError> {
        match known {
            Known::Host => {
                match &mut self.host {
                    Some(host) if !value.is_empty() => {
                        *host = Bytes::from([&host[..], &value[..]].join(&b','));
                    }
                    Some(_) => {}
                    none => *none = Some(value.clone()),
                }
                return Ok(false);
            }
            Known::ContentLength => {
                // Repeated lengths are refused even when equal: whoever merges them may not be us.
                if self.content_length.is_some() {
                    return Err(DecodeError::codec());
                }
                self.content_length = Some(parse_length(value).ok_or_else(DecodeError::codec)?);
            }
            Known::TransferEncoding => {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                self.transfer_encoding = Some(match self.transfer_encoding {
                    None if chunked => TransferEncoding::Chunked,
                    None => TransferEncoding::Other { chunked_line: false },
                    Some(TransferEncoding::Chunked) => TransferEncoding::Other { chunked_line: true },
                    Some(TransferEncoding::Other { chunked_line }) => {
                        TransferEncoding::Other { chunked_line: chunked_line || chunked }
                    }
                });
                // Framing is the codec's: encoders write their own.
                return Ok(false);
            }
            Known::Connection => {
                for token in list(value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else if token.eq_ignore_ascii_case(b"upgrade") {
                        self.connection_upgrade = true;
                    } else {
                        self.nominates = true;
                    }
                }
            }
            Known::ProxyConnection => self.proxy_close |= list(value).any(|t| t.eq_ignore_ascii_case(b"close")),
            Known::Upgrade => {
                self.upgrade = Some(match &self.upgrade {
                    Some(first) => Bytes::from([&first[..], &value[..]].join(&b',')),
                    None => value.clone(),
                });
            }
            Known::Expect => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(true)
    }
}

fn is_blank(text: &[u8], at: u32) -> bool {
    matches!(text.get(at as usize), Some(b' ' | b'\t'))
}

/// A `content-length` value: digits only, below 2^64 (RFC 9110 section 8.6).
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| length.checked_mul(10)?.checked_add(u64::from(digit))).flatten()
    })
}

/// Whether a name, in any case, decides where a message ends.
pub(super) fn is_framing_name(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}

/// Whether a field may not stand among trailers (RFC 9110 section 6.5.1): framing, routing and the connection.
pub(super) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    matches!(
        name.known(),
        Some(
            Known::Connection
                | Known::ContentLength
                | Known::Host
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
        )
    )
}

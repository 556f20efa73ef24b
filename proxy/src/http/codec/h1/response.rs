//! The client side's decoder: responses from an upstream.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use filters::flags::details;
use filters::http::{Headers, Known, ResponseHead, Version};

use super::body::{BodyDecoder, BodyEvent, BodyRules};
use super::case::HeaderCase;
use super::chars::has_controls;
use super::fields::{Facts, FieldParser, FieldRules, TransferEncoding};
use super::request::UnderscoreAction;
use super::scan::HeadScanner;
use super::{BodyKind, CHUNKED_LINE, DecodeError};

/// How responses are read: the cluster's `http_protocol_options` and `common_http_protocol_options`.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Longest head or trailer section in bytes: `max_response_headers_kb` * 1024.
    pub max_headers_bytes: usize,
    /// Most headers of a head, and most trailers: `max_headers_count`.
    pub max_headers_count: usize,
    /// Most informational heads before the final one; ours, Envoy has no limit.
    pub max_informational: u32,
    /// Whether a response may carry both `content-length` and `transfer-encoding: chunked`; the length is then dropped.
    pub allow_chunked_length: bool,
    /// Whether trailers are passed on; otherwise they are checked and dropped.
    pub enable_trailers: bool,
    /// Whether the spelling of names is recorded: `stateful_formatter` with `preserve_case`.
    pub preserve_case: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            max_headers_bytes: 80 * 1024,
            max_headers_count: 100,
            max_informational: 1000,
            allow_chunked_length: false,
            enable_trailers: false,
            preserve_case: false,
        }
    }
}

/// What the request makes of its response's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any body.
    #[default]
    Body,
    /// None: the request was HEAD.
    NoBody,
    /// A tunnel if the status is 2xx: the request was CONNECT.
    Connect,
    /// A tunnel if the status is 101: the request asked to switch protocols.
    Upgrade,
}

/// A response's head with what the connection said beside it.
#[derive(Debug)]
pub struct DecodedResponse {
    /// The head.
    pub head: ResponseHead,
    /// What follows the head.
    pub body: BodyKind,
    /// Whether the upstream lets the connection carry further requests once this response is complete.
    pub keep_alive: bool,
    /// Whether the upstream said that it will close the connection (HTTP/1.0 says so by saying nothing).
    pub close_notified: bool,
    /// Bytes of the lines that say how the body is delimited, where the head no longer has them.
    pub framing_bytes: u64,
    /// How the upstream spelled header names, if options ask for it.
    pub case: Option<HeaderCase>,
}

/// What a response consists of, in order.
#[derive(Debug)]
pub enum ResponseEvent {
    /// An informational head (1xx but 101); the final one is still to come.
    Informational(Box<ResponseHead>),
    /// The response starts.
    Head(Box<DecodedResponse>),
    /// Body bytes, or bytes from the tunnel; never empty.
    Data(Bytes),
    /// Trailers; the response is complete.
    Trailers(Box<Headers>),
    /// The response is complete.
    End,
}

/// What the end of the connection means for what was being decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eof {
    /// No response was expected.
    Idle,
    /// It is the end of the body, or of the tunnel.
    End,
    /// No byte of the next head has arrived.
    BeforeHead,
    /// The response is cut off.
    Incomplete,
}

/// Decodes the responses of one connection, one after the other.
#[derive(Debug)]
pub struct ResponseDecoder {
    options: Rc<ClientOptions>,
    rules: BodyRules,
    state: State,
    scanner: HeadScanner,
    parser: FieldParser,
    body: BodyDecoder,
    informational: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Head(Expected),
    Body,
    Failed(DecodeError),
}

impl ResponseDecoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(options: Rc<ClientOptions>) -> Self {
        let rules = BodyRules {
            fields: FieldRules {
                max_count: options.max_headers_count,
                underscores: UnderscoreAction::Allow,
                preserve_case: false,
            },
            max_trailer_bytes: options.max_headers_bytes,
            enable_trailers: options.enable_trailers,
        };
        Self {
            options,
            rules,
            state: State::Idle,
            scanner: HeadScanner::default(),
            parser: FieldParser::default(),
            body: BodyDecoder::default(),
            informational: 0,
        }
    }

    /// Says that a request was sent, whose response comes next.
    pub const fn expect(&mut self, expected: Expected) {
        self.state = State::Head(expected);
        self.informational = 0;
    }

    /// Takes the next event's bytes from `buf`; `None` when they are not complete, or when no response is expected:
    /// bytes left over then are nobody's, and the connection should be closed.
    ///
    /// # Errors
    /// The upstream's bytes are no acceptable response; the same error is answered from then on.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<ResponseEvent>, DecodeError> {
        let outcome = match self.state {
            State::Idle => Ok(None),
            State::Head(expected) => self.decode_head(buf, expected),
            State::Body => self.decode_body(buf),
            State::Failed(error) => Err(error),
        };
        outcome.map_err(|error| {
            let error = error.of_upstream();
            self.state = State::Failed(error);
            error
        })
    }

    /// Whether no response is expected or under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether all bytes of a body of known length were taken: the next event is `End` and needs no bytes.
    #[must_use]
    pub const fn is_body_complete(&self) -> bool {
        matches!(self.state, State::Body) && self.body.is_complete()
    }

    /// What it means that the upstream closed its side, when `buf` holds no further event.
    pub fn eof(&mut self, buf: &BytesMut) -> Eof {
        match self.state {
            State::Idle => Eof::Idle,
            State::Body if self.body.ends_with_connection() => {
                self.state = State::Idle;
                Eof::End
            }
            State::Head(_) if buf.is_empty() => Eof::BeforeHead,
            State::Head(_) | State::Body | State::Failed(_) => Eof::Incomplete,
        }
    }

    fn decode_body(&mut self, buf: &mut BytesMut) -> Result<Option<ResponseEvent>, DecodeError> {
        let event = self.body.decode(buf, &self.rules, &mut self.scanner, &mut self.parser)?;
        Ok(event.map(|event| match event {
            BodyEvent::Data(data) => ResponseEvent::Data(data),
            BodyEvent::Trailers(trailers) => {
                self.state = State::Idle;
                ResponseEvent::Trailers(trailers)
            }
            BodyEvent::End => {
                self.state = State::Idle;
                ResponseEvent::End
            }
        }))
    }

    fn decode_head(&mut self, buf: &mut BytesMut, expected: Expected) -> Result<Option<ResponseEvent>, DecodeError> {
        let too_large = || DecodeError::new(502, details::HTTP1_HEADERS_TOO_LARGE);
        if self.scanner.is_fresh() && buf.first().is_some_and(|first| *first != b'H') {
            return Err(DecodeError::codec());
        }
        let Some(length) = self.scanner.scan(buf) else {
            return if buf.len() >= self.options.max_headers_bytes { Err(too_large()) } else { Ok(None) };
        };
        if length > self.options.max_headers_bytes {
            return Err(too_large());
        }
        let mut head = buf.split_to(length);
        if has_controls(&head) {
            return Err(DecodeError::new(502, details::HTTP1_INVALID_CHARACTERS));
        }
        // A bare CR in the reason phrase is nobody's business; it is not passed on.
        self.scanner.regularize(&mut head, 1)?;
        let response = self.assemble(head, expected)?;
        self.scanner.reset();
        let status = response.head.status;
        if status < 200 && status != 101 {
            self.informational += 1;
            if self.informational > self.options.max_informational {
                return Err(DecodeError::codec());
            }
            return Ok(Some(ResponseEvent::Informational(Box::new(response.head))));
        }
        self.state = if response.body.is_empty() {
            State::Idle
        } else {
            self.body.start(response.body);
            State::Body
        };
        Ok(Some(ResponseEvent::Head(Box::new(response))))
    }

    /// Makes a response of a complete head.
    fn assemble(&mut self, head: BytesMut, expected: Expected) -> Result<DecodedResponse, DecodeError> {
        let (line, fields) = self.scanner.lines().split_first().ok_or_else(DecodeError::codec)?;
        let text = head.get(line.range()).ok_or_else(DecodeError::codec)?;
        let (version, status, reason_at) = parse_status_line(text).ok_or_else(DecodeError::codec)?;
        let reason = line.start as usize + reason_at..line.end as usize;

        let rules = FieldRules { preserve_case: self.options.preserve_case, ..self.rules.fields };
        let (head, mut headers, facts, mut case) = self.parser.parse(head, fields, rules)?;
        if let Some(case) = &mut case {
            case.set_reason(head.slice(reason));
        }
        // `host` means nothing in a response; it stays a header.
        if let Some(host) = facts.host.clone() {
            headers.append(Known::Host, host);
        }
        let body = response_body(&mut headers, &facts, status, expected, &self.options)?;
        let close_notified = match version {
            Version::Http10 => !facts.keep_alive,
            _ => facts.close || facts.proxy_close,
        };
        // Chunks in HTTP/1.0 are a framing fault to be survived, not repeated (RFC 9112 section 6.1).
        let persistent =
            !close_notified && status != 101 && (version != Version::Http10 || facts.transfer_encoding.is_none());
        Ok(DecodedResponse {
            head: ResponseHead { status, version, headers },
            body,
            keep_alive: persistent && !matches!(body, BodyKind::UntilClose | BodyKind::Tunnel),
            close_notified,
            framing_bytes: framing_bytes(&facts, body),
            case,
        })
    }
}

/// Bytes of lines about the body that were taken out of a head, as [`Headers::line_bytes`] counts.
fn framing_bytes(facts: &Facts, body: BodyKind) -> u64 {
    let chunked = facts.transfer_encoding.is_some() && matches!(body, BodyKind::Chunked | BodyKind::Tunnel);
    let length = facts.content_length.filter(|_| body == BodyKind::Tunnel);
    let digits = |length: u64| u64::from(length.checked_ilog10().unwrap_or(0)) + 1;
    let length = length.map_or(0, |length| "content-length:\r\n".len() as u64 + digits(length));
    length + if chunked { CHUNKED_LINE } else { 0 }
}

/// What follows the head (RFC 9112 section 6.3), after Envoy's checks on lengths and codings.
fn response_body(
    headers: &mut Headers,
    facts: &Facts,
    status: u16,
    expected: Expected,
    options: &ClientOptions,
) -> Result<BodyKind, DecodeError> {
    let chunked = match facts.transfer_encoding {
        None => false,
        Some(TransferEncoding::Chunked) => true,
        Some(TransferEncoding::Other { .. }) => {
            return Err(DecodeError::new(502, details::HTTP1_INVALID_TRANSFER_ENCODING));
        }
    };
    if status < 200 || status == 204 && expected != Expected::Connect {
        if chunked {
            return Err(DecodeError::new(502, details::HTTP1_TRANSFER_ENCODING_NOT_ALLOWED));
        }
        if facts.content_length.is_some_and(|length| length > 0) {
            return Err(DecodeError::new(502, details::HTTP1_CONTENT_LENGTH_NOT_ALLOWED));
        }
        headers.remove(&Known::ContentLength);
        return match status {
            101 if expected == Expected::Upgrade && facts.is_upgrade() => Ok(BodyKind::Tunnel),
            // Asked for, but it does not say what it switches to: the end of the connection.
            101 if expected == Expected::Upgrade => Ok(BodyKind::Empty),
            // Nobody asked to switch.
            101 => Err(DecodeError::codec()),
            _ => Ok(BodyKind::Empty),
        };
    }
    if expected == Expected::Connect && status < 300 {
        headers.remove(&Known::ContentLength);
        return Ok(BodyKind::Tunnel);
    }
    if chunked && facts.content_length.is_some() {
        if !options.allow_chunked_length {
            return Err(DecodeError::new(502, details::HTTP1_CONTENT_LENGTH_AND_CHUNKED));
        }
        headers.remove(&Known::ContentLength);
    }
    Ok(match facts.content_length {
        _ if status == 304 || expected == Expected::NoBody => BodyKind::Empty,
        _ if chunked => BodyKind::Chunked,
        Some(0) => BodyKind::Empty,
        Some(length) => BodyKind::Length(length),
        None => BodyKind::UntilClose,
    })
}

/// Version, status and where the reason phrase starts.
fn parse_status_line(line: &[u8]) -> Option<(Version, u16, usize)> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, rest @ ..] = line else { return None };
    if !major.is_ascii_digit() || !minor.is_ascii_digit() || !rest.first().is_some_and(blank) {
        return None;
    }
    let version = if (*major, *minor) == (b'1', b'1') { Version::Http11 } else { Version::Http10 };
    let start = line.len() - rest.len() + rest.iter().take_while(|b| blank(b)).count();
    let [a, b, c, after @ ..] = line.get(start..)? else { return None };
    if ![a, b, c].iter().all(|d| d.is_ascii_digit()) || after.first().is_some_and(|byte| !blank(byte)) {
        return None;
    }
    let digit = |d: &u8| u16::from(*d - b'0');
    let status = digit(a) * 100 + digit(b) * 10 + digit(c);
    (status >= 100).then_some((version, status, line.len() - after.len() + usize::from(!after.is_empty())))
}

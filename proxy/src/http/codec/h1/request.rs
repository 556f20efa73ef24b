//! The server side's decoder: requests from a client.

use std::fmt;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use filters::flags::details;
use filters::http::{Headers, Known, Method, RequestHead, Scheme, Version};

use super::body::{BodyDecoder, BodyEvent, BodyRules};
use super::case::HeaderCase;
use super::chars::{has_controls, is_token, is_token_text};
use super::fields::{Facts, FieldParser, FieldRules, TransferEncoding};
use super::hop::{drop_upgrade, remove_nominated};
use super::scan::HeadScanner;
use super::target::{TargetRules, check_target, is_authority, parse_target};
use super::{BodyKind, DecodeError};

/// What to do with a header whose name holds an underscore (`headers_with_underscores_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoreAction {
    /// Keep it.
    #[default]
    Allow,
    /// Refuse the request.
    RejectRequest,
    /// Drop the header and count it.
    DropHeader,
}

/// Answers whether an `upgrade` protocol is meant.
pub type UpgradeMatcher = dyn Fn(&[u8]) -> bool;

/// How requests are read: the connection manager's `http_protocol_options` and `common_http_protocol_options`.
#[derive(Clone)]
pub struct ServerOptions {
    /// Longest head or trailer section in bytes: `max_request_headers_kb` * 1024.
    pub max_headers_bytes: usize,
    /// Most headers of a head, and most trailers: `max_headers_count`.
    pub max_headers_count: usize,
    /// Whether versions other than 1.1 are served; otherwise 426.
    pub accept_http_10: bool,
    /// The authority of an HTTP/1.0 request without `host`: `default_host_for_http_10`.
    pub default_host_for_http_10: Option<Bytes>,
    /// Whether absolute forms are taken apart; otherwise they are the path as they stand.
    pub allow_absolute_url: bool,
    /// Whether a request may carry both `content-length` and `transfer-encoding: chunked`; the length is then dropped.
    pub allow_chunked_length: bool,
    /// Whether trailers are passed on; otherwise they are checked and dropped.
    pub enable_trailers: bool,
    /// `headers_with_underscores_action`
    pub headers_with_underscores: UnderscoreAction,
    /// Whether the spelling of names is recorded: `stateful_formatter` with `preserve_case`.
    pub preserve_case: bool,
    /// Whether any token is a method; otherwise only registered ones.
    pub allow_custom_methods: bool,
    /// Whether an absolute form with scheme `https` is refused, for connections without TLS.
    pub reject_https_url: bool,
    /// Upgrade protocols to disregard: `ignore_http_11_upgrade`.
    pub ignore_upgrade: Option<Rc<UpgradeMatcher>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_headers_bytes: 60 * 1024,
            max_headers_count: 100,
            accept_http_10: false,
            default_host_for_http_10: None,
            allow_absolute_url: true,
            allow_chunked_length: false,
            enable_trailers: false,
            headers_with_underscores: UnderscoreAction::Allow,
            preserve_case: false,
            allow_custom_methods: false,
            reject_https_url: false,
            ignore_upgrade: None,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").finish_non_exhaustive()
    }
}

/// A request's head with what the connection said beside it.
#[derive(Debug)]
pub struct DecodedRequest {
    /// The head. `scheme` is the absolute form's, else none yet: the connection manager decides.
    pub head: RequestHead,
    /// What follows the head.
    pub body: BodyKind,
    /// Whether the client lets the connection carry further requests.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`. The `expect` header is still among the headers.
    pub expect_continue: bool,
    /// The `upgrade` value when the client asks to switch protocols; [`Self::body`] is then a tunnel.
    pub upgrade: Option<Bytes>,
    /// Headers dropped for an underscore, for `http1.dropped_headers_with_underscores`.
    pub dropped_underscores: u32,
    /// How the client spelled header names, if options ask for it.
    pub case: Option<HeaderCase>,
}

/// What a request consists of, in order.
#[derive(Debug)]
pub enum RequestEvent {
    /// A request starts.
    Head(Box<DecodedRequest>),
    /// Body bytes, or bytes for the tunnel; never empty.
    Data(Bytes),
    /// Trailers; the request is complete.
    Trailers(Box<Headers>),
    /// The request is complete.
    End,
}

/// Decodes the requests of one connection, one after the other.
#[derive(Debug)]
pub struct RequestDecoder {
    options: Rc<ServerOptions>,
    rules: BodyRules,
    state: State,
    scanner: HeadScanner,
    parser: FieldParser,
    body: BodyDecoder,
    /// Line breaks skipped before the request line.
    skipped: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Body,
    Failed(DecodeError),
}

impl RequestDecoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(options: Rc<ServerOptions>) -> Self {
        let fields = FieldRules {
            max_count: options.max_headers_count,
            underscores: options.headers_with_underscores,
            preserve_case: options.preserve_case,
        };
        let rules = BodyRules {
            fields: FieldRules { preserve_case: false, ..fields },
            max_trailer_bytes: options.max_headers_bytes,
            enable_trailers: options.enable_trailers,
        };
        Self {
            options,
            rules,
            state: State::Head,
            scanner: HeadScanner::default(),
            parser: FieldParser::default(),
            body: BodyDecoder::default(),
            skipped: 0,
        }
    }

    /// Takes the next event's bytes from `buf`; `None` when they are not complete.
    ///
    /// # Errors
    /// The client's bytes are no acceptable request; the same error is answered from then on.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<RequestEvent>, DecodeError> {
        let outcome = match self.state {
            State::Head => self.decode_head(buf).map(|head| head.map(RequestEvent::Head)),
            State::Body => self.decode_body(buf),
            State::Failed(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.state = State::Failed(error);
        }
        outcome
    }

    /// Whether the connection is between requests: a close here interrupts none. Bytes of an unfinished head may have
    /// been seen; they are still in the caller's buffer.
    #[must_use]
    pub const fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Whether all bytes of a body of known length were taken: the next event is `End` and needs no bytes.
    #[must_use]
    pub const fn is_body_complete(&self) -> bool {
        matches!(self.state, State::Body) && self.body.is_complete()
    }

    fn decode_body(&mut self, buf: &mut BytesMut) -> Result<Option<RequestEvent>, DecodeError> {
        let event = self.body.decode(buf, &self.rules, &mut self.scanner, &mut self.parser)?;
        Ok(event.map(|event| match event {
            BodyEvent::Data(data) => RequestEvent::Data(data),
            BodyEvent::Trailers(trailers) => {
                self.state = State::Head;
                RequestEvent::Trailers(trailers)
            }
            BodyEvent::End => {
                self.state = State::Head;
                RequestEvent::End
            }
        }))
    }

    fn decode_head(&mut self, buf: &mut BytesMut) -> Result<Option<Box<DecodedRequest>>, DecodeError> {
        let too_large = || DecodeError::new(431, details::HTTP1_HEADERS_TOO_LARGE);
        if self.scanner.is_fresh() {
            let breaks = buf.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            buf.advance(breaks);
            self.skipped += breaks;
            if self.skipped > self.options.max_headers_bytes {
                return Err(too_large());
            }
            // What cannot be a method (TLS, say) is refused without waiting for a line.
            if buf.first().is_some_and(|first| !is_token(*first)) {
                return Err(DecodeError::codec());
            }
        }
        let Some(length) = self.scanner.scan(buf) else {
            return if buf.len() >= self.options.max_headers_bytes { Err(too_large()) } else { Ok(None) };
        };
        if length > self.options.max_headers_bytes {
            return Err(too_large());
        }
        let mut head = buf.split_to(length);
        if has_controls(&head) {
            return Err(DecodeError::new(400, details::HTTP1_INVALID_CHARACTERS));
        }
        self.scanner.regularize(&mut head, 1)?;
        let request = self.assemble(head)?;
        self.scanner.reset();
        self.skipped = 0;
        if !request.body.is_empty() {
            self.body.start(request.body);
            self.state = State::Body;
        }
        Ok(Some(Box::new(request)))
    }

    /// Makes a request of a complete head.
    fn assemble(&mut self, head: BytesMut) -> Result<DecodedRequest, DecodeError> {
        let options = &self.options;
        let (line, fields) = self.scanner.lines().split_first().ok_or_else(DecodeError::codec)?;
        let text = head.get(line.range()).ok_or_else(DecodeError::codec)?;
        let [method_text, target, version] = split_request_line(text).ok_or_else(DecodeError::codec)?;
        let offset = |part: &[u8]| part.as_ptr() as usize - head.as_ptr() as usize;
        let target_range = offset(target)..offset(target) + target.len();

        let method = parse_method(method_text, options.allow_custom_methods).ok_or_else(DecodeError::codec)?;
        check_target(&method, target)?;
        let version = parse_version(version).ok_or_else(DecodeError::codec)?;

        let rules = FieldRules { preserve_case: options.preserve_case, ..self.rules.fields };
        let (head, mut headers, mut facts, case) = self.parser.parse(head, fields, rules)?;

        let target_rules =
            TargetRules { allow_absolute_url: options.allow_absolute_url, reject_https: options.reject_https_url };
        let target = parse_target(&method, head.slice(target_range), target_rules)?;
        if version == Version::Http10 && !options.accept_http_10 {
            return Err(DecodeError::new(426, details::LOW_VERSION));
        }

        if facts.is_upgrade() {
            let value = facts.upgrade.take().unwrap_or_default();
            facts.upgrade = drop_upgrade(&mut headers, value, options.ignore_upgrade.as_deref());
        }
        if facts.nominates && !facts.is_upgrade() {
            if remove_nominated(&mut headers)? {
                facts.host = None;
            }
            facts.expect_continue &= headers.contains(&Known::Expect);
        }
        let upgrade = facts.is_upgrade() && method != Method::Connect;
        let body = request_body(&mut headers, &facts, &method, upgrade, options)?;

        let default_host = || options.default_host_for_http_10.clone().filter(|_| version == Version::Http10);
        let authority = match target.authority {
            Some(authority) => Some(authority),
            None => match facts.host.take() {
                Some(host) if is_authority(&host) => Some(host),
                Some(_) => return Err(DecodeError::new(400, details::HTTP_INVALID_AUTHORITY)),
                None => default_host(),
            },
        };
        let keep_alive = match version {
            // Chunks in HTTP/1.0 are a framing fault to be survived, not repeated (RFC 9112 section 6.1).
            Version::Http10 => facts.keep_alive && facts.transfer_encoding.is_none(),
            _ => !facts.close && !facts.proxy_close,
        };
        Ok(DecodedRequest {
            body,
            keep_alive,
            expect_continue: facts.expect_continue,
            upgrade: facts.upgrade.filter(|_| upgrade),
            dropped_underscores: facts.dropped_underscores,
            case,
            head: RequestHead {
                method,
                scheme: target.scheme.unwrap_or(Scheme::Unknown),
                authority_missing: authority.is_none(),
                authority: authority.unwrap_or_default(),
                path: target.path,
                protocol: None,
                version,
                headers,
            },
        })
    }
}

/// What follows the head, after Envoy's checks on lengths and codings.
fn request_body(
    headers: &mut Headers,
    facts: &Facts,
    method: &Method,
    upgrade: bool,
    options: &ServerOptions,
) -> Result<BodyKind, DecodeError> {
    let chunked = match facts.transfer_encoding {
        None => false,
        Some(coding) => {
            let chunked_line =
                matches!(coding, TransferEncoding::Chunked | TransferEncoding::Other { chunked_line: true });
            if facts.content_length.is_some() {
                if !options.allow_chunked_length || !chunked_line {
                    return Err(DecodeError::new(400, details::HTTP1_CONTENT_LENGTH_AND_CHUNKED));
                }
                headers.remove(&Known::ContentLength);
            }
            if coding != TransferEncoding::Chunked || *method == Method::Connect {
                return Err(DecodeError::new(501, details::HTTP1_INVALID_TRANSFER_ENCODING));
            }
            true
        }
    };
    if *method == Method::Connect {
        if facts.content_length.is_some_and(|length| length > 0) {
            return Err(DecodeError::new(400, details::HTTP1_BODY_DISALLOWED));
        }
        headers.remove(&Known::ContentLength);
        return Ok(BodyKind::Tunnel);
    }
    Ok(match facts.content_length {
        _ if upgrade => BodyKind::Tunnel,
        _ if chunked => BodyKind::Chunked,
        None | Some(0) => BodyKind::Empty,
        Some(length) => BodyKind::Length(length),
    })
}

/// Splits at runs of spaces and tabs into method, target and version; the version may be missing (HTTP/0.9).
fn split_request_line(line: &[u8]) -> Option<[&[u8]; 3]> {
    let mut words = line.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
    let parts = [words.next()?, words.next()?, words.next().unwrap_or_default()];
    (words.next().is_none() && !matches!(line.first(), Some(b' ' | b'\t'))).then_some(parts)
}

/// Every version but 1.1 is treated as 1.0, whatever its digits, as Envoy does.
fn parse_version(version: &[u8]) -> Option<Version> {
    match version {
        b"HTTP/1.1" => Some(Version::Http11),
        b"" => Some(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Some(Version::Http10)
        }
        _ => None,
    }
}

fn parse_method(text: &[u8], custom: bool) -> Option<Method> {
    Some(match text {
        b"GET" => Method::Get,
        b"POST" => Method::Post,
        _ => match Method::from_bytes(Bytes::copy_from_slice(text)) {
            Method::Other(name) if REGISTERED.contains(&&name[..]) || (custom && is_token_text(&name)) => {
                Method::Other(name)
            }
            Method::Other(_) => return None,
            known => known,
        },
    })
}

/// Methods beside [`Method`]'s own that Envoy passes without `allow_custom_methods`.
const REGISTERED: &[&[u8]] = &[
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"MSEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

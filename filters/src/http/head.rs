//! Message heads: the request and response lines with their headers, the same for every HTTP version.

use std::fmt;

use bytes::Bytes;

use super::{HeaderName, Headers, Known};

/// The HTTP version a message was received or will be sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// The text of `%PROTOCOL%` and of status lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request method. The common ones are tags; the rest keep their bytes (case matters, RFC 9110 section 9.1).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other token.
    Other(Bytes),
}

impl Method {
    /// The method with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        match &bytes[..] {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other(bytes),
        }
    }

    /// The method's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Delete => b"DELETE",
            Self::Connect => b"CONNECT",
            Self::Options => b"OPTIONS",
            Self::Trace => b"TRACE",
            Self::Patch => b"PATCH",
            Self::Other(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// The value of `:scheme`. Only the two are ever routed; anything else is a client's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Scheme {
    /// None yet: an HTTP/1 request has one only when the connection manager gives it one, which early refusals precede.
    Unknown,
    /// `http`
    #[default]
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The scheme's text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request's line (or pseudo headers) and headers. `host` is never among the headers: it is [`Self::authority`].
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// `:method`
    pub method: Method,
    /// `:scheme`
    pub scheme: Scheme,
    /// `:authority`, or HTTP/1's `host`; empty when the client sent none, or an empty one.
    pub authority: Bytes,
    /// Whether the client named no authority at all. An empty `host` names one.
    pub authority_missing: bool,
    /// `:path` with its query; empty for a plain CONNECT.
    pub path: Bytes,
    /// `:protocol` of an extended CONNECT (RFC 8441), or an HTTP/1 upgrade expressed that way.
    pub protocol: Option<Bytes>,
    /// The version it was received with.
    pub version: Version,
    /// All other headers.
    pub headers: Headers,
}

impl RequestHead {
    /// How many fields there are, pseudo headers among them.
    #[must_use]
    pub fn field_count(&self) -> usize {
        self.headers.len() + self.pseudo().into_iter().filter(|(_, value)| !value.is_empty()).count()
    }

    /// Sum of the lengths of the fields' names and values: what Envoy's `byteSize` counts.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        let pseudo = self.pseudo().into_iter().filter(|(_, value)| !value.is_empty());
        self.headers.byte_size() + pseudo.map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    /// The pseudo headers; those without a value are not there.
    fn pseudo(&self) -> [(&'static str, &[u8]); 5] {
        [
            (":authority", &self.authority),
            (":path", &self.path),
            (":method", self.method.as_bytes()),
            (":scheme", self.scheme.as_str().as_bytes()),
            (":protocol", self.protocol.as_deref().unwrap_or_default()),
        ]
    }

    /// The value a configuration means by this key; the first one where a name repeats.
    #[must_use]
    pub fn value(&self, key: &HeaderKey) -> Option<&[u8]> {
        match key {
            HeaderKey::Method => Some(self.method.as_bytes()),
            HeaderKey::Path => (!self.path.is_empty()).then_some(&self.path[..]),
            HeaderKey::Authority => (!self.authority_missing).then_some(&self.authority[..]),
            HeaderKey::Scheme => (self.scheme != Scheme::Unknown).then_some(self.scheme.as_str().as_bytes()),
            HeaderKey::Protocol => self.protocol.as_deref(),
            HeaderKey::Status => None,
            HeaderKey::Name(name) => self.headers.value(name).map(|v| &v[..]),
        }
    }

    /// Whether this asks for a tunnel by CONNECT without `:protocol`.
    #[must_use]
    pub fn is_plain_connect(&self) -> bool {
        self.method == Method::Connect && self.protocol.is_none()
    }

    /// Whether the content type says gRPC: `application/grpc` or `application/grpc+…`.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(&self.headers)
    }

    /// The path without its query.
    #[must_use]
    pub fn path_without_query(&self) -> &[u8] {
        match memchr::memchr(b'?', &self.path) {
            Some(at) => &self.path[..at],
            None => &self.path,
        }
    }
}

/// A response's status and headers.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// `:status`, 100..=999.
    pub status: u16,
    /// The version it was received with.
    pub version: Version,
    /// Headers.
    pub headers: Headers,
}

impl ResponseHead {
    /// How many fields there are, `:status` among them.
    #[must_use]
    pub const fn field_count(&self) -> usize {
        self.headers.len() + 1
    }

    /// Sum of the lengths of the fields' names and values: what Envoy's `byteSize` counts.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.headers.byte_size() + ":status200".len()
    }

    /// The value a configuration means by this key; the first one where a name repeats. `:status` is not bytes here:
    /// callers that match it format [`Self::status`].
    #[must_use]
    pub fn value(&self, key: &HeaderKey) -> Option<&[u8]> {
        match key {
            HeaderKey::Name(name) => self.headers.value(name).map(|v| &v[..]),
            _ => None,
        }
    }
}

/// Whether headers declare a gRPC content type.
#[must_use]
pub fn is_grpc_content_type(headers: &Headers) -> bool {
    headers.value(&Known::ContentType).is_some_and(|v| {
        v.strip_prefix(b"application/grpc").is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'+'))
    })
}

/// What a configuration names by a header's name: a pseudo header or a real one. `host` means `:authority`, as in Envoy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:authority` or `host`
    Authority,
    /// `:scheme`
    Scheme,
    /// `:protocol`
    Protocol,
    /// `:status`
    Status,
    /// An ordinary header.
    Name(HeaderName),
}

impl HeaderKey {
    /// The key with this text, any case; `None` when it is neither a pseudo header nor a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":protocol" => Self::Protocol,
            ":status" => Self::Status,
            other => Self::Name(HeaderName::parse(other.as_bytes())?),
        })
    }
}

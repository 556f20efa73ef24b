//! Header names: an enum for the names the proxy itself cares about, raw lower-case bytes for all others.
//!
//! Comparing two known names is one byte compare, and a name parsed from an HTTP/1 read buffer borrows that
//! buffer, so no name is copied on the way from HTTP/1 to HTTP/1.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

/// A lower-case header name (RFC 9110 section 5.1). Pseudo headers are not names: see [`super::HeaderKey`].
#[derive(Clone)]
pub struct HeaderName(Repr);

#[derive(Clone)]
enum Repr {
    Known(Known),
    Other(Bytes),
}

impl HeaderName {
    /// A name whose bytes are lower case already, as the codecs produce it. Known names release the bytes.
    #[must_use]
    pub fn from_lowercase(bytes: Bytes) -> Self {
        match Known::from_lowercase(&bytes) {
            Some(known) => Self(Repr::Known(known)),
            None => Self(Repr::Other(bytes)),
        }
    }

    /// A lower-case name that [`Known::from_lowercase`] has just not found; a known one here would equal no other.
    #[must_use]
    pub fn from_unknown_lowercase(bytes: Bytes) -> Self {
        debug_assert!(Known::from_lowercase(&bytes).is_none(), "a known name");
        Self(Repr::Other(bytes))
    }

    /// A name from configuration or code: any case, checked to be a token (RFC 9110 section 5.6.2).
    /// `None` when it is empty or holds a byte that may not stand in a name.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return None;
        }
        Some(Self::from_lowercase(Bytes::from(name.to_ascii_lowercase())))
    }

    /// The name's bytes, lower case.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Known(known) => known.as_str().as_bytes(),
            Repr::Other(bytes) => bytes,
        }
    }

    /// The name as text; names are tokens, hence ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Known(known) => known.as_str(),
            Repr::Other(bytes) => std::str::from_utf8(bytes).unwrap_or("?"),
        }
    }

    /// The known name this is, if it is one.
    #[must_use]
    pub fn known(&self) -> Option<Known> {
        match self.0 {
            Repr::Known(known) => Some(known),
            Repr::Other(_) => None,
        }
    }
}

impl From<Known> for HeaderName {
    fn from(known: Known) -> Self {
        Self(Repr::Known(known))
    }
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Known(a), Repr::Known(b)) => a == b,
            (Repr::Other(a), Repr::Other(b)) => a == b,
            // A name with a known spelling is always stored as known.
            _ => false,
        }
    }
}

impl Eq for HeaderName {}

impl PartialEq<Known> for HeaderName {
    fn eq(&self, other: &Known) -> bool {
        matches!(self.0, Repr::Known(known) if known == *other)
    }
}

impl Hash for HeaderName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a byte may stand in a header name or method (`tchar`, RFC 9110 section 5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

macro_rules! known_names {
    ($($variant:ident = $text:literal,)*) => {
        /// Names the proxy reads or writes itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
        }

        impl Known {
            /// Every known name, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name's spelling, lower case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                const TEXTS: &[&str] = &[$($text,)*];
                TEXTS[self as usize]
            }

            /// The known name with this lower-case spelling.
            #[must_use]
            pub fn from_lowercase(bytes: &[u8]) -> Option<Self> {
                let mut slot = slot(bytes);
                loop {
                    let known = *Self::ALL.get(SLOTS[slot] as usize)?;
                    if known.as_str().as_bytes() == bytes {
                        return Some(known);
                    }
                    slot = (slot + 1) % SLOTS.len();
                }
            }
        }
    };
}

known_names! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    Age = "age",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Expires = "expires",
    GrpcAcceptEncoding = "grpc-accept-encoding",
    GrpcEncoding = "grpc-encoding",
    GrpcMessage = "grpc-message",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    Http2Settings = "http2-settings",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    Pragma = "pragma",
    ProxyConnection = "proxy-connection",
    ProxyStatus = "proxy-status",
    Referer = "referer",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    WwwAuthenticate = "www-authenticate",
    XB3Flags = "x-b3-flags",
    XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled",
    XB3SpanId = "x-b3-spanid",
    XB3TraceId = "x-b3-traceid",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    XClientTraceId = "x-client-trace-id",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
    XEnvoyLocalOverloaded = "x-envoy-local-overloaded",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalDstHost = "x-envoy-original-dst-host",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRateLimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
    XEnvoyUpstreamHealthcheckedCluster = "x-envoy-upstream-healthchecked-cluster",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRequestId = "x-request-id",
}

/// A hash table over the known names, built at compile time: every message looks up each of its names. Entries index
/// [`Known::ALL`]; free slots hold an index beyond it and end a probe.
static SLOTS: [u8; 512] = {
    let mut slots = [u8::MAX; 512];
    let mut index = 0;
    while index < Known::ALL.len() {
        let mut at = slot(Known::ALL[index].as_str().as_bytes());
        while slots[at] != u8::MAX {
            at = (at + 1) % slots.len();
        }
        slots[at] = index as u8;
        index += 1;
    }
    slots
};

/// Where the probe for a name starts.
#[inline]
const fn slot(name: &[u8]) -> usize {
    let Some(last) = name.len().checked_sub(1) else { return 0 };
    let mix = name[0] as usize * 7
        + name[last] as usize * 31
        + name[last / 2] as usize * 131
        + name[last * 3 / 4] as usize * 61;
    (mix + name.len() * 17) % 512
}

const _: () = assert!(Known::ALL.len() < u8::MAX as usize, "an index of a known name fits a byte");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_round_trip_and_are_lower_case() {
        for known in Known::ALL {
            assert_eq!(Known::from_lowercase(known.as_str().as_bytes()), Some(*known));
            assert_eq!(known.as_str(), known.as_str().to_ascii_lowercase());
        }
    }

    #[test]
    fn parse_folds_case_and_refuses_what_is_no_token() {
        assert_eq!(HeaderName::parse(b"Content-Length"), Some(Known::ContentLength.into()));
        assert_eq!(HeaderName::parse(b"X-Mine").map(|n| n.as_str().to_owned()).as_deref(), Some("x-mine"));
        for bad in [&b""[..], b"a b", b"a:b", b"\xffx", b"a\r"] {
            assert_eq!(HeaderName::parse(bad), None, "{bad:?}");
        }
    }
}

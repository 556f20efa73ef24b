//! How a forwarded request is treated: time limits, retries, upgrades.

use crate::transport::proxy_protocol::ProxyProtocolVersion;
use std::time::Duration;

use filters::http::HeaderName;
use filters::matcher::HeaderMatcher;

/// The time limits of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request until the end of the response (`timeout`); `None` is for ever, also where
    /// `max_stream_duration` takes its place.
    pub response: Option<Duration>,
    /// Without any frame either way (`idle_timeout`); `None` leaves the connection manager's, zero turns it off.
    pub idle: Option<Duration>,
    /// Waiting for window at the end of the stream (`flush_timeout`); `None` follows `idle`, zero turns it off.
    pub flush: Option<Duration>,
    /// The longest a stream may live (`max_stream_duration.max_stream_duration`); `None` leaves the connection manager's,
    /// zero turns it off.
    pub max_stream_duration: Option<Duration>,
    /// What `grpc-timeout` may set; `None` when the header is not looked at.
    pub grpc: Option<GrpcTimeout>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { response: Some(Duration::from_secs(15)), idle: None, flush: None, max_stream_duration: None, grpc: None }
    }
}

/// How the `grpc-timeout` header is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// Which limit the header sets.
    pub target: GrpcTimeoutTarget,
    /// The most the header may ask for; `None` has no bound.
    pub max: Option<Duration>,
    /// Subtracted from the header's value: the proxy's answer should come before the client gives up.
    pub offset: Option<Duration>,
}

/// The limit a `grpc-timeout` header replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcTimeoutTarget {
    /// The stream's duration (`grpc_timeout_header_max`).
    StreamDuration,
    /// The response timeout (the deprecated `max_grpc_timeout`).
    Response,
}

impl GrpcTimeout {
    /// How long a stream may live whose client asks for `wanted` ([`GrpcTimeoutTarget::StreamDuration`]). Zero is at once:
    /// nothing is left of what was asked for.
    #[must_use]
    pub fn stream_duration(&self, wanted: Duration) -> Duration {
        let bounded = self.max.map_or(wanted, |max| wanted.min(max));
        bounded.saturating_sub(self.offset.unwrap_or_default())
    }

    /// How long a response may take for a client that asks for `wanted`, if it asks ([`GrpcTimeoutTarget::Response`]);
    /// `None` is for ever.
    #[must_use]
    pub fn response(&self, wanted: Option<Duration>) -> Option<Duration> {
        let wanted = wanted.filter(|wanted| !wanted.is_zero());
        let wanted = wanted.map(|wanted| match self.offset {
            Some(offset) if offset < wanted => wanted - offset,
            _ => wanted,
        });
        match (wanted, self.max) {
            (Some(wanted), Some(max)) => Some(wanted.min(max)),
            (wanted, max) => wanted.or(max),
        }
    }
}

/// `RouteAction.priority`: which class of circuit-breaker limits counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Priority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// One of `RouteAction.upgrade_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// The protocol, lower case (`websocket`, `connect`).
    pub protocol: Box<str>,
    /// Whether it is allowed; overrides the connection manager's setting for the same protocol.
    pub enabled: bool,
    /// CONNECT ends here, and its bytes go upstream as plain TCP.
    pub connect: Option<ConnectConfig>,
}

/// `RouteAction.upgrade_configs.connect_config`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    /// The header that tells the upstream who the client is, before its bytes.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Whether the body of a POST is treated like the bytes of CONNECT.
    pub allow_post: bool,
}

/// When and how a request is sent again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// How often at most, beyond the first attempt.
    pub num_retries: u32,
    /// One attempt's time limit; `None` is the whole request's.
    pub per_try_timeout: Option<Duration>,
    /// One attempt's limit without upstream data.
    pub per_try_idle_timeout: Option<Duration>,
    /// How often another host is looked for when a predicate rejects one.
    pub host_selection_retry_max_attempts: u32,
    /// Statuses for [`RetryOn::RETRIABLE_STATUS_CODES`].
    pub retriable_status_codes: Box<[u16]>,
    /// Response headers for [`RetryOn::RETRIABLE_HEADERS`]; one match is enough.
    pub retriable_headers: Box<[HeaderMatcher]>,
    /// A request is retried only if one of these matches it; empty means every request.
    pub retriable_request_headers: Box<[HeaderMatcher]>,
    /// Base of the exponential back-off; `None` is the runtime's 25 ms.
    pub base_interval: Option<Duration>,
    /// Cap of the back-off; `None` is ten times the base.
    pub max_interval: Option<Duration>,
    /// Response headers that say when to come back, first match wins.
    pub reset_headers: Box<[ResetHeader]>,
    /// The longest such a header may ask for.
    pub reset_max_interval: Duration,
    /// Whether the cluster is chosen again for a retry.
    pub refresh_cluster_on_retry: bool,
}

/// A response header that holds a time to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// Whether it holds a Unix time rather than seconds from now.
    pub unix_timestamp: bool,
}

/// A set of retry conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

macro_rules! retry_on {
    ($($(#[$meta:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl RetryOn {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)*

            fn token(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

retry_on! {
    /// Any 5xx, or no response at all.
    FIVE_XX = 0, "5xx";
    /// 502, 503 and 504, or no response at all.
    GATEWAY_ERROR = 1, "gateway-error";
    /// The upstream did not respond at all.
    RESET = 2, "reset";
    /// The stream was reset before the request's headers were sent.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// No connection.
    CONNECT_FAILURE = 4, "connect-failure";
    /// The response carries `x-envoy-ratelimited`.
    ENVOY_RATELIMITED = 5, "envoy-ratelimited";
    /// 409.
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// REFUSED_STREAM.
    REFUSED_STREAM = 7, "refused-stream";
    /// A listed status.
    RETRIABLE_STATUS_CODES = 8, "retriable-status-codes";
    /// A listed response header.
    RETRIABLE_HEADERS = 9, "retriable-headers";
    /// HTTP/3 failed after the handshake.
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure";
    /// gRPC status 1.
    GRPC_CANCELLED = 11, "cancelled";
    /// gRPC status 4.
    GRPC_DEADLINE_EXCEEDED = 12, "deadline-exceeded";
    /// gRPC status 8.
    GRPC_RESOURCE_EXHAUSTED = 13, "resource-exhausted";
    /// gRPC status 14.
    GRPC_UNAVAILABLE = 14, "unavailable";
    /// gRPC status 13.
    GRPC_INTERNAL = 15, "internal";
}

impl RetryOn {
    /// The conditions of a comma-separated list (a policy's or `x-envoy-retry-on`'s), and the words that are none.
    #[must_use]
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut unknown = Vec::new();
        let mut on = Self::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Self::token(word) {
                Some(condition) => on = on | condition,
                None => unknown.push(word),
            }
        }
        (on, unknown)
    }

    /// Whether the list is fit for `x-envoy-retry-on`, or with `grpc` for `x-envoy-retry-grpc-on`: each header has its own
    /// conditions.
    #[must_use]
    pub fn is_valid_header(list: &str, grpc: bool) -> bool {
        let (on, unknown) = Self::parse(list);
        let foreign = if grpc { on.0 & !Self::GRPC } else { on.0 & Self::GRPC };
        unknown.is_empty() && foreign == 0
    }

    /// The conditions about gRPC statuses.
    const GRPC: u32 = Self::GRPC_CANCELLED.0
        | Self::GRPC_DEADLINE_EXCEEDED.0
        | Self::GRPC_RESOURCE_EXHAUSTED.0
        | Self::GRPC_UNAVAILABLE.0
        | Self::GRPC_INTERNAL.0;

    /// Whether all of these conditions are in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no condition.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

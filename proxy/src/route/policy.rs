//! How a forwarded request is treated: time limits, upgrades.

use crate::transport::proxy_protocol::ProxyProtocolVersion;
use std::time::Duration;

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

//! How an attempt can fail: one table from cause to status, response flag, details and body.

use std::borrow::Cow;

use filters::flags::{ResponseFlags, underscored};

/// Why an upstream attempt ended without a complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// What happened.
    pub kind: FailureKind,
    /// The transport's own words (`delayed connect error: Connection refused`), for the log.
    pub transport: Option<Cow<'static, str>>,
    /// Envoy names no host for it (`%UPSTREAM_HOST%`), although one was picked.
    pub without_host: bool,
}

/// What happened to an attempt, in Envoy's vocabulary of stream resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection could be made: refused, unreachable, no descriptor.
    ConnectFailure,
    /// The connection was not ready within the cluster's `connect_timeout`.
    ConnectTimeout,
    /// A circuit breaker is open.
    Overflow,
    /// The connection ended before the response was complete.
    ConnectionTermination,
    /// The upstream reset the stream (HTTP/2 RST_STREAM).
    RemoteReset,
    /// The upstream refused the stream before working on it (REFUSED_STREAM, or GOAWAY below its id).
    RemoteRefused,
    /// The upstream reset the stream with CONNECT_ERROR.
    RemoteConnectError,
    /// We reset the stream.
    LocalReset,
    /// What the upstream sent is not HTTP, or not the HTTP it may send now.
    ProtocolError,
}

impl UpstreamFailure {
    /// A failure without words of the transport.
    #[must_use]
    pub const fn new(kind: FailureKind) -> Self {
        Self { kind, transport: None, without_host: false }
    }

    /// A failure with the transport's words.
    #[must_use]
    pub fn with(kind: FailureKind, transport: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, transport: Some(transport.into()), without_host: false }
    }

    /// No place in line: the request ends before it is any host's.
    #[must_use]
    pub const fn no_place_in_line() -> Self {
        Self { kind: FailureKind::Overflow, transport: None, without_host: true }
    }

    /// `%RESPONSE_CODE_DETAILS%` of this failure; a transport failure is appended after `|`, white space as `_`.
    #[must_use]
    pub fn details(&self, response_started: bool) -> String {
        let when = if response_started { "after" } else { "before" };
        let mut details = format!("upstream_reset_{when}_response_started{{{}", self.kind.reason().replace(' ', "_"));
        if let Some(transport) = &self.transport {
            details.push('|');
            details.push_str(&underscored(transport));
        }
        details.push('}');
        details
    }

    /// The body of the local reply that stands for this failure, of the only try or of the last.
    #[must_use]
    pub fn body(&self, retried: bool) -> String {
        let which = if retried { "retried and the latest reset reason" } else { "reset reason" };
        format!("upstream connect error or disconnect/reset before headers. {which}: {}", self.kind.reason())
    }
}

impl FailureKind {
    /// Envoy's words for it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Overflow => "overflow",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefused => "remote refused stream reset",
            Self::RemoteConnectError => "remote error with CONNECT request",
            Self::LocalReset => "local reset",
            Self::ProtocolError => "protocol error",
        }
    }

    /// The response flag.
    #[must_use]
    pub const fn flag(self) -> ResponseFlags {
        match self {
            Self::ConnectFailure | Self::ConnectTimeout => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Self::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Self::RemoteReset | Self::RemoteRefused | Self::RemoteConnectError => ResponseFlags::UPSTREAM_REMOTE_RESET,
            Self::LocalReset => ResponseFlags::LOCAL_RESET,
            Self::ProtocolError => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        }
    }

    /// The status of the local reply.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::ProtocolError => 502,
            _ => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_envoys() {
        let refused = UpstreamFailure::with(FailureKind::ConnectFailure, "delayed connect error: Connection refused");
        assert_eq!(
            refused.details(false),
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert!(refused.body(false).ends_with("headers. reset reason: remote connection failure"));
        assert!(
            refused.body(true).ends_with("headers. retried and the latest reset reason: remote connection failure")
        );
        let cut = UpstreamFailure::new(FailureKind::ConnectionTermination);
        assert_eq!(cut.details(true), "upstream_reset_after_response_started{connection_termination}");
        assert_eq!(FailureKind::ProtocolError.status(), 502);
    }
}

//! `HttpConnectionManager` to runtime types.
//!
//! Defaults are Envoy 1.40's. Route tables are not compiled here: an inline one stays a protobuf for the route parser, one
//! from a control plane is named for the route manager to subscribe to.

mod chain;
mod identity;
mod local_reply;
mod options;
mod parse;
mod proxy_status;
mod values;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::ConfigSource;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use filters::config::Entry;
use filters::ext_authz::ExtAuthzConfig;
use filters::health_check::HealthCheckConfig;
use filters::http::HeaderName;
use filters::jwt_authn::JwtAuthnConfig;
use filters::rbac::RbacConfig;
use filters::stream_info::Metadata;

use super::access_log::LogContext;
use super::http2::Http2Options;
use crate::http::hygiene::{RequestHygiene, ResponseHygiene};
use crate::http::path::PathOptions;
use crate::http::reply::LocalReplyConfig;
use crate::observe::access_log::AccessLog;
pub use chain::unsupported_http_filters;
pub use local_reply::body_format;
pub use options::{header_case, http1};
pub use parse::parse;

/// Type name of the network filter this configures.
pub const TYPE: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// The rows of the support ledger about connection managers.
pub static LEDGER: &[&[&Entry]] = &[
    parse::unsupported::ALL,
    options::unsupported_http1::ALL,
    unsupported_http_filters::ALL,
    chain::unsupported_router::ALL,
];

/// What parsing a connection manager needs to know of the process.
#[derive(Debug, Clone, Copy)]
pub struct HcmContext<'a> {
    /// For the access logs, and everything they need.
    pub log: LogContext<'a>,
    /// `node.id`
    pub node_id: &'a str,
    /// `node.cluster`
    pub node_cluster: &'a str,
    /// `node.metadata`
    pub node_metadata: &'a Metadata,
    /// This node's own address; appended to `x-forwarded-for` for loopback peers.
    pub local_address: Option<IpAddr>,
    /// Runtime guard `http_reject_path_with_fragment` is set to false.
    pub strip_fragment: bool,
}

/// A connection manager, ready to serve.
#[derive(Debug)]
pub struct HcmConfig {
    /// `stat_prefix`, without trailing dot
    pub stat_prefix: Arc<str>,
    /// `codec_type`
    pub codec: CodecType,
    /// `route_specifier`
    pub routes: RouteSource,
    /// `http_filters`, in order; the last one is terminal.
    pub filters: Vec<HttpFilter>,
    /// `http_protocol_options`
    pub http1: Http1Options,
    /// `http2_protocol_options`
    pub http2: Http2Options,
    /// `common_http_protocol_options` and other limits
    pub limits: Limits,
    /// All timeouts
    pub timeouts: Timeouts,
    /// What happens to request heads
    pub request: RequestHygiene,
    /// What happens to response heads
    pub response: ResponseHygiene,
    /// What happens to paths and hosts
    pub path: PathOptions,
    /// `scheme_header_transformation.match_upstream`
    pub match_upstream_scheme: bool,
    /// `local_reply_config`
    pub local_reply: Option<LocalReplyConfig>,
    /// `access_log`
    pub access_logs: Vec<AccessLog>,
    /// `access_log_options`
    pub access_log_options: AccessLogOptions,
    /// `upgrade_configs`
    pub upgrades: Vec<Upgrade>,
    /// `proxy_100_continue`
    pub proxy_100_continue: bool,
    /// `append_local_overload`
    pub append_local_overload: bool,
    /// `add_proxy_protocol_connection_state`: upstreams may be told who the client is.
    pub tells_upstreams: bool,
}

impl HcmConfig {
    /// The terminal filter's configuration.
    #[must_use]
    pub fn router(&self) -> &RouterConfig {
        match self.filters.last().map(|filter| &filter.kind) {
            Some(HttpFilterKind::Router(router)) => router,
            _ => RouterConfig::DEFAULT,
        }
    }

    /// Whether requests may switch to `protocol`, unless their route says otherwise.
    #[must_use]
    pub fn upgrade_enabled(&self, protocol: &[u8]) -> bool {
        self.upgrade(protocol).is_some_and(|n| self.upgrades.get(n).is_some_and(|upgrade| upgrade.enabled))
    }

    /// Which of [`Self::upgrades`] is about `protocol`.
    #[must_use]
    pub fn upgrade(&self, protocol: &[u8]) -> Option<usize> {
        self.upgrades.iter().position(|upgrade| upgrade.upgrade_type.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

impl RouterConfig {
    /// A router without settings.
    pub const DEFAULT: &'static Self = &Self {
        dynamic_stats: true,
        upstream_logs: Vec::new(),
        flush_log_on_upstream_stream: false,
        upstream_log_flush_interval: None,
        suppress_envoy_headers: false,
        strict_check_headers: Vec::new(),
        respect_expected_rq_timeout: false,
        suppress_grpc_failure_stats: false,
        reject_connect_early_data: false,
    };
}

/// `codec_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodecType {
    /// By ALPN, else by the first bytes.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where the routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// `route_config`, for the route parser.
    Inline(Box<RouteConfiguration>),
    /// `rds`
    Rds {
        /// `config_source`
        source: Box<ConfigSource>,
        /// `route_config_name`
        name: String,
    },
}

/// One of `http_filters`.
#[derive(Debug)]
pub struct HttpFilter {
    /// `name`: the key of per-route configuration.
    pub name: Arc<str>,
    /// `disabled`: off unless a route turns it on.
    pub disabled: bool,
    /// What it is.
    pub kind: HttpFilterKind,
}

/// The filters there are.
#[derive(Debug)]
pub enum HttpFilterKind {
    /// `envoy.filters.http.cors`
    Cors,
    /// `envoy.filters.http.health_check`
    HealthCheck(Arc<HealthCheckConfig>),
    /// `envoy.filters.http.ext_authz`
    ExtAuthz(Arc<ExtAuthzConfig>),
    /// `envoy.filters.http.jwt_authn`
    JwtAuthn(Arc<JwtAuthnConfig>),
    /// `envoy.filters.http.rbac`
    Rbac(Arc<RbacConfig>),
    /// `envoy.filters.http.router`
    Router(RouterConfig),
}

impl HttpFilterKind {
    /// What Envoy calls such a filter in errors.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Cors => "envoy.filters.http.cors",
            Self::HealthCheck(_) => "envoy.filters.http.health_check",
            Self::ExtAuthz(_) => "envoy.filters.http.ext_authz",
            Self::JwtAuthn(_) => "envoy.filters.http.jwt_authn",
            Self::Rbac(_) => "envoy.filters.http.rbac",
            Self::Router(_) => "envoy.filters.http.router",
        }
    }
}

/// `envoy.extensions.filters.http.router.v3.Router`
#[derive(Debug)]
pub struct RouterConfig {
    /// `dynamic_stats` (default true)
    pub dynamic_stats: bool,
    /// `upstream_log`
    pub upstream_logs: Vec<AccessLog>,
    /// `upstream_log_options.flush_upstream_log_on_upstream_stream`
    pub flush_log_on_upstream_stream: bool,
    /// `upstream_log_options.upstream_log_flush_interval`
    pub upstream_log_flush_interval: Option<Duration>,
    /// `suppress_envoy_headers`
    pub suppress_envoy_headers: bool,
    /// `strict_check_headers`: answered with 400 when they do not parse.
    pub strict_check_headers: Vec<HeaderName>,
    /// `respect_expected_rq_timeout`
    pub respect_expected_rq_timeout: bool,
    /// `suppress_grpc_request_failure_code_stats`
    pub suppress_grpc_failure_stats: bool,
    /// `reject_connect_request_early_data`
    pub reject_connect_early_data: bool,
}

/// One of `upgrade_configs`.
#[derive(Debug)]
pub struct Upgrade {
    /// `upgrade_type`, compared without case: `websocket`, `CONNECT`, …
    pub upgrade_type: String,
    /// `enabled` (default true); a route may say otherwise.
    pub enabled: bool,
    /// `filters`: the chain of upgraded streams where it is not the usual one.
    pub filters: Option<Vec<HttpFilter>>,
}

/// `access_log_options`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessLogOptions {
    /// `access_log_flush_interval`: a line every so often while a stream lives.
    pub flush_interval: Option<Duration>,
    /// `flush_access_log_on_new_request`
    pub on_new_request: bool,
    /// `flush_log_on_tunnel_successfully_established`
    pub on_tunnel_established: bool,
}

/// Limits of connections and heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `max_request_headers_kb`, in bytes (default 60 KiB)
    pub max_request_headers_bytes: usize,
    /// `max_headers_count` (default 100)
    pub max_headers_count: usize,
    /// `max_requests_per_connection`; `None` for no limit
    pub max_requests_per_connection: Option<u32>,
    /// `headers_with_underscores_action`
    pub underscores: Underscores,
    /// `http1_safe_max_connection_duration`
    pub http1_safe_max_connection_duration: bool,
}

/// `headers_with_underscores_action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// `ALLOW`
    #[default]
    Allow,
    /// `REJECT_REQUEST`
    Reject,
    /// `DROP_HEADER`
    Drop,
}

/// How long things may take; `None` for as long as they like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeouts {
    /// `common_http_protocol_options.idle_timeout` (default 1 h)
    pub idle: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration_jitter`, percent
    pub max_connection_duration_jitter: f64,
    /// `common_http_protocol_options.max_stream_duration`
    pub max_stream_duration: Option<Duration>,
    /// `stream_idle_timeout` (default 5 min)
    pub stream_idle: Option<Duration>,
    /// `stream_flush_timeout` (default `stream_idle_timeout`)
    pub stream_flush: Option<Duration>,
    /// `request_timeout`
    pub request: Option<Duration>,
    /// `request_headers_timeout`
    pub request_headers: Option<Duration>,
    /// `drain_timeout` (default 5 s)
    pub drain: Duration,
    /// `drain_timeout_jitter`, percent
    pub drain_jitter: f64,
    /// `delayed_close_timeout` (default 1 s)
    pub delayed_close: Option<Duration>,
}

impl Timeouts {
    /// How long one connection may live, `random` being uniform in `[0, 1)`.
    #[must_use]
    pub fn connection_age(&self, random: f64) -> Option<Duration> {
        self.max_connection_duration.map(|age| lengthened(age, self.max_connection_duration_jitter, random))
    }

    /// How long one connection is drained.
    #[must_use]
    pub fn drain_time(&self, random: f64) -> Duration {
        lengthened(self.drain, self.drain_jitter, random)
    }
}

/// A duration with up to `jitter` percent more.
fn lengthened(duration: Duration, jitter: f64, random: f64) -> Duration {
    let factor = 1.0 + jitter.max(0.0) / 100.0 * random;
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(duration)
}

/// `http_protocol_options`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    /// `allow_absolute_url` (default true)
    pub allow_absolute_url: bool,
    /// `accept_http_10`
    pub accept_http_10: bool,
    /// `default_host_for_http_10`; empty for none
    pub default_host_for_http_10: String,
    /// `header_key_format`
    pub header_case: HeaderCase,
    /// `enable_trailers`
    pub enable_trailers: bool,
    /// `allow_chunked_length`
    pub allow_chunked_length: bool,
    /// Reset the stream instead of closing the connection on an invalid message.
    pub stream_error_on_invalid_message: bool,
    /// `send_fully_qualified_url` (upstream)
    pub send_fully_qualified_url: bool,
    /// `allow_custom_methods`
    pub allow_custom_methods: bool,
}

/// `header_key_format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderCase {
    /// Lower case.
    #[default]
    Lower,
    /// `proper_case_words`
    Proper,
    /// `stateful_formatter` with `preserve_case`
    Preserve {
        /// `forward_reason_phrase`
        forward_reason_phrase: bool,
        /// `formatter_type_on_envoy_headers`: Envoy's own headers in proper case.
        proper_case_for_own: bool,
    },
}

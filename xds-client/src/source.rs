//! Where resources come from, as plain data: what the embedder distils from `envoy.config.core.v3.ConfigSource`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::backoff::BackoffConfig;
use crate::connect::Target;
use crate::mux::Mode;
use crate::rate_limit::RateLimit;

/// `ConfigSource.config_source_specifier`.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    /// `ads`: the one aggregated stream of the process.
    Ads,
    /// `api_config_source` of `GRPC` or `DELTA_GRPC`: a stream for this subscription.
    Grpc(GrpcSource),
    /// `api_config_source` of `REST`.
    Rest(RestSource),
    /// `path_config_source`.
    File(FileSource),
}

impl SourceConfig {
    /// The configured cluster that is asked, if it is one.
    pub fn cluster(&self) -> Option<&str> {
        let target = match self {
            Self::Grpc(source) => &source.service.target,
            Self::Rest(source) => &source.target,
            Self::Ads | Self::File(_) => return None,
        };
        match target {
            Target::Cluster(name) => Some(name),
            Target::Address(_) | Target::Secure(..) => None,
        }
    }
}

/// A gRPC stream to a control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcSource {
    /// State of the world or delta.
    pub mode: Mode,
    /// One stream for all types (`ads_config`), or one for the subscribed type.
    pub aggregated: bool,
    /// Whom to call.
    pub service: GrpcService,
    /// `ApiConfigSource.set_node_on_first_message_only`.
    pub node_on_first_message_only: bool,
    /// `ApiConfigSource.rate_limit_settings`.
    pub rate_limit: Option<RateLimit>,
    /// `envoy_grpc.retry_policy.retry_back_off`.
    pub backoff: BackoffConfig,
}

impl GrpcSource {
    /// A source with Envoy's defaults.
    pub fn new(mode: Mode, aggregated: bool, target: Target) -> Self {
        Self {
            mode,
            aggregated,
            service: GrpcService::new(target),
            node_on_first_message_only: false,
            rate_limit: None,
            backoff: BackoffConfig::default(),
        }
    }
}

/// `envoy.config.core.v3.GrpcService`.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcService {
    /// The cluster (`envoy_grpc`) or address (`google_grpc`).
    pub target: Target,
    /// `:authority`; by default the cluster's name or the address. (`envoy_grpc.authority`, `grpc.default_authority`.)
    pub authority: Option<String>,
    /// `initial_metadata`: header name and value. Values of names that end in `-bin` are raw bytes.
    pub initial_metadata: Vec<(String, Bytes)>,
    /// Do not add `x-forwarded-for` and `x-envoy-internal` (`envoy_grpc.skip_envoy_headers`; always so with `google_grpc`).
    pub skip_envoy_headers: bool,
    /// HTTP/2 pings (`grpc.keepalive_time_ms` and its kin, or the cluster's `connection_keepalive`).
    pub keepalive: Option<Keepalive>,
    /// Largest response in bytes (`grpc.max_receive_message_length`, `envoy_grpc.max_receive_message_length`); by default
    /// any size gRPC can frame.
    pub max_receive_message_length: Option<usize>,
    /// What is added to the metadata of every call when it is made (`google_grpc.call_credentials`).
    pub credentials: Vec<CallCredentials>,
}

impl GrpcService {
    /// A service with Envoy's defaults.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            authority: None,
            initial_metadata: Vec::new(),
            skip_envoy_headers: false,
            keepalive: None,
            max_receive_message_length: None,
            credentials: Vec::new(),
        }
    }
}

/// Metadata that is made for each call, by [`Network::metadata`](crate::Network::metadata).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallCredentials {
    /// A signature of AWS (`envoy.grpc_credentials.aws_iam`).
    AwsIam {
        /// The signing name of the service.
        service: String,
        /// The region; empty for that of the environment.
        region: String,
    },
    /// What a file holds at the time of the call (`envoy.grpc_credentials.file_based_metadata`).
    File {
        /// The file.
        path: PathBuf,
        /// The header.
        header: String,
        /// What stands before the file's content.
        prefix: String,
    },
}

/// HTTP/2 keepalive pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// Time between pings (`grpc.keepalive_time_ms`).
    pub interval: Duration,
    /// How long to wait for a pong (`grpc.keepalive_timeout_ms`).
    pub timeout: Duration,
    /// Ping without open streams too (`grpc.keepalive_permit_without_calls`).
    pub while_idle: bool,
}

/// A polled REST endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct RestSource {
    /// Whom to ask (`cluster_names`).
    pub target: Target,
    /// `refresh_delay`: the least pause between polls.
    pub refresh_delay: Duration,
    /// The most that is added to a pause, at random. Envoy adds up to as much again as `refresh_delay`.
    pub jitter: Duration,
    /// `request_timeout`; Envoy's default is 1 s.
    pub request_timeout: Duration,
}

impl RestSource {
    /// A source with Envoy's defaults.
    pub fn new(target: Target, refresh_delay: Duration) -> Self {
        Self { target, refresh_delay, jitter: refresh_delay, request_timeout: Duration::from_secs(1) }
    }
}

/// A watched file that holds one `DiscoveryResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// `path_config_source.path`.
    pub path: PathBuf,
    /// `path_config_source.watched_directory`: anything moved into it makes the file be read again. By default the file's
    /// own directory is watched, for the file's own name.
    pub watched_directory: Option<PathBuf>,
    /// `watched_directory.watch_modify`: changes in place count too.
    pub watch_modify: bool,
}

impl FileSource {
    /// A file whose replacement by rename is noticed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), watched_directory: None, watch_modify: false }
    }
}

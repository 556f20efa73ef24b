//! `health_checks`: how hosts are asked whether they are well.

mod http;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as proto;
use envoy_types::pb::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use envoy_types::pb::google::protobuf as google;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::mutation::{Fields, HeaderMutations};
use memchr::memmem;

pub(super) use self::http::unsupported as http_unsupported;
pub use self::http::{HttpCheck, StatusRange};
use super::connection::SOCKET_MATCH;
use super::{duration, positive};
use crate::config::any::{self, struct_to_json};
use crate::observe::access_log::LogTarget;
use crate::upstream::host::Metadata;

const FILE_SINK: &str = "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink";

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.core.v3.HealthCheck" {
    event_service => Warn, "health check events are not sent to a service";
    custom_health_check => Refuse, "only HTTP, gRPC and TCP health checks are implemented";
} }

/// What a cluster's hosts are asked, and what follows from the answers.
#[derive(Debug)]
pub struct HealthCheck {
    /// Thresholds and intervals.
    pub timing: Timing,
    /// How long an answer may take.
    pub timeout: Duration,
    /// A connection serves more than one check (true).
    pub reuse_connection: bool,
    /// What is asked.
    pub checker: Checker,
    /// What is logged.
    pub events: Events,
    /// `tls_options.alpn_protocols`: offered instead of what the cluster offers.
    pub alpn: Vec<Vec<u8>>,
    /// `transport_socket_match_criteria`, as metadata of a host that is matched by it: goes before the host's own.
    pub socket_criteria: Option<Metadata>,
}

/// Which events of health checks are logged, and where.
#[derive(Debug, Default)]
pub struct Events {
    /// `event_log_path` and the file sinks of `event_logger`.
    pub logs: Vec<LogTarget>,
    /// Every failure, not only a host's first (false).
    pub always_failures: bool,
    /// Every success, not only one that makes a host healthy (false).
    pub always_success: bool,
}

/// Thresholds and intervals of a checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Checks in a row that a healthy host may not fail.
    pub unhealthy_threshold: u32,
    /// Checks in a row that an unhealthy host has to pass; the very first check needs no others.
    pub healthy_threshold: u32,
    /// Between the checks of a healthy host.
    pub interval: Duration,
    /// Between the checks of an unhealthy host (the interval).
    pub unhealthy_interval: Duration,
    /// After a failure that did not make the host unhealthy yet (the unhealthy interval).
    pub unhealthy_edge_interval: Duration,
    /// After a success that did not make the host healthy yet (the interval).
    pub healthy_edge_interval: Duration,
    /// Instead of all of these while the cluster never had a connection (60 s).
    pub no_traffic_interval: Duration,
    /// The same, of a healthy host (the interval without traffic).
    pub no_traffic_healthy_interval: Duration,
    /// The first check waits up to this, at random.
    pub initial_jitter: Duration,
    /// Up to this is added to every interval, at random.
    pub interval_jitter: Duration,
    /// Up to this share of the interval is added to it, at random, in percent.
    pub interval_jitter_percent: u32,
}

/// What a host is asked.
#[derive(Debug)]
pub enum Checker {
    /// A request; its status counts.
    Http(Box<HttpCheck>),
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcCheck),
    /// A connection, or bytes to be answered by bytes.
    Tcp(TcpCheck),
}

/// `grpc_health_check`
#[derive(Debug)]
pub struct GrpcCheck {
    /// The service that is asked about; empty for the server as a whole.
    pub service_name: String,
    /// `:authority`; empty for the cluster's name.
    pub authority: Arc<str>,
    /// `initial_metadata`
    pub headers: HeaderMutations,
}

/// `tcp_health_check`
#[derive(Debug)]
pub struct TcpCheck {
    /// What is sent.
    pub send: Vec<u8>,
    /// What has to come, one after the other with anything between; nothing at all if a connection is enough.
    pub receive: Segments,
    /// The PROXY protocol header that goes first, if any.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// The version of a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line with both addresses.
    V1,
    /// Binary, about the proxy itself (`LOCAL`).
    V2,
}

/// Byte strings to be found one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments(Vec<Vec<u8>>);

/// What an endpoint says about its health checks (`health_check_config`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointCheck {
    /// Where it is checked instead of at its own address.
    pub address: Option<filters::stream_info::Address>,
    /// The port there; 0 for that of the address.
    pub port: u16,
    /// `host` or `:authority` of its checks; empty for the checker's.
    pub hostname: Arc<str>,
    /// It is not checked, and taken to be well.
    pub disabled: bool,
}

impl HealthCheck {
    /// The checker of `cluster`; `http2` says whether it speaks HTTP/2.
    ///
    /// # Errors
    /// On everything Envoy rejects, more than one checker, and what the support ledger refuses.
    pub fn parse_list(
        at: At<'_>,
        protos: Vec<proto::HealthCheck>,
        cluster: &str,
        http2: bool,
    ) -> Result<Option<Arc<Self>>, ConfigError> {
        if protos.len() > 1 {
            // Names are newer than the protos this is built with.
            return Err(at.error(
                "health check at index 0 is missing a name; all health checks must have a name when multiple health \
                 checks are configured",
            ));
        }
        let one = protos.into_iter().next().map(|proto| Self::parse(at.index(0), proto, cluster, http2));
        Ok(one.transpose()?.map(Arc::new))
    }

    fn parse(at: At<'_>, proto: proto::HealthCheck, cluster: &str, http2: bool) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let proto::HealthCheck {
            timeout,
            interval,
            initial_jitter,
            interval_jitter,
            interval_jitter_percent,
            unhealthy_threshold,
            healthy_threshold,
            // Envoy has never read it: the port stands at the endpoint.
            alt_port: _,
            reuse_connection,
            no_traffic_interval,
            no_traffic_healthy_interval,
            unhealthy_interval,
            unhealthy_edge_interval,
            healthy_edge_interval,
            event_log_path,
            event_logger,
            event_service,
            always_log_health_check_failures,
            always_log_health_check_success,
            tls_options,
            transport_socket_match_criteria,
            health_checker,
        } = proto;
        at.unsupported(&unsupported::event_service, &event_service)?;
        let events = Events {
            logs: logs(at, event_log_path, event_logger)?,
            always_failures: always_log_health_check_failures,
            always_success: always_log_health_check_success,
        };
        let proto::health_check::TlsOptions { alpn_protocols } = tls_options.unwrap_or_default();
        let timeout = required(at, "timeout", timeout)?;
        let interval = required(at, "interval", interval)?;
        let unhealthy_threshold = at.field("unhealthy_threshold").required("value", unhealthy_threshold)?.value;
        let healthy_threshold = at.field("healthy_threshold").required("value", healthy_threshold)?.value;
        let above_zero = |name: &str, value, default| -> Result<Duration, ConfigError> {
            Ok(positive(at.field(name), value)?.map_or(default, whole_millis))
        };
        let any = |name: &str, value| -> Result<Duration, ConfigError> {
            Ok(duration(at.field(name), value)?.map_or(Duration::ZERO, whole_millis))
        };
        let no_traffic_interval = above_zero("no_traffic_interval", no_traffic_interval, Duration::from_secs(60))?;
        let unhealthy_interval = above_zero("unhealthy_interval", unhealthy_interval, interval)?;
        let timing = Timing {
            unhealthy_threshold,
            healthy_threshold,
            interval,
            unhealthy_interval,
            unhealthy_edge_interval: above_zero(
                "unhealthy_edge_interval",
                unhealthy_edge_interval,
                unhealthy_interval,
            )?,
            healthy_edge_interval: above_zero("healthy_edge_interval", healthy_edge_interval, interval)?,
            no_traffic_interval,
            no_traffic_healthy_interval: above_zero(
                "no_traffic_healthy_interval",
                no_traffic_healthy_interval,
                no_traffic_interval,
            )?,
            initial_jitter: any("initial_jitter", initial_jitter)?,
            interval_jitter: any("interval_jitter", interval_jitter)?,
            interval_jitter_percent,
        };
        let checker = match at.required("health_checker", health_checker)? {
            proto::health_check::HealthChecker::HttpHealthCheck(check) => {
                Checker::Http(Box::new(HttpCheck::parse(at.field("http_health_check"), check)?))
            }
            proto::health_check::HealthChecker::TcpHealthCheck(check) => {
                Checker::Tcp(TcpCheck::parse(at.field("tcp_health_check"), check)?)
            }
            proto::health_check::HealthChecker::GrpcHealthCheck(_) if !http2 => {
                return Err(at
                    .field("grpc_health_check")
                    .error(format_args!("{cluster} cluster must support HTTP/2 for gRPC healthchecking")));
            }
            proto::health_check::HealthChecker::GrpcHealthCheck(check) => {
                Checker::Grpc(GrpcCheck::parse(at.field("grpc_health_check"), check)?)
            }
            proto::health_check::HealthChecker::CustomHealthCheck(custom) => {
                let at = at.field("custom_health_check");
                at.refuse_or_warn(&unsupported::custom_health_check)?;
                return Err(at.unknown_extension(&custom.name, ""));
            }
        };
        let reuse_connection = reuse_connection.is_none_or(|v| v.value);
        Ok(Self {
            timing,
            timeout,
            reuse_connection,
            checker,
            events,
            alpn: alpn_protocols.into_iter().map(String::into_bytes).collect(),
            socket_criteria: transport_socket_match_criteria.map(socket_criteria),
        })
    }
}

fn socket_criteria(criteria: google::Struct) -> Metadata {
    Metadata::from_iter([(SOCKET_MATCH.to_owned(), struct_to_json(&criteria))])
}

impl GrpcCheck {
    fn parse(at: At<'_>, proto: proto::health_check::GrpcHealthCheck) -> Result<Self, ConfigError> {
        let proto::health_check::GrpcHealthCheck { service_name, authority, initial_metadata } = proto;
        let authority = header_text(at.field("authority"), authority)?;
        let fields = Fields { add: "initial_metadata", remove: "initial_metadata" };
        let parse = filters::format::parse_header_value;
        let headers = HeaderMutations::parse(initial_metadata, Vec::new(), at, fields, parse)?;
        Ok(Self { service_name, authority, headers })
    }
}

impl TcpCheck {
    fn parse(at: At<'_>, proto: proto::health_check::TcpHealthCheck) -> Result<Self, ConfigError> {
        let proto::health_check::TcpHealthCheck { send, receive, proxy_protocol_config } = proto;
        // As in Envoy binary payloads are not sent.
        let is_text = |send: &proto::health_check::Payload| {
            matches!(send.payload, Some(proto::health_check::payload::Payload::Text(_)))
        };
        let (text, at_send) = (send.as_ref().is_some_and(is_text), at.field("send"));
        let send = send.map(|send| payload(at_send, send)).transpose()?.filter(|_| text).unwrap_or_default();
        // There is no downstream connection whose values could be passed on.
        let proxy_protocol = proxy_protocol_config.and_then(
            |proto::ProxyProtocolConfig { version, pass_through_tlvs: _, added_tlvs: _ }| {
                match proto::proxy_protocol_config::Version::try_from(version) {
                    Ok(proto::proxy_protocol_config::Version::V1) => Some(ProxyVersion::V1),
                    Ok(proto::proxy_protocol_config::Version::V2) => Some(ProxyVersion::V2),
                    // Envoy knows no header of such a version, and sends none.
                    Err(_) => None,
                }
            },
        );
        Ok(Self { send, receive: Segments::parse(at.field("receive"), receive)?, proxy_protocol })
    }
}

impl Segments {
    fn parse(at: At<'_>, protos: Vec<proto::health_check::Payload>) -> Result<Self, ConfigError> {
        let parsed = protos.into_iter().enumerate().map(|(n, proto)| payload(at.index(n), proto));
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their bytes in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Whether `bytes` has all of them, in order.
    #[must_use]
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for segment in &self.0 {
            let Some(at) = memmem::find(rest, segment) else { return false };
            rest = &rest[at + segment.len()..];
        }
        true
    }
}

/// Where events go.
fn logs(at: At<'_>, path: String, sinks: Vec<proto::TypedExtensionConfig>) -> Result<Vec<LogTarget>, ConfigError> {
    let mut logs = Vec::new();
    if !path.is_empty() {
        logs.push(LogTarget::File(path.into()));
    }
    let sinks_at = at.field("event_logger");
    for (n, proto::TypedExtensionConfig { name, typed_config }) in sinks.into_iter().enumerate() {
        let at = sinks_at.index(n);
        let here = at.field("typed_config");
        let typed = any::unwrap(&here, at.required("typed_config", typed_config)?, any::struct_to_bytes)?;
        if typed.type_name() != FILE_SINK {
            return Err(at.unknown_extension(&name, typed.type_name()));
        }
        let HealthCheckEventFileSink { event_log_path } = typed.decode(&here)?;
        if event_log_path.is_empty() {
            return Err(here.field("event_log_path").error("value length must be at least 1 characters"));
        }
        logs.push(LogTarget::File(event_log_path.into()));
    }
    Ok(logs)
}

/// A duration that has to be there and above zero.
fn required(at: At<'_>, name: &str, proto: Option<google::Duration>) -> Result<Duration, ConfigError> {
    let at = at.field(name);
    positive(at, proto)?.map(whole_millis).ok_or_else(|| at.error("value is required"))
}

/// Fractions of a millisecond do not count.
fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// The bytes of a payload: text is hexadecimal.
fn payload(at: At<'_>, proto: proto::health_check::Payload) -> Result<Vec<u8>, ConfigError> {
    use proto::health_check::payload::Payload;
    match at.required("payload", proto.payload)? {
        Payload::Binary(bytes) => Ok(bytes),
        Payload::Text(text) if text.is_empty() => {
            Err(at.field("text").error("value length must be at least 1 characters"))
        }
        Payload::Text(text) => {
            let invalid = || at.field("text").error(format_args!("invalid hex string '{text}'"));
            let digits = text.as_bytes();
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            if digits.len() % 2 != 0 {
                return Err(invalid());
            }
            let pairs = digits.chunks_exact(2);
            pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Option<_>>().ok_or_else(invalid)
        }
    }
}

/// Text that may stand in a header's value.
fn header_text(at: At<'_>, text: String) -> Result<Arc<str>, ConfigError> {
    if text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(at.error("value does not match regex pattern \"^[^\\x00-\\b\\n-\\x1f\\x7f]*$\""));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests;

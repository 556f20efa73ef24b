//! `envoy.config.cluster.v3.Cluster` to runtime types.
//!
//! [`ClusterConfig`] is what one version of a cluster says about itself: immutable, shared by all threads. Who its
//! hosts are is another matter (`upstream::host`).

mod breakers;
mod connection;
mod discovery;
mod dns;
mod health;
mod http;
mod lb;
mod outlier;
mod preconnect;
mod proxy_protocol;
mod tracking;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::extensions::upstreams;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf as google;
use filters::config::{At, ConfigError, Entry};
use filters::ledger;
use prost::{Message, Name};

pub use self::breakers::{CircuitBreakers, RetryBudget, Thresholds};
pub use self::connection::{BindConfig, ConnectionOptions, SocketMatch, SourceAddress, TransportSocket};
pub use self::discovery::{Discovery, EdsConfig, InvalidDestination, OriginalDstConfig};
pub use self::dns::{Backoff, DnsConfig, LookupFamily, ResolverConfig};
pub use self::health::{
    Checker, EndpointCheck, GrpcCheck, HealthCheck, HttpCheck, ProxyVersion, Segments, StatusRange, TcpCheck, Timing,
};
pub use self::http::{
    AutoNames, CommonHttpOptions, HttpOptions, UnderscoreAction, UpstreamHttp1Options, UpstreamProtocol,
};
pub use self::lb::{
    Fallback, HashFunction, Hashing, HostSource, LbConfig, LbPolicy, LeastRequest, Maglev, MetadataPath, MetadataStep,
    OverrideHost, RingHash, RuntimeKeys, SelectorFallback, SlowStart, SubsetConfig, SubsetSelector, ZONE_ROUTING_KEY,
    ZoneAware,
};
pub use self::outlier::{Enforcing, OutlierConfig, time};
pub use self::preconnect::Preconnect;
pub use self::proxy_protocol::{PassTlvs, UpstreamProxyProtocol};
pub use self::tracking::Tracking;
use crate::config::endpoint::{self, metadata_from};
use crate::upstream::host::Metadata;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.cluster.v3.Cluster" {
    transport_socket_matcher => Refuse, "transport sockets are chosen by transport_socket_matches only";
    stats_matcher => Warn, "statistics are filtered by the bootstrap's matcher only";
    per_connection_buffer_high_watermark_timeout => Warn, "a full buffer waits for the stream's own timeouts";
    filters => Refuse, "upstream network filters are not implemented";
    lrs_server => Warn, "load reporting is not implemented";
    lrs_report_endpoint_metrics => Warn, "load reporting is not implemented";
    upstream_config => Refuse, "only the generic upstream is implemented";
    queuing_policies => Refuse, "pending requests are served first in, first out";
    typed_extension_protocol_options => Refuse, "only HttpProtocolOptions and TcpProtocolOptions are implemented";
} }

/// The rows of the support ledger about clusters.
pub static LEDGER: &[&[&Entry]] = &[
    unsupported::ALL,
    preconnect::unsupported::ALL,
    connection::bind_unsupported::ALL,
    connection::options_unsupported::ALL,
    proxy_protocol::unsupported::ALL,
    discovery::original_dst_unsupported::ALL,
    dns::cares_unsupported::ALL,
    dns::resolver_unsupported::ALL,
    health::unsupported::ALL,
    health::http_unsupported::ALL,
    http::unsupported::ALL,
    http::auto_unsupported::ALL,
    http::common_unsupported::ALL,
    http::http1_unsupported::ALL,
    lb::common_unsupported::ALL,
    lb::policy_unsupported::ALL,
    tracking::unsupported::ALL,
    outlier::unsupported::ALL,
    endpoint::locality_unsupported::ALL,
    endpoint::endpoint_unsupported::ALL,
    crate::config::address::socket_address_unsupported::ALL,
    crate::config::address::internal_address_unsupported::ALL,
];

/// One version of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// The name in statistics: `alt_stat_name` or else the name, `:` replaced by `_`.
    pub stat_name: Arc<str>,
    /// `alt_stat_name` or else the name, as `/clusters` and logs show it.
    pub observability_name: Arc<str>,
    /// How it finds its hosts.
    pub discovery: Discovery,
    /// How a host is chosen.
    pub lb: LbConfig,
    /// How long a connection may take to be made (5 s).
    pub connect_timeout: Duration,
    /// Bytes a connection may buffer (1 MiB); 0 for any number.
    pub per_connection_buffer_limit: u32,
    /// What it speaks.
    pub http: HttpOptions,
    /// How connections are made.
    pub connection: ConnectionOptions,
    /// How much may be in flight.
    pub circuit_breakers: CircuitBreakers,
    /// How far connections are opened ahead of need.
    pub preconnect: Preconnect,
    /// `close_connections_on_host_health_failure`: proxied TCP connections to a host end when it fails (false).
    pub close_on_health_failure: bool,
    /// `connection_pool_per_downstream_connection`: downstream connections share no connections.
    pub pool_per_client: bool,
    /// When hosts are ejected for what they answer; `None` never.
    pub outlier_detection: Option<OutlierConfig>,
    /// What hosts are asked to find out whether they are well; `None` nothing.
    pub health_check: Option<Arc<HealthCheck>>,
    /// Hosts leave with their endpoints, even if their health checks pass (false).
    pub ignore_health_on_host_removal: bool,
    /// How often unused hosts of an `ORIGINAL_DST` cluster are removed (5 s).
    pub cleanup_interval: Duration,
    /// Start-up and updates wait for its hosts (true). Only a cluster that looks names up can do without.
    pub wait_for_warm_on_init: bool,
    /// What is measured of its requests.
    pub tracking: Tracking,
    /// Cluster metadata.
    pub metadata: Option<Arc<Metadata>>,
}

impl ClusterConfig {
    /// The cluster `proto` describes.
    ///
    /// # Errors
    /// On the first field that is invalid, or unsupported and not allowed; with Envoy's words where it has some.
    pub fn parse(at: At<'_>, proto: proto::Cluster) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let proto::Cluster {
            transport_socket_matches,
            transport_socket_matcher,
            name,
            alt_stat_name,
            stats_matcher,
            eds_cluster_config,
            connect_timeout,
            per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout,
            lb_policy,
            load_assignment,
            health_checks,
            max_requests_per_connection,
            circuit_breakers,
            upstream_http_protocol_options,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            typed_extension_protocol_options,
            dns_refresh_rate,
            dns_jitter,
            dns_failure_refresh_rate,
            respect_dns_ttl,
            dns_lookup_family,
            dns_resolvers,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            wait_for_warm_on_init,
            outlier_detection,
            cleanup_interval,
            upstream_bind_config,
            lb_subset_config,
            common_lb_config,
            transport_socket,
            metadata,
            protocol_selection,
            upstream_connection_options,
            close_connections_on_host_health_failure,
            ignore_health_on_host_removal,
            filters,
            load_balancing_policy,
            lrs_server,
            lrs_report_endpoint_metrics,
            track_timeout_budgets,
            upstream_config,
            track_cluster_stats,
            preconnect_policy,
            connection_pool_per_downstream_connection,
            queuing_policies,
            cluster_discovery_type,
            lb_config,
        } = proto;
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        at.unsupported(&unsupported::stats_matcher, &stats_matcher)?;
        at.unsupported(
            &unsupported::per_connection_buffer_high_watermark_timeout,
            &per_connection_buffer_high_watermark_timeout,
        )?;
        at.unsupported(&unsupported::filters, &filters)?;
        at.unsupported(&unsupported::lrs_server, &lrs_server)?;
        at.unsupported(&unsupported::lrs_report_endpoint_metrics, &lrs_report_endpoint_metrics)?;
        let preconnect = Preconnect::parse(at.field("preconnect_policy"), preconnect_policy)?;
        at.unsupported(&unsupported::queuing_policies, &queuing_policies)?;
        generic_upstream_only(at, upstream_config.as_ref())?;

        // What belongs to load balancing alone does, in any type of cluster.
        let original_dst = match &lb_config {
            Some(proto::cluster::LbConfig::OriginalDstLbConfig(config)) => Some(config.clone()),
            _ => None,
        };
        let dns = dns::ClusterFields {
            refresh_rate: dns_refresh_rate,
            jitter: dns_jitter,
            failure_refresh_rate: dns_failure_refresh_rate,
            respect_ttl: respect_dns_ttl,
            lookup_family: dns_lookup_family,
            resolvers: dns_resolvers,
            use_tcp: use_tcp_for_dns_lookups,
            resolution_config: dns_resolution_config,
            typed_resolver: typed_dns_resolver_config,
        };
        let mut lb = LbConfig::parse(
            at,
            lb::Fields {
                cluster_name: &name,
                discovery: cluster_discovery_type.as_ref(),
                lb_policy,
                lb_config,
                common: common_lb_config,
                typed: load_balancing_policy,
                subset: lb_subset_config,
            },
        )?;
        let discovery = Discovery::parse(
            at,
            discovery::Fields {
                cluster_name: &name,
                kind: cluster_discovery_type,
                load_assignment,
                eds: eds_cluster_config,
                dns: dns::DnsFields::Cluster(Box::new(dns)),
                original_dst,
                lb_policy,
            },
        )?;
        if let Discovery::Static(assignment) = &discovery
            && lb.hashes()
        {
            assignment.check_weights(at.field("load_assignment"))?;
        }
        let found_by_name = matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
        let provides = matches!(discovery, Discovery::OriginalDst(_) | Discovery::Aggregate(_));
        if provides && lb.policy != LbPolicy::ClusterProvided {
            return Err(at.field("lb_policy").error(format_args!(
                "cluster manager: cluster provided LB not specified but cluster '{name}' provided one. Check cluster \
                 documentation."
            )));
        }
        if lb.policy == LbPolicy::ClusterProvided && !provides {
            return Err(at.field("lb_policy").error(format_args!(
                "cluster manager: cluster provided LB specified but cluster '{name}' did not provide one. Check \
                 cluster documentation."
            )));
        }

        at.unsupported(&unsupported::transport_socket_matcher, &transport_socket_matcher)?;
        let legacy = http::Legacy {
            common: common_http_protocol_options,
            upstream: upstream_http_protocol_options,
            http1: http_protocol_options,
            http2: http2_protocol_options,
            use_downstream_protocol: protocol_selection == 1,
        };
        let (mut http, tcp_idle_timeout) = protocol_options(at, typed_extension_protocol_options, legacy)?;
        // The policy's own word comes before the cluster's, and that before the route's.
        lb.hash_policy = lb.hash_policy.or_else(|| http.hash_policy.take());
        // The deprecated field counts where the new one does not say.
        http.common.max_requests_per_connection = http
            .common
            .max_requests_per_connection
            .or_else(|| max_requests_per_connection.map(|v| v.value).filter(|&max| max > 0));

        let outlier_detection = outlier_detection
            .map(|proto| OutlierConfig::parse(at.field("outlier_detection"), proto))
            .transpose()?
            .map(|detection| OutlierConfig { error_matcher: http.error_matcher.take(), ..detection });

        let connection = ConnectionOptions {
            tcp_keepalive: connection::keepalive(at.field("upstream_connection_options"), upstream_connection_options)?,
            bind: upstream_bind_config
                .map(|bind| BindConfig::parse(at.field("upstream_bind_config"), &name, bind))
                .transpose()?
                .unwrap_or_default(),
            transport_socket: connection::transport_socket(at.field("transport_socket"), transport_socket)?,
            socket_matches: connection::socket_matches(at.field("transport_socket_matches"), transport_socket_matches)?,
            tcp_idle_timeout,
        };
        if http.protocol == UpstreamProtocol::Auto {
            let what = if connection.transport_socket.tls().is_none() {
                Some("socket")
            } else {
                connection
                    .socket_matches
                    .iter()
                    .any(|of| of.transport_socket.tls().is_none())
                    .then_some("socket matcher")
            };
            if let Some(what) = what {
                let message = format_args!(
                    "ALPN configured for cluster {name} (auto_config) which has a non-ALPN transport {what}"
                );
                return Err(at.field("transport_socket").error(message));
            }
        }
        let http2 = http.protocol != UpstreamProtocol::Http1;
        let health_check = HealthCheck::parse_list(at.field("health_checks"), health_checks, &name, http2)?;
        let observability_name: Arc<str> =
            if alt_stat_name.is_empty() { &name } else { &alt_stat_name }.as_str().into();
        Ok(Self {
            stat_name: observability_name.replace(':', "_").into(),
            observability_name,
            discovery,
            lb,
            connect_timeout: positive(at.field("connect_timeout"), connect_timeout)?.unwrap_or(Duration::from_secs(5)),
            per_connection_buffer_limit: per_connection_buffer_limit_bytes.map_or(1 << 20, |v| v.value),
            http,
            connection,
            circuit_breakers: circuit_breakers
                .map(|breakers| CircuitBreakers::parse(at.field("circuit_breakers"), breakers))
                .transpose()?
                .unwrap_or_default(),
            preconnect,
            close_on_health_failure: close_connections_on_host_health_failure,
            pool_per_client: connection_pool_per_downstream_connection,
            outlier_detection,
            health_check,
            ignore_health_on_host_removal,
            cleanup_interval: positive(at.field("cleanup_interval"), cleanup_interval)?
                .unwrap_or(Duration::from_secs(5)),
            wait_for_warm_on_init: !found_by_name || wait_for_warm_on_init.is_none_or(|v| v.value),
            tracking: Tracking::parse(at.field("track_cluster_stats"), track_cluster_stats, track_timeout_budgets)?,
            metadata: metadata.map(metadata_from).filter(|map| !map.is_empty()).map(Arc::new),
            name: name.into(),
        })
    }
}

/// `typed_extension_protocol_options` by name, the deprecated fields where there are none.
fn protocol_options(
    at: At<'_>,
    typed: HashMap<String, google::Any>,
    legacy: http::Legacy,
) -> Result<(HttpOptions, Option<Duration>), ConfigError> {
    let options = at.field("typed_extension_protocol_options");
    let (mut http, mut tcp) = (None, Some(connection::DEFAULT_TCP_IDLE_TIMEOUT));
    for (name, any) in typed {
        let at = options.key(&name);
        match name.as_str() {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" => {
                http = Some(HttpOptions::parse(at, decode(at, &any)?)?);
            }
            "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions" => {
                let config: upstreams::tcp::v3::TcpProtocolOptions = decode(at, &any)?;
                tcp = connection::tcp_idle_timeout(at, config)?;
            }
            _ if name.starts_with("envoy.") => at.refuse_or_warn(&unsupported::typed_extension_protocol_options)?,
            _ => {
                return Err(at.error(format_args!(
                    "Didn't find a registered network or http filter or protocol options implementation for name: \
                     '{name}'"
                )));
            }
        }
    }
    // Typed options win over all of the deprecated fields together.
    let http = match http {
        Some(http) => http,
        None => HttpOptions::legacy(at, legacy)?,
    };
    Ok((http, tcp))
}

/// The generic upstream is what there is; another one would change where requests go.
fn generic_upstream_only(
    at: At<'_>,
    proto: Option<&envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig>,
) -> Result<(), ConfigError> {
    let Some(config) = proto else { return Ok(()) };
    match config.typed_config.as_ref().map_or("", |any| type_name(&any.type_url)) {
        "envoy.extensions.upstreams.http.generic.v3.GenericConnectionPoolProto" => Ok(()),
        _ => at.field("upstream_config").refuse_or_warn(&unsupported::upstream_config),
    }
}

/// A type URL without its host.
pub(crate) fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// The message inside `any`, which has to be a `T`.
pub(crate) fn decode<T: Message + Name + Default>(at: At<'_>, any: &google::Any) -> Result<T, ConfigError> {
    if type_name(&any.type_url) != T::full_name() {
        return Err(at.error(format_args!("Unable to unpack as {}: {}", T::full_name(), type_name(&any.type_url))));
    }
    T::decode(any.value.as_slice()).map_err(|error| at.error(format_args!("invalid {}: {error}", T::full_name())))
}

/// A duration that is not negative.
pub(crate) fn duration(at: At<'_>, proto: Option<google::Duration>) -> Result<Option<Duration>, ConfigError> {
    proto.map(|proto| filters::config::duration::duration(&at, &proto)).transpose()
}

/// A duration above zero.
fn positive(at: At<'_>, proto: Option<google::Duration>) -> Result<Option<Duration>, ConfigError> {
    match duration(at, proto)? {
        Some(Duration::ZERO) => Err(at.error("value must be greater than 0s")),
        other => Ok(other),
    }
}

/// A percentage, 0 to 100.
pub(crate) fn percent(at: At<'_>, proto: &Percent) -> Result<f64, ConfigError> {
    if (0.0..=100.0).contains(&proto.value) {
        Ok(proto.value)
    } else {
        Err(at.error("value must be inside range [0, 100]"))
    }
}

#[cfg(test)]
mod tests;

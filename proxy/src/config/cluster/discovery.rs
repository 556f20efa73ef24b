//! How a cluster finds its hosts: `type`, or `cluster_type` by extension.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig as AggregateCluster;
use envoy_types::pb::envoy::extensions::clusters::dns::v3 as dns_cluster;
use envoy_types::pb::envoy::extensions::clusters::original_dst::v3::OriginalDstCluster;
use envoy_types::pb::google::protobuf::Any;
use filters::config::{At, ConfigError};
use filters::ledger;
use http::HeaderName;
use xds_client::SourceConfig;

use super::dns::{DnsConfig, DnsFields};
use super::{decode, type_name};
use crate::config::config_source::{self, ConfigSource, Files};
use crate::config::endpoint::{LoadAssignment, Use};

ledger! {
    /// What is not implemented.
    pub mod original_dst_unsupported for "envoy.extensions.clusters.original_dst.v3.OriginalDstCluster" {
    metadata_key => Refuse, "destinations from metadata are not implemented";
} }

/// How a cluster finds its hosts.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Given.
    Static(LoadAssignment),
    /// From an endpoint discovery service.
    Eds(EdsConfig),
    /// Every address of every name.
    StrictDns(DnsConfig),
    /// One host: the first address of one name.
    LogicalDns(DnsConfig),
    /// Where the downstream connection was going.
    OriginalDst(OriginalDstConfig),
    /// It has none of its own: those of these clusters, the first before the second.
    Aggregate(Arc<[Arc<str>]>),
}

/// `eds_cluster_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct EdsConfig {
    /// What to ask for: `service_name`, or else the cluster's name.
    pub service_name: Arc<str>,
    /// Whom to ask.
    pub source: SourceConfig,
    /// How long the cluster waits for its first assignment (15 s); `None` for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// How an `ORIGINAL_DST` cluster finds the destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginalDstConfig {
    /// The request header that holds `ip:port`; `None` reads none.
    pub header: Option<HeaderName>,
    /// Replaces the destination's port.
    pub port_override: Option<u16>,
}

impl EdsConfig {
    /// Whether assignments come from a file: such a cluster needs no other cluster.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self.source, SourceConfig::File(_))
    }
}

impl OriginalDstConfig {
    /// The destination of a request: the header's if one is configured and there, else where the connection was going.
    ///
    /// # Errors
    /// When the header does not hold an address (`original_dst_host_invalid`).
    pub fn destination(
        &self,
        header: Option<&[u8]>,
        connection: Option<SocketAddr>,
    ) -> Result<Option<SocketAddr>, InvalidDestination> {
        let from_header = match header.filter(|_| self.header.is_some()) {
            None => None,
            Some(value) => {
                let text = std::str::from_utf8(value).ok();
                Some(text.and_then(|text| text.trim().parse::<SocketAddr>().ok()).ok_or(InvalidDestination)?)
            }
        };
        Ok(from_header.or(connection).map(|mut address| {
            address.set_port(self.port_override.unwrap_or_else(|| address.port()));
            address
        }))
    }
}

/// A destination header that holds no `ip:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the original destination header holds no IP address and port")]
pub struct InvalidDestination;

/// The fields of `Cluster` that decide about discovery.
pub(super) struct Fields<'a> {
    pub(super) cluster_name: &'a str,
    pub(super) kind: Option<proto::cluster::ClusterDiscoveryType>,
    pub(super) load_assignment: Option<ClusterLoadAssignment>,
    pub(super) eds: Option<proto::cluster::EdsClusterConfig>,
    pub(super) dns: DnsFields,
    pub(super) original_dst: Option<proto::cluster::OriginalDstLbConfig>,
    pub(super) lb_policy: i32,
}

enum Kind {
    Static,
    Eds,
    StrictDns,
    LogicalDns,
    OriginalDst(OriginalDstCluster),
    Aggregate(AggregateCluster),
}

impl Discovery {
    pub(super) fn parse(at: At<'_>, fields: Fields<'_>) -> Result<Self, ConfigError> {
        use proto::cluster::ClusterDiscoveryType as Type;
        let Fields { cluster_name, kind, load_assignment, eds, mut dns, original_dst, lb_policy } = fields;
        let kind = match kind {
            None => Kind::Static,
            Some(Type::Type(number)) => builtin(at, number, original_dst)?,
            Some(Type::ClusterType(proto::cluster::CustomClusterType { name, typed_config })) => {
                extension(at.field("cluster_type"), &name, typed_config, &mut dns, original_dst)?
            }
        };
        if eds.is_some() && !matches!(kind, Kind::Eds) {
            return Err(at.field("eds_cluster_config").error("eds_cluster_config set in a non-EDS cluster"));
        }
        if let Kind::OriginalDst(proto) = kind {
            return original_dst_cluster(at, proto, load_assignment.is_some(), lb_policy);
        }
        if let Kind::Aggregate(AggregateCluster { clusters }) = kind {
            if clusters.is_empty() {
                let at = at.field("cluster_type");
                return Err(at.field("clusters").error("value must contain at least 1 item(s)"));
            }
            return Ok(Self::Aggregate(clusters.into_iter().map(Arc::from).collect()));
        }
        let assignment_at = at.field("load_assignment");
        let given = load_assignment.is_some();
        let load_assignment = load_assignment
            .unwrap_or_else(|| ClusterLoadAssignment { cluster_name: cluster_name.to_owned(), ..Default::default() });
        Ok(match kind {
            Kind::Eds => {
                if given {
                    // Envoy neither reads it nor refuses it; nothing would tell its owner otherwise.
                    at.warn("envoy.config.cluster.v3.Cluster.load_assignment", "not read by an EDS cluster");
                }
                Self::Eds(eds_config(at, cluster_name, eds)?)
            }
            Kind::StrictDns => {
                let assignment = LoadAssignment::parse(assignment_at, load_assignment, Use::Dns)?;
                Self::StrictDns(DnsConfig::parse(at, assignment, dns)?)
            }
            Kind::LogicalDns => {
                let assignment = LoadAssignment::parse(assignment_at, load_assignment, Use::Dns)?;
                let one = matches!(assignment.localities.as_slice(), [locality] if locality.endpoints.len() == 1);
                if !one {
                    return Err(assignment_at.error(
                        "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
                    ));
                }
                Self::LogicalDns(DnsConfig::parse(at, assignment, dns)?)
            }
            Kind::Static | Kind::OriginalDst(_) | Kind::Aggregate(_) => {
                Self::Static(LoadAssignment::parse(assignment_at, load_assignment, Use::Static)?)
            }
        })
    }
}

fn builtin(
    at: At<'_>,
    number: i32,
    original_dst: Option<proto::cluster::OriginalDstLbConfig>,
) -> Result<Kind, ConfigError> {
    use proto::cluster::DiscoveryType;
    Ok(match DiscoveryType::try_from(number) {
        Ok(DiscoveryType::Static) => Kind::Static,
        Ok(DiscoveryType::StrictDns) => Kind::StrictDns,
        Ok(DiscoveryType::LogicalDns) => Kind::LogicalDns,
        Ok(DiscoveryType::Eds) => Kind::Eds,
        Ok(DiscoveryType::OriginalDst) => Kind::OriginalDst(original_dst_fields(original_dst)),
        Err(_) => return Err(at.field("type").error("value must be one of the defined enum values")),
    })
}

/// By type URL, or by name when there is no configuration.
fn extension(
    at: At<'_>,
    name: &str,
    typed_config: Option<Any>,
    dns: &mut DnsFields,
    original_dst: Option<proto::cluster::OriginalDstLbConfig>,
) -> Result<Kind, ConfigError> {
    let config_at = at.field("typed_config");
    let any = typed_config.unwrap_or_default();
    match (type_name(&any.type_url), name) {
        ("envoy.extensions.clusters.dns.v3.DnsCluster", _) => {
            let config: dns_cluster::DnsCluster = decode(config_at, &any)?;
            let single = config.all_addresses_in_single_endpoint;
            *dns = DnsFields::Extension(Box::new(config));
            // Only `envoy.cluster.dns` reads the flag: the older names say which kind they are.
            Ok(match name {
                "envoy.cluster.strict_dns" => Kind::StrictDns,
                "envoy.cluster.logical_dns" => Kind::LogicalDns,
                _ if single => Kind::LogicalDns,
                _ => Kind::StrictDns,
            })
        }
        ("envoy.extensions.clusters.original_dst.v3.OriginalDstCluster", _) => {
            Ok(Kind::OriginalDst(decode(config_at, &any)?))
        }
        ("envoy.extensions.clusters.aggregate.v3.ClusterConfig", _) => Ok(Kind::Aggregate(decode(config_at, &any)?)),
        ("", "envoy.clusters.aggregate") => Ok(Kind::Aggregate(AggregateCluster::default())),
        ("", "envoy.cluster.static") => Ok(Kind::Static),
        ("", "envoy.cluster.eds") => Ok(Kind::Eds),
        ("", "envoy.cluster.dns" | "envoy.cluster.strict_dns") => Ok(Kind::StrictDns),
        ("", "envoy.cluster.logical_dns") => Ok(Kind::LogicalDns),
        ("", "envoy.cluster.original_dst") => Ok(Kind::OriginalDst(original_dst_fields(original_dst))),
        _ => Err(at.error(format_args!("Didn't find a registered cluster factory implementation for name: '{name}'"))),
    }
}

fn original_dst_fields(proto: Option<proto::cluster::OriginalDstLbConfig>) -> OriginalDstCluster {
    let proto::cluster::OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } =
        proto.unwrap_or_default();
    OriginalDstCluster { use_http_header, http_header_name, upstream_port_override, metadata_key }
}

fn original_dst_cluster(
    at: At<'_>,
    proto: OriginalDstCluster,
    has_assignment: bool,
    lb_policy: i32,
) -> Result<Discovery, ConfigError> {
    use proto::cluster::LbPolicy;
    let OriginalDstCluster { use_http_header, http_header_name, upstream_port_override, metadata_key } = proto;
    if lb_policy != LbPolicy::ClusterProvided as i32 {
        let name = LbPolicy::try_from(lb_policy).map_or("", |policy| policy.as_str_name());
        return Err(at.field("lb_policy").error(format_args!(
            "cluster: LB policy {name} is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed \
             with cluster type 'ORIGINAL_DST'"
        )));
    }
    if has_assignment {
        return Err(at.field("load_assignment").error("ORIGINAL_DST clusters must have no load assignment configured"));
    }
    at.unsupported(&original_dst_unsupported::metadata_key, &metadata_key)?;
    if !use_http_header && !http_header_name.is_empty() {
        return Err(at.error(format_args!(
            "ORIGINAL_DST cluster: invalid config http_header_name={http_header_name} and use_http_header is false. \
             Set use_http_header to true if http_header_name is desired."
        )));
    }
    let header = match (use_http_header, http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(HeaderName::from_static("x-envoy-original-dst-host")),
        (true, name) => Some(
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| at.field("http_header_name").error("value is not a header name"))?,
        ),
    };
    let port_override = match upstream_port_override {
        None => None,
        Some(port) => Some(
            u16::try_from(port.value)
                .map_err(|_| at.field("upstream_port_override").error("value must be less than or equal to 65535"))?,
        ),
    };
    Ok(Discovery::OriginalDst(OriginalDstConfig { header, port_override }))
}

fn eds_config(
    at: At<'_>,
    cluster_name: &str,
    proto: Option<proto::cluster::EdsClusterConfig>,
) -> Result<EdsConfig, ConfigError> {
    let at = at.field("eds_cluster_config");
    let Some(proto::cluster::EdsClusterConfig { eds_config, service_name }) = proto else {
        return Err(at.field("eds_config").error("cannot create an EDS cluster without an EDS config"));
    };
    let ConfigSource { source, initial_fetch_timeout } =
        config_source::parse(at.field("eds_config"), eds_config.unwrap_or_default(), Files::Exist)?;
    let service_name = if service_name.is_empty() { cluster_name } else { &service_name };
    Ok(EdsConfig { service_name: service_name.into(), source, initial_fetch_timeout })
}

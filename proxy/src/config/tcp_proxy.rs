//! `TcpProxy` to runtime types.

pub mod tunnel;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog;
use envoy_types::pb::envoy::config::core::v3::BackoffStrategy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{self as proto, UpstreamConnectMode};
use envoy_types::pb::envoy::r#type::v3::HashPolicy;
use envoy_types::pb::envoy::r#type::v3::hash_policy::{FilterState, PolicySpecifier};
use envoy_types::pb::google::protobuf as wkt;
use filters::config::duration::duration;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::stream_info::Tlv;

use self::tunnel::Tunneling;
use super::tlv::Tlvs;
use crate::route::MetadataMatch;

/// The most that `max_early_data_bytes` may be.
const MAX_EARLY_DATA: usize = 1 << 20;
/// `idle_timeout` when unset.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A TCP proxy: which cluster, for how long, and what is logged.
#[derive(Debug)]
pub struct TcpProxyConfig {
    /// `tcp.<stat_prefix>.`.
    pub stat_prefix: Arc<str>,
    /// Where connections go.
    pub cluster: ClusterSpecifier,
    /// `metadata_match` of the proxy itself.
    pub metadata_match: Option<MetadataMatch>,
    /// What decides over the host, where the cluster's policy hashes.
    pub hash_by: Option<HashBy>,
    /// Whether the client's first words are waited for before an upstream connection is made.
    pub connect_on_data: bool,
    /// Bytes that are read from the client before there is an upstream connection; `None` reads nothing. A first read may
    /// bring more.
    pub max_early_data: Option<usize>,
    /// Connections are carried over HTTP.
    pub tunneling: Option<Tunneling>,
    /// What upstreams are told in PROXY headers, besides addresses.
    pub tlvs: Tlvs,
    /// How that goes with what the client's PROXY header said.
    pub tlv_merge: TlvMerge,
    /// Time without a byte either way after which both sides close; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// Attempts to connect upstream before giving up.
    pub max_connect_attempts: NonZeroU32,
    /// The shortest and the longest of the growing pauses between them; `None` for no pause.
    pub backoff: Option<(Duration, Duration)>,
    /// Life span of a downstream connection.
    pub max_downstream_connection_duration: Option<Duration>,
    /// Random extension of that, percent.
    pub duration_jitter_percentage: f64,
    /// Close downstream connections of a draining listener after a read or write.
    pub check_drain_close: bool,
    /// Access logs, for the access-log parser.
    pub access_logs: Vec<AccessLog>,
    /// Log every so often while the connection lives.
    pub access_log_flush_interval: Option<Duration>,
    /// Log when the upstream connection is there.
    pub flush_access_log_on_connected: bool,
    /// Log when the connection is accepted.
    pub flush_access_log_on_start: bool,
}

/// `hash_policy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Source,
    /// An object of the connection's filter state.
    FilterState(Box<str>),
}

/// `ProxyProtocolTlvMergePolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlvMerge {
    /// What the client said is all that is told, if it said anything by the PROXY protocol.
    #[default]
    AddIfAbsent,
    /// What is configured counts before what the client said, type by type.
    OverwriteByType,
    /// Both, the client's first.
    Append,
}

impl TlvMerge {
    fn parse(at: &At<'_>, number: i32) -> Result<Self, ConfigError> {
        use proto::ProxyProtocolTlvMergePolicy as Policy;
        match Policy::try_from(number) {
            Ok(Policy::AddIfAbsent) => Ok(Self::AddIfAbsent),
            Ok(Policy::OverwriteByTypeIfExistsOrAdd) => Ok(Self::OverwriteByType),
            Ok(Policy::AppendIfExistsOrAdd) => Ok(Self::Append),
            Err(_) => Err(at.error("value must be one of the defined enum values")),
        }
    }

    /// What upstreams are told of a client that said `said`, if it said anything, where `configured` is configured.
    #[must_use]
    pub fn merge(self, said: Option<Vec<Tlv>>, configured: impl FnOnce() -> Vec<Tlv>) -> Vec<Tlv> {
        match (self, said) {
            (_, None) => configured(),
            (Self::AddIfAbsent, Some(said)) => said,
            (Self::OverwriteByType, Some(said)) => {
                let mut merged = configured();
                let types: Vec<u8> = merged.iter().map(|tlv| tlv.kind).collect();
                merged.extend(said.into_iter().filter(|tlv| !types.contains(&tlv.kind)));
                merged
            }
            (Self::Append, Some(mut said)) => {
                said.extend(configured());
                said
            }
        }
    }
}

/// Which cluster a connection goes to.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterSpecifier {
    /// One.
    Cluster(Target),
    /// One of several, by weight.
    Weighted(WeightedClusters),
}

/// A cluster, and which of its hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Which of its hosts connections may go to; `None` for any.
    pub metadata_match: Option<MetadataMatch>,
}

/// Clusters with weights; at least one, none weighs nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedClusters {
    /// Each cluster with the sum of weights up to and with it.
    cumulative: Vec<(u64, Target)>,
    total: u64,
}

ledger! {
    /// What a TCP proxy may say that Legate does not do.
    pub mod unsupported for "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" {
        on_demand => Refuse, "clusters are not discovered on demand";
        downstream_idle_timeout => Warn, "Envoy does not implement it either; idle_timeout is";
        upstream_idle_timeout => Warn, "Envoy does not implement it either; idle_timeout is";
    }
}

impl TcpProxyConfig {
    /// Parses the filter's configuration.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn parse(at: &At<'_>, config: proto::TcpProxy) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
        let proto::TcpProxy {
            stat_prefix,
            on_demand,
            metadata_match,
            idle_timeout,
            downstream_idle_timeout,
            upstream_idle_timeout,
            access_log,
            max_connect_attempts,
            backoff_options,
            hash_policy,
            tunneling_config,
            max_downstream_connection_duration,
            max_downstream_connection_duration_jitter_percentage,
            access_log_flush_interval,
            flush_access_log_on_connected,
            access_log_options,
            proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy,
            upstream_connect_mode,
            max_early_data_bytes,
            check_drain_close,
            cluster_specifier,
        } = config;

        if stat_prefix.is_empty() {
            return Err(at.field("stat_prefix").error("value length must be at least 1 characters"));
        }
        // Without TLS there is no handshake to wait for.
        let connect_mode = UpstreamConnectMode::try_from(upstream_connect_mode)
            .map_err(|_| at.field("upstream_connect_mode").error("value must be one of the defined enum values"))?;
        let max_early_data = max_early_data_bytes.map(|bytes| bytes.value as usize);
        if max_early_data.is_some_and(|bytes| bytes > MAX_EARLY_DATA) {
            return Err(at.field("max_early_data_bytes").error("value must be less than or equal to 1048576"));
        }
        if connect_mode != UpstreamConnectMode::Immediate && max_early_data.is_none() {
            return Err(at.error("max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE"));
        }
        at.unsupported(&unsupported::on_demand, &on_demand)?;
        at.unsupported(&unsupported::downstream_idle_timeout, &downstream_idle_timeout)?;
        at.unsupported(&unsupported::upstream_idle_timeout, &upstream_idle_timeout)?;

        // Where both the options and the deprecated fields are set, the options win.
        let (flush_interval, on_connected, on_start) = match access_log_options {
            Some(proto::tcp_proxy::TcpAccessLogOptions {
                access_log_flush_interval,
                flush_access_log_on_connected,
                flush_access_log_on_start,
            }) => (access_log_flush_interval, flush_access_log_on_connected, flush_access_log_on_start),
            None => (access_log_flush_interval, flush_access_log_on_connected, false),
        };
        let metadata_match = MetadataMatch::parse(metadata_match);
        Ok(Self {
            stat_prefix: stat_prefix.into(),
            cluster: ClusterSpecifier::parse(
                at,
                at.required("cluster_specifier", cluster_specifier)?,
                metadata_match.clone(),
            )?,
            metadata_match,
            hash_by: hash_by(&at.field("hash_policy"), hash_policy)?,
            connect_on_data: connect_mode == UpstreamConnectMode::OnDownstreamData,
            max_early_data,
            tunneling: tunneling_config
                .map(|tunneling| Tunneling::parse(&at.field("tunneling_config"), tunneling))
                .transpose()?,
            tlvs: Tlvs::parse(at.field("proxy_protocol_tlvs"), proxy_protocol_tlvs)?,
            tlv_merge: TlvMerge::parse(&at.field("proxy_protocol_tlv_merge_policy"), proxy_protocol_tlv_merge_policy)?,
            idle_timeout: match idle_timeout {
                None => Some(DEFAULT_IDLE_TIMEOUT),
                Some(value) => Some(duration(&at.field("idle_timeout"), &value)?).filter(|d| !d.is_zero()),
            },
            max_connect_attempts: match max_connect_attempts {
                None => NonZeroU32::MIN,
                Some(value) => NonZeroU32::new(value.value).ok_or_else(|| {
                    at.field("max_connect_attempts").error("value must be greater than or equal to 1")
                })?,
            },
            backoff: backoff_options.map(|options| backoff(&at.field("backoff_options"), options)).transpose()?,
            max_downstream_connection_duration: at_least_1_ms(
                &at.field("max_downstream_connection_duration"),
                max_downstream_connection_duration,
            )?,
            duration_jitter_percentage: match max_downstream_connection_duration_jitter_percentage {
                None => 0.0,
                Some(percent) if (0.0..=100.0).contains(&percent.value) => percent.value,
                Some(_) => {
                    return Err(at
                        .field("max_downstream_connection_duration_jitter_percentage")
                        .error("value must be inside range [0, 100]"));
                }
            },
            check_drain_close: check_drain_close.is_some_and(|v| v.value),
            access_logs: access_log,
            access_log_flush_interval: at_least_1_ms(&at.field("access_log_flush_interval"), flush_interval)?,
            flush_access_log_on_connected: on_connected,
            flush_access_log_on_start: on_start,
        })
    }
}

impl TcpProxyConfig {
    /// Where a connection goes whose cluster a filter has chosen.
    #[must_use]
    pub fn chosen(&self, cluster: &Arc<str>) -> Target {
        Target { cluster: Arc::clone(cluster), metadata_match: self.metadata_match.clone() }
    }
}

impl ClusterSpecifier {
    /// The cluster of one connection, `random` being uniform over all values.
    #[must_use]
    pub fn pick(&self, random: u64) -> &Target {
        match self {
            Self::Cluster(target) => target,
            Self::Weighted(clusters) => clusters.pick(random),
        }
    }

    /// Every cluster named.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let (single, several) = match self {
            Self::Cluster(target) => (Some(target), &[][..]),
            Self::Weighted(clusters) => (None, clusters.cumulative.as_slice()),
        };
        single.into_iter().chain(several.iter().map(|(_, target)| target)).map(|target| &target.cluster)
    }

    fn parse(
        at: &At<'_>,
        specifier: proto::tcp_proxy::ClusterSpecifier,
        metadata_match: Option<MetadataMatch>,
    ) -> Result<Self, ConfigError> {
        match specifier {
            proto::tcp_proxy::ClusterSpecifier::Cluster(name) => {
                Ok(Self::Cluster(Target { cluster: name.into(), metadata_match }))
            }
            proto::tcp_proxy::ClusterSpecifier::WeightedClusters(clusters) => {
                WeightedClusters::parse(&at.field("weighted_clusters"), clusters, metadata_match.as_ref())
                    .map(Self::Weighted)
            }
        }
    }
}

impl WeightedClusters {
    fn parse(
        at: &At<'_>,
        clusters: proto::tcp_proxy::WeightedCluster,
        of_proxy: Option<&MetadataMatch>,
    ) -> Result<Self, ConfigError> {
        use proto::tcp_proxy::weighted_cluster::ClusterWeight;
        let proto::tcp_proxy::WeightedCluster { clusters } = clusters;
        let list = at.field("clusters");
        let mut total = 0_u64;
        let mut cumulative = Vec::with_capacity(clusters.len());
        for (index, ClusterWeight { name, weight, metadata_match }) in clusters.into_iter().enumerate() {
            let at = list.index(index);
            if name.is_empty() {
                return Err(at.field("name").error("value length must be at least 1 characters"));
            }
            if weight == 0 {
                return Err(at.field("weight").error("value must be greater than or equal to 1"));
            }
            total += u64::from(weight);
            let metadata_match = match (of_proxy, MetadataMatch::parse(metadata_match)) {
                (Some(of_proxy), Some(own)) => Some(of_proxy.merged(&own)),
                (of_proxy, own) => own.or_else(|| of_proxy.cloned()),
            };
            cumulative.push((total, Target { cluster: name.into(), metadata_match }));
        }
        if cumulative.is_empty() {
            return Err(list.error("value must contain at least 1 item(s)"));
        }
        Ok(Self { cumulative, total })
    }

    fn pick(&self, random: u64) -> &Target {
        let point = random % self.total;
        let index = self.cumulative.partition_point(|(end, _)| *end <= point);
        // `point < total`, the last entry's end, so the index is in range.
        &self.cumulative[index].1
    }
}

/// What connections are hashed by: one thing at most.
fn hash_by(at: &At<'_>, protos: Vec<HashPolicy>) -> Result<Option<HashBy>, ConfigError> {
    let mut protos = protos.into_iter();
    let Some(HashPolicy { policy_specifier }) = protos.next() else { return Ok(None) };
    if protos.next().is_some() {
        return Err(at.error("value must contain no more than 1 item(s)"));
    }
    let at = at.index(0);
    Ok(Some(match at.required("policy_specifier", policy_specifier)? {
        PolicySpecifier::SourceIp(_) => HashBy::Source,
        PolicySpecifier::FilterState(FilterState { key }) if key.is_empty() => {
            return Err(at.field("filter_state").field("key").error("value length must be at least 1 characters"));
        }
        PolicySpecifier::FilterState(FilterState { key }) => HashBy::FilterState(key.into()),
    }))
}

fn backoff(at: &At<'_>, options: BackoffStrategy) -> Result<(Duration, Duration), ConfigError> {
    let BackoffStrategy { base_interval, max_interval } = options;
    let base = at.required("base_interval", at_least_1_ms(&at.field("base_interval"), base_interval)?)?;
    let max = match max_interval {
        None => base.saturating_mul(10),
        Some(value) => duration(&at.field("max_interval"), &value)?,
    };
    if max.is_zero() {
        return Err(at.field("max_interval").error("value must be greater than 0s"));
    }
    if max < base {
        return Err(at.error("max_backoff_interval must be greater or equal to base_backoff_interval"));
    }
    Ok((base, max))
}

fn at_least_1_ms(at: &At<'_>, value: Option<wkt::Duration>) -> Result<Option<Duration>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    match duration(at, &value)? {
        value if value < Duration::from_millis(1) => Err(at.error("value must be greater than or equal to 1ms")),
        value => Ok(Some(value)),
    }
}

#[cfg(test)]
mod tests;

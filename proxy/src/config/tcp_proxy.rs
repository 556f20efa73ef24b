//! `TcpProxy` to runtime types.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog;
use envoy_types::pb::envoy::config::core::v3::BackoffStrategy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::HashPolicy;
use envoy_types::pb::envoy::r#type::v3::hash_policy::PolicySpecifier;
use envoy_types::pb::google::protobuf as wkt;
use filters::config::{At, ConfigError};
use filters::ledger;

use super::duration::duration;
use crate::route::MetadataMatch;

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
    /// The client's address decides over the host, where the cluster's policy hashes.
    pub hash_by_source: bool,
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
        tunneling_config => Refuse, "the bytes would go upstream without a tunnel";
        proxy_protocol_tlvs => Warn, "the PROXY protocol is not spoken upstream";
        proxy_protocol_tlv_merge_policy => Warn, "the PROXY protocol is not spoken upstream";
        upstream_connect_mode => Warn, "the upstream connection is made at once";
        max_early_data_bytes => Warn, "nothing is read before the upstream connection is there";
    }
}

ledger! {
    /// What a hash policy may say that Legate does not do.
    pub mod hash_policy_unsupported for "envoy.type.v3.HashPolicy" {
        filter_state => Refuse, "there is no filter state to hash";
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
        if upstream_connect_mode != 0 && max_early_data_bytes.is_none() {
            return Err(at.error("max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE"));
        }
        at.unsupported(&unsupported::on_demand, &on_demand)?;
        at.unsupported(&unsupported::downstream_idle_timeout, &downstream_idle_timeout)?;
        at.unsupported(&unsupported::upstream_idle_timeout, &upstream_idle_timeout)?;
        at.unsupported(&unsupported::tunneling_config, &tunneling_config)?;
        at.unsupported(&unsupported::proxy_protocol_tlvs, &proxy_protocol_tlvs)?;
        at.unsupported(&unsupported::proxy_protocol_tlv_merge_policy, &proxy_protocol_tlv_merge_policy)?;
        at.unsupported(&unsupported::upstream_connect_mode, &upstream_connect_mode)?;
        at.unsupported(&unsupported::max_early_data_bytes, &max_early_data_bytes)?;

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
            hash_by_source: hashes_source(&at.field("hash_policy"), hash_policy)?,
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

/// Whether connections are hashed by the client's address: the one thing there is to hash.
fn hashes_source(at: &At<'_>, protos: Vec<HashPolicy>) -> Result<bool, ConfigError> {
    let mut protos = protos.into_iter();
    let Some(HashPolicy { policy_specifier }) = protos.next() else { return Ok(false) };
    if protos.next().is_some() {
        return Err(at.error("value must contain no more than 1 item(s)"));
    }
    let at = at.index(0);
    match at.required("policy_specifier", policy_specifier)? {
        PolicySpecifier::SourceIp(_) => Ok(true),
        PolicySpecifier::FilterState(filter_state) => {
            at.unsupported(&hash_policy_unsupported::filter_state, &Some(filter_state))?;
            Ok(false)
        }
    }
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
mod tests {
    use filters::config::Session;
    use proto::tcp_proxy::weighted_cluster::ClusterWeight;
    use proto::tcp_proxy::{ClusterSpecifier as Specifier, WeightedCluster};

    use super::*;

    fn base() -> proto::TcpProxy {
        proto::TcpProxy {
            stat_prefix: "p".into(),
            cluster_specifier: Some(Specifier::Cluster("c".into())),
            ..proto::TcpProxy::default()
        }
    }

    fn parse(config: proto::TcpProxy) -> Result<TcpProxyConfig, String> {
        TcpProxyConfig::parse(&Session::default().root(), config).map_err(|error| error.to_string())
    }

    fn weighted(clusters: &[(&str, u32)]) -> proto::TcpProxy {
        let clusters = clusters
            .iter()
            .map(|(name, weight)| ClusterWeight { name: (*name).into(), weight: *weight, metadata_match: None })
            .collect();
        proto::TcpProxy { cluster_specifier: Some(Specifier::WeightedClusters(WeightedCluster { clusters })), ..base() }
    }

    #[test]
    fn defaults_are_envoys() {
        let config = parse(base()).expect("valid");
        assert_eq!(config.idle_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(config.max_connect_attempts.get(), 1);
        assert_eq!(config.max_downstream_connection_duration, None);
        assert_eq!(&*config.cluster.pick(7).cluster, "c");
    }

    #[test]
    fn a_zero_idle_timeout_disables_it() {
        let config = parse(proto::TcpProxy { idle_timeout: Some(wkt::Duration::default()), ..base() }).expect("valid");
        assert_eq!(config.idle_timeout, None);
    }

    #[test]
    fn weights_divide_the_random_numbers_exactly() {
        let config = parse(weighted(&[("a", 1), ("b", 2), ("c", 1)])).expect("valid");
        let picks: String = (0..8).map(|random| config.cluster.pick(random).cluster.to_string()).collect();
        assert_eq!(picks, "abbcabbc");
        assert_eq!(config.cluster.names().count(), 3);
    }

    #[test]
    fn what_envoy_rejects_is_rejected() {
        for (config, expected) in [
            (proto::TcpProxy { stat_prefix: String::new(), ..base() }, "stat_prefix: value length must be"),
            (proto::TcpProxy { cluster_specifier: None, ..base() }, "cluster_specifier: value is required"),
            (weighted(&[]), "weighted_clusters.clusters: value must contain at least 1 item(s)"),
            (weighted(&[("a", 0)]), "weighted_clusters.clusters[0].weight: value must be greater"),
            (
                proto::TcpProxy { upstream_connect_mode: 1, ..base() },
                "max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE",
            ),
            (
                proto::TcpProxy { tunneling_config: Some(proto::tcp_proxy::TunnelingConfig::default()), ..base() },
                "tunneling_config: envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.tunneling_config is not",
            ),
        ] {
            let error = parse(config).expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

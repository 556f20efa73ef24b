//! Which load-balancing policy, and how it is tuned: `load_balancing_policy`, or `lb_policy` with its own fields.
//!
//! Both forms come to the same [`LbConfig`]; nothing behind it knows which one was used.

mod hashing;
mod legacy;
mod override_host;
mod subset;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::Runtime;

pub use self::hashing::{HashFunction, Hashing, Maglev, RingHash};
pub use self::override_host::{HostSource, MetadataPath, MetadataStep, OverrideHost};
pub use self::subset::{Fallback, SelectorFallback, SubsetConfig, SubsetSelector};
use super::{duration, percent};
use crate::route::HashPolicy;
use crate::runtime::Snapshot;

ledger! {
    /// What is not implemented.
    pub mod common_unsupported for "envoy.config.cluster.v3.Cluster.CommonLbConfig" {
    override_host_status => Warn, "stateful sessions are not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod policy_unsupported for "envoy.config.cluster.v3.LoadBalancingPolicy.Policy" {
    typed_extension_config => Refuse, "the policy would spread requests another way";
} }

/// How hosts are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct LbConfig {
    /// The policy within a priority.
    pub policy: LbPolicy,
    /// Subsets of the hosts, each with the policy to itself; `None` chooses among all.
    pub subset: Option<Arc<SubsetConfig>>,
    /// Requests may say which host they go to, before the policy is asked.
    pub override_host: Option<Arc<OverrideHost>>,
    /// What requests are hashed by, whatever their routes say: the policy's own list, or else the cluster's.
    pub hash_policy: Option<Arc<HashPolicy>>,
    /// Hosts that just came take less than their share.
    pub slow_start: Option<SlowStart>,
    /// Traffic among the localities of a priority follows their weights.
    pub locality_weighted: bool,
    /// Traffic stays in the proxy's own zone as far as that is fair.
    pub zone_aware: ZoneAware,
    /// Percent of available hosts below which health is ignored, rounded as Envoy rounds it (50); 0 never.
    pub healthy_panic_threshold: u32,
    /// Updates of weight, health and metadata within this time are published as one (1 s); zero publishes each.
    pub update_merge_window: Duration,
    /// Hosts are left out of the totals until their first health check (false).
    pub ignore_new_hosts_until_first_hc: bool,
    /// Connections to all hosts are closed when the set of hosts changes.
    pub close_connections_on_host_set_change: bool,
    /// Where the runtime may have other numbers.
    pub keys: RuntimeKeys,
}

/// The runtime keys a cluster names itself; those of all clusters are in [`LbConfig::tuned`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeKeys {
    /// Of [`LeastRequest::active_request_bias`].
    pub active_request_bias: Option<Box<str>>,
    /// Of [`SlowStart::aggression`].
    pub aggression: Option<Box<str>>,
}

/// The runtime's key for [`LbConfig::healthy_panic_threshold`], in all clusters.
const PANIC_THRESHOLD_KEY: &str = "upstream.healthy_panic_threshold";
/// The runtime's key for [`ZoneAware::min_cluster_size`], in all clusters.
const MIN_CLUSTER_SIZE_KEY: &str = "upstream.zone_routing.min_cluster_size";
/// The runtime's key for [`ZoneAware::routing_enabled`], in all clusters.
pub const ZONE_ROUTING_KEY: &str = "upstream.zone_routing.enabled";

/// A load-balancing policy.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// Each host in turn, by weight.
    RoundRobin,
    /// The host with the fewest active requests of a few random ones, or by weight over active requests.
    LeastRequest(LeastRequest),
    /// Any host.
    Random,
    /// The host next to the request's hash on a ring.
    RingHash(RingHash),
    /// The host a table has for the request's hash.
    Maglev(Maglev),
    /// The cluster knows its host: `ORIGINAL_DST`.
    ClusterProvided,
}

/// Tuning of least request.
#[derive(Debug, Clone, PartialEq)]
pub struct LeastRequest {
    /// Random hosts looked at (2).
    pub choice_count: u32,
    /// How strongly active requests reduce a weight (1.0).
    pub active_request_bias: f64,
    /// Look at all hosts instead.
    pub full_scan: bool,
}

/// `slow_start_config`: how the share of a host grows after it came, or got well.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    /// How long until it has its full share; above zero.
    pub window: Duration,
    /// 1 grows evenly, more grows faster at first; above zero.
    pub aggression: f64,
    /// The least part of its weight, 0 to 1 (0.1).
    pub min_weight: f64,
}

/// `zone_aware_lb_config`. It has an effect only in a proxy that knows the cluster it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneAware {
    /// Percent of requests it is for (100).
    pub routing_enabled: u32,
    /// Healthy hosts below which it is not worth it (6).
    pub min_cluster_size: u64,
    /// In panic, choose no host rather than any.
    pub fail_traffic_on_panic: bool,
    /// Keep everything in the zone where it has at least this many hosts.
    pub force_local: Option<u32>,
    /// Zones are compared by the weights of their hosts rather than by their number.
    pub by_weight: bool,
}

impl Default for LbConfig {
    fn default() -> Self {
        Self {
            policy: LbPolicy::RoundRobin,
            subset: None,
            override_host: None,
            hash_policy: None,
            slow_start: None,
            locality_weighted: false,
            zone_aware: ZoneAware::default(),
            healthy_panic_threshold: 50,
            update_merge_window: Duration::from_secs(1),
            ignore_new_hosts_until_first_hc: false,
            close_connections_on_host_set_change: false,
            keys: RuntimeKeys::default(),
        }
    }
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choice_count: 2, active_request_bias: 1.0, full_scan: false }
    }
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_local: None,
            by_weight: false,
        }
    }
}

impl LbPolicy {
    /// Whether the policy reads a host's active requests: if not, nothing counts them.
    #[must_use]
    pub const fn needs_active_requests(&self) -> bool {
        match self {
            Self::LeastRequest(_) => true,
            Self::RingHash(RingHash { hashing, .. }) | Self::Maglev(Maglev { hashing, .. }) => {
                hashing.balance_factor > 0
            }
            Self::RoundRobin | Self::Random | Self::ClusterProvided => false,
        }
    }

    /// Whether hosts are found by a request's hash: if not, none is computed.
    #[must_use]
    pub const fn hashes(&self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }

    /// Envoy's name of it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "ROUND_ROBIN",
            Self::LeastRequest(_) => "LEAST_REQUEST",
            Self::Random => "RANDOM",
            Self::RingHash(_) => "RING_HASH",
            Self::Maglev(_) => "MAGLEV",
            Self::ClusterProvided => "CLUSTER_PROVIDED",
        }
    }
}

/// The fields of `Cluster` that decide about load balancing.
pub(super) struct Fields<'a> {
    pub(super) cluster_name: &'a str,
    pub(super) discovery: Option<&'a proto::cluster::ClusterDiscoveryType>,
    pub(super) lb_policy: i32,
    pub(super) lb_config: Option<proto::cluster::LbConfig>,
    pub(super) common: Option<proto::cluster::CommonLbConfig>,
    pub(super) typed: Option<proto::LoadBalancingPolicy>,
    pub(super) subset: Option<proto::cluster::LbSubsetConfig>,
}

impl LbConfig {
    pub(super) fn parse(at: At<'_>, fields: Fields<'_>) -> Result<Self, ConfigError> {
        let Fields { cluster_name, discovery, lb_policy, lb_config, common, typed, subset } = fields;
        let mut config = Self::default();
        let partial = common.as_ref().is_some_and(|common| {
            common.locality_config_specifier.is_some() || common.consistent_hashing_lb_config.is_some()
        });
        let aware = subset.as_ref().is_some_and(|subset| subset.locality_weight_aware);
        // Without selectors there are no subsets.
        let subset = subset.filter(|config| !config.subset_selectors.is_empty());
        let hashing = config.common(at.field("common_lb_config"), common)?;
        if hashing.use_hostname {
            check_hostnames(at, discovery)?;
        }
        if let Some(typed) = typed {
            if partial {
                return Err(at.error(
                    "cluster: load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, \
                     locality_weighted_lb_config, consistent_hashing_lb_config) of common_lb_config",
                ));
            }
            if subset.is_some() {
                return Err(at.error("cluster: load_balancing_policy cannot be combined with lb_subset_config"));
            }
            config.typed(at.field("load_balancing_policy"), cluster_name, typed)?;
            return Ok(config);
        }
        if aware && !config.locality_weighted {
            return Err(at.field("lb_subset_config").field("locality_weight_aware").error(format_args!(
                "Locality weight aware subset LB requires that a locality_weighted_lb_config be set in {cluster_name}"
            )));
        }
        config.legacy(at, lb_policy, lb_config, hashing, subset)?;
        Ok(config)
    }

    /// What holds within one subset.
    #[must_use]
    pub fn within_subset(&self) -> Self {
        let aware = self.subset.as_ref().is_none_or(|subset| subset.locality_weight_aware);
        Self { subset: None, override_host: None, locality_weighted: self.locality_weighted && aware, ..self.clone() }
    }

    /// Whether a host is found by a request's hash.
    #[must_use]
    pub const fn hashes(&self) -> bool {
        self.policy.hashes()
    }

    /// The panic threshold, unless the runtime has another.
    #[must_use]
    pub fn panic_threshold(&self, runtime: &dyn Runtime) -> u32 {
        let asked = runtime.integer(PANIC_THRESHOLD_KEY);
        asked.map_or(self.healthy_panic_threshold, |percent| u32::try_from(percent.min(100)).unwrap_or(100))
    }

    /// The same with the runtime's numbers; `None` if it has no others. As in Envoy they count from the next change of the
    /// hosts on.
    #[must_use]
    pub fn tuned(&self, runtime: &Snapshot) -> Option<Self> {
        let mut tuned = self.clone();
        tuned.healthy_panic_threshold = self.panic_threshold(runtime);
        if let Some(size) = runtime.integer(MIN_CLUSTER_SIZE_KEY) {
            tuned.zone_aware.min_cluster_size = size;
        }
        let number = |key: &Option<Box<str>>| key.as_deref().and_then(|key| runtime.number(key));
        if let (LbPolicy::LeastRequest(least), Some(bias)) = (&mut tuned.policy, number(&self.keys.active_request_bias))
        {
            least.active_request_bias = if bias >= 0.0 { bias } else { 1.0 };
        }
        if let (Some(slow_start), Some(aggression)) = (&mut tuned.slow_start, number(&self.keys.aggression)) {
            slow_start.aggression = if aggression > 0.0 { aggression } else { 1.0 };
        }
        (tuned != *self).then_some(tuned)
    }
}

/// Only hosts found by their names have one that is sure to be there; Envoy asks for the field `type`, by which alone it goes.
fn check_hostnames(at: At<'_>, discovery: Option<&proto::cluster::ClusterDiscoveryType>) -> Result<(), ConfigError> {
    use proto::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match discovery {
        None => "envoy.cluster.static",
        Some(ClusterDiscoveryType::ClusterType(custom)) => &custom.name,
        Some(ClusterDiscoveryType::Type(number)) => match DiscoveryType::try_from(*number) {
            Ok(DiscoveryType::StrictDns) => return Ok(()),
            Ok(DiscoveryType::LogicalDns) => "envoy.cluster.logical_dns",
            Ok(DiscoveryType::Eds) => "envoy.cluster.eds",
            Ok(DiscoveryType::OriginalDst) => "envoy.cluster.original_dst",
            Ok(DiscoveryType::Static) | Err(_) => "envoy.cluster.static",
        },
    };
    Err(at
        .field("common_lb_config")
        .field("consistent_hashing_lb_config")
        .field("use_hostname_for_hashing")
        .error(format_args!("Cannot use hostname for consistent hashing loadbalancing for cluster of type: '{kind}'")))
}

fn least_request_choices(at: At<'_>, count: Option<u32>) -> Result<u32, ConfigError> {
    match count {
        None => Ok(2),
        Some(0 | 1) => Err(at.field("choice_count").error("value must be greater than or equal to 2")),
        Some(count) => Ok(count),
    }
}

/// The runtime's default, and its key; Envoy uses 1.0 for a negative one, and says so.
fn request_bias(at: At<'_>, proto: Option<core::RuntimeDouble>, keys: &mut RuntimeKeys) -> f64 {
    let Some(core::RuntimeDouble { default_value, runtime_key }) = proto else { return 1.0 };
    let bias = if default_value >= 0.0 {
        default_value
    } else {
        at.field("active_request_bias").warn(
            "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig.active_request_bias",
            format!("invalid active request bias supplied (runtime key {runtime_key}), using 1.0"),
        );
        1.0
    };
    keys.active_request_bias = Some(runtime_key.into());
    bias
}

/// `slow_start_config`, which both forms have; without a window there is none.
fn slow_start(
    at: At<'_>,
    keys: &mut RuntimeKeys,
    window: Option<envoy_types::pb::google::protobuf::Duration>,
    aggression: Option<core::RuntimeDouble>,
    min_weight_percent: Option<envoy_types::pb::envoy::r#type::v3::Percent>,
) -> Result<Option<SlowStart>, ConfigError> {
    let window = duration(at.field("slow_start_window"), window)?;
    let min_weight = match &min_weight_percent {
        None => 0.1,
        Some(share) => percent(at.field("min_weight_percent"), share)? / 100.0,
    };
    let aggression = match aggression {
        None => 1.0,
        Some(core::RuntimeDouble { default_value, runtime_key }) => {
            let aggression = if default_value > 0.0 {
                default_value
            } else {
                at.field("aggression").warn(
                    "envoy.config.cluster.v3.Cluster.SlowStartConfig.aggression",
                    format!("invalid aggression supplied (runtime key {runtime_key}), using 1.0"),
                );
                1.0
            };
            keys.aggression = Some(runtime_key.into());
            aggression
        }
    };
    // Envoy counts whole milliseconds.
    let window = window.filter(|window| window.as_millis() > 0);
    Ok(window.map(|window| SlowStart { window, aggression, min_weight }))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage was checked to be 0 to 100")]
fn rounded(percent: f64) -> u32 {
    percent.round() as u32
}

//! Which load-balancing policy, and how it is tuned: `load_balancing_policy`, or `lb_policy` with its own fields.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::load_balancing_policies as typed;
use filters::config::{At, ConfigError};
use filters::ledger;

use super::{decode, duration, percent, type_name};

ledger! {
    /// What is not implemented.
    pub mod common_unsupported for "envoy.config.cluster.v3.Cluster.CommonLbConfig" {
    ignore_new_hosts_until_first_hc => Warn, "active health checking is not implemented yet";
    consistent_hashing_lb_config => Warn, "ring hash and Maglev are not implemented yet";
    override_host_status => Warn, "stateful sessions are not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod zone_aware_unsupported for "envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig" {
    routing_enabled => Refuse, "zone-aware routing is not implemented";
    min_cluster_size => Refuse, "zone-aware routing is not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod typed_zone_aware_unsupported for
    "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig" {
    routing_enabled => Refuse, "zone-aware routing is not implemented";
    min_cluster_size => Refuse, "zone-aware routing is not implemented";
    force_locality_direct_routing => Refuse, "zone-aware routing is not implemented";
    force_local_zone => Refuse, "zone-aware routing is not implemented";
    locality_basis => Refuse, "zone-aware routing is not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod policy_unsupported for "envoy.config.cluster.v3.Cluster.LbPolicy" {
    RING_HASH => Refuse, "ring hash load balancing is not implemented yet";
    MAGLEV => Refuse, "Maglev load balancing is not implemented yet";
    slow_start_config => Warn, "new hosts get their full share at once";
} }

/// How hosts are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct LbConfig {
    /// The policy within a priority.
    pub policy: LbPolicy,
    /// Traffic among the localities of a priority follows their weights.
    pub locality_weighted: bool,
    /// Percent of available hosts below which health is ignored, rounded as Envoy rounds it (50); 0 never.
    pub healthy_panic_threshold: u32,
    /// In panic, choose no host rather than any.
    pub fail_traffic_on_panic: bool,
    /// Updates of weight, health and metadata within this time are published as one (1 s); zero publishes each.
    pub update_merge_window: Duration,
    /// Connections to all hosts are closed when the set of hosts changes.
    pub close_connections_on_host_set_change: bool,
}

/// A load-balancing policy.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// Each host in turn, by weight.
    RoundRobin,
    /// The host with the fewest active requests of a few random ones, or by weight over active requests.
    LeastRequest(LeastRequest),
    /// Any host.
    Random,
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

impl Default for LbConfig {
    fn default() -> Self {
        Self {
            policy: LbPolicy::RoundRobin,
            locality_weighted: false,
            healthy_panic_threshold: 50,
            fail_traffic_on_panic: false,
            update_merge_window: Duration::from_secs(1),
            close_connections_on_host_set_change: false,
        }
    }
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choice_count: 2, active_request_bias: 1.0, full_scan: false }
    }
}

impl LbPolicy {
    /// Whether the policy reads a host's active requests: if not, nothing counts them.
    #[must_use]
    pub const fn needs_active_requests(&self) -> bool {
        matches!(self, Self::LeastRequest(_))
    }

    /// Envoy's name of it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "ROUND_ROBIN",
            Self::LeastRequest(_) => "LEAST_REQUEST",
            Self::Random => "RANDOM",
            Self::ClusterProvided => "CLUSTER_PROVIDED",
        }
    }
}

/// The fields of `Cluster` that decide about load balancing.
pub(super) struct Fields<'a> {
    pub(super) cluster_name: &'a str,
    pub(super) lb_policy: i32,
    pub(super) lb_config: Option<proto::cluster::LbConfig>,
    pub(super) common: Option<proto::cluster::CommonLbConfig>,
    pub(super) typed: Option<proto::LoadBalancingPolicy>,
    pub(super) has_subsets: bool,
}

impl LbConfig {
    pub(super) fn parse(at: At<'_>, fields: Fields<'_>) -> Result<Self, ConfigError> {
        use proto::cluster::LbPolicy as Enum;
        let Fields { cluster_name, lb_policy, lb_config, common, typed, has_subsets } = fields;
        let mut config = Self::default();
        let partial = common.as_ref().is_some_and(|common| {
            common.locality_config_specifier.is_some() || common.consistent_hashing_lb_config.is_some()
        });
        config.common(at.field("common_lb_config"), common)?;
        if let Some(typed) = typed {
            if partial {
                return Err(at.error(
                    "cluster: load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, \
                     locality_weighted_lb_config, consistent_hashing_lb_config) of common_lb_config",
                ));
            }
            config.typed(at.field("load_balancing_policy"), cluster_name, typed)?;
            return Ok(config);
        }
        config.policy = match Enum::try_from(lb_policy) {
            Ok(Enum::RoundRobin) => LbPolicy::RoundRobin,
            Ok(Enum::LeastRequest) => LbPolicy::LeastRequest(LeastRequest::default()),
            Ok(Enum::Random) => LbPolicy::Random,
            Ok(Enum::ClusterProvided) if has_subsets => {
                return Err(at.error("cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config"));
            }
            Ok(Enum::ClusterProvided) => LbPolicy::ClusterProvided,
            Ok(Enum::RingHash) => {
                at.field("lb_policy").refuse_or_warn(&policy_unsupported::RING_HASH)?;
                LbPolicy::Random
            }
            Ok(Enum::Maglev) => {
                at.field("lb_policy").refuse_or_warn(&policy_unsupported::MAGLEV)?;
                LbPolicy::Random
            }
            Ok(Enum::LoadBalancingPolicyConfig) => {
                return Err(at.error("cluster: field load_balancing_policy need to be set"));
            }
            Err(_) => return Err(at.field("lb_policy").error("value must be one of the defined enum values")),
        };
        config.legacy(at, lb_config)?;
        Ok(config)
    }

    /// The configuration of a policy by the cluster's own fields. One that belongs to another policy is not read, as
    /// in Envoy.
    fn legacy(&mut self, at: At<'_>, lb_config: Option<proto::cluster::LbConfig>) -> Result<(), ConfigError> {
        use proto::cluster::LbConfig as Config;
        match (lb_config, &mut self.policy) {
            (Some(Config::RoundRobinLbConfig(config)), LbPolicy::RoundRobin) => {
                let proto::cluster::RoundRobinLbConfig { slow_start_config } = config;
                at.field("round_robin_lb_config")
                    .unsupported(&policy_unsupported::slow_start_config, &slow_start_config)
            }
            (Some(Config::LeastRequestLbConfig(config)), LbPolicy::LeastRequest(policy)) => {
                let proto::cluster::LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } =
                    config;
                let at = at.field("least_request_lb_config");
                at.unsupported(&policy_unsupported::slow_start_config, &slow_start_config)?;
                policy.choice_count = least_request_choices(at, choice_count.map(|v| v.value))?;
                policy.active_request_bias = request_bias(at, active_request_bias);
                Ok(())
            }
            (Some(Config::RoundRobinLbConfig(_) | Config::LeastRequestLbConfig(_)), _)
            | (Some(Config::RingHashLbConfig(_) | Config::MaglevLbConfig(_) | Config::OriginalDstLbConfig(_)), _)
            | (None, _) => Ok(()),
        }
    }

    fn common(&mut self, at: At<'_>, proto: Option<proto::cluster::CommonLbConfig>) -> Result<(), ConfigError> {
        use proto::cluster::common_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
        let Some(proto) = proto else { return Ok(()) };
        let proto::cluster::CommonLbConfig {
            healthy_panic_threshold,
            update_merge_window,
            ignore_new_hosts_until_first_hc,
            close_connections_on_host_set_change,
            consistent_hashing_lb_config,
            override_host_status,
            locality_config_specifier,
        } = proto;
        at.unsupported(&common_unsupported::ignore_new_hosts_until_first_hc, &ignore_new_hosts_until_first_hc)?;
        at.unsupported(&common_unsupported::consistent_hashing_lb_config, &consistent_hashing_lb_config)?;
        at.unsupported(&common_unsupported::override_host_status, &override_host_status)?;
        if let Some(threshold) = healthy_panic_threshold {
            self.healthy_panic_threshold = rounded(percent(at.field("healthy_panic_threshold"), &threshold)?);
        }
        if let Some(window) = duration(at.field("update_merge_window"), update_merge_window)? {
            self.update_merge_window = window;
        }
        self.close_connections_on_host_set_change = close_connections_on_host_set_change;
        match locality_config_specifier {
            None => {}
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => self.locality_weighted = true,
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
                let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic } = zone;
                let at = at.field("zone_aware_lb_config");
                at.unsupported(&zone_aware_unsupported::routing_enabled, &routing_enabled.filter(|p| p.value > 0.0))?;
                at.unsupported(&zone_aware_unsupported::min_cluster_size, &min_cluster_size)?;
                self.fail_traffic_on_panic = fail_traffic_on_panic;
            }
        }
        Ok(())
    }

    /// The first policy of the list that is known.
    fn typed(&mut self, at: At<'_>, cluster_name: &str, proto: proto::LoadBalancingPolicy) -> Result<(), ConfigError> {
        let proto::LoadBalancingPolicy { policies } = proto;
        let list = at.field("policies");
        let mut names = Vec::new();
        for (index, proto::load_balancing_policy::Policy { typed_extension_config }) in policies.into_iter().enumerate()
        {
            let Some(core::TypedExtensionConfig { name, typed_config }) = typed_extension_config else { continue };
            let at = list.index(index);
            let at = at.field("typed_extension_config");
            let any = typed_config.unwrap_or_default();
            let known = match type_name(&any.type_url) {
                "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
                    self.round_robin(at, decode(at, &any)?)?;
                    true
                }
                "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
                    self.least_request(at, decode(at, &any)?)?;
                    true
                }
                "envoy.extensions.load_balancing_policies.random.v3.Random" => {
                    let typed::random::v3::Random { locality_lb_config } = decode(at, &any)?;
                    self.policy = LbPolicy::Random;
                    self.locality(at, locality_lb_config)?;
                    true
                }
                "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided" => {
                    let typed::cluster_provided::v3::ClusterProvided {} = decode(at, &any)?;
                    self.policy = LbPolicy::ClusterProvided;
                    true
                }
                _ => false,
            };
            if known {
                return Ok(());
            }
            names.push(name);
        }
        Err(at.error(format_args!(
            "cluster: didn't find a registered load balancer factory implementation for cluster: '{cluster_name}' with \
             names from [{}]",
            names.join(", ")
        )))
    }

    fn round_robin(&mut self, at: At<'_>, proto: typed::round_robin::v3::RoundRobin) -> Result<(), ConfigError> {
        let typed::round_robin::v3::RoundRobin { slow_start_config, locality_lb_config } = proto;
        at.unsupported(&policy_unsupported::slow_start_config, &slow_start_config)?;
        self.policy = LbPolicy::RoundRobin;
        self.locality(at, locality_lb_config)
    }

    fn least_request(&mut self, at: At<'_>, proto: typed::least_request::v3::LeastRequest) -> Result<(), ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let typed::least_request::v3::LeastRequest {
            choice_count,
            active_request_bias,
            slow_start_config,
            locality_lb_config,
            enable_full_scan,
            selection_method,
        } = proto;
        at.unsupported(&policy_unsupported::slow_start_config, &slow_start_config)?;
        let full_scan = match selection_method {
            0 => enable_full_scan.is_some_and(|v| v.value),
            1 => true,
            _ => return Err(at.field("selection_method").error("value must be one of the defined enum values")),
        };
        self.policy = LbPolicy::LeastRequest(LeastRequest {
            choice_count: least_request_choices(at, choice_count.map(|v| v.value))?,
            active_request_bias: request_bias(at, active_request_bias),
            full_scan,
        });
        self.locality(at, locality_lb_config)
    }

    fn locality(&mut self, at: At<'_>, proto: Option<typed::common::v3::LocalityLbConfig>) -> Result<(), ConfigError> {
        use typed::common::v3::locality_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
        match proto.and_then(|config| config.locality_config_specifier) {
            None => {}
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => self.locality_weighted = true,
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
                #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
                let ZoneAwareLbConfig {
                    routing_enabled,
                    min_cluster_size,
                    fail_traffic_on_panic,
                    force_locality_direct_routing,
                    force_local_zone,
                    locality_basis,
                } = zone;
                let at = at.field("locality_lb_config");
                let at = at.field("zone_aware_lb_config");
                let enabled = routing_enabled.filter(|percent| percent.value > 0.0);
                at.unsupported(&typed_zone_aware_unsupported::routing_enabled, &enabled)?;
                at.unsupported(&typed_zone_aware_unsupported::min_cluster_size, &min_cluster_size)?;
                at.unsupported(
                    &typed_zone_aware_unsupported::force_locality_direct_routing,
                    &force_locality_direct_routing,
                )?;
                at.unsupported(&typed_zone_aware_unsupported::force_local_zone, &force_local_zone)?;
                at.unsupported(&typed_zone_aware_unsupported::locality_basis, &locality_basis)?;
                self.fail_traffic_on_panic = fail_traffic_on_panic;
            }
        }
        Ok(())
    }
}

fn least_request_choices(at: At<'_>, count: Option<u32>) -> Result<u32, ConfigError> {
    match count {
        None => Ok(2),
        Some(0 | 1) => Err(at.field("choice_count").error("value must be greater than or equal to 2")),
        Some(count) => Ok(count),
    }
}

/// The runtime's default; Envoy uses 1.0 for a negative one, and says so.
fn request_bias(at: At<'_>, proto: Option<core::RuntimeDouble>) -> f64 {
    let Some(core::RuntimeDouble { default_value, runtime_key }) = proto else { return 1.0 };
    if default_value >= 0.0 {
        return default_value;
    }
    at.field("active_request_bias").warn(
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig.active_request_bias",
        format!("invalid active request bias supplied (runtime key {runtime_key}), using 1.0"),
    );
    1.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage was checked to be 0 to 100")]
fn rounded(percent: f64) -> u32 {
    percent.round() as u32
}

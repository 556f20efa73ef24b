//! `lb_policy` with `common_lb_config`, `lb_subset_config` and the field of its own policy.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use filters::config::{At, ConfigError};

use super::subset::SubsetConfig;
use super::{
    Hashing, LbConfig, LbPolicy, LeastRequest, Maglev, RingHash, common_unsupported, duration, least_request_choices,
    percent, request_bias, rounded, slow_start,
};

impl LbConfig {
    /// The policy by number, tuned by its own field. One that belongs to another policy is not read, as in Envoy.
    pub(super) fn legacy(
        &mut self,
        at: At<'_>,
        lb_policy: i32,
        lb_config: Option<proto::cluster::LbConfig>,
        hashing: Hashing,
        subset: Option<proto::cluster::LbSubsetConfig>,
    ) -> Result<(), ConfigError> {
        use proto::cluster::LbConfig as Config;
        use proto::cluster::LbPolicy as Enum;
        let policy = Enum::try_from(lb_policy)
            .map_err(|_| at.field("lb_policy").error("value must be one of the defined enum values"))?;
        self.policy = match (policy, lb_config) {
            (Enum::RoundRobin, Some(Config::RoundRobinLbConfig(config))) => {
                let proto::cluster::RoundRobinLbConfig { slow_start_config } = config;
                self.slow_start(at.field("round_robin_lb_config"), slow_start_config)?;
                LbPolicy::RoundRobin
            }
            (Enum::RoundRobin, _) => LbPolicy::RoundRobin,
            (Enum::LeastRequest, Some(Config::LeastRequestLbConfig(config))) => {
                let proto::cluster::LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } =
                    config;
                let at = at.field("least_request_lb_config");
                self.slow_start(at, slow_start_config)?;
                LbPolicy::LeastRequest(LeastRequest {
                    choice_count: least_request_choices(at, choice_count.map(|v| v.value))?,
                    active_request_bias: request_bias(at, active_request_bias, &mut self.keys),
                    full_scan: false,
                })
            }
            (Enum::LeastRequest, _) => LbPolicy::LeastRequest(LeastRequest::default()),
            (Enum::Random, _) => LbPolicy::Random,
            (Enum::RingHash, config) => {
                let config = match config {
                    Some(Config::RingHashLbConfig(config)) => config,
                    _ => proto::cluster::RingHashLbConfig::default(),
                };
                let proto::cluster::RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = config;
                let at = at.field("ring_hash_lb_config");
                let sizes = (minimum_ring_size.map(|v| v.value), maximum_ring_size.map(|v| v.value));
                // Its numbers are one lower than those of the policy by extension.
                LbPolicy::RingHash(RingHash::new(at, hash_function.saturating_add(1), sizes, hashing)?)
            }
            (Enum::Maglev, config) => {
                let config = match config {
                    Some(Config::MaglevLbConfig(config)) => config,
                    _ => proto::cluster::MaglevLbConfig::default(),
                };
                let proto::cluster::MaglevLbConfig { table_size } = config;
                let at = at.field("maglev_lb_config");
                LbPolicy::Maglev(Maglev::new(at, table_size.map(|v| v.value), hashing)?)
            }
            (Enum::ClusterProvided, _) if subset.is_some() => {
                return Err(at.error("cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config"));
            }
            (Enum::ClusterProvided, _) => LbPolicy::ClusterProvided,
            (Enum::LoadBalancingPolicyConfig, _) => {
                return Err(at.error("cluster: field load_balancing_policy need to be set"));
            }
        };
        self.subset =
            subset.map(|subset| SubsetConfig::legacy(at.field("lb_subset_config"), subset)).transpose()?.map(Arc::new);
        Ok(())
    }

    fn slow_start(&mut self, at: At<'_>, proto: Option<proto::cluster::SlowStartConfig>) -> Result<(), ConfigError> {
        let Some(proto) = proto else { return Ok(()) };
        let proto::cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = proto;
        let at = at.field("slow_start_config");
        self.slow_start = slow_start(at, &mut self.keys, slow_start_window, aggression, min_weight_percent)?;
        Ok(())
    }

    /// What is common to all policies, and to those that hash.
    pub(super) fn common(
        &mut self,
        at: At<'_>,
        proto: Option<proto::cluster::CommonLbConfig>,
    ) -> Result<Hashing, ConfigError> {
        use proto::cluster::common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig};
        let Some(proto) = proto else { return Ok(Hashing::default()) };
        let proto::cluster::CommonLbConfig {
            healthy_panic_threshold,
            update_merge_window,
            ignore_new_hosts_until_first_hc,
            close_connections_on_host_set_change,
            consistent_hashing_lb_config,
            override_host_status,
            locality_config_specifier,
        } = proto;
        at.unsupported(&common_unsupported::override_host_status, &override_host_status)?;
        if let Some(threshold) = healthy_panic_threshold {
            self.healthy_panic_threshold = rounded(percent(at.field("healthy_panic_threshold"), &threshold)?);
        }
        if let Some(window) = duration(at.field("update_merge_window"), update_merge_window)? {
            self.update_merge_window = window;
        }
        self.ignore_new_hosts_until_first_hc = ignore_new_hosts_until_first_hc;
        self.close_connections_on_host_set_change = close_connections_on_host_set_change;
        match locality_config_specifier {
            None => {}
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => self.locality_weighted = true,
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
                let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic } = zone;
                let at = at.field("zone_aware_lb_config");
                if let Some(share) = routing_enabled {
                    self.zone_aware.routing_enabled = rounded(percent(at.field("routing_enabled"), &share)?);
                }
                if let Some(size) = min_cluster_size {
                    self.zone_aware.min_cluster_size = size.value;
                }
                self.zone_aware.fail_traffic_on_panic = fail_traffic_on_panic;
            }
        }
        let Some(proto) = consistent_hashing_lb_config else { return Ok(Hashing::default()) };
        let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } = proto;
        Hashing::new(
            at.field("consistent_hashing_lb_config"),
            use_hostname_for_hashing,
            hash_balance_factor.map(|v| v.value),
        )
    }
}

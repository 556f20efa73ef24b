//! `load_balancing_policy`: the first policy of the list that is known, and what is nested within it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::load_balancing_policies as typed;
use envoy_types::pb::google::protobuf::Any;
use filters::config::{At, ConfigError};
use filters::matcher::RegexLimits;

use super::super::{decode, type_name};
use super::{
    Hashing, LbConfig, LbPolicy, LeastRequest, Maglev, OverrideHost, RingHash, SubsetConfig, least_request_choices,
    percent, policy_unsupported, request_bias, rounded, slow_start,
};
use crate::config::route::hash;

/// A policy that may be the one, by type.
enum Known {
    RoundRobin,
    LeastRequest,
    Random,
    RingHash,
    Maglev,
    ClusterProvided,
    Subset,
    OverrideHost,
    WrrLocality,
    /// Envoy has it.
    Refused,
}

/// What a list of policies is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The cluster.
    Outermost,
    /// Requests that do not choose their host.
    Fallback,
    /// Each of the subsets.
    Subset,
}

impl Known {
    fn of(any: &Any) -> Option<Self> {
        Some(match type_name(&any.type_url).strip_prefix("envoy.extensions.load_balancing_policies.")? {
            "round_robin.v3.RoundRobin" => Self::RoundRobin,
            "least_request.v3.LeastRequest" => Self::LeastRequest,
            "random.v3.Random" => Self::Random,
            "ring_hash.v3.RingHash" => Self::RingHash,
            "maglev.v3.Maglev" => Self::Maglev,
            "cluster_provided.v3.ClusterProvided" => Self::ClusterProvided,
            "subset.v3.Subset" => Self::Subset,
            "wrr_locality.v3.WrrLocality" => Self::WrrLocality,
            "override_host.v3.OverrideHost" => Self::OverrideHost,
            "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
            | "load_aware_locality.v3.LoadAwareLocality"
            | "dynamic_modules.v3.DynamicModulesLoadBalancerConfig" => Self::Refused,
            _ => return None,
        })
    }
}

impl LbConfig {
    pub(super) fn typed(
        &mut self,
        at: At<'_>,
        cluster_name: &str,
        proto: proto::LoadBalancingPolicy,
    ) -> Result<(), ConfigError> {
        const PREFIX: &str = "cluster: didn't find a registered load balancer factory implementation for cluster:";
        self.first_known(at, format_args!("{PREFIX} '{cluster_name}' with names from "), proto, Place::Outermost)
    }

    /// The first policy of the list that is known; `none` is what is wrong where there is none. Subsets do not nest, and
    /// neither do policies by which requests choose their host.
    fn first_known(
        &mut self,
        at: At<'_>,
        none: std::fmt::Arguments<'_>,
        proto: proto::LoadBalancingPolicy,
        place: Place,
    ) -> Result<(), ConfigError> {
        let proto::LoadBalancingPolicy { policies } = proto;
        let list = at.field("policies");
        let mut names = Vec::new();
        for (index, proto::load_balancing_policy::Policy { typed_extension_config }) in policies.into_iter().enumerate()
        {
            let Some(core::TypedExtensionConfig { name, typed_config }) = typed_extension_config else { continue };
            let at = list.index(index);
            let any = typed_config.unwrap_or_default();
            match Known::of(&any) {
                Some(Known::Subset) if place == Place::Subset => {
                    return at
                        .field("typed_extension_config")
                        .refuse_or_warn(&policy_unsupported::typed_extension_config);
                }
                Some(Known::OverrideHost) if place != Place::Outermost => {
                    return at
                        .field("typed_extension_config")
                        .refuse_or_warn(&policy_unsupported::typed_extension_config);
                }
                Some(known) => return self.policy(at, known, &any),
                None => names.push(name),
            }
        }
        Err(at.error(format_args!("{none}[{}]", names.join(", "))))
    }

    fn policy(&mut self, at: At<'_>, known: Known, any: &Any) -> Result<(), ConfigError> {
        let at_policy = at;
        let at = at.field("typed_extension_config");
        match known {
            Known::RoundRobin => {
                let typed::round_robin::v3::RoundRobin { slow_start_config, locality_lb_config } = decode(at, any)?;
                self.policy = LbPolicy::RoundRobin;
                self.typed_slow_start(at, slow_start_config)?;
                self.locality(at, locality_lb_config)
            }
            Known::LeastRequest => self.least_request(at, decode(at, any)?),
            Known::Random => {
                let typed::random::v3::Random { locality_lb_config } = decode(at, any)?;
                self.policy = LbPolicy::Random;
                self.locality(at, locality_lb_config)
            }
            Known::RingHash => self.ring_hash(at, decode(at, any)?),
            Known::Maglev => self.maglev(at, decode(at, any)?),
            Known::ClusterProvided => {
                let typed::cluster_provided::v3::ClusterProvided {} = decode(at, any)?;
                self.policy = LbPolicy::ClusterProvided;
                Ok(())
            }
            Known::Subset => {
                let mut proto: typed::subset::v3::Subset = decode(at, any)?;
                let nested = proto.subset_lb_policy.take().unwrap_or_default();
                const NONE: &str =
                    "cluster: didn't find a registered load balancer factory implementation for subset lb";
                let none = format_args!("{NONE} with names from ");
                self.first_known(at.field("subset_lb_policy"), none, nested, Place::Subset)?;
                let subset = SubsetConfig::typed(at, proto)?;
                // Without selectors every request is as one that fits no subset.
                self.subset = Some(Arc::new(subset));
                Ok(())
            }
            Known::OverrideHost => {
                const NONE: &str =
                    "dynamic forwarding LB: didn't find a registered fallback load balancer factory with names";
                let typed::override_host::v3::OverrideHost {
                    override_host_sources,
                    selected_host_key,
                    fallback_policy,
                } = decode(at, any)?;
                let policy = OverrideHost::parse(at, override_host_sources, selected_host_key)?;
                let fallback = at.required("fallback_policy", fallback_policy)?;
                let none = format_args!("{NONE} from ");
                self.first_known(at.field("fallback_policy"), none, fallback, Place::Fallback)?;
                self.override_host = Some(Arc::new(policy));
                Ok(())
            }
            Known::WrrLocality => {
                let typed::wrr_locality::v3::WrrLocality { endpoint_picking_policy } = decode(at, any)?;
                let policies = endpoint_picking_policy.map(|policy| policy.policies).unwrap_or_default();
                let mut types = policies.into_iter().filter_map(|policy| policy.typed_extension_config?.typed_config);
                match types.find_map(|any| Known::of(&any)) {
                    Some(Known::Refused) => at_policy.unsupported(&policy_unsupported::typed_extension_config, &true),
                    Some(_) => Err(at.error(
                        "Currently WrrLocalityLoadBalancer only supports ClientSideWeightedRoundRobinLoadBalancer as its \
                         endpoint picking policy.",
                    )),
                    None => Err(at.error("No supported endpoint picking policy.")),
                }
            }
            Known::Refused => at_policy.unsupported(&policy_unsupported::typed_extension_config, &true),
        }
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
        let full_scan = match selection_method {
            0 => enable_full_scan.is_some_and(|v| v.value),
            1 => true,
            _ => return Err(at.field("selection_method").error("value must be one of the defined enum values")),
        };
        self.policy = LbPolicy::LeastRequest(LeastRequest {
            choice_count: least_request_choices(at, choice_count.map(|v| v.value))?,
            active_request_bias: request_bias(at, active_request_bias, &mut self.keys),
            full_scan,
        });
        self.typed_slow_start(at, slow_start_config)?;
        self.locality(at, locality_lb_config)
    }

    fn ring_hash(&mut self, at: At<'_>, proto: typed::ring_hash::v3::RingHash) -> Result<(), ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let typed::ring_hash::v3::RingHash {
            hash_function,
            minimum_ring_size,
            maximum_ring_size,
            use_hostname_for_hashing,
            hash_balance_factor,
            consistent_hashing_lb_config,
            locality_weighted_lb_config,
        } = proto;
        if minimum_ring_size.is_some_and(|v| v.value == 0) {
            return Err(at.field("minimum_ring_size").error("value must be inside range [1, 8388608]"));
        }
        let own = Hashing::new(at, use_hostname_for_hashing, hash_balance_factor.map(|v| v.value))?;
        let hashing = self.hashing(at, consistent_hashing_lb_config)?.unwrap_or(own);
        let sizes = (minimum_ring_size.map(|v| v.value), maximum_ring_size.map(|v| v.value));
        self.policy = LbPolicy::RingHash(RingHash::new(at, hash_function, sizes, hashing)?);
        self.locality_weighted = locality_weighted_lb_config.is_some();
        Ok(())
    }

    fn maglev(&mut self, at: At<'_>, proto: typed::maglev::v3::Maglev) -> Result<(), ConfigError> {
        let typed::maglev::v3::Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } = proto;
        let hashing = self.hashing(at, consistent_hashing_lb_config)?.unwrap_or_default();
        self.policy = LbPolicy::Maglev(Maglev::new(at, table_size.map(|v| v.value), hashing)?);
        self.locality_weighted = locality_weighted_lb_config.is_some();
        Ok(())
    }

    /// What ring hash and Maglev share; `None` when it is not given.
    fn hashing(
        &mut self,
        at: At<'_>,
        proto: Option<typed::common::v3::ConsistentHashingLbConfig>,
    ) -> Result<Option<Hashing>, ConfigError> {
        let Some(proto) = proto else { return Ok(None) };
        let typed::common::v3::ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy } =
            proto;
        let at = at.field("consistent_hashing_lb_config");
        self.hash_policy = hash::parse(hash_policy, at.field("hash_policy"), RegexLimits::default())?;
        Hashing::new(at, use_hostname_for_hashing, hash_balance_factor.map(|v| v.value)).map(Some)
    }

    fn typed_slow_start(
        &mut self,
        at: At<'_>,
        proto: Option<typed::common::v3::SlowStartConfig>,
    ) -> Result<(), ConfigError> {
        let Some(proto) = proto else { return Ok(()) };
        let typed::common::v3::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = proto;
        let at = at.field("slow_start_config");
        self.slow_start = slow_start(at, &mut self.keys, slow_start_window, aggression, min_weight_percent)?;
        Ok(())
    }

    fn locality(&mut self, at: At<'_>, proto: Option<typed::common::v3::LocalityLbConfig>) -> Result<(), ConfigError> {
        use typed::common::v3::locality_lb_config::zone_aware_lb_config::{ForceLocalZone, LocalityBasis};
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
                let config = &mut self.zone_aware;
                if let Some(share) = routing_enabled {
                    config.routing_enabled = rounded(percent(at.field("routing_enabled"), &share)?);
                }
                if let Some(size) = min_cluster_size {
                    config.min_cluster_size = size.value;
                }
                config.fail_traffic_on_panic = fail_traffic_on_panic;
                config.force_local = match force_local_zone {
                    Some(ForceLocalZone { min_size }) => Some(min_size.map_or(1, |size| size.value)),
                    // The older way to say it.
                    None => force_locality_direct_routing.then_some(1),
                };
                // Envoy takes any number it does not know for the default.
                config.by_weight = locality_basis == LocalityBasis::HealthyHostsWeight as i32;
            }
        }
        Ok(())
    }
}

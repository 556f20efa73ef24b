//! Subsets: by which keys of their metadata hosts are divided, and what a request gets that fits none.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::cluster::v3::cluster as legacy;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3 as typed;
use envoy_types::pb::google::protobuf::Struct;
use filters::config::{At, ConfigError};

use crate::route::MetadataMatch;

/// `lb_subset_config`, or the policy `subset`.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetConfig {
    /// Which subsets there are; those with most keys first where redundant keys are allowed.
    pub selectors: Vec<SubsetSelector>,
    /// What a request gets that fits no subset, unless its selector knows better.
    pub fallback: Fallback,
    /// The metadata of hosts that make up the default subset.
    pub default_subset: MetadataMatch,
    /// Subsets keep the weights of their localities.
    pub locality_weight_aware: bool,
    /// Those weights are reduced by the share of a locality's hosts that are not in the subset.
    pub scale_locality_weight: bool,
    /// Where the fallback finds nobody, any host will do.
    pub panic_mode_any: bool,
    /// A host whose metadata has a list is in the subset of each value.
    pub list_as_any: bool,
    /// A request may say more than its subset's keys.
    pub allow_redundant_keys: bool,
    /// `fallback_list` in a request's metadata holds alternatives to try.
    pub fallback_list: bool,
}

/// What becomes of a request that fits no subset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// It finds no host.
    None,
    /// Any host.
    Any,
    /// A host of the default subset.
    Default,
}

/// `LbSubsetSelector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    /// In order, each once.
    pub keys: BTreeSet<String>,
    /// What a request with these keys gets that fits no subset; `None` leaves it to the cluster.
    pub fallback: Option<SelectorFallback>,
    /// A subset is one host, whatever its health.
    pub single_host: bool,
}

/// A selector's own fallback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As the cluster's.
    Plain(Fallback),
    /// Try again with these keys only.
    Keys(BTreeSet<String>),
}

/// A selector as either form has it.
struct Selector {
    keys: Vec<String>,
    fallback_policy: i32,
    fallback_keys_subset: Vec<String>,
    single_host_per_subset: bool,
}

/// The numbers both forms share.
struct Policies {
    fallback: i32,
    metadata_fallback: i32,
}

impl SubsetConfig {
    pub(super) fn legacy(at: At<'_>, proto: legacy::LbSubsetConfig) -> Result<Self, ConfigError> {
        let legacy::LbSubsetConfig {
            fallback_policy,
            default_subset,
            subset_selectors,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            metadata_fallback_policy,
        } = proto;
        let selectors = subset_selectors.into_iter().map(|selector| {
            let legacy::lb_subset_config::LbSubsetSelector {
                keys,
                single_host_per_subset,
                fallback_policy,
                fallback_keys_subset,
            } = selector;
            Selector { keys, fallback_policy, fallback_keys_subset, single_host_per_subset }
        });
        let policies = Policies { fallback: fallback_policy, metadata_fallback: metadata_fallback_policy };
        Ok(Self {
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            ..Self::new(at, selectors, default_subset, &policies)?
        })
    }

    pub(super) fn typed(at: At<'_>, proto: typed::Subset) -> Result<Self, ConfigError> {
        let typed::Subset {
            fallback_policy,
            default_subset,
            subset_selectors,
            allow_redundant_keys,
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            metadata_fallback_policy,
            // The policy within each subset is its reader's business.
            subset_lb_policy: _,
        } = proto;
        let selectors =
            subset_selectors.into_iter().map(|selector| {
                let typed::subset::LbSubsetSelector {
                    keys,
                    single_host_per_subset,
                    fallback_policy,
                    fallback_keys_subset,
                } = selector;
                Selector { keys, fallback_policy, fallback_keys_subset, single_host_per_subset }
            });
        let policies = Policies { fallback: fallback_policy, metadata_fallback: metadata_fallback_policy };
        let mut config = Self {
            locality_weight_aware,
            scale_locality_weight,
            panic_mode_any,
            list_as_any,
            allow_redundant_keys,
            ..Self::new(at, selectors, default_subset, &policies)?
        };
        if allow_redundant_keys {
            // The selector that fits best comes first, of equals the one that is named first.
            config.selectors.sort_by_key(|selector| std::cmp::Reverse(selector.keys.len()));
        }
        Ok(config)
    }

    fn new(
        at: At<'_>,
        selectors: impl Iterator<Item = Selector>,
        default_subset: Option<Struct>,
        policies: &Policies,
    ) -> Result<Self, ConfigError> {
        let list = at.field("subset_selectors");
        // A selector without keys selects nothing, whatever else it says.
        let selectors = selectors
            .enumerate()
            .filter(|(_, selector)| !selector.keys.is_empty())
            .map(|(index, selector)| SubsetSelector::new(list.index(index), selector));
        Ok(Self {
            selectors: selectors.collect::<Result<_, _>>()?,
            fallback: match policies.fallback {
                0 => Fallback::None,
                1 => Fallback::Any,
                2 => Fallback::Default,
                _ => return Err(undefined(at.field("fallback_policy"))),
            },
            default_subset: MetadataMatch::new(default_subset.unwrap_or_default()),
            locality_weight_aware: false,
            scale_locality_weight: false,
            panic_mode_any: false,
            list_as_any: false,
            allow_redundant_keys: false,
            fallback_list: match policies.metadata_fallback {
                0 => false,
                1 => true,
                _ => return Err(undefined(at.field("metadata_fallback_policy"))),
            },
        })
    }
}

impl SubsetSelector {
    fn new(at: At<'_>, selector: Selector) -> Result<Self, ConfigError> {
        let Selector { keys, fallback_policy, fallback_keys_subset, single_host_per_subset } = selector;
        let keys: BTreeSet<String> = keys.into_iter().collect();
        let fewer: BTreeSet<String> = fallback_keys_subset.into_iter().collect();
        let fallback = match fallback_policy {
            0 => None,
            1 => Some(SelectorFallback::Plain(Fallback::None)),
            2 => Some(SelectorFallback::Plain(Fallback::Any)),
            3 => Some(SelectorFallback::Plain(Fallback::Default)),
            4 => {
                let at = at.field("fallback_keys_subset");
                if fewer.is_empty() {
                    return Err(at.error("fallback_keys_subset cannot be empty"));
                }
                if !fewer.is_subset(&keys) {
                    return Err(at.error("fallback_keys_subset must be a subset of selector keys"));
                }
                if fewer.len() == keys.len() {
                    return Err(at.error("fallback_keys_subset cannot be equal to keys"));
                }
                Some(SelectorFallback::Keys(fewer.clone()))
            }
            _ => return Err(undefined(at.field("fallback_policy"))),
        };
        if !fewer.is_empty() && fallback_policy != 4 {
            return Err(at
                .field("fallback_keys_subset")
                .error("fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy"));
        }
        Ok(Self { keys, fallback, single_host: single_host_per_subset })
    }
}

fn undefined(at: At<'_>) -> ConfigError {
    at.error("value must be one of the defined enum values")
}

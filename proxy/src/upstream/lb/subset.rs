//! Subsets of a cluster's hosts by their metadata, and which of them a request goes to.
//!
//! [`Subsets`] is built once per published host set and shared; every subset in it is a [`HostSet`] of its own, so that
//! priorities, panic and localities work within it as in a cluster. A worker makes a scheduler for a subset when the first
//! request goes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::zone::ZoneNote;
use super::{PickContext, Scheduler};
use crate::config::cluster::{Fallback, LbConfig, SelectorFallback, SubsetConfig};
use crate::route::MetadataMatch;
use crate::route::metadata::{selector_name, subset_name};
use crate::upstream::host::{Derived, Host, HostSet, PlacedHosts, PriorityHosts};

/// Every subset of a host set.
#[derive(Debug, Default)]
pub struct Subsets {
    by_name: foldhash::HashMap<Box<str>, Subset>,
    any: Option<Arc<HostSet>>,
    default: Option<Arc<HostSet>>,
    /// Hosts left out because their subset has its one host (`lb_subsets_single_host_per_subset_duplicate`).
    duplicates: usize,
}

#[derive(Debug)]
enum Subset {
    Hosts(Arc<HostSet>),
    /// The one host of the first priority that has one.
    Single(Arc<Host>),
}

/// A subset in the making: hosts by priority.
struct Draft {
    single: bool,
    hosts: Vec<BTreeSet<u64>>,
    first: Option<Arc<Host>>,
}

impl Subsets {
    /// The subsets of `set`; none unless the configuration has some.
    #[must_use]
    pub fn build(set: &HostSet, config: &LbConfig) -> Self {
        let Some(config) = config.subset.as_deref() else { return Self::default() };
        let tuned = set.tuned().map(|tuned| Arc::new(tuned.within_subset()));
        let filtered = |keep: &dyn Fn(usize, &Host) -> bool| filtered(set, config, tuned.as_ref(), keep);
        let mut drafts: BTreeMap<Box<str>, Draft> = BTreeMap::new();
        let mut duplicates = 0;
        for (priority, level) in set.priorities.iter().enumerate() {
            // As in Envoy the last priority's count is the one that is seen.
            duplicates = 0;
            for host in &level.hosts {
                for selector in &config.selectors {
                    for name in names(host, &selector.keys, config.list_as_any) {
                        let draft = drafts.entry(name).or_insert_with(|| Draft {
                            single: selector.single_host,
                            hosts: vec![BTreeSet::new(); set.priorities.len()],
                            first: None,
                        });
                        let Some(hosts) = draft.hosts.get_mut(priority) else { continue };
                        if draft.single && !hosts.is_empty() {
                            duplicates += 1;
                            continue;
                        }
                        hosts.insert(host.id());
                        draft.first.get_or_insert_with(|| host.clone());
                    }
                }
            }
        }
        let by_name = drafts.into_iter().filter_map(|(name, draft)| {
            let subset = match draft {
                Draft { single: true, first, .. } => Subset::Single(first?),
                Draft { hosts, .. } => Subset::Hosts(filtered(&|priority, host| {
                    hosts.get(priority).is_some_and(|hosts| hosts.contains(&host.id()))
                })),
            };
            Some((name, subset))
        });
        let by_name = by_name.collect();
        let wants = |fallback: Fallback| {
            let own = |selector: &crate::config::cluster::SubsetSelector| {
                selector.fallback == Some(SelectorFallback::Plain(fallback))
            };
            config.fallback == fallback || config.selectors.iter().any(own)
        };
        let any = || filtered(&|_, _| true);
        let default = || {
            filtered(&|_, host| {
                config.default_subset.matches(host.attributes().metadata.as_deref(), config.list_as_any)
            })
        };
        Self {
            by_name,
            any: (wants(Fallback::Any) || config.panic_mode_any).then(any),
            default: wants(Fallback::Default).then(default),
            duplicates,
        }
    }

    /// Builds what the policy within subsets will look hosts up in.
    pub fn prepare(&self, within: &LbConfig) {
        for hosts in self.sets() {
            hosts.prepare(within);
        }
    }

    /// The hosts of every subset, and those that requests fall back to.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<HostSet>> {
        let subsets = self.by_name.values().filter_map(|subset| match subset {
            Subset::Hosts(hosts) => Some(hosts),
            Subset::Single(_) => None,
        });
        subsets.chain(&self.any).chain(&self.default)
    }

    /// Names of the subsets, for statistics.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// How many hosts were left out because their subset has its one host.
    #[must_use]
    pub const fn duplicates(&self) -> usize {
        self.duplicates
    }
}

/// The names of the subsets of these keys that a host is in: one for each combination where values are lists.
fn names(host: &Host, keys: &BTreeSet<String>, list_as_any: bool) -> Vec<Box<str>> {
    let metadata = host.attributes().metadata.as_ref();
    let Some(fields) = metadata.and_then(|metadata| metadata.get("envoy.lb")?.as_object()) else { return Vec::new() };
    let mut combinations: Vec<Vec<(&str, &Value)>> = Vec::new();
    for key in keys {
        let Some(value) = fields.get(key) else { return Vec::new() };
        let values = match value {
            Value::Array(values) if list_as_any => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        if combinations.is_empty() {
            combinations = values.iter().map(|value| vec![(key.as_str(), value)]).collect();
        } else {
            let extended = combinations.iter().flat_map(|known| {
                values.iter().map(|value| known.iter().copied().chain([(key.as_str(), value)]).collect())
            });
            combinations = extended.collect();
        }
    }
    combinations.into_iter().map(|criteria| subset_name(criteria.into_iter())).collect()
}

/// The hosts of a set that `keep` lets through, in the same priorities and localities.
fn filtered(
    set: &HostSet,
    config: &SubsetConfig,
    tuned: Option<&Arc<LbConfig>>,
    keep: impl Fn(usize, &Host) -> bool,
) -> Arc<HostSet> {
    let priorities = set.priorities.iter().enumerate().map(|(priority, level)| {
        let kept = |hosts: &[Arc<Host>]| -> Vec<_> { hosts.iter().filter(|h| keep(priority, h)).cloned().collect() };
        let localities = level.localities.iter().map(|locality| -> PlacedHosts {
            let hosts = kept(&locality.hosts);
            let weight = match (config.locality_weight_aware, config.scale_locality_weight) {
                (false, _) => 0,
                (true, false) => locality.weight,
                (true, true) => scaled(locality.weight, hosts.len(), locality.hosts.len()),
            };
            (locality.locality.clone(), weight, hosts)
        });
        PriorityHosts::ordered(kept(&level.hosts), localities.collect())
    });
    let filtered = HostSet {
        priorities: priorities.collect(),
        overprovisioning_factor: set.overprovisioning_factor,
        weighted_priority_health: set.weighted_priority_health,
        drop_overload: None,
        derived: Derived::default(),
    };
    if let Some(tuned) = tuned {
        filtered.tune(Arc::clone(tuned));
    }
    Arc::new(filtered)
}

/// `weight * kept / all`, rounded to the nearest.
fn scaled(weight: u32, kept: usize, all: usize) -> u32 {
    let (kept, all) = (kept as u64, all as u64);
    let scaled = (u64::from(weight) * kept * 2 + all).checked_div(2 * all).unwrap_or(0);
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

/// How a pick among subsets ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubsetNote {
    /// It went to the subset of its metadata (`lb_subsets_selected`).
    pub selected: bool,
    /// It fell back (`lb_subsets_fallback`).
    pub fallback: bool,
    /// It fell back to any host, the fallback having none (`lb_subsets_fallback_panic`).
    pub panic: bool,
}

/// A worker's schedulers of the subsets that had requests.
#[derive(Debug)]
pub(super) struct SubsetSchedulers {
    config: Arc<SubsetConfig>,
    within: Arc<LbConfig>,
    /// By the name of their keys: what selectors say about a request that fits none of their subsets.
    fallbacks: foldhash::HashMap<Box<str>, SelectorFallback>,
    named: foldhash::HashMap<Box<str>, Scheduler>,
    any: Option<Scheduler>,
    default: Option<Scheduler>,
    pub(super) note: SubsetNote,
    pub(super) in_panic: bool,
    pub(super) zone_note: ZoneNote,
}

/// Which subset a request goes to.
enum Target<'a> {
    Named(&'a str),
    Any,
    Default,
}

impl SubsetSchedulers {
    pub(super) fn new(config: &Arc<SubsetConfig>, lb: &LbConfig) -> Self {
        Self {
            fallbacks: fallbacks(config),
            config: config.clone(),
            within: Arc::new(lb.within_subset()),
            named: foldhash::HashMap::default(),
            any: None,
            default: None,
            note: SubsetNote::default(),
            in_panic: false,
            zone_note: ZoneNote::default(),
        }
    }

    /// Goes on with other hosts; subsets that are gone are forgotten.
    pub(super) fn refresh(&mut self, subsets: &Subsets) {
        self.named.retain(|name, scheduler| match subsets.by_name.get(name) {
            Some(Subset::Hosts(hosts)) => {
                scheduler.refresh(hosts.clone());
                true
            }
            Some(Subset::Single(_)) | None => false,
        });
        for (scheduler, hosts) in [(&mut self.any, &subsets.any), (&mut self.default, &subsets.default)] {
            match (scheduler.as_mut(), hosts) {
                (Some(scheduler), Some(hosts)) => scheduler.refresh(hosts.clone()),
                _ => *scheduler = None,
            }
        }
    }

    /// The host for a request.
    pub(super) fn pick(
        &mut self,
        subsets: &Subsets,
        context: &PickContext<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<Arc<Host>> {
        (self.note, self.in_panic, self.zone_note) = (SubsetNote::default(), false, ZoneNote::default());
        let wanted = context.metadata;
        if let Some(wanted) = wanted.filter(|_| self.config.fallback_list)
            && let Some(alternatives) = wanted.value("fallback_list")
        {
            let wanted = wanted.filtered(|key| key != "fallback_list");
            let alternatives = alternatives.as_array().map_or(&[][..], Vec::as_slice);
            if alternatives.is_empty() {
                return self.pick_for(subsets, context, Some(&wanted), random);
            }
            let mut tries = alternatives.iter().map(|fields| wanted.overridden(fields));
            return tries.find_map(|wanted| self.pick_for(subsets, context, Some(&wanted), random));
        }
        self.pick_for(subsets, context, wanted, random)
    }

    fn pick_for(
        &mut self,
        subsets: &Subsets,
        context: &PickContext<'_>,
        wanted: Option<&MetadataMatch>,
        random: &mut fastrand::Rng,
    ) -> Option<Arc<Host>> {
        if let Some(wanted) = wanted {
            let reduced = self.without_redundant_keys(wanted);
            let wanted = reduced.as_ref().unwrap_or(wanted);
            if subsets.by_name.contains_key(wanted.subset_name()) {
                self.note.selected = true;
                return self.pick_from(subsets, &Target::Named(wanted.subset_name()), context, random);
            }
            match self.fallbacks.get(wanted.selector_name()) {
                Some(SelectorFallback::Plain(Fallback::None)) => return None,
                Some(SelectorFallback::Plain(Fallback::Any)) => {
                    return self.pick_from(subsets, &Target::Any, context, random);
                }
                Some(SelectorFallback::Plain(Fallback::Default)) => {
                    return self.pick_from(subsets, &Target::Default, context, random);
                }
                Some(SelectorFallback::Keys(keys)) => {
                    // Fewer keys each time: this ends.
                    let fewer = wanted.filtered(|key| keys.contains(key));
                    return self.pick_for(subsets, context, Some(&fewer), random);
                }
                None => {}
            }
        }
        let target = match self.config.fallback {
            Fallback::None => return None,
            Fallback::Any => Target::Any,
            Fallback::Default => Target::Default,
        };
        if let Some(host) = self.pick_from(subsets, &target, context, random) {
            self.note.fallback = true;
            return Some(host);
        }
        let host = self.config.panic_mode_any.then(|| self.pick_from(subsets, &Target::Any, context, random))??;
        self.note.panic = true;
        Some(host)
    }

    /// The criteria of the first selector whose keys are all there.
    fn without_redundant_keys(&self, wanted: &MetadataMatch) -> Option<MetadataMatch> {
        if !self.config.allow_redundant_keys {
            return None;
        }
        let has_all = |keys: &&BTreeSet<String>| keys.iter().all(|key| wanted.value(key).is_some());
        let keys = self.config.selectors.iter().map(|selector| &selector.keys).find(has_all)?;
        Some(wanted.filtered(|key| keys.contains(key)))
    }

    fn pick_from(
        &mut self,
        subsets: &Subsets,
        target: &Target<'_>,
        context: &PickContext<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<Arc<Host>> {
        let (scheduler, hosts) = match target {
            Target::Named(name) => match subsets.by_name.get(*name)? {
                Subset::Single(host) => return Some(host.clone()),
                Subset::Hosts(hosts) => {
                    if !self.named.contains_key(*name) {
                        let scheduler = Scheduler::over(self.within.clone(), hosts.clone(), random.fork());
                        self.named.insert((*name).into(), scheduler);
                    }
                    let scheduler = self.named.get_mut(*name)?;
                    return Self::picked(scheduler, context, &mut self.in_panic, &mut self.zone_note);
                }
            },
            Target::Any => (&mut self.any, subsets.any.as_ref()?),
            Target::Default => (&mut self.default, subsets.default.as_ref()?),
        };
        let make = || Scheduler::over(self.within.clone(), hosts.clone(), random.fork());
        Self::picked(scheduler.get_or_insert_with(make), context, &mut self.in_panic, &mut self.zone_note)
    }

    fn picked(
        scheduler: &mut Scheduler,
        context: &PickContext<'_>,
        in_panic: &mut bool,
        zone_note: &mut ZoneNote,
    ) -> Option<Arc<Host>> {
        let host = scheduler.pick(context);
        *in_panic |= scheduler.in_panic();
        *zone_note = scheduler.zone_note();
        host
    }
}

/// What selectors say about requests that fit none of their subsets, by the name of their keys. As in Envoy a selector whose
/// keys another one before it begins with, or has, is not asked.
fn fallbacks(config: &SubsetConfig) -> foldhash::HashMap<Box<str>, SelectorFallback> {
    let mut known: BTreeSet<Box<str>> = BTreeSet::new();
    let mut fallbacks = foldhash::HashMap::default();
    for selector in &config.selectors {
        for length in 1..=selector.keys.len() {
            let name = selector_name(selector.keys.iter().take(length).map(String::as_str));
            let new = known.insert(name.clone());
            if let Some(fallback) = selector.fallback.as_ref().filter(|_| new && length == selector.keys.len()) {
                fallbacks.insert(name, fallback.clone());
            }
        }
    }
    fallbacks
}

#[cfg(test)]
mod tests;

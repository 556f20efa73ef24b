//! All hosts of a cluster, by priority, as of one update.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::{Health, HealthFlags, Host, Locality};
use crate::config::cluster::LbConfig;
use crate::upstream::lb::hashing::{self, HashTable};
use crate::upstream::lb::subset::Subsets;

/// All hosts of a cluster, by priority. Immutable: a change publishes a new set.
#[derive(Debug, Default)]
pub struct HostSet {
    /// By priority; never empty in a published set (an empty cluster has one empty priority).
    pub priorities: Box<[PriorityHosts]>,
    /// Percent: how many hosts too many a priority is assumed to have (140).
    pub overprovisioning_factor: u32,
    /// Compute the health of a priority from weights instead of host counts.
    pub weighted_priority_health: bool,
    /// Share of requests to drop on purpose.
    pub drop_overload: Option<DropOverload>,
    /// What policies make of it.
    pub derived: Derived,
}

/// What load-balancing policies look hosts up in: built once per set, by control before it publishes the set, and shared
/// by all workers.
#[derive(Debug, Default)]
pub struct Derived {
    /// How hosts are chosen, where the runtime had other numbers than the configuration when the set was made.
    lb: OnceLock<Arc<LbConfig>>,
    tables: OnceLock<Box<[HashTable]>>,
    subsets: OnceLock<Subsets>,
    by_address: OnceLock<HashMap<Box<str>, Arc<Host>>>,
}

/// `drop_overloads` of an assignment: requests dropped before a host is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct DropOverload {
    /// Why, `throttle`.
    pub category: Arc<str>,
    /// Share of requests, 0 to 1.
    pub ratio: f64,
}

/// The hosts of one priority.
#[derive(Debug, Default)]
pub struct PriorityHosts {
    /// All of them, in the order of the assignment.
    pub hosts: Box<[Arc<Host>]>,
    /// The healthy ones when the set was built.
    pub healthy: Box<[Arc<Host>]>,
    /// The degraded ones when the set was built.
    pub degraded: Box<[Arc<Host>]>,
    /// How many are left out of the totals.
    pub excluded: usize,
    /// The same by locality, in the order of region, zone and sub-zone.
    pub localities: Box<[LocalityHosts]>,
}

/// The hosts of one locality within a priority.
#[derive(Debug)]
pub struct LocalityHosts {
    /// Which.
    pub locality: Arc<Locality>,
    /// `load_balancing_weight` of the locality; 0 gets no locality-weighted traffic.
    pub weight: u32,
    /// All its hosts in this priority.
    pub hosts: Box<[Arc<Host>]>,
    /// The healthy ones.
    pub healthy: Box<[Arc<Host>]>,
    /// The degraded ones.
    pub degraded: Box<[Arc<Host>]>,
    /// How many are left out of the totals.
    pub excluded: usize,
}

/// Counts over a host set (`cluster.<name>.membership_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Membership {
    /// Hosts.
    pub total: usize,
    /// Healthy hosts.
    pub healthy: usize,
    /// Degraded hosts.
    pub degraded: usize,
    /// Hosts left out of the totals.
    pub excluded: usize,
    /// The greatest weight (`max_host_weight`).
    pub max_weight: u32,
}

/// The hosts of one locality in one priority, and the locality's weight.
pub type PlacedHosts = (Arc<Locality>, u32, Vec<Arc<Host>>);

impl HostSet {
    /// A set without hosts.
    #[must_use]
    pub fn empty() -> Self {
        Self { priorities: Box::new([PriorityHosts::default()]), overprovisioning_factor: 140, ..Self::default() }
    }

    /// A set of one priority and one nameless locality.
    #[must_use]
    pub fn single(hosts: Vec<Arc<Host>>) -> Self {
        let locality = hosts.first().map(|host| host.attributes().locality.clone()).unwrap_or_default();
        let localities = vec![(locality, 0, hosts)];
        Self { priorities: Box::new([PriorityHosts::new(localities)]), ..Self::empty() }
    }

    /// Says how hosts are chosen from this set, if not as the cluster is configured. To be called before anything is derived.
    pub fn tune(&self, config: Arc<LbConfig>) {
        let _ = self.derived.lb.set(config);
    }

    /// How hosts are chosen from this set, if not as the cluster is configured.
    #[must_use]
    pub fn tuned(&self) -> Option<&Arc<LbConfig>> {
        self.derived.lb.get()
    }

    /// Builds what the policy will look hosts up in, so that no worker has to.
    pub fn prepare(&self, config: &LbConfig) {
        let config = self.tuned().map_or(config, |tuned| tuned);
        if config.override_host.is_some() {
            self.by_address();
        }
        if config.subset.is_some() {
            self.subsets(config).prepare(&config.within_subset());
        } else if config.hashes() {
            self.tables(config);
        }
    }

    /// A hash table for each priority; none unless the policy hashes.
    pub fn tables(&self, config: &LbConfig) -> &[HashTable] {
        self.derived.tables.get_or_init(|| hashing::tables(self, config))
    }

    /// The subsets of the hosts; none unless the configuration has some.
    pub fn subsets(&self, config: &LbConfig) -> &Subsets {
        self.derived.subsets.get_or_init(|| Subsets::build(self, config))
    }

    /// The host with this address as text; where several have it, the first one.
    #[must_use]
    pub fn at_address(&self, address: &str) -> Option<&Arc<Host>> {
        self.by_address().get(address)
    }

    fn by_address(&self) -> &HashMap<Box<str>, Arc<Host>> {
        self.derived.by_address.get_or_init(|| {
            let mut map = HashMap::new();
            for host in self.hosts() {
                map.entry(host.address().to_string().into()).or_insert_with(|| Arc::clone(host));
            }
            map
        })
    }

    /// Every host, by priority.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|priority| &priority.hosts)
    }

    /// Every host that was healthy or degraded when the set was built.
    pub fn available(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.priorities.iter().flat_map(|priority| priority.healthy.iter().chain(&priority.degraded))
    }

    /// Counts as of now.
    #[must_use]
    pub fn membership(&self) -> Membership {
        let mut counts = Membership::default();
        for priority in &self.priorities {
            counts.total += priority.hosts.len();
            counts.healthy += priority.healthy.len();
            counts.degraded += priority.degraded.len();
            counts.excluded += priority.excluded;
        }
        counts.max_weight = self.hosts().map(|host| host.weight()).max().unwrap_or(1);
        counts
    }

    /// In how many priorities hosts have come or gone since the hosts were `former`.
    #[must_use]
    pub fn changed_priorities(&self, former: Option<&Self>) -> usize {
        let former = former.map_or(&[][..], |former| &former.priorities);
        let ids = |priorities: &[PriorityHosts], level: usize| -> HashSet<u64> {
            priorities.get(level).into_iter().flat_map(|level| &level.hosts).map(|host| host.id()).collect()
        };
        let levels = 0..self.priorities.len().max(former.len());
        levels.filter(|level| ids(&self.priorities, *level) != ids(former, *level)).count()
    }

    /// The same hosts, divided by their health as of now: what is published when health changed.
    #[must_use]
    pub fn rebuilt(&self) -> Self {
        self.keeping(|_| true)
    }

    /// The same without one host, by the number of its state.
    #[must_use]
    pub fn without(&self, id: u64) -> Self {
        self.keeping(|host| host.id() != id)
    }

    fn keeping(&self, keep: impl Fn(&Host) -> bool) -> Self {
        let kept = |hosts: &[Arc<Host>]| -> Vec<_> { hosts.iter().filter(|host| keep(host)).cloned().collect() };
        let priorities = self.priorities.iter().map(|priority| {
            let localities = priority.localities.iter();
            let localities = localities.map(|l| (l.locality.clone(), l.weight, kept(&l.hosts))).collect();
            PriorityHosts::ordered(kept(&priority.hosts), localities)
        });
        Self {
            priorities: priorities.collect(),
            overprovisioning_factor: self.overprovisioning_factor,
            weighted_priority_health: self.weighted_priority_health,
            drop_overload: self.drop_overload.clone(),
            derived: Derived::default(),
        }
    }
}

impl PriorityHosts {
    /// Hosts by locality and locality weight, divided by their health as of now.
    #[must_use]
    pub fn new(localities: Vec<PlacedHosts>) -> Self {
        let hosts = localities.iter().flat_map(|(_, _, hosts)| hosts).cloned().collect();
        Self::ordered(hosts, localities)
    }

    /// The same, where the hosts of all localities together have an order of their own: that of the assignment.
    #[must_use]
    pub fn ordered(hosts: Vec<Arc<Host>>, localities: Vec<PlacedHosts>) -> Self {
        // Health is read once per host: all lists agree.
        let flags: HashMap<*const Host, HealthFlags> =
            hosts.iter().map(|host| (Arc::as_ptr(host), host.state().flags())).collect();
        let localities: Box<[_]> = localities
            .into_iter()
            .map(|(locality, weight, hosts)| {
                let (healthy, degraded, excluded) = divide(&hosts, &flags);
                LocalityHosts { locality, weight, hosts: hosts.into(), healthy, degraded, excluded }
            })
            .collect();
        let (healthy, degraded, excluded) = divide(&hosts, &flags);
        Self { hosts: hosts.into(), healthy, degraded, excluded, localities }
    }
}

/// Healthy hosts, degraded hosts, and how many are excluded.
fn divide(hosts: &[Arc<Host>], flags: &HashMap<*const Host, HealthFlags>) -> (HostList, HostList, usize) {
    let (mut healthy, mut degraded, mut excluded) = (Vec::new(), Vec::new(), 0);
    for host in hosts {
        let flags = flags.get(&Arc::as_ptr(host)).copied().unwrap_or_else(|| host.state().flags());
        match flags.health() {
            Health::Healthy => healthy.push(host.clone()),
            Health::Degraded => degraded.push(host.clone()),
            Health::Unhealthy => {}
        }
        excluded += usize::from(flags.is_excluded());
    }
    (healthy.into(), degraded.into(), excluded)
}

type HostList = Box<[Arc<Host>]>;

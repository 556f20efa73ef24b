//! What holds for every policy, whatever becomes of hosts.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::cluster::{Fallback, SubsetConfig, SubsetSelector};
use crate::upstream::host::{HostState, Metadata};

/// Every policy that chooses among given hosts.
fn any_policy() -> impl Strategy<Value = LbPolicy> {
    let least = |full_scan| LbPolicy::LeastRequest(LeastRequest { full_scan, ..LeastRequest::default() });
    let [ring, maglev] = hash_policies();
    prop::sample::select(vec![LbPolicy::RoundRobin, LbPolicy::Random, least(false), least(true), ring, maglev])
}

/// What else decides where a request goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Around {
    Nothing,
    LocalityWeights,
    Zones,
    Subsets,
    SlowStart,
}

/// Something happens to a host, or the hosts are published anew as they are.
#[derive(Debug, Clone)]
enum Event {
    Eject(usize),
    Readmit(usize),
    Degrade(usize),
    Restore(usize),
    /// As an update of endpoints does it.
    Move(usize, u32),
    Publish,
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..12_usize;
    prop_oneof![
        4 => host.clone().prop_map(Event::Eject),
        2 => host.clone().prop_map(Event::Readmit),
        1 => host.clone().prop_map(Event::Degrade),
        1 => host.clone().prop_map(Event::Restore),
        1 => (host, 0..3_u32).prop_map(|(host, priority)| Event::Move(host, priority)),
        2 => Just(Event::Publish),
    ]
}

/// The hosts of a cluster: who they are, and where the last update put them.
struct Cluster {
    hosts: Vec<Arc<Host>>,
    zones: [Arc<Locality>; 2],
}

const VERSIONS: [&str; 2] = ["1", "2"];

impl Cluster {
    fn new(hosts: &[(u32, u32)]) -> Self {
        let zones = ["a", "b"].map(|zone| Arc::new(Locality { zone: zone.to_owned(), ..Locality::default() }));
        let made = (1_u8..).zip(hosts).map(|(n, (weight, priority))| {
            let mut attributes = host(n, *weight, *priority, &zones[usize::from(n) % 2]).attributes().clone();
            let version = json!({"version": VERSIONS[usize::from(n / 2) % 2]});
            attributes.metadata = Some(Arc::new(Metadata::from_iter([("envoy.lb".to_owned(), version)])));
            Arc::new(Host::new(attributes, Arc::new(HostState::new(2))))
        });
        Self { hosts: made.collect(), zones }
    }

    /// The same host at another priority.
    fn move_to(&mut self, index: usize, priority: u32) {
        let former = &self.hosts[index];
        let mut attributes = former.attributes().clone();
        attributes.priority = priority;
        self.hosts[index] = Arc::new(Host::new(attributes, former.state().clone()));
    }

    /// As control publishes them: by priority and zone, divided by health as of now.
    fn published(&self) -> Arc<HostSet> {
        let last = self.hosts.iter().map(|host| host.attributes().priority).max().unwrap_or(0);
        let priorities = (0..=last).map(|priority| {
            let of = |zone: &Arc<Locality>| {
                let here = |host: &&Arc<Host>| {
                    host.attributes().priority == priority && Arc::ptr_eq(&host.attributes().locality, zone)
                };
                self.hosts.iter().filter(here).cloned().collect::<Vec<_>>()
            };
            let localities = self.zones.iter().zip([1, 2]).map(|(zone, weight)| (zone.clone(), weight, of(zone)));
            PriorityHosts::new(localities.filter(|(_, _, hosts)| !hosts.is_empty()).collect())
        });
        Arc::new(HostSet { priorities: priorities.collect(), ..HostSet::empty() })
    }
}

fn configured(policy: LbPolicy, around: Around) -> Arc<LbConfig> {
    config(|config| {
        config.policy = policy;
        config.healthy_panic_threshold = 0;
        match around {
            Around::Nothing => {}
            Around::LocalityWeights => config.locality_weighted = true,
            Around::Zones => config.zone_aware.min_cluster_size = 1,
            Around::Subsets => {
                config.subset = Some(Arc::new(SubsetConfig {
                    selectors: vec![SubsetSelector {
                        keys: ["version".to_owned()].into(),
                        fallback: None,
                        single_host: false,
                    }],
                    fallback: Fallback::None,
                    default_subset: MetadataMatch::default(),
                    locality_weight_aware: false,
                    scale_locality_weight: false,
                    panic_mode_any: false,
                    list_as_any: false,
                    allow_redundant_keys: false,
                    fallback_list: false,
                }));
            }
            Around::SlowStart => {
                let window = Duration::from_secs(60);
                config.slow_start = Some(SlowStart { window, aggression: 1.0, min_weight: 0.1 });
            }
        }
    })
}

proptest! {
    /// A worker looks at a host's health when it picks, and at the hosts as they were published last: it knows of every
    /// ejection, and of a readmission with the next publication. Health is never ignored (the panic threshold is 0). Where
    /// some are degraded, the share of requests that falls to those may find nobody, in Envoy too: tables have no place for
    /// them, and the zone that was chosen may have none.
    #[test]
    fn no_host_is_chosen_that_is_known_to_be_ejected_while_another_is_eligible(
        policy in any_policy(),
        around in prop::sample::select(vec![
            Around::Nothing, Around::LocalityWeights, Around::Zones, Around::Subsets, Around::SlowStart,
        ]),
        hosts in prop::collection::vec((1_u32..6, 0_u32..3), 2..12),
        events in prop::collection::vec(event(), 1..30),
        hashes in prop::collection::vec(any::<u64>(), 4),
        (avoid, ahead) in any::<(bool, bool)>(),
        seed in any::<u64>(),
    ) {
        let misses_degraded = policy.hashes() || around == Around::Zones;
        let mut cluster = Cluster::new(&hosts);
        let mut scheduler =
            Scheduler::new(configured(policy, around), cluster.published(), 2, fastrand::Rng::with_seed(seed));
        let locals = LocalHosts { locality: cluster.zones[0].clone(), hosts: cluster.published() };
        let ejected = HealthFlags::FAILED_OUTLIER_CHECK;
        let (mut failed, mut degraded) = (BTreeSet::new(), false);
        for event in events {
            let state = |index: usize| cluster.hosts[index % cluster.hosts.len()].state();
            match event {
                Event::Eject(index) => {
                    state(index).change_flags(ejected, HealthFlags::NONE);
                    failed.insert(state(index).id());
                }
                Event::Readmit(index) => {
                    state(index).change_flags(HealthFlags::NONE, ejected);
                }
                Event::Degrade(index) => {
                    state(index).change_flags(HealthFlags::DEGRADED_EDS_HEALTH, HealthFlags::NONE);
                    degraded = true;
                }
                Event::Restore(index) => {
                    state(index).change_flags(HealthFlags::NONE, HealthFlags::DEGRADED_EDS_HEALTH);
                }
                Event::Move(index, priority) => {
                    let index = index % cluster.hosts.len();
                    cluster.move_to(index, priority);
                }
                Event::Publish => {}
            }
            if matches!(event, Event::Move(..) | Event::Publish) {
                scheduler.refresh(cluster.published());
                let down = |host: &&Arc<Host>| host.health() == Health::Unhealthy;
                failed = cluster.hosts.iter().filter(down).map(|host| host.id()).collect();
            }
            for (n, hash) in hashes.iter().enumerate() {
                let version = (around == Around::Subsets).then_some(VERSIONS[n % 2]);
                let metadata = version.map(|version| MetadataMatch::default().overridden(&json!({"version": version})));
                let first = cluster.hosts[0].id();
                let first = move |host: &Host| host.id() == first;
                let context = PickContext {
                    hash: Some(*hash),
                    metadata: metadata.as_ref(),
                    local: (around == Around::Zones).then_some(&locals),
                    avoid: avoid.then_some(&first),
                    max_attempts: 3,
                    ..PickContext::default()
                };
                let wanted = |host: &Arc<Host>| {
                    version.is_none_or(|version| {
                        host.attributes().metadata.as_ref().is_some_and(|all| all["envoy.lb"]["version"] == version)
                    })
                };
                // Those that were well when they were published, and ever since.
                let well = |host: &&Arc<Host>| wanted(host) && !failed.contains(&host.id());
                let eligible: Vec<u64> = cluster.hosts.iter().filter(well).map(|host| host.id()).collect();
                if ahead {
                    scheduler.foresee(&context);
                }
                match scheduler.pick(&context) {
                    Some(picked) => prop_assert!(
                        picked.health() != Health::Unhealthy && wanted(&picked),
                        "{} is down, {eligible:?} are not", picked.id()
                    ),
                    None => prop_assert!((misses_degraded && degraded) || eligible.is_empty(), "nobody is picked, though {eligible:?} are well"),
                }
            }
        }
    }

    #[test]
    fn weights_are_honoured(
        weights in prop::collection::vec(1_u32..20, 2..10),
        policy_of in prop::sample::select(vec![
            LbPolicy::RoundRobin,
            LbPolicy::LeastRequest(LeastRequest::default()),
            LbPolicy::RingHash(RingHash { minimum_size: 8192, ..RingHash::default() }),
            LbPolicy::Maglev(Maglev::default()),
        ]),
        seed in any::<u64>(),
    ) {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let random = policy_of.hashes() || (equal && policy_of != LbPolicy::RoundRobin);
        let mut scheduler = Scheduler::new(policy(policy_of), weighted(&weights), 2, fastrand::Rng::with_seed(seed));
        let count = 2000;
        let counts = counts(&picks(&mut scheduler, count));
        let total: u32 = weights.iter().sum();
        for (n, weight) in (1_u8..).zip(&weights) {
            let share = f64::from(*weight) / f64::from(total);
            let expected = share * 2000.0;
            // Turns are exact but for where they begin: a host is at most one from its share at any time, and so is each
            // of the others, whose turns it has or lacks by its share. Random ones lie within six standard deviations,
            // and a ring is only so even.
            let turns = 2.0 + share * f64::from(u32::try_from(weights.len()).unwrap());
            let deviation = if random { 6.0 * (expected * (1.0 - share)).sqrt() + 0.15 * expected } else { turns };
            let got = f64::from(u32::try_from(counts.get(&n).copied().unwrap_or(0)).unwrap());
            prop_assert!((got - expected).abs() <= deviation, "{} of {} for {:?}: {:?}", got, expected, weights, counts);
        }
    }
}

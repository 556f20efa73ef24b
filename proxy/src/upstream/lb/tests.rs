mod properties;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::config::cluster::{LeastRequest, Maglev, RingHash, SlowStart};
use crate::upstream::host::tests::host;
use crate::upstream::host::{HealthFlags, Locality, PriorityHosts};

fn config(change: impl FnOnce(&mut LbConfig)) -> Arc<LbConfig> {
    let mut config = LbConfig::default();
    change(&mut config);
    Arc::new(config)
}

fn policy(policy: LbPolicy) -> Arc<LbConfig> {
    config(|config| config.policy = policy)
}

fn weighted(weights: &[u32]) -> Arc<HostSet> {
    let locality = Arc::default();
    Arc::new(HostSet::single((1..).zip(weights).map(|(n, &weight)| host(n, weight, 0, &locality)).collect()))
}

/// `(healthy, degraded, unhealthy)` hosts per priority.
fn levels(levels: &[(u8, u8, u8)]) -> HostSet {
    let locality = Arc::new(Locality::default());
    let mut n = 0;
    let mut make = |count: u8, priority: u32, flags: HealthFlags| -> Vec<Arc<Host>> {
        let made: Vec<_> = (0..count).map(|i| host(n + i, 1, priority, &locality)).collect();
        n += count;
        for host in &made {
            host.state().change_flags(flags, HealthFlags::NONE);
        }
        made
    };
    let priorities = (0..).zip(levels).map(|(priority, &(healthy, degraded, unhealthy))| {
        let mut hosts = make(healthy, priority, HealthFlags::NONE);
        hosts.extend(make(degraded, priority, HealthFlags::DEGRADED_EDS_HEALTH));
        hosts.extend(make(unhealthy, priority, HealthFlags::FAILED_EDS_HEALTH));
        PriorityHosts::new(vec![(Arc::default(), 0, hosts)])
    });
    HostSet { priorities: priorities.collect(), ..HostSet::empty() }
}

fn scheduler(config: Arc<LbConfig>, hosts: Arc<HostSet>) -> Scheduler {
    Scheduler::new(config, hosts, 2, fastrand::Rng::with_seed(7))
}

fn last_byte(host: &Host) -> u8 {
    match host.address().ip() {
        Some(SocketAddr::V4(ip)) => ip.ip().octets()[3],
        other => panic!("{other:?} is not a test host"),
    }
}

fn picks(scheduler: &mut Scheduler, count: usize) -> Vec<u8> {
    (0..count).filter_map(|_| scheduler.pick(&PickContext::default())).map(|host| last_byte(&host)).collect()
}

fn counts(picks: &[u8]) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for pick in picks {
        *counts.entry(*pick).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_turns_by_weight_as_envoy_does() {
    let mut scheduler = scheduler(policy(LbPolicy::RoundRobin), weighted(&[1, 2, 3]));
    let round: String = picks(&mut scheduler, 12).iter().map(ToString::to_string).collect();
    assert!("323123323123323123".contains(&round), "{round}");
}

#[test]
fn equal_weights_rotate_from_a_random_start_and_go_on_after_an_update() {
    let config = policy(LbPolicy::RoundRobin);
    let hosts = weighted(&[5, 5, 5]);
    let mut one = scheduler(config.clone(), hosts.clone());
    let first = picks(&mut one, 3);
    assert_eq!(counts(&first), BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    one.refresh(hosts.clone());
    assert_eq!(picks(&mut one, 1)[0], first[0], "an update does not restart the rotation");
    let starts: std::collections::BTreeSet<u8> = (0..50)
        .map(|seed| picks(&mut Scheduler::new(config.clone(), hosts.clone(), 2, fastrand::Rng::with_seed(seed)), 1)[0])
        .collect();
    assert_eq!(starts.len(), 3);
}

#[test]
fn random_ignores_weights() {
    let mut scheduler = scheduler(policy(LbPolicy::Random), weighted(&[1, 1000]));
    let counts = counts(&picks(&mut scheduler, 1000));
    assert!((400..600).contains(&counts[&1]), "{counts:?}");
}

#[test]
fn least_request_takes_the_less_loaded_of_two() {
    let hosts = weighted(&[1, 1]);
    let mut scheduler = scheduler(policy(LbPolicy::LeastRequest(LeastRequest::default())), hosts.clone());
    let _busy = hosts.priorities[0].hosts[0].state().begin_request();
    // The busy one is only chosen when both random choices fall on it: a quarter of the time.
    let counts = counts(&picks(&mut scheduler, 1000));
    assert!((180..320).contains(&counts[&1]), "{counts:?}");
}

#[test]
fn least_request_by_full_scan_never_takes_a_busier_host() {
    let hosts = weighted(&[1, 1, 1]);
    let tuning = LeastRequest { full_scan: true, ..LeastRequest::default() };
    let mut scheduler = scheduler(policy(LbPolicy::LeastRequest(tuning)), hosts.clone());
    let _busy = hosts.priorities[0].hosts[1].state().begin_request();
    let counts = counts(&picks(&mut scheduler, 300));
    assert_eq!(counts.get(&2), None);
    assert!(counts[&1] > 100 && counts[&3] > 100, "{counts:?}");
}

#[test]
fn least_request_with_weights_divides_them_by_load() {
    let hosts = weighted(&[1, 2, 3]);
    let mut idle = scheduler(policy(LbPolicy::LeastRequest(LeastRequest::default())), hosts.clone());
    assert_eq!(counts(&picks(&mut idle, 60)), BTreeMap::from([(1, 10), (2, 20), (3, 30)]), "idle: by weight");

    let _busy: Vec<_> = (0..2).map(|_| hosts.priorities[0].hosts[2].state().begin_request()).collect();
    let mut loaded = scheduler(policy(LbPolicy::LeastRequest(LeastRequest::default())), hosts.clone());
    let shares = counts(&picks(&mut loaded, 400));
    assert!((shares[&1]).abs_diff(shares[&3]) <= 2, "3 / (2 + 1) is as much as 1: {shares:?}");

    let tuning = LeastRequest { active_request_bias: 0.0, ..LeastRequest::default() };
    let mut unbiased = scheduler(policy(LbPolicy::LeastRequest(tuning)), hosts);
    assert_eq!(counts(&picks(&mut unbiased, 60))[&3], 30, "a bias of 0 ignores load");
}

#[test]
fn loads_follow_health_by_priority() {
    let lb = &config(|_| {});
    // (per priority: healthy, degraded, unhealthy) -> percent per priority of healthy hosts, of degraded hosts.
    type Row = (&'static [(u8, u8, u8)], &'static [u32], &'static [u32]);
    let table: [Row; 8] = [
        (&[(10, 0, 0), (10, 0, 0)], &[100, 0], &[0, 0]),
        (&[(8, 0, 2), (10, 0, 0)], &[100, 0], &[0, 0]),
        (&[(5, 0, 5), (10, 0, 0)], &[70, 30], &[0, 0]),
        (&[(0, 0, 10), (10, 0, 0)], &[0, 100], &[0, 0]),
        (&[(5, 5, 0)], &[70], &[30]),
        (&[(0, 10, 0), (10, 0, 0)], &[0, 100], &[0, 0]),
        (&[(3, 0, 1), (1, 0, 4)], &[100, 0], &[0, 0]),
        // 20 % * 1.4 = 28 and 28: normalised to a half each.
        (&[(2, 0, 8), (2, 0, 8)], &[50, 50], &[0, 0]),
    ];
    for (hosts, healthy, degraded) in table {
        let loads = PriorityLoads::new(&levels(hosts), lb);
        let mut seen = (vec![0; hosts.len()], vec![0; hosts.len()]);
        for point in 0..100 {
            match loads.choose(point) {
                (priority, Availability::Degraded) => seen.1[priority] += 1,
                (priority, Availability::Healthy | Availability::Panic) => seen.0[priority] += 1,
            }
        }
        assert_eq!((seen.0.as_slice(), seen.1.as_slice()), (healthy, degraded), "{hosts:?}");
    }
}

#[test]
fn too_few_healthy_hosts_mean_panic_in_which_all_are_used() {
    let hosts = Arc::new(levels(&[(1, 0, 3)]));
    let mut panicking = scheduler(policy(LbPolicy::RoundRobin), hosts.clone());
    assert_eq!(counts(&picks(&mut panicking, 40)).len(), 4);
    assert!(panicking.in_panic());

    let mut never = scheduler(config(|config| config.healthy_panic_threshold = 0), hosts.clone());
    assert_eq!(counts(&picks(&mut never, 40)).len(), 1);
    assert!(!never.in_panic());

    let mut failing = scheduler(config(|config| config.zone_aware.fail_traffic_on_panic = true), hosts);
    assert!(failing.pick(&PickContext::default()).is_none());
    assert!(failing.in_panic());
}

#[test]
fn a_set_may_be_chosen_from_otherwise_than_usual() {
    let with_threshold = |threshold| config(move |config| config.healthy_panic_threshold = threshold);
    for lb in [policy(LbPolicy::RoundRobin), policy(LbPolicy::RingHash(RingHash::default()))] {
        let tuned = |threshold: u32| {
            let hosts = Arc::new(levels(&[(1, 0, 3)]));
            hosts.tune(Arc::new(LbConfig { healthy_panic_threshold: threshold, ..(*lb).clone() }));
            hosts
        };
        let mut scheduler = scheduler(lb.clone(), tuned(0));
        assert_eq!(counts(&picks(&mut scheduler, 100)).len(), 1, "{lb:?}");
        scheduler.refresh(Arc::new(levels(&[(1, 0, 3)])));
        assert_eq!(counts(&picks(&mut scheduler, 100)).len(), 4, "the next set is as usual again: {lb:?}");
        scheduler.refresh(tuned(0));
        assert_eq!(counts(&picks(&mut scheduler, 100)).len(), 1, "{lb:?}");
    }
    // Divided anew for a change of health, the hosts are still chosen from in the same way.
    let hosts = Arc::new(levels(&[(2, 0, 2)]));
    hosts.tune(with_threshold(0));
    let mut scheduler = scheduler(policy(LbPolicy::RoundRobin), hosts.clone());
    hosts.priorities[0].hosts[0].state().change_flags(HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::NONE);
    assert_eq!(counts(&picks(&mut scheduler, 20)), BTreeMap::from([(1, 20)]));
}

#[test]
fn nobody_to_choose_is_none() {
    let mut empty = scheduler(policy(LbPolicy::RoundRobin), Arc::new(HostSet::empty()));
    assert!(empty.pick(&PickContext::default()).is_none());
    let unhealthy = Arc::new(levels(&[(0, 0, 2)]));
    let mut minding = scheduler(config(|config| config.healthy_panic_threshold = 0), unhealthy);
    assert!(minding.pick(&PickContext::default()).is_none());
}

#[test]
fn a_host_that_failed_since_is_not_chosen() {
    let hosts = Arc::new(levels(&[(4, 0, 0)]));
    let mut scheduler = scheduler(policy(LbPolicy::RoundRobin), hosts.clone());
    assert_eq!(counts(&picks(&mut scheduler, 8)).len(), 4);
    hosts.priorities[0].hosts[2].state().change_flags(HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::NONE);
    let counts = counts(&picks(&mut scheduler, 30));
    assert_eq!(counts.get(&2), None, "{counts:?}");
    assert_eq!(counts.len(), 3);
}

#[test]
fn hosts_tried_before_are_avoided_while_others_can_be_had() {
    let mut scheduler = scheduler(policy(LbPolicy::RoundRobin), weighted(&[1, 1]));
    let avoid = |host: &Host| last_byte(host) == 1;
    let context = PickContext { avoid: Some(&avoid), max_attempts: 3, ..PickContext::default() };
    for _ in 0..10 {
        assert_eq!(last_byte(&scheduler.pick(&context).unwrap()), 2);
    }
    let all = |_: &Host| true;
    let context = PickContext { avoid: Some(&all), max_attempts: 3, ..PickContext::default() };
    assert!(scheduler.pick(&context).is_some(), "rather one tried before than none");
}

#[test]
fn localities_share_by_weight_and_by_the_health_of_their_hosts() {
    let locality = |zone: &str| Arc::new(Locality { zone: zone.to_owned(), ..Locality::default() });
    let (a, b, c) = (locality("a"), locality("b"), locality("c"));
    let hosts: Vec<_> = (1..=6).map(|n| host(n, 1, 0, &a)).collect();
    // Half of b is down: 0.5 * 1.4 = 0.7 of its weight. c has no weight.
    hosts[2].state().change_flags(HealthFlags::FAILED_EDS_HEALTH, HealthFlags::NONE);
    let localities = vec![(a, 3, hosts[..2].to_vec()), (b, 10, hosts[2..4].to_vec()), (c, 0, hosts[4..].to_vec())];
    let set = HostSet { priorities: Box::new([PriorityHosts::new(localities)]), ..HostSet::empty() };
    let mut scheduler = scheduler(config(|config| config.locality_weighted = true), Arc::new(set));
    let counts = counts(&picks(&mut scheduler, 1000));
    assert!([3, 5, 6].iter().all(|n| !counts.contains_key(n)), "{counts:?}");
    assert!(counts[&4].abs_diff(700) <= 2 && (counts[&1] + counts[&2]).abs_diff(300) <= 2, "{counts:?}");
}

#[test]
fn an_original_dst_cluster_goes_where_the_request_was_going() {
    let config = config(|config| config.policy = LbPolicy::ClusterProvided);
    let mut scheduler = scheduler(config, Arc::new(HostSet::empty()));
    assert!(scheduler.pick(&PickContext::default()).is_none(), "no destination");
    let destination = Some("192.0.2.1:8080".parse().unwrap());
    let picked = scheduler.pick(&PickContext { destination, ..PickContext::default() }).unwrap();
    assert_eq!(picked.address().ip(), destination);
    assert_eq!(scheduler.take_created().len(), 1);
}

thread_local! {
    /// What [`clock`] is ahead of the time the tests began.
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn clock() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + AHEAD.get()
}

#[test]
fn a_host_that_just_came_takes_a_growing_part_of_its_share() {
    let slow_start = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight: 0.1 };
    for policy in [LbPolicy::RoundRobin, LbPolicy::LeastRequest(LeastRequest::default())] {
        AHEAD.set(Duration::from_secs(100));
        let hosts = weighted(&[1, 1]);
        hosts.priorities[0].hosts[0].state().mark_healthy(clock() - Duration::from_secs(60));
        hosts.priorities[0].hosts[1].state().mark_healthy(clock());
        let config = config(|config| {
            config.policy = policy;
            config.slow_start = Some(slow_start.clone());
        });
        let mut scheduler = scheduler(config, hosts.clone());
        scheduler.clock = clock;
        scheduler.refresh(hosts);
        // Of (new, old) requests: 0.1 to 1 at first, then 0.5 to 1, then as many.
        for (after, expected) in [(0, 9..=11), (5, 32..=35), (11, 49..=51)] {
            AHEAD.set(Duration::from_secs(100 + after));
            // The weight of a host counts from its next turn on.
            picks(&mut scheduler, 12);
            let new = counts(&picks(&mut scheduler, 100))[&2];
            assert!(expected.contains(&new), "after {after} s: {new} of 100");
        }
    }
}

#[test]
fn what_is_in_slow_start_is_a_matter_of_the_moment_its_hosts_got_well() {
    let hosts = weighted(&[1, 1, 1]);
    AHEAD.set(Duration::from_secs(1000));
    for host in hosts.hosts() {
        host.state().mark_healthy(clock() - Duration::from_secs(60));
    }
    let slow_start = SlowStart { window: Duration::from_secs(10), aggression: 2.0, min_weight: 0.1 };
    let mut scheduler = scheduler(config(|config| config.slow_start = Some(slow_start)), hosts.clone());
    scheduler.clock = clock;
    scheduler.refresh(hosts.clone());
    assert_eq!(counts(&picks(&mut scheduler, 30)), BTreeMap::from([(1, 10), (2, 10), (3, 10)]));

    // A quarter of the window: the square root of a quarter is a half.
    hosts.priorities[0].hosts[0].state().mark_healthy(clock() - Duration::from_millis(2500));
    scheduler.refresh(hosts);
    let counts = counts(&picks(&mut scheduler, 100));
    assert!((19..=21).contains(&counts[&1]), "{counts:?}");
}

fn hashed(hash: u64) -> PickContext<'static> {
    PickContext { hash: Some(hash), ..PickContext::default() }
}

fn hash_policies() -> [LbPolicy; 2] {
    [LbPolicy::RingHash(RingHash::default()), LbPolicy::Maglev(Maglev { table_size: 251, ..Maglev::default() })]
}

#[test]
fn the_same_hash_finds_the_same_host_and_none_finds_any() {
    for policy_of in hash_policies() {
        let hosts = weighted(&[1, 1, 1]);
        let (mut one, mut two) =
            (scheduler(policy(policy_of.clone()), hosts.clone()), scheduler(policy(policy_of), hosts));
        for hash in (0..200_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let first = one.pick(&hashed(hash)).unwrap().id();
            assert_eq!(one.pick(&hashed(hash)).unwrap().id(), first);
            assert_eq!(two.pick(&hashed(hash)).unwrap().id(), first, "workers agree");
        }
        assert_eq!(counts(&picks(&mut one, 200)).len(), 3);
    }
}

#[test]
fn workers_share_one_table() {
    let hosts = weighted(&[1, 1, 1]);
    let config = policy(LbPolicy::Maglev(Maglev::default()));
    hosts.prepare(&config);
    let built = hosts.tables(&config).as_ptr();
    let mut scheduler = scheduler(config.clone(), hosts);
    scheduler.pick(&hashed(1));
    assert_eq!(scheduler.hosts().tables(&config).as_ptr(), built);
}

#[test]
fn a_hash_meets_no_host_that_failed_since_and_comes_back_to_it() {
    for policy_of in hash_policies() {
        let hosts = Arc::new(levels(&[(5, 0, 0)]));
        let mut scheduler = scheduler(policy(policy_of), hosts.clone());
        let before: Vec<u64> = (0..100_u64).map(|n| scheduler.pick(&hashed(n << 57)).unwrap().id()).collect();
        let failed = &hosts.priorities[0].hosts[1];
        failed.state().change_flags(HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::NONE);
        for (n, before) in (0..).zip(&before) {
            let now = scheduler.pick(&hashed(n << 57)).unwrap().id();
            assert!(if *before == failed.id() { now != *before } else { now == *before }, "only its own keys move");
        }
        failed.state().change_flags(HealthFlags::NONE, HealthFlags::FAILED_OUTLIER_CHECK);
        let after: Vec<u64> = (0..100_u64).map(|n| scheduler.pick(&hashed(n << 57)).unwrap().id()).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn hosts_to_avoid_are_avoided_by_hash_too() {
    for policy_of in hash_policies() {
        let mut scheduler = scheduler(policy(policy_of), weighted(&[1, 1, 1]));
        for n in 0..50_u64 {
            let tried = scheduler.pick(&hashed(n << 58)).unwrap().id();
            let avoid = |host: &Host| host.id() == tried;
            let context = PickContext { avoid: Some(&avoid), max_attempts: 20, ..hashed(n << 58) };
            assert_ne!(scheduler.pick(&context).unwrap().id(), tried);
        }
    }
}

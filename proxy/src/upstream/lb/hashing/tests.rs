use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::config::cluster::Hashing;
use crate::upstream::host::tests::host;
use crate::upstream::host::{HealthFlags, Locality};

fn config(policy: LbPolicy, locality_weighted: bool) -> LbConfig {
    LbConfig { policy, locality_weighted, ..LbConfig::default() }
}

fn ring_hash() -> LbPolicy {
    LbPolicy::RingHash(RingHash::default())
}

fn small_maglev() -> LbPolicy {
    LbPolicy::Maglev(Maglev { table_size: 251, ..Maglev::default() })
}

fn level(weights: &[u32]) -> PriorityHosts {
    let hosts = (1..).zip(weights).map(|(n, weight)| host(n, *weight, 0, &Arc::default())).collect();
    PriorityHosts::new(vec![(Arc::default(), 0, hosts)])
}

fn table(level: &PriorityHosts, policy: LbPolicy) -> HashTable {
    HashTable::build(level, false, &config(policy, false)).unwrap()
}

fn chosen(table: &HashTable, hash: u64) -> u64 {
    table.choose(hash, 0, || 0).unwrap().id()
}

#[test]
fn the_ring_has_envoys_size_and_spread() {
    // Measured on Envoy 1.40.
    for (weights, expected) in [
        (&[1, 1, 1][..], Spread { size: 1026, min_per_host: 342, max_per_host: 342 }),
        (&[1, 2, 3], Spread { size: 1026, min_per_host: 171, max_per_host: 513 }),
        (&[1], Spread { size: 1024, min_per_host: 1024, max_per_host: 1024 }),
    ] {
        assert_eq!(table(&level(weights), ring_hash()).spread(), Some(expected), "{weights:?}");
    }
    let policy = RingHash { minimum_size: 4, maximum_size: 6, ..RingHash::default() };
    let small = table(&level(&[1, 1, 1, 1]), LbPolicy::RingHash(policy));
    assert_eq!(small.spread(), Some(Spread { size: 4, min_per_host: 1, max_per_host: 1 }));
    let policy = RingHash { minimum_size: 6, maximum_size: 6, ..RingHash::default() };
    let uneven = table(&level(&[1, 1, 1, 1]), LbPolicy::RingHash(policy));
    assert_eq!(uneven.spread(), Some(Spread { size: 6, min_per_host: 1, max_per_host: 2 }), "1.5 each");
}

#[test]
fn maglev_has_envoys_spread() {
    let spread = table(&level(&[1, 1, 1]), LbPolicy::Maglev(Maglev::default())).spread();
    assert_eq!(spread, Some(Spread { size: 65537, min_per_host: 21845, max_per_host: 21846 }));
    let one = table(&level(&[7]), LbPolicy::Maglev(Maglev::default()));
    assert_eq!(one.spread(), Some(Spread { size: 1, min_per_host: 1, max_per_host: 1 }));
    assert!(one.choose(u64::MAX, 3, || 0).is_some());
}

#[test]
fn nobody_to_choose_is_none() {
    for policy in [ring_hash(), small_maglev()] {
        let empty = table(&level(&[]), policy);
        assert!(empty.choose(7, 0, || 0).is_none());
        assert!(empty.choose_where(7, |_| true).is_none());
        assert_eq!(empty.spread(), None);
    }
}

#[test]
fn shares_follow_weights() {
    for policy in [ring_hash(), small_maglev()] {
        let level = level(&[1, 2, 3]);
        let table = table(&level, policy);
        let mut counts = BTreeMap::new();
        for n in 0..6000_u32 {
            *counts.entry(chosen(&table, xxh64(&n.to_le_bytes(), 0))).or_insert(0_u32) += 1;
        }
        for (host, share) in level.hosts.iter().zip([1000_u32, 2000, 3000]) {
            assert!(counts[&host.id()].abs_diff(share) < 400, "{counts:?}");
        }
    }
}

#[test]
fn a_host_that_leaves_takes_only_its_own_keys_along() {
    let all = level(&[1, 1, 1, 1, 1]);
    let rest: Vec<_> = all.hosts.iter().filter(|host| host.id() != all.hosts[2].id()).cloned().collect();
    let rest = PriorityHosts::new(vec![(Arc::default(), 0, rest)]);
    // With fewer hosts each stands at more points of the ring; Maglev moves less. Of 1600 keys of others, that is.
    for (policy, allowed) in [(ring_hash(), 320), (LbPolicy::Maglev(Maglev::default()), 160)] {
        let (before, after) = (table(&all, policy.clone()), table(&rest, policy));
        let hashes = || (0..2000_u32).map(|n| xxh64(&n.to_le_bytes(), 0));
        let moved = hashes().filter(|&hash| {
            let before = chosen(&before, hash);
            before != all.hosts[2].id() && before != chosen(&after, hash)
        });
        let moved = moved.count();
        assert!(moved <= allowed, "{moved} keys moved");
    }
}

#[test]
fn localities_share_by_weight_and_those_without_get_nothing() {
    let locality = |zone: &str| Arc::new(Locality { zone: zone.to_owned(), ..Locality::default() });
    let hosts: Vec<_> = (1..=5).map(|n| host(n, 1, 0, &Arc::default())).collect();
    let level = PriorityHosts::new(vec![
        (locality("a"), 1, hosts[..1].to_vec()),
        (locality("b"), 3, hosts[1..3].to_vec()),
        (locality("c"), 0, hosts[3..].to_vec()),
    ]);
    let table = HashTable::build(&level, false, &config(ring_hash(), true)).unwrap();
    let shares: Vec<f64> = table.hosts.iter().map(|(_, share)| *share).collect();
    assert_eq!(shares, [0.25, 0.375, 0.375]);
    let none = PriorityHosts::new(vec![(locality("a"), 0, hosts)]);
    let none = HashTable::build(&none, false, &config(ring_hash(), true)).unwrap();
    assert!(none.choose(1, 0, || 0).is_none(), "no locality has weight: nobody is chosen, as in Envoy");
}

#[test]
fn panic_takes_all_and_else_only_the_healthy() {
    let hosts: Vec<_> = (1..=4).map(|n| host(n, 1, 0, &Arc::default())).collect();
    hosts[0].state().change_flags(HealthFlags::FAILED_EDS_HEALTH, HealthFlags::NONE);
    hosts[1].state().change_flags(HealthFlags::DEGRADED_EDS_HEALTH, HealthFlags::NONE);
    let level = PriorityHosts::new(vec![(Arc::default(), 0, hosts)]);
    let count = |in_panic| {
        let table = HashTable::build(&level, in_panic, &config(small_maglev(), false)).unwrap();
        (0..1000_u32).map(|n| chosen(&table, xxh64(&n.to_le_bytes(), 0))).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((count(true), count(false)), (4, 2));
}

#[test]
fn hosts_are_hashed_by_key_name_or_address() {
    let mut attributes = host(1, 1, 0, &Arc::default()).attributes().clone();
    attributes.hostname = "a.example".into();
    let of = |attributes: &crate::upstream::host::HostAttributes, use_hostname| {
        let state = Arc::new(crate::upstream::host::HostState::new(1));
        key(&Host::new(attributes.clone(), state), use_hostname)
    };
    assert_eq!(of(&attributes, false), "10.0.0.1:80");
    assert_eq!(of(&attributes, true), "a.example");
    let metadata = |key: serde_json::Value| {
        let serde_json::Value::Object(map) = serde_json::json!({"envoy.lb": {"hash_key": key}}) else { unreachable!() };
        Some(Arc::new(map))
    };
    attributes.metadata = metadata("k".into());
    assert_eq!(of(&attributes, true), "k");
    attributes.metadata = metadata(1.into());
    assert_eq!(of(&attributes, false), "10.0.0.1:80", "only text is a key");
}

#[test]
fn another_attempt_comes_to_another_host() {
    for policy in [ring_hash(), small_maglev()] {
        let level = level(&[1, 1, 1, 1]);
        let table = table(&level, policy);
        for n in 0..100_u32 {
            let hash = xxh64(&n.to_le_bytes(), 0);
            let first = chosen(&table, hash);
            let others: BTreeSet<u64> =
                (1..30).filter_map(|attempt| table.choose(hash, attempt, || 0)).map(|host| host.id()).collect();
            assert_eq!(others.len(), 4);
            let other = table.choose_where(hash, |host| host.id() != first).unwrap();
            assert_ne!(other.id(), first);
        }
        assert!(table.choose_where(3, |_| false).is_none());
        let last = level.hosts[3].id();
        assert_eq!(table.choose_where(3, |host| host.id() == last).unwrap().id(), last, "even if no attempt finds it");
    }
}

#[test]
fn bounded_loads_pass_over_a_busy_host() {
    let hashing = Hashing { balance_factor: 100, ..Hashing::default() };
    let policy = LbPolicy::Maglev(Maglev { hashing, ..Maglev::default() });
    let level = level(&[1, 1, 1]);
    let table = table(&level, policy);
    let first = table.choose(11, 0, || 0).unwrap().clone();
    let busy: Vec<_> = (0..4).map(|_| first.state().begin_request()).collect();
    assert_ne!(table.choose(11, 0, || 4).unwrap().id(), first.id());
    drop(busy);
    assert_eq!(table.choose(11, 0, || 0).unwrap().id(), first.id());
}

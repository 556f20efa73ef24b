//! Load balancing: what one pick costs, and what building a schedule does.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use filters::stream_info::Address;
use legate::config::cluster::{CircuitBreakers, LbConfig, LbPolicy, LeastRequest, Maglev, RingHash};
use legate::upstream::breaker::{BreakerHandle, Breakers, Priority, Resource};
use legate::upstream::host::{Host, HostAttributes, HostSet, HostState};
use legate::upstream::lb::{PickContext, Scheduler};

fn hosts(count: u16, weight: impl Fn(u16) -> u32) -> Arc<HostSet> {
    let host = |n: u16| {
        let attributes = HostAttributes {
            address: Arc::new(Address::Ip(SocketAddr::from(([127, 0, 0, 1], 1 + n)))),
            additional_addresses: Arc::default(),
            hostname: Arc::default(),
            weight: weight(n),
            locality: Arc::default(),
            priority: 0,
            metadata: None,
            tlvs: None,
            canary: false,
            check: None,
        };
        Arc::new(Host::new(attributes, Arc::new(HostState::new(1))))
    };
    Arc::new(HostSet::single((0..count).map(host).collect()))
}

fn config(policy: LbPolicy) -> Arc<LbConfig> {
    Arc::new(LbConfig { policy, ..LbConfig::default() })
}

fn picks(c: &mut Criterion) {
    let least_request = || LbPolicy::LeastRequest(LeastRequest::default());
    for count in [1, 10, 1000] {
        for (name, policy, weighted) in [
            ("round_robin", LbPolicy::RoundRobin, false),
            ("round_robin_weighted", LbPolicy::RoundRobin, true),
            ("least_request", least_request(), false),
            ("least_request_weighted", least_request(), true),
            ("random", LbPolicy::Random, false),
            ("ring_hash", LbPolicy::RingHash(RingHash::default()), false),
            ("maglev", LbPolicy::Maglev(Maglev::default()), false),
        ] {
            let set = hosts(count, |n| if weighted { u32::from(n % 7) + 1 } else { 1 });
            let mut scheduler = Scheduler::new(config(policy), set, 1, fastrand::Rng::with_seed(1));
            let context = PickContext::default();
            c.bench_function(&format!("pick/{name}/{count}"), |b| b.iter(|| scheduler.pick(black_box(&context))));
        }
    }
}

fn refresh(c: &mut Criterion) {
    let set = hosts(1000, |n| u32::from(n % 7) + 1);
    let mut scheduler = Scheduler::new(config(LbPolicy::RoundRobin), set.clone(), 1, fastrand::Rng::with_seed(1));
    c.bench_function("refresh_and_pick/round_robin_weighted/1000", |b| {
        b.iter(|| {
            scheduler.refresh(set.clone());
            scheduler.pick(&PickContext::default())
        });
    });
}

fn breakers(c: &mut Criterion) {
    let handle = BreakerHandle::new(Arc::new(Breakers::new(&CircuitBreakers::default())));
    c.bench_function("breaker/request", |b| b.iter(|| handle.try_acquire(Priority::Default, Resource::Requests)));
    c.bench_function("breaker/unlimited", |b| {
        b.iter(|| handle.try_acquire(Priority::Default, Resource::ConnectionPools));
    });
}

criterion_group!(benches, picks, refresh, breakers);
criterion_main!(benches);

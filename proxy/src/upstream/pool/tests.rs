//! Whatever happens to requests, connections and hosts, in whatever order: no limit is exceeded beyond the one connection
//! that an empty pool may have, nobody is forgotten in line, and in the end nothing is left.
//!
//! Pools, breakers and codecs are the real ones, over loopback sockets; time is the test's. A scenario is a number: the
//! limits, what happens when, and how hosts answer follow from it. `SEED=n` runs one of them alone.

mod host;
mod requests;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use filters::config::Session;

use self::host::{Kind, TestHost};
use super::*;
use crate::config::cluster::{ClusterConfig, Thresholds, UpstreamProtocol};
use crate::upstream::breaker::Breakers;
use crate::upstream::cluster::{Cluster, ClusterShared};
use crate::upstream::host::{HealthFlags, HostSet};
use crate::worker::Worker;
use crate::worker::tests::worker;

const PRIORITIES: [Priority; 2] = [Priority::Default, Priority::High];

/// A cluster, its hosts, and everything that was ever made of it.
struct World {
    worker: Rc<Worker>,
    cluster: Rc<Cluster>,
    limits: [Thresholds; 2],
    per_host: [Option<u32>; 2],
    hosts: Vec<TestHost>,
    /// Every pool that a request was sent to, as long as it lives.
    pools: RefCell<Vec<Weak<Pool>>>,
    /// Requests that have not ended.
    running: Cell<usize>,
    /// Requests that had a response.
    answered: Cell<usize>,
    /// From here on requests are patient, and hosts answer at once.
    calm: Rc<Cell<bool>>,
}

fn on_local_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(test);
}

/// Low limits, so that they are met; now and then there is none.
fn limits(random: &mut fastrand::Rng) -> Thresholds {
    let mut limit = |most: u32| if random.u8(..5) == 0 { 1000 } else { random.u32(..=most) };
    Thresholds {
        max_connections: limit(4),
        max_pending_requests: limit(6),
        max_requests: limit(8),
        max_retries: limit(2),
        max_connection_pools: limit(6),
        ..Thresholds::default()
    }
}

impl World {
    async fn new(random: &mut fastrand::Rng) -> Rc<Self> {
        let worker = worker();
        let proto = proto::Cluster { name: "c".to_owned(), ..Default::default() };
        let mut config = ClusterConfig::parse(Session::default().root(), proto).unwrap();
        let (limits, per_host) =
            ([limits(random), limits(random)], [(); 2].map(|()| random.bool().then(|| random.u32(..3))));
        config.circuit_breakers.default = limits[0].clone();
        config.circuit_breakers.high = limits[1].clone();
        config.circuit_breakers.per_host_max_connections = per_host;
        config.connect_timeout = Duration::from_millis(40);
        config.http.protocol = UpstreamProtocol::UseDownstream;
        config.http.http2.max_concurrent_streams = random.choice([1, 2, 5, 100]).unwrap();
        config.http.common.idle_timeout = random.bool().then_some(Duration::from_millis(60));
        config.http.common.max_connection_duration = random.bool().then_some(Duration::from_millis(150));
        config.http.common.max_requests_per_connection = random.choice([None, Some(1), Some(3)]).unwrap();
        config.preconnect.per_host = random.choice([1.0, 1.0, 1.5, 3.0]).unwrap();
        config.preconnect.predictive = random.choice([1.0, 1.0, 2.0]).unwrap();
        config.pool_per_client = random.bool();
        config.close_on_health_failure = random.bool();
        let calm = Rc::new(Cell::new(false));
        let kinds = [Kind::Serves, Kind::Serves, Kind::Serves, Kind::Refuses, Kind::Silent];
        let mut hosts = Vec::new();
        for kind in kinds {
            hosts.push(TestHost::start(kind, worker.timers(), random.fork(), &calm).await);
        }
        let breakers = Arc::new(Breakers::new(&config.circuit_breakers));
        let shared = ClusterShared::new(Arc::new(config), breakers, worker.store());
        let set = HostSet::single(hosts.iter().map(|host| host.host.clone()).collect());
        let cluster = Cluster::new(ClusterContext::new(&worker, shared, None), Arc::new(set));
        Rc::new(Self {
            worker,
            cluster,
            limits,
            per_host,
            hosts,
            pools: RefCell::default(),
            running: Cell::new(0),
            answered: Cell::new(0),
            calm,
        })
    }

    /// Everything happens that is to happen at this moment.
    async fn settle(&self) {
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&self, time: Duration) {
        self.worker.timers().advance(time);
        self.settle().await;
    }

    fn pools(&self) -> Vec<Rc<Pool>> {
        let mut pools = self.pools.borrow_mut();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.iter().filter_map(Weak::upgrade).collect()
    }

    fn saw(&self, pool: &Rc<Pool>) {
        let mut pools = self.pools.borrow_mut();
        if !pools.iter().any(|known| known.as_ptr() == Rc::as_ptr(pool)) {
            pools.push(Rc::downgrade(pool));
        }
    }

    /// One thing happens.
    fn happen(self: &Rc<Self>, random: &mut fastrand::Rng) {
        match random.u8(..20) {
            0 => self.change_hosts(|_| random.u8(..4) > 0),
            1 => self.change_hosts(|_| true),
            2 => {
                let host = random.choice(&self.hosts).unwrap().host.state();
                let failed = HealthFlags::FAILED_OUTLIER_CHECK;
                if host.flags().contains(failed) {
                    host.change_flags(HealthFlags::NONE, failed);
                } else {
                    host.change_flags(failed, HealthFlags::NONE);
                }
            }
            3 => self.cluster.drain(),
            4 => self.cluster.host_failed(random.choice(&self.hosts).unwrap().host.id()),
            _ => {
                for _ in 0..random.u8(1..4) {
                    requests::send(self, random.fork());
                }
            }
        }
    }

    fn change_hosts(&self, mut keep: impl FnMut(&Host) -> bool) {
        let hosts = self.hosts.iter().map(|host| host.host.clone()).filter(|host| keep(host)).collect();
        self.cluster.set_hosts(Arc::new(HostSet::single(hosts)));
    }

    /// What holds at any moment.
    fn check(&self) {
        let pools = self.pools();
        let context = self.cluster.context();
        let stats = &context.stats;
        let breakers = context.breakers.breakers();
        let used = |priority, resource| breakers.used(priority, resource) as usize;
        for (priority, limits, per_host) in
            (0..2).map(|at| (PRIORITIES[at], &self.limits[at], self.per_host[at].map(|limit| limit as usize)))
        {
            let of = || pools.iter().filter(move |pool| pool.priority == priority);
            let open = |pool: &&Rc<Pool>| pool.state.borrow().open;
            let waiting = |pool: &&Rc<Pool>| pool.state.borrow().waiters.len();
            let (connections, pending): (usize, usize) =
                (of().map(|pool| open(&pool)).sum(), of().map(|pool| waiting(&pool)).sum());
            assert_eq!(used(priority, Resource::Connections), connections, "connections are those of pools");
            assert_eq!(used(priority, Resource::PendingRequests), pending, "who is pending is in line");
            let counted = of().filter(|pool| pool.place.borrow().is_some()).count();
            assert_eq!(used(priority, Resource::ConnectionPools), counted, "pools that count are counted");

            let first_ones = of().filter(|pool| open(pool) > 0).count();
            assert!(
                connections <= limits.max_connections as usize + first_ones,
                "{connections} connections of {first_ones} pools, {} allowed",
                limits.max_connections
            );
            assert!(pending <= limits.max_pending_requests as usize);
            // Layer-4 streams are counted, and not held up.
            let streams = of().filter(|pool| pool.protocol == PoolProtocol::Tcp);
            let streams: usize = streams.map(|pool| open(&pool) - pool.state.borrow().connecting).sum();
            assert!(used(priority, Resource::Requests) <= limits.max_requests as usize + streams);
            assert!(used(priority, Resource::Retries) <= limits.max_retries as usize);
            assert!(counted <= limits.max_connection_pools as usize);
            for host in &self.hosts {
                let at = || of().filter(|pool| pool.host.id() == host.host.id());
                let (all, first_ones): (usize, usize) =
                    (at().map(|pool| open(&pool)).sum(), at().filter(|pool| open(pool) > 0).count());
                // Whatever opened them, all connections to the host count: those for the other priority leave less room.
                if let Some(limit) = per_host {
                    assert!(all <= limit + first_ones, "{all} connections to a host, {limit} allowed");
                }
            }
        }
        let open: usize = pools.iter().map(|pool| pool.state.borrow().open).sum();
        let of_hosts = |value: fn(&crate::upstream::host::HostStats) -> u64| -> u64 {
            self.hosts.iter().map(|host| value(&host.host.state().stats())).sum()
        };
        assert_eq!(stats.upstream_cx_active().value(), open as u64);
        assert_eq!(of_hosts(|stats| stats.cx_active), open as u64);
        let active = PRIORITIES.map(|priority| used(priority, Resource::Requests)).iter().sum::<usize>() as u64;
        assert_eq!(stats.upstream_rq_active().value(), active);
        assert_eq!(of_hosts(|stats| stats.rq_active), active);
        let pending: usize = pools.iter().map(|pool| pool.state.borrow().waiters.len()).sum();
        assert_eq!(stats.upstream_rq_pending_active().value(), pending as u64);
        assert!(pending <= self.running.get(), "who has left is in line");
    }

    /// What holds once everything has happened that can happen without time passing.
    fn check_settled(&self) {
        self.check();
        for pool in self.pools() {
            let mut state = pool.state.borrow_mut();
            if state.waiters.is_empty() {
                continue;
            }
            assert!(state.open > 0, "requests wait, and no connection is there or coming");
            assert!(state.idle.is_empty(), "requests wait beside an idle connection");
            let room = state.multiplexed.iter_mut().any(|connection| connection.has_room());
            assert!(!room, "requests wait beside a connection that has room");
        }
    }

    /// Nothing is open, waits, or is counted.
    fn check_nothing_is_left(&self) {
        self.check();
        assert_eq!(self.running.get(), 0);
        let breakers = self.cluster.context().breakers.breakers();
        for priority in PRIORITIES {
            for resource in Resource::ALL {
                assert_eq!(breakers.used(priority, resource), 0, "{resource} are left");
            }
        }
        let stats = &self.cluster.context().stats;
        let gauges = [stats.upstream_cx_active(), stats.upstream_rq_active(), stats.upstream_rq_pending_active()];
        assert_eq!(gauges.map(stats::Gauge::value), [0; 3]);
        assert!(self.pools().iter().all(|pool| pool.is_unused()));
    }
}

async fn scenario(seed: u64) {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(&mut random).await;
    for _ in 0..80 {
        world.happen(&mut random);
        world.check();
        if random.bool() {
            world.settle().await;
            world.check_settled();
        }
        if random.u8(..3) == 0 {
            world.pass(Duration::from_millis(random.u64(1..40))).await;
            world.check_settled();
        }
    }

    // No more of this; whoever still waits is served, refused, or gives up.
    world.calm.set(true);
    for _ in 0..40 {
        world.pass(Duration::from_millis(50)).await;
        world.check_settled();
    }
    assert_eq!(world.running.get(), 0, "every request comes to its end");

    // One after the other, requests go through: nothing that was left behind is in their way.
    world.change_hosts(|_| true);
    for host in &world.hosts {
        host.host.state().change_flags(HealthFlags::NONE, HealthFlags::FAILED_OUTLIER_CHECK);
    }
    for host in world.hosts.iter().filter(|host| host.kind == Kind::Serves) {
        for protocol in [PoolProtocol::Http1, PoolProtocol::Http2, PoolProtocol::Auto] {
            world.cluster.drain();
            world.pass(Duration::from_millis(1)).await;
            world.check_nothing_is_left();
            let limits = &world.limits[0];
            let allowed = [limits.max_pending_requests, limits.max_requests, limits.max_connection_pools];
            if allowed.iter().all(|limit| *limit > 0) {
                let before = world.answered.get();
                requests::send_to(&world, &host.host, protocol, Priority::Default);
                world.pass(Duration::from_millis(5)).await;
                assert_eq!(world.answered.get(), before + 1, "a request to an idle host is answered");
            }
        }
    }
    world.cluster.drain();
    world.pass(Duration::from_millis(1)).await;
    world.check_nothing_is_left();
}

#[test]
fn limits_hold_and_nothing_is_left_after_any_interleaving() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..60,
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| on_local_runtime(scenario(seed)));
        assert!(run.is_ok(), "SEED={seed} runs it again");
    }
}

//! A worker's view of a cluster: its host set, its scheduler, its pools.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use filters::http::RequestHead;
use filters::stream_info::ConnectionInfo;
use stats::{ComputedHandle, GroupHandle, LazyShard, Store};

use super::aggregate::Aggregate;
use super::breaker::{BreakerHandle, Breakers, Priority};
use super::host::{HealthFlags, Host, HostSet};
use super::lb::subset::SubsetNote;
use super::lb::zone::ZoneNote;
use super::lb::{PickContext, Scheduler};
use super::measure::{Measures, MeasuresShared};
use super::pool::{Pool, PoolProtocol};
use super::responses::ClusterResponses;
use crate::config::cluster::{ClusterConfig, Discovery, UpstreamProtocol};
use crate::config::hcm::{HeaderCase, Underscores};
use crate::http::codec::h1::{ClientOptions, HeaderFormat};
use crate::http::codec::h2::Http2Options;
use crate::observe::catalogue::{ClusterStats, Http1Stats, Http2Stats};
use crate::route::HashPolicy;
use crate::worker::timer::Tick;
use crate::worker::{Report, Worker};

/// One version of a cluster, shared by all workers. Keeps its statistics in the scrape for as long as it lives.
pub struct ClusterShared {
    /// The configuration.
    pub config: Arc<ClusterConfig>,
    stats: Arc<GroupHandle<ClusterStats>>,
    http1: Arc<GroupHandle<Http1Stats>>,
    http2: Option<Arc<GroupHandle<Http2Stats>>>,
    measures: MeasuresShared,
    breakers: Arc<Breakers>,
    _breaker_gauges: Arc<ComputedHandle>,
    /// `upstream.maintenance_mode.<cluster>`, the runtime key that turns requests away.
    maintenance_key: Box<str>,
}

impl ClusterShared {
    /// Registers the cluster's statistics.
    #[must_use]
    pub fn new(config: Arc<ClusterConfig>, breakers: Arc<Breakers>, store: &Arc<Store>) -> Arc<Self> {
        let prefix = format!("cluster.{}.", config.stat_name);
        Arc::new(Self {
            stats: store.group(&prefix),
            http1: store.group_on_first_use(&format!("{prefix}http1.")),
            http2: (config.http.protocol != UpstreamProtocol::Http1)
                .then(|| store.group_on_first_use(&format!("{prefix}http2."))),
            measures: MeasuresShared::new(config.tracking, store, &prefix),
            _breaker_gauges: store.computed(&prefix, &(Arc::clone(&breakers) as _)),
            breakers,
            maintenance_key: format!("upstream.maintenance_mode.{}", config.name).into(),
            config,
        })
    }

    /// The breakers, for gauges and `/clusters`.
    #[must_use]
    pub const fn breakers(&self) -> &Arc<Breakers> {
        &self.breakers
    }

    /// The statistics handle: control writes membership into its own shard.
    #[must_use]
    pub const fn stats(&self) -> &Arc<GroupHandle<ClusterStats>> {
        &self.stats
    }

    /// The statistics of the HTTP/1 codec, shown once it is used.
    #[must_use]
    pub const fn http1_stats(&self) -> &Arc<GroupHandle<Http1Stats>> {
        &self.http1
    }

    /// The statistics of the HTTP/2 codec, if the cluster may speak HTTP/2; shown once it is used.
    #[must_use]
    pub const fn http2_stats(&self) -> Option<&Arc<GroupHandle<Http2Stats>>> {
        self.http2.as_ref()
    }
}

/// What a cluster's pools and attempts share on one worker.
pub struct ClusterContext {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The cluster's configuration.
    pub config: Arc<ClusterConfig>,
    /// This worker's shard of `cluster.<name>.`.
    pub stats: ClusterStats,
    /// This worker's shard of `cluster.<name>.http1.`.
    pub http1_stats: LazyShard<Http1Stats>,
    /// This worker's shard of `cluster.<name>.http2.`.
    pub http2_stats: Option<LazyShard<Http2Stats>>,
    /// Response codes and times: `cluster.<name>.upstream_rq_*` and its variants.
    pub responses: Rc<ClusterResponses>,
    /// What `track_cluster_stats` asks for; `None` if it asks for nothing.
    pub measures: Option<Measures>,
    /// The circuit breakers, shared by all workers.
    pub breakers: BreakerHandle,
    /// How responses are decoded.
    pub h1_options: Rc<ClientOptions>,
    /// How HTTP/2 is spoken.
    pub h2_options: Http2Options,
    shared: Arc<ClusterShared>,
}

impl ClusterContext {
    /// What `worker` needs of `shared`. What was counted under the same name goes on after `previous`, the version before.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, shared: Arc<ClusterShared>, previous: Option<&Self>) -> Rc<Self> {
        let index = worker.index();
        let config = Arc::clone(&shared.config);
        let common = &config.http.common;
        let prefix = format!("cluster.{}.", config.stat_name);
        let responses = previous.map(|previous| &previous.responses).filter(|before| before.prefix() == prefix);
        let responses = responses.map_or_else(|| Rc::new(ClusterResponses::new(prefix)), Rc::clone);
        let max_headers = common.max_response_headers_bytes;
        let h1 = ClientOptions {
            max_headers_bytes: max_headers.map_or(80 << 10, |bytes| bytes as usize),
            max_headers_count: common.max_headers_count as usize,
            allow_chunked_length: config.http.http1.allow_chunked_length,
            enable_trailers: config.http.http1.enable_trailers,
            preserve_case: matches!(config.http.http1.header_case, HeaderCase::Preserve { .. }),
            ..ClientOptions::default()
        };
        let h2 = Http2Options {
            protocol: Arc::new(config.http.http2.clone()),
            max_headers_bytes: max_headers.unwrap_or(60 << 10),
            max_headers_count: common.max_headers_count,
            underscores: Underscores::Allow,
            send_buffer: buffer_limit(&config).min(config.http.http2.initial_stream_window_size as usize),
        };
        Rc::new(Self {
            worker: Rc::clone(worker),
            stats: shared.stats.shard(index),
            http1_stats: shared.http1.lazy_shard(index),
            http2_stats: shared.http2.as_ref().map(|handle| handle.lazy_shard(index)),
            responses,
            measures: shared.measures.shard(index),
            breakers: BreakerHandle::new(Arc::clone(&shared.breakers)),
            h1_options: Rc::new(h1),
            h2_options: h2,
            config,
            shared,
        })
    }

    /// Bytes a connection may buffer.
    #[must_use]
    pub fn buffer_limit(&self) -> usize {
        buffer_limit(&self.config)
    }

    /// When a connection that is made now has lived for as long as it may (`max_connection_duration`).
    #[must_use]
    pub fn expiry(&self) -> Tick {
        let common = &self.config.http.common;
        let Some(duration) = common.max_connection_duration else { return Tick::NEVER };
        let lengthened = duration.mul_f64(1.0 + common.max_connection_duration_jitter * fastrand::f64());
        self.worker.timers().now().after(lengthened)
    }

    /// `upstream.maintenance_mode.<cluster>`
    #[must_use]
    pub fn maintenance_key(&self) -> &str {
        &self.shared.maintenance_key
    }

    /// How header names are spelled to this cluster.
    #[must_use]
    pub fn header_format(&self) -> HeaderFormat<'static> {
        match self.config.http.http1.header_case {
            HeaderCase::Proper => HeaderFormat::ProperCase,
            HeaderCase::Lower | HeaderCase::Preserve { .. } => HeaderFormat::Lower,
        }
    }
}

/// `per_connection_buffer_limit_bytes`; 0 is any number.
fn buffer_limit(config: &ClusterConfig) -> usize {
    match config.per_connection_buffer_limit {
        0 => usize::MAX / 2,
        limit => limit as usize,
    }
}

/// A cluster on one worker.
pub struct Cluster {
    context: Rc<ClusterContext>,
    state: RefCell<State>,
}

struct State {
    hosts: Arc<HostSet>,
    /// Built on the first pick after a change.
    scheduler: Option<Scheduler>,
    pools: foldhash::HashMap<PoolKey, Rc<Pool>>,
    /// Pools that belong to one downstream connection are looked through when there are so many.
    sweep_at: usize,
    /// The members of an aggregate.
    aggregate: Option<Box<Aggregate>>,
}

/// What pools are told apart by: the host, and the downstream connection where that has pools of its own.
type PoolKey = (u64, Priority, PoolProtocol, Option<u64>);

/// Fewer pools than this are not worth looking through for those nobody uses.
const FEW_POOLS: usize = 64;

impl Cluster {
    /// A cluster version with its first host set.
    #[must_use]
    pub fn new(context: Rc<ClusterContext>, hosts: Arc<HostSet>) -> Rc<Self> {
        let aggregate = match &context.config.discovery {
            Discovery::Aggregate(names) => Some(Box::new(Aggregate::new(Arc::clone(names)))),
            _ => None,
        };
        let pools = foldhash::HashMap::default();
        Rc::new(Self {
            context,
            state: RefCell::new(State { hosts, scheduler: None, pools, sweep_at: FEW_POOLS, aggregate }),
        })
    }

    /// What its pools and attempts share.
    #[must_use]
    pub const fn context(&self) -> &Rc<ClusterContext> {
        &self.context
    }

    /// The cluster's configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ClusterConfig> {
        &self.context.config
    }

    /// The current host set.
    #[must_use]
    pub fn hosts(&self) -> Arc<HostSet> {
        Arc::clone(&self.state.borrow().hosts)
    }

    /// Takes a new host set; returns the old one, to be freed elsewhere. Pools of hosts that left or failed are drained, or
    /// all of them if hosts came or went and the cluster says so: idle connections close, requests in flight finish.
    pub fn set_hosts(&self, hosts: Arc<HostSet>) -> Arc<HostSet> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.pools.is_empty() {
            let present: HashSet<u64> = hosts.hosts().map(|host| host.id()).collect();
            let all = self.context.config.lb.close_connections_on_host_set_change
                && present != state.hosts.hosts().map(|host| host.id()).collect::<HashSet<_>>();
            let failed = self.failed(&state.hosts, &hosts);
            state.pools.retain(|(id, ..), pool| {
                let stays = !all && present.contains(id) && !failed.contains(id);
                if !stays {
                    pool.drain();
                }
                stays
            });
        }
        if let Some(scheduler) = &mut state.scheduler {
            scheduler.refresh(Arc::clone(&hosts));
        }
        std::mem::replace(&mut state.hosts, hosts)
    }

    /// Hosts that outlier detection or a health check took out of `after`, which were still in `before`. Their connections
    /// are not kept for later: another one may do better when they are back.
    fn failed(&self, before: &HostSet, after: &HostSet) -> HashSet<u64> {
        let config = &self.context.config;
        if config.outlier_detection.is_none() && config.health_check.is_none() {
            return HashSet::new();
        }
        let was_well: HashSet<u64> = before.available().map(|host| host.id()).collect();
        let is_well: HashSet<u64> = after.available().map(|host| host.id()).collect();
        let failed = |host: &&Arc<Host>| {
            let flags = host.state().flags();
            (flags.contains(HealthFlags::FAILED_OUTLIER_CHECK) || flags.contains(HealthFlags::FAILED_ACTIVE_HC))
                && was_well.contains(&host.id())
                && !is_well.contains(&host.id())
        };
        after.hosts().filter(failed).map(|host| host.id()).collect()
    }

    /// Chooses a host; `None` when no host may be chosen.
    #[must_use]
    pub fn pick(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(aggregate) = &mut state.aggregate {
            return aggregate.pick(&self.context.worker, &self.context.config.lb, context);
        }
        let scheduler = state.scheduler.get_or_insert_with(|| {
            let (config, hosts) = (Arc::new(self.context.config.lb.clone()), Arc::clone(&state.hosts));
            Scheduler::new(config, hosts, self.context.worker.workers(), fastrand::Rng::new())
        });
        let local = self.context.worker.local_hosts(self, &state.hosts);
        let runtime = local.is_some().then(|| self.context.worker.runtime());
        let runtime = runtime.as_deref();
        let picked = scheduler.pick(&PickContext { local: local.as_ref(), runtime, ..*context });
        if local.is_some() {
            self.count_zones(scheduler.zone_note());
        }
        if scheduler.in_panic() {
            self.context.stats.lb_healthy_panic().inc();
        }
        if let Some(note) = scheduler.subset_note() {
            self.count(note);
        }
        let created = scheduler.take_created();
        if !created.is_empty() {
            self.context.worker.report(Report::HostsCreated(Arc::clone(&self.context.config.name), created));
        }
        picked
    }

    fn count(&self, SubsetNote { selected, fallback, panic }: SubsetNote) {
        let stats = &self.context.stats;
        for (happened, counter) in [
            (selected, stats.lb_subsets_selected()),
            (fallback, stats.lb_subsets_fallback()),
            (panic, stats.lb_subsets_fallback_panic()),
        ] {
            if happened {
                counter.inc();
            }
        }
    }

    fn count_zones(&self, note: ZoneNote) {
        let stats = &self.context.stats;
        for (happened, counter) in [
            (note.recalculated, stats.lb_recalculate_zone_structures()),
            (note.too_small, stats.lb_zone_cluster_too_small()),
            (note.local_not_ok, stats.lb_local_cluster_not_ok()),
            (note.all_directly, stats.lb_zone_routing_all_directly()),
            (note.sampled, stats.lb_zone_routing_sampled()),
            (note.cross_zone, stats.lb_zone_routing_cross_zone()),
            (note.no_capacity_left, stats.lb_zone_no_capacity_left()),
        ] {
            if happened {
                counter.inc();
            }
        }
    }

    /// Whether it has no hosts of its own, but those of other clusters.
    #[must_use]
    pub fn is_aggregate(&self) -> bool {
        matches!(self.context.config.discovery, Discovery::Aggregate(_))
    }

    /// The cluster whose host this is, through whose pools requests reach it: itself, or a member of an aggregate.
    #[must_use]
    pub fn owner(self: &Rc<Self>, host: &Host) -> Rc<Self> {
        let of_member = || self.state.borrow().aggregate.as_ref()?.owner(host);
        if self.is_aggregate() { of_member().unwrap_or_else(|| Rc::clone(self)) } else { Rc::clone(self) }
    }

    /// Whether its policy, or a member's, finds hosts by a request's hash.
    fn hashes(&self) -> bool {
        let of_members = |aggregate: &Aggregate| {
            let members = aggregate.members(&self.context.worker);
            members.iter().flatten().any(|member| member.hashes())
        };
        let own = self.context.config.lb.hashes();
        own || (self.is_aggregate() && self.state.borrow().aggregate.as_deref().is_some_and(of_members))
    }

    /// Whether it, or a member, has subsets that a request's metadata may choose.
    #[must_use]
    pub fn has_subsets(&self) -> bool {
        let of_members = |aggregate: &Aggregate| {
            let members = aggregate.members(&self.context.worker);
            members.iter().flatten().any(|member| member.has_subsets())
        };
        let own = self.context.config.lb.subset.is_some();
        own || (self.is_aggregate() && self.state.borrow().aggregate.as_deref().is_some_and(of_members))
    }

    /// What a request is hashed by: the policy's or the cluster's own list, else the route's. `None` where no policy wants a
    /// hash.
    #[must_use]
    pub fn hash_policy<'a>(&'a self, of_route: Option<&'a Arc<HashPolicy>>) -> Option<&'a HashPolicy> {
        if !self.hashes() {
            return None;
        }
        self.context.config.lb.hash_policy.as_ref().or(of_route).map(|policy| &**policy)
    }

    /// Where a request was going before it was redirected here, for `ORIGINAL_DST` clusters.
    #[must_use]
    pub fn destination(&self, request: Option<&RequestHead>, connection: &ConnectionInfo) -> Option<SocketAddr> {
        let Discovery::OriginalDst(options) = &self.context.config.discovery else { return None };
        let header = options.header.as_ref().and_then(|name| {
            Some(&request?.headers.iter().find(|header| header.name.as_str() == name.as_str())?.value[..])
        });
        let recovered = if connection.local_restored { connection.local.ip() } else { None };
        options.destination(header, recovered).unwrap_or_else(|_| {
            self.context.stats.original_dst_host_invalid().inc();
            None
        })
    }

    /// Why a request should be dropped before a host is chosen, if this one should (`drop_overloads`).
    #[must_use]
    pub fn drops(&self) -> Option<Arc<str>> {
        let state = self.state.borrow();
        let overload = state.hosts.drop_overload.as_ref()?;
        (fastrand::f64() < overload.ratio).then(|| Arc::clone(&overload.category))
    }

    /// The pool for a host, and for the downstream connection `client` where each has its own. `None` if there may be no
    /// further pool in use (`max_connection_pools`).
    #[must_use]
    pub fn pool(
        &self,
        host: &Arc<Host>,
        priority: Priority,
        protocol: PoolProtocol,
        client: Option<u64>,
    ) -> Option<Rc<Pool>> {
        let client = client.filter(|_| self.context.config.pool_per_client);
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let key = (host.id(), priority, protocol, client);
        if client.is_some() && state.pools.len() >= state.sweep_at && !state.pools.contains_key(&key) {
            state.pools.retain(|_, pool| !pool.is_unused());
            state.sweep_at = FEW_POOLS.max(2 * state.pools.len());
        }
        let pool = state
            .pools
            .entry(key)
            .or_insert_with(|| Pool::new(Rc::clone(&self.context), Arc::clone(host), priority, protocol));
        let pool = Rc::clone(pool);
        if pool.enter() {
            return Some(pool);
        }
        // Another pool for the same host makes room if it is not busy.
        let other =
            state.pools.iter().find(|((id, of, ..), other)| (*id, *of) == (host.id(), priority) && other.yields());
        if let Some(other) = other.map(|(key, _)| *key).and_then(|key| state.pools.remove(&key)) {
            other.drain();
            if pool.enter() {
                return Some(pool);
            }
        }
        self.context.stats.upstream_cx_pool_overflow().inc();
        None
    }

    /// The cluster was replaced or removed: idle connections close, requests in flight finish.
    pub fn drain(&self) {
        for pool in self.state.borrow_mut().pools.drain().map(|(_, pool)| pool) {
            pool.drain();
        }
    }
}

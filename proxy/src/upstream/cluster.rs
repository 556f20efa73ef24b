//! A worker's view of a cluster: its host set, its scheduler, its pools.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use filters::http::RequestHead;
use filters::stream_info::ConnectionInfo;
use stats::{ComputedHandle, GroupHandle, LazyShard, Store};

use super::breaker::{BreakerHandle, Breakers, Priority};
use super::host::{Host, HostSet};
use super::lb::{PickContext, Scheduler};
use super::pool::{Pool, PoolProtocol};
use super::responses::ClusterResponses;
use crate::config::cluster::{ClusterConfig, Discovery, UpstreamProtocol};
use crate::config::hcm::{HeaderCase, Underscores};
use crate::http::codec::h1::{ClientOptions, HeaderFormat};
use crate::http::codec::h2::Http2Options;
use crate::observe::catalogue::{ClusterStats, Http1Stats, Http2Stats};
use crate::worker::{Report, Worker};

/// One version of a cluster, shared by all workers. Keeps its statistics in the scrape for as long as it lives.
pub struct ClusterShared {
    /// The configuration.
    pub config: Arc<ClusterConfig>,
    stats: Arc<GroupHandle<ClusterStats>>,
    http1: Arc<GroupHandle<Http1Stats>>,
    http2: Option<Arc<GroupHandle<Http2Stats>>>,
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
            send_buffer: buffer_limit(&config),
        };
        Rc::new(Self {
            worker: Rc::clone(worker),
            stats: shared.stats.shard(index),
            http1_stats: shared.http1.lazy_shard(index),
            http2_stats: shared.http2.as_ref().map(|handle| handle.lazy_shard(index)),
            responses,
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
    pools: foldhash::HashMap<(u64, Priority, PoolProtocol), Rc<Pool>>,
}

impl Cluster {
    /// A cluster version with its first host set.
    #[must_use]
    pub fn new(context: Rc<ClusterContext>, hosts: Arc<HostSet>) -> Rc<Self> {
        Rc::new(Self {
            context,
            state: RefCell::new(State { hosts, scheduler: None, pools: foldhash::HashMap::default() }),
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

    /// Takes a new host set; returns the old one, to be freed elsewhere. Pools of hosts that left are drained: idle
    /// connections close, requests in flight finish.
    pub fn set_hosts(&self, hosts: Arc<HostSet>) -> Arc<HostSet> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.pools.is_empty() {
            let present: std::collections::HashSet<u64> = hosts.hosts().map(|host| host.id()).collect();
            state.pools.retain(|(id, ..), pool| {
                let stays = present.contains(id);
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

    /// Chooses a host; `None` when no host may be chosen.
    #[must_use]
    pub fn pick(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let scheduler = state.scheduler.get_or_insert_with(|| {
            let (config, hosts) = (Arc::clone(&self.context.config), Arc::clone(&state.hosts));
            Scheduler::new(config, hosts, self.context.worker.workers(), fastrand::Rng::new())
        });
        let picked = scheduler.pick(context);
        if scheduler.in_panic() {
            self.context.stats.lb_healthy_panic().inc();
        }
        let created = scheduler.take_created();
        if !created.is_empty() {
            self.context.worker.report(Report::HostsCreated(Arc::clone(&self.context.config.name), created));
        }
        picked
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

    /// The pool for a host.
    #[must_use]
    pub fn pool(&self, host: &Arc<Host>, priority: Priority, protocol: PoolProtocol) -> Rc<Pool> {
        let mut state = self.state.borrow_mut();
        let pool = state
            .pools
            .entry((host.id(), priority, protocol))
            .or_insert_with(|| Pool::new(Rc::clone(&self.context), Arc::clone(host), priority, protocol));
        Rc::clone(pool)
    }

    /// The cluster was replaced or removed: idle connections close, requests in flight finish.
    pub fn drain(&self) {
        for pool in self.state.borrow_mut().pools.drain().map(|(_, pool)| pool) {
            pool.drain();
        }
    }
}

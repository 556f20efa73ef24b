//! A worker's view of a cluster: its host set, its scheduler, its pools.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::breaker::{BreakerHandle, Priority};
use super::host::{Host, HostSet};
use super::lb::{PickContext, Scheduler};
use super::pool::{Pool, PoolProtocol};
use crate::config::cluster::ClusterConfig;
use crate::observe::catalogue::ClusterStats;
use crate::worker::Worker;

/// What a cluster's pools and attempts share on one worker.
pub struct ClusterContext {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The cluster's configuration.
    pub config: Arc<ClusterConfig>,
    /// This worker's shard of `cluster.<name>.`.
    pub stats: ClusterStats,
    /// Response codes: `cluster.<name>.upstream_rq_*` and its `external.` and `internal.` variants.
    pub codes: CodeFamilies,
    /// The circuit breakers, shared by all workers.
    pub breakers: BreakerHandle,
}

/// The families of response codes a router keeps per cluster.
pub struct CodeFamilies {
    /// All responses.
    pub all: stats::Codes,
    /// Responses to requests from outside the mesh.
    pub external: stats::Codes,
    /// Responses to internal requests.
    pub internal: stats::Codes,
    /// Responses of canary hosts.
    pub canary: stats::Codes,
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
    pools: HashMap<(u64, Priority, PoolProtocol), Rc<Pool>>,
}

impl Cluster {
    /// A cluster version with its first host set.
    #[must_use]
    pub fn new(context: Rc<ClusterContext>, hosts: Arc<HostSet>) -> Rc<Self> {
        Rc::new(Self { context, state: RefCell::new(State { hosts, scheduler: None, pools: HashMap::new() }) })
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
        state.scheduler = None;
        std::mem::replace(&mut state.hosts, hosts)
    }

    /// Chooses a host; `None` when no host may be chosen.
    #[must_use]
    pub fn pick(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let scheduler = state
            .scheduler
            .get_or_insert_with(|| Scheduler::new(&self.context.config, &state.hosts, fastrand::u64(..)));
        scheduler.pick(context)
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

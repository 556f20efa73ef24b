//! The pools of a cluster on one worker: which one a request uses, and when they end.

use std::rc::Rc;
use std::sync::Arc;

use filters::stream_info::ConnectionInfo;

use super::Cluster;
use crate::upstream::breaker::Priority;
use crate::upstream::host::Host;
use crate::upstream::lb::PickContext;
use crate::upstream::pool::{Demand, MOST_AT_ONCE, Pool, PoolProtocol};
use crate::upstream::proxy_protocol::{Client, Header};
use crate::upstream::server_name::ServerNames;

/// Whom a connection is for, where that makes a difference.
#[derive(Debug, Clone, Copy, Default)]
pub struct Purpose<'a> {
    /// The downstream connection.
    pub client: Option<&'a ConnectionInfo>,
    /// The server's name by the request.
    pub names: Option<&'a Rc<ServerNames>>,
}

/// What pools are told apart by: the host, the downstream connection where that has pools of its own, the client where
/// the host is told of it, and the server's name where requests tell it.
pub(super) type PoolKey = (u64, Priority, PoolProtocol, Option<u64>, Option<Rc<Client>>, Option<Rc<ServerNames>>);

/// Fewer pools than this are not worth looking through for those nobody uses.
pub(super) const FEW_POOLS: usize = 64;

impl Cluster {
    /// The pool for a host that a request is about to use, for the purpose as far as that tells pools apart.
    /// `None` if there may be no further pool in use (`max_connection_pools`).
    #[must_use]
    pub fn pool(
        &self,
        host: &Arc<Host>,
        priority: Priority,
        protocol: PoolProtocol,
        purpose: Purpose<'_>,
    ) -> Option<Rc<Pool>> {
        let pool = self.pool_of(host, priority, protocol, purpose)?;
        if self.context.config.preconnect.predictive > 1.0 {
            self.anticipate(priority, protocol, purpose);
        }
        Some(pool)
    }

    /// Opens connections to the hosts of the next requests, where the cluster's connections leave too little to requests that
    /// are to come (`predictive_preconnect_ratio`). The request at hand is not in line yet.
    fn anticipate(&self, priority: Priority, protocol: PoolProtocol, purpose: Purpose<'_>) {
        let ratio = self.context.config.preconnect.predictive;
        for _ in 0..MOST_AT_ONCE {
            let demand: Demand = self.state.borrow().pools.values().map(|pool| pool.demand()).sum();
            if !demand.exceeds(ratio, 1) {
                return;
            }
            let pool = self.foresee().and_then(|host| self.pool_of(&host, priority, protocol, purpose));
            if !pool.is_some_and(|pool| pool.connect_ahead(ratio)) {
                return;
            }
        }
    }

    /// The host of a request to come.
    fn foresee(&self) -> Option<Arc<Host>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let local = self.context.worker.local_hosts(self, &state.hosts);
        let runtime = local.is_some().then(|| self.context.worker.runtime());
        let context = PickContext { local: local.as_ref(), runtime: runtime.as_deref(), ..PickContext::default() };
        state.scheduler.as_mut()?.foresee(&context)
    }

    fn pool_of(
        &self,
        host: &Arc<Host>,
        priority: Priority,
        protocol: PoolProtocol,
        purpose: Purpose<'_>,
    ) -> Option<Rc<Pool>> {
        let Purpose { client, names } = purpose;
        let config = &self.context.config;
        let header = if self.context.has_headers() {
            Header::new(config.connection.socket_for(host.attributes().metadata.as_deref()), client)
        } else {
            None
        };
        let client = client.filter(|_| config.pool_per_client).map(|client| client.id);
        let told = header.as_ref().and_then(|header| header.client().clone());
        let names = names.cloned();
        let many = client.is_some() || told.is_some() || names.is_some();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let key = (host.id(), priority, protocol, client, told, names.clone());
        if many && state.pools.len() >= state.sweep_at && !state.pools.contains_key(&key) {
            state.pools.retain(|_, pool| !pool.is_unused());
            state.sweep_at = FEW_POOLS.max(2 * state.pools.len());
        }
        let pool = state.pools.entry(key).or_insert_with(|| {
            Pool::new(Rc::clone(&self.context), Arc::clone(host), priority, protocol, header, names)
        });
        let pool = Rc::clone(pool);
        if pool.enter() {
            return Some(pool);
        }
        // Another pool for the same host makes room if it is not busy.
        let other =
            state.pools.iter().find(|((id, of, ..), other)| (*id, *of) == (host.id(), priority) && other.yields());
        if let Some(other) = other.map(|(key, _)| key.clone()).and_then(|key| state.pools.remove(&key)) {
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

    /// Outlier detection or a health check took a host out. Its connections are not kept for later: another one may do better
    /// when it is back.
    pub fn host_failed(&self, host: u64) {
        self.state.borrow_mut().pools.retain(|(id, ..), pool| {
            let failed = *id == host;
            if failed {
                pool.drain();
                pool.cut();
            }
            !failed
        });
    }
}

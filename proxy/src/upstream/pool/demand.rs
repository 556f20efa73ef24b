//! How many connections a pool opens, and whether it counts among the cluster's pools.

use std::rc::Rc;

use super::{ConnectionGuard, Pool, PoolProtocol, connect};
use crate::upstream::breaker::{Permit, Priority, Resource};
use crate::upstream::host::Health;

/// Connections that one event may open: a burst does not overwhelm a host that has just come back.
const MOST_AT_ONCE: usize = 3;

impl Pool {
    /// Opens connections until every request in line has one coming, and as many more as the cluster wants to have ahead of
    /// need, as far as the breakers allow.
    pub(super) fn connect_as_needed(self: &Rc<Self>) {
        for _ in 0..MOST_AT_ONCE {
            if !self.needs_connection() || !self.connect_one() {
                return;
            }
        }
    }

    fn needs_connection(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let coming = state.connecting.saturating_mul(self.streams_per_connection());
        let waiting = state.waiters.len();
        if self.ahead <= 1.0 || self.draining.get() || self.host.health() != Health::Healthy {
            return waiting > coming;
        }
        let active = match self.protocol {
            PoolProtocol::Http1 | PoolProtocol::Tcp => state.open - state.connecting - state.idle.len(),
            PoolProtocol::Http2 => state.multiplexed.iter().map(|connection| connection.active()).sum(),
        };
        // What open connections still take; below zero where a peer now allows fewer streams than it has.
        let unused: i64 = state.multiplexed.iter_mut().map(|connection| connection.unused()).sum();
        #[expect(clippy::cast_precision_loss, reason = "streams are far fewer than 2^53")]
        let (wanted, provided) = (
            (waiting + active) as f64 * self.ahead,
            coming as f64 + state.idle.len() as f64 + unused as f64 + active as f64,
        );
        wanted > provided
    }

    /// Streams that a connection takes before its peer has said how many it allows.
    fn streams_per_connection(&self) -> usize {
        match self.protocol {
            PoolProtocol::Http1 | PoolProtocol::Tcp => 1,
            PoolProtocol::Http2 => {
                let requests = self.context.config.http.common.max_requests_per_connection.unwrap_or(u32::MAX);
                self.context.h2_options.protocol.max_concurrent_streams.min(requests).max(1) as usize
            }
        }
    }

    /// Opens a connection, if the breakers allow it or there is none; whether they allow it.
    fn connect_one(self: &Rc<Self>) -> bool {
        let breakers = &self.context.breakers;
        let permit =
            if self.host_is_full() { None } else { breakers.try_acquire(self.priority, Resource::Connections).ok() };
        let allowed = permit.is_some();
        if !allowed {
            self.context.stats.upstream_cx_overflow().inc();
            if self.state.borrow().open > 0 {
                return false;
            }
        }
        let permit = permit.unwrap_or_else(|| breakers.acquire(self.priority, Resource::Connections));
        self.connect(permit);
        allowed
    }

    fn connect(self: &Rc<Self>, permit: Permit) {
        {
            let mut state = self.state.borrow_mut();
            state.connecting += 1;
            state.open += 1;
        }
        // Counted now: whoever asks next is to know of it.
        let guard = ConnectionGuard::new(&self.context, &self.host, self.protocol, permit);
        tokio::task::spawn_local(connect::connect(Rc::clone(self), guard));
    }

    /// Whether the host has as many connections as it may (`per_host_thresholds`).
    fn host_is_full(&self) -> bool {
        let limits = &self.context.config.circuit_breakers.per_host_max_connections;
        let limit = match self.priority {
            Priority::Default => limits[0],
            Priority::High => limits[1],
        };
        limit.is_some_and(|limit| self.host.state().stats().cx_active >= limit.into())
    }

    /// Counts the pool among those of the cluster until it is unused; whether there was room for it.
    pub(in crate::upstream) fn enter(&self) -> bool {
        let mut place = self.place.borrow_mut();
        if place.is_none() {
            *place = self.context.breakers.try_acquire(self.priority, Resource::ConnectionPools).ok();
        }
        place.is_some()
    }

    /// Whether it counts among the cluster's pools though no request needs it.
    pub(in crate::upstream) fn yields(&self) -> bool {
        let state = self.state.borrow();
        let busy = match self.protocol {
            PoolProtocol::Http1 | PoolProtocol::Tcp => state.open > state.connecting + state.idle.len(),
            PoolProtocol::Http2 => state.multiplexed.iter().any(|connection| connection.active() > 0),
        };
        !busy && state.waiters.is_empty() && self.place.borrow().is_some()
    }

    /// A connection is gone.
    pub(super) fn left(&self) {
        self.state.borrow_mut().open -= 1;
        self.settle();
    }

    /// Gives up its place among the cluster's pools once it is unused.
    pub(super) fn settle(&self) {
        if self.is_unused() {
            self.place.borrow_mut().take();
        }
    }
}

//! How many connections a pool opens, and whether it counts among the cluster's pools.

use std::iter::Sum;
use std::rc::Rc;

use super::{ConnectionGuard, Pool, PoolProtocol, connect};
use crate::upstream::breaker::{Permit, Priority, Resource};
use crate::upstream::host::Health;

/// Connections that one event may open: a burst does not overwhelm a host that has just come back.
pub(in crate::upstream) const MOST_AT_ONCE: usize = 3;

/// The requests of a pool, or of all pools of a cluster, and what their connections take besides.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::upstream) struct Demand {
    /// In line and in flight.
    requests: usize,
    /// In flight.
    active: usize,
    /// Streams that connections, open and coming, take besides; below zero where peers now allow fewer than they have.
    unused: i64,
}

impl Demand {
    /// Whether there is less than `ratio` streams for each request, with as many more as are expected.
    pub(in crate::upstream) fn exceeds(self, ratio: f64, expected: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "streams are far fewer than 2^53")]
        let (wanted, provided) = ((self.requests + expected) as f64 * ratio, self.unused as f64 + self.active as f64);
        wanted > provided
    }
}

impl Sum for Demand {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            requests: sum.requests + one.requests,
            active: sum.active + one.active,
            unused: sum.unused.saturating_add(one.unused),
        })
    }
}

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

    /// Opens a connection for a request that is only expected, if requests that wait, and those in flight, leave none to it at
    /// this ratio; whether it does, within the limits.
    pub(in crate::upstream) fn connect_ahead(self: &Rc<Self>, ratio: f64) -> bool {
        if self.draining.get() || self.host.health() != Health::Healthy {
            return false;
        }
        self.demand().exceeds(ratio, 1) && self.connect_one()
    }

    fn needs_connection(&self) -> bool {
        if self.ahead <= 1.0 || self.draining.get() || self.host.health() != Health::Healthy {
            let state = self.state.borrow();
            return state.waiters.len() > state.connecting.saturating_mul(self.streams_per_connection());
        }
        self.demand().exceeds(self.ahead, 0)
    }

    /// What is asked of the pool, and what it can take besides.
    pub(in crate::upstream) fn demand(&self) -> Demand {
        let mut state = self.state.borrow_mut();
        let coming = state.connecting.saturating_mul(self.streams_per_connection());
        let streams: usize = state.multiplexed.iter().map(|connection| connection.active()).sum();
        let active = state.open - state.connecting - state.idle.len() - state.multiplexed.len() + streams;
        let unused: i64 = state.multiplexed.iter_mut().map(|connection| connection.unused()).sum();
        let ready = i64::try_from(coming + state.idle.len()).unwrap_or(i64::MAX);
        Demand { requests: state.waiters.len() + active, active, unused: ready.saturating_add(unused) }
    }

    /// Streams that a connection takes before its peer has said how many it allows.
    fn streams_per_connection(&self) -> usize {
        match self.chosen.get() {
            PoolProtocol::Http1 | PoolProtocol::Tcp => 1,
            PoolProtocol::Http2 | PoolProtocol::Auto => {
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
        let busy = state.open > state.connecting + state.idle.len() + state.multiplexed.len()
            || state.multiplexed.iter().any(|connection| connection.active() > 0);
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

//! What is counted while a request or a connection lasts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::{Pool, PoolProtocol};
use crate::upstream::breaker::{Permit, Resource};
use crate::upstream::cluster::ClusterContext;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;

/// Counts a request in flight until it is dropped.
pub(in crate::upstream) struct RequestGuard {
    context: Rc<ClusterContext>,
    host: Arc<Host>,
    _permit: Permit,
}

impl Pool {
    /// Counts a request that gets its connection, if a breaker does not forbid it.
    pub(super) fn request_guard(&self) -> Result<RequestGuard, UpstreamFailure> {
        let Ok(permit) = self.context.breakers.try_acquire(self.priority, Resource::Requests) else {
            self.context.stats.upstream_rq_active_overflow().inc();
            return Err(UpstreamFailure::new(FailureKind::Overflow));
        };
        Ok(self.count_request(permit))
    }

    /// Counts a layer-4 stream: it is one of the requests, but their limit does not hold it up.
    pub(super) fn stream_guard(&self) -> RequestGuard {
        self.count_request(self.context.breakers.acquire(self.priority, Resource::Requests))
    }

    fn count_request(&self, permit: Permit) -> RequestGuard {
        let stats = &self.context.stats;
        stats.upstream_rq_total().inc();
        stats.upstream_rq_active().inc();
        let shard = self.host.shard(self.context.worker.index());
        shard.rq_total.inc();
        shard.rq_active.inc();
        RequestGuard { context: Rc::clone(&self.context), host: Arc::clone(&self.host), _permit: permit }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.context.stats.upstream_rq_active().dec();
        self.host.shard(self.context.worker.index()).rq_active.dec();
    }
}

/// Counts an upstream connection from its opening to its end.
pub(in crate::upstream) struct ConnectionGuard {
    pub(super) context: Rc<ClusterContext>,
    host: Arc<Host>,
    opened: Instant,
    /// Process-wide number (`%UPSTREAM_CONNECTION_ID%`).
    pub(super) id: u64,
    _permit: Permit,
}

impl ConnectionGuard {
    pub(super) fn new(context: &Rc<ClusterContext>, host: &Arc<Host>, protocol: PoolProtocol, permit: Permit) -> Self {
        let stats = &context.stats;
        stats.upstream_cx_total().inc();
        stats.upstream_cx_active().inc();
        match protocol {
            PoolProtocol::Http1 => stats.upstream_cx_http1_total().inc(),
            PoolProtocol::Http2 => stats.upstream_cx_http2_total().inc(),
            // Counted when it is known.
            PoolProtocol::Auto | PoolProtocol::Tcp => {}
        }
        let shard = host.shard(context.worker.index());
        shard.cx_total.inc();
        shard.cx_active.inc();
        Self {
            context: Rc::clone(context),
            host: Arc::clone(host),
            opened: Instant::now(),
            id: context.worker.next_connection_id(),
            _permit: permit,
        }
    }

    /// The host chose what is spoken. Envoy makes a connection of that protocol from the one it has, and counts both.
    pub(super) fn negotiated(&self, protocol: PoolProtocol) {
        let stats = &self.context.stats;
        stats.upstream_cx_total().inc();
        self.host.shard(self.context.worker.index()).cx_total.inc();
        match protocol {
            PoolProtocol::Http1 => stats.upstream_cx_http1_total().inc(),
            PoolProtocol::Http2 => stats.upstream_cx_http2_total().inc(),
            PoolProtocol::Auto | PoolProtocol::Tcp => {}
        }
    }

    /// Counts bytes that crossed the connection: received, sent.
    pub(super) fn bytes(&self, received: u64, sent: u64) {
        self.context.stats.upstream_cx_rx_bytes_total().add(received);
        self.context.stats.upstream_cx_tx_bytes_total().add(sent);
    }

    /// The connection is over; says who ended it, how many requests it carried and whether one was in flight.
    pub(in crate::upstream) fn ended(&self, by_peer: bool, requests: u64, active: bool) {
        let stats = &self.context.stats;
        stats.upstream_cx_destroy().inc();
        if by_peer {
            stats.upstream_cx_destroy_remote().inc();
        } else {
            stats.upstream_cx_destroy_local().inc();
        }
        if active {
            stats.upstream_cx_destroy_with_active_rq().inc();
            if by_peer {
                stats.upstream_cx_destroy_remote_with_active_rq().inc();
            } else {
                stats.upstream_cx_destroy_local_with_active_rq().inc();
            }
        }
        stats.upstream_rq_per_cx().record(requests);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let stats = &self.context.stats;
        stats.upstream_cx_active().dec();
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.upstream_cx_length_ms().record(millis);
        self.host.shard(self.context.worker.index()).cx_active.dec();
    }
}

//! Connection pools: one per worker, host, priority and protocol.
//!
//! # Contract
//!
//! * [`Pool::acquire`] hands out a [`Lease`]: an HTTP/1 connection for one exchange, or the right to one HTTP/2 stream. A lease
//!   counts the request (breaker, statistics) until it is dropped; a dropped HTTP/1 lease closes its connection
//!   unless it was [released](Http1Lease::release) after a complete exchange.
//! * Without a ready connection the request waits in line and a connection is opened, as far as the breakers allow. A pool
//!   without any connection may always open one (Envoy's allowance), so a limit never starves a host.
//! * A TCP lease is a connection that serves one stream and closes with it.
//! * A connection serves whoever waits longest, whoever asked for it. A request that gives up leaves the line; the
//!   connection it caused still arrives, for the next one. A failed connect fails the oldest request that no other
//!   connect can serve.
//! * Idle HTTP/1 connections are used last in, first out. One that says anything while idle (bytes, FIN) is closed by the
//!   pool's keeper task, which also ends those idle for too long, and is looked at once more when taken.
//! * Draining (the host left, the cluster changed) closes what is idle and lets leases finish.

mod connect;
mod http1;
mod http2;
mod idle;
mod tcp;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

pub use http1::{Http1Connection, Http1Lease};
pub use http2::Http2Lease;
pub use tcp::TcpLease;

use self::http2::Multiplexed;
use self::idle::{Idle, Keeper};
use super::breaker::{Permit, Priority, Resource};
use super::cluster::ClusterContext;
use super::failure::{FailureKind, UpstreamFailure};
use super::host::Host;
use crate::transport::Io;

/// The protocol a pool speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolProtocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// None: every lease is a connection of its own.
    Tcp,
}

/// The connections of one worker to one host. See the module's documentation.
pub struct Pool {
    context: Rc<ClusterContext>,
    host: Arc<Host>,
    priority: Priority,
    protocol: PoolProtocol,
    state: RefCell<State>,
    draining: Cell<bool>,
}

#[derive(Default)]
struct State {
    /// HTTP/1: ready for a request, least recently used first.
    idle: Vec<Idle>,
    /// HTTP/2: open connections, oldest first.
    multiplexed: Vec<Rc<Multiplexed>>,
    /// Requests in line, oldest first.
    waiters: VecDeque<Rc<Waiter>>,
    /// Connects under way.
    connecting: usize,
    /// All connections: connecting, idle, leased.
    open: usize,
    /// The keeper task; set while one runs.
    keeper: Option<Keeper>,
}

/// A request in line.
struct Waiter {
    outcome: RefCell<Option<Result<Lease, UpstreamFailure>>>,
    waker: RefCell<Option<Waker>>,
}

/// The right to send one request.
pub enum Lease {
    /// An HTTP/1 connection.
    Http1(Http1Lease),
    /// A stream on an HTTP/2 connection.
    Http2(Http2Lease),
    /// A byte stream.
    Tcp(Box<TcpLease>),
}

/// Counts a request in flight until it is dropped.
pub(super) struct RequestGuard {
    context: Rc<ClusterContext>,
    host: Arc<Host>,
    _permit: Permit,
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(context: Rc<ClusterContext>, host: Arc<Host>, priority: Priority, protocol: PoolProtocol) -> Rc<Self> {
        Rc::new(Self { context, host, priority, protocol, state: RefCell::default(), draining: Cell::new(false) })
    }

    /// The host this pool connects to.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What it speaks.
    #[must_use]
    pub const fn protocol(&self) -> PoolProtocol {
        self.protocol
    }

    /// A lease, at once if a connection is ready.
    ///
    /// # Errors
    /// [`FailureKind::Overflow`] when a breaker is open, [`FailureKind::ConnectFailure`] or
    /// [`FailureKind::ConnectTimeout`] when no connection could be made.
    pub async fn acquire(self: &Rc<Self>) -> Result<Lease, UpstreamFailure> {
        if let Some(lease) = self.ready()? {
            return Ok(lease);
        }
        let stats = &self.context.stats;
        let Ok(permit) = self.context.breakers.try_acquire(self.priority, Resource::PendingRequests) else {
            stats.upstream_rq_pending_overflow().inc();
            return Err(UpstreamFailure::no_place_in_line());
        };
        stats.upstream_rq_pending_total().inc();
        stats.upstream_rq_pending_active().inc();
        let place = PlaceInLine { pool: Rc::clone(self), waiter: Rc::new(Waiter::new()), _permit: permit };
        self.state.borrow_mut().waiters.push_back(Rc::clone(&place.waiter));
        self.connect_for_waiters();
        poll_fn(|cx| place.waiter.poll(cx)).await
    }

    /// A lease on a connection that is ready now.
    fn ready(self: &Rc<Self>) -> Result<Option<Lease>, UpstreamFailure> {
        match self.protocol {
            PoolProtocol::Http1 => {
                let Some(connection) = self.take_idle() else { return Ok(None) };
                match self.request_guard() {
                    Ok(guard) => Ok(Some(Lease::Http1(Http1Lease::new(Rc::clone(self), connection, guard)))),
                    Err(failure) => {
                        self.park(connection);
                        Err(failure)
                    }
                }
            }
            PoolProtocol::Http2 => {
                let Some(connection) = self.state.borrow().multiplexed.iter().find(|c| c.has_room()).cloned() else {
                    return Ok(None);
                };
                Ok(Some(Lease::Http2(Http2Lease::new(Rc::clone(self), connection, self.request_guard()?))))
            }
            PoolProtocol::Tcp => Ok(None),
        }
    }

    fn request_guard(&self) -> Result<RequestGuard, UpstreamFailure> {
        let stats = &self.context.stats;
        let Ok(permit) = self.context.breakers.try_acquire(self.priority, Resource::Requests) else {
            stats.upstream_rq_active_overflow().inc();
            return Err(UpstreamFailure::new(FailureKind::Overflow));
        };
        stats.upstream_rq_total().inc();
        stats.upstream_rq_active().inc();
        let shard = self.host.shard(self.context.worker.index());
        shard.rq_total.inc();
        shard.rq_active.inc();
        Ok(RequestGuard { context: Rc::clone(&self.context), host: Arc::clone(&self.host), _permit: permit })
    }

    /// Opens connections until every request in line has one coming, or a breaker is open.
    fn connect_for_waiters(self: &Rc<Self>) {
        loop {
            let mut state = self.state.borrow_mut();
            let per_connection = match self.protocol {
                PoolProtocol::Http1 | PoolProtocol::Tcp => 1,
                PoolProtocol::Http2 => self.context.h2_options.protocol.max_concurrent_streams.max(1) as usize,
            };
            if state.connecting * per_connection >= state.waiters.len() {
                return;
            }
            let stats = &self.context.stats;
            let permit = match self.context.breakers.try_acquire(self.priority, Resource::Connections) {
                Ok(permit) => permit,
                Err(_) => {
                    stats.upstream_cx_overflow().inc();
                    if state.open > 0 {
                        return;
                    }
                    self.context.breakers.acquire(self.priority, Resource::Connections)
                }
            };
            state.connecting += 1;
            state.open += 1;
            drop(state);
            tokio::task::spawn_local(connect::connect(Rc::clone(self), permit));
        }
    }

    /// A connect ended; its connection goes to whoever waits longest.
    fn connected_http1(self: &Rc<Self>, connection: Box<Http1Connection>) {
        self.state.borrow_mut().connecting -= 1;
        self.offer_http1(connection);
    }

    /// A connect ended; its connection goes to whoever waits longest, or closes: nobody will use it again.
    fn connected_tcp(self: &Rc<Self>, io: Io, guard: ConnectionGuard) {
        let waiter = {
            let mut state = self.state.borrow_mut();
            state.connecting -= 1;
            state.waiters.pop_front()
        };
        match waiter.map(|waiter| (waiter, self.request_guard())) {
            Some((waiter, Ok(request))) => {
                waiter.resolve(Ok(Lease::Tcp(Box::new(TcpLease::new(Rc::clone(self), io, guard, request)))));
            }
            refused => {
                guard.ended(false, 0, false);
                drop(guard);
                self.state.borrow_mut().open -= 1;
                if let Some((waiter, Err(failure))) = refused {
                    waiter.resolve(Err(failure));
                }
            }
        }
    }

    /// A connect ended; its streams go to those who wait longest.
    fn connected_http2(self: &Rc<Self>, connection: Rc<Multiplexed>) {
        {
            let mut state = self.state.borrow_mut();
            state.connecting -= 1;
            state.multiplexed.push(connection);
        }
        self.serve_http2_waiters();
    }

    /// A connect failed: the oldest request that no other connect can serve fails with it.
    fn connect_failed(self: &Rc<Self>, failure: &UpstreamFailure) {
        let waiter = {
            let mut state = self.state.borrow_mut();
            state.connecting -= 1;
            state.open -= 1;
            match self.protocol {
                PoolProtocol::Http1 | PoolProtocol::Tcp if state.waiters.len() > state.connecting => {
                    state.waiters.pop_front()
                }
                PoolProtocol::Http2 if state.connecting == 0 && state.multiplexed.is_empty() => {
                    // One connect stood for all of them.
                    for waiter in state.waiters.drain(..) {
                        self.context.stats.upstream_rq_pending_failure_eject().inc();
                        waiter.resolve(Err(failure.clone()));
                    }
                    None
                }
                _ => None,
            }
        };
        if let Some(waiter) = waiter {
            self.context.stats.upstream_rq_pending_failure_eject().inc();
            waiter.resolve(Err(failure.clone()));
        }
        self.connect_for_waiters();
    }

    /// A connection is free: the oldest request in line gets it, else it idles.
    fn offer_http1(self: &Rc<Self>, connection: Box<Http1Connection>) {
        let waiter = self.state.borrow_mut().waiters.pop_front();
        let Some(waiter) = waiter else { return self.park(connection) };
        match self.request_guard() {
            Ok(guard) => waiter.resolve(Ok(Lease::Http1(Http1Lease::new(Rc::clone(self), connection, guard)))),
            Err(failure) => {
                waiter.resolve(Err(failure));
                self.offer_http1(connection);
            }
        }
    }

    fn serve_http2_waiters(self: &Rc<Self>) {
        loop {
            let (waiter, connection) = {
                let mut state = self.state.borrow_mut();
                let Some(connection) = state.multiplexed.iter().find(|c| c.has_room()).cloned() else { break };
                let Some(waiter) = state.waiters.pop_front() else { return };
                (waiter, connection)
            };
            waiter.resolve(
                self.request_guard().map(|guard| Lease::Http2(Http2Lease::new(Rc::clone(self), connection, guard))),
            );
        }
        self.connect_for_waiters();
    }

    fn close_http1(&self, connection: Box<Http1Connection>) {
        drop(connection);
        self.state.borrow_mut().open -= 1;
    }

    /// Closes what is idle and makes leases close their connections when done.
    pub fn drain(self: &Rc<Self>) {
        self.draining.set(true);
        let (idle, keeper) = {
            let mut state = self.state.borrow_mut();
            for connection in &state.multiplexed {
                connection.drain();
            }
            (std::mem::take(&mut state.idle), state.keeper.take())
        };
        for idle in idle {
            self.close_http1(idle.connection);
        }
        if let Some(keeper) = keeper {
            keeper.waker.wake();
        }
    }

    /// Whether nothing is open, waiting or under way: the pool can be forgotten.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let state = self.state.borrow();
        state.open == 0 && state.waiters.is_empty()
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.context.stats.upstream_rq_active().dec();
        self.host.shard(self.context.worker.index()).rq_active.dec();
    }
}

impl Waiter {
    const fn new() -> Self {
        Self { outcome: RefCell::new(None), waker: RefCell::new(None) }
    }

    fn resolve(&self, outcome: Result<Lease, UpstreamFailure>) {
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Result<Lease, UpstreamFailure>> {
        if let Some(outcome) = self.outcome.borrow_mut().take() {
            return Poll::Ready(outcome);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A request's place in line; leaving it by any way keeps the line and the counts right.
struct PlaceInLine {
    pool: Rc<Pool>,
    waiter: Rc<Waiter>,
    _permit: Permit,
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        self.pool.context.stats.upstream_rq_pending_active().dec();
        let mut state = self.pool.state.borrow_mut();
        if let Some(at) = state.waiters.iter().position(|w| Rc::ptr_eq(w, &self.waiter)) {
            state.waiters.remove(at);
            self.pool.context.stats.upstream_rq_cancelled().inc();
        }
        drop(state);
        // Resolved but never taken: the connection goes back unused.
        let unclaimed = self.waiter.outcome.borrow_mut().take();
        if let Some(Ok(Lease::Http1(lease))) = unclaimed {
            lease.release_unused();
        }
    }
}

/// Counts an upstream connection from its opening to its end.
pub(super) struct ConnectionGuard {
    context: Rc<ClusterContext>,
    host: Arc<Host>,
    opened: Instant,
    /// Process-wide number (`%UPSTREAM_CONNECTION_ID%`).
    pub(super) id: u64,
    _permit: Permit,
}

/// What a connection will speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionKind {
    Http1,
    Http2,
    Tcp,
}

impl ConnectionGuard {
    pub(super) fn new(context: &Rc<ClusterContext>, host: &Arc<Host>, kind: ConnectionKind, permit: Permit) -> Self {
        let stats = &context.stats;
        stats.upstream_cx_total().inc();
        stats.upstream_cx_active().inc();
        match kind {
            ConnectionKind::Http1 => stats.upstream_cx_http1_total().inc(),
            ConnectionKind::Http2 => stats.upstream_cx_http2_total().inc(),
            ConnectionKind::Tcp => {}
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

    /// Counts bytes that crossed the connection: received, sent.
    pub(super) fn bytes(&self, received: u64, sent: u64) {
        self.context.stats.upstream_cx_rx_bytes_total().add(received);
        self.context.stats.upstream_cx_tx_bytes_total().add(sent);
    }

    /// The connection is over; says who ended it, how many requests it carried and whether one was in flight.
    pub(super) fn ended(&self, by_peer: bool, requests: u64, active: bool) {
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

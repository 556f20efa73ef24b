//! Connection pools: one per worker, host, priority and protocol.
//!
//! # Contract
//!
//! * [`Pool::acquire`] hands out a [`Lease`]: an HTTP/1 connection for one exchange, or the right to one HTTP/2 stream. A lease
//!   counts the request (breaker, statistics) until it is dropped; a dropped HTTP/1 lease closes its connection
//!   unless it was [released](Http1Lease::release) after a complete exchange.
//! * Without a ready connection the request waits in line and a connection is opened, as far as the breakers allow. A pool
//!   without any connection may always open one (Envoy's allowance), so a limit never starves a host.
//! * Where the host chooses what is spoken, a connection is counted among those of its protocol, and used as one, from when
//!   the choice is known.
//! * A TCP lease is a connection that serves one stream and closes with it.
//! * A connection serves whoever waits longest, whoever asked for it. A request that gives up leaves the line; the
//!   connection it caused still arrives, for the next one. A failed connect fails everybody in line.
//! * Idle HTTP/1 connections are used last in, first out. One that says anything while idle (bytes, FIN) is closed by the
//!   pool's keeper task, which also ends those idle for too long, and is looked at once more when taken.
//! * Where the cluster says so, connections are opened ahead of need, and one that is too old takes no further request.
//! * A pool counts among the cluster's pools as long as anything is open or waits.
//! * Draining (the host left, the cluster changed) closes what is idle and lets leases finish.

mod connect;
mod demand;
mod guard;
mod http1;
mod http2;
mod idle;
mod line;
mod tcp;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use filters::http::Version;
pub use http1::{Http1Connection, Http1Lease};
pub use http2::Http2Lease;
pub use tcp::TcpLease;

pub(super) use self::demand::{Demand, MOST_AT_ONCE};
pub(super) use self::guard::ConnectionGuard;
use self::guard::RequestGuard;
use self::http2::Multiplexed;
use self::idle::{Idle, Keeper};
use self::line::{PlaceInLine, Waiter};
use super::breaker::{Permit, Priority, Resource};
use super::cluster::ClusterContext;
use super::failure::UpstreamFailure;
use super::host::Host;
use super::proxy_protocol::Header;
use super::server_name::ServerNames;
use crate::transport::Io;

/// The protocol a pool speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolProtocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// HTTP/2 or HTTP/1.1, as the host chooses (ALPN).
    Auto,
    /// None: every lease is a connection of its own.
    Tcp,
}

/// The connections of one worker to one host. See the module's documentation.
pub struct Pool {
    context: Rc<ClusterContext>,
    host: Arc<Host>,
    priority: Priority,
    protocol: PoolProtocol,
    /// What the host chose last, where it has the choice; until then it is thought to speak HTTP/2.
    chosen: Cell<PoolProtocol>,
    /// What its connections begin with.
    header: Option<Header>,
    /// The server they are to.
    names: Option<Rc<ServerNames>>,
    state: RefCell<State>,
    draining: Cell<bool>,
    /// `per_upstream_preconnect_ratio`
    ahead: f64,
    /// Its place among the cluster's pools, while anything is open or waits.
    place: RefCell<Option<Permit>>,
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
    /// Layer 4: connections that end when the host fails.
    cuts: Vec<Rc<tcp::Cut>>,
    /// The keeper task; set while one runs.
    keeper: Option<Keeper>,
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

impl Lease {
    /// The version of HTTP that is spoken.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        match self {
            Self::Http1(_) => Some(Version::Http11),
            Self::Http2(_) => Some(Version::Http2),
            Self::Tcp(_) => None,
        }
    }
}

impl Pool {
    /// A pool without connections, whose connections will begin with `header` and ask for the server of `names`.
    #[must_use]
    pub fn new(
        context: Rc<ClusterContext>,
        host: Arc<Host>,
        priority: Priority,
        protocol: PoolProtocol,
        header: Option<Header>,
        names: Option<Rc<ServerNames>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            ahead: context.config.preconnect.per_host,
            context,
            host,
            priority,
            protocol,
            chosen: Cell::new(if protocol == PoolProtocol::Auto { PoolProtocol::Http2 } else { protocol }),
            header,
            names,
            state: RefCell::default(),
            draining: Cell::new(false),
            place: RefCell::default(),
        })
    }

    /// The host this pool connects to.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// A lease, at once if a connection is ready.
    ///
    /// # Errors
    /// `Overflow` when a breaker is open, `ConnectFailure` or `ConnectTimeout` when no connection could be made.
    pub async fn acquire(self: &Rc<Self>) -> Result<Lease, UpstreamFailure> {
        if let Some(lease) = self.ready()? {
            if self.ahead > 1.0 {
                self.connect_as_needed();
            }
            return Ok(lease);
        }
        let stats = &self.context.stats;
        let Ok(permit) = self.context.breakers.try_acquire(self.priority, Resource::PendingRequests) else {
            stats.upstream_rq_pending_overflow().inc();
            self.settle();
            return Err(UpstreamFailure::no_place_in_line());
        };
        let place = PlaceInLine::new(self, permit);
        self.connect_as_needed();
        poll_fn(|cx| place.waiter.poll(cx)).await
    }

    /// A lease on a connection that is ready now.
    fn ready(self: &Rc<Self>) -> Result<Option<Lease>, UpstreamFailure> {
        if let Some(connection) = self.take_idle() {
            return match self.request_guard() {
                Ok(guard) => Ok(Some(Lease::Http1(Http1Lease::new(Rc::clone(self), connection, guard)))),
                Err(failure) => {
                    self.park(connection);
                    Err(failure)
                }
            };
        }
        let Some(connection) = self.state.borrow().multiplexed.iter().find(|c| c.has_room()).cloned() else {
            return Ok(None);
        };
        Ok(Some(Lease::Http2(Http2Lease::new(Rc::clone(self), connection, self.request_guard()?))))
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
        if let Some(waiter) = waiter {
            let lease = TcpLease::new(Rc::clone(self), io, guard, self.stream_guard());
            waiter.resolve(Ok(Lease::Tcp(Box::new(lease))));
        } else {
            guard.ended(false, 0, false);
            drop(guard);
            self.left();
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

    /// A connect failed, and everybody in line with it, whatever other connects are under way: who may try again does so
    /// on another host, instead of waiting for one that is in doubt.
    fn connect_failed(self: &Rc<Self>, failure: &UpstreamFailure) {
        let waiters = {
            let mut state = self.state.borrow_mut();
            state.connecting -= 1;
            std::mem::take(&mut state.waiters)
        };
        // As in Envoy, who came last hears of it first.
        for waiter in waiters.into_iter().rev() {
            self.context.stats.upstream_rq_pending_failure_eject().inc();
            waiter.resolve(Err(failure.clone()));
        }
        self.left();
        self.connect_as_needed();
    }

    /// A connection is free: the oldest request in line gets it, else it idles.
    fn offer_http1(self: &Rc<Self>, connection: Box<Http1Connection>) {
        let waiter = self.state.borrow_mut().waiters.pop_front();
        let Some(waiter) = waiter else { return self.park(connection) };
        match self.request_guard() {
            Ok(guard) => {
                waiter.resolve(Ok(Lease::Http1(Http1Lease::new(Rc::clone(self), connection, guard))));
                if !self.state.borrow().waiters.is_empty() {
                    self.connect_as_needed();
                }
            }
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
        if !self.state.borrow().waiters.is_empty() {
            self.connect_as_needed();
        }
    }

    fn close_http1(&self, connection: Box<Http1Connection>) {
        drop(connection);
        self.left();
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

#[cfg(test)]
mod tests;

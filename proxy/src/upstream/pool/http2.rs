//! HTTP/2 connections of a pool: many streams each, until the peer's or our limit, or its GOAWAY.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use filters::http::RequestHead;
use filters::tls::TlsInfo;

use super::{ConnectionGuard, Pool, RequestGuard};
use crate::http::codec::h2::inspect::Fault;
use crate::http::codec::h2::{ClientConnection, ClientExchange, Driver, Keepalive, Watch};
use crate::upstream::cluster::ClusterContext;
use crate::upstream::failure::UpstreamFailure;
use crate::worker::timer::{Alarm, Tick};

/// One HTTP/2 connection.
pub(super) struct Multiplexed {
    client: RefCell<ClientConnection>,
    /// Streams leased now.
    active: Cell<usize>,
    /// Streams leased ever.
    requests: Cell<u64>,
    /// Takes no new streams: over, going away, or its pool drains.
    retired: Cell<bool>,
    /// `max_concurrent_streams` and `max_requests_per_connection` of the cluster.
    limit: usize,
    max_requests: u64,
    /// When something last came from the peer.
    heard: Cell<Tick>,
    /// It was idle for so long that the peer is asked whether it is still there.
    asked: Cell<bool>,
    /// Wakes the task that drives it.
    task: RefCell<Option<Waker>>,
    local: Option<std::net::SocketAddr>,
    tls: Option<Rc<TlsInfo>>,
    guard: ConnectionGuard,
}

impl Multiplexed {
    /// Whether it takes another stream now.
    pub(super) fn has_room(&self) -> bool {
        if self.retired.get() {
            return false;
        }
        let mut client = self.client.borrow_mut();
        let noop = Waker::noop();
        if client.is_going_away() || matches!(client.poll_ready(&mut Context::from_waker(noop)), Poll::Ready(Err(_))) {
            // Closed, or the peer said GOAWAY: streams in flight finish.
            self.retired.set(true);
            return false;
        }
        self.active.get() < self.limit.min(client.max_concurrent_streams())
    }

    /// Streams leased now.
    pub(super) const fn active(&self) -> usize {
        self.active.get()
    }

    /// Streams it takes besides those it has; below zero if the peer allows fewer by now.
    pub(super) fn unused(&self) -> i64 {
        if self.retired.get() {
            return 0;
        }
        let limit = self.limit.min(self.client.borrow().max_concurrent_streams());
        let at_once = i64::try_from(limit).unwrap_or(i64::MAX) - i64::try_from(self.active.get()).unwrap_or(i64::MAX);
        let ever = i64::try_from(self.max_requests - self.requests.get()).unwrap_or(i64::MAX);
        at_once.min(ever)
    }

    /// Takes no more streams, and ends once it has none.
    pub(super) fn drain(&self) {
        self.retired.set(true);
        self.wake();
    }

    /// Lets its task look at what has changed.
    fn wake(&self) {
        if let Some(waker) = &*self.task.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The right to one stream.
pub struct Http2Lease {
    pool: Rc<Pool>,
    connection: Rc<Multiplexed>,
    _guard: RequestGuard,
}

impl Http2Lease {
    pub(super) fn new(pool: Rc<Pool>, connection: Rc<Multiplexed>, guard: RequestGuard) -> Self {
        let keepalive = pool.context.h2_options.protocol.keepalive;
        if let Some(idle) = keepalive.and_then(|keepalive| keepalive.idle_interval)
            && connection.heard.get().after(idle) < pool.context.worker.timers().now()
        {
            connection.asked.set(true);
        }
        connection.active.set(connection.active.get() + 1);
        connection.requests.set(connection.requests.get() + 1);
        if connection.requests.get() >= connection.max_requests {
            connection.retired.set(true);
            pool.context.stats.upstream_cx_max_requests().inc();
        }
        Self { pool, connection, _guard: guard }
    }

    /// Sends a request head on the stream.
    ///
    /// # Errors
    /// When the connection takes no stream after all, or the head cannot be said in HTTP/2.
    pub fn send(&self, head: &RequestHead, end: bool) -> Result<ClientExchange, UpstreamFailure> {
        self.connection.client.borrow_mut().send(head, end)
    }

    /// The connection's local address.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.connection.local
    }

    /// The connection's TLS session.
    #[must_use]
    pub fn tls_info(&self) -> Option<&Rc<TlsInfo>> {
        self.connection.tls.as_ref()
    }

    /// Process-wide number of the connection.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.connection.guard.id
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        if self.connection.retired.get() && self.connection.active.get() == 0 {
            self.connection.wake();
        }
        if !self.pool.state.borrow().waiters.is_empty() {
            self.pool.serve_http2_waiters();
        }
    }
}

/// Makes a connected, handshaken socket part of the pool; its task lives as long as the connection.
pub(super) fn adopt(
    pool: &Rc<Pool>,
    client: ClientConnection,
    driver: Driver,
    (local, tls): (Option<std::net::SocketAddr>, Option<Rc<TlsInfo>>),
    guard: ConnectionGuard,
) -> Rc<Multiplexed> {
    let config = &pool.context.config;
    let connection = Rc::new(Multiplexed {
        client: RefCell::new(client),
        active: Cell::new(0),
        requests: Cell::new(0),
        retired: Cell::new(false),
        limit: pool.context.h2_options.protocol.max_concurrent_streams as usize,
        max_requests: config.http.common.max_requests_per_connection.map_or(u64::MAX, u64::from),
        heard: Cell::new(pool.context.worker.timers().now()),
        asked: Cell::new(false),
        task: RefCell::new(None),
        local,
        tls,
        guard,
    });
    tokio::task::spawn_local(drive(Rc::clone(pool), Rc::clone(&connection), driver));
    connection
}

/// Drives a connection to its end. The pool lives until then, whoever else still needs it.
async fn drive(pool: Rc<Pool>, connection: Rc<Multiplexed>, driver: Driver) {
    let mut task = Drive::new(&pool, driver);
    let watch = task.watch.clone();
    let end = poll_fn(|cx| task.poll(&connection, cx)).await;
    // Streams learn of the end by the codec's.
    drop(task);
    if let End::Fault(fault) = &end {
        watch.say_goodbye(fault).await;
    }
    connection.retired.set(true);
    count(&pool.context, &watch);
    let stats = &pool.context.stats;
    match &end {
        End::Idle => stats.upstream_cx_idle_timeout().inc(),
        End::Fault(_) | End::Codec(true) => stats.upstream_cx_protocol_error().inc(),
        // Envoy closes in the middle of reading, and takes that for an error of its own.
        End::GoneAway | End::Spent if watch.ended_while_reading() => stats.upstream_cx_protocol_error().inc(),
        End::GoneAway | End::Spent | End::Codec(false) | End::Silent => {}
    }
    // By an error of the protocol the requests end first, then the connection.
    let busy =
        connection.active.get() > 0 && !matches!(end, End::GoneAway | End::Spent | End::Fault(_) | End::Codec(true));
    let by_peer = watch.saw_end() && !matches!(end, End::GoneAway | End::Spent);
    connection.guard.ended(by_peer, connection.requests.get(), busy);
    {
        let mut state = pool.state.borrow_mut();
        state.multiplexed.retain(|c| !Rc::ptr_eq(c, &connection));
    }
    pool.left();
    pool.serve_http2_waiters();
}

/// Why a connection is over.
enum End {
    /// The codec says so; whether for an error of the protocol.
    Codec(bool),
    /// The peer said GOAWAY, and the last stream has ended.
    GoneAway,
    /// This side opens no more streams on it, and the last one has ended.
    Spent,
    /// Nobody needed it for a while.
    Idle,
    /// The peer broke the protocol.
    Fault(Fault),
    /// No answer to a PING.
    Silent,
}

struct Drive {
    driver: Driver,
    watch: Watch,
    context: Rc<ClusterContext>,
    alarm: Alarm,
    keepalive: Keepalive,
    idle_since: Tick,
    going_away: bool,
    /// When it has lived for as long as it may.
    expires: Tick,
}

impl Drive {
    fn new(pool: &Pool, mut driver: Driver) -> Self {
        let context = Rc::clone(&pool.context);
        let timers = context.worker.timers();
        let now = timers.now();
        let mut keepalive = Keepalive::new(context.h2_options.protocol.keepalive, now);
        if keepalive.wants_handle() {
            keepalive.attach(driver.ping_pong());
        }
        Self {
            watch: driver.watch().clone(),
            driver,
            alarm: timers.alarm(),
            keepalive,
            idle_since: now,
            going_away: false,
            expires: context.expiry(),
            context,
        }
    }

    fn poll(&mut self, shared: &Multiplexed, cx: &mut Context<'_>) -> Poll<End> {
        if self.going_away && shared.active.get() == 0 {
            return Poll::Ready(End::GoneAway);
        }
        if shared.retired.get() {
            self.watch.leave();
        }
        let driven = self.driver.poll(cx);
        count(&self.context, &self.watch);
        if !self.going_away && self.watch.saw_goaway() {
            self.going_away = true;
            self.context.stats.upstream_cx_close_notify().inc();
        }
        if let Some(fault) = self.watch.fault() {
            return Poll::Ready(End::Fault(fault));
        }
        if driven.is_ready() && self.going_away && self.watch.open_streams() == 0 {
            return Poll::Ready(End::GoneAway);
        }
        if let Poll::Ready(ended) = driven {
            return Poll::Ready(End::Codec(ended.is_err_and(|error| !error.is_io() && !error.is_remote())));
        }
        let now = self.context.worker.timers().now();
        if shared.active.get() > 0 {
            self.idle_since = now;
        } else if self.going_away {
            return Poll::Ready(End::GoneAway);
        } else if shared.retired.get() {
            return Poll::Ready(End::Spent);
        }
        if !shared.task.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *shared.task.borrow_mut() = Some(cx.waker().clone());
        }
        self.clock(shared, now, cx)
    }

    /// What depends on time: PINGs and idleness.
    fn clock(&mut self, shared: &Multiplexed, mut now: Tick, cx: &mut Context<'_>) -> Poll<End> {
        let idle_timeout = self.context.config.http.common.idle_timeout;
        loop {
            let heard = self.watch.take_heard();
            if heard.0 {
                shared.heard.set(now);
            }
            if shared.asked.take() {
                self.keepalive.ask(now);
            }
            if !self.keepalive.poll(heard, now, cx) {
                if let Some(stats) = &self.context.http2_stats {
                    stats.keepalive_timeout().inc();
                }
                return Poll::Ready(End::Silent);
            }
            let idle = self.idle_since.after_opt(idle_timeout);
            if self.alarm.poll(idle.min(self.keepalive.rings()).min(self.expires), cx).is_pending() {
                return Poll::Pending;
            }
            now = self.context.worker.timers().now();
            if self.expires <= now {
                self.expires = Tick::NEVER;
                self.context.stats.upstream_cx_max_duration_reached().inc();
                shared.retired.set(true);
                self.watch.leave();
                if shared.active.get() == 0 {
                    return Poll::Ready(End::Spent);
                }
            }
            if idle <= now {
                if shared.active.get() == 0 {
                    return Poll::Ready(End::Idle);
                }
                self.idle_since = now;
            }
        }
    }
}

/// Moves what the wire counted to the statistics.
fn count(context: &ClusterContext, watch: &Watch) {
    let counts = watch.take_counts();
    context.stats.upstream_cx_rx_bytes_total().add(counts.rx_bytes);
    context.stats.upstream_cx_tx_bytes_total().add(counts.tx_bytes);
    if counts.events
        && let Some(stats) = &context.http2_stats
    {
        counts.add_to(stats);
    }
}

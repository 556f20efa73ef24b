//! HTTP/2 connections of a pool: many streams each, until the peer's or our limit, or its GOAWAY.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use filters::http::RequestHead;

use super::{ConnectionGuard, Pool, RequestGuard};
use crate::http::codec::h2::{ClientConnection, ClientExchange};
use crate::transport::Io;
use crate::upstream::failure::UpstreamFailure;

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
    local: Option<std::net::SocketAddr>,
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
        if matches!(client.poll_ready(&mut Context::from_waker(noop)), std::task::Poll::Ready(Err(_))) {
            // Closed, or the peer said GOAWAY: streams in flight finish.
            self.retired.set(true);
            return false;
        }
        self.active.get() < self.limit.min(client.max_concurrent_streams())
    }

    /// Takes no more streams.
    pub(super) fn drain(&self) {
        self.retired.set(true);
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

    /// Process-wide number of the connection.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.connection.guard.id
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        if !self.pool.state.borrow().waiters.is_empty() {
            self.pool.serve_http2_waiters();
        }
    }
}

/// Makes a connected, handshaken socket part of the pool; its task lives as long as the connection.
pub(super) fn adopt(
    pool: &Rc<Pool>,
    client: ClientConnection,
    driver: h2::client::Connection<Io, Bytes>,
    local: Option<std::net::SocketAddr>,
    guard: ConnectionGuard,
) -> Rc<Multiplexed> {
    let config = &pool.context.config;
    let connection = Rc::new(Multiplexed {
        client: RefCell::new(client),
        active: Cell::new(0),
        requests: Cell::new(0),
        retired: Cell::new(false),
        limit: pool.context.h2_options.max_concurrent_streams as usize,
        max_requests: config.http.common.max_requests_per_connection.map_or(u64::MAX, u64::from),
        local,
        guard,
    });
    tokio::task::spawn_local(drive(Rc::downgrade(pool), Rc::downgrade(&connection), driver));
    connection
}

async fn drive(
    pool: std::rc::Weak<Pool>,
    connection: std::rc::Weak<Multiplexed>,
    mut driver: h2::client::Connection<Io, Bytes>,
) {
    let idle = {
        let Some(pool) = pool.upgrade() else { return };
        (
            pool.context.config.http.common.idle_timeout,
            pool.context.worker.timers().alarm(),
            Rc::clone(pool.context.worker.timers()),
        )
    };
    let (timeout, alarm, timers) = idle;
    let mut idle_since = timers.now();
    let mut idle_close = false;
    let ended = std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(ended) = std::pin::Pin::new(&mut driver).poll(cx) {
            return std::task::Poll::Ready(ended.is_err());
        }
        let Some(shared) = connection.upgrade() else { return std::task::Poll::Ready(false) };
        if shared.active.get() > 0 {
            idle_since = timers.now();
        } else if shared.retired.get() {
            return std::task::Poll::Ready(false);
        }
        while alarm.poll(idle_since.after_opt(timeout), cx).is_ready() {
            if shared.active.get() == 0 {
                idle_close = true;
                return std::task::Poll::Ready(false);
            }
            idle_since = timers.now();
        }
        std::task::Poll::Pending
    })
    .await;
    if let (Some(pool), Some(connection)) = (pool.upgrade(), connection.upgrade()) {
        connection.retired.set(true);
        let stats = &pool.context.stats;
        if idle_close {
            stats.upstream_cx_idle_timeout().inc();
        }
        if ended {
            stats.upstream_cx_protocol_error().inc();
        }
        connection.guard.ended(!idle_close, connection.requests.get(), connection.active.get() > 0);
        {
            let mut state = pool.state.borrow_mut();
            state.multiplexed.retain(|c| !Rc::ptr_eq(c, &connection));
            state.open -= 1;
        }
        pool.serve_http2_waiters();
    }
}

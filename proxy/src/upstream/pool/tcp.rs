//! Layer-4 connections of a pool: one stream each, from its beginning to its end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use filters::stream_info::ByteMeter;

use super::{ConnectionGuard, Pool, RequestGuard};
use crate::http::codec::h1::WriteBuf;
use crate::transport::Io;
use crate::upstream::failure::{FailureKind, UpstreamFailure};

/// A connection for one layer-4 stream. Dropping it closes the connection.
pub struct TcpLease {
    pool: Rc<Pool>,
    /// The byte stream.
    pub io: Io,
    out: WriteBuf,
    read: BytesMut,
    /// What this side sends is complete, and the peer is to be told.
    ending: bool,
    /// The peer was told.
    ended: bool,
    /// The peer's end was seen.
    peer_ended: bool,
    /// The peer ended the connection last, or broke it.
    closed_by_peer: bool,
    meter: ByteMeter,
    guard: ConnectionGuard,
    /// Where the connection ends with its host's health.
    cut: Option<Rc<Cut>>,
    _request: RequestGuard,
}

/// Tells one connection that its host has failed.
#[derive(Default)]
pub(super) struct Cut {
    done: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pool {
    /// The host failed: layer-4 connections to it end, where the cluster says so (`close_connections_on_host_health_failure`).
    pub(in crate::upstream) fn cut(&self) {
        for cut in &self.state.borrow().cuts {
            cut.done.set(true);
            if let Some(waker) = cut.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

impl TcpLease {
    pub(super) fn new(pool: Rc<Pool>, io: Io, guard: ConnectionGuard, request: RequestGuard) -> Self {
        let cut: Option<Rc<Cut>> = pool.context.config.close_on_health_failure.then(Rc::default);
        pool.state.borrow_mut().cuts.extend(cut.clone());
        Self {
            pool,
            cut,
            io,
            out: WriteBuf::new(),
            read: BytesMut::new(),
            ending: false,
            ended: false,
            peer_ended: false,
            closed_by_peer: false,
            meter: ByteMeter::default(),
            guard,
            _request: request,
        }
    }

    /// Process-wide number of the connection.
    #[must_use]
    pub const fn connection_id(&self) -> u64 {
        self.guard.id
    }

    /// The connection's local address.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.io.local_addr()
    }

    /// Counts bytes that crossed the connection: received, sent. For those who use [`Self::io`] themselves.
    pub fn bytes(&mut self, received: u64, sent: u64) {
        self.meter.wire_rx += received;
        self.meter.wire_tx += sent;
        self.guard.bytes(received, sent);
    }

    /// Counts how often nothing was read from it because its other side took no more, and how often that was over.
    pub fn flow_control(&self, paused: u64, resumed: u64) {
        let stats = &self.pool.context.stats;
        stats.upstream_flow_control_paused_reading_total().add(paused);
        stats.upstream_flow_control_resumed_reading_total().add(resumed);
    }

    /// Bytes the connection may buffer.
    #[must_use]
    pub fn buffer_limit(&self) -> usize {
        self.pool.context.buffer_limit()
    }

    /// What crossed the connection so far.
    #[must_use]
    pub const fn meter(&self) -> ByteMeter {
        self.meter
    }

    /// Says that it was the peer who ended the connection.
    pub const fn closed_by_peer(&mut self) {
        self.closed_by_peer = true;
    }

    /// Whether the connection is to end because its host failed; the task is woken when it is.
    #[must_use]
    pub fn is_cut(&self, cx: &Context<'_>) -> bool {
        let Some(cut) = &self.cut else { return false };
        if !cut.done.get() {
            *cut.waker.borrow_mut() = Some(cx.waker().clone());
        }
        cut.done.get()
    }

    /// Queues bytes; with `end` nothing follows.
    pub fn send(&mut self, data: Bytes, end: bool) {
        self.out.push(data);
        self.ending |= end;
    }

    /// Ready when less than the buffer limit waits to be written.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFailure>> {
        let limit = self.pool.context.buffer_limit();
        if self.out.len() >= limit {
            let _ = self.poll_flush(cx);
        }
        if self.out.len() < limit { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Writes what is queued, and then the end, as far as the socket takes it. A socket that takes no more says why when it
    /// is read.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.out.is_empty() {
            match std::task::ready!(self.io.poll_write(cx, &mut self.out)) {
                Ok(n) => self.bytes(0, n as u64),
                Err(_) => return Poll::Pending,
            }
        }
        if self.ending && !self.ended {
            let _ = std::task::ready!(self.io.poll_shutdown(cx));
            self.ended = true;
        }
        Poll::Ready(())
    }

    /// What the peer sent; `None` at its end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamFailure>> {
        if self.peer_ended {
            return Poll::Ready(Ok(None));
        }
        if self.is_cut(cx) {
            return Poll::Ready(Err(UpstreamFailure::new(FailureKind::ConnectionTermination)));
        }
        let worker = &self.pool.context.worker;
        match std::task::ready!(worker.with_scratch(|scratch| self.io.poll_read(cx, scratch, &mut self.read))) {
            Ok(0) => {
                self.peer_ended = true;
                self.closed_by_peer = self.ended;
                Poll::Ready(Ok(None))
            }
            Ok(n) => {
                self.bytes(n as u64, 0);
                Poll::Ready(Ok(Some(self.read.split().freeze())))
            }
            Err(_) => {
                self.closed_by_peer = true;
                Poll::Ready(Err(UpstreamFailure::new(FailureKind::ConnectionTermination)))
            }
        }
    }

    /// Whether the peer's end was seen.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.peer_ended
    }
}

impl Drop for TcpLease {
    fn drop(&mut self) {
        // A stream that came to both its ends was no longer active when its connection went.
        let active = !(self.ended && self.peer_ended);
        self.guard.ended(self.closed_by_peer, 1, active);
        if let Some(cut) = &self.cut {
            self.pool.state.borrow_mut().cuts.retain(|other| !Rc::ptr_eq(cut, other));
        }
        self.pool.left();
        self.pool.connect_as_needed();
    }
}

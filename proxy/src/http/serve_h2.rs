//! A downstream HTTP/2 connection: accepts streams, each a task of its own, until either side ends it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use filters::http::{Known, RequestHead};

use super::codec::h2::inspect::Fault;
use super::codec::h2::{Accepted, Keepalive, ServerConnection, ServerExchange, Watch};
use super::manager::{Connection, Manager};
use super::stream::{self, Incoming};
use crate::transport::Io;
use crate::worker::timer::{Alarm, Tick};

/// Streams accepted in one go, unless `http.max_requests_per_io_cycle` says otherwise: any number.
const MAX_REQUESTS_KEY: &str = "http.max_requests_per_io_cycle";

/// Serves the connection to its end; says whether the peer ended it.
pub(super) async fn serve(manager: &Rc<Manager>, connection: &Rc<Connection>, io: Io) -> bool {
    let mut server = Server::new(manager, connection, io);
    let cut = Cut { manager, connection, watch: server.watch.clone(), armed: true };
    let end = poll_fn(|cx| server.poll(cx)).await;
    cut.disarm();
    server.close(end).await
}

/// Closes a connection that was to speak HTTP/2 and does not, without a word; says whether the peer did it first.
pub(super) async fn refuse(manager: &Rc<Manager>, io: Io) -> bool {
    manager.stats.downstream_cx_protocol_error().inc();
    let h2 = ServerConnection::new(io, &manager.h2_options);
    linger(manager, h2.watch(), &manager.worker.timers().alarm()).await
}

/// Tells the streams of a connection that is dropped why they end: they are tasks of their own, and outlive it a little.
struct Cut<'a> {
    manager: &'a Manager,
    connection: &'a Connection,
    watch: Watch,
    armed: bool,
}

impl Cut<'_> {
    /// The connection ends by itself.
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if self.armed {
            if self.connection.active.get() > 0 {
                self.manager.count_cut_while_active();
            }
            self.watch.end_as(self.connection.cut_details());
        }
    }
}

/// How far this side has come with ending the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client was told to open no more streams; it may not have heard yet.
    Draining,
    /// Streams it opens now are not served any more.
    Closing,
}

/// Why the connection is over.
enum End {
    /// The client closed it.
    Peer,
    /// This side did, when there was nothing left to do.
    Us,
    /// The client broke the protocol.
    Fault(Fault),
    /// This side closes it at once; what streams log.
    Abrupt(&'static str),
}

struct Server<'a> {
    manager: &'a Rc<Manager>,
    connection: &'a Rc<Connection>,
    h2: ServerConnection,
    watch: Watch,
    alarm: Alarm,
    keepalive: Keepalive,
    phase: Phase,
    /// Streams that were accepted and are not over.
    streams: Rc<Cell<u32>>,
    idle_since: Tick,
    max_duration: Tick,
    /// Streams accepted in one go.
    max_accepted: u64,
    /// When draining becomes closing.
    drained: Tick,
}

impl<'a> Server<'a> {
    fn new(manager: &'a Rc<Manager>, connection: &'a Rc<Connection>, io: Io) -> Self {
        let timers = manager.worker.timers();
        let now = timers.now();
        let h2 = ServerConnection::new(io, &manager.h2_options);
        Self {
            watch: h2.watch().clone(),
            h2,
            alarm: timers.alarm(),
            keepalive: Keepalive::new(manager.h2_options.protocol.keepalive, now),
            phase: Phase::Open,
            streams: Rc::default(),
            idle_since: now,
            max_duration: connection.old_from.get(),
            max_accepted: manager.worker.runtime().integer(MAX_REQUESTS_KEY).unwrap_or(u64::MAX).max(1),
            drained: Tick::NEVER,
            manager,
            connection,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.connection.watch_drain(cx);
        // GOAWAY goes before the response that was the occasion for it.
        self.drain(cx);
        let over = self.accept(cx);
        self.count();
        if let Some(fault) = self.watch.fault() {
            return Poll::Ready(End::Fault(fault));
        }
        if let Some(over) = over {
            return Poll::Ready(over);
        }
        if self.connection.reset_too_often.get() {
            self.manager.stats.downstream_rq_too_many_premature_resets().inc();
            return Poll::Ready(End::Abrupt("too_many_premature_resets"));
        }
        if self.keepalive.wants_handle() {
            self.keepalive.attach(self.h2.ping_pong());
        }
        self.clock(cx)
    }

    /// Takes the streams that have come.
    fn accept(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let mut accepted = 0_u64;
        loop {
            if accepted >= self.max_accepted {
                cx.waker().wake_by_ref();
                return None;
            }
            match self.h2.poll_accept(cx) {
                Poll::Pending => {
                    for refusal in self.watch.take_unclaimed() {
                        stream::refused(self.manager, self.connection, refusal.details, refusal.protocol_error);
                    }
                    return None;
                }
                Poll::Ready(None) if self.watch.saw_end() => return Some(End::Peer),
                Poll::Ready(None) => return Some(End::Us),
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() || error.reason().is_some_and(|reason| reason != h2::Reason::NO_ERROR) {
                        self.manager.stats.downstream_cx_protocol_error().inc();
                    }
                    return Some(End::Peer);
                }
                Poll::Ready(Some(Ok(Accepted::Stream(head, exchange)))) => {
                    accepted += 1;
                    self.spawn(head, exchange);
                }
                Poll::Ready(Some(Ok(Accepted::Refused(refusal)))) => {
                    stream::refused(self.manager, self.connection, refusal.details, refusal.protocol_error);
                }
            }
        }
    }

    fn spawn(&self, head: RequestHead, mut exchange: ServerExchange) {
        self.manager.http2_stats.streams_active().inc();
        let streams = Rc::clone(&self.streams);
        streams.set(streams.get() + 1);
        let (manager, connection) = (Rc::clone(self.manager), Rc::clone(self.connection));
        let began = manager.worker.timers().turn();
        // Boxed: spawning moves a task several times, and this one is some kilobytes.
        tokio::task::spawn_local(Box::pin(async move {
            let alarm = manager.worker.timers().alarm();
            let expects_continue =
                head.headers.value(&Known::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
            let incoming = Incoming { head, began, expects_continue, last: false, case: None };
            stream::serve(&manager, &connection, &alarm, &mut exchange, incoming).await;
            // Dropped before its request is complete, the stream ends with RST_STREAM(NO_ERROR) once the response is
            // written (RFC 9113 section 8.1).
            exchange.close().await;
            manager.http2_stats.streams_active().dec();
            streams.set(streams.get() - 1);
            connection.stream_ended();
        }));
    }

    /// What depends on time: PINGs, idleness, the steps of draining.
    fn clock(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let timers = self.manager.worker.timers();
        let timeouts = &self.manager.config.timeouts;
        let busy = self.streams.get() > 0;
        let mut now = timers.now();
        if busy {
            self.idle_since = now;
        }
        loop {
            if !self.keepalive.poll(self.watch.take_heard(), now, cx) {
                self.manager.http2_stats.keepalive_timeout().inc();
                return Poll::Ready(End::Abrupt("downstream_local_disconnect(http2_ping_timeout)"));
            }
            self.drain(cx);
            if self.drained <= now {
                self.drained = Tick::NEVER;
                self.phase = Phase::Closing;
                self.watch.finish_shutdown();
                cx.waker().wake_by_ref();
            }
            let idle =
                if busy || self.phase != Phase::Open { Tick::NEVER } else { self.idle_since.after_opt(timeouts.idle) };
            let last = if self.phase == Phase::Open { self.max_duration } else { Tick::NEVER };
            let next = idle.min(last).min(self.drained).min(self.keepalive.rings());
            if self.alarm.poll(next, cx).is_pending() {
                return Poll::Pending;
            }
            now = timers.now();
            if idle <= now {
                self.manager.stats.downstream_cx_idle_timeout().inc();
                self.connection.draining.set(true);
            } else if last <= now {
                self.manager.stats.downstream_cx_max_duration_reached().inc();
                self.connection.draining.set(true);
            }
        }
    }

    /// Tells the client to open no more streams, if that is due and was not done.
    fn drain(&mut self, cx: &Context<'_>) {
        if self.phase == Phase::Open && self.connection.draining.get() && self.h2.is_open() {
            let now = self.manager.worker.timers().now();
            self.phase = Phase::Draining;
            self.drained = now.after(self.manager.config.timeouts.drain_time(fastrand::f64()));
            self.watch.hold_shutdown();
            self.h2.graceful_shutdown();
            cx.waker().wake_by_ref();
        }
    }

    /// Ends the connection; says whether the peer did it first.
    async fn close(self, end: End) -> bool {
        let stats = &self.manager.stats;
        let begun = self.watch.begun();
        let busy = self.streams.get() > 0 && self.watch.open_streams() > 0 || !begun.is_empty();
        let by_peer = matches!(end, End::Peer);
        if busy {
            stats.downstream_cx_destroy_active_rq().inc();
            // One that this side cuts counts as if the client had left.
            if by_peer || matches!(end, End::Abrupt(_)) {
                stats.downstream_cx_destroy_remote_active_rq().inc();
            } else {
                stats.downstream_cx_destroy_local_active_rq().inc();
            }
        }
        if let End::Abrupt(details) = end {
            self.watch.end_as(details);
        }
        // Streams learn of the end by the codec's.
        drop(self.h2);
        let by_peer = match end {
            End::Peer => true,
            End::Us | End::Abrupt(_) => false,
            End::Fault(fault) => {
                if fault.protocol_error {
                    stats.downstream_cx_protocol_error().inc();
                }
                for number in begun {
                    let details = fault.details_of(number);
                    stream::refused(self.manager, self.connection, details, true);
                }
                self.watch.say_goodbye(&fault).await;
                linger(self.manager, &self.watch, &self.alarm).await
            }
        };
        count(self.manager, &self.watch);
        by_peer
    }

    fn count(&self) {
        count(self.manager, &self.watch);
    }
}

/// Leaves the client `delayed_close_timeout` to read what was said and close first; says whether it did.
async fn linger(manager: &Manager, watch: &Watch, alarm: &Alarm) -> bool {
    let worker = &manager.worker;
    let Some(timeout) = manager.config.timeouts.delayed_close else { return false };
    let until = worker.timers().now().after(timeout);
    poll_fn(|cx| {
        if worker.with_scratch(|scratch| watch.poll_closed(scratch, cx)).is_ready() {
            return Poll::Ready(true);
        }
        alarm.poll(until, cx).map(|()| {
            manager.stats.downstream_cx_delayed_close_timeout().inc();
            false
        })
    })
    .await
}

/// Moves what the wire counted to the statistics.
fn count(manager: &Manager, watch: &Watch) {
    let counts = watch.take_counts();
    manager.stats.downstream_cx_rx_bytes_total().add(counts.rx_bytes);
    manager.stats.downstream_cx_tx_bytes_total().add(counts.tx_bytes);
    if counts.events {
        counts.add_to(&manager.http2_stats);
    }
}

//! One connection of a TCP proxy from its beginning to its end.
//!
//! An end on one side is passed on as a half close, an upstream's reset as a reset; the connection is over when both
//! directions have ended, one side broke it, nothing moved for `idle_timeout`, or `max_downstream_connection_duration` is
//! over. The limits on its time hold from its first moment, while there is no upstream connection yet too.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::BytesMut;
use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, FormatContext};
use filters::stream_info::{ByteMeter, ConnectionInfo, Proxied, StreamId, StreamInfo};

use super::direction::{Side, Tally};
use super::flow::Flow;
use super::proxy::TcpProxy;
use crate::downstream::drain::Drain;
use crate::transport::Io;
use crate::worker::timer::{Alarm, Tick};

/// A connection and its record, which is logged however the connection ends: a listener that has drained drops those that
/// are left.
pub(super) struct Session<'a> {
    pub(super) proxy: &'a TcpProxy,
    pub(super) info: StreamInfo,
    pub(super) down: Io,
    clocks: Clocks,
    early: Early,
    /// What crossed upstream connections of attempts before this one.
    pub(super) spent: ByteMeter,
}

/// What a client says before there is an upstream connection (`max_early_data_bytes`).
#[derive(Default)]
struct Early {
    bytes: BytesMut,
    /// It has said something, if only that nothing follows.
    heard: bool,
    ended: bool,
}

/// What ends a connection, or is said about it, by time alone.
struct Clocks {
    alarm: Alarm,
    /// `max_downstream_connection_duration` is over.
    end: Tick,
    /// Nothing has moved for `idle_timeout`.
    idle: Tick,
    /// `access_log_flush_interval`
    log_at: Tick,
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Both sides sent all they had; who was last is the one who closed.
    Complete {
        by_upstream: bool,
    },
    UpstreamReset,
    DownstreamReset,
    /// The cluster closes connections to hosts that fail.
    HostFailed,
    Drained,
    Idle,
    TooLong,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // In a panic, whatever a log would be asked for may be the reason.
        if !std::thread::panicking() {
            self.info.end = Some(Instant::now());
            self.log(AccessLogType::TcpConnectionEnd);
            let connection = Rc::clone(&self.info.connection);
            if connection.outcome.wanted.get() {
                let nothing = StreamInfo::new(Rc::clone(&connection), self.info.start, self.info.start_time, 0);
                *connection.outcome.stream.borrow_mut() = Some(Box::new(std::mem::replace(&mut self.info, nothing)));
            }
        }
    }
}

impl<'a> Session<'a> {
    /// A connection that begins now.
    pub(super) fn new(proxy: &'a TcpProxy, connection: &Rc<ConnectionInfo>, down: Io) -> Self {
        proxy.stats.downstream_cx_total().inc();
        let info = StreamInfo::new(
            Rc::clone(connection),
            connection.accepted,
            SystemTime::now(),
            StreamId::Uuid(fastrand::u128(..)),
        );
        let timers = proxy.worker.timers();
        let now = timers.now();
        let clocks = Clocks {
            alarm: timers.alarm(),
            end: now.after_opt(proxy.max_duration()),
            idle: now.after_opt(proxy.config.idle_timeout),
            log_at: now.after_opt(proxy.config.access_log_flush_interval),
        };
        Self { proxy, info, down, clocks, early: Early::default(), spent: ByteMeter::default() }
    }

    /// A filter before this one has closed it.
    pub(super) fn refused(mut self, flags: ResponseFlags) {
        self.info.flags = flags;
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self, drains: &[&Drain; 3], cluster: Option<&Arc<str>>) {
        if self.proxy.config.flush_access_log_on_start {
            self.log(AccessLogType::TcpConnectionStart);
        }
        self.tell_upstreams();
        let connected = match self.first_words().await {
            Ok(()) => self.connect(cluster).await,
            Err(outcome) => Err(outcome),
        };
        let outcome = match connected {
            Ok(Some(mut flow)) => {
                self.down.unread(self.early.bytes.split().freeze());
                self.note(&flow);
                if self.proxy.config.flush_access_log_on_connected {
                    self.log(AccessLogType::TcpUpstreamConnected);
                }
                let outcome = self.copy(&mut flow, drains).await;
                if matches!(outcome, Outcome::Complete { by_upstream: true } | Outcome::UpstreamReset) {
                    flow.closed_by_peer();
                }
                outcome
            }
            Ok(None) => return self.lost(),
            Err(outcome) => outcome,
        };
        self.lost();
        self.ended(outcome);
    }

    /// Waits for `step`, as long as the connection's time allows.
    pub(super) async fn wait<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut step = std::pin::pin!(step);
        poll_fn(|cx| {
            if let Poll::Ready(value) = step.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            while let Poll::Ready(heard) = self.poll_early(cx) {
                if heard.is_err() {
                    return Poll::Ready(Err(Outcome::DownstreamReset));
                }
            }
            self.poll_clocks(cx).map(Err)
        })
        .await
    }

    /// Waits for the client's first words, where they are wanted before there is an upstream connection. One that ends
    /// without any is not connected to anything.
    async fn first_words(&mut self) -> Result<(), Outcome> {
        if !self.proxy.config.connect_on_data {
            return Ok(());
        }
        poll_fn(|cx| {
            loop {
                if !self.early.bytes.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                match self.poll_early(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Outcome::DownstreamReset)),
                    Poll::Pending => return self.poll_clocks(cx).map(Err),
                }
            }
        })
        .await
    }

    /// Reads what the client says before there is an upstream connection, as far as that is wanted.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(most) = self.proxy.config.max_early_data else { return Poll::Pending };
        let Early { bytes, heard, ended } = &mut self.early;
        if *ended || *heard && bytes.len() >= most {
            return Poll::Pending;
        }
        let n = ready!(self.proxy.worker.with_scratch(|scratch| self.down.poll_read(cx, scratch, bytes)))?;
        (*heard, *ended) = (true, n == 0);
        self.proxy.stats.early_data_received_count_total().inc();
        Poll::Ready(Ok(()))
    }

    /// Counts what the client said that went nowhere.
    fn lost(&mut self) {
        let lost = self.early.bytes.len() as u64;
        if lost > 0 {
            self.info.downstream_bytes.wire_rx += lost;
            self.info.bytes_received += lost;
            self.proxy.stats.downstream_cx_rx_bytes_total().add(lost);
        }
    }

    /// Notes what upstreams may be told of the connection by the PROXY protocol.
    fn tell_upstreams(&self) {
        let config = &self.proxy.config;
        let configured = || {
            let tlvs = &config.tlvs;
            tlvs.fixed().iter().cloned().chain(tlvs.formatted(&self.info)).collect()
        };
        let said = match self.info.connection.proxied.take() {
            Proxied::Untold => None,
            Proxied::Told(said) => Some(said),
        };
        let told = config.tlv_merge.merge(said, configured);
        self.info.connection.proxied.replace(Proxied::Told(told));
    }

    fn log(&mut self, log_type: AccessLogType) {
        self.info.add_connection();
        let context = FormatContext { log_type, ..FormatContext::new(&self.info) };
        let worker = &self.proxy.worker;
        for log in &*self.proxy.logs {
            log.log(&context, worker.logs(), &*worker.runtime());
        }
    }

    /// Something moved, or an upstream connection was made.
    pub(super) fn touch(&mut self) {
        self.clocks.idle = self.proxy.worker.timers().now().after_opt(self.proxy.config.idle_timeout);
    }

    /// Ready when the connection's time is over. Logs it while it lives, where that is wanted.
    fn poll_clocks(&mut self, cx: &Context<'_>) -> Poll<Outcome> {
        loop {
            let Clocks { alarm, end, idle, log_at } = &self.clocks;
            if alarm.poll((*idle).min(*end).min(*log_at), cx).is_pending() {
                return Poll::Pending;
            }
            let now = self.proxy.worker.timers().now();
            if *end <= now && *end != Tick::NEVER {
                return Poll::Ready(Outcome::TooLong);
            }
            if *idle <= now && *idle != Tick::NEVER {
                return Poll::Ready(Outcome::Idle);
            }
            self.clocks.log_at = now.after_opt(self.proxy.config.access_log_flush_interval);
            self.log(AccessLogType::TcpPeriodic);
        }
    }

    /// Moves bytes until the connection is over.
    async fn copy(&mut self, flow: &mut Flow, drains: &[&Drain; 3]) -> Outcome {
        let outcome = poll_fn(|cx| {
            if flow.is_cut(cx) {
                return Poll::Ready(Outcome::HostFailed);
            }
            loop {
                let before = flow.tallies();
                let request_open = !flow.request_is_closed();
                let (sent, received) = flow.poll(cx, &self.proxy.worker, &mut self.down);
                let after = flow.tallies();
                flow.count(before);
                self.count(after, before);
                match (sent, received) {
                    (Poll::Ready(Err(Side::To)), _) | (_, Poll::Ready(Err(Side::From))) => {
                        return Poll::Ready(Outcome::UpstreamReset);
                    }
                    (Poll::Ready(Err(Side::From)), _) | (_, Poll::Ready(Err(Side::To))) => {
                        return Poll::Ready(Outcome::DownstreamReset);
                    }
                    (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                        return Poll::Ready(Outcome::Complete { by_upstream: !request_open });
                    }
                    _ => {}
                }
                if (after.0.moved, after.1.moved) == (before.0.moved, before.1.moved) {
                    self.note(flow);
                    return self.poll_clocks(cx);
                }
                self.touch();
                if self.proxy.config.check_drain_close && closes(drains) {
                    return Poll::Ready(Outcome::Drained);
                }
            }
        })
        .await;
        self.note(flow);
        outcome
    }

    /// Notes what has crossed so far: what came from one side went to the other.
    fn note(&mut self, flow: &Flow) {
        let (request, response) = flow.tallies();
        let (info, received, sent) = (&mut self.info, request.moved, response.moved);
        (info.bytes_received, info.bytes_sent) = (received, sent);
        (info.downstream_bytes.wire_rx, info.downstream_bytes.wire_tx) = (received, sent);
        info.upstream_bytes = self.spent;
        info.upstream_bytes += flow.meter();
    }

    /// Counts what has happened since `before`.
    fn count(&self, (request, response): (Tally, Tally), before: (Tally, Tally)) {
        let stats = &self.proxy.stats;
        let (received, sent) = (request.moved - before.0.moved, response.moved - before.1.moved);
        if received > 0 || sent > 0 {
            stats.downstream_cx_rx_bytes_total().add(received);
            stats.downstream_cx_tx_bytes_total().add(sent);
        }
        if request.paused != before.0.paused || request.resumed != before.0.resumed {
            stats.downstream_flow_control_paused_reading_total().add(request.paused - before.0.paused);
            stats.downstream_flow_control_resumed_reading_total().add(request.resumed - before.0.resumed);
        }
    }

    /// Counts and notes how it ended.
    fn ended(&mut self, outcome: Outcome) {
        self.info.bytes_received += self.down.denied_bytes();
        let stats = &self.proxy.stats;
        match outcome {
            Outcome::Complete { .. } | Outcome::DownstreamReset | Outcome::HostFailed => {}
            Outcome::UpstreamReset => {
                self.info.flags.insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
                self.down.reset_on_close();
            }
            Outcome::Drained => stats.downstream_cx_drain_close().inc(),
            Outcome::Idle => stats.idle_timeout().inc(),
            Outcome::TooLong => {
                stats.max_downstream_connection_duration().inc();
                self.info.flags.insert(ResponseFlags::DURATION_TIMEOUT);
            }
        }
    }
}

/// Whether it is this connection's turn to close because something it belongs to drains.
fn closes(drains: &[&Drain; 3]) -> bool {
    drains.iter().any(|drain| drain.plan().is_some_and(|plan| plan.closes(Instant::now(), fastrand::f64())))
}

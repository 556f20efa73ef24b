//! `envoy.filters.network.tcp_proxy`: one downstream connection to one upstream connection, bytes both ways.
//!
//! Each direction has a buffer of its own and reads only when that buffer is empty, so a slow reader stops its peer at
//! the socket and never makes memory grow. An end on one side is passed on as a half close, an upstream's reset as a reset;
//! the connection is over when both directions have ended, one side broke it, nothing moved for `idle_timeout`, or
//! `max_downstream_connection_duration` is over.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, FormatContext};
use filters::stream_info::{ConnectionInfo, StreamInfo};

use crate::config::service::TcpChain;
use crate::config::tcp_proxy::{Target, TcpProxyConfig};
use crate::downstream::drain::Drain;
use crate::observe::access_log::AccessLog;
use crate::observe::catalogue::TcpStats;
use crate::route::MetadataMatch;
use crate::route::hash::address_hash;
use crate::transport::Io;
use crate::upstream::breaker::{Priority, Resource};
use crate::upstream::cluster::Cluster;
use crate::upstream::failure::FailureKind;
use crate::upstream::lb::PickContext;
use crate::upstream::outlier;
use crate::upstream::pool::{Lease, PoolProtocol, TcpLease};
use crate::upstream::retry::back_off::BackOff;
use crate::worker::Worker;
use crate::worker::timer::Tick;

use super::direction::{Direction, Limits, Side, Tally};

/// A TCP proxy of one filter chain on one worker.
pub struct TcpProxy {
    /// The worker.
    pub worker: Rc<Worker>,
    /// Configuration.
    pub config: Arc<TcpProxyConfig>,
    /// `tcp.<stat_prefix>.`
    pub stats: TcpStats,
    /// Access logs, empty for none.
    pub logs: Arc<[AccessLog]>,
    /// Bytes a client's connection may buffer.
    buffer_limit: usize,
    /// Keeps the statistics in the scrape.
    _group: Arc<stats::GroupHandle<TcpStats>>,
}

/// A connection's record, logged however the connection ends: a listener that has drained drops those that are left.
struct Logged<'a> {
    proxy: &'a TcpProxy,
    info: StreamInfo,
}

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        // In a panic, whatever a log would be asked for may be the reason.
        if !std::thread::panicking() {
            self.info.end = Some(Instant::now());
            self.proxy.log(&self.info, AccessLogType::TcpConnectionEnd);
        }
    }
}

impl TcpProxy {
    /// The proxy a chain's configuration describes, on `worker`, for connections that may buffer `buffer_limit` bytes.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, chain: &TcpChain, buffer_limit: usize) -> Rc<Self> {
        let group = worker.store().group::<TcpStats>(&format!("tcp.{}.", chain.config.stat_prefix));
        Rc::new(Self {
            worker: Rc::clone(worker),
            config: Arc::clone(&chain.config),
            stats: group.shard(worker.index()),
            logs: Arc::clone(&chain.logs),
            buffer_limit,
            _group: group,
        })
    }

    /// Counts and logs a connection that a filter before this one has closed.
    pub fn refused(&self, connection: &Rc<ConnectionInfo>, flags: ResponseFlags) {
        self.stats.downstream_cx_total().inc();
        let now = std::time::SystemTime::now();
        let mut info = StreamInfo::new(Rc::clone(connection), connection.accepted, now, fastrand::u64(..));
        info.flags = flags;
        drop(Logged { proxy: self, info });
    }

    /// Serves one connection to its end. `drains` are what it belongs to: the process, the listener, the chain. A `cluster`
    /// that a filter chose goes before the configured one.
    pub async fn serve(
        self: Rc<Self>,
        connection: Rc<ConnectionInfo>,
        mut down: Io,
        drains: &[&Drain; 3],
        cluster: Option<&Arc<str>>,
    ) {
        self.stats.downstream_cx_total().inc();
        let now = std::time::SystemTime::now();
        let info = StreamInfo::new(Rc::clone(&connection), connection.accepted, now, fastrand::u64(..));
        if self.config.flush_access_log_on_start {
            self.log(&info, AccessLogType::TcpConnectionStart);
        }
        let mut logged = Logged { proxy: &self, info };
        let chosen = cluster.map(|cluster| self.config.chosen(cluster));
        let target = chosen.as_ref().unwrap_or_else(|| self.config.cluster.pick(fastrand::u64(..)));
        self.run(&mut logged.info, &mut down, drains, target).await;
    }

    fn log(&self, info: &StreamInfo, log_type: AccessLogType) {
        let context = FormatContext { log_type, ..FormatContext::new(info) };
        for log in &*self.logs {
            log.log(&context, self.worker.logs(), &*self.worker.runtime());
        }
    }

    async fn run(&self, info: &mut StreamInfo, down: &mut Io, drains: &[&Drain; 3], target: &Target) {
        let Some(cluster) = self.worker.cluster(&target.cluster) else {
            self.stats.downstream_cx_no_route().inc();
            info.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            return;
        };
        info.upstream_mut().cluster = Some(Arc::clone(&cluster.config().observability_name));
        let Some(mut lease) = self.connect(&cluster, target.metadata_match.as_ref(), info).await else { return };
        if self.config.flush_access_log_on_connected {
            self.log(info, AccessLogType::TcpUpstreamConnected);
        }
        self.copy(info, down, &mut lease, drains).await;
    }

    /// A connection to a host of the cluster, in as many attempts as are allowed; what failed is noted.
    async fn connect(
        &self,
        cluster: &Rc<Cluster>,
        metadata: Option<&MetadataMatch>,
        info: &mut StreamInfo,
    ) -> Option<TcpLease> {
        let context = cluster.context();
        let hash = if self.config.hash_by_source { address_hash(&info.remote) } else { None };
        let mut back_off = self.config.backoff.map(|(base, max)| BackOff::between(base, max));
        for attempt in 0..self.config.max_connect_attempts.get() {
            if let Some(back_off) = back_off.as_mut().filter(|_| attempt > 0) {
                let timers = self.worker.timers();
                timers.sleep_until(timers.now().after(back_off.next(fastrand::u64(..)))).await;
            }
            // Unlike a pool, which may always open its first connection, a TCP proxy does not ask where the limit is reached.
            if context.breakers.try_acquire(Priority::Default, Resource::Connections).is_err() {
                context.stats.upstream_cx_overflow().inc();
                info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                return None;
            }
            let destination = cluster.destination(None, &info.connection);
            let Some(host) = cluster.pick(&PickContext { destination, hash, metadata, ..PickContext::default() })
            else {
                context.stats.upstream_cx_none_healthy().inc();
                info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
                return None;
            };
            let client = Some(info.connection.id);
            let Some(pool) = cluster.owner(&host).pool(&host, Priority::Default, PoolProtocol::Tcp, client) else {
                info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
                return None;
            };
            let upstream = info.upstream_mut();
            upstream.attempts += 1;
            let asked = Instant::now();
            let outcome = pool.acquire().await;
            upstream.pool_ready = Some(asked.elapsed());
            if !outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Overflow) {
                upstream.host = Some(Arc::clone(host.address()));
                upstream.host_name = Some(Arc::clone(host.hostname()));
                upstream.hosts_attempted.push(Arc::clone(host.address()));
            }
            match outcome {
                Ok(Lease::Tcp(lease)) => {
                    self.worker.note(&host, outlier::Outcome::ConnectedFinally);
                    upstream.connected = true;
                    upstream.connection_id = Some(lease.connection_id());
                    upstream.local = lease.local_address();
                    return Some(*lease);
                }
                // A pool of this protocol gives nothing else.
                Ok(Lease::Http1(_) | Lease::Http2(_)) => return None,
                Err(failure) => {
                    match failure.kind {
                        FailureKind::Overflow => {}
                        FailureKind::ConnectTimeout => self.worker.note(&host, outlier::Outcome::TimedOut(504)),
                        _ => self.worker.note(&host, outlier::Outcome::ConnectFailed),
                    }
                    if failure.kind != FailureKind::Overflow {
                        info.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                    }
                    info.upstream_mut().transport_failure = failure.transport;
                }
            }
        }
        context.stats.upstream_cx_connect_attempts_exceeded().inc();
        info.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        None
    }

    /// Moves bytes until the connection is over.
    async fn copy(&self, info: &mut StreamInfo, down: &mut Io, lease: &mut TcpLease, drains: &[&Drain; 3]) {
        let timers = self.worker.timers();
        let alarm = timers.alarm();
        let end = timers.now().after_opt(self.max_duration());
        let mut idle = timers.now().after_opt(self.config.idle_timeout);
        let mut log_at = timers.now().after_opt(self.config.access_log_flush_interval);
        let (client, host) = (self.buffer_limit, lease.buffer_limit());
        let mut request = Direction::new(Limits { from: client, to: host });
        let mut response = Direction::new(Limits { from: host, to: client });
        let outcome = poll_fn(|cx| {
            loop {
                let before = (request.tally(), response.tally());
                let request_open = !request.is_closed();
                let sent = request.poll(cx, &self.worker, down, &mut lease.io);
                let received = response.poll(cx, &self.worker, &mut lease.io, down);
                self.count(lease, request.tally(), response.tally(), before);
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
                if (request.tally().moved, response.tally().moved) != (before.0.moved, before.1.moved) {
                    idle = timers.now().after_opt(self.config.idle_timeout);
                    if self.config.check_drain_close && closes(drains) {
                        return Poll::Ready(Outcome::Drained);
                    }
                    continue;
                }
                if alarm.poll(idle.min(end).min(log_at), cx).is_pending() {
                    return Poll::Pending;
                }
                let now = timers.now();
                if end <= now && end != Tick::NEVER {
                    return Poll::Ready(Outcome::TooLong);
                }
                if idle <= now && idle != Tick::NEVER {
                    return Poll::Ready(Outcome::Idle);
                }
                log_at = now.after_opt(self.config.access_log_flush_interval);
                note(info, request.tally().moved, response.tally().moved);
                self.log(info, AccessLogType::TcpPeriodic);
            }
        })
        .await;
        note(info, request.tally().moved, response.tally().moved);
        if let Some(denial) = down.take_denial() {
            info.bytes_received += denial.bytes;
            info.termination_details = Some(denial.details.into());
        }
        match outcome {
            Outcome::Complete { by_upstream: false } | Outcome::DownstreamReset => {}
            Outcome::Complete { by_upstream: true } => lease.closed_by_peer(),
            Outcome::UpstreamReset => {
                lease.closed_by_peer();
                info.flags.insert(ResponseFlags::UPSTREAM_REMOTE_RESET);
                down.reset_on_close();
            }
            Outcome::Drained => self.stats.downstream_cx_drain_close().inc(),
            Outcome::Idle => self.stats.idle_timeout().inc(),
            Outcome::TooLong => {
                self.stats.max_downstream_connection_duration().inc();
                info.flags.insert(ResponseFlags::DURATION_TIMEOUT);
            }
        }
    }

    /// Counts what has happened since `before`.
    fn count(&self, lease: &mut TcpLease, request: Tally, response: Tally, before: (Tally, Tally)) {
        let (received, sent) = (request.moved - before.0.moved, response.moved - before.1.moved);
        if received > 0 || sent > 0 {
            self.stats.downstream_cx_rx_bytes_total().add(received);
            self.stats.downstream_cx_tx_bytes_total().add(sent);
            lease.bytes(sent, received);
        }
        if request.paused != before.0.paused || request.resumed != before.0.resumed {
            self.stats.downstream_flow_control_paused_reading_total().add(request.paused - before.0.paused);
            self.stats.downstream_flow_control_resumed_reading_total().add(request.resumed - before.0.resumed);
        }
        if response.paused != before.1.paused || response.resumed != before.1.resumed {
            lease.flow_control(response.paused - before.1.paused, response.resumed - before.1.resumed);
        }
    }

    /// How long this connection may live: the configured time, and a random part of its jitter.
    fn max_duration(&self) -> Option<Duration> {
        let longest = self.config.duration_jitter_percentage / 100.0;
        self.config.max_downstream_connection_duration.map(|limit| limit.mul_f64(1.0 + longest * fastrand::f64()))
    }
}

/// Notes what has crossed so far: what came from one side went to the other.
const fn note(info: &mut StreamInfo, received: u64, sent: u64) {
    (info.bytes_received, info.bytes_sent) = (received, sent);
    (info.downstream_bytes.wire_rx, info.downstream_bytes.wire_tx) = (received, sent);
    (info.upstream_bytes.wire_rx, info.upstream_bytes.wire_tx) = (sent, received);
}

/// Whether it is this connection's turn to close because something it belongs to drains.
fn closes(drains: &[&Drain; 3]) -> bool {
    drains.iter().any(|drain| drain.plan().is_some_and(|plan| plan.closes(Instant::now(), fastrand::f64())))
}

/// How a connection came to its end.
enum Outcome {
    /// Both sides sent all they had; who was last is the one who closed.
    Complete {
        by_upstream: bool,
    },
    UpstreamReset,
    DownstreamReset,
    Drained,
    Idle,
    TooLong,
}

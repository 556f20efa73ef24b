//! `envoy.filters.network.tcp_proxy`: one downstream connection to one upstream connection, bytes both ways.
//!
//! Each direction has a buffer of its own and reads only when that buffer is empty, so a slow reader stops its peer at
//! the socket and never makes memory grow. An end on one side is passed on as a half close; the connection is over when
//! both directions have ended, nothing moved for `idle_timeout`, or `max_downstream_connection_duration` is over.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use filters::flags::{ResponseFlags, details};
use filters::format::{AccessLogType, FormatContext};
use filters::stream_info::{ConnectionInfo, StreamInfo};

use crate::config::service::TcpChain;
use crate::config::tcp_proxy::TcpProxyConfig;
use crate::http::codec::h1::WriteBuf;
use crate::observe::access_log::AccessLog;
use crate::observe::catalogue::TcpStats;
use crate::transport::Io;
use crate::upstream::breaker::{Priority, Resource};
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::{self, TcpLease};
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::lb::PickContext;
use crate::worker::Worker;
use crate::worker::timer::Tick;

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
    /// Keeps the statistics in the scrape.
    _group: Arc<stats::GroupHandle<TcpStats>>,
}

impl TcpProxy {
    /// The proxy a chain's configuration describes, on `worker`.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, chain: &TcpChain) -> Rc<Self> {
        let group = worker.store().group::<TcpStats>(&format!("tcp.{}.", chain.config.stat_prefix));
        Rc::new(Self {
            worker: Rc::clone(worker),
            config: Arc::clone(&chain.config),
            stats: group.shard(worker.index()),
            logs: Arc::clone(&chain.logs),
            _group: group,
        })
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Rc<Self>, connection: Rc<ConnectionInfo>, mut down: Io) {
        self.stats.downstream_cx_total().inc();
        let now = std::time::SystemTime::now();
        let mut info = StreamInfo::new(Rc::clone(&connection), connection.accepted, now, fastrand::u64(..));
        self.run(&mut info, &mut down).await;
        info.end = Some(Instant::now());
        let context = FormatContext { log_type: AccessLogType::TcpConnectionEnd, ..FormatContext::new(&info) };
        for log in &*self.logs {
            log.log(&context, self.worker.logs(), &*self.worker.runtime());
        }
    }

    async fn run(&self, info: &mut StreamInfo, down: &mut Io) {
        let random = fastrand::u64(..);
        let name = self.config.cluster.pick(random);
        let Some(cluster) = self.worker.cluster(name) else {
            self.stats.downstream_cx_no_route().inc();
            info.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
            info.details = Some(details::CLUSTER_NOT_FOUND.into());
            return;
        };
        info.upstream_mut().cluster = Some(Arc::clone(&cluster.config().observability_name));
        let mut attempts = 0;
        let (mut up, lease) = loop {
            match self.connect(&cluster, info).await {
                Ok(connected) => break connected,
                Err(failure) => {
                    attempts += 1;
                    info.upstream_mut().transport_failure = failure.transport.clone();
                    if attempts >= self.config.max_connect_attempts.get() || failure.kind == FailureKind::Overflow {
                        info.flags.insert(failure.kind.flag());
                        if attempts >= self.config.max_connect_attempts.get() {
                            cluster.context().stats.upstream_cx_connect_attempts_exceeded().inc();
                        }
                        return;
                    }
                }
            }
        };
        info.upstream_mut().local = up.local_addr();
        self.copy(info, down, &mut up, &lease).await;
        drop(lease);
    }

    async fn connect(&self, cluster: &Rc<Cluster>, info: &mut StreamInfo) -> Result<(Io, TcpLease), UpstreamFailure> {
        let context = cluster.context();
        let destination = cluster.destination(None, &info.connection);
        let pick = PickContext { destination, ..PickContext::default() };
        let Some(host) = cluster.pick(&pick) else {
            context.stats.upstream_cx_none_healthy().inc();
            info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return Err(UpstreamFailure::new(FailureKind::ConnectFailure));
        };
        let upstream = info.upstream_mut();
        upstream.attempts += 1;
        upstream.host = Some(Arc::clone(host.address()));
        upstream.host_name = Some(Arc::clone(host.hostname()));
        let Ok(permit) = context.breakers.try_acquire(Priority::Default, Resource::Connections) else {
            context.stats.upstream_cx_overflow().inc();
            return Err(UpstreamFailure::new(FailureKind::Overflow));
        };
        connect::tcp(context, &host, permit).await
    }

    /// Moves bytes until both directions have ended.
    async fn copy(&self, info: &mut StreamInfo, down: &mut Io, up: &mut Io, lease: &TcpLease) {
        let timers = self.worker.timers();
        let alarm = timers.alarm();
        let end = timers.now().after_opt(self.config.max_downstream_connection_duration);
        let mut idle = timers.now().after_opt(self.config.idle_timeout);
        let (mut request, mut response) = (Direction::default(), Direction::default());
        let outcome = poll_fn(|cx| {
            loop {
                let before = request.moved + response.moved;
                let sent = request.poll(cx, &self.worker, down, up);
                let received = response.poll(cx, &self.worker, up, down);
                match (sent, received) {
                    (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
                    (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                    _ => {}
                }
                if request.moved + response.moved != before {
                    idle = timers.now().after_opt(self.config.idle_timeout);
                    continue;
                }
                if alarm.poll(idle.min(end), cx).is_pending() {
                    return Poll::Pending;
                }
                if idle <= timers.now() && idle != Tick::NEVER {
                    self.stats.idle_timeout().inc();
                    return Poll::Ready(Ok(()));
                }
                self.stats.max_downstream_connection_duration().inc();
                return Poll::Ready(Ok(()));
            }
        })
        .await;
        info.bytes_received = request.moved;
        info.bytes_sent = response.moved;
        self.stats.downstream_cx_rx_bytes_total().add(request.moved);
        self.stats.downstream_cx_tx_bytes_total().add(response.moved);
        lease.bytes(response.moved, request.moved);
        if outcome.is_err() {
            info.termination_details.get_or_insert_with(|| "connection reset".into());
        }
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Direction {
    read: BytesMut,
    out: WriteBuf,
    ended: bool,
    closed: bool,
    moved: u64,
}

impl Direction {
    /// Ready when this direction has ended and the end was passed on.
    fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker, from: &mut Io, to: &mut Io) -> Poll<io::Result<()>> {
        loop {
            while !self.out.is_empty() {
                ready!(to.poll_write(cx, &mut self.out))?;
            }
            if self.ended {
                if !self.closed {
                    ready!(to.poll_shutdown(cx))?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let n = ready!(worker.with_scratch(|scratch| from.poll_read(cx, scratch, &mut self.read)))?;
            self.ended = n == 0;
            self.moved += n as u64;
            self.out.push(self.read.split().freeze());
        }
    }
}

//! `envoy.filters.network.tcp_proxy`: one downstream connection to one upstream connection, bytes both ways.
//!
//! A session (`tcp/session`) is a connection from its beginning to its end; `tcp/connect` gives it an upstream side, which is
//! a connection or a tunnel over HTTP (`tcp/tunnel`); a flow (`tcp/flow`) moves the bytes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use filters::flags::ResponseFlags;
use filters::stream_info::ConnectionInfo;

use super::session::Session;
use crate::config::service::TcpChain;
use crate::config::tcp_proxy::TcpProxyConfig;
use crate::downstream::drain::Drain;
use crate::observe::access_log::AccessLog;
use crate::observe::catalogue::TcpStats;
use crate::transport::Io;
use crate::worker::Worker;

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
    pub(super) buffer_limit: usize,
    /// Keeps the statistics in the scrape.
    _group: Arc<stats::GroupHandle<TcpStats>>,
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
    pub fn refused(&self, connection: &Rc<ConnectionInfo>, down: Io, flags: ResponseFlags) {
        Session::new(self, connection, down).refused(flags);
    }

    /// Serves one connection to its end. `drains` are what it belongs to: the process, the listener, the chain. A `cluster`
    /// that a filter chose goes before the configured one.
    pub async fn serve(
        self: Rc<Self>,
        connection: Rc<ConnectionInfo>,
        down: Io,
        drains: &[&Drain; 3],
        cluster: Option<&Arc<str>>,
    ) {
        Session::new(&self, &connection, down).run(drains, cluster).await;
    }

    /// How long a connection may live: the configured time, and a random part of its jitter.
    pub(super) fn max_duration(&self) -> Option<Duration> {
        let longest = self.config.duration_jitter_percentage / 100.0;
        self.config.max_downstream_connection_duration.map(|limit| limit.mul_f64(1.0 + longest * fastrand::f64()))
    }
}

//! What pools and attempts share: one version of a cluster, and a worker's part in it.

use std::rc::Rc;
use std::sync::Arc;

use stats::{ComputedHandle, GroupHandle, LazyShard, Store};

use crate::config::cluster::{ClusterConfig, UpstreamProtocol};
use crate::config::hcm::{HeaderCase, Underscores};
use crate::http::codec::h1::{ClientOptions, HeaderFormat};
use crate::http::codec::h2::Http2Options;
use crate::observe::catalogue::{ClusterStats, Http1Stats, Http2Stats, UpstreamProxyProtocolStats};
use crate::tls::statistics::{SslStats, TlsCounters};
use crate::upstream::breaker::{BreakerHandle, Breakers};
use crate::upstream::measure::{Measures, MeasuresShared};
use crate::upstream::responses::ClusterResponses;
use crate::worker::Worker;
use crate::worker::timer::Tick;

/// One version of a cluster, shared by all workers. Keeps its statistics in the scrape for as long as it lives.
pub struct ClusterShared {
    /// The configuration.
    pub config: Arc<ClusterConfig>,
    stats: Arc<GroupHandle<ClusterStats>>,
    http1: Arc<GroupHandle<Http1Stats>>,
    http2: Option<Arc<GroupHandle<Http2Stats>>>,
    /// Where connections to hosts begin with PROXY headers.
    headers: Option<Arc<GroupHandle<UpstreamProxyProtocolStats>>>,
    /// Where connections to hosts are TLS sessions.
    tls: Option<Arc<GroupHandle<SslStats>>>,
    measures: MeasuresShared,
    breakers: Arc<Breakers>,
    _breaker_gauges: Arc<ComputedHandle>,
    /// `upstream.maintenance_mode.<cluster>`, the runtime key that turns requests away.
    maintenance_key: Box<str>,
}

impl ClusterShared {
    /// Registers the cluster's statistics.
    #[must_use]
    pub fn new(config: Arc<ClusterConfig>, breakers: Arc<Breakers>, store: &Arc<Store>) -> Arc<Self> {
        let prefix = format!("cluster.{}.", config.stat_name);
        let encrypted = config.connection.tls_contexts().next().is_some();
        Arc::new(Self {
            stats: store.group(&prefix),
            http1: store.group_on_first_use(&format!("{prefix}http1.")),
            http2: (config.http.protocol != UpstreamProtocol::Http1)
                .then(|| store.group_on_first_use(&format!("{prefix}http2."))),
            headers: config.connection.has_headers().then(|| store.group(&format!("{prefix}upstream.proxyprotocol."))),
            tls: encrypted.then(|| store.group(&format!("{prefix}ssl."))),
            measures: MeasuresShared::new(config.tracking, store, &prefix),
            _breaker_gauges: store.computed(&prefix, &(Arc::clone(&breakers) as _)),
            breakers,
            maintenance_key: format!("upstream.maintenance_mode.{}", config.name).into(),
            config,
        })
    }

    /// The breakers, for gauges and `/clusters`.
    #[must_use]
    pub const fn breakers(&self) -> &Arc<Breakers> {
        &self.breakers
    }

    /// The statistics handle: control writes membership into its own shard.
    #[must_use]
    pub const fn stats(&self) -> &Arc<GroupHandle<ClusterStats>> {
        &self.stats
    }

    /// The statistics of the HTTP/1 codec, shown once it is used.
    #[must_use]
    pub const fn http1_stats(&self) -> &Arc<GroupHandle<Http1Stats>> {
        &self.http1
    }

    /// The statistics of the HTTP/2 codec, if the cluster may speak HTTP/2; shown once it is used.
    #[must_use]
    pub const fn http2_stats(&self) -> Option<&Arc<GroupHandle<Http2Stats>>> {
        self.http2.as_ref()
    }
}

/// What a cluster's pools and attempts share on one worker.
pub struct ClusterContext {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The cluster's configuration.
    pub config: Arc<ClusterConfig>,
    /// This worker's shard of `cluster.<name>.`.
    pub stats: ClusterStats,
    /// This worker's shard of `cluster.<name>.http1.`.
    pub http1_stats: LazyShard<Http1Stats>,
    /// This worker's shard of `cluster.<name>.http2.`.
    pub http2_stats: Option<LazyShard<Http2Stats>>,
    /// Response codes and times: `cluster.<name>.upstream_rq_*` and its variants.
    pub responses: Rc<ClusterResponses>,
    /// What `track_cluster_stats` asks for; `None` if it asks for nothing.
    pub measures: Option<Measures>,
    /// The circuit breakers, shared by all workers.
    pub breakers: BreakerHandle,
    /// How responses are decoded.
    pub h1_options: Rc<ClientOptions>,
    /// How HTTP/2 is spoken.
    pub h2_options: Http2Options,
    /// What is counted of TLS handshakes: `cluster.<name>.ssl.`.
    pub tls_counters: Option<TlsCounters>,
    shared: Arc<ClusterShared>,
}

impl ClusterContext {
    /// What `worker` needs of `shared`. What was counted under the same name goes on after `previous`, the version before.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, shared: Arc<ClusterShared>, previous: Option<&Self>) -> Rc<Self> {
        let index = worker.index();
        let config = Arc::clone(&shared.config);
        let prefix = format!("cluster.{}.", config.stat_name);
        let responses = previous.map(|previous| &previous.responses).filter(|before| before.prefix() == prefix);
        let responses = responses.map_or_else(|| Rc::new(ClusterResponses::new(prefix)), Rc::clone);
        Rc::new(Self {
            worker: Rc::clone(worker),
            stats: shared.stats.shard(index),
            http1_stats: shared.http1.lazy_shard(index),
            http2_stats: shared.http2.as_ref().map(|handle| handle.lazy_shard(index)),
            responses,
            measures: shared.measures.shard(index),
            breakers: BreakerHandle::new(Arc::clone(&shared.breakers)),
            h1_options: Rc::new(h1_options(&config)),
            h2_options: h2_options(&config),
            tls_counters: shared
                .tls
                .is_some()
                .then(|| TlsCounters::of_cluster(worker.store(), &config.stat_name, index)),
            config,
            shared,
        })
    }

    /// Bytes a connection may buffer.
    #[must_use]
    pub fn buffer_limit(&self) -> usize {
        buffer_limit(&self.config)
    }

    /// When a connection that is made now has lived for as long as it may (`max_connection_duration`).
    #[must_use]
    pub fn expiry(&self) -> Tick {
        match self.config.http.common.max_connection_duration {
            Some(duration) => self.worker.timers().now().after(duration),
            None => Tick::NEVER,
        }
    }

    /// Whether connections to some of its hosts begin with a PROXY header.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.shared.headers.is_some()
    }

    /// Counts a PROXY header that had no room for all it should say.
    pub(in crate::upstream) fn header_cut(&self) {
        if let Some(stats) = &self.shared.headers {
            stats.shard(self.worker.index()).v2_tlvs_exceed_max_length().inc();
        }
    }

    /// `upstream.maintenance_mode.<cluster>`
    #[must_use]
    pub fn maintenance_key(&self) -> &str {
        &self.shared.maintenance_key
    }

    /// How header names are spelled to this cluster.
    #[must_use]
    pub fn header_format(&self) -> HeaderFormat<'static> {
        header_format(&self.config)
    }
}

/// How responses of a cluster's hosts are decoded.
#[must_use]
pub(crate) fn h1_options(config: &ClusterConfig) -> ClientOptions {
    let common = &config.http.common;
    ClientOptions {
        max_headers_bytes: common.max_response_headers_bytes.map_or(80 << 10, |bytes| bytes as usize),
        max_headers_count: common.max_headers_count as usize,
        allow_chunked_length: config.http.http1.allow_chunked_length,
        enable_trailers: config.http.http1.enable_trailers,
        preserve_case: matches!(config.http.http1.header_case, HeaderCase::Preserve { .. }),
        ..ClientOptions::default()
    }
}

/// How HTTP/2 is spoken to a cluster's hosts.
#[must_use]
pub(crate) fn h2_options(config: &ClusterConfig) -> Http2Options {
    let common = &config.http.common;
    Http2Options {
        protocol: Arc::new(config.http.http2.clone()),
        max_headers_bytes: common.max_response_headers_bytes.unwrap_or(60 << 10),
        max_headers_count: common.max_headers_count,
        underscores: Underscores::Allow,
        send_buffer: buffer_limit(config).min(config.http.http2.initial_stream_window_size as usize),
    }
}

/// How header names are spelled to a cluster's hosts.
#[must_use]
pub(crate) const fn header_format(config: &ClusterConfig) -> HeaderFormat<'static> {
    match config.http.http1.header_case {
        HeaderCase::Proper => HeaderFormat::ProperCase,
        HeaderCase::Lower | HeaderCase::Preserve { .. } => HeaderFormat::Lower,
    }
}

/// `per_connection_buffer_limit_bytes`; 0 is any number.
fn buffer_limit(config: &ClusterConfig) -> usize {
    match config.per_connection_buffer_limit {
        0 => usize::MAX / 2,
        limit => limit as usize,
    }
}

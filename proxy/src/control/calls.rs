//! The process's own calls to clusters, those to control planes: how they and their connections are counted.
//!
//! Envoy makes them through the same pools as everybody's requests, so its statistics of the cluster show them, and
//! those of its own HTTP client (`http.async-client.`) too. Here the xDS client brings its connections along; they are
//! counted on the control thread's shard.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use stats::{GroupHandle, Store};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xds_client::{Call, Connecting, Connection, Io, Network, Target};

use crate::config::cluster::UpstreamProtocol;
use crate::observe::catalogue::{AsyncClientStats, ClusterStats, Http2Stats};
use crate::upstream::cluster::ClusterShared;

/// A network whose calls are counted. `C` knows clusters by name.
pub struct Calls<N, C> {
    network: N,
    clusters: C,
    stats: AsyncClientStats,
    shard: usize,
    _group: Arc<GroupHandle<AsyncClientStats>>,
}

impl<N, C: Fn(&str) -> Option<Arc<ClusterShared>>> Calls<N, C> {
    /// Counts the calls made through `network`.
    pub fn new(network: N, clusters: C, store: &Arc<Store>) -> Self {
        let (group, shard) = (store.group::<AsyncClientStats>("http.async-client."), store.control_shard());
        Self { network, clusters, stats: group.shard(shard), shard, _group: group }
    }

    fn cluster(&self, target: &Target) -> Option<Cluster> {
        match target {
            Target::Cluster(name) => Some(Cluster::new((self.clusters)(name)?, self.shard)),
            // Google's gRPC library, which Envoy uses for these, counts nothing here.
            Target::Address(_) => None,
        }
    }
}

impl<N: Network, C: Fn(&str) -> Option<Arc<ClusterShared>>> Network for Calls<N, C> {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async move {
            let Some(cluster) = self.cluster(target) else { return self.network.connect(target).await };
            cluster.stats.upstream_rq_pending_total().inc();
            let counted = Counted::new(cluster);
            match self.network.connect(target).await {
                Ok(Connection { io, local_ip }) => {
                    counted.cluster.stats.upstream_cx_connect_ms().record(millis(counted.opened));
                    Ok(Connection { io: Box::new(Metered { io, counted }), local_ip })
                }
                Err(error) => {
                    counted.cluster.stats.upstream_cx_connect_fail().inc();
                    Err(error)
                }
            }
        })
    }

    fn calling(&self, target: &Target) -> Call {
        if let Target::Cluster(_) = target {
            self.stats.rq_total().inc();
        }
        let Some(cluster) = self.cluster(target) else {
            if let Target::Cluster(_) = target {
                self.stats.no_cluster().inc();
            }
            return None;
        };
        Some(Box::new(Active::new(cluster)))
    }
}

/// The control thread's shards of a cluster's statistics.
struct Cluster {
    stats: ClusterStats,
    http2: Option<Http2Stats>,
    /// Keeps them in the scrape.
    _shared: Arc<ClusterShared>,
}

impl Cluster {
    fn new(shared: Arc<ClusterShared>, shard: usize) -> Self {
        let http2 = shared.config.http.protocol == UpstreamProtocol::Http2;
        if !http2 {
            // Its first use is all there is to show.
            shared.http1_stats().shard(shard);
        }
        Self {
            stats: shared.stats().shard(shard),
            http2: shared.http2_stats().filter(|_| http2).map(|handle| handle.shard(shard)),
            _shared: shared,
        }
    }
}

/// A call under way.
struct Active(Cluster);

impl Active {
    fn new(cluster: Cluster) -> Self {
        cluster.stats.upstream_rq_total().inc();
        cluster.stats.upstream_rq_active().inc();
        if let Some(http2) = &cluster.http2 {
            http2.streams_active().inc();
        }
        Self(cluster)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats.upstream_rq_active().dec();
        if let Some(http2) = &self.0.http2 {
            http2.streams_active().dec();
        }
    }
}

/// A connection, counted until it is dropped.
struct Counted {
    cluster: Cluster,
    opened: Instant,
    by_peer: bool,
}

impl Counted {
    fn new(cluster: Cluster) -> Self {
        cluster.stats.upstream_cx_total().inc();
        cluster.stats.upstream_cx_active().inc();
        match cluster.http2 {
            Some(_) => cluster.stats.upstream_cx_http2_total().inc(),
            None => cluster.stats.upstream_cx_http1_total().inc(),
        }
        Self { cluster, opened: Instant::now(), by_peer: false }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.cluster.stats;
        stats.upstream_cx_active().dec();
        stats.upstream_cx_destroy().inc();
        if self.by_peer {
            stats.upstream_cx_destroy_remote().inc();
        } else {
            stats.upstream_cx_destroy_local().inc();
        }
        stats.upstream_cx_length_ms().record(millis(self.opened));
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A connection's bytes, counted as they pass.
struct Metered {
    io: Box<dyn Io>,
    counted: Counted,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining() > 0);
        let done = Pin::new(&mut self.io).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.counted.cluster.stats.upstream_cx_rx_bytes_total().add(read as u64);
        self.counted.by_peer |= match &done {
            Poll::Ready(Ok(())) => read == 0 && room,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        done
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = done {
            self.counted.cluster.stats.upstream_cx_tx_bytes_total().add(written as u64);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

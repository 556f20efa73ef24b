//! The process's own calls to clusters, those to control planes: how they and their connections are counted.
//!
//! Envoy makes them through the same pools as everybody's requests, so its statistics of the cluster show them, and
//! those of its own HTTP client (`http.async-client.`) too. Here the xDS client brings its connections along; they are
//! counted on the control thread's shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use stats::{GroupHandle, Store};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xds_client::{Adding, Address, Call, CallCredentials, Connecting, Connection, Io, Network, PlainNetwork, Target};

use super::{aws, secure};
use crate::config::cluster::UpstreamProtocol;
use crate::observe::catalogue::{AsyncClientStats, ClusterStats, Http2Stats};
use crate::tls::client::Wanted;
use crate::tls::failure::Failure;
use crate::tls::handshake;
use crate::tls::statistics::TlsCounters;
use crate::upstream::cluster::ClusterShared;

/// A channel to an address is opened in this time, as by gRPC's libraries.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(20);

/// A network whose calls are counted. `A` knows where clusters are, `C` what they are.
pub struct Calls<A, C> {
    network: PlainNetwork<A>,
    store: Arc<Store>,
    signer: aws::Signer,
    /// By the names of clusters.
    tls: RefCell<HashMap<String, Rc<TlsCounters>>>,
    clusters: C,
    stats: AsyncClientStats,
    shard: usize,
    _group: Arc<GroupHandle<AsyncClientStats>>,
}

impl<A, C> Calls<A, C>
where
    A: Fn(&str) -> Option<Vec<Address>>,
    C: Fn(&str) -> Option<Arc<ClusterShared>>,
{
    /// Counts the calls made through `network`.
    pub fn new(network: PlainNetwork<A>, clusters: C, store: &Arc<Store>) -> Self {
        let (group, shard) = (store.group::<AsyncClientStats>("http.async-client."), store.control_shard());
        Self {
            network,
            store: Arc::clone(store),
            signer: aws::Signer::default(),
            tls: RefCell::default(),
            clusters,
            stats: group.shard(shard),
            shard,
            _group: group,
        }
    }

    fn cluster(&self, target: &Target) -> Option<Cluster> {
        match target {
            Target::Cluster(name) => Some(Cluster::new((self.clusters)(name)?, self.shard)),
            // Google's gRPC library, which Envoy uses for these, counts nothing here.
            Target::Address(_) | Target::Secure(..) => None,
        }
    }

    /// What is counted of a cluster's handshakes. What has been counted once is shown from then on.
    fn tls_counters(&self, cluster: &str) -> Rc<TlsCounters> {
        let mut all = self.tls.borrow_mut();
        let new = || Rc::new(TlsCounters::of_cluster(&self.store, cluster, self.shard));
        Rc::clone(all.entry(cluster.to_owned()).or_insert_with(new))
    }

    /// A connection to a cluster's host, as the cluster wants it.
    async fn open(&self, target: &Target, cluster: &ClusterShared) -> io::Result<Connection> {
        let socket = self.network.open(target).await?;
        let Some(tls) = cluster.config.connection.transport_socket.tls() else { return Ok(socket.into()) };
        let local_ip = socket.local_ip();
        let protocol: &[u8] = if cluster.config.http.protocol == UpstreamProtocol::Http1 { b"http/1.1" } else { b"h2" };
        let Some(hello) = tls.hello("", &Wanted { alpn_fallback: &[protocol], ..Wanted::default() }) else {
            return Err(io::Error::other(Failure::secret_missing().text));
        };
        let counters = self.tls_counters(&cluster.config.stat_name);
        let mut io = crate::transport::Io::from(socket);
        match handshake::connect(&mut io, hello, &counters).await {
            Ok(session) => Ok(Connection { io: Box::new(session.over(io)), local_ip }),
            Err(failed) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, failed.failure.text)),
        }
    }
}

impl<A, C> Network for Calls<A, C>
where
    A: Fn(&str) -> Option<Vec<Address>>,
    C: Fn(&str) -> Option<Arc<ClusterShared>>,
{
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async move {
            if let Target::Secure(_, security) = target {
                let opening = async {
                    let socket = self.network.open(target).await?;
                    let local_ip = socket.local_ip();
                    let io = secure::channel(socket.into(), security).await?;
                    Ok(Connection { io: Box::new(io), local_ip })
                };
                return tokio::time::timeout(CHANNEL_TIMEOUT, opening).await.unwrap_or_else(|_| Err(late()));
            }
            let Some(cluster) = self.cluster(target) else {
                return match target {
                    // How its hosts are spoken to is not known, so they are not.
                    Target::Cluster(name) => {
                        Err(io::Error::new(io::ErrorKind::NotFound, format!("unknown cluster '{name}'")))
                    }
                    Target::Address(_) | Target::Secure(..) => self.network.connect(target).await,
                };
            };
            let shared = Arc::clone(&cluster.shared);
            cluster.stats.upstream_rq_pending_total().inc();
            let counted = Counted::new(cluster);
            let opening = tokio::time::timeout(shared.config.connect_timeout, self.open(target, &shared));
            match opening.await.unwrap_or_else(|_| Err(late())) {
                Ok(Connection { io, local_ip }) => {
                    counted.cluster.stats.upstream_cx_connect_ms().record(millis(counted.opened));
                    Ok(Connection { io: Box::new(Metered { io, counted }), local_ip })
                }
                Err(error) => {
                    if error.kind() == io::ErrorKind::TimedOut {
                        counted.cluster.stats.upstream_cx_connect_timeout().inc();
                    }
                    counted.cluster.stats.upstream_cx_connect_fail().inc();
                    Err(error)
                }
            }
        })
    }

    fn metadata<'a>(&'a self, credentials: &'a CallCredentials, authority: &'a str, path: &'a str) -> Adding<'a> {
        Box::pin(async move {
            match credentials {
                CallCredentials::AwsIam { service, region } => {
                    self.signer.metadata(service, region, authority, path).await
                }
                CallCredentials::File { path, header, prefix } => {
                    let secret = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
                    Ok(vec![(header.to_ascii_lowercase(), format!("{prefix}{secret}"))])
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

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")
}

/// The control thread's shards of a cluster's statistics.
struct Cluster {
    stats: ClusterStats,
    http2: Option<Http2Stats>,
    /// Keeps them in the scrape.
    shared: Arc<ClusterShared>,
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
            shared,
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

//! An upstream side for a connection: a host, a connection to it or a tunnel through it, in as many attempts as are
//! allowed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use filters::flags::ResponseFlags;

use super::flow::Flow;
use super::session::{Outcome, Session};
use super::tunnel::Tunnel;
use crate::config::cluster::UpstreamProtocol;
use crate::config::tcp_proxy::{HashBy, Target};
use crate::route::hash::{address_hash, state_hash};
use crate::upstream::breaker::{Priority, Resource};
use crate::upstream::cluster::{Cluster, Purpose};
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::lb::PickContext;
use crate::upstream::outlier;
use crate::upstream::pool::{Lease, Pool, PoolProtocol};
use crate::upstream::retry::back_off::BackOff;

/// Why there is no upstream side, though there is a connection or the wait for one.
enum Trouble {
    /// It failed.
    Failure(UpstreamFailure),
    /// The connection's time was over.
    Over(Outcome),
}

/// An attempt that came to nothing.
enum Failed {
    /// Another may be made.
    Attempt,
    /// There is nothing to try.
    Finally,
    /// The connection's time is over.
    Over(Outcome),
}

impl From<Outcome> for Failed {
    fn from(outcome: Outcome) -> Self {
        Self::Over(outcome)
    }
}

impl Session<'_> {
    /// Connects to a host; `None` if that cannot be done, which is noted. A `cluster` that a filter chose goes before the
    /// configured one.
    ///
    /// # Errors
    /// The connection's time was over before.
    pub(super) async fn connect(&mut self, cluster: Option<&Arc<str>>) -> Result<Option<Flow>, Outcome> {
        let config = &self.proxy.config;
        let chosen = cluster.map(|cluster| config.chosen(cluster));
        let mut back_off = config.backoff.map(|(base, max)| BackOff::between(base, max));
        let mut attempt = 0;
        loop {
            let target = chosen.as_ref().unwrap_or_else(|| config.cluster.pick(fastrand::u64(..)));
            let Some(cluster) = self.proxy.worker.cluster(&target.cluster) else {
                self.proxy.stats.downstream_cx_no_route().inc();
                self.info.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
                return Ok(None);
            };
            match self.attempt(&cluster, target).await {
                Ok(flow) => {
                    self.touch();
                    return Ok(Some(flow));
                }
                Err(Failed::Finally) => return Ok(None),
                Err(Failed::Over(outcome)) => return Err(outcome),
                Err(Failed::Attempt) => {}
            }
            attempt += 1;
            if attempt >= config.max_connect_attempts.get() {
                cluster.context().stats.upstream_cx_connect_attempts_exceeded().inc();
                self.info.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                return Ok(None);
            }
            if let Some(back_off) = &mut back_off {
                let timers = Rc::clone(self.proxy.worker.timers());
                let until = timers.now().after(back_off.next(fastrand::u64(..)));
                self.wait(timers.sleep_until(until)).await?;
            }
        }
    }

    async fn attempt(&mut self, cluster: &Rc<Cluster>, target: &Target) -> Result<Flow, Failed> {
        let context = cluster.context();
        self.info.upstream_mut().cluster = Some(Arc::clone(&cluster.config().observability_name));
        // Unlike a pool, which may always open its first connection, a TCP proxy does not ask where the limit is reached.
        if context.breakers.try_acquire(Priority::Default, Resource::Connections).is_err() {
            context.stats.upstream_cx_overflow().inc();
            self.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            return Err(Failed::Finally);
        }
        let Some((host, pool)) = self.choose(cluster, target) else {
            self.info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return Err(Failed::Finally);
        };
        let upstream = self.info.upstream_mut();
        upstream.attempts += 1;
        let asked = Instant::now();
        upstream.hosts_attempted.push(Arc::clone(host.address()));
        let leased = self.wait(pool.acquire()).await?;
        self.info.upstream_mut().pool_ready = Some(asked.elapsed());
        let outcome = match leased {
            Ok(lease) => self.opened(lease, cluster).await,
            Err(failure) => Err(Trouble::Failure(failure)),
        };
        if !matches!(&outcome, Err(Trouble::Failure(failure)) if failure.without_host) {
            let upstream = self.info.upstream_mut();
            upstream.host = Some(Arc::clone(host.address()));
            upstream.host_name = Some(Arc::clone(host.hostname()));
        }
        match outcome {
            Ok(flow) => {
                self.proxy.worker.note(&host, outlier::Outcome::ConnectedFinally);
                self.info.upstream_mut().connected = true;
                Ok(flow)
            }
            Err(Trouble::Failure(failure)) => Err(self.failed(&host, failure)),
            Err(Trouble::Over(outcome)) => {
                // A tunnel that was asked for in vain.
                if outcome == Outcome::TooLong {
                    self.info.flags.insert(ResponseFlags::DURATION_TIMEOUT);
                }
                self.failed(&host, UpstreamFailure::new(FailureKind::ConnectFailure));
                Err(Failed::Over(outcome))
            }
        }
    }

    /// A host, and the pool of connections to it.
    fn choose(&self, cluster: &Rc<Cluster>, target: &Target) -> Option<(Arc<Host>, Rc<Pool>)> {
        let config = &self.proxy.config;
        let hash = match &config.hash_by {
            None => None,
            Some(HashBy::Source) => address_hash(&self.info.remote),
            Some(HashBy::FilterState(key)) => state_hash(&self.info.connection, key),
        };
        let destination = cluster.destination(None, &self.info.connection);
        let metadata = target.metadata_match.as_ref();
        let Some(host) = cluster.pick(&PickContext { destination, hash, metadata, ..PickContext::default() }) else {
            cluster.context().stats.upstream_cx_none_healthy().inc();
            return None;
        };
        let owner = cluster.owner(&host);
        let protocol = match (&config.tunneling, owner.config().http.protocol) {
            (None, _) => PoolProtocol::Tcp,
            (Some(_), UpstreamProtocol::Auto) => PoolProtocol::Auto,
            (Some(_), UpstreamProtocol::Http2) => PoolProtocol::Http2,
            (Some(_), UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream) => PoolProtocol::Http1,
        };
        let purpose = Purpose { client: Some(&self.info.connection), ..Purpose::default() };
        let pool = owner.pool(&host, Priority::Default, protocol, purpose)?;
        Some((host, pool))
    }

    /// A connection is there: it is what was wanted, or carries a tunnel.
    async fn opened(&mut self, lease: Lease, cluster: &Rc<Cluster>) -> Result<Flow, Trouble> {
        let (flow, connection_id, local, tls) = match (lease, &self.proxy.config.tunneling) {
            (Lease::Tcp(lease), _) => {
                let (id, local, tls) = (lease.connection_id(), lease.local_address(), lease.io.tls_info().cloned());
                (Flow::plain(*lease, self.proxy.buffer_limit), id, local, tls)
            }
            (lease, Some(config)) => {
                let mut tunnel = Tunnel::ask(lease, config, cluster, &mut self.info).map_err(Trouble::Failure)?;
                let trouble = match self.wait(tunnel.granted()).await {
                    Ok(Ok(())) => None,
                    Ok(Err(failure)) => Some(Trouble::Failure(failure)),
                    Err(outcome) => Some(Trouble::Over(outcome)),
                };
                if let Some(trouble) = trouble {
                    self.spent += tunnel.meter();
                    self.info.upstream_bytes = self.spent;
                    return Err(trouble);
                }
                let (id, local, tls) = (tunnel.connection_id(), tunnel.local_address(), tunnel.tls_info().cloned());
                (Flow::Tunnel(Box::new(tunnel)), id, local, tls)
            }
            // Without a tunnel the pool speaks no HTTP.
            (Lease::Http1(_) | Lease::Http2(_), None) => {
                return Err(Trouble::Failure(UpstreamFailure::new(FailureKind::LocalReset)));
            }
        };
        let upstream = self.info.upstream_mut();
        upstream.connection_id = Some(connection_id);
        upstream.local = local;
        upstream.tls = tls;
        Ok(flow)
    }

    /// Notes an attempt that failed.
    fn failed(&mut self, host: &Arc<Host>, failure: UpstreamFailure) -> Failed {
        match failure.kind {
            FailureKind::Overflow => {}
            FailureKind::ConnectTimeout => self.proxy.worker.note(host, outlier::Outcome::TimedOut(504)),
            _ => self.proxy.worker.note(host, outlier::Outcome::ConnectFailed),
        }
        if failure.kind != FailureKind::Overflow {
            self.info.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        }
        self.info.upstream_mut().transport_failure = failure.transport;
        Failed::Attempt
    }
}

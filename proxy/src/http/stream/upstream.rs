//! The router: from a route to a host, a connection, an attempt, and its outcome.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use filters::flags::{ResponseFlags, details};
use filters::http::{Known, Version};

use super::converse::Talk;
use super::exchange::Progress;
use super::retry::Again;
use super::routing::upgrade_protocol;
use super::{Downstream, End, Step, Stream};
use crate::config::cluster::UpstreamProtocol;
use crate::http::path::has_port;
use crate::http::reply::LocalReply;
use crate::http::upgrade;
use crate::route::MetadataMatch;
use crate::route::policy::ConnectConfig;
use crate::route::{ForwardAction, Route, RouteAction};
use crate::transport::proxy_protocol;
use crate::upstream::breaker::Priority;
use crate::upstream::cluster::{Cluster, Purpose};
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::lb::PickContext;
use crate::upstream::lb::override_host::Asking;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::{Lease, Pool, PoolProtocol};
use crate::upstream::server_name::ServerNames;

impl<D: Downstream> Stream<'_, D> {
    /// Sends the request where its route says, and its response back.
    pub(super) async fn forward(&mut self) -> Step<()> {
        let Some(routed) = self.routed.clone() else { return Err(End::Done) };
        let Some((host, route)) = routed.resolve() else { return Err(End::Done) };
        let RouteAction::Forward(forward) = &route.action else { return Err(End::Done) };
        let cluster = self.chosen_cluster(forward).await?;
        self.take_scopes(host, route);
        if let Some(name) = self.request.as_ref().and_then(|head| head.headers.value(&Known::XEnvoyUpstreamAltStatName))
        {
            self.alternative = cluster.context().responses.alternative(&String::from_utf8_lossy(name));
        }
        self.check_strictly().await?;
        self.maintenance(&cluster).await?;
        self.drop_overload(&cluster).await?;
        self.set_time_limits(forward);
        self.prepare_request(route, forward);
        let host = self.choose_host(&cluster, forward).await?;
        self.prepare_retries(&cluster, route, forward);
        self.send_copies(&cluster, forward);
        self.attempts_on(cluster, host, route, forward).await
    }

    /// The cluster the route chose.
    async fn chosen_cluster(&mut self, forward: &ForwardAction) -> Step<Rc<Cluster>> {
        if let Some(cluster) = &self.cluster {
            return Ok(Rc::clone(cluster));
        }
        self.no_cluster();
        self.reply_end(LocalReply::new(forward.cluster_not_found, ""), details::CLUSTER_NOT_FOUND).await
    }

    /// The request's head as it goes upstream.
    fn prepare_request(&mut self, route: &Arc<Route>, forward: &ForwardAction) {
        let Some(mut head) = self.request.take() else { return };
        let ordinal = self.routed.as_ref().and_then(|routed| routed.ordinal);
        let choice = forward.choice_again(ordinal, &head);
        if route.include_request_attempt_count {
            head.headers.set(Known::XEnvoyAttemptCount, Bytes::from_static(b"1"));
        }
        if let Some(port) = self.connect_port
            && !has_port(&head.authority)
        {
            head.authority = [&head.authority[..], format!(":{port}").as_bytes()].concat().into();
        }
        let auto_names = self.cluster.as_ref().and_then(|cluster| cluster.config().http.auto_names.clone());
        // The client's own header counts, and the host as it goes upstream.
        let by_header = auto_names.as_ref().and_then(|options| ServerNames::header(options, &head)).map(<[u8]>::to_vec);
        let keep_original = !self.manager.config.router().suppress_envoy_headers;
        route.finalize_request(&mut head, Some(&choice), &self.info, keep_original);
        if self.manager.config.match_upstream_scheme
            && let Some(cluster) = &self.cluster
        {
            head.scheme = cluster.config().connection.transport_socket.scheme();
        }
        self.server_names =
            auto_names.and_then(|options| ServerNames::of(&options, by_header.as_deref().unwrap_or(&head.authority)));
        self.info.upstream_mut().attempts = 1;
        self.request = Some(head);
        self.prepared = true;
    }

    /// `upstream.maintenance_mode.<cluster>`: the operator sends a share of requests away.
    async fn maintenance(&mut self, cluster: &Rc<Cluster>) -> Step<()> {
        let runtime = self.manager.worker.runtime();
        if !runtime.fraction(cluster.context().maintenance_key()).is_some_and(|fraction| fraction.contains(self.random))
        {
            return Ok(());
        }
        cluster.context().stats.upstream_rq_maintenance_mode().inc();
        self.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
        self.charge(503, self.origin(None, None));
        self.reply_end(self.overloaded(LocalReply::new(503, "maintenance mode")), "maintenance_mode").await
    }

    /// `drop_overloads` of the endpoints: a share of requests is sent away before a host is chosen.
    async fn drop_overload(&mut self, cluster: &Rc<Cluster>) -> Step<()> {
        if cluster.drops().is_none() {
            return Ok(());
        }
        self.info.flags.insert(ResponseFlags::DROP_OVERLOAD);
        self.charge(503, self.origin(None, None));
        self.reply_end(self.overloaded(LocalReply::new(503, "drop overload")), details::DROP_OVERLOAD).await
    }

    /// The reply to a request that a limit turns away, which says so.
    pub(super) fn overloaded(&self, reply: LocalReply) -> LocalReply {
        if self.manager.config.router().suppress_envoy_headers {
            return reply;
        }
        reply.with_header(Known::XEnvoyOverloaded, Bytes::from_static(b"true"))
    }

    /// A host for the next try: on a retry, if it can be helped, none that the policy rejects.
    pub(super) async fn choose_host(&mut self, cluster: &Rc<Cluster>, forward: &ForwardAction) -> Step<Arc<Host>> {
        let destination = cluster.destination(self.request.as_ref(), &self.connection.info);
        let hash = self.request_hash(cluster, forward);
        let metadata = self.metadata_match(cluster, forward);
        let asking = self.asking();
        let context = PickContext {
            destination,
            hash,
            metadata: metadata.as_deref(),
            asking: asking.as_ref(),
            ..PickContext::default()
        };
        let picked = match self.retry.as_deref() {
            Some(retry) => cluster.pick(&PickContext {
                loads: Some(&|hosts, config| retry.priority_loads(hosts, config)),
                avoid: Some(&|host| retry.avoids(host)),
                max_attempts: retry.picks(),
                ..context
            }),
            None => cluster.pick(&context),
        };
        match picked {
            Some(host) => {
                self.note_chosen(cluster, &host);
                Ok(host)
            }
            None => self.no_host(Some(cluster)).await,
        }
    }

    /// The request, which may say what host it goes to.
    pub(super) fn asking(&self) -> Option<Asking<'_>> {
        let metadata = self.info.dynamic_metadata.as_deref();
        self.request.as_ref().map(|head| Asking { head, metadata, state: &self.asked })
    }

    /// Notes the host of the next try where the cluster's policy wants it to be known.
    pub(super) fn note_chosen(&mut self, cluster: &Cluster, host: &Host) {
        if let Some(key) = cluster.selected_host_key() {
            let metadata = self.info.dynamic_metadata.get_or_insert_default();
            key.set(metadata, &host.address().to_string());
        }
    }

    /// There is no host to send the request to, or no longer a cluster.
    pub(super) async fn no_host<T>(&mut self, cluster: Option<&Rc<Cluster>>) -> Step<T> {
        if let Some(cluster) = cluster {
            cluster.context().stats.upstream_cx_none_healthy().inc();
        }
        self.info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
        self.charge(503, self.origin(None, None));
        self.reply_end(LocalReply::new(503, "no healthy upstream"), details::NO_HEALTHY_UPSTREAM).await
    }

    /// The hash by which the cluster's policy finds a host for the request as it goes upstream, if it wants one.
    pub(super) fn request_hash(&mut self, cluster: &Cluster, forward: &ForwardAction) -> Option<u64> {
        let policy = cluster.hash_policy(forward.hash_policy.as_ref())?;
        // Cookies made up for an earlier choice are made up again.
        self.cookies.clear();
        policy.hash(self.request.as_ref()?, &self.info, Some(&mut self.cookies))
    }

    /// What the request says about the hosts it may go to, where the cluster has subsets: the route's word, with what
    /// filters said about this request on top.
    pub(super) fn metadata_match<'f>(
        &self,
        cluster: &Cluster,
        forward: &'f ForwardAction,
    ) -> Option<Cow<'f, MetadataMatch>> {
        if !cluster.has_subsets() {
            return None;
        }
        let ordinal = self.routed.as_ref().and_then(|routed| routed.ordinal);
        let of_route = forward.metadata_match(ordinal);
        let of_request = self.info.dynamic_metadata.as_ref().and_then(|metadata| metadata.get("envoy.lb"));
        match (of_route, of_request) {
            (of_route, None) => of_route.map(Cow::Borrowed),
            (None, Some(fields)) => Some(Cow::Owned(MetadataMatch::default().overridden(fields))),
            (Some(of_route), Some(fields)) => Some(Cow::Owned(of_route.overridden(fields))),
        }
    }

    /// One try on one host; `None` when its response was passed on.
    pub(super) async fn attempt(
        &mut self,
        cluster: &Rc<Cluster>,
        host: &Arc<Host>,
        route: &Route,
        forward: &ForwardAction,
    ) -> Step<Option<Again>> {
        let Some(pool) = self.pool_for(cluster, host, forward) else {
            return self.no_host(None).await;
        };
        self.enter(host);
        self.measure = self.begin_measure(cluster);
        // Counted only for policies that read it.
        let _active =
            cluster.owner(host).config().lb.policy.needs_active_requests().then(|| host.state().begin_request());
        let asked = self.manager.worker.timers().recent_instant();
        let acquired = self.wait_for(pool.acquire()).await;
        let waited = self.since(asked);
        self.info.upstream_mut().pool_ready = Some(waited);
        let lease = match acquired {
            Ok(Ok(lease)) => lease,
            Ok(Err(failure)) => {
                if !failure.without_host {
                    self.host_tried(host);
                }
                self.note_failure(host, failure.kind);
                return self.upstream_failed(host, failure, false).await;
            }
            Err(broken) => return self.broken(cluster, host, broken).await,
        };
        self.manager.worker.note(host, Outcome::Connected);
        self.deadlines.begin_try(self.manager.worker.timers());
        let exchange = match self.open(host, lease, forward) {
            Ok(exchange) => exchange,
            Err(failure) => {
                self.note_failure(host, failure.kind);
                return self.upstream_failed(host, failure, true).await;
            }
        };
        let progress = self.begun();
        self.converse(
            Talk { cluster: Rc::clone(cluster), host: Arc::clone(host), up: exchange, progress },
            route,
            forward,
        )
        .await
    }

    /// The try under way goes to this host.
    pub(super) fn enter(&mut self, host: &Host) {
        let upstream = self.info.upstream_mut();
        upstream.host = Some(Arc::clone(host.address()));
        upstream.host_name = Some(Arc::clone(host.hostname()));
        upstream.host_metadata.clone_from(&host.attributes().metadata);
        upstream.connected = false;
    }

    /// The pool that this request gets its connection from; `None` if the cluster may have no more pools.
    pub(super) fn pool_for(
        &self,
        cluster: &Rc<Cluster>,
        host: &Arc<Host>,
        forward: &ForwardAction,
    ) -> Option<Rc<Pool>> {
        let terminated = self.request.as_ref().is_some_and(|head| forward.terminates(head).is_some());
        let owner = cluster.owner(host);
        let protocol = match (owner.config().http.protocol, self.info.protocol) {
            _ if terminated => PoolProtocol::Tcp,
            (UpstreamProtocol::Auto, _) => PoolProtocol::Auto,
            (UpstreamProtocol::Http2, _) | (UpstreamProtocol::UseDownstream, Some(Version::Http2)) => {
                PoolProtocol::Http2
            }
            _ => PoolProtocol::Http1,
        };
        let purpose = Purpose { client: Some(&self.connection.info), names: self.server_names.as_ref() };
        owner.pool(host, breaker_priority(forward), protocol, purpose)
    }

    /// Sends the head on the connection that was waited for.
    pub(super) fn open(
        &mut self,
        host: &Arc<Host>,
        lease: Lease,
        forward: &ForwardAction,
    ) -> Result<Exchange, UpstreamFailure> {
        self.host_tried(host);
        if forward.auto_host_rewrite()
            && !host.hostname().is_empty()
            && let Some(head) = &mut self.request
        {
            let keep_original = !self.manager.config.router().suppress_envoy_headers;
            forward.rewrite_host_to(head, Bytes::copy_from_slice(host.hostname().as_bytes()), keep_original);
        }
        if let (Some(measure), Some(head)) = (&mut self.measure, &self.request) {
            measure.asks(head);
        }
        self.count_scopes(|stats| stats.upstream_rq_total().inc());
        let terminated = self.request.as_ref().and_then(|head| forward.terminates(head));
        let version = lease.version();
        let exchange = self.start(lease, terminated)?;
        let upstream = self.info.upstream_mut();
        upstream.connected = true;
        upstream.hosts_attempted.push(Arc::clone(host.address()));
        upstream.connection_id = Some(exchange.connection_id());
        upstream.local = exchange.local_address();
        upstream.tls = exchange.tls_info().cloned();
        upstream.protocol = version;
        Ok(exchange)
    }

    /// How far an exchange has come whose head was just sent.
    pub(super) fn begun(&mut self) -> Progress {
        let complete = !self.tunnel && self.head_only;
        if complete {
            self.info.timing.last_upstream_tx = Some(self.manager.worker.timers().recent_instant());
        }
        Progress {
            request_sent: complete,
            body_open: !self.tunnel,
            head_seen: false,
            response_sent: false,
            informational: 0,
            held_back: false,
            backed_up: None,
            timeout_noted: false,
        }
    }

    /// From `then` to this turn.
    pub(super) fn since(&self, then: Instant) -> Duration {
        self.manager.worker.timers().recent_instant().saturating_duration_since(then)
    }

    /// Sends the head. An upgrade keeps its body until it is granted.
    fn start(&mut self, lease: Lease, terminated: Option<&ConnectConfig>) -> Result<Exchange, UpstreamFailure> {
        let Some(head) = &self.request else { return Err(UpstreamFailure::new(FailureKind::LocalReset)) };
        self.tunnel = upgrade_protocol(head).is_some();
        self.info.timing.first_upstream_tx.get_or_insert_with(|| self.manager.worker.timers().recent_instant());
        let end = !self.tunnel && self.head_only;
        let format = self.manager.request_format(self.case.as_ref());
        match lease {
            Lease::Tcp(lease) => {
                let connection = &self.info.connection;
                let header = terminated
                    .and_then(|config| config.proxy_protocol)
                    .map(|version| proxy_protocol::header(version, &connection.remote, &connection.local));
                Ok(Exchange::tunnel(lease, header.unwrap_or_default(), end))
            }
            Lease::Http2(_) if self.tunnel => {
                let translated = upgrade::to_extended_connect(head);
                Exchange::start(lease, translated.as_ref().unwrap_or(head), end, true, format)
            }
            Lease::Http1(_) | Lease::Http2(_) => Exchange::start(lease, head, end, self.tunnel, format),
        }
    }
}

/// Whose limits count for a route's requests.
pub(super) const fn breaker_priority(forward: &ForwardAction) -> Priority {
    match forward.priority {
        crate::route::policy::Priority::Default => Priority::Default,
        crate::route::policy::Priority::High => Priority::High,
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

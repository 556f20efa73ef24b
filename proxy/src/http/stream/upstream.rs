//! The router: from a route to a host, a connection, an attempt, and its outcome.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use filters::flags::{ResponseFlags, details};
use filters::http::{Headers, Known, ResponseHead, Version};

use super::deadline::Expired;
use super::exchange::{Event, Progress};
use super::{Downstream, End, Step, Stream, upgrade_protocol};
use crate::config::cluster::UpstreamProtocol;
use crate::http::codec::Interrupt;
use crate::http::reply::LocalReply;
use crate::http::upgrade;
use crate::route::{ClusterName, ForwardAction, Route, RouteAction};
use crate::upstream::breaker::Priority;
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::lb::PickContext;
use crate::upstream::pool::{Lease, PoolProtocol};

/// Informational heads passed on for one response; an upstream that sends more is broken or hostile.
const MAX_INFORMATIONAL: u32 = 32;

/// What a waiting step was ended by.
enum Broken {
    Gone(Interrupt),
    Expired(Expired),
}

impl<D: Downstream> Stream<'_, D> {
    /// Sends the request where its route says, and its response back.
    pub(super) async fn forward(&mut self) {
        let _ = self.try_forward().await;
    }

    async fn try_forward(&mut self) -> Step<()> {
        let Some(routed) = self.routed.clone() else { return Err(End::Done) };
        let Some((_, route)) = routed.resolve() else { return Err(End::Done) };
        let RouteAction::Forward(forward) = &route.action else { return Err(End::Done) };
        let cluster = self.choose_cluster(forward).await?;
        self.set_time_limits(forward);
        self.prepare_request(route, forward);
        self.maintenance(&cluster).await?;
        self.drop_overload(&cluster).await?;
        let host = self.choose_host(&cluster).await?;
        self.attempt(&cluster, &host, forward).await
    }

    async fn choose_cluster(&mut self, forward: &ForwardAction) -> Step<Rc<Cluster>> {
        let Some(head) = &self.request else { return Err(End::Done) };
        let worker = &self.manager.worker;
        let choice = forward.cluster(head, self.random, &*worker.runtime());
        if let Some(routed) = &mut self.routed {
            routed.ordinal = choice.ordinal;
        }
        let cluster = match &choice.name {
            ClusterName::None => None,
            name => name.as_str().and_then(|name| worker.cluster(name)),
        };
        let name = match choice.name {
            ClusterName::Configured(name) => Some(Arc::clone(name)),
            ref other => other.as_str().map(Arc::from),
        };
        let upstream = self.info.upstream_mut();
        match cluster {
            Some(cluster) => {
                upstream.cluster = Some(Arc::clone(&cluster.config().observability_name));
                self.cluster = Some(Rc::clone(&cluster));
                Ok(cluster)
            }
            None => {
                upstream.cluster = name;
                self.manager.stats.no_cluster().inc();
                self.info.flags.insert(ResponseFlags::NO_CLUSTER_FOUND);
                self.reply_end(LocalReply::new(forward.cluster_not_found, ""), details::CLUSTER_NOT_FOUND).await
            }
        }
    }

    /// The route's time limits, as trusted request headers and `grpc-timeout` change them.
    fn set_time_limits(&mut self, forward: &ForwardAction) {
        let timers = Rc::clone(self.manager.worker.timers());
        let limits = &forward.timeouts;
        let Some(head) = &mut self.request else { return };
        let mut response = limits.response;
        let mut duration = limits.max_stream_duration;
        if let Some(grpc) = &limits.grpc
            && head.is_grpc()
        {
            let wanted = head.headers.value(&Known::GrpcTimeout).and_then(|value| grpc_timeout(value));
            match grpc.target {
                crate::route::policy::GrpcTimeoutTarget::Response => response = grpc.limit(wanted),
                crate::route::policy::GrpcTimeoutTarget::StreamDuration => duration = grpc.limit(wanted).or(duration),
            }
        }
        if let Some(millis) = milliseconds(&head.headers, Known::XEnvoyUpstreamRqTimeoutMs) {
            response = Some(millis);
        }
        let response = response.filter(|d| !d.is_zero());
        if let Some(limit) = response
            && !self.manager.config.router().suppress_envoy_headers
        {
            let mut text = itoa::Buffer::new();
            let text = Bytes::copy_from_slice(text.format(limit.as_millis()).as_bytes());
            head.headers.set(Known::XEnvoyExpectedRqTimeoutMs, text);
        }
        for consumed in [Known::XEnvoyUpstreamRqTimeoutMs, Known::XEnvoyUpstreamRqPerTryTimeoutMs] {
            head.headers.remove(&consumed);
        }
        self.deadlines.set_route(response);
        if let Some(idle) = limits.idle {
            self.deadlines.set_idle(&timers, Some(idle));
        }
        if let Some(duration) = duration {
            self.deadlines.set_max_duration(&timers, Some(duration));
        }
        if self.down.request_complete() {
            self.info.timing.last_downstream_rx.get_or_insert_with(Instant::now);
            self.deadlines.request_complete(&timers);
        }
    }

    /// The request's head as it goes upstream.
    fn prepare_request(&mut self, route: &Arc<Route>, forward: &ForwardAction) {
        let Some(mut head) = self.request.take() else { return };
        let ordinal = self.routed.as_ref().and_then(|routed| routed.ordinal);
        let choice = forward.choice_again(ordinal, &head);
        if route.include_request_attempt_count {
            head.headers.set(Known::XEnvoyAttemptCount, Bytes::from_static(b"1"));
        }
        let keep_original = !self.manager.config.router().suppress_envoy_headers;
        route.finalize_request(&mut head, Some(&choice), &self.info, keep_original);
        self.request = Some(head);
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
        let reply =
            LocalReply::new(503, "maintenance mode").with_header(Known::XEnvoyOverloaded, Bytes::from_static(b"true"));
        self.charge(503);
        self.reply_end(reply, "maintenance_mode").await
    }

    /// `drop_overloads` of the endpoints: a share of requests is sent away before a host is chosen.
    async fn drop_overload(&mut self, cluster: &Rc<Cluster>) -> Step<()> {
        if cluster.drops().is_none() {
            return Ok(());
        }
        self.info.flags.insert(ResponseFlags::DROP_OVERLOAD);
        let reply =
            LocalReply::new(503, "drop overload").with_header(Known::XEnvoyOverloaded, Bytes::from_static(b"true"));
        self.charge(503);
        self.reply_end(reply, details::DROP_OVERLOAD).await
    }

    async fn choose_host(&mut self, cluster: &Rc<Cluster>) -> Step<Arc<Host>> {
        let destination = cluster.destination(self.request.as_ref(), &self.connection.info);
        let context = PickContext { destination, ..PickContext::default() };
        if let Some(host) = cluster.pick(&context) {
            return Ok(host);
        }
        cluster.context().stats.upstream_cx_none_healthy().inc();
        self.info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
        self.charge(503);
        self.reply_end(LocalReply::new(503, "no healthy upstream"), details::NO_HEALTHY_UPSTREAM).await
    }

    /// One try on one host.
    async fn attempt(&mut self, cluster: &Rc<Cluster>, host: &Arc<Host>, forward: &ForwardAction) -> Step<()> {
        let upstream = self.info.upstream_mut();
        upstream.attempts += 1;
        upstream.host = Some(Arc::clone(host.address()));
        upstream.host_name = Some(Arc::clone(host.hostname()));
        upstream.hosts_attempted.push(Arc::clone(host.address()));
        let priority = match forward.priority {
            crate::route::policy::Priority::Default => Priority::Default,
            crate::route::policy::Priority::High => Priority::High,
        };
        let version = self.info.protocol.unwrap_or_default();
        let protocol = match (cluster.config().http.protocol, version) {
            (UpstreamProtocol::Http2, _) | (UpstreamProtocol::UseDownstream, Version::Http2) => PoolProtocol::Http2,
            _ => PoolProtocol::Http1,
        };
        // Counted only for policies that read it.
        let _active = cluster.config().lb.policy.needs_active_requests().then(|| host.state().begin_request());
        let pool = cluster.pool(host, priority, protocol);
        let asked = Instant::now();
        let lease = match self.wait_for(pool.acquire()).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(failure)) => return self.upstream_failed(cluster, host, failure).await,
            Err(broken) => return self.broken(cluster, broken).await,
        };
        let exchange = match self.start(lease, protocol) {
            Ok(exchange) => exchange,
            Err(failure) => return self.upstream_failed(cluster, host, failure).await,
        };
        let upstream = self.info.upstream_mut();
        upstream.pool_ready = Some(asked.elapsed());
        upstream.connection_id = Some(exchange.connection_id());
        upstream.local = exchange.local_address();
        upstream.protocol = Some(match protocol {
            PoolProtocol::Http1 => Version::Http11,
            PoolProtocol::Http2 => Version::Http2,
        });
        self.converse(cluster, host, exchange).await
    }

    /// Sends the head. An upgrade keeps its body until it is granted.
    fn start(&mut self, lease: Lease, protocol: PoolProtocol) -> Result<Exchange, UpstreamFailure> {
        let Some(head) = &self.request else { return Err(UpstreamFailure::new(FailureKind::LocalReset)) };
        self.tunnel = upgrade_protocol(head).is_some();
        self.info.timing.first_upstream_tx.get_or_insert_with(Instant::now);
        let end = !self.tunnel && self.down.request_complete();
        if self.tunnel {
            let translated = upgrade::to_upstream(head, protocol == PoolProtocol::Http2);
            return Exchange::start(lease, translated.as_ref().unwrap_or(head), end, true);
        }
        Exchange::start(lease, head, end, false)
    }

    /// Moves request and response until both are done or one side gives up.
    async fn converse(&mut self, cluster: &Rc<Cluster>, host: &Arc<Host>, mut up: Exchange) -> Step<()> {
        let sent = Instant::now();
        let complete = !self.tunnel && self.down.request_complete();
        let mut progress = Progress {
            request_sent: complete,
            body_open: !self.tunnel,
            head_seen: false,
            response_sent: false,
            informational: 0,
        };
        if complete {
            self.info.timing.last_upstream_tx = Some(sent);
        }
        loop {
            match poll_fn(|cx| self.poll_exchange(&mut up, &mut progress, cx)).await {
                Event::Informational(head) => {
                    if progress.informational > MAX_INFORMATIONAL {
                        let failure = UpstreamFailure::new(FailureKind::ProtocolError);
                        return self.upstream_failed(cluster, host, failure).await;
                    }
                    if head.status != 100 || self.manager.config.proxy_100_continue {
                        self.down.send_informational(&head);
                    }
                }
                Event::Head(head) => {
                    self.respond(host, &mut up, &mut progress, head, sent);
                }
                Event::Complete => {
                    let started = self.info.timing.first_upstream_tx.unwrap_or(sent);
                    cluster.context().stats.upstream_rq_time().record(millis(started.elapsed()));
                    self.info.timing.last_downstream_tx = Some(Instant::now());
                    up.finish(progress.request_sent);
                    return Ok(());
                }
                Event::Upstream(failure) => {
                    drop(up);
                    return self.upstream_failed(cluster, host, failure).await;
                }
                Event::Downstream(interrupt) => {
                    drop(up);
                    return self.broken(cluster, Broken::Gone(interrupt)).await;
                }
                Event::Expired(which) => {
                    drop(up);
                    host.shard(self.manager.worker.index()).rq_timeout.inc();
                    return self.broken(cluster, Broken::Expired(which)).await;
                }
            }
        }
    }

    /// The final response head goes downstream.
    fn respond(
        &mut self,
        host: &Arc<Host>,
        up: &mut Exchange,
        progress: &mut Progress,
        mut head: ResponseHead,
        sent: Instant,
    ) {
        let shard = host.shard(self.manager.worker.index());
        if head.status >= 500 {
            shard.rq_error.inc()
        } else {
            shard.rq_success.inc()
        }
        self.charge(head.status);
        let granted = self.tunnel && (head.status == 101 || (200..300).contains(&head.status));
        if self.tunnel {
            if granted {
                progress.body_open = true;
                self.deadlines.tunnel();
                self.manager.stats.downstream_cx_upgrades_total().inc();
            } else {
                self.tunnel = false;
                progress.request_sent = true;
            }
            if let Some(request) = &self.request {
                upgrade::to_downstream(request, &mut head, granted);
            }
        }
        if !self.manager.config.router().suppress_envoy_headers {
            let mut text = itoa::Buffer::new();
            let text = Bytes::copy_from_slice(text.format(millis(sent.elapsed())).as_bytes());
            head.headers.set(Known::XEnvoyUpstreamServiceTime, text);
        }
        if let Some(routed) = &self.routed
            && let Some((_, route)) = routed.resolve()
        {
            let choice = match (&route.action, &self.request) {
                (RouteAction::Forward(forward), Some(request)) => Some(forward.choice_again(routed.ordinal, request)),
                _ => None,
            };
            route.finalize_response(&mut head, self.request.as_ref(), choice.as_ref(), &self.info);
            if route.include_attempt_count_in_response {
                let attempts = self.info.upstream.as_ref().map_or(1, |upstream| upstream.attempts);
                head.headers.set(Known::XEnvoyAttemptCount, Bytes::from(attempts.to_string()));
            }
        }
        self.info.details = Some(details::VIA_UPSTREAM.into());
        let end = up.response_complete() && !granted;
        self.send_head(head, end);
        if end {
            progress.response_sent = true;
            self.info.timing.last_upstream_rx = Some(Instant::now());
            self.deadlines.response_complete();
        }
    }

    /// The attempt came to nothing: a reply in its place, or, once a response has begun, an end.
    async fn upstream_failed(&mut self, cluster: &Rc<Cluster>, host: &Arc<Host>, failure: UpstreamFailure) -> Step<()> {
        let started = self.response.is_some();
        let stats = &cluster.context().stats;
        let shard = host.shard(self.manager.worker.index());
        match failure.kind {
            FailureKind::RemoteReset | FailureKind::RemoteRefused => stats.upstream_rq_rx_reset().inc(),
            FailureKind::LocalReset => stats.upstream_rq_tx_reset().inc(),
            FailureKind::ProtocolError => stats.upstream_cx_protocol_error().inc(),
            _ => {}
        }
        if failure.kind != FailureKind::Overflow {
            shard.rq_error.inc();
        }
        self.info.flags.insert(failure.kind.flag());
        self.info.upstream_mut().transport_failure = failure.transport.clone();
        let why = failure.details(started);
        if started {
            self.manager.stats.rq_reset_after_downstream_response_started().inc();
            self.info.details = Some(why.into());
            self.down.abort();
            return Err(End::Done);
        }
        self.charge(failure.kind.status());
        let mut reply = LocalReply::new(failure.kind.status(), failure.body());
        if failure.kind == FailureKind::Overflow {
            reply = reply.with_header(Known::XEnvoyOverloaded, Bytes::from_static(b"true"));
        }
        self.reply_end(reply, why).await
    }

    /// The client left or a deadline passed while upstream was at work.
    async fn broken(&mut self, cluster: &Rc<Cluster>, broken: Broken) -> Step<()> {
        let stats = &cluster.context().stats;
        match broken {
            Broken::Gone(Interrupt::Malformed { status, details }) if self.response.is_none() => {
                stats.upstream_rq_tx_reset().inc();
                self.manager.stats.downstream_cx_protocol_error().inc();
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                self.close_connection();
                let body = if status == 400 { "Bad Request" } else { "" };
                self.reply_end(LocalReply::new(status, body), details).await
            }
            Broken::Gone(interrupt) => {
                stats.upstream_rq_tx_reset().inc();
                self.interrupted(interrupt);
                Err(End::Done)
            }
            Broken::Expired(which) => {
                stats.upstream_rq_tx_reset().inc();
                if which == Expired::Route {
                    stats.upstream_rq_timeout().inc();
                }
                self.expired(which).await
            }
        }
    }

    /// A deadline passed.
    async fn expired(&mut self, which: Expired) -> Step<()> {
        let stats = &self.manager.stats;
        let complete = self.down.request_complete();
        let (status, body, why) = match which {
            Expired::Route => {
                self.info.flags.insert(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT);
                self.charge(504);
                (504, "upstream request timeout", details::RESPONSE_TIMEOUT)
            }
            Expired::Idle => {
                stats.downstream_rq_idle_timeout().inc();
                self.info.flags.insert(ResponseFlags::STREAM_IDLE_TIMEOUT);
                (if complete { 504 } else { 408 }, "stream timeout", details::STREAM_IDLE_TIMEOUT)
            }
            Expired::Request => {
                stats.downstream_rq_timeout().inc();
                (408, "request timeout", details::REQUEST_OVERALL_TIMEOUT)
            }
            Expired::MaxDuration => {
                stats.downstream_rq_max_duration_reached().inc();
                (if complete { 504 } else { 408 }, "downstream duration timeout", details::MAX_DURATION_TIMEOUT)
            }
        };
        if !complete {
            self.close_connection();
        }
        self.reply_end(LocalReply::new(status, body), why).await
    }

    /// Waits for something that is not the exchange, while the client may leave and deadlines may pass.
    async fn wait_for<T>(&mut self, wanted: impl Future<Output = T>) -> Result<T, Broken> {
        let timers = self.manager.worker.timers();
        let mut wanted = std::pin::pin!(wanted);
        poll_fn(|cx| {
            if let Poll::Ready(value) = wanted.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if let Poll::Ready(which) = self.deadlines.poll(timers, self.alarm, cx) {
                return Poll::Ready(Err(Broken::Expired(which)));
            }
            if self.down.request_complete() {
                return self.down.poll_gone(cx).map(|interrupt| Err(Broken::Gone(interrupt)));
            }
            Poll::Pending
        })
        .await
    }

    /// Counts a response code for the cluster, whether upstream sent it or it stands for a failure.
    fn charge(&self, status: u16) {
        let Some(cluster) = &self.cluster else { return };
        let codes = &cluster.context().codes;
        codes.all.record(status);
        if self.facts.internal {
            codes.internal.record(status);
        } else {
            codes.external.record(status);
        }
    }
}

/// A trusted header's whole number of milliseconds.
fn milliseconds(headers: &Headers, name: Known) -> Option<Duration> {
    let value = std::str::from_utf8(headers.value(&name)?).ok()?;
    value.parse().ok().map(Duration::from_millis)
}

/// A `grpc-timeout` value: at most eight digits and a unit; rounded up to milliseconds.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(Duration::from_millis(n.saturating_mul(nanos).div_ceil(1_000_000)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_protocol_defines_them() {
        for (text, expected) in [
            ("1S", Some(1000)),
            ("250m", Some(250)),
            ("1u", Some(1)),
            ("2H", Some(7_200_000)),
            ("123456789S", None),
            ("S", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), expected.map(Duration::from_millis), "{text}");
        }
    }
}

//! What comes of an attempt: the upstream's head becomes the response, its refusal of an upgrade or its failure a reply, and
//! the cluster is told.

use std::sync::Arc;

use bytes::Bytes;
use filters::flags::details;
use filters::http::{Known, Method, RequestHead, ResponseHead, Version};

use super::exchange::Progress;
use super::retry::Again;
use super::routing::upgrade_protocol;
use super::upstream::millis;
use super::{Downstream, Step, Stream};
use crate::http::hygiene::is_upgrade;
use crate::http::reply::LocalReply;
use crate::http::upgrade;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;

impl<D: Downstream> Stream<'_, D> {
    /// Whether a response answers a WebSocket handshake, and neither grants it nor is an error that the client should see.
    pub(super) fn refuses_websocket(&self, head: &ResponseHead) -> bool {
        let asked = self.request.as_ref().and_then(upgrade_protocol);
        self.tunnel
            && head.version != Version::Http2
            && head.status != 101
            && head.status < 400
            && asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }

    /// A handshake is heads alone: what upstream sends behind one that failed is nobody's.
    pub(super) async fn failed_handshake<T>(&mut self, head: ResponseHead) -> Step<T> {
        self.tunnel = false;
        let mut reply = LocalReply::new(head.status, "");
        reply.headers = head.headers;
        reply.headers.remove(&Known::ContentLength);
        self.reply_end(reply, details::WEBSOCKET_HANDSHAKE_UNSUCCESSFUL).await
    }

    /// The final response head goes downstream.
    pub(super) fn respond(
        &mut self,
        host: &Arc<Host>,
        up: &mut Exchange,
        progress: &mut Progress,
        mut head: ResponseHead,
    ) {
        let shard = host.shard(self.manager.worker.index());
        self.deadlines.response_begun();
        if head.status >= 500 {
            shard.rq_error.inc()
        } else {
            shard.rq_success.inc()
        }
        if head.version != Version::Http2 && !self.manager.config.access_logs.is_empty() {
            self.info.upstream_bytes.header_rx = up.meter().header_rx + head.headers.line_bytes() as u64;
        }
        let mut granted = false;
        if self.tunnel
            && let Some(request) = &self.request
        {
            upgrade::from_http2_response(request, &mut head);
            granted = self.grants(&head);
            if granted {
                progress.body_open = true;
                self.deadlines.tunnel();
            } else {
                // The request stays incomplete: what follows its head was never its body.
                self.tunnel = false;
            }
        }
        let origin = self.origin(Some(host), Some(&head));
        self.canary = origin.canary;
        self.charge(head.status, origin);
        // Header values may name both.
        self.info.response_code = head.status;
        self.info.details = Some(details::VIA_UPSTREAM.into());
        // How long upstream took can be told only from the end of the request.
        if let Some(asked) = self.info.timing.last_downstream_rx
            && !self.manager.config.router().suppress_envoy_headers
        {
            let mut text = itoa::Buffer::new();
            let text = Bytes::copy_from_slice(text.format(millis(self.since(asked))).as_bytes());
            head.headers.set(Known::XEnvoyUpstreamServiceTime, text);
        }
        for cookie in self.cookies.drain(..) {
            head.headers.append(Known::SetCookie, cookie);
        }
        if let Some(routed) = &self.routed
            && let Some((_, route)) = routed.resolve()
        {
            let request = self.request.as_ref();
            route.finalize_response(&mut head, request, routed.choice(route, request).as_ref(), &self.info);
            self.tell_attempts(route, &mut head.headers);
        }
        if let Some(spelling) = up.take_spelling() {
            self.down.spell(spelling);
        }
        let end = up.response_complete() && !granted;
        self.grpc_pending = !end && self.request.as_ref().is_some_and(RequestHead::is_grpc);
        self.send_head(head, end);
        if end {
            progress.response_sent = true;
            self.info.timing.last_upstream_rx = Some(self.manager.worker.timers().recent_instant());
            self.deadlines.response_complete();
        }
    }

    /// Whether a response to an upgrade or CONNECT makes the stream a tunnel: 101 that names the protocol, or 2xx where
    /// CONNECT asked for it, as HTTP/2 always does.
    pub(super) fn grants(&self, head: &ResponseHead) -> bool {
        let connect = || self.request.as_ref().is_some_and(|request| request.method == Method::Connect);
        match head.status {
            101 => is_upgrade(&head.headers),
            200..300 => head.version == Version::Http2 || connect(),
            _ => false,
        }
    }

    /// The attempt came to nothing: another try, a reply in its place, or, once a response has begun, an end. `begun` says
    /// whether any of the request had been sent.
    pub(super) async fn upstream_failed(
        &mut self,
        host: &Arc<Host>,
        failure: UpstreamFailure,
        begun: bool,
    ) -> Step<Option<Again>> {
        self.measure = None;
        if let Some(again) = self.retry_after_failure(host, failure.kind, begun, false) {
            return Ok(Some(again));
        }
        if failure.kind != FailureKind::Overflow && (!self.upstream_started || self.grpc_pending) {
            host.shard(self.manager.worker.index()).rq_error.inc();
        }
        if self.upstream_started && self.grpc_pending {
            self.manager.stats.rq_reset_after_downstream_response_started().inc();
        }
        self.info.flags.insert(failure.kind.flag());
        let upstream = self.info.upstream_mut();
        upstream.transport_failure = failure.transport.clone();
        if failure.without_host {
            (upstream.host, upstream.host_name) = (None, None);
            upstream.hosts_attempted.pop();
        }
        let why = failure.details(self.upstream_started);
        if !self.upstream_started {
            let host = (!failure.without_host).then_some(&**host);
            self.charge(failure.kind.status(), self.origin(host, None));
        }
        let retried = self.attempts() > 1;
        let mut reply = LocalReply::new(failure.kind.status(), failure.body(retried));
        if failure.kind == FailureKind::Overflow {
            reply = self.overloaded(reply);
        }
        self.reply_end(reply, why).await
    }
}

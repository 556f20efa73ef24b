//! Sending heads downstream: the proxy's own replies, and what every response gets on its way out.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use filters::format::AccessLogType;
use filters::http::{Headers, Known, ResponseHead, Version};

use super::{Downstream, Stream};
use crate::http::hygiene::{is_upgrade, mutate_response};
use crate::http::reply::{self, LocalReply};
use crate::http::upgrade;
use crate::overload::Action;
use crate::route::{Route, RouteAction};
use crate::worker::timer::Tick;

impl<D: Downstream> Stream<'_, D> {
    /// Answers from here, to the end. When a response has begun it is cut off instead.
    pub(super) async fn reply(&mut self, mut reply: LocalReply, why: impl Into<Cow<'static, str>>) {
        self.info.details = Some(why.into());
        if self.response.is_some() {
            return self.cut_off().await;
        }
        if self.down.request_complete() {
            self.info.timing.last_downstream_rx.get_or_insert_with(|| self.manager.worker.timers().recent_instant());
        }
        self.add_route_headers(&mut reply);
        for change in reply.changes.drain(..) {
            change.apply(&mut reply.headers);
        }
        let config = &self.manager.config;
        if reply.status == 400
            && self.info.protocol != Some(Version::Http2)
            && !config.http1.stream_error_on_invalid_message
        {
            // Something was wrong with the message: what follows it is not to be trusted.
            self.close_connection();
        }
        let runtime = self.manager.worker.runtime();
        let built = reply::build(reply, self.request.as_ref(), &mut self.info, config.local_reply.as_ref(), &*runtime);
        self.send_head(built.head, built.body.is_empty());
        if !built.body.is_empty() {
            self.info.bytes_sent += built.body.len() as u64;
            self.send_data(built.body, true);
        }
        self.flush().await;
    }

    /// Adds what the route says about responses to a reply's headers: before them where the route forwards, behind them
    /// where it answers itself.
    fn add_route_headers(&self, reply: &mut LocalReply) {
        let Some(routed) = &self.routed else { return };
        let Some((_, route)) = routed.resolve() else { return };
        let request = self.request.as_ref();
        let choice = routed.choice(route, request);
        let own = std::mem::take(&mut reply.headers);
        let mut head = ResponseHead { status: reply.status, ..ResponseHead::default() };
        if matches!(route.action, RouteAction::Forward(_)) {
            route.finalize_response(&mut head, request, choice.as_ref(), &self.info);
            for header in own.iter() {
                head.headers.append(header.name.clone(), header.value.clone());
            }
        } else {
            head.headers = own;
            route.finalize_response(&mut head, request, choice.as_ref(), &self.info);
        }
        if self.prepared {
            self.tell_attempts(route, &mut head.headers);
        }
        reply.headers = head.headers;
    }

    /// `include_attempt_count_in_response`
    pub(super) fn tell_attempts(&self, route: &Route, headers: &mut Headers) {
        if route.include_attempt_count_in_response {
            let attempts = self.attempts().max(1);
            let mut text = itoa::Buffer::new();
            headers.set(Known::XEnvoyAttemptCount, Bytes::copy_from_slice(text.format(attempts).as_bytes()));
        }
    }

    /// Queues an informational head.
    pub(super) fn send_informational(&mut self, head: &ResponseHead) {
        self.count_code(head.status);
        self.down.send_informational(head);
    }

    /// Queues body of the response; with `end` nothing follows.
    pub(super) fn send_data(&mut self, data: Bytes, end: bool) {
        self.response_ended |= end;
        self.down.send_data(data, end);
    }

    /// Ends a response that has begun and cannot be completed: the client gets what there is of it, and sees that it is
    /// not all.
    pub(super) async fn cut_off(&mut self) {
        self.manager.stats.downstream_rq_tx_reset().inc();
        if self.info.protocol == Some(Version::Http2) {
            // A reset overtakes what is queued: the connection's task gets its turn to write first.
            tokio::task::yield_now().await;
        }
        self.down.abort();
    }

    /// Completes a final head and queues it.
    pub(super) fn send_head(&mut self, mut head: ResponseHead, end: bool) {
        let manager = self.manager;
        self.filters.encode_head(&mut head, manager.filters.chain(None), &*manager.worker);
        mutate_response(
            &manager.config.response,
            &mut head,
            self.request.as_ref(),
            manager.worker.date(),
            manager.worker.timers().recent_wall(),
        );
        if let Some(proxy_status) = &manager.config.response.proxy_status {
            proxy_status.apply(&mut head, &self.info);
        }
        self.info.response_code = head.status;
        self.count_code(head.status);
        let version = self.info.protocol.unwrap_or_default();
        if !self.down.request_complete() || self.overlong {
            manager.stats.downstream_rq_response_before_rq_complete().inc();
            if version != Version::Http2 && !self.tunnel {
                // The rest of the request would have to be read before another could be answered.
                self.close_connection();
            }
        }
        self.drain_connection(version);
        self.info.timing.first_downstream_tx.get_or_insert_with(|| manager.worker.timers().recent_instant());
        self.response_ended |= end;
        match version {
            Version::Http2 => self.down.send_head(&upgrade::to_http2_response(&head), end),
            Version::Http10 | Version::Http11 => self.down.send_head(&head, end),
        }
        let opened = self.tunnel || is_upgrade(&head.headers);
        self.response = Some(head);
        if opened && manager.config.access_log_options.on_tunnel_established {
            self.log(AccessLogType::DownstreamTunnelSuccessfullyEstablished);
        }
    }

    /// A response is the occasion to tell the client that its connection should end.
    fn drain_connection(&self, version: Version) {
        let (manager, connection) = (self.manager, self.connection);
        if connection.draining.get() {
            return;
        }
        let timers = manager.worker.timers();
        if version != Version::Http2 && connection.old_from.get() != Tick::NEVER {
            connection.grow_old(manager, timers.now());
        }
        if manager.worker.draining() || connection.should_close() {
            manager.stats.downstream_cx_drain_close().inc();
            connection.drain();
        } else if manager.worker.overloaded(Action::DisableHttpKeepalive) {
            manager.stats.downstream_cx_overload_disable_keepalive().inc();
            self.close_connection();
        }
    }

    /// Waits until all that was queued has left, the client is gone, or it takes too long.
    pub(super) async fn flush(&mut self) {
        let timers = self.manager.worker.timers();
        self.deadlines.response_complete();
        let flushed = poll_fn(|cx| match self.down.poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done.map_err(Some)),
            Poll::Pending => self.poll_deadlines(None, cx).map(|_| Err(None)),
        })
        .await;
        match flushed {
            Ok(()) => self.info.timing.last_downstream_tx = Some(timers.turn()),
            Err(Some(interrupt)) => self.interrupted(interrupt),
            Err(None) => self.down.abort(),
        }
    }
}

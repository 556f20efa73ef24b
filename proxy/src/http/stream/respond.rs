//! Sending heads downstream: the proxy's own replies, and what every response gets on its way out.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use filters::http::{ResponseHead, Version};

use super::{Downstream, Stream};
use crate::http::hygiene::mutate_response;
use crate::http::reply::{self, LocalReply};
use crate::overload::Action;

impl<D: Downstream> Stream<'_, D> {
    /// Answers from here, to the end. Does nothing when a response has begun: the stream is aborted instead.
    pub(super) async fn reply(&mut self, reply: LocalReply, why: impl Into<Cow<'static, str>>) {
        self.info.details = Some(why.into());
        if self.response.is_some() {
            self.down.abort();
            return;
        }
        let config = &self.manager.config;
        let runtime = self.manager.worker.runtime();
        let built = reply::build(reply, self.request.as_ref(), &mut self.info, config.local_reply.as_ref(), &*runtime);
        let mut head = built.head;
        if let Some((_, route)) = self.routed.as_ref().and_then(super::Routed::resolve) {
            route.finalize_response(&mut head, self.request.as_ref(), None, &self.info);
        }
        self.send_head(head, built.body.is_empty());
        if !built.body.is_empty() {
            self.info.bytes_sent += built.body.len() as u64;
            self.down.send_data(built.body, true);
        }
        self.flush().await;
    }

    /// Completes a final head and queues it.
    pub(super) fn send_head(&mut self, mut head: ResponseHead, end: bool) {
        let manager = self.manager;
        mutate_response(
            &manager.config.response,
            &mut head,
            self.request.as_ref(),
            manager.worker.date(),
            SystemTime::now(),
        );
        self.info.response_code = head.status;
        let version = self.info.protocol.unwrap_or_default();
        if !self.down.request_complete() && !self.tunnel {
            manager.stats.downstream_rq_response_before_rq_complete().inc();
            if version != Version::Http2 {
                // The rest of the request would have to be read before another could be answered.
                self.close_connection();
            }
        }
        let drains = || {
            manager.worker.draining()
                || manager.worker.overloaded(Action::DisableHttpKeepalive)
                || self.connection.should_close()
        };
        if !self.connection.draining.get() && drains() {
            manager.stats.downstream_cx_drain_close().inc();
            self.close_connection();
        }
        self.info.timing.first_downstream_tx.get_or_insert_with(Instant::now);
        self.down.send_head(&head, end);
        self.response = Some(head);
    }

    /// Waits until all that was queued has left, the client is gone, or it takes too long.
    pub(super) async fn flush(&mut self) {
        let timers = self.manager.worker.timers();
        self.deadlines.response_complete();
        let flushed = poll_fn(|cx| match self.down.poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done.map_err(Some)),
            Poll::Pending => self.deadlines.poll(timers, self.alarm, cx).map(|_| Err(None)),
        })
        .await;
        match flushed {
            Ok(()) => self.info.timing.last_downstream_tx = Some(Instant::now()),
            Err(Some(interrupt)) => self.interrupted(interrupt),
            Err(None) => self.down.abort(),
        }
    }
}

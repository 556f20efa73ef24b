//! Moving a request and its response at the same time.

use std::rc::Rc;
use std::task::{Context, Poll};

use filters::http::{Frame, ResponseHead};

use super::deadline::Expired;
use super::{Downstream, Stream};
use crate::http::codec::Interrupt;
use crate::http::manager::Manager;
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::UpstreamFailure;

/// How far an exchange has come.
pub(super) struct Progress {
    /// All of the request was handed to the upstream side.
    pub(super) request_sent: bool,
    /// The request's body may be read and sent. An upgrade holds it back until it is granted.
    pub(super) body_open: bool,
    /// The final response head was seen.
    pub(super) head_seen: bool,
    /// All of the response was handed to the downstream side.
    pub(super) response_sent: bool,
    /// Informational heads passed on.
    pub(super) informational: u32,
    /// The response waits for a client that reads slowly.
    pub(super) held_back: bool,
    /// The request waits for an upstream that reads slowly.
    pub(super) backed_up: Option<BackedUp>,
    /// Outlier detection knows that it took too long.
    pub(super) timeout_noted: bool,
}

/// A request that waits for an upstream that reads slowly, until this is dropped.
pub(super) struct BackedUp {
    manager: Rc<Manager>,
    cluster: Rc<Cluster>,
}

impl BackedUp {
    fn new(manager: &Rc<Manager>, cluster: &Rc<Cluster>) -> Self {
        manager.stats.downstream_flow_control_paused_reading_total().inc();
        cluster.context().stats.upstream_flow_control_backed_up_total().inc();
        Self { manager: Rc::clone(manager), cluster: Rc::clone(cluster) }
    }
}

impl Drop for BackedUp {
    fn drop(&mut self) {
        self.manager.stats.downstream_flow_control_resumed_reading_total().inc();
        self.cluster.context().stats.upstream_flow_control_drained_total().inc();
    }
}

/// Something the stream has to decide about.
pub(super) enum Event {
    /// The final response head.
    Head(ResponseHead),
    /// An informational head.
    Informational(ResponseHead),
    /// Response complete and written out.
    Complete,
    /// The attempt failed.
    Upstream(UpstreamFailure),
    /// The client is gone or broke the protocol.
    Downstream(Interrupt),
    /// A deadline passed.
    Expired(Expired),
}

impl<D: Downstream> Stream<'_, D> {
    /// Moves what can be moved until something has to be decided.
    pub(super) fn poll_exchange(
        &mut self,
        up: &mut Exchange,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        let timers = self.manager.worker.timers();
        if let Poll::Ready(which) = self.poll_deadlines(Some(up), cx) {
            return Poll::Ready(Event::Expired(which));
        }
        let mut touched = false;
        let event = loop {
            let mut moved = false;
            if progress.body_open && !progress.request_sent {
                match self.poll_request(up, progress, cx) {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(interrupt)) => break Poll::Ready(Event::Downstream(interrupt)),
                    Poll::Pending => {}
                }
            }
            let _ = up.poll_flush(cx);
            match self.poll_response(up, progress, cx) {
                Poll::Ready(Ok(None)) => moved = true,
                Poll::Ready(Ok(Some(event))) => break Poll::Ready(event),
                Poll::Ready(Err(failure)) => break Poll::Ready(Event::Upstream(failure)),
                Poll::Pending => {}
            }
            touched |= moved;
            if !moved {
                break self.poll_quiet(progress, cx);
            }
        };
        if touched || event.is_ready() {
            self.deadlines.touch(timers);
        }
        // What moved may have begun a deadline that passes before those known when this turn began.
        if touched
            && event.is_pending()
            && let Poll::Ready(which) = self.poll_deadlines(Some(up), cx)
        {
            return Poll::Ready(Event::Expired(which));
        }
        event
    }

    /// One piece of the request, if there is one and upstream has room for it.
    fn poll_request(
        &mut self,
        up: &mut Exchange,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Interrupt>> {
        match up.poll_writable(cx) {
            Poll::Ready(Ok(())) => progress.backed_up = None,
            // The upstream takes no more: what it has to say about that comes as its response or its failure.
            Poll::Ready(Err(_)) => return Poll::Pending,
            Poll::Pending => {
                if progress.backed_up.is_none() {
                    progress.backed_up = self.cluster.as_ref().map(|cluster| BackedUp::new(self.manager, cluster));
                }
                return Poll::Pending;
            }
        }
        match self.poll_body(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(interrupt)) => Poll::Ready(Err(interrupt)),
            Poll::Ready(Ok(Some(Frame::Data(data)))) => {
                let end = !self.tunnel && self.body_complete();
                if let Some(measure) = &mut self.measure {
                    measure.sends(data.len());
                }
                up.send_data(data, end);
                if end {
                    self.request_sent(progress);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(Some(Frame::Trailers(trailers)))) => {
                up.send_trailers(&trailers);
                self.request_sent(progress);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(None)) => {
                up.send_data(bytes::Bytes::new(), true);
                self.request_sent(progress);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn request_sent(&mut self, progress: &mut Progress) {
        progress.request_sent = true;
        self.info.timing.last_upstream_tx = Some(self.manager.worker.timers().recent_instant());
    }

    /// One piece of the response, if there is one and downstream has room for it.
    fn poll_response(
        &mut self,
        up: &mut Exchange,
        progress: &mut Progress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Event>, UpstreamFailure>> {
        if progress.response_sent {
            return Poll::Pending;
        }
        if !progress.head_seen {
            let said = up.poll_head(cx);
            if let (Some(measure), Poll::Ready(Ok(head))) = (&mut self.measure, &said) {
                measure.is_told(head);
            }
            return match said {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
                Poll::Ready(Ok(head)) if head.status < 200 && head.status != 101 => {
                    progress.informational += 1;
                    Poll::Ready(Ok(Some(Event::Informational(head))))
                }
                Poll::Ready(Ok(head)) => {
                    progress.head_seen = true;
                    self.info
                        .timing
                        .first_upstream_rx
                        .get_or_insert_with(|| self.manager.worker.timers().recent_instant());
                    Poll::Ready(Ok(Some(Event::Head(head))))
                }
            };
        }
        let writable = self.down.poll_writable(cx);
        if writable.is_pending() != progress.held_back {
            self.count_pause(progress);
        }
        match writable {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(interrupt)) => return Poll::Ready(Ok(Some(Event::Downstream(interrupt)))),
            Poll::Pending => return Poll::Pending,
        }
        match up.poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Ready(Ok(Some(Frame::Data(data)))) => {
                self.info.bytes_sent += data.len() as u64;
                if let Some(measure) = &mut self.measure {
                    measure.receives(data.len());
                }
                let end = up.response_complete();
                self.send_data(data, end);
                if end {
                    self.response_sent(progress);
                }
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Ok(Some(Frame::Trailers(trailers)))) => {
                if !self.manager.config.access_logs.is_empty() {
                    self.trailers = Some(trailers.clone());
                }
                self.response_ended = true;
                self.down.send_trailers(*trailers);
                self.response_sent(progress);
                Poll::Ready(Ok(None))
            }
            Poll::Ready(Ok(None)) => {
                self.send_data(bytes::Bytes::new(), true);
                self.response_sent(progress);
                Poll::Ready(Ok(None))
            }
        }
    }

    /// Reading the response stops because the client does not take it, or goes on.
    fn count_pause(&self, progress: &mut Progress) {
        progress.held_back = !progress.held_back;
        let Some(cluster) = &self.cluster else { return };
        let stats = &cluster.context().stats;
        if progress.held_back {
            stats.upstream_flow_control_paused_reading_total().inc();
        } else {
            stats.upstream_flow_control_resumed_reading_total().inc();
        }
    }

    fn response_sent(&mut self, progress: &mut Progress) {
        progress.response_sent = true;
        self.info.timing.last_upstream_rx = Some(self.manager.worker.timers().recent_instant());
        self.deadlines.response_complete();
    }

    /// Nothing moved: write out what is queued, and listen for the client leaving.
    fn poll_quiet(&mut self, progress: &Progress, cx: &mut Context<'_>) -> Poll<Event> {
        match self.down.poll_flush(cx) {
            Poll::Ready(Ok(())) if progress.response_sent => return Poll::Ready(Event::Complete),
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(interrupt)) => return Poll::Ready(Event::Downstream(interrupt)),
        }
        if progress.request_sent {
            return self.down.poll_gone(cx).map(Event::Downstream);
        }
        if !progress.body_open {
            return self.poll_early(cx).map(Event::Downstream);
        }
        Poll::Pending
    }
}

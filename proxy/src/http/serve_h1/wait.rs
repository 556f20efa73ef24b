//! What a connection waits for between exchanges: the head of the next request, within the limits a head has.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use filters::flags::details;
use filters::http::Version;

use super::super::codec::h1::{DecodeError, DecodedRequest, RequestEvent};
use super::super::manager::Manager;
use super::super::stream::{Expired, Refusal, Unread};
use super::ServerSide;
use crate::worker::timer::{Alarm, Tick, Timers};

/// What came of waiting for a request.
pub(super) enum Next {
    Request(Box<DecodedRequest>),
    Malformed(DecodeError),
    /// A request began, and its head is not going to be complete.
    Unread(Unread),
    /// The client closed between requests.
    Closed,
    /// Nothing ever came, for too long.
    TimedOut,
    /// The client was told that the connection ends, and had its time.
    Drained,
}

/// When a request's head must be complete.
#[derive(Clone, Copy)]
struct HeadLimits {
    headers: Tick,
    request: Tick,
    idle: Tick,
    max_duration: Tick,
}

impl HeadLimits {
    fn new(manager: &Manager, timers: &Timers, began: Instant) -> Self {
        let (began, timeouts) = (timers.tick(began), &manager.config.timeouts);
        Self {
            headers: began.after_opt(timeouts.request_headers),
            request: began.after_opt(timeouts.request),
            idle: began.after_opt(timeouts.stream_idle),
            max_duration: began.after_opt(timeouts.max_stream_duration),
        }
    }

    fn next(&self) -> Tick {
        self.headers.min(self.request).min(self.idle).min(self.max_duration)
    }

    /// Which limit has passed; none is `request_headers_timeout`, which is the head's own.
    fn passed(&self, now: Tick) -> Option<Expired> {
        let limits =
            [(self.request, Expired::Request), (self.max_duration, Expired::MaxDuration), (self.idle, Expired::Idle)];
        let passed = limits.into_iter().find(|(at, _)| *at <= now).map(|(_, which)| which);
        passed.filter(|_| self.headers > now)
    }
}

impl ServerSide<'_> {
    /// Waits until a request can be served, or refused, or none will come.
    pub(super) async fn next_request(&mut self, alarm: &Alarm) -> Next {
        let timers = Rc::clone(self.manager.worker.timers());
        let timeouts = &self.manager.config.timeouts;
        let mut idle = timers.recent().after_opt(timeouts.idle);
        let mut limits = self.began.map(|began| HeadLimits::new(self.manager, &timers, began));
        poll_fn(|cx| {
            self.connection.watch_drain(cx);
            loop {
                if !self.read.is_empty() {
                    match self.decoder.decode(&mut self.read) {
                        Ok(Some(RequestEvent::Head(decoded))) => return Poll::Ready(Next::Request(decoded)),
                        Ok(Some(_)) => return Poll::Ready(Next::Closed),
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Next::Malformed(error)),
                    }
                }
                let between = self.began.is_none();
                match self.poll_read(cx) {
                    Poll::Ready(Ok(true)) => {
                        if self.began.is_none() {
                            let now = timers.turn();
                            self.began = Some(now);
                            limits = Some(HeadLimits::new(self.manager, &timers, now));
                        }
                        continue;
                    }
                    Poll::Ready(_) if between => return Poll::Ready(Next::Closed),
                    Poll::Ready(_) => return Poll::Ready(Next::Unread(Unread::Gone)),
                    Poll::Pending => {}
                }
                if self.connection.draining.get() && self.drained == Tick::NEVER {
                    self.drained = timers.now().after(timeouts.drain_time(fastrand::f64()));
                }
                let old_from = if self.drained == Tick::NEVER { self.connection.old_from.get() } else { Tick::NEVER };
                // A head under way is a request with its limits; a quiet connection may idle so long and live so long.
                let next = match &limits {
                    Some(limits) if !between => limits.next(),
                    _ => idle.min(old_from).min(self.drained),
                };
                if alarm.poll(next, cx).is_pending() {
                    return Poll::Pending;
                }
                let now = timers.now();
                let stats = &self.manager.stats;
                if !between {
                    return Poll::Ready(match limits.and_then(|limits| limits.passed(now)) {
                        Some(which) => Next::Unread(Unread::Expired(which)),
                        None => Next::Malformed(DecodeError { status: 408, details: details::REQUEST_HEADER_TIMEOUT }),
                    });
                }
                if self.drained <= now {
                    return Poll::Ready(Next::Drained);
                }
                if self.began.is_none() && self.connection.requests.get() == 0 {
                    // Nothing was ever said on this connection: there is nobody to tell.
                    if old_from <= now {
                        stats.downstream_cx_max_duration_reached().inc();
                    } else {
                        stats.downstream_cx_idle_timeout().inc();
                    }
                    return Poll::Ready(Next::TimedOut);
                }
                if old_from <= now {
                    self.connection.grow_old(self.manager, now);
                } else {
                    idle = Tick::NEVER;
                    stats.downstream_cx_idle_timeout().inc();
                    self.connection.drain();
                }
            }
        })
        .await
    }

    /// What to answer to a head that is none.
    pub(super) fn refusal(&mut self, error: DecodeError) -> Refusal {
        let timed_out = error.details == details::REQUEST_HEADER_TIMEOUT;
        let stats = &self.manager.stats;
        if timed_out {
            stats.downstream_rq_header_timeout().inc();
        }
        if error.details == details::HTTP1_UNEXPECTED_UNDERSCORE {
            self.manager.http1_stats.requests_rejected_with_underscores_in_headers().inc();
        }
        Refusal {
            status: error.status,
            body: if timed_out { "request header timeout" } else { error.body() },
            details: error.details,
            protocol_error: !timed_out,
            head: None,
            version: Version::Http11,
            began: self.began.take().unwrap_or_else(Instant::now),
        }
    }
}

//! The deadlines of one stream, and which of them came first.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::worker::timer::{Alarm, Tick, Timers};

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// `stream_idle_timeout`, or the route's `idle_timeout`: nothing moved either way.
    Idle,
    /// `request_timeout`: the request is not complete.
    Request,
    /// The route's `timeout`: the response is not complete.
    Route,
    /// `max_stream_duration` of the connection manager or route.
    MaxDuration,
}

/// The deadlines of one stream. Setting one costs a store: the alarm behind them moves only when it must.
pub(super) struct Deadlines {
    idle_after: Option<Duration>,
    idle: Tick,
    request: Tick,
    route: Tick,
    max_duration: Tick,
    route_after: Option<Duration>,
}

impl Deadlines {
    /// No deadline yet.
    pub(super) const fn new() -> Self {
        Self {
            idle_after: None,
            idle: Tick::NEVER,
            request: Tick::NEVER,
            route: Tick::NEVER,
            max_duration: Tick::NEVER,
            route_after: None,
        }
    }

    /// Something moved: the idle deadline starts anew.
    pub(super) fn touch(&mut self, timers: &Timers) {
        if let Some(after) = self.idle_after {
            self.idle = timers.now().after(after);
        }
    }

    /// Sets how long nothing may move; `None` or zero: for ever.
    pub(super) fn set_idle(&mut self, timers: &Timers, after: Option<Duration>) {
        self.idle_after = after.filter(|d| !d.is_zero());
        self.idle = timers.now().after_opt(self.idle_after);
    }

    /// The request must be complete by `after` from now; `None` or zero: whenever.
    pub(super) fn set_request(&mut self, timers: &Timers, after: Option<Duration>) {
        self.request = timers.now().after_opt(after.filter(|d| !d.is_zero()));
    }

    /// The stream must end `after` from now.
    pub(super) fn set_max_duration(&mut self, timers: &Timers, after: Option<Duration>) {
        self.max_duration = timers.now().after_opt(after.filter(|d| !d.is_zero()));
    }

    /// The response must be complete this long after the request is.
    pub(super) fn set_route(&mut self, after: Option<Duration>) {
        self.route_after = after.filter(|d| !d.is_zero());
    }

    /// The request is complete: its own deadline is met and the route's begins.
    pub(super) fn request_complete(&mut self, timers: &Timers) {
        self.request = Tick::NEVER;
        if let Some(after) = self.route_after {
            self.route = timers.now().after(after);
        }
    }

    /// No deadline applies any more but the idle one: the response is only being written out.
    pub(super) fn response_complete(&mut self) {
        self.route = Tick::NEVER;
        self.request = Tick::NEVER;
    }

    /// The stream became a tunnel: only idleness ends it.
    pub(super) fn tunnel(&mut self) {
        self.route = Tick::NEVER;
        self.route_after = None;
        self.request = Tick::NEVER;
    }

    /// Ready with the deadline that passed; otherwise the task is woken when the next one does.
    pub(super) fn poll(&self, timers: &Timers, alarm: &Alarm, cx: &Context<'_>) -> Poll<Expired> {
        let next = self.idle.min(self.request).min(self.route).min(self.max_duration);
        loop {
            if alarm.poll(next, cx).is_pending() {
                return Poll::Pending;
            }
            let now = timers.now();
            for (at, which) in [
                (self.route, Expired::Route),
                (self.max_duration, Expired::MaxDuration),
                (self.request, Expired::Request),
                (self.idle, Expired::Idle),
            ] {
                if at <= now {
                    return Poll::Ready(which);
                }
            }
        }
    }
}

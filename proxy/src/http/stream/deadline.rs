//! The deadlines of one stream, and which of them came first.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::worker::timer::{Alarm, Tick, Timers};

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// `stream_idle_timeout`, or the route's `idle_timeout`: nothing moved either way.
    Idle,
    /// `request_timeout`: the request is not complete.
    Request,
    /// The route's `timeout`: the response is not complete.
    Route,
    /// `max_stream_duration` of the connection manager or route.
    MaxDuration,
    /// `retry_policy.per_try_timeout`: this try has not answered.
    PerTry,
    /// `retry_policy.per_try_idle_timeout`: nothing moved between this try and its upstream.
    PerTryIdle,
    /// `max_stream_duration` of the cluster.
    UpstreamDuration,
    /// `access_log_flush_interval`: nothing ends, a line is due.
    LogFlush,
}

impl Expired {
    /// Whether it was the upstream that took too long.
    pub(super) const fn is_of_upstream(self) -> bool {
        matches!(self, Self::Route | Self::PerTry | Self::PerTryIdle)
    }
}

/// How long one try may take; `None` for as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TryLimits {
    /// Until its response begins, counted from when it has a connection and the whole request.
    pub(super) response: Option<Duration>,
    /// Without any piece of its response, counted from there too.
    pub(super) idle: Option<Duration>,
    /// Until it is over, counted from when it has a connection.
    pub(super) duration: Option<Duration>,
}

/// The deadlines of one stream. Setting one costs a store: the alarm behind them moves only when it must.
pub(super) struct Deadlines {
    idle_after: Option<Duration>,
    idle: Tick,
    request: Tick,
    route: Tick,
    max_duration: Tick,
    route_after: Option<Duration>,
    /// The request is complete: what counts from there may begin.
    complete: bool,
    limits: TryLimits,
    /// A try has its connection.
    trying: bool,
    per_try: Tick,
    per_try_idle: Tick,
    /// From here on the try may be idle: its other limit has passed, though its response had begun by then.
    idle_until: Tick,
    upstream_duration: Tick,
    log_flush: Tick,
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
            complete: false,
            limits: TryLimits { response: None, idle: None, duration: None },
            trying: false,
            per_try: Tick::NEVER,
            per_try_idle: Tick::NEVER,
            idle_until: Tick::NEVER,
            upstream_duration: Tick::NEVER,
            log_flush: Tick::NEVER,
        }
    }

    /// Something moved: the idle deadlines start anew.
    pub(super) fn touch(&mut self, timers: &Timers) {
        if let Some(after) = self.idle_after {
            self.idle = timers.recent().after(after);
        }
        if let Some(after) = self.limits.idle
            && self.per_try_idle != Tick::NEVER
        {
            self.set_try_idle(timers.recent().after(after));
        }
    }

    /// Sets how long nothing may move; `None` or zero: for ever.
    pub(super) fn set_idle(&mut self, now: Tick, after: Option<Duration>) {
        self.idle_after = after.filter(|d| !d.is_zero());
        self.idle = now.after_opt(self.idle_after);
    }

    /// The request must be complete `after` the stream `began`; `None` or zero: whenever.
    pub(super) fn set_request(&mut self, began: Tick, after: Option<Duration>) {
        self.request = began.after_opt(after.filter(|d| !d.is_zero()));
    }

    /// The stream must be over `after` it `began`; `None`: whenever. Zero is at once.
    pub(super) fn set_max_duration(&mut self, began: Tick, after: Option<Duration>) {
        self.max_duration = began.after_opt(after);
    }

    /// The next line of a stream that lives is due `after` now; `None`: there is only the one at its end.
    pub(super) fn set_log_flush(&mut self, now: Tick, after: Option<Duration>) {
        self.log_flush = now.after_opt(after);
    }

    /// The response must be complete this long after the request is; `None` or zero: whenever.
    pub(super) fn set_route(&mut self, after: Option<Duration>) {
        self.route_after = after.filter(|d| !d.is_zero());
    }

    /// How long each try may take.
    pub(super) fn set_try_limits(&mut self, limits: TryLimits) {
        let some = |limit: Option<Duration>| limit.filter(|d| !d.is_zero());
        let TryLimits { response, idle, duration } = limits;
        self.limits = TryLimits { response: some(response), idle: some(idle), duration: some(duration) };
    }

    /// The request is complete: its own deadline is met, and those of route and try begin.
    pub(super) fn request_complete(&mut self, timers: &Timers) {
        self.request = Tick::NEVER;
        self.complete = true;
        if self.route_after.is_none() && !self.times_tries() {
            return;
        }
        let now = timers.recent();
        self.route = now.after_opt(self.route_after);
        self.time_try(now);
    }

    /// How long an upstream has from now on, as far as it is told, when the request is complete since `elapsed`. With
    /// hedging a try's limit does not end it.
    pub(super) fn expected(&self, elapsed: Duration, hedges: bool) -> Option<Duration> {
        let expected = self.limits.response.filter(|_| !hedges).or(self.route_after)?;
        let Some(whole) = self.route_after else { return Some(expected) };
        // Zero would be for ever. Whoever is that late is about to learn of it.
        Some(expected.min(whole.saturating_sub(elapsed)).max(Duration::from_millis(1)))
    }

    /// A try has a connection: its deadlines begin.
    pub(super) fn begin_try(&mut self, timers: &Timers) {
        self.trying = true;
        if self.limits == TryLimits::default() {
            return;
        }
        let now = timers.recent();
        self.upstream_duration = now.after_opt(self.limits.duration);
        self.time_try(now);
    }

    /// Whether there is anything to time that begins once a try has both its connection and the whole request.
    const fn times_tries(&self) -> bool {
        self.limits.response.is_some() || self.limits.idle.is_some()
    }

    fn time_try(&mut self, now: Tick) {
        if self.trying && self.complete {
            self.per_try = now.after_opt(self.limits.response);
            self.per_try_idle = now.after_opt(self.limits.idle);
        }
    }

    /// The try under way may take as long as it likes to answer.
    pub(super) fn leave_try_alone(&mut self) {
        self.per_try = Tick::NEVER;
        self.per_try_idle = Tick::NEVER;
    }

    /// When the try under way is over, answered or not.
    pub(super) const fn try_ends(&self) -> Tick {
        self.upstream_duration
    }

    /// One of several tries goes on alone, with what is left of its limits.
    pub(super) fn resume_try(&mut self, idle: Tick, duration: Tick) {
        self.end_try();
        self.trying = true;
        self.per_try_idle = idle;
        self.upstream_duration = duration;
    }

    /// Tries run side by side, each with limits of its own, the next of which passes then.
    pub(super) fn side_by_side(&mut self, next: Tick) {
        self.end_try();
        self.per_try = next;
    }

    /// How long all of it may take from the end of the request.
    pub(super) const fn whole(&self) -> Option<Duration> {
        self.route_after
    }

    /// How long each try may take.
    pub(super) const fn try_limits(&self) -> TryLimits {
        self.limits
    }

    /// How long the whole response may take.
    pub(super) const fn route_limit(&self) -> Option<Duration> {
        self.route_after
    }

    /// The try's response began: how long that took no longer matters. In Envoy, too, the limit passes all the same, and
    /// takes that on idleness with it.
    pub(super) fn response_begun(&mut self) {
        self.idle_until = std::mem::replace(&mut self.per_try, Tick::NEVER);
        self.set_try_idle(self.per_try_idle);
    }

    fn set_try_idle(&mut self, at: Tick) {
        self.per_try_idle = if at < self.idle_until { at } else { Tick::NEVER };
    }

    /// The try is over.
    pub(super) fn end_try(&mut self) {
        self.trying = false;
        self.idle_until = Tick::NEVER;
        self.per_try = Tick::NEVER;
        self.per_try_idle = Tick::NEVER;
        self.upstream_duration = Tick::NEVER;
    }

    /// No deadline applies any more but the idle one: the response is only being written out.
    pub(super) fn response_complete(&mut self) {
        self.route = Tick::NEVER;
        self.request = Tick::NEVER;
        self.end_try();
    }

    /// The stream became a tunnel: only idleness and its age end it.
    pub(super) fn tunnel(&mut self) {
        self.route = Tick::NEVER;
        self.route_after = None;
        self.request = Tick::NEVER;
        self.per_try = Tick::NEVER;
    }

    /// Ready with the deadline that passed; otherwise the task is woken when the next one does.
    pub(super) fn poll(&self, timers: &Timers, alarm: &Alarm, cx: &Context<'_>) -> Poll<Expired> {
        let of_stream = self.idle.min(self.request).min(self.route).min(self.max_duration);
        let next = of_stream.min(self.per_try).min(self.per_try_idle).min(self.upstream_duration).min(self.log_flush);
        loop {
            if alarm.poll(next, cx).is_pending() {
                return Poll::Pending;
            }
            let now = timers.now();
            for (at, which) in [
                (self.route, Expired::Route),
                (self.per_try, Expired::PerTry),
                (self.per_try_idle, Expired::PerTryIdle),
                (self.upstream_duration, Expired::UpstreamDuration),
                (self.max_duration, Expired::MaxDuration),
                (self.request, Expired::Request),
                (self.idle, Expired::Idle),
                (self.log_flush, Expired::LogFlush),
            ] {
                if at <= now {
                    return Poll::Ready(which);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The deadline next to pass, without a clock that moves.
    fn next(deadlines: &Deadlines) -> Tick {
        deadlines.per_try.min(deadlines.route).min(deadlines.upstream_duration).min(deadlines.per_try_idle)
    }

    #[test]
    fn a_try_is_timed_from_its_connection_and_the_whole_request() {
        let timers = Timers::new();
        let mut deadlines = Deadlines::new();
        deadlines.set_try_limits(TryLimits { response: Some(10 * MS), ..TryLimits::default() });
        deadlines.begin_try(&timers);
        assert_eq!(next(&deadlines), Tick::NEVER, "the request is not complete");
        deadlines.request_complete(&timers);
        assert_ne!(deadlines.per_try, Tick::NEVER);
        deadlines.end_try();
        assert_eq!(next(&deadlines), Tick::NEVER);
        deadlines.begin_try(&timers);
        assert_ne!(deadlines.per_try, Tick::NEVER, "the second try has the whole request from its start");
        deadlines.response_begun();
        assert_eq!(next(&deadlines), Tick::NEVER);
    }

    #[test]
    fn a_route_timeout_waits_for_the_request() {
        let timers = Timers::new();
        let mut deadlines = Deadlines::new();
        deadlines.set_route(Some(5 * MS));
        assert_eq!(deadlines.route, Tick::NEVER);
        deadlines.request_complete(&timers);
        assert_ne!(deadlines.route, Tick::NEVER);
        deadlines.set_route(Some(Duration::ZERO));
        assert_eq!(deadlines.route_after, None, "zero is no limit");
    }

    #[test]
    fn a_stream_duration_of_zero_is_over_at_once_and_others_are_not() {
        let now = Timers::new().now();
        let mut deadlines = Deadlines::new();
        deadlines.set_max_duration(now, Some(Duration::ZERO));
        assert_eq!(deadlines.max_duration, now);
        deadlines.set_request(now, Some(Duration::ZERO));
        assert_eq!(deadlines.request, Tick::NEVER);
        let limits =
            TryLimits { response: Some(Duration::ZERO), idle: Some(Duration::ZERO), duration: Some(Duration::ZERO) };
        deadlines.set_try_limits(limits);
        assert_eq!(deadlines.limits, TryLimits::default());
    }
}

//! Whether a connection should be closed because what it belongs to goes away.
//!
//! Three things can drain: the server, a version of a listener, a filter chain. Each has a [`Drain`], set once by control
//! and read by workers when they are about to answer; a connection closes when any of its three says so.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// `--drain-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainStrategy {
    /// Connections close with a probability that rises over the drain time.
    #[default]
    Gradual,
    /// Connections close at the first occasion.
    Immediate,
}

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// When it began.
    pub start: Instant,
    /// `--drain-time-s`; after it everything left is closed.
    pub time: Duration,
    /// How connections spread over that time.
    pub strategy: DrainStrategy,
}

/// Something that can drain. Once begun it does not end.
#[derive(Debug, Default)]
pub struct Drain {
    plan: OnceLock<DrainPlan>,
}

impl DrainPlan {
    /// How likely a connection that could close at `now` should: 0 at the start, 1 from the end on.
    #[must_use]
    pub fn close_probability(&self, now: Instant) -> f64 {
        if self.strategy == DrainStrategy::Immediate || self.time.is_zero() {
            return 1.0;
        }
        (now.saturating_duration_since(self.start).as_secs_f64() / self.time.as_secs_f64()).min(1.0)
    }

    /// Whether the connection closes, `random` being uniform in `[0, 1)`.
    #[must_use]
    pub fn closes(&self, now: Instant, random: f64) -> bool {
        random < self.close_probability(now)
    }

    /// When what is left is closed.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.start + self.time
    }
}

impl Drain {
    /// Begins to drain; a second call changes nothing. True when this call began it.
    pub fn begin(&self, plan: DrainPlan) -> bool {
        self.plan.set(plan).is_ok()
    }

    /// The drain under way, if any.
    #[must_use]
    pub fn plan(&self) -> Option<&DrainPlan> {
        self.plan.get()
    }

    /// Whether a connection that could close at `now` should. `random` is asked only while draining.
    pub fn closes(&self, now: Instant, random: impl FnOnce() -> f64) -> bool {
        self.plan.get().is_some_and(|plan| plan.closes(now, random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_rises_to_one_and_stays() {
        let start = Instant::now();
        let plan = DrainPlan { start, time: Duration::from_secs(10), strategy: DrainStrategy::Gradual };
        for (elapsed, expected) in [(0, 0.0), (5_000, 0.5), (10_000, 1.0), (60_000, 1.0)] {
            let probability = plan.close_probability(start + Duration::from_millis(elapsed));
            assert!((probability - expected).abs() < 1e-9, "{elapsed} ms: {probability}");
        }
        assert!(!plan.closes(start, 0.0), "nothing closes at the very start");
        assert!(plan.closes(start + plan.time, 0.999), "everything closes at the end");
    }

    #[test]
    fn immediate_and_zero_time_close_at_once() {
        let start = Instant::now();
        for (time, strategy) in
            [(Duration::from_secs(600), DrainStrategy::Immediate), (Duration::ZERO, DrainStrategy::Gradual)]
        {
            assert!(DrainPlan { start, time, strategy }.closes(start, 0.999));
        }
    }

    #[test]
    fn a_drain_begins_once_and_asks_for_randomness_only_then() {
        let drain = Drain::default();
        let now = Instant::now();
        assert!(!drain.closes(now, || unreachable!("not draining")));
        let plan = DrainPlan { start: now, time: Duration::from_secs(1), strategy: DrainStrategy::Immediate };
        assert!(drain.begin(plan));
        assert!(!drain.begin(DrainPlan { time: Duration::from_secs(9), ..plan }));
        assert_eq!(drain.plan(), Some(&plan));
        assert!(drain.closes(now, || 0.5));
    }
}

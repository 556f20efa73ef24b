//! The retry budget: retries as a share of requests, those of now or those of a while.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::cluster::RetryBudget;

/// Slots an interval is divided into: a request counts from its own slot to the end of the ninth after it.
const SLOTS: u64 = 10;

/// A priority's budget. The runtime may change its numbers, and make one where none is configured.
#[derive(Debug)]
pub(super) struct Budget {
    /// As a number of type `f64`; [`NONE`] when there is no budget.
    percent: AtomicU64,
    least: AtomicU32,
    /// What counts is what began within an interval, rather than what is in flight.
    recent: Option<Recent>,
}

/// No share at all: there is no budget.
const NONE: u64 = u64::MAX;

impl Budget {
    pub(super) fn new(config: Option<&RetryBudget>) -> Self {
        let budget = Self {
            percent: AtomicU64::new(NONE),
            least: AtomicU32::new(0),
            recent: config
                .filter(|config| !config.budget_interval.is_zero())
                .map(|config| Recent::new(config.budget_interval)),
        };
        budget.set(config.map(|config| (config.budget_percent, config.min_retry_concurrency)));
        budget
    }

    /// The share in percent and the least number of retries from now on; `None` for no budget.
    pub(super) fn set(&self, numbers: Option<(f64, u32)>) {
        self.percent.store(numbers.map_or(NONE, |(percent, _)| percent.to_bits()), Relaxed);
        self.least.store(numbers.map_or(0, |(_, least)| least), Relaxed);
    }

    /// How many retries there may be while `active` requests are in flight or wait; `None` without a budget.
    pub(super) fn limit(&self, active: impl FnOnce() -> u64) -> Option<u32> {
        let percent = match self.percent.load(Relaxed) {
            NONE => return None,
            bits => f64::from_bits(bits),
        };
        let requests = self.recent.as_ref().map_or_else(active, |recent| recent.count(Instant::now()));
        #[expect(clippy::cast_precision_loss, reason = "requests in flight are far below 2^53")]
        let share = (percent / 100.0 * requests as f64).clamp(0.0, f64::from(u32::MAX));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is clamped to u32")]
        let share = share as u32;
        Some(share.max(self.least.load(Relaxed)))
    }

    /// A request was begun.
    pub(super) fn begin(&self) {
        if let Some(recent) = &self.recent {
            recent.add(Instant::now());
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.percent.load(Relaxed) != NONE
    }
}

/// Requests of the past interval, as a window that slides slot by slot.
#[derive(Debug)]
struct Recent {
    began: Instant,
    /// How long one slot lasts, in nanoseconds.
    slot: u64,
    /// Above: which slot since the beginning; below: requests that began in it.
    slots: [AtomicU64; SLOTS as usize],
}

impl Recent {
    fn new(interval: Duration) -> Self {
        let slot = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX) / SLOTS;
        Self { began: Instant::now(), slot: slot.max(1), slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn add(&self, now: Instant) {
        let slot = self.slot(now);
        let Some(cell) = self.slots.get((slot % SLOTS) as usize) else { return };
        let counted = |cell: u64| {
            let count = if cell >> 32 == slot & u64::from(u32::MAX) { (cell & u64::from(u32::MAX)) + 1 } else { 1 };
            Some((slot << 32) | count.min(u32::MAX.into()))
        };
        // The closure always has a next value.
        let _ = cell.fetch_update(Relaxed, Relaxed, counted);
    }

    fn count(&self, now: Instant) -> u64 {
        let slot = self.slot(now);
        let numbers = (slot.saturating_sub(SLOTS - 1)..=slot).map(|number| number & u64::from(u32::MAX));
        let count = |number: u64| {
            let cells = self.slots.iter().map(|cell| cell.load(Relaxed));
            cells.filter(|cell| cell >> 32 == number).map(|cell| cell & u64::from(u32::MAX)).sum::<u64>()
        };
        numbers.map(count).sum()
    }

    /// Which slot it is. The first has number one, so that no cell says it holds it before it does.
    fn slot(&self, now: Instant) -> u64 {
        let past = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        past / self.slot + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_its_slot_has_passed() {
        let recent = Recent::new(Duration::from_secs(1));
        let at = |millis: u64| recent.began + Duration::from_millis(millis);
        assert_eq!(recent.count(at(0)), 0);
        recent.add(at(50));
        recent.add(at(60));
        recent.add(at(550));
        for (millis, expected) in [(550, 3), (999, 3), (1000, 1), (1499, 1), (1500, 0), (9_000, 0)] {
            assert_eq!(recent.count(at(millis)), expected, "after {millis} ms");
        }
        recent.add(at(10_550));
        assert_eq!(recent.count(at(10_550)), 1, "what was there before is forgotten");
    }

    #[test]
    fn the_share_is_of_what_is_in_flight_or_of_what_began() {
        let config = |seconds| RetryBudget {
            budget_percent: 50.0,
            min_retry_concurrency: 1,
            budget_interval: Duration::from_secs(seconds),
        };
        assert_eq!(Budget::new(None).limit(|| 100), None);
        let active = Budget::new(Some(&config(0)));
        assert_eq!([active.limit(|| 0), active.limit(|| 9)], [Some(1), Some(4)]);
        let recent = Budget::new(Some(&config(3600)));
        (0..8).for_each(|_| recent.begin());
        assert_eq!(recent.limit(|| 100), Some(4));
        recent.set(Some((25.0, 3)));
        assert_eq!(recent.limit(|| 100), Some(3));
        recent.set(None);
        assert_eq!(recent.limit(|| 100), None);
    }
}

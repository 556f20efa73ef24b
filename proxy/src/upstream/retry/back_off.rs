//! How long to wait before a retry: longer each time, at random, or as the response asked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use filters::http::ResponseHead;
use filters::matcher::Runtime;

use crate::route::retry::RetryPolicy;

/// The base interval where neither policy nor runtime sets one, in milliseconds.
const BASE: u64 = 25;

/// Exponential back-off with full jitter, in milliseconds.
#[derive(Debug)]
pub(crate) struct BackOff {
    next: u64,
    max: u64,
}

impl BackOff {
    /// The back-off of a policy.
    pub(super) fn new(policy: Option<&RetryPolicy>, runtime: &dyn Runtime) -> Self {
        let millis = |interval: Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let base = match policy.and_then(|policy| policy.base_interval) {
            Some(base) => millis(base),
            None => runtime.integer("upstream.base_retry_backoff_ms").unwrap_or(BASE),
        };
        let base = base.max(1);
        let max = policy.and_then(|policy| policy.max_interval).map_or_else(|| base.saturating_mul(10), millis);
        Self { next: base, max: max.max(1) }
    }

    /// A back-off between these.
    pub(crate) fn between(base: Duration, max: Duration) -> Self {
        let millis = |interval: Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { next: millis(base), max: millis(max) }
    }

    /// The next wait: anything below the interval, which then doubles up to its cap.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let interval = self.next;
        self.next = interval.saturating_mul(2).min(self.max);
        Duration::from_millis(random % interval)
    }
}

/// A wait that a response asked for: that long at least, and up to half as long again, so that not everybody comes back at
/// once.
pub(super) fn from_lower_bound(interval: Duration, random: u64) -> Duration {
    let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_add(random % (millis / 2).max(1)))
}

/// How long the response asks to stay away: the first of the policy's headers that says so, and not too much.
pub(super) fn reset_interval(policy: &RetryPolicy, response: &ResponseHead, now: SystemTime) -> Option<Duration> {
    let interval = policy.reset_headers.iter().find_map(|header| {
        let value = std::str::from_utf8(response.headers.value(&header.name)?).ok()?;
        let seconds = super::number(value)?;
        let seconds = if header.unix_timestamp {
            seconds.checked_sub(now.duration_since(UNIX_EPOCH).ok()?.as_secs())?
        } else {
            seconds
        };
        Some(Duration::from_secs(seconds)).filter(|interval| *interval <= policy.reset_max_interval)
    })?;
    (interval > Duration::from_millis(1)).then_some(interval)
}

#[cfg(test)]
mod tests {
    use filters::matcher::NoRuntime;

    use super::*;

    #[test]
    fn intervals_double_up_to_ten_times_the_first() {
        let mut back_off = BackOff::new(None, &NoRuntime);
        let longest: Vec<_> = (0..7)
            .map(|_| {
                // One less than the interval is the most a wait can be.
                let interval = back_off.next;
                let wait = back_off.next(interval - 1);
                assert_eq!(wait, Duration::from_millis(interval - 1));
                interval
            })
            .collect();
        assert_eq!(longest, [25, 50, 100, 200, 250, 250, 250]);
        assert_eq!(BackOff { next: 25, max: 250 }.next(50), Duration::ZERO, "any wait below the interval is possible");
    }

    #[test]
    fn what_a_response_asks_is_the_least() {
        let second = Duration::from_secs(1);
        assert_eq!(from_lower_bound(second, 0), second);
        assert_eq!(from_lower_bound(second, 499), Duration::from_millis(1499));
        assert_eq!(from_lower_bound(second, 500), second);
    }
}

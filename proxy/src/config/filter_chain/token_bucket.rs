//! A token bucket that several threads draw from without a lock.
//!
//! The one number kept is the moment at which the bucket would have been empty: what is in it follows from the clock.
//! Taking a token moves that moment on by what the token took to drip in.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A bucket that starts full and fills continuously.
#[derive(Debug)]
pub struct TokenBucket {
    max: f64,
    /// Tokens a second.
    rate: f64,
    start: Instant,
    /// Seconds since the start, as the bits of an `f64`.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// A full bucket of `max` tokens that gets `rate` a second.
    #[must_use]
    pub fn new(max: u32, rate: f64, now: Instant) -> Self {
        let max = f64::from(max);
        Self { max, rate, start: now, empty_at: AtomicU64::new((-max / rate).to_bits()) }
    }

    /// Takes a token; false when there is none.
    #[must_use]
    pub fn take(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.start).as_secs_f64();
        // A bucket that is full stays as full as it is.
        let full = now - self.max / self.rate;
        let taken = self.empty_at.fetch_update(Relaxed, Relaxed, |bits| {
            let next = f64::from_bits(bits).max(full) + 1.0 / self.rate;
            // A token that is there but for a rounding error is there.
            (next <= now + 1e-9).then_some(next.to_bits())
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_bucket_gives_what_it_holds_and_then_what_drips_in() {
        let start = Instant::now();
        let bucket = TokenBucket::new(3, 2.0, start);
        let taken = |millis: u64| {
            let now = start + Duration::from_millis(millis);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(0), 3);
        assert_eq!(taken(499), 0);
        assert_eq!(taken(500), 1);
        assert_eq!(taken(1500), 2);
        // Never more than the bucket holds, however long nobody came.
        assert_eq!(taken(100_000), 3);
    }
}

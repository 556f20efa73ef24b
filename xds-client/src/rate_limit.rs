//! The token bucket of `ApiConfigSource.rate_limit_settings`: how many requests may be sent, and how soon the next.

use std::time::{Duration, Instant};

/// `envoy.config.core.v3.RateLimitSettings`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Size of the bucket (`max_tokens`).
    pub max_tokens: u32,
    /// Tokens that come back per second (`fill_rate`).
    pub fill_rate: f64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { max_tokens: 100, fill_rate: 10.0 }
    }
}

/// A bucket that starts full.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: RateLimit,
    tokens: f64,
    filled: Instant,
}

/// Rates below this would make a wait that no clock can represent.
const MIN_FILL_RATE: f64 = 1.0 / 86_400.0;

impl TokenBucket {
    /// A full bucket.
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        let fill_rate = if limit.fill_rate.is_finite() { limit.fill_rate.max(MIN_FILL_RATE) } else { f64::MAX };
        let max_tokens = limit.max_tokens.max(1);
        Self { limit: RateLimit { max_tokens, fill_rate }, tokens: f64::from(max_tokens), filled: now }
    }

    /// Takes one token, or says when there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.limit.fill_rate;
        self.tokens = (self.tokens + gained).min(f64::from(self.limit.max_tokens));
        self.filled = now.max(self.filled);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // Rounded up, or a timer could fire a hair too early, for ever.
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.limit.fill_rate);
        Err(now + wait.max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(RateLimit { max_tokens: 3, fill_rate: 10.0 }, start);
        assert!((0..3).all(|_| bucket.take(start).is_ok()));
        let next = bucket.take(start).expect_err("the bucket is empty");
        assert_eq!((next - start).as_millis(), 100);
        assert!(bucket.take(next + Duration::from_millis(1)).is_ok());
        assert!(bucket.take(next + Duration::from_millis(1)).is_err());
        let later = next + Duration::from_secs(60);
        assert!((0..3).all(|_| bucket.take(later).is_ok()), "it never holds more than its size");
        assert!(bucket.take(later).is_err());
    }

    #[test]
    fn degenerate_rates_still_move() {
        let start = Instant::now();
        for fill_rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut bucket = TokenBucket::new(RateLimit { max_tokens: 0, fill_rate }, start);
            assert!(bucket.take(start).is_ok());
            let next = bucket.take(start).expect_err("empty");
            assert!(bucket.take(next + Duration::from_secs(1)).is_ok(), "{fill_rate}");
        }
    }
}

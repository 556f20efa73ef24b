//! Jittered exponential backoff, as Envoy reconnects: a random delay below a ceiling that doubles with every failure.

use std::time::Duration;

use fastrand::Rng;

/// `retry_policy.retry_back_off` of an `envoy_grpc` service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffConfig {
    /// The first ceiling (`base_interval`).
    pub base: Duration,
    /// The highest ceiling (`max_interval`).
    pub max: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { base: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

/// The state of one retrying thing.
#[derive(Clone, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    ceiling: Duration,
    rng: Rng,
}

impl Backoff {
    /// A fresh backoff; equal seeds give equal delays.
    pub fn new(config: BackoffConfig, seed: u64) -> Self {
        // A base above the maximum is read as the maximum, a zero base as the smallest delay there is.
        let base = config.base.clamp(Duration::from_millis(1), config.max.max(Duration::from_millis(1)));
        let config = BackoffConfig { base, max: config.max.max(base) };
        Self { config, ceiling: base, rng: Rng::with_seed(seed) }
    }

    /// How long to wait before the next attempt: anything below the ceiling, which then doubles.
    pub fn next_delay(&mut self) -> Duration {
        let nanos = u64::try_from(self.ceiling.as_nanos()).unwrap_or(u64::MAX);
        let delay = Duration::from_nanos(self.rng.u64(0..nanos.max(1)));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.config.max);
        delay
    }

    /// Back to the base: the other side has answered.
    pub fn reset(&mut self) {
        self.ceiling = self.config.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_to_the_maximum_and_reset() {
        let config = BackoffConfig::default();
        let mut backoff = Backoff::new(config, 7);
        let mut ceiling = config.base;
        for _ in 0..12 {
            assert!(backoff.next_delay() < ceiling);
            ceiling = (ceiling * 2).min(config.max);
        }
        assert_eq!(backoff.ceiling, config.max);
        backoff.reset();
        assert!((0..50).all(|_| {
            backoff.reset();
            backoff.next_delay() < config.base
        }));
    }

    #[test]
    fn the_whole_range_is_used() {
        let mut backoff = Backoff::new(BackoffConfig::default(), 1);
        let delays: Vec<_> = (0..200)
            .map(|_| {
                backoff.reset();
                backoff.next_delay()
            })
            .collect();
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(50)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(450)));
    }

    #[test]
    fn odd_configurations_are_survived() {
        for (base, max) in [(0, 0), (10, 1), (0, 5)] {
            let config = BackoffConfig { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let mut backoff = Backoff::new(config, 3);
            for _ in 0..5 {
                assert!(backoff.next_delay() <= Duration::from_millis(max.max(1)));
            }
        }
    }
}

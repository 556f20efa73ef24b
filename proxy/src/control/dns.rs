//! DNS for `STRICT_DNS` and `LOGICAL_DNS` clusters: when to ask, and what an answer means.
//!
//! This file is the sans-io part: a [`Refresh`] decides the next question's time from each outcome. [`driver`] asks.
//! An answer without addresses (`NXDOMAIN`, no records) and a failure to get one are different things: the first
//! takes hosts away, the second keeps those known.

pub mod driver;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::cluster::{DnsConfig, LookupFamily, ResolverConfig};

/// Number of one question; answers carry it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name.
    pub host: Arc<str>,
    /// Which addresses count.
    pub family: LookupFamily,
    /// Whom to ask.
    pub resolver: Arc<ResolverConfig>,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// At least one address, in the order of the answer.
    Addresses {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// The shortest lifetime of a record.
        ttl: Duration,
    },
    /// The name has no such address.
    Empty,
    /// There was no answer.
    Failed(String),
}

/// Asks questions. Answers are brought to the cluster manager's `on_lookup`.
pub trait Resolver {
    /// Starts a lookup.
    fn resolve(&mut self, id: LookupId, question: Question);
    /// The answer is not wanted any more.
    fn cancel(&mut self, id: LookupId);
}

/// When one name is asked for again.
#[derive(Debug, Clone, Default)]
pub struct Refresh {
    failures: u32,
}

impl Refresh {
    /// The time of the next question after `outcome`.
    pub fn next(&mut self, config: &DnsConfig, outcome: &Outcome, now: Instant, random: &mut fastrand::Rng) -> Instant {
        let wait = match outcome {
            Outcome::Failed(_) => {
                let wait = match config.failure_backoff {
                    Some(backoff) => {
                        let bound = backoff.base.saturating_mul(1 << self.failures.min(20)).min(backoff.max);
                        random_up_to(bound, random)
                    }
                    None => config.refresh_rate,
                };
                self.failures = self.failures.saturating_add(1);
                wait
            }
            Outcome::Empty => self.succeeded(config.refresh_rate),
            Outcome::Addresses { ttl, .. } if config.respect_ttl && !ttl.is_zero() => self.succeeded(*ttl),
            Outcome::Addresses { .. } => self.succeeded(config.refresh_rate),
        };
        let wait = wait.max(config.min_refresh_rate).max(SHORTEST) + random_up_to(config.jitter, random);
        now.checked_add(wait).unwrap_or(now + LONGEST)
    }

    const fn succeeded(&mut self, wait: Duration) -> Duration {
        self.failures = 0;
        wait
    }
}

/// Not even a random wait of zero asks in a busy loop.
const SHORTEST: Duration = Duration::from_millis(1);
/// Stands for "never" where a configured time is beyond the clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

fn random_up_to(bound: Duration, random: &mut fastrand::Rng) -> Duration {
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(random.u64(..nanos)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cluster::Backoff;
    use crate::config::endpoint::LoadAssignment;

    fn config() -> DnsConfig {
        DnsConfig {
            assignment: LoadAssignment::default(),
            family: LookupFamily::Auto,
            refresh_rate: Duration::from_secs(5),
            min_refresh_rate: Duration::ZERO,
            jitter: Duration::ZERO,
            respect_ttl: false,
            failure_backoff: None,
            resolver: ResolverConfig::default(),
        }
    }

    fn answer(ttl: u64) -> Outcome {
        Outcome::Addresses { addresses: vec![IpAddr::from([10, 0, 0, 1])], ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn the_wait_after_an_answer() {
        let ttl = DnsConfig { respect_ttl: true, min_refresh_rate: Duration::from_secs(2), ..config() };
        for (config, outcome, seconds) in [
            (config(), answer(60), 5),
            (config(), Outcome::Empty, 5),
            (config(), Outcome::Failed("timeout".to_owned()), 5),
            (ttl.clone(), answer(60), 60),
            (ttl.clone(), answer(1), 2),
            (ttl.clone(), answer(0), 5),
            (ttl, Outcome::Empty, 5),
        ] {
            let now = Instant::now();
            let next = Refresh::default().next(&config, &outcome, now, &mut fastrand::Rng::with_seed(1));
            assert_eq!(next - now, Duration::from_secs(seconds), "{outcome:?}");
        }
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_the_maximum_until_an_answer() {
        let backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(8) };
        let config = DnsConfig { failure_backoff: Some(backoff), ..config() };
        let (mut refresh, mut random, now) = (Refresh::default(), fastrand::Rng::with_seed(3), Instant::now());
        let mut wait =
            |refresh: &mut Refresh, outcome: &Outcome| refresh.next(&config, outcome, now, &mut random) - now;
        let failed = Outcome::Failed("SERVFAIL".to_owned());
        let mut longest = Duration::ZERO;
        for bound in [1, 2, 4, 8, 8, 8, 8, 8, 8, 8, 8] {
            let waited = wait(&mut refresh, &failed);
            assert!(waited <= Duration::from_secs(bound), "{waited:?} of at most {bound} s");
            longest = longest.max(waited);
        }
        assert!(longest > Duration::from_secs(2), "{longest:?}");
        assert_eq!(wait(&mut refresh, &answer(1)), Duration::from_secs(5));
        assert!(wait(&mut refresh, &failed) <= Duration::from_secs(1), "an answer starts the backoff anew");
    }

    #[test]
    fn jitter_lengthens_the_wait() {
        let config = DnsConfig { jitter: Duration::from_secs(10), ..config() };
        let (mut random, now) = (fastrand::Rng::with_seed(5), Instant::now());
        let waits: Vec<_> =
            (0..50).map(|_| Refresh::default().next(&config, &answer(1), now, &mut random) - now).collect();
        assert!(waits.iter().all(|wait| (5..15).contains(&wait.as_secs())), "{waits:?}");
        assert!(waits.iter().any(|wait| wait.as_secs() > 10), "{waits:?}");
    }
}

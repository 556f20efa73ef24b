//! The health of one host as one checker sees it: results in, transitions and the time of the next check out.

use std::time::Duration;

use crate::config::cluster::Timing;
use crate::upstream::host::HealthFlags;

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The host is well, or well enough to be chosen when others are not.
    Passed {
        /// It says that it is degraded.
        degraded: bool,
    },
    /// The host says that it is not well: it is believed at once, unless its answer is one that is asked for again.
    Refused {
        /// The answer counts towards the threshold only (`retriable_statuses`).
        retriable: bool,
        /// It asks to be left out of the totals (`x-envoy-immediate-health-check-fail`).
        excluded: bool,
    },
    /// The host could not be asked, or its answer was none.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// It said so in an answer to a request that was no check.
    Seen,
}

/// What became of the host's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It is as it was.
    Unchanged,
    /// It will change if it goes on like this.
    Pending,
    /// It changed: hosts are to be divided anew.
    Changed,
}

/// Something for the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `add_healthy_event`
    Healthy,
    /// `eject_unhealthy_event`
    Unhealthy,
    /// `health_check_failure_event`: a check failed.
    Failure,
    /// `successful_health_check_event`: a check passed, and made the host no healthier than it was.
    Success,
    /// `degraded_healthy_host`
    Degraded,
    /// `no_longer_degraded_host`
    NoLongerDegraded,
}

/// What follows from a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What became of the host's health.
    pub transition: Transition,
    /// Bits of the host to set, then bits to clear.
    pub flags: (HealthFlags, HealthFlags),
    /// What could be logged, in order.
    pub events: Vec<Event>,
    /// It was the first check of the host.
    pub first: bool,
}

/// One host under one checker.
#[derive(Debug, Default)]
pub struct Session {
    checked: bool,
    passed_in_a_row: u32,
    failed_in_a_row: u32,
}

impl Session {
    /// Takes in the outcome of a check of a host that has these bits.
    pub fn on_report(&mut self, report: Report, flags: HealthFlags, timing: &Timing) -> Verdict {
        let first = !std::mem::replace(&mut self.checked, true);
        let mut next = Next { flags, transition: Transition::Unchanged, events: Vec::new() };
        match report {
            Report::Passed { degraded } => self.passed(degraded, first, timing, &mut next),
            Report::Refused { .. } | Report::Unreachable | Report::TimedOut | Report::Seen => {
                self.failed(report, timing, &mut next);
            }
        }
        // Whatever came of it, the host waits for its first check no more.
        if next.flags.contains(HealthFlags::PENDING_ACTIVE_HC) {
            next.clear(HealthFlags::PENDING_ACTIVE_HC);
            next.transition = Transition::Changed;
        }
        Verdict {
            transition: next.transition,
            flags: (next.flags.without(flags), flags.without(next.flags)),
            events: next.events,
            first,
        }
    }

    fn passed(&mut self, degraded: bool, first: bool, timing: &Timing, next: &mut Next) {
        self.failed_in_a_row = 0;
        if next.flags.contains(HealthFlags::FAILED_ACTIVE_HC) {
            self.passed_in_a_row = self.passed_in_a_row.saturating_add(1);
            // A first success is believed at once, so that starting up takes one round of checks.
            if first || self.passed_in_a_row == timing.healthy_threshold {
                next.clear(HealthFlags::FAILED_ACTIVE_HC | HealthFlags::ACTIVE_HC_TIMEOUT);
                next.clear(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL);
                next.transition = Transition::Changed;
                next.events.push(Event::Healthy);
            } else {
                next.transition = Transition::Pending;
            }
        }
        if next.transition != Transition::Changed {
            next.events.push(Event::Success);
        }
        if degraded != next.flags.contains(HealthFlags::DEGRADED_ACTIVE_HC) {
            if degraded {
                next.set(HealthFlags::DEGRADED_ACTIVE_HC);
                next.events.push(Event::Degraded);
            } else {
                next.clear(HealthFlags::DEGRADED_ACTIVE_HC);
                next.events.push(Event::NoLongerDegraded);
            }
            if next.transition == Transition::Unchanged {
                next.transition = Transition::Changed;
            }
        }
    }

    fn failed(&mut self, report: Report, timing: &Timing, next: &mut Next) {
        self.passed_in_a_row = 0;
        let at_once = matches!(report, Report::Refused { retriable: false, .. } | Report::Seen);
        if next.flags.contains(HealthFlags::FAILED_ACTIVE_HC) {
            // An unhealthy host tells how it fails now.
            next.timed_out(report == Report::TimedOut);
        } else {
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
            if at_once || self.failed_in_a_row == timing.unhealthy_threshold {
                next.set(HealthFlags::FAILED_ACTIVE_HC);
                next.timed_out(report == Report::TimedOut);
                next.transition = Transition::Changed;
                next.events.push(Event::Unhealthy);
            } else {
                next.transition = Transition::Pending;
            }
        }
        // That lasts until the host is healthy again.
        if let Report::Refused { excluded: true, .. } = report {
            next.set(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL);
        }
        next.events.push(Event::Failure);
    }
}

impl Timing {
    /// How long until the next check, after one that ended with this verdict. `used` says whether the cluster ever had a
    /// connection; `roll` draws a number below its argument.
    pub fn next_check(
        &self,
        passed: bool,
        transition: Transition,
        used: bool,
        roll: &mut dyn FnMut(u64) -> u64,
    ) -> Duration {
        let base = match (used, passed, transition) {
            (false, true, Transition::Pending) | (false, false, _) => self.no_traffic_interval,
            (false, true, _) => self.no_traffic_healthy_interval,
            (true, true, Transition::Pending) => self.healthy_edge_interval,
            (true, true, _) => self.interval,
            (true, false, Transition::Pending) => self.unhealthy_edge_interval,
            (true, false, _) => self.unhealthy_interval,
        };
        let share = base.saturating_mul(self.interval_jitter_percent) / 100;
        // Without a pause the control thread would do nothing else.
        let next = base.saturating_add(up_to(share, roll)).saturating_add(up_to(self.interval_jitter, roll));
        next.max(Duration::from_millis(1))
    }

    /// How long until the first check.
    pub fn first_check(&self, roll: &mut dyn FnMut(u64) -> u64) -> Duration {
        up_to(self.initial_jitter, roll)
    }
}

/// A random time below `limit`, in whole milliseconds.
fn up_to(limit: Duration, roll: &mut dyn FnMut(u64) -> u64) -> Duration {
    match u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) {
        0 => Duration::ZERO,
        limit => Duration::from_millis(roll(limit)),
    }
}

/// The host's bits in the making.
struct Next {
    flags: HealthFlags,
    transition: Transition,
    events: Vec<Event>,
}

impl Next {
    fn set(&mut self, flags: HealthFlags) {
        self.flags = self.flags | flags;
    }

    fn clear(&mut self, flags: HealthFlags) {
        self.flags = self.flags.without(flags);
    }

    fn timed_out(&mut self, timed_out: bool) {
        if timed_out {
            self.set(HealthFlags::ACTIVE_HC_TIMEOUT);
        } else {
            self.clear(HealthFlags::ACTIVE_HC_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: HealthFlags = HealthFlags::FAILED_ACTIVE_HC;
    const PASSED: Report = Report::Passed { degraded: false };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn timing() -> Timing {
        Timing {
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            interval: seconds(1),
            unhealthy_interval: seconds(2),
            unhealthy_edge_interval: seconds(3),
            healthy_edge_interval: seconds(4),
            no_traffic_interval: seconds(60),
            no_traffic_healthy_interval: seconds(90),
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
        }
    }

    /// A host under a checker.
    struct Bench(Session, HealthFlags);

    impl Bench {
        /// New hosts of a cluster with health checks have not passed any.
        fn new() -> Self {
            Self(Session::default(), FAILED)
        }

        fn checked(reports: &[Report]) -> Self {
            let mut bench = Self::new();
            for report in reports {
                bench.check(*report);
            }
            bench
        }

        fn check(&mut self, report: Report) -> (Transition, Vec<Event>) {
            let verdict = self.0.on_report(report, self.1, &timing());
            self.1 = (self.1 | verdict.flags.0).without(verdict.flags.1);
            (verdict.transition, verdict.events)
        }
    }

    #[test]
    fn the_first_success_is_enough_and_later_ones_need_company() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(PASSED), (Transition::Changed, vec![Event::Healthy]));
        assert_eq!(bench.1, HealthFlags::NONE);
        let (success, failure) = (vec![Event::Success], vec![Event::Failure]);
        assert_eq!(bench.check(PASSED), (Transition::Unchanged, success.clone()));
        for expected in [Transition::Pending, Transition::Pending] {
            assert_eq!(bench.check(Report::Unreachable), (expected, failure.clone()));
        }
        let ejected = vec![Event::Unhealthy, Event::Failure];
        assert_eq!(bench.check(Report::Unreachable), (Transition::Changed, ejected));
        assert_eq!(bench.check(PASSED), (Transition::Pending, success.clone()));
        assert_eq!(bench.check(Report::Unreachable), (Transition::Unchanged, failure), "the row is broken");
        assert_eq!(bench.check(PASSED), (Transition::Pending, success));
        assert_eq!(bench.check(PASSED), (Transition::Changed, vec![Event::Healthy]));
    }

    #[test]
    fn after_a_first_failure_a_success_is_not_the_first() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(Report::TimedOut), (Transition::Unchanged, vec![Event::Failure]));
        assert_eq!(bench.1, FAILED | HealthFlags::ACTIVE_HC_TIMEOUT);
        assert_eq!(bench.check(PASSED), (Transition::Pending, vec![Event::Success]));
        assert_eq!(bench.check(PASSED), (Transition::Changed, vec![Event::Healthy]));
        assert_eq!(bench.1, HealthFlags::NONE);
    }

    #[test]
    fn a_refusal_is_believed_at_once_unless_it_is_to_be_asked_again() {
        for (retriable, checks) in [(false, 1), (true, 3)] {
            let mut bench = Bench::checked(&[PASSED]);
            let refused = Report::Refused { retriable, excluded: false };
            let needed = (1..10).find(|_| bench.check(refused).0 == Transition::Changed);
            assert_eq!(needed, Some(checks));
        }
    }

    #[test]
    fn a_host_may_ask_to_be_left_out_until_it_is_healthy_again() {
        let mut bench = Bench::checked(&[PASSED, Report::Refused { retriable: false, excluded: true }]);
        assert!(bench.1.is_excluded());
        for report in [Report::Refused { retriable: false, excluded: false }, PASSED] {
            bench.check(report);
            assert!(bench.1.is_excluded(), "one success is not enough");
        }
        bench.check(PASSED);
        assert!(!bench.1.is_excluded());
    }

    #[test]
    fn hosts_degrade_and_recover() {
        let degraded = Report::Passed { degraded: true };
        let mut bench = Bench::new();
        assert_eq!(bench.check(degraded), (Transition::Changed, vec![Event::Healthy, Event::Degraded]));
        assert_eq!(bench.1, HealthFlags::DEGRADED_ACTIVE_HC);
        assert_eq!(bench.check(degraded), (Transition::Unchanged, vec![Event::Success]));
        assert_eq!(bench.check(PASSED), (Transition::Changed, vec![Event::Success, Event::NoLongerDegraded]));
        assert_eq!(bench.1, HealthFlags::NONE);
    }

    #[test]
    fn a_host_that_waits_for_its_first_check_waits_for_one() {
        for report in [PASSED, Report::Unreachable] {
            let mut bench = Bench::new();
            bench.1 = FAILED | HealthFlags::PENDING_ACTIVE_HC;
            assert_eq!(bench.check(report).0, Transition::Changed, "{report:?}");
            assert!(!bench.1.contains(HealthFlags::PENDING_ACTIVE_HC));
        }
    }

    #[test]
    fn intervals_are_those_of_the_state() {
        let timing = timing();
        for (used, passed, transition, expected) in [
            (true, true, Transition::Unchanged, 1),
            (true, true, Transition::Changed, 1),
            (true, true, Transition::Pending, 4),
            (true, false, Transition::Unchanged, 2),
            (true, false, Transition::Changed, 2),
            (true, false, Transition::Pending, 3),
            (false, true, Transition::Unchanged, 90),
            (false, true, Transition::Pending, 60),
            (false, false, Transition::Pending, 60),
        ] {
            assert_eq!(timing.next_check(passed, transition, used, &mut |_| 0), seconds(expected));
        }
        let jittery = Timing { interval_jitter: seconds(1), interval_jitter_percent: 50, ..timing };
        let longest = jittery.next_check(true, Transition::Unchanged, true, &mut |below| below - 1);
        assert_eq!(longest, Duration::from_millis(1000 + 499 + 999));
        let eager = Timing { interval: Duration::ZERO, ..timing };
        assert_eq!(eager.next_check(true, Transition::Unchanged, true, &mut |_| 0), Duration::from_millis(1));
    }
}

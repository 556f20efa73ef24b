use filters::matcher::NoRuntime;

use super::*;
use crate::upstream::host::tests::host;
use crate::upstream::outlier::Outcome;

/// A cluster under test, and its clock.
struct Bench {
    detector: Detector,
    hosts: Vec<Arc<Host>>,
    start: Instant,
    random: fastrand::Rng,
}

impl Bench {
    fn new(hosts: u8, config: OutlierConfig) -> Self {
        let start = Instant::now();
        let hosts: Vec<_> = (1..=hosts).map(|n| host(n, 1, 0, &Arc::default())).collect();
        let mut detector = Detector::new("c".into(), &config, start, &NoRuntime);
        detector.sync(&Arc::new(HostSet::single(hosts.clone())));
        Self { detector, hosts, start, random: fastrand::Rng::with_seed(7) }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// Host `n` answers like this, `times` times; findings are reported at `seconds`.
    fn answers(&mut self, seconds: u64, n: usize, status: u16, times: u32) {
        for _ in 0..times {
            let state = Arc::clone(self.hosts[n].state());
            let outcome = Outcome::Response { status, degraded: false };
            let findings = state.monitor().unwrap().record(&state, 0, outcome, &NoRuntime, &mut |_| 0);
            for finding in findings.into_iter().flatten() {
                let at = self.at(seconds);
                self.detector.on_finding(at, &state, finding, &NoRuntime, &mut self.random);
            }
        }
    }

    fn sweep(&mut self, seconds: u64) -> bool {
        let at = self.at(seconds);
        self.detector.on_timer(at, &NoRuntime, &mut self.random)
    }

    /// What happened: host, found kind (`None` for the end of it), verdict.
    fn happened(&mut self) -> Vec<(usize, Option<(Kind, Verdict)>)> {
        let events = self.detector.take_events();
        let place = |event: &OutlierEvent| self.hosts.iter().position(|host| host.id() == event.host.id()).unwrap();
        events
            .iter()
            .map(|event| match event.what {
                OutlierChange::Found { finding, .. } => (place(event), Some((finding.kind, finding.verdict))),
                OutlierChange::Readmitted | OutlierChange::Left => (place(event), None),
            })
            .collect()
    }

    fn ejected(&self) -> Vec<usize> {
        let failed = |n: &usize| self.hosts[*n].state().flags().contains(HealthFlags::FAILED_OUTLIER_CHECK);
        (0..self.hosts.len()).filter(failed).collect()
    }
}

fn all() -> OutlierConfig {
    OutlierConfig { max_ejection_percent: 100, consecutive_5xx: 3, ..OutlierConfig::default() }
}

#[test]
fn ejections_end_with_the_sweep_after_their_time_and_grow_and_shrink() {
    let config = OutlierConfig { max_ejection_time: Duration::from_secs(70), ..all() };
    let mut bench = Bench::new(1, config);
    assert_eq!(bench.detector.deadline(), bench.at(10));
    bench.answers(1, 0, 500, 3);
    assert_eq!(bench.ejected(), [0]);
    // 30 s from second 1 on: over at the sweep of second 40.
    for seconds in [10, 20, 30] {
        assert!(!bench.sweep(seconds));
    }
    assert!(bench.sweep(40));
    assert_eq!(bench.happened(), [(0, Some((Kind::Consecutive5xx, Verdict::Enforced))), (0, None)]);
    // The second lasts twice as long.
    bench.answers(41, 0, 500, 3);
    (50..=100).step_by(10).for_each(|seconds| assert!(!bench.sweep(seconds), "{seconds}"));
    assert!(bench.sweep(110));
    // The third would be 90 s, but 70 s is the most.
    bench.answers(111, 0, 500, 3);
    (120..=180).step_by(10).for_each(|seconds| assert!(!bench.sweep(seconds), "{seconds}"));
    assert!(bench.sweep(190));
    // Three intervals of good behaviour, the first of which begins with its return.
    (200..=220).step_by(10).for_each(|seconds| assert!(!bench.sweep(seconds)));
    bench.answers(221, 0, 500, 3);
    (230..=250).step_by(10).for_each(|seconds| assert!(!bench.sweep(seconds), "{seconds}"));
    assert!(bench.sweep(260), "as short as the first");
    let events = bench.detector.take_events();
    let (last, found) = (events.last().unwrap(), &events[events.len() - 2]);
    assert_eq!((last.ejections, last.since_last, last.active), (4, Some(Duration::from_secs(39)), 0));
    assert_eq!((found.ejections, found.since_last, found.active), (4, Some(Duration::from_secs(31)), 1));
}

#[test]
fn jitter_makes_ejections_longer_and_never_shorter() {
    let jitter = Duration::from_secs(15);
    let mut lengths = BTreeSet::new();
    for seed in 0..40 {
        let config = OutlierConfig { max_ejection_time_jitter: jitter, interval: Duration::from_secs(1), ..all() };
        let mut bench = Bench::new(1, config);
        bench.random = fastrand::Rng::with_seed(seed);
        bench.answers(0, 0, 500, 3);
        let length = (1..100).find(|&seconds| bench.sweep(seconds)).unwrap();
        assert!((30..=45).contains(&length), "{length}");
        lengths.insert(length);
    }
    assert!(lengths.len() > 5, "{lengths:?}");
}

#[test]
fn who_succeeds_less_often_than_others_is_ejected() {
    let mut bench = Bench::new(5, OutlierConfig { consecutive_5xx: 0, ..all() });
    for n in 0..5 {
        bench.answers(1, n, 200, if n == 0 { 50 } else { 100 });
    }
    bench.answers(1, 0, 500, 50);
    assert!(bench.sweep(10));
    assert_eq!(bench.ejected(), [0]);
    let compared = bench.detector.rates().external.unwrap();
    assert_eq!((compared.average, compared.threshold), (90.0, 90.0 - 1.9 * 20.0));
    assert_eq!(bench.detector.host_rates(&bench.hosts[0]), [Some(50.0), None]);
    assert_eq!(bench.happened(), [(0, Some((Kind::SuccessRate, Verdict::Enforced)))]);
    assert_eq!(bench.detector.rates().local, None);

    // Only the last interval counts.
    bench.sweep(20);
    assert_eq!(bench.detector.rates().external, None);
    assert_eq!(bench.detector.host_rates(&bench.hosts[1]), [None, None]);
}

#[test]
fn too_few_hosts_or_requests_are_not_compared() {
    for (hosts, good, bad, compared) in [(4, 100, 100, false), (5, 99, 0, false), (5, 100, 0, true)] {
        let mut bench = Bench::new(hosts, OutlierConfig { consecutive_5xx: 0, ..all() });
        for n in 0..usize::from(hosts) {
            bench.answers(1, n, 200, good);
        }
        bench.answers(1, 0, 500, bad);
        bench.sweep(10);
        assert_eq!(bench.detector.rates().external.is_some(), compared, "{hosts} hosts, {good} requests");
        assert!(bench.ejected().is_empty());
    }
}

#[test]
fn who_fails_too_often_is_found_and_ejected_if_that_is_enforced() {
    for (enforced, failures, verdict) in
        [(0, 85, Some(Verdict::Spared)), (100, 85, Some(Verdict::Enforced)), (100, 84, None)]
    {
        let mut config = OutlierConfig { consecutive_5xx: 0, success_rate_minimum_hosts: 100, ..all() };
        config.enforcing.failure_percentage = enforced;
        let mut bench = Bench::new(5, config);
        for n in 0..5 {
            bench.answers(1, n, 200, 100 - if n == 4 { failures } else { 0 });
        }
        bench.answers(1, 4, 500, failures);
        bench.sweep(10);
        let expected: Vec<_> =
            verdict.map(|verdict| (4, Some((Kind::FailurePercentage, verdict)))).into_iter().collect();
        assert_eq!(bench.happened(), expected, "{enforced} %, {failures} failures");
    }
}

#[test]
fn a_host_that_leaves_gives_its_place_back_even_before_it_is_reported() {
    let config = OutlierConfig { max_ejection_percent: 50, consecutive_5xx: 1, ..OutlierConfig::default() };
    let mut bench = Bench::new(2, config);
    let state = Arc::clone(bench.hosts[0].state());
    let outcome = Outcome::Response { status: 500, degraded: false };
    state.monitor().unwrap().record(&state, 0, outcome, &NoRuntime, &mut |_| 0);
    assert_eq!(bench.ejected(), [0]);
    assert!(bench.detector.watches(&state));
    bench.detector.sync(&Arc::new(HostSet::single(bench.hosts[1..].to_vec())));
    assert!(!bench.detector.watches(&state));
    assert_eq!(bench.happened(), [(0, None)]);
    assert_eq!(bench.detector.detection.ejected(), 0);
    let config = bench.detector.detection.config();
    assert_eq!(config.max_ejection_percent, 50);
    bench.answers(1, 1, 500, 1);
    assert!(bench.ejected().is_empty(), "one of one is more than half");
}

#[test]
fn a_degraded_host_recovers() {
    let mut bench = Bench::new(1, OutlierConfig { detect_degraded_hosts: true, ..all() });
    let state = Arc::clone(bench.hosts[0].state());
    let outcome = Outcome::Response { status: 200, degraded: true };
    let [Some(finding), None] = state.monitor().unwrap().record(&state, 0, outcome, &NoRuntime, &mut |_| 0) else {
        panic!("it says so")
    };
    let at = bench.at(1);
    bench.detector.on_finding(at, &state, finding, &NoRuntime, &mut bench.random);
    assert!(!bench.sweep(10) && !bench.sweep(20) && !bench.sweep(30));
    assert_eq!(state.flags(), HealthFlags::DEGRADED_OUTLIER_DETECTION);
    assert!(bench.sweep(40));
    assert_eq!(state.flags(), HealthFlags::NONE);
    let events = bench.detector.take_events();
    assert!(events.iter().all(|event| event.ejections == 0 && event.since_last.is_none()));
    assert_eq!(events.len(), 2);
}

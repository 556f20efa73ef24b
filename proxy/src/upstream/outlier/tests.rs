use filters::matcher::{FractionalPercent, NoRuntime};

use super::*;
use crate::config::cluster::OutlierConfig;
use crate::upstream::host::{Host, tests::host};

/// The hosts of a cluster with outlier detection, and what it is configured to.
fn cluster(hosts: u8, config: OutlierConfig) -> (Arc<Detection>, Vec<Arc<Host>>) {
    let detection = Detection::new("c".into(), config);
    let hosts: Vec<_> = (1..=hosts).map(|n| host(n, 1, 0, &Arc::default())).collect();
    hosts.iter().for_each(|host| host.state().watch(&detection));
    detection.set_hosts(hosts.len());
    (detection, hosts)
}

fn all() -> OutlierConfig {
    OutlierConfig { max_ejection_percent: 100, ..OutlierConfig::default() }
}

fn record_with(host: &Host, outcome: Outcome, runtime: &dyn Runtime) -> Vec<(Kind, Verdict)> {
    let monitor = host.state().monitor().unwrap();
    let findings = monitor.record(host.state(), 0, outcome, runtime, &mut |below| below / 2);
    findings.into_iter().flatten().map(|finding| (finding.kind, finding.verdict)).collect()
}

fn record(host: &Host, outcome: Outcome) -> Vec<(Kind, Verdict)> {
    record_with(host, outcome, &NoRuntime)
}

fn answer(host: &Host, status: u16) -> Vec<(Kind, Verdict)> {
    record(host, Outcome::Response { status, degraded: false })
}

fn is_ejected(host: &Host) -> bool {
    host.state().flags().contains(HealthFlags::FAILED_OUTLIER_CHECK)
}

/// The runtime with one number.
#[derive(Debug)]
struct Number(&'static str, u64);

impl Runtime for Number {
    fn fraction(&self, _: &str) -> Option<FractionalPercent> {
        None
    }

    fn integer(&self, key: &str) -> Option<u64> {
        (key == self.0).then_some(self.1)
    }
}

#[test]
fn rows_of_failures_eject_at_their_threshold() {
    use Kind::{Consecutive5xx as Any, ConsecutiveGatewayFailure as Gateway};
    use Verdict::{Enforced, Spared};
    type Findings = Vec<(Kind, Verdict)>;
    let found = |findings: &[(Kind, Verdict)]| findings.to_vec();
    let table: [(&[u16], Findings); 8] = [
        (&[500, 500, 500], found(&[(Any, Enforced)])),
        (&[500, 500, 499], found(&[])),
        (&[500, 500, 200, 500, 500], found(&[])),
        (&[503, 502, 504], found(&[(Gateway, Spared), (Any, Enforced)])),
        // An answer 500 ends the row of gateway failures, but not that of 5xx.
        (&[503, 500, 503], found(&[(Any, Enforced)])),
        (&[501, 505, 599], found(&[(Any, Enforced)])),
        (&[600, 600, 600], found(&[])),
        // Requests to an ejected host say nothing new of it.
        (&[500, 500, 500, 500, 500, 500], found(&[(Any, Enforced)])),
    ];
    for (statuses, expected) in table {
        let config = OutlierConfig { consecutive_5xx: 3, consecutive_gateway_failure: 3, ..all() };
        let (_, hosts) = cluster(2, config);
        let findings: Vec<_> = statuses.iter().flat_map(|&status| answer(&hosts[0], status)).collect();
        assert_eq!(findings, expected, "{statuses:?}");
        assert_eq!(is_ejected(&hosts[0]), expected.iter().any(|(_, verdict)| *verdict == Enforced), "{statuses:?}");
        assert!(!is_ejected(&hosts[1]));
    }
}

#[test]
fn what_is_no_answer_stands_for_one_unless_it_is_told_apart() {
    let failures = |config, outcome| {
        let (_, hosts) = cluster(1, config);
        (0..2).flat_map(|_| record(&hosts[0], outcome)).map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    let mixed = || OutlierConfig { consecutive_5xx: 2, consecutive_local_origin_failure: 2, ..all() };
    let split = || OutlierConfig { split_external_local_origin_errors: true, ..mixed() };
    for outcome in [Outcome::ConnectFailed, Outcome::TimedOut(504)] {
        assert_eq!(failures(mixed(), outcome), [Kind::Consecutive5xx]);
        assert_eq!(failures(split(), outcome), [Kind::ConsecutiveLocalOriginFailure]);
    }
    // `x-envoy-upstream-rq-timeout-alt-response`: a timeout that is no error.
    assert!(failures(mixed(), Outcome::TimedOut(204)).is_empty());

    let (_, hosts) = cluster(1, mixed());
    for outcome in [Outcome::ConnectFailed, Outcome::Connected, Outcome::ConnectFailed] {
        record(&hosts[0], outcome);
    }
    assert!(is_ejected(&hosts[0]), "a connection alone is no success");
    let (_, hosts) = cluster(1, mixed());
    for outcome in [Outcome::ConnectFailed, Outcome::ConnectedFinally, Outcome::ConnectFailed] {
        record(&hosts[0], outcome);
    }
    assert!(!is_ejected(&hosts[0]), "unless there is nothing else to go by");
}

#[test]
fn no_more_are_ejected_than_may_be() {
    for (percent, one, hosts, ejected) in [
        (10, false, 9, 0),
        (10, true, 9, 1),
        (10, false, 10, 1),
        (50, false, 5, 2),
        (100, false, 3, 3),
        (0, true, 3, 1),
    ] {
        let config = OutlierConfig {
            max_ejection_percent: percent,
            always_eject_one_host: one,
            consecutive_5xx: 1,
            ..OutlierConfig::default()
        };
        let (detection, list) = cluster(hosts, config);
        let overflows = list.iter().flat_map(|host| answer(host, 500)).filter(|f| f.1 == Verdict::Overflow).count();
        assert_eq!(detection.ejected(), ejected, "{percent} % of {hosts}");
        assert_eq!(overflows as u32, u32::from(hosts) - ejected);
    }
}

#[test]
fn a_place_given_back_can_be_taken_again() {
    let config = OutlierConfig { max_ejection_percent: 50, consecutive_5xx: 1, ..OutlierConfig::default() };
    let (detection, hosts) = cluster(2, config);
    assert_eq!(answer(&hosts[0], 500), [(Kind::Consecutive5xx, Verdict::Enforced)]);
    assert_eq!(answer(&hosts[1], 500), [(Kind::Consecutive5xx, Verdict::Overflow)]);
    assert!(detection.readmit(hosts[0].state()));
    assert!(!detection.readmit(hosts[0].state()), "only once");
    assert_eq!(answer(&hosts[1], 500), [(Kind::Consecutive5xx, Verdict::Enforced)]);
    assert_eq!(detection.ejected(), 1);
}

#[test]
fn the_runtime_has_the_last_word() {
    let (_, hosts) = cluster(4, OutlierConfig { max_ejection_percent: 100, ..OutlierConfig::default() });
    let fail =
        |host: &Host, runtime: &Number| record_with(host, Outcome::Response { status: 500, degraded: false }, runtime);
    let at_once = Number("outlier_detection.consecutive_5xx", 1);
    assert_eq!(fail(&hosts[0], &at_once), [(Kind::Consecutive5xx, Verdict::Enforced)]);
    let spared = Number("outlier_detection.enforcing_consecutive_5xx", 50);
    let findings: Vec<_> = (0..5).flat_map(|_| fail(&hosts[1], &spared)).collect();
    assert_eq!(findings, [(Kind::Consecutive5xx, Verdict::Spared)], "50 is not below 50");
    let full = Number("outlier_detection.max_ejection_percent", 25);
    let findings: Vec<_> = (0..5).flat_map(|_| fail(&hosts[2], &full)).collect();
    assert_eq!(findings, [(Kind::Consecutive5xx, Verdict::Overflow)]);
}

#[test]
fn a_host_that_says_so_is_degraded_once() {
    let degraded = |status| Outcome::Response { status, degraded: true };
    let (detection, hosts) = cluster(2, OutlierConfig { detect_degraded_hosts: true, ..all() });
    assert_eq!(record(&hosts[0], degraded(200)), [(Kind::Degraded, Verdict::Enforced)]);
    assert!(record(&hosts[0], degraded(200)).is_empty());
    assert!(record(&hosts[1], degraded(500)).is_empty(), "an error is not the word of a host that works");
    assert_eq!(hosts[0].state().flags(), HealthFlags::DEGRADED_OUTLIER_DETECTION);
    assert_eq!(detection.ejected(), 0);
    let (_, hosts) = cluster(1, all());
    assert!(record(&hosts[0], degraded(200)).is_empty(), "nobody asked");
}

#[test]
fn volumes_add_up_over_workers() {
    let (_, hosts) = cluster(1, OutlierConfig { split_external_local_origin_errors: true, ..all() });
    let monitor = hosts[0].state().monitor().unwrap();
    let outcomes = [
        Outcome::Connected,
        Outcome::Response { status: 200, degraded: false },
        Outcome::ConnectFailed,
        Outcome::Response { status: 500, degraded: false },
    ];
    for worker in 0..2 {
        for outcome in outcomes {
            monitor.record(hosts[0].state(), worker, outcome, &NoRuntime, &mut |_| 0);
        }
    }
    assert_eq!(monitor.volume(Origin::External), Volume { total: 4, good: 2 });
    assert_eq!(monitor.volume(Origin::Local), Volume { total: 4, good: 2 });
}

#[test]
fn threads_never_eject_more_than_may_be() {
    let config = OutlierConfig { max_ejection_percent: 30, consecutive_5xx: 1, ..OutlierConfig::default() };
    let (detection, hosts) = cluster(10, config);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (detection, hosts) = (&detection, &hosts);
            scope.spawn(move || {
                for turn in 0..2000 {
                    let host = &hosts[(turn * 7 + worker * 3) % hosts.len()];
                    let outcome = Outcome::Response { status: 500, degraded: false };
                    let monitor = host.state().monitor().unwrap();
                    monitor.record(host.state(), worker, outcome, &NoRuntime, &mut |_| 0);
                    assert!(detection.ejected() <= 3);
                    if turn % 5 == 0 {
                        detection.readmit(host.state());
                    }
                }
            });
        }
    });
    let flagged = hosts.iter().filter(|host| is_ejected(host)).count();
    assert_eq!(detection.ejected() as usize, flagged, "every flag is a place taken");
}

#[test]
fn grpc_has_its_own_statuses() {
    use filters::http::{Headers, Known, ResponseHead, Version};
    for (status, http) in [("0", 200), ("14", 503), ("4", 504), ("5", 404), ("99", 500), ("x", 500)] {
        let mut headers = Headers::default();
        headers.set(Known::GrpcStatus, bytes::Bytes::from_static(status.as_bytes()));
        let head = ResponseHead { status: 200, version: Version::Http2, headers };
        assert_eq!(grpc_status_as_http(&head), Some(http), "{status}");
    }
    assert_eq!(
        grpc_status_as_http(&ResponseHead { status: 200, version: Version::Http2, headers: Headers::default() }),
        None
    );
}

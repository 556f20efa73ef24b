//! Clusters whose hosts are checked.

use super::*;

/// A cluster whose hosts are checked.
fn checked(mut proto: Proto) -> Proto {
    proto.health_checks = vec![core::HealthCheck {
        timeout: Some(google::Duration { seconds: 1, nanos: 0 }),
        interval: Some(google::Duration { seconds: 5, nanos: 0 }),
        unhealthy_threshold: Some(google::UInt32Value { value: 2 }),
        healthy_threshold: Some(google::UInt32Value { value: 2 }),
        health_checker: Some(core::health_check::HealthChecker::TcpHealthCheck(Default::default())),
        ..Default::default()
    }];
    proto
}

fn answer(manager: &mut ClusterManager<Log>, now: Instant, cluster: &str, at: &str, report: Report) {
    let id = manager.outside().probed[at];
    manager.on_checked(now, &cluster.into(), id, Answer { report, verified: false, status: 0 });
}

const fn host(address: &str) -> (&str, u32, core::HealthStatus) {
    (address, 1, core::HealthStatus::Unknown)
}

const PASSED: Report = Report::Passed { degraded: false };

fn health(manager: &mut ClusterManager<Log>, cluster: &str) -> Vec<String> {
    manager.outside().hosts[cluster].hosts().map(|host| host.state().flags().to_string()).collect()
}

#[test]
fn a_cluster_is_warm_after_its_first_round_of_health_checks() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[checked(with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.1", "10.0.0.2"]))])
        .unwrap();
    assert_eq!(said(&mut manager), ["probe c 10.0.0.1:80", "probe c 10.0.0.2:80"]);
    answer(&mut manager, now, "c", "10.0.0.1:80", PASSED);
    assert!(!manager.is_active("c"));
    answer(&mut manager, now, "c", "10.0.0.2:80", Report::Unreachable);
    assert_eq!(said(&mut manager)[0], "publish c [10.0.0.1:80 10.0.0.2:80]");
    assert_eq!(health(&mut manager, "c"), ["healthy", "/failed_active_hc"]);
    // Each is asked again in its time.
    assert_eq!(manager.next_deadline(), Some(now + Duration::from_secs(5)));
    manager.on_timer(now + Duration::from_secs(5));
    assert_eq!(said(&mut manager), ["probe c 10.0.0.1:80", "probe c 10.0.0.2:80"]);
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn healthy_hosts_outlive_their_endpoints() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[checked(eds("e"))]).unwrap();
    let watch = *manager.watches.keys().next().unwrap();
    manager.on_assignment(now, watch, assignment("e", &[host("10.0.0.1"), host("10.0.0.2")]));
    answer(&mut manager, now, "e", "10.0.0.1:80", PASSED);
    answer(&mut manager, now, "e", "10.0.0.2:80", Report::Unreachable);
    said(&mut manager);
    manager.on_assignment(now, watch, assignment("e", &[]));
    assert!(said(&mut manager).contains(&"hosts e [10.0.0.1:80]".to_owned()), "the other one was not healthy");
    assert_eq!(health(&mut manager, "e"), ["/pending_dynamic_removal"]);
    answer(&mut manager, now, "e", "10.0.0.1:80", Report::Unreachable);
    assert_eq!(health(&mut manager, "e"), ["/pending_dynamic_removal"], "once is not enough");
    answer(&mut manager, now, "e", "10.0.0.1:80", Report::Unreachable);
    assert_eq!(health(&mut manager, "e"), [""; 0]);
    assert!(said(&mut manager).contains(&"end probes".to_owned()));
}

#[test]
fn a_host_that_comes_back_is_not_pending_any_more() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[checked(eds("e"))]).unwrap();
    let watch = *manager.watches.keys().next().unwrap();
    manager.on_assignment(now, watch, assignment("e", &[host("10.0.0.1")]));
    answer(&mut manager, now, "e", "10.0.0.1:80", PASSED);
    manager.on_assignment(now, watch, assignment("e", &[host("10.0.0.3")]));
    assert_eq!(health(&mut manager, "e"), ["/failed_active_hc", "/pending_dynamic_removal"]);
    manager.on_assignment(now, watch, assignment("e", &[host("10.0.0.1")]));
    assert_eq!(health(&mut manager, "e"), ["healthy"]);
}

#[test]
fn a_host_that_is_checked_elsewhere_stays_beside_its_successor_while_it_is_well() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[checked(eds("e"))]).unwrap();
    let watch = *manager.watches.keys().next().unwrap();
    let checked_at = |port, disabled| {
        let mut proto = assignment_proto("e", &[host("10.0.0.1")]);
        for member in proto.endpoints.iter_mut().flat_map(|locality| &mut locality.lb_endpoints) {
            if let Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)) = &mut member.host_identifier {
                host.health_check_config = Some(endpoint::endpoint::HealthCheckConfig {
                    port_value: port,
                    disable_active_health_check: disabled,
                    ..Default::default()
                });
            }
        }
        Arc::new(LoadAssignment::parse(Session::default().root(), proto, Use::Eds).unwrap())
    };
    manager.on_assignment(now, watch, checked_at(1, false));
    answer(&mut manager, now, "e", "10.0.0.1:1", PASSED);
    assert_eq!(health(&mut manager, "e"), ["healthy"]);
    manager.on_assignment(now, watch, checked_at(2, false));
    assert_eq!(health(&mut manager, "e"), ["/failed_active_hc", "/pending_dynamic_removal"]);
    // Nothing changes about the one that is leaving.
    manager.on_assignment(now, watch, checked_at(2, false));
    assert_eq!(health(&mut manager, "e"), ["/failed_active_hc", "/pending_dynamic_removal"]);
    answer(&mut manager, now, "e", "10.0.0.1:2", PASSED);
    for _ in 0..2 {
        answer(&mut manager, now, "e", "10.0.0.1:1", Report::Unreachable);
    }
    assert_eq!(health(&mut manager, "e"), ["healthy"]);
    // Who is not checked at all takes the place at once.
    manager.on_assignment(now, watch, checked_at(3, true));
    assert_eq!(health(&mut manager, "e"), ["healthy"]);
}

#[test]
fn a_host_that_is_not_checked_any_more_is_another_one() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[checked(eds("e"))]).unwrap();
    let watch = *manager.watches.keys().next().unwrap();
    let disabled = |disabled| {
        let mut proto = assignment_proto("e", &[host("10.0.0.1")]);
        for member in proto.endpoints.iter_mut().flat_map(|locality| &mut locality.lb_endpoints) {
            if let Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)) = &mut member.host_identifier {
                host.health_check_config = Some(endpoint::endpoint::HealthCheckConfig {
                    disable_active_health_check: disabled,
                    ..Default::default()
                });
            }
        }
        Arc::new(LoadAssignment::parse(Session::default().root(), proto, Use::Eds).unwrap())
    };
    manager.on_assignment(now, watch, disabled(false));
    answer(&mut manager, now, "e", "10.0.0.1:80", Report::Unreachable);
    assert_eq!(health(&mut manager, "e"), ["/failed_active_hc"]);
    manager.on_assignment(now, watch, disabled(true));
    assert_eq!(health(&mut manager, "e"), ["healthy"], "nobody would ever take the failure back");
    manager.on_assignment(now, watch, disabled(false));
    assert_eq!(health(&mut manager, "e"), ["/failed_active_hc"]);
}

#[test]
fn that_a_host_failed_does_not_wait_for_the_merge_window() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[checked(with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.1"]))]).unwrap();
    answer(&mut manager, now, "c", "10.0.0.1:80", PASSED);
    said(&mut manager);
    let id = manager.outside().probed["10.0.0.1:80"];
    let failure = Report::Unreachable;
    answer(&mut manager, now, "c", "10.0.0.1:80", failure);
    assert_eq!(manager.outside().failed, [], "one failure is not enough");
    answer(&mut manager, now, "c", "10.0.0.1:80", failure);
    assert_eq!(manager.outside().failed, [("c".to_owned(), id)]);
    assert_eq!(health(&mut manager, "c"), ["/failed_active_hc"]);
    answer(&mut manager, now, "c", "10.0.0.1:80", failure);
    assert_eq!(manager.outside().failed.len(), 1, "it had failed before");
}

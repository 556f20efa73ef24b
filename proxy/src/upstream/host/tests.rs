use super::*;

/// A host at 10.0.0.`n`:80.
pub(crate) fn host(n: u8, weight: u32, priority: u32, locality: &Arc<Locality>) -> Arc<Host> {
    let attributes = HostAttributes {
        address: Arc::new(Address::Ip(SocketAddr::from(([10, 0, 0, n], 80)))),
        additional_addresses: Arc::default(),
        hostname: Arc::default(),
        weight,
        locality: locality.clone(),
        priority,
        metadata: None,
        tlvs: None,
        canary: false,
        check: None,
    };
    Arc::new(Host::new(attributes, Arc::new(HostState::new(2))))
}

#[test]
fn flags_print_as_clusters_prints_them() {
    assert_eq!(HealthFlags::NONE.to_string(), "healthy");
    let flags = HealthFlags::FAILED_ACTIVE_HC | HealthFlags::FAILED_EDS_HEALTH;
    assert_eq!(flags.to_string(), "/failed_active_hc/failed_eds_health");
}

#[test]
fn flags_make_health() {
    for (flags, health) in [
        (HealthFlags::NONE, Health::Healthy),
        (HealthFlags::PENDING_ACTIVE_HC, Health::Healthy),
        (HealthFlags::DEGRADED_EDS_HEALTH, Health::Degraded),
        (HealthFlags::DEGRADED_ACTIVE_HC | HealthFlags::FAILED_OUTLIER_CHECK, Health::Unhealthy),
        (HealthFlags::EDS_STATUS_DRAINING, Health::Unhealthy),
    ] {
        assert_eq!(flags.health(), health, "{flags}");
    }
    assert!(HealthFlags::EDS_STATUS_DRAINING.is_excluded(), "as Envoy counts it");
    assert!(!HealthFlags::FAILED_EDS_HEALTH.is_excluded());
}

#[test]
fn changing_flags_sets_then_clears_and_tells_what_was() {
    let state = HostState::new(1);
    assert_eq!(state.change_flags(HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::ALL_EDS), HealthFlags::NONE);
    let before = state.change_flags(HealthFlags::DEGRADED_EDS_HEALTH, HealthFlags::FAILED_OUTLIER_CHECK);
    assert_eq!(before, HealthFlags::FAILED_OUTLIER_CHECK);
    assert_eq!(state.flags(), HealthFlags::DEGRADED_EDS_HEALTH);
}

#[test]
fn shards_add_up_and_gauges_go_down() {
    let state = HostState::new(2);
    for worker in 0..3 {
        state.shard(worker).cx_total.inc();
        state.shard(worker).rq_active.inc();
    }
    state.shard(1).rq_active.dec();
    state.shard(99).rq_error.inc();
    let expected = HostStats { cx_total: 3, rq_active: 2, rq_error: 1, ..HostStats::default() };
    assert_eq!(state.stats(), expected);
}

#[test]
fn a_request_is_active_while_its_guard_lives() {
    let state = Arc::new(HostState::new(1));
    let (one, two) = (state.begin_request(), state.begin_request());
    assert_eq!(state.active_requests(), 2);
    drop(one);
    drop(two);
    assert_eq!(state.active_requests(), 0);
}

#[test]
fn a_set_is_divided_by_health_and_rebuilt_by_health_as_of_now() {
    let (a, b) = (Arc::new(Locality::default()), Arc::new(Locality { zone: "z".into(), ..Locality::default() }));
    let hosts = [host(1, 1, 0, &a), host(2, 5, 0, &a), host(3, 1, 0, &b)];
    hosts[0].state().change_flags(HealthFlags::FAILED_EDS_HEALTH, HealthFlags::NONE);
    hosts[2].state().change_flags(HealthFlags::DEGRADED_EDS_HEALTH, HealthFlags::NONE);
    let priority = PriorityHosts::new(vec![(a, 1, hosts[..2].to_vec()), (b, 2, hosts[2..].to_vec())]);
    let set = HostSet { priorities: Box::new([priority]), ..HostSet::empty() };
    let expected = Membership { total: 3, healthy: 1, degraded: 1, excluded: 0, max_weight: 5 };
    assert_eq!(set.membership(), expected);
    assert_eq!(set.priorities[0].localities[1].degraded.len(), 1);

    hosts[0].state().change_flags(HealthFlags::PENDING_ACTIVE_HC, HealthFlags::FAILED_EDS_HEALTH);
    assert_eq!(set.membership(), expected, "a set does not change");
    assert_eq!(set.rebuilt().membership(), Membership { healthy: 2, excluded: 1, ..expected });
}

//! Hosts by name, and hosts that requests bring.

use super::*;

#[test]
fn strict_dns_loses_hosts_by_an_empty_answer_and_keeps_them_by_a_failure() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[with_hosts(cluster("d", DiscoveryType::StrictDns), &["db.example", "10.0.0.1"])]).unwrap();
    assert_eq!(said(&mut manager)[..2], ["resolve db.example", "publish d [10.0.0.1:80]"]);
    let answer = |manager: &mut Manager, outcome| {
        let id = manager.outside().questions.last().unwrap().0;
        manager.on_lookup(now, id, outcome);
        let said = said(manager);
        let due = manager.next_deadline().unwrap();
        assert_eq!(due - now, Duration::from_secs(5));
        manager.on_timer(due);
        assert_eq!(self::said(manager), ["resolve db.example"]);
        said
    };
    let two = ["10.0.0.7".parse().unwrap(), "10.0.0.8".parse().unwrap()];
    let found = Outcome::Addresses { addresses: two.to_vec(), ttl: Duration::ZERO };
    let all = "hosts d [10.0.0.7:80 10.0.0.8:80 10.0.0.1:80]";
    assert_eq!(answer(&mut manager, found.clone()), [all, "update d Success"]);
    assert_eq!(answer(&mut manager, found), ["update d NoRebuild"]);
    assert_eq!(answer(&mut manager, Outcome::Failed("timeout".to_owned())), ["update d Failure"]);
    assert_eq!(answer(&mut manager, Outcome::Empty), ["hosts d [10.0.0.1:80]", "update d Empty"]);
}

#[test]
fn logical_dns_has_one_host_whose_address_moves() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[with_hosts(cluster("d", DiscoveryType::LogicalDns), &["db.example"])]).unwrap();
    let answer = |manager: &mut Manager, at: Instant, outcome| {
        let id = manager.outside().questions.last().unwrap().0;
        manager.on_lookup(at, id, outcome);
        manager.on_timer(manager.next_deadline().unwrap());
        manager.outside().hosts["d"].hosts().next().unwrap().clone()
    };
    let found = |last: u8| Outcome::Addresses {
        addresses: vec![[10, 0, 0, last].into(), [10, 0, 1, last].into()],
        ttl: Duration::ZERO,
    };
    let first = answer(&mut manager, now, found(1));
    assert_eq!(first.address().to_string(), "10.0.0.1:80");
    assert_eq!(first.attributes().additional_addresses.len(), 1);
    assert_eq!(&**first.hostname(), "db.example");
    let second = answer(&mut manager, now + Duration::from_secs(10), found(2));
    assert_eq!(second.address().to_string(), "10.0.0.2:80");
    assert_eq!(second.id(), first.id(), "connections to the former address stay");
    let third = answer(&mut manager, now + Duration::from_secs(20), Outcome::Empty);
    assert_eq!(third.address(), second.address());
}

#[test]
fn original_destinations_are_published_once_and_swept_when_unused() {
    let (mut manager, now) = started();
    let policy = envoy_types::pb::envoy::config::cluster::v3::cluster::LbPolicy::ClusterProvided as i32;
    cds(&mut manager, now, &[Proto { lb_policy: policy, ..cluster("o", DiscoveryType::OriginalDst) }]).unwrap();
    said(&mut manager);
    let mut hosts = crate::upstream::lb::original_dst::OriginalDstHosts::new(2);
    let mut other_worker = crate::upstream::lb::original_dst::OriginalDstHosts::new(2);
    let destination = "192.0.2.1:80".parse().unwrap();
    let host = hosts.pick(destination);
    manager.on_created_host(now, "o", host.clone());
    manager.on_created_host(now, "o", other_worker.pick(destination));
    assert_eq!(said(&mut manager), ["hosts o [192.0.2.1:80]"]);
    assert_eq!(*host.address(), Arc::new(Address::Ip(destination)));

    manager.on_timer(now + Duration::from_secs(5));
    assert_eq!(said(&mut manager), [""; 0], "used since");
    manager.on_timer(now + Duration::from_secs(10));
    assert_eq!(said(&mut manager), ["hosts o []"]);
}

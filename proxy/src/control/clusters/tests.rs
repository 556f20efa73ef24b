mod discovery;
mod health;

use crate::control::secrets::SecretsUse;
use std::time::UNIX_EPOCH;

use envoy_types::pb::envoy::config::cluster::v3::Cluster as Proto;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::google::protobuf as google;
use filters::config::Session;
use filters::stream_info::Address;
use prost::Message;

use super::*;
use crate::config::cluster::EdsConfig;
use crate::config::endpoint::Use;
use crate::control::dns::Question;
use crate::control::health::session::Report;
use crate::upstream::host::HealthFlags;

/// The world outside as a list of what it was told.
#[derive(Debug, Default)]
struct Log {
    said: Vec<String>,
    hosts: BTreeMap<String, Arc<HostSet>>,
    questions: Vec<(LookupId, Question)>,
    /// Numbers of hosts that were asked, by where.
    probed: BTreeMap<String, u64>,
    /// Hosts that failed, by cluster.
    failed: Vec<(String, u64)>,
}

fn addresses(hosts: &HostSet) -> String {
    let list: Vec<_> = hosts.hosts().map(|host| host.address().to_string()).collect();
    list.join(" ")
}

impl ClusterSink for Log {
    fn publish(&mut self, cluster: PublishedCluster) {
        let name = &cluster.config.name;
        self.said.push(format!("publish {name} [{}]", addresses(&cluster.hosts)));
        self.hosts.insert(name.to_string(), cluster.hosts);
    }

    fn publish_hosts(&mut self, name: &Arc<str>, hosts: &Arc<HostSet>) {
        self.said.push(format!("hosts {name} [{}]", addresses(hosts)));
        self.hosts.insert(name.to_string(), hosts.clone());
    }

    fn host_failed(&mut self, name: &Arc<str>, host: u64) {
        self.failed.push((name.to_string(), host));
    }

    fn remove(&mut self, name: &Arc<str>) {
        self.said.push(format!("remove {name}"));
        self.hosts.remove(&**name);
    }
}

impl Prober for Log {
    fn probe(&mut self, probe: Probe) {
        self.said.push(format!("probe {} {}", probe.config.name, probe.address));
        self.probed.insert(probe.address.to_string(), probe.id);
    }

    fn end_probes(&mut self, _: u64) {
        self.said.push("end probes".to_owned());
    }

    fn had_connections(&self, _: &str) -> bool {
        true
    }
}

impl EdsSubscriber for Log {
    fn subscribe(&mut self, watch: WatchId, _stat_name: &str, eds: &EdsConfig) {
        self.said.push(format!("subscribe {} {}", watch.0, eds.service_name));
    }

    fn unsubscribe(&mut self, watch: WatchId) {
        self.said.push(format!("unsubscribe {}", watch.0));
    }
}

impl Resolver for Log {
    fn resolve(&mut self, id: LookupId, question: Question) {
        self.said.push(format!("resolve {}", question.host));
        self.questions.push((id, question));
    }

    fn cancel(&mut self, _: LookupId) {
        self.said.push("cancel".to_owned());
    }
}

impl SecretKeeper for Log {
    fn require_secrets(&mut self, _: &Arc<ClusterConfig>) -> Result<Vec<SecretsUse>, String> {
        Ok(Vec::new())
    }
}

impl ClusterObserver for Log {
    fn endpoint_update(&mut self, name: &Arc<str>, result: EndpointUpdate) {
        self.said.push(format!("update {name} {result:?}"));
    }

    fn merge(&mut self, event: MergeEvent) {
        self.said.push(format!("merge {event:?}"));
    }

    fn phase(&mut self, phase: Phase) {
        self.said.push(format!("phase {phase:?}"));
    }
}

type Manager = ClusterManager<Log>;

fn manager(uses_cds: bool) -> (Manager, Instant) {
    (ClusterManager::new(Log::default(), 2, uses_cds, fastrand::Rng::with_seed(1)), Instant::now())
}

/// One that has started and waits for CDS.
fn started() -> (Manager, Instant) {
    let (mut manager, now) = manager(true);
    manager.start(now);
    manager.outside().said.clear();
    (manager, now)
}

fn said(manager: &mut Manager) -> Vec<String> {
    std::mem::take(&mut manager.outside().said)
}

fn cluster(name: &str, kind: DiscoveryType) -> Proto {
    Proto {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        ..Default::default()
    }
}

fn eds(name: &str) -> Proto {
    let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource::default());
    let source = core::ConfigSource { config_source_specifier: Some(ads), ..Default::default() };
    let config = EdsClusterConfig { eds_config: Some(source), service_name: String::new() };
    Proto { eds_cluster_config: Some(config), ..cluster(name, DiscoveryType::Eds) }
}

/// Endpoints `host:weight:health status`, all on port 80.
fn assignment_proto(name: &str, endpoints: &[(&str, u32, core::HealthStatus)]) -> endpoint::ClusterLoadAssignment {
    let lb_endpoints = endpoints.iter().map(|&(address, weight, status)| endpoint::LbEndpoint {
        health_status: status as i32,
        load_balancing_weight: Some(google::UInt32Value { value: weight }),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(core::Address {
                address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                    address: address.to_owned(),
                    port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        })),
        ..Default::default()
    });
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: lb_endpoints.collect(), ..Default::default() }],
        ..Default::default()
    }
}

fn with_hosts(mut proto: Proto, addresses: &[&str]) -> Proto {
    let endpoints: Vec<_> = addresses.iter().map(|&address| (address, 1, core::HealthStatus::Unknown)).collect();
    proto.load_assignment = Some(assignment_proto(&proto.name, &endpoints));
    proto
}

fn assignment(name: &str, endpoints: &[(&str, u32, core::HealthStatus)]) -> Arc<LoadAssignment> {
    let proto = assignment_proto(name, endpoints);
    Arc::new(LoadAssignment::parse(Session::default().root(), proto, Use::Eds).unwrap())
}

fn resource(proto: &Proto) -> ClusterResource {
    ClusterResource::parse(Session::default().root(), proto.encode_to_vec().into())
}

fn cds(manager: &mut Manager, now: Instant, protos: &[Proto]) -> Result<(), String> {
    let resources = protos.iter().map(resource).collect();
    manager.apply(now, UNIX_EPOCH, CdsUpdate { resources, removed: Removed::Others, version: "1".into() })
}

const OK: core::HealthStatus = core::HealthStatus::Healthy;

#[test]
fn start_up_goes_from_primary_over_secondary_clusters_to_cds() {
    let (mut manager, now) = manager(true);
    manager
        .add_static(resource(&with_hosts(cluster("s", DiscoveryType::StrictDns), &["db.example"])), UNIX_EPOCH)
        .unwrap();
    manager.add_static(resource(&eds("e")), UNIX_EPOCH).unwrap();
    manager.wait_for_runtime();
    manager.start(now);
    assert_eq!(said(&mut manager), ["phase Primary", "resolve db.example"]);

    let id = manager.outside().questions[0].0;
    let found = Outcome::Addresses { addresses: vec!["10.0.0.9".parse().unwrap()], ttl: Duration::from_secs(1) };
    manager.on_lookup(now, id, found);
    assert_eq!(said(&mut manager), ["publish s [10.0.0.9:80]", "update s Success", "phase Runtime"]);

    manager.runtime_loaded(now);
    assert_eq!(said(&mut manager), ["phase Secondary", "subscribe 2 e"]);

    manager.on_assignment(now, WatchId(2), assignment("e", &[("10.0.0.1", 1, OK)]));
    assert_eq!(said(&mut manager), ["publish e [10.0.0.1:80]", "update e Success", "phase Cds"]);

    cds(&mut manager, now, &[eds("d")]).unwrap();
    assert_eq!(said(&mut manager), ["subscribe 3 d"]);
    assert_eq!(manager.views().filter(|view| view.warming).count(), 0, "shown as active during start-up");
    manager.on_assignment_failed(now, WatchId(3));
    assert_eq!(said(&mut manager), ["publish d []", "update d Failure", "phase Initialized"]);
}

#[test]
fn without_clusters_and_cds_start_up_is_over_at_once() {
    let (mut manager, now) = manager(false);
    manager.start(now);
    assert_eq!(manager.phase(), Phase::Initialized);
}

#[test]
fn the_version_is_that_of_the_last_response_of_which_anything_was_applied() {
    let (mut manager, now) = started();
    let mut respond = |version: &str, clusters: &[Proto]| {
        let resources = clusters.iter().map(resource).collect();
        let update = CdsUpdate { resources, removed: Removed::Others, version: version.into() };
        let accepted = manager.apply(now, UNIX_EPOCH, update).is_ok();
        (accepted, manager.cds_version().to_string())
    };
    let good = with_hosts(cluster("good", DiscoveryType::Static), &["10.0.0.1"]);
    let bad = with_hosts(cluster("bad", DiscoveryType::Static), &["not-an-address"]);
    assert_eq!(respond("1", std::slice::from_ref(&good)), (true, "1".to_owned()));
    assert_eq!(respond("2", std::slice::from_ref(&good)), (true, "1".to_owned()), "nothing changed");
    assert_eq!(respond("3", &[good.clone(), bad.clone()]), (false, "1".to_owned()));
    let other = with_hosts(cluster("other", DiscoveryType::Static), &["10.0.0.1"]);
    assert_eq!(respond("4", &[good.clone(), bad, other]), (false, "4".to_owned()), "in part");
    assert_eq!(respond("5", &[good]), (true, "5".to_owned()), "a removal");
}

#[test]
fn endpoints_that_are_gone_leave_the_hosts_and_end_the_wait() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[eds("e")]).unwrap();
    manager.on_assignment(now, WatchId(1), assignment("e", &[("10.0.0.1", 1, OK)]));
    said(&mut manager);
    manager.on_assignment_removed(now, WatchId(1));
    assert_eq!(said(&mut manager), ["update e Empty"]);
    cds(&mut manager, now, &[eds("e"), eds("f")]).unwrap();
    manager.on_assignment_removed(now, WatchId(2));
    assert_eq!(said(&mut manager), ["subscribe 2 f", "publish f []", "update f Empty"]);
}

#[test]
fn good_resources_go_live_and_bad_ones_are_named() {
    let (mut manager, now) = started();
    let bad = with_hosts(cluster("bad", DiscoveryType::Static), &["not-an-address"]);
    let good = with_hosts(cluster("good", DiscoveryType::Static), &["10.0.0.1"]);
    let old = with_hosts(cluster("old", DiscoveryType::Static), &["10.0.0.1"]);
    cds(&mut manager, now, &[old]).unwrap();
    said(&mut manager);
    let error = cds(&mut manager, now, &[bad, good.clone(), good]).unwrap_err();
    assert!(error.starts_with("Error adding/updating cluster(s) bad: "), "{error}");
    assert!(error.contains("malformed IP address: not-an-address"), "{error}");
    assert!(error.ends_with(", good: duplicate cluster good found"), "{error}");
    assert_eq!(said(&mut manager), ["publish good [10.0.0.1:80]", "remove old"], "removals happen all the same");
}

#[test]
fn an_unchanged_resource_changes_nothing() {
    let (mut manager, now) = started();
    let proto = with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.1"]);
    cds(&mut manager, now, std::slice::from_ref(&proto)).unwrap();
    said(&mut manager);
    cds(&mut manager, now, &[proto]).unwrap();
    assert_eq!(said(&mut manager), [""; 0]);
}

#[test]
fn static_clusters_cannot_be_changed_or_removed_by_cds() {
    let (mut manager, now) = manager(true);
    let ours = with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.1"]);
    manager.add_static(resource(&ours), UNIX_EPOCH).unwrap();
    assert_eq!(manager.add_static(resource(&ours), UNIX_EPOCH).unwrap_err(), "cluster manager: duplicate cluster 'c'");
    manager.start(now);
    said(&mut manager);
    cds(&mut manager, now, &[with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.2"])]).unwrap();
    cds(&mut manager, now, &[]).unwrap();
    assert_eq!(said(&mut manager), ["phase Initialized"]);
    assert!(manager.is_active("c"));
}

#[test]
fn an_update_warms_beside_the_version_in_use_and_takes_over() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[eds("c")]).unwrap();
    manager.on_assignment(now, WatchId(1), assignment("c", &[("10.0.0.1", 1, OK)]));
    said(&mut manager);

    let slower = Proto { connect_timeout: Some(google::Duration { seconds: 9, nanos: 0 }), ..eds("c") };
    cds(&mut manager, now, &[slower]).unwrap();
    assert_eq!(said(&mut manager), ["subscribe 2 c"]);
    assert_eq!(manager.warming_count(), 1);
    // The old version still follows its endpoints.
    manager.on_assignment(now, WatchId(1), assignment("c", &[("10.0.0.2", 1, OK)]));
    assert_eq!(said(&mut manager), ["hosts c [10.0.0.2:80]", "update c Success"]);
    manager.on_assignment(now, WatchId(2), assignment("c", &[("10.0.0.3", 1, OK)]));
    assert_eq!(said(&mut manager), ["unsubscribe 1", "publish c [10.0.0.3:80]", "update c Success"]);
    assert_eq!(manager.warming_count(), 0);
}

#[test]
fn an_update_without_an_assignment_in_time_goes_on_with_the_former_one() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[eds("c")]).unwrap();
    manager.on_assignment(now, WatchId(1), assignment("c", &[("10.0.0.1", 1, OK)]));
    let slower = Proto { connect_timeout: Some(google::Duration { seconds: 9, nanos: 0 }), ..eds("c") };
    cds(&mut manager, now, &[slower]).unwrap();
    said(&mut manager);
    let deadline = manager.next_deadline().unwrap();
    assert_eq!(deadline - now, Duration::from_secs(15));
    manager.on_timer(deadline - Duration::from_millis(1));
    assert_eq!(said(&mut manager), [""; 0]);
    manager.on_timer(deadline);
    let expected = ["unsubscribe 1", "publish c [10.0.0.1:80]", "update c InitFetchTimeout", "update c UsedCached"];
    assert_eq!(said(&mut manager), expected);
}

#[test]
fn a_new_cluster_without_an_assignment_in_time_is_there_without_hosts() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[eds("c")]).unwrap();
    said(&mut manager);
    manager.on_timer(now + Duration::from_secs(15));
    assert_eq!(said(&mut manager), ["publish c []", "update c InitFetchTimeout", "phase Initialized"]);
}

#[test]
fn removal_ends_subscriptions_and_lookups() {
    let (mut manager, now) = started();
    let dns = with_hosts(cluster("d", DiscoveryType::StrictDns), &["db.example"]);
    cds(&mut manager, now, &[eds("c"), dns]).unwrap();
    said(&mut manager);
    cds(&mut manager, now, &[]).unwrap();
    assert_eq!(said(&mut manager), ["unsubscribe 1", "cancel", "phase Initialized"], "neither was in use yet");
    manager.on_assignment(now, WatchId(1), assignment("c", &[("10.0.0.1", 1, OK)]));
    assert_eq!(said(&mut manager), [""; 0], "a late assignment is nobody's");
}

#[test]
fn hosts_keep_their_identity_while_their_address_stays() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[eds("c")]).unwrap();
    manager.on_assignment(now, WatchId(1), assignment("c", &[("10.0.0.1", 1, OK), ("10.0.0.2", 1, OK)]));
    let before = manager.outside().hosts["c"].clone();
    let first = before.hosts().next().unwrap().clone();
    first.shard(0).cx_total.inc();

    // Another weight, another order, one goes, one comes; an address twice is one host.
    let next = [("10.0.0.3", 1, OK), ("10.0.0.1", 7, OK), ("10.0.0.1", 9, OK)];
    manager.on_assignment(now, WatchId(1), assignment("c", &next));
    let after = manager.outside().hosts["c"].clone();
    assert_eq!(addresses(&after), "10.0.0.3:80 10.0.0.1:80");
    let same = after.hosts().nth(1).unwrap();
    assert_eq!((same.id(), same.weight(), same.state().stats().cx_total), (first.id(), 7, 1));
    assert_eq!(first.weight(), 1, "who holds the former view keeps it");

    // Nothing changed: the same set, not published.
    said(&mut manager);
    manager.on_assignment(now, WatchId(1), assignment("c", &next));
    assert_eq!(said(&mut manager), ["update c NoRebuild"]);
}

#[test]
fn changes_of_health_within_the_merge_window_are_published_as_one() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[eds("c")]).unwrap();
    let give = |manager: &mut Manager, at, weight| {
        manager.on_assignment(at, WatchId(1), assignment("c", &[("10.0.0.1", weight, OK), ("10.0.0.2", 1, OK)]));
    };
    let ail = |manager: &mut Manager, at, ails| {
        let host = manager.outside().hosts["c"].hosts().next().unwrap().clone();
        let (set, clear) = if ails {
            (HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::NONE)
        } else {
            (HealthFlags::NONE, HealthFlags::FAILED_OUTLIER_CHECK)
        };
        host.state().change_flags(set, clear);
        manager.on_health_changed(at, "c");
    };
    const BOTH: &str = "hosts c [10.0.0.1:80 10.0.0.2:80]";
    give(&mut manager, now, 1);
    said(&mut manager);
    let ms = Duration::from_millis;
    // The first change there is to publish has none before it.
    ail(&mut manager, now + ms(100), true);
    assert_eq!(said(&mut manager), ["merge OutOfWindow", BOTH]);
    ail(&mut manager, now + ms(200), false);
    ail(&mut manager, now + ms(300), true);
    assert!(said(&mut manager).is_empty());
    assert_eq!(manager.next_deadline(), Some(now + ms(1200)));
    manager.on_timer(now + ms(1200));
    assert_eq!(said(&mut manager), ["merge Published", BOTH]);
    assert_eq!(manager.outside().hosts["c"].membership().healthy, 1);

    // Long after: nothing to wait for.
    ail(&mut manager, now + ms(9000), false);
    assert_eq!(said(&mut manager), ["merge OutOfWindow", BOTH]);
    // What an assignment says does not wait, and takes waiting changes with it.
    give(&mut manager, now + ms(9100), 5);
    assert_eq!(said(&mut manager), [BOTH, "update c Success"]);
    ail(&mut manager, now + ms(9200), true);
    assert!(said(&mut manager).is_empty());
    give(&mut manager, now + ms(9300), 6);
    assert_eq!(said(&mut manager), ["merge Cancelled", BOTH, "update c Success"]);
    ail(&mut manager, now + ms(9400), false);
    manager.on_assignment(now + ms(9500), WatchId(1), assignment("c", &[("10.0.0.2", 1, OK)]));
    assert_eq!(said(&mut manager), ["merge Cancelled", "hosts c [10.0.0.2:80]", "update c Success"]);
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn a_merge_window_of_zero_publishes_each_change() {
    let (mut manager, now) = started();
    let zero = CommonLbConfig { update_merge_window: Some(google::Duration::default()), ..Default::default() };
    cds(&mut manager, now, &[Proto { common_lb_config: Some(zero), ..eds("c") }]).unwrap();
    manager.on_assignment(now, WatchId(1), assignment("c", &[("10.0.0.1", 1, OK)]));
    said(&mut manager);
    for _ in 0..2 {
        manager.on_health_changed(now, "c");
        assert_eq!(said(&mut manager), ["hosts c [10.0.0.1:80]"]);
    }
}

#[test]
fn health_changed_by_others_is_published() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.1", "10.0.0.2"])]).unwrap();
    let host = manager.outside().hosts["c"].hosts().next().unwrap().clone();
    host.state().change_flags(HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::NONE);
    manager.on_health_changed(now + Duration::from_secs(2), "c");
    assert_eq!(manager.outside().hosts["c"].membership().healthy, 1);
}

#[test]
fn an_address_given_twice_is_two_hosts_of_a_static_cluster() {
    let (mut manager, now) = started();
    cds(&mut manager, now, &[with_hosts(cluster("c", DiscoveryType::Static), &["10.0.0.1", "10.0.0.1"])]).unwrap();
    assert_eq!(said(&mut manager)[0], "publish c [10.0.0.1:80 10.0.0.1:80]");
}

use filters::config::Session;

use super::*;

fn address(text: &str) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: text.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
            ..Default::default()
        })),
    }
}

fn lb_endpoint(text: &str) -> proto::LbEndpoint {
    proto::LbEndpoint {
        host_identifier: Some(proto::lb_endpoint::HostIdentifier::Endpoint(proto::Endpoint {
            address: Some(address(text)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn parse(lb_endpoint: proto::LbEndpoint, r#use: Use) -> Result<Endpoint, String> {
    let locality = proto::LocalityLbEndpoints { lb_endpoints: vec![lb_endpoint], ..Default::default() };
    let assignment =
        proto::ClusterLoadAssignment { cluster_name: "c".to_owned(), endpoints: vec![locality], ..Default::default() };
    let session = Session::default();
    let parsed = LoadAssignment::parse(session.root(), assignment, r#use).map_err(|error| error.to_string())?;
    Ok(parsed.localities[0].endpoints[0].clone())
}

#[test]
fn health_status_sets_bits() {
    for (status, flags) in [
        (core::HealthStatus::Unknown, HealthFlags::NONE),
        (core::HealthStatus::Healthy, HealthFlags::NONE),
        (core::HealthStatus::Unhealthy, HealthFlags::FAILED_EDS_HEALTH),
        (core::HealthStatus::Timeout, HealthFlags::FAILED_EDS_HEALTH),
        (core::HealthStatus::Draining, HealthFlags::EDS_STATUS_DRAINING),
        (core::HealthStatus::Degraded, HealthFlags::DEGRADED_EDS_HEALTH),
    ] {
        let endpoint = proto::LbEndpoint { health_status: status as i32, ..lb_endpoint("10.0.0.1") };
        assert_eq!(parse(endpoint, Use::Eds).unwrap().health, flags, "{status:?}");
    }
}

#[test]
fn names_are_for_dns_only() {
    assert!(parse(lb_endpoint("db.example"), Use::Dns).is_ok());
    for r#use in [Use::Static, Use::Eds] {
        let error = parse(lb_endpoint("db.example"), r#use).unwrap_err();
        assert!(error.starts_with("endpoints[0].lb_endpoints[0].endpoint.address: malformed IP address"), "{error}");
    }
}

#[test]
fn an_endpoint_without_address_is_envoys_error() {
    for endpoint in [
        proto::LbEndpoint::default(),
        proto::LbEndpoint {
            host_identifier: Some(proto::lb_endpoint::HostIdentifier::EndpointName("x".to_owned())),
            ..Default::default()
        },
    ] {
        assert!(parse(endpoint, Use::Static).unwrap_err().ends_with("Address must be set"));
    }
}

#[test]
fn metadata_is_kept_and_a_canary_is_known() {
    let canary = google::Value { kind: Some(google::value::Kind::BoolValue(true)) };
    let fields = google::Struct { fields: [("canary".to_owned(), canary)].into() };
    let metadata = core::Metadata { filter_metadata: [("envoy.lb".to_owned(), fields)].into(), ..Default::default() };
    let endpoint =
        parse(proto::LbEndpoint { metadata: Some(metadata), ..lb_endpoint("10.0.0.1") }, Use::Static).unwrap();
    assert!(endpoint.canary);
    assert_eq!(endpoint.metadata.unwrap()["envoy.lb"]["canary"], serde_json::json!(true));
}

#[test]
fn requests_are_dropped_by_one_category_at_most() {
    let drop = |numerator| proto::cluster_load_assignment::policy::DropOverload {
        category: "throttle".to_owned(),
        drop_percentage: Some(envoy_types::pb::envoy::r#type::v3::FractionalPercent { numerator, denominator: 0 }),
    };
    let session = Session::default();
    let parsed = drop_overload(session.root(), vec![drop(5)]).unwrap().unwrap();
    assert_eq!((&*parsed.category, parsed.ratio), ("throttle", 0.05));
    assert_eq!(drop_overload(session.root(), vec![drop(0)]).unwrap(), None);
    let error = drop_overload(session.root(), vec![drop(5), drop(5)]).unwrap_err();
    assert_eq!(error.message, "Cluster drop_overloads config has 2 categories. Envoy only support one.");
    assert!(drop_overload(session.root(), vec![drop(101)]).is_err());
}

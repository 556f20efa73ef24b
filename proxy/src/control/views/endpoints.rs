//! `/config_dump?include_eds`: the assignment of every cluster in use, as its hosts are now.
//!
//! Not the assignment as it came: names are resolved, health is what it has become, and places are in the order load
//! balancing has them: this node's own first, then by name.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as proto;
use envoy_types::pb::envoy::r#type::v3 as kind;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, UInt32Value, Value};
use filters::stream_info::Address;
use prost::Message as _;
use proto::cluster_load_assignment::{Policy, policy};

use crate::admin::backend::{ConfigDumpEntry, RawResource};
use crate::config::cluster::Discovery;
use crate::control::clusters::ClusterView;
use crate::upstream::host::{DropOverload, Health, Host, HostSet, Locality, LocalityHosts, Metadata};

/// The assignment of a cluster, as an entry of a dump.
pub(super) fn entry(cluster: &ClusterView<'_>, node: &Locality) -> ConfigDumpEntry {
    let config = cluster.config;
    let name = match &config.discovery {
        Discovery::Eds(eds) => &eds.service_name,
        _ => &config.name,
    };
    let assignment = assignment(name, &config.discovery, cluster.hosts, node);
    ConfigDumpEntry {
        name: name.to_string(),
        resource: Some(RawResource { type_url: xds_client::ENDPOINTS, bytes: assignment.encode_to_vec().into() }),
        ..ConfigDumpEntry::default()
    }
}

fn assignment(name: &str, discovery: &Discovery, hosts: &HostSet, node: &Locality) -> proto::ClusterLoadAssignment {
    let by_name = matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
    let mut endpoints = Vec::new();
    for (priority, level) in (0..).zip(&hosts.priorities) {
        if matches!(discovery, Discovery::OriginalDst(_)) {
            // Such hosts have no place: each stands for itself.
            let alone = |host: &Arc<Host>| {
                place(&host.attributes().locality, priority, None, std::slice::from_ref(host), by_name)
            };
            endpoints.extend(level.hosts.iter().map(alone));
            continue;
        }
        let mut places: Vec<&LocalityHosts> = level.localities.iter().filter(|place| !place.hosts.is_empty()).collect();
        places.sort_by_key(|place| (*place.locality != *node, &place.locality));
        endpoints.extend(places.iter().map(|at| place(&at.locality, priority, Some(at.weight), &at.hosts, by_name)));
    }
    let drop_overloads = hosts.drop_overload.iter().map(|DropOverload { category, ratio }| {
        let denominator = kind::fractional_percent::DenominatorType::Million.into();
        // At most one million.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one million")]
        let numerator = (ratio * 1_000_000.0).round() as u32;
        let drop_percentage = Some(kind::FractionalPercent { numerator, denominator });
        policy::DropOverload { category: category.to_string(), drop_percentage }
    });
    proto::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints,
        policy: Some(Policy {
            drop_overloads: drop_overloads.collect(),
            overprovisioning_factor: Some(UInt32Value { value: hosts.overprovisioning_factor }),
            ..Policy::default()
        }),
        ..proto::ClusterLoadAssignment::default()
    }
}

fn place(
    locality: &Locality,
    priority: u32,
    weight: Option<u32>,
    hosts: &[Arc<Host>],
    by_name: bool,
) -> proto::LocalityLbEndpoints {
    let Locality { region, zone, sub_zone } = locality.clone();
    proto::LocalityLbEndpoints {
        locality: Some(core::Locality { region, zone, sub_zone }),
        lb_endpoints: hosts.iter().map(|host| lb_endpoint(host, by_name)).collect(),
        load_balancing_weight: weight.map(|value| UInt32Value { value }),
        priority,
        ..proto::LocalityLbEndpoints::default()
    }
}

/// A host found by name always has metadata, if only empty ones.
fn lb_endpoint(host: &Host, by_name: bool) -> proto::LbEndpoint {
    let attributes = host.attributes();
    let metadata = attributes.metadata.as_deref().map(metadata);
    let additional = attributes
        .additional_addresses
        .iter()
        .map(|ip| proto::endpoint::AdditionalAddress { address: Some(address(&Address::Ip(*ip))) });
    let status = match host.health() {
        Health::Healthy => core::HealthStatus::Healthy,
        Health::Degraded => core::HealthStatus::Degraded,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
    };
    let endpoint = proto::Endpoint {
        address: Some(address(host.address())),
        // Always there, as in Envoy.
        health_check_config: Some(health_check_config(host)),
        hostname: host.hostname().to_string(),
        additional_addresses: additional.collect(),
        ..proto::Endpoint::default()
    };
    proto::LbEndpoint {
        health_status: status.into(),
        metadata: metadata.or_else(|| by_name.then(core::Metadata::default)),
        load_balancing_weight: Some(UInt32Value { value: host.weight() }),
        host_identifier: Some(proto::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
    }
}

/// As in Envoy an address of its own shows by its port.
fn health_check_config(host: &Host) -> proto::endpoint::HealthCheckConfig {
    let check = host.attributes().check.as_deref();
    let port_value = match host.check_address() {
        elsewhere if elsewhere == **host.address() => 0,
        Address::Ip(ip) => ip.port().into(),
        Address::Pipe(_) | Address::Internal(_) => 0,
    };
    let hostname = check.map(|check| check.hostname.to_string()).unwrap_or_default();
    proto::endpoint::HealthCheckConfig { port_value, hostname, ..proto::endpoint::HealthCheckConfig::default() }
}

fn address(address: &Address) -> core::Address {
    use core::address::Address as Kind;
    use core::envoy_internal_address::AddressNameSpecifier;
    use core::socket_address::PortSpecifier;
    let address = match address {
        Address::Ip(ip) => Kind::SocketAddress(core::SocketAddress {
            address: ip.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(ip.port().into())),
            ..core::SocketAddress::default()
        }),
        Address::Pipe(path) => Kind::Pipe(core::Pipe { path: path.to_string(), mode: 0 }),
        Address::Internal(name) => Kind::EnvoyInternalAddress(core::EnvoyInternalAddress {
            endpoint_id: String::new(),
            address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(name.to_string())),
        }),
    };
    core::Address { address: Some(address) }
}

fn metadata(metadata: &Metadata) -> core::Metadata {
    let filter_metadata = metadata.iter().map(|(name, fields)| {
        let fields = fields.as_object().map(object).unwrap_or_default();
        (name.clone(), fields)
    });
    core::Metadata { filter_metadata: filter_metadata.collect(), ..core::Metadata::default() }
}

fn object(fields: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.iter().map(|(name, field)| (name.clone(), value(field))).collect() }
}

fn value(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        // Every number of a document was one of these before.
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(value).collect() }),
        serde_json::Value::Object(fields) => Kind::StructValue(object(fields)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use xds_client::proto::{JsonOptions, to_json};

    use super::*;
    use crate::config::endpoint::LoadAssignment;
    use crate::upstream::host::{HealthFlags, HostAttributes, HostState, PriorityHosts};

    fn host(address: &str, metadata: Option<serde_json::Value>) -> Arc<Host> {
        let attributes = HostAttributes {
            address: Arc::new(Address::Ip(address.parse().unwrap())),
            additional_addresses: Arc::new([]),
            hostname: "h".into(),
            weight: 4,
            locality: Arc::default(),
            priority: 0,
            metadata: metadata.and_then(|json| json.as_object().cloned()).map(Arc::new),
            tlvs: None,
            canary: false,
            check: None,
        };
        Arc::new(Host::new(attributes, Arc::new(HostState::new(1))))
    }

    fn region(region: &str) -> Locality {
        Locality { region: region.to_owned(), ..Locality::default() }
    }

    fn json(assignment: &proto::ClusterLoadAssignment) -> serde_json::Value {
        let options = JsonOptions { snake_case: true, ..JsonOptions::default() };
        to_json("envoy.config.endpoint.v3.ClusterLoadAssignment", &assignment.encode_to_vec(), &options).unwrap()
    }

    #[test]
    fn places_are_in_order_and_hosts_as_they_are_now() {
        let ill = host("10.0.0.2:1", None);
        ill.state().change_flags(HealthFlags::EDS_STATUS_DRAINING, HealthFlags::NONE);
        let canary = serde_json::json!({"envoy.lb": {"canary": true, "n": 1.5, "l": ["a", null]}});
        let level = PriorityHosts::new(vec![
            (Arc::new(region("z")), 0, vec![ill]),
            (Arc::new(region("b")), 3, vec![host("[::1]:1", Some(canary.clone()))]),
            (Arc::new(region("empty")), 3, Vec::new()),
            (Arc::new(region("mine")), 0, vec![host("10.0.0.3:1", None)]),
        ]);
        let drop_overload = Some(DropOverload { category: "x".into(), ratio: 0.05 });
        let set = HostSet { priorities: Box::new([level]), drop_overload, ..HostSet::empty() };
        let of_eds = Discovery::Static(LoadAssignment::default());
        let json = json(&assignment("c", &of_eds, &set, &region("mine")));
        let endpoints = json["endpoints"].as_array().unwrap();
        let regions: Vec<_> = endpoints.iter().map(|place| place["locality"]["region"].as_str().unwrap()).collect();
        assert_eq!(regions, ["mine", "b", "z"]);
        let weights: Vec<_> = endpoints.iter().map(|place| place["load_balancing_weight"].as_u64().unwrap()).collect();
        assert_eq!(weights, [0, 3, 0]);
        assert_eq!(endpoints[2]["lb_endpoints"][0]["health_status"], "UNHEALTHY");
        assert!(endpoints[2]["lb_endpoints"][0].get("metadata").is_none());
        let second = &endpoints[1]["lb_endpoints"][0];
        assert_eq!(second["metadata"]["filter_metadata"], canary);
        assert_eq!(second["endpoint"]["address"]["socket_address"]["address"], "::1");
        assert_eq!((&second["endpoint"]["hostname"], &second["load_balancing_weight"]), (&"h".into(), &4.into()));
        assert_eq!(json["policy"]["overprovisioning_factor"], 140);
        let dropped = &json["policy"]["drop_overloads"][0];
        assert_eq!((&dropped["category"], &dropped["drop_percentage"]["numerator"]), (&"x".into(), &50_000.into()));
    }

    #[test]
    fn hosts_of_where_the_connection_was_going_have_no_place() {
        let set = HostSet::single(vec![host("10.0.0.1:1", None), host("10.0.0.2:1", None)]);
        let original = Discovery::OriginalDst(Default::default());
        let json = json(&assignment("c", &original, &set, &Locality::default()));
        let endpoints = json["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 2);
        assert!(endpoints.iter().all(|place| place.get("load_balancing_weight").is_none()));
    }
}

use super::super::{Format, LoadOptions, UnknownFields, load};
use super::*;

fn bytes(type_name: &str, yaml: &str) -> Vec<u8> {
    load(yaml.as_bytes(), Format::Yaml, type_name, &LoadOptions::default()).expect(yaml).bytes().to_vec()
}

fn error(type_name: &str, yaml: &str) -> String {
    load(yaml.as_bytes(), Format::Yaml, type_name, &LoadOptions::default()).expect_err(yaml).to_string()
}

#[test]
fn bytes_are_canonical() {
    let name = "envoy.config.core.v3.SocketAddress";
    let one = bytes(name, "{port_value: 80, address: a, protocol: TCP}");
    assert_eq!(one, bytes(name, "{protocol: 0, address: a, portValue: '80'}"));
    assert_eq!(one, [0x12, 1, b'a', 0x18, 80]);
    // A member of a oneof is present even if it is zero.
    assert_eq!(bytes(name, "{port_value: 0}"), [0x18, 0]);
    // Lists of numbers are packed.
    assert_eq!(
        bytes("envoy.config.listener.v3.FilterChainMatch", "{source_ports: [1, 300]}"),
        [0x3a, 3, 1, 0xac, 0x02]
    );
}

/// Envoy's reader takes all of these.
#[test]
fn liberties() {
    let cluster = "envoy.config.cluster.v3.Cluster";
    assert_eq!(bytes(cluster, "{lb_policy: RING_HASH}"), bytes(cluster, "{lb_policy: ring-hash}"));
    assert_eq!(bytes(cluster, "{lb_policy: '2'}"), bytes(cluster, "{lb_policy: 2}"));
    assert_eq!(bytes(cluster, "{respect_dns_ttl: 'true'}"), bytes(cluster, "{respect_dns_ttl: yes}"));
    assert_eq!(bytes(cluster, "{health_checks: {timeout: 1s}}"), bytes(cluster, "{health_checks: [{timeout: 1s}]}"));
    assert!(bytes(cluster, "{name: , health_checks: }").is_empty());
    assert_eq!(
        bytes(cluster, "{per_connection_buffer_limit_bytes: 1e3}"),
        bytes(cluster, "{per_connection_buffer_limit_bytes: 1000}")
    );
}

#[test]
fn wrong_values() {
    let cluster = "envoy.config.cluster.v3.Cluster";
    for (yaml, expected) in [
        ("{connect_timeout: 5}", "connect_timeout: Unable to parse JSON as proto: expected a string (such as \"5s\""),
        (
            "{metadata: {filter_metadata: [a]}}",
            "metadata.filter_metadata: Unable to parse JSON as proto: expected an object, found a list",
        ),
        ("{metadata: {filter_metadata: {x: 5}}}", "metadata.filter_metadata[\"x\"]: Unable to parse"),
        ("{lb_policy: [1]}", "expected an enum's name or number"),
        ("{respect_dns_ttl: 1}", "expected a boolean"),
        ("{respect_dns_ttl: maybe}", "expected a boolean"),
        ("{per_connection_buffer_limit_bytes: 4294967296}", "integer out of range"),
        ("{transport_socket: {typed_config: {'@type': 5}}}", "expected a type URL"),
        (
            "{transport_socket: {typed_config: {'@type': t/google.protobuf.Duration, value: 1s, x: 1}}}",
            "no such field: 'x'",
        ),
    ] {
        let found = error(cluster, yaml);
        assert!(found.contains(expected), "{yaml}: {found}");
    }
}

#[test]
fn the_names_of_fields_meant() {
    let schema = super::super::descriptors::message("envoy.config.cluster.v3.Cluster").expect("known");
    assert_eq!(similar(schema, "conect_timeout"), Some("connect_timeout"));
    assert_eq!(similar(schema, "nmae"), None);
    assert_eq!(similar(schema, "nam"), Some("name"));
    assert_eq!(similar(schema, "entirely_different"), None);
    assert_eq!(distance("kitten", "sitting"), 3);
}

#[test]
fn tolerated_enum_values_are_listed() {
    let options = LoadOptions { unknown_fields: UnknownFields::Warn, ..LoadOptions::default() };
    let document = load(b"{name: a, lb_policy: NEW}", Format::Yaml, "envoy.config.cluster.v3.Cluster", &options)
        .expect("tolerated");
    assert_eq!(document.bytes(), [0x0a, 1, b'a']);
    assert_eq!(document.unknown_fields()[0].path, "lb_policy");
}

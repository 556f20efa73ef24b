//! Documents that Envoy accepts are accepted and those it refuses are refused, judged by syntax, types and validation
//! rules alone.
//!
//! The verdicts were recorded from Envoy 1.40. With `ENVOY_BIN` set to an Envoy binary the test also asks that binary
//! and compares.

use std::process::Command;

use xds_client::proto::{CheckOptions, Format, LoadOptions, check, load};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// What Envoy says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Accepts,
    Refuses,
    /// Envoy accepts what silently means something else than was written; here it is refused.
    AcceptsUnlikeUs,
}

use Verdict::{Accepts, AcceptsUnlikeUs, Refuses};

/// `C(...)` stands for a cluster with these fields, `F(...)` for a listener with this filter configuration.
const DOCUMENTS: &[(Verdict, &str)] = &[
    (Accepts, "{}"),
    (Accepts, "node: {id: a, cluster: b}"),
    (Accepts, "node:\nstatic_resources: {clusters: }"),
    (Accepts, "admin: {address: {socketAddress: {address: 127.0.0.1, portValue: 0}}}"),
    (Accepts, "admin: {ignore_global_conn_limit: \"true\"}"),
    (Accepts, "admin: {ignore_global_conn_limit: yes}"),
    (Accepts, "node: {locality: {region: 1.5}}"),
    (Accepts, "!ignore a: &x {id: \"1\"}\nnode: *x"),
    (Accepts, "node: {metadata: {a: [[[[[[[[[[1]]]]]]]]]]}}"),
    (Accepts, "C(lb_policy: \"1\")"),
    (Accepts, "C(lb_policy: round_robin)"),
    (Accepts, "C(connect_timeout: 0.5s)"),
    (Accepts, "C(connect_timeout: 1.000000001s)"),
    (
        Accepts,
        "C(health_checks: {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}})",
    ),
    (Accepts, "C(per_connection_buffer_limit_bytes: \"5\")"),
    (Accepts, "C(per_connection_buffer_limit_bytes: 0x10)"),
    (Accepts, "F({\"@type\": example.com/TCP, stat_prefix: a, cluster: b})"),
    (Accepts, "static_resources:\n  clusters: [\n  ]\n"),
    (Accepts, "static_resources:\n  clusters: [\n]\n"),
    (Accepts, "static_resources:\n  clusters: [{name: a},\n{name: b}]\n"),
    (Accepts, "node: {\nid: a,\n cluster: b}\n"),
    (Accepts, "node:\n  id: \"a\nb\"\n"),
    (AcceptsUnlikeUs, "node: {id: a, id: b}"),
    (AcceptsUnlikeUs, "node: {id: a}\nnode: {id: b}"),
    (AcceptsUnlikeUs, "node: {id: a}\n---\nfoo: 1"),
    (AcceptsUnlikeUs, "node: {id: !foo a}"),
    (Refuses, ""),
    (Refuses, "5"),
    (Refuses, "[1, 2]"),
    (Refuses, "a: b: c"),
    (Refuses, "foo: 1"),
    (Refuses, "node: {id: 5}"),
    (Refuses, "node: {id: true}"),
    (Refuses, "node: {id: y}"),
    (Refuses, "node: {listening_addresses: [null]}"),
    (Refuses, "a: &x {id: 1}\nnode: {<<: *x}"),
    (Refuses, "stats_sinks: 5"),
    (Refuses, "static_resources: {clusters: [null]}"),
    (Refuses, "static_resources: {clusters: [{name: \"\"}]}"),
    (Refuses, "static_resources: {listeners: [{name: a, foo: 1}]}"),
    (Refuses, "admin: {address: {}}"),
    (Refuses, "admin: {address: {socketAddress: {address: 1.1.1.1, portValue: 1, port_value: 2}}}"),
    (Refuses, "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 70000}}}"),
    (Refuses, "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 99999999999}}}"),
    (Refuses, "admin: {address: {socket_address: {address: 127.0.0.1, port_value: -1}}}"),
    (Refuses, "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1.5}}}"),
    (Refuses, "C(connect_timeout: 0s)"),
    (Refuses, "C(connect_timeout: 5)"),
    (Refuses, "C(connect_timeout: hello)"),
    (Refuses, "C(dns_refresh_rate: 0.0001s)"),
    (Refuses, "C(lb_policy: FOO)"),
    (Refuses, "C(lb_policy: 77)"),
    (Refuses, "C(type: STATIC, cluster_type: {name: b})"),
    (Refuses, "C(health_checks: [{timeout: 1s}])"),
    (Refuses, "C(circuit_breakers: {thresholds: [{priority: 5}]})"),
    (Refuses, "C(load_assignment: {cluster_name: \"\"})"),
    (Refuses, "C(load_assignment: {cluster_name: x, endpoints: [{priority: 500}]})"),
    (Refuses, "C(metadata: {filter_metadata: [a]})"),
    (Refuses, "C(transport_socket_matches: [{name: \"\"}])"),
    (
        Refuses,
        "C(transport_socket: {name: x, typed_config: {\"@type\": type.googleapis.com/google.protobuf.BytesValue, value: \"###\"}})",
    ),
    (Refuses, "F({stat_prefix: a, cluster: b})"),
    (Refuses, "F({\"@type\": type.googleapis.com/TCP, stat_prefix: a, clustr: b})"),
    (Refuses, "F({\"@type\": type.googleapis.com/TCP, stat_prefix: \"\", cluster: b})"),
    (Refuses, "F({\"@type\": type.googleapis.com/TCP, stat_prefix: a})"),
    (Refuses, "F({\"@type\": type.googleapis.com/foo.Bar, x: 1})"),
];

fn expand(document: &str) -> String {
    let document = document.replace("/TCP", "/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy");
    let inner = |prefix: &str| document.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')'));
    if let Some(fields) = inner("C(") {
        return format!("static_resources: {{clusters: [{{name: a, {fields}}}]}}");
    }
    match inner("F(") {
        Some(config) => format!(
            "static_resources: {{listeners: [{{name: a, bind_to_port: false, \
             address: {{socket_address: {{address: 127.0.0.1, port_value: 20001}}}}, \
             filter_chains: [{{filters: [{{name: x, typed_config: {config}}}]}}]}}]}}"
        ),
        None => document,
    }
}

fn ours(yaml: &str) -> Result<(), String> {
    let document =
        load(yaml.as_bytes(), Format::Yaml, BOOTSTRAP, &LoadOptions::default()).map_err(|error| error.to_string())?;
    // An extension nobody knows is for its user to refuse; in a bootstrap of required filters that is a refusal.
    if let Some(unknown) = document.unknown_types().first() {
        return Err(format!("unsupported {} at {}", unknown.type_url, unknown.path));
    }
    check(BOOTSTRAP, document.bytes(), &CheckOptions::default()).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn verdicts_are_those_of_envoy() {
    for (verdict, document) in DOCUMENTS {
        let found = ours(&expand(document));
        assert_eq!(found.is_ok(), *verdict == Accepts, "{document}: {found:?}");
    }
}

#[test]
fn recorded_verdicts_are_those_of_the_binary() {
    let Some(envoy) = std::env::var_os("ENVOY_BIN") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bootstrap.yaml");
    for (verdict, document) in DOCUMENTS {
        std::fs::write(&file, expand(document)).expect("a file");
        let output = Command::new(&envoy)
            .args(["--mode", "validate", "--use-dynamic-base-id", "-l", "error", "-c"])
            .arg(&file)
            .output()
            .expect("Envoy runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), *verdict != Refuses, "{document}: {log}");
    }
}

//! Reference 3.4 and the runtime: keys that all clusters ask. One bootstrap has one runtime, so every cluster here is never to
//! panic, whatever it says itself.

use super::{routes, upstream};
use crate::manifest::{Area, get};

/// The area.
pub fn area() -> Area {
    let sick = "lb_endpoints: [{health_status: UNHEALTHY, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]";
    let subset = "lb_subset_config: {fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [k]}]}, ";
    let own = "common_lb_config: {healthy_panic_threshold: {value: 90}}, ";
    let mut clusters = Vec::new();
    let mut table = Vec::new();
    let mut cases = Vec::new();
    for (name, fields, status) in [
        ("well", "", 200),
        ("sick", "", 503),
        ("sick_own_threshold", own, 503),
        ("sick_least_request", "lb_policy: LEAST_REQUEST, ", 503),
        ("sick_random", "lb_policy: RANDOM, ", 503),
        ("sick_ring_hash", "lb_policy: RING_HASH, ", 503),
        ("sick_maglev", "lb_policy: MAGLEV, ", 503),
        ("sick_subset", subset, 503),
    ] {
        let fields = match status {
            200 => fields.to_owned(),
            _ => format!("{fields}load_assignment: {{cluster_name: {name}, endpoints: [{{{sick}}}]}}"),
        };
        clusters.push(upstream(name, "${UP}", &fields));
        table.push(name);
        let path = format!("/{name}");
        cases.push(get(name, "3.4 upstream.healthy_panic_threshold", "in", &path, &[]).status(status));
    }
    let of = |kind: &str, members: &str| {
        format!(
            r#"{{name: {kind}, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: envoy.clusters.aggregate, typed_config: {{"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [{members}]}}}}}}"#
        )
    };
    clusters.push(of("all_sick", "sick, sick_random"));
    clusters.push(of("one_well", "sick, well"));
    for (name, status) in [("all_sick", 503), ("one_well", 200)] {
        table.push(name);
        let path = format!("/{name}");
        cases.push(get(name, "3.4 upstream.healthy_panic_threshold", "in", &path, &[]).status(status));
    }
    let table: Vec<String> = table
        .iter()
        .map(|name| format!(r#"{{match: {{path_separated_prefix: "/{name}"}}, route: {{cluster: {name}}}}}"#))
        .collect();
    let more = "layered_runtime: {layers: [{name: s, static_layer: {upstream.healthy_panic_threshold: 0}}]}";
    Area { name: "runtime_keys", listeners: vec![routes("in", &table.join(", "))], clusters, more, cases }
}

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
    let failing = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    for (name, fields) in breakers() {
        clusters.push(upstream(name, "${UP}", fields));
        table.push(name);
        let path = format!("/{name}");
        cases.push(get(name, "3.6 circuit_breakers.<cluster>.<priority>", "in", &path, &[]));
        let again = Box::leak(format!("{name} failing").into_boxed_str());
        let headers = ["x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"];
        cases.push(get(again, "3.6 circuit_breakers.<cluster>.<priority>", "in", &path, &headers).reply(failing));
    }
    let table: Vec<String> = table
        .iter()
        .map(|name| format!(r#"{{match: {{path_separated_prefix: "/{name}"}}, route: {{cluster: {name}}}}}"#))
        .collect();
    let more = "layered_runtime: {layers: [{name: s, static_layer: {upstream.healthy_panic_threshold: 0, circuit_breakers: {\
        no_requests: {default: {max_requests: 0}}, no_pending: {default: {max_pending_requests: 0}}, \
        no_connections: {default: {max_connections: 0}}, no_retries: {default: {max_retries: 0}}, \
        no_requests_high: {high: {max_requests: 0}}, many_requests: {default: {max_requests: 99999999999}}, \
        some_requests: {default: {max_requests: 7}}, no_number: {default: {max_requests: none}}, \
        no_whole_number: {default: {max_requests: 0.5}}, negative: {default: {max_requests: -1}}, \
        no_pools: {default: {max_connection_pools: 0}}, no_budget: {default: {retry_budget: {budget_percent: 0, min_retry_concurrency: 0}}}, \
        only_percent: {default: {retry_budget: {budget_percent: 100}}}, only_least: {default: {retry_budget: {min_retry_concurrency: 0}}}, \
        text_percent: {default: {retry_budget: {budget_percent: none}}}, own_budget: {default: {retry_budget: {min_retry_concurrency: 0, budget_percent: 0}}}, \
        budget_beside: {default: {max_retries: 0}}}}}]}";
    Area { name: "runtime_keys", listeners: vec![routes("in", &table.join(", "))], clusters, more, cases }
}

/// Clusters whose limits the runtime changes, and what they say themselves.
fn breakers() -> Vec<(&'static str, &'static str)> {
    let none = "circuit_breakers: {thresholds: [{max_requests: 0}]}";
    let tracked = "circuit_breakers: {thresholds: [{max_requests: 3, track_remaining: true}]}";
    let unlimited = "circuit_breakers: {thresholds: [{max_requests: 4294967295, max_pending_requests: 4294967295, max_retries: 4294967295}]}";
    let budget =
        "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 100}, min_retry_concurrency: 5}}]}";
    vec![
        ("no_requests", ""),
        ("no_requests_high", none),
        ("no_pending", unlimited),
        ("no_connections", tracked),
        ("no_retries", unlimited),
        ("many_requests", none),
        ("some_requests", tracked),
        ("no_number", none),
        ("no_whole_number", none),
        ("negative", none),
        ("no_pools", ""),
        ("no_budget", ""),
        ("only_percent", "circuit_breakers: {thresholds: [{max_retries: 0}]}"),
        ("only_least", ""),
        ("text_percent", "circuit_breakers: {thresholds: [{max_retries: 0}]}"),
        ("own_budget", budget),
        ("budget_beside", budget),
    ]
}

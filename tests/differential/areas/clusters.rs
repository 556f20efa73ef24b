//! Reference 3.2, 3.5, 3.6 and 3.9: hosts, breakers and pools, where they are deterministic.

use std::time::Duration;

use super::{routes, upstream};
use crate::manifest::{Area, Case, Step, get, request, steps};
use crate::support::bootstrap::protocol;
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let clusters_and_fields: Vec<(&str, String)> = vec![
        ("up", String::new()),
        ("limited", "circuit_breakers: {thresholds: [{max_requests: 1, max_connections: 1, max_pending_requests: 1, track_remaining: true}]}".to_owned()),
        ("no_requests", "circuit_breakers: {thresholds: [{max_requests: 0}]}".to_owned()),
        ("no_connections", "circuit_breakers: {thresholds: [{max_connections: 0}]}".to_owned()),
        ("no_pending", "circuit_breakers: {thresholds: [{max_pending_requests: 0}]}".to_owned()),
        ("no_high", "circuit_breakers: {thresholds: [{priority: HIGH, max_requests: 0}]}".to_owned()),
        ("one_each", protocol("common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}")),
        ("idle", protocol("common_http_protocol_options: {idle_timeout: 0.05s}, explicit_http_config: {http_protocol_options: {}}")),
        ("duration", protocol("common_http_protocol_options: {max_stream_duration: 0.06s}, explicit_http_config: {http_protocol_options: {}}")),
        ("same_protocol", protocol("use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}")),
        ("dns", "type: STRICT_DNS, dns_lookup_family: V4_ONLY, load_assignment: {cluster_name: dns, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 0}}}}]}]}".to_owned()),
        ("logical", "type: LOGICAL_DNS, dns_lookup_family: V4_ONLY, load_assignment: {cluster_name: logical, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 0}}}}]}]}".to_owned()),
        ("twice", "load_assignment: {cluster_name: twice, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}, {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]}]}".to_owned()),
        ("unhealthy", "load_assignment: {cluster_name: unhealthy, endpoints: [{lb_endpoints: [{health_status: UNHEALTHY, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]}]}".to_owned()),
        ("strict_unhealthy", "common_lb_config: {healthy_panic_threshold: {value: 0}}, load_assignment: {cluster_name: strict_unhealthy, endpoints: [{lb_endpoints: [{health_status: DRAINING, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]}]}".to_owned()),
        ("degraded", "load_assignment: {cluster_name: degraded, endpoints: [{lb_endpoints: [{health_status: DEGRADED, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]}]}".to_owned()),
        ("second_priority", "load_assignment: {cluster_name: second_priority, endpoints: [{priority: 1, lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]}]}".to_owned()),
        ("original", "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}".to_owned()),
        ("bound", "upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}}".to_owned()),
        ("alt", "alt_stat_name: other_name".to_owned()),
        ("maintained", String::new()),
        ("h1_case", protocol("explicit_http_config: {http_protocol_options: {header_key_format: {proper_case_words: {}}}}")),
    ];
    let mut table =
        String::from(r#"{name: high, match: {prefix: "/no_high/high"}, route: {cluster: no_high, priority: HIGH}}"#);
    let mut clusters = Vec::new();
    for (name, fields) in &clusters_and_fields {
        let filled = upstream(name, "${UP}", fields);
        // The port of a source address stays the kernel's choice.
        clusters.push(if *name == "bound" {
            filled.replacen(
                "source_address: {address: 127.0.0.1, port_value: ${UP}}",
                "source_address: {address: 127.0.0.1, port_value: 0}",
                1,
            )
        } else {
            filled
        });
        table.push_str(&format!(r#", {{name: {name}, match: {{prefix: "/{name}"}}, route: {{cluster: {name}}}}}"#));
    }
    clusters.push(upstream("dead", "${DEAD}", ""));
    table.push_str(r#", {name: dead, match: {prefix: "/dead"}, route: {cluster: dead}}"#);
    let more = "layered_runtime: {layers: [{name: s, static_layer: {upstream.maintenance_mode.maintained: 100}}]}";
    Area { name: "clusters", listeners: vec![routes("in", &table)], clusters, more, cases: cases() }
}

fn cases() -> Vec<Case> {
    let hit = |name, row, path: &str| get(name, row, "in", path, &[]);
    let twice = |name, row, path: &str| {
        steps(
            name,
            row,
            "in",
            vec![
                Step::Send(request("GET", path, &[])),
                Step::Responses(1),
                Step::Pause(Duration::from_millis(120)),
                Step::Send(request("GET", path, &[])),
                Step::Responses(2),
            ],
        )
    };
    vec![
        hit("plain", "3.2 STATIC", "/up").status(200),
        hit("limited_fits", "3.6 circuit breakers", "/limited").status(200),
        hit("no_requests", "3.6 max_requests", "/no_requests").status(503),
        hit("no_connections", "3.6 max_connections: an empty pool may open one", "/no_connections"),
        hit("no_pending", "3.6 max_pending_requests", "/no_pending").status(503),
        hit("no_high_default", "3.6 priorities", "/no_high").status(200),
        hit("no_high", "3.6 priorities", "/no_high/high").status(503),
        twice("one_each", "3.9 max_requests_per_connection", "/one_each").status(200),
        twice("idle", "3.9 pool idle timeout", "/idle").status(200),
        twice("kept", "3.9 HTTP/1 reuse", "/up").status(200),
        hit("duration", "2.10 upstream max stream duration", "/duration")
            .acts(vec![Act::Request, Act::Hold])
            .status(504),
        hit("same_protocol", "3.1 use_downstream_protocol_config", "/same_protocol").status(200),
        hit("strict_dns", "3.2 STRICT_DNS", "/dns").status(200),
        hit("logical_dns", "3.2 LOGICAL_DNS", "/logical").status(200),
        hit("same_address_twice", "3.2 STRICT duplicates", "/twice").status(200),
        hit("panic", "3.4 panic", "/unhealthy").status(200),
        hit("no_panic", "3.4 panic", "/strict_unhealthy").status(503),
        hit("degraded", "3.3 degraded", "/degraded").status(200),
        hit("second_priority", "3.4 priority", "/second_priority").status(200),
        get("original_no_header", "3.2 ORIGINAL_DST", "in", "/original", &[]).status(503),
        get("original_bad_header", "3.2 ORIGINAL_DST", "in", "/original", &["x-envoy-original-dst-host: nonsense"])
            .status(503),
        hit("bound", "3.9 upstream bind", "/bound").status(200),
        hit("alt_stat_name", "3.1 alt_stat_name", "/alt").status(200),
        hit("maintenance", "2.10 maintenance mode", "/maintained").status(503),
        hit("refused", "2.10 connect failed", "/dead").status(503),
        get("proper_case_upstream", "2.1 header_key_format", "in", "/h1_case", &["x-ab: c"]).status(200),
    ]
}

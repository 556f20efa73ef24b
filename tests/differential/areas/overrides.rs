//! Reference 3.5: `override_host`, requests that say which host they go to. Without a word from them the first priority's
//! one host, `up`, is chosen.

use std::fmt::Write as _;

use super::{clusters, routes, send};
use crate::manifest::{Area, Case, get};
use crate::support::bootstrap::cluster;
use crate::support::upstream::Act;

/// The routes: name, cluster, what is asked for (`x-to`), more fields of the route's action.
const ROUTES: &[(&str, &str, &str, &str)] = &[
    ("unasked", "over", "", ""),
    ("second", "over", "127.0.0.1:${UP2}", ""),
    ("nobody", "over", "127.0.0.9:1", ""),
    ("nonsense", "over", "a b,, ,[", ""),
    ("list", "over", "127.0.0.9:1 , 127.0.0.1:${UP2},127.0.0.1:${UP}", ""),
    ("dead", "over", "127.0.0.1:${DEAD}", ""),
    ("dead_then_second", "over", "127.0.0.1:${DEAD},127.0.0.1:${UP2}", "retry_policy: {retry_on: connect-failure}"),
    ("dead_then_chosen", "over", "127.0.0.1:${DEAD}", "retry_policy: {retry_on: connect-failure}"),
    (
        "same_again",
        "over",
        "127.0.0.1:${UP2},127.0.0.1:${UP2}",
        r#"retry_policy: {retry_on: 5xx, host_selection_retry_max_attempts: 5, retry_host_predicate: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}"#,
    ),
    ("failed", "failed", "127.0.0.1:${UP}", ""),
    ("failed_unasked", "failed", "", ""),
    ("noted", "noted", "127.0.0.1:${UP2}", ""),
    ("noted_chosen", "noted", "", ""),
    ("noted_dead", "noted", "127.0.0.1:${DEAD}", ""),
    ("noted_again", "noted", "127.0.0.1:${DEAD}", "retry_policy: {retry_on: connect-failure}"),
    ("by_metadata", "by_metadata", "127.0.0.1:${UP2}", ""),
    ("two_headers", "two_headers", "127.0.0.1:${UP2}", ""),
    ("ring", "over_ring", "127.0.0.1:${UP2}", "hash_policy: [{header: {header_name: x-key}}]"),
    ("subset", "over_subset", "127.0.0.1:${UP2}", "metadata_match: {filter_metadata: {envoy.lb: {v: a}}}"),
    ("subset_unasked", "over_subset", "", "metadata_match: {filter_metadata: {envoy.lb: {v: a}}}"),
    ("aggregate", "aggregate", "127.0.0.1:${UP2}", ""),
    ("mirrored", "up", "127.0.0.1:${UP2}", "request_mirror_policies: [{cluster: over}]"),
    ("weighed", "over", "127.0.0.1:${UP2}", "prefix_rewrite: /new"),
];

const HEADER: &str = "override_host_sources: [{header: x-to}]";
const ROUND_ROBIN: &str =
    r#"{"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}"#;

/// Endpoints in two priorities: `up`, and the others. Where the first one fails, the choice among the others is to be one.
fn hosts(first: &str) -> String {
    let host = |port: &str, more: &str| {
        format!("{{{more} endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}")
    };
    let dead = if first.is_empty() { host("${DEAD}", "") } else { String::new() };
    let metadata = "metadata: {filter_metadata: {envoy.lb: {v: a}}},";
    format!(
        "endpoints: [{{lb_endpoints: [{}]}}, {{priority: 1, lb_endpoints: [{}, {}]}}]",
        host("${UP}", &format!("{first}{metadata}")),
        host("${UP2}", ""),
        dead
    )
}

fn over(name: &str, fields: &str, fallback: &str, first: &str) -> String {
    let policy = format!(
        r#"load_balancing_policy: {{policies: [{{typed_extension_config: {{name: o, typed_config: {{"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost, {fields}, fallback_policy: {{policies: [{{typed_extension_config: {{name: f, typed_config: {fallback}}}}}]}}}}}}}}]}}"#
    );
    cluster(name, &[], &format!("load_assignment: {{cluster_name: {name}, {}}}, {policy}", hosts(first)))
}

/// The area.
pub fn area() -> Area {
    let mut list = String::new();
    for (name, cluster, asked, more) in ROUTES {
        let headers = if asked.is_empty() {
            String::new()
        } else {
            format!(r#"request_headers_to_add: [{{header: {{key: x-to, value: "{asked}"}}}}],"#)
        };
        let _ = write!(
            list,
            r#"{{match: {{path_separated_prefix: "/{name}"}}, route: {{cluster: {cluster}, {more}}}, {headers} response_headers_to_add: [{{header: {{key: x-chosen, value: "%DYNAMIC_METADATA(lb:host)%"}}}}, {{header: {{key: x-space, value: "%DYNAMIC_METADATA(lb)%"}}}}]}},"#
        );
    }
    let list = list.replace(", }", "}");
    let noted = format!("{HEADER}, selected_host_key: {{key: lb, path: [{{key: host}}]}}");
    let by_metadata = "override_host_sources: [{metadata: {key: lb, path: [{key: host}, {key: name}]}}, {header: x-to}], \
                       selected_host_key: {key: lb, path: [{key: host}, {key: name}]}";
    let ring = ROUND_ROBIN.replace("round_robin.v3.RoundRobin", "ring_hash.v3.RingHash");
    let subset = ROUND_ROBIN.replace("round_robin.v3.RoundRobin", "subset.v3.Subset").replace(
        '}',
        &format!(
            ", subset_selectors: [{{keys: [v]}}], subset_lb_policy: {{policies: [{{typed_extension_config: {{name: s, \
             typed_config: {ROUND_ROBIN}}}}}]}}}}"
        ),
    );
    let aggregate = cluster(
        "aggregate",
        &[],
        r#"lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.aggregate, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [noted]}}, load_assignment: {}"#,
    )
    .replace(", load_assignment: {}", "");
    let own = [
        over("over", HEADER, ROUND_ROBIN, ""),
        over("failed", HEADER, ROUND_ROBIN, "health_status: UNHEALTHY,"),
        over("noted", &noted, ROUND_ROBIN, ""),
        over("by_metadata", by_metadata, ROUND_ROBIN, ""),
        over("two_headers", "override_host_sources: [{header: x-other}, {header: x-to}]", ROUND_ROBIN, ""),
        over("over_ring", HEADER, &ring, ""),
        over("over_subset", HEADER, &subset, ""),
        aggregate,
    ];
    Area {
        name: "overrides",
        listeners: vec![routes("plain", &list)],
        clusters: clusters().into_iter().chain(own).collect(),
        more: "",
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let row = "3.5 override_host";
    let failed = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    let mut cases: Vec<Case> = ROUTES
        .iter()
        .map(|(name, ..)| get(name, row, "plain", &format!("/{name}"), &[]))
        .map(|case| match case.name {
            "same_again" => case.acts(vec![Act::Request, send(failed)]),
            _ => case,
        })
        .collect();
    cases.extend([
        get("asked by the client", row, "plain", "/unasked", &["x-to: 127.0.0.9:1"]),
        get("other header first", row, "plain", "/two_headers", &["x-other: 127.0.0.9:1"]),
        get("appended to the client's", row, "plain", "/second", &["x-to: 127.0.0.9:1"]),
    ]);
    cases
}

//! Reference 5.7: statistics that route tables ask for (virtual clusters, routes with a prefix), and the copies of a
//! cluster's responses by origin.

use std::time::Duration;

use super::retries::answers;
use super::{clusters, routed, upstream};
use crate::manifest::{Area, Case, case, get, h2};
use crate::support::bootstrap::TO_UP;
use crate::support::h2_client::H2Request;
use crate::support::upstream::Act;

const ROW: &str = "5.7 vhost";

/// The area.
pub fn area() -> Area {
    let host = r#"{name: v, domains: ["*"], virtual_clusters: [
        {name: first, headers: [{name: ":path", string_match: {prefix: /a}}]},
        {name: posted, headers: [{name: ":method", string_match: {exact: POST}}, {name: x-b, present_match: true}]}],
        routes: [
        {match: {prefix: /own}, stat_prefix: own, route: {cluster: up, prefix_rewrite: /a}},
        {match: {prefix: /a/short}, stat_prefix: short, route: {cluster: up, timeout: 0.06s}},
        {match: {prefix: /dead}, stat_prefix: dead, route: {cluster: dead}},
        {match: {prefix: /empty}, stat_prefix: empty, route: {cluster: empty}},
        {match: {prefix: /gone}, stat_prefix: gone, route: {cluster_header: x-none}},
        {match: {prefix: /again}, stat_prefix: again, route: {cluster: up, retry_policy: {retry_on: 5xx}}},
        {match: {prefix: /full}, stat_prefix: full, route: {cluster: full, retry_policy: {retry_on: 5xx}}},
        {match: {prefix: /direct}, stat_prefix: direct, direct_response: {status: 200}},
        {match: {prefix: /h2}, stat_prefix: h2, route: {cluster: h2}},
        {match: {prefix: /zoned}, route: {cluster: zoned}},
        {match: {prefix: /}, route: {cluster: up}}]}"#
        .replace('\n', "");
    let log = |name: &str| {
        format!(
            r#"access_log: [{{name: file, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "${{DIR}}/{name}.log", log_format: {{text_format_source: {{inline_string: "%REQ(:PATH)% %VIRTUAL_CLUSTER_NAME% %RESPONSE_CODE%\n"}}}}}}}}]"#
        )
    };
    let silent = r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, dynamic_stats: false}}]"#;
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    clusters.push(upstream("full", "${UP}", "circuit_breakers: {thresholds: [{max_retries: 0}]}"));
    clusters.push(upstream("zoned", "${UP}", "").replace(
        "lb_endpoints: [{",
        "locality: {zone: there}, lb_endpoints: [{metadata: {filter_metadata: {envoy.lb: {canary: true}}}, ",
    ));
    Area {
        name: "scopes",
        more: "node: {id: node, cluster: c, locality: {zone: here}}",
        listeners: vec![
            routed("hosts", &log("hosts"), &host),
            routed("silent", silent, &host),
            routed("canaries", "", TO_UP),
        ],
        clusters,
        cases: cases(),
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";

fn cases() -> Vec<Case> {
    let on = |name: &'static str, path: &'static str| get(name, ROW, "hosts", path, &[]);
    vec![
        on("first", "/a").status(200),
        on("other", "/b").status(200),
        on("rewritten", "/own").status(200),
        on("dead", "/dead").status(503),
        on("empty", "/empty").status(503),
        on("no cluster", "/gone").status(503),
        on("direct", "/direct").status(200),
        on("to HTTP/2", "/h2").status(200),
        on("zoned", "/zoned").status(200),
        on("an error", "/a").reply(FAILED).status(500),
        on("again", "/again").upstream(answers(&[FAILED, OK])).status(200),
        on("again in vain", "/again").upstream(answers(&[FAILED, FAILED])).status(500),
        on("again, but full", "/full").upstream(answers(&[FAILED, OK])).status(500),
        on("cut off", "/a").acts(vec![Act::Close]).status(503),
        on("late", "/a/short").acts(vec![Act::Pause(Duration::from_millis(300))]).status(504),
        get("of both, the first", ROW, "hosts", "/a", &["x-b: 1"]).status(200),
        case("posted", ROW, "hosts", "POST /z HTTP/1.1\r\nhost: a\r\nx-b: 1\r\ncontent-length: 1\r\n\r\nx").status(200),
        case("not posted", ROW, "hosts", "POST /z HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").status(200),
        h2("from HTTP/2", ROW, "hosts", vec![H2Request::get("http://a/own")]),
        get("silent", "5.7 dynamic_stats", "silent", "/a", &[]).status(200),
        get("silent failure", "5.7 dynamic_stats", "silent", "/dead", &[]).status(503),
        get("a canary by its word", "5.7 canary", "canaries", "/", &[])
            .reply("HTTP/1.1 200 OK\r\nx-envoy-upstream-canary: true\r\ncontent-length: 0\r\n\r\n")
            .status(200),
        get("no canary by its word", "5.7 canary", "canaries", "/", &[])
            .reply("HTTP/1.1 200 OK\r\nx-envoy-upstream-canary: false\r\ncontent-length: 0\r\n\r\n")
            .status(200),
        get("inside", "5.7 internal", "canaries", "/", &["x-envoy-internal: true"]).status(200),
        get("another name", "5.7 alt_stat_name", "canaries", "/", &["x-envoy-upstream-alt-stat-name: own"]).status(200),
    ]
}

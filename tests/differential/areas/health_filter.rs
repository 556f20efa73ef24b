//! Reference 2.7: `envoy.filters.http.health_check`, whose answers are this proxy's own health.

use super::{clusters, routed};
use crate::manifest::{Area, Case, Step, case, get, h2, request, steps};
use crate::support::bootstrap::cluster;
use crate::support::h2_client::H2Request;

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// `http_filters` with health checks of these settings before the router, by name.
fn chain(filters: &[(&str, &str)]) -> String {
    let filters: String = filters
        .iter()
        .map(|(name, settings)| {
            format!(r#"{{name: {name}, typed_config: {{"@type": {TYPE}.health_check.v3.HealthCheck, {settings}}}}}, "#)
        })
        .collect();
    format!(r#"http_filters: [{filters}{{name: router, typed_config: {{"@type": {TYPE}.router.v3.Router}}}}]"#)
}

/// Asks this path for whether so many hosts of a cluster are healthy.
fn percent(path: &str, clusters: &str) -> String {
    format!("pass_through_mode: false, cluster_min_healthy_percentages: {{{clusters}}}, {}", matches(path))
}

fn matches(path: &str) -> String {
    format!("headers: [{{name: ':path', string_match: {{exact: {path}}}}}]")
}

/// The area.
pub fn area() -> Area {
    let own = |path: &str| format!("pass_through_mode: false, {}", matches(path));
    let passes = |path: &str, more: &str| format!("pass_through_mode: true, {more}{}", matches(path));
    let all = r#"{name: all, domains: ["*"], response_headers_to_add: [{header: {key: x-route, value: added}}], virtual_clusters: [{name: vc, headers: [{name: ':path', string_match: {prefix: /}}]}], routes: [{match: {prefix: /off}, route: {cluster: up}, typed_per_filter_config: {own: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}, {match: {prefix: /}, route: {cluster: up}}]}"#;
    let log = r#"access_log: [{name: file, filter: {not_health_check_filter: {}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "${DIR}/others.log"}}]"#;
    let replies = r#"local_reply_config: {mappers: [{filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 503, runtime_key: none}}}}, status_code: 530, body: {inline_string: sick}}]}"#;
    let listeners = vec![
        routed("own", &chain(&[("own", &own("/hz"))]), all),
        routed("logged", &format!("{}, {log}", chain(&[("own", &own("/hz"))])), all),
        routed("mapped", &format!("{}, {replies}", chain(&[("own", &percent("/hz", "missing: {value: 1}"))])), all),
        routed("every", &chain(&[("own", "pass_through_mode: false")]), all),
        routed(
            "two_headers",
            &chain(&[(
                "own",
                "pass_through_mode: false, headers: [{name: ':path', string_match: {prefix: /hz}}, {name: x-check, present_match: true}]",
            )]),
            all,
        ),
        routed("passes", &chain(&[("a", &passes("/hz", "")), ("b", &own("/b"))]), all),
        // For as long as any case lasts.
        routed("cached", &chain(&[("own", &passes("/hz", "cache_time: 1000s, "))]), all),
        routed("cached_sick", &chain(&[("own", &passes("/hz", "cache_time: 1000s, "))]), all),
        routed("cached_degraded", &chain(&[("own", &passes("/hz", "cache_time: 1000s, "))]), all),
        routed("cached_grpc", &chain(&[("own", &passes("/hz", "cache_time: 1000s, "))]), all),
        routed(
            "clusters",
            &chain(&[
                ("half", &percent("/half", "half: {value: 50}")),
                ("more", &percent("/more", "half: {value: 51}")),
                ("fraction", &percent("/fraction", "half: {value: 50.5}")),
                ("degraded", &percent("/degraded", "degraded: {value: 50}")),
                ("draining", &percent("/draining", "draining: {value: 1}")),
                ("empty", &percent("/empty", "empty: {value: 1}")),
                ("empty_zero", &percent("/empty/zero", "empty: {value: 0}")),
                ("missing", &percent("/missing", "missing: {value: 0}")),
                ("all", &percent("/all", "half: {value: 10}, up: {value: 100}")),
                ("zero", &percent("/zero", "half: {}")),
            ]),
            all,
        ),
    ];
    let hosts = |name: &str, statuses: &[&str]| {
        let host = |(n, status): (usize, &&str)| {
            format!(
                "{{health_status: {status}, endpoint: {{address: {{socket_address: {{address: 127.0.0.{n}, port_value: 1}}}}}}}}"
            )
        };
        let hosts: Vec<String> = statuses.iter().enumerate().map(host).collect();
        cluster(
            name,
            &[],
            &format!(
                "load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}",
                hosts.join(", ")
            ),
        )
    };
    let mut clusters = clusters();
    clusters.extend([
        hosts("half", &["HEALTHY", "UNHEALTHY"]),
        hosts("degraded", &["DEGRADED", "UNHEALTHY"]),
        hosts("draining", &["DRAINING"]),
        hosts("empty", &[]),
    ]);
    Area { name: "health_filter", listeners, clusters, more: "node: {id: node, cluster: mine}", cases: cases() }
}

fn cases() -> Vec<Case> {
    let row = "2.7 health_check";
    let plain = |name, listener, path: &str| get(name, row, listener, path, &[]);
    let twice = |name, listener, lines: &[&str]| {
        let ask = || Step::Send(request("GET", "/hz", lines));
        steps(name, row, listener, vec![ask(), Step::Responses(1), ask(), Step::Responses(2)])
    };
    let by_method = |name, method: &'static str, lines: &[&str], body: &str| {
        case(name, row, "own", [request(method, "/hz", lines), body.as_bytes().to_vec()].concat())
    };
    let mut cases = vec![
        plain("well", "own", "/hz"),
        plain("another path", "own", "/other"),
        plain("with a query", "own", "/hz?a"),
        plain("disabled by the route", "own", "/off"),
        plain("not logged", "logged", "/hz"),
        plain("logged", "logged", "/other"),
        plain("mapped", "mapped", "/hz"),
        plain("every request", "every", "/anything"),
        get("every header", row, "two_headers", "/hz/1", &["x-check: 1"]),
        plain("one header of two", "two_headers", "/hz/1"),
        case("head", row, "own", request("HEAD", "/hz", &[])),
        by_method("post", "POST", &["content-length: 3"], "abc"),
        by_method("post chunked", "POST", &["transfer-encoding: chunked"], "1\r\na\r\n0\r\n\r\n"),
        by_method("post of nothing", "POST", &["content-length: 0"], ""),
        by_method("post that is none", "POST", &["transfer-encoding: chunked"], "z\r\n"),
        get("grpc", row, "own", "/hz", &["content-type: application/grpc"]),
        steps(
            "slow body",
            row,
            "own",
            vec![
                Step::Send(request("POST", "/hz", &["content-length: 4"])),
                Step::Pause(std::time::Duration::from_millis(100)),
                Step::Send(b"abcd".to_vec()),
                Step::Responses(1),
            ],
        ),
        steps(
            "cut body",
            row,
            "own",
            vec![Step::Send(request("POST", "/hz", &["content-length: 4"])), Step::HalfClose, Step::End],
        ),
        case("refused before", row, "own", b"GET /hz HTTP/1.1\r\n\r\n".to_vec()),
        plain("passes", "passes", "/hz"),
        plain("passes behind", "passes", "/b"),
        plain("passes in error", "passes", "/hz").reply("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned()),
        twice("cached", "cached", &[]),
        twice("cached in error", "cached_sick", &[])
            .reply("HTTP/1.1 404 No\r\nx-a: b\r\ncontent-length: 2\r\n\r\nno".to_owned()),
        twice("cached degraded", "cached_degraded", &[])
            .reply("HTTP/1.1 200 OK\r\nx-envoy-degraded: yes\r\ncontent-length: 0\r\n\r\n".to_owned()),
        twice("cached grpc", "cached_grpc", &["content-type: application/grpc"]),
        h2("by h2", row, "own", vec![H2Request::get("http://test/hz")]),
        h2("by h2 with a body", row, "own", vec![H2Request::post("http://test/hz", "abc")]),
    ];
    for path in ["half", "more", "fraction", "degraded", "draining", "empty", "empty/zero", "missing", "all", "zero"] {
        cases.push(plain(path, "clusters", &format!("/{path}")));
    }
    cases
}

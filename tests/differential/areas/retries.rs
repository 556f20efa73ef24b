//! Reference 2.8: retries, and the timeouts of 2.7 where a retry follows.

use std::time::Duration;

use h2::Reason;

use super::{clusters, routed, upstream};
use crate::manifest::{Area, Case, Step, case, get, h2, request, steps};
use crate::support::bootstrap::{LOG_FORMAT, access_log, http2 as http2_options, protocol};
use crate::support::h2_client::H2Request;
use crate::support::h2_upstream::Behaviour;
use crate::support::upstream::{Act, Script};

/// The routes: name, `retry_policy`, other fields of the route's action.
const POLICIES: &[(&str, &str, &str)] = &[
    ("none", "", "cluster: up"),
    ("five", "retry_on: 5xx", "cluster: up"),
    ("gateway", "retry_on: gateway-error", "cluster: up"),
    ("reset", "retry_on: reset", "cluster: up"),
    ("before", "retry_on: reset-before-request", "cluster: up"),
    ("connect", "retry_on: connect-failure", "cluster: up"),
    ("limited", "retry_on: envoy-ratelimited", "cluster: up"),
    ("conflict", "retry_on: retriable-4xx", "cluster: up"),
    ("codes", "retry_on: retriable-status-codes, retriable_status_codes: [418, 200]", "cluster: up"),
    (
        "marked",
        r#"retry_on: retriable-headers, retriable_headers: [{name: x-again}, {name: ":status", string_match: {exact: "404"}}]"#,
        "cluster: up",
    ),
    ("post3", "retry_on: http3-post-connect-failure", "cluster: up"),
    ("unknown", r#"retry_on: "5xx, nonsense""#, "cluster: up"),
    ("nothing", "retry_on: nonsense", "cluster: up"),
    ("grpc", r#"retry_on: "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable""#, "cluster: up"),
    ("cancelled", "retry_on: cancelled", "cluster: up"),
    ("twice", "retry_on: 5xx, num_retries: 2", "cluster: up"),
    ("thrice", "retry_on: 5xx, num_retries: 3", "cluster: up"),
    ("never", "retry_on: 5xx, num_retries: 0", "cluster: up"),
    ("only_marked", "retry_on: 5xx, retriable_request_headers: [{name: x-retry-me}]", "cluster: up"),
    ("dead_five", "retry_on: 5xx, num_retries: 2", "cluster: dead"),
    ("dead_connect", "retry_on: connect-failure", "cluster: dead"),
    ("dead_before", "retry_on: reset-before-request", "cluster: dead"),
    ("dead_refused", "retry_on: refused-stream", "cluster: dead"),
    ("try_five", "retry_on: 5xx, per_try_timeout: 0.06s", "cluster: up"),
    ("try_reset", "retry_on: reset, per_try_timeout: 0.06s", "cluster: up"),
    ("try_connect", "retry_on: connect-failure, per_try_timeout: 0.06s", "cluster: up"),
    ("quiet", "retry_on: reset, per_try_idle_timeout: 0.06s", "cluster: up"),
    ("late_idle", "retry_on: reset, per_try_timeout: 0.05s, per_try_idle_timeout: 0.1s", "cluster: up, timeout: 0.3s"),
    ("short", "retry_on: 5xx, num_retries: 9", "cluster: up, timeout: 0.12s"),
    ("slow_back", "retry_on: 5xx, retry_back_off: {base_interval: 60s}", "cluster: up, timeout: 0.1s"),
    ("aged", "retry_on: 5xx", "cluster: aged"),
    ("idle_out", "retry_on: 5xx", "cluster: up, idle_timeout: 0.1s"),
    ("lives_short", "retry_on: 5xx", "cluster: up, max_stream_duration: {max_stream_duration: 0.1s}"),
    (
        "asked",
        "retry_on: retriable-status-codes, retriable_status_codes: [429], rate_limited_retry_back_off: {reset_headers: [{name: retry-after}, {name: x-reset, format: UNIX_TIMESTAMP}], max_interval: 1s}",
        "cluster: up, timeout: 0s",
    ),
    ("no_retries", "retry_on: 5xx", "cluster: no_retries"),
    ("budget", "retry_on: 5xx", "cluster: budget"),
    ("recent", "retry_on: 5xx", "cluster: recent"),
    ("overflow", "retry_on: 5xx", "cluster: overflow"),
    (
        "predicates",
        r#"retry_on: 5xx, host_selection_retry_max_attempts: 3, retry_host_predicate: [{name: previous, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}, {name: canary, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate}}, {name: meta, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig, metadata_match: {filter_metadata: {envoy.lb: {a: b}}}}}]"#,
        "cluster: up",
    ),
    (
        "priorities",
        r#"retry_on: connect-failure, num_retries: 3, retry_priority: {name: previous, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 1}}"#,
        "cluster: priorities",
    ),
    ("same_priority", "retry_on: connect-failure, num_retries: 3", "cluster: priorities"),
    (
        "across",
        r#"retry_on: connect-failure, num_retries: 3, retry_priority: {name: previous, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 1}}"#,
        "cluster: across",
    ),
    ("same_member", "retry_on: connect-failure, num_retries: 3", "cluster: across"),
    ("by_cluster", "retry_on: retriable-4xx", "cluster: by_cluster"),
    ("h2_refused", "retry_on: refused-stream", "cluster: h2"),
    ("h2_reset", "retry_on: reset", "cluster: h2"),
    ("h2_connect", "retry_on: connect-failure", "cluster: h2"),
    ("h2_five", "retry_on: 5xx", "cluster: h2"),
    ("h2_grpc", "retry_on: unavailable", "cluster: h2"),
    ("h2_try", "retry_on: 5xx, per_try_timeout: 0.06s", "cluster: h2"),
    ("host", "retry_on: 5xx", "cluster: named, auto_host_rewrite: true, append_x_forwarded_host: true"),
    ("bytes", "retry_on: 5xx", "cluster: up"),
    (
        "hedged",
        "retry_on: 5xx, per_try_timeout: 0.06s",
        "cluster: up, timeout: 0s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    (
        "hedged_quiet",
        "retry_on: 5xx, per_try_idle_timeout: 0.06s",
        "cluster: up, timeout: 0s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    (
        "hedged_twice",
        "retry_on: 5xx, num_retries: 2, per_try_timeout: 0.06s",
        "cluster: up, timeout: 0s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    (
        "hedged_short",
        "retry_on: 5xx, per_try_timeout: 0.06s",
        "cluster: up, timeout: 0.3s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    (
        "hedged_never",
        "per_try_timeout: 0.06s",
        "cluster: up, timeout: 0.2s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    (
        "hedged_full",
        "retry_on: 5xx, per_try_timeout: 0.06s",
        "cluster: no_retries, timeout: 0s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    (
        "hedged_h2",
        "retry_on: 5xx, per_try_timeout: 0.06s",
        "cluster: h2, timeout: 0.3s, hedge_policy: {hedge_on_per_try_timeout: true}",
    ),
    ("goaway", "retry_on: refused-stream", "cluster: raw_h2"),
    ("goaway_reset", "retry_on: reset", "cluster: raw_h2"),
    ("goaway_connect", "retry_on: connect-failure", "cluster: raw_h2"),
];

/// The area.
pub fn area() -> Area {
    // The longer prefix first: it would otherwise be the shorter one's.
    let mut policies = POLICIES.to_vec();
    policies.sort_by_key(|(name, ..)| std::cmp::Reverse(name.len()));
    let routes: Vec<String> = policies
        .iter()
        .map(|(name, policy, action)| {
            let policy = if policy.is_empty() { String::new() } else { format!(", retry_policy: {{{policy}}}") };
            let more = match *name {
                "bytes" => "request_body_buffer_limit: 8,",
                "only_marked" => "request_headers_to_add: [{header: {key: x-retry-me, value: a}, append_action: OVERWRITE_IF_EXISTS}],",
                _ => "",
            };
            format!(r#"{{name: {name}, {more} match: {{prefix: "/{name}"}}, route: {{{action}{policy}}}}}"#)
        })
        .collect();
    let host = |more: &str| format!(r#"{{name: all, domains: ["*"], {more} routes: [{}]}}"#, routes.join(", "));
    let format = format!(
        "{LOG_FORMAT} tried=%UPSTREAM_HOSTS_ATTEMPTED% hosts=%UPSTREAM_HOST_NAME% \
         failure=%UPSTREAM_TRANSPORT_FAILURE_REASON%"
    );
    let log = |name: &str| format!("access_log: [{}]", access_log(name).replace(LOG_FORMAT, &format));
    let internal = "use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}";
    let router = r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}]"#;
    let counted = "include_request_attempt_count: true, include_attempt_count_in_response: true, include_is_timeout_retry_header: true,";
    let listeners = vec![
        routed("plain", &log("plain"), &host("")),
        routed("trusted", &format!("{internal}, {}", log("trusted")), &host(counted)),
        routed("silent", &format!("{router}, {}", log("silent")), &host("include_request_attempt_count: true,")),
        routed("host", &log("host"), &host("retry_policy: {retry_on: 5xx, num_retries: 2},")),
    ];
    let mut clusters = clusters();
    clusters.push(upstream("raw_h2", "${UP}", &http2_options()));
    let h1 = "explicit_http_config: {http_protocol_options: {}}";
    let two = "load_assignment: {cluster_name: priorities, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ${DEAD}}}}}]}, {priority: 1, lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ${UP}}}}}]}]}";
    let named = "load_assignment: {cluster_name: named, endpoints: [{lb_endpoints: [{endpoint: {hostname: the.host, address: {socket_address: {address: 127.0.0.1, port_value: 0}}}}]}]}";
    clusters.extend([
        upstream(
            "aged",
            "${UP}",
            &protocol(&format!("common_http_protocol_options: {{max_stream_duration: 0.06s}}, {h1}")),
        ),
        upstream("no_retries", "${UP}", "circuit_breakers: {thresholds: [{max_retries: 0}]}"),
        upstream(
            "budget",
            "${UP}",
            "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 0}, min_retry_concurrency: 1}}]}",
        ),
        upstream(
            "recent",
            "${UP}",
            "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 50}, min_retry_concurrency: 0, budget_interval: 3600s}}]}",
        ),
        upstream("overflow", "${UP}", "circuit_breakers: {thresholds: [{max_requests: 0}]}"),
        upstream("by_cluster", "${UP}", &protocol(&format!("retry_policy: {{retry_on: 5xx, num_retries: 2}}, {h1}"))),
        upstream("priorities", "", two),
        r#"{name: across, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.aggregate, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [dead, priorities, up2]}}}"#.to_owned(),
        upstream("named", "${UP}", named),
    ]);
    let cases =
        [responses(), grpc(), failures(), timeouts(), limits(), headers(), bodies(), http2(), hedged(), goaway()]
            .concat();
    Area { name: "retries", listeners, clusters, more: "", cases }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A response of this status with a body.
fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} So\r\ncontent-length: 4\r\n\r\nfail")
}

/// An upstream that gives these answers, one after the other, on one connection or on new ones; the last one for ever.
pub fn answers<S: AsRef<str>>(replies: &[S]) -> Script {
    let on_connection = |first: usize| {
        let answer = |reply: &S| [Act::Request, Act::Send(reply.as_ref().as_bytes().to_vec())];
        replies.iter().skip(first).flat_map(answer).collect()
    };
    (0..replies.len()).map(on_connection).collect()
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// What each condition makes of each status.
fn responses() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, row) in [
        ("none", "2.8 no policy"),
        ("five", "2.8 5xx"),
        ("gateway", "2.8 gateway-error"),
        ("reset", "2.8 reset"),
        ("connect", "2.8 connect-failure"),
        ("conflict", "2.8 retriable-4xx"),
        ("codes", "2.8 retriable-status-codes"),
        ("marked", "2.8 retriable-headers"),
        ("post3", "2.8 http3-post-connect-failure"),
        ("unknown", "2.8 unknown condition"),
        ("nothing", "2.8 unknown condition"),
    ] {
        for code in [404, 409, 418, 500, 502, 503, 504, 599] {
            let path = leaked(format!("/{name}"));
            let title = leaked(format!("{name} {code}"));
            cases.push(get(title, row, "plain", path, &[]).upstream(answers(&[status(code), OK.to_owned()])));
        }
    }
    let limited = "HTTP/1.1 503 No\r\nx-envoy-ratelimited: true\r\ncontent-length: 0\r\n\r\n";
    let overloaded = "HTTP/1.1 503 No\r\nx-envoy-overloaded: true\r\ncontent-length: 0\r\n\r\n";
    let again = "HTTP/1.1 200 OK\r\nx-again: please\r\ncontent-length: 3\r\n\r\nfew";
    let bare = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    let on = |name, row, path: &str, replies: &[&str]| get(name, row, "plain", path, &[]).upstream(answers(replies));
    let chunked = "HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfail\r\n0\r\n\r\n";
    cases.extend([
        on("ratelimited five", "2.8 envoy-ratelimited", "/five", &[limited, OK]).status(503),
        on("ratelimited", "2.8 envoy-ratelimited", "/limited", &[limited, OK]).status(200),
        on("not ratelimited", "2.8 envoy-ratelimited", "/limited", &[bare, OK]).status(503),
        on("overloaded", "2.8 5xx", "/five", &[overloaded, OK]).status(200),
        on("marked again", "2.8 retriable-headers", "/marked", &[again, OK]).status(200),
        on("bare then ok", "2.8 5xx", "/five", &[bare, OK]),
        get("bare kept", "2.8 5xx", "plain", "/five", &[]).acts(vec![
            Act::Request,
            Act::Send(bare.into()),
            Act::Request,
            Act::Send(OK.into()),
        ]),
        on("chunked then ok", "2.8 5xx", "/five", &[chunked, OK]).status(200),
        get("endless then ok", "2.8 5xx", "plain", "/five", &[])
            .upstream(vec![
                vec![Act::Request, Act::Send(b"HTTP/1.1 503 No\r\ncontent-length: 999\r\n\r\nabc".to_vec()), Act::Hold],
                vec![Act::Request, Act::Send(OK.into())],
            ])
            .status(200),
        on(
            "continue, then 503",
            "2.8 informational",
            "/five",
            &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", OK],
        ),
        on(
            "hints, then 503",
            "2.8 informational",
            "/five",
            &["HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", OK],
        ),
        case("head request", "2.8 5xx", "plain", request("HEAD", "/five", &[])).methods(&["HEAD"]).upstream(answers(
            &["HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"],
        )),
        get("virtual host", "2.8 route > vhost", "host", "/none", &[])
            .upstream(answers(&[status(503), status(503), OK.to_owned()]))
            .status(200),
        get("route before virtual host", "2.8 route > vhost", "host", "/never", &[])
            .upstream(answers(&[status(503), OK.to_owned()]))
            .status(503),
        get("cluster before route", "2.8 HttpProtocolOptions.retry_policy", "plain", "/by_cluster", &[])
            .upstream(answers(&[status(503), status(503), OK.to_owned()]))
            .status(200),
        get("cluster instead of route", "2.8 HttpProtocolOptions.retry_policy", "plain", "/by_cluster", &[])
            .upstream(answers(&[status(409), OK.to_owned()]))
            .status(409),
    ]);
    cases
}

/// gRPC statuses of responses that are a head alone, and of others.
fn grpc() -> Vec<Case> {
    let mut cases = Vec::new();
    for code in [0, 1, 2, 4, 8, 13, 14, 16] {
        let first = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {code}\r\ncontent-length: 0\r\n\r\n"
        );
        for path in ["/grpc", "/cancelled"] {
            let title = leaked(format!("grpc {path} {code}"));
            let lines = ["content-type: application/grpc"];
            cases.push(
                get(title, "2.8 gRPC conditions", "plain", path, &lines)
                    .upstream(answers(&[first.clone(), OK.to_owned()])),
            );
        }
    }
    let odd = "HTTP/1.1 200 OK\r\ngrpc-status: 14x\r\ncontent-length: 0\r\n\r\n";
    let plus = "HTTP/1.1 200 OK\r\ngrpc-status: +14\r\ncontent-length: 0\r\n\r\n";
    let trailers = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: 14\r\n\r\n";
    for (name, first) in [("grpc odd status", odd), ("grpc plus", plus), ("grpc in trailers", trailers)] {
        cases.push(get(name, "2.8 gRPC conditions", "plain", "/grpc", &[]).upstream(answers(&[first, OK])));
    }
    cases
}

/// Tries that end without a response.
fn failures() -> Vec<Case> {
    let mut cases = Vec::new();
    let ok = || vec![Act::Request, Act::Send(OK.into())];
    let ways: [(&str, Vec<Act>); 5] = [
        ("closed", vec![Act::Request, Act::Close]),
        ("reset", vec![Act::Request, Act::Reset]),
        ("half head", vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncont".to_vec()), Act::Close]),
        ("garbage", vec![Act::Request, Act::Send(b"garbage\r\n\r\n".to_vec()), Act::Close]),
        ("at once", vec![Act::Close]),
    ];
    for (way, acts) in &ways {
        for name in ["none", "five", "gateway", "reset", "before", "connect", "conflict", "codes"] {
            let (title, path) = (leaked(format!("{way} {name}")), leaked(format!("/{name}")));
            cases.push(get(title, "2.8 resets", "plain", path, &[]).upstream(vec![acts.clone(), ok()]));
        }
    }
    let closed = || vec![Act::Request, Act::Close];
    for name in ["dead_five", "dead_connect", "dead_before", "dead_refused"] {
        cases.push(get(name, "2.8 connect-failure", "plain", leaked(format!("/{name}")), &[]).status(503));
    }
    cases.extend([
        get("closed for ever", "2.8 exhausted", "plain", "/twice", &[]).upstream(vec![closed()]).status(503),
        get("closed, then 503", "2.8 exhausted", "plain", "/five", &[])
            .upstream(vec![closed(), vec![Act::Request, Act::Send(status(503).into())]])
            .status(503),
        get("503, then closed", "2.8 exhausted", "plain", "/five", &[])
            .upstream(vec![vec![Act::Request, Act::Send(status(503).into())], closed()])
            .status(503),
        get("503, then cut off", "2.8 response begun", "plain", "/five", &[]).upstream(vec![
            vec![Act::Request, Act::Send(status(503).into())],
            vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Act::Close],
        ]),
        get("cut off", "2.8 response begun", "plain", "/five", &[]).upstream(vec![
            vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Act::Close],
            ok(),
        ]),
        get("priorities", "2.8 previous_priorities", "plain", "/priorities", &[]).status(200),
        get("same priority", "2.8 previous_priorities", "plain", "/same_priority", &[]).status(503),
        get("priorities of several clusters", "2.8 previous_priorities", "plain", "/across", &[]).status(200),
        get("same member", "2.8 previous_priorities", "plain", "/same_member", &[]).status(503),
        get("predicates", "2.8 retry_host_predicate", "plain", "/predicates", &[])
            .upstream(answers(&[status(503), OK.to_owned()]))
            .status(200),
        steps(
            "client leaves while waiting",
            "2.8 back-off",
            "plain",
            vec![Step::Send(request("GET", "/slow_back", &[])), Step::Pause(Duration::from_millis(40)), Step::Reset],
        )
        .upstream(answers(&[status(503)])),
        get("host rewritten again", "2.8 auto_host_rewrite", "plain", "/host", &[])
            .upstream(answers(&[status(503), OK.to_owned()]))
            .status(200),
    ]);
    cases
}

/// Time limits of tries, and of all of them together.
fn timeouts() -> Vec<Case> {
    let silent = || vec![Act::Request, Act::Hold];
    let ok = || vec![Act::Request, Act::Send(OK.into())];
    let begun =
        || vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Act::Hold];
    let plain = |name, row, path: &str, script: Script| get(name, row, "plain", path, &[]).upstream(script);
    vec![
        plain("try five", "2.7 per_try_timeout", "/try_five", vec![silent(), ok()]).status(200),
        plain("try five for ever", "2.7 per_try_timeout", "/try_five", vec![silent()]).status(504),
        plain("try reset", "2.7 per_try_timeout", "/try_reset", vec![silent(), ok()]).status(200),
        plain("try connect", "2.7 per_try_timeout", "/try_connect", vec![silent(), ok()]).status(504),
        plain("try quiet", "2.7 per_try_idle_timeout", "/quiet", vec![silent(), ok()]).status(200),
        plain("try quiet for ever", "2.7 per_try_idle_timeout", "/quiet", vec![silent()]).status(504),
        plain("try quiet after head", "2.7 per_try_idle_timeout", "/quiet", vec![begun(), ok()]),
        plain("try quiet after head and its limit", "2.7 per_try_idle_timeout", "/late_idle", vec![begun(), ok()]),
        plain("global while trying", "2.7 global + per-try", "/short", vec![silent()]).status(504),
        plain("global while waiting", "2.7 global + per-try", "/slow_back", answers(&[status(503)])).status(504),
        plain("aged", "2.10 upstream max stream duration", "/aged", vec![silent(), ok()]).status(200),
        plain("aged for ever", "2.10 upstream max stream duration", "/aged", vec![silent()]).status(504),
        get("is timeout retry", "2.3 x-envoy-is-timeout-retry", "trusted", "/try_five", &[])
            .upstream(vec![silent(), ok()])
            .status(200),
        get("is no timeout retry", "2.3 x-envoy-is-timeout-retry", "trusted", "/five", &[])
            .upstream(answers(&[status(503), OK.to_owned()]))
            .status(200),
        get("is quiet retry", "2.3 x-envoy-is-timeout-retry", "trusted", "/quiet", &[])
            .upstream(vec![silent(), ok()])
            .status(200),
    ]
}

/// How many retries there may be.
fn limits() -> Vec<Case> {
    let codes = |n: usize| -> Vec<String> { (0..n).map(|_| status(503)).chain([OK.to_owned()]).collect() };
    let on = |name, row, path: &str, n| get(name, row, "plain", path, &[]).upstream(answers(&codes(n)));
    let asked = |name, value: &str| {
        let first = format!("HTTP/1.1 429 No\r\n{value}\r\ncontent-length: 0\r\n\r\n");
        get(name, "2.8 rate_limited_retry_back_off", "plain", "/asked", &[]).upstream(answers(&[first, OK.to_owned()]))
    };
    vec![
        on("one allowed", "2.8 num_retries", "/five", 1).status(200),
        on("one exceeded", "2.8 num_retries", "/five", 2).status(503),
        on("two allowed", "2.8 num_retries", "/twice", 2).status(200),
        on("two exceeded", "2.8 num_retries", "/twice", 3).status(503),
        on("three allowed", "2.8 num_retries", "/thrice", 3).status(200),
        on("none allowed", "2.8 num_retries", "/never", 1).status(503),
        on("breaker", "3.6 max_retries", "/no_retries", 1).status(503),
        on("budget", "3.6 retry_budget", "/budget", 1).status(200),
        // The first request is half a retry, the second makes it a whole one.
        steps(
            "budget of an interval",
            "3.6 retry_budget",
            "plain",
            vec![
                Step::Send(request("GET", "/recent", &[])),
                Step::Responses(1),
                Step::Send(request("GET", "/recent", &[])),
                Step::Responses(2),
            ],
        )
        .upstream(vec![
            vec![Act::Request, Act::Send(status(503).into()), Act::Request, Act::Send(status(503).into())],
            vec![Act::Request, Act::Send(OK.into())],
        ])
        .status(200),
        on("overflow is not retried", "2.8 overflow", "/overflow", 0).status(503),
        asked("asked in seconds", "retry-after: 1").status(200),
        asked("asked too much", "retry-after: 7").status(200),
        asked("asked nonsense", "retry-after: soon").status(200),
        asked("asked nothing", "x-other: 1").status(200),
        asked("asked for zero", "retry-after: 0").status(200),
        asked("asked for the past", "x-reset: 1000").status(200),
        asked("asked for the future", "x-reset: 9999999999").status(200),
    ]
}

/// What trusted clients may ask for.
fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    let script = |n: usize, code| {
        let replies: Vec<String> = (0..n).map(|_| status(code)).chain([OK.to_owned()]).collect();
        answers(&replies)
    };
    for (name, path, code, lines) in [
        ("asks 5xx", "/none", 503, &["x-envoy-retry-on: 5xx"][..]),
        ("asks spaces", "/none", 503, &["x-envoy-retry-on:  reset , 5xx "]),
        ("asks nonsense", "/none", 503, &["x-envoy-retry-on: foo"]),
        ("asks more", "/conflict", 503, &["x-envoy-retry-on: 5xx"]),
        ("asks grpc in the other header", "/none", 503, &["x-envoy-retry-grpc-on: 5xx"]),
        ("asks twice", "/none", 503, &["x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"]),
        ("asks none", "/five", 503, &["x-envoy-max-retries: 0"]),
        ("asks nonsensically often", "/five", 503, &["x-envoy-max-retries: many"]),
        ("asks often alone", "/none", 503, &["x-envoy-max-retries: 3"]),
        (
            "asks codes",
            "/none",
            418,
            &["x-envoy-retry-on: retriable-status-codes", "x-envoy-retriable-status-codes: 400, 418,x"],
        ),
        ("asks more codes", "/codes", 405, &["x-envoy-retriable-status-codes: 405"]),
        ("asks codes alone", "/none", 418, &["x-envoy-retriable-status-codes: 418"]),
        (
            "asks headers",
            "/none",
            200,
            &["x-envoy-retry-on: retriable-headers", "x-envoy-retriable-header-names: content-length"],
        ),
        (
            "asks other headers",
            "/none",
            200,
            &["x-envoy-retry-on: retriable-headers", "x-envoy-retriable-header-names: x-a , x-b"],
        ),
        ("only for marked requests", "/only_marked", 503, &[]),
        ("no policy, counted", "/none", 503, &[]),
        ("counted", "/twice", 503, &[]),
    ] {
        cases.push(get(name, "2.8 request headers", "trusted", path, lines).upstream(script(1, code)));
    }
    let grpc = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n";
    cases.extend([
        get("asks grpc", "2.8 request headers", "trusted", "/none", &["x-envoy-retry-grpc-on: cancelled, unavailable"])
            .upstream(answers(&[grpc, OK])),
        get(
            "asks grpc in the wrong header",
            "2.8 request headers",
            "trusted",
            "/none",
            &["x-envoy-retry-on: unavailable"],
        )
        .upstream(answers(&[grpc, OK])),
        get("asks from outside", "2.8 trusted only", "plain", "/none", &["x-envoy-retry-on: 5xx"])
            .upstream(script(1, 503))
            .status(503),
        get(
            "asks for long tries",
            "2.7 per_try_timeout",
            "trusted",
            "/five",
            &["x-envoy-upstream-rq-per-try-timeout-ms: 60"],
        )
        .upstream(vec![vec![Act::Request, Act::Hold], vec![Act::Request, Act::Send(OK.into())]])
        .status(200),
        get("counted to exhaustion", "2.3 x-envoy-attempt-count", "trusted", "/twice", &[])
            .upstream(answers(&[status(503)]))
            .status(503),
        get("counted to failure", "2.3 x-envoy-attempt-count", "trusted", "/dead_connect", &[]).status(503),
        get("not counted when idle", "2.3 x-envoy-attempt-count", "trusted", "/idle_out", &[])
            .upstream(vec![vec![Act::Request, Act::Hold]])
            .status(504),
        get("not counted when it takes too long", "2.3 x-envoy-attempt-count", "trusted", "/lives_short", &[])
            .upstream(vec![vec![Act::Request, Act::Hold]])
            .status(504),
    ]);
    cases
}

/// Requests with bodies.
fn bodies() -> Vec<Case> {
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let again = || answers(&[status(503), OK.to_owned()]);
    let chunked =
        "POST /five HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let trailers =
        "POST /five HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n";
    let at_head = || vec![Act::Head, Act::Send(status(503).into()), Act::Hold];
    let split = |path: &str, first: &str, rest: &str| {
        vec![
            Step::Send(
                format!(
                    "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{first}",
                    first.len() + rest.len()
                )
                .into_bytes(),
            ),
            Step::Pause(Duration::from_millis(120)),
            Step::Send(rest.as_bytes().to_vec()),
            Step::Responses(1),
        ]
    };
    let ok = || vec![Act::Request, Act::Send(OK.into())];
    vec![
        case("body", "2.8 body buffered", "plain", post("/five", "hello")).upstream(again()).status(200),
        case("body not retried", "2.8 body buffered", "plain", post("/five", "hello")).status(200),
        case("body chunked", "2.8 body buffered", "plain", chunked).upstream(again()).status(200),
        case(
            "body chunked and empty",
            "2.8 body buffered",
            "plain",
            "POST /five HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .upstream(again())
        .status(200),
        case("body with trailers", "2.8 body buffered", "plain", trailers).upstream(again()).status(200),
        case("body long", "2.8 body buffered", "plain", post("/five", &"x".repeat(200_000)))
            .upstream(again())
            .status(200),
        case("body at its limit", "2.8 request_body_buffer_limit", "plain", post("/bytes", "12345678"))
            .upstream(again())
            .status(200),
        case("body beyond its limit", "2.8 retry_or_shadow_abandoned", "plain", post("/bytes", "123456789"))
            .upstream(again())
            .status(503),
        case(
            "body beyond its limit fails to connect",
            "2.8 retry_or_shadow_abandoned",
            "plain",
            post("/bytes", "123456789"),
        )
        .upstream(vec![vec![Act::Close], ok()]),
        steps("body split", "2.8 body buffered", "plain", split("/five", "abc", "def")).upstream(again()).status(200),
        steps("body while waiting", "2.8 body buffered", "plain", split("/twice", "abc", "def"))
            .upstream(vec![at_head(), ok()])
            .status(200),
        steps("body too long while waiting", "2.8 retry buffer exceeded", "plain", split("/bytes", "abc", "defghijkl"))
            .upstream(vec![at_head(), ok()]),
        steps("body incomplete at the end", "2.8 exhausted", "plain", split("/never", "abc", "def"))
            .upstream(vec![at_head(), ok()]),
    ]
}

/// Streams of HTTP/2 upstreams.
fn http2() -> Vec<Case> {
    let row = "2.8 HTTP/2";
    let on = |name: &str, path: &str, behaviours: Behaviour| {
        get(leaked(name.to_owned()), row, "plain", path, &[]).h2_upstream(behaviours)
    };
    let mut cases = Vec::new();
    for (name, reason) in [
        ("refused", Reason::REFUSED_STREAM),
        ("cancel", Reason::CANCEL),
        ("protocol", Reason::PROTOCOL_ERROR),
        ("no error", Reason::NO_ERROR),
        ("internal", Reason::INTERNAL_ERROR),
    ] {
        for path in ["/h2_refused", "/h2_reset", "/h2_connect", "/h2_five"] {
            cases.push(on(&format!("h2 {name} {path}"), path, Behaviour::Reset(reason)));
        }
    }
    cases.extend([
        on("h2 grpc", "/h2_grpc", Behaviour::TrailersOnly(14)),
        on("h2 grpc in trailers", "/h2_grpc", Behaviour::Grpc(14)),
        on("h2 503", "/h2_five", Behaviour::Reply(503, vec![], "failed")),
        on("h2 bare 503", "/h2_five", Behaviour::Reply(503, vec![], "")),
        on("h2 stall", "/h2_try", Behaviour::Stall),
        on("h2 reset after head", "/h2_five", Behaviour::ResetAfterHead(Reason::CANCEL)),
        h2("from h2", row, "plain", vec![H2Request::post("http://test/h2_five", "hello")])
            .h2_upstream(Behaviour::Reply(503, vec![], "failed")),
        h2("from h2 to h1", row, "plain", vec![H2Request::post("http://test/five", "hello")])
            .upstream(answers(&[status(503), OK.to_owned()])),
        h2(
            "grpc from h2",
            row,
            "plain",
            vec![
                H2Request::post("http://test/h2_grpc", "hello")
                    .header("content-type", "application/grpc")
                    .header("te", "trailers"),
            ],
        )
        .h2_upstream(Behaviour::TrailersOnly(14)),
    ]);
    cases
}

/// Tries side by side.
fn hedged() -> Vec<Case> {
    let row = "2.8 hedge_on_per_try_timeout";
    let ms = |ms| Act::Pause(Duration::from_millis(ms));
    let say = |text: &str| Act::Send(text.as_bytes().to_vec());
    let silent = || vec![Act::Request, Act::Hold];
    let ok = || vec![Act::Request, say(OK)];
    let late = |text: &str| vec![Act::Request, ms(200), say(text)];
    let on = |name, path: &str, script: Script| get(name, row, "silent", path, &[]).upstream(script);
    let failed = status(503);
    vec![
        on("hedged: second wins", "/hedged", vec![silent(), ok()]).status(200),
        on("hedged: first wins", "/hedged", vec![late(OK), silent()]).status(200),
        on("hedged: second fails", "/hedged", vec![late(OK), vec![Act::Request, say(&failed)]]).status(200),
        on("hedged: second closes", "/hedged", vec![late(OK), vec![Act::Request, Act::Close]]).status(200),
        on("hedged: first fails", "/hedged", vec![late(&failed), vec![Act::Request, ms(300), say(OK)]]).status(200),
        on(
            "hedged: first closes",
            "/hedged",
            vec![vec![Act::Request, ms(150), Act::Close], vec![Act::Request, ms(300), say(OK)]],
        )
        .status(200),
        on("hedged: both fail", "/hedged", vec![late(&failed), vec![Act::Request, ms(300), say(&failed)]]).status(503),
        on(
            "hedged: both close",
            "/hedged",
            vec![vec![Act::Request, ms(150), Act::Close], vec![Act::Request, ms(300), Act::Close]],
        )
        .status(503),
        on("hedged: second says other things", "/hedged", vec![silent(), vec![Act::Request, say(&status(404))]])
            .status(404),
        on("hedged: third wins", "/hedged_twice", vec![silent(), silent(), ok()]).status(200),
        on("hedged: retried, then third wins", "/hedged_twice", vec![silent(), vec![Act::Request, say(&failed)], ok()])
            .status(200),
        on("hedged: quiet", "/hedged_quiet", vec![silent(), ok()]).status(200),
        on("hedged: for ever", "/hedged_short", vec![silent()]).status(504),
        on("hedged: second fails, first for ever", "/hedged_short", vec![silent(), vec![Act::Request, say(&failed)]])
            .status(504),
        on("hedged: not retried", "/hedged_never", vec![silent()]).status(504),
        on("hedged: no more retries", "/hedged_full", vec![late(OK)]).status(200),
        on("hedged: fast", "/hedged", vec![ok()]).status(200),
        on("hedged: fast failure", "/hedged", vec![vec![Act::Request, say(&failed)], ok()]).status(200),
        on(
            "hedged: informational",
            "/hedged",
            vec![silent(), vec![Act::Request, say("HTTP/1.1 100 Continue\r\n\r\n"), ms(50), say(OK)]],
        )
        .status(200),
        case("hedged: body", row, "silent", "POST /hedged HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello")
            .upstream(vec![silent(), ok()])
            .status(200),
        on("hedged: h2 for ever", "/hedged_h2", vec![]).h2_upstream(Behaviour::Stall).status(504),
        get(
            "hedged: asked for",
            row,
            "trusted",
            "/five",
            &[
                "x-envoy-hedge-on-per-try-timeout: true",
                "x-envoy-upstream-rq-per-try-timeout-ms: 60",
                "x-envoy-upstream-rq-timeout-ms: 0",
            ],
        )
        .upstream(vec![silent(), ok()])
        .status(200),
        steps(
            "hedged: client leaves",
            row,
            "silent",
            vec![Step::Send(request("GET", "/hedged", &[])), Step::Pause(Duration::from_millis(150)), Step::Reset],
        )
        .upstream(vec![silent()]),
    ]
}

/// Streams that a GOAWAY leaves out.
fn goaway() -> Vec<Case> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    let goaway = |last: u8, error: u8| vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, error];
    let refuse = |last, error| {
        vec![
            Act::Until(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Act::Send(settings.to_vec()),
            // The request: HEADERS that end stream 1.
            Act::Until(b"\x01\x05\0\0\0\x01"),
            Act::Send(goaway(last, error)),
            Act::Hold,
        ]
    };
    let mut cases = Vec::new();
    for path in ["/goaway", "/goaway_reset", "/goaway_connect"] {
        for (name, last, error) in [("left out", 0, 0), ("left out by an error", 0, 2), ("let in", 1, 0)] {
            let title = leaked(format!("{name} {path}"));
            let case = get(title, "3.9 GOAWAY", "silent", path, &[]);
            // The one that is let in is answered by nobody, and ends with its connection.
            let mut acts: Vec<Act> = refuse(last, error);
            if last == 1 {
                acts.pop();
                acts.extend([Act::Pause(Duration::from_millis(60)), Act::Close]);
            }
            cases.push(case.acts(acts));
        }
    }
    cases
}

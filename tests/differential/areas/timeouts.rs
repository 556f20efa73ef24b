//! Reference 2.7 and the timeouts of 2.1.

use std::time::Duration;

use super::{clusters, plain, routed, routes, upstream};
use crate::manifest::{Area, Case, Step, case, get, request, steps};
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let retry = "retry_policy: {num_retries: 0, per_try_timeout: 0.05s}";
    let listeners = vec![
        routes(
            "route",
            &format!(
                r#"
            {{name: short, match: {{prefix: "/short"}}, route: {{cluster: up, timeout: 0.06s}}}},
            {{name: endless, match: {{prefix: "/endless"}}, route: {{cluster: up, timeout: 0s}}}},
            {{name: per_try, match: {{prefix: "/try"}}, route: {{cluster: up, timeout: 5s, {retry}}}}},
            {{name: idle, match: {{prefix: "/idle"}}, route: {{cluster: up, timeout: 0s, idle_timeout: 0.06s}}}},
            {{name: duration, match: {{prefix: "/duration"}}, route: {{cluster: up, timeout: 0s, max_stream_duration: {{max_stream_duration: 0.06s}}}}}},
            {{name: grpc_offset, match: {{prefix: "/offset"}}, route: {{cluster: up, timeout: 5s, max_stream_duration: {{max_stream_duration: 1s, grpc_timeout_header_max: 1s, grpc_timeout_header_offset: 0.3s}}}}}},
            {{name: grpc_free, match: {{prefix: "/free"}}, route: {{cluster: up, max_stream_duration: {{grpc_timeout_header_max: 0s}}}}}},
            {{name: grpc_old, match: {{prefix: "/old"}}, route: {{cluster: up, timeout: 5s, max_grpc_timeout: 1s, grpc_timeout_offset: 0.3s}}}},
            {{name: grpc_plain, match: {{prefix: "/stream"}}, route: {{cluster: up, max_stream_duration: {{max_stream_duration: 0.2s}}}}}},
            {{name: try_idle, match: {{prefix: "/quiet"}}, route: {{cluster: up, timeout: 5s, retry_policy: {{num_retries: 0, per_try_idle_timeout: 0.06s}}}}}},
            {{name: try_long, match: {{prefix: "/long-try"}}, route: {{cluster: up, timeout: 0.06s, retry_policy: {{num_retries: 0, per_try_timeout: 1s}}}}}},
            {{name: hedged, match: {{prefix: "/hedged"}}, route: {{cluster: up, timeout: 0.2s, hedge_policy: {{hedge_on_per_try_timeout: true}}, {retry}}}}},
            {{name: aged, match: {{prefix: "/aged"}}, route: {{cluster: aged, timeout: 5s}}}},
            {{name: grpc, match: {{prefix: "/grpc"}}, route: {{cluster: up, timeout: 5s, max_stream_duration: {{grpc_timeout_header_max: 10s}}}}}},
            {{name: up, match: {{prefix: "/"}}, route: {{cluster: up}}}}"#
            ),
        ),
        plain("stream_idle", "stream_idle_timeout: 0.06s"),
        plain("request", "request_timeout: 0.06s"),
        plain("head", "request_headers_timeout: 0.06s"),
        plain("idle", "common_http_protocol_options: {idle_timeout: 0.06s}"),
        plain("age", "common_http_protocol_options: {max_connection_duration: 0.06s}"),
        plain(
            "safe_age",
            "common_http_protocol_options: {max_connection_duration: 0.06s}, http1_safe_max_connection_duration: true",
        ),
        plain("duration", "common_http_protocol_options: {max_stream_duration: 0.06s}"),
        plain(
            "internal",
            "use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}",
        ),
        routed(
            "strict",
            r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, strict_check_headers: [x-envoy-upstream-rq-timeout-ms, x-envoy-upstream-rq-per-try-timeout-ms, x-envoy-retry-on, x-envoy-max-retries, x-envoy-retry-grpc-on]}}], use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"#,
            crate::support::bootstrap::TO_UP,
        ),
        plain("idle_drain", "common_http_protocol_options: {idle_timeout: 0.06s}, drain_timeout: 0.06s"),
        plain(
            "age_drain",
            "common_http_protocol_options: {max_connection_duration: 0.06s}, drain_timeout: 0.06s, delayed_close_timeout: 0.1s",
        ),
        plain("head_idle", "stream_idle_timeout: 0.06s, common_http_protocol_options: {max_stream_duration: 0.5s}"),
        plain("head_duration", "common_http_protocol_options: {max_stream_duration: 0.06s}"),
        routed(
            "respect",
            r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, respect_expected_rq_timeout: true}}], use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"#,
            crate::support::bootstrap::TO_UP,
        ),
    ];
    let mut clusters = clusters();
    let aged = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {max_stream_duration: 0.06s}, explicit_http_config: {http_protocol_options: {}}}}"#;
    clusters.push(upstream("aged", "${UP}", aged));
    Area { name: "timeouts", listeners, clusters, more: "", cases: [cases(), header_cases()].concat() }
}

fn cases() -> Vec<Case> {
    let silent = || vec![Act::Request, Act::Hold];
    let begun =
        || vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Act::Hold];
    let partial = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_vec();
    let age = vec![
        Step::Send(request("GET", "/", &[])),
        Step::Responses(1),
        Step::Pause(Duration::from_millis(120)),
        Step::Send(request("GET", "/", &[])),
        Step::Responses(2),
    ];
    vec![
        get("route", "2.7 route timeout", "route", "/short", &[]).acts(silent()).status(504),
        get("route_after_head", "2.7 route timeout", "route", "/short", &[]).acts(begun()),
        get("per_try", "2.7 per_try_timeout", "route", "/try", &[]).acts(silent()).status(504),
        get("route_idle", "2.6 idle_timeout", "route", "/idle", &[]).acts(silent()).status(504),
        get("route_idle_after_head", "2.6 idle_timeout", "route", "/idle", &[]).acts(begun()),
        get("route_duration", "2.6 max_stream_duration", "route", "/duration", &[]).acts(silent()).status(504),
        get("no_timeout", "2.7 route timeout", "route", "/endless", &[]).status(200),
        get(
            "grpc_timeout",
            "2.7 grpc-timeout",
            "route",
            "/grpc",
            &["content-type: application/grpc", "grpc-timeout: 60m"],
        )
        .acts(silent())
        .status(200),
        get(
            "grpc_timeout_seen",
            "2.7 grpc-timeout",
            "route",
            "/grpc",
            &["content-type: application/grpc", "grpc-timeout: 2S"],
        )
        .status(200),
        get("grpc_route_timeout", "2.7 gRPC on timeout", "route", "/short", &["content-type: application/grpc"])
            .acts(silent())
            .status(200),
        get("stream_idle", "2.1 stream_idle_timeout", "stream_idle", "/", &[]).acts(silent()).status(504),
        get("stream_idle_after_head", "2.1 stream_idle_timeout", "stream_idle", "/", &[]).acts(begun()),
        case("stream_idle_in_body", "2.1 stream_idle_timeout", "stream_idle", partial.clone())
            .acts(silent())
            .status(408),
        case("request_timeout", "2.1 request_timeout", "request", partial.clone()).acts(silent()).status(408),
        case("request_timeout_in_head", "2.1 request_timeout", "request", "GET / HTTP/1.1\r\nho").status(408),
        get("request_timeout_met", "2.1 request_timeout", "request", "/", &[])
            .acts(vec![
                Act::Request,
                Act::Pause(Duration::from_millis(100)),
                Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
            ])
            .status(200),
        case("headers_timeout", "2.1 request_headers_timeout", "head", "GET / HTTP/1.1\r\nho").status(408),
        steps(
            "idle_connection",
            "2.1 idle_timeout",
            "idle",
            vec![Step::Send(request("GET", "/", &[])), Step::Responses(1), Step::End],
        )
        .status(200),
        steps("idle_from_start", "2.1 idle_timeout", "idle", vec![Step::End]),
        steps("connection_age", "2.1 max_connection_duration", "age", age.clone()),
        steps("connection_age_idle", "2.1 max_connection_duration", "age", vec![Step::End]),
        steps("safe_connection_age", "2.1 http1_safe_max_connection_duration", "safe_age", age),
        get("stream_duration", "2.1 max_stream_duration", "duration", "/", &[]).acts(silent()).status(504),
        case("stream_duration_in_body", "2.1 max_stream_duration", "duration", partial).acts(silent()),
        get("stream_duration_after_head", "2.1 max_stream_duration", "duration", "/", &[]).acts(begun()),
        get(
            "timeout_header",
            "2.7 x-envoy-upstream-rq-timeout-ms",
            "internal",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: 60"],
        )
        .acts(silent())
        .status(504),
        get(
            "timeout_header_seen",
            "2.7 x-envoy-upstream-rq-timeout-ms",
            "internal",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: 9000"],
        )
        .status(200),
        get(
            "timeout_header_bad",
            "2.7 x-envoy-upstream-rq-timeout-ms",
            "internal",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: soon"],
        )
        .status(200),
        get(
            "timeout_header_alt",
            "2.8 alt response",
            "internal",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: 60", "x-envoy-upstream-rq-timeout-alt-response: 1"],
        )
        .acts(silent())
        .status(204),
        get(
            "timeout_header_external",
            "2.7 x-envoy-upstream-rq-timeout-ms",
            "route",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: 1"],
        )
        .status(200),
        get(
            "expected_ignored",
            "2.7 x-envoy-expected-rq-timeout-ms",
            "internal",
            "/",
            &["x-envoy-expected-rq-timeout-ms: 60"],
        )
        .status(200),
        get(
            "expected_respected",
            "2.7 x-envoy-expected-rq-timeout-ms",
            "respect",
            "/",
            &["x-envoy-expected-rq-timeout-ms: 60"],
        )
        .acts(silent())
        .status(504),
    ]
}

/// What trusted headers and `grpc-timeout` do to the time limits, and what of them goes on.
fn header_cases() -> Vec<Case> {
    let silent = || vec![Act::Request, Act::Hold];
    let begun =
        || vec![Act::Request, Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Act::Hold];
    let partial = b"POST /quiet HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_vec();
    let mut cases = Vec::new();
    for path in ["/offset", "/free", "/old", "/stream"] {
        for value in ["700m", "2S", "99999999H", "999999999S", "-1S", "5", "5000000u", "1 S", ""] {
            let timeout = format!("grpc-timeout: {value}");
            let lines = ["content-type: application/grpc", &timeout];
            let lines = if value.is_empty() { &lines[..1] } else { &lines[..] };
            let name = format!("grpc-timeout {path} {value}");
            cases.push(get(Box::leak(name.into_boxed_str()), "2.7 grpc-timeout", "route", path, lines));
        }
    }
    let all = [
        "x-envoy-retry-on: 5xx",
        "x-envoy-retry-grpc-on: cancelled",
        "x-envoy-max-retries: 1",
        "x-envoy-hedge-on-per-try-timeout: true",
        "x-envoy-retriable-status-codes: 500",
        "x-envoy-retriable-header-names: a",
        "x-envoy-upstream-stream-duration-ms: 5000",
        "x-envoy-upstream-rq-per-try-timeout-ms: 700",
        "x-envoy-upstream-rq-timeout-alt-response: 1",
        "x-envoy-is-timeout-retry: 1",
        "x-envoy-original-url: a",
        "x-envoy-attempt-count: 3",
    ];
    let try_limit = "x-envoy-upstream-rq-per-try-timeout-ms: 60";
    cases.extend([
        get("grpc_not_asked", "2.7 grpc-timeout", "route", "/offset", &["grpc-timeout: 400m"]).status(200),
        get("grpc_old_not_grpc", "2.7 grpc-timeout", "route", "/old", &["grpc-timeout: 400m"]).status(200),
        get("grpc_duration", "2.7 grpc-timeout", "route", "/stream", &["content-type: application/grpc"])
            .acts(silent()),
        get("try_idle", "2.7 per_try_idle_timeout", "route", "/quiet", &[]).acts(silent()).status(504),
        get("try_idle_after_head", "2.7 per_try_idle_timeout", "route", "/quiet", &[]).acts(begun()),
        case("try_idle_in_body", "2.7 per_try_idle_timeout", "route", partial).acts(silent()),
        get("try_after_head", "2.7 per_try_timeout", "route", "/try", &[])
            .acts(vec![
                Act::Request,
                Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc".to_vec()),
                Act::Pause(Duration::from_millis(120)),
                Act::Send(b"def".to_vec()),
            ])
            .status(200),
        get("try_longer_than_route", "2.7 global + per-try", "route", "/long-try", &[]).acts(silent()).status(504),
        get("hedged_expected", "2.8 hedge_on_per_try_timeout", "route", "/hedged", &[]).status(200),
        get("upstream_duration", "2.10 upstream max stream duration", "route", "/aged", &[]).acts(silent()).status(504),
        get("upstream_duration_after_head", "2.10 upstream max stream duration", "route", "/aged", &[]).acts(begun()),
        case(
            "upstream_duration_in_body",
            "2.10 upstream max stream duration",
            "route",
            b"POST /aged HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_vec(),
        )
        .acts(silent())
        .status(408),
        get(
            "upstream_duration_header",
            "2.10 upstream max stream duration",
            "internal",
            "/",
            &["x-envoy-upstream-stream-duration-ms: 60"],
        )
        .acts(silent())
        .status(504),
        get("per_try_header", "2.7 per_try_timeout", "internal", "/", &[try_limit]).acts(silent()).status(504),
        get(
            "per_try_header_hedged",
            "2.8 hedge_on_per_try_timeout",
            "internal",
            "/",
            &[try_limit, "x-envoy-hedge-on-per-try-timeout: true", "x-envoy-upstream-rq-timeout-ms: 200"],
        )
        .acts(silent())
        .status(504),
        get(
            "per_try_alt",
            "2.8 alt response",
            "internal",
            "/",
            &[try_limit, "x-envoy-upstream-rq-timeout-alt-response: 1"],
        )
        .acts(silent())
        .status(204),
        get("retry_headers_consumed", "2.3 internal headers", "internal", "/", &all).status(200),
        get("retry_headers_dropped", "2.3 external headers", "route", "/", &all).status(200),
        get(
            "timeout_zero",
            "2.7 x-envoy-upstream-rq-timeout-ms",
            "internal",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: 0"],
        )
        .status(200),
        get(
            "expected_kept",
            "2.7 x-envoy-expected-rq-timeout-ms",
            "respect",
            "/",
            &["x-envoy-expected-rq-timeout-ms: 6000"],
        )
        .status(200),
        get(
            "expected_bad",
            "2.7 x-envoy-expected-rq-timeout-ms",
            "respect",
            "/",
            &["x-envoy-expected-rq-timeout-ms: abc", "x-envoy-upstream-rq-timeout-ms: 77"],
        )
        .status(200),
        get(
            "expected_absent",
            "2.7 x-envoy-expected-rq-timeout-ms",
            "respect",
            "/",
            &["x-envoy-upstream-rq-timeout-ms: 7700"],
        )
        .status(200),
    ]);
    for line in [
        "x-envoy-upstream-rq-timeout-ms: abc",
        "x-envoy-upstream-rq-timeout-ms: 12000",
        "x-envoy-upstream-rq-per-try-timeout-ms:",
        "x-envoy-retry-on: 5xx,foo",
        "x-envoy-retry-on: 5xx,reset",
        "x-envoy-retry-on: cancelled",
        "x-envoy-retry-grpc-on: cancelled, internal",
        "x-envoy-max-retries: -1",
        "x-envoy-max-retries: +1",
    ] {
        let name = Box::leak(format!("strict {line}").into_boxed_str());
        cases.push(get(name, "2.8 strict_check_headers", "strict", "/", &[line]));
    }
    let drained = |name, listener| {
        steps(
            name,
            "2.1 drain_timeout",
            listener,
            vec![
                Step::Send(request("GET", "/1", &[])),
                Step::Responses(1),
                Step::Pause(Duration::from_millis(90)),
                Step::Send(request("GET", "/2", &[])),
                Step::Responses(2),
                Step::Send(request("GET", "/3", &[])),
                Step::Responses(3),
                Step::End,
            ],
        )
    };
    cases.extend([
        drained("age_drains", "age_drain"),
        steps(
            "idle_drains",
            "2.1 idle_timeout",
            "idle_drain",
            vec![Step::Send(request("GET", "/1", &[])), Step::Responses(1), Step::End],
        ),
        case("head_idle", "2.1 stream_idle_timeout", "head_idle", "GET / HTTP/1.1\r\nho").status(408),
        case("head_duration", "2.1 max_stream_duration", "head_duration", "GET / HTTP/1.1\r\nho").status(408),
    ]);
    cases
}

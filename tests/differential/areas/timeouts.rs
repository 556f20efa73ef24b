//! Reference 2.7 and the timeouts of 2.1.

use std::time::Duration;

use super::{clusters, plain, routed, routes};
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
            "respect",
            r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, respect_expected_rq_timeout: true}}], use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"#,
            crate::support::bootstrap::TO_UP,
        ),
    ];
    Area { name: "timeouts", listeners, clusters: clusters(), more: "", cases: cases() }
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

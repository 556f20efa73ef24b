//! Reference 3.7: outlier detection. Each case has a cluster of its own, whose one host is ejected or not; without panic
//! routing an ejected host is seen at once, as 503 with `UH`.

use std::time::Duration;

use super::{routes, upstream};
use crate::manifest::{Area, Case, Step, request, steps};
use crate::support::bootstrap::protocol;
use crate::support::upstream::{Act, Script};

/// A cluster and what happens to it.
struct Timeline {
    name: &'static str,
    row: &'static str,
    /// `outlier_detection`
    detection: &'static str,
    /// What the upstream answers; 0 closes the connection instead.
    answers: &'static [u16],
    /// More headers of the answers.
    headers: &'static str,
    /// Lines of the requests.
    lines: &'static [&'static str],
    /// The port of the host.
    port: &'static str,
    /// `HttpProtocolOptions.outlier_detection.error_matcher`; empty for none.
    errors: &'static str,
    /// After so many requests a while passes.
    pause: Option<(usize, u64)>,
}

const USUAL: Timeline = Timeline {
    name: "",
    row: "3.7 algorithm",
    detection: "",
    answers: &[],
    headers: "",
    lines: &[],
    port: "${UP}",
    errors: "",
    pause: None,
};

const TIMELINES: &[Timeline] = &[
    Timeline {
        name: "row",
        row: "3.7 consecutive_5xx",
        detection: "consecutive_5xx: 3, max_ejection_percent: 100",
        answers: &[500, 500, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "default",
        row: "3.7 consecutive_5xx",
        detection: "max_ejection_percent: 100",
        answers: &[500, 501, 502, 503, 504, 200],
        ..USUAL
    },
    Timeline {
        name: "interrupted",
        row: "3.7 consecutive_5xx",
        detection: "consecutive_5xx: 3, max_ejection_percent: 100",
        answers: &[500, 500, 404, 500, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "overflow",
        row: "3.7 max_ejection_percent",
        detection: "consecutive_5xx: 2",
        answers: &[500, 500, 500, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "always_one",
        row: "3.7 always_eject_one_host",
        detection: "consecutive_5xx: 2, always_eject_one_host: true",
        answers: &[500, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "spared",
        row: "3.7 enforcing",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100, enforcing_consecutive_5xx: 0",
        answers: &[500, 500, 500, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "gateway",
        row: "3.7 consecutive_gateway_failure",
        detection: "consecutive_5xx: 9, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, max_ejection_percent: 100",
        answers: &[502, 500, 503, 504, 200],
        ..USUAL
    },
    Timeline {
        name: "gateway_spared",
        row: "3.7 consecutive_gateway_failure",
        detection: "consecutive_5xx: 9, consecutive_gateway_failure: 2, max_ejection_percent: 100",
        answers: &[502, 503, 504, 503, 200],
        ..USUAL
    },
    Timeline {
        name: "both",
        row: "3.7 consecutive_gateway_failure",
        detection: "consecutive_5xx: 2, consecutive_gateway_failure: 2, max_ejection_percent: 100",
        answers: &[503, 503, 200],
        ..USUAL
    },
    Timeline {
        name: "closed",
        row: "3.7 local origin, not split",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        answers: &[0, 0, 200],
        ..USUAL
    },
    Timeline {
        name: "refused",
        row: "3.7 local origin, not split",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        answers: &[200, 200, 200],
        port: "${DEAD}",
        ..USUAL
    },
    Timeline {
        name: "split_refused",
        row: "3.7 split_external_local_origin_errors",
        detection: "consecutive_5xx: 1, consecutive_local_origin_failure: 2, max_ejection_percent: 100, split_external_local_origin_errors: true",
        answers: &[200, 200, 200],
        port: "${DEAD}",
        ..USUAL
    },
    Timeline {
        name: "split_answers",
        row: "3.7 split_external_local_origin_errors",
        detection: "consecutive_5xx: 2, consecutive_local_origin_failure: 1, max_ejection_percent: 100, split_external_local_origin_errors: true",
        answers: &[500, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "grpc",
        row: "3.7 gRPC status",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        answers: &[200, 200, 200],
        headers: "content-type: application/grpc\r\ngrpc-status: 14\r\n",
        lines: &["content-type: application/grpc"],
        ..USUAL
    },
    Timeline {
        name: "grpc_fine",
        row: "3.7 gRPC status",
        detection: "consecutive_5xx: 1, max_ejection_percent: 100",
        answers: &[200, 200, 200],
        headers: "content-type: application/grpc\r\ngrpc-status: 5\r\n",
        lines: &["content-type: application/grpc"],
        ..USUAL
    },
    Timeline {
        name: "degraded",
        row: "3.7 detect_degraded_hosts",
        detection: "detect_degraded_hosts: true, max_ejection_percent: 100",
        answers: &[200, 200],
        headers: "x-envoy-degraded: true\r\n",
        ..USUAL
    },
    Timeline {
        name: "matched",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: STATUS_404,
        answers: &[404, 404, 200],
        ..USUAL
    },
    Timeline {
        name: "not_matched",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: STATUS_404,
        answers: &[500, 503, 500, 200],
        ..USUAL
    },
    Timeline {
        name: "matched_no_gateway",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 9, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, max_ejection_percent: 100",
        errors: "any_match: true",
        answers: &[404, 404, 502, 503, 200],
        ..USUAL
    },
    Timeline {
        name: "matched_header",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: "or_match: {rules: [{http_response_headers_match: {headers: [{name: x-bad}]}}, {not_match: {any_match: true}}]}",
        answers: &[200, 200, 200],
        headers: "x-bad: 1\r\n",
        ..USUAL
    },
    Timeline {
        name: "matched_request",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: "not_match: {http_request_headers_match: {headers: [{name: x-good}]}}",
        answers: &[200, 200, 200],
        lines: &["x-good: 1"],
        ..USUAL
    },
    Timeline {
        name: "matched_trailers",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: "http_response_trailers_match: {headers: [{name: x-bad}]}",
        answers: &[500, 500, 200],
        headers: "x-bad: 1\r\n",
        ..USUAL
    },
    Timeline {
        name: "matched_grpc",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: STATUS_404,
        answers: &[200, 200, 200],
        headers: "content-type: application/grpc\r\ngrpc-status: 14\r\n",
        lines: &["content-type: application/grpc"],
        ..USUAL
    },
    Timeline {
        name: "matched_grpc_status",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: "http_response_headers_match: {headers: [{name: grpc-status, string_match: {exact: '5'}}]}",
        answers: &[200, 200, 200],
        headers: "content-type: application/grpc\r\ngrpc-status: 5\r\n",
        lines: &["content-type: application/grpc"],
        ..USUAL
    },
    Timeline {
        name: "matched_closed",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: STATUS_404,
        answers: &[0, 0, 200],
        ..USUAL
    },
    Timeline {
        name: "matched_refused",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100",
        errors: STATUS_404,
        answers: &[200, 200, 200],
        port: "${DEAD}",
        ..USUAL
    },
    Timeline {
        name: "matched_degraded",
        row: "3.7 error_matcher",
        detection: "consecutive_5xx: 2, max_ejection_percent: 100, detect_degraded_hosts: true",
        errors: "http_response_headers_match: {headers: [{name: x-envoy-degraded}]}",
        answers: &[200, 200, 200],
        headers: "x-envoy-degraded: true\r\n",
        ..USUAL
    },
    Timeline {
        name: "back",
        row: "3.7 base_ejection_time",
        detection: "consecutive_5xx: 1, max_ejection_percent: 100, interval: 0.1s, base_ejection_time: 0.1s",
        answers: &[500, 200, 200],
        pause: Some((1, 600)),
        ..USUAL
    },
];

const STATUS_404: &str = "http_response_headers_match: {headers: [{name: ':status', string_match: {exact: '404'}}]}";

/// The area.
pub fn area() -> Area {
    let route = |timeline: &Timeline| {
        let Timeline { name, .. } = timeline;
        format!(r#"{{match: {{path: "/{name}"}}, route: {{cluster: {name}}}}}"#)
    };
    let list: Vec<String> = TIMELINES.iter().map(route).collect();
    let cluster = |timeline: &Timeline| {
        let Timeline { name, detection, port, errors, .. } = timeline;
        let options = if errors.is_empty() {
            String::new()
        } else {
            protocol(&format!(
                "outlier_detection: {{error_matcher: {{{errors}}}}}, explicit_http_config: {{http_protocol_options: {{}}}}"
            ))
        };
        let more = format!(
            "outlier_detection: {{{detection}}}, common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, {options}"
        );
        upstream(name, port, &more)
    };
    Area {
        name: "outliers",
        listeners: vec![routes("plain", &list.join(", "))],
        clusters: TIMELINES.iter().map(cluster).collect(),
        more: "",
        cases: TIMELINES.iter().map(case).collect(),
    }
}

fn case(timeline: &Timeline) -> Case {
    let Timeline { name, row, answers, lines, pause, .. } = timeline;
    let mut list = Vec::new();
    for n in 1..=answers.len() {
        // Envoy ejects on another thread: it is given the time.
        let pause = pause.filter(|(after, _)| *after == n).map_or(60, |(_, millis)| millis);
        list.extend([
            Step::Send(request("GET", &format!("/{name}"), lines)),
            Step::Responses(n),
            Step::Pause(Duration::from_millis(pause)),
        ]);
    }
    steps(name, row, "plain", list).upstream(script(timeline))
}

/// The answers, on one connection for as long as it lasts.
fn script(timeline: &Timeline) -> Script {
    let mut connections = vec![Vec::new()];
    for &status in timeline.answers {
        let Some(acts) = connections.last_mut() else { continue };
        acts.push(Act::Request);
        if status == 0 {
            acts.push(Act::Close);
            connections.push(Vec::new());
        } else {
            let head = format!("HTTP/1.1 {status} So\r\n{}content-length: 0\r\n\r\n", timeline.headers);
            acts.push(Act::Send(head.into_bytes()));
        }
    }
    connections
}

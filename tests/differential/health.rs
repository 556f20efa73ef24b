//! Reference 3.8: active health checks. Each case is a cluster whose one host has an upstream of its own, which follows a
//! script and then falls silent. Compared are the bytes that the host was asked, what `/clusters` and the statistics say
//! after so many checks, and whether a request would go there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::report::compare;
use crate::support::PATIENCE;
use crate::support::bootstrap::{bootstrap, cluster, http_listener, http2};
use crate::support::eventually;
use crate::support::frames::{self, END_HEADERS, END_STREAM};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, DeadPort, Script, Upstream};

/// A host, how it is checked, and what it does.
struct Case {
    name: &'static str,
    /// The checker.
    check: &'static str,
    /// More fields of `health_checks[0]`.
    fields: &'static str,
    /// Fields of the endpoint's `health_check_config`.
    endpoint: &'static str,
    /// Fields of its metadata.
    metadata: &'static str,
    /// More fields of the cluster.
    cluster: &'static str,
    host: Host,
    /// Waited for: this counter's reaching this value.
    until: (&'static str, i64),
    /// Then a request is sent, whose answer is compared, and this counter is waited for.
    then: Option<(&'static str, i64)>,
}

enum Host {
    /// Follows a script.
    Scripted(Script),
    /// Follows a script in HTTP/2, of which frames are compared.
    Frames(Script),
    /// Speaks HTTP/2.
    Http2(Behaviour),
    /// Is not there.
    Dead,
}

const HTTP: &str = "http_health_check: {path: /hz}";
const FAST: &str = "timeout: 100s, interval: 0.03s, no_traffic_interval: 0.03s, unhealthy_threshold: 2, \
    healthy_threshold: 2, always_log_health_check_failures: true, always_log_health_check_success: true";
/// Of what goes on as before, nothing is logged.
const TERSE: &str = "always_log_health_check_failures: false, always_log_health_check_success: false";

/// These answers, each on request, by one connection for as long as it lasts; then silence.
fn answers(list: &[&str]) -> Script {
    let mut connections = vec![Vec::new()];
    for answer in list {
        let Some(acts) = connections.last_mut() else { continue };
        acts.push(Act::Request);
        let text = match answer.parse::<u16>() {
            Ok(status) => format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\nok"),
            Err(_) => (*answer).to_owned(),
        };
        let closes =
            text.is_empty() || text.contains("close\r\n") || text.starts_with("HTTP/1.0") || text.ends_with(['!', '#']);
        if !text.is_empty() {
            acts.push(Act::Send(text.trim_end_matches(['!', '#']).as_bytes().to_vec()));
        }
        if closes {
            acts.push(if text.is_empty() || text.ends_with('#') { Act::Close } else { Act::Hold });
            connections.push(Vec::new());
        }
    }
    if let Some(acts) = connections.last_mut() {
        acts.push(Act::Hold);
    }
    connections
}

fn case(name: &'static str, check: &'static str, list: &[&str]) -> Case {
    let attempts = i64::try_from(list.len()).expect("a few") + 1;
    Case {
        name,
        check,
        fields: "",
        endpoint: "",
        metadata: "",
        cluster: "",
        host: Host::Scripted(answers(list)),
        until: ("attempt", attempts),
        then: None,
    }
}

fn acts(name: &'static str, check: &'static str, script: Script, until: (&'static str, i64)) -> Case {
    Case { host: Host::Scripted(script), until, ..case(name, check, &[]) }
}

fn by_http2(name: &'static str, check: &'static str, behaviour: Behaviour) -> Case {
    let fields = "no_traffic_interval: 100s, no_traffic_healthy_interval: 100s";
    Case { host: Host::Http2(behaviour), until: ("attempt", 1), fields, ..case(name, check, &[]) }
}

/// What a host says by HTTP/2 on a stream.
type Words = fn(u32) -> Vec<u8>;

/// These answers to requests that end with a DATA frame, each connection's one after the other; then silence.
fn calls(connections: &[&[Words]]) -> Script {
    let follow = |words: &&[Words]| {
        let mut acts = Vec::new();
        for (number, stream) in words.iter().zip((1..).step_by(2)) {
            acts.push(Act::Frame(frames::DATA));
            let first = if stream == 1 { frames::settings(&[]) } else { Vec::new() };
            acts.push(Act::Send([first, number(stream)].concat()));
        }
        acts.push(Act::Hold);
        acts
    };
    connections.iter().map(follow).collect()
}

fn grpc(name: &'static str, connections: &[&[Words]]) -> Case {
    let attempts = i64::try_from(connections.concat().len()).expect("a few") + 1;
    Case {
        cluster: "HTTP2",
        host: Host::Frames(calls(connections)),
        until: ("attempt", attempts),
        ..case(name, "grpc_health_check: {}", &[])
    }
}

/// Hosts that say in answers to requests how they are. Checks have the first connection, the request the second.
fn seen_elsewhere() -> Vec<Case> {
    const LEAVES: &str = "HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: false\r\ncontent-length: 2\r\n\r\nok";
    let says = |text: &str| Act::Send(text.as_bytes().to_vec());
    let ok = || says("HTTP/1.1 200 So\r\ncontent-length: 2\r\n\r\nok");
    let host = |name, checks: Vec<Act>, answer: &str, then| {
        let script = vec![checks, vec![Act::Request, says(answer), Act::Hold]];
        Case { then: Some(then), ..acts(name, HTTP, script, ("attempt", 2)) }
    };
    let slow = || Act::Pause(Duration::from_secs(1));
    vec![
        host("leaves", vec![Act::Request, ok(), Act::Request, Act::Hold], LEAVES, ("failure", 1)),
        host(
            "leaves_and_returns",
            vec![Act::Request, ok(), Act::Request, slow(), ok(), Act::Request, ok(), Act::Request, Act::Hold],
            LEAVES,
            ("attempt", 4),
        ),
        host(
            "leaves_and_half_returns",
            vec![Act::Request, ok(), Act::Request, slow(), ok(), Act::Request, Act::Hold],
            LEAVES,
            ("attempt", 3),
        ),
        host(
            "leaves_in_error",
            vec![Act::Request, ok(), Act::Request, Act::Hold],
            "HTTP/1.1 500 No\r\nx-envoy-immediate-health-check-fail: true\r\ncontent-length: 0\r\n\r\n",
            ("failure", 1),
        ),
        host(
            "stays",
            vec![Act::Request, ok(), Act::Request, Act::Hold],
            "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
            ("attempt", 2),
        ),
    ]
}

/// The first check times out, and the next one is the last.
const TIMES_OUT_ONCE: &str =
    "timeout: 0.3s, healthy_threshold: 1, no_traffic_interval: 0.03s, no_traffic_healthy_interval: 100s";

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// An answer of gRPC: its head, this body, and trailers.
fn told(stream: u32, body: &[u8], trailers: &[(&str, &str)]) -> Vec<u8> {
    let end = frames::frame(frames::HEADERS, END_HEADERS | END_STREAM, stream, &frames::fields(trailers));
    [begun(stream), frames::frame(frames::DATA, 0, stream, body), end].concat()
}

/// An answer that does not end.
fn saying(stream: u32, body: &[u8]) -> Vec<u8> {
    [begun(stream), frames::frame(frames::DATA, 0, stream, body)].concat()
}

fn begun(stream: u32) -> Vec<u8> {
    let head = frames::fields(&[(":status", "200"), ("content-type", "application/grpc")]);
    frames::frame(frames::HEADERS, END_HEADERS, stream, &head)
}

/// An answer of a head alone.
fn head_alone(stream: u32, end: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frames::frame(frames::HEADERS, END_HEADERS | end, stream, &frames::fields(fields))
}

fn serving(stream: u32) -> Vec<u8> {
    told(stream, SERVING, &[("grpc-status", "0")])
}

fn grpc_timelines() -> Vec<Case> {
    let well: Words = serving;
    let not: Words = |s| told(s, &[0, 0, 0, 0, 2, 8, 2], &[("grpc-status", "0")]);
    let unknown: Words = |s| told(s, &[0, 0, 0, 0, 2, 8, 3], &[("grpc-status", "0")]);
    let unimplemented: Words = |s| {
        head_alone(s, END_STREAM, &[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")])
    };
    let head_well: Words = |s| {
        head_alone(s, END_STREAM, &[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")])
    };
    let silent: Words = |_| Vec::new();
    let mut cases = vec![
        grpc("grpc_serving", &[&[well, well]]),
        grpc("grpc_not_serving", &[&[well, not]]),
        grpc("grpc_not_serving_first", &[&[not, well]]),
        grpc("grpc_recovers", &[&[well, not, well, well]]),
        grpc("grpc_recovers_interrupted", &[&[well, not, well, unknown, well]]),
        grpc("grpc_unimplemented", &[&[well, unimplemented, well]]),
        grpc("grpc_status_alone", &[&[well, head_well, well]]),
        grpc("grpc_garbage", &[&[well, |s| saying(s, &[0, 0, 0, 0, 1, 8]), well]]),
        grpc("grpc_flags", &[&[well, |s| saying(s, &[2, 0, 0, 0, 2, 8, 1]), well]]),
        grpc("grpc_compressed", &[&[well, |s| saying(s, &[1, 0, 0, 0, 2, 8, 1]), well]]),
        grpc("grpc_twice", &[&[well, |s| saying(s, &[SERVING, SERVING].concat()), well]]),
        grpc("grpc_nothing", &[&[well, |s| told(s, &[0; 5], &[("grpc-status", "0")])]]),
        grpc("grpc_empty_around", &[&[|s| told(s, &[&[0; 5], SERVING].concat(), &[("grpc-status", "0")])]]),
        grpc("grpc_cut", &[&[well, |s| told(s, &SERVING[..6], &[("grpc-status", "0")])]]),
        grpc("grpc_status_bad", &[&[well, |s| told(s, SERVING, &[("grpc-status", "14")]), well]]),
        grpc("grpc_status_odd", &[&[well, |s| told(s, SERVING, &[("grpc-status", " 0 ")]), well]]),
        grpc("grpc_status_none", &[&[well, |s| told(s, SERVING, &[("x", "y")]), well]]),
        grpc(
            "grpc_no_trailers",
            &[&[well, |s| [begun(s), frames::frame(frames::DATA, END_STREAM, s, SERVING)].concat(), well]],
        ),
        grpc(
            "grpc_other_type",
            &[&[well, |s| head_alone(s, 0, &[(":status", "200"), ("content-type", "application/grpcx")]), well]],
        ),
        grpc(
            "grpc_proto_type",
            &[&[|s| {
                let head = head_alone(s, 0, &[(":status", "200"), ("content-type", "application/grpc+proto")]);
                [head, frames::frame(frames::DATA, 0, s, SERVING), head_alone(s, END_STREAM, &[("grpc-status", "0")])]
                    .concat()
            }]],
        ),
        grpc("grpc_503", &[&[well, |s| head_alone(s, 0, &[(":status", "503")]), well]]),
        grpc("grpc_503_alone", &[&[well, |s| head_alone(s, END_STREAM, &[(":status", "503"), ("grpc-status", "0")])]]),
        grpc("grpc_reset", &[&[well, |s| frames::reset(s, 8), well]]),
        grpc("grpc_reset_midway", &[&[well, |s| [begun(s), frames::reset(s, 0)].concat(), |s| frames::reset(s, 7)]]),
        grpc("grpc_goaway", &[&[well, |s| [frames::goaway(s, 0), serving(s)].concat()], &[well]]),
        grpc("grpc_goaway_idle", &[&[well, |s| [serving(s), frames::goaway(s, 0)].concat()], &[well]]),
        grpc("grpc_goaway_error", &[&[well, |s| frames::goaway(s, 2)], &[well]]),
        grpc("grpc_goaway_unserved", &[&[well, |s| frames::goaway(s - 2, 0)], &[well]]),
        with("reuse_connection: false", grpc("grpc_no_reuse", &[&[well], &[well], &[silent]])),
    ];
    let ends = calls(&[&[well, silent], &[well]]);
    let closing = ends.into_iter().enumerate().map(|(n, mut acts)| {
        if n == 0 {
            acts.pop();
            acts.push(Act::Close);
        }
        acts
    });
    cases.push(Case { host: Host::Frames(closing.collect()), ..grpc("grpc_closes", &[&[well, silent], &[well]]) });
    cases.push(with(TIMES_OUT_ONCE, Case { until: ("success", 1), ..grpc("grpc_times_out", &[&[silent, well]]) }));
    cases.push(Case {
        check: "grpc_health_check: {service_name: a.B, authority: 'outbound|80||x/y:1'}",
        ..grpc("grpc_odd_authority", &[&[well, well, well]])
    });
    cases.push(Case {
        check: "grpc_health_check: {service_name: a.B, authority: auth.example, initial_metadata: [{header: {key: X-A, value: b}}, {header: {key: user-agent, value: me}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-h, value: '%PROTOCOL%'}}]}",
        ..by_http2("grpc_metadata", "", Behaviour::Grpc(0))
    });
    for case in &mut cases {
        if case.cluster.is_empty() {
            case.cluster = "HTTP2";
        }
    }
    // HTTP checks by HTTP/2: requests without a body end with their head.
    const H2: &str = "http_health_check: {path: /hz, codec_client_type: HTTP2, method: POST, send: {text: '6869'}}";
    let http = |name, connections: &[&[Words]]| Case { cluster: "", check: H2, ..grpc(name, connections) };
    let ok: Words = |s| head_alone(s, END_STREAM, &[(":status", "200")]);
    cases.push(http("h2_twice", &[&[ok, ok]]));
    cases.push(http("h2_reset", &[&[ok, |s| frames::reset(s, 8), ok]]));
    cases.push(http(
        "h2_goaway",
        &[&[ok, |s| [frames::goaway(s, 0), head_alone(s, END_STREAM, &[(":status", "200")])].concat()], &[ok]],
    ));
    cases.push(http("h2_goaway_error", &[&[ok, |s| frames::goaway(s, 2)], &[ok]]));
    cases.push(with(TIMES_OUT_ONCE, Case { until: ("success", 1), ..http("h2_times_out", &[&[silent], &[ok]]) }));
    cases.push(Case {
        check: "http_health_check: {path: /hz, host: 'outbound|80||x/y:1', codec_client_type: HTTP2, method: POST, send: {text: '6869'}}",
        ..http("h2_odd_host", &[&[ok, ok]])
    });
    cases
}

fn with(fields: &'static str, case: Case) -> Case {
    Case { fields, ..case }
}

fn cases() -> Vec<Case> {
    let grpc = |name, behaviour| Case {
        // Filled in with the words that make the cluster speak HTTP/2.
        cluster: "HTTP2",
        ..by_http2(name, "grpc_health_check: {service_name: here}", behaviour)
    };
    let send = |text: &str| Act::Send(text.as_bytes().to_vec());
    const ONCE: &str = "no_traffic_interval: 100s, no_traffic_healthy_interval: 100s";
    let mut cases = vec![
        case("healthy", HTTP, &["200", "200"]),
        with(
            "initial_jitter: 0.02s, interval_jitter: 0.02s, interval_jitter_percent: 50",
            case("jittered", HTTP, &["200", "503", "503"]),
        ),
        case("refuses", HTTP, &["200", "503"]),
        case("refuses_first", HTTP, &["503", "200"]),
        case("recovers", HTTP, &["503", "200", "200"]),
        case("recovers_interrupted", HTTP, &["503", "200", "503", "200"]),
        with(TERSE, case("terse", HTTP, &["200", "503", "503", "200", "200", "200"])),
        with(TERSE, case("terse_failing", HTTP, &["503", "503", "", "200", "200"])),
        with(TERSE, case("terse_closing", HTTP, &["200", "", "200", "", "", "200"])),
        with(
            TERSE,
            case(
                "terse_degraded",
                HTTP,
                &["HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n", "200"],
            ),
        ),
        Case { metadata: "filter_metadata: {other: {a: [1, 1.5, {b: c}]}}", ..case("metadata", HTTP, &["200", "503"]) },
        case("closes_once", HTTP, &["200", ""]),
        case("closes_twice", HTTP, &["200", "", ""]),
        case("closes_twice_interrupted", HTTP, &["200", "", "200", ""]),
        case("closes_and_recovers", HTTP, &["200", "", "", "200", "200"]),
        with("unhealthy_threshold: 1", case("closes_threshold_one", HTTP, &["200", ""])),
        with("unhealthy_threshold: 0", case("closes_threshold_none", HTTP, &["200", "", ""])),
        case("garbage", HTTP, &["200", "what?\r\n\r\n!", "what?\r\n\r\n!"]),
        case("cut_short", HTTP, &["200", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx#", "200"]),
        case("says_close", HTTP, &["HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "200"]),
        case("http_1_0", HTTP, &["HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "200"]),
        case("chunked", HTTP, &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200"]),
        case("interim", HTTP, &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]),
        case("degraded", HTTP, &["HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n"]),
        case(
            "degraded_recovers",
            HTTP,
            &["HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n", "200"],
        ),
        case(
            "excluded",
            HTTP,
            &["200", "HTTP/1.1 503 No\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n"],
        ),
        case(
            "excluded_then_refuses",
            HTTP,
            &[
                "200",
                "HTTP/1.1 503 No\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n",
                "503",
                "200",
            ],
        ),
        case(
            "excluded_in_vain",
            HTTP,
            &["HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n"],
        ),
        case(
            "statuses",
            "http_health_check: {path: /, expected_statuses: [{start: 201, end: 203}, {start: 300, end: 301}]}",
            &["202", "300", "200"],
        ),
        case(
            "retriable",
            "http_health_check: {path: /, retriable_statuses: [{start: 500, end: 503}]}",
            &["200", "501", "200", "502", "503"],
        ),
        case(
            "retriable_twice",
            "http_health_check: {path: /, retriable_statuses: [{start: 500, end: 503}]}",
            &["200", "501", "502"],
        ),
        case("host", "http_health_check: {path: '/a%20b?c', host: 'x.example:1'}", &["200"]),
        case(
            "method",
            "http_health_check: {path: /, method: HEAD}",
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"],
        ),
        case("post", "http_health_check: {path: /, method: POST}", &["200"]),
        case("post_body", "http_health_check: {path: /, method: POST, send: {text: '6869'}}", &["200", "200"]),
        case("delete", "http_health_check: {path: /, method: DELETE}", &["200"]),
        case("options", "http_health_check: {path: '*', method: OPTIONS}", &["200"]),
        case(
            "headers",
            "http_health_check: {path: /, request_headers_to_add: [{header: {key: X-A, value: b}}, {header: {key: user-agent, value: me}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-h, value: '%UPSTREAM_METADATA([\"a\",\"b\"])%-%PROTOCOL%-%REQ(:path)%'}}]}",
            &["200"],
        ),
        case("headers_removed", "http_health_check: {path: /, request_headers_to_remove: [User-Agent]}", &["200"]),
        case(
            "receive",
            "http_health_check: {path: /, receive: [{text: '6f'}, {text: '6b'}]}",
            &["200", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nko"],
        ),
        case(
            "receive_far",
            "http_health_check: {path: /, response_buffer_size: 4, receive: [{text: '6f6b'}]}",
            &["200", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nxxxxok"],
        ),
        case(
            "receive_whole",
            "http_health_check: {path: /, response_buffer_size: 0, receive: [{text: '6f6b'}]}",
            &["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nxxxxok"],
        ),
        case(
            "service",
            "http_health_check: {path: /, service_name_matcher: {prefix: me}}",
            &["HTTP/1.1 200 OK\r\nx-envoy-upstream-healthchecked-cluster: me-1\r\ncontent-length: 0\r\n\r\n", "200"],
        ),
        with(
            "reuse_connection: false",
            case(
                "no_reuse",
                HTTP,
                &["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n!", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n!"],
            ),
        ),
        with(
            "timeout: 0.15s, no_traffic_interval: 100s",
            acts("times_out", HTTP, vec![vec![Act::Request, Act::Hold]], ("failure", 1)),
        ),
        with(
            "timeout: 0.15s, no_traffic_healthy_interval: 0.03s, no_traffic_interval: 100s, unhealthy_threshold: 1, healthy_threshold: 9",
            acts(
                "times_out_later",
                HTTP,
                vec![vec![Act::Request, send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Act::Request, Act::Hold]],
                ("network_failure", 1),
            ),
        ),
        with(ONCE, Case { host: Host::Dead, until: ("failure", 1), ..case("dead", HTTP, &[]) }),
        Case {
            endpoint: "hostname: other.example",
            ..case("endpoint_host", "http_health_check: {path: /, host: x}", &["200"])
        },
        with(ONCE, Case { endpoint: "port_value: ${DEAD}", until: ("failure", 1), ..case("endpoint_port", HTTP, &[]) }),
        with(
            ONCE,
            Case {
                endpoint: "address: {socket_address: {address: 127.0.0.1, port_value: ${DEAD}}}",
                until: ("failure", 1),
                ..case("endpoint_address", HTTP, &[])
            },
        ),
        Case {
            endpoint: "disable_active_health_check: true",
            until: ("attempt", 0),
            ..case("endpoint_unchecked", HTTP, &[])
        },
        with(
            "no_traffic_interval: 0.03s, no_traffic_healthy_interval: 100s",
            Case { until: ("success", 1), ..case("no_traffic", HTTP, &["200"]) },
        ),
        with(ONCE, Case { until: ("attempt", 1), ..case("jitter", HTTP, &["200"]) }),
        // TCP
        with(ONCE, acts("tcp", "tcp_health_check: {}", vec![vec![Act::Hold]], ("success", 1))),
        with(ONCE, Case { host: Host::Dead, until: ("failure", 1), ..case("tcp_dead", "tcp_health_check: {}", &[]) }),
        acts(
            "tcp_talk",
            "tcp_health_check: {send: {text: '6869'}, receive: [{text: '796f'}]}",
            vec![vec![Act::Until(b"hi"), send("xyo"), Act::Until(b"hi"), send("yo"), Act::Until(b"hi"), Act::Hold]],
            ("attempt", 3),
        ),
        acts(
            "tcp_pieces",
            "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}, {text: '6f'}]}",
            vec![vec![
                Act::Until(b"hi"),
                send("y"),
                Act::Pause(Duration::from_millis(40)),
                send("..o"),
                Act::Until(b"hi"),
                Act::Hold,
            ]],
            ("attempt", 2),
        ),
        with(
            ONCE,
            acts(
                "tcp_closed",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Until(b"hi"), send("x"), Act::Close]],
                ("failure", 1),
            ),
        ),
        with(
            "no_traffic_healthy_interval: 100s, no_traffic_interval: 100s",
            acts(
                "tcp_closed_idle",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Until(b"hi"), send("y"), Act::Pause(Duration::from_millis(60)), Act::Close]],
                ("failure", 1),
            ),
        ),
        with(
            "reuse_connection: false",
            acts(
                "tcp_no_reuse",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![
                    vec![Act::Until(b"hi"), send("y"), Act::Hold],
                    vec![Act::Until(b"hi"), send("y"), Act::Hold],
                    vec![Act::Hold],
                ],
                ("attempt", 3),
            ),
        ),
        with(
            ONCE,
            acts(
                "tcp_binary",
                "tcp_health_check: {send: {binary: aGk=}, receive: [{text: '79'}]}",
                vec![vec![Act::Pause(Duration::from_millis(30)), send("y"), Act::Hold]],
                ("success", 1),
            ),
        ),
        with(
            ONCE,
            acts(
                "tcp_proxy_protocol",
                "tcp_health_check: {proxy_protocol_config: {version: V2}, send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Until(b"hi"), send("y"), Act::Hold]],
                ("success", 1),
            ),
        ),
        with(
            "timeout: 0.15s, no_traffic_interval: 100s",
            acts(
                "tcp_times_out",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Hold]],
                ("failure", 1),
            ),
        ),
        // HTTP/2 and gRPC
        by_http2("h2", "http_health_check: {path: /hz, codec_client_type: HTTP2}", Behaviour::Ok),
        by_http2(
            "h2_refuses",
            "http_health_check: {path: /hz, codec_client_type: HTTP2}",
            Behaviour::Reply(503, vec![], ""),
        ),
        by_http2(
            "h2_post",
            "http_health_check: {path: /hz, method: PUT, host: a.example, send: {text: '6869'}, codec_client_type: HTTP2}",
            Behaviour::Ok,
        ),
        grpc("grpc_refuses", Behaviour::TrailersOnly(14)),
        grpc("grpc_not_grpc", Behaviour::Ok),
        grpc("grpc_empty", Behaviour::Grpc(0)),
    ];
    cases.extend(grpc_timelines());
    cases.extend(seen_elsewhere());
    cases
}

/// Compares all cases.
pub fn run() {
    let only = std::env::var("CASES").unwrap_or_default();
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.contains(&only)).collect();
    compare("health", |kind| observe(kind, &cases));
}

/// What is seen of each case through a proxy.
fn observe(kind: Kind, cases: &[Case]) -> BTreeMap<&'static str, String> {
    let dead = DeadPort::new();
    let mut hosts = Vec::new();
    let (mut clusters, mut table) = (Vec::new(), String::new());
    for case in cases {
        let (port, host) = match &case.host {
            Host::Scripted(script) => {
                let up = Upstream::start(script.clone());
                (up.port(), Running::Scripted(up))
            }
            Host::Frames(script) => {
                let up = Upstream::start(script.clone());
                (up.port(), Running::Frames(up))
            }
            Host::Http2(behaviour) => {
                let up = H2Upstream::start(behaviour.clone());
                (up.port(), Running::Http2(up))
            }
            Host::Dead => (dead.port(), Running::Dead),
        };
        clusters.push(cluster_of(case, port).replace("${DEAD}", &dead.port().to_string()));
        let name = case.name;
        let _ = write!(table, r#"{{match: {{path: "/{name}"}}, route: {{cluster: {name}}}}}, "#);
        hosts.push((port, host));
    }
    let table = format!(r#"{{name: all, domains: ["*"], routes: [{table}]}}"#);
    let proxy = Proxy::start(kind, &bootstrap(&[http_listener("in", "", &table, "")], &clusters, ""));
    let mut seen = BTreeMap::new();
    let counted = |case: &Case, (counter, value): (&str, i64)| {
        proxy.stat(&format!("cluster.{}.health_check.{counter}", case.name)) >= value
    };
    let mut answers = BTreeMap::new();
    for case in cases.iter().filter(|case| case.then.is_some()) {
        patiently(|| counted(case, case.until));
        answers.insert(case.name, answer(&proxy, case.name));
    }
    patiently(|| cases.iter().all(|case| counted(case, case.then.unwrap_or(case.until))));
    // What follows from the last answer, too.
    std::thread::sleep(Duration::from_millis(150));
    for (case, (port, host)) in cases.iter().zip(&hosts) {
        let mut text = answers.remove(case.name).map_or_else(String::new, |text| format!("    {text:?}\n"));
        text += &host.record().replace(&port.to_string(), "PORT");
        for line in events(&proxy, case.name) {
            let _ = writeln!(
                text,
                "    {}",
                line.replace(&port.to_string(), "PORT").replace(&dead.port().to_string(), "DEAD")
            );
        }
        for (name, value) in proxy.stats(&format!(r"^cluster\.{}\.(health_check|membership)", case.name)) {
            let _ = writeln!(text, "    {name}: {value}");
        }
        let page = proxy.get("/clusters").body;
        for line in page.lines().filter(|line| line.starts_with(&format!("{}::", case.name))) {
            if let Some((_, flags)) = line.split_once("::health_flags::") {
                let _ = writeln!(text, "    {flags}");
                if flags.contains("failed") {
                    let _ = writeln!(text, "    {}", status(&proxy, case.name));
                }
            }
        }
        seen.insert(case.name, text);
    }
    seen
}

enum Running {
    Scripted(Upstream),
    Frames(Upstream),
    Http2(H2Upstream),
    Dead,
}

/// `outbound|80||x/y:1` in HPACK's string code (RFC 7541 appendix B).
const ODD: &[u8] = b"\x3d\xa9\x8c\xf6\xd5\x27\xfc\x78\x1f\xf3\xfe\x79\x63\xd5\xc0\xff";

/// The frames of a connection that checks are made of. Of heads it counts which stream they open, and whether the odd
/// authority is said there: how the rest is coded is each side's own affair.
fn frames_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    for frame in frames::received(bytes) {
        let says = |odd: &[u8]| frame.payload.windows(odd.len()).any(|piece| piece == odd);
        let _ = match frame.kind {
            frames::HEADERS => {
                let odd = if says(ODD) || says(b"outbound|80||x/y:1") { " outbound|80||x/y:1" } else { "" };
                write!(text, " HEADERS {}{odd};", frame.stream)
            }
            frames::DATA | frames::RST_STREAM => {
                write!(text, " {} {} {:?};", frame.kind, frame.stream, frame.payload)
            }
            frames::GOAWAY => write!(text, " GOAWAY {:?};", frame.payload),
            _ => Ok(()),
        };
    }
    text
}

impl Running {
    /// What it was asked.
    fn record(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Scripted(up) => {
                for received in up.received() {
                    let received = String::from_utf8_lossy(&received);
                    let same = |line: &&str| !line.starts_with("x-request-id:");
                    let received: String = received.split_inclusive('\n').filter(same).collect();
                    let _ = writeln!(text, "    {received:?}");
                }
            }
            Self::Frames(up) => {
                for received in up.received() {
                    let _ = writeln!(text, "   {}", frames_of(&received));
                }
            }
            Self::Http2(up) => {
                for request in up.requests() {
                    let _ = writeln!(text, "    {request}");
                }
            }
            Self::Dead => {}
        }
        text
    }
}

/// The cluster of a case: fields of its own win over the usual ones.
fn cluster_of(case: &Case, port: u16) -> String {
    let Case { name, check, fields, endpoint, metadata, cluster: more, .. } = case;
    let own = |field: &&str| {
        let key = field.trim().split(':').next().unwrap_or_default();
        !fields.split(", ").any(|other| other.trim().starts_with(&format!("{key}:")))
    };
    let usual: Vec<&str> = FAST.split(", ").filter(own).collect();
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}, ") };
    let more = if *more == "HTTP2" { http2() } else { (*more).to_owned() };
    let address = format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
    let metadata = if metadata.is_empty() { String::new() } else { format!("metadata: {{{metadata}}}, ") };
    let endpoint = format!("{{{metadata}endpoint: {{{address}, health_check_config: {{{endpoint}}}}}}}");
    // One of the two ways to name a file.
    let log = format!("${{DIR}}/{name}.events");
    let log = if name.len() % 2 == 0 {
        format!(r#"event_log_path: "{log}""#)
    } else {
        format!(
            r#"event_logger: [{{name: file, typed_config: {{"@type": type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, event_log_path: "{log}"}}}}]"#
        )
    };
    let assignment = format!("load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}");
    cluster(
        name,
        &[],
        &format!(
            "{assignment}, health_checks: [{{{}, {log}, {fields}{check}}}], common_lb_config: {{healthy_panic_threshold: \
             {{value: 0}}}}, {more}",
            usual.join(", ")
        ),
    )
}

/// What was logged about a cluster's hosts, without the times.
fn events(proxy: &Proxy, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(proxy.directory().join(format!("{name}.events"))).unwrap_or_default();
    let untimed = |line: &str| match line.split_once(r#""timestamp":""#) {
        Some((before, after)) => {
            format!(r#"{before}"timestamp":"<time>"{}"#, after.split_once('"').map_or("", |(_, rest)| rest))
        }
        None => line.to_owned(),
    };
    text.lines().map(untimed).collect()
}

/// Waits, but not for ever: what never comes shows in what is compared.
fn patiently(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The status line of a request by the route of a case.
fn status(proxy: &Proxy, name: &str) -> String {
    answer(proxy, name).lines().next().unwrap_or_default().to_owned()
}

/// The answer to a request by the route of a case, without what differs from one to the next.
fn answer(proxy: &Proxy, name: &str) -> String {
    let mut stream = TcpStream::connect(proxy.listener("in")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "GET /{name} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    eventually("an answer", || stream.read_to_string(&mut text).ok());
    let same = |line: &&str| !line.starts_with("date:") && !line.starts_with("x-envoy-upstream-service-time:");
    text.lines().filter(same).collect::<Vec<_>>().join("\n")
}

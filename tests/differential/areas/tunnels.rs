//! Reference 3.9, `tunneling_config`: TCP connections carried over HTTP CONNECT or POST.

use std::time::Duration;

use h2::Reason;

use super::{clusters, upstream};
use crate::manifest::{Area, Case, Step, steps};
use crate::support::bootstrap::{listener_of, protocol};
use crate::support::h2_upstream::Behaviour;
use crate::support::upstream::Act;

const ROW: &str = "3.9 tunneling_config";
const GRANTED: &str = "HTTP/1.1 200 OK\r\n\r\n";

/// The area.
pub fn area() -> Area {
    let tunnel = |name: &'static str, cluster: &str, tunneling: &str, more: &str| {
        let fields = format!("cluster: {cluster}, tunneling_config: {{{tunneling}}}, {more}");
        (name, listener_of(name, &format!("filter_chains: [{{filters: [{}]}}]", filter(name, &fields)), ""))
    };
    let host = r#"hostname: "a.test:80""#;
    let added = r#"headers_to_add: [
        {header: {key: x-port, value: "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"}},
        {header: {key: x-twice, value: one}}, {header: {key: x-twice, value: two}},
        {header: {key: x-nothing, value: "%DYNAMIC_METADATA(a:b)%"}},
        {header: {key: x-kept, value: "%DYNAMIC_METADATA(a:b)%"}, keep_empty_value: true},
        {header: {key: x-req, value: "%REQ(x-a)%"}, keep_empty_value: true},
        {header: {key: x-once, value: first}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]"#;
    let post = |more: &str| format!("{host}, use_post: true{more}");
    let propagating = format!("{host}, propagate_response_headers: true, propagate_response_trailers: true");
    let often = "max_connect_attempts: 3";
    let weighted = "weighted_clusters: {clusters: [{name: up, weight: 1}]}";
    let request_id = r#"request_id_extension: {typed_config: {"@type": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig}}"#;
    let listeners = vec![
        tunnel("plain", "up", host, ""),
        tunnel("plain_h2", "h2", host, ""),
        tunnel(
            "formatted",
            "up",
            r#"hostname: "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%:%REQ(x)%-%REQUESTED_SERVER_NAME%""#,
            "",
        ),
        tunnel("bare", "up", "hostname: bare", ""),
        tunnel("added", "up", &format!("{host}, {added}"), ""),
        tunnel("added_h2", "h2", &format!("{host}, {added}"), ""),
        tunnel("posted", "up", &post(""), ""),
        tunnel("posted_h2", "h2", &post(""), ""),
        tunnel("posted_path", "up", &post(r#", post_path: "/x/y?z""#), ""),
        tunnel("posted_path_h2", "h2", &post(r#", post_path: "/x/y?z""#), ""),
        tunnel("propagated", "up", &propagating, ""),
        tunnel("propagated_h2", "h2", &propagating, ""),
        tunnel("dead", "dead", host, often),
        tunnel("often", "up", host, often),
        tunnel("often_h2", "h2", host, often),
        tunnel("missing", "not_there", host, ""),
        tunnel("empty", "empty", host, ""),
        tunnel("full", "full", host, ""),
        tunnel("silent", "up", host, "idle_timeout: 0.06s"),
        tunnel("silent_h2", "h2", host, "idle_timeout: 0.06s"),
        tunnel("short", "up", host, "max_downstream_connection_duration: 0.06s"),
        tunnel("connected", "up", host, "access_log_options: {flush_access_log_on_connected: true}"),
        tunnel("absolute", "absolute", host, ""),
        tunnel("proper", "proper", &format!("{host}, {added}"), ""),
        tunnel("with_id", "up", &format!("{host}, {request_id}"), ""),
        tunnel(
            "with_id_named",
            "h2",
            &format!("{host}, {request_id}, request_id_header: x-mine, request_id_metadata_key: mine"),
            "",
        ),
        ("weighted", {
            let fields = format!("{weighted}, tunneling_config: {{{host}}}");
            listener_of("weighted", &format!("filter_chains: [{{filters: [{}]}}]", filter("weighted", &fields)), "")
        }),
    ];
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    clusters.push(upstream("full", "${UP}", "circuit_breakers: {thresholds: [{max_requests: 0}]}"));
    let http1 = |fields: &str| protocol(&format!("explicit_http_config: {{http_protocol_options: {{{fields}}}}}"));
    clusters.push(upstream("absolute", "${UP}", &http1("send_fully_qualified_url: true")));
    clusters.push(upstream("proper", "${UP}", &http1("header_key_format: {proper_case_words: {}}")));
    Area { name: "tunnels", listeners, clusters, more: "", cases: cases() }
}

/// A TCP proxy whose log also says what a tunnel leaves behind.
fn filter(name: &str, fields: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    // How long frames are is known to the library alone.
    let wire = if name.ends_with("_h2") || name == "with_id_named" {
        "-"
    } else {
        "%UPSTREAM_WIRE_BYTES_RECEIVED%,%UPSTREAM_WIRE_BYTES_SENT% \
        header=%UPSTREAM_HEADER_BYTES_RECEIVED%,%UPSTREAM_HEADER_BYTES_SENT%"
    };
    let format = "type=%ACCESS_LOG_TYPE% code=%RESPONSE_CODE% details=%RESPONSE_CODE_DETAILS% flags=%RESPONSE_FLAGS% \
        protocol=%PROTOCOL% method=%REQ(:METHOD)% authority=%REQ(:AUTHORITY)% cluster=%UPSTREAM_CLUSTER% \
        host=%UPSTREAM_HOST% in=%BYTES_RECEIVED% out=%BYTES_SENT% wire=%DOWNSTREAM_WIRE_BYTES_RECEIVED%,\
        %DOWNSTREAM_WIRE_BYTES_SENT% upstream_wire=WIRE \
        upstream_protocol=%UPSTREAM_PROTOCOL% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% \
        tried=%UPSTREAM_HOSTS_ATTEMPTED% end=%CONNECTION_TERMINATION_DETAILS% \
        failure=%UPSTREAM_TRANSPORT_FAILURE_REASON% local=%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
        headers=%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:TYPED)% \
        plain=%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:PLAIN)% \
        field=%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:FIELD:x-a)% \
        trailers=%FILTER_STATE(envoy.tcp_proxy.propagate_response_trailers:TYPED)% \
        id=%DYNAMIC_METADATA(envoy.filters.network.tcp_proxy)%";
    let format = format.replace("upstream_wire=WIRE", &format!("upstream_wire={wire}"));
    let format = format!(r#"log_format: {{text_format_source: {{inline_string: "{format}\n"}}}}"#);
    let log = format!(r#"{{name: file, typed_config: {{"@type": {file}, path: "${{DIR}}/{name}.log", {format}}}}}"#);
    format!(r#"{{name: tcp, typed_config: {{"@type": {kind}, stat_prefix: {name}, access_log: [{log}], {fields}}}}}"#)
}

fn cases() -> Vec<Case> {
    let case = |name, listener, steps_: Vec<Step>| steps(name, ROW, listener, steps_);
    [by_http1(&case), by_http2(&case), by_post(&case)].concat()
}

fn ping() -> Step {
    Step::Send(b"ping".to_vec())
}

fn pong() -> Vec<Step> {
    vec![ping(), Step::Until("pong")]
}

/// An upstream that answers CONNECT with `head`, and then talks.
fn answers(head: &str, end: Act) -> Vec<Act> {
    let talk = vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), end];
    [vec![Act::Head, Act::Send(head.as_bytes().to_vec())], talk].concat()
}

fn bulk(last: &str) -> Vec<u8> {
    [vec![b'x'; 300_000], last.as_bytes().to_vec()].concat()
}

fn by_http1(case: &dyn Fn(&'static str, &'static str, Vec<Step>) -> Case) -> Vec<Case> {
    let granted = |end: Act| answers(GRANTED, end);
    let refuses = |head: &str| vec![Act::Head, Act::Send(head.as_bytes().to_vec()), Act::Hold];
    let end = || vec![Step::End];
    vec![
        case("talk", "plain", pong()).acts(granted(Act::Hold)),
        case("weighted", "weighted", pong()).acts(granted(Act::Hold)),
        case("formatted", "formatted", pong()).acts(granted(Act::Hold)),
        case("bare", "bare", pong()).acts(granted(Act::Hold)),
        case("added", "added", pong()).acts(granted(Act::Hold)),
        case("proper_case", "proper", pong()).acts(granted(Act::Hold)),
        case("absolute_form", "absolute", pong()).acts(granted(Act::Hold)),
        case("request_id", "with_id", pong()).acts(granted(Act::Hold)),
        case("status_201", "plain", pong()).acts(answers("HTTP/1.1 201 Created\r\n\r\n", Act::Hold)),
        case("status_204", "plain", pong()).acts(answers("HTTP/1.1 204 No Content\r\n\r\n", Act::Hold)),
        case("status_100_first", "plain", pong())
            .acts(answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Act::Hold)),
        case("status_103_first", "plain", pong())
            .acts(answers("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Act::Hold)),
        case("with_length", "plain", pong()).acts(answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", Act::Hold)),
        case("with_chunks", "plain", pong())
            .acts(answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Act::Hold)),
        case("http10", "plain", pong()).acts(answers("HTTP/1.0 200 OK\r\n\r\n", Act::Hold)),
        case("data_with_the_grant", "plain", vec![Step::Until("hello")]).acts(vec![
            Act::Head,
            Act::Send(format!("{GRANTED}hello").into_bytes()),
            Act::Hold,
        ]),
        case("server_speaks_first", "plain", vec![Step::Until("hello")]).acts(vec![
            Act::Head,
            Act::Send(GRANTED.as_bytes().to_vec()),
            Act::Send(b"hello".to_vec()),
            Act::Hold,
        ]),
        case("refused_403", "plain", end()).acts(refuses("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")),
        case("refused_503_often", "often", end())
            .acts(refuses("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")),
        case("refused_then_granted", "often", pong()).upstream(vec![
            refuses("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
            granted(Act::Hold),
        ]),
        case("redirected", "plain", end()).acts(refuses("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n")),
        case("switched", "plain", end()).acts(refuses("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")),
        case("nonsense", "plain", end()).acts(refuses("what?\r\n\r\n")),
        case("closed_at_once", "often", end()).acts(vec![Act::Head, Act::Close]),
        case("reset_at_once", "often", end()).acts(vec![Act::Head, Act::Reset]),
        case("never_answered", "silent", end()).acts(vec![Act::Hold]),
        case("never_answered_too_long", "short", end()).acts(vec![Act::Hold]),
        case("dead", "dead", end()),
        case("no_cluster", "missing", end()),
        case("no_host", "empty", end()),
        case("overflow", "full", end()),
        case("upstream_closes", "plain", [pong(), end()].concat()).acts(granted(Act::Close)),
        case("upstream_half_closes", "plain", [pong(), end()].concat()).acts(granted(Act::HalfClose)),
        case("upstream_half_closes_client_talks_on", "plain", {
            let more = vec![Step::Pause(Duration::from_millis(60)), Step::Send(b"more".to_vec()), Step::End];
            [pong(), more].concat()
        })
        .acts([granted(Act::HalfClose), vec![Act::Until(b"more"), Act::Close]].concat()),
        case("upstream_resets", "plain", [pong(), end()].concat())
            .acts([granted(Act::Pause(Duration::from_millis(30))), vec![Act::Reset]].concat()),
        case("client_half_closes", "plain", [pong(), vec![Step::HalfClose, Step::End]].concat())
            .acts(granted(Act::Hold)),
        case("client_half_closes_at_once", "plain", vec![ping(), Step::HalfClose, Step::End]).acts(granted(Act::Close)),
        case("client_half_closes_before_the_grant", "plain", vec![Step::HalfClose, Step::End]).acts(vec![
            Act::Head,
            Act::Pause(Duration::from_millis(40)),
            Act::Send(GRANTED.as_bytes().to_vec()),
            Act::Hold,
        ]),
        case("client_resets", "plain", [pong(), vec![Step::Reset]].concat()).acts(granted(Act::Hold)),
        case("idle", "silent", [pong(), end()].concat()).acts(granted(Act::Hold)),
        case("max_duration", "short", [pong(), end()].concat()).acts(granted(Act::Hold)),
        case("log_on_connected", "connected", pong()).acts(granted(Act::Hold)),
        case("log_on_connected_refused", "connected", end()).acts(refuses("HTTP/1.1 403 Forbidden\r\n\r\n")),
        case("propagated", "propagated", pong())
            .acts(answers("HTTP/1.1 200 OK\r\nx-a: b\r\nX-A: c\r\nvia: \"q\"\r\n\r\n", Act::Hold)),
        case("propagated_refusal", "propagated", end()).acts(refuses("HTTP/1.1 403 Forbidden\r\nx-a: b\r\n\r\n")),
        case("bulk_up", "plain", vec![Step::Send(bulk("ping")), Step::Until("pong")]).acts(granted(Act::Hold)),
        case("bulk_down", "plain", vec![ping(), Step::Until("done")]).acts(vec![
            Act::Head,
            Act::Send(GRANTED.as_bytes().to_vec()),
            Act::Until(b"ping"),
            Act::Send(bulk("done")),
            Act::Hold,
        ]),
        case("bulk_down_then_end", "plain", vec![ping(), Step::End]).acts(vec![
            Act::Head,
            Act::Send(GRANTED.as_bytes().to_vec()),
            Act::Until(b"ping"),
            Act::Send(bulk("done")),
            Act::Close,
        ]),
    ]
}

fn by_http2(case: &dyn Fn(&'static str, &'static str, Vec<Step>) -> Case) -> Vec<Case> {
    let echoed = || vec![ping(), Step::Until("ping")];
    let end = || vec![Step::End];
    let at_once = |status| Behaviour::AtOnce(status, vec![("x-a", "b")], "no");
    vec![
        case("h2_talk", "plain_h2", echoed()).h2_upstream(Behaviour::Echo),
        case("h2_added", "added_h2", echoed()).h2_upstream(Behaviour::Echo),
        case("h2_request_id", "with_id_named", echoed()).h2_upstream(Behaviour::Echo),
        case("h2_twice", "plain_h2", [echoed(), vec![Step::Reconnect], echoed()].concat()).h2_upstream(Behaviour::Echo),
        case("h2_client_half_closes", "plain_h2", [echoed(), vec![Step::HalfClose, Step::End]].concat())
            .h2_upstream(Behaviour::Echo),
        case("h2_client_resets", "plain_h2", [echoed(), vec![Step::Reset]].concat()).h2_upstream(Behaviour::Echo),
        case("h2_refused_403", "plain_h2", end()).h2_upstream(at_once(403)),
        case("h2_refused_503_often", "often_h2", end()).h2_upstream(at_once(503)),
        case("h2_status_201", "plain_h2", end()).h2_upstream(at_once(201)),
        case("h2_upstream_ends", "plain_h2", [vec![Step::Until("no")], vec![Step::HalfClose, Step::End]].concat())
            .h2_upstream(at_once(200)),
        case("h2_upstream_ends_client_talks_on", "plain_h2", {
            let more = vec![Step::Until("no"), Step::Pause(Duration::from_millis(40)), ping(), Step::HalfClose];
            [more, end()].concat()
        })
        .h2_upstream(at_once(200)),
        case("h2_reset", "often_h2", end()).h2_upstream(Behaviour::Reset(Reason::CANCEL)),
        case("h2_refused_stream", "often_h2", end()).h2_upstream(Behaviour::Reset(Reason::REFUSED_STREAM)),
        case("h2_connect_error", "often_h2", end()).h2_upstream(Behaviour::Reset(Reason::CONNECT_ERROR)),
        case("h2_reset_later", "plain_h2", end()).h2_upstream(Behaviour::ResetAfterHead(Reason::CANCEL)),
        case("h2_trailers", "propagated_h2", [echoed(), vec![Step::HalfClose, Step::End]].concat())
            .h2_upstream(Behaviour::Parting),
        case("h2_trailers_unread", "plain_h2", [echoed(), vec![Step::HalfClose, Step::End]].concat())
            .h2_upstream(Behaviour::Parting),
        case("h2_never_answered", "silent_h2", end()).h2_upstream(Behaviour::Stall),
        case("h2_idle", "silent_h2", [echoed(), end()].concat()).h2_upstream(Behaviour::Echo),
        case("h2_bulk", "plain_h2", vec![Step::Send(bulk("ping")), Step::Until("ping")]).h2_upstream(Behaviour::Echo),
    ]
}

fn by_post(case: &dyn Fn(&'static str, &'static str, Vec<Step>) -> Case) -> Vec<Case> {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |end: Act| {
        vec![
            Act::Head,
            Act::Send(chunked.as_bytes().to_vec()),
            Act::Until(b"ping"),
            Act::Send(b"4\r\npong\r\n".to_vec()),
            end,
        ]
    };
    let echoed = || vec![ping(), Step::Until("ping")];
    let half_closes = || [pong(), vec![Step::HalfClose, Step::End]].concat();
    vec![
        case("post", "posted", pong()).acts(answers(GRANTED, Act::Hold)),
        case("post_path", "posted_path", pong()).acts(answers(GRANTED, Act::Hold)),
        case("post_with_chunks", "posted", pong()).acts(chunk(Act::Hold)),
        case("post_client_half_closes", "posted", half_closes()).acts(chunk(Act::Hold)),
        case("post_refused", "posted", vec![Step::End]).acts(vec![
            Act::Head,
            Act::Send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec()),
            Act::Hold,
        ]),
        case("post_h2", "posted_h2", echoed()).h2_upstream(Behaviour::Echo),
        case("post_h2_path", "posted_path_h2", echoed()).h2_upstream(Behaviour::Echo),
        case("post_h2_half_closes", "posted_h2", [echoed(), vec![Step::HalfClose, Step::End]].concat())
            .h2_upstream(Behaviour::Echo),
        case("post_h2_refused", "posted_h2", vec![Step::End]).h2_upstream(Behaviour::AtOnce(403, vec![], "no")),
    ]
}

//! Reference 7: every operator of formats, in text and JSON, where it has a value and where it has none.

use super::clusters;
use crate::manifest::{Area, Case, Step, frames, get, request, steps};
use crate::support::bootstrap::{http_listener, listener_of, tcp_filter};
use crate::support::frames as h2;
use crate::support::upstream::Act;

const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// Operators whose value is the same on both sides.
const SAME: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DYNAMIC_METADATA(a:b)",
    "CLUSTER_METADATA(a:b)",
    "UPSTREAM_METADATA(a:b)",
    "METADATA(ROUTE:a:b)",
    "METADATA(ROUTE:a)",
    "METADATA(ROUTE:a:n)",
    "METADATA(ROUTE:a:o)",
    "METADATA(ROUTE:a:b):2",
    "METADATA(LISTENER:a:b)",
    "METADATA(VIRTUAL_HOST:a:b)",
    "ENVIRONMENT(NOT_THERE)",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE(a)",
    "GRPC_STATUS",
    "GRPC_STATUS(SNAKE_STRING)",
    "GRPC_STATUS(NUMBER)",
    "GRPC_STATUS_NUMBER",
    "PATH",
    "PATH(NQ)",
    "PATH(WQ:ORIG)",
    "PROTOCOL",
    "QUERY_PARAM(a)",
    "QUERY_PARAM(a):2",
    "QUERY_PARAM(none)",
    "REQ(:METHOD)",
    "REQ(:PATH):3",
    "REQ(X-NONE?:PATH)",
    "REQ(X-NONE)",
    "REQ(X-LONG):4",
    "REQ(X-EMPTY)",
    "REQUESTED_SERVER_NAME",
    "REQUESTED_SERVER_NAME(HOST_FIRST)",
    "REQUEST_HEADERS_BYTES",
    "RESP(X-REPLY)",
    "RESP(X-NONE)",
    "RESP(:STATUS)",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_TRAILERS_BYTES",
    "ROUTE_NAME",
    "TRACE_ID",
    "TRAILER(X-T)",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_FILTER_STATE(a)",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HOST",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "UPSTREAM_HEADER_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

/// Operators that print a number, which differs, or nothing.
const NUMBERS: &[&str] = &[
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "CONNECTION_ID",
    "COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)",
    "COMMON_DURATION(US_RX_BEG:US_RX_END:us)",
    "COMMON_DURATION(US_TX_BEG:US_TX_END:ns)",
    "COMMON_DURATION(DS_RX_BEG:DS_RX_END:us)",
    "DOWNSTREAM_REMOTE_PORT",
    "DURATION",
    "REQUEST_DURATION",
    "REQUEST_TX_DURATION",
    "RESPONSE_DURATION",
    "RESPONSE_TX_DURATION",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "ROUNDTRIP_DURATION",
    "START_TIME(%s)",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_LOCAL_PORT",
];

/// The area.
pub fn area() -> Area {
    let host = r#"{name: all, domains: ["*"], routes: [
        {name: dead, match: {prefix: "/dead"}, route: {cluster: dead}},
        {name: h2, match: {prefix: "/h2"}, route: {cluster: h2}},
        {name: direct, match: {prefix: "/direct"}, direct_response: {status: 200, body: {inline_string: "hi"}}},
        {name: moved, match: {prefix: "/moved"}, route: {cluster: up, prefix_rewrite: "/there"}},
        {name: up, match: {prefix: "/up"}, metadata: {filter_metadata: {a: {b: "text", n: 1.5, o: {p: [1, true, null, "x"]}}}}, route: {cluster: up}}]}"#;
    let same = || SAME.iter().map(|name| (*name, format!("%{name}%")));
    let numbers = || NUMBERS.iter().map(|name| (*name, format!("%{name}%")));
    let mixed = [("mixed", "a %REQ(X-NONE)% b".to_owned()), ("two", "%RESPONSE_CODE%%RESPONSE_FLAGS%".to_owned())];
    let text = |more: &str| {
        let line: Vec<String> = same().map(|(name, value)| format!("{name} is {value}.")).collect();
        let times: Vec<String> =
            numbers().map(|(name, value)| format!("{} is <{value}>.", name.replace('%', ""))).collect();
        let line = [line, times].concat().join(" ");
        format!(r#"log_format: {{text_format_source: {{inline_string: "{line}\n"}}{more}}}"#)
    };
    let json = |more: &str| {
        let members: Vec<String> = same()
            .chain(mixed.iter().map(|(name, value)| (*name, value.clone())))
            .map(|(name, value)| format!(r#""{name}": "{value}""#))
            .chain(numbers().map(|(name, value)| format!(r#""t {name}": "{value}""#)))
            .collect();
        let nested = r#""nested": {"inner": {"code": "%RESPONSE_CODE%", "none": "%REQ(X-NONE)%"}}, "list": ["%RESPONSE_CODE%", "%REQ(X-NONE)%", "plain"], "number": 5, "yes": true, "null": null"#;
        format!(r#"log_format: {{json_format: {{{}, {nested}}}{more}}}"#, members.join(", "))
    };
    let log = |name: &str, format: &str| {
        format!(
            r#"access_log: [{{name: file, typed_config: {{"@type": {FILE}, path: "${{DIR}}/{name}.log", {format}}}}}]"#
        )
    };
    let http = |name: &'static str, format: String| (name, http_listener(name, &log(name, &format), host, ""));
    let tcp = |name: &'static str, format: String, cluster: &str| {
        let filter = tcp_filter(name, &format!("cluster: {cluster}"));
        let from = filter.find("access_log: [").unwrap_or(0);
        let to = filter.rfind("], cluster").map_or(from, |at| at + 1);
        let filter = format!("{}{}{}", &filter[..from], log(name, &format), &filter[to..]);
        (name, listener_of(name, &format!("filter_chains: [{{name: chain, filters: [{filter}]}}]"), ""))
    };
    let listeners = vec![
        http("text", text("")),
        http("text_omit", text(", omit_empty_values: true")),
        http("json", json("")),
        http("json_omit", json(", omit_empty_values: true")),
        http("default_format", String::new()),
        tcp("tcp_text", text(""), "up"),
        tcp("tcp_json", json(""), "up"),
        tcp("tcp_dead", json(""), "dead"),
    ];
    Area { name: "formats", listeners, clusters: clusters(), more: "", cases: cases() }
}

fn cases() -> Vec<Case> {
    let row = "7.1 operators";
    let named =
        |listener: &str, case: &str| -> &'static str { Box::leak(format!("{listener} {case}").into_boxed_str()) };
    let more = ["x-long: abcdefgh", "x-empty:", "user-agent: curl"];
    let mut cases = Vec::new();
    for listener in ["text", "text_omit", "json", "json_omit", "default_format"] {
        cases.extend([
            get(named(listener, "up"), row, listener, "/up?a=bcd&e", &more)
                .reply("HTTP/1.1 200 OK\r\nx-reply: yes\r\ncontent-length: 2\r\n\r\nok"),
            get(named(listener, "chunked"), row, listener, "/up?a=%20x%22", &["x-long: \"q\\"])
                .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            get(named(listener, "no_route"), row, listener, "/none", &more),
            get(named(listener, "dead"), row, listener, "/dead", &more),
            get(named(listener, "direct"), row, listener, "/direct?a", &more),
            get(named(listener, "moved"), row, listener, "/moved?a=1", &more),
            get(named(listener, "grpc"), row, listener, "/up", &["content-type: application/grpc"]).reply(
                "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 5\r\ncontent-length: 0\r\n\r\n",
            ),
            get(named(listener, "closed"), row, listener, "/up", &[]).acts(vec![Act::Request, Act::Close]),
            steps(
                named(listener, "malformed"),
                row,
                listener,
                vec![Step::Send(b"GET / HTTP/1.1\r\nbad header: x\r\n\r\n".to_vec()), Step::Responses(1)],
            ),
            steps(
                named(listener, "body"),
                row,
                listener,
                vec![
                    Step::Send(b"POST /up HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello".to_vec()),
                    Step::Responses(1),
                    Step::Send(request("GET", "/up", &[])),
                    Step::Responses(2),
                ],
            ),
            frames(named(listener, "h2"), row, listener, &[h2::request(1, &h2::get("/up", &[]))]),
            get(named(listener, "to_h2"), row, listener, "/h2", &[]),
        ]);
    }
    for listener in ["tcp_text", "tcp_json"] {
        cases.push(
            steps(named(listener, "talk"), row, listener, vec![Step::Send(b"ping".to_vec()), Step::Until("pong")])
                .acts(vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), Act::Hold]),
        );
    }
    cases.push(steps("tcp_dead", row, "tcp_dead", vec![Step::End]));
    cases
}

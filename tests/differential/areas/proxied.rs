//! Reference 3.9, `upstream_proxy_protocol`: connections to hosts that begin with a PROXY header.

use super::{clusters, upstream};
use crate::manifest::{Area, Case, Step, request, steps};
use crate::support::bootstrap::{TO_UP, http_filter, listener_of, tcp_filter};
use crate::support::upstream::Act;

const ROW: &str = "3.9 upstream PROXY protocol";

/// The area.
pub fn area() -> Area {
    let tcp = |name: &'static str, fields: &str, listener: &str| {
        (name, listener_of(name, &format!("filter_chains: [{{filters: [{}]}}]", tcp_filter(name, fields)), listener))
    };
    let http = |name: &'static str, cluster: &str, manager: &str, listener: &str| {
        let routes = TO_UP.replace("cluster: up", &format!("cluster: {cluster}"));
        let filter = http_filter(name, manager, &routes);
        (name, listener_of(name, &format!("filter_chains: [{{filters: [{filter}]}}]"), listener))
    };
    let tlvs = |more: &str| {
        format!(
            "proxy_protocol_tlvs: [{{type: 240, value: YWJj}}, {{type: 5, value: ZGVm}}, \
             {{type: 241, format_string: {{text_format_source: {{inline_string: \"x%REQ(a)%y%PROTOCOL%\"}}}}}}]{more}"
        )
    };
    let all = "pass_through_tlvs: {}";
    let some = "pass_through_tlvs: {match_type: INCLUDE, tlv_type: [5]}";
    let policy = |name: &str| format!("cluster: all, {}", tlvs(&format!(", proxy_protocol_tlv_merge_policy: {name}")));
    let listeners = vec![
        tcp("tcp_v1", "cluster: v1", ""),
        tcp("tcp_v2", "cluster: v2", ""),
        tcp("tcp_default", "cluster: default", ""),
        tcp("told", "cluster: all", &heard(all)),
        tcp("told_some", "cluster: all", &heard(some)),
        tcp("told_nothing", "cluster: all", &heard("")),
        tcp("passes_some", "cluster: some", &heard(all)),
        tcp("passes_nothing", "cluster: v2", &heard(all)),
        tcp("v1_of_told", "cluster: v1", &heard(all)),
        tcp("own", &format!("cluster: all, {}", tlvs("")), ""),
        tcp("own_not_passed", &format!("cluster: v2, {}", tlvs("")), ""),
        tcp("own_if_absent", &policy("ADD_IF_ABSENT"), &heard(all)),
        tcp("own_over", &policy("OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD"), &heard(all)),
        tcp("own_after", &policy("APPEND_IF_EXISTS_OR_ADD"), &heard(all)),
        tcp("adds", "cluster: adds", &heard(all)),
        tcp("adds_of_host", "cluster: adds_of_host", &heard(all)),
        tcp("matched", "cluster: matched", ""),
        tcp("cut", "cluster: cut", ""),
        tcp("dead", "cluster: dead_v1, max_connect_attempts: 2", ""),
        http("http_v1", "v1", "", ""),
        http("http_v2", "v2", "", ""),
        http("http_told", "all", "", &heard(all)),
        http("http_untold_v1", "v1", "add_proxy_protocol_connection_state: false", ""),
        http("http_untold_v2", "v2", "add_proxy_protocol_connection_state: false", ""),
        http("http_untold_but_heard", "all", "add_proxy_protocol_connection_state: false", &heard(all)),
    ];
    let mut clusters = clusters();
    let with = |name: &str, config: &str| upstream(name, "${UP}", &socket(config));
    clusters.push(with("default", ""));
    clusters.push(with("v1", "version: V1"));
    clusters.push(with("v2", "version: V2"));
    clusters.push(with("all", "version: V2, pass_through_tlvs: {}"));
    clusters.push(with("some", "version: V2, pass_through_tlvs: {match_type: INCLUDE, tlv_type: [5, 234]}"));
    let added = "added_tlvs: [{type: 5, value: Zmlyc3Q=}, {type: 5, value: c2Vjb25k}, {type: 224, value: YWRkZWQ=}, \
                 {type: 225, format_string: {text_format_source: {inline_string: \"-%UPSTREAM_CLUSTER%-%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%-\"}}}]";
    clusters.push(with("adds", &format!("version: V2, pass_through_tlvs: {{}}, {added}")));
    let own = r#"{"@type": type.googleapis.com/envoy.config.core.v3.PerHostConfig, added_tlvs: [{type: 224, value: aG9zdA==}, {type: 226, value: bW9yZQ==}]}"#;
    let metadata = format!("metadata: {{typed_filter_metadata: {{envoy.transport_sockets.proxy_protocol: {own}}}}}");
    clusters.push(placed(
        "adds_of_host",
        &metadata,
        &socket(&format!("version: V2, pass_through_tlvs: {{}}, {added}")),
    ));
    let long = |kind: u8, length: usize| format!("{{type: {kind}, value: \"{}\"}}", "YWFh".repeat(length / 3));
    clusters.push(with(
        "cut",
        &format!("version: V2, added_tlvs: [{}, {}, {}]", long(1, 60_000), long(2, 9_000), long(3, 30)),
    ));
    clusters.push(placed(
        "matched",
        "metadata: {filter_metadata: {envoy.transport_socket_match: {speaks: proxy}}}",
        &format!("transport_socket_matches: [{{name: p, match: {{speaks: proxy}}, {}}}]", socket("version: V1")),
    ));
    clusters.push(upstream("dead_v1", "${DEAD}", &socket("version: V1")));
    Area { name: "proxied", listeners, clusters, more: "", cases: cases() }
}

/// A listener that reads PROXY headers, with this said about facts.
fn heard(pass: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    format!(r#"listener_filters: [{{name: proxy, typed_config: {{"@type": {kind}, {pass}}}}}]"#)
}

/// A transport socket that sends PROXY headers.
fn socket(config: &str) -> String {
    let kind =
        "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
    let raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    let inner = format!(r#"transport_socket: {{name: raw, typed_config: {{"@type": {raw}}}}}"#);
    format!(r#"transport_socket: {{name: proxy, typed_config: {{"@type": {kind}, config: {{{config}}}, {inner}}}}}"#)
}

/// A cluster whose host has metadata.
fn placed(name: &str, metadata: &str, more: &str) -> String {
    let address = "{socket_address: {address: 127.0.0.1, port_value: ${UP}}}";
    let endpoint = format!("{{endpoint: {{address: {address}}}, {metadata}}}");
    format!(
        "{{name: {name}, connect_timeout: 2s, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}, {more}}}"
    )
}

/// A version 2 header of a client, with facts.
fn spoken(command: u8, tlvs: &[u8]) -> Vec<u8> {
    let addresses = [10, 1, 2, 3, 10, 4, 5, 6, 0x12, 0x34, 0, 80];
    let family = if command == 0x20 { 0 } else { 0x11 };
    let addresses = if command == 0x20 { &[][..] } else { &addresses[..] };
    let length = u16::try_from(addresses.len() + tlvs.len()).unwrap_or(0).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, addresses, tlvs].concat()
}

fn cases() -> Vec<Case> {
    let talk = || vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), Act::Hold];
    let ping = |before: &[u8]| vec![Step::Send([before, b"ping"].concat()), Step::Until("pong")];
    let case = |name, listener, before: &[u8]| steps(name, ROW, listener, ping(before)).acts(talk());
    let facts: &[u8] = &[5, 0, 2, b'o', b'k', 0xea, 0, 1, b'z', 5, 0, 1, b'2'];
    let told = spoken(0x21, facts);
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
    let get = |path: &str| request("GET", path, &[]);
    let served = || vec![Act::Until(b" HTTP/1.1\r\n"), Act::Head, Act::Send(ok.clone())];
    let http = |name, listener, before: &[u8]| {
        let list = vec![
            Step::Send([before, &get("/1")].concat()),
            Step::Responses(1),
            Step::Send(get("/2")),
            Step::Responses(2),
            Step::Reconnect,
            Step::Send([before, &get("/3")].concat()),
            Step::Responses(1),
        ];
        // The second request on a connection has no header before it.
        let later = vec![Act::Head, Act::Send(ok.clone())];
        steps(name, ROW, listener, list).acts([served(), later].concat()).status(200)
    };
    vec![
        case("tcp_v1", "tcp_v1", b""),
        case("tcp_v2", "tcp_v2", b""),
        case("tcp_default", "tcp_default", b""),
        case("told", "told", &told),
        case("told_some", "told_some", &told),
        case("told_nothing", "told_nothing", &told),
        case("passes_some", "passes_some", &told),
        case("passes_nothing", "passes_nothing", &told),
        case("local_command", "told", &spoken(0x20, &[])),
        case("told_by_v1", "told", b"PROXY TCP4 10.1.2.3 10.4.5.6 1111 80\r\n"),
        case("told_by_v1_ip6", "told", b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 80\r\n"),
        case("v1_of_told", "v1_of_told", &told),
        case("v1_of_ip6", "v1_of_told", b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 80\r\n"),
        case("own", "own", b""),
        case("own_not_passed", "own_not_passed", b""),
        case("own_if_absent", "own_if_absent", &told),
        case("own_over", "own_over", &told),
        case("own_after", "own_after", &told),
        case("adds", "adds", &told),
        case("adds_of_host", "adds_of_host", &told),
        case("matched", "matched", b""),
        case("cut", "cut", b""),
        steps("dead", ROW, "dead", vec![Step::End]),
        steps("silent_client", ROW, "tcp_v1", vec![Step::Until("hello")]).acts(vec![
            Act::Until(b"\r\n"),
            Act::Send(b"hello".to_vec()),
            Act::Hold,
        ]),
        http("http_v1", "http_v1", b""),
        http("http_v2", "http_v2", b""),
        http("http_told", "http_told", &told),
        http("http_untold_v1", "http_untold_v1", b""),
        http("http_untold_v2", "http_untold_v2", b""),
        http("http_untold_but_heard", "http_untold_but_heard", &told),
    ]
}

//! RFC 9112 and 9110: how HTTP/1 exchanges begin, overlap, are upgraded and end, on either side.

mod beginnings;
mod endings;

use std::time::Duration;

use super::{answered, clusters, plain, send, upstream};
use crate::manifest::{Area, Case, Step, case, get, request, steps};
use crate::support::upstream::Act;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The area.
pub fn area() -> Area {
    let formatter = r#"header_key_format: {stateful_formatter: {name: preserve_case, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig, forward_reason_phrase: true}}}"#;
    let listeners = vec![
        plain("usual", ""),
        plain("h10", "http_protocol_options: {accept_http_10: true}"),
        plain("keep_open", "stream_error_on_invalid_http_message: true"),
        plain("continue", "proxy_100_continue: true"),
        plain("upgrade", "upgrade_configs: [{upgrade_type: websocket}]"),
        plain("edge", "use_remote_address: true"),
        plain("twice", "common_http_protocol_options: {max_requests_per_connection: 2}"),
        super::routed(
            "spelled",
            &format!("http_protocol_options: {{{formatter}}}"),
            r#"{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: spelled}}]}"#,
        ),
    ];
    let mut clusters = clusters();
    clusters.push(upstream(
        "spelled",
        "${UP}",
        &format!(
            r#"typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http_protocol_options: {{{formatter}}}}}}}}}"#
        ),
    ));
    let mut cases = beginnings::beginnings();
    cases.extend(bodies());
    cases.extend(endings::endings());
    cases.extend(upgrades());
    cases.extend(replies());
    Area { name: "http1_exchanges", listeners, clusters, more: "", cases }
}

fn pause(millis: u64) -> Step {
    Step::Pause(Duration::from_millis(millis))
}

/// Request bodies, and what comes behind them.
fn bodies() -> Vec<Case> {
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let three = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nPOST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nhost: a\r\n\r\n";
    let begun = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc";
    vec![
        case("no_chunks", "RFC 9112 7.1", "usual", format!("{chunked}0\r\n\r\n")),
        steps(
            "no_chunks_yet",
            "RFC 9112 7.1",
            "usual",
            vec![Step::Send(chunked.into()), pause(30), Step::Send(b"0\r\n\r\n".to_vec()), Step::Responses(1)],
        ),
        steps(
            "chunk_by_chunk",
            "RFC 9112 7.1",
            "usual",
            vec![
                Step::Send(chunked.into()),
                pause(20),
                Step::Send(b"3\r\nabc\r\n".to_vec()),
                pause(20),
                Step::Send(b"2\r\nde\r\n0\r\n\r\n".to_vec()),
                Step::Responses(1),
            ],
        ),
        steps(
            "bad_chunk_later",
            "2.2 bad chunk size",
            "usual",
            vec![
                Step::Send(format!("{chunked}3\r\nabc\r\n").into()),
                pause(40),
                Step::Send(b"zz\r\n".to_vec()),
                Step::Responses(1),
            ],
        ),
        steps(
            "bad_chunk_after_reply",
            "2.2 bad chunk size",
            "usual",
            vec![
                Step::Send(format!("{chunked}3\r\nabc\r\n").into()),
                Step::Until("ok"),
                Step::Send(b"zz\r\n".to_vec()),
                pause(30),
            ],
        )
        .acts(vec![Act::Head, send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok"), Act::Hold]),
        steps("gone_in_body", "2.10 client gone", "usual", vec![Step::Send(begun.into()), pause(40)])
            .acts(vec![Act::Request]),
        steps("three_in_one", "2.2 pipelining", "usual", vec![Step::Send(three.into()), Step::Responses(3)]),
        case(
            "more_than_said",
            "2.2 pipelining",
            "usual",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nabGARBAGE",
        ),
        steps(
            "garbage_later",
            "2.2 pipelining",
            "usual",
            vec![
                Step::Send(request("GET", "/", &[])),
                Step::Responses(1),
                Step::Send(b"\x00\x01\r\n\r\n".to_vec()),
                Step::Responses(2),
            ],
        ),
        case("early_with_body", "DESIGN 3 early reply", "usual", begun).acts(vec![
            Act::Head,
            send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Act::Hold,
        ]),
        steps(
            "early_then_rest",
            "DESIGN 3 early reply",
            "usual",
            vec![
                Step::Send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc".to_vec()),
                Step::Until("o"),
                Step::Send(b"def".to_vec()),
                Step::Responses(1),
            ],
        )
        .acts(vec![
            Act::Head,
            send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no"),
            Act::Until(b"abcdef"),
            send("k"),
        ]),
        case("upstream_leaves", "2.10 upstream closed before headers", "usual", begun)
            .acts(vec![Act::Head, Act::Close]),
        case("upstream_resets", "2.10 upstream RST before headers", "usual", begun).acts(vec![Act::Head, Act::Reset]),
        case(
            "refused_with_body",
            "2.10 connect failed",
            "usual",
            "POST /x HTTP/1.1\r\nhost: a b\r\ncontent-length: 3\r\n\r\nabc",
        ),
    ]
}

/// Upgrades, granted and not.
fn upgrades() -> Vec<Case> {
    let asks = |name, lines: &[&str]| get(name, "2.1 upgrade_configs", "upgrade", "/", lines);
    let websocket: &[&str] = &["connection: upgrade", "upgrade: websocket"];
    let granted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    vec![
        asks("websocket_answered_with_body", websocket).reply("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"),
        asks("refused_chunked", websocket)
            .reply("HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
        asks("refused_without_body", websocket).reply("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
        asks("upstream_leaves_websocket", websocket).acts(vec![Act::Head, Act::Close]),
        steps(
            "granted",
            "2.1 upgrade_configs",
            "upgrade",
            vec![
                Step::Send(request("GET", "/", websocket)),
                Step::Until("\r\n\r\n"),
                Step::Send(b"ping".to_vec()),
                Step::Until("pong"),
            ],
        )
        .acts(vec![Act::Head, send(granted), Act::Until(b"ping"), send("pong"), Act::Close]),
        steps(
            "client_leaves",
            "2.1 upgrade_configs",
            "upgrade",
            vec![
                Step::Send(request("GET", "/", websocket)),
                Step::Until("\r\n\r\n"),
                Step::Send(b"ping".to_vec()),
                Step::Until("pong"),
                Step::HalfClose,
                pause(40),
            ],
        )
        .acts(vec![Act::Head, send(granted), Act::Until(b"ping"), send("pong"), Act::Hold]),
        steps(
            "early_bytes",
            "2.1 upgrade_configs",
            "upgrade",
            vec![
                Step::Send([&request("GET", "/", websocket)[..], b"ping"].concat()),
                Step::Until("pong"),
                Step::HalfClose,
                pause(40),
            ],
        )
        .acts(vec![Act::Head, send(granted), Act::Until(b"ping"), send("pong"), Act::Hold]),
        asks("redirected", websocket).reply("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 2\r\n\r\nno"),
        asks("connection_only", &["connection: upgrade"]),
        asks("upgrade_only", &["upgrade: websocket"]),
        asks("other_protocol", &["connection: upgrade", "upgrade: other"]),
        asks("h2c", &["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: x"]),
        asks("several", &["connection: keep-alive, Upgrade", "upgrade: WebSocket"])
            .reply("HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n"),
        case(
            "with_length",
            "2.1 upgrade_configs",
            "upgrade",
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc",
        )
        .acts(vec![Act::Head, send("HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n"), Act::Hold]),
    ]
}

/// Heads of responses.
fn replies() -> Vec<Case> {
    vec![
        answered(
            "te_uppercase",
            "10 smuggling",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        answered("te_identity", "10 smuggling", "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nabc"),
        answered(
            "te_twice",
            "10 smuggling",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        answered("length_plus", "10 smuggling", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"),
        answered("length_empty", "10 smuggling", "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nok"),
        answered("length_list", "10 smuggling", "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok"),
        answered("no_colon", "2.2 space before colon", "HTTP/1.1 200 OK\r\nnonsense\r\ncontent-length: 0\r\n\r\n"),
        answered("empty_name", "2.2 space before colon", "HTTP/1.1 200 OK\r\n: x\r\ncontent-length: 0\r\n\r\n"),
        answered("304_chunked", "2.10 normal", "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n"),
        answered("205", "2.10 normal", "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"),
        answered("204_and_close", "3.9 reuse", "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        answered(
            "keep_alive",
            "3.9 reuse",
            "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered(
            "proxy_close",
            "3.9 reuse",
            "HTTP/1.1 200 OK\r\nproxy-connection: close\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered(
            "http10_kept",
            "3.9 reuse",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered(
            "names_headers",
            "2.3 hop-by-hop",
            "HTTP/1.1 200 OK\r\nconnection: x-a\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered(
            "upgrade_offered",
            "2.3 hop-by-hop",
            "HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered("bare_lf_chunks", "2.2 bare LF", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n"),
        answered(
            "chunk_extension",
            "RFC 9112 7.1.1",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n",
        ),
        answered("first_line_folded", "2.2 obs-fold", "HTTP/1.1 200 OK\r\n x: y\r\ncontent-length: 0\r\n\r\n"),
        answered("empty_lines_first", "RFC 9112 2.2", "\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        answered("lowercase_version", "2.10 protocol error", "http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        answered("http11_without_status", "2.10 protocol error", "HTTP/1.1\r\ncontent-length: 0\r\n\r\n"),
        answered("http09", "2.10 protocol error", "hello\n"),
    ]
}

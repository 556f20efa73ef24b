//! RFC 9112 and 9110: how HTTP/1 exchanges begin, overlap, are upgraded and end, on either side.

use std::time::Duration;

use super::{clusters, plain, upstream};
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
    let mut cases = beginnings();
    cases.extend(bodies());
    cases.extend(endings());
    cases.extend(upgrades());
    cases.extend(replies());
    Area { name: "http1_exchanges", listeners, clusters, more: "", cases }
}

fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

fn pause(millis: u64) -> Step {
    Step::Pause(Duration::from_millis(millis))
}

/// Heads: how they come, and what they ask of the connection.
fn beginnings() -> Vec<Case> {
    let raw = |name, row, listener, bytes: &str| case(name, row, listener, bytes);
    vec![
        raw("http10_without_host", "2.1 accept_http_10", "h10", "GET / HTTP/1.0\r\n\r\n"),
        raw(
            "http10_keep_alive",
            "2.1 accept_http_10",
            "h10",
            "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
        ),
        raw("http10_of_chunks", "2.1 accept_http_10", "h10", "GET / HTTP/1.0\r\nhost: a\r\n\r\n")
            .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        raw(
            "http10_of_chunks_kept",
            "2.1 accept_http_10",
            "h10",
            "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
        )
        .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        raw(
            "http10_expects",
            "2.1 accept_http_10",
            "h10",
            "POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
        ),
        raw("http10_head", "2.1 accept_http_10", "h10", "HEAD / HTTP/1.0\r\nhost: a\r\n\r\n").methods(&["HEAD"]),
        raw(
            "two_request_ids",
            "2.4 x-request-id",
            "usual",
            "GET / HTTP/1.1\r\nhost: a\r\nx-request-id: a\r\nx-request-id: b\r\n\r\n",
        ),
        raw("https_at_the_edge", "2.1 allow_absolute_url", "edge", "GET https://a.test/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("http_at_the_edge", "2.1 allow_absolute_url", "edge", "GET http://a.test/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw(
            "https_said_and_forwarded",
            "2.1 allow_absolute_url",
            "usual",
            "GET http://a.test/x HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\n\r\n",
        ),
        raw("fragment_kept_open", "2.1 stream_error_on_invalid", "keep_open", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw("star_kept_open", "2.1 stream_error_on_invalid", "keep_open", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"),
        raw(
            "proxy_connection_close",
            "2.3 hop-by-hop",
            "usual",
            "GET / HTTP/1.1\r\nhost: a\r\nproxy-connection: close\r\n\r\n",
        ),
        raw(
            "both_connections",
            "2.3 hop-by-hop",
            "usual",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, close\r\n\r\n",
        ),
        raw("head_and_close", "2.10 HEAD", "usual", "HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .methods(&["HEAD"]),
        raw(
            "expects_something",
            "2.1 proxy_100_continue",
            "usual",
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: the-unexpected\r\ncontent-length: 1\r\n\r\nx",
        ),
        raw(
            "expects_without_body",
            "2.1 proxy_100_continue",
            "usual",
            "GET / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
        ),
        raw(
            "expects_case",
            "2.1 proxy_100_continue",
            "usual",
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-CONTINUE\r\ncontent-length: 1\r\n\r\nx",
        ),
        raw(
            "expects_through",
            "2.1 proxy_100_continue",
            "continue",
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
        )
        .acts(vec![Act::Head, send("HTTP/1.1 100 Continue\r\n\r\n"), Act::Until(b"x"), send(OK)]),
        raw(
            "expects_refused",
            "2.1 proxy_100_continue",
            "continue",
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
        )
        .acts(vec![Act::Head, send("HTTP/1.1 417 No\r\ncontent-length: 2\r\n\r\nno")]),
        raw(
            "spelled",
            "2.1 header_key_format",
            "spelled",
            "GET / HTTP/1.1\r\nHoSt: a\r\nX-Aa: 1\r\nx-BB: 2\r\nx-aA: 3\r\n\r\n",
        )
        .reply("HTTP/1.1 200 Fine By Me\r\nContent-LENGTH: 2\r\nX-Reply-ID: 1\r\nx-aa: 4\r\n\r\nok"),
        raw(
            "spelled_chunks",
            "2.1 header_key_format",
            "spelled",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        )
        .reply("HTTP/1.1 201 \r\nTransfer-Encoding: chunked\r\nServer: x\r\n\r\n1\r\nb\r\n0\r\n\r\n"),
        steps(
            "slow_head",
            "RFC 9112 2",
            "usual",
            vec![
                Step::Send(b"GE".to_vec()),
                pause(15),
                Step::Send(b"T / HTTP/1.1\r".to_vec()),
                pause(15),
                Step::Send(b"\nhost: a\r\n".to_vec()),
                pause(15),
                Step::Send(b"\r\n".to_vec()),
                Step::Responses(1),
            ],
        ),
        steps("gone_in_head", "RFC 9112 2", "usual", vec![Step::Send(b"GET / HTTP/1.1\r\nho".to_vec()), pause(20)]),
        steps("gone_before_head", "RFC 9112 2", "usual", vec![Step::Send(b"\r\n\r\n".to_vec()), pause(20)]),
        steps(
            "last_of_two",
            "2.1 max_requests_per_connection",
            "twice",
            vec![
                Step::Send(request("GET", "/1", &[])),
                Step::Responses(1),
                Step::Send(request("GET", "/2", &[])),
                Step::Responses(2),
            ],
        ),
    ]
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

/// How responses end.
fn endings() -> Vec<Case> {
    let with = |name, row, acts| get(name, row, "usual", "/", &[]).acts(acts);
    let later = || Act::Pause(Duration::from_millis(30));
    let again = |name, row, script: Vec<Vec<Act>>| {
        steps(
            name,
            row,
            "usual",
            vec![
                Step::Send(request("GET", "/1", &[])),
                Step::Responses(1),
                pause(60),
                Step::Send(request("GET", "/2", &[])),
                Step::Responses(2),
            ],
        )
        .upstream(script)
    };
    vec![
        with(
            "reset_until_close",
            "2.10 truncated body",
            vec![Act::Request, send("HTTP/1.1 200 OK\r\n\r\nabc"), later(), Act::Reset],
        ),
        with(
            "reset_in_head",
            "2.10 truncated body",
            vec![Act::Request, send("HTTP/1.1 200 OK\r\nx-a"), later(), Act::Reset],
        ),
        with(
            "close_after_head",
            "2.10 truncated body",
            vec![Act::Request, send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"), later(), Act::Close],
        ),
        with(
            "close_in_trailers",
            "2.10 truncated body",
            vec![
                Act::Request,
                send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t"),
                Act::Close,
            ],
        ),
        with(
            "bad_chunk_of_response",
            "2.10 protocol error",
            vec![
                Act::Request,
                send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
                later(),
                send("zz\r\n"),
                Act::Hold,
            ],
        ),
        get("grpc_cut", "2.10 gRPC", "usual", "/", &["content-type: application/grpc"]).acts(vec![
            Act::Request,
            send("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            later(),
            Act::Close,
        ]),
        get("http10_cut", "2.1 accept_http_10", "h10", "/", &[]).acts(vec![
            Act::Request,
            send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
            Act::Close,
        ]),
        again(
            "speaks_while_idle",
            "3.9 HTTP/1 reuse",
            vec![
                vec![Act::Request, send(OK), Act::Pause(Duration::from_millis(20)), send("junk"), Act::Hold],
                vec![Act::Request, send(OK)],
            ],
        ),
        again(
            "leaves_while_idle",
            "3.9 HTTP/1 reuse",
            vec![
                vec![Act::Request, send(OK), Act::Pause(Duration::from_millis(20)), Act::Close],
                vec![Act::Request, send(OK)],
            ],
        ),
        again(
            "times_out_while_idle",
            "3.9 HTTP/1 reuse",
            vec![
                vec![
                    Act::Request,
                    send(OK),
                    Act::Pause(Duration::from_millis(20)),
                    send("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
                    Act::Close,
                ],
                vec![Act::Request, send(OK)],
            ],
        ),
        get("gone_after_continue", "2.10 stray 100", "continue", "/", &[]).acts(vec![
            Act::Request,
            send("HTTP/1.1 100 Continue\r\n\r\n"),
            later(),
            Act::Close,
        ]),
        get("hints_through", "2.1 1xx", "continue", "/", &[])
            .reply("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        get("processing_through", "2.1 1xx", "continue", "/", &[])
            .reply("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        get("continue_twice", "2.1 1xx", "continue", "/", &[]).reply(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        get("continue_after_hints", "2.1 1xx", "continue", "/", &[])
            .reply("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        get(
            "repeated_headers",
            "2.4 order of headers",
            "usual",
            "/",
            &["accept: a", "x-a: 1", "accept: b", "x-a: 2", "accept:", "via: x", "user-agent:", "user-agent: y", "via: z"],
        )
        .reply("HTTP/1.1 200 OK\r\netag: a\r\nx-a: 1\r\netag: b\r\nx-a: 2\r\nvary: x\r\nvary: y\r\ncontent-length: 2\r\n\r\nok"),
        get("continue_with_length", "2.1 1xx", "continue", "/", &[])
            .reply("HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
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
    let answered = |name, row, reply: &str| get(name, row, "usual", "/", &[]).reply(reply.to_owned());
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

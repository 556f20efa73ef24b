//! Reference 2.10 and issue's hostile upstreams: what an HTTP/1 upstream may answer.

use std::time::Duration;

use super::{acted, answered, clusters, plain, routes, send, twice, upstream, with_two_addresses};
use crate::manifest::{Area, Case, Step, case, get, request, steps};
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let listeners = vec![
        plain("usual", ""),
        plain("continue", "proxy_100_continue: true"),
        plain("upgrade", "upgrade_configs: [{upgrade_type: websocket}]"),
        routes("happy", "{match: {prefix: /}, route: {cluster: happy}}"),
        routes("unhappy", "{match: {prefix: /}, route: {cluster: unhappy}}"),
    ];
    let mut clusters = clusters();
    clusters.push(upstream("unused", "${UP}", ""));
    clusters.push(with_two_addresses("happy", "${DEAD}", "${UP}"));
    clusters.push(with_two_addresses("unhappy", "${DEAD}", "${DEAD}"));
    Area { name: "upstreams", listeners, clusters, more: "", cases: cases() }
}

fn cases() -> Vec<Case> {
    let closed = |name, row, reply: &str| get(name, row, "usual", "/", &[]).reply_and_close(reply.to_owned());
    let again = |name, row, script| twice(name, row, None, script);
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    vec![
        get("first_address_refuses", "3.9 happy eyeballs", "happy", "/", &[]).status(200),
        get("all_addresses_refuse", "3.9 happy eyeballs", "unhappy", "/", &[]).status(503),
        acted("close_at_once", "2.10 upstream closed before headers", vec![Act::Close]).status(503),
        acted("close_after_request", "2.10 upstream closed before headers", vec![Act::Request, Act::Close]).status(503),
        acted("reset_after_request", "2.10 upstream RST before headers", vec![Act::Request, Act::Reset]).status(503),
        acted(
            "half_close_after_request",
            "2.10 upstream closed before headers",
            vec![Act::Request, Act::HalfClose, Act::Hold],
        )
        .status(503),
        closed("close_in_head", "2.10 upstream closed before headers", "HTTP/1.1 200 OK\r\ncontent-le"),
        closed("close_in_body", "2.10 truncated body", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
        closed(
            "close_in_chunk",
            "2.10 truncated body",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
        ),
        closed(
            "close_before_last_chunk",
            "2.10 truncated body",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ),
        acted(
            "reset_in_body",
            "2.10 truncated body",
            vec![
                Act::Request,
                send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"),
                Act::Pause(Duration::from_millis(30)),
                Act::Reset,
            ],
        ),
        closed("body_until_close", "2.10 normal", "HTTP/1.1 200 OK\r\n\r\nuntil close").status(200),
        closed("http10_until_close", "2.10 normal", "HTTP/1.0 200 OK\r\n\r\nten").status(200),
        answered("http10_length", "3.9 reuse", "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nten").status(200),
        answered("garbage", "2.10 protocol error", "garbage\r\n\r\n").status(502),
        answered("http2_reply", "2.10 protocol error", "HTTP/2 200 OK\r\n\r\n"),
        answered("bad_status", "2.10 protocol error", "HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n").status(502),
        answered("status_99", "2.10 protocol error", "HTTP/1.1 99 Low\r\ncontent-length: 0\r\n\r\n"),
        answered("status_600", "2.10 protocol error", "HTTP/1.1 600 High\r\ncontent-length: 0\r\n\r\n"),
        answered("status_999", "2.10 protocol error", "HTTP/1.1 999 High\r\ncontent-length: 0\r\n\r\n"),
        answered("status_1000", "2.10 protocol error", "HTTP/1.1 1000 High\r\ncontent-length: 0\r\n\r\n"),
        answered("no_reason", "2.10 normal", "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n").status(200),
        answered("own_reason", "2.10 normal", "HTTP/1.1 200 Fine By Me\r\ncontent-length: 0\r\n\r\n").status(200),
        answered("unknown_status", "2.10 normal", "HTTP/1.1 299 Odd\r\ncontent-length: 0\r\n\r\n").status(299),
        answered(
            "both_lengths",
            "10 smuggling",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        answered(
            "two_lengths",
            "10 smuggling",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        ),
        answered(
            "two_equal_lengths",
            "10 smuggling",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        ),
        answered("bad_length", "10 smuggling", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc").status(502),
        answered("te_gzip", "10 smuggling", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc"),
        answered(
            "te_gzip_chunked",
            "10 smuggling",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        answered("bad_chunk", "2.10 protocol error", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        answered("obs_fold", "2.2 obs-fold", "HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 0\r\n\r\n"),
        answered("nul_in_value", "2.2 NUL in value", "HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 0\r\n\r\n"),
        answered("bare_lf", "2.2 bare LF", "HTTP/1.1 200 OK\nx-a: b\ncontent-length: 0\n\n"),
        answered(
            "space_before_colon",
            "2.2 space before colon",
            "HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 0\r\n\r\n",
        ),
        answered(
            "underscore",
            "2.1 headers_with_underscores_action",
            "HTTP/1.1 200 OK\r\nx_a: b\r\ncontent-length: 0\r\n\r\n",
        )
        .status(200),
        answered(
            "duplicate_headers",
            "2.4 response headers",
            "HTTP/1.1 200 OK\r\nset-cookie: a\r\nx-a: 1\r\nset-cookie: b\r\nX-A: 2\r\ncontent-length: 0\r\n\r\n",
        )
        .status(200),
        answered(
            "204_with_body",
            "issue: bodies where none may be",
            "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc",
        ),
        answered(
            "204_chunked",
            "issue: bodies where none may be",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        answered("204", "2.10 normal", "HTTP/1.1 204 No Content\r\n\r\n").status(204),
        answered("204_length_zero", "2.10 normal", "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n").status(204),
        answered(
            "304_with_length",
            "2.10 normal",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: x\r\n\r\n",
        )
        .status(304),
        answered(
            "304_with_body",
            "issue: bodies where none may be",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\nabc",
        ),
        case("head_with_body", "issue: bodies where none may be", "usual", request("HEAD", "/", &[]))
            .methods(&["HEAD"])
            .reply("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
        case("head_chunked", "2.10 HEAD", "usual", request("HEAD", "/", &[]))
            .methods(&["HEAD"])
            .reply("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        case("head_without_length", "2.10 HEAD", "usual", request("HEAD", "/", &[]))
            .methods(&["HEAD"])
            .reply("HTTP/1.1 200 OK\r\n\r\n"),
        answered("extra_bytes", "issue: bytes after the end", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEXTRA"),
        answered(
            "second_response",
            "issue: bytes after the end",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
        ),
        answered(
            "continue_unasked",
            "2.10 stray 100",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered("only_continue", "2.10 stray 100", "HTTP/1.1 100 Continue\r\n\r\n").acts(vec![
            Act::Request,
            send("HTTP/1.1 100 Continue\r\n\r\n"),
            Act::Close,
        ]),
        answered(
            "early_hints",
            "2.1 1xx",
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered(
            "processing",
            "2.1 1xx",
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ),
        answered(
            "switching_unasked",
            "issue: unsolicited 101",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        ),
        case(
            "switching_other",
            "issue: unsolicited 101",
            "upgrade",
            request("GET", "/", &["connection: upgrade", "upgrade: websocket"]),
        )
        .reply("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        answered(
            "connection_close",
            "3.9 connection: close",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        )
        .status(200),
        answered(
            "chunked",
            "2.10 normal",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .status(200),
        answered(
            "chunked_trailers",
            "2.1 enable_trailers",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        )
        .status(200),
        answered(
            "big_header",
            "3.1 max response headers",
            &format!("HTTP/1.1 200 OK\r\nx-big: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(50_000)),
        )
        .status(200),
        answered(
            "too_big_header",
            "3.1 max response headers",
            &format!("HTTP/1.1 200 OK\r\nx-big: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(90_000)),
        ),
        answered(
            "many_headers",
            "3.1 max response headers",
            &format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-a: b\r\n".repeat(120)),
        ),
        answered(
            "big_body",
            "2.10 normal",
            &format!("HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n{}", "z".repeat(300_000)),
        )
        .status(200),
        again("reused", "3.9 HTTP/1 reuse", vec![vec![Act::Request, send(ok)]]).status(200),
        again(
            "not_reused_after_close",
            "3.9 HTTP/1 reuse",
            vec![
                vec![
                    Act::Request,
                    send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"),
                    Act::Close,
                ],
                vec![Act::Request, send(ok)],
            ],
        )
        .status(200),
        case(
            "early_reply",
            "DESIGN 3 early reply",
            "usual",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc",
        )
        .acts(vec![Act::Head, send("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"), Act::Hold])
        .status(413),
        case(
            "early_reply_close",
            "DESIGN 3 early reply",
            "usual",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc",
        )
        .acts(vec![
            Act::Head,
            send("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
            Act::Close,
        ]),
        steps(
            "client_leaves",
            "2.10 client gone",
            "usual",
            vec![Step::Send(request("GET", "/", &[])), Step::Pause(Duration::from_millis(40))],
        )
        .acts(vec![Act::Request, Act::Hold]),
        steps(
            "client_leaves_in_body",
            "2.10 client gone",
            "usual",
            vec![Step::Send(request("GET", "/", &[])), Step::Until("abc")],
        )
        .acts(vec![Act::Request, send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), Act::Hold]),
        case("continue_through", "2.1 proxy_100_continue", "continue", request("GET", "/", &[]))
            .reply("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ]
}

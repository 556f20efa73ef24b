//! How exchanges and connections end.

use std::time::Duration;

use super::super::{acted, send, twice};
use super::{OK, pause};
use crate::manifest::{Case, get};
use crate::support::upstream::Act;

/// How responses end.
pub(super) fn endings() -> Vec<Case> {
    let later = || Act::Pause(Duration::from_millis(30));
    let again = |name, row, script| twice(name, row, Some(pause(60)), script);
    vec![
        acted(
            "reset_until_close",
            "2.10 truncated body",
            vec![Act::Request, send("HTTP/1.1 200 OK\r\n\r\nabc"), later(), Act::Reset],
        ),
        acted(
            "reset_in_head",
            "2.10 truncated body",
            vec![Act::Request, send("HTTP/1.1 200 OK\r\nx-a"), later(), Act::Reset],
        ),
        acted(
            "close_after_head",
            "2.10 truncated body",
            vec![Act::Request, send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"), later(), Act::Close],
        ),
        acted(
            "close_in_trailers",
            "2.10 truncated body",
            vec![
                Act::Request,
                send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t"),
                Act::Close,
            ],
        ),
        acted(
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

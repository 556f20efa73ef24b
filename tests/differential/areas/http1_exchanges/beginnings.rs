//! How exchanges begin.

use super::super::send;
use super::{OK, pause};
use crate::manifest::{Case, Step, case, request, steps};
use crate::support::upstream::Act;

/// Heads: how they come, and what they ask of the connection.
pub(super) fn beginnings() -> Vec<Case> {
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

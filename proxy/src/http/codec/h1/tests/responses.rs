//! Responses: what Envoy takes them for. Every fault is a 502 to the client.

use super::*;

const CODEC: &str = "502 http1.codec_error";
const C0: &[u8] = b"content-length: 0\r\n\r\n";

fn check(expected: Expected, rows: &[(&[u8], &str)]) {
    let options = Rc::new(ClientOptions::default());
    for (input, verdict) in rows {
        for splits in every_split(input.len()) {
            assert_eq!(
                response(&options, expected, input, &splits),
                *verdict,
                "{} split {splits:?}",
                input.escape_ascii()
            );
        }
    }
}

fn check_with(wrap: impl Fn(&[u8]) -> Vec<u8>, rows: &[(&[u8], &str)]) {
    for (input, verdict) in rows {
        check(Expected::Body, &[(&wrap(input), verdict)]);
    }
}

#[test]
fn status_lines() {
    let ok = "200 [content-length: 0]; idle";
    check_with(
        |line| [line, b"\r\n", C0].concat(),
        &[
            (b"HTTP/1.1 200 OK", ok),
            (b"HTTP/1.1 200", ok),
            (b"HTTP/1.1 200 ", ok),
            (b"HTTP/1.1  200  OK", ok),
            (b"HTTP/1.1\t200 OK", ok),
            (b"HTTP/1.1 200 O\xe9K", ok),
            (b"HTTP/1.0 200 OK", "200 close [content-length: 0]; idle"),
            (b"HTTP/2.0 200 OK", "200 close [content-length: 0]; idle"),
            (b"HTTP/1.1 999 X", "999 [content-length: 0]; idle"),
            (b"HTTP/1.1 600 X", "600 [content-length: 0]; idle"),
            (b"http/1.1 200 OK", CODEC),
            (b"ICY 200 OK", CODEC),
            (b" HTTP/1.1 200 OK", CODEC),
            (b"\r\nHTTP/1.1 200 OK", CODEC),
            (b"HTTP/1.1 2e0 OK", CODEC),
            (b"HTTP/1.1200 OK", CODEC),
            (b"garbage", CODEC),
            (b"HTTP/1.1 200 O\x00K", "502 http1.invalid_characters"),
            // Envoy passes statuses of any number of digits, and CRs in a reason.
            (b"HTTP/1.1 20 X", CODEC),
            (b"HTTP/1.1 099 X", CODEC),
            (b"HTTP/1.1 000 X", CODEC),
            (b"HTTP/1.1 2000 X", CODEC),
            (b"HTTP/1.1 +20 X", CODEC),
            (b"HTTP/1.1 200 O\rK", CODEC),
        ],
    );
    check(Expected::Body, &[(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", ok)]);
}

#[test]
fn bodies() {
    check_with(
        |rest| [b"HTTP/1.1 200 OK\r\n", rest].concat(),
        &[
            (b"content-length: 3\r\n\r\nabc", "200 [content-length: 3] +length; data abc; end; idle"),
            (b"content-length: 3\r\n\r\nab", "200 [content-length: 3] +length; data ab; Incomplete"),
            (b"content-length: 3\r\n\r\nabcdef", "200 [content-length: 3] +length; data abc; end; left 3"),
            (b"\r\nabc", "200 close +close; data abc; End"),
            (b"connection: keep-alive\r\n\r\n", "200 close [connection: keep-alive] +close; End"),
            (
                b"content-length: 2\r\nconnection: close\r\n\r\nab",
                "200 close [content-length: 2] [connection: close] +length; data ab; end; idle",
            ),
            (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "200 +chunked; data abc; end; idle"),
            (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "200 +chunked; data abc; Incomplete"),
            (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: u\r\n\r\n", "200 +chunked; data abc; end; idle"),
            (b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "200 +chunked; end; idle"),
            (b"transfer-encoding: gzip, chunked\r\n\r\n", "502 http1.invalid_transfer_encoding"),
            (b"transfer-encoding: identity\r\n\r\n", "502 http1.invalid_transfer_encoding"),
            (
                b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
                "502 http1.content_length_and_chunked_not_allowed",
            ),
            (b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", CODEC),
            (b"content-length: +3\r\n\r\nabc", CODEC),
            (b"content-length: 99999999999999999999\r\n\r\n", CODEC),
            (b"a: b\r\n c\r\nd: e\rf\r\ncontent-length: 0\r\n\r\n", "200 [a: b c] [d: ef] [content-length: 0]; idle"),
            (b"a_b: c\r\ncontent-length: 0\r\n\r\n", "200 [a_b: c] [content-length: 0]; idle"),
            (b"a : b\r\n\r\n", CODEC),
            (b" a: b\r\n\r\n", CODEC),
            (b"a\r\n\r\n", CODEC),
            (b": a\r\n\r\n", CODEC),
            (b"a(: b\r\n\r\n", CODEC),
            (b"a: \x01\r\n\r\n", "502 http1.invalid_characters"),
        ],
    );
    check(
        Expected::Body,
        &[
            (b"", "BeforeHead"),
            (b"HTTP/1.1 2", "Incomplete"),
            (b"HTTP/1.1 103 E\r\n\r\n", "1xx 103; BeforeHead"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", "204; idle"),
            (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", "204; idle"),
            (b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc", "502 http1.content_length_not_allowed"),
            (
                b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
                "502 http1.transfer_encoding_not_allowed",
            ),
            (b"HTTP/1.1 304 X\r\ncontent-length: 3\r\n\r\nabc", "304 [content-length: 3]; left 3"),
            (b"HTTP/1.1 304 X\r\ntransfer-encoding: chunked\r\n\r\n", "304; idle"),
            (
                b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
                "200 [connection: keep-alive] [content-length: 0]; idle",
            ),
            (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "200 close +chunked; end; idle"),
        ],
    );
    check(
        Expected::NoBody,
        &[
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", "200 [content-length: 3]; idle"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "200; idle"),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", "200; left 3"),
        ],
    );
}

#[test]
fn informational_and_switching() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    check_with(
        |first| [first, &ok[..]].concat(),
        &[
            (b"HTTP/1.1 100 Continue\r\n\r\n", "1xx 100; 200 [content-length: 0]; idle"),
            (
                b"HTTP/1.1 103 E\r\nlink: a\r\n\r\nHTTP/1.1 199 P\r\n\r\n",
                "1xx 103; 1xx 199; 200 [content-length: 0]; idle",
            ),
            (b"HTTP/1.1 100 C\r\ncontent-length: 5\r\n\r\n", "502 http1.content_length_not_allowed"),
            (b"HTTP/1.1 100 C\r\ntransfer-encoding: chunked\r\n\r\n", "502 http1.transfer_encoding_not_allowed"),
            // Envoy passes a 101 nobody asked for, then closes.
            (b"HTTP/1.1 101 S\r\n\r\n", CODEC),
        ],
    );
    check(
        Expected::Upgrade,
        &[
            (
                b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc",
                "101 close [connection: upgrade] [upgrade: x] +tunnel; data abc; End",
            ),
            (b"HTTP/1.1 101 S\r\ncontent-length: 2\r\n\r\nabc", "502 http1.content_length_not_allowed"),
            (b"HTTP/1.1 101 S\r\ntransfer-encoding: chunked\r\n\r\n", "502 http1.transfer_encoding_not_allowed"),
            (b"HTTP/1.1 403 S\r\ncontent-length: 3\r\n\r\nabc", "403 [content-length: 3] +length; data abc; end; idle"),
        ],
    );
    check(
        Expected::Connect,
        &[
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "200 close +tunnel; data abc; End"),
            (b"HTTP/1.1 204 No Content\r\n\r\nabc", "204 close +tunnel; data abc; End"),
            (b"HTTP/1.1 403 S\r\ncontent-length: 3\r\n\r\nabc", "403 [content-length: 3] +length; data abc; end; idle"),
        ],
    );
    let flood = b"HTTP/1.1 102 P\r\n\r\n".repeat(1001);
    assert!(response(&Rc::default(), Expected::Body, &flood, &[]).ends_with(CODEC));
}

#[test]
fn limits() {
    let options = Rc::new(ClientOptions::default());
    let sized =
        |n: usize| [b"HTTP/1.1 200 OK\r\na: ", &vec![b'b'; n - 43][..], b"\r\ncontent-length: 0\r\n\r\n"].concat();
    assert!(response(&options, Expected::Body, &sized(81_920), &[]).starts_with("200"));
    assert_eq!(response(&options, Expected::Body, &sized(81_921), &[]), "502 http1.headers_too_large");
    assert_eq!(response(&options, Expected::Body, &sized(90_000)[..82_000], &[]), "502 http1.headers_too_large");
    let many = |n: usize| {
        let lines: String = (0..n).map(|i| format!("a{i}: b\r\n")).collect();
        [b"HTTP/1.1 200 OK\r\n", lines.as_bytes(), C0].concat()
    };
    assert!(response(&options, Expected::Body, &many(99), &[]).starts_with("200"));
    assert_eq!(response(&options, Expected::Body, &many(100), &[]), "502 http1.too_many_headers");
}

#[test]
fn trailers_and_lenient_lengths_by_option() {
    let options =
        Rc::new(ClientOptions { enable_trailers: true, allow_chunked_length: true, ..ClientOptions::default() });
    let input =
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n";
    assert_eq!(response(&options, Expected::Body, input, &[]), "200 +chunked; data abc; trailers [t: u]; idle");
}

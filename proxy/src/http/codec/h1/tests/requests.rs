//! Requests: what Envoy takes them for.

use super::*;

const CODEC: &str = "400 http1.codec_error";
const URL: &str = "400 http1.invalid_url";
const CHARS: &str = "400 http1.invalid_characters";
const TE: &str = "501 http1.invalid_transfer_encoding";
const NOMINATED: &str = "400 http1.connection_header_rejected";
const AUTHORITY: &str = "400 http.invalid_authority";

fn check(options: ServerOptions, rows: &[(&[u8], &str)]) {
    let options = Rc::new(options);
    for (input, verdict) in rows {
        for splits in every_split(input.len()) {
            assert_eq!(requests(&options, input, &splits), *verdict, "{} split {splits:?}", input.escape_ascii());
        }
    }
}

fn check_with(options: &ServerOptions, wrap: impl Fn(&[u8]) -> Vec<u8>, rows: &[(&[u8], &str)]) {
    for (input, verdict) in rows {
        check(options.clone(), &[(&wrap(input), verdict)]);
    }
}

#[test]
fn request_lines() {
    let line = |line: &[u8]| [line, b"\r\nHost: h\r\n\r\n"].concat();
    let ok = "GET / @h";
    check_with(
        &ServerOptions::default(),
        line,
        &[
            (b"GET / HTTP/1.1", ok),
            (b"GET  / HTTP/1.1", ok),
            (b"GET /  HTTP/1.1", ok),
            (b"GET\t/\tHTTP/1.1", ok),
            (b"GET / HTTP/1.1 ", ok),
            (b"GET / HTTP/1.1\r", ok),
            (b"\r\n\n\rGET / HTTP/1.1", ok),
            (b" GET / HTTP/1.1", CODEC),
            (b"\r\n GET / HTTP/1.1", CODEC),
            (b"\x16\x03\x01 / HTTP/1.1", CODEC),
            (b"GET", CODEC),
            (b"GET / HTTP/1.1 x", CODEC),
            (b"GET / http/1.1", CODEC),
            (b"GET / HTTP/1.10", CODEC),
            (b"GET / HTTP/1", CODEC),
            (b"GET / HTTP/1,1", CODEC),
            (b"GET / HTTQ/1.1", CODEC),
            (b"GET /", "426 low_version"),
            (b"GET / ", "426 low_version"),
            (b"GET / HTTP/1.0", "426 low_version"),
            (b"GET / HTTP/0.9", "426 low_version"),
            (b"GET / HTTP/1.2", "426 low_version"),
            (b"GET / HTTP/2.0", "426 low_version"),
            (b"GET /a b HTTP/1.1", CODEC),
            (b"GET /a\tb HTTP/1.1", CODEC),
            (b"GET /a\rb HTTP/1.1", CODEC),
            (b"GET /\xc3\xa9 HTTP/1.1", CODEC),
            (b"GET /a\x00b HTTP/1.1", CHARS),
            (b"GET /a\x01b HTTP/1.1", CHARS),
            (b"GET /a\x7fb HTTP/1.1", CHARS),
            (b"GE\x00T / HTTP/1.1", CHARS),
            (b"GET /\"<>\\^`{|}%zz HTTP/1.1", r#"GET /\"<>\\^`{|}%zz @h"#),
            (b"GET /a#f HTTP/1.1", "GET /a#f @h"),
            (b"GET //x/y HTTP/1.1", "GET //x/y @h"),
            (b"get / HTTP/1.1", CODEC),
            (b"FOO / HTTP/1.1", CODEC),
            (b"G@T / HTTP/1.1", CODEC),
            (b"M-SEARCH / HTTP/1.1", CODEC),
            (b"BASELINE-CONTROL / HTTP/1.1", CODEC),
            (b"MSEARCH / HTTP/1.1", "MSEARCH / @h"),
            (b"QUERY / HTTP/1.1", "QUERY / @h"),
            (b"UNSUBSCRIBE / HTTP/1.1", "UNSUBSCRIBE / @h"),
            (b"OPTIONS * HTTP/1.1", "OPTIONS * @h"),
            (b"GET * HTTP/1.1", URL),
            (b"GET ok HTTP/1.1", CODEC),
            (b"GET ?a HTTP/1.1", CODEC),
        ],
    );
}

#[test]
fn custom_methods_are_tokens() {
    let options = ServerOptions { allow_custom_methods: true, ..ServerOptions::default() };
    check(
        options,
        &[
            (b"FOO / HTTP/1.1\r\nhost: h\r\n\r\n", "FOO / @h"),
            (b"get / HTTP/1.1\r\nhost: h\r\n\r\n", "get / @h"),
            (b"a!#$%&'*+-.^_`|~1 / HTTP/1.1\r\nhost: h\r\n\r\n", "a!#$%&'*+-.^_`|~1 / @h"),
            (b"G@T / HTTP/1.1\r\nhost: h\r\n\r\n", CODEC),
            (b"FOO\x00 / HTTP/1.1\r\nhost: h\r\n\r\n", CHARS),
        ],
    );
}

#[test]
fn absolute_forms() {
    let line = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    check_with(
        &ServerOptions::default(),
        line,
        &[
            (b"http://a.com/p?q", "GET /p?q @a.com http"),
            (b"http://a.com", "GET / @a.com http"),
            (b"http://a.com?x", "GET ?x @a.com http"),
            (b"http://a.com:80/", "GET / @a.com:80 http"),
            (b"http://a.com:080/", "GET / @a.com:080 http"),
            (b"http://a.com:0/", "GET / @a.com:0 http"),
            (b"HTTP://A.com/", "GET / @A.com http"),
            (b"https://a.com/", "GET / @a.com https"),
            (b"http://u:p@a.com/", "GET / @a.com http"),
            (b"http://@a/", "GET / @a http"),
            (b"http://[::1]:80/x", "GET /x @[::1]:80 http"),
            (b"http://.a..b-/", "GET / @.a..b- http"),
            (b"http://a.com/#f", "GET /#f @a.com http"),
            (b"ftp://a.com/", "400 http1.invalid_scheme"),
            (b"ws://a.com/", "400 http1.invalid_scheme"),
            (b"http:/a.com/", CODEC),
            (b"http:", CODEC),
            (b"a.com:80", CODEC),
            (b"http://a.com#f", CODEC),
            (b"http://a.com\\b/", CODEC),
            (b"http://\"a\"/", CODEC),
            (b"http://u\"@a/", CODEC),
            (b"http://\xc3\xa9/", CODEC),
            (b"http://", URL),
            (b"http:///x", URL),
            (b"http://u@/", URL),
            (b"http://a@b@c/", URL),
            (b"http://a_b/", URL),
            (b"http://a%20b/", URL),
            (b"http://a~/", URL),
            (b"http://*/", URL),
            (b"http://a.com:/", URL),
            (b"http://a.com:ab/", URL),
            (b"http://a.com:65536/", URL),
            (b"http://a.com:80:80/", URL),
            (b"http://[::1/x", URL),
            (b"http://[::g]/", URL),
            (b"http://[1]/", URL),
            (b"http://[::1]x/", URL),
            (b"http://[::1%25eth0]/", URL),
        ],
    );
    check(
        ServerOptions::default(),
        &[
            (b"GET http://a.com/p HTTP/1.1\r\n\r\n", "GET /p @a.com http"),
            (b"GET http://a/ HTTP/1.1\r\nHost: a/b\r\n\r\n", "GET / @a http"),
            (b"OPTIONS http://a.com HTTP/1.1\r\n\r\n", "OPTIONS / @a.com http"),
        ],
    );
    let kept = ServerOptions { allow_absolute_url: false, ..ServerOptions::default() };
    check(kept, &[(b"GET http://a.com/p?q HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://a.com/p?q @h")]);
    let plaintext = ServerOptions { reject_https_url: true, ..ServerOptions::default() };
    check(plaintext, &[(b"GET https://a/ HTTP/1.1\r\n\r\n", "403 http1.https_url_on_plaintext_connection")]);
}

#[test]
fn connect() {
    let line = |target: &[u8]| [b"CONNECT ", target, b" HTTP/1.1\r\nHost: a/b\r\n\r\nxyz"].concat();
    check_with(
        &ServerOptions::default(),
        line,
        &[
            (b"a.com:443", "CONNECT  @a.com:443 +tunnel; data xyz"),
            (b"[::1]:443", "CONNECT  @[::1]:443 +tunnel; data xyz"),
            (b"a:0", "CONNECT  @a:0 +tunnel; data xyz"),
            (b"a.com", URL),
            (b"a:", URL),
            (b"a.com:443/", URL),
            (b"a.com:99999", URL),
            (b"/", URL),
            (b"http://a.com:80/", URL),
            (b":443", URL),
            (b"u@a:443", URL),
            (b"a_b:1", URL),
            (b"a b:1", CODEC),
            (b"\x01:443", CHARS),
        ],
    );
    check(
        ServerOptions::default(),
        &[
            (b"CONNECT  HTTP/1.1\r\nHost: h\r\n\r\n", URL),
            (b"CONNECT a:1 HTTP/1.0\r\nHost: h\r\n\r\n", "426 low_version"),
            (b"CONNECT a:1 HTTP/1.1\r\ncontent-length: 0\r\n\r\n", "CONNECT  @a:1 +tunnel"),
            (b"CONNECT a:1 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", "400 http1.body_disallowed"),
            (b"CONNECT a:1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", TE),
        ],
    );
}

#[test]
fn hosts() {
    let host = |host: &[u8]| [b"GET / HTTP/1.1\r\nHost:", host, b"\r\n\r\n"].concat();
    for good in ["a.com", "a_b", "a@b", "a:b", "a:99999", "[::1]", "[::1", "a,b", "%41", "a;b", "!$&'()*+=~", ""] {
        check(
            ServerOptions::default(),
            &[(&host(good.as_bytes()), &format!("GET / @{}", good.as_bytes().escape_ascii()))],
        );
    }
    check_with(
        &ServerOptions::default(),
        host,
        &[
            (b"a/b", AUTHORITY),
            (b"a b", AUTHORITY),
            (b"a?b", AUTHORITY),
            (b"a#b", AUTHORITY),
            (b"a\\b", AUTHORITY),
            (b"a\"b", AUTHORITY),
            (b"<a>", AUTHORITY),
            (b"{a}", AUTHORITY),
            (b"a|b", AUTHORITY),
            (b"a^b", AUTHORITY),
            (b"`", AUTHORITY),
            (b"a\tb", AUTHORITY),
            (b"http://a", AUTHORITY),
            (b"a\xe9", AUTHORITY),
        ],
    );
    check(
        ServerOptions::default(),
        &[
            (b"GET / HTTP/1.1\r\n\r\n", "GET / @ no-host"),
            (b"GET / HTTP/1.1\r\nhost: h\r\nhost: i\r\n\r\n", "GET / @h,i"),
            (b"GET / HTTP/1.1\r\nhost: h\r\nhost:\r\n\r\n", "GET / @h"),
            (b"GET / HTTP/1.1\r\nhost: h\r\nconnection: host\r\n\r\n", "GET / @ no-host [connection: host]"),
        ],
    );
}

#[test]
fn header_lines() {
    let header = |header: &[u8]| [b"GET / HTTP/1.1\r\nHost: h\r\n", header, b"\r\n\r\n"].concat();
    check_with(
        &ServerOptions::default(),
        header,
        &[
            (b"A-B: C", "GET / @h [a-b: C]"),
            (b"a:b", "GET / @h [a: b]"),
            (b"a:\t b\t ", "GET / @h [a: b]"),
            (b"a:", "GET / @h [a: ]"),
            (b"a: ", "GET / @h [a: ]"),
            (b"a: b:c", "GET / @h [a: b:c]"),
            (b"a: b\tc", "GET / @h [a: b\\tc]"),
            (b"a: \xe9\xff", "GET / @h [a: \\xe9\\xff]"),
            (b"a_b: c", "GET / @h [a_b: c]"),
            (b"a: 1\r\nb: 3\r\na: 2", "GET / @h [a: 1] [b: 3] [a: 2]"),
            (b"a: b\nc: d", "GET / @h [a: b] [c: d]"),
            (b"a: b\r\n c", "GET / @h [a: b c]"),
            (b"a: b\r\n\tc", "GET / @h [a: b\\tc]"),
            (b"a: b \r\n  c\r\nd: e", "GET / @h [a: b   c] [d: e]"),
            (b"a: b\r\n \r\n c", "GET / @h [a: b  c]"),
            (b"a:\r\n c", "GET / @h [a: c]"),
            (b"a: b\rc", "GET / @h [a: bc]"),
            (b"a: \rb\r\r", "GET / @h [a: b]"),
            (b" a: b", AUTHORITY),
            (b"a :b", CODEC),
            (b"a\t: b", CODEC),
            (b": b", CODEC),
            (b"a", CODEC),
            (b"a b: c", CODEC),
            (b":path: /x", CODEC),
            (b"a(: c", CODEC),
            (b"a\"b: c", CODEC),
            (b"\xe9: b", CODEC),
            (b"a\rb: c", CODEC),
            (b"a: b\r\n\r", CODEC),
            (b"a: b\x00c", CHARS),
            (b"a: b\x01c", CHARS),
            (b"a: b\x0bc", CHARS),
            (b"a: b\x1fc", CHARS),
            (b"a: b\x7fc", CHARS),
            (b"a\x00b: c", CHARS),
            (b"a: b\r\n\x0bc: d", CHARS),
        ],
    );
    check(
        ServerOptions::default(),
        &[
            (b"GET / HTTP/1.1\nHost: h\n\n", "GET / @h"),
            (b"GET / HTTP/1.1\nHost: h\r\n\n", "GET / @h"),
            (b"GET / HTTP/1.1\r\nHost: h\n\r\n", "GET / @h"),
            (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", CODEC),
            (b"GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n", CODEC),
        ],
    );
    for (action, verdict) in [
        (UnderscoreAction::RejectRequest, "400 http1.unexpected_underscore"),
        (UnderscoreAction::DropHeader, "GET / @h dropped 1 [d: e]"),
    ] {
        let options = ServerOptions { headers_with_underscores: action, ..ServerOptions::default() };
        check(options, &[(b"GET / HTTP/1.1\r\nhost: h\r\na_b: c\r\nd: e\r\n\r\n", verdict)]);
    }
}

#[test]
fn limits() {
    let options = Rc::new(ServerOptions::default());
    let many = |n: usize| {
        let lines: String = (0..n).map(|i| format!("a{i}: b\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes()
    };
    assert!(requests(&options, &many(99), &[]).starts_with("GET / @h"));
    assert_eq!(requests(&options, &many(100), &[]), "431 http1.too_many_headers");
    let large = |n: usize| [b"GET / HTTP/1.1\r\nHost: h\r\na: ", &vec![b'b'; n - 32][..], b"\r\n\r\n"].concat();
    for splits in [vec![], vec![30_000], vec![61_439]] {
        assert!(requests(&options, &large(61_440), &splits).starts_with("GET / @h"));
        assert_eq!(requests(&options, &large(61_441), &splits), "431 http1.headers_too_large");
    }
    assert_eq!(requests(&options, &large(61_444)[..61_440], &[]), "431 http1.headers_too_large", "before its end");
    assert_eq!(requests(&options, &large(61_444)[..61_439], &[]), "");
    // Envoy reads line breaks before a request for ever.
    assert_eq!(requests(&options, &b"\r\n".repeat(40_000), &[]), "431 http1.headers_too_large");
}

#[test]
fn connections() {
    let header = |header: &[u8]| [b"GET / HTTP/1.1\r\nHost: h\r\n", header, b"\r\n\r\nabcd"].concat();
    let ws = "GET / @h upgrade websocket [connection: upgrade] [upgrade: websocket] +tunnel; data abcd";
    check_with(
        &ServerOptions::default(),
        header,
        &[
            (b"connection: upgrade\r\nupgrade: websocket", ws),
            (
                b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3",
                "GET / @h upgrade websocket [connection: upgrade] [upgrade: websocket] [content-length: 3] +tunnel; data abcd",
            ),
            (b"connection: upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked", ws),
            (
                b"connection: upgrade, keep-alive\r\nupgrade: WebSocket",
                "GET / @h upgrade WebSocket [connection: upgrade, keep-alive] [upgrade: WebSocket] +tunnel; data abcd",
            ),
            (
                b"connection: upgrade\r\nupgrade: foo, h2c",
                "GET / @h upgrade foo, h2c [connection: upgrade] [upgrade: foo, h2c] +tunnel; data abcd",
            ),
            (
                b"upgrade: websocket\r\ncontent-length: 4",
                "GET / @h [upgrade: websocket] [content-length: 4] +length; data abcd; end",
            ),
            (
                b"connection: upgrade\r\ncontent-length: 4",
                "GET / @h [connection: upgrade] [content-length: 4] +length; data abcd; end",
            ),
            (
                b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\ncontent-length: 4",
                "GET / @h [content-length: 4] +length; data abcd; end",
            ),
        ],
    );
    let header = |header: &[u8]| [b"GET / HTTP/1.1\r\nHost: h\r\n", header, b"\r\n\r\n"].concat();
    check_with(
        &ServerOptions::default(),
        header,
        &[
            (b"Connection: CLOSE", "GET / @h close [connection: CLOSE]"),
            (b"connection: close, keep-alive", "GET / @h close [connection: close, keep-alive]"),
            (
                b"connection: keep-alive\r\nconnection: close",
                "GET / @h close [connection: keep-alive] [connection: close]",
            ),
            (b"proxy-connection: close", "GET / @h close [proxy-connection: close]"),
            (b"connection: x-foo, close\r\nx-foo: 1\r\nb: 2", "GET / @h close [connection: x-foo, close] [b: 2]"),
            (
                b"connection: keep-alive\r\nconnection: X-A\r\nx-a: 1",
                "GET / @h [connection: keep-alive] [connection: X-A]",
            ),
            (b"connection: a b, (,\r\na: 1", "GET / @h [connection: a b, (,] [a: 1]"),
            (
                b"connection: http2-settings\r\nhttp2-settings: x",
                "GET / @h [connection: http2-settings] [http2-settings: x]",
            ),
            (b"connection: te\r\nte: trailers", "GET / @h [connection: te] [te: trailers]"),
            (b"connection: expect\r\nexpect: 100-continue", "GET / @h [connection: expect]"),
            (b"connection: content-length\r\ncontent-length: 0", "GET / @h [connection: content-length]"),
            (b"connection: :path", NOMINATED),
            (b"connection: x-forwarded-for", NOMINATED),
            (b"connection: X-Forwarded-Proto", NOMINATED),
            (b"connection: x-forwarded-host", NOMINATED),
            (b"connection: x-forwarded-port", "GET / @h [connection: x-forwarded-port]"),
            (b"connection: a,a,a,a,a,a,a,a,a,a", NOMINATED),
            (b"connection: a,a,a,a,a,a,a,a,a", "GET / @h [connection: a,a,a,a,a,a,a,a,a]"),
            (b"expect: 100-Continue", "GET / @h expect [expect: 100-Continue]"),
            (b"expect: 100-continue, foo", "GET / @h [expect: 100-continue, foo]"),
        ],
    );
    for (te, verdict) in [(255, "GET / @h"), (256, NOMINATED)] {
        let input = header(&[b"connection: te\r\nte: ", &vec![b'a'; te][..]].concat());
        assert!(requests(&Rc::default(), &input, &[]).starts_with(verdict), "te of {te}");
    }
    let ignoring = ServerOptions {
        ignore_upgrade: Some(Rc::new(|token| token.starts_with(b"websocket"))),
        ..ServerOptions::default()
    };
    check_with(
        &ignoring,
        header,
        &[
            (b"connection: upgrade, foo\r\nupgrade: websocket\r\nfoo: 1", "GET / @h [connection: foo]"),
            (
                b"connection: upgrade\r\nupgrade: websocket, x",
                "GET / @h upgrade x [connection: upgrade] [upgrade: x] +tunnel",
            ),
        ],
    );
}

#[test]
fn http_10() {
    let options =
        ServerOptions { accept_http_10: true, default_host_for_http_10: Some("d".into()), ..ServerOptions::default() };
    check(
        options,
        &[
            (b"GET / HTTP/1.0\r\n\r\n", "GET / @d 1.0 close"),
            (b"GET /\r\n\r\n", "GET / @d 1.0 close"),
            (b"GET / HTTP/3.7\r\nhost: x\r\n\r\n", "GET / @x 1.0 close"),
            (b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "GET / @d 1.0 [connection: keep-alive]"),
            (
                b"GET / HTTP/1.0\r\nconnection: close, keep-alive\r\n\r\n",
                "GET / @d 1.0 [connection: close, keep-alive]",
            ),
            (
                b"GET / HTTP/1.0\r\nproxy-connection: keep-alive\r\n\r\n",
                "GET / @d 1.0 close [proxy-connection: keep-alive]",
            ),
            (b"GET http://a.b/ HTTP/1.0\r\n\r\n", "GET / @a.b 1.0 close http"),
            (
                b"POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc",
                "POST / @d 1.0 close [content-length: 3] +length; data abc; end",
            ),
            (
                b"POST / HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "POST / @d 1.0 close [connection: keep-alive] +chunked; end",
            ),
            (b"GET / HTTP/1.1\r\n\r\n", "GET / @ no-host"),
        ],
    );
}

#[test]
fn lengths_and_codings() {
    let header = |header: &[u8]| [b"POST / HTTP/1.1\r\nHost: h\r\n", header, b"\r\n\r\nabcde"].concat();
    let five = "POST / @h [content-length: 5] +length; data abcde; end";
    check_with(
        &ServerOptions::default(),
        header,
        &[
            (b"content-length: 5", five),
            (b"content-length:  5 ", five),
            (b"content-length: 05", "POST / @h [content-length: 05] +length; data abcde; end"),
            (
                b"content-length: 18446744073709551615",
                "POST / @h [content-length: 18446744073709551615] +length; data abcde",
            ),
            (b"content-length: 18446744073709551616", CODEC),
            (b"content-length: +5", CODEC),
            (b"content-length: -1", CODEC),
            (b"content-length: 5,5", CODEC),
            (b"content-length: 0x5", CODEC),
            (b"content-length: 5a", CODEC),
            (b"content-length: 1_0", CODEC),
            (b"content-length:", CODEC),
            (b"content-length: 5\r\ncontent-length: 5", CODEC),
            (b"content-length: 5\r\ncontent-length: 6", CODEC),
            (b"content-length: 3\r\ntransfer-encoding: chunked", "400 http1.content_length_and_chunked_not_allowed"),
            (b"transfer-encoding: chunked\r\ncontent-length: 0", "400 http1.content_length_and_chunked_not_allowed"),
            (b"content-length: 3\r\ntransfer-encoding: gzip", "400 http1.content_length_and_chunked_not_allowed"),
            // Envoy takes the next two for requests without a body.
            (b"transfer-encoding: chun\rked", CODEC),
            (b"content-length: 5\r6", CODEC),
            (b"transfer-encoding : chunked", CODEC),
            (b"transfer-encoding: \x0bchunked", CHARS),
        ],
    );
    let lenient = ServerOptions { allow_chunked_length: true, ..ServerOptions::default() };
    check(lenient, &[
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "POST / @h +chunked; end"),
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: gzip\r\n\r\n", "400 http1.content_length_and_chunked_not_allowed"),
        (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", TE),
    ]);
    let coding =
        |coding: &[u8]| [b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:", coding, b"\r\n\r\n0\r\n\r\n"].concat();
    let chunked = "POST / @h +chunked; end";
    check_with(
        &ServerOptions::default(),
        coding,
        &[
            (b"chunked", chunked),
            (b" CHUNKED \t", chunked),
            (b"\r\n chunked", chunked),
            (b"chunked\r\n ", chunked),
            (b"chunked, chunked", TE),
            (b"gzip, chunked", TE),
            (b"identity", TE),
            (b"gzip", TE),
            (b"chunked,", TE),
            (b",chunked", TE),
            (b"\"chunked\"", TE),
            (b"chunked;q=1", TE),
            (b"xchunked", TE),
            (b"", TE),
            (b"chunked\r\ntransfer-encoding: chunked", TE),
            (b"identity\r\ntransfer-encoding: chunked", TE),
        ],
    );
    check(
        ServerOptions::default(),
        &[
            (b"GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "GET / @h +chunked; end"),
            (
                b"HEAD / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\na",
                "HEAD / @h [content-length: 1] +length; data a; end",
            ),
            (b"POST / HTTP/1.1\r\nhost: h\r\n\r\nabc", "POST / @h"),
            (
                b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc\r\n\r\nGET /2 HTTP/1.1\r\nhost: i\r\n\r\n",
                "POST / @h [content-length: 3] +length; data abc; end; GET /2 @i",
            ),
            (b"GET / HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: i\r\n\r\n", "GET / @h; GET /2 @i"),
        ],
    );
}

#[test]
fn chunks() {
    let chunks = |body: &[u8]| [b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n", body].concat();
    let head = |rest: &str| -> &'static str { format!("POST / @h +chunked; {rest}").leak() };
    let (abc, bad) = (head("data abc; end"), head(CODEC));
    check_with(
        &ServerOptions::default(),
        chunks,
        &[
            (b"0\r\n\r\n", head("end")),
            (b"00;a\r\n\n", head("end")),
            (b"3\r\nabc\r\n0\r\n\r\n", abc),
            (b"003 \t\r\nabc\r\n0\r\n\r\n", abc),
            (b"3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n", abc),
            (b"3 ;\x00\x01\xff\r\nabc\r\n0\r\n\r\n", abc),
            (b"3\r\nabc\n0\r\n\r\n", abc),
            (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", abc),
            (b"A\r\n0123456789\r\n0\r\n\r\n", head("data 0123456789; end")),
            (b"3\r\nabc\r\n0\r\nt: u\r\n\r\n", abc),
            (b"3\r\nabc\r\n0\r\nt_t: u\rv\r\n w\r\n\r\n", abc),
            (b"3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nhost: i\r\n\r\n", head("data abc; end; GET /2 @i")),
            (b"ffffffffffffffff\r\nabc", head("data abc")),
            (b"10000000000000000\r\n", bad),
            (b"\r\n", bad),
            (b" 3\r\n", bad),
            (b";a\r\n", bad),
            (b"g\r\n", bad),
            (b"-1\r\n", bad),
            (b"+3\r\n", bad),
            (b"0x3\r\n", bad),
            (b"3a=b\r\n", bad),
            (b"3\x0b\r\n", bad),
            (b"3\nabc", bad),
            (b"3\rabc", bad),
            (b"3\r\r\nabc", bad),
            (b"3;a\nabc", bad),
            (b"3;a\rb\r\n", bad),
            (b"0\n\n", bad),
            (b"3\r\nabc\r\n\r\n0\r\n\r\n", head("data abc; 400 http1.codec_error")),
            (b"3\r\nabc\r0\r\n\r\n", head("data abc; 400 http1.codec_error")),
            // Envoy skips to the next LF, and takes what follows white space for an extension.
            (b"3\r\nabcX\r\n0\r\n\r\n", head("data abc; 400 http1.codec_error")),
            (b"3\r\nabc\r\r\n0\r\n\r\n", head("data abc; 400 http1.codec_error")),
            (b"1 1\r\na\r\n0\r\n\r\n", bad),
            (b"0\r\nt : u\r\n\r\n", bad),
            (b"0\r\n: u\r\n\r\n", bad),
            (b"0\r\nt\r\n\r\n", bad),
            (b"0\r\n t: u\r\n\r\n", bad),
            (b"0\r\n:path: /x\r\n\r\n", bad),
            (b"0\r\nt: \x00\r\n\r\n", head(CHARS)),
        ],
    );
    // Envoy reads extensions for ever.
    let endless = chunks(&[b"3;", &vec![b'a'; 20_000][..]].concat());
    assert_eq!(requests(&Rc::default(), &endless, &[]), bad);
    assert_eq!(requests(&Rc::default(), &endless, &[100, 10_000]), bad);
}

#[test]
fn trailers() {
    let options = ServerOptions { enable_trailers: true, ..ServerOptions::default() };
    let head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    let trailers = |trailers: &[u8]| [head, trailers, b"\r\n\r\n"].concat();
    let told = |rest: &str| -> &'static str { format!("POST / @h +chunked; {rest}").leak() };
    check_with(
        &options,
        trailers,
        &[
            (b"T-A: u\nt: v\r\n w", told("trailers [t-a: u] [t: v w]")),
            (b"t: u\rv", told("trailers [t: uv]")),
            (b"cookie: a", told("trailers [cookie: a]")),
            // Envoy passes these on; whoever merges trailers into headers would be misled.
            (
                b"content-length: 5\r\ntransfer-encoding: chunked\r\nhost: x\r\nconnection: close\r\nt: u",
                told("trailers [t: u]"),
            ),
            (b"trailer: t", told("end")),
            (b"t : u", told(CODEC)),
            (b"t: \x01", told(CHARS)),
        ],
    );
    let options = Rc::new(options);
    let many = |n: usize| trailers((0..n).map(|i| format!("a{i}: b")).collect::<Vec<_>>().join("\r\n").as_bytes());
    assert!(requests(&options, &many(100), &[]).contains("trailers [a0: b]"));
    assert_eq!(requests(&options, &many(101), &[]), told("431 http1.too_many_headers"));
    for options in [options, Rc::default()] {
        let large = trailers(&[b"t: ", &vec![b'a'; 62_000][..]].concat());
        assert_eq!(requests(&options, &large, &[40_000]), told("431 http1.headers_too_large"));
    }
    assert_eq!(requests(&Rc::default(), &many(101), &[]), told("end"), "dropped ones are not counted");
}

#[test]
fn spelling_is_recorded_on_request() {
    let options = Rc::new(ServerOptions { preserve_case: true, ..ServerOptions::default() });
    let mut buf = BytesMut::from(&b"GET / HTTP/1.1\r\nHoSt: h\r\nX-MiXed: A\r\n\r\n"[..]);
    let Ok(Some(RequestEvent::Head(request))) = RequestDecoder::new(options).decode(&mut buf) else {
        panic!("a request");
    };
    let mut out = WriteBuf::new();
    let case = request.case.as_ref().expect("recorded");
    let format = HeaderFormat::Preserve { case, proper_case_others: false };
    let options = RequestOptions { end_stream: true, format, ..RequestOptions::default() };
    RequestEncoder::default().encode_head(&request.head, &options, &mut out).expect("valid");
    assert_eq!(encode::text(&mut out), "GET / HTTP/1.1\r\nHoSt: h\r\nX-MiXed: A\r\n\r\n");
}

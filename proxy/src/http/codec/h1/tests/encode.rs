//! What Envoy writes, upstream and downstream.

use std::io::IoSlice;

use bytes::Bytes;
use filters::http::{HeaderName, Headers, Known, Method, RequestHead, ResponseHead, Scheme, Version};

use super::*;

/// Takes everything that waits.
pub(super) fn text(out: &mut WriteBuf) -> String {
    let mut slices = [IoSlice::new(&[]); 16];
    let used = out.slices(&mut slices);
    let bytes: Vec<u8> = slices[..used].iter().flat_map(|s| s.iter().copied()).collect();
    assert_eq!(bytes.len(), out.len());
    out.advance(bytes.len());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Method, headers, options; what is written and how the body goes on.
type RequestRow<'a> = (&'a str, &'a [(&'a str, &'a str)], RequestOptions<'a>, &'a str, Framing);

/// Status, headers, options; what is written, how the body goes on, whether the connection closes.
type ResponseRow<'a> = (u16, &'a [(&'a str, &'a str)], ResponseOptions<'a>, &'a str, Framing, bool);

fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter().fold(Headers::new(), |mut headers, (name, value)| {
        headers.append(HeaderName::from_lowercase(Bytes::copy_from_slice(name.as_bytes())), value.to_string());
        headers
    })
}

fn request(method: &str, list: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(Bytes::copy_from_slice(method.as_bytes())),
        authority: "h:1".into(),
        path: "/p?q".into(),
        headers: headers(list),
        ..RequestHead::default()
    }
}

fn written(head: &RequestHead, options: RequestOptions<'_>) -> Result<(String, Framing), EncodeError> {
    let mut out = WriteBuf::new();
    let mut encoder = RequestEncoder::default();
    let outcome = encoder.encode_head(head, &options, &mut out);
    assert!(outcome.is_ok() || out.is_empty(), "a refused head writes nothing");
    outcome.map(|()| (text(&mut out), encoder.framing()))
}

#[test]
fn requests_are_written_as_envoy_writes_them() {
    let end = RequestOptions { end_stream: true, ..RequestOptions::default() };
    let open = RequestOptions::default();
    let rows: &[RequestRow<'_>] = &[
        (
            "GET",
            &[("a", "1"), ("a", "2")],
            end,
            "GET /p?q HTTP/1.1\r\nhost: h:1\r\na: 1\r\na: 2\r\n\r\n",
            Framing::Empty,
        ),
        ("DELETE", &[], end, "DELETE /p?q HTTP/1.1\r\nhost: h:1\r\n\r\n", Framing::Empty),
        (
            "POST",
            &[("x", "y")],
            end,
            "POST /p?q HTTP/1.1\r\nhost: h:1\r\nx: y\r\ncontent-length: 0\r\n\r\n",
            Framing::Empty,
        ),
        ("FOO", &[], end, "FOO /p?q HTTP/1.1\r\nhost: h:1\r\ncontent-length: 0\r\n\r\n", Framing::Empty),
        (
            "POST",
            &[("content-length", "3"), ("x", "y")],
            open,
            "POST /p?q HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\nx: y\r\n\r\n",
            Framing::Length(3),
        ),
        (
            "POST",
            &[("x", "y"), ("transfer-encoding", "gzip"), ("connection", "close")],
            open,
            "POST /p?q HTTP/1.1\r\nhost: h:1\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing::Chunked,
        ),
        (
            "GET",
            &[("connection", "upgrade"), ("upgrade", "ws")],
            RequestOptions { upgrade: true, ..open },
            "GET /p?q HTTP/1.1\r\nhost: h:1\r\nconnection: upgrade\r\nupgrade: ws\r\n\r\n",
            Framing::Raw,
        ),
        ("CONNECT", &[("content-length", "0")], open, "CONNECT h:1 HTTP/1.1\r\nhost: h:1\r\n\r\n", Framing::Raw),
        (
            "GET",
            &[],
            RequestOptions { absolute_form: true, ..end },
            "GET https://h:1/p?q HTTP/1.1\r\nhost: h:1\r\n\r\n",
            Framing::Empty,
        ),
        (
            "POST",
            &[("te", "trailers")],
            RequestOptions { format: HeaderFormat::ProperCase, ..open },
            "POST /p?q HTTP/1.1\r\nHost: h:1\r\nTe: trailers\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked,
        ),
    ];
    for (method, list, options, expected, framing) in rows {
        let head = RequestHead { scheme: Scheme::Https, ..request(method, list) };
        assert_eq!(written(&head, *options), Ok(((*expected).to_owned(), *framing)));
    }
}

#[test]
fn heads_that_would_say_something_else_are_refused() {
    let end = RequestOptions { end_stream: true, ..RequestOptions::default() };
    for (name, value) in [
        ("a", "b\r\nc: d"),
        ("a", "b\nc"),
        ("a", "b\rc"),
        ("a", "\0"),
        ("a: b\r\nc", "d"),
        ("a b", "c"),
        ("a:b", "c"),
        ("", "c"),
    ] {
        assert_eq!(
            written(&request("GET", &[(name, value)]), end),
            Err(EncodeError::InvalidHead),
            "{name:?} {value:?}"
        );
    }
    for path in ["", "/a b", "/a\r\nb", "/a\x7f", "/\t"] {
        let head = RequestHead { path: path.into(), ..request("GET", &[]) };
        assert_eq!(written(&head, end), Err(EncodeError::InvalidHead), "{path:?}");
    }
    for authority in ["a b", "a\r\nb: c"] {
        let head = RequestHead { authority: authority.into(), ..request("GET", &[]) };
        assert_eq!(written(&head, end), Err(EncodeError::InvalidHead), "{authority:?}");
    }
    let head = RequestHead { method: Method::Other("A B".into()), ..request("GET", &[]) };
    assert_eq!(written(&head, end), Err(EncodeError::InvalidHead));
    for lengths in [
        &[("content-length", "3")][..],
        &[("content-length", "x")],
        &[("content-length", "0"), ("content-length", "0")],
    ] {
        assert_eq!(written(&request("POST", lengths), end), Err(EncodeError::InvalidLength), "{lengths:?}");
    }
    let mut out = WriteBuf::new();
    let bad =
        ResponseHead { status: 200, headers: headers(&[("a", "b\r\n\r\nHTTP/1.1 200 OK")]), ..ResponseHead::default() };
    let encoded = ResponseEncoder::default().encode_head(&bad, &ResponseOptions::default(), &mut out);
    assert_eq!((encoded, out.is_empty()), (Err(EncodeError::InvalidHead), true));
}

#[test]
fn bodies_keep_what_the_head_promised() {
    let mut out = WriteBuf::new();
    let mut encoder = RequestEncoder::default();
    let open = RequestOptions::default();
    encoder.encode_head(&request("POST", &[("content-length", "3")]), &open, &mut out).expect("valid");
    encoder.encode_data("ab".into(), &mut out).expect("within");
    assert_eq!(encoder.finish(None, HeaderFormat::Lower, &mut out), Err(EncodeError::LengthMismatch));
    assert_eq!(encoder.encode_data("cd".into(), &mut out), Err(EncodeError::LengthMismatch));

    encoder.encode_head(&request("POST", &[]), &open, &mut out).expect("valid");
    text(&mut out);
    for (size, line) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (5000, "1388\r\n")] {
        encoder.encode_data(vec![b'x'; size].into(), &mut out).expect("chunked");
        assert_eq!(text(&mut out), format!("{line}{}\r\n", "x".repeat(size)));
    }
    encoder.encode_data(Bytes::new(), &mut out).expect("nothing");
    assert!(out.is_empty(), "an empty chunk would end the body");
    let trailers = headers(&[("content-length", "5"), ("t", "u")]);
    encoder.finish(Some(&trailers), HeaderFormat::Lower, &mut out).expect("valid");
    assert_eq!(text(&mut out), "0\r\nt: u\r\n\r\n");
}

#[test]
fn responses_are_written_as_envoy_writes_them() {
    let keep = ResponseOptions { keep_alive: true, ..ResponseOptions::default() };
    let old = ResponseOptions { version: Version::Http10, ..keep };
    let end = ResponseOptions { end_stream: true, ..keep };
    let rows: &[ResponseRow<'_>] = &[
        (
            200,
            &[("content-length", "3"), ("server", "envoy")],
            keep,
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nserver: envoy\r\n\r\n",
            Framing::Length(3),
            false,
        ),
        (418, &[], end, "HTTP/1.1 418 Unknown\r\ncontent-length: 0\r\n\r\n", Framing::Empty, false),
        (
            200,
            &[("x", "y")],
            keep,
            "HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing::Chunked,
            false,
        ),
        (
            403,
            &[("connection", "keep-alive")],
            ResponseOptions { keep_alive: false, ..end },
            "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            Framing::Empty,
            true,
        ),
        (204, &[("content-length", "0")], end, "HTTP/1.1 204 No Content\r\n\r\n", Framing::Empty, false),
        (
            304,
            &[("content-length", "3")],
            end,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n",
            Framing::Empty,
            false,
        ),
        (304, &[], keep, "HTTP/1.1 304 Not Modified\r\n\r\n", Framing::Empty, false),
        (
            200,
            &[("content-length", "3")],
            ResponseOptions { head_request: true, ..end },
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            Framing::Empty,
            false,
        ),
        (
            200,
            &[],
            ResponseOptions { head_request: true, ..end },
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing::Empty,
            false,
        ),
        (
            101,
            &[("connection", "upgrade"), ("upgrade", "ws")],
            ResponseOptions { tunnel: true, ..keep },
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ws\r\n\r\n",
            Framing::Raw,
            true,
        ),
        (
            200,
            &[("content-length", "3")],
            old,
            "HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n",
            Framing::Length(3),
            false,
        ),
        (200, &[], old, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n", Framing::Raw, true),
        (
            200,
            &[],
            ResponseOptions { reason: Some(b"Fine"), format: HeaderFormat::ProperCase, ..end },
            "HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n",
            Framing::Empty,
            false,
        ),
    ];
    for (status, list, options, expected, framing, close) in rows {
        let mut out = WriteBuf::new();
        let mut encoder = ResponseEncoder::default();
        let head = ResponseHead { status: *status, headers: headers(list), ..ResponseHead::default() };
        encoder.encode_head(&head, options, &mut out).expect("valid");
        assert_eq!((text(&mut out).as_str(), encoder.framing(), encoder.must_close()), (*expected, *framing, *close));
    }
    let mut out = WriteBuf::new();
    let early = ResponseHead { status: 103, headers: headers(&[("link", "x")]), ..ResponseHead::default() };
    let mut encoder = ResponseEncoder::default();
    encoder.encode_informational(&early, Version::Http11, HeaderFormat::Lower, &mut out).expect("valid");
    assert_eq!(text(&mut out), "HTTP/1.1 103 Unknown\r\nlink: x\r\n\r\n");
    encoder.encode_informational(&early, Version::Http10, HeaderFormat::Lower, &mut out).expect("valid");
    assert!(out.is_empty());
}

#[test]
fn hop_by_hop_headers_end_here() {
    let list = [
        ("connection", "close"),
        ("keep-alive", "5"),
        ("te", "gzip, Trailers"),
        ("te", "x"),
        ("upgrade", "ws"),
        ("proxy-connection", "x"),
        ("a", "b"),
    ];
    let mut plain = headers(&list);
    sanitize_request(&mut plain, false);
    assert_eq!(plain, headers(&[("te", "trailers"), ("a", "b")]));
    let mut upgrade = headers(&list);
    sanitize_request(&mut upgrade, true);
    assert_eq!(upgrade, headers(&[("connection", "close"), ("te", "trailers"), ("upgrade", "ws"), ("a", "b")]));
    let mut response = headers(&list);
    sanitize_response(&mut response, false);
    assert!(
        !response.contains(&Known::Connection) && !response.contains(&Known::Upgrade) && response.contains(&Known::Te)
    );
}

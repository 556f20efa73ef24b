//! What must hold for any bytes.

use bytes::Bytes;
use filters::http::{HeaderName, Headers, Method, RequestHead, ResponseHead};
use proptest::prelude::*;

use super::*;

/// Bytes that look like HTTP often enough to get past the first line.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"POST /x HTTP/1.1\r\nhost: h\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.1 100 C\r\n\r\n".to_vec()),
        Just(b"transfer-encoding: chunked\r\n".to_vec()),
        Just(b"content-length: 5\r\n".to_vec()),
        Just(b"connection: upgrade, x\r\nupgrade: y\r\n".to_vec()),
        Just(b"x: y\r\n z\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"5\r\nhello\r\n".to_vec()),
        Just(b"1\r\na\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"0\r\nt: u\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

fn token() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_.-]{0,12}".prop_filter("names the codec decides about", |name| {
        HeaderName::parse(name.as_bytes()).is_some_and(|n| n.known().is_none())
    })
}

fn headers() -> impl Strategy<Value = Headers> {
    let value = "([!-~\u{80}-\u{ff}]([ \t!-~]{0,20}[!-~])?)?";
    proptest::collection::vec((token(), value), 0..12).prop_map(|list| {
        list.into_iter().fold(Headers::new(), |mut headers, (name, value)| {
            headers.append(HeaderName::from_lowercase(Bytes::from(name)), value);
            headers
        })
    })
}

fn pieces_of_body() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..1500), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn requests_do_not_depend_on_how_they_are_cut(
        input in hostile(),
        splits in proptest::collection::vec(any::<usize>(), 0..8),
        trailers in any::<bool>(),
        accept_http_10 in any::<bool>(),
    ) {
        let options = Rc::new(ServerOptions { enable_trailers: trailers, accept_http_10, ..ServerOptions::default() });
        let whole = requests(&options, &input, &[]);
        prop_assert_eq!(&requests(&options, &input, &splits), &whole);
        let bytes: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&requests(&options, &input, &bytes), &whole);
    }

    #[test]
    fn responses_do_not_depend_on_how_they_are_cut(
        input in hostile(),
        splits in proptest::collection::vec(any::<usize>(), 0..8),
        expected in prop_oneof![
            Just(Expected::Body), Just(Expected::NoBody), Just(Expected::Connect), Just(Expected::Upgrade)
        ],
    ) {
        let options = Rc::new(ClientOptions { enable_trailers: true, ..ClientOptions::default() });
        let whole = response(&options, expected, &input, &[]);
        prop_assert_eq!(&response(&options, expected, &input, &splits), &whole);
        let bytes: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&response(&options, expected, &input, &bytes), &whole);
    }

    #[test]
    fn requests_come_back_as_they_were_sent(
        headers in headers(),
        trailers in headers(),
        body in pieces_of_body(),
        splits in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let head = RequestHead {
            method: Method::Post,
            authority: "h".into(),
            path: "/p".into(),
            headers,
            ..RequestHead::default()
        };
        let mut out = WriteBuf::new();
        let mut encoder = RequestEncoder::default();
        prop_assert_eq!(encoder.encode_head(&head, &RequestOptions::default(), &mut out), Ok(()));
        for piece in &body {
            prop_assert_eq!(encoder.encode_data(Bytes::from(piece.clone()), &mut out), Ok(()));
        }
        prop_assert_eq!(encoder.finish(Some(&trailers), HeaderFormat::Lower, &mut out), Ok(()));

        let options = Rc::new(ServerOptions { enable_trailers: true, ..ServerOptions::default() });
        let mut story = format!("POST /p @h{} +chunked", fields(&head.headers));
        if !body.is_empty() {
            story += &format!("; data {}", body.concat().escape_ascii());
        }
        story += &if trailers.is_empty() { "; end".to_owned() } else { format!("; trailers{}", fields(&trailers)) };
        prop_assert_eq!(requests(&options, &drain(&mut out), &splits), story);
    }

    #[test]
    fn responses_come_back_as_they_were_sent(
        status in 200_u16..600,
        headers in headers(),
        body in pieces_of_body(),
        splits in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let head = ResponseHead { status, headers, ..ResponseHead::default() };
        let mut out = WriteBuf::new();
        let mut encoder = ResponseEncoder::default();
        let options = ResponseOptions { keep_alive: true, ..ResponseOptions::default() };
        prop_assert_eq!(encoder.encode_head(&head, &options, &mut out), Ok(()));
        for piece in &body {
            prop_assert_eq!(encoder.encode_data(Bytes::from(piece.clone()), &mut out), Ok(()));
        }
        prop_assert_eq!(encoder.finish(None, HeaderFormat::Lower, &mut out), Ok(()));

        let mut story = format!("{status}{}", fields(&head.headers));
        if !matches!(status, 204 | 304) {
            story += " +chunked";
            if !body.is_empty() {
                story += &format!("; data {}", body.concat().escape_ascii());
            }
            story += "; end";
        }
        story += "; idle";
        prop_assert_eq!(response(&Rc::default(), Expected::Body, &drain(&mut out), &splits), story);
    }

    #[test]
    fn a_head_is_one_head_whatever_its_values_hold(
        name in "[a-z:\r\n ]{0,6}",
        value in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0_u8), Just(b':'), Just(b'a')], 0..8),
    ) {
        let mut head = RequestHead { authority: "h".into(), path: "/".into(), ..RequestHead::default() };
        head.headers.append(HeaderName::from_lowercase(Bytes::from(name)), value);
        let mut out = WriteBuf::new();
        let options = RequestOptions { end_stream: true, ..RequestOptions::default() };
        if RequestEncoder::default().encode_head(&head, &options, &mut out).is_ok() {
            let story = requests(&Rc::default(), &drain(&mut out), &[]);
            prop_assert!(story.starts_with("GET / @h") && !story.contains(';'), "{}", story);
        } else {
            prop_assert!(out.is_empty());
        }
    }
}

fn drain(out: &mut WriteBuf) -> Vec<u8> {
    let mut written = Vec::new();
    while !out.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); 3];
        let used = out.slices(&mut slices);
        let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
        out.advance(bytes.len());
        written.extend(bytes);
    }
    written
}

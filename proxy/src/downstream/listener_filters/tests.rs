use std::cell::RefCell;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::cluster::PassTlvs;
use crate::config::listener::listener_filter::{Predicate, ProxyProtocolConfig, TlsInspectorConfig, TlvRule};

/// A world that remembers what was counted.
#[derive(Default)]
struct World {
    original_dst: Option<SocketAddr>,
    counted: RefCell<Vec<FilterCounter>>,
}

impl Surroundings for World {
    fn original_dst(&self) -> Option<SocketAddr> {
        self.original_dst
    }

    fn is_elsewhere(&self, address: SocketAddr) -> bool {
        address.port() != 1
    }

    fn count(&self, _filter: usize, counter: FilterCounter) {
        self.counted.borrow_mut().push(counter);
    }

    fn tls_bytes_processed(&self, _filter: usize, _bytes: usize) {}
}

#[derive(Debug, PartialEq)]
struct Outcome {
    progress: Progress,
    consumed: usize,
    detected: Detected,
    counted: Vec<FilterCounter>,
}

fn filter(kind: ListenerFilterKind) -> ListenerFilterConfig {
    ListenerFilterConfig { name: "f".into(), kind, disabled: None }
}

fn tls() -> ListenerFilterConfig {
    let config = TlsInspectorConfig { max_client_hello_size: 16384, close_on_parsing_errors: false };
    filter(ListenerFilterKind::TlsInspector(config))
}

fn proxy(change: impl FnOnce(&mut ProxyProtocolConfig)) -> ListenerFilterConfig {
    let rule = TlvRule { tlv_type: 0xea, namespace: "n".into(), key: "k".into(), base64: false };
    let mut config = ProxyProtocolConfig {
        allow_requests_without_proxy_protocol: false,
        allow_v1: true,
        allow_v2: true,
        stat_prefix: "".into(),
        rules: vec![rule],
        pass: PassTlvs::All,
    };
    change(&mut config);
    filter(ListenerFilterKind::ProxyProtocol(Arc::new(config)))
}

/// Shows `bytes` up to each of `cuts`, then all of them.
fn run(filters: &[ListenerFilterConfig], bytes: &[u8], cuts: &[usize]) -> Outcome {
    let world = World::default();
    let mut inspection = Inspection::new(filters, Some(80));
    let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(bytes.len())).chain([bytes.len()]).collect();
    cuts.sort_unstable();
    let mut progress = inspection.advance(&[], &world);
    for cut in cuts {
        if let Progress::NeedMore(needed) = progress {
            if cut < needed && cut < bytes.len() {
                continue;
            }
            progress = inspection.advance(&bytes[..cut], &world);
            if let Progress::NeedMore(more) = progress {
                assert!(more > cut, "asks for what it has seen: {more} of {cut}");
            }
        }
    }
    let consumed = inspection.consumed();
    Outcome { progress, consumed, detected: inspection.into_detected(), counted: world.counted.into_inner() }
}

/// A client hello in records of at most `record` bytes.
fn hello(name: Option<&str>, alpn: &[&str], record: usize) -> Vec<u8> {
    let prefixed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let list = [&[0][..], &prefixed(name.as_bytes())].concat();
        extensions.extend([0, 0]);
        extensions.extend(prefixed(&prefixed(&list)));
    }
    if !alpn.is_empty() {
        let list: Vec<u8> = alpn.iter().flat_map(|name| [&[name.len() as u8][..], name.as_bytes()].concat()).collect();
        extensions.extend([0, 16]);
        extensions.extend(prefixed(&prefixed(&list)));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0x13, 1, 1, 0]);
    body.extend(prefixed(&extensions));
    let mut handshake = vec![1, 0];
    handshake.extend((body.len() as u16).to_be_bytes());
    handshake.extend(body);
    handshake.chunks(record).flat_map(|part| [&[22, 3, 1][..], &prefixed(part)].concat()).collect()
}

#[test]
fn a_client_hello_tells_name_and_protocols() {
    for record in [16384, 50, 1] {
        let outcome = run(&[tls()], &hello(Some("Srv.TEST"), &["h2", "http/1.1"], record), &[]);
        assert_eq!((outcome.progress, outcome.consumed), (Progress::Done, 0), "{record}");
        assert_eq!(outcome.detected.server_name, "srv.test");
        assert_eq!(outcome.detected.transport_protocol, Some(TLS));
        assert_eq!(outcome.detected.application_protocols, [Box::from(*b"h2"), Box::from(*b"http/1.1")]);
        assert_eq!(outcome.counted, [FilterCounter::TlsFound, FilterCounter::SniFound, FilterCounter::AlpnFound]);
    }
    let bare = run(&[tls()], &hello(None, &[], 16384), &[]);
    assert_eq!(bare.counted, [FilterCounter::TlsFound, FilterCounter::SniNotFound, FilterCounter::AlpnNotFound]);
}

#[test]
fn what_is_no_client_hello_is_plain_text_at_its_first_byte() {
    for bytes in [&b"G"[..], b"\x16\x02", b"\x16\x03\x01\0\x05\x02", b"\x16\x03\x01\xff\xff\x01"] {
        let outcome = run(&[tls()], bytes, &[]);
        assert_eq!(
            (outcome.progress, &*outcome.counted),
            (Progress::Done, &[FilterCounter::TlsNotFound][..]),
            "{bytes:?}"
        );
        assert_eq!(outcome.detected, Detected::default());
    }
    let strict = TlsInspectorConfig { max_client_hello_size: 16384, close_on_parsing_errors: true };
    assert_eq!(run(&[filter(ListenerFilterKind::TlsInspector(strict))], b"GET", &[]).progress, Progress::Reject);
}

#[test]
fn a_client_hello_beyond_the_limit_is_refused() {
    let small = TlsInspectorConfig { max_client_hello_size: 256, close_on_parsing_errors: false };
    let filters = [filter(ListenerFilterKind::TlsInspector(small))];
    for record in [16384, 20] {
        let outcome = run(&filters, &hello(Some(&"x".repeat(250)), &[], record), &[]);
        assert_eq!(
            (outcome.progress, &*outcome.counted),
            (Progress::Reject, &[FilterCounter::ClientHelloTooLarge][..])
        );
    }
}

/// Each row was read off the real Envoy 1.40.
#[test]
fn the_http_inspector_sees_what_envoy_sees() {
    for (bytes, protocol) in [
        ("GET / HTTP/1.1\r\n", Some("http/1.1")),
        ("GET / HTTP/1.1\n", Some("http/1.1")),
        ("GET / HTTP/1.0\r\n", Some("http/1.0")),
        ("GET /\r\n", Some("http/1.0")),
        ("GET / HTTP/1.2\r\n", Some("http/1.0")),
        ("FOO / HTTP/1.1\r\n", Some("http/1.1")),
        ("GET  / HTTP/1.1 \r\n", Some("http/1.1")),
        ("GET\t/\tHTTP/1.1\r\n", Some("http/1.1")),
        ("GET http://a/b HTTP/1.1\r\n", Some("http/1.1")),
        ("CONNECT a:1 HTTP/1.1\r\n", Some("http/1.1")),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some("h2c")),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some("http/1.0")),
        ("\r\nGET / HTTP/1.1\r\n", None),
        (" GET / HTTP/1.1\r\n", None),
        ("GET / http/1.1\r\n", None),
        ("GET / HTTP/1.1x\r\n", None),
        ("GET / FOO\r\n", None),
        ("GET / HTTP/11\r\n", None),
        ("hello world\r\n", None),
        ("G@", None),
        ("\u{16}\u{3}", None),
    ] {
        let outcome = run(&[filter(ListenerFilterKind::HttpInspector)], bytes.as_bytes(), &[]);
        let expected: Vec<Box<[u8]>> = protocol.iter().map(|name| name.as_bytes().into()).collect();
        assert_eq!((outcome.progress, outcome.detected.application_protocols), (Progress::Done, expected), "{bytes:?}");
    }
    for unfinished in ["GET", "GET /abc", "PRI * HTTP/2.0\r\n\r\n"] {
        let outcome = run(&[filter(ListenerFilterKind::HttpInspector)], unfinished.as_bytes(), &[]);
        assert!(matches!(outcome.progress, Progress::NeedMore(_)), "{unfinished:?}");
    }
}

#[test]
fn the_http_inspector_leaves_tls_alone() {
    let outcome = run(&[tls(), filter(ListenerFilterKind::HttpInspector)], &hello(None, &[], 16384), &[]);
    assert_eq!((outcome.progress, outcome.counted.len()), (Progress::Done, 3));
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn v4(source: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
    [&source[..], &[5, 6, 7, 8, 0x03, 0xe8, 0x07, 0xd0], tlvs].concat()
}

const ADDRESSES: Option<&str> = Some("1.2.3.4:1000 5.6.7.8:2000");

fn addresses(outcome: &Outcome) -> Option<String> {
    let Detected { remote: Some(remote), local: Some(local), .. } = &outcome.detected else { return None };
    Some(format!("{remote} {local}"))
}

/// Each row was read off the real Envoy 1.40: the addresses (none: the socket's own), or a closed connection.
#[test]
fn proxy_headers_get_envoys_verdict() {
    let v1 = |line: &str| format!("{line}\r\n").into_bytes();
    let good = [
        (v1("PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000"), ADDRESSES),
        (v1("PROXY TCP4 1.2.3.4 5.6.7.8 +1000 02000"), ADDRESSES),
        (v1("PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000 "), ADDRESSES),
        (v1("PROXY TCP6 1::2 3::4 1000 2000"), Some("[1::2]:1000 [3::4]:2000")),
        (v1("PROXY UNKNOWN"), None),
        (v1("PROXY UNKNOWN a b c d"), None),
        (v1(&format!("PROXY UNKNOWN {}", "x".repeat(92))), None),
        (v2(0x21, 0x11, &v4([1, 2, 3, 4], b"")), ADDRESSES),
        (v2(0x21, 0x12, &v4([1, 2, 3, 4], b"")), ADDRESSES),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &v4([1, 2, 3, 4], b"")), None),
        (v2(0x20, 0x00, b"\xea\0\x09hello"), None),
    ];
    for (bytes, expected) in good {
        let outcome = run(&[proxy(|_| {})], &[&bytes[..], b"GET /"].concat(), &[]);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!((outcome.progress, outcome.consumed), (Progress::Done, bytes.len()), "{text}");
        assert_eq!(addresses(&outcome).as_deref(), expected, "{text}");
    }
    let bad = [
        v1("PROXY UNKNOWNX"),
        v1("PROXY UDP4 1.2.3.4 5.6.7.8 1000 2000"),
        v1("PROXY TCP4 1.2.3 5.6.7.8 1000 2000"),
        v1("PROXY TCP4 1::2 3::4 1000 2000"),
        v1("PROXY TCP6 1.2.3.4 5.6.7.8 1000 2000"),
        v1("PROXY TCP4 1.2.3.4 5.6.7.8 1000 70000"),
        v1("PROXY  TCP4 1.2.3.4 5.6.7.8 1000 2000"),
        v1("PROXY TCP4 1.2.3.4  5.6.7.8 1000 2000"),
        v1("PROXY TCP4 1.2.3.4 5.6.7.8 1000"),
        v1("PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000 x"),
        v1("PROXY TCP4 255.255.255.255 5.6.7.8 1000 2000"),
        v1("PROXY TCP4 224.0.0.1 5.6.7.8 1000 2000"),
        v1("PROXY TCP4 0.0.0.0 5.6.7.8 1000 2000"),
        v1(&format!("PROXY UNKNOWN {}", "x".repeat(93))),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x10, &v4([1, 2, 3, 4], b"")),
        v2(0x21, 0x31, &[b'a'; 216]),
        v2(0x22, 0x11, &v4([1, 2, 3, 4], b"")),
        v2(0x11, 0x11, &v4([1, 2, 3, 4], b"")),
        v2(0x21, 0x11, &[1; 8]),
        v2(0x21, 0x21, &v4([1, 2, 3, 4], b"")),
        v2(0x21, 0x11, &v4([1, 2, 3, 4], b"\x01\0\x32hello")),
        v2(0x21, 0x11, &v4([1, 2, 3, 4], b"\xea\0\x05helloxx")),
        v2(0x21, 0x11, &v4([224, 0, 0, 1], b"")),
        v2(0x21, 0x11, &v4([0, 0, 0, 0], b"")),
    ];
    for bytes in bad {
        let outcome = run(&[proxy(|_| {})], &[&bytes[..], b"GET / HTTP/1.1\r\n"].concat(), &[]);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(outcome.progress, Progress::Reject, "{text}");
        let error = if bytes.starts_with(b"P") { FilterCounter::ProxyV1Error } else { FilterCounter::ProxyV2Error };
        assert_eq!(outcome.counted, [error, FilterCounter::ProxyError], "{text}");
    }
}

#[test]
fn tlvs_become_metadata_and_stay_printable() {
    let body = v4([1, 2, 3, 4], b"\xea\0\x03a\xffb\x02\0\x01z");
    let outcome = run(&[proxy(|_| {})], &v2(0x21, 0x11, &body), &[]);
    assert_eq!(serde_json::to_string(&outcome.detected.metadata).expect("json"), r#"{"n":{"k":"a!b"}}"#);
}

#[test]
fn versions_that_are_not_allowed() {
    let header = v2(0x21, 0x11, &v4([1, 2, 3, 4], b""));
    let strict = run(&[proxy(|config| config.allow_v2 = false)], &header, &[]);
    assert_eq!(strict.counted, [FilterCounter::ProxyV2Found, FilterCounter::ProxyV2Disallowed]);
    assert_eq!(strict.progress, Progress::Reject);
    let lenient = proxy(|config| {
        config.allow_v2 = false;
        config.allow_requests_without_proxy_protocol = true;
    });
    let passed = run(&[lenient], &header, &[]);
    assert_eq!((passed.progress, passed.consumed), (Progress::Done, 0));
    assert_eq!(passed.counted, [FilterCounter::ProxyNotFoundAllowed]);
    assert_eq!(run(&[proxy(|_| {})], b"GET /", &[]).counted[0], FilterCounter::ProxyNotFoundDisallowed);
}

#[test]
fn filters_run_in_order_and_only_where_they_are_wanted() {
    let bytes = [b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 443\r\n".to_vec(), hello(Some("a.b"), &[], 16384)].concat();
    let mut disabled = tls();
    disabled.disabled = Some(Predicate::DestinationPort { start: 443, end: 444 });
    let outcome = run(&[proxy(|_| {}), tls()], &bytes, &[]);
    assert_eq!((outcome.consumed, &*outcome.detected.server_name), (37, "a.b"));
    // The port is the one the PROXY header restored.
    assert_eq!(run(&[proxy(|_| {}), disabled], &bytes, &[]).detected.server_name, "");
}

#[test]
fn the_original_destination_is_restored_unless_it_is_here() {
    for (address, expected) in [("9.9.9.9:99", Some("9.9.9.9:99")), ("9.9.9.9:1", None)] {
        let world = World { original_dst: address.parse().ok(), ..World::default() };
        let filters = [filter(ListenerFilterKind::OriginalDst)];
        let mut inspection = Inspection::new(&filters, Some(80));
        assert_eq!(inspection.advance(&[], &world), Progress::Done);
        assert_eq!(inspection.into_detected().local.map(|local| local.to_string()).as_deref(), expected);
    }
}

fn interesting() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(hello(Some("a.example"), &["h2"], 16384)),
        (1_usize..80).prop_map(|record| hello(Some("a.example"), &["h2", "http/1.1"], record)),
        Just(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        Just(b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000\r\nGET / HTTP/1.1\r\n".to_vec()),
        Just(v2(0x21, 0x11, &v4([1, 2, 3, 4], b"\xea\0\x05hello"))),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn how_bytes_arrive_changes_nothing_and_nothing_panics(
        mut bytes in interesting(),
        cuts in proptest::collection::vec(0_usize..400, 0..20),
        flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        order in 0_usize..3,
    ) {
        if let Some((place, value)) = flip && !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let http = filter(ListenerFilterKind::HttpInspector);
        let filters = match order {
            0 => vec![tls(), http],
            1 => vec![proxy(|_| {}), tls(), http],
            _ => vec![proxy(|config| config.allow_requests_without_proxy_protocol = true), http],
        };
        let whole = run(&filters, &bytes, &[]);
        let pieces = run(&filters, &bytes, &cuts);
        if matches!(whole.progress, Progress::NeedMore(_)) {
            prop_assert!(matches!(pieces.progress, Progress::NeedMore(_)));
        } else {
            prop_assert_eq!(whole, pieces);
        }
    }
}

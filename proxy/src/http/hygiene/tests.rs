//! Heads in, heads out: each row was measured on Envoy 1.40.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use filters::http::{Header, ResponseHead};
use filters::matcher::CidrRange;

use super::*;

const NODE: [u8; 4] = [192, 0, 2, 2];
const ID: &str = "11111111-2222-4333-8444-555555555555";

fn address(text: &str) -> Address {
    Address::Ip(text.parse::<SocketAddr>().unwrap())
}

fn connection(remote: &str) -> ConnectionInfo {
    ConnectionInfo { listener_name: "l".into(), ..ConnectionInfo::between(address(remote), address("127.0.0.1:8443")) }
}

fn options() -> RequestHygiene {
    RequestHygiene {
        generate_request_id: true,
        pack_trace_reason: true,
        local_address: Some(NODE.into()),
        ..RequestHygiene::default()
    }
}

fn edge() -> RequestHygiene {
    RequestHygiene { use_remote_address: true, ..options() }
}

fn inside(options: RequestHygiene) -> RequestHygiene {
    let ranges = [([127, 0, 0, 0].into(), 8), ([10, 0, 0, 0].into(), 8)];
    let ranges = ranges.into_iter().map(|(address, length)| CidrRange::new(address, length)).collect();
    RequestHygiene { internal: Some(InternalAddresses { ranges, unix_sockets: false }), ..options }
}

/// `a: b | c: d` as a header list.
fn headers(text: &str) -> Headers {
    let lines = text.split(" | ").filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            Header { name: HeaderName::parse(name.as_bytes()).unwrap(), value: value.trim().to_owned().into() }
        })
        .collect()
}

fn show(headers: &Headers) -> String {
    let lines = headers.iter().map(|header| {
        let value = match String::from_utf8(header.value.to_vec()).unwrap() {
            id if header.name == Known::XRequestId && id.len() == 36 && id != ID => "NEW".to_owned(),
            other => other,
        };
        format!("{}: {value}", header.name)
    });
    lines.collect::<Vec<_>>().join(" | ")
}

fn run(options: &RequestHygiene, remote: &str, given: &str) -> (String, RequestFacts, Scheme) {
    let connection = connection(remote);
    let peer = Peer::new(options, &connection);
    let mut head = RequestHead { headers: headers(given), scheme: Scheme::Unknown, ..RequestHead::default() };
    let mut rng = fastrand::Rng::with_seed(1);
    let only = [HeaderName::parse(b"x-only").unwrap()];
    let facts = options.mutate(&mut head, &peer, &connection, &only, &mut rng).unwrap();
    (show(&head.headers), facts, head.scheme)
}

#[test]
fn a_proxy_behind_a_proxy_leaves_forwarding_alone() {
    let rows = [
        ("", "x-forwarded-proto: http | x-request-id: NEW", None),
        ("x-request-id: hi there", "x-request-id: hi there | x-forwarded-proto: http", None),
        ("x-request-id:", "x-request-id: NEW | x-forwarded-proto: http", None),
        (
            "x-forwarded-for: 1.2.3.4, 5.6.7.8",
            "x-forwarded-for: 1.2.3.4, 5.6.7.8 | x-forwarded-proto: http | x-request-id: NEW",
            Some("5.6.7.8:0"),
        ),
        ("x-forwarded-for: ::1", "x-forwarded-for: ::1 | x-forwarded-proto: http | x-request-id: NEW", Some("[::1]:0")),
        ("x-forwarded-for: bogus", "x-forwarded-for: bogus | x-forwarded-proto: http | x-request-id: NEW", None),
        ("x-forwarded-for: 1.2.3.4,", "x-forwarded-for: 1.2.3.4, | x-forwarded-proto: http | x-request-id: NEW", None),
        (
            "x-forwarded-for: 1.2.3.4:80",
            "x-forwarded-for: 1.2.3.4:80 | x-forwarded-proto: http | x-request-id: NEW",
            None,
        ),
        (
            "x-forwarded-for: 1.1.1.1 | x-forwarded-for: 10.2.2.2",
            "x-forwarded-for: 1.1.1.1,10.2.2.2 | x-forwarded-proto: http | x-request-id: NEW",
            Some("10.2.2.2:0"),
        ),
    ];
    for (given, expected, client) in rows {
        let (seen, facts, _) = run(&options(), "127.0.0.1:5", given);
        assert_eq!(seen, expected, "{given}");
        assert_eq!(facts.client, client.map(address), "{given}");
        assert!(!facts.internal && !facts.edge);
    }
}

#[test]
fn an_edge_appends_the_peer_and_trusts_nothing() {
    let tail = "x-forwarded-proto: http | x-envoy-external-address: 127.0.0.1";
    let rows = [
        ("", format!("x-forwarded-for: 192.0.2.2 | {tail} | x-request-id: NEW")),
        (&format!("x-request-id: {ID}"), format!("x-request-id: NEW | x-forwarded-for: 192.0.2.2 | {tail}")),
        ("x-forwarded-for: 1.2.3.4,", format!("x-forwarded-for: 1.2.3.4,,192.0.2.2 | {tail} | x-request-id: NEW")),
        (
            "x-forwarded-proto: ftp",
            "x-forwarded-proto: http | x-forwarded-for: 192.0.2.2 | x-envoy-external-address: 127.0.0.1 | x-request-id: NEW"
                .to_owned(),
        ),
    ];
    for (given, expected) in rows {
        let (seen, facts, _) = run(&edge(), "127.0.0.1:5", given);
        assert_eq!(seen, expected, "{given}");
        assert!(facts.edge && !facts.internal && facts.client.is_none());
    }
    let (seen, ..) = run(&edge(), "203.0.113.9:5", "");
    assert!(seen.starts_with("x-forwarded-for: 203.0.113.9 | "), "{seen}");
}

#[test]
fn trusted_hops_count_from_the_right() {
    let two = RequestHygiene { xff_num_trusted_hops: 2, ..edge() };
    let one = RequestHygiene { xff_num_trusted_hops: 1, ..options() };
    let rows = [
        (&two, "x-forwarded-for: 1.2.3.4", None),
        (&two, "x-forwarded-for: 1.2.3.4, 5.6.7.8", Some("1.2.3.4:0")),
        (&two, "x-forwarded-for: 1.2.3.4, 5.6.7.8,9.9.9.9", Some("5.6.7.8:0")),
        (&one, "x-forwarded-for: 1.2.3.4", None),
        (&one, "x-forwarded-for: 1.2.3.4,", Some("1.2.3.4:0")),
        (&one, "x-forwarded-for: 1.2.3.4, 5.6.7.8,9.9.9.9", Some("5.6.7.8:0")),
    ];
    for (options, given, client) in rows {
        assert_eq!(run(options, "127.0.0.1:5", given).1.client, client.map(address), "{given}");
    }
    let (seen, _, scheme) = run(&two, "127.0.0.1:5", "x-forwarded-proto: HTTPS");
    assert!(seen.starts_with("x-forwarded-proto: HTTPS | "), "a trusted proxy's word counts: {seen}");
    assert_eq!(scheme, Scheme::Https);
}

#[test]
fn internal_requests_are_marked_and_keep_their_powers() {
    let retry = "x-envoy-retry-on: 5xx | x-only: 1";
    let (seen, facts, _) = run(&inside(edge()), "127.0.0.1:5", retry);
    assert_eq!(
        seen,
        "x-envoy-retry-on: 5xx | x-only: 1 | x-forwarded-for: 192.0.2.2 | x-forwarded-proto: http | x-envoy-internal: true \
         | x-request-id: NEW"
    );
    assert!(facts.internal && !facts.edge);
    // An address in front makes it external, also an internal one.
    assert!(!run(&inside(edge()), "127.0.0.1:5", "x-forwarded-for: 10.1.1.1").1.internal);
    // Without `use_remote_address` exactly one internal address does.
    for (given, internal) in [
        ("", false),
        ("x-forwarded-for: 10.1.1.1", true),
        ("x-forwarded-for: 1.2.3.4", false),
        ("x-forwarded-for: 1.1.1.1,10.1.1.1", false),
    ] {
        assert_eq!(run(&inside(options()), "127.0.0.1:5", given).1.internal, internal, "{given}");
    }
}

#[test]
fn who_may_send_what() {
    let always = "x-forwarded-port: 77 | x-envoy-attempt-count: 4 | x-forwarded-host: fh | x-client-trace-id: ct";
    let not_edge = "x-envoy-downstream-service-cluster: dc | x-envoy-downstream-service-node: dn | x-envoy-original-path: /op \
                    | x-envoy-original-host: oh | x-envoy-decorator-operation: deco";
    let inside_only = "x-envoy-force-trace: true | x-envoy-retry-on: 5xx | x-envoy-retry-grpc-on: internal \
                       | x-envoy-max-retries: 1 | x-envoy-upstream-rq-timeout-ms: 9 \
                       | x-envoy-upstream-rq-per-try-timeout-ms: 2 | x-envoy-upstream-rq-timeout-alt-response: 1 \
                       | x-envoy-upstream-alt-stat-name: foo | x-envoy-upstream-stream-duration-ms: 100 \
                       | x-envoy-expected-rq-timeout-ms: 77 | x-envoy-hedge-on-per-try-timeout: true \
                       | x-envoy-retriable-status-codes: 500 | x-envoy-retriable-header-names: a | x-envoy-ip-tags: t \
                       | x-envoy-original-url: http://a/ | x-only: 1";
    let own = format!("x-request-id: {ID} | x-forwarded-proto: http");
    let given =
        format!("{own} | {always} | {not_edge} | {inside_only} | x-envoy-internal: true | x-forwarded-client-cert: c");
    let quiet = |options| RequestHygiene { skip_xff_append: true, preserve_external_request_id: true, ..options };

    let (seen, ..) = run(&quiet(edge()), "127.0.0.1:5", &given);
    assert_eq!(seen, format!("{own} | {always} | x-envoy-external-address: 127.0.0.1"));
    let (seen, ..) = run(&quiet(options()), "127.0.0.1:5", &given);
    assert_eq!(seen, format!("{own} | {always} | {not_edge}"));
    let (seen, ..) = run(&quiet(inside(edge())), "127.0.0.1:5", &given);
    assert_eq!(seen, format!("{own} | {always} | {not_edge} | {inside_only} | x-envoy-internal: true"));
    let keep = RequestHygiene {
        client_cert: ForwardClientCert { mode: ClientCertMode::AlwaysForwardOnly, ..ForwardClientCert::default() },
        ..quiet(inside(edge()))
    };
    assert!(run(&keep, "127.0.0.1:5", &given).0.contains("x-forwarded-client-cert: c"));
}

#[test]
fn hop_by_hop_headers_do_not_pass() {
    let rest = "x-forwarded-proto: http | x-request-id: NEW";
    let rows = [
        ("connection: keep-alive | keep-alive: 5 | proxy-connection: x | upgrade: foo", ""),
        ("te: trailers", "te: trailers | "),
        ("te: gzip", ""),
        ("te: trailers, deflate", "te: trailers | "),
        ("te: trailers;q=0.5", ""),
        ("te: gzip, TRAILERS", "te: trailers | "),
        ("transfer-encoding: chunked", ""),
        ("trailer: x | content-length: 0", "trailer: x | content-length: 0 | "),
        ("referer: http://a/b", "referer: http://a/b | "),
        ("referer: /x", "referer: /x | "),
        ("referer: HTTP://a", "referer: HTTP://a | "),
        ("referer: about:blank", ""),
        ("referer: https://a.b:90/x y", ""),
        ("referer: http://a/ | referer: http://b/", "referer: http://a/,http://b/ | "),
        ("referer: v1", "referer: v1 | "),
        ("referer: a b", ""),
        ("referer: abc.com:80", ""),
        ("referer: a/b:80", "referer: a/b:80 | "),
        ("referer: /x#y", ""),
        ("referer: http://a/b#c", ""),
        ("referer: http://user@a/", ""),
        ("referer: http:///x", ""),
        ("referer: ftp://a:21/b", "referer: ftp://a:21/b | "),
        ("referer: http://[::1]:80/", "referer: http://[::1]:80/ | "),
        ("referer: http://a:x/", ""),
        ("via: a | x-a: 1 | via: b", "via: a,b | x-a: 1 | "),
        ("connection: Upgrade | upgrade: websocket", "connection: Upgrade | upgrade: websocket | "),
    ];
    for (given, expected) in rows {
        assert_eq!(run(&options(), "127.0.0.1:5", given).0, format!("{expected}{rest}"), "{given}");
    }
}

#[test]
fn nominated_headers_go_before_anything_else() {
    let rows = [
        ("connection: close, x-a | x-a: 1 | x-b: 2", Some("connection: close, x-a | x-b: 2")),
        ("connection: cookie | cookie: 1", Some("connection: cookie")),
        ("connection: te,close | te: trailers", Some("connection: te,close | te: trailers")),
        ("connection: te,close | te: gzip", Some("connection: te,close")),
        ("connection: host", None),
        ("connection: x-forwarded-for | x-forwarded-for: 1.1.1.1", None),
        ("x-a: 1", Some("x-a: 1")),
    ];
    for (given, expected) in rows {
        let mut list = headers(given);
        assert_eq!(remove_nominated(&mut list).then(|| show(&list)).as_deref(), expected, "{given}");
    }
}

#[test]
fn options_add_their_headers_in_envoys_order() {
    let all = RequestHygiene {
        append_x_forwarded_port: true,
        via: "1.1 me".into(),
        user_agent: Some(UserAgent { cluster: "ncl".into(), node: "nid".into() }),
        ..edge()
    };
    assert_eq!(
        run(&all, "127.0.0.1:5", "via: 1.0 x").0,
        "via: 1.0 x, 1.1 me | x-forwarded-for: 192.0.2.2 | x-forwarded-proto: http | x-forwarded-port: 8443 \
         | x-envoy-downstream-service-cluster: ncl | user-agent: ncl | x-envoy-downstream-service-node: nid \
         | x-envoy-external-address: 127.0.0.1 | x-request-id: NEW"
    );
    let scheme = RequestHygiene { scheme_to_overwrite: Some(Scheme::Https), generate_request_id: false, ..options() };
    let (seen, _, scheme) = run(&scheme, "127.0.0.1:5", "x-forwarded-proto: ftp");
    assert_eq!((seen.as_str(), scheme), ("x-forwarded-proto: https", Scheme::Https));
}

#[test]
fn detection_extensions_find_the_client() {
    let custom = |trusted, reject_with| RequestHygiene {
        detection: vec![Detection::CustomHeader { name: HeaderName::parse(b"x-ip").unwrap(), trusted, reject_with }],
        ..inside(options())
    };
    let (_, facts, _) = run(&custom(true, None), "127.0.0.1:5", "x-ip: 10.0.0.9");
    assert_eq!((facts.client, facts.internal), (Some(address("10.0.0.9:0")), true));
    assert!(!run(&custom(false, None), "127.0.0.1:5", "x-ip: 10.0.0.9").1.internal);
    let options = custom(false, Some(403));
    let peer = Peer::new(&options, &connection("127.0.0.1:5"));
    let mut head = RequestHead::default();
    let rejected = options.mutate(&mut head, &peer, &connection("127.0.0.1:5"), &[], &mut fastrand::Rng::new());
    assert_eq!(rejected, Err(Rejection { status: 403, details: "rejecting_because_detection_failed" }));

    let trusted: CidrSet =
        [CidrRange::new([127, 0, 0, 0].into(), 8), CidrRange::new([9, 0, 0, 0].into(), 8)].into_iter().collect();
    let xff = RequestHygiene {
        detection: vec![Detection::Xff { hops: 0, trusted: Some(trusted), skip_append: true }],
        ..self::options()
    };
    for (remote, given, client) in [
        ("127.0.0.1:5", "x-forwarded-for: 1.1.1.1,2.2.2.2,9.1.1.1", Some("2.2.2.2:0")),
        ("127.0.0.1:5", "x-forwarded-for: 9.9.9.9", Some("9.9.9.9:0")),
        ("8.8.8.8:5", "x-forwarded-for: 1.1.1.1", None),
    ] {
        assert_eq!(run(&xff, remote, given).1.client, client.map(address), "{remote} {given}");
    }
}

#[test]
fn trace_reasons_live_in_the_id() {
    let mut list = headers(&format!("x-request-id: {ID}"));
    set_trace_reason(&mut list, TraceReason::Sampled);
    assert_eq!(list.value(&Known::XRequestId).unwrap(), "11111111-2222-9333-8444-555555555555");
    assert_eq!(TraceReason::of(list.value(&Known::XRequestId).unwrap()), TraceReason::Sampled);
    // Preserved at an edge, but not its reason.
    let preserve = RequestHygiene { preserve_external_request_id: true, ..edge() };
    let (seen, ..) = run(&preserve, "127.0.0.1:5", "x-request-id: 11111111-2222-9333-8444-555555555555");
    assert!(seen.starts_with(&format!("x-request-id: {ID} | ")), "{seen}");
}

#[test]
fn responses() {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_393_471);
    let given = "server: up | date: d | via: 1.0 a | connection: keep-alive | keep-alive: 1 | proxy-connection: a \
                 | upgrade: foo | x-q: 1 | te: x | content-length: 2 | x-request-id: mine";
    let base = ResponseHygiene { server_name: "envoy".into(), ..ResponseHygiene::default() };
    let append = ResponseHygiene {
        server: ServerHeader::AppendIfAbsent,
        via: "1.1 v".into(),
        always_set_request_id: true,
        ..base.clone()
    };
    let pass = ResponseHygiene { server: ServerHeader::PassThrough, ..base.clone() };
    let rows = [
        (
            &base,
            given,
            "server: envoy | date: d | via: 1.0 a | x-q: 1 | te: x | content-length: 2 | x-request-id: mine",
        ),
        (
            &append,
            given,
            &format!(
                "server: up | date: d | via: 1.0 a, 1.1 v | x-q: 1 | te: x | content-length: 2 | x-request-id: {ID}"
            ),
        ),
        (&pass, given, "server: up | date: d | via: 1.0 a | x-q: 1 | te: x | content-length: 2 | x-request-id: mine"),
        (&base, "", "date: Mon, 23 Nov 2026 00:24:31 GMT | server: envoy"),
        (
            &append,
            "",
            &format!("date: Mon, 23 Nov 2026 00:24:31 GMT | server: envoy | x-request-id: {ID} | via: 1.1 v"),
        ),
        (&pass, "", "date: Mon, 23 Nov 2026 00:24:31 GMT"),
    ];
    let cache = DateCache::default();
    let request = RequestHead { headers: headers(&format!("x-request-id: {ID}")), ..RequestHead::default() };
    for (options, given, expected) in rows {
        let mut head = ResponseHead { status: 200, headers: headers(given), ..ResponseHead::default() };
        mutate_response(options, &mut head, Some(&request), &cache, now);
        assert_eq!(show(&head.headers), expected, "{options:?}");
    }
    assert_eq!(cache.value(now + Duration::from_secs(1)), "Mon, 23 Nov 2026 00:24:32 GMT");
}

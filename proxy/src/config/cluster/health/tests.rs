use envoy_types::pb::envoy::r#type::v3::Int64Range;
use filters::config::Session;
use proto::health_check::{HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload::Payload as Kind};

use super::*;

fn seconds(seconds: i64) -> Option<google::Duration> {
    Some(google::Duration { seconds, nanos: 0 })
}

fn basic(checker: HealthChecker) -> proto::HealthCheck {
    proto::HealthCheck {
        timeout: seconds(1),
        interval: seconds(2),
        unhealthy_threshold: Some(google::UInt32Value { value: 3 }),
        healthy_threshold: Some(google::UInt32Value { value: 4 }),
        health_checker: Some(checker),
        ..Default::default()
    }
}

fn http(check: HttpHealthCheck) -> proto::HealthCheck {
    basic(HealthChecker::HttpHealthCheck(HttpHealthCheck { path: "/".to_owned(), ..check }))
}

fn tcp(check: TcpHealthCheck) -> proto::HealthCheck {
    basic(HealthChecker::TcpHealthCheck(check))
}

fn parse(proto: proto::HealthCheck) -> Result<HealthCheck, ConfigError> {
    HealthCheck::parse(Session::default().root(), proto, "c", false)
}

fn text(text: &str) -> Payload {
    Payload { payload: Some(Kind::Text(text.to_owned())) }
}

#[test]
fn intervals_default_to_one_another() {
    let check = parse(proto::HealthCheck { unhealthy_interval: seconds(7), ..http(Default::default()) }).unwrap();
    let timing = check.timing;
    let [two, seven, minute] = [2, 7, 60].map(Duration::from_secs);
    assert_eq!((timing.interval, timing.healthy_edge_interval), (two, two));
    assert_eq!((timing.unhealthy_interval, timing.unhealthy_edge_interval), (seven, seven));
    assert_eq!((timing.no_traffic_interval, timing.no_traffic_healthy_interval), (minute, minute));
    assert!(check.reuse_connection);
}

#[test]
fn what_envoy_rejects_is_named() {
    let range = |start, end| vec![Int64Range { start, end }];
    let of_http = |check| http(check);
    for (words, proto) in [
        ("timeout: value is required", proto::HealthCheck { timeout: None, ..http(Default::default()) }),
        ("greater than 0s", proto::HealthCheck { interval: seconds(0), ..http(Default::default()) }),
        ("unhealthy_threshold", proto::HealthCheck { unhealthy_threshold: None, ..http(Default::default()) }),
        ("health_checker", proto::HealthCheck { health_checker: None, ..Default::default() }),
        ("start < end", of_http(HttpHealthCheck { expected_statuses: range(200, 200), ..Default::default() })),
        ("start >= 100", of_http(HttpHealthCheck { expected_statuses: range(99, 200), ..Default::default() })),
        ("end <= 600", of_http(HttpHealthCheck { retriable_statuses: range(500, 601), ..Default::default() })),
        ("[CONNECT]", of_http(HttpHealthCheck { method: 6, ..Default::default() })),
        ("payload with method 'GET'", of_http(HttpHealthCheck { send: Some(text("00")), ..Default::default() })),
        ("invalid hex string 'zz'", tcp(TcpHealthCheck { send: Some(text("zz")), ..Default::default() })),
        ("invalid hex string '0'", tcp(TcpHealthCheck { receive: vec![text("0")], ..Default::default() })),
        ("support HTTP/2", basic(HealthChecker::GrpcHealthCheck(Default::default()))),
    ] {
        let proto = if words.contains("health_checker") {
            proto::HealthCheck { health_checker: None, ..http(Default::default()) }
        } else {
            proto
        };
        let error = parse(proto).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn segments_are_found_in_order() {
    let segments = Segments(vec![b"ab".to_vec(), b"c".to_vec()]);
    for (bytes, found) in [("abc", true), ("xxabyyc", true), ("cab", false), ("ab", false), ("", false)] {
        assert_eq!(segments.are_in(bytes.as_bytes()), found, "{bytes}");
    }
    assert!(Segments::default().are_in(b""));
}

#[test]
fn text_is_sent_by_tcp_and_binary_is_not() {
    let sent = |send| match parse(tcp(TcpHealthCheck { send: Some(send), ..Default::default() })).unwrap().checker {
        Checker::Tcp(check) => check.send,
        other => panic!("{other:?}"),
    };
    assert_eq!(sent(text("6869")), b"hi");
    assert_eq!(sent(Payload { payload: Some(Kind::Binary(b"hi".to_vec())) }), b"");
}

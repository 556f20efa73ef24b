//! Formats by table; texts and errors measured on Envoy 1.40.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value as Proto};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::flags::ResponseFlags;
use crate::http::{Known, Method, Scheme, Version};
use crate::stream_info::{Address, ConnectionInfo, Metadata};

fn ip(text: &str) -> Address {
    Address::Ip(text.parse::<SocketAddr>().unwrap())
}

fn info() -> StreamInfo {
    let connection = ConnectionInfo {
        id: 7,
        direct_remote: ip("[2001:db8::1]:5"),
        direct_local: ip("127.0.0.1:81"),
        listener_name: "l".into(),
        ..ConnectionInfo::between(ip("10.1.2.3:444"), ip("127.0.0.1:80"))
    };
    let start = Instant::now();
    let mut info =
        StreamInfo::new(Rc::new(connection), start, UNIX_EPOCH + Duration::from_nanos(1_795_393_471_102_291_000), 1);
    info.end = Some(start + Duration::from_millis(12));
    info.timing.last_upstream_tx = Some(start + Duration::from_micros(1_500));
    info.timing.first_upstream_rx = Some(start + Duration::from_millis(9));
    info.protocol = Some(Version::Http11);
    info.response_code = 403;
    info.bytes_sent = 8;
    info.details = Some("a b".into());
    info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
    info.dynamic_metadata = Some(Box::new(metadata(json!({
        "ns": {"k": "li\"ne\nx\u{1}", "b": true, "n": 1.5, "i": 3.0, "z": null, "o": {"q": "r", "p": [1, "a"]}}
    }))));
    let upstream = info.upstream_mut();
    upstream.connected = true;
    upstream.host = Some(Arc::new(ip("127.0.0.1:37091")));
    upstream.hosts_attempted = vec![Arc::new(ip("127.0.0.1:1")), Arc::new(ip("127.0.0.1:37091"))];
    upstream.cluster = Some("up".into());
    info
}

fn metadata(value: serde_json::Value) -> Metadata {
    match value {
        serde_json::Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

fn request() -> RequestHead {
    let mut headers = Headers::new();
    headers.append(Known::XForwardedProto, "http");
    headers.append(Known::XRequestId, "3f3fc170-319d-4b85-8184-28d0f4dd2fd3");
    RequestHead {
        method: Method::Get,
        scheme: Scheme::Http,
        authority: "h.com".into(),
        authority_missing: false,
        path: "/direct".into(),
        protocol: None,
        version: Version::Http11,
        headers,
    }
}

fn print(format: &str, request: &RequestHead, options: &FormatOptions) -> String {
    let info = info();
    let response = ResponseHead { status: 403, ..ResponseHead::default() };
    let context = FormatContext {
        request: Some(request),
        response: Some(&response),
        log_type: AccessLogType::DownstreamEnd,
        ..FormatContext::new(&info)
    };
    let format = Format::parse(format, options).unwrap_or_else(|error| panic!("{format}: {error}"));
    String::from_utf8_lossy(&format.text(&context)).into_owned()
}

#[test]
fn operators_print_what_envoy_prints() {
    let mut head = request();
    head.path = "/p/q?a=1%202&b=2&e=&n=%0a%41+b".into();
    head.headers.append(crate::http::HeaderName::parse(b"x").unwrap(), "hello");
    let rows = [
        ("%%", "%"),
        ("%%%PROTOCOL%", "%HTTP/1.1"),
        ("%REQ(x)%", "hello"),
        ("%REQ(X):2%", "he"),
        ("%REQ(x):0%", ""),
        ("%REQ(missing?x)%", "hello"),
        ("%REQ(?x)%", "hello"),
        ("a%REQ(missing)%", "a-"),
        ("%REQ(:path)%", "/p/q?a=1%202&b=2&e=&n=%0a%41+b"),
        ("%REQ(host)% %REQ(:scheme)% %REQ(:METHOD)%", "h.com http GET"),
        ("%RESP(:status)% %RESP(x)% %TRAILER(x)%", "403 - -"),
        ("%START_TIME%", "2026-11-23T00:24:31.102Z"),
        ("%START_TIME(%s.%3f)%", "1795393471.102"),
        ("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "403 NR NoRouteFound"),
        ("%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "a_b a b"),
        ("%BYTES_SENT% %BYTES_RECEIVED% %DURATION%", "8 0 12"),
        ("%REQUEST_TX_DURATION% %RESPONSE_DURATION% %REQUEST_DURATION%", "1 9 -"),
        ("%COMMON_DURATION(DS_RX_BEG:US_TX_END:us)% %COMMON_DURATION(DS_RX_BEG:mine)%", "1500 -"),
        ("%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_HOST_NAME_WITHOUT_PORT%", "127.0.0.1:37091 up 127.0.0.1"),
        ("%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_REMOTE_PORT%", "127.0.0.1:1,127.0.0.1:37091 37091"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%", "10.1.2.3:444 10.0.0.0/8"),
        (
            "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
            "[2001:db8::1]:5 2001:db8::1",
        ),
        ("%DOWNSTREAM_LOCAL_PORT% [%DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID%]", "80 []"),
        ("%CONNECTION_ID% %STREAM_ID%", "7 3f3fc170-319d-4b85-8184-28d0f4dd2fd3"),
        ("%GRPC_STATUS% %ROUTE_NAME% %FILTER_CHAIN_NAME% %TRACE_ID%", "- - - -"),
        ("%HOSTNAME% %ACCESS_LOG_TYPE% [%LOCAL_REPLY_BODY%] [%CUSTOM_FLAGS%]", "vm DownstreamEnd [] []"),
        ("%ENVIRONMENT(LEGATE_SURELY_UNSET)%", "-"),
        ("%QUERY_PARAM(a)%|%QUERY_PARAM(zz)%|%QUERY_PARAM(e)%|%QUERY_PARAM(n)%", "1 2|-||\\nA+b"),
        ("%QUERY_PARAMS% %QUERY_PARAMS(DECODED)%", "a=1%202&b=2&e=&n=%0a%41+b a=1%202&b=2&e=&n=%0aA+b"),
        ("%PATH(NQ)% %PATH(WQ:ORIG)% %PATH(NQ:PATH):3%", "/p/q - /p/"),
        ("%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(SNI_FIRST:HOST)%", "- h.com"),
        ("%DYNAMIC_METADATA(ns:k)%", "li\"ne\\nx\\u0001"),
        ("%DYNAMIC_METADATA(ns:k):3%", "li\""),
        ("%DYNAMIC_METADATA(ns:n)% %DYNAMIC_METADATA(ns:i)% %DYNAMIC_METADATA(ns:b)%", "1.5 3 true"),
        ("%METADATA(DYNAMIC:ns:o)% %DYNAMIC_METADATA(ns:z)%", "{\"p\":[1,\"a\"],\"q\":\"r\"} -"),
        ("%METADATA(ROUTE:a)% %METADATA(LISTENER:a)% %FILTER_STATE(a:FIELD:b)%", "- - -"),
        ("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_SUBJECT% %XFCC_VALUE(By)%", "- - -"),
        (r#"%COALESCE({"operators":["TRACE_ID",{"command":"REQ","param":"x","max_length":3}]})%"#, "hel"),
    ];
    let options = FormatOptions { hostname: "vm".into(), ..FormatOptions::default() };
    for (format, expected) in rows {
        assert_eq!(print(format, &head, &options), expected, "{format}");
    }
    assert_eq!(print("[%REQ(nope)%]", &head, &options.header_value()), "[]");
}

#[test]
fn sessions_have_operators_on_both_sides() {
    use std::sync::Arc;

    use crate::tls::{Certificate, TlsInfo};

    fn certificate(name: &str, serial: u8) -> Arc<Certificate> {
        let mut params = rcgen::CertificateParams::new(vec![format!("{name}.test"), "127.0.0.1".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[serial]));
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.subject_alt_names.push(rcgen::SanType::URI(format!("u:{name}\n").try_into().unwrap()));
        Arc::new(Certificate::new(params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()))
    }

    let mut info = info();
    let client = certificate("client", 1);
    let session = TlsInfo {
        version: "TLSv1.3",
        cipher: "C",
        group: "G",
        failure: Some("a b".into()),
        peer: vec![Arc::clone(&client), certificate("between", 2)],
        peer_issuer: Some(certificate("between", 2)),
        local: Some(certificate("server", 3)),
        ..TlsInfo::default()
    };
    info.connection.tls.set(session.clone()).unwrap();
    let upstream = TlsInfo { version: "TLSv1.2", session_id: "ab".into(), ..session };
    info.upstream_mut().tls = Some(Rc::new(upstream));
    let print = |format: &str| {
        let format = Format::parse(format, &FormatOptions::default()).unwrap();
        String::from_utf8(format.text(&FormatContext::new(&info))).unwrap()
    };
    for (format, expected) in [
        ("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_TLS_GROUP%", "TLSv1.3 C G"),
        ("%DOWNSTREAM_TLS_SESSION_ID% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%", "- a_b"),
        ("%UPSTREAM_TLS_VERSION% %UPSTREAM_TLS_SESSION_ID%", "TLSv1.2 ab"),
        ("%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_ISSUER%", "CN=client CN=client"),
        ("%DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_IP_SAN%", "client.test 127.0.0.1"),
        ("%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%", "u:client\\n u:server\\n"),
        ("%DOWNSTREAM_PEER_EMAIL_SAN% %DOWNSTREAM_PEER_OTHERNAME_SAN%", "- -"),
        ("%DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_CHAIN_SERIALS% %DOWNSTREAM_PEER_ISSUER_SERIAL%", "01 01,02 02"),
        ("%DOWNSTREAM_PEER_FINGERPRINT_256%", &client.facts().sha256),
        ("%DOWNSTREAM_PEER_FINGERPRINT_1%", &client.facts().sha1),
        ("%DOWNSTREAM_PEER_CERT%", &client.encoded_pem()),
        ("%DOWNSTREAM_PEER_CERT_V_START% %UPSTREAM_PEER_CERT_V_START(%Y/%m)%", "2026-01-02T00:00:00.000Z 2026/01"),
        (
            "%DOWNSTREAM_LOCAL_SUBJECT% %UPSTREAM_PEER_SUBJECT% %UPSTREAM_LOCAL_DNS_SAN%",
            "CN=server CN=client server.test",
        ),
    ] {
        assert_eq!(print(format), expected, "{format}");
    }
    let Some(Kind::StructValue(json)) = proto(json!({"u": "%DOWNSTREAM_PEER_URI_SAN%"})).kind else {
        panic!("an object")
    };
    let json = JsonFormat::parse(&json, &FormatOptions::default()).unwrap();
    let mut out = Vec::new();
    json.append_to(&mut out, &FormatContext::new(&info));
    assert_eq!(String::from_utf8(out).unwrap().trim_end(), r#"{"u":"u:client\n"}"#);
    for name in ["DOWNSTREAM_LOCAL_ISSUER", "UPSTREAM_LOCAL_SUBJECT", "UPSTREAM_PEER_SERIAL", "UPSTREAM_PEER_EMAIL_SAN"]
    {
        let error = Format::parse(&format!("%{name}%"), &FormatOptions::default()).err();
        assert_eq!(error, Some(format!("Not supported field in StreamInfo: {name}")));
    }
}

#[test]
fn header_values_print_nothing_for_what_is_missing() {
    let (head, info) = (request(), info());
    let format = parse_header_value("a%REQ(nope)%b%RESPONSE_CODE%").unwrap();
    let mut out = Vec::new();
    format.append_to(&mut out, &ValueContext { request: Some(&head), response: None, info: &info }, true);
    assert_eq!(out, b"ab403");
    let _: crate::mutation::ParseFormat = parse_header_value;
    assert!(!FormatOptions::of_this_host().hostname.is_empty());
}

#[test]
fn header_sizes_count_as_envoys() {
    // The request of a measured direct response: 117 bytes.
    assert_eq!(print("%REQUEST_HEADERS_BYTES%", &request(), &FormatOptions::default()), "117");
}

#[test]
fn the_grpc_status_has_three_forms() {
    let mut head = request();
    head.headers.append(Known::ContentType, "application/grpc");
    let format = "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%";
    assert_eq!(print(format, &head, &FormatOptions::default()), "PermissionDenied PERMISSION_DENIED 7 7");
}

#[test]
fn the_default_log_format_is_envoys() {
    let line = print(DEFAULT_ACCESS_LOG, &request(), &FormatOptions::default());
    assert_eq!(
        line,
        "[2026-11-23T00:24:31.102Z] \"GET /direct HTTP/1.1\" 403 NR 0 8 12 - \"-\" \"-\" \
         \"3f3fc170-319d-4b85-8184-28d0f4dd2fd3\" \"h.com\" \"127.0.0.1:37091\"\n"
    );
}

#[test]
fn errors_are_in_envoys_words() {
    let nowhere = |text: &str, at: usize| {
        format!("Incorrect configuration: {text}. Couldn't find valid command at position {at}")
    };
    let rows = [
        ("%NOPE%", "Not supported field in StreamInfo: NOPE".to_owned()),
        ("%REQ_WITHOUT_QUERY(x)%", "Not supported field in StreamInfo: REQ_WITHOUT_QUERY".to_owned()),
        ("%REQ%", "REQ requires parameters".to_owned()),
        ("%REQ()%", "REQ requires parameters".to_owned()),
        ("%REQ(a", nowhere("%REQ(a", 0)),
        ("%", nowhere("%", 0)),
        ("100%", nowhere("100%", 3)),
        ("%REQ(a):x%", nowhere("%REQ(a):x%", 0)),
        ("%REQ(a)b%", nowhere("%REQ(a)b%", 0)),
        ("%protocol%", nowhere("%protocol%", 0)),
        ("a%REQ(X)%%", nowhere("a%REQ(X)%%", 9)),
        ("%REQ(X)%PROTOCOL%", nowhere("%REQ(X)%PROTOCOL%", 16)),
        ("%PROTOCOL(a)%", "PROTOCOL does not take any parameters or length".to_owned()),
        ("%DURATION:3%", "DURATION does not take any parameters or length".to_owned()),
        ("%DOWNSTREAM_PEER_SUBJECT:3%", "DOWNSTREAM_PEER_SUBJECT does not take any parameters or length".to_owned()),
        (
            "%DOWNSTREAM_PEER_CERT_V_END:3%",
            "DOWNSTREAM_PEER_CERT_V_END does not allow length to be specified.".to_owned(),
        ),
        ("%START_TIME(%Y):3%", "START_TIME does not allow length to be specified.".to_owned()),
        ("%START_TIME(%H%n)%", "Invalid header configuration. Format string contains newline.".to_owned()),
        ("%REQ(a?b?c)%", "More than 1 alternative header specified in token: a?b?c".to_owned()),
        ("%REQ(a b)%", "Invalid header configuration. Format string contains invalid characters.".to_owned()),
        (
            "%GRPC_STATUS(FOO)%",
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: FOO".to_owned(),
        ),
        ("%METADATA(a:b)%", "a is not supported type of metadata".to_owned()),
        ("%PATH(XX)%", "Invalid PATH option: 'XX', only 'WQ'/'NQ' are allowed".to_owned()),
        ("%PATH(NQ:A)%", "Invalid PATH option: 'A', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed".to_owned()),
        ("%COMMON_DURATION(a)%", "Invalid common duration configuration: a.".to_owned()),
        ("%COMMON_DURATION(a:b:xs)%", "Invalid common duration precision: xs.".to_owned()),
        ("%FILTER_STATE%", "Invalid filter state configuration, key cannot be empty.".to_owned()),
        ("%FILTER_STATE(a:X)%", "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.".to_owned()),
        ("%COALESCE({})%", "COALESCE: JSON configuration must contain 'operators' array".to_owned()),
        ("%XFCC_VALUE(x)%", "XFCC_VALUE command does not support subcommand: x".to_owned()),
    ];
    for (format, expected) in rows {
        assert_eq!(Format::parse(format, &FormatOptions::default()).err(), Some(expected), "{format}");
    }
}

fn proto(value: serde_json::Value) -> Proto {
    use serde_json::Value;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap()),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(proto).collect() }),
        Value::Object(members) => {
            Kind::StructValue(Struct { fields: members.into_iter().map(|(k, v)| (k, proto(v))).collect() })
        }
    };
    Proto { kind: Some(kind) }
}

fn print_json(format: serde_json::Value, x: &[u8], omit_empty_values: bool) -> String {
    let Some(Kind::StructValue(format)) = proto(format).kind else { panic!("an object") };
    let format = JsonFormat::parse(&format, &FormatOptions { omit_empty_values, ..FormatOptions::default() }).unwrap();
    let mut head = request();
    head.headers.append(crate::http::HeaderName::parse(b"x").unwrap(), x.to_vec());
    let info = info();
    let mut out = Vec::new();
    format.append_to(&mut out, &FormatContext { request: Some(&head), ..FormatContext::new(&info) });
    String::from_utf8(out).expect("JSON output is UTF-8")
}

#[test]
fn json_keeps_types_and_sorts_names() {
    let format = json!({
        "z": "%RESPONSE_CODE%", "a": "%REQ(nope)%", "m": "%REQ(x)%-%REQ(nope)%", "lit": "text", "num": 1, "frac": 1.5,
        "nested": {"b": true, "a": ["%DURATION%", null, "%REQ(nope)%"]}, "meta": "%DYNAMIC_METADATA(ns:o)%",
        "addr": "%UPSTREAM_HOST%", "port": "%UPSTREAM_REMOTE_PORT%", "e": ""
    });
    assert_eq!(
        print_json(format, b"v", false),
        "{\"a\":null,\"addr\":\"127.0.0.1:37091\",\"e\":\"\",\"frac\":1.5,\"lit\":\"text\",\"m\":\"v--\",\
         \"meta\":{\"p\":[1,\"a\"],\"q\":\"r\"},\"nested\":{\"a\":[12,null,null],\"b\":true},\"num\":1,\"port\":37091,\
         \"z\":403}\n"
    );
    let format = json!({"a": "%REQ(nope)%", "b": "x%REQ(nope)%", "c": "%REQ(nope)%", "d": 1});
    assert_eq!(print_json(format, b"", true), "{\"b\":\"x\",\"d\":1}\n");
}

#[test]
fn json_strings_are_escaped() {
    let rows: [(&[u8], &str); 3] = [
        (b"plain ~", "plain ~"),
        ("t\t\"\\\u{e9}".as_bytes(), "t\\t\\\"\\\\\u{e9}"),
        // Not UTF-8: measured on Envoy.
        (b"\xff\xe9\x80a\"\\\tb\xc3\xa9", "\\u00ff\\u00e9\\u0080a\\u0022\\u005c\\u0009b\\u00c3\\u00a9"),
    ];
    for (value, expected) in rows {
        assert_eq!(print_json(json!({"a": "%REQ(x)%"}), value, false), format!("{{\"a\":\"{expected}\"}}\n"));
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "(%[A-Z_]{0,12}(\\([^)]{0,6}\\))?(:[0-9]{0,3})?%?|[^%]{0,4}){0,5}") {
        let _ = Format::parse(&text, &FormatOptions::default());
    }

    #[test]
    fn a_json_line_is_one_line_of_valid_json(value in proptest::collection::vec(any::<u8>(), 0..24)) {
        let line = print_json(json!({"a": "%REQ(x)%", "b": "<%REQ(x)%>", "c": "%REQ(x):5%"}), &value, false);
        prop_assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str::<serde_json::Value>(&line).expect("valid JSON");
    }
}

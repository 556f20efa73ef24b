//! Replies by table; bytes measured on Envoy 1.40.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use filters::format::FormatOptions;
use filters::matcher::NoRuntime;
use filters::stream_info::{Address, ConnectionInfo};

use super::*;
use crate::observe::access_log::{Comparison, ComparisonOp};

fn info() -> StreamInfo {
    let unnamed = Address::Pipe("".into());
    let connection = ConnectionInfo { listener_name: "l".into(), ..ConnectionInfo::between(unnamed.clone(), unnamed) };
    let mut info = StreamInfo::new(Rc::new(connection), Instant::now(), SystemTime::now(), 1);
    info.details = Some("direct_response".into());
    info
}

fn request(method: Method, grpc: bool) -> RequestHead {
    let mut head = RequestHead { method, ..RequestHead::default() };
    if grpc {
        head.headers.append(Known::ContentType, "application/grpc");
    }
    head
}

fn show(built: &Built) -> (u16, String, String) {
    let lines = built.head.headers.iter().map(|h| format!("{}: {}", h.name, String::from_utf8_lossy(&h.value)));
    (built.head.status, lines.collect::<Vec<_>>().join(" | "), String::from_utf8_lossy(&built.body).into_owned())
}

fn status_is(status: u64) -> LogFilter {
    LogFilter::StatusCode(Comparison { op: ComparisonOp::Equal, value: status, runtime_key: "".into() })
}

fn text(format: &str, header: bool) -> Format {
    let options = FormatOptions::default();
    Format::parse(format, &if header { options.header_value() } else { options }).unwrap()
}

#[test]
fn without_configuration() {
    let rows = [
        (Method::Get, false, 403, "no \"way\"", (403, "content-length: 8 | content-type: text/plain", "no \"way\"")),
        (Method::Head, false, 403, "no \"way\"", (403, "content-length: 8 | content-type: text/plain", "")),
        (Method::Get, false, 404, "", (404, "", "")),
        (
            Method::Post,
            true,
            403,
            "no \"way\" \u{e9}%",
            (200, "content-type: application/grpc | grpc-status: 7 | grpc-message: no \"way\" %C3%A9%25", ""),
        ),
        (Method::Post, true, 404, "", (200, "content-type: application/grpc | grpc-status: 12", "")),
        (Method::Head, true, 503, "x", (200, "content-type: application/grpc | grpc-status: 14", "")),
    ];
    for (method, grpc, status, body, (expected, headers, text)) in rows {
        let head = request(method, grpc);
        let built = build(LocalReply::new(status, body), Some(&head), &mut info(), None, &NoRuntime);
        assert_eq!(show(&built), (expected, headers.to_owned(), text.to_owned()), "{head:?} {status}");
    }
    let reply = LocalReply::new(503, "x").with_header(Known::XEnvoyOverloaded, "true");
    let built = build(reply, None, &mut info(), None, &NoRuntime);
    assert_eq!(show(&built).1, "x-envoy-overloaded: true | content-length: 1 | content-type: text/plain");
}

#[test]
fn mappers_change_status_headers_and_body() {
    let json = |members: &[(&str, &str)]| {
        use envoy_types::pb::google::protobuf::value::Kind;
        use envoy_types::pb::google::protobuf::{Struct, Value};
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = members.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        JsonFormat::parse(&Struct { fields }, &FormatOptions::default()).unwrap()
    };
    let header = |name: &[u8], value: &str, action| HeaderToAdd {
        name: HeaderName::parse(name).unwrap(),
        value: text(value, true),
        action,
        keep_empty: false,
    };
    let config = LocalReplyConfig {
        mappers: vec![
            ReplyMapper {
                filter: status_is(403),
                status: Some(451),
                body: Some("new\nbody".into()),
                body_format: None,
                headers: vec![
                    header(b"content-type", "text/x", AppendAction::OverwriteOrAdd),
                    header(b"x-m", "%RESPONSE_CODE%-%REQ(nope)%", AppendAction::Append),
                    header(b"x-empty", "%REQ(nope)%", AppendAction::Append),
                    header(b"x-none", "1", AppendAction::Overwrite),
                    header(b"x-m", "2", AppendAction::AddIfAbsent),
                ],
            },
            ReplyMapper {
                filter: status_is(404),
                status: None,
                body: None,
                body_format: Some(BodyFormat {
                    body: BodyText::Json(json(&[
                        ("c", "%RESPONSE_CODE%"),
                        ("b", "%LOCAL_REPLY_BODY%"),
                        ("d", "%RESP(x-m)%"),
                    ])),
                    content_type: "application/json".into(),
                }),
                headers: vec![],
            },
            ReplyMapper { filter: status_is(405), status: Some(410), body: None, body_format: None, headers: vec![] },
        ],
        body_format: None,
    };
    let fallback = LocalReplyConfig {
        mappers: vec![ReplyMapper {
            filter: status_is(405),
            status: Some(410),
            body: None,
            body_format: None,
            headers: vec![],
        }],
        body_format: Some(BodyFormat {
            body: BodyText::Text(text(
                "<%LOCAL_REPLY_BODY%:%RESPONSE_CODE%:%RESPONSE_CODE_DETAILS%:%REQ(nope)%>",
                false,
            )),
            content_type: "text/html; x".into(),
        }),
    };
    let body = "no \"way\"";
    let rows = [
        (&config, false, 403, (451, "content-type: text/x | x-m: 403- | content-length: 8", "new\nbody")),
        (
            &config,
            true,
            403,
            (200, "content-type: application/grpc | x-m: 403- | grpc-status: 2 | grpc-message: new%0Abody", ""),
        ),
        (
            &config,
            false,
            404,
            (
                404,
                "content-length: 36 | content-type: application/json",
                "{\"b\":\"no \\\"way\\\"\",\"c\":404,\"d\":null}\n",
            ),
        ),
        (
            &config,
            true,
            404,
            (
                200,
                "content-type: application/grpc | grpc-status: 12 | grpc-message: {\"b\":\"no \\\"way\\\"\",\"c\":404,\"d\":null}",
                "",
            ),
        ),
        (&config, false, 500, (500, "content-length: 8 | content-type: text/plain", body)),
        (
            &fallback,
            false,
            405,
            (410, "content-length: 32 | content-type: text/html; x", "<no \"way\":410:direct_response:->"),
        ),
    ];
    for (config, grpc, status, (expected, headers, text)) in rows {
        let head = request(Method::Get, grpc);
        let mut info = info();
        let built = build(LocalReply::new(status, body), Some(&head), &mut info, Some(config), &NoRuntime);
        assert_eq!(show(&built), (expected, headers.to_owned(), text.to_owned()), "{status} grpc {grpc}");
        assert_eq!(info.response_code, expected);
    }
}

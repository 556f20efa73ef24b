//! Reference 2.10: local replies and how they are changed.

use super::{clusters, routed};
use crate::manifest::{Area, case, get};
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let host = r#"{name: v, domains: ["known.test"], routes: [{name: dead, match: {prefix: "/dead"}, route: {cluster: dead}},
        {name: empty, match: {prefix: "/empty"}, route: {cluster: empty}},
        {name: direct, match: {prefix: "/direct"}, direct_response: {status: 403, body: {inline_string: "no & <never>"}}},
        {name: up, match: {prefix: "/up"}, route: {cluster: up}}]}"#;
    let text = r#"local_reply_config: {body_format: {text_format_source: {inline_string: "[%RESPONSE_CODE%] %LOCAL_REPLY_BODY% %REQ(:path)%\n"}}}"#;
    let json = r#"local_reply_config: {body_format: {json_format: {code: "%RESPONSE_CODE%", text: "%LOCAL_REPLY_BODY%", flags: "%RESPONSE_FLAGS%", mixed: "a %REQ(x-a)%", missing: "%REQ(x-b)%"}}}"#;
    let mappers = r#"local_reply_config: {mappers: [
        {filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: k}}}}, status_code: 410, body: {inline_string: "gone"},
         headers_to_add: [{header: {key: x-mapped, value: "%RESPONSE_CODE%"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]},
        {filter: {response_flag_filter: {flags: [UF]}}, status_code: 502, body_format_override: {text_format_source: {inline_string: "down: %LOCAL_REPLY_BODY%"}, content_type: "text/x-down"}},
        {filter: {header_filter: {header: {name: x-map, string_match: {exact: me}}}}, status_code: 499}]}"#;
    let listeners = vec![
        routed("usual", "", host),
        routed("text", text, host),
        routed("json", json, host),
        routed("mapped", mappers, host),
    ];
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    let mut cases = Vec::new();
    for listener in ["usual", "text", "json", "mapped"] {
        let name = |case: &str| -> &'static str { Box::leak(format!("{listener} {case}").into_boxed_str()) };
        let known = "host: known.test";
        let grpc = "content-type: application/grpc";
        cases.extend([
            get(name("no_host"), "2.10 no vhost", listener, "/", &["host: other.test"]),
            get(name("no_route"), "2.10 no route", listener, "/other", &[known]),
            get(name("refused"), "2.10 connect failed", listener, "/dead", &[known, "x-a: b"]),
            get(name("no_healthy_host"), "2.10 no host available", listener, "/empty", &[known]),
            get(name("direct"), "2.10 direct response", listener, "/direct", &[known]),
            get(name("direct_mapped"), "2.10 direct response", listener, "/direct", &[known, "x-map: me"]),
            get(name("grpc_no_route"), "2.10 gRPC", listener, "/other", &[known, grpc]),
            get(name("grpc_refused"), "2.10 gRPC", listener, "/dead", &[known, grpc]),
            get(
                name("grpc_direct"),
                "2.10 gRPC",
                listener,
                "/direct",
                &[known, "content-type: application/grpc+proto"],
            ),
            case(name("head_refused"), "2.10 HEAD", listener, format!("HEAD /dead HTTP/1.1\r\n{known}\r\n\r\n"))
                .methods(&["HEAD"]),
            case(name("codec_error"), "2.10 codec error", listener, "GET / HTTP/1.1\r\nbad header: x\r\n\r\n"),
            case(name("low_version"), "2.10 codec error", listener, "GET / HTTP/1.0\r\n\r\n"),
            case(
                name("body_unread"),
                "2.10 no route",
                listener,
                format!("POST /other HTTP/1.1\r\n{known}\r\ncontent-length: 9\r\n\r\nabc"),
            ),
            get(name("upstream_404"), "2.10 normal", listener, "/up", &[known])
                .reply("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone"),
            get(name("closed"), "2.10 upstream closed", listener, "/up", &[known]).acts(vec![Act::Request, Act::Close]),
        ]);
    }
    Area { name: "replies", listeners, clusters, more: "", cases }
}

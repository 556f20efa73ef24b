//! Reference 2.1: what the fields of the connection manager do.

mod connections;

use std::time::Duration;

use super::{clusters, plain, routed};
use crate::manifest::{Area, Case, Step, case, get, request, steps};
use crate::support::bootstrap::TO_UP;
use crate::support::upstream::Act;

/// The area.
pub fn area() -> Area {
    let websocket = r#"{name: all, domains: ["*"], routes: [
        {match: {prefix: "/off"}, route: {cluster: up, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}},
        {match: {prefix: "/"}, route: {cluster: up}}]}"#;
    let connect = r#"{name: all, domains: ["*"], routes: [
        {name: c, match: {connect_matcher: {}}, route: {cluster: up, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}},
        {name: up, match: {prefix: "/"}, route: {cluster: up}}]}"#;
    let dead = r#"{name: known, domains: ["known.test"], routes: [
        {match: {prefix: "/dead"}, route: {cluster: dead}},
        {match: {prefix: "/short"}, route: {cluster: up, timeout: 0.03s}},
        {match: {prefix: "/gone"}, route: {cluster: up2, cluster_not_found_response_code: NOT_FOUND}},
        {match: {prefix: "/"}, route: {cluster: up}}]}"#;
    let mut listeners = vec![
        plain("named", "server_name: legion"),
        plain("append", "server_header_transformation: APPEND_IF_ABSENT"),
        plain("pass", "server_header_transformation: PASS_THROUGH"),
        plain("via", "via: gateway"),
        plain("h2_only", "codec_type: HTTP2"),
        plain("normal", "normalize_path: true"),
        plain("merge", "merge_slashes: true"),
        plain("normal_merge", "normalize_path: true, merge_slashes: true"),
        plain("slash_reject", "path_with_escaped_slashes_action: REJECT_REQUEST"),
        plain("slash_redirect", "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT"),
        plain("slash_forward", "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD"),
        plain("strip_port", "strip_matching_host_port: true"),
        plain("strip_any", "strip_any_host_port: true"),
        plain("strip_dot", "strip_trailing_host_dot: true"),
        plain("no_id", "generate_request_id: false"),
        plain("id_back", "always_set_request_id_in_response: true"),
        plain("keep_id", "use_remote_address: true, preserve_external_request_id: true"),
        plain("two_requests", "common_http_protocol_options: {max_requests_per_connection: 2}"),
        plain("agent", "add_user_agent: true"),
        plain("continue", "proxy_100_continue: true"),
        plain("upgrade", "upgrade_configs: [{upgrade_type: websocket}]"),
        routed("upgrade_route", "upgrade_configs: [{upgrade_type: websocket}]", websocket),
        routed("connect", "upgrade_configs: [{upgrade_type: CONNECT}]", connect),
        routed("scheme", "scheme_header_transformation: {scheme_to_overwrite: https}", TO_UP),
        plain("status", "proxy_status_config: {}"),
        plain("status_bare", "proxy_status_config: {remove_details: true, literal_proxy_name: \"pro xy\"}"),
        plain("status_flagless", "proxy_status_config: {remove_response_flags: true, use_node_id: true}"),
        plain("status_recommended", "proxy_status_config: {set_recommended_response_code: true}, server_name: legion"),
        routed(
            "status_routes",
            "proxy_status_config: {set_recommended_response_code: true}, stream_idle_timeout: 0.06s",
            dead,
        ),
        plain(
            "via_h",
            "via: gateway, server_header_transformation: PASS_THROUGH, always_set_request_id_in_response: true",
        ),
        plain(
            "own_id",
            "request_id_extension: {typed_config: {\"@type\": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, pack_trace_reason: false}}, use_remote_address: true",
        ),
        plain("lenient", "stream_error_on_invalid_http_message: true, normalize_path: true"),
        plain(
            "age_jitter",
            "common_http_protocol_options: {max_connection_duration: 0.06s, max_connection_duration_jitter: {value: 50}}",
        ),
        plain(
            "strip_all",
            "strip_any_host_port: true, strip_trailing_host_dot: true, normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
        ),
        plain("forward_proto", "forward_proto_config: {http_destination_ports: [1]}"),
        plain("match_scheme", "scheme_header_transformation: {match_upstream: true}"),
        plain(
            "no_envoy_headers",
            r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}]"#,
        ),
    ];
    let mut cases = headers_and_paths();
    cases.extend(connections::connections());
    listeners.extend(logged());
    cases.extend(log_options());
    Area {
        name: "manager",
        listeners,
        clusters: clusters(),
        more: "node: {id: legion, cluster: legion-cluster}",
        cases,
    }
}

/// Listeners whose logs say at which moment a line was written.
fn logged() -> Vec<(&'static str, String)> {
    let routes = r#"{name: all, domains: ["*"], require_tls: NONE, routes: [
        {name: c, match: {connect_matcher: {}}, route: {cluster: up, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}},
        {name: refused, match: {prefix: "/off"}, route: {cluster: up, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}},
        {name: direct, match: {prefix: "/direct"}, direct_response: {status: 204}},
        {name: dead, match: {prefix: "/dead"}, route: {cluster: dead}},
        {name: up, match: {prefix: "/up"}, route: {cluster: up}}]},
        {name: safe, domains: ["safe.test"], require_tls: ALL, routes: [{match: {prefix: "/"}, route: {cluster: up}}]}"#;
    let log = |name: &str, filter: &str| {
        format!(
            r#"access_log: [{{name: file, {filter} typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
               path: "${{DIR}}/{name}.log", log_format: {{text_format_source: {{inline_string: "type=%ACCESS_LOG_TYPE% code=%RESPONSE_CODE% details=%RESPONSE_CODE_DETAILS% flags=%RESPONSE_FLAGS% method=%REQ(:METHOD)% path=%REQ(:PATH)% authority=%REQ(:AUTHORITY)% route=%ROUTE_NAME% cluster=%UPSTREAM_CLUSTER% host=%UPSTREAM_HOST% in=%BYTES_RECEIVED% out=%BYTES_SENT% kind=%RESP(CONTENT-LENGTH)% id=%REQ(X-FORWARDED-PROTO)%\n"}}}}}}}}]"#
        )
    };
    let upgrades = "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}], normalize_path: true";
    let of = |name: &'static str, options: &str, filter: &str| {
        routed(name, &format!("{upgrades}, {options}, {}", log(name, filter)), routes)
    };
    vec![
        of("log_new", "access_log_options: {flush_access_log_on_new_request: true}", ""),
        of("log_new_old", "flush_access_log_on_new_request: true", ""),
        of("log_tunnel", "access_log_options: {flush_log_on_tunnel_successfully_established: true}", ""),
        of("log_often", "access_log_options: {access_log_flush_interval: 0.1s}", ""),
        of("log_often_old", "access_log_flush_interval: 0.1s", ""),
        of(
            "log_filtered",
            "access_log_options: {flush_access_log_on_new_request: true}",
            r#"filter: {log_type_filter: {types: [DownstreamStart]}},"#,
        ),
        routed(
            "strip_connect",
            "strip_any_host_port: true, upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]",
            r#"{name: all, domains: ["*"], routes: [
                {name: c, match: {connect_matcher: {}}, route: {cluster: up}}, {match: {prefix: "/"}, route: {cluster: up}}]}"#,
        ),
    ]
}

fn log_options() -> Vec<Case> {
    let row = "2.1 access_log_options";
    let websocket = |path: &str| request("GET", path, &["connection: upgrade", "upgrade: websocket"]);
    let connect = b"CONNECT a.test:80 HTTP/1.1\r\nhost: a.test:80\r\n\r\n".to_vec();
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_vec();
    let slow = |pause: u64| {
        vec![
            Act::Head,
            Act::Pause(Duration::from_millis(pause)),
            Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        ]
    };
    let mut cases = Vec::new();
    for (name, listener) in [("new", "log_new"), ("new_old", "log_new_old"), ("new_filtered", "log_filtered")] {
        for (what, path, lines) in [
            ("up", "/up", &[][..]),
            ("direct", "/direct", &[]),
            ("dead", "/dead", &[]),
            ("no_route", "/none", &[]),
            ("tls", "/", &["host: safe.test"]),
            ("bad_path", "/%00", &[]),
            ("upgrade_off", "/off", &["connection: upgrade", "upgrade: websocket"]),
        ] {
            cases.push(case(named(format!("log_{name} {what}")), row, listener, request("GET", path, lines)));
        }
    }
    cases.push(case("log_new no_host", row, "log_new", "GET / HTTP/1.1\r\n\r\n"));
    let talk = |first: Vec<u8>, until| vec![Step::Send(first), Step::Until(until)];
    cases.push(
        steps("log_tunnel connect", row, "log_tunnel", talk(connect.clone(), "200 OK"))
            .methods(&["CONNECT"])
            .acts(vec![Act::Hold]),
    );
    cases.push(steps("log_tunnel websocket", row, "log_tunnel", talk(websocket("/up"), "101 ")).acts(vec![
        Act::Head,
        Act::Send(switching),
        Act::Hold,
    ]));
    cases.push(
        case("log_tunnel refused", row, "log_tunnel", websocket("/up"))
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
    );
    cases.push(get("log_tunnel none", row, "log_tunnel", "/up", &[]).status(200));
    for (name, listener) in [("often", "log_often"), ("often_old", "log_often_old")] {
        cases.push(get(named(format!("log_{name} quick")), row, listener, "/up", &[]).status(200));
        cases.push(get(named(format!("log_{name} slow")), row, listener, "/up", &[]).acts(slow(150)).status(200));
    }
    let strip = "2.1 strip_any_host_port";
    cases.push(
        case("strip_connect forwarded", strip, "strip_connect", connect)
            .methods(&["CONNECT"])
            .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"),
    );
    cases.push(
        case(
            "strip_connect websocket",
            strip,
            "strip_connect",
            request("GET", "/", &["host: a.test:80", "connection: upgrade", "upgrade: websocket"]),
        )
        .reply("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
    );
    cases
}

fn headers_and_paths() -> Vec<Case> {
    let served = "HTTP/1.1 200 OK\r\nserver: theirs\r\ncontent-length: 0\r\n\r\n";
    let id = "x-request-id: 11111111-2222-4333-8444-555555555555";
    let mut cases = vec![
        get("server_overwrite", "2.1 server_name", "named", "/", &[]).reply(served).status(200),
        get("server_append_present", "2.1 server_header_transformation", "append", "/", &[]).reply(served).status(200),
        get("server_append_absent", "2.1 server_header_transformation", "append", "/", &[]).status(200),
        get("server_pass_present", "2.1 server_header_transformation", "pass", "/", &[]).reply(served).status(200),
        get("server_pass_absent", "2.1 server_header_transformation", "pass", "/", &[]).status(200),
        get("via", "2.1 via", "via", "/", &["via: 1.1 before"]).reply("HTTP/1.1 200 OK\r\nvia: 1.1 behind\r\ncontent-length: 0\r\n\r\n").status(200),
        case("h1_on_h2_only", "2.1 codec_type", "h2_only", request("GET", "/", &[])),
        get("id_kept", "2.1 generate_request_id", "named", "/", &[id]).status(200),
        get("id_not_uuid", "2.1 generate_request_id", "named", "/", &["x-request-id: abc"]).status(200),
        get("id_empty", "2.1 generate_request_id", "named", "/", &["x-request-id:"]).status(200),
        get("id_twice", "2.1 generate_request_id", "named", "/", &[id, "x-request-id: b"]).status(200),
        get("id_off", "2.1 generate_request_id", "no_id", "/", &[]).status(200),
        get("id_returned", "2.1 always_set_request_id_in_response", "id_back", "/", &[id]).status(200),
        get("id_preserved", "2.1 preserve_external_request_id", "keep_id", "/", &[id]).status(200),
        get("user_agent_absent", "2.1 add_user_agent", "agent", "/", &[]).status(200),
        get("user_agent_present", "2.1 add_user_agent", "agent", "/", &["user-agent: mine"]).status(200),
        get("scheme_overwritten", "2.1 scheme_header_transformation", "scheme", "/", &[]).status(200),
        get("proxy_status", "2.1 proxy_status_config", "status", "/", &[]).acts(vec![Act::Request, Act::Close]).status(503),
        get("proxy_status_ok", "2.1 proxy_status_config", "status", "/", &[]).status(200),
        get("suppressed_headers", "2.4 suppress_envoy_headers", "no_envoy_headers", "/", &[]).status(200),
        get("date_kept", "2.4 date", "named", "/", &[]).reply("HTTP/1.1 200 OK\r\ndate: yesterday\r\ncontent-length: 0\r\n\r\n").status(200),
        get("service_time_overwritten", "2.4 x-envoy-upstream-service-time", "named", "/", &[]).reply("HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 77\r\ncontent-length: 0\r\n\r\n").status(200),
        get("response_hop_by_hop", "2.4 response headers", "named", "/", &[]).reply("HTTP/1.1 200 OK\r\nconnection: x-a\r\nx-a: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: y\r\ncontent-length: 0\r\n\r\n").status(200),
    ];
    for listener in ["status", "status_bare", "status_flagless", "status_recommended"] {
        let name = named(format!("{listener} cut"));
        cases.push(get(name, "2.1 proxy_status_config", listener, "/", &[]).acts(vec![Act::Request, Act::Close]));
        let name = named(format!("{listener} before"));
        let reply = "HTTP/1.1 200 OK\r\nproxy-status: theirs; error=dns_error\r\ncontent-length: 0\r\n\r\n";
        cases.push(get(name, "2.1 proxy_status_config", listener, "/", &[]).reply(reply));
    }
    let known = "host: known.test";
    for (name, path, lines) in [
        ("status no route", "/", &["host: other.test"][..]),
        ("status dead", "/dead", &[known]),
        ("status grpc", "/dead", &[known, "content-type: application/grpc"]),
    ] {
        cases.push(get(name, "2.1 proxy_status_config", "status_routes", path, lines));
    }
    let silent = || vec![Act::Request, Act::Hold];
    cases.extend([
        get("status timeout", "2.1 proxy_status_config", "status_routes", "/short", &[known]).acts(silent()),
        get("status idle", "2.1 proxy_status_config", "status_routes", "/", &[known]).acts(silent()),
        get("status garbage", "2.1 proxy_status_config", "status_routes", "/", &[known])
            .reply_and_close("nonsense\r\n\r\n"),
        case(
            "status codec error",
            "2.1 proxy_status_config",
            "status_routes",
            "GET / HTTP/1.1\r\nbad header: x\r\n\r\n",
        ),
        get("via twice", "2.1 via", "via_h", "/", &["via: 1.1 a", "via: 1.1 b", id]).reply(served),
        get("id not packed", "2.1 request_id_extension", "own_id", "/", &[id]),
        get("lenient path", "2.1 stream_error_on_invalid_http_message", "lenient", "/a%00b", &[]),
        case("lenient no host", "2.1 stream_error_on_invalid_http_message", "lenient", "GET / HTTP/1.1\r\n\r\n"),
        get("scheme not forwarded", "2.1 forward_proto_config", "forward_proto", "/", &[]),
        get(
            "scheme of upstream",
            "2.1 scheme_header_transformation",
            "match_scheme",
            "/",
            &["x-forwarded-proto: https"],
        ),
    ]);
    for value in [
        "v1",
        "a b",
        "abc.com:80",
        "a/b:80",
        "/x#y",
        "http://a/b#c",
        "http://user@a/",
        "http:///x",
        "ftp://a:21/b",
        "http://[::1]:80/",
        "http://a:x/",
        "/a?b=c",
        "/\"q\"",
        "http://a/\"q\"",
        "about:blank",
        "",
        "//a/b",
        "http://a b",
    ] {
        let name = named(format!("referer {value}"));
        cases.push(get(name, "2.3 referer", "named", "/", &[&format!("referer: {value}")]));
    }
    let twice: Vec<String> = [
        "accept",
        "accept-language",
        "authorization",
        "cache-control",
        "cookie",
        "origin",
        "referer",
        "user-agent",
        "via",
        "x-forwarded-host",
        "if-none-match",
        "pragma",
        "x-client-trace-id",
        "x-b3-traceid",
        "te",
        "x-custom",
    ]
    .iter()
    .flat_map(|name| [format!("{name}: a"), format!("{name}: b")])
    .collect();
    let twice: Vec<&str> = twice.iter().map(String::as_str).collect();
    let replies: String = [
        "age",
        "cache-control",
        "content-type",
        "date",
        "etag",
        "location",
        "server",
        "set-cookie",
        "vary",
        "via",
        "x-request-id",
        "x-custom",
        "expires",
        "access-control-allow-methods",
        "link",
        "www-authenticate",
    ]
    .iter()
    .map(|name| format!("{name}: a\r\n{name}: b\r\n"))
    .collect();
    let reply = format!("HTTP/1.1 200 OK\r\n{replies}content-length: 0\r\n\r\n");
    cases.push(get("lines joined", "2.4 fields in several lines", "named", "/", &twice).reply(reply.clone()));
    cases.push(get("lines joined passed", "2.4 fields in several lines", "pass", "/", &twice).reply(reply));
    for (path, host) in [("//a/..%2fb//", "a.test.:80"), ("/%5c../x", "A.test."), ("/a/./b%2F%2e", "[::1]:99")] {
        let name = named(format!("all at once {path} {host}"));
        cases.push(get(name, "2.1 paths and hosts", "strip_all", path, &[&format!("host: {host}")]));
    }
    let paths: [(&str, &str, &[&str]); 3] = [
        (
            "normal",
            "2.1 normalize_path",
            &[
                "/a/../b",
                "/a/./b",
                "/a/%2e%2e/b",
                "/..",
                "/a%00b",
                "/%zz",
                "/a\\b",
                "/%41%7e",
                "/a//b",
                "/a;b/..;/c",
                "/a?x=/../y",
                "/%2F..%2Fa",
                "/a/b/../../../c",
                "//a/../b",
                "/a%5cb",
            ],
        ),
        ("merge", "2.1 merge_slashes", &["//a///b", "/a?b=//c", "///", "//", "////?a", "/a//?//"]),
        ("normal_merge", "2.1 merge_slashes", &["//a/..//b", "/a//../b"]),
    ];
    let escaped: &[&str] = &["/a%2fb", "/a%2Fb?c=%2f", "/a%5cb", "/a%252fb", "/plain"];
    let slashes = ["slash_reject", "slash_redirect", "slash_forward"];
    let slashes = slashes.map(|listener| (listener, "2.1 path_with_escaped_slashes_action", escaped));
    for (listener, row, inputs) in paths.into_iter().chain(slashes) {
        for path in inputs {
            cases.push(get(named(format!("{listener} {path}")), row, listener, path, &[]));
        }
    }
    for (listener, row) in [
        ("strip_port", "2.1 strip_matching_host_port"),
        ("strip_any", "2.1 strip_any_host_port"),
        ("strip_dot", "2.1 strip_trailing_host_dot"),
    ] {
        for host in ["a.test:80", "a.test:8080", "a.test", "a.test.", "a.test.:80", "[::1]:80", "[::1]", "a.test:"] {
            cases.push(get(named(format!("{listener} {host}")), row, listener, "/", &[&format!("host: {host}")]));
        }
    }
    cases
}

/// Names of generated cases live as long as the process, as those of written ones do.
fn named(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

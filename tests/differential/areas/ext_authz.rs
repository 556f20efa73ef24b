//! Reference 2.5: `envoy.filters.http.ext_authz`, asked by gRPC and by HTTP.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction as Action;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc::Status;
use prost::Message as _;

use super::{clusters, routed};
use crate::manifest::{Area, Case, Step, case, get, h2, steps};
use crate::support::h2_client::H2Request;
use crate::support::h2_upstream::Behaviour;

const ROW: &str = "2.5 ext_authz";
const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// The filter with these settings, before the router.
fn chain(settings: &str) -> String {
    format!(
        r#"http_filters: [{{name: authz, typed_config: {{"@type": {TYPE}.ext_authz.v3.ExtAuthz, transport_api_version: V3, {settings}}}}}, {{name: router, typed_config: {{"@type": {TYPE}.router.v3.Router}}}}]"#
    )
}

/// Asked by gRPC.
fn grpc(more: &str) -> String {
    chain(&format!("grpc_service: {{envoy_grpc: {{cluster_name: h2}}, timeout: 0.5s}}, {more}"))
}

/// Asked by HTTP.
fn http(service: &str, more: &str) -> String {
    chain(&format!(
        "http_service: {{server_uri: {{uri: \"http://authz\", cluster: h2, timeout: 0.5s}}, {service}}}, {more}"
    ))
}

/// What a route says to the filter.
fn says(settings: &str) -> String {
    format!(r#"typed_per_filter_config: {{authz: {{"@type": {TYPE}.ext_authz.v3.ExtAuthzPerRoute, {settings}}}}}"#)
}

/// The area.
pub fn area() -> Area {
    let routes = [
        format!(r#"{{match: {{prefix: /off}}, route: {{cluster: up}}, {}}}"#, says("disabled: true")),
        format!(
            r#"{{match: {{prefix: /ext}}, route: {{cluster: up}}, {}}}"#,
            says("check_settings: {context_extensions: {route: mine, both: route}}")
        ),
        format!(
            r#"{{match: {{prefix: /nobody}}, route: {{cluster: up}}, {}}}"#,
            says("check_settings: {disable_request_body_buffering: true}")
        ),
        format!(
            r#"{{match: {{prefix: /body}}, route: {{cluster: up}}, {}}}"#,
            says("check_settings: {with_request_body: {max_request_bytes: 4, allow_partial_message: true}}")
        ),
        format!(
            r#"{{match: {{prefix: /other}}, route: {{cluster: up}}, {}}}"#,
            says("check_settings: {grpc_service: {envoy_grpc: {cluster_name: dead}}}")
        ),
        format!(
            r#"{{match: {{prefix: /http}}, route: {{cluster: up}}, {}}}"#,
            says(r#"check_settings: {http_service: {path_prefix: /by, server_uri: {uri: "http://a", cluster: h2, timeout: 1s}}}"#)
        ),
        r#"{match: {prefix: /direct}, direct_response: {status: 201, body: {inline_string: here}}}"#.to_owned(),
        r#"{match: {prefix: /moved}, redirect: {path_redirect: /x}}"#.to_owned(),
        r#"{match: {prefix: /dead}, route: {cluster: dead}}"#.to_owned(),
        r#"{match: {prefix: /nowhere}, route: {cluster_header: x-cluster}}"#.to_owned(),
        r#"{match: {prefix: /headers}, response_headers_to_add: [{header: {key: x-route, value: added}}, {header: {key: x-denied, value: route}}], route: {cluster: up}}"#.to_owned(),
        r#"{match: {prefix: "/", headers: [{name: x-go, string_match: {exact: two}}]}, name: second, route: {cluster: up2}}"#.to_owned(),
        r#"{match: {prefix: "/new"}, name: new, route: {cluster: up2}}"#.to_owned(),
        r#"{match: {prefix: "/"}, name: usual, metadata: {filter_metadata: {of.route: {a: 1}}}, route: {cluster: up}}"#.to_owned(),
    ];
    let host = |more: &str| format!(r#"{{name: all, domains: ["*"], {more} routes: [{}]}}"#, routes.join(", "));
    let plain = host("");
    let said = host(&format!("{},", says("check_settings: {context_extensions: {host: mine, both: host}}")));
    let body = |more: &str| format!("with_request_body: {{max_request_bytes: 8, {more}}}");
    let listeners = vec![
        routed("grpc", &grpc(""), &plain),
        routed("hosts", &grpc(""), &said),
        routed("lenient", &grpc("failure_mode_allow: true, failure_mode_allow_header_add: true"), &plain),
        routed(
            "teapot",
            &format!("stat_prefix: teapot, {}", grpc("status_on_error: {code: 503}, stat_prefix: tea")),
            &plain,
        ),
        routed("clears", &grpc("clear_route_cache: true"), &plain),
        routed("strict", &grpc("validate_mutations: true"), &plain),
        routed("ruled", &grpc("decoder_header_mutation_rules: {disallow_expression: {regex: \"x-no.*\"}}"), &plain),
        routed(
            "forbids",
            &grpc("decoder_header_mutation_rules: {disallow_expression: {regex: \"x-no.*\"}, disallow_is_error: true}"),
            &plain,
        ),
        routed("whole", &grpc(&body("")), &plain),
        routed("part", &grpc(&body("allow_partial_message: true")), &plain),
        routed("packed", &grpc(&body("pack_as_bytes: true")), &plain),
        routed("raw", &grpc("encode_raw_headers: true"), &plain),
        routed(
            "told",
            &grpc(
                "allowed_headers: {patterns: [{prefix: x-}, {exact: \":path\"}]}, disallowed_headers: {patterns: [{exact: x-secret}]}, include_tls_session: true, include_peer_certificate: true, bootstrap_metadata_labels_key: labels, route_metadata_context_namespaces: [of.route]",
            ),
            &plain,
        ),
        routed("never", &grpc("filter_enabled: {default_value: {numerator: 0}}"), &plain),
        routed(
            "denies",
            &grpc(
                "filter_enabled: {default_value: {numerator: 0}}, deny_at_disable: {default_value: true, runtime_key: a.b}",
            ),
            &plain,
        ),
        routed(
            "marked",
            &grpc("filter_enabled_metadata: {filter: a, path: [{key: b}], value: {present_match: true}}"),
            &plain,
        ),
        routed("uncharged", &grpc("charge_cluster_response_stats: false, max_denied_response_body_bytes: 3"), &plain),
        routed("closed", &grpc("enable_dynamic_metadata_ingestion: false"), &plain),
        routed("dead", &chain("grpc_service: {envoy_grpc: {cluster_name: dead}}"), &plain),
        routed("missing", &chain("grpc_service: {envoy_grpc: {cluster_name: nobody}}"), &plain),
        routed(
            "dressed",
            &chain(
                "grpc_service: {envoy_grpc: {cluster_name: h2, authority: who.test, skip_envoy_headers: true}, initial_metadata: [{key: x-meta, value: \"m %PROTOCOL%\"}]}",
            ),
            &plain,
        ),
        routed(
            "mapped",
            &format!(
                "{}, local_reply_config: {{mappers: [{{filter: {{status_code_filter: {{comparison: {{op: EQ, value: {{default_value: 403, runtime_key: k}}}}}}}}, status_code: 418, body: {{inline_string: mapped}}}}]}}",
                grpc("")
            ),
            &plain,
        ),
        routed("http", &http("", ""), &plain),
        routed(
            "http_dead",
            &chain("http_service: {server_uri: {uri: \"http://a\", cluster: dead, timeout: 1s}}"),
            &plain,
        ),
        routed(
            "http_missing",
            &chain("http_service: {server_uri: {uri: \"http://a\", cluster: nobody, timeout: 1s}}"),
            &plain,
        ),
        routed("http_lenient", &http("", "failure_mode_allow: true"), &plain),
        routed(
            "http_full",
            &http(
                "path_prefix: /auth, authorization_request: {headers_to_add: [{key: x-added, value: \"v %PROTOCOL%\"}]}, \
                 authorization_response: {allowed_upstream_headers: {patterns: [{prefix: x-up}]}, \
                 allowed_upstream_headers_to_append: {patterns: [{prefix: x-app}]}, \
                 allowed_client_headers: {patterns: [{prefix: x-client}]}, \
                 allowed_client_headers_on_success: {patterns: [{prefix: x-ok}]}, \
                 dynamic_metadata_from_headers: {patterns: [{prefix: x-meta}]}}",
                "allowed_headers: {patterns: [{prefix: x-}]}, with_request_body: {max_request_bytes: 8, allow_partial_message: true}",
            ),
            &plain,
        ),
        routed("http_path", &http("path_override: /fixed", "clear_route_cache: true"), &plain),
        routed("http_tried", &http("retry_policy: {num_retries: 2}", ""), &plain),
        routed(
            "http_retried",
            &http(
                "retry_policy: {num_retries: 2, retry_on: \"5xx,reset\", retry_back_off: {base_interval: 0.01s}}",
                "",
            ),
            &plain,
        ),
    ];
    let more = "node: {id: a, cluster: b, metadata: {labels: {one: two, three: four}}}";
    let cases = [verdicts(), requests(), bodies(), failures(), changes(), settings(), by_http()].concat();
    Area { name: "ext_authz", listeners, clusters: clusters(), more, cases }
}

/// A message that says this.
fn says_message(response: CheckResponse) -> Behaviour {
    Behaviour::Message(response.encode_to_vec())
}

fn status(code: i32) -> Option<Status> {
    Some(Status { code, ..Status::default() })
}

/// Passes, with this.
fn passes(ok: OkHttpResponse) -> Behaviour {
    says_message(CheckResponse {
        status: status(0),
        http_response: Some(HttpResponse::OkResponse(ok)),
        ..CheckResponse::default()
    })
}

fn pass() -> Behaviour {
    passes(OkHttpResponse::default())
}

/// Does not pass, with this.
fn denied(code: i32, headers: Vec<HeaderValueOption>, body: &str) -> Behaviour {
    let denied = DeniedHttpResponse { status: Some(HttpStatus { code }), headers, body: body.into() };
    says_message(CheckResponse {
        status: status(7),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
        ..CheckResponse::default()
    })
}

fn header(key: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

fn with_action(key: &str, value: &str, action: Action) -> HeaderValueOption {
    HeaderValueOption { append_action: action.into(), ..header(key, value) }
}

#[expect(deprecated, reason = "services still say it this way")]
fn appended(key: &str, value: &str, append: bool) -> HeaderValueOption {
    HeaderValueOption { append: Some(BoolValue { value: append }), ..header(key, value) }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

fn metadata() -> Option<Struct> {
    Some(Struct { fields: [("who".to_owned(), text("me"))].into_iter().collect() })
}

fn verdicts() -> Vec<Case> {
    let get = |name, listener, path: &str| get(name, ROW, listener, path, &["x-a: 1"]);
    let none = CheckResponse::default();
    let failing =
        |code| DeniedHttpResponse { status: code, headers: vec![header("x-error", "yes")], body: "broken".into() };
    let error = |code| {
        says_message(CheckResponse {
            status: status(7),
            http_response: Some(HttpResponse::ErrorResponse(failing(code))),
            ..CheckResponse::default()
        })
    };
    vec![
        get("it_passes", "grpc", "/a?b=c").h2_upstream(pass()).status(200),
        get("a_status_alone_passes", "grpc", "/")
            .h2_upstream(says_message(CheckResponse { status: status(0), ..none.clone() })),
        get("nothing_said_passes", "grpc", "/").h2_upstream(says_message(none.clone())),
        get("a_status_alone_denies", "grpc", "/")
            .h2_upstream(says_message(CheckResponse { status: status(16), ..none.clone() })),
        get("denied", "grpc", "/").h2_upstream(denied(401, vec![header("x-why", "because")], "go away")).status(401),
        get("denied_without_words", "grpc", "/").h2_upstream(denied(0, vec![], "")).status(403),
        get("denied_over_route_headers", "grpc", "/headers").h2_upstream(denied(
            402,
            vec![header("x-denied", "a"), header("x-denied", "b"), header("content-type", "text/html")],
            "<p>no",
        )),
        get("denied_with_appended_headers", "grpc", "/headers").h2_upstream(denied(
            403,
            vec![
                appended("x-denied", "a", true),
                appended("x-denied", "b", false),
                header("set-cookie", "a=1"),
                header("set-cookie", "b=2"),
            ],
            "",
        )),
        get("denied_with_actions", "grpc", "/headers").h2_upstream(denied(
            403,
            vec![
                with_action("x-denied", "a", Action::AddIfAbsent),
                with_action("x-new", "a", Action::AddIfAbsent),
                with_action("x-route", "b", Action::OverwriteIfExists),
                with_action("x-other", "b", Action::OverwriteIfExists),
                with_action("x-third", "c", Action::OverwriteIfExistsOrAdd),
            ],
            "",
        )),
        get("ok_said_with_a_bad_status", "grpc", "/").h2_upstream(says_message(CheckResponse {
            status: status(7),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
            ..none.clone()
        })),
        get("denied_said_with_a_good_status", "grpc", "/").h2_upstream(says_message(CheckResponse {
            status: status(0),
            http_response: Some(HttpResponse::DeniedResponse(failing(None))),
            ..none
        })),
        get("an_error_of_the_service", "grpc", "/").h2_upstream(error(None)),
        get("an_error_with_a_status", "grpc", "/").h2_upstream(error(Some(HttpStatus { code: 500 }))),
        get("an_error_let_through", "lenient", "/").h2_upstream(error(Some(HttpStatus { code: 500 }))),
        get("an_error_in_place_of_another_status", "teapot", "/").h2_upstream(error(None)),
        get("denied_and_counted_elsewhere", "teapot", "/").h2_upstream(denied(403, vec![], "")),
        get("denied_and_not_charged", "uncharged", "/").h2_upstream(denied(403, vec![], "truncated")),
        get("denied_where_nothing_forwards", "grpc", "/direct").h2_upstream(denied(403, vec![], "no")),
        get("passes_where_nothing_forwards", "grpc", "/direct").h2_upstream(pass()),
        get("passes_to_a_redirect", "grpc", "/moved").h2_upstream(pass()),
        get("passes_to_a_dead_host", "grpc", "/dead").h2_upstream(pass()),
        get("denied_on_the_way_to_a_dead_host", "grpc", "/dead").h2_upstream(denied(403, vec![], "no")),
        get("denied_where_there_is_no_cluster", "grpc", "/nowhere").h2_upstream(denied(403, vec![], "no")),
        get("mapped", "mapped", "/").h2_upstream(denied(403, vec![header("x-a", "b")], "no")).status(418),
        case("denied_HEAD", ROW, "grpc", "HEAD / HTTP/1.1\r\nhost: test\r\n\r\n")
            .h2_upstream(denied(403, vec![], "no"))
            .methods(&["HEAD"]),
        h2(
            "denied_gRPC",
            ROW,
            "grpc",
            vec![H2Request::post("/a.B/C", "xxxxx").header("content-type", "application/grpc")],
        )
        .h2_upstream(denied(403, vec![header("x-a", "b")], "no")),
        h2("over_HTTP/2", ROW, "grpc", vec![H2Request::get("/a"), H2Request::get("/b")]).h2_upstream(pass()),
        case("400_closes", ROW, "grpc", "GET / HTTP/1.1\r\nhost: test\r\n\r\n").h2_upstream(denied(400, vec![], "")),
    ]
}

fn requests() -> Vec<Case> {
    let get = |name, listener, path: &str, lines: &[&str]| get(name, ROW, listener, path, lines).h2_upstream(pass());
    vec![
        get(
            "what_is_asked",
            "grpc",
            "/a?b=c",
            &["x-a: 1", "x-a: 2", "user-agent: u", "cookie: a", "cookie: b", "x-envoy-downstream-service-cluster: svc"],
        ),
        get("what_is_asked_about_odd_bytes", "grpc", "/", &["x-a: \u{e9}\u{fe}"]),
        get("what_is_asked_raw", "raw", "/", &["x-a: 1", "x-a: 2", "x-b: \u{e9}"]),
        get("what_is_told", "told", "/a", &["x-a: 1", "x-secret: 2", "other: 3"]),
        get("a_lie_about_the_body", "grpc", "/", &["x-envoy-auth-partial-body: true"]),
        get("extensions_of_a_route", "grpc", "/ext", &[]),
        get("extensions_of_route_and_host", "hosts", "/ext", &[]),
        get("extensions_of_a_host", "hosts", "/", &[]),
        get("authority_and_metadata", "dressed", "/", &[]),
        case(
            "an_upgrade",
            ROW,
            "whole",
            "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .h2_upstream(pass()),
        case("HTTP/1.0", ROW, "grpc", "GET / HTTP/1.0\r\nhost: test\r\n\r\n").h2_upstream(pass()),
        h2("asked_about_HTTP/2", ROW, "grpc", vec![H2Request::get("/a").header("x-a", "1").header("x-a", "2")])
            .h2_upstream(pass()),
    ]
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn bodies() -> Vec<Case> {
    let post_to = |path: &str, body: &str| post(body).replace("POST / ", &format!("POST {path} "));
    let on = |name, listener, bytes: String| case(name, ROW, listener, bytes).h2_upstream(pass());
    let chunked = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        .to_owned();
    let slowly = |head: &str| {
        let (first, rest) = head.split_at(head.len() - 3);
        vec![
            Step::Send(first.into()),
            Step::Pause(std::time::Duration::from_millis(80)),
            Step::Send(rest.into()),
            Step::Responses(1),
        ]
    };
    vec![
        on("a_body_not_asked_for", "grpc", post("hello")),
        on("a_whole_body", "whole", post("hello")),
        on("a_body_as_long_as_it_may_be", "whole", post("12345678")),
        on("a_body_too_long", "whole", post("123456789")).status(413),
        on("the_beginning_of_a_body", "part", post("123456789abc")),
        on("a_body_as_long_as_its_beginning", "part", post("12345678")),
        on("a_short_body_where_a_part_would_do", "part", post("123")),
        on("bytes", "packed", post("a\u{e9}b")),
        on("text_that_is_none", "whole", post("a\u{e9}b")),
        on("chunks", "whole", chunked),
        on("no_body", "whole", "GET / HTTP/1.1\r\nhost: test\r\n\r\n".to_owned()),
        on("an_empty_body", "whole", post("")),
        on("no_body_wanted_by_the_route", "whole", post_to("/nobody", "hello")),
        on("another_limit_by_the_route", "whole", post_to("/body", "hello")),
        on("a_body_wanted_by_the_route_alone", "grpc", post_to("/body", "hello")),
        steps("a_slow_body", ROW, "whole", slowly(&post("hello"))).h2_upstream(pass()),
        steps("a_slow_body_that_nobody_waits_for", ROW, "grpc", slowly(&post("hello"))).h2_upstream(pass()),
        case("a_body_denied", ROW, "whole", post("hello")).h2_upstream(denied(403, vec![], "no")),
        case("denied_before_the_body", ROW, "grpc", "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n")
            .h2_upstream(denied(403, vec![], "no")),
        h2("a_body_over_HTTP/2", ROW, "whole", vec![H2Request::post("/", "hello")]).h2_upstream(pass()),
        h2("too_long_over_HTTP/2", ROW, "whole", vec![H2Request::post("/", "123456789")]).h2_upstream(pass()),
    ]
}

fn failures() -> Vec<Case> {
    let get = |name, listener| get(name, ROW, listener, "/", &[]);
    let post_of = |name, listener| case(name, ROW, listener, post("hello"));
    vec![
        get("unavailable", "grpc").h2_upstream(Behaviour::Grpc(14)).status(403),
        get("unauthenticated_says_the_call", "grpc").h2_upstream(Behaviour::TrailersOnly(16)),
        get("no_gRPC", "grpc").h2_upstream(Behaviour::Reply(200, vec![], "hm")),
        get("an_HTTP_error", "grpc").h2_upstream(Behaviour::Reply(500, vec![], "hm")),
        get("a_garbled_answer", "grpc").h2_upstream(Behaviour::Message(vec![0xff])),
        get("an_empty_answer", "grpc").h2_upstream(Behaviour::TrailersOnly(0)),
        get("a_reset", "grpc").h2_upstream(Behaviour::Reset(h2::Reason::INTERNAL_ERROR)),
        get("a_reset_within", "grpc").h2_upstream(Behaviour::ResetAfterHead(h2::Reason::INTERNAL_ERROR)),
        get("too_late", "grpc").h2_upstream(Behaviour::Stall),
        get("too_late_let_through", "lenient").h2_upstream(Behaviour::Stall),
        get("let_through", "lenient").h2_upstream(Behaviour::Grpc(14)).status(200),
        post_of("a_body_let_through", "lenient").h2_upstream(Behaviour::Grpc(14)),
        get("another_status", "teapot").h2_upstream(Behaviour::Grpc(14)).status(503),
        get("nobody_there", "dead").status(403),
        get("no_such_cluster", "missing").status(403),
        case("another_service_by_the_route", ROW, "grpc", "GET /other HTTP/1.1\r\nhost: test\r\n\r\n"),
        steps(
            "the_client_leaves",
            ROW,
            "grpc",
            vec![
                Step::Send("GET / HTTP/1.1\r\nhost: test\r\n\r\n".into()),
                Step::Pause(std::time::Duration::from_millis(100)),
                Step::Reset,
            ],
        )
        .h2_upstream(Behaviour::Stall),
    ]
}

fn changes() -> Vec<Case> {
    let get = |name, listener, path: &str, ok: OkHttpResponse| {
        get(name, ROW, listener, path, &["x-a: 1", "x-b: 2", "x-b: 3", "user-agent: u"]).h2_upstream(passes(ok))
    };
    let none = OkHttpResponse::default;
    let set = |headers: Vec<HeaderValueOption>| OkHttpResponse { headers, ..none() };
    let response = |headers: Vec<HeaderValueOption>| OkHttpResponse { response_headers_to_add: headers, ..none() };
    let parameter = |key: &str, value: &str| QueryParameter { key: key.into(), value: value.into() };
    let query = |set: Vec<QueryParameter>, remove: &[&str]| OkHttpResponse {
        query_parameters_to_set: set,
        query_parameters_to_remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        ..none()
    };
    let remove = |names: &[&str]| OkHttpResponse {
        headers_to_remove: names.iter().map(|name| (*name).to_owned()).collect(),
        ..none()
    };
    #[expect(deprecated, reason = "services still say it this way")]
    let with_metadata = || OkHttpResponse { dynamic_metadata: metadata(), ..none() };
    vec![
        get("headers_set", "grpc", "/", set(vec![header("x-a", "9"), header("x-b", "8"), header("x-new", "7")])),
        get(
            "headers_appended",
            "grpc",
            "/",
            set(vec![appended("x-a", "9", true), appended("x-new", "7", true), appended("x-b", "8", false)]),
        ),
        get(
            "headers_by_action",
            "grpc",
            "/",
            set(vec![
                with_action("x-a", "9", Action::AddIfAbsent),
                with_action("x-n1", "9", Action::AddIfAbsent),
                with_action("x-b", "8", Action::OverwriteIfExists),
                with_action("x-n2", "8", Action::OverwriteIfExists),
                with_action("user-agent", "v", Action::OverwriteIfExistsOrAdd),
                with_action("x-n3", "7", Action::OverwriteIfExistsOrAdd),
            ]),
        ),
        get(
            "pseudo_headers",
            "grpc",
            "/",
            set(vec![header(":path", "/new"), header("host", "other"), header(":method", "PUT")]),
        ),
        get("an_authority", "grpc", "/", set(vec![header(":authority", "other")])),
        get("headers_removed", "grpc", "/", remove(&["x-a", "X-B", "host", ":path", "nothing"])),
        get("the_route_stays", "grpc", "/", set(vec![header("x-go", "two")])),
        get("the_route_changes", "clears", "/", set(vec![header("x-go", "two")])),
        get("the_route_changes_by_path", "clears", "/", set(vec![header(":path", "/new/a")])),
        get("the_route_does_not_change_for_appended_headers", "clears", "/", set(vec![appended("x-go", "two", true)])),
        get(
            "headers_of_the_response",
            "grpc",
            "/headers",
            response(vec![
                header("x-ok", "a"),
                header("x-ok", "b"),
                appended("x-route", "c", true),
                appended("x-denied", "d", false),
            ]),
        ),
        get(
            "headers_of_the_response_by_action",
            "grpc",
            "/headers",
            response(vec![
                with_action("x-route", "9", Action::AddIfAbsent),
                with_action("x-n1", "9", Action::AddIfAbsent),
                with_action("x-denied", "8", Action::OverwriteIfExists),
                with_action("x-n2", "8", Action::OverwriteIfExists),
                with_action("server", "v", Action::OverwriteIfExistsOrAdd),
                HeaderValueOption { append_action: 77, ..header("x-n3", "7") },
            ]),
        ),
        get("headers_of_a_local_reply", "grpc", "/dead", response(vec![header("x-ok", "a")])),
        get("headers_of_a_direct_response", "grpc", "/direct", response(vec![header("x-ok", "a")])),
        get("a_query_set", "grpc", "/a?z=1&b=2&b=3", query(vec![parameter("b", "9"), parameter("n", "x+y")], &[])),
        get("a_query_removed", "grpc", "/a?z=1&b=2&b=3", query(vec![], &["b"])),
        get("a_whole_query_removed", "grpc", "/a?b", query(vec![], &["b"])),
        get("a_query_where_there_was_none", "grpc", "/a", query(vec![parameter("b", "9")], &["c"])),
        get("the_route_changes_by_query", "clears", "/a?b=1", query(vec![], &["b"])),
        get("metadata", "grpc", "/", with_metadata()),
        get("metadata_not_taken", "closed", "/", with_metadata()),
        get("a_bad_name", "grpc", "/", set(vec![header("x a", "9")])),
        get("a_bad_value", "grpc", "/", set(vec![header("x-a", "a\nb")])),
        get("a_bad_value_of_the_response", "grpc", "/", response(vec![header("x-a", "a\nb")])),
        get("a_bad_name_of_the_response", "grpc", "/", response(vec![header("x a", "b")])),
        get("a_bad_name_strictly", "strict", "/", set(vec![header("x a", "9")])).status(500),
        get("a_bad_value_strictly", "strict", "/", set(vec![header("x-a", "a\nb")])).status(500),
        get("a_bad_response_header_strictly", "strict", "/", response(vec![header("x-a", "a\nb")])).status(500),
        get("a_bad_query_strictly", "strict", "/", query(vec![parameter("a b", "c")], &[])).status(500),
        get(
            "an_unknown_action_strictly",
            "strict",
            "/",
            response(vec![HeaderValueOption { append_action: 77, ..header("x-n3", "7") }]),
        ),
        get("a_bad_removal_strictly", "strict", "/", remove(&["x a", "x-a"])),
        get(
            "by_the_rules",
            "ruled",
            "/",
            set(vec![
                header("x-no", "1"),
                header("x-yes", "2"),
                header("x-envoy-a", "3"),
                header("host", "h"),
                appended("x-a", "9", true),
            ]),
        ),
        get("removals_by_the_rules", "ruled", "/", remove(&["x-a", "host", "x-no"])),
        get("against_the_rules", "forbids", "/", set(vec![header("x-no", "1")])).status(500),
        get("removals_against_the_rules", "forbids", "/", remove(&["host"])),
        get("too_many_headers", "grpc", "/", set((0..120).map(|n| header(&format!("x-many-{n}"), "1")).collect())),
        Case {
            h2: denied(403, vec![header("x a", "9"), header("x-b", "1")], "no"),
            ..get("denied_by_a_bad_name_strictly", "strict", "/", none())
        },
    ]
}

fn settings() -> Vec<Case> {
    let get = |name, listener, path: &str| get(name, ROW, listener, path, &[]);
    vec![
        get("off_for_a_route", "grpc", "/off").h2_upstream(denied(403, vec![], "no")).status(200),
        get("never_on", "never", "/").h2_upstream(denied(403, vec![], "no")).status(200),
        get("denied_while_off", "denies", "/").h2_upstream(pass()).status(403),
        get("off_by_metadata", "marked", "/").h2_upstream(denied(403, vec![], "no")).status(200),
        get("HTTP_by_the_route", "grpc", "/http/a").h2_upstream(Behaviour::Verdict(401, vec![("x-a", "b")], "no")),
    ]
}

fn by_http() -> Vec<Case> {
    let lines = ["authorization: me", "x-a: 1", "x-a: 2", "user-agent: u", "x-up-1: old", "x-app-1: old"];
    let get = |name, listener, path: &str, verdict| get(name, ROW, listener, path, &lines).h2_upstream(verdict);
    let headers = || {
        vec![
            ("x-up-1", "a"),
            ("x-up-2", "b"),
            ("x-app-1", "c"),
            ("x-app-2", "d"),
            ("x-client-1", "e"),
            ("x-ok-1", "f"),
            ("x-meta-1", "g"),
            ("x-envoy-auth-headers-to-remove", "x-a, user-agent"),
            ("www-authenticate", "h"),
            ("location", "/i"),
        ]
    };
    let say = |status, body| Behaviour::Verdict(status, headers(), body);
    let post = post("123456789abc").replace("host: test", "host: test\r\nx-a: 1");
    vec![
        get("HTTP_passes", "http", "/a?b=c", say(200, "")),
        get("HTTP_denies", "http", "/a", say(401, "no")).status(401),
        get("HTTP_denies_by_a_redirect", "http", "/a", say(302, "")),
        get("HTTP_201_denies", "http", "/a", say(201, "")),
        get("HTTP_fails", "http", "/a", say(500, "broken")).status(403),
        get("HTTP_fails_let_through", "http_lenient", "/a", say(503, "broken")).status(200),
        get("HTTP_is_too_late", "http", "/a", Behaviour::Stall),
        get("HTTP_resets", "http", "/a", Behaviour::Reset(h2::Reason::INTERNAL_ERROR)),
        get("HTTP_breaks_off", "http", "/a", Behaviour::ResetAfterHead(h2::Reason::INTERNAL_ERROR)),
        get("HTTP_has_nobody_there", "http_dead", "/", Behaviour::Ok),
        get("HTTP_has_no_such_cluster", "http_missing", "/", Behaviour::Ok),
        get("HTTP_passes_with_all", "http_full", "/a?b=c", say(200, "")),
        get("HTTP_denies_with_all", "http_full", "/a", say(403, "no")),
        case("HTTP_and_a_body", ROW, "http_full", post.clone()).h2_upstream(say(200, "")),
        case("HTTP_and_a_body_denied", ROW, "http_full", post).h2_upstream(say(403, "no")),
        get("HTTP_by_another_path", "http_path", "/a", say(200, "")),
        get("HTTP_fails_again_and_again", "http_retried", "/a", say(503, "")),
        get("HTTP_is_tried_once", "http_tried", "/a", say(503, "")),
        get("HTTP_is_too_late_again_and_again", "http_retried", "/a", Behaviour::Stall),
        get("HTTP_is_reset_again_and_again", "http_retried", "/a", Behaviour::Reset(h2::Reason::REFUSED_STREAM)),
    ]
}

//! Reference 2.6: `internal_redirect_policy`.

use super::{clusters, routed};
use crate::manifest::{Area, Case, case, get, h2};
use crate::support::h2_client::H2Request;
use crate::support::upstream::{Act, Script};

/// The routes: name, `internal_redirect_policy`, other fields of the route's action.
const ROUTES: &[(&str, &str, &str)] = &[
    ("first", "", "prefix_rewrite: /moved"),
    ("many", "max_internal_redirects: 3", ""),
    ("never", "max_internal_redirects: 0", ""),
    ("codes", "redirect_response_codes: [303, 307, 200]", ""),
    ("cross", "allow_cross_scheme_redirect: true", ""),
    ("copies", "response_headers_to_copy: [x-copy, x-gone]", ""),
    (
        "listed",
        r#"predicates: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig, allowed_route_names: [plain]}}]"#,
        "",
    ),
    (
        "previous",
        r#"max_internal_redirects: 9, predicates: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig}}]"#,
        "",
    ),
    (
        "safe",
        r#"allow_cross_scheme_redirect: true, predicates: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig}}]"#,
        "",
    ),
    ("retried", "", "retry_policy: {retry_on: 5xx}"),
];

/// The area.
pub fn area() -> Area {
    let redirects: Vec<String> = ROUTES
        .iter()
        .map(|(name, policy, more)| {
            let more = if more.is_empty() { String::new() } else { format!(", {more}") };
            format!(
                r#"{{name: {name}, match: {{prefix: "/{name}"}}, route: {{cluster: up{more}, internal_redirect_policy: {{{policy}}}}}}}"#
            )
        })
        .collect();
    let small = r#"{name: small, request_body_buffer_limit: 3, match: {prefix: "/small"}, route: {cluster: up, internal_redirect_policy: {}}}"#;
    let direct = r#"{name: direct, match: {prefix: "/direct"}, direct_response: {status: 418}}"#;
    let plain = r#"{name: plain, match: {prefix: "/plain"}, route: {cluster: up2}}"#;
    let missing = r#"{name: missing, match: {prefix: "/missing"}, route: {cluster_header: x-none}}"#;
    let routes = format!("{}, {small}, {direct}, {plain}, {missing}", redirects.join(", "));
    let hosts = format!(
        r#"{{name: all, domains: ["*"], include_request_attempt_count: true, routes: [{routes}]}}, {{name: other, domains: ["other.host"], routes: [{plain}]}}"#
    );
    Area {
        name: "redirects",
        listeners: vec![routed("in", "", &hosts)],
        clusters: clusters(),
        more: "",
        cases: cases(),
    }
}

/// A redirect.
fn to(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 5\r\n\r\nmoved")
}

fn answers(replies: &[String]) -> Script {
    let on_connection = |first: usize| {
        let answer = |reply: &String| [Act::Request, Act::Send(reply.as_bytes().to_vec())];
        replies.iter().skip(first).flat_map(answer).collect()
    };
    (0..replies.len()).map(on_connection).collect()
}

fn cases() -> Vec<Case> {
    let row = "2.6 internal_redirect_policy";
    let ok = || "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned();
    let on =
        |name, path: &str, replies: &[String]| get(name, row, "in", path, &["x-gone: 1"]).upstream(answers(replies));
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let there = "http://test/plain/x?y=z";
    let bare = format!("HTTP/1.1 302 Go\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n");
    let copied = format!("HTTP/1.1 302 Go\r\nlocation: {there}\r\nx-copy: 1\r\nx-copy: 2\r\ncontent-length: 0\r\n\r\n");
    let failed = "HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nfail".to_owned();
    let chunked =
        "POST /first HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let mut cases = vec![
        on("followed", "/first/a", &[to(302, there)]).status(200),
        on("followed on a kept connection", "/first/a", &[bare]).status(200),
        on("to another host", "/first", &[to(302, "http://other.host/plain")]).status(200),
        on("to a port", "/first", &[to(302, "http://test:81/plain#fragment")]).status(200),
        on("to a direct response", "/first", &[to(302, "http://test/direct")]).status(418),
        on("to no cluster", "/first", &[to(302, "http://test/missing")]).status(503),
        on("to no route", "/first", &[to(302, "http://test/nowhere")]).status(302),
        on("to no virtual host's route", "/first", &[to(302, "http://other.host/direct")]).status(302),
        on("without location", "/first", &["HTTP/1.1 302 Go\r\ncontent-length: 0\r\n\r\n".to_owned()]).status(302),
        on("to an empty location", "/first", &[to(302, "")]).status(302),
        on("to a path", "/first", &[to(302, "/plain")]),
        on("to nonsense", "/first", &[to(302, "nonsense")]).status(302),
        on("to ftp", "/first", &[to(302, "ftp://test/plain")]),
        on("to https", "/first", &[to(302, "https://test/plain")]),
        on("to a host alone", "/first", &[to(302, "http://test")]),
        on("across schemes", "/cross", &[to(302, "https://test/plain")]),
        on("not safely across", "/safe", &[to(302, "https://test/plain")]),
        on("other code", "/first", &[to(301, there)]).status(301),
        on("listed code", "/codes", &[to(307, there)]).status(200),
        on("unlisted code", "/codes", &[to(302, there)]).status(302),
        on("unfit code", "/codes", &[ok()]).status(200),
        on("too many", "/first", &[to(302, "http://test/first"), to(302, there)]).status(302),
        on("three", "/many", &[to(302, "http://test/many/1"), to(302, "http://test/many/2"), to(302, there)])
            .status(200),
        on("never", "/never", &[to(302, there)]).status(302),
        on("copied", "/copies", &[copied]).status(200),
        on("listed", "/listed", &[to(302, there)]).status(200),
        on("not listed", "/listed", &[to(302, "http://test/direct")]).status(302),
        on(
            "to the same route again",
            "/previous",
            &[to(302, "http://test/previous/1"), to(302, "http://test/previous/2")],
        )
        .status(302),
        on("retried, then followed", "/retried", &[failed.clone(), to(302, there)]).status(200),
        on("followed, then retried", "/first", &[to(302, "http://test/retried"), failed, ok()]).status(200),
        case("body", row, "in", post("/first", "hello")).upstream(answers(&[to(302, there)])).status(200),
        case("chunked body", row, "in", chunked).upstream(answers(&[to(302, there)])).status(200),
        case("body too long", row, "in", post("/small", "hello")).upstream(answers(&[to(302, there)])).status(302),
        case("see other", row, "in", post("/codes", "hello")).upstream(answers(&[to(303, there)])).status(200),
        case("head", row, "in", "HEAD /first HTTP/1.1\r\nhost: test\r\n\r\n")
            .methods(&["HEAD"])
            .upstream(answers(&[to(302, there)])),
        case("early", row, "in", "POST /first HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nabc").acts(vec![
            Act::Head,
            Act::Send(to(302, there).into()),
            Act::Hold,
        ]),
        h2("from h2", row, "in", vec![H2Request::post("http://test/first", "hello")])
            .upstream(answers(&[to(302, there)])),
    ];
    cases.extend([303, 307, 308].map(|code| {
        let name = Box::leak(format!("get {code}").into_boxed_str());
        on(name, "/codes", &[to(code, there)])
    }));
    cases
}

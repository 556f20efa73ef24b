//! Reference 2.5 and 2.6: the chain of HTTP filters, what routes say to it, and `envoy.filters.http.cors`.

use super::{clusters, routed};
use crate::manifest::{Area, Case, case, get, h2, request};
use crate::support::h2_client::H2Request;

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";
const POLICY: &str = r#"allow_origin_string_match: [{exact: site}, {suffix: ".test"}, {safe_regex: {regex: "re-[0-9]+"}}], allow_methods: "GET, PUT", allow_headers: x-a, expose_headers: x-b, max_age: "60""#;

/// A policy for the CORS filter of this name.
fn typed(filter: &str, policy: &str) -> String {
    format!(r#"typed_per_filter_config: {{{filter}: {{"@type": {TYPE}.cors.v3.CorsPolicy, {policy}}}}}"#)
}

/// Says whether the CORS filter is on, and with what policy.
fn wrapped(disabled: bool, policy: Option<&str>) -> String {
    let config =
        policy.map_or(String::new(), |it| format!(r#", config: {{"@type": {TYPE}.cors.v3.CorsPolicy, {it}}}"#));
    format!(
        r#"typed_per_filter_config: {{cors: {{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: {disabled}{config}}}}}"#
    )
}

/// `http_filters` with these filters before the router.
fn chain(filters: &[(&str, &str)]) -> String {
    let filters: String = filters
        .iter()
        .map(|(name, more)| format!(r#"{{name: {name}{more}, typed_config: {{"@type": {TYPE}.cors.v3.Cors}}}}, "#))
        .collect();
    format!(r#"http_filters: [{filters}{{name: router, typed_config: {{"@type": {TYPE}.router.v3.Router}}}}]"#)
}

/// The area.
pub fn area() -> Area {
    let route = |path: &str, of_action: &str, of_route: &str| {
        format!(r#"{{match: {{prefix: "/{path}"}}, route: {{cluster: up{of_action}}}{of_route}}}"#)
    };
    let percent = |n: u32| format!("{{default_value: {{numerator: {n}}}}}");
    let routes = [
        route("own", "", &format!(", {}", typed("cors", "allow_methods: PATCH, allow_credentials: true"))),
        route("any", "", &format!(r#", {}"#, typed("cors", r#"allow_origin_string_match: [{exact: "*"}], allow_methods: "*", allow_headers: "*", allow_private_network_access: true"#))),
        route("strict", "", &format!(", {}", typed("cors", "forward_not_matching_preflights: false"))),
        route("off", "", &format!(", {}", typed("cors", &format!("filter_enabled: {}", percent(0))))),
        route("shadow", "", &format!(", {}", typed("cors", &format!("filter_enabled: {}, shadow_enabled: {}", percent(0), percent(100))))),
        route("switched", "", &format!(", {}", typed("cors", "filter_enabled: {default_value: {numerator: 100}, runtime_key: cors.off}"))),
        route("disabled", "", &format!(", {}", wrapped(true, None))),
        route("enabled", "", &format!(", {}", wrapped(false, Some("max_age: \"7\"")))),
        route("other", "", &format!(", {}", typed("another", POLICY))),
        format!(r#"{{match: {{prefix: /direct}}, direct_response: {{status: 200}}, {}}}"#, typed("cors", "max_age: \"8\"")),
        r#"{match: {prefix: /dead}, route: {cluster: dead}}"#.to_owned(),
        r#"{match: {prefix: /headers}, response_headers_to_add: [{header: {key: x-route, value: added}}, {header: {key: access-control-allow-origin, value: route}}], route: {cluster: up}}"#.to_owned(),
        format!(
            "{{match: {{prefix: /weighted}}, route: {{weighted_clusters: {{clusters: [{{name: up, weight: 1, {}}}]}}}}}}",
            typed("cors", "max_age: \"9\"")
        ),
        route("", "", ""),
    ];
    let host = |more: &str, routes: &[String]| {
        format!(r#"{{name: all, domains: ["*"], {more}, routes: [{}]}}"#, routes.join(", "))
    };
    let legacy = [
        route("own", ", cors: {allow_methods: PATCH, allow_credentials: true}", ""),
        route("off", &format!(", cors: {{filter_enabled: {}}}", percent(0)), ""),
        route("typed", "", &format!(", {}", typed("cors", "max_age: \"1\""))),
        route("", "", ""),
    ];
    let with = |filters: &[(&str, &str)]| chain(filters);
    let of_host = typed("cors", POLICY);
    let upgrades = format!(
        "{}, upgrade_configs: [{{upgrade_type: websocket, filters: [{{name: router, typed_config: {{\"@type\": {TYPE}.router.v3.Router}}}}]}}, {{upgrade_type: other}}]",
        chain(&[("cors", "")])
    );
    let listeners = vec![
        routed("cors", &with(&[("cors", "")]), &host(&of_host, &routes)),
        routed("legacy", &with(&[("cors", "")]), &host(&format!("cors: {{{POLICY}}}"), &legacy)),
        routed("none", &with(&[]), &host(&of_host, &routes)),
        routed(
            "disabled",
            &with(&[("cors", ", disabled: true")]),
            &host("include_request_attempt_count: true", &routes),
        ),
        routed("two", &with(&[("cors", ""), ("another", "")]), &host(&of_host, &routes)),
        routed("upgrades", &upgrades, &host(&of_host, &routes)),
        routed(
            "nowhere",
            &with(&[("cors", "")]),
            r#"{name: one, domains: [one], routes: [{match: {prefix: /}, route: {cluster: up}}]}"#,
        ),
        routed(
            "tls",
            &with(&[("cors", "")]),
            &format!(
                r#"{{name: all, domains: ["*"], require_tls: ALL, {}, routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}"#,
                typed("cors", POLICY)
            ),
        ),
    ];
    let more = "layered_runtime: {layers: [{name: s, static_layer: {cors.off: 0}}]}";
    Area { name: "http_filters", listeners, clusters: clusters(), more, cases: cases() }
}

fn cases() -> Vec<Case> {
    let row = "2.6 cors";
    let asks = "access-control-request-method: PUT";
    let plain =
        |name, listener, path: &str, origin: &str| get(name, row, listener, path, &[&format!("origin: {origin}")]);
    let preflight = |name, listener, path: &str, origin: &str, more: &[&str]| {
        let origin = format!("origin: {origin}");
        let lines: Vec<&str> = [&origin[..], asks].into_iter().chain(more.iter().copied()).collect();
        case(name, row, listener, request("OPTIONS", path, &lines))
    };
    let private = "access-control-request-private-network: true";
    let headers = "access-control-request-headers: x-1, x-2";
    vec![
        plain("allowed", "cors", "/", "site"),
        plain("allowed by suffix", "cors", "/", "https://a.test"),
        plain("allowed by expression", "cors", "/", "re-12"),
        plain("elsewhere", "cors", "/", "elsewhere"),
        plain("empty origin", "cors", "/", ""),
        get("no origin", row, "cors", "/", &[]),
        get("two origins", row, "cors", "/", &["origin: site", "origin: site"]),
        get("method asked by GET", row, "cors", "/", &["origin: site", asks]),
        case("options without method", row, "cors", request("OPTIONS", "/", &["origin: site"])),
        case("options with an empty method", row, "cors", request("OPTIONS", "/", &["origin: site", "access-control-request-method:"])),
        preflight("preflight", "cors", "/", "site", &[]),
        preflight("preflight with headers", "cors", "/", "site", &[headers, private]),
        preflight("preflight from elsewhere", "cors", "/", "elsewhere", &[]),
        preflight("preflight strict", "cors", "/strict", "site", &[]),
        preflight("preflight strict from elsewhere", "cors", "/strict", "elsewhere", &[]),
        preflight("preflight with credentials", "cors", "/own", "site", &[]),
        preflight("preflight of anybody", "cors", "/any", "nobody", &[headers, private]),
        preflight("preflight of anybody without headers", "cors", "/any", "nobody", &["access-control-request-private-network: no"]),
        plain("with credentials", "cors", "/own", "site"),
        plain("anybody", "cors", "/any", "nobody"),
        plain("off", "cors", "/off", "site"),
        preflight("preflight off", "cors", "/off", "site", &[]),
        plain("shadow", "cors", "/shadow", "site"),
        preflight("preflight shadow", "cors", "/shadow", "elsewhere", &[]),
        plain("switched off", "cors", "/switched", "site"),
        plain("disabled by the route", "cors", "/disabled", "site"),
        plain("another filter's settings", "cors", "/other", "site"),
        plain("direct", "cors", "/direct", "site"),
        preflight("preflight direct", "cors", "/direct", "site", &[]),
        plain("upstream dead", "cors", "/dead", "site"),
        plain("headers of the route", "cors", "/headers", "site"),
        preflight("preflight and headers of the route", "cors", "/headers", "site", &[]),
        preflight("preflight weighted", "cors", "/weighted", "site", &[]),
        plain("upstream's own header", "cors", "/", "site").reply(
            "HTTP/1.1 200 OK\r\naccess-control-allow-origin: mine\r\naccess-control-expose-headers: y\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        plain("upstream's error", "cors", "/", "site").reply("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned()),
        case("preflight with a body", row, "cors", [request("OPTIONS", "/", &["origin: site", asks, "content-length: 3"]), b"abc".to_vec()].concat()),
        h2("preflight by h2", row, "cors", vec![H2Request { method: "OPTIONS", ..H2Request::get("http://test/") }.header("origin", "site").header("access-control-request-method", "PUT")]),
        h2("allowed by h2", row, "cors", vec![H2Request::get("http://test/").header("origin", "site")]),
        plain("legacy allowed", "legacy", "/", "site"),
        preflight("legacy preflight", "legacy", "/", "site", &[]),
        preflight("legacy preflight of the route", "legacy", "/own", "site", &[]),
        plain("legacy off", "legacy", "/off", "site"),
        preflight("legacy beside typed", "legacy", "/typed", "site", &[]),
        plain("no filter", "none", "/", "site"),
        preflight("no filter preflight", "none", "/", "site", &[]),
        plain("disabled in the chain", "disabled", "/", "site"),
        preflight("enabled by the route", "disabled", "/enabled", "site", &[]),
        preflight("enabled by settings", "disabled", "/any", "site", &[]),
        preflight("two filters", "two", "/", "site", &[]),
        plain("two filters, another's settings", "two", "/other", "site"),
        preflight("two filters, another's preflight", "two", "/other", "site", &[]),
        plain("no route", "nowhere", "/", "site"),
        plain("to tls", "tls", "/", "site"),
        preflight("preflight to tls", "tls", "/", "site", &[]),
        get("upgrade by a chain of its own", row, "upgrades", "/", &["origin: site", "connection: upgrade", "upgrade: websocket"]),
        get("upgrade by the usual chain", row, "upgrades", "/", &["origin: site", "connection: upgrade", "upgrade: other"]),
        get("no upgrade", row, "upgrades", "/", &["origin: site"]),
    ]
}

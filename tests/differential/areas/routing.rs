//! Reference 2.6: which route is taken and what it does.

mod templates;

use super::{clusters, routed, routes};
use crate::manifest::{Area, Case, case, get, request};

/// The area.
pub fn area() -> Area {
    let regex = |text: &str| format!(r#"{{regex: '{text}'}}"#);
    let matches = format!(
        r#"
        {{name: exact, match: {{path: "/exact"}}, route: {{cluster: up}}}},
        {{name: exact_any_case, match: {{path: "/Any", case_sensitive: false}}, route: {{cluster: up}}}},
        {{name: regex, match: {{safe_regex: {}}}, route: {{cluster: up}}}},
        {{name: separated, match: {{path_separated_prefix: "/api/v1"}}, route: {{cluster: up}}}},
        {{name: h_exact, match: {{prefix: "/h", headers: [{{name: x-e, string_match: {{exact: one}}}}]}}, route: {{cluster: up}}}},
        {{name: h_prefix, match: {{prefix: "/h", headers: [{{name: x-p, string_match: {{prefix: "on", ignore_case: true}}}}]}}, route: {{cluster: up}}}},
        {{name: h_suffix, match: {{prefix: "/h", headers: [{{name: x-s, string_match: {{suffix: ne}}}}]}}, route: {{cluster: up}}}},
        {{name: h_contains, match: {{prefix: "/h", headers: [{{name: x-c, string_match: {{contains: "n"}}}}]}}, route: {{cluster: up}}}},
        {{name: h_regex, match: {{prefix: "/h", headers: [{{name: x-r, string_match: {{safe_regex: {}}}}}]}}, route: {{cluster: up}}}},
        {{name: h_range, match: {{prefix: "/h", headers: [{{name: x-n, range_match: {{start: 5, end: 10}}}}]}}, route: {{cluster: up}}}},
        {{name: h_present, match: {{prefix: "/h", headers: [{{name: x-there, present_match: true}}]}}, route: {{cluster: up}}}},
        {{name: h_inverted, match: {{prefix: "/inv", headers: [{{name: x-i, string_match: {{exact: "no"}}, invert_match: true}}]}}, route: {{cluster: up}}}},
        {{name: h_absent, match: {{prefix: "/inv", headers: [{{name: x-i, present_match: false}}]}}, route: {{cluster: up}}}},
        {{name: h_empty, match: {{prefix: "/empty", headers: [{{name: x-i, string_match: {{exact: ""}}, treat_missing_header_as_empty: true}}]}}, route: {{cluster: up}}}},
        {{name: h_method, match: {{prefix: "/method", headers: [{{name: ":method", string_match: {{exact: POST}}}}]}}, route: {{cluster: up}}}},
        {{name: q_exact, match: {{prefix: "/q", query_parameters: [{{name: a, string_match: {{exact: "1"}}}}]}}, route: {{cluster: up}}}},
        {{name: q_present, match: {{prefix: "/q", query_parameters: [{{name: b, present_match: true}}]}}, route: {{cluster: up}}}},
        {{name: grpc, match: {{prefix: "/g", grpc: {{}}}}, route: {{cluster: up}}}},
        {{name: never, match: {{prefix: "/frac", runtime_fraction: {{default_value: {{numerator: 0}}}}}}, route: {{cluster: up}}}},
        {{name: always, match: {{prefix: "/frac", runtime_fraction: {{default_value: {{numerator: 100}}}}}}, route: {{cluster: up}}}},
        {{name: prefix_any_case, match: {{prefix: "/Pre", case_sensitive: false}}, route: {{cluster: up}}}},
        {{name: first, match: {{prefix: "/dup"}}, route: {{cluster: up}}}},
        {{name: second, match: {{prefix: "/dup"}}, route: {{cluster: up2}}}}"#,
        regex("/r/[0-9]+"),
        regex("o.e"),
    );
    let hosts = r#"
        {name: exact, domains: ["a.test"], routes: [{name: exact, match: {prefix: "/"}, route: {cluster: up}}]},
        {name: port, domains: ["a.test:81"], routes: [{name: port, match: {prefix: "/"}, route: {cluster: up}}]},
        {name: suffix, domains: ["*.test"], routes: [{name: suffix, match: {prefix: "/"}, route: {cluster: up}}]},
        {name: longer, domains: ["*.b.test", "*-b.test"], routes: [{name: longer, match: {prefix: "/"}, route: {cluster: up}}]},
        {name: prefix, domains: ["c.*"], routes: [{name: prefix, match: {prefix: "/"}, route: {cluster: up}}]},
        {name: tls, domains: ["tls.test"], require_tls: ALL, routes: [{match: {prefix: "/"}, route: {cluster: up}}]},
        {name: tls_outside, domains: ["out.test"], require_tls: EXTERNAL_ONLY, routes: [{match: {prefix: "/"}, route: {cluster: up}}]}"#;
    let actions = r#"
        {name: direct, match: {prefix: "/direct"}, direct_response: {status: 418, body: {inline_string: "tea"}}},
        {name: direct_empty, match: {prefix: "/nothing"}, direct_response: {status: 204}},
        {name: direct_type, match: {prefix: "/html"}, direct_response: {status: 200, body: {inline_string: "<p>"}}, response_headers_to_add: [{header: {key: content-type, value: text/html}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]},
        {name: f_text, match: {prefix: "/f/text"}, direct_response: {status: 200, body: {inline_string: "in"}, body_format: {text_format_source: {inline_string: "<%LOCAL_REPLY_BODY%> %REQ(:path)% %RESPONSE_CODE% %REQ(nope)%"}}}},
        {name: f_json, match: {prefix: "/f/json"}, direct_response: {status: 503, body: {inline_string: "in"}, body_format: {json_format: {body: "%LOCAL_REPLY_BODY%", agent: "%REQ(x-a)%"}}}},
        {name: f_type, match: {prefix: "/f/type"}, direct_response: {status: 201, body_format: {text_format_source: {inline_string: "<p>%REQ(x-a)%</p>"}, content_type: "text/html; charset=x", omit_empty_values: true}}},
        {name: r_path, match: {prefix: "/r/path"}, redirect: {path_redirect: "/new"}},
        {name: r_query, match: {prefix: "/r/query"}, redirect: {path_redirect: "/new?own=1"}},
        {name: r_strip, match: {prefix: "/r/strip"}, redirect: {path_redirect: "/new", strip_query: true}},
        {name: r_prefix, match: {prefix: "/r/prefix"}, redirect: {prefix_rewrite: "/p", response_code: FOUND}},
        {name: r_regex, match: {prefix: "/r/regex"}, redirect: {regex_rewrite: {pattern: {regex: "/r/(.*)"}, substitution: '/x/\1'}, response_code: SEE_OTHER}},
        {name: r_https, match: {prefix: "/r/https"}, redirect: {https_redirect: true}},
        {name: r_scheme, match: {prefix: "/r/scheme"}, redirect: {scheme_redirect: ftp, response_code: TEMPORARY_REDIRECT}},
        {name: r_host, match: {prefix: "/r/host"}, redirect: {host_redirect: other.test, port_redirect: 8443, response_code: PERMANENT_REDIRECT}},
        {name: r_port, match: {prefix: "/r/port"}, redirect: {port_redirect: 99}},
        {name: w_prefix, match: {prefix: "/w/prefix"}, route: {cluster: up, prefix_rewrite: "/new"}},
        {name: w_slash, match: {prefix: "/w/slash/"}, route: {cluster: up, prefix_rewrite: "/"}},
        {name: w_regex, match: {prefix: "/w/regex"}, route: {cluster: up, regex_rewrite: {pattern: {regex: "([a-z]+)/"}, substitution: '<\1>'}}},
        {name: w_host, match: {prefix: "/w/host"}, route: {cluster: up, host_rewrite_literal: literal.test}},
        {name: w_host_header, match: {prefix: "/w/hh"}, route: {cluster: up, host_rewrite_header: x-host}},
        {name: w_host_path, match: {prefix: "/w/hp"}, route: {cluster: up, host_rewrite_path_regex: {pattern: {regex: "/w/hp/([^/]+)/.*"}, substitution: '\1.test'}}},
        {name: w_auto, match: {prefix: "/w/auto"}, route: {cluster: named, auto_host_rewrite: true}},
        {name: w_exact, match: {path: "/w/exact"}, route: {cluster: up, prefix_rewrite: "/other"}},
        {name: gone, match: {prefix: "/gone"}, route: {cluster: not_there}},
        {name: gone404, match: {prefix: "/g404"}, route: {cluster: not_there, cluster_not_found_response_code: NOT_FOUND}},
        {name: gone500, match: {prefix: "/g500"}, route: {cluster: not_there, cluster_not_found_response_code: INTERNAL_SERVER_ERROR}},
        {name: by_header, match: {prefix: "/by-header"}, route: {cluster_header: x-cluster}},
        {name: all_weight, match: {prefix: "/weighted"}, route: {weighted_clusters: {clusters: [{name: up, weight: 0}, {name: up2, weight: 5}]}}},
        {name: high, match: {prefix: "/high"}, route: {cluster: up, priority: HIGH}},
        {name: nothing, match: {prefix: "/non-forwarding"}, non_forwarding_action: {}}"#;
    let parameters = r#"ignore_path_parameters_in_path_matching: true, virtual_hosts: [{name: v, domains: ["*"], routes: [
        {name: exact, match: {path: "/exact"}, route: {cluster: up}}, {name: prefix, match: {prefix: "/pre/x"}, route: {cluster: up}},
        {name: rewritten, match: {prefix: "/rw/x"}, route: {cluster: up, prefix_rewrite: "/NEW"}},
        {name: separated, match: {path_separated_prefix: "/sep/x"}, route: {cluster: up, prefix_rewrite: "/NEW"}},
        {name: regex, match: {safe_regex: {regex: "/re/[a-z]+"}}, route: {cluster: up, regex_rewrite: {pattern: {regex: "/re/"}, substitution: "/NEW/"}}},
        {name: redirect, match: {prefix: "/rd/x"}, redirect: {prefix_rewrite: "/NEW"}},
        {name: any, match: {path: "/Any/x", case_sensitive: false}, route: {cluster: up, prefix_rewrite: "/NEW"}}]}]"#;
    let answers = r#"
        {match: {path: "/201"}, direct_response: {status: 201, body: {inline_string: x}}, response_headers_to_add: [{header: {key: x-code, value: "%RESPONSE_CODE%"}}]},
        {match: {path: "/302"}, direct_response: {status: 302}, response_headers_to_add: [{header: {key: location, value: "/z"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]},
        {match: {path: "/400"}, direct_response: {status: 400, body: {inline_string: bad}}},
        {match: {path: "/none"}, route: {cluster: empty, prefix_rewrite: "/x"}, request_headers_to_add: [{header: {key: x-a, value: b}}], response_headers_to_add: [{header: {key: x-r, value: "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(x-a)%"}}]},
        {match: {path: "/refused"}, route: {cluster: dead, prefix_rewrite: "/x"}, request_headers_to_add: [{header: {key: x-a, value: "%UPSTREAM_CLUSTER%"}}], response_headers_to_add: [{header: {key: x-r, value: "%RESPONSE_CODE% %REQ(x-a)%"}}, {header: {key: x-envoy-overloaded, value: "own"}}]},
        {match: {prefix: "/weight"}, route: {weighted_clusters: {clusters: [{name: empty, weight: 1, response_headers_to_add: [{header: {key: x-weight, value: w}}], host_rewrite_literal: weight.test}]}}, response_headers_to_remove: [date]},
        {match: {prefix: "/"}, route: {cluster: not_there}, response_headers_to_add: [{header: {key: x-r, value: r}}]}"#;
    let listeners = vec![
        routed(
            "answers",
            &format!(
                r#"route_config: {{name: r, validate_clusters: false, virtual_hosts: [{{name: v, domains: ["*"], include_attempt_count_in_response: true, include_request_attempt_count: true, routes: [{answers}]}}]}}"#
            ),
            "",
        ),
        routes("matches", &matches),
        routed("hosts", "", hosts),
        routed(
            "hosts_no_port",
            "route_config: {name: r, ignore_port_in_host_matching: true, virtual_hosts: [{name: v, domains: [a.test], routes: [{name: a, match: {prefix: /}, route: {cluster: up}}]}]}",
            "",
        ),
        routed(
            "actions",
            &format!(
                r#"route_config: {{name: r, validate_clusters: false, virtual_hosts: [{{name: v, domains: ["*"], routes: [{actions}]}}]}}"#
            ),
            "",
        ),
        routed("parameters", &format!("route_config: {{name: r, {parameters}}}"), ""),
        routed("empty", "route_config: {name: r}", ""),
        templates::listener(),
    ];
    let mut clusters = clusters();
    let named = r#"load_assignment: {cluster_name: named, endpoints: [{lb_endpoints: [{endpoint: {hostname: endpoint.test, address: {socket_address: {address: 127.0.0.1, port_value: ${UP}}}}}]}]}"#;
    clusters.push(format!("{{name: named, {named}}}"));
    clusters.push("{name: empty, type: STATIC, load_assignment: {cluster_name: empty}}".to_owned());
    let cases = [match_cases(), host_cases(), action_cases(), answer_cases(), templates::cases()].concat();
    Area { name: "routing", listeners, clusters, more: "", cases }
}

fn match_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [
        "/exact",
        "/exact/",
        "/exact?q",
        "/exactly",
        "/any",
        "/ANY",
        "/r/12",
        "/r/12?x=y",
        "/r/12/a",
        "/r/",
        "/api/v1",
        "/api/v1/x",
        "/api/v1x",
        "/api/v1?q=1",
        "/dup",
        "/pre",
        "/PRE/x",
        "/frac",
        "/empty",
        "/none",
        "/q?a=1",
        "/q?a=2",
        "/q?b",
        "/q?a=2&a=1",
        "/q?b=&c",
        "/q",
        "/inv",
    ] {
        cases.push(get(leak(format!("path {path}")), "2.6 match kinds", "matches", path, &[]));
    }
    for line in [
        "x-e: one",
        "x-e: One",
        "x-e: two",
        "x-p: ONE",
        "x-s: one",
        "x-s: onE",
        "x-c: anb",
        "x-r: one",
        "x-r: xone",
        "x-n: 5",
        "x-n: 10",
        "x-n: -7",
        "x-n: 7a",
        "x-n: 07",
        "x-there:",
        "x-there: a",
        "x-other: a",
    ] {
        cases.push(get(leak(format!("header {line}")), "2.6 headers", "matches", "/h", &[line]));
    }
    cases.extend([
        get("header twice", "2.6 headers repeated", "matches", "/h", &["x-e: zero", "x-e: one"]),
        get("inverted other", "2.6 invert_match", "matches", "/inv", &["x-i: yes"]),
        get("inverted same", "2.6 invert_match", "matches", "/inv", &["x-i: no"]),
        get("empty value", "2.6 treat_missing_header_as_empty", "matches", "/empty", &["x-i: a"]),
        case("method post", "2.6 headers", "matches", request("POST", "/method", &["content-length: 0"])).status(200),
        case("method get", "2.6 headers", "matches", request("GET", "/method", &[])).status(404),
        get("grpc type", "2.6 grpc", "matches", "/g", &["content-type: application/grpc"]),
        get("grpc subtype", "2.6 grpc", "matches", "/g", &["content-type: application/grpc+proto"]),
        get("grpc web", "2.6 grpc", "matches", "/g", &["content-type: application/grpc-web"]),
        get("parameters exact", "2.6 ignore_path_parameters", "parameters", "/exact;a=b", &[]).status(200),
        get("parameters prefix", "2.6 ignore_path_parameters", "parameters", "/pre;v=1/x", &[]),
        get("no virtual hosts", "2.6 no vhost", "empty", "/", &[]).status(404),
    ]);
    cases
}

fn answer_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [
        "/exact;a=b?q",
        "/pre;v=1/x;y/z;w?q=1",
        "/rw;a/x",
        "/rw/x;a/b?c",
        "/sep;a/x;b/c",
        "/sep/x;b/c",
        "/re/abc;x",
        "/re;x/abc",
        "/rd;a/x;b/c?q",
        "/rd/x;b/c?q",
        "/ANY;a/x",
        "/ANY/x;a",
    ] {
        cases.push(get(leak(format!("parameters {path}")), "2.6 ignore_path_parameters", "parameters", path, &[]));
    }
    for path in ["/201", "/302?a", "/400", "/none", "/refused", "/weight", "/unknown"] {
        cases.push(get(leak(format!("answer {path}")), "2.10 local replies of a route", "answers", path, &[]));
    }
    cases
}

fn host_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for host in [
        "a.test",
        "A.TEST",
        "a.test:80",
        "a.test:81",
        "x.test",
        "x.b.test",
        "y-b.test",
        "b.test",
        ".test",
        "c.example",
        "c.test",
        "other",
        "tls.test",
        "tls.test:8080",
        "out.test",
        "a.test.",
    ] {
        cases.push(get(
            leak(format!("host {host}")),
            "2.6 virtual host selection",
            "hosts",
            "/p?q=1",
            &[&format!("host: {host}")],
        ));
    }
    for host in ["a.test:81", "a.test", "a.test:"] {
        cases.push(get(
            leak(format!("no port {host}")),
            "2.6 ignore_port_in_host_matching",
            "hosts_no_port",
            "/",
            &[&format!("host: {host}")],
        ));
    }
    cases.push(get("tls with proto", "2.6 require_tls", "hosts", "/", &["host: tls.test", "x-forwarded-proto: https"]));
    cases
}

fn action_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [
        "/direct",
        "/nothing",
        "/html",
        "/r/path?a=b",
        "/r/query?a=b",
        "/r/strip?a=b",
        "/r/prefix/x?a=b",
        "/r/regex/y?a=b",
        "/r/https?a=b",
        "/r/scheme",
        "/r/host/z",
        "/r/port",
        "/w/prefix",
        "/w/prefix/rest?q=1",
        "/w/prefixed",
        "/w/slash/a",
        "/w/regex/a/b?c/d",
        "/w/host",
        "/w/hp/name/x",
        "/w/hp",
        "/w/auto",
        "/w/exact",
        "/w/exact?q=2",
        "/gone",
        "/g404",
        "/g500",
        "/by-header",
        "/weighted",
        "/high",
        "/non-forwarding",
    ] {
        cases.push(get(leak(format!("action {path}")), "2.6 actions", "actions", path, &[]));
    }
    cases.extend([
        get("redirect default port", "2.6 redirect", "actions", "/r/https", &["host: a.test:80"]).status(301),
        get("redirect other port", "2.6 redirect", "actions", "/r/https", &["host: a.test:8080"]).status(301),
        get("redirect ipv6", "2.6 redirect", "actions", "/r/port", &["host: [::1]:8080"]).status(301),
        case(
            "direct post",
            "2.6 direct_response",
            "actions",
            "POST /direct HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        )
        .status(418),
        get("direct text", "2.6 direct_response", "actions", "/f/text?q", &[]).status(200),
        get("direct json", "2.6 direct_response", "actions", "/f/json", &["x-a: \"b\""]).status(503),
        get("direct type", "2.6 direct_response", "actions", "/f/type", &["x-a: b"]).status(201),
        get("direct type without value", "2.6 direct_response", "actions", "/f/type", &[]).status(201),
        get("direct json to grpc", "2.6 direct_response", "actions", "/f/json", &["content-type: application/grpc"])
            .status(200),
        case("direct text head", "2.10 HEAD", "actions", request("HEAD", "/f/text", &[]))
            .methods(&["HEAD"])
            .status(200),
        case("direct head", "2.10 HEAD", "actions", request("HEAD", "/direct", &[])).methods(&["HEAD"]).status(418),
        case(
            "redirect post",
            "2.6 redirect",
            "actions",
            "POST /r/path HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .status(301),
        get("host from header", "2.6 host_rewrite_header", "actions", "/w/hh", &["x-host: h.test"]).status(200),
        get("host from no header", "2.6 host_rewrite_header", "actions", "/w/hh", &[]).status(200),
        get("cluster header", "2.6 cluster_header", "actions", "/by-header", &["x-cluster: up2"]).status(200),
        get("cluster header unknown", "2.6 cluster_header", "actions", "/by-header", &["x-cluster: nope"]).status(503),
    ]);
    cases
}

fn leak(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

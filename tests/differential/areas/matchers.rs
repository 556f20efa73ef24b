//! Reference 2.6 further: conditions of routes and what forwarding changes, where [`super::routing`] does not reach.

use super::{clusters, routed, routes};
use crate::manifest::{Area, Case, case, get, request};

/// The area.
pub fn area() -> Area {
    let matchers = r#"
        {name: r_range, match: {prefix: "/range", headers: [{name: x-n, range_match: {start: -5, end: 5}, invert_match: true}]}, route: {cluster: up}},
        {name: r_range_empty, match: {prefix: "/range", headers: [{name: x-m, range_match: {start: 0, end: 1}, treat_missing_header_as_empty: true}]}, route: {cluster: up}},
        {name: h_prefix_not, match: {prefix: "/not", headers: [{name: x-p, string_match: {prefix: a}, invert_match: true, treat_missing_header_as_empty: true}]}, route: {cluster: up}},
        {name: h_old_exact, match: {prefix: "/old", headers: [{name: x-o, exact_match: one}]}, route: {cluster: up}},
        {name: h_old_prefix, match: {prefix: "/old", headers: [{name: x-op, prefix_match: one}]}, route: {cluster: up}},
        {name: h_old_suffix, match: {prefix: "/old", headers: [{name: x-os, suffix_match: one}]}, route: {cluster: up}},
        {name: h_old_contains, match: {prefix: "/old", headers: [{name: x-oc, contains_match: one}]}, route: {cluster: up}},
        {name: h_old_regex, match: {prefix: "/old", headers: [{name: x-or, safe_regex_match: {regex: "o.*"}}]}, route: {cluster: up}},
        {name: h_only_name, match: {prefix: "/name", headers: [{name: x-name}]}, route: {cluster: up}},
        {name: h_path, match: {prefix: "/pseudo", headers: [{name: ":path", string_match: {suffix: "=1"}}]}, route: {cluster: up}},
        {name: h_authority, match: {prefix: "/pseudo", headers: [{name: ":authority", string_match: {exact: "a.test"}}]}, route: {cluster: up}},
        {name: h_host, match: {prefix: "/pseudo", headers: [{name: host, string_match: {exact: "b.test"}}]}, route: {cluster: up}},
        {name: h_scheme, match: {prefix: "/pseudo", headers: [{name: ":scheme", string_match: {exact: "https"}}]}, route: {cluster: up}},
        {name: q_regex, match: {prefix: "/query", query_parameters: [{name: a, string_match: {safe_regex: {regex: "[0-9]+"}}}]}, route: {cluster: up}},
        {name: q_name, match: {prefix: "/query", query_parameters: [{name: b}]}, route: {cluster: up}},
        {name: q_absent, match: {prefix: "/query", query_parameters: [{name: c, present_match: false}]}, route: {cluster: up}},
        {name: c_exact, match: {prefix: "/cookie", cookies: [{name: a, string_match: {exact: "1"}}]}, route: {cluster: up}},
        {name: c_not, match: {prefix: "/cookie", cookies: [{name: b, string_match: {exact: "1"}, invert_match: true}]}, route: {cluster: up}},
        {name: frac_key, match: {prefix: "/key", runtime_fraction: {default_value: {numerator: 0}, runtime_key: frac.on}}, route: {cluster: up}},
        {name: frac_off, match: {prefix: "/off-key", runtime_fraction: {default_value: {numerator: 100}, runtime_key: frac.off}}, route: {cluster: up}},
        {name: regex_alt, match: {safe_regex: {regex: "/re(/a|/b)?"}}, route: {cluster: up}},
        {name: regex_case, match: {safe_regex: {regex: "(?i)/CASE/.*"}}, route: {cluster: up}}"#;
    let rewrites = r#"
        {name: template, match: {prefix: "/template"}, route: {cluster: up, path_rewrite: "/t/%REQ(x-a)%"}},
        {name: regex_two, match: {prefix: "/two"}, route: {cluster: up, regex_rewrite: {pattern: {regex: "^/two/([^/]+)/(.*)$"}, substitution: '/\2/\1'}}},
        {name: regex_whole, match: {prefix: "/whole"}, route: {cluster: up, regex_rewrite: {pattern: {regex: ".*"}, substitution: '/x'}}},
        {name: host_template, match: {prefix: "/host-template"}, route: {cluster: up, host_rewrite: "%REQ(x-a)%.test"}},
        {name: xfh, match: {prefix: "/xfh"}, route: {cluster: up, host_rewrite_literal: lit.test, append_x_forwarded_host: true}},
        {name: auto_xfh, match: {prefix: "/auto-xfh"}, route: {cluster: named, auto_host_rewrite: true, append_x_forwarded_host: true}},
        {name: auto_unnamed, match: {prefix: "/auto-unnamed"}, route: {cluster: up, auto_host_rewrite: true}},
        {name: any_case, match: {prefix: "/AnyCase", case_sensitive: false}, route: {cluster: up, prefix_rewrite: "/new"}},
        {name: separated, match: {path_separated_prefix: "/sep"}, route: {cluster: up, prefix_rewrite: "/new"}},
        {name: regex_prefix, match: {safe_regex: {regex: "/rp/.*"}}, route: {cluster: up, prefix_rewrite: "/new"}},
        {name: weighted_key, match: {prefix: "/weighted-key"}, route: {weighted_clusters: {runtime_key_prefix: weights, clusters: [{name: up, weight: 100}, {name: up2, weight: 0}]}}},
        {name: weighted_header, match: {prefix: "/weighted-header"}, route: {weighted_clusters: {header_name: x-random, clusters: [{name: up, weight: 50}, {name: up2, weight: 50}]}}},
        {name: weighted_by_header, match: {prefix: "/weighted-by"}, route: {weighted_clusters: {clusters: [{cluster_header: x-cluster, weight: 1}]}}},
        {name: weighted_host, match: {prefix: "/weighted-host"}, route: {host_rewrite_literal: route.test, weighted_clusters: {clusters: [{name: up, weight: 1, host_rewrite_literal: entry.test}]}}},
        {name: r_template, match: {prefix: "/r-template"}, redirect: {path_rewrite: "/t/%REQ(x-a)%"}},
        {name: r_all, match: {prefix: "/r-all"}, redirect: {host_redirect: "h.test", path_redirect: "/p?x", strip_query: true, https_redirect: true}},
        {name: r_remove, match: {prefix: "/r-remove"}, redirect: {prefix_rewrite: "/"}, request_headers_to_add: [{header: {key: x-q, value: q}}], response_headers_to_add: [{header: {key: x-r, value: "%REQ(x-q)%|%REQ(:path)%"}}]},
        {name: e_host, match: {prefix: "/edit-host"}, route: {cluster: up}, request_headers_to_add: [{header: {key: x-envoy-original-path, value: mine}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}], request_headers_to_remove: [x-request-id, user-agent, x-envoy-expected-rq-timeout-ms]},
        {name: up, match: {prefix: "/"}, route: {cluster: up}}"#;
    let named = r#"load_assignment: {cluster_name: named, endpoints: [{lb_endpoints: [{endpoint: {hostname: endpoint.test, address: {socket_address: {address: 127.0.0.1, port_value: ${UP}}}}}]}]}"#;
    let mut clusters = clusters();
    clusters.push(format!("{{name: named, {named}}}"));
    let suppressed = r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}]"#;
    let listeners = vec![
        routes("matchers", matchers),
        routes("rewrites", rewrites),
        routed("suppressed", suppressed, &format!(r#"{{name: v, domains: ["*"], routes: [{rewrites}]}}"#)),
        routed(
            "vhost_header",
            r#"route_config: {name: r, vhost_header: x-vhost, virtual_hosts: [
                {name: a, domains: ["a"], routes: [{name: a, match: {prefix: "/"}, route: {cluster: up}}]},
                {name: any, domains: ["*"], routes: [{name: any, match: {prefix: "/"}, route: {cluster: up}}]}]}"#,
            "",
        ),
        routed(
            "body_size",
            r#"route_config: {name: r, max_direct_response_body_size_bytes: 5000, virtual_hosts: [{name: a, domains: ["*"], routes: [
                {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "x"}}}]}]}"#,
            "",
        ),
    ];
    let more = r#"layered_runtime: {layers: [{name: static, static_layer: {frac: {"on": 100, "off": {numerator: 0, denominator: HUNDRED}}, weights: {up: 0, up2: 100}}}]}"#;
    Area { name: "matchers", listeners, clusters, more, cases: [match_cases(), rewrite_cases()].concat() }
}

fn match_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let lines: [(&str, &[&str]); 36] = [
        ("/range", &["x-n: 3"]),
        ("/range", &["x-n: -9"]),
        ("/range", &["x-n: a"]),
        ("/range", &["x-m: 0"]),
        ("/range", &[]),
        ("/not", &["x-p: abc"]),
        ("/not", &["x-p: bc"]),
        ("/not", &[]),
        ("/old", &["x-o: one"]),
        ("/old", &["x-op: oneself"]),
        ("/old", &["x-os: someone"]),
        ("/old", &["x-oc: alonely"]),
        ("/old", &["x-oc: stoned"]),
        ("/old", &["x-or: one"]),
        ("/name", &["x-name: a"]),
        ("/name", &[]),
        ("/pseudo?a=1", &[]),
        ("/pseudo", &["host: a.test"]),
        ("/pseudo", &["host: b.test"]),
        ("/pseudo", &["x-forwarded-proto: https"]),
        ("/query?a=12", &[]),
        ("/query?a=1x&c", &[]),
        ("/query?b&c=1", &[]),
        ("/query?c", &[]),
        ("/query?a=&a=1&c=2", &[]),
        ("/query?%61=1&c", &[]),
        ("/cookie", &["cookie: a=1"]),
        ("/cookie", &["cookie: z=1; a=1"]),
        ("/cookie", &["cookie: a=2; b=1"]),
        ("/cookie", &["cookie: a=2", "cookie: a=1; b=1"]),
        ("/cookie", &["cookie: a=\"1\"; b=1"]),
        ("/cookie", &[]),
        ("/key", &[]),
        ("/off-key", &[]),
        ("/re/b", &[]),
        ("/case/x", &[]),
    ];
    for (path, lines) in lines {
        let name = leak(format!("match {path} {}", lines.join(" ")));
        cases.push(get(name, "2.6 match kinds", "matchers", path, lines));
    }
    for lines in [&["x-vhost: a"][..], &["x-vhost: A"], &["x-vhost: b"], &[], &["x-vhost:"], &["host: a"]] {
        let name = leak(format!("vhost header {}", lines.join(" ")));
        cases.push(get(name, "2.6 vhost_header", "vhost_header", "/", lines));
    }
    cases.push(get("body size", "2.6 max_direct_response_body_size_bytes", "body_size", "/", &[]).status(200));
    cases
}

fn rewrite_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for listener in ["rewrites", "suppressed"] {
        for (path, lines) in [
            ("/template/x?q=1", &["x-a: b"][..]),
            ("/template/x?q=1", &[]),
            ("/two/a/b/c?d/e", &[]),
            ("/two/a", &[]),
            ("/whole/a?b", &[]),
            ("/host-template", &["x-a: b"]),
            ("/host-template", &[]),
            ("/xfh", &["x-forwarded-host: before"]),
            ("/xfh", &["x-forwarded-host: test"]),
            ("/auto-xfh", &[]),
            ("/auto-unnamed", &[]),
            ("/ANYCASE/x", &[]),
            ("/sep", &[]),
            ("/sep/x?y", &[]),
            ("/rp/x?y", &[]),
            ("/weighted-key", &[]),
            ("/weighted-header", &["x-random: 3"]),
            ("/weighted-header", &["x-random: 77"]),
            ("/weighted-by", &["x-cluster: up2"]),
            ("/weighted-by", &["x-cluster: nope"]),
            ("/weighted-by", &[]),
            ("/weighted-host", &[]),
            ("/r-template/x?q=1", &["x-a: b"]),
            ("/r-all?q=1", &[]),
            ("/r-remove/x?q=1", &[]),
            ("/edit-host", &["user-agent: u"]),
        ] {
            let name = leak(format!("{listener} {path} {}", lines.join(" ")));
            cases.push(get(name, "2.6 rewrites", listener, path, lines));
        }
    }
    cases.push(case(
        "absolute form",
        "2.6 rewrites",
        "rewrites",
        request("GET", "http://abs.test/xfh?a", &["host: other.test"]),
    ));
    cases
}

fn leak(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

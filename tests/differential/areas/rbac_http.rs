//! Reference 2.10: `envoy.filters.http.rbac`, which requests may pass.

use super::{clusters, routed};
use crate::manifest::{Area, Case, case, get, h2, request};
use crate::support::bootstrap::access_log;
use crate::support::h2_client::H2Request;

const ROW: &str = "2.10 rbac";
const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// Shows what was written down.
const SHOW: &str = "response_headers_to_add: [{header: {key: x-rbac, value: '%DYNAMIC_METADATA(envoy.filters.http.rbac)%'}}, \
                    {header: {key: x-hint, value: '%DYNAMIC_METADATA(envoy.common:access_log_hint)%'}}]";

/// The same for the log, which also knows of answers that are denials.
fn log(name: &str) -> String {
    access_log(name).replace(
        "code=",
        "rbac=%DYNAMIC_METADATA(envoy.filters.http.rbac)% hint=%DYNAMIC_METADATA(envoy.common)% code=",
    )
}

/// Rules by name, asked by the routes of these names: who may pass.
const RULES: &[(&str, &str, &str)] = &[
    ("header", "{header: {name: x, string_match: {exact: a}}}", "{any: true}"),
    ("header-principal", "{any: true}", "{header: {name: x, string_match: {prefix: a}, invert_match: true}}"),
    ("method", "{header: {name: ':method', string_match: {exact: POST}}}", "{any: true}"),
    ("authority", "{header: {name: ':authority', string_match: {exact: test}}}", "{any: true}"),
    ("scheme", "{header: {name: ':scheme', string_match: {exact: http}}}", "{any: true}"),
    ("path", "{url_path: {path: {exact: /path/a}}}", "{any: true}"),
    ("path-case", "{url_path: {path: {prefix: /PATH-CASE/A, ignore_case: true}}}", "{any: true}"),
    ("path-regex", "{any: true}", "{url_path: {path: {safe_regex: {regex: '/path-regex/[0-9]+'}}}}"),
    ("path-header", "{header: {name: ':path', string_match: {exact: /path-header/a}}}", "{any: true}"),
    ("to", "{destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}", "{any: true}"),
    ("to-other", "{destination_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}", "{any: true}"),
    ("port", "{destination_port: 1}", "{any: true}"),
    ("ports", "{destination_port_range: {start: 2, end: 65536}}", "{any: true}"),
    ("ports-none", "{destination_port_range: {start: 1, end: 2}}", "{any: true}"),
    ("name", "{requested_server_name: {exact: ''}}", "{any: true}"),
    ("name-none", "{requested_server_name: {exact: a}}", "{any: true}"),
    ("not", "{not_rule: {header: {name: x, present_match: true}}}", "{any: true}"),
    (
        "all",
        "{and_rules: {rules: [{header: {name: x, present_match: true}}, {header: {name: w, present_match: true}}]}}",
        "{any: true}",
    ),
    (
        "either",
        "{or_rules: {rules: [{header: {name: x, present_match: true}}, {header: {name: w, present_match: true}}]}}",
        "{any: true}",
    ),
    (
        "ids",
        "{any: true}",
        "{and_ids: {ids: [{not_id: {header: {name: x, present_match: true}}}, {or_ids: {ids: [{header: {name: w, present_match: true}}, {header: {name: z, present_match: true}}]}}]}}",
    ),
    ("client", "{any: true}", "{remote_ip: {address_prefix: 9.9.9.9, prefix_len: 32}}"),
    ("source", "{any: true}", "{source_ip: {address_prefix: 9.9.9.9, prefix_len: 32}}"),
    ("peer", "{any: true}", "{direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}"),
    ("tls", "{any: true}", "{authenticated: {}}"),
    ("not-tls", "{any: true}", "{not_id: {authenticated: {principal_name: {exact: a}}}}"),
    (
        "mtls",
        "{any: true}",
        r#"{custom: {name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config, any_validated_client_certificate: true}}}"#,
    ),
    ("state", "{any: true}", "{filter_state: {key: envoy.tcp_proxy.cluster, string_match: {exact: a}}}"),
    (
        "route-metadata",
        "{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: own, path: [{key: k}], value: {string_match: {exact: route-metadata}}}}}",
        "{any: true}",
    ),
    (
        "route-metadata-not",
        "{any: true}",
        "{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: own, path: [{key: k}], value: {present_match: true}, invert: true}}}",
    ),
    (
        "route-metadata-deep",
        "{sourced_metadata: {metadata_source: ROUTE, metadata_matcher: {filter: own, path: [{key: o}, {key: l}], value: {list_match: {one_of: {double_match: {range: {start: 2, end: 3}}}}}}}}",
        "{any: true}",
    ),
    (
        "dynamic-metadata",
        "{metadata: {filter: envoy.filters.http.rbac, path: [{key: enforced_engine_result}], value: {string_match: {exact: allowed}}}}",
        "{any: true}",
    ),
    (
        "dynamic-metadata-none",
        "{any: true}",
        "{sourced_metadata: {metadata_matcher: {filter: none, path: [{key: k}], value: {null_match: {}}}}}",
    ),
];

fn policies(action: &str, policies: &[(&str, &str, &str)]) -> String {
    let policy =
        |(name, may, who): &(&str, &str, &str)| format!("'{name}': {{permissions: [{may}], principals: [{who}]}}");
    let policies: Vec<_> = policies.iter().map(policy).collect();
    format!("{{action: {action}, policies: {{{}}}}}", policies.join(", "))
}

/// `http_filters` with these before the router, by name.
fn chain(filters: &[(&str, &str)]) -> String {
    let filters: String = filters
        .iter()
        .map(|(name, settings)| {
            format!(r#"{{name: {name}, typed_config: {{"@type": {TYPE}.rbac.v3.RBAC, {settings}}}}}, "#)
        })
        .collect();
    format!(r#"http_filters: [{filters}{{name: router, typed_config: {{"@type": {TYPE}.router.v3.Router}}}}]"#)
}

fn per_route(name: &str, settings: &str) -> String {
    format!(r#"typed_per_filter_config: {{{name}: {{"@type": {TYPE}.rbac.v3.RBACPerRoute, {settings}}}}}"#)
}

fn by_header(name: &str) -> String {
    format!(
        "{{name: i, typed_config: {{'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: {name}}}}}"
    )
}

fn by(input: &str) -> String {
    format!(
        "{{name: i, typed_config: {{'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.{input}}}}}"
    )
}

fn is(input: &str, text: &str) -> String {
    format!("{{single_predicate: {{input: {input}, value_match: {{exact: '{text}'}}}}}}")
}

fn action(name: &str, action: &str) -> String {
    format!(
        "{{action: {{name: a, typed_config: {{'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: '{name}', action: {action}}}}}}}"
    )
}

fn field_list(fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(predicate, on_match)| format!("{{predicate: {predicate}, on_match: {on_match}}}"))
        .collect();
    format!("matcher_list: {{matchers: [{}]}}", fields.join(", "))
}

/// Conditions about the header `x`, and what each comes to.
fn tree_of_lists() -> String {
    let x = by_header("x");
    let inner = field_list(&[(&is(&by_header("z"), "1"), &action("inner", "ALLOW"))]);
    let either = format!("{{or_matcher: {{predicate: [{}, {}]}}}}", is(&x, "e"), is(&x, "f"));
    let both = format!("{{and_matcher: {{predicate: [{}, {}]}}}}", is(&x, "g"), is(&by_header("w"), "1"));
    let prefix = format!("{{single_predicate: {{input: {x}, value_match: {{prefix: PRE, ignore_case: true}}}}}}");
    let regex = format!(
        "{{single_predicate: {{input: {x}, value_match: {{safe_regex: {{google_re2: {{}}, regex: '[0-9]+'}}}}}}}}"
    );
    field_list(&[
        (&is(&x, "a"), &action("a", "ALLOW")),
        (&is(&x, "b"), &action("b c", "DENY")),
        (&is(&x, "c"), &action("c", "LOG")),
        (&is(&x, "d"), &format!("{{matcher: {{{inner}}}}}")),
        (&either, &action("either", "ALLOW")),
        (&both, &action("both", "ALLOW")),
        (
            &format!("{{not_matcher: {}}}", is(&by_header("m"), "1")),
            &format!("{{matcher: {{{}}}}}", field_list(&[(&is(&x, "n"), &action("not", "ALLOW"))])),
        ),
        (&prefix, &action("prefix", "ALLOW")),
        (&regex, &action("regex", "ALLOW")),
        (&is(&x, "d"), &action("outer", "ALLOW")),
    ])
}

fn table(kind: &str) -> String {
    let dead_end = format!("{{matcher: {{{}}}}}", field_list(&[(&is(&by_header("z"), "1"), &action("z", "ALLOW"))]));
    let (a, ab) = (action("a", "ALLOW"), action("ab", "ALLOW"));
    format!("matcher_tree: {{input: {}, {kind}: {{map: {{a: {a}, ab: {ab}, abc: {dead_end}}}}}}}", by_header("x"))
}

/// Conditions about the connection, one after the other as `x` says.
fn tree_of_connections() -> String {
    let when =
        |x: &str, predicate: &str| format!("{{and_matcher: {{predicate: [{}, {predicate}]}}}}", is(&by_header("x"), x));
    let ranges = |input: &str, range: &str| {
        format!(
            "{{single_predicate: {{input: {}, custom_match: {{name: ip, typed_config: {{'@type': type.googleapis.com/envoy.extensions.matching.input_matchers.ip.v3.Ip, stat_prefix: ip, cidr_ranges: [{{address_prefix: {range}, prefix_len: 8}}]}}}}}}}}",
            by(input)
        )
    };
    field_list(&[
        (&when("to", &is(&by("network.v3.DestinationIPInput"), "127.0.0.1")), &action("to", "ALLOW")),
        (&when("port", &is(&by("network.v3.DestinationPortInput"), "1")), &action("port", "ALLOW")),
        (&when("from", &is(&by("network.v3.SourceIPInput"), "9.9.9.9")), &action("from", "ALLOW")),
        (&when("direct", &is(&by("network.v3.DirectSourceIPInput"), "127.0.0.1")), &action("direct", "ALLOW")),
        (&when("name", &is(&by("network.v3.ServerNameInput"), "a")), &action("name", "ALLOW")),
        (&when("range", &ranges("network.v3.SourceIPInput", "127.0.0.0")), &action("range", "ALLOW")),
    ])
}

fn tree_of_certificates() -> String {
    let header = |x: &str, input: &str| {
        format!("{{and_matcher: {{predicate: [{}, {}]}}}}", is(&by_header("x"), x), is(&by(input), "a"))
    };
    field_list(&[
        (&header("uri", "ssl.v3.UriSanInput"), &action("uri", "DENY")),
        (&header("dns", "ssl.v3.DnsSanInput"), &action("dns", "DENY")),
        (&header("subject", "ssl.v3.SubjectInput"), &action("subject", "DENY")),
    ])
}

/// The area.
pub fn area() -> Area {
    let x = "{header: {name: x, present_match: true}}";
    let y = "{header: {name: w, present_match: true}}";
    let any = "{any: true}";
    let all =
        format!(r#"{{name: all, domains: ["*"], {SHOW}, routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}"#);
    let routed = |name: &'static str, filters: &str, virtual_host: &str| {
        routed(name, &format!("{filters}, access_log: [{}]", log(name)), virtual_host)
    };
    let one = |name: &'static str, settings: &str| routed(name, &chain(&[("own", settings)]), &all);
    let rules = |action: &str, may: &str| format!("rules: {}", policies(action, &[("p", may, any)]));
    let shadow = |action: &str, may: &str| format!("shadow_rules: {}", policies(action, &[("s", may, any)]));

    let by_rule = RULES.iter().map(|(name, may, who)| {
        let rules = per_route("own", &format!("rbac: {{rules: {}}}", policies("ALLOW", &[(name, may, who)])));
        let metadata = format!("metadata: {{filter_metadata: {{own: {{k: {name}, o: {{l: [1, 2]}}}}}}}}");
        format!("{{match: {{prefix: /{name}/}}, route: {{cluster: up}}, {metadata}, {rules}}}")
    });
    let by_rule =
        format!(r#"{{name: all, domains: ["*"], {SHOW}, routes: [{}]}}"#, by_rule.collect::<Vec<_>>().join(", "));
    let denies =
        |more: &str| per_route("own", &format!("rbac: {{rules: {}{more}}}", policies("DENY", &[("r", any, any)])));
    let prefixed =
        ", rules_stat_prefix: rs_, shadow_rules_stat_prefix: rsh_, track_per_rule_stats: true, shadow_rules: ";
    let levels = format!(
        r#"{{name: all, domains: ["*"], {SHOW}, routes: [
          {{match: {{prefix: /off}}, route: {{cluster: up}}, {off}}},
          {{match: {{prefix: /disabled}}, route: {{cluster: up}}, typed_per_filter_config: {{own: {{"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}}}},
          {{match: {{prefix: /deny}}, route: {{cluster: up}}, {deny}}},
          {{match: {{prefix: /prefixed}}, route: {{cluster: up}}, {prefixed}}},
          {{match: {{prefix: /empty}}, route: {{cluster: up}}, {empty}}},
          {{match: {{prefix: /shadow}}, route: {{cluster: up}}, {shadow}}},
          {{match: {{prefix: /redirect}}, redirect: {{path_redirect: /x}}, {deny}}},
          {{match: {{prefix: /direct}}, direct_response: {{status: 202}}, {deny}}},
          {{match: {{prefix: /weighted}}, route: {{weighted_clusters: {{clusters: [{{name: up, weight: 1, {deny}}}]}}}}}},
          {{match: {{prefix: /own}}, route: {{cluster: up}}}}]}}"#,
        off = per_route("own", ""),
        deny = denies(""),
        prefixed = denies(&format!("{prefixed}{}", policies("DENY", &[("rs", any, any)]))),
        empty = per_route("own", "rbac: {}"),
        shadow = per_route("own", &format!("rbac: {{shadow_rules: {}}}", policies("DENY", &[("rs", any, any)]))),
    )
    .replace('\n', " ");
    let own = format!("rules_stat_prefix: own_, {}, {}", rules("DENY", y), shadow("DENY", x));
    let replies = r#"local_reply_config: {mappers: [{filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 403, runtime_key: none}}}}, status_code: 430, body: {inline_string: mapped}}]}"#;
    let listeners = vec![
        one("none", ""),
        one("empty", "rules: {}"),
        one("allow", &rules("ALLOW", x)),
        one("deny", &rules("DENY", x)),
        one("log", &rules("LOG", x)),
        one("shadow", &shadow("ALLOW", x)),
        one("shadow_log", &shadow("LOG", x)),
        one("both", &format!("{}, {}", rules("DENY", y), shadow("ALLOW", x))),
        one(
            "prefixes",
            &format!(
                "rules_stat_prefix: en_, shadow_rules_stat_prefix: sh., {}, {}",
                rules("DENY", y),
                shadow("ALLOW", x)
            ),
        ),
        one("tracked", &format!("track_per_rule_stats: true, {}, {}", rules("DENY", y), shadow("ALLOW", x))),
        one(
            "tracked_prefixes",
            &format!(
                "track_per_rule_stats: true, rules_stat_prefix: en., shadow_rules_stat_prefix: sh_, {}, {}",
                rules("ALLOW", x),
                shadow("DENY", x)
            ),
        ),
        one("order", &format!("rules: {}", policies("DENY", &[("b", any, any), ("a b", x, any), ("B", y, any)]))),
        one("tree", &format!("matcher: {{{}}}", tree_of_lists())),
        one("tree_rest", &format!("matcher: {{{}, on_no_match: {}}}", tree_of_lists(), action("rest", "ALLOW"))),
        one("tree_shadow", &format!("shadow_matcher: {{{}}}, track_per_rule_stats: true", tree_of_lists())),
        one(
            "tree_first",
            &format!("matcher: {{{}}}, rules: {}", tree_of_lists(), policies("DENY", &[("p", any, any)])),
        ),
        one("tree_empty", "matcher: {}"),
        one(
            "tree_quiet",
            &format!("matcher: {{{}}}", field_list(&[(&is(&by_header("x"), "a"), &action("a", "DENY"))])),
        ),
        one("exact", &format!("matcher: {{{}, on_no_match: {}}}", table("exact_match_map"), action("rest", "DENY"))),
        one("prefix", &format!("matcher: {{{}, on_no_match: {}}}", table("prefix_match_map"), action("rest", "DENY"))),
        routed(
            "tree_connection",
            // There is another field of this name.
            &format!(
                "stat_prefix: tree_connection, {}",
                chain(&[("own", &format!("matcher: {{{}}}", tree_of_connections()))])
            ),
            &all,
        ),
        one(
            "tree_certificate",
            &format!("matcher: {{{}, on_no_match: {}}}", tree_of_certificates(), action("rest", "ALLOW")),
        ),
        routed("two", &chain(&[("own", &rules("LOG", x)), ("more", &rules("LOG", y))]), &all),
        routed("stop", &chain(&[("own", &rules("DENY", x)), ("more", &rules("DENY", y))]), &all),
        routed("mapped", &format!("{}, {replies}", chain(&[("own", &rules("DENY", any))])), &all),
        routed("rules", &chain(&[("first", &rules("LOG", any)), ("own", "")]), &by_rule),
        routed("levels", &chain(&[("own", &own)]), &levels),
    ];
    Area { name: "rbac_http", listeners, clusters: clusters(), more: "", cases: cases() }
}

fn cases() -> Vec<Case> {
    let ask = |name, listener, path: &str, lines: &[&str]| get(name, ROW, listener, path, lines);
    let mut cases = vec![
        ask("no rules", "none", "/", &[]),
        ask("empty rules", "empty", "/", &[]),
        ask("allowed", "allow", "/", &["x: 1"]),
        ask("not allowed", "allow", "/", &[]),
        ask("denied", "deny", "/", &["x: 1"]),
        ask("not denied", "deny", "/", &[]),
        ask("logged", "log", "/", &["x: 1"]),
        ask("not logged", "log", "/", &[]),
        ask("shadow allows", "shadow", "/", &["x: 1"]),
        ask("shadow denies", "shadow", "/", &[]),
        ask("shadow logs", "shadow_log", "/", &["x: 1"]),
        ask("both", "both", "/", &["x: 1", "w: 1"]),
        ask("neither", "both", "/", &[]),
        ask("prefixes", "prefixes", "/", &["x: 1", "w: 1"]),
        ask("prefixes, nothing matches", "prefixes", "/", &[]),
        ask("tracked", "tracked", "/", &["x: 1", "w: 1"]),
        ask("tracked, nothing matches", "tracked", "/", &[]),
        ask("tracked by prefixes", "tracked_prefixes", "/", &["x: 1"]),
        ask("first by name", "order", "/", &["x: 1"]),
        ask("first by name, upper case", "order", "/", &["x: 1", "w: 1"]),
        ask("last by name", "order", "/", &[]),
        ask("two filters, the first", "two", "/", &["x: 1"]),
        ask("two filters, the second", "two", "/", &["w: 1"]),
        ask("stops at the first", "stop", "/", &["x: 1", "w: 1"]),
        ask("stops at the second", "stop", "/", &["w: 1"]),
        ask("mapped", "mapped", "/", &[]),
        case("head", ROW, "deny", request("HEAD", "/", &["x: 1"])),
        case("body", ROW, "deny", [request("POST", "/", &["x: 1", "content-length: 3"]), b"abc".to_vec()].concat()),
        ask("grpc", "deny", "/", &["x: 1", "content-type: application/grpc"]),
        h2("http2", ROW, "deny", vec![H2Request::get("/").header("x", "1"), H2Request::get("/")]),
    ];
    for (name, listener, lines) in [
        ("tree allows", "tree", &["x: a"][..]),
        ("tree denies", "tree", &["x: b"]),
        ("tree logs", "tree", &["x: c"]),
        ("tree within", "tree", &["x: d", "z: 1"]),
        ("tree without", "tree", &["x: d"]),
        ("tree, either", "tree", &["x: f"]),
        ("tree, both", "tree", &["x: g", "w: 1"]),
        ("tree, not both", "tree", &["x: g"]),
        ("tree, not", "tree", &["x: n"]),
        ("tree, not not", "tree", &["x: n", "m: 1"]),
        ("tree by prefix", "tree", &["x: prefixed"]),
        ("tree by expression", "tree", &["x: 12"]),
        ("tree of two values", "tree", &["x: a", "x: a"]),
        ("tree says nothing", "tree", &["x: z"]),
        ("tree sees nothing", "tree", &[]),
        ("tree has a rest", "tree_rest", &["x: z"]),
        ("tree has a rest, unused", "tree_rest", &["x: b"]),
        ("tree in the shadow", "tree_shadow", &["x: b"]),
        ("tree in the shadow logs", "tree_shadow", &["x: c"]),
        ("tree in the shadow says nothing", "tree_shadow", &["x: z"]),
        ("tree before rules", "tree_first", &["x: a"]),
        ("tree is empty", "tree_empty", &["x: a"]),
        ("tree never logs", "tree_quiet", &["x: a"]),
        ("table", "exact", &["x: ab"]),
        ("table, too long", "exact", &["x: abx"]),
        ("table, dead end", "exact", &["x: abc"]),
        ("table, nothing", "exact", &[]),
        ("tree of prefixes", "prefix", &["x: abx"]),
        ("prefixes, dead end", "prefix", &["x: abcd"]),
        ("prefixes, no dead end", "prefix", &["x: abcd", "z: 1"]),
        ("prefixes, none", "prefix", &["x: z"]),
        ("tree by destination", "tree_connection", &["x: to"]),
        ("tree by port", "tree_connection", &["x: port"]),
        ("tree by client", "tree_connection", &["x: from", "x-forwarded-for: 9.9.9.9"]),
        ("tree by peer", "tree_connection", &["x: direct", "x-forwarded-for: 9.9.9.9"]),
        ("tree by server name", "tree_connection", &["x: name"]),
        ("tree by range", "tree_connection", &["x: range"]),
        ("tree by URI", "tree_certificate", &["x: uri"]),
        ("tree by DNS name", "tree_certificate", &["x: dns"]),
        ("tree by subject", "tree_certificate", &["x: subject"]),
        ("tree by nothing of these", "tree_certificate", &["x: z"]),
    ] {
        cases.push(ask(name, listener, "/", lines));
    }
    for (name, path) in [
        ("route switches off", "/off"),
        ("route disables", "/disabled"),
        ("route denies", "/deny"),
        ("route has prefixes", "/prefixed"),
        ("route has no rules", "/empty"),
        ("route has shadow rules", "/shadow"),
        ("route redirects", "/redirect"),
        ("route answers", "/direct"),
        ("weighted cluster denies", "/weighted"),
        ("route says nothing", "/own"),
        ("no route", "/nowhere"),
    ] {
        cases.push(ask(name, "levels", path, &["x: 1", "w: 1"]));
    }
    for (name, path, lines) in [
        ("header", "/header/", &["x: a"][..]),
        ("header differs", "/header/", &["x: b"]),
        ("header missing", "/header/", &[]),
        ("header twice", "/header/", &["x: a", "x: a"]),
        ("principal's header", "/header-principal/", &["x: ab"]),
        ("principal's header differs", "/header-principal/", &["x: b"]),
        ("principal's header missing", "/header-principal/", &[]),
        ("method", "/method/", &[]),
        ("authority", "/authority/", &[]),
        ("authority differs", "/authority/", &["host: other"]),
        ("scheme", "/scheme/", &[]),
        ("path", "/path/a", &[]),
        ("path and query", "/path/a?b=c", &[]),
        ("path differs", "/path/b", &[]),
        ("path normalized", "/path/x/../a", &[]),
        ("path escaped", "/path/%61", &[]),
        ("path ignoring case", "/path-case/abc", &[]),
        ("path by expression", "/path-regex/12?a", &[]),
        ("path by expression, more", "/path-regex/12a", &[]),
        ("path as header", "/path-header/a", &[]),
        ("path as header with a query", "/path-header/a?b", &[]),
        ("destination", "/to/", &[]),
        ("another destination", "/to-other/", &[]),
        ("port", "/port/", &[]),
        ("ports", "/ports/", &[]),
        ("other ports", "/ports-none/", &[]),
        ("no server name", "/name/", &[]),
        ("server name", "/name-none/", &[]),
        ("not", "/not/", &[]),
        ("not not", "/not/", &["x: 1"]),
        ("all", "/all/", &["x: 1", "w: 1"]),
        ("not all", "/all/", &["w: 1"]),
        ("either", "/either/", &["w: 1"]),
        ("not either", "/either/", &[]),
        ("ids", "/ids/", &["z: 1"]),
        ("ids, one too many", "/ids/", &["x: 1", "z: 1"]),
        ("ids, none", "/ids/", &[]),
        ("client", "/client/", &["x-forwarded-for: 9.9.9.9"]),
        ("client, the peer", "/client/", &[]),
        ("source", "/source/", &["x-forwarded-for: 9.9.9.9"]),
        ("peer", "/peer/", &["x-forwarded-for: 9.9.9.9"]),
        ("tls", "/tls/", &[]),
        ("not by tls", "/not-tls/", &[]),
        ("mtls", "/mtls/", &[]),
        ("filter state", "/state/", &[]),
        ("route's metadata", "/route-metadata/", &[]),
        ("not the route's metadata", "/route-metadata-not/", &[]),
        ("deep in the route's metadata", "/route-metadata-deep/", &[]),
        ("dynamic metadata", "/dynamic-metadata/", &[]),
        ("no dynamic metadata", "/dynamic-metadata-none/", &[]),
    ] {
        cases.push(ask(name, "rules", path, lines));
    }
    cases.push(case("another method", ROW, "rules", request("POST", "/method/", &["content-length: 0"])));
    cases
}

//! RBAC's rules about who calls: principals, permissions by the name that was asked for, and trees of matchers.

const MTLS: &str = "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
const SSL: &str = "type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3";
const ACTION: &str = "type.googleapis.com/envoy.config.rbac.v3.Action";

/// Principals, and a name for each.
fn principals() -> Vec<(&'static str, String)> {
    let named = |matcher: &str| format!("{{authenticated: {{principal_name: {{{matcher}}}}}}}");
    let mtls = |fields: &str| format!("{{custom: {{name: m, typed_config: {{'@type': {MTLS}, {fields}}}}}}}");
    let san = |kind: &str, matcher: &str| mtls(&format!("san_matcher: {{san_type: {kind}, matcher: {{{matcher}}}}}"));
    vec![
        ("anybody", "{authenticated: {}}".to_owned()),
        ("nobody", "{not_id: {authenticated: {}}}".to_owned()),
        ("uri", named("exact: 'spiffe://td/cli'")),
        ("uri-second", named("exact: 'spiffe://td/two,three'")),
        ("uri-prefix", named("prefix: 'spiffe://'")),
        ("uri-regex", named("safe_regex: {regex: 'spiffe://td/[a-z]+'}")),
        ("dns", named("exact: cli.test")),
        ("dns-case", named("exact: CLI.TEST, ignore_case: true")),
        ("subject", named("contains: 'CN='")),
        ("subject-whole", named("exact: 'CN=nosan,O=Org'")),
        ("subject-other-order", named("exact: 'O=Org,CN=nosan'")),
        ("subject-quoted", named(r"contains: 'a\,b\+c'")),
        ("subject-foreign", named(r"contains: 'Zo'")),
        ("email", named("exact: a@b.c")),
        ("nameless", named("exact: ''")),
        ("not-uri", "{not_id: {authenticated: {principal_name: {exact: 'spiffe://td/cli'}}}}".to_owned()),
        ("checked", mtls("any_validated_client_certificate: true")),
        ("checked-uri", san("URI", "exact: 'spiffe://td/cli'")),
        ("checked-dns", san("DNS", "exact: CLI.test")),
        ("checked-dns-suffix", san("DNS", "suffix: .test")),
        ("checked-dns-wild", san("DNS", "exact: a.wild.test")),
        ("checked-email", san("EMAIL", "exact: a@b.c")),
        ("checked-ip", san("IP_ADDRESS", "exact: 10.0.0.1")),
        ("checked-ip6", san("IP_ADDRESS", "exact: '2001:db8::1'")),
        ("checked-other", san("URI", "exact: cli.test")),
        (
            "checked-othername",
            mtls("san_matcher: {san_type: OTHER_NAME, oid: '1.3.6.1.4.1.311.20.2.3', matcher: {prefix: 'upn@'}}"),
        ),
    ]
}

/// Whole engines by name: `rules` and `matcher` of RBAC.
pub fn engines(http: bool) -> Vec<(&'static str, String)> {
    let rules = |policies: &str| format!("rules: {{action: ALLOW, policies: {{{policies}}}}}");
    let mut engines: Vec<_> = principals()
        .into_iter()
        .map(|(name, it)| (name, rules(&format!("p: {{permissions: [{{any: true}}], principals: [{it}]}}"))))
        .collect();
    let permission = |it: &str| rules(&format!("p: {{permissions: [{it}], principals: [{{any: true}}]}}"));
    engines.push(("name-exact", permission("{requested_server_name: {exact: srv.test}}")));
    engines.push(("name-case", permission("{requested_server_name: {exact: SRV.test}}")));
    engines.push(("name-none", permission("{requested_server_name: {exact: ''}}")));
    engines.push(("name-suffix", permission("{requested_server_name: {suffix: .test}}")));
    engines.push((
        "deny",
        "rules: {action: DENY, policies: {b: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {prefix: 'spiffe://td/c'}}}]}, \
         a: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {prefix: 'spiffe://'}}}]}}}"
            .to_owned(),
    ));
    if http {
        engines.push((
            "log",
            "rules: {action: LOG, policies: {a: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {prefix: 'spiffe://'}}}]}}}"
                .to_owned(),
        ));
    }
    let input = |kind: &str| format!("{{name: i, typed_config: {{'@type': {SSL}.{kind}Input}}}}");
    let action = |name: &str, action: &str| {
        format!("{{action: {{name: a, typed_config: {{'@type': {ACTION}, name: {name}, action: {action}}}}}}}")
    };
    let tree = |kind: &str, how: &str, key: &str| {
        format!(
            "matcher: {{matcher_tree: {{input: {}, {how}: {{map: {{'{key}': {}}}}}}}}}",
            input(kind),
            action("found", "ALLOW")
        )
    };
    engines.push(("tree-uri", tree("UriSan", "exact_match_map", "spiffe://td/cli")));
    engines.push(("tree-uri-prefix", tree("UriSan", "prefix_match_map", "spiffe://td/")));
    engines.push(("tree-dns", tree("DnsSan", "exact_match_map", "cli.test")));
    engines.push(("tree-subject", tree("Subject", "exact_match_map", "CN=nosan,O=Org")));
    engines.push(("tree-subject-prefix", tree("Subject", "prefix_match_map", "CN=")));
    let list = |input: &str, matcher: &str, otherwise: &str| {
        format!(
            "matcher: {{matcher_list: {{matchers: [{{predicate: {{single_predicate: {{input: {input}, value_match: {{{matcher}}}}}}}, \
             on_match: {}}}]}}{otherwise}}}",
            action("found", "ALLOW")
        )
    };
    engines.push(("list-uri", list(&input("UriSan"), "contains: two", "")));
    engines.push((
        "list-dns",
        list(&input("DnsSan"), "exact: cli.test", &format!(", on_no_match: {}", action("otherwise", "DENY"))),
    ));
    engines.push((
        "list-subject",
        list(&input("Subject"), "prefix: 'CN='", &format!(", on_no_match: {}", action("otherwise", "ALLOW"))),
    ));
    let asked = format!("{{name: i, typed_config: {{'@type': {NETWORK}.ServerNameInput}}}}");
    engines.push(("list-name", list(&asked, "exact: srv.test", "")));
    engines
}

/// The same as rules that are only counted.
pub fn shadow(engine: &str) -> String {
    format!("shadow_{engine}")
}

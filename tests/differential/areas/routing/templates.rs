//! Paths by template: in routes and their rewrites, in RBAC, in the rules of `jwt_authn`.

use super::{leak, routed};
use crate::manifest::{Case, get};

/// What is matched, and what becomes of it.
const ROUTES: &[(&str, &str)] = &[
    ("/a/{b}", "/x/{b}"),
    ("/v/{a}/{b=*}/**", "/{b}/{a}"),
    ("/all/{rest=**}", "/{rest}"),
    ("/img/{name=**}.js", "/{name}/{name}"),
    ("/mixed/a-{b}.c/d", "/{b}"),
    ("/stars/a*", "/s"),
    ("/op/*b", "/o*="),
    ("/var/{x=y/*/z}", "/{x}/x"),
    ("/none/a**", "{}"),
    ("/slash/", "/s/"),
    ("/lit/(a).$b+", "/{}"),
];

fn matcher(template: &str) -> String {
    format!(
        r#"{{name: envoy.path.match.uri_template.uri_template_matcher, typed_config: {{"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: "{template}"}}}}"#
    )
}

/// The listener.
pub(super) fn listener() -> (&'static str, String) {
    let route = |(template, new): &(&str, &str)| {
        // What is no new path is left out.
        let rewrite = if new.contains("{}") {
            String::new()
        } else {
            format!(
                r#", path_rewrite_policy: {{name: envoy.path.rewrite.uri_template.uri_template_rewriter, typed_config: {{"@type": type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: "{new}"}}}}"#
            )
        };
        format!(
            "{{name: '{template}', match: {{path_match_policy: {}}}, route: {{cluster: up{rewrite}}}}}",
            matcher(template)
        )
    };
    let routes: Vec<String> = ROUTES.iter().map(route).collect();
    let filters = format!(
        r#"http_filters: [
        {{name: rbac, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {{action: DENY, policies: {{p: {{principals: [{{any: true}}], permissions: [{{uri_template: {}}}]}}}}}}}}}},
        {{name: jwt, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication, providers: {{p: {{local_jwks: {{inline_string: '{{"keys": [{{"kty": "oct", "k": "YWJj"}}]}}'}}}}}}, rules: [{{match: {{path_match_policy: {}}}, requires: {{provider_name: p}}}}]}}}},
        {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]"#,
        matcher("/a/denied-{who}"),
        matcher("/all/{who}/token"),
    );
    let hosts = format!(r#"{{name: v, domains: ["*"], routes: [{}]}}"#, routes.join(", "));
    routed("templates", &filters, &hosts)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let paths = [
        "/a/b",
        "/a/b?q=/c",
        "/a/b#f",
        "/a/",
        "/a/b/",
        "/a/b/c",
        "/a/b;p=1",
        "/a/%20",
        "/a/[",
        "/v/1/2/3/4?q",
        "/v/1/2/",
        "/v/1/2",
        "/all/",
        "/all",
        "/all/x/y/z?q=1",
        "/all//x",
        "/img/x/y.js",
        "/img/.js",
        "/img/yjs",
        "/mixed/a-q.c/d",
        "/mixed/a-.c/d",
        "/mixed/a-qxc/d",
        "/stars/",
        "/stars/aaa",
        "/stars/ab",
        "/op/xb",
        "/op/b",
        "/var/y/q/z?a",
        "/var/y/z",
        "/none/a",
        "/none/a**",
        "/slash/",
        "/slash",
        "/lit/(a).$b+",
        "/lit/a.b",
        "/a/denied-me",
        "/a/denied-me?q",
        "/a/denied-",
        "/all/me/token",
        "/all/me/token?q",
        "/all/me/token/",
    ];
    paths.map(|path| get(leak(format!("template {path}")), "2.6 match kinds", "templates", path, &[])).into()
}

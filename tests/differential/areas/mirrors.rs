//! Reference 2.6: `request_mirror_policies`.

use std::time::Duration;

use super::{clusters, routed, upstream};
use crate::manifest::{Area, Case, Step, case, get, h2, steps};
use crate::support::bootstrap::{http_listener, protocol};
use crate::support::h2_client::H2Request;
use crate::support::upstream::Act;

/// The routes: name, `request_mirror_policies`, other fields of the route's action.
const ROUTES: &[(&str, &str, &str)] = &[
    ("once", "{cluster: up2}", ""),
    ("twice", "{cluster: up2}, {cluster: up2}", ""),
    ("kept", "{cluster: up2, disable_shadow_host_suffix_append: true}", ""),
    ("literal", "{cluster: up2, host_rewrite_literal: other.host}", ""),
    (
        "changed",
        "{cluster: up2, request_headers_mutations: [{append: {header: {key: x-m, value: \"v%REQ(:path)%\"}}}, \
         {append: {header: {key: x-m, value: w}, append_action: OVERWRITE_IF_EXISTS}}, {remove: x-gone}, \
         {remove_on_match: {key_matcher: {prefix: x-all}}}]}",
        "",
    ),
    ("never", "{cluster: up2, runtime_fraction: {default_value: {numerator: 0}}}", ""),
    ("always", "{cluster: up2, runtime_fraction: {default_value: {numerator: 100}}}", ""),
    ("switched", "{cluster: up2, runtime_fraction: {default_value: {numerator: 100}, runtime_key: mirror.off}}", ""),
    ("named", "{cluster_header: x-mirror}", ""),
    ("dead", "{cluster: dead}", ""),
    ("h2", "{cluster: h2}", ""),
    ("rewritten", "{cluster: up2}", "prefix_rewrite: /new, host_rewrite_literal: new.host"),
    ("retried", "{cluster: up2}", "retry_policy: {retry_on: 5xx}"),
    ("hurried", "{cluster: up2}", "timeout: 3s, retry_policy: {retry_on: 5xx, per_try_timeout: 1s}"),
    ("endless", "{cluster: up2}", "timeout: 0s"),
    ("inherited", "", ""),
    ("upgrade", "{cluster: up2}", "upgrade_configs: [{upgrade_type: websocket}]"),
];

/// Clusters with policies of their own: name, port, the policies, more HTTP options. Requests whose path begins with the name go
/// there; the route mirrors to a port where nobody listens, which shows if it does.
const MIRRORING: &[(&str, &str, &str, &str)] = &[
    ("own", "${UP}", "{cluster: up2}", ""),
    ("own_twice", "${UP}", "{cluster: up2}, {cluster: up2, host_rewrite_literal: other}", ""),
    (
        "own_changed",
        "${UP}",
        "{cluster: up2, disable_shadow_host_suffix_append: true, request_headers_mutations: \
         [{append: {header: {key: x-m, value: \"v%REQ(:path)%\"}}}, {remove: x-gone}]}",
        "",
    ),
    ("own_never", "${UP}", "{cluster: up2, runtime_fraction: {default_value: {numerator: 0}}}", ""),
    ("own_named", "${UP}", "{cluster_header: x-mirror}", ""),
    ("own_nobody", "${UP}", "{cluster: nobody_knows}", ""),
    ("own_retried", "${UP}", "{cluster: up2}", "retry_policy: {retry_on: 5xx},"),
    ("own_onward", "${UP}", "{cluster: link}", ""),
    ("link", "${DEAD}", "{cluster: up2}", ""),
    ("own_failing", "${UP}", "{cluster: stubborn}", ""),
];

/// The area.
pub fn area() -> Area {
    let routes: Vec<String> = ROUTES
        .iter()
        .map(|(name, policies, more)| {
            let policies =
                if policies.is_empty() { String::new() } else { format!(", request_mirror_policies: [{policies}]") };
            let more = if more.is_empty() { String::new() } else { format!(", {more}") };
            format!(r#"{{name: {name}, match: {{prefix: "/{name}"}}, route: {{cluster: up{more}{policies}}}}}"#)
        })
        .chain(MIRRORING.iter().map(|(name, ..)| {
            format!(
                r#"{{match: {{path_separated_prefix: "/{name}"}}, route: {{cluster: {name}, request_mirror_policies: [{{cluster: dead}}]}}}}"#
            )
        }))
        .collect();
    let host = |more: &str| format!(r#"{{name: all, domains: ["*"], {more} routes: [{}]}}"#, routes.join(", "));
    let table = "route_config: {request_mirror_policies: [{cluster: up2}], virtual_hosts: [{name: all, domains: [\"*\"], \
                 routes: [{name: up, match: {prefix: /}, route: {cluster: up}}]}]}";
    let listeners = vec![
        routed("plain", "", &host("")),
        routed(
            "host",
            "",
            &host("request_mirror_policies: [{cluster: up2, disable_shadow_host_suffix_append: true}],"),
        ),
        ("table", http_listener("table", table, "", "")),
        routed("xff", "use_remote_address: true", &host("")),
    ];
    let more = "layered_runtime: {layers: [{name: s, static_layer: {mirror.off: 0}}]}";
    let own = MIRRORING.iter().map(|(name, port, policies, options)| {
        let options = format!(
            "request_mirror_policies: [{policies}], {options} explicit_http_config: {{http_protocol_options: {{}}}}"
        );
        upstream(name, port, &protocol(&options))
    });
    let stubborn =
        protocol("retry_policy: {retry_on: connect-failure}, explicit_http_config: {http_protocol_options: {}}");
    let clusters = clusters().into_iter().chain(own).chain([upstream("stubborn", "${DEAD}", &stubborn)]).collect();
    Area { name: "mirrors", listeners, clusters, more, cases: cases() }
}

fn cases() -> Vec<Case> {
    let row = "2.6 request_mirror_policies";
    let of_cluster = "3.1 HttpProtocolOptions.request_mirror_policies";
    let own = |name, path: &str, lines: &[&str]| get(name, of_cluster, "plain", path, lines).status(200);
    let plain = |name, path: &str, lines: &[&str]| get(name, row, "plain", path, lines).status(200);
    let send = |text: &str| Act::Send(text.as_bytes().to_vec());
    let post = "POST /once HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello";
    let chunked =
        "POST /once HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let failed = "HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nfail";
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    vec![
        plain("once", "/once", &[]),
        plain("with a port", "/once", &["host: test:81"]),
        plain("twice", "/twice", &[]),
        plain("kept", "/kept", &[]),
        plain("literal", "/literal", &[]),
        plain("changed", "/changed", &["x-gone: 1", "x-all-a: 1", "x-all-b: 2", "x-m: 0"]),
        plain("never", "/never", &[]),
        plain("always", "/always", &[]),
        plain("switched off", "/switched", &[]),
        plain("named", "/named", &["x-mirror: up2"]),
        plain("named nobody", "/named", &["x-mirror: nobody"]),
        plain("not named", "/named", &[]),
        plain("dead", "/dead", &[]),
        plain("h2", "/h2", &[]),
        plain("rewritten", "/rewritten/x?y", &[]),
        plain("hurried", "/hurried", &[]),
        plain("endless", "/endless", &[]),
        plain("not inherited", "/inherited", &[]),
        get("inherited", row, "host", "/inherited", &[]).status(200),
        get("overridden", row, "host", "/once", &[]).status(200),
        get("of the table", row, "table", "/", &[]).status(200),
        get("forwarded for", row, "xff", "/once", &[]).status(200),
        case("head", row, "plain", "HEAD /once HTTP/1.1\r\nhost: test\r\n\r\n").methods(&["HEAD"]),
        case("body", row, "plain", post).status(200),
        case("chunked body", row, "plain", chunked).status(200),
        case(
            "long body",
            row,
            "plain",
            format!("POST /once HTTP/1.1\r\nhost: test\r\ncontent-length: 200000\r\n\r\n{}", "x".repeat(200_000)),
        )
        .status(200),
        plain("retried", "/retried", &[])
            .upstream(vec![vec![Act::Request, send(failed)], vec![Act::Request, send(ok)]]),
        get("failed", row, "plain", "/once", &[]).acts(vec![Act::Request, send(failed)]).status(503),
        get("closed", row, "plain", "/once", &[]).acts(vec![Act::Request, Act::Close]).status(503),
        steps(
            "left in the body",
            row,
            "plain",
            vec![
                Step::Send(b"POST /once HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nabc".to_vec()),
                Step::Pause(Duration::from_millis(60)),
                Step::Reset,
            ],
        ),
        case(
            "upgrade",
            row,
            "plain",
            "GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        ),
        own("own", "/own", &[]),
        own("own twice", "/own_twice", &[]),
        own("own changed", "/own_changed", &["x-gone: 1", "x-m: 0"]),
        own("own never", "/own_never", &[]),
        own("own named", "/own_named", &["x-mirror: up2"]),
        own("own not named", "/own_named", &[]),
        own("own to nobody", "/own_nobody", &[]),
        own("own retried", "/own_retried", &[])
            .upstream(vec![vec![Act::Request, send(failed)], vec![Act::Request, send(ok)]]),
        own("own onward", "/own_onward", &[]),
        own("own failing", "/own_failing", &[]),
        case("own body", of_cluster, "plain", "POST /own HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello"),
        h2("from h2", row, "plain", vec![H2Request::post("http://test/once", "hello")]),
        h2("from h2 to h2", row, "plain", vec![H2Request::post("http://test/h2", "hello")]),
    ]
}

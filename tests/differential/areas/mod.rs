//! The manifest, one file per area.

pub mod addresses;
pub mod clusters;
pub mod ext_authz;
pub mod formats;
pub mod generated;
pub mod h2_clients;
pub mod h2_upstreams;
pub mod headers;
pub mod health_filter;
pub mod http1_exchanges;
pub mod http1_requests;
pub mod http2;
pub mod http_filters;
pub mod jwt;
pub mod listeners;
pub mod log_filters;
pub mod manager;
pub mod matchers;
pub mod mirrors;
pub mod outliers;
pub mod overrides;
pub mod pools;
pub mod proxied;
pub mod rbac_http;
pub mod redirects;
pub mod replies;
pub mod retries;
pub mod routing;
pub mod runtime_keys;
pub mod scopes;
pub mod tcp;
pub mod timeouts;
pub mod tunnels;
pub mod upgrades;
pub mod upstreams;

use crate::manifest::{Case, Step, get, request, steps};
use crate::support::bootstrap::{TO_UP, cluster, http_listener, http2};
use crate::support::upstream::{Act, Script};

/// A listener that sends everything to `up`, with more fields of the connection manager.
fn plain(name: &'static str, manager: &str) -> (&'static str, String) {
    (name, http_listener(name, manager, TO_UP, ""))
}

/// A listener with these virtual hosts.
fn routed(name: &'static str, manager: &str, virtual_hosts: &str) -> (&'static str, String) {
    (name, http_listener(name, manager, virtual_hosts, ""))
}

/// A listener with one virtual host of these routes.
fn routes(name: &'static str, routes: &str) -> (&'static str, String) {
    routed(name, "", &format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#))
}

/// The usual clusters: `up` and `up2` (HTTP/1), `h2` and `dead`.
fn clusters() -> Vec<String> {
    vec![
        upstream("up", "${UP}", ""),
        upstream("up2", "${UP2}", ""),
        upstream("h2", "${H2}", &http2()),
        upstream("dead", "${DEAD}", ""),
    ]
}

/// A cluster whose port is filled in later.
fn upstream(name: &str, port: &str, more: &str) -> String {
    cluster(name, &[0], more).replace("port_value: 0", &format!("port_value: {port}"))
}

/// A cluster of one host that has two addresses, told apart by their ports.
fn with_two_addresses(name: &str, first: &str, other: &str) -> String {
    let at = |port: &str| format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
    let others = format!("additional_addresses: [{{address: {}}}]", at(other));
    let endpoint = format!("{{endpoint: {{address: {}, {others}}}}}", at(first));
    let assignment = format!("{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}");
    format!("{{name: {name}, connect_timeout: 2s, load_assignment: {assignment}}}")
}

/// A GET by the listener `usual` to an upstream that answers with these bytes.
fn answered(name: &'static str, row: &'static str, reply: &str) -> Case {
    get(name, row, "usual", "/", &[]).reply(reply.to_owned())
}

/// The same, of an upstream that does this.
fn acted(name: &'static str, row: &'static str, acts: Vec<Act>) -> Case {
    get(name, row, "usual", "/", &[]).acts(acts)
}

/// Two GETs on one connection, with `between` after the first response.
fn twice(name: &'static str, row: &'static str, between: Option<Step>, script: Script) -> Case {
    let mut list = vec![Step::Send(request("GET", "/1", &[])), Step::Responses(1)];
    list.extend(between);
    list.extend([Step::Send(request("GET", "/2", &[])), Step::Responses(2)]);
    steps(name, row, "usual", list).upstream(script)
}

fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

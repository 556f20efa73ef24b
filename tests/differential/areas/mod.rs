//! The manifest, one file per area.

pub mod addresses;
pub mod clusters;
pub mod formats;
pub mod headers;
pub mod http1_exchanges;
pub mod http1_requests;
pub mod http2;
pub mod listeners;
pub mod manager;
pub mod matchers;
pub mod replies;
pub mod routing;
pub mod tcp;
pub mod timeouts;
pub mod upgrades;
pub mod upstreams;

use crate::support::bootstrap::{TO_UP, cluster, http_listener, http2};

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

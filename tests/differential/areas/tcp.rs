//! Reference 3.9 and 4.4: the TCP proxy.

use std::time::Duration;

use super::{clusters, upstream};
use crate::manifest::{Area, Case, Step, steps};
use crate::support::bootstrap::{access_log, address, listener_of, tcp_filter};
use crate::support::upstream::Act;

const ROW: &str = "3.9 tcp_proxy";

/// The area.
pub fn area() -> Area {
    let tcp = |name: &'static str, fields: &str, listener: &str| {
        (name, listener_of(name, &format!("filter_chains: [{{filters: [{}]}}]", tcp_filter(name, fields)), listener))
    };
    let more = |more: &str| format!("cluster: up, access_log_options: {{{more}}}");
    let listeners = vec![
        tcp("plain", "cluster: up", ""),
        tcp("weighted", "weighted_clusters: {clusters: [{name: up, weight: 1}]}", ""),
        tcp("dead", "cluster: dead", ""),
        tcp("dead_often", "cluster: dead, max_connect_attempts: 3", ""),
        tcp("missing", "cluster: not_there", ""),
        tcp("empty", "cluster: empty", ""),
        tcp("full", "cluster: full", ""),
        tcp("no_pending", "cluster: no_pending", ""),
        tcp("silent", "cluster: up, idle_timeout: 0.06s", ""),
        tcp("short", "cluster: up, max_downstream_connection_duration: 0.06s", ""),
        tcp("on_connected", &more("flush_access_log_on_connected: true"), ""),
        tcp("on_start", &more("flush_access_log_on_start: true"), ""),
        tcp("logged", "cluster: up", &format!("access_log: [{}]", access_log("logged_listener"))),
        tcp("buffered", "cluster: up", "per_connection_buffer_limit_bytes: 1024"),
        tcp(
            "two_addresses",
            "cluster: up",
            &format!("address: {0}, additional_addresses: [{{address: {0}}}]", address(0)),
        ),
    ];
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    clusters.push(upstream("full", "${UP}", "circuit_breakers: {thresholds: [{max_connections: 0}]}"));
    clusters.push(upstream("no_pending", "${UP}", "circuit_breakers: {thresholds: [{max_pending_requests: 0}]}"));
    Area { name: "tcp", listeners, clusters, more: "", cases: cases() }
}

fn cases() -> Vec<Case> {
    let ping = || Step::Send(b"ping".to_vec());
    let talk = |end: Act| vec![Act::Until(b"ping"), Act::Send(b"pong".to_vec()), end];
    let pong = || vec![ping(), Step::Until("pong")];
    let case = |name, listener, steps_: Vec<Step>| steps(name, ROW, listener, steps_);
    vec![
        case("talk", "plain", pong()).acts(talk(Act::Hold)),
        case("weighted", "weighted", pong()).acts(talk(Act::Hold)),
        case("buffered", "buffered", pong()).acts(talk(Act::Hold)),
        case("two_addresses", "two_addresses", pong()).acts(talk(Act::Hold)),
        case("logged", "logged", pong()).acts(talk(Act::Hold)),
        case("upstream_closes", "plain", [pong(), vec![Step::End]].concat()).acts(talk(Act::Close)),
        case("server_speaks_first", "plain", vec![Step::Until("hello")])
            .acts(vec![Act::Send(b"hello".to_vec()), Act::Hold]),
        case("client_half_closes", "plain", vec![ping(), Step::HalfClose, Step::End]).acts(talk(Act::Hold)),
        case("upstream_half_closes", "plain", vec![Step::Until("hello"), Step::End]).acts(vec![
            Act::Send(b"hello".to_vec()),
            Act::HalfClose,
            Act::Hold,
        ]),
        case("upstream_resets", "plain", vec![ping(), Step::End]).acts(vec![Act::Until(b"ping"), Act::Reset]),
        case("upstream_resets_later", "plain", [pong(), vec![Step::End]].concat())
            .acts([talk(Act::Pause(Duration::from_millis(30))), vec![Act::Reset]].concat()),
        case("client_resets", "plain", [pong(), vec![Step::Reset]].concat()).acts(talk(Act::Hold)),
        case("refused", "dead", vec![Step::End]),
        case("refused_often", "dead_often", vec![Step::End]),
        case("no_cluster", "missing", vec![Step::End]),
        case("no_host", "empty", vec![Step::End]),
        case("overflow", "full", vec![Step::End]),
        case("pending_overflow", "no_pending", vec![Step::End]),
        case("idle", "silent", vec![Step::End]).acts(vec![Act::Hold]),
        case("max_duration", "short", vec![Step::End]).acts(vec![Act::Hold]),
        case("max_duration_in_use", "short", [pong(), vec![Step::End]].concat()).acts(talk(Act::Hold)),
        case("log_on_connected", "on_connected", pong()).acts(talk(Act::Hold)),
        case("log_on_start", "on_start", pong()).acts(talk(Act::Hold)),
    ]
}

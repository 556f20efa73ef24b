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
        tcp("dead_slowly", "cluster: dead, max_connect_attempts: 3, backoff_options: {base_interval: 0.002s}", ""),
        tcp("happy", "cluster: happy", ""),
        tcp("unhappy", "cluster: unhappy", ""),
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
    let listeners = listeners.into_iter().chain(filtered()).collect();
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    let addresses = |name: &str, first: &str, other: &str| {
        let at = |port: &str| format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
        let others = format!("additional_addresses: [{{address: {}}}]", at(other));
        let endpoint = format!("{{endpoint: {{address: {}, {others}}}}}", at(first));
        let assignment = format!("{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}");
        format!("{{name: {name}, connect_timeout: 2s, load_assignment: {assignment}}}")
    };
    clusters.push(addresses("happy", "${DEAD}", "${UP}"));
    clusters.push(addresses("unhappy", "${DEAD}", "${DEAD}"));
    clusters.push(upstream("full", "${UP}", "circuit_breakers: {thresholds: [{max_connections: 0}]}"));
    clusters.push(upstream("no_pending", "${UP}", "circuit_breakers: {thresholds: [{max_pending_requests: 0}]}"));
    Area { name: "tcp", listeners, clusters, more: "", cases: cases() }
}

/// Chains with other network filters.
fn filtered() -> Vec<(&'static str, String)> {
    let filter = |kind: &str, fields: &str| {
        let kind = format!("type.googleapis.com/envoy.extensions.filters.network.{kind}");
        format!(r#"{{name: filter, typed_config: {{"@type": {kind}, {fields}}}}}"#)
    };
    let chain = |name: &'static str, filters: &[String]| {
        (name, listener_of(name, &format!("filter_chains: [{{filters: [{}]}}]", filters.join(", ")), ""))
    };
    let before = |name: &'static str, kind: &str, fields: &str| {
        chain(name, &[filter(kind, fields), tcp_filter(name, "cluster: up")])
    };
    let rbac =
        |name: &'static str, fields: &str| before(name, "rbac.v3.RBAC", &format!("stat_prefix: {name}, {fields}"));
    let rules = |action: &str, permission: &str, principal: &str| {
        format!("{{action: {action}, policies: {{p: {{permissions: [{permission}], principals: [{principal}]}}}}}}")
    };
    let local = "{remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}";
    let any = "{any: true}";
    let rate = |max: u32, more: &str| {
        format!("stat_prefix: rate, token_bucket: {{max_tokens: {max}, fill_interval: 1000s}}{more}")
    };
    let off = ", runtime_enabled: {default_value: false, runtime_key: not.set}";
    vec![
        chain("echo", &[filter("echo.v3.Echo", "")]),
        chain("direct", &[filter("direct_response.v3.Config", "response: {inline_string: hello}")]),
        chain("direct_empty", &[filter("direct_response.v3.Config", "")]),
        before("sni", "sni_cluster.v3.SniCluster", ""),
        before("limited", "connection_limit.v3.ConnectionLimit", "stat_prefix: limited, max_connections: 1"),
        before("rate", "local_ratelimit.v3.LocalRateLimit", &rate(1, "")),
        before("rate_off", "local_ratelimit.v3.LocalRateLimit", &rate(1, off)),
        rbac("rbac_none", ""),
        rbac("rbac_allow", &format!("rules: {}", rules("ALLOW", any, local))),
        rbac("rbac_no_policy", "rules: {action: ALLOW}"),
        rbac("rbac_deny", &format!("rules: {}", rules("DENY", any, local))),
        rbac("rbac_deny_port", &format!("rules: {}", rules("DENY", "{destination_port: 1}", any))),
        rbac("rbac_name", &format!("rules: {}", rules("ALLOW", any, "{authenticated: {}}"))),
        rbac("rbac_log", &format!("rules: {}", rules("LOG", any, local))),
        rbac(
            "rbac_shadow",
            &format!(
                "shadow_rules_stat_prefix: dark, shadow_rules: {}, rules: {}",
                rules("DENY", any, any),
                rules("ALLOW", "{not_rule: {destination_port_range: {start: 1, end: 2}}}", any)
            ),
        ),
    ]
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
        case("refused_slowly", "dead_slowly", vec![Step::End]),
        case("the_other_address_answers", "happy", pong()).acts(talk(Act::Hold)),
        case("no_address_answers", "unhappy", vec![Step::End]),
        case("no_cluster", "missing", vec![Step::End]),
        case("no_host", "empty", vec![Step::End]),
        case("overflow", "full", vec![Step::End]),
        case("pending_overflow", "no_pending", vec![Step::End]),
        case("idle", "silent", vec![Step::End]).acts(vec![Act::Hold]),
        case("max_duration", "short", vec![Step::End]).acts(vec![Act::Hold]),
        case("max_duration_in_use", "short", [pong(), vec![Step::End]].concat()).acts(talk(Act::Hold)),
        case("log_on_connected", "on_connected", pong()).acts(talk(Act::Hold)),
        case("log_on_start", "on_start", pong()).acts(talk(Act::Hold)),
        case("bulk_down", "plain", vec![ping(), Step::Until("pong")]).acts(vec![
            Act::Until(b"ping"),
            Act::Send(bulk("pong")),
            Act::Hold,
        ]),
        case("bulk_up", "plain", vec![Step::Send(bulk("ping")), Step::Until("pong")]).acts(talk(Act::Hold)),
        case("bulk_then_end", "plain", vec![ping(), Step::End]).acts(vec![
            Act::Until(b"ping"),
            Act::Send(bulk("pong")),
            Act::Close,
        ]),
        case("bulk_between_buffers", "buffered", vec![ping(), Step::Until("pong")]).acts(vec![
            Act::Until(b"ping"),
            // One segment: how many reads it takes is not left to chance.
            Act::Send([vec![b'x'; 20_000], b"pong".to_vec()].concat()),
            Act::Hold,
        ]),
        case("echo", "echo", vec![ping(), Step::Until("ping")]),
        case("echo_bulk", "echo", vec![Step::Send(bulk("ping")), Step::Until("ping")]),
        case("direct_response", "direct", vec![Step::End]),
        case("direct_response_unread", "direct", vec![Step::Until("hello"), ping(), Step::End]),
        case("direct_response_empty", "direct_empty", vec![Step::End]),
        case("no_server_name", "sni", pong()).acts(talk(Act::Hold)),
        case("within_the_limit", "limited", pong()).acts(talk(Act::Hold)),
        case("rate_limited", "rate", [pong(), vec![Step::Reconnect, Step::End]].concat()).acts(talk(Act::Hold)),
        case("rate_not_limited", "rate_off", pong()).acts(talk(Act::Hold)),
        case("rbac_without_rules", "rbac_none", pong()).acts(talk(Act::Hold)),
        case("rbac_allows", "rbac_allow", pong()).acts(talk(Act::Hold)),
        case("rbac_without_policy", "rbac_no_policy", vec![ping(), Step::End]).acts(vec![Act::Hold]),
        case("rbac_denies", "rbac_deny", vec![ping(), Step::End]).acts(vec![Act::Hold]),
        case("rbac_denies_when_spoken_to", "rbac_deny", vec![Step::Until("hello"), ping(), Step::End])
            .acts(vec![Act::Send(b"hello".to_vec()), Act::Hold]),
        case("rbac_denies_the_end", "rbac_deny", vec![Step::Until("hello"), Step::HalfClose, Step::End])
            .acts(vec![Act::Send(b"hello".to_vec()), Act::Hold]),
        case("rbac_denies_another_port", "rbac_deny_port", pong()).acts(talk(Act::Hold)),
        case("rbac_knows_no_name", "rbac_name", vec![ping(), Step::End]).acts(vec![Act::Hold]),
        case("rbac_logs", "rbac_log", pong()).acts(talk(Act::Hold)),
        case("rbac_shadow", "rbac_shadow", pong()).acts(talk(Act::Hold)),
    ]
}

/// More than is copied, and then a word.
fn bulk(last: &str) -> Vec<u8> {
    let mut bytes = vec![b'x'; 400_000];
    bytes.extend(last.as_bytes());
    bytes
}

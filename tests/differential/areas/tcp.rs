//! Reference 3.9 and 4.4: the TCP proxy.

use std::time::Duration;

use super::{clusters, upstream, with_two_addresses};
use crate::manifest::{Area, Case, Step, request, steps};
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
        tcp("no_requests", "cluster: no_requests", ""),
        tcp("silent", "cluster: up, idle_timeout: 0.06s", ""),
        tcp("short", "cluster: up, max_downstream_connection_duration: 0.06s", ""),
        tcp("on_connected", &more("flush_access_log_on_connected: true"), ""),
        tcp("on_start", &more("flush_access_log_on_start: true"), ""),
        tcp("waits", &waits("cluster: up"), ""),
        tcp("waits_briefly", &waits("cluster: up, idle_timeout: 0.06s"), ""),
        tcp("waits_dead", &waits("cluster: dead, max_connect_attempts: 2"), ""),
        tcp("early", "cluster: unanswered, max_early_data_bytes: 5", ""),
        tcp("early_none", "cluster: unanswered, max_early_data_bytes: 0", ""),
        tcp(
            "handshake",
            "cluster: up, upstream_connect_mode: ON_DOWNSTREAM_TLS_HANDSHAKE, max_early_data_bytes: 0",
            "",
        ),
        tcp("logged", "cluster: up", &format!("access_log: [{}]", access_log("logged_listener"))),
        tcp("buffered", "cluster: up", "per_connection_buffer_limit_bytes: 1024"),
        tcp("inspected", "cluster: up", &inspected("10s")),
        tcp("inspected_impatiently", "cluster: up", &inspected("0.06s")),
        tcp("ring_one", &hashed("ring_one"), ""),
        tcp("ring_two", &hashed("ring_two"), ""),
        tcp("ring_three", &hashed("ring_three"), ""),
        tcp("maglev_one", &hashed("maglev_one"), ""),
        tcp("maglev_two", &hashed("maglev_two"), ""),
        tcp("ring_dead", &format!("{}, max_connect_attempts: 2", hashed("ring_dead")), ""),
        tcp(
            "two_addresses",
            "cluster: up",
            &format!("address: {0}, additional_addresses: [{{address: {0}}}]", address(0)),
        ),
    ];
    let listeners = listeners.into_iter().chain(filtered()).collect();
    let mut clusters = clusters();
    clusters.push("{name: empty, load_assignment: {cluster_name: empty}}".to_owned());
    clusters.push(upstream("unanswered", "${FULL}", "connect_timeout: 0.3s"));
    clusters.push(with_two_addresses("happy", "${DEAD}", "${UP}"));
    clusters.push(with_two_addresses("unhappy", "${DEAD}", "${DEAD}"));
    clusters.extend([
        keyed("ring_one", "RING_HASH", ["a", "b"]),
        keyed("ring_two", "RING_HASH", ["left", "right"]),
        keyed("ring_three", "RING_HASH", ["7", "eleven"]),
        keyed("maglev_one", "MAGLEV", ["a", "b"]),
        keyed("maglev_two", "MAGLEV", ["north", "west"]),
        keyed("ring_dead", "RING_HASH", ["left", "right"]).replace("${UP}", "${DEAD}").replace("${UP2}", "${DEAD}"),
    ]);
    clusters.push(upstream("full", "${UP}", "circuit_breakers: {thresholds: [{max_connections: 0}]}"));
    clusters.push(upstream("no_pending", "${UP}", "circuit_breakers: {thresholds: [{max_pending_requests: 0}]}"));
    clusters.push(upstream("no_requests", "${UP}", "circuit_breakers: {thresholds: [{max_requests: 0}]}"));
    Area { name: "tcp", listeners, clusters, more: "", cases: cases() }
}

/// A proxy that connects when the client speaks.
fn waits(fields: &str) -> String {
    format!("{fields}, upstream_connect_mode: ON_DOWNSTREAM_DATA, max_early_data_bytes: 1024")
}

/// What makes a listener wait for the first words of TLS, so long.
fn inspected(timeout: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    format!(
        r#"listener_filters_timeout: {timeout}, continue_on_listener_filters_timeout: true,
        listener_filters: [{{name: inspector, typed_config: {{"@type": {kind}}}}}]"#
    )
}

/// A proxy to a cluster whose host the client's address decides.
fn hashed(cluster: &str) -> String {
    format!("cluster: {cluster}, hash_policy: [{{source_ip: {{}}}}]")
}

/// A cluster of two hosts that are hashed by these keys, so that their ports do not matter.
fn keyed(name: &str, policy: &str, [one, other]: [&str; 2]) -> String {
    let host = |port: &str, key: &str| {
        let address = format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
        let metadata = format!("{{filter_metadata: {{envoy.lb: {{hash_key: {key:?}}}}}}}");
        format!("{{endpoint: {{address: {address}}}, metadata: {metadata}}}")
    };
    let hosts = format!("{}, {}", host("${UP}", one), host("${UP2}", other));
    let assignment = format!("{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{hosts}]}}]}}");
    format!("{{name: {name}, connect_timeout: 2s, lb_policy: {policy}, load_assignment: {assignment}}}")
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
        before("rate_none", "local_ratelimit.v3.LocalRateLimit", &rate(0, "")),
        before("rate_off", "local_ratelimit.v3.LocalRateLimit", &rate(1, off)),
        rbac("rbac_none", ""),
        rbac("rbac_allow", &format!("rules: {}", rules("ALLOW", any, local))),
        rbac("rbac_no_policy", "rules: {action: ALLOW}"),
        rbac("rbac_deny", &format!("rules: {}", rules("DENY", any, local))),
        rbac("rbac_deny_port", &format!("rules: {}", rules("DENY", "{destination_port: 1}", any))),
        rbac("rbac_name", &format!("rules: {}", rules("ALLOW", any, "{authenticated: {}}"))),
        rbac("rbac_always", &format!("enforcement_type: CONTINUOUS, rules: {}", rules("ALLOW", any, local))),
        rbac("rbac_late", &format!("delay_deny: 0.3s, rules: {}", rules("DENY", any, local))),
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
    // Enough to tell that it is no TLS: that takes the five bytes of a record's header.
    let sentence = || Step::Send(b"this is a ping".to_vec());
    // Only one of the two hosts says that it is the second.
    let which = || vec![Step::Send(request("GET", "/", &[])), Step::Responses(1)];
    let case = |name, listener, steps_: Vec<Step>| steps(name, ROW, listener, steps_);
    vec![
        case("talk", "plain", pong()).acts(talk(Act::Hold)),
        case("weighted", "weighted", pong()).acts(talk(Act::Hold)),
        case("buffered", "buffered", pong()).acts(talk(Act::Hold)),
        case("two_addresses", "two_addresses", pong()).acts(talk(Act::Hold)),
        case("logged", "logged", pong()).acts(talk(Act::Hold)),
        case("waits_for_words", "waits", pong()).acts(talk(Act::Hold)),
        case("waits_for_bulk", "waits", vec![Step::Send(bulk("ping")), Step::Until("pong")]).acts(talk(Act::Hold)),
        case("waits_in_vain", "waits_briefly", vec![Step::End]),
        case("waits_for_an_end", "waits_briefly", vec![Step::HalfClose, Step::End]),
        case("waits_and_is_reset", "waits", vec![Step::Pause(Duration::from_millis(20)), Step::Reset]),
        case("words_to_the_dead", "waits_dead", vec![ping(), Step::End]),
        // Nobody can say when a connect is done that is going to be; these never are.
        case("early_words", "early", vec![ping(), Step::End]),
        case("early_words_without_room", "early_none", vec![ping(), Step::End]),
        case("no_handshake_to_wait_for", "handshake", pong()).acts(talk(Act::Hold)),
        case("upstream_closes", "plain", [pong(), vec![Step::End]].concat()).acts(talk(Act::Close)),
        case("server_speaks_first", "plain", vec![Step::Until("hello")])
            .acts(vec![Act::Send(b"hello".to_vec()), Act::Hold]),
        case("smtp", "plain", smtp()).acts(smtp_server()),
        case("smtp_inspected", "inspected_impatiently", smtp()).acts(smtp_server()),
        case("mysql", "plain", vec![Step::Until("native"), Step::Send(LOGIN.to_vec()), Step::Until(OK)]).acts(mysql()),
        case("mysql_inspected", "inspected_impatiently", {
            vec![Step::Until("native"), Step::Send(LOGIN.to_vec()), Step::Until(OK)]
        })
        .acts(mysql()),
        case("client_speaks_first_inspected", "inspected", vec![sentence(), Step::Until("pong")]).acts(talk(Act::Hold)),
        // An end that comes together with the first bytes is a race in Envoy: it may take the client for gone.
        case("client_ends_inspected", "inspected", vec![sentence(), Step::Until("pong"), Step::HalfClose, Step::End])
            .acts(talk(Act::Hold)),
        case("too_short_to_tell", "inspected_impatiently", pong()).acts(talk(Act::Hold)),
        case("ring_one", "ring_one", which()),
        case("ring_two", "ring_two", which()),
        case("ring_three", "ring_three", which()),
        case("maglev_one", "maglev_one", which()),
        case("maglev_two", "maglev_two", which()),
        case("hashed_to_the_dead", "ring_dead", vec![Step::End]),
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
        case("requests_not_limited", "no_requests", vec![Step::End]),
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
        case("rate_of_none", "rate_none", vec![Step::End]),
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
        case(
            "rbac_allows_every_word",
            "rbac_always",
            vec![ping(), Step::Until("pong"), Step::Send(b"again".to_vec()), Step::Until("heard"), Step::End],
        )
        .acts([talk(Act::Until(b"again")), vec![Act::Send(b"heard".to_vec()), Act::Close]].concat()),
        case("rbac_denies_late", "rbac_late", vec![ping(), Step::End]).acts(vec![Act::Hold]),
        case(
            "rbac_denies_a_talker_late",
            "rbac_late",
            vec![ping(), Step::Pause(Duration::from_millis(50)), ping(), Step::End],
        )
        .acts(vec![Act::Hold]),
        case("rbac_denies_late_one_that_ends", "rbac_late", vec![ping(), Step::HalfClose, Step::End])
            .acts(vec![Act::Hold]),
        case("rbac_logs", "rbac_log", pong()).acts(talk(Act::Hold)),
        case("rbac_shadow", "rbac_shadow", pong()).acts(talk(Act::Hold)),
    ]
}

/// A mail client, which waits to be greeted.
fn smtp() -> Vec<Step> {
    let say = |line: &str| Step::Send(format!("{line}\r\n").into_bytes());
    vec![Step::Until("220 ready\r\n"), say("EHLO here"), Step::Until("250 hello\r\n"), say("QUIT"), Step::End]
}

fn smtp_server() -> Vec<Act> {
    let say = |line: &str| Act::Send(format!("{line}\r\n").into_bytes());
    let heard = Act::Until(b"EHLO here\r\n");
    vec![say("220 ready"), heard, say("250 hello"), Act::Until(b"QUIT\r\n"), say("221 bye"), Act::Close]
}

/// A handshake's answer: length, sequence number, capabilities, and a user.
const LOGIN: &[u8] = b"\x0e\0\0\x01\x85\xa6\x03\0\0\0\0\x01user\0\0";
/// The packet that says the login is good.
const OK: &str = "\x07\0\0\x02\0\0\0\x02\0\0\0";

/// A database, which greets with what is not text.
fn mysql() -> Vec<Act> {
    let greeting = b"\x20\0\0\0\x0a8.0.36\0\x01\0\0\0saltsalt\0\xff\xf7native".to_vec();
    vec![Act::Send(greeting), Act::Until(LOGIN), Act::Send(OK.as_bytes().to_vec()), Act::Hold]
}

/// More than is copied, and then a word.
fn bulk(last: &str) -> Vec<u8> {
    let mut bytes = vec![b'x'; 400_000];
    bytes.extend(last.as_bytes());
    bytes
}

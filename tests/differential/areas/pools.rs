//! Reference 3.6 and 3.9: how many connections a pool opens, which request goes on which, when they end, and what is counted.
//!
//! Clients speak HTTP/2 here, because several requests at a time are what a pool is for.

use std::time::Duration;

use super::{routes, send, upstream};
use crate::manifest::{Area, Case, Step, crowd, request, steps};
use crate::support::bootstrap::protocol;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, fields, frame, get, goaway, preface, request as head, reset, settings,
};
use crate::support::upstream::{Act, Script};

fn http2(common: &str, options: &str) -> String {
    protocol(&format!(
        "common_http_protocol_options: {{{common}}}, explicit_http_config: {{http2_protocol_options: {{{options}}}}}"
    ))
}

fn limits(limits: &str) -> String {
    format!("circuit_breakers: {{thresholds: [{{{limits}}}]}}")
}

/// Clusters by name, which is the first segment of the paths that lead there, and their fields.
fn clusters_and_fields() -> Vec<(&'static str, String)> {
    let http1 = |common: &str| {
        protocol(&format!(
            "common_http_protocol_options: {{{common}}}, explicit_http_config: {{http_protocol_options: {{}}}}"
        ))
    };
    let per_host = |limits: &str| format!("circuit_breakers: {{per_host_thresholds: [{limits}]}}");
    vec![
        ("h1", String::new()),
        ("h1_spent", http1("max_requests_per_connection: 2")),
        ("h1_old", http1("max_connection_duration: 0.15s")),
        ("h1_idle", http1("idle_timeout: 0.08s")),
        ("h1_one", limits("max_connections: 1")),
        ("h1_one_tracked", limits("max_connections: 1, track_remaining: true")),
        ("h1_one_pending", limits("max_connections: 1, max_pending_requests: 1")),
        ("h1_none", limits("max_connections: 0")),
        ("h1_two_requests", limits("max_requests: 2")),
        ("h1_no_pools", limits("max_connection_pools: 0")),
        ("h1_one_pool", limits("max_connection_pools: 1, track_remaining: true")),
        ("h1_host_one", per_host("{max_connections: 1}")),
        ("h1_host_none", per_host("{max_connections: 0}")),
        ("h1_host_high", per_host("{priority: HIGH, max_connections: 1}")),
        ("h1_ahead", "preconnect_policy: {per_upstream_preconnect_ratio: 2.0}".to_owned()),
        ("h1_ahead_three", "preconnect_policy: {per_upstream_preconnect_ratio: 3.0}".to_owned()),
        ("h1_ahead_some", "preconnect_policy: {per_upstream_preconnect_ratio: 1.5}".to_owned()),
        (
            "h1_ahead_limited",
            "preconnect_policy: {per_upstream_preconnect_ratio: 3.0}, ".to_owned() + &limits("max_connections: 2"),
        ),
        ("h1_predicted", "preconnect_policy: {predictive_preconnect_ratio: 2.0}".to_owned()),
        ("h1_predicted_three", "preconnect_policy: {predictive_preconnect_ratio: 3.0}".to_owned()),
        (
            "h1_both_ahead",
            "preconnect_policy: {per_upstream_preconnect_ratio: 2.0, predictive_preconnect_ratio: 2.0}".to_owned(),
        ),
        ("h2", http2("", "")),
        ("h2_two", http2("", "max_concurrent_streams: 2")),
        ("h2_spent", http2("max_requests_per_connection: 2", "")),
        ("h2_old", http2("max_connection_duration: 0.15s", "")),
        ("h2_idle", http2("idle_timeout: 0.08s", "")),
        (
            "h2_one",
            http2("", "max_concurrent_streams: 1") + ", " + &limits("max_connections: 1, max_pending_requests: 1"),
        ),
        ("h2_one_high", http2("", "max_concurrent_streams: 1") + ", " + &limits("max_connections: 1")),
        (
            "h2_ahead",
            http2("", "max_concurrent_streams: 1") + ", preconnect_policy: {per_upstream_preconnect_ratio: 2.0}",
        ),
        ("h2_ahead_wide", http2("", "") + ", preconnect_policy: {per_upstream_preconnect_ratio: 3.0}"),
        (
            "h2_predicted",
            http2("", "max_concurrent_streams: 1") + ", preconnect_policy: {predictive_preconnect_ratio: 2.0}",
        ),
        ("per_client", "connection_pool_per_downstream_connection: true".to_owned()),
        ("same", protocol("use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}")),
    ]
}

/// The area.
pub fn area() -> Area {
    let retry = "retry_policy: {retry_on: 'refused-stream,reset-before-request,connect-failure', num_retries: 3, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}";
    let mut table = vec![
        r#"{match: {prefix: "/high"}, route: {cluster: h2_one_high, priority: HIGH}}"#.to_owned(),
        r#"{match: {prefix: "/host_high"}, route: {cluster: h1_host_high, priority: HIGH}}"#.to_owned(),
        format!(r#"{{match: {{prefix: "/again_h1"}}, route: {{cluster: h1, {retry}}}}}"#),
        format!(r#"{{match: {{prefix: "/again_h2"}}, route: {{cluster: h2, {retry}}}}}"#),
        format!(r#"{{match: {{prefix: "/again_two"}}, route: {{cluster: h2_two, {retry}}}}}"#),
        r#"{match: {prefix: "/reset"}, route: {cluster: h2, retry_policy: {retry_on: reset, num_retries: 3, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}}}"#.to_owned(),
    ];
    let mut clusters = Vec::new();
    for (name, fields) in clusters_and_fields() {
        clusters.push(upstream(name, "${UP}", &fields));
        table.push(format!(r#"{{match: {{path_separated_prefix: "/{name}"}}, route: {{cluster: {name}}}}}"#));
    }
    let connect = |more: &str| format!("connect_timeout: 0.15s{more}");
    for (name, port, fields) in [
        ("dead", "${DEAD}", String::new()),
        ("dead_one", "${DEAD}", limits("max_connections: 1")),
        ("dead_h2", "${DEAD}", http2("", "max_concurrent_streams: 2")),
        ("full", "${FULL}", connect("")),
        ("full_one", "${FULL}", connect(", ") + &limits("max_connections: 1")),
        ("full_two_pending", "${FULL}", connect(", ") + &limits("max_connections: 1, max_pending_requests: 2")),
        ("full_ahead", "${FULL}", connect(", preconnect_policy: {per_upstream_preconnect_ratio: 2.0}")),
        ("full_h2", "${FULL}", connect(", ") + &http2("", "max_concurrent_streams: 2")),
    ] {
        clusters.push(upstream(name, port, &fields));
        table.push(format!(r#"{{match: {{path_separated_prefix: "/{name}"}}, route: {{cluster: {name}}}}}"#));
        let retry = "retry_policy: {retry_on: connect-failure, num_retries: 1, retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}}";
        table.push(format!(
            r#"{{match: {{path_separated_prefix: "/again/{name}"}}, route: {{cluster: {name}, {retry}}}}}"#
        ));
    }
    let cases = [by_http1(), by_http2(), unreachable(), going_away(), breakers(), ahead(), races(), others()].concat();
    Area { name: "pools", listeners: vec![routes("in", &table.join(", "))], clusters, more: "", cases }
}

fn pause(millis: u64) -> Step {
    Step::Pause(Duration::from_millis(millis))
}

fn wait(millis: u64) -> Act {
    Act::Pause(Duration::from_millis(millis))
}

/// The client's preface and these requests at once, streams 1, 3, ... in order.
fn hello(paths: &[&str]) -> Step {
    Step::Send([preface(), requests(1, paths)].concat())
}

/// More requests, from this stream on.
fn more(first: u32, paths: &[&str]) -> Step {
    Step::Send(requests(first, paths))
}

fn requests(first: u32, paths: &[&str]) -> Vec<u8> {
    (first..).step_by(2).zip(paths).flat_map(|(stream, path)| head(stream, &get(path, &[]))).collect()
}

/// A whole good HTTP/2 response.
fn ok(stream: u32) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &fields(&[(":status", "200")])), frame(DATA, END_STREAM, stream, b"ok")]
        .concat()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers a request after so long, for ever.
fn slowly(millis: u64) -> Vec<Act> {
    vec![Act::Request, wait(millis), send(OK)]
}

/// Connections that answer at times far apart, so that it is plain which of them is free when.
fn staggered() -> Script {
    vec![slowly(20), slowly(60), slowly(100)]
}

/// An HTTP/2 connection that takes so many requests before it answers them all.
fn after(count: usize, millis: u64, parameters: &[(u16, u32)]) -> Vec<Act> {
    let mut acts = vec![Act::Frame(HEADERS); count];
    let replies = (1..).step_by(2).take(count).flat_map(ok).collect::<Vec<u8>>();
    acts.extend([wait(millis), Act::Send([settings(parameters), replies].concat()), Act::Hold]);
    acts
}

/// An HTTP/2 connection that answers each of so many requests as it comes.
fn one_by_one(count: u32, parameters: &[(u16, u32)]) -> Vec<Act> {
    let mut acts = Vec::new();
    for index in 0..count {
        let first = if index == 0 { settings(parameters) } else { Vec::new() };
        acts.extend([Act::Frame(HEADERS), Act::Send([first, ok(2 * index + 1)].concat())]);
    }
    acts.push(Act::Hold);
    acts
}

/// Frames after so many requests have come, and then so many more answered, from the stream after those.
fn frames_after(count: u32, frames: &[Vec<u8>], next: u32) -> Vec<Act> {
    let mut acts = vec![Act::Frame(HEADERS); count as usize];
    acts.push(Act::Send([settings(&[]), frames.concat()].concat()));
    for index in count..count + next {
        acts.extend([Act::Frame(HEADERS), Act::Send(ok(2 * index + 1))]);
    }
    acts.push(Act::Hold);
    acts
}

fn concurrent(name: &'static str, row: &'static str, paths: &[&str], script: Script) -> Case {
    crowd(name, row, "in", vec![hello(paths), Step::Streams(paths.len())]).upstream(script)
}

/// These requests at once, those after them once all are answered.
fn then(name: &'static str, row: &'static str, first: &[&str], between: u64, later: &[&str], script: Script) -> Case {
    let stream = 2 * u32::try_from(first.len()).unwrap_or(0) + 1;
    let list = vec![
        hello(first),
        Step::Streams(first.len()),
        pause(between),
        more(stream, later),
        Step::Streams(first.len() + later.len()),
    ];
    crowd(name, row, "in", list).upstream(script)
}

fn by_http1() -> Vec<Case> {
    let row = "3.9 HTTP/1 pools";
    vec![
        concurrent("h1_three_at_once", row, &["/h1/1", "/h1/2", "/h1/3"], vec![slowly(60)]),
        then("h1_three_then_two", row, &["/h1/1", "/h1/2", "/h1/3"], 20, &["/h1/4", "/h1/5"], staggered()),
        then("h1_spent", "3.9 max_requests_per_connection", &["/h1_spent/1"], 10, &["/h1_spent/2"], vec![slowly(0)]),
        crowd(
            "h1_spent_three",
            "3.9 max_requests_per_connection",
            "in",
            vec![
                hello(&["/h1_spent/1"]),
                Step::Streams(1),
                more(3, &["/h1_spent/2"]),
                Step::Streams(2),
                more(5, &["/h1_spent/3"]),
                Step::Streams(3),
            ],
        )
        .upstream(vec![slowly(0)]),
        then("h1_old", "3.1 max_connection_duration", &["/h1_old/1"], 300, &["/h1_old/2"], vec![slowly(0)]),
        then("h1_old_busy", "3.1 max_connection_duration", &["/h1_old/1"], 20, &["/h1_old/2"], vec![slowly(250)]),
        then("h1_idle", "3.9 pool idle timeout", &["/h1_idle/1"], 250, &["/h1_idle/2"], vec![slowly(0)]),
        then(
            "h1_idle_two",
            "3.9 pool idle timeout",
            &["/h1_idle/1", "/h1_idle/2"],
            250,
            &["/h1_idle/3"],
            vec![slowly(20)],
        ),
        concurrent("h1_refused_all", row, &["/dead/1", "/dead/2", "/dead/3"], vec![slowly(0)]),
        crowd(
            "h1_cancelled_in_line",
            "3.9 cancelled requests",
            "in",
            vec![
                hello(&["/h1_one/1", "/h1_one/2", "/h1_one/3"]),
                pause(30),
                Step::Send(reset(3, 8)),
                pause(10),
                Step::Streams(2),
            ],
        )
        .upstream(vec![slowly(120)]),
        crowd(
            "h1_cancelled_in_flight",
            "3.9 cancelled requests",
            "in",
            vec![hello(&["/h1_one/1", "/h1_one/2"]), pause(40), Step::Send(reset(1, 8)), Step::Streams(1)],
        )
        .upstream(vec![slowly(120)]),
    ]
}

fn by_http2() -> Vec<Case> {
    let row = "3.9 HTTP/2 pools of several connections";
    vec![
        concurrent("h2_three_at_once", row, &["/h2/1", "/h2/2", "/h2/3"], vec![after(3, 20, &[])]),
        concurrent(
            "h2_two_each",
            row,
            &["/h2_two/1", "/h2_two/2", "/h2_two/3"],
            vec![after(2, 60, &[]), after(1, 60, &[])],
        ),
        concurrent(
            "h2_two_each_five",
            row,
            &["/h2_two/1", "/h2_two/2", "/h2_two/3", "/h2_two/4", "/h2_two/5"],
            vec![after(2, 60, &[]), after(2, 60, &[]), after(1, 60, &[])],
        ),
        crowd(
            "h2_second_when_full",
            row,
            "in",
            vec![
                hello(&["/h2_two/1"]),
                pause(30),
                more(3, &["/h2_two/2"]),
                pause(30),
                more(5, &["/h2_two/3"]),
                Step::Streams(3),
            ],
        )
        .upstream(vec![after(2, 120, &[]), after(1, 0, &[])]),
        crowd(
            "h2_oldest_first",
            row,
            "in",
            vec![
                hello(&["/h2_two/1", "/h2_two/2", "/h2_two/3"]),
                Step::Streams(3),
                pause(30),
                more(7, &["/h2_two/4"]),
                Step::Streams(4),
                more(9, &["/h2_two/5"]),
                Step::Streams(5),
            ],
        )
        .upstream(vec![
            [
                &after(2, 60, &[])[..3],
                &[
                    Act::Send([settings(&[]), ok(1), ok(3)].concat()),
                    Act::Frame(HEADERS),
                    Act::Send(ok(5)),
                    Act::Frame(HEADERS),
                    Act::Send(ok(7)),
                    Act::Hold,
                ],
            ]
            .concat(),
            one_by_one(4, &[]),
        ]),
        crowd(
            "h2_settings_one",
            "3.9 the peer's SETTINGS",
            "in",
            vec![hello(&["/h2/1"]), Step::Streams(1), pause(20), more(3, &["/h2/2", "/h2/3"]), Step::Streams(3)],
        )
        .upstream(vec![
            [&one_by_one(1, &[(3, 1)])[..2], &[Act::Frame(HEADERS), wait(80), Act::Send(ok(3)), Act::Hold]].concat(),
            one_by_one(1, &[]),
        ]),
        crowd(
            "h2_settings_grow",
            "3.9 the peer's SETTINGS",
            "in",
            vec![hello(&["/h2/1"]), Step::Streams(1), pause(20), more(3, &["/h2/2", "/h2/3"]), Step::Streams(3)],
        )
        .upstream(vec![
            vec![
                Act::Frame(HEADERS),
                Act::Send([settings(&[(3, 1)]), ok(1), settings(&[(3, 2)])].concat()),
                Act::Frame(HEADERS),
                Act::Frame(HEADERS),
                Act::Send([ok(3), ok(5)].concat()),
                Act::Hold,
            ],
            one_by_one(1, &[]),
        ]),
        crowd(
            "h2_settings_none",
            "3.9 the peer's SETTINGS",
            "in",
            vec![hello(&["/h2/1"]), Step::Streams(1), pause(20), more(3, &["/h2/2"]), Step::Streams(2)],
        )
        .upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send([settings(&[(3, 0)]), ok(1)].concat()), Act::Hold],
            one_by_one(1, &[]),
        ]),
        crowd(
            "h2_settings_before_reply",
            "3.9 the peer's SETTINGS",
            "in",
            vec![hello(&["/h2/1"]), pause(40), more(3, &["/h2/2"]), Step::Streams(2)],
        )
        .upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send(settings(&[(3, 1)])), wait(120), Act::Send(ok(1)), Act::Hold],
            one_by_one(1, &[]),
        ]),
        crowd(
            "h2_settings_above_ours",
            "3.9 the peer's SETTINGS",
            "in",
            vec![
                hello(&["/h2_two/1"]),
                Step::Streams(1),
                more(3, &["/h2_two/2", "/h2_two/3", "/h2_two/4"]),
                Step::Streams(4),
            ],
        )
        .upstream(vec![
            vec![
                Act::Frame(HEADERS),
                Act::Send([settings(&[(3, 100)]), ok(1)].concat()),
                Act::Frame(HEADERS),
                Act::Frame(HEADERS),
                wait(60),
                Act::Send([ok(3), ok(5)].concat()),
                Act::Hold,
            ],
            one_by_one(1, &[]),
        ]),
        concurrent(
            "h2_spent_three",
            "3.9 max_requests_per_connection",
            &["/h2_spent/1", "/h2_spent/2", "/h2_spent/3"],
            vec![after(2, 60, &[]), after(1, 60, &[])],
        ),
        then(
            "h2_spent_then_one",
            "3.9 max_requests_per_connection",
            &["/h2_spent/1", "/h2_spent/2"],
            30,
            &["/h2_spent/3"],
            vec![after(2, 10, &[]), after(1, 0, &[])],
        ),
        then("h2_old", "3.1 max_connection_duration", &["/h2_old/1"], 300, &["/h2_old/2"], vec![one_by_one(2, &[])]),
        crowd(
            "h2_old_busy",
            "3.1 max_connection_duration",
            "in",
            vec![hello(&["/h2_old/1"]), pause(230), more(3, &["/h2_old/2"]), Step::Streams(2)],
        )
        .upstream(vec![after(1, 400, &[]), after(1, 0, &[])]),
        then("h2_idle", "3.9 pool idle timeout", &["/h2_idle/1"], 250, &["/h2_idle/2"], vec![one_by_one(2, &[])]),
        crowd(
            "h2_cancelled",
            "3.9 cancelled requests",
            "in",
            vec![hello(&["/h2_one/1", "/h2_one/2"]), pause(40), Step::Send(reset(1, 8)), Step::Streams(1)],
        )
        .upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send(settings(&[])), Act::Frame(HEADERS), Act::Send(ok(3)), Act::Hold],
            one_by_one(1, &[]),
        ]),
    ]
}

/// A connect that fails, and who fails with it.
fn unreachable() -> Vec<Case> {
    let row = "3.9 a failed connect";
    let at_once = |name: &'static str, cluster: &str| {
        let paths = ["1", "2", "3"].map(|number| format!("/{cluster}/{number}"));
        concurrent(name, row, &paths.each_ref().map(String::as_str), vec![slowly(0)])
    };
    // The first connect gives up while the second is under way; a third request comes after that.
    let one_by_one = |name: &'static str, cluster: &str| {
        let path = format!("/{cluster}");
        let list = vec![hello(&[&path]), pause(90), more(3, &[&path]), pause(85), more(5, &[&path]), Step::Streams(3)];
        crowd(name, row, "in", list).upstream(vec![slowly(0)])
    };
    let given_up = |name: &'static str, cluster: &str| {
        let paths = ["1", "2"].map(|number| format!("/{cluster}/{number}"));
        let list = vec![
            hello(&paths.each_ref().map(String::as_str)),
            pause(50),
            Step::Send(reset(1, 8)),
            pause(20),
            more(5, &[&paths[0]]),
            Step::Streams(2),
        ];
        crowd(name, row, "in", list).upstream(vec![slowly(0)])
    };
    vec![
        at_once("refused_one_connection", "dead_one"),
        at_once("refused_again", "again/dead"),
        at_once("refused_one_connection_again", "again/dead_one"),
        at_once("h2_refused_all", "dead_h2"),
        at_once("h2_refused_again", "again/dead_h2"),
        at_once("silent_all", "full"),
        at_once("silent_again", "again/full"),
        at_once("silent_one_connection", "full_one"),
        at_once("silent_one_connection_again", "again/full_one"),
        at_once("silent_two_pending", "full_two_pending"),
        at_once("silent_ahead", "full_ahead"),
        at_once("h2_silent", "full_h2"),
        at_once("h2_silent_again", "again/full_h2"),
        one_by_one("silent_one_by_one", "full"),
        one_by_one("silent_one_connection_one_by_one", "full_one"),
        one_by_one("silent_ahead_one_by_one", "full_ahead"),
        one_by_one("h2_silent_one_by_one", "full_h2"),
        given_up("silent_given_up", "full"),
        given_up("silent_one_connection_given_up", "full_one"),
        given_up("h2_silent_given_up", "full_h2"),
    ]
}

fn going_away() -> Vec<Case> {
    let row = "3.9 GOAWAY";
    let three = ["/h2/1", "/h2/2", "/h2/3"];
    let retried = ["/again_h2/1", "/again_h2/2", "/again_h2/3"];
    let by_reset = ["/reset/1", "/reset/2", "/reset/3"];
    let next = || one_by_one(4, &[]);
    let cut = || vec![frames_after(3, &[goaway(1, 0), ok(1)], 0), next()];
    vec![
        concurrent("goaway_above", row, &three, cut()),
        concurrent("goaway_above_retried", row, &retried, cut()),
        concurrent("goaway_above_by_reset", row, &by_reset, cut()),
        concurrent("goaway_none_retried", row, &retried, vec![frames_after(3, &[goaway(0, 0)], 0), next()]),
        concurrent("goaway_error_retried", row, &retried, vec![frames_after(3, &[goaway(1, 2), ok(1)], 0), next()]),
        concurrent(
            "goaway_then_close_retried",
            row,
            &retried,
            vec![
                vec![
                    Act::Frame(HEADERS),
                    Act::Frame(HEADERS),
                    Act::Frame(HEADERS),
                    Act::Send([settings(&[]), goaway(1, 0), ok(1)].concat()),
                    Act::Close,
                ],
                next(),
            ],
        ),
        concurrent(
            "goaway_close_all",
            row,
            &retried,
            vec![
                vec![
                    Act::Frame(HEADERS),
                    Act::Frame(HEADERS),
                    Act::Frame(HEADERS),
                    Act::Send([settings(&[]), goaway(5, 0)].concat()),
                    Act::Close,
                ],
                next(),
            ],
        ),
        concurrent(
            "refused_streams_retried",
            row,
            &retried,
            vec![frames_after(3, &[ok(1), reset(3, 7), reset(5, 7)], 2), next()],
        ),
        concurrent(
            "graceful_goaway",
            row,
            &retried,
            vec![frames_after(3, &[goaway(0x7fff_ffff, 0), ok(1), ok(3), goaway(3, 0)], 0), next()],
        ),
        crowd(
            "goaway_new_request_at_once",
            row,
            "in",
            vec![hello(&["/h2/1"]), pause(40), more(3, &["/h2/2"]), Step::Streams(2)],
        )
        .upstream(vec![
            vec![
                Act::Frame(HEADERS),
                Act::Send([settings(&[]), goaway(0x7fff_ffff, 0)].concat()),
                wait(120),
                Act::Send(ok(1)),
                Act::Hold,
            ],
            next(),
        ]),
        crowd(
            "goaway_idle",
            row,
            "in",
            vec![hello(&["/h2/1"]), Step::Streams(1), pause(60), more(3, &["/h2/2"]), Step::Streams(2)],
        )
        .upstream(vec![
            vec![
                Act::Frame(HEADERS),
                Act::Send([settings(&[]), ok(1)].concat()),
                wait(20),
                Act::Send(goaway(1, 0)),
                Act::Hold,
            ],
            next(),
        ]),
        crowd(
            "goaway_full_pool",
            row,
            "in",
            vec![hello(&["/h2_two/1", "/h2_two/2", "/h2_two/3"]), pause(60), more(7, &["/h2_two/4"]), Step::Streams(4)],
        )
        .upstream(vec![
            vec![
                Act::Frame(HEADERS),
                Act::Frame(HEADERS),
                Act::Send([settings(&[]), goaway(3, 0)].concat()),
                wait(120),
                Act::Send([ok(1), ok(3)].concat()),
                Act::Hold,
            ],
            vec![
                Act::Frame(HEADERS),
                Act::Send(settings(&[])),
                Act::Frame(HEADERS),
                Act::Send([ok(1), ok(3)].concat()),
                Act::Hold,
            ],
        ]),
    ]
}

fn breakers() -> Vec<Case> {
    let row = "3.6 circuit breakers";
    let three = |cluster: &str| ["1", "2", "3"].map(|number| format!("/{cluster}/{number}"));
    let at_once = |name: &'static str, cluster: &str| {
        let paths = three(cluster);
        concurrent(name, row, &paths.each_ref().map(String::as_str), vec![slowly(60)])
    };
    vec![
        at_once("one_connection", "h1_one"),
        at_once("one_connection_tracked", "h1_one_tracked"),
        at_once("one_connection_one_pending", "h1_one_pending"),
        at_once("no_connection", "h1_none"),
        at_once("two_requests", "h1_two_requests"),
        at_once("no_pools", "h1_no_pools"),
        at_once("one_pool", "h1_one_pool"),
        at_once("one_per_host", "h1_host_one"),
        at_once("none_per_host", "h1_host_none"),
        at_once("one_per_host_of_high", "h1_host_high"),
        at_once("one_per_host_high", "host_high"),
        crowd("h2_one_connection", row, "in", vec![hello(&["/h2_one/1", "/h2_one/2", "/h2_one/3"]), Step::Streams(3)])
            .upstream(vec![vec![
                Act::Frame(HEADERS),
                Act::Send(settings(&[])),
                wait(60),
                Act::Send(ok(1)),
                Act::Frame(HEADERS),
                Act::Send(ok(3)),
                Act::Hold,
            ]]),
        crowd("h2_two_priorities", row, "in", vec![hello(&["/h2_one_high/1", "/high/2"]), Step::Streams(2)])
            .upstream(vec![one_by_one(2, &[])]),
    ]
}

fn ahead() -> Vec<Case> {
    let row = "3.9 preconnect";
    let one = |name: &'static str, path: &str| {
        let list = vec![hello(&[path]), Step::Streams(1), pause(60)];
        crowd(name, row, "in", list).upstream(vec![slowly(30)])
    };
    let three = |name: &'static str, cluster: &str| {
        let paths = ["1", "2", "3"].map(|number| format!("/{cluster}/{number}"));
        let list = vec![hello(&paths.each_ref().map(String::as_str)), Step::Streams(3), pause(60)];
        crowd(name, row, "in", list).upstream(staggered())
    };
    let in_turn = |name: &'static str, cluster: &str| {
        let paths = ["1", "2"].map(|number| format!("/{cluster}/{number}"));
        let list =
            vec![hello(&[&paths[0]]), Step::Streams(1), pause(40), more(3, &[&paths[1]]), Step::Streams(2), pause(40)];
        crowd(name, row, "in", list).upstream(vec![slowly(20)])
    };
    let h2 = |name: &'static str, path: &str| {
        let list = vec![hello(&[path]), Step::Streams(1), pause(60)];
        crowd(name, row, "in", list).upstream(vec![one_by_one(2, &[])])
    };
    vec![
        one("ahead_two", "/h1_ahead"),
        one("ahead_three", "/h1_ahead_three"),
        one("ahead_one_and_a_half", "/h1_ahead_some"),
        one("ahead_limited", "/h1_ahead_limited"),
        in_turn("predicted_in_turn", "h1_predicted"),
        in_turn("predicted_three_in_turn", "h1_predicted_three"),
        in_turn("both_ahead_in_turn", "h1_both_ahead"),
        one("predicted", "/h1_predicted"),
        one("predicted_three", "/h1_predicted_three"),
        one("both_ahead", "/h1_both_ahead"),
        three("ahead_two_busy", "h1_ahead"),
        three("ahead_some_busy", "h1_ahead_some"),
        three("ahead_limited_busy", "h1_ahead_limited"),
        three("predicted_busy", "h1_predicted"),
        in_turn("ahead_two_in_turn", "h1_ahead"),
        in_turn("ahead_some_in_turn", "h1_ahead_some"),
        h2("h2_ahead", "/h2_ahead"),
        h2("h2_ahead_wide", "/h2_ahead_wide"),
        h2("h2_predicted", "/h2_predicted"),
    ]
}

fn races() -> Vec<Case> {
    let row = "3.9 a connection that closes while it is taken";
    let gone = |path: &'static str, name: &'static str, end: Act| {
        crowd(name, row, "in", vec![hello(&[path]), Step::Streams(1), more(3, &[path]), Step::Streams(2)])
            .upstream(vec![vec![Act::Request, send(OK), Act::Request, end], vec![Act::Request, send(OK)]])
    };
    vec![
        gone("/h1", "closed_on_second", Act::Close),
        gone("/h1", "reset_on_second", Act::Reset),
        gone("/again_h1", "closed_on_second_retried", Act::Close),
        gone("/again_h1", "reset_on_second_retried", Act::Reset),
        crowd(
            "closed_when_idle",
            row,
            "in",
            vec![hello(&["/h1"]), Step::Streams(1), pause(60), more(3, &["/h1"]), Step::Streams(2)],
        )
        .upstream(vec![vec![Act::Request, send(OK), Act::Close], vec![Act::Request, send(OK)]]),
        crowd(
            "reset_when_idle",
            row,
            "in",
            vec![hello(&["/h1"]), Step::Streams(1), pause(60), more(3, &["/h1"]), Step::Streams(2)],
        )
        .upstream(vec![vec![Act::Request, send(OK), wait(5), Act::Reset], vec![Act::Request, send(OK)]]),
        crowd(
            "h2_closed_on_second",
            row,
            "in",
            vec![hello(&["/again_h2"]), Step::Streams(1), more(3, &["/again_h2"]), Step::Streams(2)],
        )
        .upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send([settings(&[]), ok(1)].concat()), Act::Frame(HEADERS), Act::Close],
            one_by_one(2, &[]),
        ]),
        crowd(
            "h2_closed_when_idle",
            row,
            "in",
            vec![hello(&["/h2"]), Step::Streams(1), pause(60), more(3, &["/h2"]), Step::Streams(2)],
        )
        .upstream(vec![
            vec![Act::Frame(HEADERS), Act::Send([settings(&[]), ok(1)].concat()), wait(5), Act::Close],
            one_by_one(2, &[]),
        ]),
    ]
}

fn others() -> Vec<Case> {
    let two_clients = |name: &'static str, row: &'static str, path: &str| {
        let get = || Step::Send(request("GET", path, &[]));
        let list =
            vec![get(), Step::Responses(1), get(), Step::Responses(2), Step::Reconnect, get(), Step::Responses(1)];
        steps(name, row, "in", list)
    };
    vec![
        two_clients("per_client", "3.9 connection_pool_per_downstream_connection", "/per_client"),
        two_clients("shared_by_clients", "3.9 pools", "/h1"),
        two_clients("same_protocol_h1", "3.1 use_downstream_protocol_config", "/same"),
        concurrent(
            "same_protocol_h2",
            "3.1 use_downstream_protocol_config",
            &["/same/1", "/same/2"],
            vec![after(2, 20, &[])],
        ),
    ]
}

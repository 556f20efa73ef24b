//! The admin server of both proxies: what it says to the same bytes, and what it logs.
//!
//! Pages whose words are Legate's own (`/`, `/help`), or that show the process (`/memory`, `/server_info`), are compared by
//! their heads alone.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;

use super::report::report;
use crate::support::bootstrap::{ADMIN, TO_UP, cluster, http_listener};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::message::Message;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{self, Upstream};

/// Requests, by what is compared.
const WHOLE: &[&str] = &[
    "GET /ready",
    "GET //ready",
    "GET /a/../ready",
    "GET /%72eady",
    "GET /ready?x=/../y",
    "POST /ready",
    "PUT /ready",
    "DELETE /ready",
    "GET /quitquitquit",
    "PUT /quitquitquit",
    "GET /logging",
    "GET /reset_counters",
    "POST /reset_counters",
    "POST /reopen_logs",
    "GET /certs",
    "GET /init_dump",
    "GET /hot_restart_version",
    "GET /contention",
    "GET /clusters",
    "GET /clusters?filter=nothing",
    "GET /clusters?filter=(",
    "GET /listeners",
    "GET /listeners?format=json",
    "GET /runtime_modify",
    "POST /runtime_modify",
    "POST /runtime_modify?a=b",
    "POST /runtime_modify?a=",
    "POST /healthcheck/fail",
    "POST /healthcheck/ok",
    "POST /cpuprofiler",
    "GET /stats?filter=^cluster.up.membership",
    "GET /stats//prometheus?filter=^cluster.up.membership",
    "GET /stats?format=json&filter=^cluster.up.membership",
    "GET /stats?format=bogus",
    "GET /stats?type=bogus",
    "GET /stats?filter=(",
    "GET /stats?hidden=bogus",
    "GET /stats?histogram_buckets=bogus",
    "GET /stats/prometheus?histogram_buckets=bogus",
    "GET /config_dump?resource=static_clusters&mask=cluster.name",
];

/// Requests whose heads alone are compared.
const HEADS: &[&str] = &["GET /", "GET /help", "GET /ready/", "GET /nothing", "GET /memory", "GET /server_info"];

/// Bytes that are not what [`WHOLE`] makes of a line.
const BYTES: &[&str] = &[
    "GET /ready HTTP/1.1\r\n\r\n",
    "GET http://h/ready HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /ready HTTP/1.1\r\nhost: a\r\n\r\nGET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "POST /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxx\r\n0\r\n\r\n",
];

/// Compares all pages.
pub fn run() {
    if !Kind::require_envoy("admin pages") {
        return;
    }
    let up = Upstream::start(upstream::ok());
    let log = r#"access_log: [{name: file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "${DIR}/admin.log", log_format: {text_format_source: {inline_string: "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %BYTES_RECEIVED% %ROUTE_NAME% %UPSTREAM_CLUSTER%\n"}}}}]"#;
    let option = "socket_options: [{level: 1, name: 9, int_value: 1, state: STATE_LISTENING}]";
    let bootstrap = format!(
        "{}\nstatic_resources: {{listeners: [{}], clusters: [{}]}}\n",
        ADMIN.replace("admin: {", &format!("admin: {{{log}, {option}, ")),
        http_listener("web", "", TO_UP, ""),
        cluster("up", &[up.port()], "")
    );
    let (envoy, legate) = (Proxy::start(Kind::Envoy, &bootstrap), Proxy::start(Kind::under_test(), &bootstrap));
    let mut failures = Vec::new();
    let mut compare = |bytes: &str, whole: bool| {
        let (expected, actual) = (said(&envoy, bytes, whole), said(&legate, bytes, whole));
        if expected != actual {
            failures.push(format!("{bytes:?}\n--- Envoy\n{expected}\n--- Legate\n{actual}"));
        }
    };
    for (lines, whole) in [(WHOLE, true), (HEADS, false)] {
        for line in lines {
            let bytes = format!("{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            compare(&bytes, whole);
        }
    }
    for bytes in BYTES {
        compare(bytes, true);
    }
    let (expected, actual) = (logged(&envoy), logged(&legate));
    if expected != actual {
        failures.push(format!("the log\n--- Envoy\n{expected:#?}\n--- Legate\n{actual:#?}"));
    }
    report("admin pages differ", &failures);
}

/// What a proxy says to these bytes, without what differs from run to run.
fn said(proxy: &Proxy, bytes: &str, whole: bool) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rule = |pattern: &str, with| (Regex::new(pattern).expect("a pattern"), with);
        vec![
            rule(r"(?im)^date: .*$", "date: <date>"),
            rule(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
            rule(r#""port_value": \d+"#, r#""port_value": <port>"#),
            rule(r"::(cx|rq)_(total|active|success)::\d+", "::${1}_${2}::<n>"),
        ]
    });
    let mut client = Client::connect(proxy.admin());
    client.send(bytes.as_bytes());
    client.read_until(Duration::from_secs(5), |client| {
        // What keeps its connection is complete when its replies are.
        let replies = client.responses();
        !bytes.contains("connection: close") && replies.last().is_some_and(|reply| reply.complete)
    });
    // Long enough to see whether it closes.
    client.read_until(Duration::from_millis(200), |_| false);
    let shown = |message: &Message| {
        if whole { message.canonical() } else { message.canonical().split("\n\n").next().unwrap_or("").to_owned() }
    };
    let mut text = client.responses().iter().map(shown).collect::<Vec<_>>().join("\n--\n");
    for (pattern, with) in RULES.iter() {
        text = pattern.replace_all(&text, *with).into_owned();
    }
    format!("{text}\n<{:?}>", client.end)
}

/// The lines of the admin log but for those that waiting for the start has made.
fn logged(proxy: &Proxy) -> Vec<String> {
    let own = |line: &String| !line.contains(" admin HTTP/1.1 ");
    let expected = WHOLE.len() + HEADS.len() + BYTES.len() + 1;
    eventually("the admin log", || {
        let lines: Vec<String> = proxy.lines("admin.log").into_iter().filter(own).collect();
        (lines.len() >= expected).then_some(lines)
    })
}

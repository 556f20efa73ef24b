//! Reference 2.7: what answers say while `/healthcheck/fail` holds, by filter chain. Everything is asked before, meanwhile and after.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::report::report;
use crate::support::PATIENCE;
use crate::support::bootstrap::{bootstrap, http_listener};
use crate::support::proxy::{Kind, Proxy};
use crate::support::{eventually, message};

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// Listeners by name, with the settings of their health checks.
const CHAINS: &[(&str, &[&str])] = &[
    ("none", &[]),
    ("own", &["pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /hz}}]"]),
    ("passes", &["pass_through_mode: true, headers: [{name: ':path', string_match: {exact: /hz}}]"]),
    ("cached", &["pass_through_mode: true, cache_time: 1000s, headers: [{name: ':path', string_match: {exact: /hz}}]"]),
    (
        "two",
        &[
            "pass_through_mode: true, headers: [{name: ':path', string_match: {exact: /hz}}]",
            "pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /other}}]",
        ],
    ),
];

const REQUESTS: &[&str] = &[
    "GET /hz HTTP/1.1\r\nhost: h\r\n",
    "HEAD /hz HTTP/1.1\r\nhost: h\r\n",
    "GET /other HTTP/1.1\r\nhost: h\r\n",
    "GET /off HTTP/1.1\r\nhost: h\r\n",
    "GET /nowhere HTTP/1.1\r\nhost: elsewhere\r\n",
    "GET /without/host HTTP/1.1\r\n",
    "GET /hz HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n",
    "GET bad HTTP/1.1\r\nhost: h\r\n",
];

/// Compares all answers.
pub fn run() {
    if !Kind::require_envoy("health_failed") {
        return;
    }
    let (expected, actual) = std::thread::scope(|scope| {
        let expected = scope.spawn(|| observe(Kind::Envoy));
        let actual = observe(Kind::under_test());
        (expected.join().expect("the thread of Envoy"), actual)
    });
    let differing = expected.iter().zip(&actual).filter(|(expected, actual)| expected != actual);
    let failures: Vec<String> =
        differing.map(|(expected, actual)| format!("Envoy:\n{expected}\n  Legate:\n{actual}")).collect();
    assert_eq!(expected.len(), actual.len());
    report(&format!("{} of {} answers differ", failures.len(), expected.len()), &failures);
}

fn observe(kind: Kind) -> Vec<String> {
    let disabled = r#"typed_per_filter_config: {"0": {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}"#;
    let table = format!(
        r#"{{name: all, domains: [h], routes: [{{match: {{path: /off}}, direct_response: {{status: 204}}, {disabled}}}, {{match: {{prefix: /}}, direct_response: {{status: 201, body: {{inline_string: hi}}}}}}]}}"#
    );
    let listener = |(name, filters): &(&str, &[&str])| {
        let filters: String = filters
            .iter()
            .enumerate()
            .map(|(n, settings)| {
                format!(
                    r#"{{name: "{n}", typed_config: {{"@type": {TYPE}.health_check.v3.HealthCheck, {settings}}}}}, "#
                )
            })
            .collect();
        let chain =
            format!(r#"http_filters: [{filters}{{name: router, typed_config: {{"@type": {TYPE}.router.v3.Router}}}}]"#);
        http_listener(name, &chain, &table, "")
    };
    let listeners: Vec<String> = CHAINS.iter().map(listener).collect();
    let proxy = Proxy::start(kind, &bootstrap(&listeners, &[], "node: {id: node, cluster: mine}"));
    let mut seen = Vec::new();
    for page in ["", "/healthcheck/fail", "/healthcheck/ok"] {
        if !page.is_empty() {
            proxy.post(page);
            // Workers hear of it in their own time.
            let fails = page.ends_with("fail");
            eventually("the word", || {
                let said = ask(&proxy, "own", REQUESTS[2]).contains("x-envoy-immediate-health-check-fail");
                (said == fails).then_some(())
            });
        }
        for (name, _) in CHAINS {
            for request in REQUESTS {
                seen.push(format!("{page} {name} {request:?}\n{}", ask(&proxy, name, request)));
            }
        }
    }
    let mut counts = String::new();
    for (name, value) in proxy.stats(r"^http\.(own|passes|cached|two)\.(health_check|tracing\.health_check)") {
        // How often the word was waited for is nobody's business.
        if !name.contains("own") {
            let _ = writeln!(counts, "{name}: {value}");
        }
    }
    seen.push(counts);
    seen
}

/// The answer to a request, without its date.
fn ask(proxy: &Proxy, listener: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.listener(listener)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "{request}connection: close\r\n\r\n").expect("a request");
    let method = request.split(' ').next().unwrap_or_default();
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    // Its end may take its time.
    while message::responses(&text, &[method], false).is_empty() {
        match stream.read(&mut piece).expect("an answer") {
            0 => break,
            n => text.extend_from_slice(&piece[..n]),
        }
    }
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

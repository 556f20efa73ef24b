//! Retries, time limits, redirects and hedging in combinations that nobody would think of.
//!
//! Routes, requests and what the upstream does at each try are drawn by lot, the same ones each time; `LOT=7` draws others.
//! Time limits and delays are far enough apart that which of them passes first is no matter of luck.

use std::time::Duration;

use super::{clusters, routed, upstream};
use crate::manifest::{Area, Case, case};
use crate::support::bootstrap::{LOG_FORMAT, access_log};
use crate::support::upstream::{Act, Script};

const ROUTES: usize = 24;
const CASES: usize = 160;

/// `retry_on` of policies and requests.
const CONDITIONS: [&str; 15] = [
    "5xx",
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "cancelled",
    "resource-exhausted",
    "unavailable",
    "internal",
];

/// What a try comes to.
const OUTCOMES: [&str; 20] = [
    "200",
    "200",
    "404",
    "409",
    "429",
    "500",
    "502",
    "503",
    "503",
    "limited",
    "overloaded",
    "marked",
    "grpc 1",
    "grpc 14",
    "close",
    "reset",
    "slow",
    "hang",
    "cut",
    "redirect",
];

/// The area.
pub fn area() -> Area {
    let lot = std::env::var("LOT").ok().and_then(|lot| lot.parse().ok()).unwrap_or(1);
    let mut lots = Lots(fastrand::Rng::with_seed(lot));
    let routes: Vec<String> = (0..ROUTES).map(|n| lots.route(n)).collect();
    let of_host = lots.policy();
    let host = |more: &str| format!(r#"{{name: all, domains: ["*"], {more} routes: [{}]}}"#, routes.join(", "));
    let log = |name: &str| format!("access_log: [{}]", access_log(name).replace(LOG_FORMAT, &tried()));
    let internal = "use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}";
    let counted = "include_request_attempt_count: true, include_attempt_count_in_response: true,";
    let listeners = vec![
        routed("plain", &log("plain"), &host(counted)),
        routed("trusted", &format!("{internal}, {}", log("trusted")), &host("include_is_timeout_retry_header: true,")),
        routed("host", &log("host"), &host(&format!("retry_policy: {of_host},"))),
    ];
    let mut clusters = clusters();
    clusters.push(upstream("one_retry", "${UP}", "circuit_breakers: {thresholds: [{max_retries: 1}]}"));
    let cases = (0..CASES).map(|n| lots.case(n)).collect();
    Area { name: "generated", listeners, clusters, more: "", cases }
}

fn tried() -> String {
    format!("{LOG_FORMAT} tried=%UPSTREAM_HOSTS_ATTEMPTED%")
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// What decides.
struct Lots(fastrand::Rng);

impl Lots {
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.usize(..of.len())]
    }

    /// One time in so many.
    fn chance(&mut self, of: u32) -> bool {
        self.0.u32(..of) == 0
    }

    fn conditions(&mut self) -> String {
        let number = self.0.usize(1..=3);
        self.0.choose_multiple(CONDITIONS, number).join(",")
    }

    fn policy(&mut self) -> String {
        let mut fields = vec![
            format!(r#"retry_on: "{}""#, self.conditions()),
            // Between tries there is as good as no time, so that none of the other limits passes there.
            "retry_back_off: {base_interval: 0.001s, max_interval: 0.002s}".to_owned(),
        ];
        if self.chance(2) {
            fields.push(format!("num_retries: {}", self.0.u32(0..=3)));
        }
        if self.chance(3) {
            fields.push(format!("per_try_timeout: {}", self.one(&["0.09s", "0s", "9s"])));
        }
        if self.chance(8) {
            fields.push("per_try_idle_timeout: 0.12s".to_owned());
        }
        if self.chance(3) {
            fields.push(format!("retriable_status_codes: [{}]", self.one(&["404, 200", "429, 500", "503"])));
        }
        if self.chance(3) {
            fields.push("retriable_headers: [{name: x-again}]".to_owned());
        }
        if self.chance(6) {
            fields.push(r#"retriable_request_headers: [{name: ":method", string_match: {exact: GET}}]"#.to_owned());
        }
        format!("{{{}}}", fields.join(", "))
    }

    fn route(&mut self, number: usize) -> String {
        let mut action = vec![format!("cluster: {}", self.one(&["up", "up", "up", "one_retry", "dead"]))];
        if !self.chance(5) {
            action.push(format!("retry_policy: {}", self.policy()));
        }
        if self.chance(3) {
            action.push(format!("timeout: {}", self.one(&["0.2s", "0s", "9s"])));
        }
        if self.chance(10) {
            action.push("idle_timeout: 0.2s".to_owned());
        }
        if self.chance(10) {
            action.push("max_stream_duration: {max_stream_duration: 0.2s}".to_owned());
        }
        if self.chance(6) {
            action.push("hedge_policy: {hedge_on_per_try_timeout: true}".to_owned());
        }
        if self.chance(5) {
            action.push(format!("internal_redirect_policy: {{max_internal_redirects: {}}}", self.0.u32(1..=2)));
        }
        let limit = if self.chance(6) {
            format!("request_body_buffer_limit: {},", self.one(&["0", "4", "1000"]))
        } else {
            String::new()
        };
        format!(r#"{{name: r{number}, {limit} match: {{prefix: "/r{number}/"}}, route: {{{}}}}}"#, action.join(", "))
    }

    fn case(&mut self, number: usize) -> Case {
        let method = self.one(&["GET", "GET", "POST", "HEAD"]);
        let route = self.0.usize(..ROUTES);
        let mut head = format!("{method} /r{route}/x HTTP/1.1\r\nhost: test\r\n");
        for (name, values) in [
            ("x-envoy-retry-on", &["5xx", "gateway-error,retriable-4xx", "reset", "connect-failure"][..]),
            ("x-envoy-retry-grpc-on", &["unavailable", "cancelled,internal"]),
            ("x-envoy-max-retries", &["0", "1", "2", "x"]),
            ("x-envoy-upstream-rq-timeout-ms", &["200", "0", "9000", "x"]),
            ("x-envoy-upstream-rq-per-try-timeout-ms", &["90", "0", "9000"]),
            ("x-envoy-upstream-rq-timeout-alt-response", &["1"]),
            ("x-envoy-retriable-status-codes", &["404", "200,500", "x"]),
            ("x-envoy-retriable-header-names", &["x-again"]),
            ("x-envoy-hedge-on-per-try-timeout", &["true", "false"]),
            ("content-type", &["application/grpc"]),
        ] {
            if self.chance(8) {
                head.push_str(&format!("{name}: {}\r\n", self.one(values)));
            }
        }
        let bytes = if method == "POST" {
            let body = "b".repeat([0, 3, 900, 5000][self.0.usize(..4)]);
            if self.chance(2) {
                format!("{head}content-length: {}\r\n\r\n{body}", body.len())
            } else {
                let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
                format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
            }
        } else {
            format!("{head}\r\n")
        };
        let listener = self.one(&["plain", "trusted", "trusted", "host"]);
        let methods: &[&'static str] = if method == "HEAD" { &["HEAD"] } else { &[] };
        let tries = self.0.usize(1..=3);
        let mut script: Script = (0..tries).map(|_| acts(self.one(&OUTCOMES), method)).collect();
        // What comes after the tries that were drawn.
        script.push(acts("200", method));
        case(leaked(format!("lot {number}")), "2.8 and 2.7 combined", listener, bytes).methods(methods).upstream(script)
    }
}

/// What the upstream does at a try. Its connection ends with it, so that each try has its own.
fn acts(outcome: &str, method: &str) -> Vec<Act> {
    let reply = |status: &str, lines: &str, body: &str| {
        let body = if method == "HEAD" { "" } else { body };
        let head =
            format!("HTTP/1.1 {status} So\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n", body.len());
        Act::Send(format!("{head}{body}").into_bytes())
    };
    let then = |acts: Vec<Act>| [vec![Act::Request], acts].concat();
    match outcome {
        "limited" => then(vec![reply("429", "x-envoy-ratelimited: true\r\n", "slower"), Act::Close]),
        "overloaded" => then(vec![reply("503", "x-envoy-overloaded: true\r\n", "full"), Act::Close]),
        "marked" => then(vec![reply("200", "x-again: please\r\n", "again"), Act::Close]),
        "grpc 1" => then(vec![reply("200", "content-type: application/grpc\r\ngrpc-status: 1\r\n", ""), Act::Close]),
        "grpc 14" => then(vec![reply("200", "content-type: application/grpc\r\ngrpc-status: 14\r\n", ""), Act::Close]),
        "redirect" => then(vec![reply("302", "location: http://test/r0/other\r\n", ""), Act::Close]),
        "close" => then(vec![Act::Close]),
        "reset" => then(vec![Act::Reset]),
        "slow" => then(vec![Act::Pause(Duration::from_millis(140)), reply("200", "", "late"), Act::Close]),
        "hang" => then(vec![Act::Hold]),
        "cut" => then(vec![Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_vec()), Act::Close]),
        status => then(vec![reply(status, "", "body"), Act::Close]),
    }
}

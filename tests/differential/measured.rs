//! What `track_cluster_stats` has both proxies measure of the same requests: the histograms, as they are scraped.
//!
//! Of what depends on time only the number of samples is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::report::report;
use crate::support::bootstrap::{ADMIN, cluster, http_listener};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Script, Upstream};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\nhello";
const FAILED: &[u8] = b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nfail";
const CONTINUED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";

/// Requests, what the upstream does about each try, and how many of those there are.
fn exchanges() -> Vec<(&'static str, &'static str, Script, u64)> {
    let send = |bytes: &[u8]| vec![Act::Request, Act::Send(bytes.to_vec())];
    let late = || vec![Act::Request, Act::Pause(Duration::from_millis(600)), Act::Send(OK.to_vec())];
    vec![
        ("GET /", "", vec![send(OK)], 1),
        ("POST /", "seven b", vec![send(OK)], 1),
        ("GET /informed", "", vec![send(CONTINUED)], 1),
        ("GET /endless", "", vec![send(OK)], 1),
        ("GET /again", "", vec![send(FAILED), send(OK)], 2),
        ("POST /again", "kept", vec![send(FAILED), send(FAILED)], 2),
        ("GET /short", "", vec![late()], 1),
        ("GET /tries", "", vec![late(), late()], 2),
        ("GET /cut", "", vec![vec![Act::Request, Act::Close]], 1),
        ("POST /dead", "never sent", vec![], 1),
    ]
}

const ROUTES: &str = r#"{name: all, domains: ["*"], routes: [
    {match: {prefix: /endless}, route: {cluster: up, timeout: 0s}},
    {match: {prefix: /again}, route: {cluster: up, prefix_rewrite: /twice, retry_policy: {retry_on: 5xx}}},
    {match: {prefix: /short}, route: {cluster: up, timeout: 0.15s}},
    {match: {prefix: /tries}, route: {cluster: up, retry_policy: {retry_on: 5xx, per_try_timeout: 0.1s}}},
    {match: {prefix: /dead}, route: {cluster: dead}},
    {match: {prefix: /}, route: {cluster: up}}]}"#;

/// Compares what both have measured after each exchange.
pub fn run() {
    if !Kind::require_envoy("measured requests") {
        return;
    }
    let (mut envoy, mut legate) = (Side::start(Kind::Envoy), Side::start(Kind::under_test()));
    let mut failures = Vec::new();
    for (line, body, script, tries) in exchanges() {
        let (expected, actual) =
            (envoy.exchange(line, body, &script, tries), legate.exchange(line, body, &script, tries));
        let names: BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
        for name in names.into_iter().filter(|name| expected.get(*name) != actual.get(*name)) {
            failures.push(format!("{line}: {name}: Envoy {:?}, Legate {:?}", expected.get(name), actual.get(name)));
        }
    }
    report("what is measured differs", &failures);
}

/// A proxy with an upstream of its own.
struct Side {
    proxy: Proxy,
    up: Upstream,
    tries: u64,
    measured: BTreeMap<String, f64>,
}

impl Side {
    fn start(kind: Kind) -> Self {
        let up = Upstream::start(Vec::new());
        let dead = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port");
        // Each try has a connection of its own, and so a script.
        let tracked = "max_requests_per_connection: 1, \
            track_cluster_stats: {timeout_budgets: true, request_response_sizes: true}";
        let bootstrap = format!(
            "{ADMIN}\nstats_flush_interval: 0.02s\nstatic_resources: {{listeners: [{}], clusters: [{}, {}]}}\n",
            http_listener("web", "", &ROUTES.replace('\n', ""), ""),
            cluster("up", &[up.port()], tracked),
            cluster(
                "dead",
                &[dead.port()],
                "track_timeout_budgets: true, track_cluster_stats: {request_response_sizes: true}"
            ),
        );
        Self { proxy: Proxy::start(kind, &bootstrap), up, tries: 0, measured: BTreeMap::new() }
    }

    /// Makes a request, and says what was measured of it.
    fn exchange(&mut self, line: &str, body: &str, script: &Script, tries: u64) -> BTreeMap<String, f64> {
        self.up.script(script.clone());
        let mut client = Client::connect(self.proxy.listener("web"));
        let length = body.len();
        client.send(format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes());
        client
            .read_until(Duration::from_secs(5), |client| client.responses().last().is_some_and(|reply| reply.complete));
        self.tries += tries;
        // Histograms are merged one after another: what stays as it is, is all.
        let mut last = BTreeMap::new();
        let measured = eventually("all tries measured", || {
            let page = self.measured();
            let tried: f64 =
                page.iter().filter(|(name, _)| name.contains("rq_body_size_count")).map(|(_, count)| count).sum();
            let settled = page == last && tried >= self.tries as f64;
            last = page;
            std::thread::sleep(Duration::from_millis(30));
            settled.then(|| last.clone())
        });
        let before = std::mem::replace(&mut self.measured, measured);
        let change = |(name, value): (&String, &f64)| {
            // Sums are of approximations, and in no order.
            let change = value - before.get(name).copied().unwrap_or(0.0);
            (name.clone(), (change * 1e6).round() / 1e6)
        };
        self.measured.iter().map(change).filter(|(_, change)| *change != 0.0).collect()
    }

    fn measured(&self) -> BTreeMap<String, f64> {
        let page = self.proxy.get("/stats/prometheus?filter=upstream_r[qs]_(headers|body|timeout_budget)");
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let wanted = !name.starts_with('#') && (name.contains("_count{") || !name.contains("budget"));
            wanted.then_some((name.to_owned(), value.parse().ok()?))
        };
        page.body.lines().filter_map(line).collect()
    }
}

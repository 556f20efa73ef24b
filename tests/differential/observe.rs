//! Runs cases against one proxy and writes down everything that can be seen from outside.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;

use super::known::{self, Aspect};
use super::manifest::{Action, Area, Case, Step};
use crate::support::PATIENCE;
use crate::support::bootstrap::bootstrap;
use crate::support::client::{Client, End};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{self, DeadPort, FullPort, Upstream};
use crate::support::{frames, h2_client, message};

/// What was seen of a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// What the client received, and how its connection ended.
    pub client: String,
    /// What the upstreams received.
    pub upstream: String,
    /// The access log's lines.
    pub log: String,
    /// How the statistics changed.
    pub stats: BTreeMap<String, i64>,
    /// The statuses that the client saw.
    pub statuses: Vec<u16>,
}

/// A proxy with the upstreams of an area.
pub struct Side {
    /// The proxy; none if it did not start.
    pub proxy: Proxy,
    /// Listeners it refuses, with the reason.
    pub refused: BTreeMap<&'static str, String>,
    up: Upstream,
    up2: Upstream,
    h2: H2Upstream,
    _dead: DeadPort,
    _full: FullPort,
    stats: BTreeMap<String, i64>,
    lines: BTreeMap<&'static str, usize>,
}

impl Side {
    /// Starts a proxy for an area. Listeners that it refuses are left out, so that the other cases still run.
    pub fn start(kind: Kind, area: &Area) -> Result<Self, String> {
        let (up, up2) = (Upstream::start(upstream::ok()), Upstream::start(upstream::ok()));
        let (h2, dead, full) = (H2Upstream::start(Behaviour::Ok), DeadPort::new(), FullPort::new());
        let filled = |text: &str| {
            text.replace("${UP}", &up.port().to_string())
                .replace("${UP2}", &up2.port().to_string())
                .replace("${H2}", &h2.port().to_string())
                .replace("${DEAD}", &dead.port().to_string())
                .replace("${FULL}", &full.port().to_string())
        };
        let clusters: Vec<String> = area.clusters.iter().map(|cluster| filled(cluster)).collect();
        let with = |listeners: &[(&'static str, String)]| {
            let listeners: Vec<String> = listeners.iter().map(|(_, listener)| filled(listener)).collect();
            bootstrap(&listeners, &clusters, area.more)
        };
        let mut refused = BTreeMap::new();
        let proxy = Proxy::try_start(kind, &with(&area.listeners), &[]).or_else(|whole| {
            let mut accepted = Vec::new();
            for (name, listener) in &area.listeners {
                let one = [(*name, listener.clone())];
                match Proxy::try_start(kind, &with(&one), &[]) {
                    Ok(_) => accepted.push((*name, listener.clone())),
                    Err(error) => drop(refused.insert(*name, error)),
                }
            }
            if accepted.is_empty() { Err(whole) } else { Proxy::try_start(kind, &with(&accepted), &[]) }
        })?;
        let stats = counted(&proxy);
        Ok(Self { proxy, refused, up, up2, h2, _dead: dead, _full: full, stats, lines: BTreeMap::new() })
    }

    /// Runs a case. `settle` is how long an answered connection is watched for what may still come.
    pub fn observe(&mut self, case: &Case, settle: Duration) -> Observed {
        if let Some(reason) = self.refused.get(case.listener) {
            return Observed { client: format!("<listener refused> {reason}"), ..Observed::default() };
        }
        self.up.script(case.upstream.clone());
        self.up2.script(upstream::reply("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"));
        self.h2.behave(case.h2.clone());

        let address = self.proxy.listener(case.listener);
        let (client, statuses) = act(&case.client, address, settle);
        let quiet =
            self.wait_until_quiet(case, |name| name.ends_with("_rq_active") || name.contains("downstream_cx_active"));
        let upstream = self.upstream_record();
        self.up.hang_up();
        self.up2.hang_up();
        self.h2.hang_up();
        // A TCP session may have needed that to end, so only what is still busy now is worth a remark.
        let quiet = self.wait_until_quiet(case, |name| name.ends_with("_active")) && (quiet || case.is_tunnel());

        let stats = counted(&self.proxy);
        let change = |(name, value): (&String, &i64)| {
            let change = value - self.stats.get(name).copied().unwrap_or(0);
            (change != 0).then(|| (name.clone(), change))
        };
        let changes: BTreeMap<String, i64> = stats.iter().filter_map(change).collect();
        self.stats = stats;
        let log = self.new_lines(case, &changes, settle);
        let noise = if quiet { "" } else { "\n<not quiet>" };
        Observed {
            client: self.normalise(&client, case) + noise,
            upstream: self.normalise(&upstream, case),
            log: self.normalise(&log, case),
            stats: changes,
            statuses,
        }
    }

    /// Waits until the gauges of what is active are at rest.
    fn wait_until_quiet(&self, case: &Case, gauge: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_millis(1500);
        let own = format!(".{}.", case.listener);
        loop {
            let stats = self.proxy.stats(r"^(http|listener|cluster)\..*_active$");
            let busy = |(name, value): (&String, &i64)| {
                let relevant = name.starts_with("cluster.") || name.contains(&own);
                relevant && gauge(name) && !name.contains("circuit_breakers") && *value != 0
            };
            if !stats.iter().any(busy) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// What the upstreams received, as text.
    fn upstream_record(&self) -> String {
        let mut text = String::new();
        for (name, upstream) in [("up", &self.up), ("up2", &self.up2)] {
            for (index, bytes) in upstream.received().iter().enumerate() {
                text.push_str(&format!("-- {name} connection {index}\n"));
                if frames::is_client(bytes) {
                    text.push_str(&format!("{}\n", frames::summary(bytes)));
                    continue;
                }
                for request in message::requests(bytes) {
                    text.push_str(&request.canonical());
                    text.push('\n');
                }
            }
        }
        for request in self.h2.requests() {
            text.push_str(&format!("-- h2\n{request}\n"));
        }
        text
    }

    /// Text without what differs from run to run.
    fn normalise(&self, text: &str, case: &Case) -> String {
        let port = self.proxy.listener(case.listener).port();
        normalise(text).replace(&format!("x-forwarded-port: {port}"), "x-forwarded-port: <port>")
    }

    /// The log lines of this case: as many as there were requests (or connections, where there is no HTTP), and what else
    /// comes within `settle`; they are waited for as patiently as the attempt asks.
    fn new_lines(&mut self, case: &Case, changes: &BTreeMap<String, i64>, settle: Duration) -> String {
        let requests = changes.get(&format!("http.{}.downstream_rq_total", case.listener));
        let connections = changes.get(&format!("listener.{}.downstream_cx_total", case.listener));
        let is_http = self.stats.contains_key(&format!("http.{}.downstream_cx_total", case.listener));
        let expected = if is_http { requests } else { connections };
        let expected = usize::try_from(expected.copied().unwrap_or(0)).unwrap_or(0);
        let seen = self.lines.get(case.listener).copied().unwrap_or(0);
        let file = format!("{}.log", case.listener);
        let looked_at = known::looked_at(Aspect::Log);
        // The first attempt takes what there is.
        let more = settle.saturating_sub(super::run::SETTLE[0]);
        let settled = Instant::now() + if looked_at { more } else { Duration::ZERO };
        let deadline = settled + if looked_at { Duration::from_millis(400) } else { Duration::ZERO };
        loop {
            let lines = self.proxy.lines(&file);
            let now = Instant::now();
            if lines.len() >= seen + expected && now > settled || now > deadline {
                self.lines.insert(case.listener, lines.len());
                let mut lines = lines.get(seen..).unwrap_or_default().to_vec();
                if matches!(case.client, Action::Streams(_)) {
                    lines.sort();
                }
                return lines.join("\n");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Does what the client does; returns what it saw and the final statuses.
fn act(action: &Action, address: std::net::SocketAddr, settle: Duration) -> (String, Vec<u16>) {
    match action {
        Action::Bytes(steps, methods) => {
            let mut earlier = Vec::new();
            let mut client = Client::connect(address).methods(methods);
            for step in steps {
                if matches!(step, Step::Reconnect) {
                    let next = Client::connect(address).methods(methods);
                    earlier.push(messages(&mut std::mem::replace(&mut client, next), Duration::ZERO));
                } else {
                    take(&mut client, step);
                }
            }
            if client.end == End::Reset && matches!(steps.last(), Some(Step::Reset)) {
                return ("<reset by the client>".to_owned(), Vec::new());
            }
            earlier.push(messages(&mut client, settle));
            let (texts, statuses): (Vec<String>, Vec<Vec<u16>>) = earlier.into_iter().unzip();
            (texts.join("\n== another connection\n"), statuses.concat())
        }
        Action::H2(requests) => {
            let (replies, closed) = h2_client::converse(address, requests);
            let text: Vec<String> = replies.iter().map(h2_client::H2Reply::canonical).collect();
            let end = if closed { End::Closed } else { End::Open };
            (format!("{}\n<{end:?}>", text.join("\n--\n")), replies.iter().map(|reply| reply.status).collect())
        }
        Action::Frames(steps) | Action::Streams(steps) => {
            let summary = if matches!(action, Action::Streams(_)) { frames::by_stream } else { frames::summary };
            let mut text = String::new();
            let mut client = Client::connect(address);
            for step in steps {
                if matches!(step, Step::Reconnect) {
                    let ended = std::mem::replace(&mut client, Client::connect(address));
                    text = format!("{text}{}\n<{:?}>\n== another connection\n", summary(&ended.received), ended.end);
                } else {
                    take(&mut client, step);
                }
            }
            client.read_until(settle, |_| false);
            (format!("{text}{}\n<{:?}>", summary(&client.received), client.end), Vec::new())
        }
    }
}

/// The messages on a connection, how it ended, and the final statuses.
fn messages(client: &mut Client, settle: Duration) -> (String, Vec<u16>) {
    // A connection that is said to close is waited for; whether by FIN or by reset depends on who was first.
    let last = client.responses().into_iter().next_back().filter(|message| message.complete);
    let closing = last.is_some_and(|message| message.header("connection") == Some("close"));
    client.read_until(if closing { Duration::from_secs(2) } else { settle }, |_| false);
    if closing && client.end == End::Reset {
        client.end = End::Closed;
    }
    let messages = client.responses();
    let statuses = messages.iter().map(message::Message::status).collect();
    let text: Vec<String> = messages.iter().map(message::Message::canonical).collect();
    (format!("{}\n<{:?}>", text.join("\n--\n"), client.end), statuses)
}

fn take(client: &mut Client, step: &Step) {
    match step {
        Step::Send(bytes) => client.send(bytes),
        Step::Responses(count) => drop(client.read_until(Duration::from_secs(4), |client| {
            client
                .responses()
                .iter()
                .filter(|message| message.complete && (message.status() == 101 || message.status() >= 200))
                .count()
                >= *count
        })),
        Step::Until(text) => {
            client.read_until(PATIENCE, |client| message::find(&client.received, text.as_bytes()).is_some());
        }
        Step::Streams(count) => drop(client.read_until(Duration::from_secs(3), |client| {
            let frames = frames::received(&client.received);
            let ends = |frame: &&frames::Frame| match frame.kind {
                frames::RST_STREAM => true,
                frames::DATA | frames::HEADERS => frame.flags & frames::END_STREAM != 0,
                _ => false,
            };
            frames.iter().any(|frame| frame.kind == frames::GOAWAY) || frames.iter().filter(ends).count() >= *count
        })),
        // Whoever holds the connections sees to it.
        Step::Reconnect => {}
        Step::End => drop(client.read_until(Duration::from_secs(4), |_| false)),
        Step::HalfClose => client.half_close(),
        Step::Reset => client.reset(),
        Step::Pause(time) => drop(client.read_until(*time, |_| false)),
    }
}

/// Counters and gauges worth comparing.
fn counted(proxy: &Proxy) -> BTreeMap<String, i64> {
    /// Bytes depend on the digits of a duration; the others on the event loop's turns or the process's start.
    const IGNORED: [&str; 8] = [
        "_bytes_total",
        "_bytes_buffered",
        "connections_accepted_per_socket_event",
        ".membership_",
        ".update_",
        ".warming_state",
        ".version",
        "listener.admin.",
    ];
    let mut stats =
        proxy.stats(r"^(http|http1|http2|listener|cluster|tcp|tls_inspector|vhost|http_inspector|proxy_proto)\.");
    stats.retain(|name, _| !IGNORED.iter().any(|ignored| name.contains(ignored)) && !name.starts_with("http.admin."));
    stats
}

/// Replaces what differs from run to run.
fn normalise(text: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rule = |pattern: &str, with| (Regex::new(pattern).expect("a pattern"), with);
        vec![
            rule(r"(?im)^(date: ).*$", "${1}<date>"),
            rule(r"(?im)^(x-envoy-upstream-service-time: )\d+", "${1}<ms>"),
            rule(r"[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid ${1}>"),
            rule(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
            rule(r#"(?m)^\[\d{4}-[^]]*\] ("[^"]*" \S+ \S+ \d+ \d+) \d+ (-|\d+)"#, "[<time>] ${1} <n> <n>"),
            rule(r"( is <)\d+>", "${1}n>"),
            rule(r#"("t [^"]+":)\d+"#, "${1}n"),
            rule(r"(PROXY TCP4 \S+ \S+) \d+ \d+", "${1} <port> <port>"),
            rule(r"(?s)(QUIT\n.{4}\x7f..\x01\x7f..\x01).{4}", "${1}<ports>"),
            // What is left of 15 s, 9 s, 200 ms and 90 ms when a try begins.
            rule(r"(?i)(x-envoy-expected-rq-timeout-ms: )14[5-9]\d\d", "${1}15000"),
            rule(r"(?i)(x-envoy-expected-rq-timeout-ms: )8[5-9]\d\d", "${1}9000"),
            rule(r"(?i)(x-envoy-expected-rq-timeout-ms: )1[6-9]\d\b", "${1}200"),
            rule(r"(?i)(x-envoy-expected-rq-timeout-ms: )[78]\d\b", "${1}90"),
        ]
    });
    let mut text = text.to_owned();
    for (pattern, with) in RULES.iter() {
        text = pattern.replace_all(&text, *with).into_owned();
    }
    text
}

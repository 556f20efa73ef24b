//! The TCP proxy over TLS: how bytes, half closes and ends pass where either side is encrypted, both are, or a session passes
//! through as it is.

mod ends;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use self::ends::End;
use crate::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, listener_of};
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::{PATIENCE, eventually};

const TYPE: &str = "type.googleapis.com/envoy.extensions";
const FORMAT: &str = "%RESPONSE_FLAGS% in=%BYTES_RECEIVED% out=%BYTES_SENT% details=%RESPONSE_CODE_DETAILS% \
    end=%CONNECTION_TERMINATION_DETAILS% sni=%REQUESTED_SERVER_NAME% down=%DOWNSTREAM_TLS_VERSION% \
    peer=%DOWNSTREAM_PEER_SUBJECT% up=%UPSTREAM_TLS_VERSION% server=%UPSTREAM_PEER_SUBJECT% \
    why=%UPSTREAM_TRANSPORT_FAILURE_REASON% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%";

/// Which sides of the proxy are encrypted, and by whom.
const WAYS: [Way; 4] = [
    Way { name: "down", client: true, upstream: false, passed: false },
    Way { name: "up", client: false, upstream: true, passed: false },
    Way { name: "both", client: true, upstream: true, passed: false },
    Way { name: "passed", client: true, upstream: true, passed: true },
];

#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// The client speaks TLS.
    client: bool,
    /// The upstream does.
    upstream: bool,
    /// With each other: the proxy has looked at the name only.
    passed: bool,
}

/// Who does something.
#[derive(Clone, Copy)]
enum Who {
    Client,
    Upstream,
}

/// What an end does.
#[derive(Clone, Copy)]
enum Act {
    /// Sends so many bytes.
    Send(usize),
    /// Reads so many.
    Expect(usize),
    /// Sends so many while the other end reads them.
    Pour(usize),
    /// Says `close_notify` (where it speaks TLS) and sends no more.
    Finish,
    /// Says `close_notify` and keeps the connection open.
    Notify,
    /// Reads to the end, and says which it was.
    AwaitEnd,
    /// Ends in order and is gone.
    Leave,
}

type Conversation = (&'static str, &'static [(Who, Act)]);

/// What is said, step by step.
fn conversations() -> Vec<Conversation> {
    use Act::{AwaitEnd, Expect, Finish, Leave, Notify, Pour, Send};
    use Who::{Client, Upstream};
    vec![
        (
            "the client ends first",
            &[
                (Client, Send(5)),
                (Upstream, Expect(5)),
                (Client, Finish),
                (Upstream, AwaitEnd),
                (Upstream, Send(7)),
                (Client, Expect(7)),
                (Upstream, Finish),
                (Client, AwaitEnd),
            ],
        ),
        (
            "the upstream ends first",
            &[
                (Client, Send(5)),
                (Upstream, Expect(5)),
                (Upstream, Send(3)),
                (Upstream, Finish),
                (Client, Expect(3)),
                (Client, AwaitEnd),
                (Client, Send(7)),
                (Upstream, Expect(7)),
                (Client, Finish),
                (Upstream, AwaitEnd),
            ],
        ),
        (
            "the upstream speaks first",
            &[
                (Upstream, Send(20)),
                (Client, Expect(20)),
                (Client, Send(9)),
                (Upstream, Expect(9)),
                (Upstream, Leave),
                (Client, AwaitEnd),
            ],
        ),
        (
            "the client notifies only",
            &[
                (Client, Send(5)),
                (Upstream, Expect(5)),
                (Client, Notify),
                (Upstream, AwaitEnd),
                (Upstream, Send(7)),
                (Client, Expect(7)),
                (Upstream, Leave),
                (Client, AwaitEnd),
            ],
        ),
        (
            "the upstream notifies only",
            &[
                (Client, Send(5)),
                (Upstream, Expect(5)),
                (Upstream, Notify),
                (Client, AwaitEnd),
                (Client, Send(7)),
                (Upstream, Expect(7)),
                (Client, Leave),
                (Upstream, AwaitEnd),
            ],
        ),
        (
            "much is said at the end",
            &[(Client, Pour(300_000)), (Client, Finish), (Upstream, AwaitEnd), (Upstream, Leave), (Client, AwaitEnd)],
        ),
        (
            "much both ways",
            &[
                (Client, Pour(4 << 20)),
                (Upstream, Pour(4 << 20)),
                (Upstream, Finish),
                (Client, AwaitEnd),
                (Client, Finish),
                (Upstream, AwaitEnd),
            ],
        ),
        ("nothing is said", &[(Client, AwaitEnd), (Upstream, AwaitEnd)]),
    ]
}

/// A context of either side: all certificates are of the same authority, and both sides show theirs.
fn socket(kind: &str, name: &str, more: &str, pki: &Pki) -> String {
    let kind = format!("{TYPE}.transport_sockets.tls.v3.{kind}TlsContext");
    let common = "tls_params: {tls_maximum_protocol_version: TLSv1_3}, tls_certificates: [{certificate_chain: {filename: \
                  $/NAME.pem}, private_key: {filename: $/NAME.key}}], validation_context: {trusted_ca: {filename: $/ca.pem}}";
    let common = common.replace('$', &pki.directory().display().to_string()).replace("NAME", name);
    let context = format!(r#""@type": {kind}, {more} common_tls_context: {{{common}}}"#);
    format!("transport_socket: {{name: tls, typed_config: {{{context}}}}}")
}

/// Listeners by the names of ways; each has a cluster of its own.
fn document(ports: &[u16], pki: &Pki) -> String {
    let format = |way: &Way| {
        if way.passed { FORMAT.replace("in=%BYTES_RECEIVED% out=%BYTES_SENT%", "") } else { FORMAT.to_owned() }
    };
    let log = format!(
        r#"{{name: file, typed_config: {{"@type": {TYPE}.access_loggers.file.v3.FileAccessLog, path: "${{DIR}}/LOG.log", log_format: {{text_format_source: {{inline_string: "FORMAT\n"}}}}}}}}"#
    );
    let mut listeners = Vec::new();
    let mut clusters = Vec::new();
    for (way, port) in WAYS.iter().zip(ports) {
        let name = way.name;
        let proxy = format!(
            r#"{{name: tcp, typed_config: {{"@type": {TYPE}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: {name}, cluster: {name}, idle_timeout: 1s, access_log: [{}]}}}}"#,
            log.replace("LOG", name).replace("FORMAT", &format(way))
        );
        let inspector = format!(
            r#"listener_filters: [{{name: tls_inspector, typed_config: {{"@type": {TYPE}.filters.listener.tls_inspector.v3.TlsInspector}}}}],"#
        );
        let (matches, filters) =
            if way.passed { ("filter_chain_match: {server_names: [srv.test]},", &*inspector) } else { ("", "") };
        let transport = if way.client && !way.passed {
            format!(", {}", socket("Downstream", "server", "require_client_certificate: true,", pki))
        } else {
            String::new()
        };
        let chains = format!("filter_chains: [{{{matches} filters: [{proxy}]{transport}}}]");
        listeners.push(listener_of(name, &chains, filters));
        let transport = if way.upstream && !way.passed {
            socket("Upstream", "client", "sni: srv.test,", pki)
        } else {
            String::new()
        };
        clusters.push(cluster(name, &[*port], &transport));
    }
    bootstrap(&listeners, &clusters, "")
}

/// Has one conversation; what either end saw.
fn converse(way: Way, steps: &[(Who, Act)], proxy: SocketAddr, upstream: &TcpListener, pki: &Pki) -> String {
    let (sender, receiver) = mpsc::channel();
    let accepted = std::thread::scope(|scope| {
        // Upstream's handshake may be part of the client's.
        scope.spawn(|| {
            let (socket, _) = upstream.accept().expect("a connection of the proxy");
            let _ = sender.send(End::accept(socket, way.upstream.then_some(pki)));
        });
        let client = End::connect(proxy, way.client.then_some(pki));
        receiver.recv_timeout(PATIENCE).map(|upstream| (client, upstream))
    });
    let Ok((mut client, mut upstream)) = accepted else { return "no connection".to_owned() };
    let mut seen = Vec::new();
    for (who, act) in steps {
        let (name, own, other) = match who {
            Who::Client => ("client", &mut client, &mut upstream),
            Who::Upstream => ("upstream", &mut upstream, &mut client),
        };
        let saw = match *act {
            Act::Send(n) => own.send(n),
            Act::Expect(n) => own.expect(n),
            Act::Pour(n) => std::thread::scope(|scope| {
                let reads = scope.spawn(|| other.expect(n));
                let sent = own.send(n);
                format!("{sent}, the other {}", reads.join().expect("a thread that ends"))
            }),
            Act::Finish => own.finish(),
            Act::Notify => own.notify(),
            Act::AwaitEnd => own.await_end(),
            Act::Leave => own.leave(),
        };
        seen.push(format!("{name} {saw}"));
    }
    seen.join("\n")
}

fn observe(kind: Kind, pki: &Pki) -> BTreeMap<String, String> {
    let upstreams = WAYS.map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let ports = upstreams.each_ref().map(|it| it.local_addr().expect("an address").port());
    let proxy = Proxy::start(kind, &document(&ports, pki));
    let wanted = std::env::var("CASES").unwrap_or_default();
    let mut seen = BTreeMap::new();
    for (way, upstream) in WAYS.into_iter().zip(&upstreams) {
        let mut counted = counters(&proxy, way);
        let mut logged = 0;
        for (title, steps) in conversations() {
            let name = format!("{}: {title}", way.name);
            if !name.contains(&wanted) {
                continue;
            }
            let mut saw = converse(way, steps, proxy.listener(way.name), upstream, pki);
            let lines = eventually(&format!("{name} in the log of {kind:?}"), || {
                Some(proxy.lines(&format!("{}.log", way.name))).filter(|lines| lines.len() > logged)
            });
            saw.extend(lines.iter().skip(logged).map(|line| format!("\nlog {line}")));
            logged = lines.len();
            let now = counters(&proxy, way);
            for (name, value) in &now {
                let more = value - counted.get(name).copied().unwrap_or(0);
                if more != 0 {
                    saw.push_str(&format!("\n{name} {more:+}"));
                }
            }
            counted = now;
            seen.insert(name, saw);
        }
    }
    seen
}

/// What is counted of a way, but for what says when something was read.
fn counters(proxy: &Proxy, way: Way) -> BTreeMap<String, i64> {
    let name = way.name;
    let all = proxy.stats(&format!(
        r"^(cluster\.{name}\.(ssl|upstream_cx|upstream_rq)|tcp\.{name}\.|listener\.{name}\.(ssl|downstream_cx))"
    ));
    let timely = |name: &String| {
        !["certificate.", "flow_control", "_ms", "_length", "_buffered", "session_reused", "flush"]
            .iter()
            .any(|it| name.contains(it))
    };
    // How long the records of strangers are, differs from one session to the next.
    let steady = |name: &String| !way.passed || !name.contains("bytes");
    all.into_iter().filter(|(name, _)| timely(name) && steady(name)).collect()
}

/// Compares.
pub fn run() {
    let pki = Pki::new();
    compare("TCP over TLS", |kind| observe(kind, &pki));
}

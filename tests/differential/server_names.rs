//! Whom servers are asked for and what is spoken to them, where requests and servers decide: `auto_sni`,
//! `auto_san_validation`, `override_auto_sni_header`, `auto_config`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, http_filter, listener_of, protocol};
use crate::support::eventually;
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::tls_upstream::{TlsServer, TlsUpstream};

const CONTEXT: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const HTTP1: &str = "explicit_http_config: {http_protocol_options: {}}";

/// Hosts of requests, and what else their heads say.
const ASKED: [(&str, &str); 12] = [
    ("srv.test", ""),
    ("SRV.test:8080", ""),
    ("a.wild.test", ""),
    ("other.test", ""),
    ("127.0.0.1:99", ""),
    ("127.0.0.2", ""),
    ("[::1]:5", ""),
    ("under_score.test", ""),
    ("other.test", "x-sni: srv.test\r\n"),
    ("other.test", "x-sni: srv.test:1\r\nx-sni: no.test\r\n"),
    ("srv.test", "x-sni: \r\n"),
    ("srv.test", "x-sni: 127.0.0.1\r\n"),
];

struct Way {
    name: &'static str,
    /// Fields of `HttpProtocolOptions`.
    http: String,
    /// Fields of `UpstreamTlsContext`; `$` is the directory of certificates.
    context: &'static str,
    server: TlsServer,
    route: &'static str,
}

fn ways() -> Vec<Way> {
    const TRUSTED: &str = "common_tls_context: {validation_context: {trusted_ca: {filename: $/ca.pem}}}";
    const ANY: &str = "sni: static.test, common_tls_context: {}";
    let server = |alpn| TlsServer { answers: 100, alpn, ..TlsServer::default() };
    let way = |name, options: &str, context| Way {
        name,
        http: format!("upstream_http_protocol_options: {{{options}}}, {HTTP1}"),
        context,
        server: server(&[]),
        route: "",
    };
    let auto = |name, context, alpn| Way {
        http: "auto_config: {}".to_owned(),
        server: server(alpn),
        ..way(name, "", context)
    };
    vec![
        way("sni", "auto_sni: true", ANY),
        way("sni_by_header", "auto_sni: true, override_auto_sni_header: x-sni", ANY),
        Way { route: "host_rewrite_literal: \"new.test:1\"", ..way("sni_of_rewritten", "auto_sni: true", ANY) },
        way("san", "auto_san_validation: true", TRUSTED),
        way("both", "auto_sni: true, auto_san_validation: true", TRUSTED),
        way("both_by_header", "auto_sni: true, auto_san_validation: true, override_auto_sni_header: x-sni", TRUSTED),
        way("san_of_anybody", "auto_san_validation: true", ANY),
        Way { server: server(&["h2", "http/1.1"]), ..way("says_http1", "", ANY) },
        auto("auto_http1", ANY, &["http/1.1"]),
        auto("auto_silent", ANY, &[]),
        auto("auto_overruled", "common_tls_context: {alpn_protocols: [http/1.1]}", &["h2", "http/1.1"]),
        auto(
            "auto_untrusted",
            "common_tls_context: {validation_context: {trusted_ca: {filename: $/other-ca.pem}}}",
            &[],
        ),
    ]
}

/// The first line of the answer.
fn ask(proxy: SocketAddr, path: &str, host: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(proxy).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

fn observe(kind: Kind, pki: &Pki) -> BTreeMap<String, String> {
    let ways = ways();
    let servers: Vec<TlsUpstream> = ways.iter().map(|way| TlsUpstream::start(&way.server, pki)).collect();
    let cluster = |(way, server): (&Way, &TlsUpstream)| {
        let context = way.context.replace('$', &pki.directory().display().to_string());
        let socket = format!(r#"transport_socket: {{name: tls, typed_config: {{"@type": {CONTEXT}, {context}}}}}"#);
        cluster(way.name, &[server.port()], &format!("{socket}, {}", protocol(&way.http)))
    };
    let clusters: Vec<String> = ways.iter().zip(&servers).map(cluster).collect();
    let route = |way: &Way| {
        let comma = if way.route.is_empty() { "" } else { ", " };
        format!("{{match: {{path: /{}}}, route: {{cluster: {}{comma}{}}}}}", way.name, way.name, way.route)
    };
    let routes: Vec<String> = ways.iter().map(route).collect();
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{}]}}"#, routes.join(", "));
    let chain = format!("filter_chains: [{{filters: [{}]}}]", http_filter("in", "", &hosts));
    let proxy = Proxy::start(kind, &bootstrap(&[listener_of("in", &chain, "")], &clusters, ""));
    let mut seen = BTreeMap::new();
    let mut connections = Vec::new();
    for way in &ways {
        let name = way.name;
        let answers: Vec<String> = ASKED
            .iter()
            .map(|(host, more)| format!("{host} {more:?}: {}", ask(proxy.listener("in"), name, host, more)))
            .collect();
        seen.insert(format!("{name} answers"), answers.join("\n"));
        let prefix = format!("cluster.{name}.");
        let stats = proxy.stats(&format!("^{prefix}(ssl|upstream_cx_(connect_fail|.*total))").replace("r.", "r\\."));
        let counted: Vec<String> = stats
            .iter()
            .filter(|(name, value)| **value != 0 && !name.contains("certificate.") && !name.contains("bytes"))
            .filter(|(name, _)| !name.ends_with("session_reused"))
            .map(|(name, value)| format!("{}={value}", name.trim_start_matches(&prefix)))
            .collect();
        seen.insert(format!("{name} statistics"), counted.join(" "));
        let of = |what: &str| stats.get(&format!("{prefix}{what}")).copied().unwrap_or(0);
        // Where a host chooses the protocol, connections that stand are counted twice.
        let twice = if way.http.starts_with("auto") { of("ssl.handshake") } else { 0 };
        connections.push(usize::try_from(of("upstream_cx_total") - twice).unwrap());
    }
    drop(proxy);
    for ((way, server), connections) in ways.iter().zip(&servers).zip(connections) {
        let saw = eventually("all connections", || Some(server.seen()).filter(|seen| seen.len() >= connections));
        // Where no name is asked for, Envoy resumes sessions whatever name is expected, and refuses afterwards.
        let mut saw: Vec<String> = saw.iter().map(|line| line.replace("resumed=true", "resumed=false")).collect();
        saw.sort();
        seen.insert(format!("{} server", way.name), saw.join("\n"));
    }
    seen
}

/// Compares.
pub fn run() {
    let pki = Pki::new();
    compare("server names", |kind| observe(kind, &pki));
}

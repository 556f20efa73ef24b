//! TLS as its users have it: a mesh that moves from plain text to mutual TLS under load, peers of other makes, and clients that
//! mean no good.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::load::Load;
use crate::support::bootstrap::{bootstrap, cluster, http_filter, http2, listener_of};
use crate::support::client::exchange;
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Act, Upstream, reply};
use crate::support::{PATIENCE, eventually};

const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
const TO_UP: &str = r#"{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: up}}]}"#;

fn certificate(pki: &Pki, name: &str) -> String {
    let directory = pki.directory().display();
    format!(
        "tls_certificates: [{{certificate_chain: {{filename: {directory}/{name}.pem}}, private_key: {{filename: {directory}/{name}.key}}}}]"
    )
}

fn validation(pki: &Pki) -> String {
    format!("validation_context: {{trusted_ca: {{filename: {}}}}}", pki.path("ca.pem").display())
}

fn socket(kind: &str, common: &str, more: &str) -> String {
    format!(
        r#"transport_socket: {{name: tls, typed_config: {{"@type": {kind}, common_tls_context: {{{common}}}, {more}}}}}"#
    )
}

fn chain(matches: &str, transport: &str) -> String {
    let filter = http_filter("in", "access_log: []", TO_UP);
    format!("{{filter_chain_match: {{{matches}}}, filters: [{filter}], {transport}}}")
}

fn listener(chains: &[String]) -> String {
    let inspector = format!(r#"listener_filters: [{{name: tls, typed_config: {{"@type": {INSPECTOR}}}}}]"#);
    listener_of("in", &format!("filter_chains: [{}]", chains.join(", ")), &inspector)
}

/// The last line of an answer to a plain request; `None` if it is not answered.
fn ask_plainly(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text.lines().last().map(str::to_owned)
}

#[test]
fn from_plain_text_to_mutual_tls_without_a_failed_request() {
    let pki = Pki::new();
    let upstream = Upstream::start(reply("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none"));
    let plain = || chain("transport_protocol: raw_buffer", "");
    let tls = |more: &str, require: bool| {
        let common = format!("{}, {more}", certificate(&pki, "server"));
        let require = format!("require_client_certificate: {require}");
        chain("transport_protocol: tls", &socket(DOWNSTREAM, &common, &require))
    };
    let server_control = Control::start();
    server_control.clusters(&[cluster("up", &[upstream.port()], "")]);
    server_control.listeners(&[listener(&[plain()])]);
    let server = Proxy::start_with(Kind::under_test(), &server_control.bootstrap("GRPC"), &["--drain-time-s", "1"]);
    let address = server.listener("in");

    let peer = |more: &str| cluster("up", &[address.port()], more);
    let trusting = validation(&pki);
    let client_control = Control::start();
    client_control.clusters(&[peer("")]);
    client_control.listeners(&[listener_of("in", &format!("filter_chains: [{}]", chain("", "")), "")]);
    let client = Proxy::start(Kind::under_test(), &client_control.bootstrap("GRPC"));
    let load = Load::start(client.listener("in"));
    load.wait_for(100);

    let handshakes = || server.stat("listener.in.ssl.handshake");
    assert_eq!(server.stats("ssl\\.handshake").values().sum::<i64>(), 0, "nothing is encrypted yet");

    // PERMISSIVE: both on one port.
    server_control.listeners(&[listener(&[plain(), tls("", false)])]);
    eventually("TLS on the port", || TlsClient::default().get(address).session.ok());
    load.wait_for(100);
    assert_eq!(ask_plainly(address).as_deref(), Some("one"));

    // The client speaks TLS.
    let before = handshakes();
    client_control.clusters(&[peer(&socket(UPSTREAM, &trusting, ""))]);
    eventually("handshakes", || (handshakes() > before).then_some(()));
    load.wait_for(100);

    // The server asks for a certificate, the client shows one.
    server_control.listeners(&[listener(&[plain(), tls(&trusting, false)])]);
    load.wait_for(100);
    client_control.clusters(&[peer(&socket(UPSTREAM, &format!("{trusting}, {}", certificate(&pki, "client")), ""))]);
    eventually("certificates of clients", || server.stats("sigalgs").values().any(|count| *count > 0).then_some(()));
    load.wait_for(100);

    // STRICT: nothing else is served.
    server_control.listeners(&[listener(&[tls(&trusting, true)])]);
    eventually("plain text is refused", || ask_plainly(address).is_none().then_some(()));
    assert!(TlsClient::default().get(address).session.is_err(), "a client without a certificate");
    load.wait_for(200);
    let seen = load.finish();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["one"]);
    assert_eq!(client.stat("cluster.up.ssl.connection_error"), 0);
}

/// A proxy that speaks TLS, to an upstream that says "one".
fn serving(pki: &Pki, common: &str, more: &str, chain_fields: &str) -> (Proxy, Upstream) {
    let upstream = Upstream::start(reply("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none"));
    let common = format!("{}, {common}", certificate(pki, "server"));
    let transport = format!("{}, {chain_fields}", socket(DOWNSTREAM, &common, more));
    let listener = listener_of("in", &format!("filter_chains: [{}]", chain("", &transport)), "");
    let proxy = Proxy::start(Kind::under_test(), &bootstrap(&[listener], &[cluster("up", &[upstream.port()], "")], ""));
    (proxy, upstream)
}

#[test]
fn bodies_of_many_records_pass_over_http2() {
    let pki = Pki::new();
    let upstream = Upstream::start(vec![vec![Act::Request, Act::Echo]]);
    let common = |name: &str| format!("{}, {}, alpn_protocols: [h2]", certificate(&pki, name), validation(&pki));
    let server_socket = socket(DOWNSTREAM, &common("server"), "require_client_certificate: true");
    let server_listener = listener_of("in", &format!("filter_chains: [{}]", chain("", &server_socket)), "");
    let to_upstream = cluster("up", &[upstream.port()], "");
    let server = Proxy::start(Kind::under_test(), &bootstrap(&[server_listener], &[to_upstream], ""));
    let client_listener = listener_of("in", &format!("filter_chains: [{}]", chain("", "")), "");
    let client_socket = socket(UPSTREAM, &common("client"), "");
    let to_server = cluster("up", &[server.listener("in").port()], &format!("{}, {client_socket}", http2()));
    let client = Proxy::start(Kind::under_test(), &bootstrap(&[client_listener], &[to_server], ""));

    // On one connection: records of the longest kind, and what ends in the middle of one.
    for length in [1, 16_383, 16_384, 16_385, 40_000, 1_000_000] {
        let body = "0123456789".repeat(length / 10 + 1);
        let body = &body[..length];
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}");
        let answer = exchange(client.listener("in"), &request).expect("an answer");
        assert_eq!(answer.status(), 200, "{length}: {}", answer.text());
        assert!(answer.body.ends_with(body.as_bytes()), "{length}: the body comes back");
    }
    assert_eq!(client.stat("cluster.up.upstream_cx_http2_total"), 1);
    assert_eq!(client.stat("cluster.up.upstream_cx_protocol_error"), 0);
}

/// Runs a peer; `None`, said aloud, where it is not installed.
fn peer(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    use std::process::Stdio;
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        let required = std::env::var("CI").is_ok_and(|set| set == "true");
        assert!(!required, "{program} is not installed");
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {program} is not installed\n");
        return None;
    };
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
        std::thread::sleep(Duration::from_millis(300));
    }
    let output = child.wait_with_output().expect("an end");
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn curl_and_openssl_are_served() {
    let pki = Pki::new();
    let common = format!("{}, alpn_protocols: [h2, http/1.1]", validation(&pki));
    let (proxy, _upstream) = serving(&pki, &common, "require_client_certificate: true", "");
    let address = proxy.listener("in");
    let path = |name: &str| pki.path(name).display().to_string();
    let url = format!("https://srv.test:{}/", address.port());
    let resolve = format!("srv.test:{}:127.0.0.1", address.port());
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    for (version, protocol, expected) in [
        (["--tlsv1.2", "--tls-max", "1.2"], "--http1.1", "one 1.1"),
        (["--tlsv1.2", "--tls-max", "1.2"], "--http2", "one 2"),
        (["--tlsv1.3", "--tls-max", "1.3"], "--http1.1", "one 1.1"),
        (["--tlsv1.3", "--tls-max", "1.3"], "--http2", "one 2"),
    ] {
        let arguments =
            ["-sS", "--resolve", &resolve, "--cacert", &ca, "--cert", &certificate, "--key", &key, protocol];
        let arguments = [&arguments[..], &version, &["-w", " %{http_version}", &url]].concat();
        if let Some(said) = peer("curl", &arguments, "") {
            assert_eq!(said, expected, "{arguments:?}");
        }
    }
    if let Some(said) = peer("curl", &["-sS", "--resolve", &resolve, "--cacert", &ca, &url], "") {
        assert!(!said.contains("one"), "without a certificate: {said}");
    }
    let connect = address.to_string();
    for (version, says) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let arguments = ["s_client", "-connect", &connect, "-CAfile", &ca, "-cert", &certificate, "-key", &key];
        let arguments = [&arguments[..], &["-servername", "srv.test", "-alpn", "http/1.1", version]].concat();
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let Some(said) = peer("openssl", &arguments, request) else { continue };
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains(says) && said.contains("200 OK"), "{said}");
        // A client that wants to renegotiate is not served on, and the proxy lives.
        let renegotiated = peer("openssl", &arguments, "R\n").unwrap_or_default();
        assert!(!renegotiated.contains("200 OK"), "{renegotiated}");
    }
    assert!(TlsClient { certificate: Some(pki.path("client")), ..TlsClient::default() }.get(address).session.is_ok());
}

#[test]
fn handshakes_that_never_end_cost_little_and_time_out() {
    const MANY: usize = 2000;
    let pki = Pki::new();
    let (proxy, _upstream) = serving(&pki, "", "", "transport_socket_connect_timeout: 3s");
    let address = proxy.listener("in");
    let before = proxy.resident();
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    let clients: Vec<TcpStream> = (0..MANY)
        .map(|n| {
            let mut client = TcpStream::connect(address).expect("a connection");
            client.write_all(&hello[..1 + n % hello.len()]).expect("bytes sent");
            client
        })
        .collect();
    // Others are served all the while.
    assert!(TlsClient::default().get(address).session.is_ok());
    let grown = proxy.resident().saturating_sub(before) / MANY as u64;
    assert!(grown < 24 * 1024, "{grown} bytes for each");
    let began = Instant::now();
    let name = "listener.in.downstream_cx_transport_socket_connect_timeout";
    eventually("all time out", || (proxy.stat(name) >= MANY as i64).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(9));
    drop(clients);
    assert!(TlsClient::default().get(address).session.is_ok());
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_a_hello() {
    let pki = Pki::new();
    let (proxy, _upstream) = serving(&pki, "", "", "");
    let config = TlsClient::default().config();
    let server = rustls::pki_types::ServerName::try_from("srv.test").expect("a name");
    let mut session = rustls::ClientConnection::new(config, server).expect("a client");
    let mut socket = TcpStream::connect(proxy.listener("in")).expect("a connection");
    socket.set_nodelay(true).expect("an option");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a hello");
    for byte in hello.chunks(1) {
        socket.write_all(byte).expect("a byte sent");
    }
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a handshake");
    }
}

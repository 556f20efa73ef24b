//! Who is calling, as far as certificates say: what is logged of both ends of a session, what upstreams are told, whom rules
//! mean, and what an authorization service is asked.

mod doors;
mod formats;
mod rules;

use std::collections::BTreeMap;
use std::net::TcpStream;

use prost::Message as _;
use rustls::pki_types::ServerName;

use self::doors::Door;
use crate::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, http2};
use crate::support::h2_client::{self, H2Request};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::tls_client::{TlsClient, exchange};
use crate::support::tls_upstream::{TlsServer, TlsUpstream};
use crate::support::{PATIENCE, eventually, runtime};

const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// Somebody who comes: by a certificate of this name (none if it is empty), asking for this server.
#[derive(Clone, Copy)]
struct Caller {
    certificate: &'static str,
    server_name: Option<&'static str>,
}

/// Comes without TLS.
const PLAIN: Caller = Caller { certificate: "-", server_name: None };

fn callers<const N: usize>(certificates: [&'static str; N]) -> Vec<Caller> {
    certificates.map(|certificate| Caller { certificate, server_name: None }).to_vec()
}

fn request(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n")
}

fn visit(proxy: &Proxy, door: &Door, caller: Caller, pki: &Pki) -> Vec<String> {
    let address = proxy.listener(&door.name);
    let path = door.path(caller);
    let mut requests: Vec<_> = door.requests.iter().map(|lines| request(&path, lines)).collect();
    if let (Some(last), Some(lines)) = (requests.last_mut(), door.requests.last()) {
        *last = request(&path, &format!("{lines}connection: close\r\n"));
    }
    if caller.certificate == "-" {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answer = Vec::new();
        exchange(&mut socket, &requests, &mut answer).expect("answers");
        return answers(&String::from_utf8_lossy(&answer));
    }
    let certificate = (!caller.certificate.is_empty()).then(|| pki.path(caller.certificate));
    let client = TlsClient { certificate, server_name: caller.server_name, ..TlsClient::default() };
    let outcome = client.ask(address, &requests);
    match outcome.session {
        Ok(_) => answers(&outcome.answer),
        // In TLS 1.3 it is chance whether a client reads the alert.
        Err(_) => vec!["no answer".to_owned()],
    }
}

/// The responses of a connection, without what changes from one to the next.
fn answers(text: &str) -> Vec<String> {
    let parts = text
        .split("HTTP/1.1 ")
        .filter(|part| part.len() > 3 && part.as_bytes()[3] == b' ' && part.as_bytes()[0].is_ascii_digit());
    let steady = |line: &&str| {
        !["date: ", "x-request-id: ", "x-envoy-upstream-service-time: "].iter().any(|it| line.starts_with(it))
    };
    parts.map(|part| part.lines().filter(steady).collect::<Vec<_>>().join("\n")).collect()
}

/// A visit by HTTP/2.
fn visit_http2(proxy: &Proxy, door: &Door, pki: &Pki) -> String {
    let client = TlsClient { certificate: Some(pki.path("client")), alpn: &["h2"], ..TlsClient::default() };
    let address = proxy.listener(&door.name);
    runtime().block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::IpAddress(address.ip().into());
        let stream = tokio_rustls::TlsConnector::from(client.config()).connect(name, socket).await.expect("a session");
        let mut sender = h2_client::over(stream).await.expect("HTTP/2");
        let request = H2Request::get("http://a/").header("x-forwarded-client-cert", "By=a;Hash=b");
        let mut reply = h2_client::send(&mut sender, &request).await;
        for name in ["date", "x-request-id"] {
            reply.headers.remove(name);
        }
        reply.canonical()
    })
}

fn upstream_tls(name: &str, port: u16, certificate: &str, pki: &Pki) -> String {
    let context = format!(
        "sni: srv.test, common_tls_context: {{tls_certificates: [{{certificate_chain: {{filename: $/{certificate}.pem}}, \
         private_key: {{filename: $/{certificate}.key}}}}], validation_context: {{trusted_ca: {{filename: $/ca.pem}}}}}}"
    );
    let context = context.replace('$', &pki.directory().display().to_string());
    cluster(
        name,
        &[port],
        &format!(r#"transport_socket: {{name: tls, typed_config: {{"@type": {UPSTREAM}, {context}}}}}"#),
    )
}

fn observe(kind: Kind, pki: &Pki) -> BTreeMap<String, String> {
    let doors = doors::doors();
    let asked = H2Upstream::start(Behaviour::Message(permission()));
    let mut clusters = vec![cluster("authz", &[asked.port()], &http2())];
    let mut servers = Vec::new();
    let pairs = [("client", "server"), ("rsac", "rsa"), ("chained-full", "chained-full")];
    for (own, certificate) in pairs.into_iter().chain(strangers()) {
        let server = TlsServer {
            certificate,
            clients_of: Some("ca"),
            answers: usize::MAX,
            echoes: true,
            ..TlsServer::default()
        };
        let server = TlsUpstream::start(&server, pki);
        clusters.push(upstream_tls(&format!("to_{certificate}"), server.port(), own, pki));
        servers.push(server);
    }
    let listeners: Vec<String> = doors.iter().map(|door| door.listener(pki)).collect();
    let proxy = Proxy::start(kind, &bootstrap(&listeners, &clusters, ""));
    let mut seen = BTreeMap::new();
    for door in &doors {
        let name = &door.name;
        let mut answered = 0;
        for caller in &door.callers {
            let answers = visit(&proxy, door, *caller, pki);
            answered += answers.iter().filter(|it| *it != "no answer").count();
            for (number, answer) in answers.into_iter().enumerate() {
                let lines = door.requests[number].trim_end().replace("\r\n", ", ");
                let whom = caller.server_name.unwrap_or_default();
                seen.insert(format!("{name}, {} {whom}, {number} {lines}", caller.certificate), answer);
            }
        }
        if door.http2 {
            seen.insert(format!("{name} by HTTP/2"), visit_http2(&proxy, door, pki));
            answered += 1;
        }
        let mut lines = eventually(&format!("the log of {name}"), || {
            let lines = proxy.lines(&format!("{name}.log"));
            (lines.len() >= answered).then_some(lines)
        });
        seen.insert(format!("{name} answers and lines"), format!("{answered} {}", lines.len()));
        lines.sort();
        for (number, line) in lines.into_iter().enumerate() {
            seen.insert(format!("{name} log {number}"), line);
        }
        let expected = door.callers.len() + usize::from(door.http2);
        if door.logs_connections {
            let lines = eventually(&format!("the connections of {name}"), || {
                let lines = proxy.lines(&format!("{name}.connections.log"));
                (lines.len() >= expected).then_some(lines)
            });
            seen.insert(format!("{name} connections"), lines.join("\n"));
        }
    }
    seen.insert("questions".to_owned(), asked.requests().join("\n"));
    let counted: Vec<_> = proxy
        .stats("(rbac|ext_authz|ssl)")
        .into_iter()
        .filter(|(name, value)| *value != 0 && !name.contains(".certificate."))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    seen.insert("statistics".to_owned(), counted.join("\n"));
    seen
}

/// Strangers as clients and servers upstream, but for one whose key Envoy does not take in TLS 1.2.
fn strangers() -> impl Iterator<Item = (&'static str, &'static str)> {
    Pki::STRANGERS.into_iter().filter(|name| *name != "p384").map(|name| (name, name))
}

fn permission() -> Vec<u8> {
    envoy_types::pb::envoy::service::auth::v3::CheckResponse {
        status: Some(envoy_types::pb::google::rpc::Status::default()),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Compares.
pub fn run() {
    let pki = Pki::new();
    pki.strangers();
    compare("who is calling", |kind| observe(kind, &pki));
}

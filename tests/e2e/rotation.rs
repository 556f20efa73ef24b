//! Secrets that change hundreds of times while they are used: the next handshake sees each of them, no request and no
//! handshake fails, and afterwards the processes hold what they held.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::control::Control;
use crate::load::Load;
use crate::soak::{Level, MEMORY_LEFT};
use crate::support::bootstrap::{cluster, http_filter, listener_of};
use crate::support::eventually;
use crate::support::pki::Pki;
use crate::support::proxy::{Kind, Proxy};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Upstream, reply};

const TYPES: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const ROUNDS: usize = 300;
/// Rounds after which caches are full.
const SETTLED: usize = 60;

#[test]
fn secrets_rotate_hundreds_of_times_without_a_failed_handshake() {
    let pki = Pki::new();
    let upstream = Upstream::start(reply("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none"));
    let control = Control::start();
    let transport = |kind: &str, certificate: &str, more: &str| {
        let named = |name: &str| format!("{{name: {name}, sds_config: {{ads: {{}}, resource_api_version: V3}}}}");
        let (certificate, trust) = (named(certificate), named("trust"));
        let common = format!(
            "tls_certificate_sds_secret_configs: [{certificate}], validation_context_sds_secret_config: {trust}"
        );
        format!(
            r#"transport_socket: {{name: tls, typed_config: {{"@type": {TYPES}.{kind}, common_tls_context: {{{common}}}, {more}}}}}"#
        )
    };
    let to_cluster = |name: &str, cluster: &str, more: &str| {
        let routes = format!(
            r#"{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: {cluster}}}}}]}}"#
        );
        let filter = http_filter(name, "access_log: []", &routes);
        listener_of(name, &format!("filter_chains: [{{filters: [{filter}], {more}}}]"), "")
    };
    let secure = transport("DownstreamTlsContext", "server", "require_client_certificate: true");
    control.secrets(&secrets(&pki, 0));
    control.clusters(&[cluster("one", &[upstream.port()], "")]);
    control.listeners(&[to_cluster("secure", "one", &secure)]);
    let mut server = Proxy::start_with(Kind::under_test(), &control.bootstrap("GRPC"), &["--concurrency", "2"]);
    let address = server.listener("secure");

    // A second proxy as the client: it shakes hands anew for every request.
    let client_control = Control::start();
    let once = r#"typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}}}"#;
    let mutual = transport("UpstreamTlsContext", "client", "");
    client_control.secrets(&secrets(&pki, 0));
    client_control.clusters(&[cluster("peer", &[address.port()], &format!("{once}, {mutual}"))]);
    client_control.listeners(&[to_cluster("plain", "peer", "")]);
    let mut client =
        Proxy::start_with(Kind::under_test(), &client_control.bootstrap("DELTA_GRPC"), &["--concurrency", "2"]);

    let fresh = [Level::of(&server), Level::of(&client)].map(|level| level.descriptors);
    let mut load = Load::paced(Duration::from_millis(4));
    load.http1(client.listener("plain"));
    load.http1(client.listener("plain"));
    let strangers = Strangers::start(&pki, address);
    let mut settled = None;
    let everybody = TlsClient { certificate: Some(pki.path("client")), ..TlsClient::default() };
    for round in 1..=ROUNDS {
        if round % 50 == 0 {
            // A broken one makes no difference.
            control.secrets(&[certificate(&pki, "server", "server", "client")]);
            let refused = control.nack(xds_client::SECRET);
            assert!(refused.contains("server: ") && refused.contains("KEY_VALUES_MISMATCH"), "{refused}");
            assert!(!refused.contains("-----"), "{refused}");
        }
        for (control, proxy, name) in [(&control, &server, "server"), (&client_control, &client, "client")] {
            let successes = format!("sds.{name}.update_success");
            let before = proxy.stat(&successes);
            control.secrets(&secrets(&pki, round));
            proxy.wait_for_stat(&successes, |now| now > before);
        }
        let session = everybody.get(address).session.unwrap_or_else(|why| panic!("round {round}: {why}"));
        assert_eq!(pki.name_of(&session.certificate), served(round), "round {round}");
        if round == SETTLED {
            settled = Some((server.resident(), client.resident()));
        }
    }
    load.wait_for(20);
    let shaken = strangers.finish();
    let seen = load.finish();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["one"]);
    assert!(shaken > ROUNDS, "{shaken}");
    assert!(server.is_running() && client.is_running());
    assert_eq!(client.stat("cluster.peer.ssl.connection_error"), 0);

    let (server_before, client_before) = settled.expect("more rounds than it takes");
    for (proxy, before, fresh) in [(&server, server_before, fresh[0]), (&client, client_before, fresh[1])] {
        eventually("descriptors are closed", || (Level::of(proxy).descriptors <= fresh + KEPT).then_some(()));
        let after = Level::of(proxy).memory;
        assert!(after < before + MEMORY_LEFT, "{} KiB became {} KiB", before >> 10, after >> 10);
    }
}

/// Connections that are kept for further requests.
const KEPT: usize = 16;

/// The certificate that serves in a round.
fn served(round: usize) -> &'static str {
    if round.is_multiple_of(2) { "server" } else { "rsa" }
}

/// All secrets of a round. Both authorities' bundles trust everybody, but differ.
fn secrets(pki: &Pki, round: usize) -> Vec<String> {
    let bundle = if round.is_multiple_of(2) { ["ca.pem", "other-ca.pem"] } else { ["other-ca.pem", "ca.pem"] };
    let bundle: String = bundle.into_iter().map(|name| pki.text(name)).collect();
    let own = if round.is_multiple_of(2) { "client" } else { "nosan" };
    vec![
        certificate(pki, "server", served(round), served(round)),
        certificate(pki, "client", own, own),
        format!("{{name: trust, validation_context: {{trusted_ca: {{inline_string: {bundle:?}}}}}}}"),
    ]
}

fn certificate(pki: &Pki, name: &str, certificate: &str, key: &str) -> String {
    let (chain, key) = (pki.text(&format!("{certificate}.pem")), pki.text(&format!("{key}.key")));
    format!(
        "{{name: {name}, tls_certificate: {{certificate_chain: {{inline_string: {chain:?}}}, private_key: {{inline_string: {key:?}}}}}}}"
    )
}

/// Clients that shake hands again and again. None of them may be turned away.
struct Strangers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Strangers {
    fn start(pki: &Pki, address: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let start = |name: &str| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let client = TlsClient { certificate: Some(pki.path(name)), ..TlsClient::default() };
            // Sessions are resumed across rotations, too.
            let config = client.config();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(why) = client.get_by(&config, address).session {
                        panic!("a handshake failed: {why}");
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(3));
                }
            })
        };
        let threads = ["client", "other"].map(start).into();
        Self { stop, done, threads }
    }

    /// How many handshakes there were.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no failed handshake");
        }
        self.done.load(Ordering::Relaxed)
    }
}

//! A control plane behind TLS: who it has to be, who we are to it, and that nothing is said before that is settled.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use xds_client::LISTENER;
use xds_client::server::ControlPlane;

use crate::support::bootstrap::{ADMIN, cluster, http2};
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};

/// An authority with certificates in files.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Self { directory, issuer: Issuer::new(params, key) };
        authority.certify("control.test");
        authority.certify("proxy.test");
        authority
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn certify(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn der(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.file(name)).unwrap()
    }
}

/// A control plane that speaks nothing but TLS.
struct Secure {
    plane: ControlPlane,
    port: u16,
    connections: Arc<AtomicUsize>,
    /// The first byte of every connection.
    first: Arc<Mutex<Vec<u8>>>,
    _stop: oneshot::Sender<()>,
}

impl Secure {
    /// Clients of `clients`, if there is such an authority, have to prove who they are.
    fn start(authority: &Authority, clients: Option<&Authority>) -> Self {
        let builder = ServerConfig::builder();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der("ca.pem")).unwrap();
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_file(authority.file("control.test.key")).unwrap();
        let mut config = builder.with_single_cert(vec![authority.der("control.test.pem")], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let plane = ControlPlane::new("test");
        let (connections, first) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (serving, counting, noting) = (plane.clone(), Arc::clone(&connections), Arc::clone(&first));
        std::thread::spawn(move || {
            crate::support::runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        counting.fetch_add(1, Ordering::Relaxed);
                        let (acceptor, plane, noting) = (acceptor.clone(), serving.clone(), Arc::clone(&noting));
                        tokio::spawn(async move {
                            let mut byte = [0];
                            if stream.peek(&mut byte).await.is_ok_and(|n| n == 1) {
                                noting.lock().unwrap().push(byte[0]);
                            }
                            if let Ok(stream) = acceptor.accept(stream).await {
                                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                                plane.serve_connection(stream).await;
                            }
                        });
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self { plane, port, connections, first, _stop: stop }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits for a request for listeners, and returns its headers.
    #[track_caller]
    fn asked(&self) -> Vec<(String, String)> {
        eventually("a request", || {
            self.plane.requests().into_iter().find(|request| request.type_url() == LISTENER).map(|it| it.headers)
        })
    }

    /// Waits for several attempts, none of which may have come to anything.
    #[track_caller]
    fn is_left_alone(&self) {
        eventually("several attempts", || (self.connections() >= 2).then_some(()));
        assert!(self.plane.requests().is_empty(), "{:?}", self.plane.requests());
        let first = self.first.lock().unwrap().clone();
        assert!(first.iter().all(|byte| *byte == 0x16), "only handshakes: {first:?}");
    }
}

/// A proxy that gets its listeners over this gRPC service.
fn proxy(service: &str, clusters: &[String]) -> Proxy {
    let clusters: String = clusters.iter().map(|cluster| format!("\n  - {cluster}")).collect();
    let bootstrap = format!(
        "{ADMIN}
node: {{id: test-node, cluster: test-cluster}}
dynamic_resources:
  lds_config: {{resource_api_version: V3, initial_fetch_timeout: 0.3s, api_config_source: {{api_type: GRPC, transport_api_version: V3, grpc_services: [{service}]}}}}
static_resources:
  clusters: {}
",
        if clusters.is_empty() { " []" } else { &clusters }
    );
    Proxy::spawn(Kind::under_test(), &bootstrap, &[]).unwrap()
}

const BACK_OFF: &str = "retry_policy: {retry_back_off: {base_interval: 0.05s, max_interval: 0.1s}}";

/// The same over a cluster whose hosts are spoken to by this context.
fn by_cluster(control: &Secure, context: &str) -> Proxy {
    const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let socket = format!(
        "transport_socket: {{name: tls, typed_config: {{\"@type\": {TYPE}, sni: control.test, common_tls_context: {{{context}}}}}}}, {}",
        http2()
    );
    let service = format!("{{envoy_grpc: {{cluster_name: control, {BACK_OFF}}}}}");
    proxy(&service, &[cluster("control", &[control.port], &socket)])
}

/// The same by the control plane's address.
fn by_address(control: &Secure, credentials: &str) -> Proxy {
    let arguments = "channel_args: {args: {grpc.ssl_target_name_override: {string_value: control.test}, \
                     grpc.initial_reconnect_backoff_ms: {int_value: 50}, grpc.max_reconnect_backoff_ms: {int_value: 100}, \
                     grpc.min_reconnect_backoff_ms: {int_value: 50}}}";
    let port = control.port;
    let service =
        format!("{{google_grpc: {{stat_prefix: g, target_uri: \"127.0.0.1:{port}\", {credentials}, {arguments}}}}}");
    proxy(&service, &[])
}

fn trusting(file: &Path) -> String {
    format!("validation_context: {{trusted_ca: {{filename: {}}}}}", file.display())
}

fn rooted(file: &Path) -> String {
    format!("root_certs: {{filename: {}}}", file.display())
}

#[test]
fn a_cluster_that_is_trusted_is_asked() {
    let authority = Authority::new();
    let control = Secure::start(&authority, None);
    let proxy = by_cluster(&control, &trusting(&authority.file("ca.pem")));
    control.asked();
    proxy.wait_for_stat("cluster.control.ssl.handshake", |n| n >= 1);
    proxy.wait_for_stat("cluster.control.upstream_cx_http2_total", |n| n >= 1);
    assert_eq!(proxy.stat("cluster.control.ssl.connection_error"), 0);
}

#[test]
fn a_cluster_that_is_somebody_else_hears_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let control = Secure::start(&authority, None);
    let proxy = by_cluster(&control, &trusting(&other.file("ca.pem")));
    control.is_left_alone();
    proxy.wait_for_stat("cluster.control.ssl.fail_verify_error", |n| n >= 2);
    proxy.wait_for_stat("cluster.control.upstream_cx_connect_fail", |n| n >= 2);
    assert_eq!(proxy.stat("cluster.control.ssl.handshake"), 0);
}

#[test]
fn a_cluster_may_want_to_know_who_asks() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let control = Secure::start(&authority, Some(&ours));
    let trusted = trusting(&authority.file("ca.pem"));
    let stranger = by_cluster(&control, &trusted);
    control.is_left_alone();
    drop(stranger);
    let (chain, key) = (ours.file("proxy.test.pem"), ours.file("proxy.test.key"));
    let certificate = format!(
        "tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]",
        chain.display(),
        key.display()
    );
    let _known = by_cluster(&control, &format!("{trusted}, {certificate}"));
    control.asked();
}

#[test]
fn an_address_that_is_trusted_is_asked_with_a_token() {
    let authority = Authority::new();
    let control = Secure::start(&authority, None);
    let root = rooted(&authority.file("ca.pem"));
    let token = "call_credentials: [{access_token: t0ken}]";
    let _proxy = by_address(&control, &format!("channel_credentials: {{ssl_credentials: {{{root}}}}}, {token}"));
    let headers = control.asked();
    assert!(headers.contains(&("authorization".to_owned(), "Bearer t0ken".to_owned())), "{headers:?}");
}

#[test]
fn an_address_that_is_somebody_else_hears_nothing_until_it_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let control = Secure::start(&authority, None);
    let root = rooted(&other.file("ca.pem"));
    let proxy = by_address(&control, &format!("channel_credentials: {{ssl_credentials: {{{root}}}}}"));
    control.is_left_alone();
    if proxy.kind() == Kind::Legate {
        fs::copy(authority.file("ca.pem"), other.file("ca.pem")).unwrap();
        control.asked();
    }
}

#[test]
fn an_address_may_want_to_know_who_asks_and_what_a_file_says() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let control = Secure::start(&authority, Some(&ours));
    let secret = ours.file("secret");
    fs::write(&secret, "first").unwrap();
    let credentials = format!(
        "channel_credentials: {{ssl_credentials: {{{}, cert_chain: {{filename: {}}}, private_key: {{filename: {}}}}}}}, \
         credentials_factory_name: envoy.grpc_credentials.file_based_metadata, \
         call_credentials: [{{from_plugin: {{name: envoy.grpc_credentials.file_based_metadata, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig, \
         secret_data: {{filename: {}}}, header_key: x-secret, header_prefix: \"p \"}}}}}}]",
        rooted(&authority.file("ca.pem")),
        ours.file("proxy.test.pem").display(),
        ours.file("proxy.test.key").display(),
        secret.display()
    );
    let _proxy = by_address(&control, &credentials);
    let headers = control.asked();
    assert!(headers.contains(&("x-secret".to_owned(), "p first".to_owned())), "{headers:?}");
}

//! TLS servers of every kind, which answer requests and say what they saw.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::pki::Pki;

/// How a server is.
#[derive(Clone)]
pub struct TlsServer {
    /// Its certificate, `NAME.pem` and `NAME.key`.
    pub certificate: &'static str,
    /// Whose clients it takes: `NAME.pem`; without it is not asked.
    pub clients_of: Option<&'static str>,
    /// Only this version.
    pub version: Option<ProtocolVersion>,
    /// What it speaks.
    pub alpn: &'static [&'static str],
    /// It speaks no TLS.
    pub plain: bool,
    /// It closes each connection after this many answers.
    pub answers: usize,
    /// It answers with the head of the request.
    pub echoes: bool,
}

impl Default for TlsServer {
    fn default() -> Self {
        Self {
            certificate: "server",
            clients_of: None,
            version: None,
            alpn: &[],
            plain: false,
            answers: 1,
            echoes: false,
        }
    }
}

/// A server that runs until it is dropped, or longer.
pub struct TlsUpstream {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl TlsUpstream {
    /// Starts one.
    pub fn start(server: &TlsServer, pki: &Pki) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (config, server, notes) = (server.config(pki), server.clone(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, server, notes) = (Arc::clone(&config), server.clone(), Arc::clone(&notes));
                std::thread::spawn(move || {
                    let saw = serve(socket, config, &server);
                    notes.lock().expect("no panic").push(saw);
                });
            }
        });
        Self { port, seen }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it saw of connections that are over.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl TlsServer {
    /// Its configuration.
    pub fn config(&self, pki: &Pki) -> Arc<ServerConfig> {
        let versions: Vec<_> = [&rustls::version::TLS13, &rustls::version::TLS12]
            .into_iter()
            .filter(|it| self.version.is_none_or(|version| version == it.version))
            .collect();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .expect("versions");
        let builder = match self.clients_of {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                let ca = CertificateDer::from_pem_file(pki.path(&format!("{ca}.pem"))).expect("a certificate");
                roots.add(ca).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
            None => builder.with_no_client_auth(),
        };
        let file = |end: &str| pki.path(&format!("{}.{end}", self.certificate));
        let chain = CertificateDer::pem_file_iter(file("pem")).expect("a file").collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
        let key = provider.key_provider.load_private_key(key).expect("a key");
        // Not looked at: it may be stranger than rustls likes.
        let own = CertifiedKey::new(chain.expect("certificates"), key);
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = self.alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Serves one connection, and says what it saw.
fn serve(mut socket: TcpStream, config: Arc<ServerConfig>, server: &TlsServer) -> String {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(10)));
    if server.plain {
        let mut bytes = [0; 1024];
        let n = socket.read(&mut bytes).unwrap_or(0);
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return format!("first byte {:?}", bytes[..n].first());
    }
    let mut session = ServerConnection::new(config).expect("a server");
    while session.is_handshaking() {
        if let Err(error) = session.complete_io(&mut socket) {
            let known = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let server_name = session.server_name().unwrap_or("-").to_owned();
            return match known {
                Some(rustls::Error::AlertReceived(alert)) => format!("sni={server_name} alert {alert:?}"),
                Some(_) => format!("sni={server_name} no session"),
                None => format!("sni={server_name} gone"),
            };
        }
    }
    let saw = format!(
        "sni={} {} {} alpn={:?} certificates={} resumed={}",
        session.server_name().unwrap_or("-"),
        session.protocol_version().map_or(String::new(), |it| format!("{it:?}")),
        session.negotiated_cipher_suite().map_or(String::new(), |it| format!("{:?}", it.suite())),
        session.alpn_protocol().map(String::from_utf8_lossy),
        session.peer_certificates().map_or(0, <[_]>::len),
        session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    );
    let mut stream = StreamOwned::new(session, socket);
    for _ in 0..server.answers {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return saw,
            }
        }
        let body: &[u8] = if server.echoes { &request } else { b"ok" };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
    saw
}

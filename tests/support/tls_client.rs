//! A TLS client that believes everybody and says what it saw.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme, StreamOwned,
};

use super::message;

/// How a client speaks.
#[derive(Clone, Default)]
pub struct TlsClient {
    /// A certificate and its key: `NAME.pem` and `NAME.key`.
    pub certificate: Option<PathBuf>,
    /// Whom it asks for.
    pub server_name: Option<&'static str>,
    /// What it offers to speak.
    pub alpn: &'static [&'static str],
    /// Only this version.
    pub version: Option<ProtocolVersion>,
    /// Only these suites.
    pub suites: Option<Vec<rustls::CipherSuite>>,
    /// Only these groups.
    pub groups: Option<Vec<rustls::NamedGroup>>,
    /// More header lines of its request.
    pub lines: &'static str,
}

/// What came of it.
pub struct Outcome {
    /// The session, or why there is none.
    pub session: Result<Session, String>,
    /// The answer to its request.
    pub answer: String,
}

/// What was agreed on.
pub struct Session {
    /// `TLSv1_3`
    pub version: String,
    /// `TLS13_AES_256_GCM_SHA384`
    pub suite: String,
    /// What ALPN agreed on.
    pub alpn: Option<String>,
    /// The server's own certificate, in DER.
    pub certificate: Vec<u8>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

impl TlsClient {
    /// Its configuration: what is resumed is what was made by the same one.
    pub fn config(&self) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|it| self.suites.as_ref().is_none_or(|suites| suites.contains(&it.suite())));
        // rustls offers suites of versions that it does not.
        provider.cipher_suites.retain(|it| self.version.is_none_or(|version| it.version().version == version));
        provider.kx_groups.retain(|it| self.groups.as_ref().is_none_or(|groups| groups.contains(&it.name())));
        // As clients do that speak it.
        provider.kx_groups.sort_by_key(|it| it.name() != rustls::NamedGroup::X25519MLKEM768);
        let versions: Vec<_> = [&rustls::version::TLS13, &rustls::version::TLS12]
            .into_iter()
            .filter(|it| self.version.is_none_or(|version| version == it.version))
            .collect();
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .expect("a configuration")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous(Arc::clone(&provider))));
        let mut config = match &self.certificate {
            Some(path) => {
                let chain = CertificateDer::pem_file_iter(path.with_extension("pem")).expect("a file");
                let chain = chain.collect::<Result<_, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(path.with_extension("key")).expect("a key");
                let key = provider.key_provider.load_private_key(key).expect("a key");
                // Not looked at: it may be stranger than rustls likes.
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Connects, asks for `/`, and reads to the end.
    pub fn get(&self, address: SocketAddr) -> Outcome {
        self.get_by(&self.config(), address)
    }

    /// The same, with a configuration that remembers sessions.
    pub fn get_by(&self, config: &Arc<ClientConfig>, address: SocketAddr) -> Outcome {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{}connection: close\r\n\r\n", self.lines);
        self.ask_by(config, address, &[request])
    }

    /// Connects, makes these requests, each when the one before is answered, and reads to the end.
    pub fn ask(&self, address: SocketAddr, requests: &[String]) -> Outcome {
        self.ask_by(&self.config(), address, requests)
    }

    fn ask_by(&self, config: &Arc<ClientConfig>, address: SocketAddr, requests: &[String]) -> Outcome {
        let server = match self.server_name {
            Some(name) => ServerName::try_from(name).expect("a name"),
            None => ServerName::IpAddress(address.ip().into()),
        };
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut connection = ClientConnection::new(Arc::clone(config), server).expect("a client");
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut socket) {
                return Outcome { session: Err(reason(&error)), answer: String::new() };
            }
        }
        let session = Session {
            version: connection.protocol_version().map_or(String::new(), |it| format!("{it:?}")),
            suite: connection.negotiated_cipher_suite().map_or(String::new(), |it| format!("{:?}", it.suite())),
            alpn: connection.alpn_protocol().map(|it| String::from_utf8_lossy(it).into_owned()),
            certificate: connection
                .peer_certificates()
                .and_then(|it| it.first())
                .map(|it| it.to_vec())
                .unwrap_or_default(),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        };
        let mut stream = StreamOwned::new(connection, socket);
        let mut answer = Vec::new();
        // In TLS 1.3 a client learns only now that its certificate is not good enough.
        let said = exchange(&mut stream, requests, &mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match said {
            Err(error) if answer.is_empty() => Outcome { session: Err(reason(&error)), answer },
            _ if answer.is_empty() => Outcome { session: Err("closed".to_owned()), answer },
            _ => Outcome { session: Ok(session), answer },
        }
    }
}

/// Makes requests one after the other, and reads to the end.
pub fn exchange(stream: &mut (impl Read + Write), requests: &[String], answers: &mut Vec<u8>) -> std::io::Result<()> {
    for (number, request) in requests.iter().enumerate() {
        stream.write_all(request.as_bytes())?;
        let answered = |answers: &[u8]| {
            let found = message::responses(answers, &[], false);
            found.iter().filter(|answer| answer.complete && answer.status() >= 200).count() > number
        };
        let mut buffer = [0; 16 * 1024];
        while number + 1 < requests.len() && !answered(answers) {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                n => answers.extend_from_slice(&buffer[..n]),
            }
        }
    }
    stream.read_to_end(answers).map(drop)
}

/// Why there is no session: an alert by its name, or that the peer left.
fn reason(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => format!("{alert:?}"),
        Some(other) => other.to_string(),
        None if matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ) =>
        {
            "closed".to_owned()
        }
        None => error.kind().to_string(),
    }
}

/// Believes every certificate.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

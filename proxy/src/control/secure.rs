//! TLS of the control thread's own connections where no cluster says how: to an address with channel credentials
//! (`google_grpc.channel_credentials`), and to web servers.
//!
//! Contexts are made anew for every connection, of what their files hold at that moment.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{ConfigError, Session};
use filters::matcher::RegexLimits;
use prost::Message as _;
use proto::certificate_validation_context::SystemRootCerts;
use proto::common_tls_context::ValidationContextType;
use proto::tls_parameters::TlsProtocol;
use stats::{Store, StoreOptions};
use xds_client::Security;

use crate::config::tls::context;
use crate::tls::client::{ClientContext, Wanted};
use crate::tls::handshake;
use crate::tls::statistics::TlsCounters;
use crate::transport::Io;

/// Where gRPC's libraries look for trusted certificates before the system's own.
const ROOTS: &str = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH";

/// The context that channel credentials mean: `root` (the system's certificates, if there is none) is trusted, and the
/// certificate is shown to servers that ask.
#[must_use]
pub fn context_of(
    root: Option<DataSource>,
    chain: Option<DataSource>,
    key: Option<DataSource>,
) -> proto::UpstreamTlsContext {
    let file = || std::env::var(ROOTS).ok().filter(|path| !path.is_empty());
    let root = root.or_else(|| {
        file().map(|path| DataSource { specifier: Some(Specifier::Filename(path)), watched_directory: None })
    });
    let validation = proto::CertificateValidationContext {
        system_root_certs: root.is_none().then(SystemRootCerts::default),
        trusted_ca: root,
        ..Default::default()
    };
    let certificate = (chain.is_some() || key.is_some()).then(|| proto::TlsCertificate {
        certificate_chain: chain,
        private_key: key,
        ..Default::default()
    });
    let versions = proto::TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..Default::default()
    };
    proto::UpstreamTlsContext {
        common_tls_context: Some(proto::CommonTlsContext {
            tls_params: Some(versions),
            tls_certificates: certificate.into_iter().collect(),
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Makes a context of what is there now.
///
/// # Errors
/// What is missing or wrong, by the file's name.
pub fn make(context: proto::UpstreamTlsContext) -> Result<Arc<ClientContext>, ConfigError> {
    context::upstream(&Session::default().root(), context, RegexLimits::default())
}

/// The session of a connection to an address with this security.
///
/// # Errors
/// Why there is none, with the file that is missing or wrong.
pub async fn channel(io: Io, security: &Security) -> io::Result<Io> {
    let context = proto::UpstreamTlsContext::decode(&*security.0).map_err(io::Error::other)?;
    let name = context.sni.clone();
    let context = make(context).map_err(|error| io::Error::other(error.to_string()))?;
    handshake(io, &context, &name, b"h2").await
}

/// A context that trusts whom the system trusts.
///
/// # Errors
/// When the system trusts nobody.
pub fn system_roots() -> Result<Arc<ClientContext>, ConfigError> {
    make(context_of(None, None, None))
}

/// The session of a connection to this server, whose certificate has to be for that name or address.
///
/// # Errors
/// Why there is none.
pub async fn handshake(mut io: Io, context: &ClientContext, name: &str, alpn: &[u8]) -> io::Result<Io> {
    let expected: Rc<str> = name.into();
    let wanted =
        Wanted { server_name: Some(name), expected: Some(&expected), alpn_fallback: &[alpn], ..Wanted::default() };
    let Some(hello) = context.hello("", &wanted) else { return Err(io::Error::other("a secret is missing")) };
    // As Google's library, which Envoy uses, these are counted nowhere.
    let nowhere = Store::new(2, StoreOptions::default());
    let counters = TlsCounters::of_cluster(&nowhere, "", nowhere.control_shard());
    match handshake::connect(&mut io, hello, &counters).await {
        Ok(session) => Ok(session.over(io)),
        Err(failed) => Err(io::Error::other(match failed.failure.text.is_empty() {
            true => "the server closed the connection during the TLS handshake".to_owned(),
            false => failed.failure.text,
        })),
    }
}

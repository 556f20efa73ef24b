//! `envoy.extensions.transport_sockets.tls.v3.TlsCertificate`.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{At, ConfigError, IsSet as _};
use filters::ledger;
use filters::tls::{Certificate, hex};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::data_source::{self, Data, Empty};
use super::{ocsp, pem, pkcs12, private_key};
use crate::tls::secret::TlsCertificate;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.extensions.transport_sockets.tls.v3.TlsCertificate" {
        private_key_provider => Refuse, "private keys are used in this process; without its provider there would be no key";
        signed_certificate_timestamp => Warn, "Envoy does not look at it either";
        tls_params => Refuse, "versions, ciphers and curves are those of the context; it may limit them for this certificate";
    }
}

/// Reads a certificate with its key, for a context that has it in its configuration.
///
/// # Errors
/// When a part cannot be read or used, or they do not fit together.
pub fn parse(at: &At<'_>, proto: proto::TlsCertificate) -> Result<Arc<TlsCertificate>, ConfigError> {
    read(at, proto, None).map(Arc::new)
}

/// Reads the certificate that is the secret of this name.
pub(super) fn read(
    at: &At<'_>,
    proto: proto::TlsCertificate,
    secret: Option<&str>,
) -> Result<TlsCertificate, ConfigError> {
    let proto::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = proto;
    at.unsupported(&unsupported::private_key_provider, &private_key_provider)?;
    at.unsupported(&unsupported::signed_certificate_timestamp, &signed_certificate_timestamp)?;
    at.unsupported(&unsupported::tls_params, &tls_params)?;
    // Whoever reloads secrets looks there for changes.
    if let Some(WatchedDirectory { path, watch_modify: _ }) = watched_directory {
        data_source::directory(&at.field("watched_directory"), &path)?;
    }
    for (name, set) in [("certificate_chain", certificate_chain.is_set()), ("private_key", private_key.is_set())] {
        if pkcs12.is_set() && set {
            return Err(at.error(format_args!("Certificate configuration can't have both pkcs12 and {name}")));
        }
    }
    let name = secret.map_or_else(|| unnamed("cert", certificate_chain.as_ref()), str::to_owned);
    let password = optional(&at.field("password"), password)?;
    let (origin, chain, key) = match pkcs12 {
        Some(source) => from_pkcs12(&at.field("pkcs12"), source, &password.bytes)?,
        None => from_pem(at, certificate_chain, private_key, &password)?,
    };
    let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
    let staple = staple(&at.field("ocsp_staple"), ocsp_staple, leaf)?;
    let must_staple = X509Certificate::from_der(leaf).is_ok_and(|(_, leaf)| demands_staple(&leaf));
    let ders = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let (response, ocsp_expires) = staple.unzip();
    let key = CertifiedKey { cert: ders, key, ocsp: response };
    let chain = chain.into_iter().map(Certificate::new).map(Arc::new).collect();
    Ok(TlsCertificate { chain, key: Arc::new(key), must_staple, ocsp_expires, origin, name })
}

/// What statistics call what has no name: by a hash of its bytes where they stand in the configuration as bytes, of nothing
/// where they come from elsewhere.
pub(super) fn unnamed(what: &str, source: Option<&DataSource>) -> String {
    let Some(source) = source else { return format!("unnamed_{what}_") };
    let bytes = match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice(),
        _ => &[],
    };
    let hash = digest::digest(&digest::SHA256, bytes);
    format!("unnamed_{what}_{}", hex(&hash.as_ref()[..4]))
}

/// The parts of a certificate: where the chain came from, the chain and the key.
type Parts = (String, Vec<Vec<u8>>, Arc<dyn SigningKey>);

fn from_pkcs12(at: &At<'_>, source: DataSource, password: &[u8]) -> Result<Parts, ConfigError> {
    let data = data_source::lenient(at, source)?;
    let origin = data.origin.clone();
    if data.problem.is_some() {
        return Err(at.error(format_args!("Failed to load pkcs12 from {origin}{}", data.why())));
    }
    let pkcs12::Content { key, chain } = pkcs12::open(&data.bytes, password).map_err(|problem| {
        at.error(match problem {
            pkcs12::Problem::Unreadable => format!("Failed to load pkcs12 from {origin}"),
            pkcs12::Problem::Incomplete => format!("Failed to load certificate from {origin}"),
            pkcs12::Problem::NotApproved => {
                format!("Failed to load pkcs12 from {origin}: what decrypts it is not validated by FIPS 140-3")
            }
        })
    })?;
    usable(at, &origin, chain.first().map(Vec::as_slice).unwrap_or_default())?;
    Ok((origin, chain, key))
}

fn from_pem(
    at: &At<'_>,
    certificate_chain: Option<DataSource>,
    private_key: Option<DataSource>,
    password: &Data,
) -> Result<Parts, ConfigError> {
    let (chain_at, key_at) = (at.field("certificate_chain"), at.field("private_key"));
    let chain = optional(&chain_at, certificate_chain)?;
    let key = optional(&key_at, private_key)?;
    if key.bytes.is_empty() {
        let (origin, why) = (&key.origin, key.why());
        return Err(key_at.error(format_args!("Failed to load incomplete private key from path: {origin}{why}")));
    }
    if chain.bytes.is_empty() {
        let (origin, why) = (&chain.origin, chain.why());
        let text = format!("Failed to load incomplete certificate from {origin}: certificate chain not set{why}");
        return Err(chain_at.error(text));
    }
    let origin = chain.origin;
    let mut certificates = Vec::new();
    for block in pem::blocks(&chain.bytes) {
        let broken = || chain_at.error(format_args!("Failed to load certificate chain from {origin}"));
        let block = block.map_err(|_| broken())?;
        if block.is_certificate() {
            certificates.push(block.certificate().ok_or_else(broken)?);
        }
    }
    let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
    usable(&chain_at, &origin, leaf)?;
    let failed = |why: &dyn std::fmt::Display| {
        let text = format!("Failed to load private key from {}, Cause: {why}{}", key.origin, password.why());
        key_at.error(text)
    };
    let signing = private_key::read(&key.bytes, &password.bytes).map_err(|error| failed(&error))?;
    if !holds(leaf, &*signing) {
        return Err(failed(&mismatch(leaf, &*signing)));
    }
    Ok((origin, certificates, signing))
}

/// Data that is looked at by its use: none is as good as empty.
fn optional(at: &At<'_>, source: Option<DataSource>) -> Result<Data, ConfigError> {
    let none = || Ok(Data { bytes: Vec::new(), origin: String::new(), problem: None });
    source.map_or_else(none, |source| data_source::lenient(at, source))
}

/// Whether a certificate's key is one that may be used: RSA from 2048 bits, the curves of NIST from P-256 if it may sign,
/// Ed25519.
fn usable(at: &At<'_>, origin: &str, leaf: &[u8]) -> Result<(), ConfigError> {
    let failed = || at.error(format_args!("Failed to load certificate chain from {origin}"));
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| failed())?;
    match leaf.public_key().parsed().map_err(|_| failed())? {
        PublicKey::RSA(key) if key.key_size() < 2048 => Err(at.error(format_args!(
            "Failed to load certificate chain from {origin}, only RSA certificates with 2048-bit or larger keys are supported"
        ))),
        PublicKey::RSA(_) => Ok(()),
        PublicKey::EC(_) => {
            let curve = leaf.public_key().algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
            // A key on a curve could be for agreement only, and is used for signatures only.
            let usage = leaf.key_usage().map_err(|_| failed())?;
            let signs = usage.is_none_or(|usage| usage.value.digital_signature());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35") if signs => Ok(()),
                _ => Err(failed()),
            }
        }
        _ if leaf.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => Ok(()),
        _ => Err(failed()),
    }
}

/// Whether `key` is the private one to the public one of a certificate.
pub(super) fn holds(certificate: &[u8], key: &dyn SigningKey) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    key.public_key().is_some_and(|public| public.as_ref() == certificate.public_key().raw)
}

/// How a key does not fit, in the words of Envoy's TLS library.
fn mismatch(certificate: &[u8], key: &dyn SigningKey) -> &'static str {
    use rustls::SignatureAlgorithm;
    let public =
        X509Certificate::from_der(certificate).ok().and_then(|(_, it)| match it.public_key().parsed().ok()? {
            PublicKey::RSA(_) => Some(SignatureAlgorithm::RSA),
            PublicKey::EC(_) => Some(SignatureAlgorithm::ECDSA),
            _ => Some(SignatureAlgorithm::ED25519),
        });
    if public == Some(key.algorithm()) {
        "error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH"
    } else {
        "error:0b000073:X.509 certificate routines:OPENSSL_internal:KEY_TYPE_MISMATCH"
    }
}

/// The response to staple, and until when it holds.
fn staple(at: &At<'_>, source: Option<DataSource>, leaf: &[u8]) -> Result<Option<(Vec<u8>, SystemTime)>, ConfigError> {
    if let Some(DataSource { specifier: Some(Specifier::InlineString(_)), .. }) = source {
        return Err(at.error("OCSP staple cannot be provided via inline_string"));
    }
    let Some(data) = data_source::read(at, source, Empty::Allowed)?.filter(|data| !data.bytes.is_empty()) else {
        return Ok(None);
    };
    let response = ocsp::read(&data.bytes, leaf).map_err(|error| at.error(format_args!("{}: {error}", data.origin)))?;
    Ok(Some((data.bytes, response.expires)))
}

/// Whether a certificate has the extension of RFC 7633 (TLS feature), which demands a staple.
fn demands_staple(leaf: &X509Certificate<'_>) -> bool {
    leaf.extensions().iter().any(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.24")
}

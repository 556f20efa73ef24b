//! `envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext`.

use std::sync::Arc;

use base64::Engine as _;
use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::{
    SystemRootCerts, TrustChainVerification,
};
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::{RegexLimits, StringMatcher};
use filters::tls::Certificate;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use webpki::OwnedCertRevocationList;

use super::certificate::unnamed;
use super::data_source::{self, Data, Empty};
use super::private_key::unhex;
use super::{pem, san, spiffe};
use crate::tls::secret::{Roots, SanKind, SanMatcher, ValidationContext};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        ca_certificate_provider_instance => Refuse, "no certificate provider is built in, and without it nothing would be verified";
        require_signed_certificate_timestamp => Warn, "Envoy does not look at it either";
    }
}

/// Reads what peers are checked against.
///
/// # Errors
/// When a part cannot be read or used, or would be of no effect without another.
pub fn parse(
    at: &At<'_>,
    proto: proto::CertificateValidationContext,
    limits: RegexLimits,
) -> Result<Arc<ValidationContext>, ConfigError> {
    read(at, proto, limits, None).map(Arc::new)
}

/// Checks the default of a `combined_validation_context`: what is to be trusted may be in the secret alone.
///
/// # Errors
/// When a part cannot be read or used.
pub fn check_default(
    at: &At<'_>,
    proto: proto::CertificateValidationContext,
    limits: RegexLimits,
) -> Result<(), ConfigError> {
    assemble(at, proto, limits, None, Whole::No).map(drop)
}

/// Whether what is of no effect without something to trust is refused without it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// A `combined_validation_context`: what its default says, and over it what the secret says, as protobuf merges messages.
#[must_use]
pub fn merge(
    default: &proto::CertificateValidationContext,
    dynamic: &proto::CertificateValidationContext,
) -> proto::CertificateValidationContext {
    let mut merged = default.clone();
    // What was encoded from a message decodes.
    let _ = merged.merge(dynamic.encode_to_vec().as_slice());
    merged
}

/// Reads the validation context that is the secret of this name, or of which it is a part.
///
/// # Errors
/// As [`parse`].
pub fn read(
    at: &At<'_>,
    proto: proto::CertificateValidationContext,
    limits: RegexLimits,
    secret: Option<&str>,
) -> Result<ValidationContext, ConfigError> {
    assemble(at, proto, limits, secret, Whole::Yes)
}

#[expect(deprecated, reason = "the deprecated list of names is one")]
fn assemble(
    at: &At<'_>,
    proto: proto::CertificateValidationContext,
    limits: RegexLimits,
    secret: Option<&str>,
    whole: Whole,
) -> Result<ValidationContext, ConfigError> {
    let proto::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = proto.clone();
    at.unsupported(&unsupported::ca_certificate_provider_instance, &ca_certificate_provider_instance)?;
    at.unsupported(&unsupported::require_signed_certificate_timestamp, &require_signed_certificate_timestamp)?;
    // Whoever reloads secrets looks there for changes.
    if let Some(WatchedDirectory { path, watch_modify: _ }) = watched_directory {
        data_source::directory(&at.field("watched_directory"), &path)?;
    }
    let spiffe = match custom_validator_config {
        Some(extension) => Some(spiffe::parse(&at.field("custom_validator_config"), extension)?),
        None => None,
    };
    let unnamed = || match &trusted_ca {
        Some(_) => unnamed("ca_cert", trusted_ca.as_ref()),
        None => "unnamed_ca_cert".to_owned(),
    };
    let name = secret.map_or_else(unnamed, str::to_owned);
    let mut crls = Vec::new();
    let ca_at = at.field("trusted_ca");
    let roots = match data_source::read(&ca_at, trusted_ca, Empty::Refused)? {
        Some(data) => Some(bundle(&ca_at, data, &mut crls)?),
        None => match system_root_certs {
            Some(SystemRootCerts {}) => Some(system(&at.field("system_root_certs"), &mut crls)?),
            None => None,
        },
    };
    let trusts_nothing = roots.is_none() && spiffe.is_none() && whole == Whole::Yes;
    let mut check_crls = !crls.is_empty();
    let crl_at = at.field("crl");
    if let Some(data) = data_source::read(&crl_at, crl, Empty::Allowed)?.filter(|data| !data.bytes.is_empty()) {
        if trusts_nothing {
            return Err(crl_at.error(format_args!("Failed to load CRL from {} without trusted CA", data.origin)));
        }
        let failed = |why: Option<webpki::Error>| {
            let why = why.map(|error| format!(": {error}")).unwrap_or_default();
            crl_at.error(format_args!("Failed to load CRL from {}{why}", data.origin))
        };
        for block in pem::blocks(&data.bytes) {
            let block = block.map_err(|_| failed(None))?;
            if block.label == "X509 CRL" {
                crls.push(OwnedCertRevocationList::from_der(&block.der).map_err(|error| failed(Some(error)))?.into());
            } else if block.is_certificate() {
                block.certificate().ok_or_else(|| failed(None))?;
            }
        }
        check_crls = true;
    }
    let sans = names(at, match_typed_subject_alt_names, match_subject_alt_names, limits)?;
    if trusts_nothing {
        if !sans.is_empty() {
            return Err(
                at.error("SAN-based verification of peer certificates without trusted CA is insecure and not allowed")
            );
        }
        if allow_expired_certificate {
            return Err(at.error("Certificate validity period is always ignored without trusted CA"));
        }
    }
    let max_verify_depth = max_verify_depth.map(|depth| depth.value);
    if max_verify_depth.is_some_and(|depth| depth > 100) {
        return Err(at.field("max_verify_depth").error("value must be less than or equal to 100"));
    }
    Ok(ValidationContext {
        name,
        roots,
        crls,
        check_crls,
        only_verify_leaf_crl: only_verify_leaf_cert_crl,
        sans,
        certificate_hashes: each(&at.field("verify_certificate_hash"), &verify_certificate_hash, certificate_hash)?,
        spki_hashes: each(&at.field("verify_certificate_spki"), &verify_certificate_spki, spki_hash)?,
        accept_untrusted: match TrustChainVerification::try_from(trust_chain_verification) {
            Ok(TrustChainVerification::VerifyTrustChain) => false,
            Ok(TrustChainVerification::AcceptUntrusted) => true,
            Err(_) => {
                return Err(at.field("trust_chain_verification").error("value must be one of the defined enum values"));
            }
        },
        allow_expired: allow_expired_certificate,
        max_verify_depth,
        suppress_client_ca_list,
        trust_domains: spiffe,
        proto,
    })
}

fn names(
    at: &At<'_>,
    typed: Vec<proto::SubjectAltNameMatcher>,
    deprecated: Vec<envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher>,
    limits: RegexLimits,
) -> Result<Vec<SanMatcher>, ConfigError> {
    if typed.is_empty() {
        let at = at.field("match_subject_alt_names");
        let matchers = deprecated.into_iter().enumerate().map(|(n, matcher)| {
            let matcher = StringMatcher::parse(matcher, at.index(n), limits)?;
            Ok(SanMatcher { kind: SanKind::Any, matcher })
        });
        return matchers.collect();
    }
    if !deprecated.is_empty() {
        at.field("match_subject_alt_names").warn(
            "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.match_subject_alt_names",
            "it is ignored where match_typed_subject_alt_names is set",
        );
    }
    let at = at.field("match_typed_subject_alt_names");
    typed.into_iter().enumerate().map(|(n, matcher)| san::parse(&at.index(n), matcher, limits)).collect()
}

/// The certificates of a bundle, and the revocation lists among them. Keys and unknown blocks between them do not matter.
pub(super) fn bundle(
    at: &At<'_>,
    data: Data,
    crls: &mut Vec<webpki::CertRevocationList<'static>>,
) -> Result<Roots, ConfigError> {
    let Data { bytes, origin, problem: _ } = data;
    let failed = |why: &str| at.error(format_args!("Failed to load trusted CA certificates from {origin}{why}"));
    let mut certificates = Vec::new();
    for block in pem::blocks(&bytes) {
        let block = block.map_err(|error| failed(&format!(": {error}")))?;
        if block.label == "X509 CRL" {
            let list = OwnedCertRevocationList::from_der(&block.der).map_err(|error| failed(&format!(": {error}")))?;
            crls.push(list.into());
        } else if block.is_certificate() {
            certificates.push(block.certificate().ok_or_else(|| failed(": a certificate is malformed"))?);
        }
    }
    if certificates.is_empty() {
        return Err(failed(": it holds no certificate"));
    }
    roots(certificates, origin.clone()).map_err(|error| failed(&format!(": {error}")))
}

/// Certificates that are trusted for themselves.
pub(super) fn roots(certificates: Vec<Vec<u8>>, origin: String) -> Result<Roots, webpki::Error> {
    let mut roots = Roots { origin, ..Roots::default() };
    for der in certificates {
        let certificate = CertificateDer::from(der.clone());
        roots.anchors.push(webpki::anchor_from_trusted_cert(&certificate)?.to_owned());
        roots.certificates.push(certificate);
        roots.facts.push(Arc::new(Certificate::new(der)));
    }
    Ok(roots)
}

/// The bundle of this system, wherever its distribution puts it.
fn system(at: &At<'_>, crls: &mut Vec<webpki::CertRevocationList<'static>>) -> Result<Roots, ConfigError> {
    const PLACES: [&str; 6] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
        "/usr/local/etc/ssl/cert.pem",
    ];
    let Some(path) = PLACES.into_iter().find(|path| std::path::Path::new(path).exists()) else {
        return Err(at.error(format_args!("this system has no root certificates at any of {}", PLACES.join(", "))));
    };
    let source = DataSource { specifier: Some(Specifier::Filename(path.to_owned())), watched_directory: None };
    match data_source::read(at, Some(source), Empty::Refused)? {
        Some(data) => bundle(at, data, crls),
        None => Err(at.error(format_args!("file {path} is empty"))),
    }
}

fn each(
    at: &At<'_>,
    values: &[String],
    parse: fn(&At<'_>, &str) -> Result<[u8; 32], ConfigError>,
) -> Result<Vec<[u8; 32]>, ConfigError> {
    values.iter().enumerate().map(|(n, value)| parse(&at.index(n), value)).collect()
}

/// SHA-256 in hexadecimal, with or without colons between bytes.
fn certificate_hash(at: &At<'_>, text: &str) -> Result<[u8; 32], ConfigError> {
    match text.len() {
        0..64 => return Err(at.error("value length must be at least 64 characters")),
        96.. => return Err(at.error("value length must be at most 95 bytes")),
        _ => {}
    }
    // In the long form colons are taken out wherever they stand, as Envoy does.
    let digits = if text.len() == 95 { text.replace(':', "") } else { text.to_owned() };
    unhex(&digits)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| at.error(format_args!("Invalid hex-encoded SHA-256 {text}")))
}

/// SHA-256 in base64.
fn spki_hash(at: &At<'_>, text: &str) -> Result<[u8; 32], ConfigError> {
    if text.len() != 44 {
        return Err(at.error("value length must be 44 bytes"));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| at.error(format_args!("Invalid base64-encoded SHA-256 {text}")))
}

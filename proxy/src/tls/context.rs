//! What both kinds of contexts share: configuration that names secrets, and what is there of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::CertificateValidationContext;
use filters::matcher::RegexLimits;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{KeyLog, NamedGroup, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};

use super::secret::{NamedSecret, Secret, TlsCertificate, ValidationContext};
use super::signing::Schemes;

/// What downstream and upstream contexts have in common (`CommonTlsContext`).
pub struct CommonTls {
    /// `tls_minimum_protocol_version` to `tls_maximum_protocol_version`.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// `cipher_suites` for TLS 1.2, and those of 1.3.
    pub suites: Vec<SupportedCipherSuite>,
    /// `ecdh_curves`
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// `signature_algorithms`; `None` for whatever there is.
    pub schemes: Option<Schemes>,
    /// `tls_certificates` or `tls_certificate_sds_secret_configs`, in order.
    pub certificates: Vec<CertificateSource>,
    /// `validation_context_type`
    pub validation: Option<ValidationSource>,
    /// `alpn_protocols`
    pub alpn: Vec<Vec<u8>>,
    /// `key_log`
    pub key_log: Option<Arc<dyn KeyLog>>,
    /// For the patterns of names that are still to come.
    pub limits: RegexLimits,
}

/// Where a certificate is found.
#[derive(Debug)]
pub enum CertificateSource {
    /// Here.
    Here(Arc<TlsCertificate>),
    /// By its name.
    Named(Box<NamedSecret>),
}

/// Where it is found what peers are checked against.
#[derive(Debug)]
pub enum ValidationSource {
    /// `validation_context`
    Here(Arc<ValidationContext>),
    /// `validation_context_sds_secret_config`
    Named(NamedSecret),
    /// `combined_validation_context`: what is found by its name is merged over what is here.
    Combined {
        /// `default_validation_context`
        default: Box<CertificateValidationContext>,
        /// `validation_context_sds_secret_config`
        dynamic: NamedSecret,
    },
}

/// The secrets of a context, all of them there.
#[derive(Debug, Default)]
pub struct Ingredients {
    /// In order.
    pub certificates: Vec<Arc<TlsCertificate>>,
    /// `None` where nothing is said about peers.
    pub validation: Option<Arc<ValidationContext>>,
}

/// What the last handshake of a context agreed on: a session that is resumed goes by what was agreed on when it was made,
/// and rustls does not keep that.
#[derive(Debug, Default)]
pub struct LastAgreed {
    group: AtomicU16,
    scheme: AtomicU16,
}

impl LastAgreed {
    /// Remembers, or recalls where the handshake at hand had nothing to agree on.
    pub fn settle(
        &self,
        group: Option<NamedGroup>,
        scheme: Option<SignatureScheme>,
        resumed: bool,
    ) -> (Option<NamedGroup>, Option<SignatureScheme>) {
        if !resumed {
            self.group.store(group.map_or(0, u16::from), Ordering::Relaxed);
            self.scheme.store(scheme.map_or(0, u16::from), Ordering::Relaxed);
            return (group, scheme);
        }
        let known = |cell: &AtomicU16| Some(cell.load(Ordering::Relaxed)).filter(|known| *known != 0);
        (group.or_else(|| known(&self.group).map(Into::into)), scheme.or_else(|| known(&self.scheme).map(Into::into)))
    }
}

impl CommonTls {
    /// The secrets this names.
    pub fn named(&self) -> impl Iterator<Item = &NamedSecret> {
        let certificates = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Here(_) => None,
            CertificateSource::Named(name) => Some(&**name),
        });
        let validation = match &self.validation {
            Some(ValidationSource::Named(name) | ValidationSource::Combined { dynamic: name, .. }) => Some(name),
            Some(ValidationSource::Here(_)) | None => None,
        };
        certificates.chain(validation)
    }

    /// What is there; `None` while a secret has not come.
    ///
    /// # Errors
    /// When what is here and what was found do not go together, with the name of what was found.
    pub fn ingredients(&self) -> Result<Option<Ingredients>, String> {
        let mut certificates = Vec::with_capacity(self.certificates.len());
        for source in &self.certificates {
            certificates.push(match source {
                CertificateSource::Here(certificate) => Arc::clone(certificate),
                CertificateSource::Named(name) => match name.current().as_deref() {
                    Some(Secret::Certificate(certificate)) => Arc::clone(certificate),
                    _ => return Ok(None),
                },
            });
        }
        let found = |name: &NamedSecret| match name.current().as_deref() {
            Some(Secret::Validation(context)) => Some(Arc::clone(context)),
            _ => None,
        };
        let validation = match &self.validation {
            None => None,
            Some(ValidationSource::Here(context)) => Some(Arc::clone(context)),
            Some(ValidationSource::Named(name)) => match found(name) {
                Some(context) => Some(context),
                None => return Ok(None),
            },
            Some(ValidationSource::Combined { default, dynamic }) => {
                let Some(context) = found(dynamic) else { return Ok(None) };
                let merged = crate::config::tls::validation::merge(default, &context.proto);
                let session = filters::config::Session::default();
                let parsed =
                    crate::config::tls::validation::read(&session.root(), merged, self.limits, Some(&dynamic.name))
                        .map_err(|error| error.to_string())?;
                Some(Arc::new(parsed))
            }
        };
        Ok(Some(Ingredients { certificates, validation }))
    }

    /// The cryptography this allows.
    #[must_use]
    pub fn provider(&self) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider {
            cipher_suites: self.suites.clone(),
            kx_groups: self.groups.clone(),
            ..aws_lc_rs::default_provider()
        })
    }
}

impl fmt::Debug for CommonTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonTls").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

//! Secrets as contexts use them: parsed, checked, and shared by all users of a name.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::matcher::StringMatcher;
use filters::tls::Certificate;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use rustls::sign::CertifiedKey;

use crate::config::config_source::ConfigSource;

/// One of the secrets there are (`envoy.extensions.transport_sockets.tls.v3.Secret`).
#[derive(Debug, Clone)]
pub enum Secret {
    /// `tls_certificate`
    Certificate(Arc<TlsCertificate>),
    /// `validation_context`
    Validation(Arc<ValidationContext>),
    /// `session_ticket_keys`
    TicketKeys(Arc<TicketKeys>),
    /// `generic_secret`
    Generic(Arc<GenericSecret>),
}

/// What a user of a secret expects it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// `tls_certificate`
    Certificate,
    /// `validation_context`
    Validation,
    /// `session_ticket_keys`
    TicketKeys,
    /// `generic_secret`
    Generic,
}

impl SecretKind {
    /// The field of `Secret` it is.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Certificate => "tls_certificate",
            Self::Validation => "validation_context",
            Self::TicketKeys => "session_ticket_keys",
            Self::Generic => "generic_secret",
        }
    }

    /// Its message.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Certificate => "TlsCertificate",
            Self::Validation => "CertificateValidationContext",
            Self::TicketKeys => "TlsSessionTicketKeys",
            Self::Generic => "GenericSecret",
        }
    }

    /// What Envoy calls a static one that is not there.
    #[must_use]
    pub const fn unknown(self) -> &'static str {
        match self {
            Self::Certificate => "Unknown static secret",
            Self::Validation => "Unknown static certificate validation context",
            Self::TicketKeys => "Unknown tls session ticket keys",
            Self::Generic => "Unknown static generic secret",
        }
    }
}

/// A certificate chain with its private key, which fit together (`TlsCertificate`).
#[derive(Debug)]
pub struct TlsCertificate {
    /// The chain as it is presented, the certificate the key is of first.
    pub chain: Vec<Arc<Certificate>>,
    /// The same with the key, and the OCSP response to staple if there is one.
    pub key: Arc<CertifiedKey>,
    /// Whether the certificate demands that an OCSP response is stapled (RFC 7633).
    pub must_staple: bool,
    /// Until when the OCSP response holds; `None` if there is none.
    pub ocsp_expires: Option<SystemTime>,
    /// Where the chain came from: a path, or Envoy's `<inline>`.
    pub origin: String,
    /// Its name in statistics (`tls_certificate_name` or what Envoy makes of none).
    pub name: String,
}

/// What a peer's certificate is checked against (`CertificateValidationContext`).
#[derive(Debug, Default)]
pub struct ValidationContext {
    /// The name of what is trusted, in statistics.
    pub name: String,
    /// `trusted_ca` or `system_root_certs`; `None` if neither is there and chains are not verified.
    pub roots: Option<Roots>,
    /// `crl`, and those among `trusted_ca`.
    pub crls: Vec<webpki::CertRevocationList<'static>>,
    /// Whether revocation is looked at: then a certificate that no list is about fails. Also so if `crl` holds no list.
    pub check_crls: bool,
    /// `only_verify_leaf_cert_crl`
    pub only_verify_leaf_crl: bool,
    /// `match_typed_subject_alt_names` and the deprecated `match_subject_alt_names`: any of them suffices.
    pub sans: Vec<SanMatcher>,
    /// `verify_certificate_hash`: SHA-256 of the certificate.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `verify_certificate_spki`: SHA-256 of its public key information.
    pub spki_hashes: Vec<[u8; 32]>,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`
    pub accept_untrusted: bool,
    /// `allow_expired_certificate`
    pub allow_expired: bool,
    /// `max_verify_depth`: how many certificates may stand between the peer's and the trusted one; `None` for 100.
    pub max_verify_depth: Option<u32>,
    /// `suppress_client_ca_list`
    pub suppress_client_ca_list: bool,
    /// `custom_validator_config` of the SPIFFE validator: by trust domain. Then only `sans` of kind [`SanKind::Uri`] and
    /// `allow_expired` count beside it.
    pub trust_domains: Option<Vec<(String, Roots)>>,
    /// As it came: a `combined_validation_context` is merged from messages.
    pub proto: proto::CertificateValidationContext,
}

impl ValidationContext {
    /// Whether clients are asked for a certificate: where there is something to check it against, or any will do.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.trusts_somebody() || self.names_leaves() || self.accept_untrusted
    }

    /// Whether clients without a certificate are turned away: who has to have a certain certificate, or certain names in it,
    /// has to have one, whatever `require_client_certificate` says. That counts only where chains are verified.
    #[must_use]
    pub fn requires_certificate(&self, require_client_certificate: bool) -> bool {
        let named = self.trust_domains.is_none() && !self.accept_untrusted;
        require_client_certificate && self.trusts_somebody() || named && (self.names_leaves() || !self.sans.is_empty())
    }

    const fn trusts_somebody(&self) -> bool {
        self.roots.is_some() || self.trust_domains.is_some()
    }

    const fn names_leaves(&self) -> bool {
        !self.certificate_hashes.is_empty() || !self.spki_hashes.is_empty()
    }
}

/// Certificates that are trusted for themselves.
#[derive(Debug, Default)]
pub struct Roots {
    /// What chains may end in.
    pub anchors: Vec<TrustAnchor<'static>>,
    /// The whole certificates, in the same order: one of them may be the peer's own.
    pub certificates: Vec<CertificateDer<'static>>,
    /// For admin pages and statistics.
    pub facts: Vec<Arc<Certificate>>,
    /// Where they came from: a path, or Envoy's `<inline>`.
    pub origin: String,
}

/// One of the names that suffice.
#[derive(Debug)]
pub struct SanMatcher {
    /// Which names are looked at.
    pub kind: SanKind,
    /// What they have to be. For DNS an exact value is matched by a wildcard of the certificate, too.
    pub matcher: StringMatcher,
}

/// The kinds of subject alternative names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SanKind {
    /// Every kind (the deprecated `match_subject_alt_names`).
    Any,
    /// `DNS`
    Dns,
    /// `URI`
    Uri,
    /// `EMAIL`
    Email,
    /// `IP_ADDRESS`
    IpAddress,
    /// `OTHER_NAME`, of this type in dotted decimals.
    OtherName(String),
}

/// Session ticket keys, 80 bytes each: the first encrypts, all decrypt.
pub struct TicketKeys(pub Vec<[u8; 80]>);

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeys({})", self.0.len())
    }
}

/// Whatever an extension is to keep secret.
#[derive(Default)]
pub struct GenericSecret {
    /// `secret`
    pub secret: Vec<u8>,
    /// `secrets`, by name.
    pub named: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for GenericSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GenericSecret")
    }
}

/// The place of a secret that is found by its name: control fills it, everybody reads it.
#[derive(Debug)]
pub struct SecretSlot {
    /// The name.
    pub name: Arc<str>,
    /// What it has to be.
    pub kind: SecretKind,
    /// What it is; empty until it comes.
    pub current: ArcSwapOption<Secret>,
}

impl SecretSlot {
    /// An empty slot.
    #[must_use]
    pub fn new(name: Arc<str>, kind: SecretKind) -> Arc<Self> {
        Arc::new(Self { name, kind, current: ArcSwapOption::empty() })
    }
}

/// A use of a secret by its name (`SdsSecretConfig`).
#[derive(Debug)]
pub struct NamedSecret {
    /// The name.
    pub name: Arc<str>,
    /// What it has to be.
    pub kind: SecretKind,
    /// Where it is found; `None` among the static ones of the bootstrap.
    pub source: Option<ConfigSource>,
    /// Where it will be: set by control, once.
    pub slot: OnceLock<Arc<SecretSlot>>,
}

impl NamedSecret {
    /// What it is, if it has come.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Secret>> {
        self.slot.get()?.current.load_full()
    }
}

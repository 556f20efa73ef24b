//! Which certificate a client gets: by the name it wants and the signatures it can check, in Envoy's order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::OcspStaplePolicy;
use filters::tls::Certificate;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm};

use crate::tls::secret::TlsCertificate;
use crate::tls::signing::{Schemes, limited};

/// The certificates of a context.
#[derive(Debug)]
pub(super) struct Certificates {
    list: Vec<Entry>,
    /// By lower-case name, and by what follows the `*` of a wildcard: the first of each kind of key.
    exact: HashMap<String, Choice>,
    wildcard: HashMap<String, Choice>,
    full_scan: bool,
}

/// A certificate and what goes with it.
#[derive(Debug)]
pub(super) struct Entry {
    key: Arc<CertifiedKey>,
    /// The key without the OCSP response, for when that is too old; `None` where there is none.
    bare: Option<Arc<CertifiedKey>>,
    ocsp_expires: Option<SystemTime>,
    must_staple: bool,
    pub(super) leaf: Option<Arc<Certificate>>,
    ecdsa: bool,
}

/// What becomes of a client's wish for an OCSP response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staple {
    /// It gets one.
    Given,
    /// There is none, and none is needed.
    None,
    /// Without one there is no session.
    Missing,
}

impl Entry {
    fn response_holds(&self) -> bool {
        self.bare.is_some() && self.ocsp_expires.is_none_or(|expires| expires > SystemTime::now())
    }

    /// What becomes of the wish for an OCSP response under this policy.
    pub(super) fn staple(&self, policy: OcspStaplePolicy) -> Staple {
        let (has, holds) = (self.bare.is_some(), self.response_holds());
        match policy {
            _ if holds => Staple::Given,
            OcspStaplePolicy::LenientStapling => Staple::None,
            OcspStaplePolicy::StrictStapling if !has && !self.must_staple => Staple::None,
            OcspStaplePolicy::StrictStapling | OcspStaplePolicy::MustStaple => Staple::Missing,
        }
    }

    /// The key, with the OCSP response as long as that holds.
    fn key(&self) -> Arc<CertifiedKey> {
        match &self.bare {
            Some(bare) if !self.response_holds() => Arc::clone(bare),
            _ => Arc::clone(&self.key),
        }
    }
}

/// The first certificate with an RSA key, and the first with another.
#[derive(Debug, Default, Clone, Copy)]
struct Choice {
    rsa: Option<usize>,
    ecdsa: Option<usize>,
}

impl Choice {
    fn add(&mut self, index: usize, ecdsa: bool) {
        let place = if ecdsa { &mut self.ecdsa } else { &mut self.rsa };
        place.get_or_insert(index);
    }

    fn of(self, ecdsa: bool) -> Option<usize> {
        if ecdsa { self.ecdsa.or(self.rsa) } else { self.rsa.or(self.ecdsa) }
    }
}

impl Certificates {
    pub(super) fn new(certificates: &[Arc<TlsCertificate>], full_scan: bool, schemes: Option<&Schemes>) -> Self {
        let mut this = Self { list: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new(), full_scan };
        for (index, certificate) in certificates.iter().enumerate() {
            let ecdsa = certificate.key.key.algorithm() != SignatureAlgorithm::RSA;
            let leaf = certificate.chain.first().cloned();
            if let Some(leaf) = &leaf {
                for name in names(leaf) {
                    match name.strip_prefix('*') {
                        Some(rest) => this.wildcard.entry(rest.to_owned()).or_default().add(index, ecdsa),
                        None => this.exact.entry(name).or_default().add(index, ecdsa),
                    }
                }
            }
            let key = limited(&certificate.key, schemes);
            let bare = key.ocsp.is_some().then(|| Arc::new(CertifiedKey::new(key.cert.clone(), Arc::clone(&key.key))));
            this.list.push(Entry {
                key,
                bare,
                ocsp_expires: certificate.ocsp_expires,
                must_staple: certificate.must_staple,
                leaf,
                ecdsa,
            });
        }
        this
    }

    fn index(&self, hello: &ClientHello<'_>) -> Option<usize> {
        let ecdsa = takes_ecdsa(hello);
        let name = hello.server_name().map(str::to_ascii_lowercase);
        if let Some(name) = &name {
            let by_name = self.exact.get(name).and_then(|choice| choice.of(ecdsa));
            let wildcard = || self.wildcard.get(&name[name.find('.')?..]).and_then(|choice| choice.of(ecdsa));
            if let Some(index) = by_name.or_else(wildcard) {
                return Some(index);
            }
        }
        if name.is_none() || self.full_scan {
            let fits = self.list.iter().position(|entry| entry.ecdsa == ecdsa);
            return fits.or_else(|| (!self.list.is_empty()).then_some(0));
        }
        (!self.list.is_empty()).then_some(0)
    }

    /// The first of all.
    pub(super) fn first(&self) -> Option<Arc<Certificate>> {
        self.list.first()?.leaf.clone()
    }

    /// The certificate such a client gets.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> Option<&Entry> {
        self.list.get(self.index(hello)?)
    }
}

/// The DNS names of a certificate; the common name where it has none.
fn names(leaf: &Certificate) -> Vec<String> {
    let facts = leaf.facts();
    if !facts.dns_sans.is_empty() {
        return facts.dns_sans.iter().map(|name| name.to_ascii_lowercase()).collect();
    }
    let common = facts.subject.split(',').find_map(|part| part.strip_prefix("CN="));
    common.map(str::to_ascii_lowercase).into_iter().collect()
}

/// Whether the client can check ECDSA signatures.
fn takes_ecdsa(hello: &ClientHello<'_>) -> bool {
    let offers_13 = hello.cipher_suites().iter().any(|suite| u16::from(*suite) >> 8 == 0x13);
    let suites = [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let by_scheme =
        hello.signature_schemes().iter().any(|scheme| scheme.as_str().is_some_and(|s| s.starts_with("ECDSA")));
    by_scheme && (offers_13 || hello.cipher_suites().iter().any(|suite| suites.contains(suite)))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.list.get(self.index(&hello)?)?.key())
    }
}

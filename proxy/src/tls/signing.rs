//! Signatures by some algorithms only (`TlsParameters.signature_algorithms`).

use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

/// What may be signed by, the best first.
pub type Schemes = Arc<[SignatureScheme]>;

/// A key that signs by these alone.
#[derive(Debug)]
struct Limited {
    key: Arc<dyn SigningKey>,
    schemes: Schemes,
}

impl SigningKey for Limited {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let common = self.schemes.iter().filter(|scheme| offered.contains(scheme));
        common.into_iter().find_map(|scheme| self.key.choose_scheme(&[*scheme]))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// The same certificate, whose key signs by `schemes` alone, where there are any.
#[must_use]
pub fn limited(certified: &Arc<CertifiedKey>, schemes: Option<&Schemes>) -> Arc<CertifiedKey> {
    let Some(schemes) = schemes else { return Arc::clone(certified) };
    let CertifiedKey { cert, key, ocsp } = &**certified;
    let key = Arc::new(Limited { key: Arc::clone(key), schemes: Arc::clone(schemes) });
    Arc::new(CertifiedKey { cert: cert.clone(), key, ocsp: ocsp.clone() })
}

//! PKCS#12: a private key and its certificates in one encrypted piece (RFC 7292).

use std::sync::Arc;

use p12_keystore::Pkcs12Archive;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use super::certificate::holds;
use super::private_key;
use crate::tls::words;

/// What is in such a piece.
pub(super) struct Content {
    /// The key.
    pub(super) key: Arc<dyn SigningKey>,
    /// The certificates in DER: the key's first, then the others as they come.
    pub(super) chain: Vec<Vec<u8>>,
}

/// What is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is none, or the password is wrong.
    Unreadable,
    /// It has no key, or no certificate that the key is of.
    Incomplete,
    /// This build decrypts nothing (see [`private_key`]).
    NotApproved,
}

/// Opens such a piece.
pub(super) fn open(data: &[u8], password: &[u8]) -> Result<Content, Problem> {
    if !words::allowed(false) {
        return Err(Problem::NotApproved);
    }
    let password = std::str::from_utf8(password).map_err(|_| Problem::Unreadable)?;
    let Pkcs12Archive { keys, certs, .. } =
        Pkcs12Archive::from_pkcs12(data, password).map_err(|_| Problem::Unreadable)?;
    let key = keys.into_iter().next().ok_or(Problem::Incomplete)?;
    let der = PrivateKeyDer::Pkcs8(key.key.as_der().into());
    let key = private_key::signing(&der).map_err(|_| Problem::Unreadable)?;
    let mut chain: Vec<_> = certs.iter().map(|certificate| certificate.cert.as_der().to_vec()).collect();
    let own = chain.iter().position(|certificate| holds(certificate, &*key)).ok_or(Problem::Incomplete)?;
    chain[..=own].rotate_right(1);
    Ok(Content { key, chain })
}

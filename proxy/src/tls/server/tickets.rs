//! Tickets under keys that several proxies share.
//!
//! Envoy names a key by its first sixteen bytes, and so do we. What is in a ticket is rustls's own, so only proxies of our kind
//! can resume each other's sessions. A ticket is bound to the certificates and the trust of the context it was made by: one
//! made under another validation is no ticket here (CVE-2022-21654).

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use prost::Message;
use rustls::server::ProducesTickets;

use crate::tls::context::Ingredients;
use crate::tls::secret::TicketKeys;

const NAME: usize = 16;

/// Makes and reads tickets.
pub(super) struct Ticketer {
    /// The first encrypts.
    keys: Vec<([u8; NAME], LessSafeKey)>,
    binding: Vec<u8>,
    lifetime: u32,
}

impl Ticketer {
    pub(super) fn new(keys: &TicketKeys, ingredients: &Ingredients, lifetime: Duration) -> Self {
        let mut binding = Context::new(&SHA256);
        for certificate in ingredients.certificates.iter().flat_map(|it| it.chain.first()) {
            binding.update(certificate.der());
        }
        if let Some(validation) = &ingredients.validation {
            binding.update(&validation.proto.encode_to_vec());
        }
        let keys = keys.0.iter().filter_map(|key| {
            let (name, secrets) = key.split_first_chunk::<NAME>()?;
            let key = UnboundKey::new(&AES_256_GCM, secrets.get(32..64)?).ok()?;
            Some((*name, LessSafeKey::new(key)))
        });
        Self {
            keys: keys.collect(),
            binding: binding.finish().as_ref().to_vec(),
            lifetime: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

impl std::fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticketer({})", self.keys.len())
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        !self.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&self.binding), &mut sealed)
            .ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(&self.binding), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(keys: &[u8], trust: &str) -> Ticketer {
        let mut validation = crate::tls::secret::ValidationContext::default();
        validation.proto.verify_certificate_hash = vec![trust.to_owned()];
        let ingredients = Ingredients { validation: Some(validation.into()), ..Ingredients::default() };
        let keys = TicketKeys(keys.iter().map(|byte| [*byte; 80]).collect());
        Ticketer::new(&keys, &ingredients, Duration::from_secs(1))
    }

    #[test]
    fn tickets_are_read_by_who_has_the_key_and_the_same_trust() {
        let ticket = ticketer(&[1, 2], "a").encrypt(b"session").expect("a ticket");
        for (keys, trust, expected) in [
            (&[1][..], "a", Some(&b"session"[..])),
            (&[3, 1], "a", Some(b"session")),
            (&[2], "a", None),
            (&[1], "b", None),
        ] {
            assert_eq!(ticketer(keys, trust).decrypt(&ticket).as_deref(), expected, "{keys:?} {trust}");
        }
        assert_eq!(ticketer(&[1], "a").decrypt(b"short"), None);
    }
}

//! Sets of keys that signatures are verified with: JWKS (RFC 7517), or certificates by key id (`{"kid": "<PEM>"}`).

use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer, Pem, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::failure::Failure;
use super::key::{Curve, Key};
use super::token::Token;
use super::{base64url, json};

/// The keys of an issuer.
#[derive(Debug)]
pub struct Jwks {
    keys: Vec<Jwk>,
}

/// One of them.
#[derive(Debug)]
struct Jwk {
    /// Empty for none: it may have signed any token.
    kid: String,
    /// Empty for none: it may have been used by any algorithm.
    alg: String,
    key: Key,
}

impl Jwks {
    /// The keys that a document holds. Those that make no sense are left out, if others are left.
    ///
    /// # Errors
    /// When no key is left: what is wrong with the first one, or with the document.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let document = json::parse(text).ok_or(Failure::JwksBadJson)?;
        let keys = match document.get("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err(Failure::JwksBadKeys),
            None => return certificates(&document),
        };
        let mut first = None;
        let mut keep = |jwk: Result<Jwk, Failure>| jwk.map_err(|failure| first.get_or_insert(failure)).ok();
        let keys: Vec<_> = keys.iter().filter_map(Value::as_object).filter_map(|jwk| keep(Jwk::parse(jwk))).collect();
        if keys.is_empty() { Err(first.unwrap_or(Failure::JwksNoValidKeys)) } else { Ok(Self { keys }) }
    }

    /// Whether one of the keys made the token's signature. A key is asked if neither its id nor its algorithm say that it is
    /// another.
    ///
    /// # Errors
    /// When none did, or none was asked.
    pub fn verify(&self, token: &Token) -> Result<(), Failure> {
        let mut failure = Failure::JwksNoMatch;
        for jwk in &self.keys {
            if !token.kid.is_empty() && !jwk.kid.is_empty() && jwk.kid != token.kid
                || !jwk.alg.is_empty() && jwk.alg != token.algorithm.name()
            {
                continue;
            }
            failure = Failure::VerificationFails;
            match jwk.key.verify(token.algorithm, token.signed(), &token.signature) {
                Err(Failure::VerificationFails) => {}
                over => return over,
            }
        }
        Err(failure)
    }
}

impl Jwk {
    fn parse(jwk: &Map<String, Value>) -> Result<Self, Failure> {
        let kty = text(jwk, "kty", Failure::MissingKty, Failure::BadKty)?;
        let optional = |name| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        let alg = optional("alg");
        let key = match kty {
            "EC" => elliptic(jwk, alg),
            "RSA" => rsa(jwk, alg),
            "oct" => secret(jwk, alg),
            "OKP" => edwards(jwk, alg),
            _ => Err(Failure::UnknownKty),
        }?;
        Ok(Self { kid: optional("kid").to_owned(), alg: alg.to_owned(), key })
    }
}

/// A member that has to be a string.
fn text<'j>(jwk: &'j Map<String, Value>, name: &str, missing: Failure, bad: Failure) -> Result<&'j str, Failure> {
    jwk.get(name).ok_or(missing)?.as_str().ok_or(bad)
}

fn rsa(jwk: &Map<String, Value>, alg: &str) -> Result<Key, Failure> {
    if !(alg.is_empty() || alg.starts_with("RS") || alg.starts_with("PS")) {
        return Err(Failure::RsaBadAlg);
    }
    let n = text(jwk, "n", Failure::RsaMissingN, Failure::RsaBadN)?;
    let e = text(jwk, "e", Failure::RsaMissingE, Failure::RsaBadE)?;
    let number = |text: &str| base64url::decode(text.as_bytes());
    let (Some(n), Some(e)) = (number(n), number(e)) else { return Err(Failure::JwksBadRsa) };
    Key::rsa(&n, &e).ok_or(Failure::JwksBadRsa)
}

fn elliptic(jwk: &Map<String, Value>, alg: &str) -> Result<Key, Failure> {
    if !(alg.is_empty() || alg.starts_with("ES")) {
        return Err(Failure::EcBadAlg);
    }
    let crv = match jwk.get("crv") {
        None => "",
        Some(crv) => crv.as_str().ok_or(Failure::EcBadCrv)?,
    };
    let curve = match (alg, crv) {
        ("ES256", "P-256" | "") | ("", "P-256" | "") => Curve::P256,
        ("ES384", "P-384" | "") | ("", "P-384") => Curve::P384,
        ("ES512", "P-521" | "") | ("", "P-521") => Curve::P521,
        ("", _) | (_, "") => return Err(Failure::EcUnknown),
        _ => return Err(Failure::EcIncompatible),
    };
    let x = text(jwk, "x", Failure::EcMissingX, Failure::EcBadX)?;
    let y = text(jwk, "y", Failure::EcMissingY, Failure::EcBadY)?;
    let number = |text: &str| base64url::decode(text.as_bytes());
    let (Some(x), Some(y)) = (number(x), number(y)) else { return Err(Failure::JwksEcBadBase64) };
    Key::elliptic(curve, &x, &y).ok_or(Failure::JwksBadEc)
}

fn secret(jwk: &Map<String, Value>, alg: &str) -> Result<Key, Failure> {
    if !matches!(alg, "" | "HS256" | "HS384" | "HS512") {
        return Err(Failure::OctBadAlg);
    }
    let k = text(jwk, "k", Failure::OctMissingK, Failure::OctBadK)?;
    let secret = base64url::decode(k.as_bytes()).filter(|secret| !secret.is_empty());
    secret.map(|secret| Key::secret(&secret)).ok_or(Failure::JwksOctBadBase64)
}

/// RFC 8037
fn edwards(jwk: &Map<String, Value>, alg: &str) -> Result<Key, Failure> {
    if !matches!(alg, "" | "EdDSA") {
        return Err(Failure::OkpBadAlg);
    }
    if text(jwk, "crv", Failure::OkpMissingCrv, Failure::OkpBadCrv)? != "Ed25519" {
        return Err(Failure::OkpUnknownCrv);
    }
    let x = text(jwk, "x", Failure::OkpMissingX, Failure::OkpBadX)?;
    let x = base64url::decode(x.as_bytes()).ok_or(Failure::JwksOkpBadBase64)?;
    Ok(Key::Ed25519(x.try_into().map_err(|_| Failure::JwksOkpWrongLength)?))
}

/// RSA keys as certificates, by key id.
fn certificates(document: &Map<String, Value>) -> Result<Jwks, Failure> {
    let pem = |(kid, value): (&String, &Value)| {
        let text = value.as_str().filter(|text| {
            text.starts_with("-----BEGIN CERTIFICATE-----\n") && text.ends_with("\n-----END CERTIFICATE-----\n")
        });
        (!kid.is_empty()).then_some(())?;
        Some((kid.clone(), text?.to_owned()))
    };
    let all: Option<Vec<(String, String)>> = document.iter().map(pem).collect();
    let Some(all) = all.filter(|all| !all.is_empty()) else { return Err(Failure::JwksNoKeys) };
    let keys = all.into_iter().map(|(kid, pem)| Ok(Jwk { kid, alg: String::new(), key: certified(&pem)? }));
    Ok(Jwks { keys: keys.collect::<Result<_, _>>()? })
}

fn certified(pem: &str) -> Result<Key, Failure> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next().and_then(Result::ok).ok_or(Failure::X509Unreadable)?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|_| Failure::X509Unreadable)?;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) => Key::rsa(rsa.modulus, rsa.exponent).ok_or(Failure::X509NoKey),
        _ => Err(Failure::X509NoKey),
    }
}

#[cfg(test)]
mod tests;

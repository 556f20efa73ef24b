//! A JSON Web Token in its compact form (RFC 7519, RFC 7515 section 7.1): read, not yet believed.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::failure::Failure;
use super::key::Algorithm;
use super::{base64url, json};

/// What a token says.
#[derive(Debug)]
pub struct Token {
    /// Header and payload with the dot between them, encoded: what is signed.
    signed: String,
    /// Where in it the payload stands.
    encoded_payload: Range<usize>,
    /// The members of its header.
    pub header: Map<String, Value>,
    /// Its claims.
    pub payload: Map<String, Value>,
    /// `alg`
    pub algorithm: Algorithm,
    /// `kid`; empty for none.
    pub kid: String,
    /// `iss`; empty for none.
    pub issuer: String,
    /// `sub`; empty for none.
    pub subject: String,
    /// `aud`
    pub audiences: Vec<String>,
    /// `nbf` in seconds of Unix time; 0 for none.
    not_before: u64,
    /// `exp` in seconds of Unix time; 0 for none.
    expires: u64,
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let mut sections = text.split(|byte| *byte == b'.').filter(|section| !section.is_empty());
        let (Some(header), Some(payload), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Failure::BadFormat);
        };
        let decoded = base64url::decode(header).ok_or(Failure::HeaderBadBase64)?;
        let head = json::parse(&decoded).ok_or(Failure::HeaderBadJson)?;
        let alg = head.get("alg").and_then(Value::as_str).ok_or(Failure::HeaderBadAlg)?;
        let algorithm = Algorithm::of(alg).ok_or(Failure::HeaderUnknownAlg)?;
        let kid = text_of(&head, "kid", Failure::HeaderBadKid)?;

        let decoded = base64url::decode(payload).ok_or(Failure::PayloadBadBase64)?;
        let claims = json::parse(&decoded).ok_or(Failure::PayloadBadJson)?;
        let issuer = text_of(&claims, "iss", Failure::IssNotString)?;
        let subject = text_of(&claims, "sub", Failure::SubNotString)?;
        time_of(&claims, "iat", Failure::IatNotInteger, Failure::IatOutOfRange)?;
        let not_before = time_of(&claims, "nbf", Failure::NbfNotInteger, Failure::NbfOutOfRange)?;
        let expires = time_of(&claims, "exp", Failure::ExpNotInteger, Failure::ExpOutOfRange)?;
        text_of(&claims, "jti", Failure::JtiNotString)?;
        let audiences = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => {
                let names = several.iter().map(|one| one.as_str().map(str::to_owned));
                names.collect::<Option<_>>().ok_or(Failure::AudNotString)?
            }
            Some(_) => return Err(Failure::AudNotString),
        };
        let signature = base64url::decode(signature).ok_or(Failure::SignatureBadBase64)?;

        // Both were decoded, so both are ASCII.
        let start = header.len() + 1;
        let signed = String::from_utf8_lossy(&[header, payload].join(&b'.')).into_owned();
        Ok(Self {
            encoded_payload: start..start + payload.len(),
            signed,
            header: head,
            payload: claims,
            algorithm,
            kid,
            issuer,
            subject,
            audiences,
            not_before,
            expires,
            signature,
        })
    }

    /// What the signature is about.
    #[must_use]
    pub const fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The claims as they were sent, in Base64.
    #[must_use]
    pub fn encoded_payload(&self) -> &str {
        self.signed.get(self.encoded_payload.clone()).unwrap_or_default()
    }

    /// Whether `now` lies within the times it says, when clocks may differ by `skew` seconds.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_time(&self, now: SystemTime, skew: u64) -> Result<(), Failure> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if now.saturating_add(skew) < self.not_before {
            return Err(Failure::NotYetValid);
        }
        if self.expires != 0 && now > self.expires.saturating_add(skew) {
            return Err(Failure::Expired);
        }
        Ok(())
    }

    /// How much longer than `now` it is valid, nothing when it was: `None` if it does not say.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Option<Duration> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (self.expires != 0).then(|| Duration::from_secs(self.expires).saturating_sub(now))
    }
}

fn text_of(members: &Map<String, Value>, name: &str, bad: Failure) -> Result<String, Failure> {
    members.get(name).map_or(Ok(String::new()), |value| value.as_str().map(str::to_owned).ok_or(bad))
}

fn time_of(members: &Map<String, Value>, name: &str, bad: Failure, range: Failure) -> Result<u64, Failure> {
    let Some(value) = members.get(name) else { return Ok(0) };
    let seconds = value.as_f64().ok_or(bad)?;
    // 2^64 is the first that is too many. Fractions of a second are cut off.
    if !(0.0..18_446_744_073_709_551_616.0).contains(&seconds) {
        return Err(range);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range, and truncation is meant"
    )]
    Ok(seconds as u64)
}

#[cfg(test)]
pub(super) mod tests;

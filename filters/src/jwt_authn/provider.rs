//! One issuer's tokens: what they must say, which keys sign them, and what becomes of them once they are believed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::extract::Places;
use super::failure::Failure;
use super::json;
use super::jwks::Jwks;
use super::remote::RemoteJwks;
use super::token::Token;
use crate::http::{HeaderName, RequestHead};
use crate::matcher::StringMatcher;

/// `JwtProvider`
#[derive(Debug)]
pub struct Provider {
    /// Empty: any issuer.
    pub issuer: Box<str>,
    /// Whom tokens may be meant for.
    pub audiences: Audiences,
    /// Whom tokens may be about.
    pub subjects: Option<StringMatcher>,
    /// How much longer they may be valid. They have to say how long, if this is here.
    pub lifetime: Option<Lifetime>,
    /// Seconds by which clocks may differ.
    pub clock_skew: u64,
    /// Where the tokens are.
    pub places: Places,
    /// What signs them.
    pub keys: Keys,
    /// What becomes of them.
    pub forwarding: Forwarding,
    /// How many of them are remembered, and how long each may be; `None` for none.
    pub cache: Option<CacheSize>,
}

/// Whence the keys are.
#[derive(Debug)]
pub enum Keys {
    /// From the configuration; `None` where it holds none.
    Local(Option<Arc<Jwks>>),
    /// From a cluster.
    Remote(Box<RemoteJwks>),
}

/// How much longer a token may be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// However long, but it says so (`require_expiration`).
    Finite,
    /// Less than this (`max_lifetime`).
    Below(Duration),
}

/// `JwtCacheConfig`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSize {
    /// So many tokens.
    pub tokens: usize,
    /// None longer than so many bytes.
    pub token_length: usize,
}

/// What upstream, metadata and routing get of a token.
#[derive(Debug, Default)]
pub struct Forwarding {
    /// It stays in the request (`forward`).
    pub token: bool,
    /// `forward_payload_header`
    pub payload_header: Option<HeaderName>,
    /// `pad_forward_payload_header`
    pub pad_payload: bool,
    /// `claim_to_headers`: the claim's names from the outside in, and the header.
    pub claims: Vec<(Vec<Box<str>>, HeaderName)>,
    /// `payload_in_metadata`; empty for none.
    pub payload_metadata: Box<str>,
    /// `header_in_metadata`; empty for none.
    pub header_metadata: Box<str>,
    /// `failed_status_in_metadata`; empty for none.
    pub failure_metadata: Box<str>,
    /// `normalize_payload_in_metadata`: claims that are lists with spaces between.
    pub space_delimited: Vec<Box<str>>,
    /// `clear_route_cache`
    pub clear_route_cache: bool,
}

impl Provider {
    /// Checks all that a token says, apart from its signature.
    ///
    /// # Errors
    /// The first claim that is not as it has to be.
    pub fn check(&self, token: &Token, audiences: Option<&Audiences>, now: SystemTime) -> Result<(), Failure> {
        token.check_time(now, self.clock_skew)?;
        if !audiences.unwrap_or(&self.audiences).allow(&token.audiences) {
            return Err(Failure::AudienceNotAllowed);
        }
        if self.subjects.as_ref().is_some_and(|subjects| !subjects.matches(token.subject.as_bytes())) {
            return Err(Failure::VerificationFails);
        }
        let lives = match (self.lifetime, token.remaining(now)) {
            (None, _) | (Some(Lifetime::Finite), Some(_)) => true,
            (Some(_), None) => false,
            (Some(Lifetime::Below(max)), Some(left)) => left < max,
        };
        if lives { Ok(()) } else { Err(Failure::VerificationFails) }
    }
}

impl Forwarding {
    /// The headers that tell upstream of tokens.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.payload_header.iter().chain(self.claims.iter().map(|(_, name)| name))
    }

    /// Adds to a request what upstream is to know of a token; says whether the route has to be looked for anew.
    ///
    /// # Errors
    /// With the header that would have a value which no header can have. Nothing of it is in the request.
    pub fn add_headers(&self, token: &Token, head: &mut RequestHead) -> Result<bool, HeaderName> {
        if let Some(name) = &self.payload_header {
            let mut payload = token.encoded_payload().to_owned();
            while self.pad_payload && !payload.len().is_multiple_of(4) {
                payload.push('=');
            }
            head.headers.append(name.clone(), payload);
        }
        let mut added = !self.payload_metadata.is_empty();
        for (path, name) in &self.claims {
            if let Some(value) = claim(token, path).and_then(claim_text) {
                if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
                    return Err(name.clone());
                }
                head.headers.append(name.clone(), value);
                added = true;
            }
        }
        Ok(added && self.clear_route_cache)
    }

    /// What metadata are to know of a token: names and values.
    pub fn metadata<'f>(&'f self, token: &Token) -> impl Iterator<Item = (&'f str, Value)> {
        let header =
            (!self.header_metadata.is_empty()).then(|| (&*self.header_metadata, Value::Object(token.header.clone())));
        let payload = (!self.payload_metadata.is_empty()).then(|| {
            let mut claims = token.payload.clone();
            for name in &self.space_delimited {
                if let Some(claim) = claims.get_mut(&**name)
                    && let Some(text) = claim.as_str()
                    // A claim of nothing but spaces has no values, and stays what it is.
                    && text.bytes().any(|byte| byte != b' ')
                {
                    *claim = text.split(' ').filter(|value| !value.is_empty()).map(Value::from).collect();
                }
            }
            (&*self.payload_metadata, Value::Object(claims))
        });
        header.into_iter().chain(payload)
    }
}

/// The claim at the end of this path.
fn claim<'t>(token: &'t Token, path: &[Box<str>]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(token.payload.get(&**first)?, |value, name| value.as_object()?.get(&**name))
}

/// The text of a claim for a header; `None` where there is nothing to say.
fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => number.as_f64().map(number_text),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(json::print(value))),
    }
}

/// A whole number that is not negative and fits 64 bits as it is; any other with six places.
fn number_text(value: f64) -> String {
    if (0.0..18_446_744_073_709_551_616.0).contains(&value) && value.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
        return (value as u64).to_string();
    }
    format!("{value:.6}")
}

/// Whom tokens may be meant for.
#[derive(Debug, Default)]
pub struct Audiences(BTreeSet<String>);

impl Audiences {
    /// These; none for all.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        Self(names.into_iter().map(|name| bare(name).to_owned()).collect())
    }

    /// Whether a token for these may be used here.
    #[must_use]
    pub fn allow(&self, audiences: &[String]) -> bool {
        self.0.is_empty() || audiences.iter().any(|name| self.0.contains(bare(name)))
    }
}

/// A name without scheme and final slash.
fn bare(name: &str) -> &str {
    let behind = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://")).unwrap_or(name);
    behind.strip_suffix('/').unwrap_or(behind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn audiences_are_compared_without_scheme_and_slash() {
        let allowed = Audiences::new(&["https://a.test/".to_owned(), "b".to_owned()]);
        for (name, yes) in
            [("a.test", true), ("http://a.test", true), ("a.test/", true), ("b/", true), ("c", false), ("", false)]
        {
            assert_eq!(allowed.allow(&[name.to_owned()]), yes, "{name}");
        }
        assert!(!allowed.allow(&[]));
        assert!(Audiences::default().allow(&[]));
    }

    /// Measured on Envoy 1.40.
    #[test]
    fn claims_as_headers() {
        for (value, text) in [
            (json!("x"), Some("x")),
            (json!(""), None),
            (json!(null), None),
            (json!(true), Some("true")),
            (json!(1.0), Some("1")),
            (json!(-0.0), Some("0")),
            (json!(1.5), Some("1.500000")),
            (json!(-3.0), Some("-3.000000")),
            (json!(1e-7), Some("0.000000")),
            (json!(12_345_678_901_234_567_890.0), Some("12345678901234567168")),
            (json!(18_446_744_073_709_551_615.0), Some("18446744073709551616.000000")),
            (json!(1e20), Some("100000000000000000000.000000")),
            (json!({"a": 1.0}), Some("eyJhIjoxfQ==")),
            (json!(["a", "b"]), Some("WyJhIiwiYiJd")),
            (json!([]), Some("W10=")),
        ] {
            assert_eq!(claim_text(&value).as_deref(), text, "{value}");
        }
    }
}

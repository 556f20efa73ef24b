//! `envoy.config.route.v3.CookieMatcher`.

use envoy_types::pb::envoy::config::route::v3::CookieMatcher as Proto;

use super::{RegexLimits, StringMatcher};
use crate::config::{At, ConfigError};
use crate::http::{Headers, Known};

/// Decides over the first cookie of one name.
#[derive(Debug, Clone)]
pub struct CookieMatcher {
    name: Box<[u8]>,
    value: StringMatcher,
    invert: bool,
}

impl CookieMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// When the name is empty or `string_match` is missing, or as [`StringMatcher::parse`].
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto { name, string_match, invert_match } = proto;
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        let string_match = at.required("string_match", string_match)?;
        let value = StringMatcher::parse(string_match, at.field("string_match"), limits)?;
        Ok(Self { name: name.into_bytes().into(), value, invert: invert_match })
    }

    /// Whether the cookies of a request match. A missing cookie matches only when inverted.
    #[must_use]
    pub fn matches(&self, headers: &Headers) -> bool {
        cookie(headers, &self.name).is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

/// The value of the first cookie of this name, without surrounding quotes.
#[must_use]
pub fn cookie<'h>(headers: &'h Headers, name: &[u8]) -> Option<&'h [u8]> {
    headers.values(&Known::Cookie).flat_map(|value| value.split(|&byte| byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii_start();
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on Envoy 1.40.
    #[test]
    fn the_first_cookie_of_the_name_counts() {
        let cases: [(&[&str], bool); 14] = [
            (&[], false),
            (&["k=v"], true),
            (&["k=\"v\""], true),
            (&["a=b; k=v"], true),
            (&["a=b;k=v"], true),
            (&["k=w; k=v"], false),
            (&["k=v; k=w"], true),
            (&["k=w", "k=v"], false),
            (&["k=v ; a=b"], false),
            (&["K=v"], false),
            (&["k = v"], false),
            (&["k"], false),
            (&["k=\"v"], false),
            (&["a=k=v"], false),
        ];
        for (cookies, expected) in cases {
            let mut headers = Headers::new();
            for cookie in cookies {
                headers.append(Known::Cookie, (*cookie).to_owned());
            }
            for invert in [false, true] {
                let matcher = CookieMatcher { name: b"k"[..].into(), value: StringMatcher::exact("v"), invert };
                assert_eq!(matcher.matches(&headers), expected != invert, "{cookies:?} {invert}");
            }
        }
    }
}

//! `envoy.config.route.v3.HeaderMatcher`.

use std::ops::Range;

use envoy_types::pb::envoy::config::route::v3::HeaderMatcher as Proto;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::v3::Int64Range;

use super::{Regex, RegexLimits, StringMatcher};
use crate::config::{At, ConfigError};
use crate::http::{HeaderKey, Headers, RequestHead, ResponseHead};

/// Decides over one header of a message.
///
/// * A header that is missing does not match, whether inverted or not, unless only presence is asked or
///   `treat_missing_header_as_empty` is set.
/// * Where a name repeats, the values are matched one by one and one match is enough.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    key: HeaderKey,
    test: Test,
    invert: bool,
    missing_as_empty: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Present(bool),
    Value(StringMatcher),
    Range(Range<i64>),
}

impl HeaderMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// When the name is no header name, or as [`StringMatcher::parse`].
    #[expect(deprecated, reason = "Envoy still accepts the fields")]
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        use HeaderMatchSpecifier as S;
        let Proto { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = proto;
        let key = HeaderKey::parse(&name)
            .ok_or_else(|| at.field("name").error(format_args!("'{name}' is not a header name")))?;
        let nonempty = |field: &'static str, text: String| {
            if text.is_empty() {
                Err(at.field(field).error("value length must be at least 1 characters"))
            } else {
                Ok(text)
            }
        };
        let test = match header_match_specifier {
            None => Test::Present(true),
            Some(S::PresentMatch(present)) => Test::Present(present),
            Some(S::ExactMatch(text)) if text.is_empty() => Test::Present(true),
            Some(S::ExactMatch(text)) => Test::Value(StringMatcher::exact(text)),
            Some(S::PrefixMatch(text)) => Test::Value(StringMatcher::prefix(nonempty("prefix_match", text)?)),
            Some(S::SuffixMatch(text)) => Test::Value(StringMatcher::suffix(nonempty("suffix_match", text)?)),
            Some(S::ContainsMatch(text)) => {
                Test::Value(StringMatcher::contains(nonempty("contains_match", text)?.as_bytes()))
            }
            Some(S::SafeRegexMatch(regex)) => {
                Test::Value(StringMatcher::regex(Regex::parse(regex, at.field("safe_regex_match"), limits)?))
            }
            Some(S::RangeMatch(Int64Range { start, end })) => Test::Range(start..end),
            Some(S::StringMatch(matcher)) => {
                Test::Value(StringMatcher::parse(matcher, at.field("string_match"), limits)?)
            }
        };
        Ok(Self { key, test, invert: invert_match, missing_as_empty: treat_missing_header_as_empty })
    }

    /// The header this looks at.
    #[must_use]
    pub const fn key(&self) -> &HeaderKey {
        &self.key
    }

    /// The one value this needs, when nothing else can match: an index may hash it.
    #[must_use]
    pub const fn exact_value(&self) -> Option<&[u8]> {
        match &self.test {
            Test::Value(matcher) if !self.invert && !self.missing_as_empty => matcher.exact_value(),
            _ => None,
        }
    }

    /// Whether a request's head matches.
    #[must_use]
    pub fn matches(&self, head: &RequestHead) -> bool {
        match &self.key {
            HeaderKey::Name(_) => self.matches_headers(&head.headers),
            pseudo => self.matches_values(head.value(pseudo).into_iter()),
        }
    }

    /// Whether a response's head matches; `:status` is matched as its three digits.
    #[must_use]
    pub fn matches_response(&self, head: &ResponseHead) -> bool {
        match &self.key {
            HeaderKey::Name(_) => self.matches_headers(&head.headers),
            HeaderKey::Status => {
                let mut digits = itoa::Buffer::new();
                self.matches_values(std::iter::once(digits.format(head.status).as_bytes()))
            }
            _ => self.matches_values(std::iter::empty()),
        }
    }

    /// Whether headers (or trailers) match; pseudo headers are missing there.
    #[must_use]
    pub fn matches_headers(&self, headers: &Headers) -> bool {
        match &self.key {
            HeaderKey::Name(name) => self.matches_values(headers.values(name).map(|value| &value[..])),
            _ => self.matches_values(std::iter::empty()),
        }
    }

    fn matches_values<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        let first = values.next();
        if let Test::Present(present) = self.test {
            return (first.is_some() || self.missing_as_empty) == (present != self.invert);
        }
        let Some(first) = first.or_else(|| self.missing_as_empty.then_some(&[])) else { return false };
        (self.test.accepts(first) || values.any(|value| self.test.accepts(value))) != self.invert
    }
}

impl Test {
    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(present) => *present,
            Self::Value(matcher) => matcher.matches(value),
            Self::Range(range) => integer(value).is_some_and(|n| range.contains(&n)),
        }
    }
}

/// A base-10 number: optional sign, digits, surrounding blanks, nothing else.
fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;

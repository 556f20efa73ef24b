//! `envoy.type.matcher.v3.StringMatcher`.

use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher as Proto;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use memchr::memmem::Finder;

use super::{Regex, RegexLimits};
use crate::config::{At, ConfigError};

/// Decides over one byte string.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<Finder<'static>>),
    Regex(Regex),
}

crate::ledger! {
    /// Rows of the string matcher.
    pub mod unsupported for "envoy.type.matcher.v3.StringMatcher" {
        custom => Refuse, "string matcher extensions decide over requests and none is built in";
    }
}

impl StringMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// When no pattern is set, a prefix, suffix or `contains` is empty, the regular expression is no RE2 or too big, or
    /// `ignore_case` stands beside a regular expression.
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto { ignore_case, match_pattern } = proto;
        let bytes = |name: &'static str, text: String| {
            if text.is_empty() {
                return Err(at.field(name).error("value length must be at least 1 characters"));
            }
            Ok(if ignore_case { text.to_ascii_lowercase() } else { text }.into_bytes())
        };
        let pattern = match at.required("match_pattern", match_pattern)? {
            MatchPattern::Exact(text) => {
                Pattern::Exact(if ignore_case { text.to_ascii_lowercase() } else { text }.into_bytes().into())
            }
            MatchPattern::Prefix(text) => Pattern::Prefix(bytes("prefix", text)?.into()),
            MatchPattern::Suffix(text) => Pattern::Suffix(bytes("suffix", text)?.into()),
            MatchPattern::Contains(text) => {
                Pattern::Contains(Box::new(Finder::new(&bytes("contains", text)?).into_owned()))
            }
            MatchPattern::SafeRegex(_) if ignore_case => {
                return Err(at.error("ignore_case has no effect for safe_regex."));
            }
            MatchPattern::SafeRegex(regex) => Pattern::Regex(Regex::parse(regex, at.field("safe_regex"), limits)?),
            MatchPattern::Custom(extension) => {
                at.unsupported(&unsupported::custom, &Some(&extension))?;
                // Allowed knowingly: a matcher that cannot be evaluated matches nothing.
                Pattern::Regex(Regex::never())
            }
        };
        Ok(Self { pattern, ignore_case })
    }

    /// Matches exactly this text, case and all.
    #[must_use]
    pub fn exact(text: impl Into<Vec<u8>>) -> Self {
        Self { pattern: Pattern::Exact(text.into().into()), ignore_case: false }
    }

    /// Matches text that starts with this one.
    #[must_use]
    pub fn prefix(text: impl Into<Vec<u8>>) -> Self {
        Self { pattern: Pattern::Prefix(text.into().into()), ignore_case: false }
    }

    /// Matches text that ends with this one.
    #[must_use]
    pub fn suffix(text: impl Into<Vec<u8>>) -> Self {
        Self { pattern: Pattern::Suffix(text.into().into()), ignore_case: false }
    }

    /// Matches text that holds this one.
    #[must_use]
    pub fn contains(text: &[u8]) -> Self {
        Self { pattern: Pattern::Contains(Box::new(Finder::new(text).into_owned())), ignore_case: false }
    }

    /// Matches what the whole expression matches.
    #[must_use]
    pub const fn regex(regex: Regex) -> Self {
        Self { pattern: Pattern::Regex(regex), ignore_case: false }
    }

    /// The one value this accepts, when it is an exact, case-sensitive match: an index may hash it.
    #[must_use]
    pub const fn exact_value(&self) -> Option<&[u8]> {
        match &self.pattern {
            Pattern::Exact(text) if !self.ignore_case => Some(text),
            _ => None,
        }
    }

    /// The text, where exactly that is wanted and case matters.
    #[must_use]
    pub fn exact_text(&self) -> Option<&[u8]> {
        match &self.pattern {
            Pattern::Exact(text) if !self.ignore_case => Some(text),
            _ => None,
        }
    }

    /// Whether `value` matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Exact(text) => self.equal(value, text),
            Pattern::Prefix(text) => value.get(..text.len()).is_some_and(|head| self.equal(head, text)),
            Pattern::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|tail| self.equal(tail, text)),
            Pattern::Contains(finder) if self.ignore_case => {
                let needle = finder.needle();
                value.windows(needle.len().max(1)).any(|window| window.eq_ignore_ascii_case(needle))
            }
            Pattern::Contains(finder) => finder.find(value).is_some(),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;

    use super::*;
    use crate::config::Session;

    fn parse(pattern: MatchPattern, ignore_case: bool) -> Result<StringMatcher, ConfigError> {
        let session = Session::default();
        let proto = Proto { ignore_case, match_pattern: Some(pattern) };
        StringMatcher::parse(proto, session.root().field("m"), RegexLimits::default())
    }

    #[test]
    fn every_pattern_by_table() {
        type P = MatchPattern;
        let regex = |text: &str| P::SafeRegex(RegexMatcher { regex: text.into(), engine_type: None });
        for (pattern, ignore_case, yes, no) in [
            (P::Exact("aB".into()), false, vec!["aB"], vec!["ab", "aBc", ""]),
            (P::Exact("aB".into()), true, vec!["aB", "Ab"], vec!["aBc"]),
            (P::Exact(String::new()), false, vec![""], vec!["a"]),
            (P::Prefix("aB".into()), false, vec!["aB", "aBx"], vec!["abx", "a"]),
            (P::Prefix("aB".into()), true, vec!["ABx"], vec!["xab"]),
            (P::Suffix("aB".into()), false, vec!["aB", "xaB"], vec!["xab", "B"]),
            (P::Suffix("aB".into()), true, vec!["xAb"], vec!["abx"]),
            (P::Contains("aB".into()), false, vec!["xaBx"], vec!["xabx", "a"]),
            (P::Contains("aB".into()), true, vec!["xABx"], vec!["a", ""]),
            (regex("a+"), false, vec!["a", "aa"], vec!["ab", "ba", ""]),
        ] {
            let matcher = parse(pattern.clone(), ignore_case).expect("valid");
            for text in yes {
                assert!(matcher.matches(text.as_bytes()), "{pattern:?} {ignore_case} {text}");
            }
            for text in no {
                assert!(!matcher.matches(text.as_bytes()), "{pattern:?} {ignore_case} {text}");
            }
        }
    }

    #[test]
    fn refusals_use_the_known_words() {
        let regex = MatchPattern::SafeRegex(RegexMatcher { regex: "a".into(), engine_type: None });
        assert_eq!(
            parse(regex, true).expect_err("refused").to_string(),
            "m: ignore_case has no effect for safe_regex."
        );
        assert!(parse(MatchPattern::Prefix(String::new()), false).is_err());
    }
}

//! `RegexMatcher` and `RegexMatchAndSubstitute`: RE2 patterns over bytes, matched in full, in linear time.

use std::fmt;

use envoy_types::pb::envoy::r#type::matcher::v3::regex_matcher::{EngineType, GoogleRe2};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use regex::bytes;

use super::re2;
use crate::config::{At, ConfigError};

/// How big an expression may be, in RE2 instructions: Envoy's runtime keys `re2.max_program_size.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegexLimits {
    /// `re2.max_program_size.error_level`: larger expressions are refused.
    pub error_level: u32,
    /// `re2.max_program_size.warn_level`: larger expressions are warned about.
    pub warn_level: u32,
}

impl Default for RegexLimits {
    fn default() -> Self {
        Self { error_level: 100, warn_level: u32::MAX }
    }
}

/// A compiled expression that has to match a whole value.
#[derive(Clone)]
pub struct Regex {
    full: bytes::Regex,
    literal_prefix: Box<[u8]>,
    pattern: Box<str>,
}

impl Regex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// In RE2's words when it is not one RE2 accepts; in Envoy's when its program is larger than allowed.
    #[expect(deprecated, reason = "Envoy still accepts the fields")]
    pub fn parse(proto: RegexMatcher, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let RegexMatcher { regex: pattern, engine_type } = proto;
        if pattern.is_empty() {
            return Err(at.field("regex").error("value length must be at least 1 characters"));
        }
        let translated = re2::translate(pattern.as_bytes()).map_err(|error| at.error(error))?;
        let own_limit = match engine_type {
            Some(EngineType::GoogleRe2(GoogleRe2 { max_program_size })) => max_program_size.map(|n| n.value),
            None => None,
        };
        check_program_size(&pattern, translated.program_size, own_limit, at, limits)?;
        let full = compile(&format!("\\A(?:{})\\z", translated.pattern)).map_err(|error| at.error(error))?;
        Ok(Self { full, literal_prefix: translated.literal_prefix.into(), pattern: pattern.into() })
    }

    /// Compiles an expression that is no part of a configuration, and so has no limit but our library's.
    ///
    /// # Errors
    /// In RE2's words when it is not one RE2 accepts.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let translated = re2::translate(pattern.as_bytes())?;
        let full = compile(&format!("\\A(?:{})\\z", translated.pattern))?;
        Ok(Self { full, literal_prefix: translated.literal_prefix.into(), pattern: pattern.into() })
    }

    /// An expression that matches nothing.
    #[must_use]
    pub(crate) fn never() -> Self {
        #[expect(clippy::expect_used, reason = "a constant pattern; the unit tests compile it")]
        let full = compile("[^\\x00-\\xff]").expect("a constant pattern compiles");
        Self { full, literal_prefix: Box::default(), pattern: "".into() }
    }

    /// Whether the expression matches all of `value`.
    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.full.is_match(value)
    }

    /// The groups of a match of all of `value`.
    pub(super) fn captures<'v>(&self, value: &'v [u8]) -> Option<bytes::Captures<'v>> {
        self.full.captures(value)
    }

    /// Bytes every match begins with; empty when there is no telling. An index may filter by it.
    #[must_use]
    pub const fn literal_prefix(&self) -> &[u8] {
        &self.literal_prefix
    }

    /// The expression as configured.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.pattern
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({})", self.pattern)
    }
}

/// Replaces every match of an expression by a text that may refer to its groups (`\0` to `\9`).
#[derive(Clone)]
pub struct Substitution {
    search: bytes::Regex,
    parts: Option<Box<[Part]>>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<[u8]>),
    Group(usize),
}

impl Substitution {
    /// Compiles pattern and replacement.
    ///
    /// A replacement RE2 would not take is accepted, as by Envoy: one that refers to a group the pattern lacks leaves every
    /// value as it is, and one with a stray backslash ends there.
    ///
    /// # Errors
    /// As [`Regex::parse`]; or when the pattern is missing.
    pub fn parse(proto: RegexMatchAndSubstitute, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let RegexMatchAndSubstitute { pattern, substitution } = proto;
        let pattern = at.required("pattern", pattern)?;
        if substitution.contains(['\n', '\r', '\0']) {
            return Err(at.field("substitution").error("value does not match regex pattern \"^[^\\x00\\n\\r]*$\""));
        }
        let here = at.field("pattern");
        let checked = Regex::parse(pattern, here, limits)?;
        let translated = re2::translate(checked.as_str().as_bytes()).map_err(|error| here.error(error))?;
        let search = compile(&translated.pattern).map_err(|error| here.error(error))?;
        let parts = replacement(substitution.as_bytes(), search.captures_len());
        if parts.is_none() {
            at.field("substitution").warn(
                "envoy.type.matcher.v3.RegexMatchAndSubstitute.substitution",
                "the replacement refers to a group the pattern does not have: nothing is replaced",
            );
        }
        Ok(Self { search, parts: parts.map(Into::into) })
    }

    /// `value` with every match replaced.
    #[must_use]
    pub fn replace_all(&self, value: &[u8]) -> Vec<u8> {
        let Some(parts) = &self.parts else { return value.to_vec() };
        self.search
            .replace_all(value, |groups: &bytes::Captures<'_>| {
                let mut out = Vec::new();
                for part in parts {
                    match part {
                        Part::Literal(text) => out.extend_from_slice(text),
                        Part::Group(n) => out.extend_from_slice(groups.get(*n).map_or(&[], |m| m.as_bytes())),
                    }
                }
                out
            })
            .into_owned()
    }
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substitution").field("search", &self.search.as_str()).field("parts", &self.parts).finish()
    }
}

/// The parts of a replacement, up to the first stray backslash; `None` when it refers to a group the pattern lacks.
fn replacement(text: &[u8], groups: usize) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = text.iter();
    let mut stray = false;
    while let Some(&byte) = bytes.next() {
        let group = match byte {
            b'\\' => match bytes.next() {
                Some(b'\\') => None,
                Some(digit @ b'0'..=b'9') => Some(usize::from(digit - b'0')),
                _ => {
                    stray = true;
                    continue;
                }
            },
            _ => None,
        };
        match group {
            Some(group) if group >= groups => return None,
            _ if stray => {}
            Some(group) => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Group(group));
            }
            None => literal.push(byte),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Some(parts)
}

fn check_program_size(
    pattern: &str,
    size: u32,
    own_limit: Option<u32>,
    at: At<'_>,
    limits: RegexLimits,
) -> Result<(), ConfigError> {
    if let Some(limit) = own_limit {
        if size > limit {
            return Err(at.error(format_args!(
                "regex '{pattern}' RE2 program size of {size} > max program size of {limit}. Increase configured max \
                 program size if necessary."
            )));
        }
        return Ok(());
    }
    if size > limits.error_level {
        return Err(at.error(format_args!(
            "regex '{pattern}' RE2 program size of {size} > max program size of {} set for the error level threshold. \
             Increase configured max program size if necessary.",
            limits.error_level
        )));
    }
    if size > limits.warn_level {
        at.warn(
            "re2.max_program_size.warn_level",
            format!(
                "regex '{pattern}' RE2 program size of {size} > max program size of {} set for the warn level \
                 threshold. Increase configured max program size if necessary.",
                limits.warn_level
            ),
        );
    }
    Ok(())
}

fn compile(pattern: &str) -> Result<bytes::Regex, String> {
    bytes::RegexBuilder::new(pattern).unicode(false).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => format!("regex needs more than {limit} bytes when compiled"),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Session;

    fn matcher(pattern: &str) -> RegexMatcher {
        RegexMatcher { regex: pattern.into(), engine_type: None }
    }

    fn substitution(pattern: &str, text: &str) -> Substitution {
        let session = Session::default();
        let proto = RegexMatchAndSubstitute { pattern: Some(matcher(pattern)), substitution: text.into() };
        Substitution::parse(proto, session.root(), RegexLimits::default()).expect("valid")
    }

    #[test]
    fn replacements_by_table() {
        for (pattern, text, from, to) in [
            ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("a", r"[\0]\\", "bab", r"b[a]\b"),
            ("a", r"\1", "bab", "bab"),
            ("a", r"c\1", "bab", "bab"),
            ("a", r"c\", "bab", "bcb"),
            ("a", r"c\xd", "bab", "bcb"),
            ("x*", "-", "abc", "-a-b-c-"),
        ] {
            let got = substitution(pattern, text).replace_all(from.as_bytes());
            assert_eq!(String::from_utf8_lossy(&got), to, "{pattern} {text} {from}");
        }
    }

    #[test]
    #[expect(deprecated, reason = "Envoy still accepts the field")]
    fn sizes_are_limited_in_the_known_words() {
        let session = Session::default();
        let parse = |proto: RegexMatcher, limits| Regex::parse(proto, session.root(), limits);
        let mut own = matcher("/abcdefgh");
        own.engine_type = Some(EngineType::GoogleRe2(GoogleRe2 {
            max_program_size: Some(envoy_types::pb::google::protobuf::UInt32Value { value: 5 }),
        }));
        assert_eq!(
            parse(own, RegexLimits::default()).expect_err("too big").to_string(),
            "regex '/abcdefgh' RE2 program size of 13 > max program size of 5. Increase configured max program size if \
             necessary."
        );
        assert_eq!(
            parse(matcher("/a{150}"), RegexLimits::default()).expect_err("too big").to_string(),
            "regex '/a{150}' RE2 program size of 155 > max program size of 100 set for the error level threshold. \
             Increase configured max program size if necessary."
        );
        let limits = RegexLimits { error_level: 100, warn_level: 3 };
        parse(matcher("/a{15}"), limits).expect("only warned about");
        let warnings = session.take_warnings();
        assert!(
            warnings.iter().any(|w| w.reason.contains("program size of 20 > max program size of 3")),
            "{warnings:?}"
        );
    }

    #[test]
    fn never_matches_nothing() {
        for value in [&b""[..], b"a", b"\xff", b"\n"] {
            assert!(!Regex::never().is_match(value));
        }
    }
}

//! Query parameters and `envoy.config.route.v3.QueryParameterMatcher`.

use envoy_types::pb::envoy::config::route::v3::QueryParameterMatcher as Proto;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;

use super::{RegexLimits, StringMatcher};
use crate::config::{At, ConfigError};

/// Decides over the first value of one query parameter.
#[derive(Debug, Clone)]
pub struct QueryParameterMatcher {
    name: Box<[u8]>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present(bool),
    Value(StringMatcher),
}

impl QueryParameterMatcher {
    /// Compiles a matcher; with neither test set, presence is asked.
    ///
    /// # Errors
    /// When the name is empty, or as [`StringMatcher::parse`].
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto { name, query_parameter_match_specifier } = proto;
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        let test = match query_parameter_match_specifier {
            None => Test::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => Test::Present(present),
            Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
                Test::Value(StringMatcher::parse(matcher, at.field("string_match"), limits)?)
            }
        };
        Ok(Self { name: name.into_bytes().into(), test })
    }

    /// Whether the query of `path` matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let value = query_parameter(path, &self.name);
        match &self.test {
            Test::Present(present) => value.is_some() == *present,
            Test::Value(matcher) => value.is_some_and(|value| matcher.matches(value)),
        }
    }
}

/// The first value of parameter `name` in the query of `path`, as it stands there (Envoy decodes nothing); empty when it
/// has no `=`.
#[must_use]
pub fn query_parameter<'p>(path: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    let query = path.get(memchr::memchr(b'?', path)? + 1..)?;
    let end = memchr::memchr(b'#', query).unwrap_or(query.len());
    query.get(..end)?.split(|&byte| byte == b'&').find_map(|pair| {
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
            None => (pair, &[][..]),
        };
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on Envoy 1.40.
    #[test]
    fn values_as_they_stand() {
        for (path, value) in [
            ("/", None),
            ("/?k", Some("")),
            ("/?k=", Some("")),
            ("/?k=v", Some("v")),
            ("/?k=w&k=v", Some("w")),
            ("/?a=1&k=v", Some("v")),
            ("/?%6b=v", None),
            ("/?k=a%20b", Some("a%20b")),
            ("/?k=a+b", Some("a+b")),
            ("/?K=v", None),
            ("/?ak=v", None),
            ("/?;k=v", None),
            ("/?k=v=w", Some("v=w")),
        ] {
            assert_eq!(query_parameter(path.as_bytes(), b"k"), value.map(str::as_bytes), "{path}");
        }
    }
}

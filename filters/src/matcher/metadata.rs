//! `envoy.type.matcher.v3.MetadataMatcher` and `ValueMatcher`.

use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use proto::metadata_matcher::path_segment::Segment;
use proto::value_matcher::MatchPattern;
use serde_json::Value;

use super::{RegexLimits, StringMatcher};
use crate::config::{At, ConfigError};
use crate::stream_info::Metadata;

/// Decides over one value of the metadata of a name space.
#[derive(Debug, Clone)]
pub struct MetadataMatcher {
    namespace: Box<str>,
    path: Box<[Box<str>]>,
    value: ValueMatcher,
    invert: bool,
}

/// Decides over a value.
#[derive(Debug, Clone)]
pub enum ValueMatcher {
    /// It is null.
    Null,
    /// It is a number from here to below there.
    Range(f64, f64),
    /// It is this number.
    Number(f64),
    /// It is a text that matches.
    Text(StringMatcher),
    /// It is this truth.
    Bool(bool),
    /// It is there, or is not.
    Present(bool),
    /// It is a list, one of whose values matches.
    OneOf(Box<Self>),
    /// One of these matches.
    Any(Box<[Self]>),
}

impl MetadataMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// When name space, path or value is missing, or the value's matcher is none.
    pub fn parse(proto: proto::MetadataMatcher, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let proto::MetadataMatcher { filter, path, value, invert } = proto;
        if filter.is_empty() {
            return Err(at.field("filter").error("value length must be at least 1 characters"));
        }
        let here = at.field("path");
        if path.is_empty() {
            return Err(here.error("value must contain at least 1 item(s)"));
        }
        let segment = |(n, segment): (usize, proto::metadata_matcher::PathSegment)| {
            let at = here.index(n);
            let Segment::Key(key) = at.required("segment", segment.segment)?;
            if key.is_empty() {
                return Err(at.field("key").error("value length must be at least 1 characters"));
            }
            Ok(key.into())
        };
        Ok(Self {
            namespace: filter.into(),
            path: path.into_iter().enumerate().map(segment).collect::<Result<_, _>>()?,
            value: ValueMatcher::parse(at.required("value", value)?, at.field("value"), limits)?,
            invert,
        })
    }

    /// Whether the metadata matches; what is not there matches only a matcher that wants nothing to be there.
    #[must_use]
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        self.value.matches(self.find(metadata)) != self.invert
    }

    /// Whether a value that is there matches, whatever `invert` says; `None` where there is none.
    #[must_use]
    pub fn judge(&self, metadata: Option<&Metadata>) -> Option<bool> {
        self.find(metadata).map(|value| self.value.matches(Some(value)))
    }

    fn find<'m>(&self, metadata: Option<&'m Metadata>) -> Option<&'m Value> {
        let namespace = metadata.and_then(|metadata| metadata.get(&*self.namespace));
        self.path.iter().fold(namespace, |value, key| value?.as_object()?.get(&**key))
    }
}

impl ValueMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// When it has no pattern, or one that is none.
    pub fn parse(proto: proto::ValueMatcher, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        use proto::double_matcher::MatchPattern as Double;
        let proto::ValueMatcher { match_pattern } = proto;
        Ok(match at.required("match_pattern", match_pattern)? {
            MatchPattern::NullMatch(_) => Self::Null,
            MatchPattern::DoubleMatch(double) => {
                match at.field("double_match").required("match_pattern", double.match_pattern)? {
                    Double::Range(range) => Self::Range(range.start, range.end),
                    Double::Exact(number) => Self::Number(number),
                }
            }
            MatchPattern::StringMatch(matcher) => {
                Self::Text(StringMatcher::parse(matcher, at.field("string_match"), limits)?)
            }
            MatchPattern::BoolMatch(truth) => Self::Bool(truth),
            MatchPattern::PresentMatch(present) => Self::Present(present),
            MatchPattern::ListMatch(list) => {
                let at = at.field("list_match");
                let proto::list_matcher::MatchPattern::OneOf(one) = at.required("match_pattern", list.match_pattern)?;
                Self::OneOf(Box::new(Self::parse(*one, at.field("one_of"), limits)?))
            }
            MatchPattern::OrMatch(or) => {
                let (at, here) = (at.field("or_match"), "value_matchers");
                let parse = |(n, matcher)| Self::parse(matcher, at.field(here).index(n), limits);
                Self::Any(or.value_matchers.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?)
            }
        })
    }

    /// Whether a value matches, if there is one.
    #[must_use]
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Null => value.is_some_and(Value::is_null),
            Self::Range(start, end) => number(value).is_some_and(|number| (*start..*end).contains(&number)),
            #[expect(clippy::float_cmp, reason = "configuration asks for this very number")]
            Self::Number(wanted) => number(value).is_some_and(|number| number == *wanted),
            Self::Text(matcher) => value.and_then(Value::as_str).is_some_and(|text| matcher.matches(text.as_bytes())),
            Self::Bool(truth) => value.and_then(Value::as_bool) == Some(*truth),
            Self::Present(present) => value.is_some() == *present,
            Self::OneOf(matcher) => value
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|value| matcher.matches(Some(value)))),
            Self::Any(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

fn number(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Session;

    fn matcher(pattern: MatchPattern, invert: bool) -> MetadataMatcher {
        let segment = |key: &str| proto::metadata_matcher::PathSegment { segment: Some(Segment::Key(key.into())) };
        let value = Some(proto::ValueMatcher { match_pattern: Some(pattern) });
        let proto =
            proto::MetadataMatcher { filter: "ns".into(), path: vec![segment("a"), segment("b")], value, invert };
        MetadataMatcher::parse(proto, Session::default().root(), RegexLimits::default()).expect("valid")
    }

    #[test]
    fn values_are_found_by_their_path() {
        type P = MatchPattern;
        let exact = |text: &str| proto::StringMatcher {
            match_pattern: Some(proto::string_matcher::MatchPattern::Exact(text.into())),
            ignore_case: false,
        };
        let double = |pattern| P::DoubleMatch(proto::DoubleMatcher { match_pattern: Some(pattern) });
        let of = |pattern| proto::ValueMatcher { match_pattern: Some(pattern) };
        let one_of = Some(proto::list_matcher::MatchPattern::OneOf(Box::new(of(P::BoolMatch(true)))));
        let range = envoy_types::pb::envoy::r#type::v3::DoubleRange { start: 1.0, end: 2.0 };
        let or = vec![of(P::BoolMatch(true)), of(P::StringMatch(exact("x")))];
        for (pattern, yes, no) in [
            (P::StringMatch(exact("x")), json!("x"), json!("y")),
            (P::BoolMatch(true), json!(true), json!("true")),
            (P::NullMatch(proto::value_matcher::NullMatch {}), json!(null), json!(0)),
            (double(proto::double_matcher::MatchPattern::Exact(2.0)), json!(2), json!(2.5)),
            (double(proto::double_matcher::MatchPattern::Range(range)), json!(1), json!(2)),
            (P::ListMatch(Box::new(proto::ListMatcher { match_pattern: one_of })), json!([1, true]), json!([1])),
            (P::OrMatch(proto::OrMatcher { value_matchers: or }), json!("x"), json!(false)),
            (P::PresentMatch(true), json!([]), json!({"other": 1})),
        ] {
            let metadata = |value: Value| {
                let inner = if value.get("other").is_some() { json!({}) } else { json!({"b": value}) };
                json!({"ns": {"a": inner}}).as_object().cloned()
            };
            let shown = format!("{pattern:?}");
            let (plain, inverted) = (matcher(pattern.clone(), false), matcher(pattern, true));
            for (value, expected) in [(yes, true), (no, false)] {
                let metadata = metadata(value);
                assert_eq!(plain.matches(metadata.as_ref()), expected, "{shown} {metadata:?}");
                assert_eq!(inverted.matches(metadata.as_ref()), !expected, "{shown} {metadata:?}");
            }
        }
        assert!(!matcher(P::BoolMatch(false), false).matches(None));
        assert!(matcher(P::PresentMatch(false), false).matches(None));
    }
}

//! `envoy.config.common.matcher.v3.MatchPredicate`, as far as it is asked when a response's head has come.

use envoy_types::pb::envoy::config::common::matcher::v3 as proto;
use envoy_types::pb::envoy::config::common::matcher::v3::http_generic_body_match::GenericTextMatch;
use envoy_types::pb::envoy::config::common::matcher::v3::http_generic_body_match::generic_text_match;
use envoy_types::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule as RuleProto};
use envoy_types::pb::envoy::config::common::matcher::v3::{HttpGenericBodyMatch, HttpHeadersMatch};

use super::{HeaderMatcher, RegexLimits};
use crate::config::{At, ConfigError};
use crate::http::ResponseHead;

/// Decides over the head of a response. Rules about requests, trailers and bodies are false there: nothing of those is
/// looked at, and Envoy takes what it has not looked at for no match.
#[derive(Debug, Clone)]
pub struct ResponsePredicate(Rule);

#[derive(Debug, Clone)]
enum Rule {
    Or(Box<[Self]>),
    And(Box<[Self]>),
    Not(Box<Self>),
    Any,
    /// All of them match.
    Head(Box<[HeaderMatcher]>),
    /// About a part of the exchange that is not looked at.
    Unseen,
}

impl ResponsePredicate {
    /// Compiles a predicate.
    ///
    /// # Errors
    /// When a rule is missing, a set has fewer than two, or as [`HeaderMatcher::parse`].
    pub fn parse(proto: proto::MatchPredicate, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        Rule::parse(proto, at, limits).map(Self)
    }

    /// Whether a response with this head matches.
    #[must_use]
    pub fn matches(&self, head: &ResponseHead) -> bool {
        self.0.matches(head)
    }
}

/// Two predicates are the same only if they are one: a regular expression cannot be compared.
impl PartialEq for ResponsePredicate {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Rule {
    fn parse(proto: proto::MatchPredicate, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let proto::MatchPredicate { rule } = proto;
        Ok(match at.required("rule", rule)? {
            RuleProto::OrMatch(set) => Self::Or(Self::set(set, at.field("or_match"), limits)?),
            RuleProto::AndMatch(set) => Self::And(Self::set(set, at.field("and_match"), limits)?),
            RuleProto::NotMatch(rule) => Self::Not(Box::new(Self::parse(*rule, at.field("not_match"), limits)?)),
            RuleProto::AnyMatch(true) => Self::Any,
            RuleProto::AnyMatch(false) => return Err(at.field("any_match").error("value must equal true")),
            RuleProto::HttpResponseHeadersMatch(list) => {
                Self::Head(headers(list, at.field("http_response_headers_match"), limits)?)
            }
            RuleProto::HttpRequestHeadersMatch(list) => {
                Self::unseen(list, at.field("http_request_headers_match"), limits)?
            }
            RuleProto::HttpRequestTrailersMatch(list) => {
                Self::unseen(list, at.field("http_request_trailers_match"), limits)?
            }
            RuleProto::HttpResponseTrailersMatch(list) => {
                Self::unseen(list, at.field("http_response_trailers_match"), limits)?
            }
            RuleProto::HttpRequestGenericBodyMatch(body) => {
                Self::unseen_body(body, at.field("http_request_generic_body_match"))?
            }
            RuleProto::HttpResponseGenericBodyMatch(body) => {
                Self::unseen_body(body, at.field("http_response_generic_body_match"))?
            }
        })
    }

    fn set(set: MatchSet, at: At<'_>, limits: RegexLimits) -> Result<Box<[Self]>, ConfigError> {
        let MatchSet { rules } = set;
        let list = at.field("rules");
        if rules.len() < 2 {
            return Err(list.error("value must contain at least 2 item(s)"));
        }
        rules.into_iter().enumerate().map(|(n, rule)| Self::parse(rule, list.index(n), limits)).collect()
    }

    /// What is wrong in it is wrong all the same.
    fn unseen(list: HttpHeadersMatch, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        headers(list, at, limits).map(|_| Self::Unseen)
    }

    fn unseen_body(body: HttpGenericBodyMatch, at: At<'_>) -> Result<Self, ConfigError> {
        let HttpGenericBodyMatch { bytes_limit: _, patterns } = body;
        let list = at.field("patterns");
        if patterns.is_empty() {
            return Err(list.error("value must contain at least 1 item(s)"));
        }
        for (n, GenericTextMatch { rule }) in patterns.into_iter().enumerate() {
            let at = list.index(n);
            let (field, is_empty) = match at.required("rule", rule)? {
                generic_text_match::Rule::StringMatch(text) => ("string_match", text.is_empty()),
                generic_text_match::Rule::BinaryMatch(bytes) => ("binary_match", bytes.is_empty()),
            };
            if is_empty {
                return Err(at.field(field).error("value length must be at least 1"));
            }
        }
        Ok(Self::Unseen)
    }

    fn matches(&self, head: &ResponseHead) -> bool {
        match self {
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(head)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(head)),
            Self::Not(rule) => !rule.matches(head),
            Self::Any => true,
            Self::Head(matchers) => matchers.iter().all(|matcher| matcher.matches_response(head)),
            Self::Unseen => false,
        }
    }
}

fn headers(list: HttpHeadersMatch, at: At<'_>, limits: RegexLimits) -> Result<Box<[HeaderMatcher]>, ConfigError> {
    let HttpHeadersMatch { headers } = list;
    let list = at.field("headers");
    headers.into_iter().enumerate().map(|(n, matcher)| HeaderMatcher::parse(matcher, list.index(n), limits)).collect()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3 as route;
    use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;

    use super::*;
    use crate::config::Session;
    use crate::http::{HeaderName, Headers, Version};

    fn predicate(rule: RuleProto) -> proto::MatchPredicate {
        proto::MatchPredicate { rule: Some(rule) }
    }

    fn has(name: &str) -> HttpHeadersMatch {
        HttpHeadersMatch {
            headers: vec![route::HeaderMatcher {
                name: name.to_owned(),
                header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
                ..route::HeaderMatcher::default()
            }],
        }
    }

    fn parsed(rule: RuleProto) -> Result<ResponsePredicate, String> {
        let session = Session::default();
        ResponsePredicate::parse(predicate(rule), session.root(), RegexLimits::default())
            .map_err(|error| error.to_string())
    }

    fn matches(rule: RuleProto, headers: &[&str]) -> bool {
        let mut head = ResponseHead { status: 200, version: Version::Http11, headers: Headers::default() };
        for name in headers {
            head.headers.append(HeaderName::parse(name.as_bytes()).unwrap(), "1");
        }
        parsed(rule).unwrap().matches(&head)
    }

    #[test]
    fn rules_combine_and_what_is_not_seen_is_false() {
        let on = |name| predicate(RuleProto::HttpResponseHeadersMatch(has(name)));
        let unseen = || predicate(RuleProto::HttpRequestHeadersMatch(has("a")));
        let set = |rules: Vec<_>| MatchSet { rules };
        for (rule, headers, expected) in [
            (RuleProto::AnyMatch(true), &[][..], true),
            (RuleProto::HttpResponseHeadersMatch(has("a")), &["a"][..], true),
            (RuleProto::HttpResponseHeadersMatch(has("a")), &["b"][..], false),
            (RuleProto::HttpResponseHeadersMatch(HttpHeadersMatch::default()), &[][..], true),
            (RuleProto::OrMatch(set(vec![on("a"), on("b")])), &["b"][..], true),
            (RuleProto::AndMatch(set(vec![on("a"), on("b")])), &["b"][..], false),
            (RuleProto::AndMatch(set(vec![on("a"), on("b")])), &["a", "b"][..], true),
            (RuleProto::NotMatch(Box::new(on("a"))), &["b"][..], true),
            (RuleProto::HttpRequestHeadersMatch(has("a")), &["a"][..], false),
            (RuleProto::HttpResponseTrailersMatch(has("a")), &["a"][..], false),
            (RuleProto::NotMatch(Box::new(unseen())), &[][..], true),
            (RuleProto::OrMatch(set(vec![unseen(), on("a")])), &["a"][..], true),
        ] {
            assert_eq!(matches(rule.clone(), headers), expected, "{rule:?} {headers:?}");
        }
    }

    #[test]
    fn what_decides_nothing_is_rejected() {
        let of = |rule| parsed(rule).unwrap_err();
        assert!(of(RuleProto::OrMatch(MatchSet::default())).contains("or_match.rules"));
        assert!(of(RuleProto::AnyMatch(false)).contains("any_match"));
        assert!(of(RuleProto::NotMatch(Box::default())).contains("not_match.rule"));
        assert!(of(RuleProto::HttpResponseGenericBodyMatch(HttpGenericBodyMatch::default())).contains("patterns"));
        assert!(of(RuleProto::HttpRequestHeadersMatch(has("a b"))).contains("headers[0].name"));
    }
}

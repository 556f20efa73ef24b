//! Which requests a rule is for: the parts of a `RouteMatch` that Envoy looks at here.

use envoy_types::pb::envoy::config::route::v3::RouteMatch as Proto;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;

use crate::config::{At, ConfigError, IsSet};
use crate::http::RequestHead;
use crate::matcher::{HeaderMatcher, PathTemplate, QueryParameterMatcher, Regex, RegexLimits};

/// The condition of a rule.
#[derive(Debug)]
pub struct RuleMatch {
    path: PathTest,
    ignore_case: bool,
    headers: Box<[HeaderMatcher]>,
    query_parameters: Box<[QueryParameterMatcher]>,
}

/// What the path, without query and fragment, has to be.
#[derive(Debug)]
enum PathTest {
    Prefix(Box<[u8]>),
    Exact(Box<[u8]>),
    /// A whole number of segments at its beginning.
    Segments(Box<[u8]>),
    Regex(Regex),
    /// None: the request is a CONNECT.
    Connect,
    Template(PathTemplate),
}

impl RuleMatch {
    /// Compiles a condition.
    ///
    /// # Errors
    /// When a part of it makes no sense, or is not here.
    pub(super) fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto {
            case_sensitive,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier,
        } = proto;
        let ignored = [
            ("runtime_fraction", runtime_fraction.is_set()),
            ("cookies", cookies.is_set()),
            ("grpc", grpc.is_set()),
            ("tls_context", tls_context.is_set()),
            ("dynamic_metadata", dynamic_metadata.is_set()),
            ("filter_state", filter_state.is_set()),
        ];
        for (name, _) in ignored.into_iter().filter(|(_, set)| *set) {
            at.field(name).warn(
                format!("envoy.extensions.filters.http.jwt_authn.v3.RequirementRule.match.{name}"),
                "the filter does not look at this part of a condition, as in Envoy",
            );
        }
        let bytes = |text: String| text.into_bytes().into_boxed_slice();
        let path = match at.required("path_specifier", path_specifier)? {
            PathSpecifier::Prefix(text) => PathTest::Prefix(bytes(text)),
            PathSpecifier::Path(text) => PathTest::Exact(bytes(text)),
            PathSpecifier::PathSeparatedPrefix(text) => PathTest::Segments(bytes(text)),
            PathSpecifier::SafeRegex(regex) => PathTest::Regex(Regex::parse(regex, at.field("safe_regex"), limits)?),
            PathSpecifier::ConnectMatcher(_) => PathTest::Connect,
            PathSpecifier::PathMatchPolicy(policy) => {
                PathTest::Template(PathTemplate::parse(&at.field("path_match_policy"), policy)?)
            }
        };
        let (of_headers, of_query) = (at.field("headers"), at.field("query_parameters"));
        Ok(Self {
            path,
            ignore_case: case_sensitive.is_some_and(|sensitive| !sensitive.value),
            headers: (headers.into_iter().enumerate())
                .map(|(n, matcher)| HeaderMatcher::parse(matcher, of_headers.index(n), limits))
                .collect::<Result<_, _>>()?,
            query_parameters: (query_parameters.into_iter().enumerate())
                .map(|(n, matcher)| QueryParameterMatcher::parse(matcher, of_query.index(n), limits))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether the rule is for this request.
    pub(super) fn matches(&self, head: &RequestHead) -> bool {
        let end = memchr::memchr2(b'?', b'#', &head.path).unwrap_or(head.path.len());
        self.matches_path(head, head.path.get(..end).unwrap_or_default())
            && self.headers.iter().all(|matcher| matcher.matches(head))
            && self.query_parameters.iter().all(|matcher| matcher.matches(&head.path))
    }

    fn matches_path(&self, head: &RequestHead, path: &[u8]) -> bool {
        let begins = |text: &[u8]| {
            let start = path.get(..text.len());
            start.is_some_and(|start| if self.ignore_case { start.eq_ignore_ascii_case(text) } else { start == text })
        };
        match &self.path {
            PathTest::Connect => head.is_plain_connect(),
            _ if path.is_empty() => false,
            PathTest::Template(template) => template.is_match(path),
            PathTest::Prefix(text) => begins(text),
            PathTest::Exact(text) => path.len() == text.len() && begins(text),
            PathTest::Segments(text) => begins(text) && path.get(text.len()).is_none_or(|next| *next == b'/'),
            PathTest::Regex(regex) => regex.is_match(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
    use envoy_types::pb::google::protobuf::BoolValue;

    use super::*;
    use crate::config::Session;
    use crate::http::Method;

    fn rule(path: PathSpecifier, case_sensitive: bool) -> RuleMatch {
        let proto = Proto {
            path_specifier: Some(path),
            case_sensitive: Some(BoolValue { value: case_sensitive }),
            ..Proto::default()
        };
        RuleMatch::parse(proto, Session::default().root(), RegexLimits::default()).unwrap()
    }

    #[test]
    fn paths() {
        use PathSpecifier as P;
        let regex = P::SafeRegex(RegexMatcher { regex: "/r[0-9]".into(), engine_type: None });
        for (path, sensitive, yes, no) in [
            (P::Prefix("/a".into()), true, vec!["/a", "/ab?c", "/a/b"], vec!["/A", "/", "/b?/a"]),
            (P::Prefix("/a".into()), false, vec!["/A", "/aB"], vec!["/b"]),
            (P::Path("/a".into()), true, vec!["/a", "/a?b", "/a#b"], vec!["/ab", "/A", "/a/"]),
            (P::Path("/a".into()), false, vec!["/A"], vec!["/Ab"]),
            (P::PathSeparatedPrefix("/a".into()), true, vec!["/a", "/a/b", "/a?b"], vec!["/ab", "/A"]),
            (regex, true, vec!["/r1", "/r1?x"], vec!["/r", "/r1/", "/R1"]),
            (P::ConnectMatcher(Default::default()), true, vec![], vec!["/"]),
        ] {
            let rule = rule(path, sensitive);
            let matches =
                |path: &'static str| rule.matches(&RequestHead { path: path.into(), ..RequestHead::default() });
            assert!(yes.iter().all(|path| matches(path)), "{rule:?}");
            assert!(!no.iter().any(|path| matches(path)), "{rule:?}");
        }
        let connect = RequestHead { method: Method::Connect, ..RequestHead::default() };
        assert!(rule(P::ConnectMatcher(Default::default()), true).matches(&connect));
        assert!(!rule(P::Prefix(String::new()), true).matches(&connect));
    }
}

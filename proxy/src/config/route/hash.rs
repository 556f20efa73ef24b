//! `RouteAction.HashPolicy`, as routes, clusters and load-balancing policies have it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::route_action::HashPolicy as Proto;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier, QueryParameter,
};
use filters::config::{At, ConfigError};
use filters::http::HeaderKey;
use filters::matcher::{RegexLimits, Substitution};

use crate::route::hash::{CookieTemplate, HashMethod, HashPolicy, HashSource};

/// Compiles a list of policies; `None` for an empty one.
///
/// # Errors
/// When one says nothing, or does not name what it is about.
pub fn parse(protos: Vec<Proto>, at: At<'_>, limits: RegexLimits) -> Result<Option<Arc<HashPolicy>>, ConfigError> {
    if protos.is_empty() {
        return Ok(None);
    }
    let methods = protos.into_iter().enumerate().map(|(n, Proto { terminal, policy_specifier })| {
        let at = at.index(n);
        Ok(HashMethod { source: source(at.required("policy_specifier", policy_specifier)?, at, limits)?, terminal })
    });
    Ok(Some(Arc::new(HashPolicy { methods: methods.collect::<Result<_, _>>()? })))
}

fn source(proto: PolicySpecifier, at: At<'_>, limits: RegexLimits) -> Result<HashSource, ConfigError> {
    Ok(match proto {
        PolicySpecifier::Header(Header { header_name, regex_rewrite }) => {
            let at = at.field("header");
            let key = HeaderKey::parse(&header_name).ok_or_else(|| {
                let at = at.field("header_name");
                match &header_name[..] {
                    "" => at.error("value length must be at least 1 characters"),
                    name => at.error(format_args!("'{name}' is not a header name")),
                }
            })?;
            let rewrite = regex_rewrite.map(|rewrite| Substitution::parse(rewrite, at.field("regex_rewrite"), limits));
            HashSource::Header { key, rewrite: rewrite.transpose()? }
        }
        PolicySpecifier::Cookie(Cookie { name, ttl, path, attributes }) => {
            let at = at.field("cookie");
            if name.is_empty() {
                return Err(at.field("name").error("value length must be at least 1 characters"));
            }
            let ttl = super::values::duration(ttl, at, "ttl")?;
            let generate =
                ttl.map(|ttl| CookieTemplate { attributes: suffix(ttl.as_secs(), &path, &attributes).into() });
            HashSource::Cookie { name: name.into(), generate }
        }
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }) => HashSource::SourceIp,
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false }) => HashSource::Nothing,
        PolicySpecifier::QueryParameter(QueryParameter { name }) => {
            if name.is_empty() {
                let at = at.field("query_parameter");
                return Err(at.field("name").error("value length must be at least 1 characters"));
            }
            HashSource::Query(name.into_bytes().into())
        }
        PolicySpecifier::FilterState(FilterState { key }) => {
            if key.is_empty() {
                let at = at.field("filter_state");
                return Err(at.field("key").error("value length must be at least 1 characters"));
            }
            HashSource::FilterState(key.into())
        }
    })
}

/// What follows the value of a cookie that is made up. Envoy counts whole seconds; without any it lasts for a session.
fn suffix(seconds: u64, path: &str, attributes: &[CookieAttribute]) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: &str| {
        text.push_str("; ");
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(value);
        }
    };
    if seconds > 0 {
        add("Max-Age", &seconds.to_string());
    }
    if !path.is_empty() {
        add("Path", path);
    }
    for CookieAttribute { name, value } in attributes {
        add(name, value);
    }
    add("HttpOnly", "");
    text
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Duration;
    use filters::config::Session;

    use super::*;

    fn parsed(specifier: Option<PolicySpecifier>) -> Result<String, String> {
        let proto = Proto { terminal: false, policy_specifier: specifier };
        parse(vec![proto], Session::default().root().field("hash_policy"), RegexLimits::default())
            .map(|policy| format!("{:?}", policy.unwrap().methods[0].source))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_cookie_is_given_its_attributes_in_envoys_order() {
        let attribute = |name: &str, value: &str| CookieAttribute { name: name.to_owned(), value: value.to_owned() };
        let attributes = [attribute("SameSite", "Strict"), attribute("Secure", "")];
        assert_eq!(suffix(1, "/x", &attributes), "; Max-Age=1; Path=/x; SameSite=Strict; Secure; HttpOnly");
        assert_eq!(suffix(0, "", &[]), "; HttpOnly");
    }

    #[test]
    fn a_cookie_is_made_up_only_with_a_time_to_live() {
        let cookie = |ttl: Option<i64>| {
            let ttl = ttl.map(|seconds| Duration { seconds, nanos: 0 });
            parsed(Some(PolicySpecifier::Cookie(Cookie { name: "c".into(), ttl, ..Cookie::default() }))).unwrap()
        };
        assert!(cookie(None).contains("generate: None"));
        assert!(cookie(Some(0)).contains("HttpOnly"));
    }

    #[test]
    fn what_says_nothing_is_rejected() {
        for (specifier, path) in [
            (None, "hash_policy[0].policy_specifier"),
            (Some(PolicySpecifier::Header(Header::default())), "hash_policy[0].header.header_name"),
            (Some(PolicySpecifier::Cookie(Cookie::default())), "hash_policy[0].cookie.name"),
            (Some(PolicySpecifier::QueryParameter(QueryParameter::default())), "hash_policy[0].query_parameter.name"),
            (Some(PolicySpecifier::FilterState(FilterState::default())), "hash_policy[0].filter_state.key"),
        ] {
            let error = parsed(specifier).unwrap_err();
            assert!(error.contains(path), "{error}");
        }
    }
}

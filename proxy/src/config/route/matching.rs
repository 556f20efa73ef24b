//! `RouteMatch`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::RouteMatch as Proto;
use envoy_types::pb::envoy::config::route::v3::route_match::{PathSpecifier, TlsContextMatchOptions};
use filters::config::{At, ConfigError};
use filters::matcher::{
    CookieMatcher, HeaderMatcher, MetadataMatcher, PathTemplate, QueryParameterMatcher, Regex, RegexLimits,
    RuntimeFraction,
};

use super::ledger::route_match as row;
use crate::route::matching::{PathMatch, RouteMatch, TlsMatch};

/// Compiles a condition.
pub(super) fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<RouteMatch, ConfigError> {
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
    at.unsupported(&row::filter_state, &filter_state)?;
    let never = !filter_state.is_empty();
    let ignore_case = case_sensitive.is_some_and(|sensitive| !sensitive.value);
    let fold = |text: String| -> Box<[u8]> {
        let text = if ignore_case { text.to_ascii_lowercase() } else { text };
        text.into_bytes().into()
    };
    let path = match path_specifier.ok_or_else(|| at.field("path_specifier").error("is required"))? {
        PathSpecifier::Prefix(text) => PathMatch::Prefix { text: fold(text), ignore_case },
        PathSpecifier::Path(text) => PathMatch::Exact { text: fold(text), ignore_case },
        PathSpecifier::SafeRegex(regex) => PathMatch::Regex(Regex::parse(regex, at.field("safe_regex"), limits)?),
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        PathSpecifier::PathSeparatedPrefix(text) => {
            if text.len() < 2 || text.ends_with('/') || text.contains(['?', '#']) {
                return Err(at
                    .field("path_separated_prefix")
                    .error("value does not match regex pattern \"^[^?#]+[^?#/]$\""));
            }
            PathMatch::SeparatedPrefix { text: fold(text), ignore_case }
        }
        PathSpecifier::PathMatchPolicy(policy) => {
            PathMatch::Template(Arc::new(PathTemplate::parse(&at.field("path_match_policy"), policy)?))
        }
    };
    let all = at.field("headers");
    let headers = headers
        .into_iter()
        .enumerate()
        .map(|(n, matcher)| HeaderMatcher::parse(matcher, all.index(n), limits))
        .collect::<Result<_, _>>()?;
    let all = at.field("query_parameters");
    let query_parameters = query_parameters
        .into_iter()
        .enumerate()
        .map(|(n, matcher)| QueryParameterMatcher::parse(matcher, all.index(n), limits))
        .collect::<Result<_, _>>()?;
    let all = at.field("cookies");
    let cookies = cookies
        .into_iter()
        .enumerate()
        .map(|(n, matcher)| CookieMatcher::parse(matcher, all.index(n), limits))
        .collect::<Result<_, _>>()?;
    let all = at.field("dynamic_metadata");
    let metadata = dynamic_metadata
        .into_iter()
        .enumerate()
        .map(|(n, matcher)| MetadataMatcher::parse(matcher, all.index(n), limits))
        .collect::<Result<_, _>>()?;
    let fraction =
        runtime_fraction.map(|fraction| RuntimeFraction::parse(fraction, at.field("runtime_fraction"))).transpose()?;
    let tls = tls_context.map(|TlsContextMatchOptions { presented, validated }| TlsMatch {
        presented: presented.map(|flag| flag.value),
        validated: validated.map(|flag| flag.value),
    });
    Ok(RouteMatch { path, headers, query_parameters, cookies, grpc: grpc.is_some(), tls, metadata, fraction, never })
}

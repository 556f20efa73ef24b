//! A service that decides by answering a request like the one it decides about.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as proto;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;

use super::config::matchers;
use super::decision::{Changes, Decided, Decision, Refusal};
use crate::call::config::ParseServices;
use crate::call::{Answer, Question, Service, Unanswered};
use crate::config::{At, ConfigError};
use crate::http::{HeaderName, Headers, Known, Method, RequestHead, Scheme};
use crate::matcher::StringMatcher;
use crate::mutation::{Fields, HeaderMutations};
use crate::stream_info::StreamInfo;

/// Names of request headers that go upstream no further, by the service's word.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// The service, and what is made of its answers.
#[derive(Debug)]
pub struct HttpService {
    pub(super) service: Service,
    path: PathRule,
    headers: HeaderMutations,
    /// Headers of an answer that passes a request, which the request gets.
    upstream: Box<[StringMatcher]>,
    /// The same, beside those of their names that it has.
    upstream_append: Box<[StringMatcher]>,
    /// Headers of an answer that refuses, which the client sees; `None`: all.
    client: Option<Box<[StringMatcher]>>,
    /// Headers of an answer that passes a request, which the client sees.
    client_on_success: Box<[StringMatcher]>,
    metadata: Box<[StringMatcher]>,
}

/// What the service is asked for.
#[derive(Debug)]
enum PathRule {
    /// The request's path, behind this.
    Prefix(String),
    /// This, whatever the request's path.
    Override(String),
}

/// Headers that every HTTP service is told.
pub(super) fn always_allowed() -> impl Iterator<Item = StringMatcher> {
    ["authorization", ":method", ":path", ":authority"].into_iter().map(StringMatcher::exact)
}

impl HttpService {
    /// Compiles a service, and the headers it says are told to it.
    ///
    /// # Errors
    /// When it names no cluster, a path does not begin as one, or a matcher or a header is none.
    #[expect(clippy::type_complexity, reason = "the list belongs to the filter, which has one of its own")]
    pub(super) fn parse(
        proto: proto::HttpService,
        default_timeout: Duration,
        at: At<'_>,
        parse: &ParseServices,
    ) -> Result<(Self, Option<Box<[StringMatcher]>>), ConfigError> {
        let proto::HttpService {
            server_uri,
            path_prefix,
            path_override,
            authorization_request,
            authorization_response,
            retry_policy,
        } = proto;
        let uri = at.required("server_uri", server_uri)?;
        let mut service = parse.http(uri, default_timeout, at.field("server_uri"))?;
        // It is told that the proxy asks, but not from where.
        service.signed = false;
        service.retry =
            retry_policy.map(|policy| (parse.retry)(policy, "", at.field("retry_policy"), parse.limits)).transpose()?;
        for (name, path) in [("path_prefix", &path_prefix), ("path_override", &path_override)] {
            if !path.is_empty() && !path.starts_with('/') {
                return Err(at.field(name).error(format_args!("{name} should start with \"/\".")));
            }
        }
        if !path_prefix.is_empty() && !path_override.is_empty() {
            return Err(at.error("Only one of path_prefix or path_override may be set, not both."));
        }
        let path =
            if path_override.is_empty() { PathRule::Prefix(path_prefix) } else { PathRule::Override(path_override) };
        #[expect(deprecated, reason = "Envoy still accepts the field")]
        let proto::AuthorizationRequest { allowed_headers, headers_to_add } = authorization_request.unwrap_or_default();
        let here = at.field("authorization_request");
        let allowed =
            allowed_headers.map(|list| matchers(list, here.field("allowed_headers"), parse.limits)).transpose()?;
        let overwrite = core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd;
        let additions = headers_to_add.into_iter().map(|header| core::HeaderValueOption {
            header: Some(header),
            append_action: overwrite.into(),
            ..core::HeaderValueOption::default()
        });
        let fields = Fields { add: "headers_to_add", remove: "" };
        let headers = HeaderMutations::parse(additions.collect(), Vec::new(), here, fields, parse.format)?;
        let proto::AuthorizationResponse {
            allowed_upstream_headers,
            allowed_client_headers,
            allowed_upstream_headers_to_append,
            allowed_client_headers_on_success,
            dynamic_metadata_from_headers,
        } = authorization_response.unwrap_or_default();
        let here = at.field("authorization_response");
        let list =
            |name, list: Option<ListStringMatcher>| matchers(list.unwrap_or_default(), here.field(name), parse.limits);
        let client = list("allowed_client_headers", allowed_client_headers)?;
        let standard = ["content-length", "www-authenticate", "location"].into_iter().map(StringMatcher::exact);
        let of_http = Self {
            service,
            path,
            headers,
            upstream: list("allowed_upstream_headers", allowed_upstream_headers)?,
            upstream_append: list("allowed_upstream_headers_to_append", allowed_upstream_headers_to_append)?,
            client: (!client.is_empty()).then(|| client.into_iter().chain(standard).collect()),
            client_on_success: list("allowed_client_headers_on_success", allowed_client_headers_on_success)?,
            metadata: list("dynamic_metadata_from_headers", dynamic_metadata_from_headers)?,
        };
        Ok((of_http, allowed))
    }

    /// The question about a request.
    pub(super) fn question(&self, check: CheckRequest, info: &StreamInfo) -> Question {
        let request = check.attributes.and_then(|attributes| attributes.request?.http).unwrap_or_default();
        let body = Bytes::from(if request.raw_body.is_empty() { request.body.into_bytes() } else { request.raw_body });
        let mut head = RequestHead { scheme: Scheme::Http, authority_missing: true, ..RequestHead::default() };
        head.headers.append(Known::ContentLength, body.len().to_string());
        let raw = request.header_map.into_iter().flat_map(|map| map.headers).map(|it| (it.key, it.raw_value));
        let mut headers: Vec<_> =
            request.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).chain(raw).collect();
        headers.sort();
        for (name, value) in headers {
            let value = Bytes::from(value);
            match name.as_str() {
                ":method" => head.method = Method::from_bytes(value),
                ":authority" => (head.authority, head.authority_missing) = (value, false),
                ":scheme" => head.scheme = if value == "https" { Scheme::Https } else { Scheme::Http },
                ":path" => {
                    head.path = match &self.path {
                        PathRule::Prefix(prefix) => [prefix.as_bytes(), &value].concat().into(),
                        PathRule::Override(path) => Bytes::copy_from_slice(path.as_bytes()),
                    }
                }
                "content-length" => {}
                name => {
                    if let Some(name) = HeaderName::parse(name.as_bytes()) {
                        head.headers.append(name, value);
                    }
                }
            }
        }
        self.headers.apply_to_headers(&mut head.headers, info);
        head.headers.set(Known::XEnvoyInternal, "true");
        Question { head, body }
    }

    /// What an answer decides.
    pub(super) fn decision(&self, answer: Result<Answer, Unanswered>) -> Decision {
        let mut decision = Decision::default();
        let Ok(answer) = answer else { return decision };
        if answer.head.status >= 500 {
            return decision;
        }
        let mut headers = answer.head.headers;
        let removals = HeaderName::from_lowercase(Bytes::from_static(TO_REMOVE.as_bytes()));
        let to_remove: Vec<String> = headers.values(&removals).flat_map(|value| names(value)).collect();
        headers.remove(&removals);
        for (name, value) in picked(&headers, &self.metadata) {
            let value = String::from_utf8_lossy(&value).into_owned();
            decision.metadata.insert(name, value.into());
        }
        decision.verdict = if answer.head.status == 200 {
            let mut changes = Changes {
                set: picked(&headers, &self.upstream),
                add: picked(&headers, &self.upstream_append),
                remove: to_remove,
                ..Changes::default()
            };
            changes.response.add = picked(&headers, &self.client_on_success);
            Decided::Passes(Box::new(changes))
        } else {
            let headers = match &self.client {
                Some(matchers) => picked(&headers, matchers),
                None => headers.iter().map(|it| (it.name.as_str().to_owned(), it.value.clone())).collect(),
            };
            Decided::Refused(Refusal { status: Some(answer.head.status), headers, body: answer.body })
        };
        decision
    }
}

/// The headers whose names match.
fn picked(headers: &Headers, matchers: &[StringMatcher]) -> Vec<(String, Bytes)> {
    let wanted = |name: &[u8]| matchers.iter().any(|matcher| matcher.matches(name));
    let found = headers.iter().filter(|header| wanted(header.name.as_bytes()));
    found.map(|header| (header.name.as_str().to_owned(), header.value.clone())).collect()
}

/// The names of a list.
fn names(list: &[u8]) -> impl Iterator<Item = String> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
}

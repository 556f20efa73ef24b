//! Header changes (`request_headers_to_add`, `response_headers_to_remove` and their like), compiled once.
//!
//! One [`HeaderMutations`] is what one level of a configuration asks for. Within it, removals come first; then every value
//! is worked out against the headers as they are after that; then overwriting values are set, and at last the appended
//! ones added.

use std::fmt;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use smallvec::SmallVec;

use crate::config::{At, ConfigError};
use crate::http::{HeaderKey, HeaderName, Headers, RequestHead, ResponseHead};
use crate::stream_info::StreamInfo;

crate::ledger! {
    /// Rows of a header to add.
    pub mod unsupported for "envoy.config.core.v3.HeaderValue" {
        raw_value => Warn, "Envoy does not read it in header mutations either; `value` is what counts";
    }
}

/// What a header value may be made of.
#[derive(Clone, Copy, Debug)]
pub struct ValueContext<'a> {
    /// The request's head.
    pub request: Option<&'a RequestHead>,
    /// The response's head, when there is one.
    pub response: Option<&'a ResponseHead>,
    /// What is known about the stream.
    pub info: &'a StreamInfo,
}

/// A compiled text with `%COMMAND%`s.
pub trait ValueFormat: Send + Sync + fmt::Debug {
    /// Appends the text for this stream. A command without a value adds nothing when `empty_for_missing`, else `-`.
    fn append_to(&self, out: &mut Vec<u8>, context: &ValueContext<'_>, empty_for_missing: bool);
}

/// Compiles a text with `%COMMAND%`s; the error is Envoy's text.
pub type ParseFormat = fn(&str) -> Result<Box<dyn ValueFormat>, String>;

/// A text that is fixed or made for every stream.
#[derive(Debug)]
pub enum Template {
    /// Fixed.
    Literal(Bytes),
    /// With `%COMMAND%`s.
    Format(Box<dyn ValueFormat>),
}

impl Template {
    /// Compiles a text; one without `%` stays literal.
    ///
    /// # Errors
    /// Envoy's text when a command is unknown or malformed.
    pub fn parse(text: &str, parse: ParseFormat) -> Result<Self, String> {
        if text.contains('%') { parse(text).map(Self::Format) } else { Ok(Self::Literal(text.to_owned().into())) }
    }

    /// The text for this stream; commands without a value add nothing.
    #[must_use]
    pub fn render(&self, context: &ValueContext<'_>) -> Bytes {
        self.render_with(context, true)
    }

    /// The text for this stream; commands without a value add nothing or `-`.
    #[must_use]
    pub fn render_with(&self, context: &ValueContext<'_>, empty_for_missing: bool) -> Bytes {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Format(format) => {
                let mut out = Vec::new();
                format.append_to(&mut out, context, empty_for_missing);
                out.into()
            }
        }
    }
}

/// The header changes of one level of a configuration.
#[derive(Debug, Default)]
pub struct HeaderMutations {
    remove: Box<[HeaderName]>,
    add: Box<[Addition]>,
}

#[derive(Debug)]
struct Addition {
    name: HeaderName,
    value: Template,
    action: HeaderAppendAction,
    keep_empty: bool,
}

/// The names of the two fields a level's changes stand in, for error paths.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// `request_headers_to_add` or its like.
    pub add: &'static str,
    /// `request_headers_to_remove` or its like.
    pub remove: &'static str,
}

impl Fields {
    /// The changes to a request.
    pub const REQUEST: Self = Self { add: "request_headers_to_add", remove: "request_headers_to_remove" };
    /// The changes to a response.
    pub const RESPONSE: Self = Self { add: "response_headers_to_add", remove: "response_headers_to_remove" };
}

impl HeaderMutations {
    /// Compiles one level; `at` is the message that holds both fields.
    ///
    /// # Errors
    /// When a name is no header name or one that may not be changed (`:`-prefixed, `host`), a value cannot be compiled,
    /// `append` and `append_action` are both set, or a list is longer than 1000.
    pub fn parse(
        add: Vec<HeaderValueOption>,
        remove: Vec<String>,
        at: At<'_>,
        fields: Fields,
        parse: ParseFormat,
    ) -> Result<Self, ConfigError> {
        let here = at.field(fields.add);
        if add.len() > 1000 {
            return Err(here.error("value must contain no more than 1000 item(s)"));
        }
        let add = add
            .into_iter()
            .enumerate()
            .map(|(n, option)| Addition::parse(option, here.index(n), parse))
            .collect::<Result<_, _>>()?;
        let here = at.field(fields.remove);
        let remove = remove
            .iter()
            .enumerate()
            .map(|(n, name)| mutable_name(name, here.index(n), "removed"))
            .collect::<Result<_, _>>()?;
        Ok(Self { remove, add })
    }

    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes a request's headers.
    pub fn apply_to_request(&self, head: &mut RequestHead, info: &StreamInfo) {
        self.remove_from(&mut head.headers);
        let values = self.values(&head.headers, &ValueContext { request: Some(head), response: None, info });
        set(&mut head.headers, values, joined_in_requests);
    }

    /// Changes the headers of a request that is not made for another one: commands about a request have no value.
    pub fn apply_to_headers(&self, headers: &mut Headers, info: &StreamInfo) {
        self.remove_from(headers);
        let values = self.values(headers, &ValueContext { request: None, response: None, info });
        set(headers, values, joined_in_requests);
    }

    /// Changes a response's headers. `request` is the request as it went upstream.
    pub fn apply_to_response(&self, head: &mut ResponseHead, request: Option<&RequestHead>, info: &StreamInfo) {
        self.remove_from(&mut head.headers);
        let values = self.values(&head.headers, &ValueContext { request, response: Some(head), info });
        set(&mut head.headers, values, joined_in_responses);
    }

    fn remove_from(&self, headers: &mut Headers) {
        if !self.remove.is_empty() {
            headers.retain(|header| !self.remove.contains(&header.name));
        }
    }

    /// Every value that will be written, worked out before the first of them is.
    fn values(&self, headers: &Headers, context: &ValueContext<'_>) -> SmallVec<[Write; 4]> {
        let mut writes = SmallVec::new();
        for addition in &self.add {
            let value = addition.value.render(context);
            if value.is_empty() && !addition.keep_empty {
                continue;
            }
            let overwrite = match addition.action {
                HeaderAppendAction::AppendIfExistsOrAdd => false,
                HeaderAppendAction::AddIfAbsent if headers.contains(&addition.name) => continue,
                HeaderAppendAction::AddIfAbsent => false,
                HeaderAppendAction::OverwriteIfExists if !headers.contains(&addition.name) => continue,
                HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd => true,
            };
            writes.push(Write { overwrite, name: addition.name.clone(), value });
        }
        writes
    }
}

/// One header about to be written.
struct Write {
    overwrite: bool,
    name: HeaderName,
    value: Bytes,
}

fn set(headers: &mut Headers, writes: SmallVec<[Write; 4]>, joined: fn(&[u8]) -> bool) {
    for Write { name, value, .. } in writes.iter().filter(|write| write.overwrite) {
        if !joined(name.as_bytes()) {
            headers.remove(name);
        }
        headers.set(name.clone(), value.clone());
    }
    for Write { name, value, .. } in writes.into_iter().filter(|write| !write.overwrite) {
        add(headers, name, value, joined);
    }
}

/// Adds a header; one of which Envoy keeps only one ([`joined_in_requests`], [`joined_in_responses`]) joins the value before.
pub(crate) fn add(headers: &mut Headers, name: HeaderName, value: Bytes, joined: fn(&[u8]) -> bool) {
    match headers.iter_mut().find(|header| header.name == name && joined(name.as_bytes())) {
        Some(header) if header.value.is_empty() => header.value = value,
        Some(header) => header.value = [&header.value[..], b",", &value].concat().into(),
        None => headers.append(name, value),
    }
}

/// Whether Envoy keeps only one request header of this name: what is appended joins its value after a comma, and what
/// overwrites it keeps its place. Other headers repeat, and an overwriting one goes to the end.
pub(crate) fn joined_in_requests(name: &[u8]) -> bool {
    matches!(
        name,
        b"accept"
            | b"accept-encoding"
            | b"access-control-request-headers"
            | b"access-control-request-method"
            | b"authorization"
            | b"cache-control"
            | b"connection"
            | b"content-encoding"
            | b"content-length"
            | b"content-type"
            | b"expect"
            | b"grpc-accept-encoding"
            | b"grpc-timeout"
            | b"keep-alive"
            | b"origin"
            | b"pragma"
            | b"proxy-connection"
            | b"referer"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
            | b"user-agent"
            | b"via"
            | b"x-client-trace-id"
            | b"x-envoy-attempt-count"
            | b"x-envoy-decorator-operation"
            | b"x-envoy-downstream-service-cluster"
            | b"x-envoy-downstream-service-node"
            | b"x-envoy-expected-rq-timeout-ms"
            | b"x-envoy-external-address"
            | b"x-envoy-force-trace"
            | b"x-envoy-hedge-on-per-try-timeout"
            | b"x-envoy-internal"
            | b"x-envoy-ip-tags"
            | b"x-envoy-is-timeout-retry"
            | b"x-envoy-max-retries"
            | b"x-envoy-original-host"
            | b"x-envoy-original-path"
            | b"x-envoy-original-url"
            | b"x-envoy-retriable-header-names"
            | b"x-envoy-retriable-status-codes"
            | b"x-envoy-retry-grpc-on"
            | b"x-envoy-retry-on"
            | b"x-envoy-upstream-alt-stat-name"
            | b"x-envoy-upstream-rq-per-try-timeout-ms"
            | b"x-envoy-upstream-rq-timeout-alt-response"
            | b"x-envoy-upstream-rq-timeout-ms"
            | b"x-envoy-upstream-stream-duration-ms"
            | b"x-forwarded-client-cert"
            | b"x-forwarded-for"
            | b"x-forwarded-host"
            | b"x-forwarded-port"
            | b"x-forwarded-proto"
            | b"x-request-id"
    )
}

/// The same of response headers.
pub(crate) fn joined_in_responses(name: &[u8]) -> bool {
    matches!(
        name,
        b"access-control-allow-credentials"
            | b"access-control-allow-headers"
            | b"access-control-allow-methods"
            | b"access-control-allow-origin"
            | b"access-control-expose-headers"
            | b"access-control-max-age"
            | b"age"
            | b"cache-control"
            | b"connection"
            | b"content-encoding"
            | b"content-length"
            | b"content-type"
            | b"date"
            | b"etag"
            | b"expires"
            | b"grpc-message"
            | b"grpc-status"
            | b"keep-alive"
            | b"last-modified"
            | b"location"
            | b"proxy-connection"
            | b"proxy-status"
            | b"server"
            | b"transfer-encoding"
            | b"upgrade"
            | b"vary"
            | b"via"
            | b"x-envoy-attempt-count"
            | b"x-envoy-decorator-operation"
            | b"x-envoy-degraded"
            | b"x-envoy-immediate-health-check-fail"
            | b"x-envoy-ratelimited"
            | b"x-envoy-upstream-canary"
            | b"x-envoy-upstream-healthchecked-cluster"
            | b"x-envoy-upstream-service-time"
            | b"x-request-id"
    )
}

impl Addition {
    #[expect(deprecated, reason = "Envoy still accepts the field")]
    fn parse(option: HeaderValueOption, at: At<'_>, parse: ParseFormat) -> Result<Self, ConfigError> {
        let HeaderValueOption { header, append, append_action, keep_empty_value } = option;
        let HeaderValue { key, value, raw_value } = at.required("header", header)?;
        let at_header = at.field("header");
        let name = mutable_name(&key, at_header.field("key"), "modified")?;
        let action = HeaderAppendAction::try_from(append_action)
            .map_err(|_| at.field("append_action").error("value must be one of the defined enum values"))?;
        let action = match append {
            Some(_) if action != HeaderAppendAction::AppendIfExistsOrAdd => {
                return Err(at.error("Both append and append_action are set and it's not allowed"));
            }
            Some(append) if !append.value => HeaderAppendAction::OverwriteIfExistsOrAdd,
            _ => action,
        };
        // Envoy reads `value` alone here.
        at_header.unsupported(&unsupported::raw_value, &raw_value)?;
        let value = Template::parse(&value, parse).map_err(|error| at_header.field("value").error(error))?;
        Ok(Self { name, value, action, keep_empty: keep_empty_value })
    }
}

/// A name that configuration may change.
fn mutable_name(name: &str, at: At<'_>, verb: &str) -> Result<HeaderName, ConfigError> {
    match HeaderKey::parse(name) {
        Some(HeaderKey::Name(name)) => Ok(name),
        None if !name.starts_with(':') => Err(at.error(format_args!("'{name}' is not a header name"))),
        _ => Err(at.error(format_args!("'{name}': :-prefixed or host headers may not be {verb}"))),
    }
}

#[cfg(test)]
mod tests;

//! `http_health_check`: the request, and which answers are good.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as proto;
use envoy_types::pb::envoy::r#type::v3::{CodecClientType, Int64Range};
use filters::config::{At, ConfigError};
use filters::http::Method;
use filters::ledger;
use filters::matcher::{RegexLimits, StringMatcher};
use filters::mutation::{Fields, HeaderMutations};

use super::{Segments, header_text, payload};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.core.v3.HealthCheck.HttpHealthCheck" {
    codec_client_type => Refuse, "HTTP/3 is not implemented";
} }

/// A request that asks a host whether it is well.
#[derive(Debug)]
pub struct HttpCheck {
    /// `host` or `:authority`; empty for the cluster's name.
    pub host: Arc<str>,
    /// `:path`
    pub path: Arc<str>,
    /// Its method (GET).
    pub method: Method,
    /// Its body.
    pub send: Vec<u8>,
    /// What has to be in the answer's body; nothing if the status is enough.
    pub receive: Segments,
    /// How much of the answer's body is looked at (1024); `None` all of it.
    pub response_buffer_size: Option<usize>,
    /// `request_headers_to_add` and `request_headers_to_remove`.
    pub headers: HeaderMutations,
    /// Statuses of a host that is well (200).
    pub expected: Vec<StatusRange>,
    /// Statuses that count towards the threshold instead of at once.
    pub retriable: Vec<StatusRange>,
    /// By HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
    /// What `x-envoy-upstream-healthchecked-cluster` has to say.
    pub service_name: Option<StringMatcher>,
}

/// Statuses from the first to below the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange(u64, u64);

impl StatusRange {
    /// Whether a status is in it.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.0 <= status as u64 && (status as u64) < self.1
    }
}

impl HttpCheck {
    pub(super) fn parse(at: At<'_>, proto: proto::health_check::HttpHealthCheck) -> Result<Self, ConfigError> {
        let proto::health_check::HttpHealthCheck {
            host,
            path,
            send,
            receive,
            response_buffer_size,
            request_headers_to_add,
            request_headers_to_remove,
            expected_statuses,
            retriable_statuses,
            codec_client_type,
            service_name_matcher,
            method: method_number,
        } = proto;
        if path.is_empty() {
            return Err(at.field("path").error("value length must be at least 1 characters"));
        }
        let (method, name) = method(at.field("method"), method_number)?;
        let bodiless = matches!(method, Method::Get | Method::Head | Method::Delete | Method::Trace);
        if send.is_some() && bodiless {
            return Err(at.field("send").error(format_args!(
                "HTTP health check cannot specify a request payload with method '{name}'. Only methods that support a \
                 request body (POST, PUT, PATCH, OPTIONS) can be used with payload."
            )));
        }
        let receive = Segments::parse(at.field("receive"), receive)?;
        let response_buffer_size = response_buffer_size.map_or(1024, |v| v.value);
        if response_buffer_size != 0 && receive.total() as u64 > response_buffer_size {
            return Err(at.field("receive").error(format_args!(
                "The expected response length '{}' is over than http health response buffer size \
                 '{response_buffer_size}'",
                receive.total()
            )));
        }
        let http2 = match CodecClientType::try_from(codec_client_type) {
            Ok(CodecClientType::Http1) => false,
            Ok(CodecClientType::Http2) => true,
            Ok(CodecClientType::Http3) => {
                at.field("codec_client_type").refuse_or_warn(&unsupported::codec_client_type)?;
                false
            }
            Err(_) => {
                return Err(at.field("codec_client_type").error("value must be one of the defined enum values"));
            }
        };
        let sayable = if http2 {
            path.parse::<::http::uri::PathAndQuery>().is_ok()
        } else {
            !path.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
        };
        if !sayable {
            return Err(at.field("path").error("is not a path that a request line can hold"));
        }
        let mut expected = ranges(at.field("expected_statuses"), expected_statuses, "expected")?;
        if expected.is_empty() {
            expected.push(StatusRange(200, 201));
        }
        let matcher = service_name_matcher
            .map(|matcher| StringMatcher::parse(matcher, at.field("service_name_matcher"), RegexLimits::default()));
        Ok(Self {
            host: header_text(at.field("host"), host)?,
            path: header_text(at.field("path"), path)?,
            method,
            send: send.map(|send| payload(at.field("send"), send)).transpose()?.unwrap_or_default(),
            receive,
            response_buffer_size: usize::try_from(response_buffer_size).ok().filter(|&size| size > 0),
            headers: HeaderMutations::parse(
                request_headers_to_add,
                request_headers_to_remove,
                at,
                Fields::REQUEST,
                filters::format::parse_header_value,
            )?,
            expected,
            retriable: ranges(at.field("retriable_statuses"), retriable_statuses, "retriable")?,
            http2,
            service_name: matcher.transpose()?,
        })
    }
}

fn method(at: At<'_>, number: i32) -> Result<(Method, &'static str), ConfigError> {
    use proto::RequestMethod as Name;
    let name = Name::try_from(number).map_err(|_| at.error("value must be one of the defined enum values"))?;
    let method = match name {
        Name::MethodUnspecified | Name::Get => return Ok((Method::Get, "GET")),
        Name::Head => Method::Head,
        Name::Post => Method::Post,
        Name::Put => Method::Put,
        Name::Delete => Method::Delete,
        Name::Connect => return Err(at.error("value must not be in list [CONNECT]")),
        Name::Options => Method::Options,
        Name::Trace => Method::Trace,
        Name::Patch => Method::Patch,
    };
    Ok((method, name.as_str_name()))
}

/// Bounds are compared as Envoy compares them: without a sign.
#[expect(clippy::cast_sign_loss, reason = "so Envoy takes negative numbers")]
fn ranges(at: At<'_>, protos: Vec<Int64Range>, kind: &str) -> Result<Vec<StatusRange>, ConfigError> {
    let parse = |(n, Int64Range { start, end }): (usize, Int64Range)| {
        let (start, end) = (start as u64, end as u64);
        let at = at.index(n);
        let wrong = |what: std::fmt::Arguments<'_>| {
            Err(at.error(format_args!("Invalid http {kind} status range: expecting {what}")))
        };
        if start >= end {
            return wrong(format_args!("start < end, but found start={start} and end={end}"));
        }
        if start < 100 {
            return wrong(format_args!("start >= 100, but found start={start}"));
        }
        if end > 600 {
            return wrong(format_args!("end <= 600, but found end={end}"));
        }
        Ok(StatusRange(start, end))
    };
    protos.into_iter().enumerate().map(parse).collect()
}

//! `local_reply_config`.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use filters::config::{At, ConfigError};
use filters::format::{Format, FormatOptions};
use filters::http::HeaderKey;

use crate::config::access_log::{self, LogContext};
use crate::http::reply::{AppendAction, BodyFormat, BodyText, HeaderToAdd, LocalReplyConfig, ReplyMapper};
use crate::observe::access_log::LogFormat;

pub(super) fn parse(
    at: &At<'_>,
    proto: proto::LocalReplyConfig,
    context: &LogContext<'_>,
) -> Result<LocalReplyConfig, ConfigError> {
    let proto::LocalReplyConfig { mappers, body_format: format } = proto;
    let at_mappers = at.field("mappers");
    let mappers = mappers.into_iter().enumerate().map(|(n, proto)| mapper(&at_mappers.index(n), proto, context));
    Ok(LocalReplyConfig {
        mappers: mappers.collect::<Result<_, _>>()?,
        body_format: format.map(|format| body_format(&at.field("body_format"), format, context.formats)).transpose()?,
    })
}

fn mapper(at: &At<'_>, proto: proto::ResponseMapper, context: &LogContext<'_>) -> Result<ReplyMapper, ConfigError> {
    let proto::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = proto;
    let filter = at.required("filter", filter)?;
    let status = match status_code {
        None => None,
        Some(code) => Some(
            u16::try_from(code.value)
                .ok()
                .filter(|code| (200..600).contains(code))
                .ok_or_else(|| at.field("status_code").error("value must be inside range [200, 600)"))?,
        ),
    };
    let at_headers = at.field("headers_to_add");
    let headers = headers_to_add.into_iter().enumerate().map(|(n, proto)| header(&at_headers.index(n), proto, context));
    Ok(ReplyMapper {
        filter: access_log::filter(&at.field("filter"), filter, context)?,
        status,
        body: body.map(|body| access_log::data_source(&at.field("body"), body)).transpose()?,
        body_format: body_format_override
            .map(|format| body_format(&at.field("body_format_override"), format, context.formats))
            .transpose()?,
        headers: headers.collect::<Result<_, _>>()?,
    })
}

/// Parses the format of a body.
///
/// # Errors
/// When a format string is not valid.
pub fn body_format(
    at: &At<'_>,
    proto: SubstitutionFormatString,
    formats: &FormatOptions,
) -> Result<BodyFormat, ConfigError> {
    let (format, content_type) = access_log::format_and_type(at, proto, formats)?;
    let (body, implied) = match format {
        LogFormat::Text(format) => (BodyText::Text(format), "text/plain"),
        LogFormat::Json(format) => (BodyText::Json(format), "application/json"),
    };
    let content_type =
        if content_type.is_empty() { Bytes::from_static(implied.as_bytes()) } else { content_type.into() };
    Ok(BodyFormat { body, content_type })
}

fn header(at: &At<'_>, proto: HeaderValueOption, context: &LogContext<'_>) -> Result<HeaderToAdd, ConfigError> {
    #[expect(deprecated, reason = "Envoy honours the old field as well")]
    let HeaderValueOption { header, append, append_action, keep_empty_value } = proto;
    let HeaderValue { key, value, raw_value } = at.required("header", header)?;
    let name = match HeaderKey::parse(&key) {
        Some(HeaderKey::Name(name)) => name,
        Some(_) => return Err(at.error(":-prefixed or host headers may not be modified")),
        None => return Err(at.field("header").field("key").error(format_args!("'{key}' is not a header name"))),
    };
    let value = if raw_value.is_empty() { value } else { String::from_utf8_lossy(&raw_value).into_owned() };
    let value = Format::parse(&value, &context.formats.header_value())
        .map_err(|error| at.field("header").field("value").error(error))?;
    let action = match (append, HeaderAppendAction::try_from(append_action)) {
        (Some(_), Ok(action)) if action != HeaderAppendAction::AppendIfExistsOrAdd => {
            return Err(at.error("Both append and append_action are set and it's not allowed"));
        }
        (Some(append), _) if !append.value => AppendAction::OverwriteOrAdd,
        (_, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::Append,
        (_, Ok(HeaderAppendAction::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (_, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => AppendAction::OverwriteOrAdd,
        (_, Ok(HeaderAppendAction::OverwriteIfExists)) => AppendAction::Overwrite,
        (_, Err(_)) => return Err(at.field("append_action").error("value must be one of the defined enum values")),
    };
    Ok(HeaderToAdd { name, value, action, keep_empty: keep_empty_value })
}

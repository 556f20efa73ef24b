//! HTTP/1 options.

use envoy_types::pb::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use envoy_types::pb::envoy::config::core::v3::{Http1ProtocolOptions, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders;
use filters::config::{At, ConfigError};
use filters::ledger;

use super::values::flag;
use super::{HeaderCase, Http1Options};
use crate::config::any::{self, StructToBytes};

ledger! {
    /// HTTP/1 options that are not here.
    pub mod unsupported_http1 for "envoy.config.core.v3.Http1ProtocolOptions" {
        ignore_http_11_upgrade => Refuse, "decides which upgrades are ignored";
        use_balsa_parser => Warn, "chooses between Envoy's parsers; there is one here";
    }
}

/// Parses HTTP/1 options; `stream_error` is what holds without an override.
///
/// # Errors
/// When a header formatter is not known.
pub fn http1(
    at: &At<'_>,
    proto: Option<Http1ProtocolOptions>,
    stream_error: bool,
    convert: StructToBytes,
) -> Result<Http1Options, ConfigError> {
    #[expect(deprecated, reason = "old fields are destructured like all others")]
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = proto.unwrap_or_default();
    at.unsupported(&unsupported_http1::ignore_http_11_upgrade, &ignore_http_11_upgrade)?;
    at.unsupported(&unsupported_http1::use_balsa_parser, &use_balsa_parser)?;
    let format = header_key_format.and_then(|format| format.header_format);
    Ok(Http1Options {
        allow_absolute_url: flag(allow_absolute_url, true),
        accept_http_10,
        default_host_for_http_10,
        header_case: header_case(&at.field("header_key_format"), format, convert)?,
        enable_trailers,
        allow_chunked_length,
        stream_error_on_invalid_message: flag(override_stream_error_on_invalid_http_message, stream_error),
        send_fully_qualified_url,
        allow_custom_methods,
    })
}

/// Parses `header_key_format`, of a connection manager or a cluster.
///
/// # Errors
/// When a header formatter is not known.
pub fn header_case(
    at: &At<'_>,
    format: Option<HeaderFormat>,
    convert: StructToBytes,
) -> Result<HeaderCase, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = match format {
        None => return Ok(HeaderCase::Lower),
        Some(HeaderFormat::ProperCaseWords(_)) => return Ok(HeaderCase::Proper),
        Some(HeaderFormat::StatefulFormatter(extension)) => extension,
    };
    let here = at.field("stateful_formatter");
    let Some(typed) = typed_config else { return Err(here.unknown_extension(&name, "")) };
    let typed = any::unwrap(&here, typed, convert)?;
    if typed.type_name() != "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig" {
        return Err(here.unknown_extension(&name, typed.type_name()));
    }
    let PreserveCaseFormatterConfig { forward_reason_phrase, formatter_type_on_envoy_headers } = typed.decode(&here)?;
    let proper_case_for_own = match FormatterTypeOnEnvoyHeaders::try_from(formatter_type_on_envoy_headers) {
        Ok(FormatterTypeOnEnvoyHeaders::Default) => false,
        Ok(FormatterTypeOnEnvoyHeaders::ProperCase) => true,
        Err(_) => {
            return Err(here
                .field("formatter_type_on_envoy_headers")
                .error("value must be one of the defined enum values"));
        }
    };
    Ok(HeaderCase::Preserve { forward_reason_phrase, proper_case_for_own })
}

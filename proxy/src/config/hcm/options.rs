//! Protocol options, for connection managers and clusters alike.

use envoy_types::pb::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings, TypedExtensionConfig,
};
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders;
use envoy_types::pb::google::protobuf::UInt64Value;
use filters::config::{At, ConfigError};
use filters::ledger;

use super::parse::{duration, flag, ranged};
use super::{HeaderCase, Http1Options, Http2Options, Keepalive};
use crate::config::any::{self, StructToBytes};

ledger! {
    /// HTTP/1 options that are not here.
    pub mod unsupported_http1 for "envoy.config.core.v3.Http1ProtocolOptions" {
        ignore_http_11_upgrade => Refuse, "decides which upgrades are ignored";
        use_balsa_parser => Warn, "chooses between Envoy's parsers; there is one here";
    }
}

ledger! {
    /// HTTP/2 options that are not here.
    pub mod unsupported_http2 for "envoy.config.core.v3.Http2ProtocolOptions" {
        allow_metadata => Warn, "METADATA frames are ignored, as by any peer that does not know them";
        custom_settings_parameters => Warn, "SETTINGS parameters HTTP/2 does not define are not sent";
        use_oghttp2_codec => Warn, "chooses between Envoy's codecs; there is one here";
        max_metadata_size => Warn, "METADATA frames are ignored";
        disallow_obs_text => Refuse, "decides which header values are valid";
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

fn header_case(at: &At<'_>, format: Option<HeaderFormat>, convert: StructToBytes) -> Result<HeaderCase, ConfigError> {
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

/// Parses HTTP/2 options; `stream_error` is what holds without an override.
///
/// # Errors
/// When a number is outside Envoy's range.
pub fn http2(
    at: &At<'_>,
    proto: Option<Http2ProtocolOptions>,
    stream_error: bool,
) -> Result<Http2Options, ConfigError> {
    const MAX: u32 = i32::MAX as u32;
    #[expect(deprecated, reason = "old fields are destructured, and honoured, like all others")]
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = proto.unwrap_or_default();
    at.unsupported(&unsupported_http2::allow_metadata, &allow_metadata)?;
    at.unsupported(&unsupported_http2::custom_settings_parameters, &custom_settings_parameters)?;
    at.unsupported(&unsupported_http2::use_oghttp2_codec, &use_oghttp2_codec)?;
    at.unsupported(&unsupported_http2::max_metadata_size, &max_metadata_size)?;
    at.unsupported(&unsupported_http2::disallow_obs_text, &disallow_obs_text.filter(|value| value.value))?;
    let stream_error = stream_error || stream_error_on_invalid_http_messaging;
    let any = 0..=u32::MAX;
    let positive = 1..=u32::MAX;
    let number = |name, value, default, range| ranged(at, name, value, default, range);
    Ok(Http2Options {
        hpack_table_size: number("hpack_table_size", hpack_table_size, 4096, any.clone())?,
        max_concurrent_streams: number("max_concurrent_streams", max_concurrent_streams, 1024, 1..=MAX)?,
        initial_stream_window_size: number(
            "initial_stream_window_size",
            initial_stream_window_size,
            16 << 20,
            65_535..=MAX,
        )?,
        initial_connection_window_size: number(
            "initial_connection_window_size",
            initial_connection_window_size,
            24 << 20,
            65_535..=MAX,
        )?,
        allow_connect,
        max_outbound_frames: number("max_outbound_frames", max_outbound_frames, 10_000, positive.clone())?,
        max_outbound_control_frames: number(
            "max_outbound_control_frames",
            max_outbound_control_frames,
            1_000,
            positive.clone(),
        )?,
        max_consecutive_inbound_empty_frames: number(
            "max_consecutive_inbound_frames_with_empty_payload",
            max_consecutive_inbound_frames_with_empty_payload,
            1,
            any.clone(),
        )?,
        max_inbound_priority_frames_per_stream: number(
            "max_inbound_priority_frames_per_stream",
            max_inbound_priority_frames_per_stream,
            100,
            any,
        )?,
        max_inbound_window_updates_per_data_frame: number(
            "max_inbound_window_update_frames_per_data_frame_sent",
            max_inbound_window_update_frames_per_data_frame_sent,
            10,
            positive,
        )?,
        stream_error_on_invalid_message: flag(override_stream_error_on_invalid_http_message, stream_error),
        keepalive: connection_keepalive.map(|proto| keepalive(&at.field("connection_keepalive"), proto)).transpose()?,
        max_header_field_size: 1024
            * number("max_header_field_size_kb", max_header_field_size_kb, 64, 64..=256)? as usize,
        huffman: flag(enable_huffman_encoding, true),
        stream_reset_burst: stream_reset_burst.map_or(1_000, |UInt64Value { value }| value),
        stream_reset_rate: stream_reset_rate.map_or(33, |UInt64Value { value }| value),
    })
}

fn keepalive(at: &At<'_>, proto: KeepaliveSettings) -> Result<Keepalive, ConfigError> {
    let KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = proto;
    let timeout = at.required("timeout", duration(at, "timeout", timeout)?)?;
    Ok(Keepalive {
        interval: duration(at, "interval", interval)?,
        timeout,
        jitter: interval_jitter.map_or(15.0, |percent| percent.value),
        idle_interval: duration(at, "connection_idle_interval", connection_idle_interval)?,
    })
}

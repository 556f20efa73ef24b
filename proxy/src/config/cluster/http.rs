//! How a cluster speaks HTTP: `HttpProtocolOptions`, and the deprecated fields of `Cluster` that it replaced.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use filters::config::{At, ConfigError};
use filters::ledger;

use super::{duration, percent};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" {
    http_filters => Refuse, "upstream HTTP filters are not implemented";
    header_validation_config => Warn, "headers are always validated as by Envoy's default";
    outlier_detection => Warn, "outlier detection is not implemented yet";
    request_mirror_policies => Refuse, "mirroring by cluster is not implemented";
    hash_policy => Refuse, "hash policies by cluster are not implemented";
    retry_policy => Refuse, "retry policies by cluster are not implemented";
    auto_config => Refuse, "protocol negotiation needs TLS, which is not implemented yet";
    http3_protocol_options => Refuse, "HTTP/3 is not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod sni_unsupported for "envoy.config.core.v3.UpstreamHttpProtocolOptions" {
    auto_sni => Warn, "it is about TLS, which is not implemented yet";
    auto_san_validation => Warn, "it is about TLS, which is not implemented yet";
    override_auto_sni_header => Warn, "it is about TLS, which is not implemented yet";
} }

ledger! {
    /// What is not implemented.
    pub mod http1_unsupported for "envoy.config.core.v3.Http1ProtocolOptions" {
    allow_absolute_url => Warn, "it is about requests received, not about an upstream";
    accept_http_10 => Warn, "it is about requests received, not about an upstream";
    default_host_for_http_10 => Warn, "it is about requests received, not about an upstream";
    stateful_formatter => Refuse, "header formatters other than proper_case_words are not implemented";
    override_stream_error_on_invalid_http_message => Warn, "a connection with an invalid response is always closed";
    use_balsa_parser => Warn, "there is one parser";
    allow_custom_methods => Warn, "every method that is a token is allowed";
    ignore_http_11_upgrade => Warn, "it is about requests received, not about an upstream";
} }

ledger! {
    /// What is not implemented.
    pub mod http2_unsupported for "envoy.config.core.v3.Http2ProtocolOptions" {
    allow_metadata => Warn, "METADATA frames are not implemented";
    max_metadata_size => Warn, "METADATA frames are not implemented";
    use_oghttp2_codec => Warn, "there is one codec";
    enable_huffman_encoding => Warn, "the codec decides";
    disallow_obs_text => Warn, "obs-text is accepted as by Envoy's default";
    stream_error_on_invalid_http_messaging => Warn, "replaced by override_stream_error_on_invalid_http_message";
} }

/// What is spoken to a cluster's hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, without negotiation.
    Http2,
    /// What the downstream request came by.
    UseDownstream,
}

/// HTTP options of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HttpOptions {
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// Whatever is spoken.
    pub common: CommonHttpOptions,
    /// When HTTP/1.1 is.
    pub http1: UpstreamHttp1Options,
    /// When HTTP/2 is.
    pub http2: UpstreamHttp2Options,
}

/// Options of both protocols (`common_http_protocol_options`).
#[derive(Debug, Clone, PartialEq)]
pub struct CommonHttpOptions {
    /// An idle connection is closed after this (1 h); `None` never.
    pub idle_timeout: Option<Duration>,
    /// A connection takes no further request after this; `None` for ever.
    pub max_connection_duration: Option<Duration>,
    /// `max_connection_duration` is shortened by up to this share, 0 to 1.
    pub max_connection_duration_jitter: f64,
    /// Headers in a response (100).
    pub max_headers_count: u32,
    /// Bytes of headers in a response; `None` when not given: the codec's default.
    pub max_response_headers_bytes: Option<u32>,
    /// Longest life of a request to this cluster; `None` for ever.
    pub max_stream_duration: Option<Duration>,
    /// What happens to response headers with an underscore in their name.
    pub headers_with_underscores: UnderscoreAction,
    /// Requests on a connection before it is closed; `None` for any number.
    pub max_requests_per_connection: Option<u32>,
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnderscoreAction {
    /// Pass.
    #[default]
    Allow,
    /// Refuse the message.
    Reject,
    /// Remove the header.
    Drop,
}

/// Options of HTTP/1.1 to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamHttp1Options {
    /// Header names are written `Like-This`.
    pub proper_case_words: bool,
    /// Trailers are passed on.
    pub enable_trailers: bool,
    /// A response with both `content-length` and `transfer-encoding` is accepted.
    pub allow_chunked_length: bool,
    /// The request target is the whole URL.
    pub send_fully_qualified_url: bool,
}

/// Options of HTTP/2 to an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamHttp2Options {
    /// `SETTINGS_HEADER_TABLE_SIZE` (4096).
    pub hpack_table_size: u32,
    /// Streams on a connection, below what the peer allows (1024).
    pub max_concurrent_streams: u32,
    /// Receive window of a stream, bytes (16 MiB).
    pub initial_stream_window_size: u32,
    /// Receive window of a connection, bytes (24 MiB).
    pub initial_connection_window_size: u32,
    /// Extended `CONNECT`.
    pub allow_connect: bool,
    /// Frames queued on a connection (10,000).
    pub max_outbound_frames: u32,
    /// Of these, control frames (1,000).
    pub max_outbound_control_frames: u32,
    /// Empty frames in a row accepted (1).
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// `PRIORITY` frames accepted per stream (100).
    pub max_inbound_priority_frames_per_stream: u32,
    /// `WINDOW_UPDATE` frames accepted per `DATA` frame sent (10).
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// An invalid message resets its stream only, not the connection.
    pub stream_error_on_invalid_http_message: bool,
    /// Further `SETTINGS`, by identifier.
    pub custom_settings: Vec<(u16, u32)>,
    /// Pings; `None` sends none.
    pub keepalive: Option<Http2Keepalive>,
    /// Bytes of one header field (64 KiB).
    pub max_header_field_size: u32,
    /// Stream resets accepted at once (1000).
    pub stream_reset_burst: u64,
    /// Stream resets accepted per second (33).
    pub stream_reset_rate: u64,
}

/// `connection_keepalive`.
#[derive(Debug, Clone, PartialEq)]
pub struct Http2Keepalive {
    /// Time between pings; `None` sends none at intervals.
    pub interval: Option<Duration>,
    /// The connection is closed when a ping is not answered within this.
    pub timeout: Duration,
    /// The interval is lengthened by up to this share (0.15).
    pub interval_jitter: f64,
    /// A connection idle for this long is pinged before its next request; `None` never.
    pub connection_idle_interval: Option<Duration>,
}

impl Default for CommonHttpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_connection_duration_jitter: 0.0,
            max_headers_count: 100,
            max_response_headers_bytes: None,
            max_stream_duration: None,
            headers_with_underscores: UnderscoreAction::Allow,
            max_requests_per_connection: None,
        }
    }
}

impl Default for UpstreamHttp2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_error_on_invalid_http_message: false,
            custom_settings: Vec::new(),
            keepalive: None,
            max_header_field_size: 64 << 10,
            stream_reset_burst: 1000,
            stream_reset_rate: 33,
        }
    }
}

/// The deprecated fields of `Cluster` that `HttpProtocolOptions` replaced.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    pub(super) common: Option<core::HttpProtocolOptions>,
    pub(super) upstream: Option<core::UpstreamHttpProtocolOptions>,
    pub(super) http1: Option<core::Http1ProtocolOptions>,
    pub(super) http2: Option<core::Http2ProtocolOptions>,
    pub(super) use_downstream_protocol: bool,
}

impl HttpOptions {
    /// Options by `HttpProtocolOptions`.
    pub(super) fn parse(at: At<'_>, proto: http::HttpProtocolOptions) -> Result<Self, ConfigError> {
        use http::http_protocol_options as options;
        let http::HttpProtocolOptions {
            common_http_protocol_options,
            upstream_http_protocol_options,
            http_filters,
            header_validation_config,
            outlier_detection,
            request_mirror_policies,
            hash_policy,
            retry_policy,
            upstream_protocol_options,
        } = proto;
        upstream_filters(at.field("http_filters"), &http_filters)?;
        at.unsupported(&unsupported::header_validation_config, &header_validation_config)?;
        at.unsupported(&unsupported::outlier_detection, &outlier_detection)?;
        at.unsupported(&unsupported::request_mirror_policies, &request_mirror_policies)?;
        at.unsupported(&unsupported::hash_policy, &hash_policy)?;
        at.unsupported(&unsupported::retry_policy, &retry_policy)?;
        sni_options(at.field("upstream_http_protocol_options"), upstream_http_protocol_options)?;
        let common = common_http_protocol_options;
        let (protocol, http1, http2) = match at.required("upstream_protocol_options", upstream_protocol_options)? {
            options::UpstreamProtocolOptions::ExplicitHttpConfig(options::ExplicitHttpConfig { protocol_config }) => {
                use options::explicit_http_config::ProtocolConfig;
                let at = at.field("explicit_http_config");
                match at.required("protocol_config", protocol_config)? {
                    ProtocolConfig::HttpProtocolOptions(http1) => (UpstreamProtocol::Http1, Some(http1), None),
                    ProtocolConfig::Http2ProtocolOptions(http2) => (UpstreamProtocol::Http2, None, Some(http2)),
                    ProtocolConfig::Http3ProtocolOptions(_) => {
                        at.field("http3_protocol_options").refuse_or_warn(&unsupported::http3_protocol_options)?;
                        (UpstreamProtocol::Http2, None, None)
                    }
                }
            }
            options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(config) => {
                let options::UseDownstreamHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options,
                } = config;
                let at = at.field("use_downstream_protocol_config");
                at.unsupported(&unsupported::http3_protocol_options, &http3_protocol_options)?;
                (UpstreamProtocol::UseDownstream, http_protocol_options, http2_protocol_options)
            }
            options::UpstreamProtocolOptions::AutoConfig(config) => {
                at.field("auto_config").refuse_or_warn(&unsupported::auto_config)?;
                // Allowed by the operator: without TLS nothing negotiates, and HTTP/1.1 is what Envoy falls back to.
                let options::AutoHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options: _,
                    alternate_protocols_cache_options: _,
                } = config;
                (UpstreamProtocol::Http1, http_protocol_options, http2_protocol_options)
            }
        };
        Self::build(at, protocol, common, http1, http2)
    }

    /// Options by the deprecated fields.
    pub(super) fn legacy(at: At<'_>, legacy: Legacy) -> Result<Self, ConfigError> {
        let Legacy { common, upstream, http1, http2, use_downstream_protocol } = legacy;
        sni_options(at.field("upstream_http_protocol_options"), upstream)?;
        let protocol = match (&http2, use_downstream_protocol) {
            (_, true) => UpstreamProtocol::UseDownstream,
            (Some(_), false) => UpstreamProtocol::Http2,
            (None, false) => UpstreamProtocol::Http1,
        };
        Self::build(at, protocol, common, http1, http2)
    }

    fn build(
        at: At<'_>,
        protocol: UpstreamProtocol,
        common: Option<core::HttpProtocolOptions>,
        http1: Option<core::Http1ProtocolOptions>,
        http2: Option<core::Http2ProtocolOptions>,
    ) -> Result<Self, ConfigError> {
        let common = common.map(|proto| CommonHttpOptions::parse(at.field("common_http_protocol_options"), proto));
        let http1 = http1.map(|proto| UpstreamHttp1Options::parse(at.field("http_protocol_options"), proto));
        let http2 = http2.map(|proto| UpstreamHttp2Options::parse(at.field("http2_protocol_options"), proto));
        Ok(Self {
            protocol,
            common: common.transpose()?.unwrap_or_default(),
            http1: http1.transpose()?.unwrap_or_default(),
            http2: http2.transpose()?.unwrap_or_default(),
        })
    }
}

/// The codec filter is what there is anyway; any other upstream filter is refused.
fn upstream_filters(
    at: At<'_>,
    filters: &[envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter],
) -> Result<(), ConfigError> {
    let only_codec = filters.iter().all(|filter| filter.name == "envoy.filters.http.upstream_codec");
    if only_codec { Ok(()) } else { at.refuse_or_warn(&unsupported::http_filters) }
}

fn sni_options(at: At<'_>, proto: Option<core::UpstreamHttpProtocolOptions>) -> Result<(), ConfigError> {
    let core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
        proto.unwrap_or_default();
    at.unsupported(&sni_unsupported::auto_sni, &auto_sni)?;
    at.unsupported(&sni_unsupported::auto_san_validation, &auto_san_validation)?;
    at.unsupported(&sni_unsupported::override_auto_sni_header, &override_auto_sni_header)
}

impl CommonHttpOptions {
    fn parse(at: At<'_>, proto: core::HttpProtocolOptions) -> Result<Self, ConfigError> {
        let core::HttpProtocolOptions {
            idle_timeout,
            max_connection_duration,
            max_connection_duration_jitter,
            max_headers_count,
            max_response_headers_kb,
            max_stream_duration,
            headers_with_underscores_action,
            max_requests_per_connection,
        } = proto;
        let defaults = Self::default();
        let limit = |name: &str, proto| Ok(duration(at.field(name), proto)?.filter(|limit| !limit.is_zero()));
        let max_response_headers_bytes = match max_response_headers_kb.map(|v| v.value) {
            Some(kb @ 1..=8192) => Some(kb << 10),
            Some(_) => return Err(at.field("max_response_headers_kb").error("value must be inside range (0, 8192]")),
            None => None,
        };
        Ok(Self {
            // Given but zero: never closed for being idle.
            idle_timeout: match duration(at.field("idle_timeout"), idle_timeout)? {
                Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
                None => defaults.idle_timeout,
            },
            max_connection_duration: limit("max_connection_duration", max_connection_duration)?,
            max_connection_duration_jitter: max_connection_duration_jitter
                .map_or(Ok(0.0), |v| percent(at.field("max_connection_duration_jitter"), &v))?
                / 100.0,
            max_headers_count: max_headers_count.map_or(defaults.max_headers_count, |v| v.value),
            max_response_headers_bytes,
            max_stream_duration: limit("max_stream_duration", max_stream_duration)?,
            headers_with_underscores: match headers_with_underscores_action {
                0 => UnderscoreAction::Allow,
                1 => UnderscoreAction::Reject,
                2 => UnderscoreAction::Drop,
                _ => {
                    return Err(at
                        .field("headers_with_underscores_action")
                        .error("value must be one of the defined enum values"));
                }
            },
            max_requests_per_connection: max_requests_per_connection.map(|v| v.value).filter(|&max| max > 0),
        })
    }
}

impl UpstreamHttp1Options {
    fn parse(at: At<'_>, proto: core::Http1ProtocolOptions) -> Result<Self, ConfigError> {
        use core::http1_protocol_options::header_key_format::HeaderFormat;
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let core::Http1ProtocolOptions {
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
        } = proto;
        at.unsupported(&http1_unsupported::allow_absolute_url, &allow_absolute_url)?;
        at.unsupported(&http1_unsupported::accept_http_10, &accept_http_10)?;
        at.unsupported(&http1_unsupported::default_host_for_http_10, &default_host_for_http_10)?;
        at.unsupported(
            &http1_unsupported::override_stream_error_on_invalid_http_message,
            &override_stream_error_on_invalid_http_message,
        )?;
        at.unsupported(&http1_unsupported::use_balsa_parser, &use_balsa_parser)?;
        at.unsupported(&http1_unsupported::allow_custom_methods, &allow_custom_methods)?;
        at.unsupported(&http1_unsupported::ignore_http_11_upgrade, &ignore_http_11_upgrade)?;
        let proper_case_words = match header_key_format.and_then(|format| format.header_format) {
            None => false,
            Some(HeaderFormat::ProperCaseWords(_)) => true,
            Some(HeaderFormat::StatefulFormatter(_)) => {
                at.field("header_key_format").refuse_or_warn(&http1_unsupported::stateful_formatter)?;
                false
            }
        };
        Ok(Self { proper_case_words, enable_trailers, allow_chunked_length, send_fully_qualified_url })
    }
}

impl UpstreamHttp2Options {
    fn parse(at: At<'_>, proto: core::Http2ProtocolOptions) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let core::Http2ProtocolOptions {
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
        } = proto;
        at.unsupported(&http2_unsupported::allow_metadata, &allow_metadata)?;
        at.unsupported(&http2_unsupported::max_metadata_size, &max_metadata_size)?;
        at.unsupported(&http2_unsupported::use_oghttp2_codec, &use_oghttp2_codec)?;
        at.unsupported(&http2_unsupported::enable_huffman_encoding, &enable_huffman_encoding)?;
        at.unsupported(&http2_unsupported::disallow_obs_text, &disallow_obs_text)?;
        at.unsupported(
            &http2_unsupported::stream_error_on_invalid_http_messaging,
            &stream_error_on_invalid_http_messaging,
        )?;
        let defaults = Self::default();
        let ranged = |name: &str, value: Option<u32>, min: u32, default: u32| match value {
            None => Ok(default),
            Some(value) if (min..=i32::MAX as u32).contains(&value) => Ok(value),
            Some(_) => Err(at.field(name).error(format_args!("value must be inside range [{min}, 2147483647]"))),
        };
        let named = [
            (1, "hpack_table_size", hpack_table_size.is_some()),
            (3, "max_concurrent_streams", max_concurrent_streams.is_some()),
            (4, "initial_stream_window_size", initial_stream_window_size.is_some()),
        ];
        Ok(Self {
            hpack_table_size: hpack_table_size.map_or(defaults.hpack_table_size, |v| v.value),
            max_concurrent_streams: ranged(
                "max_concurrent_streams",
                max_concurrent_streams.map(|v| v.value),
                1,
                defaults.max_concurrent_streams,
            )?,
            initial_stream_window_size: ranged(
                "initial_stream_window_size",
                initial_stream_window_size.map(|v| v.value),
                65_535,
                defaults.initial_stream_window_size,
            )?,
            initial_connection_window_size: ranged(
                "initial_connection_window_size",
                initial_connection_window_size.map(|v| v.value),
                65_535,
                defaults.initial_connection_window_size,
            )?,
            allow_connect,
            max_outbound_frames: max_outbound_frames.map_or(defaults.max_outbound_frames, |v| v.value),
            max_outbound_control_frames: max_outbound_control_frames
                .map_or(defaults.max_outbound_control_frames, |v| v.value),
            max_consecutive_inbound_frames_with_empty_payload: max_consecutive_inbound_frames_with_empty_payload
                .map_or(defaults.max_consecutive_inbound_frames_with_empty_payload, |v| v.value),
            max_inbound_priority_frames_per_stream: max_inbound_priority_frames_per_stream
                .map_or(defaults.max_inbound_priority_frames_per_stream, |v| v.value),
            max_inbound_window_update_frames_per_data_frame_sent: max_inbound_window_update_frames_per_data_frame_sent
                .map_or(defaults.max_inbound_window_update_frames_per_data_frame_sent, |v| v.value),
            stream_error_on_invalid_http_message: override_stream_error_on_invalid_http_message
                .is_some_and(|v| v.value),
            custom_settings: custom_settings(at, custom_settings_parameters, &named)?,
            keepalive: connection_keepalive
                .map(|proto| Http2Keepalive::parse(at.field("connection_keepalive"), proto))
                .transpose()?,
            max_header_field_size: max_header_field_size_kb
                .map_or(defaults.max_header_field_size, |v| v.value.saturating_mul(1024)),
            stream_reset_burst: stream_reset_burst.map_or(defaults.stream_reset_burst, |v| v.value),
            stream_reset_rate: stream_reset_rate.map_or(defaults.stream_reset_rate, |v| v.value),
        })
    }
}

/// Further settings: each once, none that has a field of its own that is set, none that is ours to decide.
fn custom_settings(
    at: At<'_>,
    protos: Vec<core::http2_protocol_options::SettingsParameter>,
    named: &[(u16, &str, bool)],
) -> Result<Vec<(u16, u32)>, ConfigError> {
    let list = at.field("custom_settings_parameters");
    let mut settings: Vec<(u16, u32)> = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        let at = list.index(index);
        let core::http2_protocol_options::SettingsParameter { identifier, value } = proto;
        let identifier = u16::try_from(at.required("identifier", identifier)?.value)
            .map_err(|_| at.field("identifier").error("value must be inside range [0, 65536]"))?;
        let value = at.required("value", value)?.value;
        match identifier {
            2 if value == 1 => {
                return Err(
                    at.error("server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.")
                );
            }
            8 => {
                return Err(at.error(
                    "the {\"allow_connect\"} SETTINGS parameter must only be configured through the named field",
                ));
            }
            _ => {}
        }
        if let Some((_, name, _)) = named.iter().find(|(id, _, set)| *id == identifier && *set) {
            return Err(at.error(format_args!(
                "the {{{name}}} HTTP/2 SETTINGS parameter(s) can not be configured through both named and custom \
                 parameters"
            )));
        }
        match settings.iter().find(|(id, _)| *id == identifier) {
            Some((_, other)) if *other != value => {
                return Err(at.error(format_args!(
                    "inconsistent HTTP/2 custom SETTINGS parameter(s) detected; identifiers = {{0x{identifier:x}}}"
                )));
            }
            Some(_) => {}
            None => settings.push((identifier, value)),
        }
    }
    Ok(settings)
}

impl Http2Keepalive {
    fn parse(at: At<'_>, proto: core::KeepaliveSettings) -> Result<Self, ConfigError> {
        let core::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = proto;
        let timeout = duration(at.field("timeout"), timeout)?;
        Ok(Self {
            interval: duration(at.field("interval"), interval)?.filter(|interval| !interval.is_zero()),
            timeout: at.required("timeout", timeout)?,
            interval_jitter: interval_jitter.map_or(Ok(15.0), |v| percent(at.field("interval_jitter"), &v))? / 100.0,
            connection_idle_interval: duration(at.field("connection_idle_interval"), connection_idle_interval)?,
        })
    }
}

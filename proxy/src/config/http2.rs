//! `envoy.config.core.v3.Http2ProtocolOptions`, of connection managers and clusters alike.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::http2_protocol_options::SettingsParameter;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{self as google, BoolValue, UInt32Value, UInt64Value};
use filters::config::{At, ConfigError, Entry};

filters::ledger! {
    /// What is not here.
    pub mod unsupported for "envoy.config.core.v3.Http2ProtocolOptions" {
        allow_metadata => Warn, "METADATA frames are ignored, as by any peer that does not know them";
        custom_settings_parameters => Warn, "SETTINGS parameters HTTP/2 does not define are not sent";
        use_oghttp2_codec => Warn, "chooses between Envoy's codecs; there is one here";
        max_metadata_size => Warn, "METADATA frames are ignored";
        disallow_obs_text => Refuse, "decides which header values are valid";
        enable_huffman_encoding => Warn, "the codec decides";
        max_outbound_frames => Warn, "frames are made when the peer takes them, so there is no queue of frames to bound";
    }
}

/// The rows of the support ledger about HTTP/2.
pub static LEDGER: &[&[&Entry]] = &[unsupported::ALL];

/// Options of HTTP/2, on whichever side.
#[derive(Debug, Clone, PartialEq)]
pub struct Http2Options {
    /// `hpack_table_size` (4096)
    pub hpack_table_size: u32,
    /// `max_concurrent_streams` (1024): the peer's on a downstream connection, below what the peer allows on an upstream.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size`, bytes (16 MiB)
    pub initial_stream_window_size: u32,
    /// `initial_connection_window_size`, bytes (24 MiB)
    pub initial_connection_window_size: u32,
    /// `allow_connect`: extended CONNECT (RFC 8441).
    pub allow_connect: bool,
    /// `max_outbound_control_frames` (1000)
    pub max_outbound_control_frames: u32,
    /// `max_consecutive_inbound_frames_with_empty_payload` (1)
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// `max_inbound_priority_frames_per_stream` (100)
    pub max_inbound_priority_frames_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent` (10)
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// `override_stream_error_on_invalid_http_message`: an invalid message ends its stream only, not the connection.
    pub stream_error_on_invalid_http_message: bool,
    /// `SETTINGS_MAX_FRAME_SIZE`, from `custom_settings_parameters`.
    pub max_frame_size: Option<u32>,
    /// `connection_keepalive`
    pub keepalive: Option<Keepalive>,
    /// `max_header_field_size_kb`, bytes (64 KiB)
    pub max_header_field_size: usize,
    /// `stream_reset_burst` (1000)
    pub stream_reset_burst: u64,
    /// `stream_reset_rate`, per second (33)
    pub stream_reset_rate: u64,
}

/// `connection_keepalive`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keepalive {
    /// `interval` between PINGs; `None` sends none at intervals.
    pub interval: Option<Duration>,
    /// `timeout`: the connection closes when nothing came for so long after a PING.
    pub timeout: Duration,
    /// `interval_jitter`: the share by which the interval may be longer, 0 to 1 (0.15).
    pub jitter: f64,
    /// `connection_idle_interval`: an upstream connection idle for so long is asked before its next request.
    pub idle_interval: Option<Duration>,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_error_on_invalid_http_message: false,
            max_frame_size: None,
            keepalive: None,
            max_header_field_size: 64 << 10,
            stream_reset_burst: 1_000,
            stream_reset_rate: 33,
        }
    }
}

impl Http2Options {
    /// Parses the message; `stream_error` is what holds where it does not say.
    ///
    /// # Errors
    /// When a number is outside Envoy's range, or two settings contradict each other.
    pub fn parse(
        at: At<'_>,
        proto: Option<core::Http2ProtocolOptions>,
        stream_error: bool,
    ) -> Result<Self, ConfigError> {
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
        } = proto.unwrap_or_default();
        at.unsupported(&unsupported::allow_metadata, &allow_metadata)?;
        at.unsupported(&unsupported::use_oghttp2_codec, &use_oghttp2_codec)?;
        at.unsupported(&unsupported::max_metadata_size, &max_metadata_size)?;
        at.unsupported(&unsupported::disallow_obs_text, &disallow_obs_text.filter(|value| value.value))?;
        at.unsupported(&unsupported::enable_huffman_encoding, &enable_huffman_encoding)?;
        at.unsupported(&unsupported::max_outbound_frames, &max_outbound_frames)?;
        let named = [
            (1, "hpack_table_size", hpack_table_size.is_some()),
            (3, "max_concurrent_streams", max_concurrent_streams.is_some()),
            (4, "initial_stream_window_size", initial_stream_window_size.is_some()),
        ];
        let defaults = Self::default();
        let number = |name: &str, value: Option<UInt32Value>, range: std::ops::RangeInclusive<u32>, default| match value
        {
            None => Ok(default),
            Some(UInt32Value { value }) if range.contains(&value) => Ok(value),
            Some(_) => {
                let (start, end) = range.into_inner();
                Err(at.field(name).error(format_args!("value must be inside range [{start}, {end}]")))
            }
        };
        const SIGNED: u32 = i32::MAX as u32;
        let any = 0..=u32::MAX;
        let positive = 1..=u32::MAX;
        number("max_outbound_frames", max_outbound_frames, positive.clone(), 10_000)?;
        let mut options = Self {
            hpack_table_size: number("hpack_table_size", hpack_table_size, any.clone(), defaults.hpack_table_size)?,
            max_concurrent_streams: number(
                "max_concurrent_streams",
                max_concurrent_streams,
                1..=SIGNED,
                defaults.max_concurrent_streams,
            )?,
            initial_stream_window_size: number(
                "initial_stream_window_size",
                initial_stream_window_size,
                65_535..=SIGNED,
                defaults.initial_stream_window_size,
            )?,
            initial_connection_window_size: number(
                "initial_connection_window_size",
                initial_connection_window_size,
                65_535..=SIGNED,
                defaults.initial_connection_window_size,
            )?,
            allow_connect,
            max_outbound_control_frames: number(
                "max_outbound_control_frames",
                max_outbound_control_frames,
                positive.clone(),
                defaults.max_outbound_control_frames,
            )?,
            max_consecutive_inbound_frames_with_empty_payload: number(
                "max_consecutive_inbound_frames_with_empty_payload",
                max_consecutive_inbound_frames_with_empty_payload,
                any.clone(),
                defaults.max_consecutive_inbound_frames_with_empty_payload,
            )?,
            max_inbound_priority_frames_per_stream: number(
                "max_inbound_priority_frames_per_stream",
                max_inbound_priority_frames_per_stream,
                any,
                defaults.max_inbound_priority_frames_per_stream,
            )?,
            max_inbound_window_update_frames_per_data_frame_sent: number(
                "max_inbound_window_update_frames_per_data_frame_sent",
                max_inbound_window_update_frames_per_data_frame_sent,
                positive,
                defaults.max_inbound_window_update_frames_per_data_frame_sent,
            )?,
            stream_error_on_invalid_http_message: override_stream_error_on_invalid_http_message
                .map_or(stream_error || stream_error_on_invalid_http_messaging, |BoolValue { value }| value),
            max_frame_size: None,
            keepalive: connection_keepalive
                .map(|proto| Keepalive::parse(at.field("connection_keepalive"), proto))
                .transpose()?,
            max_header_field_size: 1024
                * number("max_header_field_size_kb", max_header_field_size_kb, 64..=256, 64)? as usize,
            stream_reset_burst: stream_reset_burst.map_or(defaults.stream_reset_burst, |UInt64Value { value }| value),
            stream_reset_rate: stream_reset_rate.map_or(defaults.stream_reset_rate, |UInt64Value { value }| value),
        };
        options.custom_settings(at, custom_settings_parameters, &named)?;
        Ok(options)
    }

    /// Further settings: each once, none that has a field of its own that is set, none that is ours to decide.
    fn custom_settings(
        &mut self,
        at: At<'_>,
        protos: Vec<SettingsParameter>,
        named: &[(u16, &str, bool)],
    ) -> Result<(), ConfigError> {
        let list = at.field("custom_settings_parameters");
        let mut settings: Vec<(u16, u32)> = Vec::with_capacity(protos.len());
        for (index, proto) in protos.into_iter().enumerate() {
            let at = list.index(index);
            let SettingsParameter { identifier, value } = proto;
            let identifier = u16::try_from(at.required("identifier", identifier)?.value)
                .map_err(|_| at.field("identifier").error("value must be inside range [0, 65535]"))?;
            let value = at.required("value", value)?.value;
            if identifier == 2 && value == 1 {
                return Err(
                    at.error("server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.")
                );
            }
            if identifier == 8 {
                return Err(at.error(
                    "the \"allow_connect\" SETTINGS parameter must only be configured through the named field",
                ));
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
                        "inconsistent HTTP/2 custom SETTINGS parameter(s) detected; identifiers = {{0x{identifier:02x}}}"
                    )));
                }
                Some(_) => {}
                None => settings.push((identifier, value)),
            }
        }
        for (identifier, value) in settings {
            match identifier {
                1 => self.hpack_table_size = value,
                3 => self.max_concurrent_streams = value,
                4 => self.initial_stream_window_size = value.min(i32::MAX as u32),
                5 => self.max_frame_size = Some(value).filter(|size| (16_384..=0x00ff_ffff).contains(size)),
                _ => at.field("custom_settings_parameters").refuse_or_warn(&unsupported::custom_settings_parameters)?,
            }
        }
        Ok(())
    }
}

impl Keepalive {
    fn parse(at: At<'_>, proto: core::KeepaliveSettings) -> Result<Self, ConfigError> {
        let core::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = proto;
        Ok(Self {
            interval: milliseconds(at, "interval", interval)?,
            timeout: at.required("timeout", milliseconds(at, "timeout", timeout)?)?,
            jitter: match interval_jitter {
                None => 0.15,
                Some(Percent { value }) if (0.0..=100.0).contains(&value) => value / 100.0,
                Some(_) => return Err(at.field("interval_jitter").error("value must be inside range [0, 100]")),
            },
            idle_interval: milliseconds(at, "connection_idle_interval", connection_idle_interval)?,
        })
    }
}

/// A duration of at least a millisecond.
fn milliseconds(at: At<'_>, name: &str, proto: Option<google::Duration>) -> Result<Option<Duration>, ConfigError> {
    let Some(proto) = proto else { return Ok(None) };
    let duration = filters::config::duration::duration(&at.field(name), &proto)?;
    if duration < Duration::from_millis(1) {
        return Err(at.field(name).error("value must be greater than or equal to 1ms"));
    }
    Ok(Some(duration))
}

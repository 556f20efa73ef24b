//! Values that appear in many fields, with their defaults and ranges.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{BoolValue, Duration as DurationProto, UInt32Value};
use filters::config::{At, ConfigError, duration};

pub(super) fn header_value(at: &At<'_>, name: &str, value: String) -> Result<Bytes, ConfigError> {
    if value.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(at.field(name).error(r#"value does not match regex pattern "^[^\x00\n\r]*$""#));
    }
    Ok(value.into())
}

/// A wrapped bool, or what it means when unset.
pub(super) fn flag(value: Option<BoolValue>, default: bool) -> bool {
    value.map_or(default, |BoolValue { value }| value)
}

pub(super) fn percent(value: Option<Percent>) -> f64 {
    value.map_or(0.0, |Percent { value }| value)
}

/// Zero means off.
pub(super) fn on(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// A duration that may not be negative.
pub(super) fn duration(at: &At<'_>, name: &str, value: Option<DurationProto>) -> Result<Option<Duration>, ConfigError> {
    value.map(|proto| duration::duration(&at.field(name), &proto)).transpose()
}

/// A wrapped number within a range, or its default.
pub(super) fn ranged(
    at: &At<'_>,
    name: &str,
    value: Option<UInt32Value>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, ConfigError> {
    match value {
        None => Ok(default),
        Some(UInt32Value { value }) if range.contains(&value) => Ok(value),
        Some(_) => {
            Err(at.field(name).error(format_args!("value must be inside range [{}, {}]", range.start(), range.end())))
        }
    }
}

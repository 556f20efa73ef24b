//! Durations as protobuf has them, which may be negative, malformed, or longer than nanoseconds can be counted.

use std::time::Duration;

use super::{At, ConfigError};
use envoy_types::pb::google::protobuf::Duration as Proto;

/// As many whole seconds have an `i64` of nanoseconds, whatever comes behind the point: what Envoy takes is shorter.
const TOO_LONG: u64 = (i64::MAX / 1_000_000_000).unsigned_abs();

/// A duration that is not negative.
///
/// # Errors
/// Any other, in Envoy's words.
pub fn duration(at: &At<'_>, proto: &Proto) -> Result<Duration, ConfigError> {
    let Proto { seconds, nanos } = *proto;
    let expected = |what: &str| at.error(format_args!("Invalid duration: {what}: seconds: {seconds} nanos: {nanos}"));
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (u64::try_from(seconds), nanos) {
        (Ok(seconds), Some(nanos)) if seconds < TOO_LONG => Ok(Duration::new(seconds, nanos)),
        (Ok(_), Some(_)) => Err(expected("Duration out-of-range")),
        _ => Err(expected("Expected positive duration")),
    }
}

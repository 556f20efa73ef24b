//! Durations as protobuf has them, which may be negative or malformed.

use std::time::Duration;

use envoy_types::pb::google::protobuf::Duration as Proto;
use filters::config::{At, ConfigError};

/// A duration that is not negative.
pub(crate) fn duration(at: &At<'_>, proto: &Proto) -> Result<Duration, ConfigError> {
    checked(proto).ok_or_else(|| at.error("Invalid duration: Expected positive duration"))
}

/// The same; `None` for what is no such duration.
pub(crate) fn checked(Proto { seconds, nanos }: &Proto) -> Option<Duration> {
    let nanos = u32::try_from(*nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(*seconds).ok()?, nanos))
}

//! `outlier_detection`: when a host is taken out of rotation for what its answers look like.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use envoy_types::pb::google::protobuf::UInt32Value;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::{ResponsePredicate, Runtime};

use super::{duration, positive};

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.cluster.v3.OutlierDetection" {
    monitors => Warn, "hosts are judged by the detectors that are built in";
} }

/// Thresholds, volumes and times of outlier detection; every number may be overridden by the runtime key
/// `outlier_detection.<field>` when it is used, times in milliseconds (`outlier_detection.interval_ms`).
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierConfig {
    /// Time between two sweeps (10 s).
    pub interval: Duration,
    /// How long a host is ejected for the first time; the n-th time it is n times as long (30 s).
    pub base_ejection_time: Duration,
    /// The longest ejection (300 s, or the base time if that is longer).
    pub max_ejection_time: Duration,
    /// Up to this much is added to an ejection at random (0).
    pub max_ejection_time_jitter: Duration,
    /// Hosts that may be ejected at a time, in percent (10).
    pub max_ejection_percent: u64,
    /// One host may be ejected whatever the share (false).
    pub always_eject_one_host: bool,
    /// Answers 5xx in a row that eject (5); 0 never.
    pub consecutive_5xx: u64,
    /// Answers 502, 503 and 504 in a row that eject (5); 0 never.
    pub consecutive_gateway_failure: u64,
    /// Failures of our own making in a row that eject, if these are told apart (5); 0 never.
    pub consecutive_local_origin_failure: u64,
    /// Failures to connect and timeouts are counted on their own instead of as answers 503 and 504 (false).
    pub split_external_local_origin_errors: bool,
    /// Hosts with enough requests for success rates to be compared (5).
    pub success_rate_minimum_hosts: u64,
    /// Requests within an interval that are enough for that (100).
    pub success_rate_request_volume: u64,
    /// Standard deviations below the mean that eject, in thousandths (1900).
    pub success_rate_stdev_factor: u64,
    /// Failures in percent that eject (85).
    pub failure_percentage_threshold: u64,
    /// Hosts with enough requests for failures to be looked at (5).
    pub failure_percentage_minimum_hosts: u64,
    /// Requests within an interval that are enough for that (50).
    pub failure_percentage_request_volume: u64,
    /// Chance in percent that what a detector found is acted upon.
    pub enforcing: Enforcing,
    /// A health check that a host passes ends its ejection (true).
    pub successful_active_health_check_uneject_host: bool,
    /// An answer with `x-envoy-degraded` degrades its host (false).
    pub detect_degraded_hosts: bool,
    /// Answers that are errors, whatever their status; `None` takes those with a status of 5xx for errors
    /// (`HttpProtocolOptions.outlier_detection.error_matcher`).
    pub error_matcher: Option<Arc<ResponsePredicate>>,
}

/// `enforcing_*`, in percent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforcing {
    /// `enforcing_consecutive_5xx` (100).
    pub consecutive_5xx: u64,
    /// `enforcing_consecutive_gateway_failure` (0).
    pub consecutive_gateway_failure: u64,
    /// `enforcing_consecutive_local_origin_failure` (100).
    pub consecutive_local_origin_failure: u64,
    /// `enforcing_success_rate` (100).
    pub success_rate: u64,
    /// `enforcing_local_origin_success_rate` (100).
    pub local_origin_success_rate: u64,
    /// `enforcing_failure_percentage` (0).
    pub failure_percentage: u64,
    /// `enforcing_failure_percentage_local_origin` (0).
    pub failure_percentage_local_origin: u64,
}

/// A time that the runtime may override in milliseconds.
#[must_use]
pub fn time(runtime: &dyn Runtime, key: &str, configured: Duration) -> Duration {
    runtime.integer(key).map_or(configured, Duration::from_millis)
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: false,
            consecutive_5xx: 5,
            consecutive_gateway_failure: 5,
            consecutive_local_origin_failure: 5,
            split_external_local_origin_errors: false,
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1900,
            failure_percentage_threshold: 85,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
            enforcing: Enforcing::default(),
            successful_active_health_check_uneject_host: true,
            detect_degraded_hosts: false,
            error_matcher: None,
        }
    }
}

impl Default for Enforcing {
    fn default() -> Self {
        Self {
            consecutive_5xx: 100,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 100,
            success_rate: 100,
            local_origin_success_rate: 100,
            failure_percentage: 0,
            failure_percentage_local_origin: 0,
        }
    }
}

impl OutlierConfig {
    /// What `proto` sets, Envoy's defaults for the rest.
    ///
    /// # Errors
    /// On percentages above 100, times that are not above zero, and a longest ejection below the shortest.
    pub fn parse(at: At<'_>, proto: proto::OutlierDetection) -> Result<Self, ConfigError> {
        let proto::OutlierDetection {
            consecutive_5xx,
            interval,
            base_ejection_time,
            max_ejection_percent,
            enforcing_consecutive_5xx,
            enforcing_success_rate,
            success_rate_minimum_hosts,
            success_rate_request_volume,
            success_rate_stdev_factor,
            consecutive_gateway_failure,
            enforcing_consecutive_gateway_failure,
            split_external_local_origin_errors,
            consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure,
            enforcing_local_origin_success_rate,
            failure_percentage_threshold,
            enforcing_failure_percentage,
            enforcing_failure_percentage_local_origin,
            failure_percentage_minimum_hosts,
            failure_percentage_request_volume,
            max_ejection_time,
            max_ejection_time_jitter,
            successful_active_health_check_uneject_host,
            monitors,
            always_eject_one_host,
            detect_degraded_hosts,
        } = proto;
        at.unsupported(&unsupported::monitors, &monitors)?;
        let number = |value: Option<UInt32Value>, default: u64| value.map_or(default, |v| v.value.into());
        let percent = |name: &str, value: Option<UInt32Value>, default: u64| match number(value, default) {
            value @ 0..=100 => Ok(value),
            _ => Err(at.field(name).error("value must be less than or equal to 100")),
        };
        let (defaults, enforced) = (Self::default(), Enforcing::default());
        let base_ejection_time = positive(at.field("base_ejection_time"), base_ejection_time)?;
        let base_ejection_time = base_ejection_time.unwrap_or(defaults.base_ejection_time);
        let max_ejection_time = positive(at.field("max_ejection_time"), max_ejection_time)?;
        let max_ejection_time = max_ejection_time.unwrap_or_else(|| defaults.max_ejection_time.max(base_ejection_time));
        if max_ejection_time < base_ejection_time {
            return Err(at.error("outlier detector's max_ejection_time cannot be smaller than base_ejection_time"));
        }
        let enforcing = Enforcing {
            consecutive_5xx: percent("enforcing_consecutive_5xx", enforcing_consecutive_5xx, enforced.consecutive_5xx)?,
            consecutive_gateway_failure: percent(
                "enforcing_consecutive_gateway_failure",
                enforcing_consecutive_gateway_failure,
                enforced.consecutive_gateway_failure,
            )?,
            consecutive_local_origin_failure: percent(
                "enforcing_consecutive_local_origin_failure",
                enforcing_consecutive_local_origin_failure,
                enforced.consecutive_local_origin_failure,
            )?,
            success_rate: percent("enforcing_success_rate", enforcing_success_rate, enforced.success_rate)?,
            local_origin_success_rate: percent(
                "enforcing_local_origin_success_rate",
                enforcing_local_origin_success_rate,
                enforced.local_origin_success_rate,
            )?,
            failure_percentage: percent(
                "enforcing_failure_percentage",
                enforcing_failure_percentage,
                enforced.failure_percentage,
            )?,
            failure_percentage_local_origin: percent(
                "enforcing_failure_percentage_local_origin",
                enforcing_failure_percentage_local_origin,
                enforced.failure_percentage_local_origin,
            )?,
        };
        Ok(Self {
            interval: positive(at.field("interval"), interval)?.unwrap_or(defaults.interval),
            base_ejection_time,
            max_ejection_time,
            max_ejection_time_jitter: duration(at.field("max_ejection_time_jitter"), max_ejection_time_jitter)?
                .unwrap_or(defaults.max_ejection_time_jitter),
            max_ejection_percent: percent("max_ejection_percent", max_ejection_percent, defaults.max_ejection_percent)?,
            always_eject_one_host: always_eject_one_host.is_some_and(|v| v.value),
            consecutive_5xx: number(consecutive_5xx, defaults.consecutive_5xx),
            consecutive_gateway_failure: number(consecutive_gateway_failure, defaults.consecutive_gateway_failure),
            consecutive_local_origin_failure: number(
                consecutive_local_origin_failure,
                defaults.consecutive_local_origin_failure,
            ),
            split_external_local_origin_errors,
            success_rate_minimum_hosts: number(success_rate_minimum_hosts, defaults.success_rate_minimum_hosts),
            success_rate_request_volume: number(success_rate_request_volume, defaults.success_rate_request_volume),
            success_rate_stdev_factor: number(success_rate_stdev_factor, defaults.success_rate_stdev_factor),
            failure_percentage_threshold: percent(
                "failure_percentage_threshold",
                failure_percentage_threshold,
                defaults.failure_percentage_threshold,
            )?,
            failure_percentage_minimum_hosts: number(
                failure_percentage_minimum_hosts,
                defaults.failure_percentage_minimum_hosts,
            ),
            failure_percentage_request_volume: number(
                failure_percentage_request_volume,
                defaults.failure_percentage_request_volume,
            ),
            enforcing,
            successful_active_health_check_uneject_host: successful_active_health_check_uneject_host
                .is_none_or(|v| v.value),
            detect_degraded_hosts: detect_degraded_hosts.is_some_and(|v| v.value),
            // The protocol has the word about it.
            error_matcher: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use filters::config::Session;

    use super::*;

    fn parse(proto: proto::OutlierDetection) -> Result<OutlierConfig, ConfigError> {
        OutlierConfig::parse(Session::default().root(), proto)
    }

    fn seconds(seconds: i64) -> Option<envoy_types::pb::google::protobuf::Duration> {
        Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn an_empty_message_is_envoys_defaults() {
        assert_eq!(parse(proto::OutlierDetection::default()).unwrap(), OutlierConfig::default());
    }

    #[test]
    fn a_long_base_time_is_the_longest_unless_that_is_given() {
        let long = proto::OutlierDetection { base_ejection_time: seconds(900), ..Default::default() };
        assert_eq!(parse(long.clone()).unwrap().max_ejection_time, Duration::from_secs(900));
        let contradiction = proto::OutlierDetection { max_ejection_time: seconds(899), ..long };
        assert!(parse(contradiction).unwrap_err().to_string().contains("cannot be smaller than base_ejection_time"));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let too_much = Some(UInt32Value { value: 101 });
        for (name, proto) in [
            ("max_ejection_percent", proto::OutlierDetection { max_ejection_percent: too_much, ..Default::default() }),
            (
                "enforcing_success_rate",
                proto::OutlierDetection { enforcing_success_rate: too_much, ..Default::default() },
            ),
            ("interval", proto::OutlierDetection { interval: seconds(0), ..Default::default() }),
        ] {
            assert!(parse(proto).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}

//! `RetryPolicy`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as core, TypedExtensionConfig};
use envoy_types::pb::envoy::config::route::v3::RetryPolicy as Proto;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader as ResetHeaderProto, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
    RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use envoy_types::pb::google::protobuf::{Any, Duration as DurationProto};
use filters::call::RetryRules;
use filters::config::{At, ConfigError};
use filters::http::HeaderName;
use filters::matcher::{HeaderMatcher, RegexLimits};

use super::values::duration;
use crate::config::any::{self, Typed};
use crate::config::endpoint::metadata_from;
use crate::route::retry::{HostPredicate, ResetHeader, RetryOn, RetryPolicy};

/// An extension's configuration. Envoy knows extensions by the type of it alone.
fn typed(at: At<'_>, name: &str, config: Option<Any>) -> Result<Typed, ConfigError> {
    any::unwrap(&at, config.ok_or_else(|| at.unknown_extension(name, ""))?, any::struct_to_bytes)
}

fn host_predicate(proto: RetryHostPredicate, at: At<'_>) -> Result<HostPredicate, ConfigError> {
    let RetryHostPredicate { name, config_type } = proto;
    let config = config_type.map(|retry_host_predicate::ConfigType::TypedConfig(any)| any);
    let config = typed(at, &name, config)?;
    match config.type_name() {
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate" => Ok(HostPredicate::Canary),
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" => Ok(HostPredicate::Previous),
        "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig" => {
            let OmitHostMetadataConfig { metadata_match } = config.decode(&at)?;
            let wanted = metadata_match.map(metadata_from).and_then(|mut metadata| metadata.remove("envoy.lb"));
            Ok(HostPredicate::Metadata(match wanted {
                Some(serde_json::Value::Object(wanted)) => wanted,
                _ => serde_json::Map::new(),
            }))
        }
        other => Err(at.unknown_extension(&name, other)),
    }
}

/// After how many tries the priorities tried are left out.
fn previous_priorities(proto: RetryPriority, at: At<'_>) -> Result<u32, ConfigError> {
    let RetryPriority { name, config_type } = proto;
    let config = typed(at, &name, config_type.map(|retry_priority::ConfigType::TypedConfig(any)| any))?;
    if config.type_name() != "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig" {
        return Err(at.unknown_extension(&name, config.type_name()));
    }
    let PreviousPrioritiesConfig { update_frequency } = config.decode(&at)?;
    match u32::try_from(update_frequency) {
        Ok(1..) => Ok(update_frequency.unsigned_abs()),
        _ => Err(at.field("update_frequency").error("value must be greater than 0")),
    }
}

/// Waits before tries of the proxy's own requests, where configuration does not say.
const OWN_BASE_INTERVAL: i64 = 1;

/// A policy for requests of the proxy's own; `default_on` are the conditions of one that names none.
///
/// # Errors
/// As [`RetryPolicy::parse`].
pub(crate) fn of_calls(
    proto: core::RetryPolicy,
    default_on: &str,
    at: At<'_>,
    limits: RegexLimits,
) -> Result<RetryRules, ConfigError> {
    let core::RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = proto;
    let retry_back_off = match retry_back_off {
        Some(core::BackoffStrategy { base_interval, max_interval }) => RetryBackOff { base_interval, max_interval },
        None => RetryBackOff {
            base_interval: Some(DurationProto { seconds: OWN_BASE_INTERVAL, nanos: 0 }),
            max_interval: None,
        },
    };
    let priority = |core::retry_policy::RetryPriority { name, config_type }| RetryPriority {
        name,
        config_type: config_type.map(|core::retry_policy::retry_priority::ConfigType::TypedConfig(any)| {
            retry_priority::ConfigType::TypedConfig(any)
        }),
    };
    let predicate = |core::retry_policy::RetryHostPredicate { name, config_type }| RetryHostPredicate {
        name,
        config_type: config_type.map(|core::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)| {
            retry_host_predicate::ConfigType::TypedConfig(any)
        }),
    };
    let proto = Proto {
        retry_on: if retry_on.is_empty() { default_on.to_owned() } else { retry_on },
        num_retries,
        retry_priority: retry_priority.map(priority),
        retry_host_predicate: retry_host_predicate.into_iter().map(predicate).collect(),
        host_selection_retry_max_attempts,
        retry_back_off: Some(retry_back_off),
        ..Proto::default()
    };
    let mut policy = RetryPolicy::parse(proto, at, limits)?;
    // As in Envoy, where this says nothing else of a try, it may take as long as the longest wait before the next.
    policy.per_try_timeout = policy.max_interval.or_else(|| policy.base_interval.map(|base| base * 10));
    Ok(RetryRules(Arc::new(policy)))
}

impl RetryPolicy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Everything Envoy rejects, in its words.
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto {
            retry_on,
            num_retries,
            per_try_timeout,
            per_try_idle_timeout,
            retry_priority,
            retry_host_predicate,
            retry_options_predicates,
            host_selection_retry_max_attempts,
            retriable_status_codes,
            retry_back_off,
            rate_limited_retry_back_off,
            retriable_headers,
            retriable_request_headers,
            // It asks plugins that choose clusters to choose again, and none is built in.
            refresh_cluster_on_retry: _,
        } = proto;
        let previous_priorities =
            retry_priority.map(|priority| previous_priorities(priority, at.field("retry_priority"))).transpose()?;
        let predicates = at.field("retry_host_predicate");
        let host_predicates = retry_host_predicate
            .into_iter()
            .enumerate()
            .map(|(n, predicate)| host_predicate(predicate, predicates.index(n)))
            .collect::<Result<_, _>>()?;
        // Envoy has no such extension built in, and rejects what it does not know.
        let options = at.field("retry_options_predicates");
        if let Some(TypedExtensionConfig { name, typed_config }) = retry_options_predicates.into_iter().next() {
            let at = options.index(0);
            let config = typed(at, &name, typed_config)?;
            return Err(at.unknown_extension(&name, config.type_name()));
        }
        let (on, unknown) = RetryOn::parse(&retry_on);
        if !unknown.is_empty() {
            at.field("retry_on").warn(
                "envoy.config.route.v3.RetryPolicy.retry_on",
                format!(
                    "Unknown retry_on policy token(s) [{}] in retry_on config '{retry_on}'. These tokens will be silently \
                     ignored.",
                    unknown.join(", ")
                ),
            );
        }
        let (base_interval, max_interval) = match retry_back_off {
            None => (None, None),
            Some(back_off) => back_off_intervals(back_off, at.field("retry_back_off"))?,
        };
        let (reset_headers, reset_max_interval) = match rate_limited_retry_back_off {
            None => (Box::default(), None),
            Some(back_off) => reset_headers(back_off, at.field("rate_limited_retry_back_off"))?,
        };
        let matchers = |protos: Vec<_>, name: &'static str| {
            let all = at.field(name);
            let parse = |(n, matcher)| HeaderMatcher::parse(matcher, all.index(n), limits);
            protos.into_iter().enumerate().map(parse).collect::<Result<Box<[_]>, _>>()
        };
        Ok(Self {
            on,
            num_retries: num_retries.map_or(1, |n| n.value),
            per_try_timeout: duration(per_try_timeout, at, "per_try_timeout")?.filter(|limit| !limit.is_zero()),
            per_try_idle_timeout: duration(per_try_idle_timeout, at, "per_try_idle_timeout")?
                .filter(|limit| !limit.is_zero()),
            host_predicates,
            previous_priorities,
            host_selection_retry_max_attempts: match host_selection_retry_max_attempts {
                0 => 1,
                n => u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX }),
            },
            retriable_status_codes: retriable_status_codes
                .into_iter()
                .filter_map(|status| u16::try_from(status).ok())
                .collect(),
            retriable_headers: matchers(retriable_headers, "retriable_headers")?,
            retriable_request_headers: matchers(retriable_request_headers, "retriable_request_headers")?,
            base_interval,
            max_interval,
            reset_headers,
            reset_max_interval: reset_max_interval.unwrap_or(Duration::from_secs(300)),
        })
    }
}

/// Base and cap, each at least one millisecond.
fn back_off_intervals(proto: RetryBackOff, at: At<'_>) -> Result<(Option<Duration>, Option<Duration>), ConfigError> {
    let RetryBackOff { base_interval, max_interval } = proto;
    let base = at.required("base_interval", duration(base_interval, at, "base_interval")?)?;
    let max = duration(max_interval, at, "max_interval")?;
    for (name, interval) in [("base_interval", Some(base)), ("max_interval", max)] {
        if interval.is_some_and(|interval| interval.is_zero()) {
            return Err(at.field(name).error("value must be greater than 0s"));
        }
    }
    let whole = |interval: Duration| interval.max(Duration::from_millis(1));
    if max.is_some_and(|max| whole(max) < whole(base)) {
        return Err(at.error("retry_policy.max_interval must greater than or equal to the base_interval"));
    }
    Ok((Some(whole(base)), max.map(whole)))
}

type ResetHeaders = (Box<[ResetHeader]>, Option<Duration>);

fn reset_headers(proto: RateLimitedRetryBackOff, at: At<'_>) -> Result<ResetHeaders, ConfigError> {
    let RateLimitedRetryBackOff { reset_headers, max_interval } = proto;
    let all = at.field("reset_headers");
    if reset_headers.is_empty() {
        return Err(all.error("value must contain at least 1 item(s)"));
    }
    let parse = |(n, ResetHeaderProto { name, format }): (usize, _)| {
        let at = all.index(n);
        let name = HeaderName::parse(name.as_bytes())
            .ok_or_else(|| at.field("name").error(format_args!("'{name}' is not a header name")))?;
        let unix_timestamp = match ResetHeaderFormat::try_from(format) {
            Ok(format) => format == ResetHeaderFormat::UnixTimestamp,
            Err(_) => return Err(at.field("format").error("value must be one of the defined enum values")),
        };
        Ok(ResetHeader { name, unix_timestamp })
    };
    let headers = reset_headers.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok((headers, duration(max_interval, at, "max_interval")?))
}

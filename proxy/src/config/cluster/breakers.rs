//! `circuit_breakers`.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use filters::config::{At, ConfigError};

use super::percent;

/// The limits of a cluster over all workers, per priority.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CircuitBreakers {
    /// For `DEFAULT` requests.
    pub default: Thresholds,
    /// For `HIGH` requests.
    pub high: Thresholds,
    /// Connections to one host, for `DEFAULT` and for `HIGH` requests (`per_host_thresholds`); `None` when unlimited.
    /// Whatever opened them, all connections to the host count.
    pub per_host_max_connections: [Option<u32>; 2],
}

/// The limits of one priority. `u32::MAX` means unlimited.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Upstream connections (1024).
    pub max_connections: u32,
    /// Requests waiting for a connection (1024).
    pub max_pending_requests: u32,
    /// Requests in flight (1024).
    pub max_requests: u32,
    /// Retries in flight (3), unless there is a budget.
    pub max_retries: u32,
    /// Connection pools (unlimited).
    pub max_connection_pools: u32,
    /// Retries as a share of what is in flight, instead of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Report what is left.
    pub track_remaining: bool,
}

/// How many retries may be in flight, as a share of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    /// Percent of requests (20).
    pub budget_percent: f64,
    /// Allowed whatever the share (3).
    pub min_retry_concurrency: u32,
    /// The share is of the requests that began within this time; zero for those in flight and waiting now (0).
    pub budget_interval: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: u32::MAX,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { budget_percent: 20.0, min_retry_concurrency: 3, budget_interval: Duration::ZERO }
    }
}

impl CircuitBreakers {
    /// The limits `proto` sets, Envoy's defaults for the rest.
    ///
    /// # Errors
    /// On unsupported per-host limits.
    pub fn parse(at: At<'_>, proto: cluster::CircuitBreakers) -> Result<Self, ConfigError> {
        let cluster::CircuitBreakers { thresholds, per_host_thresholds } = proto;
        let mut breakers = Self::default();
        let (mut default_seen, mut high_seen) = (false, false);
        for (index, proto) in thresholds.into_iter().enumerate() {
            let list = at.field("thresholds");
            let at = list.index(index);
            // The first of a priority counts.
            let (slot, seen) = match proto.priority {
                0 => (&mut breakers.default, &mut default_seen),
                1 => (&mut breakers.high, &mut high_seen),
                _ => return Err(at.field("priority").error("value must be one of the defined enum values")),
            };
            let parsed = Thresholds::parse(at, proto)?;
            if !std::mem::replace(seen, true) {
                *slot = parsed;
            }
        }
        let mut seen = [false; 2];
        for (index, proto) in per_host_thresholds.into_iter().enumerate() {
            let list = at.field("per_host_thresholds");
            let (priority, limit) = per_host(list.index(index), proto)?;
            if !std::mem::replace(&mut seen[priority], true) {
                breakers.per_host_max_connections[priority] = limit;
            }
        }
        Ok(breakers)
    }
}

impl Thresholds {
    fn parse(at: At<'_>, proto: cluster::circuit_breakers::Thresholds) -> Result<Self, ConfigError> {
        let cluster::circuit_breakers::Thresholds {
            priority: _,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            retry_budget,
            track_remaining,
            max_connection_pools,
        } = proto;
        let defaults = Self::default();
        Ok(Self {
            max_connections: max_connections.map_or(defaults.max_connections, |v| v.value),
            max_pending_requests: max_pending_requests.map_or(defaults.max_pending_requests, |v| v.value),
            max_requests: max_requests.map_or(defaults.max_requests, |v| v.value),
            max_retries: max_retries.map_or(defaults.max_retries, |v| v.value),
            max_connection_pools: max_connection_pools.map_or(defaults.max_connection_pools, |v| v.value),
            retry_budget: retry_budget.map(|proto| retry_budget_from(at.field("retry_budget"), proto)).transpose()?,
            track_remaining,
        })
    }
}

fn retry_budget_from(
    at: At<'_>,
    proto: cluster::circuit_breakers::thresholds::RetryBudget,
) -> Result<RetryBudget, ConfigError> {
    let cluster::circuit_breakers::thresholds::RetryBudget { budget_percent, budget_interval, min_retry_concurrency } =
        proto;
    let defaults = RetryBudget::default();
    Ok(RetryBudget {
        budget_percent: budget_percent
            .map_or(Ok(defaults.budget_percent), |v| percent(at.field("budget_percent"), &v))?,
        min_retry_concurrency: min_retry_concurrency.map_or(defaults.min_retry_concurrency, |v| v.value),
        budget_interval: super::duration(at.field("budget_interval"), budget_interval)?.unwrap_or_default(),
    })
}

/// A priority, 0 or 1, and how many connections a host may have for it.
fn per_host(at: At<'_>, proto: cluster::circuit_breakers::Thresholds) -> Result<(usize, Option<u32>), ConfigError> {
    let cluster::circuit_breakers::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = proto;
    // Nothing is told of hosts; Envoy does not mind the wish.
    let _: bool = track_remaining;
    let others = [&max_pending_requests, &max_requests, &max_retries, &max_connection_pools];
    if others.iter().any(|limit| limit.is_some()) || retry_budget.is_some() {
        return Err(at.error("Unsupported field in per_host_thresholds"));
    }
    let priority = match priority {
        0 => 0,
        1 => 1,
        _ => return Err(at.field("priority").error("value must be one of the defined enum values")),
    };
    Ok((priority, max_connections.map(|v| v.value)))
}

//! Circuit breakers: how much a cluster may have in flight, per priority, over all workers.
//!
//! Totals are relaxed atomics shared by the workers, so that a limit means what it says whatever the number of
//! workers. A total that nothing reads (its limit is "unlimited", no gauge and no retry budget needs it) is not kept:
//! it costs nothing. The runtime may set other limits while the cluster is in use ([`Breakers::tune`]). What is in flight is held by a [`Permit`], which gives it back when dropped: a total cannot leak.

mod budget;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use filters::matcher::Runtime as _;
use stats::GaugeSource;

use self::budget::Budget;
use crate::config::cluster::{CircuitBreakers, RetryBudget, Thresholds};
use crate::runtime::Snapshot;

/// Routing priority of a request (`envoy.config.core.v3.RoutingPriority`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

/// What a breaker limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Upstream connections.
    Connections,
    /// Requests waiting for a connection.
    PendingRequests,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
    /// Connection pools.
    ConnectionPools,
}

/// A limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{resource} limit of {limit} reached")]
pub struct Overflow {
    /// Which limit.
    pub resource: Resource,
    /// What it was at that moment.
    pub limit: u32,
}

/// The breakers of one cluster version, shared by all workers.
#[derive(Debug)]
pub struct Breakers {
    default: Limits,
    high: Limits,
}

/// A worker's handle on a cluster's breakers. Permits count on it locally, so that taking one touches no shared
/// reference count.
#[derive(Debug, Clone)]
#[expect(clippy::redundant_allocation, reason = "the outer count is the worker's own, which is what makes it cheap")]
pub struct BreakerHandle(Rc<Arc<Breakers>>);

/// Something in flight; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit {
    counted: Option<(BreakerHandle, Priority)>,
    resource: Resource,
}

/// The state of one priority's breakers, as `circuit_breakers.<default|high>.*` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerView {
    /// `*_open`: the limit is reached.
    pub open: bool,
    /// `remaining_*`; `None` without `track_remaining`.
    pub remaining: Option<u32>,
    /// The limit now (a retry budget moves it).
    pub limit: u32,
}

impl BreakerHandle {
    /// A handle for this thread.
    #[must_use]
    pub fn new(breakers: Arc<Breakers>) -> Self {
        Self(Rc::new(breakers))
    }

    /// Takes one of `resource`, or says that the limit is reached.
    ///
    /// # Errors
    /// [`Overflow`] when as many are in flight as the limit allows.
    pub fn try_acquire(&self, priority: Priority, resource: Resource) -> Result<Permit, Overflow> {
        let limits = self.0.limits(priority);
        let Some(total) = limits.total(resource) else {
            return Ok(Permit { counted: None, resource });
        };
        let limit = limits.limit(resource);
        // Counted first and taken back when over: two workers cannot both take the last one.
        if total.take() >= limit {
            total.give_back();
            return Err(Overflow { resource, limit });
        }
        total.note_use();
        if resource == Resource::Requests {
            limits.budget.begin();
        }
        Ok(Permit { counted: Some((self.clone(), priority)), resource })
    }

    /// Takes one of `resource` whatever the limit: a pool without any connection may always open one.
    pub fn acquire(&self, priority: Priority, resource: Resource) -> Permit {
        let counted = self.0.limits(priority).total(resource).map(|total| {
            total.take();
            total.note_use();
            (self.clone(), priority)
        });
        Permit { counted, resource }
    }

    /// The shared breakers.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.0
    }
}

impl Permit {
    /// What it is one of.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.resource
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((handle, priority)) = &self.counted
            && let Some(total) = handle.0.limits(*priority).total(self.resource)
        {
            total.give_back();
        }
    }
}

/// `circuit_breakers.<default|high>.*` below the cluster's prefix.
impl GaugeSource for Breakers {
    fn gauges(&self, show: &mut dyn FnMut(&str, u64, bool)) {
        for priority in [Priority::Default, Priority::High] {
            let segment = priority.stat_segment();
            for resource in Resource::ALL {
                let BreakerView { open, remaining, limit } = self.view(priority, resource);
                let used = self.limits(priority).total(resource).is_some_and(|total| total.used.load(Relaxed));
                // A limit of zero is not open, for Envoy, until something was there.
                show(&format!("circuit_breakers.{segment}.{}", resource.open_stat()), (open && used).into(), used);
                if let Some(remaining) = remaining {
                    // Of pools there may be as many as a `uint64` counts.
                    let unlimited = resource == Resource::ConnectionPools && limit == u32::MAX;
                    let remaining = if unlimited { u64::MAX } else { remaining.into() };
                    show(&format!("circuit_breakers.{segment}.{}", resource.remaining_stat()), remaining, true);
                }
            }
        }
    }
}

impl Breakers {
    /// The breakers of a cluster, nothing in flight.
    #[must_use]
    pub fn new(config: &CircuitBreakers) -> Self {
        Self { default: Limits::new(&config.default), high: Limits::new(&config.high) }
    }

    /// Limits are as the runtime says from now on, by its keys `circuit_breakers.<cluster>.<default|high>.*`; where it says
    /// nothing, as the cluster is configured.
    pub fn tune(&self, cluster: &str, runtime: &Snapshot) {
        for priority in [Priority::Default, Priority::High] {
            let prefix = format!("{RUNTIME_PREFIX}{cluster}.{}.", priority.stat_segment());
            self.limits(priority).tune(&prefix, runtime);
        }
    }

    /// The state of one breaker, for gauges and `/clusters`.
    #[must_use]
    pub fn view(&self, priority: Priority, resource: Resource) -> BreakerView {
        let limits = self.limits(priority);
        let (limit, used) = (limits.limit(resource), limits.used(resource));
        BreakerView {
            open: used >= limit,
            remaining: limits.track_remaining.then(|| limit.saturating_sub(used)),
            limit,
        }
    }

    /// How many of `resource` are in flight; 0 for a total that is not kept.
    #[must_use]
    pub fn used(&self, priority: Priority, resource: Resource) -> u32 {
        self.limits(priority).used(resource)
    }

    const fn limits(&self, priority: Priority) -> &Limits {
        match priority {
            Priority::Default => &self.default,
            Priority::High => &self.high,
        }
    }
}

/// What all keys begin with that the runtime has for breakers.
pub const RUNTIME_PREFIX: &str = "circuit_breakers.";

/// One priority's limits and totals.
#[derive(Debug)]
struct Limits {
    limits: [AtomicU32; Resource::ALL.len()],
    totals: [Total; Resource::ALL.len()],
    budget: Budget,
    track_remaining: bool,
    /// As configured.
    configured: [u32; Resource::ALL.len()],
    configured_budget: Option<RetryBudget>,
}

/// A shared total on a cache line of its own: each is written by every worker.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Total {
    in_flight: AtomicU32,
    /// Somebody reads it. What is begun before that is not counted.
    kept: AtomicBool,
    /// Anything ever was: tells gauges that were used from those that were not.
    used: AtomicBool,
}

impl Total {
    /// Adds one; how many there were before.
    fn take(&self) -> u32 {
        self.in_flight.fetch_add(1, Relaxed)
    }

    /// What was taken is not given back at once.
    fn note_use(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    fn give_back(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Limits {
    fn new(config: &Thresholds) -> Self {
        let mut configured = [u32::MAX; Resource::ALL.len()];
        configured[Resource::Connections as usize] = config.max_connections;
        configured[Resource::PendingRequests as usize] = config.max_pending_requests;
        configured[Resource::Requests as usize] = config.max_requests;
        configured[Resource::Retries as usize] = config.max_retries;
        configured[Resource::ConnectionPools as usize] = config.max_connection_pools;
        let limits = Self {
            limits: configured.map(AtomicU32::new),
            totals: Default::default(),
            budget: Budget::new(config.retry_budget.as_ref()),
            track_remaining: config.track_remaining,
            configured,
            configured_budget: config.retry_budget.clone(),
        };
        limits.keep();
        limits
    }

    fn tune(&self, prefix: &str, runtime: &Snapshot) {
        let number = |key: &str| {
            let number = runtime.integer(&format!("{prefix}{key}"))?;
            Some(u32::try_from(number).unwrap_or(u32::MAX))
        };
        for resource in Resource::ALL {
            let index = resource as usize;
            self.limits[index].store(number(resource.limit_field()).unwrap_or(self.configured[index]), Relaxed);
        }
        let percent = runtime.number(&format!("{prefix}retry_budget.budget_percent"));
        let least = number("retry_budget.min_retry_concurrency");
        let configured = self.configured_budget.as_ref();
        let has_budget = configured.is_some() || percent.is_some() || least.is_some();
        self.budget.set(has_budget.then(|| {
            let defaults = RetryBudget::default();
            let configured = configured.unwrap_or(&defaults);
            (percent.unwrap_or(configured.budget_percent), least.unwrap_or(configured.min_retry_concurrency))
        }));
        self.keep();
    }

    /// Begins to keep the totals that are read.
    fn keep(&self) {
        let budgeted = self.budget.is_set();
        for (resource, total) in Resource::ALL.into_iter().zip(&self.totals) {
            let of_budget = match resource {
                Resource::Requests | Resource::PendingRequests | Resource::Retries => budgeted,
                Resource::Connections | Resource::ConnectionPools => false,
            };
            if of_budget || self.track_remaining || self.limits[resource as usize].load(Relaxed) != u32::MAX {
                total.kept.store(true, Relaxed);
            }
        }
    }

    /// The total of a resource, if it is kept.
    fn total(&self, resource: Resource) -> Option<&Total> {
        Some(&self.totals[resource as usize]).filter(|total| total.kept.load(Relaxed))
    }

    fn used(&self, resource: Resource) -> u32 {
        self.total(resource).map_or(0, |total| total.in_flight.load(Relaxed))
    }

    fn limit(&self, resource: Resource) -> u32 {
        let configured = || self.limits[resource as usize].load(Relaxed);
        if resource != Resource::Retries {
            return configured();
        }
        let active = || u64::from(self.used(Resource::Requests)) + u64::from(self.used(Resource::PendingRequests));
        self.budget.limit(active).unwrap_or_else(configured)
    }
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Connections, Self::PendingRequests, Self::Requests, Self::Retries, Self::ConnectionPools];

    /// The cluster counter of its overflows.
    #[must_use]
    pub const fn overflow_stat(self) -> &'static str {
        match self {
            Self::Connections => "upstream_cx_overflow",
            Self::PendingRequests => "upstream_rq_pending_overflow",
            Self::Requests => "upstream_rq_active_overflow",
            Self::Retries => "upstream_rq_retry_overflow",
            Self::ConnectionPools => "upstream_cx_pool_overflow",
        }
    }

    /// The field of its limit, which is also its key in the runtime.
    #[must_use]
    pub const fn limit_field(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::PendingRequests => "max_pending_requests",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
            Self::ConnectionPools => "max_connection_pools",
        }
    }

    /// The gauge under `circuit_breakers.<priority>.` that is 1 while the limit is reached.
    #[must_use]
    pub const fn open_stat(self) -> &'static str {
        match self {
            Self::Connections => "cx_open",
            Self::PendingRequests => "rq_pending_open",
            Self::Requests => "rq_open",
            Self::Retries => "rq_retry_open",
            Self::ConnectionPools => "cx_pool_open",
        }
    }

    /// The gauge under `circuit_breakers.<priority>.` that counts what is left.
    #[must_use]
    pub const fn remaining_stat(self) -> &'static str {
        match self {
            Self::Connections => "remaining_cx",
            Self::PendingRequests => "remaining_pending",
            Self::Requests => "remaining_rq",
            Self::Retries => "remaining_retries",
            Self::ConnectionPools => "remaining_cx_pools",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.limit_field())
    }
}

impl Priority {
    /// The segment of its statistics, `circuit_breakers.<default|high>.`.
    #[must_use]
    pub const fn stat_segment(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::High => "high",
        }
    }
}

#[cfg(test)]
mod tests;

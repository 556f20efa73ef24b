//! Whether a try that came to nothing is followed by another, and when.
//!
//! A [`RetryState`] belongs to one request. It merges the policy that applies (the cluster's, the route's or the virtual
//! host's) with what trusted request headers ask for, and is told the outcome of each try. It knows no socket and no
//! clock: time, random numbers and limits come in as [`Surroundings`], and what comes out is a [`Ruling`] for its owner to
//! act on and to count.
//!
//! Envoy's order of questions is kept, because statistics tell it: is the outcome one that is retried; are tries left; do
//! the breakers allow a retry; does the runtime.

pub(crate) mod back_off;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use filters::http::{HeaderName, Known, RequestHead, ResponseHead};
use filters::matcher::Runtime;
use smallvec::SmallVec;

use self::back_off::{BackOff, from_lower_bound, reset_interval};
use super::breaker::{BreakerHandle, Permit, Priority, Resource};
use super::failure::FailureKind;
use super::host::Host;
use super::lb::priority::{Levels, PriorityLoads};
use crate::config::cluster::LbConfig;
use crate::route::retry::{RetryOn, RetryPolicy};

/// The retries of one request.
#[derive(Debug)]
pub struct RetryState {
    policy: Option<Arc<RetryPolicy>>,
    on: RetryOn,
    left: u32,
    /// Whose limits on retries count.
    priority: Priority,
    /// Of `x-envoy-retriable-status-codes`.
    status_codes: SmallVec<[u64; 4]>,
    /// Of `x-envoy-retriable-header-names`.
    header_names: Vec<HeaderName>,
    back_off: BackOff,
    /// The retry that was allowed last; it counts until the next outcome is known.
    under_way: Option<Permit>,
    /// A retry was allowed, and no try has come to a good end since.
    retried: bool,
    /// The hosts tried, by the numbers of their states.
    tried: SmallVec<[u64; 4]>,
    priorities: RefCell<TriedPriorities>,
}

/// What a decision depends on beside the outcome.
pub struct Surroundings<'a> {
    /// The limits on retries.
    pub breakers: &'a BreakerHandle,
    /// The runtime layers.
    pub runtime: &'a dyn Runtime,
    /// The time of day.
    pub now: SystemTime,
    /// A random number.
    pub random: u64,
}

/// What follows from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// Whether there is another try.
    pub decision: Decision,
    /// There were retries, and this outcome needs none (`upstream_rq_retry_success`).
    pub retry_succeeded: bool,
}

/// Whether there is another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is, after this long.
    Retry(Wait),
    /// There is not: the outcome is not one to be retried, or the runtime forbids it.
    No,
    /// There should be, but there were as many as there may be (`URX`).
    LimitExceeded,
    /// There should be, but as many retries are in flight as the cluster allows (`UO`).
    Overflow,
}

/// How long to wait before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// By the exponential back-off.
    BackOff(Duration),
    /// As the response asked.
    Asked(Duration),
}

impl Decision {
    /// How long to wait for another try, if there is one.
    #[must_use]
    pub const fn wait(self) -> Option<Wait> {
        match self {
            Self::Retry(wait) => Some(wait),
            Self::No | Self::LimitExceeded | Self::Overflow => None,
        }
    }
}

impl Wait {
    /// The time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::BackOff(time) | Self::Asked(time) => time,
        }
    }
}

impl RetryState {
    /// The retries of a request as it goes upstream; `None` when neither policy nor headers ask for any.
    #[must_use]
    pub fn new(
        policy: Option<&Arc<RetryPolicy>>,
        priority: Priority,
        request: &RequestHead,
        runtime: &dyn Runtime,
    ) -> Option<Box<Self>> {
        let text = |name| request.headers.value(&name).map(|value| String::from_utf8_lossy(value));
        let (asked, asked_grpc) = (text(Known::XEnvoyRetryOn), text(Known::XEnvoyRetryGrpcOn));
        let configured = policy.map(|policy| policy.on).unwrap_or_default();
        if configured.is_empty() && asked.is_none() && asked_grpc.is_none() {
            return None;
        }
        let mut on = configured
            | asked.map(|list| RetryOn::parse(&list).0.without_grpc()).unwrap_or_default()
            | asked_grpc.map(|list| RetryOn::parse(&list).0.only_grpc()).unwrap_or_default();
        let only_for = policy.map_or(&[][..], |policy| &policy.retriable_request_headers);
        if !only_for.is_empty() && !only_for.iter().any(|matcher| matcher.matches(request)) {
            on = RetryOn::default();
        }
        let mut left = policy.map_or(1, |policy| policy.num_retries);
        if !on.is_empty()
            && let Some(asked) = text(Known::XEnvoyMaxRetries).and_then(|value| number(&value))
        {
            left = u32::try_from(asked).unwrap_or(u32::MAX);
        }
        let codes = text(Known::XEnvoyRetriableStatusCodes);
        let names = text(Known::XEnvoyRetriableHeaderNames);
        Some(Box::new(Self {
            on,
            left,
            priority,
            status_codes: codes.iter().flat_map(|codes| codes.split(',').filter_map(number)).collect(),
            header_names: names
                .iter()
                .flat_map(|names| names.split(',').filter_map(|name| HeaderName::parse(name.trim().as_bytes())))
                .collect(),
            back_off: BackOff::new(policy.map(|policy| &**policy), runtime),
            under_way: None,
            retried: false,
            tried: SmallVec::new(),
            priorities: RefCell::default(),
            policy: policy.cloned(),
        }))
    }

    /// Whether any outcome is retried: what the request's body is kept for.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        !self.on.is_empty()
    }

    /// A try was answered with this head.
    pub fn after_response(&mut self, response: &ResponseHead, around: &Surroundings<'_>) -> Ruling {
        let retried = self.would_retry_response(response);
        let policy = self.policy.as_ref().filter(|_| retried);
        let asked = policy.and_then(|policy| reset_interval(policy, response, around.now));
        self.rule(retried, asked, around)
    }

    /// A try ended without a head; whether its request had begun to go out.
    pub fn after_failure(&mut self, kind: FailureKind, request_begun: bool, around: &Surroundings<'_>) -> Ruling {
        self.rule(self.would_retry_failure(kind, request_begun), None, around)
    }

    /// A try takes too long and goes on beside the next (`hedge_on_per_try_timeout`): no condition has to allow that.
    pub fn beside_slow_try(&mut self, around: &Surroundings<'_>) -> Ruling {
        self.rule(true, None, around)
    }

    /// Whether a response with this head is one to be retried.
    #[must_use]
    pub fn would_retry_response(&self, response: &ResponseHead) -> bool {
        if response.headers.contains(&Known::XEnvoyRateLimited) {
            return self.on.contains(RetryOn::ENVOY_RATELIMITED);
        }
        let status = response.status;
        let policy = self.policy.as_deref();
        let listed = || {
            policy.is_some_and(|policy| policy.retriable_status_codes.contains(&status))
                || self.status_codes.contains(&u64::from(status))
        };
        let marked = || {
            policy.is_some_and(|policy| policy.retriable_headers.iter().any(|m| m.matches_response(response)))
                || self.header_names.iter().any(|name| response.headers.contains(name))
        };
        self.on.contains(RetryOn::FIVE_XX) && (500..600).contains(&status)
            || self.on.contains(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status)
            || self.on.contains(RetryOn::RETRIABLE_4XX) && status == 409
            || self.on.contains(RetryOn::RETRIABLE_STATUS_CODES) && listed()
            || self.on.contains(RetryOn::RETRIABLE_HEADERS) && marked()
            || self.on.has_grpc() && grpc_status(response).is_some_and(|status| self.on.contains(status))
    }

    fn would_retry_failure(&self, kind: FailureKind, request_begun: bool) -> bool {
        let on = |condition| self.on.contains(condition);
        match kind {
            FailureKind::Overflow => false,
            FailureKind::ConnectFailure | FailureKind::ConnectTimeout if on(RetryOn::CONNECT_FAILURE) => true,
            FailureKind::RemoteRefused if on(RetryOn::REFUSED_STREAM) => true,
            _ => {
                on(RetryOn::RESET_BEFORE_REQUEST) && !request_begun
                    || on(RetryOn::RESET)
                    // Without a response there will be a 503.
                    || on(RetryOn::FIVE_XX)
                    || on(RetryOn::GATEWAY_ERROR)
            }
        }
    }

    fn rule(&mut self, retried: bool, asked: Option<Duration>, around: &Surroundings<'_>) -> Ruling {
        self.under_way = None;
        let retry_succeeded = !retried && std::mem::take(&mut self.retried);
        let decision = if retried { self.allow(asked, around) } else { Decision::No };
        Ruling { decision, retry_succeeded }
    }

    /// Takes one of the retries that are left, if the cluster and the runtime allow one.
    fn allow(&mut self, asked: Option<Duration>, around: &Surroundings<'_>) -> Decision {
        let Some(left) = self.left.checked_sub(1) else { return Decision::LimitExceeded };
        self.left = left;
        let Ok(permit) = around.breakers.try_acquire(self.priority, Resource::Retries) else {
            return Decision::Overflow;
        };
        let percent = around.runtime.integer("upstream.use_retry").unwrap_or(100);
        if around.random % 100 >= percent {
            return Decision::No;
        }
        self.under_way = Some(permit);
        self.retried = true;
        Decision::Retry(match asked {
            Some(interval) => Wait::Asked(from_lower_bound(interval, around.random)),
            None => Wait::BackOff(self.back_off.next(around.random)),
        })
    }

    /// A try went to this host, or meant to.
    pub fn attempted(&mut self, host: &Host) {
        self.tried.push(host.id());
        self.priorities.get_mut().attempted.push((host.id(), host.priority()));
    }

    /// Whether a retry should go to another host than this.
    #[must_use]
    pub fn avoids(&self, host: &Host) -> bool {
        let predicates = self.policy.as_ref().map_or(&[][..], |policy| &policy.host_predicates);
        predicates.iter().any(|predicate| predicate.rejects(host, &self.tried))
    }

    /// How many hosts are picked at most, to find one that is not avoided.
    #[must_use]
    pub fn picks(&self) -> u32 {
        self.policy.as_ref().map_or(1, |policy| policy.host_selection_retry_max_attempts).saturating_add(1)
    }

    /// How a retry's load spreads over priorities, if otherwise than usual (`previous_priorities`).
    #[must_use]
    pub fn priority_loads(&self, levels: &dyn Levels, config: &LbConfig) -> Option<PriorityLoads> {
        let every = self.policy.as_ref()?.previous_priorities?;
        self.priorities.borrow_mut().loads(every as usize, levels, config)
    }
}

/// Which priorities a retry leaves out.
#[derive(Debug, Default)]
struct TriedPriorities {
    /// Every host tried and its priority, since all priorities were left out last.
    attempted: SmallVec<[(u64, u32); 4]>,
    excluded: Vec<bool>,
    loads: Option<PriorityLoads>,
}

impl TriedPriorities {
    /// The loads without the priorities tried, as of the last multiple of `every` tries.
    fn loads(&mut self, every: usize, levels: &dyn Levels, config: &LbConfig) -> Option<PriorityLoads> {
        if self.attempted.len() < every {
            return None;
        }
        if self.attempted.len().is_multiple_of(every) {
            self.excluded.resize(levels.list().len(), false);
            for (host, priority) in &self.attempted {
                if let Some(excluded) = levels.place(*host, *priority).and_then(|place| self.excluded.get_mut(place)) {
                    *excluded = true;
                }
            }
            self.loads = PriorityLoads::without(levels, config, &self.excluded).or_else(|| {
                // Everything was tried: begin again.
                self.excluded.fill(false);
                self.attempted.clear();
                PriorityLoads::without(levels, config, &self.excluded)
            });
        }
        self.loads.clone()
    }
}

/// The condition about the status of a gRPC response without a body.
fn grpc_status(response: &ResponseHead) -> Option<RetryOn> {
    match number(std::str::from_utf8(response.headers.value(&Known::GrpcStatus)?).ok()?)? {
        1 => Some(RetryOn::GRPC_CANCELLED),
        4 => Some(RetryOn::GRPC_DEADLINE_EXCEEDED),
        8 => Some(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        13 => Some(RetryOn::GRPC_INTERNAL),
        14 => Some(RetryOn::GRPC_UNAVAILABLE),
        _ => None,
    }
}

/// A whole number as Envoy reads one in a header: blanks around it and a plus sign do no harm.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim_ascii();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests;

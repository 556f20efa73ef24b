//! What all hosts of a cluster share: how many are ejected, and whether one more may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use filters::http::{Known, ResponseHead};
use filters::matcher::Runtime;

use super::{Kind, Outcome, Verdict};
use crate::config::cluster::OutlierConfig;
use crate::upstream::host::{HealthFlags, HostState};

/// Outlier detection in one version of a cluster.
#[derive(Debug)]
pub struct Detection {
    cluster: Arc<str>,
    config: OutlierConfig,
    hosts: AtomicU32,
    ejected: AtomicU32,
}

impl Detection {
    /// Nobody is ejected yet.
    #[must_use]
    pub fn new(cluster: Arc<str>, config: OutlierConfig) -> Arc<Self> {
        Arc::new(Self { cluster, config, hosts: AtomicU32::new(0), ejected: AtomicU32::new(0) })
    }

    /// The cluster's name.
    #[must_use]
    pub const fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Thresholds and times.
    #[must_use]
    pub const fn config(&self) -> &OutlierConfig {
        &self.config
    }

    /// Hosts that are ejected now.
    #[must_use]
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }

    /// The cluster has this many hosts now.
    pub fn set_hosts(&self, hosts: usize) {
        self.hosts.store(u32::try_from(hosts).unwrap_or(u32::MAX), Relaxed);
    }

    /// What an answer to a request, which may be one of gRPC, is to it.
    #[must_use]
    pub fn outcome(&self, head: &ResponseHead, grpc: bool) -> Outcome {
        let of_grpc = grpc.then(|| grpc_status_as_http(head)).flatten();
        let status = match (of_grpc, &self.config.error_matcher) {
            (Some(status), _) => status,
            (None, None) => head.status,
            (None, Some(errors)) if !errors.matches(head) => 200,
            (None, Some(_)) if (500..600).contains(&head.status) => head.status,
            (None, Some(_)) => 500,
        };
        Outcome::Response { status, degraded: head.headers.value(&Known::XEnvoyDegraded).is_some() }
    }

    /// Decides over a host that a detector found, and ejects it. `None` if it is ejected already. `roll` draws a number
    /// below its argument.
    pub fn judge(
        &self,
        host: &HostState,
        kind: Kind,
        runtime: &dyn Runtime,
        roll: &mut dyn FnMut(u64) -> u64,
    ) -> Option<Verdict> {
        let limit = runtime.integer("outlier_detection.max_ejection_percent");
        let limit = limit.unwrap_or(self.config.max_ejection_percent).min(100);
        let has_room = |ejected: u32| {
            let one_more = 100.0 * (f64::from(ejected) + 1.0) / f64::from(self.hosts.load(Relaxed));
            #[expect(clippy::cast_precision_loss, reason = "it is at most 100")]
            let allowed = one_more <= limit as f64;
            allowed || (self.config.always_eject_one_host && ejected == 0)
        };
        if !has_room(self.ejected()) {
            return Some(Verdict::Overflow);
        }
        if !self.enforces(kind, runtime, roll) {
            return Some(Verdict::Spared);
        }
        let place = self.ejected.fetch_update(Relaxed, Relaxed, |ejected| has_room(ejected).then(|| ejected + 1));
        if place.is_err() {
            return Some(Verdict::Overflow);
        }
        let before = host.change_flags(HealthFlags::FAILED_OUTLIER_CHECK, HealthFlags::NONE);
        if before.contains(HealthFlags::FAILED_OUTLIER_CHECK) {
            self.ejected.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Verdict::Enforced)
    }

    /// Ends a host's ejection; false if it was not ejected.
    pub fn readmit(&self, host: &HostState) -> bool {
        let before = host.change_flags(HealthFlags::NONE, HealthFlags::FAILED_OUTLIER_CHECK);
        let was_ejected = before.contains(HealthFlags::FAILED_OUTLIER_CHECK);
        if was_ejected {
            self.ejected.fetch_sub(1, Relaxed);
        }
        was_ejected
    }

    /// Whether what a detector finds is acted upon, this time.
    fn enforces(&self, kind: Kind, runtime: &dyn Runtime, roll: &mut dyn FnMut(u64) -> u64) -> bool {
        let enforcing = &self.config.enforcing;
        let (key, configured) = match kind {
            Kind::Consecutive5xx => ("enforcing_consecutive_5xx", enforcing.consecutive_5xx),
            Kind::ConsecutiveGatewayFailure => {
                ("enforcing_consecutive_gateway_failure", enforcing.consecutive_gateway_failure)
            }
            Kind::ConsecutiveLocalOriginFailure => {
                ("enforcing_consecutive_local_origin_failure", enforcing.consecutive_local_origin_failure)
            }
            Kind::SuccessRate => ("enforcing_success_rate", enforcing.success_rate),
            Kind::SuccessRateLocalOrigin => {
                ("enforcing_local_origin_success_rate", enforcing.local_origin_success_rate)
            }
            Kind::FailurePercentage => ("enforcing_failure_percentage", enforcing.failure_percentage),
            Kind::FailurePercentageLocalOrigin => {
                ("enforcing_failure_percentage_local_origin", enforcing.failure_percentage_local_origin)
            }
            Kind::Degraded => return true,
        };
        match runtime.integer(&format!("outlier_detection.{key}")).unwrap_or(configured) {
            0 => false,
            percent @ 1..100 => roll(100) < percent,
            _ => true,
        }
    }
}

/// The status that the gRPC status of a response without a body stands for; `None` if it says nothing of one.
#[must_use]
pub fn grpc_status_as_http(head: &ResponseHead) -> Option<u16> {
    let text = std::str::from_utf8(head.headers.value(&Known::GrpcStatus)?).ok()?.trim_ascii();
    if text.is_empty() {
        return None;
    }
    Some(match text.parse::<u64>() {
        Ok(0) => 200,
        Ok(1) => 499,
        Ok(3 | 9 | 11) => 400,
        Ok(4) => 504,
        Ok(5) => 404,
        Ok(6 | 10) => 409,
        Ok(7) => 403,
        Ok(8) => 429,
        Ok(12) => 501,
        Ok(14) => 503,
        Ok(16) => 401,
        // Unknown, internal, loss of data, and whatever is no status.
        _ => 500,
    })
}

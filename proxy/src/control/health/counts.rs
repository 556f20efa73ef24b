//! `health_check.*` of a cluster.

use std::sync::Arc;

use stats::{GroupHandle, Store};

use super::session::Report;
use crate::control::clusters::HealthCount;
use crate::observe::catalogue::HealthCheckStats;

/// Control's shard of them.
pub struct HealthCounts {
    stats: HealthCheckStats,
    /// Keeps them in the scrape.
    _group: Arc<GroupHandle<HealthCheckStats>>,
}

impl HealthCounts {
    /// Those below `cluster.<stat_name>.`.
    #[must_use]
    pub fn new(store: &Arc<Store>, stat_name: &str) -> Self {
        let group = store.group::<HealthCheckStats>(&format!("cluster.{stat_name}.health_check."));
        let stats = group.shard(store.control_shard());
        Self { stats, _group: group }
    }

    /// Counts what happened.
    pub fn count(&self, count: HealthCount) {
        let stats = &self.stats;
        match count {
            HealthCount::Attempt => stats.attempt().inc(),
            HealthCount::Success => stats.success().inc(),
            HealthCount::Failure(report) => {
                stats.failure().inc();
                match report {
                    Report::Unreachable | Report::TimedOut => stats.network_failure().inc(),
                    Report::Seen => stats.passive_failure().inc(),
                    Report::Passed { .. } | Report::Refused { .. } => {}
                }
            }
            HealthCount::VerifyCluster => stats.verify_cluster().inc(),
            HealthCount::Healthy(true) => stats.healthy().inc(),
            HealthCount::Healthy(false) => stats.healthy().dec(),
            HealthCount::Degraded(true) => stats.degraded().inc(),
            HealthCount::Degraded(false) => stats.degraded().dec(),
        }
    }
}

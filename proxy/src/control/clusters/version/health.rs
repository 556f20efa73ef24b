//! How a version's hosts are: what health checks and outlier detection found.

use std::time::Instant;

use super::{Around, Version};
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::control::clusters::health::{Answer, Checks, HealthNews};
use crate::control::clusters::members::{Care, Change};
use crate::control::clusters::outlier::{Detector, OutlierEvent};
use crate::control::secrets::SecretsUse;
use crate::runtime::Snapshot;
use crate::upstream::host::{HealthFlags, HostState};

impl Version {
    pub(super) fn health_changed(&mut self) {
        self.members.rebuild();
        self.unpublished = self.unpublished.max(Change::Health);
    }

    /// A health check ended, or could be taken for ended.
    pub(super) fn checked(&mut self, now: Instant, host: u64, answer: Answer, used: bool, around: &mut Around<'_>) {
        let Some(outcome) = self
            .checks
            .as_mut()
            .and_then(|checks| checks.on_report(now, host, answer, used, around.runtime, around.random))
        else {
            return;
        };
        if let Some(first) = &mut self.first_checks {
            *first = first.saturating_sub(1);
        }
        let readmitted =
            outcome.passed && self.detector.as_mut().is_some_and(|detector| detector.on_passed_check(now, host));
        if outcome.changed && self.published && self.leaves(host) {
            self.unpublished = Change::Membership;
        } else if (outcome.changed || readmitted) && self.published {
            self.health_changed();
        }
    }

    /// Takes out a host whose endpoint is gone and whose health checks fail now. Names are looked up again instead.
    fn leaves(&mut self, id: u64) -> bool {
        let flags = self.members.set().hosts().find(|host| host.id() == id).map(|host| host.state().flags());
        let gone = HealthFlags::FAILED_ACTIVE_HC | HealthFlags::PENDING_DYNAMIC_REMOVAL;
        matches!(self.config.discovery, Discovery::Eds(_))
            && flags.is_some_and(|flags| flags.contains(gone))
            && self.members.leave(id)
    }

    /// Outlier detection and health checks learn of hosts before the workers do.
    pub(super) fn watch_hosts(&mut self, now: Instant, runtime: &Snapshot) {
        if let Some(detector) = &mut self.detector {
            detector.sync(self.members.set());
        }
        let Some(checks) = &mut self.checks else { return };
        let unchecked_left = checks.sync(now, self.members.set(), runtime);
        match &mut self.first_checks {
            // Nobody will answer for hosts that left.
            Some(first) => *first = first.saturating_sub(unchecked_left),
            None if self.ready => self.first_checks = Some(checks.len()),
            None => {}
        }
    }

    /// The workers may use it: its first hosts are known, and their first round of health checks is over.
    pub(in crate::control::clusters) fn is_warm(&self) -> bool {
        self.ready && self.first_checks.unwrap_or(0) == 0 && self.secrets.iter().all(SecretsUse::is_ready)
    }

    /// What health checks have to ask and to tell.
    pub(in crate::control::clusters) fn take_health_news(&mut self) -> Vec<HealthNews> {
        self.checks.as_mut().map(Checks::take_news).unwrap_or_default()
    }

    /// No host is checked any more.
    pub(in crate::control::clusters) fn end_checks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.end();
        }
    }

    /// Whether the health of the host with this number is checked.
    pub(in crate::control::clusters) fn checks(&self, host: u64) -> bool {
        self.checks.as_ref().is_some_and(|checks| checks.has(host))
    }

    /// What outlier detection has to tell.
    pub(in crate::control::clusters) fn take_outlier_events(&mut self) -> Vec<OutlierEvent> {
        self.detector.as_mut().map(Detector::take_events).unwrap_or_default()
    }

    /// Whether outlier detection watches this host.
    pub(in crate::control::clusters) fn watches(&self, host: &HostState) -> bool {
        self.detector.as_ref().is_some_and(|detector| detector.watches(host))
    }
}

/// Who comes and goes where health is checked.
pub(super) fn care(config: &ClusterConfig) -> Care {
    if config.health_check.is_none() {
        return Care::default();
    }
    let finds_hosts = matches!(config.discovery, Discovery::Eds(_) | Discovery::StrictDns(_));
    let newcomers = match config.discovery {
        Discovery::Eds(_) | Discovery::StrictDns(_) if config.lb.ignore_new_hosts_until_first_hc => {
            HealthFlags::FAILED_ACTIVE_HC | HealthFlags::PENDING_ACTIVE_HC
        }
        Discovery::Eds(_) | Discovery::StrictDns(_) | Discovery::Static(_) => HealthFlags::FAILED_ACTIVE_HC,
        // Such hosts are used until a check says otherwise.
        Discovery::LogicalDns(_) | Discovery::OriginalDst(_) | Discovery::Aggregate(_) => HealthFlags::NONE,
    };
    Care { newcomers, keeps_healthy: finds_hosts && !config.ignore_health_on_host_removal }
}

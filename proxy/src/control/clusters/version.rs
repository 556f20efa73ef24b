//! One version of a cluster: its configuration, how far its hosts are known, and what of that is published.

mod health;
mod lookups;
mod publication;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use self::health::care;
use self::lookups::{Target, named};
use super::health::{Answer, Checks};
use super::members::{Change, Identity, Members, Names};
use super::outlier::Detector;
use super::{ClusterView, EndpointUpdate, WatchId};
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::endpoint::LoadAssignment;
use crate::control::dns::{LookupId, Outcome};
use crate::control::secrets::SecretsUse;
use crate::runtime::Snapshot;
use crate::upstream::breaker::Breakers;
use crate::upstream::host::{Host, HostSet, HostState};
use crate::upstream::outlier::{Finding, Verdict};

/// One version of a cluster.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) config: Arc<ClusterConfig>,
    pub(super) hash: u64,
    pub(super) members: Members,
    /// Its discovery has begun.
    pub(super) started: bool,
    /// Its first hosts are known, or will not be for now.
    pub(super) ready: bool,
    /// The secrets of its TLS contexts.
    pub(super) secrets: Vec<SecretsUse>,
    /// The workers use it.
    pub(super) published: bool,
    pub(super) watch: Option<WatchId>,
    pub(super) fetch_deadline: Option<Instant>,
    /// By EDS.
    pub(super) assignment: Option<Arc<LoadAssignment>>,
    breakers: Arc<Breakers>,
    raw: Bytes,
    version: Arc<str>,
    last_updated: SystemTime,
    stale_at: Option<Instant>,
    sweep_at: Option<Instant>,
    names: Names,
    targets: HashMap<(usize, usize), Target>,
    /// What the workers do not know yet.
    unpublished: Change,
    last_publication: Option<Instant>,
    /// The hosts as they were counted last.
    counted: Option<Arc<HostSet>>,
    merge_at: Option<Instant>,
    /// From the beginning on, where the cluster detects outliers.
    detector: Option<Detector>,
    /// Where the cluster checks its hosts' health.
    checks: Option<Checks>,
    /// Health checks whose end is awaited before the version is warm, since its hosts are known.
    first_checks: Option<usize>,
}

/// What a version's reaction to an event depends on.
pub(super) struct Around<'a> {
    /// The assignment of the version in use, for one that warms.
    pub(super) cached: Option<&'a Arc<LoadAssignment>>,
    pub(super) runtime: &'a Snapshot,
    pub(super) random: &'a mut fastrand::Rng,
}

/// Something happened to a version.
#[derive(Debug)]
pub(super) enum Fed {
    Assigned(Arc<LoadAssignment>),
    Failed,
    /// The assignment is gone.
    Removed,
    Looked(LookupId, Outcome),
    Created(Arc<Host>),
    /// A worker found a host to be an outlier.
    Outlier(Arc<HostState>, Finding),
    /// A health check of a host ended; the cluster was used before, or not.
    Checked {
        host: u64,
        answer: Answer,
        used: bool,
    },
    HealthChanged,
    Timer,
}

impl Version {
    pub(super) fn new(
        config: Arc<ClusterConfig>,
        raw: Bytes,
        hash: u64,
        version: Arc<str>,
        last_updated: SystemTime,
        workers: usize,
    ) -> Self {
        Self {
            breakers: Arc::new(Breakers::new(&config.circuit_breakers)),
            checks: config.health_check.clone().map(|check| Checks::new(config.clone(), check)),
            first_checks: None,
            members: Members::new(workers, care(&config)),
            config,
            hash,
            started: false,
            ready: false,
            secrets: Vec::new(),
            published: false,
            watch: None,
            fetch_deadline: None,
            assignment: None,
            raw,
            version,
            last_updated,
            stale_at: None,
            sweep_at: None,
            names: Names::new(),
            targets: HashMap::new(),
            unpublished: Change::None,
            last_publication: None,
            counted: None,
            merge_at: None,
            detector: None,
        }
    }

    /// Needs another cluster to find its hosts.
    pub(super) fn is_secondary(&self) -> bool {
        match &self.config.discovery {
            Discovery::Eds(eds) => !eds.is_file(),
            Discovery::Aggregate(_) => true,
            Discovery::Static(_) | Discovery::StrictDns(_) | Discovery::LogicalDns(_) | Discovery::OriginalDst(_) => {
                false
            }
        }
    }

    /// Begins to find hosts: those that are given are known at once, names are due to be looked up.
    pub(super) fn begin(&mut self, now: Instant, runtime: &Snapshot) {
        self.tune_breakers(runtime);
        let config = self.config.clone();
        let detection = config.outlier_detection.as_ref();
        self.detector = detection.map(|detection| Detector::new(config.name.clone(), detection, now, runtime));
        match &config.discovery {
            Discovery::Static(assignment) => {
                self.assign(assignment);
                self.ready = true;
            }
            Discovery::Eds(_) => {}
            Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
                for (place, _) in named(dns) {
                    self.targets.insert(place, Target::due_at(now));
                }
                self.assign(&dns.assignment);
                // As in Envoy the first answer makes it ready; without names to ask for there is none to wait for.
                let all_known = self.targets.is_empty();
                self.ready = all_known || !self.members.set().priorities.iter().all(|level| level.hosts.is_empty());
            }
            Discovery::Aggregate(_) => self.ready = true,
            Discovery::OriginalDst(_) => {
                self.sweep_at = now.checked_add(config.cleanup_interval);
                self.ready = true;
            }
        }
        self.watch_hosts(now, runtime);
    }

    /// Takes in an event.
    pub(super) fn feed(&mut self, now: Instant, event: &Fed, around: &mut Around<'_>) -> Vec<EndpointUpdate> {
        let updates = self.react(now, event, around);
        self.watch_hosts(now, around.runtime);
        updates
    }

    fn react(&mut self, now: Instant, event: &Fed, around: &mut Around<'_>) -> Vec<EndpointUpdate> {
        let cached = around.cached;
        match event {
            Fed::Assigned(assignment) => vec![self.assigned(now, assignment.clone())],
            Fed::Failed | Fed::Removed => {
                let failed = matches!(event, Fed::Failed);
                let mut updates = vec![if failed { EndpointUpdate::Failure } else { EndpointUpdate::Empty }];
                updates.extend(self.without_assignment(now, cached));
                updates
            }
            Fed::Looked(id, outcome) => self.looked(now, *id, outcome, around.random),
            Fed::Outlier(host, finding) => {
                if let Some(detector) = &mut self.detector {
                    detector.on_finding(now, host, *finding, around.runtime, around.random);
                }
                if finding.verdict == Verdict::Enforced {
                    self.health_changed();
                }
                Vec::new()
            }
            Fed::Created(host) => {
                if self.members.add(host.clone()) {
                    self.unpublished = Change::Membership;
                }
                Vec::new()
            }
            Fed::Checked { host, answer, used } => {
                self.checked(now, *host, *answer, *used, around);
                Vec::new()
            }
            Fed::HealthChanged => {
                self.health_changed();
                Vec::new()
            }
            Fed::Timer => {
                let updates = self.timer(now, cached);
                if let Some(checks) = &mut self.checks {
                    checks.on_timer(now, around.runtime);
                }
                let detector = self.detector.as_mut();
                if detector.is_some_and(|detector| detector.on_timer(now, around.runtime, around.random)) {
                    self.health_changed();
                }
                updates
            }
        }
    }

    pub(super) fn view(&self, added_via_api: bool, warming: bool) -> ClusterView<'_> {
        ClusterView {
            config: &self.config,
            raw: &self.raw,
            version: &self.version,
            last_updated: self.last_updated,
            added_via_api,
            warming,
            hosts: self.members.set(),
            breakers: &self.breakers,
            assignment: self.assignment.as_deref(),
            detector: self.detector.as_ref(),
        }
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let outliers = self.detector.as_ref().map(Detector::deadline);
        let checks = self.checks.as_ref().and_then(Checks::deadline);
        let fixed = [self.fetch_deadline, self.stale_at, self.sweep_at, self.merge_at, outliers, checks];
        fixed.into_iter().flatten().chain(self.targets.values().filter_map(|target| target.due)).min()
    }

    fn assigned(&mut self, now: Instant, assignment: Arc<LoadAssignment>) -> EndpointUpdate {
        self.fetch_deadline = None;
        self.stale_at = assignment.endpoint_stale_after.and_then(|after| now.checked_add(after));
        self.ready = true;
        let change = self.assign(&assignment);
        self.assignment = Some(assignment);
        if change == Change::None { EndpointUpdate::NoRebuild } else { EndpointUpdate::Success }
    }

    /// No assignment came: go on with the one of the version before if there is one, else without hosts.
    fn without_assignment(&mut self, now: Instant, cached: Option<&Arc<LoadAssignment>>) -> Option<EndpointUpdate> {
        self.fetch_deadline = None;
        if std::mem::replace(&mut self.ready, true) {
            return None;
        }
        let Discovery::Eds(eds) = &self.config.discovery else { return None };
        let cached = cached.filter(|cached| cached.cluster_name == eds.service_name)?.clone();
        self.assigned(now, cached);
        Some(EndpointUpdate::UsedCached)
    }

    fn timer(&mut self, now: Instant, cached: Option<&Arc<LoadAssignment>>) -> Vec<EndpointUpdate> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut updates = Vec::new();
        if due(self.fetch_deadline) {
            updates.push(EndpointUpdate::InitFetchTimeout);
            updates.extend(self.without_assignment(now, cached));
        }
        if due(self.stale_at) {
            self.stale_at = None;
            self.assign(&LoadAssignment::default());
            updates.push(EndpointUpdate::Stale);
        }
        if due(self.sweep_at) {
            self.sweep_at = now.checked_add(self.config.cleanup_interval);
            if self.members.sweep() {
                self.unpublished = Change::Membership;
            }
        }
        updates
    }

    fn assign(&mut self, assignment: &LoadAssignment) -> Change {
        let identity = match self.config.discovery {
            Discovery::Static(_) | Discovery::StrictDns(_) => Identity::Endpoint,
            Discovery::Eds(_) | Discovery::OriginalDst(_) | Discovery::Aggregate(_) => Identity::Address,
            Discovery::LogicalDns(_) => Identity::Single,
        };
        let change = self.members.assign(assignment, &self.names, identity);
        self.unpublished = self.unpublished.max(change);
        change
    }
}

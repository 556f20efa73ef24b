//! One version of a cluster: its configuration, how far its hosts are known, and what of that is published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::health::{Answer, Checks, HealthNews};
use super::members::{Care, Change, Identity, Members, Names};
use super::outlier::{Detector, OutlierEvent};
use super::{ClusterView, EndpointUpdate, MergeEvent, NEVER, PublishedCluster, WatchId};
use crate::config::address::EndpointAddress;
use crate::config::cluster::{ClusterConfig, Discovery, DnsConfig};
use crate::config::endpoint::LoadAssignment;
use crate::control::dns::{LookupId, Outcome, Question, Refresh};
use crate::runtime::Snapshot;
use crate::upstream::breaker::Breakers;
use crate::upstream::host::{HealthFlags, Host, HostSet, HostState, Membership};
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

/// A name to look up, at its place in the assignment.
#[derive(Debug, Default)]
struct Target {
    refresh: Refresh,
    lookup: Option<LookupId>,
    due: Option<Instant>,
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
                    self.targets.insert(place, Target { due: Some(now), ..Target::default() });
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

    fn health_changed(&mut self) {
        self.members.rebuild();
        self.unpublished = self.unpublished.max(Change::Attributes);
    }

    /// A health check ended, or could be taken for ended.
    fn checked(&mut self, now: Instant, host: u64, answer: Answer, used: bool, around: &mut Around<'_>) {
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
    fn watch_hosts(&mut self, now: Instant, runtime: &Snapshot) {
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
    pub(super) fn is_warm(&self) -> bool {
        self.ready && self.first_checks.unwrap_or(0) == 0
    }

    /// What health checks have to ask and to tell.
    pub(super) fn take_health_news(&mut self) -> Vec<HealthNews> {
        self.checks.as_mut().map(Checks::take_news).unwrap_or_default()
    }

    /// No host is checked any more.
    pub(super) fn end_checks(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.end();
        }
    }

    /// Whether the health of the host with this number is checked.
    pub(super) fn checks(&self, host: u64) -> bool {
        self.checks.as_ref().is_some_and(|checks| checks.has(host))
    }

    /// What outlier detection has to tell.
    pub(super) fn take_outlier_events(&mut self) -> Vec<OutlierEvent> {
        self.detector.as_mut().map(Detector::take_events).unwrap_or_default()
    }

    /// Whether outlier detection watches this host.
    pub(super) fn watches(&self, host: &HostState) -> bool {
        self.detector.as_ref().is_some_and(|detector| detector.watches(host))
    }

    /// Whether this lookup's answer is for it.
    pub(super) fn awaits(&self, id: LookupId) -> bool {
        self.targets.values().any(|target| target.lookup == Some(id))
    }

    /// Places of names that are due to be looked up.
    pub(super) fn due_lookups(&self, now: Instant) -> Vec<(usize, usize)> {
        let due = self.targets.iter().filter(|(_, target)| target.due.is_some_and(|due| due <= now));
        let mut places: Vec<_> = due.map(|(place, _)| *place).collect();
        places.sort_unstable();
        places
    }

    /// The name at `place` is looked up as `id`: the question.
    pub(super) fn asked(&mut self, place: (usize, usize), id: LookupId) -> Option<Question> {
        let target = self.targets.get_mut(&place)?;
        (target.due, target.lookup) = (None, Some(id));
        let (Discovery::StrictDns(dns) | Discovery::LogicalDns(dns)) = &self.config.discovery else { return None };
        let (_, host) = named(dns).find(|(at, _)| *at == place)?;
        Some(Question { host: host.clone(), family: dns.family, resolver: Arc::new(dns.resolver.clone()) })
    }

    /// The lookups in flight, which are given up.
    pub(super) fn take_lookups(&mut self) -> Vec<LookupId> {
        self.targets.values_mut().filter_map(|target| target.lookup.take()).collect()
    }

    /// The hosts that are about to be published are chosen from as the runtime says now.
    pub(super) fn tune(&self, runtime: &Snapshot) {
        if let Some(tuned) = self.config.lb.tuned(runtime) {
            self.members.set().tune(Arc::new(tuned));
        }
    }

    /// What there is to count since the last call: counts do not wait for the merge window.
    pub(super) fn recount(&mut self) -> Option<Membership> {
        let set = self.members.set();
        if self.counted.as_ref().is_some_and(|counted| Arc::ptr_eq(counted, set)) {
            return None;
        }
        self.counted = Some(Arc::clone(set));
        Some(set.membership())
    }

    /// The workers use it from now on.
    pub(super) fn take_over(&mut self, now: Instant) {
        self.published = true;
        if self.checks.is_some() {
            self.members.rebuild();
        }
        self.unpublished = Change::None;
        self.last_publication = Some(now);
    }

    /// Whether the hosts are to be published now, and if so whether hosts came or went. A change of attributes waits
    /// for others like it if the last publication was within the merge window.
    pub(super) fn merge(&mut self, now: Instant) -> (Option<bool>, Option<MergeEvent>) {
        let window = self.config.lb.update_merge_window;
        let mut event = None;
        match self.unpublished {
            Change::None => return (None, None),
            Change::Membership => {
                if self.merge_at.take().is_some() {
                    event = Some(MergeEvent::Cancelled);
                }
            }
            Change::Attributes if window.is_zero() => {}
            Change::Attributes => match self.merge_at {
                Some(at) if at > now => return (None, None),
                Some(_) => event = Some(MergeEvent::Published),
                None if self.last_publication.is_some_and(|last| now.duration_since(last) <= window) => {
                    self.merge_at = Some(now.checked_add(window).unwrap_or(now + NEVER));
                    return (None, None);
                }
                None => event = Some(MergeEvent::OutOfWindow),
            },
        }
        self.merge_at = None;
        self.last_publication = Some(now);
        let changed = std::mem::replace(&mut self.unpublished, Change::None) == Change::Membership;
        (Some(changed), event)
    }

    pub(super) fn publication(&self) -> PublishedCluster {
        PublishedCluster {
            config: self.config.clone(),
            breakers: self.breakers.clone(),
            hosts: self.members.set().clone(),
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

    fn looked(
        &mut self,
        now: Instant,
        id: LookupId,
        outcome: &Outcome,
        random: &mut fastrand::Rng,
    ) -> Vec<EndpointUpdate> {
        let config = self.config.clone();
        let (dns, logical) = match &config.discovery {
            Discovery::StrictDns(dns) => (dns, false),
            Discovery::LogicalDns(dns) => (dns, true),
            Discovery::Static(_) | Discovery::Eds(_) | Discovery::OriginalDst(_) | Discovery::Aggregate(_) => {
                return Vec::new();
            }
        };
        let Some((place, target)) = self.targets.iter_mut().find(|(_, target)| target.lookup == Some(id)) else {
            return Vec::new();
        };
        let place = *place;
        target.lookup = None;
        target.due = Some(target.refresh.next(dns, outcome, now, random));
        self.ready = true;
        let update = match outcome {
            Outcome::Addresses { addresses, .. } => {
                self.names.insert(place, addresses.clone());
                EndpointUpdate::Success
            }
            // The one host of a logical cluster is not given up for an empty answer.
            Outcome::Empty if logical => return vec![EndpointUpdate::Empty],
            Outcome::Empty => {
                self.names.remove(&place);
                EndpointUpdate::Empty
            }
            Outcome::Failed(_) => return vec![EndpointUpdate::Failure],
        };
        match self.assign(&dns.assignment) {
            Change::None if update == EndpointUpdate::Success => vec![EndpointUpdate::NoRebuild],
            _ => vec![update],
        }
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

/// Who comes and goes where health is checked.
fn care(config: &ClusterConfig) -> Care {
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

/// The names of a DNS cluster, by their place in the assignment.
fn named(dns: &DnsConfig) -> impl Iterator<Item = ((usize, usize), &Arc<str>)> {
    dns.assignment.localities.iter().enumerate().flat_map(|(l, locality)| {
        locality.endpoints.iter().enumerate().filter_map(move |(e, endpoint)| match &endpoint.address {
            EndpointAddress::Name { host, .. } => Some(((l, e), host)),
            EndpointAddress::Resolved(_) => None,
        })
    })
}

//! The cluster manager: which clusters there are, who their hosts are, and what the workers see of it.
//!
//! Sans-io: events and the time come in through methods, effects go out through [`ClusterSink`], [`EdsSubscriber`],
//! [`Resolver`] and [`ClusterObserver`]. Single-threaded, on the control thread.
//!
//! * A cluster has at most one *active* version, which the workers use, and one *warming*, which they do not see until
//!   its first hosts are known (first assignment, first DNS answer, or its time ran out). Then it takes over.
//! * Each resource of an update stands for itself: good ones are applied, bad ones are named in the error.
//! * Start-up goes through [`Phase`]s: static clusters that need no other cluster, the runtime, static clusters that ask a
//!   control plane, then CDS.

mod contract;
mod health;
mod members;
mod outlier;
mod resource;
mod version;
mod warming;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

pub use self::contract::{
    CdsUpdate, ClusterObserver, ClusterSink, EdsSubscriber, EndpointUpdate, MergeEvent, Phase, Prober,
    PublishedCluster, Removed, SecretKeeper, WatchId,
};
pub use self::health::{Answer, HealthCount, HealthEvent, HealthNews, Probe};
use self::outlier::Detector;
pub use self::outlier::{Comparison, OutlierChange, OutlierEvent, Rates};
pub use self::resource::ClusterResource;
use self::version::{Fed, Version};
use super::dns::{LookupId, Outcome, Resolver};
use super::health::session::Report;
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::endpoint::LoadAssignment;
use crate::runtime::Snapshot;
use crate::upstream::breaker::{self, Breakers};
use crate::upstream::host::{Host, HostSet, HostState};
use crate::upstream::outlier::Finding;

/// One cluster as admin pages show it.
#[derive(Debug)]
pub struct ClusterView<'a> {
    /// What it says about itself.
    pub config: &'a Arc<ClusterConfig>,
    /// The resource as it came.
    pub raw: &'a Bytes,
    /// Version of the response it came with; empty for static clusters.
    pub version: &'a Arc<str>,
    /// When it came.
    pub last_updated: SystemTime,
    /// Not static: `added_via_api`.
    pub added_via_api: bool,
    /// Not in use yet.
    pub warming: bool,
    /// Its hosts.
    pub hosts: &'a Arc<HostSet>,
    /// Its circuit breakers.
    pub breakers: &'a Arc<Breakers>,
    /// Its assignment by EDS, if it came.
    pub assignment: Option<&'a LoadAssignment>,
    detector: Option<&'a Detector>,
}

impl ClusterView<'_> {
    /// What outlier detection computed last; `None` without it.
    #[must_use]
    pub fn outlier_rates(&self) -> Option<Rates> {
        self.detector.map(Detector::rates)
    }

    /// A host's success rates in percent, by its answers and by whether it could be reached, where outlier detection
    /// knows them.
    #[must_use]
    pub fn success_rates(&self, host: &Host) -> [Option<f64>; 2] {
        self.detector.map_or([None, None], |detector| detector.host_rates(host))
    }
}

/// All clusters. `O` is the world outside.
#[derive(Debug)]
pub struct ClusterManager<O> {
    outside: O,
    workers: usize,
    clusters: BTreeMap<Arc<str>, Cluster>,
    phase: Phase,
    /// [`Phase::Runtime`] is over, or there is nothing to wait for.
    runtime_loaded: bool,
    uses_cds: bool,
    cds_loaded: bool,
    cds_version: Arc<str>,
    watches: HashMap<WatchId, Arc<str>>,
    lookups: HashMap<LookupId, Arc<str>>,
    next_id: u64,
    random: fastrand::Rng,
    runtime: Arc<Snapshot>,
}

#[derive(Debug)]
struct Cluster {
    added_via_api: bool,
    active: Option<Version>,
    warming: Option<Version>,
}

impl Cluster {
    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.active.iter().chain(&self.warming)
    }
}

impl<O: ClusterSink + EdsSubscriber + Resolver + Prober + SecretKeeper + ClusterObserver> ClusterManager<O> {
    /// A manager without clusters for a process with this many workers. `uses_cds` says whether start-up waits for a
    /// cluster discovery service.
    pub fn new(outside: O, workers: usize, uses_cds: bool, random: fastrand::Rng) -> Self {
        Self {
            outside,
            workers,
            clusters: BTreeMap::new(),
            phase: Phase::Loading,
            runtime_loaded: true,
            uses_cds,
            cds_loaded: false,
            cds_version: Arc::default(),
            watches: HashMap::new(),
            lookups: HashMap::new(),
            next_id: 0,
            random,
            runtime: Arc::default(),
        }
    }

    /// The world outside.
    pub const fn outside(&mut self) -> &mut O {
        &mut self.outside
    }

    /// Adds a static cluster, before [`Self::start`].
    ///
    /// # Errors
    /// When it is invalid or its name is taken.
    pub fn add_static(&mut self, resource: ClusterResource, wall: SystemTime) -> Result<(), String> {
        let config = resource.config.map_err(|error| error.to_string())?;
        if self.clusters.contains_key(&resource.name) {
            return Err(format!("cluster manager: duplicate cluster '{}'", resource.name));
        }
        self.outside.open_logs(&config)?;
        let secrets = self.outside.require_secrets(&config)?;
        let mut version = Version::new(config, resource.raw, resource.hash, Arc::default(), wall, self.workers);
        version.secrets = secrets;
        let cluster = Cluster { added_via_api: false, active: None, warming: Some(version) };
        self.outside.cluster_added(&resource.name);
        self.clusters.insert(resource.name, cluster);
        self.count();
        Ok(())
    }

    /// Start-up is to stop in [`Phase::Runtime`] until [`Self::runtime_loaded`]. To be called before [`Self::start`].
    pub const fn wait_for_runtime(&mut self) {
        self.runtime_loaded = false;
    }

    /// The runtime's layers are there, or will not be for now.
    pub fn runtime_loaded(&mut self, now: Instant) {
        self.runtime_loaded = true;
        self.advance(now);
    }

    /// Begins with the static clusters.
    pub fn start(&mut self, now: Instant) {
        self.enter(Phase::Primary);
        self.start_where(now, |version| !version.is_secondary());
        self.advance(now);
    }

    /// Applies a discovery response: every good resource goes live on its own, then removals.
    ///
    /// # Errors
    /// The text for the response's NACK: every bad resource by name, with its reason.
    pub fn apply(&mut self, now: Instant, wall: SystemTime, update: CdsUpdate) -> Result<(), String> {
        let CdsUpdate { resources, removed, version } = update;
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        let mut changed = false;
        for resource in resources {
            let name = resource.name.clone();
            if !seen.insert(name.clone()) {
                errors.push(format!("{name}: duplicate cluster {name} found"));
                continue;
            }
            match self.add_or_update(now, wall, resource, &version) {
                Ok(applied) => changed |= applied,
                Err(reason) => errors.push(format!("{name}: {reason}")),
            }
        }
        if changed && errors.is_empty() {
            self.outside.clusters_reloaded();
        }
        let removed: Vec<Arc<str>> = match removed {
            Removed::Names(names) => names.into_iter().map(Arc::from).collect(),
            Removed::Others => self.clusters.keys().filter(|name| !seen.contains(*name)).cloned().collect(),
        };
        for name in removed {
            changed |= self.remove(&name);
        }
        if changed {
            self.cds_version = version;
        }
        self.cds_loaded = true;
        self.advance(now);
        if errors.is_empty() { Ok(()) } else { Err(format!("Error adding/updating cluster(s) {}", errors.join(", "))) }
    }

    /// The first CDS response is not coming (its fetch timed out, or it was rejected whole): start-up goes on without.
    pub fn cds_failed(&mut self, now: Instant) {
        self.cds_loaded = true;
        self.advance(now);
    }

    /// An assignment came for a subscription.
    pub fn on_assignment(&mut self, now: Instant, watch: WatchId, assignment: Arc<LoadAssignment>) {
        self.feed(
            now,
            |cluster| cluster.watch == Some(watch),
            watch_name(&self.watches, watch),
            Fed::Assigned(assignment),
        );
    }

    /// The assignment for a subscription was rejected, or its source gave up.
    pub fn on_assignment_failed(&mut self, now: Instant, watch: WatchId) {
        self.feed(now, |cluster| cluster.watch == Some(watch), watch_name(&self.watches, watch), Fed::Failed);
    }

    /// The server has the assignment of a subscription no more. Its hosts stay.
    pub fn on_assignment_removed(&mut self, now: Instant, watch: WatchId) {
        self.feed(now, |cluster| cluster.watch == Some(watch), watch_name(&self.watches, watch), Fed::Removed);
    }

    /// A lookup ended.
    pub fn on_lookup(&mut self, now: Instant, id: LookupId, outcome: Outcome) {
        let name = self.lookups.remove(&id);
        self.feed(now, |version| version.awaits(id), name, Fed::Looked(id, outcome));
    }

    /// A worker made a host for a new destination of an `ORIGINAL_DST` cluster.
    pub fn on_created_host(&mut self, now: Instant, name: &str, host: Arc<Host>) {
        let Some(active) = self.clusters.get(name).and_then(|cluster| cluster.active.as_ref()) else { return };
        if matches!(active.config.discovery, Discovery::OriginalDst(_)) {
            let name = active.config.name.clone();
            self.feed(now, |version| version.published, Some(name), Fed::Created(host));
        }
    }

    /// A worker found a host of a cluster to be an outlier, and acted on it.
    pub fn on_outlier(&mut self, now: Instant, name: &Arc<str>, host: &Arc<HostState>, finding: Finding) {
        let watched = |cluster: &Cluster| cluster.versions().any(|version| version.watches(host));
        if self.clusters.get(name).is_some_and(watched) {
            let event = Fed::Outlier(Arc::clone(host), finding);
            self.feed(now, |version| version.watches(host), Some(Arc::clone(name)), event);
        } else if let Some(monitor) = host.monitor() {
            // It left before the news of its ejection arrived: nobody else gives its place back.
            monitor.detection().readmit(host);
        }
    }

    /// A health check of a host ended, or its connection said something unasked.
    pub fn on_checked(&mut self, now: Instant, name: &Arc<str>, host: u64, answer: Answer) {
        let used = self.outside.had_connections(name);
        let event = Fed::Checked { host, answer, used };
        self.feed(now, |version| version.checks(host), Some(Arc::clone(name)), event);
    }

    /// A host answered a request that it is to be taken for unhealthy: that counts as a failed check, and leaves the one
    /// that is due or under way alone.
    pub fn on_failing(&mut self, now: Instant, name: &Arc<str>, host: u64) {
        let event =
            Fed::Checked { host, answer: Answer { report: Report::Seen, verified: false, status: 0 }, used: true };
        self.feed(now, |version| version.checks(host), Some(Arc::clone(name)), event);
    }

    /// Secrets came, or will not come for now: versions that waited for them take over.
    pub fn on_secrets(&mut self, now: Instant) {
        let waits = |cluster: &Cluster| cluster.warming.as_ref().is_some_and(Version::is_warm);
        let warm: Vec<Arc<str>> =
            self.clusters.iter().filter(|(_, cluster)| waits(cluster)).map(|(name, _)| name.clone()).collect();
        for name in warm {
            self.warmed(now, &name);
        }
    }

    /// The runtime's values from now on.
    pub fn set_runtime(&mut self, runtime: Arc<Snapshot>) {
        let before = std::mem::replace(&mut self.runtime, runtime);
        // Nearly always the runtime says nothing about breakers, and there may be thousands of clusters.
        if [&before, &self.runtime].iter().any(|runtime| runtime.has_prefix(breaker::RUNTIME_PREFIX)) {
            self.clusters.values().flat_map(Cluster::versions).for_each(|version| version.tune_breakers(&self.runtime));
        }
    }

    /// Health bits of hosts of a cluster changed: the workers get lists divided anew.
    pub fn on_health_changed(&mut self, now: Instant, name: &str) {
        let name = self.clusters.get_key_value(name).map(|(name, _)| name.clone());
        self.feed(now, |version| version.published, name, Fed::HealthChanged);
    }

    /// What is due by `now` happens. Call it at [`Self::next_deadline`].
    pub fn on_timer(&mut self, now: Instant) {
        let due: Vec<Arc<str>> = self
            .clusters
            .iter()
            .filter(|(_, cluster)| cluster.versions().filter_map(Version::deadline).any(|deadline| deadline <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.feed(now, |version| version.deadline().is_some_and(|at| at <= now), Some(name), Fed::Timer);
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.clusters.values().flat_map(Cluster::versions).filter_map(Version::deadline).min()
    }

    /// How far start-up has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a cluster of this name is known, in use or warming.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.clusters.contains_key(name)
    }

    /// Whether resources may be fetched through this cluster: it is static, and its own hosts need no other cluster.
    #[must_use]
    pub fn backs_sources(&self, name: &str) -> bool {
        let finds_hosts = |version: &Version| !matches!(version.config.discovery, Discovery::Eds(_));
        self.clusters.get(name).is_some_and(|cluster| !cluster.added_via_api && cluster.versions().all(finds_hosts))
    }

    /// Whether a cluster of this name is in use.
    #[must_use]
    pub fn is_active(&self, name: &str) -> bool {
        self.clusters.get(name).is_some_and(|cluster| cluster.active.is_some())
    }

    /// Clusters that are not in use yet. While there are any, Envoy holds the ACK of a CDS response back.
    #[must_use]
    pub fn warming_count(&self) -> usize {
        self.clusters.values().filter(|cluster| cluster.warming.is_some()).count()
    }

    /// Version of the last response of which anything was applied.
    #[must_use]
    pub const fn cds_version(&self) -> &Arc<str> {
        &self.cds_version
    }

    /// Every version of every cluster, by name. During start-up Envoy shows clusters as active that have no hosts yet.
    pub fn views(&self) -> impl Iterator<Item = ClusterView<'_>> {
        let starting = self.phase != Phase::Initialized;
        self.clusters.values().flat_map(move |cluster| {
            let view = move |version, warming| Version::view(version, cluster.added_via_api, warming);
            let active = cluster.active.iter().map(move |version| view(version, false));
            active.chain(cluster.warming.iter().map(move |version| view(version, !starting)))
        })
    }

    /// Says whether anything was to be done.
    fn add_or_update(
        &mut self,
        now: Instant,
        wall: SystemTime,
        resource: ClusterResource,
        version: &Arc<str>,
    ) -> Result<bool, String> {
        let ClusterResource { name, raw, hash, config } = resource;
        let known = self.clusters.get(&name);
        // Static clusters cannot be changed; Envoy does not mind who tries.
        if known.is_some_and(|cluster| !cluster.added_via_api) {
            return Ok(false);
        }
        // The version to come counts, else the one in use.
        let present = known.and_then(|cluster| cluster.warming.as_ref().or(cluster.active.as_ref()));
        if present.is_some_and(|present| present.hash == hash) {
            return Ok(false);
        }
        // As in Envoy the attempt counts, whatever comes of it.
        if known.is_some() {
            self.outside.cluster_modified(&name);
        } else {
            self.outside.cluster_added(&name);
        }
        let config = config.map_err(|error| error.to_string())?;
        self.outside.open_logs(&config)?;
        let secrets = self.outside.require_secrets(&config)?;
        let mut next = Version::new(config, raw, hash, version.clone(), wall, self.workers);
        next.secrets = secrets;
        let cluster = Cluster { added_via_api: true, active: None, warming: None };
        let cluster = self.clusters.entry(name.clone()).or_insert(cluster);
        let overtaken = cluster.warming.replace(next);
        self.start_version(now, &name);
        // Afterwards: what both subscribe to is not given up in between.
        if let Some(mut overtaken) = overtaken {
            self.stop(&mut overtaken);
        }
        self.count();
        Ok(true)
    }

    /// Says whether there was one that discovery may remove.
    fn remove(&mut self, name: &Arc<str>) -> bool {
        let Some(cluster) = self.clusters.get(name).filter(|cluster| cluster.added_via_api) else { return false };
        let active = cluster.active.is_some();
        if let Some(cluster) = self.clusters.remove(name) {
            for mut version in cluster.active.into_iter().chain(cluster.warming) {
                self.stop(&mut version);
            }
        }
        if active {
            self.outside.remove(name);
        }
        self.outside.cluster_removed(name);
        self.count();
        true
    }

    fn count(&mut self) {
        // Static clusters are never counted as warming, as in Envoy.
        let fixed = self.clusters.values().filter(|it| !it.added_via_api && it.active.is_none()).count();
        let active = self.clusters.values().filter(|cluster| cluster.active.is_some()).count() + fixed;
        let warming = self.warming_count().saturating_sub(fixed);
        self.outside.cluster_counts(active, warming);
    }

    const fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

fn watch_name(watches: &HashMap<WatchId, Arc<str>>, watch: WatchId) -> Option<Arc<str>> {
    watches.get(&watch).cloned()
}

/// Far enough to stand for "never" where adding a configured time overflows the clock.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests;

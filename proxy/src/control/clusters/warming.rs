//! A version's way from known to used: it begins to find its hosts, is fed what arrives, and takes over once it is ready;
//! and the phases of start-up, which go on as versions become ready.

use std::sync::Arc;
use std::time::Instant;

use super::super::dns::{LookupId, Resolver};
use super::contract::{ClusterObserver, ClusterSink, EdsSubscriber, MergeEvent, Phase, Prober, SecretKeeper, WatchId};
use super::health::HealthNews;
use super::version::{Around, Fed, Version};
use super::{Cluster, ClusterManager};
use crate::config::cluster::Discovery;
use crate::control::secrets::SecretsUse;

impl<O: ClusterSink + EdsSubscriber + Resolver + Prober + SecretKeeper + ClusterObserver> ClusterManager<O> {
    pub(super) fn start_where(&mut self, now: Instant, which: impl Fn(&Version) -> bool) {
        let waiting = self
            .clusters
            .iter()
            .filter(|(_, cluster)| cluster.warming.as_ref().is_some_and(|version| !version.started && which(version)));
        let names: Vec<Arc<str>> = waiting.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.start_version(now, &name);
        }
    }

    /// Begins to find the hosts of the warming version.
    pub(super) fn start_version(&mut self, now: Instant, name: &Arc<str>) {
        let Some(mut version) = self.clusters.get_mut(name).and_then(|cluster| cluster.warming.take()) else { return };
        version.started = true;
        if let Discovery::Eds(eds) = &version.config.discovery {
            let watch = WatchId(self.number());
            self.watches.insert(watch, name.clone());
            version.watch = Some(watch);
            version.fetch_deadline = eds.initial_fetch_timeout.and_then(|timeout| now.checked_add(timeout));
            self.outside.subscribe(watch, &version.config.stat_name, eds);
        }
        version.secrets.iter().for_each(SecretsUse::subscribe);
        let runtime = Arc::clone(&self.runtime);
        version.begin(now, &runtime);
        self.check(&mut version);
        self.ask(now, name, &mut version);
        self.settle(now, name, version, Slot::Warming);
    }

    /// The warming version waits for nothing any more.
    pub(super) fn warmed(&mut self, now: Instant, name: &Arc<str>) {
        if let Some(version) = self.clusters.get_mut(name).and_then(|cluster| cluster.warming.take()) {
            self.settle(now, name, version, Slot::Warming);
            self.advance(now);
        }
    }

    /// Hands an event to the versions of a cluster it is for, and does what follows from it.
    pub(super) fn feed(&mut self, now: Instant, which: impl Fn(&Version) -> bool, name: Option<Arc<str>>, event: Fed) {
        let Some(name) = name else { return };
        let cached = self
            .clusters
            .get(&name)
            .and_then(|cluster| cluster.active.as_ref())
            .and_then(|active| active.assignment.clone());
        for slot in [Slot::Active, Slot::Warming] {
            let Some(cluster) = self.clusters.get_mut(&name) else { return };
            let place = slot.of(cluster);
            if !place.as_ref().is_some_and(&which) {
                continue;
            }
            let Some(mut version) = place.take() else { continue };
            let cached = cached.as_ref().filter(|_| slot == Slot::Warming);
            let mut around = Around { cached, runtime: &self.runtime, random: &mut self.random };
            let updates = version.feed(now, &event, &mut around);
            for event in version.take_outlier_events() {
                self.outside.outlier(&name, &event);
                if event.what.ejects() {
                    self.outside.host_failed(&name, event.host.id());
                }
            }
            self.check(&mut version);
            self.ask(now, &name, &mut version);
            self.settle(now, &name, version, slot);
            // A cluster's first update has statistics to be counted in once it is there.
            for update in updates {
                self.outside.endpoint_update(&name, update);
            }
        }
        self.advance(now);
    }

    /// Starts and ends health checks, counts and logs them.
    fn check(&mut self, version: &mut Version) {
        for news in version.take_health_news() {
            match news {
                HealthNews::Ask(probe) => self.outside.probe(probe),
                HealthNews::End(host) => self.outside.end_probes(host),
                HealthNews::Failed(host) => self.outside.host_failed(&version.config.name, host),
                HealthNews::Count(count) => self.outside.health(&version.config, count),
                HealthNews::Log(event) => self.outside.health_event(&version.config, &event),
            }
        }
    }

    /// Starts the lookups that are due.
    fn ask(&mut self, now: Instant, name: &Arc<str>, version: &mut Version) {
        for place in version.due_lookups(now) {
            let id = LookupId(self.number());
            if let Some(question) = version.asked(place, id) {
                self.lookups.insert(id, name.clone());
                self.outside.resolve(id, question);
            }
        }
    }

    /// Puts a version back, publishing what there is to publish.
    fn settle(&mut self, now: Instant, name: &Arc<str>, mut version: Version, slot: Slot) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        if slot == Slot::Warming && !version.is_warm() {
            cluster.warming = Some(version);
            return;
        }
        if slot == Slot::Warming {
            version.take_over();
            let (membership, changes) = version.recount().unwrap_or_default();
            let former = cluster.active.take();
            if let Some(mut former) = former {
                self.stop(&mut former);
            }
            version.tune(&self.runtime);
            self.outside.publish(version.publication());
            self.outside.membership(name, membership, changes);
        } else {
            let membership = version.recount();
            let (publish, event) = version.merge(now);
            if let Some(event) = event {
                self.outside.merge(event);
            }
            if let Some((membership, changes)) = membership {
                self.outside.membership(name, membership, changes);
            }
            if publish {
                if event != Some(MergeEvent::Published) {
                    self.outside.cluster_updated();
                }
                version.tune(&self.runtime);
                let set = version.members.set();
                self.outside.publish_hosts(name, set);
            }
        }
        if let Some(cluster) = self.clusters.get_mut(name) {
            cluster.active = Some(version);
        }
        if slot == Slot::Warming {
            self.count();
        }
    }

    /// Ends a version's subscriptions.
    pub(super) fn stop(&mut self, version: &mut Version) {
        if let Some(watch) = version.watch.take() {
            self.watches.remove(&watch);
            self.outside.unsubscribe(watch);
        }
        version.end_checks();
        self.check(version);
        for id in version.take_lookups() {
            self.lookups.remove(&id);
            self.outside.cancel(id);
        }
    }

    /// Goes on with start-up as far as clusters are ready.
    pub(super) fn advance(&mut self, now: Instant) {
        loop {
            let waiting = |secondary: bool| {
                self.clusters
                    .values()
                    .filter_map(|cluster| cluster.warming.as_ref())
                    .any(|version| version.config.wait_for_warm_on_init && version.is_secondary() == secondary)
            };
            match self.phase {
                Phase::Primary if !waiting(false) => self.enter(Phase::Runtime),
                Phase::Runtime if self.runtime_loaded => {
                    self.enter(Phase::Secondary);
                    self.start_where(now, Version::is_secondary);
                }
                Phase::Secondary if !waiting(true) => self.enter(Phase::Cds),
                Phase::Cds if (self.cds_loaded || !self.uses_cds) && !waiting(false) && !waiting(true) => {
                    self.enter(Phase::Initialized);
                }
                _ => return,
            }
        }
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.outside.phase(phase);
    }
}

/// Which version of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Active,
    Warming,
}

impl Slot {
    const fn of(self, cluster: &mut Cluster) -> &mut Option<Version> {
        match self {
            Self::Active => &mut cluster.active,
            Self::Warming => &mut cluster.warming,
        }
    }
}

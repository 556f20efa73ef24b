//! What the managers see of the world: publication to workers, subscriptions, lookups, statistics.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use filters::config::Session;
use stats::{GroupHandle, SharedCounter, Store};
use xds_client::{Client, Hub, Interest, SourceConfig, SubscribeError, Subscription};

use super::clusters::{
    ClusterObserver, ClusterSink, EdsSubscriber, EndpointUpdate, HealthCount, HealthEvent, MergeEvent, OutlierEvent,
    Phase, Probe, Prober, PublishedCluster, SecretKeeper, WatchId,
};
use super::dns::driver::HickoryResolver;
use super::dns::{LookupId, Question, Resolver};
use super::health::counts::HealthCounts;
use super::health::log::HealthLogs;
use super::health::probes::Probes;
use super::lb_stats::LbStats;
use super::listeners::ListenerSink;
use super::listeners::sockets::ListenSocket;
use super::observer::{Reloads, SubscriptionScope};
use super::outlier_log::{OutlierCounts, OutlierLog};
use super::routes::Subscriber;
use super::secrets::{Secrets, SecretsUse, Side};
use crate::config::cluster::{ClusterConfig, Discovery, EdsConfig, SocketMatch};
use crate::config::filter_chain::FilterChain;
use crate::downstream::accept::ActiveListener;
use crate::observe::access_log::{LogFile, LogFiles};
use crate::observe::catalogue::{ClusterManagerStats, ClusterStats};
use crate::observe::threads::ThreadClusters;
use crate::tls::SecretUser;
use crate::tls::client::ClientContext;
use crate::upstream::cluster::ClusterShared;
use crate::upstream::host::{HostSet, Membership};
use crate::worker::mailbox::{ListenerChange, Publisher};

/// The xDS client, once the bootstrap said where to find control planes.
#[derive(Default)]
pub struct Sources(RefCell<Option<Rc<Hub>>>);

impl Sources {
    /// Makes the client known.
    pub fn set(&self, hub: Rc<Hub>) {
        *self.0.borrow_mut() = Some(hub);
    }
}

impl Sources {
    /// Whether this is the aggregated stream.
    #[must_use]
    pub fn is_ads(&self, client: &Client) -> bool {
        let ads = self.0.borrow().as_ref().and_then(|hub| hub.ads());
        ads.is_some_and(|ads| ads.same_source(client))
    }
}

impl Subscriber for Sources {
    fn subscribe(&self, source: &SourceConfig, interest: Interest) -> Result<Subscription, SubscribeError> {
        let hub = self.0.borrow().clone();
        hub.ok_or(SubscribeError::NoAds)?.subscribe(source, interest)
    }
}

/// The cluster manager's world.
pub struct ClusterWorld {
    publisher: Publisher,
    store: Arc<Store>,
    sources: Rc<Sources>,
    resolver: HickoryResolver,
    probes: Probes,
    /// `health_check.*` of clusters that have any, in use or warming.
    health: HashMap<Arc<str>, HealthCounts>,
    health_logs: HealthLogs,
    stats: ClusterManagerStats,
    _group: Arc<GroupHandle<ClusterManagerStats>>,
    clusters: HashMap<Arc<str>, Published>,
    inflated: ThreadClusters,
    reloads: Option<Reloads>,
    outlier_log: Option<OutlierLog>,
    watches: HashMap<WatchId, Watch>,
    secrets: Rc<Secrets>,
    /// The newest phase of start-up, for whoever waits for it.
    phase: Phase,
}

/// What is known of a cluster that the workers use.
struct Published {
    /// Keeps its statistics in the scrape.
    shared: Arc<ClusterShared>,
    /// Control's shard of them.
    stats: ClusterStats,
    lb: LbStats,
    /// `outlier_detection.*`, where outliers are detected.
    outliers: Option<OutlierCounts>,
    /// Hosts by the transport socket match they fall under.
    sockets: Vec<SharedCounter>,
    /// The hosts published last.
    hosts: Arc<HostSet>,
}

struct Watch {
    service_name: Arc<str>,
    subscription: Subscription,
}

impl ClusterWorld {
    /// A world without clusters.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        store: Arc<Store>,
        sources: Rc<Sources>,
        resolver: HickoryResolver,
        probes: Probes,
        files: Arc<LogFiles>,
        secrets: Rc<Secrets>,
    ) -> Self {
        let group = store.group::<ClusterManagerStats>("cluster_manager.");
        Self {
            stats: group.shard(store.control_shard()),
            _group: group,
            inflated: ThreadClusters::new(&store, "main_thread", store.control_shard()),
            reloads: None,
            outlier_log: None,
            publisher,
            store,
            sources,
            resolver,
            probes,
            health: HashMap::new(),
            health_logs: HealthLogs::new(files),
            clusters: HashMap::new(),
            watches: HashMap::new(),
            secrets,
            phase: Phase::Loading,
        }
    }

    /// Clusters are discovered, and counted below `prefix`: so are updates that were taken into use.
    pub fn count_reloads(&mut self, prefix: &str) {
        self.reloads = Some(Reloads::new(&self.store, prefix));
    }

    /// Outlier events are written to this file.
    pub fn log_outliers(&mut self, file: Arc<LogFile>) {
        self.outlier_log = Some(OutlierLog::new(file));
    }

    /// The subscriptions to assignments of this name (to all of them, if there is none) at a source. The newest is first,
    /// as in Envoy: a version that warms takes over before the one in use hears of the same update.
    #[must_use]
    pub fn watches_at(&self, source: &Client, service_name: Option<&str>) -> Vec<WatchId> {
        let meant = |(_, watch): &(&WatchId, &Watch)| {
            watch.subscription.client().same_source(source)
                && service_name.is_none_or(|name| &*watch.service_name == name)
        };
        let mut watches: Vec<_> = self.watches.iter().filter(meant).map(|(id, _)| *id).collect();
        watches.sort_unstable_by(|a, b| b.cmp(a));
        watches
    }

    /// A cluster as it was published last.
    #[must_use]
    pub fn published(&self, name: &str) -> Option<Arc<ClusterShared>> {
        self.clusters.get(name).map(|published| Arc::clone(&published.shared))
    }

    fn with_cluster(&self, name: &Arc<str>, count: impl FnOnce(&ClusterConfig, &ClusterStats)) {
        if let Some(Published { shared, stats, .. }) = self.clusters.get(name) {
            count(&shared.config, stats);
        }
    }
}

impl ClusterSink for ClusterWorld {
    fn publish(&mut self, cluster: PublishedCluster) {
        let PublishedCluster { config, breakers, hosts } = cluster;
        let name = Arc::clone(&config.name);
        let shared = ClusterShared::new(config, breakers, &self.store);
        let stats = shared.stats().shard(self.store.control_shard());
        count_members(&shared.config, &stats, &hosts.membership());
        let total = |of: &SocketMatch| {
            self.store.counter(&format!("cluster.{}.{}.total_match_count", shared.config.stat_name, of.name))
        };
        let sockets: Vec<_> = shared.config.connection.socket_matches.iter().map(total).collect();
        count_matches(&shared.config, (&stats, &sockets), &HostSet::empty(), &hosts);
        let (config, lb) = (&shared.config.lb, LbStats::new(&shared.config, &self.store));
        hosts.prepare(config);
        lb.changed(config, &stats, None, &hosts);
        let detects = shared.config.outlier_detection.is_some();
        let outliers = detects.then(|| OutlierCounts::new(&self.store, &shared.config.stat_name));
        self.publisher.each(|mailbox| mailbox.cluster(&name, Arc::clone(&shared), Arc::clone(&hosts)));
        self.clusters.insert(name, Published { shared, stats, lb, outliers, sockets, hosts });
        self.inflated.set(self.clusters.len());
    }

    fn publish_hosts(&mut self, name: &Arc<str>, hosts: &Arc<HostSet>) {
        if let Some(published) = self.clusters.get_mut(name) {
            let Published { shared, stats, lb, outliers: _, sockets, hosts: known } = published;
            hosts.prepare(&shared.config.lb);
            lb.changed(&shared.config.lb, stats, Some(known), hosts);
            count_matches(&shared.config, (stats, sockets), known, hosts);
            *known = Arc::clone(hosts);
        }
        self.publisher.each(|mailbox| mailbox.hosts(name, Arc::clone(hosts)));
    }

    fn host_failed(&mut self, name: &Arc<str>, host: u64) {
        self.publisher.each(|mailbox| mailbox.host_failed(name, host));
    }

    fn remove(&mut self, name: &Arc<str>) {
        self.publisher.each(|mailbox| mailbox.remove_cluster(name));
        self.clusters.remove(name);
        self.inflated.set(self.clusters.len());
    }
}

impl EdsSubscriber for ClusterWorld {
    fn subscribe(&mut self, watch: WatchId, stat_name: &str, eds: &EdsConfig) {
        let EdsConfig { service_name, source, initial_fetch_timeout } = eds;
        let scope = SubscriptionScope::new(&self.store, &format!("cluster.{stat_name}."));
        let interest = Interest::name(xds_client::ENDPOINTS, &**service_name)
            .initial_fetch_timeout(*initial_fetch_timeout)
            .observed_by(scope);
        match self.sources.subscribe(source, interest) {
            Ok(subscription) => {
                let watch_of = Watch { service_name: Arc::clone(service_name), subscription };
                self.watches.insert(watch, watch_of);
            }
            Err(error) => {
                tracing::warn!(target: "upstream", "endpoints of {service_name:?} cannot be subscribed to: {error}");
            }
        }
    }

    fn unsubscribe(&mut self, watch: WatchId) {
        self.watches.remove(&watch);
    }
}

impl Resolver for ClusterWorld {
    fn resolve(&mut self, id: LookupId, question: Question) {
        self.resolver.resolve(id, question);
    }

    fn cancel(&mut self, id: LookupId) {
        self.resolver.cancel(id);
    }
}

impl Prober for ClusterWorld {
    fn probe(&mut self, probe: Probe) {
        self.probes.ask(probe);
    }

    fn end_probes(&mut self, host: u64) {
        self.probes.end(host);
    }

    fn had_connections(&self, name: &str) -> bool {
        let total = |published: &Published| published.shared.stats().total(|stats| stats.upstream_cx_total().value());
        self.clusters.get(name).is_some_and(|published| total(published) > 0)
    }
}

impl SecretKeeper for ClusterWorld {
    fn require_secrets(&mut self, config: &Arc<ClusterConfig>) -> Result<Vec<SecretsUse>, String> {
        let session = Session::default();
        let owner = format!("cluster.{}.", config.stat_name);
        let use_of = |context: &Arc<ClientContext>| {
            let context: Arc<dyn SecretUser> = Arc::clone(context) as _;
            let used = self.secrets.require(&session.root().field("transport_socket"), &context, &owner, Side::Client);
            used.map_err(|error| error.to_string())
        };
        config.connection.tls_contexts().map(use_of).collect()
    }
}

impl ClusterObserver for ClusterWorld {
    fn cluster_added(&mut self, name: &Arc<str>) {
        tracing::debug!(target: "upstream", "add/update cluster {name}");
        self.stats.cluster_added().inc();
    }

    fn cluster_modified(&mut self, _: &Arc<str>) {
        self.stats.cluster_modified().inc();
    }

    fn cluster_updated(&mut self) {
        self.stats.cluster_updated().inc();
    }

    fn cluster_removed(&mut self, name: &Arc<str>) {
        tracing::debug!(target: "upstream", "removing cluster {name}");
        self.health.remove(name);
        self.health_logs.close(name);
        self.stats.cluster_removed().inc();
    }

    fn clusters_reloaded(&mut self) {
        if let Some(reloads) = &self.reloads {
            reloads.count();
        }
    }

    fn cluster_counts(&mut self, active: usize, warming: usize) {
        self.stats.active_clusters().set(active as u64);
        self.stats.warming_clusters().set(warming as u64);
    }

    fn membership(&mut self, name: &Arc<str>, membership: Membership, changes: usize) {
        self.with_cluster(name, |config, stats| {
            count_members(config, stats, &membership);
            stats.membership_change().add(changes as u64);
        });
    }

    fn endpoint_update(&mut self, name: &Arc<str>, result: EndpointUpdate) {
        self.with_cluster(name, |config, stats| match result {
            // The subscription counts these itself.
            EndpointUpdate::Success | EndpointUpdate::Failure if matches!(config.discovery, Discovery::Eds(_)) => {}
            EndpointUpdate::Success => stats.update_success().inc(),
            EndpointUpdate::NoRebuild => stats.update_no_rebuild().inc(),
            EndpointUpdate::Empty => stats.update_empty().inc(),
            EndpointUpdate::Failure => stats.update_failure().inc(),
            EndpointUpdate::InitFetchTimeout => {}
            EndpointUpdate::UsedCached => stats.assignment_use_cached().inc(),
            EndpointUpdate::Stale => stats.assignment_stale().inc(),
        });
    }

    fn merge(&mut self, event: MergeEvent) {
        match event {
            MergeEvent::Published => self.stats.cluster_updated_via_merge().inc(),
            MergeEvent::Cancelled => self.stats.update_merge_cancelled().inc(),
            MergeEvent::OutOfWindow => self.stats.update_out_of_merge_window().inc(),
        }
    }

    fn outlier(&mut self, name: &Arc<str>, event: &OutlierEvent) {
        if let Some(counts) = self.clusters.get(name).and_then(|published| published.outliers.as_ref()) {
            counts.count(event);
        }
        if let Some(log) = &self.outlier_log {
            log.write(name, event, SystemTime::now());
        }
    }

    fn health(&mut self, config: &ClusterConfig, count: HealthCount) {
        let counts = self.health.entry(Arc::clone(&config.name));
        counts.or_insert_with(|| HealthCounts::new(&self.store, &config.stat_name)).count(count);
    }

    fn health_event(&mut self, config: &ClusterConfig, event: &HealthEvent) {
        self.health_logs.write(config, event, SystemTime::now());
    }

    fn open_logs(&mut self, config: &ClusterConfig) -> Result<(), String> {
        self.health_logs.open(config)
    }

    fn phase(&mut self, phase: Phase) {
        tracing::debug!(target: "upstream", "cluster manager: {phase:?}");
        self.phase = phase;
    }
}

fn count_members(config: &ClusterConfig, stats: &ClusterStats, membership: &Membership) {
    stats.membership_total().set(membership.total as u64);
    stats.membership_healthy().set(membership.healthy as u64);
    stats.membership_degraded().set(membership.degraded as u64);
    stats.membership_excluded().set(membership.excluded as u64);
    // Envoy looks at weights only where hosts come one by one.
    if matches!(config.discovery, Discovery::Eds(_) | Discovery::StrictDns(_)) {
        stats.max_host_weight().set(membership.max_weight.into());
    }
}

/// Each new host is matched with a transport socket: the first whose criteria its metadata meets, else the cluster's own
/// (`default`).
fn count_matches(
    config: &ClusterConfig,
    (stats, sockets): (&ClusterStats, &[SharedCounter]),
    before: &HostSet,
    after: &HostSet,
) {
    let before: HashSet<_> = before.hosts().map(Arc::as_ptr).collect();
    for host in after.hosts().filter(|host| !before.contains(&Arc::as_ptr(host))) {
        let metadata = host.attributes().metadata.as_deref();
        let meets = |of: &SocketMatch| of.criteria.matches_in("envoy.transport_socket_match", metadata, false);
        let matched = config.connection.socket_matches.iter().position(meets);
        match matched.and_then(|index| sockets.get(index)) {
            Some(counter) => counter.inc(),
            None => stats.default_total_match_count().inc(),
        }
    }
}

/// Carries the listener manager's decisions to the workers.
pub struct ListenerWorld(pub Publisher);

impl ListenerSink for ListenerWorld {
    fn activate(&mut self, listener: &Arc<ActiveListener>, sockets: &[Arc<ListenSocket>]) {
        let sockets: Arc<[Arc<ListenSocket>]> = sockets.into();
        let change = || ListenerChange::Activate(Arc::clone(listener), Arc::clone(&sockets));
        self.0.each(|mailbox| mailbox.listener(change()));
    }

    fn stop(&mut self, listener: &Arc<ActiveListener>) {
        self.0.each(|mailbox| mailbox.listener(ListenerChange::Stop(listener.id)));
    }

    fn close(&mut self, listener: &Arc<ActiveListener>, chains: Option<&[Arc<FilterChain>]>) {
        let chains: Option<Arc<[Arc<FilterChain>]>> = chains.map(Into::into);
        self.0.each(|mailbox| mailbox.listener(ListenerChange::Close(listener.id, chains.clone())));
    }
}

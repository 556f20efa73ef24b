//! What the cluster manager is told and tells: its traits, and the words they use.

use std::sync::Arc;

use super::ClusterResource;
use super::health::{HealthCount, HealthEvent, Probe};
use super::outlier::OutlierEvent;
use crate::config::cluster::{ClusterConfig, EdsConfig};
use crate::control::secrets::SecretsUse;
use crate::upstream::breaker::Breakers;
use crate::upstream::host::{HostSet, Membership};

/// Number of one subscription to an assignment; assignments carry it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(pub u64);

/// What the workers are told. Each call replaces what was said about that cluster before.
pub trait ClusterSink {
    /// A new version of a cluster, with its hosts. Pools of the version before drain.
    fn publish(&mut self, cluster: PublishedCluster);
    /// Other hosts of the present version. Pools of hosts that are gone drain.
    fn publish_hosts(&mut self, name: &Arc<str>, hosts: &Arc<HostSet>);
    /// A host, known by the number of its state, failed its health checks or was ejected: its pools drain at once, before the
    /// workers hear of other hosts.
    fn host_failed(&mut self, name: &Arc<str>, host: u64);
    /// No such cluster any more. Its pools drain.
    fn remove(&mut self, name: &Arc<str>);
}

/// Who asks hosts whether they are well. Answers go to `on_checked`.
pub trait Prober {
    /// Asks. The connection of an earlier check of the same host serves again, if it may.
    fn probe(&mut self, probe: Probe);
    /// A host is asked no more; neither is an answer awaited. It is known by the number of its state.
    fn end_probes(&mut self, host: u64);
    /// Whether the cluster ever had a connection other than for health checks.
    fn had_connections(&self, name: &str) -> bool;
}

/// A version of a cluster as the workers get it.
#[derive(Debug, Clone)]
pub struct PublishedCluster {
    /// What it says about itself.
    pub config: Arc<ClusterConfig>,
    /// Its circuit breakers, shared by all workers.
    pub breakers: Arc<Breakers>,
    /// Its hosts.
    pub hosts: Arc<HostSet>,
}

/// Where assignments come from. A subscription to a name that is subscribed already has to ask the server again (Envoy
/// does so in the state of the world only: docs/compatibility.md, "xDS"), and delivers what is known at the latest when the server repeats it.
pub trait EdsSubscriber {
    /// Asks for the assignment of `eds.service_name`; every version of it goes to `on_assignment` with this number. It is
    /// counted below `cluster.<stat_name>.`.
    fn subscribe(&mut self, watch: WatchId, stat_name: &str, eds: &EdsConfig);
    /// The assignment is not wanted any more.
    fn unsubscribe(&mut self, watch: WatchId);
}

/// Who finds secrets by name.
pub trait SecretKeeper {
    /// A version of a cluster is to be used: its TLS contexts are given what secrets there are.
    ///
    /// # Errors
    /// When one names a secret that cannot be had, or cannot be made of what there is.
    fn require_secrets(&mut self, config: &Arc<ClusterConfig>) -> Result<Vec<SecretsUse>, String>;
}

/// Who counts. Every method does nothing unless implemented.
#[expect(unused_variables, reason = "the defaults ignore what they are told")]
pub trait ClusterObserver {
    /// `cluster_manager.cluster_added`.
    fn cluster_added(&mut self, name: &Arc<str>) {}
    /// `cluster_manager.cluster_modified`.
    fn cluster_modified(&mut self, name: &Arc<str>) {}
    /// `cluster_manager.cluster_updated`: hosts of a cluster in use were published, on their own.
    fn cluster_updated(&mut self) {}
    /// `cluster_manager.cluster_removed`.
    fn cluster_removed(&mut self, name: &Arc<str>) {}
    /// `cluster_manager.cds.config_reload`: a response changed or added clusters, all of them good.
    fn clusters_reloaded(&mut self) {}
    /// `cluster_manager.{active,warming}_clusters`.
    fn cluster_counts(&mut self, active: usize, warming: usize) {}
    /// Hosts of a cluster after an update: the `membership_*` gauges, `max_host_weight`; hosts came or went in so many of
    /// its priorities (`membership_change`).
    fn membership(&mut self, name: &Arc<str>, membership: Membership, changes: usize) {}
    /// An endpoint update or DNS answer (`update_attempt`, `update_success`, ...).
    fn endpoint_update(&mut self, name: &Arc<str>, result: EndpointUpdate) {}
    /// `cluster_manager.{cluster_updated_via_merge,update_merge_cancelled,update_out_of_merge_window}`.
    fn merge(&mut self, event: MergeEvent) {}
    /// `outlier_detection.*`, and the log of outlier events.
    fn outlier(&mut self, name: &Arc<str>, event: &OutlierEvent) {}
    /// `health_check.*`
    fn health(&mut self, config: &ClusterConfig, count: HealthCount) {}
    /// The log of health check events.
    fn health_event(&mut self, config: &ClusterConfig, event: &HealthEvent) {}
    /// A version of a cluster is to be taken up, which has files to log to.
    ///
    /// # Errors
    /// When one cannot be opened: the version is refused.
    fn open_logs(&mut self, config: &ClusterConfig) -> Result<(), String> {
        Ok(())
    }
    /// Start-up reached a phase.
    fn phase(&mut self, phase: Phase) {}
}

/// What became of an endpoint update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointUpdate {
    /// Applied (`update_success`).
    Success,
    /// Applied, and nothing changed (`update_success`, `update_no_rebuild`).
    NoRebuild,
    /// An answer without endpoints (`update_empty`).
    Empty,
    /// There was none (`update_failure`).
    Failure,
    /// The first assignment did not come in time (`init_fetch_timeout`).
    InitFetchTimeout,
    /// The assignment of the version before was used instead (`assignment_use_cached`).
    UsedCached,
    /// The assignment was not renewed in time and its hosts are gone (`assignment_stale`).
    Stale,
}

/// What became of a host update that could wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeEvent {
    /// Waiting updates were published as one.
    Published,
    /// Waiting updates went out with one that could not wait.
    Cancelled,
    /// The last publication is so long ago that there was nothing to wait for.
    OutOfWindow,
}

/// How far start-up has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Static clusters are being added.
    Loading,
    /// Static clusters that need no other cluster are finding their hosts.
    Primary,
    /// The runtime's layers are being discovered, if there are any to discover.
    Runtime,
    /// Static clusters that ask a control plane for their hosts are finding them.
    Secondary,
    /// CDS may be asked, and its clusters are finding their hosts.
    Cds,
    /// All clusters are there.
    Initialized,
}

/// A discovery response about clusters.
#[derive(Debug)]
pub struct CdsUpdate {
    /// The clusters in it.
    pub resources: Vec<ClusterResource>,
    /// The clusters it removes.
    pub removed: Removed,
    /// Its version.
    pub version: Arc<str>,
}

/// Which clusters a response removes.
#[derive(Debug)]
pub enum Removed {
    /// State of the world: all that are not in it.
    Others,
    /// Delta: these.
    Names(Vec<String>),
}

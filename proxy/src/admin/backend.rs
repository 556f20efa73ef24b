//! What the admin pages ask of the control thread, and what it answers: plain data, nothing shared.
//!
//! The admin thread sends an [`AdminRequest`] and waits for its reply with a time limit; the control thread answers from
//! its managers' views and never waits for the admin thread. Pages that must answer whatever the control thread is doing
//! (`/ready`, `/server_info`, `/stats`) need none of this.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use filters::stream_info::Address;
use tokio::sync::{mpsc, oneshot};

use crate::control::secrets::ContextView;
use crate::runtime::RuntimeView;
use crate::upstream::host::{HealthFlags, HostStats, Locality};

/// Where an answer goes. Dropping it unanswered makes the page say that the server is shutting down.
pub type Reply<T> = oneshot::Sender<T>;

/// A question or command of an admin page.
#[derive(Debug)]
pub enum AdminRequest {
    /// `/clusters`.
    Clusters(Reply<Vec<ClusterView>>),
    /// `/certs`
    Certificates(Reply<Vec<ContextView>>),
    /// `/listeners`: those that are active.
    Listeners(Reply<Vec<ListenerView>>),
    /// `/config_dump`.
    ConfigDump {
        /// Endpoints are wanted too.
        include_eds: bool,
        /// The answer.
        reply: Reply<ConfigDump>,
    },
    /// `/init_dump`: what start-up or warming still waits for, by manager.
    InitDump(Reply<Vec<UnreadyTargets>>),
    /// `/drain_listeners`.
    Drain(DrainRequest, Reply<()>),
    /// `/healthcheck/fail` (true) and `/healthcheck/ok` (false).
    HealthcheckFail(bool, Reply<()>),
    /// `/reopen_logs`.
    ReopenLogs(Reply<()>),
    /// `/quitquitquit`.
    Quit(Reply<()>),
    /// `/runtime`.
    Runtime(Reply<RuntimeView>),
    /// `/runtime_modify`: keys and values, an empty value removes. The error is the reason, for the page.
    RuntimeModify(Vec<(String, String)>, Reply<Result<(), String>>),
}

/// How `/drain_listeners` wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// Connections are drained over `--drain-time-s` before listeners stop.
    pub graceful: bool,
    /// Only listeners whose `traffic_direction` is `INBOUND`.
    pub inbound_only: bool,
    /// Connections are drained, listeners never stop.
    pub skip_exit: bool,
}

/// A cluster as `/clusters` shows it.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// `alt_stat_name`, or its name.
    pub observability_name: String,
    /// `eds_cluster_config.service_name`; empty if none.
    pub eds_service_name: String,
    /// It came from a control plane.
    pub added_via_api: bool,
    /// Limits of the default priority, then of the high one.
    pub thresholds: [ThresholdsView; 2],
    /// Set when outlier detection is on.
    pub outlier: Option<OutlierView>,
    /// Hosts in the order of their priorities.
    pub hosts: Vec<HostView>,
}

/// Limits of one priority.
#[derive(Debug, Clone, Copy)]
pub struct ThresholdsView {
    /// `max_connections`.
    pub max_connections: u64,
    /// `max_pending_requests`.
    pub max_pending_requests: u64,
    /// `max_requests`.
    pub max_requests: u64,
    /// `max_retries`.
    pub max_retries: u64,
}

/// What outlier detection computed last; `None` is not known yet and prints as -1.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutlierView {
    /// Average success rate in percent.
    pub success_rate_average: Option<f64>,
    /// Hosts below it are ejected.
    pub success_rate_ejection_threshold: Option<f64>,
    /// The same over locally originated failures.
    pub local_origin_success_rate_average: Option<f64>,
    /// The same over locally originated failures.
    pub local_origin_success_rate_ejection_threshold: Option<f64>,
}

/// A host as `/clusters` shows it.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Where connections go.
    pub address: Address,
    /// The name it was given or resolved from; empty if none.
    pub hostname: String,
    /// Sums over all workers.
    pub stats: HostStats,
    /// Why it is not healthy.
    pub health: HealthFlags,
    /// Load-balancing weight.
    pub weight: u32,
    /// Where it runs.
    pub locality: Locality,
    /// Marked as canary in its metadata.
    pub canary: bool,
    /// Its priority.
    pub priority: u32,
    /// Success rate in percent, if outlier detection knows it.
    pub success_rate: Option<f64>,
    /// The same over locally originated failures.
    pub local_origin_success_rate: Option<f64>,
}

/// A listener as `/listeners` shows it.
#[derive(Debug, Clone)]
pub struct ListenerView {
    /// Its name.
    pub name: String,
    /// The addresses it is bound to (with the port the kernel chose), the configured main one first.
    pub addresses: Vec<Address>,
}

/// Everything `/config_dump` can show, as the bytes that were received.
#[derive(Debug, Clone, Default)]
pub struct ConfigDump {
    /// The bootstrap as it was loaded, with the node as it is sent to control planes.
    pub bootstrap: Option<(Bytes, SystemTime)>,
    /// `version_info` of the last accepted CDS update.
    pub clusters_version: String,
    /// Clusters of the bootstrap.
    pub static_clusters: Vec<ConfigDumpEntry>,
    /// Clusters of the control plane in use; those that only failed have just a name and an error state.
    pub dynamic_active_clusters: Vec<ConfigDumpEntry>,
    /// Clusters that wait for endpoints or secrets.
    pub dynamic_warming_clusters: Vec<ConfigDumpEntry>,
    /// Assignments of clusters of the bootstrap, if asked for.
    pub static_endpoints: Vec<ConfigDumpEntry>,
    /// Assignments of clusters of the control plane, if asked for.
    pub dynamic_endpoints: Vec<ConfigDumpEntry>,
    /// `version_info` of the last accepted LDS update.
    pub listeners_version: String,
    /// Listeners of the bootstrap.
    pub static_listeners: Vec<ConfigDumpEntry>,
    /// Listeners of the control plane.
    pub dynamic_listeners: Vec<DynamicListenerDump>,
    /// Some listener speaks HTTP; without one there is nothing to say about routes, not even that there are none.
    pub speaks_http: bool,
    /// Route configurations inside listeners.
    pub static_routes: Vec<ConfigDumpEntry>,
    /// Route configurations of the control plane.
    pub dynamic_routes: Vec<ConfigDumpEntry>,
    /// Secrets of the bootstrap.
    pub static_secrets: Vec<ConfigDumpEntry>,
    /// Secrets of the control plane in use.
    pub dynamic_active_secrets: Vec<ConfigDumpEntry>,
    /// Secrets still waited for.
    pub dynamic_warming_secrets: Vec<ConfigDumpEntry>,
}

/// One resource of a dump.
#[derive(Debug, Clone, Default)]
pub struct ConfigDumpEntry {
    /// The resource's name.
    pub name: String,
    /// The version it came with; empty for static ones.
    pub version_info: String,
    /// Its type and bytes; `None` if it never was accepted.
    pub resource: Option<RawResource>,
    /// When it was accepted.
    pub last_updated: Option<SystemTime>,
    /// The update that was refused after it.
    pub error_state: Option<ErrorState>,
}

/// A listener of the control plane, with all its versions.
#[derive(Debug, Clone, Default)]
pub struct DynamicListenerDump {
    /// Its name.
    pub name: String,
    /// What serves now.
    pub active: Option<ConfigDumpEntry>,
    /// What waits for routes or secrets.
    pub warming: Option<ConfigDumpEntry>,
    /// What finishes its connections.
    pub draining: Option<ConfigDumpEntry>,
    /// The update that was refused.
    pub error_state: Option<ErrorState>,
}

/// A resource as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawResource {
    /// Its type URL.
    pub type_url: &'static str,
    /// Its wire bytes.
    pub bytes: Bytes,
}

/// Why the latest version of a resource is not in use (`envoy.admin.v3.UpdateFailureState`).
#[derive(Debug, Clone, Default)]
pub struct ErrorState {
    /// What was refused; `None` when its bytes were not kept.
    pub failed_configuration: Option<RawResource>,
    /// When.
    pub last_update_attempt: Option<SystemTime>,
    /// Why.
    pub details: String,
    /// The version that was refused.
    pub version_info: String,
}

/// What one manager still waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadyTargets {
    /// The manager: `init manager Server`.
    pub name: String,
    /// What it waits for.
    pub target_names: Vec<String>,
}

/// The admin thread's end of the channel to the control thread.
#[derive(Debug, Clone)]
pub struct AdminBackend {
    requests: mpsc::Sender<AdminRequest>,
    timeout: Duration,
}

/// Why a page cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The control thread has too many unanswered requests, or did not answer in time.
    #[error("the control thread is busy")]
    Busy,
    /// The control thread is gone or gave no answer.
    #[error("the server is shutting down")]
    Gone,
}

impl AdminBackend {
    /// A channel: the backend for the admin server, the receiver for the control thread.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<AdminRequest>) {
        let (requests, receiver) = mpsc::channel(64);
        (Self { requests, timeout: Duration::from_secs(30) }, receiver)
    }

    /// Asks and waits, 30 seconds at most.
    ///
    /// # Errors
    /// When the control thread is busy or gone.
    pub async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> AdminRequest) -> Result<T, BackendError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.try_send(request(reply));
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BackendError::Busy,
            mpsc::error::TrySendError::Closed(_) => BackendError::Gone,
        })?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|_| BackendError::Gone),
            Err(_) => Err(BackendError::Busy),
        }
    }
}

/// Groups named targets by manager, dropping managers that wait for nothing: what [`AdminRequest::InitDump`] is answered
/// with.
#[must_use]
pub fn unready(targets: impl IntoIterator<Item = (String, String)>) -> Vec<UnreadyTargets> {
    let mut by_manager: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (manager, target) in targets {
        by_manager.entry(manager).or_default().push(target);
    }
    by_manager.into_iter().map(|(name, target_names)| UnreadyTargets { name, target_names }).collect()
}

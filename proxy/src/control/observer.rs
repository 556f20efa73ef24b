//! Subscription and control-plane statistics, under Envoy's names.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use stats::{GroupHandle, Store, TextReadout};
use xds_client::{Accepted, SourceObserver, SubscriptionObserver};

use crate::observe::catalogue::{ControlPlaneStats, ReloadStats, SubscriptionStats};

/// The statistics of one subscription, below a scope such as `cluster_manager.cds.`.
pub struct SubscriptionScope {
    stats: SubscriptionStats,
    version_text: TextReadout,
    store: Arc<Store>,
    prefix: Box<str>,
    _group: Arc<GroupHandle<SubscriptionStats>>,
}

/// Updates that were taken into use.
pub struct Reloads {
    stats: ReloadStats,
    _group: Arc<GroupHandle<ReloadStats>>,
}

impl Reloads {
    /// `config_reload` and `config_reload_time_ms` below `prefix`, which ends in a dot.
    #[must_use]
    pub fn new(store: &Arc<Store>, prefix: &str) -> Self {
        let group = store.group::<ReloadStats>(prefix);
        Self { stats: group.shard(store.control_shard()), _group: group }
    }

    /// Counts one, now.
    pub fn count(&self) {
        self.stats.config_reload().inc();
        self.stats.config_reload_time_ms().set(millis_now());
    }
}

/// Milliseconds since 1970.
fn millis_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl SubscriptionScope {
    /// The scope `prefix`, which ends in a dot.
    #[must_use]
    pub fn new(store: &Arc<Store>, prefix: &str) -> Rc<Self> {
        let group = store.group::<SubscriptionStats>(prefix);
        Rc::new(Self {
            stats: group.shard(store.control_shard()),
            version_text: store.text(&format!("{prefix}version_text")),
            store: Arc::clone(store),
            prefix: prefix.into(),
            _group: group,
        })
    }
}

impl SubscriptionObserver for SubscriptionScope {
    fn attempt(&self) {
        self.stats.update_attempt().inc();
    }

    fn success(&self, accepted: &Accepted<'_>) {
        let stats = &self.stats;
        stats.update_success().inc();
        stats.version().set(accepted.version_hash());
        self.version_text.set(accepted.version);
        stats.update_duration().record(u64::try_from(accepted.duration.as_millis()).unwrap_or(u64::MAX));
        stats.update_time().set(millis_now());
    }

    fn failure(&self) {
        self.stats.update_failure().inc();
    }

    fn rejected(&self) {
        self.stats.update_rejected().inc();
    }

    fn init_fetch_timeout(&self) {
        self.stats.init_fetch_timeout().inc();
    }

    fn source(&self) -> Rc<dyn SourceObserver> {
        ControlPlaneScope::new(&self.store, &self.prefix)
    }
}

/// `control_plane.`, below the scope of the subscription that has a stream of its own.
pub struct ControlPlaneScope {
    stats: ControlPlaneStats,
    identifier: TextReadout,
    _group: Arc<GroupHandle<ControlPlaneStats>>,
}

impl ControlPlaneScope {
    /// The statistics of a stream below `scope`, which ends in a dot; those of the aggregated one are below none.
    #[must_use]
    pub fn new(store: &Arc<Store>, scope: &str) -> Rc<Self> {
        let prefix = format!("{scope}control_plane.");
        let group = store.group::<ControlPlaneStats>(&prefix);
        Rc::new(Self {
            stats: group.shard(store.control_shard()),
            identifier: store.text(&format!("{prefix}identifier")),
            _group: group,
        })
    }
}

impl SourceObserver for ControlPlaneScope {
    fn connected(&self, connected: bool) {
        self.stats.connected_state().set(connected.into());
    }

    fn pending_requests(&self, count: usize) {
        self.stats.pending_requests().set(count as u64);
    }

    fn rate_limit_enforced(&self) {
        self.stats.rate_limit_enforced().inc();
    }

    fn identifier(&self, identifier: &str) {
        self.identifier.set(identifier);
    }
}

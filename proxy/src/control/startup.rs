//! How the server comes up: static resources are added (or only checked), then [`Control::advance`] goes from stage to stage
//! as far as what has arrived allows, until the workers may accept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use filters::config::ConfigError;
use xds_client::{Interest, SourceConfig};

use super::clusters::{ClusterResource, Phase};
use super::listeners::Origin;
use super::observer::SubscriptionScope;
use super::{Control, ServerState, listeners, now, routes};
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::listener::ListenerConfig;

impl Control {
    /// Adds a static cluster.
    ///
    /// # Errors
    /// When it is invalid or its name is taken.
    pub fn add_static_cluster(&self, resource: ClusterResource) -> Result<(), String> {
        self.clusters.borrow_mut().add_static(resource, SystemTime::now())
    }

    /// Checks that static clusters get their endpoints from where they can be had, once all of them are known.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong.
    pub fn check_static_clusters(&self) -> Result<(), String> {
        self.clusters.borrow().views().try_for_each(|view| {
            self.check_sources_of(view.config).map_err(|error| format!("cluster {:?}: {error}", view.config.name))
        })
    }

    pub(super) fn check_sources_of(&self, config: &ClusterConfig) -> Result<(), ConfigError> {
        let session = self.env.session();
        let root = session.root();
        for context in config.connection.tls_contexts() {
            self.secrets.check(&root.field("transport_socket"), &**context)?;
        }
        let Discovery::Eds(eds) = &config.discovery else { return Ok(()) };
        let at = root.field("eds_cluster_config");
        self.env.check_source(&at.field("eds_config"), &eds.source, xds_client::ENDPOINTS)
    }

    /// Adds a static listener; it serves once the server is live.
    ///
    /// # Errors
    /// When it is invalid, or its address is not to be had.
    pub fn add_static_listener(&self, name: &str, raw: &bytes::Bytes) -> Result<(), String> {
        let session = self.env.session();
        let applied = self.listeners.borrow_mut().apply(&session, Origin::Static, name, raw, now());
        self.env.say(&format!("listener {name:?}"), &session);
        applied.map(drop).map_err(|error| error.to_string())
    }

    /// Checks static listeners as [`Self::add_static_listener`] would, and binds nothing.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong.
    pub fn validate_listeners(&self, listeners: &[(String, bytes::Bytes)]) -> Result<(), String> {
        let mut join = self.join.clone();
        // A later listener of the same name is an update of the earlier one.
        let mut accepted: BTreeMap<Arc<str>, Arc<ListenerConfig>> = BTreeMap::new();
        for (number, (name, raw)) in (0..).zip(listeners) {
            let session = self.env.session();
            let mut check = || {
                let config = Arc::new(ListenerConfig::parse(&session.root(), raw)?);
                listeners::refuse_duplicate(&session, &config, accepted.values().map(|other| &**other))?;
                listeners::Dependencies::require(&mut join, listeners::Ticket(number), &config)?;
                Ok(config)
            };
            let config = check().map_err(|error: ConfigError| format!("listener {name:?}: {error}"))?;
            accepted.insert(Arc::clone(&config.name), config);
            self.env.say(&format!("listener {name:?}"), &session);
        }
        Ok(())
    }

    /// Begins: static clusters find their hosts, then discovery starts.
    pub fn start(&self) {
        self.set_state(ServerState::PreInitializing);
        self.clusters.borrow_mut().start(Instant::now());
        self.advance();
    }

    /// Draws the conclusions of what was handled: the next stage of start-up, listeners that are warm, held ACKs.
    pub(super) fn advance(&self) {
        self.clusters.borrow_mut().on_secrets(Instant::now());
        self.advance_runtime();
        let phase = self.clusters.borrow().phase();
        if phase >= Phase::Cds
            && !self.cds_asked.replace(true)
            && let Some((source, timeout)) = &self.dynamic.clusters
        {
            self.subscribe(xds_client::CLUSTER, "cluster_manager.cds.", source, *timeout);
        }
        if phase == Phase::Initialized && self.state.get() == ServerState::PreInitializing {
            self.set_state(ServerState::Initializing);
            self.join.start();
        }
        if phase == Phase::Initialized
            && !self.lds_asked.replace(true)
            && let Some((source, timeout)) = &self.dynamic.listeners
        {
            self.subscribe(xds_client::LISTENER, "listener_manager.lds.", source, *timeout);
        }
        for ticket in self.join.take_warmed() {
            if let Err(error) = self.listeners.borrow_mut().warmed(ticket, now()) {
                tracing::error!(target: "config", "a warmed listener cannot serve: {error}");
            }
        }
        if phase == Phase::Initialized
            && self.lds_done.get()
            && self.join.is_idle()
            && self.state.get() == ServerState::Initializing
        {
            self.go_live();
        }
        if self.clusters.borrow().warming_count() == 0 {
            self.cds_pause.borrow_mut().take();
        }
        self.count_listeners();
    }

    fn advance_runtime(&self) {
        if self.clusters.borrow().phase() != Phase::Runtime {
            return;
        }
        self.rtds.start(&self.store, &*self.sources);
        if self.rtds.is_ready() {
            tracing::info!(target: "runtime", "RTDS has finished initialization");
            self.clusters.borrow_mut().runtime_loaded(Instant::now());
        }
    }

    fn go_live(&self) {
        self.set_state(ServerState::Live);
        self.publish_runtime();
        tracing::info!(target: "main", "all dependencies initialized. starting workers");
        if let Err(failed) = self.listeners.borrow_mut().start(now()) {
            for (name, error) in failed {
                tracing::error!(target: "config", "listener {name:?} cannot serve: {error}");
            }
        }
        if let Some(on_live) = self.on_live.take() {
            let taken = self.shared_state.started.elapsed().as_millis();
            self.env.server_stats.initialization_time_ms().record(u64::try_from(taken).unwrap_or(u64::MAX));
            on_live();
        }
    }

    fn subscribe(&self, type_url: &str, scope: &str, source: &SourceConfig, timeout: Option<std::time::Duration>) {
        if type_url == xds_client::CLUSTER {
            self.clusters.borrow_mut().outside().count_reloads(scope);
        }
        let scope = SubscriptionScope::new(&self.store, scope);
        let interest = Interest::wildcard(type_url).initial_fetch_timeout(timeout).observed_by(scope);
        match routes::Subscriber::subscribe(&*self.sources, source, interest) {
            Ok(subscription) => self.subscriptions.borrow_mut().push(subscription),
            Err(error) => {
                tracing::error!(target: "config", "{type_url} cannot be subscribed to: {error}");
                match type_url {
                    xds_client::CLUSTER => self.clusters.borrow_mut().cds_failed(Instant::now()),
                    _ => self.lds_done.set(true),
                }
            }
        }
    }
}

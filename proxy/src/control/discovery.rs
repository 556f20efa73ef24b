//! What sources tell: updates are prepared, here or on the helper thread, applied in their order, and answered.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use xds_client::{Client, Event, Rejection, Resource, ResourceError, Update};

use super::clusters::{CdsUpdate, ClusterManager, ClusterResource, Phase, Removed};
use super::listeners::{Applied, Origin};
use super::prepare::{Content, Helper, Prepared, is_big};
use super::rtds::Change;
use super::{Control, now};
use crate::config::endpoint::LoadAssignment;
use crate::runtime::Values;

/// Events that wait because their source's update before them is being prepared.
pub(super) struct Inbox {
    helper: RefCell<Helper>,
    waiting: RefCell<VecDeque<Waiting>>,
    next_number: Cell<u64>,
}

struct Waiting {
    client: Client,
    /// An update here has handed its resources over.
    event: Event,
    preparation: Preparation,
}

enum Preparation {
    /// There is none to wait for.
    NotNeeded,
    /// By the helper thread, under this number.
    Running(u64),
    Done(Prepared),
}

impl Inbox {
    pub(super) const fn new(helper: Helper) -> Self {
        Self { helper: RefCell::new(helper), waiting: RefCell::new(VecDeque::new()), next_number: Cell::new(1) }
    }

    fn is_waited_for(&self, client: &Client) -> bool {
        self.waiting.borrow().iter().any(|waiting| waiting.client.same_source(client))
    }

    fn prepare(&self, update: &mut Update) -> Prepared {
        let resources = std::mem::take(&mut update.resources);
        self.helper.borrow().preparer().prepare(&update.type_url, resources)
    }

    fn put(&self, client: &Client, mut event: Event) {
        let preparation = match &mut event {
            Event::Update(update) => {
                let number = self.next_number.get();
                self.next_number.set(number + 1);
                let resources = std::mem::take(&mut update.resources);
                self.helper.borrow_mut().prepare(number, Arc::clone(&update.type_url), resources);
                Preparation::Running(number)
            }
            _ => Preparation::NotNeeded,
        };
        self.waiting.borrow_mut().push_back(Waiting { client: client.clone(), event, preparation });
    }

    fn finished(&self, number: u64, prepared: Prepared) {
        let mut waiting = self.waiting.borrow_mut();
        let mine = waiting.iter_mut().find(|entry| matches!(entry.preparation, Preparation::Running(n) if n == number));
        if let Some(entry) = mine {
            entry.preparation = Preparation::Done(prepared);
        }
    }

    /// The first event that waits for nothing any more: not for itself, nor for one before it of the same source.
    fn next(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        let ready = |entry: &Waiting| !matches!(entry.preparation, Preparation::Running(_));
        let first = |index: usize| {
            let entry = waiting.get(index)?;
            let is_first = !waiting.iter().take(index).any(|earlier| earlier.client.same_source(&entry.client));
            (is_first && ready(entry)).then_some(index)
        };
        let index = (0..waiting.len()).find_map(first)?;
        waiting.remove(index)
    }
}

impl Control {
    pub(super) fn on_source(&self, client: &Client, mut event: Event) {
        let big = matches!(&event, Event::Update(update) if is_big(&update.resources));
        if big || self.inbox.is_waited_for(client) {
            self.inbox.put(client, event);
            return;
        }
        let prepared = match &mut event {
            Event::Update(update) => Some(self.inbox.prepare(update)),
            _ => None,
        };
        self.apply_event(client, event, prepared);
    }

    /// The helper thread is through with an update.
    pub(super) fn on_prepared(&self, number: u64, prepared: Prepared) {
        self.inbox.finished(number, prepared);
        while let Some(Waiting { client, event, preparation }) = self.inbox.next() {
            let prepared = match preparation {
                Preparation::Done(prepared) => Some(prepared),
                Preparation::NotNeeded | Preparation::Running(_) => None,
            };
            self.apply_event(&client, event, prepared);
        }
    }

    fn apply_event(&self, client: &Client, event: Event, prepared: Option<Prepared>) {
        match event {
            Event::Update(update) => {
                if let Some(prepared) = prepared {
                    self.on_update(client, update, prepared);
                }
            }
            Event::Rejected { type_url, detail } => {
                tracing::warn!(target: "config", "{type_url} rejected: {detail}");
                match &*type_url {
                    xds_client::CLUSTER => self.clusters.borrow_mut().cds_failed(Instant::now()),
                    xds_client::LISTENER => self.lds_done.set(true),
                    xds_client::ROUTE => self.routes.give_up_waiting(client, None),
                    xds_client::RUNTIME => self.rtds.give_up_waiting(client, None),
                    xds_client::SECRET => self.secrets.give_up_waiting(client, None),
                    xds_client::ENDPOINTS => self.give_up_endpoints(client),
                    _ => {}
                }
            }
            Event::Expired { type_url, names } => self.on_expired(client, &type_url, names),
            Event::InitialFetchTimeout { subscription, type_url, names } => {
                tracing::warn!(target: "config", "no initial response for {type_url} {names:?}");
                match &*type_url {
                    xds_client::CLUSTER => self.clusters.borrow_mut().cds_failed(Instant::now()),
                    xds_client::LISTENER => self.lds_done.set(true),
                    xds_client::ROUTE => self.routes.give_up_waiting(client, Some(subscription)),
                    xds_client::RUNTIME => self.rtds.give_up_waiting(client, Some(subscription)),
                    xds_client::SECRET => self.secrets.give_up_waiting(client, Some(subscription)),
                    // Clusters keep the time of their own warming.
                    _ => {}
                }
            }
            Event::Connected => tracing::info!(target: "config", "connected to a control plane"),
            Event::Disconnected { reason } => {
                tracing::warn!(target: "config", "gRPC config stream to a control plane closed: {reason}");
            }
        }
    }

    fn on_update(&self, client: &Client, update: Update, prepared: Prepared) {
        let Update { type_url, version, removed, full_state, ticket, .. } = update;
        let Prepared { content, notes } = prepared;
        self.env.take_notes(notes);
        let result = match content {
            Content::Clusters(clusters) => self.on_clusters(&version, clusters, removed, full_state),
            Content::Endpoints(assignments) => self.on_endpoints(client, assignments, &removed),
            Content::Listeners(listeners) => self.on_listeners(&version, listeners, removed, full_state),
            Content::Routes(routes) => self.routes.apply(client, &version, routes),
            Content::Runtime(layers) => self.on_runtime(client, &layers, &removed),
            Content::Secrets(secrets) => self.secrets.apply(client, &version, &secrets, &removed),
            Content::Refused(rejection) => Err(rejection),
        };
        if let Err(rejection) = &result {
            tracing::warn!(target: "config", "{type_url} update rejected: {}", rejection.detail(&type_url));
        }
        // A refused response is an outcome for everyone who waits for one.
        match (&result, &*type_url) {
            (Err(_), xds_client::ENDPOINTS) => self.give_up_endpoints(client),
            (Err(_), xds_client::ROUTE) => self.routes.give_up_waiting(client, None),
            (Err(_), xds_client::SECRET) => self.secrets.give_up_waiting(client, None),
            _ => {}
        }
        // After start-up a cluster that still warms holds the ACK back on the aggregated stream, as in Envoy: the pause is
        // taken before the answer is given.
        let holds_back =
            |clusters: &ClusterManager<_>| clusters.phase() == Phase::Initialized && clusters.warming_count() > 0;
        if &*type_url == xds_client::CLUSTER && self.sources.is_ads(client) && holds_back(&self.clusters.borrow()) {
            let pause = client.pause(xds_client::CLUSTER);
            self.cds_pause.borrow_mut().get_or_insert(pause);
        }
        client.answer(ticket, result);
    }

    fn on_clusters(
        &self,
        version: &str,
        clusters: Result<Vec<ClusterResource>, Rejection>,
        removed: Vec<String>,
        full_state: bool,
    ) -> Result<(), Rejection> {
        let mut resources = clusters.inspect_err(|_| self.clusters.borrow_mut().cds_failed(Instant::now()))?;
        for cluster in &mut resources {
            if let Ok(config) = &cluster.config
                && let Err(error) = self.check_sources_of(config)
            {
                cluster.config = Err(error);
            }
        }
        let removed = if full_state { Removed::Others } else { Removed::Names(removed) };
        let update = CdsUpdate { resources, removed, version: version.into() };
        self.clusters.borrow_mut().apply(Instant::now(), SystemTime::now(), update).map_err(Rejection::whole)
    }

    fn on_endpoints(
        &self,
        client: &Client,
        assignments: Vec<(String, Result<Arc<LoadAssignment>, String>)>,
        removed: &[String],
    ) -> Result<(), Rejection> {
        let mut errors = Vec::new();
        let mut clusters = self.clusters.borrow_mut();
        let now = Instant::now();
        for (name, assignment) in assignments {
            let watches = clusters.outside().watches_at(client, Some(&name));
            if watches.is_empty() && client.reads_documents() {
                let message = "Unexpected EDS cluster: this is not what the source was asked for".to_owned();
                errors.push(ResourceError { name, message });
                continue;
            }
            match assignment {
                Ok(assignment) => {
                    for watch in watches {
                        clusters.on_assignment(now, watch, Arc::clone(&assignment));
                    }
                }
                Err(message) => errors.push(ResourceError { name, message }),
            }
        }
        drop(clusters);
        self.on_endpoints_gone(client, removed);
        if errors.is_empty() { Ok(()) } else { Err(Rejection { errors }) }
    }

    fn on_endpoints_gone(&self, client: &Client, names: &[String]) {
        let mut clusters = self.clusters.borrow_mut();
        for name in names {
            for watch in clusters.outside().watches_at(client, Some(name)) {
                clusters.on_assignment_removed(Instant::now(), watch);
            }
        }
    }

    /// Clusters that ask there and still warm go on without endpoints.
    fn give_up_endpoints(&self, client: &Client) {
        let mut clusters = self.clusters.borrow_mut();
        for watch in clusters.outside().watches_at(client, None) {
            clusters.on_assignment_failed(Instant::now(), watch);
        }
    }

    fn on_listeners(
        &self,
        version: &str,
        listeners: Result<Vec<Resource>, Rejection>,
        removed: Vec<String>,
        full_state: bool,
    ) -> Result<(), Rejection> {
        self.lds_done.set(true);
        let resources = listeners?;
        let mut errors = Vec::new();
        let mut listeners = self.listeners.borrow_mut();
        let now = now();
        let mut changed = false;
        if full_state {
            let names: BTreeSet<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
            changed |= listeners.retain(&names, now);
        }
        for name in removed {
            changed |= listeners.remove(&name, now);
        }
        let mut seen = BTreeSet::new();
        for resource in &resources {
            let Some(raw) = &resource.body else { continue };
            let name = resource.name.as_str();
            if !seen.insert(name) {
                errors
                    .push(ResourceError { name: name.to_owned(), message: format!("duplicate listener {name} found") });
                continue;
            }
            let session = self.env.session();
            let origin = Origin::Dynamic(if resource.version.is_empty() { version } else { &resource.version }.into());
            match listeners.apply(&session, origin, name, raw, now) {
                Ok(Applied::Unchanged | Applied::Ignored) => {}
                Ok(_) => changed = true,
                Err(error) => errors.push(ResourceError { name: name.to_owned(), message: error.to_string() }),
            }
            self.env.say(&format!("listener {name:?}"), &session);
        }
        if changed {
            *self.lds_version.borrow_mut() = version.into();
        }
        if errors.is_empty() { Ok(()) } else { Err(Rejection { errors }) }
    }

    fn on_runtime(
        &self,
        client: &Client,
        layers: &[(String, Result<Values, String>)],
        removed: &[String],
    ) -> Result<(), Rejection> {
        let (changes, result) = self.rtds.on_update(client, layers, removed);
        self.change_runtime(changes);
        result
    }

    fn change_runtime(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        for Change { layer, values } in changes {
            self.runtime.borrow_mut().set_rtds(&layer, values);
        }
        self.publish_runtime();
    }

    fn on_expired(&self, client: &Client, type_url: &str, names: Vec<String>) {
        match type_url {
            xds_client::CLUSTER => {
                let version = Arc::clone(self.clusters.borrow().cds_version());
                let update = CdsUpdate { resources: Vec::new(), removed: Removed::Names(names), version };
                // Removal cannot fail.
                let _ = self.clusters.borrow_mut().apply(Instant::now(), SystemTime::now(), update);
            }
            xds_client::LISTENER => {
                for name in names {
                    self.listeners.borrow_mut().remove(&name, now());
                }
            }
            xds_client::RUNTIME => self.change_runtime(self.rtds.on_expired(client, &names)),
            xds_client::ENDPOINTS => self.on_endpoints_gone(client, &names),
            // Routes and secrets keep their last value, as when a server removes them.
            _ => {}
        }
    }
}

//! Route manager: one subscription per discovered route configuration, however many listeners use it.
//!
//! Listeners ask for a route configuration by name and source and give it back when they go ([`Routes::release`]). The first
//! update, or the end of the wait for it, makes the listener warm; every later one is published as it is accepted. A
//! table that cannot be built is refused and the one that serves goes on serving. Absence from a response never removes a
//! table: it lives as long as a listener uses it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use stats::{GroupHandle, Store};
use xds_client::{
    Client, Interest, Rejection, Resource, ResourceError, SourceConfig, SubscribeError, Subscription, SubscriptionId,
};

use super::observer::{Reloads, SubscriptionScope};
use super::parse::ParseEnv;
use super::prepare::Route;
use crate::observe::catalogue::RouteUpdateStats;
use crate::route::RouteTable;
use crate::worker::mailbox::Publisher;

/// Where subscriptions are made.
pub trait Subscriber {
    /// Subscribes at a source.
    ///
    /// # Errors
    /// When the source cannot serve the type.
    fn subscribe(&self, source: &SourceConfig, interest: Interest) -> Result<Subscription, SubscribeError>;
}

/// All discovered route configurations.
pub struct Routes {
    publisher: Publisher,
    store: Arc<Store>,
    env: Rc<ParseEnv>,
    entries: RefCell<BTreeMap<Arc<str>, Entry>>,
}

struct Entry {
    /// What is to be asked for, until it is.
    wanted: Option<(SourceConfig, Interest)>,
    subscription: Option<Subscription>,
    users: usize,
    /// An update was accepted, or there will be none for now.
    ready: bool,
    live: Option<Live>,
    failed: Option<Failed>,
    name: Arc<str>,
    /// Versions that were taken into use.
    reloads: Reloads,
    /// Keeps `update_empty` in the scrape.
    _updates: Arc<GroupHandle<RouteUpdateStats>>,
}

impl Entry {
    fn is_from(&self, source: &Client) -> bool {
        self.subscription.as_ref().is_some_and(|subscription| subscription.client().same_source(source))
    }
}

/// A route configuration that serves.
#[derive(Debug, Clone)]
pub struct Live {
    /// The table.
    pub table: Arc<RouteTable>,
    /// Its bytes.
    pub raw: Bytes,
    /// The version it came with.
    pub version: String,
    /// When it was accepted.
    pub updated: SystemTime,
}

/// A route configuration that was refused.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Its bytes.
    pub raw: Bytes,
    /// The version it came with.
    pub version: String,
    /// Why.
    pub details: String,
    /// When.
    pub at: SystemTime,
}

/// One route configuration, for `/config_dump`.
#[derive(Debug, Clone)]
pub struct RouteView {
    /// Its name.
    pub name: Arc<str>,
    /// What serves.
    pub live: Option<Live>,
    /// What was refused last.
    pub failed: Option<Failed>,
}

impl Routes {
    /// No route configuration yet.
    #[must_use]
    pub fn new(publisher: Publisher, store: Arc<Store>, env: Rc<ParseEnv>) -> Self {
        Self { publisher, store, env, entries: RefCell::default() }
    }

    /// A listener uses the route configuration `name` of `source`. The same name at two sources is two configurations.
    /// Nothing is asked for yet ([`Self::subscribe`]).
    pub fn require(
        &self,
        name: &Arc<str>,
        source: &SourceConfig,
        timeout: Option<std::time::Duration>,
        stat_prefix: &str,
    ) -> Arc<str> {
        let key = slot_key(name, source);
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(Arc::clone(&key)).or_insert_with(|| {
            let prefix = format!("http.{stat_prefix}.rds.{name}.");
            let scope = SubscriptionScope::new(&self.store, &prefix);
            let interest = Interest::name(xds_client::ROUTE, &**name).initial_fetch_timeout(timeout).observed_by(scope);
            Entry {
                wanted: Some((source.clone(), interest)),
                subscription: None,
                users: 0,
                ready: false,
                live: None,
                failed: None,
                name: Arc::clone(name),
                reloads: Reloads::new(&self.store, &prefix),
                _updates: self.store.group(&prefix),
            }
        });
        entry.users += 1;
        key
    }

    /// Asks for a route configuration, unless that was done.
    ///
    /// # Errors
    /// When its source cannot serve routes; nobody need wait for it then.
    pub fn subscribe(&self, subscriber: &dyn Subscriber, key: &Arc<str>) -> Result<(), SubscribeError> {
        let wanted = self.entries.borrow_mut().get_mut(key).and_then(|entry| entry.wanted.take());
        let Some((source, interest)) = wanted else { return Ok(()) };
        let subscribed = subscriber.subscribe(&source, interest);
        if let Some(entry) = self.entries.borrow_mut().get_mut(key) {
            entry.ready |= subscribed.is_err();
            match subscribed {
                Ok(subscription) => entry.subscription = Some(subscription),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One more user of a route configuration that is there already.
    pub fn retain(&self, key: &Arc<str>) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(key) {
            entry.users += 1;
        }
    }

    /// A listener uses it no more; the last one ends the subscription.
    pub fn release(&self, key: &Arc<str>) {
        let ended = {
            let mut entries = self.entries.borrow_mut();
            let Some(entry) = entries.get_mut(key) else { return };
            entry.users -= 1;
            if entry.users > 0 { None } else { entries.remove(key) }
        };
        if let Some(entry) = ended {
            self.publisher.each(|mailbox| mailbox.routes(key, None));
            // The subscription goes last: its end may call back into this manager.
            drop(entry);
        }
    }

    /// Whether requests can be routed by it, or will not be able to for now.
    #[must_use]
    pub fn is_ready(&self, key: &Arc<str>) -> bool {
        self.entries.borrow().get(key).is_some_and(|entry| entry.ready)
    }

    /// The name of a route configuration that is waited for.
    #[must_use]
    pub fn awaited(&self, key: &Arc<str>) -> Option<Arc<str>> {
        self.entries.borrow().get(key).filter(|entry| !entry.ready).map(|entry| Arc::clone(&entry.name))
    }

    /// Applies an update of a source.
    ///
    /// # Errors
    /// What of it was refused.
    pub fn apply(&self, source: &Client, version: &str, resources: Vec<(Resource, Route)>) -> Result<(), Rejection> {
        let mut errors = Vec::new();
        for (resource, route) in resources {
            let wanted = |entry: &Entry| *entry.name == *resource.name && entry.is_from(source);
            if source.reads_documents() && !self.entries.borrow().values().any(wanted) {
                let message = "Unexpected RDS configuration: this is not what the source was asked for".to_owned();
                errors.push(ResourceError { name: resource.name, message });
                continue;
            }
            let Some(body) = resource.body else { continue };
            let built = match route {
                Route::Built(built) => built,
                Route::ForControl(proto) => self.env.routes(*proto).map(Arc::new),
            };
            let version = if resource.version.is_empty() { version } else { &resource.version };
            if let Err(message) = self.update(source, &resource.name, &body, version, built) {
                errors.push(ResourceError { name: resource.name, message });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Rejection { errors }) }
    }

    fn update(
        &self,
        source: &Client,
        name: &str,
        raw: &Bytes,
        version: &str,
        built: Result<Arc<RouteTable>, String>,
    ) -> Result<(), String> {
        let now = SystemTime::now();
        let mut published = Vec::new();
        let mut entries = self.entries.borrow_mut();
        for (key, entry) in entries.iter_mut().filter(|(_, entry)| &*entry.name == name && entry.is_from(source)) {
            match &built {
                Ok(table) => {
                    let live =
                        Live { table: Arc::clone(table), raw: raw.clone(), version: version.to_owned(), updated: now };
                    entry.failed = None;
                    entry.ready = true;
                    // What is no news is shown under the version it first came with, as in Envoy.
                    if entry.live.as_ref().is_none_or(|live| live.raw != raw) {
                        entry.live = Some(live);
                        entry.reloads.count();
                        published.push(Arc::clone(key));
                    }
                }
                Err(details) => {
                    entry.failed = Some(Failed {
                        raw: raw.clone(),
                        version: version.to_owned(),
                        details: details.clone(),
                        at: now,
                    });
                }
            }
        }
        drop(entries);
        let table = built?;
        for key in published {
            self.publisher.each(|mailbox| mailbox.routes(&key, Some(Arc::clone(&table))));
        }
        Ok(())
    }

    /// Nothing came from a source in time for a subscription, or what came was refused, for all of them: listeners stop
    /// waiting.
    pub fn give_up_waiting(&self, source: &Client, subscription: Option<SubscriptionId>) {
        for entry in self.entries.borrow_mut().values_mut().filter(|entry| entry.is_from(source)) {
            let id = entry.subscription.as_ref().map(Subscription::id);
            entry.ready |= subscription.is_none() || subscription == id;
        }
    }

    /// All of them, for `/config_dump`.
    #[must_use]
    pub fn views(&self) -> Vec<RouteView> {
        let entries = self.entries.borrow();
        let view = |entry: &Entry| RouteView {
            name: Arc::clone(&entry.name),
            live: entry.live.clone(),
            failed: entry.failed.clone(),
        };
        entries.values().map(view).collect()
    }
}

/// The key of a table in the workers' slots: its name, told apart by source where it does not come from ADS.
fn slot_key(name: &Arc<str>, source: &SourceConfig) -> Arc<str> {
    match source {
        SourceConfig::Ads => Arc::clone(name),
        other => format!("{name}\n{other:?}").into(),
    }
}

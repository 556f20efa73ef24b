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
use stats::Store;
use xds_client::{
    Interest, Rejection, Resource, ResourceError, SourceConfig, SubscribeError, Subscription, SubscriptionId,
};

use super::observer::SubscriptionScope;
use super::parse::ParseEnv;
use super::prepare::Route;
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
    subscription: Option<Subscription>,
    users: usize,
    /// An update was accepted, or there will be none for now.
    ready: bool,
    live: Option<Live>,
    failed: Option<Failed>,
    /// Listener statistics scopes that were named for this table.
    name: Arc<str>,
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
    ///
    /// # Errors
    /// When the source cannot serve routes.
    pub fn require(
        &self,
        subscriber: &dyn Subscriber,
        name: &Arc<str>,
        source: &SourceConfig,
        timeout: Option<std::time::Duration>,
        stat_prefix: &str,
    ) -> Result<Arc<str>, SubscribeError> {
        let key = slot_key(name, source);
        if let Some(entry) = self.entries.borrow_mut().get_mut(&key) {
            entry.users += 1;
            return Ok(key);
        }
        let entry =
            Entry { subscription: None, users: 1, ready: false, live: None, failed: None, name: Arc::clone(name) };
        self.entries.borrow_mut().insert(Arc::clone(&key), entry);
        let scope = SubscriptionScope::new(&self.store, &format!("http.{stat_prefix}.rds.{name}."));
        let interest = Interest::name(xds_client::ROUTE, &**name).initial_fetch_timeout(timeout).observed_by(scope);
        match subscriber.subscribe(source, interest) {
            Ok(subscription) => {
                if let Some(entry) = self.entries.borrow_mut().get_mut(&key) {
                    entry.subscription = Some(subscription);
                }
                Ok(key)
            }
            Err(error) => {
                self.entries.borrow_mut().remove(&key);
                Err(error)
            }
        }
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

    /// Applies an update; answers which tables became ready, and what was refused.
    pub fn apply(&self, version: &str, resources: Vec<(Resource, Route)>) -> (bool, Result<(), Rejection>) {
        let mut errors = Vec::new();
        let mut warmed = false;
        for (resource, route) in resources {
            let Some(body) = resource.body else { continue };
            let built = match route {
                Route::Built(built) => built,
                Route::ForControl(proto) => self.env.routes(*proto).map(Arc::new),
            };
            let version = if resource.version.is_empty() { version } else { &resource.version };
            match self.update(&resource.name, &body, version, built) {
                Ok(newly) => warmed |= newly,
                Err(message) => errors.push(ResourceError { name: resource.name, message }),
            }
        }
        (warmed, if errors.is_empty() { Ok(()) } else { Err(Rejection { errors }) })
    }

    fn update(
        &self,
        name: &str,
        raw: &Bytes,
        version: &str,
        built: Result<Arc<RouteTable>, String>,
    ) -> Result<bool, String> {
        let now = SystemTime::now();
        let mut warmed = false;
        let mut published = Vec::new();
        for (key, entry) in self.entries.borrow_mut().iter_mut().filter(|(_, entry)| &*entry.name == name) {
            match &built {
                Ok(table) => {
                    let live =
                        Live { table: Arc::clone(table), raw: raw.clone(), version: version.to_owned(), updated: now };
                    let unchanged = entry.live.as_ref().is_some_and(|live| live.raw == raw);
                    entry.failed = None;
                    warmed |= !std::mem::replace(&mut entry.ready, true);
                    if unchanged {
                        if let Some(live) = &mut entry.live {
                            live.version = version.to_owned();
                        }
                    } else {
                        entry.live = Some(live);
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
        let table = built?;
        for key in published {
            self.publisher.each(|mailbox| mailbox.routes(&key, Some(Arc::clone(&table))));
        }
        Ok(warmed)
    }

    /// Nothing came in time, or what came was refused: listeners stop waiting. True when one became ready by this.
    pub fn give_up_waiting(&self, subscription: Option<SubscriptionId>) -> bool {
        let mut warmed = false;
        for entry in self.entries.borrow_mut().values_mut() {
            let meant = subscription.is_none_or(|id| entry.subscription.as_ref().is_some_and(|s| s.id() == id));
            if meant {
                warmed |= !std::mem::replace(&mut entry.ready, true);
            }
        }
        warmed
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

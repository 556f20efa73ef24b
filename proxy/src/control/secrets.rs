//! Secret manager: one subscription per discovered secret, however many contexts use it; static secrets by name.
//!
//! A context that names secrets is announced ([`Secrets::require`]) before its listener or cluster is accepted, and holds
//! them as long as its [`SecretsUse`] lives. A secret that arrives is put into its slot and every context that uses it is made
//! anew; if one cannot be made of it, the secret is refused and the one before it stays, for all of them. The first
//! answer, good or bad, or the end of the wait for it, lets listeners and clusters go on; a context without its secret
//! makes no connection.
//!
//! Files that a discovered secret names are read when it arrives, and again whenever something is renamed into their
//! directories (or into `watched_directory`): what does not fit together then is counted (`key_rotation_failed`), not used.

mod certificates;
mod entry;
mod files;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{At, ConfigError};
use prost::Message as _;
use stats::{GroupHandle, SharedCounter, Store};
use xds_client::{Client, Rejection, Resource, ResourceError, Subscription, SubscriptionId};

use self::certificates::InUse;
pub use self::certificates::{ContextView, days_until};
use self::watch::Watches;
pub use self::watch::{Directories, InotifyDirectories, WatchGuard, WatchNumber};
use super::parse::ParseEnv;
use super::routes::Subscriber;
use crate::config::config_source::ConfigSource;
use crate::config::tls::secret as parsing;
use crate::observe::catalogue::SecretFactoryStats;
use crate::tls::SecretUser;
use crate::tls::secret::{SecretKind, SecretSlot};

/// All secrets that are found by name.
pub struct Secrets(Rc<Inner>);

struct Inner {
    store: Arc<Store>,
    env: Rc<ParseEnv>,
    subscriber: Rc<dyn Subscriber>,
    directories: Rc<dyn Directories>,
    statics: RefCell<BTreeMap<(SecretKind, Arc<str>), Static>>,
    entries: RefCell<BTreeMap<Key, Rc<Entry>>>,
    in_use: InUse,
    next_number: Cell<u64>,
    loaded: SystemTime,
}

/// What, its name, and where it is found: the same name at two sources is two secrets.
type Key = (SecretKind, Arc<str>, String);

/// A secret of the bootstrap. It is read when somebody uses it, as in Envoy.
struct Static {
    raw: Bytes,
    slot: Option<Arc<SecretSlot>>,
}

/// A discovered secret.
struct Entry {
    key: Key,
    source: ConfigSource,
    slot: Arc<SecretSlot>,
    subscription: RefCell<Option<Subscription>>,
    users: RefCell<Vec<User>>,
    /// It was answered, or there will be no answer for now.
    ready: Cell<bool>,
    live: RefCell<Option<Live>>,
    asked: SystemTime,
    key_rotation_failed: SharedCounter,
    watches: RefCell<Watches>,
}

/// A discovered secret that is used.
struct Live {
    /// As it came.
    raw: Bytes,
    given: proto::Secret,
    /// With what its files hold in their place.
    resolved: proto::Secret,
    version: String,
    updated: SystemTime,
}

struct User {
    number: u64,
    context: Arc<dyn SecretUser>,
    counts: Rc<FactoryCounts>,
}

/// `<listener or cluster>.{server,client}_ssl_socket_factory.`
struct FactoryCounts {
    stats: SecretFactoryStats,
    _group: Arc<GroupHandle<SecretFactoryStats>>,
}

/// A context's hold on the discovered secrets it uses.
pub struct SecretsUse {
    manager: Weak<Inner>,
    number: u64,
    entries: Vec<Rc<Entry>>,
}

/// Which side of a connection a context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A listener's.
    Server,
    /// A cluster's.
    Client,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// One secret, for `/config_dump`.
#[derive(Debug, Clone)]
pub struct SecretView {
    /// Its name.
    pub name: Arc<str>,
    /// Where and how it is shown.
    pub state: SecretState,
    /// The version it came with.
    pub version: String,
    /// When it came, or was asked for.
    pub updated: SystemTime,
    /// The `Secret`.
    pub raw: Bytes,
}

/// How far a secret has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// It stands in the bootstrap.
    Static,
    /// It was discovered.
    Active,
    /// It is awaited.
    Warming,
}

impl Secrets {
    /// No secrets yet.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        env: Rc<ParseEnv>,
        subscriber: Rc<dyn Subscriber>,
        directories: Rc<dyn Directories>,
    ) -> Self {
        Self(Rc::new(Inner {
            store,
            env,
            subscriber,
            directories,
            statics: RefCell::default(),
            entries: RefCell::default(),
            in_use: InUse::default(),
            next_number: Cell::new(0),
            loaded: SystemTime::now(),
        }))
    }

    /// Adds a secret of the bootstrap.
    ///
    /// # Errors
    /// When it is nothing, or there is one of its kind and name.
    pub fn add_static(&self, raw: Bytes) -> Result<(), String> {
        let secret = proto::Secret::decode(raw.clone()).map_err(|error| error.to_string())?;
        let kind = parsing::kind(&secret).ok_or("Secret type not implemented")?;
        let name: Arc<str> = secret.name.into();
        let mut statics = self.0.statics.borrow_mut();
        if statics.contains_key(&(kind, Arc::clone(&name))) {
            return Err(format!("Duplicate static {} secret name {name}", kind.message()));
        }
        statics.insert((kind, name), Static { raw, slot: None });
        Ok(())
    }

    /// Checks the sources of the secrets a context names: the node has a name, and clusters to ask are there.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, at: &At<'_>, context: &dyn SecretUser) -> Result<(), ConfigError> {
        context
            .named_secrets()
            .into_iter()
            .filter_map(|named| named.source.as_ref())
            .try_for_each(|source| self.0.env.check_source(&at.field("sds_config"), &source.source, xds_client::SECRET))
    }

    /// A context is to be used by a listener or cluster that counts below `owner` (`cluster.a.`). It is made of what there is
    /// already. Nothing is asked for yet ([`SecretsUse::subscribe`]).
    ///
    /// # Errors
    /// When it names a static secret that is not there or not valid, or cannot be made of what there is.
    pub fn require(
        &self,
        at: &At<'_>,
        context: &Arc<dyn SecretUser>,
        owner: &str,
        side: Side,
    ) -> Result<SecretsUse, ConfigError> {
        let inner = &self.0;
        let number = inner.number();
        let group = inner.store.group::<SecretFactoryStats>(&format!("{owner}{}_ssl_socket_factory.", side.name()));
        let counts = FactoryCounts { stats: group.shard(inner.store.control_shard()), _group: group };
        let counts = Rc::new(counts);
        let mut held = SecretsUse { manager: Rc::downgrade(inner), number, entries: Vec::new() };
        for named in context.named_secrets() {
            let Some(source) = &named.source else {
                let slot = inner.static_slot(named.kind, &named.name).map_err(|error| at.error(error))?;
                // Set by whoever came first: a context that is kept names what it named.
                let _ = named.slot.set(slot);
                continue;
            };
            let entry = inner.entry(named, source);
            let _ = named.slot.set(Arc::clone(&entry.slot));
            // What is there already comes to a new user as what arrives later does.
            if entry.live.borrow().is_some() {
                counts.stats.ssl_context_update_by_sds().inc();
            }
            let user = User { number, context: Arc::clone(context), counts: Rc::clone(&counts) };
            entry.users.borrow_mut().push(user);
            held.entries.push(entry);
        }
        context.renew().map_err(|error| at.error(error))?;
        inner.in_use.add(&inner.store, number, context, format!("{owner}ssl.certificate."));
        Ok(held)
    }

    /// Applies an update of a source.
    ///
    /// # Errors
    /// What of it was refused.
    pub fn apply(
        &self,
        source: &Client,
        version: &str,
        resources: &[(Resource, Result<proto::Secret, String>)],
        removed: &[String],
    ) -> Result<(), Rejection> {
        let mut errors = Vec::new();
        for entry in self.0.of_source(source) {
            let found = if source.reads_documents() {
                entry.only(resources, removed).map(Some)
            } else {
                Ok(resources.iter().find(|(resource, _)| *resource.name == *entry.key.1))
            };
            // Absence and removal leave what there is.
            let Some((resource, secret)) = (match found {
                Ok(found) => found,
                Err(message) => {
                    errors.push(ResourceError { name: String::new(), message });
                    continue;
                }
            }) else {
                continue;
            };
            let Some(raw) = &resource.body else { continue };
            let version = if resource.version.is_empty() { version } else { &resource.version };
            let done = secret.clone().and_then(|secret| self.0.update(&entry, raw, secret, version));
            if let Err(message) = done {
                errors.push(ResourceError { name: entry.key.1.to_string(), message });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Rejection { errors }) }
    }

    /// Nothing came from a source in time for a subscription, or what came was refused, for all of them: nobody waits any
    /// longer.
    pub fn give_up_waiting(&self, source: &Client, subscription: Option<SubscriptionId>) {
        for entry in self.0.of_source(source) {
            let id = entry.subscription.borrow().as_ref().map(Subscription::id);
            if subscription.is_none() || subscription == id {
                entry.ready.set(true);
            }
        }
    }

    /// Something was renamed into a directory that is watched for a secret.
    pub fn on_directory(&self, number: WatchNumber) {
        let entries: Vec<_> = self.0.entries.borrow().values().cloned().collect();
        let watches = |entry: &&Rc<Entry>| entry.watches.borrow().iter().any(|(known, _)| *known == number);
        let Some(entry) = entries.iter().find(watches) else { return };
        if let Err(error) = self.0.reload(entry) {
            entry.key_rotation_failed.inc();
            tracing::warn!(target: "secret", "Failed to reload certificates of {}: {error}", entry.key.1);
        }
    }

    /// All of them, for `/config_dump`: static ones, then discovered ones, by kind and name.
    #[must_use]
    pub fn views(&self) -> Vec<SecretView> {
        let statics = self.0.statics.borrow();
        let fixed = statics.iter().map(|((_, name), of)| SecretView {
            name: Arc::clone(name),
            state: SecretState::Static,
            version: String::new(),
            updated: self.0.loaded,
            raw: of.raw.clone(),
        });
        let entries = self.0.entries.borrow();
        let found = entries.values().map(|entry| {
            let live = entry.live.borrow();
            let name = Arc::clone(&entry.key.1);
            match &*live {
                Some(live) => SecretView {
                    name,
                    state: SecretState::Active,
                    version: live.version.clone(),
                    updated: live.updated,
                    raw: live.resolved.encode_to_vec().into(),
                },
                None => SecretView {
                    state: SecretState::Warming,
                    version: "uninitialized".to_owned(),
                    updated: entry.asked,
                    raw: proto::Secret { name: name.to_string(), r#type: None }.encode_to_vec().into(),
                    name,
                },
            }
        });
        fixed.chain(found).collect()
    }

    /// The certificates of every context in use, for `/certs`.
    #[must_use]
    pub fn certificates(&self) -> Vec<ContextView> {
        self.0.in_use.views()
    }

    /// Days until the first of all certificates in use expires (`server.days_until_first_cert_expiring`).
    #[must_use]
    pub fn days_until_first_expires(&self, now: SystemTime) -> Option<u64> {
        self.0.in_use.days_until_first_expires(now)
    }
}

impl SecretsUse {
    /// Asks for what is not there yet.
    pub fn subscribe(&self) {
        let Some(manager) = self.manager.upgrade() else { return };
        self.entries.iter().for_each(|entry| manager.subscribe(entry));
    }

    /// Whether everything is there, or will not be for now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.entries.iter().all(|entry| entry.ready.get())
    }

    /// Names of those whose first answer is awaited, for `/init_dump`.
    pub fn awaited(&self) -> impl Iterator<Item = Arc<str>> {
        self.entries.iter().filter(|entry| !entry.ready.get()).map(|entry| Arc::clone(&entry.key.1))
    }
}

impl std::fmt::Debug for SecretsUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.entries.iter().map(|entry| &*entry.key.1).collect();
        f.debug_tuple("SecretsUse").field(&names).finish()
    }
}

impl Drop for SecretsUse {
    fn drop(&mut self) {
        if let Some(manager) = self.manager.upgrade() {
            manager.in_use.remove(self.number);
        }
        for entry in &self.entries {
            let ended = {
                let mut users = entry.users.borrow_mut();
                users.retain(|user| user.number != self.number);
                users.is_empty()
            };
            if let Some(manager) = self.manager.upgrade().filter(|_| ended) {
                manager.entries.borrow_mut().remove(&entry.key);
            }
        }
    }
}

#[cfg(test)]
mod tests;

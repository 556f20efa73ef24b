//! What becomes of one discovered secret: asked for, read, put into its slot, and watched.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{ConfigError, Session};
use filters::matcher::RegexLimits;
use prost::Message as _;
use xds_client::{Client, Interest, Resource};

use super::watch::{WatchNumber, Watches};
use super::{Entry, Inner, Live, User, files};
use crate::config::config_source::ConfigSource;
use crate::config::tls::secret as parsing;
use crate::control::observer::SubscriptionScope;
use crate::tls::secret::{NamedSecret, Secret, SecretKind, SecretSlot};

impl Inner {
    pub(super) fn number(&self) -> u64 {
        let number = self.next_number.get() + 1;
        self.next_number.set(number);
        number
    }

    pub(super) fn of_source(&self, source: &Client) -> Vec<Rc<Entry>> {
        let entries = self.entries.borrow();
        let is_from =
            |entry: &&Rc<Entry>| entry.subscription.borrow().as_ref().is_some_and(|it| it.client().same_source(source));
        entries.values().filter(is_from).cloned().collect()
    }

    pub(super) fn static_slot(&self, kind: SecretKind, name: &Arc<str>) -> Result<Arc<SecretSlot>, String> {
        let mut statics = self.statics.borrow_mut();
        let Some(secret) = statics.get_mut(&(kind, Arc::clone(name))) else {
            return Err(format!("{}: {name}", kind.unknown()));
        };
        if let Some(slot) = &secret.slot {
            return Ok(Arc::clone(slot));
        }
        let proto = proto::Secret::decode(secret.raw.clone()).map_err(|error| format!("secret {name}: {error}"))?;
        let parsed = self.parse(proto).map_err(|error| format!("secret {name}: {error}"))?;
        let slot = SecretSlot::new(Arc::clone(name), kind);
        slot.current.store(Some(Arc::new(parsed)));
        secret.slot = Some(Arc::clone(&slot));
        Ok(slot)
    }

    pub(super) fn parse(&self, proto: proto::Secret) -> Result<Secret, ConfigError> {
        let session = self.env.session();
        let parsed = parse(&session, proto, self.env.regex.get());
        self.env.say("secret", &session);
        parsed
    }

    pub(super) fn entry(&self, named: &NamedSecret, source: &ConfigSource) -> Rc<Entry> {
        let key = (named.kind, Arc::clone(&named.name), format!("{source:?}"));
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let slot = named.slot.get().cloned();
            Rc::new(Entry {
                source: source.clone(),
                slot: slot.unwrap_or_else(|| SecretSlot::new(Arc::clone(&named.name), named.kind)),
                subscription: RefCell::new(None),
                users: RefCell::default(),
                ready: Cell::new(false),
                live: RefCell::new(None),
                asked: SystemTime::now(),
                key_rotation_failed: self.store.counter(&format!("sds.{}.key_rotation_failed", named.name)),
                watches: RefCell::default(),
                key,
            })
        });
        Rc::clone(entry)
    }

    pub(super) fn subscribe(&self, entry: &Entry) {
        if entry.subscription.borrow().is_some() {
            return;
        }
        let name = &entry.key.1;
        let ConfigSource { source, initial_fetch_timeout } = &entry.source;
        let interest = Interest::name(xds_client::SECRET, &**name)
            .initial_fetch_timeout(*initial_fetch_timeout)
            .observed_by(SubscriptionScope::new(&self.store, &format!("sds.{name}.")));
        match self.subscriber.subscribe(source, interest) {
            Ok(subscription) => *entry.subscription.borrow_mut() = Some(subscription),
            Err(error) => {
                tracing::error!(target: "secret", "secret {name:?} cannot be subscribed to: {error}");
                entry.ready.set(true);
            }
        }
    }

    /// A version of a secret came.
    pub(super) fn update(&self, entry: &Entry, raw: &Bytes, given: proto::Secret, version: &str) -> Result<(), String> {
        let kind = parsing::kind(&given);
        if kind != Some(entry.key.0) {
            let found = kind.map_or("nothing", SecretKind::field);
            let wanted = entry.key.0.field();
            return Err(format!("Unexpected SDS secret type (expecting {wanted}): {found}"));
        }
        // What is no news is not read again, and stays what came with its first version.
        let known = entry.live.borrow().as_ref().is_some_and(|live| live.raw == raw);
        if !known {
            let resolved = files::resolve(given.clone())?;
            let watches = self.watch(&given)?;
            let resolved = self.take(entry, resolved, None)?;
            *entry.watches.borrow_mut() = watches;
            let version = version.to_owned();
            let live = Live { raw: raw.clone(), given, resolved, version, updated: SystemTime::now() };
            *entry.live.borrow_mut() = Some(live);
        }
        entry.ready.set(true);
        Ok(())
    }

    /// Reads the files of a secret again.
    pub(super) fn reload(&self, entry: &Entry) -> Result<(), String> {
        let Some((given, before)) =
            entry.live.borrow().as_ref().map(|live| (live.given.clone(), live.resolved.clone()))
        else {
            return Ok(());
        };
        let resolved = self.take(entry, files::resolve(given)?, Some(&before))?;
        if let Some(live) = &mut *entry.live.borrow_mut() {
            live.resolved = resolved;
        }
        Ok(())
    }

    /// Has all users of a secret use what its files hold, unless it is what they use already.
    fn take(
        &self,
        entry: &Entry,
        files::Resolved { secret: resolved, origins }: files::Resolved,
        before: Option<&proto::Secret>,
    ) -> Result<proto::Secret, String> {
        if Some(&resolved) == before {
            return Ok(resolved);
        }
        let secret = self.parse(resolved.clone()).map_err(|mut error| {
            // The data was read for the parser: what it calls inline has a name.
            if let Some((_, path)) = origins.iter().find(|(field, _)| *field == error.path) {
                error.message = error.message.replace(crate::config::tls::data_source::INLINE, path);
            }
            error.to_string()
        })?;
        self.install(entry, secret)?;
        Ok(resolved)
    }

    /// Has all users of a secret use this one, or none.
    pub(super) fn install(&self, entry: &Entry, secret: Secret) -> Result<(), String> {
        let before = entry.slot.current.swap(Some(Arc::new(secret)));
        let users = entry.users.borrow();
        let mut renewed: Vec<&User> = Vec::new();
        for user in &*users {
            // A context may be used by two versions of a listener.
            if renewed.iter().any(|known| Arc::ptr_eq(&known.context, &user.context)) {
                continue;
            }
            if let Err(error) = user.context.renew() {
                entry.slot.current.store(before);
                for user in renewed {
                    // It could be made of this before.
                    let _ = user.context.renew();
                }
                return Err(error);
            }
            renewed.push(user);
        }
        for user in renewed {
            user.counts.stats.ssl_context_update_by_sds().inc();
            self.in_use.renewed(&self.store, &user.context);
        }
        Ok(())
    }

    /// Watches the directories in which changes of a secret's files show.
    fn watch(&self, given: &proto::Secret) -> Result<Watches, String> {
        let watched = files::directories(given).into_iter().map(|(directory, modify)| {
            let number = WatchNumber(self.number());
            let guard = self.directories.watch(number, &directory, modify).map_err(|error| {
                format!("unable to add filesystem watch for file {}/: {error}", directory.display())
            })?;
            Ok((number, guard))
        });
        watched.collect()
    }
}

impl Entry {
    /// The one secret a document is to hold.
    pub(super) fn only<'a>(
        &self,
        resources: &'a [(Resource, Result<proto::Secret, String>)],
        removed: &[String],
    ) -> Result<&'a (Resource, Result<proto::Secret, String>), String> {
        let name = &self.key.1;
        match (resources, removed) {
            ([], []) => Err(format!("Missing SDS resources for {name} in onConfigUpdate()")),
            ([one], []) if *one.0.name == **name => Ok(one),
            ([one], []) => Err(format!("Unexpected SDS secret (expecting {name}): {}", one.0.name)),
            (added, removed) => Err(format!(
                "Unexpected SDS secrets length for {name}, number of added resources {}, number of removed resources {}. \
                 Expected sum is 1",
                added.len(),
                removed.len()
            )),
        }
    }
}

pub(super) fn parse(session: &Session, proto: proto::Secret, limits: RegexLimits) -> Result<Secret, ConfigError> {
    parsing::parse(&session.root(), proto, limits)
}

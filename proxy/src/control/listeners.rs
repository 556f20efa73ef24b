//! The listener manager: which listeners there are, which version of each serves, which are warming or draining.
//!
//! It owns the sockets and the decisions, and knows neither threads nor clocks: a [`ListenerSink`] carries decisions to
//! the workers, [`Dependencies`] says when the routes a listener needs are there, time comes with every call.
//!
//! A listener that changes is told apart by what changed. Nothing: nothing happens. Only filter chains: the new version
//! takes over in place, connections of unchanged chains notice nothing, those of removed chains drain. Anything else: the
//! new version takes over the sockets of the addresses both have, and all connections of the old one drain.

mod contract;
mod draining;
pub mod sockets;
#[cfg(test)]
mod tests;
mod update;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use filters::config::Session;

pub use self::contract::{
    Applied, ApplyError, Counters, Dependencies, Gauges, ListenerSink, Now, Options, Origin, Readiness, Ticket,
};
use self::draining::Draining;
use self::sockets::{BoundSocket, ListenSocket, SocketError, SocketSpec};
pub(crate) use self::update::refuse_duplicate;
pub use self::view::{ErrorState, ListenerState, ListenerView, StateView};
use crate::config::filter_chain::FilterChain;
use crate::config::listener::{DrainType, ListenerConfig, TrafficDirection};
use crate::downstream::accept::{ActiveListener, ListenerId};
use crate::downstream::drain::DrainPlan;

/// The listeners of the process.
pub struct ListenerManager<S, D> {
    options: Options,
    sink: S,
    dependencies: D,
    listeners: BTreeMap<Arc<str>, Entry>,
    draining: Draining,
    /// Sockets workers may still be reading the queue of: a listener that wants the address again gets these.
    closing: Vec<(ListenerId, Vec<Arc<ListenSocket>>)>,
    /// Sockets can be bound but nobody is served before the workers run.
    started: bool,
    next_number: u64,
    counters: Counters,
}

/// What is known under one name.
#[derive(Debug, Default)]
struct Entry {
    active: Option<Version>,
    warming: Option<Version>,
    error: Option<ErrorState>,
}

/// One version of a listener.
#[derive(Debug)]
struct Version {
    ticket: Ticket,
    origin: Origin,
    raw: Bytes,
    updated: SystemTime,
    listener: Arc<ActiveListener>,
    change: Applied,
    sockets: Vec<Held>,
    /// Told to accept no more by `/drain_listeners`.
    stopped: bool,
}

/// A socket of a version, in the order of its addresses.
#[derive(Debug)]
enum Held {
    /// Not listening yet.
    Bound(BoundSocket),
    /// Listening, perhaps since an earlier version.
    Listening(Arc<ListenSocket>),
}

impl<S: ListenerSink, D: Dependencies> ListenerManager<S, D> {
    /// No listeners yet.
    #[must_use]
    pub fn new(options: Options, sink: S, dependencies: D) -> Self {
        Self {
            options,
            sink,
            dependencies,
            listeners: BTreeMap::new(),
            draining: Draining::default(),
            closing: Vec::new(),
            started: false,
            next_number: 1,
            counters: Counters::default(),
        }
    }

    /// Adds or updates the listener serialised in `raw`, named `name` by whoever delivered it.
    ///
    /// # Errors
    /// When it is not acceptable; what serves goes on serving, and the error is kept for `/config_dump`.
    pub fn apply(
        &mut self,
        session: &Session,
        origin: Origin,
        name: &str,
        raw: &Bytes,
        now: Now,
    ) -> Result<Applied, ApplyError> {
        let result = self.try_apply(session, origin.clone(), raw, now);
        match &result {
            Err(error) => self.failed(name, origin, raw, error, now),
            Ok(_) => self.forget_error(name),
        }
        result
    }

    /// Removes a dynamic listener: it stops accepting, its connections drain. False when there is none of that name.
    pub fn remove(&mut self, name: &str, now: Now) -> bool {
        self.forget_error(name);
        let Some(entry) = self.listeners.get(name) else { return false };
        if entry.active.as_ref().or(entry.warming.as_ref()).is_none_or(|version| version.origin == Origin::Static) {
            return false;
        }
        let Some(Entry { active, warming, error: _ }) = self.listeners.remove(name) else { return false };
        if let Some(warming) = warming {
            self.dependencies.release(warming.ticket);
        }
        if let Some(active) = active {
            self.retire(active, now);
        }
        self.counters.removed += 1;
        true
    }

    /// Removes every dynamic listener not in `names`: state-of-the-world discovery. Says whether there was one.
    pub fn retain(&mut self, names: &BTreeSet<&str>, now: Now) -> bool {
        let gone: Vec<_> = self.listeners.keys().filter(|name| !names.contains(&***name)).cloned().collect();
        gone.iter().filter(|name| self.remove(name, now)).count() > 0
    }

    /// What the version with `ticket` waited for is there, or was given up on.
    ///
    /// # Errors
    /// When its sockets can no longer be had; it is dropped then, and what served goes on.
    pub fn warmed(&mut self, ticket: Ticket, now: Now) -> Result<(), ApplyError> {
        let is_it = |entry: &Entry| entry.warming.as_ref().is_some_and(|version| version.ticket == ticket);
        let Some(name) = self.listeners.iter().find(|(_, entry)| is_it(entry)).map(|(name, _)| Arc::clone(name)) else {
            return Ok(());
        };
        let Some(version) = self.listeners.get_mut(&name).and_then(|entry| entry.warming.take()) else { return Ok(()) };
        self.promote_or_record(&name, version, now)
    }

    /// The workers run: every listener that is ready starts to serve.
    ///
    /// # Errors
    /// The listeners whose sockets cannot be had any more, with the reason.
    pub fn start(&mut self, now: Now) -> Result<(), Vec<(Arc<str>, ApplyError)>> {
        self.started = true;
        let names: Vec<_> = self.listeners.keys().cloned().collect();
        let mut failed = Vec::new();
        for name in names {
            let Some(version) = self.listeners.get_mut(&name).and_then(|entry| entry.active.take()) else { continue };
            if let Err(error) = self.promote_or_record(&name, version, now) {
                failed.push((name, error));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Every worker has accepted what was queued for `listener` and closed its descriptors.
    pub fn stopped(&mut self, listener: ListenerId) {
        self.closing.retain(|(id, _)| *id != listener);
    }

    /// `/drain_listeners`: listeners (only inbound ones, if asked) stop to accept, gracefully after their connections
    /// had the drain time to leave.
    pub fn drain_listeners(&mut self, graceful: bool, inbound_only: bool, now: Now) {
        let plan = self.plan(now);
        let mut stopping = Vec::new();
        for (name, entry) in &mut self.listeners {
            let Some(version) = entry.active.as_mut().filter(|version| !version.stopped) else { continue };
            let config = &version.listener.config;
            if inbound_only && config.traffic_direction != TrafficDirection::Inbound {
                continue;
            }
            if !graceful {
                stopping.push(Arc::clone(name));
                continue;
            }
            if config.drain_type == DrainType::Default {
                version.listener.drain.begin(plan);
            }
            self.draining.stop_later(Arc::clone(name), version.ticket, plan.end());
        }
        for name in stopping {
            self.stop_accepting(&name);
        }
    }

    /// Ends what is due: drained listeners and chains close what is left of them. Answers when to call again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        for due in self.draining.due(now) {
            match due {
                draining::Due::Listener(ticket, listener) => {
                    self.sink.close(&listener, None);
                    self.dependencies.release(ticket);
                }
                draining::Due::Chains(ticket, listener, chains) => {
                    self.sink.close(&listener, Some(&chains));
                    self.dependencies.release(ticket);
                }
                draining::Due::Stop(name, ticket) => {
                    let current = self.listeners.get(&name).and_then(|entry| entry.active.as_ref());
                    if current.is_some_and(|version| version.ticket == ticket) {
                        self.stop_accepting(&name);
                    }
                }
            }
        }
        self.draining.next()
    }

    /// Counters so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Gauges now.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let count = |which: fn(&Entry) -> bool| self.listeners.values().filter(|entry| which(entry)).count() as u64;
        let (warming, active) = if self.started {
            (count(|entry| entry.warming.is_some()), count(|entry| entry.active.is_some()))
        } else {
            // Before the workers run there is no telling one from the other: nothing serves.
            (0, count(|entry| entry.active.is_some() || entry.warming.is_some()))
        };
        Gauges {
            warming,
            active,
            draining: self.draining.listeners() as u64,
            filter_chains_draining: self.draining.chains() as u64,
            workers_started: self.started.into(),
        }
    }

    /// Everything known, for `/listeners` and `/config_dump`, by name.
    pub fn views(&self) -> impl Iterator<Item = ListenerView<'_>> {
        view::views(&self.listeners, &self.draining, self.started)
    }

    /// Versions that wait for what they use: the listener's name, a hash of what it says, and which version it is.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, u64, Ticket)> {
        let waiting = self.listeners.iter().filter_map(|(name, entry)| Some((name, entry.warming.as_ref()?)));
        waiting.map(|(name, version)| (&**name, xxhash_rust::xxh64::xxh64(&version.raw, 0), version.ticket))
    }

    /// The active listeners, for `/listeners` and limits that change at run time.
    pub fn active(&self) -> impl Iterator<Item = &Arc<ActiveListener>> {
        let waiting = |entry: &Entry| -> bool { !self.started && entry.warming.is_some() };
        let version = move |entry| if waiting(entry) { entry.warming.as_ref() } else { entry.active.as_ref() };
        self.listeners.values().filter_map(version).map(|version| &version.listener)
    }

    /// What decisions are carried by.
    pub const fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Who knows what listeners wait for.
    pub const fn dependencies_mut(&mut self) -> &mut D {
        &mut self.dependencies
    }

    fn promote_or_record(&mut self, name: &Arc<str>, version: Version, now: Now) -> Result<(), ApplyError> {
        let (origin, raw) = (version.origin.clone(), version.raw.clone());
        self.promote(name, version, now).inspect_err(|error| self.failed(name, origin, &raw, error, now))
    }

    fn failed(&mut self, name: &str, origin: Origin, raw: &Bytes, error: &ApplyError, now: Now) {
        self.counters.create_failure += 1;
        let entry = self.listeners.entry(name.into()).or_default();
        entry.error = Some(ErrorState::new(origin, raw, error.to_string(), now.wall));
    }

    /// Makes `version` the one that serves, once the workers run.
    fn promote(&mut self, name: &Arc<str>, mut version: Version, now: Now) -> Result<(), ApplyError> {
        if !self.started {
            let entry = self.listeners.entry(Arc::clone(name)).or_default();
            if let Some(earlier) = entry.active.replace(version) {
                self.dependencies.release(earlier.ticket);
            }
            return Ok(());
        }
        match self.listen(&mut version) {
            Ok(sockets) => {
                self.sink.activate(&version.listener, &sockets);
                self.counters.create_success += self.options.workers as u64;
            }
            Err(error) => {
                self.dependencies.release(version.ticket);
                return Err(error.into());
            }
        }
        let plan = self.plan(now);
        let change = version.change;
        let listener = Arc::clone(&version.listener);
        let kept: Vec<_> = version.listening().map(|socket| socket.id()).collect();
        let earlier = self.listeners.entry(Arc::clone(name)).or_default().active.replace(version);
        let Some(mut earlier) = earlier else { return Ok(()) };
        if change == Applied::UpdatedInPlace {
            let removed: Vec<_> = removed_chains(&earlier.listener.config, &listener.config);
            if removed.is_empty() {
                self.dependencies.release(earlier.ticket);
                return Ok(());
            }
            for chain in &removed {
                chain.drain.begin(plan);
            }
            self.draining.chains_until(plan.end(), earlier.ticket, listener, removed);
        } else {
            // Shared sockets go on with the new version; only the others are closed.
            earlier.sockets.retain(|held| matches!(held, Held::Listening(socket) if !kept.contains(&socket.id())));
            self.retire(earlier, now);
        }
        Ok(())
    }

    /// Turns bound sockets into listening ones and gives inherited ones the options of this version.
    fn listen(&self, version: &mut Version) -> Result<Vec<Arc<ListenSocket>>, SocketError> {
        let mut listening = Vec::with_capacity(version.sockets.len());
        let specs = SocketSpec::of(&version.listener.config);
        for (held, spec) in std::mem::take(&mut version.sockets).into_iter().zip(&specs) {
            let socket = match held {
                Held::Bound(bound) => Arc::new(bound.listen(self.options.workers)?),
                Held::Listening(socket) => {
                    if socket.spec() != spec {
                        socket.adapt(spec)?;
                    }
                    socket
                }
            };
            listening.push(Arc::clone(&socket));
            version.sockets.push(Held::Listening(socket));
        }
        Ok(listening)
    }

    /// Stops a version for good: it accepts what is queued, its connections drain until they are closed.
    fn retire(&mut self, version: Version, now: Now) {
        let plan = self.plan(now);
        version.listener.drain.begin(plan);
        if !self.started {
            return self.dependencies.release(version.ticket);
        }
        if !version.stopped {
            self.sink.stop(&version.listener);
            self.counters.stopped += self.options.workers as u64;
        }
        let sockets: Vec<_> = version.listening().cloned().collect();
        if !sockets.is_empty() {
            self.closing.push((version.listener.id, sockets));
        }
        let (origin, raw, updated) = (version.origin, version.raw, version.updated);
        let state = ListenerState { origin, raw, updated };
        self.draining.listener_until(plan.end(), version.ticket, version.listener, state);
    }

    fn stop_accepting(&mut self, name: &Arc<str>) {
        let Some(version) = self.listeners.get_mut(name).and_then(|entry| entry.active.as_mut()) else { return };
        if std::mem::replace(&mut version.stopped, true) {
            return;
        }
        let sockets: Vec<_> = version.listening().cloned().collect();
        version.sockets.clear();
        self.sink.stop(&version.listener);
        self.counters.stopped += self.options.workers as u64;
        self.closing.push((version.listener.id, sockets));
    }

    fn drop_warming(&mut self, name: &str) {
        let warming = self.listeners.get_mut(name).and_then(|entry| entry.warming.take());
        if let Some(version) = warming {
            self.dependencies.release(version.ticket);
        }
    }

    fn forget_error(&mut self, name: &str) {
        if let Some(entry) = self.listeners.get_mut(name) {
            entry.error = None;
            if entry.active.is_none() && entry.warming.is_none() {
                self.listeners.remove(name);
            }
        }
    }

    const fn plan(&self, now: Now) -> DrainPlan {
        DrainPlan { start: now.instant, time: self.options.drain_time, strategy: self.options.drain_strategy }
    }
}

impl Version {
    fn listening(&self) -> impl Iterator<Item = &Arc<ListenSocket>> {
        self.sockets.iter().filter_map(|held| match held {
            Held::Listening(socket) => Some(socket),
            Held::Bound(_) => None,
        })
    }
}

fn removed_chains(old: &ListenerConfig, new: &ListenerConfig) -> Vec<Arc<FilterChain>> {
    let kept = |chain: &Arc<FilterChain>| new.chains.iter().any(|other| Arc::ptr_eq(chain, other));
    old.chains.iter().filter(|chain| !kept(chain)).cloned().collect()
}

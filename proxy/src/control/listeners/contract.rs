//! What the listener manager is told and tells: its traits, and the words they use.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use filters::config::ConfigError;

use super::sockets::{ListenSocket, SocketError};
use crate::config::filter_chain::FilterChain;
use crate::config::listener::ListenerConfig;
use crate::downstream::accept::ActiveListener;
use crate::downstream::drain::DrainStrategy;

/// Carries decisions to every worker. Calls concern one listener in order; a sink may skip what a later call undoes.
pub trait ListenerSink {
    /// `listener` accepts on `sockets` from now on, instead of any other that did, and serves recovered destinations.
    fn activate(&mut self, listener: &Arc<ActiveListener>, sockets: &[Arc<ListenSocket>]);

    /// `listener` accepts what is queued and then no more. When all workers are through,
    /// [`ListenerManager::stopped`](super::ListenerManager::stopped) is to be called.
    fn stop(&mut self, listener: &Arc<ActiveListener>);

    /// Closes what is left of the connections of `listener`, or only of those on `chains`.
    fn close(&mut self, listener: &Arc<ActiveListener>, chains: Option<&[Arc<FilterChain>]>);
}

/// What listeners wait for before they serve: route configurations, later secrets.
pub trait Dependencies {
    /// Subscribes to what `listener` needs. When the answer is [`Readiness::Waiting`], [`ListenerManager::warmed`](super::ListenerManager::warmed) is to
    /// be called once all is there or was given up on.
    ///
    /// # Errors
    /// When the listener asks for something impossible.
    fn require(&mut self, ticket: Ticket, listener: &Arc<ListenerConfig>) -> Result<Readiness, ConfigError>;

    /// The version with that ticket is gone.
    fn release(&mut self, ticket: Ticket);
}

/// Whether a listener may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// At once.
    Ready,
    /// Later.
    Waiting,
}

/// Names one version of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The time of a call.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For people.
    pub wall: SystemTime,
}

/// What the process was started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of workers.
    pub workers: usize,
    /// `--drain-time-s`.
    pub drain_time: Duration,
    /// `--drain-strategy`.
    pub drain_strategy: DrainStrategy,
}

/// Where a listener comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap; discovery can neither change nor remove it.
    Static,
    /// Discovery, with the version of the response or resource.
    Dynamic(Arc<str>),
}

/// What an accepted listener changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is new.
    Added,
    /// It replaces its previous version.
    Updated,
    /// It replaces only filter chains of its previous version.
    UpdatedInPlace,
    /// Nothing: it is identical.
    Unchanged,
    /// Nothing: a static listener has that name.
    Ignored,
}

/// Why a listener was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// What it says is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its address is not to be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Counters of `listener_manager.`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `listener_added`.
    pub added: u64,
    /// `listener_modified`.
    pub modified: u64,
    /// `listener_removed`.
    pub removed: u64,
    /// `listener_stopped`, once per worker.
    pub stopped: u64,
    /// `listener_create_success`, once per worker.
    pub create_success: u64,
    /// `listener_create_failure`.
    pub create_failure: u64,
    /// `listener_in_place_updated`.
    pub in_place_updated: u64,
}

/// Gauges of `listener_manager.`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// `total_listeners_warming`.
    pub warming: u64,
    /// `total_listeners_active`.
    pub active: u64,
    /// `total_listeners_draining`.
    pub draining: u64,
    /// `total_filter_chains_draining`.
    pub filter_chains_draining: u64,
    /// `workers_started`.
    pub workers_started: u64,
}

//! The control thread: managers that own configuration state, warm it, order it and publish it to the workers.
//!
//! One task runs [`Control::run`]. Everything that happens (a response, a DNS answer, a report of a worker, an operator's
//! command, a deadline) is one [`Happening`], handled to its end before the next, so managers never call back into each
//! other. Control never waits for a worker.

mod aws;
pub mod calls;
pub mod clusters;
mod discovery;
pub mod dns;
pub mod health;
pub mod join;
mod lb_stats;
pub mod listeners;
pub mod observer;
mod outlier_log;
pub mod outside;
pub mod parse;
pub mod prepare;
pub mod routes;
mod rtds;
pub mod secrets;
pub mod secure;
pub mod source;
mod startup;
mod views;
mod web;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use stats::Store;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use xds_client::{Client, Event, Hub, Pause, SourceConfig, Subscription};

use self::clusters::ClusterManager;
use self::discovery::Inbox;
use self::dns::{LookupId, Outcome};
use self::join::Join;
use self::listeners::{ListenerManager, Now};
use self::outside::{ClusterWorld, ListenerWorld, Sources};
use self::parse::ParseEnv;
use self::prepare::{Helper, Prepared};
use self::routes::Routes;
use self::rtds::RtdsLayers;
use self::secrets::{InotifyDirectories, Secrets};
use crate::admin::SharedState;
use crate::config::bootstrap::runtime::LayerConfig;
use crate::observe::catalogue::ListenerManagerStats;
use crate::runtime::Loader;
use crate::worker::Report;
use crate::worker::mailbox::{Publisher, Retired};

/// Something control has to deal with.
pub enum Happening {
    /// A source has something to tell.
    Source(Client, Event),
    /// The helper thread prepared an update.
    Prepared(u64, Prepared),
    /// A lookup ended.
    Lookup(LookupId, Outcome),
    /// A host of a cluster was asked whether it is well.
    Checked(Arc<str>, u64, clusters::Answer),
    /// A worker reports.
    Report(Report),
    /// A worker no longer uses something; it is freed here.
    Retired(Retired),
    /// Something to do with everything at hand: an admin page, a signal.
    Call(Box<dyn FnOnce(&Control)>),
}

/// Where happenings are put.
pub type Happenings = UnboundedSender<Happening>;

/// How far the server has come (`server.state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Workers accept connections.
    Live,
    /// Connections are asked to leave.
    Draining,
    /// Static clusters are being loaded.
    PreInitializing,
    /// Discovered configuration is awaited.
    Initializing,
}

/// All managers, on the control thread.
pub struct Control {
    /// What parsing needs to know.
    pub env: Rc<ParseEnv>,
    /// Statistics.
    pub store: Arc<Store>,
    /// The workers' mailboxes.
    pub publisher: Publisher,
    /// Clusters.
    pub clusters: RefCell<ClusterManager<ClusterWorld>>,
    /// Listeners.
    pub listeners: RefCell<ListenerManager<ListenerWorld, Join>>,
    /// Discovered routes.
    pub routes: Rc<Routes>,
    /// Secrets that are found by name.
    pub secrets: Rc<Secrets>,
    join: Join,
    inbox: Inbox,
    sources: Rc<Sources>,
    dynamic: Dynamic,
    rtds: RtdsLayers,
    state: Cell<ServerState>,
    subscriptions: RefCell<Vec<Subscription>>,
    /// Held while clusters warm: the ACK of the response that brought them waits.
    cds_pause: RefCell<Option<Pause>>,
    cds_asked: Cell<bool>,
    lds_asked: Cell<bool>,
    lds_done: Cell<bool>,
    lds_version: RefCell<Arc<str>>,
    listener_stats: ListenerManagerStats,
    on_live: RefCell<Option<Box<dyn FnOnce()>>>,
    /// The layered runtime.
    pub runtime: RefCell<Loader>,
    /// The bootstrap as it was loaded, and when.
    pub bootstrap: RefCell<Option<(bytes::Bytes, SystemTime)>>,
    shared_state: Arc<SharedState>,
    /// Ends the process.
    quit: tokio::sync::Notify,
}

/// `dynamic_resources`: what is discovered, and where.
#[derive(Debug, Clone, Default)]
pub struct Dynamic {
    /// `cds_config` with its `initial_fetch_timeout`.
    pub clusters: Option<(SourceConfig, Option<std::time::Duration>)>,
    /// `lds_config` with its `initial_fetch_timeout`.
    pub listeners: Option<(SourceConfig, Option<std::time::Duration>)>,
    /// The layers of the runtime, among them those that are discovered.
    pub runtime: Vec<LayerConfig>,
}

/// What [`Control::new`] is given.
pub struct Parts {
    /// What parsing needs to know.
    pub env: Rc<ParseEnv>,
    /// Statistics.
    pub store: Arc<Store>,
    /// The workers' mailboxes.
    pub publisher: Publisher,
    /// What is discovered.
    pub dynamic: Dynamic,
    /// How listeners drain.
    pub listeners: listeners::Options,
    /// Where happenings are put.
    pub happenings: Happenings,
    /// Called once the server is live.
    pub on_live: Box<dyn FnOnce()>,
    /// The layered runtime.
    pub runtime: Loader,
    /// What `/ready` shows.
    pub shared_state: Arc<SharedState>,
}

impl Control {
    /// Managers without clusters and listeners.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let Parts { env, store, publisher, dynamic, listeners, happenings, on_live, runtime, shared_state } = parts;
        let sources: Rc<Sources> = Rc::default();
        let (answers, lookups) = tokio::sync::mpsc::unbounded_channel();
        forward(lookups, happenings.clone(), |(id, outcome)| Happening::Lookup(id, outcome));
        let (done, prepared) = tokio::sync::mpsc::unbounded_channel();
        forward(prepared, happenings.clone(), |(number, prepared)| Happening::Prepared(number, prepared));
        let resolver = dns::driver::HickoryResolver::new(answers, &store);
        let directories = Rc::new(InotifyDirectories::new(happenings.clone()));
        let secrets = Secrets::new(Arc::clone(&store), Rc::clone(&env), Rc::clone(&sources) as _, directories);
        let secrets = Rc::new(secrets);
        let probes = health::probes::Probes::new(happenings, Arc::clone(&store));
        let files = Arc::clone(&env.files);
        let world = ClusterWorld::new(
            publisher.clone(),
            Arc::clone(&store),
            Rc::clone(&sources),
            resolver,
            probes,
            files,
            Rc::clone(&secrets),
        );
        let uses_cds = dynamic.clusters.is_some();
        let mut clusters = ClusterManager::new(world, publisher.workers(), uses_cds, fastrand::Rng::new());
        clusters.set_runtime(runtime.snapshot());
        let rtds = RtdsLayers::new(&dynamic.runtime);
        if !rtds.is_ready() {
            clusters.wait_for_runtime();
        }
        let routes = Rc::new(Routes::new(publisher.clone(), Arc::clone(&store), Rc::clone(&env)));
        let join = Join::new(Rc::clone(&env), Rc::clone(&routes), Rc::clone(&secrets), Rc::clone(&sources) as _);
        let manager = ListenerManager::new(listeners, ListenerWorld(publisher.clone()), join.clone());
        let listener_group = store.group::<ListenerManagerStats>("listener_manager.");
        let listener_stats = listener_group.shard(store.control_shard());
        // Kept for as long as the process lives.
        std::mem::forget(listener_group);
        let control = Rc::new(Self {
            lds_done: Cell::new(dynamic.listeners.is_none()),
            inbox: Inbox::new(Helper::new(env.preparer(), done)),
            env,
            store,
            publisher,
            clusters: RefCell::new(clusters),
            listeners: RefCell::new(manager),
            routes,
            secrets,
            join,
            sources,
            dynamic,
            rtds,
            state: Cell::new(ServerState::PreInitializing),
            subscriptions: RefCell::default(),
            cds_pause: RefCell::default(),
            cds_asked: Cell::new(false),
            lds_asked: Cell::new(false),
            lds_version: RefCell::default(),
            listener_stats,
            on_live: RefCell::new(Some(on_live)),
            runtime: RefCell::new(runtime),
            bootstrap: RefCell::new(None),
            shared_state,
            quit: tokio::sync::Notify::new(),
        });
        let weak = Rc::downgrade(&control);
        control.env.cluster_exists.set(Rc::new(move |name: &str| {
            weak.upgrade()
                .is_none_or(|control| control.clusters.try_borrow().is_ok_and(|clusters| clusters.exists(name)))
        }));
        let weak = Rc::downgrade(&control);
        control.env.backs_sources.set(Rc::new(move |name: &str| {
            weak.upgrade()
                .is_none_or(|control| control.clusters.try_borrow().is_ok_and(|clusters| clusters.backs_sources(name)))
        }));
        control
    }

    /// Makes the xDS client known, before [`Self::start`].
    pub fn set_hub(&self, hub: Rc<Hub>) {
        self.sources.set(hub);
    }

    /// How far the server has come.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.state.get()
    }

    /// The server drains, or no longer.
    pub fn set_draining(&self, draining: bool) {
        match (self.state.get(), draining) {
            (ServerState::Live, true) => self.set_state(ServerState::Draining),
            (ServerState::Draining, false) => self.set_state(ServerState::Live),
            _ => {}
        }
        self.publisher.each(|mailbox| mailbox.draining(draining));
    }

    fn set_state(&self, state: ServerState) {
        self.state.set(state);
        self.shared_state.set(state);
        self.env.server_stats.state().set(state as u64);
    }

    /// Publishes the runtime's newest values.
    pub fn publish_runtime(&self) {
        let snapshot = self.runtime.borrow().snapshot();
        self.clusters.borrow_mut().set_runtime(Arc::clone(&snapshot));
        self.publisher.each(|mailbox| mailbox.runtime(Arc::clone(&snapshot) as _));
        for listener in self.listeners.borrow().active() {
            let limit = filters::matcher::Runtime::integer(&*snapshot, &listener.config.connection_limit_key);
            listener.budget.set_limit(limit.unwrap_or(u64::MAX));
        }
    }

    /// Ends [`Self::run`], and the process with it.
    pub fn quit(&self) {
        self.quit.notify_one();
    }

    /// Version of the last listener response applied without errors.
    #[must_use]
    pub fn lds_version(&self) -> Arc<str> {
        Arc::clone(&self.lds_version.borrow())
    }

    /// Downstream connections open now, on all workers.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.listeners.borrow().active().map(|listener| listener.budget.open()).sum()
    }

    /// Handles happenings until the channel closes.
    pub async fn run(&self, mut happenings: UnboundedReceiver<Happening>) {
        self.advance();
        loop {
            let deadline = self.next_deadline();
            let happening = tokio::select! {
                biased;
                happening = happenings.recv() => happening,
                () = self.quit.notified() => return,
                () = sleep_until(deadline) => {
                    self.on_timer();
                    self.advance();
                    continue;
                }
            };
            let Some(happening) = happening else { return };
            self.handle(happening);
            // What is there already is handled before anything is concluded.
            while let Ok(happening) = happenings.try_recv() {
                self.handle(happening);
            }
            self.advance();
        }
    }

    fn handle(&self, happening: Happening) {
        match happening {
            Happening::Source(client, event) => self.on_source(&client, event),
            Happening::Prepared(number, prepared) => self.on_prepared(number, prepared),
            Happening::Lookup(id, outcome) => self.clusters.borrow_mut().on_lookup(Instant::now(), id, outcome),
            Happening::Checked(cluster, host, answer) => {
                self.clusters.borrow_mut().on_checked(Instant::now(), &cluster, host, answer);
            }
            Happening::Report(Report::HostsCreated(cluster, hosts)) => {
                for host in hosts {
                    self.clusters.borrow_mut().on_created_host(Instant::now(), &cluster, host);
                }
            }
            Happening::Report(Report::Outlier { cluster, host, finding }) => {
                self.clusters.borrow_mut().on_outlier(Instant::now(), &cluster, &host, finding);
            }
            Happening::Report(Report::Failing { cluster, host }) => {
                self.clusters.borrow_mut().on_failing(Instant::now(), &cluster, host);
            }
            Happening::Report(Report::ListenerStopped(id)) => self.listeners.borrow_mut().stopped(id),
            Happening::Retired(what) => drop(what),
            Happening::Call(call) => call(self),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let clusters = self.clusters.borrow().next_deadline();
        let listeners = self.listeners.borrow_mut().tick(Instant::now());
        clusters.into_iter().chain(listeners).min()
    }

    fn on_timer(&self) {
        self.clusters.borrow_mut().on_timer(Instant::now());
        self.listeners.borrow_mut().tick(Instant::now());
    }

    fn count_listeners(&self) {
        let (counters, gauges) = {
            let listeners = self.listeners.borrow();
            (listeners.counters(), listeners.gauges())
        };
        let stats = &self.listener_stats;
        let raise = |counter: stats::Counter<'_>, to: u64| counter.add(to.saturating_sub(counter.value()));
        raise(stats.listener_added(), counters.added);
        raise(stats.listener_modified(), counters.modified);
        raise(stats.listener_removed(), counters.removed);
        raise(stats.listener_stopped(), counters.stopped);
        raise(stats.listener_create_success(), counters.create_success);
        raise(stats.listener_create_failure(), counters.create_failure);
        raise(stats.listener_in_place_updated(), counters.in_place_updated);
        stats.total_listeners_warming().set(gauges.warming);
        stats.total_listeners_active().set(gauges.active);
        stats.total_listeners_draining().set(gauges.draining);
        stats.total_filter_chains_draining().set(gauges.filter_chains_draining);
        stats.workers_started().set(gauges.workers_started);
    }
}

/// The time of a call to the listener manager.
#[must_use]
pub fn now() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::now() }
}

/// Makes happenings of what arrives on a channel of its own.
fn forward<T: 'static>(mut from: UnboundedReceiver<T>, to: Happenings, make: impl Fn(T) -> Happening + 'static) {
    tokio::task::spawn_local(async move {
        while let Some(item) = from.recv().await {
            if to.send(make(item)).is_err() {
                return;
            }
        }
    });
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

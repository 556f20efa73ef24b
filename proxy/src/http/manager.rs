//! The HTTP connection manager of one filter chain on one worker: its configuration with everything resolved that a
//! request needs, so that a stream looks nothing up by name but its cluster.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use filters::stream_info::ConnectionInfo;

use crate::config::hcm::HcmConfig;
use crate::downstream::drain::Drain;
use crate::http::hygiene::{DateCache, Peer};
use crate::observe::access_log::WorkerLogs;
use crate::observe::catalogue::{Http1Stats, Http2Stats, HttpStats, ListenerHttpStats};
use crate::route::RouteTable;
use crate::worker::Worker;

/// One connection manager on one worker.
pub struct Manager {
    /// The worker.
    pub worker: Rc<Worker>,
    /// Configuration.
    pub config: Arc<HcmConfig>,
    /// `http.<stat_prefix>.`
    pub stats: HttpStats,
    /// `listener.<address>.http.<stat_prefix>.`
    pub listener_stats: ListenerHttpStats,
    /// `http1.`, of all downstream connections.
    pub http1_stats: Http1Stats,
    /// `http2.`, of all downstream connections.
    pub http2_stats: Http2Stats,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Access logs, empty for none.
    pub logs: WorkerLogs,
    /// The `date` header, made once a second.
    pub date: Rc<DateCache>,
}

/// Where a connection manager's routes come from.
pub enum RouteSource {
    /// Part of the configuration.
    Inline(Rc<Arc<RouteTable>>),
    /// Discovered by name: the slot holds the newest table, none until the first arrives.
    Discovered(Rc<RouteSlot>),
}

/// The newest table of a discovered route configuration on one worker.
#[derive(Default)]
pub struct RouteSlot(RefCell<Option<Rc<Arc<RouteTable>>>>);

impl RouteSlot {
    /// Takes a new table; returns the old one if no request uses it any more, to be freed elsewhere.
    pub fn set(&self, table: Option<Arc<RouteTable>>) -> Option<Arc<RouteTable>> {
        let old = self.0.replace(table.map(Rc::new))?;
        Rc::try_unwrap(old).ok()
    }
}

impl RouteSource {
    /// The table as of now: what one request is routed by, however long it takes.
    #[must_use]
    pub fn table(&self) -> Option<Rc<Arc<RouteTable>>> {
        match self {
            Self::Inline(table) => Some(Rc::clone(table)),
            Self::Discovered(slot) => slot.0.borrow().clone(),
        }
    }
}

/// What the streams of one downstream connection share.
pub struct Connection {
    /// Addresses, server name, filter chain.
    pub info: Rc<ConnectionInfo>,
    /// What it contributes to request hygiene.
    pub peer: Peer,
    /// Requests seen so far.
    pub requests: Cell<u64>,
    /// Streams open now.
    pub active: Cell<u32>,
    /// The connection is being given up: responses say so.
    pub draining: Cell<bool>,
    /// What may ask for the connection to be given up: the server, its listener, its filter chain.
    drains: [Arc<Drain>; 3],
    /// The connection's own task, to be told when a stream gives the connection up or ends.
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// A connection accepted just now.
    #[must_use]
    pub fn new(manager: &Manager, info: Rc<ConnectionInfo>, drains: [Arc<Drain>; 3]) -> Rc<Self> {
        let peer = Peer::new(&manager.config.request, &info);
        Rc::new(Self {
            info,
            peer,
            requests: Cell::new(0),
            active: Cell::new(0),
            draining: Cell::new(false),
            drains,
            task: RefCell::new(None),
        })
    }

    /// Gives the connection up: what is in flight finishes, and nothing new begins.
    pub fn give_up(&self) {
        self.draining.set(true);
        self.wake_task();
    }

    /// A stream ended.
    pub fn stream_ended(&self) {
        if self.active.get() == 0 {
            self.wake_task();
        }
    }

    /// Whether what the connection belongs to is draining and this is its turn to close.
    #[must_use]
    pub fn should_close(&self) -> bool {
        let mut now = None;
        self.drains.iter().any(|drain| {
            drain.plan().is_some_and(|plan| plan.closes(*now.get_or_insert_with(Instant::now), fastrand::f64()))
        })
    }

    /// Registers the connection's own task.
    pub fn watch_drain(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    fn wake_task(&self) {
        if let Some(waker) = &*self.task.borrow() {
            waker.wake_by_ref();
        }
    }
}

//! The HTTP connection manager of one filter chain on one worker: its configuration with everything resolved that a
//! request needs, so that a stream looks nothing up by name but its cluster.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use filters::flags::details;
use filters::matcher::Runtime;
use filters::stream_info::ConnectionInfo;
use stats::{GroupHandle, LazyShard};

use super::codec;
use super::codec::h1::{HeaderFormat, ServerOptions, UnderscoreAction};
use super::codec::h2::Http2Options;
use super::filter_chain::FilterChains;
use super::hygiene::Peer;
use crate::config::filter_chain::FilterChain;
use crate::config::hcm::{HcmConfig, HeaderCase, Underscores};
use crate::config::service::{ChainRoutes, HttpChain};
use crate::downstream::drain::Drain;
use crate::observe::catalogue::{Http1Stats, Http2Stats, HttpStats, ListenerHttpStats};
use crate::route::RouteTable;
use crate::worker::Worker;
use crate::worker::timer::Tick;

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
    pub http1_stats: LazyShard<Http1Stats>,
    /// `http2.`, of all downstream connections.
    pub http2_stats: LazyShard<Http2Stats>,
    /// Where routes come from.
    pub routes: RouteSource,
    /// The filters before the router.
    pub filters: FilterChains,
    /// How HTTP/1 requests are decoded.
    pub h1_options: Rc<ServerOptions>,
    /// How HTTP/2 is spoken.
    pub h2_options: Http2Options,
    /// Bytes a connection may buffer.
    pub buffer_limit: usize,
    /// Keeps the statistics in the scrape.
    _groups: Groups,
}

type Groups = (
    Arc<GroupHandle<HttpStats>>,
    Arc<GroupHandle<ListenerHttpStats>>,
    Arc<GroupHandle<Http1Stats>>,
    Arc<GroupHandle<Http2Stats>>,
);

impl Manager {
    /// The connection manager of `chain` on `worker`, for the listener whose statistics stand under `listener`.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, chain: &HttpChain, listener: &str, buffer_limit: usize) -> Rc<Self> {
        let (store, index) = (worker.store(), worker.index());
        let config = Arc::clone(&chain.config);
        let prefix = &config.stat_prefix;
        let groups: Groups = (
            store.group(&format!("http.{prefix}.")),
            store.group(&format!("listener.{listener}.http.{prefix}.")),
            store.group_on_first_use("http1."),
            store.group_on_first_use("http2."),
        );
        let routes = match &chain.routes {
            ChainRoutes::Inline(table) => {
                table.show(store);
                RouteSource::Inline(Rc::new(Arc::clone(table)))
            }
            ChainRoutes::Discovered(name) => RouteSource::Discovered(worker.route_slot(name)),
        };
        let (http1, limits) = (&config.http1, &config.limits);
        let h1_options = ServerOptions {
            max_headers_bytes: limits.max_request_headers_bytes,
            max_headers_count: limits.max_headers_count,
            accept_http_10: http1.accept_http_10,
            default_host_for_http_10: (!http1.default_host_for_http_10.is_empty())
                .then(|| Bytes::copy_from_slice(http1.default_host_for_http_10.as_bytes())),
            allow_absolute_url: http1.allow_absolute_url,
            allow_chunked_length: http1.allow_chunked_length,
            enable_trailers: http1.enable_trailers,
            headers_with_underscores: match limits.underscores {
                Underscores::Allow => UnderscoreAction::Allow,
                Underscores::Reject => UnderscoreAction::RejectRequest,
                Underscores::Drop => UnderscoreAction::DropHeader,
            },
            preserve_case: matches!(http1.header_case, HeaderCase::Preserve { .. }),
            allow_custom_methods: http1.allow_custom_methods,
            // Whoever believes forwarded headers believes the URL too: only an edge knows what the connection is.
            reject_https_url: config.request.use_remote_address && config.request.xff_num_trusted_hops == 0,
            ignore_upgrade: None,
        };
        let h2_options = Http2Options {
            protocol: Arc::new(config.http2.clone()),
            max_headers_bytes: u32::try_from(limits.max_request_headers_bytes).unwrap_or(u32::MAX),
            max_headers_count: u32::try_from(limits.max_headers_count).unwrap_or(u32::MAX),
            underscores: limits.underscores,
            send_buffer: buffer_limit,
        };
        Rc::new(Self {
            worker: Rc::clone(worker),
            stats: groups.0.shard(index),
            listener_stats: groups.1.shard(index),
            http1_stats: groups.2.lazy_shard(index),
            http2_stats: groups.3.lazy_shard(index),
            routes,
            filters: FilterChains::new(&config, worker),
            h1_options: Rc::new(h1_options),
            h2_options,
            buffer_limit,
            config,
            _groups: groups,
        })
    }

    /// How header names are spelled to a client, where their upstream's spelling is not kept.
    #[must_use]
    pub fn header_format(&self) -> HeaderFormat<'static> {
        match self.config.http1.header_case {
            HeaderCase::Proper => HeaderFormat::ProperCase,
            HeaderCase::Lower | HeaderCase::Preserve { .. } => HeaderFormat::Lower,
        }
    }

    /// How a request's header names are spelled upstream, where its client's spelling is kept: whatever the cluster says.
    #[must_use]
    pub fn request_format<'a>(&self, case: Option<&'a codec::h1::HeaderCase>) -> Option<HeaderFormat<'a>> {
        match self.config.http1.header_case {
            HeaderCase::Preserve { proper_case_for_own, .. } => {
                Some(HeaderFormat::Preserve { case: case?, proper_case_others: proper_case_for_own })
            }
            HeaderCase::Lower | HeaderCase::Proper => None,
        }
    }
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

impl Manager {
    /// A connection with open streams is dropped. Envoy counts that as if the client had left.
    pub fn count_cut_while_active(&self) {
        self.stats.downstream_cx_destroy_active_rq().inc();
        self.stats.downstream_cx_destroy_remote_active_rq().inc();
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
    /// Requests that have ended, and those of them that ended young and unanswered.
    ended: Cell<u64>,
    premature: Cell<u64>,
    /// The client resets so many requests that it must be doing so on purpose.
    pub reset_too_often: Cell<bool>,
    /// The connection is being given up: responses say so.
    pub draining: Cell<bool>,
    /// Over HTTP/1: the exchange under way is the last one.
    pub last: Cell<bool>,
    /// Over HTTP/1: the client knows that this exchange is the last one, because it asked for that or counts requests:
    /// the connection closes as soon as it is complete, without giving the client time.
    pub at_once: Cell<bool>,
    /// Over HTTP/1: the next exchange is the last one (`http1_safe_max_connection_duration`).
    pub ends_with_next: Cell<bool>,
    /// When the connection is old enough to be given up (`max_connection_duration`).
    pub old_from: Cell<Tick>,
    /// What may ask for the connection to be given up: the server, its listener, its filter chain.
    drains: [Arc<Drain>; 2],
    chain: Arc<FilterChain>,
    /// The connection's own task, to be told when a stream gives the connection up or ends.
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// A connection accepted just now.
    #[must_use]
    pub fn new(
        manager: &Manager,
        info: Rc<ConnectionInfo>,
        drains: [Arc<Drain>; 2],
        chain: Arc<FilterChain>,
    ) -> Rc<Self> {
        let peer = Peer::new(&manager.config.request, &info);
        if manager.config.tells_upstreams {
            info.tell_upstreams();
        }
        let age = manager.config.timeouts.connection_age(fastrand::f64());
        let age = manager.worker.timers().tick(info.accepted).after_opt(age);
        Rc::new(Self {
            info,
            peer,
            requests: Cell::new(0),
            active: Cell::new(0),
            ended: Cell::new(0),
            premature: Cell::new(0),
            reset_too_often: Cell::new(false),
            draining: Cell::new(false),
            last: Cell::new(false),
            at_once: Cell::new(false),
            ends_with_next: Cell::new(false),
            old_from: Cell::new(age),
            drains,
            chain,
            task: RefCell::new(None),
        })
    }

    /// Asks the client for the connection's end: what it still sends for a while (`drain_timeout`) is served.
    pub fn drain(&self) {
        self.draining.set(true);
        self.wake_task();
    }

    /// Gives the connection up: what is in flight finishes, and nothing new begins.
    pub fn give_up(&self) {
        self.last.set(true);
        self.drain();
    }

    /// Gives the connection up as a client expects that counts requests or said `connection: close` itself.
    pub fn give_up_at_once(&self) {
        self.at_once.set(true);
        self.give_up();
    }

    /// Acts on the age of an HTTP/1 connection, if it is old enough: it drains, or ends with its next request where that
    /// is to be safe.
    pub fn grow_old(&self, manager: &Manager, now: Tick) {
        if now < self.old_from.get() {
            return;
        }
        self.old_from.set(Tick::NEVER);
        manager.stats.downstream_cx_max_duration_reached().inc();
        if manager.config.limits.http1_safe_max_connection_duration {
            self.ends_with_next.set(true);
            manager.stats.downstream_cx_http1_soft_drain().inc();
        } else {
            self.drain();
        }
    }

    /// A request ended, after this long, answered or not. A client that resets half of its requests right away is up to
    /// no good (CVE-2023-44487).
    pub fn request_ended(&self, lived: Duration, answered: bool, runtime: &dyn Runtime) {
        self.ended.set(self.ended.get() + 1);
        let number = |key, default| runtime.integer(key).unwrap_or(default);
        if !answered && lived.as_secs() <= number("overload.premature_reset_min_stream_lifetime_seconds", 1) {
            self.premature.set(self.premature.get() + 1);
        }
        if self.premature.get() == 0 {
            return;
        }
        // Before so many requests have ended, it is assumed that all further ones will be fine.
        let total = number("overload.premature_reset_total_stream_count", 500).max(self.ended.get());
        if self.premature.get() * 2 >= total {
            self.reset_too_often.set(true);
            self.wake_task();
        }
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
        self.drains.iter().map(|drain| &**drain).chain([&self.chain.drain]).any(|drain| {
            drain.plan().is_some_and(|plan| plan.closes(*now.get_or_insert_with(Instant::now), fastrand::f64()))
        })
    }

    /// What streams log that end because this side drops the connection: at the end of a drain, or of the process.
    #[must_use]
    pub fn cut_details(&self) -> &'static str {
        if self.chain.drain.plan().is_some() {
            details::DOWNSTREAM_FILTER_CHAIN_REMOVED
        } else {
            details::DOWNSTREAM_LISTENER_REMOVED
        }
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

//! What a worker does with the connections it accepts: from a filter chain to what serves it.

mod counted;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use filters::flags::ResponseFlags;
use filters::format::{AccessLogType, FormatContext};
use filters::stream_info::{ConnectionInfo, StreamId, StreamInfo};
use stats::GroupHandle;

use self::counted::Counted;
use super::mailbox::ListenerChange;
use super::{Report, Worker};
use crate::config::filter_chain::FilterChain;
use crate::config::listener::ListenerConfig;
use crate::config::service::ChainService;
use crate::downstream::accept::{
    Accepted, Acceptors, ActiveListener, ConnectionHandler, ListenerCounter, ListenerId, Stream,
};
use crate::downstream::drain::Drain;
use crate::downstream::listener_filters::{FilterCounter, FilterStats};
use crate::downstream::network_filters::{Held, NetworkFilters};
use crate::downstream::transport::Transport;
use crate::http::manager::{Connection, Manager};
use crate::observe::catalogue::{ListenerFilterStats, ListenerStats, ListenerWorkerStats};
use crate::tcp::proxy::TcpProxy;
use crate::transport::Io;

/// The listeners of a worker.
pub(super) struct Listeners {
    acceptors: Acceptors<Rc<Handler>>,
}

/// Serves accepted connections.
struct Handler {
    worker: Rc<Worker>,
    listeners: RefCell<HashMap<ListenerId, Rc<ListenerRuntime>>>,
}

/// A listener on this worker, with all that its connections need resolved.
struct ListenerRuntime {
    stats: ListenerStats,
    worker_stats: ListenerWorkerStats,
    /// Keep the statistics in the scrape.
    _groups: (Arc<GroupHandle<ListenerStats>>, Arc<GroupHandle<ListenerWorkerStats>>),
    _filter_group: Arc<GroupHandle<ListenerFilterStats>>,
    /// By identity of the chain: chains an update kept are the same.
    chains: HashMap<*const FilterChain, Served>,
    /// By the filter's place in the listener's list.
    filters: Vec<FilterStats>,
    /// With the chain that serves each; aborted when the drain time of the listener or the chain is over.
    connections: RefCell<Vec<(*const FilterChain, tokio::task::AbortHandle)>>,
}

/// What serves the connections of a chain.
#[derive(Clone)]
enum Service {
    Http(Rc<Manager>),
    Tcp(Rc<TcpProxy>),
    DirectResponse(Bytes),
    Echo,
    Close,
}

/// A chain: what its connections pass first, and what serves them.
#[derive(Clone)]
struct Served {
    transport: Rc<Transport>,
    filters: Option<Rc<NetworkFilters>>,
    service: Service,
}

impl Service {
    /// Counts and logs a connection whose handshake failed.
    fn turned_away(&self, info: &Rc<ConnectionInfo>, io: Io, drains: [Arc<Drain>; 2], chain: Arc<FilterChain>) {
        match self {
            Self::Http(manager) => {
                let connection = Connection::new(manager, Rc::clone(info), drains, chain);
                crate::http::connection::turned_away(manager, &connection);
            }
            Self::Tcp(proxy) => proxy.refused(info, io, ResponseFlags::NONE),
            Self::DirectResponse(_) | Self::Echo | Self::Close => {}
        }
    }
}

impl Listeners {
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        let handler = Rc::new(Handler { worker: Rc::clone(worker), listeners: RefCell::default() });
        let global = Arc::clone(&worker.shared().connections);
        Self { acceptors: Acceptors::new(handler, worker.index(), global) }
    }

    pub(super) fn apply(&self, change: ListenerChange) {
        let handler = self.acceptors.handler();
        match change {
            ListenerChange::Activate(listener, sockets) => {
                handler.prepare(&listener);
                if let Err(error) = self.acceptors.activate(&listener, &sockets) {
                    tracing::error!(listener = &*listener.config.name, %error, "a listening socket cannot be polled");
                }
            }
            ListenerChange::Stop(id) => {
                let (acceptors, worker) = (self.acceptors.clone(), Rc::clone(&handler.worker));
                tokio::task::spawn_local(async move {
                    acceptors.stop(id).await;
                    worker.report(Report::ListenerStopped(id));
                });
            }
            ListenerChange::Close(id, None) => {
                if let Some(listener) = handler.listeners.borrow_mut().remove(&id) {
                    listener.connections.borrow().iter().for_each(|(_, connection)| connection.abort());
                }
            }
            ListenerChange::Close(id, Some(chains)) => {
                let Some(listener) = handler.listener(id) else { return };
                let closing = |key| chains.iter().any(|chain| std::ptr::eq(Arc::as_ptr(chain), key));
                listener
                    .connections
                    .borrow()
                    .iter()
                    .filter(|(key, _)| closing(*key))
                    .for_each(|(_, connection)| connection.abort());
            }
        }
    }

    pub(super) fn pause(&self, paused: bool) {
        self.acceptors.pause(paused);
    }
}

impl Handler {
    /// Resolves what connections of this version will need; chains an update kept keep theirs.
    fn prepare(&self, listener: &Arc<ActiveListener>) {
        let config = &listener.config;
        let prefix = format!("listener.{}.", config.stat_prefix);
        let store = self.worker.store();
        let before = self.listeners.borrow().get(&listener.id).cloned();
        let chains = config
            .chains
            .iter()
            .map(|chain| {
                let key = Arc::as_ptr(chain);
                let kept = before.as_ref().and_then(|before| before.chains.get(&key)).cloned();
                (key, kept.unwrap_or_else(|| self.served(chain, config)))
            })
            .collect();
        let groups = (
            store.group::<ListenerStats>(&prefix),
            store.group::<ListenerWorkerStats>(&format!("{prefix}worker_{}.", self.worker.index())),
        );
        let runtime = ListenerRuntime {
            stats: groups.0.shard(self.worker.index()),
            worker_stats: groups.1.shard(self.worker.index()),
            _groups: groups,
            _filter_group: store.group::<ListenerFilterStats>(&prefix),
            chains,
            filters: config
                .listener_filters
                .iter()
                .map(|filter| FilterStats::new(&filter.kind, store, self.worker.index()))
                .collect(),
            connections: before.map(|before| RefCell::new(before.connections.take())).unwrap_or_default(),
        };
        self.listeners.borrow_mut().insert(listener.id, Rc::new(runtime));
    }

    fn served(&self, chain: &Arc<FilterChain>, listener: &Arc<ListenerConfig>) -> Served {
        let service = self.service(chain, listener);
        let filters = NetworkFilters::new(&self.worker, &chain.read_filters, matches!(service, Service::Tcp(_)));
        let transport = Transport::new(chain, self.worker.store(), &listener.stat_prefix, self.worker.index());
        Served { transport: Rc::new(transport), filters, service }
    }

    fn service(&self, chain: &Arc<FilterChain>, listener: &Arc<ListenerConfig>) -> Service {
        let limit = match listener.per_connection_buffer_limit {
            0 => usize::MAX / 2,
            limit => limit as usize,
        };
        match chain.service.get() {
            Some(ChainService::Http(http)) => {
                Service::Http(Manager::new(&self.worker, http, &listener.stat_prefix, limit))
            }
            Some(ChainService::Tcp(tcp)) => Service::Tcp(TcpProxy::new(&self.worker, tcp, limit)),
            Some(ChainService::DirectResponse(response)) => Service::DirectResponse(response.clone()),
            Some(ChainService::Echo) => Service::Echo,
            Some(ChainService::Close) | None => Service::Close,
        }
    }

    fn listener(&self, id: ListenerId) -> Option<Rc<ListenerRuntime>> {
        self.listeners.borrow().get(&id).cloned()
    }

    fn with<T>(&self, listener: &ActiveListener, f: impl FnOnce(&ListenerRuntime) -> T) -> Option<T> {
        self.listeners.borrow().get(&listener.id).map(|runtime| f(runtime))
    }
}

impl ConnectionHandler for Rc<Handler> {
    fn serve(&self, accepted: Accepted) {
        let Some(runtime) = self.listener(accepted.listener.id) else { return };
        let key = Arc::as_ptr(&accepted.chain);
        let Served { transport, filters, service } = match runtime.chains.get(&key) {
            Some(served) => served.clone(),
            // The chain was replaced between the match and now: it still serves what it matched.
            None => self.served(&accepted.chain, &accepted.listener.config),
        };
        let Accepted { stream, prefix, info, chain, listener, guard, .. } = accepted;
        let mut io = match stream {
            Stream::Tcp(stream) => Io::tcp(stream, prefix),
            Stream::Unix(stream) => Io::unix(stream, prefix),
        };
        let counted =
            Counted::new((runtime.stats.clone(), runtime.worker_stats.clone()), &info, &listener, &self.worker);
        let server = Arc::clone(&self.worker.shared().drain);
        let worker = Rc::clone(&self.worker);
        let meter = counted.meter();
        let listener_stats = runtime.stats.clone();
        let task = tokio::task::spawn_local(async move {
            let _open = (guard, counted);
            io = match transport.secure(io, &info, &worker, &listener_stats).await {
                Ok(io) => io,
                Err(io) => return service.turned_away(&info, io, [server, Arc::clone(&listener.drain)], chain),
            };
            if let Some(meter) = meter {
                io.measure(meter);
            }
            let admitted = match &filters {
                Some(filters) => filters.admit(&info, &mut io).await,
                None => Ok(Held::default()),
            };
            let held = match admitted {
                Ok(held) => held,
                Err(flags) => {
                    if let Service::Tcp(proxy) = service {
                        proxy.refused(&info, io, flags);
                    }
                    return;
                }
            };
            match service {
                Service::Http(manager) => {
                    let connection = Connection::new(&manager, info, [server, Arc::clone(&listener.drain)], chain);
                    crate::http::connection::serve(manager, connection, io).await;
                }
                Service::Tcp(proxy) => {
                    let drains = [&*server, &*listener.drain, &chain.drain];
                    proxy.serve(info, io, &drains, held.cluster.as_ref()).await;
                }
                Service::DirectResponse(response) => {
                    info.outcome.details.set(Some("direct_response"));
                    crate::tcp::reply::direct_response(io, response).await;
                }
                Service::Echo => crate::tcp::reply::echo(&worker, io).await,
                Service::Close => {}
            }
        });
        let mut connections = runtime.connections.borrow_mut();
        // Ended ones are forgotten now and then, so that the list is as long as the connections are many.
        if connections.len() == connections.capacity() {
            connections.retain(|(_, connection)| !connection.is_finished());
        }
        connections.push((key, task.abort_handle()));
    }

    fn unmatched(&self, listener: &Arc<ActiveListener>, info: Rc<ConnectionInfo>) {
        let Some(logs) = listener.config.logs.get().filter(|logs| !logs.is_empty()) else { return };
        let now = std::time::SystemTime::now();
        let mut info = StreamInfo::new(Rc::clone(&info), info.accepted, now, StreamId::None);
        info.add_connection();
        info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
        info.details = Some(filters::flags::details::FILTER_CHAIN_NOT_FOUND.into());
        info.end = Some(std::time::Instant::now());
        let context = FormatContext { log_type: AccessLogType::TcpConnectionEnd, ..FormatContext::new(&info) };
        for log in &**logs {
            log.log(&context, self.worker.logs(), &*self.worker.runtime());
        }
    }

    fn connection_id(&self) -> u64 {
        self.worker.next_connection_id()
    }

    fn rejects(&self) -> bool {
        self.worker.overloaded(crate::overload::Action::RejectIncomingConnections)
    }

    fn count(&self, listener: &ActiveListener, counter: ListenerCounter) {
        self.with(listener, |runtime| {
            let stats = &runtime.stats;
            match counter {
                ListenerCounter::DownstreamCxOverflow => stats.downstream_cx_overflow().inc(),
                ListenerCounter::DownstreamGlobalCxOverflow => stats.downstream_global_cx_overflow().inc(),
                ListenerCounter::DownstreamCxOverloadReject => stats.downstream_cx_overload_reject().inc(),
                ListenerCounter::DownstreamPreCxTimeout => stats.downstream_pre_cx_timeout().inc(),
                ListenerCounter::DownstreamListenerFilterError => stats.downstream_listener_filter_error().inc(),
                ListenerCounter::DownstreamListenerFilterRemoteClose => {
                    stats.downstream_listener_filter_remote_close().inc();
                }
                ListenerCounter::NoFilterChainMatch => stats.no_filter_chain_match().inc(),
            }
        });
    }

    fn count_filter(&self, listener: &ActiveListener, filter: usize, counter: FilterCounter) {
        self.with(listener, |runtime| {
            if let Some(stats) = runtime.filters.get(filter) {
                stats.count(counter);
            }
        });
    }

    fn tls_bytes_processed(&self, listener: &ActiveListener, filter: usize, bytes: usize) {
        self.with(listener, |runtime| {
            if let Some(stats) = runtime.filters.get(filter) {
                stats.bytes_processed(bytes);
            }
        });
    }

    fn pre_connections(&self, listener: &ActiveListener, delta: i64) {
        self.with(listener, |runtime| {
            let gauge = runtime.stats.downstream_pre_cx_active();
            if delta < 0 { gauge.sub(delta.unsigned_abs()) } else { gauge.add(delta.unsigned_abs()) }
        });
    }

    fn accepted_per_event(&self, listener: &ActiveListener, connections: u32) {
        self.with(listener, |runtime| {
            runtime.stats.connections_accepted_per_socket_event().record(connections.into());
        });
    }
}

//! Accepting connections on a worker, up to the moment a filter chain serves them.
//!
//! [`Acceptors`] holds one accept loop for each socket the worker has. A loop belongs to the *socket*: when a new version
//! of a listener takes over, the loop goes on with it and nothing queued is lost. Without listener filters a connection
//! costs `accept4` and the registration with the poller, nothing else: `TCP_NODELAY` and keep-alive are inherited from
//! the listening socket, and the local address is known unless the socket listens on every address.

mod budget;
mod connection;
mod error;
mod socket;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use filters::stream_info::{Address, ConnectionInfo};
use tokio::sync::Notify;

use super::drain::Drain;
use super::listener_filters::FilterCounter;
use crate::config::filter_chain::FilterChain;
use crate::config::listener::ListenerConfig;
use crate::control::listeners::sockets::ListenSocket;

pub use self::budget::{ConnectionBudget, ConnectionGuard};
pub use self::socket::Stream;

/// Connections accepted in one go when the listener sets no bound, so that other tasks get their turn.
const DEFAULT_BATCH: u32 = 64;

/// A version of a listener that accepts connections. It does not hold the sockets: connections keep this alive, and must
/// not keep them open.
#[derive(Debug)]
pub struct ActiveListener {
    /// Kept by in-place updates, new with every full update: connections of all in-place versions drain together.
    pub id: ListenerId,
    /// What it is.
    pub config: Arc<ListenerConfig>,
    /// Where it listens or, when `bind_to_port` is false, which recovered destinations it serves; ports are the real ones.
    pub addresses: Vec<Address>,
    /// Begun when the listener was removed or replaced, or told to drain. Shared by in-place versions.
    pub drain: Arc<Drain>,
    /// Its connections on all workers, and the limit. Shared by in-place versions.
    pub budget: Arc<ConnectionBudget>,
}

/// Identifies a listener from a full update to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u64);

/// A connection ready to be served.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: Stream,
    /// Bytes already read from it, to be read first.
    pub prefix: Bytes,
    /// What is known about it.
    pub info: Rc<ConnectionInfo>,
    /// What the client offers to speak, as far as an inspector saw it.
    pub application_protocols: Vec<Box<[u8]>>,
    /// Which chain serves it.
    pub chain: Arc<FilterChain>,
    /// The listener that accepted it, or was handed it.
    pub listener: Arc<ActiveListener>,
    /// Counts as an open connection until dropped.
    pub guard: ConnectionGuard,
}

/// What a listener counts on a worker. Names are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerCounter {
    /// Refused: the listener's own limit.
    DownstreamCxOverflow,
    /// Refused: the process-wide limit.
    DownstreamGlobalCxOverflow,
    /// Refused: an overload action.
    DownstreamCxOverloadReject,
    /// Closed: listener filters took too long.
    DownstreamPreCxTimeout,
    /// Closed: reading for listener filters failed.
    DownstreamListenerFilterError,
    /// Closed: the client left while listener filters were waiting.
    DownstreamListenerFilterRemoteClose,
    /// Closed: no filter chain matches.
    NoFilterChainMatch,
}

impl ListenerCounter {
    /// The name below `listener.<address>.`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DownstreamCxOverflow => "downstream_cx_overflow",
            Self::DownstreamGlobalCxOverflow => "downstream_global_cx_overflow",
            Self::DownstreamCxOverloadReject => "downstream_cx_overload_reject",
            Self::DownstreamPreCxTimeout => "downstream_pre_cx_timeout",
            Self::DownstreamListenerFilterError => "downstream_listener_filter_error",
            Self::DownstreamListenerFilterRemoteClose => "downstream_listener_filter_remote_close",
            Self::NoFilterChainMatch => "no_filter_chain_match",
        }
    }
}

/// What a worker does with connections, and what accepting asks of it.
pub trait ConnectionHandler: 'static {
    /// Serves a connection, usually in a task of its own.
    fn serve(&self, accepted: Accepted);

    /// A connection no chain matches, about to be closed: for the listener's access log.
    fn unmatched(&self, listener: &Arc<ActiveListener>, info: Rc<ConnectionInfo>);

    /// A number for a connection, unique in the process.
    fn connection_id(&self) -> u64;

    /// Whether the overload action `reject_incoming_connections` takes this one.
    fn rejects(&self) -> bool {
        false
    }

    /// Counts for `listener`.
    fn count(&self, listener: &ActiveListener, counter: ListenerCounter);

    /// Counts for the listener filter at `filter` of `listener`.
    fn count_filter(&self, listener: &ActiveListener, filter: usize, counter: FilterCounter);

    /// Bytes a `tls_inspector` looked at.
    fn tls_bytes_processed(&self, listener: &ActiveListener, filter: usize, bytes: usize);

    /// Connections in listener filters: gauge `downstream_pre_cx_active` changes by `delta`.
    fn pre_connections(&self, listener: &ActiveListener, delta: i64);

    /// Connections taken from a socket in one go: histogram `connections_accepted_per_socket_event`.
    fn accepted_per_event(&self, listener: &ActiveListener, connections: u32);
}

/// The listeners of one worker. Cheap to clone.
pub struct Acceptors<H> {
    worker: Rc<Worker<H>>,
}

/// What all accept loops of a worker share.
struct Worker<H> {
    handler: H,
    /// Which socket of a per-worker set is this worker's.
    index: usize,
    global: Arc<ConnectionBudget>,
    listeners: RefCell<HashMap<ListenerId, Arc<ActiveListener>>>,
    /// Who a recovered destination belongs to.
    by_address: RefCell<HashMap<Address, Arc<ActiveListener>>>,
    loops: RefCell<HashMap<u64, Rc<AcceptLoop>>>,
    paused: Cell<bool>,
    resumed: Notify,
}

/// One socket and who accepts on it now.
struct AcceptLoop {
    current: RefCell<Arc<ActiveListener>>,
    /// Told to take what is queued and end.
    closing: Cell<bool>,
    wake: Notify,
    /// Told to whoever waits for the end.
    ended: Notify,
    done: Cell<bool>,
}

impl<H: ConnectionHandler> Acceptors<H> {
    /// The listeners, none yet, of worker `index`. Calls must come from within its `LocalRuntime`.
    #[must_use]
    pub fn new(handler: H, index: usize, global: Arc<ConnectionBudget>) -> Self {
        Self {
            worker: Rc::new(Worker {
                handler,
                index,
                global,
                listeners: RefCell::default(),
                by_address: RefCell::default(),
                loops: RefCell::default(),
                paused: Cell::new(false),
                resumed: Notify::new(),
            }),
        }
    }

    /// Accepts for `listener` on `sockets` from now on. Sockets it shares with another version go on with this one.
    ///
    /// # Errors
    /// When a descriptor cannot be registered with the poller.
    pub fn activate(&self, listener: &Arc<ActiveListener>, sockets: &[Arc<ListenSocket>]) -> io::Result<()> {
        for socket in sockets {
            let existing = self.worker.loops.borrow().get(&socket.id()).cloned();
            match existing.filter(|state| !state.closing.get()) {
                Some(state) => *state.current.borrow_mut() = Arc::clone(listener),
                None => self.start(socket, listener)?,
            }
        }
        let mut by_address = self.worker.by_address.borrow_mut();
        by_address.retain(|_, other| other.id != listener.id);
        by_address.extend(listener.addresses.iter().map(|address| (canonical(address), Arc::clone(listener))));
        drop(by_address);
        self.worker.listeners.borrow_mut().insert(listener.id, Arc::clone(listener));
        Ok(())
    }

    /// Stops accepting for the listener on the sockets it still has: what is queued is accepted first, then this
    /// worker's descriptors are closed. Ends when they are.
    pub async fn stop(&self, id: ListenerId) {
        self.worker.listeners.borrow_mut().remove(&id);
        self.worker.by_address.borrow_mut().retain(|_, listener| listener.id != id);
        let ending: Vec<_> = {
            let loops = self.worker.loops.borrow();
            loops.values().filter(|state| state.current.borrow().id == id).cloned().collect()
        };
        for state in &ending {
            state.closing.set(true);
            state.wake.notify_one();
        }
        for state in ending {
            while !state.done.get() {
                state.ended.notified().await;
            }
        }
    }

    /// Stops or resumes taking connections from every socket (overload action `stop_accepting_connections`); they wait
    /// in the kernel meanwhile.
    pub fn pause(&self, paused: bool) {
        self.worker.paused.set(paused);
        if !paused {
            self.worker.resumed.notify_waiters();
        }
    }

    /// The listener with that identity, if it accepts on this worker.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<Arc<ActiveListener>> {
        self.worker.listeners.borrow().get(&id).cloned()
    }

    /// What was given as handler.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.worker.handler
    }

    fn start(&self, socket: &Arc<ListenSocket>, listener: &Arc<ActiveListener>) -> io::Result<()> {
        let source = socket::Source::new(socket, self.worker.index)?;
        let state = Rc::new(AcceptLoop {
            current: RefCell::new(Arc::clone(listener)),
            closing: Cell::new(false),
            wake: Notify::new(),
            ended: Notify::new(),
            done: Cell::new(false),
        });
        let id = socket.id();
        self.worker.loops.borrow_mut().insert(id, Rc::clone(&state));
        let worker = Rc::clone(&self.worker);
        tokio::task::spawn_local(async move {
            worker.accept(source, &state).await;
            let mut loops = worker.loops.borrow_mut();
            if loops.get(&id).is_some_and(|other| Rc::ptr_eq(other, &state)) {
                loops.remove(&id);
            }
            state.done.set(true);
            state.ended.notify_waiters();
        });
        Ok(())
    }
}

impl<H> Clone for Acceptors<H> {
    fn clone(&self) -> Self {
        Self { worker: Rc::clone(&self.worker) }
    }
}

impl<H: ConnectionHandler> Worker<H> {
    /// Accepts until told to close, then what is still queued; drops the descriptor.
    async fn accept(self: &Rc<Self>, source: socket::Source, state: &AcceptLoop) {
        let mut failures = error::Backoff::default();
        while !state.closing.get() {
            if self.paused.get() {
                tokio::select! {
                    () = self.resumed.notified() => {}
                    () = state.wake.notified() => {}
                }
                continue;
            }
            let event = tokio::select! {
                biased;
                () = state.wake.notified() => continue,
                event = self.batch(&source, state) => event,
            };
            match event {
                // Others get their turn between two batches.
                Ok(()) => {
                    failures.reset();
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    let listener = Arc::clone(&state.current.borrow());
                    if let Some(pause) = failures.after(&error) {
                        tracing::debug!(listener = &*listener.config.name, %error, "accepting pauses");
                        self.rest(pause, state).await;
                    }
                }
            }
        }
        self.sweep(&source, state);
    }

    /// Takes up to the listener's number of connections, at least one.
    async fn batch(self: &Rc<Self>, source: &socket::Source, state: &AcceptLoop) -> io::Result<()> {
        let mut taken = 0;
        let result = poll_fn(|context| {
            let listener = Arc::clone(&state.current.borrow());
            let most = listener.config.max_connections_to_accept_per_socket_event.map_or(DEFAULT_BATCH, Into::into);
            while taken < most {
                match source.poll_accept(context) {
                    Poll::Ready(Ok((stream, peer))) => {
                        taken += 1;
                        self.accepted(&listener, source.local(), stream, peer);
                    }
                    // With some taken there is progress; an error that lasts comes again in the next batch.
                    Poll::Ready(Err(error)) if taken == 0 => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                    Poll::Pending if taken > 0 => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        if taken > 0 {
            self.handler.accepted_per_event(&state.current.borrow(), taken);
        }
        result
    }

    /// What the kernel has already completed is not dropped with the socket.
    fn sweep(self: &Rc<Self>, source: &socket::Source, state: &AcceptLoop) {
        let listener = Arc::clone(&state.current.borrow());
        while let ControlFlow::Continue(connection) = source.accept_queued() {
            if let Some((stream, peer)) = connection {
                self.accepted(&listener, source.local(), stream, peer);
            }
        }
    }

    async fn rest(&self, pause: Duration, state: &AcceptLoop) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.wake.notified() => {}
        }
    }

    /// Who a recovered destination belongs to: the listener on exactly that address, else the one on every address.
    fn owner_of(&self, destination: &Address) -> Option<Arc<ActiveListener>> {
        let by_address = self.by_address.borrow();
        if let Some(listener) = by_address.get(destination) {
            return Some(Arc::clone(listener));
        }
        let destination = destination.ip()?;
        let v6 = Address::Ip(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), destination.port()));
        if destination.is_ipv4() {
            let v4 = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), destination.port()));
            let dual =
                || by_address.get(&v6).filter(|listener| listener.config.addresses.iter().any(|a| a.ipv4_compat));
            by_address.get(&v4).or_else(dual).cloned()
        } else {
            by_address.get(&v6).cloned()
        }
    }
}

/// IPv4 addresses in their IPv6 form, as dual-stack sockets show them, are IPv4 addresses to configuration.
fn canonical(address: &Address) -> Address {
    match address {
        Address::Ip(ip) => Address::Ip(SocketAddr::new(ip.ip().to_canonical(), ip.port())),
        other => other.clone(),
    }
}

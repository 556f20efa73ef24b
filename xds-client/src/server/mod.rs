//! A small control plane, for demonstrations and tests: it serves snapshots over ADS, per-type streams and REST, in both
//! variants, records what clients say, and misbehaves on request.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use xds_client::server::ControlPlane;
//! let control_plane = ControlPlane::new("demo");
//! control_plane.set(xds_client::CLUSTER, vec![]);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! tokio::spawn(control_plane.clone().serve_tcp(listener));
//! # Ok(())
//! # }
//! ```
//!
//! A handle may be cloned and used from any thread. What a stream owes its client is decided by state machines
//! ([`SotwStream`], [`DeltaStream`]) that know no sockets; property tests talk to them directly.

mod connection;
mod delta;
mod snapshot;
mod sotw;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, mpsc};

pub use self::delta::DeltaStream;
pub use self::snapshot::Snapshot;
pub use self::sotw::SotwStream;
use crate::connect::Io;
use crate::mux::Request;
use crate::types::Resource;

/// Requests and NACKs remembered; older ones are forgotten.
const LOG_SIZE: usize = 4096;

/// A handle of a control plane. Clones are the same one.
#[derive(Clone)]
pub struct ControlPlane {
    shared: Arc<Shared>,
}

struct Shared {
    identifier: String,
    state: Mutex<State>,
    /// Something was logged.
    logged: Notify,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    log: VecDeque<Received>,
    streams: BTreeMap<u64, mpsc::UnboundedSender<Command>>,
    next_stream: u64,
    delay: Duration,
    refusing: bool,
    rest: Option<Arc<dyn RestServerCodec>>,
}

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Which stream it came on; streams are numbered from 0 in the order they were opened. REST polls count as streams.
    pub stream: u64,
    /// The path that was called.
    pub method: String,
    /// Its headers, as text.
    pub headers: Vec<(String, String)>,
    /// The message.
    pub request: Request,
}

impl Received {
    /// The type asked for.
    pub fn type_url(&self) -> &str {
        match &self.request {
            Request::Sotw(request) => &request.type_url,
            Request::Delta(request) => &request.type_url,
        }
    }

    /// The nonce it answers; empty if it answers none.
    pub fn nonce(&self) -> &str {
        match &self.request {
            Request::Sotw(request) => &request.response_nonce,
            Request::Delta(request) => &request.response_nonce,
        }
    }

    /// The text of a NACK.
    pub fn nack(&self) -> Option<&str> {
        let status = match &self.request {
            Request::Sotw(request) => &request.error_detail,
            Request::Delta(request) => &request.error_detail,
        };
        status.as_ref().map(|status| status.message.as_str())
    }
}

/// Translates REST bodies for the server: the counterpart of [`RestCodec`](crate::RestCodec).
pub trait RestServerCodec: Send + Sync {
    /// Reads a question.
    fn decode_request(&self, body: &[u8]) -> Result<DiscoveryRequest, String>;
    /// Writes a reply.
    fn encode_response(&self, response: &DiscoveryResponse) -> Result<Bytes, String>;
}

/// Ways to misbehave towards every open stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// A well-framed message that is no protobuf.
    Garbage,
    /// A response that claims to be long, and a reset after its first bytes.
    ResetMidMessage,
    /// This message, as it is.
    Raw(Bytes),
}

/// What a stream's task is told.
#[derive(Clone, Debug)]
enum Command {
    Changed,
    Heartbeat { type_url: String, name: String },
    Mischief(Mischief),
    Close,
}

impl ControlPlane {
    /// A control plane that calls itself `identifier` and serves nothing yet.
    pub fn new(identifier: impl Into<String>) -> Self {
        let shared = Shared { identifier: identifier.into(), state: Mutex::default(), logged: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Replaces all resources of a type. The type gets a new version; so does every resource whose body or TTL changed
    /// (versions given by the caller are ignored). Clients are told at once.
    pub fn set(&self, type_url: &str, resources: Vec<Resource>) {
        self.edit(|snapshot| snapshot.set(type_url, resources));
    }

    /// Adds or replaces one resource.
    pub fn put(&self, type_url: &str, resource: Resource) {
        self.edit(|snapshot| snapshot.put(type_url, resource));
    }

    /// Removes one resource.
    pub fn remove(&self, type_url: &str, name: &str) {
        self.edit(|snapshot| snapshot.remove(type_url, name));
    }

    /// Changes several types in one step: clients are told afterwards, in the order clusters, endpoints, listeners, routes.
    pub fn edit(&self, edit: impl FnOnce(&mut Snapshot)) {
        let mut state = self.state();
        edit(&mut state.snapshot);
        state.tell(&Command::Changed);
    }

    /// Confirms a resource that has a TTL without sending it again.
    pub fn heartbeat(&self, type_url: &str, name: &str) {
        self.state().tell(&Command::Heartbeat { type_url: type_url.to_owned(), name: name.to_owned() });
    }

    /// Misbehaves towards every open stream.
    pub fn misbehave(&self, mischief: Mischief) {
        self.state().tell(&Command::Mischief(mischief));
    }

    /// Ends every open stream with status UNAVAILABLE.
    pub fn drop_streams(&self) {
        self.state().tell(&Command::Close);
    }

    /// While set, new streams and polls are refused with UNAVAILABLE (503).
    pub fn refuse(&self, refusing: bool) {
        self.state().refusing = refusing;
    }

    /// Waits so long before every response.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Serves REST polls too, with this codec; without one they get 404.
    pub fn serve_rest(&self, codec: Arc<dyn RestServerCodec>) {
        self.state().rest = Some(codec);
    }

    /// The requests received so far, oldest first.
    pub fn requests(&self) -> Vec<Received> {
        self.state().log.iter().cloned().collect()
    }

    /// The NACKs received so far, oldest first.
    pub fn nacks(&self) -> Vec<Received> {
        self.state().log.iter().filter(|received| received.nack().is_some()).cloned().collect()
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.state().streams.len()
    }

    /// Waits until `find` finds something in the log of requests.
    pub async fn wait_for<T>(&self, mut find: impl FnMut(&[Received]) -> Option<T>) -> T {
        loop {
            let logged = self.shared.logged.notified();
            tokio::pin!(logged);
            // Registered before looking, or a request between the look and the wait would be missed.
            logged.as_mut().enable();
            if let Some(found) = find(self.state().log.make_contiguous()) {
                return found;
            }
            logged.await;
        }
    }

    /// Serves connections from a TCP listener for ever.
    pub async fn serve_tcp(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without it acknowledgements would wait for each other.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(self.clone().serve_connection(stream));
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Serves connections from a Unix listener for ever.
    pub async fn serve_unix(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(self.clone().serve_connection(stream))),
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Serves one connection until it ends.
    pub async fn serve_connection(self, io: impl Io + 'static) {
        connection::serve(self, io).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, received: Received) {
        let mut state = self.state();
        if state.log.len() == LOG_SIZE {
            state.log.pop_front();
        }
        state.log.push_back(received);
        drop(state);
        self.shared.logged.notify_waiters();
    }
}

impl State {
    fn tell(&mut self, command: &Command) {
        self.streams.retain(|_, stream| stream.send(command.clone()).is_ok());
    }

    fn open_stream(&mut self) -> (u64, mpsc::UnboundedReceiver<Command>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let id = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(id, sender);
        (id, receiver)
    }
}

/// Descriptors may have run out: looping would only burn the processor.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "the control plane cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

//! What is known about a stream while it lives: the access log, header formats, filters and traces read it.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::Value;
use smallvec::SmallVec;

use crate::filter_state::FilterState;
use crate::flags::ResponseFlags;
use crate::http::{Method, Version};
use crate::tls::TlsInfo;

/// Metadata: name space to a structure of values.
pub type Metadata = serde_json::Map<String, Value>;

/// An address of either end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port.
    Ip(SocketAddr),
    /// A Unix socket's path (`@name` for the abstract name space); empty for an unnamed peer.
    Pipe(Arc<str>),
    /// An internal listener by name.
    Internal(Arc<str>),
}

impl Address {
    /// The IP address and port, if it is one.
    #[must_use]
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            _ => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Pipe(path) => f.write_str(path),
            Self::Internal(name) => write!(f, "envoy://{name}/"),
        }
    }
}

/// A fact of a PROXY header, version 2, by its type (PP2_TYPE_*).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// The type.
    pub kind: u8,
    /// The value.
    pub value: Bytes,
}

/// What upstreams may be told of a connection by the PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxied {
    /// Nothing: connections to them are the proxy's own.
    #[default]
    Untold,
    /// Its addresses, and these facts.
    Told(Vec<Tlv>),
}

/// What is known about a downstream connection; the same for all its streams.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Process-wide number of the connection (`%CONNECTION_ID%`).
    pub id: u64,
    /// The peer as configuration sees it: after PROXY protocol or original-source recovery.
    pub remote: Address,
    /// The socket's own peer.
    pub direct_remote: Address,
    /// The local address as configuration sees it: after original-destination recovery or PROXY protocol.
    pub local: Address,
    /// The socket's own local address.
    pub direct_local: Address,
    /// Whether [`Self::local`] was recovered rather than the socket's own.
    pub local_restored: bool,
    /// Server name of the TLS client hello, lower case; empty when none was seen.
    pub requested_server_name: String,
    /// The TLS session, once its handshake is over, well or not; empty on a plain connection.
    pub tls: OnceCell<TlsInfo>,
    /// Name of the filter chain that was matched (`%FILTER_CHAIN_NAME%`).
    pub filter_chain_name: Arc<str>,
    /// Name of the listener.
    pub listener_name: Arc<str>,
    /// When it was accepted.
    pub accepted: Instant,
    /// What upstreams may be told of it.
    pub proxied: RefCell<Proxied>,
    /// Dynamic metadata of listener filters, by name space.
    pub metadata: Option<Box<Metadata>>,
    /// What filters left for each other.
    pub filter_state: RefCell<FilterState>,
    /// What became of it, for whoever logs it at its end.
    pub outcome: ConnectionOutcome,
}

/// What became of a connection, as far as somebody wants to know: its listener's access log.
#[derive(Debug, Default)]
pub struct ConnectionOutcome {
    /// Somebody wants to know.
    pub wanted: Cell<bool>,
    /// What was spoken, once a request was understood.
    pub protocol: Cell<Option<Version>>,
    /// Why it ended.
    pub flags: Cell<ResponseFlags>,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Cell<Option<&'static str>>,
    /// `%CONNECTION_TERMINATION_DETAILS%`, where a network filter closed it.
    pub termination: RefCell<Option<String>>,
    /// Dynamic metadata of network filters, by name space.
    pub metadata: RefCell<Metadata>,
    /// All that is known, where the connection is one stream: whoever serves it leaves it here at the end.
    pub stream: RefCell<Option<Box<StreamInfo>>>,
}

impl ConnectionInfo {
    /// A plain connection accepted now, of which nothing was recovered, negotiated or matched yet.
    #[must_use]
    pub fn between(remote: Address, local: Address) -> Self {
        Self {
            id: 1,
            direct_remote: remote.clone(),
            remote,
            direct_local: local.clone(),
            local,
            local_restored: false,
            requested_server_name: String::new(),
            tls: OnceCell::new(),
            filter_chain_name: "".into(),
            listener_name: "".into(),
            accepted: Instant::now(),
            proxied: RefCell::default(),
            metadata: None,
            filter_state: RefCell::default(),
            outcome: ConnectionOutcome::default(),
        }
    }
}

impl ConnectionInfo {
    /// Whether the connection is TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.get().is_some()
    }

    /// Lets upstreams be told of its addresses, if a PROXY header has not let them be told of more.
    pub fn tell_upstreams(&self) {
        let mut proxied = self.proxied.borrow_mut();
        if *proxied == Proxied::Untold {
            *proxied = Proxied::Told(Vec::new());
        }
    }
}

/// What is known about the upstream side of a stream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamInfo {
    /// The chosen host's address (`%UPSTREAM_HOST%`).
    pub host: Option<Arc<Address>>,
    /// The chosen host's hostname.
    pub host_name: Option<Arc<str>>,
    /// Name of the cluster, or its alternative stat name (`%UPSTREAM_CLUSTER%`).
    pub cluster: Option<Arc<str>>,
    /// Whether a connection to the chosen host stands, or stood.
    pub connected: bool,
    /// Local address of the upstream connection.
    pub local: Option<SocketAddr>,
    /// Process-wide number of the upstream connection.
    pub connection_id: Option<u64>,
    /// Version spoken upstream.
    pub protocol: Option<Version>,
    /// Attempts made so far (`%UPSTREAM_REQUEST_ATTEMPT_COUNT%`).
    pub attempts: u32,
    /// Every host tried, in order.
    pub hosts_attempted: Vec<Arc<Address>>,
    /// Why the transport failed, Envoy's wording (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub transport_failure: Option<Cow<'static, str>>,
    /// The TLS session of the upstream connection; `None` on a plain one.
    pub tls: Option<Rc<TlsInfo>>,
    /// From asking the pool until a connection was ready.
    pub pool_ready: Option<Duration>,
    /// Numbers of the upstream connections of all attempts, in order.
    pub connection_ids_attempted: SmallVec<[u64; 2]>,
    /// Metadata of the cluster.
    pub cluster_metadata: Option<Arc<Metadata>>,
    /// Metadata of the host.
    pub host_metadata: Option<Arc<Metadata>>,
}

/// Moments of a stream, for the `*_DURATION` operators.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Last byte of the request received.
    pub last_downstream_rx: Option<Instant>,
    /// First byte of the request sent upstream.
    pub first_upstream_tx: Option<Instant>,
    /// Last byte of the request sent upstream.
    pub last_upstream_tx: Option<Instant>,
    /// First byte of the response received.
    pub first_upstream_rx: Option<Instant>,
    /// Last byte of the response received.
    pub last_upstream_rx: Option<Instant>,
    /// First byte of the response sent downstream.
    pub first_downstream_tx: Option<Instant>,
    /// Last byte of the response sent downstream.
    pub last_downstream_tx: Option<Instant>,
}

/// Byte counts beyond the bodies, for the `*_BYTES_*` operators.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByteMeter {
    /// Bytes of headers received (as decoded).
    pub header_rx: u64,
    /// Bytes of headers sent (as encoded or, in HTTP/2, before compression).
    pub header_tx: u64,
    /// All bytes received.
    pub wire_rx: u64,
    /// All bytes sent.
    pub wire_tx: u64,
}

impl std::ops::AddAssign for ByteMeter {
    fn add_assign(&mut self, other: Self) {
        self.header_rx += other.header_rx;
        self.header_tx += other.header_tx;
        self.wire_rx += other.wire_rx;
        self.wire_tx += other.wire_tx;
    }
}

/// What a stream is called in logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamId {
    /// Nothing.
    #[default]
    None,
    /// An HTTP stream: a random number.
    Number(u64),
    /// A TCP connection: the randomness of a UUID.
    Uuid(u128),
}

impl StreamId {
    /// The number, where it is one.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::None | Self::Uuid(_) => 0,
        }
    }
}

impl From<u64> for StreamId {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// What is known about one stream.
#[derive(Debug)]
pub struct StreamInfo {
    /// The connection it came on.
    pub connection: Rc<ConnectionInfo>,
    /// When its first byte arrived, by the monotonic clock.
    pub start: Instant,
    /// The same moment by the wall clock (`%START_TIME%`).
    pub start_time: SystemTime,
    /// When it ended (`%DURATION%`); `None` while it runs.
    pub end: Option<Instant>,
    /// The client address the proxy trusts (`%DOWNSTREAM_REMOTE_ADDRESS%`).
    pub remote: Address,
    /// Version spoken downstream; `None` before a request head was understood.
    pub protocol: Option<Version>,
    /// Method of the request as received, for logs of requests whose head was dropped.
    pub method: Option<Method>,
    /// Status sent downstream; 0 when none was.
    pub response_code: u16,
    /// Why that status (`%RESPONSE_CODE_DETAILS%`).
    pub details: Option<Cow<'static, str>>,
    /// Why the connection ended with it (`%CONNECTION_TERMINATION_DETAILS%`).
    pub termination_details: Option<Cow<'static, str>>,
    /// Envoy's response flags.
    pub flags: ResponseFlags,
    /// Body bytes received.
    pub bytes_received: u64,
    /// Body bytes sent.
    pub bytes_sent: u64,
    /// Moments.
    pub timing: Timing,
    /// Downstream bytes beyond the bodies.
    pub downstream_bytes: ByteMeter,
    /// Upstream bytes beyond the bodies.
    pub upstream_bytes: ByteMeter,
    /// Name of the route (`%ROUTE_NAME%`).
    pub route_name: Option<Arc<str>>,
    /// Name of the virtual cluster matched (`%VIRTUAL_CLUSTER_NAME%`).
    pub virtual_cluster: Option<Arc<str>>,
    /// What it is called where it has no request ID (`%STREAM_ID%`).
    pub stream_id: StreamId,
    /// The upstream side; `None` until a cluster was chosen.
    pub upstream: Option<Box<UpstreamInfo>>,
    /// Dynamic metadata by filter name space.
    pub dynamic_metadata: Option<Box<Metadata>>,
    /// Metadata of the route.
    pub route_metadata: Option<Arc<Metadata>>,
    /// Metadata of the virtual host.
    pub virtual_host_metadata: Option<Arc<Metadata>>,
    /// Whether the request is a load balancer's health check (set by the health-check filter).
    pub health_check: bool,
    /// How often a route was looked for (`%ROUTE_RESOLUTION_COUNT%`).
    pub route_resolutions: u32,
    /// Flags filters added for logs, joined (`%CUSTOM_FLAGS%`); empty for none.
    pub custom_flags: Cow<'static, str>,
    /// Trace and span id in hexadecimal (`%TRACE_ID%`, `%SPAN_ID%`); `None` without a trace.
    pub trace: Option<Box<(String, String)>>,
}

impl StreamInfo {
    /// A stream that begins now on `connection`.
    #[must_use]
    pub fn new(
        connection: Rc<ConnectionInfo>,
        start: Instant,
        start_time: SystemTime,
        id: impl Into<StreamId>,
    ) -> Self {
        Self {
            remote: connection.remote.clone(),
            connection,
            start,
            start_time,
            end: None,
            protocol: None,
            method: None,
            response_code: 0,
            details: None,
            termination_details: None,
            flags: ResponseFlags::NONE,
            bytes_received: 0,
            bytes_sent: 0,
            timing: Timing::default(),
            downstream_bytes: ByteMeter::default(),
            upstream_bytes: ByteMeter::default(),
            route_name: None,
            virtual_cluster: None,
            stream_id: id.into(),
            upstream: None,
            dynamic_metadata: None,
            route_metadata: None,
            virtual_host_metadata: None,
            health_check: false,
            route_resolutions: 0,
            custom_flags: Cow::Borrowed(""),
            trace: None,
        }
    }

    /// Takes over what filters of the connection have found out, where the connection is one stream.
    pub fn add_connection(&mut self) {
        let connection = Rc::clone(&self.connection);
        if let Some(metadata) = &connection.metadata {
            self.add_metadata((**metadata).clone());
        }
        self.add_metadata(connection.outcome.metadata.borrow().clone());
        if let Some(details) = &*connection.outcome.termination.borrow() {
            self.termination_details = Some(details.clone().into());
        }
    }

    /// Adds structures to those of the dynamic metadata, by name space.
    pub fn add_metadata(&mut self, added: Metadata) {
        if added.is_empty() {
            return;
        }
        let metadata = self.dynamic_metadata.get_or_insert_default();
        for (namespace, fields) in added {
            match (metadata.get_mut(&namespace), fields) {
                (Some(Value::Object(known)), Value::Object(fields)) => known.extend(fields),
                (_, fields) => {
                    metadata.insert(namespace, fields);
                }
            }
        }
    }

    /// The upstream side, made on first use.
    pub fn upstream_mut(&mut self) -> &mut UpstreamInfo {
        self.upstream.get_or_insert_with(Box::default)
    }
}

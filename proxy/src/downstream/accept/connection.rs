//! From an accepted socket to its filter chain.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use filters::stream_info::{Address, ConnectionInfo, ConnectionOutcome, Proxied};
use tokio::io::AsyncReadExt;

use super::budget::Exhausted;
use super::{Accepted, ActiveListener, ConnectionGuard, ConnectionHandler, ListenerCounter, Stream, Worker, canonical};
use crate::downstream::chain_match::{ConnectionFacts, RAW_BUFFER};
use crate::downstream::listener_filters::{Detected, FilterCounter, Inspection, Progress, Surroundings};

/// Bytes read at a time for listener filters.
const READ: usize = 4096;

/// A connection on its way through a listener.
struct Incoming {
    stream: Stream,
    /// What was read for listener filters and is to be replayed.
    prefix: Bytes,
    direct_remote: Address,
    direct_local: Address,
    accepted: Instant,
    guard: ConnectionGuard,
}

/// Why the connection is closed; `None` when the filter that said so has counted it.
type Closed = Option<ListenerCounter>;

impl<H: ConnectionHandler> Worker<H> {
    /// A connection came in on a socket of `listener`. `local` is its local address where the socket tells.
    pub(super) fn accepted(
        self: &Rc<Self>,
        listener: &Arc<ActiveListener>,
        local: Option<&Address>,
        stream: Stream,
        peer: Address,
    ) {
        let Some(guard) = self.admit(listener) else { return };
        let direct_local = match local.cloned().map_or_else(|| stream.local_address(), Ok) {
            Ok(local) => local,
            // The client is gone already.
            Err(_) => return,
        };
        let incoming = Incoming {
            stream,
            prefix: Bytes::new(),
            direct_remote: peer,
            direct_local,
            accepted: Instant::now(),
            guard,
        };
        if listener.config.listener_filters.is_empty() {
            self.matched(Arc::clone(listener), incoming, Detected::default());
            return;
        }
        let worker = Rc::clone(self);
        let listener = Arc::clone(listener);
        tokio::task::spawn_local(async move { worker.filtered(listener, incoming).await });
    }

    fn admit(&self, listener: &Arc<ActiveListener>) -> Option<ConnectionGuard> {
        let config = &listener.config;
        if !config.bypass_overload_manager && self.handler.rejects() {
            self.handler.count(listener, ListenerCounter::DownstreamCxOverloadReject);
            return None;
        }
        match ConnectionGuard::open(&listener.budget, (!config.ignore_global_conn_limit).then_some(&self.global)) {
            Ok(guard) => return Some(guard),
            Err(Exhausted::Listener) => self.handler.count(listener, ListenerCounter::DownstreamCxOverflow),
            Err(Exhausted::Global) => self.handler.count(listener, ListenerCounter::DownstreamGlobalCxOverflow),
        }
        None
    }

    /// Runs listener filters; a listener that hands over by original destination may send it through another's.
    async fn filtered(self: Rc<Self>, listener: Arc<ActiveListener>, incoming: Incoming) {
        let Some((incoming, detected)) = self.inspected(&listener, incoming).await else { return };
        let destination = detected.local.as_ref().filter(|_| listener.config.use_original_dst).map(canonical);
        let other = destination.and_then(|destination| self.owner_of(&destination)).filter(|o| o.id != listener.id);
        let Some(other) = other else { return self.matched(listener, incoming, detected) };
        // From here on it is the other listener's connection: its limits, its filters, its chains.
        let Incoming { stream, prefix, direct_remote, direct_local, accepted, guard } = incoming;
        drop(guard);
        let Some(guard) = self.admit(&other) else { return };
        let incoming = Incoming { stream, prefix, direct_remote, direct_local, accepted, guard };
        if let Some((incoming, mut later)) = self.inspected(&other, incoming).await {
            // What the first listener restored stays unless the second one restores it again.
            later.local = later.local.or(detected.local);
            later.remote = later.remote.or(detected.remote);
            later.metadata = later.metadata.or(detected.metadata);
            if later.proxied == Proxied::Untold {
                later.proxied = detected.proxied;
            }
            self.matched(other, incoming, later);
        }
    }

    async fn inspected(&self, listener: &Arc<ActiveListener>, mut incoming: Incoming) -> Option<(Incoming, Detected)> {
        self.handler.pre_connections(listener, 1);
        let outcome = self.inspect(listener, &mut incoming).await;
        self.handler.pre_connections(listener, -1);
        match outcome {
            Ok(detected) => Some((incoming, detected)),
            Err(why) => {
                if let Some(counter) = why {
                    self.handler.count(listener, counter);
                }
                None
            }
        }
    }

    async fn inspect(&self, listener: &Arc<ActiveListener>, incoming: &mut Incoming) -> Result<Detected, Closed> {
        let config = &listener.config;
        let mut inspection = Inspection::new(&config.listener_filters, incoming.direct_local.ip().map(|ip| ip.port()));
        let mut read = BytesMut::from(&*incoming.prefix);
        let work = self.run(listener, &mut inspection, incoming, &mut read);
        let finished = match config.listener_filters_timeout {
            Some(limit) => tokio::time::timeout(limit, work).await,
            None => Ok(work.await),
        };
        let finished = match finished {
            Ok(result) => result,
            Err(_) if config.continue_on_listener_filters_timeout => {
                self.handler.count(listener, ListenerCounter::DownstreamPreCxTimeout);
                Ok(())
            }
            Err(_) => Err(Some(ListenerCounter::DownstreamPreCxTimeout)),
        };
        if let Err(why) = finished {
            // Envoy only peeks at the socket: bytes that no filter took are unread there, so the kernel resets.
            if read.len() > inspection.consumed() {
                incoming.stream.reset_on_close();
            }
            return Err(why);
        }
        incoming.prefix = read.freeze().slice(inspection.consumed()..);
        Ok(inspection.into_detected())
    }

    async fn run(
        &self,
        listener: &ActiveListener,
        inspection: &mut Inspection<'_>,
        incoming: &mut Incoming,
        read: &mut BytesMut,
    ) -> Result<(), Closed> {
        loop {
            let Incoming { stream, direct_local, .. } = &*incoming;
            let view = View { handler: &self.handler, listener, stream, local: direct_local };
            match inspection.advance(read, &view) {
                Progress::Done => return Ok(()),
                Progress::Reject => return Err(None),
                Progress::NeedMore(length) => {
                    while read.len() < length {
                        read.reserve(READ);
                        match incoming.stream.read_buf(read).await {
                            Ok(0) => return Err(Some(ListenerCounter::DownstreamListenerFilterRemoteClose)),
                            Ok(_) => {}
                            Err(_) => return Err(Some(ListenerCounter::DownstreamListenerFilterError)),
                        }
                    }
                }
            }
        }
    }

    /// Chooses the chain and hands the connection over.
    fn matched(&self, listener: Arc<ActiveListener>, incoming: Incoming, detected: Detected) {
        let Incoming { stream, prefix, direct_remote, direct_local, accepted, guard } = incoming;
        let Detected { server_name, transport_protocol, application_protocols, local, remote, metadata, proxied } =
            detected;
        let transport_protocol = transport_protocol.unwrap_or(RAW_BUFFER);
        let local_restored = local.is_some();
        let local = local.unwrap_or_else(|| direct_local.clone());
        let remote = remote.unwrap_or_else(|| direct_remote.clone());
        let chain = listener.config.chains.find(&ConnectionFacts {
            local: &local,
            remote: &remote,
            direct_remote: &direct_remote,
            server_name: &server_name,
            transport_protocol,
            application_protocols: &application_protocols,
        });
        let chain = chain.cloned();
        let info = Rc::new(ConnectionInfo {
            id: self.handler.connection_id(),
            remote,
            direct_remote,
            local,
            direct_local,
            local_restored,
            requested_server_name: server_name,
            tls: OnceCell::new(),
            filter_chain_name: chain.as_ref().map_or_else(|| Arc::from(""), |chain| Arc::clone(&chain.name)),
            listener_name: Arc::clone(&listener.config.name),
            accepted,
            proxied: RefCell::new(proxied),
            metadata,
            filter_state: RefCell::default(),
            outcome: ConnectionOutcome::default(),
        });
        let Some(chain) = chain else {
            if !prefix.is_empty() {
                stream.reset_on_close();
            }
            self.handler.count(&listener, ListenerCounter::NoFilterChainMatch);
            self.handler.unmatched(&listener, info);
            return;
        };
        let accepted = Accepted { stream, prefix, info, application_protocols, chain, listener, guard };
        self.handler.serve(accepted);
    }
}

/// What listener filters may ask of one connection.
struct View<'a, H> {
    handler: &'a H,
    listener: &'a ActiveListener,
    stream: &'a Stream,
    local: &'a Address,
}

impl<H: ConnectionHandler> Surroundings for View<'_, H> {
    fn original_dst(&self) -> Option<SocketAddr> {
        let found = self.stream.original_dst()?;
        Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
    }

    fn is_elsewhere(&self, address: SocketAddr) -> bool {
        *self.local != Address::Ip(address)
    }

    fn count(&self, filter: usize, counter: FilterCounter) {
        self.handler.count_filter(self.listener, filter, counter);
    }

    fn tls_bytes_processed(&self, filter: usize, bytes: usize) {
        self.handler.tls_bytes_processed(self.listener, filter, bytes);
    }
}

//! HTTP/2 connections to control planes, shared by the streams that go to the same place: a thousand subscriptions with
//! streams of their own need one connection, not a thousand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_stream::wrappers::ReceiverStream;

use crate::connect::{Call, Network, Target};
use crate::source::Keepalive;

/// The body of a streaming request.
pub(crate) type RequestBody = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// Envoy's receive windows: big pushes are not throttled by the round trip.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 24 * 1024 * 1024;

/// Streams on one connection: what servers allow at least, by the advice of RFC 9113 section 6.5.2.
const MAX_STREAMS: usize = 100;

/// All connections of one thread, by where they go.
pub(crate) struct Channels {
    network: Rc<dyn Network>,
    places: RefCell<Places>,
}

type Places = HashMap<(Target, Option<Keepalive>), Rc<Place>>;

#[derive(Default)]
struct Place {
    /// Locked while connecting: who comes meanwhile waits for the same connection.
    connections: tokio::sync::Mutex<Vec<Weak<Shared>>>,
}

/// A connection; it closes when the last stream's lease is gone.
struct Shared {
    send: SendRequest<RequestBody>,
    local_ip: Option<IpAddr>,
}

/// One stream's hold on a connection.
pub(crate) struct Lease {
    shared: Rc<Shared>,
    _call: Call,
}

impl Lease {
    pub(crate) fn sender(&self) -> SendRequest<RequestBody> {
        self.shared.send.clone()
    }

    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        self.shared.local_ip
    }
}

/// Runs what belongs to a connection on the thread that opened it.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

impl Channels {
    pub(crate) fn new(network: Rc<dyn Network>) -> Self {
        Self { network, places: RefCell::default() }
    }

    /// What opens connections.
    pub(crate) fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// A hold on a connection with room for a stream, opened now if there is none.
    pub(crate) async fn lease(&self, target: &Target, keepalive: Option<Keepalive>) -> Result<Lease, String> {
        let call = self.network.calling(target);
        let place = {
            let mut places = self.places.borrow_mut();
            Rc::clone(places.entry((target.clone(), keepalive)).or_default())
        };
        let mut connections = place.connections.lock().await;
        connections.retain(|connection| connection.upgrade().is_some_and(|shared| !shared.send.is_closed()));
        let open = connections.iter().filter_map(Weak::upgrade);
        // One count is the `upgrade` itself; each lease is a stream.
        let with_room = |shared: &Rc<Shared>| Rc::strong_count(shared) - 1 < MAX_STREAMS;
        if let Some(shared) = open.into_iter().find(with_room) {
            return Ok(Lease { shared, _call: call });
        }
        let shared = Rc::new(self.open(target, keepalive).await?);
        connections.push(Rc::downgrade(&shared));
        Ok(Lease { shared, _call: call })
    }

    async fn open(&self, target: &Target, keepalive: Option<Keepalive>) -> Result<Shared, String> {
        let connection =
            self.network.connect(target).await.map_err(|error| format!("cannot connect to {target}: {error}"))?;
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(Keepalive { interval, timeout, while_idle }) = keepalive {
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout).keep_alive_while_idle(while_idle);
        }
        let (send, driver) = builder
            .handshake(TokioIo::new(connection.io))
            .await
            .map_err(|error| format!("no HTTP/2 with {target}: {error}"))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to a control plane ended");
            }
        });
        Ok(Shared { send, local_ip: connection.local_ip })
    }
}

//! A tunnel: the bytes of a connection as the bodies of an HTTP request and its response.
//!
//! The upstream is asked by CONNECT or POST and has granted the tunnel once it answers with success: over HTTP/1 any 2xx,
//! over HTTP/2 200. Until then nothing is read from the client.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use filters::filter_state::Object;
use filters::http::{Frame, Method, RequestHead, ResponseHead, Scheme, Version};
use filters::mutation::ValueContext;
use filters::stream_info::{ByteMeter, ConnectionInfo, StreamInfo};
use filters::tls::TlsInfo;
use filters::uuid;
use serde_json::Value;

use super::direction::{Side, Tally};
use crate::config::tcp_proxy::tunnel::{RequestId, Tunneling};
use crate::http::codec::h1::WriteBuf;
use crate::transport::Io;
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::pool::Lease;
use crate::worker::Worker;

/// Where a tunnel's response head and trailers are kept (`propagate_response_headers`, `propagate_response_trailers`).
const HEADERS_KEY: &str = "envoy.tcp_proxy.propagate_response_headers";
const TRAILERS_KEY: &str = "envoy.tcp_proxy.propagate_response_trailers";
/// What was sent last on a stream leaves when the task of its connection has its turn, which is before so many of ours; if
/// not, the peer gives no window for it.
const TURNS: u8 = 3;
/// The name space of what a TCP proxy says about a connection.
const METADATA: &str = "envoy.filters.network.tcp_proxy";

/// A tunnel through an upstream, from the request for it to its end. Dropping it ends it.
pub(super) struct Tunnel {
    exchange: Exchange,
    cluster: Rc<Cluster>,
    connection: Rc<ConnectionInfo>,
    propagate_headers: bool,
    propagate_trailers: bool,
    /// What the client sent, before it is the exchange's.
    read: BytesMut,
    /// What the upstream sent, before the client took it.
    out: WriteBuf,
    request: Half,
    response: Half,
    /// Bytes of the fields of response heads.
    header_rx: u64,
    /// One side has ended it, and so it has ended for the other too.
    over: bool,
    /// Turns in which what was sent last might have left.
    turns: u8,
    /// Whatever reset its stream is counted.
    reset_counted: Cell<bool>,
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Nothing follows.
    ended: bool,
    /// The end was passed on.
    closed: bool,
    paused: bool,
    tally: Tally,
}

impl Tunnel {
    /// Asks for a tunnel on a connection that was leased for it.
    ///
    /// # Errors
    /// When the request cannot be said in the connection's protocol.
    pub(super) fn ask(
        lease: Lease,
        config: &Tunneling,
        cluster: &Rc<Cluster>,
        info: &mut StreamInfo,
    ) -> Result<Self, UpstreamFailure> {
        let head = request(config, info);
        let exchange = Exchange::start(lease, &head, false, head.method == Method::Connect, None)?;
        Ok(Self {
            exchange,
            cluster: Rc::clone(cluster),
            connection: Rc::clone(&info.connection),
            propagate_headers: config.propagate_headers,
            propagate_trailers: config.propagate_trailers,
            read: BytesMut::new(),
            out: WriteBuf::new(),
            request: Half::default(),
            response: Half::default(),
            header_rx: 0,
            over: false,
            turns: 0,
            reset_counted: Cell::new(false),
        })
    }

    /// Waits until the upstream has granted the tunnel.
    ///
    /// # Errors
    /// It has refused it, or did not answer.
    pub(super) async fn granted(&mut self) -> Result<(), UpstreamFailure> {
        let answer = poll_fn(|cx| {
            loop {
                let _ = self.exchange.poll_flush(cx);
                let answer = ready!(self.exchange.poll_head(cx));
                if let Ok(head) = &answer {
                    self.header_rx += head_bytes(head, self.exchange.meter().header_rx);
                }
                match answer {
                    Ok(head) if head.status < 200 && head.status != 101 => {}
                    answer => return Poll::Ready(answer),
                }
            }
        });
        let head = answer.await.inspect_err(|failure| self.count_reset(failure.kind))?;
        if self.propagate_headers {
            let object = Object::fields(Some(head.status), &head.headers);
            self.connection.filter_state.borrow_mut().set(HEADERS_KEY, object);
        }
        if grants(&head, self.is_http1()) {
            return Ok(());
        }
        let words = format!("tunnel_response:{}", head.status);
        Err(UpstreamFailure::with(FailureKind::ConnectFailure, words))
    }

    /// Process-wide number of the connection it runs over.
    pub(super) fn connection_id(&self) -> u64 {
        self.exchange.connection_id()
    }

    /// That connection's local address.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.exchange.local_address()
    }

    /// The TLS session of the connection it goes through.
    pub(super) fn tls_info(&self) -> Option<&Rc<TlsInfo>> {
        self.exchange.tls_info()
    }

    /// What has happened so far in both directions.
    pub(super) const fn tallies(&self) -> (Tally, Tally) {
        (self.request.tally, self.response.tally)
    }

    /// Whether the client's end was passed on.
    pub(super) const fn request_is_closed(&self) -> bool {
        self.request.closed
    }

    /// What has crossed the upstream connection for it. Streams of one connection share its frames: of those, their bodies.
    pub(super) fn meter(&self) -> ByteMeter {
        let meter = self.exchange.whole_meter();
        ByteMeter {
            header_rx: self.header_rx + meter.header_rx,
            header_tx: meter.header_tx,
            // Envoy counts what a tunnel carries with the codec, and once more with the connection carried.
            wire_rx: meter.wire_rx + self.response.tally.moved,
            wire_tx: meter.wire_tx + self.request.tally.moved,
        }
    }

    /// Whether nothing follows in either direction.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Counts how often nothing was read from the upstream because the client took no more, and how often that was over.
    pub(super) fn flow_control(&self, paused: u64, resumed: u64) {
        let stats = &self.cluster.context().stats;
        stats.upstream_flow_control_paused_reading_total().add(paused);
        stats.upstream_flow_control_resumed_reading_total().add(resumed);
    }

    /// Moves what the client sends; ready when it has ended and the upstream knows.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        down: &mut Io,
    ) -> Poll<Result<(), Side>> {
        loop {
            if self.request.ended {
                ready!(self.exchange.poll_flush(cx));
                if !self.exchange.is_flushed() && self.turns < TURNS {
                    self.turns += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.request.closed = true;
                // HTTP/1 has no other way to say that nothing follows than to close the connection.
                self.over |= self.is_http1();
                return Poll::Ready(Ok(()));
            }
            match self.exchange.poll_writable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::To)),
                Poll::Pending => {
                    self.request.pause();
                    return Poll::Pending;
                }
            }
            let read = worker.with_scratch(|scratch| down.poll_read(cx, scratch, &mut self.read));
            let Poll::Ready(read) = read else {
                let _ = self.exchange.poll_flush(cx);
                self.request.resume();
                return Poll::Pending;
            };
            let n = read.map_err(|_| Side::From)?;
            self.request.tally.moved += n as u64;
            self.request.ended = n == 0;
            self.exchange.send_data(self.read.split().freeze(), n == 0);
        }
    }

    /// Moves what the upstream sends; ready when it has ended and the client knows.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>, down: &mut Io) -> Poll<Result<(), Side>> {
        loop {
            while !self.out.is_empty() {
                match down.poll_write(cx, &mut self.out) {
                    Poll::Ready(written) => drop(written.map_err(|_| Side::To)?),
                    Poll::Pending => {
                        self.response.pause();
                        return Poll::Pending;
                    }
                }
            }
            self.response.resume();
            if self.response.ended || self.over {
                if !self.response.closed {
                    ready!(down.poll_shutdown(cx)).map_err(|_| Side::To)?;
                    self.response.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            match ready!(self.exchange.poll_frame(cx)) {
                Ok(Some(Frame::Data(data))) => {
                    self.response.tally.moved += data.len() as u64;
                    self.out.push(data);
                }
                Ok(Some(Frame::Trailers(trailers))) => {
                    if self.propagate_trailers {
                        let object = Object::fields(None, &trailers);
                        self.connection.filter_state.borrow_mut().set(TRAILERS_KEY, object);
                    }
                    self.response.ended = true;
                }
                Ok(None) => self.response.ended = true,
                Err(failure) => {
                    self.count_reset(failure.kind);
                    if was_reset(failure.kind) {
                        return Poll::Ready(Err(Side::From));
                    }
                    // The connection it ran over has ended, and there is no telling why.
                    self.over = true;
                }
            }
        }
    }

    const fn is_http1(&self) -> bool {
        matches!(self.exchange, Exchange::Http1(_))
    }

    /// Counts a stream that was reset, once.
    fn count_reset(&self, why: FailureKind) {
        if !self.reset_counted.replace(true) {
            self.exchange.count_reset(&self.cluster, why);
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.request.ended || !self.exchange.response_complete() {
            self.count_reset(FailureKind::LocalReset);
        }
    }
}

impl Half {
    fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            self.tally.paused += 1;
        }
    }

    fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.tally.resumed += 1;
        }
    }
}

/// The request for a tunnel.
fn request(config: &Tunneling, info: &mut StreamInfo) -> RequestHead {
    let context = ValueContext { request: None, response: None, info };
    let mut head = RequestHead {
        method: if config.post_path.is_some() { Method::Post } else { Method::Connect },
        scheme: Scheme::Http,
        authority: config.hostname.render_with(&context, false),
        path: config.post_path.clone().unwrap_or_default(),
        version: Version::Http11,
        ..RequestHead::default()
    };
    if let Some(RequestId { header, metadata_key }) = &config.request_id {
        let id = Bytes::copy_from_slice(&uuid::v4(&mut fastrand::Rng::new()));
        let text = String::from_utf8_lossy(&id).into_owned();
        let metadata = info.dynamic_metadata.get_or_insert_with(Box::default);
        let space = metadata.entry(METADATA).or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(space) = space {
            space.insert(metadata_key.to_string(), Value::String(text));
        }
        head.headers.set(header.clone(), id);
    }
    config.headers.apply_to_headers(&mut head.headers, info);
    head
}

/// Bytes of a head's lines as Envoy meters them, which takes a head without fields for one empty line; without `framing`
/// bytes of those that are no longer there.
fn head_bytes(head: &ResponseHead, framing: u64) -> u64 {
    let lines = head.headers.line_bytes() as u64 + framing;
    lines.max(":\r\n".len() as u64) - framing
}

/// Whether the peer reset the stream, which is passed on.
const fn was_reset(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::RemoteReset | FailureKind::RemoteRefused | FailureKind::RemoteConnectError)
}

/// Whether a response says that the tunnel stands.
fn grants(head: &ResponseHead, http1: bool) -> bool {
    if http1 { (200..300).contains(&head.status) } else { head.status == 200 }
}

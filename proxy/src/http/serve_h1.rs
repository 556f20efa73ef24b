//! A downstream HTTP/1 connection: one request after the other, each served to its end before the next is read.

mod downstream;
mod wait;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use filters::http::{Method, RequestHead, Version};
use filters::stream_info::ByteMeter;

use self::wait::Next;
use super::codec::Downstream as _;
use super::codec::h1::{
    BodyKind, CHUNKED_LINE, DecodedRequest, EncodeError, Framing, HeaderCase, RequestDecoder, ResponseEncoder,
    Spelling, WriteBuf,
};
use super::manager::{Connection, Manager};
use super::stream::{self, Incoming, Unread};
use crate::transport::Io;
use crate::worker::timer::{Alarm, Tick};

/// Serves the connection to its end; says whether the peer ended it. `first` was read from it already.
pub(super) async fn serve(manager: &Rc<Manager>, connection: &Rc<Connection>, io: Io, first: BytesMut) -> bool {
    let alarm = manager.worker.timers().alarm();
    let mut side = ServerSide::new(manager, connection, io, first);
    loop {
        match side.next_request(&alarm).await {
            Next::Request(decoded) => {
                let began = side.began.take().unwrap_or_else(Instant::now);
                if decoded.dropped_underscores > 0 {
                    manager.http1_stats.dropped_headers_with_underscores().add(decoded.dropped_underscores.into());
                }
                let expects_continue = decoded.expect_continue;
                let last = !decoded.keep_alive;
                let (head, case) = side.accept(*decoded);
                let incoming = Incoming { head, began, expects_continue, last, case };
                stream::serve(manager, connection, &alarm, &mut side, incoming).await;
            }
            Next::Malformed(error) => {
                let refusal = side.refusal(error);
                side.start_refusal();
                stream::refuse(manager, connection, &alarm, &mut side, refusal).await;
            }
            Next::Unread(why) => {
                let began = side.began.take().unwrap_or_else(Instant::now);
                side.start_refusal();
                side.gone = matches!(why, Unread::Gone);
                stream::give_up(manager, connection, &alarm, &mut side, began, why).await;
            }
            Next::Closed => return true,
            Next::TimedOut => return false,
            Next::Drained => return side.close(&alarm).await,
        }
        if side.gone {
            if !side.exchange_ended() {
                manager.stats.downstream_cx_destroy_active_rq().inc();
                manager.stats.downstream_cx_destroy_remote_active_rq().inc();
            }
            return true;
        }
        if !side.reusable() {
            return side.close(&alarm).await;
        }
        side.rest();
    }
}

/// This side of the connection, for all of its exchanges.
struct ServerSide<'a> {
    manager: &'a Rc<Manager>,
    connection: &'a Rc<Connection>,
    io: Io,
    read: BytesMut,
    out: WriteBuf,
    decoder: RequestDecoder,
    encoder: ResponseEncoder,
    /// When the first byte of the next request was seen.
    began: Option<Instant>,
    version: Version,
    head_request: bool,
    connect: bool,
    body: BodyKind,
    request_complete: bool,
    /// The client lets the connection carry another request.
    keep_alive: bool,
    /// The exchange was given up: the connection ends behind what was queued.
    cut_off: bool,
    tunnel: bool,
    response_ended: bool,
    /// How the response's upstream spelled its headers, where that is kept.
    spelling: Option<Spelling>,
    /// The client is gone.
    gone: bool,
    /// When a connection that drains closes.
    drained: Tick,
    /// Bytes read ever, and how many of them belonged to earlier requests.
    received: u64,
    taken: u64,
    /// Of the current exchange; what it received follows from the two above.
    meter: ByteMeter,
}

impl<'a> ServerSide<'a> {
    fn new(manager: &'a Rc<Manager>, connection: &'a Rc<Connection>, io: Io, read: BytesMut) -> Self {
        Self {
            manager,
            connection,
            io,
            began: (!read.is_empty()).then(Instant::now),
            received: read.len() as u64,
            read,
            out: WriteBuf::new(),
            decoder: RequestDecoder::new(Rc::clone(&manager.h1_options)),
            encoder: ResponseEncoder::default(),
            version: Version::Http11,
            head_request: false,
            connect: false,
            body: BodyKind::Empty,
            request_complete: true,
            keep_alive: true,
            cut_off: false,
            tunnel: false,
            response_ended: false,
            spelling: None,
            gone: false,
            drained: Tick::NEVER,
            taken: 0,
            meter: ByteMeter::default(),
        }
    }

    /// Reads once; false at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, std::io::Error>> {
        let worker = &self.manager.worker;
        worker.with_scratch(|scratch| self.io.poll_read(cx, scratch, &mut self.read)).map_ok(|n| {
            self.manager.stats.downstream_cx_rx_bytes_total().add(n as u64);
            self.received += n as u64;
            n > 0
        })
    }

    /// A request begins.
    fn accept(&mut self, decoded: DecodedRequest) -> (RequestHead, Option<HeaderCase>) {
        if self.connection.ends_with_next.get() {
            self.connection.give_up_at_once();
        }
        let DecodedRequest { head, body, keep_alive, case, .. } = decoded;
        self.version = head.version;
        self.head_request = head.method == Method::Head;
        self.connect = head.method == Method::Connect;
        self.body = body;
        self.request_complete = body.is_empty();
        self.keep_alive = keep_alive;
        self.cut_off = false;
        self.tunnel = false;
        self.response_ended = false;
        self.spelling = None;
        if !self.manager.config.access_logs.is_empty() {
            self.meter.header_rx = head.headers.line_bytes() as u64;
            if !head.authority.is_empty() {
                self.meter.header_rx += ("host".len() + head.authority.len() + 3) as u64;
            }
            if body == BodyKind::Chunked {
                self.meter.header_rx += CHUNKED_LINE;
            }
        }
        (head, case)
    }

    fn start_refusal(&mut self) {
        self.version = Version::Http11;
        self.head_request = false;
        self.connect = false;
        self.request_complete = false;
        self.keep_alive = false;
        self.response_ended = false;
        self.spelling = None;
    }

    /// Whether request and response are complete.
    const fn exchange_ended(&self) -> bool {
        self.request_complete && self.response_ended
    }

    /// Whether the connection can carry another request. One that only drains can: the client may have sent it already.
    fn reusable(&self) -> bool {
        let drains = self.connection.draining.get() && !self.connection.last.get() && !self.tunnel;
        let drained = self.drained != Tick::NEVER && self.drained <= self.manager.worker.timers().now();
        let delimited = self.encoder.framing() != Framing::Raw;
        let can_go_on = !self.encoder.must_close() || drains && !drained && delimited;
        self.keep_alive && self.exchange_ended() && can_go_on
    }

    /// Between requests: no buffer is held that holds nothing.
    fn rest(&mut self) {
        self.taken = self.received - self.read.len() as u64;
        self.meter = ByteMeter::default();
        if self.read.is_empty() {
            self.read = BytesMut::new();
            self.began = None;
        } else {
            self.began = Some(Instant::now());
        }
        self.out.release();
    }

    /// Closes behind what is queued; says whether the client did it first. As in Envoy the client has
    /// `delayed_close_timeout` to read what was sent and close, before it can see a reset. FIN goes at once where the end of
    /// the connection is the end of the body, and where the client asked for the end and has sent all it had to.
    async fn close(&mut self, alarm: &Alarm) -> bool {
        let worker = &self.manager.worker;
        let timeout = self.manager.config.timeouts.delayed_close.filter(|t| !t.is_zero());
        let until = worker.timers().now().after_opt(timeout.or(self.manager.config.timeouts.idle));
        let flushed = poll_fn(|cx| match self.poll_write_out(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done.is_ok())),
            Poll::Pending => alarm.poll(until, cx).map(|()| None),
        });
        match flushed.await {
            Some(true) => {}
            Some(false) => return true,
            None => {
                self.manager.stats.downstream_cx_delayed_close_timeout().inc();
                return false;
            }
        }
        let ends_body = self.encoder.framing() == Framing::Raw && !self.cut_off && self.exchange_ended();
        let at_once = self.connection.at_once.get() && self.exchange_ended();
        if ends_body || at_once || timeout.is_none() {
            let _ = poll_fn(|cx| self.io.poll_shutdown(cx)).await;
        }
        let Some(timeout) = timeout.filter(|_| !at_once) else { return false };
        let until = worker.timers().now().after(timeout);
        poll_fn(|cx| {
            loop {
                self.read.clear();
                match worker.with_scratch(|scratch| self.io.poll_read(cx, scratch, &mut self.read)) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(!ends_body),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        return alarm.poll(until, cx).map(|()| {
                            self.manager.stats.downstream_cx_delayed_close_timeout().inc();
                            false
                        });
                    }
                }
            }
        })
        .await
    }

    /// Writes out what is queued.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            let n = std::task::ready!(self.io.poll_write(cx, &mut self.out))?;
            self.manager.stats.downstream_cx_tx_bytes_total().add(n as u64);
            self.meter.wire_tx += n as u64;
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, result: Result<(), EncodeError>) {
        if result.is_err() {
            // What upstream said cannot be said in HTTP/1: the client sees a cut connection, never another's bytes.
            self.abort();
        }
    }
}

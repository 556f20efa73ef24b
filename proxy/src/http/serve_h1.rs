//! A downstream HTTP/1 connection: one request after the other, each served to its end before the next is read.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use filters::flags::details;
use filters::http::{Frame, Headers, Method, RequestHead, ResponseHead, Version};
use filters::stream_info::ByteMeter;

use super::codec::h1::{
    BodyKind, CHUNKED_LINE, DecodeError, DecodedRequest, Framing, HeaderCase, HeaderFormat, RequestDecoder,
    RequestEvent, ResponseEncoder, ResponseOptions, Spelling, WriteBuf, reason_phrase,
};
use super::codec::{Downstream, Interrupt};
use super::manager::{Connection, Manager};
use super::stream::{self, Expired, Incoming, Refusal, Unread};
use crate::transport::Io;
use crate::worker::timer::{Alarm, Tick, Timers};

/// Bytes of pipelined requests kept while one is being served.
const PIPELINE: usize = 64 * 1024;

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

/// What came of waiting for a request.
enum Next {
    Request(Box<DecodedRequest>),
    Malformed(DecodeError),
    /// A request began, and its head is not going to be complete.
    Unread(Unread),
    /// The client closed between requests.
    Closed,
    /// Nothing ever came, for too long.
    TimedOut,
    /// The client was told that the connection ends, and had its time.
    Drained,
}

/// When a request's head must be complete.
#[derive(Clone, Copy)]
struct HeadLimits {
    headers: Tick,
    request: Tick,
    idle: Tick,
    max_duration: Tick,
}

impl HeadLimits {
    fn new(manager: &Manager, timers: &Timers, began: Instant) -> Self {
        let (began, timeouts) = (timers.tick(began), &manager.config.timeouts);
        Self {
            headers: began.after_opt(timeouts.request_headers),
            request: began.after_opt(timeouts.request),
            idle: began.after_opt(timeouts.stream_idle),
            max_duration: began.after_opt(timeouts.max_stream_duration),
        }
    }

    fn next(&self) -> Tick {
        self.headers.min(self.request).min(self.idle).min(self.max_duration)
    }

    /// Which limit has passed; none is `request_headers_timeout`, which is the head's own.
    fn passed(&self, now: Tick) -> Option<Expired> {
        let limits =
            [(self.request, Expired::Request), (self.max_duration, Expired::MaxDuration), (self.idle, Expired::Idle)];
        let passed = limits.into_iter().find(|(at, _)| *at <= now).map(|(_, which)| which);
        passed.filter(|_| self.headers > now)
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

    async fn next_request(&mut self, alarm: &Alarm) -> Next {
        let timers = Rc::clone(self.manager.worker.timers());
        let timeouts = &self.manager.config.timeouts;
        let mut idle = timers.recent().after_opt(timeouts.idle);
        let mut limits = self.began.map(|began| HeadLimits::new(self.manager, &timers, began));
        poll_fn(|cx| {
            self.connection.watch_drain(cx);
            loop {
                if !self.read.is_empty() {
                    match self.decoder.decode(&mut self.read) {
                        Ok(Some(RequestEvent::Head(decoded))) => return Poll::Ready(Next::Request(decoded)),
                        Ok(Some(_)) => return Poll::Ready(Next::Closed),
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Next::Malformed(error)),
                    }
                }
                let between = self.began.is_none();
                match self.poll_read(cx) {
                    Poll::Ready(Ok(true)) => {
                        if self.began.is_none() {
                            let now = timers.turn();
                            self.began = Some(now);
                            limits = Some(HeadLimits::new(self.manager, &timers, now));
                        }
                        continue;
                    }
                    Poll::Ready(_) if between => return Poll::Ready(Next::Closed),
                    Poll::Ready(_) => return Poll::Ready(Next::Unread(Unread::Gone)),
                    Poll::Pending => {}
                }
                if self.connection.draining.get() && self.drained == Tick::NEVER {
                    self.drained = timers.now().after(timeouts.drain_time(fastrand::f64()));
                }
                let old_from = if self.drained == Tick::NEVER { self.connection.old_from.get() } else { Tick::NEVER };
                // A head under way is a request with its limits; a quiet connection may idle so long and live so long.
                let next = match &limits {
                    Some(limits) if !between => limits.next(),
                    _ => idle.min(old_from).min(self.drained),
                };
                if alarm.poll(next, cx).is_pending() {
                    return Poll::Pending;
                }
                let now = timers.now();
                let stats = &self.manager.stats;
                if !between {
                    return Poll::Ready(match limits.and_then(|limits| limits.passed(now)) {
                        Some(which) => Next::Unread(Unread::Expired(which)),
                        None => Next::Malformed(DecodeError { status: 408, details: details::REQUEST_HEADER_TIMEOUT }),
                    });
                }
                if self.drained <= now {
                    return Poll::Ready(Next::Drained);
                }
                if self.began.is_none() && self.connection.requests.get() == 0 {
                    // Nothing was ever said on this connection: there is nobody to tell.
                    if old_from <= now {
                        stats.downstream_cx_max_duration_reached().inc();
                    } else {
                        stats.downstream_cx_idle_timeout().inc();
                    }
                    return Poll::Ready(Next::TimedOut);
                }
                if old_from <= now {
                    self.connection.grow_old(self.manager, now);
                } else {
                    idle = Tick::NEVER;
                    stats.downstream_cx_idle_timeout().inc();
                    self.connection.drain();
                }
            }
        })
        .await
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

    fn refusal(&mut self, error: DecodeError) -> Refusal {
        let timed_out = error.details == details::REQUEST_HEADER_TIMEOUT;
        let stats = &self.manager.stats;
        if timed_out {
            stats.downstream_rq_header_timeout().inc();
        }
        if error.details == details::HTTP1_UNEXPECTED_UNDERSCORE {
            self.manager.http1_stats.requests_rejected_with_underscores_in_headers().inc();
        }
        Refusal {
            status: error.status,
            body: if timed_out { "request header timeout" } else { error.body() },
            details: error.details,
            protocol_error: !timed_out,
            head: None,
            version: Version::Http11,
            began: self.began.take().unwrap_or_else(Instant::now),
        }
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

    fn written(&mut self, result: Result<(), super::codec::h1::EncodeError>) {
        if result.is_err() {
            // What upstream said cannot be said in HTTP/1: the client sees a cut connection, never another's bytes.
            self.abort();
        }
    }
}

impl Downstream for ServerSide<'_> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        if self.request_complete {
            return Poll::Ready(Ok(None));
        }
        loop {
            match self.decoder.decode(&mut self.read) {
                Ok(Some(RequestEvent::Data(data))) => {
                    if self.decoder.is_body_complete() {
                        self.request_complete = self.decoder.decode(&mut self.read).is_ok();
                    }
                    return Poll::Ready(Ok(Some(Frame::Data(data))));
                }
                Ok(Some(RequestEvent::Trailers(trailers))) => {
                    self.request_complete = true;
                    return Poll::Ready(Ok(Some(Frame::Trailers(trailers))));
                }
                Ok(Some(RequestEvent::End | RequestEvent::Head(_))) => {
                    self.request_complete = true;
                    return Poll::Ready(Ok(None));
                }
                Ok(None) => {}
                Err(error) => {
                    self.keep_alive = false;
                    let DecodeError { status, details } = error;
                    return Poll::Ready(Err(Interrupt::Malformed { status, details }));
                }
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(true) => {}
                // Half a connection is none, not even of a tunnel.
                _ => {
                    self.gone = true;
                    return Poll::Ready(Err(Interrupt::Disconnect));
                }
            }
        }
    }

    fn request_complete(&self) -> bool {
        self.request_complete
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        let format = self.manager.header_format();
        let sent = self.encoder.encode_informational(head, self.version, format, &mut self.out);
        self.written(sent);
    }

    fn spell(&mut self, spelling: Spelling) {
        self.spelling = Some(spelling);
    }

    fn send_head(&mut self, head: &ResponseHead, end: bool) {
        let granted = head.status == 101 || self.connect && (200..300).contains(&head.status);
        self.tunnel = self.body == BodyKind::Tunnel && granted && !end;
        if self.body == BodyKind::Tunnel && !self.tunnel {
            // What would have been the tunnel's bytes cannot be told from another request.
            self.keep_alive = false;
        }
        let keep_alive = self.keep_alive && !self.connection.draining.get();
        let options = ResponseOptions {
            end_stream: end,
            version: self.version,
            head_request: self.head_request,
            tunnel: self.tunnel,
            keep_alive,
            format: self.spelling.as_ref().map_or_else(|| self.manager.header_format(), Spelling::format),
            reason: self.spelling.as_ref().and_then(Spelling::reason),
        };
        let before = self.out.len();
        let sent = self.encoder.encode_head(head, &options, &mut self.out);
        // Without the status line and the empty one, which are no headers.
        let line = "HTTP/1.1 200 \r\n".len() + reason_phrase(head.status).len();
        self.meter.header_tx = (self.out.len() - before).saturating_sub(line + 2) as u64;
        self.response_ended = end;
        self.written(sent);
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        if self.encoder.framing() == Framing::Raw {
            self.out.push(data);
        } else if !data.is_empty() {
            let sent = self.encoder.encode_data(data, &mut self.out);
            self.written(sent);
        }
        if end && !self.response_ended {
            self.response_ended = true;
            if self.encoder.framing() != Framing::Raw {
                let sent = self.encoder.finish(None, HeaderFormat::default(), &mut self.out);
                self.written(sent);
            }
        }
    }

    fn send_trailers(&mut self, trailers: Headers) {
        self.response_ended = true;
        let trailers = self.manager.config.http1.enable_trailers.then_some(&trailers);
        let format = self.spelling.as_ref().map_or_else(|| self.manager.header_format(), Spelling::format);
        let sent = self.encoder.finish(trailers, format, &mut self.out);
        self.written(sent);
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        if self.out.len() < self.manager.buffer_limit {
            return Poll::Ready(Ok(()));
        }
        match self.poll_flush(cx) {
            Poll::Pending if self.out.len() < self.manager.buffer_limit / 2 => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        if self.gone || self.cut_off {
            return Poll::Ready(Err(Interrupt::Disconnect));
        }
        self.poll_write_out(cx).map_err(|_| {
            self.gone = true;
            Interrupt::Disconnect
        })
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        loop {
            // Pipelined requests wait in the buffer, as many as are reasonable; beyond that the socket waits.
            if self.read.len() >= PIPELINE {
                return Poll::Pending;
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(true) => {}
                _ => {
                    self.gone = true;
                    return Poll::Ready(Interrupt::Disconnect);
                }
            }
        }
    }

    fn abort(&mut self) {
        self.cut_off = true;
        self.keep_alive = false;
    }

    fn meter(&self) -> ByteMeter {
        ByteMeter { wire_rx: self.received - self.read.len() as u64 - self.taken, ..self.meter }
    }
}

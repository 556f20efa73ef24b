//! A downstream HTTP/1 connection: one request after the other, each served to its end before the next is read.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use filters::flags::details;
use filters::http::{Frame, Headers, Method, RequestHead, ResponseHead, Version};

use super::codec::h1::{
    BodyKind, DecodeError, DecodedRequest, Framing, HeaderCase, HeaderFormat, RequestDecoder, RequestEvent,
    ResponseEncoder, ResponseOptions, WriteBuf,
};
use super::codec::{Downstream, Interrupt};
use super::manager::{Connection, Manager};
use super::stream::{self, Incoming, Refusal};
use crate::transport::Io;
use crate::worker::timer::{Alarm, Tick};

/// Bytes of pipelined requests kept while one is being served.
const PIPELINE: usize = 64 * 1024;

/// Serves the connection to its end; says whether the peer ended it. `first` was read from it already.
pub(super) async fn serve(manager: &Rc<Manager>, connection: &Rc<Connection>, io: Io, first: BytesMut) -> bool {
    let alarm = manager.worker.timers().alarm();
    let mut side = ServerSide::new(manager, connection, io, first);
    let opened = manager.worker.timers().now();
    let expires = opened.after_opt(manager.config.timeouts.max_connection_duration);
    loop {
        match side.next_request(&alarm, expires).await {
            Next::Request(decoded) => {
                let began = side.began.take().unwrap_or_else(Instant::now);
                if decoded.dropped_underscores > 0 {
                    manager.http1_stats.dropped_headers_with_underscores().add(decoded.dropped_underscores.into());
                }
                let expects_continue = decoded.expect_continue;
                let head = side.accept(*decoded);
                let incoming = Incoming { head, began, expects_continue };
                stream::serve(manager, connection, &alarm, &mut side, incoming).await;
            }
            Next::Malformed(error) => {
                let refusal = side.refusal(error);
                side.start_refusal();
                stream::refuse(manager, connection, &alarm, &mut side, refusal).await;
            }
            Next::Closed => return true,
            Next::TimedOut => return false,
        }
        if side.gone {
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
    /// The client closed between requests, or in the middle of a head.
    Closed,
    /// Idle for too long, or the head took too long; what is to be said was said.
    TimedOut,
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
    tunnel: bool,
    response_ended: bool,
    /// How the client spelled its headers, for `preserve_case`.
    case: Option<HeaderCase>,
    /// The client is gone, or the exchange was aborted.
    gone: bool,
    received: u64,
    sent: u64,
}

impl<'a> ServerSide<'a> {
    fn new(manager: &'a Rc<Manager>, connection: &'a Rc<Connection>, io: Io, read: BytesMut) -> Self {
        Self {
            manager,
            connection,
            io,
            began: (!read.is_empty()).then(Instant::now),
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
            tunnel: false,
            response_ended: false,
            case: None,
            gone: false,
            received: 0,
            sent: 0,
        }
    }

    async fn next_request(&mut self, alarm: &Alarm, expires: Tick) -> Next {
        let timers = Rc::clone(self.manager.worker.timers());
        let limits = self.manager.config.timeouts;
        let idle = timers.now().after_opt(limits.idle);
        let mut head_due = match self.began {
            Some(began) => timers.tick(began).after_opt(limits.request_headers),
            None => Tick::NEVER,
        };
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
                let between = self.read.is_empty();
                match self.poll_read(cx) {
                    Poll::Ready(Ok(true)) => {
                        if self.began.is_none() {
                            let now = Instant::now();
                            self.began = Some(now);
                            head_due = timers.tick(now).after_opt(limits.request_headers);
                        }
                        continue;
                    }
                    Poll::Ready(_) => return Poll::Ready(Next::Closed),
                    Poll::Pending => {}
                }
                if between && self.connection.draining.get() {
                    return Poll::Ready(Next::TimedOut);
                }
                // A head under way is bounded by its own timeout and the idle one; a quiet connection by its age too.
                let next = if between { idle.min(expires) } else { idle.min(head_due) };
                if alarm.poll(next, cx).is_pending() {
                    return Poll::Pending;
                }
                let now = timers.now();
                let stats = &self.manager.stats;
                if !between && head_due <= now {
                    return Poll::Ready(Next::Malformed(DecodeError {
                        status: 408,
                        details: details::REQUEST_HEADER_TIMEOUT,
                    }));
                }
                if between && expires <= now {
                    stats.downstream_cx_max_duration_reached().inc();
                } else {
                    stats.downstream_cx_idle_timeout().inc();
                }
                return Poll::Ready(Next::TimedOut);
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
    fn accept(&mut self, decoded: DecodedRequest) -> RequestHead {
        let DecodedRequest { head, body, keep_alive, case, .. } = decoded;
        self.version = head.version;
        self.head_request = head.method == Method::Head;
        self.connect = head.method == Method::Connect;
        self.body = body;
        self.request_complete = body.is_empty();
        self.keep_alive = keep_alive;
        self.tunnel = false;
        self.response_ended = false;
        self.case = case;
        head
    }

    fn refusal(&mut self, error: DecodeError) -> Refusal {
        let timed_out = error.details == details::REQUEST_HEADER_TIMEOUT;
        let stats = &self.manager.stats;
        if timed_out {
            stats.downstream_rq_header_timeout().inc();
        }
        if error.details == details::HTTP1_HEADERS_TOO_LARGE || error.details == details::HTTP1_TOO_MANY_HEADERS {
            stats.downstream_rq_too_large().inc();
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
        self.case = None;
    }

    /// Whether the connection can carry another request.
    const fn reusable(&self) -> bool {
        self.keep_alive && self.request_complete && self.response_ended && !self.encoder.must_close()
    }

    /// Between requests: no buffer is held that holds nothing.
    fn rest(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
            self.began = None;
        } else {
            self.began = Some(Instant::now());
        }
        self.out.release();
    }

    /// Closes after the last response; says whether the client did it first. As in Envoy the client has
    /// `delayed_close_timeout` to read what was sent and close, before it can see a reset; only where the end of the
    /// connection is the end of the body, FIN goes at once.
    async fn close(&mut self, alarm: &Alarm) -> bool {
        let worker = &self.manager.worker;
        let timeout = self.manager.config.timeouts.delayed_close;
        let ends_body = self.encoder.framing() == Framing::Raw;
        let timeout = timeout.filter(|t| !t.is_zero());
        if ends_body || timeout.is_none() {
            let _ = poll_fn(|cx| self.io.poll_shutdown(cx)).await;
        }
        let Some(timeout) = timeout else { return false };
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
                Ok(false) if self.tunnel => {
                    self.request_complete = true;
                    return Poll::Ready(Ok(None));
                }
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
        let format = self.manager.header_format(self.case.as_ref());
        let sent = self.encoder.encode_informational(head, self.version, format, &mut self.out);
        self.written(sent);
    }

    fn send_head(&mut self, head: &ResponseHead, end: bool) {
        self.tunnel =
            self.body == BodyKind::Tunnel && (head.status == 101 || self.connect && (200..300).contains(&head.status));
        if self.body == BodyKind::Tunnel && !self.tunnel {
            // What would have been the tunnel's bytes cannot be told from another request.
            self.keep_alive = false;
            self.request_complete = true;
        }
        let keep_alive = self.keep_alive && !self.connection.draining.get();
        let options = ResponseOptions {
            end_stream: end,
            version: self.version,
            head_request: self.head_request,
            tunnel: self.tunnel,
            keep_alive,
            format: self.manager.header_format(self.case.as_ref()),
            reason: None,
        };
        let sent = self.encoder.encode_head(head, &options, &mut self.out);
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
        let format = self.manager.header_format(self.case.as_ref());
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
        if self.gone {
            return Poll::Ready(Err(Interrupt::Disconnect));
        }
        while !self.out.is_empty() {
            match std::task::ready!(self.io.poll_write(cx, &mut self.out)) {
                Ok(n) => {
                    self.manager.stats.downstream_cx_tx_bytes_total().add(n as u64);
                    self.sent += n as u64;
                }
                Err(_) => {
                    self.gone = true;
                    return Poll::Ready(Err(Interrupt::Disconnect));
                }
            }
        }
        Poll::Ready(Ok(()))
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
        self.out = WriteBuf::new();
        self.gone = true;
    }

    fn wire_bytes(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}

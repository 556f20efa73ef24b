//! HTTP/2 downstream: one task per connection accepts streams, each stream runs as a task of its own.

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::flags::details;
use filters::http::{Frame, Headers, RequestHead, ResponseHead};
use filters::stream_info::ByteMeter;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};

use super::convert::{Malformed, headers_from_h2, headers_to_h2, request_from_h2, response_to_h2};
use super::inspect::{Refusal, Role};
use super::{Http2Options, Watch};
use crate::config::hcm::Underscores;
use crate::http::codec::{Downstream, Interrupt};
use crate::transport::Io;

/// A downstream HTTP/2 connection.
pub struct ServerConnection {
    state: State,
    watch: Watch,
    underscores: Underscores,
}

enum State {
    Handshake(Box<Handshake<Watch, Bytes>>),
    Open(Box<Connection<Watch, Bytes>>),
}

/// A stream the client opened.
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and each is taken apart at once")]
pub enum Accepted {
    /// A request.
    Stream(RequestHead, ServerExchange),
    /// Something else, which was reset.
    Refused(Refusal),
}

impl ServerConnection {
    /// Starts the HTTP/2 preface and SETTINGS exchange on `io`.
    #[must_use]
    pub fn new(io: Io, options: &Http2Options) -> Self {
        let protocol = &options.protocol;
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(protocol.initial_stream_window_size)
            .initial_connection_window_size(protocol.initial_connection_window_size)
            .max_concurrent_streams(protocol.max_concurrent_streams)
            .max_header_list_size(options.codec_headers_limit())
            .max_send_buffer_size(options.send_buffer)
            .header_table_size(protocol.hpack_table_size)
            // Resets are limited by `stream_reset_burst` and `stream_reset_rate`, as in Envoy.
            .max_pending_accept_reset_streams(usize::MAX)
            .max_local_error_reset_streams(None);
        if protocol.allow_connect {
            builder.enable_connect_protocol();
        }
        if let Some(size) = protocol.max_frame_size {
            builder.max_frame_size(size);
        }
        let watch = Watch::new(io, Role::Server, options);
        Self {
            state: State::Handshake(Box::new(builder.handshake(watch.clone()))),
            watch,
            underscores: options.underscores,
        }
    }

    /// What passes on the connection's wire.
    #[must_use]
    pub const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The next stream; `None` when the connection is over.
    ///
    /// # Errors
    /// When the peer broke the protocol or the connection.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Accepted, h2::Error>>> {
        loop {
            match &mut self.state {
                State::Handshake(handshake) => match std::pin::Pin::new(&mut **handshake).poll(cx) {
                    Poll::Ready(Ok(connection)) => self.state = State::Open(Box::new(connection)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Poll::Pending => return Poll::Pending,
                },
                State::Open(connection) => {
                    return connection
                        .poll_accept(cx)
                        .map_ok(|(request, respond)| accept(request, respond, &self.watch, self.underscores));
                }
            }
        }
    }

    /// Whether the handshake is over.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The handle for PINGs; there is one.
    pub fn ping_pong(&mut self) -> Option<h2::PingPong> {
        match &mut self.state {
            State::Open(connection) => connection.ping_pong(),
            State::Handshake(_) => None,
        }
    }

    /// Begins a graceful end: GOAWAY, streams in flight finish, then the connection closes.
    pub fn graceful_shutdown(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Ends the connection with this reason at once.
    pub fn abrupt_shutdown(&mut self, reason: Reason) {
        if let State::Open(connection) = &mut self.state {
            connection.abrupt_shutdown(reason);
        }
    }
}

fn accept(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    watch: &Watch,
    underscores: Underscores,
) -> Accepted {
    let (mut parts, body) = request.into_parts();
    let protocol = parts.extensions.remove::<h2::ext::Protocol>();
    let stream = u32::from(respond.stream_id());
    let remarks = watch.claim(stream).map(|remarks| *remarks).unwrap_or_default();
    let converted = match remarks.refusal {
        Some(refusal) => Err(refusal),
        None => {
            request_from_h2(parts, protocol.as_ref().map(h2::ext::Protocol::as_str), underscores).map_err(|Malformed| {
                Refusal { reason: Reason::PROTOCOL_ERROR, details: details::HTTP2_VIOLATION, protocol_error: true }
            })
        }
    };
    match converted {
        Ok(mut head) => {
            if let Some(path) = remarks.path {
                head.path = path;
            }
            let complete = body.is_end_stream();
            let exchange = ServerExchange {
                recv: body,
                request: if complete { Request::Complete } else { Request::Data },
                send: Send::Head(respond),
                watch: watch.clone(),
                stream,
                underscores,
                aborted: false,
                connect_failed: false,
                received: 0,
                sent: 0,
            };
            Accepted::Stream(head, exchange)
        }
        Err(refusal) => {
            respond.send_reset(refusal.reason);
            watch.release(stream);
            Accepted::Refused(refusal)
        }
    }
}

/// One downstream HTTP/2 stream.
pub struct ServerExchange {
    recv: RecvStream,
    request: Request,
    send: Send,
    watch: Watch,
    stream: u32,
    underscores: Underscores,
    aborted: bool,
    /// Whoever asked for a tunnel is told that it is the connection behind it that failed.
    connect_failed: bool,
    received: u64,
    sent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Data,
    Trailers,
    Complete,
}

enum Send {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    /// All was said; the stream can still be reset while its request is not complete.
    Ended(SendStream<Bytes>),
    Done,
}

impl ServerExchange {
    /// The stream's end. One that was given up is reset, behind what was said before.
    pub async fn close(mut self) {
        if !self.aborted && !self.connect_failed {
            return;
        }
        if !matches!(self.send, Send::Head(_)) {
            // A reset takes with it what is still queued: the connection's task goes first.
            tokio::task::yield_now().await;
        }
        let reason = match self.watch.refusal(self.stream) {
            Some(refusal) => refusal.reason,
            None if self.connect_failed => Reason::CONNECT_ERROR,
            None => Reason::INTERNAL_ERROR,
        };
        match std::mem::replace(&mut self.send, Send::Done) {
            Send::Head(mut respond) => respond.send_reset(reason),
            Send::Body(mut stream) => stream.send_reset(reason),
            Send::Ended(mut stream) if self.connect_failed && self.watch.ended_by_us(self.stream) => {
                stream.send_reset(reason);
            }
            Send::Ended(_) | Send::Done => {}
        }
    }

    /// What an error of the codec means for this stream.
    fn interrupt(&self, error: &h2::Error) -> Interrupt {
        match error.reason() {
            Some(reason) if error.is_reset() => self.reset(reason, error.is_remote()),
            _ => self.ended(),
        }
    }

    /// The stream was reset, with this code, by the peer or by the codec.
    fn reset(&self, reason: Reason, by_peer: bool) -> Interrupt {
        if !by_peer && self.watch.fault().is_some() {
            return self.ended();
        }
        match reason {
            // What the codec resets on its own account is an error of the peer's.
            _ if !by_peer => Interrupt::Codec(
                self.watch.refusal(self.stream).map_or(details::HTTP2_REMOTE_RESET, |refusal| refusal.details),
            ),
            Reason::REFUSED_STREAM => Interrupt::Reset(details::HTTP2_REMOTE_REFUSE),
            _ => Interrupt::Reset(details::HTTP2_REMOTE_RESET),
        }
    }

    /// Its trailers are not to be taken.
    fn refused(&self) -> Option<Interrupt> {
        let refusal = self.watch.refusal(self.stream)?;
        Some(if refusal.protocol_error { Interrupt::Codec(refusal.details) } else { Interrupt::Reset(refusal.details) })
    }

    /// The connection ended.
    fn ended(&self) -> Interrupt {
        match self.watch.fault() {
            Some(fault) => Interrupt::Codec(fault.details_of(self.stream)),
            None => self.watch.ended_as().map_or(Interrupt::Disconnect, Interrupt::Closed),
        }
    }

    fn gone(&self, reset: Result<Reason, h2::Error>) -> Interrupt {
        match reset {
            Ok(reason) => self.reset(reason, !self.watch.reset_by_us(self.stream)),
            Err(error) => self.interrupt(&error),
        }
    }
}

impl Drop for ServerExchange {
    fn drop(&mut self) {
        self.watch.release(self.stream);
    }
}

impl Downstream for ServerExchange {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        loop {
            match self.request {
                Request::Complete => return Poll::Ready(Ok(None)),
                Request::Data => match self.recv.poll_data(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(data))) => {
                        // The window goes back at once: frames are only taken when upstream has room for them.
                        let _ = self.recv.flow_control().release_capacity(data.len());
                        self.received += data.len() as u64;
                        if data.is_empty() {
                            continue;
                        }
                        return Poll::Ready(Ok(Some(Frame::Data(data))));
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.interrupt(&error))),
                    Poll::Ready(None) => self.request = Request::Trailers,
                },
                Request::Trailers => match self.recv.poll_trailers(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Some(trailers))) => {
                        self.request = Request::Complete;
                        if let Some(interrupt) = self.refused() {
                            return Poll::Ready(Err(interrupt));
                        }
                        let trailers = headers_from_h2(&trailers, self.underscores);
                        return Poll::Ready(Ok(Some(Frame::Trailers(Box::new(trailers)))));
                    }
                    Poll::Ready(Ok(None)) => self.request = Request::Complete,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.interrupt(&error))),
                },
            }
        }
    }

    fn request_complete(&self) -> bool {
        self.request == Request::Complete || (self.request == Request::Data && self.recv.is_end_stream())
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        if let (Send::Head(respond), Some(response)) = (&mut self.send, response_to_h2(head)) {
            let _ = respond.send_informational(response);
        }
    }

    fn send_head(&mut self, head: &ResponseHead, end: bool) {
        let Send::Head(mut respond) = std::mem::replace(&mut self.send, Send::Done) else { return };
        let Some(response) = response_to_h2(head) else {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return;
        };
        if let Ok(stream) = respond.send_response(response, end) {
            self.send = if end { Send::Ended(stream) } else { Send::Body(stream) };
        }
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        let Send::Body(mut stream) = std::mem::replace(&mut self.send, Send::Done) else { return };
        self.sent += data.len() as u64;
        if stream.send_data(data, end).is_ok() {
            self.send = if end { Send::Ended(stream) } else { Send::Body(stream) };
        }
    }

    fn send_trailers(&mut self, trailers: Headers) {
        let Send::Body(mut stream) = std::mem::replace(&mut self.send, Send::Done) else { return };
        match headers_to_h2(&trailers) {
            Some(map) => {
                let _ = stream.send_trailers(map);
            }
            None => stream.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        let Send::Body(stream) = &mut self.send else { return Poll::Ready(Ok(())) };
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        // One byte is enough to know there is room: a frame may go over by its own size.
        stream.reserve_capacity(1);
        loop {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(_))) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.interrupt(&error))),
                // The stream is over: by a reset, or with its connection.
                Poll::Ready(None) => {
                    let Poll::Ready(reset) = stream.poll_reset(cx) else {
                        return Poll::Ready(Err(Interrupt::Disconnect));
                    };
                    return Poll::Ready(Err(self.gone(reset)));
                }
                Poll::Pending => return stream.poll_reset(cx).map(|reset| Err(self.gone(reset))),
            }
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        // The connection's task writes; a stream has nothing of its own to wait for.
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if let Some(interrupt) = self.refused() {
            return Poll::Ready(interrupt);
        }
        let reset = match &mut self.send {
            Send::Head(respond) => respond.poll_reset(cx),
            Send::Body(stream) => stream.poll_reset(cx),
            Send::Ended(_) | Send::Done => return Poll::Pending,
        };
        reset.map(|reset| self.gone(reset))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        self.poll_gone(cx)
    }

    fn abort(&mut self) {
        self.aborted = true;
    }

    fn connect_failed(&mut self) {
        self.connect_failed = true;
    }

    fn meter(&self) -> ByteMeter {
        ByteMeter { wire_rx: self.received, wire_tx: self.sent, ..ByteMeter::default() }
    }
}

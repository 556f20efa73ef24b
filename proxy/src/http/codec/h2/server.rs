//! HTTP/2 downstream: one task per connection accepts streams, each stream runs as a task of its own.

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::flags::details;
use filters::http::{Frame, Headers, RequestHead, ResponseHead};
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};

use super::Http2Options;
use super::convert::{Malformed, headers_from_h2, headers_to_h2, request_from_h2, response_to_h2};
use crate::http::codec::{Downstream, Interrupt};
use crate::transport::Io;

/// A downstream HTTP/2 connection.
pub struct ServerConnection {
    state: State,
    max_headers: u32,
}

enum State {
    Handshake(Handshake<Io, Bytes>),
    Open(Box<Connection<Io, Bytes>>),
}

impl ServerConnection {
    /// Starts the HTTP/2 preface and SETTINGS exchange on `io`.
    #[must_use]
    pub fn new(io: Io, options: &Http2Options) -> Self {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(options.initial_stream_window_size)
            .initial_connection_window_size(options.initial_connection_window_size)
            .max_concurrent_streams(options.max_concurrent_streams)
            .max_header_list_size(options.max_header_list_size)
            .max_send_buffer_size(options.send_buffer)
            .header_table_size(options.hpack_table_size);
        if options.allow_connect {
            builder.enable_connect_protocol();
        }
        Self { state: State::Handshake(builder.handshake(io)), max_headers: options.max_headers_count }
    }

    /// The next stream; `None` when the connection is over.
    ///
    /// # Errors
    /// When the peer broke the protocol or the connection.
    #[expect(clippy::type_complexity, reason = "a stream is its head and its exchange, or was refused already")]
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Result<(RequestHead, ServerExchange), &'static str>, h2::Error>>> {
        loop {
            match &mut self.state {
                State::Handshake(handshake) => match std::pin::Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(connection)) => self.state = State::Open(Box::new(connection)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Poll::Pending => return Poll::Pending,
                },
                State::Open(connection) => {
                    return connection
                        .poll_accept(cx)
                        .map_ok(|(request, respond)| accept(request, respond, self.max_headers));
                }
            }
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
    max_headers: u32,
) -> Result<(RequestHead, ServerExchange), &'static str> {
    let (mut parts, body) = request.into_parts();
    let protocol = parts.extensions.remove::<h2::ext::Protocol>();
    match request_from_h2(parts, protocol.as_ref().map(h2::ext::Protocol::as_str), max_headers) {
        Ok(head) => {
            let complete = body.is_end_stream();
            let exchange = ServerExchange {
                recv: body,
                request: if complete { Request::Complete } else { Request::Data },
                send: Send::Head(respond),
                max_headers,
                received: 0,
                sent: 0,
            };
            Ok((head, exchange))
        }
        Err(malformed) => {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            Err(match malformed {
                Malformed::TooMany => details::HTTP2_TOO_MANY_HEADERS,
                Malformed::Violation => details::HTTP2_VIOLATION,
            })
        }
    }
}

/// One downstream HTTP/2 stream.
pub struct ServerExchange {
    recv: RecvStream,
    request: Request,
    send: Send,
    max_headers: u32,
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
    Done(Option<SendStream<Bytes>>),
}

impl ServerExchange {
    fn fail(&mut self) {
        self.send = match std::mem::replace(&mut self.send, Send::Done(None)) {
            Send::Head(mut respond) => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                Send::Done(None)
            }
            Send::Body(mut stream) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                Send::Done(None)
            }
            done @ Send::Done(_) => done,
        };
    }
}

fn interrupt(error: &h2::Error) -> Interrupt {
    if error.is_reset() {
        return Interrupt::Reset(match error.reason() {
            Some(Reason::REFUSED_STREAM) => details::HTTP2_REMOTE_REFUSE,
            _ => details::HTTP2_REMOTE_RESET,
        });
    }
    Interrupt::Disconnect
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
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(interrupt(&error))),
                    Poll::Ready(None) => self.request = Request::Trailers,
                },
                Request::Trailers => match self.recv.poll_trailers(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Some(trailers))) => {
                        self.request = Request::Complete;
                        return Poll::Ready(match headers_from_h2(&trailers, self.max_headers) {
                            Ok(trailers) => Ok(Some(Frame::Trailers(Box::new(trailers)))),
                            Err(_) => Err(Interrupt::Reset(details::HTTP2_TOO_MANY_HEADERS)),
                        });
                    }
                    Poll::Ready(Ok(None)) => self.request = Request::Complete,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(interrupt(&error))),
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
        let Send::Head(mut respond) = std::mem::replace(&mut self.send, Send::Done(None)) else { return };
        let Some(response) = response_to_h2(head) else {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return;
        };
        if let Ok(stream) = respond.send_response(response, end) {
            self.send = if end { Send::Done(Some(stream)) } else { Send::Body(stream) };
        }
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        let Send::Body(stream) = &mut self.send else { return };
        self.sent += data.len() as u64;
        let sent = stream.send_data(data, end);
        if (end || sent.is_err())
            && let Send::Body(stream) = std::mem::replace(&mut self.send, Send::Done(None))
        {
            self.send = Send::Done(Some(stream));
        }
    }

    fn send_trailers(&mut self, trailers: Headers) {
        let Send::Body(mut stream) = std::mem::replace(&mut self.send, Send::Done(None)) else { return };
        match headers_to_h2(&trailers) {
            Some(map) => {
                let _ = stream.send_trailers(map);
            }
            None => stream.send_reset(Reason::INTERNAL_ERROR),
        }
        self.send = Send::Done(Some(stream));
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
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(interrupt(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(Interrupt::Disconnect)),
                Poll::Pending => return stream.poll_reset(cx).map(|reset| Err(gone(reset))),
            }
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        // The connection's task writes; a stream has nothing of its own to wait for.
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        match &mut self.send {
            Send::Head(respond) => respond.poll_reset(cx).map(gone),
            Send::Body(stream) => stream.poll_reset(cx).map(gone),
            Send::Done(_) => Poll::Pending,
        }
    }

    fn abort(&mut self) {
        self.fail();
    }

    fn wire_bytes(&self) -> (u64, u64) {
        (self.received, self.sent)
    }
}

fn gone(reset: Result<Reason, h2::Error>) -> Interrupt {
    match reset {
        Ok(Reason::REFUSED_STREAM) => Interrupt::Reset(details::HTTP2_REMOTE_REFUSE),
        Ok(_) => Interrupt::Reset(details::HTTP2_REMOTE_RESET),
        Err(error) => interrupt(&error),
    }
}

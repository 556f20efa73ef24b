//! HTTP/2 upstream: a connection task that drives the socket, and one exchange per stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::http::{Frame, Headers, Method, RequestHead, ResponseHead};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use super::convert::{AuthorityMemory, headers_from_h2, headers_to_h2, request_to_h2, response_from_h2};
use super::inspect::{LONGEST_AUTHORITY, Role, StandIn};
use super::{Http2Options, Watch};
use crate::config::hcm::Underscores;
use crate::transport::Io;
use crate::upstream::failure::{FailureKind, UpstreamFailure};

/// The sending handle of an upstream HTTP/2 connection.
#[derive(Clone)]
pub struct ClientConnection {
    send: SendRequest<Bytes>,
    watch: Watch,
    authority: AuthorityMemory,
    /// Bytes of body a stream may keep waiting for its window.
    send_buffer: u64,
}

/// What drives an upstream connection.
pub struct Driver {
    connection: h2::client::Connection<Watch, Bytes>,
    watch: Watch,
}

impl Driver {
    /// Moves the connection on; ready when it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        std::pin::Pin::new(&mut self.connection).poll(cx)
    }

    /// The handle for PINGs; there is one.
    pub fn ping_pong(&mut self) -> Option<h2::PingPong> {
        self.connection.ping_pong()
    }

    /// What passes on the connection's wire.
    #[must_use]
    pub const fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl ClientConnection {
    /// Opens HTTP/2 on a connected socket. The driver must be run as a task.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub async fn handshake(io: Io, options: &Http2Options) -> Result<(Self, Driver), h2::Error> {
        Self::begin(Watch::new(io, Role::Client, options), AuthorityMemory::default(), options).await
    }

    /// Opens HTTP/2 for requests that all go to one authority, which need not be one by RFC 3986.
    ///
    /// # Errors
    /// When the preface cannot be written, or the authority is too long.
    pub async fn handshake_to(authority: &Bytes, io: Io, options: &Http2Options) -> Result<(Self, Driver), h2::Error> {
        if authority.len() > LONGEST_AUTHORITY {
            return Err(Reason::INTERNAL_ERROR.into());
        }
        let (memory, stands_for) = AuthorityMemory::of(authority);
        let stand_in = stands_for.then(|| StandIn::new(authority.clone()));
        Self::begin(Watch::with_stand_in(io, Role::Client, options, stand_in), memory, options).await
    }

    async fn begin(
        watch: Watch,
        authority: AuthorityMemory,
        options: &Http2Options,
    ) -> Result<(Self, Driver), h2::Error> {
        let protocol = &options.protocol;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(protocol.initial_stream_window_size)
            .initial_connection_window_size(protocol.initial_connection_window_size)
            .initial_max_send_streams(protocol.max_concurrent_streams as usize)
            .max_concurrent_streams(protocol.max_concurrent_streams)
            .max_header_list_size(options.codec_headers_limit())
            .max_send_buffer_size(options.send_buffer)
            .header_table_size(protocol.hpack_table_size)
            .max_local_error_reset_streams(None)
            .enable_push(false);
        if let Some(size) = protocol.max_frame_size {
            builder.max_frame_size(size);
        }
        let (send, connection) = builder.handshake(watch.clone()).await?;
        let driver = Driver { connection, watch: watch.clone() };
        Ok((Self { send, authority, watch, send_buffer: options.send_buffer as u64 }, driver))
    }

    /// Whether the peer would take another stream now; an error when the connection takes no more.
    ///
    /// # Errors
    /// When the connection is closed or going away.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.send.poll_ready(cx)
    }

    /// Whether the peer said that it will take no new streams.
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        self.watch.saw_goaway()
    }

    /// Streams the peer allows at a time.
    #[must_use]
    pub fn max_concurrent_streams(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Sends a request head on a new stream.
    ///
    /// # Errors
    /// When the connection takes no stream, or the head cannot be said in HTTP/2.
    pub fn send(&mut self, head: &RequestHead, end: bool) -> Result<ClientExchange, UpstreamFailure> {
        let Some(request) = request_to_h2(head, &mut self.authority) else {
            return Err(UpstreamFailure::new(FailureKind::LocalReset));
        };
        if self.is_going_away() {
            return Err(UpstreamFailure::new(FailureKind::RemoteRefused));
        }
        let (response, send) = self.send.send_request(request, end).map_err(|error| failure(&error, &self.watch))?;
        let stream = u32::from(response.stream_id());
        if head.method == Method::Head {
            self.watch.expect_no_body(stream);
        }
        Ok(ClientExchange {
            stream,
            watch: self.watch.clone(),
            response: Response::Head(response),
            send,
            handed: 0,
            buffer: self.send_buffer,
            sent: end,
        })
    }
}

/// One upstream HTTP/2 stream.
pub struct ClientExchange {
    stream: u32,
    response: Response,
    send: SendStream<Bytes>,
    /// Bytes of body handed over, and how many of them may wait.
    handed: u64,
    buffer: u64,
    /// The request has been handed over whole.
    sent: bool,
    watch: Watch,
}

enum Response {
    Head(ResponseFuture),
    Data(RecvStream),
    Trailers(RecvStream),
    Complete,
}

impl ClientExchange {
    /// The next response head: informational ones first, then the final one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamFailure>> {
        let Response::Head(future) = &mut self.response else { return Poll::Pending };
        match future.poll_informational(cx) {
            Poll::Ready(Some(Ok(response))) => {
                let (parts, ()) = response.into_parts();
                return Poll::Ready(self.believed(false).map(|()| response_from_h2(&parts)));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error, &self.watch))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match std::pin::Pin::new(future).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(failure(&error, &self.watch))),
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let head = self.believed(false).map(|()| response_from_h2(&parts));
                self.response = if body.is_end_stream() { Response::Complete } else { Response::Data(body) };
                Poll::Ready(head)
            }
        }
    }

    /// Whether what the codec says of the response is to be believed; the stream ends here otherwise.
    fn believed(&mut self, after_head: bool) -> Result<(), UpstreamFailure> {
        let Some(refusal) = self.watch.spoiled(self.stream, after_head) else { return Ok(()) };
        self.send.send_reset(refusal.reason);
        // A limit passed looks to Envoy like a reset of the peer's.
        let kind = if refusal.protocol_error { FailureKind::ProtocolError } else { FailureKind::RemoteReset };
        Err(UpstreamFailure::new(kind))
    }

    /// Whether the response is complete.
    #[must_use]
    pub const fn response_complete(&self) -> bool {
        matches!(self.response, Response::Complete)
    }

    /// The next piece of the response body; `None` once it is complete.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, UpstreamFailure>> {
        loop {
            match &mut self.response {
                Response::Head(_) => return Poll::Pending,
                Response::Complete => return Poll::Ready(Ok(None)),
                Response::Data(body) => match body.poll_data(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(data))) => {
                        let is_end = body.is_end_stream();
                        let _ = body.flow_control().release_capacity(data.len());
                        if is_end {
                            self.response = Response::Complete;
                        }
                        self.believed(true)?;
                        if data.is_empty() {
                            continue;
                        }
                        return Poll::Ready(Ok(Some(Frame::Data(data))));
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error, &self.watch))),
                    Poll::Ready(None) => {
                        if let Response::Data(body) = std::mem::replace(&mut self.response, Response::Complete) {
                            self.response = Response::Trailers(body);
                        }
                    }
                },
                Response::Trailers(body) => match body.poll_trailers(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(trailers)) => {
                        self.response = Response::Complete;
                        self.believed(true)?;
                        let Some(trailers) = trailers else { continue };
                        let trailers = headers_from_h2(&trailers, Underscores::Allow);
                        return Poll::Ready(Ok(Some(Frame::Trailers(Box::new(trailers)))));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(failure(&error, &self.watch))),
                },
            }
        }
    }

    /// Ready when there is room for request body: in the buffer, whatever the stream's window is. So a client that has said
    /// all it had to say is done, and what follows is the upstream's time.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFailure>> {
        if self.sent || self.waiting() < self.buffer {
            return Poll::Ready(Ok(()));
        }
        self.send.reserve_capacity(1);
        loop {
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(_))) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error, &self.watch))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(UpstreamFailure::new(FailureKind::ConnectionTermination)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends request body; with `end` nothing follows.
    pub fn send_data(&mut self, data: Bytes, end: bool) {
        if !self.sent {
            self.handed += data.len() as u64;
            let _ = self.send.send_data(data, end);
        }
        self.sent |= end;
    }

    /// Whether all of the body that was handed over has left.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.waiting() == 0
    }

    /// Bytes of body that have been handed over and have not left.
    fn waiting(&self) -> u64 {
        if self.handed == 0 { 0 } else { self.handed.saturating_sub(self.watch.body_sent(self.stream)) }
    }

    /// Sends the trailers that end the request.
    pub fn send_trailers(&mut self, trailers: &Headers) {
        if !std::mem::replace(&mut self.sent, true) {
            match headers_to_h2(trailers) {
                Some(map) => {
                    let _ = self.send.send_trailers(map);
                }
                None => self.send.send_reset(Reason::INTERNAL_ERROR),
            }
        }
    }
}

/// An exchange that is given up resets its stream, with the code Envoy has for that. So does one that is over but for a body
/// the upstream gives no window for: nobody would bound what is kept for it.
impl Drop for ClientExchange {
    fn drop(&mut self) {
        if !self.sent || !self.response_complete() || self.waiting() > 0 {
            self.send.send_reset(Reason::INTERNAL_ERROR);
        }
        self.watch.forget(self.stream);
    }
}

fn failure(error: &h2::Error, watch: &Watch) -> UpstreamFailure {
    let kind = match error.reason() {
        // Whatever ends a connection the peer broke the protocol on, that is why.
        _ if watch.fault().is_some() => FailureKind::ProtocolError,
        Some(Reason::REFUSED_STREAM) if error.is_reset() => FailureKind::RemoteRefused,
        Some(Reason::CONNECT_ERROR) if error.is_reset() && error.is_remote() => FailureKind::RemoteConnectError,
        // Whoever said so: Envoy takes the code for its own verdict about the peer.
        Some(Reason::PROTOCOL_ERROR) if error.is_reset() => FailureKind::ProtocolError,
        // A reset on the codec's own account looks to Envoy like one of the peer's.
        Some(_) if error.is_reset() => FailureKind::RemoteReset,
        Some(_) if error.is_go_away() && !error.is_remote() => FailureKind::ProtocolError,
        _ => FailureKind::ConnectionTermination,
    };
    UpstreamFailure::new(kind)
}

//! HTTP/2 upstream: a connection task that drives the socket, and one exchange per stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::http::{Frame, Headers, RequestHead, ResponseHead};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use super::convert::{AuthorityMemory, headers_from_h2, headers_to_h2, request_to_h2, response_from_h2};
use super::inspect::Role;
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
    max_headers: u32,
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
        let protocol = &options.protocol;
        let watch = Watch::new(io, Role::Client, options);
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(protocol.initial_stream_window_size)
            .initial_connection_window_size(protocol.initial_connection_window_size)
            .initial_max_send_streams(protocol.max_concurrent_streams as usize)
            .max_concurrent_streams(protocol.max_concurrent_streams)
            .max_header_list_size(options.max_headers_bytes)
            .max_send_buffer_size(options.send_buffer)
            .header_table_size(protocol.hpack_table_size)
            .max_local_error_reset_streams(None)
            .enable_push(false);
        if let Some(size) = protocol.max_frame_size {
            builder.max_frame_size(size);
        }
        let (send, connection) = builder.handshake(watch.clone()).await?;
        let driver = Driver { connection, watch: watch.clone() };
        Ok((
            Self { send, authority: AuthorityMemory::default(), watch, max_headers: options.max_headers_count },
            driver,
        ))
    }

    /// Whether the peer would take another stream now; an error when the connection takes no more.
    ///
    /// # Errors
    /// When the connection is closed or going away.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.send.poll_ready(cx)
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
        let (response, send) = self.send.send_request(request, end).map_err(|error| failure(&error, &self.watch))?;
        Ok(ClientExchange {
            watch: self.watch.clone(),
            response: Response::Head(response),
            send: if end { None } else { Some(send) },
            max_headers: self.max_headers,
        })
    }
}

/// One upstream HTTP/2 stream.
pub struct ClientExchange {
    response: Response,
    send: Option<SendStream<Bytes>>,
    watch: Watch,
    max_headers: u32,
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
                return Poll::Ready(self.limited(&parts.headers).map(|()| response_from_h2(&parts)));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error, &self.watch))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match std::pin::Pin::new(future).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(failure(&error, &self.watch))),
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let head = self.limited(&parts.headers).map(|()| response_from_h2(&parts));
                self.response = if body.is_end_stream() { Response::Complete } else { Response::Data(body) };
                Poll::Ready(head)
            }
        }
    }

    /// Whether there are no more headers than allowed.
    fn limited(&self, headers: &http::HeaderMap) -> Result<(), UpstreamFailure> {
        if headers.len() > self.max_headers as usize {
            return Err(UpstreamFailure::new(FailureKind::ProtocolError));
        }
        Ok(())
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
                        let _ = body.flow_control().release_capacity(data.len());
                        if body.is_end_stream() {
                            self.response = Response::Complete;
                        }
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
                        let Some(trailers) = trailers else { continue };
                        return Poll::Ready(self.limited(&trailers).map(|()| {
                            let trailers = headers_from_h2(&trailers, Underscores::Allow);
                            Some(Frame::Trailers(Box::new(trailers)))
                        }));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(failure(&error, &self.watch))),
                },
            }
        }
    }

    /// Ready when the stream's window has room for request body.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFailure>> {
        let Some(stream) = &mut self.send else { return Poll::Ready(Ok(())) };
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        stream.reserve_capacity(1);
        loop {
            match stream.poll_capacity(cx) {
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
        if let Some(stream) = &mut self.send {
            let _ = stream.send_data(data, end);
        }
        if end {
            self.send = None;
        }
    }

    /// Sends the trailers that end the request.
    pub fn send_trailers(&mut self, trailers: &Headers) {
        if let Some(mut stream) = self.send.take() {
            match headers_to_h2(trailers) {
                Some(map) => {
                    let _ = stream.send_trailers(map);
                }
                None => stream.send_reset(Reason::INTERNAL_ERROR),
            }
        }
    }

    /// Gives the stream up. Dropping the exchange does the same when it is not complete.
    pub fn reset(&mut self) {
        if let Some(mut stream) = self.send.take() {
            stream.send_reset(Reason::CANCEL);
        }
    }
}

fn failure(error: &h2::Error, watch: &Watch) -> UpstreamFailure {
    let kind = match error.reason() {
        // Whatever ends a connection the peer broke the protocol on, that is why.
        _ if watch.fault().is_some() => FailureKind::ProtocolError,
        Some(Reason::REFUSED_STREAM) if error.is_reset() => FailureKind::RemoteRefused,
        // Whoever said so: Envoy takes the code for its own verdict about the peer.
        Some(Reason::PROTOCOL_ERROR) if error.is_reset() => FailureKind::ProtocolError,
        // A reset on the codec's own account looks to Envoy like one of the peer's.
        Some(_) if error.is_reset() => FailureKind::RemoteReset,
        Some(_) if error.is_go_away() && !error.is_remote() => FailureKind::ProtocolError,
        _ => FailureKind::ConnectionTermination,
    };
    UpstreamFailure::new(kind)
}

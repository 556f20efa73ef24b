//! HTTP/2 upstream: a connection task that drives the socket, and one exchange per stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::http::{Frame, Headers, RequestHead, ResponseHead};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use super::Http2Options;
use super::convert::{headers_from_h2, headers_to_h2, request_to_h2, response_from_h2};
use crate::transport::Io;
use crate::upstream::failure::{FailureKind, UpstreamFailure};

/// The sending handle of an upstream HTTP/2 connection.
#[derive(Clone)]
pub struct ClientConnection {
    send: SendRequest<Bytes>,
    max_headers: u32,
}

impl ClientConnection {
    /// Opens HTTP/2 on a connected socket. The returned future drives the connection and must be run as a task; it ends when
    /// the connection does.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub async fn handshake(
        io: Io,
        options: &Http2Options,
    ) -> Result<(Self, h2::client::Connection<Io, Bytes>), h2::Error> {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(options.initial_stream_window_size)
            .initial_connection_window_size(options.initial_connection_window_size)
            .initial_max_send_streams(options.max_concurrent_streams as usize)
            .max_concurrent_streams(options.max_concurrent_streams)
            .max_header_list_size(options.max_header_list_size)
            .max_send_buffer_size(options.send_buffer)
            .header_table_size(options.hpack_table_size)
            .enable_push(false)
            .handshake(io)
            .await?;
        Ok((Self { send, max_headers: options.max_headers_count }, connection))
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
        let Some(request) = request_to_h2(head) else {
            return Err(UpstreamFailure::new(FailureKind::LocalReset));
        };
        let (response, send) = self.send.send_request(request, end).map_err(|error| failure(&error))?;
        Ok(ClientExchange {
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
                return Poll::Ready(
                    response_from_h2(&parts, self.max_headers)
                        .map_err(|_| UpstreamFailure::new(FailureKind::ProtocolError)),
                );
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match std::pin::Pin::new(future).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(failure(&error))),
            Poll::Ready(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let head = response_from_h2(&parts, self.max_headers);
                self.response = if body.is_end_stream() { Response::Complete } else { Response::Data(body) };
                Poll::Ready(head.map_err(|_| UpstreamFailure::new(FailureKind::ProtocolError)))
            }
        }
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
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error))),
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
                        return Poll::Ready(match headers_from_h2(&trailers, self.max_headers) {
                            Ok(trailers) => Ok(Some(Frame::Trailers(Box::new(trailers)))),
                            Err(_) => Err(UpstreamFailure::new(FailureKind::ProtocolError)),
                        });
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(failure(&error))),
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
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(&error))),
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

fn failure(error: &h2::Error) -> UpstreamFailure {
    if error.is_reset() && error.is_remote() {
        return UpstreamFailure::new(match error.reason() {
            Some(Reason::REFUSED_STREAM) => FailureKind::RemoteRefused,
            Some(Reason::PROTOCOL_ERROR) => FailureKind::ProtocolError,
            _ => FailureKind::RemoteReset,
        });
    }
    if error.is_io() || error.is_go_away() && error.is_remote() {
        return UpstreamFailure::new(FailureKind::ConnectionTermination);
    }
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => UpstreamFailure::new(FailureKind::RemoteRefused),
        Some(_) => UpstreamFailure::new(FailureKind::ProtocolError),
        None => UpstreamFailure::new(FailureKind::ConnectionTermination),
    }
}

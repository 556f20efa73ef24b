//! Codecs: bytes to heads, bodies and trailers, and back; and the interface a stream sees of the two sides.
//!
//! A stream owns one [`Downstream`] and, per attempt, one upstream exchange. Both are polled from the same task, so a
//! response may begin before the request ends and nothing is handed between tasks. Backpressure is by not asking: the
//! stream takes a frame from one side only when the other says it is writable, and an unread side stops its peer (HTTP/1 by
//! not reading the socket, HTTP/2 by not returning window).

use std::task::{Context, Poll};

use bytes::Bytes;
use filters::http::{Frame, Headers, ResponseHead};
use filters::stream_info::ByteMeter;

use self::h1::Spelling;

pub mod h1;
pub mod h2;

/// The downstream half of one exchange.
pub trait Downstream {
    /// The next piece of the request body; `None` once the request is complete.
    ///
    /// # Errors
    /// Why no more will come.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>>;

    /// Whether the whole request has been taken.
    fn request_complete(&self) -> bool;

    /// Queues an informational (1xx) head.
    fn send_informational(&mut self, head: &ResponseHead);

    /// How the response's upstream spelled its header names, where HTTP/1 clients are to see the same. Before the head.
    fn spell(&mut self, _spelling: Spelling) {}

    /// Queues the response head; with `end` nothing follows.
    fn send_head(&mut self, head: &ResponseHead, end: bool);

    /// Queues body bytes; with `end` nothing follows.
    fn send_data(&mut self, data: Bytes, end: bool);

    /// Queues the trailers that end the response.
    fn send_trailers(&mut self, trailers: Headers);

    /// Ready when less than the buffer limit waits to be written; writes what it can.
    ///
    /// # Errors
    /// When the client cannot be written to any more.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>>;

    /// Ready when all that was queued has left this side.
    ///
    /// # Errors
    /// When the client cannot be written to any more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>>;

    /// Ready only when the client is gone or gave the stream up. Asked while nothing else is wanted of it.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt>;

    /// Ready only when the client gave the stream up while its request is not complete, where that can be known without
    /// reading the request.
    fn poll_reset(&mut self, _: &mut Context<'_>) -> Poll<Interrupt> {
        Poll::Pending
    }

    /// Gives the exchange up: the client sees a reset stream, or a connection that closes behind what was queued.
    fn abort(&mut self);

    /// The connection behind the tunnel that was asked for failed, which HTTP/2 says with a code of its own (RFC 9113
    /// section 8.5).
    fn connect_failed(&mut self) {}

    /// What crossed the wire for this stream so far.
    fn meter(&self) -> ByteMeter;
}

/// Why the downstream side ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The client closed the connection.
    Disconnect,
    /// The client reset the stream; the details name how.
    Reset(&'static str),
    /// This side closed the connection on the stream; the details say why.
    Closed(&'static str),
    /// The codec gave the stream up, with its connection or alone, for what the client sent: there is nobody to answer.
    Codec(&'static str),
    /// What the client sent is not what it may send: answer with this, if no response has begun.
    Malformed {
        /// Status to answer with.
        status: u16,
        /// `%RESPONSE_CODE_DETAILS%`.
        details: &'static str,
    },
}

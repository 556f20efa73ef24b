//! HTTP/1 codec, sans-io (RFC 9112): bytes to heads, body frames and trailers, and back.
//!
//! The contract, the same on both sides of the proxy:
//!
//! - A decoder belongs to a connection. [`RequestDecoder::decode`] and [`ResponseDecoder::decode`] take from the read
//!   buffer what they understand and answer one event; `None` asks for more bytes. A message starts with its head and,
//!   unless [`BodyKind::is_empty`], ends with `End` or `Trailers`. The caller decides when to ask for the next message,
//!   so pipelined requests wait in its buffer.
//! - A head is looked at once however slowly it arrives, split off the read buffer as one piece, and its values and
//!   unknown names borrow that piece. Body bytes are never copied except to join tiny chunks.
//! - An error is final for the connection. On the server side it names the reply Envoy gives.
//! - The read buffer holds at most a head's limit and one read: heads and trailers beyond the limit are refused before
//!   they are complete, body bytes leave as they come, chunk extensions are bounded.
//! - Encoders write to a [`WriteBuf`], made for one vectored write. They own framing: `transfer-encoding` and hop-by-hop
//!   rules never come from the head, lengths that lie are refused, and a name or value that would start another line is
//!   refused, wherever the head came from.
//!
//! What is accepted, and the reply to what is not, is Envoy's, measured; `tests.rs` holds the table. Where we are
//! stricter on purpose the row says so: every such case lets two parsers disagree on where a message ends.

mod body;
mod case;
mod chars;
mod encode;
mod fields;
mod hop;
mod reason;
mod request;
mod response;
mod scan;
mod target;
mod write;

#[cfg(test)]
mod tests;

pub use case::{HeaderCase, HeaderFormat, Spelling};
pub use encode::{EncodeError, Framing, RequestEncoder, RequestOptions, ResponseEncoder, ResponseOptions};
pub use hop::{sanitize_request, sanitize_response};
pub use reason::reason_phrase;
pub use request::{DecodedRequest, RequestDecoder, RequestEvent, ServerOptions, UnderscoreAction, UpgradeMatcher};
pub use response::{ClientOptions, DecodedResponse, Eof, Expected, ResponseDecoder, ResponseEvent};
pub use write::WriteBuf;

/// How the body of a message is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// The head is the whole message; no `End` follows.
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything until the connection closes, of a response.
    UntilClose,
    /// Not a body: bytes of another protocol after an upgrade or CONNECT.
    Tunnel,
}

/// What [`filters::http::Headers::line_bytes`] would be of the `transfer-encoding: chunked` that decoding takes away.
pub const CHUNKED_LINE: u64 = 27;

impl BodyKind {
    /// Whether the message ends with its head.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// Why a peer's bytes are no acceptable HTTP/1 message. The connection cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{details}")]
pub struct DecodeError {
    /// Status of the local reply: 400, 426, 431, 501; for a response, 502.
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`, one of `filters::flags::details::HTTP1_*` or `LOW_VERSION`.
    pub details: &'static str,
}

impl DecodeError {
    /// The body of the local reply: the status's reason phrase, as Envoy sends it.
    #[must_use]
    pub const fn body(&self) -> &'static str {
        reason_phrase(self.status)
    }

    const fn new(status: u16, details: &'static str) -> Self {
        Self { status, details }
    }

    const fn codec() -> Self {
        Self::new(400, filters::flags::details::HTTP1_CODEC_ERROR)
    }

    /// The same fault seen in a response: the client gets a bad gateway whatever it was.
    const fn of_upstream(self) -> Self {
        Self::new(502, self.details)
    }
}

//! Local replies in gRPC's terms.

use bytes::Bytes;
use filters::http::{Known, ResponseHead};

/// A gRPC status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus(pub u32);

impl GrpcStatus {
    /// Success.
    pub const OK: Self = Self(0);
    /// No better code is known.
    pub const UNKNOWN: Self = Self(2);
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// Not allowed.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A limit was reached.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// No such method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// An invariant broke.
    pub const INTERNAL: Self = Self(13);
    /// Not available now.
    pub const UNAVAILABLE: Self = Self(14);
    /// No valid credentials.
    pub const UNAUTHENTICATED: Self = Self(16);
}

/// The gRPC status a client may conclude from an HTTP status (gRPC's `http-grpc-status-mapping`).
#[must_use]
pub const fn status_from_http(status: u16) -> GrpcStatus {
    match status {
        400 => GrpcStatus::INTERNAL,
        401 => GrpcStatus::UNAUTHENTICATED,
        403 => GrpcStatus::PERMISSION_DENIED,
        404 => GrpcStatus::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => GrpcStatus::UNAVAILABLE,
        _ => GrpcStatus::UNKNOWN,
    }
}

/// Makes a trailers-only response of a head: HTTP 200, the outcome among the headers.
pub(super) fn trailers_only(head: &mut ResponseHead, message: &[u8], status: Option<GrpcStatus>) {
    let GrpcStatus(code) = status.unwrap_or_else(|| status_from_http(head.status));
    head.status = 200;
    let headers = &mut head.headers;
    headers.set(Known::ContentType, &b"application/grpc"[..]);
    if !headers.contains(&Known::GrpcStatus) {
        headers.append(Known::GrpcStatus, Bytes::copy_from_slice(itoa::Buffer::new().format(code).as_bytes()));
    }
    if !message.is_empty() {
        headers.set(Known::GrpcMessage, encode_message(message));
    }
    headers.remove(&Known::ContentLength);
}

/// Percent-encodes a `grpc-message` (gRPC over HTTP/2, "Status-Message"): all but printable ASCII, and `%`.
#[must_use]
pub fn encode_message(message: &[u8]) -> Bytes {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if message.iter().all(|byte| plain(*byte)) {
        return Bytes::copy_from_slice(message);
    }
    let mut out = Vec::with_capacity(message.len() + 16);
    for byte in message {
        if plain(*byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
    out.into()
}

//! HTTP/2 over the `h2` crate: each stream's task talks to the connection's task through the crate's handles. What passes
//! on the wire is watched, and judged as Envoy does, in front of it ([`inspect`]).

mod client;
mod convert;
pub mod inspect;
mod keepalive;
mod server;
mod watched;

use std::sync::Arc;

pub use client::{ClientConnection, ClientExchange, Driver};
pub use keepalive::Keepalive;
pub use server::{Accepted, ServerConnection, ServerExchange};
pub use watched::Watch;

use crate::config::hcm::Underscores;
use crate::config::http2;

/// How a connection speaks HTTP/2: the protocol's options and the limits of heads.
#[derive(Debug, Clone, PartialEq)]
pub struct Http2Options {
    /// `http2_protocol_options`
    pub protocol: Arc<http2::Http2Options>,
    /// Bytes of a head, from `max_request_headers_kb` (60 KiB) or the upstream's limit.
    pub max_headers_bytes: u32,
    /// Fields of a head, from `max_headers_count` (100).
    pub max_headers_count: u32,
    /// `headers_with_underscores_action`
    pub underscores: Underscores,
    /// Bytes a stream may queue for writing: the connection's buffer limit.
    pub send_buffer: usize,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            protocol: Arc::default(),
            max_headers_bytes: 60 << 10,
            max_headers_count: 100,
            underscores: Underscores::Allow,
            send_buffer: 1 << 20,
        }
    }
}

impl Http2Options {
    /// What `h2` may take of a head. Envoy's limits are kept in front of it, and count without the 32 bytes per field that
    /// `h2` adds (RFC 9113 section 6.5.2); this one bounds memory.
    fn codec_headers_limit(&self) -> u32 {
        self.max_headers_bytes.saturating_mul(2).saturating_add(64 << 10)
    }
}

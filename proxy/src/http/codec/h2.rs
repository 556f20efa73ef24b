//! HTTP/2 over the `h2` crate: each stream's task talks to the connection's task through the crate's handles.

mod client;
mod convert;
mod server;

pub use client::{ClientConnection, ClientExchange};
pub use server::{ServerConnection, ServerExchange};

/// HTTP/2 options of one side (`envoy.config.core.v3.Http2ProtocolOptions`), defaults as Envoy 1.40's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// `hpack_table_size`: bytes of the decoder's dynamic table, 4096.
    pub hpack_table_size: u32,
    /// `max_concurrent_streams`: 1024.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size`: 16 MiB.
    pub initial_stream_window_size: u32,
    /// `initial_connection_window_size`: 24 MiB.
    pub initial_connection_window_size: u32,
    /// `allow_connect`: extended CONNECT (RFC 8441), off.
    pub allow_connect: bool,
    /// Bytes of a header block, from `max_request_headers_kb` (60 KiB) or the upstream's limit.
    pub max_header_list_size: u32,
    /// Headers in a block, from `max_headers_count` (100).
    pub max_headers_count: u32,
    /// Bytes a stream may queue for writing: the connection's buffer limit.
    pub send_buffer: usize,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            max_header_list_size: 60 << 10,
            max_headers_count: 100,
            send_buffer: 1 << 20,
        }
    }
}

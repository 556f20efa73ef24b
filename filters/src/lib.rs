//! The vocabulary of a stream, and what decides over it.
//!
//! * [`http`]: headers, heads and bodies as every part of the proxy sees them.
//! * [`stream_info`], [`flags`]: what is known about a stream, and the names of every way it can fail.
//! * [`config`]: how protobuf becomes runtime types, with every field accounted for.
//! * [`mod@format`]: `%COMMAND%` strings (access logs, header values, local replies).
//! * [`matcher`]: string, header, query and address matchers.
//! * [`mutation`]: header changes.
//! * [`http_filter`]: what an HTTP filter is, and the filters: [`cors`].
//!
//! Nothing here opens a socket, knows a cluster or waits.

pub mod config;
pub mod cors;
pub mod flags;
pub mod format;
pub mod http;
pub mod http_filter;
pub mod matcher;
pub mod mutation;
pub mod stream_info;
pub mod uuid;

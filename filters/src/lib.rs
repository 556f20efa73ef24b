//! The vocabulary of a stream, and what decides over it.
//!
//! * [`http`]: headers, heads and bodies as every part of the proxy sees them.
//! * [`stream_info`], [`flags`]: what is known about a stream, and the names of every way it can fail.
//! * [`tls`]: what is known about a TLS session and its certificates.
//! * [`filter_state`]: what filters leave for each other.
//! * [`config`]: how protobuf becomes runtime types, with every field accounted for.
//! * [`mod@format`]: `%COMMAND%` strings (access logs, header values, local replies).
//! * [`matcher`]: string, header, query and address matchers.
//! * [`mutation`]: header changes.
//! * [`http_filter`]: what an HTTP filter is, and the filters: [`cors`], [`ext_authz`], [`health_check`],
//!   [`jwt_authn`].
//! * [`call`]: what filters ask of others.
//!
//! Nothing here opens a socket or knows a cluster; a filter that waits is polled by its stream.

pub mod call;
pub mod config;
pub mod cors;
pub mod ext_authz;
pub mod filter_state;
pub mod flags;
pub mod format;
pub mod health_check;
pub mod http;
pub mod http_filter;
pub mod jwt_authn;
pub mod matcher;
pub mod mutation;
pub mod rbac;
pub mod stream_info;
pub mod tls;
pub mod uuid;

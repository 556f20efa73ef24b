//! Access logs, tracing and sinks.

pub mod access_log;
pub mod catalogue;
pub mod threads;

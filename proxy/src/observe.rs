//! Access logs, tracing and sinks.

pub mod access_log;

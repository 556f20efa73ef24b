//! HTTP: codecs, the connection manager and the life of a stream.

pub mod codec;
pub mod connection;
pub mod filter_chain;
pub mod hygiene;
pub mod manager;
pub mod path;
pub mod reply;
mod serve_h1;
mod serve_h2;
pub mod stream;
pub mod upgrade;

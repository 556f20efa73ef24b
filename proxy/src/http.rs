//! HTTP: codecs, the connection manager and the life of a stream.

pub mod codec;
pub mod hygiene;
pub mod path;
pub mod reply;

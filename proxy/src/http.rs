//! HTTP: codecs, the connection manager and the life of a stream.

pub mod codec;

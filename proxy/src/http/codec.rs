//! Codecs: bytes to heads, bodies and trailers, and back.

pub mod h1;
pub mod h2;

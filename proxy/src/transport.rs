//! Byte streams and what wraps them.

mod io;
pub mod proxy_protocol;

pub use io::{Io, SCRATCH};

//! Byte streams and what wraps them.

mod io;
mod pipe;
pub mod proxy_protocol;

pub use io::{Denial, Gate, Io, SCRATCH};
pub use pipe::{Pipe, Pipes};

//! Byte streams and what wraps them.

mod ahead;
mod io;
mod pipe;
pub mod proxy_protocol;
mod tls;

pub use ahead::{Gate, Lingering, Verdict};
pub use io::{Io, Meter, SCRATCH};
pub use pipe::{Pipe, Pipes};
pub use tls::TlsStream;

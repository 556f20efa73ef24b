//! Byte streams and what wraps them.

mod io;

pub use io::{Io, SCRATCH, WriteQueue};

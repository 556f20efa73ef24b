//! Layer-4 proxying.

pub mod proxy;

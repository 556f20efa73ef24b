//! Layer-4 proxying.

mod direction;
pub mod proxy;
pub mod reply;

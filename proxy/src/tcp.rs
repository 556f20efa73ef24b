//! Layer-4 proxying.

mod connect;
mod direction;
mod flow;
pub mod proxy;
pub mod reply;
mod session;
mod tunnel;

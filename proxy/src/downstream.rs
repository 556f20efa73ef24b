//! Sockets, accepting, listener filters and the choice of a filter chain.

pub mod accept;
pub mod chain_match;
pub mod drain;
pub mod listener_filters;
pub mod network_filters;
pub mod transport;

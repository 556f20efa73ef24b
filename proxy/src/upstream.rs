//! The upstream side: clusters, hosts, load balancing, pools, attempts.

pub mod breaker;
pub mod failure;
pub mod host;
pub mod lb;

//! The upstream side: clusters, hosts, load balancing, pools, attempts.

mod aggregate;
pub mod breaker;
pub mod cluster;
pub mod connect;
pub mod exchange;
pub mod failure;
pub mod host;
pub mod lb;
pub mod measure;
pub mod outlier;
pub mod pool;
pub mod proxy_protocol;
pub mod responses;
pub mod retry;
pub mod server_name;

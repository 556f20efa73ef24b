//! Protobuf to runtime types, one file per resource. Runtime types cannot hold an invalid configuration; the data
//! path never sees a protobuf.

pub mod access_log;
pub mod address;
pub mod any;
pub mod bootstrap;
pub mod cluster;
pub mod config_source;
pub mod endpoint;
pub mod filter_chain;
pub mod hcm;
pub mod http2;
pub mod ledger;
pub mod listener;
pub mod route;
pub mod service;
pub mod tcp_proxy;
pub mod tls;
pub mod tlv;

//! Legate: a data-plane proxy that takes Envoy's place. `docs/architecture.md` is the map; modules stand in the order
//! a request meets them.

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod downstream;
pub mod drill;
pub mod http;
pub mod logging;
pub mod observe;
pub mod overload;
pub mod route;
pub mod runtime;
pub mod server;
mod stage;
pub mod sys;
pub mod tcp;
pub mod tls;
pub mod transport;
pub mod upstream;
pub mod worker;

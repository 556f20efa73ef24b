//! The admin server: Envoy's pages, on a thread of their own.
//!
//! The thread has its own runtime and speaks HTTP/1 with hyper, so that no page, however large or however slowly read,
//! delays configuration or traffic. `/ready`, `/server_info` and `/stats` are answered from shared state at once; pages
//! about listeners and clusters ask the control thread ([`backend`]).
//!
//! Changes need `POST`, and whatever a browser sends on behalf of another site is refused.

pub mod backend;
mod certs;
mod clusters;
mod config_dump;
mod guard;
mod home;
mod http;
mod listeners;
mod log_levels;
mod pages;
mod query;
mod request;
mod server;
mod server_info;
mod telemetry;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Instant;

use stats::Store;

pub use self::backend::AdminBackend;
use crate::config::bootstrap::{AdminConfig, Flush};
use crate::control::ServerState;
use crate::logging::LogControl;
use crate::observe::access_log::AccessLog;

pub use self::server::{AdminServer, Listening, bind};
pub use self::server_info::ServerInfo;

/// What the pages need.
#[derive(Debug)]
pub struct Admin {
    /// The control thread.
    pub backend: AdminBackend,
    /// All statistics.
    pub store: Arc<Store>,
    /// When histograms are merged: with `stats_flush_on_admin`, by the pages.
    pub flush: Flush,
    /// The state of the server, as `/ready` says it.
    pub state: Arc<SharedState>,
    /// What `/server_info` says.
    pub info: ServerInfo,
    /// The application log's levels; `None` if there is no log to control.
    pub log: Option<LogControl>,
    /// The bootstrap's `admin`.
    pub config: AdminConfig,
    /// Its access logs, opened.
    pub logs: Vec<AccessLog>,
}

/// The server's state, written by control, read by `/ready` without asking it.
#[derive(Debug)]
pub struct SharedState {
    state: AtomicU8,
    /// When the process started.
    pub started: Instant,
}

impl Default for SharedState {
    fn default() -> Self {
        Self { state: AtomicU8::new(ServerState::PreInitializing as u8), started: Instant::now() }
    }
}

impl SharedState {
    /// Says how far the server is.
    pub fn set(&self, state: ServerState) {
        self.state.store(state as u8, Relaxed);
    }

    /// How far the server is.
    #[must_use]
    pub fn name(&self) -> StateName {
        StateName(self.state.load(Relaxed))
    }
}

/// A server state as the pages print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateName(u8);

impl StateName {
    /// Whether traffic may be sent here.
    #[must_use]
    pub const fn is_live(self) -> bool {
        self.0 == ServerState::Live as u8
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(ServerState, &str); 4] = [
            (ServerState::Live, "LIVE"),
            (ServerState::Draining, "DRAINING"),
            (ServerState::PreInitializing, "PRE_INITIALIZING"),
            (ServerState::Initializing, "INITIALIZING"),
        ];
        let name = NAMES.iter().find(|(state, _)| *state as u8 == self.0);
        f.write_str(name.map_or("PRE_INITIALIZING", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests;

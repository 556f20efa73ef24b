//! What the end-to-end tests share: a proxy to talk to, clients and upstreams that can misbehave, and a reader of what
//! they said to each other.
//!
//! Everything here blocks its thread and gives up after a deadline, so a test that fails says where it stood instead of
//! hanging. Nothing waits for a fixed time where a condition can be awaited.

pub mod authz;
pub mod bootstrap;
pub mod client;
pub mod frames;
pub mod h2_client;
pub mod h2_upstream;
pub mod message;
pub mod pki;
pub mod proxy;
pub mod tls_client;
pub mod tls_upstream;
pub mod upstream;

use std::time::{Duration, Instant};

/// How long anything may take that is bound to happen. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` yields something, or says that it never did.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// A runtime for one thread's asynchronous peers.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

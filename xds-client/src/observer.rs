//! Where the client reports what it counts. The crate keeps no statistics: whoever embeds it maps these calls to
//! counters (Envoy's names stand beside each method). All methods default to doing nothing.
//!
//! Observers are called in the middle of protocol work: they may count, and must not call the client.

use std::rc::Rc;
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

/// One subscription's statistics: the scope `cluster_manager.cds.`, `listener_manager.lds.`, `cluster.<name>.`, ...
pub trait SubscriptionObserver {
    /// `update_attempt`: a fetch was begun (at subscription, and again after each outcome).
    fn attempt(&self) {}
    /// `update_success`, `update_time` (the moment of the call), `version`, `version_text`, `update_duration`: an update
    /// was accepted.
    fn success(&self, accepted: &Accepted<'_>) {
        let _ = accepted;
    }
    /// `update_failure`: the stream ended or could not be opened, a poll failed.
    fn failure(&self) {}
    /// `update_rejected`: a response of this type was answered with a NACK.
    fn rejected(&self) {}
    /// `init_fetch_timeout`.
    fn init_fetch_timeout(&self) {}
    /// Where the stream is counted that serves this subscription alone; the aggregated one has a scope of its own.
    fn source(&self) -> Rc<dyn SourceObserver> {
        Rc::new(Unobserved)
    }
}

/// An accepted update, as statistics want it.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// `version_text`: the version of the response.
    pub version: &'a str,
    /// `update_duration`: from arrival to acceptance.
    pub duration: Duration,
}

impl Accepted<'_> {
    /// `version`: xxHash64 of the version text with seed 0, as Envoy computes it; 0 without a version.
    pub fn version_hash(&self) -> u64 {
        version_hash(self.version)
    }
}

/// The gauge `version` of a version text.
pub fn version_hash(version: &str) -> u64 {
    xxh64(version.as_bytes(), 0)
}

/// A source's statistics: the scope `control_plane.`.
pub trait SourceObserver {
    /// `connected_state`.
    fn connected(&self, connected: bool) {
        let _ = connected;
    }
    /// `pending_requests`: requests waiting to be sent.
    fn pending_requests(&self, count: usize) {
        let _ = count;
    }
    /// `rate_limit_enforced`: a request had to wait for the token bucket.
    fn rate_limit_enforced(&self) {}
    /// `identifier`: who answers.
    fn identifier(&self, identifier: &str) {
        let _ = identifier;
    }
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl SubscriptionObserver for Unobserved {}

impl SourceObserver for Unobserved {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_hash_as_envoys_do() {
        // `cluster_manager.cds.version` of an Envoy that accepted version "1", and xxHash64's own value for nothing.
        assert_eq!(version_hash("1"), 13_237_225_503_670_494_420);
        assert_eq!(version_hash(""), 17_241_709_254_077_376_921);
    }
}

//! `ssl.*` of listeners and clusters.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use stats::{GroupHandle, SharedCounter, Store};

use super::failure::Count;
use super::verify::Reason;
use crate::observe::catalogue::SecretFactoryStats;

stats::group! {
    /// `listener.<address>.ssl.` and `cluster.<name>.ssl.`
    pub struct SslStats {
        counters {
            connection_error,
            fail_verify_cert_hash,
            fail_verify_error,
            fail_verify_no_cert,
            fail_verify_san,
            handshake,
            no_certificate,
            ocsp_staple_failed,
            ocsp_staple_omitted,
            ocsp_staple_requests,
            ocsp_staple_responses,
            session_reused,
            was_key_usage_invalid,
        }
    }
}

/// What one worker counts of the handshakes of a listener or a cluster.
pub struct TlsCounters {
    stats: SslStats,
    _group: Arc<GroupHandle<SslStats>>,
    factory: SecretFactoryStats,
    _factory: Arc<GroupHandle<SecretFactoryStats>>,
    store: Arc<Store>,
    prefix: String,
    /// What was agreed on, by name: these are there from their first use on.
    named: RefCell<HashMap<String, SharedCounter>>,
}

impl TlsCounters {
    /// What a worker counts of the handshakes of a listener, by its name in statistics.
    #[must_use]
    pub fn of_listener(store: &Arc<Store>, stat_prefix: &str, worker: usize) -> Self {
        let this = Self::new(store, &format!("listener.{stat_prefix}."), "server", worker);
        // The version before, which drains, is counted on; a cluster that changes begins anew, as in Envoy.
        this.named.borrow_mut().extend(store.counters_below(&this.prefix));
        this
    }

    /// What a worker counts of the handshakes of a cluster, by its name in statistics.
    #[must_use]
    pub fn of_cluster(store: &Arc<Store>, stat_name: &str, worker: usize) -> Self {
        Self::new(store, &format!("cluster.{stat_name}."), "client", worker)
    }

    fn new(store: &Arc<Store>, owner: &str, side: &str, worker: usize) -> Self {
        let prefix = format!("{owner}ssl.");
        let group = store.group::<SslStats>(&prefix);
        let factory = store.group::<SecretFactoryStats>(&format!("{owner}{side}_ssl_socket_factory."));
        Self {
            stats: group.shard(worker),
            _group: group,
            factory: factory.shard(worker),
            _factory: factory,
            store: Arc::clone(store),
            prefix,
            named: RefCell::default(),
        }
    }

    /// A client came before the secrets of its context did.
    pub fn downstream_not_ready(&self) {
        self.factory.downstream_context_secrets_not_ready().inc();
    }

    /// A host was to be spoken to before the secrets of its context came.
    pub fn upstream_not_ready(&self) {
        self.factory.upstream_context_secrets_not_ready().inc();
    }

    /// The counters that are always there.
    #[must_use]
    pub const fn stats(&self) -> &SslStats {
        &self.stats
    }

    /// Counts under `family.name`.
    pub fn named(&self, family: &str, name: &str) {
        if name.is_empty() {
            return;
        }
        let key = format!("{family}.{name}");
        let mut named = self.named.borrow_mut();
        let counter = named.entry(key).or_insert_with_key(|key| self.store.counter(&format!("{}{key}", self.prefix)));
        counter.inc();
    }

    /// Counts a handshake that failed.
    pub fn failed(&self, count: Count) {
        match count {
            Count::Nothing => {}
            Count::ConnectionError => self.stats.connection_error().inc(),
            Count::NoCertificate => self.stats.fail_verify_no_cert().inc(),
            Count::Verify(reason) => self.refused(reason),
        }
    }

    /// Counts a certificate that was found wanting, whether it was refused for it or not.
    pub fn refused(&self, reason: Reason) {
        match reason {
            Reason::Chain => self.stats.fail_verify_error().inc(),
            Reason::San => self.stats.fail_verify_san().inc(),
            Reason::Hash => self.stats.fail_verify_cert_hash().inc(),
            Reason::Untrusted => {}
        }
    }
}

impl std::fmt::Debug for TlsCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsCounters({})", self.prefix)
    }
}

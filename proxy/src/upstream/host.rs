//! Hosts and host sets: who a cluster's requests may go to.
//!
//! * [`HostState`] is the identity of a host: its health bits and statistics. It lives as long as the address stays in
//!   its cluster, through any number of endpoint updates.
//! * [`Host`] is one immutable view of it (address, weight, locality, metadata). An update that changes an attribute
//!   makes a new view of the same state; one that changes nothing keeps the very same `Arc<Host>`.
//! * [`HostSet`] is all hosts of a cluster by priority, immutable, published to the workers as one `Arc`.
//!
//! Health bits are the only thing a worker and the control thread both write; everything else has one writer.

mod health;
mod set;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use filters::stream_info::{Address, Tlv};

pub use self::health::{Health, HealthFlags};
pub use self::set::{Derived, DropOverload, HostSet, LocalityHosts, Membership, PlacedHosts, PriorityHosts};
pub use self::stats::{Counter, Gauge, HostShard, HostStats};
use super::outlier::{Detection, Monitor};
use crate::config::cluster::EndpointCheck;

/// `filter_metadata` of an endpoint, a locality or a cluster, by filter name space.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// Where a host runs (`envoy.config.core.v3.Locality`); all empty when unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region, `eu-west-1`.
    pub region: String,
    /// Zone, `eu-west-1a`.
    pub zone: String,
    /// Part of a zone, a rack.
    pub sub_zone: String,
}

/// What an endpoint update may change about a host without it becoming another host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostAttributes {
    /// Where connections go.
    pub address: Arc<Address>,
    /// Further addresses of the same host, tried after the first (`additional_addresses`).
    pub additional_addresses: Arc<[SocketAddr]>,
    /// Name the endpoint was given or resolved from; empty if none.
    pub hostname: Arc<str>,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// Priority, 0 first.
    pub priority: u32,
    /// Endpoint metadata; `None` when it has none.
    pub metadata: Option<Arc<Metadata>>,
    /// Facts that a PROXY header tells this host, if there is one; `None` nothing out of the ordinary.
    pub tlvs: Option<Arc<[Tlv]>>,
    /// `envoy.lb` metadata says `canary: true`.
    pub canary: bool,
    /// What its endpoint says about health checks; `None` nothing out of the ordinary.
    pub check: Option<Arc<EndpointCheck>>,
}

/// One upstream host as of one endpoint update.
#[derive(Debug)]
pub struct Host {
    attributes: HostAttributes,
    state: Arc<HostState>,
}

impl Host {
    /// A view of `state` with these attributes.
    #[must_use]
    pub const fn new(attributes: HostAttributes, state: Arc<HostState>) -> Self {
        Self { attributes, state }
    }

    /// Where connections go.
    #[must_use]
    pub const fn address(&self) -> &Arc<Address> {
        &self.attributes.address
    }

    /// Name the endpoint was given or resolved from; empty if none.
    #[must_use]
    pub const fn hostname(&self) -> &Arc<str> {
        &self.attributes.hostname
    }

    /// Load-balancing weight, at least 1.
    #[must_use]
    pub const fn weight(&self) -> u32 {
        self.attributes.weight
    }

    /// Priority, 0 first.
    #[must_use]
    pub const fn priority(&self) -> u32 {
        self.attributes.priority
    }

    /// Everything an update may change.
    #[must_use]
    pub const fn attributes(&self) -> &HostAttributes {
        &self.attributes
    }

    /// What survives updates.
    #[must_use]
    pub const fn state(&self) -> &Arc<HostState> {
        &self.state
    }

    /// Where it is checked.
    #[must_use]
    pub fn check_address(&self) -> Address {
        let check = self.attributes.check.as_deref();
        let address = check.and_then(|check| check.address.as_ref()).unwrap_or(&self.attributes.address);
        match (address, check.map_or(0, |check| check.port)) {
            (Address::Ip(ip), port) if port != 0 => Address::Ip(SocketAddr::new(ip.ip(), port)),
            (address, _) => address.clone(),
        }
    }

    /// Whether it is left alone by health checks.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.attributes.check.as_ref().is_some_and(|check| check.disabled)
    }

    /// Process-wide number of the host's state: the key of a connection pool.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.state.id
    }

    /// Whether it may be chosen, as of now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.flags().health()
    }

    /// The statistics shard of worker `worker`; only that worker writes it.
    #[must_use]
    pub fn shard(&self, worker: usize) -> &HostShard {
        self.state.shard(worker)
    }
}

/// The identity of a host: health, load and statistics.
#[derive(Debug)]
pub struct HostState {
    id: u64,
    flags: AtomicU32,
    /// Requests in flight over all workers. Kept only for clusters whose policy reads it.
    active_requests: AtomicU32,
    /// When it came, or last passed a health check it had failed: milliseconds after [`EPOCH`].
    healthy_since: AtomicU64,
    /// Chosen since the last sweep of an `ORIGINAL_DST` cluster.
    used: AtomicBool,
    /// What outlier detection knows of it; set by control where there is any.
    monitor: OnceLock<Box<Monitor>>,
    /// The cluster that checks its health, if any does.
    checked_by: OnceLock<Arc<str>>,
    /// One per worker and a last one for the control thread, allocated on first use.
    shards: Box<[OnceLock<Box<HostShard>>]>,
}

impl HostState {
    /// A new host, healthy and unused, in a process with this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            flags: AtomicU32::new(0),
            active_requests: AtomicU32::new(0),
            healthy_since: AtomicU64::new(millis_after_epoch(Instant::now())),
            used: AtomicBool::new(true),
            monitor: OnceLock::new(),
            checked_by: OnceLock::new(),
            shards: (0..=workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Process-wide number, never reused.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The health bits as of now.
    #[must_use]
    pub fn flags(&self) -> HealthFlags {
        HealthFlags::from_bits(self.flags.load(Relaxed))
    }

    /// Sets `set`, then clears `clear`; returns the bits before.
    pub fn change_flags(&self, set: HealthFlags, clear: HealthFlags) -> HealthFlags {
        let change = |bits| Some((bits | set.bits()) & !clear.bits());
        // The closure never returns `None`, so both arms hold the previous bits.
        let (Ok(before) | Err(before)) = self.flags.fetch_update(Relaxed, Relaxed, change);
        HealthFlags::from_bits(before)
    }

    /// What outlier detection knows of it; `None` without outlier detection.
    #[must_use]
    pub fn monitor(&self) -> Option<&Monitor> {
        self.monitor.get().map(|monitor| &**monitor)
    }

    /// Outliers are detected from now on, if they are not already.
    pub fn watch(&self, detection: &Arc<Detection>) {
        self.monitor.get_or_init(|| Box::new(Monitor::new(Arc::clone(detection), self.shards.len() - 1)));
    }

    /// The cluster that checks its health; `None` if nobody does.
    #[must_use]
    pub fn checked_by(&self) -> Option<&Arc<str>> {
        self.checked_by.get()
    }

    /// This cluster checks its health from now on.
    pub fn check_by(&self, cluster: &Arc<str>) {
        self.checked_by.get_or_init(|| Arc::clone(cluster));
    }

    /// Requests in flight over all workers; 0 unless the cluster's policy reads it.
    #[must_use]
    pub fn active_requests(&self) -> u32 {
        self.active_requests.load(Relaxed)
    }

    /// Counts a request until the guard is dropped. Only for clusters whose policy reads the count.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.active_requests.fetch_add(1, Relaxed);
        ActiveRequest(self.clone())
    }

    /// When it came, or last passed a health check it had failed: where its slow start begins.
    #[must_use]
    pub fn healthy_since(&self) -> Instant {
        *EPOCH + Duration::from_millis(self.healthy_since.load(Relaxed))
    }

    /// A health check it had failed passes as of `now`.
    pub fn mark_healthy(&self, now: Instant) {
        self.healthy_since.store(millis_after_epoch(now), Relaxed);
    }

    /// Marks it as used, so that the next sweep of an `ORIGINAL_DST` cluster keeps it.
    pub fn mark_used(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    /// The statistics shard of worker `worker`; a number past the workers is the control thread's.
    #[must_use]
    pub fn shard(&self, worker: usize) -> &HostShard {
        let last = self.shards.len() - 1;
        self.shards[worker.min(last)].get_or_init(Box::default)
    }

    /// The sum over all shards.
    #[must_use]
    pub fn stats(&self) -> HostStats {
        self.shards.iter().filter_map(OnceLock::get).map(|shard| shard.read()).sum()
    }
}

/// What host times are counted from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn millis_after_epoch(now: Instant) -> u64 {
    let epoch = *EPOCH;
    u64::try_from(now.saturating_duration_since(epoch).as_millis()).unwrap_or(u64::MAX)
}

/// A request in flight on a host; dropping it ends the count.
#[derive(Debug)]
pub struct ActiveRequest(Arc<HostState>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active_requests.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! `ORIGINAL_DST`: the request's own destination is the host.
//!
//! A worker makes the host for a destination it has not seen, uses it at once, and hands it to the control thread,
//! which publishes it to all: from then on every worker uses the published one, whose statistics and pools are
//! one. Control sweeps hosts that nobody used for a `cleanup_interval`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use filters::stream_info::Address;

use crate::upstream::host::{Host, HostAttributes, HostSet, HostState};

/// A worker's hosts of one `ORIGINAL_DST` cluster, by destination.
#[derive(Debug, Default)]
pub struct OriginalDstHosts {
    workers: usize,
    hosts: HashMap<SocketAddr, Known>,
    created: Vec<Arc<Host>>,
}

#[derive(Debug)]
struct Known {
    host: Arc<Host>,
    /// Control has published it (or another worker's of the same destination) once.
    published: bool,
}

impl OriginalDstHosts {
    /// No hosts yet, in a process with this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers, ..Self::default() }
    }

    /// The host for `destination`, made if there is none.
    pub fn pick(&mut self, destination: SocketAddr) -> Arc<Host> {
        let (workers, created) = (self.workers, &mut self.created);
        let known = self.hosts.entry(destination).or_insert_with(|| {
            let host = new_host(destination, workers);
            created.push(host.clone());
            Known { host, published: false }
        });
        known.host.state().mark_used();
        known.host.clone()
    }

    /// Control published these hosts: they replace this worker's own, and hosts that were published and no longer are
    /// have been swept.
    pub fn published(&mut self, set: &HostSet) {
        let published: HashMap<SocketAddr, &Arc<Host>> =
            set.hosts().filter_map(|host| Some((host.address().ip()?, host))).collect();
        self.hosts.retain(|destination, known| !known.published || published.contains_key(destination));
        for (destination, host) in published {
            self.hosts.insert(destination, Known { host: host.clone(), published: true });
        }
    }

    /// The hosts made since the last call.
    pub fn take_created(&mut self) -> Vec<Arc<Host>> {
        std::mem::take(&mut self.created)
    }
}

fn new_host(destination: SocketAddr, workers: usize) -> Arc<Host> {
    let attributes = HostAttributes {
        address: Arc::new(Address::Ip(destination)),
        additional_addresses: Arc::default(),
        hostname: destination.to_string().into(),
        weight: 1,
        locality: Arc::default(),
        priority: 0,
        metadata: None,
        tlvs: None,
        canary: false,
        check: None,
    };
    Arc::new(Host::new(attributes, Arc::new(HostState::new(workers))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_worker_makes_the_host_and_the_published_one_replaces_every_other() {
        let destination: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let (mut one, mut two) = (OriginalDstHosts::new(2), OriginalDstHosts::new(2));
        let (first, second) = (one.pick(destination), two.pick(destination));
        assert_ne!(first.id(), second.id());
        assert_eq!(one.take_created().len(), 1);
        assert_eq!(one.take_created().len(), 0, "handed over once");

        // A set from before control heard of it leaves it alone.
        two.published(&HostSet::empty());
        assert_eq!(two.pick(destination).id(), second.id());

        let set = HostSet::single(vec![first.clone()]);
        one.published(&set);
        two.published(&set);
        assert_eq!(one.pick(destination).id(), first.id());
        assert_eq!(two.pick(destination).id(), first.id());

        // Swept: a new one is made.
        two.published(&HostSet::empty());
        assert_ne!(two.pick(destination).id(), first.id());
    }

    #[test]
    fn a_pick_marks_the_host_used() {
        let mut hosts = OriginalDstHosts::new(1);
        let host = hosts.pick("10.0.0.1:80".parse().unwrap());
        assert!(host.state().take_used());
        assert!(!host.state().take_used());
        hosts.pick("10.0.0.1:80".parse().unwrap());
        assert!(host.state().take_used());
    }
}

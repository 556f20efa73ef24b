//! The hosts of a cluster over time: an assignment in, a host set out, with hosts keeping their identity.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use filters::stream_info::Address;

use crate::config::address::EndpointAddress;
use crate::config::endpoint::{Endpoint, LoadAssignment};
use crate::upstream::host::{
    Derived, HealthFlags, Host, HostAttributes, HostSet, HostState, Locality, PlacedHosts, PriorityHosts,
};

/// The hosts of one version of a cluster.
#[derive(Debug)]
pub(super) struct Members {
    workers: usize,
    /// What is done about hosts that health checks are to be asked about.
    care: Care,
    hosts: HashMap<HostKey, Arc<Host>>,
    set: Arc<HostSet>,
}

/// How active health checking changes who comes and goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Care {
    /// Bits of hosts that just came.
    pub(super) newcomers: HealthFlags,
    /// Hosts that are well stay although their endpoints are gone.
    pub(super) keeps_healthy: bool,
}

/// What makes a host the same host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum HostKey {
    /// Its address.
    Address(Address),
    /// Its address and its place in an assignment that cannot change.
    Placed(Address, (usize, usize)),
    /// The one host of a `LOGICAL_DNS` cluster, whatever its address.
    Logical,
    /// Its number: another one has its address now.
    Former(u64),
}

/// How the hosts of a cluster are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// By address: endpoints with the same address are one host, the first of them (EDS).
    Address,
    /// By endpoint and address: the same address twice is two hosts (`STATIC`, `STRICT_DNS`).
    Endpoint,
    /// There is one host, whatever its address (`LOGICAL_DNS`).
    Single,
}

impl Identity {
    fn key(self, address: &Address, place: (usize, usize)) -> HostKey {
        match self {
            Self::Address => HostKey::Address(address.clone()),
            Self::Endpoint => HostKey::Placed(address.clone(), place),
            Self::Single => HostKey::Logical,
        }
    }
}

/// What an update changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Health, by a check or by answers: may be published with the next such change.
    Health,
    /// An assignment has other weights, metadata or the like for the same hosts.
    Attributes,
    /// Hosts came or went.
    Membership,
}

/// The addresses of the names of an assignment, by locality and endpoint; `None` where the name is not known.
pub(super) type Names = HashMap<(usize, usize), Vec<IpAddr>>;

impl Members {
    pub(super) fn new(workers: usize, care: Care) -> Self {
        Self { workers, care, hosts: HashMap::new(), set: Arc::new(HostSet::empty()) }
    }

    pub(super) const fn set(&self) -> &Arc<HostSet> {
        &self.set
    }

    /// The hosts are what `assignment` says, names standing for `names`.
    pub(super) fn assign(&mut self, assignment: &LoadAssignment, names: &Names, identity: Identity) -> Change {
        let mut next = Next::new(assignment);
        for (l, locality) in assignment.localities.iter().enumerate() {
            for (e, endpoint) in locality.endpoints.iter().enumerate() {
                let place = (&locality.locality, locality.weight, locality.priority);
                match &endpoint.address {
                    EndpointAddress::Resolved(address) => {
                        let key = identity.key(address, (l, e));
                        let additional = endpoint.additional_addresses.clone();
                        let hostname = endpoint.hostname.clone();
                        self.member(&mut next, key, address.clone(), additional, hostname, endpoint, place);
                    }
                    EndpointAddress::Name { host, port } => {
                        let addresses = names.get(&(l, e)).map_or(&[][..], Vec::as_slice);
                        let with_port = |ip: &IpAddr| std::net::SocketAddr::new(*ip, *port);
                        let hostname = if endpoint.hostname.is_empty() { host } else { &endpoint.hostname };
                        if identity == Identity::Single {
                            let Some((first, rest)) = addresses.split_first() else { continue };
                            let rest = rest.iter().map(with_port).collect();
                            let address = Address::Ip(with_port(first));
                            self.member(&mut next, HostKey::Logical, address, rest, hostname.clone(), endpoint, place);
                            continue;
                        }
                        for address in addresses.iter().map(with_port).map(Address::Ip) {
                            let key = identity.key(&address, (l, e));
                            let additional = endpoint.additional_addresses.clone();
                            self.member(&mut next, key, address, additional, hostname.clone(), endpoint, place);
                        }
                    }
                }
            }
        }
        if self.care.keeps_healthy {
            self.keep_healthy(&mut next);
        }
        let removed = self.hosts.iter().any(|(key, host)| next.hosts.get(key).is_none_or(|now| now.id() != host.id()));
        let set = next.set(assignment);
        let same_shape = self.set.overprovisioning_factor == set.overprovisioning_factor
            && self.set.weighted_priority_health == set.weighted_priority_health
            && self.set.drop_overload == set.drop_overload
            && same_places(&self.set, &set);
        let change = match (next.added || removed, next.changed || !same_shape) {
            (true, _) => Change::Membership,
            (false, true) => Change::Attributes,
            (false, false) => Change::None,
        };
        self.hosts = next.hosts;
        if change != Change::None {
            self.set = Arc::new(set);
        }
        change
    }

    /// One host more, of an `ORIGINAL_DST` cluster; false if its address is known.
    pub(super) fn add(&mut self, host: Arc<Host>) -> bool {
        let key = HostKey::Address((**host.address()).clone());
        if self.hosts.contains_key(&key) {
            return false;
        }
        self.hosts.insert(key, host);
        self.reset();
        true
    }

    /// Removes the hosts nobody used since the last call; false if there are none.
    pub(super) fn sweep(&mut self) -> bool {
        let before = self.hosts.len();
        self.hosts.retain(|_, host| host.state().take_used());
        let swept = self.hosts.len() != before;
        if swept {
            self.reset();
        }
        swept
    }

    /// Hosts whose endpoints are gone, or are checked elsewhere, stay for as long as their health checks pass.
    fn keep_healthy(&self, next: &mut Next) {
        let keys: HashMap<u64, &HostKey> = self.hosts.iter().map(|(key, host)| (host.id(), key)).collect();
        // In the order they had: those of one place stay in it.
        for (priority, level) in self.set.priorities.iter().enumerate() {
            for place in &level.localities {
                for host in place.hosts.iter() {
                    let flags = host.state().flags();
                    let failed = HealthFlags::FAILED_ACTIVE_HC | HealthFlags::FAILED_EDS_HEALTH;
                    let Some(&key) = keys.get(&host.id()) else { continue };
                    let key = match next.hosts.get(key) {
                        None => key.clone(),
                        // It is checked elsewhere now: the one that is not known there yet does not take its place.
                        Some(now) if now.id() != host.id() && !now.is_unchecked() => HostKey::Former(host.id()),
                        Some(_) => continue,
                    };
                    if host.is_unchecked() || flags.without(failed) != flags {
                        continue;
                    }
                    next.changed |= !flags.contains(HealthFlags::PENDING_DYNAMIC_REMOVAL);
                    host.state().change_flags(HealthFlags::PENDING_DYNAMIC_REMOVAL, HealthFlags::NONE);
                    next.keep(&place.locality, place.weight, priority, host);
                    next.hosts.insert(key, host.clone());
                }
            }
        }
    }

    /// One host less, whose endpoint was gone before; false if there is none such.
    pub(super) fn leave(&mut self, id: u64) -> bool {
        let before = self.hosts.len();
        self.hosts.retain(|_, host| host.id() != id);
        if self.hosts.len() == before {
            return false;
        }
        self.set = Arc::new(self.set.without(id));
        true
    }

    /// Divides the hosts by their health as of now.
    pub(super) fn rebuild(&mut self) {
        self.set = Arc::new(self.set.rebuilt());
    }

    fn reset(&mut self) {
        let mut hosts: Vec<_> = self.hosts.values().cloned().collect();
        hosts.sort_by_key(|host| host.id());
        self.set = Arc::new(HostSet::single(hosts));
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a host come from three places")]
    fn member(
        &self,
        next: &mut Next,
        key: HostKey,
        address: Address,
        additional_addresses: Arc<[std::net::SocketAddr]>,
        hostname: Arc<str>,
        endpoint: &Endpoint,
        (locality, locality_weight, priority): (&Arc<Locality>, u32, u32),
    ) {
        // The first of several endpoints with one address counts.
        if next.hosts.contains_key(&key) {
            return;
        }
        // A host that is checked elsewhere, or begins or ceases to be checked, is another one: what was found out about the
        // former says nothing about it.
        let same_check = |former: &&Arc<Host>| match (&former.attributes().check, &endpoint.check) {
            (Some(a), Some(b)) => (&a.address, a.port, a.disabled) == (&b.address, b.port, b.disabled),
            (None, None) => true,
            (Some(one), None) | (None, Some(one)) => one.address.is_none() && one.port == 0 && !one.disabled,
        };
        let former = self.hosts.get(&key).filter(same_check);
        let attributes = HostAttributes {
            address: Arc::new(address),
            additional_addresses,
            hostname,
            weight: endpoint.weight,
            locality: locality.clone(),
            priority,
            metadata: endpoint.metadata.clone(),
            tlvs: endpoint.tlvs.clone(),
            canary: endpoint.canary,
            check: endpoint.check.clone(),
        };
        let host = match former {
            Some(host) if *host.attributes() == attributes => host.clone(),
            Some(host) => {
                next.changed = true;
                Arc::new(Host::new(attributes, host.state().clone()))
            }
            None => {
                next.added = true;
                let host = Host::new(attributes, Arc::new(HostState::new(self.workers)));
                if !host.is_unchecked() {
                    host.state().change_flags(self.care.newcomers, HealthFlags::NONE);
                }
                Arc::new(host)
            }
        };
        let clear = (HealthFlags::ALL_EDS | HealthFlags::PENDING_DYNAMIC_REMOVAL).without(endpoint.health);
        let before = host.state().change_flags(endpoint.health, clear);
        next.changed |= before != host.state().flags();
        next.place(locality, locality_weight, priority, &host);
        next.hosts.insert(key, host);
    }
}

/// A priority in the making: its hosts in the order of the assignment, and by place.
#[derive(Default)]
struct NextLevel {
    hosts: Vec<Arc<Host>>,
    places: Vec<PlacedHosts>,
}

/// A host set in the making.
struct Next {
    hosts: HashMap<HostKey, Arc<Host>>,
    priorities: Vec<NextLevel>,
    added: bool,
    changed: bool,
}

impl Next {
    fn new(assignment: &LoadAssignment) -> Self {
        let last = assignment.localities.iter().map(|locality| locality.priority).max().unwrap_or(0);
        // Priorities between are there too, empty; parsing bounds them to 128.
        Self {
            hosts: HashMap::new(),
            priorities: (0..=last).map(|_| NextLevel::default()).collect(),
            added: false,
            changed: false,
        }
    }

    fn place(&mut self, locality: &Arc<Locality>, weight: u32, priority: u32, host: &Arc<Host>) {
        let Some(NextLevel { hosts, places }) = self.priorities.get_mut(priority as usize) else { return };
        hosts.push(host.clone());
        match places.iter_mut().find(|(known, ..)| known == locality) {
            Some((_, known_weight, hosts)) => {
                *known_weight = weight;
                hosts.push(host.clone());
            }
            None => places.push((locality.clone(), weight, vec![host.clone()])),
        }
    }

    /// A host of an earlier assignment, whose place this one need not know.
    fn keep(&mut self, locality: &Arc<Locality>, weight: u32, priority: usize, host: &Arc<Host>) {
        while self.priorities.len() <= priority {
            self.priorities.push(NextLevel::default());
        }
        let NextLevel { hosts, places } = &mut self.priorities[priority];
        hosts.push(host.clone());
        match places.iter_mut().find(|(known, ..)| known == locality) {
            Some((_, _, hosts)) => hosts.push(host.clone()),
            None => places.push((locality.clone(), weight, vec![host.clone()])),
        }
    }

    fn set(&mut self, assignment: &LoadAssignment) -> HostSet {
        let priorities = std::mem::take(&mut self.priorities).into_iter().map(|mut level| {
            // Localities stand in the order of their names, as in Envoy: turns among them begin with the first.
            level.places.sort_by(|(a, ..), (b, ..)| a.cmp(b));
            level
        });
        HostSet {
            priorities: priorities.map(|NextLevel { hosts, places }| PriorityHosts::ordered(hosts, places)).collect(),
            derived: Derived::default(),
            overprovisioning_factor: assignment.overprovisioning_factor,
            weighted_priority_health: assignment.weighted_priority_health,
            drop_overload: assignment.drop_overload.clone(),
        }
    }
}

/// Whether both sets have the same localities with the same weights.
fn same_places(a: &HostSet, b: &HostSet) -> bool {
    fn places(set: &HostSet) -> impl Iterator<Item = (usize, &Arc<Locality>, u32)> {
        let priorities = set.priorities.iter().enumerate();
        priorities.flat_map(|(priority, level)| level.localities.iter().map(move |l| (priority, &l.locality, l.weight)))
    }
    a.priorities.len() == b.priorities.len() && places(a).eq(places(b))
}

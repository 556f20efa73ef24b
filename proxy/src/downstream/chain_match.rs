//! Which filter chain serves a connection.
//!
//! Envoy's order, one criterion after another: destination port, destination address, server name, transport protocol,
//! application protocols, the socket's own peer, local or external peer, the peer's address, the peer's port. At each
//! step the most specific value some chain asks for wins and the others are out of the game for good: when a later step
//! fails there is no way back, only the default chain.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use filters::stream_info::Address;

use crate::config::filter_chain::FilterChain;
use crate::config::filter_chain::matches::{ChainMatch, Cidr, SourceType};

/// The transport protocol of a connection nothing was detected on.
pub const RAW_BUFFER: &str = "raw_buffer";

/// What is known about a connection when its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// The local address as configuration sees it.
    pub local: &'a Address,
    /// The peer as configuration sees it.
    pub remote: &'a Address,
    /// The socket's own peer.
    pub direct_remote: &'a Address,
    /// Server name of the TLS client hello, lower case; empty when none was seen.
    pub server_name: &'a str,
    /// `tls` or [`RAW_BUFFER`].
    pub transport_protocol: &'a str,
    /// What the client offers to speak, most wanted first.
    pub application_protocols: &'a [Box<[u8]>],
}

/// The chains of a listener.
#[derive(Debug)]
pub struct ChainIndex {
    chains: Vec<Arc<FilterChain>>,
    default: Option<Arc<FilterChain>>,
    root: Root,
}

/// Two chains would match the same connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("multiple filter chains with overlapping matching rules are defined")]
pub struct Overlap;

impl ChainIndex {
    /// Indexes `chains` by what they match; `default` serves what none does.
    ///
    /// # Errors
    /// When two chains, or one chain twice, would match the same connections.
    pub fn build(
        chains: Vec<(ChainMatch, Arc<FilterChain>)>,
        default: Option<Arc<FilterChain>>,
    ) -> Result<Self, Overlap> {
        let mut root = match chains.as_slice() {
            [] => Root::Never,
            [(criteria, _)] if *criteria == ChainMatch::default() => Root::Always,
            _ => Root::Ports(Exact::default()),
        };
        if let Root::Ports(ports) = &mut root {
            for (index, (criteria, _)) in chains.iter().enumerate() {
                ports.insert(criteria, index)?;
            }
        }
        Ok(Self { chains: chains.into_iter().map(|(_, chain)| chain).collect(), default, root })
    }

    /// The chain that serves a connection, the default chain if none matches; `None` when there is no default either.
    #[must_use]
    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let index = match &self.root {
            Root::Always => Some(0),
            Root::Never => None,
            Root::Ports(ports) => ports.find(facts),
        };
        index.and_then(|index| self.chains.get(index)).or(self.default.as_ref())
    }

    /// Every chain, in the order of configuration, the default one last.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter().chain(&self.default)
    }

    /// The chain that serves what no other does.
    #[must_use]
    pub const fn default_chain(&self) -> Option<&Arc<FilterChain>> {
        self.default.as_ref()
    }

    /// The same index with each chain replaced by what `replace` answers for it, so that a new version of a listener
    /// can keep the chains that did not change.
    #[must_use]
    pub fn map(self, mut replace: impl FnMut(Arc<FilterChain>) -> Arc<FilterChain>) -> Self {
        Self {
            chains: self.chains.into_iter().map(&mut replace).collect(),
            default: self.default.map(replace),
            root: self.root,
        }
    }
}

/// The two commonest listeners are decided without looking at anything.
#[derive(Debug)]
enum Root {
    Never,
    Always,
    Ports(DestinationPorts),
}

type DestinationPorts = Exact<u16, DestinationIps>;
type DestinationIps = Prefixes<ServerNames>;
type ServerNames = Exact<Box<str>, TransportProtocols>;
type TransportProtocols = Exact<Box<str>, ApplicationProtocols>;
type ApplicationProtocols = Exact<Box<[u8]>, DirectSources>;
type DirectSources = Prefixes<SourceTypes>;
type Sources = Prefixes<SourcePorts>;
type SourcePorts = Exact<u16, Leaf>;

/// One step of the match: what follows it, and how a chain's demands are added.
trait Step: Default {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap>;

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize>;
}

/// A step on a value that is equal or not; `any` serves chains that do not ask.
#[derive(Debug)]
struct Exact<K, V> {
    exact: HashMap<K, V>,
    any: Option<Box<V>>,
}

/// A step on an address: the longest prefix wins.
#[derive(Debug)]
struct Prefixes<V> {
    v4: Lengths<u32, V>,
    v6: Lengths<u128, V>,
    any: Option<Box<V>>,
}

/// The prefixes of one IP version by length, longest first. Configurations have few lengths, so this probes few maps.
#[derive(Debug)]
struct Lengths<B, V>(Vec<(u8, HashMap<B, V>)>);

/// The step on local or external peers.
#[derive(Debug, Default)]
struct SourceTypes {
    any: Option<Box<Sources>>,
    local: Option<Box<Sources>>,
    external: Option<Box<Sources>>,
}

/// The chain reached.
#[derive(Debug, Default)]
struct Leaf(Option<usize>);

// Steps in order.

impl Step for DestinationPorts {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        self.entry(criteria.destination_port).insert(criteria, chain)
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.get(facts.local.ip().map(|ip| ip.port()).as_ref())?.find(facts)
    }
}

impl Step for DestinationIps {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        self.each(&criteria.prefix_ranges, |next| next.insert(criteria, chain))
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.get(address(facts.local))?.find(facts)
    }
}

impl Step for ServerNames {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        each(&criteria.server_names, |name| {
            // An empty name asks nothing, as in Envoy.
            let name = name.filter(|name| !name.is_empty());
            self.entry(name.map(|name| name.as_str().into())).insert(criteria, chain)
        })
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let name = facts.server_name;
        if !self.exact.is_empty() && !name.is_empty() {
            if let Some(next) = self.exact.get(name) {
                return next.find(facts);
            }
            // `.example.com`, then `.com`; a leading or final dot starts no suffix.
            for (dot, _) in name.match_indices('.').filter(|(dot, _)| (1..name.len() - 1).contains(dot)) {
                if let Some(next) = name.get(dot..).and_then(|suffix| self.exact.get(suffix)) {
                    return next.find(facts);
                }
            }
        }
        self.any.as_ref()?.find(facts)
    }
}

impl Step for TransportProtocols {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        let protocol = &criteria.transport_protocol;
        self.entry((!protocol.is_empty()).then(|| protocol.as_str().into())).insert(criteria, chain)
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.get(Some(facts.transport_protocol))?.find(facts)
    }
}

impl Step for ApplicationProtocols {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        each(&criteria.application_protocols, |protocol| {
            let protocol = protocol.filter(|protocol| !protocol.is_empty());
            self.entry(protocol.map(|protocol| protocol.as_bytes().into())).insert(criteria, chain)
        })
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let offered = facts.application_protocols.iter().find_map(|protocol| self.exact.get(protocol));
        offered.or(self.any.as_deref())?.find(facts)
    }
}

impl Step for DirectSources {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        self.each(&criteria.direct_source_prefix_ranges, |next| next.insert(criteria, chain))
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.get(address(facts.direct_remote))?.find(facts)
    }
}

impl Step for SourceTypes {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        let slot = match criteria.source_type {
            SourceType::Any => &mut self.any,
            SourceType::SameIpOrLoopback => &mut self.local,
            SourceType::External => &mut self.external,
        };
        slot.get_or_insert_default().insert(criteria, chain)
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let typed = match (&self.local, &self.external) {
            (None, None) => None,
            (local, external) => if is_same_ip_or_loopback(facts) { local } else { external }.as_ref(),
        };
        typed.or(self.any.as_ref())?.find(facts)
    }
}

impl Step for Sources {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        self.each(&criteria.source_prefix_ranges, |next| next.insert(criteria, chain))
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.get(address(facts.remote))?.find(facts)
    }
}

impl Step for SourcePorts {
    fn insert(&mut self, criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        each(&criteria.source_ports, |port| self.entry(port.copied()).insert(criteria, chain))
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.get(facts.remote.ip().map(|ip| ip.port()).as_ref())?.find(facts)
    }
}

impl Step for Leaf {
    fn insert(&mut self, _criteria: &ChainMatch, chain: usize) -> Result<(), Overlap> {
        if self.0.is_some() {
            return Err(Overlap);
        }
        self.0 = Some(chain);
        Ok(())
    }

    fn find(&self, _facts: &ConnectionFacts<'_>) -> Option<usize> {
        self.0
    }
}

// What the steps are made of.

impl<K: Hash + Eq, V: Default> Exact<K, V> {
    fn entry(&mut self, key: Option<K>) -> &mut V {
        match key {
            Some(key) => self.exact.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    fn get<Q>(&self, key: Option<&Q>) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // Most steps ask nothing of most connections: no hashing then.
        let exact = key.filter(|_| !self.exact.is_empty()).and_then(|key| self.exact.get(key));
        exact.or(self.any.as_deref())
    }
}

impl<K, V> Default for Exact<K, V> {
    fn default() -> Self {
        Self { exact: HashMap::new(), any: None }
    }
}

impl<V: Default> Prefixes<V> {
    fn each(&mut self, ranges: &[Cidr], mut insert: impl FnMut(&mut V) -> Result<(), Overlap>) -> Result<(), Overlap> {
        if ranges.is_empty() {
            return insert(self.any.get_or_insert_default());
        }
        ranges.iter().try_for_each(|range| {
            insert(match range.address() {
                IpAddr::V4(address) => self.v4.entry(range.length(), address.to_bits()),
                IpAddr::V6(address) => self.v6.entry(range.length(), address.to_bits()),
            })
        })
    }

    fn get(&self, address: IpAddr) -> Option<&V> {
        let specific = match address {
            IpAddr::V4(address) => self.v4.get(|length| mask_v4(address.to_bits(), length)),
            IpAddr::V6(address) => self.v6.get(|length| mask_v6(address.to_bits(), length)),
        };
        specific.or(self.any.as_deref())
    }
}

impl<V> Default for Prefixes<V> {
    fn default() -> Self {
        Self { v4: Lengths(Vec::new()), v6: Lengths(Vec::new()), any: None }
    }
}

impl<B: Hash + Eq, V: Default> Lengths<B, V> {
    fn entry(&mut self, length: u8, bits: B) -> &mut V {
        let place = self.0.partition_point(|(other, _)| *other > length);
        if self.0.get(place).is_none_or(|(other, _)| *other != length) {
            self.0.insert(place, (length, HashMap::new()));
        }
        // `place` is in range: the entry was there or has just been inserted there.
        match self.0[place].1.entry(bits) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(V::default()),
        }
    }

    fn get(&self, masked: impl Fn(u8) -> B) -> Option<&V> {
        self.0.iter().find_map(|(length, prefixes)| prefixes.get(&masked(*length)))
    }
}

/// Calls `insert` for each item, or once with `None` when there is none.
fn each<T>(items: &[T], mut insert: impl FnMut(Option<&T>) -> Result<(), Overlap>) -> Result<(), Overlap> {
    if items.is_empty() { insert(None) } else { items.iter().try_for_each(|item| insert(Some(item))) }
}

/// The address ranges are compared with. A Unix socket has none: it gets one that only ranges matching everything hold.
fn address(address: &Address) -> IpAddr {
    address.ip().map_or(IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1)), |ip| ip.ip())
}

fn is_same_ip_or_loopback(facts: &ConnectionFacts<'_>) -> bool {
    match (facts.remote.ip(), facts.local.ip()) {
        (None, _) => matches!(facts.remote, Address::Pipe(_)),
        (Some(remote), local) => remote.ip().is_loopback() || local.is_some_and(|local| local.ip() == remote.ip()),
    }
}

fn mask_v4(bits: u32, length: u8) -> u32 {
    bits & u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(length))).unwrap_or(0)
}

fn mask_v6(bits: u128, length: u8) -> u128 {
    bits & u128::MAX.checked_shl(u32::from(128_u8.saturating_sub(length))).unwrap_or(0)
}

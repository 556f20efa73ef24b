//! Consistent hashing: the ring and the Maglev table.
//!
//! A [`HashTable`] is built once per priority of a published host set and shared by all workers. Host keys, hashes, sizes and
//! the order of construction are Envoy's, so that the same key finds the same host through either proxy.

mod bounded;
mod murmur;

use std::cmp::Ordering;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::priority::PriorityLoads;
use crate::config::cluster::{HashFunction, LbConfig, LbPolicy, Maglev, RingHash};
use crate::upstream::host::{Host, HostSet, LocalityHosts, PriorityHosts};

/// The hosts of one priority, laid out for lookups by hash.
#[derive(Debug)]
pub struct HashTable {
    /// Each with its share of the priority, in the order of the assignment.
    hosts: Box<[(Arc<Host>, f64)]>,
    slots: Slots,
    spread: Spread,
    /// Percent of the average load that a host may have; 0 for any.
    balance_factor: u32,
    /// Built over all hosts because too few were available.
    in_panic: bool,
}

/// How evenly the hosts are spread (`ring_hash_lb.*`, `maglev_lb.*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// Entries of the table.
    pub size: u64,
    /// Entries of the host with the fewest.
    pub min_per_host: u64,
    /// Entries of the host with the most.
    pub max_per_host: u64,
}

/// Which host stands where.
#[derive(Debug)]
enum Slots {
    /// Points on a ring in order, and the number of the host at each.
    Ring { points: Box<[u64]>, hosts: Indexes },
    /// The host's number for each remainder.
    Maglev(Indexes),
}

/// Host numbers in as few bytes as the number of hosts allows.
#[derive(Debug)]
enum Indexes {
    Small(Box<[u8]>),
    Medium(Box<[u16]>),
    Large(Box<[u32]>),
}

/// A table for each priority of a set; none unless the policy hashes.
#[must_use]
pub fn tables(hosts: &HostSet, config: &LbConfig) -> Box<[HashTable]> {
    let loads = PriorityLoads::new(hosts, config);
    let levels = hosts.priorities.iter().enumerate();
    levels.filter_map(|(priority, level)| HashTable::build(level, loads.in_panic(priority), config)).collect()
}

impl HashTable {
    /// A table over the hosts of a priority by their health as it was divided; `in_panic` takes all of them. `None` when the
    /// policy does not hash.
    #[must_use]
    pub fn build(level: &PriorityHosts, in_panic: bool, config: &LbConfig) -> Option<Self> {
        let hosts = || normalized(level, in_panic, config.locality_weighted);
        let (hashing, hosts, (slots, spread)) = match &config.policy {
            LbPolicy::RingHash(policy) => {
                let hosts = hosts();
                let built = ring(&hosts, policy);
                (&policy.hashing, hosts, built)
            }
            LbPolicy::Maglev(policy) => {
                let hosts = hosts();
                let built = maglev(&hosts, policy);
                (&policy.hashing, hosts, built)
            }
            LbPolicy::RoundRobin | LbPolicy::LeastRequest(_) | LbPolicy::Random | LbPolicy::ClusterProvided => {
                return None;
            }
        };
        Some(Self { hosts, slots, spread, balance_factor: hashing.balance_factor, in_panic })
    }

    /// Whether it was built over all hosts, whatever their health.
    #[must_use]
    pub const fn in_panic(&self) -> bool {
        self.in_panic
    }

    /// How evenly the hosts are spread; `None` without hosts.
    #[must_use]
    pub fn spread(&self) -> Option<Spread> {
        (!self.hosts.is_empty()).then_some(self.spread)
    }

    /// The host for a hash. `attempt` is how many hosts were found for it before and not wanted. `overall_active` counts the
    /// cluster's requests in flight, for bounded loads.
    #[must_use]
    pub fn choose(&self, hash: u64, attempt: u32, overall_active: impl FnOnce() -> u32) -> Option<&Arc<Host>> {
        let chosen = self.index(hash, attempt)?;
        let chosen = match self.balance_factor {
            0 => chosen,
            factor => bounded::choose(&self.hosts, chosen, hash, factor, overall_active()),
        };
        self.hosts.get(chosen).map(|(host, _)| host)
    }

    /// The next host for a hash that `eligible` lets through: what a table without the others would have come to, or near.
    #[must_use]
    pub fn choose_where(&self, hash: u64, eligible: impl Fn(&Host) -> bool) -> Option<&Arc<Host>> {
        let attempts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX).saturating_mul(4);
        let found = (1..=attempts).filter_map(|attempt| self.index(hash, attempt));
        let mut found = found.filter_map(|index| self.hosts.get(index));
        let host = found.find(|(host, _)| eligible(host));
        let any = || {
            let start = usize::try_from(hash % (self.hosts.len().max(1) as u64)).unwrap_or(0);
            let (before, after) = self.hosts.split_at_checked(start)?;
            after.iter().chain(before).find(|(host, _)| eligible(host))
        };
        host.or_else(any).map(|(host, _)| host)
    }

    fn index(&self, hash: u64, attempt: u32) -> Option<usize> {
        match &self.slots {
            // A ring may be configured to have no points.
            Slots::Ring { points, .. } if points.is_empty() => None,
            Slots::Maglev(table) if table.len() == 0 => None,
            Slots::Ring { points, hosts } => {
                let next = points.partition_point(|point| *point < hash);
                hosts.get((next % points.len() + attempt as usize) % points.len())
            }
            Slots::Maglev(table) => {
                // Another attempt changes most bits, so that what was one host's share goes to all others.
                let hash = if attempt > 0 { hash ^ u64::from(attempt).wrapping_neg() } else { hash };
                table.get(usize::try_from(hash % table.len() as u64).ok()?)
            }
        }
    }
}

impl Indexes {
    fn new(indexes: Vec<u32>, hosts: usize) -> Self {
        if hosts <= 1 << 8 {
            Self::Small(indexes.into_iter().map(|index| u8::try_from(index).unwrap_or(u8::MAX)).collect())
        } else if hosts <= 1 << 16 {
            Self::Medium(indexes.into_iter().map(|index| u16::try_from(index).unwrap_or(u16::MAX)).collect())
        } else {
            Self::Large(indexes.into())
        }
    }

    fn get(&self, at: usize) -> Option<usize> {
        match self {
            Self::Small(indexes) => indexes.get(at).map(|&index| index.into()),
            Self::Medium(indexes) => indexes.get(at).map(|&index| index.into()),
            Self::Large(indexes) => indexes.get(at).map(|&index| index as usize),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Small(indexes) => indexes.len(),
            Self::Medium(indexes) => indexes.len(),
            Self::Large(indexes) => indexes.len(),
        }
    }
}

/// What a host is hashed by: its `hash_key`, its name or its address.
fn key(host: &Host, use_hostname: bool) -> String {
    let given = host.attributes().metadata.as_ref().and_then(|m| m.get("envoy.lb")?.get("hash_key")?.as_str());
    match given {
        Some(key) if !key.is_empty() => key.to_owned(),
        _ if use_hostname => host.hostname().to_string(),
        _ => host.address().to_string(),
    }
}

/// The hosts with their shares of the whole: by weight, and by the weight of their locality where that counts. A locality
/// whose hosts are all down leaves its share to nobody.
fn normalized(level: &PriorityHosts, in_panic: bool, locality_weighted: bool) -> Box<[(Arc<Host>, f64)]> {
    let mut shares = Vec::new();
    let mut share_among = |hosts: &[Arc<Host>], whole: f64| {
        let sum: u64 = hosts.iter().map(|host| u64::from(host.weight())).sum();
        #[expect(clippy::cast_precision_loss, reason = "as Envoy divides")]
        shares.extend(hosts.iter().map(|host| (host.clone(), f64::from(host.weight()) * whole / sum as f64)));
    };
    if locality_weighted {
        let of = |locality: &LocalityHosts| u64::from(locality.weight);
        let sum: u64 = level.localities.iter().map(of).sum();
        for locality in level.localities.iter().filter(|locality| locality.weight > 0) {
            #[expect(clippy::cast_precision_loss, reason = "as Envoy divides")]
            let whole = f64::from(locality.weight) / sum as f64;
            share_among(if in_panic { &locality.hosts } else { &locality.healthy }, whole);
        }
    } else {
        share_among(if in_panic { &level.hosts } else { &level.healthy }, 1.0);
    }
    shares.into()
}

/// Ketama: each host stands at as many points as its share of the ring is worth, the host with the least at a whole number.
fn ring(hosts: &[(Arc<Host>, f64)], policy: &RingHash) -> (Slots, Spread) {
    let least = hosts.iter().map(|(_, share)| *share).fold(1.0, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "both are at most 8 Mi")]
    let (minimum, maximum) = (policy.minimum_size as f64, policy.maximum_size as f64);
    let scale = ((least * minimum).ceil() / least).min(maximum);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and at most 8 Mi")]
    let size = scale.ceil() as u64;
    let mut spread = Spread { size, min_per_host: size, max_per_host: 0 };
    let mut points: Vec<(u64, u32)> = Vec::new();
    // Running sums: a host whose share is no whole number takes turns with the next in being rounded up.
    let (mut placed, mut target) = (0.0, 0.0);
    for (number, (host, share)) in (0_u32..).zip(hosts) {
        let mut text = key(host, policy.hashing.use_hostname);
        text.push('_');
        let stem = text.len();
        target += scale * share;
        let mut points_of_host = 0_u64;
        while placed < target {
            text.truncate(stem);
            text.push_str(itoa::Buffer::new().format(points_of_host));
            let point = match policy.function {
                HashFunction::XxHash => xxh64(text.as_bytes(), 0),
                HashFunction::Murmur2 => murmur::hash(text.as_bytes()),
            };
            points.push((point, number));
            points_of_host += 1;
            placed += 1.0;
        }
        spread.min_per_host = spread.min_per_host.min(points_of_host);
        spread.max_per_host = spread.max_per_host.max(points_of_host);
    }
    points.sort_unstable();
    let indexes = points.iter().map(|(_, host)| *host).collect();
    let points = points.into_iter().map(|(point, _)| point).collect();
    (Slots::Ring { points, hosts: Indexes::new(indexes, hosts.len()) }, spread)
}

/// A host that fills the Maglev table, its next place and what it has to have reached before its next turn.
struct Filler {
    number: u32,
    next: u64,
    skip: u64,
    share: f64,
    due: f64,
    placed: u64,
}

/// Maglev: hosts take turns by weight, each going through all places in an order of its own and taking the next free one.
fn maglev(hosts: &[(Arc<Host>, f64)], policy: &Maglev) -> (Slots, Spread) {
    // There is nothing to look up where there is no choice.
    let size = if hosts.len() == 1 { 1 } else { policy.table_size };
    let mut keyed: Vec<(String, u32, f64)> = (0_u32..)
        .zip(hosts)
        .map(|(number, (host, share))| (key(host, policy.hashing.use_hostname), number, *share))
        .collect();
    // The order of the assignment must not decide who comes first.
    keyed.sort_by(|a, b| match a.0.cmp(&b.0) {
        Ordering::Equal => a.1.cmp(&b.1),
        other => other,
    });
    let most = keyed.iter().map(|(_, _, share)| *share).fold(0.0, f64::max);
    let mut fillers: Vec<Filler> = keyed
        .iter()
        .map(|(key, number, share)| Filler {
            number: *number,
            next: xxh64(key.as_bytes(), 0) % size,
            // A table of one place, or two, has no other places to skip to.
            skip: xxh64(key.as_bytes(), 1).checked_rem(size - 1).map_or(0, |skip| skip + 1),
            share: *share,
            due: 0.0,
            placed: 0,
        })
        .collect();
    const FREE: u32 = u32::MAX;
    let length = if fillers.is_empty() { 0 } else { usize::try_from(size).unwrap_or(0) };
    let mut table = vec![FREE; length];
    let mut free = length;
    let mut round = 0.0;
    while free > 0 {
        round += 1.0;
        for filler in &mut fillers {
            if free == 0 {
                break;
            }
            if round * filler.share < filler.due {
                continue;
            }
            filler.due += most;
            // The size is prime: going on by `skip` comes to every place, and one is free.
            while let Some(place) = usize::try_from(filler.next).ok().and_then(|at| table.get_mut(at)) {
                filler.next = (filler.next + filler.skip) % size;
                if *place == FREE {
                    *place = filler.number;
                    break;
                }
            }
            filler.placed += 1;
            free -= 1;
        }
    }
    let placed = || fillers.iter().map(|filler| filler.placed);
    let spread = Spread { size, min_per_host: placed().min().unwrap_or(0), max_per_host: placed().max().unwrap_or(0) };
    (Slots::Maglev(Indexes::new(table, hosts.len())), spread)
}

#[cfg(test)]
mod tests;

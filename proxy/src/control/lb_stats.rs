//! Statistics of load balancing that describe a host set rather than requests: how even hash tables are, which subsets
//! there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use stats::{GroupHandle, Store};

use crate::config::cluster::{ClusterConfig, LbConfig, LbPolicy};
use crate::observe::catalogue::{ClusterStats, MaglevStats, RingHashStats, SubsetStats};
use crate::upstream::host::HostSet;
use crate::upstream::lb::hashing::Spread;

/// Writes the statistics of one cluster, and keeps those in the scrape that only its policy has.
#[derive(Default)]
pub(super) struct LbStats {
    ring: Option<(Arc<GroupHandle<RingHashStats>>, RingHashStats)>,
    maglev: Option<(Arc<GroupHandle<MaglevStats>>, MaglevStats)>,
    subsets: Option<(Arc<GroupHandle<SubsetStats>>, SubsetStats)>,
    /// Envoy keeps, and counts, every subset once per thread: the workers' and the main one.
    threads: u64,
}

impl LbStats {
    /// Registers what the cluster's policy has.
    pub(super) fn new(config: &ClusterConfig, store: &Arc<Store>) -> Self {
        let prefix = format!("cluster.{}.", config.stat_name);
        let shard = store.control_shard();
        let mut stats = Self { threads: shard as u64 + 1, ..Self::default() };
        match config.lb.policy {
            LbPolicy::RingHash(_) => {
                let group = store.group::<RingHashStats>(&format!("{prefix}ring_hash_lb."));
                let own = group.shard(shard);
                stats.ring = Some((group, own));
            }
            LbPolicy::Maglev(_) => {
                let group = store.group::<MaglevStats>(&format!("{prefix}maglev_lb."));
                let own = group.shard(shard);
                stats.maglev = Some((group, own));
            }
            LbPolicy::RoundRobin | LbPolicy::LeastRequest(_) | LbPolicy::Random | LbPolicy::ClusterProvided => {}
        }
        if config.lb.subset.is_some() {
            let group = store.group::<SubsetStats>(&prefix);
            let own = group.shard(shard);
            stats.subsets = Some((group, own));
        }
        stats
    }

    /// The hosts `before` became those `after`.
    pub(super) fn changed(&self, lb: &LbConfig, stats: &ClusterStats, before: Option<&HostSet>, after: &HostSet) {
        if lb.subset.is_none() {
            if lb.hashes() {
                self.spread(after, lb);
            }
            return;
        }
        let subsets = after.subsets(lb);
        if lb.hashes() {
            let within = lb.within_subset();
            for hosts in subsets.sets() {
                self.spread(hosts, &within);
            }
        }
        let former: BTreeSet<&str> = before.into_iter().flat_map(|before| before.subsets(lb).names()).collect();
        let present: BTreeSet<&str> = subsets.names().collect();
        let count = |subsets: usize| subsets as u64 * self.threads;
        stats.lb_subsets_created().add(count(present.difference(&former).count()));
        stats.lb_subsets_removed().add(count(former.difference(&present).count()));
        stats.lb_subsets_active().set(count(present.len()));
        if let Some((_, own)) = &self.subsets {
            own.lb_subsets_single_host_per_subset_duplicate().set(subsets.duplicates() as u64);
        }
    }

    /// The last priority that has hosts is the one that is seen.
    fn spread(&self, hosts: &HostSet, lb: &LbConfig) {
        for Spread { size, min_per_host, max_per_host } in hosts.tables(lb).iter().filter_map(|table| table.spread()) {
            if let Some((_, ring)) = &self.ring {
                ring.size().set(size);
                ring.min_hashes_per_host().set(min_per_host);
                ring.max_hashes_per_host().set(max_per_host);
            }
            if let Some((_, maglev)) = &self.maglev {
                maglev.min_entries_per_host().set(min_per_host);
                maglev.max_entries_per_host().set(max_per_host);
            }
        }
    }
}

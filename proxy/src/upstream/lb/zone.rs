//! Zone-aware routing: requests stay in the proxy's own zone as far as that loads no zone more than the others.
//!
//! The proxy knows the cluster it belongs to itself (`local_cluster_name`), and so how much of all traffic begins in each
//! zone. Where a zone has at least that share of the upstream hosts, everything stays in it; where it has less, the rest
//! goes to the zones that have more. Only the first priority is routed so, as in Envoy.

use std::sync::Arc;

use crate::config::cluster::{LbConfig, ZoneAware};
use crate::upstream::host::{Host, HostSet, Locality, LocalityHosts, PriorityHosts};

/// The cluster a proxy belongs to, and where it stands itself.
#[derive(Debug, Clone)]
pub struct LocalHosts {
    /// The proxy's own place.
    pub locality: Arc<Locality>,
    /// The proxies.
    pub hosts: Arc<HostSet>,
}

/// What is counted about zones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZoneNote {
    /// Shares were computed anew (`lb_recalculate_zone_structures`).
    pub recalculated: bool,
    /// Too few upstream hosts are healthy (`lb_zone_cluster_too_small`).
    pub too_small: bool,
    /// The proxy is not among the hosts of its own cluster, or too few of those are well (`lb_local_cluster_not_ok`).
    pub local_not_ok: bool,
    /// Everything stays in the zone (`lb_zone_routing_all_directly`).
    pub all_directly: bool,
    /// A part stays in the zone, and this request with it (`lb_zone_routing_sampled`).
    pub sampled: bool,
    /// The request left the zone (`lb_zone_routing_cross_zone`).
    pub cross_zone: bool,
    /// No zone has anything to spare: any was taken (`lb_zone_no_capacity_left`).
    pub no_capacity_left: bool,
}

/// How requests divide among the localities of the first priority.
#[derive(Debug)]
pub(super) struct ZoneRouting {
    local: Arc<HostSet>,
    plan: Plan,
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Localities do not matter.
    None,
    /// All requests go to this one.
    Direct(usize),
    /// Of 10000 requests so many go to this one, the others to any by what it has to spare, summed up.
    Residual { local: Option<usize>, local_share: u64, spare: Box<[u64]> },
}

/// Whole shares are 10000, as in Envoy.
const WHOLE: u64 = 10_000;

impl ZoneRouting {
    /// The plan for hosts, given the proxies beside this one.
    pub(super) fn new(hosts: &HostSet, local: &LocalHosts, config: &LbConfig, note: &mut ZoneNote) -> Self {
        note.recalculated = true;
        let plan = match (hosts.priorities.first(), local.hosts.priorities.first()) {
            (Some(upstream), Some(proxies)) => plan(upstream, proxies, &local.locality, &config.zone_aware, note),
            _ => Plan::None,
        };
        Self { local: local.hosts.clone(), plan }
    }

    /// Whether it was made for these proxies.
    pub(super) fn is_for(&self, local: &LocalHosts) -> bool {
        Arc::ptr_eq(&self.local, &local.hosts)
    }

    /// Whether requests are routed by zone at all.
    pub(super) const fn is_in_force(&self) -> bool {
        !matches!(self.plan, Plan::None)
    }

    /// The locality for a request; `None` when localities do not matter.
    pub(super) fn choose(&self, random: &mut fastrand::Rng, note: &mut ZoneNote) -> Option<usize> {
        match &self.plan {
            Plan::None => None,
            Plan::Direct(local) => {
                note.all_directly = true;
                Some(*local)
            }
            Plan::Residual { local, local_share, spare } => {
                if let Some(local) = local.filter(|_| random.u64(..WHOLE) < *local_share) {
                    note.sampled = true;
                    return Some(local);
                }
                note.cross_zone = true;
                match spare.last() {
                    None | Some(0) => {
                        note.no_capacity_left = true;
                        Some(random.usize(..spare.len().max(1)))
                    }
                    Some(all) => {
                        let point = random.u64(..*all);
                        Some(spare.partition_point(|sum| *sum <= point))
                    }
                }
            }
        }
    }
}

fn plan(
    upstream: &PriorityHosts,
    proxies: &PriorityHosts,
    own: &Locality,
    config: &ZoneAware,
    note: &mut ZoneNote,
) -> Plan {
    let of_own = |level: &PriorityHosts| {
        level.localities.iter().position(|place| *place.locality == *own && *own != Locality::default())
    };
    if upstream.localities.len() < 2 || (proxies.localities.len() < 2 && config.force_local.is_none()) {
        return Plan::None;
    }
    // A place is in the list only if it has hosts.
    if of_own(proxies).is_none() {
        note.local_not_ok = true;
        return Plan::None;
    }
    if (upstream.healthy.len() as u64) < config.min_cluster_size {
        note.too_small = true;
        return Plan::None;
    }
    let weigh = |hosts: &[Arc<Host>]| -> u64 {
        if config.by_weight { hosts.iter().map(|host| u64::from(host.weight())).sum() } else { hosts.len() as u64 }
    };
    let total = |level: &PriorityHosts| level.localities.iter().map(|place| weigh(&place.healthy)).sum::<u64>();
    let (all_upstream, all_proxies) = (total(upstream), total(proxies));
    let share = |part: u64, all: u64| (WHOLE * part).checked_div(all).unwrap_or(0);
    // (Share of the proxies, share of the hosts) of a place; one without healthy hosts has neither.
    let shares = |place: &LocalityHosts| {
        if place.healthy.is_empty() {
            return (0, 0);
        }
        let same = proxies.localities.iter().find(|proxies| proxies.locality == place.locality);
        let proxies = same.map_or(0, |same| weigh(&same.healthy));
        (share(proxies, all_proxies), share(weigh(&place.healthy), all_upstream))
    };
    let local = of_own(upstream);
    let mut local_share = 0;
    if let Some((index, place)) = local.and_then(|index| Some((index, upstream.localities.get(index)?))) {
        let (here, there) = shares(place);
        let forced = config.force_local.is_some_and(|least| place.healthy.len() >= least as usize);
        if (there > 0 && there >= here) || forced {
            return Plan::Direct(index);
        }
        local_share = share(there, here);
    }
    let mut sum = 0;
    let spare = upstream.localities.iter().enumerate().map(|(index, place)| {
        let (here, there) = shares(place);
        if Some(index) != local {
            sum += there.saturating_sub(here);
        }
        sum
    });
    Plan::Residual { local, local_share, spare: spare.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::host::tests::host;

    fn place(zone: &str) -> Arc<Locality> {
        Arc::new(Locality { zone: zone.to_owned(), ..Locality::default() })
    }

    /// Hosts by zone: `(zone, how many)`.
    fn zones(zones: &[(&str, u8)]) -> Arc<HostSet> {
        let mut n = 0;
        let localities = zones.iter().map(|(zone, count)| {
            let locality = place(zone);
            let hosts = (0..*count).map(|i| host(n + i, 1, 0, &locality)).collect();
            n += count;
            (locality, 0, hosts)
        });
        let level = PriorityHosts::new(localities.collect());
        Arc::new(HostSet { priorities: Box::new([level]), ..HostSet::empty() })
    }

    fn routing(upstream: &[(&str, u8)], proxies: &[(&str, u8)], config: ZoneAware) -> (Plan, ZoneNote) {
        let local = LocalHosts { locality: place("a"), hosts: zones(proxies) };
        let config = LbConfig { zone_aware: config, ..LbConfig::default() };
        let mut note = ZoneNote::default();
        let routing = ZoneRouting::new(&zones(upstream), &local, &config, &mut note);
        assert!(std::mem::take(&mut note.recalculated) && routing.is_for(&local));
        (routing.plan, note)
    }

    #[test]
    fn what_can_stay_stays_and_the_rest_goes_where_there_is_room() {
        let even = &[("a", 2), ("b", 2), ("c", 1)];
        let residual = |local_share, spare: &[u64]| Plan::Residual { local: Some(0), local_share, spare: spare.into() };
        for (upstream, expected) in [
            (&[("a", 4), ("b", 4), ("c", 2)][..], Plan::Direct(0)),
            (&[("a", 6), ("b", 2), ("c", 2)], Plan::Direct(0)),
            // Envoy's own example: 40, 40, 20 % of the proxies, 25, 50, 25 % of the hosts.
            (&[("a", 2), ("b", 4), ("c", 2)], residual(6250, &[0, 1000, 1500])),
            (&[("a", 0), ("b", 4), ("c", 4)], residual(0, &[0, 1000, 4000])),
        ] {
            assert_eq!(routing(upstream, even, ZoneAware::default()), (expected, ZoneNote::default()), "{upstream:?}");
        }
        let elsewhere = routing(&[("b", 4), ("c", 4)], even, ZoneAware::default()).0;
        assert_eq!(elsewhere, Plan::Residual { local: None, local_share: 0, spare: Box::new([1000, 4000]) });
    }

    #[test]
    fn zones_do_not_matter_where_there_is_too_little_to_divide() {
        let hosts = &[("a", 4), ("b", 4)][..];
        let none = |note| (Plan::None, note);
        let quiet = ZoneNote::default();
        for (upstream, proxies, expected) in [
            (&[("a", 9)][..], hosts, quiet),
            (hosts, &[("a", 9)][..], quiet),
            (hosts, &[("b", 4), ("c", 4)], ZoneNote { local_not_ok: true, ..quiet }),
            (&[("a", 3), ("b", 2)], hosts, ZoneNote { too_small: true, ..quiet }),
        ] {
            assert_eq!(routing(upstream, proxies, ZoneAware::default()), none(expected), "{upstream:?} {proxies:?}");
        }
    }

    #[test]
    fn a_zone_may_be_forced() {
        let forced = |least| ZoneAware { force_local: Some(least), ..ZoneAware::default() };
        let (upstream, proxies) = (&[("a", 2), ("b", 9)], &[("a", 9), ("b", 1)]);
        assert_eq!(routing(upstream, proxies, forced(2)).0, Plan::Direct(0));
        assert!(matches!(routing(upstream, proxies, forced(3)).0, Plan::Residual { .. }));
        assert_eq!(routing(upstream, &[("a", 1)], forced(1)).0, Plan::Direct(0), "one zone of proxies will do");
    }

    #[test]
    fn requests_divide_as_planned() {
        let local = LocalHosts { locality: place("a"), hosts: zones(&[("a", 2), ("b", 2), ("c", 1)]) };
        let upstream = zones(&[("a", 2), ("b", 4), ("c", 2)]);
        let routing = ZoneRouting::new(&upstream, &local, &LbConfig::default(), &mut ZoneNote::default());
        let mut random = fastrand::Rng::with_seed(5);
        let mut counts = [0_u32; 3];
        let mut crossed = 0_u32;
        for _ in 0..8000 {
            let mut note = ZoneNote::default();
            counts[routing.choose(&mut random, &mut note).unwrap()] += 1;
            assert_ne!(note.sampled, note.cross_zone);
            crossed += u32::from(note.cross_zone);
        }
        // 62.5 % stay, of the others two thirds go to b.
        for (count, expected) in counts.into_iter().zip([5000_u32, 2000, 1000]) {
            assert!(count.abs_diff(expected) < 250, "{counts:?}");
        }
        assert!(crossed.abs_diff(3000) < 250);
    }
}

//! How load spreads over priorities, and when health is ignored.
//!
//! Envoy's arithmetic, whole percentages included: each priority's health is its share of available hosts times the
//! overprovisioning factor, at most 100; load fills the healthy hosts of the priorities in order, then the degraded.

use super::super::host::{HostSet, PriorityHosts};
use crate::config::cluster::LbConfig;

/// Which hosts of a priority are chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
    /// All, whatever their health.
    Panic,
}

/// The priorities that load spreads over: those of one set of hosts, or of several, one after the other.
pub trait Levels {
    /// Each of them, with the set it is of.
    fn list(&self) -> Vec<(&PriorityHosts, &HostSet)>;

    /// The place among them of a host that was tried, by its number and its priority within its cluster.
    fn place(&self, host: u64, priority: u32) -> Option<usize>;
}

impl Levels for HostSet {
    fn list(&self) -> Vec<(&PriorityHosts, &HostSet)> {
        self.priorities.iter().map(|level| (level, self)).collect()
    }

    fn place(&self, _: u64, priority: u32) -> Option<usize> {
        usize::try_from(priority).ok()
    }
}

/// The share of load of each priority, in percent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriorityLoads {
    healthy: Vec<u32>,
    degraded: Vec<u32>,
    panic: Vec<bool>,
}

impl PriorityLoads {
    /// The loads over `hosts` as they were divided.
    #[must_use]
    pub fn new(hosts: &HostSet, config: &LbConfig) -> Self {
        Self::over(hosts.priorities.iter().map(|level| (level, hosts)), config)
    }

    /// The loads over priorities of several sets, one after the other.
    #[must_use]
    pub fn over<'a>(levels: impl Iterator<Item = (&'a PriorityHosts, &'a HostSet)> + Clone, config: &LbConfig) -> Self {
        let (health, degraded): (Vec<u32>, Vec<u32>) =
            levels.clone().map(|(level, set)| availability(level, set)).unzip();
        let available = health.iter().chain(&degraded).sum::<u32>().min(100);
        let mut loads = Self::distributed(&health, &degraded, available);

        let threshold = config.healthy_panic_threshold;
        if threshold == 0 && available == 0 {
            // Nothing is available and health is never ignored: the request fails in the first priority.
            loads.set_healthy(0, 100);
            return loads;
        }
        loads.panic = levels.clone().map(|(level, _)| available != 100 && in_panic(level, threshold)).collect();
        if loads.panic.iter().all(|panic| *panic) {
            loads.spread_in_total_panic(levels.map(|(level, _)| level.hosts.len()));
        }
        loads
    }

    /// The loads when some priorities are left out (the flags are by priority); `None` when nobody is available in the
    /// others.
    #[must_use]
    pub fn without(levels: &dyn Levels, config: &LbConfig, excluded: &[bool]) -> Option<Self> {
        let levels = levels.list();
        let left = levels.iter().enumerate().map(|(priority, (level, hosts))| {
            if excluded.get(priority).copied().unwrap_or(false) { (0, 0) } else { availability(level, hosts) }
        });
        let (health, degraded): (Vec<u32>, Vec<u32>) = left.unzip();
        let available = health.iter().chain(&degraded).sum::<u32>().min(100);
        if available == 0 {
            return None;
        }
        let panic = Self::over(levels.iter().copied(), config).panic;
        Some(Self { panic, ..Self::distributed(&health, &degraded, available) })
    }

    /// Whether the health of this priority's hosts is ignored, because too few are available.
    #[must_use]
    pub fn in_panic(&self, priority: usize) -> bool {
        self.panic.get(priority).copied().unwrap_or(false)
    }

    /// Which hosts of a priority chosen elsewhere.
    #[must_use]
    pub fn within(&self, priority: usize, availability: Availability) -> Availability {
        if self.in_panic(priority) { Availability::Panic } else { availability }
    }

    /// The priority for a random number, and which of its hosts.
    #[must_use]
    pub fn choose(&self, random: u64) -> (usize, Availability) {
        let (priority, availability) = self.draw(random);
        (priority, self.within(priority, availability))
    }

    /// The same, minding panic no further: whoever chooses within the priority does.
    #[must_use]
    pub fn draw(&self, random: u64) -> (usize, Availability) {
        let point = u32::try_from(random % 100).unwrap_or(0) + 1;
        let mut reached = 0;
        for (loads, availability) in [(&self.healthy, Availability::Healthy), (&self.degraded, Availability::Degraded)]
        {
            for (priority, load) in loads.iter().enumerate() {
                reached += load;
                if point <= reached {
                    return (priority, availability);
                }
            }
        }
        // Loads sum to 100, so this is only reached without any priority.
        (0, Availability::Healthy)
    }

    fn distributed(health: &[u32], degraded: &[u32], available: u32) -> Self {
        let mut loads =
            Self { healthy: vec![0; health.len()], degraded: vec![0; health.len()], panic: vec![false; health.len()] };
        if available == 0 {
            return loads;
        }
        let mut left = 100;
        for (loads, availability) in [(&mut loads.healthy, health), (&mut loads.degraded, degraded)] {
            for (load, availability) in loads.iter_mut().zip(availability) {
                *load = left.min(availability * 100 / available);
                left -= *load;
            }
        }
        // What rounding left goes to the first priority that has anybody.
        let first = |list: &[u32]| list.iter().position(|availability| *availability > 0);
        if let Some(load) = first(health).and_then(|first| loads.healthy.get_mut(first)) {
            *load += left;
        } else if let Some(load) = first(degraded).and_then(|first| loads.degraded.get_mut(first)) {
            *load += left;
        }
        loads
    }

    /// Every priority is in panic: load by the number of hosts.
    fn spread_in_total_panic(&mut self, counts: impl Iterator<Item = usize> + Clone) {
        self.degraded.fill(0);
        self.healthy.fill(0);
        let counts = || counts.clone();
        let total: usize = counts().sum();
        let Some(first) = counts().position(|count| count > 0) else {
            self.set_healthy(0, 100);
            return;
        };
        let mut left = 100;
        for (load, count) in self.healthy.iter_mut().zip(counts()) {
            *load = u32::try_from(100 * count / total).unwrap_or(100);
            left -= *load;
        }
        if let Some(load) = self.healthy.get_mut(first) {
            *load += left;
        }
    }

    fn set_healthy(&mut self, priority: usize, percent: u32) {
        if let Some(load) = self.healthy.get_mut(priority) {
            *load = percent;
        }
    }
}

/// Percent of healthy and of degraded hosts, overprovisioned.
fn availability(level: &PriorityHosts, set: &HostSet) -> (u32, u32) {
    let (healthy, degraded, total) = if set.weighted_priority_health {
        let weigh = |hosts: &[_]| hosts.iter().map(|host: &std::sync::Arc<super::Host>| u64::from(host.weight())).sum();
        let excluded: u64 = level
            .hosts
            .iter()
            .filter(|host| host.state().flags().is_excluded())
            .map(|host| u64::from(host.weight()))
            .sum();
        let all: u64 = weigh(&level.hosts);
        (weigh(&level.healthy), weigh(&level.degraded), all.saturating_sub(excluded))
    } else {
        let total = level.hosts.len().saturating_sub(level.excluded);
        (level.healthy.len() as u64, level.degraded.len() as u64, total as u64)
    };
    let percent = |available: u64| {
        let percent = u64::from(set.overprovisioning_factor).saturating_mul(available).checked_div(total).unwrap_or(0);
        u32::try_from(percent.min(100)).unwrap_or(100)
    };
    (percent(healthy), percent(degraded))
}

/// Whether too few hosts of a priority are available to mind their health.
pub(super) fn in_panic(level: &PriorityHosts, threshold: u32) -> bool {
    let total = level.hosts.len().saturating_sub(level.excluded);
    let available = level.healthy.len() + level.degraded.len();
    // available / total < threshold / 100, without rounding; nobody at all is 0 %.
    if total == 0 { threshold > 0 } else { available * 100 < threshold as usize * total }
}

/// The effective weight of each locality of a priority: its own, reduced when too few of its hosts are available.
#[must_use]
pub fn locality_weights(level: &PriorityHosts, overprovisioning_factor: u32, availability: Availability) -> Vec<f64> {
    let weight = |locality: &super::super::host::LocalityHosts| {
        let total = locality.hosts.len().saturating_sub(locality.excluded);
        let available = match availability {
            Availability::Healthy => locality.healthy.len(),
            Availability::Degraded => locality.degraded.len(),
            Availability::Panic => locality.hosts.len(),
        };
        if total == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "host counts are far below 2^53")]
        let share = available as f64 / total as f64;
        f64::from(locality.weight) * (f64::from(overprovisioning_factor) / 100.0 * share).min(1.0)
    };
    level.localities.iter().map(weight).collect()
}

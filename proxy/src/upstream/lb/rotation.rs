//! Hosts in turn, by weight: round robin, least request and random.
//!
//! Hosts of equal weight rotate, or are compared by load; where weights differ, or hosts are still [growing](SlowStart) to
//! their full share, turns follow an [`Edf`] schedule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::edf::Edf;
use super::priority::{self, Availability};
use crate::config::cluster::{LbConfig, LbPolicy, LeastRequest, SlowStart};
use crate::upstream::host::{Health, Host, HostSet, PriorityHosts};

/// What a worker remembers about one priority.
#[derive(Debug, Default)]
pub(super) struct Level {
    all: Source,
    healthy: Source,
    degraded: Source,
    healthy_localities: Option<Localities>,
    degraded_localities: Option<Localities>,
    /// By locality, where requests are routed by zone.
    healthy_zones: Vec<Source>,
    degraded_zones: Vec<Source>,
}

/// Localities of a priority by effective weight, and a source for each.
#[derive(Debug)]
struct Localities {
    schedule: Edf,
    sources: Vec<Source>,
}

/// How far the choice among one list of hosts has come.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Built by the first pick: most lists of most clusters are never picked from by a given worker.
    weighted: Option<Weighting>,
    rotation: usize,
}

#[derive(Debug)]
enum Weighting {
    Equal,
    Unequal(Edf),
}

impl Level {
    /// The same places in the rotations, other hosts.
    pub(super) fn new(
        priority: &PriorityHosts,
        set: &HostSet,
        former: Option<Self>,
        config: &LbConfig,
        random: &mut fastrand::Rng,
    ) -> Self {
        let former = former.unwrap_or_else(|| Self {
            all: Source::random(random),
            healthy: Source::random(random),
            degraded: Source::random(random),
            ..Self::default()
        });
        let mut localities = |availability| {
            let weights: Vec<f64> = priority::locality_weights(priority, set.overprovisioning_factor, availability);
            if !config.locality_weighted || weights.iter().all(|&weight| weight <= 0.0) {
                return None;
            }
            let sources = weights.iter().map(|_| Source::random(random)).collect();
            Some(Localities { schedule: Edf::new(&weights, random.f64()), sources })
        };
        Self {
            healthy_localities: localities(Availability::Healthy),
            degraded_localities: localities(Availability::Degraded),
            healthy_zones: renewed(former.healthy_zones),
            degraded_zones: renewed(former.degraded_zones),
            all: former.all.renewed(),
            healthy: former.healthy.renewed(),
            degraded: former.degraded.renewed(),
        }
    }

    /// The hosts to choose from, and how far the choice among them has come. `zone` is the locality that was chosen already.
    pub(super) fn source<'a>(
        &'a mut self,
        hosts: &'a PriorityHosts,
        availability: Availability,
        zone: Option<usize>,
        random: &mut fastrand::Rng,
    ) -> Option<(&'a mut Source, &'a [Arc<Host>])> {
        let (localities, zones, source, list) = match availability {
            Availability::Panic => return Some((&mut self.all, &hosts.hosts)),
            Availability::Healthy => {
                (&mut self.healthy_localities, &mut self.healthy_zones, &mut self.healthy, &hosts.healthy)
            }
            Availability::Degraded => {
                (&mut self.degraded_localities, &mut self.degraded_zones, &mut self.degraded, &hosts.degraded)
            }
        };
        let of = |index: usize| {
            let locality = hosts.localities.get(index)?;
            Some(if availability == Availability::Healthy { &*locality.healthy } else { &*locality.degraded })
        };
        if let Some(index) = zone {
            if zones.len() != hosts.localities.len() {
                zones.resize_with(hosts.localities.len(), || Source::random(random));
            }
            return Some((zones.get_mut(index)?, of(index)?));
        }
        let Some(Localities { schedule, sources }) = localities else { return Some((source, list)) };
        // A locality's weight is that of its hosts when the set was built.
        let chosen = schedule.pick(|_, weight| weight);
        match chosen.and_then(|index| Some((sources.get_mut(index)?, of(index)?))) {
            Some(chosen) => Some(chosen),
            None => Some((source, list)),
        }
    }
}

/// The same places in the rotations, other hosts.
fn renewed(sources: Vec<Source>) -> Vec<Source> {
    sources.into_iter().map(Source::renewed).collect()
}

impl Source {
    fn random(random: &mut fastrand::Rng) -> Self {
        Self { weighted: None, rotation: random.usize(..) }
    }

    /// The same place in the rotation, other hosts.
    fn renewed(self) -> Self {
        Self { weighted: None, rotation: self.rotation }
    }

    pub(super) fn pick<'a>(
        &mut self,
        hosts: &'a [Arc<Host>],
        config: &LbConfig,
        random: &mut fastrand::Rng,
        clock: fn() -> Instant,
    ) -> Option<&'a Arc<Host>> {
        let first = hosts.first()?;
        if hosts.len() == 1 {
            return Some(first);
        }
        match &config.policy {
            LbPolicy::RoundRobin => match (self.weighting(hosts, config, random, clock), &config.slow_start) {
                (Weighting::Unequal(schedule), None) => hosts.get(schedule.pick(|_, weight| weight)?),
                (Weighting::Unequal(schedule), Some(_)) => {
                    hosts.get(schedule.pick(|index, former| weigh(hosts.get(index), former, config, clock))?)
                }
                (Weighting::Equal, _) => {
                    self.rotation = self.rotation.wrapping_add(1);
                    hosts.get(self.rotation % hosts.len())
                }
            },
            LbPolicy::LeastRequest(tuning) => match self.weighting(hosts, config, random, clock) {
                Weighting::Unequal(schedule) => {
                    hosts.get(schedule.pick(|index, former| weigh(hosts.get(index), former, config, clock))?)
                }
                Weighting::Equal if tuning.full_scan => least_loaded(hosts, random),
                Weighting::Equal => Some(least_of_choices(first, hosts, tuning, random)),
            },
            // Those that hash, or know their host, do not take turns.
            LbPolicy::Random | LbPolicy::RingHash(_) | LbPolicy::Maglev(_) | LbPolicy::ClusterProvided => {
                hosts.get(random.usize(..hosts.len()))
            }
        }
    }

    fn weighting(
        &mut self,
        hosts: &[Arc<Host>],
        config: &LbConfig,
        random: &mut fastrand::Rng,
        clock: fn() -> Instant,
    ) -> &mut Weighting {
        self.weighted.get_or_insert_with(|| {
            let equal = hosts.windows(2).all(|pair| matches!(pair, [a, b] if a.weight() == b.weight()));
            let starting = config.slow_start.as_ref().is_some_and(|slow_start| {
                let now = clock();
                hosts.iter().any(|host| is_starting(host, slow_start, now))
            });
            if equal && !starting {
                return Weighting::Equal;
            }
            let weights: Vec<f64> = hosts.iter().map(|host| weigh(Some(host), 0.0, config, clock)).collect();
            Weighting::Unequal(Edf::new(&weights, random.f64()))
        })
    }
}

/// The weight of a host for its next turn; `former` if there is no host.
fn weigh(host: Option<&Arc<Host>>, former: f64, config: &LbConfig, clock: fn() -> Instant) -> f64 {
    let Some(host) = host else { return former };
    let weight = match &config.policy {
        LbPolicy::LeastRequest(tuning) => loaded_weight(host, tuning.active_request_bias),
        _ => f64::from(host.weight()),
    };
    match &config.slow_start {
        Some(slow_start) => weight * grown(host, slow_start, clock()),
        None => weight,
    }
}

/// Whether a host has not had its full share yet.
fn is_starting(host: &Host, slow_start: &SlowStart, now: Instant) -> bool {
    host.health() == Health::Healthy && now.saturating_duration_since(host.state().healthy_since()) < slow_start.window
}

/// The part of its weight that a host has grown to, 0 to 1.
fn grown(host: &Host, slow_start: &SlowStart, now: Instant) -> f64 {
    if !is_starting(host, slow_start, now) {
        return 1.0;
    }
    let SlowStart { window, aggression, min_weight } = slow_start;
    let age = now.saturating_duration_since(host.state().healthy_since()).max(Duration::from_millis(1));
    let part = age.as_secs_f64() / window.as_secs_f64();
    let part = if *aggression == 1.0 { part } else { part.powf(1.0 / aggression) };
    part.max(*min_weight)
}

/// A host's weight divided by its load, to the power of the configured bias.
fn loaded_weight(host: &Host, bias: f64) -> f64 {
    let (weight, load) = (f64::from(host.weight()), f64::from(host.state().active_requests()) + 1.0);
    if bias == 1.0 {
        weight / load
    } else if bias == 0.0 {
        weight
    } else {
        weight / load.powf(bias)
    }
}

/// The one with the fewest active requests of a few random hosts, the first of equals.
fn least_of_choices<'a>(
    first: &'a Arc<Host>,
    hosts: &'a [Arc<Host>],
    tuning: &LeastRequest,
    random: &mut fastrand::Rng,
) -> &'a Arc<Host> {
    let mut choose = || hosts.get(random.usize(..hosts.len())).unwrap_or(first);
    let mut best = choose();
    let mut least = best.state().active_requests();
    for _ in 1..tuning.choice_count {
        let other = choose();
        let active = other.state().active_requests();
        if active < least {
            (best, least) = (other, active);
        }
    }
    best
}

/// The one with the fewest active requests of all hosts, a random one of equals.
fn least_loaded<'a>(hosts: &'a [Arc<Host>], random: &mut fastrand::Rng) -> Option<&'a Arc<Host>> {
    let mut best: Option<(&Arc<Host>, u32, u32)> = None;
    for host in hosts {
        let active = host.state().active_requests();
        best = match best {
            Some((_, least, _)) if active < least => Some((host, active, 1)),
            Some((chosen, least, equals)) if active == least => {
                // Keeps each of `equals` hosts with the same probability.
                let take = random.u32(..=equals) == 0;
                Some((if take { host } else { chosen }, least, equals + 1))
            }
            Some(kept) => Some(kept),
            None => Some((host, active, 1)),
        };
    }
    best.map(|(host, _, _)| host)
}

//! Load balancing: which host a request goes to.
//!
//! A [`Scheduler`] belongs to one worker and one cluster. It is built from what control publishes and primed with a
//! random phase, so that workers do not march in step. A pick goes through two decisions, as in Envoy:
//!
//! 1. [`priority`]: the priority level, and whether its healthy, degraded or (in panic) all hosts are used;
//! 2. the policy among those hosts: rotation when weights are equal, [`edf`] when they are not, random choices.
//!
//! A host's health may change after its set was built. A pick that meets such a host divides the set again by health
//! as of now and picks anew; that a host got well is learnt from the next published set.

pub mod edf;
pub mod original_dst;
pub mod priority;

use std::net::SocketAddr;
use std::sync::Arc;

use self::edf::Edf;
use self::original_dst::OriginalDstHosts;
use self::priority::{Availability, PriorityLoads};
use super::host::{Health, Host, HostSet, PriorityHosts};
use crate::config::cluster::{ClusterConfig, LbConfig, LbPolicy, LeastRequest};

/// Other loads of priorities than a cluster's usual ones; `None` leaves them.
pub type OtherLoads<'a> = dyn Fn(&HostSet, &LbConfig) -> Option<PriorityLoads> + 'a;

/// What a pick may depend on.
#[derive(Default, Clone, Copy)]
pub struct PickContext<'a> {
    /// How load spreads over priorities for this pick, if otherwise than usual.
    pub loads: Option<&'a OtherLoads<'a>>,
    /// Hosts to avoid while another can be had within [`Self::max_attempts`] picks (those tried before).
    pub avoid: Option<&'a dyn Fn(&Host) -> bool>,
    /// Picks made to avoid hosts (`host_selection_retry_max_attempts`); below 2 makes one.
    pub max_attempts: u32,
    /// Where the request was going, for `ORIGINAL_DST` clusters.
    pub destination: Option<SocketAddr>,
}

/// Chooses hosts of one cluster on one worker.
#[derive(Debug)]
pub struct Scheduler {
    config: Arc<ClusterConfig>,
    hosts: Arc<HostSet>,
    loads: PriorityLoads,
    levels: Vec<Level>,
    random: fastrand::Rng,
    in_panic: bool,
    original_dst: OriginalDstHosts,
}

impl Scheduler {
    /// A scheduler over `hosts`, in a process with this many workers.
    #[must_use]
    pub fn new(config: Arc<ClusterConfig>, hosts: Arc<HostSet>, workers: usize, random: fastrand::Rng) -> Self {
        let mut scheduler = Self {
            loads: PriorityLoads::new(&hosts, &config.lb),
            levels: Vec::new(),
            in_panic: false,
            original_dst: OriginalDstHosts::new(workers),
            config,
            hosts: Arc::default(),
            random,
        };
        scheduler.refresh(hosts);
        scheduler
    }

    /// Goes on with other hosts. Rotations keep their place.
    pub fn refresh(&mut self, hosts: Arc<HostSet>) {
        self.loads = PriorityLoads::new(&hosts, &self.config.lb);
        let random = &mut self.random;
        let locality_weighted = self.config.lb.locality_weighted;
        let mut former = std::mem::take(&mut self.levels).into_iter();
        self.levels = hosts
            .priorities
            .iter()
            .map(|priority| Level::new(priority, &hosts, former.next(), locality_weighted, random))
            .collect();
        if self.config.lb.policy == LbPolicy::ClusterProvided {
            self.original_dst.published(&hosts);
        }
        self.hosts = hosts;
    }

    /// The host for a request; `None` when there is none to choose.
    pub fn pick(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let Some(avoid) = context.avoid else { return self.pick_available(context) };
        let mut picked = None;
        for _ in 0..context.max_attempts.max(1) {
            picked = self.pick_available(context);
            if !picked.as_deref().is_some_and(avoid) {
                break;
            }
        }
        picked
    }

    /// Whether the last pick ignored health because too few hosts are available (`lb_healthy_panic`).
    #[must_use]
    pub const fn in_panic(&self) -> bool {
        self.in_panic
    }

    /// The hosts it chooses from.
    #[must_use]
    pub const fn hosts(&self) -> &Arc<HostSet> {
        &self.hosts
    }

    /// Hosts an `ORIGINAL_DST` cluster made for new destinations since the last call: to be sent to the control thread,
    /// so that they are counted and swept.
    pub fn take_created(&mut self) -> Vec<Arc<Host>> {
        self.original_dst.take_created()
    }

    fn pick_available(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        if self.config.lb.policy == LbPolicy::ClusterProvided {
            return Some(self.original_dst.pick(context.destination?));
        }
        let picked = self.pick_once(context)?;
        if self.is_current(&picked) {
            return Some(picked);
        }
        // Overtaken by a change of health: one division by health as of now is as good as any number.
        let hosts = Arc::new(self.hosts.rebuilt());
        self.refresh(hosts);
        self.pick_once(context)
    }

    /// Whether the host still is what it was chosen as.
    fn is_current(&self, host: &Host) -> bool {
        self.in_panic || host.health() != Health::Unhealthy
    }

    fn pick_once(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let Self { config, hosts, loads, levels, random, in_panic, .. } = self;
        let others = context.loads.and_then(|loads| loads(hosts, &config.lb));
        let (priority, availability) = others.as_ref().unwrap_or(loads).choose(random.u64(..));
        let (level, hosts) = (levels.get_mut(priority)?, hosts.priorities.get(priority)?);
        *in_panic = availability == Availability::Panic;
        if *in_panic && config.lb.fail_traffic_on_panic {
            return None;
        }
        let (source, hosts) = level.source(hosts, availability);
        source.pick(hosts, &config.lb.policy, random).cloned()
    }
}

/// What a worker remembers about one priority.
#[derive(Debug, Default)]
struct Level {
    all: Source,
    healthy: Source,
    degraded: Source,
    healthy_localities: Option<Localities>,
    degraded_localities: Option<Localities>,
}

/// Localities of a priority by effective weight, and a source for each.
#[derive(Debug)]
struct Localities {
    schedule: Edf,
    sources: Vec<Source>,
}

/// How far the choice among one list of hosts has come.
#[derive(Debug, Default)]
struct Source {
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
    fn new(
        priority: &PriorityHosts,
        set: &HostSet,
        former: Option<Self>,
        locality_weighted: bool,
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
            if !locality_weighted || weights.iter().all(|&weight| weight <= 0.0) {
                return None;
            }
            let sources = weights.iter().map(|_| Source::random(random)).collect();
            Some(Localities { schedule: Edf::new(&weights, random.f64()), sources })
        };
        Self {
            healthy_localities: localities(Availability::Healthy),
            degraded_localities: localities(Availability::Degraded),
            all: former.all.renewed(),
            healthy: former.healthy.renewed(),
            degraded: former.degraded.renewed(),
        }
    }

    /// The hosts to choose from, and how far the choice among them has come.
    fn source<'a>(
        &'a mut self,
        hosts: &'a PriorityHosts,
        availability: Availability,
    ) -> (&'a mut Source, &'a [Arc<Host>]) {
        let (localities, source, list) = match availability {
            Availability::Panic => return (&mut self.all, &hosts.hosts),
            Availability::Healthy => (&mut self.healthy_localities, &mut self.healthy, &hosts.healthy),
            Availability::Degraded => (&mut self.degraded_localities, &mut self.degraded, &hosts.degraded),
        };
        let Some(Localities { schedule, sources }) = localities else { return (source, list) };
        // A locality's weight is that of its hosts when the set was built.
        let chosen = schedule.pick(|_, weight| weight);
        match chosen.and_then(|index| Some((sources.get_mut(index)?, hosts.localities.get(index)?))) {
            Some((source, locality)) if availability == Availability::Healthy => (source, &locality.healthy),
            Some((source, locality)) => (source, &locality.degraded),
            None => (source, list),
        }
    }
}

impl Source {
    fn random(random: &mut fastrand::Rng) -> Self {
        Self { weighted: None, rotation: random.usize(..) }
    }

    /// The same place in the rotation, other hosts.
    fn renewed(self) -> Self {
        Self { weighted: None, rotation: self.rotation }
    }

    fn pick<'a>(
        &mut self,
        hosts: &'a [Arc<Host>],
        policy: &LbPolicy,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<Host>> {
        let first = hosts.first()?;
        if hosts.len() == 1 {
            return Some(first);
        }
        match policy {
            LbPolicy::Random | LbPolicy::ClusterProvided => hosts.get(random.usize(..hosts.len())),
            LbPolicy::RoundRobin => match self.weighting(hosts, random, |host| f64::from(host.weight())) {
                Weighting::Unequal(schedule) => hosts.get(schedule.pick(|_, weight| weight)?),
                Weighting::Equal => {
                    self.rotation = self.rotation.wrapping_add(1);
                    hosts.get(self.rotation % hosts.len())
                }
            },
            LbPolicy::LeastRequest(tuning) => {
                let weight = |host: &Host| loaded_weight(host, tuning.active_request_bias);
                match self.weighting(hosts, random, weight) {
                    Weighting::Unequal(schedule) => {
                        let picked = schedule.pick(|index, former| hosts.get(index).map_or(former, |h| weight(h)));
                        hosts.get(picked?)
                    }
                    Weighting::Equal if tuning.full_scan => least_loaded(hosts, random),
                    Weighting::Equal => Some(least_of_choices(first, hosts, tuning, random)),
                }
            }
        }
    }

    fn weighting(
        &mut self,
        hosts: &[Arc<Host>],
        random: &mut fastrand::Rng,
        weight: impl Fn(&Host) -> f64,
    ) -> &mut Weighting {
        self.weighted.get_or_insert_with(|| {
            let equal = hosts.windows(2).all(|pair| matches!(pair, [a, b] if a.weight() == b.weight()));
            if equal {
                return Weighting::Equal;
            }
            let weights: Vec<f64> = hosts.iter().map(|host| weight(host)).collect();
            Weighting::Unequal(Edf::new(&weights, random.f64()))
        })
    }
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

#[cfg(test)]
mod tests;

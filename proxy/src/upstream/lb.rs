//! Load balancing: which host a request goes to.
//!
//! A [`Scheduler`] belongs to one worker and one cluster. It is built from what control publishes and primed with a
//! random phase, so that workers do not march in step. A pick goes through these decisions, as in Envoy:
//!
//! 0. [`override_host`]: the host the request asks for, where it may (`Cluster::pick`);
//! 1. [`subset`]: which part of the hosts the request may go to, where there are subsets;
//! 2. [`priority`]: the priority level, and whether its healthy, degraded or (in panic) all hosts are used;
//! 3. the policy among those hosts: `rotation` takes turns, `hashing` looks the request's hash up.
//!
//! A host's health may change after its set was built. A pick that meets such a host divides the set again by health
//! as of now and picks anew; that a host got well is learnt from the next published set.

pub mod edf;
pub mod hashing;
pub mod original_dst;
pub mod override_host;
pub mod priority;
mod rotation;
pub mod subset;
pub mod zone;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use self::hashing::HashTable;
use self::original_dst::OriginalDstHosts;
use self::override_host::Asking;
use self::priority::{Availability, Levels, PriorityLoads};
use self::rotation::Level;
use self::subset::{SubsetNote, SubsetSchedulers};
use self::zone::{LocalHosts, ZoneNote, ZoneRouting};
use super::host::{Health, Host, HostSet};
use filters::matcher::Runtime;

use crate::config::cluster::{LbConfig, LbPolicy, ZONE_ROUTING_KEY};
use crate::route::MetadataMatch;

/// Other loads of priorities than a cluster's usual ones; `None` leaves them.
pub type OtherLoads<'a> = dyn Fn(&dyn Levels, &LbConfig) -> Option<PriorityLoads> + 'a;

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
    /// The request's hash, for policies that [hash](LbConfig::hashes); a random one without it.
    pub hash: Option<u64>,
    /// What the request's route says about hosts, for clusters with subsets.
    pub metadata: Option<&'a MetadataMatch>,
    /// The request itself, for clusters that let it say [which host it goes to](LbConfig::override_host).
    pub asking: Option<&'a Asking<'a>>,
    /// The cluster the proxy belongs to, if it knows: requests stay in its zone where that is fair.
    pub local: Option<&'a LocalHosts>,
    /// What the runtime has to say about zones, where they matter.
    pub runtime: Option<&'a dyn Runtime>,
    /// The priority, and which of its hosts, where an aggregate chose that already.
    pub level: Option<(usize, Availability)>,
}

/// Chooses hosts of one cluster, or of one subset of it, on one worker.
#[derive(Debug)]
pub struct Scheduler {
    /// As configured, and as it is for these hosts.
    usual: Arc<LbConfig>,
    config: Arc<LbConfig>,
    hosts: Arc<HostSet>,
    loads: PriorityLoads,
    random: fastrand::Rng,
    in_panic: bool,
    /// The clock of slow start.
    clock: fn() -> Instant,
    zones: Option<ZoneRouting>,
    zone_note: ZoneNote,
    /// Hosts of the next picks, where somebody wanted to know them ahead.
    foreseen: VecDeque<Arc<Host>>,
    state: State,
}

/// What a policy remembers.
#[derive(Debug)]
enum State {
    /// By priority.
    Turns(Vec<Level>),
    /// Nothing: what it looks hosts up in belongs to their set.
    Hash,
    OriginalDst(OriginalDstHosts),
    Subsets(Box<SubsetSchedulers>),
}

impl Scheduler {
    /// A scheduler over `hosts`, in a process with this many workers.
    #[must_use]
    pub fn new(config: Arc<LbConfig>, hosts: Arc<HostSet>, workers: usize, random: fastrand::Rng) -> Self {
        if config.policy == LbPolicy::ClusterProvided && config.subset.is_none() {
            let state = State::OriginalDst(OriginalDstHosts::new(workers));
            return Self::with_state(config, hosts, random, state);
        }
        Self::over(config, hosts, random)
    }

    /// A scheduler over given hosts.
    fn over(config: Arc<LbConfig>, hosts: Arc<HostSet>, random: fastrand::Rng) -> Self {
        let state = match &config.subset {
            Some(subset) => State::Subsets(Box::new(SubsetSchedulers::new(subset, &config))),
            None if config.hashes() => State::Hash,
            None => State::Turns(Vec::new()),
        };
        Self::with_state(config, hosts, random, state)
    }

    fn with_state(config: Arc<LbConfig>, hosts: Arc<HostSet>, random: fastrand::Rng, state: State) -> Self {
        let loads = PriorityLoads::default();
        let clock = Instant::now;
        let mut scheduler = Self {
            usual: Arc::clone(&config),
            config,
            hosts: Arc::default(),
            loads,
            random,
            in_panic: false,
            clock,
            zones: None,
            zone_note: ZoneNote::default(),
            foreseen: VecDeque::new(),
            state,
        };
        scheduler.refresh(hosts);
        scheduler
    }

    /// Goes on with other hosts. Rotations keep their place.
    pub fn refresh(&mut self, hosts: Arc<HostSet>) {
        self.config = Arc::clone(hosts.tuned().unwrap_or(&self.usual));
        self.loads = PriorityLoads::new(&hosts, &self.config);
        self.zones = None;
        self.foreseen.clear();
        match &mut self.state {
            State::Turns(levels) => {
                let (config, random) = (&self.config, &mut self.random);
                let mut former = std::mem::take(levels).into_iter();
                let levels_of = hosts.priorities.iter();
                *levels = levels_of.map(|level| Level::new(level, &hosts, former.next(), config, random)).collect();
            }
            State::Hash => {}
            State::OriginalDst(known) => known.published(&hosts),
            State::Subsets(schedulers) => schedulers.refresh(hosts.subsets(&self.config)),
        }
        self.hosts = hosts;
    }

    /// The host for a request; `None` when there is none to choose.
    pub fn pick(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        match &mut self.state {
            State::Turns(_) => self.pick_wanted(context),
            State::Hash => self.pick_hashed(context),
            State::OriginalDst(hosts) => Some(hosts.pick(context.destination?)),
            State::Subsets(schedulers) => {
                let subsets = self.hosts.subsets(&self.config);
                let picked = schedulers.pick(subsets, context, &mut self.random);
                (self.in_panic, self.zone_note) = (schedulers.in_panic, schedulers.zone_note);
                picked
            }
        }
    }

    /// The host of the pick after those that were foreseen already; `None` where that cannot be known, or nearly every host
    /// was named. Policies that look hosts up by a request, or compare their load, do not know it.
    pub fn foresee(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let State::Turns(_) = &self.state else { return None };
        let levels = &self.hosts.priorities;
        let healthy: usize = levels.iter().map(|level| level.healthy.len()).sum();
        let alike = || {
            let mut weights = levels.iter().map(|level| level.hosts.windows(2));
            weights.all(|mut pairs| pairs.all(|pair| matches!(pair, [a, b] if a.weight() == b.weight())))
        };
        if self.foreseen.len() >= healthy || (matches!(self.config.policy, LbPolicy::LeastRequest(_)) && alike()) {
            return None;
        }
        let host = self.pick_anew(context)?;
        self.foreseen.push_back(Arc::clone(&host));
        Some(host)
    }

    /// Whether the last pick ignored health because too few hosts are available (`lb_healthy_panic`).
    #[must_use]
    pub const fn in_panic(&self) -> bool {
        self.in_panic
    }

    /// How the last pick among subsets ended; `None` without subsets.
    #[must_use]
    pub fn subset_note(&self) -> Option<SubsetNote> {
        match &self.state {
            State::Subsets(schedulers) => Some(schedulers.note),
            _ => None,
        }
    }

    /// What the last pick, with a [local cluster](PickContext::local), came upon.
    #[must_use]
    pub const fn zone_note(&self) -> ZoneNote {
        self.zone_note
    }

    /// The hosts it chooses from.
    #[must_use]
    pub const fn hosts(&self) -> &Arc<HostSet> {
        &self.hosts
    }

    /// Hosts an `ORIGINAL_DST` cluster made for new destinations since the last call: to be sent to the control thread,
    /// so that they are counted and swept.
    pub fn take_created(&mut self) -> Vec<Arc<Host>> {
        match &mut self.state {
            State::OriginalDst(hosts) => hosts.take_created(),
            _ => Vec::new(),
        }
    }

    /// A host in turn, picked again while it is to be avoided.
    fn pick_wanted(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
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

    fn pick_available(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        if !self.foreseen.is_empty()
            && context.loads.is_none()
            && context.level.is_none()
            && let Some(host) = self.foreseen.pop_front().filter(|host| self.is_current(host))
        {
            return Some(host);
        }
        self.pick_anew(context)
    }

    fn pick_anew(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let picked = self.pick_once(context)?;
        if self.is_current(&picked) {
            return Some(picked);
        }
        // Overtaken by a change of health: one division by health as of now is as good as any number.
        let hosts = Arc::new(self.hosts_now());
        self.refresh(hosts);
        self.pick_once(context)
    }

    /// The hosts, divided by health as of now.
    fn hosts_now(&self) -> HostSet {
        let hosts = self.hosts.rebuilt();
        if let Some(tuned) = self.hosts.tuned() {
            hosts.tune(Arc::clone(tuned));
        }
        hosts
    }

    /// Whether the host still is what it was chosen as.
    fn is_current(&self, host: &Host) -> bool {
        self.in_panic || host.health() != Health::Unhealthy
    }

    fn pick_once(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let (priority, availability) = match context.level {
            Some((priority, availability)) => (priority, self.loads.within(priority, availability)),
            None => {
                let others = context.loads.and_then(|loads| loads(&*self.hosts, &self.config));
                others.as_ref().unwrap_or(&self.loads).choose(self.random.u64(..))
            }
        };
        self.in_panic = availability == Availability::Panic;
        if self.in_panic && self.config.zone_aware.fail_traffic_on_panic {
            return None;
        }
        let zone = match context.local {
            Some(local) if priority == 0 && !self.in_panic => self.choose_zone(local, context.runtime)?,
            _ => None,
        };
        let Self { config, hosts, random, clock, state, .. } = self;
        let State::Turns(levels) = state else { return None };
        let (level, hosts) = (levels.get_mut(priority)?, hosts.priorities.get(priority)?);
        let (source, hosts) = level.source(hosts, availability, zone, random)?;
        source.pick(hosts, config, random, *clock).cloned()
    }

    /// The locality a request stays in, or leaves for, as far as zones matter; no request is served at all (`None`) where
    /// the proxies of the cluster are not well and that is to fail.
    #[expect(clippy::option_option, reason = "no zone and no host are two things")]
    fn choose_zone(&mut self, local: &LocalHosts, runtime: Option<&dyn Runtime>) -> Option<Option<usize>> {
        let Self { config, hosts, zones, zone_note, random, .. } = self;
        *zone_note = ZoneNote::default();
        if !zones.as_ref().is_some_and(|zones| zones.is_for(local)) {
            *zones = Some(ZoneRouting::new(hosts, local, config, zone_note));
        }
        let Some(zones) = zones.as_ref().filter(|zones| zones.is_in_force()) else { return Some(None) };
        // Whoever weighs localities has chosen one already; see `Level::source`.
        let enabled = runtime.and_then(|runtime| runtime.integer(ZONE_ROUTING_KEY));
        let enabled = enabled.unwrap_or_else(|| config.zone_aware.routing_enabled.into());
        if config.locality_weighted || random.u64(..100) >= enabled {
            return Some(None);
        }
        let threshold = runtime.map_or(config.healthy_panic_threshold, |runtime| config.panic_threshold(runtime));
        let too_few = local.hosts.priorities.first().is_none_or(|level| priority::in_panic(level, threshold));
        if too_few {
            zone_note.local_not_ok = true;
            return (!config.zone_aware.fail_traffic_on_panic).then_some(None);
        }
        Some(zones.choose(random, zone_note))
    }

    /// The host at the request's hash, or at the next attempts' while those are to be avoided.
    fn pick_hashed(&mut self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let hash = context.hash.unwrap_or_else(|| self.random.u64(..));
        let (priority, _) = self.loads.choose(hash);
        let table = self.hosts.tables(&self.config).get(priority)?;
        self.in_panic = table.in_panic();
        let overall = || self.hosts.hosts().map(|host| host.state().active_requests()).sum();
        let mut picked = None;
        for attempt in 0..context.max_attempts.max(1) {
            picked = table.choose(hash, attempt, overall);
            if !picked.is_some_and(|host| context.avoid.is_some_and(|avoid| avoid(host))) {
                break;
            }
        }
        let picked = picked?;
        if self.is_current(picked) {
            return Some(picked.clone());
        }
        // Overtaken by a change of health. The next tables are on their way: until then the next host that is well, in the
        // priority that load falls to now, or in any, if health still is to be minded.
        let now = PriorityLoads::new(&self.hosts_now(), &self.config);
        if now.in_panic(priority) {
            self.in_panic = true;
            return Some(picked.clone());
        }
        let tables = self.hosts.tables(&self.config);
        let well = |table: &'_ HashTable| table.choose_where(hash, |host| host.health() != Health::Unhealthy).cloned();
        tables.get(now.choose(hash).0).and_then(well).or_else(|| tables.iter().find_map(well))
    }
}

#[cfg(test)]
mod tests;

//! Outlier detection's books: one [`Detector`] per version of a cluster, on the control thread.
//!
//! Sans-io: findings of workers, sets of hosts and the time come in, [`OutlierEvent`]s come out. See
//! [`upstream::outlier`](crate::upstream::outlier) for how the work is divided.
//!
//! Every interval a sweep ends the ejections whose time is over, compares how well requests went since the sweep before
//! (success rate against the mean of the cluster, share of failures against a threshold), and makes the next ejection of
//! hosts that behaved shorter again.

mod comparison;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use filters::matcher::Runtime;

pub use self::comparison::{Comparison, Rates};
use super::NEVER;
use crate::config::cluster::{OutlierConfig, time};
use crate::upstream::host::{HealthFlags, Host, HostSet, HostState};
use crate::upstream::outlier::{Detection, Finding, Kind, Origin, Verdict, Volume};

/// Judges the hosts of one version of a cluster.
#[derive(Debug)]
pub(super) struct Detector {
    detection: Arc<Detection>,
    /// By the number of the host's state.
    hosts: BTreeMap<u64, Watched>,
    /// The set `hosts` was brought up to date with.
    known: Option<Arc<HostSet>>,
    sweep_at: Instant,
    rates: Rates,
    events: Vec<OutlierEvent>,
}

/// Something to count and to log.
#[derive(Debug, Clone)]
pub struct OutlierEvent {
    /// The host.
    pub host: Arc<Host>,
    /// What happened to it.
    pub what: OutlierChange,
    /// How often it was ejected so far.
    pub ejections: u32,
    /// Since the opposite happened to it last.
    pub since_last: Option<Duration>,
    /// How many hosts of the cluster are ejected now (`ejections_active`).
    pub active: u32,
}

/// What happened to a host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OutlierChange {
    /// A detector found it.
    Found {
        /// Which detector, and what became of it.
        finding: Finding,
        /// Its success rate, where that was what counted.
        rate: Option<f64>,
        /// That of the cluster, where it was compared.
        comparison: Option<Comparison>,
    },
    /// It is back.
    Readmitted,
    /// It left the cluster while it was ejected.
    Left,
}

impl OutlierChange {
    /// Whether the host was ejected.
    pub(super) fn ejects(self) -> bool {
        matches!(self, Self::Found { finding, .. } if finding.verdict == Verdict::Enforced && finding.kind != Kind::Degraded)
    }

    /// Whether the host's health is another one now.
    const fn is_change(&self) -> bool {
        match self {
            Self::Found { finding, .. } => matches!(finding.verdict, Verdict::Enforced),
            Self::Readmitted | Self::Left => true,
        }
    }
}

/// One host's record.
#[derive(Debug)]
struct Watched {
    host: Arc<Host>,
    /// Since when it is ejected; `None` when it is not, or when its worker has not reported it yet.
    ejected: Option<Instant>,
    degraded: Option<Instant>,
    ejections: u32,
    last_ejection: Option<Instant>,
    last_readmission: Option<Instant>,
    /// Its ejection lasts this many times the base time.
    times: u32,
    degraded_times: u32,
    jitter: Duration,
    /// Counts at the last sweep.
    before: [Volume; 2],
    /// Success rates in percent, of the last interval, where it had enough requests.
    rates: [Option<f64>; 2],
}

const ORIGINS: [Origin; 2] = [Origin::External, Origin::Local];

impl Detector {
    /// Hosts come with [`Self::sync`]; the first sweep is due one interval after `now`.
    pub(super) fn new(cluster: Arc<str>, config: &OutlierConfig, now: Instant, runtime: &dyn Runtime) -> Self {
        let mut detector = Self {
            detection: Detection::new(cluster, config.clone()),
            hosts: BTreeMap::new(),
            known: None,
            sweep_at: now,
            rates: Rates::default(),
            events: Vec::new(),
        };
        detector.arm(now, runtime);
        detector
    }

    /// When the next sweep is due.
    pub(super) const fn deadline(&self) -> Instant {
        self.sweep_at
    }

    /// What the last sweep computed.
    pub(super) const fn rates(&self) -> Rates {
        self.rates
    }

    /// A host's success rates in percent, by its answers and by whether it could be reached.
    pub(super) fn host_rates(&self, host: &Host) -> [Option<f64>; 2] {
        self.hosts.get(&host.id()).map_or([None, None], |watched| watched.rates)
    }

    /// Whether this host is watched here.
    pub(super) fn watches(&self, host: &HostState) -> bool {
        self.hosts.contains_key(&host.id())
    }

    /// What happened since the last call.
    pub(super) fn take_events(&mut self) -> Vec<OutlierEvent> {
        std::mem::take(&mut self.events)
    }

    /// The cluster has these hosts now.
    pub(super) fn sync(&mut self, set: &Arc<HostSet>) {
        if self.known.as_ref().is_some_and(|known| Arc::ptr_eq(known, set)) {
            return;
        }
        self.known = Some(Arc::clone(set));
        let mut present = BTreeSet::new();
        for host in set.hosts() {
            present.insert(host.id());
            host.state().watch(&self.detection);
            let watched = self.hosts.entry(host.id()).or_insert_with(|| Watched::new(host));
            watched.host = Arc::clone(host);
        }
        self.detection.set_hosts(present.len());
        let gone: Vec<u64> = self.hosts.keys().filter(|id| !present.contains(id)).copied().collect();
        for id in gone {
            let Some(watched) = self.hosts.remove(&id) else { continue };
            if self.detection.readmit(watched.host.state()) {
                self.events.push(self.event(&watched, OutlierChange::Left, None));
            }
        }
    }

    /// A worker found a host to be an outlier, and decided.
    pub(super) fn on_finding(
        &mut self,
        now: Instant,
        host: &HostState,
        finding: Finding,
        runtime: &dyn Runtime,
        random: &mut fastrand::Rng,
    ) {
        self.book(now, host.id(), finding, None, runtime, random);
    }

    /// A host passed a health check: whether that ended its ejection.
    pub(super) fn on_passed_check(&mut self, now: Instant, id: u64) -> bool {
        let ejected = |watched: &Watched| watched.host.state().flags().contains(HealthFlags::FAILED_OUTLIER_CHECK);
        if !self.detection.config().successful_active_health_check_uneject_host
            || !self.hosts.get(&id).is_some_and(ejected)
        {
            return false;
        }
        self.readmit(now, id);
        true
    }

    /// Does what is due; whether the health of any host changed.
    pub(super) fn on_timer(&mut self, now: Instant, runtime: &dyn Runtime, random: &mut fastrand::Rng) -> bool {
        if self.sweep_at > now {
            return false;
        }
        let before = self.events.len();
        let ids: Vec<u64> = self.hosts.keys().copied().collect();
        let mut intervals = Vec::with_capacity(ids.len());
        for &id in &ids {
            self.end_ejection_if_over(now, id, runtime);
            let Some(watched) = self.hosts.get_mut(&id) else { continue };
            let Some(monitor) = watched.host.state().monitor() else { continue };
            let volumes = ORIGINS.map(|origin| monitor.volume(origin));
            intervals.push((id, [volumes[0].since(watched.before[0]), volumes[1].since(watched.before[1])]));
            watched.before = volumes;
            watched.rates = [None, None];
        }
        for origin in ORIGINS {
            let of_origin = intervals.iter().map(|(id, volumes)| (*id, volumes[origin as usize])).collect();
            self.compare(now, origin, of_origin, runtime, random);
        }
        let interval = self.interval(runtime);
        for watched in self.hosts.values_mut() {
            let behaved = watched.last_readmission.is_some_and(|at| now.saturating_duration_since(at) >= interval);
            if behaved && !watched.is_ejected() {
                watched.times = watched.times.saturating_sub(1);
            }
        }
        self.arm(now, runtime);
        self.events[before..].iter().any(|event| event.what.is_change())
    }

    fn interval(&self, runtime: &dyn Runtime) -> Duration {
        time(runtime, "outlier_detection.interval_ms", self.detection.config().interval)
    }

    fn arm(&mut self, now: Instant, runtime: &dyn Runtime) {
        // An interval of nothing would keep the control thread from everything else.
        let interval = self.interval(runtime).max(Duration::from_millis(1));
        self.sweep_at = now.checked_add(interval).unwrap_or(now + NEVER);
    }

    /// Ends an ejection, or a time of being degraded, that lasted long enough.
    fn end_ejection_if_over(&mut self, now: Instant, id: u64, runtime: &dyn Runtime) {
        let Times { base, longest } = self.times(runtime);
        let Some(watched) = self.hosts.get_mut(&id) else { return };
        let over = |since: Option<Instant>, times: u32| {
            let lasts = base.saturating_mul(times).min(longest).saturating_add(watched.jitter);
            since.is_some_and(|since| now.saturating_duration_since(since) >= lasts)
        };
        let (eject_over, degrade_over) =
            (over(watched.ejected, watched.times), over(watched.degraded, watched.degraded_times));
        if degrade_over {
            watched.degraded = None;
            watched.host.state().change_flags(HealthFlags::NONE, HealthFlags::DEGRADED_OUTLIER_DETECTION);
            let since_last = watched.last_ejection.map(|at| now.saturating_duration_since(at));
            if let Some(watched) = self.hosts.get(&id) {
                self.events.push(self.event(watched, OutlierChange::Readmitted, since_last));
            }
        }
        if eject_over {
            self.readmit(now, id);
        }
    }

    /// Takes a host back.
    fn readmit(&mut self, now: Instant, id: u64) {
        let Some(watched) = self.hosts.get_mut(&id) else { return };
        if !self.detection.readmit(watched.host.state()) {
            return;
        }
        watched.ejected = None;
        watched.last_readmission = Some(now);
        let since_last = watched.last_ejection.map(|at| now.saturating_duration_since(at));
        if let Some(monitor) = watched.host.state().monitor() {
            monitor.reset();
        }
        if let Some(watched) = self.hosts.get(&id) {
            self.events.push(self.event(watched, OutlierChange::Readmitted, since_last));
        }
    }

    /// Writes down what became of a host that was found.
    fn book(
        &mut self,
        now: Instant,
        id: u64,
        finding: Finding,
        figures: Option<(f64, Option<Comparison>)>,
        runtime: &dyn Runtime,
        random: &mut fastrand::Rng,
    ) {
        let Times { base, longest } = self.times(runtime);
        let jitter_key = "outlier_detection.max_ejection_time_jitter_ms";
        let jitter = time(runtime, jitter_key, self.detection.config().max_ejection_time_jitter);
        let Some(watched) = self.hosts.get_mut(&id) else { return };
        if finding.verdict == Verdict::Enforced {
            let jitter = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
            watched.jitter = Duration::from_millis(random.u64(..=jitter));
            let times = if finding.kind == Kind::Degraded {
                watched.degraded = Some(now);
                &mut watched.degraded_times
            } else {
                watched.ejected = Some(now);
                watched.last_ejection = Some(now);
                watched.ejections += 1;
                &mut watched.times
            };
            // It grows until the longest time is reached, and no further: it has to come down again.
            if base.saturating_mul(*times) < longest.saturating_add(base) {
                *times += 1;
            }
        }
        let since_last = watched.last_readmission.map(|at| now.saturating_duration_since(at));
        let (rate, comparison) = figures.map_or((None, None), |(rate, comparison)| (Some(rate), comparison));
        let what = OutlierChange::Found { finding, rate, comparison };
        if let Some(watched) = self.hosts.get(&id) {
            self.events.push(self.event(watched, what, since_last));
        }
    }

    fn event(&self, watched: &Watched, what: OutlierChange, since_last: Option<Duration>) -> OutlierEvent {
        OutlierEvent {
            host: Arc::clone(&watched.host),
            what,
            ejections: watched.ejections,
            since_last,
            active: self.detection.ejected(),
        }
    }

    fn times(&self, runtime: &dyn Runtime) -> Times {
        let config = self.detection.config();
        Times {
            base: time(runtime, "outlier_detection.base_ejection_time_ms", config.base_ejection_time),
            longest: time(runtime, "outlier_detection.max_ejection_time_ms", config.max_ejection_time),
        }
    }
}

/// How long ejections last.
struct Times {
    base: Duration,
    longest: Duration,
}

impl Watched {
    fn new(host: &Arc<Host>) -> Self {
        Self {
            host: Arc::clone(host),
            ejected: None,
            degraded: None,
            ejections: 0,
            last_ejection: None,
            last_readmission: None,
            times: 0,
            degraded_times: 0,
            jitter: Duration::ZERO,
            before: Default::default(),
            rates: [None, None],
        }
    }

    fn is_ejected(&self) -> bool {
        self.host.state().flags().contains(HealthFlags::FAILED_OUTLIER_CHECK)
    }
}

#[cfg(test)]
mod tests;

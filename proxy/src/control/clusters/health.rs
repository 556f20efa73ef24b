//! Active health checks of one version of a cluster: whom to ask when, and what the answers make of hosts.
//!
//! Sans-io: sets of hosts, reports and the time come in, [`HealthNews`] come out. See [`control::health`](crate::control::health)
//! for how the work is divided.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use filters::matcher::Runtime;
use filters::stream_info::Address;

use super::NEVER;
use crate::config::cluster::{ClusterConfig, HealthCheck};
use crate::control::health::session::{Event, Report, Session, Transition};
use crate::tls::statistics::TlsCounters;
use crate::upstream::host::{HealthFlags, Host, HostSet};

/// The checks of one version of a cluster.
#[derive(Debug)]
pub(super) struct Checks {
    config: Arc<ClusterConfig>,
    check: Arc<HealthCheck>,
    /// By the number of the host's state.
    hosts: BTreeMap<u64, Checked>,
    /// Hosts that wait for their next check, the first to be asked first.
    due: BTreeSet<(Instant, u64)>,
    /// The set `hosts` was brought up to date with.
    known: Option<Arc<HostSet>>,
    news: Vec<HealthNews>,
}

/// A host and how far its checks are.
#[derive(Debug)]
struct Checked {
    host: Arc<Host>,
    session: Session,
    /// It has answered once, or failed to.
    answered: bool,
    /// When it is asked next; `None` while an answer is awaited.
    due: Option<Instant>,
}

/// Something to do or to count.
#[derive(Debug)]
pub enum HealthNews {
    /// A host is to be asked.
    Ask(Probe),
    /// The host with this number is to be asked no more.
    End(u64),
    /// The host with this number has failed.
    Failed(u64),
    /// To be counted.
    Count(HealthCount),
    /// To be logged.
    Log(HealthEvent),
}

/// Something for the log of health check events.
#[derive(Debug, Clone)]
pub struct HealthEvent {
    /// The host.
    pub host: Arc<Host>,
    /// What happened.
    pub event: Event,
    /// What came of the question.
    pub report: Report,
    /// The status the host answered a check by HTTP with that it failed; 0 where there is none.
    pub status: u16,
    /// It was the first check of the host.
    pub first: bool,
}

/// One question to one host.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The cluster.
    pub config: Arc<ClusterConfig>,
    /// The host's number.
    pub id: u64,
    /// The host.
    pub host: Arc<Host>,
    /// Where it is asked.
    pub address: Address,
    /// What it is asked.
    pub check: Arc<HealthCheck>,
    /// The runtime wants the answer's `x-envoy-upstream-healthchecked-cluster` to be looked at.
    pub verify_cluster: bool,
    /// What is counted of the handshake with it: set by who asks.
    pub tls_counters: Option<Rc<TlsCounters>>,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The outcome.
    pub report: Report,
    /// Whose host it is was looked at, too.
    pub verified: bool,
    /// The status of the answer to a check by HTTP; 0 where there is none.
    pub status: u16,
}

/// What is counted below `health_check.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthCount {
    /// `attempt`
    Attempt,
    /// `success`
    Success,
    /// `failure`, and `network_failure` or `passive_failure` where the report says so.
    Failure(Report),
    /// `verify_cluster`
    VerifyCluster,
    /// One host more (true) or less among the `healthy`.
    Healthy(bool),
    /// One host more (true) or less among the `degraded`.
    Degraded(bool),
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The host passed.
    pub(super) passed: bool,
    /// Hosts are to be divided anew.
    pub(super) changed: bool,
}

impl Checks {
    /// Hosts come with [`Self::sync`].
    pub(super) const fn new(config: Arc<ClusterConfig>, check: Arc<HealthCheck>) -> Self {
        Self { config, check, hosts: BTreeMap::new(), due: BTreeSet::new(), known: None, news: Vec::new() }
    }

    /// When the next host is to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many hosts are checked.
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether the host with this number is.
    pub(super) fn has(&self, host: u64) -> bool {
        self.hosts.contains_key(&host)
    }

    /// What there is to do and to tell since the last call.
    pub(super) fn take_news(&mut self) -> Vec<HealthNews> {
        std::mem::take(&mut self.news)
    }

    /// The cluster has these hosts now. Answers how many left that had never been heard of.
    pub(super) fn sync(&mut self, now: Instant, set: &Arc<HostSet>, runtime: &dyn Runtime) -> usize {
        if self.known.as_ref().is_some_and(|known| Arc::ptr_eq(known, set)) {
            return 0;
        }
        self.known = Some(Arc::clone(set));
        let mut present = BTreeSet::new();
        for host in set.hosts().filter(|host| !host.is_unchecked()) {
            present.insert(host.id());
            if let Some(known) = self.hosts.get_mut(&host.id()) {
                known.host = Arc::clone(host);
            } else {
                self.begin(now, host, runtime);
            }
        }
        let gone: Vec<u64> = self.hosts.keys().filter(|id| !present.contains(id)).copied().collect();
        gone.into_iter().filter(|id| self.forget(*id)).count()
    }

    /// No host is checked any more.
    pub(super) fn end(&mut self) {
        let all: Vec<u64> = self.hosts.keys().copied().collect();
        for id in all {
            self.forget(id);
        }
        self.known = None;
    }

    /// Asks the hosts whose time has come.
    pub(super) fn on_timer(&mut self, now: Instant, runtime: &dyn Runtime) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            self.ask(id, runtime);
        }
    }

    /// A host answered or did not. `None` if it is not checked here.
    pub(super) fn on_report(
        &mut self,
        now: Instant,
        id: u64,
        Answer { report, verified, status }: Answer,
        used: bool,
        runtime: &dyn Runtime,
        random: &mut fastrand::Rng,
    ) -> Option<Outcome> {
        let checked = self.hosts.get_mut(&id)?;
        checked.answered = true;
        let state = checked.host.state();
        let before = state.flags();
        let timing = &self.check.timing;
        let verdict = checked.session.on_report(report, before, timing);
        let (set, clear) = verdict.flags;
        state.change_flags(set, clear);
        if verdict.transition == Transition::Changed && set.contains(HealthFlags::FAILED_ACTIVE_HC) {
            self.news.push(HealthNews::Failed(id));
        }
        let events = &self.check.events;
        for event in verdict.events {
            let logged = match event {
                Event::Failure => verdict.first || events.always_failures,
                Event::Success => events.always_success,
                Event::Healthy | Event::Unhealthy | Event::Degraded | Event::NoLongerDegraded => true,
            };
            if logged && !events.logs.is_empty() {
                let host = Arc::clone(&checked.host);
                self.news.push(HealthNews::Log(HealthEvent { host, event, report, status, first: verdict.first }));
            }
        }
        let passed = matches!(report, Report::Passed { .. });
        if passed && before.contains(HealthFlags::FAILED_ACTIVE_HC) {
            state.mark_healthy(now);
        }
        // What was seen elsewhere does not end a check.
        if report != Report::Seen {
            let pause = timing.next_check(passed, verdict.transition, used, &mut |below| random.u64(..below));
            let next = now.checked_add(bounded(pause, runtime)).unwrap_or(now + NEVER);
            if let Some(due) = checked.due.replace(next) {
                self.due.remove(&(due, id));
            }
            self.due.insert((next, id));
        }
        if verified {
            self.news.push(HealthNews::Count(HealthCount::VerifyCluster));
        }
        self.news.push(HealthNews::Count(if passed { HealthCount::Success } else { HealthCount::Failure(report) }));
        // Envoy does not take back that a host degraded: it stays counted until the cluster goes.
        let after = before.without(clear.without(HealthFlags::DEGRADED_ACTIVE_HC)) | set;
        self.count_change(before, after);
        Some(Outcome { passed, changed: verdict.transition == Transition::Changed })
    }

    fn begin(&mut self, now: Instant, host: &Arc<Host>, runtime: &dyn Runtime) {
        let (id, flags) = (host.id(), host.state().flags());
        host.state().check_by(&self.config.name);
        let wait = self.check.timing.first_check(&mut |below| fastrand::u64(..below));
        let checked = Checked { host: Arc::clone(host), session: Session::default(), answered: false, due: None };
        self.hosts.insert(id, checked);
        self.count_change(HealthFlags::FAILED_ACTIVE_HC, flags);
        if wait.is_zero() {
            self.ask(id, runtime);
        } else {
            self.wait(id, now.checked_add(wait).unwrap_or(now + NEVER));
        }
    }

    fn wait(&mut self, id: u64, until: Instant) {
        if let Some(checked) = self.hosts.get_mut(&id) {
            checked.due = Some(until);
            self.due.insert((until, id));
        }
    }

    fn ask(&mut self, id: u64, runtime: &dyn Runtime) {
        let Some(checked) = self.hosts.get_mut(&id) else { return };
        checked.due = None;
        let host = Arc::clone(&checked.host);
        self.news.push(HealthNews::Count(HealthCount::Attempt));
        self.news.push(HealthNews::Ask(Probe {
            config: Arc::clone(&self.config),
            id,
            address: host.check_address(),
            host,
            check: Arc::clone(&self.check),
            verify_cluster: runtime.integer("health_check.verify_cluster").is_none_or(|share| share > 0),
            tls_counters: None,
        }));
    }

    /// Ends the checks of a host; whether it had never been heard of.
    fn forget(&mut self, id: u64) -> bool {
        let Some(checked) = self.hosts.remove(&id) else { return false };
        if let Some(due) = checked.due {
            self.due.remove(&(due, id));
        }
        self.count_change(checked.host.state().flags(), HealthFlags::FAILED_ACTIVE_HC);
        self.news.push(HealthNews::End(id));
        !checked.answered
    }

    /// Counts what a change of a host's bits makes of the `healthy` and the `degraded`.
    fn count_change(&mut self, before: HealthFlags, after: HealthFlags) {
        let healthy = |flags: HealthFlags| !flags.contains(HealthFlags::FAILED_ACTIVE_HC);
        let degraded = |flags: HealthFlags| flags.contains(HealthFlags::DEGRADED_ACTIVE_HC);
        if healthy(before) != healthy(after) {
            self.news.push(HealthNews::Count(HealthCount::Healthy(healthy(after))));
        }
        if degraded(before) != degraded(after) {
            self.news.push(HealthNews::Count(HealthCount::Degraded(degraded(after))));
        }
    }
}

/// `health_check.min_interval` and `health_check.max_interval` of the runtime, in milliseconds.
fn bounded(pause: Duration, runtime: &dyn Runtime) -> Duration {
    let bound = |key: &str| runtime.integer(key).map(Duration::from_millis);
    let pause = bound("health_check.max_interval").map_or(pause, |longest| pause.min(longest));
    let pause = bound("health_check.min_interval").map_or(pause, |shortest| pause.max(shortest));
    // Without a pause the control thread would do nothing else.
    pause.max(Duration::from_millis(1))
}

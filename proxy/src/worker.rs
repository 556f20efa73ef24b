//! A worker: one OS thread with its own runtime, pools, timers, random numbers and statistics shard.
//!
//! Everything here belongs to its thread (`Rc`, `Cell`). What comes from outside comes as immutable snapshots through the
//! worker's [mailbox](mailbox::Mailbox) and is used by the next request or connection.

pub mod mailbox;
mod serve;
pub mod timer;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use filters::http::{Known, RequestHead, ResponseHead};
use filters::http_filter::Server;
use filters::matcher::{NoRuntime, Runtime};
use stats::{LazyShard, Store};
use tokio::sync::mpsc::UnboundedSender;

use self::mailbox::{Mailbox, Pending};
use self::serve::Listeners;
use self::timer::{Tick, Timers};
use crate::downstream::accept::{ConnectionBudget, ListenerId};
use crate::http::hygiene::DateCache;
use crate::http::manager::RouteSlot;
use crate::observe::access_log::WorkerLogs;
use crate::observe::catalogue::AsyncClientStats;
use crate::observe::threads::{Pulse, ThreadClusters};
use crate::overload::{Action, Shared as Overload};
use crate::transport::{Pipes, SCRATCH};
use crate::upstream::cluster::{Cluster, ClusterContext};
use crate::upstream::host::{HealthFlags, Host, HostSet, HostState, Locality};
use crate::upstream::lb::zone::LocalHosts;
use crate::upstream::outlier::{Finding, Outcome};

/// What every worker is given when it starts.
#[derive(Clone)]
pub struct Shared {
    /// Statistics.
    pub store: Arc<Store>,
    /// Connections of all listeners, and the process-wide limit.
    pub connections: Arc<ConnectionBudget>,
    /// What overload asks for.
    pub overload: Arc<Overload>,
    /// Where workers tell control things.
    pub reports: UnboundedSender<Report>,
    /// The zone this process runs in (`node.locality.zone`); empty if unknown.
    pub zone: Arc<str>,
    /// Begun when the whole server drains.
    pub drain: Arc<crate::downstream::drain::Drain>,
    /// The cluster the proxy belongs to (`local_cluster_name`), and where it stands in it.
    pub local: Option<(Arc<str>, Arc<Locality>)>,
}

/// What a worker tells control.
pub enum Report {
    /// An `ORIGINAL_DST` cluster met new destinations.
    HostsCreated(Arc<str>, Vec<Arc<Host>>),
    /// A host was found to be an outlier.
    Outlier {
        /// Of which cluster.
        cluster: Arc<str>,
        /// Which host.
        host: Arc<HostState>,
        /// What it was found to be, and what the worker did about it.
        finding: Finding,
    },
    /// A host answered a request, no health check, that it is to be taken for unhealthy.
    Failing {
        /// Of which cluster.
        cluster: Arc<str>,
        /// The number of the host's state.
        host: u64,
    },
    /// This worker no longer accepts for a listener.
    ListenerStopped(ListenerId),
}

/// The state of one worker thread.
pub struct Worker {
    index: usize,
    workers: usize,
    shared: Shared,
    timers: Rc<Timers>,
    scratch: RefCell<Box<[u8]>>,
    pipes: Pipes,
    rng: RefCell<fastrand::Rng>,
    connections: Cell<u64>,
    /// Looked into by every request; what it is keyed by comes from configuration.
    clusters: RefCell<foldhash::HashMap<Arc<str>, Rc<Cluster>>>,
    cluster_stats: ThreadClusters,
    calls: LazyShard<AsyncClientStats>,
    routes: RefCell<HashMap<Arc<str>, Rc<RouteSlot>>>,
    runtime: RefCell<Rc<dyn Runtime>>,
    date: Rc<DateCache>,
    logs: WorkerLogs,
    draining: Cell<bool>,
}

impl Server for Worker {
    fn health_check_failed(&self) -> bool {
        self.draining()
    }

    fn membership(&self, cluster: &str) -> Option<(usize, usize)> {
        let membership = self.cluster(cluster)?.hosts().membership();
        Some((membership.healthy + membership.degraded, membership.total))
    }
}

/// Starts worker `index` of `workers` on a thread of its own. The thread ends when its mailbox says so, and shows in
/// `pulse` until then whether it goes on.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start(
    index: usize,
    workers: usize,
    mailbox: Arc<Mailbox>,
    shared: Shared,
    pulse: Pulse,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("wrk:worker_{index}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "a worker cannot start");
                std::process::exit(1);
            }
        };
        runtime.block_on(async {
            pulse.begin();
            run(Worker::new(index, workers, shared), &mailbox).await;
        });
    })
}

async fn run(worker: Rc<Worker>, mailbox: &Arc<Mailbox>) {
    tokio::task::spawn_local(Rc::clone(&worker.timers).drive());
    tokio::task::spawn_local(flush_logs(Rc::clone(&worker)));
    let listeners = Listeners::new(&worker);
    loop {
        let pending = mailbox.take().await;
        if pending.exit {
            return;
        }
        worker.apply(pending, mailbox, &listeners);
    }
}

/// Lines a worker has formatted wait for others to leave with, this long at most.
const LOG_LATENCY: Duration = Duration::from_millis(50);

/// How often a worker that logs nothing asks whether a log file is still anybody's.
const LOG_FILES: Duration = Duration::from_secs(5);

/// Hands lines over, and sleeps while there are none: an idle sidecar is to cost nothing.
async fn flush_logs(worker: Rc<Worker>) {
    let (timers, logs) = (&worker.timers, &worker.logs);
    let alarm = timers.alarm();
    loop {
        let look = if logs.is_empty() { Tick::NEVER } else { timers.now().after(LOG_FILES) };
        poll_fn(|cx| match logs.poll_written(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => alarm.poll(look, cx),
        })
        .await;
        timers.sleep_until(timers.now().after(LOG_LATENCY)).await;
        logs.flush();
    }
}

impl Worker {
    /// The state of worker `index` of `workers`; made on its own thread.
    #[must_use]
    pub fn new(index: usize, workers: usize, shared: Shared) -> Rc<Self> {
        Self::with_timers(index, workers, shared, Timers::new())
    }

    fn with_timers(index: usize, workers: usize, shared: Shared, timers: Rc<Timers>) -> Rc<Self> {
        let cluster_stats = ThreadClusters::new(&shared.store, &format!("worker_{index}"), index);
        let calls = shared.store.group::<AsyncClientStats>("http.async-client.").lazy_shard(index);
        Rc::new(Self {
            index,
            workers,
            shared,
            timers,
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            pipes: Pipes::default(),
            rng: RefCell::new(fastrand::Rng::new()),
            connections: Cell::new(0),
            clusters: RefCell::default(),
            cluster_stats,
            calls,
            routes: RefCell::default(),
            runtime: RefCell::new(Rc::new(NoRuntime)),
            date: Rc::default(),
            logs: WorkerLogs::default(),
            draining: Cell::new(false),
        })
    }

    /// Number of the worker, from 0; also its statistics shard.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Pipes for connections that move bulk data.
    #[must_use]
    pub const fn pipes(&self) -> &Pipes {
        &self.pipes
    }

    /// How many workers there are.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// Tells control something.
    pub fn report(&self, report: Report) {
        // Without a control thread the process is ending.
        let _ = self.shared.reports.send(report);
    }

    /// Lets outlier detection know how a try on `host` ended; nothing happens in a cluster without it.
    pub fn note(&self, host: &Host, outcome: Outcome) {
        let state = host.state();
        let Some(monitor) = state.monitor() else { return };
        let runtime = self.runtime.borrow();
        let mut roll = |below: u64| self.with_rng(|rng| rng.u64(..below));
        for finding in monitor.record(state, self.index, outcome, &**runtime, &mut roll).into_iter().flatten() {
            let cluster = Arc::clone(monitor.detection().cluster());
            self.report(Report::Outlier { cluster, host: Arc::clone(state), finding });
        }
    }

    /// Does what an answer says about the health of its host (`x-envoy-immediate-health-check-fail`): it is left out of the
    /// totals at once, and its health check is told. Nothing happens where there is none.
    fn heed(&self, host: &Host, head: &ResponseHead) {
        let state = host.state();
        if let Some(cluster) = state.checked_by()
            && head.headers.contains(&Known::XEnvoyImmediateHealthCheckFail)
        {
            state.change_flags(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL, HealthFlags::NONE);
            self.report(Report::Failing { cluster: Arc::clone(cluster), host: state.id() });
        }
    }

    /// Lets outlier detection and health checks know how `host` answered `request`.
    pub fn note_answer(&self, host: &Host, request: Option<&RequestHead>, head: &ResponseHead) {
        self.heed(host, head);
        if let Some(monitor) = host.state().monitor() {
            let grpc = request.is_some_and(RequestHead::is_grpc);
            self.note(host, monitor.detection().outcome(head, grpc));
        }
    }

    /// The statistics registry.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Where requests of the worker's own are counted, such as mirrored ones (`http.async-client.`).
    #[must_use]
    pub const fn calls(&self) -> &LazyShard<AsyncClientStats> {
        &self.calls
    }

    /// What this worker shares with the others.
    #[must_use]
    pub const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The worker's clock and alarms.
    #[must_use]
    pub const fn timers(&self) -> &Rc<Timers> {
        &self.timers
    }

    /// The `date` header, made once a second.
    #[must_use]
    pub const fn date(&self) -> &Rc<DateCache> {
        &self.date
    }

    /// Whether every response asks its connection to close.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether an overload action applies now.
    #[must_use]
    pub fn overloaded(&self, action: Action) -> bool {
        self.shared.overload.applies(action, fastrand::f64)
    }

    /// Access-log lines on their way to the writers.
    #[must_use]
    pub const fn logs(&self) -> &WorkerLogs {
        &self.logs
    }

    /// The runtime layers as of now.
    #[must_use]
    pub fn runtime(&self) -> Rc<dyn Runtime> {
        Rc::clone(&self.runtime.borrow())
    }

    /// A cluster by name.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<Rc<Cluster>> {
        self.clusters.borrow().get(name).cloned()
    }

    /// The hosts of the cluster the proxy belongs to, if it knows that cluster. `asking` may be that cluster itself, which
    /// is in use when this is asked.
    #[must_use]
    pub fn local_hosts(&self, asking: &Cluster, hosts: &Arc<HostSet>) -> Option<LocalHosts> {
        let (name, locality) = self.shared.local.as_ref()?;
        let hosts = if *asking.config().name == **name { Arc::clone(hosts) } else { self.cluster(name)?.hosts() };
        Some(LocalHosts { locality: Arc::clone(locality), hosts })
    }

    /// The slot of a discovered route configuration, made when it is first asked for.
    #[must_use]
    pub fn route_slot(&self, name: &Arc<str>) -> Rc<RouteSlot> {
        Rc::clone(self.routes.borrow_mut().entry(Arc::clone(name)).or_default())
    }

    /// Lends the read buffer all connections of this worker share.
    pub fn with_scratch<T>(&self, read: impl FnOnce(&mut [u8]) -> T) -> T {
        match self.scratch.try_borrow_mut() {
            Ok(mut scratch) => read(&mut scratch),
            // Only a read within a read could get here.
            Err(_) => read(&mut [0; 1024]),
        }
    }

    /// Lends the worker's random numbers.
    pub fn with_rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// A connection number no other worker gives out.
    #[must_use]
    pub fn next_connection_id(&self) -> u64 {
        let n = self.connections.get();
        self.connections.set(n + 1);
        n * self.workers as u64 + self.index as u64
    }

    /// Applies what control published, in dependency order: clusters, hosts, routes, listeners, removals.
    fn apply(self: &Rc<Self>, pending: Pending, mailbox: &Arc<Mailbox>, listeners: &Listeners) {
        let Pending { clusters, hosts, failed, routes, listeners: changes, runtime, paused, draining, exit: _ } =
            pending;
        if let Some(draining) = draining {
            self.draining.set(draining);
        }
        if let Some(runtime) = runtime {
            *self.runtime.borrow_mut() = Rc::new(SharedRuntime(runtime));
        }
        let mut removed = Vec::new();
        for (name, version) in clusters {
            match version {
                Some((shared, hosts)) => {
                    let before = self.cluster(&name);
                    let previous = before.as_ref().map(|before| &**before.context());
                    let cluster = Cluster::new(ClusterContext::new(self, shared, previous), hosts);
                    if let Some(old) = self.clusters.borrow_mut().insert(name, cluster) {
                        old.drain();
                    }
                }
                None => removed.push(name),
            }
        }
        for (name, hosts) in hosts {
            if let Some(cluster) = self.cluster(&name) {
                mailbox.retire(cluster.set_hosts(hosts));
            }
        }
        for (name, host) in failed {
            if let Some(cluster) = self.cluster(&name) {
                cluster.host_failed(host);
            }
        }
        for (name, table) in routes {
            if let Some(table) = &table {
                table.show(self.store());
            }
            if let Some(old) = self.route_slot(&name).set(table) {
                mailbox.retire(old);
            }
        }
        for change in changes {
            listeners.apply(change);
        }
        if let Some(paused) = paused {
            listeners.pause(paused);
        }
        for name in removed {
            if let Some(old) = self.clusters.borrow_mut().remove(&name) {
                old.drain();
            }
        }
        self.cluster_stats.set(self.clusters.borrow().len());
    }
}

/// A snapshot all workers share.
#[derive(Debug)]
struct SharedRuntime(Arc<dyn Runtime + Send + Sync>);

impl Runtime for SharedRuntime {
    fn boolean(&self, key: &str) -> Option<bool> {
        self.0.boolean(key)
    }

    fn fraction(&self, key: &str) -> Option<filters::matcher::FractionalPercent> {
        self.0.fraction(key)
    }

    fn integer(&self, key: &str) -> Option<u64> {
        self.0.integer(key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The only worker of a process, by a clock that only the test moves. To be called on a local runtime.
    pub(crate) fn worker() -> Rc<Worker> {
        let shared = Shared {
            store: Store::new(3, stats::StoreOptions::default()),
            connections: ConnectionBudget::unlimited(),
            overload: Arc::default(),
            reports: tokio::sync::mpsc::unbounded_channel().0,
            zone: Arc::default(),
            drain: Arc::default(),
            local: None,
        };
        let worker = Worker::with_timers(0, 1, shared, Timers::manual());
        tokio::task::spawn_local(Rc::clone(&worker.timers).drive());
        worker
    }
}

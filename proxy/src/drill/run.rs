//! One run: hosts, a control plane and a proxy are started, load is sent while the plan is carried out, and what became of
//! it is judged.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;
use xds_client::server::ControlPlane;

use super::client::{Client, Outcome};
use super::diary::{Diary, RequestId};
use super::fault::Protocol;
use super::hosts::{self, Host};
use super::judge::{Case, Verdict};
use super::load;
use super::plan::{Action, HostId, Plan, Step};
use super::resources::{self, CLUSTER_NAME, REST, TRY_TIMEOUT};
use super::watch::Watch;
use crate::stage::admin::Statistics;
use crate::stage::control::{nack, publish, serving};
use crate::stage::http1::Http1;
use crate::stage::ports::{ATTEMPTS, Reserved, taken};
use crate::stage::process::{Directory, Proxy};
use crate::stage::resources::bootstrap;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) protocol: Protocol,
    pub(super) hosts: usize,
    /// Requests a second.
    pub(super) rate: u32,
    pub(super) length: Duration,
    pub(super) seed: u64,
    /// Worker threads of the proxy.
    pub(super) concurrency: u32,
    /// Whether the cluster has outlier detection.
    pub(super) outliers: bool,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) setting: Setting,
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) verdict: Verdict,
    /// From the time each request was to leave, in ascending order; those that failed too.
    pub(super) latencies: Vec<Duration>,
    /// How late this machine was to send, at worst.
    pub(super) lag: Duration,
    /// Processor time of the proxy under the load.
    pub(super) processor: Duration,
    pub(super) memory: Memory,
    pub(super) descriptors: Descriptors,
    /// Gauges that did not come back to zero.
    pub(super) stuck: Vec<String>,
    /// The most that hosts or proxy were kept waiting for a processor within the time of a try.
    pub(super) kept_waiting: Duration,
}

impl Run {
    /// Whether this machine was too busy for its failure rate to say much about the proxy.
    pub(super) fn is_spoilt(&self) -> bool {
        self.kept_waiting > TRY_TIMEOUT / 3
    }
}

/// Resident memory of the proxy, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// After a rehearsal without faults, when nothing was under way.
    pub(super) start: u64,
    pub(super) peak: u64,
    /// When nothing was under way any more.
    pub(super) end: u64,
}

/// Open descriptors of the proxy, at the same times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Descriptors {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Load without faults before anything is measured: pools, statistics and the allocator's caches come into being.
const REHEARSAL: Duration = Duration::from_secs(1);
/// How long a proxy may take to close what it no longer needs, beyond the time connections rest.
const SETTLE: Duration = Duration::from_secs(8);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What must be nothing when nothing is under way.
const GAUGES: [&str; 6] = [
    "http.egress.downstream_rq_active",
    "http.egress.downstream_cx_active",
    "cluster.{}.upstream_rq_active",
    "cluster.{}.upstream_rq_pending_active",
    "cluster.{}.upstream_cx_active",
    "cluster_manager.warming_clusters",
];

/// Carries a run out with this executable as the proxy.
pub(super) async fn run(executable: &Path, setting: Setting) -> Result<Run, String> {
    let mut world = World::start(executable, setting).await?;
    let first = world.rehearse().await;
    let (memory, descriptors, _) = world.settle(None).await?;
    let used = world.proxy.processor_time().unwrap_or_default();

    let plan = Plan::new(setting.protocol, setting.hosts, setting.length, setting.seed);
    let client = world.client();
    let begun = world.diary.begun();
    let start = begun.elapsed();
    let carrying_out = carry_out(&plan, start, &mut world.hosts, &world.endpoints, &world.diary);
    let load = load::run(&client, begun, first, setting.rate, plan.length);
    let watch = Rc::new(Watch::default());
    let under_way = async { tokio::join!(load, carrying_out) };
    let (sent, carried_out) = tokio::select! {
        outcome = under_way => outcome,
        () = watch.keep(world.proxy.pid, begun) => return Err("nobody watches any more".to_owned()),
    };
    carried_out?;
    let processor = world.proxy.processor_time().unwrap_or_default().saturating_sub(used);
    drop(client);
    let (end, left, stuck) = world.settle(Some(descriptors)).await?;
    let peak = world.proxy.peak_memory().unwrap_or_default();
    if let Some(reason) = nack(&world.control_plane.requests()) {
        return Err(format!("the proxy refused endpoints: {reason}"));
    }

    let access_log = std::fs::read_to_string(&world.access_log).map_err(|error| format!("no access log: {error}"))?;
    let (tries, biographies) = world.diary.take();
    let kept_waiting = watch.worst(TRY_TIMEOUT);
    let tries = tries.into_iter().filter(|tried| tried.request >= first).collect();
    let verdict = Case::new(setting.protocol, tries, biographies, &access_log, watch).judge(&sent);
    let mut latencies: Vec<Duration> = sent.iter().map(|sent| sent.ended.saturating_sub(sent.scheduled)).collect();
    latencies.sort_unstable();
    let is_failure = |sent: &&load::Sent| !matches!(sent.outcome, Outcome::Answered | Outcome::Abandoned);
    Ok(Run {
        setting,
        sent: sent.len() as u64,
        failed: sent.iter().filter(is_failure).count() as u64,
        verdict,
        latencies,
        lag: sent.iter().map(|sent| sent.left.saturating_sub(sent.scheduled)).max().unwrap_or_default(),
        processor,
        memory: Memory { start: memory, peak, end },
        descriptors: Descriptors { start: descriptors, end: left },
        stuck,
        kept_waiting,
    })
}

/// Everything that runs. Dropped, it stops.
struct World {
    setting: Setting,
    port: u16,
    admin: Http1,
    proxy: Proxy,
    hosts: Vec<Host>,
    endpoints: Endpoints,
    control_plane: ControlPlane,
    diary: Rc<Diary>,
    access_log: PathBuf,
    /// The control plane.
    _tasks: JoinSet<()>,
    /// After the proxy, which uses it.
    _directory: Directory,
}

impl World {
    async fn start(executable: &Path, setting: Setting) -> Result<Self, String> {
        let mut attempt = 1;
        loop {
            match Self::attempt(executable, setting).await {
                Err(error) if attempt < ATTEMPTS && taken(&error) => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(executable: &Path, setting: Setting) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut tasks = JoinSet::new();
        let diary = Rc::new(Diary::new(setting.hosts));
        let hosts = hosts::start(setting.hosts, setting.protocol, &diary).map_err(text)?;
        let directory = Directory::new("drill").map_err(text)?;
        let access_log = directory.path().join("access.log");
        let reserved = Reserved::<1>::new().map_err(text)?;
        let [port] = reserved.ports;
        let mut published = resources::fixed(setting.protocol, port, &access_log, setting.outliers)?;
        published.push(resources::endpoints(hosts.iter().map(Host::address))?);
        let (control_plane, control_port) = publish(&mut tasks, "legate-drill", published).await.map_err(text)?;
        drop(reserved);
        let bootstrap = bootstrap("virtualNode/drill", control_port);
        let concurrency = setting.concurrency.to_string();
        let arguments = ["--concurrency", &concurrency, "--file-flush-interval-msec", "100"];
        let mut proxy = Proxy::start(executable, directory.path(), "proxy", &bootstrap, &arguments)
            .map_err(|error| format!("{}: {error}", executable.display()))?;
        let admin_port = serving("proxy", &mut proxy, &control_plane, &[port]).await?;
        let addresses = hosts.iter().map(Host::address).collect();
        Ok(Self {
            setting,
            port,
            admin: Http1::new(admin_port),
            proxy,
            hosts,
            endpoints: Endpoints { control_plane: control_plane.clone(), addresses },
            control_plane,
            diary,
            access_log,
            _tasks: tasks,
            _directory: directory,
        })
    }

    fn client(&self) -> Client {
        Client::new(self.setting.protocol, self.port)
    }

    /// Load without faults. The number of the next request.
    async fn rehearse(&self) -> RequestId {
        let sent = load::run(&self.client(), self.diary.begun(), 0, self.setting.rate, REHEARSAL).await;
        sent.len() as RequestId
    }

    /// Waits until the proxy has closed what it does not need: memory, descriptors, and the gauges that are stuck. If
    /// there were so many descriptors before, until there are no more of them.
    async fn settle(&mut self, before: Option<usize>) -> Result<(u64, usize, Vec<String>), String> {
        let deadline = Instant::now() + REST + SETTLE;
        loop {
            sleep(LOOK).await;
            let statistics = Statistics::fetch(&mut self.admin).await?;
            let gauges = GAUGES.map(|gauge| gauge.replace("{}", CLUSTER_NAME));
            let stuck = gauges.into_iter().filter(|gauge| statistics.number(gauge) != 0);
            let stuck: Vec<_> = stuck.map(|gauge| format!("{gauge} is {}", statistics.number(&gauge))).collect();
            let descriptors = self.proxy.descriptors().unwrap_or_default();
            let back = before.is_none_or(|before| descriptors <= before);
            if (stuck.is_empty() && back) || Instant::now() >= deadline {
                // What is logged last must be in the file, too.
                sleep(2 * LOOK).await;
                let memory = self.proxy.resident_memory().unwrap_or_default();
                return Ok((memory, self.proxy.descriptors().unwrap_or_default(), stuck));
            }
        }
    }
}

/// The control plane's side of the hosts.
struct Endpoints {
    control_plane: ControlPlane,
    addresses: Vec<std::net::SocketAddr>,
}

impl Endpoints {
    fn assign(&self, hosts: &[HostId]) -> Result<(), String> {
        let addresses = hosts.iter().filter_map(|host| self.addresses.get(*host).copied());
        let (type_url, resource) = resources::endpoints(addresses)?;
        self.control_plane.put(type_url, resource);
        Ok(())
    }
}

/// Does what the plan says when it says it.
async fn carry_out(
    plan: &Plan,
    start: Duration,
    hosts: &mut [Host],
    endpoints: &Endpoints,
    diary: &Diary,
) -> Result<(), String> {
    let text = |error: std::io::Error| format!("a host: {error}");
    for Step { at, action } in &plan.steps {
        tokio::time::sleep_until((diary.begun() + start + *at).into()).await;
        match action {
            Action::Break(host, fault) => {
                if let Some(host) = hosts.get_mut(*host) {
                    host.fail(*fault).await.map_err(text)?;
                }
            }
            Action::Heal(host) => {
                if let Some(host) = hosts.get_mut(*host) {
                    host.heal().map_err(text)?;
                }
            }
            Action::Assign(hosts) => {
                diary.assigned(hosts);
                endpoints.assign(hosts)?;
            }
        }
    }
    Ok(())
}

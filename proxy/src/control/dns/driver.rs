//! Asks DNS servers, on the control thread's runtime. The system's configuration (`/etc/resolv.conf`, `/etc/hosts`) is
//! read again when it changed. Nothing is cached: when to ask again is decided by `super::Refresh`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig as HickoryConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use stats::{LazyShard, Store};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::{LookupId, Outcome, Question, Resolver};
use crate::config::cluster::{LookupFamily, ResolverConfig};
use crate::observe::catalogue::DnsStats;

/// The resolver of a process: one set of servers per configuration. Lives on a local runtime.
#[derive(Debug)]
pub struct HickoryResolver {
    answers: UnboundedSender<(LookupId, Outcome)>,
    running: HashMap<LookupId, JoinHandle<()>>,
    resolvers: HashMap<Arc<ResolverConfig>, Built>,
    stats: LazyShard<DnsStats>,
}

#[derive(Debug)]
struct Built {
    /// Change times of the system's files when it was built.
    files: SystemFiles,
    resolver: Result<Rc<TokioResolver>, String>,
}

type SystemFiles = [Option<SystemTime>; 2];

impl HickoryResolver {
    /// A resolver that sends every outcome to `answers` and counts under `dns.cares.`, once there is something to count.
    #[must_use]
    pub fn new(answers: UnboundedSender<(LookupId, Outcome)>, store: &Arc<Store>) -> Self {
        let stats = store.group_on_first_use::<DnsStats>("dns.cares.").lazy_shard(store.control_shard());
        Self { answers, running: HashMap::new(), resolvers: HashMap::new(), stats }
    }

    fn resolver(&mut self, config: &Arc<ResolverConfig>) -> Result<Rc<TokioResolver>, String> {
        let files = ["/etc/resolv.conf", "/etc/hosts"]
            .map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
        if let Some(built) = self.resolvers.get(config)
            && built.files == files
        {
            return built.resolver.clone();
        }
        if self.resolvers.contains_key(config) {
            self.stats.reinits().inc();
        }
        let resolver = build(config).map(Rc::new).map_err(|error| error.to_string());
        self.resolvers.insert(config.clone(), Built { files, resolver: resolver.clone() });
        resolver
    }
}

impl Resolver for HickoryResolver {
    fn resolve(&mut self, id: LookupId, question: Question) {
        self.running.retain(|_, task| !task.is_finished());
        let resolver = self.resolver(&question.resolver);
        let answers = self.answers.clone();
        let pending = Pending::new(DnsStats::clone(&self.stats));
        let task = tokio::task::spawn_local(async move {
            let outcome = match resolver {
                Ok(resolver) => lookup(&Asker { resolver, stats: &pending.0 }, &question.host, question.family).await,
                Err(error) => Outcome::Failed(error),
            };
            match outcome {
                Outcome::Addresses { .. } => {}
                Outcome::Empty => pending.0.not_found().inc(),
                Outcome::Failed(_) => pending.0.get_addr_failure().inc(),
            }
            drop(pending);
            // Nobody listens any more when the process ends.
            let _ = answers.send((id, outcome));
        });
        self.running.insert(id, task);
    }

    fn cancel(&mut self, id: LookupId) {
        if let Some(task) = self.running.remove(&id) {
            task.abort();
        }
    }
}

/// A question that is being asked, also if it is given up.
struct Pending(DnsStats);

impl Pending {
    fn new(stats: DnsStats) -> Self {
        stats.resolve_total().inc();
        stats.pending_resolutions().inc();
        Self(stats)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending_resolutions().dec();
    }
}

/// Whom to ask, and where to count that nobody answered.
struct Asker<'a> {
    resolver: Rc<TokioResolver>,
    stats: &'a DnsStats,
}

fn build(config: &ResolverConfig) -> Result<TokioResolver, NetError> {
    let mut builder = if config.servers.is_empty() && !config.use_tcp {
        TokioResolver::builder_tokio()?
    } else {
        let mut servers = HickoryConfig::default();
        let chosen = if config.servers.is_empty() { system_servers()? } else { config.servers.clone() };
        for server in chosen {
            servers.add_name_server(name_server(server, config.use_tcp));
        }
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    options.timeout = config.query_timeout.unwrap_or(Duration::from_secs(5));
    if let Some(tries) = config.tries {
        options.attempts = tries as usize;
    }
    options.server_ordering_strategy =
        if config.rotate { ServerOrderingStrategy::RoundRobin } else { ServerOrderingStrategy::UserProvidedOrder };
    builder.build()
}

fn system_servers() -> Result<Vec<SocketAddr>, NetError> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf()?;
    Ok(config.name_servers().iter().map(|server| SocketAddr::new(server.ip, 53)).collect())
}

fn name_server(address: SocketAddr, tcp_only: bool) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::tcp()];
    if !tcp_only {
        connections.insert(0, ConnectionConfig::udp());
    }
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

async fn lookup(asker: &Asker<'_>, host: &str, family: LookupFamily) -> Outcome {
    use RecordType::{A, AAAA};
    match family {
        LookupFamily::V4Only => one(asker, host, A).await,
        LookupFamily::V6Only => one(asker, host, AAAA).await,
        LookupFamily::Auto => first(asker, host, [AAAA, A]).await,
        LookupFamily::V4Preferred => first(asker, host, [A, AAAA]).await,
        LookupFamily::All => both(futures_util::future::join(one(asker, host, A), one(asker, host, AAAA)).await),
    }
}

/// The first kind of address there is.
async fn first(asker: &Asker<'_>, host: &str, [preferred, other]: [RecordType; 2]) -> Outcome {
    match one(asker, host, preferred).await {
        found @ Outcome::Addresses { .. } => found,
        missed => match (missed, one(asker, host, other).await) {
            // No answer about the one does not make an empty answer about the other final.
            (failed @ Outcome::Failed(_), Outcome::Empty) => failed,
            (_, outcome) => outcome,
        },
    }
}

/// All addresses; one family's failure does not hide the other's addresses.
fn both(outcomes: (Outcome, Outcome)) -> Outcome {
    match outcomes {
        (Outcome::Addresses { mut addresses, ttl }, Outcome::Addresses { addresses: more, ttl: other }) => {
            addresses.extend(more);
            Outcome::Addresses { addresses, ttl: ttl.min(other) }
        }
        (found @ Outcome::Addresses { .. }, _) | (_, found @ Outcome::Addresses { .. }) => found,
        (failed @ Outcome::Failed(_), _) | (_, failed @ Outcome::Failed(_)) => failed,
        (Outcome::Empty, Outcome::Empty) => Outcome::Empty,
    }
}

async fn one(asker: &Asker<'_>, host: &str, kind: RecordType) -> Outcome {
    let answer = match asker.resolver.lookup(host, kind).await {
        Ok(answer) => answer,
        Err(error) => {
            if matches!(error, NetError::Timeout) {
                asker.stats.timeouts().inc();
            }
            return failure(&error);
        }
    };
    let mut ttl = u32::MAX;
    let mut addresses = Vec::new();
    for record in answer.answers() {
        let address = match record.data {
            RData::A(v4) => IpAddr::V4(v4.0),
            RData::AAAA(v6) => IpAddr::V6(v6.0),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        Outcome::Empty
    } else {
        Outcome::Addresses { addresses, ttl: Duration::from_secs(ttl.into()) }
    }
}

/// "There is no such name" and "it has no such address" are answers; everything else is not.
fn failure(error: &NetError) -> Outcome {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            Outcome::Empty
        }
        other => Outcome::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests;

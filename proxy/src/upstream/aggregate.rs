//! Aggregate clusters: the hosts of several clusters, the first cluster's before the second's.
//!
//! The priorities of the members are put one behind the other and load spreads over them as within a cluster. The member
//! whose priority is chosen then picks a host its own way, and the request goes out through the member's pools.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::cluster::Cluster;
use super::host::{Host, HostSet, PriorityHosts};
use super::lb::PickContext;
use super::lb::priority::{Levels, PriorityLoads};
use crate::config::cluster::LbConfig;
use crate::worker::Worker;

/// The members of one aggregate cluster on one worker.
pub(super) struct Aggregate {
    names: Arc<[Arc<str>]>,
    /// The hosts of each member that the loads are of; `None` where there is no such cluster.
    sets: Vec<Option<Arc<HostSet>>>,
    /// The member and its priority, for each priority of the aggregate.
    levels: Vec<(usize, usize)>,
    loads: PriorityLoads,
    /// Whose the hosts are that were picked, by their number.
    owners: foldhash::HashMap<u64, Weak<Cluster>>,
}

impl Aggregate {
    pub(super) fn new(names: Arc<[Arc<str>]>) -> Self {
        Self {
            names,
            sets: Vec::new(),
            levels: Vec::new(),
            loads: PriorityLoads::default(),
            owners: foldhash::HashMap::default(),
        }
    }

    /// The host for a request; `None` when no member has one.
    pub(super) fn pick(&mut self, worker: &Worker, config: &LbConfig, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let members = self.members(worker);
        let sets: Vec<_> = members.iter().map(|member| member.as_ref().map(|member| member.hosts())).collect();
        let same = |(a, b): (&Option<Arc<HostSet>>, &Option<Arc<HostSet>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if self.sets.len() != sets.len() || !self.sets.iter().zip(&sets).all(same) {
            let healthy_panic_threshold = config.panic_threshold(&*worker.runtime());
            self.renew(sets, &LbConfig { healthy_panic_threshold, ..config.clone() });
        }
        let others = context.loads.and_then(|loads| loads(self, config));
        let (level, availability) = others.as_ref().unwrap_or(&self.loads).draw(fastrand::u64(..));
        let (member, priority) = self.levels.get(level)?;
        let member = members.get(*member)?.as_ref()?;
        // As in Envoy a member is not told enough of the request to learn which host it asks for.
        let level = Some((*priority, availability));
        let host = member.pick(&PickContext { level, asking: None, ..*context })?;
        self.owners.entry(host.id()).or_insert_with(|| Rc::downgrade(member));
        Some(host)
    }

    /// Whose a host is that was picked.
    pub(super) fn owner(&self, host: &Host) -> Option<Rc<Cluster>> {
        self.owners.get(&host.id())?.upgrade()
    }

    /// The members there are. An aggregate among them is none, as in Envoy: it has no hosts of its own.
    pub(super) fn members(&self, worker: &Worker) -> Vec<Option<Rc<Cluster>>> {
        let member = |name: &Arc<str>| worker.cluster(name).filter(|member| !member.is_aggregate());
        self.names.iter().map(member).collect()
    }

    fn renew(&mut self, sets: Vec<Option<Arc<HostSet>>>, config: &LbConfig) {
        let levels = || {
            let sets = sets.iter().enumerate().filter_map(|(member, set)| Some((member, set.as_deref()?)));
            let levels = sets.flat_map(|(member, set)| {
                set.priorities.iter().enumerate().map(move |(priority, level)| ((member, priority), level, set))
            });
            levels.filter(|(_, level, _)| !level.hosts.is_empty())
        };
        self.levels = levels().map(|(place, _, _)| place).collect();
        self.loads = PriorityLoads::over(levels().map(|(_, level, set)| (level, set)), config);
        self.owners.clear();
        self.sets = sets;
    }
}

/// The priorities of all members, so that a retry may leave out those of a member that were tried.
impl Levels for Aggregate {
    fn list(&self) -> Vec<(&PriorityHosts, &HostSet)> {
        let level = |(member, priority): &(usize, usize)| {
            let set = self.sets.get(*member)?.as_deref()?;
            Some((set.priorities.get(*priority)?, set))
        };
        self.levels.iter().filter_map(level).collect()
    }

    fn place(&self, host: u64, priority: u32) -> Option<usize> {
        let has =
            |set: &Option<Arc<HostSet>>| set.as_ref().is_some_and(|set| set.hosts().any(|known| known.id() == host));
        let member = self.sets.iter().position(has)?;
        self.levels.iter().position(|level| *level == (member, priority as usize))
    }
}

//! A worker's view of a cluster: its host set, its scheduler, its pools.

mod context;
mod pools;

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use filters::http::RequestHead;
use filters::http_filter::Destination;
use filters::stream_info::ConnectionInfo;

pub use self::context::{ClusterContext, ClusterShared};
pub(crate) use self::context::{h1_options, h2_options, header_format};
pub use self::pools::Purpose;
use self::pools::{FEW_POOLS, PoolKey};
use super::aggregate::Aggregate;
use super::host::{Host, HostSet};
use super::lb::subset::SubsetNote;
use super::lb::zone::ZoneNote;
use super::lb::{PickContext, Scheduler};
use super::pool::Pool;
use super::responses::Origin;
use crate::config::cluster::{ClusterConfig, Discovery, MetadataPath};
use crate::route::HashPolicy;
use crate::worker::Report;

/// A cluster on one worker.
pub struct Cluster {
    context: Rc<ClusterContext>,
    state: RefCell<State>,
}

struct State {
    hosts: Arc<HostSet>,
    /// Built on the first pick after a change.
    scheduler: Option<Scheduler>,
    pools: foldhash::HashMap<PoolKey, Rc<Pool>>,
    /// Pools that belong to one downstream connection are looked through when there are so many.
    sweep_at: usize,
    /// The members of an aggregate.
    aggregate: Option<Box<Aggregate>>,
}

impl Destination for Cluster {
    fn count(&self, name: &str) {
        self.context.responses.count(self.context.worker.store(), name);
    }

    fn charge(&self, status: u16) {
        let origin = Origin { internal: true, ..Origin::default() };
        let ClusterContext { responses, worker, .. } = &*self.context;
        responses.own().each(worker, origin, |responses| responses.code(status));
    }
}

impl Cluster {
    /// A cluster version with its first host set.
    #[must_use]
    pub fn new(context: Rc<ClusterContext>, hosts: Arc<HostSet>) -> Rc<Self> {
        let aggregate = match &context.config.discovery {
            Discovery::Aggregate(names) => Some(Box::new(Aggregate::new(Arc::clone(names)))),
            _ => None,
        };
        let pools = foldhash::HashMap::default();
        Rc::new(Self {
            context,
            state: RefCell::new(State { hosts, scheduler: None, pools, sweep_at: FEW_POOLS, aggregate }),
        })
    }

    /// What its pools and attempts share.
    #[must_use]
    pub const fn context(&self) -> &Rc<ClusterContext> {
        &self.context
    }

    /// The cluster's configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ClusterConfig> {
        &self.context.config
    }

    /// The current host set.
    #[must_use]
    pub fn hosts(&self) -> Arc<HostSet> {
        Arc::clone(&self.state.borrow().hosts)
    }

    /// Takes a new host set; returns the old one, to be freed elsewhere. Pools of hosts that left are drained, or all of them
    /// if hosts came or went and the cluster says so: idle connections close, requests in flight finish.
    pub fn set_hosts(&self, hosts: Arc<HostSet>) -> Arc<HostSet> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.pools.is_empty() {
            let present: HashSet<u64> = hosts.hosts().map(|host| host.id()).collect();
            let all = self.context.config.lb.close_connections_on_host_set_change
                && present != state.hosts.hosts().map(|host| host.id()).collect::<HashSet<_>>();
            state.pools.retain(|(id, ..), pool| {
                let stays = !all && present.contains(id);
                if !stays {
                    pool.drain();
                }
                stays
            });
        }
        if let Some(scheduler) = &mut state.scheduler {
            scheduler.refresh(Arc::clone(&hosts));
        }
        std::mem::replace(&mut state.hosts, hosts)
    }

    /// Chooses a host; `None` when no host may be chosen.
    #[must_use]
    pub fn pick(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(aggregate) = &mut state.aggregate {
            return aggregate.pick(&self.context.worker, &self.context.config.lb, context);
        }
        if let Some(policy) = &self.context.config.lb.override_host
            && let Some(asking) = context.asking
        {
            while let Some(address) = asking.next(policy) {
                if let Some(host) = state.hosts.at_address(address) {
                    return Some(Arc::clone(host));
                }
            }
        }
        let scheduler = state.scheduler.get_or_insert_with(|| {
            let (config, hosts) = (Arc::new(self.context.config.lb.clone()), Arc::clone(&state.hosts));
            Scheduler::new(config, hosts, self.context.worker.workers(), fastrand::Rng::new())
        });
        let local = self.context.worker.local_hosts(self, &state.hosts);
        let runtime = local.is_some().then(|| self.context.worker.runtime());
        let runtime = runtime.as_deref();
        let picked = scheduler.pick(&PickContext { local: local.as_ref(), runtime, ..*context });
        if local.is_some() {
            self.count_zones(scheduler.zone_note());
        }
        if scheduler.in_panic() {
            self.context.stats.lb_healthy_panic().inc();
        }
        if let Some(note) = scheduler.subset_note() {
            self.count(note);
        }
        let created = scheduler.take_created();
        if !created.is_empty() {
            self.context.worker.report(Report::HostsCreated(Arc::clone(&self.context.config.name), created));
        }
        picked
    }

    fn count(&self, SubsetNote { selected, fallback, panic }: SubsetNote) {
        let stats = &self.context.stats;
        for (happened, counter) in [
            (selected, stats.lb_subsets_selected()),
            (fallback, stats.lb_subsets_fallback()),
            (panic, stats.lb_subsets_fallback_panic()),
        ] {
            if happened {
                counter.inc();
            }
        }
    }

    fn count_zones(&self, note: ZoneNote) {
        let stats = &self.context.stats;
        for (happened, counter) in [
            (note.recalculated, stats.lb_recalculate_zone_structures()),
            (note.too_small, stats.lb_zone_cluster_too_small()),
            (note.local_not_ok, stats.lb_local_cluster_not_ok()),
            (note.all_directly, stats.lb_zone_routing_all_directly()),
            (note.sampled, stats.lb_zone_routing_sampled()),
            (note.cross_zone, stats.lb_zone_routing_cross_zone()),
            (note.no_capacity_left, stats.lb_zone_no_capacity_left()),
        ] {
            if happened {
                counter.inc();
            }
        }
    }

    /// Whether it has no hosts of its own, but those of other clusters.
    #[must_use]
    pub fn is_aggregate(&self) -> bool {
        matches!(self.context.config.discovery, Discovery::Aggregate(_))
    }

    /// The cluster whose host this is, through whose pools requests reach it: itself, or a member of an aggregate.
    #[must_use]
    pub fn owner(self: &Rc<Self>, host: &Host) -> Rc<Self> {
        let of_member = || self.state.borrow().aggregate.as_ref()?.owner(host);
        if self.is_aggregate() { of_member().unwrap_or_else(|| Rc::clone(self)) } else { Rc::clone(self) }
    }

    /// Where a request learns which host was chosen for it.
    #[must_use]
    pub fn selected_host_key(&self) -> Option<&MetadataPath> {
        self.context.config.lb.override_host.as_ref()?.selected_host_key.as_ref()
    }

    /// Whether its policy, or a member's, finds hosts by a request's hash.
    fn hashes(&self) -> bool {
        let of_members = |aggregate: &Aggregate| {
            let members = aggregate.members(&self.context.worker);
            members.iter().flatten().any(|member| member.hashes())
        };
        let own = self.context.config.lb.hashes();
        own || (self.is_aggregate() && self.state.borrow().aggregate.as_deref().is_some_and(of_members))
    }

    /// Whether it, or a member, has subsets that a request's metadata may choose.
    #[must_use]
    pub fn has_subsets(&self) -> bool {
        let of_members = |aggregate: &Aggregate| {
            let members = aggregate.members(&self.context.worker);
            members.iter().flatten().any(|member| member.has_subsets())
        };
        let own = self.context.config.lb.subset.is_some();
        own || (self.is_aggregate() && self.state.borrow().aggregate.as_deref().is_some_and(of_members))
    }

    /// What a request is hashed by: the policy's or the cluster's own list, else the route's. `None` where no policy wants a
    /// hash.
    #[must_use]
    pub fn hash_policy<'a>(&'a self, of_route: Option<&'a Arc<HashPolicy>>) -> Option<&'a HashPolicy> {
        if !self.hashes() {
            return None;
        }
        self.context.config.lb.hash_policy.as_ref().or(of_route).map(|policy| &**policy)
    }

    /// Where a request was going before it was redirected here, for `ORIGINAL_DST` clusters.
    #[must_use]
    pub fn destination(&self, request: Option<&RequestHead>, connection: &ConnectionInfo) -> Option<SocketAddr> {
        let Discovery::OriginalDst(options) = &self.context.config.discovery else { return None };
        let header = options.header.as_ref().and_then(|name| {
            Some(&request?.headers.iter().find(|header| header.name.as_str() == name.as_str())?.value[..])
        });
        let recovered = if connection.local_restored { connection.local.ip() } else { None };
        options.destination(header, recovered).unwrap_or_else(|_| {
            self.context.stats.original_dst_host_invalid().inc();
            None
        })
    }

    /// Why a request should be dropped before a host is chosen, if this one should (`drop_overloads`).
    #[must_use]
    pub fn drops(&self) -> Option<Arc<str>> {
        let state = self.state.borrow();
        let overload = state.hosts.drop_overload.as_ref()?;
        (fastrand::f64() < overload.ratio).then(|| Arc::clone(&overload.category))
    }
}

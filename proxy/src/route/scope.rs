//! Statistics that a table asks for: those of virtual clusters (`vhost.<host>.vcluster.<name>.`) and of routes with a
//! `stat_prefix` (`vhost.<host>.route.<prefix>.`).
//!
//! A table is parsed where there are no statistics; whoever takes it into use shows them ([`super::RouteTable::show`]).

use std::fmt;
use std::sync::{Arc, OnceLock};

use filters::http::RequestHead;
use filters::matcher::HeaderMatcher;
use stats::{CodesHandle, GroupHandle, Store};

use crate::observe::catalogue::{RequestTimeStats, RouteStats};

/// One scope of statistics.
pub struct RouteScope {
    prefix: Box<str>,
    handles: OnceLock<Handles>,
}

struct Handles {
    stats: Arc<GroupHandle<RouteStats>>,
    codes: Arc<CodesHandle>,
    times: Arc<GroupHandle<RequestTimeStats>>,
}

impl RouteScope {
    /// The scope `vhost.<host>.<kind>.<name>.`, not yet shown.
    #[must_use]
    pub fn new(host: &str, kind: &str, name: &str) -> Arc<Self> {
        let prefix = format!("vhost.{host}.{kind}.{name}.").into();
        Arc::new(Self { prefix, handles: OnceLock::new() })
    }

    /// Registers the statistics, if nobody has.
    pub(super) fn show(&self, store: &Arc<Store>) {
        self.handles.get_or_init(|| Handles {
            stats: store.group(&self.prefix),
            codes: store.codes(&format!("{}upstream_rq", self.prefix)),
            times: store.group_on_first_use(&self.prefix),
        });
    }

    /// Lets a worker count.
    pub fn count(&self, worker: usize, count: impl FnOnce(&RouteStats)) {
        if let Some(handles) = self.handles.get() {
            count(&handles.stats.shard(worker));
        }
    }

    /// Counts a response code.
    pub fn code(&self, worker: usize, status: u16) {
        if let Some(handles) = self.handles.get() {
            handles.codes.shard(worker).record(status);
        }
    }

    /// Records how long a response took, in milliseconds.
    pub fn time(&self, worker: usize, millis: u64) {
        if let Some(handles) = self.handles.get() {
            handles.times.shard(worker).upstream_rq_time().record(millis);
        }
    }
}

impl fmt::Debug for RouteScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteScope").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The virtual clusters of a virtual host: the first whose headers match has the request, `other` what none has.
#[derive(Debug)]
pub struct VirtualClusters {
    entries: Box<[VirtualCluster]>,
    other: Arc<RouteScope>,
}

/// One of them.
#[derive(Debug)]
struct VirtualCluster {
    name: Arc<str>,
    headers: Box<[HeaderMatcher]>,
    scope: Arc<RouteScope>,
}

impl VirtualClusters {
    /// Virtual clusters of `host` with their names and conditions, in order.
    #[must_use]
    pub fn new(host: &str, entries: Vec<(String, Box<[HeaderMatcher]>)>) -> Self {
        let scope = |name: &str| RouteScope::new(host, "vcluster", name);
        let entry = |(name, headers): (String, _)| VirtualCluster { scope: scope(&name), name: name.into(), headers };
        Self { entries: entries.into_iter().map(entry).collect(), other: scope("other") }
    }

    /// The name (`%VIRTUAL_CLUSTER_NAME%`) and statistics of the one a request belongs to; `other` has no name.
    #[must_use]
    pub fn find(&self, head: &RequestHead) -> (Option<&Arc<str>>, &Arc<RouteScope>) {
        let found = self.entries.iter().find(|entry| entry.headers.iter().all(|matcher| matcher.matches(head)));
        found.map_or((None, &self.other), |entry| (Some(&entry.name), &entry.scope))
    }

    pub(crate) fn scopes(&self) -> impl Iterator<Item = &Arc<RouteScope>> {
        self.entries.iter().map(|entry| &entry.scope).chain([&self.other])
    }
}

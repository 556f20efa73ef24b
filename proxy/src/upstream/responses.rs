//! What a router counts of responses: their codes, and how long they took, for the cluster as a whole and once more for
//! requests from inside and from outside the mesh, for canaries, between zones, and under a name of the request's own.
//!
//! Everything here comes into being with the first response that it counts, as Envoy's does, and is then kept for as long
//! as the cluster is on the worker, whatever becomes of its configuration.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use stats::{Codes, CodesHandle, LazyShard, SharedCounter, Store};

use crate::observe::catalogue::RequestTimeStats;
use crate::worker::Worker;

/// Names of `x-envoy-upstream-alt-stat-name` that a worker keeps for a cluster: clients choose them.
const MAX_ALTERNATIVES: usize = 100;

/// Responses below one prefix, such as `cluster.a.external.`.
pub struct Responses {
    codes: Codes,
    time: LazyShard<RequestTimeStats>,
    /// Keeps the codes in the scrape.
    _codes: Arc<CodesHandle>,
}

impl Responses {
    /// One worker's shard of what is counted below `prefix`, which ends with a dot.
    #[must_use]
    pub fn new(store: &Arc<Store>, shard: usize, prefix: &str) -> Self {
        let codes = store.codes(&format!("{prefix}upstream_rq"));
        let time = store.group_on_first_use::<RequestTimeStats>(prefix).lazy_shard(shard);
        Self { codes: codes.shard(shard), time, _codes: codes }
    }

    /// Counts a response code: `upstream_rq_503`, `upstream_rq_5xx`, `upstream_rq_completed`.
    pub fn code(&self, status: u16) {
        self.codes.record(status);
    }

    /// Records how long a response took from the end of its request, in milliseconds.
    pub fn time(&self, millis: u64) {
        self.time.upstream_rq_time().record(millis);
    }
}

/// What tells apart whom a response is counted for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// The request came from inside the mesh (`x-envoy-internal`).
    pub internal: bool,
    /// A canary answered, by its own word or its endpoint's metadata.
    pub canary: bool,
    /// The zone of the host, if there is one and it says where it is.
    pub zone: &'a str,
}

/// The responses below one prefix by origin: those of a cluster, or of an alternative name in it.
pub struct ByOrigin {
    prefix: Box<str>,
    all: OnceCell<Responses>,
    external: OnceCell<Responses>,
    internal: OnceCell<Responses>,
    canary: OnceCell<Responses>,
    /// By the zone of the host.
    zones: RefCell<foldhash::HashMap<Box<str>, Rc<Responses>>>,
}

impl ByOrigin {
    fn new(prefix: String) -> Self {
        Self {
            prefix: prefix.into(),
            all: OnceCell::new(),
            external: OnceCell::new(),
            internal: OnceCell::new(),
            canary: OnceCell::new(),
            zones: RefCell::default(),
        }
    }

    /// Lets `count` count in every family that a response belongs to.
    pub fn each(&self, worker: &Worker, origin: Origin<'_>, count: impl Fn(&Responses)) {
        count(self.family(&self.all, worker, ""));
        if origin.canary {
            count(self.family(&self.canary, worker, "canary."));
        }
        if origin.internal {
            count(self.family(&self.internal, worker, "internal."));
        } else {
            count(self.family(&self.external, worker, "external."));
        }
        let from = &*worker.shared().zone;
        if !from.is_empty() && !origin.zone.is_empty() {
            count(&self.between(worker, from, origin.zone));
        }
    }

    fn family<'a>(&self, cell: &'a OnceCell<Responses>, worker: &Worker, variant: &str) -> &'a Responses {
        cell.get_or_init(|| Responses::new(worker.store(), worker.index(), &format!("{}{variant}", self.prefix)))
    }

    fn between(&self, worker: &Worker, from: &str, to: &str) -> Rc<Responses> {
        let mut zones = self.zones.borrow_mut();
        if let Some(zone) = zones.get(to) {
            return Rc::clone(zone);
        }
        let prefix = format!("{}zone.{from}.{to}.", self.prefix);
        let zone = Rc::new(Responses::new(worker.store(), worker.index(), &prefix));
        zones.insert(to.into(), Rc::clone(&zone));
        zone
    }
}

/// All that is counted of a cluster's responses on one worker.
pub struct ClusterResponses {
    own: ByOrigin,
    retried: OnceCell<Responses>,
    /// What filters count.
    named: RefCell<foldhash::HashMap<Box<str>, SharedCounter>>,
    alternatives: RefCell<foldhash::HashMap<Box<str>, Rc<ByOrigin>>>,
}

impl ClusterResponses {
    /// Nothing yet, below `prefix`, which ends with a dot.
    #[must_use]
    pub fn new(prefix: String) -> Self {
        Self {
            own: ByOrigin::new(prefix),
            retried: OnceCell::new(),
            named: RefCell::default(),
            alternatives: RefCell::default(),
        }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.own.prefix
    }

    /// The cluster's own.
    #[must_use]
    pub const fn own(&self) -> &ByOrigin {
        &self.own
    }

    /// Counts a response that nobody saw because another try followed.
    pub fn retried(&self, worker: &Worker, status: u16) {
        self.own.family(&self.retried, worker, "retry.").code(status);
    }

    /// Counts under a name of a filter's own, which configuration bounds.
    pub fn count(&self, store: &Arc<Store>, name: &str) {
        let mut named = self.named.borrow_mut();
        if let Some(counter) = named.get(name) {
            return counter.inc();
        }
        let counter = store.counter(&format!("{}{name}", self.prefix()));
        counter.inc();
        named.insert(name.into(), counter);
    }

    /// Those of requests that brought this name along; `None` once there are too many names to keep.
    #[must_use]
    pub fn alternative(&self, name: &str) -> Option<Rc<ByOrigin>> {
        let mut alternatives = self.alternatives.borrow_mut();
        if let Some(alternative) = alternatives.get(name) {
            return Some(Rc::clone(alternative));
        }
        if alternatives.len() >= MAX_ALTERNATIVES {
            return None;
        }
        let alternative = Rc::new(ByOrigin::new(format!("{}{name}.", self.prefix())));
        alternatives.insert(name.into(), Rc::clone(&alternative));
        Some(alternative)
    }
}

//! The network filters before the one that serves a connection: whether it may be there, and whether it may speak.
//!
//! Limits are asked when the connection is new; authorisation when it says something, which is when Envoy's filters see
//! data. What a limit counts is taken back when [`Held`] is dropped.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use filters::flags::ResponseFlags;
use filters::rbac::{Caller, Judgement, RbacShadowStats, RbacStats};
use filters::stream_info::ConnectionInfo;
use serde_json::{Map, Value};
use stats::{Group, GroupHandle};

use crate::config::filter_chain::rbac::RbacConfig;
use crate::config::filter_chain::read_filter::{ConnectionLimit, LocalRateLimit, ReadFilter};
use crate::observe::catalogue::{ConnectionLimitStats, LocalRateLimitStats};
use crate::transport::{Gate, Io, Lingering, Verdict};
use crate::worker::Worker;

/// Where shadow rules leave what they say.
const METADATA: &str = "envoy.filters.network.rbac";

/// The filters of a chain on one worker.
pub struct NetworkFilters {
    worker: Rc<Worker>,
    filters: Vec<Filter>,
    /// The end of a client that never spoke is asked about as well: whoever serves the chain passes it on.
    at_end: bool,
}

enum Filter {
    ConnectionLimit(Rc<Limit>),
    RateLimit(Arc<LocalRateLimit>, Counted<LocalRateLimitStats>),
    Rbac(Rc<Rbac>),
    SniCluster,
}

struct Limit {
    config: Arc<ConnectionLimit>,
    stats: Counted<ConnectionLimitStats>,
}

struct Rbac {
    config: Arc<RbacConfig>,
    stats: Counted<RbacStats>,
    shadow: Counted<RbacShadowStats>,
}

/// A group of statistics on this worker, shown while this lives.
struct Counted<T: Group> {
    shard: T,
    _handle: Arc<GroupHandle<T>>,
}

/// A connection that was let in.
#[derive(Default)]
pub struct Held {
    /// The cluster a TCP proxy is to use instead of its own.
    pub cluster: Option<Arc<str>>,
    _open: Vec<Open>,
}

/// A connection that counts against a limit.
struct Open(Rc<Limit>);

impl NetworkFilters {
    /// The filters of a chain on `worker`; `None` when there are none.
    #[must_use]
    pub fn new(worker: &Rc<Worker>, filters: &[ReadFilter], at_end: bool) -> Option<Rc<Self>> {
        if filters.is_empty() {
            return None;
        }
        let filters = filters.iter().map(|filter| Filter::new(worker, filter)).collect();
        Some(Rc::new(Self { worker: Rc::clone(worker), filters, at_end }))
    }

    /// Asks for a new connection. One that may not be is to be closed; what its log says of it is the error.
    ///
    /// # Errors
    /// The connection is not let in.
    pub async fn admit(&self, info: &Rc<ConnectionInfo>, io: &mut Io) -> Result<Held, ResponseFlags> {
        let mut held = Held::default();
        let runtime = self.worker.runtime();
        for filter in &self.filters {
            match filter {
                Filter::ConnectionLimit(limit) if limit.config.enabled.is_on(&*runtime) => {
                    let before = limit.config.open.fetch_add(1, Relaxed);
                    limit.stats.shard.active_connections().inc();
                    held._open.push(Open(Rc::clone(limit)));
                    if before >= limit.config.max_connections {
                        limit.stats.shard.limited_connections().inc();
                        if let Some(delay) = limit.config.delay {
                            self.linger(delay, io).await;
                        }
                        return Err(ResponseFlags::NONE);
                    }
                }
                Filter::RateLimit(config, stats) if config.enabled.is_on(&*runtime) => {
                    if !config.bucket.take(Instant::now()) {
                        stats.shard.rate_limited().inc();
                        return Err(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                    }
                }
                Filter::ConnectionLimit(_) | Filter::RateLimit(..) => {}
                Filter::Rbac(rbac) => {
                    let (rbac, info, worker) = (Rc::clone(rbac), Rc::clone(info), Rc::clone(&self.worker));
                    io.guard(Gate::new(self.at_end, move || rbac.judge(&info, &worker)));
                }
                Filter::SniCluster => {
                    if !info.requested_server_name.is_empty() {
                        held.cluster = Some(Arc::from(&*info.requested_server_name));
                    }
                }
            }
        }
        Ok(held)
    }

    /// Holds a connection that is not let in, until its time is over or the client gives up. What it sends goes nowhere.
    async fn linger(&self, delay: Duration, io: &mut Io) {
        let timers = self.worker.timers();
        let (alarm, end) = (timers.alarm(), timers.now().after(delay));
        let mut read = BytesMut::new();
        std::future::poll_fn(|cx| {
            while let Poll::Ready(outcome) = self.worker.with_scratch(|scratch| io.poll_read(cx, scratch, &mut read)) {
                read.clear();
                if outcome.is_err() || outcome.is_ok_and(|n| n == 0) {
                    return Poll::Ready(());
                }
            }
            alarm.poll(end, cx)
        })
        .await;
    }
}

impl Filter {
    fn new(worker: &Rc<Worker>, filter: &ReadFilter) -> Self {
        match filter {
            ReadFilter::ConnectionLimit(config) => Self::ConnectionLimit(Rc::new(Limit {
                config: Arc::clone(config),
                stats: Counted::new(worker, &format!("connection_limit.{}.", config.stat_prefix)),
            })),
            ReadFilter::LocalRateLimit(config) => Self::RateLimit(
                Arc::clone(config),
                Counted::new(worker, &format!("local_rate_limit.{}.", config.stat_prefix)),
            ),
            ReadFilter::Rbac(config) => Self::Rbac(Rc::new(Rbac {
                config: Arc::clone(config),
                stats: Counted::new(worker, &config.prefix),
                shadow: Counted::new(worker, &config.shadow_prefix),
            })),
            ReadFilter::SniCluster => Self::SniCluster,
        }
    }
}

impl Rbac {
    /// Counts what both sets of rules say, and leaves it where logs find it. What is enforced is the verdict.
    fn judge(&self, info: &ConnectionInfo, worker: &Worker) -> Verdict {
        let caller = Caller { connection: info, request: None };
        if let Some(judgement) = self.config.shadow.as_ref().map(|rules| rules.judge(&caller)) {
            if judgement.allowed {
                self.shadow.shard.shadow_allowed().inc();
            } else {
                self.shadow.shard.shadow_denied().inc();
            }
            self.note(&judgement, info);
        }
        match self.config.rules.as_ref().map(|rules| rules.judge(&caller)) {
            Some(judgement) if !judgement.allowed => {
                self.stats.shard.denied().inc();
                info.outcome.termination.replace(Some(judgement.details()));
                return Verdict::Shut(self.lingering(worker));
            }
            Some(_) => self.stats.shard.allowed().inc(),
            None => {}
        }
        if self.config.continuous { Verdict::OpenForNow } else { Verdict::Open }
    }

    /// Leaves what the shadow rules say in the connection's dynamic metadata.
    fn note(&self, judgement: &Judgement<'_>, info: &ConnectionInfo) {
        let prefix = &self.config.shadow_metadata_prefix;
        let mut metadata = info.outcome.metadata.borrow_mut();
        let space = metadata.entry(METADATA).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(space) = space else { return };
        if let Some(policy) = judgement.policy {
            space.insert(format!("{prefix}shadow_effective_policy_id"), policy.into());
        }
        let result = if judgement.allowed { "allowed" } else { "denied" };
        space.insert(format!("{prefix}shadow_engine_result"), result.into());
    }

    /// Until when a denied connection waits.
    fn lingering(&self, worker: &Worker) -> Option<Lingering> {
        let delay = Some(self.config.delay_deny).filter(|delay| !delay.is_zero())?;
        let timers = worker.timers();
        let (alarm, end) = (timers.alarm(), timers.now().after(delay));
        Some(Box::pin(std::future::poll_fn(move |cx| alarm.poll(end, cx))))
    }
}

impl<T: Group> Counted<T> {
    fn new(worker: &Worker, prefix: &str) -> Self {
        let handle = worker.store().group::<T>(prefix);
        Self { shard: handle.shard(worker.index()), _handle: handle }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.config.open.fetch_sub(1, Relaxed);
        self.0.stats.shard.active_connections().dec();
    }
}

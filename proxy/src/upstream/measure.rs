//! What `track_cluster_stats` asks to be measured of each try: the part of its timeouts that it takes, and the sizes of its
//! request and response.
//!
//! A try is measured from when it wants a connection until it is over, and counts when its [`Measure`] is dropped. Clusters
//! that ask for nothing have no [`Measures`], and their tries nothing to keep.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use filters::http::{RequestHead, ResponseHead};
use stats::{GroupHandle, Store};

use super::cluster::ClusterContext;
use crate::config::cluster::Tracking;
use crate::observe::catalogue::{RequestSizeStats, TimeoutBudgetStats};

/// A whole, in the units that a percentage is recorded in.
const WHOLE: u128 = 1_000_000;

/// Keeps the statistics in the scrape, for all workers.
pub struct MeasuresShared {
    budgets: Option<Arc<GroupHandle<TimeoutBudgetStats>>>,
    sizes: Option<Arc<GroupHandle<RequestSizeStats>>>,
}

impl MeasuresShared {
    /// What `tracking` asks for, below `prefix`, which ends with a dot.
    #[must_use]
    pub fn new(tracking: Tracking, store: &Arc<Store>, prefix: &str) -> Self {
        Self {
            budgets: tracking.timeout_budgets.then(|| store.group(prefix)),
            sizes: tracking.request_response_sizes.then(|| store.group(prefix)),
        }
    }

    /// One worker's shard; `None` if nothing is asked for.
    #[must_use]
    pub fn shard(&self, worker: usize) -> Option<Measures> {
        let budgets = self.budgets.as_ref().map(|handle| handle.shard(worker));
        let sizes = self.sizes.as_ref().map(|handle| handle.shard(worker));
        (budgets.is_some() || sizes.is_some()).then_some(Measures { budgets, sizes })
    }
}

/// A worker's shard of what is measured of a cluster.
pub struct Measures {
    budgets: Option<TimeoutBudgetStats>,
    sizes: Option<RequestSizeStats>,
}

impl Measures {
    /// A request's response is complete, or will not be in time, `took` after the request was complete.
    pub fn request_over(&self, took: Duration, limit: Option<Duration>) {
        if let Some(budgets) = &self.budgets {
            budgets.upstream_rq_timeout_budget_percent_used().record(part_of(took, limit));
        }
    }
}

/// Count and size of the headers of a message.
#[derive(Debug, Clone, Copy, Default)]
struct Fields {
    count: u64,
    bytes: u64,
}

/// One try.
pub struct Measure {
    context: Rc<ClusterContext>,
    began: Instant,
    limit: Option<Duration>,
    /// The limit of a try had no part in how this one ended.
    outlived: bool,
    request: Fields,
    /// All heads, informational ones too.
    response: Option<Fields>,
    request_body: u64,
    response_body: u64,
}

impl Measure {
    /// A try that begins now and may take as long as `limit` (`per_try_timeout`); `None` if its cluster measures nothing.
    #[must_use]
    pub fn begin(context: &Rc<ClusterContext>, limit: Option<Duration>) -> Option<Box<Self>> {
        context.measures.as_ref()?;
        Some(Box::new(Self {
            began: context.worker.timers().recent_instant(),
            context: Rc::clone(context),
            limit,
            outlived: false,
            request: Fields::default(),
            response: None,
            request_body: 0,
            response_body: 0,
        }))
    }

    /// The head that is sent.
    pub fn asks(&mut self, head: &RequestHead) {
        self.request = Fields { count: head.field_count() as u64, bytes: head.byte_size() as u64 };
    }

    /// A piece of the body that is sent.
    pub const fn sends(&mut self, bytes: usize) {
        self.request_body += bytes as u64;
    }

    /// A head that came.
    pub fn is_told(&mut self, head: &ResponseHead) {
        let fields = self.response.get_or_insert_default();
        fields.count += head.field_count() as u64;
        fields.bytes += head.byte_size() as u64;
    }

    /// A piece of the body that came.
    pub const fn receives(&mut self, bytes: usize) {
        self.response_body += bytes as u64;
    }

    /// The timeout of the whole request ends this try.
    pub const fn outlive(&mut self) {
        self.outlived = true;
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        let Some(Measures { budgets, sizes }) = &self.context.measures else { return };
        if let Some(budgets) = budgets
            && !self.outlived
        {
            let took = self.context.worker.timers().recent_instant().saturating_duration_since(self.began);
            budgets.upstream_rq_timeout_budget_per_try_percent_used().record(part_of(took, self.limit));
        }
        if let Some(sizes) = sizes {
            sizes.upstream_rq_headers_count().record(self.request.count);
            sizes.upstream_rq_headers_size().record(self.request.bytes);
            sizes.upstream_rq_body_size().record(self.request_body);
            if let Some(Fields { count, bytes }) = self.response {
                sizes.upstream_rs_headers_count().record(count);
                sizes.upstream_rs_headers_size().record(bytes);
                sizes.upstream_rs_body_size().record(self.response_body);
            }
        }
    }
}

/// Which part of `limit` this is, by whole milliseconds; none of no limit.
fn part_of(took: Duration, limit: Option<Duration>) -> u64 {
    let whole = limit.map_or(0, |limit| limit.as_millis());
    let part = (took.as_millis() * WHOLE).checked_div(whole).unwrap_or(0);
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_limit() {
        let ms = Duration::from_millis;
        for (took, limit, expected) in [
            (0, Some(100), 0),
            (25, Some(100), 250_000),
            (1, Some(3), 333_333),
            (205, Some(200), 1_025_000),
            (50, None, 0),
            (50, Some(0), 0),
        ] {
            assert_eq!(part_of(ms(took), limit.map(ms)), expected, "{took} of {limit:?}");
        }
        assert_eq!(part_of(Duration::MAX, Some(ms(1))), u64::MAX);
    }
}

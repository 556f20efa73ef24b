//! Statistics of the process's threads.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stats::{GroupHandle, Store};
use tokio::runtime::{Handle, RuntimeMetrics};

use super::catalogue::ThreadClusterStats;

/// `thread_local_cluster_manager.<thread>.`: how many clusters a thread knows.
pub struct ThreadClusters {
    stats: ThreadClusterStats,
    _group: Arc<GroupHandle<ThreadClusterStats>>,
}

impl ThreadClusters {
    /// Those of `thread`, which counts on `shard`.
    #[must_use]
    pub fn new(store: &Arc<Store>, thread: &str, shard: usize) -> Self {
        let group = store.group::<ThreadClusterStats>(&format!("thread_local_cluster_manager.{thread}."));
        let stats = group.shard(shard);
        stats.clusters_inflated().set(0);
        Self { stats, _group: group }
    }

    /// The thread knows so many now.
    pub fn set(&self, clusters: usize) {
        self.stats.clusters_inflated().set(clusters as u64);
    }
}

/// A thread's signs of life: what its runtime counts anyway, for others to look at. An idle thread is not woken for it.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<OnceLock<RuntimeMetrics>>);

/// What a look at a thread shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// It waits for something to do.
    pub idle: bool,
    /// Turns of its loop so far, and the time spent in them: another value is another turn.
    turns: (u64, Duration),
}

impl Pulse {
    /// To be called on the thread, in its runtime, once.
    pub fn begin(&self) {
        // A second call changes nothing: it is the same runtime.
        let _ = self.0.set(Handle::current().metrics());
    }

    /// How the thread is; idle before it began.
    #[must_use]
    pub fn beat(&self) -> Beat {
        let Some(metrics) = self.0.get() else { return Beat { idle: true, turns: (0, Duration::ZERO) } };
        let parks = metrics.worker_park_unpark_count(0);
        // Parked and unparked are counted: an odd number is a thread that is parked.
        Beat { idle: parks % 2 == 1, turns: (parks, metrics.worker_total_busy_duration(0)) }
    }
}

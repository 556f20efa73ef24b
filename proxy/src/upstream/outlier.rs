//! Outlier detection, as far as it happens where requests do.
//!
//! Three parts share the work, and each fact has one writer or is an atomic:
//!
//! * A [`Monitor`] belongs to a [`HostState`] of a cluster that detects outliers. A worker tells it the [`Outcome`] of
//!   every try. Failures in a row are counted over all workers; volumes and successes on each worker's own cache line.
//! * A [`Detection`] belongs to a version of a cluster. It says how many hosts are ejected and how many there are, so that
//!   whoever finds an outlier can decide at once: the host that failed once too often is ejected by the worker that saw
//!   it, and no worker chooses it from then on.
//! * The detector of the control thread (`control::clusters::outlier`) is told of every [`Finding`]. It keeps the books
//!   (how often, since when, for how long), sweeps, compares success rates, ends ejections, counts and logs.
//!
//! The flag on the host is the ticket: whoever sets it has taken a place among the ejected before, and whoever clears it
//! gives the place back. So the number of the ejected is right whatever threads do at the same time.
//!
//! A host of a cluster without outlier detection has no monitor: the data path looks for one and is done.

mod detection;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use filters::matcher::Runtime;

pub use self::detection::{Detection, grpc_status_as_http};
use super::host::{Counter, HealthFlags, HostState};

/// How a try ended, as far as outlier detection cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with this status, or the one its gRPC status stands for.
    Response {
        /// The status.
        status: u16,
        /// The answer says that the host is degraded (`x-envoy-degraded`).
        degraded: bool,
    },
    /// It has a connection; what the host makes of it is yet to be seen.
    Connected,
    /// It has a connection, and nothing else is known of what is spoken there.
    ConnectedFinally,
    /// There was no connection, or it or the stream ended too soon.
    ConnectFailed,
    /// It took too long; the client saw this status.
    TimedOut(u16),
}

/// What a host was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answered 5xx too often in a row.
    Consecutive5xx,
    /// It answered 502, 503 or 504 too often in a row.
    ConsecutiveGatewayFailure,
    /// It could not be reached, or not in time, too often in a row.
    ConsecutiveLocalOriginFailure,
    /// Fewer of its answers are good than is usual in the cluster.
    SuccessRate,
    /// It is reached less often than is usual in the cluster.
    SuccessRateLocalOrigin,
    /// Too many of its answers are bad.
    FailurePercentage,
    /// It is not reached too often.
    FailurePercentageLocalOrigin,
    /// It says itself that it is degraded.
    Degraded,
}

/// What became of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is ejected (degraded, if that is what it was found to be).
    Enforced,
    /// It would have been, but chance or configuration spared it.
    Spared,
    /// As many as may be are ejected already.
    Overflow,
}

/// A host was found to be an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// By which detector.
    pub kind: Kind,
    /// What became of it.
    pub verdict: Verdict,
}

/// What is known of one host.
#[derive(Debug)]
pub struct Monitor {
    detection: Arc<Detection>,
    failures_5xx: AtomicU32,
    failures_gateway: AtomicU32,
    failures_local: AtomicU32,
    /// One per worker.
    shards: Box<[Shard]>,
}

/// What one worker saw of one host.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    external: Tally,
    local: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    total: Counter,
    good: Counter,
}

/// Requests, and how many of them went well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// All of them.
    pub total: u64,
    /// Those that went well.
    pub good: u64,
}

impl Volume {
    /// What came after `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self { total: self.total.wrapping_sub(before.total), good: self.good.wrapping_sub(before.good) }
    }

    /// How many went well, in percent; `None` of none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "requests within an interval are far below 2^53")]
    pub fn rate(self) -> Option<f64> {
        (self.total > 0).then(|| self.good as f64 * 100.0 / self.total as f64)
    }
}

/// Whose fault failures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The host's: its answers. Without a split, everything.
    External,
    /// Ours, or the network's: connections and timeouts, if they are told apart.
    Local,
}

/// What one outcome may give rise to: a gateway failure is an answer 5xx, too.
pub type Findings = [Option<Finding>; 2];

impl Monitor {
    /// A host that nothing is known of yet, in a process with this many workers.
    #[must_use]
    pub fn new(detection: Arc<Detection>, workers: usize) -> Self {
        Self {
            detection,
            failures_5xx: AtomicU32::new(0),
            failures_gateway: AtomicU32::new(0),
            failures_local: AtomicU32::new(0),
            shards: (0..workers.max(1)).map(|_| Shard::default()).collect(),
        }
    }

    /// The detection it belongs to.
    #[must_use]
    pub const fn detection(&self) -> &Arc<Detection> {
        &self.detection
    }

    /// Takes in what worker `worker` saw of `host`, whose monitor this is; what that makes of the host.
    pub fn record(
        &self,
        host: &HostState,
        worker: usize,
        outcome: Outcome,
        runtime: &dyn Runtime,
        roll: &mut dyn FnMut(u64) -> u64,
    ) -> Findings {
        let Some(shard) = self.shards.get(worker) else { return [None, None] };
        let around = Around { host, runtime, roll };
        let split = self.detection.config().split_external_local_origin_errors;
        match outcome {
            Outcome::Response { status, degraded } => {
                if degraded && status < 500 && self.detection.config().detect_degraded_hosts {
                    self.answered(shard, status, around);
                    return [degrade(host), None];
                }
                self.answered(shard, status, around)
            }
            Outcome::Connected | Outcome::ConnectedFinally if split => {
                self.reached(shard);
                [None, None]
            }
            Outcome::ConnectFailed | Outcome::TimedOut(_) if split => [self.not_reached(shard, around), None],
            // The answer is what counts.
            Outcome::Connected => [None, None],
            Outcome::ConnectedFinally => self.answered(shard, 200, around),
            Outcome::ConnectFailed => self.answered(shard, 503, around),
            Outcome::TimedOut(status) => self.answered(shard, status, around),
        }
    }

    /// Requests over all workers so far.
    #[must_use]
    pub fn volume(&self, origin: Origin) -> Volume {
        let tally = |shard: &Shard| {
            let Tally { total, good } = match origin {
                Origin::External => &shard.external,
                Origin::Local => &shard.local,
            };
            // In this order: there are never more good ones than there are.
            let good = good.value();
            Volume { total: total.value().max(good), good }
        };
        self.shards.iter().map(tally).fold(Volume::default(), |a, b| Volume {
            total: a.total.wrapping_add(b.total),
            good: a.good.wrapping_add(b.good),
        })
    }

    /// No failure was in a row with what comes.
    pub fn reset(&self) {
        for failures in [&self.failures_5xx, &self.failures_gateway, &self.failures_local] {
            failures.store(0, Relaxed);
        }
    }

    fn answered(&self, shard: &Shard, status: u16, mut around: Around<'_>) -> Findings {
        shard.external.total.inc();
        let config = self.detection.config();
        if !(500..600).contains(&status) {
            shard.external.good.inc();
            end(&self.failures_5xx);
            end(&self.failures_gateway);
            return [None, None];
        }
        let gateway = if (502..=504).contains(&status) {
            let configured = config.consecutive_gateway_failure;
            self.in_a_row(&self.failures_gateway, Kind::ConsecutiveGatewayFailure, configured, &mut around)
        } else {
            end(&self.failures_gateway);
            None
        };
        let any = self.in_a_row(&self.failures_5xx, Kind::Consecutive5xx, config.consecutive_5xx, &mut around);
        [gateway, any]
    }

    fn reached(&self, shard: &Shard) {
        shard.local.total.inc();
        shard.local.good.inc();
        end(&self.failures_local);
    }

    fn not_reached(&self, shard: &Shard, mut around: Around<'_>) -> Option<Finding> {
        shard.local.total.inc();
        let configured = self.detection.config().consecutive_local_origin_failure;
        self.in_a_row(&self.failures_local, Kind::ConsecutiveLocalOriginFailure, configured, &mut around)
    }

    /// One failure more; a finding if it is the one that is too many.
    fn in_a_row(&self, failures: &AtomicU32, kind: Kind, configured: u64, around: &mut Around<'_>) -> Option<Finding> {
        let key = match kind {
            Kind::ConsecutiveGatewayFailure => "outlier_detection.consecutive_gateway_failure",
            Kind::ConsecutiveLocalOriginFailure => "outlier_detection.consecutive_local_origin_failure",
            _ => "outlier_detection.consecutive_5xx",
        };
        let now = u64::from(failures.fetch_add(1, Relaxed).wrapping_add(1));
        if now != around.runtime.integer(key).unwrap_or(configured) {
            return None;
        }
        // In panic an ejected host still gets requests. It is not ejected once more.
        if around.host.flags().contains(HealthFlags::FAILED_OUTLIER_CHECK) {
            return None;
        }
        let verdict = self.detection.judge(around.host, kind, around.runtime, around.roll)?;
        failures.store(0, Relaxed);
        Some(Finding { kind, verdict })
    }
}

/// What a decision depends on besides the monitor.
struct Around<'a> {
    host: &'a HostState,
    runtime: &'a dyn Runtime,
    roll: &'a mut dyn FnMut(u64) -> u64,
}

/// A row of failures ends. Most have not begun, and a line of cache that nobody writes is everybody's.
fn end(failures: &AtomicU32) {
    if failures.load(Relaxed) != 0 {
        failures.store(0, Relaxed);
    }
}

fn degrade(host: &HostState) -> Option<Finding> {
    let degraded = HealthFlags::DEGRADED_OUTLIER_DETECTION;
    let known = host.flags().contains(degraded) || host.change_flags(degraded, HealthFlags::NONE).contains(degraded);
    (!known).then_some(Finding { kind: Kind::Degraded, verdict: Verdict::Enforced })
}

#[cfg(test)]
mod tests;

//! The requests of the demo, and what became of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::task::JoinSet;

use super::client::{Answer, Http2, ask};
use super::resources::{Ports, SERVICE_B, SERVICE_B_HOST, SERVICE_B_V2};
use crate::stage::http1::Http1;

/// Requests of a flow under way at once.
const CONCURRENCY: u64 = 6;

/// A way through the mesh. All end at `serviceB` or `serviceBv2`, by the same weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// `serviceA` calls `serviceb.apps.local` by HTTP/2 through its sidecar.
    Sidecar,
    /// A client calls the gateway by HTTP/1.1, which rewrites `/serviceb/` and calls the service by HTTP/2.
    Gateway,
    /// A client calls `/servicea/` at the gateway: gateway, sidecar, `serviceA`, sidecar again, `serviceB`.
    Chain,
}

impl Flow {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Sidecar, Self::Gateway, Self::Chain];

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Sidecar => "serviceA > serviceb.apps.local (HTTP/2)",
            Self::Gateway => "gateway /serviceb/ (HTTP/1.1)",
            Self::Chain => "gateway /servicea/ > serviceA > serviceb",
        }
    }
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Answered by `serviceB`.
    pub(super) v1: u64,
    /// Answered by `serviceBv2`.
    pub(super) v2: u64,
    /// Answered wrongly or not at all.
    pub(super) failed: u64,
    /// How the first of those failed.
    pub(super) failure: Option<String>,
    /// When the last request that went to `serviceB` was sent.
    pub(super) last_v1: Option<Instant>,
    /// Of the answered ones, in microseconds.
    pub(super) latencies: Vec<u32>,
}

impl Counts {
    /// The answered ones.
    pub(super) const fn answered(&self) -> u64 {
        self.v1 + self.v2
    }

    /// The share of `serviceB`, 0 to 1; `None` if nothing was answered.
    #[expect(clippy::cast_precision_loss, reason = "counts of a demonstration are far below 2^52")]
    pub(super) fn share_v1(&self) -> Option<f64> {
        (self.answered() > 0).then(|| self.v1 as f64 / self.answered() as f64)
    }

    /// The latency that `percent` of the answered requests did not exceed.
    pub(super) fn percentile(&mut self, percent: usize) -> Duration {
        self.latencies.sort_unstable();
        let rank = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        Duration::from_micros(self.latencies.get(rank).copied().unwrap_or_default().into())
    }

    /// Adds what `other` counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.v1 += other.v1;
        self.v2 += other.v2;
        self.failed += other.failed;
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        self.last_v1 = self.last_v1.max(other.last_v1);
        self.latencies.extend_from_slice(&other.latencies);
    }

    fn record(&mut self, started: Instant, outcome: Result<Answer, String>) {
        let latency = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        let fault = match outcome {
            Err(error) => error,
            Ok(answer) if answer.status != StatusCode::OK => format!("status {}", answer.status),
            Ok(answer) if answer.seen_path != "/" => format!("the service was asked for {}", answer.seen_path),
            Ok(answer) => {
                match answer.served_by.as_str() {
                    SERVICE_B => {
                        self.v1 += 1;
                        self.last_v1 = self.last_v1.max(Some(started));
                    }
                    SERVICE_B_V2 => self.v2 += 1,
                    other => {
                        self.failed += 1;
                        self.failure.get_or_insert_with(|| format!("answered by {other:?}"));
                        return;
                    }
                }
                self.latencies.push(latency);
                return;
            }
        };
        self.failed += 1;
        self.failure.get_or_insert(fault);
    }
}

/// The last few seconds of a flow.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pieces: VecDeque<(Instant, Counts)>,
}

impl Recent {
    /// How far back it goes.
    pub(super) const SPAN: Duration = Duration::from_secs(5);

    /// Adds what was counted until now; forgets what is older than [`Self::SPAN`].
    pub(super) fn push(&mut self, counts: Counts) {
        self.pieces.push_back((Instant::now(), counts));
        while self.pieces.front().is_some_and(|(at, _)| at.elapsed() > Self::SPAN) {
            self.pieces.pop_front();
        }
    }

    /// Begins anew: what comes follows other weights.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// All of it.
    pub(super) fn sum(&self) -> Counts {
        self.pieces.iter().fold(Counts::default(), |mut sum, (_, counts)| {
            sum.add(counts);
            sum
        })
    }
}

/// Requests under way through every [`Flow`].
pub(super) struct Load {
    counts: Arc<[Mutex<Counts>; 3]>,
    sidecar: Http2,
    gateway_port: u16,
}

impl Load {
    /// Requests to the listeners at these ports.
    pub(super) fn new(ports: &Ports) -> Self {
        Self { counts: Arc::default(), sidecar: Http2::new(ports.sidecar_egress), gateway_port: ports.gateway_ingress }
    }

    /// What was counted since the last call, in the order of [`Flow::ALL`].
    pub(super) fn take(&self) -> [Counts; 3] {
        self.counts.each_ref().map(|counts| std::mem::take(&mut *counts.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Sends `number` requests through each flow, as fast as they are answered.
    pub(super) async fn send(&self, number: u64) {
        let mut tasks = JoinSet::new();
        for flow in Flow::ALL {
            let remaining = Arc::new(AtomicU64::new(number));
            for _ in 0..CONCURRENCY {
                let remaining = Arc::clone(&remaining);
                let more = move || {
                    remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
                };
                tasks.spawn(self.worker(flow, Duration::ZERO, more));
            }
        }
        tasks.join_all().await;
    }

    /// Sends requests through each flow until it is stopped, every client waiting for `pause` between two.
    pub(super) fn keep_sending(&self, pause: Duration) -> Ongoing {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for flow in Flow::ALL {
            for _ in 0..CONCURRENCY {
                let stop = Arc::clone(&stop);
                tasks.spawn(self.worker(flow, pause, move || !stop.load(Ordering::Relaxed)));
            }
        }
        Ongoing { stop, tasks }
    }

    /// One client: asks again and again while there is `more` to ask.
    fn worker<F: Fn() -> bool + Send>(
        &self,
        flow: Flow,
        pause: Duration,
        more: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let counts = Arc::clone(&self.counts);
        let sidecar = self.sidecar.clone();
        let mut gateway = Http1::new(self.gateway_port);
        async move {
            while more() {
                let started = Instant::now();
                let outcome = match flow {
                    Flow::Sidecar => sidecar.get(SERVICE_B_HOST, "/").await,
                    Flow::Gateway => ask(&mut gateway, "/serviceb/").await,
                    Flow::Chain => ask(&mut gateway, "/servicea/").await,
                };
                if let Some(counts) = counts.get(flow as usize) {
                    counts.lock().unwrap_or_else(PoisonError::into_inner).record(started, outcome);
                }
                if !pause.is_zero() {
                    // Uneven, or all clients would ask in step.
                    tokio::time::sleep(pause.mul_f32(0.5 + fastrand::f32())).await;
                }
            }
        }
    }
}

/// Requests that keep coming.
pub(super) struct Ongoing {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Ongoing {
    /// Sends no more and waits for the answers that are due.
    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(served_by: &str, status: StatusCode, seen_path: &str) -> Result<Answer, String> {
        Ok(Answer { status, served_by: served_by.to_owned(), seen_path: seen_path.to_owned() })
    }

    #[test]
    fn only_a_right_answer_counts() {
        let mut counts = Counts::default();
        let now = Instant::now();
        counts.record(now, answer(SERVICE_B, StatusCode::OK, "/"));
        counts.record(now, answer(SERVICE_B_V2, StatusCode::OK, "/"));
        counts.record(now, answer(SERVICE_B, StatusCode::BAD_GATEWAY, "/"));
        counts.record(now, answer(SERVICE_B, StatusCode::OK, "/serviceb/"));
        counts.record(now, answer("serviceC", StatusCode::OK, "/"));
        counts.record(now, Err("reset".to_owned()));
        assert_eq!((counts.v1, counts.v2, counts.failed), (1, 1, 4));
        assert_eq!(counts.failure.as_deref(), Some("status 502 Bad Gateway"));
        assert_eq!(counts.share_v1(), Some(0.5));
        assert_eq!(counts.last_v1, Some(now));
    }

    #[test]
    fn percentiles_are_of_requests() {
        let mut counts = Counts { latencies: (1..=200).rev().collect(), ..Counts::default() };
        assert_eq!(counts.percentile(50), Duration::from_micros(100));
        assert_eq!(counts.percentile(99), Duration::from_micros(198));
        assert_eq!(Counts::default().percentile(99), Duration::ZERO);
    }
}

//! Open-loop load: a request leaves when its time has come, whatever became of those before it, and its latency counts
//! from that time.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, Outcome};
use super::diary::RequestId;

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: RequestId,
    /// When it was to leave.
    pub(super) scheduled: Duration,
    /// When it did leave; later where this machine was busy.
    pub(super) left: Duration,
    /// When its outcome was known.
    pub(super) ended: Duration,
    pub(super) outcome: Outcome,
}

/// Sends `rate` requests a second for `length`, numbered from `first`, and waits for all outcomes. Times count from
/// `begun`.
pub(super) async fn run(
    client: &Client,
    begun: std::time::Instant,
    first: RequestId,
    rate: u32,
    length: Duration,
) -> Vec<Sent> {
    let begun = Instant::from_std(begun);
    let start = begun.elapsed();
    let interval = Duration::from_secs(1) / rate.max(1);
    let number = length.as_nanos() / interval.as_nanos().max(1);
    let mut sent = Vec::with_capacity(usize::try_from(number).unwrap_or_default());
    let mut under_way = JoinSet::new();
    let mut scheduled = start;
    for id in (first..).take(usize::try_from(number).unwrap_or(usize::MAX)) {
        sleep_until(begun + scheduled).await;
        let client = client.clone();
        under_way.spawn_local(async move {
            let left = begun.elapsed();
            let outcome = client.send(id).await;
            Sent { id, scheduled, left, ended: begun.elapsed(), outcome }
        });
        while let Some(Ok(done)) = under_way.try_join_next() {
            sent.push(done);
        }
        scheduled += interval;
    }
    sent.extend(under_way.join_all().await);
    sent
}

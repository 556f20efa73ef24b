//! Tries: one after the other, until one is answered in a way that the client is to see.
//!
//! What is decided about a try's outcome is in [`RetryState`]; here it is asked, counted and obeyed. A stream whose route
//! wants no retries has no such state, and goes through here once.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use filters::flags::{ResponseFlags, details};
use filters::http::{Headers, Known, ResponseHead};
use filters::stream_info::{ByteMeter, Timing, UpstreamInfo};

use super::deadline::Expired;
use super::expiry::Broken;
use super::limits::tell_time_limit;
use super::upstream::breaker_priority;
use super::{Downstream, Step, Stream};
use crate::http::reply::LocalReply;
use crate::route::policy::GrpcTimeoutTarget;
use crate::route::{ForwardAction, Route};
use crate::upstream::cluster::Cluster;
use crate::upstream::failure::FailureKind;
use crate::upstream::host::Host;
use crate::upstream::retry::{Decision, RetryState, Ruling, Surroundings, Wait};

/// Another try is to follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    wait: Wait,
    /// The last one took too long.
    after_timeout: bool,
}

/// What ends the wait for the next try.
enum Interval {
    Over,
    Broken(Broken),
    /// So much of the request has come that it cannot be sent again.
    TooLong,
}

impl Again {
    /// After a try that took too long, in so long.
    pub(super) const fn after_timeout(wait: Wait) -> Self {
        Self { wait, after_timeout: true }
    }
}

impl<D: Downstream> Stream<'_, D> {
    /// Tries made so far.
    pub(super) fn attempts(&self) -> u32 {
        self.info.upstream.as_ref().map_or(0, |upstream| upstream.attempts)
    }

    /// Whether there may be several tries, and if so what is needed for them. Takes the headers out that ask for retries.
    pub(super) fn prepare_retries(&mut self, cluster: &Cluster, route: &Route, forward: &ForwardAction) {
        let Some(head) = &mut self.request else { return };
        let policy = forward.retry_on(cluster.config());
        if policy.is_some() || asks_for_retries(&head.headers) {
            self.retry = RetryState::new(policy, breaker_priority(forward), head, &*self.manager.worker.runtime());
            head.headers.retain(|header| !header.name.known().is_some_and(goes_no_further));
        }
        let kept = self.retry.as_ref().is_some_and(|retry| retry.is_enabled()) || forward.internal_redirect.is_some();
        if kept && !self.head_only {
            let limit = route.body_buffer_limit.bytes(self.manager.buffer_limit as u64);
            self.early.keep(usize::try_from(limit).unwrap_or(usize::MAX));
        }
    }

    /// Tries until one is answered.
    pub(super) async fn attempts_on(
        &mut self,
        mut cluster: Rc<Cluster>,
        mut host: Arc<Host>,
        route: &Route,
        forward: &ForwardAction,
    ) -> Step<()> {
        while let Some(again) = self.attempt(&cluster, &host, route, forward).await? {
            self.measure = None;
            self.deadlines.end_try();
            self.wait_for_next_try(again.wait).await?;
            (cluster, host) = self.next_try(&cluster, again, route, forward).await?;
        }
        Ok(())
    }

    /// Makes the next try ready: where it goes.
    pub(super) async fn next_try(
        &mut self,
        cluster: &Cluster,
        again: Again,
        route: &Route,
        forward: &ForwardAction,
    ) -> Step<(Rc<Cluster>, Arc<Host>)> {
        let stats = &cluster.context().stats;
        stats.upstream_rq_retry().inc();
        self.count_scopes(|stats| stats.upstream_rq_retry().inc());
        match again.wait {
            Wait::BackOff(_) => stats.upstream_rq_retry_backoff_exponential().inc(),
            Wait::Asked(_) => stats.upstream_rq_retry_backoff_ratelimited().inc(),
        }
        self.info.upstream_mut().attempts += 1;
        // Meanwhile the cluster may have been changed, or removed.
        let Some(cluster) = self.manager.worker.cluster(&cluster.config().name) else {
            return self.no_host(None).await;
        };
        self.cluster = Some(Rc::clone(&cluster));
        let host = self.choose_host(&cluster, forward).await?;
        self.begin_again(again, route, forward);
        Ok((cluster, host))
    }

    /// Waits before the next try, while the client may leave, send more, or all may take too long.
    async fn wait_for_next_try(&mut self, wait: Wait) -> Step<()> {
        let timers = Rc::clone(self.manager.worker.timers());
        let until = timers.recent().after(wait.duration());
        let mut sleep = pin!(timers.sleep_until(until));
        let mut waited = false;
        let ended = poll_fn(|cx| {
            if waited {
                timers.turn();
            }
            waited = true;
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Interval::Over);
            }
            if let Poll::Ready(which) = self.poll_deadlines(None, cx) {
                return Poll::Ready(Interval::Broken(Broken::Expired(which)));
            }
            if let Poll::Ready(interrupt) = self.poll_early(cx) {
                return Poll::Ready(Interval::Broken(Broken::Gone(interrupt)));
            }
            if self.retry.is_none() { Poll::Ready(Interval::TooLong) } else { Poll::Pending }
        });
        match ended.await {
            Interval::Over => Ok(()),
            // No try has taken too long, so none is counted.
            Interval::Broken(Broken::Expired(Expired::Route)) => self.too_late(details::RESPONSE_TIMEOUT, None).await,
            Interval::Broken(broken) => match self.cluster.clone() {
                Some(cluster) => self.cut_short(&cluster, None, broken).await,
                None => self.no_host(None).await,
            },
            Interval::TooLong => {
                let reply = LocalReply::new(507, "exceeded request buffer limit while retrying upstream");
                self.reply_end(reply, details::REQUEST_PAYLOAD_EXCEEDED_RETRY_BUFFER_LIMIT).await
            }
        }
    }

    /// Makes the request ready to be sent once more, and forgets what is known of the try before.
    fn begin_again(&mut self, again: Again, route: &Route, forward: &ForwardAction) {
        let attempts = self.attempts();
        let upstream = self.info.upstream_mut();
        *upstream = UpstreamInfo {
            cluster: upstream.cluster.take(),
            cluster_metadata: upstream.cluster_metadata.take(),
            attempts,
            ..UpstreamInfo::default()
        };
        self.info.upstream_bytes = ByteMeter::default();
        self.info.timing = Timing {
            first_upstream_tx: None,
            last_upstream_tx: None,
            first_upstream_rx: None,
            last_upstream_rx: None,
            ..self.info.timing
        };
        // A request that was more than a head stays so, and be it by an empty body.
        self.early.rewind();

        let elapsed = self.info.timing.last_downstream_rx.map_or(Duration::ZERO, |complete| self.since(complete));
        let Some(head) = &mut self.request else { return };
        if route.include_request_attempt_count {
            let mut text = itoa::Buffer::new();
            head.headers.set(Known::XEnvoyAttemptCount, Bytes::copy_from_slice(text.format(attempts).as_bytes()));
        }
        if route.include_is_timeout_retry {
            let value: &[u8] = if again.after_timeout { b"true" } else { b"false" };
            head.headers.set(Known::XEnvoyIsTimeoutRetry, Bytes::from_static(value));
        }
        if let Some(expected) = self.deadlines.expected(elapsed, self.hedges) {
            let target = forward.timeouts.grpc.as_ref().map(|rule| rule.target);
            let grpc = target == Some(GrpcTimeoutTarget::Response) && head.is_grpc();
            tell_time_limit(&mut head.headers, expected, self.manager.config.router().suppress_envoy_headers, grpc);
        }
    }

    /// A try has its host, whether or not a connection to it stands.
    pub(super) fn host_tried(&mut self, host: &Host) {
        if let Some(retry) = &mut self.retry {
            retry.attempted(host);
        }
    }

    /// Whether another try follows one that ended without a response. `begun` says whether any of the request was sent.
    pub(super) fn retry_after_failure(
        &mut self,
        host: &Host,
        kind: FailureKind,
        begun: bool,
        after_timeout: bool,
    ) -> Option<Again> {
        if self.upstream_started {
            return None;
        }
        let wait = self.rule(|retry, around| retry.after_failure(kind, begun, around)).wait()?;
        host.shard(self.manager.worker.index()).rq_error.inc();
        Some(Again { wait, after_timeout })
    }

    /// Whether another try follows one that was answered with this head.
    pub(super) fn retry_after_head(&mut self, cluster: &Cluster, host: &Host, head: &ResponseHead) -> Option<Again> {
        let wait = self.rule(|retry, around| retry.after_response(head, around)).wait()?;
        host.shard(self.manager.worker.index()).rq_error.inc();
        cluster.context().responses.retried(&self.manager.worker, head.status);
        Some(Again { wait, after_timeout: false })
    }

    /// There will be no further try, because the client is about to see this one's answer.
    pub(super) fn end_retries(&mut self) {
        self.retry = None;
        self.early.release();
    }

    /// There will be no further try, because the request is too long to be kept.
    pub(super) fn abandon_retries(&mut self) {
        if let Some(cluster) = &self.cluster {
            cluster.context().stats.retry_or_shadow_abandoned().inc();
        }
        self.end_retries();
    }

    /// Asks for a ruling and counts it.
    pub(super) fn rule(&mut self, ask: impl FnOnce(&mut RetryState, &Surroundings<'_>) -> Ruling) -> Decision {
        let (Some(retry), Some(cluster)) = (self.retry.as_deref_mut(), self.cluster.as_ref()) else {
            return Decision::No;
        };
        let worker = &self.manager.worker;
        let around = Surroundings {
            breakers: &cluster.context().breakers,
            runtime: &*worker.runtime(),
            now: worker.timers().recent_wall(),
            random: worker.with_rng(|rng| rng.u64(..)),
        };
        let ruling = ask(retry, &around);
        let stats = &cluster.context().stats;
        if ruling.retry_succeeded {
            stats.upstream_rq_retry_success().inc();
            self.count_scopes(|stats| stats.upstream_rq_retry_success().inc());
        }
        match ruling.decision {
            Decision::Retry(_) | Decision::No => {}
            Decision::LimitExceeded => {
                stats.upstream_rq_retry_limit_exceeded().inc();
                self.count_scopes(|stats| stats.upstream_rq_retry_limit_exceeded().inc());
                self.info.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            }
            Decision::Overflow => {
                stats.upstream_rq_retry_overflow().inc();
                self.count_scopes(|stats| stats.upstream_rq_retry_overflow().inc());
                self.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            }
        }
        ruling.decision
    }
}

/// Headers that are about retries alone, and go no further than the router.
pub(super) const fn is_about_retries(known: Known) -> bool {
    matches!(
        known,
        Known::XEnvoyRetryOn
            | Known::XEnvoyRetryGrpcOn
            | Known::XEnvoyMaxRetries
            | Known::XEnvoyRetriableStatusCodes
            | Known::XEnvoyRetriableHeaderNames
    )
}

/// Headers that the upstream does not get to see, even if the route added them.
const fn goes_no_further(known: Known) -> bool {
    is_about_retries(known)
        || matches!(known, Known::XEnvoyHedgeOnPerTryTimeout | Known::XEnvoyUpstreamRqPerTryTimeoutMs)
}

/// Whether any header is about retries: almost never.
fn asks_for_retries(headers: &Headers) -> bool {
    headers.iter().any(|header| header.name.known().is_some_and(goes_no_further))
}

//! A try's conversation with its upstream: what is said both ways, and who hears of how it went.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use filters::http::ResponseHead;
use filters::stream_info::ByteMeter;

use super::deadline::Expired;
use super::exchange::{Event, Progress};
use super::expiry::Broken;
use super::retry::Again;
use super::{Downstream, End, Step, Stream};
use crate::route::{ForwardAction, Route};
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::outlier::Outcome;
use crate::upstream::responses::Origin;

/// Informational heads passed on for one response; an upstream that sends more is broken or hostile.
const MAX_INFORMATIONAL: u32 = 32;

/// A try that has its connection.
pub(super) struct Talk {
    pub(super) cluster: Rc<Cluster>,
    pub(super) host: Arc<Host>,
    pub(super) up: Exchange,
    pub(super) progress: Progress,
}

impl<D: Downstream> Stream<'_, D> {
    /// Moves request and response until both are done or one side gives up.
    pub(super) async fn converse(&mut self, talk: Talk, route: &Route, forward: &ForwardAction) -> Step<Option<Again>> {
        let Talk { mut cluster, mut host, mut up, mut progress } = talk;
        loop {
            let mut waited = false;
            let event = poll_fn(|cx| {
                if waited {
                    self.manager.worker.timers().turn();
                }
                waited = true;
                self.poll_exchange(&mut up, &mut progress, cx)
            });
            let mut event = event.await;
            self.note_upstream_bytes(&up);
            if let Event::Expired(Expired::PerTry | Expired::PerTryIdle) = event
                && self.hedges
            {
                if !self.upstream_started {
                    self.manager.worker.note(&host, Outcome::TimedOut(self.timeout_status));
                    progress.timeout_noted = true;
                }
                let Some(wait) = self.hedge() else { continue };
                (Talk { cluster, host, up, progress }, event) =
                    self.race(Talk { cluster, host, up, progress }, wait, route, forward).await?;
            }
            match event {
                Event::Informational(head) => {
                    self.upstream_started = true;
                    self.end_retries();
                    if progress.informational > MAX_INFORMATIONAL {
                        let failure = UpstreamFailure::new(FailureKind::ProtocolError);
                        return self.upstream_failed(&host, failure, true).await;
                    }
                    // The first one counts, and is the one that clients see.
                    if progress.informational == 1 {
                        self.charge(head.status, self.origin(Some(&host), Some(&head)));
                        if self.manager.config.proxy_100_continue {
                            self.send_informational(&head);
                        }
                    }
                }
                Event::Head(head) => {
                    self.note_answer(&host, &head);
                    if self.retry.is_some()
                        && let Some(again) = self.retry_after_head(&cluster, &host, &head)
                    {
                        if progress.request_sent && up.response_complete() {
                            up.finish(true);
                        } else {
                            give_up(&cluster.owner(&host), up);
                        }
                        return Ok(Some(again));
                    }
                    if let Some(policy) = &forward.internal_redirect
                        && self.follows(policy, &head)
                    {
                        if progress.request_sent && up.response_complete() {
                            up.finish(true);
                        } else {
                            give_up(&cluster, up);
                        }
                        return Err(End::Redirected);
                    }
                    self.end_retries();
                    if self.refuses_websocket(&head) {
                        drop(up);
                        self.measure = None;
                        return self.failed_handshake(head).await;
                    }
                    self.upstream_started = true;
                    self.respond(&host, &mut up, &mut progress, head);
                }
                Event::Complete => {
                    let origin = self.origin(Some(&host), None);
                    self.measure = None;
                    self.charge_budget();
                    self.charge_time(Origin { canary: self.canary || origin.canary, ..origin });
                    self.info.timing.last_downstream_tx = Some(self.manager.worker.timers().recent_instant());
                    if !progress.request_sent {
                        up.count_reset(&cluster.owner(&host), FailureKind::LocalReset);
                    }
                    up.finish(progress.request_sent);
                    return Ok(None);
                }
                Event::Upstream(failure) => {
                    up.count_reset(&cluster.owner(&host), failure.kind);
                    drop(up);
                    self.note_failure(&host, failure.kind);
                    return self.upstream_failed(&host, failure, true).await;
                }
                Event::Downstream(interrupt) => {
                    give_up(&cluster.owner(&host), up);
                    return self.broken(&cluster, &host, Broken::Gone(interrupt)).await;
                }
                Event::Expired(which) => {
                    give_up(&cluster.owner(&host), up);
                    if which.is_of_upstream() {
                        host.shard(self.manager.worker.index()).rq_timeout.inc();
                        if !self.upstream_started && !progress.timeout_noted {
                            self.manager.worker.note(&host, Outcome::TimedOut(self.timeout_status));
                        }
                    }
                    return self.broken(&cluster, &host, Broken::Expired(which)).await;
                }
            }
        }
    }

    /// Lets outlier detection and health checks know of an answer.
    pub(super) fn note_answer(&self, host: &Host, head: &ResponseHead) {
        self.manager.worker.note_answer(host, self.request.as_ref(), head);
    }

    /// Lets outlier detection know of a try that came to nothing. That a limit of ours was reached is not the host's fault.
    pub(super) fn note_failure(&self, host: &Host, kind: FailureKind) {
        if kind != FailureKind::Overflow {
            self.manager.worker.note(host, Outcome::ConnectFailed);
        }
    }

    /// Notes what has crossed the upstream's wire so far.
    pub(super) fn note_upstream_bytes(&mut self, up: &Exchange) {
        self.info.upstream_bytes = ByteMeter { header_rx: self.info.upstream_bytes.header_rx, ..up.meter() };
    }
}

/// Ends a try that is not over. Only HTTP/2 has a word for that: an HTTP/1 connection closes.
pub(super) fn give_up(cluster: &Cluster, up: Exchange) {
    up.count_reset(cluster, FailureKind::LocalReset);
    drop(up);
}

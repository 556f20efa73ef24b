//! Hedging: a try that takes too long is not ended; another joins it, and the first good answer wins.
//!
//! That needs the whole request, kept: a try is too slow only after it was sent. Until then, and without hedging, there is one
//! try at a time and nothing of this runs.

mod race;

use std::future::poll_fn;
use std::mem::swap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use filters::flags::details;
use filters::http::ResponseHead;

use self::race::{Happening, Own, Race, Rival, Stage};
use super::converse::Talk;
use super::deadline::Expired;
use super::exchange::{Event, Progress};
use super::expiry::Broken;
use super::retry::Again;
use super::{Downstream, End, Step, Stream};
use crate::route::{ForwardAction, Route};
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::upstream::host::Host;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::Lease;
use crate::upstream::retry::{Decision, Wait};
use crate::worker::timer::Tick;

/// What a try's failure means.
enum Failed {
    /// Another follows it.
    Retried,
    /// Others may still be answered.
    AmongOthers(Arc<Host>),
    /// It was the last one.
    Last(Box<Rival>),
}

impl<D: Downstream> Stream<'_, D> {
    /// A try with hedging took too long: how long to wait until another joins it, if one does.
    pub(super) fn hedge(&mut self) -> Option<Wait> {
        self.deadlines.leave_try_alone();
        if self.upstream_started {
            return None;
        }
        self.rule(|retry, around| retry.beside_slow_try(around)).wait()
    }

    /// Lets others join a try that takes too long, until one is answered: that one, and its answer.
    pub(super) async fn race(
        &mut self,
        first: Talk,
        wait: Wait,
        route: &Route,
        forward: &ForwardAction,
    ) -> Step<(Talk, Event)> {
        let Talk { cluster, host, up, progress } = first;
        let mut own = self.own();
        own.sent = self.early.taken();
        let first = Rival {
            cluster,
            host,
            stage: Stage::Talking(up, progress),
            relieved: true,
            timeout_noted: true,
            slow: Tick::NEVER,
            quiet: Tick::NEVER,
            old: self.deadlines.try_ends(),
            own,
            _active: None,
        };
        let timers = Rc::clone(self.manager.worker.timers());
        let mut race = Race { tries: vec![first], next: Some((timers.recent().after(wait.duration()), wait)) };
        loop {
            self.deadlines.side_by_side(race.rings());
            let mut waited = false;
            let happening = poll_fn(|cx| {
                if waited {
                    timers.turn();
                }
                waited = true;
                self.poll_race(&mut race, cx)
            });
            match happening.await {
                Happening::Joins(wait) => {
                    if let Err(end) = self.join(&mut race, wait, route, forward).await {
                        race.give_up();
                        return Err(end);
                    }
                }
                Happening::Connected(n, Ok(lease)) => {
                    if let Some(failure) = self.connected(&mut race, n, lease, forward) {
                        self.lost(&mut race, n, failure, true).await?;
                    }
                }
                Happening::Connected(n, Err(failure)) => self.lost(&mut race, n, failure, false).await?,
                Happening::Slow(n) => {
                    if let Some(rival) = race.tries.get_mut(n) {
                        self.manager.worker.note(&rival.host, Outcome::TimedOut(self.timeout_status));
                        rival.timeout_noted = true;
                    }
                    if let Some(wait) = self.rule(|retry, around| retry.beside_slow_try(around)).wait()
                        && let Some(rival) = race.tries.get_mut(n)
                    {
                        rival.relieved = true;
                        race.next = Some((timers.recent().after(wait.duration()), wait));
                    }
                }
                Happening::Old(n) => {
                    if let Some(rival) = race.tries.get(n) {
                        rival.cluster.context().stats.upstream_rq_max_duration_reached().inc();
                    }
                    if let Failed::Last(rival) = self.failed(&mut race, n, FailureKind::LocalReset, true) {
                        let old = Broken::Expired(Expired::UpstreamDuration);
                        return self.cut_short(&rival.cluster, Some(&rival.host), old).await;
                    }
                }
                Happening::Said(n, Event::Head(head)) => {
                    if self.is_final(&mut race, n, &head) {
                        return self.won(race, n, Event::Head(head));
                    }
                }
                Happening::Said(n, event @ (Event::Informational(_) | Event::Complete)) => {
                    return self.won(race, n, event);
                }
                Happening::Said(n, Event::Upstream(failure)) => self.lost(&mut race, n, failure, true).await?,
                Happening::Said(_, Event::Expired(Expired::PerTry)) => {}
                Happening::Said(_, Event::Downstream(interrupt)) => {
                    return self.all_broken(race, Broken::Gone(interrupt)).await;
                }
                Happening::Said(_, Event::Expired(which)) => {
                    return self.all_broken(race, Broken::Expired(which)).await;
                }
                Happening::Broken(broken) => return self.all_broken(race, broken).await,
            }
        }
    }

    fn poll_race(&mut self, race: &mut Race, cx: &mut Context<'_>) -> Poll<Happening> {
        match self.poll_deadlines(None, cx) {
            Poll::Ready(Expired::PerTry) => {
                if let Some(happening) = race.due(self.manager.worker.timers().recent()) {
                    return Poll::Ready(happening);
                }
            }
            Poll::Ready(which) => return Poll::Ready(Happening::Broken(Broken::Expired(which))),
            Poll::Pending => {}
        }
        let mut talks = false;
        for (n, rival) in race.tries.iter_mut().enumerate() {
            match &mut rival.stage {
                Stage::Connecting { lease, .. } => {
                    if let Poll::Ready(lease) = lease.as_mut().poll(cx) {
                        return Poll::Ready(Happening::Connected(n, lease));
                    }
                }
                Stage::Talking(up, progress) => {
                    talks = true;
                    self.exchange_own(&mut rival.own);
                    let event = self.poll_exchange(up, progress, cx);
                    if event.is_ready() {
                        self.note_upstream_bytes(up);
                    }
                    self.exchange_own(&mut rival.own);
                    if let Poll::Ready(event) = event {
                        return Poll::Ready(Happening::Said(n, event));
                    }
                }
            }
        }
        if talks {
            return Poll::Pending;
        }
        // Nobody else is listening to the client.
        self.poll_early(cx).map(|interrupt| Happening::Broken(Broken::Gone(interrupt)))
    }

    /// Starts another try.
    async fn join(&mut self, race: &mut Race, wait: Wait, route: &Route, forward: &ForwardAction) -> Step<()> {
        let Some(cluster) = self.cluster.clone() else { return Err(End::Done) };
        let again = Again::after_timeout(wait);
        let (cluster, host) = self.next_try(&cluster, again, route, forward).await?;
        let Some(pool) = self.pool_for(&cluster, &host, forward) else {
            return self.no_host(None).await;
        };
        self.enter(&host);
        self.measure = self.begin_measure(&cluster);
        let active =
            cluster.owner(&host).config().lb.policy.needs_active_requests().then(|| host.state().begin_request());
        race.tries.push(Rival {
            stage: Stage::Connecting {
                lease: Box::pin(async move { pool.acquire().await }),
                since: self.manager.worker.timers().recent_instant(),
            },
            cluster,
            host,
            relieved: false,
            timeout_noted: false,
            slow: Tick::NEVER,
            quiet: Tick::NEVER,
            old: Tick::NEVER,
            own: self.own(),
            _active: active,
        });
        Ok(())
    }

    /// A try has its connection: the request is sent, unless that fails.
    fn connected(
        &mut self,
        race: &mut Race,
        n: usize,
        lease: Lease,
        forward: &ForwardAction,
    ) -> Option<UpstreamFailure> {
        let rival = race.tries.get_mut(n)?;
        let Stage::Connecting { since, .. } = &rival.stage else { return None };
        self.manager.worker.note(&rival.host, Outcome::Connected);
        let since = *since;
        self.exchange_own(&mut rival.own);
        self.info.upstream_mut().pool_ready = Some(self.since(since));
        let opened = self.open(&rival.host, lease, forward).map(|up| (up, self.begun()));
        self.exchange_own(&mut rival.own);
        match opened {
            Ok((up, progress)) => {
                let (now, limits) = (self.manager.worker.timers().recent(), self.deadlines.try_limits());
                rival.stage = Stage::Talking(up, progress);
                rival.slow = now.after_opt(limits.response);
                rival.quiet = now.after_opt(limits.idle);
                rival.old = now.after_opt(limits.duration);
                None
            }
            Err(failure) => Some(failure),
        }
    }

    /// Whether a try's answer is the one the client sees. If not, the try is over.
    fn is_final(&mut self, race: &mut Race, n: usize, head: &ResponseHead) -> bool {
        let Some(relieved) = race.tries.get(n).map(|rival| rival.relieved) else { return false };
        let decision = if relieved {
            let bad = self.retry.as_ref().is_some_and(|retry| retry.would_retry_response(head));
            if bad { Decision::LimitExceeded } else { Decision::No }
        } else {
            self.rule(|retry, around| retry.after_response(head, around))
        };
        let others = race.tries.len() > 1 || race.next.is_some();
        match decision {
            Decision::No => return true,
            Decision::LimitExceeded | Decision::Overflow if !others => return true,
            Decision::LimitExceeded | Decision::Overflow => {}
            Decision::Retry(wait) => {
                let at = self.manager.worker.timers().recent().after(wait.duration());
                race.next = Some((at, wait));
            }
        }
        let rival = race.tries.remove(n);
        self.note_answer(&rival.host, head);
        rival.count_error(self.manager.worker.index());
        if let Decision::Retry(_) = decision {
            rival.cluster.context().responses.retried(&self.manager.worker, head.status);
        }
        match rival.stage {
            Stage::Talking(up, progress) if progress.request_sent && up.response_complete() => up.finish(true),
            _ => rival.give_up(),
        }
        false
    }

    /// A try ended without an answer. The end of the last one is the end of all.
    async fn lost(&mut self, race: &mut Race, n: usize, failure: UpstreamFailure, begun: bool) -> Step<()> {
        if let Some(Rival { stage: Stage::Talking(up, _), cluster, .. }) = race.tries.get(n) {
            up.count_reset(cluster, failure.kind);
        } else if !failure.without_host
            && let Some(rival) = race.tries.get(n)
        {
            self.host_tried(&rival.host);
        }
        if let Some(rival) = race.tries.get(n) {
            self.note_failure(&rival.host, failure.kind);
        }
        let charged = failure.kind.status();
        match self.failed(race, n, failure.kind, begun) {
            Failed::Last(rival) => {
                self.end_retries();
                self.upstream_failed(&rival.host, failure, begun).await.and(Err(End::Done))
            }
            Failed::Retried => Ok(()),
            Failed::AmongOthers(host) => {
                self.charge(charged, self.origin(Some(&host), None));
                Ok(())
            }
        }
    }

    /// Takes a try out that failed.
    fn failed(&mut self, race: &mut Race, n: usize, kind: FailureKind, begun: bool) -> Failed {
        if n >= race.tries.len() {
            return Failed::Retried;
        }
        let mut rival = race.tries.remove(n);
        if !rival.relieved
            && let Some(wait) = self.rule(|retry, around| retry.after_failure(kind, begun, around)).wait()
        {
            race.next = Some((self.manager.worker.timers().recent().after(wait.duration()), wait));
            rival.count_error(self.manager.worker.index());
            return Failed::Retried;
        }
        if race.is_on() {
            rival.count_error(self.manager.worker.index());
            return Failed::AmongOthers(rival.host);
        }
        self.exchange_own(&mut rival.own);
        Failed::Last(Box::new(rival))
    }

    /// A try's answer is the one: the others end.
    fn won(&mut self, mut race: Race, n: usize, event: Event) -> Step<(Talk, Event)> {
        if n >= race.tries.len() {
            return Err(End::Done);
        }
        let Rival { cluster, host, stage, mut own, quiet, old, .. } = race.tries.remove(n);
        race.give_up();
        self.exchange_own(&mut own);
        self.cluster = Some(Rc::clone(&cluster));
        // What is kept of the body may still be wanted for a redirect.
        self.retry = None;
        self.deadlines.resume_try(quiet, old);
        match stage {
            Stage::Talking(up, progress) => Ok((Talk { cluster, host, up, progress }, event)),
            Stage::Connecting { .. } => Err(End::Done),
        }
    }

    /// The client left, or a deadline of them all passed.
    async fn all_broken<T>(&mut self, mut race: Race, broken: Broken) -> Step<T> {
        let cluster = self.cluster.clone();
        let late = matches!(broken, Broken::Expired(Expired::Route));
        if late {
            let worker = self.manager.worker.index();
            for rival in &mut race.tries {
                if let (
                    Stage::Talking(_, Progress { head_seen: false, .. }) | Stage::Connecting { .. },
                    Some(measure),
                ) = (&rival.stage, &mut rival.own.measure)
                {
                    measure.outlive();
                }
                rival.cluster.context().stats.upstream_rq_timeout().inc();
                self.count_scopes(|stats| stats.upstream_rq_timeout().inc());
                if let Stage::Talking(..) = rival.stage {
                    rival.host.shard(worker).rq_timeout.inc();
                    if !rival.timeout_noted {
                        self.manager.worker.note(&rival.host, Outcome::TimedOut(self.timeout_status));
                    }
                    rival.count_error(worker);
                }
                self.charge(self.timeout_status, self.origin(Some(&rival.host), None));
            }
        }
        // The log tells of the last one.
        if let Some(last) = race.tries.last_mut() {
            self.exchange_own(&mut last.own);
        }
        race.give_up();
        self.deadlines.end_try();
        match cluster {
            Some(cluster) if !late => self.cut_short(&cluster, None, broken).await,
            _ => self.too_late(details::RESPONSE_TIMEOUT, None).await,
        }
    }

    /// What is known of the try the stream is about now, which is from now on kept there.
    fn own(&mut self) -> Own {
        Own {
            upstream: self.info.upstream.clone(),
            timing: self.info.timing,
            bytes: self.info.upstream_bytes,
            sent: 0,
            measure: self.measure.take(),
        }
    }

    /// Makes the stream be about another try, or again about the one before. How many there were is not a try's own.
    fn exchange_own(&mut self, own: &mut Own) {
        let attempts = self.attempts();
        swap(&mut self.info.upstream, &mut own.upstream);
        if let Some(upstream) = &mut self.info.upstream {
            upstream.attempts = attempts;
        }
        swap(&mut self.info.upstream_bytes, &mut own.bytes);
        swap(&mut self.info.timing, &mut own.timing);
        swap(&mut self.measure, &mut own.measure);
        self.early.exchange_taken(&mut own.sent);
    }
}

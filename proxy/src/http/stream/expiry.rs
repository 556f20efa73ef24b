//! Waiting, and what ends it early: the client leaves, or a deadline passes.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use filters::flags::{ResponseFlags, details};
use filters::format::AccessLogType;

use super::deadline::Expired;
use super::retry::Again;
use super::{Downstream, End, Step, Stream};
use crate::http::codec::Interrupt;
use crate::http::reply::GrpcStatus;
use crate::http::reply::LocalReply;
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::FailureKind;
use crate::upstream::host::Host;
use crate::upstream::responses::Origin;

impl Expired {
    /// Counts a limit of one try; `None` if it is not one. Whether it counts as a timeout, as far as a retry is told.
    fn count_of_try(self, cluster: &Cluster) -> Option<bool> {
        let stats = &cluster.context().stats;
        match self {
            Self::PerTry => stats.upstream_rq_per_try_timeout().inc(),
            Self::PerTryIdle => stats.upstream_rq_per_try_idle_timeout().inc(),
            Self::UpstreamDuration => stats.upstream_rq_max_duration_reached().inc(),
            _ => return None,
        }
        Some(self != Self::UpstreamDuration)
    }
}

/// What a waiting step was ended by.
#[derive(Clone, Copy)]
pub(super) enum Broken {
    Gone(Interrupt),
    Expired(Expired),
}

impl<D: Downstream> Stream<'_, D> {
    /// The client left or a deadline passed while upstream was at work.
    pub(super) async fn broken(
        &mut self,
        cluster: &Rc<Cluster>,
        host: &Arc<Host>,
        broken: Broken,
    ) -> Step<Option<Again>> {
        self.deadlines.end_try();
        if let (Broken::Expired(Expired::Route), Some(measure)) = (broken, &mut self.measure) {
            measure.outlive();
        }
        self.measure = None;
        let limit = match broken {
            Broken::Expired(which) => which.count_of_try(cluster),
            Broken::Gone(_) => None,
        };
        if let Some(is_timeout) = limit
            && let Some(again) = self.retry_after_failure(host, FailureKind::LocalReset, true, is_timeout)
        {
            return Ok(Some(again));
        }
        self.cut_short(cluster, Some(host), broken).await
    }

    /// The client left or a deadline passed, and no other try follows.
    pub(super) async fn cut_short<T>(&mut self, cluster: &Rc<Cluster>, host: Option<&Host>, broken: Broken) -> Step<T> {
        match broken {
            Broken::Gone(interrupt) => self.gone(interrupt).await,
            Broken::Expired(which) if which.is_of_upstream() => self.upstream_expired(cluster, host, which).await,
            Broken::Expired(Expired::UpstreamDuration) => {
                self.info.flags.insert(ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED);
                let reply = LocalReply::new(self.late_status(), "upstream max stream duration reached");
                self.reply_end(reply, details::UPSTREAM_MAX_STREAM_DURATION_REACHED).await
            }
            Broken::Expired(which) => self.expired(which).await,
        }
    }

    /// The client left, or what it sent is no request.
    pub(super) async fn gone<T>(&mut self, interrupt: Interrupt) -> Step<T> {
        match interrupt {
            Interrupt::Malformed { status, details } if self.response.is_none() => {
                self.manager.stats.downstream_cx_protocol_error().inc();
                self.close_connection();
                let body = if status == 400 { "Bad Request" } else { "" };
                self.prepared = false;
                self.reply(LocalReply::new(status, body), details).await;
                // The reply does not know of the flag yet, only the log does.
                self.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
            }
            _ => self.interrupted(interrupt),
        }
        Err(End::Done)
    }

    /// The upstream took longer than the route lets it.
    async fn upstream_expired<T>(&mut self, cluster: &Rc<Cluster>, host: Option<&Host>, which: Expired) -> Step<T> {
        let why = match which {
            Expired::PerTry => details::UPSTREAM_PER_TRY_TIMEOUT,
            Expired::PerTryIdle => details::UPSTREAM_PER_TRY_IDLE_TIMEOUT,
            _ => {
                cluster.context().stats.upstream_rq_timeout().inc();
                self.count_scopes(|stats| stats.upstream_rq_timeout().inc());
                details::RESPONSE_TIMEOUT
            }
        };
        let charged = (!self.upstream_started).then(|| self.origin(host, None));
        self.too_late(why, charged).await
    }

    /// The upstream, or all of them together, took too long; whom that is a response code for, if for anyone.
    pub(super) async fn too_late<T>(&mut self, why: &'static str, charged: Option<Origin<'_>>) -> Step<T> {
        self.charge_budget();
        self.info.flags.insert(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT);
        let status = self.timeout_status;
        if let Some(origin) = charged {
            self.charge(status, origin);
        }
        let body = if status == 504 { "upstream request timeout" } else { "" };
        self.reply_end(LocalReply::new(status, body), why).await
    }

    /// A deadline of the stream itself passed.
    pub(super) async fn expired<T>(&mut self, which: Expired) -> Step<T> {
        let stats = &self.manager.stats;
        let status = self.late_status();
        let (reply, why) = match which {
            Expired::Request => {
                stats.downstream_rq_timeout().inc();
                (LocalReply::new(408, "request timeout"), details::REQUEST_OVERALL_TIMEOUT)
            }
            Expired::MaxDuration => {
                stats.downstream_rq_max_duration_reached().inc();
                let grpc_status = Some(GrpcStatus::DEADLINE_EXCEEDED);
                let reply = LocalReply { grpc_status, ..LocalReply::new(status, "downstream duration timeout") };
                (reply, details::MAX_DURATION_TIMEOUT)
            }
            _ => {
                stats.downstream_rq_idle_timeout().inc();
                self.info.flags.insert(ResponseFlags::STREAM_IDLE_TIMEOUT);
                (LocalReply::new(status, "stream timeout"), details::STREAM_IDLE_TIMEOUT)
            }
        };
        if !self.down.request_complete() {
            self.close_connection();
        }
        // The connection manager answers, to which tries are the router's business.
        self.prepared = false;
        self.reply_end(reply, why).await
    }

    /// The status of what came too late: the client's doing while its request is not complete, the upstream's after.
    fn late_status(&self) -> u16 {
        if self.down.request_complete() { 504 } else { 408 }
    }

    /// Ready with the deadline that passed. Lines of the log that are due before are written on the way; `up` is the
    /// exchange whose bytes they tell.
    pub(super) fn poll_deadlines(&mut self, up: Option<&Exchange>, cx: &Context<'_>) -> Poll<Expired> {
        let timers = self.manager.worker.timers();
        loop {
            match self.deadlines.poll(timers, self.alarm, cx) {
                Poll::Ready(Expired::LogFlush) => {
                    if let Some(up) = up {
                        self.note_upstream_bytes(up);
                    }
                    self.log(AccessLogType::DownstreamPeriodic);
                    let interval = self.manager.config.access_log_options.flush_interval;
                    self.deadlines.set_log_flush(timers.now(), interval);
                }
                other => return other,
            }
        }
    }

    /// Waits for something that is not the exchange, while the client may leave and deadlines may pass.
    pub(super) async fn wait_for<T>(&mut self, wanted: impl Future<Output = T>) -> Result<T, Broken> {
        let mut wanted = std::pin::pin!(wanted);
        self.wait_until(|_, cx| wanted.as_mut().poll(cx)).await
    }

    /// The same for something of the stream's own.
    pub(super) async fn wait_until<T>(
        &mut self,
        mut wanted: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Broken> {
        let mut waited = false;
        poll_fn(|cx| {
            if waited {
                self.manager.worker.timers().turn();
            }
            waited = true;
            if let Poll::Ready(value) = wanted(self, cx) {
                return Poll::Ready(Ok(value));
            }
            if let Poll::Ready(which) = self.poll_deadlines(None, cx) {
                return Poll::Ready(Err(Broken::Expired(which)));
            }
            self.poll_early(cx).map(|interrupt| Err(Broken::Gone(interrupt)))
        })
        .await
    }
}

//! Internal redirects: what an upstream answers with a redirect goes on as another request, and the client sees its answer.
//!
//! For everybody but the client these are two requests: each is counted, and has a line in the log.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use filters::flags::details;
use filters::format::AccessLogType;
use filters::http::{Known, ResponseHead, Scheme, Version};
use filters::stream_info::StreamInfo;

use super::deadline::Deadlines;
use super::{Downstream, Stream};
use crate::route::internal_redirect::{InternalRedirect, RedirectPredicate, Target, drops_body};
use crate::route::{MatchInput, RouteAction, Selection, TlsFacts};

/// What a request remembers of the redirects it followed.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    followed: u32,
    /// For [`RedirectPredicate::PreviousRoutes`]: from which route to which.
    ways: Vec<(Arc<str>, Arc<str>)>,
}

impl<D: Downstream> Stream<'_, D> {
    /// Whether a response is a redirect that is followed here. If so the stream is already about the request that follows.
    pub(super) fn follows(&mut self, policy: &InternalRedirect, head: &ResponseHead) -> bool {
        if !policy.codes.contains(&head.status) {
            return false;
        }
        let followed = self.follow(policy, head).is_some();
        if let Some(cluster) = &self.cluster {
            let stats = &cluster.context().stats;
            if followed {
                stats.upstream_internal_redirect_succeeded_total().inc();
            } else {
                stats.upstream_internal_redirect_failed_total().inc();
            }
        }
        if followed {
            self.recreate(head);
        }
        followed
    }

    /// Makes the request that follows; `None` when there is none.
    fn follow(&mut self, policy: &InternalRedirect, head: &ResponseHead) -> Option<()> {
        if !self.body_complete() || !self.head_only && !self.early.keeps() {
            return None;
        }
        let location = head.headers.value(&Known::Location)?;
        let stats = &self.manager.stats;
        let Some(target) = Target::parse(location) else {
            stats.passthrough_internal_redirect_bad_location().inc();
            return None;
        };
        let request = self.request.as_ref()?;
        let secure = request.scheme == Scheme::Https && self.connection.info.is_tls();
        let target_secure = target.scheme != Scheme::Http;
        if !policy.cross_scheme && secure != target_secure {
            stats.passthrough_internal_redirect_unsafe_scheme().inc();
            return None;
        }
        if target.scheme == Scheme::Unknown {
            stats.passthrough_internal_redirect_bad_location().inc();
            return None;
        }
        let past = self.redirects.get_or_insert_with(Box::default);
        if past.followed >= policy.max {
            stats.passthrough_internal_redirect_too_many_redirects().inc();
            return None;
        }
        let next = policy.next_request(request, head, &target, secure);
        let table = Rc::clone(&self.routed.as_ref()?.table);
        let runtime = self.manager.worker.runtime();
        let input = MatchInput {
            random: self.random,
            runtime: &*runtime,
            tls: TlsFacts::of(&self.connection.info),
            metadata: self.info.dynamic_metadata.as_deref(),
        };
        let found = match table.select(&next, &input) {
            Selection::Matched { route, .. } => {
                let cluster = match &route.action {
                    RouteAction::Forward(forward) => {
                        let choice = forward.cluster(&next, self.random, &*runtime);
                        choice.name.as_str().and_then(|name| self.manager.worker.cluster(name))
                    }
                    _ => None,
                };
                Some((Arc::clone(&route.name), cluster))
            }
            Selection::RequireTls(_) => Some((Arc::default(), None)),
            Selection::NoRoute(_) | Selection::NoVirtualHost => None,
        };
        // What the log tells of the request from here on, whether or not it goes there.
        let from = self.info.route_name.take().unwrap_or_default();
        let upstream = self.info.upstream_mut();
        upstream.cluster = None;
        let Some((name, cluster)) = found else {
            stats.passthrough_internal_redirect_no_route().inc();
            return None;
        };
        upstream.cluster = cluster.map(|cluster| Arc::clone(&cluster.config().observability_name));
        self.info.route_name = Some(Arc::clone(&name)).filter(|name| !name.is_empty());
        let accepts = |past: &mut Redirects, predicate: &RedirectPredicate| match predicate {
            RedirectPredicate::SafeCrossScheme => secure || !target_secure,
            RedirectPredicate::Listed(names) => names.iter().any(|listed| **listed == *name),
            RedirectPredicate::PreviousRoutes => {
                let way = (Arc::clone(&from), Arc::clone(&name));
                let new = !past.ways.contains(&way);
                past.ways.push(way);
                new
            }
        };
        if !policy.predicates.iter().all(|predicate| accepts(past, predicate)) {
            stats.passthrough_internal_redirect_predicate().inc();
            return None;
        }
        past.followed += 1;
        if drops_body(head.status, &request.method) {
            self.early.clear();
        }
        self.request = Some(next);
        Some(())
    }

    /// Ends the request that was redirected, as far as anybody but the client can tell, and begins the one that follows.
    fn recreate(&mut self, head: &ResponseHead) {
        let worker = &self.manager.worker;
        let timers = Rc::clone(worker.timers());
        self.info.response_code = head.status;
        self.info.details = Some(details::INTERNAL_REDIRECT.into());
        self.info.end = Some(timers.recent_instant());
        self.response = Some(head.clone());
        self.log(AccessLogType::DownstreamEnd);

        let stats = &self.manager.stats;
        stats.downstream_rq_total().inc();
        match self.info.protocol {
            Some(Version::Http2) => stats.downstream_rq_http2_total().inc(),
            _ => stats.downstream_rq_http1_total().inc(),
        }
        let has_body = self.early.rewind();
        let former = &self.info;
        let mut info =
            StreamInfo::new(Rc::clone(&former.connection), former.start, former.start_time, former.stream_id);
        info.remote = former.remote.clone();
        info.protocol = former.protocol;
        info.method = self.request.as_ref().map(|request| request.method.clone());
        // What is sent again is counted again.
        info.bytes_received = former.bytes_received + self.early.bytes() as u64;
        info.timing.last_downstream_rx = former.timing.last_downstream_rx;
        self.info = info;
        (self.response, self.trailers) = (None, None);
        (self.routed, self.cluster, self.alternative) = (None, None, None);
        self.scopes = [None, None];
        (self.canary, self.tunnel, self.prepared, self.hedges) = (false, false, false, false);
        (self.grpc_pending, self.upstream_started) = (false, false);
        (self.timeout_status, self.connect_port, self.retry) = (504, None, None);
        self.server_names = None;
        self.asked = OnceCell::new();
        self.mirrors.clear();
        self.early.release();
        self.head_only = self.down.request_complete() && !has_body;
        let timeouts = &self.manager.config.timeouts;
        self.deadlines = Deadlines::new();
        self.deadlines.set_idle(timers.recent(), timeouts.stream_idle);
        self.deadlines.set_max_duration(timers.recent(), timeouts.max_stream_duration);
    }
}

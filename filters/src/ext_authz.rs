//! Somebody else decides: `envoy.filters.http.ext_authz`.
//!
//! A request waits while a service is asked about it, by gRPC (`envoy.service.auth.v3.Authorization`) or by a request like the one
//! in question. The service may change the request and its response, or have it refused by an answer of its own. Where no
//! decision comes, the filter has one of its own (`failure_mode_allow`, `status_on_error`).
//!
//! * `config`: settings; * `check`: the question; * `grpc`, `http`: the two ways to ask, and what answers mean;
//! * `decision`: what follows for the request.

mod check;
mod config;
mod decision;
mod grpc;
mod http;
mod rules;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use self::check::Shown;
use self::config::BodyRule;
pub use self::config::{Authority, CheckSettings, ExtAuthzConfig, RouteSettings, unsupported, unsupported_settings};
use self::decision::{Decided, Decision, Invalid, Refusal};
use crate::call::{Answer, Calls, Pending, Unanswered};
use crate::flags::ResponseFlags;
use crate::http::{HeaderName, Known, RequestHead, ResponseHead};
use crate::http_filter::{FilterSettings, HeaderChange, Reply, RequestContext, RouteContext, Verdict};
use crate::stream_info::Metadata;

stats::group! {
    /// `http.<stat_prefix>.ext_authz.`
    pub struct ExtAuthzStats {
        counters {
            ok, denied, error, disabled, failure_mode_allowed, invalid, ignored_dynamic_metadata,
            filter_state_name_collision, omitted_response_headers, request_header_limits_reached,
            response_header_limits_reached, shadow_denied, shadow_error
        }
    }
}

/// Says whether the service saw the whole body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Says that a request passed because nobody decided.
const FAILURE_MODE_ALLOWED: &str = "x-envoy-auth-failure-mode-allowed";

/// The name space of what the service says to filters behind this one.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";

const DENIED: &str = "ext_authz_denied";
const ERROR: &str = "ext_authz_error";
const INVALID: &str = "ext_authz_invalid";

/// The filter of a chain on one worker.
pub struct ExtAuthz {
    config: Arc<ExtAuthzConfig>,
    stats: ExtAuthzStats,
    calls: Rc<dyn Calls>,
}

impl ExtAuthz {
    /// A filter that asks this way and counts here.
    #[must_use]
    pub fn new(config: Arc<ExtAuthzConfig>, stats: ExtAuthzStats, calls: Rc<dyn Calls>) -> Rc<Self> {
        Rc::new(Self { config, stats, calls })
    }
}

/// The filter of a stream.
pub struct ExtAuthzStream {
    filter: Rc<ExtAuthz>,
    /// What the service is shown of the body.
    body: Option<BodyRule>,
    call: Option<Call>,
    /// What the response gets.
    response: Vec<HeaderChange>,
}

/// A question that was asked.
struct Call {
    answer: Answering,
    asked: Instant,
    /// A route's service, where it is not the filter's.
    route: Option<Arc<RouteSettings>>,
}

enum Answering {
    Pending(Pending),
    Answered(Result<Answer, Unanswered>),
}

impl ExtAuthzStream {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(filter: &Rc<ExtAuthz>) -> Self {
        Self { filter: Rc::clone(filter), body: None, call: None, response: Vec::new() }
    }

    /// Sees the request.
    pub fn decode_head(&mut self, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        let config = &self.filter.config;
        let Some(route) = &context.route else { return Verdict::Continue };
        let check = match settings(route).next().map(|settings| &**settings) {
            Some(RouteSettings::Disabled) => return Verdict::Continue,
            Some(RouteSettings::Check(check)) => Some(check),
            None => None,
        };
        let random = fastrand::u64(..);
        let on = config.enabled.as_ref().is_none_or(|fraction| fraction.contains(random, context.runtime));
        let metadata = context.info.dynamic_metadata.as_deref();
        if !on || config.enabled_metadata.as_ref().is_some_and(|matcher| !matcher.matches(metadata)) {
            self.filter.stats.disabled().inc();
            if config.denies_while_disabled(context.runtime) {
                return reply(config.status_on_error, Refusal::default(), ERROR);
            }
            return Verdict::Continue;
        }
        let body = check.and_then(|check| check.body).or(config.body);
        let wanted = !check.is_some_and(|check| check.without_body) && !context.body.complete && !is_upgrade(head);
        match body.filter(|_| wanted) {
            Some(rule) => {
                self.body = Some(BodyRule { as_bytes: config.body.is_some_and(|body| body.as_bytes), ..rule });
                Verdict::Buffer(rule.need)
            }
            None => self.ask(head, context),
        }
    }

    /// Sees the body it wanted, or has its answer.
    pub fn decode_again(&mut self, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        match self.call.take() {
            None => self.ask(head, context),
            Some(call) => self.decide(call, head, context),
        }
    }

    /// Ready when the answer is there.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Call { answer, .. }) = &mut self.call
            && let Answering::Pending(pending) = answer
        {
            let answered = ready!(pending.as_mut().poll(cx));
            *answer = Answering::Answered(answered);
        }
        Poll::Ready(())
    }

    /// Sees the final response.
    pub fn encode_head(&mut self, head: &mut ResponseHead) {
        for change in self.response.drain(..) {
            change.apply(&mut head.headers);
        }
    }

    fn ask(&mut self, head: &RequestHead, context: &RequestContext<'_>) -> Verdict {
        let config = &self.filter.config;
        let mut extensions = BTreeMap::new();
        let levels = || context.route.iter().flat_map(settings);
        // The most specific level comes first.
        for settings in levels() {
            if let RouteSettings::Check(check) = &**settings {
                for (name, value) in &check.context_extensions {
                    extensions.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let body = self.body.filter(|_| !context.body.pieces.is_empty()).map(|rule| show(rule, context.body.pieces));
        let check = check::request(config, head, context.info, extensions, body);
        let route = levels().next().filter(|settings| settings.authority().is_some()).cloned();
        let authority = route.as_deref().and_then(RouteSettings::authority).unwrap_or(&config.authority);
        let (service, question) = match authority {
            Authority::Grpc(target) => (&target.service, target.question(grpc::CHECK, &check, context.info)),
            Authority::Http(http) => (&http.service, http.question(check, context.info)),
        };
        let answer = Answering::Pending(self.filter.calls.ask(service, question));
        self.call = Some(Call { answer, asked: Instant::now(), route });
        Verdict::Wait
    }

    fn decide(&mut self, call: Call, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        let Call { answer, asked, route } = call;
        let answer = match answer {
            Answering::Answered(answer) => answer,
            Answering::Pending(_) => Err(Unanswered::Broken),
        };
        let config = Arc::clone(&self.filter.config);
        let authority = route.as_deref().and_then(RouteSettings::authority).unwrap_or(&config.authority);
        let decision = match authority {
            Authority::Grpc(target) => target.message(answer).map(grpc::decision).unwrap_or_default(),
            Authority::Http(http) => http.decision(answer),
        };
        let Decision { verdict, unknown_action, metadata } = decision;
        if unknown_action && config.validate_mutations {
            return self.invalid(context);
        }
        self.take_metadata(metadata, matches!(verdict, Decided::Passes(_)), asked, context);
        match verdict {
            Decided::Passes(changes) => {
                let unsayable = changes.unsayable(&config);
                match (self.pass(*changes, head, context), unsayable) {
                    (Ok(()), None) => Verdict::Continue,
                    (Ok(()), Some(why)) => unsendable(&why),
                    (Err(Invalid), _) => self.invalid(context),
                }
            }
            Decided::Refused(refusal) => self.refuse(refusal, context),
            Decided::Failed(refusal) => self.fail(refusal, head, context),
        }
    }

    /// Keeps what the service says to others.
    fn take_metadata(&self, mut said: Metadata, passes: bool, asked: Instant, context: &mut RequestContext<'_>) {
        if said.is_empty() {
            return;
        }
        if !self.filter.config.takes_metadata {
            self.filter.stats.ignored_dynamic_metadata().inc();
            return;
        }
        if passes {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of a call")]
            let took = asked.elapsed().as_millis() as f64;
            said.insert("ext_authz_duration".to_owned(), took.into());
        }
        let all = context.info.dynamic_metadata.get_or_insert_default();
        match all.get_mut(NAMESPACE).and_then(serde_json::Value::as_object_mut) {
            Some(before) => before.extend(said),
            None => {
                all.insert(NAMESPACE.to_owned(), said.into());
            }
        }
    }

    fn pass(
        &mut self,
        changes: decision::Changes,
        head: &mut RequestHead,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Invalid> {
        let config = &self.filter.config;
        context.route_changed = config.clear_route_cache && changes.may_reroute();
        changes.apply(head, config)?;
        changes.apply_to_query(head, config)?;
        self.response = changes.response.changes(config)?;
        if head.field_count() > context.limits.count || head.byte_size() > context.limits.bytes {
            self.filter.stats.request_header_limits_reached().inc();
            return Err(Invalid);
        }
        self.filter.count(context, "ok");
        self.filter.stats.ok().inc();
        Ok(())
    }

    fn refuse(&self, refusal: Refusal, context: &RequestContext<'_>) -> Verdict {
        let (config, stats) = (&self.filter.config, &self.filter.stats);
        stats.denied().inc();
        self.filter.count(context, "denied");
        let status = refusal.status.unwrap_or(config.status_on_error);
        if config.charge_cluster
            && let Some(cluster) = context.cluster
        {
            cluster.charge(status);
        }
        if config.check_headers(&refusal.headers).is_err() {
            return self.invalid(context);
        }
        reply(status, config.cut(refusal), DENIED)
    }

    fn fail(&self, refusal: Option<Refusal>, head: &mut RequestHead, context: &RequestContext<'_>) -> Verdict {
        let (config, stats) = (&self.filter.config, &self.filter.stats);
        self.filter.count(context, "error");
        stats.error().inc();
        if config.failure_mode_allow {
            stats.failure_mode_allowed().inc();
            self.filter.count(context, "failure_mode_allowed");
            if config.failure_mode_allow_header_add {
                let name = HeaderName::from_lowercase(Bytes::from_static(FAILURE_MODE_ALLOWED.as_bytes()));
                head.headers.append(name, "true");
            }
            return Verdict::Continue;
        }
        let refusal = refusal.filter(|refusal| config.check_headers(&refusal.headers).is_ok()).unwrap_or_default();
        reply(refusal.status.unwrap_or(config.status_on_error), config.cut(refusal), ERROR)
    }

    /// The service asked for what it may not.
    fn invalid(&self, context: &RequestContext<'_>) -> Verdict {
        self.filter.count(context, "invalid");
        self.filter.stats.invalid().inc();
        reply(500, Refusal::default(), INVALID)
    }
}

impl ExtAuthz {
    /// Counts for the cluster that the request would go to.
    fn count(&self, context: &RequestContext<'_>, what: &str) {
        if let Some(cluster) = context.cluster {
            let prefix = &self.config.stat_prefix;
            let dot = if prefix.is_empty() { "" } else { "." };
            cluster.count(&format!("ext_authz{dot}{prefix}.{what}"));
        }
    }
}

impl ExtAuthzConfig {
    /// With no more of a body than a client is to see.
    fn cut(&self, mut refusal: Refusal) -> Refusal {
        if let Some(max) = self.max_body {
            refusal.body.truncate(max);
        }
        refusal
    }
}

impl RouteSettings {
    fn authority(&self) -> Option<&Authority> {
        match self {
            Self::Check(check) => check.authority.as_ref(),
            Self::Disabled => None,
        }
    }
}

/// What a route says, the most specific level first.
fn settings<'a>(route: &'a RouteContext<'_>) -> impl Iterator<Item = &'a Arc<RouteSettings>> {
    route.settings.iter().filter_map(|settings| match settings {
        FilterSettings::ExtAuthz(settings) => Some(settings),
        _ => None,
    })
}

/// As much of a body as the service is to see.
fn show(rule: BodyRule, pieces: &[Bytes]) -> Shown {
    let mut body = pieces.concat();
    let partial = body.len() > rule.need.bytes;
    body.truncate(rule.need.bytes);
    Shown { body, partial, as_bytes: rule.as_bytes }
}

fn is_upgrade(head: &RequestHead) -> bool {
    head.protocol.is_some()
        || head.headers.value(&Known::Upgrade).is_some_and(|it| it.eq_ignore_ascii_case(b"websocket"))
}

fn reply(status: u16, refusal: Refusal, details: &'static str) -> Verdict {
    Verdict::Reply(Box::new(Reply {
        status,
        body: refusal.body,
        changes: Refusal::changes(refusal.headers),
        details: details.into(),
        flags: ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE,
        ..Reply::default()
    }))
}

/// A request that cannot be sent as the service changed it.
fn unsendable(why: &str) -> Verdict {
    Verdict::Reply(Box::new(Reply {
        status: 503,
        body: why.to_owned().into(),
        details: format!("filter_removed_required_request_headers{{{}}}", why.replace(' ', "_")).into(),
        flags: ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        ..Reply::default()
    }))
}

#[cfg(test)]
mod tests;

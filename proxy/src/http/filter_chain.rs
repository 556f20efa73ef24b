//! The HTTP filters before the router: the chains of a connection manager on one worker, and the filters of one stream.
//!
//! A chain is made from configuration once and gives every stream its own instances ([`filters::http_filter`] is the
//! contract). Most chains are the router alone: their streams have no instances, and pay nothing.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use filters::cors::{Cors, CorsStats, CorsStream};
use filters::ext_authz::{ExtAuthz, ExtAuthzStats, ExtAuthzStream};
use filters::health_check::{HealthCheck, HealthCheckFilterStats, HealthCheckStream};
use filters::http::{RequestHead, ResponseHead};
use filters::http_filter::{Body, Destination, HeaderLimits, Reply, RequestContext, RouteContext, Server, Verdict};
use filters::jwt_authn::{JwtAuthn, JwtAuthnStats, JwtAuthnStream};
use filters::matcher::Runtime;
use filters::rbac::Rbac;
use filters::stream_info::StreamInfo;

use super::stream::WorkerCalls;
use crate::config::hcm::{HcmConfig, HttpFilter, HttpFilterKind};
use crate::route::{ClusterChoice, Route, RouteAction};
use crate::worker::Worker;

/// The chains of one connection manager.
pub struct FilterChains {
    usual: FilterChain,
    /// Chains of upgraded streams, where they have their own: as [`HcmConfig::upgrades`].
    upgrades: Box<[Option<FilterChain>]>,
    /// Keeps the statistics in the scrape.
    _groups: Vec<Arc<dyn Any>>,
}

impl FilterChains {
    /// The chains that `config` describes, on this worker.
    #[must_use]
    pub fn new(config: &HcmConfig, worker: &Rc<Worker>) -> Self {
        let (store, index) = (worker.store(), worker.index());
        let mut groups: Vec<Arc<dyn Any>> = Vec::new();
        let prefix = &config.stat_prefix;
        let mut chain = |filters: &[HttpFilter]| {
            let install = |filter: &HttpFilter| {
                let kind = match &filter.kind {
                    HttpFilterKind::Router(_) => return None,
                    HttpFilterKind::Cors => {
                        let group = store.group::<CorsStats>(&format!("http.{prefix}.cors."));
                        let filter = Cors::new(group.shard(index));
                        groups.push(group);
                        Kind::Cors(filter)
                    }
                    HttpFilterKind::HealthCheck(config) => {
                        let group = store.group::<HealthCheckFilterStats>(&format!("http.{prefix}.health_check."));
                        let filter = HealthCheck::new(Arc::clone(config), group.shard(index));
                        groups.push(group);
                        Kind::HealthCheck(filter)
                    }
                    HttpFilterKind::ExtAuthz(config) => {
                        let group = store.group::<ExtAuthzStats>(&config.stats_prefix(&format!("http.{prefix}.")));
                        let calls = WorkerCalls::new(worker);
                        let filter = ExtAuthz::new(Arc::clone(config), group.shard(index), calls);
                        groups.push(group);
                        Kind::ExtAuthz(filter)
                    }
                    HttpFilterKind::JwtAuthn(config) => {
                        let group = store.group::<JwtAuthnStats>(&format!("http.{prefix}.{}", config.stat_prefix()));
                        let filter = JwtAuthn::new(Arc::clone(config), group.shard(index), WorkerCalls::new(worker));
                        groups.push(group);
                        Kind::JwtAuthn(filter)
                    }
                    HttpFilterKind::Rbac(config) => {
                        Kind::Rbac(Rc::new(Rbac::new(Arc::clone(config), store, &format!("http.{prefix}."), index)))
                    }
                };
                Some(Installed { name: Arc::clone(&filter.name), disabled: filter.disabled, kind })
            };
            FilterChain(filters.iter().filter_map(install).collect())
        };
        let usual = chain(&config.filters);
        let upgrades = config.upgrades.iter().map(|upgrade| upgrade.filters.as_deref().map(&mut chain)).collect();
        Self { usual, upgrades, _groups: groups }
    }

    /// The chain of a stream; `upgrade` is the index of what it is upgraded by.
    #[must_use]
    pub fn chain(&self, upgrade: Option<usize>) -> &FilterChain {
        upgrade.and_then(|n| self.upgrades.get(n)?.as_ref()).unwrap_or(&self.usual)
    }
}

/// The filters of a chain, in order, without the router.
pub struct FilterChain(Box<[Installed]>);

struct Installed {
    /// The key of what routes say to it.
    name: Arc<str>,
    /// Off where no route says otherwise.
    disabled: bool,
    kind: Kind,
}

enum Kind {
    Cors(Rc<Cors>),
    HealthCheck(Rc<HealthCheck>),
    ExtAuthz(Rc<ExtAuthz>),
    JwtAuthn(Rc<JwtAuthn>),
    Rbac(Rc<Rbac>),
}

/// Where a request would go.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// There is no route.
    Nowhere,
    /// To the same place by TLS, by the word of its virtual host.
    Elsewhere,
    /// This way, and to the weighted cluster of this number.
    Route(&'a Route, Option<u32>),
}

impl<'a> Way<'a> {
    /// The cluster that was chosen for a request that goes this way.
    fn choice(self, head: &RequestHead) -> Option<ClusterChoice<'a>> {
        match self {
            Self::Route(Route { action: RouteAction::Forward(forward), .. }, ordinal) => {
                Some(forward.choice_again(ordinal, head))
            }
            _ => None,
        }
    }
}

/// What filters see of the world around a request.
pub struct Around<'a> {
    /// Where it would go.
    pub way: Way<'a>,
    /// The runtime layers.
    pub runtime: &'a dyn Runtime,
    /// The proxy.
    pub server: &'a dyn Server,
    /// What is written down about the stream.
    pub info: &'a mut StreamInfo,
    /// How much of the request is there.
    pub body: Body<'a>,
    /// The cluster it would go to.
    pub cluster: Option<&'a dyn Destination>,
    /// What it may have of headers.
    pub limits: HeaderLimits,
    /// The filter said what it wants, and has it.
    pub again: bool,
}

impl FilterChain {
    /// Whether there is any filter.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The instances of a stream whose request has this route: of the filters that are on for it.
    #[must_use]
    pub fn instances(&self, way: Way<'_>, head: Option<&RequestHead>) -> StreamFilters {
        let choice = head.and_then(|head| way.choice(head));
        let is_on = |filter: &Installed| match way {
            Way::Route(route, _) => {
                let mut overrides = route.filter_configs(&filter.name, choice.as_ref());
                !overrides.next().map_or(filter.disabled, |it| it.disabled)
            }
            Way::Nowhere | Way::Elsewhere => !filter.disabled,
        };
        let on = self.0.iter().enumerate().filter(|(_, filter)| is_on(filter));
        StreamFilters { filters: on.map(|(n, filter)| (n, filter.kind.stream())).collect(), taken_by: None, made: true }
    }
}

impl Kind {
    fn stream(&self) -> StreamFilter {
        match self {
            Self::Cors(cors) => StreamFilter::Cors(CorsStream::new(cors)),
            Self::HealthCheck(check) => StreamFilter::HealthCheck(HealthCheckStream::new(check)),
            Self::ExtAuthz(authz) => StreamFilter::ExtAuthz(ExtAuthzStream::new(authz)),
            Self::JwtAuthn(jwt) => StreamFilter::JwtAuthn(JwtAuthnStream::new(jwt)),
            Self::Rbac(rbac) => StreamFilter::Rbac(Rc::clone(rbac)),
        }
    }
}

/// The filters of one stream, in the order of their chain.
#[derive(Default)]
pub struct StreamFilters {
    /// By their places in the chain.
    filters: Vec<(usize, StreamFilter)>,
    /// The one that took the request.
    taken_by: Option<usize>,
    /// They were made: the request came as far as its filters.
    made: bool,
}

impl StreamFilters {
    /// Those of a chain without any.
    #[must_use]
    pub const fn none() -> Self {
        Self { filters: Vec::new(), taken_by: None, made: true }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filters.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Shows the request to the filter in this place, or asks it again once it has what it wanted. Whether the route is to be
    /// looked for anew comes with its verdict.
    pub fn decode(
        &mut self,
        at: usize,
        chain: &FilterChain,
        head: &mut RequestHead,
        around: Around<'_>,
    ) -> (Verdict, bool) {
        let place = self.filters.get_mut(at).and_then(|(n, filter)| Some((filter, chain.0.get(*n)?)));
        let Some((filter, Installed { name, .. })) = place else { return (Verdict::Continue, false) };
        let Around { way, runtime, server, info, body, cluster, limits, again } = around;
        let choice = way.choice(head);
        let route = match way {
            Way::Nowhere => None,
            Way::Elsewhere => Some(RouteContext::default()),
            Way::Route(route, _) => Some(RouteContext {
                settings: route.filter_configs(name, choice.as_ref()).filter_map(|it| it.settings.as_ref()).collect(),
                cors: match &route.action {
                    RouteAction::Forward(forward) => &forward.cors,
                    _ => &[],
                },
                forwards: matches!(route.action, RouteAction::Forward(_)),
            }),
        };
        let mut context = RequestContext { route, runtime, server, info, body, cluster, limits, route_changed: false };
        let verdict = if again { filter.decode_again(head, &mut context) } else { filter.decode(head, &mut context) };
        if let Verdict::Take = verdict {
            self.taken_by = Some(at);
        }
        (verdict, context.route_changed)
    }

    /// Drives what the filter in this place waits for; ready when it can be asked again.
    pub fn poll(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.filters.get_mut(at).map_or(Poll::Ready(()), |(_, filter)| filter.poll(cx))
    }

    /// The answer of the filter that took the request.
    #[must_use]
    pub fn reply(&self, server: &dyn Server) -> Option<Reply> {
        match &self.filters.get(self.taken_by?)?.1 {
            StreamFilter::Cors(_) | StreamFilter::ExtAuthz(_) | StreamFilter::JwtAuthn(_) | StreamFilter::Rbac(_) => {
                None
            }
            StreamFilter::HealthCheck(check) => Some(check.reply(server)),
        }
    }

    /// Shows the final response's head to the filters, the last one first. A request that did not come as far as its filters
    /// has those of `chain` that are on by default.
    pub fn encode_head(&mut self, head: &mut ResponseHead, chain: &FilterChain, server: &dyn Server) {
        if !self.made {
            *self = chain.instances(Way::Nowhere, None);
        }
        for (_, filter) in self.filters.iter_mut().rev() {
            filter.encode_head(head, server);
        }
    }
}

enum StreamFilter {
    Cors(CorsStream),
    HealthCheck(HealthCheckStream),
    ExtAuthz(ExtAuthzStream),
    JwtAuthn(JwtAuthnStream),
    Rbac(Rc<Rbac>),
}

impl StreamFilter {
    fn decode(&mut self, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        match self {
            Self::Cors(cors) => cors.decode_head(head, context),
            Self::HealthCheck(check) => check.decode_head(head, context),
            Self::ExtAuthz(authz) => authz.decode_head(head, context),
            Self::JwtAuthn(jwt) => jwt.decode_head(head, context),
            Self::Rbac(rbac) => rbac.decode_head(head, context),
        }
    }

    /// What it makes of the request now that it has what it asked for.
    fn decode_again(&mut self, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        match self {
            Self::Cors(_) | Self::HealthCheck(_) | Self::Rbac(_) => Verdict::Continue,
            Self::ExtAuthz(authz) => authz.decode_again(head, context),
            Self::JwtAuthn(jwt) => jwt.decode_again(head, context),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Cors(_) | Self::HealthCheck(_) | Self::Rbac(_) => Poll::Ready(()),
            Self::ExtAuthz(authz) => authz.poll(cx),
            Self::JwtAuthn(jwt) => jwt.poll(cx),
        }
    }

    fn encode_head(&mut self, head: &mut ResponseHead, server: &dyn Server) {
        match self {
            Self::Cors(cors) => cors.encode_head(head),
            Self::HealthCheck(check) => check.encode_head(head, server),
            Self::ExtAuthz(authz) => authz.encode_head(head),
            Self::JwtAuthn(_) | Self::Rbac(_) => {}
        }
    }
}

//! The HTTP filters before the router: the chains of a connection manager on one worker, and the filters of one stream.
//!
//! A chain is made from configuration once and gives every stream its own instances ([`filters::http_filter`] is the
//! contract). Most chains are the router alone: their streams have no instances, and pay nothing.

use std::rc::Rc;
use std::sync::Arc;

use filters::cors::{Cors, CorsStats, CorsStream};
use filters::http::{RequestHead, ResponseHead};
use filters::http_filter::{RequestContext, RouteContext, Verdict};
use filters::matcher::Runtime;
use stats::{GroupHandle, Store};

use crate::config::hcm::{HcmConfig, HttpFilter, HttpFilterKind};
use crate::route::{ClusterChoice, Route, RouteAction};

/// The chains of one connection manager.
pub struct FilterChains {
    usual: FilterChain,
    /// Chains of upgraded streams, where they have their own: as [`HcmConfig::upgrades`].
    upgrades: Box<[Option<FilterChain>]>,
    /// Keeps the statistics in the scrape.
    _groups: Vec<Arc<GroupHandle<CorsStats>>>,
}

impl FilterChains {
    /// The chains that `config` describes, counting into `store` as the worker of this index.
    #[must_use]
    pub fn new(config: &HcmConfig, store: &Arc<Store>, worker: usize) -> Self {
        let mut groups = Vec::new();
        let mut chain = |filters: &[HttpFilter]| {
            let install = |filter: &HttpFilter| {
                let kind = match &filter.kind {
                    HttpFilterKind::Router(_) => return None,
                    HttpFilterKind::Cors => {
                        let group = store.group(&format!("http.{}.cors.", config.stat_prefix));
                        let filter = Cors::new(group.shard(worker));
                        groups.push(group);
                        Kind::Cors(filter)
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
}

impl FilterChain {
    /// Whether there is any filter.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shows a request to the filters that are on for its route, until one of them answers it. The instances that saw it
    /// are left in `streams`.
    pub fn decode_head(
        &self,
        head: &mut RequestHead,
        route: Option<(&Route, Option<&ClusterChoice<'_>>)>,
        runtime: &dyn Runtime,
        streams: &mut StreamFilters,
    ) -> Verdict {
        streams.0.clear();
        for filter in &self.0 {
            let overrides = || route.into_iter().flat_map(|(route, choice)| route.filter_configs(&filter.name, choice));
            if overrides().next().map_or(filter.disabled, |it| it.disabled) {
                continue;
            }
            let of_route = route.and_then(|(route, _)| match &route.action {
                RouteAction::Forward(forward) => Some(RouteContext {
                    settings: overrides().filter_map(|it| it.settings.as_ref()).collect(),
                    cors: &forward.cors,
                }),
                _ => None,
            });
            let mut stream = match &filter.kind {
                Kind::Cors(cors) => StreamFilter::Cors(CorsStream::new(cors)),
            };
            let verdict = stream.decode_head(head, &RequestContext { route: of_route, runtime });
            streams.0.push(stream);
            match verdict {
                Verdict::Continue => {}
                answer @ Verdict::Answer { .. } => return answer,
            }
        }
        Verdict::Continue
    }
}

/// The filters of one stream that have seen its request, in the order of their chain.
#[derive(Default)]
pub struct StreamFilters(Vec<StreamFilter>);

impl StreamFilters {
    /// Shows the final response's head to the filters, the last one first.
    pub fn encode_head(&self, head: &mut ResponseHead) {
        for filter in self.0.iter().rev() {
            filter.encode_head(head);
        }
    }
}

enum StreamFilter {
    Cors(CorsStream),
}

impl StreamFilter {
    fn decode_head(&mut self, head: &RequestHead, context: &RequestContext<'_>) -> Verdict {
        match self {
            Self::Cors(cors) => cors.decode_head(head, context),
        }
    }

    fn encode_head(&self, head: &mut ResponseHead) {
        match self {
            Self::Cors(cors) => cors.encode_head(head),
        }
    }
}

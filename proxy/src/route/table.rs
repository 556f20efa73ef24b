//! Virtual hosts and their routes, first match wins.

use std::sync::Arc;

use filters::http::{HeaderKey, HeaderName, Known, RequestHead};
use filters::matcher::Runtime;
use filters::stream_info::StreamInfo;
use serde_json::{Map, Value};
use stats::Store;

use super::action::{ClusterChoice, RouteAction};
use super::headers::{FilterConfigs, FilterOverride, MutationChain};
use super::hosts::HostIndex;
use super::index::RouteIndex;
use super::matching::{MatchInput, RouteMatch, subject, without_parameters};
use super::scope::{RouteScope, VirtualClusters};

/// One `RouteConfiguration`, ready to route.
#[derive(Debug)]
pub struct RouteTable {
    pub(crate) name: Arc<str>,
    pub(crate) hosts: HostIndex,
    pub(crate) virtual_hosts: Box<[Arc<VirtualHost>]>,
    pub(crate) vhost_header: Option<HeaderKey>,
    pub(crate) ignore_path_parameters: bool,
    pub(crate) internal_only_headers: Box<[HeaderName]>,
    pub(crate) clusters: Box<[Arc<str>]>,
    pub(crate) metadata: Option<Arc<Map<String, Value>>>,
    pub(crate) scopes: Box<[Arc<RouteScope>]>,
}

/// What a table says about a request.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'t> {
    /// No virtual host has a domain for the request's host: 404, `route_not_found`, `NR`.
    NoVirtualHost,
    /// A virtual host, but none of its routes matches: the same answer.
    NoRoute(&'t Arc<VirtualHost>),
    /// The virtual host wants TLS and the request came without: [`super::redirect::tls_redirect`].
    RequireTls(&'t Arc<VirtualHost>),
    /// The first route that matches.
    Matched {
        /// The virtual host.
        vhost: &'t Arc<VirtualHost>,
        /// The route.
        route: &'t Arc<Route>,
        /// Finds both again in the same table, for streams that keep the table and not the route.
        id: RouteId,
    },
}

/// Names one route of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteId {
    vhost: u32,
    route: u32,
}

impl RouteTable {
    /// `RouteConfiguration.name`.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The virtual hosts, in the order configured.
    #[must_use]
    pub fn virtual_hosts(&self) -> &[Arc<VirtualHost>] {
        &self.virtual_hosts
    }

    /// Headers the connection manager removes from external requests (`internal_only_headers`).
    #[must_use]
    pub fn internal_only_headers(&self) -> &[HeaderName] {
        &self.internal_only_headers
    }

    /// Every cluster the table names, each once: what its users depend on.
    #[must_use]
    pub fn clusters(&self) -> &[Arc<str>] {
        &self.clusters
    }

    /// `RouteConfiguration.metadata`, by filter name space.
    #[must_use]
    pub const fn metadata(&self) -> Option<&Arc<Map<String, Value>>> {
        self.metadata.as_ref()
    }

    /// Shows the statistics the table asks for. To be called by whoever takes it into use; more than once does no harm.
    pub fn show(&self, store: &Arc<Store>) {
        self.scopes.iter().for_each(|scope| scope.show(store));
    }

    /// What is to be done with a request.
    ///
    /// The head is as the connection manager made it: path normalised, `x-forwarded-proto` and `x-envoy-internal` set.
    #[must_use]
    pub fn select(&self, head: &RequestHead, input: &MatchInput<'_>) -> Selection<'_> {
        let Some((number, vhost)) = self.virtual_host(head) else { return Selection::NoVirtualHost };
        if vhost.wants_tls(head) {
            return Selection::RequireTls(vhost);
        }
        match vhost.index.find(&vhost.routes, head, input, self.ignore_path_parameters) {
            Some((route_number, route)) => {
                Selection::Matched { vhost, route, id: RouteId { vhost: number, route: route_number } }
            }
            None => Selection::NoRoute(vhost),
        }
    }

    /// As [`Self::select`], by walking the list: what the index must agree with.
    #[must_use]
    pub fn select_by_scan(&self, head: &RequestHead, input: &MatchInput<'_>) -> Selection<'_> {
        let Some((number, vhost)) = self.virtual_host(head) else { return Selection::NoVirtualHost };
        if vhost.wants_tls(head) {
            return Selection::RequireTls(vhost);
        }
        let bare = without_parameters(&head.path);
        let subject = if self.ignore_path_parameters { &bare[..] } else { subject(&head.path) };
        let found = (0..).zip(vhost.routes.iter()).find(|(_, route)| route.matcher.matches(head, subject, input));
        match found {
            Some((route_number, route)) => {
                Selection::Matched { vhost, route, id: RouteId { vhost: number, route: route_number } }
            }
            None => Selection::NoRoute(vhost),
        }
    }

    /// The virtual host and route of an earlier selection from this very table.
    #[must_use]
    pub fn resolve(&self, id: RouteId) -> Option<(&Arc<VirtualHost>, &Arc<Route>)> {
        let vhost = self.virtual_hosts.get(id.vhost as usize)?;
        Some((vhost, vhost.routes.get(id.route as usize)?))
    }

    fn virtual_host(&self, head: &RequestHead) -> Option<(u32, &Arc<VirtualHost>)> {
        let host = match &self.vhost_header {
            None => Some(&head.authority[..]),
            Some(key) => head.value(key),
        };
        let number = self.hosts.find(host?)?;
        Some((number, self.virtual_hosts.get(number as usize)?))
    }
}

/// One `VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// `VirtualHost.name`, for statistics and logs.
    pub name: Arc<str>,
    /// Whether requests must come over TLS.
    pub require_tls: TlsRequirement,
    /// Whether the request tells its upstream the number of the attempt (`x-envoy-attempt-count`).
    pub include_request_attempt_count: bool,
    /// Whether the response tells its client the number of attempts.
    pub include_attempt_count_in_response: bool,
    /// `VirtualHost.metadata`, by filter name space.
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// `virtual_clusters`; `None` if there are none.
    pub virtual_clusters: Option<VirtualClusters>,
    pub(crate) routes: Box<[Arc<Route>]>,
    pub(crate) index: RouteIndex,
}

/// `VirtualHost.require_tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsRequirement {
    /// Any scheme will do.
    #[default]
    None,
    /// External requests must come over TLS.
    ExternalOnly,
    /// All requests must.
    All,
}

impl VirtualHost {
    /// The routes, in the order configured.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    fn wants_tls(&self, head: &RequestHead) -> bool {
        let external = || head.headers.value(&Known::XEnvoyInternal).is_none_or(|value| value != "true");
        match self.require_tls {
            TlsRequirement::None => false,
            TlsRequirement::All => !came_over_tls(head),
            TlsRequirement::ExternalOnly => !came_over_tls(head) && external(),
        }
    }
}

fn came_over_tls(head: &RequestHead) -> bool {
    head.headers.value(&Known::XForwardedProto).is_some_and(|proto| proto == "https")
}

/// One `Route`.
#[derive(Debug)]
pub struct Route {
    /// `Route.name`; empty when it has none.
    pub name: Arc<str>,
    /// Which requests it is for.
    pub matcher: RouteMatch,
    /// What is done with them.
    pub action: RouteAction,
    /// `Route.metadata`, by filter name space.
    pub metadata: Option<Arc<Map<String, Value>>>,
    /// How much of a request's body may be buffered.
    pub body_buffer_limit: BodyBufferLimit,
    /// Whether `x-envoy-attempt-count` goes upstream (the virtual host's).
    pub include_request_attempt_count: bool,
    /// Whether `x-envoy-attempt-count` goes to the client (the virtual host's).
    pub include_attempt_count_in_response: bool,
    /// Statistics of the route's own (`Route.stat_prefix`).
    pub scope: Option<Arc<RouteScope>>,
    /// Whether retries say by `x-envoy-is-timeout-retry` if a timeout caused them (the virtual host's).
    pub include_is_timeout_retry: bool,
    pub(crate) request_headers: MutationChain,
    pub(crate) response_headers: MutationChain,
    pub(crate) filter_configs: FilterConfigs,
}

/// The bound on a buffered request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyBufferLimit {
    /// The connection's own buffer limit.
    #[default]
    Connection,
    /// The smaller of this many bytes and the connection's limit (`per_request_buffer_limit_bytes`).
    AtMost(u64),
    /// This many bytes, whatever the connection's limit (`request_body_buffer_limit`).
    Exactly(u64),
}

impl BodyBufferLimit {
    /// The bound in bytes on a connection with this limit.
    #[must_use]
    pub fn bytes(self, connection: u64) -> u64 {
        match self {
            Self::Connection => connection,
            Self::AtMost(bytes) => bytes.min(connection),
            Self::Exactly(bytes) => bytes,
        }
    }
}

impl Route {
    /// Changes to the request, in the order they apply; the chosen weighted cluster's among them.
    #[must_use]
    pub fn request_headers<'a>(&'a self, choice: Option<&ClusterChoice<'a>>) -> &'a MutationChain {
        choice.and_then(|choice| choice.entry).map_or(&self.request_headers, |entry| &entry.request_headers)
    }

    /// Changes to the response, in the order they apply; the chosen weighted cluster's among them.
    #[must_use]
    pub fn response_headers<'a>(&'a self, choice: Option<&ClusterChoice<'a>>) -> &'a MutationChain {
        choice.and_then(|choice| choice.entry).map_or(&self.response_headers, |entry| &entry.response_headers)
    }

    /// The most specific settings for the HTTP filter `name`: weighted cluster, route, virtual host, table.
    #[must_use]
    pub fn filter_config<'a>(
        &'a self,
        name: &'a str,
        choice: Option<&ClusterChoice<'a>>,
    ) -> Option<&'a FilterOverride> {
        self.filter_configs(name, choice).next()
    }

    /// All settings for the HTTP filter `name`, the most specific first.
    pub fn filter_configs<'a>(
        &'a self,
        name: &'a str,
        choice: Option<&ClusterChoice<'a>>,
    ) -> impl Iterator<Item = &'a FilterOverride> {
        let entry = choice.and_then(|choice| choice.entry);
        entry.into_iter().flat_map(move |entry| entry.filter_configs.all(name)).chain(self.filter_configs.all(name))
    }

    /// Chooses the cluster of a forwarded request; `None` when the route does not forward.
    #[must_use]
    pub fn choose_cluster(&self, head: &RequestHead, random: u64, runtime: &dyn Runtime) -> Option<ClusterChoice<'_>> {
        match &self.action {
            RouteAction::Forward(forward) => Some(forward.cluster(head, random, runtime)),
            _ => None,
        }
    }

    /// Makes a request ready for upstream: the header changes, then the host, then the path.
    ///
    /// `keep_original` adds `x-envoy-original-host` and `x-envoy-original-path` where something is rewritten; the router's
    /// `suppress_envoy_headers` turns it off.
    pub fn finalize_request(
        &self,
        head: &mut RequestHead,
        choice: Option<&ClusterChoice<'_>>,
        info: &StreamInfo,
        keep_original: bool,
    ) {
        for mutations in self.request_headers(choice) {
            mutations.apply_to_request(head, info);
        }
        if let RouteAction::Forward(forward) = &self.action {
            forward.rewrite_host(head, choice, info, keep_original);
            forward.rewrite_path(head, &self.matcher.path, info, keep_original);
        }
    }

    /// Makes a response ready for the client: the header changes. Local replies get them as well.
    pub fn finalize_response(
        &self,
        head: &mut filters::http::ResponseHead,
        request: Option<&RequestHead>,
        choice: Option<&ClusterChoice<'_>>,
        info: &StreamInfo,
    ) {
        for mutations in self.response_headers(choice) {
            mutations.apply_to_response(head, request, info);
        }
    }
}

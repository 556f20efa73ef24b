//! `RouteConfiguration` to a [`RouteTable`].
//!
//! Every field of every message is used, or stands in the [`ledger`]; errors are Envoy's words at a field's path.

mod action;
mod clusters;
pub mod hash;
mod internal_redirect;
pub mod ledger;
mod matching;
pub(crate) mod mirror;
mod per_filter;
pub(crate) mod retry;
mod values;
mod virtual_host;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{Route as RouteProto, RouteConfiguration};
use filters::config::{At, ConfigError};
use filters::http::{HeaderKey, HeaderName};
use filters::matcher::RegexLimits;
use filters::mutation::{Fields, HeaderMutations, ParseFormat};

use self::action::Inherited;
use self::values::metadata;
use self::virtual_host::{HostLevel, buffer_limit};
use crate::route::headers::{FilterConfigs, FilterLevel, MutationChain};
use crate::route::hosts::{HostIndex, Taken};
use crate::route::mirror::MirrorPolicy;
use crate::route::scope::RouteScope;
use crate::route::table::{BodyBufferLimit, Route, RouteTable};

/// What parsing a table needs from outside of it.
#[derive(Clone, Copy)]
pub struct RouteEnv<'a> {
    /// Whether a cluster exists; asked when clusters are validated.
    pub cluster_exists: &'a dyn Fn(&str) -> bool,
    /// Whether clusters are validated when `validate_clusters` is unset: true for static tables, false for RDS.
    pub validate_clusters: bool,
    /// The runtime's limits on regular expressions.
    pub regex: RegexLimits,
    /// Compiles `%COMMAND%` texts.
    pub parse_format: ParseFormat,
}

impl RouteTable {
    /// Compiles a table.
    ///
    /// # Errors
    /// Everything Envoy rejects, in its words, and what the support ledger refuses.
    pub fn parse(proto: RouteConfiguration, at: At<'_>, env: &RouteEnv<'_>) -> Result<Self, ConfigError> {
        let RouteConfiguration {
            name,
            virtual_hosts,
            vhds,
            internal_only_headers,
            response_headers_to_add,
            response_headers_to_remove,
            request_headers_to_add,
            request_headers_to_remove,
            most_specific_header_mutations_wins,
            validate_clusters,
            max_direct_response_body_size_bytes,
            cluster_specifier_plugins,
            request_mirror_policies,
            ignore_port_in_host_matching,
            vhost_header,
            ignore_path_parameters_in_path_matching,
            typed_per_filter_config,
            metadata: table_metadata,
            route_specifiers,
        } = proto;
        at.unsupported(&ledger::table::vhds, &vhds)?;
        at.unsupported(&ledger::table::cluster_specifier_plugins, &cluster_specifier_plugins)?;
        at.unsupported(&ledger::table::route_specifiers, &route_specifiers)?;

        let mut parser = Parser {
            env: RouteEnv { validate_clusters: validate_clusters.map_or(env.validate_clusters, |v| v.value), ..*env },
            max_body: max_direct_response_body_size_bytes.map_or(4096, |bytes| u64::from(bytes.value)),
            most_specific_wins: most_specific_header_mutations_wins,
            clusters: BTreeSet::new(),
            table_mirrors: None,
            scopes: Vec::new(),
        };
        parser.table_mirrors = parser.mirrors(request_mirror_policies, at)?;
        let table = Level {
            request: parser.request(request_headers_to_add, request_headers_to_remove, at)?,
            response: parser.response(response_headers_to_add, response_headers_to_remove, at)?,
            filters: parser.filters(typed_per_filter_config, at)?,
        };
        let mut hosts = HostIndex::new(ignore_port_in_host_matching);
        let mut parsed = Vec::with_capacity(virtual_hosts.len());
        for (number, vhost) in (0_u32..).zip(virtual_hosts) {
            let at = at.field("virtual_hosts");
            let at = at.index(number as usize);
            if vhost.domains.is_empty() {
                return Err(at.field("domains").error("value must contain at least 1 item(s)"));
            }
            for (n, domain) in vhost.domains.iter().enumerate() {
                hosts.insert(domain, number).map_err(|taken| {
                    let at = at.field("domains");
                    let at = at.index(n);
                    match taken {
                        Taken::Default => {
                            at.error(format_args!("Only a single wildcard domain is permitted in route {name}"))
                        }
                        Taken::Domain(domain) => at.error(format_args!(
                            "Only unique values for domains are permitted. Duplicate entry of domain {domain} in route \
                             {name}"
                        )),
                    }
                })?;
            }
            parsed.push(Arc::new(parser.virtual_host(vhost, &table, at)?));
        }
        let vhost_header = match &vhost_header[..] {
            "" => None,
            name => Some(
                HeaderKey::parse(name)
                    .ok_or_else(|| at.field("vhost_header").error(format_args!("'{name}' is not a header name")))?,
            ),
        };
        let internal_only_headers = internal_only_headers
            .iter()
            .enumerate()
            .map(|(n, name)| {
                HeaderName::parse(name.as_bytes()).ok_or_else(|| {
                    at.field("internal_only_headers").index(n).error(format_args!("'{name}' is not a header name"))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.into(),
            hosts,
            virtual_hosts: parsed.into(),
            vhost_header,
            ignore_path_parameters: ignore_path_parameters_in_path_matching,
            internal_only_headers,
            clusters: parser.clusters.into_iter().collect(),
            metadata: metadata(table_metadata),
            scopes: parser.scopes.into(),
        })
    }
}

/// What one level of a table (table, virtual host, route, weighted cluster) says about headers and filters.
struct Level {
    request: Arc<HeaderMutations>,
    response: Arc<HeaderMutations>,
    filters: FilterLevel,
}

/// What all parts of one table share while it is parsed.
struct Parser<'a> {
    env: RouteEnv<'a>,
    max_body: u64,
    most_specific_wins: bool,
    clusters: BTreeSet<Arc<str>>,
    /// Statistics of virtual clusters and routes.
    scopes: Vec<Arc<RouteScope>>,
    /// The table's own mirror policies.
    table_mirrors: Option<Arc<[MirrorPolicy]>>,
}

impl Parser<'_> {
    fn route(&mut self, proto: RouteProto, table: &Level, vhost: &HostLevel, at: At<'_>) -> Result<Route, ConfigError> {
        #[expect(deprecated, reason = "Envoy still accepts the fields")]
        let RouteProto {
            name,
            r#match,
            metadata: route_metadata,
            decorator,
            typed_per_filter_config,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            tracing,
            per_request_buffer_limit_bytes,
            stat_prefix,
            request_body_buffer_limit,
            route_specifiers,
            action,
        } = proto;
        use ledger::route as row;
        at.unsupported(&row::decorator, &decorator)?;
        at.unsupported(&row::tracing, &tracing)?;
        at.unsupported(&row::route_specifiers, &route_specifiers)?;
        let level = Level {
            request: self.request(request_headers_to_add, request_headers_to_remove, at)?,
            response: self.response(response_headers_to_add, response_headers_to_remove, at)?,
            filters: self.filters(typed_per_filter_config, at)?,
        };
        let levels = [&level, &vhost.level, table];
        let matcher = matching::parse(at.required("match", r#match)?, at.field("match"), self.env.regex)?;
        let inherited = Inherited {
            route_name: &name,
            path: &matcher.path,
            levels,
            retry: vhost.retry.as_ref(),
            hedge_on_per_try_timeout: vhost.hedge_on_per_try_timeout,
            mirrors: vhost.mirrors.as_ref(),
            cors: vhost.cors.as_ref(),
        };
        let action = match action {
            None => return Err(at.field("action").error("is required")),
            Some(action) => self.action(action, &inherited, at)?,
        };
        let scope = (!stat_prefix.is_empty()).then(|| RouteScope::new(&vhost.name, "route", &stat_prefix));
        self.scopes.extend(scope.clone());
        let own_limit = buffer_limit(per_request_buffer_limit_bytes, request_body_buffer_limit);
        Ok(Route {
            name: name.into(),
            matcher,
            action,
            metadata: metadata(route_metadata),
            body_buffer_limit: if own_limit == BodyBufferLimit::Connection {
                vhost.body_buffer_limit
            } else {
                own_limit
            },
            include_request_attempt_count: vhost.include_request_attempt_count,
            include_attempt_count_in_response: vhost.include_attempt_count_in_response,
            scope,
            include_is_timeout_retry: vhost.include_is_timeout_retry,
            request_headers: MutationChain::new(None, levels.map(|level| &level.request), self.most_specific_wins),
            response_headers: MutationChain::new(None, levels.map(|level| &level.response), self.most_specific_wins),
            filter_configs: FilterConfigs::new(levels.map(|level| &level.filters)),
        })
    }

    fn request(
        &self,
        add: Vec<HeaderValueOption>,
        remove: Vec<String>,
        at: At<'_>,
    ) -> Result<Arc<HeaderMutations>, ConfigError> {
        HeaderMutations::parse(add, remove, at, Fields::REQUEST, self.env.parse_format).map(Arc::new)
    }

    fn response(
        &self,
        add: Vec<HeaderValueOption>,
        remove: Vec<String>,
        at: At<'_>,
    ) -> Result<Arc<HeaderMutations>, ConfigError> {
        HeaderMutations::parse(add, remove, at, Fields::RESPONSE, self.env.parse_format).map(Arc::new)
    }
}

impl Parser<'_> {
    /// Notes a cluster a route names, checking that it exists when that is wanted. `kind` is Envoy's word for it.
    fn cluster(&mut self, name: &str, kind: &str, at: At<'_>) -> Result<Arc<str>, ConfigError> {
        if self.env.validate_clusters && !(self.env.cluster_exists)(name) {
            return Err(at.error(format_args!("route: unknown {kind} '{name}'")));
        }
        if let Some(known) = self.clusters.get(name) {
            return Ok(Arc::clone(known));
        }
        let name: Arc<str> = name.into();
        self.clusters.insert(Arc::clone(&name));
        Ok(name)
    }

    fn action(
        &mut self,
        proto: Action,
        inherited: &Inherited<'_>,
        at: At<'_>,
    ) -> Result<crate::route::RouteAction, ConfigError> {
        use crate::route::RouteAction;
        Ok(match proto {
            Action::Route(forward) => {
                RouteAction::Forward(Box::new(self.forward(forward, inherited, at.field("route"))?))
            }
            Action::Redirect(redirect) => {
                RouteAction::Redirect(Box::new(self.redirect(redirect, at.field("redirect"))?))
            }
            Action::DirectResponse(response) => {
                RouteAction::DirectResponse(self.direct_response(response, at.field("direct_response"))?)
            }
            Action::FilterAction(action) => {
                at.unsupported(&ledger::route::filter_action, &Some(action))?;
                RouteAction::NonForwarding
            }
            Action::NonForwardingAction(_) => RouteAction::NonForwarding,
        })
    }
}

#[cfg(test)]
mod tests;

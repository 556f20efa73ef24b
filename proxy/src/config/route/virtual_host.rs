//! `VirtualHost`: its domains, what it adds to every route, its routes.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{VirtualCluster, VirtualHost as VirtualHostProto};
use envoy_types::pb::google::protobuf::{UInt32Value, UInt64Value};
use filters::config::{At, ConfigError};
use filters::cors::CorsPolicy;
use filters::matcher::HeaderMatcher;

use super::values::metadata;
use super::{Level, Parser};
use crate::route::index::RouteIndex;
use crate::route::mirror::MirrorPolicy;
use crate::route::retry::RetryPolicy;
use crate::route::scope::VirtualClusters;
use crate::route::table::{BodyBufferLimit, TlsRequirement, VirtualHost};

impl Parser<'_> {
    pub(super) fn virtual_host(
        &mut self,
        proto: VirtualHostProto,
        table: &Level,
        at: At<'_>,
    ) -> Result<VirtualHost, ConfigError> {
        #[expect(deprecated, reason = "Envoy still accepts the fields")]
        let VirtualHostProto {
            name,
            domains: _, // filed by the caller, who knows the other hosts'
            routes,
            matcher,
            require_tls,
            virtual_clusters,
            rate_limits,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            cors,
            typed_per_filter_config,
            include_request_attempt_count,
            include_attempt_count_in_response,
            retry_policy,
            retry_policy_typed_config,
            hedge_policy,
            include_is_timeout_retry_header,
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
            request_mirror_policies,
            metadata: vhost_metadata,
            route_specifiers,
        } = proto;
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        if matcher.is_some() && !routes.is_empty() {
            return Err(at.error("cannot set both matcher and routes on virtual host"));
        }
        use super::ledger::virtual_host as row;
        at.unsupported(&row::matcher, &matcher)?;
        at.unsupported(&row::rate_limits, &rate_limits)?;
        at.unsupported(&row::retry_policy_typed_config, &retry_policy_typed_config)?;
        at.unsupported(&row::route_specifiers, &route_specifiers)?;
        let virtual_clusters = self.virtual_clusters(&name, virtual_clusters, at.field("virtual_clusters"))?;
        let mirrors = self.mirrors(request_mirror_policies, at)?.or_else(|| self.table_mirrors.clone());
        let retry = retry_policy
            .map(|policy| RetryPolicy::parse(policy, at.field("retry_policy"), self.env.regex).map(Arc::new))
            .transpose()?;
        let level = Level {
            request: self.request(request_headers_to_add, request_headers_to_remove, at)?,
            response: self.response(response_headers_to_add, response_headers_to_remove, at)?,
            filters: self.filters(typed_per_filter_config, at)?,
        };
        let vhost = HostLevel {
            name: name.as_str().into(),
            level,
            retry,
            mirrors,
            cors: self.cors(cors, at)?,
            hedge_on_per_try_timeout: hedge_policy.is_some_and(|policy| policy.hedge_on_per_try_timeout),
            body_buffer_limit: buffer_limit(per_request_buffer_limit_bytes, request_body_buffer_limit),
            include_request_attempt_count,
            include_attempt_count_in_response,
            include_is_timeout_retry: include_is_timeout_retry_header,
        };
        let here = at.field("routes");
        let routes = routes
            .into_iter()
            .enumerate()
            .map(|(n, route)| self.route(route, table, &vhost, here.index(n)).map(Arc::new))
            .collect::<Result<Box<[_]>, _>>()?;
        let require_tls = match TlsRequirementType::try_from(require_tls) {
            Ok(TlsRequirementType::None) => TlsRequirement::None,
            Ok(TlsRequirementType::ExternalOnly) => TlsRequirement::ExternalOnly,
            Ok(TlsRequirementType::All) => TlsRequirement::All,
            Err(_) => return Err(at.field("require_tls").error("value must be one of the defined enum values")),
        };
        Ok(VirtualHost {
            name: name.into(),
            require_tls,
            include_request_attempt_count,
            include_attempt_count_in_response,
            metadata: metadata(vhost_metadata),
            virtual_clusters,
            index: RouteIndex::new(&routes),
            routes,
        })
    }

    /// Conditions and statistics of virtual clusters; `None` for none.
    fn virtual_clusters(
        &mut self,
        host: &str,
        protos: Vec<VirtualCluster>,
        at: At<'_>,
    ) -> Result<Option<VirtualClusters>, ConfigError> {
        let mut entries = Vec::with_capacity(protos.len());
        for (n, VirtualCluster { headers, name }) in protos.into_iter().enumerate() {
            if headers.is_empty() {
                return Err(at.error("virtual clusters must define 'headers'"));
            }
            let at = at.index(n);
            if name.is_empty() {
                return Err(at.field("name").error("value length must be at least 1 characters"));
            }
            let all = at.field("headers");
            let matchers = headers.into_iter().enumerate();
            let matchers = matchers.map(|(n, matcher)| HeaderMatcher::parse(matcher, all.index(n), self.env.regex));
            entries.push((name, matchers.collect::<Result<_, _>>()?));
        }
        let clusters = (!entries.is_empty()).then(|| VirtualClusters::new(host, entries));
        self.scopes.extend(clusters.iter().flat_map(VirtualClusters::scopes).cloned());
        Ok(clusters)
    }
}

/// What a virtual host hands down to its routes.
pub(super) struct HostLevel {
    pub(super) name: Box<str>,
    pub(super) level: Level,
    pub(super) retry: Option<Arc<RetryPolicy>>,
    pub(super) mirrors: Option<Arc<[MirrorPolicy]>>,
    pub(super) cors: Option<Arc<CorsPolicy>>,
    pub(super) hedge_on_per_try_timeout: bool,
    pub(super) body_buffer_limit: BodyBufferLimit,
    pub(super) include_request_attempt_count: bool,
    pub(super) include_attempt_count_in_response: bool,
    pub(super) include_is_timeout_retry: bool,
}

pub(super) fn buffer_limit(at_most: Option<UInt32Value>, exactly: Option<UInt64Value>) -> BodyBufferLimit {
    match (exactly, at_most) {
        (Some(bytes), _) => BodyBufferLimit::Exactly(bytes.value),
        (None, Some(bytes)) => BodyBufferLimit::AtMost(bytes.value.into()),
        (None, None) => BodyBufferLimit::Connection,
    }
}

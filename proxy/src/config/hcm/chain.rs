//! The filter chain of a connection manager.

use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::{Router, router::UpstreamAccessLogOptions};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use filters::call::config::ParseServices;
use filters::config::{At, ConfigError};
use filters::ext_authz::ExtAuthzConfig;
use filters::format::parse_header_value;
use filters::health_check::HealthCheckConfig;
use filters::http::HeaderName;
use filters::jwt_authn::{JwtAuthnConfig, ParseContext};
use filters::ledger;
use filters::rbac::RbacConfig;

use super::values::{duration, flag};
use super::{HcmContext, HttpFilter, HttpFilterKind, RouterConfig};
use crate::config::access_log;
use crate::config::any;
use crate::config::route::retry;

ledger! {
    /// Filters that are not here.
    pub mod unsupported_http_filters for "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter" {
        typed_config => Refuse, "of Envoy's HTTP filters only cors, ext_authz, health_check, jwt_authn, rbac and the router are here yet";
        config_discovery => Refuse, "filters from a control plane (ECDS) are not here yet";
    }
}

ledger! {
    /// Router options that are not here.
    pub mod unsupported_router for "envoy.extensions.filters.http.router.v3.Router" {
        start_child_span => Warn, "tracing is not here yet";
        upstream_http_filters => Refuse, "filters on the upstream side are not here yet";
    }
}

const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";
const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
const JWT_AUTHN: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const ROUTER_NAME: &str = "envoy.filters.http.router";

/// Parses a chain. `kind` is how Envoy calls it in errors: `http`, `http upgrade`.
pub(super) fn parse(
    at: &At<'_>,
    protos: Vec<proto::HttpFilter>,
    kind: &str,
    context: &HcmContext<'_>,
) -> Result<Vec<HttpFilter>, ConfigError> {
    let last = protos.len().saturating_sub(1);
    let mut chain = Vec::with_capacity(protos.len());
    for (n, proto) in protos.into_iter().enumerate() {
        let here = at.index(n);
        let Some(filter) = filter(&here, proto, context)? else { continue };
        let HttpFilterKind::Router(_) = filter.kind else {
            if n == last {
                return Err(here.error(format_args!(
                    "Error: non-terminal filter named {} of type {} is the last filter in a {kind} filter chain.",
                    filter.name,
                    filter.kind.type_name(),
                )));
            }
            chain.push(filter);
            continue;
        };
        if n < last {
            return Err(here.error(format_args!(
                "Error: terminal filter named {} of type {ROUTER_NAME} must be the last filter in a {kind} filter chain.",
                filter.name
            )));
        }
        if filter.disabled {
            return Err(here.error(format_args!(
                "Error: the last (terminal) filter ({}) in the chain cannot be disabled by default.",
                filter.name
            )));
        }
        chain.push(filter);
    }
    Ok(chain)
}

/// One filter; `None` when it is not known and optional, or let through by the operator.
fn filter(at: &At<'_>, proto: proto::HttpFilter, context: &HcmContext<'_>) -> Result<Option<HttpFilter>, ConfigError> {
    let proto::HttpFilter { name, is_optional, disabled, config_type } = proto;
    let typed = match config_type {
        Some(proto::http_filter::ConfigType::TypedConfig(typed)) => typed,
        Some(proto::http_filter::ConfigType::ConfigDiscovery(_)) => {
            at.field("config_discovery").refuse_or_warn(&unsupported_http_filters::config_discovery)?;
            return Ok(None);
        }
        None if is_optional => return Ok(None),
        None => return Err(at.unknown_extension(&name, "")),
    };
    let here = at.field("typed_config");
    // What an optional filter of unknown type wraps cannot be converted, and need not be.
    let typed = match any::unwrap(&here, typed, context.log.convert) {
        Err(_) if is_optional => return Ok(None),
        typed => typed?,
    };
    match typed.type_name() {
        ROUTER => {
            let kind = HttpFilterKind::Router(router(&here, typed.decode(&here)?, context)?);
            Ok(Some(HttpFilter { name: name.into(), disabled, kind }))
        }
        CORS => {
            let Cors {} = typed.decode(&here)?;
            Ok(Some(HttpFilter { name: name.into(), disabled, kind: HttpFilterKind::Cors }))
        }
        HEALTH_CHECK => {
            let config =
                HealthCheckConfig::parse(typed.decode(&here)?, here, context.log.limits, context.node_cluster)?;
            Ok(Some(HttpFilter { name: name.into(), disabled, kind: HttpFilterKind::HealthCheck(Arc::new(config)) }))
        }
        EXT_AUTHZ => {
            let parse =
                ParseServices { limits: context.log.limits, format: parse_header_value, retry: retry::of_calls };
            let proto: ExtAuthz = typed.decode(&here)?;
            let config = ExtAuthzConfig::parse(proto, here, &parse, context.node_metadata)?;
            let kind = config.map(|config| HttpFilterKind::ExtAuthz(Arc::new(config)));
            Ok(kind.map(|kind| HttpFilter { name: name.into(), disabled, kind }))
        }
        JWT_AUTHN => {
            let parse = ParseContext { limits: context.log.limits, read: &local_jwks, retry: retry::of_calls };
            let config = JwtAuthnConfig::parse(typed.decode(&here)?, here, parse)?;
            Ok(Some(HttpFilter { name: name.into(), disabled, kind: HttpFilterKind::JwtAuthn(Arc::new(config)) }))
        }
        RBAC => {
            let config = RbacConfig::parse(typed.decode(&here)?, here, context.log.limits)?;
            Ok(Some(HttpFilter { name: name.into(), disabled, kind: HttpFilterKind::Rbac(Arc::new(config)) }))
        }
        other if is_optional => {
            at.warn(
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config",
                format!("{other} is not implemented; the filter is optional, and left out"),
            );
            Ok(None)
        }
        other if other.starts_with("envoy.extensions.filters.http.") => {
            here.refuse_or_warn(&unsupported_http_filters::typed_config)
                .map_err(|error| ConfigError { message: format!("{other}: {}", error.message), ..error })?;
            Ok(None)
        }
        other => Err(at.unknown_extension(&name, other)),
    }
}

/// The keys of a provider. Like Envoy, the filter reads them once.
fn local_jwks(at: &At<'_>, source: DataSource) -> Result<Bytes, ConfigError> {
    if source.watched_directory.is_some() {
        at.field("watched_directory").warn(
            "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.local_jwks.watched_directory",
            "the file is read once, as by Envoy; what becomes of its directory is not looked at",
        );
    }
    access_log::data_source(at, DataSource { watched_directory: None, ..source })
}

fn router(at: &At<'_>, proto: Router, context: &HcmContext<'_>) -> Result<RouterConfig, ConfigError> {
    #[expect(deprecated, reason = "old fields are destructured like all others")]
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = proto;
    at.unsupported(&unsupported_router::start_child_span, &start_child_span)?;
    let upstream_filters = at.field("upstream_http_filters");
    // The codec alone is the chain everyone has.
    let only_codec = matches!(&upstream_http_filters[..], [codec] if codec.name == "envoy.filters.http.upstream_codec");
    if !only_codec {
        at.unsupported(&unsupported_router::upstream_http_filters, &upstream_http_filters)
            .map_err(|error| ConfigError { path: upstream_filters.path(), ..error })?;
    }
    let UpstreamAccessLogOptions { flush_upstream_log_on_upstream_stream, upstream_log_flush_interval } =
        upstream_log_options.unwrap_or_default();
    let strict_check_headers = strict_check_headers
        .into_iter()
        .map(|name| {
            let checked = matches!(
                name.as_str(),
                "x-envoy-upstream-rq-timeout-ms"
                    | "x-envoy-upstream-rq-per-try-timeout-ms"
                    | "x-envoy-max-retries"
                    | "x-envoy-retry-grpc-on"
                    | "x-envoy-retry-on"
            );
            HeaderName::parse(name.as_bytes()).filter(|_| checked).ok_or_else(|| {
                at.field("strict_check_headers").error(
                    "value must be in list [x-envoy-upstream-rq-timeout-ms x-envoy-upstream-rq-per-try-timeout-ms \
                     x-envoy-max-retries x-envoy-retry-grpc-on x-envoy-retry-on]",
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RouterConfig {
        dynamic_stats: flag(dynamic_stats, true),
        upstream_logs: access_log::parse_all(&at.field("upstream_log"), upstream_log, &context.log)?,
        flush_log_on_upstream_stream: flush_upstream_log_on_upstream_stream,
        upstream_log_flush_interval: duration(
            &at.field("upstream_log_options"),
            "upstream_log_flush_interval",
            upstream_log_flush_interval,
        )?,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_failure_stats: suppress_grpc_request_failure_code_stats,
        reject_connect_early_data: flag(reject_connect_request_early_data, false),
    })
}

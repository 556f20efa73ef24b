//! `RouteAction`, `RedirectAction`, `DirectResponseAction`.

use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::core::v3::{ProxyProtocolConfig, proxy_protocol_config};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_action::upgrade_config::ConnectConfig as ConnectConfigProto;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, MaxStreamDuration, UpgradeConfig as UpgradeConfigProto,
};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction as RedirectProto, RouteAction as Proto,
};
use envoy_types::pb::google::protobuf::Duration as DurationProto;
use filters::config::{At, ConfigError};
use filters::cors::CorsPolicy;
use filters::format::FormatOptions;
use filters::http::HeaderKey;
use filters::matcher::{PathTemplateRewrite, Substitution};
use filters::mutation::Template;

use super::values::{data, duration};
use super::{Level, Parser, hash, ledger};
use crate::config::hcm;
use crate::http::reply::{BodyFormat, BodyText};
use crate::route::MetadataMatch;
use crate::route::action::{DirectResponse, ForwardAction};
use crate::route::internal_redirect::InternalRedirect;
use crate::route::matching::PathMatch;
use crate::route::mirror::MirrorPolicy;
use crate::route::policy::{ConnectConfig, GrpcTimeout, GrpcTimeoutTarget, Priority, Timeouts, UpgradeConfig};
use crate::route::redirect::{RedirectAction, RedirectPath};
use crate::route::retry::RetryPolicy;
use crate::route::rewrite::PathRewrite;
use crate::transport::proxy_protocol::ProxyProtocolVersion;

/// What an action takes from its route and from above.
pub(super) struct Inherited<'a> {
    pub(super) route_name: &'a str,
    /// The route's condition on paths.
    pub(super) path: &'a PathMatch,
    /// Route, virtual host, table.
    pub(super) levels: [&'a Level; 3],
    /// The virtual host's.
    pub(super) retry: Option<&'a Arc<RetryPolicy>>,
    /// The virtual host's.
    pub(super) hedge_on_per_try_timeout: bool,
    /// The virtual host's, or the table's.
    pub(super) mirrors: Option<&'a Arc<[MirrorPolicy]>>,
    /// The virtual host's.
    pub(super) cors: Option<&'a Arc<CorsPolicy>>,
}

const ONE_REWRITE: &str = "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy";

impl Parser<'_> {
    pub(super) fn forward(
        &mut self,
        proto: Proto,
        inherited: &Inherited<'_>,
        at: At<'_>,
    ) -> Result<ForwardAction, ConfigError> {
        #[expect(deprecated, reason = "Envoy still accepts the fields")]
        let Proto {
            cluster_not_found_response_code,
            metadata_match,
            prefix_rewrite,
            regex_rewrite,
            path_rewrite_policy,
            path_rewrite,
            append_x_forwarded_host,
            timeout,
            idle_timeout,
            flush_timeout,
            early_data_policy,
            retry_policy,
            retry_policy_typed_config,
            request_mirror_policies,
            priority,
            rate_limits,
            include_vh_rate_limits,
            hash_policy,
            cors,
            max_grpc_timeout,
            grpc_timeout_offset,
            upgrade_configs,
            internal_redirect_policy,
            internal_redirect_action,
            max_internal_redirects,
            hedge_policy,
            max_stream_duration,
            cluster_specifier,
            host_rewrite_specifier,
        } = proto;
        use ledger::route_action as row;
        at.unsupported(&row::early_data_policy, &early_data_policy)?;
        at.unsupported(&row::retry_policy_typed_config, &retry_policy_typed_config)?;
        at.unsupported(&row::rate_limits, &rate_limits)?;
        at.unsupported(&row::include_vh_rate_limits, &include_vh_rate_limits)?;
        at.unsupported(&row::internal_redirect_action, &internal_redirect_action)?;
        at.unsupported(&row::max_internal_redirects, &max_internal_redirects)?;

        let rewrites = [
            !prefix_rewrite.is_empty(),
            regex_rewrite.is_some(),
            path_rewrite_policy.is_some(),
            !path_rewrite.is_empty(),
        ];
        if rewrites.into_iter().filter(|set| *set).count() > 1 {
            return Err(at.error(ONE_REWRITE));
        }
        let path_rewrite = if !prefix_rewrite.is_empty() {
            Some(PathRewrite::Prefix(prefix_rewrite.into()))
        } else if let Some(rewrite) = regex_rewrite {
            Some(PathRewrite::Regex(Substitution::parse(rewrite, at.field("regex_rewrite"), self.env.regex)?))
        } else if let Some(policy) = path_rewrite_policy {
            let template = if let PathMatch::Template(template) = inherited.path { Some(template) } else { None };
            let at = at.field("path_rewrite_policy");
            Some(PathRewrite::Variables(PathTemplateRewrite::parse(&at, policy, template)?))
        } else if !path_rewrite.is_empty() {
            let template = Template::parse(&path_rewrite, self.env.parse_format).map_err(|error| {
                at.field("path_rewrite").error(format_args!("Failed to create path rewrite formatter: {error}"))
            })?;
            Some(PathRewrite::Whole(template))
        } else {
            None
        };
        let retry = match retry_policy {
            Some(policy) => Some(Arc::new(RetryPolicy::parse(policy, at.field("retry_policy"), self.env.regex)?)),
            None => inherited.retry.cloned(),
        };
        let metadata_match = MetadataMatch::parse(metadata_match);
        let mirrors = self.mirrors(request_mirror_policies, at)?.or_else(|| inherited.mirrors.cloned());
        let redirects = internal_redirect_policy
            .map(|policy| InternalRedirect::parse(policy, at.field("internal_redirect_policy")).map(Box::new))
            .transpose()?;
        Ok(ForwardAction {
            mirrors,
            cors: self.cors(cors, at)?.into_iter().chain(inherited.cors.cloned()).collect(),
            internal_redirect: redirects,
            clusters: self.clusters(cluster_specifier, inherited, metadata_match.as_ref(), at)?,
            metadata_match,
            hash_policy: hash::parse(hash_policy, at.field("hash_policy"), self.env.regex)?,
            cluster_not_found: match ClusterNotFoundResponseCode::try_from(cluster_not_found_response_code) {
                Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => 503,
                Ok(ClusterNotFoundResponseCode::NotFound) => 404,
                Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
                Err(_) => return Err(undefined(at, "cluster_not_found_response_code")),
            },
            timeouts: Timeouts {
                response: match duration(timeout, at, "timeout")? {
                    // A route with `max_stream_duration` has no response timeout of its own, whatever it says.
                    _ if max_stream_duration.is_some() => None,
                    None => Timeouts::default().response,
                    Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
                },
                idle: duration(idle_timeout, at, "idle_timeout")?,
                flush: duration(flush_timeout, at, "flush_timeout")?,
                max_stream_duration: match &max_stream_duration {
                    Some(limits) => {
                        duration(limits.max_stream_duration, at.field("max_stream_duration"), "max_stream_duration")?
                    }
                    None => None,
                },
                grpc: grpc_timeout(max_stream_duration, max_grpc_timeout, grpc_timeout_offset, at)?,
            },
            priority: match RoutingPriority::try_from(priority) {
                Ok(RoutingPriority::Default) => Priority::Default,
                Ok(RoutingPriority::High) => Priority::High,
                Err(_) => return Err(undefined(at, "priority")),
            },
            retry,
            hedge_on_per_try_timeout: match &hedge_policy {
                Some(policy) => policy.hedge_on_per_try_timeout,
                None => inherited.hedge_on_per_try_timeout,
            },
            upgrades: upgrades(upgrade_configs, at.field("upgrade_configs"))?,
            path_rewrite,
            host_rewrite: self.host_rewrite(host_rewrite_specifier, at)?,
            append_x_forwarded_host,
        })
    }

    pub(super) fn redirect(&self, proto: RedirectProto, at: At<'_>) -> Result<RedirectAction, ConfigError> {
        let RedirectProto {
            host_redirect,
            port_redirect,
            response_code,
            strip_query,
            scheme_rewrite_specifier,
            path_rewrite_specifier,
        } = proto;
        let scheme = match scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => Some(scheme.into()),
            _ => None,
        };
        use PathRewriteSpecifier as S;
        let path = match path_rewrite_specifier {
            None => None,
            Some(S::PathRedirect(text) | S::PrefixRewrite(text) | S::PathRewrite(text)) if text.is_empty() => None,
            Some(S::PathRedirect(path)) => {
                if strip_query && path.contains('?') {
                    at.field("path_redirect").warn(
                        "envoy.config.route.v3.RedirectAction.path_redirect",
                        format!(
                            "`strip_query` is set to true, but `path_redirect` contains query string and it will not be \
                             stripped: {path}"
                        ),
                    );
                }
                Some(RedirectPath::Fixed(path.into()))
            }
            Some(S::PrefixRewrite(prefix)) => Some(RedirectPath::Rewrite(PathRewrite::Prefix(prefix.into()))),
            Some(S::RegexRewrite(rewrite)) => Some(RedirectPath::Rewrite(PathRewrite::Regex(Substitution::parse(
                rewrite,
                at.field("regex_rewrite"),
                self.env.regex,
            )?))),
            Some(S::PathRewrite(text)) => {
                let template = Template::parse(&text, self.env.parse_format).map_err(|error| {
                    at.field("path_rewrite").error(format_args!("Failed to create path rewrite formatter: {error}"))
                })?;
                Some(RedirectPath::Template(template))
            }
        };
        Ok(RedirectAction {
            status: match RedirectResponseCode::try_from(response_code) {
                Ok(RedirectResponseCode::MovedPermanently) => 301,
                Ok(RedirectResponseCode::Found) => 302,
                Ok(RedirectResponseCode::SeeOther) => 303,
                Ok(RedirectResponseCode::TemporaryRedirect) => 307,
                Ok(RedirectResponseCode::PermanentRedirect) => 308,
                Err(_) => return Err(undefined(at, "response_code")),
            },
            scheme,
            host: Some(Bytes::from(host_redirect)).filter(|host| !host.is_empty()),
            port: Some(port_redirect).filter(|port| *port != 0),
            path,
            strip_query,
        })
    }

    pub(super) fn direct_response(
        &self,
        proto: DirectResponseAction,
        at: At<'_>,
    ) -> Result<DirectResponse, ConfigError> {
        let DirectResponseAction { status, body, body_format } = proto;
        let status = u16::try_from(status)
            .ok()
            .filter(|status| (200..600).contains(status))
            .ok_or_else(|| at.field("status").error("value must be inside range [200, 600)"))?;
        let body = match body {
            Some(source) => data(source, self.max_body, at.field("body"))?.into(),
            None => Bytes::new(),
        };
        let format = body_format
            .map(|proto| {
                let says_type = !proto.content_type.is_empty();
                let format = hcm::body_format(&at.field("body_format"), proto, &FormatOptions::of_this_host())?;
                // Text that says nothing of its type is like any other body.
                let is_plain = !says_type && matches!(format.body, BodyText::Text(_));
                Ok(if is_plain { BodyFormat { content_type: Bytes::new(), ..format } } else { format })
            })
            .transpose()?;
        Ok(DirectResponse { status, body, format })
    }
}

pub(super) fn undefined(at: At<'_>, field: &str) -> ConfigError {
    at.field(field).error("value must be one of the defined enum values")
}

pub(super) fn header_key(name: &str, at: At<'_>) -> Result<HeaderKey, ConfigError> {
    HeaderKey::parse(name).ok_or_else(|| at.error(format_args!("'{name}' is not a header name")))
}

/// `max_stream_duration`'s word about `grpc-timeout`, or where there is none the deprecated fields'.
fn grpc_timeout(
    limits: Option<MaxStreamDuration>,
    max_grpc_timeout: Option<DurationProto>,
    grpc_timeout_offset: Option<DurationProto>,
    at: At<'_>,
) -> Result<Option<GrpcTimeout>, ConfigError> {
    let bound = |max: std::time::Duration| Some(max).filter(|max| !max.is_zero());
    let old = (
        duration(max_grpc_timeout, at, "max_grpc_timeout")?,
        duration(grpc_timeout_offset, at, "grpc_timeout_offset")?,
    );
    let (target, (max, offset)) = match limits {
        Some(MaxStreamDuration { max_stream_duration: _, grpc_timeout_header_max, grpc_timeout_header_offset }) => {
            let at = at.field("max_stream_duration");
            let new = (
                duration(grpc_timeout_header_max, at, "grpc_timeout_header_max")?,
                duration(grpc_timeout_header_offset, at, "grpc_timeout_header_offset")?,
            );
            (GrpcTimeoutTarget::StreamDuration, new)
        }
        None => (GrpcTimeoutTarget::Response, old),
    };
    Ok(max.map(|max| GrpcTimeout { target, max: bound(max), offset }))
}

fn upgrades(protos: Vec<UpgradeConfigProto>, at: At<'_>) -> Result<Box<[UpgradeConfig]>, ConfigError> {
    let mut upgrades: Vec<UpgradeConfig> = Vec::with_capacity(protos.len());
    for (n, UpgradeConfigProto { upgrade_type, enabled, connect_config }) in protos.into_iter().enumerate() {
        let at = at.index(n);
        if upgrade_type.is_empty() {
            return Err(at.field("upgrade_type").error("value length must be at least 1 characters"));
        }
        let protocol = upgrade_type.to_ascii_lowercase();
        if upgrades.iter().any(|other| *other.protocol == protocol) {
            return Err(at.error(format_args!("Duplicate upgrade {upgrade_type}")));
        }
        if connect_config.is_some() && protocol != "connect" && protocol != "connect-udp" {
            return Err(at.error(format_args!("Non-CONNECT upgrade type {upgrade_type} has ConnectConfig")));
        }
        upgrades.push(UpgradeConfig {
            protocol: protocol.into(),
            enabled: enabled.is_none_or(|flag| flag.value),
            connect: connect_config.map(|config| connect(config, at.field("connect_config"))).transpose()?,
        });
    }
    Ok(upgrades.into())
}

fn connect(proto: ConnectConfigProto, at: At<'_>) -> Result<ConnectConfig, ConfigError> {
    let ConnectConfigProto { proxy_protocol_config, allow_post } = proto;
    let at = at.field("proxy_protocol_config");
    let header = |ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs }| {
        at.unsupported(&ledger::proxy_protocol::pass_through_tlvs, &pass_through_tlvs)?;
        at.unsupported(&ledger::proxy_protocol::added_tlvs, &added_tlvs)?;
        match proxy_protocol_config::Version::try_from(version) {
            Ok(proxy_protocol_config::Version::V1) => Ok(ProxyProtocolVersion::V1),
            Ok(proxy_protocol_config::Version::V2) => Ok(ProxyProtocolVersion::V2),
            Err(_) => Err(undefined(at, "version")),
        }
    };
    Ok(ConnectConfig { proxy_protocol: proxy_protocol_config.map(header).transpose()?, allow_post })
}

//! The settings of the filter, and what routes say to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as core, RuntimeFeatureFlag};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::ListStringMatcher;
use envoy_types::pb::google::protobuf::BoolValue;
use proto::check_settings::ServiceOverride;
use proto::ext_authz::Services;
use proto::ext_authz_per_route::Override;

use super::http::HttpService;
use super::rules::MutationRules;
use crate::call::config::ParseServices;
use crate::call::grpc::Target;
use crate::config::{At, ConfigError};
use crate::http_filter::BodyNeed;
use crate::matcher::{MetadataMatcher, RegexLimits, Runtime, RuntimeFraction, StringMatcher};
use crate::stream_info::Metadata;

crate::ledger! {
    /// What is not here of the filter.
    pub mod unsupported for "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" {
        typed_metadata_context_namespaces => Warn, "streams and connections have no typed metadata";
        route_typed_metadata_context_namespaces => Warn, "routes have no typed metadata";
        filter_metadata => Warn, "it is for logs, through filter state that is not kept";
        emit_filter_state_stats => Warn, "it is for logs, through filter state that is not kept";
        enforce_response_header_limits => Refuse, "headers added to responses are not limited yet";
        shadow_mode => Refuse, "verdicts that change nothing are not here yet";
        emit_client_span => Warn, "tracing is not here yet";
    }
}

crate::ledger! {
    /// What is not here of what routes say.
    pub mod unsupported_settings for "envoy.extensions.filters.http.ext_authz.v3.CheckSettings" {
        emit_client_span => Warn, "tracing is not here yet";
    }
}

/// How long an answer may take where configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);

/// The settings of a filter.
#[derive(Debug)]
pub struct ExtAuthzConfig {
    /// Who decides.
    pub(super) authority: Authority,
    pub(super) failure_mode_allow: bool,
    pub(super) failure_mode_allow_header_add: bool,
    pub(super) body: Option<BodyRule>,
    /// `encode_raw_headers`
    pub(super) raw_headers: bool,
    pub(super) clear_route_cache: bool,
    pub(super) status_on_error: u16,
    pub(super) validate_mutations: bool,
    pub(super) rules: Option<MutationRules>,
    /// Name spaces of dynamic metadata that the service is told.
    pub(super) metadata: Box<[Box<str>]>,
    /// Name spaces of the route's metadata that it is told.
    pub(super) route_metadata: Box<[Box<str>]>,
    pub(super) enabled: Option<RuntimeFraction>,
    pub(super) enabled_metadata: Option<MetadataMatcher>,
    deny_at_disable: Option<Switch>,
    pub(super) include_peer_certificate: bool,
    pub(super) include_tls_session: bool,
    /// `stat_prefix`
    pub(super) stat_prefix: Box<str>,
    /// Of this proxy: what the node's metadata has under `bootstrap_metadata_labels_key`.
    pub(super) labels: BTreeMap<String, String>,
    /// Headers that the service is told; `None`: all.
    pub(super) allowed_headers: Option<Box<[StringMatcher]>>,
    /// Headers that it is not told.
    pub(super) disallowed_headers: Box<[StringMatcher]>,
    pub(super) charge_cluster: bool,
    pub(super) takes_metadata: bool,
    /// `max_denied_response_body_bytes`; `None`: as long as it is.
    pub(super) max_body: Option<usize>,
}

/// Who decides over requests.
#[derive(Debug)]
pub enum Authority {
    /// `envoy.service.auth.v3.Authorization`
    Grpc(Target),
    /// Whoever answers requests like those it is to decide about.
    Http(HttpService),
}

/// `with_request_body`
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyRule {
    pub(super) need: BodyNeed,
    /// The body is bytes, not text.
    pub(super) as_bytes: bool,
}

impl BodyRule {
    fn parse(proto: proto::BufferSettings, at: At<'_>) -> Result<Self, ConfigError> {
        let proto::BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = proto;
        if max_request_bytes == 0 {
            return Err(at.field("max_request_bytes").error("value must be greater than 0"));
        }
        let need = BodyNeed { bytes: max_request_bytes as usize, partial: allow_partial_message };
        Ok(Self { need, as_bytes: pack_as_bytes })
    }
}

/// A switch that the runtime may turn.
#[derive(Debug)]
struct Switch {
    default: bool,
    key: Box<str>,
}

impl ExtAuthzConfig {
    /// Compiles the settings, for a node with this metadata; `None` if the operator lets a service through that cannot be asked.
    ///
    /// # Errors
    /// In Envoy's words where Envoy would refuse it too; naming the field where only Legate does.
    pub fn parse(
        proto: proto::ExtAuthz,
        at: At<'_>,
        parse: &ParseServices,
        node: &Metadata,
    ) -> Result<Option<Self>, ConfigError> {
        let proto::ExtAuthz {
            transport_api_version,
            failure_mode_allow,
            failure_mode_allow_header_add,
            with_request_body,
            clear_route_cache,
            status_on_error,
            validate_mutations,
            metadata_context_namespaces,
            typed_metadata_context_namespaces,
            route_metadata_context_namespaces,
            route_typed_metadata_context_namespaces,
            filter_enabled,
            filter_enabled_metadata,
            deny_at_disable,
            include_peer_certificate,
            stat_prefix,
            bootstrap_metadata_labels_key,
            allowed_headers,
            disallowed_headers,
            include_tls_session,
            charge_cluster_response_stats,
            encode_raw_headers,
            decoder_header_mutation_rules,
            enable_dynamic_metadata_ingestion,
            filter_metadata,
            emit_filter_state_stats,
            max_denied_response_body_bytes,
            enforce_response_header_limits,
            shadow_mode,
            emit_client_span,
            services,
        } = proto;
        at.unsupported(&unsupported::typed_metadata_context_namespaces, &typed_metadata_context_namespaces)?;
        at.unsupported(
            &unsupported::route_typed_metadata_context_namespaces,
            &route_typed_metadata_context_namespaces,
        )?;
        at.unsupported(&unsupported::filter_metadata, &filter_metadata)?;
        at.unsupported(&unsupported::emit_filter_state_stats, &emit_filter_state_stats)?;
        at.unsupported(&unsupported::enforce_response_header_limits, &enforce_response_header_limits)?;
        at.unsupported(&unsupported::shadow_mode, &shadow_mode)?;
        at.unsupported(&unsupported::emit_client_span, &emit_client_span)?;
        transport_version(transport_api_version, at.field("transport_api_version"))?;
        let list = |name, list: ListStringMatcher| matchers(list, at.field(name), parse.limits);
        let mut allowed_headers = allowed_headers.map(|it| list("allowed_headers", it)).transpose()?;
        let raw_headers = encode_raw_headers;
        let authority = match at.required("services", services)? {
            Services::GrpcService(service) => match parse.grpc(service, DEFAULT_TIMEOUT, at.field("grpc_service"))? {
                Some(target) => Authority::Grpc(target),
                None => return Ok(None),
            },
            Services::HttpService(service) => {
                let here = at.field("http_service");
                let (service, of_service) = HttpService::parse(service, DEFAULT_TIMEOUT, here, parse)?;
                if allowed_headers.is_some() && of_service.is_some() {
                    return Err(at.error("Invalid duplicate configuration for allowed_headers."));
                }
                let allowed = of_service.or(allowed_headers).unwrap_or_default();
                allowed_headers = Some(allowed.into_iter().chain(super::http::always_allowed()).collect());
                Authority::Http(service)
            }
        };
        let of_http = matches!(authority, Authority::Http(_));
        let mut body = with_request_body.map(|it| BodyRule::parse(it, at.field("with_request_body"))).transpose()?;
        if let Some(body) = &mut body {
            // A body is sent as it is: it need not be text.
            body.as_bytes |= of_http;
        }
        let flag = |value: Option<BoolValue>| value.is_none_or(|BoolValue { value }| value);
        let rules = decoder_header_mutation_rules
            .map(|rules| MutationRules::parse(rules, at.field("decoder_header_mutation_rules"), parse.limits));
        let names = |names: Vec<String>| names.into_iter().map(Into::into).collect();
        let status = status_on_error.and_then(|status| u16::try_from(status.code).ok());
        let switch = |RuntimeFeatureFlag { default_value, runtime_key }: RuntimeFeatureFlag| {
            let at = at.field("deny_at_disable");
            let default = at.required("default_value", default_value)?.value;
            Ok::<_, ConfigError>(Switch { default, key: runtime_key.into() })
        };
        Ok(Some(Self {
            authority,
            failure_mode_allow,
            failure_mode_allow_header_add,
            body,
            raw_headers,
            clear_route_cache,
            status_on_error: status.filter(|status| (100..=511).contains(status)).unwrap_or(403),
            validate_mutations,
            rules: rules.transpose()?,
            metadata: names(metadata_context_namespaces),
            route_metadata: names(route_metadata_context_namespaces),
            enabled: filter_enabled.map(|it| RuntimeFraction::parse(it, at.field("filter_enabled"))).transpose()?,
            enabled_metadata: filter_enabled_metadata
                .map(|it| MetadataMatcher::parse(it, at.field("filter_enabled_metadata"), parse.limits))
                .transpose()?,
            deny_at_disable: deny_at_disable.map(switch).transpose()?,
            include_peer_certificate,
            include_tls_session,
            stat_prefix: stat_prefix.into(),
            labels: labels(node, &bootstrap_metadata_labels_key),
            allowed_headers,
            disallowed_headers: disallowed_headers
                .map(|it| list("disallowed_headers", it))
                .transpose()?
                .unwrap_or_default(),
            charge_cluster: flag(charge_cluster_response_stats),
            takes_metadata: flag(enable_dynamic_metadata_ingestion),
            max_body: usize::try_from(max_denied_response_body_bytes).ok().filter(|max| *max > 0),
        }))
    }

    /// Whether requests are refused while the filter is off.
    pub(super) fn denies_while_disabled(&self, runtime: &dyn Runtime) -> bool {
        self.deny_at_disable.as_ref().is_some_and(|switch| runtime.boolean(&switch.key).unwrap_or(switch.default))
    }

    /// `<prefix>ext_authz.`, and the filter's own prefix.
    #[must_use]
    pub fn stats_prefix(&self, prefix: &str) -> String {
        let own = &self.stat_prefix;
        let dot = if own.is_empty() || own.ends_with('.') { "" } else { "." };
        format!("{prefix}ext_authz.{own}{dot}")
    }
}

fn transport_version(version: i32, at: At<'_>) -> Result<(), ConfigError> {
    match core::ApiVersion::try_from(version) {
        Ok(core::ApiVersion::V3) => Ok(()),
        _ => Err(at.error(
            "V2 (and AUTO) xDS transport protocol versions are deprecated in \
             envoy.extensions.filters.http.ext_authz.v3.ExtAuthz: V3 is needed",
        )),
    }
}

/// A list of matchers.
pub(super) fn matchers(
    list: ListStringMatcher,
    at: At<'_>,
    limits: RegexLimits,
) -> Result<Box<[StringMatcher]>, ConfigError> {
    let ListStringMatcher { patterns } = list;
    let here = at.field("patterns");
    patterns.into_iter().enumerate().map(|(n, matcher)| StringMatcher::parse(matcher, here.index(n), limits)).collect()
}

/// The labels under a key of the node's metadata.
fn labels(node: &Metadata, key: &str) -> BTreeMap<String, String> {
    let labels = node.get(key).and_then(serde_json::Value::as_object);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    labels.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// `ExtAuthzPerRoute`
#[derive(Debug)]
pub enum RouteSettings {
    /// The filter lets requests pass.
    Disabled,
    /// `check_settings`
    Check(Box<CheckSettings>),
}

/// What a route says about the question.
#[derive(Debug)]
pub struct CheckSettings {
    pub(super) context_extensions: BTreeMap<String, String>,
    pub(super) without_body: bool,
    pub(super) body: Option<BodyRule>,
    /// Who decides, instead of whom the filter asks.
    pub(super) authority: Option<Authority>,
}

impl RouteSettings {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// As [`ExtAuthzConfig::parse`].
    pub fn parse(proto: proto::ExtAuthzPerRoute, at: At<'_>, parse: &ParseServices) -> Result<Arc<Self>, ConfigError> {
        let proto::ExtAuthzPerRoute { r#override } = proto;
        let settings = match at.required("override", r#override)? {
            Override::Disabled(true) => return Ok(Arc::new(Self::Disabled)),
            Override::Disabled(false) => {
                return Err(at.field("disabled").error("value must equal true"));
            }
            Override::CheckSettings(settings) => settings,
        };
        let at = at.field("check_settings");
        let proto::CheckSettings {
            context_extensions,
            disable_request_body_buffering,
            with_request_body,
            emit_client_span,
            service_override,
        } = settings;
        at.unsupported(&unsupported_settings::emit_client_span, &emit_client_span)?;
        if disable_request_body_buffering && with_request_body.is_some() {
            return Err(at.error(
                "Invalid configuration for check_settings. Only one of disable_request_body_buffering or \
                 with_request_body can be set.",
            ));
        }
        let authority = match service_override {
            None => None,
            Some(ServiceOverride::GrpcService(service)) => {
                parse.grpc(service, DEFAULT_TIMEOUT, at.field("grpc_service"))?.map(Authority::Grpc)
            }
            Some(ServiceOverride::HttpService(service)) => {
                let (service, _) = HttpService::parse(service, DEFAULT_TIMEOUT, at.field("http_service"), parse)?;
                Some(Authority::Http(service))
            }
        };
        Ok(Arc::new(Self::Check(Box::new(CheckSettings {
            context_extensions: context_extensions.into_iter().collect(),
            without_body: disable_request_body_buffering,
            body: with_request_body.map(|it| BodyRule::parse(it, at.field("with_request_body"))).transpose()?,
            authority,
        }))))
    }
}

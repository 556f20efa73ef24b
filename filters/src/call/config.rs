//! Whom filters ask, as configuration says it: `HttpUri` and `GrpcService`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};

use super::grpc::Target;
use super::{RetryRules, Service};
use crate::config::duration::duration;
use crate::config::{At, ConfigError};
use crate::matcher::RegexLimits;
use crate::mutation::{Fields, HeaderMutations, ParseFormat};

crate::ledger! {
    /// What is not here of a service that filters ask.
    pub mod unsupported for "envoy.config.core.v3.GrpcService" {
        google_grpc => Refuse, "filters ask through clusters (envoy_grpc)";
    }
}

/// What reading a filter's services needs.
#[derive(Clone, Copy)]
pub struct ParseServices {
    /// The runtime's limits on regular expressions.
    pub limits: RegexLimits,
    /// Compiles `%COMMAND%` texts.
    pub format: ParseFormat,
    /// Compiles a retry policy; the conditions are those of one that names none.
    pub retry: fn(core::RetryPolicy, &str, At<'_>, RegexLimits) -> Result<RetryRules, ConfigError>,
}

impl ParseServices {
    /// A service that is asked by HTTP. Its URI says nothing: it is the cluster that is asked.
    ///
    /// # Errors
    /// When it names no cluster.
    pub fn http(&self, proto: core::HttpUri, default_timeout: Duration, at: At<'_>) -> Result<Service, ConfigError> {
        let core::HttpUri { uri, timeout, http_upstream_type } = proto;
        if uri.is_empty() {
            return Err(at.field("uri").error("value length must be at least 1 characters"));
        }
        let Some(core::http_uri::HttpUpstreamType::Cluster(cluster)) = http_upstream_type else {
            return Err(at.field("cluster").error("is required"));
        };
        if cluster.is_empty() {
            return Err(at.field("cluster").error("value length must be at least 1 characters"));
        }
        let timeout = timeout.map(|timeout| duration(&at.field("timeout"), &timeout)).transpose()?;
        let timeout = Some(timeout.unwrap_or(default_timeout));
        Ok(Service { cluster: cluster.into(), timeout, retry: None, signed: true })
    }

    /// A service that is asked by gRPC; `None` if the operator lets one through that cannot be asked.
    ///
    /// # Errors
    /// When it has no target, or one that cannot be asked.
    pub fn grpc(
        &self,
        proto: core::GrpcService,
        default_timeout: Duration,
        at: At<'_>,
    ) -> Result<Option<Target>, ConfigError> {
        // Streams are established again by it; a single call is no stream.
        let core::GrpcService { timeout, initial_metadata, retry_policy: _, target_specifier } = proto;
        let target = match at.required("target_specifier", target_specifier)? {
            TargetSpecifier::EnvoyGrpc(target) => target,
            TargetSpecifier::GoogleGrpc(_) => {
                at.field("google_grpc").refuse_or_warn(&unsupported::google_grpc)?;
                return Ok(None);
            }
        };
        let EnvoyGrpc { cluster_name, authority, retry_policy, max_receive_message_length, skip_envoy_headers } =
            target;
        let here = at.field("envoy_grpc");
        if cluster_name.is_empty() {
            return Err(here.field("cluster_name").error("value length must be at least 1 characters"));
        }
        let timeout = timeout.map(|timeout| duration(&at.field("timeout"), &timeout)).transpose()?;
        let retry =
            retry_policy.map(|policy| (self.retry)(policy, "", here.field("retry_policy"), self.limits)).transpose()?;
        let overwrite = core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd;
        let metadata = initial_metadata.into_iter().map(|header| core::HeaderValueOption {
            header: Some(header),
            append_action: overwrite.into(),
            ..core::HeaderValueOption::default()
        });
        let fields = Fields { add: "initial_metadata", remove: "" };
        Ok(Some(Target {
            authority: if authority.is_empty() { cluster_name.clone() } else { authority }.into(),
            service: Service {
                cluster: cluster_name.into(),
                timeout: Some(timeout.unwrap_or(default_timeout)),
                retry,
                signed: !skip_envoy_headers,
            },
            metadata: HeaderMutations::parse(metadata.collect(), Vec::new(), at, fields, self.format)?,
            max_message: max_receive_message_length
                .and_then(|length| usize::try_from(length.value).ok())
                .filter(|length| *length > 0),
        }))
    }
}

//! `envoy.config.core.v3.ConfigSource` and `ApiConfigSource`: where resources come from.

pub mod google;

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use filters::config::{At, ConfigError, IsSet as _};
use filters::ledger;
use xds_client::{
    BackoffConfig, FileSource, GrpcService, GrpcSource, Mode, RateLimit, RestSource, SourceConfig, Target,
};

use super::cluster::duration;

ledger! {
    /// What is not implemented.
    pub mod config_source_unsupported for "envoy.config.core.v3.ConfigSource" {
    authorities => Warn, "resource names are not xdstp:// URLs, for which alone authorities count";
} }

ledger! {
    /// What is not implemented.
    pub mod api_config_source_unsupported for "envoy.config.core.v3.ApiConfigSource" {
    config_validators => Refuse, "a validator may forbid updates, and none is built in";
} }

ledger! {
    /// What is not implemented.
    pub mod path_unsupported for "envoy.config.core.v3.PathConfigSource" {
    poll_interval => Warn, "changes are noticed by watching the file, not by polling";
} }

ledger! {
    /// What is not implemented.
    pub mod grpc_service_unsupported for "envoy.config.core.v3.GrpcService" {
    retry_policy => Warn, "streams to a control plane are retried for ever, with the back-off of envoy_grpc.retry_policy";
} }

ledger! {
    /// What is not implemented.
    pub mod retry_unsupported for "envoy.config.core.v3.RetryPolicy" {
    num_retries => Warn, "streams to a control plane are retried for ever";
    retry_on => Warn, "streams to a control plane are retried whatever ended them";
    retry_priority => Warn, "streams to a control plane are retried on any host";
    retry_host_predicate => Warn, "streams to a control plane are retried on any host";
    host_selection_retry_max_attempts => Warn, "streams to a control plane are retried on any host";
} }

/// Where one kind of resource comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigSource {
    /// The source itself.
    pub source: SourceConfig,
    /// How long start-up or warming waits for the first answer; `None` for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Whether the file of a source has to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// It has to.
    Exist,
    /// Not looked at: `--mode validate` does not open listener sources, in Envoy either.
    MayCome,
}

/// Understands a `ConfigSource`. Its `resource_api_version` does not matter: there is one left.
///
/// # Errors
/// When it names no source, an unsupported one, or transport version 2.
#[expect(deprecated, reason = "the deprecated way to name a file is one")]
pub fn parse(at: At<'_>, proto: core::ConfigSource, files: Files) -> Result<ConfigSource, ConfigError> {
    let core::ConfigSource { authorities, initial_fetch_timeout, resource_api_version: _, config_source_specifier } =
        proto;
    at.unsupported(&config_source_unsupported::authorities, &authorities)?;
    let timeout = match duration(at.field("initial_fetch_timeout"), initial_fetch_timeout)? {
        None => Some(Duration::from_secs(15)),
        Some(Duration::ZERO) => None,
        some => some,
    };
    let source = match config_source_specifier {
        Some(ConfigSourceSpecifier::Path(path)) => {
            existing_file(at.field("path"), &path, files)?;
            SourceConfig::File(FileSource::new(path))
        }
        Some(ConfigSourceSpecifier::PathConfigSource(file)) => {
            file_source(at.field("path_config_source"), file, files)?
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            let at = at.field("api_config_source");
            match ApiType::try_from(api.api_type) {
                // They are for collections that xdstp:// URLs name.
                Ok(kind @ (ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc)) => {
                    let name = kind.as_str_name();
                    return Err(at.field("api_type").error(format_args!("Unsupported config source {name}")));
                }
                _ => api_source(at, api)?,
            }
        }
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => SourceConfig::Ads,
        Some(ConfigSourceSpecifier::Self_(_)) | None => {
            return Err(at.error("Missing config source specifier in envoy::config::core::v3::ConfigSource"));
        }
    };
    Ok(ConfigSource { source, initial_fetch_timeout: timeout })
}

/// `dynamic_resources.ads_config`: the process's aggregated stream.
///
/// # Errors
/// When it is no valid gRPC source.
pub fn ads(at: At<'_>, proto: core::ApiConfigSource) -> Result<GrpcSource, ConfigError> {
    match api_source(at, proto)? {
        SourceConfig::Grpc(source) if !source.aggregated => Ok(GrpcSource { aggregated: true, ..source }),
        _ => Err(at
            .field("api_type")
            .error("envoy.config.core.v3.ApiConfigSource type must be of non-aggregated gRPC: GRPC or DELTA_GRPC")),
    }
}

#[expect(deprecated, reason = "the version that is refused")]
fn refuse_v2(at: At<'_>, version: i32) -> Result<(), ConfigError> {
    match core::ApiVersion::try_from(version) {
        Ok(core::ApiVersion::V3 | core::ApiVersion::Auto) => Ok(()),
        Ok(core::ApiVersion::V2) => Err(at.error(
            "V2 xDS transport protocol version is deprecated in envoy.config.core.v3.ApiConfigSource: V3 is needed",
        )),
        Err(_) => Err(at.error("value must be one of the defined enum values")),
    }
}

fn existing_file(at: At<'_>, path: &str, files: Files) -> Result<(), ConfigError> {
    if files == Files::MayCome || std::path::Path::new(path).exists() {
        return Ok(());
    }
    Err(at.error(format_args!("paths must refer to an existing path in the system: '{path}' does not exist")))
}

fn file_source(at: At<'_>, proto: core::PathConfigSource, files: Files) -> Result<SourceConfig, ConfigError> {
    let core::PathConfigSource { path, watched_directory, poll_interval } = proto;
    at.unsupported(&path_unsupported::poll_interval, &poll_interval)?;
    existing_file(at.field("path"), &path, files)?;
    let mut source = FileSource::new(path);
    if let Some(core::WatchedDirectory { path, watch_modify }) = watched_directory {
        source.watch_modify = watch_modify;
        source.watched_directory = (!path.is_empty()).then(|| path.into());
    }
    Ok(SourceConfig::File(source))
}

#[expect(deprecated, reason = "what is deprecated is refused by name")]
fn api_source(at: At<'_>, proto: core::ApiConfigSource) -> Result<SourceConfig, ConfigError> {
    let core::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = proto;
    at.unsupported(&api_config_source_unsupported::config_validators, &config_validators)?;
    refuse_v2(at.field("transport_api_version"), transport_api_version)?;
    let kind = ApiType::try_from(api_type)
        .map_err(|_| at.field("api_type").error("value must be one of the defined enum values"))?;
    let mode = match kind {
        ApiType::Grpc | ApiType::AggregatedGrpc => Mode::StateOfTheWorld,
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => Mode::Delta,
        ApiType::Rest => {
            let refresh_delay = duration(at.field("refresh_delay"), refresh_delay)?;
            let request_timeout = duration(at.field("request_timeout"), request_timeout)?;
            let [cluster]: [String; 1] = cluster_names
                .try_into()
                .map_err(|_| at.field("cluster_names").error("REST must have a singleton cluster name specified"))?;
            if grpc_services.is_set() {
                return Err(at.field("grpc_services").error("REST cannot have gRPC services specified"));
            }
            let delay = at.required("refresh_delay", refresh_delay)?;
            let mut source = RestSource::new(Target::Cluster(cluster), delay);
            if let Some(timeout) = request_timeout {
                source.request_timeout = timeout;
            }
            return Ok(SourceConfig::Rest(source));
        }
        ApiType::DeprecatedAndUnavailableDoNotUse => {
            return Err(at.field("api_type").error("this API type is not available"));
        }
    };
    if !cluster_names.is_empty() {
        return Err(at.field("cluster_names").error("gRPC must not have a cluster name specified"));
    }
    let [service]: [core::GrpcService; 1] = grpc_services
        .try_into()
        .map_err(|_| at.field("grpc_services").error("gRPC must have a single gRPC service specified"))?;
    let services = at.field("grpc_services");
    let (service, backoff) = grpc_service(services.index(0), service)?;
    let mut source = GrpcSource::new(
        mode,
        kind == ApiType::AggregatedGrpc || kind == ApiType::AggregatedDeltaGrpc,
        Target::Cluster(String::new()),
    );
    source.service = service;
    source.backoff = backoff;
    source.node_on_first_message_only = set_node_on_first_message_only;
    source.rate_limit =
        rate_limit_settings.map(|limit| rate_limit(at.field("rate_limit_settings"), limit)).transpose()?;
    Ok(SourceConfig::Grpc(source))
}

fn rate_limit(at: At<'_>, proto: core::RateLimitSettings) -> Result<RateLimit, ConfigError> {
    let core::RateLimitSettings { max_tokens, fill_rate } = proto;
    let default = RateLimit::default();
    let fill_rate = fill_rate.map_or(default.fill_rate, |rate| rate.value);
    if !(fill_rate.is_finite() && fill_rate > 0.0) {
        return Err(at.field("fill_rate").error("value must be greater than 0"));
    }
    Ok(RateLimit { max_tokens: max_tokens.map_or(default.max_tokens, |tokens| tokens.value), fill_rate })
}

/// A gRPC service, and how its streams are retried.
///
/// # Errors
/// When it has no target or an invalid one.
pub fn grpc_service(at: At<'_>, proto: core::GrpcService) -> Result<(GrpcService, BackoffConfig), ConfigError> {
    // A stream to a control plane has no end, so Envoy too leaves its `timeout` alone.
    let core::GrpcService { timeout: _, initial_metadata, retry_policy, target_specifier } = proto;
    let (mut service, backoff) = match at.required("target_specifier", target_specifier)? {
        TargetSpecifier::EnvoyGrpc(envoy) => envoy_grpc(at.field("envoy_grpc"), envoy)?,
        TargetSpecifier::GoogleGrpc(google) => google::parse(at.field("google_grpc"), google)?,
    };
    at.unsupported(&grpc_service_unsupported::retry_policy, &retry_policy)?;
    let metadata = at.field("initial_metadata");
    for (index, header) in initial_metadata.into_iter().enumerate() {
        let at = metadata.index(index);
        let core::HeaderValue { key, value, raw_value } = header;
        http::HeaderName::try_from(key.as_str()).map_err(|_| at.field("key").error("no valid header name"))?;
        let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
        service.initial_metadata.push((key, Bytes::from(value)));
    }
    Ok((service, backoff))
}

fn envoy_grpc(at: At<'_>, proto: EnvoyGrpc) -> Result<(GrpcService, BackoffConfig), ConfigError> {
    let EnvoyGrpc { cluster_name, authority, retry_policy, max_receive_message_length, skip_envoy_headers } = proto;
    if cluster_name.is_empty() {
        return Err(at.field("cluster_name").error("value length must be at least 1 characters"));
    }
    let mut service = GrpcService::new(Target::Cluster(cluster_name));
    service.authority = (!authority.is_empty()).then_some(authority);
    service.skip_envoy_headers = skip_envoy_headers;
    service.max_receive_message_length =
        max_receive_message_length.and_then(|v| usize::try_from(v.value).ok()).filter(|length| *length > 0);
    let backoff = match retry_policy {
        Some(policy) => retry_back_off(at.field("retry_policy"), policy)?,
        None => BackoffConfig::default(),
    };
    Ok((service, backoff))
}

fn retry_back_off(at: At<'_>, proto: core::RetryPolicy) -> Result<BackoffConfig, ConfigError> {
    let core::RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = proto;
    at.unsupported(&retry_unsupported::num_retries, &num_retries)?;
    at.unsupported(&retry_unsupported::retry_on, &retry_on)?;
    at.unsupported(&retry_unsupported::retry_priority, &retry_priority)?;
    at.unsupported(&retry_unsupported::retry_host_predicate, &retry_host_predicate)?;
    at.unsupported(&retry_unsupported::host_selection_retry_max_attempts, &host_selection_retry_max_attempts)?;
    let Some(core::BackoffStrategy { base_interval, max_interval }) = retry_back_off else {
        return Ok(BackoffConfig::default());
    };
    let at = at.field("retry_back_off");
    let base = at.required("base_interval", duration(at.field("base_interval"), base_interval)?)?;
    let max = match duration(at.field("max_interval"), max_interval)? {
        Some(max) if max < base => {
            return Err(at
                .field("max_interval")
                .error("max_interval must be greater than or equal to the base_interval"));
        }
        Some(max) => max,
        None => base.saturating_mul(10),
    };
    Ok(BackoffConfig { base, max })
}

#[cfg(test)]
mod tests;

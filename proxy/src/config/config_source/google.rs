//! `envoy.config.core.v3.GrpcService.GoogleGrpc`: a control plane by its address, with channel and call credentials.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::google_grpc::call_credentials::CredentialSpecifier as CallSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::google_grpc::call_credentials::MetadataCredentialsFromPlugin;
use envoy_types::pb::envoy::config::core::v3::grpc_service::google_grpc::call_credentials::metadata_credentials_from_plugin::ConfigType;
use envoy_types::pb::envoy::config::core::v3::grpc_service::google_grpc::channel_args::value::ValueSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::google_grpc::channel_credentials::CredentialSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{GoogleGrpc, google_grpc};
use envoy_types::pb::envoy::config::grpc_credential::v3::FileBasedMetadataConfig;
use filters::config::{At, ConfigError};
use filters::ledger;
use prost::Message as _;
use xds_client::{Address, BackoffConfig, CallCredentials, GrpcService, Keepalive, Security, Target};

use crate::config::filter_chain::unpack;
use crate::control::secure;

ledger! {
    /// What is not implemented.
    pub mod google_unsupported for "envoy.config.core.v3.GrpcService.GoogleGrpc" {
    channel_credentials_plugin => Refuse, "credentials are those of channel_credentials";
    call_credentials_plugin => Refuse, "credentials are those of call_credentials";
    config => Warn, "it is for credential factories that are not built in";
    per_stream_buffer_limit_bytes => Warn, "one request is in flight at a time, others are merged";
    channel_args => Warn, "this channel argument has no meaning here";
} }

ledger! {
    /// What is not implemented.
    pub mod channel_unsupported for "envoy.config.core.v3.GrpcService.GoogleGrpc.ChannelCredentials" {
    google_default => Refuse, "tokens are not fetched from Google; ssl_credentials without root_certs trusts the system's roots";
} }

ledger! {
    /// What is not implemented.
    pub mod call_unsupported for "envoy.config.core.v3.GrpcService.GoogleGrpc.CallCredentials" {
    google_compute_engine => Refuse, "tokens are not fetched from Google";
    google_refresh_token => Refuse, "tokens are not fetched from Google";
    service_account_jwt_access => Refuse, "tokens are not made for Google's service accounts";
    google_iam => Refuse, "tokens are not made for Google's service accounts";
    sts_service => Refuse, "tokens are not exchanged with a security token service";
} }

/// Factories of credentials (`credentials_factory_name`) and plugins have the same names.
const DEFAULT: &str = "envoy.grpc_credentials.default";
const AWS_IAM: &str = "envoy.grpc_credentials.aws_iam";
const FILE: &str = "envoy.grpc_credentials.file_based_metadata";

/// `envoy.config.grpc_credential.v3.AwsIamConfig`, which the crate of Envoy's types does not have.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct AwsIamConfig {
    #[prost(string, tag = "1")]
    service_name: String,
    #[prost(string, tag = "2")]
    region: String,
}

/// A service at an address, and how its streams are retried. What credentials are made of is read when a connection is
/// made, so that files may come late and change.
///
/// # Errors
/// When the address is not one, or for credentials that are not there.
pub(super) fn parse(at: At<'_>, proto: GoogleGrpc) -> Result<(GrpcService, BackoffConfig), ConfigError> {
    // `stat_prefix` names statistics of Google's library, which is not used.
    let GoogleGrpc {
        target_uri,
        channel_credentials,
        channel_credentials_plugin,
        call_credentials,
        call_credentials_plugin,
        stat_prefix: _,
        credentials_factory_name,
        config,
        per_stream_buffer_limit_bytes,
        channel_args,
    } = proto;
    let address: Address = target_uri.parse().map_err(|error| at.field("target_uri").error(error))?;
    at.unsupported(&google_unsupported::channel_credentials_plugin, &channel_credentials_plugin)?;
    at.unsupported(&google_unsupported::call_credentials_plugin, &call_credentials_plugin)?;
    at.unsupported(&google_unsupported::config, &config)?;
    at.unsupported(&google_unsupported::per_stream_buffer_limit_bytes, &per_stream_buffer_limit_bytes)?;
    let mut service = GrpcService::new(Target::Address(address.clone()));
    service.skip_envoy_headers = true;
    let mut backoff = BackoffConfig::default();
    let mut override_name = None;
    if let Some(google_grpc::ChannelArgs { args }) = channel_args {
        override_name = arguments(at.field("channel_args").field("args"), args, &mut service, &mut backoff)?;
    }
    let local = match channel_credentials.and_then(|credentials| credentials.credential_specifier) {
        None => false,
        // They are plaintext over Unix sockets and loopback, which is what they are for.
        Some(CredentialSpecifier::LocalCredentials(google_grpc::GoogleLocalCredentials {})) => true,
        Some(CredentialSpecifier::GoogleDefault(_)) => {
            at.field("channel_credentials").refuse_or_warn(&channel_unsupported::google_default)?;
            service.target = secured(address, google_grpc::SslCredentials::default(), override_name);
            false
        }
        Some(CredentialSpecifier::SslCredentials(credentials)) => {
            service.target = secured(address, credentials, override_name);
            false
        }
    };
    let factory_at = at.field("credentials_factory_name");
    let factory = match credentials_factory_name.as_str() {
        "" => DEFAULT,
        name @ (DEFAULT | AWS_IAM | FILE) => name,
        name => return Err(factory_at.error(format_args!("unknown google grpc credential factory '{name}'"))),
    };
    let list = at.field("call_credentials");
    for (index, google_grpc::CallCredentials { credential_specifier }) in call_credentials.into_iter().enumerate() {
        let at = list.index(index);
        call(&at, factory, at.required("credential_specifier", credential_specifier)?, &mut service)?;
        if !local && !matches!(service.target, Target::Secure(..)) {
            return Err(at.error("call credentials need a channel that is encrypted, or local"));
        }
    }
    Ok((service, backoff))
}

/// An address behind TLS.
fn secured(address: Address, credentials: google_grpc::SslCredentials, name: Option<String>) -> Target {
    let google_grpc::SslCredentials { root_certs, private_key, cert_chain } = credentials;
    let mut context = secure::context_of(root_certs, cert_chain, private_key);
    context.sni = name.unwrap_or_else(|| match &address {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(_) => "localhost".to_owned(),
    });
    Target::Secure(address, Security(Bytes::from(context.encode_to_vec())))
}

/// One of the call credentials.
fn call(at: &At<'_>, factory: &str, proto: CallSpecifier, service: &mut GrpcService) -> Result<(), ConfigError> {
    match proto {
        CallSpecifier::AccessToken(token) => {
            let value = Bytes::from(format!("Bearer {token}"));
            http::HeaderValue::from_bytes(&value)
                .map_err(|_| at.field("access_token").error("the token is no valid header value"))?;
            service.initial_metadata.push(("authorization".to_owned(), value));
            Ok(())
        }
        CallSpecifier::FromPlugin(plugin) => {
            service.credentials.push(plugged(&at.field("from_plugin"), factory, plugin)?);
            Ok(())
        }
        CallSpecifier::GoogleComputeEngine(_) => at.refuse_or_warn(&call_unsupported::google_compute_engine),
        CallSpecifier::GoogleRefreshToken(_) => at.refuse_or_warn(&call_unsupported::google_refresh_token),
        CallSpecifier::ServiceAccountJwtAccess(_) => at.refuse_or_warn(&call_unsupported::service_account_jwt_access),
        CallSpecifier::GoogleIam(_) => at.refuse_or_warn(&call_unsupported::google_iam),
        CallSpecifier::StsService(_) => at.refuse_or_warn(&call_unsupported::sts_service),
    }
}

fn plugged(at: &At<'_>, factory: &str, plugin: MetadataCredentialsFromPlugin) -> Result<CallCredentials, ConfigError> {
    let MetadataCredentialsFromPlugin { name, config_type } = plugin;
    if name != factory {
        let message = format_args!("'{name}' is for the credentials factory of that name, not for '{factory}'");
        return Err(at.field("name").error(message));
    }
    let config_at = at.field("typed_config");
    let ConfigType::TypedConfig(any) = at.required("typed_config", config_type)?;
    match name.as_str() {
        AWS_IAM => {
            let AwsIamConfig { service_name, region } = unpack(&config_at, &any)?;
            if service_name.is_empty() {
                return Err(config_at.field("service_name").error("value length must be at least 1 characters"));
            }
            Ok(CallCredentials::AwsIam { service: service_name, region })
        }
        FILE => {
            let FileBasedMetadataConfig { secret_data, header_key, header_prefix } = unpack(&config_at, &any)?;
            let data_at = config_at.field("secret_data");
            let source = config_at.required("secret_data", secret_data)?;
            let Some(Specifier::Filename(path)) = source.specifier else {
                return Err(data_at.error("the secret has to be in a file"));
            };
            let header = if header_key.is_empty() { "authorization".to_owned() } else { header_key };
            Ok(CallCredentials::File { path: path.into(), header, prefix: header_prefix })
        }
        _ => Err(at.field("name").error(format_args!("'{name}' makes no metadata"))),
    }
}

/// The channel arguments that mean something for one HTTP/2 connection; others are warned about. Returns the name that the
/// server's certificate is to have instead of the target's.
fn arguments(
    at: At<'_>,
    args: std::collections::HashMap<String, google_grpc::channel_args::Value>,
    service: &mut GrpcService,
    backoff: &mut BackoffConfig,
) -> Result<Option<String>, ConfigError> {
    let mut override_name = None;
    let mut keepalive = Keepalive { interval: Duration::MAX, timeout: Duration::from_secs(20), while_idle: false };
    for (name, google_grpc::channel_args::Value { value_specifier }) in args {
        let at = at.key(&name);
        let millis = |value: i64| Duration::from_millis(u64::try_from(value).unwrap_or(0));
        match (name.as_str(), value_specifier) {
            ("grpc.keepalive_time_ms", Some(ValueSpecifier::IntValue(value))) if value > 0 => {
                keepalive.interval = millis(value)
            }
            ("grpc.keepalive_timeout_ms", Some(ValueSpecifier::IntValue(value))) => keepalive.timeout = millis(value),
            ("grpc.keepalive_permit_without_calls", Some(ValueSpecifier::IntValue(value))) => {
                keepalive.while_idle = value != 0
            }
            ("grpc.initial_reconnect_backoff_ms", Some(ValueSpecifier::IntValue(value))) if value > 0 => {
                backoff.base = millis(value);
                backoff.max = backoff.max.max(backoff.base);
            }
            ("grpc.max_reconnect_backoff_ms", Some(ValueSpecifier::IntValue(value))) if value > 0 => {
                backoff.max = millis(value)
            }
            ("grpc.max_receive_message_length", Some(ValueSpecifier::IntValue(value))) => {
                // Negative means without a limit.
                service.max_receive_message_length = usize::try_from(value).ok();
            }
            ("grpc.default_authority", Some(ValueSpecifier::StringValue(value))) => service.authority = Some(value),
            ("grpc.ssl_target_name_override", Some(ValueSpecifier::StringValue(value))) => {
                service.authority.get_or_insert_with(|| value.clone());
                override_name = Some(value);
            }
            // These are for servers, or bound what our client never does (pings without data).
            (
                "grpc.http2.max_pings_without_data"
                | "grpc.max_connection_age_ms"
                | "grpc.max_connection_age_grace_ms"
                | "grpc.min_reconnect_backoff_ms"
                | "grpc.http2.min_time_between_pings_ms",
                Some(_),
            ) => {}
            (_, None) => return Err(at.error("value is required")),
            _ => at.refuse_or_warn(&google_unsupported::channel_args)?,
        }
    }
    if keepalive.interval != Duration::MAX {
        service.keepalive = Some(keepalive);
    }
    Ok(override_name)
}

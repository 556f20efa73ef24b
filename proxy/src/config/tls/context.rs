//! `DownstreamTlsContext`, `UpstreamTlsContext` and what they have in common.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::duration::duration;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::matcher::RegexLimits;
use proto::common_tls_context::ValidationContextType;
use proto::tls_parameters::TlsProtocol;

use super::parameters::{self, Versions};
use super::{certificate, key_log, named, ticket_keys, validation};
use crate::tls::client::{ClientContext, UpstreamTls};
use crate::tls::context::{CertificateSource, CommonTls, ValidationSource};
use crate::tls::secret::SecretKind;
use crate::tls::server::{DownstreamTls, ServerContext, Tickets};

ledger! {
    /// What is not implemented.
    pub mod common_unsupported for "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        tls_certificate_provider_instance => Refuse, "no certificate provider is built in";
        custom_tls_certificate_selector => Refuse, "certificates are selected by server name and key only";
        tls_certificate_certificate_provider => Refuse, "no certificate provider is built in";
        tls_certificate_certificate_provider_instance => Refuse, "no certificate provider is built in";
        custom_handshaker => Refuse, "handshakes are made by rustls only";
        validation_context_certificate_provider => Refuse, "no certificate provider is built in";
        validation_context_certificate_provider_instance => Refuse, "no certificate provider is built in";
    }
}

ledger! {
    /// What is not implemented.
    pub mod downstream_unsupported for "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        require_sni => Warn, "Envoy does not look at it either";
    }
}

ledger! {
    /// What is not implemented.
    pub mod upstream_unsupported for "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" {
        allow_renegotiation => Warn, "sessions are never renegotiated, as servers have stopped to want";
    }
}

/// Parses a downstream context.
///
/// # Errors
/// When something is not valid, not implemented, or does not go together.
pub fn downstream(
    at: &At<'_>,
    proto: proto::DownstreamTlsContext,
    limits: RegexLimits,
) -> Result<Arc<ServerContext>, ConfigError> {
    let proto::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = proto;
    use proto::downstream_tls_context::SessionTicketKeysType as Keys;
    at.unsupported(&downstream_unsupported::require_sni, &require_sni)?;
    let common_at = at.field("common_tls_context");
    let defaults = Versions { least: TlsProtocol::TlSv12, most: TlsProtocol::TlSv13 };
    let common = common(&common_at, common_tls_context.unwrap_or_default(), defaults, limits)?;
    if common.certificates.is_empty() {
        return Err(common_at.field("tls_certificates").error("No TLS certificates found for server context"));
    }
    let tickets = match session_ticket_keys_type {
        None | Some(Keys::DisableStatelessSessionResumption(false)) => Tickets::Own,
        Some(Keys::DisableStatelessSessionResumption(true)) => Tickets::Disabled,
        Some(Keys::SessionTicketKeys(keys)) => {
            Tickets::Here(ticket_keys::parse(&at.field("session_ticket_keys"), keys)?)
        }
        Some(Keys::SessionTicketKeysSdsSecretConfig(name)) => {
            let at = at.field("session_ticket_keys_sds_secret_config");
            Tickets::Named(named::parse(&at, name, SecretKind::TicketKeys)?.into())
        }
    };
    let timeout_at = at.field("session_timeout");
    let session_timeout = match session_timeout {
        Some(timeout) => duration(&timeout_at, &timeout)?,
        None => Duration::from_secs(7200),
    };
    let config = DownstreamTls {
        common,
        require_client_certificate: require_client_certificate.is_some_and(|it| it.value),
        tickets,
        forget_sessions: disable_stateful_session_resumption,
        session_timeout,
        full_scan: full_scan_certs_on_sni_mismatch.is_some_and(|it| it.value),
        prefer_client_ciphers,
        ocsp_policy: proto::downstream_tls_context::OcspStaplePolicy::try_from(ocsp_staple_policy)
            .map_err(|_| at.field("ocsp_staple_policy").error("value must be one of the defined enum values"))?,
    };
    ServerContext::new(config).map_err(|error| at.error(error))
}

/// Parses an upstream context.
///
/// # Errors
/// When something is not valid, not implemented, or does not go together.
pub fn upstream(
    at: &At<'_>,
    proto: proto::UpstreamTlsContext,
    limits: RegexLimits,
) -> Result<Arc<ClientContext>, ConfigError> {
    #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
    let proto::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage: _, // Key usage is always enforced, in Envoy 1.40 as well.
    } = proto;
    at.unsupported(&upstream_unsupported::allow_renegotiation, &allow_renegotiation)?;
    if sni.len() > 255 {
        return Err(at.field("sni").error("value length must be at most 255 bytes"));
    }
    let common_at = at.field("common_tls_context");
    let defaults = Versions { least: TlsProtocol::TlSv12, most: TlsProtocol::TlSv12 };
    let common = common(&common_at, common_tls_context.unwrap_or_default(), defaults, limits)?;
    if common.certificates.len() > 1 {
        let message = "Multiple TLS certificates are not supported for client contexts";
        return Err(common_at.field("tls_certificates").error(message));
    }
    let config = UpstreamTls {
        common,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        max_session_keys: max_session_keys.map_or(1, |it| it.value as usize),
    };
    ClientContext::new(config).map_err(|error| at.error(error))
}

fn common(
    at: &At<'_>,
    proto: proto::CommonTlsContext,
    defaults: Versions,
    limits: RegexLimits,
) -> Result<CommonTls, ConfigError> {
    #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
    let proto::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = proto;
    at.unsupported(&common_unsupported::tls_certificate_provider_instance, &tls_certificate_provider_instance)?;
    at.unsupported(&common_unsupported::custom_tls_certificate_selector, &custom_tls_certificate_selector)?;
    at.unsupported(&common_unsupported::tls_certificate_certificate_provider, &tls_certificate_certificate_provider)?;
    at.unsupported(
        &common_unsupported::tls_certificate_certificate_provider_instance,
        &tls_certificate_certificate_provider_instance,
    )?;
    at.unsupported(&common_unsupported::custom_handshaker, &custom_handshaker)?;
    let list = at.field("tls_certificates");
    let by_name = at.field("tls_certificate_sds_secret_configs");
    if !tls_certificates.is_empty() && !tls_certificate_sds_secret_configs.is_empty() {
        return Err(by_name.error("certificates are either here (tls_certificates) or found by name, not both"));
    }
    let here = tls_certificates
        .into_iter()
        .enumerate()
        .map(|(index, certificate)| certificate::parse(&list.index(index), certificate).map(CertificateSource::Here));
    let named = tls_certificate_sds_secret_configs.into_iter().enumerate().map(|(index, name)| {
        named::parse(&by_name.index(index), name, SecretKind::Certificate).map(|it| CertificateSource::Named(it.into()))
    });
    let certificates = here.chain(named).collect::<Result<_, _>>()?;
    let parameters = parameters::parse(&at.field("tls_params"), tls_params.unwrap_or_default(), defaults)?;
    let list = at.field("alpn_protocols");
    for (index, protocol) in alpn_protocols.iter().enumerate() {
        if protocol.is_empty() || protocol.len() > 255 {
            return Err(list.index(index).error("a protocol has a name of 1 to 255 bytes"));
        }
    }
    Ok(CommonTls {
        versions: parameters.versions,
        suites: parameters.suites,
        groups: parameters.groups,
        schemes: parameters.schemes,
        certificates,
        validation: validation_of(at, validation_context_type, limits)?,
        // One entry may hold several, in the form the wire has them separated by commas.
        alpn: alpn_protocols.iter().flat_map(|it| it.split(',')).map(|it| it.as_bytes().to_vec()).collect(),
        key_log: key_log.map(|log| key_log::parse(&at.field("key_log"), log)).transpose()?,
        limits,
    })
}

fn validation_of(
    at: &At<'_>,
    proto: Option<ValidationContextType>,
    limits: RegexLimits,
) -> Result<Option<ValidationSource>, ConfigError> {
    #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
    Ok(match proto {
        None => None,
        Some(ValidationContextType::ValidationContext(context)) => {
            let at = at.field("validation_context");
            Some(ValidationSource::Here(validation::parse(&at, context, limits)?))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(name)) => {
            let at = at.field("validation_context_sds_secret_config");
            Some(ValidationSource::Named(named::parse(&at, name, SecretKind::Validation)?))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let at = at.field("combined_validation_context");
            let proto::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = combined;
            at.unsupported(
                &common_unsupported::validation_context_certificate_provider,
                &validation_context_certificate_provider,
            )?;
            at.unsupported(
                &common_unsupported::validation_context_certificate_provider_instance,
                &validation_context_certificate_provider_instance,
            )?;
            let default = at.required("default_validation_context", default_validation_context)?;
            let name = at.required("validation_context_sds_secret_config", validation_context_sds_secret_config)?;
            // What is wrong with the default is wrong now, not when the secret comes.
            let default_at = at.field("default_validation_context");
            validation::check_default(&default_at, default.clone(), limits)?;
            let name_at = at.field("validation_context_sds_secret_config");
            let dynamic = named::parse(&name_at, name, SecretKind::Validation)?;
            Some(ValidationSource::Combined { default: Box::new(default), dynamic })
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(provider)) => {
            at.unsupported(&common_unsupported::validation_context_certificate_provider, &Some(provider))?;
            None
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(provider)) => {
            at.unsupported(&common_unsupported::validation_context_certificate_provider_instance, &Some(provider))?;
            None
        }
    })
}

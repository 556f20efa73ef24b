//! `envoy.extensions.transport_sockets.tls.v3.Secret`.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use filters::config::{At, ConfigError};
use filters::matcher::RegexLimits;

use super::{certificate, ticket_keys, validation};
use crate::tls::secret::{Secret, SecretKind};

/// What kind of secret it is; `None` if it says nothing.
#[must_use]
pub const fn kind(proto: &proto::Secret) -> Option<SecretKind> {
    Some(match &proto.r#type {
        Some(Type::TlsCertificate(_)) => SecretKind::Certificate,
        Some(Type::ValidationContext(_)) => SecretKind::Validation,
        Some(Type::SessionTicketKeys(_)) => SecretKind::TicketKeys,
        Some(Type::GenericSecret(_)) => SecretKind::Generic,
        None => return None,
    })
}

/// Reads a secret. What it is made of is called by its name in statistics.
///
/// # Errors
/// Of what it is, or when it is nothing.
pub fn parse(at: &At<'_>, proto: proto::Secret, limits: RegexLimits) -> Result<Secret, ConfigError> {
    let proto::Secret { name, r#type } = proto;
    Ok(match r#type {
        Some(Type::TlsCertificate(it)) => {
            Secret::Certificate(Arc::new(certificate::read(&at.field("tls_certificate"), it, Some(&name))?))
        }
        Some(Type::ValidationContext(it)) => {
            Secret::Validation(Arc::new(validation::read(&at.field("validation_context"), it, limits, Some(&name))?))
        }
        Some(Type::SessionTicketKeys(it)) => {
            Secret::TicketKeys(ticket_keys::parse(&at.field("session_ticket_keys"), it)?)
        }
        Some(Type::GenericSecret(it)) => Secret::Generic(ticket_keys::generic(&at.field("generic_secret"), it)?),
        None => return Err(at.error("Secret type not implemented")),
    })
}

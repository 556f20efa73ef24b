//! `envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig`: a secret by its name.

use std::sync::OnceLock;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{At, ConfigError};

use crate::config::config_source::{self, Files};
use crate::tls::secret::{NamedSecret, SecretKind};

/// Understands where a secret is found.
///
/// # Errors
/// When it has no name, or its source is not valid.
pub fn parse(at: &At<'_>, proto: proto::SdsSecretConfig, kind: SecretKind) -> Result<NamedSecret, ConfigError> {
    let proto::SdsSecretConfig { name, sds_config } = proto;
    if name.is_empty() {
        return Err(at.field("name").error("value length must be at least 1 characters"));
    }
    let source =
        sds_config.map(|source| config_source::parse(at.field("sds_config"), source, Files::Exist)).transpose()?;
    Ok(NamedSecret { name: name.into(), kind, source, slot: OnceLock::new() })
}

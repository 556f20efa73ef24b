//! `envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys` and `GenericSecret`.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as proto;
use filters::config::{At, ConfigError};

use super::data_source::{self, Empty};
use crate::tls::secret::{GenericSecret, TicketKeys};

/// Reads session ticket keys.
///
/// # Errors
/// When there is none, or one cannot be read or is not of 80 bytes.
pub fn parse(at: &At<'_>, proto: proto::TlsSessionTicketKeys) -> Result<Arc<TicketKeys>, ConfigError> {
    let proto::TlsSessionTicketKeys { keys } = proto;
    let at = at.field("keys");
    if keys.is_empty() {
        return Err(at.error("value must contain at least 1 item(s)"));
    }
    let key = |(n, source)| {
        let at = at.index(n);
        let data = data_source::read(&at, Some(source), Empty::Refused)?;
        let bytes = data.map(|data| data.bytes).unwrap_or_default();
        <[u8; 80]>::try_from(bytes.as_slice()).map_err(|_| {
            at.error(format_args!(
                "Incorrect TLS session ticket key length. Length {}, expected length 80.",
                bytes.len()
            ))
        })
    };
    Ok(Arc::new(TicketKeys(keys.into_iter().enumerate().map(key).collect::<Result<_, _>>()?)))
}

/// Reads a generic secret.
///
/// # Errors
/// When a part of it cannot be read.
pub fn generic(at: &At<'_>, proto: proto::GenericSecret) -> Result<Arc<GenericSecret>, ConfigError> {
    let proto::GenericSecret { secret, secrets } = proto;
    let read = |at: &At<'_>, source| {
        data_source::read(at, source, Empty::Allowed).map(|data| data.map(|data| data.bytes).unwrap_or_default())
    };
    let parts = at.field("secrets");
    let named = secrets.into_iter().map(|(name, source)| {
        let bytes = read(&parts.key(&name), Some(source))?;
        Ok((name, bytes))
    });
    Ok(Arc::new(GenericSecret { named: named.collect::<Result<_, _>>()?, secret: read(&at.field("secret"), secret)? }))
}

//! `envoy.transport_sockets.upstream_proxy_protocol`: connections that begin with a PROXY header.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use envoy_types::pb::envoy::config::core::v3::{
    ProxyProtocolConfig, ProxyProtocolPassThroughTlVs, proxy_protocol_config,
};
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::stream_info::Tlv;

use super::connection::{TransportSocket, transport_socket};
use crate::config::tlv::Tlvs;
use crate::transport::proxy_protocol::ProxyProtocolVersion;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" {
    transport_socket => Refuse, "a PROXY header is followed by the connection's own bytes, not by another one";
    allow_unspecified_address => Warn, "Envoy does not read it either";
    tlv_as_pool_key => Warn, "connections are always told apart by all that their header says";
} }

/// The header that connections begin with.
#[derive(Debug)]
pub struct UpstreamProxyProtocol {
    /// `version`
    pub version: ProxyProtocolVersion,
    /// Which of the client's facts are passed on.
    pub pass: PassTlvs,
    /// `added_tlvs`
    pub added: Tlvs,
    /// What the bytes after it go through.
    pub inner: TransportSocket,
}

/// Which facts of a PROXY header are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PassTlvs {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these types.
    Types(Box<[u8]>),
}

/// Two are the same only if they are one: formats cannot be compared.
impl PartialEq for UpstreamProxyProtocol {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl PassTlvs {
    /// Parses `pass_through_tlvs`.
    ///
    /// # Errors
    /// A type that is no byte.
    pub fn parse(at: At<'_>, proto: Option<ProxyProtocolPassThroughTlVs>) -> Result<Self, ConfigError> {
        let Some(ProxyProtocolPassThroughTlVs { match_type, tlv_type }) = proto else { return Ok(Self::None) };
        let list = at.field("tlv_type");
        let types = tlv_type.into_iter().enumerate().map(|(index, kind)| {
            u8::try_from(kind).map_err(|_| list.index(index).error("value must be less than 256"))
        });
        let types = types.collect::<Result<_, _>>()?;
        match PassTlVsMatchType::try_from(match_type) {
            Ok(PassTlVsMatchType::IncludeAll) => Ok(Self::All),
            Ok(PassTlVsMatchType::Include) => Ok(Self::Types(types)),
            Err(_) => Err(at.field("match_type").error("value must be one of the defined enum values")),
        }
    }

    /// Whether this fact is kept.
    #[must_use]
    pub fn passes(&self, tlv: &Tlv) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Types(types) => types.contains(&tlv.kind),
        }
    }
}

pub(super) fn parse(at: At<'_>, proto: ProxyProtocolUpstreamTransport) -> Result<TransportSocket, ConfigError> {
    let ProxyProtocolUpstreamTransport { config, transport_socket: inner, allow_unspecified_address, tlv_as_pool_key } =
        proto;
    at.unsupported(&unsupported::allow_unspecified_address, &allow_unspecified_address)?;
    at.unsupported(&unsupported::tlv_as_pool_key, &tlv_as_pool_key)?;
    let inner = at.required("transport_socket", inner)?;
    let inner_at = at.field("transport_socket");
    let inner = transport_socket(inner_at, Some(inner))?;
    if matches!(inner, TransportSocket::ProxyProtocol(_)) {
        inner_at.refuse_or_warn(&unsupported::transport_socket)?;
    }
    let at = at.field("config");
    let ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = config.unwrap_or_default();
    Ok(TransportSocket::ProxyProtocol(Arc::new(UpstreamProxyProtocol {
        version: match proxy_protocol_config::Version::try_from(version) {
            Ok(proxy_protocol_config::Version::V1) => ProxyProtocolVersion::V1,
            Ok(proxy_protocol_config::Version::V2) => ProxyProtocolVersion::V2,
            Err(_) => return Err(at.field("version").error("value must be one of the defined enum values")),
        },
        pass: PassTlvs::parse(at.field("pass_through_tlvs"), pass_through_tlvs)?,
        added: Tlvs::parse(at.field("added_tlvs"), added_tlvs)?,
        inner,
    })))
}

#[cfg(test)]
mod tests {
    use filters::config::Session;

    use super::*;

    #[test]
    fn facts_are_kept_by_type() {
        let parse = |match_type, tlv_type| {
            let proto = ProxyProtocolPassThroughTlVs { match_type, tlv_type };
            PassTlvs::parse(Session::default().root(), Some(proto)).map_err(|error| error.to_string())
        };
        let passes = |pass: &PassTlvs, kind| pass.passes(&Tlv { kind, value: "x".into() });
        assert!(!passes(&PassTlvs::parse(Session::default().root(), None).unwrap(), 1));
        assert!(passes(&parse(0, vec![7]).unwrap(), 1), "the list does not matter where all are kept");
        let some = parse(1, vec![7, 255]).unwrap();
        assert_eq!([1, 7, 255].map(|kind| passes(&some, kind)), [false, true, true]);
        assert_eq!(parse(1, vec![1, 256]).unwrap_err(), "tlv_type[1]: value must be less than 256");
    }
}

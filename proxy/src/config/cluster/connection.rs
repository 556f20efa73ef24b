//! How connections to a cluster's hosts are made: bind address, socket options, keepalive, transport socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::upstreams::tcp::v3 as tcp;
use filters::config::{At, ConfigError};
use filters::http::Scheme;
use filters::ledger;
use filters::matcher::RegexLimits;

use super::proxy_protocol::{self, UpstreamProxyProtocol};
use super::{decode, duration, type_name};
use crate::config::address::{self, SocketOption, TcpKeepalive};
use crate::config::tls;
use crate::route::MetadataMatch;
use crate::tls::client::ClientContext;
use crate::upstream::host::Metadata;

ledger! {
    /// What is not implemented.
    pub mod bind_unsupported for "envoy.config.core.v3.BindConfig" {
    local_address_selector => Refuse, "the source address is chosen by the host's IP version only";
    validate_network_namespaces => Warn, "network namespaces are not entered";
} }

ledger! {
    /// What is not implemented.
    pub mod options_unsupported for "envoy.config.cluster.v3.UpstreamConnectionOptions" {
    set_local_interface_name_on_upstream_connections => Warn, "the interface name is not reported";
    happy_eyeballs_config => Warn, "the addresses of a host take turns by family, the first one first";
} }

/// The name space of metadata by which hosts choose their transport socket.
pub(super) const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// How connections are made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectionOptions {
    /// TCP keepalive; `None` leaves it off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Source addresses and socket options.
    pub bind: BindConfig,
    /// What the bytes go through.
    pub transport_socket: TransportSocket,
    /// Hosts whose bytes go through something else, the first that matches counting.
    pub socket_matches: Vec<SocketMatch>,
    /// An idle connection kept for TCP proxying is closed after this (10 min); `None` never.
    pub tcp_idle_timeout: Option<Duration>,
}

/// `transport_socket_matches`: what goes for hosts with certain metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct SocketMatch {
    /// Its name in statistics.
    pub name: Arc<str>,
    /// What a host's metadata has to say in the name space `envoy.transport_socket_match`.
    pub criteria: MetadataMatch,
    /// What the bytes go through.
    pub transport_socket: TransportSocket,
}

/// What a connection's bytes go through.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum TransportSocket {
    /// Nothing: plain text.
    #[default]
    RawBuffer,
    /// A TLS session.
    Tls(Arc<ClientContext>),
    /// Either, after a PROXY header.
    ProxyProtocol(Arc<UpstreamProxyProtocol>),
}

impl TransportSocket {
    /// The scheme of requests over it (`scheme_header_transformation.match_upstream`).
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls().is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// The context of the TLS session, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<ClientContext>> {
        match self {
            Self::RawBuffer => None,
            Self::Tls(context) => Some(context),
            Self::ProxyProtocol(header) => header.inner.tls(),
        }
    }
}

impl ConnectionOptions {
    /// What the bytes of connections to a host with this metadata go through.
    #[must_use]
    pub fn socket_for(&self, metadata: Option<&Metadata>) -> &TransportSocket {
        let meets = |of: &&SocketMatch| of.criteria.matches_in(SOCKET_MATCH, metadata, false);
        self.socket_matches.iter().find(meets).map_or(&self.transport_socket, |found| &found.transport_socket)
    }

    /// Whether connections to any host begin with a PROXY header.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.sockets().any(|socket| matches!(socket, TransportSocket::ProxyProtocol(_)))
    }

    /// The TLS contexts of all connections.
    pub fn tls_contexts(&self) -> impl Iterator<Item = &Arc<ClientContext>> {
        self.sockets().filter_map(TransportSocket::tls)
    }

    fn sockets(&self) -> impl Iterator<Item = &TransportSocket> {
        self.socket_matches.iter().map(|found| &found.transport_socket).chain([&self.transport_socket])
    }
}

/// `upstream_bind_config`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindConfig {
    /// At most one source per IP version, with the options of its sockets.
    pub sources: Vec<SourceAddress>,
    /// Bind to addresses the machine does not have.
    pub freebind: bool,
    /// Options of sockets without a source address.
    pub socket_options: Vec<SocketOption>,
}

/// An address connections come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddress {
    /// Port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Options of its sockets.
    pub socket_options: Vec<SocketOption>,
}

impl BindConfig {
    /// The source address for connections to `remote`, and the options of their sockets.
    #[must_use]
    pub fn source_for(&self, remote: SocketAddr) -> (Option<SocketAddr>, &[SocketOption]) {
        match self.sources.iter().find(|source| source.address.is_ipv4() == remote.is_ipv4()) {
            Some(source) => (Some(source.address), &source.socket_options),
            None => (None, &self.socket_options),
        }
    }

    pub(crate) fn parse(at: At<'_>, cluster_name: &str, proto: core::BindConfig) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let core::BindConfig {
            source_address,
            freebind,
            socket_options,
            extra_source_addresses,
            additional_source_addresses,
            local_address_selector,
            validate_network_namespaces,
        } = proto;
        at.unsupported(&bind_unsupported::local_address_selector, &local_address_selector)?;
        at.unsupported(&bind_unsupported::validate_network_namespaces, &validate_network_namespaces)?;
        let socket_options = address::socket_options(at.field("socket_options"), socket_options)?;
        let mut sources = Vec::new();
        if let Some(proto) = source_address {
            let address = address::socket(at.field("source_address"), proto)?;
            sources.push(SourceAddress { address, socket_options: socket_options.clone() });
        }
        if sources.is_empty() && !(extra_source_addresses.is_empty() && additional_source_addresses.is_empty()) {
            return Err(at.error(format_args!(
                "Cluster {cluster_name}'s upstream binding config has extra/additional source addresses but no \
                 source_address"
            )));
        }
        for (index, proto) in extra_source_addresses.into_iter().enumerate() {
            let list = at.field("extra_source_addresses");
            let at = list.index(index);
            let core::ExtraSourceAddress { address, socket_options: own } = proto;
            let own = own.map(|core::SocketOptionsOverride { socket_options }| {
                address::socket_options(at.field("socket_options"), socket_options)
            });
            sources.push(SourceAddress {
                address: address::socket(at.field("address"), at.required("address", address)?)?,
                socket_options: own.transpose()?.unwrap_or_else(|| socket_options.clone()),
            });
        }
        for (index, proto) in additional_source_addresses.into_iter().enumerate() {
            let list = at.field("additional_source_addresses");
            let address = address::socket(list.index(index), proto)?;
            sources.push(SourceAddress { address, socket_options: socket_options.clone() });
        }
        if sources.len() > 2 {
            return Err(at.error(format_args!(
                "Cluster {cluster_name}'s upstream binding config has more than one extra/additional source addresses. \
                 Only one extra/additional source can be supported in BindConfig's \
                 extra_source_addresses/additional_source_addresses field"
            )));
        }
        if let [first, second] = sources.as_slice()
            && first.address.is_ipv4() == second.address.is_ipv4()
        {
            return Err(at.error(format_args!(
                "Cluster {cluster_name}'s upstream binding config has two same IP version source addresses. Only two \
                 different IP version source addresses can be supported in BindConfig's source_address and \
                 extra_source_addresses/additional_source_addresses fields"
            )));
        }
        Ok(Self { sources, freebind: freebind.is_some_and(|v| v.value), socket_options })
    }
}

pub(super) fn keepalive(
    at: At<'_>,
    proto: Option<cluster::UpstreamConnectionOptions>,
) -> Result<Option<TcpKeepalive>, ConfigError> {
    let Some(cluster::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    }) = proto
    else {
        return Ok(None);
    };
    at.unsupported(
        &options_unsupported::set_local_interface_name_on_upstream_connections,
        &set_local_interface_name_on_upstream_connections,
    )?;
    at.unsupported(&options_unsupported::happy_eyeballs_config, &happy_eyeballs_config)?;
    Ok(tcp_keepalive.map(TcpKeepalive::from))
}

/// Looked up by type alone: the name is a label.
pub(super) fn socket_matches(
    at: At<'_>,
    protos: Vec<cluster::cluster::TransportSocketMatch>,
) -> Result<Vec<SocketMatch>, ConfigError> {
    let parse = |(index, proto)| {
        let cluster::cluster::TransportSocketMatch { name, r#match, transport_socket: socket } = proto;
        let at = at.index(index);
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        let socket_at = at.field("transport_socket");
        let Some(socket) = socket else { return Err(socket_at.unknown_extension("", "")) };
        Ok(SocketMatch {
            name: name.into(),
            criteria: MetadataMatch::new(r#match.unwrap_or_default()),
            transport_socket: transport_socket(socket_at, Some(socket))?,
        })
    };
    protos.into_iter().enumerate().map(parse).collect()
}

pub(super) fn transport_socket(
    at: At<'_>,
    proto: Option<core::TransportSocket>,
) -> Result<TransportSocket, ConfigError> {
    let Some(core::TransportSocket { name, config_type }) = proto else { return Ok(TransportSocket::RawBuffer) };
    let any = match config_type {
        Some(core::transport_socket::ConfigType::TypedConfig(any)) => any,
        None => return Err(at.unknown_extension(&name, "")),
    };
    match type_name(&any.type_url) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            let RawBuffer {} = decode(at, &any)?;
            Ok(TransportSocket::RawBuffer)
        }
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" => {
            proxy_protocol::parse(at.field("typed_config"), decode(at, &any)?)
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            let proto = decode(at, &any)?;
            let at = at.field("typed_config");
            tls::context::upstream(&at, proto, RegexLimits::default()).map(TransportSocket::Tls)
        }
        other => Err(at.unknown_extension(&name, other)),
    }
}

/// `TcpProtocolOptions`: how long a pooled TCP connection may idle.
pub(super) fn tcp_idle_timeout(at: At<'_>, proto: tcp::TcpProtocolOptions) -> Result<Option<Duration>, ConfigError> {
    let tcp::TcpProtocolOptions { idle_timeout } = proto;
    let timeout = duration(at.field("idle_timeout"), idle_timeout)?.unwrap_or(DEFAULT_TCP_IDLE_TIMEOUT);
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// Envoy's default for pooled TCP connections.
pub(super) const DEFAULT_TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

//! `FilterChain` to runtime types: transport, the one terminal network filter, and what the chain matches.

pub mod matches;
mod network;
pub mod rbac;
pub mod read_filter;
#[cfg(test)]
mod tests;
mod token_bucket;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as proto;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::google::protobuf::Any;
use filters::config::{At, ConfigError, Entry};
use filters::ledger;
use filters::matcher::RegexLimits;
use prost::Message;

use self::matches::ChainMatch;
pub use self::network::UNSUPPORTED_FILTERS;
use self::read_filter::ReadFilter;
use super::any;
use super::listener::fingerprint::Fingerprint;
use super::listener::metadata::{self, Metadata};
use super::service::ChainService;
use super::tcp_proxy::TcpProxyConfig;
use super::tls;
use crate::downstream::chain_match::ChainIndex;
use crate::downstream::drain::Drain;
use crate::tls::server::ServerContext;

/// How a connection is served once the chain is chosen.
#[derive(Debug)]
pub struct FilterChain {
    /// `%FILTER_CHAIN_NAME%`; may be empty.
    pub name: Arc<str>,
    /// What stands between the socket and the network filter.
    pub transport: Transport,
    /// The network filters before it.
    pub read_filters: Vec<ReadFilter>,
    /// The terminal network filter.
    pub network: NetworkFilter,
    /// Where its configuration stands in the listener, for what is found wrong with it only when it is joined.
    pub network_path: String,
    /// How long the transport's handshake may take; `None` for ever.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// Metadata of the chain.
    pub metadata: Metadata,
    /// Hash of the message: chains of two versions of a listener with equal identity are the same chain, and the newer
    /// version keeps the older one's `Arc`, so that its connections live on.
    pub identity: u64,
    /// Begun when an update of the listener removed this chain.
    pub drain: Drain,
    /// What serves its connections, with everything it refers to joined to it: set by control before the chain is
    /// published, once.
    pub service: OnceLock<ChainService>,
}

/// `transport_socket`.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Plain bytes.
    RawBuffer,
    /// A TLS session.
    Tls(Arc<ServerContext>),
}

/// The terminal network filter of a chain.
#[derive(Debug, Clone)]
pub enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`.
    Http(HttpManager),
    /// `envoy.filters.network.tcp_proxy`.
    TcpProxy(Arc<TcpProxyConfig>),
    /// `envoy.filters.network.direct_response`: what is sent before the connection is closed.
    DirectResponse(Bytes),
    /// `envoy.filters.network.echo`.
    Echo,
    /// A chain without filters: connections are closed as soon as they are there.
    Empty,
}

/// The HTTP connection manager of a chain.
#[derive(Debug, Clone)]
pub struct HttpManager {
    /// The serialised `HttpConnectionManager`.
    pub config: Bytes,
}

ledger! {
    /// What a filter chain may say that Legate does not do.
    pub mod unsupported for "envoy.config.listener.v3.FilterChain" {
        use_proxy_proto => Refuse, "deprecated: the proxy_protocol listener filter reads the PROXY header";
    }
}

/// The rows of the support ledger about filter chains.
pub static LEDGER: &[&[&Entry]] = &[unsupported::ALL, network::unsupported::ALL, read_filter::unsupported::ALL];

/// Transport sockets Envoy has and Legate has not, refused by name.
pub static UNSUPPORTED_TRANSPORTS: &[Entry] = &[
    Entry::refused("envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport", "HTTP/3 is not proxied"),
    Entry::refused(
        "envoy.extensions.transport_sockets.starttls.v3.StartTlsConfig",
        "connections would not be encrypted",
    ),
    Entry::refused("envoy.extensions.transport_sockets.alts.v3.Alts", "connections would not be encrypted"),
    Entry::refused("envoy.extensions.transport_sockets.tap.v3.Tap", "bytes would not be recorded"),
    Entry::refused(
        "envoy.extensions.transport_sockets.tcp_stats.v3.Config",
        "the kernel's statistics of connections would be missing",
    ),
];

/// Parses the chains of the listener at `address` into the index that chooses among them.
pub(crate) fn parse_all(
    at: &At<'_>,
    address: &str,
    chains: Vec<proto::FilterChain>,
    default: Option<proto::FilterChain>,
    fingerprint: &Fingerprint,
) -> Result<ChainIndex, ConfigError> {
    if chains.is_empty() && default.is_none() {
        let message = format_args!("error adding listener '{address}': no filter chains specified");
        return Err(at.field("filter_chains").error(message));
    }
    let refuse = |at: &At<'_>, message: std::fmt::Arguments<'_>| {
        at.error(format_args!("error adding listener '{address}': {message}"))
    };
    let list = at.field("filter_chains");
    let mut seen = HashMap::with_capacity(chains.len());
    let mut parsed = Vec::with_capacity(chains.len());
    for (index, mut chain) in chains.into_iter().enumerate() {
        let at = list.index(index);
        let criteria_at = at.field("filter_chain_match");
        let criteria = chain.filter_chain_match.take().unwrap_or_default();
        if let Some(earlier) = seen.insert(criteria.encode_to_vec(), chain.name.clone()) {
            return Err(refuse(
                &criteria_at,
                format_args!(
                    "filter chain '{}' has the same matching rules defined as '{earlier}'. duplicate matcher is: {}",
                    chain.name,
                    matches::to_json(&criteria)
                ),
            ));
        }
        if !criteria.address_suffix.is_empty() || criteria.suffix_len.is_some() {
            let field = if criteria.suffix_len.is_some() { "suffix_len" } else { "address_suffix" };
            let message = format_args!("filter chain '{}' contains unimplemented fields", chain.name);
            return Err(refuse(&criteria_at.field(field), message));
        }
        if let Some(index) = criteria.server_names.iter().position(|name| name.contains('*') && !name.starts_with("*."))
        {
            let message = format_args!("partial wildcards are not supported in \"server_names\"");
            return Err(refuse(&criteria_at.field("server_names").index(index), message));
        }
        let identity = fingerprint.chains.get(index).copied().unwrap_or_default();
        parsed.push((ChainMatch::parse(&criteria_at, criteria)?, filter_chain(&at, chain, identity)?));
    }
    let default = match default {
        // Its match is not looked at.
        Some(chain) => Some(filter_chain(&at.field("default_filter_chain"), chain, fingerprint.default_chain)?),
        None => None,
    };
    ChainIndex::build(parsed, default).map_err(|error| refuse(&list, format_args!("{error}")))
}

fn filter_chain(at: &At<'_>, chain: proto::FilterChain, identity: u64) -> Result<Arc<FilterChain>, ConfigError> {
    #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
    let proto::FilterChain {
        filter_chain_match: _, // Parsed by the caller.
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = chain;
    at.unsupported(&unsupported::use_proxy_proto, &use_proxy_proto.is_some_and(|v| v.value))?;
    let timeout = at.field("transport_socket_connect_timeout");
    let network_path = at.field("filters").index(filters.len().saturating_sub(1)).field("typed_config").path();
    let (read_filters, network) = network::parse(&at.field("filters"), filters)?;
    Ok(Arc::new(FilterChain {
        name: name.into(),
        network_path,
        transport: transport_socket_of(&at.field("transport_socket"), transport_socket)?,
        read_filters,
        network,
        transport_socket_connect_timeout: match transport_socket_connect_timeout {
            Some(value) => Some(filters::config::duration::duration(&timeout, &value)?).filter(|d| !d.is_zero()),
            None => None,
        },
        metadata: metadata.map(metadata::parse).unwrap_or_default(),
        identity,
        drain: Drain::default(),
        service: OnceLock::new(),
    }))
}

fn transport_socket_of(at: &At<'_>, socket: Option<core::TransportSocket>) -> Result<Transport, ConfigError> {
    use core::transport_socket::ConfigType;
    let Some(core::TransportSocket { name, config_type }) = socket else { return Ok(Transport::RawBuffer) };
    let here = at.field("typed_config");
    let Some(ConfigType::TypedConfig(config)) = config_type else { return Err(here.unknown_extension(&name, "")) };
    let config = untyped(&here, config)?;
    match type_name(&config) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            let RawBuffer {} = unpack(&here, &config)?;
        }
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            let proto = unpack(&here, &config)?;
            return tls::context::downstream(&here, proto, RegexLimits::default()).map(Transport::Tls);
        }
        other => match UNSUPPORTED_TRANSPORTS.iter().find(|entry| entry.message == other) {
            Some(entry) => at.refuse_or_warn(entry)?,
            None => return Err(here.unknown_extension(&name, other)),
        },
    }
    Ok(Transport::RawBuffer)
}

/// The message type an `Any` holds, without the host of its type URL.
pub(crate) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// The same, without a `TypedStruct` around it.
pub(crate) fn untyped(at: &At<'_>, any: Any) -> Result<Any, ConfigError> {
    let any::Typed { type_url, value } = any::unwrap(at, any, any::struct_to_bytes)?;
    Ok(Any { type_url, value: value.into() })
}

/// The message in an `Any` whose type was checked.
pub(crate) fn unpack<M: Message + Default>(at: &At<'_>, any: &Any) -> Result<M, ConfigError> {
    M::decode(any.value.as_slice()).map_err(|error| at.error(format_args!("Unable to parse {}: {error}", any.type_url)))
}

//! `envoy.config.listener.v3.Listener` to runtime types.
//!
//! [`ListenerConfig::parse`] is the only way in. What comes out is immutable and shared by every worker; what may differ
//! between two versions of a listener without touching its sockets is told apart by [`fingerprint::Fingerprint`].

pub mod address;
pub mod fingerprint;
pub mod listener_filter;
pub mod metadata;
#[cfg(test)]
pub(crate) mod tests;

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::accesslog::v3::AccessLog;
use envoy_types::pb::envoy::config::listener::v3 as proto;
use filters::config::{At, ConfigError};
use filters::ledger;
use prost::Message;

use self::address::ListenAddress;
use self::fingerprint::Fingerprint;
use self::listener_filter::ListenerFilterConfig;
use self::metadata::Metadata;
use super::filter_chain;
use crate::downstream::chain_match::ChainIndex;

/// How long listener filters may wait for bytes when the listener does not say.
const DEFAULT_LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// `per_connection_buffer_limit_bytes` when unset.
const DEFAULT_BUFFER_LIMIT: u32 = 1024 * 1024;
/// Backlog when `tcp_backlog_size` is unset; the kernel caps it at `net.core.somaxconn`.
const DEFAULT_BACKLOG: u32 = 4096;

/// One version of a listener, as control and workers see it.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Name, unique among listeners.
    pub name: Arc<str>,
    /// Where it listens: `address`, then `additional_addresses`.
    pub addresses: Vec<ListenAddress>,
    /// The part of `listener.<…>.` statistics: the prefix configured, or the main address with `_` for `:`.
    pub stat_prefix: Arc<str>,
    /// Filters that see a connection before its filter chain is chosen, in order.
    pub listener_filters: Vec<ListenerFilterConfig>,
    /// How long they may take; `None` when disabled (`0s`).
    pub listener_filters_timeout: Option<Duration>,
    /// After that time go on with what is known instead of closing.
    pub continue_on_listener_filters_timeout: bool,
    /// Every filter chain, the default one, and how one is chosen.
    pub chains: ChainIndex,
    /// High watermark of a connection's buffers, bytes.
    pub per_connection_buffer_limit: u32,
    /// Length of the accept queue.
    pub tcp_backlog: u32,
    /// A socket per worker (`SO_REUSEPORT`) rather than one shared by all.
    pub reuse_port: bool,
    /// Whether sockets exist at all; without, only other listeners hand connections over.
    pub bind_to_port: bool,
    /// Hand a connection to the listener whose address is its original destination, if there is one.
    pub use_original_dst: bool,
    /// `IP_TRANSPARENT`; unset leaves the socket as it is.
    pub transparent: Option<bool>,
    /// `IP_FREEBIND`; unset leaves the socket as it is.
    pub freebind: Option<bool>,
    /// `TCP_FASTOPEN` queue length; 0 turns it off, unset leaves the socket as it is.
    pub tcp_fast_open_queue_length: Option<u32>,
    /// Multipath TCP sockets.
    pub mptcp: bool,
    /// Inbound or outbound, for `/drain_listeners?inboundonly` and tracing.
    pub traffic_direction: TrafficDirection,
    /// What makes its connections drain.
    pub drain_type: DrainType,
    /// Connections accepted each time a socket is readable; `None` for no bound but fairness.
    pub max_connections_to_accept_per_socket_event: Option<NonZeroU32>,
    /// Exempt from the global limit of connections.
    pub ignore_global_conn_limit: bool,
    /// Exempt from overload actions.
    pub bypass_overload_manager: bool,
    /// Runtime key of the listener's own connection limit.
    pub connection_limit_key: Arc<str>,
    /// Listener-level access logs, for the access-log parser.
    pub access_logs: Vec<AccessLog>,
    /// The same, ready to write: set by control before the listener is published, once.
    pub logs: OnceLock<Arc<[crate::observe::access_log::AccessLog]>>,
    /// Metadata of the listener (`%METADATA(LISTENER:…)%`).
    pub metadata: Metadata,
    /// What tells two versions apart.
    pub fingerprint: Fingerprint,
}

/// `envoy.config.core.v3.TrafficDirection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDirection {
    /// Neither was said.
    Unspecified,
    /// From outside to the local workload.
    Inbound,
    /// From the local workload outwards.
    Outbound,
}

/// `Listener.DrainType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainType {
    /// Removal, update, `/healthcheck/fail` and `/drain_listeners`.
    Default,
    /// Removal and update only.
    ModifyOnly,
}

ledger! {
    /// What a listener may say that Legate does not do.
    pub mod unsupported for "envoy.config.listener.v3.Listener" {
        stats_matcher => Warn, "it only narrows which statistics are kept";
        fcds_config => Refuse, "filter chains would be discovered separately and never arrive";
        filter_chain_matcher => Refuse, "the generic matcher would choose the filter chain";
        per_connection_buffer_high_watermark_timeout => Warn, "slow readers are bounded by the other timeouts";
        udp_listener_config => Refuse, "UDP and QUIC are not proxied";
        api_listener => Refuse, "an API listener serves an embedding application";
        internal_listener => Refuse, "internal listeners are not there yet";
        connection_balance_config => Warn, "the kernel balances connections over the workers' sockets";
        reuse_port => Warn, "deprecated: enable_reuse_port decides";
    }
}

impl ListenerConfig {
    /// Parses the serialised `Listener` in `raw`.
    ///
    /// # Errors
    /// The first thing wrong with it, in Envoy's words where Envoy has some.
    pub fn parse(at: &At<'_>, raw: &Bytes) -> Result<Self, ConfigError> {
        let listener = proto::Listener::decode(raw.clone()).map_err(|error| at.error(error))?;
        let fingerprint = Fingerprint::of(raw).map_err(|error| at.error(error))?;
        Self::from_proto(at, listener, fingerprint)
    }

    /// The address the listener is known by, its first.
    #[must_use]
    pub fn main_address(&self) -> Option<&ListenAddress> {
        self.addresses.first()
    }

    fn from_proto(at: &At<'_>, listener: proto::Listener, fingerprint: Fingerprint) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
        let proto::Listener {
            name,
            address,
            additional_addresses,
            stat_prefix,
            stats_matcher,
            filter_chains,
            fcds_config,
            filter_chain_matcher,
            use_original_dst,
            default_filter_chain,
            per_connection_buffer_limit_bytes,
            per_connection_buffer_high_watermark_timeout,
            metadata,
            deprecated_v1,
            drain_type,
            listener_filters,
            listener_filters_timeout,
            continue_on_listener_filters_timeout,
            transparent,
            freebind,
            socket_options,
            tcp_fast_open_queue_length,
            traffic_direction,
            udp_listener_config,
            api_listener,
            connection_balance_config,
            reuse_port,
            enable_reuse_port,
            access_log,
            tcp_backlog_size,
            max_connections_to_accept_per_socket_event,
            bind_to_port,
            enable_mptcp,
            ignore_global_conn_limit,
            bypass_overload_manager,
            tcp_keepalive,
            listener_specifier,
        } = listener;

        at.unsupported(&unsupported::api_listener, &api_listener)?;
        at.unsupported(&unsupported::internal_listener, &listener_specifier)?;
        at.unsupported(&unsupported::udp_listener_config, &udp_listener_config)?;
        at.unsupported(&unsupported::fcds_config, &fcds_config)?;
        at.unsupported(&unsupported::filter_chain_matcher, &filter_chain_matcher)?;
        at.unsupported(&unsupported::stats_matcher, &stats_matcher)?;
        at.unsupported(
            &unsupported::per_connection_buffer_high_watermark_timeout,
            &per_connection_buffer_high_watermark_timeout,
        )?;
        at.unsupported(&unsupported::connection_balance_config, &connection_balance_config)?;
        at.unsupported(&unsupported::reuse_port, &reuse_port)?;

        let Some(address) = address else {
            let message = format_args!("error adding listener named '{name}': address is necessary");
            return Err(at.field("address").error(message));
        };
        let addresses =
            address::parse(at, &name, address, additional_addresses, socket_options, tcp_keepalive.as_ref())?;
        let main = addresses.first().map(ToString::to_string).unwrap_or_default();

        let chains = filter_chain::parse_all(at, &main, filter_chains, default_filter_chain, &fingerprint)?;
        let bind_to_port = bind_to_port.map(|value| value.value);
        let deprecated_bind = deprecated_v1.and_then(|proto::listener::DeprecatedV1 { bind_to_port }| bind_to_port);
        let direction = at.field("traffic_direction");

        Ok(Self {
            stat_prefix: if stat_prefix.is_empty() { main.replace(':', "_").into() } else { stat_prefix.into() },
            connection_limit_key: format!("envoy.resource_limits.listener.{name}.connection_limit").into(),
            name: name.into(),
            listener_filters: listener_filter::parse(&at.field("listener_filters"), listener_filters)?,
            listener_filters_timeout: match listener_filters_timeout {
                None => Some(DEFAULT_LISTENER_FILTERS_TIMEOUT),
                Some(value) => {
                    Some(filters::config::duration::duration(&at.field("listener_filters_timeout"), &value)?)
                        .filter(|d| !d.is_zero())
                }
            },
            continue_on_listener_filters_timeout,
            chains,
            per_connection_buffer_limit: per_connection_buffer_limit_bytes.map_or(DEFAULT_BUFFER_LIMIT, |v| v.value),
            tcp_backlog: tcp_backlog_size.map_or(DEFAULT_BACKLOG, |v| v.value),
            // Only IP sockets can share a port; a Unix socket is one for all workers.
            reuse_port: enable_reuse_port.is_none_or(|v| v.value) && addresses.iter().all(ListenAddress::is_ip),
            bind_to_port: bind_to_port.or_else(|| deprecated_bind.map(|value| value.value)).unwrap_or(true),
            use_original_dst: use_original_dst.is_some_and(|v| v.value),
            transparent: transparent.map(|v| v.value),
            freebind: freebind.map(|v| v.value),
            tcp_fast_open_queue_length: tcp_fast_open_queue_length.map(|v| v.value),
            mptcp: enable_mptcp,
            traffic_direction: TrafficDirection::parse(&direction, traffic_direction)?,
            drain_type: DrainType::parse(&at.field("drain_type"), drain_type)?,
            max_connections_to_accept_per_socket_event: match max_connections_to_accept_per_socket_event {
                None => None,
                Some(value) => Some(NonZeroU32::new(value.value).ok_or_else(|| {
                    at.field("max_connections_to_accept_per_socket_event").error("value must be greater than 0")
                })?),
            },
            ignore_global_conn_limit,
            bypass_overload_manager,
            access_logs: access_log,
            logs: OnceLock::new(),
            metadata: metadata.map(metadata::parse).unwrap_or_default(),
            addresses,
            fingerprint,
        })
    }
}

impl TrafficDirection {
    fn parse(at: &At<'_>, value: i32) -> Result<Self, ConfigError> {
        match value {
            0 => Ok(Self::Unspecified),
            1 => Ok(Self::Inbound),
            2 => Ok(Self::Outbound),
            other => Err(at.error(format_args!("unknown traffic direction {other}"))),
        }
    }
}

impl DrainType {
    fn parse(at: &At<'_>, value: i32) -> Result<Self, ConfigError> {
        match value {
            0 => Ok(Self::Default),
            1 => Ok(Self::ModifyOnly),
            other => Err(at.error(format_args!("unknown drain type {other}"))),
        }
    }
}

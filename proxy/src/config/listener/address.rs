//! Where a listener listens, and with which socket options.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3::AdditionalAddress;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::stream_info::Address;

use crate::config::address as shared;

/// One address of a listener and what its sockets are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// IP and port (port 0 lets the kernel choose), or a Unix socket's path (`@name` when abstract).
    pub address: Address,
    /// An IPv6 socket that takes IPv4 connections as well.
    pub ipv4_compat: bool,
    /// Permissions of a Unix socket's path; 0 leaves the process's mask to decide.
    pub pipe_mode: u32,
    /// Options in the order given.
    pub socket_options: Vec<SocketOption>,
    /// TCP keep-alive of accepted connections.
    pub keepalive: Option<TcpKeepalive>,
}

/// `envoy.config.core.v3.SocketOption` for stream sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// Level as `setsockopt` takes it.
    pub level: i32,
    /// Name as `setsockopt` takes it.
    pub name: i32,
    /// The value's bytes: an integer in host order, or the buffer given.
    pub value: Vec<u8>,
    /// When it is applied.
    pub state: SocketState,
    /// Only to sockets of this IP version; `None` for all.
    pub ip_version: Option<IpVersion>,
}

/// `SocketOption.SocketState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Before `bind`.
    Prebind,
    /// Between `bind` and `listen`.
    Bound,
    /// After `listen`.
    Listening,
}

/// `SocketOption.SocketIpVersion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4 sockets.
    V4,
    /// IPv6 sockets.
    V6,
}

/// `envoy.config.core.v3.TcpKeepalive`; what is `None` stays as the system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle seconds before the first probe.
    pub time: Option<u32>,
    /// Seconds between probes.
    pub interval: Option<u32>,
}

ledger! {
    /// What an address may say that Legate does not do.
    pub mod unsupported for "envoy.config.core.v3.SocketAddress" {
        network_namespace_filepath => Refuse, "the socket would belong to another network namespace";
    }
}

/// All addresses of the listener `name`; the options of the listener apply where an address has none of its own.
pub(crate) fn parse(
    at: &At<'_>,
    name: &str,
    main: core::Address,
    additional: Vec<AdditionalAddress>,
    options: Vec<core::SocketOption>,
    keepalive: Option<&core::TcpKeepalive>,
) -> Result<Vec<ListenAddress>, ConfigError> {
    let options = socket_options(&at.field("socket_options"), options)?;
    let main_at = at.field("address");
    let (address, udp) = listen_address(&main_at, name, main)?;
    let first = address.address.clone();
    check_compatible(&main_at, address.ipv4_compat, &first)?;
    if udp {
        let at = at.field("address");
        let at = at.field("socket_address");
        return Err(at
            .field("protocol")
            .error(format_args!("error adding listener '{address}': UDP listeners are not supported by Legate")));
    }
    let mut addresses =
        vec![ListenAddress { socket_options: options.clone(), keepalive: keepalive.map(tcp_keepalive), ..address }];
    let list = at.field("additional_addresses");
    for (index, entry) in additional.into_iter().enumerate() {
        let at = list.index(index);
        let AdditionalAddress { address, socket_options: own_options, tcp_keepalive: own_keepalive } = entry;
        let address_at = at.field("address");
        let (address, udp) = listen_address(&address_at, name, at.required("address", address)?)?;
        // Envoy's rule: what has to be compatible is the main address, whichever one asks for it.
        check_compatible(&address_at, address.ipv4_compat, &first)?;
        if udp {
            return Err(at.error(format_args!(
                "listener {name}: has different socket type. The listener only support same socket type for all the \
                 addresses."
            )));
        }
        let overridden = at.field("socket_options");
        addresses.push(ListenAddress {
            socket_options: match own_options {
                Some(core::SocketOptionsOverride { socket_options: list }) => socket_options(&overridden, list)?,
                None => options.clone(),
            },
            keepalive: own_keepalive.as_ref().or(keepalive).map(tcp_keepalive),
            ..address
        });
    }
    Ok(addresses)
}

impl ListenAddress {
    /// Whether it is an IP address rather than a Unix socket.
    #[must_use]
    pub const fn is_ip(&self) -> bool {
        matches!(self.address, Address::Ip(_))
    }

    /// Whether binding both would clash. Port 0 is a different port each time.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        self.address == other.address && self.address.ip().is_none_or(|ip| ip.port() != 0)
    }
}

/// As Envoy names it in errors and statistics: `127.0.0.1:80`, `[::1]:80`, `/path`, `@abstract`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The address and whether it asks for UDP.
fn listen_address(at: &At<'_>, name: &str, address: core::Address) -> Result<(ListenAddress, bool), ConfigError> {
    use core::address::Address as Kind;
    let parsed = match at.required("address", address.address)? {
        Kind::SocketAddress(socket) => return socket_address(&at.field("socket_address"), socket),
        Kind::Pipe(pipe) => self::pipe(&at.field("pipe"), pipe)?,
        Kind::EnvoyInternalAddress(_) => {
            return Err(at.error(format_args!(
                "error adding listener named '{name}': use internal_listener field instead of address for internal \
                 listeners"
            )));
        }
    };
    Ok((parsed, false))
}

fn socket_address(at: &At<'_>, socket: core::SocketAddress) -> Result<(ListenAddress, bool), ConfigError> {
    use core::socket_address::{PortSpecifier, Protocol};
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = socket;
    at.unsupported(&unsupported::network_namespace_filepath, &network_namespace_filepath)?;
    if !resolver_name.is_empty() {
        return Err(at.field("resolver_name").error(format_args!("Unknown address resolver: {resolver_name}")));
    }
    let port = match at.required("port_specifier", port_specifier)? {
        PortSpecifier::PortValue(port) => u16::try_from(port)
            .map_err(|_| at.field("port_value").error("value must be less than or equal to 65535"))?,
        PortSpecifier::NamedPort(_) => {
            return Err(at.field("named_port").error("IP resolver can't handle port specifier type 4"));
        }
    };
    let ip: IpAddr =
        address.parse().map_err(|_| at.field("address").error(format_args!("malformed IP address: {address}")))?;
    let socket = SocketAddr::new(ip, port);
    let udp = match Protocol::try_from(protocol) {
        Ok(Protocol::Tcp) => false,
        Ok(Protocol::Udp) => true,
        Err(_) => return Err(at.field("protocol").error(format_args!("unknown protocol {protocol}"))),
    };
    Ok((ListenAddress::plain(Address::Ip(socket), ipv4_compat, 0), udp))
}

/// Whether an address that asks for `ipv4_compat` may.
fn check_compatible(at: &At<'_>, asked: bool, address: &Address) -> Result<(), ConfigError> {
    let compatible = match address {
        Address::Ip(SocketAddr::V6(v6)) => v6.ip().is_unspecified() || v6.ip().to_ipv4_mapped().is_some(),
        _ => false,
    };
    if compatible || !asked {
        return Ok(());
    }
    let at = at.field("socket_address");
    Err(at
        .field("ipv4_compat")
        .error(format_args!("Only IPv6 address '::' or valid IPv4-mapped IPv6 address can set ipv4_compat: {address}")))
}

fn pipe(at: &At<'_>, pipe: core::Pipe) -> Result<ListenAddress, ConfigError> {
    let mode = pipe.mode;
    Ok(ListenAddress::plain(shared::pipe(at, pipe)?, false, mode))
}

impl ListenAddress {
    /// An address without options.
    #[must_use]
    pub const fn plain(address: Address, ipv4_compat: bool, pipe_mode: u32) -> Self {
        Self { address, ipv4_compat, pipe_mode, socket_options: Vec::new(), keepalive: None }
    }
}

fn socket_options(at: &At<'_>, options: Vec<core::SocketOption>) -> Result<Vec<SocketOption>, ConfigError> {
    let mut parsed = Vec::with_capacity(options.len());
    for (index, option) in options.into_iter().enumerate() {
        parsed.extend(socket_option(&at.index(index), option)?);
    }
    Ok(parsed)
}

/// `None` when the option is for datagram sockets.
fn socket_option(at: &At<'_>, option: core::SocketOption) -> Result<Option<SocketOption>, ConfigError> {
    use core::socket_option::{SocketType, Value};
    let core::SocketOption { description: _, level, name, state, r#type, ip_version, value } = option;
    let number = |field: &str, value: i64| {
        i32::try_from(value).map_err(|_| at.field(field).error(format_args!("{value} is no socket option number")))
    };
    let option = SocketOption {
        level: number("level", level)?,
        name: number("name", name)?,
        value: match at.required("value", value)? {
            Value::IntValue(value) => number("int_value", value)?.to_ne_bytes().to_vec(),
            Value::BufValue(bytes) => bytes,
        },
        state: match state {
            0 => SocketState::Prebind,
            1 => SocketState::Bound,
            2 => SocketState::Listening,
            other => return Err(at.field("state").error(format_args!("unknown socket state {other}"))),
        },
        ip_version: match ip_version {
            0 => None,
            1 => Some(IpVersion::V4),
            2 => Some(IpVersion::V6),
            other => return Err(at.field("ip_version").error(format_args!("unknown IP version {other}"))),
        },
    };
    let datagram_only = matches!(r#type, Some(SocketType { stream: None, datagram: Some(_) }));
    Ok((!datagram_only).then_some(option))
}

fn tcp_keepalive(keepalive: &core::TcpKeepalive) -> TcpKeepalive {
    let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = keepalive;
    TcpKeepalive {
        probes: keepalive_probes.map(|v| v.value),
        time: keepalive_time.map(|v| v.value),
        interval: keepalive_interval.map(|v| v.value),
    }
}

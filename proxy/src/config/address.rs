//! `envoy.config.core.v3.Address`, socket options and TCP keepalive.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use filters::config::{At, ConfigError};
use filters::ledger;
use filters::stream_info::Address;

ledger! {
    /// What is not implemented.
    pub mod socket_address_unsupported for "envoy.config.core.v3.SocketAddress" {
    protocol => Warn, "UDP is not proxied; the address is used for TCP";
    network_namespace_filepath => Refuse, "sockets are made in the process's own network namespace";
} }

ledger! {
    /// What is not implemented.
    pub mod internal_address_unsupported for "envoy.config.core.v3.EnvoyInternalAddress" {
    endpoint_id => Warn, "it only tells internal endpoints apart in statistics";
} }

/// What Envoy adds when an address that has to be an IP is not one.
const CONSIDER: &str = "Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'";

/// The longest path of a Unix socket, with its final zero.
const MAX_PIPE_PATH: usize = 108;

/// Where an endpoint is: known, or to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// An IP address and port, a Unix socket or an internal listener.
    Resolved(Address),
    /// A name to look up.
    Name {
        /// The name, as configured.
        host: Arc<str>,
        /// Port of every address it resolves to.
        port: u16,
    },
}

/// An address that is known without a lookup: IP literals, Unix sockets, internal listeners.
///
/// # Errors
/// When it is a name, or holds something unsupported.
pub fn resolved(at: At<'_>, proto: core::Address) -> Result<Address, ConfigError> {
    match endpoint(at, proto)? {
        EndpointAddress::Resolved(address) => Ok(address),
        EndpointAddress::Name { host, .. } => Err(at.error(format_args!("malformed IP address: {host}. {CONSIDER}"))),
    }
}

/// An endpoint's address: an IP literal is [`EndpointAddress::Resolved`], anything else is a name.
///
/// # Errors
/// When it holds something unsupported.
pub fn endpoint(at: At<'_>, proto: core::Address) -> Result<EndpointAddress, ConfigError> {
    use core::address::Address as Specifier;
    match proto.address {
        Some(Specifier::SocketAddress(socket)) => endpoint_socket(at.field("socket_address"), socket),
        Some(Specifier::Pipe(pipe)) => Ok(EndpointAddress::Resolved(self::pipe(&at.field("pipe"), pipe)?)),
        Some(Specifier::EnvoyInternalAddress(internal)) => {
            let at = at.field("envoy_internal_address");
            let core::EnvoyInternalAddress { endpoint_id, address_name_specifier } = internal;
            at.unsupported(&internal_address_unsupported::endpoint_id, &endpoint_id)?;
            let name = at.required("server_listener_name", address_name_specifier)?;
            let core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(name) = name;
            Ok(EndpointAddress::Resolved(Address::Internal(name.into())))
        }
        None => Err(at.error("Address must be set")),
    }
}

/// The IP address and port of a `SocketAddress`.
///
/// # Errors
/// When it is a name, or holds something unsupported.
pub fn socket(at: At<'_>, proto: core::SocketAddress) -> Result<SocketAddr, ConfigError> {
    match endpoint_socket(at, proto)? {
        EndpointAddress::Resolved(Address::Ip(address)) => Ok(address),
        EndpointAddress::Name { host, .. } => Err(at.error(format_args!("malformed IP address: {host}"))),
        EndpointAddress::Resolved(other) => Err(at.error(format_args!("malformed IP address: {other}"))),
    }
}

/// A Unix socket's path, or with `@` a name in the abstract name space. The mode is for those who create the file.
///
/// # Errors
/// When it is no path that the kernel takes, or has a mode where there is no file.
pub fn pipe(at: &At<'_>, pipe: core::Pipe) -> Result<Address, ConfigError> {
    let core::Pipe { path, mode } = pipe;
    if path.is_empty() {
        return Err(at.field("path").error("value length must be at least 1 characters"));
    }
    if path.len() >= MAX_PIPE_PATH {
        return Err(at
            .field("path")
            .error(format_args!("Path \"{path}\" exceeds maximum UNIX domain socket path size of {MAX_PIPE_PATH}.")));
    }
    if path.contains('\0') {
        return Err(at.field("path").error("UNIX domain socket pathname contains embedded null characters"));
    }
    if mode > 0o777 {
        return Err(at.field("mode").error("value must be less than or equal to 511"));
    }
    if mode != 0 && path.starts_with('@') {
        return Err(at.field("mode").error("Cannot set mode for Abstract AF_UNIX sockets"));
    }
    Ok(Address::Pipe(path.into()))
}

fn endpoint_socket(at: At<'_>, proto: core::SocketAddress) -> Result<EndpointAddress, ConfigError> {
    // `ipv4_compat` is for those who listen on `::`; an upstream address has one family.
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat: _,
        network_namespace_filepath,
        port_specifier,
    } = proto;
    at.unsupported(&socket_address_unsupported::protocol, &protocol)?;
    at.unsupported(&socket_address_unsupported::network_namespace_filepath, &network_namespace_filepath)?;
    if !resolver_name.is_empty() {
        return Err(at
            .field("resolver_name")
            .error(format_args!("Unknown address resolver: {resolver_name}. {CONSIDER}")));
    }
    let port = match at.required("port_value", port_specifier)? {
        core::socket_address::PortSpecifier::PortValue(port) => u16::try_from(port)
            .map_err(|_| at.field("port_value").error("value must be less than or equal to 65535"))?,
        core::socket_address::PortSpecifier::NamedPort(_) => {
            return Err(at
                .field("named_port")
                .error(format_args!("IP resolver can't handle port specifier type 4. {CONSIDER}")));
        }
    };
    if address.is_empty() {
        return Err(at.field("address").error("value length must be at least 1 characters"));
    }
    Ok(match ip_literal(&address, port) {
        Some(ip) => EndpointAddress::Resolved(Address::Ip(ip)),
        None => EndpointAddress::Name { host: address.into(), port },
    })
}

/// An IPv4 or IPv6 literal, the latter possibly with a zone (`fe80::1%eth0`).
fn ip_literal(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    let (ip, zone) = text.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let scope = match zone.parse() {
        Ok(scope) => scope,
        // The kernel's own list of interfaces; a zone is a name of one of them.
        Err(_) if !zone.contains('/') => {
            std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?.trim().parse().ok()?
        }
        Err(_) => return None,
    };
    Some(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// TCP keepalive; what is `None` keeps the kernel's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is given up.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

impl From<core::TcpKeepalive> for TcpKeepalive {
    fn from(proto: core::TcpKeepalive) -> Self {
        let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = proto;
        let seconds = |value: u32| Duration::from_secs(value.into());
        Self {
            probes: keepalive_probes.map(|v| v.value),
            time: keepalive_time.map(|v| seconds(v.value)),
            interval: keepalive_interval.map(|v| seconds(v.value)),
        }
    }
}

/// A socket option as configured, by number (`envoy.config.core.v3.SocketOption`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    /// `setsockopt` level.
    pub level: i32,
    /// `setsockopt` name.
    pub name: i32,
    /// Its value.
    pub value: SocketOptionValue,
    /// When it is set.
    pub state: SocketState,
    /// Only on sockets of this family; `None` on all.
    pub ip_version: Option<IpVersion>,
}

impl SocketOption {
    /// Sets it on a socket.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let int;
        let value = match &self.value {
            SocketOptionValue::Int(value) => {
                int = value.to_ne_bytes();
                &int[..]
            }
            SocketOptionValue::Bytes(bytes) => bytes,
        };
        crate::sys::set_socket_option(socket, self.level, self.name, value)
    }
}

/// The value of a socket option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketOptionValue {
    /// An `int`.
    Int(i32),
    /// Bytes as they are.
    Bytes(Box<[u8]>),
}

/// A moment in the life of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketState {
    /// Before it is bound.
    Prebind,
    /// After it is bound, before it listens or connects.
    Bound,
    /// After it listens.
    Listening,
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Socket options in order; those for datagram sockets only are left out.
///
/// # Errors
/// When a number does not fit or a value is missing.
pub fn socket_options(at: At<'_>, protos: Vec<core::SocketOption>) -> Result<Vec<SocketOption>, ConfigError> {
    let mut options = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        if let Some(option) = socket_option(at.index(index), proto)? {
            options.push(option);
        }
    }
    Ok(options)
}

fn socket_option(at: At<'_>, proto: core::SocketOption) -> Result<Option<SocketOption>, ConfigError> {
    // `description` is for people only.
    let core::SocketOption { description: _, level, name, state, r#type, ip_version, value } = proto;
    let int = |field: &str, value: i64| i32::try_from(value).map_err(|_| at.field(field).error("must fit 32 bits"));
    let option = SocketOption {
        level: int("level", level)?,
        name: int("name", name)?,
        value: match at.required("value", value)? {
            core::socket_option::Value::IntValue(value) => SocketOptionValue::Int(int("int_value", value)?),
            core::socket_option::Value::BufValue(value) => SocketOptionValue::Bytes(value.into()),
        },
        state: match state {
            0 => SocketState::Prebind,
            1 => SocketState::Bound,
            2 => SocketState::Listening,
            _ => return Err(at.field("state").error("value must be one of the defined enum values")),
        },
        ip_version: match ip_version {
            0 => None,
            1 => Some(IpVersion::V4),
            2 => Some(IpVersion::V6),
            _ => return Err(at.field("ip_version").error("value must be one of the defined enum values")),
        },
    };
    let datagram_only = r#type
        .is_some_and(|core::socket_option::SocketType { stream, datagram }| datagram.is_some() && stream.is_none());
    Ok((!datagram_only).then_some(option))
}

#[cfg(test)]
mod tests {
    use filters::config::Session;

    use super::*;

    fn socket_proto(address: &str, port: u32) -> core::Address {
        core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address: address.to_owned(),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
                ..Default::default()
            })),
        }
    }

    #[test]
    fn literals_are_addresses_and_everything_else_is_a_name() {
        let session = Session::default();
        for (text, expected) in [
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("::1", Some("[::1]:80")),
            ("fe80::1%7", Some("[fe80::1%7]:80")),
            ("example.org", None),
            ("fe80::1%no-such-interface", None),
            ("300.1.1.1", None),
        ] {
            let parsed = endpoint(session.root(), socket_proto(text, 80)).unwrap();
            match expected {
                Some(ip) => assert_eq!(parsed, EndpointAddress::Resolved(Address::Ip(ip.parse().unwrap())), "{text}"),
                None => assert_eq!(parsed, EndpointAddress::Name { host: text.into(), port: 80 }),
            }
        }
    }

    #[test]
    fn envoys_words_for_what_is_not_an_address() {
        let session = Session::default();
        let error = |proto| resolved(session.root(), proto).unwrap_err().to_string();
        assert_eq!(
            error(socket_proto("foo.bar", 1)),
            "malformed IP address: foo.bar. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or \
             'LOGICAL_DNS'"
        );
        assert!(error(socket_proto("127.0.0.1", 70_000)).contains("less than or equal to 65535"));
        assert!(error(core::Address { address: None }).contains("Address must be set"));
    }
}

//! `FilterChainMatch` to the form the index is built from.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3::FilterChainMatch;
use filters::config::{At, ConfigError};
use serde_json::{Map, Value, json};

/// What a filter chain asks of a connection. What is empty or `None` asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Destination address.
    pub prefix_ranges: Vec<Cidr>,
    /// Server names in lower case; `*.example.com` stands here as `.example.com`.
    pub server_names: Vec<String>,
    /// `raw_buffer`, `tls`; empty asks nothing.
    pub transport_protocol: String,
    /// Application protocols, any of them.
    pub application_protocols: Vec<String>,
    /// The socket's own peer.
    pub direct_source_prefix_ranges: Vec<Cidr>,
    /// Local or external peer.
    pub source_type: SourceType,
    /// The peer as configuration sees it.
    pub source_prefix_ranges: Vec<Cidr>,
    /// Ports of the peer.
    pub source_ports: Vec<u16>,
}

/// `FilterChainMatch.ConnectionSourceType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// Asks nothing.
    #[default]
    Any,
    /// The peer's address is this host's own, a loopback address, or a Unix socket.
    SameIpOrLoopback,
    /// Any other peer.
    External,
}

/// An address range with its host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl ChainMatch {
    /// Parses the match; the fields Envoy does not implement were refused by the caller, which knows the chain's name.
    pub(crate) fn parse(at: &At<'_>, criteria: FilterChainMatch) -> Result<Self, ConfigError> {
        let FilterChainMatch {
            destination_port,
            prefix_ranges,
            address_suffix: _,
            suffix_len: _,
            direct_source_prefix_ranges,
            source_type,
            source_prefix_ranges,
            source_ports,
            server_names,
            transport_protocol,
            application_protocols,
        } = criteria;
        let source_port_list = at.field("source_ports");
        Ok(Self {
            destination_port: match destination_port {
                Some(value) => Some(port(&at.field("destination_port"), value.value)?),
                None => None,
            },
            prefix_ranges: ranges(&at.field("prefix_ranges"), prefix_ranges)?,
            server_names: server_names.into_iter().map(server_name).collect(),
            transport_protocol,
            application_protocols,
            direct_source_prefix_ranges: ranges(&at.field("direct_source_prefix_ranges"), direct_source_prefix_ranges)?,
            source_type: match source_type {
                0 => SourceType::Any,
                1 => SourceType::SameIpOrLoopback,
                2 => SourceType::External,
                other => return Err(at.field("source_type").error(format_args!("unknown source type {other}"))),
            },
            source_prefix_ranges: ranges(&at.field("source_prefix_ranges"), source_prefix_ranges)?,
            source_ports: source_ports
                .into_iter()
                .enumerate()
                .map(|(index, value)| port(&source_port_list.index(index), value))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Cidr {
    /// The range of `length` leading bits of `address`; a length beyond the address is the whole address.
    #[must_use]
    pub fn new(address: IpAddr, length: u32) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.min(bits);
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into()),
        };
        // At most 128.
        Self { address, length: u8::try_from(length).unwrap_or(128) }
    }

    /// The lowest address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Number of leading bits that count.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` is in the range; never for the other IP version.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, u32::from(self.length)) == *self
    }
}

/// The message as Envoy prints it in errors: fields in the order of their numbers.
pub(super) fn to_json(criteria: &FilterChainMatch) -> Value {
    let FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = criteria;
    let source_type = match source_type {
        1 => "SAME_IP_OR_LOOPBACK",
        2 => "EXTERNAL",
        _ => "",
    };
    let fields = [
        ("prefix_ranges", ranges_json(prefix_ranges)),
        ("address_suffix", json!(address_suffix)),
        ("suffix_len", json!(suffix_len.as_ref().map(|v| v.value))),
        ("source_prefix_ranges", ranges_json(source_prefix_ranges)),
        ("source_ports", json!(source_ports)),
        ("destination_port", json!(destination_port.as_ref().map(|v| v.value))),
        ("transport_protocol", json!(transport_protocol)),
        ("application_protocols", json!(application_protocols)),
        ("server_names", json!(server_names)),
        ("source_type", json!(source_type)),
        ("direct_source_prefix_ranges", ranges_json(direct_source_prefix_ranges)),
    ];
    Value::Object(fields.into_iter().filter(|(_, value)| is_set(value)).map(|(k, v)| (k.to_owned(), v)).collect())
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

fn ranges_json(ranges: &[core::CidrRange]) -> Value {
    let range = |range: &core::CidrRange| {
        let mut fields = Map::new();
        fields.insert("address_prefix".to_owned(), json!(range.address_prefix));
        if let Some(length) = &range.prefix_len {
            fields.insert("prefix_len".to_owned(), json!(length.value));
        }
        Value::Object(fields)
    };
    Value::Array(ranges.iter().map(range).collect())
}

fn port(at: &At<'_>, value: u32) -> Result<u16, ConfigError> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(at.error("value must be inside range [1, 65535]")),
    }
}

fn ranges(at: &At<'_>, list: Vec<core::CidrRange>) -> Result<Vec<Cidr>, ConfigError> {
    let range = |(index, range)| {
        let core::CidrRange { address_prefix, prefix_len } = range;
        let here = at.index(index);
        let address = address_prefix
            .parse()
            .map_err(|_| here.field("address_prefix").error(format_args!("malformed IP address: {address_prefix}")))?;
        Ok(Cidr::new(address, prefix_len.map_or(0, |v| v.value)))
    };
    list.into_iter().enumerate().map(range).collect()
}

fn server_name(name: String) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some(suffix) => suffix.to_owned(),
        None => name,
    }
}

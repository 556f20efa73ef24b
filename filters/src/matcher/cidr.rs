//! Address ranges (`envoy.config.core.v3.CidrRange`).

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::CidrRange as Proto;

use crate::config::{At, ConfigError};

/// A range of IP addresses: those that share the first `length` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CidrRange {
    base: IpAddr,
    length: u8,
}

impl CidrRange {
    /// Checks a range. Bits beyond the length are cleared, a length beyond the family's is cut, as Envoy does.
    ///
    /// # Errors
    /// When the address is no IP address.
    pub fn parse(proto: &Proto, at: At<'_>) -> Result<Self, ConfigError> {
        let Proto { address_prefix, prefix_len } = proto;
        let address: IpAddr = address_prefix
            .parse()
            .map_err(|_| at.field("address_prefix").error(format_args!("malformed IP address: {address_prefix}")))?;
        // An unset length is 0 in Envoy: the whole family.
        let length = prefix_len.as_ref().map_or(0, |len| u8::try_from(len.value).unwrap_or(u8::MAX));
        Ok(Self::new(address, length))
    }

    /// The range of all addresses that share `length` bits with `address`.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let length = length.min(if address.is_ipv4() { 32 } else { 128 });
        Self { base: masked(address, length), length }
    }

    /// Whether the address is inside. An IPv4 address is never inside an IPv6 range, nor the reverse.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.length) == self.base
    }

    /// The first address of the range.
    #[must_use]
    pub const fn base(&self) -> IpAddr {
        self.base
    }

    /// How many bits are fixed.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }
}

/// Several ranges; an address is inside when one of them holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CidrSet(Box<[CidrRange]>);

impl CidrSet {
    /// Checks a list of ranges.
    ///
    /// # Errors
    /// When an address is no IP address.
    pub fn parse(protos: &[Proto], at: At<'_>) -> Result<Self, ConfigError> {
        protos.iter().enumerate().map(|(n, proto)| CidrRange::parse(proto, at.index(n))).collect()
    }

    /// Whether the address is inside one of the ranges.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// Whether there is no range.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<CidrRange> for CidrSet {
    fn from_iter<T: IntoIterator<Item = CidrRange>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_table() {
        for (base, length, inside, outside) in [
            ("10.1.2.3", 8, "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0", 0, "255.1.1.1", "::1"),
            ("2001:db8::1", 32, "2001:db8:ffff::", "2001:db9::"),
            ("::", 0, "::1", "127.0.0.1"),
            ("10.1.2.3", 200, "10.1.2.3", "10.1.2.2"),
        ] {
            let range = CidrRange::new(base.parse().expect("address"), length);
            assert!(range.contains(inside.parse().expect("address")), "{base}/{length} {inside}");
            assert!(!range.contains(outside.parse().expect("address")), "{base}/{length} {outside}");
        }
    }
}

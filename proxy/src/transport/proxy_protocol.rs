//! The PROXY header, as it is sent: who the client is, to an upstream that takes the word of whoever connects.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use filters::stream_info::Address;

/// `ProxyProtocolConfig.version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the connection is somebody else's (`PROXY`) or the proxy's own (`LOCAL`).
const V2_PROXY: u8 = 0x21;
const V2_LOCAL: u8 = 0x20;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The header for a connection from `source` to `destination`. Where either is no IP address it says so little as it may.
#[must_use]
pub fn header(version: ProxyProtocolVersion, source: &Address, destination: &Address) -> Bytes {
    let addresses = source.ip().zip(destination.ip()).map(|(source, destination)| same_family(source, destination));
    match (version, addresses) {
        (ProxyProtocolVersion::V1, Some((source, destination))) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into()
        }
        (ProxyProtocolVersion::V1, None) => Bytes::from_static(b"PROXY UNKNOWN\r\n"),
        (ProxyProtocolVersion::V2, Some((source, destination))) => {
            let (family, length) = if source.is_ipv4() { (V2_TCP4, 12_u16) } else { (V2_TCP6, 36) };
            let mut header = V2_SIGNATURE.to_vec();
            header.extend([V2_PROXY, family]);
            header.extend(length.to_be_bytes());
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(ip) => header.extend(ip.octets()),
                    IpAddr::V6(ip) => header.extend(ip.octets()),
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            header.into()
        }
        (ProxyProtocolVersion::V2, None) => [V2_SIGNATURE, &[V2_LOCAL, 0, 0, 0]].concat().into(),
    }
}

/// A header has one family: if only one address is of version 4, it is written as one of version 6.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(source), mapped(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: ProxyProtocolVersion, source: &str, destination: &str) -> Bytes {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        header(version, &address(source), &address(destination))
    }

    #[test]
    fn a_line_names_family_addresses_and_ports() {
        use ProxyProtocolVersion::V1;
        assert_eq!(written(V1, "1.2.3.4:5", "6.7.8.9:80"), "PROXY TCP4 1.2.3.4 6.7.8.9 5 80\r\n");
        assert_eq!(written(V1, "[2001:db8::1]:5", "[::1]:80"), "PROXY TCP6 2001:db8::1 ::1 5 80\r\n");
        assert_eq!(written(V1, "1.2.3.4:5", "[::1]:80"), "PROXY TCP6 ::ffff:1.2.3.4 ::1 5 80\r\n");
        let pipe = Address::Pipe("/x".into());
        assert_eq!(header(V1, &pipe, &pipe), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_binary_form_has_lengths_that_fit() {
        use ProxyProtocolVersion::V2;
        let four = written(V2, "1.2.3.4:258", "6.7.8.9:80");
        assert_eq!(&four[12..], [0x21, 0x11, 0, 12, 1, 2, 3, 4, 6, 7, 8, 9, 1, 2, 0, 80]);
        assert_eq!(written(V2, "[::1]:1", "[::2]:2").len(), 16 + 36);
        let pipe = Address::Pipe("/x".into());
        assert_eq!(&header(V2, &pipe, &pipe)[12..], [0x20, 0, 0, 0]);
    }
}

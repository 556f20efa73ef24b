//! The PROXY header, as it is sent: who the client is, to an upstream that takes the word of whoever connects.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use filters::stream_info::{Address, Tlv};

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
    header_with(version, source, destination, &[]).0
}

/// The same with further facts, which only version 2 can tell; whether there was room for all of them.
#[must_use]
pub fn header_with(
    version: ProxyProtocolVersion,
    source: &Address,
    destination: &Address,
    tlvs: &[Tlv],
) -> (Bytes, bool) {
    let addresses = source.ip().zip(destination.ip()).map(|(source, destination)| same_family(source, destination));
    match (version, addresses) {
        (ProxyProtocolVersion::V1, Some((source, destination))) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            (format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into(), true)
        }
        (ProxyProtocolVersion::V1, None) => (Bytes::from_static(b"PROXY UNKNOWN\r\n"), true),
        (ProxyProtocolVersion::V2, Some((source, destination))) => {
            let (family, addresses) = if source.is_ipv4() { (V2_TCP4, 12_u16) } else { (V2_TCP6, 36) };
            let (tlvs, complete) = v2_tlvs(tlvs, u16::MAX - addresses);
            let mut header = V2_SIGNATURE.to_vec();
            header.extend([V2_PROXY, family]);
            let length = usize::from(addresses) + tlvs.len();
            header.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(ip) => header.extend(ip.octets()),
                    IpAddr::V6(ip) => header.extend(ip.octets()),
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            header.extend(tlvs);
            (header.into(), complete)
        }
        (ProxyProtocolVersion::V2, None) => (own_v2(), true),
    }
}

/// The header of a connection that is the proxy's own, not a client's.
#[must_use]
pub fn own(version: ProxyProtocolVersion, local: Option<SocketAddr>, peer: &Address) -> Bytes {
    match (version, local) {
        (ProxyProtocolVersion::V2, _) => own_v2(),
        (ProxyProtocolVersion::V1, Some(local)) => header(version, &Address::Ip(local), peer),
        (ProxyProtocolVersion::V1, None) => header(version, peer, &Address::Pipe("".into())),
    }
}

fn own_v2() -> Bytes {
    [V2_SIGNATURE, &[V2_LOCAL, 0, 0, 0]].concat().into()
}

/// Type, length and value of each for which there is room, and whether that is all of them.
fn v2_tlvs(tlvs: &[Tlv], room: u16) -> (Vec<u8>, bool) {
    let (mut bytes, mut complete) = (Vec::new(), true);
    for Tlv { kind, value } in tlvs {
        match u16::try_from(value.len()) {
            Ok(length) if bytes.len() + 3 + value.len() <= usize::from(room) => {
                bytes.push(*kind);
                bytes.extend(length.to_be_bytes());
                bytes.extend_from_slice(value);
            }
            _ => complete = false,
        }
    }
    (bytes, complete)
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

    #[test]
    fn facts_follow_the_addresses_as_far_as_there_is_room() {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let (from, to) = (address("1.2.3.4:1"), address("1.2.3.4:2"));
        let tlv = |kind, length: usize| Tlv { kind, value: vec![7; length].into() };
        let with = |tlvs: &[Tlv]| header_with(ProxyProtocolVersion::V2, &from, &to, tlvs);
        let (bytes, complete) = with(&[tlv(1, 2), tlv(2, 0)]);
        assert!(complete);
        assert_eq!((&bytes[14..16], &bytes[28..]), (&[0, 12 + 5 + 3][..], &[1, 0, 2, 7, 7, 2, 0, 0][..]));
        // 65535 - 12 bytes are left for them.
        let (bytes, complete) = with(&[tlv(1, 65_000), tlv(2, 518), tlv(3, 517)]);
        assert_eq!((bytes.len(), complete), (16 + 65_535, false), "one that fits comes after one that does not");
        let (bytes, complete) = with(&[tlv(1, 70_000)]);
        assert_eq!((bytes.len(), complete), (16 + 12, false));
        let (line, _) = header_with(ProxyProtocolVersion::V1, &from, &to, &[tlv(1, 1)]);
        assert_eq!(line, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n");
    }

    #[test]
    fn a_connection_of_its_own_names_its_own_ends() {
        let peer = Address::Ip("1.2.3.4:5".parse().unwrap());
        let local = Some("9.9.9.9:9".parse().unwrap());
        assert_eq!(own(ProxyProtocolVersion::V1, local, &peer), "PROXY TCP4 9.9.9.9 1.2.3.4 9 5\r\n");
        assert_eq!(&own(ProxyProtocolVersion::V2, local, &peer)[12..], [0x20, 0, 0, 0]);
    }
}

//! `envoy.filters.listener.proxy_protocol`: the PROXY header, versions 1 and 2, with Envoy's verdict on each malformed
//! one. Bytes that cannot become a header are judged at once; Envoy waits for the sixteenth.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use filters::stream_info::Tlv;
use serde_json::{Map, Value};

use super::{Answer, FilterCounter};
use crate::config::listener::listener_filter::ProxyProtocolConfig;

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// The longest line of version 1 with its CRLF.
const V1_MAX: usize = 108;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEADER: usize = 16;

/// What a header said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Header {
    /// Peer and local address; `None` when the header leaves the socket's own.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// TLVs a rule keeps.
    pub(super) metadata: Option<Box<Map<String, Value>>>,
    /// Facts that upstreams may be told.
    pub(super) tlvs: Vec<Tlv>,
}

/// The header is malformed.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// A version's answer, if it has one already.
enum Read {
    NeedMore(usize),
    Done { length: usize, header: Header },
}

pub(super) fn inspect(
    config: &ProxyProtocolConfig,
    bytes: &[u8],
    count: &impl Fn(FilterCounter),
) -> (Answer, Option<Header>) {
    let (v1, v2) = (begins(bytes, V1_SIGNATURE), begins(bytes, V2_SIGNATURE));
    // Where anything may pass, a version that is not allowed is like no header at all.
    let passes = config.allow_requests_without_proxy_protocol;
    let (v1, v2) = (v1 && (config.allow_v1 || !passes), v2 && (config.allow_v2 || !passes));
    if !v1 && !v2 {
        if passes {
            count(FilterCounter::ProxyNotFoundAllowed);
            return (Answer::Continue { consumed: 0 }, None);
        }
        count(FilterCounter::ProxyNotFoundDisallowed);
        count(FilterCounter::ProxyError);
        return (Answer::Reject, None);
    }
    let version = if v1 { &V1 } else { &V2 };
    if bytes.len() < version.signature {
        // The next byte may already say that this is no header.
        return (Answer::NeedMore(bytes.len() + 1), None);
    }
    if !(if v1 { config.allow_v1 } else { config.allow_v2 }) {
        count(version.found);
        count(version.disallowed);
        return (Answer::Reject, None);
    }
    match (version.read)(config, bytes) {
        Ok(Read::NeedMore(length)) => (Answer::NeedMore(length), None),
        Ok(Read::Done { length, header }) => {
            count(version.found);
            (Answer::Continue { consumed: length }, Some(header))
        }
        Err(Malformed) => {
            count(version.error);
            count(FilterCounter::ProxyError);
            (Answer::Reject, None)
        }
    }
}

struct Version {
    signature: usize,
    read: fn(&ProxyProtocolConfig, &[u8]) -> Result<Read, Malformed>,
    found: FilterCounter,
    disallowed: FilterCounter,
    error: FilterCounter,
}

static V1: Version = Version {
    signature: V1_SIGNATURE.len(),
    read: read_v1,
    found: FilterCounter::ProxyV1Found,
    disallowed: FilterCounter::ProxyV1Disallowed,
    error: FilterCounter::ProxyV1Error,
};

static V2: Version = Version {
    signature: V2_SIGNATURE.len(),
    read: read_v2,
    found: FilterCounter::ProxyV2Found,
    disallowed: FilterCounter::ProxyV2Disallowed,
    error: FilterCounter::ProxyV2Error,
};

/// Whether `bytes` start with `signature`, as far as they go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    signature.iter().zip(bytes).all(|(want, got)| want == got)
}

/// `PROXY TCP4|TCP6 source destination port port CRLF` or `PROXY UNKNOWN anything CRLF`.
fn read_v1(_config: &ProxyProtocolConfig, bytes: &[u8]) -> Result<Read, Malformed> {
    let window = bytes.get(..V1_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_MAX { Ok(Read::NeedMore(bytes.len() + 1)) } else { Err(Malformed) };
    };
    let line = window.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed)?;
    let parts: Vec<_> = line.trim_ascii().split(' ').collect();
    let addresses = match *parts.as_slice() {
        [_, "UNKNOWN", ..] => None,
        [_, family, remote, local, remote_port, local_port] => {
            let address = |ip: &str| -> Result<IpAddr, Malformed> {
                match family {
                    "TCP4" => ip.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Malformed),
                    "TCP6" => ip.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Malformed),
                    _ => Err(Malformed),
                }
            };
            let port = |text: &str| text.parse::<u16>().map_err(|_| Malformed);
            let remote = SocketAddr::new(address(remote)?, port(remote_port)?);
            let local = SocketAddr::new(address(local)?, port(local_port)?);
            Some((unicast(remote)?, unicast(local)?))
        }
        _ => return Err(Malformed),
    };
    Ok(Read::Done { length: end + 2, header: Header { addresses, ..Header::default() } })
}

/// Signature, version and command, family and transport, length; addresses; TLVs.
fn read_v2(config: &ProxyProtocolConfig, bytes: &[u8]) -> Result<Read, Malformed> {
    let Some(&[command, family, high, low]) = bytes.get(V2_SIGNATURE.len()..V2_HEADER) else {
        return Ok(Read::NeedMore(V2_HEADER));
    };
    let length = V2_HEADER + usize::from(u16::from_be_bytes([high, low]));
    // What can be refused is refused before waiting for up to 64 KiB of it.
    let addresses_length = match (command, family) {
        (0x20, _) => None,
        (0x21, 0x11 | 0x12) => Some(12),
        (0x21, 0x21 | 0x22) => Some(36),
        _ => return Err(Malformed),
    };
    if addresses_length.is_some_and(|needed| length < V2_HEADER + needed) {
        return Err(Malformed);
    }
    let Some(payload) = bytes.get(V2_HEADER..length) else { return Ok(Read::NeedMore(length)) };
    let Some(addresses_length) = addresses_length else {
        // LOCAL: the proxy speaks for itself; whatever follows is skipped unread.
        return Ok(Read::Done { length, header: Header::default() });
    };
    let (addresses, tlvs) = payload.split_at_checked(addresses_length).ok_or(Malformed)?;
    let (remote, local) = v2_addresses(addresses).ok_or(Malformed)?;
    let addresses = Some((unicast(remote)?, unicast(local)?));
    let (metadata, tlvs) = kept_tlvs(config, tlvs)?;
    let header = Header { addresses, metadata, tlvs };
    Ok(Read::Done { length, header })
}

/// Source address, destination address, source port, destination port.
fn v2_addresses(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (addresses, ports) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let (remote, local) = addresses.split_at_checked(addresses.len() / 2)?;
    let ip = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let &[a, b, c, d] = ports else { return None };
    Some((
        SocketAddr::new(ip(remote)?, u16::from_be_bytes([a, b])),
        SocketAddr::new(ip(local)?, u16::from_be_bytes([c, d])),
    ))
}

/// TLVs as metadata, and as they are.
type Kept = (Option<Box<Map<String, Value>>>, Vec<Tlv>);

/// The TLVs the rules ask for, of which of two of one type the later wins, and those that are passed on; all of them must be
/// well formed.
fn kept_tlvs(config: &ProxyProtocolConfig, mut bytes: &[u8]) -> Result<Kept, Malformed> {
    let (mut kept, mut passed) = (Map::new(), Vec::new());
    while !bytes.is_empty() {
        let (&[kind, high, low], rest) = bytes.split_first_chunk().ok_or(Malformed)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        for rule in config.rules.iter().filter(|rule| rule.tlv_type == kind) {
            let value = if rule.base64 { STANDARD.encode(value) } else { sanitized(value) };
            let space = kept.entry(&*rule.namespace).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(space) = space {
                space.insert(rule.key.to_string(), Value::String(value));
            }
        }
        let tlv = Tlv { kind, value: Bytes::copy_from_slice(value) };
        if config.pass.passes(&tlv) {
            passed.push(tlv);
        }
        bytes = rest;
    }
    Ok(((!kept.is_empty()).then(|| Box::new(kept)), passed))
}

/// Each byte that is part of no valid UTF-8 sequence becomes `!`.
fn sanitized(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

/// Only an address a connection can have.
fn unicast(address: SocketAddr) -> Result<SocketAddr, Malformed> {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast { Err(Malformed) } else { Ok(address) }
}

//! Whose request it is: the client address, and whether it may be trusted to be internal.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use bytes::Bytes;
use filters::http::{HeaderName, Headers, Known, RequestHead};
use filters::stream_info::{Address, ConnectionInfo};

use super::{Peer, RequestHygiene};
use filters::matcher::CidrSet;

/// One of `original_ip_detection_extensions`.
#[derive(Debug, Clone)]
pub enum Detection {
    /// `envoy.http.original_ip_detection.xff`
    Xff {
        /// How many addresses at the right end belong to trusted proxies.
        hops: u32,
        /// Addresses of trusted proxies, instead of a count; asked of the peer as well.
        trusted: Option<CidrSet>,
        /// Do not append the peer.
        skip_append: bool,
    },
    /// `envoy.http.original_ip_detection.custom_header`
    CustomHeader {
        /// The header that holds the address.
        name: HeaderName,
        /// Whether the address found may make the request internal.
        trusted: bool,
        /// Answer this status when the header is missing or no address.
        reject_with: Option<u16>,
    },
}

/// A client address and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginalIp {
    /// The address; `None` for the connection's peer.
    pub address: Option<Address>,
    /// Whether it may make the request internal.
    pub trusted: bool,
}

/// A request that is answered at once because its client address could not be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Status to answer.
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: &'static str,
}

impl RequestHygiene {
    /// Finds the client address and appends the peer to `x-forwarded-for`.
    pub(super) fn client_address(
        &self,
        head: &mut RequestHead,
        peer: &Peer,
        connection: &ConnectionInfo,
    ) -> Result<OriginalIp, Rejection> {
        join(&mut head.headers);
        if self.use_remote_address {
            let forwarded = head.headers.value(&Known::XForwardedFor);
            let trusted = forwarded.is_none();
            let address = match (self.xff_num_trusted_hops, forwarded) {
                (hops @ 1.., Some(list)) => nth_from_the_right(list, hops - 1).map(|(ip, _)| address(ip)),
                _ => None,
            };
            if !self.skip_xff_append {
                append(&mut head.headers, peer);
            }
            return Ok(OriginalIp { address, trusted });
        }
        if self.detection.is_empty() {
            let found = head.headers.value(&Known::XForwardedFor);
            let found = found.and_then(|list| nth_from_the_right(list, self.xff_num_trusted_hops));
            return Ok(match found {
                Some((ip, single)) => OriginalIp { address: Some(address(ip)), trusted: single },
                None => OriginalIp::default(),
            });
        }
        for detection in &self.detection {
            let (found, skip_append) = detection.detect(head, connection)?;
            if !skip_append {
                append(&mut head.headers, peer);
            }
            if found.address.is_some() {
                return Ok(found);
            }
        }
        Ok(OriginalIp::default())
    }
}

impl Detection {
    fn detect(&self, head: &RequestHead, connection: &ConnectionInfo) -> Result<(OriginalIp, bool), Rejection> {
        match self {
            Self::Xff { hops, trusted, skip_append } => {
                let list = head.headers.value(&Known::XForwardedFor);
                let found = match (trusted, list) {
                    (_, None) => None,
                    (None, Some(list)) => nth_from_the_right(list, *hops),
                    (Some(trusted), Some(list)) => match connection.remote.ip() {
                        Some(peer) if trusted.contains(peer.ip()) => {
                            last_untrusted(list, trusted).map(|ip| (ip, false))
                        }
                        _ => None,
                    },
                };
                let found = match found {
                    Some((ip, single)) => OriginalIp { address: Some(address(ip)), trusted: single },
                    None => OriginalIp::default(),
                };
                Ok((found, *skip_append))
            }
            Self::CustomHeader { name, trusted, reject_with } => {
                match head.headers.value(name).and_then(|value| parse(value)) {
                    Some(ip) => Ok((OriginalIp { address: Some(address(ip)), trusted: *trusted }, true)),
                    None => match reject_with {
                        Some(status) => {
                            Err(Rejection { status: *status, details: "rejecting_because_detection_failed" })
                        }
                        None => Ok((OriginalIp::default(), true)),
                    },
                }
            }
        }
    }
}

/// An address as headers show it.
pub(super) fn text(ip: IpAddr) -> Bytes {
    ip.to_string().into()
}

/// The address `skip` places from the right end of an `x-forwarded-for` list, and whether it was the only one.
fn nth_from_the_right(list: &[u8], skip: u32) -> Option<(IpAddr, bool)> {
    let mut rest = list;
    for _ in 0..skip {
        rest = &rest[..memchr::memrchr(b',', rest)?];
    }
    match memchr::memrchr(b',', rest) {
        Some(comma) => parse(&rest[comma + 1..]).map(|ip| (ip, false)),
        None => parse(rest).map(|ip| (ip, skip == 0)),
    }
}

/// Walking from the right, the first address that is no trusted proxy's; the leftmost one when all are.
fn last_untrusted(list: &[u8], trusted: &CidrSet) -> Option<IpAddr> {
    let mut last = None;
    for item in list.rsplit(|byte| *byte == b',') {
        let ip = parse(item)?;
        if !trusted.contains(ip) {
            return Some(ip);
        }
        last = Some(ip);
    }
    last
}

/// An address without a port, white space around it allowed.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    // The common case first: this avoids trying IPv6 on every IPv4 address.
    Ipv4Addr::from_str(text).map(IpAddr::V4).ok().or_else(|| IpAddr::from_str(text).ok())
}

const fn address(ip: IpAddr) -> Address {
    Address::Ip(SocketAddr::new(ip, 0))
}

/// Appends the peer to `x-forwarded-for`.
fn append(headers: &mut Headers, peer: &Peer) {
    let Some(peer) = &peer.forwarded_for else { return };
    match headers.value(&Known::XForwardedFor) {
        Some(seen) if !seen.is_empty() => {
            let joined = [&seen[..], b",", peer].concat();
            headers.set(Known::XForwardedFor, joined);
        }
        _ => headers.set(Known::XForwardedFor, peer.clone()),
    }
}

/// Makes one line of several `x-forwarded-for` lines, as a list header allows.
fn join(headers: &mut Headers) {
    if headers.values(&Known::XForwardedFor).nth(1).is_none() {
        return;
    }
    let joined = headers.values(&Known::XForwardedFor).map(|value| &value[..]).collect::<Vec<_>>().join(&b","[..]);
    headers.set(Known::XForwardedFor, joined);
}

//! Addresses and host names, whole or in part.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::super::command::{AddressForm, Side};
use super::{number, text_of};
use crate::matcher::CidrRange;
use crate::stream_info::{Address, StreamInfo, UpstreamInfo};

/// An address of one of the four ends, borrowed or as the socket gave it.
pub(super) enum At<'a> {
    Any(&'a Address),
    Socket(SocketAddr),
}

pub(super) fn side(side: Side, info: &StreamInfo) -> Option<At<'_>> {
    let connection = &info.connection;
    Some(match side {
        Side::UpstreamLocal => At::Socket(info.upstream.as_ref()?.local?),
        Side::UpstreamRemote => At::Any(info.upstream.as_ref().filter(|upstream| upstream.connected)?.host.as_deref()?),
        Side::DownstreamRemote => At::Any(&info.remote),
        Side::DownstreamDirectRemote => At::Any(&connection.direct_remote),
        Side::DownstreamLocal => At::Any(&connection.local),
        Side::DownstreamDirectLocal => At::Any(&connection.direct_local),
    })
}

impl At<'_> {
    pub(super) fn append(&self, out: &mut Vec<u8>, form: AddressForm) -> bool {
        let ip = match self {
            At::Any(address) => address.ip(),
            At::Socket(address) => Some(*address),
        };
        match (form, ip, self) {
            (AddressForm::Full, Some(ip), _) => socket(out, ip),
            (AddressForm::WithoutPort(None), Some(at), _) => ip_address(out, at.ip()),
            (AddressForm::WithoutPort(Some(bits)), Some(at), _) => {
                let range = CidrRange::new(at.ip(), bits);
                ip_address(out, range.base());
                out.push(b'/');
                number(out, range.length().into())
            }
            (AddressForm::Port, Some(at), _) => number(out, at.port().into()),
            (AddressForm::Port, None, _) => false,
            (AddressForm::EndpointId, ..) => true,
            (_, None, At::Any(at)) => address(out, at, true),
            (_, None, At::Socket(_)) => false,
        }
    }
}

pub(super) fn address(out: &mut Vec<u8>, address: &Address, port: bool) -> bool {
    match address {
        Address::Ip(at) if port => socket(out, *at),
        Address::Ip(at) => ip_address(out, at.ip()),
        other => {
            let _ = write!(out, "{other}");
            true
        }
    }
}

pub(super) fn socket(out: &mut Vec<u8>, at: SocketAddr) -> bool {
    match at.ip() {
        IpAddr::V4(_) => ip_address(out, at.ip()),
        IpAddr::V6(_) => {
            out.push(b'[');
            ip_address(out, at.ip());
            out.push(b']');
            true
        }
    };
    out.push(b':');
    number(out, at.port().into())
}

pub(super) fn ip_address(out: &mut Vec<u8>, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => list_dotted(out, ip.octets()),
        IpAddr::V6(ip) => {
            let _ = write!(out, "{ip}");
        }
    }
    true
}

fn list_dotted(out: &mut Vec<u8>, octets: [u8; 4]) {
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(out, octet.into());
    }
}

/// The host's name, or its address where it has none.
pub(super) fn host_name(out: &mut Vec<u8>, upstream: &UpstreamInfo, port: bool) -> bool {
    match (upstream.host_name.as_deref().filter(|name| !name.is_empty()), upstream.host.as_deref()) {
        (Some(name), _) if port => text_of(out, Some(name.as_bytes())),
        (Some(name), _) => text_of(out, Some(without_port(name.as_bytes()))),
        (None, Some(host)) => address(out, host, port),
        (None, None) => false,
    }
}

pub(super) fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

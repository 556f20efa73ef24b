//! Request targets (RFC 9112 section 3.2) and authorities, as Envoy takes them apart.

use std::net::Ipv6Addr;

use bytes::Bytes;
use filters::flags::details;
use filters::http::{Method, Scheme};

use super::DecodeError;

/// A request target taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: Bytes,
    /// The scheme and authority of an absolute form; the authority of a CONNECT.
    pub(super) scheme: Option<Scheme>,
    pub(super) authority: Option<Bytes>,
}

/// What the options say about targets.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetRules {
    pub(super) allow_absolute_url: bool,
    pub(super) reject_https: bool,
}

/// The first check, on shape alone: a target that fails it is no request line at all.
pub(super) fn check_target(method: &Method, target: &[u8]) -> Result<(), DecodeError> {
    let well_formed = match target.first() {
        None => false,
        Some(_) if *method == Method::Connect => true,
        Some(b'/' | b'*') => true,
        Some(_) => is_url_shaped(target),
    };
    if well_formed && target.is_ascii() { Ok(()) } else { Err(DecodeError::codec()) }
}

/// Takes a target that passed [`check_target`] apart.
pub(super) fn parse_target(method: &Method, target: Bytes, rules: TargetRules) -> Result<Target, DecodeError> {
    let invalid = || DecodeError::new(400, details::HTTP1_INVALID_URL);
    let connect = *method == Method::Connect;
    if !connect {
        let relative = matches!(target.first(), Some(b'/'))
            || (*method == Method::Options && matches!(target.first(), Some(b'*')))
            || !rules.allow_absolute_url;
        if relative {
            return Ok(Target { path: target, scheme: None, authority: None });
        }
    }
    if connect {
        let (_, port) = split_port(&target).ok_or_else(invalid)?;
        port.ok_or_else(invalid)?;
        return Ok(Target { path: Bytes::new(), scheme: None, authority: Some(target) });
    }

    let colon = memchr::memmem::find(&target, b"://").ok_or_else(invalid)?;
    let start = colon + 3;
    let end = target[start..].iter().position(|b| matches!(b, b'/' | b'?')).map_or(target.len(), |at| start + at);
    // User information is dropped, as it is by browsers.
    let host = memchr::memchr(b'@', &target[start..end]).map_or(start, |at| start + at + 1);
    split_port(&target[host..end]).ok_or_else(invalid)?;
    let scheme = match &target[..colon] {
        s if s.eq_ignore_ascii_case(b"http") => Scheme::Http,
        s if s.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => return Err(DecodeError::new(400, details::HTTP1_INVALID_SCHEME)),
    };
    if scheme == Scheme::Https && rules.reject_https {
        return Err(DecodeError::new(403, details::HTTP1_HTTPS_URL_ON_PLAINTEXT));
    }
    let path = if end == target.len() { Bytes::from_static(b"/") } else { target.slice(end..) };
    Ok(Target { path, scheme: Some(scheme), authority: Some(target.slice(host..end)) })
}

/// Whether a `host` value holds only what an authority may hold (RFC 3986 section 3.2).
pub(super) fn is_authority(value: &[u8]) -> bool {
    value.iter().all(|byte| AUTHORITY[*byte as usize])
}

/// Letters, `://`, authority characters, then anything from the first `/` or `?` on.
fn is_url_shaped(target: &[u8]) -> bool {
    let letters = target.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let Some(rest) = target.get(letters..).and_then(|rest| rest.strip_prefix(b"://")) else { return false };
    letters > 0 && rest.iter().take_while(|b| !matches!(b, b'/' | b'?')).all(|b| AUTHORITY[*b as usize])
}

/// Splits `host:port`; `None` when the host is no name or address, or the port no port.
fn split_port(authority: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, rest) = match authority.strip_prefix(b"[") {
        Some(after) => {
            let (address, rest) = after.split_at(memchr::memchr(b']', after)?);
            std::str::from_utf8(address).ok()?.parse::<Ipv6Addr>().ok()?;
            (address, rest.get(1..)?)
        }
        None => {
            let (name, rest) = authority.split_at(memchr::memchr(b':', authority).unwrap_or(authority.len()));
            let named = !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
            (named.then_some(name)?, rest)
        }
    };
    match rest {
        [] => Some((host, None)),
        [b':', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            Some((host, Some(std::str::from_utf8(digits).ok()?.parse().ok()?)))
        }
        _ => None,
    }
}

const AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'['
                    | b']'
                    | b'%'
            );
        byte += 1;
    }
    table
};

//! Headers that end at a connection (RFC 9110 section 7.6.1).

use bytes::Bytes;
use filters::flags::details;
use filters::http::{HeaderName, Headers, Known};

use super::DecodeError;
use super::chars::list;
use super::request::UpgradeMatcher;

/// More members make `connection` suspicious.
const MAX_NOMINATED: usize = 10;

/// A nominated `te` value of this length or more is refused.
const MAX_TE: usize = 256;

/// Removes what a request says to this connection only: `connection` and its kin, and codings other than trailers from
/// `te`. An upgrade request keeps `connection` and `upgrade`. The headers `connection` nominates are gone already: the
/// decoder removes them.
pub fn sanitize_request(headers: &mut Headers, upgrade: bool) {
    let mut trailers = false;
    headers.retain(|header| match header.name.known() {
        Some(Known::Connection | Known::Upgrade) => upgrade,
        Some(Known::KeepAlive | Known::ProxyConnection | Known::TransferEncoding) => false,
        Some(Known::Te) => {
            let first = !trailers && names_trailers(&header.value);
            trailers |= first;
            first
        }
        _ => true,
    });
    if trailers {
        headers.set(Known::Te, Bytes::from_static(b"trailers"));
    }
}

/// Removes what a response says to this connection only. A response that switches protocols keeps `connection` and
/// `upgrade`. As in Envoy, headers its `connection` nominates stay.
pub fn sanitize_response(headers: &mut Headers, upgrade: bool) {
    headers.retain(|header| match header.name.known() {
        Some(Known::Connection | Known::Upgrade) => upgrade,
        Some(Known::KeepAlive | Known::ProxyConnection | Known::TransferEncoding) => false,
        _ => true,
    });
}

/// Removes the upgrades a request must not be served with: `h2c` always (with what belongs to it), and those `ignore`
/// names. Answers what is left of the `upgrade` value.
pub(super) fn drop_upgrade(headers: &mut Headers, value: Bytes, ignore: Option<&UpgradeMatcher>) -> Option<Bytes> {
    if value.eq_ignore_ascii_case(b"h2c") {
        headers.remove(&Known::Upgrade);
        headers.remove(&Known::Http2Settings);
        drop_connection_tokens(headers, &[b"upgrade", b"http2-settings"]);
        return None;
    }
    let Some(ignore) = ignore else { return Some(value) };
    let kept: Vec<&[u8]> = list(&value).filter(|token| !token.is_empty() && !ignore(token)).collect();
    if kept.is_empty() {
        headers.remove(&Known::Upgrade);
        drop_connection_tokens(headers, &[b"upgrade"]);
        return None;
    }
    let kept = Bytes::from(kept.join(&b","[..]));
    headers.set(Known::Upgrade, kept.clone());
    Some(kept)
}

fn drop_connection_tokens(headers: &mut Headers, tokens: &[&[u8]]) {
    for header in headers.iter_mut().filter(|h| h.name == Known::Connection) {
        let kept: Vec<&[u8]> =
            list(&header.value).filter(|token| !tokens.iter().any(|drop| token.eq_ignore_ascii_case(drop))).collect();
        header.value = Bytes::from(kept.join(&b","[..]));
    }
    headers.retain(|header| header.name != Known::Connection || !header.value.is_empty());
}

/// Removes the headers a request's `connection` nominates; answers whether `host` was one of them, which then counts as
/// missing.
///
/// # Errors
/// `http1.connection_header_rejected` when it nominates a pseudo header, `x-forwarded-for`, `-host` or `-proto`, or too
/// much.
pub(super) fn remove_nominated(headers: &mut Headers) -> Result<bool, DecodeError> {
    let rejected = || DecodeError::new(400, details::HTTP1_CONNECTION_HEADER_REJECTED);
    let values: Vec<Bytes> = headers.values(&Known::Connection).cloned().collect();
    if values.iter().map(|value| list(value).count()).sum::<usize>() >= MAX_NOMINATED {
        return Err(rejected());
    }
    let mut host = false;
    for token in values.iter().flat_map(|value| list(value)) {
        if token.first() == Some(&b':') {
            return Err(rejected());
        }
        // What is no token names no header.
        let Some(name) = HeaderName::parse(token) else { continue };
        match name.known() {
            Some(Known::XForwardedFor | Known::XForwardedHost | Known::XForwardedProto) => return Err(rejected()),
            Some(Known::Te) => {
                if headers.values(&Known::Te).any(|te| te.len() >= MAX_TE) {
                    return Err(rejected());
                }
            }
            // Removed below or owned by the codec; an upgrade that is none here stays none.
            Some(Known::Connection | Known::Upgrade | Known::Http2Settings) => {}
            Some(Known::Host) => host = true,
            _ => {
                headers.remove(&name);
            }
        }
    }
    Ok(host)
}

fn names_trailers(te: &[u8]) -> bool {
    list(te).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

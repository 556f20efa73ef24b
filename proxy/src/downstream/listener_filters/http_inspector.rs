//! `envoy.filters.listener.http_inspector`: which HTTP a plain-text connection speaks, from its request line or the
//! HTTP/2 preface (RFC 9113 section 3.4). As lenient as Envoy: this only chooses a filter chain, the codec judges.

use super::{Answer, Detected, FilterCounter, TLS};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request line that is not over by then is no HTTP.
const MAX_INSPECT: usize = 64 * 1024;

pub(super) fn inspect(bytes: &[u8], detected: &mut Detected, count: &impl Fn(FilterCounter)) -> Answer {
    const CONTINUE: Answer = Answer::Continue { consumed: 0 };
    if detected.transport_protocol == Some(TLS) {
        return CONTINUE;
    }
    let (counter, protocol): (_, &[u8]) = match look(bytes) {
        None => return Answer::NeedMore(bytes.len() + 1),
        Some(Found::Http10) => (FilterCounter::Http10Found, b"http/1.0"),
        Some(Found::Http11) => (FilterCounter::Http11Found, b"http/1.1"),
        Some(Found::Http2) => (FilterCounter::Http2Found, b"h2c"),
        Some(Found::Nothing) => {
            count(FilterCounter::HttpNotFound);
            return CONTINUE;
        }
    };
    count(counter);
    detected.application_protocols = vec![protocol.into()];
    CONTINUE
}

enum Found {
    Http10,
    Http11,
    Http2,
    Nothing,
}

/// `None` when more bytes are needed.
fn look(bytes: &[u8]) -> Option<Found> {
    if bytes.starts_with(PREFACE) {
        return Some(Found::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    if let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) {
        return Some(request_line(bytes.get(..end).unwrap_or_default()));
    }
    let method = bytes.split(|byte| is_blank(*byte)).next().unwrap_or_default();
    let hopeless = !method.iter().all(|byte| is_token(*byte)) || bytes.first().is_some_and(|byte| is_blank(*byte));
    (hopeless || bytes.len() >= MAX_INSPECT).then_some(Found::Nothing)
}

/// `METHOD target [HTTP/x.y]`, any blanks between.
fn request_line(line: &[u8]) -> Found {
    if line.first().is_none_or(|byte| is_blank(*byte)) {
        return Found::Nothing;
    }
    let mut parts = line.split(|byte| is_blank(*byte)).filter(|part| !part.is_empty());
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else { return Found::Nothing };
    let version = parts.next();
    if parts.next().is_some() || !method.iter().all(|byte| is_token(*byte)) || !is_target(method, target) {
        return Found::Nothing;
    }
    match version {
        None => Found::Http10,
        Some(b"HTTP/1.1") => Found::Http11,
        Some(&[b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Found::Http10
        }
        Some(_) => Found::Nothing,
    }
}

fn is_target(method: &[u8], target: &[u8]) -> bool {
    if method == b"CONNECT" || target.starts_with(b"/") || target.starts_with(b"*") {
        return true;
    }
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    scheme > 0 && target.get(scheme..).is_some_and(|rest| rest.starts_with(b"://"))
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

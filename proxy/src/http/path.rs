//! One canonical path and authority, seen alike by routing and by every policy: `normalize_path`, `merge_slashes`,
//! escaped slashes, fragments, and the port or trailing dot of the host.
//!
//! A path that is canonical already is left untouched and costs one scan.

use bytes::Bytes;
use filters::http::RequestHead;

/// The connection manager's settings about paths and hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathOptions {
    /// `normalize_path`
    pub normalize: bool,
    /// `merge_slashes`
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`
    pub escaped_slashes: EscapedSlashes,
    /// `strip_matching_host_port`, `strip_any_host_port`
    pub strip_port: StripPort,
    /// `strip_trailing_host_dot`
    pub strip_trailing_dot: bool,
    /// Cut a fragment off instead of answering 400 (runtime guard `http_reject_path_with_fragment` set to false).
    pub strip_fragment: bool,
}

/// `path_with_escaped_slashes_action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// `KEEP_UNCHANGED`
    #[default]
    Keep,
    /// `REJECT_REQUEST`
    Reject,
    /// `UNESCAPE_AND_REDIRECT`
    Redirect,
    /// `UNESCAPE_AND_FORWARD`
    Forward,
}

/// Which port of a host is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StripPort {
    /// None.
    #[default]
    Never,
    /// The one the client connected to.
    Matching,
    /// Any.
    Any,
}

/// What becomes of a request after its path was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PathVerdict {
    /// It goes on, its path perhaps changed.
    Continue,
    /// 400 without a body, details `path_normalization_failed`.
    Reject,
    /// 307 with `location:` the path as it is now, details `path_normalization_failed`.
    Redirect,
}

impl PathOptions {
    /// Makes the path canonical.
    pub fn normalize(&self, head: &mut RequestHead) -> PathVerdict {
        if head.path.is_empty() {
            return PathVerdict::Continue;
        }
        if let Some(fragment) = memchr::memchr(b'#', &head.path) {
            if !self.strip_fragment {
                return PathVerdict::Reject;
            }
            head.path.truncate(fragment);
        }
        let mut verdict = PathVerdict::Continue;
        if self.escaped_slashes != EscapedSlashes::Keep
            && let Some(unescaped) = unescape_slashes(&head.path)
        {
            // Also the log line of a rejected request shows what was understood.
            head.path = unescaped;
            match self.escaped_slashes {
                EscapedSlashes::Reject => return PathVerdict::Reject,
                EscapedSlashes::Redirect => verdict = PathVerdict::Redirect,
                EscapedSlashes::Forward | EscapedSlashes::Keep => {}
            }
        }
        if self.normalize {
            match canonical(&head.path) {
                Canonical::Already => {}
                Canonical::Changed(path) => head.path = path,
                Canonical::Invalid => return PathVerdict::Reject,
            }
        }
        if self.merge_slashes
            && let Some(merged) = merge_slashes(&head.path)
        {
            head.path = merged;
        }
        verdict
    }

    /// Makes the authority canonical; returns the port that was removed, which a CONNECT needs again on its way
    /// upstream. `local_port` is the port the client connected to.
    pub fn normalize_host(&self, head: &mut RequestHead, local_port: Option<u16>) -> Option<u32> {
        if self.strip_trailing_dot {
            strip_trailing_dot(&mut head.authority);
        }
        let start = match self.strip_port {
            StripPort::Never => return None,
            StripPort::Matching | StripPort::Any => port_start(&head.authority)?,
        };
        let port: u32 = std::str::from_utf8(&head.authority[start + 1..]).ok()?.parse().ok()?;
        if self.strip_port == StripPort::Matching && local_port.map(u32::from) != Some(port) {
            return None;
        }
        head.authority.truncate(start);
        Some(port)
    }
}

/// Whether a host names a port.
#[must_use]
pub fn has_port(host: &[u8]) -> bool {
    port_start(host).is_some()
}

/// Where the colon before a host's port stands: the last one, unless an IPv6 literal closes behind it.
fn port_start(host: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', host)?;
    let literal_goes_on = memchr::memrchr(b']', host).is_some_and(|bracket| bracket > colon);
    (!literal_goes_on).then_some(colon)
}

fn strip_trailing_dot(host: &mut Bytes) {
    let Some(dot) = memchr::memrchr(b'.', host) else { return };
    match host.get(dot + 1) {
        None => host.truncate(dot),
        Some(b':') => *host = [&host[..dot], &host[dot + 1..]].concat().into(),
        Some(_) => {}
    }
}

/// Splits a path from its query; the question mark belongs to the query.
fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(memchr::memchr(b'?', path).unwrap_or(path.len()))
}

/// Replaces `%2F` and `%5C` before the query by what they stand for; `None` when there is none.
fn unescape_slashes(path: &[u8]) -> Option<Bytes> {
    let (before, query) = split_query(path);
    let slash = |at: usize| match before.get(at + 1..at + 3) {
        Some(b"2f" | b"2F") => Some(b'/'),
        Some(b"5c" | b"5C") => Some(b'\\'),
        _ => None,
    };
    memchr::memchr_iter(b'%', before).find(|at| slash(*at).is_some())?;
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < before.len() {
        let escaped = if before[at] == b'%' { slash(at) } else { None };
        out.push(escaped.unwrap_or(before[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out.extend_from_slice(query);
    Some(out.into())
}

/// Makes one slash of every run of slashes before the query; `None` when there is no run. A path of nothing but slashes
/// keeps its first and its last, as in Envoy.
fn merge_slashes(path: &[u8]) -> Option<Bytes> {
    let (before, query) = split_query(path);
    before.windows(2).position(|pair| pair == b"//")?;
    let mut out = Vec::with_capacity(path.len());
    if before.iter().all(|byte| *byte == b'/') {
        out.extend_from_slice(b"//");
        out.extend_from_slice(query);
        return (out.len() < path.len()).then(|| out.into());
    }
    for byte in before {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
    out.extend_from_slice(query);
    Some(out.into())
}

enum Canonical {
    Already,
    Changed(Bytes),
    Invalid,
}

/// Canonical form of a path before its query (RFC 3986 sections 5.2.4 and 6.2.2, with the deviations of browsers and
/// Envoy): `\` is a slash, unreserved characters are not escaped, characters that may not stand in a path are, and dot
/// segments are resolved, also when a parameter hangs on them (`/..;x/`). Other escapes stay as they are; `%00` is
/// invalid.
fn canonical(path: &[u8]) -> Canonical {
    let (before, query) = split_query(path);
    if !needs_work(before) {
        return Canonical::Already;
    }
    let Some(plain) = plain_form(before) else { return Canonical::Invalid };
    let mut out = resolve_dots(&plain);
    out.extend_from_slice(query);
    if out == path { Canonical::Already } else { Canonical::Changed(out.into()) }
}

/// Whether a path may differ from its canonical form.
fn needs_work(path: &[u8]) -> bool {
    let mut previous = 0;
    for byte in path {
        if *byte == b'.' && previous == b'/' || *byte == b'\\' || *byte == b'%' || must_be_escaped(*byte) {
            return true;
        }
        previous = *byte;
    }
    false
}

const fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, 0..=0x20 | 0x7f.. | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Slashes and escapes in their canonical spelling; `None` for `%00`.
fn plain_form(path: &[u8]) -> Option<Vec<u8>> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        at += 1;
        match byte {
            b'\\' => out.push(b'/'),
            b'%' => match escaped_byte(&path[at..]) {
                Some(0) => return None,
                Some(decoded) if decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~') => {
                    out.push(decoded);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            _ if must_be_escaped(byte) => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
            _ => out.push(byte),
        }
    }
    Some(out)
}

/// The byte two hexadecimal digits stand for.
fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Resolves `.` and `..` segments.
fn resolve_dots(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let Some(rest) = path.strip_prefix(b"/") else { return path.to_vec() };
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment.split(|byte| *byte == b';').next() {
            Some(b".") => {}
            Some(b"..") => out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if last {
            out.push(b'/');
        }
    }
    out
}

#[cfg(test)]
mod tests;

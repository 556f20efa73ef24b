//! What is read out of heads: path, query, server name, sizes, the gRPC status.

use super::super::FormatContext;
use super::super::command::{HostSource, PathSource, Preference};
use super::{escaped, text_of};
use crate::http::{Headers, Known, RequestHead};

pub(super) fn server_name(out: &mut Vec<u8>, sni: Preference, host: HostSource, context: &FormatContext<'_>) -> bool {
    let name = context.info.connection.requested_server_name.as_bytes();
    let by_sni = |out: &mut Vec<u8>| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*');
        out.extend(name.iter().map(|byte| if plain(*byte) { *byte } else { b'_' }));
        !name.is_empty()
    };
    let by_host = |out: &mut Vec<u8>| {
        let request = context.request;
        let original = || request?.headers.value(&Known::XEnvoyOriginalHost).map(|host| &host[..]);
        let current = || request.map(|request| &request.authority[..]).filter(|host| !host.is_empty());
        text_of(
            out,
            match host {
                HostSource::Original => original(),
                HostSource::Current => current(),
                HostSource::OriginalOrCurrent => original().or_else(current),
            },
        )
    };
    match sni {
        Preference::SniOnly => by_sni(out),
        Preference::SniFirst => by_sni(out) || by_host(out),
        Preference::HostFirst => by_host(out) || by_sni(out),
    }
}

pub(super) fn path(request: &RequestHead, query: bool, source: PathSource) -> Option<&[u8]> {
    let original = || request.headers.value(&Known::XEnvoyOriginalPath).map(|path| &path[..]);
    let current = || Some(&request.path[..]).filter(|path| !path.is_empty());
    let path = match source {
        PathSource::Original => original(),
        PathSource::Current => current(),
        PathSource::OriginalOrCurrent => original().or_else(current),
    }?;
    match memchr::memchr(b'?', path) {
        Some(at) if !query => Some(&path[..at]),
        _ => Some(path),
    }
}

pub(super) fn query(request: &RequestHead) -> Option<&[u8]> {
    let at = memchr::memchr(b'?', &request.path)?;
    Some(&request.path[at + 1..])
}

/// Appends the first value of a query parameter, decoded.
pub(super) fn query_parameter(out: &mut Vec<u8>, query: &[u8], name: &[u8]) -> bool {
    for pair in query.split(|byte| *byte == b'&') {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        if percent_encoding::percent_decode(key).eq(name.iter().copied()) {
            let start = out.len();
            out.extend(percent_encoding::percent_decode(value));
            if out[start..].iter().any(u8::is_ascii_control) {
                let decoded = out.split_off(start);
                escaped(out, &decoded);
            }
            return true;
        }
    }
    false
}

/// Appends a query with its escapes of visible characters resolved, except those that would change its structure.
pub(super) fn decode_visible(out: &mut Vec<u8>, query: &[u8]) -> bool {
    let mut at = 0;
    while at < query.len() {
        let digit = |offset: usize| query.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
        let decoded = match (query[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        match decoded {
            Some(byte) if byte.is_ascii_graphic() && !b"%&=+#".contains(&byte) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(query[at]);
                at += 1;
            }
        }
    }
    true
}

/// The gRPC status of a gRPC request: from the trailers, the response head, or what the HTTP status means; -1 if what is
/// said there is none.
pub(super) fn grpc_status(context: &FormatContext<'_>) -> Option<i64> {
    if !context.request.is_some_and(RequestHead::is_grpc) {
        return None;
    }
    let of = |headers: &Headers| {
        let value = headers.value(&Known::GrpcStatus)?;
        let status = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok());
        Some(status.map_or(-1, i64::from))
    };
    context.trailers.and_then(of).or_else(|| context.response.and_then(|head| of(&head.headers))).or_else(|| {
        Some(match context.info.response_code {
            0 => return None,
            200 => 2,
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        })
    })
}

pub(super) const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

//! Between our heads and the `http` crate's types, at the edge to `h2`.
//!
//! `h2` hands over a `HeaderMap`: names repeat in order, but the order between different names is that of their
//! first appearance. Cookies sent as several fields are joined again (RFC 9113 section 8.2.3).

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use filters::http::{HeaderName, Headers, Known, Method, RequestHead, ResponseHead, Scheme, Version};
use http::header::{HeaderMap, HeaderValue};

use crate::config::hcm::Underscores;

/// It has more than one `host`, which would mean something else in HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A request as `h2` decoded it.
pub(super) fn request_from_h2(
    parts: http::request::Parts,
    protocol: Option<&str>,
    underscores: Underscores,
) -> Result<RequestHead, Malformed> {
    let mut head = RequestHead {
        method: method_from_h2(&parts.method),
        scheme: match parts.uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => Scheme::Http,
        },
        version: Version::Http2,
        protocol: protocol.map(|p| Bytes::copy_from_slice(p.as_bytes())),
        ..RequestHead::default()
    };
    let authority = parts.uri.authority().map_or("", http::uri::Authority::as_str);
    let path = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let mut both = Bytes::from([authority.as_bytes(), path.as_bytes()].concat());
    head.authority = both.split_to(authority.len());
    head.path = both;
    head.headers = headers_from_h2(&parts.headers, underscores);
    // RFC 9113 section 8.3.1: `host` must not disagree with `:authority`; without the latter it takes its place.
    let hosts: Vec<Bytes> = head.headers.values(&Known::Host).cloned().collect();
    if let Some(host) = hosts.first() {
        if hosts.len() > 1 {
            return Err(Malformed);
        }
        if head.authority.is_empty() {
            head.authority = host.clone();
        }
        head.headers.remove(&Known::Host);
    }
    head.authority_missing = head.authority.is_empty();
    Ok(head)
}

fn method_from_h2(method: &http::Method) -> Method {
    match *method {
        http::Method::GET => Method::Get,
        http::Method::HEAD => Method::Head,
        http::Method::POST => Method::Post,
        http::Method::PUT => Method::Put,
        http::Method::DELETE => Method::Delete,
        http::Method::CONNECT => Method::Connect,
        http::Method::OPTIONS => Method::Options,
        http::Method::TRACE => Method::Trace,
        http::Method::PATCH => Method::Patch,
        ref other => Method::from_bytes(Bytes::copy_from_slice(other.as_str().as_bytes())),
    }
}

/// Headers or trailers as `h2` decoded them. Values, and names we do not know, share one allocation.
pub(super) fn headers_from_h2(map: &HeaderMap, underscores: Underscores) -> Headers {
    let mut bytes = BytesMut::with_capacity(map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum());
    let mut keep = |text: &[u8]| {
        bytes.extend_from_slice(text);
        bytes.split().freeze()
    };
    let mut headers = Headers::with_capacity(map.len() + 8);
    let mut cookie: Option<usize> = None;
    for (name, value) in map {
        let value = keep(value.as_bytes());
        let text = name.as_str().as_bytes();
        if underscores == Underscores::Drop && text.contains(&b'_') {
            continue;
        }
        let name = Known::from_lowercase(text)
            .map_or_else(|| HeaderName::from_unknown_lowercase(keep(text)), HeaderName::from);
        if name == Known::Cookie {
            if let Some(at) = cookie {
                join_cookie(&mut headers, at, &value);
                continue;
            }
            cookie = Some(headers.len());
        }
        headers.append(name, value);
    }
    headers
}

fn join_cookie(headers: &mut Headers, at: usize, crumb: &[u8]) {
    if let Some(header) = headers.iter_mut().nth(at) {
        let mut joined = BytesMut::with_capacity(header.value.len() + 2 + crumb.len());
        joined.extend_from_slice(&header.value);
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb);
        header.value = joined.freeze();
    }
}

/// A response as `h2` decoded it.
pub(super) fn response_from_h2(parts: &http::response::Parts) -> ResponseHead {
    ResponseHead {
        status: parts.status.as_u16(),
        version: Version::Http2,
        headers: headers_from_h2(&parts.headers, Underscores::Allow),
    }
}

/// The authority a connection's last request went to. Most go to the same, and parsing one costs more than a comparison.
#[derive(Clone, Default)]
pub(super) struct AuthorityMemory {
    last: Option<http::uri::Authority>,
    /// What the last one is said to be: the authority it stands for.
    stands_for: Option<Bytes>,
}

impl AuthorityMemory {
    /// The memory of a connection whose requests all go to one authority, and whether `h2` is given a stand-in for it:
    /// one of the same length ([`StandIn`](super::inspect::StandIn)).
    pub(super) fn of(text: &Bytes) -> (Self, bool) {
        if http::uri::Authority::try_from(&text[..]).is_ok() {
            return (Self::default(), false);
        }
        let last = http::uri::Authority::try_from("0".repeat(text.len())).ok();
        (Self { last, stands_for: Some(text.clone()) }, true)
    }

    fn authority(&mut self, text: &Bytes) -> Option<http::uri::Authority> {
        if let Some(other) = &self.stands_for {
            return self.last.clone().filter(|_| other == text);
        }
        if let Some(last) = self.last.as_ref().filter(|last| last.as_str().as_bytes() == &text[..]) {
            return Some(last.clone());
        }
        // Copied: remembering a part of a read buffer would keep all of it.
        let parsed = http::uri::Authority::try_from(&text[..]).ok()?;
        self.last = Some(parsed.clone());
        Some(parsed)
    }
}

/// A request for `h2` to encode; `None` when a part of it cannot be said in HTTP/2.
pub(super) fn request_to_h2(head: &RequestHead, memory: &mut AuthorityMemory) -> Option<http::Request<()>> {
    let mut uri = http::uri::Builder::new();
    let plain_connect = head.is_plain_connect();
    if !plain_connect {
        uri = uri.scheme(head.scheme.as_str());
        uri = uri.path_and_query(http::uri::PathAndQuery::from_maybe_shared(head.path.clone()).ok()?);
    }
    if !head.authority.is_empty() {
        uri = uri.authority(memory.authority(&head.authority)?);
    }
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method.as_bytes()).ok()?;
    *request.uri_mut() = uri.build().ok()?;
    *request.headers_mut() = headers_to_h2(&head.headers)?;
    if let Some(protocol) = &head.protocol {
        request.extensions_mut().insert(h2::ext::Protocol::from(std::str::from_utf8(protocol).ok()?));
    }
    Some(request)
}

/// A response head for `h2` to encode; `None` when a part of it cannot be said in HTTP/2.
pub(super) fn response_to_h2(head: &ResponseHead) -> Option<http::Response<()>> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = headers_to_h2(&head.headers)?;
    Some(response)
}

/// Headers for `h2` to encode. Names and values our codecs produced are always sayable; values from configuration
/// were checked when it was loaded.
///
/// A value that no later message repeats is marked so that HPACK does not index it (RFC 7541 section 7.1.3 lets any
/// encoder choose): it would only push out what does repeat, and moving the table costs more than the rest of a head.
pub(super) fn headers_to_h2(headers: &Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let known = header.name.known();
        let name = match known {
            Some(known) => name_to_h2(known),
            None => http::HeaderName::from_bytes(header.name.as_bytes()).ok()?,
        };
        let mut value = HeaderValue::from_maybe_shared(header.value.clone()).ok()?;
        value.set_sensitive(known == Some(Known::XRequestId));
        map.append(name, value);
    }
    Some(map)
}

/// A known name as the `http` crate has it, parsed once.
fn name_to_h2(known: Known) -> http::HeaderName {
    static NAMES: LazyLock<Vec<http::HeaderName>> =
        LazyLock::new(|| Known::ALL.iter().map(|known| http::HeaderName::from_static(known.as_str())).collect());
    match NAMES.get(known as usize) {
        Some(name) => name.clone(),
        None => http::HeaderName::from_static(known.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_joined_and_repeats_kept_in_order() {
        let mut map = HeaderMap::new();
        map.append("cookie", HeaderValue::from_static("a=1"));
        map.append("x-a", HeaderValue::from_static("1"));
        map.append("cookie", HeaderValue::from_static("b=2"));
        map.append("x-a", HeaderValue::from_static("2"));
        let headers = headers_from_h2(&map, Underscores::Allow);
        let seen: Vec<_> = headers.iter().map(|h| (h.name.as_str().to_owned(), h.value.to_vec())).collect();
        assert_eq!(
            seen,
            [
                ("cookie".to_owned(), b"a=1; b=2".to_vec()),
                ("x-a".to_owned(), b"1".to_vec()),
                ("x-a".to_owned(), b"2".to_vec())
            ]
        );
    }

    #[test]
    fn heads_come_back_as_they_went() {
        let mut head = RequestHead {
            method: Method::Other("PURGE".into()),
            scheme: Scheme::Https,
            authority: "a.example:8443".into(),
            path: "/x/y?z=1".into(),
            version: Version::Http2,
            ..RequestHead::default()
        };
        for known in Known::ALL.iter().filter(|known| **known != Known::Host) {
            head.headers.append(*known, known.as_str().to_owned());
        }
        head.headers.append(HeaderName::parse(b"x-other").unwrap(), "1");
        head.headers.append(HeaderName::parse(b"x-empty").unwrap(), "");
        let request = request_to_h2(&head, &mut AuthorityMemory::default()).unwrap();
        let unindexed: Vec<_> = request.headers().iter().filter(|(_, v)| v.is_sensitive()).map(|(n, _)| n).collect();
        assert_eq!(unindexed, ["x-request-id"]);
        let back = request_from_h2(request.into_parts().0, None, Underscores::Allow).unwrap();
        assert_eq!((&back.method, back.scheme), (&head.method, head.scheme));
        assert_eq!((&back.authority, &back.path), (&head.authority, &head.path));
        assert_eq!(back.headers, head.headers);
    }

    #[test]
    fn host_takes_the_place_of_a_missing_authority_only() {
        let (mut parts, ()) = http::Request::builder().uri("http://a.com/x?y").body(()).unwrap().into_parts();
        parts.headers.insert("host", HeaderValue::from_static("b.com"));
        let head = request_from_h2(parts, None, Underscores::Allow).unwrap();
        assert_eq!(&head.authority[..], b"a.com", "a differing host is dropped, as Envoy does");
        assert_eq!(&head.path[..], b"/x?y");
        assert!(!head.headers.contains(&Known::Host));
    }

    #[test]
    fn headers_with_underscores_are_dropped_where_asked() {
        let mut map = HeaderMap::new();
        map.append("x_a", HeaderValue::from_static("1"));
        map.append("x-b", HeaderValue::from_static("2_2"));
        assert_eq!(headers_from_h2(&map, Underscores::Allow).len(), 2);
        let dropped = headers_from_h2(&map, Underscores::Drop);
        assert_eq!(dropped.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["x-b"]);
    }
}

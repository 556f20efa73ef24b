//! Between our heads and the `http` crate's types, at the edge to `h2`.
//!
//! `h2` hands over a `HeaderMap`: names repeat in order, but the order between different names is that of their
//! first appearance. Cookies sent as several fields are joined again (RFC 9113 section 8.2.3).

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
        method: Method::from_bytes(Bytes::copy_from_slice(parts.method.as_str().as_bytes())),
        scheme: match parts.uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => Scheme::Http,
        },
        version: Version::Http2,
        protocol: protocol.map(|p| Bytes::copy_from_slice(p.as_bytes())),
        ..RequestHead::default()
    };
    if let Some(authority) = parts.uri.authority() {
        head.authority = Bytes::copy_from_slice(authority.as_str().as_bytes());
    }
    if let Some(path) = parts.uri.path_and_query() {
        head.path = Bytes::copy_from_slice(path.as_str().as_bytes());
    }
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

/// Headers or trailers as `h2` decoded them. Values share one allocation.
pub(super) fn headers_from_h2(map: &HeaderMap, underscores: Underscores) -> Headers {
    let total: usize = map.values().map(HeaderValue::len).sum();
    let mut bytes = BytesMut::with_capacity(total);
    for value in map.values() {
        bytes.extend_from_slice(value.as_bytes());
    }
    let mut bytes = bytes.freeze();
    let mut headers = Headers::with_capacity(map.len() + 8);
    let mut cookie: Option<usize> = None;
    for (name, value) in map {
        let value = bytes.split_to(value.len());
        let text = name.as_str().as_bytes();
        if underscores == Underscores::Drop && text.contains(&b'_') {
            continue;
        }
        let name = Known::from_lowercase(text)
            .map_or_else(|| HeaderName::from_lowercase(Bytes::copy_from_slice(text)), HeaderName::from);
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

/// A request for `h2` to encode; `None` when a part of it cannot be said in HTTP/2.
pub(super) fn request_to_h2(head: &RequestHead) -> Option<http::Request<()>> {
    let mut uri = http::uri::Builder::new();
    let plain_connect = head.is_plain_connect();
    if !plain_connect {
        uri = uri.scheme(head.scheme.as_str());
        uri = uri.path_and_query(http::uri::PathAndQuery::from_maybe_shared(head.path.clone()).ok()?);
    }
    if !head.authority.is_empty() {
        uri = uri.authority(http::uri::Authority::from_maybe_shared(head.authority.clone()).ok()?);
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
pub(super) fn headers_to_h2(headers: &Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = match header.name.known() {
            Some(known) => http::HeaderName::from_static(known.as_str()),
            None => http::HeaderName::from_bytes(header.name.as_bytes()).ok()?,
        };
        map.append(name, HeaderValue::from_maybe_shared(header.value.clone()).ok()?);
    }
    Some(map)
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

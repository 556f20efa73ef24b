//! Upgrades between versions: an HTTP/1 `upgrade` and an HTTP/2 extended CONNECT (RFC 8441) mean the same, and so the proxy
//! sees the same, whichever the client spoke: the HTTP/1 form, in which routes match, filters look and logs tell.

use std::borrow::Cow;

use bytes::Bytes;
use filters::http::{Headers, Known, Method, RequestHead, ResponseHead, Version};

/// A request that came as an extended CONNECT becomes what HTTP/1 would have said.
pub fn from_extended_connect(head: &mut RequestHead) {
    let Some(protocol) = head.protocol.take() else { return };
    head.method = Method::Get;
    head.headers.set(Known::Upgrade, protocol);
    head.headers.set(Known::Connection, Bytes::from_static(b"upgrade"));
}

/// An upgrade as an HTTP/2 upstream is asked for it.
#[must_use]
pub fn to_extended_connect(head: &RequestHead) -> Option<RequestHead> {
    let protocol = head.headers.value(&Known::Upgrade)?.clone();
    let mut head = head.clone();
    head.method = Method::Connect;
    head.protocol = Some(protocol);
    remove_upgrade(&mut head.headers);
    Some(head)
}

/// An HTTP/2 upstream grants an upgrade with 200; here that is 101.
pub fn from_http2_response(request: &RequestHead, head: &mut ResponseHead) {
    if head.version != Version::Http2 || head.status != 200 || request.method == Method::Connect {
        return;
    }
    if let Some(protocol) = request.headers.value(&Known::Upgrade) {
        head.status = 101;
        head.headers.set(Known::Upgrade, protocol.clone());
        head.headers.set(Known::Connection, Bytes::from_static(b"upgrade"));
    }
}

/// A response as HTTP/2 says it to the client: it has no 101.
#[must_use]
pub fn to_http2_response(head: &ResponseHead) -> Cow<'_, ResponseHead> {
    if head.status != 101 {
        return Cow::Borrowed(head);
    }
    let mut head = head.clone();
    head.status = 200;
    remove_upgrade(&mut head.headers);
    Cow::Owned(head)
}

fn remove_upgrade(headers: &mut Headers) {
    headers.remove(&Known::Upgrade);
    headers.remove(&Known::Connection);
    if headers.value(&Known::ContentLength).is_some_and(|length| &length[..] == b"0") {
        headers.remove(&Known::ContentLength);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket() -> RequestHead {
        let mut head = RequestHead { path: "/chat".into(), authority: "a".into(), ..RequestHead::default() };
        head.headers.append(Known::Connection, "Upgrade");
        head.headers.append(Known::Upgrade, "websocket");
        head.headers.append(Known::ContentLength, "0");
        head
    }

    #[test]
    fn an_upgrade_becomes_an_extended_connect_and_back() {
        let mut up = to_extended_connect(&websocket()).unwrap();
        assert_eq!((up.method.clone(), up.protocol.as_deref()), (Method::Connect, Some(&b"websocket"[..])));
        assert!(up.headers.is_empty());

        from_extended_connect(&mut up);
        assert_eq!((up.method, up.protocol), (Method::Get, None));
        assert_eq!(up.headers.value(&Known::Upgrade).unwrap(), "websocket");
    }

    #[test]
    fn a_plain_connect_stays_one() {
        let mut head = RequestHead { method: Method::Connect, version: Version::Http2, ..RequestHead::default() };
        from_extended_connect(&mut head);
        assert_eq!(head.method, Method::Connect);
        assert!(to_extended_connect(&head).is_none());
    }

    #[test]
    fn a_grant_is_said_in_the_clients_version() {
        let mut head = ResponseHead { status: 200, version: Version::Http2, ..ResponseHead::default() };
        from_http2_response(&websocket(), &mut head);
        assert_eq!(head.status, 101);
        assert_eq!(head.headers.value(&Known::Upgrade).unwrap(), "websocket");
        let wire = to_http2_response(&head);
        assert_eq!((wire.status, wire.headers.len()), (200, 0));
        let plain = ResponseHead { status: 403, ..ResponseHead::default() };
        assert!(matches!(to_http2_response(&plain), Cow::Borrowed(_)));
    }
}

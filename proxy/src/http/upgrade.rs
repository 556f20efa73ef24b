//! Upgrades between versions: an HTTP/1 `upgrade` and an HTTP/2 extended CONNECT (RFC 8441) mean the same.

use bytes::Bytes;
use filters::http::{Known, Method, RequestHead, ResponseHead, Version};

/// The request as the upstream's protocol says it; `None` when it can stay as it is.
#[must_use]
pub fn to_upstream(head: &RequestHead, http2: bool) -> Option<RequestHead> {
    match (head.version == Version::Http2, http2) {
        (true, true) | (false, false) => None,
        (false, true) if head.method == Method::Connect => None,
        (false, true) => {
            let mut head = head.clone();
            head.protocol = head.headers.value(&Known::Upgrade).cloned();
            head.method = Method::Connect;
            for name in [Known::Upgrade, Known::Connection, Known::ContentLength] {
                head.headers.remove(&name);
            }
            Some(head)
        }
        (true, false) => {
            let protocol = head.protocol.clone()?;
            let mut head = head.clone();
            head.method = Method::Get;
            head.protocol = None;
            head.headers.set(Known::Connection, Bytes::from_static(b"upgrade"));
            head.headers.set(Known::Upgrade, protocol);
            Some(head)
        }
    }
}

/// The response as the client's protocol says it.
pub fn to_downstream(request: &RequestHead, head: &mut ResponseHead, granted: bool) {
    if !granted {
        return;
    }
    if request.version == Version::Http2 {
        if head.status == 101 {
            head.status = 200;
        }
        for name in [Known::Upgrade, Known::Connection, Known::ContentLength] {
            head.headers.remove(&name);
        }
    } else if request.method != Method::Connect && head.status == 200 && head.version == Version::Http2 {
        head.status = 101;
        head.headers.set(Known::Connection, Bytes::from_static(b"upgrade"));
        if let Some(protocol) = request.headers.value(&Known::Upgrade) {
            head.headers.set(Known::Upgrade, protocol.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket() -> RequestHead {
        let mut head = RequestHead { path: "/chat".into(), authority: "a".into(), ..RequestHead::default() };
        head.headers.append(Known::Connection, "Upgrade");
        head.headers.append(Known::Upgrade, "websocket");
        head
    }

    #[test]
    fn an_upgrade_becomes_an_extended_connect_and_back() {
        let up = to_upstream(&websocket(), true).unwrap();
        assert_eq!((up.method.clone(), up.protocol.as_deref()), (Method::Connect, Some(&b"websocket"[..])));
        assert!(!up.headers.contains(&Known::Connection));

        let h2 = RequestHead { version: Version::Http2, ..up };
        let back = to_upstream(&h2, false).unwrap();
        assert_eq!(back.method, Method::Get);
        assert_eq!(back.headers.value(&Known::Upgrade).unwrap(), "websocket");
    }

    #[test]
    fn a_grant_is_said_in_the_clients_version() {
        let mut head = ResponseHead { status: 200, version: Version::Http2, ..ResponseHead::default() };
        to_downstream(&websocket(), &mut head, true);
        assert_eq!(head.status, 101);
        assert_eq!(head.headers.value(&Known::Upgrade).unwrap(), "websocket");

        let h2 = RequestHead { version: Version::Http2, method: Method::Connect, ..RequestHead::default() };
        let mut head = ResponseHead { status: 101, version: Version::Http11, ..ResponseHead::default() };
        to_downstream(&h2, &mut head, true);
        assert_eq!(head.status, 200);
    }
}

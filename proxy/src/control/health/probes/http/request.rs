//! The requests of HTTP and gRPC checks.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use filters::http::{HeaderName, Headers, Method, RequestHead, Scheme, Version};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};
use http::{HeaderValue, Request, header};
use http_body::Frame;
use prost::Message;

use crate::config::cluster::{Checker, GrpcCheck, HttpCheck};
use crate::control::clusters::Probe;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Eq, Message)]
struct Ask {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Eq, Message)]
struct Tell {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`
pub(super) const SERVING: i32 = 1;

/// A body whose length is told by `content-length` or not at all.
#[derive(Debug)]
pub(super) struct Body(Option<Bytes>);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(Frame::data).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// The request of a check; `None` if it cannot be written, or if the checker sends none.
pub(super) fn of(probe: &Probe, http2: bool) -> Option<Request<Body>> {
    let (mut head, body) = match &probe.check.checker {
        Checker::Http(check) => (http_head(probe, check), Bytes::copy_from_slice(&check.send)),
        Checker::Grpc(check) => grpc(probe, check),
        Checker::Tcp(_) => return None,
    };
    match &probe.check.checker {
        Checker::Http(check) => check.headers.apply_to_headers(&mut head.headers, &info(probe, http2)),
        Checker::Grpc(check) => check.headers.apply_to_headers(&mut head.headers, &info(probe, http2)),
        Checker::Tcp(_) => {}
    }
    let may_have_body = !matches!(head.method, Method::Get | Method::Head | Method::Delete | Method::Trace);
    let says_length = !body.is_empty() || (may_have_body && !http2);
    if matches!(probe.check.checker, Checker::Http(_)) && says_length {
        head.headers.set(name("content-length"), body.len().to_string());
    }
    write(&head, body, http2)
}

/// The status in an answer to [`Ask`]: one message, not compressed.
pub(super) fn serving_status(body: &[u8]) -> Option<i32> {
    let (prefix, message) = body.split_at_checked(5)?;
    let [0, a, b, c, d] = *prefix else { return None };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (length == message.len()).then(|| Tell::decode(message).ok())?.map(|tell| tell.status)
}

fn http_head(probe: &Probe, check: &HttpCheck) -> RequestHead {
    let mut headers = Headers::default();
    headers.append(name("user-agent"), &b"Envoy/HC"[..]);
    head(probe, check.method.clone(), &check.host, &check.path, headers)
}

fn grpc(probe: &Probe, check: &GrpcCheck) -> (RequestHead, Bytes) {
    let mut headers = Headers::default();
    headers.append(name("te"), &b"trailers"[..]);
    headers.append(name("content-type"), &b"application/grpc"[..]);
    headers.append(name("user-agent"), &b"Envoy/HC"[..]);
    headers.append(name("grpc-timeout"), format!("{}m", probe.check.timeout.as_millis()));
    let ask = Ask { service: check.service_name.clone() };
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(ask.encoded_len()).unwrap_or(u32::MAX));
    body.extend_from_slice(&ask.encode_to_vec());
    let head = head(probe, Method::Post, &check.authority, "/grpc.health.v1.Health/Check", headers);
    (head, body.freeze())
}

/// The authority is the endpoint's, else the checker's, else the cluster's name.
fn head(probe: &Probe, method: Method, authority: &Arc<str>, path: &str, headers: Headers) -> RequestHead {
    let of_endpoint = probe.host.attributes().check.as_ref().map(|check| &check.hostname);
    let names = [of_endpoint, Some(authority), Some(&probe.config.name)];
    let authority = names.into_iter().flatten().find(|name| !name.is_empty());
    RequestHead {
        method,
        scheme: Scheme::Http,
        authority: authority.map_or_else(Bytes::new, |name| Bytes::copy_from_slice(name.as_bytes())),
        path: Bytes::copy_from_slice(path.as_bytes()),
        headers,
        ..RequestHead::default()
    }
}

/// What header values may be made of: there is no downstream connection, both its ends are the loopback address.
fn info(probe: &Probe, http2: bool) -> StreamInfo {
    let nowhere = || Address::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let connection = Rc::new(ConnectionInfo::between(nowhere(), nowhere()));
    let mut info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 0);
    info.protocol = Some(if http2 { Version::Http2 } else { Version::Http11 });
    let upstream = info.upstream_mut();
    upstream.host = Some(Arc::clone(probe.host.address()));
    upstream.host_name = Some(Arc::clone(probe.host.hostname()));
    upstream.cluster = Some(Arc::clone(&probe.config.observability_name));
    info
}

fn name(lowercase: &'static str) -> HeaderName {
    HeaderName::from_lowercase(Bytes::from_static(lowercase.as_bytes()))
}

fn write(head: &RequestHead, body: Bytes, http2: bool) -> Option<Request<Body>> {
    let target = if http2 {
        let authority = std::str::from_utf8(&head.authority).ok()?;
        let path = std::str::from_utf8(&head.path).ok()?;
        http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build().ok()?
    } else {
        http::Uri::from_maybe_shared(head.path.clone()).ok()?
    };
    let mut request = Request::builder().method(head.method.as_bytes()).uri(target);
    let headers = request.headers_mut()?;
    if !http2 {
        headers.append(header::HOST, HeaderValue::from_maybe_shared(head.authority.clone()).ok()?);
    }
    for field in head.headers.iter() {
        let name = header::HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(field.value.clone()).ok()?);
    }
    request.body(Body(Some(body).filter(|body| !body.is_empty()))).ok()
}

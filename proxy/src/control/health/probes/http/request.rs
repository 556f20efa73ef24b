//! The requests of HTTP and gRPC checks.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use filters::http::{HeaderName, Headers, Method, RequestHead, Scheme, Version};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};
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
pub(super) struct Tell {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`
pub(super) const SERVING: i32 = 1;

/// The request of a check, and its body.
pub(super) fn of(probe: &Probe, http2: bool) -> Option<(RequestHead, Bytes)> {
    let (mut head, body) = match &probe.check.checker {
        Checker::Http(check) => {
            let mut head = http_head(probe, check);
            check.headers.apply_to_headers(&mut head.headers, &info(probe, http2));
            let body = Bytes::copy_from_slice(&check.send);
            if !body.is_empty() {
                head.headers.set(name("content-length"), body.len().to_string());
            }
            (head, body)
        }
        Checker::Grpc(check) => grpc(probe, check),
        Checker::Tcp(_) => return None,
    };
    head.version = if http2 { Version::Http2 } else { Version::Http11 };
    Some((head, body))
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
    check.headers.apply_to_headers(&mut headers, &info(probe, true));
    headers.set(name("grpc-timeout"), format!("{}m", probe.check.timeout.as_millis()));
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

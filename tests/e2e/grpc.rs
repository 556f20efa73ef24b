//! gRPC through the proxy: whole messages, streams in both directions, trailers, endings.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::support::bootstrap::{bootstrap, cluster, http_listener, http2};
use crate::support::h2_client::{self, H2Request};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};

const TO_GRPC: &str =
    r#"{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: grpc, timeout: 0s}}]}"#;

fn start(behaviour: Behaviour) -> (Proxy, H2Upstream) {
    let upstream = H2Upstream::start(behaviour);
    let text = bootstrap(&[http_listener("in", "", TO_GRPC, "")], &[cluster("grpc", &[upstream.port()], &http2())], "");
    (Proxy::start(Kind::under_test(), &text), upstream)
}

fn call(message: Bytes) -> H2Request {
    H2Request::post("http://grpc.test/shop.Cart/Add", message)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

#[test]
fn unary_with_trailers() {
    let (proxy, _upstream) = start(Behaviour::Grpc(0));
    let message = Bytes::from(vec![7; 4 << 20]);
    let (replies, _) =
        h2_client::converse(proxy.listener("in"), &[call(message.clone()), call(Bytes::from_static(b"\0\0\0\0\0"))]);
    for (reply, length) in replies.iter().zip([message.len(), 5]) {
        assert_eq!(
            (reply.status, reply.body.len(), reply.trailer("grpc-status")),
            (200, length, Some("0")),
            "{:?}",
            reply.error
        );
        assert_eq!(reply.header("content-type"), Some("application/grpc"));
    }
    assert_eq!(replies.len(), 2);
}

#[test]
fn errors_in_trailers_and_in_the_head() {
    let (proxy, upstream) = start(Behaviour::Grpc(5));
    let (replies, _) = h2_client::converse(proxy.listener("in"), &[call(Bytes::from_static(b"\0\0\0\0\0"))]);
    assert_eq!(replies[0].trailer("grpc-status"), Some("5"));
    upstream.behave(Behaviour::TrailersOnly(16));
    let (replies, _) = h2_client::converse(proxy.listener("in"), &[call(Bytes::from_static(b"\0\0\0\0\0"))]);
    assert_eq!((replies[0].header("grpc-status"), replies[0].body.len()), (Some("16"), 0));
}

/// A reply to each message before the next is sent: nothing may wait for the end of the other direction.
#[test]
fn bidirectional_stream() {
    let (proxy, _upstream) = start(Behaviour::Echo);
    let address = proxy.listener("in");
    crate::support::runtime().block_on(async {
        let mut sender = h2_client::connect(address).await.expect("a connection");
        let request = Request::post("http://grpc.test/shop.Cart/Watch").version(http::Version::HTTP_2);
        let request =
            request.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("a request");
        let (response, mut send) = sender.send_request(request, false).expect("a stream");
        send.send_data(Bytes::from_static(b"first"), false).expect("data");
        let response =
            tokio::time::timeout(Duration::from_secs(5), response).await.expect("in time").expect("a response");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        for message in ["first", "second", "third"] {
            if message != "first" {
                send.send_data(Bytes::from_static(message.as_bytes()), false).expect("data");
            }
            let mut got = Vec::new();
            while got.len() < message.len() {
                let data = tokio::time::timeout(Duration::from_secs(5), body.data()).await.expect("in time");
                let data = data.expect("more").expect("data");
                body.flow_control().release_capacity(data.len()).expect("capacity");
                got.extend_from_slice(&data);
            }
            assert_eq!(String::from_utf8_lossy(&got), message);
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-end", http::HeaderValue::from_static("yes"));
        send.send_trailers(trailers).expect("trailers");
        assert!(
            tokio::time::timeout(Duration::from_secs(5), body.data())
                .await
                .expect("in time")
                .is_none_or(|data| data.is_ok_and(|data| data.is_empty()))
        );
        let trailers = body.trailers().await.expect("an end").expect("trailers");
        assert_eq!(trailers.get("x-end").map(|value| value.as_bytes()), Some(&b"yes"[..]));
    });
}

/// A client that cancels frees what its call holds.
#[test]
fn cancelled_calls_end_upstream() {
    let (proxy, _upstream) = start(Behaviour::Stall);
    let address = proxy.listener("in");
    crate::support::runtime().block_on(async {
        let mut sender = h2_client::connect(address).await.expect("a connection");
        let request = Request::post("http://grpc.test/a/b").version(http::Version::HTTP_2).body(()).expect("a request");
        let (response, mut send) = sender.send_request(request, true).expect("a stream");
        tokio::task::spawn_blocking(move || {
            proxy.wait_for_stat("cluster.grpc.upstream_rq_active", |active| active == 1);
            proxy
        })
        .await
        .map(|proxy| {
            send.send_reset(h2::Reason::CANCEL);
            drop(response);
            tokio::task::spawn_blocking(move || {
                proxy.wait_for_stat("cluster.grpc.upstream_rq_active", |active| active == 0)
            })
        })
        .expect("the wait")
        .await
        .expect("the call ended upstream");
    });
}

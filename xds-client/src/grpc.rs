//! The gRPC driver: keeps one stream to the control plane open and carries messages between it and the mux.

use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::channel::{Channels, RequestBody};
use crate::client::Client;
use crate::connect::Target;
use crate::framing::{FrameReader, Status, frame};
use crate::mux::{Message, Mode, Request};
use crate::source::{GrpcService, GrpcSource};

/// Runs for ever: connects, converses, and after every failure waits and begins again.
pub(crate) async fn drive(client: Client, source: GrpcSource, method: &'static str, channels: Rc<Channels>) {
    let conversation = async {
        client.wanted().await;
        loop {
            let reason = session(&client, &source, method, &channels).await;
            tracing::debug!(target = %source.service.target, reason, "the stream to the control plane ended");
            let delay = client.disconnected(reason);
            tokio::time::sleep(delay).await;
        }
    };
    tokio::select! {
        () = conversation => {}
        () = client.keep_time() => {}
    }
}

/// One stream, from connecting to its end; returns why it ended.
async fn session(client: &Client, source: &GrpcSource, method: &'static str, channels: &Channels) -> String {
    let service = &source.service;
    let lease = match channels.lease(&service.target, service.keepalive).await {
        Ok(lease) => lease,
        Err(reason) => return reason,
    };
    // Capacity 1: what is not yet on its way can still be merged with what comes after.
    let (requests, body) = mpsc::channel(1);
    let body: RequestBody = StreamBody::new(ReceiverStream::new(body));
    let added = match call_metadata(service, method, channels).await {
        Ok(added) => added,
        Err(reason) => return reason,
    };
    let request = match stream_request(service, method, lease.local_ip(), &added, body) {
        Ok(request) => request,
        Err(reason) => return reason,
    };
    let mut sender = lease.sender();
    if let Err(error) = sender.ready().await {
        return format!("cannot use the connection: {}", chain(&error));
    }
    let response = sender.send_request(request);
    client.connected();
    // A server may send its response head only with its first message, which comes only after our first: so both directions
    // run from the start.
    let reading = async {
        let response = match response.await {
            Ok(response) => response,
            Err(error) => return chain(&error),
        };
        if response.status() != StatusCode::OK {
            return format!("HTTP status {}", response.status());
        }
        if let Some(status) = Status::read(response.headers()) {
            return status.to_string();
        }
        let mut reader = FrameReader::new(response.into_body(), service.max_receive_message_length);
        loop {
            client.ready_to_read().await;
            match reader.next().await {
                Ok(Some(message)) => match decode(source.mode, message) {
                    Ok(message) => client.on_message(message),
                    Err(error) => return format!("a response does not decode: {error}"),
                },
                Ok(None) => {
                    let status = reader.trailers().and_then(Status::read);
                    return status.map_or_else(|| "closed by the server".to_owned(), |status| status.to_string());
                }
                Err(error) => return error.to_string(),
            }
        }
    };
    let writing = async {
        loop {
            let Ok(slot) = requests.reserve().await else {
                // The body was dropped: the reading half knows why.
                return std::future::pending().await;
            };
            let message = match client.next_request().await {
                Request::Sotw(request) => frame(&*request),
                Request::Delta(request) => frame(&*request),
            };
            slot.send(Ok(Frame::data(message)));
        }
    };
    tokio::select! {
        reason = reading => reason,
        reason = writing => reason,
    }
}

fn decode(mode: Mode, message: Bytes) -> Result<Message, prost::DecodeError> {
    match mode {
        Mode::StateOfTheWorld => DiscoveryResponse::decode(message).map(Message::Sotw),
        Mode::Delta => DeltaDiscoveryResponse::decode(message).map(Message::Delta),
    }
}

fn stream_request(
    service: &GrpcService,
    method: &'static str,
    local_ip: Option<IpAddr>,
    added: &[(String, Bytes)],
    body: RequestBody,
) -> Result<http::Request<RequestBody>, String> {
    let authority = authority(service);
    let uri = Uri::builder()
        .scheme(if matches!(service.target, Target::Secure(..)) { "https" } else { "http" })
        .authority(authority.as_str())
        .path_and_query(method)
        .build()
        .map_err(|error| format!("authority \"{authority}\": {error}"))?;
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers(service, local_ip, added)?;
    Ok(request)
}

fn authority(service: &GrpcService) -> String {
    service.authority.clone().unwrap_or_else(|| service.target.authority())
}

/// What the service's credentials add to a call that is made now.
async fn call_metadata(
    service: &GrpcService,
    method: &'static str,
    channels: &Channels,
) -> Result<Vec<(String, Bytes)>, String> {
    let authority = authority(service);
    let mut all = Vec::new();
    for credentials in &service.credentials {
        let added = channels.network().metadata(credentials, &authority, method).await?;
        all.extend(added.into_iter().map(|(name, value)| (name, Bytes::from(value))));
    }
    Ok(all)
}

fn headers(service: &GrpcService, local_ip: Option<IpAddr>, added: &[(String, Bytes)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if matches!(service.target, Target::Cluster(_)) && !service.skip_envoy_headers {
        envoy_headers(&mut headers, local_ip);
    }
    for (name, value) in service.initial_metadata.iter().chain(added) {
        let header = HeaderName::from_bytes(name.as_bytes());
        let encoded = name.ends_with("-bin").then(|| STANDARD_NO_PAD.encode(value));
        let value = HeaderValue::from_bytes(encoded.as_deref().map_or(value, str::as_bytes));
        match (header, value) {
            (Ok(header), Ok(value)) => headers.append(header, value),
            // The value may be a secret.
            _ => {
                return Err(format!("metadata: \"{name}\" is not a valid header"));
            }
        };
    }
    Ok(headers)
}

/// What Envoy adds to requests it makes for itself.
pub(crate) fn envoy_headers(headers: &mut HeaderMap, local_ip: Option<IpAddr>) {
    headers.insert("x-envoy-internal", HeaderValue::from_static("true"));
    if let Some(Ok(value)) = local_ip.map(|ip| HeaderValue::try_from(ip.to_string())) {
        headers.insert("x-forwarded-for", value);
    }
}

/// An error with its causes; hyper hides the interesting part in them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_follow_the_kind_of_service() {
        let mut service = GrpcService::new(Target::Cluster("xds".into()));
        service.initial_metadata = vec![
            ("authorization".into(), "Bearer x".into()),
            ("x-twice".into(), "1".into()),
            ("x-twice".into(), "2".into()),
            ("trace-bin".into(), Bytes::from_static(b"\xff\0")),
        ];
        let ip = Some([10, 0, 0, 7].into());
        let map = headers(&service, ip, &[]).expect("valid");
        let values = |name: &str| map.get_all(name).iter().map(|v| v.to_str().expect("text")).collect::<Vec<_>>();
        assert_eq!(values("x-envoy-internal"), ["true"]);
        assert_eq!(values("x-forwarded-for"), ["10.0.0.7"]);
        assert_eq!(values("x-twice"), ["1", "2"]);
        assert_eq!(values("trace-bin"), ["/wA"]);
        assert_eq!(values("authorization"), ["Bearer x"]);

        service.skip_envoy_headers = true;
        assert!(!headers(&service, ip, &[]).expect("valid").contains_key("x-envoy-internal"));
        service.initial_metadata = vec![("bad name".into(), "secret".into())];
        let error = headers(&service, ip, &[]).expect_err("invalid");
        assert!(error.contains("bad name") && !error.contains("secret"));
    }
}

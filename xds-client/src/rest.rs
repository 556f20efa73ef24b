//! The REST driver: asks `POST /v3/discovery:<type>` again and again. The conversation is a state-of-the-world one without
//! nonces; its answers show in the version of the next question.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::client::Client;
use crate::connect::Network;
use crate::grpc::{chain, envoy_headers};
use crate::mux::{Message, Request};
use crate::source::RestSource;

/// Translates bodies: proto3 JSON with the original field names.
pub trait RestCodec {
    /// The body of a question.
    fn encode(&self, request: &DiscoveryRequest) -> Result<Bytes, String>;
    /// The content of a reply.
    fn decode(&self, body: &[u8]) -> Result<DiscoveryResponse, String>;
}

/// Everything one polled subscription needs.
pub(crate) struct Poller {
    pub(crate) client: Client,
    pub(crate) source: RestSource,
    pub(crate) path: &'static str,
    pub(crate) type_url: Arc<str>,
    pub(crate) network: Rc<dyn Network>,
    pub(crate) codec: Rc<dyn RestCodec>,
    pub(crate) rng: fastrand::Rng,
}

/// A connection kept between polls.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    local_ip: Option<std::net::IpAddr>,
    fresh: bool,
}

impl Poller {
    /// Polls for ever.
    pub(crate) async fn drive(mut self) {
        let client = self.client.clone();
        tokio::select! {
            () = self.poll_for_ever() => {}
            () = client.keep_time() => {}
        }
    }

    async fn poll_for_ever(&mut self) {
        let mut kept = None;
        let mut connected = false;
        let mut polls = 0u64;
        loop {
            if !connected {
                self.client.connected();
                connected = true;
            }
            polls += 1;
            self.client.fetching(&self.type_url);
            let timeout = self.source.request_timeout;
            let outcome = match tokio::time::timeout(timeout, self.poll(&mut kept)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no reply within {} ms", timeout.as_millis())),
            };
            match outcome {
                Ok(Some(body)) => self.receive(&body, polls),
                Ok(None) => {}
                Err(reason) => {
                    kept = None;
                    connected = false;
                    tracing::debug!(target = %self.source.target, path = self.path, reason, "a poll failed");
                    // The delay of the backoff is for streams; polls keep their rhythm.
                    let _ = self.client.disconnected(reason);
                }
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    /// Time until the next poll.
    fn pause(&mut self) -> Duration {
        let jitter = u64::try_from(self.source.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(if jitter == 0 { 0 } else { self.rng.u64(0..jitter) });
        // A delay of zero would be a busy loop.
        (self.source.refresh_delay + jitter).max(Duration::from_millis(1))
    }

    fn receive(&self, body: &[u8], poll: u64) {
        match self.codec.decode(body) {
            Ok(response) => {
                // REST knows no nonces; the mux does, to match answers.
                let response =
                    DiscoveryResponse { nonce: poll.to_string(), type_url: self.type_url.to_string(), ..response };
                self.client.on_message(Message::Sotw(response));
            }
            Err(detail) => self.client.on_unreadable(&self.type_url, detail),
        }
    }

    /// One exchange; `None` if nothing has changed (304).
    async fn poll(&self, kept: &mut Option<Kept>) -> Result<Option<Bytes>, String> {
        let body = self.codec.encode(&self.question())?;
        let _call = self.network.calling(&self.source.target);
        loop {
            let connection = match kept.take() {
                Some(connection) if !connection.sender.is_closed() => connection,
                _ => self.connect().await?,
            };
            let Kept { mut sender, local_ip, fresh } = connection;
            let request = self.request(body.clone(), local_ip)?;
            let response = match sender.send_request(request).await {
                Ok(response) => response,
                // The server closed an idle connection just now: that is no answer, and no failure.
                Err(_) if !fresh => continue,
                Err(error) => return Err(chain(&error)),
            };
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| chain(&error))?.to_bytes();
            *kept = Some(Kept { sender, local_ip, fresh: false });
            return match status {
                StatusCode::OK => Ok(Some(body)),
                StatusCode::NOT_MODIFIED => Ok(None),
                status => Err(format!("HTTP status {status}")),
            };
        }
    }

    /// What is asked: everything wanted and the version we have, but no nonce and no error.
    fn question(&self) -> DiscoveryRequest {
        self.client.refresh(&self.type_url);
        let mut question = DiscoveryRequest::default();
        while let Some(request) = self.client.try_next_request() {
            if let Request::Sotw(request) = request {
                question = *request;
            }
        }
        DiscoveryRequest { response_nonce: String::new(), error_detail: None, ..question }
    }

    fn request(&self, body: Bytes, local_ip: Option<std::net::IpAddr>) -> Result<http::Request<Full<Bytes>>, String> {
        let authority = self.source.target.authority();
        let host = HeaderValue::try_from(&authority).map_err(|error| format!("host \"{authority}\": {error}"))?;
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(self.path);
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        envoy_headers(headers, local_ip);
        let timeout = u64::try_from(self.source.request_timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert("x-envoy-expected-rq-timeout-ms", HeaderValue::from(timeout));
        Ok(request)
    }

    async fn connect(&self) -> Result<Kept, String> {
        let target = &self.source.target;
        let connection =
            self.network.connect(target).await.map_err(|error| format!("cannot connect to {target}: {error}"))?;
        let (sender, driver) = http1::handshake(TokioIo::new(connection.io)).await.map_err(|error| chain(&error))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to a control plane ended");
            }
        });
        Ok(Kept { sender, local_ip: connection.local_ip, fresh: true })
    }
}

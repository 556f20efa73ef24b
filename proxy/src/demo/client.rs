//! HTTP clients of the demo: one that shares an HTTP/2 connection, and questions by HTTP/1.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Mutex;
use xds_client::chain;

use super::services::{SEEN_PATH, SERVED_BY};
use crate::stage::http1::{Http1, connect, get, in_time};

/// What a service of the demo answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The service at the end of the call.
    pub(super) served_by: String,
    /// The path that service saw.
    pub(super) seen_path: String,
}

/// A client of one address that sends all its requests over one HTTP/2 connection, which it makes anew when it is gone.
/// Clones share the connection.
#[derive(Clone)]
pub(super) struct Http2 {
    port: u16,
    connection: Arc<Mutex<Option<http2::SendRequest<Empty<Bytes>>>>>,
}

impl Http2 {
    /// A client of `127.0.0.1:port`; connects with the first request.
    pub(super) fn new(port: u16) -> Self {
        Self { port, connection: Arc::default() }
    }

    /// Asks `authority` for `path`.
    pub(super) async fn get(&self, authority: &str, path: &str) -> Result<Answer, String> {
        let exchange = async {
            let mut sender = self.sender().await?;
            sender.ready().await.map_err(|error| chain(&error))?;
            let request = get(&format!("http://{authority}{path}"))?;
            let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
            answer(response).await
        };
        in_time(exchange).await
    }

    async fn sender(&self) -> Result<http2::SendRequest<Empty<Bytes>>, String> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let io = connect(self.port).await?;
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.map_err(|error| chain(&error))?;
        tokio::spawn(driver);
        Ok(connection.insert(sender).clone())
    }
}

/// Asks for `path` by HTTP/1.
pub(super) async fn ask(client: &mut Http1, path: &str) -> Result<Answer, String> {
    in_time(async { answer(client.send(path).await?).await }).await
}

async fn answer(response: http::Response<Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    // Read to its end: a body that breaks off is a failure too.
    body.collect().await.map_err(|error| chain(&error))?;
    let text = |headers: &HeaderMap, name| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
    };
    Ok(Answer {
        status: parts.status,
        served_by: text(&parts.headers, SERVED_BY),
        seen_path: text(&parts.headers, SEEN_PATH),
    })
}

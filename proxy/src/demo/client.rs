//! HTTP clients of the demo: one that shares an HTTP/2 connection, one that keeps an HTTP/1 connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use xds_client::chain;

use super::services::{SEEN_PATH, SERVED_BY};

/// Longest a request of the demo may take; App Mesh's own timeout is 15 s.
const TIMEOUT: Duration = Duration::from_secs(5);

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

/// A client of one address with one HTTP/1 connection, which it makes anew when it is gone.
pub(super) struct Http1 {
    port: u16,
    connection: Option<http1::SendRequest<Empty<Bytes>>>,
}

impl Http1 {
    /// A client of `127.0.0.1:port`; connects with the first request.
    pub(super) const fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// Asks for `path`.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, String> {
        let exchange = async { answer(self.send(path).await?).await };
        in_time(exchange).await
    }

    /// The body of `path`, at most 16 MiB, if the answer is 200.
    pub(super) async fn fetch(&mut self, path: &str) -> Result<Bytes, String> {
        const LIMIT: usize = 16 << 20;
        let exchange = async {
            let response = self.send(path).await?;
            let status = response.status();
            let body = http_body_util::Limited::new(response.into_body(), LIMIT).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            if status == StatusCode::OK { Ok(body) } else { Err(format!("{path}: {status}")) }
        };
        in_time(exchange).await
    }

    async fn send(&mut self, path: &str) -> Result<http::Response<Incoming>, String> {
        if let Some(sender) = &mut self.connection
            && sender.ready().await.is_err()
        {
            self.connection = None;
        }
        let sender = match &mut self.connection {
            Some(sender) => sender,
            gone => {
                let io = connect(self.port).await?;
                let (sender, driver) = http1::handshake(io).await.map_err(|error| chain(&error))?;
                tokio::spawn(driver);
                gone.insert(sender)
            }
        };
        let mut request = get(path)?;
        if let Ok(host) = http::HeaderValue::from_str(&format!("127.0.0.1:{}", self.port)) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        sender.send_request(request).await.map_err(|error| chain(&error))
    }
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}

async fn connect(port: u16) -> Result<TokioIo<TcpStream>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| format!("127.0.0.1:{port}: {error}"))?;
    let _ = stream.set_nodelay(true);
    Ok(TokioIo::new(stream))
}

fn get(uri: &str) -> Result<Request<Empty<Bytes>>, String> {
    Request::get(uri).header("user-agent", "legate-demo").body(Empty::new()).map_err(|error| error.to_string())
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

//! A client of one address with one HTTP/1 connection.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use xds_client::chain;

/// Longest a request may take; App Mesh's own timeout is 15 s.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one address with one HTTP/1 connection, which it makes anew when it is gone.
pub(crate) struct Http1 {
    port: u16,
    connection: Option<http1::SendRequest<Empty<Bytes>>>,
}

impl Http1 {
    /// A client of `127.0.0.1:port`; connects with the first request.
    pub(crate) const fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// The body of `path`, at most 16 MiB, if the answer is 200.
    pub(crate) async fn fetch(&mut self, path: &str) -> Result<Bytes, String> {
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

    /// Asks for `path`; the answer's body is still to be read.
    pub(crate) async fn send(&mut self, path: &str) -> Result<http::Response<Incoming>, String> {
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

/// The outcome of an exchange that may take only so long.
pub(crate) async fn in_time<T>(exchange: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}

/// A connection to `127.0.0.1:port`.
pub(crate) async fn connect(port: u16) -> Result<TokioIo<TcpStream>, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| format!("127.0.0.1:{port}: {error}"))?;
    let _ = stream.set_nodelay(true);
    Ok(TokioIo::new(stream))
}

/// A request for `uri`.
pub(crate) fn get(uri: &str) -> Result<Request<Empty<Bytes>>, String> {
    Request::get(uri).header("user-agent", "legate").body(Empty::new()).map_err(|error| error.to_string())
}

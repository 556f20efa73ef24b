//! A well-behaved HTTP/2 client.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::PATIENCE;
use super::message::latin1;

/// The error of a reply that did not come.
pub const SILENCE: &str = "nothing came for too long";

/// A request to send.
#[derive(Clone, Debug)]
pub struct H2Request {
    /// The method.
    pub method: &'static str,
    /// Scheme, authority and path.
    pub uri: &'static str,
    /// Header fields.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body's frames; none: the head ends the stream.
    pub body: Vec<Bytes>,
    /// Trailer fields.
    pub trailers: Vec<(&'static str, &'static str)>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct H2Reply {
    /// The status; 0 if there is no response.
    pub status: u16,
    /// The response's fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
    /// The error that ended the stream or the connection.
    pub error: Option<String>,
}

impl H2Request {
    /// `GET uri`.
    pub fn get(uri: &'static str) -> Self {
        Self { method: "GET", uri, headers: Vec::new(), body: Vec::new(), trailers: Vec::new() }
    }

    /// `POST uri` with a body in one frame.
    pub fn post(uri: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method: "POST", body: vec![body.into()], ..Self::get(uri) }
    }

    /// With one more field.
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With one more trailer.
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }
}

impl H2Reply {
    /// As lines to compare.
    pub fn canonical(&self) -> String {
        let mut text = format!("HTTP/2 {}\n", self.status);
        let show = |map: &HeaderMap| -> String {
            map.iter().map(|(name, value)| format!("{name}: {}\n", latin1(value.as_bytes()))).collect()
        };
        text.push_str(&show(&self.headers));
        text.push('\n');
        text.push_str(&latin1(&self.body));
        if let Some(trailers) = &self.trailers {
            text.push_str(&format!("\n<trailers> {}", show(trailers).replace('\n', " ")));
        }
        if let Some(error) = &self.error {
            text.push_str(&format!("\n<error> {error}"));
        }
        text
    }

    /// A field's value, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A trailer's value, as text.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A connection; its task runs on the current runtime.
pub async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    over(stream).await
}

/// A connection on a stream that is there; its task runs on the current runtime.
pub async fn over<S>(stream: S) -> Result<SendRequest<Bytes>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Sends a request and reads everything that comes back.
pub async fn send(sender: &mut SendRequest<Bytes>, request: &H2Request) -> H2Reply {
    let mut reply = H2Reply::default();
    match tokio::time::timeout(PATIENCE, exchange(sender, request, &mut reply)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => reply.error = Some(describe(&error)),
        Err(_) => reply.error = Some(SILENCE.to_owned()),
    }
    reply
}

/// Sends requests one after the other on one connection; then says whether the connection was closed.
pub fn converse(address: SocketAddr, requests: &[H2Request]) -> (Vec<H2Reply>, bool) {
    super::runtime().block_on(async {
        let mut replies = Vec::new();
        let mut sender = match connect(address).await {
            Ok(sender) => sender,
            Err(error) => return (vec![H2Reply { error: Some(error), ..H2Reply::default() }], true),
        };
        for request in requests {
            replies.push(send(&mut sender, request).await);
        }
        // A connection that was told to go away is no longer ready.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let closed = futures_util::future::poll_fn(|context| sender.poll_ready(context)).await.is_err();
        (replies, closed)
    })
}

async fn exchange(sender: &mut SendRequest<Bytes>, request: &H2Request, reply: &mut H2Reply) -> Result<(), h2::Error> {
    futures_util::future::poll_fn(|context| sender.poll_ready(context)).await?;
    let mut head = Request::new(());
    *head.method_mut() = Method::from_bytes(request.method.as_bytes()).unwrap_or_default();
    *head.uri_mut() = request.uri.parse::<Uri>().unwrap_or_default();
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = map(&request.headers);
    let bodiless = request.body.is_empty() && request.trailers.is_empty();
    let (response, mut stream) = sender.send_request(head, bodiless)?;
    for (index, data) in request.body.iter().enumerate() {
        let last = index + 1 == request.body.len() && request.trailers.is_empty();
        stream.send_data(data.clone(), last)?;
    }
    if !request.trailers.is_empty() {
        stream.send_trailers(map(&request.trailers))?;
    }
    let response = response.await?;
    reply.status = response.status().as_u16();
    reply.headers = response.headers().clone();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        reply.body.extend_from_slice(&data);
    }
    reply.trailers = body.trailers().await?;
    Ok(())
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        map.append(http::HeaderName::from_static(name), value);
    }
    map
}

fn describe(error: &h2::Error) -> String {
    let scope = if error.is_go_away() {
        "GOAWAY"
    } else if error.is_reset() {
        "RST_STREAM"
    } else {
        "connection"
    };
    match error.reason() {
        Some(reason) => format!("{scope} {reason:?}"),
        None => scope.to_owned(),
    }
}

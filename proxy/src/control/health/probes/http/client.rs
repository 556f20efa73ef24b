//! A connection that carries checks, one at a time.

use std::io;

use http::{HeaderMap, Request, Version, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinHandle;

use super::request::Body;
use crate::control::clusters::Probe;
use crate::upstream::connect::connect;

/// An open connection.
#[derive(Debug)]
pub(super) struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// As much of it as was of interest.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    /// The connection takes no other request.
    pub(super) closes: bool,
}

/// Runs what HTTP/2 does on the side.
#[derive(Debug, Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

impl Client {
    /// A new connection to where the host is checked.
    pub(super) async fn connect(probe: &Probe, http2: bool) -> io::Result<Self> {
        let stream = TokioIo::new(connect(&probe.config.connection, &probe.address, || {}).await?);
        let (sender, connection) = if http2 {
            let mut builder = http2::Builder::new(OnThisThread);
            let (sender, connection) =
                builder.timer(TokioTimer::new()).handshake(stream).await.map_err(io::Error::other)?;
            // How it ended is told by the request it ended.
            (Sender::Http2(sender), tokio::task::spawn_local(async move { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
            (Sender::Http1(sender), tokio::task::spawn_local(async move { drop(connection.await) }))
        };
        Ok(Self { sender, connection })
    }

    /// Whether it may carry another request, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request and reads its answer to the end, keeping up to `keep` bytes of the body.
    pub(super) async fn send(&mut self, request: Request<Body>, keep: usize) -> Result<Received, hyper::Error> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, mut incoming) = response.into_parts();
        let (mut body, mut trailers) = (Vec::new(), None);
        while let Some(frame) = incoming.frame().await {
            match frame?.into_data() {
                Ok(data) => {
                    let room = keep.min(LONGEST_BODY).saturating_sub(body.len());
                    body.extend_from_slice(&data[..data.len().min(room)]);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Received {
            status: head.status.as_u16(),
            closes: closes(head.version, &head.headers),
            headers: head.headers,
            body,
            trailers,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// However much is of interest, no more is kept.
const LONGEST_BODY: usize = 1 << 20;

/// Whether an answer is the last of its connection (RFC 9112 section 9.6).
fn closes(version: Version, headers: &HeaderMap) -> bool {
    let says = |name: header::HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word)))
    };
    let proxy = header::HeaderName::from_static("proxy-connection");
    match version {
        Version::HTTP_2 => false,
        Version::HTTP_11 => says(header::CONNECTION, "close") || says(proxy, "close"),
        _ => !says(header::CONNECTION, "keep-alive"),
    }
}

//! A client of the proxy: sends one request and says what became of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::timeout;
use xds_client::chain;

use super::diary::RequestId;
use super::fault::Protocol;
use super::message::{ANSWER, Check, ID, LENGTH, body, body_length, is_abandoned};
use super::resources::{HOST, ROUTE_TIMEOUT};
use crate::stage::http1::connect;

/// What a proxy may take beyond its own limit until the client gives up on it.
const PATIENCE: Duration = Duration::from_secs(6);
/// HTTP/2 connections, used in turn.
const CONNECTIONS: usize = 4;

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The whole answer of a host, unharmed.
    Answered,
    /// The client did not wait for it.
    Abandoned,
    /// Another status than 200.
    Status(u16),
    /// A gRPC status that is not OK.
    GrpcStatus(String),
    /// A good head, and not all that belongs to it.
    BrokenOff(String),
    /// No answer.
    None(String),
    /// An answer that is not the one to this request.
    Wrong(String),
}

type Http1Sender = http1::SendRequest<Full<Bytes>>;
type Http2Sender = http2::SendRequest<Full<Bytes>>;

/// A client. Clones share their connections.
#[derive(Clone)]
pub(super) struct Client {
    protocol: Protocol,
    port: u16,
    /// HTTP/1 connections at rest; the one used last is used next.
    idle: Rc<RefCell<Vec<Http1Sender>>>,
    shared: Rc<[Mutex<Option<Http2Sender>>; CONNECTIONS]>,
}

impl Client {
    /// A client of the proxy at `127.0.0.1:port`.
    pub(super) fn new(protocol: Protocol, port: u16) -> Self {
        Self { protocol, port, idle: Rc::default(), shared: Rc::default() }
    }

    /// Sends a request.
    pub(super) async fn send(&self, id: RequestId) -> Outcome {
        let leaves = is_abandoned(id);
        let limit = leaves.unwrap_or(ROUTE_TIMEOUT + PATIENCE);
        let outcome = timeout(limit, async {
            match self.protocol {
                Protocol::Http1 => self.by_http1(id).await,
                Protocol::Http2 | Protocol::Grpc => self.by_http2(id).await,
            }
        });
        match outcome.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::None(error),
            Err(_) if leaves.is_some() => Outcome::Abandoned,
            Err(_) => Outcome::None(format!("no answer within {limit:?}")),
        }
    }

    async fn by_http1(&self, id: RequestId) -> Result<Outcome, String> {
        let idle = || self.idle.borrow_mut().pop();
        let mut sender = loop {
            match idle() {
                Some(sender) if sender.is_ready() => break sender,
                Some(_) => {}
                None => {
                    let (sender, driver) =
                        http1::handshake(connect(self.port).await?).await.map_err(|error| chain(&error))?;
                    tokio::spawn(driver);
                    break sender;
                }
            }
        };
        let response = sender.send_request(self.request(id)?).await.map_err(|error| chain(&error))?;
        let outcome = self.judge(id, response).await;
        let idle = Rc::clone(&self.idle);
        spawn_local(async move {
            if sender.ready().await.is_ok() {
                idle.borrow_mut().push(sender);
            }
        });
        Ok(outcome)
    }

    async fn by_http2(&self, id: RequestId) -> Result<Outcome, String> {
        let place = usize::try_from(id).unwrap_or_default() % CONNECTIONS;
        let Some(place) = self.shared.get(place) else { return Err("no connection".to_owned()) };
        let mut connection = place.lock().await;
        let mut sender = match &*connection {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => {
                let io = connect(self.port).await?;
                let (sender, driver) =
                    http2::handshake(TokioExecutor::new(), io).await.map_err(|error| chain(&error))?;
                tokio::spawn(driver);
                connection.insert(sender).clone()
            }
        };
        drop(connection);
        sender.ready().await.map_err(|error| chain(&error))?;
        let response = sender.send_request(self.request(id)?).await.map_err(|error| chain(&error))?;
        Ok(self.judge(id, response).await)
    }

    fn request(&self, id: RequestId) -> Result<Request<Full<Bytes>>, String> {
        let length = body_length(id, self.protocol);
        let request = match self.protocol {
            Protocol::Http1 => Request::builder().uri("/drill").header("host", HOST),
            Protocol::Http2 => Request::builder().uri(format!("http://{HOST}/drill")),
            Protocol::Grpc => Request::builder()
                .uri(format!("http://{HOST}/drill.Drill/Answer"))
                .header("content-type", "application/grpc")
                .header("te", "trailers"),
        };
        let method = if length > 0 { "POST" } else { "GET" };
        let request = request.method(method).header(ID, id).header(LENGTH, length);
        let body = if length > 0 { body(id, length, self.protocol) } else { Bytes::new() };
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }

    async fn judge(&self, id: RequestId, response: Response<Incoming>) -> Outcome {
        let (head, mut stream) = response.into_parts();
        if head.status != StatusCode::OK {
            // To the end, so that the connection can be used again.
            while let Some(Ok(_)) = stream.frame().await {}
            return Outcome::Status(head.status.as_u16());
        }
        if let Some(status) = bad_status(&head.headers) {
            return Outcome::GrpcStatus(status);
        }
        let answers = head.headers.get(ID).and_then(|value| value.to_str().ok()?.parse().ok());
        if answers != Some(id) {
            return Outcome::Wrong(format!("the answer to {answers:?}"));
        }
        let mut check = Check::new(id, ANSWER, self.protocol);
        let mut trailers = None;
        while let Some(frame) = stream.frame().await {
            match frame {
                Err(error) => return Outcome::BrokenOff(chain(&error)),
                Ok(frame) => match frame.into_data() {
                    Ok(data) => check.add(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        if !check.is_right() {
            return Outcome::Wrong("not the body that was sent".to_owned());
        }
        match trailers {
            Some(trailers) => bad_status(&trailers).map_or(Outcome::Answered, Outcome::GrpcStatus),
            None if self.protocol == Protocol::Grpc => Outcome::BrokenOff("no trailers".to_owned()),
            None => Outcome::Answered,
        }
    }
}

/// The gRPC status, if there is one and it is not OK.
fn bad_status(headers: &HeaderMap) -> Option<String> {
    let status = headers.get("grpc-status")?.to_str().ok()?;
    (status != "0").then(|| status.to_owned())
}

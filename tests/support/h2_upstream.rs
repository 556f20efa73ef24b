//! An HTTP/2 upstream that remembers its requests and misbehaves on demand.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::task::JoinHandle;

use super::authz;
use super::message::latin1;

/// What to do with each request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// 200 with a short body.
    Ok,
    /// 200, and the request's body as it comes, with its trailers.
    Echo,
    /// A gRPC reply: a head, the body's frames, and a status in trailers.
    Grpc(u8),
    /// A gRPC reply that carries this message.
    Message(Vec<u8>),
    /// A head with these fields and a body, to requests whose fields come in no order.
    Verdict(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// A gRPC reply of a head alone.
    TrailersOnly(u8),
    /// A head with these fields and a body.
    Reply(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// The same, without waiting for the request's body.
    AtOnce(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// 200, the first of the request's body as it comes, and trailers.
    Parting,
    /// RST_STREAM before a head.
    Reset(Reason),
    /// A head and one frame, then RST_STREAM.
    ResetAfterHead(Reason),
    /// GOAWAY at once, after which this stream is answered.
    GoAway,
    /// Nothing, for ever.
    Stall,
}

/// A server on a port and a thread of its own.
pub struct H2Upstream {
    address: SocketAddr,
    shared: Arc<Mutex<State>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

struct State {
    behaviour: Behaviour,
    requests: Vec<String>,
    connections: Vec<JoinHandle<()>>,
}

impl H2Upstream {
    /// Starts a server.
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        let state = State { behaviour, requests: Vec::new(), connections: Vec::new() };
        let shared = Arc::new(Mutex::new(state));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            super::runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                tokio::select! { () = accept(listener, state) => {}, _ = stopped => {} }
            });
        });
        Self { address, shared, stop: Some(stop) }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Behaves otherwise from the next request on, and forgets the earlier ones.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut state = lock(&self.shared);
        state.behaviour = behaviour;
        state.requests.clear();
    }

    /// The requests, as lines to compare.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared).requests.clone()
    }

    /// Drops every connection.
    pub fn hang_up(&self) {
        for connection in lock(&self.shared).connections.drain(..) {
            connection.abort();
        }
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: tokio::net::TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&state);
        let connection = tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let behaviour = lock(&shared).behaviour.clone();
                if matches!(behaviour, Behaviour::GoAway) {
                    connection.graceful_shutdown();
                }
                tokio::spawn(serve(Arc::clone(&shared), behaviour, request, respond));
            }
        });
        lock(&state).connections.push(connection);
    }
}

async fn serve(
    state: Arc<Mutex<State>>,
    behaviour: Behaviour,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, mut body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri);
    let mut fields: Vec<String> =
        head.headers.iter().map(|(name, value)| format!("{name}: {}\n", latin1(value.as_bytes()))).collect();
    if matches!(behaviour, Behaviour::Verdict(..)) {
        fields.sort();
    }
    text.push_str(&fields.concat());
    let index = {
        let mut state = lock(&state);
        state.requests.push(text);
        state.requests.len() - 1
    };
    let record = |more: String| {
        if let Some(request) = lock(&state).requests.get_mut(index) {
            request.push_str(&more);
        }
    };
    let _ = answer(&behaviour, &mut body, &mut respond, &record).await;
}

async fn answer(
    behaviour: &Behaviour,
    body: &mut h2::RecvStream,
    respond: &mut SendResponse<Bytes>,
    record: &impl Fn(String),
) -> Result<(), h2::Error> {
    let head = |status: u16, fields: &[(&'static str, &'static str)]| {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        for (name, value) in fields {
            response.headers_mut().append(*name, http::HeaderValue::from_static(value));
        }
        response
    };
    match behaviour {
        Behaviour::Reset(reason) => {
            respond.send_reset(*reason);
            return Ok(());
        }
        Behaviour::Stall => std::future::pending::<()>().await,
        Behaviour::ResetAfterHead(reason) => {
            let mut stream = respond.send_response(head(200, &[]), false)?;
            stream.send_data(Bytes::from_static(b"begun"), false)?;
            // Resetting drops what is queued: let it go out first.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stream.send_reset(*reason);
            return Ok(());
        }
        Behaviour::Echo => {
            let mut stream = respond.send_response(head(200, &[]), false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                let _ = body.flow_control().release_capacity(data.len());
                stream.send_data(data, false)?;
            }
            return match body.trailers().await? {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            };
        }
        Behaviour::AtOnce(status, fields, text) => {
            let mut stream = respond.send_response(head(*status, fields), text.is_empty())?;
            if !text.is_empty() {
                stream.send_data(Bytes::from_static(text.as_bytes()), true)?;
            }
        }
        Behaviour::Parting => {
            let mut stream = respond.send_response(head(200, &[("x-a", "b")]), false)?;
            if let Some(data) = body.data().await {
                stream.send_data(data?, false)?;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-parting", http::HeaderValue::from_static("words"));
            stream.send_trailers(trailers)?;
        }
        _ => {}
    }
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
    }
    match authz::question(&received) {
        Some(question) => record(format!("\n{question}")),
        None => record(format!("\n{}", latin1(&received))),
    }
    if let Some(trailers) = body.trailers().await? {
        record(format!("\n<trailers> {trailers:?}"));
    }
    match behaviour {
        Behaviour::AtOnce(..) | Behaviour::Parting => {}
        Behaviour::Grpc(status) => {
            let mut stream = respond.send_response(head(200, &[("content-type", "application/grpc")]), false)?;
            stream.send_data(Bytes::from(received), false)?;
            stream.send_trailers(grpc_status(*status))?;
        }
        Behaviour::TrailersOnly(status) => {
            let mut response = head(200, &[("content-type", "application/grpc")]);
            response.headers_mut().extend(grpc_status(*status));
            respond.send_response(response, true)?;
        }
        Behaviour::Message(message) => {
            let mut stream = respond.send_response(head(200, &[("content-type", "application/grpc")]), false)?;
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
            stream.send_data(Bytes::from([&[0], &length[..], message].concat()), false)?;
            stream.send_trailers(grpc_status(0))?;
        }
        Behaviour::Reply(status, fields, text) | Behaviour::Verdict(status, fields, text) => {
            let mut stream = respond.send_response(head(*status, fields), text.is_empty())?;
            if !text.is_empty() {
                stream.send_data(Bytes::from_static(text.as_bytes()), true)?;
            }
        }
        _ => {
            let mut stream = respond.send_response(head(200, &[]), false)?;
            stream.send_data(Bytes::from_static(b"ok"), true)?;
        }
    }
    Ok(())
}

fn grpc_status(status: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from(u16::from(status)));
    trailers.insert("grpc-message", http::HeaderValue::from_static("told"));
    trailers
}

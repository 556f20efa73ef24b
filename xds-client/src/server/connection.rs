//! The control plane on the wire: one connection, its gRPC streams and REST polls.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Command, ControlPlane, DeltaStream, Mischief, Received, SotwStream};
use crate::connect::Io;
use crate::framing::{FrameReader, frame};
use crate::mux::{Mode, Request};
use crate::types::{ADS_DELTA_METHOD, ADS_SOTW_METHOD, RESOURCE_TYPES};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type FrameSender = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

pub(super) async fn serve(control_plane: ControlPlane, io: impl Io + 'static) {
    let service = service_fn(|request| answer(control_plane.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(io), service).await {
        tracing::debug!(%error, "a client's connection ended");
    }
}

/// What is served at a path.
enum Route {
    /// A stream; the type it is for, unless aggregated.
    Stream(Mode, Option<&'static str>),
    Rest(&'static str),
}

fn route(path: &str) -> Option<Route> {
    match path {
        ADS_SOTW_METHOD => return Some(Route::Stream(Mode::StateOfTheWorld, None)),
        ADS_DELTA_METHOD => return Some(Route::Stream(Mode::Delta, None)),
        _ => {}
    }
    RESOURCE_TYPES.iter().find_map(|row| match path {
        _ if row.sotw_method == Some(path) => Some(Route::Stream(Mode::StateOfTheWorld, Some(row.type_url))),
        _ if row.delta_method == path => Some(Route::Stream(Mode::Delta, Some(row.type_url))),
        _ if row.rest_path == Some(path) => Some(Route::Rest(row.type_url)),
        _ => None,
    })
}

async fn answer(control_plane: ControlPlane, request: http::Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let refusing = control_plane.state().refusing;
    let response = match route(request.uri().path()) {
        None => plain(StatusCode::NOT_FOUND, Bytes::new()),
        Some(Route::Rest(_)) if refusing => plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
        Some(Route::Rest(type_url)) => poll(control_plane, type_url, request).await,
        Some(Route::Stream(..)) if refusing => {
            let mut response = plain(StatusCode::OK, Bytes::new());
            *response.headers_mut() = status(14, "refusing");
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Some(Route::Stream(mode, type_url)) => {
            let (frames, body) = mpsc::channel(16);
            let conversation = Conversation {
                stream: match mode {
                    Mode::StateOfTheWorld => Stream::Sotw(SotwStream::new(&control_plane.shared.identifier)),
                    Mode::Delta => Stream::Delta(DeltaStream::new(&control_plane.shared.identifier)),
                },
                control_plane,
                type_url,
                method: request.uri().path().to_owned(),
                headers: text(request.headers()),
                frames,
            };
            tokio::spawn(conversation.run(request.into_body()));
            let mut response = Response::new(StreamBody::new(ReceiverStream::new(body)).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
    };
    Ok(response)
}

enum Stream {
    Sotw(SotwStream),
    Delta(DeltaStream),
}

/// One gRPC stream.
struct Conversation {
    control_plane: ControlPlane,
    stream: Stream,
    type_url: Option<&'static str>,
    method: String,
    headers: Vec<(String, String)>,
    frames: FrameSender,
}

/// The stream is over.
struct Over;

impl Conversation {
    async fn run(mut self, body: Incoming) {
        let (id, mut commands) = self.control_plane.state().open_stream();
        let mut reader = FrameReader::new(body, None);
        loop {
            let step = tokio::select! {
                message = reader.next() => match message {
                    Ok(Some(message)) => self.on_request(id, message).await,
                    Ok(None) | Err(_) => Err(Over),
                },
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => Err(Over),
                },
            };
            if step.is_err() {
                break;
            }
        }
        self.control_plane.state().streams.remove(&id);
    }

    async fn on_request(&mut self, id: u64, message: Bytes) -> Result<(), Over> {
        let responses = {
            let (request, encoded) = match &mut self.stream {
                Stream::Sotw(stream) => {
                    let mut request = DiscoveryRequest::decode(message).map_err(|_| Over)?;
                    fill(&mut request.type_url, self.type_url);
                    let state = self.control_plane.state();
                    let due = stream.on_request(&request, &state.snapshot);
                    (Request::Sotw(Box::new(request)), due.map(|due| frame(&due)))
                }
                Stream::Delta(stream) => {
                    let mut request = DeltaDiscoveryRequest::decode(message).map_err(|_| Over)?;
                    fill(&mut request.type_url, self.type_url);
                    let state = self.control_plane.state();
                    let due = stream.on_request(&request, &state.snapshot);
                    (Request::Delta(Box::new(request)), due.map(|due| frame(&due)))
                }
            };
            let (method, headers) = (self.method.clone(), self.headers.clone());
            self.control_plane.log(Received { stream: id, method, headers, request });
            encoded.into_iter().collect()
        };
        self.send(responses).await
    }

    async fn on_command(&mut self, command: Command) -> Result<(), Over> {
        let responses = match command {
            Command::Changed => {
                let state = self.control_plane.state();
                match &mut self.stream {
                    Stream::Sotw(stream) => stream.on_change(&state.snapshot).iter().map(frame).collect(),
                    Stream::Delta(stream) => stream.on_change(&state.snapshot).iter().map(frame).collect(),
                }
            }
            Command::Heartbeat { type_url, name } => {
                let state = self.control_plane.state();
                let due = match &mut self.stream {
                    Stream::Sotw(stream) => stream.heartbeat(&type_url, &name, &state.snapshot).map(|due| frame(&due)),
                    Stream::Delta(stream) => stream.heartbeat(&type_url, &name, &state.snapshot).map(|due| frame(&due)),
                };
                due.into_iter().collect()
            }
            Command::Mischief(mischief) => return self.misbehave(mischief).await,
            Command::Close => {
                let _ = self.frames.send(Ok(Frame::trailers(status(14, "dropped")))).await;
                return Err(Over);
            }
        };
        self.send(responses).await
    }

    async fn misbehave(&mut self, mischief: Mischief) -> Result<(), Over> {
        match mischief {
            Mischief::Garbage => self.send(vec![Bytes::from_static(b"\0\0\0\0\x04\xff\xff\xff\xff")]).await,
            Mischief::Raw(message) => {
                let mut framed = vec![0];
                framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
                framed.extend(message);
                self.send(vec![framed.into()]).await
            }
            Mischief::ResetMidMessage => {
                self.send(vec![Bytes::from_static(b"\0\xff\xff\xff\xf0abc")]).await?;
                let _ = self.frames.send(Err(io::Error::other("reset on purpose"))).await;
                Err(Over)
            }
        }
    }

    async fn send(&self, messages: Vec<Bytes>) -> Result<(), Over> {
        for message in messages {
            let delay = self.control_plane.state().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.frames.send(Ok(Frame::data(message))).await.map_err(|_| Over)?;
        }
        Ok(())
    }
}

async fn poll(control_plane: ControlPlane, type_url: &'static str, request: http::Request<Incoming>) -> Response<Body> {
    let Some(codec) = control_plane.state().rest.clone() else {
        return plain(StatusCode::NOT_FOUND, Bytes::new());
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return plain(StatusCode::BAD_REQUEST, Bytes::new());
    };
    let Ok(mut question) = codec.decode_request(&body.to_bytes()) else {
        return plain(StatusCode::BAD_REQUEST, Bytes::new());
    };
    fill(&mut question.type_url, Some(type_url));
    let (id, delay, due) = {
        let mut state = control_plane.state();
        let id = state.next_stream;
        state.next_stream += 1;
        let mut stream = SotwStream::new(&control_plane.shared.identifier);
        let current = question.version_info == state.snapshot.version(type_url);
        let due = stream.on_request(&question, &state.snapshot).filter(|_| !current);
        (id, state.delay, due)
    };
    control_plane.log(Received {
        stream: id,
        method: parts.uri.path().to_owned(),
        headers: text(&parts.headers),
        request: Request::Sotw(Box::new(question)),
    });
    tokio::time::sleep(delay).await;
    match due.map(|due| codec.encode_response(&due)) {
        None => plain(StatusCode::NOT_MODIFIED, Bytes::new()),
        Some(Ok(body)) => plain(StatusCode::OK, body),
        Some(Err(_)) => plain(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    }
}

fn fill(type_url: &mut String, expected: Option<&str>) {
    if let (true, Some(expected)) = (type_url.is_empty(), expected) {
        expected.clone_into(type_url);
    }
}

fn text(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn plain(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn status(code: u8, message: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    headers
}

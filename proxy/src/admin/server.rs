//! The socket, the thread and the connections of the admin server.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use filters::stream_info::{Address, ConnectionInfo};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

use super::Admin;
use super::http::Page;
use super::pages;
use super::request;
use super::telemetry::{Exchange, Telemetry};
use crate::config::address::{IpVersion, SocketState};
use crate::config::bootstrap::AdminConfig;

/// Connections served at a time; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 100;

/// How long a request's head or body may take to arrive, and how long a connection may be idle.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may exist at all, which bounds slow readers.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);

/// How long the end waits for replies that are being written. What a page answers, `/quitquitquit` above all, is to reach
/// the client before the process is gone; a client that does not read must not keep it.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// Largest request body, which only `/runtime_modify` reads.
const MAX_BODY: usize = 1 << 20;

/// The bound socket.
#[derive(Debug)]
pub struct Listening {
    socket: Socket,
    /// Where it listens, with the port the kernel chose.
    pub address: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Binds the admin server's address. To be done before anything else starts: a second process must fail here.
///
/// # Errors
/// What the operating system says, with the address.
pub fn bind(config: &AdminConfig) -> Result<Listening, String> {
    let fail = |error: io::Error| format!("cannot bind '{}': {error}", config.address);
    let (socket, address) = match &config.address {
        Address::Ip(ip) => {
            let listener = tcp(*ip, config).map_err(fail)?;
            let address = Address::Ip(listener.local_addr().map_err(fail)?);
            (Socket::Tcp(listener), address)
        }
        Address::Pipe(path) => (Socket::Unix(unix(path, config.mode).map_err(fail)?), config.address.clone()),
        Address::Internal(_) => return Err(fail(io::Error::other("the admin server needs an IP address or a path"))),
    };
    Ok(Listening { socket, address })
}

fn tcp(address: SocketAddr, config: &AdminConfig) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!config.ipv4_compat)?;
    }
    socket.set_reuse_address(true)?;
    set_options(&socket, address, config, SocketState::Prebind)?;
    socket.bind(&address.into())?;
    set_options(&socket, address, config, SocketState::Bound)?;
    socket.listen(1024)?;
    set_options(&socket, address, config, SocketState::Listening)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// `socket_options` of that state and of the address's family.
fn set_options(
    socket: &socket2::Socket,
    address: SocketAddr,
    config: &AdminConfig,
    state: SocketState,
) -> io::Result<()> {
    let version = if address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    let mut options = config
        .socket_options
        .iter()
        .filter(|option| option.state == state && option.ip_version.is_none_or(|wanted| wanted == version));
    options.try_for_each(|option| option.set(socket.as_fd()))
}

/// A file left by a process that is gone is replaced; one that somebody listens on is not.
fn unix(path: &str, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    let listener = if let Some(name) = path.strip_prefix('@') {
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?
    } else {
        let is_socket = std::fs::symlink_metadata(path)
            .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
        if is_socket && UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        if mode != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        listener
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The running server. Dropping it ends its thread, after the requests that had arrived are answered.
#[derive(Debug)]
pub struct AdminServer {
    stop: Option<watch::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl AdminServer {
    /// Starts the thread, and writes `--admin-address-path` if given.
    ///
    /// # Errors
    /// When the thread cannot be started or the file not be written.
    pub fn start(listening: Listening, admin: Admin, address_path: &str) -> io::Result<Self> {
        if !address_path.is_empty() {
            std::fs::write(address_path, listening.address.to_string())?;
        }
        let (stop, stopped) = watch::channel(());
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            match runtime {
                Ok(runtime) => runtime.block_on(serve(listening, admin, stopped)),
                Err(error) => tracing::error!(target: "admin", %error, "the admin server cannot start"),
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It waits for replies it is writing, for `LAST_REPLIES` at most.
            let _ended = thread.join();
        }
    }
}

/// Serves until `stop` is closed.
async fn serve(listening: Listening, admin: Admin, mut stop: watch::Receiver<()>) {
    let telemetry = Rc::new(Telemetry::new(&admin.store));
    let admin = Rc::new(admin);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let listener = match listening.socket {
        Socket::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Listener::Tcp),
        Socket::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Listener::Unix),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(target: "admin", %error, "the admin server cannot listen"),
    };
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok((permit, listener.accept().await?))
        };
        let accepted: io::Result<_> = tokio::select! {
            accepted = next => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((permit, stream)) => {
                let (admin, telemetry, stop) = (Rc::clone(&admin), Rc::clone(&telemetry), stop.clone());
                tokio::task::spawn_local(async move {
                    connection(stream, admin, telemetry, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: not a reason to spin.
                tracing::warn!(target: "admin", %error, "an admin connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Connections that are idle close at once, the others with their reply.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(LAST_REPLIES, room.acquire_many(all)).await.is_err() {
        tracing::debug!(target: "admin", "a client did not take its reply in time");
    }
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, ConnectionInfo)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let info = ConnectionInfo::between(Address::Ip(peer), Address::Ip(stream.local_addr()?));
                Ok((Box::new(stream), info))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let path = |address: io::Result<tokio::net::unix::SocketAddr>| {
                    let path = address.ok().and_then(|address| Some(address.as_pathname()?.display().to_string()));
                    Address::Pipe(path.unwrap_or_default().into())
                };
                let info = ConnectionInfo::between(path(stream.peer_addr()), path(stream.local_addr()));
                Ok((Box::new(stream), info))
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

async fn connection(
    (stream, info): (Box<dyn Stream>, ConnectionInfo),
    admin: Rc<Admin>,
    telemetry: Rc<Telemetry>,
    mut stop: watch::Receiver<()>,
) {
    let info = Rc::new(info);
    let counted = telemetry.connection();
    let stream = counted.metered(stream);
    let service = service_fn(move |request| {
        let admin = Rc::clone(&admin);
        let mut exchange = telemetry.request(&admin, &info);
        async move { Ok::<_, Infallible>(respond(&admin, request, &mut exchange).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let until_the_end = async {
        tokio::select! {
            done = served.as_mut() => return done,
            _ = stop.changed() => served.as_mut().graceful_shutdown(),
        }
        served.await
    };
    match tokio::time::timeout(CONNECTION_LIFE, until_the_end).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if error.is_parse() {
                counted.protocol_error();
            }
            tracing::debug!(target: "admin", %error, "an admin connection failed");
        }
        Err(_) => tracing::debug!(target: "admin", "an admin connection was closed because of its age"),
    }
}

async fn respond(admin: &Admin, request: Request<Incoming>, exchange: &mut Exchange) -> Response<Chunked> {
    let (parts, body) = request.into_parts();
    let (head, refused) = request::head(&parts);
    let (path, query) = request::target(&head);
    exchange.asked(head);
    if let Some(refused) = refused {
        exchange.answered(refused.status, refused.body.len(), refused.details);
        let mut response = Response::new(Chunked::whole(refused.body));
        *response.status_mut() = refused.status;
        let headers = response.headers_mut();
        if !refused.body.is_empty() {
            headers.insert(CONTENT_LENGTH, refused.body.len().into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        headers.extend(exchange.date().map(|date| (DATE, date)));
        headers.insert(SERVER, HeaderValue::from_static("envoy"));
        if refused.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    let body = tokio::time::timeout(READ_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let page = match body {
        Ok(Ok(body)) => {
            let body = body.to_bytes();
            exchange.received(body.len());
            let request = pages::Request {
                method: &parts.method,
                path: &path,
                query: &query,
                headers: &parts.headers,
                body: &body,
            };
            pages::answer(admin, request).await
        }
        Ok(Err(_)) => Page::error(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too large\n"),
        Err(_) => Page::error(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive\n"),
    };
    exchange.answered(page.status, page.body.len(), "admin_filter_response");
    let mut response = Response::new(Chunked { rest: Some(page.body.into()), tells_length: false });
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.extend(exchange.date().map(|date| (DATE, date)));
    headers.insert(SERVER, HeaderValue::from_static("envoy"));
    response
}

/// A body. A page does not tell its length, so that it is sent in chunks as Envoy's is; a refusal does.
struct Chunked {
    rest: Option<Bytes>,
    tells_length: bool,
}

impl Chunked {
    const fn whole(body: &'static str) -> Self {
        Self { rest: Some(Bytes::from_static(body.as_bytes())), tells_length: true }
    }
}

impl Body for Chunked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.rest.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) if self.tells_length => SizeHint::with_exact(rest.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

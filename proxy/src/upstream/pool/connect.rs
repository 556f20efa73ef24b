//! Opening a connection: socket options, bind, connect, timeout, and the protocol's opening.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use filters::stream_info::Address;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::http1::Http1Connection;
use super::{ConnectionGuard, Pool, PoolProtocol, http2};
use crate::http::codec::h2::ClientConnection;
use crate::transport::Io;
use crate::upstream::breaker::Permit;
use crate::upstream::cluster::ClusterContext;
use crate::upstream::failure::{FailureKind, UpstreamFailure};

/// Opens one connection and gives it to the pool. Runs as a task, so that it serves whoever waits when it is ready.
pub(super) async fn connect(pool: Rc<Pool>, permit: Permit) {
    let started = Instant::now();
    let guard = ConnectionGuard::new(&pool, permit);
    let timers = pool.context.worker.timers();
    let deadline = timers.now().after(pool.context.config.connect_timeout);
    let alarm = timers.alarm();
    let mut open = std::pin::pin!(open(&pool));
    let outcome = std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(outcome) = open.as_mut().poll(cx) {
            return std::task::Poll::Ready(outcome);
        }
        alarm.poll(deadline, cx).map(|()| Err(UpstreamFailure::new(FailureKind::ConnectTimeout)))
    })
    .await;
    let stats = &pool.context.stats;
    match outcome {
        Ok(opened) => {
            stats
                .upstream_cx_connect_ms()
                .record(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            match opened {
                Opened::Http1(io) => {
                    let connection = Http1Connection::new(io, guard, &pool.context);
                    pool.connected_http1(Box::new(connection));
                }
                Opened::Http2(client, driver) => {
                    let connection = http2::adopt(&pool, client, *driver, guard);
                    pool.connected_http2(connection);
                }
            }
        }
        Err(failure) => {
            stats.upstream_cx_connect_fail().inc();
            if failure.kind == FailureKind::ConnectTimeout {
                stats.upstream_cx_connect_timeout().inc();
            }
            pool.host.shard(pool.context.worker.index()).cx_connect_fail.inc();
            guard.ended(failure.kind == FailureKind::ConnectFailure, 0, false);
            drop(guard);
            pool.connect_failed(&failure);
        }
    }
}

enum Opened {
    Http1(Io),
    Http2(ClientConnection, Box<h2::client::Connection<Io, Bytes>>),
}

async fn open(pool: &Pool) -> Result<Opened, UpstreamFailure> {
    let io = socket(&pool.context, pool.host.address()).await.map_err(|error| connect_failure(&error))?;
    match pool.protocol {
        PoolProtocol::Http1 => Ok(Opened::Http1(io)),
        PoolProtocol::Http2 => {
            let (client, driver) = ClientConnection::handshake(io, &pool.context.config.http2)
                .await
                .map_err(|_| UpstreamFailure::new(FailureKind::ConnectFailure))?;
            Ok(Opened::Http2(client, Box::new(driver)))
        }
    }
}

/// A connected byte stream to `address`, with the cluster's socket options.
///
/// # Errors
/// What the operating system says.
pub(crate) async fn socket(context: &ClusterContext, address: &Address) -> io::Result<Io> {
    match address {
        Address::Ip(address) => Ok(Io::tcp(tcp(context, *address).await?, Bytes::new())),
        Address::Pipe(path) => Ok(Io::unix(unix(path).await?, Bytes::new())),
        Address::Internal(name) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("internal listener {name:?} cannot be reached")))
        }
    }
}

async fn tcp(context: &ClusterContext, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    context.config.connection.apply(&socket, &address).inspect_err(|_| {
        context.stats.bind_errors().inc();
    })?;
    socket.connect(address).await
}

async fn unix(path: &str) -> io::Result<UnixStream> {
    match path.strip_prefix('@') {
        None => UnixStream::connect(path).await,
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
    }
}

fn connect_failure(error: &io::Error) -> UpstreamFailure {
    // `Connection refused (os error 111)`: Envoy's text has the words alone.
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    UpstreamFailure::with(FailureKind::ConnectFailure, format!("delayed connect error: {words}"))
}

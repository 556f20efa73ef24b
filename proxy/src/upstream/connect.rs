//! A byte stream to a host, with the cluster's socket options.

mod happy_eyeballs;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use bytes::Bytes;
use filters::stream_info::Address;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::cluster::ClusterContext;
use super::failure::{FailureKind, UpstreamFailure};
use super::host::Host;
use super::pool::ConnectionGuard;
use crate::config::address::{SocketState, TcpKeepalive};
use crate::config::cluster::ConnectionOptions;
use crate::transport::Io;

/// Runs a connect within the cluster's `connect_timeout`.
pub(super) async fn within_timeout<T>(
    context: &ClusterContext,
    connect: impl Future<Output = Result<T, UpstreamFailure>>,
) -> Result<T, UpstreamFailure> {
    let timers = context.worker.timers();
    let deadline = timers.now().after(context.config.connect_timeout);
    let alarm = timers.alarm();
    let mut connect = std::pin::pin!(connect);
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(outcome) = connect.as_mut().poll(cx) {
            return std::task::Poll::Ready(outcome);
        }
        alarm.poll(deadline, cx).map(|()| Err(UpstreamFailure::new(FailureKind::ConnectTimeout)))
    })
    .await
}

/// Counts a connection that was made.
pub(super) fn connected(context: &ClusterContext, started: Instant) {
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    context.stats.upstream_cx_connect_ms().record(millis);
}

/// Counts a connection that could not be made.
pub(super) fn failed(context: &ClusterContext, host: &Host, guard: &ConnectionGuard, failure: &UpstreamFailure) {
    context.stats.upstream_cx_connect_fail().inc();
    if failure.kind == FailureKind::ConnectTimeout {
        context.stats.upstream_cx_connect_timeout().inc();
    }
    host.shard(context.worker.index()).cx_connect_fail.inc();
    guard.ended(failure.kind == FailureKind::ConnectFailure, 0, false);
}

/// A connected byte stream to `host`, with the cluster's socket options; where the host has several addresses, to the first
/// that answers.
pub(super) async fn socket(context: &ClusterContext, host: &Host) -> io::Result<Io> {
    let options = &context.config.connection;
    let bind_failed = || context.stats.bind_errors().inc();
    let others = &host.attributes().additional_addresses;
    match &**host.address() {
        Address::Ip(first) if !others.is_empty() => {
            let addresses = happy_eyeballs::order(*first, others);
            // Each attempt counts as a connection, and the first is counted already.
            let first = std::cell::Cell::new(true);
            let connect = |address| {
                if !first.replace(false) {
                    context.stats.upstream_cx_total().inc();
                }
                tcp_socket(options, address, bind_failed)
            };
            let stream = happy_eyeballs::race(context.worker.timers(), addresses, connect).await?;
            Ok(Io::tcp(stream, Bytes::new()))
        }
        address => connect(options, address, bind_failed).await,
    }
}

/// A connected byte stream to `address`. `bind_failed` hears of a source address that cannot be bound to.
///
/// # Errors
/// When there is no connection, for whatever reason; internal listeners cannot be reached.
pub async fn connect(options: &ConnectionOptions, address: &Address, bind_failed: impl FnOnce()) -> io::Result<Io> {
    match address {
        Address::Ip(address) => Ok(Io::tcp(tcp_socket(options, *address, bind_failed).await?, Bytes::new())),
        Address::Pipe(path) => Ok(Io::unix(unix_socket(path).await?, Bytes::new())),
        Address::Internal(name) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("internal listener {name:?} cannot be reached")))
        }
    }
}

async fn tcp_socket(
    options: &ConnectionOptions,
    address: SocketAddr,
    bind_failed: impl FnOnce(),
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    let socket_ref = SockRef::from(&socket);
    if let Some(keepalive) = &options.tcp_keepalive {
        set_keepalive(&socket_ref, keepalive)?;
    }
    let (source, socket_options) = options.bind.source_for(address);
    let bound = || -> io::Result<()> {
        if options.bind.freebind {
            socket_ref.set_freebind_v4(true)?;
        }
        for option in socket_options.iter().filter(|option| option.state == SocketState::Prebind) {
            option.set(socket_ref.as_fd())?;
        }
        if let Some(source) = source {
            socket.bind(source)?;
        }
        for option in socket_options.iter().filter(|option| option.state == SocketState::Bound) {
            option.set(socket_ref.as_fd())?;
        }
        Ok(())
    };
    bound().inspect_err(|_| bind_failed())?;
    socket.connect(address).await
}

fn set_keepalive(socket: &SockRef<'_>, keepalive: &TcpKeepalive) -> io::Result<()> {
    let mut set = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        set = set.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        set = set.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        set = set.with_retries(probes);
    }
    socket.set_tcp_keepalive(&set)
}

async fn unix_socket(path: &str) -> io::Result<UnixStream> {
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

/// The failure an operating system's error stands for, in Envoy's words.
pub(super) fn connect_failure(error: &io::Error) -> UpstreamFailure {
    // `Connection refused (os error 111)`: Envoy's text has the words alone.
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    UpstreamFailure::with(FailureKind::ConnectFailure, format!("delayed connect error: {words}"))
}

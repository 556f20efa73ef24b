//! A worker's end of a listening socket, and the connections it gives.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use filters::stream_info::Address;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::canonical;
use crate::control::listeners::sockets::{ListenSocket, WorkerSocket};

/// A downstream connection's socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// A listening socket registered with the worker's poller.
#[derive(Debug)]
pub(super) struct Source {
    listener: Listener,
    /// The local address of every connection, unless the socket listens on all of them or takes others' connections.
    local: Option<Address>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Source {
    pub(super) fn new(socket: &ListenSocket, worker: usize) -> io::Result<Self> {
        let listener = match socket.for_worker(worker)? {
            WorkerSocket::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            WorkerSocket::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        };
        let transparent = socket.spec().transparent == Some(true);
        let known = socket.address().ip().is_none_or(|ip| !ip.ip().is_unspecified()) && !transparent;
        Ok(Self { listener, local: known.then(|| canonical(socket.address())) })
    }

    pub(super) const fn local(&self) -> Option<&Address> {
        self.local.as_ref()
    }

    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Address)>> {
        match &self.listener {
            Listener::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| (Stream::Tcp(stream), tcp_peer(peer)))
            }
            Listener::Unix(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| (Stream::Unix(stream), unix_peer(&peer)))
            }
        }
    }

    /// Takes a connection that is queued now, without asking the poller: it may not have heard of it yet. `None` stands
    /// for one that was lost; breaks when the queue is empty or cannot be read.
    pub(super) fn accept_queued(&self) -> ControlFlow<(), Option<(Stream, Address)>> {
        let accepted = SockRef::from(self).accept().and_then(|(socket, peer)| {
            socket.set_nonblocking(true)?;
            Ok(match &self.listener {
                Listener::Tcp(_) => {
                    let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
                    (Stream::Tcp(TcpStream::from_std(socket.into())?), tcp_peer(peer))
                }
                Listener::Unix(_) => {
                    let stream = UnixStream::from_std(socket.into())?;
                    let peer = unix_peer(&stream.peer_addr()?);
                    (Stream::Unix(stream), peer)
                }
            })
        });
        match accepted {
            Ok(connection) => ControlFlow::Continue(Some(connection)),
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => ControlFlow::Continue(None),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Stream {
    /// The socket's own local address; one system call.
    pub(super) fn local_address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(stream) => canonical(&Address::Ip(stream.local_addr()?)),
            Self::Unix(stream) => unix_peer(&stream.local_addr()?),
        })
    }

    /// Makes the close that follows a reset, as the kernel does by itself when it holds bytes that nobody read.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // A socket that cannot be told so closes in order.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Where the client connected before the kernel redirected it here.
    pub(super) fn original_dst(&self) -> Option<SocketAddr> {
        let Self::Tcp(stream) = self else { return None };
        let socket = SockRef::from(stream);
        let v4 = stream.local_addr().is_ok_and(|local| local.ip().to_canonical().is_ipv4());
        let found = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
        found.ok()?.as_socket()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

fn tcp_peer(peer: SocketAddr) -> Address {
    canonical(&Address::Ip(peer))
}

fn unix_peer(peer: &tokio::net::unix::SocketAddr) -> Address {
    let path = peer.as_pathname().map(|path| path.to_string_lossy().into_owned());
    Address::Pipe(path.unwrap_or_default().into())
}

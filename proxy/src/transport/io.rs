//! One byte stream, whatever carries it: TCP, Unix sockets, TLS over either.
//!
//! Reads go through the worker's scratch buffer: a connection that waits holds no read buffer, small messages get
//! an exactly sized one, and a connection that keeps filling the scratch buffer reads straight into its own.
//! Vectored writes are forwarded all the way, so a head and its body leave in one system call.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use filters::tls::TlsInfo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ahead::{Ahead, Gate};
use super::pipe::Pipe;
use super::tls::TlsStream;
use crate::http::codec::h1::WriteBuf;

/// How much a read asks for at first; also the size of a worker's scratch buffer.
pub const SCRATCH: usize = 16 * 1024;
/// Pieces handed to one vectored write.
const SLICES: usize = 16;
/// How much a read asks for once a connection has filled the scratch buffer.
const BULK: usize = 64 * 1024;

/// A connection's byte stream.
pub struct Io {
    stream: Stream,
    /// The last read filled its buffer: more is waiting, read in bulk.
    bulk: bool,
    /// What comes before the next read of the socket. Most connections never have any, and all that a read asks is whether
    /// this is there.
    ahead: Option<Box<Ahead>>,
    /// Counts what passes, where that is wanted.
    meter: Option<Rc<Meter>>,
}

/// Bytes that passed a stream.
#[derive(Debug, Default)]
pub struct Meter {
    /// Read.
    pub received: Cell<u64>,
    /// Written.
    pub sent: Cell<u64>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Io {
    /// A TCP connection; `prefix` is read before anything from the socket.
    #[must_use]
    pub fn tcp(stream: TcpStream, prefix: Bytes) -> Self {
        Self { stream: Stream::Tcp(stream), bulk: false, ahead: Ahead::of(prefix), meter: None }
    }

    /// A Unix socket connection; `prefix` is read before anything from the socket.
    #[must_use]
    pub fn unix(stream: UnixStream, prefix: Bytes) -> Self {
        Self { stream: Stream::Unix(stream), bulk: false, ahead: Ahead::of(prefix), meter: None }
    }

    /// A TLS session.
    #[must_use]
    pub fn tls(stream: TlsStream) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), bulk: false, ahead: None, meter: None }
    }

    /// Has `meter` count what passes from now on.
    pub fn measure(&mut self, meter: Rc<Meter>) {
        self.meter = Some(meter);
    }

    /// What was agreed on, if this is a TLS session.
    #[must_use]
    pub fn tls_info(&self) -> Option<&Rc<TlsInfo>> {
        match &self.stream {
            Stream::Tls(stream) => Some(stream.info()),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Takes what has arrived at a plain socket, without waiting.
    ///
    /// # Errors
    /// What the socket reports; `WouldBlock` when nothing has arrived.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_read(buffer),
            Stream::Unix(stream) => stream.try_read(buffer),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Gives bytes back, to be read again first.
    pub fn unread(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let prefix = &mut self.ahead.get_or_insert_default().prefix;
        *prefix = if prefix.is_empty() { bytes } else { [bytes, std::mem::take(prefix)].concat().into() };
    }

    /// The local address of a TCP connection.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
            Stream::Tls(stream) => stream.socket().local_addr(),
        }
    }

    /// Makes the close that follows a reset: the peer learns that what it sent last may be lost.
    pub fn reset_on_close(&self) {
        match &self.stream {
            // A socket that cannot be told so closes in order, which is no worse for the peer than waiting.
            Stream::Tcp(stream) => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            Stream::Tls(stream) => stream.socket().reset_on_close(),
            Stream::Unix(_) => {}
        }
    }

    /// Has `gate` asked before the peer is heard, after those that are there already.
    pub fn guard(&mut self, gate: Gate) {
        self.ahead.get_or_insert_default().gates.push(gate);
    }

    /// How many bytes the peer had said when it was not heard; 0 if it was.
    #[must_use]
    pub fn denied_bytes(&self) -> u64 {
        self.ahead.as_ref().and_then(|ahead| ahead.denial.as_ref()).map_or(0, |denial| denial.bytes)
    }

    /// Appends what has arrived to `buf`; ready with 0 at the end of the stream.
    ///
    /// # Errors
    /// What the socket reports; `PermissionDenied` where a gate does not open, and then nothing that was read may be used.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let read = if self.ahead.is_some() {
            self.poll_read_ahead(cx, scratch, buf)
        } else {
            self.poll_read_socket(cx, scratch, buf)
        };
        if let (Some(meter), Poll::Ready(Ok(n))) = (&self.meter, &read) {
            meter.received.set(meter.received.get() + *n as u64);
        }
        read
    }

    /// A read that has the prefix first, and asks the gates.
    #[cold]
    fn poll_read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.denial.is_some()) {
            return self.poll_linger(cx, scratch).map(|()| Err(io::ErrorKind::PermissionDenied.into()));
        }
        let prefix = self.ahead.as_mut().map(|ahead| std::mem::take(&mut ahead.prefix)).unwrap_or_default();
        let n = if prefix.is_empty() {
            ready!(self.poll_read_socket(cx, scratch, buf))?
        } else {
            buf.extend_from_slice(&prefix);
            prefix.len()
        };
        if self.pass_gates(n) {
            return Poll::Ready(Ok(n));
        }
        buf.truncate(buf.len() - n);
        self.poll_linger(cx, scratch).map(|()| Err(io::ErrorKind::PermissionDenied.into()))
    }

    /// Asks the gates about a read of `n` bytes; false if one is shut.
    fn pass_gates(&mut self, n: usize) -> bool {
        let Some(ahead) = &mut self.ahead else { return true };
        if !ahead.pass(n) {
            if let Some(meter) = &self.meter {
                meter.received.set(meter.received.get() + n as u64);
            }
            return false;
        }
        if ahead.is_passed() {
            self.ahead = None;
        }
        true
    }

    /// Ready when a connection that is not heard may be closed. What the peer goes on to say is thrown away, and closing tells
    /// it so.
    fn poll_linger(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        let lingering = |this: &mut Self| this.ahead.as_mut().and_then(|it| it.denial.as_mut()?.lingering.take());
        let Some(mut wait) = lingering(self) else { return Poll::Ready(()) };
        let mut over = wait.as_mut().poll(cx).is_ready();
        let mut thrown = BytesMut::new();
        let mut ended = false;
        while !over && !ended {
            match self.poll_read_socket(cx, scratch, &mut thrown) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => ended = true,
                Poll::Ready(Ok(_)) => thrown.clear(),
                Poll::Ready(Err(_)) => over = true,
            }
            if let Some(denial) = self.ahead.as_mut().and_then(|ahead| ahead.denial.as_mut()) {
                denial.talking |= !ended && !over;
                over |= ended && !denial.patient;
            }
        }
        let Some(denial) = self.ahead.as_mut().and_then(|ahead| ahead.denial.as_mut()) else { return Poll::Ready(()) };
        if !over {
            denial.lingering = Some(wait);
            return Poll::Pending;
        }
        if denial.talking {
            self.reset_on_close();
        }
        Poll::Ready(())
    }

    fn poll_read_socket(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if let Stream::Tls(stream) = &mut self.stream {
            return stream.poll_read(cx, scratch, buf);
        }
        if self.bulk {
            buf.reserve(BULK);
            let room = buf.capacity() - buf.len();
            let read = match &mut self.stream {
                Stream::Tcp(stream) => tokio_util::io::poll_read_buf(Pin::new(stream), cx, buf),
                Stream::Unix(stream) => tokio_util::io::poll_read_buf(Pin::new(stream), cx, buf),
                Stream::Tls(_) => Poll::Pending,
            };
            if let Poll::Ready(Ok(n)) = read {
                self.bulk = n >= SCRATCH.min(room);
            }
            return read;
        }
        let mut read = ReadBuf::new(scratch);
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut read),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, &mut read),
            Stream::Tls(_) => Poll::Pending,
        };
        polled.map_ok(|()| {
            let filled = read.filled();
            self.bulk = filled.len() == SCRATCH;
            buf.extend_from_slice(filled);
            filled.len()
        })
    }

    /// Ready when a read would not wait: bytes, an end, or an error are there; a TLS session may find that they were none of
    /// the stream's. No system call.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.as_ref().is_some_and(|ahead| !ahead.prefix.is_empty()) {
            return Poll::Ready(());
        }
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Tls(stream) => stream.socket().poll_read_ready(cx),
        }
    }

    /// What an idle connection has to say though it should not: the first bytes, or nothing if it is its end. It cannot be
    /// used any more.
    #[must_use]
    pub fn disturbance(&mut self) -> Option<Bytes> {
        if let Stream::Tls(stream) = &mut self.stream {
            return stream.disturbance();
        }
        let mut first = [0; 16];
        match self.try_read(&mut first) {
            Ok(n) => Some(Bytes::copy_from_slice(&first[..n])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Bytes::new()),
        }
    }

    /// Writes as much of `out` as the socket takes in one call and removes it from `out`.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut WriteBuf) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = out.slices(&mut slices);
        let slices = &slices[..count];
        let polled = match &mut self.stream {
            Stream::Tcp(stream) if count == 1 => Pin::new(stream).poll_write(cx, &slices[0]),
            Stream::Unix(stream) if count == 1 => Pin::new(stream).poll_write(cx, &slices[0]),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => stream.poll_write(cx, slices),
        };
        match polled {
            Poll::Ready(Ok(n)) => {
                out.advance(n);
                if let Some(meter) = &self.meter {
                    meter.sent.set(meter.sent.get() + n as u64);
                }
                Poll::Ready(Ok(n))
            }
            other => other,
        }
    }

    /// Whether bytes may move to and from this stream without passing through this process: nothing has to see them, and
    /// none was taken off the socket already.
    #[must_use]
    pub const fn can_splice(&self) -> bool {
        self.ahead.is_none() && !matches!(self.stream, Stream::Tls(_))
    }

    /// Moves what has arrived into `pipe`, which is empty, but not more than `most`; ready with 0 at the end of the stream.
    ///
    /// # Errors
    /// What the socket reports; `InvalidInput` where it cannot be spliced.
    pub fn poll_splice_from(&self, cx: &mut Context<'_>, pipe: &mut Pipe, most: usize) -> Poll<io::Result<usize>> {
        loop {
            let moved = match &self.stream {
                Stream::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || pipe.fill(stream, most))
                }
                Stream::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || pipe.fill(stream, most))
                }
                Stream::Tls(_) => Err(io::ErrorKind::InvalidInput.into()),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    /// Moves what `pipe` holds to the socket, as much as that takes in one call.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn poll_splice_to(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        loop {
            let moved = match &self.stream {
                Stream::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || pipe.drain(stream))
                }
                Stream::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || pipe.drain(stream))
                }
                Stream::Tls(_) => Err(io::ErrorKind::InvalidInput.into()),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => return Poll::Ready(moved),
            }
        }
    }

    /// Sends FIN; what the peer still sends can be read.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}

impl From<xds_client::Socket> for Io {
    fn from(socket: xds_client::Socket) -> Self {
        match socket {
            xds_client::Socket::Tcp(stream) => Self::tcp(stream, Bytes::new()),
            xds_client::Socket::Unix(stream) => Self::unix(stream, Bytes::new()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        match &mut this.ahead {
            Some(ahead) if ahead.denial.is_some() => return this.poll_linger(cx, &mut [0; 1024]).map(|()| denied()),
            Some(ahead) if !ahead.prefix.is_empty() => {
                let n = ahead.prefix.len().min(buf.remaining());
                buf.put_slice(&ahead.prefix.split_to(n));
            }
            _ => ready!(match &mut this.stream {
                Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
                Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
                Stream::Tls(stream) => stream.poll_read_into(cx, buf),
            })?,
        }
        let n = buf.filled().len() - before;
        if this.ahead.is_some() && !this.pass_gates(n) {
            buf.set_filled(before);
            return this.poll_linger(cx, &mut [0; 1024]).map(|()| denied());
        }
        if let Some(meter) = &this.meter {
            meter.received.set(meter.received.get() + n as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => stream.poll_write(cx, bufs),
        };
        if let (Some(meter), Poll::Ready(Ok(n))) = (&this.meter, &written) {
            meter.sent.set(meter.sent.get() + *n as u64);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self.get_mut(), cx)
    }
}

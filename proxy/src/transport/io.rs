//! One byte stream, whatever carries it: TCP, Unix sockets, later TLS and in-memory pairs.
//!
//! Reads go through the worker's scratch buffer: a connection that waits holds no read buffer, small messages get
//! an exactly sized one, and a connection that keeps filling the scratch buffer reads straight into its own.
//! Vectored writes are forwarded all the way, so a head and its body leave in one system call.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::pipe::Pipe;
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
}

/// What a connection's first reads meet.
#[derive(Default)]
struct Ahead {
    /// Bytes taken off the socket while it was being inspected, to be read again first.
    prefix: Bytes,
    /// Who is asked before anything that was read is handed out.
    gates: Vec<Gate>,
    /// A gate that did not open.
    denial: Option<Denial>,
}

/// Why a peer is not heard.
#[derive(Debug)]
pub struct Denial {
    /// For logs.
    pub details: String,
    /// What it had said, in bytes.
    pub bytes: u64,
}

/// Decides, when a peer first says something, whether it is heard.
pub struct Gate {
    /// An end without a word before it is asked about as well.
    at_end: bool,
    ask: Box<dyn FnOnce() -> Result<(), String>>,
}

impl Gate {
    /// A gate that opens unless `ask` has something against it; with `at_end` for the end of a silent peer as well.
    #[must_use]
    pub fn new(at_end: bool, ask: impl FnOnce() -> Result<(), String> + 'static) -> Self {
        Self { at_end, ask: Box::new(ask) }
    }
}

impl Ahead {
    fn of(prefix: Bytes) -> Option<Box<Self>> {
        (!prefix.is_empty()).then(|| Box::new(Self { prefix, ..Self::default() }))
    }

    /// Whether nothing of it is left. A denial stays: it has to be told.
    fn is_passed(&self) -> bool {
        self.prefix.is_empty() && self.gates.is_empty() && self.denial.is_none()
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    /// A TCP connection; `prefix` is read before anything from the socket.
    #[must_use]
    pub fn tcp(stream: TcpStream, prefix: Bytes) -> Self {
        Self { stream: Stream::Tcp(stream), bulk: false, ahead: Ahead::of(prefix) }
    }

    /// A Unix socket connection; `prefix` is read before anything from the socket.
    #[must_use]
    pub fn unix(stream: UnixStream, prefix: Bytes) -> Self {
        Self { stream: Stream::Unix(stream), bulk: false, ahead: Ahead::of(prefix) }
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
        }
    }

    /// Makes the close that follows a reset: the peer learns that what it sent last may be lost.
    pub fn reset_on_close(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            // A socket that cannot be told so closes in order, which is no worse for the peer than waiting.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Has `gate` asked before the peer is heard, after those that are there already.
    pub fn guard(&mut self, gate: Gate) {
        self.ahead.get_or_insert_default().gates.push(gate);
    }

    /// Why the peer was not heard, once, if it was not.
    pub fn take_denial(&mut self) -> Option<Denial> {
        self.ahead.as_mut()?.denial.take()
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
        if self.ahead.is_some() {
            return self.poll_read_ahead(cx, scratch, buf);
        }
        self.poll_read_socket(cx, scratch, buf)
    }

    /// A read that has the prefix first, and asks the gates.
    #[cold]
    fn poll_read_ahead(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let prefix = self.ahead.as_mut().map(|ahead| std::mem::take(&mut ahead.prefix)).unwrap_or_default();
        let n = if prefix.is_empty() {
            ready!(self.poll_read_socket(cx, scratch, buf))?
        } else {
            buf.extend_from_slice(&prefix);
            prefix.len()
        };
        self.pass_gates(n)?;
        Poll::Ready(Ok(n))
    }

    /// Asks the gates about a first read of `n` bytes. One that stays shut leaves the others unasked.
    fn pass_gates(&mut self, n: usize) -> io::Result<()> {
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        if n > 0 || ahead.gates.iter().any(|gate| gate.at_end) {
            for gate in std::mem::take(&mut ahead.gates) {
                if let Err(details) = (gate.ask)() {
                    ahead.denial = Some(Denial { details, bytes: n as u64 });
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
            }
        }
        if ahead.is_passed() {
            self.ahead = None;
        }
        Ok(())
    }

    fn poll_read_socket(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if self.bulk {
            buf.reserve(BULK);
            let room = buf.capacity() - buf.len();
            let read = match &mut self.stream {
                Stream::Tcp(stream) => tokio_util::io::poll_read_buf(Pin::new(stream), cx, buf),
                Stream::Unix(stream) => tokio_util::io::poll_read_buf(Pin::new(stream), cx, buf),
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
        };
        polled.map_ok(|()| {
            let filled = read.filled();
            self.bulk = filled.len() == SCRATCH;
            buf.extend_from_slice(filled);
            filled.len()
        })
    }

    /// Ready when a read would not wait: bytes, an end, or an error are there. No system call.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.as_ref().is_some_and(|ahead| !ahead.prefix.is_empty()) {
            return Poll::Ready(());
        }
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(cx).map(drop),
        }
    }

    /// What an idle connection has to say though it should not: the first bytes, or nothing if it is its end. It cannot be
    /// used any more.
    #[must_use]
    pub fn disturbance(&self) -> Option<Bytes> {
        let mut first = [0; 16];
        let attempt = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut first),
            Stream::Unix(stream) => stream.try_read(&mut first),
        };
        match attempt {
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
        };
        match polled {
            Poll::Ready(Ok(n)) => {
                out.advance(n);
                Poll::Ready(Ok(n))
            }
            other => other,
        }
    }

    /// Whether bytes may move to and from this stream without passing through this process: nothing has to see them, and
    /// none was taken off the socket already.
    #[must_use]
    pub const fn can_splice(&self) -> bool {
        self.ahead.is_none()
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
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match &mut this.ahead {
            Some(ahead) if !ahead.prefix.is_empty() => {
                let n = ahead.prefix.len().min(buf.remaining());
                buf.put_slice(&ahead.prefix.split_to(n));
            }
            _ => ready!(match &mut this.stream {
                Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
                Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            })?,
        }
        if this.ahead.is_some() {
            this.pass_gates(buf.filled().len() - before)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
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

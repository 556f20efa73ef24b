//! One byte stream, whatever carries it: TCP, Unix sockets, later TLS and in-memory pairs.
//!
//! Reads go through the worker's scratch buffer: a connection that waits holds no read buffer, small messages get
//! an exactly sized one, and a connection that keeps filling the scratch buffer reads straight into its own.
//! Vectored writes are forwarded all the way, so a head and its body leave in one system call.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How much a read asks for at first; also the size of a worker's scratch buffer.
pub const SCRATCH: usize = 16 * 1024;
/// How much a read asks for once a connection has filled the scratch buffer.
const BULK: usize = 64 * 1024;

/// A connection's byte stream.
pub struct Io {
    stream: Stream,
    /// Bytes taken off the socket while it was being inspected, to be read again first.
    prefix: Bytes,
    /// The last read filled its buffer: more is waiting, read in bulk.
    bulk: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    /// A TCP connection; `prefix` is read before anything from the socket.
    #[must_use]
    pub const fn tcp(stream: TcpStream, prefix: Bytes) -> Self {
        Self { stream: Stream::Tcp(stream), prefix, bulk: false }
    }

    /// A Unix socket connection; `prefix` is read before anything from the socket.
    #[must_use]
    pub const fn unix(stream: UnixStream, prefix: Bytes) -> Self {
        Self { stream: Stream::Unix(stream), prefix, bulk: false }
    }

    /// The local address of a TCP connection.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// Appends what has arrived to `buf`; ready with 0 at the end of the stream.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len();
            buf.extend_from_slice(&std::mem::take(&mut self.prefix));
            return Poll::Ready(Ok(n));
        }
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
        if !self.prefix.is_empty() {
            return Poll::Ready(());
        }
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(cx).map(drop),
        }
    }

    /// Whether an idle connection has something to say that it should not: bytes, or its end.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        let mut byte = [0];
        let attempt = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut byte),
            Stream::Unix(stream) => stream.try_read(&mut byte),
        };
        !matches!(attempt, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes as much of `out` as the socket takes in one call and removes it from `out`.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut WriteQueue) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WriteQueue::SLICES];
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
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
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

/// Bytes waiting to be written: an encoding buffer for heads and framing, and body chunks that are not copied.
#[derive(Default)]
pub struct WriteQueue {
    chunks: std::collections::VecDeque<Bytes>,
    /// The end of the queue, still growing: heads, chunk framing, small bodies.
    tail: BytesMut,
    len: usize,
}

impl WriteQueue {
    const SLICES: usize = 16;
    /// Body chunks up to this size are copied behind what is being encoded: cheaper than a slice of their own.
    const COPY: usize = 1024;

    /// The buffer to encode into; what is put there follows all that was queued before.
    pub fn encode(&mut self, with: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        with(&mut self.tail);
        self.len += self.tail.len() - before;
    }

    /// Queues body bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if bytes.len() <= Self::COPY {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(bytes);
    }

    /// Bytes waiting.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn slices<'a>(&'a self, out: &mut [IoSlice<'a>; Self::SLICES]) -> usize {
        let mut count = 0;
        for chunk in self.chunks.iter().take(Self::SLICES) {
            out[count] = IoSlice::new(chunk);
            count += 1;
        }
        if count < Self::SLICES && !self.tail.is_empty() {
            out[count] = IoSlice::new(&self.tail);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n.min(self.len);
        while n > 0 {
            let Some(chunk) = self.chunks.front_mut() else {
                self.tail.advance(n.min(self.tail.len()));
                break;
            };
            if n < chunk.len() {
                chunk.advance(n);
                return;
            }
            n -= chunk.len();
            self.chunks.pop_front();
        }
        if self.len == 0 && self.tail.capacity() > Self::COPY * 8 {
            // An idle connection holds no buffer.
            self.tail = BytesMut::new();
        }
    }

    /// Forgets everything, keeping small allocations.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.tail.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut WriteQueue, step: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); WriteQueue::SLICES];
            let count = queue.slices(&mut slices);
            let taken: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).take(step).collect();
            assert!(!taken.is_empty(), "what waits is offered");
            queue.advance(taken.len());
            seen.extend(taken);
        }
        seen
    }

    #[test]
    fn order_is_kept_over_heads_small_and_large_bodies_at_any_write_size() {
        for step in [1, 7, 4096, 1 << 20] {
            let mut queue = WriteQueue::default();
            let mut expected = Vec::new();
            for i in 0..40_u8 {
                let head = vec![i; 10];
                queue.encode(|b| b.extend_from_slice(&head));
                expected.extend(head);
                let body = vec![i; if i % 3 == 0 { 5000 } else { 20 }];
                queue.push(Bytes::from(body.clone()));
                expected.extend(body);
            }
            assert_eq!(queue.len(), expected.len());
            assert_eq!(drain(&mut queue, step), expected, "step {step}");
        }
    }
}

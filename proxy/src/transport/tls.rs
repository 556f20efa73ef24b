//! A byte stream inside a TLS session. The handshake is over ([`crate::tls::handshake`]); this moves records.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use filters::tls::TlsInfo;
use rustls::Connection;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Io;
use crate::tls::statistics::SslStats;

/// As much of what is written is encrypted in one go: four records of the longest kind.
const AT_ONCE: usize = 64 * 1024;

/// A TLS session over a socket.
pub struct TlsStream {
    session: Connection,
    socket: Io,
    /// So many bytes are encrypted, and their records not all written yet: only then the writer hears of them, so that a
    /// session never holds what nobody comes back to write.
    accepted: usize,
    /// Decrypted, but more than the reader had room for.
    unread: BytesMut,
    /// The peer said that nothing follows.
    ended: bool,
    /// We said so.
    closed: bool,
    info: Rc<TlsInfo>,
    stats: SslStats,
}

impl TlsStream {
    /// A session whose handshake is over; what breaks it is counted in `stats`.
    #[must_use]
    pub fn new(session: impl Into<Connection>, socket: Io, info: Rc<TlsInfo>, stats: SslStats) -> Self {
        let mut session = session.into();
        // What is taken in is bounded by what is encrypted in one go.
        session.set_buffer_limit(None);
        Self { session, socket, accepted: 0, unread: BytesMut::new(), ended: false, closed: false, info, stats }
    }

    /// What was agreed on.
    #[must_use]
    pub const fn info(&self) -> &Rc<TlsInfo> {
        &self.info
    }

    /// What the session goes through.
    #[must_use]
    pub const fn socket(&self) -> &Io {
        &self.socket
    }

    /// As [`Io::poll_read`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        loop {
            let n = self.take_plaintext(buf)?;
            if n > 0 || self.ended {
                return Poll::Ready(Ok(n));
            }
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // Without a good-bye, which is how most peers leave.
                self.ended = true;
                return Poll::Ready(Ok(0));
            }
            let before = buf.len();
            let fed = self.feed(read.filled(), buf);
            // Tickets are answered by nothing, but a change of keys is, and a failure by an alert.
            let _ = self.poll_records(cx)?;
            if buf.len() > before {
                return Poll::Ready(Ok(buf.len() - before));
            }
            fed?;
        }
    }

    /// What is decrypted already.
    fn take_plaintext(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let reader = self.session.reader();
            match reader.into_first_chunk() {
                Ok([]) => {
                    self.ended = true;
                    return Ok(taken);
                }
                Ok(chunk) => {
                    let n = chunk.len();
                    buf.extend_from_slice(chunk);
                    io::BufRead::consume(&mut self.session.reader(), n);
                    taken += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in what arrived, and appends what was in it to `buf`.
    fn feed(&mut self, mut arrived: &[u8], buf: &mut BytesMut) -> io::Result<()> {
        while !arrived.is_empty() {
            if self.session.read_tls(&mut arrived)? == 0 {
                return Ok(());
            }
            self.session.process_new_packets().map_err(|error| self.broken(error))?;
            self.take_plaintext(buf)?;
        }
        Ok(())
    }

    /// The session is of no use any more.
    fn broken(&self, error: rustls::Error) -> io::Error {
        self.stats.connection_error().inc();
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Writes records that wait, as far as the socket takes them.
    fn poll_records(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut socket = Socket { io: &mut self.socket, cx };
        while self.session.wants_write() {
            match self.session.write_tls(&mut socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Poll::Pending),
                Err(error) => return Err(error),
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Encrypts some of `slices` and writes it. While this is pending it is to be called again with the same bytes first.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_records(cx)?);
            if self.accepted > 0 {
                return Poll::Ready(Ok(std::mem::take(&mut self.accepted)));
            }
            // Together, so that a head and its body share a record.
            let mut room = AT_ONCE;
            let parts: SmallVec<[IoSlice<'_>; 16]> = slices
                .iter()
                .map(|slice| {
                    let part = &slice[..slice.len().min(room)];
                    room -= part.len();
                    IoSlice::new(part)
                })
                .collect();
            self.accepted = self.session.writer().write_vectored(&parts)?;
            if self.accepted == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Says good-bye, and sends FIN.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            self.session.send_close_notify();
        }
        ready!(self.poll_records(cx)?);
        self.socket.poll_shutdown(cx)
    }

    /// As [`Io::disturbance`]: tickets do not disturb.
    pub fn disturbance(&mut self) -> Option<Bytes> {
        let mut buffer = [0; 2048];
        let mut said = BytesMut::new();
        loop {
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return Some(Bytes::new()),
                Ok(n) => {
                    if self.feed(&buffer[..n], &mut said).is_err() || self.ended {
                        return Some(Bytes::new());
                    }
                    if !said.is_empty() {
                        said.truncate(16);
                        return Some(said.freeze());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(Bytes::new()),
            }
        }
    }

    /// [`AsyncRead`], by way of a buffer.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            self.take_into(buf)?;
            if buf.filled().len() > before || buf.remaining() == 0 || self.ended {
                return Poll::Ready(Ok(()));
            }
            let mut arrived = [0; 4096];
            let mut read = ReadBuf::new(&mut arrived);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            let mut rest = read.filled();
            while !rest.is_empty() {
                if self.session.read_tls(&mut rest)? == 0 {
                    break;
                }
                let processed = self.session.process_new_packets();
                let _ = self.poll_records(cx)?;
                processed.map_err(|error| self.broken(error))?;
                if !rest.is_empty() {
                    // While it holds a whole record's plaintext the session takes in nothing more.
                    self.take_into(buf)?;
                    let mut unread = std::mem::take(&mut self.unread);
                    let taken = self.take_plaintext(&mut unread);
                    self.unread = unread;
                    taken?;
                }
            }
        }
    }

    /// What is decrypted already, as far as there is room.
    fn take_into(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        if !self.unread.is_empty() {
            let n = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..n]);
            self.unread.advance(n);
            if !self.unread.is_empty() {
                return Ok(());
            }
            // An idle connection holds no buffer.
            self.unread = BytesMut::new();
        }
        while buf.remaining() > 0 {
            match io::Read::read(&mut self.session.reader(), buf.initialize_unfilled()) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(n) => buf.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for TlsStream {
    /// Says good-bye, as far as the socket takes it at once.
    fn drop(&mut self) {
        if !self.closed {
            self.session.send_close_notify();
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.poll_records(&mut cx);
    }
}

/// The socket as rustls writes to it.
struct Socket<'a, 'b, 'c> {
    io: &'a mut Io,
    cx: &'b mut Context<'c>,
}

impl io::Write for Socket<'_, '_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

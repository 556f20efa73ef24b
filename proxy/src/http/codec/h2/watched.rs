//! The byte stream under an HTTP/2 codec, with an [`Inspector`] on both directions.
//!
//! The socket outlives the codec: when a connection ends by a verdict of the inspector's, the codec is dropped and what
//! there is left to say is said here.

use std::cell::{Cell, Ref, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Http2Options;
use super::inspect::{Counts, Fault, Inspector, Refusal, Remarks, Role, SHUTDOWN_ANSWER, StandIn, goaway};
use crate::transport::Io;

/// What a connection's codec, task and streams share.
#[derive(Clone)]
pub struct Watch(Rc<Shared>);

struct Shared {
    io: RefCell<Io>,
    inspector: RefCell<Inspector>,
    /// What streams log when this side closed the connection on them.
    ended_as: Cell<Option<&'static str>>,
    /// The peer closed the connection.
    saw_end: Cell<bool>,
    /// Bytes the codec reads first.
    forged: RefCell<Bytes>,
    /// What is written where the codec has to be given another authority.
    stand_in: Option<Box<RefCell<StandIn>>>,
}

impl Watch {
    pub(super) fn new(io: Io, role: Role, options: &Http2Options) -> Self {
        Self::with_stand_in(io, role, options, None)
    }

    pub(super) fn with_stand_in(io: Io, role: Role, options: &Http2Options, stand_in: Option<StandIn>) -> Self {
        Self(Rc::new(Shared {
            io: RefCell::new(io),
            inspector: RefCell::new(Inspector::new(role, options)),
            ended_as: Cell::new(None),
            saw_end: Cell::new(false),
            forged: RefCell::default(),
            stand_in: stand_in.map(|stand_in| Box::new(RefCell::new(stand_in))),
        }))
    }

    /// The breach that ends the connection, once there was one.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.inspector().fault().copied()
    }

    /// What was counted since this was asked last.
    #[must_use]
    pub fn take_counts(&self) -> Counts {
        self.0.inspector.borrow_mut().take_counts()
    }

    /// Whether frames came since this was asked last, and whether one answered a PING of ours.
    #[must_use]
    pub fn take_heard(&self) -> (bool, bool) {
        self.0.inspector.borrow_mut().take_heard()
    }

    /// Streams that the codec refused without handing them over.
    #[must_use]
    pub fn take_unclaimed(&self) -> Vec<Refusal> {
        self.0.inspector.borrow_mut().take_unclaimed()
    }

    /// Streams that had begun when the connection ended, and were never handed over.
    #[must_use]
    pub fn begun(&self) -> Vec<u32> {
        self.inspector().begun().collect()
    }

    /// Streams that are not over.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.inspector().open_streams()
    }

    /// This side closes the connection on its streams, which log this.
    pub fn end_as(&self, details: &'static str) {
        self.0.ended_as.set(Some(details));
    }

    pub(super) fn ended_as(&self) -> Option<&'static str> {
        self.0.ended_as.get()
    }

    /// Whether the peer closed the connection.
    #[must_use]
    pub fn saw_end(&self) -> bool {
        self.0.saw_end.get()
    }

    /// Whether the peer said GOAWAY.
    #[must_use]
    pub fn saw_goaway(&self) -> bool {
        self.inspector().saw_goaway()
    }

    /// Whether the peer said GOAWAY for an error.
    #[must_use]
    pub fn left_in_error(&self) -> bool {
        self.inspector().left_in_error()
    }

    /// The codec's graceful end waits for [`Self::finish_shutdown`]: it says its final GOAWAY when a PING of its own is
    /// answered, which takes a round trip, where Envoy gives the client `drain_timeout`.
    pub fn hold_shutdown(&self) {
        self.0.inspector.borrow_mut().hold_shutdown();
    }

    /// Lets the codec end now, whatever the client answered. The connection must be polled next.
    pub fn finish_shutdown(&self) {
        *self.0.forged.borrow_mut() = Bytes::from_static(&SHUTDOWN_ANSWER);
    }

    pub(super) fn claim(&self, stream: u32) -> Option<Box<Remarks>> {
        self.0.inspector.borrow_mut().claim(stream)
    }

    /// Why a stream that is being served may not go on.
    pub(super) fn refusal(&self, stream: u32) -> Option<Refusal> {
        self.inspector().refusal(stream)
    }

    /// Whether it was this side that reset the stream.
    pub(super) fn reset_by_us(&self, stream: u32) -> bool {
        self.inspector().reset_by_us(stream)
    }

    /// Whether the end of what this side has to say on the stream has left.
    pub(super) fn ended_by_us(&self, stream: u32) -> bool {
        self.inspector().ended_by_us(stream)
    }

    pub(super) fn release(&self, stream: u32) {
        self.0.inspector.borrow_mut().release(stream);
    }

    fn inspector(&self) -> Ref<'_, Inspector> {
        self.0.inspector.borrow()
    }

    /// A request for which no body comes back goes out on this stream.
    pub(super) fn expect_no_body(&self, stream: u32) {
        self.0.inspector.borrow_mut().expect_no_body(stream);
    }

    /// Why the response on a stream ends here; what came after its head counts once that has been taken.
    pub(super) fn spoiled(&self, stream: u32, after_head: bool) -> Option<Refusal> {
        self.inspector().spoiled(stream, after_head)
    }

    /// Whoever waited for this stream's response is gone.
    pub(super) fn forget(&self, stream: u32) {
        self.0.inspector.borrow_mut().forget(stream);
    }

    /// Bytes of body that left on a stream; all there were, once it is over.
    pub(super) fn body_sent(&self, stream: u32) -> u64 {
        self.inspector().body_sent(stream)
    }

    /// This side opens no more streams.
    pub fn leave(&self) {
        self.0.inspector.borrow_mut().leave();
    }

    /// Whether the last stream of a connection that takes no more ended by what the peer sent.
    #[must_use]
    pub fn ended_while_reading(&self) -> bool {
        self.inspector().ended_while_reading()
    }

    /// Says why the connection ends, if there is a way to say it.
    pub async fn say_goodbye(&self, fault: &Fault) {
        let Some((last, reason)) = fault.goaway else { return };
        let frame = goaway(last, reason.into());
        let mut left = &frame[..];
        while !left.is_empty() {
            let written = std::future::poll_fn(|cx| Pin::new(&mut *self.0.io.borrow_mut()).poll_write(cx, left)).await;
            match written {
                Ok(n) if n > 0 => left = left.get(n..).unwrap_or_default(),
                _ => return,
            }
        }
    }

    /// Ready when the peer has closed; what it still sends is thrown away.
    pub fn poll_closed(&self, scratch: &mut [u8], cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut read = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut *self.0.io.borrow_mut()).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Watch {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.0;
        let mut inspector = shared.inspector.borrow_mut();
        if inspector.fault().is_some() {
            // Nothing more passes; the connection's task sees to it.
            return Poll::Pending;
        }
        let mut forged = shared.forged.borrow_mut();
        if !forged.is_empty() && inspector.is_between_frames() {
            let taken = forged.len().min(buf.remaining());
            buf.put_slice(&forged.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut *shared.io.borrow_mut()).poll_read(cx, buf);
        if read.is_pending() {
            inspector.drained();
        }
        ready!(read).inspect_err(|_| shared.saw_end.set(true))?;
        let Some(new) = buf.filled_mut().get_mut(before..).filter(|new| !new.is_empty()) else {
            shared.saw_end.set(true);
            return Poll::Ready(Ok(()));
        };
        let passes = inspector.received(new);
        let more = inspector.take_forged();
        if !more.is_empty() {
            *forged = [&forged[..], &more].concat().into();
        }
        buf.set_filled(before + passes);
        // Nothing read would mean the end of the stream.
        if passes == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl Watch {
    /// Takes all of `buf`, and writes what is to be said instead.
    #[cold]
    fn write_instead(&self, stand_in: &RefCell<StandIn>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.write_out(stand_in, cx))?;
        stand_in.borrow_mut().take(buf);
        // What does not leave now leaves before anything else does.
        match self.write_out(stand_in, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(buf.len())),
        }
    }

    fn write_out(&self, stand_in: &RefCell<StandIn>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stand_in = stand_in.borrow_mut();
        let out = stand_in.out();
        while !out.is_empty() {
            let written = ready!(self.write_through(cx, out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn write_through(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.0.io.borrow_mut()).poll_write(cx, buf));
        let written = written.inspect_err(|_| self.0.saw_end.set(true))?;
        self.0.inspector.borrow_mut().sent(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }
}

impl AsyncWrite for Watch {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &self.0.stand_in {
            Some(stand_in) => self.write_instead(stand_in, cx, buf),
            None => self.write_through(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(stand_in) = &self.0.stand_in {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.write_instead(stand_in, cx, first);
        }
        let written = ready!(Pin::new(&mut *self.0.io.borrow_mut()).poll_write_vectored(cx, bufs));
        let written = written.inspect_err(|_| self.0.saw_end.set(true))?;
        let mut inspector = self.0.inspector.borrow_mut();
        let mut left = written;
        for buf in bufs {
            let taken = left.min(buf.len());
            inspector.sent(buf.get(..taken).unwrap_or_default());
            left -= taken;
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0.stand_in {
            Some(stand_in) => self.write_out(stand_in, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_shutdown(&mut self.0.io.borrow_mut(), cx)
    }
}

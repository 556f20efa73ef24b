//! One direction of a layer-4 connection: bytes from one side to the other, then the end.
//!
//! Small messages are copied through the worker's scratch buffer: a read and a write are all they cost. Once a read shows
//! that bulk data moves, the following go through a pipe (`splice(2)`) and never enter this process, until so little
//! arrives at a time that copying is cheaper again.

use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use crate::http::codec::h1::WriteBuf;
use crate::transport::{Io, Pipe, SCRATCH};
use crate::worker::Worker;

/// Less than this at a time is copied again.
const SMALL: usize = SCRATCH / 4;

/// The side of a direction that broke.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Where bytes come from.
    From,
    /// Where they go.
    To,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Direction {
    read: BytesMut,
    out: WriteBuf,
    by: By,
    /// Held while it has bytes in it.
    pipe: Option<Pipe>,
    ended: bool,
    closed: bool,
    moved: u64,
}

/// How the next bytes move.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Copied, and nothing says otherwise yet.
    #[default]
    Copy,
    /// Through a pipe.
    Splice,
    /// Copied, because this kernel or socket cannot splice.
    CopyOnly,
}

impl Direction {
    /// Bytes taken from the one side so far.
    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether the end was passed on.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Ready when this direction has ended and the end was passed on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        from: &mut Io,
        to: &mut Io,
    ) -> Poll<Result<(), Side>> {
        loop {
            while !self.out.is_empty() {
                ready!(to.poll_write(cx, &mut self.out)).map_err(|_| Side::To)?;
            }
            ready!(self.poll_drain(cx, worker, to))?;
            if self.ended {
                if !self.closed {
                    ready!(to.poll_shutdown(cx)).map_err(|_| Side::To)?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            if self.by == By::Splice && from.can_splice() {
                ready!(self.poll_splice(cx, worker, from))?;
            } else {
                ready!(self.poll_copy(cx, worker, from))?;
            }
        }
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, worker: &Worker, from: &mut Io) -> Poll<Result<(), Side>> {
        let n = ready!(worker.with_scratch(|scratch| from.poll_read(cx, scratch, &mut self.read)))
            .map_err(|_| Side::From)?;
        self.ended = n == 0;
        self.moved += n as u64;
        self.out.push(self.read.split().freeze());
        if n >= SCRATCH && self.by == By::Copy {
            self.by = By::Splice;
        }
        Poll::Ready(Ok(()))
    }

    /// Fills a pipe.
    fn poll_splice(&mut self, cx: &mut Context<'_>, worker: &Worker, from: &Io) -> Poll<Result<(), Side>> {
        let Some(mut pipe) = worker.pipes().take() else {
            // No descriptors are left: the next big read asks again.
            self.by = By::Copy;
            return Poll::Ready(Ok(()));
        };
        let filled = from.poll_splice_from(cx, &mut pipe);
        if pipe.is_empty() {
            worker.pipes().put(pipe);
        } else {
            self.pipe = Some(pipe);
        }
        match ready!(filled) {
            Ok(n) => {
                self.ended = n == 0;
                self.moved += n as u64;
                if n < SMALL {
                    self.by = By::Copy;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => self.by = By::CopyOnly,
            Err(_) => return Poll::Ready(Err(Side::From)),
        }
        Poll::Ready(Ok(()))
    }

    /// Empties the pipe, and gives it back.
    fn poll_drain(&mut self, cx: &mut Context<'_>, worker: &Worker, to: &Io) -> Poll<Result<(), Side>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        while !pipe.is_empty() {
            if ready!(to.poll_splice_to(cx, pipe)).map_err(|_| Side::To)? == 0 {
                return Poll::Ready(Err(Side::To));
            }
        }
        if let Some(pipe) = self.pipe.take() {
            worker.pipes().put(pipe);
        }
        Poll::Ready(Ok(()))
    }
}

//! One direction of a layer-4 connection: bytes from one side to the other, then the end.
//!
//! Small messages are copied through the worker's scratch buffer: a read and a write are all they cost. Once a read shows
//! that bulk data moves, the following go through a pipe (`splice(2)`) and never enter this process, until so little
//! arrives at a time that copying is cheaper again.
//!
//! What was taken from the one side and not yet by the other is bounded: by the smaller of the receiving connection's buffer
//! limit and what a pipe holds, or by one read where the limit is less than that. Nothing more is read before it is gone.

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
pub(super) struct Direction {
    limits: Limits,
    read: BytesMut,
    out: WriteBuf,
    by: By,
    /// Held while it has bytes in it.
    pipe: Option<Pipe>,
    ended: bool,
    closed: bool,
    /// Bytes read since the one side had nothing more to say.
    batch: usize,
    paused: bool,
    tally: Tally,
}

/// `per_connection_buffer_limit_bytes` of both sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of the connection that is read.
    pub(super) from: usize,
    /// Of the connection that is written to.
    pub(super) to: usize,
}

/// What has happened in a direction so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bytes taken from the one side.
    pub(super) moved: u64,
    /// How often nothing more was read because the other side's buffer was full.
    pub(super) paused: u64,
    /// How often reading went on after that.
    pub(super) resumed: u64,
}

/// How the next bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Copied, and nothing says otherwise yet.
    Copy,
    /// Through a pipe.
    Splice,
    /// Copied, because this kernel or socket cannot splice.
    CopyOnly,
}

impl Direction {
    /// A direction between connections that may buffer so much.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            read: BytesMut::new(),
            out: WriteBuf::new(),
            // A pipe that holds less than a read would make more work, not less.
            by: if limits.to < SCRATCH { By::CopyOnly } else { By::Copy },
            pipe: None,
            ended: false,
            closed: false,
            batch: 0,
            paused: false,
            tally: Tally::default(),
        }
    }

    /// What has happened so far.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
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
            if self.poll_flush(cx, worker, to)?.is_pending() {
                self.pause();
                return Poll::Pending;
            }
            if self.ended {
                self.resume();
                if !self.closed {
                    ready!(to.poll_shutdown(cx)).map_err(|_| Side::To)?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let took = if self.by == By::Splice && from.can_splice() && to.can_splice() {
                self.poll_splice(cx, worker, from)?
            } else {
                self.poll_copy(cx, worker, from)?
            };
            if took.is_pending() {
                self.resume();
                return Poll::Pending;
            }
        }
    }

    /// More is held than the other side takes: nothing is read until it is gone.
    fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            self.tally.paused += 1;
        }
    }

    /// Nothing is held, and nothing more is there.
    fn resume(&mut self) {
        self.batch = 0;
        if std::mem::take(&mut self.paused) {
            self.tally.resumed += 1;
        }
    }

    /// Notes a read of `n` bytes. Envoy reads all that is there, as much as the one side may buffer, before it writes; so
    /// it is paused by more than the other side may buffer even if the socket takes it all. What pauses it counts here.
    fn took(&mut self, n: usize) {
        self.ended = n == 0;
        self.tally.moved += n as u64;
        if self.batch >= self.limits.from {
            self.resume();
        }
        self.batch += n;
        if self.batch > self.limits.to {
            self.pause();
        }
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, worker: &Worker, from: &mut Io) -> Poll<Result<(), Side>> {
        let n = ready!(worker.with_scratch(|scratch| from.poll_read(cx, scratch, &mut self.read)))
            .map_err(|_| Side::From)?;
        self.took(n);
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
        let filled = from.poll_splice_from(cx, &mut pipe, self.limits.to);
        if pipe.is_empty() {
            worker.pipes().put(pipe);
        } else {
            self.pipe = Some(pipe);
        }
        match ready!(filled) {
            Ok(n) => {
                self.took(n);
                if n < SMALL {
                    self.by = By::Copy;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => self.by = By::CopyOnly,
            Err(_) => return Poll::Ready(Err(Side::From)),
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is held, and gives an empty pipe back.
    fn poll_flush(&mut self, cx: &mut Context<'_>, worker: &Worker, to: &mut Io) -> Poll<Result<(), Side>> {
        while !self.out.is_empty() {
            ready!(to.poll_write(cx, &mut self.out)).map_err(|_| Side::To)?;
        }
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

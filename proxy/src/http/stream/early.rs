//! The body of a request while its upstream is being found: read ahead, as far as the connection may buffer.
//!
//! Whoever sends a body that is none, or leaves in the middle of it, is noticed while a connection is still being made, and the
//! request then reaches no upstream at all.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use filters::http::Frame;

use super::{Downstream, Stream};
use crate::http::codec::Interrupt;

/// Pieces of a body that wait, oldest first.
#[derive(Default)]
pub(super) struct Early {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Early {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl<D: Downstream> Stream<'_, D> {
    /// Reads ahead until the limit, or the end; ready only when the client is gone or sent what is no body.
    pub(super) fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        while !self.down.request_complete() {
            if self.early.bytes >= self.manager.buffer_limit {
                return self.down.poll_reset(cx);
            }
            match std::task::ready!(self.poll_downstream(cx)) {
                Ok(Some(frame)) => {
                    if let Frame::Data(data) = &frame {
                        self.early.bytes += data.len();
                    }
                    self.early.frames.push_back(frame);
                }
                Ok(None) => break,
                Err(interrupt) => return Poll::Ready(interrupt),
            }
        }
        self.down.poll_gone(cx)
    }

    /// The next piece of the request's body, whether it waits already or comes only now.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        match self.early.frames.pop_front() {
            Some(frame) => Poll::Ready(Ok(Some(frame))),
            None => self.poll_downstream(cx),
        }
    }

    /// Whether no more body is to come.
    pub(super) fn body_complete(&self) -> bool {
        self.early.is_empty() && self.down.request_complete()
    }

    fn poll_downstream(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        let frame = std::task::ready!(self.down.poll_frame(cx));
        if let Ok(Some(Frame::Data(data))) = &frame {
            self.info.bytes_received += data.len() as u64;
        }
        let complete = matches!(frame, Ok(Some(_) | None)) && self.down.request_complete();
        if complete && self.info.timing.last_downstream_rx.is_none() {
            self.info.timing.last_downstream_rx = Some(self.manager.worker.timers().recent_instant());
            self.deadlines.request_complete(self.manager.worker.timers());
        }
        Poll::Ready(frame)
    }
}

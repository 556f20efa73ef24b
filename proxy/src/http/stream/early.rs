//! The body of a request on its way to the try under way: read ahead while the upstream is being found, and kept while another
//! try may follow.
//!
//! It is read ahead as far as the connection may buffer. Whoever sends a body that is none, or leaves in the middle of it, is
//! noticed while a connection is still being made, and the request then reaches no upstream at all.
//!
//! A body that is kept is sent like any other, piece by piece as it comes; each piece stays, so that the next try begins with
//! the first. Nothing is copied: a piece is shared. What is longer than may be kept is no longer kept, and not retried.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use filters::http::Frame;

use super::expiry::Broken;
use super::{Downstream, Step, Stream};
use crate::http::codec::Interrupt;

/// Pieces of a body, oldest first.
#[derive(Default)]
pub(super) struct Early {
    frames: VecDeque<Frame>,
    /// Of all pieces here.
    bytes: usize,
    /// How many of the pieces the try under way has taken; only pieces that are kept stay behind it.
    taken: usize,
    /// How many bytes are kept at most for further tries; `None`: nothing is.
    limit: Option<usize>,
}

impl Early {
    /// Whether nothing waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.len() == self.taken
    }

    /// Keeps what is sent from here on, up to `limit` bytes.
    pub(super) fn keep(&mut self, limit: usize) {
        self.limit = Some(limit);
    }

    /// Whether all that was sent is still here.
    pub(super) const fn keeps(&self) -> bool {
        self.limit.is_some()
    }

    /// How long all pieces here are together.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the body.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        (self.bytes, self.taken) = (0, 0);
    }

    /// Keeps nothing for a further try.
    pub(super) fn release(&mut self) {
        if self.limit.take().is_some() {
            self.frames.drain(..self.taken);
            self.taken = 0;
        }
    }

    /// Begins again, for another try; whether there is anything to send.
    pub(super) fn rewind(&mut self) -> bool {
        self.taken = 0;
        !self.frames.is_empty()
    }

    /// How many of the pieces kept the try under way has taken.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    /// Goes on where another try is, and tells where this one was.
    pub(super) fn exchange_taken(&mut self, taken: &mut usize) {
        std::mem::swap(&mut self.taken, taken);
    }

    /// Whether so many more bytes are too many to be kept.
    pub(super) fn overflows(&self, more: usize) -> bool {
        self.limit.is_some_and(|limit| self.bytes.saturating_add(more) > limit)
    }

    /// All pieces that are here.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter()
    }

    /// Takes a piece that came.
    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += data_len(&frame);
        self.frames.push_back(frame);
    }

    /// The next piece to send.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if self.limit.is_some() {
            let frame = self.frames.get(self.taken).cloned()?;
            self.taken += 1;
            return Some(frame);
        }
        let frame = self.frames.pop_front()?;
        self.bytes -= data_len(&frame);
        Some(frame)
    }
}

fn data_len(frame: &Frame) -> usize {
    match frame {
        Frame::Data(data) => data.len(),
        Frame::Trailers(_) => 0,
    }
}

impl<D: Downstream> Stream<'_, D> {
    /// Reads ahead until the limit, or the end; ready only when the client is gone or sent what is no body.
    pub(super) fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        while !self.down.request_complete() {
            // What is kept has its own limit, beyond which it is kept no longer.
            if self.early.limit.is_none() && self.early.bytes >= self.manager.buffer_limit {
                return self.down.poll_reset(cx);
            }
            match std::task::ready!(self.poll_downstream(cx)) {
                Ok(Some(frame)) => self.early.push(frame),
                Ok(None) => break,
                Err(interrupt) => return Poll::Ready(interrupt),
            }
        }
        self.down.poll_gone(cx)
    }

    /// Throws away what follows of the request, until it is complete.
    pub(super) async fn swallow(&mut self) -> Step<()> {
        let broken = poll_fn(|cx| {
            while !self.down.request_complete() {
                match self.poll_downstream(cx) {
                    Poll::Ready(Ok(Some(_))) => {}
                    Poll::Ready(Ok(None)) => break,
                    Poll::Ready(Err(interrupt)) => return Poll::Ready(Some(Broken::Gone(interrupt))),
                    Poll::Pending => return self.poll_deadlines(None, cx).map(|which| Some(Broken::Expired(which))),
                }
            }
            Poll::Ready(None)
        })
        .await;
        match broken {
            None => Ok(()),
            Some(Broken::Gone(interrupt)) => self.gone(interrupt).await,
            Some(Broken::Expired(which)) => self.expired(which).await,
        }
    }

    /// The next piece of the request's body, whether it waits already or comes only now.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        if let Some(frame) = self.early.next() {
            return Poll::Ready(Ok(Some(frame)));
        }
        match std::task::ready!(self.poll_downstream(cx)) {
            Ok(Some(frame)) if self.early.limit.is_some() => {
                self.early.push(frame);
                Poll::Ready(Ok(self.early.next()))
            }
            other => Poll::Ready(other),
        }
    }

    /// Whether no more body is to come.
    pub(super) fn body_complete(&self) -> bool {
        self.early.is_empty() && self.down.request_complete()
    }

    /// The next piece as it comes from the client.
    pub(super) fn poll_downstream(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Interrupt>> {
        if !self.mirrors.is_empty() {
            std::task::ready!(self.poll_mirrors(cx));
        }
        let frame = std::task::ready!(self.down.poll_frame(cx));
        if let Ok(Some(Frame::Data(data))) = &frame {
            self.info.bytes_received += data.len() as u64;
            if self.early.overflows(data.len()) {
                self.abandon_retries();
            }
        }
        if !self.mirrors.is_empty()
            && let Ok(frame) = &frame
        {
            self.feed_mirrors(frame.as_ref());
        }
        let complete = matches!(frame, Ok(Some(_) | None)) && self.down.request_complete();
        if complete && self.info.timing.last_downstream_rx.is_none() {
            self.info.timing.last_downstream_rx = Some(self.manager.worker.timers().recent_instant());
            self.deadlines.request_complete(self.manager.worker.timers());
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn piece(text: &'static str) -> Frame {
        Frame::Data(Bytes::from_static(text.as_bytes()))
    }

    fn text(frame: Option<Frame>) -> Option<String> {
        match frame? {
            Frame::Data(data) => Some(String::from_utf8_lossy(&data).into_owned()),
            Frame::Trailers(_) => Some("trailers".to_owned()),
        }
    }

    #[test]
    fn what_is_not_kept_is_gone_once_it_is_sent() {
        let mut body = Early::default();
        body.push(piece("ab"));
        body.push(piece("cd"));
        assert_eq!(text(body.next()).as_deref(), Some("ab"));
        assert_eq!((body.bytes, body.is_empty()), (2, false));
        assert!(!body.overflows(1 << 40), "nothing is kept, so nothing is too long");
        assert_eq!(text(body.next()).as_deref(), Some("cd"));
        assert!(body.is_empty() && !body.rewind());
    }

    #[test]
    fn what_is_kept_is_sent_again_from_its_beginning() {
        let mut body = Early::default();
        body.keep(6);
        body.push(piece("ab"));
        assert_eq!(text(body.next()).as_deref(), Some("ab"));
        assert!(body.is_empty());
        assert_eq!(text(body.next()), None, "more may come");
        body.push(piece("cd"));
        body.push(Frame::Trailers(Box::default()));
        assert!(body.rewind());
        let again: Vec<_> = std::iter::from_fn(|| text(body.next())).collect();
        assert_eq!(again, ["ab", "cd", "trailers"]);
        assert!(!body.overflows(2) && body.overflows(3));
    }

    #[test]
    fn what_is_no_longer_kept_goes_on_where_it_was() {
        let mut body = Early::default();
        body.keep(10);
        for text in ["ab", "cd", "ef"] {
            body.push(piece(text));
        }
        assert_eq!(text(body.next()).as_deref(), Some("ab"));
        body.release();
        assert_eq!(text(body.next()).as_deref(), Some("cd"));
        assert_eq!(text(body.next()).as_deref(), Some("ef"));
        assert_eq!(text(body.next()), None);
    }
}

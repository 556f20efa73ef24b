//! The way of a body into a request of the proxy's own.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use filters::http::Frame;

use crate::http::stream::early::Early;

/// A copy that still wants its body.
pub(in crate::http::stream) struct Mirror(pub(in crate::http::stream) Rc<RefCell<Feed>>);

impl Drop for Mirror {
    fn drop(&mut self) {
        let mut feed = self.0.borrow_mut();
        feed.abandoned = !feed.complete;
        if feed.abandoned {
            feed.onward.clear();
        }
        feed.wake_reader();
    }
}

/// A body that is taken as it comes.
#[derive(Default)]
pub(in crate::http::stream) struct Feed {
    pub(in crate::http::stream) body: Early,
    /// Nothing follows.
    pub(in crate::http::stream) complete: bool,
    /// Nothing follows, although it is not complete.
    pub(in crate::http::stream) abandoned: bool,
    /// It cannot be sent again, as it has become too long to be kept.
    pub(in crate::http::stream) too_long: bool,
    /// The copy is over, and takes nothing more.
    closed: bool,
    /// Whoever sends the copy.
    pub(in crate::http::stream) reader: Option<Waker>,
    /// Whoever waits until less lies here.
    writer: Option<Waker>,
    /// Copies of the copy.
    pub(in crate::http::stream) onward: Vec<Mirror>,
}

impl Feed {
    /// A body that is complete as it is, or of which all is still to come.
    pub(in crate::http::stream) fn new(whole: Option<Bytes>) -> Self {
        let mut feed = Self { complete: whole.is_some(), ..Self::default() };
        if let Some(body) = whole.filter(|body| !body.is_empty()) {
            feed.body.push(Frame::Data(body));
        }
        feed
    }

    /// Takes a piece, if there is one, and passes it on.
    pub(in crate::http::stream) fn push(&mut self, frame: Option<&Frame>, complete: bool) {
        self.complete = complete;
        if let Some(frame) = frame.filter(|_| !self.closed) {
            if let Frame::Data(data) = frame
                && self.body.overflows(data.len())
            {
                self.body.release();
                self.too_long = true;
            }
            self.body.push(frame.clone());
        }
        self.wake_reader();
        for Mirror(onward) in &self.onward {
            onward.borrow_mut().push(frame, complete);
        }
        if complete {
            self.onward.clear();
        }
    }

    pub(in crate::http::stream) fn take(&mut self) -> Option<Frame> {
        let frame = self.body.next()?;
        self.wake_writer();
        Some(frame)
    }

    /// Ready when it, and all that it passes pieces on to, want more.
    pub(in crate::http::stream) fn poll_room(&mut self, limit: usize, cx: &Context<'_>) -> Poll<()> {
        if !self.closed && !self.body.keeps() && self.body.bytes() >= limit {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.onward
            .iter()
            .try_for_each(|Mirror(onward)| match onward.borrow_mut().poll_room(limit, cx) {
                Poll::Ready(()) => Ok(()),
                Poll::Pending => Err(()),
            })
            .map_or(Poll::Pending, Poll::Ready)
    }

    /// Nobody reads any more: nobody has to wait for that.
    pub(in crate::http::stream) fn close(&mut self) {
        self.closed = true;
        self.body.clear();
        self.wake_writer();
    }

    /// Whether the piece taken last was the last one.
    pub(in crate::http::stream) fn is_over(&self) -> bool {
        self.complete && self.body.is_empty()
    }

    fn wake_reader(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

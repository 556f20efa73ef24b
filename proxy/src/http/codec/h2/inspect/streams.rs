//! The streams of a connection that are not over, for both directions' sake.

use std::collections::VecDeque;

use super::inbound::MAX_WINDOW;
use super::message::Message;
use super::{Reason, Refusal, Remarks};
use filters::flags::details;

/// The window of a stream of which nothing is said (RFC 9113 section 6.5.2).
const DEFAULT_WINDOW: i64 = 65_535;

/// Streams by number. New ones have higher numbers, so they stand in order.
#[derive(Default)]
pub(super) struct Streams {
    list: VecDeque<(u32, Stream)>,
    /// How many are open in at least one direction.
    open: usize,
    /// How many this side reset before anybody took them, at most.
    refused: usize,
    /// What the peer lets this side send on a new stream, beyond the 65,535 bytes of the protocol.
    first_window: i64,
}

/// A stream.
#[derive(Default)]
pub(super) struct Stream {
    /// What its messages said so far.
    pub(super) message: Message,
    /// The final head has come: further blocks are trailers.
    pub(super) head_seen: bool,
    /// The peer sends no more.
    pub(super) remote_done: bool,
    /// Bytes of body that came.
    pub(super) body: u64,
    /// Bytes of body that left.
    pub(super) body_sent: u64,
    /// What the peer let this side send beyond a new stream's window, less what was sent.
    window: i64,
    /// This side sends no more.
    local_done: bool,
    reset: Option<By>,
    holder: Holder,
    pub(super) remarks: Option<Box<Remarks>>,
}

/// Who reset a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Peer,
    Us,
}

/// Who has a stream besides the codec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Holder {
    /// It has not been handed over.
    #[default]
    Nobody,
    Task,
    /// Nobody any more.
    Gone,
}

impl Streams {
    /// How many are open.
    pub(super) const fn open_count(&self) -> usize {
        self.open
    }

    fn position(&self, stream: u32) -> Option<usize> {
        match self.list.back() {
            Some((last, _)) if *last == stream => Some(self.list.len() - 1),
            _ => self.list.binary_search_by_key(&stream, |(number, _)| *number).ok(),
        }
    }

    pub(super) fn get(&self, stream: u32) -> Option<&Stream> {
        self.position(stream).and_then(|at| self.list.get(at)).map(|(_, stream)| stream)
    }

    pub(super) fn get_mut(&mut self, stream: u32) -> Option<&mut Stream> {
        self.position(stream).and_then(|at| self.list.get_mut(at)).map(|(_, stream)| stream)
    }

    /// A new stream of the peer's; its number is higher than all before it.
    pub(super) fn open(&mut self, stream: u32) {
        self.list.push_back((stream, Stream::default()));
        self.open += 1;
    }

    /// A new stream of this side's.
    pub(super) fn open_own(&mut self, stream: u32) {
        self.list.push_back((stream, Stream { holder: Holder::Gone, ..Stream::default() }));
        self.open += 1;
    }

    /// The peer changes the window every stream begins with; false if one becomes too wide.
    pub(super) fn window_begins(&mut self, size: u32) -> bool {
        self.first_window = i64::from(size) - DEFAULT_WINDOW;
        let widest = self.list.iter().map(|(_, stream)| stream.window).max().unwrap_or(0).max(0);
        i64::from(size) + widest <= MAX_WINDOW
    }

    /// The peer widens a stream's window; false if by nothing, or by too much. A stream that is over has none.
    pub(super) fn widen(&mut self, stream: u32, more: i64) -> bool {
        let first = self.first_window;
        let Some(stream) = self.get_mut(stream) else { return true };
        stream.window += more;
        more > 0 && stream.window + first + DEFAULT_WINDOW <= MAX_WINDOW
    }

    /// So many bytes of body were sent on a stream.
    pub(super) fn sent(&mut self, stream: u32, length: u32) {
        if let Some(stream) = self.get_mut(stream) {
            stream.window -= i64::from(length);
            stream.body_sent += u64::from(length);
        }
    }

    /// The streams above one that are not over.
    pub(super) fn above(&self, last: u32) -> impl Iterator<Item = u32> {
        self.list.iter().filter(move |(number, stream)| *number > last && !stream.is_over()).map(|(number, _)| *number)
    }

    /// One side has ended the stream.
    pub(super) fn ended(&mut self, stream: u32, by: By) {
        self.change(stream, |state| match by {
            By::Peer => state.remote_done = true,
            By::Us => state.local_done = true,
        });
    }

    /// One side reset the stream.
    pub(super) fn reset(&mut self, stream: u32, by: By) {
        let mut refused = false;
        self.change(stream, |state| {
            refused = by == By::Us && state.holder == Holder::Nobody;
            state.reset = state.reset.or(Some(by));
        });
        self.refused += usize::from(refused);
    }

    /// Streams this side reset before anybody took them.
    pub(super) fn take_refused(&mut self) -> Vec<Refusal> {
        if self.refused == 0 {
            return Vec::new();
        }
        self.refused = 0;
        let refused = |state: &Stream| state.holder == Holder::Nobody && state.reset == Some(By::Us);
        let taken = self.list.iter().filter(|(_, state)| refused(state)).map(|(_, state)| state.refusal()).collect();
        self.list.retain(|(_, state)| !refused(state));
        taken
    }

    /// Hands a stream over.
    pub(super) fn claim(&mut self, stream: u32) -> Option<Box<Remarks>> {
        let state = self.get_mut(stream)?;
        state.holder = Holder::Task;
        state.remarks.clone()
    }

    /// Whoever took the stream is done with it.
    pub(super) fn release(&mut self, stream: u32) {
        self.change(stream, |state| state.holder = Holder::Gone);
    }

    /// Who reset the stream.
    pub(super) fn reset_by(&self, stream: u32) -> Option<By> {
        self.get(stream)?.reset
    }

    /// Whether this side has said all it had to say, and the stream goes on.
    pub(super) fn ended_by_us(&self, stream: u32) -> bool {
        self.get(stream).is_some_and(|state| state.local_done && state.reset.is_none())
    }

    /// Streams below the one handed over that were reset before they were, and so never will be.
    pub(super) fn passed_over(&mut self, stream: u32) -> Vec<Refusal> {
        let mut over = Vec::new();
        let mut at = self.position(stream).unwrap_or(self.list.len());
        // Those taken are not looked at one by one: whoever was passed over stands right in front.
        while let Some(before) = at.checked_sub(1) {
            let Some((_, state)) = self.list.get(before) else { break };
            if state.holder != Holder::Nobody {
                break;
            }
            if state.reset.is_some()
                && let Some((_, state)) = self.list.remove(before)
            {
                over.push(state.refusal());
            }
            at = before;
        }
        over
    }

    /// Streams nobody took.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = u32> {
        self.list.iter().filter(|(_, state)| state.holder == Holder::Nobody).map(|(number, _)| *number)
    }

    /// Changes a stream's state, and forgets it when nobody needs it any more.
    fn change(&mut self, stream: u32, change: impl FnOnce(&mut Stream)) {
        let Some(at) = self.position(stream) else { return };
        let Some((_, state)) = self.list.get_mut(at) else { return };
        let was_over = state.is_over();
        change(state);
        if state.is_over() {
            self.open -= usize::from(!was_over);
            if state.holder == Holder::Gone {
                self.list.remove(at);
            }
        }
    }
}

impl Stream {
    const fn is_over(&self) -> bool {
        self.reset.is_some() || self.remote_done && self.local_done
    }

    /// Why it is not served; the codec's own reason is that its head is no request.
    fn refusal(&self) -> Refusal {
        self.remarks.as_ref().and_then(|remarks| remarks.refusal).unwrap_or(Refusal {
            reason: Reason::PROTOCOL_ERROR,
            details: details::HTTP2_INVALID_HEADER_FIELD,
            protocol_error: true,
        })
    }

    pub(super) fn remark(&mut self) -> &mut Remarks {
        self.remarks.get_or_insert_default()
    }
}

//! What is particular to the side that sends requests: responses that may not stand although their connection goes on, and
//! streams the peer said it will not serve.

use h2::Reason;

use super::frame::{self, Frame};
use super::inbound::Verdict;
use super::streams::By;
use super::{Fault, Inspector, Refusal, Role};

/// What only an upstream connection has to remember.
#[derive(Default)]
pub(super) struct Responses {
    /// Streams whose response is not to be believed, and whether that is so from its head on.
    spoiled: Vec<(u32, bool, Refusal)>,
    /// Streams whose response has no body, whatever length it claims: they asked by HEAD.
    bodiless: Vec<u32>,
    /// The last stream of the peer's GOAWAY.
    last_served: Option<u32>,
    /// The peer leaves for an error.
    left_in_error: bool,
    /// Frames the codec is to read as if the peer had sent them.
    forged: Vec<u8>,
    /// This side opens no more streams.
    leaving: bool,
    /// One of the two said that no more streams follow, and the last one ended by what the peer sent after.
    ended_while_reading: bool,
}

impl Inspector {
    /// A request for which no body comes back goes out on this stream.
    pub fn expect_no_body(&mut self, stream: u32) {
        self.responses.bodiless.push(stream);
    }

    /// Why the response on a stream ends here: from its head on, or only once that has been taken (`after_head`).
    #[must_use]
    pub fn spoiled(&self, stream: u32, after_head: bool) -> Option<Refusal> {
        let found = |(number, from_head, _): &&(u32, bool, Refusal)| *number == stream && (*from_head || after_head);
        self.responses.spoiled.iter().find(found).map(|(_, _, refusal)| *refusal)
    }

    /// Bytes of body that left on a stream; all there were, once it is over.
    #[must_use]
    pub fn body_sent(&self, stream: u32) -> u64 {
        match self.streams.get(stream) {
            Some(stream) => stream.body_sent,
            None if stream > self.last_stream => 0,
            None => u64::MAX,
        }
    }

    /// Whoever waited for this stream's response is gone.
    pub fn forget(&mut self, stream: u32) {
        self.responses.spoiled.retain(|(number, ..)| *number != stream);
        self.responses.bodiless.retain(|number| *number != stream);
    }

    /// Frames the codec is to read before anything else.
    pub fn take_forged(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.responses.forged)
    }

    /// No more streams will be opened.
    pub const fn leave(&mut self) {
        self.responses.leaving = true;
    }

    /// Whether the last stream of a connection that takes no more ended by what the peer sent.
    #[must_use]
    pub const fn ended_while_reading(&self) -> bool {
        self.responses.ended_while_reading
    }

    /// Whether the peer said GOAWAY for an error.
    #[must_use]
    pub const fn left_in_error(&self) -> bool {
        self.responses.left_in_error
    }

    /// The response on a stream may not go on; `from_head` if it may not even begin.
    pub(super) fn spoil(&mut self, stream: u32, from_head: bool, refusal: Refusal) {
        if self.role == Role::Client {
            self.responses.spoiled.push((stream, from_head, refusal));
        }
    }

    /// Whether a frame's END_STREAM is to be kept from the codec: a stream that it takes for over cannot be reset.
    pub(super) fn hides_end(&self, frame: &Frame) -> bool {
        frame.has(frame::END_STREAM) && self.responses.spoiled.iter().any(|(stream, ..)| *stream == frame.stream)
    }

    /// Whether the request on this stream was one to which no body belongs.
    pub(super) fn is_bodiless(&self, stream: u32) -> bool {
        self.responses.bodiless.contains(&stream)
    }

    /// The peer ended its side of a stream.
    pub(super) const fn note_end(&mut self) {
        self.responses.ended_while_reading |=
            (self.goaway_came || self.responses.leaving) && self.streams.open_count() == 0;
    }

    /// The peer will serve no stream above the one it names.
    pub(super) fn goaway_received(&mut self, payload: &[u8]) -> Verdict {
        self.goaway_came = true;
        if self.role == Role::Server {
            return Ok(());
        }
        let last = frame::word(payload) & 0x7fff_ffff;
        if self.responses.last_served.is_some_and(|earlier| last > earlier) {
            return Err(Fault::silent());
        }
        self.responses.last_served = Some(last);
        self.responses.left_in_error |= frame::word(payload.get(4..).unwrap_or_default()) != 0;
        let refused: Vec<u32> = self.streams.above(last).collect();
        for stream in refused {
            self.streams.reset(stream, By::Peer);
            self.responses.forged.extend(frame::reset(stream, Reason::REFUSED_STREAM.into()));
        }
        Ok(())
    }
}

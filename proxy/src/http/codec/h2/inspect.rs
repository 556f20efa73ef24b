//! Watches the frames of an HTTP/2 connection as they pass, and judges them as Envoy does.
//!
//! The codec behind (`h2`) is strict, but what it does about a breach is its own choice, and it tells neither which rule
//! was broken nor what frames went by. Envoy's verdicts are those of its library and its own limits: which breach closes
//! the connection without a word, which is answered with GOAWAY, which ends a stream only, and what is counted and logged
//! for each. So the bytes are looked at before the codec sees them ([`Inspector::received`]) and after it wrote them
//! ([`Inspector::sent`]). No bytes are copied but those of frames other than DATA that arrive in pieces, and header blocks
//! are read for what their fields are, not for their contents (`hpack`).
//!
//! A breach that ends the connection stops the bytes in front of the offending frame: what came before is served, then
//! the connection's task closes it ([`Fault`]). A refused stream still reaches the codec, whose header table must follow
//! the peer's; whoever takes the stream from the codec asks for its [`Refusal`] first.
//!
//! Sans-io: bytes go in, findings come out.

mod block;
mod field;
mod frame;
mod hpack;
mod huffman;
mod inbound;
mod limits;
mod message;
mod outbound;
mod response;
mod stand_in;
mod streams;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use h2::Reason;

use self::block::Block;
use self::frame::{Frame, HeadReader};
use self::limits::Tally;
use self::streams::{By, Streams};
use super::Http2Options;
use crate::observe::catalogue::Http2Stats;

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Requests come in.
    Server,
    /// Responses come in.
    Client,
}

/// Why the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What GOAWAY says before the connection closes, and the last stream it names; `None`: it closes without a word.
    pub goaway: Option<(u32, Reason)>,
    /// Whether it counts as a protocol error; a flood does not.
    pub protocol_error: bool,
    /// `%RESPONSE_CODE_DETAILS%` of the streams that end with it.
    pub details: &'static str,
    /// The stream whose frame it was, and its details.
    pub offender: Option<(u32, &'static str)>,
}

/// Why a stream is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The code of its RST_STREAM.
    pub reason: Reason,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: &'static str,
    /// Whether the peer broke the protocol, rather than a limit.
    pub protocol_error: bool,
}

/// What is known of a stream that the codec does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// It is not to be served.
    pub refusal: Option<Refusal>,
    /// It is served, but its trailers end it.
    pub trailers: Option<Refusal>,
    /// Its `:path` when that has a fragment, which the codec drops.
    pub path: Option<Bytes>,
}

/// What was counted, to be taken by whoever keeps the statistics. Named after Envoy's `http2.*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are Envoy's")]
pub struct Counts {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_reset: u64,
    pub tx_reset: u64,
    pub goaway_sent: u64,
    pub trailers: u64,
    pub rx_messaging_error: u64,
    pub header_overflow: u64,
    pub header_list_size_too_large: u64,
    pub dropped_headers_with_underscores: u64,
    pub requests_rejected_with_underscores_in_headers: u64,
    pub inbound_empty_frames_flood: u64,
    pub inbound_priority_frames_flood: u64,
    pub inbound_window_update_frames_flood: u64,
    pub outbound_control_flood: u64,
    pub stream_refused_errors: u64,
    /// Whether there is more than bytes.
    pub events: bool,
}

impl Counts {
    /// Adds what happened, but not the bytes.
    pub fn add_to(&self, stats: &Http2Stats) {
        stats.rx_reset().add(self.rx_reset);
        stats.tx_reset().add(self.tx_reset);
        stats.goaway_sent().add(self.goaway_sent);
        stats.trailers().add(self.trailers);
        stats.rx_messaging_error().add(self.rx_messaging_error);
        stats.header_overflow().add(self.header_overflow);
        stats.header_list_size_too_large().add(self.header_list_size_too_large);
        stats.dropped_headers_with_underscores().add(self.dropped_headers_with_underscores);
        stats.requests_rejected_with_underscores_in_headers().add(self.requests_rejected_with_underscores_in_headers);
        stats.inbound_empty_frames_flood().add(self.inbound_empty_frames_flood);
        stats.inbound_priority_frames_flood().add(self.inbound_priority_frames_flood);
        stats.inbound_window_update_frames_flood().add(self.inbound_window_update_frames_flood);
        stats.outbound_control_flood().add(self.outbound_control_flood);
        stats.stream_refused_errors().add(self.stream_refused_errors);
    }
}

impl Fault {
    /// `%RESPONSE_CODE_DETAILS%` of a stream that ends with it.
    #[must_use]
    pub fn details_of(&self, stream: u32) -> &'static str {
        match self.offender {
            Some((offender, details)) if offender == stream => details,
            _ => self.details,
        }
    }
}

pub use self::frame::{SHUTDOWN_ANSWER, goaway};
pub use self::stand_in::{LONGEST_AUTHORITY, StandIn};

/// The observer of one connection.
pub struct Inspector {
    role: Role,
    began: Instant,
    options: Http2Options,
    /// Bytes of the client's preface still to come.
    preface: usize,
    /// The same of a preface this side says.
    preface_out: usize,
    /// The peer's first SETTINGS have come.
    settings: bool,
    head_in: HeadReader,
    /// The frame whose payload is coming, and how much of it is to come.
    frame: Frame,
    left: u32,
    /// Payload of a frame that comes in pieces.
    pending: Vec<u8>,
    /// The header block that is open.
    block: Option<Block>,
    /// Where in the payload at hand the codec is not to see what is there.
    mends: Vec<Range<usize>>,
    decoder: hpack::Decoder,
    streams: Streams,
    /// The highest stream the peer opened.
    last_stream: u32,
    /// The peer knows our SETTINGS.
    settings_known: bool,
    tally: Tally,
    fault: Option<Fault>,
    /// A breach that ends the connection once what came with it is served.
    late_fault: Option<Fault>,
    unclaimed: Vec<Refusal>,
    counts: Counts,
    /// Frames of the peer since the last look: whether any came, and whether an answer to our PING did.
    heard: bool,
    pong: bool,
    shutdown_held: bool,
    goaway_came: bool,
    responses: response::Responses,
    head_out: HeadReader,
    out_left: u32,
    /// The frame being written whose payload begins with a code that matters.
    out_code: outbound::Code,
}

impl Inspector {
    /// An observer of a connection that has just begun.
    #[must_use]
    pub fn new(role: Role, options: &Http2Options) -> Self {
        Self {
            role,
            began: Instant::now(),
            preface: if role == Role::Server { inbound::PREFACE.len() } else { 0 },
            preface_out: if role == Role::Client { inbound::PREFACE.len() } else { 0 },
            settings: false,
            head_in: HeadReader::default(),
            frame: Frame::default(),
            left: 0,
            pending: Vec::new(),
            block: None,
            mends: Vec::new(),
            decoder: hpack::Decoder::new(options.protocol.hpack_table_size, options.protocol.max_header_field_size),
            streams: Streams::default(),
            last_stream: 0,
            settings_known: false,
            tally: Tally::new(),
            fault: None,
            late_fault: None,
            unclaimed: Vec::new(),
            counts: Counts::default(),
            heard: false,
            pong: false,
            shutdown_held: false,
            goaway_came: false,
            responses: response::Responses::default(),
            head_out: HeadReader::default(),
            out_left: 0,
            out_code: outbound::Code::None,
            options: options.clone(),
        }
    }

    /// The breach that ends the connection, once there was one.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// What was counted since this was asked last.
    pub fn take_counts(&mut self) -> Counts {
        let mut counts = std::mem::take(&mut self.counts);
        counts.events = Counts { rx_bytes: 0, tx_bytes: 0, ..counts } != Counts::default();
        counts
    }

    /// Whether frames came since this was asked last, and whether one answered a PING of ours.
    pub fn take_heard(&mut self) -> (bool, bool) {
        (std::mem::take(&mut self.heard), std::mem::take(&mut self.pong))
    }

    /// The codec's graceful end is not to see the answer to its PING.
    pub const fn hold_shutdown(&mut self) {
        self.shutdown_held = true;
    }

    /// Whether the peer said GOAWAY.
    #[must_use]
    pub const fn saw_goaway(&self) -> bool {
        self.goaway_came
    }

    /// Whether the codec has seen whole frames only.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.left == 0 && !self.head_in.is_inside() && self.preface == 0
    }

    /// The codec hands a stream over: what is to know about it. Streams come in the order they were opened.
    pub fn claim(&mut self, stream: u32) -> Option<Box<Remarks>> {
        self.unclaimed.extend(self.streams.passed_over(stream));
        self.streams.claim(stream)
    }

    /// What became of a claimed stream since: its refusal, for what came after its head.
    #[must_use]
    pub fn refusal(&self, stream: u32) -> Option<Refusal> {
        self.streams.get(stream)?.remarks.as_ref()?.trailers
    }

    /// Streams that are not over.
    #[must_use]
    pub const fn open_streams(&self) -> usize {
        self.streams.open_count()
    }

    /// Whoever took the stream is done with it.
    pub fn release(&mut self, stream: u32) {
        self.streams.release(stream);
    }

    /// Whether it was this side that reset the stream, on its own account.
    #[must_use]
    pub fn reset_by_us(&self, stream: u32) -> bool {
        self.streams.reset_by(stream) != Some(By::Peer)
    }

    /// Whether this side has said all it had to say on the stream, which goes on.
    #[must_use]
    pub fn ended_by_us(&self, stream: u32) -> bool {
        self.streams.ended_by_us(stream)
    }

    /// Streams the codec refused itself. To be asked when the codec has nothing more to hand over.
    pub fn take_unclaimed(&mut self) -> Vec<Refusal> {
        self.unclaimed.extend(self.streams.take_refused());
        std::mem::take(&mut self.unclaimed)
    }

    /// The streams that had begun and were never handed over, at the end of the connection.
    pub fn begun(&self) -> impl Iterator<Item = u32> {
        self.streams.unclaimed()
    }
}

//! Floods: frames that cost this side more than the peer (CVE-2019-9511 to 9518, CVE-2023-44487), counted as Envoy does.

use super::Counts;
use super::frame::{self, Frame};
use crate::config::http2::Http2Options;

/// What counts against the limits.
pub(super) struct Tally {
    /// Streams opened ever.
    pub(super) streams: u64,
    empty_frames: u32,
    priorities: u64,
    window_updates: u64,
    /// DATA frames sent ever.
    pub(super) data_sent: u64,
    /// Answers owed or not yet known to have left.
    control_owed: u32,
    /// Resets the peer may still send, in thousandths, and the second that was counted in.
    resets: Option<Bucket>,
    /// Bytes the peer lets this side send on all streams together.
    pub(super) window: i64,
}

struct Bucket {
    left: u64,
    second: u64,
}

/// A limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    EmptyFrames,
    Priority,
    WindowUpdate,
    Control,
}

impl Flood {
    /// The message of Envoy's error, as it appears in details.
    pub(super) const fn details(self) -> &'static str {
        match self {
            Self::EmptyFrames => "codec_error:Too_many_consecutive_frames_with_an_empty_payload",
            Self::Priority => "codec_error:Too_many_PRIORITY_frames",
            Self::WindowUpdate => "codec_error:Too_many_WINDOW_UPDATE_frames",
            Self::Control => "codec_error:Too_many_control_frames_in_the_outbound_queue.",
        }
    }

    pub(super) const fn count(self, counts: &mut Counts) {
        match self {
            Self::EmptyFrames => counts.inbound_empty_frames_flood += 1,
            Self::Priority => counts.inbound_priority_frames_flood += 1,
            Self::WindowUpdate => counts.inbound_window_update_frames_flood += 1,
            Self::Control => counts.outbound_control_flood += 1,
        }
    }
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self {
            streams: 0,
            empty_frames: 0,
            priorities: 0,
            window_updates: 0,
            data_sent: 0,
            control_owed: 0,
            resets: None,
            window: 65_535,
        }
    }

    /// A frame came with `content` bytes of payload that are not padding.
    pub(super) fn received(&mut self, frame: &Frame, content: u32, limits: &Http2Options) -> Result<(), Flood> {
        match frame.kind {
            frame::HEADERS | frame::CONTINUATION | frame::DATA => {
                if content > 0 || frame.has(frame::END_STREAM) {
                    self.empty_frames = 0;
                    return Ok(());
                }
                self.empty_frames += 1;
                if self.empty_frames > limits.max_consecutive_inbound_frames_with_empty_payload {
                    return Err(Flood::EmptyFrames);
                }
            }
            frame::PRIORITY => {
                self.priorities += 1;
                if self.priorities > u64::from(limits.max_inbound_priority_frames_per_stream) * (1 + self.streams) {
                    return Err(Flood::Priority);
                }
            }
            frame::WINDOW_UPDATE => {
                self.window_updates += 1;
                let per_data = u64::from(limits.max_inbound_window_update_frames_per_data_frame_sent);
                if self.window_updates > 5 + 2 * (self.streams + per_data * self.data_sent) {
                    return Err(Flood::WindowUpdate);
                }
            }
            frame::PING | frame::SETTINGS if !frame.has(frame::ACK) => return self.owe(limits),
            _ => {}
        }
        Ok(())
    }

    /// An answer has to be sent.
    pub(super) const fn owe(&mut self, limits: &Http2Options) -> Result<(), Flood> {
        self.control_owed += 1;
        if self.control_owed > limits.max_outbound_control_frames { Err(Flood::Control) } else { Ok(()) }
    }

    /// All that was to be sent has left.
    pub(super) const fn paid(&mut self) {
        self.control_owed = 0;
    }

    /// The peer reset a stream, `second` seconds into the connection's life; false when it did so too often.
    pub(super) fn reset(&mut self, second: u64, limits: &Http2Options) -> bool {
        let burst = limits.stream_reset_burst;
        let bucket = self.resets.get_or_insert(Bucket { left: burst, second });
        let refill = second.saturating_sub(bucket.second).saturating_mul(limits.stream_reset_rate);
        bucket.left = bucket.left.saturating_add(refill).min(burst);
        bucket.second = second;
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

//! Tries of one request, side by side.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use filters::stream_info::{ByteMeter, Timing, UpstreamInfo};

use super::super::converse::give_up;
use super::super::exchange::{Event, Progress};
use super::super::expiry::Broken;
use crate::upstream::cluster::Cluster;
use crate::upstream::exchange::Exchange;
use crate::upstream::failure::UpstreamFailure;
use crate::upstream::host::{ActiveRequest, Host};
use crate::upstream::measure::Measure;
use crate::upstream::pool::Lease;
use crate::upstream::retry::Wait;
use crate::worker::timer::Tick;

/// Tries side by side.
pub(super) struct Race {
    pub(super) tries: Vec<Rival>,
    /// When another joins.
    pub(super) next: Option<(Tick, Wait)>,
}

/// One of them.
pub(super) struct Rival {
    pub(super) cluster: Rc<Cluster>,
    pub(super) host: Arc<Host>,
    pub(super) stage: Stage,
    /// Another try was started because of it: its own outcome starts no further one.
    pub(super) relieved: bool,
    /// Outlier detection knows that it took too long.
    pub(super) timeout_noted: bool,
    /// When it is too slow, too quiet, too old.
    pub(super) slow: Tick,
    pub(super) quiet: Tick,
    pub(super) old: Tick,
    /// What is only its own of the stream's state.
    pub(super) own: Own,
    pub(super) _active: Option<ActiveRequest>,
}

pub(super) enum Stage {
    Connecting { lease: Pin<Box<dyn Future<Output = Result<Lease, UpstreamFailure>>>>, since: Instant },
    Talking(Exchange, Progress),
}

/// What is known of one try, in the stream's place while the stream is about that try.
pub(super) struct Own {
    pub(super) upstream: Option<Box<UpstreamInfo>>,
    pub(super) timing: Timing,
    pub(super) bytes: ByteMeter,
    /// How much of the kept body it was sent.
    pub(super) sent: usize,
    pub(super) measure: Option<Box<Measure>>,
}

/// What happened to the tries.
pub(super) enum Happening {
    /// It is time for another.
    Joins(Wait),
    /// One has a connection, or will not get one.
    Connected(usize, Result<Lease, UpstreamFailure>),
    /// One was answered, or failed, or the client did.
    Said(usize, Event),
    /// One takes too long.
    Slow(usize),
    /// One is too old to go on.
    Old(usize),
    /// A deadline of them all passed, or the client left.
    Broken(Broken),
}

impl Race {
    /// When to look at the clock again.
    pub(super) fn rings(&self) -> Tick {
        let next = self.next.map_or(Tick::NEVER, |(at, _)| at);
        self.tries.iter().fold(next, |next, rival| next.min(rival.slow).min(rival.quiet).min(rival.old))
    }

    /// What the clock says.
    pub(super) fn due(&mut self, now: Tick) -> Option<Happening> {
        if let Some((_, wait)) = self.next.take_if(|(at, _)| *at <= now) {
            return Some(Happening::Joins(wait));
        }
        self.tries.iter_mut().enumerate().find_map(|(n, rival)| {
            if rival.slow.min(rival.quiet) <= now {
                (rival.slow, rival.quiet) = (Tick::NEVER, Tick::NEVER);
                return Some(Happening::Slow(n));
            }
            (rival.old <= now).then_some(Happening::Old(n))
        })
    }

    /// Whether an answer may still come.
    pub(super) fn is_on(&self) -> bool {
        self.next.is_some() || !self.tries.is_empty()
    }

    /// Ends all tries.
    pub(super) fn give_up(&mut self) {
        self.next = None;
        self.tries.drain(..).for_each(Rival::give_up);
    }
}

impl Rival {
    pub(super) fn give_up(self) {
        if let Stage::Talking(up, _) = self.stage {
            give_up(&self.cluster, up);
        }
    }

    pub(super) fn count_error(&self, worker: usize) {
        self.host.shard(worker).rq_error.inc();
    }
}

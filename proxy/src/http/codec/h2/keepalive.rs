//! `connection_keepalive`: PINGs at intervals, and what follows when nothing comes back.

use std::task::Context;

use h2::{Ping, PingPong};

use crate::config::http2;
use crate::worker::timer::Tick;

/// The PINGs of one connection. Where none are configured it costs a comparison.
pub struct Keepalive {
    config: Option<http2::Keepalive>,
    handle: Option<PingPong>,
    /// When the next PING is due.
    next: Tick,
    /// When the connection is given up unless something comes; never, while no answer is waited for.
    deadline: Tick,
}

impl Keepalive {
    /// The PINGs of a connection that has just begun.
    #[must_use]
    pub fn new(config: Option<http2::Keepalive>, now: Tick) -> Self {
        let mut keepalive = Self { config, handle: None, next: Tick::NEVER, deadline: Tick::NEVER };
        keepalive.schedule(now);
        keepalive
    }

    /// Whether it has no handle yet and wants one.
    #[must_use]
    pub const fn wants_handle(&self) -> bool {
        self.config.is_some() && self.handle.is_none()
    }

    /// Gives it the codec's handle.
    pub fn attach(&mut self, handle: Option<PingPong>) {
        self.handle = handle;
    }

    /// When to look at it again.
    #[must_use]
    pub fn rings(&self) -> Tick {
        self.next.min(self.deadline)
    }

    /// Takes note of what was heard of the peer (anything, an answer to a PING), and sends what is due. False when the peer
    /// has been silent for too long. A frame of any kind is a sign of life: the answer may stand in line behind it.
    #[must_use]
    pub fn poll(&mut self, (heard, pong): (bool, bool), now: Tick, cx: &mut Context<'_>) -> bool {
        let Some(config) = self.config else { return true };
        if pong {
            if let Some(handle) = &mut self.handle {
                let _ = handle.poll_pong(cx);
            }
            self.deadline = Tick::NEVER;
            self.schedule(now);
        } else if heard && self.deadline != Tick::NEVER {
            self.deadline = now.after(config.timeout);
        }
        if self.deadline <= now {
            return false;
        }
        if self.next <= now {
            self.ask(now);
        }
        true
    }

    /// Sends a PING now, unless an answer is waited for.
    pub fn ask(&mut self, now: Tick) {
        let (Some(config), Some(handle)) = (self.config, &mut self.handle) else { return };
        self.next = Tick::NEVER;
        if self.deadline == Tick::NEVER && handle.send_ping(Ping::opaque()).is_ok() {
            self.deadline = now.after(config.timeout);
        }
    }

    fn schedule(&mut self, now: Tick) {
        self.next = match self.config {
            Some(http2::Keepalive { interval: Some(interval), jitter, .. }) => {
                now.after(interval.mul_f64(1.0 + jitter * fastrand::f64()))
            }
            _ => Tick::NEVER,
        };
    }
}

//! The bytes of a connection on their way between the client and the upstream side, whatever that is.

use std::task::{Context, Poll};

use filters::stream_info::ByteMeter;

use super::direction::{Direction, Limits, Side, Tally};
use super::tunnel::Tunnel;
use crate::transport::Io;
use crate::upstream::pool::TcpLease;
use crate::worker::Worker;

/// How a direction fares: ready at its end, or with the side that broke it.
type End = Poll<Result<(), Side>>;

/// Both directions of a connection. Dropping it ends the upstream side.
pub(super) enum Flow {
    /// Over a connection of its own.
    Plain(Box<Plain>),
    /// Over an HTTP stream.
    Tunnel(Box<Tunnel>),
}

/// Bytes between two connections.
pub(super) struct Plain {
    lease: TcpLease,
    request: Direction,
    response: Direction,
}

impl Flow {
    /// Between a client's connection, which may buffer `client` bytes, and an upstream connection.
    pub(super) fn plain(lease: TcpLease, client: usize) -> Self {
        let host = lease.buffer_limit();
        Self::Plain(Box::new(Plain {
            lease,
            request: Direction::new(Limits { from: client, to: host }),
            response: Direction::new(Limits { from: host, to: client }),
        }))
    }

    /// Moves what can be moved: what the client sends, and what it is sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker, down: &mut Io) -> (End, End) {
        match self {
            Self::Plain(plain) => {
                let sent = plain.request.poll(cx, worker, down, &mut plain.lease.io);
                (sent, plain.response.poll(cx, worker, &mut plain.lease.io, down))
            }
            Self::Tunnel(tunnel) => {
                let sent = tunnel.poll_request(cx, worker, down);
                let received = tunnel.poll_response(cx, down);
                let over = tunnel.is_over() && received == Poll::Ready(Ok(()));
                (if over { Poll::Ready(Ok(())) } else { sent }, received)
            }
        }
    }

    /// Whether the connection is to end because its host failed; the task is woken when it is.
    pub(super) fn is_cut(&self, cx: &Context<'_>) -> bool {
        match self {
            Self::Plain(plain) => plain.lease.is_cut(cx),
            // It shares a connection that finishes what it began.
            Self::Tunnel(_) => false,
        }
    }

    /// What has happened so far in both directions.
    pub(super) fn tallies(&self) -> (Tally, Tally) {
        match self {
            Self::Plain(plain) => (plain.request.tally(), plain.response.tally()),
            Self::Tunnel(tunnel) => tunnel.tallies(),
        }
    }

    /// What has crossed the upstream connection.
    pub(super) fn meter(&self) -> ByteMeter {
        match self {
            Self::Plain(plain) => ByteMeter {
                wire_rx: plain.response.tally().moved,
                wire_tx: plain.request.tally().moved,
                ..ByteMeter::default()
            },
            Self::Tunnel(tunnel) => tunnel.meter(),
        }
    }

    /// Whether the client's end was passed on.
    pub(super) fn request_is_closed(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.request.is_closed(),
            Self::Tunnel(tunnel) => tunnel.request_is_closed(),
        }
    }

    /// Counts on the upstream side what has happened since `before`.
    pub(super) fn count(&mut self, before: (Tally, Tally)) {
        let (request, response) = self.tallies();
        let (paused, resumed) = (response.paused - before.1.paused, response.resumed - before.1.resumed);
        match self {
            Self::Plain(plain) => {
                let (received, sent) = (response.moved - before.1.moved, request.moved - before.0.moved);
                if received > 0 || sent > 0 {
                    plain.lease.bytes(received, sent);
                }
                if paused > 0 || resumed > 0 {
                    plain.lease.flow_control(paused, resumed);
                }
            }
            // Its bytes are counted with the connection it shares.
            Self::Tunnel(tunnel) if paused > 0 || resumed > 0 => tunnel.flow_control(paused, resumed),
            Self::Tunnel(_) => {}
        }
    }

    /// Says that it was the peer who ended the upstream connection.
    pub(super) fn closed_by_peer(&mut self) {
        if let Self::Plain(plain) = self {
            plain.lease.closed_by_peer();
        }
    }
}

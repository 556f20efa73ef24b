//! What can be wrong with a host, and what it speaks.

use std::fmt;

/// What clients, proxy and hosts speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(super) enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC: unary calls.
    Grpc,
}

impl Protocol {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        })
    }
}

/// What is wrong with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// Nobody listens, and what was connected is reset.
    Killed,
    /// The same for a moment; then it is well, and nobody was told.
    Restarted,
    /// It accepts, reads, and never answers.
    Stalled,
    /// It reads a request and resets the connection or, by HTTP/2, every other time the stream alone.
    Resetting,
    /// It begins every eighth answer and resets in the middle of the body, which no proxy can make good.
    BreakingOff,
    /// It answers 503 as soon as it has a head; by HTTP/1 it closes if there is a body to come.
    Overloaded,
    /// Nobody listens; what is connected goes on.
    Refusing,
    /// What was connected is reset, and the backlog is full: attempts to connect are not even refused.
    Clogged,
    /// It closes a connection after an answer without having said that it would (HTTP/1).
    HangingUp,
    /// It refuses streams, which by HTTP/2 promises that nothing was done for them.
    RefusingStreams,
    /// It sends GOAWAY every few requests and closes when it has answered what it has.
    GoingAway,
    /// It sends GOAWAY and closes without answering what it has.
    Leaving,
    /// It answers with the gRPC status UNAVAILABLE, in a head alone.
    Unavailable,
}

impl Fault {
    /// Those that a protocol knows.
    pub(super) const fn of(protocol: Protocol) -> &'static [Self] {
        use Fault::{
            BreakingOff, Clogged, GoingAway, HangingUp, Killed, Leaving, Overloaded, Refusing, RefusingStreams,
            Resetting, Restarted, Stalled, Unavailable,
        };
        match protocol {
            Protocol::Http1 => {
                &[Killed, Restarted, Stalled, Resetting, Overloaded, Refusing, Clogged, HangingUp, BreakingOff]
            }
            Protocol::Http2 => &[
                Killed,
                Restarted,
                Stalled,
                Resetting,
                Overloaded,
                Refusing,
                Clogged,
                RefusingStreams,
                GoingAway,
                Leaving,
                BreakingOff,
            ],
            Protocol::Grpc => &[
                Killed,
                Restarted,
                Stalled,
                Resetting,
                Overloaded,
                Refusing,
                Clogged,
                RefusingStreams,
                GoingAway,
                Leaving,
                Unavailable,
                BreakingOff,
            ],
        }
    }

    /// Whether a try may fail without the host ever seeing it.
    pub(super) const fn turns_away(self) -> bool {
        matches!(self, Self::Killed | Self::Restarted | Self::Refusing | Self::Clogged)
    }

    /// Whether a try of the host may fail at all; a proxy that minds what it is told loses nothing to the others.
    pub(super) const fn fails_tries(self) -> bool {
        !matches!(self, Self::GoingAway)
    }
}

//! Listener filters: what is learned from the first bytes of a connection before its filter chain is chosen.
//!
//! [`Inspection`] is the state machine: it is shown the bytes read so far and says how many it needs before it can go on,
//! or that it is done. Bytes are never taken away, except the PROXY header, which [`Inspection::consumed`] counts; what
//! follows is replayed to whoever serves the connection. It does no I/O and knows no clock.

mod counted;
mod http_inspector;
mod proxy_protocol;
mod tls_inspector;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use filters::stream_info::{Address, Proxied};
use serde_json::{Map, Value};

use crate::config::listener::listener_filter::{ListenerFilterConfig, ListenerFilterKind};

pub use self::counted::FilterStats;
pub use self::tls_inspector::TRANSPORT_PROTOCOL as TLS;

/// What the filters found out.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Detected {
    /// Server name of the TLS client hello, lower case; empty when none was seen.
    pub server_name: String,
    /// `tls` when a client hello was seen; `None` leaves it at `raw_buffer`.
    pub transport_protocol: Option<&'static str>,
    /// What the client offers to speak, most wanted first.
    pub application_protocols: Vec<Box<[u8]>>,
    /// The local address, if it was recovered (original destination, PROXY header).
    pub local: Option<Address>,
    /// The peer, if the PROXY header named one.
    pub remote: Option<Address>,
    /// Dynamic metadata by name space, from the TLVs of a PROXY header.
    pub metadata: Option<Box<Map<String, Value>>>,
    /// Upstreams may be told of the connection, because a PROXY header named its ends.
    pub proxied: Proxied,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Show at least this many bytes in all (counted from the connection's first).
    NeedMore(usize),
    /// Every filter is satisfied.
    Done,
    /// Close the connection.
    Reject,
}

/// Something a filter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterCounter {
    /// A client hello was seen.
    TlsFound,
    /// The first bytes are no client hello.
    TlsNotFound,
    /// The client hello names a server.
    SniFound,
    /// It does not.
    SniNotFound,
    /// The client hello offers application protocols.
    AlpnFound,
    /// It does not.
    AlpnNotFound,
    /// The client hello is longer than allowed.
    ClientHelloTooLarge,
    /// An HTTP/1.0 (or older) request line was seen.
    Http10Found,
    /// An HTTP/1.1 request line was seen.
    Http11Found,
    /// The HTTP/2 preface was seen.
    Http2Found,
    /// The first bytes are no HTTP.
    HttpNotFound,
    /// No PROXY header, which is allowed.
    ProxyNotFoundAllowed,
    /// No PROXY header, which is not allowed.
    ProxyNotFoundDisallowed,
    /// A version 1 header.
    ProxyV1Found,
    /// A version 1 header, which is not allowed.
    ProxyV1Disallowed,
    /// A broken version 1 header.
    ProxyV1Error,
    /// A version 2 header.
    ProxyV2Found,
    /// A version 2 header, which is not allowed.
    ProxyV2Disallowed,
    /// A broken version 2 header.
    ProxyV2Error,
    /// Any of the refusals above but for a version that is not allowed. It stands outside all scopes.
    ProxyError,
}

/// What the filters may ask of the world.
pub trait Surroundings {
    /// Where the client connected before the kernel redirected it here, if it did.
    fn original_dst(&self) -> Option<SocketAddr>;

    /// Whether `address` is not the socket's own local address, and so worth restoring.
    fn is_elsewhere(&self, address: SocketAddr) -> bool;

    /// Counts for the filter at `filter` in the listener's list.
    fn count(&self, filter: usize, counter: FilterCounter);

    /// Bytes the `tls_inspector` at `filter` looked at (its histogram `bytes_processed`).
    fn tls_bytes_processed(&self, filter: usize, bytes: usize);
}

/// The filters of one connection at work.
#[derive(Debug)]
pub struct Inspection<'a> {
    filters: &'a [ListenerFilterConfig],
    /// The filter at work.
    at: usize,
    local_port: Option<u16>,
    detected: Detected,
    consumed: usize,
    tls: tls_inspector::TlsInspector,
}

/// What one filter says of the bytes it was shown.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Show it at least this many.
    NeedMore(usize),
    /// It is satisfied; so many bytes are not to be replayed.
    Continue { consumed: usize },
    /// Close the connection.
    Reject,
}

impl<'a> Inspection<'a> {
    /// Starts on a connection to `local_port` (`None` for a Unix socket).
    #[must_use]
    pub fn new(filters: &'a [ListenerFilterConfig], local_port: Option<u16>) -> Self {
        Self {
            filters,
            at: 0,
            local_port,
            detected: Detected::default(),
            consumed: 0,
            tls: tls_inspector::TlsInspector::default(),
        }
    }

    /// Goes as far as `bytes`, all of the connection so far, allow.
    pub fn advance(&mut self, bytes: &[u8], surroundings: &impl Surroundings) -> Progress {
        while let Some(filter) = self.filters.get(self.at) {
            if !filter.disabled.as_ref().is_some_and(|rule| rule.matches(self.local_port)) {
                match self.show(&filter.kind, bytes.get(self.consumed..).unwrap_or_default(), surroundings) {
                    Answer::NeedMore(length) => return Progress::NeedMore(self.consumed + length),
                    Answer::Continue { consumed } => self.consumed += consumed,
                    Answer::Reject => return Progress::Reject,
                }
            }
            self.at += 1;
        }
        Progress::Done
    }

    /// How many of the first bytes are not to be replayed.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    /// What was found out so far.
    #[must_use]
    pub fn into_detected(self) -> Detected {
        self.detected
    }

    fn show(&mut self, kind: &ListenerFilterKind, bytes: &[u8], surroundings: &impl Surroundings) -> Answer {
        let at = self.at;
        let count = |counter| surroundings.count(at, counter);
        match kind {
            ListenerFilterKind::TlsInspector(config) => {
                let answer = self.tls.inspect(*config, bytes, &mut self.detected, &count);
                if !matches!(answer, Answer::NeedMore(_)) {
                    surroundings.tls_bytes_processed(at, self.tls.processed());
                }
                answer
            }
            ListenerFilterKind::HttpInspector => http_inspector::inspect(bytes, &mut self.detected, &count),
            ListenerFilterKind::OriginalDst => {
                if let Some(address) = surroundings.original_dst().filter(|address| surroundings.is_elsewhere(*address))
                {
                    self.restore_local(Address::Ip(address));
                }
                Answer::Continue { consumed: 0 }
            }
            ListenerFilterKind::ProxyProtocol(config) => {
                let (answer, header) = proxy_protocol::inspect(config, bytes, &count);
                if let Some(header) = header {
                    if let Some((remote, local)) = header.addresses {
                        self.detected.remote = Some(Address::Ip(remote));
                        self.detected.proxied = Proxied::Told(header.tlvs);
                        if surroundings.is_elsewhere(local) {
                            self.restore_local(Address::Ip(local));
                        }
                    }
                    self.detected.metadata = header.metadata;
                }
                answer
            }
        }
    }

    fn restore_local(&mut self, local: Address) {
        self.local_port = local.ip().map(|ip| ip.port());
        self.detected.local = Some(local);
    }
}

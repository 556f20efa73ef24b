//! One request and its response with an upstream, whichever protocol carries them.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use filters::http::{Frame, Headers, RequestHead, ResponseHead};
use filters::stream_info::ByteMeter;
use filters::tls::TlsInfo;

use super::cluster::Cluster;
use super::failure::{FailureKind, UpstreamFailure};
use super::pool::{Http1Lease, Http2Lease, Lease, TcpLease};
use crate::http::codec::h1::{HeaderFormat, Spelling};
use crate::http::codec::h2::ClientExchange;

/// An attempt in flight. Dropping it gives the attempt up: an HTTP/1 connection closes, an HTTP/2 stream is reset.
pub enum Exchange {
    /// Over a connection of its own.
    Http1(Http1Lease),
    /// Over a stream of a shared connection. The stream goes before the lease, which lets the next one in.
    Http2(ClientExchange, Http2Lease),
    /// A CONNECT that ends here: its bytes go upstream as they are.
    Tcp(Tunnel),
}

/// A layer-4 connection in the place of an HTTP exchange.
pub struct Tunnel {
    /// Boxed: it is several times the size of what HTTP needs, and rare.
    lease: Box<TcpLease>,
    /// The response that says that the tunnel stands, until it is taken.
    granted: Option<ResponseHead>,
}

impl Exchange {
    /// Sends the request head on a leased connection. With `end` it is the whole request; with `tunnel` it asks for a
    /// switch of protocols. `format` is how HTTP/1 spells header names, if the cluster is not to decide.
    ///
    /// # Errors
    /// When the head cannot be said in the connection's protocol, or the connection takes no request after all.
    pub fn start(
        lease: Lease,
        head: &RequestHead,
        end: bool,
        tunnel: bool,
        format: Option<HeaderFormat<'_>>,
    ) -> Result<Self, UpstreamFailure> {
        match lease {
            Lease::Http1(mut lease) => {
                lease.send_head(head, end, tunnel, format)?;
                Ok(Self::Http1(lease))
            }
            Lease::Http2(lease) => {
                let exchange = lease.send(head, end)?;
                Ok(Self::Http2(exchange, lease))
            }
            Lease::Tcp(lease) => Ok(Self::tunnel(lease, Bytes::new(), end)),
        }
    }

    /// Takes a connection for a request that ends here. It stands, and that is all there is to say to CONNECT; `first` goes
    /// upstream before anything the client sends. With `end` it sends nothing.
    #[must_use]
    pub fn tunnel(mut lease: Box<TcpLease>, first: Bytes, end: bool) -> Self {
        if !first.is_empty() || end {
            lease.send(first, end);
        }
        let granted = ResponseHead { status: 200, ..ResponseHead::default() };
        Self::Tcp(Tunnel { lease, granted: Some(granted) })
    }

    /// Process-wide number of the connection.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        match self {
            Self::Http1(lease) => lease.connection_id(),
            Self::Http2(_, lease) => lease.connection_id(),
            Self::Tcp(tunnel) => tunnel.lease.connection_id(),
        }
    }

    /// The connection's local address.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Http1(lease) => lease.local_address(),
            Self::Http2(_, lease) => lease.local_address(),
            Self::Tcp(tunnel) => tunnel.lease.local_address(),
        }
    }

    /// The connection's TLS session.
    #[must_use]
    pub fn tls_info(&self) -> Option<&Rc<TlsInfo>> {
        match self {
            Self::Http1(lease) => lease.tls_info(),
            Self::Http2(_, lease) => lease.tls_info(),
            Self::Tcp(tunnel) => tunnel.lease.io.tls_info(),
        }
    }

    /// What crossed the wire for this exchange so far, where that can be told: streams of one connection share its frames.
    #[must_use]
    pub fn meter(&self) -> ByteMeter {
        match self {
            Self::Http1(lease) => lease.meter(),
            Self::Http2(..) => ByteMeter::default(),
            Self::Tcp(tunnel) => tunnel.lease.meter(),
        }
    }

    /// The same, with what was read and is not understood yet.
    #[must_use]
    pub fn whole_meter(&self) -> ByteMeter {
        match self {
            Self::Http1(lease) => lease.whole_meter(),
            Self::Http2(..) | Self::Tcp(_) => self.meter(),
        }
    }

    /// Ready when request body may be sent.
    ///
    /// # Errors
    /// When the upstream takes no more; a response may still come.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFailure>> {
        match self {
            Self::Http1(lease) => lease.poll_writable(cx),
            Self::Http2(exchange, _) => exchange.poll_writable(cx),
            Self::Tcp(tunnel) => tunnel.lease.poll_writable(cx),
        }
    }

    /// Sends request body; with `end` nothing follows.
    pub fn send_data(&mut self, data: Bytes, end: bool) {
        match self {
            Self::Http1(lease) => lease.send_data(data, end),
            Self::Http2(exchange, _) => exchange.send_data(data, end),
            Self::Tcp(tunnel) => tunnel.lease.send(data, end),
        }
    }

    /// Sends the trailers that end the request.
    pub fn send_trailers(&mut self, trailers: &Headers) {
        match self {
            Self::Http1(lease) => lease.send_trailers(trailers),
            Self::Http2(exchange, _) => exchange.send_trailers(trailers),
            // There is nothing in TCP to say them with.
            Self::Tcp(tunnel) => tunnel.lease.send(Bytes::new(), true),
        }
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(lease) => lease.poll_flush(cx),
            Self::Http2(..) => Poll::Ready(()),
            Self::Tcp(tunnel) => tunnel.lease.poll_flush(cx),
        }
    }

    /// Whether nothing that was sent waits to leave.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Http2(exchange, _) => exchange.is_flushed(),
            // They say so themselves, when they are flushed.
            Self::Http1(_) | Self::Tcp(_) => true,
        }
    }

    /// The next response head: informational ones first, then the final one.
    ///
    /// # Errors
    /// Why no response will come.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamFailure>> {
        match self {
            Self::Http1(lease) => lease.poll_head(cx),
            Self::Http2(exchange, _) => exchange.poll_head(cx),
            Self::Tcp(tunnel) => match tunnel.granted.take() {
                Some(head) => Poll::Ready(Ok(head)),
                None => Poll::Pending,
            },
        }
    }

    /// How the upstream spelled the final head's names, if the cluster says that clients are to see that.
    pub fn take_spelling(&mut self) -> Option<Spelling> {
        match self {
            Self::Http1(lease) => lease.take_spelling(),
            Self::Http2(..) | Self::Tcp(_) => None,
        }
    }

    /// Whether the response has been taken whole.
    #[must_use]
    pub fn response_complete(&self) -> bool {
        match self {
            Self::Http1(lease) => lease.response_complete(),
            Self::Http2(exchange, _) => exchange.response_complete(),
            Self::Tcp(tunnel) => tunnel.lease.is_complete(),
        }
    }

    /// The next piece of the response body; `None` once it is complete.
    ///
    /// # Errors
    /// Why the rest will not come.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, UpstreamFailure>> {
        match self {
            Self::Http1(lease) => lease.poll_frame(cx),
            Self::Http2(exchange, _) => exchange.poll_frame(cx),
            Self::Tcp(tunnel) => tunnel.lease.poll_read(cx).map_ok(|data| data.map(Frame::Data)),
        }
    }

    /// Counts a stream that is given up. An HTTP/1 exchange has no stream of its own: its connection is what ends.
    pub fn count_reset(&self, cluster: &Cluster, why: FailureKind) {
        let Self::Http2(..) = self else { return };
        let stats = &cluster.context().stats;
        match why {
            FailureKind::RemoteReset => stats.upstream_rq_rx_reset().inc(),
            FailureKind::LocalReset | FailureKind::ProtocolError => stats.upstream_rq_tx_reset().inc(),
            FailureKind::ConnectionTermination | FailureKind::ConnectFailure | FailureKind::ConnectTimeout => {
                stats.upstream_rq_pending_failure_eject().inc();
            }
            FailureKind::RemoteRefused | FailureKind::RemoteConnectError | FailureKind::Overflow => {}
        }
    }

    /// Request and response are complete: what can be used again is.
    pub fn finish(self, request_complete: bool) {
        match self {
            Self::Http1(lease) if request_complete => lease.release(),
            Self::Http1(_) | Self::Tcp(_) => {}
            // A stream that is not over resets itself.
            Self::Http2(..) => {}
        }
    }
}

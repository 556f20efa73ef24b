//! HTTP/1 connections of a pool: one exchange at a time.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use filters::http::{Frame, Headers, Method, RequestHead, ResponseHead};
use filters::stream_info::ByteMeter;
use filters::tls::TlsInfo;

use super::{ConnectionGuard, Pool, RequestGuard};
use crate::config::hcm::HeaderCase;
use crate::http::codec::h1::{
    self, BodyKind, Eof, Expected, Framing, HeaderFormat, RequestEncoder, RequestOptions, ResponseDecoder,
    ResponseEvent, Spelling, WriteBuf,
};
use crate::transport::Io;
use crate::upstream::cluster::ClusterContext;
use crate::upstream::failure::{FailureKind, UpstreamFailure};
use crate::worker::timer::Tick;

/// One HTTP/1 connection to an upstream host.
pub struct Http1Connection {
    pub(super) io: Io,
    /// Bytes read and not yet understood; empty between exchanges.
    read: BytesMut,
    out: WriteBuf,
    decoder: ResponseDecoder,
    encoder: RequestEncoder,
    /// Whether the current exchange lets it carry another.
    reusable: bool,
    /// Request head and body of the current exchange were queued whole.
    request_sent: bool,
    /// Response of the current exchange was taken whole.
    response_complete: bool,
    /// The current exchange asked for a tunnel by CONNECT: the upstream's end closes the connection, it does not close it itself.
    connect: bool,
    /// The current exchange has become a tunnel.
    tunnel: bool,
    /// How the current response's head was spelled, where that is kept.
    case: Option<h1::HeaderCase>,
    /// Writing failed: what the peer said last is still worth reading.
    write_failed: bool,
    pub(super) closed_by_peer: bool,
    /// Of the current exchange.
    meter: ByteMeter,
    requests: u64,
    max_requests: u64,
    active: bool,
    buffer_limit: usize,
    /// It takes no further request after this.
    expires: Tick,
    /// Asked for once: it is a system call.
    local: Option<std::net::SocketAddr>,
    guard: ConnectionGuard,
}

impl Http1Connection {
    pub(super) fn new(io: Io, guard: ConnectionGuard, context: &ClusterContext) -> Self {
        Self {
            local: io.local_addr(),
            io,
            read: BytesMut::new(),
            out: WriteBuf::new(),
            decoder: ResponseDecoder::new(Rc::clone(&context.h1_options)),
            encoder: RequestEncoder::default(),
            reusable: false,
            request_sent: false,
            response_complete: false,
            connect: false,
            tunnel: false,
            case: None,
            write_failed: false,
            closed_by_peer: false,
            meter: ByteMeter::default(),
            requests: 0,
            max_requests: context.config.http.common.max_requests_per_connection.map_or(u64::MAX, u64::from),
            active: false,
            buffer_limit: context.buffer_limit(),
            expires: context.expiry(),
            guard,
        }
    }

    /// When it has lived for as long as it may.
    pub(super) const fn expires(&self) -> Tick {
        self.expires
    }

    /// Whether it has lived for as long as it may.
    pub(super) fn has_expired(&self) -> bool {
        self.expires != Tick::NEVER && self.expires <= self.guard.context.worker.timers().now()
    }
}

impl Drop for Http1Connection {
    fn drop(&mut self) {
        if self.has_expired() {
            self.guard.context.stats.upstream_cx_max_duration_reached().inc();
        }
        self.guard.ended(self.closed_by_peer, self.requests, self.active);
    }
}

/// A connection leased for one exchange.
pub struct Http1Lease {
    pool: Rc<Pool>,
    /// Gone once released.
    connection: Option<Box<Http1Connection>>,
    _guard: RequestGuard,
}

impl Http1Lease {
    pub(super) fn new(pool: Rc<Pool>, mut connection: Box<Http1Connection>, guard: RequestGuard) -> Self {
        connection.active = true;
        connection.requests += 1;
        connection.reusable = false;
        connection.request_sent = false;
        connection.response_complete = false;
        connection.tunnel = false;
        connection.meter = ByteMeter::default();
        Self { pool, connection: Some(connection), _guard: guard }
    }

    /// Process-wide number of the connection.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.guard.id)
    }

    /// The connection's TLS session.
    #[must_use]
    pub fn tls_info(&self) -> Option<&Rc<TlsInfo>> {
        self.connection.as_ref()?.io.tls_info()
    }

    /// What crossed the wire for this exchange so far.
    #[must_use]
    pub fn meter(&self) -> ByteMeter {
        let Some(c) = &self.connection else { return ByteMeter::default() };
        ByteMeter { wire_rx: c.meter.wire_rx.saturating_sub(c.read.len() as u64), ..c.meter }
    }

    /// The same, with what was read and is not understood yet.
    #[must_use]
    pub fn whole_meter(&self) -> ByteMeter {
        self.connection.as_ref().map_or_else(ByteMeter::default, |c| c.meter)
    }

    /// The connection's local address.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.connection.as_ref().and_then(|connection| connection.local)
    }

    /// Queues the request head. With `end` it is the whole request; with `tunnel` it asks for a switch of protocols.
    /// `format` is how header names are spelled, if the cluster is not to decide.
    ///
    /// # Errors
    /// When the head cannot be said in HTTP/1.
    pub fn send_head(
        &mut self,
        head: &RequestHead,
        end: bool,
        tunnel: bool,
        format: Option<HeaderFormat<'_>>,
    ) -> Result<(), UpstreamFailure> {
        let format = format.unwrap_or_else(|| self.pool.context.header_format());
        let Some(c) = &mut self.connection else { return Err(gone()) };
        let options = RequestOptions {
            end_stream: end,
            upgrade: tunnel && head.method != Method::Connect,
            format,
            absolute_form: self.pool.context.config.http.http1.send_fully_qualified_url,
        };
        c.encoder
            .encode_head(head, &options, &mut c.out)
            .map_err(|error| UpstreamFailure::with(FailureKind::LocalReset, error.to_string()))?;
        // Without the request line and the empty one, which are no headers.
        let target = match head.method {
            Method::Connect => head.authority.len(),
            _ if options.absolute_form => head.scheme.as_str().len() + 3 + head.authority.len() + head.path.len(),
            _ => head.path.len(),
        };
        let line = head.method.as_bytes().len() + target + "  HTTP/1.1\r\n".len();
        c.meter.header_tx = c.out.len().saturating_sub(line + 2) as u64;
        c.request_sent = end;
        c.connect = head.method == Method::Connect;
        c.decoder.expect(match head.method {
            Method::Head => Expected::NoBody,
            Method::Connect => Expected::Connect,
            _ if tunnel => Expected::Upgrade,
            _ => Expected::Body,
        });
        Ok(())
    }

    /// Queues request body; with `end` nothing follows.
    pub fn send_data(&mut self, data: Bytes, end: bool) {
        let Some(c) = &mut self.connection else { return };
        if c.encoder.framing() == Framing::Raw {
            if end {
                c.request_sent = true;
            }
            c.out.push(data);
            return;
        }
        let sent = if data.is_empty() { Ok(()) } else { c.encoder.encode_data(data, &mut c.out) };
        let sent =
            if end { sent.and_then(|()| c.encoder.finish(None, HeaderFormat::default(), &mut c.out)) } else { sent };
        c.request_sent |= end;
        // A body that belies its length ends the connection; the upstream sees a cut request, not a wrong one.
        c.write_failed |= sent.is_err();
    }

    /// Queues the trailers that end the request.
    pub fn send_trailers(&mut self, trailers: &Headers) {
        let trailers = self.pool.context.config.http.http1.enable_trailers.then_some(trailers);
        let Some(c) = &mut self.connection else { return };
        c.request_sent = true;
        c.write_failed |= c.encoder.finish(trailers, HeaderFormat::default(), &mut c.out).is_err();
    }

    /// Ready when less than the buffer limit waits to be written.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamFailure>> {
        let limit = self.connection.as_ref().map_or(0, |c| c.buffer_limit);
        if self.connection.as_ref().is_some_and(|c| c.out.len() >= limit) {
            let _ = self.poll_flush(cx);
        }
        match &self.connection {
            Some(c) if c.write_failed => Poll::Ready(Err(gone())),
            Some(c) if c.out.len() < limit => Poll::Ready(Ok(())),
            Some(_) => Poll::Pending,
            None => Poll::Ready(Err(gone())),
        }
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(c) = &mut self.connection else { return Poll::Ready(()) };
        while !c.out.is_empty() && !c.write_failed {
            match c.io.poll_write(cx, &mut c.out) {
                Poll::Ready(Ok(n)) => {
                    c.meter.wire_tx += n as u64;
                    self.pool.context.stats.upstream_cx_tx_bytes_total().add(n as u64);
                }
                Poll::Ready(Err(_)) => c.write_failed = true,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// The next response head: informational ones first, then the final one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamFailure>> {
        match std::task::ready!(self.poll_event(cx)) {
            Ok(Some(ResponseEvent::Informational(head))) => Poll::Ready(Ok(*head)),
            Ok(Some(ResponseEvent::Head(decoded))) => {
                let Some(c) = &mut self.connection else { return Poll::Ready(Err(gone())) };
                c.reusable = decoded.keep_alive;
                if decoded.close_notified {
                    self.pool.context.stats.upstream_cx_close_notify().inc();
                }
                c.response_complete = decoded.body.is_empty();
                c.tunnel = decoded.body == BodyKind::Tunnel;
                c.meter.header_rx = decoded.framing_bytes;
                c.case = decoded.case;
                Poll::Ready(Ok(decoded.head))
            }
            Ok(_) => Poll::Ready(Err(protocol_error(&self.pool.context))),
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }

    /// How the upstream spelled the final head's names, if the cluster says that clients are to see that.
    pub(in crate::upstream) fn take_spelling(&mut self) -> Option<Spelling> {
        let case = self.connection.as_mut()?.case.take()?;
        let (proper_case_others, forward_reason) = match self.pool.context.config.http.http1.header_case {
            HeaderCase::Preserve { proper_case_for_own, forward_reason_phrase } => {
                (proper_case_for_own, forward_reason_phrase)
            }
            HeaderCase::Lower | HeaderCase::Proper => return None,
        };
        Some(Spelling { case, proper_case_others, forward_reason })
    }

    /// Whether the response has been taken whole.
    #[must_use]
    pub fn response_complete(&self) -> bool {
        self.connection.as_ref().is_none_or(|c| c.response_complete)
    }

    /// The next piece of the response body; `None` once it is complete.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, UpstreamFailure>> {
        if self.response_complete() {
            return Poll::Ready(Ok(None));
        }
        let frame = match std::task::ready!(self.poll_event(cx)) {
            Ok(Some(ResponseEvent::Data(data))) => Some(Frame::Data(data)),
            Ok(Some(ResponseEvent::Trailers(trailers))) => Some(Frame::Trailers(trailers)),
            Ok(Some(ResponseEvent::End) | None) => None,
            Ok(Some(ResponseEvent::Head(_) | ResponseEvent::Informational(_))) => {
                return Poll::Ready(Err(protocol_error(&self.pool.context)));
            }
            Err(failure) => return Poll::Ready(Err(failure)),
        };
        let Some(c) = &mut self.connection else { return Poll::Ready(Err(gone())) };
        c.response_complete = match frame {
            // The last byte of a known length: the end needs no further look at the socket.
            Some(Frame::Data(_)) => c.decoder.is_body_complete() && c.decoder.decode(&mut c.read).is_ok(),
            _ => true,
        };
        Poll::Ready(Ok(frame))
    }

    /// The next event; `None` at an end that is the body's own (it was delimited by the connection).
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ResponseEvent>, UpstreamFailure>> {
        let context = &self.pool.context;
        let Some(c) = &mut self.connection else { return Poll::Ready(Err(gone())) };
        loop {
            match c.decoder.decode(&mut c.read) {
                Ok(Some(event)) => return Poll::Ready(Ok(Some(event))),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(protocol_error(context))),
            }
            let read = context.worker.with_scratch(|scratch| c.io.poll_read(cx, scratch, &mut c.read));
            match std::task::ready!(read) {
                Ok(n) if n > 0 => {
                    c.meter.wire_rx += n as u64;
                    context.stats.upstream_cx_rx_bytes_total().add(n as u64);
                }
                ended => {
                    // A CONNECT may end on one side alone, so that an end in order is not yet that of the connection.
                    c.closed_by_peer = !(c.connect && ended.is_ok());
                    c.reusable = false;
                    return Poll::Ready(match c.decoder.eof(&c.read) {
                        // A tunnel has no end of its own: what ends is the connection.
                        Eof::End if ended.is_ok() && !c.tunnel => Ok(None),
                        // A message that is cut short breaks the protocol, however its connection ended.
                        Eof::Incomplete => Err(protocol_error(context)),
                        Eof::End | Eof::BeforeHead | Eof::Idle => {
                            Err(UpstreamFailure::new(FailureKind::ConnectionTermination))
                        }
                    });
                }
            }
        }
    }

    /// Ends the lease after a complete exchange: the connection goes back to the pool if it can carry another.
    pub fn release(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let c = &mut connection;
        c.active = false;
        let spent = c.requests >= c.max_requests;
        if spent {
            self.pool.context.stats.upstream_cx_max_requests().inc();
        }
        // Bytes behind the response are nobody's.
        if c.decoder.is_idle() && !c.read.is_empty() {
            self.pool.context.stats.upstream_cx_protocol_error().inc();
        }
        let clean = c.read.is_empty() && c.out.is_empty() && c.decoder.is_idle() && c.request_sent && !c.write_failed;
        if c.reusable && clean && !spent && !c.has_expired() && !self.pool.draining.get() {
            c.out.release();
            self.pool.offer_http1(connection);
        } else {
            self.close(connection);
        }
    }

    /// Gives a connection back on which nothing was sent.
    pub(super) fn release_unused(mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.active = false;
            connection.requests -= 1;
            self.pool.offer_http1(connection);
        }
    }

    fn close(&self, connection: Box<Http1Connection>) {
        self.pool.close_http1(connection);
        self.pool.connect_as_needed();
    }
}

impl Drop for Http1Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.close(connection);
        }
    }
}

/// What the upstream sent is no response, or not all of one.
fn protocol_error(context: &ClusterContext) -> UpstreamFailure {
    context.stats.upstream_cx_protocol_error().inc();
    UpstreamFailure::new(FailureKind::ProtocolError)
}

fn gone() -> UpstreamFailure {
    UpstreamFailure::new(FailureKind::ConnectionTermination)
}

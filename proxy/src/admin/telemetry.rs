//! The admin server's own statistics: `http.admin.*` and `listener.admin.*`.
//!
//! Envoy's admin server is a connection manager like any other and has its statistics; here they are counted around
//! hyper, on the admin thread's shard.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use filters::flags::{ResponseFlags, details};
use filters::format::{AccessLogType, FormatContext};
use filters::http::{Method, RequestHead};
use filters::matcher::NoRuntime;
use filters::stream_info::{ConnectionInfo, StreamInfo};
use hyper::StatusCode;
use hyper::header::HeaderValue;
use stats::{LazyShard, Store};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Admin;
use crate::http::hygiene::DateCache;
use crate::observe::access_log::{AccessLog, WorkerLogs};
use crate::observe::catalogue::{AdminHttpStats, Http1Stats, ListenerHttpStats, ListenerStats, ListenerWorkerStats};

/// The admin thread's shards, and what keeps them in the scrape.
pub(super) struct Telemetry {
    http: AdminHttpStats,
    listener: ListenerStats,
    listener_http: ListenerHttpStats,
    thread: ListenerWorkerStats,
    /// The codec's, which it shares with all listeners.
    http1: LazyShard<Http1Stats>,
    lines: WorkerLogs,
    date: DateCache,
    _groups: [Arc<dyn Any>; 4],
}

impl Telemetry {
    /// Registers the statistics. To be called on the admin thread, which alone counts.
    pub(super) fn new(store: &Arc<Store>) -> Self {
        let http = store.group::<AdminHttpStats>("http.admin.");
        let listener = store.group::<ListenerStats>("listener.admin.");
        let listener_http = store.group::<ListenerHttpStats>("listener.admin.http.admin.");
        let thread = store.group::<ListenerWorkerStats>("listener.admin.main_thread.");
        let shard = store.admin_shard();
        Self {
            http: http.shard(shard),
            listener: listener.shard(shard),
            listener_http: listener_http.shard(shard),
            thread: thread.shard(shard),
            http1: store.group_on_first_use("http1.").lazy_shard(shard),
            lines: WorkerLogs::new(),
            date: DateCache::default(),
            _groups: [http, listener, listener_http, thread],
        }
    }

    /// Counts a connection from now until the result is dropped.
    pub(super) fn connection(self: &Rc<Self>) -> Connection {
        let Self { http, listener, thread, http1, .. } = &**self;
        http1.take();
        http.downstream_cx_total().inc();
        http.downstream_cx_http1_total().inc();
        http.downstream_cx_active().inc();
        http.downstream_cx_http1_active().inc();
        listener.downstream_cx_total().inc();
        listener.downstream_cx_active().inc();
        listener.connections_accepted_per_socket_event().record(1);
        thread.downstream_cx_total().inc();
        thread.downstream_cx_active().inc();
        Connection { telemetry: Rc::clone(self), opened: Instant::now(), by_peer: Rc::default() }
    }

    /// Counts a request whose head has arrived until the result is dropped, and logs it then.
    pub(super) fn request(self: &Rc<Self>, admin: &Rc<Admin>, connection: &Rc<ConnectionInfo>) -> Exchange {
        self.http.downstream_rq_total().inc();
        self.http.downstream_rq_http1_total().inc();
        self.http.downstream_rq_active().inc();
        let info = StreamInfo::new(Rc::clone(connection), Instant::now(), SystemTime::now(), fastrand::u64(..));
        Exchange { telemetry: Rc::clone(self), admin: Rc::clone(admin), info, request: None }
    }

    /// Writes a line about a request to every log, at once: there are few.
    fn log(&self, logs: &[AccessLog], exchange: &Exchange) {
        let context = FormatContext {
            request: exchange.request.as_ref(),
            log_type: AccessLogType::DownstreamEnd,
            ..FormatContext::new(&exchange.info)
        };
        for log in logs {
            log.log(&context, &self.lines, &NoRuntime);
        }
        self.lines.flush();
    }
}

/// A connection being served.
pub(super) struct Connection {
    telemetry: Rc<Telemetry>,
    opened: Instant,
    /// The client has closed it.
    by_peer: Rc<Cell<bool>>,
}

impl Connection {
    /// The client did not speak HTTP/1.
    pub(super) fn protocol_error(&self) {
        self.telemetry.http.downstream_cx_protocol_error().inc();
    }

    /// Counts the bytes that pass through a stream.
    pub(super) fn metered<S>(&self, stream: S) -> Metered<S> {
        Metered { stream, telemetry: Rc::clone(&self.telemetry), by_peer: Rc::clone(&self.by_peer) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Telemetry { http, listener, thread, .. } = &*self.telemetry;
        let lived = millis(self.opened);
        http.downstream_cx_destroy().inc();
        if self.by_peer.get() {
            http.downstream_cx_destroy_remote().inc();
        } else {
            http.downstream_cx_destroy_local().inc();
        }
        http.downstream_cx_active().dec();
        http.downstream_cx_http1_active().dec();
        http.downstream_cx_length_ms().record(lived);
        listener.downstream_cx_destroy().inc();
        listener.downstream_cx_active().dec();
        listener.downstream_cx_length_ms().record(lived);
        thread.downstream_cx_active().dec();
    }
}

/// A request being answered. Without an answer it was given up by the client.
pub(super) struct Exchange {
    telemetry: Rc<Telemetry>,
    admin: Rc<Admin>,
    info: StreamInfo,
    request: Option<RequestHead>,
}

impl Exchange {
    /// The request, as far as it was understood.
    pub(super) fn asked(&mut self, head: RequestHead) {
        self.info.protocol = Some(head.version);
        self.info.method = Some(head.method.clone());
        self.request = Some(head);
    }

    /// The `date` of the answer; `None` never happens, as dates are text.
    pub(super) fn date(&self) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(self.telemetry.date.value(SystemTime::now())).ok()
    }

    /// The request is complete, with so long a body.
    pub(super) const fn received(&mut self, bytes: usize) {
        self.info.bytes_received = bytes as u64;
    }

    /// The answer is ready to be sent, with so long a body.
    pub(super) fn answered(&mut self, status: StatusCode, bytes: usize, details: &'static str) {
        self.info.response_code = status.as_u16();
        self.info.details = Some(details.into());
        if self.request.as_ref().is_none_or(|head| head.method != Method::Head) {
            self.info.bytes_sent = bytes as u64;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.info.end = Some(Instant::now());
        if self.info.response_code == 0 {
            self.info.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            self.info.details = Some(details::DOWNSTREAM_REMOTE_DISCONNECT.into());
        }
        if !self.admin.logs.is_empty() {
            self.telemetry.log(&self.admin.logs, self);
        }
        let Telemetry { http, listener_http, .. } = &*self.telemetry;
        http.downstream_rq_active().dec();
        http.downstream_rq_time().record(millis(self.info.start));
        if self.info.response_code == 0 {
            http.downstream_rq_rx_reset().inc();
            return;
        }
        http.downstream_rq_completed().inc();
        listener_http.downstream_rq_completed().inc();
        let (whole, at_listener) = match self.info.response_code / 100 {
            1 => (http.downstream_rq_1xx(), listener_http.downstream_rq_1xx()),
            2 => (http.downstream_rq_2xx(), listener_http.downstream_rq_2xx()),
            3 => (http.downstream_rq_3xx(), listener_http.downstream_rq_3xx()),
            4 => (http.downstream_rq_4xx(), listener_http.downstream_rq_4xx()),
            _ => (http.downstream_rq_5xx(), listener_http.downstream_rq_5xx()),
        };
        whole.inc();
        at_listener.inc();
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A stream whose bytes are counted.
pub(super) struct Metered<S> {
    stream: S,
    telemetry: Rc<Telemetry>,
    by_peer: Rc<Cell<bool>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining() > 0);
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.telemetry.http.downstream_cx_rx_bytes_total().add(read as u64);
        match &done {
            Poll::Ready(Ok(())) if read > 0 || !room => {}
            Poll::Ready(_) => self.by_peer.set(true),
            Poll::Pending => {}
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> Metered<S> {
    fn sent(&self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = done {
            self.telemetry.http.downstream_cx_tx_bytes_total().add(written as u64);
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.sent(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

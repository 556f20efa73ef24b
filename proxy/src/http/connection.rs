//! One downstream connection: counted, its codec chosen, its streams served, closed.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;

use super::manager::{Connection, Manager};
use super::{serve_h1, serve_h2};
use crate::config::hcm::CodecType;
use crate::transport::Io;

/// As many bytes of the preface as leave no doubt.
const TELLING: usize = b"PRI * HTTP/2".len();

/// The client's first bytes when it speaks HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end.
pub async fn serve(manager: Rc<Manager>, connection: Rc<Connection>, io: Io) {
    let counted = Counted::new(&manager, &connection);
    let by_peer = converse(&manager, &connection, io, &counted).await;
    counted.by_peer.set(by_peer);
}

/// Counts a connection that has ended before it said anything: there is no TLS session.
pub fn turned_away(manager: &Rc<Manager>, connection: &Rc<Connection>) {
    drop(Counted::new(manager, connection));
}

/// Chooses the codec and lets it serve; says whether the peer ended the connection.
async fn converse(manager: &Rc<Manager>, connection: &Rc<Connection>, mut io: Io, counted: &Counted<'_>) -> bool {
    let mut first = BytesMut::new();
    let negotiated = connection.info.tls.get().map(|tls| tls.alpn.as_slice()).filter(|alpn| !alpn.is_empty());
    let http2 = match manager.config.codec {
        CodecType::Http1 => false,
        CodecType::Auto if negotiated == Some(b"h2") => true,
        CodecType::Auto if negotiated.is_some_and(|alpn| alpn != b"h2c") => false,
        CodecType::Http2 | CodecType::Auto => match first_bytes(manager, connection, &mut io, &mut first).await {
            First::Http2 => true,
            First::Http1 if manager.config.codec == CodecType::Http2 => {
                manager.stats.downstream_cx_http2_total().inc();
                return serve_h2::refuse(manager, io).await;
            }
            First::Http1 => false,
            First::Left => return true,
            First::TimedOut => return false,
        },
    };
    if http2 {
        counted.speaks(CodecType::Http2);
        manager.http2_stats.take();
        io.unread(first.freeze());
        serve_h2::serve(manager, connection, io).await
    } else {
        counted.speaks(CodecType::Http1);
        manager.http1_stats.take();
        serve_h1::serve(manager, connection, io, first).await
    }
}

/// Counts the connection, and takes back what is to be taken back however it ends: a listener that has drained drops the
/// connections that are left.
struct Counted<'a> {
    manager: &'a Manager,
    connection: &'a Connection,
    /// Not known before the client has said something.
    codec: Cell<CodecType>,
    /// The peer ended it.
    by_peer: Cell<bool>,
}

impl<'a> Counted<'a> {
    fn new(manager: &'a Manager, connection: &'a Connection) -> Self {
        manager.stats.downstream_cx_total().inc();
        manager.stats.downstream_cx_active().inc();
        if connection.info.is_tls() {
            manager.stats.downstream_cx_ssl_total().inc();
            manager.stats.downstream_cx_ssl_active().inc();
        }
        Self { manager, connection, codec: Cell::new(CodecType::Auto), by_peer: Cell::new(false) }
    }

    /// The codec is known now.
    fn speaks(&self, codec: CodecType) {
        let stats = &self.manager.stats;
        if codec == CodecType::Http2 {
            stats.downstream_cx_http2_total().inc();
            stats.downstream_cx_http2_active().inc();
        } else {
            stats.downstream_cx_http1_total().inc();
            stats.downstream_cx_http1_active().inc();
        }
        self.codec.set(codec);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let stats = &self.manager.stats;
        match self.codec.get() {
            CodecType::Http2 => stats.downstream_cx_http2_active().dec(),
            CodecType::Http1 => stats.downstream_cx_http1_active().dec(),
            CodecType::Auto => {}
        }
        if self.connection.info.is_tls() {
            stats.downstream_cx_ssl_active().dec();
        }
        if self.connection.ends_with_next.get() {
            stats.downstream_cx_http1_soft_drain().dec();
        }
        if self.by_peer.get() {
            stats.downstream_cx_destroy_remote().inc();
        } else {
            stats.downstream_cx_destroy_local().inc();
        }
        stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
        let millis = u64::try_from(self.connection.info.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.downstream_cx_length_ms().record(millis);
    }
}

/// What a client's first bytes are.
enum First {
    /// HTTP/2's preface.
    Http2,
    /// Something else.
    Http1,
    /// The client left without.
    Left,
    /// None came for too long.
    TimedOut,
}

/// Looks at the client's first bytes; they are in `first`.
async fn first_bytes(manager: &Manager, connection: &Connection, io: &mut Io, first: &mut BytesMut) -> First {
    let worker = &manager.worker;
    let timers = worker.timers();
    let alarm = timers.alarm();
    let idle = timers.now().after_opt(manager.config.timeouts.idle);
    let old_from = connection.old_from.get();
    let may_be_http1 = manager.config.codec != CodecType::Http2;
    poll_fn(|cx| {
        loop {
            let known = first.len().min(PREFACE.len());
            if first[..known] != PREFACE[..known] {
                return Poll::Ready(First::Http1);
            }
            if known == PREFACE.len() {
                return Poll::Ready(First::Http2);
            }
            match worker.with_scratch(|scratch| io.poll_read(cx, scratch, first)) {
                // What is too short to be told from HTTP/1 was an HTTP/1 request that came to nothing.
                Poll::Ready(Ok(0) | Err(_)) if may_be_http1 && (1..TELLING).contains(&known) => {
                    return Poll::Ready(First::Http1);
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(First::Left),
                Poll::Ready(Ok(n)) => manager.stats.downstream_cx_rx_bytes_total().add(n as u64),
                Poll::Pending => {
                    return alarm.poll(idle.min(old_from), cx).map(|()| {
                        if old_from <= timers.now() {
                            manager.stats.downstream_cx_max_duration_reached().inc();
                        } else {
                            manager.stats.downstream_cx_idle_timeout().inc();
                        }
                        First::TimedOut
                    });
                }
            }
        }
    })
    .await
}

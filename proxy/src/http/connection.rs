//! One downstream connection: counted, its codec chosen, its streams served, closed.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;

use super::manager::{Connection, Manager};
use super::{serve_h1, serve_h2};
use crate::config::hcm::CodecType;
use crate::transport::Io;

/// The client's first bytes when it speaks HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end.
pub async fn serve(manager: Rc<Manager>, connection: Rc<Connection>, mut io: Io) {
    let stats = &manager.stats;
    stats.downstream_cx_total().inc();
    stats.downstream_cx_active().inc();
    let _counted = Counted { manager: &manager, opened: connection.info.accepted };
    let mut first = BytesMut::new();
    let http2 = match manager.config.codec {
        CodecType::Http1 => false,
        CodecType::Http2 | CodecType::Auto => match speaks_http2(&manager, &mut io, &mut first).await {
            Some(false) if manager.config.codec == CodecType::Http2 => {
                stats.downstream_cx_http2_total().inc();
                if serve_h2::refuse(&manager, io).await {
                    stats.downstream_cx_destroy_remote().inc();
                } else {
                    stats.downstream_cx_destroy_local().inc();
                }
                return;
            }
            Some(http2) => http2,
            None => {
                stats.downstream_cx_destroy_remote().inc();
                return;
            }
        },
    };
    let by_peer = if http2 {
        stats.downstream_cx_http2_total().inc();
        stats.downstream_cx_http2_active().inc();
        io.unread(first.freeze());
        let by_peer = serve_h2::serve(&manager, &connection, io).await;
        stats.downstream_cx_http2_active().dec();
        by_peer
    } else {
        stats.downstream_cx_http1_total().inc();
        stats.downstream_cx_http1_active().inc();
        let by_peer = serve_h1::serve(&manager, &connection, io, first).await;
        stats.downstream_cx_http1_active().dec();
        by_peer
    };
    if by_peer {
        stats.downstream_cx_destroy_remote().inc();
    } else {
        stats.downstream_cx_destroy_local().inc();
    }
}

/// Takes back what the connection counted, however it ends.
struct Counted<'a> {
    manager: &'a Manager,
    opened: Instant,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let stats = &self.manager.stats;
        stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.downstream_cx_length_ms().record(millis);
    }
}

/// Whether the client's first bytes are HTTP/2's preface; what was read is in `first`. `None` when it left first.
async fn speaks_http2(manager: &Manager, io: &mut Io, first: &mut BytesMut) -> Option<bool> {
    let worker = &manager.worker;
    let alarm = worker.timers().alarm();
    let idle = worker.timers().now().after_opt(manager.config.timeouts.idle);
    poll_fn(|cx| {
        loop {
            let known = first.len().min(PREFACE.len());
            if first[..known] != PREFACE[..known] {
                return Poll::Ready(Some(false));
            }
            if known == PREFACE.len() {
                return Poll::Ready(Some(true));
            }
            match worker.with_scratch(|scratch| io.poll_read(cx, scratch, first)) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(n)) => manager.stats.downstream_cx_rx_bytes_total().add(n as u64),
                Poll::Pending => {
                    return alarm.poll(idle, cx).map(|()| {
                        manager.stats.downstream_cx_idle_timeout().inc();
                        None
                    });
                }
            }
        }
    })
    .await
}

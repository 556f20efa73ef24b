//! A downstream HTTP/2 connection: accepts streams, each a task of its own, until either side ends it.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use h2::Reason;

use super::codec::h2::ServerConnection;
use super::manager::{Connection, Manager};
use super::stream::{self, Incoming};
use crate::transport::Io;
use crate::worker::timer::Tick;

/// How a connection is ended from this side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOAWAY was sent; streams in flight finish.
    Draining,
}

/// Serves the connection to its end; says whether the peer ended it.
pub(super) async fn serve(manager: &Rc<Manager>, connection: &Rc<Connection>, io: Io) -> bool {
    let timers = manager.worker.timers();
    let alarm = timers.alarm();
    let mut h2 = ServerConnection::new(io, &manager.h2_options);
    let opened = timers.now();
    let mut idle_since = opened;
    let max_duration = opened.after_opt(manager.config.timeouts.max_connection_duration);
    let mut phase = Phase::Open;
    let mut by_us = false;
    let mut give_up = Tick::NEVER;
    poll_fn(|cx| {
        connection.watch_drain(cx);
        loop {
            match h2.poll_accept(cx) {
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() || error.reason().is_some_and(|r| r != Reason::NO_ERROR) {
                        manager.stats.downstream_cx_protocol_error().inc();
                        manager.http2_stats.rx_messaging_error().inc();
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(Some(Ok(Ok((head, mut exchange))))) => {
                    manager.http2_stats.streams_active().inc();
                    let (manager, connection) = (Rc::clone(manager), Rc::clone(connection));
                    tokio::task::spawn_local(async move {
                        let alarm = manager.worker.timers().alarm();
                        let expects_continue = head
                            .headers
                            .value(&filters::http::Known::Expect)
                            .is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
                        let incoming = Incoming { head, began: Instant::now(), expects_continue };
                        stream::serve(&manager, &connection, &alarm, &mut exchange, incoming).await;
                        // Dropped before its request is complete, the stream ends with RST_STREAM(NO_ERROR) once the
                        // response is written (RFC 9113 section 8.1).
                        drop(exchange);
                        manager.http2_stats.streams_active().dec();
                        connection.stream_ended();
                    });
                }
                Poll::Ready(Some(Ok(Err(_)))) => {
                    manager.http2_stats.rx_messaging_error().inc();
                }
                Poll::Pending => break,
            }
        }
        if connection.active.get() > 0 {
            idle_since = timers.now();
        }
        loop {
            if phase == Phase::Open && connection.draining.get() {
                phase = Phase::Draining;
                by_us = true;
                manager.http2_stats.goaway_sent().inc();
                h2.graceful_shutdown();
                give_up = timers.now().after(manager.config.timeouts.drain).after(manager.config.timeouts.drain);
                cx.waker().wake_by_ref();
            }
            let idle = idle_since.after_opt(manager.config.timeouts.idle);
            let idle = if connection.active.get() > 0 { Tick::NEVER } else { idle };
            let next = match phase {
                Phase::Open => idle.min(max_duration),
                Phase::Draining => {
                    if connection.active.get() > 0 {
                        Tick::NEVER
                    } else {
                        give_up
                    }
                }
            };
            if alarm.poll(next, cx).is_pending() {
                return Poll::Pending;
            }
            if phase == Phase::Draining {
                return Poll::Ready(());
            }
            let now = timers.now();
            if idle <= now {
                manager.stats.downstream_cx_idle_timeout().inc();
                connection.draining.set(true);
            } else if max_duration <= now {
                manager.stats.downstream_cx_max_duration_reached().inc();
                connection.draining.set(true);
            }
        }
    })
    .await;
    !by_us
}

//! HTTP/1 connections at rest: taken last in, first out, and listened to by the pool's keeper.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Http1Connection, Pool};
use crate::worker::timer::Tick;

/// How to reach the task that listens to idle connections.
pub(super) struct Keeper {
    pub(super) waker: Waker,
    /// When it looks again by itself.
    looks: Tick,
}

pub(super) struct Idle {
    pub(super) connection: Box<Http1Connection>,
    until: Tick,
}

impl Pool {
    /// Puts a connection to rest until it is needed, speaks, or has idled too long.
    pub(super) fn park(self: &Rc<Self>, connection: Box<Http1Connection>) {
        if self.draining.get() {
            return self.close_http1(connection);
        }
        let idle_timeout = self.context.config.http.common.idle_timeout;
        let until = self.context.worker.timers().recent().after_opt(idle_timeout).min(connection.expires());
        let mut state = self.state.borrow_mut();
        state.idle.push(Idle { connection, until });
        let Some(keeper) = &state.keeper else {
            drop(state);
            self.start_keeper();
            return;
        };
        let Some(idle) = state.idle.last() else { return };
        // Registers the keeper for whatever the connection says; what it already said makes the keeper look now.
        let said = idle.connection.io.poll_read_ready(&mut Context::from_waker(&keeper.waker)).is_ready();
        if said || until < keeper.looks {
            keeper.waker.wake_by_ref();
        }
    }

    /// The most recently used idle connection that is still silent.
    pub(super) fn take_idle(self: &Rc<Self>) -> Option<Box<Http1Connection>> {
        loop {
            let mut idle = self.state.borrow_mut().idle.pop()?;
            if idle.connection.has_expired() {
                self.close_http1(idle.connection);
                continue;
            }
            let noop = Waker::noop();
            let ready = idle.connection.io.poll_read_ready(&mut Context::from_waker(noop)).is_ready();
            let Some(said) = ready.then(|| idle.connection.io.disturbance()).flatten() else {
                return Some(idle.connection);
            };
            self.close_disturbed(idle.connection, &said);
        }
    }

    /// Closes a connection that said this though nobody asked: nothing is its end. A late `408 Request Timeout` is how
    /// some servers say good-bye.
    fn close_disturbed(&self, mut connection: Box<Http1Connection>, said: &[u8]) {
        connection.closed_by_peer = said.is_empty();
        if !said.is_empty() && !said.starts_with(b"HTTP/1.1 408") {
            self.context.stats.upstream_cx_protocol_error().inc();
        }
        self.close_http1(connection);
    }

    /// One task per pool listens to all its idle connections.
    fn start_keeper(self: &Rc<Self>) {
        let pool = Rc::downgrade(self);
        let alarm = self.context.worker.timers().alarm();
        // Until it runs there is nobody to wake, and nobody else to start; it begins by looking.
        self.state.borrow_mut().keeper = Some(Keeper { waker: Waker::noop().clone(), looks: Tick::NEVER });
        tokio::task::spawn_local(poll_fn(move |cx| {
            let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
            if pool.draining.get() {
                return Poll::Ready(());
            }
            loop {
                let now = pool.context.worker.timers().now();
                let mut leaving = Vec::new();
                let mut next = Tick::NEVER;
                {
                    let mut state = pool.state.borrow_mut();
                    let mut index = 0;
                    while index < state.idle.len() {
                        let idle = &mut state.idle[index];
                        let expired = idle.until <= now;
                        let mut said = None;
                        while said.is_none() && !expired && idle.connection.io.poll_read_ready(cx).is_ready() {
                            // Readiness may be left over from the last exchange; asking the socket settles it.
                            said = idle.connection.io.disturbance();
                        }
                        if expired || said.is_some() {
                            leaving.push((state.idle.remove(index).connection, said));
                        } else {
                            next = next.min(idle.until);
                            index += 1;
                        }
                    }
                }
                for (connection, said) in leaving {
                    if let Some(said) = said {
                        pool.close_disturbed(connection, &said);
                    } else {
                        if !connection.has_expired() {
                            pool.context.stats.upstream_cx_idle_timeout().inc();
                        }
                        pool.close_http1(connection);
                    }
                }
                if alarm.poll(next, cx).is_pending() {
                    let keeper = Keeper { waker: cx.waker().clone(), looks: alarm.rings() };
                    pool.state.borrow_mut().keeper = Some(keeper);
                    return Poll::Pending;
                }
            }
        }));
    }
}

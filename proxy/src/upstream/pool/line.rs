//! Requests that wait for a connection, oldest first.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Lease, Pool};
use crate::upstream::breaker::Permit;
use crate::upstream::cluster::ClusterContext;
use crate::upstream::failure::UpstreamFailure;

/// A request in line.
pub(super) struct Waiter {
    outcome: RefCell<Option<Result<Lease, UpstreamFailure>>>,
    waker: RefCell<Option<Waker>>,
    /// Until the wait is over, whether or not the request has learnt of it.
    counted: RefCell<Option<Counted>>,
}

/// Counts a request in line until it is dropped.
struct Counted {
    context: Rc<ClusterContext>,
    _permit: Permit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.context.stats.upstream_rq_pending_active().dec();
    }
}

impl Waiter {
    fn new(context: &Rc<ClusterContext>, permit: Permit) -> Self {
        context.stats.upstream_rq_pending_total().inc();
        context.stats.upstream_rq_pending_active().inc();
        let counted = Counted { context: Rc::clone(context), _permit: permit };
        Self { outcome: RefCell::default(), waker: RefCell::default(), counted: RefCell::new(Some(counted)) }
    }

    /// The wait is over.
    pub(super) fn resolve(&self, outcome: Result<Lease, UpstreamFailure>) {
        self.counted.borrow_mut().take();
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<Lease, UpstreamFailure>> {
        if let Some(outcome) = self.outcome.borrow_mut().take() {
            return Poll::Ready(outcome);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A request's place in line; leaving it by any way keeps the line and the counts right.
pub(super) struct PlaceInLine {
    pool: Rc<Pool>,
    pub(super) waiter: Rc<Waiter>,
}

impl PlaceInLine {
    /// The last place.
    pub(super) fn new(pool: &Rc<Pool>, permit: Permit) -> Self {
        let waiter = Rc::new(Waiter::new(&pool.context, permit));
        pool.state.borrow_mut().waiters.push_back(Rc::clone(&waiter));
        Self { pool: Rc::clone(pool), waiter }
    }
}

impl Drop for PlaceInLine {
    fn drop(&mut self) {
        let mut state = self.pool.state.borrow_mut();
        if let Some(at) = state.waiters.iter().position(|w| Rc::ptr_eq(w, &self.waiter)) {
            state.waiters.remove(at);
            self.waiter.counted.borrow_mut().take();
            self.pool.context.stats.upstream_rq_cancelled().inc();
        }
        drop(state);
        // Resolved but never taken: the connection goes back unused.
        let unclaimed = self.waiter.outcome.borrow_mut().take();
        if let Some(Ok(Lease::Http1(lease))) = unclaimed {
            lease.release_unused();
        }
        self.pool.settle();
    }
}

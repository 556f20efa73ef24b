//! Timers of one worker: exact to a millisecond, and nearly free to move.
//!
//! A task owns one [`Alarm`] and asks it for the *earliest* of all its deadlines. An alarm that already rings at or
//! before that moment is left alone: when it rings too early the task looks at its deadlines again and re-arms. A
//! request that sets a 15 s timeout and finishes in a millisecond therefore costs one comparison, since the alarm of
//! the request before it still stands; the price is one spurious wake per timeout period and connection.
//!
//! One tokio timer is armed per worker, for the earliest alarm of all.
//!
//! Asking the system for the time costs more than most steps of a request, which would ask two dozen times. A stream
//! asks once whenever it is woken ([`Timers::turn`]); until it waits again, that moment ([`Timers::recent`]) is now.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;

/// A moment on this worker's clock: milliseconds since the worker started. Compare and add freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// A deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `after` this one; a duration is rounded up to whole milliseconds, so nothing fires early.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        let up = after.as_millis() + u128::from(!after.subsec_nanos().is_multiple_of(1_000_000));
        Self(self.0.saturating_add(u64::try_from(up).unwrap_or(u64::MAX)))
    }

    /// Like [`Self::after`] for an optional duration; `None` never comes.
    #[must_use]
    pub fn after_opt(self, after: Option<Duration>) -> Self {
        after.map_or(Self::NEVER, |after| self.after(after))
    }
}

/// The clock and the alarms of one worker.
pub struct Timers {
    clock: Clock,
    epoch: Instant,
    /// The last moment anyone asked for.
    recent: Cell<(Instant, Tick)>,
    /// The wall clock, looked at once a second.
    wall: Cell<(Instant, SystemTime)>,
    state: RefCell<State>,
}

/// Where the time comes from.
enum Clock {
    System,
    /// A test turns it.
    #[cfg(test)]
    Manual(Cell<Instant>),
}

impl Clock {
    fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(test)]
            Self::Manual(now) => now.get(),
        }
    }

    /// Whether the runtime's timers know when an alarm is due.
    const fn is_real(&self) -> bool {
        matches!(self, Self::System)
    }
}

struct State {
    /// Entries are not removed when an alarm moves: an entry counts only if it is the alarm's current one.
    heap: BinaryHeap<Reverse<(Tick, usize)>>,
    alarms: Slab<Slot>,
    /// What the driver sleeps until.
    armed: Tick,
    driver: Option<Waker>,
}

struct Slot {
    rings: Tick,
    waker: Option<Waker>,
}

impl Timers {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Self::by(Clock::System)
    }

    fn by(clock: Clock) -> Rc<Self> {
        let epoch = clock.now();
        Rc::new(Self {
            clock,
            epoch,
            recent: Cell::new((epoch, Tick(0))),
            wall: Cell::new((epoch, SystemTime::now())),
            state: RefCell::new(State {
                heap: BinaryHeap::new(),
                alarms: Slab::new(),
                armed: Tick::NEVER,
                driver: None,
            }),
        })
    }

    /// The current moment, rounded down to a millisecond.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.turn();
        self.recent()
    }

    /// The current moment, to be remembered: a task that was woken begins its turn.
    pub fn turn(&self) -> Instant {
        let now = self.clock.now();
        self.recent.set((now, self.tick(now)));
        now
    }

    /// When this turn began, rounded down to a millisecond.
    #[must_use]
    pub fn recent(&self) -> Tick {
        self.recent.get().1
    }

    /// When this turn began.
    #[must_use]
    pub fn recent_instant(&self) -> Instant {
        self.recent.get().0
    }

    /// When this turn began by the wall clock; a clock that is set is followed within a second.
    #[must_use]
    pub fn recent_wall(&self) -> SystemTime {
        let now = self.recent_instant();
        let (looked, wall) = self.wall.get();
        let since = now.saturating_duration_since(looked);
        if since < Duration::from_secs(1) {
            return wall + since;
        }
        let wall = SystemTime::now();
        self.wall.set((now, wall));
        wall
    }

    /// A moment of the process clock on this worker's clock.
    #[must_use]
    pub fn tick(&self, at: Instant) -> Tick {
        Tick(u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX))
    }

    /// A new alarm, not armed.
    #[must_use]
    pub fn alarm(self: &Rc<Self>) -> Alarm {
        let slot = self.state.borrow_mut().alarms.insert(Slot { rings: Tick::NEVER, waker: None });
        Alarm { timers: Rc::clone(self), slot }
    }

    /// Waits until a moment.
    pub async fn sleep_until(self: &Rc<Self>, at: Tick) {
        let alarm = self.alarm();
        poll_fn(|cx| alarm.poll(at, cx)).await;
    }

    /// Rings alarms; runs as a task of the worker for as long as it lives.
    pub async fn drive(self: Rc<Self>) {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            loop {
                let next = self.ring(cx);
                if next == Tick::NEVER || !self.clock.is_real() {
                    return Poll::<()>::Pending;
                }
                sleep.as_mut().reset(tokio::time::Instant::from_std(self.epoch + Duration::from_millis(next.0)));
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Wakes whoever is due; returns the next moment to look again and remembers the driver's waker.
    fn ring(&self, cx: &Context<'_>) -> Tick {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if !state.driver.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        while let Some(&Reverse((at, slot))) = state.heap.peek() {
            let current = state.alarms.get_mut(slot).filter(|alarm| alarm.rings == at);
            if current.is_some() && at > now {
                state.armed = at;
                return at;
            }
            if let Some(alarm) = current {
                alarm.rings = Tick::NEVER;
                if let Some(waker) = &alarm.waker {
                    waker.wake_by_ref();
                }
            }
            state.heap.pop();
        }
        state.armed = Tick::NEVER;
        Tick::NEVER
    }
}

#[cfg(test)]
impl Timers {
    /// A clock that only [`Self::advance`] moves.
    pub(crate) fn manual() -> Rc<Self> {
        Self::by(Clock::Manual(Cell::new(Instant::now())))
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: Duration) {
        if let Clock::Manual(now) = &self.clock {
            now.set(now.get() + by);
        }
        if let Some(driver) = &self.state.borrow().driver {
            driver.wake_by_ref();
        }
    }
}

/// One task's alarm. See the module's documentation for how to use it.
pub struct Alarm {
    timers: Rc<Timers>,
    slot: usize,
}

impl Alarm {
    /// When the task is woken next, if nothing else wakes it.
    #[must_use]
    pub fn rings(&self) -> Tick {
        self.timers.state.borrow().alarms.get(self.slot).map_or(Tick::NEVER, |alarm| alarm.rings)
    }

    /// Ready once `deadline` has come; otherwise the task is woken no later than then.
    pub fn poll(&self, deadline: Tick, cx: &Context<'_>) -> Poll<()> {
        if deadline == Tick::NEVER {
            return Poll::Pending;
        }
        // Cheap case first: the alarm stands, rings early enough, and the task is the same.
        let mut state = self.timers.state.borrow_mut();
        let state = &mut *state;
        let Some(alarm) = state.alarms.get_mut(self.slot) else { return Poll::Pending };
        if alarm.rings <= deadline && alarm.rings != Tick::NEVER {
            if !alarm.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                alarm.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if deadline <= self.timers.now() {
            return Poll::Ready(());
        }
        alarm.rings = deadline;
        alarm.waker = Some(cx.waker().clone());
        state.heap.push(Reverse((deadline, self.slot)));
        if deadline < state.armed
            && let Some(driver) = &state.driver
        {
            driver.wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Ok(mut state) = self.timers.state.try_borrow_mut() {
            state.alarms.remove(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn on_worker<F: Future>(f: impl FnOnce(Rc<Timers>) -> F) -> F::Output {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let timers = Timers::new();
            tokio::task::spawn_local(Rc::clone(&timers).drive());
            f(timers).await
        })
    }

    #[test]
    fn deadlines_round_up_and_never_stays_never() {
        let zero = Tick(0);
        assert_eq!(zero.after(Duration::from_micros(1)), Tick(1));
        assert_eq!(zero.after(Duration::from_millis(5)), Tick(5));
        assert_eq!(zero.after_opt(None), Tick::NEVER);
        assert_eq!(Tick::NEVER.after(Duration::from_secs(1)), Tick::NEVER);
    }

    #[test]
    fn a_turn_stands_still_until_the_next() {
        let timers = Timers::new();
        let first = timers.turn();
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!((timers.recent_instant(), timers.recent()), (first, timers.tick(first)));
        let wall = timers.recent_wall();
        assert!(timers.now() >= timers.tick(first).after(Duration::from_millis(3)));
        let passed = timers.recent_wall().duration_since(wall).unwrap();
        assert_eq!(passed, timers.recent_instant() - first);
    }

    #[test]
    fn alarms_ring_in_order_and_not_early() {
        on_worker(|timers| async move {
            let start = Instant::now();
            timers.sleep_until(timers.now().after(Duration::from_millis(20))).await;
            assert!(start.elapsed() >= Duration::from_millis(19), "{:?}", start.elapsed());
        });
    }

    #[test]
    fn a_later_deadline_reuses_the_standing_alarm() {
        on_worker(|timers| async move {
            let alarm = timers.alarm();
            let first = timers.now().after(Duration::from_millis(20));
            let mut polls = 0;
            // Far enough behind that a busy machine does not wake it for both at once.
            let until = timers.now().after(Duration::from_millis(500));
            poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    assert!(alarm.poll(first, cx).is_pending());
                }
                alarm.poll(until, cx)
            })
            .await;
            assert!(polls >= 3, "the early ring is seen as a spurious wake, then re-armed: {polls}");
            assert_eq!(timers.state.borrow().heap.len(), 0);
        });
    }

    #[test]
    fn dropped_alarms_leave_nothing_that_rings() {
        on_worker(|timers| async move {
            let alarm = timers.alarm();
            poll_fn(|cx| {
                let _ = alarm.poll(timers.now().after(Duration::from_millis(3)), cx);
                Poll::Ready(())
            })
            .await;
            drop(alarm);
            timers.sleep_until(timers.now().after(Duration::from_millis(10))).await;
            assert_eq!(timers.state.borrow().heap.len(), 0);
        });
    }
}

//! Watches that threads go on: a thread whose pulse stands still is counted, as Envoy counts what its guard dog misses.
//!
//! A thread of its own looks at what the runtimes of the others count. A thread that waits for something to do is well, for
//! however long. Nothing is killed: what a thread is stuck in would be lost with it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stats::{SharedCounter, Store};

use crate::observe::threads::{Beat, Pulse};

/// Between two looks at the pulses.
const LOOK: Duration = Duration::from_millis(200);

/// Envoy's default for `miss_timeout`.
const MISS: Duration = Duration::from_millis(200);

/// Envoy's default for `megamiss_timeout`.
const MEGA_MISS: Duration = Duration::from_millis(1000);

/// Starts to watch the main thread and the workers, for as long as the process lives.
///
/// # Errors
/// When the operating system gives no thread.
pub(super) fn start(store: &Arc<Store>, main: Pulse, workers: &[Pulse]) -> io::Result<()> {
    let now = Instant::now();
    let mut watched = vec![Watched::new(store, "main_thread", "main_thread", main, now)];
    for (index, pulse) in workers.iter().enumerate() {
        watched.push(Watched::new(store, "workers", &format!("worker_{index}"), pulse.clone(), now));
    }
    std::thread::Builder::new().name("dog:guard".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            let now = Instant::now();
            watched.iter_mut().for_each(|thread| thread.look(now));
        }
    })?;
    Ok(())
}

/// A thread under watch.
struct Watched {
    pulse: Pulse,
    state: State,
    /// Of the threads of its kind, and its own.
    miss: [SharedCounter; 2],
    mega_miss: [SharedCounter; 2],
}

impl Watched {
    fn new(store: &Arc<Store>, kind: &str, name: &str, pulse: Pulse, now: Instant) -> Self {
        let counters =
            |what: &str| [format!("{kind}.{what}"), format!("server.{name}.{what}")].map(|n| store.counter(&n));
        Self {
            state: State::new(pulse.beat(), now),
            pulse,
            miss: counters("watchdog_miss"),
            mega_miss: counters("watchdog_mega_miss"),
        }
    }

    fn look(&mut self, now: Instant) {
        let found = self.state.look(self.pulse.beat(), now);
        if found.miss {
            self.miss.iter().for_each(SharedCounter::inc);
        }
        if found.mega_miss {
            self.mega_miss.iter().for_each(SharedCounter::inc);
        }
    }
}

/// When a pulse last changed, and what was made of that.
struct State {
    beat: Beat,
    since: Instant,
    missed: bool,
    mega_missed: bool,
}

/// What a look found out that was not known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    miss: bool,
    mega_miss: bool,
}

impl State {
    const fn new(beat: Beat, now: Instant) -> Self {
        Self { beat, since: now, missed: false, mega_missed: false }
    }

    fn look(&mut self, beat: Beat, now: Instant) -> Found {
        if beat.idle || beat != self.beat {
            *self = Self::new(beat, now);
            return Found::default();
        }
        let still = now.saturating_duration_since(self.since);
        let missed = still >= MISS && !self.missed;
        let mega_missed = still >= MEGA_MISS && !self.mega_missed;
        self.missed |= missed;
        self.mega_missed |= mega_missed;
        Found { miss: missed, mega_miss: mega_missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that is looked at while it idles, works, and hangs.
    #[test]
    fn a_thread_that_hangs_is_missed_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = Store::new(3, stats::StoreOptions::default());
        let (start, pulse) = (Instant::now(), Pulse::default());
        let at = |millis| start + Duration::from_millis(millis);
        let mut watched = Watched::new(&store, "workers", "worker_1", pulse.clone(), start);
        let mut look = |millis| {
            watched.look(at(millis));
            (watched.miss[1].value(), watched.mega_miss[1].value())
        };
        assert_eq!(look(5000), (0, 0), "it has not begun");
        runtime.block_on(async {
            pulse.begin();
            assert_eq!(look(5100), (0, 0), "this is its first turn");
            assert_eq!(look(5299), (0, 0));
            assert_eq!(look(5300), (1, 0));
            assert_eq!(look(5400), (1, 0));
            assert_eq!(look(6100), (1, 1));
            assert_eq!(look(9000), (1, 1));
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert_eq!(look(9100), (1, 1), "another turn");
            assert_eq!(look(9400), (2, 1));
        });
        let text = stats::render_text(&store, &stats::Query::parse("").unwrap());
        for line in ["workers.watchdog_miss: 2", "workers.watchdog_mega_miss: 1", "server.worker_1.watchdog_miss: 2"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_thread_without_work_is_not_missed() {
        let pulse = Pulse::default();
        let (hear, heard) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn({
            let pulse = pulse.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    pulse.begin();
                    hear.send(()).unwrap();
                    stopped.await.unwrap();
                });
            }
        });
        heard.recv().unwrap();
        let patience = Instant::now() + Duration::from_secs(10);
        while !pulse.beat().idle {
            assert!(Instant::now() < patience, "it never was idle");
            std::thread::yield_now();
        }
        let mut state = State::new(pulse.beat(), Instant::now());
        assert_eq!(state.look(pulse.beat(), Instant::now() + Duration::from_secs(60)), Found::default());
        stop.send(()).unwrap();
        thread.join().unwrap();
    }
}

//! When this machine had no time for the drill: what a busy machine does to a request is nobody's fault.
//!
//! Two things are watched. How late this process runs shows whether hosts and clients could act; what the kernel counts
//! as time that the proxy's threads were ready to run and did not (`/proc/PID/task/TID/schedstat`) shows whether the proxy
//! could. Time that a proxy spends on something else than its requests is not excused by either.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(25);
/// Less is what timers and schedulers always take.
const USUAL: Duration = Duration::from_millis(5);

/// What was seen. One for each run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Up to when how much time was lost since the look before, in ascending order.
    lost: RefCell<Vec<(Duration, Duration)>>,
}

impl Watch {
    /// Watches this process and `proxy` for ever. Times count from `begun`.
    pub(super) async fn keep(&self, proxy: u32, begun: Instant) {
        let mut waited = HashMap::new();
        let mut last = Instant::now();
        loop {
            sleep(INTERVAL).await;
            let late = last.elapsed().saturating_sub(INTERVAL);
            last = Instant::now();
            let kept_waiting = longest_wait(proxy, &mut waited);
            self.saw(begun.elapsed(), late.max(kept_waiting));
        }
    }

    /// So much was lost up to `at`.
    pub(super) fn saw(&self, at: Duration, lost: Duration) {
        if lost > USUAL {
            self.lost.borrow_mut().push((at, lost));
        }
    }

    /// The most that was lost in any time of this length.
    pub(super) fn worst(&self, length: Duration) -> Duration {
        let lost = self.lost.borrow();
        let until = |end: usize| {
            let (last, _) = lost.get(end).copied().unwrap_or_default();
            let within = lost.iter().take(end + 1).rev().take_while(|(at, _)| *at + length >= last);
            within.map(|(_, lost)| *lost).sum()
        };
        (0..lost.len()).map(until).max().unwrap_or_default()
    }

    /// How much time was lost between two times.
    pub(super) fn lost_between(&self, from: Duration, until: Duration) -> Duration {
        let lost = self.lost.borrow();
        // What was lost before a look was lost after the look before that, which was late itself.
        let within = lost.iter().filter(|(at, lost)| *at >= from && at.saturating_sub(*lost + INTERVAL) <= until);
        within.map(|(_, lost)| *lost).sum()
    }
}

/// The longest that a thread of a process was kept waiting for a processor since the last call.
fn longest_wait(process: u32, before: &mut HashMap<String, u64>) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut longest = 0;
    for thread in threads {
        let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let Some(waited) = text.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()) else { continue };
        let name = thread.file_name().to_string_lossy().into_owned();
        let before = before.insert(name, waited).unwrap_or(waited);
        longest = longest.max(waited.saturating_sub(before));
    }
    Duration::from_nanos(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_counts_where_it_was_lost() {
        let ms = Duration::from_millis;
        let watch = Watch::default();
        watch.saw(ms(1000), ms(3));
        watch.saw(ms(2000), ms(200));
        watch.saw(ms(2100), ms(50));
        assert_eq!(watch.lost_between(ms(0), ms(1500)), Duration::ZERO);
        assert_eq!(watch.lost_between(ms(1500), ms(2500)), ms(250));
        assert_eq!(watch.lost_between(ms(1850), ms(1900)), ms(200));
        assert_eq!(watch.lost_between(ms(2050), ms(2500)), ms(50));
        assert_eq!(watch.lost_between(ms(2200), ms(2500)), Duration::ZERO);
    }

    #[test]
    fn the_worst_is_what_was_lost_within_a_time() {
        let ms = Duration::from_millis;
        let watch = Watch::default();
        assert_eq!(watch.worst(ms(500)), ms(0));
        for (at, lost) in [(1000, 80), (1400, 70), (1600, 60), (3000, 100)] {
            watch.saw(ms(at), ms(lost));
        }
        assert_eq!(watch.worst(ms(500)), ms(150));
        assert_eq!(watch.worst(ms(600)), ms(210));
        assert_eq!(watch.worst(ms(10)), ms(100));
    }

    #[test]
    fn a_process_has_threads_that_wait_or_not() {
        let mut before = HashMap::new();
        assert_eq!(longest_wait(std::process::id(), &mut before), Duration::ZERO);
        let known = std::path::Path::new("/proc/self/schedstat").exists();
        assert_eq!(before.is_empty(), !known);
    }
}

//! What to do when `accept` fails.

use std::io;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Pauses that grow while `accept` keeps failing for want of something, so that a process out of descriptors does not
/// spin on a socket that stays readable.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to pause after `error`; `None` when it only concerned the one connection.
    pub(super) fn after(&mut self, error: &io::Error) -> Option<Duration> {
        if concerns_one_connection(error) {
            return None;
        }
        let pause = self.last.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.last = Some(pause);
        Some(pause)
    }

    /// A connection was accepted.
    pub(super) const fn reset(&mut self) {
        self.last = None;
    }
}

/// accept(2): these are errors of the connection, already gone, and the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_pauses_longer_and_longer_until_it_passes() {
        let mut backoff = Backoff::default();
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        let pauses: Vec<_> = (0..9).filter_map(|_| backoff.after(&full)).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.after(&full), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_client_that_left_costs_no_pause() {
        let gone = io::Error::from_raw_os_error(libc::ECONNABORTED);
        assert_eq!(Backoff::default().after(&gone), None);
    }
}

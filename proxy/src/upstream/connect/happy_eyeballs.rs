//! Several addresses of one host, and which of them answers first (RFC 8305).
//!
//! Families take turns, the first address's family first. The next address is tried when the one before has failed, or has
//! not answered for a while; what connects first is used, and the attempts that are left are dropped.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::worker::timer::Timers;

/// How long an address may take before the next one is tried beside it.
const NEXT: Duration = Duration::from_millis(300);

/// The addresses in the order in which they are tried.
pub(super) fn order(first: SocketAddr, others: &[SocketAddr]) -> Vec<SocketAddr> {
    let all = || std::iter::once(first).chain(others.iter().copied());
    let mut same = all().filter(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = all().filter(|address| address.is_ipv4() != first.is_ipv4());
    let mut ordered = Vec::with_capacity(1 + others.len());
    loop {
        let turn = (same.next(), other.next());
        ordered.extend(turn.0.into_iter().chain(turn.1));
        if turn == (None, None) {
            return ordered;
        }
    }
}

/// The first of the addresses that connects; the error of the last one if none does.
pub(super) async fn race<T, F: Future<Output = io::Result<T>>>(
    timers: &Rc<Timers>,
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut waiting = addresses.into_iter();
    let mut attempts: Vec<Pin<Box<F>>> = Vec::new();
    let alarm = timers.alarm();
    let mut next_at = timers.now();
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    poll_fn(|cx| {
        loop {
            let (mut winner, mut failed) = (None, false);
            attempts.retain_mut(|attempt| {
                if winner.is_some() {
                    return true;
                }
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(stream)) => winner = Some(stream),
                    Poll::Ready(Err(reason)) => (error, failed) = (reason, true),
                }
                false
            });
            if let Some(stream) = winner {
                return Poll::Ready(Ok(stream));
            }
            let due = failed || attempts.is_empty() || (waiting.len() > 0 && alarm.poll(next_at, cx).is_ready());
            let Some(address) = due.then(|| waiting.next()).flatten() else {
                if attempts.is_empty() {
                    return Poll::Ready(Err(std::mem::replace(&mut error, io::ErrorKind::Other.into())));
                }
                return Poll::Pending;
            };
            attempts.push(Box::pin(connect(address)));
            next_at = timers.now().after(NEXT);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_and_what_is_left_follows() {
        let [a, b, c] = ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"].map(address);
        let [x, y] = ["[::1]:1", "[::2]:1"].map(address);
        assert_eq!(order(a, &[b, c]), [a, b, c]);
        assert_eq!(order(x, &[y, a, b]), [x, a, y, b]);
        assert_eq!(order(a, &[x, y]), [a, x, y]);
        assert_eq!(order(a, &[b, c, x]), [a, x, b, c]);
    }
}

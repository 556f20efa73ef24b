//! What was really the case: the state of every host over time, and every try that reached one. The judge goes by this,
//! not by what was planned.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::plan::HostId;

/// The request a try is of.
pub(super) type RequestId = u64;

/// A try that reached a host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Try {
    pub(super) request: RequestId,
    pub(super) host: HostId,
    /// When its head had come.
    pub(super) at: Duration,
    pub(super) did: Did,
}

/// What a host did to a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// It had the head; the connection ended before it did anything.
    Begun,
    /// It answered well, and wrote all of it.
    Answered,
    /// What its fault says.
    Failed(Fault),
    /// The body was not the one that was sent.
    Mangled,
}

/// What a host was.
#[derive(Clone, Debug, Default)]
pub(super) struct Biography {
    /// Where it was, once it was somewhere.
    pub(super) address: Option<SocketAddr>,
    /// When which fault began, or ended.
    pub(super) faults: Vec<(Duration, Option<Fault>)>,
    /// When it was taken out of the endpoints, or put in again.
    pub(super) assigned: Vec<(Duration, bool)>,
}

/// All of it. One for each run.
#[derive(Debug)]
pub(super) struct Diary {
    begun: Instant,
    tries: RefCell<Vec<Try>>,
    hosts: RefCell<Vec<Biography>>,
}

/// A try in the diary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry(usize);

impl Diary {
    /// An empty one of so many hosts; time counts from now.
    pub(super) fn new(hosts: usize) -> Self {
        let hosts = vec![Biography { assigned: vec![(Duration::ZERO, true)], ..Biography::default() }; hosts];
        Self { begun: Instant::now(), tries: RefCell::default(), hosts: RefCell::new(hosts) }
    }

    /// When time began.
    pub(super) const fn begun(&self) -> Instant {
        self.begun
    }

    /// A host is there.
    pub(super) fn settled(&self, host: HostId, address: SocketAddr) {
        if let Some(host) = self.hosts.borrow_mut().get_mut(host) {
            host.address = Some(address);
        }
    }

    /// A try has reached a host.
    pub(super) fn arrived(&self, request: RequestId, host: HostId) -> Entry {
        let mut tries = self.tries.borrow_mut();
        tries.push(Try { request, host, at: self.begun.elapsed(), did: Did::Begun });
        Entry(tries.len() - 1)
    }

    /// The host has done this to it.
    pub(super) fn done(&self, entry: Entry, did: Did) {
        if let Some(entry) = self.tries.borrow_mut().get_mut(entry.0) {
            entry.did = did;
        }
    }

    /// A host is well, or not.
    pub(super) fn became(&self, host: HostId, fault: Option<Fault>) {
        if let Some(host) = self.hosts.borrow_mut().get_mut(host) {
            host.faults.push((self.begun.elapsed(), fault));
        }
    }

    /// The endpoints are these.
    pub(super) fn assigned(&self, hosts: &[HostId]) {
        let now = self.begun.elapsed();
        for (number, host) in self.hosts.borrow_mut().iter_mut().enumerate() {
            let is = hosts.contains(&number);
            if host.assigned.last().is_none_or(|(_, was)| *was != is) {
                host.assigned.push((now, is));
            }
        }
    }

    /// What stands in it.
    pub(super) fn take(&self) -> (Vec<Try>, Vec<Biography>) {
        (self.tries.take(), self.hosts.borrow().clone())
    }
}

impl Biography {
    /// The faults it had at some time between `from` and `until`.
    pub(super) fn faults_between(&self, from: Duration, until: Duration) -> impl Iterator<Item = Fault> {
        let ends = self.faults.iter().skip(1).map(|(at, _)| *at).chain([Duration::MAX]);
        self.faults
            .iter()
            .zip(ends)
            .filter(move |((begin, _), end)| *begin <= until && from < *end)
            .filter_map(|((_, fault), _)| *fault)
    }

    /// Whether it was among the endpoints at some time between `from` and `until`.
    pub(super) fn assigned_between(&self, from: Duration, until: Duration) -> bool {
        let ends = self.assigned.iter().skip(1).map(|(at, _)| *at).chain([Duration::MAX]);
        self.assigned.iter().zip(ends).any(|((begin, is), end)| *is && *begin <= until && from < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_biography_knows_what_was_when() {
        let s = Duration::from_secs;
        let host = Biography {
            address: None,
            faults: vec![(s(2), Some(Fault::Killed)), (s(4), None), (s(6), Some(Fault::Stalled)), (s(8), None)],
            assigned: vec![(s(0), true), (s(3), false), (s(5), true)],
        };
        let faults = |from, until| host.faults_between(s(from), s(until)).collect::<Vec<_>>();
        assert_eq!(faults(0, 1), []);
        assert_eq!(faults(1, 3), [Fault::Killed]);
        assert_eq!(faults(4, 5), []);
        assert_eq!(faults(3, 7), [Fault::Killed, Fault::Stalled]);
        assert_eq!(faults(9, 10), []);
        let assigned = |from, until| host.assigned_between(s(from), s(until));
        assert!(assigned(0, 1) && assigned(2, 4) && assigned(4, 5) && assigned(7, 9));
        assert!(!assigned(3, 4));
    }
}

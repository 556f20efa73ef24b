//! Deadlines of resources that live only as long as the control plane confirms them (`Resource.ttl`).

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The resources of one type that have a TTL.
#[derive(Debug, Default)]
pub(crate) struct TtlTable {
    deadlines: HashMap<String, Instant>,
    order: BTreeSet<(Instant, String)>,
}

impl TtlTable {
    /// (Re)starts or, without a TTL, forgets the deadline of a resource.
    pub(crate) fn set(&mut self, name: &str, ttl: Option<Duration>, now: Instant) {
        self.remove(name);
        // A TTL too long for the clock is no TTL.
        if let Some(deadline) = ttl.and_then(|ttl| now.checked_add(ttl)) {
            self.deadlines.insert(name.to_owned(), deadline);
            self.order.insert((deadline, name.to_owned()));
        }
    }

    /// Forgets a resource.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some((name, deadline)) = self.deadlines.remove_entry(name) {
            self.order.remove(&(deadline, name));
        }
    }

    /// Keeps only the resources `keep` says yes to.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.deadlines.retain(|name, _| keep(name));
        self.order.retain(|(_, name)| keep(name));
    }

    /// Takes out everything whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut expired = Vec::new();
        while self.order.first().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, name)) = self.order.pop_first() {
                self.deadlines.remove(&name);
                expired.push(name);
            }
        }
        expired
    }

    /// When the next resource expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_move_expire_and_vanish() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let ttl = |seconds| Some(Duration::from_secs(seconds));
        let mut table = TtlTable::default();
        table.set("a", ttl(5), start);
        table.set("b", ttl(3), start);
        table.set("c", ttl(4), start);
        table.set("forever", Some(Duration::MAX), start);
        assert_eq!(table.next_deadline(), Some(after(3)));
        table.set("b", ttl(3), after(2)); // heartbeat
        table.set("c", None, after(2)); // now permanent
        assert_eq!(table.expire(after(4)), Vec::<String>::new());
        assert_eq!(table.expire(after(5)), ["a", "b"]);
        assert_eq!(table.next_deadline(), None);
        table.set("x", ttl(1), start);
        table.set("y", ttl(1), start);
        table.retain(|name| name == "y");
        assert_eq!(table.expire(after(9)), ["y"]);
    }
}

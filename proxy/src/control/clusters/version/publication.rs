//! What of a version the workers are told, and when.

use std::sync::Arc;
use std::time::Instant;

use super::Version;
use crate::control::clusters::members::Change;
use crate::control::clusters::{MergeEvent, NEVER, PublishedCluster};
use crate::runtime::Snapshot;
use crate::upstream::host::Membership;

impl Version {
    /// The hosts that are about to be published are chosen from as the runtime says now.
    pub(in crate::control::clusters) fn tune(&self, runtime: &Snapshot) {
        if let Some(tuned) = self.config.lb.tuned(runtime) {
            self.members.set().tune(Arc::new(tuned));
        }
    }

    /// Circuit breakers, used already or not, are as the runtime says now.
    pub(in crate::control::clusters) fn tune_breakers(&self, runtime: &Snapshot) {
        self.breakers.tune(&self.config.name, runtime);
    }

    /// What there is to count since the last call, and in how many priorities hosts came or went: counts do not wait for
    /// the merge window.
    pub(in crate::control::clusters) fn recount(&mut self) -> Option<(Membership, usize)> {
        let set = self.members.set();
        if self.counted.as_ref().is_some_and(|counted| Arc::ptr_eq(counted, set)) {
            return None;
        }
        let counted = self.counted.replace(Arc::clone(set));
        Some((set.membership(), set.changed_priorities(counted.as_deref())))
    }

    /// The workers use it from now on.
    pub(in crate::control::clusters) fn take_over(&mut self) {
        self.published = true;
        if self.checks.is_some() {
            self.members.rebuild();
        }
        self.unpublished = Change::None;
    }

    /// Whether the hosts are to be published now. A change of health waits for others like it if the last publication was
    /// within the merge window; what an assignment says does not wait, and takes what waits with it.
    pub(in crate::control::clusters) fn merge(&mut self, now: Instant) -> (bool, Option<MergeEvent>) {
        let window = self.config.lb.update_merge_window;
        let mut event = None;
        match self.unpublished {
            Change::None => return (false, None),
            Change::Attributes | Change::Membership => {
                if self.merge_at.take().is_some() {
                    event = Some(MergeEvent::Cancelled);
                }
            }
            Change::Health if window.is_zero() => {}
            Change::Health => match self.merge_at {
                Some(at) if at > now => return (false, None),
                Some(_) => event = Some(MergeEvent::Published),
                None if self.last_publication.is_some_and(|last| now.duration_since(last) <= window) => {
                    self.merge_at = Some(now.checked_add(window).unwrap_or(now + NEVER));
                    return (false, None);
                }
                None => event = Some(MergeEvent::OutOfWindow),
            },
        }
        self.merge_at = None;
        self.last_publication = Some(now);
        self.unpublished = Change::None;
        (true, event)
    }

    pub(in crate::control::clusters) fn publication(&self) -> PublishedCluster {
        PublishedCluster {
            config: self.config.clone(),
            breakers: self.breakers.clone(),
            hosts: self.members.set().clone(),
        }
    }
}

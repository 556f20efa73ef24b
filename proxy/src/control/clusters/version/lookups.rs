//! The names of a version's endpoints, and what looking them up came to.

use std::sync::Arc;
use std::time::Instant;

use super::Version;
use crate::config::address::EndpointAddress;
use crate::config::cluster::{Discovery, DnsConfig};
use crate::control::clusters::EndpointUpdate;
use crate::control::clusters::members::Change;
use crate::control::dns::{LookupId, Outcome, Question, Refresh};

/// A name to look up, at its place in the assignment.
#[derive(Debug, Default)]
pub(super) struct Target {
    refresh: Refresh,
    lookup: Option<LookupId>,
    pub(super) due: Option<Instant>,
}

impl Target {
    /// A name that was not looked up yet.
    pub(super) fn due_at(at: Instant) -> Self {
        Self { due: Some(at), ..Self::default() }
    }
}

impl Version {
    /// Whether this lookup's answer is for it.
    pub(in crate::control::clusters) fn awaits(&self, id: LookupId) -> bool {
        self.targets.values().any(|target| target.lookup == Some(id))
    }

    /// Places of names that are due to be looked up.
    pub(in crate::control::clusters) fn due_lookups(&self, now: Instant) -> Vec<(usize, usize)> {
        let due = self.targets.iter().filter(|(_, target)| target.due.is_some_and(|due| due <= now));
        let mut places: Vec<_> = due.map(|(place, _)| *place).collect();
        places.sort_unstable();
        places
    }

    /// The name at `place` is looked up as `id`: the question.
    pub(in crate::control::clusters) fn asked(&mut self, place: (usize, usize), id: LookupId) -> Option<Question> {
        let target = self.targets.get_mut(&place)?;
        (target.due, target.lookup) = (None, Some(id));
        let (Discovery::StrictDns(dns) | Discovery::LogicalDns(dns)) = &self.config.discovery else { return None };
        let (_, host) = named(dns).find(|(at, _)| *at == place)?;
        Some(Question { host: host.clone(), family: dns.family, resolver: Arc::new(dns.resolver.clone()) })
    }

    /// The lookups in flight, which are given up.
    pub(in crate::control::clusters) fn take_lookups(&mut self) -> Vec<LookupId> {
        self.targets.values_mut().filter_map(|target| target.lookup.take()).collect()
    }

    /// A lookup ended.
    pub(super) fn looked(
        &mut self,
        now: Instant,
        id: LookupId,
        outcome: &Outcome,
        random: &mut fastrand::Rng,
    ) -> Vec<EndpointUpdate> {
        let config = self.config.clone();
        let (dns, logical) = match &config.discovery {
            Discovery::StrictDns(dns) => (dns, false),
            Discovery::LogicalDns(dns) => (dns, true),
            Discovery::Static(_) | Discovery::Eds(_) | Discovery::OriginalDst(_) | Discovery::Aggregate(_) => {
                return Vec::new();
            }
        };
        let Some((place, target)) = self.targets.iter_mut().find(|(_, target)| target.lookup == Some(id)) else {
            return Vec::new();
        };
        let place = *place;
        target.lookup = None;
        target.due = Some(target.refresh.next(dns, outcome, now, random));
        self.ready = true;
        let update = match outcome {
            Outcome::Addresses { addresses, .. } => {
                self.names.insert(place, addresses.clone());
                EndpointUpdate::Success
            }
            // The one host of a logical cluster is not given up for an empty answer.
            Outcome::Empty if logical => return vec![EndpointUpdate::Empty],
            Outcome::Empty => {
                self.names.remove(&place);
                EndpointUpdate::Empty
            }
            Outcome::Failed(_) => return vec![EndpointUpdate::Failure],
        };
        match self.assign(&dns.assignment) {
            Change::None if update == EndpointUpdate::Success => vec![EndpointUpdate::NoRebuild],
            _ => vec![update],
        }
    }
}

/// The names of a DNS cluster, by their place in the assignment.
pub(super) fn named(dns: &DnsConfig) -> impl Iterator<Item = ((usize, usize), &Arc<str>)> {
    dns.assignment.localities.iter().enumerate().flat_map(|(l, locality)| {
        locality.endpoints.iter().enumerate().filter_map(move |(e, endpoint)| match &endpoint.address {
            EndpointAddress::Name { host, .. } => Some(((l, e), host)),
            EndpointAddress::Resolved(_) => None,
        })
    })
}

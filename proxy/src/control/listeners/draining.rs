//! What drains and until when.

use std::sync::Arc;
use std::time::Instant;

use super::Ticket;
use super::view::ListenerState;
use crate::config::filter_chain::FilterChain;
use crate::downstream::accept::ActiveListener;

/// Drains under way. There are few at a time, so lists will do.
#[derive(Debug, Default)]
pub(super) struct Draining {
    listeners: Vec<DrainingListener>,
    chains: Vec<DrainingChains>,
    stops: Vec<(Instant, Arc<str>, Ticket)>,
}

#[derive(Debug)]
pub(super) struct DrainingListener {
    end: Instant,
    /// The version that drains, to be released at the end: what it needs is kept up to date until then.
    ticket: Ticket,
    pub(super) listener: Arc<ActiveListener>,
    pub(super) state: ListenerState,
}

#[derive(Debug)]
struct DrainingChains {
    end: Instant,
    ticket: Ticket,
    listener: Arc<ActiveListener>,
    chains: Vec<Arc<FilterChain>>,
}

/// A drain that ended.
#[derive(Debug)]
pub(super) enum Due {
    /// Of a listener removed or replaced.
    Listener(Ticket, Arc<ActiveListener>),
    /// Of chains that an update in place removed from this version.
    Chains(Ticket, Arc<ActiveListener>, Vec<Arc<FilterChain>>),
    /// Of a listener told to drain by the administrator.
    Stop(Arc<str>, Ticket),
}

impl Draining {
    pub(super) fn listener_until(
        &mut self,
        end: Instant,
        ticket: Ticket,
        listener: Arc<ActiveListener>,
        state: ListenerState,
    ) {
        self.listeners.push(DrainingListener { end, ticket, listener, state });
    }

    pub(super) fn chains_until(
        &mut self,
        end: Instant,
        ticket: Ticket,
        listener: Arc<ActiveListener>,
        chains: Vec<Arc<FilterChain>>,
    ) {
        self.chains.push(DrainingChains { end, ticket, listener, chains });
    }

    pub(super) fn stop_later(&mut self, name: Arc<str>, ticket: Ticket, end: Instant) {
        if !self.stops.iter().any(|(_, _, other)| *other == ticket) {
            self.stops.push((end, name, ticket));
        }
    }

    /// Takes what ended by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let listeners = self.listeners.extract_if(.., |drain| drain.end <= now);
        let mut due: Vec<_> = listeners.map(|drain| Due::Listener(drain.ticket, drain.listener)).collect();
        let chains = self.chains.extract_if(.., |drain| drain.end <= now);
        due.extend(chains.map(|drain| Due::Chains(drain.ticket, drain.listener, drain.chains)));
        let stops = self.stops.extract_if(.., |(end, ..)| *end <= now);
        due.extend(stops.map(|(_, name, ticket)| Due::Stop(name, ticket)));
        due
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let listeners = self.listeners.iter().map(|drain| drain.end);
        let chains = self.chains.iter().map(|drain| drain.end);
        let stops = self.stops.iter().map(|(end, ..)| *end);
        listeners.chain(chains).chain(stops).min()
    }

    pub(super) const fn listeners(&self) -> usize {
        self.listeners.len()
    }

    pub(super) fn chains(&self) -> usize {
        self.chains.iter().map(|drain| drain.chains.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DrainingListener> {
        self.listeners.iter()
    }
}

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
    chains: Vec<(Instant, Arc<ActiveListener>, Vec<Arc<FilterChain>>)>,
    stops: Vec<(Instant, Arc<str>, Ticket)>,
}

#[derive(Debug)]
pub(super) struct DrainingListener {
    end: Instant,
    pub(super) listener: Arc<ActiveListener>,
    pub(super) state: ListenerState,
}

/// A drain that ended.
#[derive(Debug)]
pub(super) enum Due {
    /// Of a listener removed or replaced.
    Listener(Arc<ActiveListener>),
    /// Of chains an update in place removed.
    Chains(Arc<ActiveListener>, Vec<Arc<FilterChain>>),
    /// Of a listener told to drain by the administrator.
    Stop(Arc<str>, Ticket),
}

impl Draining {
    pub(super) fn listener_until(&mut self, listener: Arc<ActiveListener>, state: ListenerState, end: Instant) {
        self.listeners.push(DrainingListener { end, listener, state });
    }

    pub(super) fn chains_until(&mut self, listener: Arc<ActiveListener>, chains: Vec<Arc<FilterChain>>, end: Instant) {
        if !chains.is_empty() {
            self.chains.push((end, listener, chains));
        }
    }

    pub(super) fn stop_later(&mut self, name: Arc<str>, ticket: Ticket, end: Instant) {
        if !self.stops.iter().any(|(_, _, other)| *other == ticket) {
            self.stops.push((end, name, ticket));
        }
    }

    /// Takes what ended by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let listeners = self.listeners.extract_if(.., |drain| drain.end <= now);
        let mut due: Vec<_> = listeners.map(|drain| Due::Listener(drain.listener)).collect();
        let chains = self.chains.extract_if(.., |(end, ..)| *end <= now);
        due.extend(chains.map(|(_, listener, chains)| Due::Chains(listener, chains)));
        let stops = self.stops.extract_if(.., |(end, ..)| *end <= now);
        due.extend(stops.map(|(_, name, ticket)| Due::Stop(name, ticket)));
        due
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let listeners = self.listeners.iter().map(|drain| drain.end);
        let chains = self.chains.iter().map(|(end, ..)| *end);
        let stops = self.stops.iter().map(|(end, ..)| *end);
        listeners.chain(chains).chain(stops).min()
    }

    pub(super) const fn listeners(&self) -> usize {
        self.listeners.len()
    }

    pub(super) fn chains(&self) -> usize {
        self.chains.iter().map(|(_, _, chains)| chains.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DrainingListener> {
        self.listeners.iter()
    }
}

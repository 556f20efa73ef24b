//! A response's way through the state machine: it arrives, becomes an update for the consumer (or is answered at once, when
//! there is nothing in it for anybody or it makes no sense), and is answered by what the consumer made of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::ack::{Record, Recorded};
use super::kind::Variant;
use super::{Incoming, Message, Mux, delta, sotw};
use crate::observer::Accepted;
use crate::types::{Event, Rejection, Ticket, Update};

impl Mux {
    /// The consumer applied the whole update: acknowledge it and remember its versions.
    pub fn accept(&mut self, ticket: Ticket, now: Instant) {
        let Some(&at) = self.index.get(&ticket.type_url) else {
            return;
        };
        let kind = &mut self.types[at];
        let sotw = matches!(kind.variant, Variant::Sotw(_));
        let Some(settled) = kind.ledger.settle(&ticket, None, sotw) else {
            return;
        };
        kind.record(&settled.record, settled.overtaken, now);
        kind.last_rejection = None;
        let accepted = Accepted {
            version: &settled.record.version,
            duration: now.saturating_duration_since(settled.record.received),
        };
        kind.watches.accepted(&settled.record.concerned, &accepted);
        self.enqueue(at);
    }

    /// The consumer refused the update, or parts of it (having applied the others): answer with a NACK that carries the
    /// rejection's text. Nothing of it is remembered, so after a reconnect the server sends it again.
    pub fn reject(&mut self, ticket: Ticket, rejection: &Rejection) {
        let Some(&at) = self.index.get(&ticket.type_url) else {
            return;
        };
        let kind = &mut self.types[at];
        let detail = rejection.detail(&kind.type_url);
        let sotw = matches!(kind.variant, Variant::Sotw(_));
        if kind.ledger.settle(&ticket, Some(&detail), sotw).is_some() {
            kind.watches.rejected();
            kind.last_rejection = Some(detail);
            self.enqueue(at);
        }
    }

    /// A response arrived.
    pub fn on_message(&mut self, message: Message, now: Instant) {
        self.backoff.reset();
        let type_url = match &message {
            Message::Sotw(response) => &response.type_url,
            Message::Delta(response) => &response.type_url,
        };
        // A stream for one type need not name it.
        let at = match (self.index.get(type_url.as_str()), self.types.as_slice()) {
            (Some(at), _) => *at,
            (None, [_]) if type_url.is_empty() => 0,
            (None, _) => {
                tracing::warn!(type_url, "response of a type that was not asked for; ignored");
                return;
            }
        };
        let kind = &self.types[at];
        if !kind.solicited {
            // Answering it would subscribe to it.
            tracing::warn!(type_url = &*kind.type_url, "response of a type that was not asked for; ignored");
            return;
        }
        let (nonce, parsed) = match (&kind.variant, message) {
            (Variant::Sotw(_), Message::Sotw(response)) => sotw::parse(&kind.type_url, response),
            (Variant::Delta(_), Message::Delta(response)) => delta::parse(&kind.type_url, response),
            _ => {
                tracing::error!("a response of the other protocol variant; ignored");
                return;
            }
        };
        match parsed.and_then(|incoming| kind.check_heartbeats(&incoming).map(|()| incoming)) {
            Ok(incoming) => self.deliver(at, nonce, incoming, now),
            Err(detail) => {
                let kind = &mut self.types[at];
                kind.ledger.answer(nonce, Some(detail.clone()));
                kind.refused(detail, &mut self.events);
            }
        }
        self.enqueue(at);
    }

    /// A response could not even be read (a REST body): nothing to answer, but an outcome.
    pub fn on_unreadable(&mut self, type_url: &str, detail: String) {
        let at = self.type_index(type_url);
        self.types[at].refused(detail, &mut self.events);
    }

    /// There is no document (a file that is absent, or none): as in Envoy a failure to count, and an end of the wait.
    pub fn on_missing(&mut self, type_url: &str, detail: String) {
        let at = self.type_index(type_url);
        let kind = &mut self.types[at];
        kind.watches.failed();
        self.events.push_back(Event::Rejected { type_url: Arc::clone(&kind.type_url), detail });
    }

    fn deliver(&mut self, at: usize, nonce: String, incoming: Incoming, now: Instant) {
        if let Some(identifier) = &incoming.control_plane {
            self.observer.identifier(identifier);
        }
        for error in &incoming.errors {
            let name = error.resource_name.as_ref().map_or("", |locator| locator.name.as_str());
            let detail = error.error_detail.as_ref().map_or("", |status| status.message.as_str());
            tracing::warn!(resource = name, detail, "the control plane reports an error for a resource");
        }
        let kind = &mut self.types[at];
        let Incoming { version, mut resources, mut removed, full_state, control_plane, errors: _ } = incoming;
        if !self.config.whole_documents {
            resources.retain(|resource| resource.names().any(|name| kind.watches.wants(name)));
            removed.retain(|name| kind.watches.wants(name));
            if !kind.watches.wildcard() {
                // Who asked for a name gets one resource: of several the first, as in Envoy.
                let mut seen = BTreeSet::new();
                resources.retain(|resource| seen.insert(resource.name.clone()));
            }
        }
        let mut record = Record {
            version: version.clone(),
            resources: resources.iter().map(Recorded::from).collect(),
            removed: removed.clone(),
            full_state,
            received: now,
            concerned: Vec::new(),
        };
        // Nothing for the consumer: nobody subscribes to what came, or it only confirms what is there.
        let only_heartbeats = !resources.is_empty() && resources.iter().all(|resource| resource.body.is_none());
        let is_news = if resources.is_empty() || only_heartbeats {
            let everything = kind.watches.wildcard() || self.config.whole_documents;
            !removed.is_empty() || full_state || (everything && !only_heartbeats)
        } else {
            true
        };
        if kind.watches.is_empty() || !is_news {
            kind.ledger.answer(nonce, None);
            kind.record(&record, false, now);
            return;
        }
        record.concerned = kind.watches.concerned(&resources, &removed);
        let update = Update {
            type_url: Arc::clone(&kind.type_url),
            version,
            resources,
            removed,
            full_state,
            control_plane,
            received: now,
            ticket: kind.ledger.open(&kind.type_url, nonce, record),
        };
        self.events.push_back(Event::Update(update));
    }

    pub(super) fn reject_abandoned(&mut self) {
        const ABANDONED: &str = "the update was dropped without being applied";
        for at in 0..self.types.len() {
            let kind = &mut self.types[at];
            let sotw = matches!(kind.variant, Variant::Sotw(_));
            while kind.ledger.settle_abandoned(ABANDONED, sotw).is_some() {
                kind.refused(ABANDONED.to_owned(), &mut self.events);
            }
            self.enqueue(at);
        }
    }
}

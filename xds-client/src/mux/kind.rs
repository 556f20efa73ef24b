//! One resource type of a mux: its subscriptions, what the protocol variant remembers, and where its responses stand.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::ack::{Answer, Ledger, Record, Recorded};
use super::delta::Delta;
use super::sotw::Sotw;
use super::{Incoming, Mode, Request};
use crate::subscription::Watches;
use crate::ttl::TtlTable;
use crate::types::{Event, Resource};

pub(super) struct Kind {
    pub(super) type_url: Arc<str>,
    pub(super) watches: Watches,
    pub(super) variant: Variant,
    pub(super) ledger: Ledger,
    pub(super) ttl: TtlTable,
    /// How many times it has been paused.
    pub(super) pauses: usize,
    pub(super) queued: bool,
    /// Something other than an answer is to be told.
    pub(super) changed: bool,
    /// A request of this type went out on this stream, so the server may answer.
    pub(super) solicited: bool,
    pub(super) last_rejection: Option<String>,
}

pub(super) enum Variant {
    Sotw(Sotw),
    Delta(Delta),
}

impl Kind {
    pub(super) fn new(type_url: Arc<str>, mode: Mode, whole_documents: bool) -> Self {
        Self {
            type_url,
            watches: Watches::new(whole_documents),
            variant: match mode {
                Mode::StateOfTheWorld => Variant::Sotw(Sotw::default()),
                Mode::Delta => Variant::Delta(Delta::default()),
            },
            ledger: Ledger::default(),
            ttl: TtlTable::default(),
            pauses: 0,
            queued: false,
            changed: false,
            solicited: false,
            last_rejection: None,
        }
    }

    pub(super) fn has_something_to_say(&self) -> bool {
        if !self.solicited && self.ledger.has_outstanding() {
            // On a new stream we say what we have, and as long as responses of the last one are undecided we do not know: what
            // is accepted after the introduction could be gone from the server, and it would never tell.
            return false;
        }
        self.ledger.has_answers() || self.changed
    }

    /// The next request: an answer if one waits, and with it whatever else there is to say.
    pub(super) fn request(&mut self) -> Request {
        let coalesce = matches!(self.variant, Variant::Sotw(_));
        let answer: Option<Answer> = self.ledger.next_answer(coalesce);
        self.changed = false;
        self.solicited = true;
        match &mut self.variant {
            Variant::Sotw(sotw) => {
                let request = sotw.request(&self.type_url, &self.watches, answer);
                self.changed = sotw.has_more();
                Request::Sotw(Box::new(request))
            }
            Variant::Delta(delta) => {
                let request = delta.request(&self.type_url, &self.watches, answer);
                self.changed = delta.has_changes();
                Request::Delta(Box::new(request))
            }
        }
    }

    pub(super) fn record(&mut self, record: &Record, overtaken: bool, now: Instant) {
        match &mut self.variant {
            Variant::Sotw(sotw) => {
                sotw.accepted(record, overtaken);
                if overtaken {
                    return;
                }
            }
            Variant::Delta(delta) => delta.accepted(record, overtaken, &self.watches),
        }
        if record.full_state {
            let listed: BTreeSet<&str> = record.resources.iter().map(|resource| resource.name.as_str()).collect();
            self.ttl.retain(|name| listed.contains(name));
        }
        for resource in &record.resources {
            self.ttl.set(&resource.name, resource.ttl, now);
        }
        for name in &record.removed {
            self.ttl.remove(name);
        }
    }

    pub(super) fn refused(&mut self, detail: String, events: &mut VecDeque<Event>) {
        self.watches.rejected();
        self.last_rejection = Some(detail.clone());
        events.push_back(Event::Rejected { type_url: Arc::clone(&self.type_url), detail });
    }

    /// A resource without a body must be one we have.
    pub(super) fn check_heartbeats(&self, incoming: &Incoming) -> Result<(), String> {
        for resource in incoming.resources.iter().filter(|resource| resource.body.is_none()) {
            let current = match &self.variant {
                Variant::Sotw(sotw) => sotw.is_current(&resource.version, &incoming.version),
                Variant::Delta(delta) => delta.is_current(&resource.name, &resource.version),
            };
            let wanted = resource.names().any(|name| self.watches.wants(name));
            if wanted && !current {
                return Err(format!(
                    "{}: a heartbeat of version \"{}\", which is not the one in use",
                    resource.name, resource.version
                ));
            }
        }
        Ok(())
    }

    pub(super) fn stream_closed(&mut self) {
        self.queued = false;
        self.solicited = false;
        self.ledger.stream_closed();
        match &mut self.variant {
            Variant::Sotw(sotw) => sotw.stream_closed(),
            Variant::Delta(delta) => delta.stream_closed(),
        }
    }
}

impl From<&Resource> for Recorded {
    fn from(resource: &Resource) -> Self {
        Self {
            name: resource.name.clone(),
            aliases: resource.aliases.clone(),
            version: resource.version.clone(),
            ttl: resource.ttl,
        }
    }
}

//! The protocol as a state machine: what is subscribed to, what the server said, what must be said to it.
//!
//! No sockets, no clock, no randomness of its own. A driver feeds it with what happened ([`connected`](Mux::connected),
//! [`on_message`](Mux::on_message), [`disconnected`](Mux::disconnected), [`on_deadline`](Mux::on_deadline)); the consumer
//! with what it wants ([`subscribe`](Mux::subscribe), [`accept`](Mux::accept), ...); and whoever asks takes out what
//! follows: [`poll_request`](Mux::poll_request), [`poll_event`](Mux::poll_event), [`next_deadline`](Mux::next_deadline).
//! Every source uses one: a file or a REST endpoint is a state-of-the-world conversation whose requests nobody reads, or
//! are asked for at each poll.
//!
//! Requests leave in the order in which types got something to say. A consumer that subscribes to endpoints while it
//! applies clusters, and then accepts the clusters, therefore asks for the endpoints before it acknowledges the clusters.

mod ack;
mod delta;
mod kind;
mod sotw;
#[cfg(test)]
mod tests;
mod updates;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf;

use self::kind::{Kind, Variant};
use crate::backoff::{Backoff, BackoffConfig};
use crate::observer::{Accepted, SourceObserver};
use crate::rate_limit::{RateLimit, TokenBucket};
use crate::subscription::{Interest, Selection, SubscriptionId};
use crate::types::{Event, Resource};

/// Which of the two protocol variants is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `GRPC`, `REST`, files.
    #[default]
    StateOfTheWorld,
    /// `DELTA_GRPC`.
    Delta,
}

/// What does not change during the life of a mux.
#[derive(Clone, Debug, Default)]
pub struct MuxConfig {
    /// The variant.
    pub mode: Mode,
    /// Who we are (`bootstrap.node` and its overrides).
    pub node: Node,
    /// `ApiConfigSource.set_node_on_first_message_only`: otherwise every request carries the node, as Envoy does.
    pub node_on_first_message_only: bool,
    /// How reconnects are spaced.
    pub backoff: BackoffConfig,
    /// `ApiConfigSource.rate_limit_settings`, if present.
    pub rate_limit: Option<RateLimit>,
    /// A response is a document written for one subscription (files, REST): all of it is the consumer's to judge, even what
    /// was not asked for, and even if it is empty.
    pub whole_documents: bool,
    /// Seed of the jitter.
    pub seed: u64,
}

/// A response, of either variant.
#[derive(Clone, Debug)]
pub enum Message {
    /// State of the world.
    Sotw(discovery::DiscoveryResponse),
    /// Delta.
    Delta(discovery::DeltaDiscoveryResponse),
}

/// A request, of either variant.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(Box<discovery::DiscoveryRequest>),
    /// Delta.
    Delta(Box<discovery::DeltaDiscoveryRequest>),
}

/// What is known of a type, for `/config_dump` and client status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// Version of the last accepted response.
    pub version: String,
    /// Detail of the last NACK, if nothing has been accepted since.
    pub last_rejection: Option<String>,
}

/// A response after the variant's own checks.
struct Incoming {
    version: String,
    resources: Vec<Resource>,
    removed: Vec<String>,
    full_state: bool,
    control_plane: Option<String>,
    errors: Vec<discovery::ResourceError>,
}

/// The state machine of one source.
pub struct Mux {
    config: MuxConfig,
    observer: Rc<dyn SourceObserver>,
    /// In the order of their first subscription, which is the order of the first requests of a stream. None is ever taken
    /// out, so the indices kept elsewhere stay good.
    types: Vec<Kind>,
    index: HashMap<Arc<str>, usize>,
    owners: HashMap<SubscriptionId, usize>,
    next_subscription: u64,
    fetch_deadlines: BTreeSet<(Instant, SubscriptionId)>,
    /// Types with something to say, first come first served.
    outbox: VecDeque<usize>,
    events: VecDeque<Event>,
    connected: bool,
    node_sent: bool,
    bucket: Option<TokenBucket>,
    /// The bucket is empty until then.
    throttled_until: Option<Instant>,
    backoff: Backoff,
}

impl Mux {
    /// A mux that is not connected and wants nothing yet.
    pub fn new(config: MuxConfig, observer: Rc<dyn SourceObserver>, now: Instant) -> Self {
        Self {
            backoff: Backoff::new(config.backoff, config.seed),
            bucket: config.rate_limit.map(|limit| TokenBucket::new(limit, now)),
            config,
            observer,
            types: Vec::new(),
            index: HashMap::new(),
            owners: HashMap::new(),
            next_subscription: 0,
            fetch_deadlines: BTreeSet::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            connected: false,
            node_sent: false,
            throttled_until: None,
        }
    }

    /// Starts a subscription. Names that are subscribed to already are asked for again, so that the new subscriber gets
    /// its copy. Envoy re-requests endpoints in this way whenever a cluster changes, but not on delta streams.
    pub fn subscribe(&mut self, interest: Interest, now: Instant) -> SubscriptionId {
        let id = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        let at = self.type_index(&interest.type_url);
        self.owners.insert(id, at);
        if let Some(deadline) = interest.initial_fetch_timeout.and_then(|timeout| now.checked_add(timeout)) {
            self.fetch_deadlines.insert((deadline, id));
        }
        let kind = &mut self.types[at];
        let names = match &interest.selection {
            Selection::Wildcard => &[sotw::WILDCARD.to_owned()],
            Selection::Names(names) => names.as_slice(),
        };
        match &mut kind.variant {
            Variant::Sotw(sotw) => sotw.subscribed(names, &kind.watches),
            Variant::Delta(delta) => delta.subscribed(names),
        }
        kind.watches.add(id, interest);
        kind.changed = true;
        self.enqueue(at);
        id
    }

    /// Ends a subscription; what nobody else wants is forgotten and the server told.
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        let Some(at) = self.owners.remove(&id) else {
            return;
        };
        let kind = &mut self.types[at];
        let released = kind.watches.remove(id);
        match &mut kind.variant {
            Variant::Sotw(sotw) => {
                let changed = released.wildcard || !released.names.is_empty();
                sotw.released(released);
                if kind.watches.is_empty() {
                    // An empty list would subscribe to everything, unless names have been sent before.
                    kind.changed = sotw.must_empty();
                } else {
                    kind.changed |= changed;
                }
            }
            Variant::Delta(delta) => {
                delta.released(&released, &kind.watches);
                kind.changed = delta.has_changes() && (kind.solicited || !kind.watches.is_empty());
            }
        }
        let watches = &kind.watches;
        kind.ttl.retain(|name| watches.wants(name));
        self.enqueue(at);
    }

    /// Holds back requests and answers of a type until it is resumed as often as it was paused; they are merged
    /// meanwhile. Responses are still delivered.
    pub fn pause(&mut self, type_url: &str) {
        let at = self.type_index(type_url);
        self.types[at].pauses += 1;
    }

    /// Undoes one [`pause`](Self::pause).
    pub fn resume(&mut self, type_url: &str) {
        let at = self.type_index(type_url);
        let kind = &mut self.types[at];
        kind.pauses = kind.pauses.saturating_sub(1);
        self.enqueue(at);
    }

    /// A document of the type is about to be fetched: an attempt.
    pub fn fetching(&mut self, type_url: &str) {
        let at = self.type_index(type_url);
        self.types[at].watches.asking();
    }

    /// Asks for a type again although nothing changed (a REST poll). Delta has no such request.
    pub fn refresh(&mut self, type_url: &str) {
        let at = self.type_index(type_url);
        let kind = &mut self.types[at];
        if matches!(kind.variant, Variant::Sotw(_)) && !kind.watches.is_empty() {
            kind.changed = true;
            self.enqueue(at);
        }
    }

    /// A stream is open: every type introduces itself again, with what it has accepted so far.
    pub fn connected(&mut self) {
        self.connected = true;
        self.node_sent = false;
        self.observer.connected(true);
        self.events.push_back(Event::Connected);
        for at in 0..self.types.len() {
            let kind = &mut self.types[at];
            kind.changed = !kind.watches.is_empty();
            self.enqueue(at);
        }
    }

    /// The stream ended, or could not be opened. Says how long to wait before the next attempt. Nothing that was
    /// accepted is touched; tickets of the lost stream may still be answered and still count.
    pub fn disconnected(&mut self, reason: String) -> Duration {
        self.connected = false;
        self.outbox.clear();
        self.throttled_until = None;
        self.observer.connected(false);
        self.observer.pending_requests(0);
        for kind in &mut self.types {
            kind.stream_closed();
            kind.watches.failed();
        }
        self.events.push_back(Event::Disconnected { reason });
        self.backoff.next_delay()
    }

    /// The moment [`next_deadline`](Self::next_deadline) named has come (calling it early is harmless).
    pub fn on_deadline(&mut self, now: Instant) {
        while self.fetch_deadlines.first().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, id)) = self.fetch_deadlines.pop_first()
                && let Some(at) = self.owners.get(&id)
                && let Some(names) = self.types[*at].watches.fetch_timed_out(id)
            {
                let type_url = Arc::clone(&self.types[*at].type_url);
                self.events.push_back(Event::InitialFetchTimeout { subscription: id, type_url, names });
            }
        }
        for kind in &mut self.types {
            let names = kind.ttl.expire(now);
            if names.is_empty() {
                continue;
            }
            if let Variant::Delta(delta) = &mut kind.variant {
                names.iter().for_each(|name| delta.expired(name));
            }
            // As in Envoy the end of a resource is an update like any other, of no version.
            let concerned = kind.watches.concerned(&[], &names);
            kind.watches.accepted(&concerned, &Accepted { version: "", duration: Duration::ZERO });
            self.events.push_back(Event::Expired { type_url: Arc::clone(&kind.type_url), names });
        }
    }

    /// The next request to send, if the stream is open, a type has something to say and the token bucket allows it.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        self.reject_abandoned();
        while let Some(&at) = self.outbox.front() {
            let kind = &mut self.types[at];
            if !kind.has_something_to_say() || kind.pauses > 0 {
                kind.queued = false;
                self.outbox.pop_front();
                continue;
            }
            if let Some(bucket) = &mut self.bucket
                && let Err(ready) = bucket.take(now)
            {
                if self.throttled_until.is_none() {
                    self.observer.rate_limit_enforced();
                }
                self.throttled_until = Some(ready);
                self.observer.pending_requests(self.outbox.len());
                return None;
            }
            self.throttled_until = None;
            let mut request = kind.request();
            kind.queued = kind.has_something_to_say();
            if !kind.queued {
                self.outbox.pop_front();
            }
            self.observer.pending_requests(self.outbox.len());
            if !(self.node_sent && self.config.node_on_first_message_only) {
                self.node_sent = true;
                match &mut request {
                    Request::Sotw(request) => request.node = Some(self.config.node.clone()),
                    Request::Delta(request) => request.node = Some(self.config.node.clone()),
                }
            }
            return Some(request);
        }
        None
    }

    /// The next thing to tell the consumer.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`on_deadline`](Self::on_deadline) and [`poll_request`](Self::poll_request) are to be called again at the
    /// latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let fetch = self.fetch_deadlines.first().map(|(deadline, _)| *deadline);
        let ttl = self.types.iter().filter_map(|kind| kind.ttl.next_deadline()).min();
        [fetch, ttl, self.throttled_until].into_iter().flatten().min()
    }

    /// Whether more responses may be read; if not, the consumer has to answer some first.
    pub fn is_ready_to_read(&self) -> bool {
        !self.types.iter().any(|kind| kind.ledger.is_full())
    }

    /// Whether anybody wants anything.
    pub fn has_subscriptions(&self) -> bool {
        !self.owners.is_empty()
    }

    /// Whether a response is a document, all of which is the consumer's to judge ([`MuxConfig::whole_documents`]).
    pub const fn reads_documents(&self) -> bool {
        self.config.whole_documents
    }

    /// Where a type stands.
    pub fn status(&self, type_url: &str) -> TypeStatus {
        let Some(kind) = self.index.get(type_url).and_then(|at| self.types.get(*at)) else {
            return TypeStatus::default();
        };
        let version = match &kind.variant {
            Variant::Sotw(sotw) => sotw.version(),
            Variant::Delta(delta) => delta.version(),
        };
        TypeStatus { version: version.to_owned(), last_rejection: kind.last_rejection.clone() }
    }

    fn enqueue(&mut self, at: usize) {
        let kind = &mut self.types[at];
        if self.connected && kind.pauses == 0 && !kind.queued && kind.has_something_to_say() {
            kind.queued = true;
            self.outbox.push_back(at);
        }
    }

    fn type_index(&mut self, type_url: &str) -> usize {
        if let Some(at) = self.index.get(type_url) {
            return *at;
        }
        let type_url: Arc<str> = type_url.into();
        self.types.push(Kind::new(Arc::clone(&type_url), self.config.mode, self.config.whole_documents));
        let at = self.types.len() - 1;
        self.index.insert(type_url, at);
        at
    }
}

/// A protobuf duration as ours; negative and out-of-range ones are errors.
fn duration(duration: Option<protobuf::Duration>) -> Result<Option<Duration>, String> {
    let Some(protobuf::Duration { seconds, nanos }) = duration else {
        return Ok(None);
    };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(format!("{seconds}s {nanos}ns is not a positive duration")),
    }
}

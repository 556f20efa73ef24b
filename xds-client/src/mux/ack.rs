//! The ledger of responses: which are with the consumer, which answers wait to be sent.
//!
//! A response enters as *outstanding* and leaves as an *answer*, exactly once. Answers of a stream that is gone are never
//! sent on its successor. In state of the world an ACK is dropped when a newer answer of the type waits behind it (the
//! newer one says everything it said); a NACK is always sent, because it carries news.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::subscription::SubscriptionId;
use crate::types::Ticket;

/// Responses of one type that may be unanswered before reading stops.
pub(crate) const MAX_OUTSTANDING: usize = 64;

/// A response handed to the consumer.
#[derive(Debug)]
pub(crate) struct Outstanding {
    seal: Arc<()>,
    /// `None` once its stream is gone: the nonce means nothing any more.
    nonce: Option<String>,
    /// What is recorded if it is accepted.
    pub(crate) record: Record,
}

/// The facts of a response that count once it is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) version: String,
    pub(crate) resources: Vec<Recorded>,
    pub(crate) removed: Vec<String>,
    pub(crate) full_state: bool,
    pub(crate) received: Instant,
    pub(crate) concerned: Vec<SubscriptionId>,
}

/// One resource of a [`Record`].
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) version: String,
    pub(crate) ttl: Option<Duration>,
}

/// An answer to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) nonce: String,
    /// The `error_detail` of a NACK.
    pub(crate) error: Option<String>,
}

/// What became of a settled response.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) record: Record,
    /// A later response of the type has been settled before: this one must not set the clock back.
    pub(crate) overtaken: bool,
}

/// Where the responses of one type stand.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In order of arrival, with their serial numbers.
    outstanding: VecDeque<(u64, Outstanding)>,
    answers: VecDeque<Answer>,
    next_serial: u64,
    newest_settled: Option<u64>,
}

impl Ledger {
    /// Opens an entry and issues its ticket.
    pub(crate) fn open(&mut self, type_url: &Arc<str>, nonce: String, record: Record) -> Ticket {
        let seal = Arc::new(());
        let entry = Outstanding { seal: Arc::clone(&seal), nonce: Some(nonce), record };
        self.outstanding.push_back((self.next_serial, entry));
        self.next_serial += 1;
        Ticket { type_url: Arc::clone(type_url), seal }
    }

    /// Answers without troubling the consumer.
    pub(crate) fn answer(&mut self, nonce: String, error: Option<String>) {
        self.newest_settled = Some(self.next_serial);
        self.next_serial += 1;
        self.answers.push_back(Answer { nonce, error });
    }

    /// Settles the entry a ticket stands for. `drop_if_overtaken` (state of the world) leaves an answer out that a newer
    /// one has made stale. `None` if the ticket is not of this ledger.
    pub(crate) fn settle(&mut self, ticket: &Ticket, error: Option<&str>, drop_if_overtaken: bool) -> Option<Settled> {
        let at = self.outstanding.iter().position(|(_, entry)| Arc::ptr_eq(&entry.seal, &ticket.seal))?;
        self.settle_at(at, error, drop_if_overtaken)
    }

    /// Settles, as refused, one entry whose ticket was dropped.
    pub(crate) fn settle_abandoned(&mut self, error: &str, drop_if_overtaken: bool) -> Option<Settled> {
        let at = self.outstanding.iter().position(|(_, entry)| Arc::strong_count(&entry.seal) == 1)?;
        self.settle_at(at, Some(error), drop_if_overtaken)
    }

    fn settle_at(&mut self, at: usize, error: Option<&str>, drop_if_overtaken: bool) -> Option<Settled> {
        let (serial, entry) = self.outstanding.remove(at)?;
        let overtaken = self.newest_settled.is_some_and(|newest| newest > serial);
        self.newest_settled = self.newest_settled.max(Some(serial));
        if let Some(nonce) = entry.nonce
            && !(overtaken && drop_if_overtaken)
        {
            self.answers.push_back(Answer { nonce, error: error.map(str::to_owned) });
        }
        Some(Settled { record: entry.record, overtaken })
    }

    /// The next answer to send. With `coalesce` (state of the world) ACKs with a newer answer behind them are dropped.
    pub(crate) fn next_answer(&mut self, coalesce: bool) -> Option<Answer> {
        loop {
            let answer = self.answers.pop_front()?;
            if answer.error.is_none() && coalesce && !self.answers.is_empty() {
                continue;
            }
            return Some(answer);
        }
    }

    /// Whether the consumer still has to decide about something.
    pub(crate) fn has_outstanding(&self) -> bool {
        !self.outstanding.is_empty()
    }

    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether the consumer is too far behind for more.
    pub(crate) fn is_full(&self) -> bool {
        self.outstanding.len() >= MAX_OUTSTANDING
    }

    /// The stream is gone: its nonces die with it, but what the consumer accepts still counts.
    pub(crate) fn stream_closed(&mut self) {
        self.answers.clear();
        for (_, entry) in &mut self.outstanding {
            entry.nonce = None;
        }
    }
}

//! What every family of statistics (a group, a family of codes, a single) shares: its part in a scrape, and the memory
//! that only flushes and scrapes touch.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regex::Regex;

use crate::histogram::{Bins, Unit};
use crate::matcher::StatsMatcher;
use crate::query::{Query, StatsType};
use crate::snapshot::{HistogramRecord, Name, NumberKind, NumberRecord, Snapshot, TextRecord};
use crate::tags::{TagProducer, TagSet};

/// A family of statistics below one prefix.
pub(crate) trait Family: Any + Send + Sync {
    /// The prefix, for the order of the scrape.
    fn prefix(&self) -> &str;
    /// Adds the family's statistics.
    fn collect(&self, into: &mut Collector<'_>);
    /// Takes over what was recorded since the last time.
    fn merge_histograms(&self) {}
    /// Makes the counters begin at zero again.
    fn reset_counters(&self) {}
    /// For finding a family again by its type.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Locks a mutex whose data stays whole even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a family that only flushes and scrapes use. Empty, and small, until then.
#[derive(Default)]
pub(crate) struct FamilyCold(Mutex<Cold>);

#[derive(Default)]
struct Cold {
    /// What to take off a counter, by key: its sum when the counters were last reset.
    base: Vec<u64>,
    /// A counter's sum when it was last handed to the sinks, by key.
    latched: Vec<u64>,
    /// By position among the family's histograms.
    histograms: Vec<Merged>,
    /// Index + 1 into `tag_sets`, by key; 0 if not yet known.
    tag_index: Vec<u16>,
    tag_sets: Vec<Arc<TagSet>>,
}

#[derive(Clone, Default)]
struct Merged {
    cumulative: Arc<Bins>,
    interval: Arc<Bins>,
}

impl FamilyCold {
    /// Sets the histograms' pictures from their present sums.
    pub(crate) fn merge_histograms(&self, count: usize, total: impl Fn(usize) -> Bins) {
        let mut cold = lock(&self.0);
        for index in 0..count {
            let new = total(index);
            if new.is_empty() && cold.histograms.len() <= index {
                continue;
            }
            if cold.histograms.len() <= index {
                cold.histograms.resize(index + 1, Merged::default());
            }
            if let Some(merged) = cold.histograms.get_mut(index) {
                let interval = new.since(&merged.cumulative);
                if !interval.is_empty() {
                    merged.cumulative = Arc::new(new);
                }
                if !(interval.is_empty() && merged.interval.is_empty()) {
                    merged.interval = Arc::new(interval);
                }
            }
        }
    }

    /// Remembers the counters' sums as their zero, by key. What sinks are still to be told of is not lost.
    pub(crate) fn reset_counters(&self, sums: impl Iterator<Item = u64>) {
        let mut cold = lock(&self.0);
        cold.base.clear();
        cold.base.extend(sums);
    }

    /// A counter's value and its growth since it was last latched, from its sum; latches that if asked to.
    fn counter(&self, key: usize, sum: u64, latch: bool) -> (u64, u64) {
        let mut cold = lock(&self.0);
        let base = cold.base.get(key).copied().unwrap_or(0);
        let delta = sum.wrapping_sub(cold.latched.get(key).copied().unwrap_or(0));
        if latch && delta > 0 {
            if cold.latched.len() <= key {
                cold.latched.resize(key + 1, 0);
            }
            if let Some(latched) = cold.latched.get_mut(key) {
                *latched = sum;
            }
        }
        (sum.wrapping_sub(base), delta)
    }

    fn histogram(&self, index: usize) -> Merged {
        lock(&self.0).histograms.get(index).cloned().unwrap_or_default()
    }

    /// The tags of the statistic with that key and full name. Most of a family share one set.
    fn tags(&self, key: usize, name: &str, producer: &TagProducer) -> Arc<TagSet> {
        let mut cold = lock(&self.0);
        let known = cold.tag_index.get(key).and_then(|&index| cold.tag_sets.get(usize::from(index).checked_sub(1)?));
        if let Some(set) = known {
            return Arc::clone(set);
        }
        let set = producer.produce(name);
        let position = cold.tag_sets.iter().position(|other| **other == set);
        let index = position.unwrap_or(cold.tag_sets.len());
        if position.is_none() {
            cold.tag_sets.push(Arc::new(set.clone()));
        }
        if cold.tag_index.len() <= key {
            cold.tag_index.resize(key + 1, 0);
        }
        let entry = u16::try_from(index + 1).unwrap_or(0);
        if let Some(slot) = cold.tag_index.get_mut(key) {
            *slot = entry;
        }
        cold.tag_sets.get(index).map_or_else(|| Arc::new(set), Arc::clone)
    }
}

/// Which statistics a scrape is about.
#[derive(Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub(crate) kind: StatsType,
    pub(crate) used_only: bool,
    pub(crate) filter: Option<&'a Regex>,
    pub(crate) invert: bool,
    /// Whether tags are needed.
    pub(crate) tags: bool,
    /// Whether counters are handed to sinks: their deltas start again.
    pub(crate) latch: bool,
}

impl Selection<'_> {
    /// Everything.
    pub(crate) const ALL: Self =
        Selection { kind: StatsType::All, used_only: false, filter: None, invert: false, tags: true, latch: false };
}

impl<'a> From<&'a Query> for Selection<'a> {
    fn from(query: &'a Query) -> Self {
        Self {
            kind: query.kind,
            used_only: query.used_only,
            filter: query.filter.as_ref(),
            invert: query.invert_filter,
            tags: false,
            latch: false,
        }
    }
}

/// Gathers a scrape.
pub(crate) struct Collector<'a> {
    selection: Selection<'a>,
    matcher: &'a StatsMatcher,
    producer: &'a TagProducer,
    snapshot: Snapshot,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(selection: Selection<'a>, matcher: &'a StatsMatcher, producer: &'a TagProducer) -> Self {
        Self { selection, matcher, producer, snapshot: Snapshot::default() }
    }

    pub(crate) fn finish(mut self) -> Snapshot {
        self.snapshot.sort();
        self.snapshot
    }

    pub(crate) fn wants(&self, kind: NumberKind) -> bool {
        match self.selection.kind {
            StatsType::All => true,
            StatsType::Counters => kind == NumberKind::Counter,
            StatsType::Gauges => kind == NumberKind::Gauge,
            StatsType::Histograms | StatsType::TextReadouts => false,
        }
    }

    pub(crate) fn wants_histograms(&self) -> bool {
        matches!(self.selection.kind, StatsType::All | StatsType::Histograms)
    }

    pub(crate) fn wants_texts(&self) -> bool {
        matches!(self.selection.kind, StatsType::All | StatsType::TextReadouts)
    }

    /// A counter, by its sum since it began. The name comes in parts; `key` is its number within the family.
    pub(crate) fn counter(&mut self, cold: &FamilyCold, key: usize, name: &[&str], sum: u64) {
        let used = sum > 0;
        let Some(name) = self.admit(name, used) else {
            return;
        };
        let (value, delta) = cold.counter(key, sum, self.selection.latch);
        let tags = self.tags(cold, key, name);
        self.snapshot.numbers.push(NumberRecord { name, kind: NumberKind::Counter, value, delta, used, tags });
    }

    /// A gauge, by the wrapping sum of its shards.
    pub(crate) fn gauge(&mut self, cold: &FamilyCold, key: usize, name: &[&str], value: u64, used: bool) {
        let Some(name) = self.admit(name, used) else {
            return;
        };
        let tags = self.tags(cold, key, name);
        self.snapshot.numbers.push(NumberRecord { name, kind: NumberKind::Gauge, value, delta: 0, used, tags });
    }

    /// A histogram; `index` is its place among the family's histograms.
    pub(crate) fn histogram(&mut self, cold: &FamilyCold, key: usize, index: usize, name: &[&str], unit: Unit) {
        let Merged { cumulative, interval } = cold.histogram(index);
        let Some(name) = self.admit(name, !cumulative.is_empty()) else {
            return;
        };
        let tags = self.tags(cold, key, name);
        self.snapshot.histograms.push(HistogramRecord { name, unit, cumulative, interval, tags });
    }

    /// A text readout.
    pub(crate) fn text(&mut self, cold: &FamilyCold, name: &[&str], value: String, used: bool) {
        let Some(name) = self.admit(name, used) else {
            return;
        };
        let tags = self.tags(cold, 0, name);
        self.snapshot.texts.push(TextRecord { name, value, tags });
    }

    /// Joins the name, if the statistic is asked for and not rejected.
    fn admit(&mut self, parts: &[&str], used: bool) -> Option<Name> {
        if self.selection.used_only && !used {
            return None;
        }
        let start = self.snapshot.names.len();
        parts.iter().for_each(|part| self.snapshot.names.push_str(part));
        let name = self.snapshot.names.get(start..).unwrap_or_default();
        let selected = self.selection.filter.is_none_or(|filter| filter.is_match(name) != self.selection.invert);
        if selected && !self.matcher.rejects(name) {
            return Some(Name { start, end: self.snapshot.names.len() });
        }
        self.snapshot.names.truncate(start);
        None
    }

    fn tags(&self, cold: &FamilyCold, key: usize, name: Name) -> Option<Arc<TagSet>> {
        self.selection.tags.then(|| cold.tags(key, self.snapshot.name(name), self.producer))
    }
}

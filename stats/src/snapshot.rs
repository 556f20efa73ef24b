//! All statistics at one moment, in order of their names: what renderings and sinks read.

use std::sync::Arc;

use crate::histogram::{Bins, Unit};
use crate::tags::{TagProducer, TagSet};

/// Counter or gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NumberKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A counter or gauge.
#[derive(Clone, Copy, Debug)]
pub struct NumberSample<'a> {
    /// Full name, with dots.
    pub name: &'a str,
    /// Counter or gauge.
    pub kind: NumberKind,
    /// Its value; a counter's since the start or the last `/reset_counters`.
    pub value: u64,
    /// A counter's growth since the last [`Store::flush_to_sinks`](crate::Store::flush_to_sinks).
    pub delta: u64,
    /// False if it was never written to.
    pub used: bool,
    /// Tags and what they leave of the name.
    pub tags: &'a TagSet,
}

/// A text readout.
#[derive(Clone, Copy, Debug)]
pub struct TextSample<'a> {
    /// Full name, with dots.
    pub name: &'a str,
    /// The text.
    pub value: &'a str,
    /// Tags and what they leave of the name.
    pub tags: &'a TagSet,
}

/// A histogram as of the last flush.
#[derive(Clone, Copy, Debug)]
pub struct HistogramSample<'a> {
    /// Full name, with dots.
    pub name: &'a str,
    /// The unit of its values.
    pub unit: Unit,
    /// All values until the last flush.
    pub cumulative: &'a Bins,
    /// The values between the last two flushes.
    pub interval: &'a Bins,
    /// Tags and what they leave of the name.
    pub tags: &'a TagSet,
}

/// All statistics at one moment; each kind in order of names.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) names: String,
    pub(crate) numbers: Vec<NumberRecord>,
    pub(crate) texts: Vec<TextRecord>,
    pub(crate) histograms: Vec<HistogramRecord>,
}

/// Where a name is in [`Snapshot::names`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Debug)]
pub(crate) struct NumberRecord {
    pub(crate) name: Name,
    pub(crate) kind: NumberKind,
    pub(crate) value: u64,
    pub(crate) delta: u64,
    pub(crate) used: bool,
    pub(crate) tags: Option<Arc<TagSet>>,
}

impl NumberRecord {
    /// The value to print. A gauge's shards are read one after the other while they change, so their sum may fall a little
    /// below zero; that is zero.
    pub(crate) fn shown(&self) -> u64 {
        const RACE: u64 = u64::MAX - u32::MAX as u64;
        if self.kind == NumberKind::Gauge && self.value >= RACE { 0 } else { self.value }
    }
}

#[derive(Debug)]
pub(crate) struct TextRecord {
    pub(crate) name: Name,
    pub(crate) value: String,
    pub(crate) tags: Option<Arc<TagSet>>,
}

#[derive(Debug)]
pub(crate) struct HistogramRecord {
    pub(crate) name: Name,
    pub(crate) unit: Unit,
    pub(crate) cumulative: Arc<Bins>,
    pub(crate) interval: Arc<Bins>,
    pub(crate) tags: Option<Arc<TagSet>>,
}

impl Snapshot {
    /// Counters and gauges.
    pub fn numbers(&self) -> impl Iterator<Item = NumberSample<'_>> {
        self.numbers.iter().map(|record| NumberSample {
            name: self.name(record.name),
            kind: record.kind,
            value: record.shown(),
            delta: record.delta,
            used: record.used,
            tags: tags_of(record.tags.as_ref()),
        })
    }

    /// Text readouts.
    pub fn texts(&self) -> impl Iterator<Item = TextSample<'_>> {
        self.texts.iter().map(|record| TextSample {
            name: self.name(record.name),
            value: &record.value,
            tags: tags_of(record.tags.as_ref()),
        })
    }

    /// Histograms, the unused too.
    pub fn histograms(&self) -> impl Iterator<Item = HistogramSample<'_>> {
        self.histograms.iter().map(|record| HistogramSample {
            name: self.name(record.name),
            unit: record.unit,
            cumulative: &record.cumulative,
            interval: &record.interval,
            tags: tags_of(record.tags.as_ref()),
        })
    }

    pub(crate) fn name(&self, name: Name) -> &str {
        self.names.get(name.start..name.end).unwrap_or_default()
    }

    /// Sorts by name. What was declared twice under one name (a counter in a group and in a family of codes) becomes one,
    /// added up.
    pub(crate) fn sort(&mut self) {
        let names = std::mem::take(&mut self.names);
        let text = |name: &Name| names.get(name.start..name.end).unwrap_or_default();
        self.numbers.sort_by(|a, b| (text(&a.name), a.kind).cmp(&(text(&b.name), b.kind)));
        self.numbers.dedup_by(|later, kept| {
            let same = later.kind == kept.kind && text(&later.name) == text(&kept.name);
            if same {
                kept.value = kept.value.wrapping_add(later.value);
                kept.delta = kept.delta.wrapping_add(later.delta);
                kept.used |= later.used;
            }
            same
        });
        self.texts.sort_by(|a, b| text(&a.name).cmp(text(&b.name)));
        self.histograms.sort_by(|a, b| text(&a.name).cmp(text(&b.name)));
        self.names = names;
    }
}

fn tags_of(tags: Option<&Arc<TagSet>>) -> &TagSet {
    tags.map_or_else(|| TagProducer::no_tags(), Arc::as_ref)
}

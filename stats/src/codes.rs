//! Response codes: `<family>_<code>`, `<family>_<N>xx` and `<family>_completed`, each shown from its first use, as
//! Envoy shows `cluster.<name>.upstream_rq_200`.
//!
//! A shard is one cache line: a cell holds a code and its count, so the codes an upstream usually answers with need no
//! table. The first code that finds no cell allocates one.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use crate::collect::{Collector, Family, FamilyCold};
use crate::snapshot::NumberKind;
use crate::store::Store;

const CELLS: usize = 6;
const FIRST: u16 = 100;
const LAST: u16 = 599;
const TABLE: usize = (LAST - FIRST + 1) as usize;

/// The "code" that all those outside 100 to 599 are counted as.
const UNKNOWN: u16 = LAST + 1;

/// A cell's code is in its upper 16 bits (0: free), its count below.
const COUNT_BITS: u32 = 48;

const KEY_COMPLETED: usize = 0;
const KEY_CLASSES: usize = 1;
const KEY_CODES: usize = 10;

/// One shard of a family of response codes. Only the shard's own thread may write to it.
#[derive(Clone, Debug)]
pub struct Codes(Arc<CodeCells>);

impl Codes {
    /// Counts a response with that status. A status outside 100 to 599 counts as `<family>_unknown`.
    #[inline]
    pub fn record(&self, status: u16) {
        self.0.record(if (FIRST..=LAST).contains(&status) { status } else { UNKNOWN });
    }
}

#[repr(align(64))]
#[derive(Debug, Default)]
struct CodeCells {
    cells: [AtomicU64; CELLS],
    /// Counts of the codes that found no cell; the last is for the unknown ones.
    table: OnceLock<Box<[AtomicU64; TABLE + 1]>>,
}

impl CodeCells {
    #[inline]
    fn record(&self, code: u16) {
        for cell in &self.cells {
            let value = cell.load(Relaxed);
            let held = (value >> COUNT_BITS) as u16;
            if held == code {
                return cell.store(value + 1, Relaxed);
            }
            if held == 0 {
                return cell.store((u64::from(code) << COUNT_BITS) + 1, Relaxed);
            }
        }
        let table = self.table.get_or_init(|| Box::new([const { AtomicU64::new(0) }; TABLE + 1]));
        if let Some(cell) = table.get(usize::from(code - FIRST)) {
            cell.store(cell.load(Relaxed) + 1, Relaxed);
        }
    }

    fn add_to(&self, counts: &mut BTreeMap<u16, u64>) {
        let cells = self.cells.iter().map(|cell| cell.load(Relaxed));
        let cells = cells.map(|value| ((value >> COUNT_BITS) as u16, value & ((1 << COUNT_BITS) - 1)));
        let table = self.table.get().into_iter().flat_map(|table| table.iter().map(|cell| cell.load(Relaxed)));
        for (code, count) in cells.chain((FIRST..=UNKNOWN).zip(table)).filter(|&(_, count)| count > 0) {
            *counts.entry(code).or_default() += count;
        }
    }
}

/// A family of response codes on all shards. Shown while a handle lives.
pub struct CodesHandle {
    family: Box<str>,
    shards: Box<[OnceLock<Arc<CodeCells>>]>,
    cold: FamilyCold,
    store: Weak<Store>,
}

impl CodesHandle {
    pub(crate) fn new(family: &str, store: &Arc<Store>) -> Self {
        Self {
            family: family.into(),
            shards: (0..store.shards()).map(|_| OnceLock::new()).collect(),
            cold: FamilyCold::default(),
            store: Arc::downgrade(store),
        }
    }

    /// The shard of one thread; see [`GroupHandle::shard`](crate::GroupHandle::shard).
    pub fn shard(&self, shard: usize) -> Codes {
        debug_assert!(shard < self.shards.len(), "shard {shard} of {}", self.shards.len());
        let index = shard.min(self.shards.len().saturating_sub(1));
        Codes(self.shards.get(index).map_or_else(Arc::default, |slot| Arc::clone(slot.get_or_init(Arc::default))))
    }

    fn counts(&self) -> BTreeMap<u16, u64> {
        let mut counts = BTreeMap::new();
        self.shards.iter().filter_map(OnceLock::get).for_each(|cells| cells.add_to(&mut counts));
        counts
    }
}

impl Family for CodesHandle {
    fn prefix(&self) -> &str {
        &self.family
    }

    fn collect(&self, into: &mut Collector<'_>) {
        if !into.wants(NumberKind::Counter) {
            return;
        }
        let counts = self.counts();
        if counts.is_empty() {
            return;
        }
        let sums = Sums::of(&counts);
        let mut text = itoa::Buffer::new();
        into.counter(&self.cold, KEY_COMPLETED, &[&self.family, "_completed"], sums.completed);
        for (class, &sum) in sums.classes.iter().enumerate().filter(|(_, sum)| **sum > 0) {
            into.counter(&self.cold, KEY_CLASSES + class, &[&self.family, "_", text.format(class + 1), "xx"], sum);
        }
        for (&code, &count) in &counts {
            let name = if code == UNKNOWN { "unknown" } else { text.format(code) };
            into.counter(&self.cold, KEY_CODES + usize::from(code - FIRST), &[&self.family, "_", name], count);
        }
    }

    fn reset_counters(&self) {
        let counts = self.counts();
        let sums = Sums::of(&counts);
        let mut by_key = vec![0; KEY_CODES + TABLE + 1];
        let codes = counts.iter().map(|(&code, &count)| (KEY_CODES + usize::from(code - FIRST), count));
        let classes = sums.classes.iter().enumerate().map(|(class, &sum)| (KEY_CLASSES + class, sum));
        for (key, sum) in codes.chain(classes).chain([(KEY_COMPLETED, sums.completed)]) {
            if let Some(slot) = by_key.get_mut(key) {
                *slot = sum;
            }
        }
        self.cold.reset_counters(by_key.into_iter());
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// What follows from the counts of single codes.
#[derive(Default)]
struct Sums {
    completed: u64,
    /// 1xx first.
    classes: [u64; 5],
}

impl Sums {
    fn of(counts: &BTreeMap<u16, u64>) -> Self {
        let mut sums = Self::default();
        for (&code, &count) in counts {
            sums.completed += count;
            let class = usize::from(code / 100).checked_sub(1);
            if let Some(slot) = class.and_then(|class| sums.classes.get_mut(class)) {
                *slot += count;
            }
        }
        sums
    }
}

impl Drop for CodesHandle {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.forget(TypeId::of::<Self>(), &self.family);
        }
    }
}

impl fmt::Debug for CodesHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodesHandle").field("family", &self.family).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_counted_once_whatever_the_order() {
        let cells = CodeCells::default();
        let mut expected = BTreeMap::new();
        for round in 0..3u16 {
            for code in (FIRST..=UNKNOWN).rev().step_by(7 + usize::from(round)) {
                cells.record(code);
                *expected.entry(code).or_default() += 1;
            }
        }
        let mut counts = BTreeMap::new();
        cells.add_to(&mut counts);
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_shard_of_usual_codes_is_one_cache_line() {
        assert_eq!(size_of::<CodeCells>(), 64);
        let cells = CodeCells::default();
        for code in [200, 404, 503, 200, 204, 301, 504] {
            cells.record(code);
        }
        assert!(cells.table.get().is_none());
    }
}

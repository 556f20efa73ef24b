//! Groups: a static schema of statistics below one prefix, with one block of cells per shard.
//!
//! A block ([`Cells`]) is allocated by the thread that owns the shard, on first use, and never moves. Its counters and
//! gauges lie next to each other at offsets known at compile time; a histogram costs one empty slot until its first value.

use std::any::{Any, TypeId};
use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use crate::collect::{Collector, Family, FamilyCold};
use crate::histogram::{Bins, HistogramSlot, Unit};
use crate::snapshot::NumberKind;
use crate::store::Store;

/// Declares a group of statistics: a struct with one accessor per statistic, over one shard.
///
/// ```
/// stats::group! {
///     /// `http.<stat_prefix>.` statistics.
///     pub struct HttpStats {
///         counters { downstream_cx_total, rbac_allowed = "rbac.allowed" }
///         gauges { downstream_cx_active }
///         histograms { downstream_rq_time: Milliseconds }
///     }
/// }
/// let store = stats::Store::new(3, stats::StoreOptions::default());
/// let handle = store.group::<HttpStats>("http.ingress.");
/// let local = handle.shard(0);
/// local.downstream_cx_total().inc();
/// local.downstream_cx_active().add(2);
/// local.downstream_rq_time().record(17);
/// assert_eq!(handle.total(|shard| shard.downstream_cx_total().value()), 1);
/// ```
///
/// The sections may be left out but keep this order. A statistic whose name is not a Rust identifier, or has dots, gives
/// it after `=`; for a histogram after the unit: `time: Milliseconds = "a.time"`. Units are those of [`Unit`].
#[macro_export]
macro_rules! group {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( counters { $( $(#[$counter_meta:meta])* $counter:ident $(= $counter_name:literal)? ),* $(,)? } )?
            $( gauges { $( $(#[$gauge_meta:meta])* $gauge:ident $(= $gauge_name:literal)? ),* $(,)? } )?
            $( histograms { $(
                $(#[$histogram_meta:meta])* $histogram:ident : $unit:ident $(= $histogram_name:literal)?
            ),* $(,)? } )?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name(::std::sync::Arc<$crate::Cells<{ $name::CELLS }, { $name::HISTOGRAMS }>>);

        impl $name {
            const COUNTER_NAMES: &'static [&'static str] =
                &[ $($( $crate::stat_name!($counter $($counter_name)?), )*)? ];
            const GAUGE_NAMES: &'static [&'static str] =
                &[ $($( $crate::stat_name!($gauge $($gauge_name)?), )*)? ];
            const HISTOGRAM_NAMES: &'static [(&'static str, $crate::Unit)] = &[ $($(
                ($crate::stat_name!($histogram $($histogram_name)?), $crate::Unit::$unit),
            )*)? ];
            const COUNTERS: usize = Self::COUNTER_NAMES.len();
            const GAUGES: usize = Self::GAUGE_NAMES.len();
            const CELLS: usize = $crate::cell_count(Self::COUNTERS, Self::GAUGES);
            const HISTOGRAMS: usize = Self::HISTOGRAM_NAMES.len();
        }

        impl $crate::Group for $name {
            const SCHEMA: $crate::Schema = $crate::Schema {
                counters: Self::COUNTER_NAMES,
                gauges: Self::GAUGE_NAMES,
                histograms: Self::HISTOGRAM_NAMES,
            };
            type Cells = $crate::Cells<{ $name::CELLS }, { $name::HISTOGRAMS }>;

            fn from_cells(cells: ::std::sync::Arc<Self::Cells>) -> Self {
                Self(cells)
            }
        }

        const _: () = {
            #[allow(non_camel_case_types, dead_code, reason = "the variants only number the fields")]
            enum CounterIndex { $($( $counter, )*)? }
            #[allow(non_camel_case_types, dead_code, reason = "the variants only number the fields")]
            enum GaugeIndex { $($( $gauge, )*)? }
            #[allow(non_camel_case_types, dead_code, reason = "the variants only number the fields")]
            enum HistogramIndex { $($( $histogram, )*)? }

            #[allow(dead_code, reason = "a group declares every statistic Envoy shows, used or not")]
            impl $name {
                $($(
                    #[doc = concat!("The counter `", $crate::stat_name!($counter $($counter_name)?), "`.")]
                    $(#[$counter_meta])*
                    #[inline]
                    $vis fn $counter(&self) -> $crate::Counter<'_> {
                        self.0.counter(CounterIndex::$counter as usize)
                    }
                )*)?
                $($(
                    #[doc = concat!("The gauge `", $crate::stat_name!($gauge $($gauge_name)?), "`.")]
                    $(#[$gauge_meta])*
                    #[inline]
                    $vis fn $gauge(&self) -> $crate::Gauge<'_> {
                        self.0.gauge(Self::COUNTERS, Self::GAUGES, GaugeIndex::$gauge as usize)
                    }
                )*)?
                $($(
                    #[doc = concat!("The histogram `", $crate::stat_name!($histogram $($histogram_name)?), "`.")]
                    $(#[$histogram_meta])*
                    #[inline]
                    $vis fn $histogram(&self) -> $crate::Histogram<'_> {
                        self.0.histogram(HistogramIndex::$histogram as usize)
                    }
                )*)?
            }
        };
    };
}

/// The name of a statistic: the literal if there is one, else the identifier. Used by [`group!`].
#[doc(hidden)]
#[macro_export]
macro_rules! stat_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

/// The names of a group's statistics, without their prefix.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Counters, in the order of their cells.
    pub counters: &'static [&'static str],
    /// Gauges, in the order of their cells.
    pub gauges: &'static [&'static str],
    /// Histograms and the units of their values.
    pub histograms: &'static [(&'static str, Unit)],
}

/// A group of statistics, as declared by [`group!`]; the value itself is one shard of it.
pub trait Group: Clone + Send + Sync + 'static {
    /// What is counted.
    const SCHEMA: Schema;
    /// The memory of one shard.
    type Cells: CellStore;
    /// Wraps one shard's memory.
    fn from_cells(cells: Arc<Self::Cells>) -> Self;
}

/// The memory of one shard of a group, as a scrape sees it.
pub trait CellStore: Send + Sync + 'static {
    /// All zero.
    fn new() -> Self;
    /// Counters, then gauges, then one bit per gauge that was ever written.
    fn cells(&self) -> &[AtomicU64];
    /// The histograms.
    fn histograms(&self) -> &[HistogramSlot];
}

/// How many cells a group of that many counters and gauges needs.
#[doc(hidden)]
pub const fn cell_count(counters: usize, gauges: usize) -> usize {
    counters + gauges + gauges.div_ceil(64)
}

/// The memory of one shard: `N` cells and `H` histograms. Aligned to a cache line, so that shards never share one.
#[repr(align(64))]
pub struct Cells<const N: usize, const H: usize> {
    cells: [AtomicU64; N],
    histograms: [HistogramSlot; H],
}

impl<const N: usize, const H: usize> Cells<N, H> {
    /// The counter at a cell. `index` is a constant below `N`.
    #[doc(hidden)]
    #[inline(always)]
    pub fn counter(&self, index: usize) -> Counter<'_> {
        Counter(&self.cells[index])
    }

    /// The `index`th gauge of a group with that many counters and gauges (all constants).
    #[doc(hidden)]
    #[inline(always)]
    pub fn gauge(&self, counters: usize, gauges: usize, index: usize) -> Gauge<'_> {
        Gauge {
            value: &self.cells[counters + index],
            used: &self.cells[counters + gauges + index / 64],
            bit: 1 << (index % 64),
        }
    }

    /// The histogram at a slot. `index` is a constant below `H`.
    #[doc(hidden)]
    #[inline(always)]
    pub fn histogram(&self, index: usize) -> Histogram<'_> {
        Histogram(&self.histograms[index])
    }
}

impl<const N: usize, const H: usize> CellStore for Cells<N, H> {
    fn new() -> Self {
        Self { cells: [const { AtomicU64::new(0) }; N], histograms: [const { HistogramSlot::new() }; H] }
    }

    fn cells(&self) -> &[AtomicU64] {
        &self.cells
    }

    fn histograms(&self) -> &[HistogramSlot] {
        &self.histograms
    }
}

impl<const N: usize, const H: usize> fmt::Debug for Cells<N, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").field("cells", &N).field("histograms", &H).finish_non_exhaustive()
    }
}

/// One shard of a counter. Only the shard's own thread may write to it.
#[derive(Clone, Copy, Debug)]
pub struct Counter<'a>(&'a AtomicU64);

impl Counter<'_> {
    /// Adds one.
    #[inline(always)]
    pub fn inc(self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline(always)]
    pub fn add(self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What this shard has counted since it began; [`Store::reset_counters`] does not change it.
    #[inline]
    pub fn value(self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One shard of a gauge. The value shown is the sum over the shards, so a shard may go below zero (a connection can be
/// opened on one thread and closed on another). Only the shard's own thread may write to it.
#[derive(Clone, Copy, Debug)]
pub struct Gauge<'a> {
    value: &'a AtomicU64,
    used: &'a AtomicU64,
    bit: u64,
}

impl Gauge<'_> {
    /// Adds one.
    #[inline(always)]
    pub fn inc(self) {
        self.add(1);
    }

    /// Takes one off.
    #[inline(always)]
    pub fn dec(self) {
        self.sub(1);
    }

    /// Adds `n`.
    #[inline(always)]
    pub fn add(self, n: u64) {
        self.set(self.value.load(Relaxed).wrapping_add(n));
    }

    /// Takes `n` off.
    #[inline(always)]
    pub fn sub(self, n: u64) {
        self.set(self.value.load(Relaxed).wrapping_sub(n));
    }

    /// Sets this shard's part; the other shards keep theirs. Any `u64` is shown as it is, except the 2^32 highest ones.
    #[inline(always)]
    pub fn set(self, value: u64) {
        self.value.store(value, Relaxed);
        let used = self.used.load(Relaxed);
        if used & self.bit == 0 {
            self.used.store(used | self.bit, Relaxed);
        }
    }

    /// This shard's part; below zero it is a two's complement, to be added with wrapping.
    #[inline]
    pub fn value(self) -> u64 {
        self.value.load(Relaxed)
    }
}

/// One shard of a histogram. Only the shard's own thread may write to it.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a>(&'a HistogramSlot);

impl Histogram<'_> {
    /// Records a value, in the histogram's unit (percentages as parts of a million). The first value of each power of
    /// ten allocates its 90 bins.
    #[inline]
    pub fn record(self, value: u64) {
        self.0.record(value);
    }
}

/// A group of statistics below one prefix, on all shards. Kept by whoever owns the configuration it belongs to; when the
/// last handle is dropped, the statistics are no longer shown.
pub struct GroupHandle<G: Group> {
    prefix: Box<str>,
    /// Shown from the first use by any thread on, not from the beginning.
    on_first_use: bool,
    shards: Box<[OnceLock<Arc<G::Cells>>]>,
    cold: FamilyCold,
    store: Weak<Store>,
}

impl<G: Group> GroupHandle<G> {
    pub(crate) fn new(prefix: &str, on_first_use: bool, store: &Arc<Store>) -> Self {
        Self {
            prefix: prefix.into(),
            on_first_use,
            shards: (0..store.shards()).map(|_| OnceLock::new()).collect(),
            cold: FamilyCold::default(),
            store: Arc::downgrade(store),
        }
    }

    /// The shard of one thread, allocated on its first use. Call it once, from that thread, and keep the result.
    ///
    /// `shard` must be below [`Store::shards`]; a larger number counts on the last one.
    pub fn shard(&self, shard: usize) -> G {
        debug_assert!(shard < self.shards.len(), "shard {shard} of {}", self.shards.len());
        let index = shard.min(self.shards.len().saturating_sub(1));
        match self.shards.get(index) {
            Some(slot) => G::from_cells(Arc::clone(slot.get_or_init(|| Arc::new(G::Cells::new())))),
            None => G::from_cells(Arc::new(G::Cells::new())),
        }
    }

    /// The shard of one thread, which it takes when it first counts.
    pub fn lazy_shard(self: &Arc<Self>, shard: usize) -> LazyShard<G> {
        LazyShard { handle: Arc::clone(self), shard, cell: OnceCell::new() }
    }

    /// The prefix, with its final dot.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sums a value over the shards in use, with wrapping (so gauges come out right):
    /// `handle.total(|shard| shard.upstream_cx_active().value())`.
    pub fn total(&self, value: impl Fn(&G) -> u64) -> u64 {
        self.used_shards().map(|cells| value(&G::from_cells(Arc::clone(cells)))).fold(0, u64::wrapping_add)
    }

    fn used_shards(&self) -> impl Iterator<Item = &Arc<G::Cells>> {
        self.shards.iter().filter_map(OnceLock::get)
    }

    fn sum_cell(&self, index: usize) -> u64 {
        self.used_shards()
            .filter_map(|cells| cells.cells().get(index))
            .fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    fn gauge_is_used(&self, index: usize) -> bool {
        let word = G::SCHEMA.counters.len() + G::SCHEMA.gauges.len() + index / 64;
        self.used_shards()
            .filter_map(|cells| cells.cells().get(word))
            .any(|cell| cell.load(Relaxed) & (1 << (index % 64)) != 0)
    }
}

impl<G: Group> Family for GroupHandle<G> {
    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn collect(&self, into: &mut Collector<'_>) {
        if self.on_first_use && self.used_shards().next().is_none() {
            return;
        }
        let Schema { counters, gauges, histograms } = G::SCHEMA;
        let mut key = 0;
        if into.wants(NumberKind::Counter) {
            for (index, name) in counters.iter().enumerate() {
                into.counter(&self.cold, key + index, &[&self.prefix, name], self.sum_cell(index));
            }
        }
        key += counters.len();
        if into.wants(NumberKind::Gauge) {
            for (index, name) in gauges.iter().enumerate() {
                let value = self.sum_cell(counters.len() + index);
                into.gauge(&self.cold, key + index, &[&self.prefix, name], value, self.gauge_is_used(index));
            }
        }
        key += gauges.len();
        if into.wants_histograms() {
            for (index, &(name, unit)) in histograms.iter().enumerate() {
                into.histogram(&self.cold, key + index, index, &[&self.prefix, name], unit);
            }
        }
    }

    fn merge_histograms(&self) {
        self.cold.merge_histograms(G::SCHEMA.histograms.len(), |index| {
            let mut total = Bins::default();
            for slot in self.used_shards().filter_map(|cells| cells.histograms().get(index)) {
                slot.add_to(&mut total);
            }
            total
        });
    }

    fn reset_counters(&self) {
        self.cold.reset_counters((0..G::SCHEMA.counters.len()).map(|index| self.sum_cell(index)));
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<G: Group> Drop for GroupHandle<G> {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.forget(TypeId::of::<G>(), &self.prefix);
        }
    }
}

impl<G: Group> fmt::Debug for GroupHandle<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupHandle").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The shard of one thread, taken when it is first looked at: what is in it then. Of a group that is shown on first use
/// ([`Store::group_on_first_use`]) that is the use.
pub struct LazyShard<G: Group> {
    handle: Arc<GroupHandle<G>>,
    shard: usize,
    cell: OnceCell<G>,
}

impl<G: Group> LazyShard<G> {
    /// Takes the shard now, without counting anything.
    pub fn take(&self) {
        let _shard: &G = self;
    }
}

impl<G: Group> Deref for LazyShard<G> {
    type Target = G;

    #[inline]
    fn deref(&self) -> &G {
        self.cell.get_or_init(|| self.handle.shard(self.shard))
    }
}

impl<G: Group> fmt::Debug for LazyShard<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyShard").field("handle", &self.handle).field("shard", &self.shard).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_costs_what_its_counters_cost() {
        assert!(size_of::<Cells<{ cell_count(120, 0) }, 6>>() <= 1088);
        assert_eq!(size_of::<Cells<{ cell_count(7, 0) }, 0>>(), 64);
        assert_eq!((cell_count(3, 0), cell_count(3, 1), cell_count(3, 64), cell_count(3, 65)), (3, 5, 68, 70));
    }

    #[test]
    fn the_sixty_fifth_gauge_has_its_own_bit() {
        let cells = Cells::<{ cell_count(1, 65) }, 0>::new();
        cells.gauge(1, 65, 64).inc();
        cells.gauge(1, 65, 0).set(4);
        cells.counter(0).inc();
        let values: Vec<_> = cells.cells().iter().map(|cell| cell.load(Relaxed)).collect();
        assert_eq!((values[0], values[1], values[65], values[66], values[67]), (1, 4, 1, 1, 1));
    }
}

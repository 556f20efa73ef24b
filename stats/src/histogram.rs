//! Log-linear histograms with two significant digits: the bins, interpolation and estimated sums of circllhist, which
//! Envoy uses, so the same values give the same printed quantiles.
//!
//! A bin is a leading number of two digits and a power of ten: `[1.3, 1.4)`, `[130, 140)`; zero has its own. Recorded
//! values are integers, so ninety bins for each of twenty powers of ten hold any `u64`. A shard allocates the ninety bins
//! of a power of ten when a value falls into it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The quantiles that Envoy computes and prints.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// What one of a percent histogram's recorded units is worth: recorded are parts of a million.
const PERCENT_SCALE: f64 = 1_000_000.0;

const DECADES: usize = 20;
const BINS_PER_DECADE: usize = 90;

const POWERS: [f64; DECADES] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19];

/// The unit of a histogram's values. It is a hint to sinks, except for [`Unit::Percent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    #[default]
    Unspecified,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// A part of a whole, recorded in millionths and shown as a fraction.
    Percent,
}

impl Unit {
    /// How many recorded units make one shown.
    pub(crate) fn scale(self) -> f64 {
        match self {
            Self::Percent => PERCENT_SCALE,
            Self::Unspecified | Self::Bytes | Self::Microseconds | Self::Milliseconds => 1.0,
        }
    }
}

/// One bin: the values that share two leading digits and a power of ten. Ordered by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bin(u16);

impl Bin {
    /// The bin of zero, which has no width.
    pub const ZERO: Self = Self(0);

    /// The bin a recorded value belongs to.
    #[inline]
    pub fn of(value: u64) -> Self {
        match position(value) {
            None => Self::ZERO,
            Some((decade, offset)) => Self((1 + decade * BINS_PER_DECADE + offset) as u16),
        }
    }

    /// Where the bin begins.
    pub fn lower_bound(self) -> f64 {
        match self.parts() {
            None => 0.0,
            Some((decade, digits)) => digits as f64 / 10.0 * power(decade),
        }
    }

    /// How wide it is.
    pub fn width(self) -> f64 {
        match self.parts() {
            None => 0.0,
            Some((decade, _)) => power(decade) / 10.0,
        }
    }

    /// The point inside with the least possible relative error either way: what a value is taken for in a sum.
    pub(crate) fn midpoint(self) -> f64 {
        let bottom = self.lower_bound();
        if bottom == 0.0 {
            return 0.0;
        }
        let width = self.width();
        bottom + width * (bottom / (bottom + (bottom + width)))
    }

    /// True if the bin is not above the one that `threshold` falls into.
    pub(crate) fn is_up_to(self, threshold: f64) -> bool {
        let Some((decade, digits)) = self.parts() else {
            return threshold >= 0.0;
        };
        if threshold.is_nan() || threshold <= 0.0 {
            return false;
        }
        let mut exponent = threshold.log10().floor();
        // The margin undoes rounding at a bin's edge: 0.11 / 0.1 * 10 is a little below 11.
        let mut leading = (threshold / 10f64.powi(exponent as i32) * 10.0 + 1e-13).floor();
        if leading >= 100.0 {
            leading = 10.0;
            exponent += 1.0;
        }
        (decade as f64, digits as f64) <= (exponent, leading)
    }

    /// Power of ten and leading digits (10 to 99); nothing for zero.
    fn parts(self) -> Option<(usize, usize)> {
        let index = usize::from(self.0).checked_sub(1)?;
        Some((index / BINS_PER_DECADE, index % BINS_PER_DECADE + 10))
    }
}

fn power(decade: usize) -> f64 {
    POWERS.get(decade).copied().unwrap_or(f64::INFINITY)
}

/// Power of ten, and distance from its first bin; nothing for zero.
#[inline]
fn position(value: u64) -> Option<(usize, usize)> {
    match value {
        0 => None,
        1..=9 => Some((0, value as usize * 10 - 10)),
        10..=99 => Some((1, value as usize - 10)),
        _ => {
            let decade = value.ilog10();
            Some((decade as usize, (value / 10u64.pow(decade - 1)) as usize - 10))
        }
    }
}

/// Where a shard's histogram will be once it has a value.
#[derive(Default)]
pub struct HistogramSlot(OnceLock<Box<HistogramCells>>);

impl HistogramSlot {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    #[inline]
    pub(crate) fn record(&self, value: u64) {
        self.0.get_or_init(Box::default).record(value);
    }

    pub(crate) fn add_to(&self, bins: &mut Bins) {
        if let Some(cells) = self.0.get() {
            cells.add_to(bins);
        }
    }
}

impl fmt::Debug for HistogramSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistogramSlot").field("in_use", &self.0.get().is_some()).finish()
    }
}

type Decade = Box<[AtomicU64; BINS_PER_DECADE]>;

/// A shard's histogram: one writer, many readers.
#[derive(Default)]
pub struct HistogramCells {
    zero: AtomicU64,
    decades: [OnceLock<Decade>; DECADES],
}

impl HistogramCells {
    /// Counts a value.
    #[inline]
    pub fn record(&self, value: u64) {
        let cell = match position(value) {
            None => Some(&self.zero),
            Some((decade, offset)) => self.decades.get(decade).and_then(|bins| {
                bins.get_or_init(|| Box::new([const { AtomicU64::new(0) }; BINS_PER_DECADE])).get(offset)
            }),
        };
        if let Some(cell) = cell {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Adds what was counted to `bins`.
    pub fn add_to(&self, bins: &mut Bins) {
        let mut counts = Vec::new();
        let zero = self.zero.load(Relaxed);
        if zero > 0 {
            counts.push((Bin::ZERO, zero));
        }
        for (decade, cells) in self.decades.iter().enumerate() {
            for (offset, cell) in cells.get().into_iter().flat_map(|cells| cells.iter()).enumerate() {
                let count = cell.load(Relaxed);
                if count > 0 {
                    counts.push((Bin((1 + decade * BINS_PER_DECADE + offset) as u16), count));
                }
            }
        }
        bins.add(&counts);
    }
}

impl fmt::Debug for HistogramCells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bins = Bins::default();
        self.add_to(&mut bins);
        bins.fmt(f)
    }
}

/// Counts by bin: an immutable picture of a histogram. Bins are in order and none is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bins(Vec<(Bin, u64)>);

impl Bins {
    /// The bins with values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Bin, u64)> + '_ {
        self.0.iter().copied()
    }

    /// True if no value was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(_, count)| count).sum()
    }

    /// An estimate of the values' sum, in recorded units.
    pub fn sum(&self) -> f64 {
        self.0.iter().map(|&(bin, count)| bin.midpoint() * count as f64).sum()
    }

    /// How many values are in bins up to the one that holds `threshold`, that one included.
    pub fn count_up_to(&self, threshold: f64) -> u64 {
        self.0.iter().take_while(|(bin, _)| bin.is_up_to(threshold)).map(|&(_, count)| count).sum()
    }

    /// The value at each of the quantiles (ascending, 0 to 1), in recorded units; NaN if there are no values. Of `n` values
    /// in a bin, the `k`th is taken to lie at `k / (n + 1)` of its width.
    pub fn quantiles<const N: usize>(&self, quantiles: &[f64; N]) -> [f64; N] {
        let total = self.count() as f64;
        let mut bins = self.0.iter();
        let Some(&(mut bin, mut inside)) = bins.next() else {
            return [f64::NAN; N];
        };
        let mut below = 0u64;
        quantiles.map(|quantile| {
            let rank = total * quantile;
            while ((below + inside) as f64) < rank {
                let Some(&(next, count)) = bins.next() else {
                    break;
                };
                below += inside;
                (bin, inside) = (next, count);
            }
            let nth = (rank - below as f64).ceil().max(1.0);
            bin.lower_bound() + nth / (inside as f64 + 1.0) * bin.width()
        })
    }

    /// What was added since `earlier`, a former picture of the same histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut old = earlier.0.iter().peekable();
        let mut added = Vec::new();
        for &(bin, count) in &self.0 {
            while old.next_if(|(other, _)| *other < bin).is_some() {}
            let before = old.next_if(|(other, _)| *other == bin).map_or(0, |&(_, count)| count);
            if count > before {
                added.push((bin, count - before));
            }
        }
        Self(added)
    }

    /// Adds counts that are in order.
    fn add(&mut self, counts: &[(Bin, u64)]) {
        if self.0.is_empty() {
            self.0 = counts.to_vec();
            return;
        }
        self.0.extend_from_slice(counts);
        self.0.sort_by_key(|&(bin, _)| bin);
        self.0.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 += later.1;
            }
            same
        });
    }
}

#[cfg(test)]
mod tests;

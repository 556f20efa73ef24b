//! `format=text`.

use super::number::{general, plain};
use crate::histogram::{Bins, QUANTILES, Unit};
use crate::query::{BucketMode, Query};
use crate::snapshot::{HistogramSample, Snapshot};
use crate::store::Store;

/// The quantiles, in percent.
pub(super) const PERCENTS: [&str; QUANTILES.len()] = ["0", "25", "50", "75", "90", "95", "99", "99.5", "99.9", "100"];

pub(super) fn render(store: &Store, query: &Query, snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(snapshot.names.len() * 5 / 4);
    for text in snapshot.texts() {
        out.extend([text.name, ": \"", text.value, "\"\n"]);
    }
    let mut digits = itoa::Buffer::new();
    for number in snapshot.numbers() {
        out.extend([number.name, ": ", digits.format(number.value), "\n"]);
    }
    for histogram in snapshot.histograms() {
        out.push_str(histogram.name);
        if histogram.cumulative.is_empty() {
            out.push_str(": No recorded values\n");
            continue;
        }
        match query.histogram_buckets {
            BucketMode::Default | BucketMode::Summary | BucketMode::PrometheusNative => {
                out.extend([": ", &*quantiles(&histogram), "\n"]);
            }
            BucketMode::Cumulative => out.extend([": ", &*buckets(store, &histogram, false), "\n"]),
            BucketMode::Disjoint => out.extend([": ", &*buckets(store, &histogram, true), "\n"]),
            BucketMode::Detailed => {
                out.extend([":\n  totals=", &*bins(histogram.cumulative, histogram.unit)]);
                out.extend(["\n  intervals=", &*bins(histogram.interval, histogram.unit)]);
                out.extend(["\n  summary=", &*quantiles(&histogram), "\n"]);
            }
        }
    }
    out
}

/// The counts for the upper bounds: of the values up to each, or with `disjoint` only of those above the one before.
pub(super) fn bucket_counts(bins: &Bins, unit: Unit, bounds: &[f64], disjoint: bool) -> Vec<u64> {
    let mut below = 0;
    let counts = bounds.iter().map(|bound| {
        let count = bins.count_up_to(bound * unit.scale());
        count - if disjoint { std::mem::replace(&mut below, count) } else { 0 }
    });
    counts.collect()
}

/// The values at [`QUANTILES`], in the unit shown.
pub(super) fn quantile_values(bins: &Bins, unit: Unit) -> [f64; QUANTILES.len()] {
    bins.quantiles(&QUANTILES).map(|value| value / unit.scale())
}

fn quantiles(histogram: &HistogramSample<'_>) -> String {
    let intervals = quantile_values(histogram.interval, histogram.unit);
    let totals = quantile_values(histogram.cumulative, histogram.unit);
    let parts = PERCENTS.iter().zip(intervals).zip(totals);
    let parts = parts.map(|((percent, interval), total)| format!("P{percent}({},{})", plain(interval), plain(total)));
    parts.collect::<Vec<_>>().join(" ")
}

fn buckets(store: &Store, histogram: &HistogramSample<'_>, disjoint: bool) -> String {
    let bounds = store.buckets(histogram.name);
    let intervals = bucket_counts(histogram.interval, histogram.unit, bounds, disjoint);
    let totals = bucket_counts(histogram.cumulative, histogram.unit, bounds, disjoint);
    let parts = bounds.iter().zip(intervals).zip(totals);
    let parts = parts.map(|((&bound, interval), total)| format!("B{}({interval},{total})", general(bound, 6)));
    parts.collect::<Vec<_>>().join(" ")
}

fn bins(bins: &Bins, unit: Unit) -> String {
    let parts = bins.iter().map(|(bin, count)| {
        let (lower, width) = (bin.lower_bound() / unit.scale(), bin.width() / unit.scale());
        format!("{},{}:{count}", general(lower, 6), general(width, 6))
    });
    parts.collect::<Vec<_>>().join(", ")
}

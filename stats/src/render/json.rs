//! `format=json`.

use super::number::compact;
use super::text::{PERCENTS, bucket_counts, quantile_values};
use crate::histogram::{Bins, Unit};
use crate::query::{BucketMode, Query};
use crate::snapshot::{HistogramSample, Snapshot};
use crate::store::Store;

pub(super) fn render(store: &Store, query: &Query, snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(snapshot.names.len() * 2);
    out.push_str("{\"stats\":[");
    let mut stats = List::new();
    for text in snapshot.texts() {
        stats.next(&mut out);
        out.extend(["{\"name\":", &*quoted(text.name), ",\"value\":", &*quoted(text.value), "}"]);
    }
    let mut digits = itoa::Buffer::new();
    for number in snapshot.numbers() {
        stats.next(&mut out);
        out.extend(["{\"name\":", &*quoted(number.name), ",\"value\":", digits.format(number.value), "}"]);
    }
    if !snapshot.histograms.is_empty() {
        stats.next(&mut out);
        histograms(store, query, snapshot, &mut out);
    }
    out.push_str("]}");
    out
}

fn histograms(store: &Store, query: &Query, snapshot: &Snapshot, out: &mut String) {
    let percents = PERCENTS.join(",");
    let end = match query.histogram_buckets {
        BucketMode::Default | BucketMode::Summary | BucketMode::PrometheusNative => {
            out.extend(["{\"histograms\":{\"supported_quantiles\":[", &percents, "],\"computed_quantiles\":["]);
            "]}}"
        }
        BucketMode::Detailed => {
            out.extend(["{\"histograms\":{\"supported_percentiles\":[", &percents, "],\"details\":["]);
            "]}}"
        }
        BucketMode::Cumulative | BucketMode::Disjoint => {
            out.push_str("{\"histograms\":[");
            "]}"
        }
    };
    let mut list = List::new();
    for histogram in snapshot.histograms() {
        list.next(out);
        out.extend(["{\"name\":", &*quoted(histogram.name)]);
        match query.histogram_buckets {
            BucketMode::Default | BucketMode::Summary | BucketMode::PrometheusNative => {
                out.push_str(",\"values\":");
                quantiles(&histogram, out);
            }
            BucketMode::Detailed => {
                out.push_str(",\"totals\":");
                bins(histogram.cumulative, histogram.unit, out);
                out.push_str(",\"intervals\":");
                bins(histogram.interval, histogram.unit, out);
                out.push_str(",\"percentiles\":");
                quantiles(&histogram, out);
            }
            BucketMode::Cumulative => buckets(store, &histogram, false, out),
            BucketMode::Disjoint => buckets(store, &histogram, true, out),
        }
        out.push('}');
    }
    out.push_str(end);
}

fn quantiles(histogram: &HistogramSample<'_>, out: &mut String) {
    let totals = quantile_values(histogram.cumulative, histogram.unit);
    let intervals = quantile_values(histogram.interval, histogram.unit);
    let mut list = List::new();
    out.push('[');
    for (total, interval) in totals.into_iter().zip(intervals) {
        list.next(out);
        out.push_str(&format!("{{\"cumulative\":{},\"interval\":{}}}", number(total), number(interval)));
    }
    out.push(']');
}

fn buckets(store: &Store, histogram: &HistogramSample<'_>, disjoint: bool, out: &mut String) {
    let bounds = store.buckets(histogram.name);
    let totals = bucket_counts(histogram.cumulative, histogram.unit, bounds, disjoint);
    let intervals = bucket_counts(histogram.interval, histogram.unit, bounds, disjoint);
    let mut list = List::new();
    out.push_str(",\"buckets\":[");
    for ((&bound, interval), total) in bounds.iter().zip(intervals).zip(totals) {
        list.next(out);
        let bound = number(bound);
        out.push_str(&format!("{{\"upper_bound\":{bound},\"interval\":{interval},\"cumulative\":{total}}}"));
    }
    out.push(']');
}

fn bins(bins: &Bins, unit: Unit, out: &mut String) {
    let mut list = List::new();
    out.push('[');
    for (bin, count) in bins.iter() {
        list.next(out);
        let (lower, width) = (number(bin.lower_bound() / unit.scale()), number(bin.width() / unit.scale()));
        out.push_str(&format!("{{\"lower_bound\":{lower},\"width\":{width},\"count\":{count}}}"));
    }
    out.push(']');
}

/// JSON has no word for what is not a number.
fn number(value: f64) -> String {
    if value.is_finite() { compact(value) } else { "null".to_owned() }
}

fn quoted(text: &str) -> String {
    let mut quoted = serde_json::Value::from(text).to_string();
    if quoted.contains('\u{7f}') {
        quoted = quoted.replace('\u{7f}', "\\u007f");
    }
    quoted
}

/// Puts commas between entries.
struct List {
    empty: bool,
}

impl List {
    fn new() -> Self {
        Self { empty: true }
    }

    fn next(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.empty, false) {
            out.push(',');
        }
    }
}

//! The Prometheus text format. Lines of one metric are together, under its type; the order is that of names without tags,
//! token by token, then of full names.

use std::collections::HashMap;

use super::number::general;
use super::text::{bucket_counts, quantile_values};
use crate::query::{BucketMode, Query};
use crate::snapshot::{HistogramSample, NumberKind, NumberSample, Snapshot};
use crate::store::Store;
use crate::tags::{TagSet, append_label_value, append_metric_name};

/// The values of the label `quantile`.
const QUANTILES: [&str; 10] = ["0", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99", "0.995", "0.999", "1"];

/// More digits than this a double rarely has.
const DIGITS: usize = 32;

pub(super) fn render(store: &Store, query: &Query, snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(snapshot.names.len() * 2);
    let numbers = |kind| snapshot.numbers().filter(move |number| number.kind == kind);
    let mut digits = itoa::Buffer::new();
    let mut number = |metric: &str, number: NumberSample<'_>, out: &mut String| {
        out.extend([metric, "{", number.tags.labels(), "} ", digits.format(number.value), "\n"]);
    };
    section(&mut out, "counter", numbers(NumberKind::Counter), |it| (it.name, it.tags), &mut number);
    section(&mut out, "gauge", numbers(NumberKind::Gauge), |it| (it.name, it.tags), &mut number);
    if query.text_readouts {
        section(
            &mut out,
            "gauge",
            snapshot.texts(),
            |it| (it.name, it.tags),
            |metric, text, out| {
                out.extend([metric, "{", text.tags.labels(), comma_after(text.tags), "text_value=\""]);
                append_label_value(text.value, out);
                out.push_str("\"} 0\n");
            },
        );
    }
    if query.histogram_buckets == BucketMode::Summary {
        section(&mut out, "summary", snapshot.histograms(), |it| (it.name, it.tags), summary);
    } else {
        let mut bounds = Bounds::default();
        section(
            &mut out,
            "histogram",
            snapshot.histograms(),
            |it| (it.name, it.tags),
            |metric, histogram, out| {
                bounds.set(store.buckets(histogram.name));
                buckets(&bounds, metric, histogram, out);
            },
        );
    }
    out
}

/// Writes statistics of one kind. They come in order of full names.
fn section<'a, T: Copy>(
    out: &mut String,
    kind: &str,
    statistics: impl Iterator<Item = T>,
    name_of: impl Fn(&T) -> (&'a str, &'a TagSet),
    mut write: impl FnMut(&str, T, &mut String),
) {
    let mut metrics: HashMap<String, Vec<T>> = HashMap::new();
    let mut name = String::new();
    for statistic in statistics {
        let (full, tags) = name_of(&statistic);
        name.clear();
        tags.append_extracted_name(full, &mut name);
        match metrics.get_mut(&name) {
            Some(metric) => metric.push(statistic),
            None => {
                metrics.insert(name.clone(), vec![statistic]);
            }
        }
    }
    let mut metrics: Vec<_> = metrics.into_iter().collect();
    metrics.sort_by(|(a, _), (b, _)| a.split('.').cmp(b.split('.')));
    for (extracted, mut statistics) in metrics {
        name.clear();
        name.push_str("envoy_");
        append_metric_name(&extracted, &mut name);
        out.extend(["# TYPE ", &name, " ", kind, "\n"]);
        statistics.sort_by(|a, b| name_of(a).0.split('.').cmp(name_of(b).0.split('.')));
        statistics.into_iter().for_each(|statistic| write(&name, statistic, out));
    }
}

/// The upper bounds of the last histogram and how they are written, which nearly always are those of the next one too.
#[derive(Default)]
struct Bounds<'a> {
    values: &'a [f64],
    texts: Vec<String>,
}

impl<'a> Bounds<'a> {
    fn set(&mut self, values: &'a [f64]) {
        if !std::ptr::eq(self.values, values) {
            self.values = values;
            self.texts = values.iter().map(|&bound| general(bound, DIGITS)).collect();
        }
    }
}

fn buckets(bounds: &Bounds<'_>, metric: &str, histogram: HistogramSample<'_>, out: &mut String) {
    let HistogramSample { name: _, unit, cumulative, interval: _, tags } = histogram;
    let mut digits = itoa::Buffer::new();
    let mut bucket = |bound: &str, count: u64| {
        out.extend([
            metric,
            "_bucket{",
            tags.labels(),
            comma_after(tags),
            "le=\"",
            bound,
            "\"} ",
            digits.format(count),
            "\n",
        ]);
    };
    for (bound, count) in bounds.texts.iter().zip(bucket_counts(cumulative, unit, bounds.values, false)) {
        bucket(bound, count);
    }
    let count = cumulative.count();
    bucket("+Inf", count);
    sum_and_count(metric, tags, cumulative.sum() / unit.scale(), count, out);
}

/// Quantiles of the last interval.
fn summary(metric: &str, histogram: HistogramSample<'_>, out: &mut String) {
    let HistogramSample { name: _, unit, cumulative: _, interval, tags } = histogram;
    for (quantile, value) in QUANTILES.iter().zip(quantile_values(interval, unit)) {
        let value = general(value, DIGITS);
        out.extend([metric, "{", tags.labels(), comma_after(tags), "quantile=\"", quantile, "\"} ", &value, "\n"]);
    }
    sum_and_count(metric, tags, interval.sum() / unit.scale(), interval.count(), out);
}

fn sum_and_count(metric: &str, tags: &TagSet, sum: f64, count: u64, out: &mut String) {
    out.extend([metric, "_sum{", tags.labels(), "} ", &general(sum, DIGITS), "\n"]);
    out.extend([metric, "_count{", tags.labels(), "} ", itoa::Buffer::new().format(count), "\n"]);
}

fn comma_after(tags: &TagSet) -> &'static str {
    if tags.labels().is_empty() { "" } else { "," }
}

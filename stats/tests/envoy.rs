//! Envoy 1.40 was given some requests and asked for its statistics in every format, in one flush interval. The same values put
//! into a store must give the same bytes. `tests/data/capture` has what it printed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use stats::{GroupHandle, Query, SharedCounter, SharedGauge, Store, StoreOptions, TagProducer, TextReadout, render};

stats::group! {
    /// A histogram whose whole name is the prefix.
    struct One {
        histograms { histogram: Milliseconds = "" }
    }
}

const STATS: &str = include_str!("data/capture/stats.txt");
const USED: &str = include_str!("data/capture/usedonly.txt");
const DETAILED: &str = include_str!("data/capture/detailed.txt");
const PROMETHEUS: &str = include_str!("data/capture/prometheus.txt");

/// What keeps the captured statistics alive.
#[derive(Default)]
struct Captured {
    counters: Vec<SharedCounter>,
    gauges: Vec<SharedGauge>,
    texts: Vec<TextReadout>,
    histograms: Vec<Arc<GroupHandle<One>>>,
}

#[test]
fn every_rendering_is_that_of_envoy() {
    let store = Store::new(3, StoreOptions::default());
    let captured = fill(&store);
    let Captured { counters, gauges, texts, histograms } = &captured;
    assert_eq!([counters.len(), gauges.len(), texts.len(), histograms.len()], [85, 10, 1, 12]);
    let cases = [
        ("", STATS),
        ("usedonly", USED),
        ("type=Histograms&histogram_buckets=cumulative", include_str!("data/capture/cumulative.txt")),
        ("type=Histograms&histogram_buckets=disjoint", include_str!("data/capture/disjoint.txt")),
        ("type=Histograms&histogram_buckets=detailed", DETAILED),
        ("format=json", include_str!("data/capture/stats.json")),
        ("format=json&type=Histograms&histogram_buckets=cumulative", include_str!("data/capture/cumulative.json")),
        ("format=json&type=Histograms&histogram_buckets=disjoint", include_str!("data/capture/disjoint.json")),
        ("format=json&type=Histograms&histogram_buckets=detailed", include_str!("data/capture/detailed.json")),
        ("format=prometheus&text_readouts", PROMETHEUS),
        ("format=prometheus&type=Histograms&histogram_buckets=summary", include_str!("data/capture/summary.txt")),
    ];
    for (query, expected) in cases {
        let body = render(&store, &Query::parse(query).unwrap()).body;
        let difference = body.lines().zip(expected.lines()).find(|(ours, theirs)| ours != theirs);
        assert_eq!(difference, None, "{query}");
        assert_eq!(body, expected, "{query}");
    }
}

fn fill(store: &Arc<Store>) -> Captured {
    let mut captured = Captured::default();
    let used: HashSet<&str> = USED.lines().map(name_of).collect();
    let kinds: HashMap<&str, &str> =
        PROMETHEUS.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let producer = TagProducer::default();
    for line in STATS.lines().filter(|line| !line.contains(": P0(") && !line.ends_with(": No recorded values")) {
        let (name, value) = line.rsplit_once(": ").unwrap();
        if let Some(text) = value.strip_prefix('"') {
            let readout = store.text(name);
            readout.set(text.strip_suffix('"').unwrap());
            captured.texts.push(readout);
            continue;
        }
        let value: u64 = value.parse().unwrap();
        let metric = producer.produce(name).extracted_name(name);
        let metric: String = metric.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        match *kinds.get(format!("envoy_{metric}").as_str()).unwrap() {
            "counter" => {
                let counter = store.counter(name);
                counter.add(value);
                captured.counters.push(counter);
            }
            "gauge" => {
                let gauge = store.gauge(name);
                if used.contains(name) {
                    gauge.set(value);
                }
                captured.gauges.push(gauge);
            }
            other => panic!("{name} is a {other}"),
        }
    }
    captured.histograms = histograms(store);
    captured
}

fn name_of(line: &str) -> &str {
    line.rsplit_once(": ").map_or(line, |(name, _)| name)
}

/// Records the values before the last interval, and flushes; then those of the interval.
fn histograms(store: &Arc<Store>) -> Vec<Arc<GroupHandle<One>>> {
    let mut handles = Vec::new();
    let mut later = Vec::new();
    let mut lines = DETAILED.lines();
    while let Some(line) = lines.next() {
        let unused = line.strip_suffix(": No recorded values");
        let handle = store.group::<One>(unused.unwrap_or_else(|| line.strip_suffix(':').unwrap()));
        if unused.is_none() {
            let totals = bins(lines.next().unwrap().strip_prefix("  totals=").unwrap());
            let interval = bins(lines.next().unwrap().strip_prefix("  intervals=").unwrap());
            assert!(lines.next().unwrap().starts_with("  summary="));
            for (value, count) in totals {
                let recent = interval.get(&value).copied().unwrap_or(0);
                (recent..count).for_each(|_| handle.shard(0).histogram().record(value));
            }
            later.push((Arc::clone(&handle), interval));
        }
        handles.push(handle);
    }
    store.flush();
    assert!(later.iter().any(|(_, interval)| !interval.is_empty()));
    for (handle, interval) in later {
        for (value, count) in interval {
            (0..count).for_each(|_| handle.shard(1).histogram().record(value));
        }
    }
    store.flush();
    handles
}

/// `lower,width:count, ...`
fn bins(text: &str) -> HashMap<u64, u64> {
    let bins = text.split(", ").filter(|bin| !bin.is_empty());
    bins.map(|bin| {
        let (bounds, count) = bin.split_once(':').unwrap();
        (bounds.split_once(',').unwrap().0.parse().unwrap(), count.parse().unwrap())
    })
    .collect()
}

//! The registry: what is counted where, what is shown, and for how long.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test")]

use std::sync::Arc;

use stats::{
    HistogramBuckets, NameMatcher, Query, StatsMatcher, Store, StoreOptions, TagOptions, TagProducer, TagSpecifier,
    TagValue, render_prometheus, render_text,
};

stats::group! {
    /// Some of what Envoy counts for a cluster.
    struct ClusterStats {
        counters { upstream_cx_total, upstream_rq_completed, dotted = "default.total_match_count" }
        gauges { upstream_cx_active, upstream_rq_active }
        histograms { upstream_rq_time: Milliseconds, budget: Percent = "upstream_rq_timeout_budget_percent_used" }
    }
}

stats::group! {
    struct OnlyGauges {
        gauges { a, b, c }
    }
}

stats::group! {
    struct OtherStats {
        counters { other_total }
    }
}

fn store() -> Arc<Store> {
    Store::new(4, StoreOptions::default())
}

fn text(store: &Store, query: &str) -> String {
    render_text(store, &Query::parse(query).unwrap())
}

#[test]
fn shards_are_summed() {
    let store = store();
    let handle = store.group::<ClusterStats>("cluster.foo.");
    let (first, second) = (handle.shard(0), handle.shard(1));
    first.upstream_cx_total().inc();
    second.upstream_cx_total().add(4);
    first.upstream_cx_active().inc();
    first.upstream_cx_active().inc();
    second.upstream_cx_active().dec();
    handle.shard(store.control_shard()).upstream_rq_active().set(7);
    first.dotted().inc();
    assert_eq!(
        text(&store, "type=All"),
        "cluster.foo.default.total_match_count: 1\n\
         cluster.foo.upstream_cx_active: 1\n\
         cluster.foo.upstream_cx_total: 5\n\
         cluster.foo.upstream_rq_active: 7\n\
         cluster.foo.upstream_rq_completed: 0\n\
         cluster.foo.upstream_rq_time: No recorded values\n\
         cluster.foo.upstream_rq_timeout_budget_percent_used: No recorded values\n"
    );
    assert_eq!(handle.total(|shard| shard.upstream_cx_active().value()), 1);
}

#[test]
fn a_gauge_below_zero_is_zero_but_a_hash_is_itself() {
    let store = store();
    let handle = store.group::<OnlyGauges>("g.");
    handle.shard(0).a().sub(3);
    handle.shard(1).b().set(u64::MAX - (1 << 40));
    let hash = store.gauge("g.version");
    hash.set(0xfedc_ba98_7654_3210);
    assert_eq!(text(&store, ""), "g.a: 0\ng.b: 18446742974197923839\ng.c: 0\ng.version: 18364758544493064720\n");
}

#[test]
fn used_means_ever_written() {
    let store = store();
    let local = store.group::<OnlyGauges>("g.").shard(0);
    assert_eq!(text(&store, "usedonly"), "");
    let handle = store.group::<OnlyGauges>("g.");
    let shard = handle.shard(0);
    shard.b().set(0);
    shard.c().inc();
    shard.c().dec();
    assert_eq!(text(&store, "usedonly"), "g.b: 0\ng.c: 0\n");
    assert_eq!(local.a().value(), 0);
}

#[test]
fn the_same_prefix_is_the_same_group_while_a_handle_lives() {
    let store = store();
    let first = store.group::<ClusterStats>("cluster.foo.");
    let other = store.group::<OtherStats>("cluster.foo.");
    let local = first.shard(0);
    local.upstream_cx_total().inc();
    let second = store.group::<ClusterStats>("cluster.foo.");
    assert!(Arc::ptr_eq(&first, &second));
    drop(first);
    second.shard(0).upstream_cx_total().inc();
    assert_eq!(text(&store, "filter=cx_total|other"), "cluster.foo.other_total: 0\ncluster.foo.upstream_cx_total: 2\n");
    drop((second, other));
    assert_eq!(text(&store, ""), "");
    local.upstream_cx_total().inc();
    let third = store.group::<ClusterStats>("cluster.foo.");
    assert_eq!(third.total(|shard| shard.upstream_cx_total().value()), 0);
}

#[test]
fn a_group_may_be_shown_on_first_use() {
    let store = store();
    let handle = store.group_on_first_use::<OtherStats>("other.");
    let lazy = handle.lazy_shard(1);
    assert_eq!(text(&store, "type=All"), "", "nobody has used it");
    lazy.take();
    assert_eq!(text(&store, "type=All"), "other.other_total: 0\n", "taken is used");
    lazy.other_total().inc();
    handle.shard(0).other_total().inc();
    assert_eq!(text(&store, "type=All"), "other.other_total: 2\n");
    drop(handle);
    assert_eq!(text(&store, "type=All"), "other.other_total: 2\n", "a lazy shard is a handle");
    drop(lazy);
    assert_eq!(text(&store, "type=All"), "");
}

#[test]
fn counters_below_a_prefix_go_on_with_who_holds_them() {
    let store = Store::new(1, StoreOptions::default());
    let (_gauge, before) = (store.gauge("a.b.gauge"), [store.counter("a.b.one"), store.counter("a.c.two")]);
    before.iter().for_each(|counter| counter.add(3));
    let held = store.counters_below("a.b.");
    drop(before);
    assert_eq!(held.iter().map(|(name, counter)| (name.as_str(), counter.value())).collect::<Vec<_>>(), [("one", 3)]);
    assert_eq!((store.counter("a.b.one").value(), store.counter("a.c.two").value()), (3, 0));
}

#[test]
fn singles_are_shared_and_disappear() {
    let store = store();
    let (counter, again) = (store.counter("a.total"), store.counter("a.total"));
    counter.add(2);
    again.inc();
    let version = store.text("a.version_text");
    assert_eq!(text(&store, ""), "a.version_text: \"\"\na.total: 3\n");
    assert_eq!(text(&store, "usedonly"), "a.total: 3\n");
    version.set("v1");
    assert_eq!(text(&store, "type=TextReadouts&usedonly"), "a.version_text: \"v1\"\n");
    drop((counter, version));
    assert_eq!(text(&store, ""), "a.total: 3\n");
    drop(again);
    assert_eq!(text(&store, ""), "");
}

#[test]
fn codes_appear_on_use() {
    let store = store();
    let cluster = store.group::<ClusterStats>("cluster.foo.");
    let codes = store.codes("cluster.foo.upstream_rq");
    let external = store.codes("cluster.foo.external.upstream_rq");
    assert_eq!(text(&store, "filter=upstream_rq_[0-9ec]|external"), "cluster.foo.upstream_rq_completed: 0\n");
    for status in [200, 200, 204, 503, 99, 777] {
        codes.shard(0).record(status);
    }
    codes.shard(1).record(200);
    external.shard(1).record(404);
    assert_eq!(
        text(&store, "filter=upstream_rq_[0-9ecu]&usedonly"),
        "cluster.foo.external.upstream_rq_404: 1\n\
         cluster.foo.external.upstream_rq_4xx: 1\n\
         cluster.foo.external.upstream_rq_completed: 1\n\
         cluster.foo.upstream_rq_200: 3\n\
         cluster.foo.upstream_rq_204: 1\n\
         cluster.foo.upstream_rq_2xx: 4\n\
         cluster.foo.upstream_rq_503: 1\n\
         cluster.foo.upstream_rq_5xx: 1\n\
         cluster.foo.upstream_rq_completed: 7\n\
         cluster.foo.upstream_rq_unknown: 2\n"
    );
    store.reset_counters();
    codes.shard(0).record(503);
    assert_eq!(
        text(&store, "filter=foo.upstream_rq_(5|2.x|comp)"),
        "cluster.foo.upstream_rq_2xx: 0\n\
         cluster.foo.upstream_rq_503: 1\n\
         cluster.foo.upstream_rq_5xx: 1\n\
         cluster.foo.upstream_rq_completed: 1\n"
    );
    drop(cluster);
}

#[test]
fn reset_is_for_counters_and_leaves_them_used() {
    let store = store();
    let handle = store.group::<ClusterStats>("c.");
    let single = store.counter("s");
    let local = handle.shard(0);
    local.upstream_cx_total().add(5);
    local.upstream_cx_active().add(5);
    local.upstream_rq_time().record(5);
    single.add(5);
    store.flush();
    store.reset_counters();
    local.upstream_cx_total().inc();
    assert_eq!(
        text(&store, "usedonly&histogram_buckets=detailed"),
        "c.upstream_cx_active: 5\nc.upstream_cx_total: 1\ns: 0\nc.upstream_rq_time:\n  totals=5,0.1:1\n  intervals=5,0.1:1\n  \
         summary=P0(5.05,5.05) P25(5.05,5.05) P50(5.05,5.05) P75(5.05,5.05) P90(5.05,5.05) P95(5.05,5.05) P99(5.05,5.05) P99.5(5.05,5.05) \
         P99.9(5.05,5.05) P100(5.05,5.05)\n"
    );
}

#[test]
fn histograms_change_with_a_flush() {
    let store = store();
    let handle = store.group::<ClusterStats>("c.");
    let detailed = || text(&store, "type=Histograms&usedonly&histogram_buckets=detailed&filter=rq_time$");
    let totals = || detailed().lines().skip(1).take(2).collect::<Vec<_>>().join("");
    handle.shard(0).upstream_rq_time().record(3);
    handle.shard(1).upstream_rq_time().record(3);
    assert_eq!(detailed(), "");
    store.flush();
    assert_eq!(totals(), "  totals=3,0.1:2  intervals=3,0.1:2");
    handle.shard(1).upstream_rq_time().record(77);
    assert_eq!(totals(), "  totals=3,0.1:2  intervals=3,0.1:2");
    store.flush();
    assert_eq!(totals(), "  totals=3,0.1:2, 77,1:1  intervals=77,1:1");
    store.flush();
    assert_eq!(totals(), "  totals=3,0.1:2, 77,1:1  intervals=");
}

#[test]
fn percentages_are_recorded_in_millionths() {
    let store = store();
    let handle = store.group::<ClusterStats>("c.");
    handle.shard(0).budget().record(250_000);
    store.flush();
    let body = render_prometheus(&store, &Query::parse_prometheus("usedonly").unwrap());
    assert!(body.contains("_percent_used_bucket{le=\"0.5\"} 1\n"), "{body}");
    assert!(body.contains("_percent_used_sum{} 0.2549"), "{body}");
}

#[test]
fn sinks_get_what_was_counted_since_the_last_time() {
    let store = store();
    let handle = store.group::<ClusterStats>("c.");
    let codes = store.codes("c.upstream_rq");
    let delta = |name: &str| {
        store.flush_to_sinks().numbers().find(|sample| sample.name == name).map(|sample| (sample.value, sample.delta))
    };
    handle.shard(0).upstream_cx_total().add(3);
    assert_eq!(delta("c.upstream_cx_total"), Some((3, 3)));
    handle.shard(1).upstream_cx_total().add(2);
    assert_eq!(store.snapshot().numbers().find(|sample| sample.name == "c.upstream_cx_total").unwrap().delta, 2);
    assert_eq!(delta("c.upstream_cx_total"), Some((5, 2)));
    assert_eq!(delta("c.upstream_cx_total"), Some((5, 0)));
    codes.shard(0).record(200);
    assert_eq!(delta("c.upstream_rq_200"), Some((1, 1)));
    codes.shard(0).record(200);
    store.reset_counters();
    codes.shard(0).record(200);
    assert_eq!(delta("c.upstream_rq_200"), Some((1, 2)));
}

#[test]
fn the_matcher_decides_what_exists() {
    let names = |matcher| {
        let store = Store::new(3, StoreOptions { matcher, ..StoreOptions::default() });
        let _handle = store.group::<OnlyGauges>("g.");
        let _single = store.counter("g.x");
        text(&store, "")
    };
    let matchers = || vec![NameMatcher::new(|name| name == "g.a"), NameMatcher::new(|name| name.ends_with('x'))];
    assert_eq!(names(StatsMatcher::AcceptAll), "g.a: 0\ng.b: 0\ng.c: 0\ng.x: 0\n");
    assert_eq!(names(StatsMatcher::RejectAll), "");
    assert_eq!(names(StatsMatcher::Inclusion(matchers())), "g.a: 0\ng.x: 0\n");
    assert_eq!(names(StatsMatcher::Exclusion(matchers())), "g.b: 0\ng.c: 0\n");
}

#[test]
fn configured_tags_and_buckets_are_used() {
    let tags = vec![TagSpecifier { name: "where".into(), value: TagValue::Fixed("here".into()) }];
    let tags = TagProducer::new(&TagOptions { tags, ..TagOptions::default() }).unwrap();
    let bucket = |prefix: &'static str, buckets: &[f64]| HistogramBuckets {
        matcher: NameMatcher::new(move |name| name.starts_with(prefix)),
        buckets: buckets.into(),
    };
    let histogram_buckets = vec![bucket("cluster.a", &[0.1, 2.5]), bucket("cluster", &[7.0])];
    let store = Store::new(3, StoreOptions { tags, histogram_buckets, ..StoreOptions::default() });
    let (a, b) = (store.group::<ClusterStats>("cluster.a."), store.group::<ClusterStats>("cluster.b."));
    for handle in [&a, &b] {
        handle.shard(0).upstream_rq_time().record(2);
    }
    store.flush();
    let body = render_prometheus(&store, &Query::parse_prometheus("filter=rq_time$").unwrap());
    let expected = "# TYPE envoy_cluster_upstream_rq_time histogram\n\
        envoy_cluster_upstream_rq_time_bucket{where=\"here\",envoy_cluster_name=\"a\",le=\"0.10000000000000000555111512312578\"} 0\n\
        envoy_cluster_upstream_rq_time_bucket{where=\"here\",envoy_cluster_name=\"a\",le=\"2.5\"} 1\n\
        envoy_cluster_upstream_rq_time_bucket{where=\"here\",envoy_cluster_name=\"a\",le=\"+Inf\"} 1\n\
        envoy_cluster_upstream_rq_time_sum{where=\"here\",envoy_cluster_name=\"a\"} 2.0487804878048780921062643756159\n";
    assert!(body.starts_with(expected), "{body}");
    assert!(body.contains("envoy_cluster_name=\"b\",le=\"7\"} 1\n"), "{body}");
}

#[test]
fn threads_count_at_once_and_nothing_is_lost() {
    const COUNTS: u64 = 5_000;
    let store = Store::new(6, StoreOptions::default());
    let handle = store.group::<ClusterStats>("c.");
    let codes = store.codes("c.upstream_rq");
    let single = store.counter("c.single");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (handle, codes, single) = (&handle, &codes, &single);
            scope.spawn(move || {
                let (local, codes) = (handle.shard(worker), codes.shard(worker));
                for count in 0..COUNTS {
                    local.upstream_cx_total().inc();
                    local.upstream_cx_active().inc();
                    local.upstream_rq_time().record(count);
                    codes.record(200 + (count % 10) as u16);
                    single.inc();
                    local.upstream_cx_active().dec();
                }
            });
        }
        let mut last = 0;
        for _ in 0..50 {
            let snapshot = store.flush_to_sinks();
            let total = snapshot.numbers().find(|sample| sample.name == "c.upstream_cx_total").unwrap().value;
            let active = snapshot.numbers().find(|sample| sample.name == "c.upstream_cx_active").unwrap().value;
            assert!(total >= last && active <= 4 * COUNTS, "{total} {active}");
            last = total;
        }
    });
    store.flush();
    let snapshot = store.snapshot();
    let value = |name: &str| snapshot.numbers().find(|sample| sample.name == name).unwrap().value;
    assert_eq!((value("c.upstream_cx_total"), value("c.upstream_cx_active")), (4 * COUNTS, 0));
    assert_eq!(
        (value("c.upstream_rq_completed"), value("c.upstream_rq_207"), value("c.single")),
        (4 * COUNTS, 4 * COUNTS / 10, 4 * COUNTS)
    );
    let times = snapshot.histograms().find(|sample| sample.name == "c.upstream_rq_time").unwrap();
    assert_eq!(times.cumulative.count(), 4 * COUNTS);
}

#[test]
fn ten_thousand_groups_come_and_go() {
    let store = store();
    let prefixes: Vec<_> = (0..10_000).map(|number| format!("cluster.number-{number}.")).collect();
    let handles: Vec<_> = prefixes.iter().map(|prefix| store.group::<ClusterStats>(prefix)).collect();
    assert_eq!(store.snapshot().numbers().count(), 10_000 * 5);
    drop(handles);
    assert_eq!(store.snapshot().numbers().count(), 0);
}

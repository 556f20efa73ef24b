//! What counting and scraping cost. Counting is on the path of every request. The loops below count into the same cell
//! again and again, so each round waits for the store of the one before (some 4 ns); between other work it costs less.
#![allow(missing_docs, reason = "the macros of the benchmark harness make public functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use stats::{Query, Store, StoreOptions, render_prometheus, render_text};

stats::group! {
    /// As many statistics as a cluster has.
    struct ClusterLike {
        counters {
            c00, c01, c02, c03, c04, c05, c06, c07, c08, c09, c10, c11, c12, c13, c14, c15, c16, c17, c18, c19,
            c20, c21, c22, c23, c24, c25, c26, c27, c28, c29, c30, c31, c32, c33, c34, c35, c36, c37, c38, c39,
            c40, c41, c42, c43, c44, c45, c46, c47, c48, c49, c50, c51, c52, c53, c54, c55, c56, c57, c58, c59,
            c60, c61, c62, c63, c64, c65, c66, c67, c68, c69, c70, c71, c72, c73, c74, c75, c76, c77, c78, c79,
            c80, c81, c82, c83, c84, c85, c86, c87, c88, c89, c90, c91, c92, c93, c94, c95, c96, c97, c98, c99
        }
        gauges { g00, g01, g02, g03, g04, g05, g06, g07, g08, g09, g10, g11, g12, g13, g14, g15, g16, g17, g18, g19 }
        histograms {
            upstream_rq_time: Milliseconds, upstream_cx_length_ms: Milliseconds, upstream_cx_connect_ms: Milliseconds,
            h3: Unspecified, h4: Unspecified, h5: Bytes
        }
    }
}

fn counting(criterion: &mut Criterion) {
    let store = Store::new(4, StoreOptions::default());
    let handle = store.group::<ClusterLike>("cluster.foo.");
    let codes = store.codes("cluster.foo.upstream_rq");
    let (local, codes) = (handle.shard(0), codes.shard(0));
    criterion.bench_function("counter inc", |bench| bench.iter(|| black_box(&local).c50().inc()));
    criterion.bench_function("gauge inc and dec", |bench| {
        bench.iter(|| {
            black_box(&local).g10().inc();
            black_box(&local).g10().dec();
        });
    });
    criterion.bench_function("code record", |bench| bench.iter(|| codes.record(black_box(200))));
    for value in [3u64, 42, 12_345] {
        criterion.bench_function(&format!("histogram record {value}"), |bench| {
            bench.iter(|| local.upstream_rq_time().record(black_box(value)));
        });
    }
}

fn scraping(criterion: &mut Criterion) {
    let store = Store::new(4, StoreOptions::default());
    let prefixes: Vec<_> = (0..1000).map(|number| format!("cluster.cluster-{number}.")).collect();
    let handles: Vec<_> = prefixes.iter().map(|prefix| store.group::<ClusterLike>(prefix)).collect();
    for handle in &handles {
        handle.shard(0).c50().inc();
        handle.shard(1).upstream_rq_time().record(17);
    }
    store.flush();
    let mut group = criterion.benchmark_group("1000 groups");
    group.sample_size(10);
    group.bench_function("flush", |bench| bench.iter(|| store.flush()));
    group.bench_function("text", |bench| bench.iter(|| render_text(&store, &Query::default())));
    let used = Query { used_only: true, ..Query::default() };
    group.bench_function("text, used only", |bench| bench.iter(|| render_text(&store, &used)));
    group.bench_function("prometheus", |bench| bench.iter(|| render_prometheus(&store, &Query::default())));
    group.bench_function("sinks", |bench| bench.iter(|| store.flush_to_sinks()));
    group.finish();

    let all: Vec<_> = (0..10_000).map(|number| format!("cluster.new-{number}.")).collect();
    let mut group = criterion.benchmark_group("registry");
    group.sample_size(10);
    group.bench_function("make and drop 10000 groups", |bench| {
        bench.iter(|| all.iter().map(|prefix| store.group::<ClusterLike>(prefix)).collect::<Vec<_>>());
    });
    group.finish();
}

criterion_group!(benches, counting, scraping);
criterion_main!(benches);

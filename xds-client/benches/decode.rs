//! What it costs to take in a configuration: checking and decoding a CDS response of 1,000 clusters, and reading a
//! bootstrap.
#![allow(missing_docs, reason = "criterion's macros generate public items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;
use xds_client::proto::{CheckOptions, Format, JsonOptions, LoadOptions, check, load, to_json, type_url};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

fn cluster(index: usize) -> String {
    format!(
        "{{name: cluster_{index}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{eds_config: {{ads: {{}}}}}},
          lb_policy: LEAST_REQUEST, circuit_breakers: {{thresholds: [{{max_connections: 1000, max_requests: 1000}}]}},
          typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
            '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions,
            explicit_http_config: {{http2_protocol_options: {{max_concurrent_streams: 100}}}}}}}},
          health_checks: [{{timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 2,
                           http_health_check: {{path: /ready}}}}],
          outlier_detection: {{consecutive_5xx: 5, interval: 10s}}}}"
    )
}

fn response(clusters: usize) -> Vec<u8> {
    let resources = (0..clusters).map(|index| {
        let document = load(cluster(index).as_bytes(), Format::Yaml, CLUSTER, &LoadOptions::default());
        let value = document.map(|document| document.bytes().to_vec()).unwrap_or_default();
        Any { type_url: type_url(CLUSTER), value }
    });
    DiscoveryResponse { resources: resources.collect(), ..DiscoveryResponse::default() }.encode_to_vec()
}

fn cds(criterion: &mut Criterion) {
    let bytes = response(1000);
    let options = CheckOptions::default();
    assert!(check(RESPONSE, &bytes, &options).is_ok(), "the benchmark's clusters are valid");
    let mut group = criterion.benchmark_group("cds_1000");
    group.bench_function("check", |bencher| bencher.iter(|| check(RESPONSE, black_box(&bytes), &options)));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let response = DiscoveryResponse::decode(black_box(bytes.as_slice())).unwrap_or_default();
            response.resources.iter().map(|any| Cluster::decode(any.value.as_slice())).collect::<Vec<_>>()
        });
    });
    group.bench_function("to_json", |bencher| {
        bencher.iter(|| to_json(RESPONSE, black_box(&bytes), &JsonOptions::default()));
    });
    group.finish();
}

fn bootstrap(criterion: &mut Criterion) {
    let clusters: Vec<_> = (0..20).map(cluster).collect();
    let text = format!("static_resources:\n  clusters: [{}]\n", clusters.join(",\n"));
    let document = load(text.as_bytes(), Format::Yaml, BOOTSTRAP, &LoadOptions::default());
    assert!(document.is_ok(), "the benchmark's bootstrap is valid: {document:?}");
    criterion.bench_function("bootstrap_20", |bencher| {
        bencher.iter(|| {
            let document = load(black_box(text.as_bytes()), Format::Yaml, BOOTSTRAP, &LoadOptions::default());
            document.and_then(|document| document.decode::<Bootstrap>())
        });
    });
}

criterion_group!(benches, cds, bootstrap);
criterion_main!(benches);

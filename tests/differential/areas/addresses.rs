//! Reference 2.3: who the client is, and what it may say.

use super::{clusters, plain};
use crate::manifest::{Area, Case, get};

/// The area.
pub fn area() -> Area {
    let loopback = "internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}";
    let listeners = vec![
        plain("usual", ""),
        plain("edge", "use_remote_address: true"),
        plain("edge_hops1", "use_remote_address: true, xff_num_trusted_hops: 1"),
        plain("edge_hops2", "use_remote_address: true, xff_num_trusted_hops: 2"),
        plain("hops1", "xff_num_trusted_hops: 1"),
        plain("skip", "use_remote_address: true, skip_xff_append: true"),
        plain("port", "use_remote_address: true, append_x_forwarded_port: true"),
        plain("edge_internal", &format!("use_remote_address: true, {loopback}")),
        plain("internal", &loopback.replace("127.0.0.0, prefix_len: 8", "10.0.0.0, prefix_len: 8")),
        plain("rfc1918", "internal_address_config: {}"),
        plain("mapped", "use_remote_address: true, represent_ipv4_remote_address_as_ipv4_mapped_ipv6: true"),
    ];
    let long_list = [
        "x-envoy-internal: true",
        "x-envoy-force-trace: true",
        "x-envoy-retry-on: 5xx",
        "x-envoy-retry-grpc-on: cancelled",
        "x-envoy-max-retries: 0",
        "x-envoy-upstream-rq-timeout-ms: 4000",
        "x-envoy-upstream-rq-per-try-timeout-ms: 3000",
        "x-envoy-upstream-rq-timeout-alt-response: 1",
        "x-envoy-upstream-alt-stat-name: alt",
        "x-envoy-upstream-stream-duration-ms: 3000",
        "x-envoy-expected-rq-timeout-ms: 3000",
        "x-envoy-hedge-on-per-try-timeout: true",
        "x-envoy-retriable-status-codes: 500",
        "x-envoy-retriable-header-names: a",
        "x-envoy-ip-tags: t",
        "x-envoy-original-url: /u",
        "x-envoy-downstream-service-cluster: c",
        "x-envoy-downstream-service-node: n",
        "x-envoy-external-address: 9.9.9.9",
        "x-envoy-original-path: /p",
        "x-envoy-decorator-operation: op",
        "x-forwarded-proto: https",
        "x-forwarded-port: 99",
        "x-envoy-original-host: h",
        "x-envoy-attempt-count: 7",
    ];
    let listeners_to_try = [
        "usual",
        "edge",
        "edge_hops1",
        "edge_hops2",
        "hops1",
        "skip",
        "port",
        "edge_internal",
        "internal",
        "rfc1918",
        "mapped",
    ];
    let mut cases: Vec<Case> = Vec::new();
    for listener in listeners_to_try {
        for (name, forwarded) in [
            ("no_xff", ""),
            ("one", "10.1.2.3"),
            ("two", "1.2.3.4, 10.5.6.7"),
            ("three", "1.1.1.1,2.2.2.2 , 3.3.3.3"),
            ("junk", "nonsense"),
            ("ipv6", "2001:db8::1"),
            ("with_port", "1.2.3.4:80"),
            ("empty", " "),
        ] {
            let line = format!("x-forwarded-for: {forwarded}");
            let lines: Vec<&str> = if name == "no_xff" { vec![] } else { vec![&line] };
            cases.push(get(named(listener, name), "2.3 trusted client address", listener, "/", &lines).status(200));
        }
        cases.push(get(named(listener, "long_list"), "2.3 header groups", listener, "/", &long_list).status(200));
        let with_forwarded = [&["x-forwarded-for: 10.1.2.3"], &long_list[..]].concat();
        cases.push(
            get(named(listener, "long_list_xff"), "2.3 header groups", listener, "/", &with_forwarded).status(200),
        );
        let lines = ["x-forwarded-for: 1.2.3.4", "x-forwarded-for: 5.6.7.8", "x-forwarded-proto: HTTPS"];
        cases.push(get(named(listener, "two_lines"), "2.3 trusted client address", listener, "/", &lines).status(200));
        let lines = ["x-forwarded-proto: ftp", "x-forwarded-host: f", "forwarded: for=1.2.3.4"];
        cases.push(get(named(listener, "odd_proto"), "2.3 x-forwarded-proto", listener, "/", &lines).status(200));
    }
    Area { name: "addresses", listeners, clusters: clusters(), more: "", cases }
}

fn named(listener: &str, name: &str) -> &'static str {
    Box::leak(format!("{listener} {name}").into_boxed_str())
}

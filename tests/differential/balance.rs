//! Which host a request goes to: the same one as through Envoy, where a policy decides by hash or metadata; as often, where it
//! takes turns.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use super::report::report;
use crate::support::PATIENCE;
use crate::support::bootstrap::{bootstrap, http_listener, listener_of, tcp_filter};
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};

/// Keys that each hashing cluster is asked for.
const KEYS: usize = 1000;

/// A cluster, and what is asked of it.
struct Case {
    name: &'static str,
    /// Fields of the cluster.
    cluster: String,
    /// Fields of the route's action.
    route: &'static str,
    /// Its endpoints.
    endpoints: String,
    asks: Asks,
}

enum Asks {
    /// Every request has another key, and goes to the host that Envoy chooses for it.
    Keys,
    /// So many requests go to each host about as often.
    Shares(usize),
}

/// One endpoint at 127.0.0.`n`.
pub fn endpoint(n: usize, more: &str) -> String {
    format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.{n}, port_value: PORT}}}}}}, {more}}}")
}

/// Endpoints 127.0.0.2 and on with these weights, in one place.
fn weighted(weights: &[u32]) -> String {
    let hosts: Vec<String> =
        (2..).zip(weights).map(|(n, weight)| endpoint(n, &format!("load_balancing_weight: {weight}"))).collect();
    format!("{{lb_endpoints: [{}]}}", hosts.join(", "))
}

/// A place with a weight, or 0 for none, and these endpoints.
fn zone(name: &str, weight: u32, hosts: std::ops::RangeInclusive<usize>) -> String {
    let hosts: Vec<String> = hosts.map(|n| endpoint(n, "")).collect();
    let weight = if weight == 0 { String::new() } else { format!("load_balancing_weight: {weight},") };
    format!("{{locality: {{zone: {name}}}, {weight} lb_endpoints: [{}]}}", hosts.join(", "))
}

/// A place with a weight, and endpoints of these stages.
fn staged(name: &str, weight: u32, hosts: &[(usize, &str)]) -> String {
    let hosts: Vec<String> = hosts
        .iter()
        .map(|(n, stage)| endpoint(*n, &format!("metadata: {{filter_metadata: {{envoy.lb: {{stage: {stage}}}}}}}")))
        .collect();
    format!("{{locality: {{zone: {name}}}, load_balancing_weight: {weight}, lb_endpoints: [{}]}}", hosts.join(", "))
}

/// Endpoints with this `envoy.lb` metadata.
fn labelled(metadata: &[&str]) -> String {
    let hosts: Vec<String> = (2..)
        .zip(metadata)
        .map(|(n, fields)| endpoint(n, &format!("metadata: {{filter_metadata: {{envoy.lb: {{{fields}}}}}}}")))
        .collect();
    format!("{{lb_endpoints: [{}]}}", hosts.join(", "))
}

fn typed(name: &str, fields: &str) -> String {
    format!("load_balancing_policy: {{policies: [{}]}}", typed_policy(name, fields))
}

fn typed_policy(name: &str, fields: &str) -> String {
    format!(
        r#"{{typed_extension_config: {{name: p, typed_config: {{"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.{name}, {fields}}}}}}}"#
    )
}

fn override_host(fallback: &str) -> String {
    let fields = format!("override_host_sources: [{{header: x-to}}], fallback_policy: {{policies: [{fallback}]}}");
    typed("override_host.v3.OverrideHost", &fields)
}

const BY_HOSTNAME: &str = "type: STRICT_DNS, dns_refresh_rate: 1000s, common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}";

/// Endpoints with names, and one without.
fn named_hosts() -> String {
    let hosts: Vec<String> = ["hostname: a,", "hostname: b,", "hostname: c.test,", ""]
        .iter()
        .zip(2..)
        .map(|(name, n)| endpoint(n, "").replacen("{endpoint: {", &format!("{{endpoint: {{{name} "), 1))
        .collect();
    format!("{{lb_endpoints: [{}]}}", hosts.join(", "))
}

const BY_HEADER: &str = "hash_policy: [{header: {header_name: x-key}}]";

fn keys(name: &'static str, cluster: impl Into<String>, endpoints: impl Into<String>) -> Case {
    Case { name, cluster: cluster.into(), route: BY_HEADER, endpoints: endpoints.into(), asks: Asks::Keys }
}

fn shares(name: &'static str, cluster: impl Into<String>, endpoints: impl Into<String>, count: usize) -> Case {
    Case { name, cluster: cluster.into(), route: "", endpoints: endpoints.into(), asks: Asks::Shares(count) }
}

fn hashing() -> Vec<Case> {
    let equal = || weighted(&[1; 7]);
    let zones = || [zone("b", 3, 2..=4), zone("a", 1, 5..=8), zone("c", 0, 9..=10)].join(", ");
    let unhealthy = || {
        let down = "health_status: UNHEALTHY";
        let hosts = [endpoint(2, ""), endpoint(3, down), endpoint(4, ""), endpoint(5, "health_status: DEGRADED")];
        format!("{{lb_endpoints: [{}]}}", hosts.join(", "))
    };
    let with_keys = || labelled(&["hash_key: one", "hash_key: two", "hash_key: 3", "other: x"]);
    let priorities = || {
        let down = "health_status: UNHEALTHY";
        let first = [endpoint(2, ""), endpoint(3, down), endpoint(4, down)].join(", ");
        let second = [endpoint(5, ""), endpoint(6, "")].join(", ");
        format!("{{lb_endpoints: [{first}]}}, {{priority: 1, lb_endpoints: [{second}]}}")
    };
    let mut cases = Vec::new();
    for (ring, maglev, endpoints) in [
        ("ring", "maglev", equal()),
        ("ring_less_one", "maglev_less_one", weighted(&[1; 6])),
        ("ring_weighted", "maglev_weighted", weighted(&[1, 2, 3, 50])),
        ("ring_one", "maglev_one", weighted(&[9])),
        ("ring_unhealthy", "maglev_unhealthy", unhealthy()),
        ("ring_keyed", "maglev_keyed", with_keys()),
        ("ring_priorities", "maglev_priorities", priorities()),
        ("ring_zones_unweighted", "maglev_zones_unweighted", zones()),
    ] {
        cases.push(keys(ring, "lb_policy: RING_HASH", endpoints.clone()));
        cases.push(keys(maglev, "lb_policy: MAGLEV", endpoints));
    }
    let weighted_zones = "common_lb_config: {locality_weighted_lb_config: {}}";
    cases.extend([
        keys("ring_zones", format!("lb_policy: RING_HASH, {weighted_zones}"), zones()),
        keys("maglev_zones", format!("lb_policy: MAGLEV, {weighted_zones}"), zones()),
        keys("ring_murmur", "lb_policy: RING_HASH, ring_hash_lb_config: {hash_function: MURMUR_HASH_2}", equal()),
        keys(
            "ring_small",
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 8, maximum_ring_size: 12}",
            weighted(&[1, 3, 1, 1, 2]),
        ),
        keys("maglev_small", "lb_policy: MAGLEV, maglev_lb_config: {table_size: 11}", weighted(&[1, 3, 1, 1, 2])),
        keys("ring_typed", typed("ring_hash.v3.RingHash", "hash_function: MURMUR_HASH_2, minimum_ring_size: 64"), equal()),
        keys("maglev_typed", typed("maglev.v3.Maglev", "table_size: 131, locality_weighted_lb_config: {}"), zones()),
        keys(
            "maglev_bounded",
            "lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 120}}",
            equal(),
        ),
        keys("ring_hostnames", format!("{BY_HOSTNAME}, lb_policy: RING_HASH"), named_hosts()),
        keys("maglev_hostnames", format!("{BY_HOSTNAME}, lb_policy: MAGLEV"), named_hosts()),
        Case {
            route: "hash_policy: [{header: {header_name: x-key, regex_rewrite: {pattern: {regex: '[0-4]'}, substitution: z}}}]",
            ..keys("rewritten", "lb_policy: RING_HASH", equal())
        },
        Case {
            route: "hash_policy: [{query_parameter: {name: q}}, {header: {header_name: x-key}, terminal: true}, \
                    {header: {header_name: ':path'}}]",
            ..keys("combined", "lb_policy: MAGLEV", equal())
        },
        Case {
            route: "hash_policy: [{header: {header_name: ':path'}}], prefix_rewrite: /other",
            ..keys("path", "lb_policy: MAGLEV", equal())
        },
        keys("override", override_host(&typed_policy("ring_hash.v3.RingHash", "")), weighted(&[1; 7])),
        keys(
            "override_subset",
            override_host(&typed_policy(
                "subset.v3.Subset",
                &format!(
                    "subset_selectors: [{{keys: [version]}}], fallback_policy: ANY_ENDPOINT, subset_lb_policy: {{policies: [{}]}}",
                    typed_policy("maglev.v3.Maglev", "table_size: 131")
                ),
            )),
            weighted(&[1; 7]),
        ),
        Case { route: "hash_policy: [{cookie: {name: k}}]", ..keys("cookie", "lb_policy: RING_HASH", equal()) },
        Case {
            route: "hash_policy: [{connection_properties: {source_ip: true}}]",
            ..keys("source", "lb_policy: RING_HASH", equal())
        },
    ]);
    cases
}

const SELECTORS: &str =
    "subset_selectors: [{keys: [stage, version]}, {keys: [version]}, {keys: [id], single_host_per_subset: true}]";

fn subsets() -> Vec<Case> {
    let hosts = || {
        labelled(&[
            "version: '1', stage: prod, id: a",
            "version: '1', stage: dev, id: b",
            "version: '2', stage: prod, id: b",
            "version: ['1', '3']",
            "other: 1",
        ])
    };
    let metadata = |fields: &'static str| -> &'static str {
        match fields {
            "version" => {
                "metadata_match: {filter_metadata: {envoy.lb: {version: '1'}}}, hash_policy: [{header: {header_name: x-key}}]"
            }
            "both" => "metadata_match: {filter_metadata: {envoy.lb: {version: '1', stage: dev}}}",
            "none" => "metadata_match: {filter_metadata: {envoy.lb: {version: '9'}}}",
            "list" => "metadata_match: {filter_metadata: {envoy.lb: {version: '3'}}}",
            "single" => "metadata_match: {filter_metadata: {envoy.lb: {id: b}}}",
            _ => "",
        }
    };
    let config = |more: &str| format!("lb_subset_config: {{{SELECTORS}, {more}}}");
    let of = |name, fields, more: &str, count| Case {
        route: metadata(fields),
        ..shares(name, config(more), hosts(), count)
    };
    vec![
        Case {
            asks: Asks::Keys,
            ..of(
                "subset_ring",
                "version",
                "list_as_any: true}, lb_policy: RING_HASH, metadata: {filter_metadata: {a: {}}",
                0,
            )
        },
        of("subset_both", "both", "", 40),
        of("subset_none", "none", "", 40),
        of("subset_any", "none", "fallback_policy: ANY_ENDPOINT", 100),
        of("subset_default", "none", "fallback_policy: DEFAULT_SUBSET, default_subset: {stage: prod}", 40),
        of(
            "subset_no_default",
            "none",
            "fallback_policy: DEFAULT_SUBSET, default_subset: {stage: x}, panic_mode_any: true",
            100,
        ),
        Case {
            route: "metadata_match: {filter_metadata: {envoy.lb: {stage: prod}}}",
            ..shares(
                "subset_scaled",
                "lb_subset_config: {subset_selectors: [{keys: [stage]}], locality_weight_aware: true, scale_locality_weight: true}, \
                 common_lb_config: {locality_weighted_lb_config: {}}",
                [staged("a", 1, &[(2, "prod"), (3, "dev"), (4, "dev")]), staged("b", 2, &[(5, "prod"), (6, "prod")])]
                    .join(", "),
                1000,
            )
        },
        Case {
            route: "metadata_match: {filter_metadata: {envoy.lb: {version: '9', stage: prod}}}",
            ..shares(
                "subset_keys",
                "lb_subset_config: {subset_selectors: [{keys: [stage, version], fallback_policy: KEYS_SUBSET, \
                 fallback_keys_subset: [stage]}, {keys: [stage]}]}",
                hosts(),
                100,
            )
        },
        of("subset_list", "list", "list_as_any: true", 40),
        of("subset_no_list", "list", "fallback_policy: ANY_ENDPOINT", 100),
        of("subset_single", "single", "", 40),
        of("subset_unasked", "", "fallback_policy: ANY_ENDPOINT", 100),
    ]
}

fn aggregates() -> Vec<Case> {
    let of = |name, members: &str, asks| Case {
        name,
        cluster: format!(
            r#"lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: envoy.clusters.aggregate, typed_config: {{"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [{members}]}}}}"#
        ),
        route: BY_HEADER,
        endpoints: String::new(),
        asks,
    };
    vec![
        of("aggregate_hashes", "ring, round_robin", Asks::Keys),
        of("aggregate_of_nobody", "unheard_of", Asks::Shares(10)),
        of("aggregate_of_itself", "aggregate_of_itself", Asks::Shares(10)),
        of("aggregate_of_aggregates", "aggregate_hashes", Asks::Shares(10)),
        of("aggregate_spills", "unheard_of, panic_of_one, least_request", Asks::Shares(1000)),
        of("aggregate_panics", "total_panic, fail_on_panic", Asks::Shares(1000)),
        of("aggregate_levels", "two_levels, round_robin", Asks::Shares(1000)),
        of("aggregate_subset", "subset_any, round_robin", Asks::Shares(400)),
    ]
}

/// Transport sockets by metadata, all of them plain.
fn sockets() -> String {
    let plain = r#"{name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}"#;
    let of = |name: &str, fields: &str| format!("{{name: {name}, match: {{{fields}}}, transport_socket: {plain}}}");
    format!("transport_socket_matches: [{}]", [of("first", "kind: a"), of("second", "kind: b, more: x")].join(", "))
}

fn labelled_sockets() -> String {
    labelled(&["x: a", "x: b", "x: c", "x: d"])
        .replacen("envoy.lb: {x: a}", "envoy.transport_socket_match: {kind: a}", 1)
        .replacen("envoy.lb: {x: b}", "envoy.transport_socket_match: {kind: b}", 1)
        .replacen("envoy.lb: {x: c}", "envoy.transport_socket_match: {kind: b, more: x}", 1)
}

fn turns() -> Vec<Case> {
    let down = "health_status: UNHEALTHY";
    let zones = || [zone("b", 3, 2..=4), zone("a", 1, 5..=8), zone("c", 0, 9..=10)].join(", ");
    let level = |priority: usize, from: usize, well: usize, bad: usize, degraded: usize| {
        let hosts: Vec<String> = (from..)
            .take(well + bad + degraded)
            .enumerate()
            .map(|(index, n)| match index {
                index if index < well => endpoint(n, ""),
                index if index < well + bad => endpoint(n, down),
                _ => endpoint(n, "health_status: DEGRADED"),
            })
            .collect();
        format!("{{priority: {priority}, lb_endpoints: [{}]}}", hosts.join(", "))
    };
    vec![
        shares("round_robin", "", weighted(&[1, 2, 3]), 60),
        shares("sockets", sockets(), labelled_sockets(), 30),
        shares("round_robin_typed", typed("round_robin.v3.RoundRobin", ""), weighted(&[1, 2, 3]), 60),
        shares("least_request", "lb_policy: LEAST_REQUEST", weighted(&[1, 2, 3]), 60),
        shares("localities", "common_lb_config: {locality_weighted_lb_config: {}}", zones(), 400),
        shares("two_levels", "", [level(0, 2, 2, 2, 0), level(1, 6, 4, 0, 0)].join(", "), 1000),
        shares("degraded", "", [level(0, 2, 1, 1, 2), level(1, 6, 0, 2, 0)].join(", "), 1000),
        shares("degraded_beside", "", level(0, 2, 2, 2, 2), 1000),
        shares("panic_of_one", "", [level(0, 2, 1, 4, 0), level(1, 7, 2, 3, 0)].join(", "), 1000),
        shares("total_panic", "", [level(0, 2, 0, 4, 0), level(1, 6, 0, 2, 0)].join(", "), 1000),
        shares(
            "full_scan",
            typed("least_request.v3.LeastRequest", "selection_method: FULL_SCAN"),
            weighted(&[1; 4]),
            400,
        ),
        assigned(
            "exact_levels",
            "overprovisioning_factor: 100",
            &[level(0, 2, 2, 2, 0), level(1, 6, 4, 0, 0)].join(", "),
            1000,
        ),
        assigned(
            "health_by_weight",
            "weighted_priority_health: true",
            &[
                level(0, 2, 1, 2, 0).replacen("{endpoint", "{load_balancing_weight: 9, endpoint", 1),
                level(1, 6, 2, 0, 0),
            ]
            .join(", "),
            1000,
        ),
        assigned(
            "dropped",
            "drop_overloads: [{category: a, drop_percentage: {numerator: 30}}]",
            &weighted(&[1; 2]),
            1000,
        ),
        shares(
            "no_panic",
            "common_lb_config: {healthy_panic_threshold: {value: 0}}",
            [level(0, 2, 1, 4, 0), level(1, 7, 1, 3, 0)].join(", "),
            1000,
        ),
        shares(
            "fail_on_panic",
            "common_lb_config: {zone_aware_lb_config: {fail_traffic_on_panic: true}}",
            level(0, 2, 1, 4, 0),
            20,
        ),
    ]
}

/// A cluster whose assignment has a `policy`.
fn assigned(name: &'static str, policy: &str, endpoints: &str, count: usize) -> Case {
    let assignment =
        format!("load_assignment: {{cluster_name: {name}, policy: {{{policy}}}, endpoints: [{endpoints}]}}");
    shares(name, assignment, "", count)
}

/// A server at every address of this machine that says which one it was reached at.
pub fn serve_everywhere() -> u16 {
    serve_everywhere_by(answer)
}

/// A server at every address of this machine that answers connections so.
pub fn serve_everywhere_by(answer: fn(&TcpStream) -> std::io::Result<()>) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream));
        }
    });
    port
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let host = stream.local_addr()?.ip().to_string();
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{host}", host.len());
    let mut lines = BufReader::new(stream).lines();
    let mut writer = stream;
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            writer.write_all(reply.as_bytes())?;
        }
    }
    Ok(())
}

/// Sends requests on one connection, and reads where each went: the body, or the status of a failure.
pub fn ask(address: SocketAddr, path: &str, count: usize, port: u16) -> Vec<String> {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("an option");
    let mut reader = BufReader::new(&stream);
    let mut hosts = Vec::new();
    for n in 0..count {
        let key = format!("key-{n}");
        // Most of the hosts that are asked for are there, and most of them the first of two.
        let asked = format!("127.0.0.{}:{port}, 127.0.0.{}:{port}", n % 11, n % 5);
        let text = format!(
            "GET {path}/{n}?q={} HTTP/1.1\r\nhost: a\r\nx-key: {key}\r\ncookie: k={key}\r\nx-to: {asked}\r\n\r\n",
            n % 7
        );
        (&stream).write_all(text.as_bytes()).expect("a request sent");
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            assert!(!line.is_empty(), "{path}: the connection ended after {n} responses");
            if line == "\r\n" {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).unwrap_or_default().to_owned();
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut body).expect("a body");
        hosts.push(if status == "200" { String::from_utf8_lossy(&body).into_owned() } else { status });
    }
    hosts
}

fn counts(hosts: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for host in hosts {
        *counts.entry(host.as_str()).or_default() += 1;
    }
    counts
}

/// Cases for a proxy that knows that it stands in zone `a`, where two of the five proxies of its cluster stand.
fn zones() -> Vec<Case> {
    let of = |zones: &[(&str, usize)]| {
        let mut n = 2;
        let zones = zones.iter().map(|(name, count)| {
            n += count;
            zone(name, 1, n - count..=n - 1)
        });
        zones.collect::<Vec<_>>().join(", ")
    };
    let tuned = |fields: &str| format!("common_lb_config: {{zone_aware_lb_config: {{{fields}}}}}");
    let typed_zone = |fields: &str| {
        typed("round_robin.v3.RoundRobin", &format!("locality_lb_config: {{zone_aware_lb_config: {{{fields}}}}}"))
    };
    let down = |endpoints: String| endpoints.replacen("{endpoint", "{health_status: UNHEALTHY, endpoint", 1);
    vec![
        shares("enough_here", "", of(&[("a", 4), ("b", 4), ("c", 2)]), 100),
        shares("too_little_here", "", of(&[("a", 2), ("b", 4), ("c", 2)]), 1000),
        shares("nothing_here", "", of(&[("b", 5), ("c", 3)]), 1000),
        shares("too_small", "", of(&[("a", 2), ("b", 2)]), 200),
        shares("small_enough", tuned("min_cluster_size: 3"), of(&[("a", 2), ("b", 2)]), 100),
        shares("half_of_it", tuned("routing_enabled: {value: 50}"), of(&[("a", 4), ("b", 4)]), 1000),
        shares("switched_off", tuned("routing_enabled: {value: 0}"), of(&[("a", 4), ("b", 4)]), 200),
        shares("one_is_down", "", down(of(&[("a", 4), ("b", 4), ("c", 2)])), 1000),
        shares("random_here", "lb_policy: RANDOM", of(&[("a", 4), ("b", 4)]), 200),
        shares("least_here", "lb_policy: LEAST_REQUEST", of(&[("a", 4), ("b", 4)]), 200),
        shares("typed_here", typed_zone("min_cluster_size: 2"), of(&[("a", 2), ("b", 1)]), 100),
        shares("forced", typed_zone("force_local_zone: {min_size: 1}"), of(&[("a", 1), ("b", 6)]), 100),
        shares("not_forced", typed_zone("force_local_zone: {min_size: 2}"), of(&[("a", 1), ("b", 6)]), 1000),
        keys("ring_here", "lb_policy: RING_HASH", of(&[("a", 4), ("b", 4)])),
        shares("weighted_here", "common_lb_config: {locality_weighted_lb_config: {}}", of(&[("a", 4), ("b", 4)]), 200),
    ]
}

fn document(cases: &[Case], port: u16, more: &str) -> String {
    let mut routes = String::new();
    let mut clusters = Vec::new();
    for Case { name, cluster, route, endpoints, .. } in cases {
        let _ = write!(routes, "{{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}, {route}}}}}, ");
        let endpoints = if endpoints.is_empty() {
            String::new()
        } else {
            format!("load_assignment: {{cluster_name: {name}, endpoints: [{endpoints}]}}")
        };
        clusters.push(
            format!("{{name: {name}, {cluster}, {endpoints}}}").replace(", ,", ",").replace("PORT", &port.to_string()),
        );
    }
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    let mut listeners = vec![http_listener("in", "access_log: []", &hosts, "")];
    if !more.is_empty() {
        let own = zones_of_proxies().replace("PORT", &port.to_string());
        clusters.push(format!("{{name: proxies, load_assignment: {{cluster_name: proxies, endpoints: [{own}]}}}}"));
        return bootstrap(&listeners, &clusters, more);
    }
    listeners.extend([
        listener_of(
            "tcp",
            &format!(
                "filter_chains: [{{filters: [{}]}}]",
                tcp_filter("tcp", "cluster: ring, hash_policy: [{source_ip: {}}]")
            ),
            "",
        ),
        listener_of(
            "tcp_subset",
            &format!(
                "filter_chains: [{{filters: [{}]}}]",
                tcp_filter(
                    "tcp_subset",
                    "weighted_clusters: {clusters: [{name: subset_both, weight: 1, metadata_match: {filter_metadata: \
                     {envoy.lb: {stage: dev}}}}]}, metadata_match: {filter_metadata: {envoy.lb: {version: '1'}}}"
                )
            ),
            "",
        ),
    ]);
    bootstrap(&listeners, &clusters, "")
}

fn zones_of_proxies() -> String {
    [zone("a", 0, 2..=3), zone("b", 0, 4..=5), zone("c", 0, 6..=6)].join(", ")
}

/// What a cluster's statistics say about load balancing.
fn statistics(proxy: &Proxy) -> BTreeMap<String, i64> {
    let kinds = "ring_hash_lb|maglev_lb|lb_subsets|lb_healthy_panic|lb_zone_routing|lb_zone_no|upstream_cx_none_healthy|\
                 total_match_count";
    let mut found = proxy.stats(&format!(r"^cluster\..*({kinds})"));
    // Of the tables of several subsets the gauges show any.
    found.retain(|name, _| {
        !name.starts_with("cluster.subset") || !(name.contains("hash_lb.") || name.contains("maglev_lb."))
    });
    found
}

/// Runs all cases.
pub fn run() {
    if !Kind::require_envoy("load balancing") {
        return;
    }
    let port = serve_everywhere();
    let wanted = std::env::var("CASES").unwrap_or_default();
    let cases: Vec<Case> = [hashing(), subsets(), turns(), aggregates()].into_iter().flatten().collect();
    let text = document(&cases, port, "");
    let (envoy, legate) = (Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text));
    let mut failures = differences(&cases, &wanted, [&envoy, &legate], port);
    if wanted.is_empty() {
        failures.extend(statistics_differ(&envoy, &legate));
        for listener in ["tcp", "tcp_subset"] {
            let of = |proxy: &Proxy| ask(proxy.listener(listener), "/", 1, port);
            let (expected, actual) = (of(&envoy), of(&legate));
            if expected != actual {
                failures.push(format!("{listener}: {actual:?}, not {expected:?}"));
            }
        }
        failures.extend(after_updates(port));
    }
    let (cases, more) =
        (zones(), "node: {id: a, cluster: b, locality: {zone: a}}\ncluster_manager: {local_cluster_name: proxies}");
    let text = document(&cases, port, more);
    let (envoy, legate) = (Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text));
    failures.extend(differences(&cases, &wanted, [&envoy, &legate], port));
    if wanted.is_empty() {
        failures.extend(statistics_differ(&envoy, &legate));
    }
    report(&format!("{} findings on load balancing", failures.len()), &failures);
}

/// Asks both proxies for every case, and says where their answers differ.
fn differences(cases: &[Case], wanted: &str, [envoy, legate]: [&Proxy; 2], port: u16) -> Vec<String> {
    let mut failures = Vec::new();
    for Case { name, asks, .. } in cases.iter().filter(|case| case.name.contains(wanted)) {
        let count = match asks {
            Asks::Keys => KEYS,
            Asks::Shares(count) => *count,
        };
        let of = |proxy: &Proxy| ask(proxy.listener("in"), &format!("/{name}"), count, port);
        let (expected, actual) = (of(envoy), of(legate));
        match asks {
            Asks::Keys => {
                let differ = expected.iter().zip(&actual).enumerate().filter(|(_, (a, b))| a != b);
                let differ: Vec<_> = differ.collect();
                if let Some((n, (a, b))) = differ.first() {
                    failures.push(format!("{name}: {} of {count} keys differ: key-{n} {a}, not {b}", differ.len()));
                }
            }
            Asks::Shares(_) => {
                let (expected, actual) = (counts(&expected), counts(&actual));
                // Turns begin anywhere, and priorities are drawn: six standard deviations, and two turns.
                let close = |host: &&str| {
                    let of = |counts: &BTreeMap<&str, usize>| counts.get(host).copied().unwrap_or(0) as f64;
                    (of(&expected) - of(&actual)).abs() <= 2.0 + 6.0 * (of(&expected)).sqrt()
                };
                if expected.keys().ne(actual.keys()) || !expected.keys().all(close) {
                    failures.push(format!("{name}: {actual:?}, not {expected:?}"));
                }
            }
        }
    }
    failures
}

fn statistics_differ(envoy: &Proxy, legate: &Proxy) -> Vec<String> {
    let (expected, actual) = (statistics(envoy), statistics(legate));
    let mut failures = Vec::new();
    for name in expected.keys().chain(actual.keys().filter(|name| !expected.contains_key(*name))) {
        let of = |stats: &BTreeMap<String, i64>| stats.get(name).copied().unwrap_or(0);
        // Priorities and zones are drawn, and with them how many requests find nobody.
        let drawn = ["lb_healthy_panic", "upstream_cx_none_healthy", "lb_zone_routing_"];
        let drawn = drawn.iter().any(|part| name.contains(part));
        let difference = (of(&expected) - of(&actual)).abs();
        if difference > if drawn && of(&actual) > 0 { 200 } else { 0 } {
            failures.push(format!("{name}: {}, not {}", of(&actual), of(&expected)));
        }
    }
    failures
}

/// Hosts come and go by endpoint discovery: the same hosts for the same keys after each change, and the same statistics.
fn after_updates(port: u16) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("endpoints.yaml");
    let metadata = |n: usize| format!("version: '{}'", n % 2);
    let assign = |hosts: &[usize], file: &Path| {
        let hosts: Vec<String> = hosts
            .iter()
            .map(|&n| endpoint(n, &format!("metadata: {{filter_metadata: {{envoy.lb: {{{}}}}}}}", metadata(n))))
            .collect();
        let text = format!(
            "version_info: '{}'\nresources:\n- {{\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, \
             cluster_name: hosts, endpoints: [{{lb_endpoints: [{}]}}]}}\n",
            hosts.len(),
            hosts.join(", ")
        );
        let next = file.with_extension("next");
        fs::write(&next, text.replace("PORT", &port.to_string())).expect("a file");
        fs::rename(next, file).expect("a file in place");
    };
    assign(&[2, 3, 4, 5, 6], &file);
    let discovered = format!(
        "type: EDS, eds_cluster_config: {{service_name: hosts, eds_config: {{path_config_source: {{path: {}}}}}}}",
        file.display()
    );
    let clusters = [
        format!("{{name: ring, {discovered}, lb_policy: RING_HASH}}"),
        format!("{{name: maglev, {discovered}, lb_policy: MAGLEV}}"),
        format!("{{name: closing, {discovered}, common_lb_config: {{close_connections_on_host_set_change: true}}}}"),
        format!(
            "{{name: subset, {discovered}, lb_policy: MAGLEV, lb_subset_config: {{subset_selectors: [{{keys: [version]}}]}}}}"
        ),
    ];
    let route = |name: &str| {
        let metadata =
            if name == "subset" { "metadata_match: {filter_metadata: {envoy.lb: {version: '1'}}}," } else { "" };
        format!("{{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}, {metadata} {BY_HEADER}}}}}")
    };
    let routes = ["ring", "maglev", "subset", "closing"].map(route).join(", ");
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    let text = bootstrap(&[http_listener("in", "access_log: []", &hosts, "")], &clusters, "node: {id: a, cluster: b}");
    let proxies = [Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text)];
    let mut failures = Vec::new();
    for hosts in [&[2, 3, 4, 5, 6][..], &[2, 3, 5, 6], &[6, 2], &[2, 4, 6, 8, 10, 12], &[9, 2, 3]] {
        assign(hosts, &file);
        for proxy in &proxies {
            for name in ["ring", "maglev", "subset", "closing"] {
                proxy.wait_for_stat(&format!("cluster.{name}.membership_total"), |total| total == hosts.len() as i64);
            }
            // Workers learn of it after control has counted it.
            let there: Vec<String> = hosts.iter().map(|n| format!("127.0.0.{n}")).collect();
            eventually("the new hosts to be used", || {
                let used = ask(proxy.listener("in"), "/maglev", 200, port);
                (counts(&used).into_keys().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
                    == there.iter().cloned().collect())
                .then_some(())
            });
        }
        // Every host is used; hosts that stay are connected to anew where the cluster says so.
        let [expected, actual] = proxies.each_ref().map(|proxy| {
            ask(proxy.listener("in"), "/closing", 30, port);
            proxy.stat("cluster.closing.upstream_cx_total")
        });
        if expected != actual {
            failures.push(format!("over {hosts:?}: {actual} connections made, not {expected}"));
        }
        for name in ["ring", "maglev", "subset"] {
            let [expected, actual] =
                proxies.each_ref().map(|proxy| ask(proxy.listener("in"), &format!("/{name}"), 300, port));
            let differ = expected.iter().zip(&actual).filter(|(a, b)| a != b).count();
            if differ > 0 {
                failures.push(format!("{name} over {hosts:?}: {differ} of 300 keys differ"));
            }
        }
        let [expected, actual] = proxies.each_ref().map(|proxy| {
            let mut found = statistics(proxy);
            // Envoy matches a host with a socket each time that it hears of it.
            found.retain(|name, _| !name.ends_with("lb_subsets_selected") && !name.ends_with("total_match_count"));
            found
        });
        if expected != actual {
            failures.push(format!("over {hosts:?}: {actual:#?}, not {expected:#?}"));
        }
    }
    failures
}

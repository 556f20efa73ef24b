//! Which statistics there are, and what kind each is: the complete set of names of both proxies, at the start and after
//! what brings more of them into being.
//!
//! Values are compared case by case in the areas; here a name that is missing, early or of another kind is a finding.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::report::report;
use crate::support::bootstrap::{
    TO_UP, access_log, bootstrap, cluster, http_listener, http2, listener_of, protocol, tcp_filter, unlogged,
};
use crate::support::client::Client;
use crate::support::h2_client::{self, H2Request};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{self, DeadPort, Upstream};

/// Something that is done, and its name.
type Step = (&'static str, fn(&Proxy));

/// A configuration, and what is done to the proxy that has it, step by step.
struct Scene {
    name: &'static str,
    bootstrap: String,
    steps: Vec<Step>,
}

/// What every scene may send to.
struct Peers {
    up: Upstream,
    h2: H2Upstream,
    silent: H2Upstream,
    dead: DeadPort,
    files: TempDir,
}

/// Compares all scenes.
pub fn run() {
    if !Kind::require_envoy("names of statistics") {
        return;
    }
    let peers = Peers {
        up: Upstream::start(upstream::ok()),
        h2: H2Upstream::start(Behaviour::Ok),
        silent: H2Upstream::start(Behaviour::Stall),
        dead: DeadPort::new(),
        files: TempDir::new().expect("a directory"),
    };
    let mut failures = Vec::new();
    for scene in [plain(&peers), protocols(&peers), filters(&peers), discovery(&peers), ads(&peers), variants(&peers)] {
        let start = |kind| match Proxy::try_start(kind, &scene.bootstrap, &[]) {
            Ok(proxy) => proxy,
            Err(error) => panic!("{}: {kind:?} does not start:\n{error}", scene.name),
        };
        let (envoy, legate) = (start(Kind::Envoy), start(Kind::under_test()));
        let nothing: Step = ("start", |_| {});
        for (step, act) in [&nothing].into_iter().chain(&scene.steps) {
            act(&envoy);
            act(&legate);
            failures.extend(differences(&envoy, &legate).map(|found| format!("{} after {step}: {found}", scene.name)));
        }
    }
    report("names of statistics differ", &failures);
}

/// What differs. Looked at again before it is believed: a connection may not be counted yet.
fn differences(envoy: &Proxy, legate: &Proxy) -> Option<String> {
    let mut found = String::new();
    for pause in [50, 300, 1500] {
        std::thread::sleep(Duration::from_millis(pause));
        let (expected, actual) = (kinds(envoy), kinds(legate));
        assert!(expected.len() > 100, "Envoy shows too little: {expected:?}");
        let missing = expected.iter().filter(|(name, kind)| actual.get(*name) != Some(kind));
        let more = actual.iter().filter(|(name, kind)| expected.get(*name) != Some(kind));
        let lines: Vec<String> = missing
            .map(|(name, kind)| format!("\n  - {name} ({kind})"))
            .chain(more.map(|(name, kind)| format!("\n  + {name} ({kind})")))
            .collect();
        if lines.is_empty() {
            return None;
        }
        found = lines.concat();
    }
    Some(found)
}

/// The kind of every statistic by its name, each kind asked for alone.
fn kinds(proxy: &Proxy) -> BTreeMap<String, &'static str> {
    let mut kinds = BTreeMap::new();
    for kind in ["Counters", "Gauges", "Histograms", "TextReadouts"] {
        for line in proxy.get(&format!("/stats?type={kind}")).body.lines() {
            let name = line.split_once(": ").map_or(line, |(name, _)| name);
            kinds.insert(name.to_owned(), kind);
        }
    }
    kinds
}

fn upstream_cluster(name: &str, port: u16, more: &str) -> String {
    cluster(name, &[port], more)
}

fn get(listener: &'static str, path: &str) -> impl Fn(&Proxy) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    move |proxy| {
        let mut client = Client::connect(proxy.listener(listener));
        client.send(request.as_bytes());
        assert!(client.read_responses(1), "no response to {request}");
    }
}

fn get_h2(listener: &'static str, uri: &'static str) -> impl Fn(&Proxy) {
    move |proxy| {
        let (replies, _) = h2_client::converse(proxy.listener(listener), &[H2Request::get(uri)]);
        assert_eq!(replies.len(), 1, "no response to {uri}");
    }
}

/// One listener, one cluster.
fn plain(peers: &Peers) -> Scene {
    Scene {
        name: "plain",
        bootstrap: bootstrap(
            &[http_listener("web", "", TO_UP, "")],
            &[upstream_cluster("up", peers.up.port(), "")],
            "",
        ),
        steps: vec![("a request", |proxy| get("web", "/")(proxy))],
    }
}

/// HTTP/1 and HTTP/2 on both sides, hosts that do not answer, and a TCP proxy.
fn protocols(peers: &Peers) -> Scene {
    let routes = r#"{name: all, domains: ["*"], routes: [
        {match: {prefix: "/h2"}, route: {cluster: h2}}, {match: {prefix: "/dead"}, route: {cluster: dead}},
        {match: {prefix: "/empty"}, route: {cluster: empty}}, {match: {prefix: "/either"}, route: {cluster: either}},
        {match: {prefix: "/direct"}, direct_response: {status: 204}}, {match: {prefix: "/up"}, route: {cluster: up}}]}"#
        .replace('\n', "");
    let tcp = format!("filter_chains: [{{filters: [{}]}}]", tcp_filter("tcp", "cluster: tcp_up"));
    Scene {
        name: "protocols",
        bootstrap: bootstrap(
            &[http_listener("web", "", &routes, ""), listener_of("tcp", &tcp, "")],
            &[
                upstream_cluster("up", peers.up.port(), "alt_stat_name: other"),
                upstream_cluster("tcp_up", peers.up.port(), ""),
                upstream_cluster("h2", peers.h2.port(), &http2()),
                upstream_cluster(
                    "either",
                    peers.up.port(),
                    &protocol("use_downstream_protocol_config: {http2_protocol_options: {}}"),
                ),
                upstream_cluster("dead", peers.dead.port(), ""),
                "{name: empty, load_assignment: {cluster_name: empty}}".to_owned(),
            ],
            "",
        ),
        steps: vec![
            ("no route", |proxy| get("web", "/nothing")(proxy)),
            ("a direct response", |proxy| get("web", "/direct")(proxy)),
            ("no host", |proxy| get("web", "/empty")(proxy)),
            ("a dead host", |proxy| get("web", "/dead")(proxy)),
            ("HTTP/1", |proxy| get("web", "/up")(proxy)),
            ("HTTP/1 to HTTP/2", |proxy| get("web", "/h2")(proxy)),
            ("HTTP/1 to either", |proxy| get("web", "/either")(proxy)),
            ("HTTP/2", |proxy| get_h2("web", "http://a/up")(proxy)),
            ("TCP", |proxy| get("tcp", "/")(proxy)),
        ],
    }
}

/// Listener filters, overload, layers of the runtime, circuit breakers, DNS.
fn filters(peers: &Peers) -> Scene {
    const LISTENER: &str = "type.googleapis.com/envoy.extensions.filters.listener";
    const MONITORS: &str = "type.googleapis.com/envoy.extensions.resource_monitors";
    let filters = format!(
        r#"listener_filters: [
        {{name: tls, typed_config: {{"@type": {LISTENER}.tls_inspector.v3.TlsInspector}}}},
        {{name: http, typed_config: {{"@type": {LISTENER}.http_inspector.v3.HttpInspector}}}},
        {{name: original, typed_config: {{"@type": {LISTENER}.original_dst.v3.OriginalDst}}}}]"#
    );
    let proxied = format!(
        r#"listener_filters: [
        {{name: proxied, typed_config: {{"@type": {LISTENER}.proxy_protocol.v3.ProxyProtocol,
        allow_requests_without_proxy_protocol: true, stat_prefix: edge}}}}]"#
    );
    let dns = |kind: &str| {
        let port = peers.up.port();
        format!(
            "type: {kind}, load_assignment: {{cluster_name: d, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
             {{socket_address: {{address: localhost, port_value: {port}}}}}}}}}]}}]}}"
        )
    };
    let more = format!(
        r#"layered_runtime: {{layers: [{{name: base, static_layer: {{a: 1}}}}, {{name: admin, admin_layer: {{}}}}]}}
overload_manager: {{resource_monitors: [{{name: envoy.resource_monitors.fixed_heap, typed_config: {{"@type": {MONITORS}.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 10000000000}}}}, {{name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {{"@type": {MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 1000}}}}], actions: [{{name: envoy.overload_actions.stop_accepting_requests, triggers: [{{name: envoy.resource_monitors.fixed_heap, threshold: {{value: 0.95}}}}]}}, {{name: envoy.overload_actions.shrink_heap, triggers: [{{name: envoy.resource_monitors.fixed_heap, scaled: {{scaling_threshold: 0.9, saturation_threshold: 0.95}}}}]}}]}}"#
    );
    Scene {
        name: "filters",
        bootstrap: bootstrap(
            &[
                http_listener("web", "", TO_UP, &filters.replace('\n', "")),
                http_listener("proxied", "", TO_UP, &proxied.replace('\n', "")),
                listener_of("logged", "filter_chains: [{}]", &format!("access_log: [{}]", access_log("logged"))),
            ],
            &[
                upstream_cluster(
                    "up",
                    peers.up.port(),
                    "circuit_breakers: {thresholds: [{track_remaining: true}, {priority: HIGH}]}",
                ),
                format!("{{name: strict, {}}}", dns("STRICT_DNS")),
                format!("{{name: logical, {}}}", dns("LOGICAL_DNS")),
                "{name: original, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED}".to_owned(),
            ],
            &more,
        ),
        steps: vec![
            ("a request", |proxy| get("web", "/")(proxy)),
            ("a request without PROXY header", |proxy| get("proxied", "/")(proxy)),
        ],
    }
}

/// Everything discovered from files.
fn discovery(peers: &Peers) -> Scene {
    let path = |name: &str| peers.files.path().join(name).to_string_lossy().into_owned();
    let source = |name: &str| format!("{{path_config_source: {{path: {}}}}}", path(name));
    let file = |name: &str, kind: &str, resources: &[String]| {
        let each = |resource: &String| {
            format!("- {}\n", resource.replacen('{', &format!(r#"{{"@type": type.googleapis.com/{kind}, "#), 1))
        };
        let text = format!("resources:\n{}", resources.iter().map(each).collect::<String>());
        fs::write(path(name), text).expect("a file");
    };
    let port = peers.up.port();
    let endpoint = format!("endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}");
    file(
        "eds.yaml",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        &[format!("{{cluster_name: service, endpoints: [{{lb_endpoints: [{{{endpoint}}}]}}]}}")],
    );
    file(
        "rds.yaml",
        "envoy.config.route.v3.RouteConfiguration",
        &[format!("{{name: routes, virtual_hosts: [{TO_UP}]}}")],
    );
    file(
        "cds.yaml",
        "envoy.config.cluster.v3.Cluster",
        &[
            format!(
                "{{name: up, type: EDS, eds_cluster_config: {{service_name: service, eds_config: {}}}}}",
                source("eds.yaml")
            ),
            upstream_cluster("other", port, ""),
        ],
    );
    let rds = format!("rds: {{route_config_name: routes, config_source: {}}}", source("rds.yaml"));
    let listener = unlogged(&http_listener("web", &rds, "", ""));
    file("lds.yaml", "envoy.config.listener.v3.Listener", &[listener]);
    let more = format!(
        "node: {{id: node, cluster: c}}\ndynamic_resources: {{cds_config: {}, lds_config: {}}}",
        source("cds.yaml"),
        source("lds.yaml")
    );
    Scene {
        name: "discovery",
        bootstrap: bootstrap(&[], &[], &more),
        steps: vec![("a request", |proxy| get("web", "/")(proxy))],
    }
}

/// A control plane that says nothing.
fn ads(peers: &Peers) -> Scene {
    let more = "node: {id: node, cluster: c}
dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}, cds_config: {ads: {}, initial_fetch_timeout: 0.3s}, lds_config: {ads: {}, initial_fetch_timeout: 0.3s}}";
    Scene {
        name: "ads",
        bootstrap: bootstrap(&[], &[upstream_cluster("xds", peers.silent.port(), &http2())], more),
        steps: Vec::new(),
    }
}

const VIRTUAL: &str = r#"{name: v, domains: ["*"], virtual_clusters: [{name: first, headers: [{name: ":path", string_match: {prefix: /a}}]}], routes: [{match: {prefix: /a}, route: {cluster: up}}, {match: {prefix: /}, stat_prefix: own, route: {cluster: up}}]}"#;

/// The copies of a cluster's response statistics, virtual clusters, and routes with statistics of their own.
fn variants(peers: &Peers) -> Scene {
    let port = peers.up.port();
    let zoned = format!(
        "load_assignment: {{cluster_name: up, endpoints: [{{locality: {{zone: there}}, lb_endpoints: [{{metadata: \
         {{filter_metadata: {{envoy.lb: {{canary: true}}}}}}, endpoint: {{address: {{socket_address: {{address: \
         127.0.0.1, port_value: {port}}}}}}}}}]}}]}}"
    );
    let silent = r#"http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, dynamic_stats: false}}]"#;
    let manager = "use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}";
    Scene {
        name: "variants",
        bootstrap: bootstrap(
            &[
                http_listener("virtual", "", VIRTUAL, ""),
                http_listener("silent", silent, &TO_UP.replace("cluster: up", "cluster: quiet"), ""),
                http_listener("web", "", TO_UP, ""),
                http_listener("inside", manager, TO_UP, ""),
            ],
            &[upstream_cluster("up", port, &zoned), upstream_cluster("quiet", port, "")],
            "node: {id: node, cluster: c, locality: {zone: here}}",
        ),
        steps: vec![
            ("a request to a virtual cluster", |proxy| get("virtual", "/a")(proxy)),
            ("a request to none", |proxy| get("virtual", "/b")(proxy)),
            ("a request that is not to be counted", |proxy| get("silent", "/")(proxy)),
            ("a request", |proxy| get("web", "/")(proxy)),
            ("a request from inside", |proxy| get("inside", "/")(proxy)),
            ("a request with a name of its own", |proxy| {
                let mut client = Client::connect(proxy.listener("inside"));
                client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-upstream-alt-stat-name: own\r\n\r\n");
                assert!(client.read_responses(1), "no response");
            }),
        ],
    }
}

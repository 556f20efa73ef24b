//! Reference 3.5 and 3.1, what takes its time: the share of a host that has just come (slow start), and which updates of
//! hosts wait for others (`update_merge_window`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::balance::{ask, endpoint, serve_everywhere};
use super::report::report;
use crate::support::bootstrap::{bootstrap, http_listener};
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};

/// How long a host is new.
const WINDOW: Duration = Duration::from_secs(4);
/// A request goes to each cluster as often.
const EVERY: Duration = Duration::from_millis(40);
/// The window is looked at in so many parts.
const PARTS: usize = 4;
/// By how much shares may differ within a part, of about 25 requests.
const TOLERANCE: f64 = 0.16;

const SLOW: &[(&str, &str)] = &[
    ("round_robin", "lb_policy: ROUND_ROBIN, round_robin_lb_config: {slow_start_config: {slow_start_window: 4s}}"),
    (
        "aggressive",
        "lb_policy: ROUND_ROBIN, round_robin_lb_config: {slow_start_config: {slow_start_window: 4s, aggression: {default_value: 3.0, runtime_key: k}}}",
    ),
    (
        "half_at_first",
        "lb_policy: ROUND_ROBIN, round_robin_lb_config: {slow_start_config: {slow_start_window: 4s, min_weight_percent: {value: 50}}}",
    ),
    (
        "least_request",
        "lb_policy: LEAST_REQUEST, least_request_lb_config: {slow_start_config: {slow_start_window: 4s, aggression: {default_value: 0.5, runtime_key: k}}}",
    ),
];

/// Writes the endpoints of all clusters: 127.0.0.`n` with a weight each.
fn assign(file: &Path, version: usize, hosts: &[(usize, u32)], port: u16) {
    let hosts: Vec<String> =
        hosts.iter().map(|(n, weight)| endpoint(*n, &format!("load_balancing_weight: {weight}"))).collect();
    let text = format!(
        "version_info: '{version}'\nresources:\n- {{\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, \
         cluster_name: hosts, endpoints: [{{lb_endpoints: [{}]}}]}}\n",
        hosts.join(", ")
    );
    let next = file.with_extension("next");
    fs::write(&next, text.replace("PORT", &port.to_string())).expect("a file");
    fs::rename(next, file).expect("a file in place");
}

/// A bootstrap of clusters that find their hosts in `file`.
fn document(clusters: &[(&str, &str)], file: &Path) -> String {
    let mut routes = String::new();
    let discovered = clusters.iter().map(|(name, fields)| {
        let _ = write!(routes, "{{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}}}}},");
        format!(
            "{{name: {name}, type: EDS, eds_cluster_config: {{service_name: hosts, eds_config: {{path_config_source: \
             {{path: {}}}}}}}, {fields}}}",
            file.display()
        )
    });
    let clusters: Vec<String> = discovered.collect();
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    bootstrap(&[http_listener("in", "access_log: []", &hosts, "")], &clusters, "node: {id: a, cluster: b}")
}

/// A host that comes gets as much as through Envoy, in each part of its first seconds.
pub fn slow_start() {
    if !Kind::require_envoy("slow start") {
        return;
    }
    let port = serve_everywhere();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("endpoints.yaml");
    assign(&file, 1, &[(2, 1), (3, 1)], port);
    let text = document(SLOW, &file);
    let proxies = [Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text)];
    // The first hosts are new, too.
    std::thread::sleep(WINDOW + Duration::from_millis(500));
    assign(&file, 2, &[(2, 1), (3, 1), (4, 1)], port);
    for proxy in &proxies {
        proxy.wait_for_stat("cluster.round_robin.membership_total", |total| total == 3);
    }
    let began = Instant::now();
    let shares = |proxy: &Proxy, name: &str| -> Vec<f64> {
        let (address, path) = (proxy.listener("in"), format!("/{name}"));
        let mut parts = [(0_u32, 0_u32); PARTS];
        while let Some((new, all)) = part(began).and_then(|part| parts.get_mut(part)) {
            *new += u32::from(ask(address, &path, 1, port) == ["127.0.0.4"]);
            *all += 1;
            std::thread::sleep(EVERY);
        }
        parts.iter().map(|(new, all)| f64::from(*new) / f64::from((*all).max(1))).collect()
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let both = SLOW.iter().map(|(name, _)| {
            let [envoy, legate] = proxies.each_ref().map(|proxy| scope.spawn(move || shares(proxy, name)));
            (name, envoy, legate)
        });
        let both: Vec<_> = both.collect();
        let both = both.into_iter().map(|(name, envoy, legate)| {
            (name, envoy.join().expect("a thread that ends"), legate.join().expect("a thread that ends"))
        });
        both.filter_map(|(name, expected, actual)| {
            let grows = expected.first() < expected.last();
            let close = expected.iter().zip(&actual).all(|(a, b)| (a - b).abs() <= TOLERANCE);
            (!grows || !close).then(|| format!("{name}: {actual:.2?}, not {expected:.2?}"))
        })
        .collect()
    });
    report(&format!("{} findings on slow start", failures.len()), &failures);
}

/// Which part of the window it is; `None` after it.
fn part(began: Instant) -> Option<usize> {
    let parts = began.elapsed().as_secs_f64() / WINDOW.as_secs_f64() * PARTS as f64;
    Some(parts as usize).filter(|part| *part < PARTS)
}

/// Updates by endpoint discovery are applied at once, whatever the window.
pub fn merged_updates() {
    if !Kind::require_envoy("updates") {
        return;
    }
    let port = serve_everywhere();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("endpoints.yaml");
    assign(&file, 1, &[(2, 1), (3, 1)], port);
    let mut failures = Vec::new();
    for window in ["connect_timeout: 1s", "common_lb_config: {update_merge_window: 0s}"] {
        let text = document(&[("c", window)], &file);
        let proxies = [Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text)];
        let steps: [&[(usize, u32)]; 6] = [
            &[(2, 2), (3, 1)],
            &[(2, 3), (3, 1)],
            &[(2, 3), (3, 1), (4, 1)],
            &[(2, 4), (3, 1), (4, 1)],
            &[(2, 4), (3, 1)],
            &[(2, 1), (3, 1)],
        ];
        for (n, hosts) in steps.into_iter().enumerate() {
            assign(&file, n + 2, hosts, port);
            let weights = i64::from(hosts.iter().map(|(_, weight)| *weight).max().unwrap_or(0));
            let counts = proxies.each_ref().map(|proxy| {
                proxy.wait_for_stat("cluster.c.membership_total", |total| total == hosts.len() as i64);
                eventually("the new weights", || (proxy.stat("cluster.c.max_host_weight") == weights).then_some(()));
                let counts: BTreeMap<_, _> = proxy.stats(r"^cluster_manager\.(cluster_updated|update_)");
                counts
            });
            if counts[0] != counts[1] {
                failures.push(format!("{window}, step {n}: {:?}, not {:?}", counts[1], counts[0]));
            }
        }
    }
    report(&format!("{} findings on updates", failures.len()), &failures);
}

//! What becomes of hosts: whom outlier detection takes out by comparison with others, and for how long; who comes, stays and
//! goes where hosts are checked, where assignments grow stale, and where nobody asks for a host any more (reference 3.1, 3.2,
//! 3.3 and 3.7).
//!
//! Each fate is a cluster that finds its hosts in a file. What is compared is where both proxies come to rest.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::balance::serve_everywhere_by;
use super::report::report;
use crate::support::bootstrap::{bootstrap, cluster, http_listener, http2, protocol};
use crate::support::proxy::{Kind, Proxy};
use crate::support::{PATIENCE, eventually};

/// From here on hosts answer with 503, but not their health checks.
const FAILING: u8 = 200;
/// From here on they leave health checks unanswered, too.
const SILENT: u8 = 220;

/// Of the clusters whose hosts are checked.
const CHECKS: &str = "health_checks: [{timeout: 60s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /hz}}]";

/// A cluster and what is done to it.
struct Fate {
    name: &'static str,
    /// Fields of the cluster.
    cluster: &'static str,
    /// Its hosts are checked, as [`CHECKS`] says.
    checked: bool,
    /// The last numbers of its hosts' addresses.
    hosts: &'static [u8],
    /// `policy` of its assignment.
    policy: &'static str,
    /// So many requests are sent to it.
    requests: usize,
    /// A statistic of it that has to have come to something before anything else is done.
    until: &'static str,
    /// Its hosts after that.
    then: Option<&'static [u8]>,
}

const USUAL: Fate =
    Fate { name: "", cluster: "", checked: false, hosts: &[2], policy: "", requests: 0, until: "", then: None };

const FATES: &[Fate] = &[
    Fate {
        name: "success_rate",
        cluster: "outlier_detection: {interval: 1s, base_ejection_time: 100s, success_rate_minimum_hosts: 3, success_rate_request_volume: 5, success_rate_stdev_factor: 1000, failure_percentage_minimum_hosts: 3, failure_percentage_request_volume: 5, consecutive_5xx: 1000, consecutive_gateway_failure: 1000, max_ejection_percent: 50}",
        hosts: &[2, 3, 4, 5, FAILING],
        requests: 300,
        until: "outlier_detection.ejections_enforced_success_rate",
        ..USUAL
    },
    Fate {
        name: "success_rate_of_too_few",
        cluster: "outlier_detection: {interval: 0.3s, base_ejection_time: 100s, success_rate_minimum_hosts: 6, success_rate_request_volume: 5, failure_percentage_minimum_hosts: 100, enforcing_consecutive_5xx: 0, max_ejection_percent: 50}",
        hosts: &[2, 3, 4, 5, FAILING],
        requests: 300,
        until: "outlier_detection.ejections_detected_consecutive_5xx",
        ..USUAL
    },
    Fate {
        name: "failure_percentage",
        cluster: "outlier_detection: {interval: 1s, base_ejection_time: 100s, failure_percentage_threshold: 50, enforcing_failure_percentage: 100, failure_percentage_minimum_hosts: 3, failure_percentage_request_volume: 5, success_rate_minimum_hosts: 100, consecutive_5xx: 1000, consecutive_gateway_failure: 1000, max_ejection_percent: 50}",
        hosts: &[2, 3, 4, FAILING],
        requests: 300,
        until: "outlier_detection.ejections_enforced_failure_percentage",
        ..USUAL
    },
    Fate {
        name: "failure_percentage_spared",
        cluster: "outlier_detection: {interval: 1s, base_ejection_time: 100s, failure_percentage_threshold: 50, failure_percentage_minimum_hosts: 3, failure_percentage_request_volume: 5, success_rate_minimum_hosts: 100, consecutive_5xx: 1000, consecutive_gateway_failure: 1000, max_ejection_percent: 50}",
        hosts: &[2, 3, 4, FAILING],
        requests: 300,
        until: "outlier_detection.ejections_detected_failure_percentage",
        ..USUAL
    },
    Fate {
        name: "uneject_by_check",
        cluster: "outlier_detection: {consecutive_5xx: 2, interval: 100s, base_ejection_time: 100s, max_ejection_percent: 100}, health_checks: [{timeout: 1s, interval: 1s, no_traffic_interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /hz}}]",
        hosts: &[FAILING],
        requests: 2,
        until: "outlier_detection.ejections_enforced_total",
        ..USUAL
    },
    Fate {
        name: "stay_ejected",
        cluster: "outlier_detection: {consecutive_5xx: 2, interval: 100s, base_ejection_time: 100s, max_ejection_percent: 100, successful_active_health_check_uneject_host: false}, health_checks: [{timeout: 1s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /hz}}]",
        hosts: &[FAILING],
        requests: 2,
        until: "outlier_detection.ejections_enforced_total",
        ..USUAL
    },
    Fate { name: "newcomer", checked: true, until: "membership_healthy", then: Some(&[2, SILENT]), ..USUAL },
    Fate {
        name: "newcomer_ignored",
        cluster: "common_lb_config: {ignore_new_hosts_until_first_hc: true}",
        checked: true,
        until: "membership_healthy",
        then: Some(&[2, SILENT]),
        ..USUAL
    },
    Fate {
        name: "newcomer_checked",
        cluster: "common_lb_config: {ignore_new_hosts_until_first_hc: true}",
        checked: true,
        until: "membership_healthy",
        then: Some(&[2, 3]),
        ..USUAL
    },
    Fate {
        name: "gone_but_healthy",
        checked: true,
        hosts: &[2, 3],
        until: "membership_healthy",
        then: Some(&[2]),
        ..USUAL
    },
    Fate {
        name: "gone_healthy_or_not",
        cluster: "ignore_health_on_host_removal: true",
        checked: true,
        hosts: &[2, 3],
        until: "membership_healthy",
        then: Some(&[2]),
        ..USUAL
    },
    Fate { name: "stale", hosts: &[2, 3], policy: "endpoint_stale_after: 0.5s", until: "assignment_stale", ..USUAL },
    Fate { name: "all_gone", hosts: &[2, 3], until: "membership_total", then: Some(&[]), ..USUAL },
];

/// Where hosts come to rest is where they do through Envoy.
pub fn run() {
    if !Kind::require_envoy("fates of hosts") {
        return;
    }
    let port = serve_everywhere_by(answer);
    let directory = tempfile::tempdir().expect("a directory");
    let mut routes = String::new();
    let clusters = FATES.iter().map(|Fate { name, cluster, checked, .. }| {
        let checks = if *checked { format!("{CHECKS}, ") } else { String::new() };
        let _ = write!(routes, "{{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}}}}},");
        let path = file_of(directory.path(), name);
        format!(
            "{{name: {name}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{eds_config: {{path_config_source: {{path: {}}}}}}}, \
             {checks}{}}}",
            path.display(),
            with_panic_off(cluster)
        )
    });
    let clusters: Vec<String> = clusters.collect();
    for fate in FATES {
        assign(directory.path(), fate, fate.hosts, 1, port);
    }
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    let more = "node: {id: a, cluster: b}\ncluster_manager: {outlier_detection: {event_log_path: \"${DIR}/events\"}}";
    let text = bootstrap(&[http_listener("in", "access_log: []", &hosts, "")], &clusters, more);
    let proxies = [Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text)];
    let failures = std::thread::scope(|scope| {
        let fates = FATES.iter().map(|fate| scope.spawn(|| meet(fate, &proxies, directory.path(), port)));
        let fates: Vec<_> = fates.collect();
        fates.into_iter().filter_map(|fate| fate.join().expect("a thread that ends")).collect::<Vec<_>>()
    });
    report(&format!("{} of {} fates differ", failures.len(), FATES.len()), &failures);
    let [expected, actual] = proxies.each_ref().map(events);
    assert!(expected.len() > 3, "Envoy logged little: {expected:?}");
    assert_eq!(actual, expected, "events of outlier detection");
}

/// A fate through both proxies; how Legate's differs, if it does.
fn meet(fate: &Fate, proxies: &[Proxy; 2], directory: &Path, port: u16) -> Option<String> {
    for proxy in proxies {
        for _ in 0..fate.requests {
            get(proxy, fate.name, "");
        }
    }
    if !fate.until.is_empty() {
        for proxy in proxies {
            proxy.wait_for_stat(&format!("cluster.{}.{}", fate.name, fate.until), |value| value > 0);
        }
    }
    if let Some(hosts) = fate.then {
        assign(directory, fate, hosts, 2, port);
        // Both have read it.
        for proxy in proxies {
            proxy.wait_for_stat(&format!("cluster.{}.update_success", fate.name), |updates| updates > 1);
        }
    }
    // Long enough for what must not happen, and as long as it takes for what must.
    std::thread::sleep(Duration::from_millis(1500));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let [expected, actual] = proxies.each_ref().map(|proxy| state(proxy, fate.name));
        if expected == actual {
            return None;
        }
        if Instant::now() > deadline {
            return Some(format!("{}\n  Envoy:\n{expected}\n  Legate:\n{actual}", fate.name));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The hosts of a cluster, and what was counted of them.
fn state(proxy: &Proxy, name: &str) -> String {
    let page = proxy.get("/clusters").body;
    let prefix = format!("{name}::127.0.0.");
    let of_hosts = page.lines().filter(|line| line.starts_with(&prefix) && line.contains("::health_flags::"));
    let mut lines: Vec<String> = of_hosts.map(str::to_owned).collect();
    lines.sort();
    let counts = proxy.stats(&format!(
        r"^cluster\.{name}\.(membership_(total|healthy|excluded|degraded)|assignment_stale|outlier_detection\.)"
    ));
    // How often a host is found out depends on how many intervals the requests fell into.
    let often = |name: &str| name.contains("outlier_detection.") && !name.ends_with("active");
    let told = |(name, value): (String, i64)| {
        if often(&name) { format!("{name}: some") } else { format!("{name}: {value}") }
    };
    lines.extend(counts.into_iter().filter(|(_, value)| *value != 0).map(told));
    lines.join("\n")
}

/// What was logged of outliers that were judged once: without times, in no order.
fn events(proxy: &Proxy) -> Vec<String> {
    let text = fs::read_to_string(proxy.directory().join("events")).unwrap_or_default();
    let timeless = |line: &str| {
        let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let fields = event.as_object_mut().expect("an object");
        for field in ["timestamp", "secs_since_last_action"] {
            if let Some(value) = fields.get_mut(field) {
                *value = "some".into();
            }
        }
        // Averages depend on how many requests an interval happened to see.
        for kind in ["eject_success_rate_event", "eject_failure_percentage_event"] {
            if let Some(details) = fields.get_mut(kind).and_then(|value| value.as_object_mut()) {
                details.values_mut().for_each(|value| *value = "some".into());
            }
        }
        event.to_string()
    };
    let mut lines: Vec<String> = text.lines().map(timeless).collect();
    lines.sort();
    lines.dedup();
    lines
}

/// With `healthy_panic_threshold: 0`.
fn with_panic_off(cluster: &str) -> String {
    const OFF: &str = "healthy_panic_threshold: {value: 0}";
    match cluster.split_once("common_lb_config: {") {
        Some((before, after)) => format!("{before}common_lb_config: {{{OFF}, {after}"),
        None => format!("common_lb_config: {{{OFF}}}, {cluster}"),
    }
}

/// Writes a cluster's endpoints, at once.
fn assign(directory: &Path, fate: &Fate, hosts: &[u8], version: usize, port: u16) {
    let endpoint =
        |n: &u8| format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.{n}, port_value: {port}}}}}}}}}");
    let endpoints: Vec<String> = hosts.iter().map(endpoint).collect();
    let policy = if fate.policy.is_empty() { String::new() } else { format!(", policy: {{{}}}", fate.policy) };
    let text = format!(
        "version_info: '{version}'\nresources:\n- {{\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, \
         cluster_name: {}, endpoints: [{{lb_endpoints: [{}]}}]{policy}}}\n",
        fate.name,
        endpoints.join(", ")
    );
    let next = directory.join(format!("{}.next", fate.name));
    fs::write(&next, text).expect("a file");
    fs::rename(next, file_of(directory, fate.name)).expect("a file in place");
}

/// Where a cluster finds its hosts.
fn file_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.yaml"))
}

/// Answers as the number of the host wants it.
fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let std::net::IpAddr::V4(host) = stream.local_addr()?.ip() else { return Ok(()) };
    let number = host.octets()[3];
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let checks = first.contains("/hz");
        match number {
            SILENT.. if checks => {}
            FAILING.. if !checks => writer.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")?,
            _ => writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
}

/// The answer to a request of this path, with more header lines.
fn get(proxy: &Proxy, path: &str, lines: &str) -> String {
    let mut stream = TcpStream::connect(proxy.listener("in")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: a\r\n{lines}connection: close\r\n\r\n").expect("a request sent");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

/// How long a host is out grows from one ejection to the next, but not beyond `max_ejection_time`.
pub fn ejection_times() {
    if !Kind::require_envoy("ejection times") {
        return;
    }
    let port = serve_everywhere_by(answer);
    let ejecting = |name: &str, more: &str| {
        format!(
            "{{name: {name}, connect_timeout: 1s, common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, outlier_detection: \
             {{consecutive_5xx: 1, interval: 0.5s, base_ejection_time: 1s, max_ejection_percent: 100, {more}}}, load_assignment: \
             {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: \
             127.0.0.{FAILING}, port_value: {port}}}}}}}}}]}}]}}}}"
        )
    };
    let clusters = [ejecting("growing", ""), ejecting("bounded", "max_ejection_time: 1.2s")];
    let routes = ["growing", "bounded"]
        .map(|name| format!("{{match: {{path_separated_prefix: /{name}}}, route: {{cluster: {name}}}}}"))
        .join(", ");
    let hosts = format!(r#"{{name: all, domains: ["*"], routes: [{routes}]}}"#);
    let text = bootstrap(&[http_listener("in", "access_log: []", &hosts, "")], &clusters, "");
    let proxies = [Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text)];
    let three = |proxy: &Proxy, name: &str| -> Duration {
        let active = format!("cluster.{name}.outlier_detection.ejections_active");
        let mut out = Duration::ZERO;
        for _ in 0..3 {
            // The worker may hear later than the gauge that the host is back.
            let began = eventually("an ejection", || {
                get(proxy, name, "");
                (proxy.stat(&active) == 1).then(Instant::now)
            });
            eventually("its end", || (proxy.stat(&active) == 0).then_some(()));
            out += began.elapsed();
        }
        out
    };
    let times = std::thread::scope(|scope| {
        let all =
            ["growing", "bounded"].map(|name| proxies.each_ref().map(|proxy| scope.spawn(move || three(proxy, name))));
        all.map(|both| both.map(|one| one.join().expect("a thread that ends")))
    });
    for [expected, actual] in times {
        // Each of three ends with a sweep, which comes every half a second.
        assert!(expected.abs_diff(actual) < Duration::from_millis(1600), "{actual:?}, not {expected:?}");
    }
    let [[growing, _], [bounded, _]] = times;
    // A host that is not ejected again before the next sweep is forgiven a step.
    assert!(growing > bounded + Duration::from_millis(400), "{growing:?} and {bounded:?} are to differ");
}

/// A host that requests named is forgotten once none names it for a while.
pub fn original_destinations() {
    if !Kind::require_envoy("original destinations") {
        return;
    }
    let port = serve_everywhere_by(answer);
    // A host that has a connection is in use.
    let rest = protocol(
        "common_http_protocol_options: {idle_timeout: 0.1s}, explicit_http_config: {http_protocol_options: {}}",
    );
    let cluster = format!(
        "{{name: named, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 1s, cleanup_interval: 0.5s, original_dst_lb_config: {{use_http_header: true}}, {rest}}}"
    );
    let hosts = r#"{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: named}}]}"#;
    let listener = http_listener("in", "access_log: []", hosts, "");
    let text = bootstrap(&[listener], &[cluster], "");
    for proxy in [Proxy::start(Kind::Envoy, &text), Proxy::start(Kind::under_test(), &text)] {
        for host in [7, 8] {
            let answer = get(&proxy, "", &format!("x-envoy-original-dst-host: 127.0.0.{host}:{port}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200"), "{:?}: {answer}", proxy.kind());
        }
        proxy.wait_for_stat("cluster.named.membership_total", |total| total == 2);
        proxy.wait_for_stat("cluster.named.membership_total", |total| total == 0);
    }
}

/// A cluster whose endpoints do not come holds start-up until `initial_fetch_timeout`; EDS does so whatever it says.
pub fn warming_at_start() {
    if !Kind::require_envoy("clusters that warm at start-up") {
        return;
    }
    let more = "node: {id: a, cluster: b}\ndynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, \
                grpc_services: [{envoy_grpc: {cluster_name: nobody}}]}}";
    let nobody = cluster("nobody", &[1], &http2());
    for fields in ["connect_timeout: 1s", "wait_for_warm_on_init: false"] {
        let late = format!(
            "{{name: late, type: EDS, {fields}, eds_cluster_config: {{eds_config: {{initial_fetch_timeout: 3s, \
             resource_api_version: V3, ads: {{}}}}}}}}"
        );
        let text = bootstrap(&[], &[nobody.clone(), late], more);
        let waits = [Kind::Envoy, Kind::under_test()].map(|kind| {
            let began = Instant::now();
            drop(Proxy::start(kind, &text));
            began.elapsed() > Duration::from_millis(2500)
        });
        assert_eq!(waits[1], waits[0], "whether start-up waits: {fields}");
    }
}

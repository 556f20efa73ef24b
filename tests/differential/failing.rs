//! Reference 3.1 and 3.9: what becomes of connections to a host whose health checks begin to fail. A request in flight
//! finishes, idle connections close, and layer-4 connections go on unless the cluster says otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, http_listener, http2, listener_of, protocol, tcp_filter};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, fields, frame, settings};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Upstream};

const CLOSES: &str = "close_connections_on_host_health_failure: true";

/// A kind of connection to a host that fails: its name, its cluster's fields, and what the host does with it.
fn kinds() -> Vec<(&'static str, String, Vec<Act>)> {
    let pause = || Act::Pause(Duration::from_millis(500));
    let head = || frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", "200")]));
    let answer = || Act::Send([settings(&[]), head(), frame(DATA, END_STREAM, 1, b"ok")].concat());
    let ok = || Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
    vec![
        ("tcp", String::new(), vec![Act::Hold]),
        ("tcp_closes", CLOSES.to_owned(), vec![Act::Hold]),
        ("tcp_closes_talking", CLOSES.to_owned(), vec![Act::Send(b"hello".to_vec()), Act::Hold]),
        ("busy", String::new(), vec![Act::Request, pause(), ok(), Act::Hold]),
        ("busy_closes", CLOSES.to_owned(), vec![Act::Request, pause(), ok(), Act::Hold]),
        ("idle", String::new(), vec![Act::Request, ok(), Act::Hold]),
        ("idle_closes", CLOSES.to_owned(), vec![Act::Request, ok(), Act::Hold]),
        ("idle_h2", http2(), vec![Act::Frame(HEADERS), answer(), Act::Hold]),
        ("busy_h2", http2(), vec![Act::Frame(HEADERS), pause(), answer(), Act::Hold]),
        (
            "idle_limited",
            protocol(
                "common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}",
            ),
            vec![Act::Request, ok(), Act::Hold],
        ),
    ]
}

/// Compares all kinds.
#[test]
fn hosts_that_fail() {
    compare("hosts_that_fail", observe);
}

/// What is seen of each kind.
fn observe(kind: Kind) -> BTreeMap<&'static str, String> {
    let kinds = kinds();
    // Well at first; whoever asks again waits until the script says otherwise.
    let well = |status: &str| Act::Send(format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n").into_bytes());
    let checks: Vec<Upstream> =
        kinds.iter().map(|_| Upstream::start(vec![vec![Act::Request, well("200"), Act::Hold]])).collect();
    let hosts: Vec<Upstream> = kinds.iter().map(|(_, _, acts)| Upstream::start(vec![acts.clone()])).collect();
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for (((name, fields, _), check), host) in kinds.iter().zip(&checks).zip(&hosts) {
        let endpoint = format!(
            "{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}, health_check_config: {{port_value: {}}}}}}}",
            host.port(),
            check.port()
        );
        clusters.push(cluster(
            name,
            &[],
            &format!(
                "load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}, \
                 common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, \
                 health_checks: [{{timeout: 100s, interval: 0.02s, no_traffic_interval: 0.02s, unhealthy_threshold: 1, \
                 healthy_threshold: 1, reuse_connection: false, http_health_check: {{path: /hz}}}}], {fields}"
            ),
        ));
        let route = format!(
            r#"{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: {name}}}}}]}}"#
        );
        listeners.push(if name.starts_with("tcp") {
            listener_of(
                name,
                &format!("filter_chains: [{{filters: [{}]}}]", tcp_filter(name, &format!("cluster: {name}"))),
                "",
            )
        } else {
            http_listener(name, "", &route, "")
        });
    }
    let proxy = Proxy::start(kind, &bootstrap(&listeners, &clusters, ""));
    let mut seen = BTreeMap::new();
    for (((name, ..), check), host) in kinds.iter().zip(&checks).zip(&hosts) {
        seen.insert(*name, one(&proxy, name, check, host));
    }
    seen
}

fn one(proxy: &Proxy, name: &str, check: &Upstream, host: &Upstream) -> String {
    let stat = |leaf: &str| format!("cluster.{name}.{leaf}");
    proxy.wait_for_stat(&stat("membership_healthy"), |healthy| healthy == 1);
    let mut client = Client::connect(proxy.listener(name));
    client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    eventually("the host to be asked", || host.received().first().is_some_and(|bytes| bytes.len() > 20).then_some(()));
    if name.starts_with("idle") {
        client.read_responses(1);
    }
    // From now on the checks fail.
    check.script(vec![vec![
        Act::Request,
        Act::Send(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec()),
        Act::Hold,
    ]]);
    proxy.wait_for_stat(&stat("membership_healthy"), |healthy| healthy == 0);
    if name.starts_with("busy") {
        client.read_responses(1);
    }
    client.read_until(Duration::from_millis(300), |_| false);
    let mut text = format!("  {:?}, {} responses\n", client.end, client.responses().len());
    let all = r"upstream_(cx|rq)_(active|total|destroy|connect|pending|per)|upstream_rq_[0-9]";
    for (stat, value) in proxy.stats(&format!(r"^cluster\.{name}\.({all})")) {
        let _ = writeln!(text, "  {stat}: {value}");
    }
    // The host ends what is left, then the client.
    host.hang_up();
    std::thread::sleep(Duration::from_millis(50));
    drop(client);
    proxy.wait_for_stat(&stat("upstream_cx_active"), |active| active == 0);
    for (stat, value) in proxy.stats(&format!(r"^(cluster\.{name}\.upstream_cx_destroy|tcp\.{name}\..*total)")) {
        let _ = writeln!(text, "  {stat}: {value}");
    }
    let lines = eventually("a line", || Some(proxy.lines(&format!("{name}.log"))).filter(|lines| !lines.is_empty()));
    for line in lines {
        let _ = writeln!(text, "  {}", line.replace(&host.port().to_string(), "PORT"));
    }
    text
}

//! Reference 3.2 and 3.9: clusters whose hosts are found by name, where a name has several addresses, of one family or of two.
//! Compared are the hosts, whether requests get through, and what connecting to them is counted as.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::report::compare;
use crate::support::bootstrap::{bootstrap, cluster, http_listener};
use crate::support::client::exchange;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{self, Upstream};

const A: u8 = 1;
const AAAA: u8 = 28;

/// Hosts by name. Somebody listens on 127.0.0.1 alone.
fn addresses(name: &str, kind: u8) -> Vec<Vec<u8>> {
    let v4 = |last: &[u8]| last.iter().map(|last| Ipv4Addr::new(127, 0, 0, *last).octets().to_vec()).collect();
    let v6 = vec![Ipv6Addr::LOCALHOST.octets().to_vec()];
    match (name, kind) {
        ("both" | "four", A) => v4(&[1]),
        ("two", A) => v4(&[1, 2]),
        ("twice", A) => v4(&[1, 1]),
        ("three", A) => v4(&[2, 1]),
        ("both" | "six" | "three", AAAA) => v6,
        _ => Vec::new(),
    }
}

/// A DNS server on loopback.
fn server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let Some(reply) = buffer.get(..length).and_then(answer) else { continue };
            if socket.send_to(&reply, peer).is_err() {
                return;
            }
        }
    });
    address
}

/// The answer to the one question of a query, by the first label of its name.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
    let label = query.get(13..13 + usize::from(*query.get(12)?))?;
    let kind = *query.get(end - 3)?;
    let found = addresses(std::str::from_utf8(label).ok()?, kind);
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::try_from(found.len()).ok()?, 0, 0, 0, 0]);
    reply.extend(query.get(12..end)?);
    for data in found {
        reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30, 0, u8::try_from(data.len()).ok()?]);
        reply.extend(data);
    }
    Some(reply)
}

/// Compares every kind of cluster with every family and name.
#[test]
fn hosts_by_name() {
    let resolver = server();
    compare("hosts_by_name", |kind| observe(kind, resolver));
}

fn observe(kind: Kind, resolver: SocketAddr) -> BTreeMap<String, String> {
    let up = Upstream::start(upstream::ok());
    let (mut names, mut clusters, mut table) = (Vec::new(), Vec::new(), String::new());
    for discovery in ["STRICT_DNS", "LOGICAL_DNS"] {
        for family in ["ALL", "AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED"] {
            for host in ["both", "four", "six", "two", "twice", "three"] {
                let name = format!("{discovery}_{family}_{host}");
                let endpoint = format!(
                    "{{endpoint: {{address: {{socket_address: {{address: {host}.test, port_value: {}}}}}}}}}",
                    up.port()
                );
                let resolvers = format!(
                    r#"typed_dns_resolver_config: {{name: cares, typed_config: {{"@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {}}}}}]}}}}"#,
                    resolver.port()
                );
                clusters.push(cluster(
                    &name,
                    &[],
                    &format!(
                        "type: {discovery}, dns_lookup_family: {family}, {resolvers}, \
                         load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}"
                    ),
                ));
                let _ = write!(table, r#"{{match: {{path: "/{name}"}}, route: {{cluster: {name}}}}}, "#);
                names.push(name);
            }
        }
    }
    let table = format!(r#"{{name: all, domains: ["*"], routes: [{table}]}}"#);
    let proxy = Proxy::start(kind, &bootstrap(&[http_listener("in", "", &table, "")], &clusters, ""));
    let page = proxy.get("/clusters").body;
    let seen = names.into_iter().map(|name| {
        let mut text = String::new();
        // Turns begin anywhere: of six requests every host gets its share.
        let request = format!("GET /{name} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let mut statuses: Vec<u16> =
            (0..6).filter_map(|_| exchange(proxy.listener("in"), &request)).map(|reply| reply.status()).collect();
        statuses.sort_unstable();
        let _ = writeln!(text, "    {statuses:?}");
        let mut hosts: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{name}::"))?.split_once("::health_flags::"))
            .map(|(host, _)| host)
            .collect();
        hosts.sort_unstable();
        let _ = writeln!(text, "    {}", hosts.join(" ").replace(&up.port().to_string(), "PORT"));
        let counted = "(membership_total|upstream_cx_(total|connect_fail|destroy)|upstream_rq_total|upstream_rq_5xx)";
        // Gauges of hosts that never were are 0, or not there.
        let counts = proxy.stats(&format!(r"^cluster\.{name}\.{counted}$"));
        for (stat, value) in counts.into_iter().filter(|(_, value)| *value != 0) {
            let _ = writeln!(text, "    {stat}: {value}");
        }
        (name, text)
    });
    seen.collect()
}

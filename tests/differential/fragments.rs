//! `--mode validate` on fragments: the table `tests/configs/fragments.txt`, each line in the smallest document it can stand in.

use std::fs;
use std::path::Path;

use crate::support::proxy::{Kind, workspace};

const ROUTER: &str =
    r#"{name: envoy.filters.http.router, typed_config: {"@type": T/extensions.filters.http.router.v3.Router}}"#;
const ADDRESS: &str = "address: {socket_address: {address: 127.0.0.1, port_value: 0}}";
const HCM: &str = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HTTP_OPTIONS: &str = "extensions.upstreams.http.v3.HttpProtocolOptions";

/// A line of the table.
struct Row<'a> {
    kind: &'a str,
    verdict: Verdict<'a>,
    fragment: &'a str,
}

enum Verdict<'a> {
    Ok,
    Bad(&'a str),
    Refused(&'a str),
}

/// Checks every line, and with Envoy that the table says what Envoy does; answers what is wrong.
pub fn failures(with_envoy: bool) -> Vec<String> {
    let table = fs::read_to_string(workspace().join("tests/configs/fragments.txt")).expect("the table");
    let rows = parse(&table);
    assert!(rows.len() > 500, "the table is not read whole: {} lines", rows.len());
    let directory = tempfile::tempdir().expect("a directory");
    let half = rows.len() / 2;
    let under_test = Kind::under_test();
    let proxies: &[Kind] =
        if with_envoy && under_test != Kind::Envoy { &[under_test, Kind::Envoy] } else { &[under_test] };
    let check = |part: &[Row<'_>], name: &str| {
        let file = directory.path().join(name);
        let of = |row| proxies.iter().filter_map(|proxy| failure(*proxy, row, &file)).collect::<Vec<_>>();
        part.iter().flat_map(of).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| check(&rows[..half], "first.yaml"));
        let mut failures = check(&rows[half..], "second.yaml");
        failures.extend(first.join().expect("a thread that ends"));
        failures
    })
}

fn parse(table: &str) -> Vec<Row<'_>> {
    let mut kind = "";
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            kind = name;
            continue;
        }
        let (verdict, fragment) = line.split_once(" | ").unwrap_or_else(|| (line.trim_end_matches(" |"), ""));
        let verdict = match verdict.split_once(' ') {
            None if verdict == "ok" => Verdict::Ok,
            Some(("bad", name)) => Verdict::Bad(name),
            Some(("refused", name)) => Verdict::Refused(name),
            _ => panic!("no verdict: {line}"),
        };
        rows.push(Row { kind, verdict, fragment });
    }
    rows
}

fn failure(proxy: Kind, row: &Row<'_>, file: &Path) -> Option<String> {
    fs::write(file, document(row.kind, row.fragment)).expect("a file");
    let run = proxy.validate(file);
    let is_legate = proxy == Kind::Legate;
    let (code, name) = match row.verdict {
        Verdict::Ok => (0, None),
        Verdict::Bad(name) => (1, Some(name)),
        Verdict::Refused(_) if !is_legate => (0, None),
        Verdict::Refused(name) => (1, Some(name)),
    };
    let Row { kind, fragment, .. } = row;
    if run.code != Some(code) {
        let said = super::validate::short(&run.stderr);
        return Some(format!("{proxy:?}: [{kind}] {fragment}: {:?}: {said}", run.code));
    }
    let unnamed = name.filter(|name| is_legate && !run.stderr.contains(name))?;
    Some(format!("{proxy:?}: [{kind}] {fragment}: does not name {unnamed}: {}", super::validate::short(&run.stderr)))
}

/// The document in which a fragment of this kind can stand.
fn document(kind: &str, fragment: &str) -> String {
    let (cluster, listener, root) = match kind {
        "boot" => (String::new(), String::new(), fragment.replace("\\n", "\n")),
        "cluster" | "static" | "dns" | "endpoints" | "httpopts" => {
            (cluster(kind, fragment), String::new(), String::new())
        }
        _ => (String::new(), listener(kind, fragment), String::new()),
    };
    let listener =
        if listener.is_empty() { format!("name: idle, {ADDRESS}, filter_chains: [{{filters: []}}]") } else { listener };
    let cluster = if cluster.is_empty() { cluster } else { format!("  - {{{cluster}}}\n") };
    let service = assignment("service", "127.0.0.1", 9000);
    let text = format!(
        "{root}\nstatic_resources:\n  clusters:\n  - {{name: service, connect_timeout: 1s, {service}}}\n{cluster}  \
         listeners:\n  - {{{listener}}}\n"
    );
    text.replace("ROUTER", ROUTER).replace("T/", "type.googleapis.com/envoy.")
}

fn assignment(name: &str, host: &str, port: u16) -> String {
    let address = format!("{{socket_address: {{address: {host}, port_value: {port}}}}}");
    format!(
        "load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {address}}}}}]}}]}}"
    )
}

fn cluster(kind: &str, fragment: &str) -> String {
    match kind {
        "cluster" => fragment.to_owned(),
        "static" => format!("name: c, {}, {fragment}", assignment("c", "127.0.0.1", 1)),
        "dns" => format!("name: c, type: STRICT_DNS, {}, {fragment}", assignment("c", "localhost", 1)),
        "endpoints" => format!("name: c, load_assignment: {{cluster_name: c, {fragment}}}"),
        "httpopts" => cluster(
            "static",
            &format!(
                "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
                 {{\"@type\": T/{HTTP_OPTIONS}, {fragment}}}}}"
            ),
        ),
        other => panic!("fragments of kind {other}"),
    }
}

/// Each kind stands in the one it is wrapped for.
fn listener(kind: &str, fragment: &str) -> String {
    let within = |outer: &str, text: String| listener(outer, &text);
    match kind {
        "listener" => fragment.to_owned(),
        "chain" => format!("name: ingress, {ADDRESS}, filter_chains: [{{{fragment}}}]"),
        "lfilter" => {
            format!("name: ingress, {ADDRESS}, filter_chains: [{{filters: []}}], listener_filters: [{{{fragment}}}]")
        }
        "network" => within("chain", format!("filters: [{{{fragment}}}]")),
        "tcp" => within(
            "network",
            format!(
                "name: envoy.filters.network.tcp_proxy, typed_config: {{\"@type\": T/{TCP}, stat_prefix: t, {fragment}}}"
            ),
        ),
        "hcm" => within(
            "network",
            format!(
                "name: envoy.filters.network.http_connection_manager, typed_config: {{\"@type\": T/{HCM}, {fragment}}}"
            ),
        ),
        "manager" => within(
            "hcm",
            format!(
                "stat_prefix: ingress, http_filters: [ROUTER], route_config: {{virtual_hosts: [{{name: a, domains: \
                 [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: service}}}}]}}]}}, {fragment}"
            ),
        ),
        "log" => within("manager", format!("access_log: [{{{fragment}}}]")),
        "routes" => within(
            "hcm",
            format!("stat_prefix: ingress, http_filters: [ROUTER], route_config: {{name: local, {fragment}}}"),
        ),
        "vhost" => within("routes", format!("virtual_hosts: [{{name: backend, domains: [\"*\"], {fragment}}}]")),
        "route" => within("vhost", format!("routes: [{{{fragment}}}]")),
        "match" => within("route", format!("match: {{{fragment}}}, route: {{cluster: service}}")),
        "action" => within("route", format!("match: {{prefix: /}}, route: {{{fragment}}}")),
        "toservice" => within("action", format!("cluster: service, {fragment}")),
        other => panic!("fragments of kind {other}"),
    }
}

//! Reference 3.8: active health checks. Each case is a cluster whose one host has an upstream of its own, which follows a
//! script and then falls silent. Compared are the bytes that the host was asked, what `/clusters` and the statistics say
//! after so many checks, and whether a request would go there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::report::report;
use crate::support::PATIENCE;
use crate::support::bootstrap::{bootstrap, cluster, http_listener, http2};
use crate::support::eventually;
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, DeadPort, Script, Upstream};

/// A host, how it is checked, and what it does.
struct Case {
    name: &'static str,
    /// The checker.
    check: &'static str,
    /// More fields of `health_checks[0]`.
    fields: &'static str,
    /// Fields of the endpoint's `health_check_config`.
    endpoint: &'static str,
    /// More fields of the cluster.
    cluster: &'static str,
    host: Host,
    /// Waited for: this counter's reaching this value.
    until: (&'static str, i64),
}

enum Host {
    /// Follows a script.
    Scripted(Script),
    /// Speaks HTTP/2.
    Http2(Behaviour),
    /// Is not there.
    Dead,
}

const HTTP: &str = "http_health_check: {path: /hz}";
const FAST: &str = "timeout: 100s, interval: 0.03s, no_traffic_interval: 0.03s, unhealthy_threshold: 2, \
    healthy_threshold: 2";

/// These answers, each on request, by one connection for as long as it lasts; then silence.
fn answers(list: &[&str]) -> Script {
    let mut connections = vec![Vec::new()];
    for answer in list {
        let Some(acts) = connections.last_mut() else { continue };
        acts.push(Act::Request);
        let text = match answer.parse::<u16>() {
            Ok(status) => format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\nok"),
            Err(_) => (*answer).to_owned(),
        };
        let closes =
            text.is_empty() || text.contains("close\r\n") || text.starts_with("HTTP/1.0") || text.ends_with(['!', '#']);
        if !text.is_empty() {
            acts.push(Act::Send(text.trim_end_matches(['!', '#']).as_bytes().to_vec()));
        }
        if closes {
            acts.push(if text.is_empty() || text.ends_with('#') { Act::Close } else { Act::Hold });
            connections.push(Vec::new());
        }
    }
    if let Some(acts) = connections.last_mut() {
        acts.push(Act::Hold);
    }
    connections
}

fn case(name: &'static str, check: &'static str, list: &[&str]) -> Case {
    let attempts = i64::try_from(list.len()).expect("a few") + 1;
    Case {
        name,
        check,
        fields: "",
        endpoint: "",
        cluster: "",
        host: Host::Scripted(answers(list)),
        until: ("attempt", attempts),
    }
}

fn acts(name: &'static str, check: &'static str, script: Script, until: (&'static str, i64)) -> Case {
    Case { host: Host::Scripted(script), until, ..case(name, check, &[]) }
}

fn by_http2(name: &'static str, check: &'static str, behaviour: Behaviour) -> Case {
    let fields = "no_traffic_interval: 100s, no_traffic_healthy_interval: 100s";
    Case { host: Host::Http2(behaviour), until: ("attempt", 1), fields, ..case(name, check, &[]) }
}

fn with(fields: &'static str, case: Case) -> Case {
    Case { fields, ..case }
}

fn cases() -> Vec<Case> {
    let grpc = |name, behaviour| Case {
        // Filled in with the words that make the cluster speak HTTP/2.
        cluster: "HTTP2",
        ..by_http2(name, "grpc_health_check: {service_name: here}", behaviour)
    };
    let send = |text: &str| Act::Send(text.as_bytes().to_vec());
    const ONCE: &str = "no_traffic_interval: 100s, no_traffic_healthy_interval: 100s";
    vec![
        case("healthy", HTTP, &["200", "200"]),
        case("refuses", HTTP, &["200", "503"]),
        case("refuses_first", HTTP, &["503", "200"]),
        case("recovers", HTTP, &["503", "200", "200"]),
        case("recovers_interrupted", HTTP, &["503", "200", "503", "200"]),
        case("closes_once", HTTP, &["200", ""]),
        case("closes_twice", HTTP, &["200", "", ""]),
        case("closes_twice_interrupted", HTTP, &["200", "", "200", ""]),
        case("closes_and_recovers", HTTP, &["200", "", "", "200", "200"]),
        with("unhealthy_threshold: 1", case("closes_threshold_one", HTTP, &["200", ""])),
        with("unhealthy_threshold: 0", case("closes_threshold_none", HTTP, &["200", "", ""])),
        case("garbage", HTTP, &["200", "what?\r\n\r\n!", "what?\r\n\r\n!"]),
        case("cut_short", HTTP, &["200", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx#", "200"]),
        case("says_close", HTTP, &["HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "200"]),
        case("http_1_0", HTTP, &["HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "200"]),
        case("chunked", HTTP, &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200"]),
        case("interim", HTTP, &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]),
        case("degraded", HTTP, &["HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n"]),
        case(
            "degraded_recovers",
            HTTP,
            &["HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n", "200"],
        ),
        case(
            "excluded",
            HTTP,
            &["200", "HTTP/1.1 503 No\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n"],
        ),
        case(
            "excluded_then_refuses",
            HTTP,
            &[
                "200",
                "HTTP/1.1 503 No\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n",
                "503",
                "200",
            ],
        ),
        case(
            "excluded_in_vain",
            HTTP,
            &["HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n"],
        ),
        case(
            "statuses",
            "http_health_check: {path: /, expected_statuses: [{start: 201, end: 203}, {start: 300, end: 301}]}",
            &["202", "300", "200"],
        ),
        case(
            "retriable",
            "http_health_check: {path: /, retriable_statuses: [{start: 500, end: 503}]}",
            &["200", "501", "200", "502", "503"],
        ),
        case(
            "retriable_twice",
            "http_health_check: {path: /, retriable_statuses: [{start: 500, end: 503}]}",
            &["200", "501", "502"],
        ),
        case("host", "http_health_check: {path: '/a%20b?c', host: 'x.example:1'}", &["200"]),
        case(
            "method",
            "http_health_check: {path: /, method: HEAD}",
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"],
        ),
        case("post", "http_health_check: {path: /, method: POST}", &["200"]),
        case("post_body", "http_health_check: {path: /, method: POST, send: {text: '6869'}}", &["200", "200"]),
        case("delete", "http_health_check: {path: /, method: DELETE}", &["200"]),
        case("options", "http_health_check: {path: '*', method: OPTIONS}", &["200"]),
        case(
            "headers",
            "http_health_check: {path: /, request_headers_to_add: [{header: {key: X-A, value: b}}, {header: {key: user-agent, value: me}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-h, value: '%UPSTREAM_METADATA([\"a\",\"b\"])%-%PROTOCOL%-%REQ(:path)%'}}]}",
            &["200"],
        ),
        case("headers_removed", "http_health_check: {path: /, request_headers_to_remove: [User-Agent]}", &["200"]),
        case(
            "receive",
            "http_health_check: {path: /, receive: [{text: '6f'}, {text: '6b'}]}",
            &["200", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nko"],
        ),
        case(
            "receive_far",
            "http_health_check: {path: /, response_buffer_size: 4, receive: [{text: '6f6b'}]}",
            &["200", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nxxxxok"],
        ),
        case(
            "receive_whole",
            "http_health_check: {path: /, response_buffer_size: 0, receive: [{text: '6f6b'}]}",
            &["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nxxxxok"],
        ),
        case(
            "service",
            "http_health_check: {path: /, service_name_matcher: {prefix: me}}",
            &["HTTP/1.1 200 OK\r\nx-envoy-upstream-healthchecked-cluster: me-1\r\ncontent-length: 0\r\n\r\n", "200"],
        ),
        with(
            "reuse_connection: false",
            case(
                "no_reuse",
                HTTP,
                &["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n!", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n!"],
            ),
        ),
        with(
            "timeout: 0.15s, no_traffic_interval: 100s",
            acts("times_out", HTTP, vec![vec![Act::Request, Act::Hold]], ("failure", 1)),
        ),
        with(
            "timeout: 0.15s, no_traffic_healthy_interval: 0.03s, no_traffic_interval: 100s, unhealthy_threshold: 1, healthy_threshold: 9",
            acts(
                "times_out_later",
                HTTP,
                vec![vec![Act::Request, send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Act::Request, Act::Hold]],
                ("network_failure", 1),
            ),
        ),
        with(ONCE, Case { host: Host::Dead, until: ("failure", 1), ..case("dead", HTTP, &[]) }),
        Case {
            endpoint: "hostname: other.example",
            ..case("endpoint_host", "http_health_check: {path: /, host: x}", &["200"])
        },
        with(ONCE, Case { endpoint: "port_value: ${DEAD}", until: ("failure", 1), ..case("endpoint_port", HTTP, &[]) }),
        with(
            ONCE,
            Case {
                endpoint: "address: {socket_address: {address: 127.0.0.1, port_value: ${DEAD}}}",
                until: ("failure", 1),
                ..case("endpoint_address", HTTP, &[])
            },
        ),
        Case {
            endpoint: "disable_active_health_check: true",
            until: ("attempt", 0),
            ..case("endpoint_unchecked", HTTP, &[])
        },
        with(
            "no_traffic_interval: 0.03s, no_traffic_healthy_interval: 100s",
            Case { until: ("success", 1), ..case("no_traffic", HTTP, &["200"]) },
        ),
        with(ONCE, Case { until: ("attempt", 1), ..case("jitter", HTTP, &["200"]) }),
        // TCP
        with(ONCE, acts("tcp", "tcp_health_check: {}", vec![vec![Act::Hold]], ("success", 1))),
        with(ONCE, Case { host: Host::Dead, until: ("failure", 1), ..case("tcp_dead", "tcp_health_check: {}", &[]) }),
        acts(
            "tcp_talk",
            "tcp_health_check: {send: {text: '6869'}, receive: [{text: '796f'}]}",
            vec![vec![Act::Until(b"hi"), send("xyo"), Act::Until(b"hi"), send("yo"), Act::Until(b"hi"), Act::Hold]],
            ("attempt", 3),
        ),
        acts(
            "tcp_pieces",
            "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}, {text: '6f'}]}",
            vec![vec![
                Act::Until(b"hi"),
                send("y"),
                Act::Pause(Duration::from_millis(40)),
                send("..o"),
                Act::Until(b"hi"),
                Act::Hold,
            ]],
            ("attempt", 2),
        ),
        with(
            ONCE,
            acts(
                "tcp_closed",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Until(b"hi"), send("x"), Act::Close]],
                ("failure", 1),
            ),
        ),
        with(
            "no_traffic_healthy_interval: 100s, no_traffic_interval: 100s",
            acts(
                "tcp_closed_idle",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Until(b"hi"), send("y"), Act::Pause(Duration::from_millis(60)), Act::Close]],
                ("failure", 1),
            ),
        ),
        with(
            "reuse_connection: false",
            acts(
                "tcp_no_reuse",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![
                    vec![Act::Until(b"hi"), send("y"), Act::Hold],
                    vec![Act::Until(b"hi"), send("y"), Act::Hold],
                    vec![Act::Hold],
                ],
                ("attempt", 3),
            ),
        ),
        with(
            ONCE,
            acts(
                "tcp_binary",
                "tcp_health_check: {send: {binary: aGk=}, receive: [{text: '79'}]}",
                vec![vec![Act::Pause(Duration::from_millis(30)), send("y"), Act::Hold]],
                ("success", 1),
            ),
        ),
        with(
            ONCE,
            acts(
                "tcp_proxy_protocol",
                "tcp_health_check: {proxy_protocol_config: {version: V2}, send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Until(b"hi"), send("y"), Act::Hold]],
                ("success", 1),
            ),
        ),
        with(
            "timeout: 0.15s, no_traffic_interval: 100s",
            acts(
                "tcp_times_out",
                "tcp_health_check: {send: {text: '6869'}, receive: [{text: '79'}]}",
                vec![vec![Act::Hold]],
                ("failure", 1),
            ),
        ),
        // HTTP/2 and gRPC
        by_http2("h2", "http_health_check: {path: /hz, codec_client_type: HTTP2}", Behaviour::Ok),
        by_http2(
            "h2_refuses",
            "http_health_check: {path: /hz, codec_client_type: HTTP2}",
            Behaviour::Reply(503, vec![], ""),
        ),
        by_http2(
            "h2_post",
            "http_health_check: {path: /hz, method: PUT, host: a.example, send: {text: '6869'}, codec_client_type: HTTP2}",
            Behaviour::Ok,
        ),
        grpc("grpc_refuses", Behaviour::TrailersOnly(14)),
        grpc("grpc_not_grpc", Behaviour::Ok),
        grpc("grpc_empty", Behaviour::Grpc(0)),
    ]
}

/// Compares all cases.
pub fn run() {
    if !Kind::require_envoy("health") {
        return;
    }
    let only = std::env::var("CASES").unwrap_or_default();
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.contains(&only)).collect();
    let (expected, actual) = std::thread::scope(|scope| {
        let expected = scope.spawn(|| observe(Kind::Envoy, &cases));
        let actual = observe(Kind::under_test(), &cases);
        (expected.join().expect("the thread of Envoy"), actual)
    });
    let mut failures = Vec::new();
    for (name, expected) in &expected {
        let actual = actual.get(name).map_or("", String::as_str);
        if std::env::var_os("SHOW").is_some() {
            let _ = writeln!(std::io::stderr(), "== {name}\n{expected}");
        }
        if expected != actual {
            failures.push(format!("{name}\n  Envoy:\n{expected}\n  Legate:\n{actual}"));
        }
    }
    report(&format!("{} of {} health checks differ", failures.len(), cases.len()), &failures);
}

/// What is seen of each case through a proxy.
fn observe(kind: Kind, cases: &[Case]) -> BTreeMap<&'static str, String> {
    let dead = DeadPort::new();
    let mut hosts = Vec::new();
    let (mut clusters, mut table) = (Vec::new(), String::new());
    for case in cases {
        let (port, host) = match &case.host {
            Host::Scripted(script) => {
                let up = Upstream::start(script.clone());
                (up.port(), Running::Scripted(up))
            }
            Host::Http2(behaviour) => {
                let up = H2Upstream::start(behaviour.clone());
                (up.port(), Running::Http2(up))
            }
            Host::Dead => (dead.port(), Running::Dead),
        };
        clusters.push(cluster_of(case, port).replace("${DEAD}", &dead.port().to_string()));
        let name = case.name;
        let _ = write!(table, r#"{{match: {{path: "/{name}"}}, route: {{cluster: {name}}}}}, "#);
        hosts.push((port, host));
    }
    let table = format!(r#"{{name: all, domains: ["*"], routes: [{table}]}}"#);
    let proxy = Proxy::start(kind, &bootstrap(&[http_listener("in", "", &table, "")], &clusters, ""));
    let mut seen = BTreeMap::new();
    // What never comes shows in what is compared.
    let deadline = Instant::now() + Duration::from_secs(5);
    let due = |case: &Case| {
        let (counter, value) = case.until;
        proxy.stat(&format!("cluster.{}.health_check.{counter}", case.name)) < value
    };
    while Instant::now() < deadline && cases.iter().any(due) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // What follows from the last answer, too.
    std::thread::sleep(Duration::from_millis(150));
    for (case, (port, host)) in cases.iter().zip(&hosts) {
        let mut text = host.record().replace(&port.to_string(), "PORT");
        for (name, value) in proxy.stats(&format!(r"^cluster\.{}\.(health_check|membership)", case.name)) {
            let _ = writeln!(text, "    {name}: {value}");
        }
        let page = proxy.get("/clusters").body;
        for line in page.lines().filter(|line| line.starts_with(&format!("{}::", case.name))) {
            if let Some((_, flags)) = line.split_once("::health_flags::") {
                let _ = writeln!(text, "    {flags}");
                if flags.contains("failed") {
                    let _ = writeln!(text, "    {}", status(&proxy, case.name));
                }
            }
        }
        seen.insert(case.name, text);
    }
    seen
}

enum Running {
    Scripted(Upstream),
    Http2(H2Upstream),
    Dead,
}

impl Running {
    /// What it was asked.
    fn record(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Scripted(up) => {
                for received in up.received() {
                    let _ = writeln!(text, "    {:?}", String::from_utf8_lossy(&received));
                }
            }
            Self::Http2(up) => {
                for request in up.requests() {
                    let _ = writeln!(text, "    {request}");
                }
            }
            Self::Dead => {}
        }
        text
    }
}

/// The cluster of a case: fields of its own win over the usual ones.
fn cluster_of(case: &Case, port: u16) -> String {
    let Case { name, check, fields, endpoint, cluster: more, .. } = case;
    let own = |field: &&str| {
        let key = field.trim().split(':').next().unwrap_or_default();
        !fields.split(", ").any(|other| other.trim().starts_with(&format!("{key}:")))
    };
    let usual: Vec<&str> = FAST.split(", ").filter(own).collect();
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}, ") };
    let more = if *more == "HTTP2" { http2() } else { (*more).to_owned() };
    let address = format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
    let endpoint = format!("{{endpoint: {{{address}, health_check_config: {{{endpoint}}}}}}}");
    let assignment = format!("load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}");
    cluster(
        name,
        &[],
        &format!(
            "{assignment}, health_checks: [{{{}, {fields}{check}}}], common_lb_config: {{healthy_panic_threshold: \
             {{value: 0}}}}, {more}",
            usual.join(", ")
        ),
    )
}

/// The status line of a request by the route of a case.
fn status(proxy: &Proxy, name: &str) -> String {
    let mut stream = TcpStream::connect(proxy.listener("in")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "GET /{name} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    eventually("an answer", || stream.read_to_string(&mut text).ok());
    text.lines().next().unwrap_or_default().to_owned()
}

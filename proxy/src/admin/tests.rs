//! Pages, asked of a running server whose control thread is a task of the test.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use filters::matcher::StringMatcher;
use filters::stream_info::Address;
use prost::Message as _;
use serde_json::{Value, json};
use stats::StoreOptions;

use super::backend::*;
use super::*;
use crate::cli::{Command, parse};
use crate::control::secrets::ContextView;
use crate::runtime::RuntimeView;
use crate::upstream::host::{HealthFlags, HostStats, Locality};

struct Server {
    _server: AdminServer,
    address: SocketAddr,
    state: Arc<SharedState>,
    store: Arc<Store>,
}

fn cluster_view() -> ClusterView {
    let limits =
        ThresholdsView { max_connections: 1024, max_pending_requests: 1024, max_requests: 1024, max_retries: 3 };
    ClusterView {
        name: "up\n|<b>".into(),
        observability_name: "up".into(),
        eds_service_name: String::new(),
        added_via_api: false,
        thresholds: [limits; 2],
        outlier: Some(OutlierView::default()),
        hosts: vec![HostView {
            address: Address::Ip("[::1]:80".parse().unwrap()),
            hostname: "h".into(),
            stats: HostStats { rq_total: 7, ..Default::default() },
            health: HealthFlags::DEGRADED_EDS_HEALTH,
            weight: 2,
            locality: Locality { region: "r".into(), ..Default::default() },
            canary: true,
            priority: 0,
            success_rate: None,
            local_origin_success_rate: None,
        }],
    }
}

fn dump() -> ConfigDump {
    let entry = |name: &str| {
        let bytes = Bytes::from(Cluster { name: name.to_owned(), ..Default::default() }.encode_to_vec());
        let resource = Some(RawResource { type_url: xds_client::CLUSTER, bytes });
        ConfigDumpEntry {
            name: name.into(),
            resource,
            last_updated: Some(SystemTime::UNIX_EPOCH),
            ..Default::default()
        }
    };
    let details = "no \"such\" thing".to_owned();
    let failed = ErrorState { details, version_info: "9".into(), ..Default::default() };
    ConfigDump {
        clusters_version: "8".into(),
        speaks_http: true,
        static_clusters: vec![entry("one"), entry("two")],
        dynamic_listeners: vec![DynamicListenerDump {
            name: "bad".into(),
            error_state: Some(failed),
            ..Default::default()
        }],
        ..ConfigDump::default()
    }
}

fn certificates() -> ContextView {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned(), "1.2.3.4".to_owned()]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from(255));
    params.not_before = rcgen::date_time_ymd(2020, 1, 2);
    params.not_after = rcgen::date_time_ymd(2021, 1, 2);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    let certificate = Arc::new(filters::tls::Certificate::new(der));
    ContextView { authorities: Vec::new(), own: vec![("<inline>".to_owned(), certificate)] }
}

/// What the control thread would do.
fn control(request: AdminRequest) {
    let _sent = match request {
        AdminRequest::Clusters(reply) => reply.send(vec![cluster_view()]).is_ok(),
        AdminRequest::Certificates(reply) => reply.send(vec![certificates()]).is_ok(),
        AdminRequest::Listeners(reply) => {
            let addresses = vec![Address::Ip("1.2.3.4:5".parse().unwrap()), Address::Pipe("/tmp/x".into())];
            reply.send(vec![ListenerView { name: "l".into(), addresses }]).is_ok()
        }
        AdminRequest::ConfigDump { reply, .. } => reply.send(dump()).is_ok(),
        AdminRequest::Runtime(reply) => {
            let entries = [("a".to_owned(), (vec!["5".to_owned(), String::new()], "5".to_owned()))].into();
            reply.send(RuntimeView { layers: vec!["base".into(), "admin".into()], entries }).is_ok()
        }
        AdminRequest::RuntimeModify(changes, reply) => {
            let refused = changes.iter().any(|(key, _)| key == "refused");
            reply.send(if refused { Err("No admin layer specified".into()) } else { Ok(()) }).is_ok()
        }
        AdminRequest::InitDump(reply) => reply.send(Vec::new()).is_ok(),
        // As when the control thread is at its end.
        AdminRequest::Quit(reply) => {
            drop(reply);
            true
        }
        AdminRequest::HealthcheckFail(_, reply) | AdminRequest::Drain(_, reply) | AdminRequest::ReopenLogs(reply) => {
            reply.send(()).is_ok()
        }
    };
}

fn server(allow_paths: Vec<StringMatcher>) -> Server {
    let (backend, mut requests) = AdminBackend::channel();
    std::thread::spawn(move || {
        while let Some(request) = requests.blocking_recv() {
            control(request);
        }
    });
    serve(allow_paths, backend)
}

fn serve(allow_paths: Vec<StringMatcher>, backend: AdminBackend) -> Server {
    let config = AdminConfig {
        address: Address::Ip((Ipv4Addr::LOCALHOST, 0).into()),
        mode: 0,
        ipv4_compat: false,
        allow_paths,
        access_log: Vec::new(),
        socket_options: Vec::new(),
    };
    let listening = bind(&config).unwrap();
    let address = listening.address.ip().unwrap();
    let Ok(Command::Run(options)) = parse(["legate".to_owned()]) else { panic!("no arguments are valid") };
    let state = Arc::new(SharedState::default());
    let store = Store::new(3, StoreOptions::default());
    let node = Node { id: "n".into(), ..Default::default() };
    let admin = Admin {
        backend,
        store: store.clone(),
        flush: Flush::OnAdmin,
        state: state.clone(),
        info: ServerInfo::new(&options, &node),
        log: None,
        logs: Vec::new(),
        config,
    };
    Server { _server: AdminServer::start(listening, admin, "").unwrap(), address, state, store }
}

impl Server {
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn send(&self, method: &str, path: &str) -> (u16, String) {
        let reply = self.ask(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), joined(body))
    }

    fn get(&self, path: &str) -> String {
        let (status, body) = self.send("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

/// The chunks of a body, joined.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let (chunk, rest) = rest.split_at(usize::from_str_radix(length, 16).unwrap());
        body.push_str(chunk);
        chunks = rest.strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

#[test]
fn ready_follows_the_state_and_server_info_can_be_grepped() {
    let server = server(Vec::new());
    assert_eq!(server.send("GET", "/ready"), (503, "PRE_INITIALIZING\n".into()));
    server.state.set(ServerState::Initializing);
    assert_eq!(server.send("GET", "/ready"), (503, "INITIALIZING\n".into()));
    server.state.set(ServerState::Live);
    assert_eq!(server.send("GET", "/ready"), (200, "LIVE\n".into()));
    assert_eq!(server.send("GET", "//ready?x=1"), (200, "LIVE\n".into()));
    let info = server.get("/server_info");
    assert!(info.starts_with("{\n \"version\": \""), "{info}");
    assert!(info.lines().any(|line| line == " \"state\": \"LIVE\","), "{info}");
    assert!(info.contains("  \"drain_time\": \"600s\",\n") && info.contains("  \"id\": \"n\","), "{info}");
}

#[test]
fn replies_have_envoys_headers() {
    let server = server(Vec::new());
    let reply = server.ask("GET /help HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").to_ascii_lowercase();
    for header in [
        "content-type: text/plain; charset=utf-8",
        "cache-control: no-cache, max-age=0",
        "x-content-type-options: nosniff",
        "server: envoy",
        "transfer-encoding: chunked",
    ] {
        assert!(reply.contains(header), "{header} in {reply}");
    }
}

#[test]
fn old_clients_and_those_without_host() {
    let server = server(Vec::new());
    let reply = server.ask("GET /ready HTTP/1.0\r\n\r\n").to_ascii_lowercase();
    assert!(reply.contains(" 426 ") && reply.contains("content-length: 16\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nupgrade required"), "{reply}");
    let reply = server.ask("GET /ready HTTP/1.1\r\n\r\n").to_ascii_lowercase();
    assert!(reply.starts_with("http/1.1 400") && reply.contains("connection: close\r\n"), "{reply}");
    assert!(reply.contains("content-length: 0\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
}

#[test]
fn wrong_paths_and_methods() {
    let server =
        server(vec![StringMatcher::prefix("/ready"), StringMatcher::prefix("/quit"), StringMatcher::prefix("/x")]);
    let (status, body) = server.send("GET", "/xyz");
    assert!(status == 404 && body.starts_with("invalid path. admin commands are:\n  /: "), "{body}");
    assert_eq!(server.send("GET", "/quitquitquit"), (405, "Method GET not allowed, POST required.".into()));
    assert_eq!(server.send("POST", "/quitquitquit"), (503, "the server is shutting down\n".into()), "nobody answered");
    assert_eq!(server.send("GET", "/stats"), (403, "request to path /stats not allowed".into()));
    let reply =
        server.ask("POST /quitquitquit HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: http://evil\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
}

#[test]
fn clusters_and_listeners_in_both_formats() {
    let server = server(Vec::new());
    let text = server.get("/clusters");
    for line in [
        "up\\n|<b>::observability_name::up",
        "up\\n|<b>::outlier::success_rate_average::-1",
        "up\\n|<b>::high_priority::max_retries::3",
        "up\\n|<b>::[::1]:80::rq_total::7",
        "up\\n|<b>::[::1]:80::health_flags::/degraded_eds_health",
        "up\\n|<b>::[::1]:80::canary::true",
        "up\\n|<b>::[::1]:80::local_origin_success_rate::-1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert_eq!(server.get("/clusters?filter=^nothing"), "");
    assert_eq!(server.send("GET", "/clusters?filter=("), (400, "Invalid re2 regex".into()));
    let json: Value = serde_json::from_str(&server.get("/clusters?format=json")).unwrap();
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(json["cluster_statuses"][0]["name"], "up\n|<b>");
    assert_eq!(host["health_status"]["eds_health_status"], "DEGRADED");
    assert_eq!(host["stats"][5], serde_json::json!({"name": "rq_total", "value": "7"}));
    assert_eq!(host["stats"][6], serde_json::json!({"type": "GAUGE", "name": "cx_active"}));
    assert_eq!(server.get("/listeners"), "l::1.2.3.4:5\nl::/tmp/x\n");
    let json = server.get("/listeners?format=json");
    assert!(json.starts_with("{\n \"listener_statuses\": [\n  {\n   \"name\": \"l\",\n"), "{json}");
}

#[test]
fn config_dump_with_its_parameters() {
    let server = server(Vec::new());
    let json = |query: &str| -> Value { serde_json::from_str(&server.get(&format!("/config_dump{query}"))).unwrap() };
    let all = json("");
    let types: Vec<_> = all["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["@type"].as_str().unwrap().rsplit('.').next().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "ClustersConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
    );
    assert_eq!(all["configs"][0]["version_info"], "8");
    assert_eq!(all["configs"][0]["static_clusters"][1]["cluster"]["name"], "two");
    assert_eq!(all["configs"][0]["static_clusters"][1]["last_updated"], "1970-01-01T00:00:00.000Z");
    assert_eq!(all["configs"][1]["dynamic_listeners"][0]["error_state"]["details"], "no \"such\" thing");
    let masked = json("?resource=static_clusters&mask=cluster.name");
    assert_eq!(
        masked["configs"][0],
        serde_json::json!({
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
            "cluster": {"@type": xds_client::CLUSTER, "name": "one"}
        })
    );
    assert_eq!(json("?name_regex=t.*")["configs"][0]["static_clusters"].as_array().unwrap().len(), 1);
    assert_eq!(json("?resource=dynamic_active_clusters"), serde_json::json!({}));
    assert_eq!(json("?mask=static_clusters")["configs"].as_array().unwrap().len(), 1);
    for (query, status, text) in [
        ("?resource=x", 404, "x not found in config dump"),
        ("?name_regex=(", 400, "INVALID_ARGUMENT: Error while parsing name_regex from (: missing ): ("),
        (
            "?name_regex=[z-a]",
            400,
            "INVALID_ARGUMENT: Error while parsing name_regex from [z-a]: invalid character class range: z-a",
        ),
        (
            "?resource=version_info",
            400,
            "version_info is not a repeated field. Use ?mask=version_info to get only this field\n",
        ),
        ("?mask=bogus", 400, "FieldMask bogus could not be successfully applied to any configs."),
        (
            "?mask=static_clusters.cluster.name",
            400,
            "FieldMask static_clusters.cluster.name could not be successfully applied to any configs.",
        ),
    ] {
        assert_eq!(server.send("GET", &format!("/config_dump{query}")), (status, text.to_owned()));
    }
}

#[test]
fn runtime_stats_and_the_rest() {
    let server = server(Vec::new());
    assert!(server.get("/runtime").contains("\"final_value\": \"5\""));
    assert_eq!(server.send("POST", "/runtime_modify?a=1"), (200, "OK\n".into()));
    assert_eq!(server.send("POST", "/runtime_modify?refused=1"), (503, "No admin layer specified".into()));
    assert_eq!(server.send("POST", "/runtime_modify").0, 400);
    let form = server
        .ask("POST /runtime_modify HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nrefused=1");
    assert!(form.starts_with("HTTP/1.1 503"), "{form}");
    server.store.counter("server.test").add(3);
    let counter = server.store.counter("server.kept");
    counter.add(2);
    assert_eq!(server.get("/stats?filter=server"), "server.kept: 2\n");
    assert!(server.get("/stats/prometheus").contains("envoy_server_kept{} 2"));
    assert_eq!(server.send("POST", "/reset_counters"), (200, "OK\n".into()));
    assert_eq!(server.get("/stats?filter=server"), "server.kept: 0\n");
    assert_eq!(server.send("GET", "/stats?format=xml").0, 400);
    let certs: Value = serde_json::from_str(&server.get("/certs")).unwrap();
    let expected = json!({"certificates": [{"ca_cert": [], "cert_chain": [{
        "path": "<inline>",
        "serial_number": "ff",
        "subject_alt_names": [{"dns": "a.test"}, {"ip_address": "1.2.3.4"}],
        "days_until_expiration": "0",
        "valid_from": "2020-01-02T00:00:00Z",
        "expiration_time": "2021-01-02T00:00:00Z",
    }]}]});
    assert_eq!(certs, expected);
    assert_eq!(server.get("/init_dump"), "{}\n");
    assert_eq!(server.get("/hot_restart_version"), "11.104");
    assert!(server.get("/memory").contains("\"total_physical_bytes\": \""));
    assert_eq!(server.send("POST", "/heapprofiler?enable=y").0, 501);
    assert_eq!(server.send("POST", "/drain_listeners?graceful"), (200, "OK\n".into()));
    assert_eq!(server.send("POST", "/healthcheck/fail"), (200, "OK\n".into()));
    assert!(server.get("/").starts_with("<!DOCTYPE html>"));
}

#[test]
fn a_unix_socket_has_its_mode_and_is_not_taken_from_another() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let config = AdminConfig {
        address: Address::Pipe(path.to_str().unwrap().into()),
        mode: 0o600,
        ipv4_compat: false,
        allow_paths: Vec::new(),
        access_log: Vec::new(),
        socket_options: Vec::new(),
    };
    let first = bind(&config).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(bind(&config).unwrap_err().contains("cannot bind"));
    drop(first);
    bind(&config).expect("what a dead process left is replaced");
}

/// A body after the head would be taken for the next reply.
#[test]
fn a_head_request_gets_no_body() {
    let server = server(Vec::new());
    let request = "HEAD /ready HTTP/1.1\r\nhost: x\r\n\r\nHEAD /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let reply = server.ask(request).to_ascii_lowercase();
    let heads: Vec<_> = reply.split_terminator("\r\n\r\n").collect();
    assert_eq!(heads.len(), 2, "{reply}");
    assert!(heads.iter().all(|head| head.starts_with("http/1.1 503")), "{reply}");
}

/// The server ends while a page is being made: its reply still arrives, whole.
#[test]
fn the_end_waits_for_replies() {
    let (backend, mut requests) = AdminBackend::channel();
    let Server { _server: admin, address, .. } = serve(Vec::new(), backend);
    let mut client = TcpStream::connect(address).unwrap();
    let _idle = TcpStream::connect(address).unwrap();
    client.write_all(b"POST /quitquitquit HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let Some(AdminRequest::Quit(reply)) = requests.blocking_recv() else { panic!("not the request") };
    let end = std::thread::spawn(move || drop(admin));
    std::thread::sleep(std::time::Duration::from_millis(50));
    reply.send(()).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("\r\nOK\n\r\n0\r\n\r\n"), "{said}");
    end.join().unwrap();
}

/// Nobody answers a page: the server ends all the same.
#[test]
fn the_end_is_not_held_up() {
    let (backend, mut requests) = AdminBackend::channel();
    let Server { _server: admin, address, .. } = serve(Vec::new(), backend);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /clusters HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let _unanswered = requests.blocking_recv();
    let begun = Instant::now();
    drop(admin);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_server_counts_itself() {
    let server = server(Vec::new());
    let value = |name: &str| {
        let line = server.get(&format!("/stats?filter=^{name}$"));
        line.trim_end().rsplit(' ').next().unwrap_or_default().parse::<u64>().unwrap()
    };
    let total = value("http.admin.downstream_cx_total");
    assert_eq!(server.send("GET", "/nothing").0, 404);
    assert_eq!(server.send("GET", "/ready").0, 503);
    server.ask("\0\r\n\r\n");
    // Each question is a connection and a request, and the one that asks is still active.
    for (name, expected) in [
        ("http.admin.downstream_cx_total", total + 4),
        ("http.admin.downstream_cx_protocol_error", 1),
        ("http.admin.downstream_rq_4xx", 1),
        ("http.admin.downstream_rq_5xx", 1),
        ("http.admin.downstream_rq_active", 1),
        ("http.admin.downstream_cx_active", 1),
        ("listener.admin.http.admin.downstream_rq_4xx", 1),
        ("listener.admin.main_thread.downstream_cx_active", 1),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert_eq!(
        value("listener.admin.downstream_cx_total"),
        value("listener.admin.main_thread.downstream_cx_total") - 1
    );
    assert!(value("http.admin.downstream_cx_rx_bytes_total") > 300);
    assert!(value("http.admin.downstream_cx_tx_bytes_total") > value("http.admin.downstream_cx_rx_bytes_total"));
    assert_eq!(server.get("/stats?filter=http.admin.(rq|no_route|tracing)"), "");
}

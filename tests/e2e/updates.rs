//! Configuration that changes under constant load: no request may fail.

use xds_client::server::Mischief;
use xds_client::{CLUSTER, ENDPOINTS, LISTENER, ROUTE, Resource};

use crate::control::{Control, eds_cluster, endpoints};
use crate::load::Load;
use crate::support::bootstrap::{http_listener, http2};
use crate::support::client::{Client, End, get};
use crate::support::eventually;
use crate::support::h2_client::{self, H2Request};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Upstream, reply};

const RDS: &str = "rds: {route_config_name: main, config_source: {ads: {}, resource_api_version: V3}}";

/// A proxy under load with two upstreams, "one" and "two", in clusters of the same names.
struct Bench {
    load: Load,
    proxy: Proxy,
    control: Control,
    one: Upstream,
    two: Upstream,
}

fn named(name: &str) -> Upstream {
    Upstream::start(reply(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())))
}

fn routed_to(action: &str) -> String {
    format!(
        r#"{{name: main, virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, {action}}}]}}]}}"#
    )
}

impl Bench {
    fn start(api_type: &str) -> Self {
        let (one, two) = (named("one"), named("two"));
        let control = Control::start();
        control.clusters(&[eds_cluster("one", ""), eds_cluster("two", "")]);
        control.endpoints(&[endpoints("one", &[one.port()]), endpoints("two", &[two.port()])]);
        control.routes(&[routed_to("route: {cluster: one}")]);
        control.listeners(&[http_listener("main", &format!("{RDS}, access_log: []"), "", "")]);
        let proxy = Proxy::start(Kind::under_test(), &control.bootstrap(api_type));
        let load = Load::start(proxy.listener("main"));
        load.wait_for(20);
        Self { load, proxy, control, one, two }
    }
}

#[test]
fn weights_shift_without_a_failed_request() {
    for api_type in ["GRPC", "DELTA_GRPC"] {
        let bench = Bench::start(api_type);
        let weights = |one: u32, two: u32| {
            routed_to(&format!(
                "route: {{weighted_clusters: {{clusters: [{{name: one, weight: {one}}}, {{name: two, weight: {two}}}]}}}}"
            ))
        };
        bench.control.routes(&[weights(75, 25)]);
        bench.load.wait_for_body("two");
        bench.load.forget_bodies();
        bench.load.wait_for(400);
        let bodies = bench.load.bodies();
        let share = |name: &str| bodies.get(name).copied().unwrap_or(0) as f64 / bodies.values().sum::<usize>() as f64;
        // Five standard deviations of 400 draws.
        assert!((share("two") - 0.25).abs() < 0.11, "{bodies:?}");
        bench.control.routes(&[weights(0, 100)]);
        eventually("all to two", || {
            bench.load.forget_bodies();
            bench.load.wait_for(30);
            (!bench.load.bodies().contains_key("one")).then_some(())
        });
        bench.load.finish();
    }
}

#[test]
fn endpoints_swap_without_a_failed_request() {
    let bench = Bench::start("GRPC");
    for round in 0..6 {
        let port = if round % 2 == 0 { bench.two.port() } else { bench.one.port() };
        bench.load.forget_bodies();
        bench.control.endpoints(&[endpoints("one", &[port]), endpoints("two", &[bench.two.port()])]);
        bench.load.wait_for_body(if round % 2 == 0 { "two" } else { "one" });
    }
    bench.load.finish();
}

#[test]
fn clusters_change_without_a_failed_request() {
    let bench = Bench::start("DELTA_GRPC");
    for timeout in ["3s", "4s", "5s"] {
        let updated = bench.proxy.stat("cluster_manager.cluster_modified");
        let changed = eds_cluster("one", "").replace("2s", timeout);
        bench.control.clusters(&[changed, eds_cluster("two", "")]);
        bench.proxy.wait_for_stat("cluster_manager.cluster_modified", |now| now > updated);
        bench.load.wait_for(30);
    }
    bench.load.finish();
}

#[test]
fn routes_change_without_a_failed_request() {
    let bench = Bench::start("GRPC");
    for cluster in ["two", "one", "two", "one"] {
        bench.load.forget_bodies();
        bench.control.routes(&[routed_to(&format!("route: {{cluster: {cluster}}}"))]);
        bench.load.wait_for_body(cluster);
    }
    bench.load.finish();
}

#[test]
fn listeners_change_without_a_failed_request() {
    let bench = Bench::start("GRPC");
    let address = bench.proxy.listener("main").to_string();
    // In place: only the filter chain changed.
    let in_place = http_listener("main", &format!("{RDS}, access_log: [], server_name: second"), "", "");
    bench.control.listeners(std::slice::from_ref(&in_place));
    bench.proxy.wait_for_stat("listener_manager.listener_in_place_updated", |count| count == 1);
    eventually("new chain", || {
        get(bench.proxy.listener("main"), "/").filter(|reply| reply.header("server") == Some("second"))
    });
    bench.load.wait_for(30);
    // In full: the listener itself changed.
    let whole = http_listener(
        "main",
        &format!("{RDS}, access_log: [], server_name: third"),
        "",
        "per_connection_buffer_limit_bytes: 65536",
    );
    bench.control.listeners(&[whole]);
    bench.proxy.wait_for_stat("listener_manager.listener_modified", |count| count >= 2);
    eventually("new listener", || {
        get(bench.proxy.listener("main"), "/").filter(|reply| reply.header("server") == Some("third"))
    });
    bench.load.wait_for(30);
    assert_eq!(bench.proxy.listener("main").to_string(), address, "the port stays");
    bench.load.finish();
}

#[test]
fn control_plane_restarts_without_a_failed_request() {
    for api_type in ["GRPC", "DELTA_GRPC"] {
        let Bench { load, proxy, control, one: _one, two: _two } = Bench::start(api_type);
        let control = control.restart();
        load.wait_for(30);
        proxy.wait_for_stat("control_plane.connected_state", |state| state == 1);
        load.forget_bodies();
        eventually("reconnected", || (control.plane.open_streams() > 0).then_some(()));
        control.routes(&[routed_to("route: {cluster: two}")]);
        load.wait_for_body("two");
        load.finish();
    }
}

#[test]
fn garbage_from_the_control_plane_changes_nothing() {
    let bench = Bench::start("GRPC");
    for mischief in [Mischief::Garbage, Mischief::ResetMidMessage] {
        let requests = bench.control.plane.requests().len();
        bench.control.plane.misbehave(mischief);
        // It comes back, and asks again.
        eventually("a new request", || (bench.control.plane.requests().len() > requests).then_some(()));
        bench.load.wait_for(20);
    }
    eventually("reconnected", || (bench.control.plane.open_streams() > 0).then_some(()));
    bench.load.forget_bodies();
    bench.control.routes(&[routed_to("route: {cluster: two}")]);
    bench.load.wait_for_body("two");
    bench.load.finish();
}

#[test]
fn resources_that_are_not_what_they_say_are_refused_by_name() {
    let bench = Bench::start("GRPC");
    let garbage = |name: &str| Resource::new(name, "", vec![0xff; 300]);
    for (kind, resource) in [(ROUTE, garbage("main")), (ENDPOINTS, garbage("two")), (CLUSTER, garbage("three"))] {
        bench.control.plane.set(kind, vec![resource]);
        let nack = bench.control.nack(kind);
        assert!(!nack.is_empty());
        bench.load.wait_for(10);
    }
    // A listener beside the good one that is a name and nothing else.
    let main = http_listener("main", &format!("{RDS}, access_log: []"), "", "");
    bench.control.listeners(&[main, "{name: nothing}".to_owned()]);
    let nack = bench.control.nack(LISTENER);
    assert!(nack.contains("nothing"), "{nack}");
    bench.load.wait_for(20);
    bench.load.finish();
}

#[test]
fn big_updates_keep_their_place_among_small_ones() {
    for api_type in ["GRPC", "DELTA_GRPC"] {
        let bench = Bench::start(api_type);
        // Big enough for the helper thread, and slow enough to be overtaken if anything could.
        let big = |cluster: &str, last: &str| {
            let mut routes: String = (0..4000)
                .map(|n| format!(r#"{{match: {{prefix: "/never/{n}/"}}, route: {{cluster: {cluster}}}}}, "#))
                .collect();
            routes.push_str(&format!(r#"{{match: {{prefix: "/"}}, {last}}}"#));
            format!(r#"{{name: main, virtual_hosts: [{{name: all, domains: ["*"], routes: [{routes}]}}]}}"#)
        };
        for _ in 0..3 {
            bench.control.routes(&[big("one", "route: {cluster: one}")]);
            bench.control.routes(&[routed_to("route: {cluster: two}")]);
            bench.load.wait_for_body("two");
            bench.control.routes(&[routed_to("route: {cluster: one}")]);
            bench.control.routes(&[big("two", "route: {cluster: two}")]);
            eventually("all to two", || {
                bench.load.forget_bodies();
                bench.load.wait_for(20);
                (!bench.load.bodies().contains_key("one")).then_some(())
            });
        }
        // Refused as a whole and by name, on the helper thread as anywhere.
        bench.control.routes(&[big(
            "one",
            "route: {cluster: one, prefix_rewrite: /a, regex_rewrite: {pattern: {regex: a}, substitution: b}}",
        )]);
        let nack = bench.control.nack(ROUTE);
        assert!(nack.contains("main"), "{nack}");
        bench.load.forget_bodies();
        bench.load.wait_for(20);
        assert!(!bench.load.bodies().contains_key("one"));
        bench.load.finish();
    }
}

#[test]
fn a_removed_listener_drains() {
    let control = Control::start();
    let slow = Upstream::start(vec![vec![
        Act::Request,
        Act::Pause(std::time::Duration::from_millis(300)),
        Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow".to_vec()),
    ]]);
    control.clusters(&[eds_cluster("one", "")]);
    control.endpoints(&[endpoints("one", &[slow.port()])]);
    control.routes(&[routed_to("route: {cluster: one}")]);
    control.listeners(&[http_listener("main", RDS, "", "")]);
    let arguments = ["--drain-time-s", "2", "--drain-strategy", "immediate"];
    let proxy = Proxy::start_with(Kind::under_test(), &control.bootstrap("GRPC"), &arguments);
    let address = proxy.listener("main");
    let mut client = Client::connect(address);
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request reached the upstream", || (slow.connections() == 1).then_some(()));
    control.listeners(&[]);
    proxy.wait_for_stat("listener_manager.listener_removed", |count| count == 1);
    // Nobody new comes in, and the request that had begun is answered.
    eventually("no new connections", || Client::try_connect(address).is_err().then_some(()));
    assert!(client.read_responses(1), "the request that had begun was lost");
    let response = client.responses().remove(0);
    assert_eq!((response.status(), response.text().as_str()), (200, "slow"));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(client.read_to_end(), End::Closed);
}

/// What a drained listener or chain cuts off has its line in the log, and is taken back from every gauge.
#[test]
fn requests_cut_at_the_end_of_a_drain_are_logged() {
    const PURGED: &str = "purging_socket_that_have_not_progressed_to_connections";
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER%";
    for (case, details) in [("removed", PURGED), ("replaced", PURGED), ("in_place", "filter_chain_is_being_removed")] {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("log");
        let log = format!(
            r#"access_log: [{{name: file, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "{}", log_format: {{text_format_source: {{inline_string: "{format}\n"}}}}}}}}]"#,
            path.display()
        );
        let control = Control::start();
        let (held, calls) = (Upstream::start(vec![vec![Act::Request, Act::Hold]]), H2Upstream::start(Behaviour::Stall));
        control.clusters(&[eds_cluster("one", ""), eds_cluster("two", &http2())]);
        control.endpoints(&[endpoints("one", &[held.port()]), endpoints("two", &[calls.port()])]);
        control.routes(&[r#"{name: main, virtual_hosts: [{name: all, domains: ["*"], routes: [
            {match: {prefix: "/2"}, route: {cluster: two}}, {match: {prefix: "/"}, route: {cluster: one}}]}]}"#
            .to_owned()]);
        let listener = |manager: &str, more: &str| http_listener("main", &format!("{RDS}, {log}, {manager}"), "", more);
        control.listeners(&[listener("", "")]);
        let arguments = ["--drain-time-s", "1", "--drain-strategy", "immediate"];
        let proxy = Proxy::start_with(Kind::under_test(), &control.bootstrap("GRPC"), &arguments);
        let address = proxy.listener("main");
        let mut client = Client::connect(address);
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let other = std::thread::spawn(move || h2_client::converse(address, &[H2Request::get("http://a/2")]));
        proxy.wait_for_stat("http.main.downstream_rq_active", |active| active == 2);
        control.listeners(&match case {
            "removed" => Vec::new(),
            "replaced" => vec![listener("", "per_connection_buffer_limit_bytes: 65536")],
            _ => vec![listener("server_name: second", "")],
        });
        assert_eq!(client.read_to_end(), End::Closed, "{case}");
        let (replies, _) = other.join().expect("a client");
        assert!(replies[0].error.is_some(), "{case}: {replies:?}");
        let lines = eventually(case, || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            (lines.len() == 2).then_some(lines)
        });
        let expected = ["one", "two"].map(|cluster| format!("0 DC downstream_local_disconnect({details}) {cluster}"));
        assert_eq!(lines, expected, "{case}");
        // What a removed listener counted may be gone with it.
        let stats = proxy.stats(r"^http\.main\.downstream_(cx|rq)_");
        for (name, value) in [
            ("cx_active", 0),
            ("cx_http1_active", 0),
            ("cx_http2_active", 0),
            ("rq_active", 0),
            ("rq_rx_reset", 2),
            ("cx_destroy_local", 2),
            ("cx_destroy_active_rq", 2),
            ("cx_destroy_remote_active_rq", 2),
        ] {
            let found = stats.get(&format!("http.main.downstream_{name}"));
            assert!(found == Some(&value) || case == "removed" && found.is_none(), "{case}: {name} is {found:?}");
        }
    }
}

#[test]
fn refused_resources_leave_the_old_ones() {
    let bench = Bench::start("GRPC");
    // Two bad clusters and a good one: the good one is applied, both bad ones are named.
    let bad = "lb_policy: CLUSTER_PROVIDED";
    bench.control.clusters(&[
        eds_cluster("one", ""),
        eds_cluster("two", ""),
        eds_cluster("bad_a", bad),
        eds_cluster("bad_b", bad),
    ]);
    let nack = bench.control.nack(CLUSTER);
    assert!(nack.contains("bad_a") && nack.contains("bad_b"), "{nack}");
    // A listener with an unknown filter.
    let broken = http_listener("broken", RDS, "", "").replace(
        "name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors",
    );
    bench.control.listeners(&[http_listener("main", &format!("{RDS}, access_log: []"), "", ""), broken]);
    let nack = bench.control.nack(LISTENER);
    assert!(nack.contains("broken"), "{nack}");
    // A route configuration with the same domain twice.
    let twice = r#"{name: main, virtual_hosts: [{name: a, domains: ["a.test"]}, {name: b, domains: ["a.test"]}]}"#;
    bench.control.routes(&[twice.to_owned()]);
    let nack = bench.control.nack(ROUTE);
    assert!(nack.contains("a.test") && nack.contains("main"), "{nack}");
    bench.load.wait_for(30);
    bench.load.finish();
}

#[test]
fn a_bad_port_is_refused_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let bench = Bench::start("GRPC");
    let clash = http_listener(
        "clash",
        RDS,
        "",
        &format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"),
    );
    bench.control.listeners(&[http_listener("main", &format!("{RDS}, access_log: []"), "", ""), clash]);
    let nack = bench.control.nack(LISTENER);
    assert!(nack.contains("clash") && nack.contains("bind"), "{nack}");
    bench.load.wait_for(20);
    bench.load.finish();
}

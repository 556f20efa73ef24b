//! Everything at once, for a while: load by HTTP/1, HTTP/2 and gRPC, a control plane that changes its mind and restarts,
//! upstreams and clients that misbehave. What goes to healthy hosts never fails, nothing hangs, and afterwards the process
//! is as it was: as many descriptors, hardly more memory, every gauge back.
//!
//! `SOAK_SECONDS` says for how long; the default suits a gate. Load is paced, so that tests beside it are not starved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use h2::Reason;

use crate::control::{Control, eds_cluster, endpoints};
use crate::load::Load;
use crate::support::bootstrap::{http_listener, http2};
use crate::support::client::{Client, End};
use crate::support::h2_client::{self, H2Request};
use crate::support::h2_upstream::{Behaviour, H2Upstream};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Script, Upstream, ok};
use crate::support::{PATIENCE, eventually};

const RDS: &str = "access_log: [], rds: {route_config_name: main, config_source: {ads: {}, resource_api_version: V3}}";
const MIB: u64 = 1 << 20;
/// What a run may leave behind, however long it is: caches fill and the allocator keeps some.
pub const MEMORY_LEFT: u64 = 12 * MIB;

#[test]
fn soak() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let end = Instant::now() + Duration::from_secs(seconds);

    let world = World::start();
    let mut control = Control::start();
    world.publish(&control, 0);
    let arguments = ["--concurrency", "2", "--drain-time-s", "1", "--drain-strategy", "immediate"];
    let mut proxy = Proxy::start_with(Kind::under_test(), &control.bootstrap("GRPC"), &arguments);
    let address = proxy.listener("main");
    let fresh = Level::of(&proxy);

    let load = start_load(address);
    let provokers = Provokers::start(address);
    let mut settled = None;
    let mut round = 0;
    while Instant::now() < end || round < ROUND {
        round += 1;
        control = world.turn(control, round);
        load.wait_for(20);
        assert!(proxy.is_running(), "{}", proxy.log());
        if round == ROUND {
            settled = Some(proxy.resident());
        }
    }
    let provoked = provokers.finish();
    let served = load.done();
    load.finish();
    assert!(provoked > 10, "{provoked}");

    world.hang_up();
    for gauge in GAUGES {
        let mut last = proxy.stats(gauge);
        assert!(!last.is_empty(), "{gauge} names no gauge that was used");
        let deadline = Instant::now() + PATIENCE;
        while last.values().any(|value| *value != 0) {
            assert!(Instant::now() < deadline, "never came back: {last:?}");
            last = proxy.stats(gauge);
        }
    }
    proxy.wait_for_stat("control_plane.connected_state", |state| state == 1);
    eventually("descriptors are closed", || (Level::of(&proxy).descriptors <= fresh.descriptors).then_some(()));
    let level = Level::of(&proxy);
    assert_eq!(level.threads, fresh.threads);
    let before = settled.unwrap_or(fresh.memory);
    assert!(level.memory < before + MEMORY_LEFT, "{} MiB became {} MiB", before / MIB, level.memory / MIB);
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    println!(
        "{served} requests without a failure and {provoked} provoked ones in {round} rounds; {fresh:?}, {level:?}"
    );
}

/// What must be nothing once nobody asks for anything.
const GAUGES: [&str; 6] = [
    r"^http\.main\.downstream_(cx|rq).*active$",
    r"^listener\.main\.downstream_(cx|pre_cx)_active$",
    r"^cluster\.(one|two|calls|away|faulty|faulty2)\.upstream_(cx|rq)_active$",
    r"^cluster\.(one|two|calls|away|faulty|faulty2)\.upstream_rq_pending_active$",
    r"^listener_manager\.total_(listeners|filter_chains)_(draining|warming)$",
    r"^cluster_manager\.warming_clusters$",
];

/// What a process holds.
#[derive(Debug)]
pub struct Level {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory in bytes.
    pub memory: u64,
}

impl Level {
    /// What it holds now.
    pub fn of(proxy: &Proxy) -> Self {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", proxy.pid())).map_or(0, Iterator::count);
        Self { descriptors: count("fd"), threads: count("task"), memory: proxy.resident() }
    }
}

/// Clients of whom no request may fail.
fn start_load(address: SocketAddr) -> Load {
    let mut load = Load::paced(Duration::from_millis(4));
    load.http1(address);
    load.http1(address);
    load.http2(address, H2Request::get("http://load.test/"));
    load.http2(address, H2Request::get("http://load.test/away"));
    let call = H2Request::post("http://load.test/shop.Cart/Add", &b"\0\0\0\0\x05hello"[..]);
    load.http2(address, call.header("content-type", "application/grpc").header("te", "trailers"));
    load
}

/// The upstreams: hosts that are well, and hosts that are not.
struct World {
    one: Upstream,
    two: Upstream,
    calls: H2Upstream,
    /// Tells every connection to go away, and answers what it has.
    away: H2Upstream,
    faulty: Upstream,
    faulty2: H2Upstream,
}

/// So many turns until every change and every fault has had its.
const ROUND: usize = 12;

impl World {
    fn start() -> Self {
        Self {
            one: Upstream::start(ok()),
            two: Upstream::start(ok()),
            calls: H2Upstream::start(Behaviour::Grpc(0)),
            away: H2Upstream::start(Behaviour::GoAway),
            faulty: Upstream::start(ok()),
            faulty2: H2Upstream::start(Behaviour::Ok),
        }
    }

    /// Everything the control plane knows, as of a turn.
    fn publish(&self, control: &Control, turn: usize) {
        self.publish_clusters(control, turn);
        self.publish_endpoints(control, turn);
        self.publish_routes(control, turn);
        self.publish_listener(control, turn);
    }

    fn publish_clusters(&self, control: &Control, turn: usize) {
        let timeout = format!("{}s", 2 + turn % 3);
        let cluster = |name: &str, more: &str| eds_cluster(name, more).replace("2s", &timeout);
        control.clusters(&[
            cluster("one", ""),
            cluster("two", ""),
            cluster("calls", &http2()),
            cluster("away", &http2()),
            cluster("faulty", ""),
            cluster("faulty2", &http2()),
        ]);
    }

    /// The hosts of two clusters change places, or stand in both.
    fn publish_endpoints(&self, control: &Control, turn: usize) {
        let (one, two) = (self.one.port(), self.two.port());
        let (first, second): (&[u16], &[u16]) = match turn % 3 {
            0 => (&[one], &[two]),
            1 => (&[two], &[one]),
            _ => (&[one, two], &[two, one]),
        };
        control.endpoints(&[
            endpoints("one", first),
            endpoints("two", second),
            endpoints("calls", &[self.calls.port()]),
            endpoints("away", &[self.away.port()]),
            endpoints("faulty", &[self.faulty.port()]),
            endpoints("faulty2", &[self.faulty2.port()]),
        ]);
    }

    fn publish_routes(&self, control: &Control, turn: usize) {
        let one = [75, 0, 100, 50][turn % 4];
        let two = 100 - one;
        control.routes(&[format!(
            r#"{{name: main, virtual_hosts: [{{name: all, domains: ["*"], routes: [
                {{match: {{prefix: "/faulty2"}}, route: {{cluster: faulty2, timeout: 0.2s}}}},
                {{match: {{prefix: "/faulty"}}, route: {{cluster: faulty, timeout: 0.2s}}}},
                {{match: {{prefix: "/shop.Cart/"}}, route: {{cluster: calls}}}},
                {{match: {{prefix: "/away"}}, route: {{cluster: away}}}},
                {{match: {{prefix: "/"}}, route: {{weighted_clusters: {{clusters: [
                    {{name: one, weight: {one}}}, {{name: two, weight: {two}}}]}}}}}}]}}]}}"#
        )]);
    }

    /// A new name changes a listener in place, a new limit as a whole.
    fn publish_listener(&self, control: &Control, turn: usize) {
        let manager = format!("{RDS}, server_name: soak-{}", turn % 4);
        let limit = format!("per_connection_buffer_limit_bytes: {}", 65_536 << (turn / 2 % 2));
        control.listeners(&[http_listener("main", &manager, "", &limit)]);
    }

    /// One change by the control plane, and the next fault.
    fn turn(&self, control: Control, turn: usize) -> Control {
        // They remember what they are sent until they are told to forget.
        self.one.forget();
        self.two.forget();
        self.calls.behave(Behaviour::Grpc(0));
        self.away.behave(Behaviour::GoAway);
        let (faults, behaviours) = (faults(), behaviours());
        self.faulty.hang_up();
        self.faulty.script(faults[turn % faults.len()].clone());
        self.faulty2.behave(behaviours[turn % behaviours.len()].clone());
        if turn.is_multiple_of(3) {
            self.faulty2.hang_up();
        }
        match turn % 6 {
            0 => return control.restart(),
            1 => self.publish_endpoints(&control, turn / 6 + 1),
            2 => self.publish_routes(&control, turn / 6 + 1),
            3 => self.publish_listener(&control, turn / 6 + 1),
            4 => self.publish_clusters(&control, turn / 6 + 1),
            _ => self.publish(&control, turn),
        }
        control
    }

    /// Closes what the proxy keeps for later.
    fn hang_up(&self) {
        [&self.one, &self.two, &self.faulty].into_iter().for_each(Upstream::hang_up);
        [&self.calls, &self.away, &self.faulty2].into_iter().for_each(H2Upstream::hang_up);
    }
}

fn faults() -> Vec<Script> {
    let send = |text: &str| Act::Send(text.as_bytes().to_vec());
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    vec![
        ok(),
        vec![vec![Act::Request, Act::Reset]],
        vec![vec![Act::Request, Act::Close]],
        vec![vec![Act::Request, Act::Hold]],
        vec![vec![Act::Request, send(short), Act::Reset]],
        vec![vec![Act::Request, send(short), Act::Close]],
        vec![vec![Act::Request, send("no head at all\r\n\r\n"), Act::Close]],
        vec![vec![Act::Close]],
    ]
}

fn behaviours() -> [Behaviour; 6] {
    [
        Behaviour::Ok,
        Behaviour::Reset(Reason::REFUSED_STREAM),
        Behaviour::ResetAfterHead(Reason::INTERNAL_ERROR),
        Behaviour::Stall,
        Behaviour::GoAway,
        Behaviour::Reset(Reason::CANCEL),
    ]
}

/// Clients that ask for trouble: any answer will do, but one must come.
struct Provokers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Provokers {
    fn start(address: SocketAddr) -> Self {
        let (stop, done) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let spawn = |provoke: fn(SocketAddr, usize)| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    provoke(address, done.fetch_add(1, Ordering::Relaxed));
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let threads = vec![spawn(provoke), spawn(provoke_http2)];
        Self { stop, done, threads }
    }

    /// How often they asked. Panics if one never heard.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no request hangs");
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// A request to the faulty host by HTTP/1; some clients do not wait for the answer, or not even finish asking.
fn provoke(address: SocketAddr, turn: usize) {
    let mut client = Client::connect(address);
    match turn % 5 {
        0 => {
            client.send(b"POST /faulty HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome");
            client.reset();
        }
        1 => client.send(b"GET /faulty HTTP/1.1\r\nhost: a\r\n\r\n"),
        2 => client.send(b"GET /faulty HTTP/1.1\r\nho"),
        _ => {
            client.send(b"GET /faulty HTTP/1.1\r\nhost: a\r\n\r\n");
            assert!(client.read_responses(1) || client.end != End::Open, "an HTTP/1 request got no answer");
        }
    }
}

/// Two requests by HTTP/2: to the faulty host that speaks it, and to the one that does not.
fn provoke_http2(address: SocketAddr, _: usize) {
    let requests = [H2Request::get("http://load.test/faulty2"), H2Request::get("http://load.test/faulty")];
    let (replies, _) = h2_client::converse(address, &requests);
    for (request, reply) in requests.iter().zip(&replies) {
        assert!(reply.error.as_deref() != Some(h2_client::SILENCE), "{} got no answer: {reply:?}", request.uri);
    }
}

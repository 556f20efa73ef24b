//! Conversations: what discovery says, and what the workers are told.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as proto;
use filters::config::ConfigError;
use filters::stream_info::Address;
use prost::Message;

use super::*;
use crate::config::listener::tests::{chain, listener, pipe, socket_address};
use crate::downstream::drain::DrainStrategy;

/// What the workers were told, in a few words each.
#[derive(Clone, Default)]
struct Script(Rc<RefCell<Vec<String>>>);

impl Script {
    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

impl ListenerSink for Script {
    fn activate(&mut self, listener: &Arc<ActiveListener>, sockets: &[Arc<ListenSocket>]) {
        let ids: Vec<_> = sockets.iter().map(|socket| socket.id().to_string()).collect();
        assert_eq!(sockets.len(), if listener.config.bind_to_port { listener.config.addresses.len() } else { 0 });
        self.0.borrow_mut().push(format!("activate {}#{} on {}", listener.config.name, listener.id.0, ids.len()));
    }

    fn stop(&mut self, listener: &Arc<ActiveListener>) {
        self.0.borrow_mut().push(format!("stop {}#{}", listener.config.name, listener.id.0));
    }

    fn close(&mut self, listener: &Arc<ActiveListener>, chains: Option<&[Arc<FilterChain>]>) {
        let names: Vec<_> = chains.unwrap_or_default().iter().map(|chain| chain.name.to_string()).collect();
        self.0.borrow_mut().push(format!("close {}#{} {}", listener.config.name, listener.id.0, names.join(",")));
    }
}

/// Listeners whose name starts with `w` wait.
#[derive(Default)]
struct Routes {
    asked: Vec<Ticket>,
    released: Vec<Ticket>,
}

impl Dependencies for Routes {
    fn require(&mut self, ticket: Ticket, listener: &Arc<ListenerConfig>) -> Result<Readiness, ConfigError> {
        self.asked.push(ticket);
        Ok(if listener.name.starts_with('w') { Readiness::Waiting } else { Readiness::Ready })
    }

    fn release(&mut self, ticket: Ticket) {
        self.released.push(ticket);
    }
}

struct Talk {
    manager: ListenerManager<Script, Routes>,
    script: Script,
    start: Now,
}

impl Talk {
    fn new() -> Self {
        let script = Script::default();
        let options =
            Options { workers: 1, drain_time: Duration::from_secs(10), drain_strategy: DrainStrategy::Gradual };
        let mut manager = ListenerManager::new(options, script.clone(), Routes::default());
        let start = Now { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        assert!(manager.start(start).is_ok());
        Self { manager, script, start }
    }

    fn after(&self, seconds: u64) -> Now {
        Now { instant: self.start.instant + Duration::from_secs(seconds), ..self.start }
    }

    fn say(&mut self, config: &proto::Listener) -> Result<Applied, String> {
        let raw = Bytes::from(config.encode_to_vec());
        let origin = Origin::Dynamic("1".into());
        let result = self.manager.apply(&Session::default(), origin, &config.name, &raw, self.start);
        result.map_err(|error| error.to_string())
    }

    fn told(&self) -> Vec<String> {
        self.script.take()
    }

    fn address(&self, name: &str) -> Address {
        let view = self.manager.views().find(|view| view.name == name).expect("known");
        view.active.or(view.warming).expect("alive").addresses[0].clone()
    }
}

fn with_chains(config: &proto::Listener, names: &[&str]) -> proto::Listener {
    let chains = names.iter().enumerate().map(|(index, name)| proto::FilterChain {
        filter_chain_match: Some(proto::FilterChainMatch {
            source_ports: vec![u32::try_from(index).expect("small") + 1],
            ..proto::FilterChainMatch::default()
        }),
        ..chain(name)
    });
    proto::Listener { filter_chains: chains.collect(), ..config.clone() }
}

#[test]
fn an_identical_listener_is_no_news() {
    let mut talk = Talk::new();
    assert_eq!(talk.say(&listener("l", 0)), Ok(Applied::Added));
    assert_eq!(talk.told(), ["activate l#1 on 1"]);
    assert_eq!(talk.say(&listener("l", 0)), Ok(Applied::Unchanged));
    assert!(talk.told().is_empty());
    assert_eq!(talk.manager.gauges().active, 1);
}

#[test]
fn changed_chains_take_over_in_place_and_unchanged_ones_are_the_same() {
    let mut talk = Talk::new();
    let base = with_chains(&listener("l", 0), &["a", "b"]);
    talk.say(&base).expect("added");
    let (address, before) = (talk.address("l"), Arc::clone(talk.manager.active().next().expect("active")));
    assert_eq!(talk.say(&with_chains(&base, &["a", "c"])), Ok(Applied::UpdatedInPlace));
    let after = Arc::clone(talk.manager.active().next().expect("active"));
    assert_eq!(talk.told(), ["activate l#1 on 1", "activate l#1 on 1"]);
    assert_eq!(talk.address("l"), address, "the socket stayed");
    let chains = |listener: &ActiveListener| listener.config.chains.iter().cloned().collect::<Vec<_>>();
    assert!(Arc::ptr_eq(&chains(&before)[0], &chains(&after)[0]), "chain a lives on");
    assert!(chains(&before)[1].drain.plan().is_some() && chains(&after)[1].drain.plan().is_none());
    assert!(after.drain.plan().is_none(), "the listener does not drain");
    assert_eq!(talk.manager.gauges().filter_chains_draining, 1);
    let released = |talk: &mut Talk| talk.manager.dependencies_mut().released.clone();
    assert_eq!(talk.manager.tick(talk.after(9).instant), Some(talk.after(10).instant));
    assert_eq!(released(&mut talk), [], "what chain b needs is kept up to date while it drains");
    assert_eq!(talk.manager.tick(talk.after(10).instant), None);
    assert_eq!(talk.told(), ["close l#1 b"]);
    assert_eq!(released(&mut talk), [Ticket(1)]);
    assert_eq!(talk.manager.counters().in_place_updated, 1);
}

#[test]
fn any_other_change_drains_the_old_version_and_keeps_the_socket() {
    let mut talk = Talk::new();
    talk.say(&listener("l", 0)).expect("added");
    let address = talk.address("l");
    let changed = proto::Listener { continue_on_listener_filters_timeout: true, ..listener("l", 0) };
    assert_eq!(talk.say(&changed), Ok(Applied::Updated));
    assert_eq!(talk.address("l"), address);
    assert_eq!(talk.told(), ["activate l#1 on 1", "activate l#2 on 1", "stop l#1"]);
    assert_eq!(talk.manager.gauges().draining, 1);
    talk.manager.stopped(ListenerId(1));
    assert_eq!(talk.manager.dependencies_mut().released, [], "its routes are kept up to date while it drains");
    talk.manager.tick(talk.after(10).instant);
    assert_eq!(talk.manager.dependencies_mut().released, [Ticket(1)]);
    assert_eq!(talk.told(), ["close l#1 "]);
    assert_eq!(talk.manager.gauges().draining, 0);
}

#[test]
fn removal_stops_then_drains_and_the_address_is_free_once_workers_are_through() {
    let mut talk = Talk::new();
    talk.say(&listener("l", 0)).expect("added");
    let Address::Ip(address) = talk.address("l") else { panic!("an IP address") };
    assert!(talk.manager.remove("l", talk.start));
    assert!(!talk.manager.remove("l", talk.start), "it is gone");
    assert_eq!(talk.told(), ["activate l#1 on 1", "stop l#1"]);
    // Wanted again before workers are through: the same socket, so nothing queued is lost.
    let fixed = listener("l", address.port().into());
    assert!(std::net::TcpListener::bind(address).is_err(), "still ours");
    talk.manager.stopped(ListenerId(1));
    assert!(std::net::TcpListener::bind(address).is_ok(), "free again");
    assert_eq!(talk.say(&fixed), Ok(Applied::Added));
}

#[test]
fn a_warming_listener_is_bound_but_serves_only_when_told() {
    let mut talk = Talk::new();
    talk.say(&listener("w", 0)).expect("added");
    assert!(talk.told().is_empty());
    let address = talk.address("w").ip().expect("an IP address");
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens yet");
    assert_eq!(talk.manager.gauges().warming, 1);
    let ticket = talk.manager.dependencies_mut().asked[0];
    talk.manager.warmed(ticket, talk.start).expect("sockets are ours");
    assert_eq!(talk.told(), ["activate w#1 on 1"]);
    assert!(std::net::TcpStream::connect(address).is_ok());
    // An update that waits leaves the old version serving; taking it back ends the wait.
    talk.say(&with_chains(&listener("w", 0), &["x"])).expect("updated");
    assert!(talk.told().is_empty());
    assert_eq!(talk.say(&listener("w", 0)), Ok(Applied::Unchanged));
    assert_eq!(talk.manager.gauges().warming, 0);
    assert_eq!(talk.manager.dependencies_mut().released.len(), 1);
}

#[test]
fn errors_are_kept_for_the_dump_and_disturb_nothing() {
    let mut talk = Talk::new();
    talk.say(&listener("l", 0)).expect("added");
    let port = talk.address("l").ip().expect("an IP address").port();
    talk.say(&proto::Listener { address: Some(socket_address("127.0.0.1", port.into())), ..listener("l", 0) })
        .expect("the port it has is its own");
    talk.told();
    let error = talk.say(&listener("m", port.into())).expect_err("taken");
    assert!(
        error.starts_with(&format!("error adding listener: 'm' has duplicate address '127.0.0.1:{port}'")),
        "{error}"
    );
    let bad = talk.say(&proto::Listener { filter_chains: vec![], ..listener("l", 0) }).expect_err("no chains");
    let view = talk.manager.views().find(|view| view.name == "l").expect("known");
    assert_eq!(view.error.expect("kept").details, bad);
    assert!(view.active.is_some());
    assert_eq!(talk.manager.counters().create_failure, 2);
    assert!(talk.told().is_empty());
    talk.manager.remove("m", talk.start);
    assert!(talk.manager.views().all(|view| view.name != "m"), "nothing but the error was known");
}

#[test]
fn an_address_in_use_is_named() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = other.local_addr().expect("bound");
    let error = Talk::new().say(&listener("l", address.port().into())).expect_err("in use");
    assert_eq!(error, format!("cannot bind '{address}': Address already in use"));
}

#[test]
fn static_listeners_are_out_of_discoverys_reach() {
    let mut talk = Talk::new();
    let raw = Bytes::from(listener("l", 0).encode_to_vec());
    talk.manager.apply(&Session::default(), Origin::Static, "l", &raw, talk.start).expect("static");
    assert_eq!(talk.say(&with_chains(&listener("l", 0), &["x"])), Ok(Applied::Ignored));
    talk.manager.retain(&BTreeSet::new(), talk.start);
    assert_eq!(talk.manager.gauges().active, 1);
}

#[test]
fn the_administrator_drains_gracefully_or_at_once() {
    let inbound = proto::Listener { traffic_direction: 1, ..listener("in", 0) };
    let mut talk = Talk::new();
    talk.say(&inbound).expect("added");
    talk.say(&listener("out", 0)).expect("added");
    talk.told();
    talk.manager.drain_listeners(true, true, talk.start);
    let draining: Vec<_> = talk.manager.active().map(|listener| listener.drain.plan().is_some()).collect();
    assert_eq!((draining, talk.told().len()), (vec![true, false], 0));
    talk.manager.tick(talk.after(10).instant);
    assert_eq!(talk.told(), ["stop in#1"]);
    talk.manager.drain_listeners(false, false, talk.start);
    assert_eq!(talk.told(), ["stop out#2"]);
    assert_eq!(talk.manager.counters().stopped, 2);
}

#[test]
fn nothing_is_served_before_the_workers_run() {
    let script = Script::default();
    let options = Options { workers: 1, drain_time: Duration::ZERO, drain_strategy: DrainStrategy::Immediate };
    let mut manager = ListenerManager::new(options, script.clone(), Routes::default());
    let now = Now { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH };
    let raw = Bytes::from(listener("l", 0).encode_to_vec());
    manager.apply(&Session::default(), Origin::Static, "l", &raw, now).expect("bound");
    assert!(script.take().is_empty());
    assert!(manager.start(now).is_ok());
    assert_eq!(script.take(), ["activate l#1 on 1"]);
}

#[test]
fn a_port_is_shared_by_our_workers_but_not_with_another_process() {
    let raw = Bytes::from(listener("l", 0).encode_to_vec());
    let config = ListenerConfig::parse(&Session::default().root(), &raw).expect("valid");
    let spec = SocketSpec::of(&config).remove(0);
    let bound = BoundSocket::bind(spec.clone()).expect("free");
    let address = bound.address().clone();
    let listening = bound.listen(3).expect("three workers");
    for worker in 0..3 {
        assert!(listening.for_worker(worker).is_ok());
    }
    let again = SocketSpec {
        address: crate::config::listener::address::ListenAddress { address, ..spec.address.clone() },
        ..spec
    };
    let error = BoundSocket::bind(again).expect_err("as a second process would");
    assert!(error.to_string().ends_with("Address already in use"), "{error}");
}

#[test]
fn a_unix_path_has_its_mode_survives_a_crash_and_goes_away() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("left behind by a crash"));
    let address = pipe(path.to_str().expect("text"), 0o640);
    let raw = Bytes::from(proto::Listener { address: Some(address), ..listener("l", 0) }.encode_to_vec());
    let config = ListenerConfig::parse(&Session::default().root(), &raw).expect("valid");
    let bound = BoundSocket::bind(SocketSpec::of(&config).remove(0)).expect("the stale path is replaced");
    let listening = bound.listen(2).expect("one socket for both");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    assert!(BoundSocket::bind(SocketSpec::of(&config).remove(0)).is_err(), "a live one is not replaced");
    drop(listening);
    assert!(!path.exists());
}

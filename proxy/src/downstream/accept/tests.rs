//! Real sockets on loopback, one worker.

use std::io::{Read, Write};

use envoy_types::pb::envoy::config::listener::v3 as proto;
use filters::config::Session;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::config::listener::tests::{any, listener};
use crate::control::listeners::sockets::{BoundSocket, SocketSpec};

/// Keeps what it is given.
#[derive(Default)]
struct Recorder {
    served: RefCell<Vec<Accepted>>,
    counted: RefCell<Vec<ListenerCounter>>,
    arrived: Notify,
}

impl ConnectionHandler for Rc<Recorder> {
    fn serve(&self, accepted: Accepted) {
        self.served.borrow_mut().push(accepted);
        self.arrived.notify_one();
    }

    fn unmatched(&self, _listener: &Arc<ActiveListener>, _info: Rc<ConnectionInfo>) {}

    fn connection_id(&self) -> u64 {
        1
    }

    fn count(&self, _listener: &ActiveListener, counter: ListenerCounter) {
        self.counted.borrow_mut().push(counter);
        self.arrived.notify_one();
    }

    fn count_filter(&self, _listener: &ActiveListener, _filter: usize, _counter: FilterCounter) {}

    fn tls_bytes_processed(&self, _listener: &ActiveListener, _filter: usize, _bytes: usize) {}

    fn pre_connections(&self, _listener: &ActiveListener, _delta: i64) {}

    fn accepted_per_event(&self, _listener: &ActiveListener, _connections: u32) {}
}

impl Recorder {
    async fn next(&self) -> Accepted {
        loop {
            if let Some(accepted) = self.served.borrow_mut().pop() {
                return accepted;
            }
            self.arrived.notified().await;
        }
    }

    async fn next_counter(&self) -> ListenerCounter {
        loop {
            if let Some(counter) = self.counted.borrow_mut().pop() {
                return counter;
            }
            self.arrived.notified().await;
        }
    }
}

fn local<F: Future>(work: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("runtime");
    runtime.block_on(work)
}

fn active(id: u64, config: &proto::Listener) -> (Arc<ActiveListener>, Vec<Arc<ListenSocket>>) {
    let raw = Bytes::from(config.encode_to_vec());
    let config = ListenerConfig::parse(&Session::default().root(), &raw).expect("valid");
    let specs = if config.bind_to_port { SocketSpec::of(&config) } else { Vec::new() };
    let listen = |spec| Arc::new(BoundSocket::bind(spec).and_then(|bound| bound.listen(1)).expect("free"));
    let sockets: Vec<_> = specs.into_iter().map(listen).collect();
    let addresses = sockets.iter().map(|socket| socket.address().clone()).collect();
    let listener = ActiveListener {
        id: ListenerId(id),
        config: Arc::new(config),
        addresses,
        drain: Arc::default(),
        budget: ConnectionBudget::unlimited(),
    };
    (Arc::new(listener), sockets)
}

fn acceptors() -> (Rc<Recorder>, Acceptors<Rc<Recorder>>) {
    let recorder = Rc::new(Recorder::default());
    let acceptors = Acceptors::new(Rc::clone(&recorder), 0, ConnectionBudget::unlimited());
    (recorder, acceptors)
}

fn connect(sockets: &[Arc<ListenSocket>]) -> std::net::TcpStream {
    std::net::TcpStream::connect(sockets[0].address().ip().expect("TCP")).expect("listening")
}

fn listener_filter<M: Message>(name: &str, message: &M) -> proto::ListenerFilter {
    let config = any(name, message);
    proto::ListenerFilter {
        name: "f".into(),
        config_type: Some(proto::listener_filter::ConfigType::TypedConfig(config)),
        filter_disabled: None,
    }
}

#[test]
fn a_connection_knows_who_and_where_and_inherits_nodelay() {
    local(async {
        let (recorder, acceptors) = acceptors();
        let (listener, sockets) = active(1, &listener("l", 0));
        acceptors.activate(&listener, &sockets).expect("registered");
        let client = connect(&sockets);
        let accepted = recorder.next().await;
        assert_eq!(accepted.info.remote, Address::Ip(client.local_addr().expect("connected")));
        assert_eq!(&accepted.info.local, sockets[0].address());
        assert_eq!((&*accepted.chain.name, &*accepted.info.listener_name), ("a", "l"));
        let Stream::Tcp(stream) = &accepted.stream else { panic!("TCP") };
        assert!(stream.nodelay().expect("read back"));
        assert_eq!(listener.budget.open(), 1);
        drop(accepted);
        assert_eq!(listener.budget.open(), 0);
    });
}

#[test]
fn a_new_version_takes_over_the_socket_and_stopping_accepts_what_is_queued() {
    local(async {
        let (recorder, acceptors) = acceptors();
        let (first, sockets) = active(1, &listener("l", 0));
        acceptors.activate(&first, &sockets).expect("registered");
        let (second, _) = active(2, &listener("l", 0));
        acceptors.activate(&second, &sockets).expect("taken over");
        acceptors.stop(ListenerId(1)).await;
        let _client = connect(&sockets);
        assert_eq!(recorder.next().await.listener.id, ListenerId(2));
        // Queued in the kernel, not yet seen by the worker.
        let queued: Vec<_> = (0..3).map(|_| connect(&sockets)).collect();
        acceptors.stop(ListenerId(2)).await;
        assert_eq!(recorder.served.borrow().len(), queued.len());
        let address = sockets[0].address().ip().expect("TCP");
        drop(sockets);
        assert!(std::net::TcpStream::connect(address).is_err(), "closed");
    });
}

#[test]
fn limits_close_what_is_too_much() {
    local(async {
        let (recorder, acceptors) = acceptors();
        let (listener, sockets) = active(1, &listener("l", 0));
        listener.budget.set_limit(1);
        acceptors.activate(&listener, &sockets).expect("registered");
        let _first = connect(&sockets);
        let held = recorder.next().await;
        let mut second = connect(&sockets);
        assert_eq!(recorder.next_counter().await, ListenerCounter::DownstreamCxOverflow);
        assert_eq!(second.read(&mut [0]).unwrap_or(0), 0);
        drop(held);
    });
}

#[test]
fn the_proxy_header_is_eaten_and_the_rest_replayed() {
    use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
    local(async {
        let (recorder, acceptors) = acceptors();
        let name = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
        let filters = vec![listener_filter(name, &ProxyProtocol::default())];
        let (listener, sockets) = active(1, &proto::Listener { listener_filters: filters, ..listener("l", 0) });
        acceptors.activate(&listener, &sockets).expect("registered");
        let mut client = connect(&sockets);
        client.write_all(b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000\r\nhello").expect("sent");
        let mut accepted = recorder.next().await;
        assert_eq!(accepted.info.remote.to_string(), "1.2.3.4:1000");
        assert_eq!(accepted.info.local.to_string(), "5.6.7.8:2000");
        assert!(accepted.info.local_restored);
        assert_eq!(&accepted.prefix[..], b"hello");
        client.write_all(b" world").expect("sent");
        let mut rest = [0; 6];
        accepted.stream.read_exact(&mut rest).await.expect("read");
        assert_eq!(&rest, b" world");
    });
}

#[test]
fn a_recovered_destination_finds_its_listener() {
    use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
    use envoy_types::pb::google::protobuf::BoolValue;
    local(async {
        let (recorder, acceptors) = acceptors();
        let name = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
        let (catcher, sockets) = active(
            1,
            &proto::Listener {
                listener_filters: vec![listener_filter(name, &ProxyProtocol::default())],
                use_original_dst: Some(BoolValue { value: true }),
                ..listener("catcher", 0)
            },
        );
        let (target, _) =
            active(2, &proto::Listener { bind_to_port: Some(BoolValue { value: false }), ..listener("target", 0) });
        let target = Arc::new(ActiveListener {
            id: target.id,
            config: Arc::clone(&target.config),
            addresses: vec![Address::Ip(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 2000))],
            drain: Arc::default(),
            budget: ConnectionBudget::unlimited(),
        });
        acceptors.activate(&catcher, &sockets).expect("registered");
        acceptors.activate(&target, &[]).expect("registered");
        for (port, expected) in [(2000, "target"), (3000, "catcher")] {
            let mut client = connect(&sockets);
            write!(client, "PROXY TCP4 1.2.3.4 5.6.7.8 1000 {port}\r\nx").expect("sent");
            let accepted = recorder.next().await;
            assert_eq!((&*accepted.info.listener_name, &accepted.prefix[..]), (expected, &b"x"[..]));
        }
        assert_eq!((catcher.budget.open(), target.budget.open()), (0, 0), "the accepted ones were dropped");
    });
}

#[test]
fn a_client_that_leaves_or_says_nothing_is_counted() {
    use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
    use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
    local(async {
        let (recorder, acceptors) = acceptors();
        let name = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
        let (listener, sockets) = active(
            1,
            &proto::Listener {
                listener_filters: vec![listener_filter(name, &TlsInspector::default())],
                listener_filters_timeout: Some(ProtoDuration { seconds: 0, nanos: 20_000_000 }),
                ..listener("l", 0)
            },
        );
        acceptors.activate(&listener, &sockets).expect("registered");
        drop(connect(&sockets));
        assert_eq!(recorder.next_counter().await, ListenerCounter::DownstreamListenerFilterRemoteClose);
        let _silent = connect(&sockets);
        assert_eq!(recorder.next_counter().await, ListenerCounter::DownstreamPreCxTimeout);
        assert_eq!(listener.budget.open(), 0);
    });
}

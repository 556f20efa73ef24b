//! Client and control plane over real sockets and files.
#![expect(clippy::expect_used, reason = "a test may stop where it stands")]

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use xds_client::server::{ControlPlane, Mischief, RestServerCodec};
use xds_client::{
    Address, BackoffConfig, CLUSTER, Client, ENDPOINTS, Environment, Event, FileSource, GrpcSource, Hub, Interest,
    LISTENER, Mode, PlainNetwork, ROUTE, Rejection, Request, Resource, RestCodec, RestSource, SourceConfig,
    SourceObserver, SubscribeError, Target, Unobserved, Update,
};

const MODES: [Mode; 2] = [Mode::StateOfTheWorld, Mode::Delta];

#[test]
fn an_aggregated_stream_from_first_request_to_reconnect() {
    for mode in MODES {
        local(async {
            let control_plane = ControlPlane::new("test");
            control_plane.edit(|snapshot| {
                snapshot.set(CLUSTER, vec![resource("x", 1), resource("y", 1)]);
                snapshot.set(ENDPOINTS, vec![resource("x", 1), resource("y", 1), resource("z", 1)]);
            });
            let mut peer = Peer::start(&control_plane).await;
            let observer = Rc::new(Watching::default());
            peer.hub.set_ads(ads(mode), observer.clone());
            let _clusters = peer.subscribe(Interest::wildcard(CLUSTER));

            let update = peer.update().await;
            assert_eq!(names(&update), ["x", "y"]);
            assert_eq!(*observer.identifier.borrow(), "test");
            // The consumer subscribes while it applies; only then does it accept.
            let _endpoints: Vec<_> = ["x", "y"].map(|name| peer.subscribe(Interest::name(ENDPOINTS, name))).into();
            peer.accept(update);
            let order = control_plane
                .wait_for(|log| {
                    let types: Vec<_> = log.iter().map(|received| received.type_url().to_owned()).collect();
                    (types.len() >= 3).then_some(types)
                })
                .await;
            assert_eq!(order[..3], [CLUSTER, ENDPOINTS, CLUSTER], "endpoints are asked for before the ACK");

            let update = peer.update().await;
            assert_eq!(names(&update), ["x", "y"]);
            peer.accept(update);

            control_plane.put(ENDPOINTS, resource("y", 2));
            let update = peer.update().await;
            let want: &[&str] = if mode == Mode::Delta { &["y"] } else { &["x", "y"] };
            assert_eq!(names(&update), want);
            peer.client().reject(update.ticket, &Rejection::resource("y", "no such locality"));
            let nack = control_plane.wait_for(|log| log.iter().find_map(|r| r.nack().map(str::to_owned))).await;
            assert_eq!(nack, "y: no such locality");

            // The stream is lost: versions of what was accepted come with the next, and what was refused comes again.
            control_plane.drop_streams();
            let first = control_plane.wait_for(|log| log.iter().find(|r| r.stream == 1).cloned()).await;
            assert_eq!(first.type_url(), CLUSTER);
            match &first.request {
                Request::Sotw(request) => assert_eq!(request.version_info, "1"),
                Request::Delta(request) => assert_eq!(request.initial_resource_versions.len(), 2),
            }
            let update = peer.update().await;
            assert_eq!(&*update.type_url, ENDPOINTS);
            assert_eq!(names(&update), want);
            peer.accept(update);
            assert_eq!(*observer.connected.borrow(), [true, false, true]);
        });
    }
}

#[test]
fn a_misbehaving_control_plane_loses_nothing() {
    for mode in MODES {
        local(async {
            let control_plane = ControlPlane::new("test");
            control_plane.set(CLUSTER, vec![resource("x", 1)]);
            let mut peer = Peer::start(&control_plane).await;
            peer.hub.set_ads(ads(mode), Rc::new(Unobserved));
            let _clusters = peer.subscribe(Interest::wildcard(CLUSTER));
            let update = peer.update().await;
            peer.accept(update);
            control_plane.wait_for(|log| (log.len() == 2).then_some(())).await;

            for (mischief, reason) in [
                (Mischief::Garbage, "does not decode"),
                (Mischief::ResetMidMessage, ""),
                (Mischief::Raw(Bytes::from_static(b"\x0a\x05abc")), "does not decode"),
            ] {
                let stream = control_plane.requests().iter().map(|received| received.stream).max();
                control_plane.misbehave(mischief);
                let lost = peer.event(|event| match event {
                    Event::Disconnected { reason } => Some(reason),
                    _ => None,
                });
                let lost = lost.await;
                assert!(lost.contains(reason), "{lost}");
                // What was accepted stays, and is what the next stream begins with.
                assert_eq!(peer.client().status(CLUSTER).version, "1");
                let find = |log: &[xds_client::server::Received]| {
                    log.iter().find(|received| Some(received.stream) > stream).cloned()
                };
                let next = control_plane.wait_for(find).await;
                match &next.request {
                    Request::Sotw(request) => assert_eq!(request.version_info, "1"),
                    Request::Delta(request) => {
                        assert_eq!(request.initial_resource_versions.len(), 1)
                    }
                }
            }
            // And it still works, with a message far beyond gRPC's usual 4 MB.
            // Fields of eighteen bytes, which must come out whole.
            const BIG: usize = 9_000_000;
            let big = Resource::new("big", "", vec![0x12; BIG]);
            control_plane.put(CLUSTER, big);
            let update = peer.update().await;
            let body = update.resources.iter().filter_map(|resource| resource.body.as_ref()).map(Bytes::len).max();
            assert_eq!(body, Some(BIG));
        });
    }
}

#[test]
fn streams_of_their_own_share_a_connection() {
    for mode in MODES {
        local(async {
            let control_plane = ControlPlane::new("test");
            control_plane.edit(|snapshot| {
                snapshot.set(ENDPOINTS, vec![resource("x", 1), resource("y", 1)]);
                snapshot.set(ROUTE, vec![resource("r", 1)]);
            });
            let mut peer = Peer::start(&control_plane).await;
            let mut source = GrpcSource { aggregated: false, ..ads(mode) };
            source.service.initial_metadata = vec![("x-token".into(), "t".into())];
            let source = SourceConfig::Grpc(source);
            let mut subscriptions = Vec::new();
            for (type_url, name) in [(ENDPOINTS, "x"), (ENDPOINTS, "y"), (ROUTE, "r")] {
                let subscription = peer.hub.subscribe(&source, Interest::name(type_url, name)).expect("served");
                let (client, update) = peer.update_of().await;
                assert!(client.same_source(subscription.client()));
                assert_eq!(names(&update), [name]);
                client.accept(update.ticket);
                subscriptions.push(subscription);
            }
            assert_eq!(control_plane.open_streams(), 3);
            assert_eq!(*peer.connections.borrow(), 1);
            let request = control_plane.requests().remove(0);
            let header = |name| request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            assert_eq!(header("x-token"), Some("t"));
            assert_eq!(header("x-envoy-internal"), Some("true"));
            assert_eq!(header("x-forwarded-for"), Some("127.0.0.1"));
            let node = match &request.request {
                Request::Sotw(request) => &request.node,
                Request::Delta(request) => &request.node,
            };
            assert_eq!(node.as_ref().map(|node| node.id.as_str()), Some("me"));

            drop(subscriptions);
            while control_plane.open_streams() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

#[test]
fn sources_that_cannot_work_are_refused_at_once() {
    local(async {
        let peer = Peer::start(&ControlPlane::new("test")).await;
        let sotw = SourceConfig::Grpc(GrpcSource { aggregated: false, ..ads(Mode::StateOfTheWorld) });
        let refused = |source: &SourceConfig, type_url| peer.hub.subscribe(source, Interest::wildcard(type_url)).err();
        assert_eq!(refused(&SourceConfig::Ads, CLUSTER), Some(SubscribeError::NoAds));
        assert!(matches!(refused(&sotw, xds_client::VIRTUAL_HOST), Some(SubscribeError::NotServed { .. })));
        let rest = SourceConfig::Rest(RestSource::new(cluster(), Duration::from_secs(1)));
        assert!(matches!(refused(&rest, "type.googleapis.com/none"), Some(SubscribeError::NotServed { .. })));
    });
}

#[test]
fn a_control_plane_that_comes_late() {
    local(async {
        let control_plane = ControlPlane::new("test");
        control_plane.set(LISTENER, vec![resource("l", 1)]);
        control_plane.refuse(true);
        let mut peer = Peer::start(&control_plane).await;
        peer.hub.set_ads(ads(Mode::Delta), Rc::new(Unobserved));
        let interest = Interest::wildcard(LISTENER).initial_fetch_timeout(Some(Duration::from_millis(20)));
        let subscription = peer.subscribe(interest);
        let timed_out = peer
            .event(|event| match event {
                Event::InitialFetchTimeout { subscription, .. } => Some(subscription),
                _ => None,
            })
            .await;
        assert_eq!(timed_out, subscription.id());
        control_plane.refuse(false);
        let update = peer.update().await;
        assert_eq!(names(&update), ["l"]);
        peer.accept(update);
    });
}

#[test]
fn unix_sockets() {
    local(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("xds.sock");
        let control_plane = ControlPlane::new("test");
        control_plane.set(CLUSTER, vec![resource("x", 1)]);
        let listener = UnixListener::bind(&path).expect("bound");
        tokio::spawn(control_plane.clone().serve_unix(listener));
        let mut peer = Peer::start(&control_plane).await;
        let address: Address = format!("unix://{}", path.display()).parse().expect("a target");
        let source = GrpcSource::new(Mode::StateOfTheWorld, true, Target::Address(address));
        peer.hub.set_ads(source, Rc::new(Unobserved));
        let _clusters = peer.subscribe(Interest::wildcard(CLUSTER));
        let update = peer.update().await;
        assert_eq!(names(&update), ["x"]);
        peer.accept(update);
        let request = control_plane.wait_for(|log| log.first().cloned()).await;
        assert!(!request.headers.iter().any(|(name, _)| name == "x-envoy-internal"), "not with google_grpc");
    });
}

#[test]
fn heartbeats_keep_a_resource_alive() {
    for mode in MODES {
        local(async {
            let control_plane = ControlPlane::new("test");
            let ttl = Some(Duration::from_millis(300));
            control_plane.set(CLUSTER, vec![Resource { ttl, ..resource("x", 1) }]);
            let mut peer = Peer::start(&control_plane).await;
            peer.hub.set_ads(ads(mode), Rc::new(Unobserved));
            let _clusters = peer.subscribe(Interest::wildcard(CLUSTER));
            let update = peer.update().await;
            peer.accept(update);
            let accepted = tokio::time::Instant::now();
            for beat in 0..4 {
                tokio::time::sleep(Duration::from_millis(120)).await;
                control_plane.heartbeat(CLUSTER, "x");
                control_plane.wait_for(|log| (log.len() >= 3 + beat).then_some(())).await;
            }
            let expired = peer.event(|event| match event {
                Event::Expired { names, .. } => Some(names),
                Event::Update(_) | Event::Rejected { .. } => panic!("a heartbeat is no update"),
                _ => None,
            });
            assert_eq!(expired.await, ["x"]);
            assert!(accepted.elapsed() > Duration::from_millis(4 * 120 + 290), "{:?}", accepted.elapsed());
        });
    }
}

#[test]
fn files_are_read_again_when_replaced() {
    local(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cds.pb");
        std::fs::write(&path, file(&["x"])).expect("written");
        let mut peer = Peer::start(&ControlPlane::new("unused")).await;
        let source = SourceConfig::File(FileSource::new(&path));
        let subscription = peer.hub.subscribe(&source, Interest::wildcard(CLUSTER)).expect("accepted");
        let (client, update) = peer.update_of().await;
        assert_eq!((names(&update), update.full_state), (vec!["x"], true));
        client.accept(update.ticket);

        let replace = |content: &[u8]| {
            let draft = directory.path().join("draft");
            std::fs::write(&draft, content).expect("written");
            std::fs::rename(&draft, &path).expect("moved");
        };
        replace(&file(&["y"]));
        let (_, update) = peer.update_of().await;
        assert_eq!(names(&update), ["y"]);
        client.reject(update.ticket, &Rejection::resource("y", "odd"));
        let status = client.status(CLUSTER);
        assert_eq!(status.last_rejection.as_deref(), Some("Error adding/updating cluster(s) y: odd"));

        replace(b"\xff");
        let detail = peer.rejected().await;
        assert!(detail.contains("failed to decode"), "{detail}");
        assert_eq!(client.status(CLUSTER).version, "v", "the last good one stays");
        drop(subscription);
    });
}

#[test]
fn a_swapped_link_beside_the_file_is_noticed() {
    local(async {
        // As Kubernetes mounts a ConfigMap: cds.pb -> ..data/cds.pb, ..data -> a directory, replaced by rename.
        let volume = tempfile::tempdir().expect("a directory");
        let version = |number: u8, names: &[&str]| {
            let real = volume.path().join(format!("..{number}"));
            std::fs::create_dir(&real).expect("made");
            std::fs::write(real.join("cds.pb"), file(names)).expect("written");
            let link = volume.path().join("..data_tmp");
            std::os::unix::fs::symlink(&real, &link).expect("linked");
            std::fs::rename(&link, volume.path().join("..data")).expect("moved");
        };
        version(1, &["x"]);
        let path = volume.path().join("cds.pb");
        std::os::unix::fs::symlink("..data/cds.pb", &path).expect("linked");
        let source = FileSource { watched_directory: Some(volume.path().to_owned()), ..FileSource::new(&path) };
        let mut peer = Peer::start(&ControlPlane::new("unused")).await;
        let interest = Interest::wildcard(CLUSTER);
        let _subscription = peer.hub.subscribe(&SourceConfig::File(source), interest).expect("accepted");
        let (client, update) = peer.update_of().await;
        client.accept(update.ticket);
        version(2, &["y"]);
        let (_, update) = peer.update_of().await;
        assert_eq!(names(&update), ["y"]);
        client.accept(update.ticket);
    });
}

#[test]
fn a_missing_file_is_a_rejection_until_it_appears() {
    local(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("eds.pb");
        let mut peer = Peer::start(&ControlPlane::new("unused")).await;
        let source = SourceConfig::File(FileSource::new(&path));
        let _subscription = peer.hub.subscribe(&source, Interest::wildcard(CLUSTER)).expect("accepted");
        let detail = peer.rejected().await;
        assert!(detail.contains("cannot read"), "{detail}");
        std::fs::write(directory.path().join("draft"), file(&["x"])).expect("written");
        std::fs::rename(directory.path().join("draft"), &path).expect("moved");
        let (client, update) = peer.update_of().await;
        assert_eq!(names(&update), ["x"]);
        client.accept(update.ticket);
    });
}

#[test]
fn rest_is_polled() {
    local(async {
        let control_plane = ControlPlane::new("test");
        control_plane.serve_rest(Arc::new(Binary));
        control_plane.set(CLUSTER, vec![resource("x", 1)]);
        let mut peer = Peer::start(&control_plane).await;
        let rest = RestSource { jitter: Duration::ZERO, ..RestSource::new(cluster(), Duration::from_millis(5)) };
        let rest = RestSource { request_timeout: Duration::from_secs(20), ..rest };
        let interest = Interest::wildcard(CLUSTER);
        let _subscription = peer.hub.subscribe(&SourceConfig::Rest(rest), interest).expect("served");
        let (client, update) = peer.update_of().await;
        assert_eq!((names(&update), update.full_state), (vec!["x"], true));
        client.accept(update.ticket);
        // The next questions carry the version, and get 304: no update.
        let asked = control_plane
            .wait_for(|log| {
                log.iter().find_map(|received| match &received.request {
                    Request::Sotw(request) if request.version_info == "1" => Some(received.clone()),
                    _ => None,
                })
            })
            .await;
        assert_eq!(asked.method, "/v3/discovery:clusters");
        assert_eq!((asked.nonce(), asked.nack()), ("", None));
        for header in ["content-type", "x-envoy-internal", "x-forwarded-for", "x-envoy-expected-rq-timeout-ms"] {
            assert!(asked.headers.iter().any(|(name, _)| name == header), "{header}");
        }
        assert_eq!(*peer.connections.borrow(), 1, "the connection is kept");

        control_plane.refuse(true);
        let reason = peer.event(|event| match event {
            Event::Disconnected { reason } => Some(reason),
            Event::Update(_) => panic!("nothing has changed"),
            _ => None,
        });
        assert!(reason.await.contains("503"));
        control_plane.set(CLUSTER, vec![resource("y", 1)]);
        control_plane.refuse(false);
        let (_, update) = peer.update_of().await;
        assert_eq!(names(&update), ["y"]);
        client.reject(update.ticket, &Rejection::whole("odd"));
    });
}

/// A hub, the control plane's address known to it as the cluster `xds`, and the events it raises.
struct Peer {
    hub: Hub,
    events: mpsc::UnboundedReceiver<(Client, Event)>,
    connections: Rc<RefCell<usize>>,
}

impl Peer {
    async fn start(control_plane: &ControlPlane) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(control_plane.clone().serve_tcp(listener));
        let connections = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&connections);
        let network = PlainNetwork::new(move |name| {
            *counted.borrow_mut() += 1;
            (name == "xds").then(|| vec![Address::Tcp { host: "127.0.0.1".to_owned(), port }])
        });
        let (sender, events) = mpsc::unbounded_channel();
        let consumer = move |client: &Client, event| drop(sender.send((client.clone(), event)));
        let environment = Environment {
            node: Node { id: "me".into(), ..Default::default() },
            network: Rc::new(network),
            file_decoder: Rc::new(|_: &Path, content: &[u8]| {
                DiscoveryResponse::decode(content).map_err(|error| error.to_string())
            }),
            rest_codec: Rc::new(Binary),
            consumer: Rc::new(consumer),
            seed: 1,
        };
        Self { hub: Hub::new(environment), events, connections }
    }

    fn client(&self) -> Client {
        self.hub.ads().expect("ADS is set")
    }

    fn subscribe(&self, interest: Interest) -> xds_client::Subscription {
        self.hub.subscribe(&SourceConfig::Ads, interest).expect("ADS is set")
    }

    fn accept(&self, update: Update) {
        self.client().accept(update.ticket);
    }

    async fn update(&mut self) -> Update {
        self.update_of().await.1
    }

    async fn update_of(&mut self) -> (Client, Update) {
        loop {
            if let (client, Event::Update(update)) = self.next().await {
                return (client, update);
            }
        }
    }

    async fn rejected(&mut self) -> String {
        self.event(|event| match event {
            Event::Rejected { detail, .. } => Some(detail),
            _ => None,
        })
        .await
    }

    async fn event<T>(&mut self, mut find: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(self.next().await.1) {
                return found;
            }
        }
    }

    async fn next(&mut self) -> (Client, Event) {
        self.events.recv().await.expect("the hub lives")
    }
}

#[derive(Default)]
struct Watching {
    connected: RefCell<Vec<bool>>,
    identifier: RefCell<String>,
}

impl SourceObserver for Watching {
    fn connected(&self, connected: bool) {
        self.connected.borrow_mut().push(connected);
    }

    fn identifier(&self, identifier: &str) {
        identifier.clone_into(&mut self.identifier.borrow_mut());
    }
}

/// The JSON codec belongs to whoever embeds the client; here bodies are binary.
struct Binary;

impl RestCodec for Binary {
    fn encode(&self, request: &DiscoveryRequest) -> Result<Bytes, String> {
        Ok(request.encode_to_vec().into())
    }

    fn decode(&self, body: &[u8]) -> Result<DiscoveryResponse, String> {
        DiscoveryResponse::decode(body).map_err(|error| error.to_string())
    }
}

impl RestServerCodec for Binary {
    fn decode_request(&self, body: &[u8]) -> Result<DiscoveryRequest, String> {
        DiscoveryRequest::decode(body).map_err(|error| error.to_string())
    }

    fn encode_response(&self, response: &DiscoveryResponse) -> Result<Bytes, String> {
        Ok(response.encode_to_vec().into())
    }
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bounded = async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs");
    };
    LocalSet::new().block_on(&runtime, bounded);
}

fn cluster() -> Target {
    Target::Cluster("xds".into())
}

fn ads(mode: Mode) -> GrpcSource {
    let backoff = BackoffConfig { base: Duration::from_millis(2), max: Duration::from_millis(10) };
    GrpcSource { backoff, ..GrpcSource::new(mode, true, cluster()) }
}

/// Any message with the name in field 1.
fn resource(name: &str, content: u8) -> Resource {
    let length = u8::try_from(name.len()).expect("short");
    Resource::new(name, "", [&[0x0a, length], name.as_bytes(), &[0x10, content]].concat())
}

fn names(update: &Update) -> Vec<&str> {
    update.resources.iter().map(|resource| resource.name.as_str()).collect()
}

fn file(names: &[&str]) -> Vec<u8> {
    let any =
        |name: &&str| Any { type_url: CLUSTER.to_owned(), value: resource(name, 1).body.unwrap_or_default().to_vec() };
    let resources = names.iter().map(any).collect();
    DiscoveryResponse { version_info: "v".into(), resources, ..Default::default() }.encode_to_vec()
}

//! Draining and ending.

use std::time::{Duration, Instant};

use crate::support::bootstrap::{TO_UP, bootstrap, cluster, http_listener};
use crate::support::client::{Client, End, get};
use crate::support::eventually;
use crate::support::frames;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Upstream, ok};

fn start(upstream: &Upstream, arguments: &[&str]) -> Proxy {
    let text = bootstrap(
        &[http_listener("in", "drain_timeout: 0.1s", TO_UP, "")],
        &[cluster("up", &[upstream.port()], "")],
        "",
    );
    Proxy::start_with(Kind::under_test(), &text, arguments)
}

fn slow() -> Upstream {
    Upstream::start(vec![vec![
        Act::Request,
        Act::Pause(Duration::from_millis(300)),
        Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow".to_vec()),
    ]])
}

/// Begins a request and waits until the upstream has it.
fn begin(proxy: &Proxy, upstream: &Upstream) -> Client {
    let mut client = Client::connect(proxy.listener("in"));
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request reached the upstream", || (upstream.connections() > 0).then_some(()));
    client
}

#[test]
fn the_admin_page_drains() {
    let upstream = slow();
    let proxy = start(&upstream, &["--drain-time-s", "1", "--drain-strategy", "immediate"]);
    let address = proxy.listener("in");
    let mut client = begin(&proxy, &upstream);
    assert_eq!(proxy.post("/drain_listeners?graceful").status, 200);
    assert!(client.read_responses(1));
    assert_eq!(
        client.responses().first().and_then(|reply| reply.header("connection").map(str::to_owned)),
        Some("close".to_owned())
    );
    assert_eq!(client.read_to_end(), End::Closed);
    eventually("listeners close", || Client::try_connect(address).is_err().then_some(()));
}

#[test]
fn failing_the_health_check_drains_connections() {
    let upstream = Upstream::start(ok());
    let proxy = start(&upstream, &[]);
    let mut client = Client::connect(proxy.listener("in"));
    client.send(&[frames::preface(), frames::request(1, &frames::get("/", &[]))].concat());
    let ended = |client: &Client, stream: u32| {
        frames::received(&client.received).iter().any(|frame| {
            frame.stream == stream && frame.kind <= frames::HEADERS && frame.flags & frames::END_STREAM != 0
        })
    };
    assert!(client.read_until(Duration::from_secs(5), |client| ended(client, 1)));
    assert_eq!(proxy.post("/healthcheck/fail").status, 200);
    assert_eq!(proxy.get("/ready").status, 503);
    client.send(&frames::request(3, &frames::get("/", &[])));
    assert!(
        client.read_until(Duration::from_secs(5), |client| ended(client, 3)),
        "a request during the drain is answered"
    );
    client.read_until(Duration::from_secs(5), |client| {
        frames::received(&client.received).iter().any(|frame| frame.kind == frames::GOAWAY)
    });
    assert!(frames::summary(&client.received).contains("GOAWAY"), "{}", frames::summary(&client.received));
    assert_eq!(
        get(proxy.listener("in"), "/").and_then(|reply| reply.header("connection").map(str::to_owned)),
        Some("close".to_owned())
    );
    assert_eq!(proxy.post("/healthcheck/ok").status, 200);
    assert_eq!(get(proxy.listener("in"), "/").and_then(|reply| reply.header("connection").map(str::to_owned)), None);
}

#[test]
fn sigterm_ends_at_once() {
    let upstream = slow();
    let mut proxy = start(&upstream, &[]);
    let _client = begin(&proxy, &upstream);
    let began = Instant::now();
    proxy.signal("TERM");
    let status = proxy.wait_exit(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn sigterm_drains_if_asked_to() {
    if Kind::under_test() == Kind::Envoy {
        return;
    }
    let upstream = slow();
    let mut proxy = start(&upstream, &["--drain-on-sigterm=5", "--drain-strategy", "immediate"]);
    let address = proxy.listener("in");
    let mut client = begin(&proxy, &upstream);
    proxy.signal("TERM");
    assert!(client.read_responses(1), "the request that had begun was lost");
    assert_eq!(client.responses().first().map(|reply| reply.status()), Some(200));
    assert_eq!(client.read_to_end(), End::Closed);
    let status = proxy.wait_exit(Duration::from_secs(8)).expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(Client::try_connect(address).is_err());
}

#[test]
fn quitquitquit_ends() {
    let mut proxy = start(&Upstream::start(ok()), &[]);
    assert_eq!(proxy.post("/quitquitquit").status, 200);
    assert_eq!(proxy.wait_exit(Duration::from_secs(5)).and_then(|status| status.code()), Some(0));
}

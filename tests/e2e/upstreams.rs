//! Hostile upstreams: a 502 or 503, their connection dropped, the next client untouched.

use std::time::Duration;

use crate::support::bootstrap::{TO_UP, bootstrap, cluster, http_listener};
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Script, Upstream, ok};

const MIB: u64 = 1 << 20;

fn start(script: Script) -> (Proxy, Upstream) {
    let upstream = Upstream::start(script);
    let text = bootstrap(&[http_listener("in", "", TO_UP, "")], &[cluster("up", &[upstream.port()], "")], "");
    (Proxy::start(Kind::under_test(), &text), upstream)
}

fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn bytes_on_an_idle_connection() {
    let (proxy, upstream) = start(ok());
    let address = proxy.listener("in");
    for round in 1..=5 {
        assert_eq!(get(address, "/").map(|reply| reply.text()), Some("ok".to_owned()));
        upstream.blurt(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison");
        // The connection is thrown away, not kept for the next.
        proxy.wait_for_stat("cluster.up.upstream_cx_active", |active| active == 0);
        assert_eq!(upstream.connections(), round);
    }
}

#[test]
fn a_connection_closed_while_idle() {
    let (proxy, upstream) = start(ok());
    let address = proxy.listener("in");
    for _ in 0..5 {
        assert_eq!(get(address, "/").map(|reply| reply.status()), Some(200));
        upstream.hang_up();
        proxy.wait_for_stat("cluster.up.upstream_cx_active", |active| active == 0);
    }
}

#[test]
fn floods_of_interim_responses() {
    let (proxy, upstream) = start(vec![
        vec![Act::Request, Act::Flood(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", 16 << 20), send(OK)],
        vec![Act::Request, send(OK)],
    ]);
    let before = proxy.resident();
    let mut client = Client::connect(proxy.listener("in"));
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.read_until(Duration::from_secs(8), |client| {
        client.received.windows(12).rev().take(200).any(|window| window == b"HTTP/1.1 200")
    });
    assert!(proxy.resident().saturating_sub(before) < 32 * MIB, "memory grew");
    drop(client);
    assert_eq!(get(proxy.listener("in"), "/").map(|reply| reply.status()), Some(200));
    drop(upstream);
}

#[test]
fn endless_heads() {
    let (proxy, _upstream) = start(vec![
        vec![
            Act::Request,
            send("HTTP/1.1 200 OK\r\n"),
            Act::Flood(b"x-a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n", 64 << 20),
            Act::Close,
        ],
        vec![Act::Request, send(OK)],
    ]);
    let before = proxy.resident();
    let reply = get(proxy.listener("in"), "/").expect("a reply");
    assert!(matches!(reply.status(), 502 | 503), "{}", reply.head);
    assert!(proxy.resident().saturating_sub(before) < 16 * MIB, "memory grew");
    assert_eq!(get(proxy.listener("in"), "/").map(|reply| reply.status()), Some(200));
}

#[test]
fn a_slow_reader_holds_the_upstream_back() {
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 268435456\r\n\r\n";
    let (proxy, _upstream) = start(vec![vec![Act::Request, send(body), Act::Flood(&[b'x'; 65_536], 256 << 20)]]);
    let before = proxy.resident();
    let mut client = Client::connect(proxy.listener("in"));
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // Nothing is read: once the buffers are full, what the upstream has sent stays where it is.
    let mut last = -1;
    eventually("it stops reading", || {
        let now = proxy.stat("cluster.up.upstream_cx_rx_bytes_total");
        let still = now == last && now > 0;
        last = now;
        std::thread::sleep(Duration::from_millis(50));
        still.then_some(())
    });
    assert!(proxy.resident().saturating_sub(before) < 16 * MIB, "memory grew");
    assert!(last < 64 << 20, "it read {last} bytes for a client that reads none");
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_back() {
    let (proxy, _upstream) = start(vec![vec![Act::Head, Act::Pause(Duration::from_secs(60))]]);
    let before = proxy.resident();
    let mut client = Client::connect(proxy.listener("in"));
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1073741824\r\n\r\n");
    let piece = vec![b'x'; 65_536];
    let mut sent = 0;
    while sent < 256 << 20 && client.try_send(&piece, Duration::from_millis(300)) {
        sent += piece.len();
    }
    assert!(sent < 64 << 20, "it took {sent} bytes for an upstream that takes none");
    assert!(proxy.resident().saturating_sub(before) < 16 * MIB, "memory grew");
}

#[test]
fn every_lie_is_contained() {
    for (lie, statuses) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", vec![502]),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", vec![502, 200]),
        ("garbage", vec![502, 503]),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", vec![0, 502, 503]),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", vec![200]),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 6\r\n\r\npoison", vec![204, 502]),
    ] {
        let (proxy, upstream) = start(vec![
            vec![Act::Request, send(lie), Act::Pause(Duration::from_millis(20)), Act::Close],
            vec![Act::Request, send(OK)],
        ]);
        // Envoy passes a 101 on that nobody asked for: then no final response comes.
        let status = get(proxy.listener("in"), "/").map_or(0, |reply| reply.status());
        assert!(statuses.contains(&status), "{lie:?}: {status}");
        proxy.wait_for_stat("cluster.up.upstream_cx_active", |active| active == 0);
        for _ in 0..3 {
            assert_eq!(get(proxy.listener("in"), "/").map(|reply| reply.text()), Some("ok".to_owned()), "{lie:?}");
        }
        drop(upstream);
    }
}

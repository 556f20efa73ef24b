//! Layer 4: hosts that refuse, and clients that do not read.

use std::time::Duration;

use crate::support::bootstrap::{bootstrap, cluster, listener_of, tcp_filter};
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, DeadPort, Upstream, ok};

const MIB: u64 = 1 << 20;

fn start(ports: &[u16], proxy: &str, listener: &str) -> Proxy {
    let chains = format!("filter_chains: [{{filters: [{}]}}]", tcp_filter("in", &format!("cluster: up, {proxy}")));
    let text = bootstrap(&[listener_of("in", &chains, listener)], &[cluster("up", ports, "")], "");
    Proxy::start(Kind::under_test(), &text)
}

#[test]
fn another_attempt_finds_another_host() {
    let (upstream, dead) = (Upstream::start(ok()), DeadPort::new());
    let proxy = start(&[dead.port(), upstream.port()], "max_connect_attempts: 2", "");
    for _ in 0..6 {
        assert_eq!(get(proxy.listener("in"), "/").map(|reply| reply.status()), Some(200));
    }
    // Hosts take turns: which was first is chance, but a connection that met the dead one went on to the other.
    let failed = proxy.wait_for_stat("cluster.up.upstream_cx_connect_fail", |failed| failed >= 5);
    assert!(failed <= 6, "{failed}");
    assert_eq!(upstream.connections(), 6);
    assert_eq!(proxy.stat("cluster.up.upstream_cx_connect_attempts_exceeded"), 0);
}

#[test]
fn a_client_that_does_not_read_stops_its_upstream() {
    const SENT: usize = 64 << 20;
    let upstream = Upstream::start(vec![vec![Act::Until(b"go"), Act::Flood(&[b'x'; 1024], SENT), Act::Close]]);
    let proxy = start(&[upstream.port()], "", "per_connection_buffer_limit_bytes: 65536");
    let before = proxy.resident();
    let mut client = Client::connect(proxy.listener("in"));
    client.send(b"go");
    proxy.wait_for_stat("cluster.up.upstream_flow_control_paused_reading_total", |paused| paused > 0);
    let mut moved = 0;
    eventually("nothing moves any more", || {
        std::thread::sleep(Duration::from_millis(50));
        let last = std::mem::replace(&mut moved, proxy.stat("tcp.in.downstream_cx_tx_bytes_total"));
        (moved > 0 && last == moved).then_some(())
    });
    assert!(moved < i64::try_from(SENT / 2).unwrap_or_default(), "{moved} bytes went to a client that reads none");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes for one connection");
    client.read_to_end();
    assert_eq!(client.received.len(), SENT);
    assert!(client.received.iter().all(|byte| *byte == b'x'));
    proxy.wait_for_stat("cluster.up.upstream_flow_control_resumed_reading_total", |resumed| resumed > 0);
}

//! Hostile clients: a status or a close, bounded memory, no spinning, and the next client is served.

use std::time::Duration;

use crate::support::bootstrap::{TO_UP, bootstrap, cluster, http_listener};
use crate::support::client::{Client, End, get};
use crate::support::eventually;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields,
    frame, get as block, preface, request,
};
use crate::support::proxy::{Kind, Proxy};
use crate::support::upstream::{Act, Script, Upstream, ok, reply};

const MIB: u64 = 1 << 20;

struct Target {
    proxy: Proxy,
    _upstream: Upstream,
    before: u64,
}

impl Target {
    fn start(manager: &str, upstream: Upstream) -> Self {
        let listeners = [http_listener("in", manager, TO_UP, "")];
        let proxy =
            Proxy::start(Kind::under_test(), &bootstrap(&listeners, &[cluster("up", &[upstream.port()], "")], ""));
        assert_eq!(get(proxy.listener("in"), "/warm").map(|reply| reply.status()), Some(200));
        let before = proxy.resident();
        Self { proxy, _upstream: upstream, before }
    }

    fn connect(&self) -> Client {
        Client::connect(self.proxy.listener("in"))
    }

    /// A client of HTTP/2 that has sent the preface.
    fn connect_h2(&self) -> Client {
        let mut client = self.connect();
        client.send(&preface());
        client
    }

    /// The proxy is well: it took no more memory than that, and serves the next client.
    #[track_caller]
    fn check(mut self, growth: u64) {
        assert!(self.proxy.is_running(), "{}", self.proxy.log());
        let grown = self.proxy.resident().saturating_sub(self.before);
        assert!(grown < growth, "memory grew by {} MiB", grown / MIB);
        assert_eq!(
            get(self.proxy.listener("in"), "/next").map(|reply| reply.status()),
            Some(200),
            "{}",
            self.proxy.log()
        );
        assert!(!self.proxy.log().contains("panicked"), "{}", self.proxy.log());
    }
}

/// An upstream that answers the first request and reads the second for ever.
fn stalled() -> Script {
    let last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    vec![vec![Act::Request, Act::Send(last), Act::Close], vec![Act::Hold]]
}

/// Sends `bytes` again and again until the proxy closes; panics if it never does.
#[track_caller]
fn flood(client: &mut Client, bytes: &[u8], limit: usize) {
    let mut sent = 0;
    while sent < limit {
        if !client.try_send(bytes, Duration::from_secs(2)) {
            return;
        }
        sent += bytes.len();
        // What comes back is read, or the flood would only fill the socket's buffer.
        if !client.received.is_empty() {
            client.received.clear();
        }
        client.read_until(Duration::from_micros(200), |_| false);
        if client.end != End::Open {
            return;
        }
    }
    panic!("{limit} bytes of flood were taken");
}

fn again(frame: &[u8], times: usize) -> Vec<u8> {
    frame.repeat(times)
}

#[test]
fn endless_head() {
    let target = Target::start("", Upstream::start(ok()));
    let mut client = target.connect();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n");
    flood(&mut client, &again(b"x-a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n", 100), 4 << 20);
    target.check(16 * MIB);
}

#[test]
fn endless_request_line() {
    let target = Target::start("", Upstream::start(ok()));
    let mut client = target.connect();
    client.send(b"GET /");
    flood(&mut client, &[b'a'; 4096], 4 << 20);
    target.check(16 * MIB);
}

#[test]
fn endless_chunk_extension() {
    let target = Target::start("", Upstream::start(stalled()));
    let mut client = target.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;");
    // Not every proxy limits them, but none may keep them.
    let mut sent = 0;
    while sent < 32 << 20 && client.try_send(&[b'e'; 65_536], Duration::from_secs(2)) {
        sent += 65_536;
    }
    drop(client);
    let grown = target.proxy.resident().saturating_sub(target.before);
    assert!(grown < 16 * MIB, "memory grew by {} MiB", grown / MIB);
}

#[test]
fn endless_trailers() {
    let target = Target::start("http_protocol_options: {enable_trailers: true}", Upstream::start(stalled()));
    let mut client = target.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n");
    flood(&mut client, &again(b"x-a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n", 100), 4 << 20);
}

#[test]
fn slow_heads_are_cut() {
    let target = Target::start("request_headers_timeout: 0.15s", Upstream::start(ok()));
    let mut clients: Vec<Client> = (0..50).map(|_| target.connect()).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nx-");
    }
    for client in &mut clients {
        assert!(client.read_responses(1));
        assert_eq!(client.responses()[0].status(), 408);
    }
    target.check(16 * MIB);
}

#[test]
fn pipelining_is_bounded() {
    let target = Target::start("", Upstream::start(ok()));
    let mut client = target.connect();
    // Replies are never read: the proxy has to stop reading.
    let batch = again(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1000);
    let mut taken = 0;
    while taken < 64 << 20 && client.try_send(&batch, Duration::from_millis(300)) {
        taken += batch.len();
    }
    assert!(taken < 64 << 20, "the proxy never stopped reading");
    target.check(48 * MIB);
}

#[test]
fn rapid_reset() {
    let target = Target::start("", Upstream::start(ok()));
    let mut client = target.connect_h2();
    let mut stream = 1;
    for _ in 0..400 {
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(request(stream, &block("/", &[])));
            bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            stream += 2;
        }
        if !client.try_send(&bytes, Duration::from_secs(2)) || client.end != End::Open {
            break;
        }
        client.read_until(Duration::from_micros(200), |_| false);
    }
    client.read_until(Duration::from_secs(3), |_| false);
    assert_ne!(client.end, End::Open, "twenty thousand resets were taken");
    target.check(48 * MIB);
}

#[test]
fn control_frame_floods() {
    let floods: [(&str, Vec<u8>); 4] = [
        ("empty data", frame(DATA, 0, 1, b"")),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("window update", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("empty headers", Vec::new()),
    ];
    for (name, flooding) in floods {
        let target = Target::start(
            "",
            Upstream::start(vec![vec![
                Act::Head,
                Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
            ]]),
        );
        let mut client = target.connect_h2();
        let post = fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
        if flooding.is_empty() {
            // A header block that never ends.
            client.send(&frame(HEADERS, END_STREAM, 1, &post));
            flood(&mut client, &again(&frame(CONTINUATION, 0, 1, b""), 500), 4 << 20);
        } else {
            client.send(&frame(HEADERS, END_HEADERS, 1, &post));
            if name == "priority" {
                // The limit is per stream, and h2 has nothing to keep of them: being told or ignored are both fine.
                client.try_send(&again(&flooding, 10_000), Duration::from_secs(3));
            } else if name == "window update" {
                client.try_send(&again(&flooding, 10_000), Duration::from_secs(3));
            } else {
                flood(&mut client, &again(&flooding, 500), 2 << 20);
            }
        }
        drop(client);
        target.check(32 * MIB);
    }
}

#[test]
fn acknowledgements_nobody_reads() {
    for (name, frame) in [("ping", frame(PING, 0, 0, &[1; 8])), ("settings", frame(SETTINGS, 0, 0, &[]))] {
        let target = Target::start("", Upstream::start(ok()));
        let mut client = target.connect_h2();
        let batch = again(&frame, 2000);
        let mut sent = 0;
        // Answers pile up unread: the proxy must stop reading or hang up before it drowns in them.
        while sent < 256 << 20 && client.try_send(&batch, Duration::from_millis(300)) {
            sent += batch.len();
        }
        assert!(sent < 256 << 20, "{name}: all was taken");
        target.check(48 * MIB);
    }
}

#[test]
fn continuation_bomb() {
    let target = Target::start("", Upstream::start(ok()));
    let mut client = target.connect_h2();
    client.send(&frame(HEADERS, END_STREAM, 1, &block("/", &[])));
    flood(&mut client, &frame(CONTINUATION, 0, 1, &again(&fields(&[("x-a", &"b".repeat(90))]), 150)), 16 << 20);
    target.check(32 * MIB);
}

#[test]
fn hpack_and_cookie_bombs() {
    // One long field enters the table; then a byte each repeats it.
    let long = "c".repeat(3900);
    for name in ["x-big", "cookie"] {
        let target = Target::start("", Upstream::start(ok()));
        let mut client = target.connect_h2();
        for stream in (1..2000).step_by(2) {
            let mut head = block("/", &[]);
            if stream == 1 {
                // A literal with incremental indexing.
                let mut entry = fields(&[(name, &long)]);
                if let Some(first) = entry.first_mut() {
                    *first = 0x40;
                }
                head.extend(entry);
            }
            head.extend(vec![0xbe; 15_000]);
            let bytes = request(stream, &head);
            if bytes.len() > 16_384 + 9 || !client.try_send(&bytes, Duration::from_secs(2)) {
                break;
            }
            client.read_until(Duration::from_micros(200), |_| false);
            if client.end != End::Open {
                break;
            }
        }
        drop(client);
        target.check(48 * MIB);
    }
}

#[test]
fn zero_windows() {
    let body = "z".repeat(2 << 20);
    let target = Target::start(
        "stream_idle_timeout: 0.5s",
        Upstream::start(reply(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))),
    );
    let before = target.proxy.resident();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = target.connect();
        client.send(&preface()[..24]);
        // INITIAL_WINDOW_SIZE 0.
        client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        for stream in (1..20).step_by(2) {
            client.send(&request(stream, &block("/", &[])));
        }
        clients.push(client);
    }
    target.proxy.wait_for_stat("http.in.downstream_rq_http2_total", |total| total >= 80);
    // Eighty bodies of 2 MiB are waiting; most of them have to wait upstream.
    let grown = target.proxy.resident().saturating_sub(before);
    assert!(grown < 140 * MIB, "memory grew by {} MiB", grown / MIB);
    target.proxy.wait_for_stat("http.in.downstream_rq_active", |active| active == 0);
    drop(clients);
    assert_eq!(get(target.proxy.listener("in"), "/next").map(|reply| reply.status()), Some(200));
}

#[test]
fn connections_beyond_the_descriptors() {
    let upstream = Upstream::start(ok());
    let text = bootstrap(&[http_listener("in", "", TO_UP, "")], &[cluster("up", &[upstream.port()], "")], "");
    let proxy = Proxy::start(Kind::under_test(), &text);
    let address = proxy.listener("in");
    assert_eq!(get(address, "/").map(|reply| reply.status()), Some(200));
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).map_or(100, Iterator::count);
    let limit = format!("--nofile={0}:{0}", open + 20);
    let status = std::process::Command::new("prlimit").args(["--pid", &proxy.pid().to_string(), &limit]).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit");
    let clients: Vec<Client> = (0..60).filter_map(|_| Client::try_connect(address).ok()).collect();
    let before = proxy.processor_time();
    // For a while nothing can be accepted. That must cost next to nothing.
    std::thread::sleep(Duration::from_millis(500));
    let spent = proxy.processor_time().saturating_sub(before);
    if Kind::under_test() == Kind::Legate {
        assert!(spent < Duration::from_millis(200), "it spun: {spent:?} in half a second");
    }
    drop(clients);
    eventually("it recovers", || get(address, "/").filter(|reply| reply.status() == 200));
}

#[test]
fn half_open_connections_cost_little() {
    let target = Target::start("", Upstream::start(ok()));
    let mut clients: Vec<Client> = (0..300).map(|_| target.connect()).collect();
    for client in &mut clients {
        client.half_close();
    }
    for client in &mut clients {
        assert_eq!(client.read_to_end(), End::Closed);
    }
    target.check(16 * MIB);
}

#[test]
fn heads_that_never_end_cost_what_was_sent() {
    const CLIENTS: u64 = 1000;
    let target = Target::start("", Upstream::start(ok()));
    let before = target.proxy.resident();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| target.connect()).collect();
    let line = format!("GET / HTTP/1.1\r\nhost: a\r\nx-a: {}", "b".repeat(2000));
    for client in &mut clients {
        client.send(line.as_bytes());
    }
    target.proxy.wait_for_stat("http.in.downstream_cx_rx_bytes_total", |bytes| bytes as u64 > CLIENTS * 2000);
    let each = target.proxy.resident().saturating_sub(before) / CLIENTS;
    // Connection, task and buffer; Envoy takes twenty kilobytes.
    let limit = if Kind::under_test() == Kind::Legate { 14 << 10 } else { 64 << 10 };
    assert!(each < limit, "{each} bytes each");
    drop(clients);
    target.check(32 * MIB);
}

/// Malformed requests cut at every byte: never a hang, never a crash.
#[test]
fn requests_cut_anywhere() {
    let target = Target::start("", Upstream::start(ok()));
    let whole = b"POST /path?q HTTP/1.1\r\nHost: a\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\n";
    for cut in 0..whole.len() {
        let mut client = target.connect();
        client.send(&whole[..cut]);
        client.half_close();
        assert_ne!(client.read_to_end(), End::Open, "cut at {cut}");
    }
    for flipped in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[flipped] = 0;
        let mut client = target.connect();
        client.send(&bytes);
        client.half_close();
        assert_ne!(client.read_to_end(), End::Open, "byte {flipped}");
    }
    target.check(16 * MIB);
}

//! Constant load: a few clients that ask without pause and note every request that failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::client::{Client, End};
use crate::support::eventually;
use crate::support::h2_client::{self, H2Reply, H2Request};

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// How long a client rests after a reply.
    pause: Duration,
    stop: AtomicBool,
    done: AtomicUsize,
    bodies: Mutex<BTreeMap<String, usize>>,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Two clients by HTTP/1 and one, with three streams at a time, by HTTP/2.
    pub fn start(address: SocketAddr) -> Self {
        let mut load = Self::paced(Duration::ZERO);
        load.http1(address);
        load.http1(address);
        load.http2(address, H2Request::get("http://load.test/"));
        load
    }

    /// No clients yet; those to come rest so long after each reply.
    pub fn paced(pause: Duration) -> Self {
        Self { shared: Arc::new(Shared { pause, ..Shared::default() }), threads: Vec::new() }
    }

    /// One more client, by HTTP/1.
    pub fn http1(&mut self, address: SocketAddr) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(std::thread::spawn(move || http1(&shared, address)));
    }

    /// One more client, by HTTP/2, that sends this request on three streams at a time. A gRPC call must end well.
    pub fn http2(&mut self, address: SocketAddr, request: H2Request) {
        let shared = Arc::clone(&self.shared);
        let work = move || crate::support::runtime().block_on(http2(&shared, address, &request));
        self.threads.push(std::thread::spawn(work));
    }

    /// How many requests were answered so far.
    pub fn done(&self) -> usize {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let goal = self.done() + more;
        eventually("load goes on", || (self.done() >= goal || self.failed()).then_some(()));
    }

    /// Waits until a reply with this body was seen.
    #[track_caller]
    pub fn wait_for_body(&self, body: &str) {
        eventually(body, || (lock(&self.shared.bodies).contains_key(body) || self.failed()).then_some(()));
    }

    /// Forgets which bodies were seen.
    pub fn forget_bodies(&self) {
        lock(&self.shared.bodies).clear();
    }

    /// The bodies seen, with their numbers.
    pub fn bodies(&self) -> BTreeMap<String, usize> {
        lock(&self.shared.bodies).clone()
    }

    /// Stops; panics if a request failed.
    #[track_caller]
    pub fn finish(mut self) -> BTreeMap<String, usize> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client");
        }
        let failures = lock(&self.shared.failures);
        assert!(
            failures.is_empty(),
            "{} of {} requests failed: {:#?}",
            failures.len(),
            self.done(),
            failures.get(..failures.len().min(5))
        );
        self.bodies()
    }

    fn failed(&self) -> bool {
        !lock(&self.shared.failures).is_empty()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn note(&self, status: u16, body: &[u8], context: &str) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let body = String::from_utf8_lossy(body).into_owned();
        if status == 200 {
            *lock(&self.bodies).entry(body).or_default() += 1;
        } else {
            lock(&self.failures).push(format!("{context}: {status} {body}"));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks on one connection until it is told to close, then on the next.
fn http1(shared: &Shared, address: SocketAddr) {
    while !shared.stopped() {
        let mut client = match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => {
                lock(&shared.failures).push(format!("HTTP/1: connect: {error}"));
                return;
            }
        };
        while !shared.stopped() {
            client.received.clear();
            client.send(b"GET / HTTP/1.1\r\nhost: load.test\r\n\r\n");
            client.read_responses(1);
            let Some(response) = client.responses().into_iter().next().filter(|response| response.complete) else {
                lock(&shared.failures).push(format!("HTTP/1: no reply, {:?}", client.end));
                return;
            };
            shared.note(response.status(), &response.body, "HTTP/1");
            std::thread::sleep(shared.pause);
            let told = response.header("connection").is_some_and(|value| value == "close");
            if told || client.end != End::Open {
                break;
            }
        }
    }
}

/// Asks three at a time; a connection that is told to go away is replaced.
async fn http2(shared: &Shared, address: SocketAddr, request: &H2Request) {
    while !shared.stopped() {
        let Ok(sender) = h2_client::connect(address).await else {
            lock(&shared.failures).push("HTTP/2: connect".to_owned());
            return;
        };
        let ask = || async {
            let mut sender = sender.clone();
            while !shared.stopped() {
                // Refused here, a stream was never sent: the connection drains.
                if futures_util::future::poll_fn(|context| sender.poll_ready(context)).await.is_err() {
                    return;
                }
                let reply = h2_client::send(&mut sender, request).await;
                // A connection that began to drain between the look and the request is a local matter, not a lost request.
                if reply.status == 0 && reply.error.as_deref().is_some_and(|error| error.starts_with("GOAWAY NO_ERROR"))
                {
                    return;
                }
                shared.note(outcome(&reply), &reply.body, &format!("{} {:?}", request.uri, reply.error));
                tokio::time::sleep(shared.pause).await;
            }
        };
        tokio::join!(ask(), ask(), ask());
    }
}

/// A reply's status; of a gRPC call that did not end well, 0.
fn outcome(reply: &H2Reply) -> u16 {
    let grpc = reply.header("content-type") == Some("application/grpc");
    if reply.error.is_some() || grpc && reply.trailer("grpc-status") != Some("0") { 0 } else { reply.status }
}

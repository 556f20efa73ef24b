//! An HTTP/1 upstream that follows a script to the byte, and remembers what it was sent.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{frames, message};

/// One thing to do on a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Read a request, head and body.
    Request,
    /// Read a request's head.
    Head,
    /// Read until these bytes have come.
    Until(&'static [u8]),
    /// Read HTTP/2 frames, and the preface before them, up to one of this type.
    Frame(u8),
    /// Send bytes.
    Send(Vec<u8>),
    /// Send the request that was read last, as it came, as the body of a 200.
    Echo,
    /// Wait so long: for what a slow upstream does, never to let something else happen first.
    Pause(Duration),
    /// Stop sending.
    HalfClose,
    /// Close in order.
    Close,
    /// Reset.
    Reset,
    /// Do nothing until the peer has closed.
    Hold,
    /// Send these bytes over and over until the peer closes or so many bytes were sent.
    Flood(&'static [u8], usize),
}

/// What to do on each connection: the n-th follows the n-th list, later ones the last. A list that ends without closing is
/// begun again for the next request.
pub type Script = Vec<Vec<Act>>;

/// The usual: 200 with a small body.
pub fn ok() -> Script {
    reply("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
}

/// Answers every request with these bytes.
pub fn reply(response: impl Into<Vec<u8>>) -> Script {
    vec![vec![Act::Request, Act::Send(response.into())]]
}

/// A server on a port of its own.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct State {
    script: Script,
    /// The number of the first connection below: those of earlier scripts are forgotten.
    first: usize,
    connections: Vec<Connection>,
}

struct Connection {
    /// None once it was closed here.
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

impl Upstream {
    /// Starts a server that follows `script`.
    pub fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self::serve(listener, script)
    }

    /// Serves on a socket bound before.
    pub fn serve(listener: TcpListener, script: Script) -> Self {
        let address = listener.local_addr().expect("an address");
        let state = Mutex::new(State { script, ..State::default() });
        let shared = Arc::new(Shared { state, stopping: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopping.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                if let Some((id, script)) = shared.opened(&stream) {
                    std::thread::spawn(move || follow(&shared, id, stream, &script));
                }
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Follows another script from the next connection on, and forgets what was received.
    pub fn script(&self, script: Script) {
        let mut state = self.shared.state();
        state.script = script;
        state.first += state.connections.len();
        state.connections.clear();
    }

    /// Forgets what was received, and nothing else.
    pub fn forget(&self) {
        for connection in &mut self.shared.state().connections {
            connection.received = Vec::new();
        }
    }

    /// What each connection received.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.shared.state().connections.iter().map(|connection| connection.received.clone()).collect()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Closes every open connection.
    pub fn hang_up(&self) {
        for stream in self.shared.state().streams() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends bytes on every open connection, asked or not.
    pub fn blurt(&self, bytes: &[u8]) {
        for mut stream in self.shared.state().streams() {
            let _ = stream.write_all(bytes);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.hang_up();
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was accepted: its number and its part of the script.
    fn opened(&self, stream: &TcpStream) -> Option<(usize, Vec<Act>)> {
        let _ = stream.set_nodelay(true);
        let mut state = self.state();
        let index = state.connections.len();
        state.connections.push(Connection { stream: Some(stream.try_clone().ok()?), received: Vec::new() });
        let script = state.script.get(index).or_else(|| state.script.last()).cloned();
        Some((state.first + index, script.unwrap_or_default()))
    }

    /// A connection is done with: the descriptor kept beside the thread's own goes.
    fn closed(&self, id: usize) {
        if let Some(connection) = self.state().connection(id) {
            connection.stream = None;
        }
    }
}

impl State {
    fn connection(&mut self, id: usize) -> Option<&mut Connection> {
        self.connections.get_mut(id.checked_sub(self.first)?)
    }

    fn streams(&self) -> impl Iterator<Item = &TcpStream> {
        self.connections.iter().filter_map(|connection| connection.stream.as_ref())
    }
}

/// Follows one connection's script to its end.
fn follow(shared: &Shared, id: usize, stream: TcpStream, script: &[Act]) {
    let mut reader = Reader { shared, id, stream, buffer: Vec::new(), last: Vec::new() };
    let mut acts: VecDeque<Act> = script.iter().cloned().collect();
    while let Some(act) = acts.pop_front() {
        if !reader.perform(act) {
            return shared.closed(id);
        }
        if acts.is_empty() {
            acts.extend(script.iter().cloned());
        }
    }
    reader.perform(Act::Hold);
    shared.closed(id);
}

struct Reader<'a> {
    shared: &'a Shared,
    id: usize,
    stream: TcpStream,
    buffer: Vec<u8>,
    last: Vec<u8>,
}

impl Reader<'_> {
    /// False ends the connection's script.
    fn perform(&mut self, act: Act) -> bool {
        match act {
            Act::Request => self.read(|buffer| {
                let message = message::requests(buffer).into_iter().next()?;
                let end = message::find(buffer, b"\r\n\r\n")? + 4;
                message.complete.then(|| match message.framing {
                    message::Framing::Chunked => message::find(buffer.get(end - 2..)?, b"\r\n0\r\n")
                        .or_else(|| message::find(buffer.get(end - 2..)?, b"0\r\n"))
                        .and_then(|zero| {
                            Some(end - 2 + zero + message::find(buffer.get(end - 2 + zero..)?, b"\r\n\r\n")? + 4)
                        }),
                    message::Framing::Length => Some(end + message.body.len()),
                    message::Framing::None | message::Framing::Close => Some(end),
                })?
            }),
            Act::Head => self.read(|buffer| message::find(buffer, b"\r\n\r\n").map(|end| end + 4)),
            Act::Until(needle) => self.read(|buffer| message::find(buffer, needle).map(|at| at + needle.len())),
            Act::Frame(kind) => self.read(|buffer| frames::end_of(buffer, kind)),
            Act::Send(bytes) => self.stream.write_all(&bytes).is_ok(),
            Act::Echo => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", self.last.len());
                self.stream.write_all(&[head.as_bytes(), &self.last].concat()).is_ok()
            }
            Act::Pause(time) => {
                std::thread::sleep(time);
                true
            }
            Act::HalfClose => self.stream.shutdown(Shutdown::Write).is_ok(),
            Act::Close => {
                let _ = self.stream.shutdown(Shutdown::Both);
                false
            }
            Act::Reset => {
                // It is sent when the last descriptor goes, which is at the end of the script.
                let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                false
            }
            Act::Hold => self.read(|_| None),
            Act::Flood(bytes, limit) => {
                let (mut sent, deadline) = (0, Instant::now() + Duration::from_secs(5));
                while sent < limit && Instant::now() < deadline && self.stream.write_all(bytes).is_ok() {
                    sent += bytes.len();
                }
                true
            }
        }
    }

    /// Reads until `enough` says how many bytes belong together; false if the peer closed first.
    fn read(&mut self, enough: impl Fn(&[u8]) -> Option<usize>) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(length) = enough(&self.buffer) {
                self.last = self.buffer.drain(..length.min(self.buffer.len())).collect();
                return true;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => {
                    let bytes = chunk.get(..length).unwrap_or_default();
                    self.buffer.extend_from_slice(bytes);
                    if let Some(connection) = self.shared.state().connection(self.id) {
                        connection.received.extend_from_slice(bytes);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// A port on which nobody listens. It stays bound, so that nobody else can take it.
pub struct DeadPort {
    socket: socket2::Socket,
}

impl DeadPort {
    /// Takes a port.
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).expect("a port");
        Self { socket }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let address = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        address.expect("an address").port()
    }
}

/// A port that never answers: somebody listens, but takes no connection off the queue, and the queue is full.
pub struct FullPort {
    port: DeadPort,
    _waiting: Vec<socket2::Socket>,
}

impl FullPort {
    /// Takes a port.
    pub fn new() -> Self {
        let port = DeadPort::new();
        port.socket.listen(0).expect("a listening socket");
        let address: SocketAddr = ([127, 0, 0, 1], port.port()).into();
        let waiting = (0..4).map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            // It is queued, or under way for ever.
            let _ = socket.connect(&address.into());
            socket
        });
        Self { _waiting: waiting.collect(), port }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.port()
    }
}

//! A client that sends exactly the bytes it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::message::{self, Message};

/// How the connection stands when the client has done its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Still open.
    Open,
    /// Closed in order.
    Closed,
    /// Reset.
    Reset,
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    methods: Vec<&'static str>,
    /// Everything received.
    pub received: Vec<u8>,
    /// How the connection stands.
    pub end: End,
}

impl Client {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects, perhaps.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, methods: Vec::new(), received: Vec::new(), end: End::Open })
    }

    /// The methods of the requests that will be sent; a response to `HEAD` has no body. `GET` if not told.
    pub fn methods(mut self, methods: &[&'static str]) -> Self {
        self.methods = methods.to_vec();
        self
    }

    /// The client's own address.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("an address")
    }

    /// Sends bytes. A peer that has closed already is no error: what it said is still to be read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.set_write_timeout(Some(PATIENCE));
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes; false once the peer no longer takes them.
    pub fn try_send(&mut self, bytes: &[u8], within: Duration) -> bool {
        let _ = self.stream.set_write_timeout(Some(within));
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends no more.
    pub fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends with a reset instead of a close.
    pub fn reset(&mut self) {
        let socket = socket2::SockRef::from(&self.stream);
        // The queue of what was not read is dropped with the reset; a new, unconnected socket takes its place here.
        let _ = socket.set_linger(Some(Duration::ZERO));
        if let Ok(other) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None) {
            self.stream = TcpStream::from(other);
        }
        self.end = End::Reset;
    }

    /// Reads until `enough` says so, the connection ends, or `within` has passed; whether it was enough.
    pub fn read_until(&mut self, within: Duration, mut enough: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if enough(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.end != End::Open || left.is_zero() {
                return false;
            }
            let _ = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut buffer) {
                Ok(0) => self.end = End::Closed,
                Ok(length) => self.received.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = End::Reset,
            }
        }
    }

    /// Reads until so many final responses are complete.
    pub fn read_responses(&mut self, count: usize) -> bool {
        self.read_until(PATIENCE, |client| {
            client.responses().iter().filter(|message| message.complete && message.status() >= 200).count() >= count
        })
    }

    /// Reads until the connection ends.
    pub fn read_to_end(&mut self) -> End {
        self.read_until(PATIENCE, |_| false);
        self.end
    }

    /// The responses received so far.
    pub fn responses(&self) -> Vec<Message> {
        message::responses(&self.received, &self.methods, self.end != End::Open)
    }
}

/// Sends one request on a connection of its own and returns the final response, if one came.
pub fn exchange(address: SocketAddr, request: &str) -> Option<Message> {
    let mut client = Client::try_connect(address).ok()?;
    client.send(request.as_bytes());
    client.read_responses(1);
    client.responses().into_iter().find(|message| message.status() >= 200)
}

/// `GET path` with a host.
pub fn get(address: SocketAddr, path: &str) -> Option<Message> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
}

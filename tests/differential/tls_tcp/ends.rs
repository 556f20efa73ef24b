//! An end of a connection that does what it is told, and says what it sees of the other.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustls::pki_types::ServerName;
use rustls::{Connection, ServerConnection};

use crate::support::PATIENCE;
use crate::support::pki::Pki;
use crate::support::tls_client::TlsClient;
use crate::support::tls_upstream::TlsServer;

pub struct End {
    socket: Option<TcpStream>,
    session: Option<Connection>,
    /// How many bytes were sent and read: what they are depends on where they stand.
    sent: usize,
    read: usize,
}

impl End {
    /// A client; with certificates it speaks TLS and shows one.
    pub fn connect(address: SocketAddr, pki: Option<&Pki>) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        let session = pki.map(|pki| {
            let client = TlsClient { certificate: Some(pki.path("client")), ..TlsClient::default() };
            let name = ServerName::try_from("srv.test").expect("a name");
            rustls::ClientConnection::new(client.config(), name).expect("a client").into()
        });
        Self::begin(socket, session)
    }

    /// A server that was connected to.
    pub fn accept(socket: TcpStream, pki: Option<&Pki>) -> Self {
        let server = TlsServer { clients_of: Some("ca"), ..TlsServer::default() };
        let session = pki.map(|pki| ServerConnection::new(server.config(pki)).expect("a server").into());
        Self::begin(socket, session)
    }

    fn begin(mut socket: TcpStream, mut session: Option<Connection>) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        if let Some(session) = &mut session {
            while session.is_handshaking() {
                session.complete_io(&mut socket).expect("a handshake");
            }
            // What is left of it.
            let _ = session.write_tls(&mut socket);
        }
        Self { socket: Some(socket), session, sent: 0, read: 0 }
    }

    pub fn send(&mut self, n: usize) -> String {
        let bytes: Vec<u8> = (self.sent..self.sent + n).map(octet).collect();
        self.sent += n;
        said(self.with(|stream| stream.write_all(&bytes).and_then(|()| stream.flush())), &format!("sends {n}"))
    }

    pub fn expect(&mut self, n: usize) -> String {
        let mut bytes = vec![0; n];
        let read = self.with(|stream| stream.read_exact(&mut bytes));
        let right = bytes.iter().enumerate().all(|(at, byte)| *byte == octet(self.read + at));
        self.read += n;
        match read {
            Ok(()) if right => format!("reads {n}"),
            Ok(()) => format!("reads {n} others"),
            Err(error) => format!("does not read {n}: {}", word(&error)),
        }
    }

    pub fn finish(&mut self) -> String {
        self.notify();
        self.cut();
        "sends no more".to_owned()
    }

    pub fn notify(&mut self) -> String {
        if let (Some(session), Some(socket)) = (&mut self.session, &mut self.socket) {
            session.send_close_notify();
            while session.wants_write() && session.write_tls(socket).is_ok_and(|n| n > 0) {}
        } else {
            self.cut();
        }
        "says that it is done".to_owned()
    }

    fn cut(&self) {
        if let Some(socket) = &self.socket {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    pub fn leave(&mut self) -> String {
        self.notify();
        self.socket = None;
        "leaves".to_owned()
    }

    /// How the other end ends: after how many more bytes, with `close_notify` or without.
    pub fn await_end(&mut self) -> String {
        let mut rest = Vec::new();
        let end = self.with(|stream| stream.read_to_end(&mut rest));
        let more = if rest.is_empty() { String::new() } else { format!("{} more, ", rest.len()) };
        let Err(error) = end else {
            if self.session.is_none() {
                return format!("{more}reads the end");
            }
            return format!("{more}is told that it ends");
        };
        format!("{more}{}", word(&error))
    }

    fn with<T>(&mut self, does: impl FnOnce(&mut dyn Stream) -> Result<T, Error>) -> Result<T, Error> {
        let Some(socket) = &mut self.socket else { return Err(ErrorKind::NotConnected.into()) };
        match &mut self.session {
            Some(Connection::Client(session)) => does(&mut rustls::Stream::new(session, socket)),
            Some(Connection::Server(session)) => does(&mut rustls::Stream::new(session, socket)),
            None => does(socket),
        }
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// The byte at this place.
fn octet(at: usize) -> u8 {
    u8::try_from((at ^ (at >> 9)) % 251).unwrap_or_default()
}

fn said(result: Result<(), Error>, what: &str) -> String {
    match result {
        Ok(()) => what.to_owned(),
        Err(error) => format!("{what}, which fails: {}", word(&error)),
    }
}

/// What an error means to an end.
fn word(error: &Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => format!("is told {alert:?}"),
        Some(other) => other.to_string(),
        None => match error.kind() {
            ErrorKind::UnexpectedEof => "is cut off".to_owned(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "is reset".to_owned(),
            ErrorKind::WouldBlock => "waits in vain".to_owned(),
            other => other.to_string(),
        },
    }
}

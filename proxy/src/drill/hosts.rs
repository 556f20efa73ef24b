//! The upstream hosts: each at a loopback address of its own, in this process, with a fault that can be switched while it
//! serves.

mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::diary::{Diary, Entry, RequestId};
use super::fault::{Fault, Protocol};
use super::plan::HostId;

/// Connections that may wait to be accepted at a host that is well.
const BACKLOG: i32 = 1024;
/// How long a host is away that restarts.
const RESTART: Duration = Duration::from_millis(60);
/// An attempt to connect that takes so long on this machine met a full backlog.
const CLOGGED: Duration = Duration::from_millis(50);
/// Binding all addresses may find one of them taken; so often other ones are tried.
const ATTEMPTS: usize = 8;

/// A host. Dropped, it closes everything.
pub(super) struct Host {
    shared: Rc<Shared>,
    /// What accepts, if anything does.
    accepting: Option<JoinHandle<()>>,
    /// What fills the backlog: the socket that listens, and what waits there.
    clog: Option<(Socket, Vec<TcpStream>)>,
}

/// What its connections know of it.
struct Shared {
    number: HostId,
    address: SocketAddr,
    protocol: Protocol,
    fault: Cell<Option<Fault>>,
    diary: Rc<Diary>,
    connections: RefCell<HashMap<u64, Connection>>,
    next_connection: Cell<u64>,
}

/// An open connection: its task, and a second descriptor of its socket, by which it can be reset.
struct Connection {
    task: AbortHandle,
    socket: Socket,
}

/// So many hosts that are well, at addresses of their own with one port.
pub(super) fn start(number: usize, protocol: Protocol, diary: &Rc<Diary>) -> io::Result<Vec<Host>> {
    let mut attempt = 1;
    loop {
        let [network, _, _, _] = fastrand::u32(..).to_le_bytes();
        let mut port = 0;
        let hosts: io::Result<Vec<Host>> = (0..number)
            .map(|host| {
                let [high, low] = u16::try_from(host + 1).unwrap_or(u16::MAX).to_be_bytes();
                let address = SocketAddr::from((Ipv4Addr::new(127, 64 + network / 2, high, low), port));
                let socket = listen(address, BACKLOG)?;
                let address = socket.local_addr()?.as_socket().unwrap_or(address);
                port = address.port();
                diary.settled(host, address);
                let mut host = Host {
                    shared: Rc::new(Shared {
                        number: host,
                        address,
                        protocol,
                        fault: Cell::new(None),
                        diary: Rc::clone(diary),
                        connections: RefCell::default(),
                        next_connection: Cell::new(0),
                    }),
                    accepting: None,
                    clog: None,
                };
                host.accept(socket)?;
                Ok(host)
            })
            .collect();
        match hosts {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

impl Host {
    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Something is wrong with it from now on.
    pub(super) async fn fail(&mut self, fault: Fault) -> io::Result<()> {
        let shared = Rc::clone(&self.shared);
        shared.diary.became(shared.number, Some(fault));
        shared.fault.set(Some(fault));
        match fault {
            Fault::Killed => self.kill().await,
            Fault::Restarted => {
                self.kill().await;
                sleep(RESTART).await;
                self.accept(listen(shared.address, BACKLOG)?)?;
            }
            Fault::Refusing => self.close().await,
            Fault::Clogged => {
                self.kill().await;
                self.clog().await?;
            }
            Fault::Stalled
            | Fault::Resetting
            | Fault::BreakingOff
            | Fault::Overloaded
            | Fault::HangingUp
            | Fault::RefusingStreams
            | Fault::GoingAway
            | Fault::Leaving
            | Fault::Unavailable => {}
        }
        Ok(())
    }

    /// It is well again.
    pub(super) fn heal(&mut self) -> io::Result<()> {
        self.clog = None;
        if self.accepting.is_none() {
            self.accept(listen(self.shared.address, BACKLOG)?)?;
        }
        self.shared.fault.set(None);
        self.shared.diary.became(self.shared.number, None);
        Ok(())
    }

    fn accept(&mut self, socket: Socket) -> io::Result<()> {
        let listener = TcpListener::from_std(socket.into())?;
        let shared = Rc::clone(&self.shared);
        let accept = async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => shared.serve(stream),
                    // Descriptors may have run out: looping would only burn the processor.
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        self.accepting = Some(spawn_local(accept));
        Ok(())
    }

    /// Nobody listens any more; what waits to be accepted is reset.
    async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // It is the task that has the socket.
            let _ = accepting.await;
        }
        self.clog = None;
    }

    /// The end of a process that did not close anything in order.
    async fn kill(&mut self) {
        self.close().await;
        self.shared.reset_all();
    }

    /// Listens, accepts nothing, and fills the line.
    async fn clog(&mut self) -> io::Result<()> {
        let socket = listen(self.shared.address, 0)?;
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(CLOGGED, TcpStream::connect(self.shared.address)).await {
            waiting.push(connected?);
        }
        self.clog = Some((socket, waiting));
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.shared.reset_all();
    }
}

impl Shared {
    fn serve(self: &Rc<Self>, stream: TcpStream) {
        let Ok(socket) = SockRef::from(&stream).try_clone() else { return };
        // Without it small answers would wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        let host = Rc::clone(self);
        let serve = async move {
            match host.protocol {
                Protocol::Http1 => http1::serve(&host, stream, number).await,
                Protocol::Http2 | Protocol::Grpc => http2::serve(&host, stream, number).await,
            }
            host.connections.borrow_mut().remove(&number);
        };
        let task = spawn_local(serve).abort_handle();
        self.connections.borrow_mut().insert(number, Connection { task, socket });
    }

    /// Resets one of its connections.
    fn reset(&self, connection: u64) {
        let connection = self.connections.borrow_mut().remove(&connection);
        if let Some(connection) = connection {
            connection.reset();
        }
    }

    fn reset_all(&self) {
        self.connections.take().into_values().for_each(Connection::reset);
    }

    /// A try has come. What to do with it is what is wrong now.
    fn arrived(&self, request: RequestId) -> (Entry, Option<Fault>) {
        (self.diary.arrived(request, self.number), self.fault.get())
    }
}

impl Connection {
    fn reset(self) {
        // Whoever closes the last descriptor sends the reset.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        self.task.abort();
    }
}

/// Whether a host that breaks answers off does so with this one.
fn breaks_off(id: RequestId) -> bool {
    // Not by the number itself: which of them come here follows from the turns of the load balancer.
    fastrand::Rng::with_seed(id).u8(..8) == 0
}

fn listen(address: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // What a host before it left behind does not keep it from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

//! Listening sockets. They belong to the address: made once, lent to whichever version of a listener serves it, closed
//! when nobody does any more.
//!
//! Binding and listening are two steps, as in Envoy: an address in use is an error of the update that asks for it, but
//! nobody can connect before the listener is warm.
//!
//! Several workers share a port by `SO_REUSEPORT`, which would let a second process share it as well, silently. So the
//! first socket is bound *and* made to listen without the option, which fails if anyone else listens there; only then it
//! is turned on, for our own further sockets.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use filters::stream_info::Address;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::listener::ListenerConfig;
use crate::config::listener::address::{IpVersion, ListenAddress, SocketState};
use crate::sys;

/// What a listener asks of the sockets of one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSpec {
    /// Where, and options.
    pub address: ListenAddress,
    /// Length of the accept queue.
    pub backlog: u32,
    /// One socket per worker.
    pub reuse_port: bool,
    /// `IP_TRANSPARENT`.
    pub transparent: Option<bool>,
    /// `IP_FREEBIND`.
    pub freebind: Option<bool>,
    /// `TCP_FASTOPEN` queue length.
    pub fast_open: Option<u32>,
    /// Multipath TCP.
    pub mptcp: bool,
}

/// A socket that has its address but does not listen yet.
#[derive(Debug)]
pub struct BoundSocket {
    spec: SocketSpec,
    socket: Socket,
    address: Address,
}

/// The listening sockets of one address.
#[derive(Debug)]
pub struct ListenSocket {
    id: u64,
    spec: SocketSpec,
    address: Address,
    /// One for each worker, or one for all.
    sockets: Vec<Socket>,
}

/// A worker's descriptor of a listening socket, not blocking.
#[derive(Debug)]
pub enum WorkerSocket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

/// `cannot bind '127.0.0.1:80': Address already in use`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} '{address}': {}", describe(source))]
pub struct SocketError {
    action: &'static str,
    address: String,
    #[source]
    source: io::Error,
}

impl SocketSpec {
    /// What `listener` asks for each of its addresses.
    #[must_use]
    pub fn of(listener: &ListenerConfig) -> Vec<Self> {
        let spec = |address: &ListenAddress| Self {
            address: address.clone(),
            backlog: listener.tcp_backlog,
            reuse_port: listener.reuse_port,
            transparent: listener.transparent,
            freebind: listener.freebind,
            fast_open: listener.tcp_fast_open_queue_length,
            mptcp: listener.mptcp,
        };
        listener.addresses.iter().map(spec).collect()
    }
}

impl BoundSocket {
    /// Takes the address.
    ///
    /// # Errors
    /// When the address is in use, not of this host, not permitted, or an option is refused.
    pub fn bind(spec: SocketSpec) -> Result<Self, SocketError> {
        if let Address::Pipe(path) = &spec.address.address {
            remove_stale(path);
        }
        let socket = bind(&spec, &spec.address.address, false)?;
        let address = local_address(&socket).map_err(failed("bind", &spec))?;
        Ok(Self { spec, socket, address })
    }

    /// The address, with the port the kernel chose if none was asked for.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Listens; from now on clients can connect. `workers` is how many will accept.
    ///
    /// # Errors
    /// When another process listens on the address since it was bound, or an option is refused.
    pub fn listen(self, workers: usize) -> Result<ListenSocket, SocketError> {
        let Self { spec, socket, address } = self;
        listen(&socket, &spec)?;
        let mut sockets = vec![socket];
        if spec.reuse_port && workers > 1 {
            for first in &sockets {
                first.set_reuse_port(true).map_err(failed("listen on", &spec))?;
            }
            for _ in 1..workers {
                let socket = bind(&spec, &address, true)?;
                listen(&socket, &spec)?;
                sockets.push(socket);
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Ok(ListenSocket { id: NEXT.fetch_add(1, Ordering::Relaxed), spec, address, sockets })
    }
}

impl ListenSocket {
    /// Unique in the process.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The address listened on.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// What it was made for.
    #[must_use]
    pub const fn spec(&self) -> &SocketSpec {
        &self.spec
    }

    /// A descriptor for worker `index`; the socket stays open in here.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn for_worker(&self, index: usize) -> io::Result<WorkerSocket> {
        // There is at least one socket, so the remainder is in range.
        let socket = self.sockets[index % self.sockets.len()].try_clone()?;
        let descriptor = OwnedFd::from(socket);
        Ok(match self.address {
            Address::Ip(_) => WorkerSocket::Tcp(descriptor.into()),
            Address::Pipe(_) | Address::Internal(_) => WorkerSocket::Unix(descriptor.into()),
        })
    }

    /// Gives the sockets what a newer version of the listener asks for, as far as that is possible once they listen.
    ///
    /// # Errors
    /// When an option is refused.
    pub fn adapt(&self, spec: &SocketSpec) -> Result<(), SocketError> {
        for socket in &self.sockets {
            for state in [SocketState::Prebind, SocketState::Bound, SocketState::Listening] {
                options(socket, spec, state).map_err(failed("set options of", spec))?;
            }
            tcp_options(socket, spec).map_err(failed("set options of", spec))?;
            socket.listen(backlog(spec)).map_err(failed("listen on", spec))?;
        }
        Ok(())
    }
}

/// A path is ours until the last listener on it is gone; a path left behind makes the next start fail to bind.
impl Drop for ListenSocket {
    fn drop(&mut self) {
        if let Address::Pipe(path) = &self.address
            && !path.starts_with('@')
        {
            let _ = std::fs::remove_file(&**path);
        }
    }
}

fn bind(spec: &SocketSpec, address: &Address, shared: bool) -> Result<Socket, SocketError> {
    let failed = || failed("bind", spec);
    let target = target(address).map_err(failed())?;
    let protocol = match address {
        Address::Ip(_) if spec.mptcp => Some(Protocol::MPTCP),
        Address::Ip(_) => Some(Protocol::TCP),
        Address::Pipe(_) | Address::Internal(_) => None,
    };
    let socket = Socket::new(target.domain(), Type::STREAM.nonblocking(), protocol).map_err(failed())?;
    if target.domain() == Domain::IPV6 {
        socket.set_only_v6(!spec.address.ipv4_compat).map_err(failed())?;
    }
    if matches!(address, Address::Ip(_)) {
        // Connections of a previous process that are still closing do not keep the address from us.
        socket.set_reuse_address(true).map_err(failed())?;
        socket.set_reuse_port(shared).map_err(failed())?;
        tcp_options(&socket, spec).map_err(failed())?;
    }
    options(&socket, spec, SocketState::Prebind).map_err(failed())?;
    socket.bind(&target).map_err(failed())?;
    if let Address::Pipe(path) = address
        && spec.address.pipe_mode != 0
    {
        let mode = std::fs::Permissions::from_mode(spec.address.pipe_mode);
        std::fs::set_permissions(&**path, mode).map_err(failed())?;
    }
    options(&socket, spec, SocketState::Bound).map_err(failed())?;
    Ok(socket)
}

fn listen(socket: &Socket, spec: &SocketSpec) -> Result<(), SocketError> {
    socket.listen(backlog(spec)).map_err(failed("bind", spec))?;
    options(socket, spec, SocketState::Listening).map_err(failed("listen on", spec))
}

fn backlog(spec: &SocketSpec) -> i32 {
    i32::try_from(spec.backlog).unwrap_or(i32::MAX)
}

/// What accepted connections inherit is set here, once, rather than on each of them.
fn tcp_options(socket: &Socket, spec: &SocketSpec) -> io::Result<()> {
    let Address::Ip(address) = spec.address.address else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = spec.address.keepalive {
        let parts = [keepalive.probes, keepalive.time, keepalive.interval];
        // Envoy's rule: a zero turns keep-alive off.
        if parts.contains(&Some(0)) {
            socket.set_keepalive(false)?;
        } else {
            let seconds = |value: u32| Duration::from_secs(value.into());
            let mut wanted = socket2::TcpKeepalive::new();
            if let Some(time) = keepalive.time {
                wanted = wanted.with_time(seconds(time));
            }
            if let Some(interval) = keepalive.interval {
                wanted = wanted.with_interval(seconds(interval));
            }
            if let Some(probes) = keepalive.probes {
                wanted = wanted.with_retries(probes);
            }
            socket.set_tcp_keepalive(&wanted)?;
        }
    }
    if let Some(transparent) = spec.transparent {
        if address.is_ipv4() {
            socket.set_ip_transparent_v4(transparent)?;
        } else {
            socket.set_ip_transparent_v6(transparent)?;
        }
    }
    if let Some(freebind) = spec.freebind {
        if address.is_ipv4() {
            socket.set_freebind_v4(freebind)?;
        } else {
            socket.set_freebind_v6(freebind)?;
        }
    }
    if let Some(queue) = spec.fast_open {
        let queue = i32::try_from(queue).unwrap_or(i32::MAX).to_ne_bytes();
        sys::set_socket_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &queue)?;
    }
    Ok(())
}

fn options(socket: &Socket, spec: &SocketSpec, state: SocketState) -> io::Result<()> {
    let version = match spec.address.address {
        Address::Ip(ip) if ip.is_ipv4() => Some(IpVersion::V4),
        Address::Ip(_) => Some(IpVersion::V6),
        Address::Pipe(_) | Address::Internal(_) => None,
    };
    let applies = |wanted: Option<IpVersion>| wanted.is_none() || wanted == version;
    let mut options = spec.address.socket_options.iter();
    options
        .by_ref()
        .filter(|option| option.state == state && applies(option.ip_version))
        .try_for_each(|option| sys::set_socket_option(socket.as_fd(), option.level, option.name, &option.value))
}

fn target(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Ip(ip) => Ok(SockAddr::from(*ip)),
        Address::Pipe(path) => match path.strip_prefix('@') {
            None => SockAddr::unix(Path::new(&**path)),
            Some(name) => SockAddr::unix(format!("\0{name}")),
        },
        Address::Internal(_) => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

fn local_address(socket: &Socket) -> io::Result<Address> {
    let address = socket.local_addr()?;
    if let Some(ip) = address.as_socket() {
        return Ok(Address::Ip(ip));
    }
    let Some(unix) = address.as_unix() else { return Err(io::Error::from(io::ErrorKind::Unsupported)) };
    let text = match (unix.as_pathname(), unix.as_abstract_name()) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    };
    Ok(Address::Pipe(text.into()))
}

/// Removes the path of a socket nobody listens on any more, which would otherwise keep us from binding; a live one is
/// left alone, and so is anything that is no socket.
fn remove_stale(path: &str) {
    if path.starts_with('@') {
        return;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused) {
        let _ = std::fs::remove_file(path);
    }
}

fn failed(action: &'static str, spec: &SocketSpec) -> impl FnOnce(io::Error) -> SocketError + use<> {
    let address = spec.address.to_string();
    move |source| SocketError { action, address, source }
}

/// The kernel's words without the number std appends to them.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

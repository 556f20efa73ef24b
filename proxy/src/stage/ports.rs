//! Free ports of the loopback interface.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};

use tokio::net::TcpListener;

/// Ports are chosen before the proxies bind them; someone else may be faster. So often it is worth another try.
pub(crate) const ATTEMPTS: usize = 3;

/// A listener at a free port of the loopback interface.
pub(crate) async fn listen() -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Free ports, kept from others by being bound, until dropped.
pub(crate) struct Reserved<const N: usize> {
    pub(crate) ports: [u16; N],
    _sockets: Vec<StdTcpListener>,
}

impl<const N: usize> Reserved<N> {
    /// So many, all different.
    pub(crate) fn new() -> io::Result<Self> {
        let mut ports = [0; N];
        let mut sockets = Vec::with_capacity(N);
        for port in &mut ports {
            let socket = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            *port = socket.local_addr()?.port();
            sockets.push(socket);
        }
        Ok(Self { ports, _sockets: sockets })
    }
}

/// Whether starting failed because someone else took a port, so that others may do.
pub(crate) fn taken(error: &str) -> bool {
    error.to_lowercase().contains("in use")
}

//! How drivers reach a control plane: a byte stream to a cluster or an address, opened by whoever embeds the client (who
//! knows clusters, TLS and DNS), with an implementation for plain addresses.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::source::CallCredentials;

/// A byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// An open connection to a control plane.
pub struct Connection {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// Our address on it, for `x-forwarded-for`; `None` for Unix sockets.
    pub local_ip: Option<IpAddr>,
}

/// Whatever [`Network::calling`] wants to be dropped at the end of a call.
pub type Call = Option<Box<dyn Any>>;

/// The future of [`Network::connect`].
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Connection>> + 'a>>;

/// The future of [`Network::metadata`]: header names and values.
pub type Adding<'a> = Pin<Box<dyn Future<Output = Result<Vec<(String, String)>, String>> + 'a>>;

/// Opens connections.
pub trait Network {
    /// Opens a connection to `target`. Called anew for every connection: names are resolved and addresses rotated each
    /// time. The implementation bounds the time it takes (the cluster's `connect_timeout`).
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a>;

    /// A call (a stream, a poll) is about to be made, on a connection that is there or one to be opened: for counting.
    /// What is returned is dropped when the call is over.
    fn calling(&self, target: &Target) -> Call {
        let _ = target;
        None
    }

    /// What these credentials add to the metadata of a call to `authority` and `path` that is made now. An error is the
    /// reason why the call cannot be made, without any secret.
    fn metadata<'a>(&'a self, credentials: &'a CallCredentials, authority: &'a str, path: &'a str) -> Adding<'a> {
        let _ = (authority, path);
        Box::pin(std::future::ready(Err(format!("{credentials:?} cannot be used here"))))
    }
}

/// Whom to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A configured cluster, by name (`envoy_grpc`, REST).
    Cluster(String),
    /// An address (`google_grpc`).
    Address(Address),
    /// An address that is spoken to in TLS (`google_grpc.channel_credentials`).
    Secure(Address, Security),
}

/// How TLS is spoken to an address, in the words of whoever opens connections. Nothing but equality means anything here:
/// streams share connections of the same security.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Security(pub bytes::Bytes);

impl fmt::Debug for Security {
    /// There may be keys in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Security(..)")
    }
}

impl Target {
    /// What goes into `:authority` or `host` unless configured.
    pub fn authority(&self) -> String {
        match self {
            Self::Cluster(name) => name.clone(),
            Self::Address(address) | Self::Secure(address, _) => address.authority(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Address(Address::Unix(path)) | Self::Secure(Address::Unix(path), _) => {
                write!(f, "unix:{}", path.display())
            }
            Self::Address(address) | Self::Secure(address, _) => f.write_str(&address.authority()),
        }
    }
}

/// An address as `google_grpc.target_uri` spells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp {
        /// The host; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket; a leading `@` means an abstract one.
    Unix(PathBuf),
}

impl Address {
    fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// Why a target URI is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target URI \"{uri}\": {reason}")]
pub struct TargetError {
    uri: String,
    reason: &'static str,
}

/// Reads `host:port`, `dns:host:port`, `dns:///host:port`, `ipv4:a.b.c.d:port`, `ipv6:[::1]:port`, `unix:path`,
/// `unix:///path`, `unix-abstract:name`. The port defaults to 443, as in gRPC.
impl FromStr for Address {
    type Err = TargetError;

    fn from_str(uri: &str) -> Result<Self, TargetError> {
        let fail = |reason| TargetError { uri: uri.to_owned(), reason };
        if let Some(path) = uri.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(fail("no path")) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(name) = uri.strip_prefix("unix-abstract:") {
            return Ok(Self::Unix(format!("@{name}").into()));
        }
        let rest = ["dns:", "ipv4:", "ipv6:"].iter().find_map(|scheme| uri.strip_prefix(scheme)).unwrap_or(uri);
        let rest = match rest.strip_prefix("//").map(|rest| rest.split_once('/')) {
            None => rest,
            Some(Some(("", endpoint))) => endpoint,
            Some(Some(_)) => return Err(fail("a DNS server of its own is not supported")),
            Some(None) => return Err(fail("no endpoint")),
        };
        if rest.contains("://") || rest.contains('/') {
            return Err(fail("unknown scheme"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(|| fail("an unclosed bracket"))?;
                let port = match tail.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if tail.is_empty() => None,
                    None => return Err(fail("bytes after the bracket")),
                };
                (host, port)
            }
            None => match rest.rsplit_once(':') {
                // More colons and no brackets: a bare IPv6 address.
                Some((host, _)) if host.contains(':') => (rest, None),
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.is_empty() {
            return Err(fail("no host"));
        }
        let port = port.map_or(Ok(443), str::parse).map_err(|_| fail("the port is not a number below 65536"))?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

/// Connects to addresses over plain TCP and Unix sockets; clusters are looked up with a function.
pub struct PlainNetwork<F> {
    clusters: F,
    turn: Cell<usize>,
}

impl<F: Fn(&str) -> Option<Vec<Address>>> PlainNetwork<F> {
    /// A network in which `clusters` knows the addresses of a cluster at this moment (`None`: no such cluster).
    pub fn new(clusters: F) -> Self {
        Self { clusters, turn: Cell::new(0) }
    }

    /// Opens a socket to where `target` is, whatever is to be spoken over it.
    pub async fn open(&self, target: &Target) -> io::Result<Socket> {
        let addresses = match target {
            Target::Address(address) | Target::Secure(address, _) => vec![address.clone()],
            Target::Cluster(name) => (self.clusters)(name)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("unknown cluster '{name}'")))?,
        };
        // Every attempt begins one further on, so that a dead address costs one attempt and not every one.
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{target} has no address"));
        for step in 0..addresses.len() {
            let Some(address) = addresses.get((turn.wrapping_add(step)) % addresses.len()) else {
                break;
            };
            match Socket::open(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl<F: Fn(&str) -> Option<Vec<Address>>> Network for PlainNetwork<F> {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async move {
            if let Target::Secure(..) = target {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS is not spoken here"));
            }
            Ok(self.open(target).await?.into())
        })
    }
}

/// A connected socket.
pub enum Socket {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Connects to one address; names are resolved by the system.
    pub async fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => connect_unix(path).await.map(Self::Unix),
        }
    }

    /// Our address on it; `None` for Unix sockets.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl From<Socket> for Connection {
    fn from(socket: Socket) -> Self {
        let local_ip = socket.local_ip();
        match socket {
            Socket::Tcp(stream) => Self { io: Box::new(stream), local_ip },
            Socket::Unix(stream) => Self { io: Box::new(stream), local_ip },
        }
    }
}

async fn connect_unix(path: &std::path::Path) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") else {
        return UnixStream::connect(path).await;
    };
    // An abstract address connects at once or not at all.
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn target_uris() {
        for (uri, want) in [
            ("xds.example:15010", Some(tcp("xds.example", 15010))),
            ("xds.example", Some(tcp("xds.example", 443))),
            ("dns:xds:1", Some(tcp("xds", 1))),
            ("dns:///xds:1", Some(tcp("xds", 1))),
            ("dns://8.8.8.8/xds:1", None),
            ("ipv4:127.0.0.1:80", Some(tcp("127.0.0.1", 80))),
            ("ipv6:[::1]:80", Some(tcp("::1", 80))),
            ("[::1]", Some(tcp("::1", 443))),
            ("::1", Some(tcp("::1", 443))),
            ("unix:/var/run/xds.sock", Some(Address::Unix("/var/run/xds.sock".into()))),
            ("unix:///var/run/xds.sock", Some(Address::Unix("/var/run/xds.sock".into()))),
            ("unix:xds.sock", Some(Address::Unix("xds.sock".into()))),
            ("unix-abstract:x", Some(Address::Unix("@x".into()))),
            ("unix:", None),
            ("xds:///listener", None),
            ("h:99999", None),
            ("[::1", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(uri.parse::<Address>().ok(), want, "{uri}");
        }
    }

    #[test]
    fn authorities() {
        for (target, want) in [
            (Target::Cluster("xds_cluster".into()), "xds_cluster"),
            (Target::Address(tcp("h", 1)), "h:1"),
            (Target::Address(tcp("::1", 1)), "[::1]:1"),
            (Target::Address(Address::Unix("/s".into())), "localhost"),
        ] {
            assert_eq!(target.authority(), want);
        }
    }
}

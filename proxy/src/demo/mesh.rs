//! The mesh: its control plane, its services, and the two proxies between them.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdTcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use xds_client::ROUTE;
use xds_client::server::{ControlPlane, Received};

use super::client::Http2;
use super::process::{Directory, Proxy};
use super::resources::{self, Ports, Typed, Weights};
use super::services::{Service, listen, serve};

/// How long a proxy may take from its start to serving.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proxy may take to accept new routes.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(5);
/// Ports are chosen before the proxies bind them; someone else may be faster.
const ATTEMPTS: usize = 3;

/// Everything that runs. Dropped, it stops.
pub(super) struct Mesh {
    pub(super) ports: Ports,
    pub(super) sidecar: Node,
    pub(super) gateway: Node,
    /// From the start of the first process until both served.
    pub(super) start_time: Duration,
    /// Services and control planes.
    _tasks: JoinSet<()>,
    /// After the proxies, which use it.
    _directory: Directory,
}

/// A proxy, and the control plane's view of it.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) proxy: Proxy,
    /// The port of its admin pages.
    pub(super) admin_port: u16,
    control_plane: ControlPlane,
}

/// How long the proxies took to accept new routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    pub(super) sidecar: Duration,
    pub(super) gateway: Duration,
}

impl Mesh {
    /// Starts a mesh whose proxies are `executable`.
    pub(super) async fn start(executable: &Path, weights: Weights) -> Result<Self, String> {
        let mut attempt = 1;
        loop {
            match Self::attempt(executable, weights).await {
                Err(error) if attempt < ATTEMPTS && error.to_lowercase().contains("in use") => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(executable: &Path, weights: Weights) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let mut tasks = JoinSet::new();
        let (service_a, service_a_port) = listen().await.map_err(text)?;
        let (service_b, service_b_port) = listen().await.map_err(text)?;
        let (service_b_v2, service_b_v2_port) = listen().await.map_err(text)?;
        let reserved = Reserved::new().map_err(text)?;
        let [sidecar_ingress, sidecar_egress, gateway_ingress, gateway_egress] = reserved.ports;
        let ports = Ports {
            service_a: service_a_port,
            service_b: service_b_port,
            service_b_v2: service_b_v2_port,
            sidecar_ingress,
            sidecar_egress,
            gateway_ingress,
            gateway_egress,
        };
        tasks.spawn(serve(service_a, Service::Caller(Http2::new(sidecar_egress))));
        tasks.spawn(serve(service_b, Service::Leaf(resources::SERVICE_B)));
        tasks.spawn(serve(service_b_v2, Service::Leaf(resources::SERVICE_B_V2)));

        let sidecar = publish(&mut tasks, resources::sidecar(&ports, weights)?).await.map_err(text)?;
        let gateway = publish(&mut tasks, resources::gateway(&ports, weights)?).await.map_err(text)?;
        let directory = Directory::new().map_err(text)?;
        drop(reserved);
        let started = Instant::now();
        let start = |name, node, published: &(ControlPlane, u16)| {
            let bootstrap = resources::bootstrap(node, published.1);
            Proxy::start(executable, directory.path(), name, &bootstrap)
                .map_err(|error| format!("{}: {error}", executable.display()))
        };
        let sidecar_proxy = start("sidecar", "virtualNode/serviceA", &sidecar)?;
        let gateway_proxy = start("gateway", "virtualGateway/gateway", &gateway)?;
        let sidecar = Node::ready("sidecar", sidecar_proxy, sidecar.0, [sidecar_ingress, sidecar_egress]);
        let gateway = Node::ready("gateway", gateway_proxy, gateway.0, [gateway_ingress, gateway_egress]);
        let (sidecar, gateway) = tokio::try_join!(sidecar, gateway)?;
        Ok(Self { ports, sidecar, gateway, start_time: started.elapsed(), _tasks: tasks, _directory: directory })
    }

    /// Publishes new weights and waits until both proxies accepted them.
    pub(super) async fn shift(&self, weights: Weights) -> Result<Accepted, String> {
        let sidecar = self.sidecar.update(resources::sidecar_egress_routes(weights)?);
        let gateway = self.gateway.update(resources::gateway_egress_routes(&self.ports, weights)?);
        let (sidecar, gateway) = tokio::try_join!(sidecar, gateway)?;
        Ok(Accepted { sidecar, gateway })
    }

    /// Both proxies.
    pub(super) const fn nodes(&self) -> [&Node; 2] {
        [&self.sidecar, &self.gateway]
    }
}

impl Node {
    /// Waits until the proxy serves what it was sent.
    async fn ready(
        name: &'static str,
        mut proxy: Proxy,
        control_plane: ControlPlane,
        ports: [u16; 2],
    ) -> Result<Self, String> {
        let serving = async {
            let admin_port = proxy.ready().await?;
            for port in ports {
                while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Ok(admin_port)
        };
        let refused = control_plane.wait_for(nack);
        let waited = timeout(START_TIMEOUT, async {
            tokio::select! {
                outcome = serving => outcome,
                reason = refused => Err(format!("its configuration was refused: {reason}")),
            }
        })
        .await
        .unwrap_or_else(|_| Err(format!("it did not serve within {START_TIMEOUT:?}")));
        match waited {
            Ok(admin_port) => Ok(Self { name, proxy, admin_port, control_plane }),
            Err(error) => Err(format!("the {name} did not start: {error}\n{}", proxy.last_words())),
        }
    }

    /// Replaces one resource and waits for the answer to it. How long that took.
    async fn update(&self, (type_url, resource): Typed) -> Result<Duration, String> {
        let published = Instant::now();
        let mut version = String::new();
        self.control_plane.edit(|snapshot| {
            snapshot.put(type_url, resource);
            version = snapshot.version(type_url);
        });
        let answered = self.control_plane.wait_for(|log| match nack(log) {
            Some(reason) => Some(Err(format!("the {} refused its routes: {reason}", self.name))),
            None => log.iter().any(|received| accepts(received, &version)).then_some(Ok(())),
        });
        let late = |_| Err(format!("the {} did not answer within {UPDATE_TIMEOUT:?}", self.name));
        timeout(UPDATE_TIMEOUT, answered).await.unwrap_or_else(late)?;
        Ok(published.elapsed())
    }
}

fn nack(log: &[Received]) -> Option<String> {
    log.iter().find_map(|received| received.nack().map(ToOwned::to_owned))
}

fn accepts(received: &Received, version: &str) -> bool {
    let xds_client::Request::Sotw(request) = &received.request else { return false };
    request.type_url == ROUTE && request.version_info == version && request.error_detail.is_none()
}

/// A control plane of one proxy, at a port of its own: what to send is decided by who asks, and here each asks its own.
async fn publish(tasks: &mut JoinSet<()>, resources: Vec<Typed>) -> io::Result<(ControlPlane, u16)> {
    let control_plane = ControlPlane::new("legate-demo");
    control_plane.edit(|snapshot| {
        for (type_url, resource) in resources {
            snapshot.put(type_url, resource);
        }
    });
    let (listener, port) = listen().await?;
    tasks.spawn(control_plane.clone().serve_tcp(listener));
    Ok((control_plane, port))
}

/// Free ports, kept from others by being bound, until dropped.
struct Reserved {
    ports: [u16; 4],
    _sockets: [StdTcpListener; 4],
}

impl Reserved {
    fn new() -> io::Result<Self> {
        let bind = || StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let sockets = [bind()?, bind()?, bind()?, bind()?];
        let mut ports = [0; 4];
        for (port, socket) in ports.iter_mut().zip(&sockets) {
            *port = socket.local_addr()?.port();
        }
        Ok(Self { ports, _sockets: sockets })
    }
}

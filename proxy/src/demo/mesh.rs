//! The mesh: its control plane, its services, and the two proxies between them.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;
use xds_client::ROUTE;
use xds_client::server::{ControlPlane, Received};

use super::client::Http2;
use super::resources::{self, Ports, Weights};
use super::services::{Service, serve};
use crate::stage::control::{nack, publish, serving};
use crate::stage::ports::{ATTEMPTS, Reserved, listen, taken};
use crate::stage::process::{Directory, Proxy};
use crate::stage::resources::{Typed, bootstrap};

/// How long a proxy may take to accept new routes.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(5);

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
                Err(error) if attempt < ATTEMPTS && taken(&error) => attempt += 1,
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

        let sidecar = publish(&mut tasks, "legate-demo", resources::sidecar(&ports, weights)?).await.map_err(text)?;
        let gateway = publish(&mut tasks, "legate-demo", resources::gateway(&ports, weights)?).await.map_err(text)?;
        let directory = Directory::new("demo").map_err(text)?;
        drop(reserved);
        let started = Instant::now();
        let start = |name, node, published: &(ControlPlane, u16)| {
            let bootstrap = bootstrap(node, published.1);
            Proxy::start(executable, directory.path(), name, &bootstrap, &["--concurrency", "1"])
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
        let admin_port = serving(name, &mut proxy, &control_plane, &ports).await?;
        Ok(Self { name, proxy, admin_port, control_plane })
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

fn accepts(received: &Received, version: &str) -> bool {
    let xds_client::Request::Sotw(request) = &received.request else { return false };
    request.type_url == ROUTE && request.version_info == version && request.error_detail.is_none()
}

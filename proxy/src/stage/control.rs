//! The control plane of one proxy: what to send is decided by who asks, and here each proxy asks its own.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use xds_client::server::{ControlPlane, Received};

use super::ports::listen;
use super::process::Proxy;
use super::resources::Typed;

/// How long a proxy may take from its start to serving.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A control plane that serves these resources at a port of its own, for as long as the tasks run.
pub(crate) async fn publish(
    tasks: &mut JoinSet<()>,
    name: &str,
    resources: Vec<Typed>,
) -> io::Result<(ControlPlane, u16)> {
    let control_plane = ControlPlane::new(name);
    control_plane.edit(|snapshot| {
        for (type_url, resource) in resources {
            snapshot.put(type_url, resource);
        }
    });
    let (listener, port) = listen().await?;
    tasks.spawn(control_plane.clone().serve_tcp(listener));
    Ok((control_plane, port))
}

/// Waits until the proxy says it is ready and these ports of the loopback interface answer. The port of its admin pages.
pub(crate) async fn serving(
    name: &str,
    proxy: &mut Proxy,
    control_plane: &ControlPlane,
    ports: &[u16],
) -> Result<u16, String> {
    let serving = async {
        let admin_port = proxy.ready().await?;
        for port in ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.is_err() {
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
    waited.map_err(|error| format!("the {name} did not start: {error}\n{}", proxy.last_words()))
}

/// Why something was refused, if anything was.
pub(crate) fn nack(log: &[Received]) -> Option<String> {
    log.iter().find_map(|received| received.nack().map(ToOwned::to_owned))
}

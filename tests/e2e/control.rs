//! A control plane on a thread of its own, and resources written as YAML.

use std::net::TcpListener;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use xds_client::proto::{Format, LoadOptions, load};
use xds_client::server::{ControlPlane, Received};
use xds_client::{CLUSTER, ENDPOINTS, LISTENER, ROUTE, RUNTIME, Resource, SECRET};

use crate::support::bootstrap::{ADMIN, cluster, http2, unlogged};
use crate::support::eventually;

/// A running control plane.
pub struct Control {
    /// What it serves.
    pub plane: ControlPlane,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts one that serves nothing yet.
    pub fn start() -> Self {
        Self::serve(ControlPlane::new("test"), TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    /// Ends it, with every stream, and starts another on the same port that knows the same resources.
    pub fn restart(mut self) -> Self {
        self.halt();
        let listener = eventually("the port", || TcpListener::bind(("127.0.0.1", self.port)).ok());
        Self::serve(self.plane.clone(), listener)
    }

    /// Ends it.
    pub fn halt(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn serve(plane: ControlPlane, listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("an address").port();
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = plane.clone();
        let thread = std::thread::spawn(move || {
            crate::support::runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                tokio::select! { () = serving.serve_tcp(listener) => {}, _ = stopped => {} }
            });
        });
        Self { plane, port, stop: Some(stop), thread: Some(thread) }
    }

    /// A bootstrap that gets everything from here over ADS (`GRPC` or `DELTA_GRPC`).
    pub fn bootstrap(&self, api_type: &str) -> String {
        format!(
            "{ADMIN}
node: {{id: test-node, cluster: test-cluster}}
dynamic_resources:
  ads_config: {{api_type: {api_type}, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - {}
",
            cluster("control", &[self.port], &http2())
        )
    }

    /// Replaces the clusters.
    pub fn clusters(&self, clusters: &[String]) {
        self.plane.set(CLUSTER, resources(CLUSTER, clusters));
    }

    /// Replaces the endpoints.
    pub fn endpoints(&self, endpoints: &[String]) {
        self.plane.set(ENDPOINTS, resources(ENDPOINTS, endpoints));
    }

    /// Replaces the listeners.
    pub fn listeners(&self, listeners: &[String]) {
        self.plane.set(LISTENER, resources(LISTENER, listeners));
    }

    /// Replaces the routes.
    pub fn routes(&self, routes: &[String]) {
        self.plane.set(ROUTE, resources(ROUTE, routes));
    }

    /// Replaces the secrets.
    pub fn secrets(&self, secrets: &[String]) {
        self.plane.set(SECRET, resources(SECRET, secrets));
    }

    /// Replaces the layers of the runtime.
    pub fn runtime(&self, layers: &[String]) {
        self.plane.set(RUNTIME, resources(RUNTIME, layers));
    }

    /// Waits for the next NACK of a type.
    #[track_caller]
    pub fn nack(&self, type_url: &str) -> String {
        eventually("a NACK", || {
            let mine = |received: &Received| received.type_url() == type_url;
            self.plane.nacks().into_iter().filter(mine).find_map(|received| received.nack().map(str::to_owned))
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.halt();
    }
}

/// An endpoint assignment with one host per port.
pub fn endpoints(cluster: &str, ports: &[u16]) -> String {
    let host = |port: &u16| {
        format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}")
    };
    let hosts: Vec<String> = ports.iter().map(host).collect();
    format!("{{cluster_name: {cluster}, endpoints: [{{lb_endpoints: [{}]}}]}}", hosts.join(", "))
}

/// An EDS cluster.
pub fn eds_cluster(name: &str, more: &str) -> String {
    format!(
        "{{name: {name}, type: EDS, connect_timeout: 2s, eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}, {more}}}"
    )
}

/// A resource from YAML; its name is the field `name` or `cluster_name` that comes first.
fn resources(type_url: &str, texts: &[String]) -> Vec<Resource> {
    let resource = |text: &String| {
        let name = text.split_once("name: ").map_or("", |(_, rest)| rest.split([',', '}', '\n']).next().unwrap_or(""));
        let options = LoadOptions { source: "test", ..LoadOptions::default() };
        let text = unlogged(text);
        let document = load(text.as_bytes(), Format::Yaml, type_url, &options);
        let document = document.unwrap_or_else(|error| panic!("{error}\n{text}"));
        Resource::new(name.trim(), "", document.bytes().to_vec())
    };
    texts.iter().map(resource).collect()
}

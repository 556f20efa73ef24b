//! The resources of the demo's mesh, in the names and shapes the App Mesh control plane generates.
//!
//! They are written as YAML, as one would write them for a file source.

use std::fmt::Write as _;

use xds_client::{CLUSTER, ENDPOINTS, LISTENER, ROUTE};

use crate::stage::resources::{HTTP2, Typed, UNLIMITED, resource};

/// The mesh of the guide.
pub(super) const MESH: &str = "apps";
/// Where the first version answers.
pub(super) const SERVICE_B: &str = "serviceB";
/// Where the new version answers.
pub(super) const SERVICE_B_V2: &str = "serviceBv2";
/// What `serviceA` asks for.
pub(super) const SERVICE_B_HOST: &str = "serviceb.apps.local";
/// What the gateway asks for.
pub(super) const SERVICE_A_HOST: &str = "servicea.apps.local";
/// The port the services have in the mesh; what they really listen on is in their endpoints.
pub(super) const MESH_PORT: u16 = 80;

/// How the virtual router of `serviceb.apps.local` splits requests, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    /// Of `serviceB`.
    pub(super) v1: u32,
    /// Of `serviceBv2`.
    pub(super) v2: u32,
}

impl Weights {
    /// The first step of the guide: a quarter goes to the new version.
    pub(super) const CANARY: Self = Self { v1: 75, v2: 25 };
    /// The second one: everything does.
    pub(super) const DONE: Self = Self { v1: 0, v2: 100 };
}

impl std::fmt::Display for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} % {SERVICE_B}, {} % {SERVICE_B_V2}", self.v1, self.v2)
    }
}

/// Ports of `127.0.0.1` at which something listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// The application `serviceA`.
    pub(super) service_a: u16,
    /// The application `serviceB`.
    pub(super) service_b: u16,
    /// The application `serviceBv2`.
    pub(super) service_b_v2: u16,
    /// The sidecar's listener for requests to `serviceA` (15000 in App Mesh).
    pub(super) sidecar_ingress: u16,
    /// The sidecar's listener for requests of `serviceA` (15001 in App Mesh).
    pub(super) sidecar_egress: u16,
    /// The gateway's listener for the world.
    pub(super) gateway_ingress: u16,
    /// The gateway's listener for itself (15001 in App Mesh).
    pub(super) gateway_egress: u16,
}

/// The stat name of the sidecar's or gateway's cluster for a service.
pub(super) fn egress_cluster(node: &str) -> String {
    format!("cds_egress_{MESH}_{node}_http2_{MESH_PORT}")
}

/// The route configuration of an egress listener: named after the port of the backends at a sidecar, after the
/// listener's own at a gateway.
pub(super) fn egress_routes(port: u16) -> String {
    format!("rds_egress_http_{port}")
}

/// Everything of the sidecar of `serviceA`.
pub(super) fn sidecar(ports: &Ports, weights: Weights) -> Result<Vec<Typed>, String> {
    let ingress = format!("cds_ingress_{MESH}_serviceA_http2_{MESH_PORT}");
    Ok(vec![
        listener("ingress", ports.sidecar_ingress, &format!("rds_ingress_http_{MESH_PORT}"))?,
        listener("egress", ports.sidecar_egress, &egress_routes(MESH_PORT))?,
        routes(&format!("rds_ingress_http_{MESH_PORT}"), &[everything(&ingress)])?,
        sidecar_egress_routes(weights)?,
        static_cluster(&ingress, ports.service_a, true)?,
        eds_cluster(SERVICE_B)?,
        eds_cluster(SERVICE_B_V2)?,
        endpoints(SERVICE_B, ports.service_b)?,
        endpoints(SERVICE_B_V2, ports.service_b_v2)?,
    ])
}

/// The routes of the sidecar that a canary changes.
pub(super) fn sidecar_egress_routes(weights: Weights) -> Result<Typed, String> {
    routes(&egress_routes(MESH_PORT), &[virtual_service(SERVICE_B_HOST, MESH_PORT, &split(weights))])
}

/// Everything of the gateway.
pub(super) fn gateway(ports: &Ports, weights: Weights) -> Result<Vec<Typed>, String> {
    let port = ports.gateway_egress;
    let itself = format!("cds_ingress_{MESH}_gateway_self_redirect_http_{port}");
    let ingress = format!("rds_ingress_http_{}", ports.gateway_ingress);
    Ok(vec![
        listener("ingress", ports.gateway_ingress, &ingress)?,
        listener("egress", port, &egress_routes(port))?,
        routes(&ingress, &[self_redirect(&itself)])?,
        gateway_egress_routes(ports, weights)?,
        static_cluster(&itself, port, false)?,
        eds_cluster("serviceA")?,
        eds_cluster(SERVICE_B)?,
        eds_cluster(SERVICE_B_V2)?,
        // The mesh meets `serviceA` at its sidecar, never at the application itself.
        endpoints("serviceA", ports.sidecar_ingress)?,
        endpoints(SERVICE_B, ports.service_b)?,
        endpoints(SERVICE_B_V2, ports.service_b_v2)?,
    ])
}

/// The routes of the gateway that a canary changes.
pub(super) fn gateway_egress_routes(ports: &Ports, weights: Weights) -> Result<Typed, String> {
    let port = ports.gateway_egress;
    let hosts = [
        virtual_service(SERVICE_A_HOST, port, &[("serviceA", 100)]),
        virtual_service(SERVICE_B_HOST, port, &split(weights)),
    ];
    routes(&egress_routes(port), &hosts)
}

fn split(weights: Weights) -> [(&'static str, u32); 2] {
    // A target of weight 0 stays in the route, as App Mesh leaves it.
    [(SERVICE_B, weights.v1), (SERVICE_B_V2, weights.v2)]
}

fn listener(side: &str, port: u16, route_config: &str) -> Result<Typed, String> {
    let name = format!("lds_{side}_127.0.0.1_{port}");
    let direction = if side == "ingress" { "INBOUND" } else { "OUTBOUND" };
    let yaml = format!(
        "\
name: {name}
traffic_direction: {direction}
address:
  socket_address: {{ address: 127.0.0.1, port_value: {port} }}
listener_filters:
- name: envoy.filters.listener.tls_inspector
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
filter_chains:
- filter_chain_match: {{ destination_port: {port} }}
  filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: {side}
      rds:
        route_config_name: {route_config}
        config_source:
          ads: {{}}
          resource_api_version: V3
      http_filters:
      - name: envoy.filters.http.router
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
      upgrade_configs:
      - upgrade_type: websocket
      normalize_path: true
      merge_slashes: true
      path_with_escaped_slashes_action: KEEP_UNCHANGED
"
    );
    resource(LISTENER, &name, &yaml)
}

fn routes(name: &str, virtual_hosts: &[String]) -> Result<Typed, String> {
    let yaml = format!("name: {name}\nvirtual_hosts:\n{}", virtual_hosts.concat());
    resource(ROUTE, name, &yaml)
}

/// Requests to an own application.
fn everything(cluster: &str) -> String {
    format!(
        "\
- name: '*'
  domains: ['*']
  routes:
  - match: {{ prefix: / }}
    route: {{ cluster: {cluster}, timeout: 15s }}
"
    )
}

/// The routes of a virtual service: always weighted, be it with one target.
fn virtual_service(host: &str, port: u16, targets: &[(&str, u32)]) -> String {
    let mut clusters = String::new();
    for (node, weight) in targets {
        // Writing to a `String` cannot fail.
        let _ = writeln!(clusters, "        - {{ name: {}, weight: {weight} }}", egress_cluster(node));
    }
    format!(
        "\
- name: {host}
  domains: ['{host}', '{host}:{port}']
  routes:
  - match: {{ prefix: / }}
    route:
      timeout: 15s
      weighted_clusters:
        clusters:
{clusters}"
    )
}

/// The gateway's first hop: the prefix becomes `/`, the host that of the service, and the request comes back to the
/// gateway's egress listener.
fn self_redirect(cluster: &str) -> String {
    let mut routes = String::new();
    for (prefix, host) in [("/servicea", SERVICE_A_HOST), ("/serviceb", SERVICE_B_HOST)] {
        for prefix in [format!("{prefix}/"), prefix.to_owned()] {
            let _ = write!(
                routes,
                "\
\x20 - match: {{ prefix: {prefix} }}
    route:
      cluster: {cluster}
      prefix_rewrite: /
      host_rewrite_literal: {host}
      timeout: 15s
"
            );
        }
    }
    format!("- name: self_redirect\n  domains: ['*']\n  routes:\n{routes}")
}

fn static_cluster(name: &str, port: u16, http2: bool) -> Result<Typed, String> {
    let options = if http2 { HTTP2 } else { "" };
    let yaml = format!(
        "    name: {name}
    type: STATIC
    connect_timeout: 0.250s
{options}{}{}",
        UNLIMITED,
        load_assignment(name, port)
    );
    resource(CLUSTER, name, &yaml)
}

fn eds_cluster(node: &str) -> Result<Typed, String> {
    let name = egress_cluster(node);
    let yaml = format!(
        "    name: {name}
    type: EDS
    connect_timeout: 1s
    eds_cluster_config:
      eds_config:
        ads: {{}}
        resource_api_version: V3
{HTTP2}{}",
        UNLIMITED
    );
    resource(CLUSTER, &name, &yaml)
}

fn load_assignment(cluster: &str, port: u16) -> String {
    format!(
        "    load_assignment:
      cluster_name: {cluster}
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: 127.0.0.1, port_value: {port} }}
"
    )
}

fn endpoints(node: &str, port: u16) -> Result<Typed, String> {
    let name = egress_cluster(node);
    let yaml = format!(
        "\
cluster_name: {name}
endpoints:
- lb_endpoints:
  - endpoint:
      address:
        socket_address: {{ address: 127.0.0.1, port_value: {port} }}
"
    );
    resource(ENDPOINTS, &name, &yaml)
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
    use envoy_types::pb::envoy::config::route::v3::route::Action;
    use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
    use prost::Message as _;
    use xds_client::proto::{CheckOptions, check};

    const PORTS: Ports = Ports {
        service_a: 1,
        service_b: 2,
        service_b_v2: 3,
        sidecar_ingress: 4,
        sidecar_egress: 5,
        gateway_ingress: 6,
        gateway_egress: 7,
    };

    #[test]
    fn every_resource_passes_the_checks_a_proxy_makes() {
        let all = [sidecar(&PORTS, Weights::CANARY).unwrap(), gateway(&PORTS, Weights::DONE).unwrap()].concat();
        for (type_url, resource) in &all {
            let body = resource.body.as_deref().unwrap();
            let report = check(type_url, body, &CheckOptions { validate: true, ..Default::default() })
                .unwrap_or_else(|error| panic!("{}: {error}", resource.name));
            assert_eq!(report.deprecated, [], "{}", resource.name);
        }
        assert_eq!(all.len(), 20);
    }

    #[test]
    fn a_canary_changes_the_weights_of_the_route() {
        let (_, resource) = sidecar_egress_routes(Weights::CANARY).unwrap();
        let routes = RouteConfiguration::decode(resource.body.unwrap()).unwrap();
        let Some(Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else { panic!("no route") };
        let Some(ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier else {
            panic!("no weights")
        };
        let weights: Vec<_> =
            weighted.clusters.iter().map(|c| (c.name.as_str(), c.weight.unwrap_or_default().value)).collect();
        let expected = [("cds_egress_apps_serviceB_http2_80", 75), ("cds_egress_apps_serviceBv2_http2_80", 25)];
        assert_eq!(weights, expected);
    }
}

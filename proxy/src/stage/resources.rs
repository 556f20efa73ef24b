//! Resources and bootstraps, in the shapes the App Mesh control plane and agent generate.
//!
//! They are written as YAML, as one would write them for a file source, and become wire bytes through the same reader
//! that loads a bootstrap.

use xds_client::Resource;
use xds_client::proto::{Format, LoadOptions, load};

/// A resource and the type it is of.
pub(crate) type Typed = (&'static str, Resource);

/// The bootstrap of one proxy: who it is, and where its control plane is.
pub(crate) fn bootstrap(node: &str, control_plane: u16) -> String {
    format!(
        "\
node:
  id: mesh/apps/{node}
  cluster: mesh/apps/{node}
admin:
  address:
    socket_address: {{ address: 127.0.0.1, port_value: 0 }}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {{ cluster_name: control_plane }}
  lds_config:
    ads: {{}}
    resource_api_version: V3
  cds_config:
    ads: {{}}
    resource_api_version: V3
static_resources:
  clusters:
  - name: control_plane
    type: STATIC
    connect_timeout: 1s
{HTTP2}    load_assignment:
      cluster_name: control_plane
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: 127.0.0.1, port_value: {control_plane} }}
"
    )
}

/// Cluster settings: the hosts speak HTTP/2. Indented for a cluster in a list; YAML takes it at any depth of its own.
pub(crate) const HTTP2: &str = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {}
";

/// App Mesh lifts the limits of every cluster, for the default priority.
pub(crate) const UNLIMITED: &str = "    circuit_breakers:
      thresholds:
      - priority: DEFAULT
        max_connections: 2147483647
        max_pending_requests: 2147483647
        max_requests: 2147483647
        max_retries: 2147483647
";

/// A resource written as YAML.
pub(crate) fn resource(type_url: &'static str, name: &str, yaml: &str) -> Result<Typed, String> {
    let options = LoadOptions { source: name, ..LoadOptions::default() };
    let document =
        load(yaml.as_bytes(), Format::Yaml, type_url, &options).map_err(|error| format!("{name}: {error}"))?;
    // The control plane counts versions itself.
    Ok((type_url, Resource::new(name, "", document.bytes().to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;

    #[test]
    fn a_bootstrap_is_one() {
        let yaml = bootstrap("virtualNode/serviceA", 18000);
        let name = "envoy.config.bootstrap.v3.Bootstrap";
        let document = load(yaml.as_bytes(), Format::Yaml, name, &LoadOptions::default()).unwrap();
        let bootstrap: Bootstrap = document.decode().unwrap();
        assert_eq!(bootstrap.node.unwrap().id, "mesh/apps/virtualNode/serviceA");
    }
}

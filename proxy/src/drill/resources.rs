//! What the control plane of the drill sends, in the names and shapes of App Mesh: one virtual service whose virtual node
//! is found by Cloud Map, with the retry policy every route has that names none.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use xds_client::{CLUSTER, ENDPOINTS, LISTENER, ROUTE};

use super::fault::Protocol;
use super::message::KEPT;
use crate::stage::resources::{Typed, UNLIMITED, resource};

/// What clients ask for.
pub(super) const HOST: &str = "drilled.apps.local";
/// The cluster of the hosts.
pub(super) const CLUSTER_NAME: &str = "cds_egress_apps_drilled_80";
const ROUTES: &str = "rds_egress_http_80";
/// Tries of a request: the first, and the retries.
pub(super) const TRIES: u32 = 3;
/// How long one try may take.
pub(super) const TRY_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a request may take: enough for all tries, whatever becomes of them.
pub(super) const ROUTE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a connection to a host rests before it is closed.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Everything but the endpoints.
pub(super) fn fixed(protocol: Protocol, port: u16, access_log: &Path, outliers: bool) -> Result<Vec<Typed>, String> {
    Ok(vec![listener(port, access_log)?, routes()?, cluster(protocol, outliers)?])
}

/// The endpoints.
pub(super) fn endpoints(hosts: impl IntoIterator<Item = SocketAddr>) -> Result<Typed, String> {
    let mut yaml = format!("cluster_name: {CLUSTER_NAME}\nendpoints:\n- lb_endpoints:\n");
    for host in hosts {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            yaml,
            "  - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}",
            host.ip(),
            host.port()
        );
    }
    resource(ENDPOINTS, CLUSTER_NAME, &yaml)
}

fn listener(port: u16, access_log: &Path) -> Result<Typed, String> {
    let name = format!("lds_egress_127.0.0.1_{port}");
    let format = Evidence::FORMAT;
    let yaml = format!(
        "\
name: {name}
traffic_direction: OUTBOUND
address:
  socket_address: {{ address: 127.0.0.1, port_value: {port} }}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: egress
      rds:
        route_config_name: {ROUTES}
        config_source:
          ads: {{}}
          resource_api_version: V3
      http_filters:
      - name: envoy.filters.http.router
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
      upgrade_configs:
      - upgrade_type: websocket
      access_log:
      - name: envoy.access_loggers.file
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
          path: '{}'
          log_format:
            text_format_source: {{ inline_string: \"{format}\\n\" }}
",
        access_log.display()
    );
    resource(LISTENER, &name, &yaml)
}

fn routes() -> Result<Typed, String> {
    let yaml = format!(
        "\
name: {ROUTES}
virtual_hosts:
- name: {HOST}
  domains: ['{HOST}', '{HOST}:80']
  per_request_buffer_limit_bytes: {KEPT}
  routes:
  - match: {{ prefix: / }}
    route:
      timeout: {}s
      weighted_clusters:
        clusters:
        - {{ name: {CLUSTER_NAME}, weight: 100 }}
      retry_policy:
        retry_on: unavailable,reset,connect-failure,refused-stream,retriable-status-codes
        num_retries: {}
        retriable_status_codes: [503]
        per_try_timeout: {}s
        retry_host_predicate:
        - name: envoy.retry_host_predicates.previous_hosts
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
        host_selection_retry_max_attempts: 5
",
        ROUTE_TIMEOUT.as_secs_f32(),
        TRIES - 1,
        TRY_TIMEOUT.as_secs_f32(),
    );
    resource(ROUTE, ROUTES, &yaml)
}

fn cluster(protocol: Protocol, outliers: bool) -> Result<Typed, String> {
    let rest = REST.as_secs_f32();
    let codec = match protocol {
        Protocol::Http1 => "http_protocol_options",
        Protocol::Http2 | Protocol::Grpc => "http2_protocol_options",
    };
    let outliers = if outliers { OUTLIERS } else { "" };
    let yaml = format!(
        "    name: {CLUSTER_NAME}
    type: EDS
    connect_timeout: 0.250s
    ignore_health_on_host_removal: true
    eds_cluster_config:
      eds_config:
        ads: {{}}
        resource_api_version: V3
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{ idle_timeout: {rest}s }}
        explicit_http_config:
          {codec}: {{}}
{outliers}{UNLIMITED}"
    );
    resource(CLUSTER, CLUSTER_NAME, &yaml)
}

/// What App Mesh makes of `outlierDetection` of three server errors, with an interval and ejections as short as the drill's
/// phases are.
const OUTLIERS: &str = "    outlier_detection:
      consecutive_5xx: 3
      interval: 0.5s
      base_ejection_time: 1s
      max_ejection_percent: 50
      enforcing_consecutive_5xx: 100
      enforcing_success_rate: 0
";

/// A line of the access log: what the proxy says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) id: u64,
    pub(super) status: u16,
    pub(super) flags: String,
    pub(super) details: String,
    /// Tries that it made.
    pub(super) tries: u32,
    pub(super) duration: Duration,
    /// The host of the last one.
    pub(super) host: Option<SocketAddr>,
}

impl Evidence {
    const FORMAT: &str = "%REQ(X-DRILL-ID)% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% \
                          %DURATION% %UPSTREAM_HOST% %RESPONSE_CODE_DETAILS%";

    /// Reads a line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        let mut word = || words.next();
        let number = |word: Option<&str>| word?.parse::<u64>().ok();
        let id = number(word())?;
        let status = u16::try_from(number(word())?).ok()?;
        let flags = word()?.to_owned();
        // A dash where no try was made.
        let tries = number(word()).and_then(|tries| u32::try_from(tries).ok()).unwrap_or_default();
        let duration = Duration::from_millis(number(word())?);
        let host = word()?.parse().ok();
        Some(Self { id, status, flags, details: word()?.to_owned(), tries, duration, host })
    }
}

#[cfg(test)]
mod tests {
    use xds_client::proto::{CheckOptions, check};

    use super::*;

    #[test]
    fn every_resource_passes_the_checks_a_proxy_makes() {
        for protocol in Protocol::ALL {
            let mut all = fixed(protocol, 15001, Path::new("/tmp/log"), true).unwrap();
            all.push(endpoints(["127.0.0.2:80".parse().unwrap(), "127.0.0.3:80".parse().unwrap()]).unwrap());
            for (type_url, resource) in &all {
                let body = resource.body.as_deref().unwrap();
                check(type_url, body, &CheckOptions { validate: true, ..Default::default() })
                    .unwrap_or_else(|error| panic!("{}: {error}", resource.name));
            }
        }
    }

    #[test]
    fn a_line_is_evidence() {
        let line = "17 503 UF,URX 3 812 127.64.0.9:4000 upstream_reset_before_response_started{connection_timeout}";
        let evidence = Evidence::parse(line).unwrap();
        assert_eq!((evidence.id, evidence.status, evidence.tries), (17, 503, 3));
        assert_eq!(evidence.flags, "UF,URX");
        assert_eq!(evidence.duration, Duration::from_millis(812));
        assert_eq!(evidence.host, "127.64.0.9:4000".parse().ok());
        assert!(evidence.details.starts_with("upstream_reset"));
        let early = Evidence::parse("3 0 DC - 5 - downstream_remote_disconnect").unwrap();
        assert_eq!((early.tries, early.host), (0, None));
        assert_eq!(Evidence::parse("- 404 NR"), None);
    }
}

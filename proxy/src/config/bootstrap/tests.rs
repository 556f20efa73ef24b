//! Bootstraps as App Mesh, Istio and Consul write them, and what is wrong with bad ones.

use filters::config::{Session, Warning};

use super::runtime::LayerSource;
use super::*;
use crate::cli::{Command, parse as parse_arguments};
use crate::overload::{Action, Monitor};

fn options(args: &[&str]) -> Options {
    match parse_arguments(std::iter::once("legate").chain(args.iter().copied()).map(str::to_owned)) {
        Ok(Command::Run(options)) => *options,
        other => panic!("{other:?}"),
    }
}

fn load_yaml(yaml: &str, args: &[&str]) -> (Result<Loaded, String>, Vec<Warning>) {
    let session = Session::default();
    let options = options(&[&["--config-yaml", yaml], args].concat());
    let loaded = load(&options, &session).map_err(|error| error.to_string());
    (loaded, session.take_warnings())
}

fn good(yaml: &str) -> (Bootstrap, Vec<String>) {
    let (loaded, warnings) = load_yaml(yaml, &[]);
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    (loaded.bootstrap, warnings.into_iter().map(|warning| warning.key).collect())
}

fn bad(yaml: &str) -> String {
    load_yaml(yaml, &[]).0.unwrap_err()
}

const APP_MESH: &str = r#"
node:
  id: mesh/m/virtualNode/n
  cluster: mesh/m/virtualNode/n
  locality: {region: eu-west-1, zone: euw1-az1}
  metadata: {aws.appmesh.static_runtime: {re2.max_program_size.error_level: 1000}, aws.appmesh.platformInfo: {supportedIPFamilies: ALL}}
admin:
  accessLog:
  - {name: envoy.access_loggers.file, typedConfig: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/envoy_admin_access.log}}
  address: {pipe: {path: /tmp/envoy_admin.sock, mode: 438}}
dynamicResources:
  adsConfig:
    apiType: GRPC
    transportApiVersion: V3
    grpcServices:
    - googleGrpc:
        statPrefix: ads
        targetUri: appmesh-envoy-management.eu-west-1.amazonaws.com:443
        channelCredentials: {sslCredentials: {rootCerts: {filename: /etc/pki/tls/cert.pem}}}
        credentialsFactoryName: envoy.grpc_credentials.aws_iam
        callCredentials:
        - fromPlugin:
            name: envoy.grpc_credentials.aws_iam
            typedConfig: {"@type": type.googleapis.com/envoy.config.grpc_credential.v3.AwsIamConfig, serviceName: appmesh, region: eu-west-1}
        channelArgs: {args: {grpc.http2.max_pings_without_data: {intValue: 0}, grpc.keepalive_time_ms: {intValue: 10000}, grpc.keepalive_timeout_ms: {intValue: 20000}}}
  ldsConfig: {ads: {}, initialFetchTimeout: 0s, resourceApiVersion: V3}
  cdsConfig: {ads: {}, initialFetchTimeout: 60s, resourceApiVersion: V3}
clusterManager: {outlierDetection: {eventLogPath: /dev/stdout}}
layeredRuntime:
  layers:
  - name: static_layer_0
    staticLayer: {envoy.features.enable_all_deprecated_features: true, re2.max_program_size.error_level: 1000}
  - {name: admin_layer, adminLayer: {}}
staticResources:
  clusters:
  - name: static_cluster_sds_unix_socket
    connectTimeout: 1s
    type: STATIC
    http2ProtocolOptions: {}
    loadAssignment: {clusterName: static_cluster_sds_unix_socket, endpoints: [{lbEndpoints: [{endpoint: {address: {pipe: {path: /run/spire/sockets/agent.sock}}}}]}]}
tracing:
  http:
    name: envoy.tracers.zipkin
    typedConfig: {"@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collectorCluster: jaeger, collectorEndpoint: /api/v2/spans, collectorEndpointVersion: HTTP_PROTO}
statsConfig:
  statsTags:
  - {tagName: appmesh.mesh, fixedValue: m}
  - {tagName: appmesh.listener_protocol, regex: '.*?\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$'}
statsSinks:
- {name: envoy.stat_sinks.dog_statsd, typedConfig: {"@type": type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink, address: {socketAddress: {address: 127.0.0.1, portValue: 8125, protocol: UDP}}}}
statsFlushInterval: 10s
"#;

#[test]
fn app_mesh_loads() {
    let (bootstrap, warnings) = good(APP_MESH);
    let admin = bootstrap.admin.unwrap();
    assert_eq!((admin.mode, admin.access_log.len()), (0o666, 1));
    let ads = bootstrap.dynamic.ads.unwrap();
    assert!(ads.aggregated);
    assert!(matches!(&ads.service.target, xds_client::Target::Secure(xds_client::Address::Tcp { port: 443, .. }, _)));
    let signed = xds_client::CallCredentials::AwsIam { service: "appmesh".to_owned(), region: "eu-west-1".to_owned() };
    assert_eq!(ads.service.credentials, [signed]);
    assert_eq!(bootstrap.dynamic.listeners.unwrap().initial_fetch_timeout, None);
    assert_eq!(bootstrap.dynamic.clusters.unwrap().initial_fetch_timeout, Some(Duration::from_secs(60)));
    assert_eq!(bootstrap.regex_limits.error_level, 1000);
    assert_eq!(bootstrap.layers[1].source, LayerSource::Admin);
    assert_eq!(bootstrap.stats_flush, Flush::Every(Duration::from_secs(10)));
    assert_eq!(bootstrap.clusters[0].0, "static_cluster_sds_unix_socket");
    assert_eq!(bootstrap.node.user_agent_name, "envoy");
    for key in ["tracing", "stats_sinks"] {
        assert!(warnings.contains(&format!("envoy.config.bootstrap.v3.Bootstrap.{key}")), "{warnings:?}");
    }
}

const ISTIO: &str = r#"
application_log_config: {log_format: {text_format: "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}}
node: {id: sidecar~10.0.0.1~app-1.default~default.svc.cluster.local, cluster: app.default, metadata: {PROXY_CONFIG: {concurrency: 2}, LABELS: {app: a}}}
layered_runtime:
  layers:
  - name: global config
    static_layer:
      envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst: "true"
      re2.max_program_size.error_level: "32768"
      overload.global_downstream_max_connections: "2147483647"
      envoy.reloadable_features.http_reject_path_with_fragment: "false"
  - {name: admin, admin_layer: {}}
bootstrap_extensions:
- {name: envoy.bootstrap.internal_listener, typed_config: {"@type": type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener}}
stats_config:
  stats_tags:
  - {tag_name: cluster_name, regex: '^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)'}
  use_all_default_tags: false
  stats_matcher: {inclusion_list: {patterns: [{prefix: cluster_manager}, {suffix: downstream_cx_active}, {safe_regex: {regex: 'http.*rq'}}]}}
  histogram_bucket_settings: [{match: {prefix: istiocustom}, buckets: [5, 0.5, 10]}]
admin: {access_log: [], profile_path: /var/lib/istio/data/envoy.prof, address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
dynamic_resources:
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  cds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  ads_config:
    api_type: DELTA_GRPC
    set_node_on_first_message_only: true
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]
static_resources:
  clusters:
  - {name: xds-grpc, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: xds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: ./etc/istio/proxy/XDS}}}}]}]}}
  listeners:
  - {address: {socket_address: {protocol: TCP, address: 0.0.0.0, port_value: 15090}}, filter_chains: [{filters: []}]}
cluster_manager: {outlier_detection: {event_log_path: /dev/stdout}}
"#;

#[test]
fn istio_loads() {
    let (bootstrap, _) = good(ISTIO);
    let ads = bootstrap.dynamic.ads.unwrap();
    assert_eq!(ads.mode, xds_client::Mode::Delta);
    assert!(ads.node_on_first_message_only && ads.service.credentials.is_empty());
    assert_eq!(bootstrap.regex_limits.error_level, 32_768, "numbers may be quoted");
    assert!(bootstrap.log_format.unwrap().starts_with("%Y-%m-%dT%T"));
    assert!(bootstrap.stats.matcher.rejects("server.live"));
    assert!(!bootstrap.stats.matcher.rejects("listener.a.downstream_cx_active"));
    assert_eq!(bootstrap.stats.histogram_buckets[0].buckets, [0.5, 5.0, 10.0]);
}

const CONSUL: &str = r#"{
  "admin": {"access_log_path": "/dev/null", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 19000}}},
  "node": {"cluster": "web", "id": "web-proxy", "metadata": {"namespace": "default", "partition": "default"}},
  "layered_runtime": {"layers": [{"name": "base", "static_layer": {"re2.max_program_size.error_level": 1048576}}]},
  "static_resources": {"clusters": [{"name": "local_agent", "ignore_health_on_host_removal": false, "connect_timeout": "1s", "type": "STATIC", "http2_protocol_options": {},
    "loadAssignment": {"clusterName": "local_agent", "endpoints": [{"lbEndpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 8502}}}}]}]}}]},
  "stats_config": {"stats_tags": [{"regex": "^cluster\\.(?:passthrough~)?((?:([^.]+)~)?(?:[^.]+\\.)?[^.]+\\.[^.]+\\.(?:[^.]+\\.)?[^.]+\\.[^.]+\\.[^.]+\\.consul\\.)", "tag_name": "consul.destination.custom_hash"}, {"tag_name": "local_cluster", "fixed_value": "web"}], "use_all_default_tags": true},
  "dynamic_resources": {"lds_config": {"ads": {}, "resource_api_version": "V3"}, "cds_config": {"ads": {}, "resource_api_version": "V3"},
    "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": {"initial_metadata": [{"key": "x-consul-token", "value": "secret"}], "envoy_grpc": {"cluster_name": "local_agent"}}}}
}"#;

#[test]
fn consul_loads() {
    let (bootstrap, warnings) = good(CONSUL);
    assert_eq!(bootstrap.dynamic.ads.unwrap().service.initial_metadata[0].0, "x-consul-token");
    assert!(warnings.contains(&"envoy.config.bootstrap.v3.Admin.access_log_path".to_owned()));
}

#[test]
fn overload_managers_of_gateways_load() {
    let (bootstrap, warnings) = good(
        r#"
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - {name: envoy.resource_monitors.fixed_heap, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 1000}}
  - {name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 50000}}
  actions:
  - {name: envoy.overload_actions.shrink_heap, triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]}
  - {name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.9, saturation_threshold: 0.98}}]}
  - {name: envoy.overload_actions.reduce_timeouts, triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}]}
"#,
    );
    assert_eq!(bootstrap.overload.refresh_interval, Duration::from_millis(250));
    assert_eq!(bootstrap.overload.max_downstream_connections, Some(50_000));
    assert_eq!(bootstrap.overload.monitors[0].1, Monitor::FixedHeap { max_heap_size_bytes: 1000 });
    let actions: Vec<_> = bootstrap.overload.actions.iter().map(|action| action.action).collect();
    assert_eq!(actions, [Action::ShrinkHeap, Action::StopAcceptingRequests]);
    assert_eq!(warnings, ["envoy.config.overload.v3.OverloadManager.actions"]);
}

#[test]
fn the_command_line_wins_over_the_node() {
    let args = ["--service-node", "n", "--service-cluster", "c", "--service-zone", "z"];
    let (loaded, _) = load_yaml("node: {id: x, locality: {region: r}}", &args);
    let node = loaded.unwrap().bootstrap.node;
    let locality = node.locality.unwrap();
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("n", "c"));
    assert_eq!((locality.region.as_str(), locality.zone.as_str()), ("r", "z"));
}

#[test]
fn inline_yaml_lies_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b.json");
    std::fs::write(&path, r#"{"node": {"id": "file", "cluster": "c"}}"#).unwrap();
    let (loaded, _) = load_yaml("node: {id: inline}", &["-c", path.to_str().unwrap()]);
    let node = loaded.unwrap().bootstrap.node;
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("inline", "c"));
}

#[test]
fn bad_bootstraps_are_refused_with_their_place() {
    let listener = "dynamic_resources: {lds_config: {path_config_source: {path: /dev/null}}}";
    for (yaml, expected) in [
        (listener, "node 'id' and 'cluster' are required"),
        ("{bogus: 1}", "bogus"),
        ("stats_flush_interval: 600s", "stats_flush_interval"),
        (
            "{stats_flush_interval: 5s, stats_flush_on_admin: true}",
            "Only one of stats_flush_interval or stats_flush_on_admin",
        ),
        ("header_prefix: x-foo", "envoy.config.bootstrap.v3.Bootstrap.header_prefix is not supported by Legate"),
        ("layered_runtime: {layers: [{name: a, static_layer: {x: [1]}}]}", "Invalid runtime entry value for x"),
        (
            "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: a, admin_layer: {}}]}",
            "Duplicate layer name: a",
        ),
        (
            "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: b, admin_layer: {}}]}",
            "Too many admin layers",
        ),
        ("stats_config: {stats_tags: [{tag_name: nobody}]}", "No regex specified for tag specifier"),
        ("admin: {address: {socket_address: {address: localhost, port_value: 1}}}", "malformed IP address: localhost"),
    ] {
        let error = bad(yaml);
        assert!(error.contains(expected), "{yaml}: {error}");
        assert!(error.starts_with("--config-yaml:1:"), "{yaml}: {error}");
    }
    assert!(load_yaml("{bogus: 1}", &["--allow-unknown-static-fields"]).0.unwrap().unknown_fields[0].contains("bogus"));
    let session = Session::default();
    let nothing = load(&options(&[]), &session).unwrap_err().to_string();
    assert!(nothing.starts_with("At least one of --config-path or --config-yaml"), "{nothing}");
    let unreadable = load(&options(&["-c", "/no/such.yaml"]), &session).unwrap_err().to_string();
    assert!(unreadable.starts_with("unable to read file: /no/such.yaml"), "{unreadable}");
}

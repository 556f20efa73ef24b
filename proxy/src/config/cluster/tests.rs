//! Verdicts and words as the real Envoy's `--mode validate` gives them on the same clusters.

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig,
    LbConfig as ProtoLbConfig, LbPolicy as ProtoPolicy, LeastRequestLbConfig, OriginalDstLbConfig, RefreshRate,
    common_lb_config,
};
use envoy_types::pb::envoy::config::cluster::v3::{LoadBalancingPolicy, circuit_breakers, load_balancing_policy};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use envoy_types::pb::envoy::extensions::load_balancing_policies as policies;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
use envoy_types::util::pack_any;
use filters::config::Session;

use super::*;
use crate::config::endpoint::LoadAssignment;
use crate::config::http2::Http2Options;

fn of_type(kind: DiscoveryType) -> proto::Cluster {
    proto::Cluster {
        name: "c".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        ..Default::default()
    }
}

fn extension(name: &str, typed_config: Option<google::Any>) -> proto::Cluster {
    let kind = ClusterDiscoveryType::ClusterType(CustomClusterType { name: name.to_owned(), typed_config });
    proto::Cluster { cluster_discovery_type: Some(kind), ..of_type(DiscoveryType::Static) }
}

fn address(text: &str) -> core::SocketAddress {
    core::SocketAddress {
        address: text.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
        ..Default::default()
    }
}

fn endpoints(addresses: &[&str]) -> Option<endpoint::ClusterLoadAssignment> {
    let lb_endpoints = addresses.iter().map(|text| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(core::Address { address: Some(core::address::Address::SocketAddress(address(text))) }),
            ..Default::default()
        })),
        ..Default::default()
    });
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: lb_endpoints.collect(), ..Default::default() };
    Some(endpoint::ClusterLoadAssignment {
        cluster_name: "c".to_owned(),
        endpoints: vec![locality],
        ..Default::default()
    })
}

fn typed_policy(list: Vec<(&str, google::Any)>) -> Option<LoadBalancingPolicy> {
    let policy = |(name, any): (&str, _)| load_balancing_policy::Policy {
        typed_extension_config: Some(core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any) }),
    };
    Some(LoadBalancingPolicy { policies: list.into_iter().map(policy).collect() })
}

fn http_options(explicit: upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig) -> google::Any {
    use upstream_http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    pack_any(upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(explicit),
        })),
        ..Default::default()
    })
}

fn parse(proto: proto::Cluster) -> Result<ClusterConfig, ConfigError> {
    ClusterConfig::parse(Session::default().root(), proto)
}

fn strict(resolver_config: impl FnOnce(&mut proto::Cluster)) -> proto::Cluster {
    let mut proto = proto::Cluster { load_assignment: endpoints(&["a.b"]), ..of_type(DiscoveryType::StrictDns) };
    resolver_config(&mut proto);
    proto
}

fn given(change: impl FnOnce(&mut proto::Cluster)) -> proto::Cluster {
    let mut proto = proto::Cluster { load_assignment: endpoints(&["127.0.0.1"]), ..of_type(DiscoveryType::Static) };
    change(&mut proto);
    proto
}

fn duration_of(seconds: i64) -> Option<google::Duration> {
    Some(google::Duration { seconds, nanos: 0 })
}

#[test]
fn a_bare_cluster_has_envoys_defaults() {
    let config = parse(proto::Cluster { name: "a:b".to_owned(), ..Default::default() }).unwrap();
    assert_eq!((&*config.stat_name, &*config.observability_name), ("a_b", "a:b"));
    assert_eq!(config.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.per_connection_buffer_limit, 1 << 20);
    assert_eq!(config.lb, LbConfig::default());
    assert_eq!(config.http.common.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(config.circuit_breakers.high, Thresholds::default());
    let expected = LoadAssignment { cluster_name: "a:b".into(), ..LoadAssignment::default() };
    assert_eq!(config.discovery, Discovery::Static(expected), "no load_assignment is an empty one");
}

#[test]
fn what_envoy_accepts() {
    let dns = || Some(pack_any(DnsCluster::default()));
    let round_robin = || pack_any(policies::round_robin::v3::RoundRobin::default());
    let unknown = || pack_any(core::SocketAddress::default());
    for (what, proto) in [
        ("STRICT_DNS without endpoints", of_type(DiscoveryType::StrictDns)),
        ("STRICT_DNS of an address", strict(|c| c.load_assignment = endpoints(&["127.0.0.1"]))),
        (
            "envoy.cluster.static",
            given(|c| c.cluster_discovery_type = extension("envoy.cluster.static", None).cluster_discovery_type),
        ),
        (
            "envoy.cluster.dns",
            strict(|c| c.cluster_discovery_type = extension("envoy.cluster.dns", dns()).cluster_discovery_type),
        ),
        ("by type alone", strict(|c| c.cluster_discovery_type = extension("zzz", dns()).cluster_discovery_type)),
        (
            "first known policy",
            given(|c| c.load_balancing_policy = typed_policy(vec![("foo", unknown()), ("rr", round_robin())])),
        ),
        (
            "policy beside lb_policy",
            given(|c| {
                c.lb_policy = ProtoPolicy::Random as i32;
                c.load_balancing_policy = typed_policy(vec![("rr", round_robin())]);
            }),
        ),
        (
            "another policy's tuning",
            given(|c| c.lb_config = Some(ProtoLbConfig::LeastRequestLbConfig(LeastRequestLbConfig::default()))),
        ),
        (
            "raw_buffer by type",
            given(|c| {
                c.transport_socket = Some(core::TransportSocket {
                    name: "x".to_owned(),
                    config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack_any(RawBuffer {}))),
                })
            }),
        ),
        (
            "a source per family",
            given(|c| {
                c.upstream_bind_config = Some(core::BindConfig {
                    source_address: Some(address("127.0.0.1")),
                    extra_source_addresses: vec![core::ExtraSourceAddress {
                        address: Some(address("::1")),
                        socket_options: None,
                    }],
                    ..Default::default()
                })
            }),
        ),
    ] {
        assert!(parse(proto.clone()).is_ok(), "{what}: {:?}", parse(proto));
    }
}

#[test]
fn what_envoy_refuses_and_its_words() {
    let eds = |source| proto::Cluster {
        eds_cluster_config: Some(EdsClusterConfig { eds_config: source, service_name: String::new() }),
        ..of_type(DiscoveryType::Eds)
    };
    let path = core::config_source::ConfigSourceSpecifier::PathConfigSource(core::PathConfigSource {
        path: "/no/such/file".to_owned(),
        ..Default::default()
    });
    let cluster_provided = || pack_any(policies::cluster_provided::v3::ClusterProvided {});
    let limits = |requests: Option<u32>| proto::CircuitBreakers {
        per_host_thresholds: vec![circuit_breakers::Thresholds {
            max_requests: requests.map(|value| google::UInt32Value { value }),
            ..Default::default()
        }],
        ..Default::default()
    };
    #[expect(deprecated, reason = "deprecated fields have verdicts too")]
    let table = [
        (
            given(|c| c.load_assignment = endpoints(&["foo.bar"])),
            "malformed IP address: foo.bar. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or \
             'LOGICAL_DNS'",
        ),
        (
            proto::Cluster { load_assignment: endpoints(&["a.b", "b.c"]), ..of_type(DiscoveryType::LogicalDns) },
            "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ),
        (of_type(DiscoveryType::LogicalDns), "LOGICAL_DNS clusters must have a single locality_lb_endpoint"),
        (of_type(DiscoveryType::Eds), "cannot create an EDS cluster without an EDS config"),
        (eds(None), "Missing config source specifier in envoy::config::core::v3::ConfigSource"),
        (
            eds(Some(core::ConfigSource { config_source_specifier: Some(path), ..Default::default() })),
            "paths must refer to an existing path in the system: '/no/such/file' does not exist",
        ),
        (
            given(|c| c.eds_cluster_config = Some(EdsClusterConfig::default())),
            "eds_cluster_config set in a non-EDS cluster",
        ),
        (
            of_type(DiscoveryType::OriginalDst),
            "cluster: LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is \
             allowed with cluster type 'ORIGINAL_DST'",
        ),
        (
            proto::Cluster {
                lb_policy: ProtoPolicy::ClusterProvided as i32,
                load_assignment: endpoints(&["127.0.0.1"]),
                ..of_type(DiscoveryType::OriginalDst)
            },
            "ORIGINAL_DST clusters must have no load assignment configured",
        ),
        (
            proto::Cluster {
                lb_policy: ProtoPolicy::ClusterProvided as i32,
                lb_config: Some(ProtoLbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                    http_header_name: "x".to_owned(),
                    ..Default::default()
                })),
                ..of_type(DiscoveryType::OriginalDst)
            },
            "ORIGINAL_DST cluster: invalid config http_header_name=x and use_http_header is false. Set use_http_header \
             to true if http_header_name is desired.",
        ),
        (
            given(|c| c.lb_policy = ProtoPolicy::ClusterProvided as i32),
            "cluster manager: cluster provided LB specified but cluster 'c' did not provide one. Check cluster \
             documentation.",
        ),
        (
            given(|c| c.load_balancing_policy = typed_policy(vec![("cp", cluster_provided())])),
            "cluster manager: cluster provided LB specified but cluster 'c' did not provide one.",
        ),
        (
            given(|c| c.lb_policy = ProtoPolicy::LoadBalancingPolicyConfig as i32),
            "cluster: field load_balancing_policy need to be set",
        ),
        (
            given(|c| {
                c.load_balancing_policy =
                    typed_policy(vec![("foo", pack_any(RawBuffer {})), ("bar", pack_any(RawBuffer {}))])
            }),
            "cluster: didn't find a registered load balancer factory implementation for cluster: 'c' with names from \
             [foo, bar]",
        ),
        (
            given(|c| {
                c.load_balancing_policy = typed_policy(vec![("cp", cluster_provided())]);
                c.common_lb_config = Some(CommonLbConfig {
                    locality_config_specifier: Some(
                        common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
                            common_lb_config::LocalityWeightedLbConfig {},
                        ),
                    ),
                    ..Default::default()
                });
            }),
            "cluster: load_balancing_policy cannot be combined with partial fields",
        ),
        (extension("foo", None), "Didn't find a registered cluster factory implementation for name: 'foo'"),
        (given(|c| c.connect_timeout = duration_of(0)), "connect_timeout: value must be greater than 0s"),
        (given(|c| c.connect_timeout = duration_of(-1)), "Invalid duration: Expected positive duration"),
        (
            given(|c| c.transport_socket = Some(core::TransportSocket { name: "foo".to_owned(), config_type: None })),
            "Didn't find a registered implementation for 'foo' with type URL: ''",
        ),
        (given(|c| c.circuit_breakers = Some(limits(Some(1)))), "Unsupported field in per_host_thresholds"),
        (
            strict(|c| {
                c.dns_failure_refresh_rate =
                    Some(RefreshRate { base_interval: duration_of(10), max_interval: duration_of(1) })
            }),
            "dns_failure_refresh_rate must have max_interval greater than or equal to the base_interval",
        ),
        (
            strict(|c| {
                c.dns_resolvers =
                    vec![core::Address { address: Some(core::address::Address::SocketAddress(address("foo"))) }]
            }),
            "malformed IP address: foo",
        ),
        (
            given(|c| {
                c.upstream_bind_config = Some(core::BindConfig {
                    source_address: Some(address("127.0.0.1")),
                    extra_source_addresses: vec![core::ExtraSourceAddress {
                        address: Some(address("127.0.0.2")),
                        socket_options: None,
                    }],
                    ..Default::default()
                })
            }),
            "Cluster c's upstream binding config has two same IP version source addresses.",
        ),
        (
            given(|c| {
                c.typed_extension_protocol_options.insert("foo".to_owned(), pack_any(RawBuffer {}));
            }),
            "Didn't find a registered network or http filter or protocol options implementation for name: 'foo'",
        ),
    ];
    for (proto, expected) in table {
        let error = parse(proto).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}\n  should say\n{expected}");
    }
}

#[test]
fn the_runtime_has_the_last_word_about_numbers_of_load_balancing() {
    use crate::runtime::{Snapshot, flatten};
    let double = |default_value, key: &str| Some(core::RuntimeDouble { default_value, runtime_key: key.to_owned() });
    let config = given(|cluster| {
        cluster.lb_policy = ProtoPolicy::LeastRequest as i32;
        cluster.lb_config = Some(ProtoLbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            active_request_bias: double(2.0, "bias"),
            slow_start_config: Some(proto::cluster::SlowStartConfig {
                slow_start_window: duration_of(10),
                aggression: double(3.0, "aggression"),
                ..Default::default()
            }),
            ..Default::default()
        }));
    });
    let config = parse(config).unwrap().lb;
    let tuned = |values: &[(&str, f64)]| {
        let fields = values.iter().map(|(key, value)| {
            let kind = Some(google::value::Kind::NumberValue(*value));
            ((*key).to_owned(), google::Value { kind })
        });
        config.tuned(&Snapshot::from(flatten(&google::Struct { fields: fields.collect() }).unwrap()))
    };
    assert_eq!(tuned(&[]), None);
    assert_eq!(tuned(&[("upstream.healthy_panic_threshold", 50.0), ("bias", 2.0)]), None, "nothing is different");
    let some = tuned(&[
        ("upstream.healthy_panic_threshold", 300.0),
        ("upstream.zone_routing.min_cluster_size", 2.0),
        ("bias", 0.5),
        ("aggression", 0.5),
    ]);
    let some = some.unwrap();
    assert_eq!((some.healthy_panic_threshold, some.zone_aware.min_cluster_size), (100, 2));
    let numbers = |config: &LbConfig| {
        let LbPolicy::LeastRequest(least) = &config.policy else { panic!("{:?}", config.policy) };
        (least.active_request_bias, config.slow_start.as_ref().unwrap().aggression)
    };
    assert_eq!(numbers(&some), (0.5, 0.5));
    let invalid = tuned(&[("bias", -1.0), ("aggression", 0.0)]).unwrap();
    assert_eq!(numbers(&invalid), (1.0, 1.0), "as Envoy takes them");
}

#[test]
fn http2_settings_are_consistent() {
    use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
    let parse_http2 = |change: fn(&mut core::Http2ProtocolOptions)| {
        let mut http2 = core::Http2ProtocolOptions::default();
        change(&mut http2);
        let any = http_options(ProtocolConfig::Http2ProtocolOptions(http2));
        let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
        parse(given(|c| {
            c.typed_extension_protocol_options.insert(name, any);
        }))
    };
    let http = parse_http2(|_| {}).unwrap().http;
    assert_eq!((http.protocol, http.http2), (UpstreamProtocol::Http2, Http2Options::default()));
    let says = |result: Result<ClusterConfig, ConfigError>, expected: &str| {
        let error = result.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    says(
        parse_http2(|http2| http2.initial_stream_window_size = Some(google::UInt32Value { value: 100 })),
        "value must be inside range [65535, 2147483647]",
    );
    says(
        parse_http2(|http2| {
            http2.custom_settings_parameters = vec![core::http2_protocol_options::SettingsParameter {
                identifier: Some(google::UInt32Value { value: 2 }),
                value: Some(google::UInt32Value { value: 1 }),
            }];
        }),
        "server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.",
    );
    says(
        parse_http2(|http2| {
            let parameter = |value| core::http2_protocol_options::SettingsParameter {
                identifier: Some(google::UInt32Value { value: 99 }),
                value: Some(google::UInt32Value { value }),
            };
            http2.custom_settings_parameters = vec![parameter(1), parameter(2)];
        }),
        "inconsistent HTTP/2 custom SETTINGS parameter(s) detected; identifiers = {0x63}",
    );
}

#[test]
fn dns_settings_by_the_extension_and_by_the_old_fields_are_the_same() {
    #[expect(deprecated, reason = "the old fields are what is compared")]
    let old = strict(|c| {
        c.dns_refresh_rate = duration_of(3);
        c.respect_dns_ttl = true;
        c.dns_lookup_family = 1;
    });
    let any = pack_any(DnsCluster {
        dns_refresh_rate: duration_of(3),
        respect_dns_ttl: true,
        dns_lookup_family: 2,
        ..Default::default()
    });
    let new = strict(|c| c.cluster_discovery_type = extension("envoy.cluster.dns", Some(any)).cluster_discovery_type);
    let (old, new) = (parse(old).unwrap().discovery, parse(new).unwrap().discovery);
    assert_eq!(old, new);
    assert!(matches!(old, Discovery::StrictDns(dns) if dns.family == LookupFamily::V4Only && dns.respect_ttl));
}

#[test]
fn the_destination_of_a_request() {
    let config =
        OriginalDstConfig { header: Some(::http::HeaderName::from_static("x-dst")), port_override: Some(8080) };
    let connection = Some("10.0.0.1:80".parse().unwrap());
    assert_eq!(config.destination(None, connection), Ok(Some("10.0.0.1:8080".parse().unwrap())));
    assert_eq!(config.destination(Some(b"10.0.0.2:1"), connection), Ok(Some("10.0.0.2:8080".parse().unwrap())));
    assert_eq!(config.destination(Some(b"db.example:1"), connection), Err(InvalidDestination));
    assert_eq!(config.destination(None, None), Ok(None));
    let plain = OriginalDstConfig::default();
    assert_eq!(plain.destination(Some(b"10.0.0.2:1"), connection), Ok(connection), "no header is configured");
}

#[test]
fn every_row_of_the_ledger_says_why() {
    let rows: Vec<_> = LEDGER.iter().flat_map(|rows| rows.iter()).collect();
    assert!(rows.iter().all(|row| row.message.starts_with("envoy.") && !row.reason.is_empty()));
    let keys: std::collections::BTreeSet<_> = rows.iter().map(|row| (row.message, row.field)).collect();
    assert_eq!(keys.len(), rows.len(), "no row twice");
}

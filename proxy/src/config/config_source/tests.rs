use envoy_types::pb::google::protobuf as google;
use filters::config::Session;

use super::*;

fn envoy(cluster: &str) -> core::GrpcService {
    let envoy = EnvoyGrpc { cluster_name: cluster.to_owned(), ..Default::default() };
    core::GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)), ..Default::default() }
}

fn api(api_type: ApiType, grpc_services: Vec<core::GrpcService>) -> core::ApiConfigSource {
    core::ApiConfigSource {
        api_type: api_type as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services,
        ..Default::default()
    }
}

fn with(specifier: ConfigSourceSpecifier) -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(specifier),
        ..Default::default()
    }
}

/// The value of the enum that is deprecated.
const V2: i32 = 1;

fn ads() -> ConfigSourceSpecifier {
    ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})
}

fn parsed(proto: core::ConfigSource) -> Result<ConfigSource, String> {
    let session = Session::default();
    parse(session.root(), proto, Files::Exist).map_err(|error| error.to_string())
}

#[test]
fn grpc_sources_in_both_modes() {
    for (kind, mode) in [(ApiType::Grpc, Mode::StateOfTheWorld), (ApiType::DeltaGrpc, Mode::Delta)] {
        let source = parsed(with(ConfigSourceSpecifier::ApiConfigSource(api(kind, vec![envoy("xds")])))).unwrap();
        assert_eq!(source.initial_fetch_timeout, Some(Duration::from_secs(15)));
        let SourceConfig::Grpc(source) = source.source else { panic!("{source:?}") };
        assert_eq!((source.mode, source.aggregated), (mode, false));
        assert_eq!(source.service.target, Target::Cluster("xds".into()));
        assert_eq!(source.rate_limit, None);
    }
    let any_version = core::ConfigSource { resource_api_version: V2, ..with(ads()) };
    assert_eq!(parsed(any_version).unwrap().source, SourceConfig::Ads);
}

#[test]
fn waiting_for_ever_is_zero() {
    let proto = core::ConfigSource { initial_fetch_timeout: Some(google::Duration::default()), ..with(ads()) };
    assert_eq!(parsed(proto).unwrap(), ConfigSource { source: SourceConfig::Ads, initial_fetch_timeout: None });
}

#[test]
fn back_off_and_rate_limits() {
    let seconds = |seconds| Some(google::Duration { seconds, nanos: 0 });
    let mut service = envoy("xds");
    if let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &mut service.target_specifier {
        envoy.retry_policy = Some(core::RetryPolicy {
            retry_back_off: Some(core::BackoffStrategy { base_interval: seconds(1), max_interval: seconds(7) }),
            ..Default::default()
        });
    }
    let proto = core::ApiConfigSource {
        rate_limit_settings: Some(core::RateLimitSettings::default()),
        ..api(ApiType::Grpc, vec![service])
    };
    let session = Session::default();
    let source = super::ads(session.root(), proto).unwrap();
    assert!(source.aggregated);
    assert_eq!(source.backoff, BackoffConfig { base: Duration::from_secs(1), max: Duration::from_secs(7) });
    assert_eq!(source.rate_limit, Some(RateLimit::default()));
}

#[test]
fn a_google_target_with_tls_loads_but_says_why_it_cannot_connect() {
    let ssl = google_grpc::ChannelCredentials {
        credential_specifier: Some(CredentialSpecifier::SslCredentials(google_grpc::SslCredentials::default())),
    };
    let int = |value| google_grpc::channel_args::Value { value_specifier: Some(ValueSpecifier::IntValue(value)) };
    let google = |uri: &str, credentials| GoogleGrpc {
        target_uri: uri.to_owned(),
        stat_prefix: "ads".into(),
        channel_credentials: credentials,
        channel_args: Some(google_grpc::ChannelArgs {
            args: [
                ("grpc.keepalive_time_ms".to_owned(), int(10_000)),
                ("grpc.keepalive_timeout_ms".to_owned(), int(20_000)),
                ("grpc.http2.max_pings_without_data".to_owned(), int(0)),
                ("grpc.initial_reconnect_backoff_ms".to_owned(), int(10_000)),
                ("grpc.max_connection_age_ms".to_owned(), int(2_400_000)),
            ]
            .into(),
        }),
        ..Default::default()
    };
    let session = Session::default();
    let service = |google| core::GrpcService {
        target_specifier: Some(TargetSpecifier::GoogleGrpc(google)),
        ..Default::default()
    };
    let (parsed, backoff) = grpc_service(session.root(), service(google("appmesh.eu:443", Some(ssl)))).unwrap();
    assert!(parsed.unavailable.unwrap().contains("appmesh.eu:443 needs TLS"));
    assert_eq!(session.take_warnings().len(), 1);
    let interval = Duration::from_secs(10);
    let keepalive = Keepalive { interval, timeout: Duration::from_secs(20), while_idle: false };
    assert_eq!((parsed.keepalive, backoff.base), (Some(keepalive), interval));
    let (parsed, _) = grpc_service(session.root(), service(google("unix:///run/ecs/xds.sock", None))).unwrap();
    assert_eq!(parsed.unavailable, None);
    assert_eq!(parsed.target, Target::Address(xds_client::Address::Unix("/run/ecs/xds.sock".into())));
}

#[test]
fn what_is_wrong_is_said() {
    let rest = |clusters: &[&str], delay| core::ApiConfigSource {
        cluster_names: clusters.iter().map(|&name| name.to_owned()).collect(),
        refresh_delay: delay,
        ..api(ApiType::Rest, Vec::new())
    };
    let old = core::ApiConfigSource { transport_api_version: V2, ..api(ApiType::Grpc, vec![envoy("xds")]) };
    let aggregated = api(ApiType::AggregatedGrpc, vec![envoy("xds")]);
    for (proto, expected) in [
        (core::ConfigSource::default(), "Missing config source specifier"),
        (with(ConfigSourceSpecifier::Self_(core::SelfConfigSource::default())), "Missing config source specifier"),
        (
            with(ConfigSourceSpecifier::ApiConfigSource(old)),
            "api_config_source.transport_api_version: V2 xDS transport",
        ),
        (with(ConfigSourceSpecifier::ApiConfigSource(aggregated)), "Unsupported config source AGGREGATED_GRPC"),
        (with(ConfigSourceSpecifier::ApiConfigSource(api(ApiType::Grpc, Vec::new()))), "single gRPC service"),
        (with(ConfigSourceSpecifier::ApiConfigSource(rest(&[], None))), "singleton cluster name"),
        (with(ConfigSourceSpecifier::ApiConfigSource(rest(&["c"], None))), "refresh_delay: value is required"),
        (with(ConfigSourceSpecifier::ApiConfigSource(api(ApiType::Grpc, vec![envoy("")]))), "envoy_grpc.cluster_name"),
        (
            with(ConfigSourceSpecifier::PathConfigSource(core::PathConfigSource {
                path: "/no/such/file".into(),
                ..Default::default()
            })),
            "paths must refer to an existing path",
        ),
    ] {
        let error = parsed(proto).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

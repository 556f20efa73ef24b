use envoy_types::pb::google::protobuf as google;
use filters::config::Session;
use prost::Message as _;
use xds_client::proto::{Format, LoadOptions, load};

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

/// A service at `uri`, with what else its configuration says.
fn google(uri: &str, yaml: &str) -> Result<(GrpcService, BackoffConfig), String> {
    let text = format!("google_grpc: {{stat_prefix: ads, target_uri: \"{uri}\", {yaml}}}");
    let options = LoadOptions { source: "test", ..LoadOptions::default() };
    let document = load(text.as_bytes(), Format::Yaml, "envoy.config.core.v3.GrpcService", &options);
    let document = document.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let proto = core::GrpcService::decode(document.bytes()).unwrap();
    grpc_service(Session::default().root(), proto).map_err(|error| error.to_string())
}

const SSL: &str = "channel_credentials: {ssl_credentials: {root_certs: {filename: /nowhere/roots.pem}}}";

fn plugin(name: &str, config: &str) -> String {
    format!(
        "credentials_factory_name: {name}, call_credentials: [{{from_plugin: {{name: {name}, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.config.grpc_credential.v3.{config}}}}}}}]"
    )
}

#[test]
fn addresses_have_channels_of_their_own_kind() {
    let arguments = "channel_args: {args: {grpc.keepalive_time_ms: {int_value: 10000}, \
                     grpc.http2.max_pings_without_data: {int_value: 0}, \
                     grpc.initial_reconnect_backoff_ms: {int_value: 10000}}}";
    let (secure, backoff) = google("appmesh.eu:443", &format!("{SSL}, {arguments}")).unwrap();
    let address = xds_client::Address::Tcp { host: "appmesh.eu".to_owned(), port: 443 };
    let Target::Secure(to, security) = &secure.target else { panic!("{secure:?}") };
    assert_eq!((to, secure.target.authority().as_str()), (&address, "appmesh.eu:443"));
    assert!(!format!("{security:?}").contains("roots"), "there may be keys in it");
    let interval = Duration::from_secs(10);
    let keepalive = xds_client::Keepalive { interval, timeout: Duration::from_secs(20), while_idle: false };
    assert_eq!((secure.keepalive, backoff.base), (Some(keepalive), interval));
    let same = google("appmesh.eu:443", SSL).unwrap().0.target;
    let other = google("appmesh.eu:443", "channel_credentials: {ssl_credentials: {}}").unwrap().0.target;
    assert!(secure.target == same && secure.target != other, "connections are shared by what they trust");
    for plain in ["", "channel_credentials: {local_credentials: {}}"] {
        let (plain, _) = google("unix:///run/ecs/xds.sock", plain).unwrap();
        assert_eq!(plain.target, Target::Address(xds_client::Address::Unix("/run/ecs/xds.sock".into())));
    }
    let named = "channel_args: {args: {grpc.ssl_target_name_override: {string_value: other.test}}}";
    let (named, _) = google("10.0.0.1:443", &format!("{SSL}, {named}")).unwrap();
    assert_eq!(named.authority.as_deref(), Some("other.test"));
}

#[test]
fn call_credentials_become_metadata() {
    let (token, _) = google("x:1", &format!("{SSL}, call_credentials: [{{access_token: t}}]")).unwrap();
    assert_eq!(token.initial_metadata, [("authorization".to_owned(), Bytes::from_static(b"Bearer t"))]);
    let aws = plugin("envoy.grpc_credentials.aws_iam", "AwsIamConfig, service_name: appmesh");
    let (aws, _) = google("x:1", &format!("{SSL}, {aws}")).unwrap();
    let iam = xds_client::CallCredentials::AwsIam { service: "appmesh".to_owned(), region: String::new() };
    assert_eq!(aws.credentials, [iam]);
    let file =
        plugin("envoy.grpc_credentials.file_based_metadata", "FileBasedMetadataConfig, secret_data: {filename: /s}");
    let (file, _) = google("x:1", &format!("{SSL}, {file}")).unwrap();
    let (header, prefix) = ("authorization".to_owned(), String::new());
    assert_eq!(file.credentials, [xds_client::CallCredentials::File { path: "/s".into(), header, prefix }]);
}

#[test]
fn credentials_that_are_not_there_are_refused() {
    let aws = plugin("envoy.grpc_credentials.aws_iam", "AwsIamConfig, service_name: appmesh");
    let elsewhere = aws.replacen("envoy.grpc_credentials.aws_iam", "\"\"", 1);
    let unknown = aws.replacen("envoy.grpc_credentials.aws_iam", "mine", 1);
    for (credentials, expected) in [
        ("channel_credentials: {google_default: {}}", "google_default"),
        ("call_credentials: [{google_refresh_token: r}]", "google_refresh_token"),
        ("call_credentials: [{google_compute_engine: {}}]", "google_compute_engine"),
        (
            "call_credentials: [{sts_service: {token_exchange_service_uri: u, subject_token_path: p, subject_token_type: t}}]",
            "sts_service",
        ),
        ("call_credentials: [{access_token: t}]", "call credentials need a channel that is encrypted"),
        (&elsewhere, "is for the credentials factory of that name"),
        (&unknown, "unknown google grpc credential factory 'mine'"),
    ] {
        let refused = google("x:1", credentials).unwrap_err();
        assert!(refused.contains(expected), "{credentials}: {refused}");
    }
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

//! Defaults, and what is refused in which words (Envoy 1.40's where Envoy refuses it too).

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as DurationProto, Struct, UInt32Value};
use filters::config::Session;
use filters::format::FormatOptions;
use filters::matcher::RegexLimits;
use filters::stream_info::Metadata;
use prost::Name;
use proto::HttpConnectionManager as Proto;
use proto::http_connection_manager as nested;

use super::*;
use crate::http::hygiene::ServerHeader;
use crate::http::path::EscapedSlashes;
use crate::observe::access_log::LogFiles;

fn no_conversion(url: &str, _: &Struct) -> Result<Bytes, String> {
    Err(format!("unknown type {url}"))
}

fn run(proto: Proto) -> (Result<HcmConfig, String>, Vec<String>) {
    let session = Session::default();
    let files = LogFiles::new(Duration::from_secs(10));
    let formats = FormatOptions::default();
    let log = LogContext { convert: no_conversion, formats: &formats, limits: RegexLimits::default(), files: &files };
    let context = HcmContext {
        log,
        node_id: "nid",
        node_cluster: "ncl",
        node_metadata: &Metadata::new(),
        local_address: None,
        strip_fragment: false,
    };
    let parsed = parse(&session.root(), proto, &context).map_err(|error| error.to_string());
    (parsed, session.take_warnings().into_iter().map(|warning| warning.path).collect())
}

fn any<T: Name>(message: &T) -> Any {
    Any { type_url: format!("type.googleapis.com/{}.{}", T::PACKAGE, T::NAME), value: message.encode_to_vec() }
}

fn filter(name: &str, typed: Any) -> proto::HttpFilter {
    let config_type = Some(proto::http_filter::ConfigType::TypedConfig(typed));
    proto::HttpFilter { name: name.to_owned(), config_type, ..proto::HttpFilter::default() }
}

fn router() -> proto::HttpFilter {
    filter("envoy.filters.http.router", any(&Router::default()))
}

fn minimal() -> Proto {
    Proto {
        stat_prefix: "x".into(),
        route_specifier: Some(nested::RouteSpecifier::RouteConfig(RouteConfiguration::default())),
        http_filters: vec![router()],
        ..Proto::default()
    }
}

#[test]
fn defaults_are_envoys() {
    let (config, warnings) = run(minimal());
    let config = config.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.codec, CodecType::Auto);
    assert_eq!(config.timeouts.idle, Some(Duration::from_secs(3600)));
    assert_eq!(config.timeouts.stream_idle, Some(Duration::from_secs(300)));
    assert_eq!(config.timeouts.stream_flush, Some(Duration::from_secs(300)));
    assert_eq!(config.timeouts.drain, Duration::from_secs(5));
    assert_eq!(config.timeouts.delayed_close, Some(Duration::from_secs(1)));
    assert_eq!(config.timeouts.request, None);
    assert_eq!(config.limits.max_request_headers_bytes, 61_440);
    assert_eq!(config.limits.max_headers_count, 100);
    assert!(config.request.generate_request_id && config.request.pack_trace_reason);
    assert!(!config.request.use_remote_address && config.request.internal.is_none());
    assert_eq!((config.response.server, &config.response.server_name[..]), (ServerHeader::Overwrite, &b"envoy"[..]));
    assert_eq!(config.path.escaped_slashes, EscapedSlashes::Keep);
    assert!(config.http1.allow_absolute_url && !config.http1.accept_http_10);
    assert_eq!(config.http2.max_concurrent_streams, 1024);
    assert_eq!(config.http2.initial_stream_window_size, 16 * 1024 * 1024);
    assert_eq!(config.http2.initial_connection_window_size, 24 * 1024 * 1024);
    let router = config.router();
    assert!(matches!(config.filters[0].kind, HttpFilterKind::Router(_)));
    assert!(router.dynamic_stats && !router.suppress_envoy_headers);
}

#[test]
fn settings_arrive() {
    let off = Some(DurationProto::default());
    let (config, _) = run(Proto {
        codec_type: nested::CodecType::Http2 as i32,
        stream_idle_timeout: off,
        delayed_close_timeout: off,
        via: "1.1 me".into(),
        add_user_agent: Some(BoolValue { value: true }),
        internal_address_config: Some(nested::InternalAddressConfig::default()),
        stream_error_on_invalid_http_message: Some(BoolValue { value: true }),
        strip_port_mode: Some(nested::StripPortMode::StripAnyHostPort(true)),
        upgrade_configs: vec![nested::UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        ..minimal()
    });
    let config = config.unwrap();
    assert_eq!(config.codec, CodecType::Http2);
    assert_eq!(
        (config.timeouts.stream_idle, config.timeouts.stream_flush, config.timeouts.delayed_close),
        (None, None, None)
    );
    assert_eq!(config.request.via, config.response.via);
    assert_eq!(config.request.user_agent.unwrap().node, "nid");
    assert!(config.request.internal.unwrap().ranges.contains("192.168.1.1".parse().unwrap()));
    assert!(config.http1.stream_error_on_invalid_message && config.http2.stream_error_on_invalid_http_message);
    assert_eq!(config.path.strip_port, crate::http::path::StripPort::Any);
    assert!(config.upgrades[0].enabled && config.upgrades[0].filters.is_none());
}

#[test]
fn refusals_are_in_envoys_words() {
    let unknown = || filter("foo", Any { type_url: "type.googleapis.com/foo.Bar".into(), value: vec![] });
    let xff = || TypedExtensionConfig {
        name: "x".into(),
        typed_config: Some(any(
            &envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3::XffConfig::default(),
        )),
    };
    let upgrade = |name: &str| nested::UpgradeConfig { upgrade_type: name.to_owned(), ..Default::default() };
    let window = |size| Http2ProtocolOptions {
        initial_stream_window_size: Some(UInt32Value { value: size }),
        ..Http2ProtocolOptions::default()
    };
    let rows = [
        (Proto { stat_prefix: String::new(), ..minimal() }, "stat_prefix: value length must be at least 1 characters"),
        (Proto { route_specifier: None, ..minimal() }, "route_specifier: is required"),
        (
            Proto { codec_type: nested::CodecType::Http3 as i32, ..minimal() },
            "HTTP/3 codec configured on non-QUIC listener.",
        ),
        (
            Proto { http_filters: vec![router(), router()], ..minimal() },
            "http_filters[0]: Error: terminal filter named envoy.filters.http.router of type envoy.filters.http.router must be the \
             last filter in a http filter chain.",
        ),
        (
            Proto { http_filters: vec![proto::HttpFilter { disabled: true, ..router() }], ..minimal() },
            "http_filters[0]: Error: the last (terminal) filter (envoy.filters.http.router) in the chain cannot be disabled by \
             default.",
        ),
        (
            Proto { http_filters: vec![unknown(), router()], ..minimal() },
            "http_filters[0]: Didn't find a registered implementation for 'foo' with type URL: 'foo.Bar'",
        ),
        (
            Proto { http_filters: vec![proto::HttpFilter { config_type: None, ..router() }], ..minimal() },
            "http_filters[0]: Didn't find a registered implementation for 'envoy.filters.http.router' with type URL: ''",
        ),
        (
            Proto {
                use_remote_address: Some(BoolValue { value: true }),
                original_ip_detection_extensions: vec![xff()],
                ..minimal()
            },
            "Original IP detection extensions and use_remote_address may not be mixed",
        ),
        (
            Proto { xff_num_trusted_hops: 1, original_ip_detection_extensions: vec![xff()], ..minimal() },
            "Original IP detection extensions and xff_num_trusted_hops may not be mixed",
        ),
        (
            Proto {
                strip_matching_host_port: true,
                strip_port_mode: Some(nested::StripPortMode::StripAnyHostPort(true)),
                ..minimal()
            },
            "Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be set.",
        ),
        (
            Proto { upgrade_configs: vec![upgrade("websocket"), upgrade("WebSocket")], ..minimal() },
            "upgrade_configs[1]: Error: multiple upgrade configs with the same name: 'WebSocket'",
        ),
        (
            Proto { max_request_headers_kb: Some(UInt32Value { value: 0 }), ..minimal() },
            "max_request_headers_kb: value must be inside range [1, 8192]",
        ),
        (
            Proto { http2_protocol_options: Some(window(100)), ..minimal() },
            "http2_protocol_options.initial_stream_window_size: value must be inside range [65535, 2147483647]",
        ),
        (
            Proto { request_timeout: Some(DurationProto { seconds: -1, nanos: 0 }), ..minimal() },
            "request_timeout: Invalid duration: Expected positive duration: seconds: -1 nanos: 0",
        ),
        (Proto { via: "a\nb".into(), ..minimal() }, "via: value does not match regex pattern \"^[^\\x00\\n\\r]*$\""),
        (
            Proto { route_specifier: Some(nested::RouteSpecifier::Rds(proto::Rds::default())), ..minimal() },
            "rds: An RDS config must have either a 'config_source' or an xDS-TP based 'route_config_name'.",
        ),
    ];
    for (proto, expected) in rows {
        assert_eq!(run(proto).0.map(|_| ()), Err(expected.to_owned()));
    }
}

#[test]
fn what_is_not_here_is_refused_by_name_or_warned_about() {
    let buffer =
        Any { type_url: "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer".into(), value: vec![] };
    let (parsed, _) = run(Proto { http_filters: vec![filter("buf", buffer.clone()), router()], ..minimal() });
    let error = parsed.unwrap_err();
    assert!(
        error.starts_with("http_filters[0].typed_config: envoy.extensions.filters.http.buffer.v3.Buffer: "),
        "{error}"
    );
    let optional = proto::HttpFilter { is_optional: true, ..filter("buf", buffer) };
    let (parsed, _) = run(Proto { http_filters: vec![optional, router()], ..minimal() });
    assert_eq!(parsed.unwrap().filters.len(), 1, "an optional filter that is not here is left out");

    let scoped = nested::RouteSpecifier::ScopedRoutes(proto::ScopedRoutes::default());
    assert!(run(Proto { route_specifier: Some(scoped), ..minimal() }).0.unwrap_err().contains("scoped_routes"));
    let (parsed, warnings) = run(Proto { tracing: Some(nested::Tracing::default()), ..minimal() });
    assert!(parsed.is_ok());
    assert_eq!(warnings, ["tracing"]);
}

#[test]
fn jitter_only_lengthens() {
    let second = Duration::from_secs(1);
    for (jitter, random, millis) in [(0.0, 0.9, 1000), (50.0, 0.0, 1000), (50.0, 0.5, 1250), (-10.0, 0.5, 1000)] {
        let got = lengthened(second, jitter, random);
        assert_eq!(got.as_millis(), millis, "{jitter} {random}");
    }
}

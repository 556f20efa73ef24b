//! The connection manager's own fields.

use std::time::Duration;

use super::identity::{client_cert, detections, forward_proto, internal, request_id, scheme_to_overwrite};
use super::values::{duration, flag, header_value, on, percent, ranged};
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions, SchemeHeaderTransformation};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::google::protobuf::Duration as DurationProto;
use filters::config::{At, ConfigError};
use filters::ledger;
use proto::http_connection_manager as nested;

use super::{
    AccessLogOptions, CodecType, HcmConfig, HcmContext, Limits, RouteSource, Timeouts, Underscores, Upgrade, chain,
    local_reply, options, proxy_status,
};
use crate::config::access_log;
use crate::config::http2::Http2Options;
use crate::http::hygiene::{RequestHygiene, ResponseHygiene, ServerHeader, UserAgent};
use crate::http::path::{EscapedSlashes, PathOptions, StripPort};

ledger! {
    /// Fields of the connection manager that are not here.
    pub mod unsupported for "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" {
        http3_protocol_options => Warn, "options of HTTP/3, which is not here; they concern no other codec";
        tracing => Warn, "tracing is not here yet; requests are served without spans";
        early_header_mutation_extensions => Refuse, "changes headers before routing";
        forward_client_cert_matcher => Refuse, "decides which client certificates are trusted";
        typed_header_validation_config => Refuse, "decides which requests are valid";
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6 => Warn, "Envoy 1.40 writes the address unmapped all the same";
        path_normalization_options => Warn, "not implemented in Envoy either";
        scoped_routes => Refuse, "scoped routes are not here yet";
        request_id_extension => Refuse, "only the UUID extension is here";
        original_ip_detection_extensions => Refuse, "only xff and custom_header are here";
    }
}

/// Parses a connection manager and opens its access logs.
///
/// # Errors
/// In Envoy's words where Envoy would refuse it too; naming the field where only Legate does.
pub fn parse(
    at: &At<'_>,
    proto: proto::HttpConnectionManager,
    context: &HcmContext<'_>,
) -> Result<HcmConfig, ConfigError> {
    #[expect(deprecated, reason = "old fields are destructured, and honoured, like all others")]
    let proto::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log: access_logs,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = proto;

    at.unsupported(&unsupported::http3_protocol_options, &http3_protocol_options)?;
    at.unsupported(&unsupported::tracing, &tracing)?;
    at.unsupported(&unsupported::early_header_mutation_extensions, &early_header_mutation_extensions)?;
    at.unsupported(&unsupported::forward_client_cert_matcher, &forward_client_cert_matcher)?;
    at.unsupported(&unsupported::typed_header_validation_config, &typed_header_validation_config)?;
    at.unsupported(
        &unsupported::represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        &represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
    )?;
    at.unsupported(&unsupported::path_normalization_options, &path_normalization_options)?;

    if stat_prefix.is_empty() {
        return Err(at.field("stat_prefix").error("value length must be at least 1 characters"));
    }
    let codec = codec(at, codec_type)?;
    let common = common_http_protocol_options.unwrap_or_default();
    let common_at = at.field("common_http_protocol_options");
    // `max_response_headers_kb` concerns upstream connections only.
    let HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb: _,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = common;

    let stream_idle = duration(at, "stream_idle_timeout", stream_idle_timeout)?.unwrap_or(Duration::from_secs(300));
    let timeouts = Timeouts {
        idle: on(duration(&common_at, "idle_timeout", idle_timeout)?.unwrap_or(Duration::from_secs(3600))),
        max_connection_duration: duration(&common_at, "max_connection_duration", max_connection_duration)?.and_then(on),
        max_connection_duration_jitter: percent(max_connection_duration_jitter),
        max_stream_duration: duration(&common_at, "max_stream_duration", max_stream_duration)?.and_then(on),
        stream_idle: on(stream_idle),
        stream_flush: on(duration(at, "stream_flush_timeout", stream_flush_timeout)?.unwrap_or(stream_idle)),
        request: duration(at, "request_timeout", request_timeout)?.and_then(on),
        request_headers: duration(at, "request_headers_timeout", request_headers_timeout)?.and_then(on),
        drain: duration(at, "drain_timeout", drain_timeout)?.unwrap_or(Duration::from_secs(5)),
        drain_jitter: percent(drain_timeout_jitter),
        delayed_close: on(
            duration(at, "delayed_close_timeout", delayed_close_timeout)?.unwrap_or(Duration::from_secs(1))
        ),
    };
    let limits = Limits {
        max_request_headers_bytes: 1024
            * ranged(at, "max_request_headers_kb", max_request_headers_kb, 60, 1..=8192)? as usize,
        max_headers_count: ranged(&common_at, "max_headers_count", max_headers_count, 100, 1..=u32::MAX)? as usize,
        max_requests_per_connection: max_requests_per_connection.map(|limit| limit.value).filter(|limit| *limit > 0),
        underscores: match HeadersWithUnderscoresAction::try_from(headers_with_underscores_action) {
            Ok(HeadersWithUnderscoresAction::Allow) => Underscores::Allow,
            Ok(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
            Ok(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
            Err(_) => return Err(common_at.field("headers_with_underscores_action").error(NOT_A_VALUE)),
        },
        http1_safe_max_connection_duration,
    };

    let use_remote_address = flag(use_remote_address, false);
    if !original_ip_detection_extensions.is_empty() {
        if use_remote_address {
            return Err(at.error("Original IP detection extensions and use_remote_address may not be mixed"));
        }
        if xff_num_trusted_hops > 0 {
            return Err(at.error("Original IP detection extensions and xff_num_trusted_hops may not be mixed"));
        }
    }
    let scheme = scheme_header_transformation.unwrap_or_default();
    let SchemeHeaderTransformation { match_upstream, transformation } = scheme;
    let request = RequestHygiene {
        use_remote_address,
        xff_num_trusted_hops,
        skip_xff_append,
        append_x_forwarded_port,
        detection: detections(at, original_ip_detection_extensions, context)?,
        internal: internal_address_config.map(|config| internal(at, config)).transpose()?,
        generate_request_id: flag(generate_request_id, true),
        preserve_external_request_id,
        pack_trace_reason: request_id(at, request_id_extension, context)?,
        scheme_to_overwrite: scheme_to_overwrite(at, transformation)?,
        user_agent: flag(add_user_agent, false).then(|| UserAgent {
            cluster: Bytes::copy_from_slice(context.node_cluster.as_bytes()),
            node: Bytes::copy_from_slice(context.node_id.as_bytes()),
        }),
        via: header_value(at, "via", via.clone())?,
        client_cert: client_cert(at, forward_client_cert_details, set_current_client_cert_details)?,
        forward_proto: forward_proto(at, forward_proto_config)?,
        local_address: context.local_address,
    };
    let server_name = if server_name.is_empty() { "envoy".to_owned() } else { server_name };
    let response = ResponseHygiene {
        server: match nested::ServerHeaderTransformation::try_from(server_header_transformation) {
            Ok(nested::ServerHeaderTransformation::Overwrite) => ServerHeader::Overwrite,
            Ok(nested::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
            Ok(nested::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
            Err(_) => return Err(at.field("server_header_transformation").error(NOT_A_VALUE)),
        },
        proxy_status: proxy_status_config
            .map(|config| proxy_status::parse(&at.field("proxy_status_config"), config, &server_name, context.node_id))
            .transpose()?,
        server_name: header_value(at, "server_name", server_name)?,
        always_set_request_id: always_set_request_id_in_response,
        via: header_value(at, "via", via)?,
    };
    let strip_any = matches!(strip_port_mode, Some(nested::StripPortMode::StripAnyHostPort(true)));
    if strip_any && strip_matching_host_port {
        return Err(at.error("Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be set."));
    }
    let path = PathOptions {
        normalize: flag(normalize_path, false),
        merge_slashes,
        escaped_slashes: escaped_slashes(at, path_with_escaped_slashes_action)?,
        strip_port: match (strip_any, strip_matching_host_port) {
            (true, _) => StripPort::Any,
            (false, true) => StripPort::Matching,
            (false, false) => StripPort::Never,
        },
        strip_trailing_dot: strip_trailing_host_dot,
        strip_fragment: context.strip_fragment,
    };
    let stream_error = flag(stream_error_on_invalid_http_message, false);

    Ok(HcmConfig {
        stat_prefix: stat_prefix.trim_end_matches('.').into(),
        codec,
        routes: routes(at, route_specifier)?,
        filters: chain::parse(&at.field("http_filters"), http_filters, "http", context)?,
        http1: options::http1(
            &at.field("http_protocol_options"),
            http_protocol_options,
            stream_error,
            context.log.convert,
        )?,
        http2: http2(at, http2_protocol_options, stream_error, limits.max_request_headers_bytes)?,
        limits,
        timeouts,
        request,
        response,
        path,
        match_upstream_scheme: match_upstream,
        local_reply: local_reply_config
            .map(|config| local_reply::parse(&at.field("local_reply_config"), config, &context.log))
            .transpose()?,
        access_logs: access_log::parse_all(&at.field("access_log"), access_logs, &context.log)?,
        access_log_options: log_options(
            at,
            access_log_options,
            access_log_flush_interval,
            flush_access_log_on_new_request,
        )?,
        upgrades: upgrades(&at.field("upgrade_configs"), upgrade_configs, context)?,
        proxy_100_continue,
        append_local_overload,
        tells_upstreams: flag(add_proxy_protocol_connection_state, true),
    })
}

pub(super) const NOT_A_VALUE: &str = "value must be one of the defined enum values";

fn codec(at: &At<'_>, number: i32) -> Result<CodecType, ConfigError> {
    match nested::CodecType::try_from(number) {
        Ok(nested::CodecType::Auto) => Ok(CodecType::Auto),
        Ok(nested::CodecType::Http1) => Ok(CodecType::Http1),
        Ok(nested::CodecType::Http2) => Ok(CodecType::Http2),
        Ok(nested::CodecType::Http3) => Err(at.error("HTTP/3 codec configured on non-QUIC listener.")),
        Err(_) => Err(at.field("codec_type").error(NOT_A_VALUE)),
    }
}

fn routes(at: &At<'_>, specifier: Option<nested::RouteSpecifier>) -> Result<RouteSource, ConfigError> {
    match specifier {
        None => Err(at.error("route_specifier: is required")),
        Some(nested::RouteSpecifier::RouteConfig(config)) => Ok(RouteSource::Inline(Box::new(config))),
        Some(nested::RouteSpecifier::Rds(proto::Rds { config_source, route_config_name })) => match config_source {
            Some(source) => Ok(RouteSource::Rds { source: Box::new(source), name: route_config_name }),
            None => Err(at
                .field("rds")
                .error("An RDS config must have either a 'config_source' or an xDS-TP based 'route_config_name'.")),
        },
        Some(nested::RouteSpecifier::ScopedRoutes(_)) => {
            at.field("scoped_routes").refuse_or_warn(&unsupported::scoped_routes)?;
            Err(at.field("scoped_routes").error("without scoped routes there is no route to serve"))
        }
    }
}

fn upgrades(
    at: &At<'_>,
    protos: Vec<nested::UpgradeConfig>,
    context: &HcmContext<'_>,
) -> Result<Vec<Upgrade>, ConfigError> {
    let mut upgrades = Vec::<Upgrade>::new();
    for (n, nested::UpgradeConfig { upgrade_type, filters, enabled }) in protos.into_iter().enumerate() {
        let here = at.index(n);
        if upgrades.iter().any(|seen| seen.upgrade_type.eq_ignore_ascii_case(&upgrade_type)) {
            return Err(
                here.error(format_args!("Error: multiple upgrade configs with the same name: '{upgrade_type}'"))
            );
        }
        let filters = match filters.is_empty() {
            true => None,
            false => Some(chain::parse(&here.field("filters"), filters, "http upgrade", context)?),
        };
        upgrades.push(Upgrade { upgrade_type, enabled: flag(enabled, true), filters });
    }
    Ok(upgrades)
}

fn log_options(
    at: &At<'_>,
    proto: Option<nested::HcmAccessLogOptions>,
    old_interval: Option<DurationProto>,
    old_on_new_request: bool,
) -> Result<AccessLogOptions, ConfigError> {
    let Some(proto) = proto else {
        return Ok(AccessLogOptions {
            flush_interval: interval(at, old_interval)?,
            on_new_request: old_on_new_request,
            on_tunnel_established: false,
        });
    };
    if old_interval.is_some() {
        return Err(at.error("Only one of access_log_flush_interval or access_log_options can be specified."));
    }
    if old_on_new_request {
        return Err(at.error("Only one of flush_access_log_on_new_request or access_log_options can be specified."));
    }
    let nested::HcmAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_new_request,
        flush_log_on_tunnel_successfully_established,
    } = proto;
    Ok(AccessLogOptions {
        flush_interval: interval(&at.field("access_log_options"), access_log_flush_interval)?,
        on_new_request: flush_access_log_on_new_request,
        on_tunnel_established: flush_log_on_tunnel_successfully_established,
    })
}

fn interval(at: &At<'_>, proto: Option<DurationProto>) -> Result<Option<Duration>, ConfigError> {
    let interval = duration(at, "access_log_flush_interval", proto)?;
    match interval {
        Some(short) if short < Duration::from_millis(1) => {
            Err(at.field("access_log_flush_interval").error("value must be greater than or equal to 1ms"))
        }
        other => Ok(other),
    }
}

fn escaped_slashes(at: &At<'_>, number: i32) -> Result<EscapedSlashes, ConfigError> {
    use nested::PathWithEscapedSlashesAction as Action;
    match Action::try_from(number) {
        Ok(Action::ImplementationSpecificDefault | Action::KeepUnchanged) => Ok(EscapedSlashes::Keep),
        Ok(Action::RejectRequest) => Ok(EscapedSlashes::Reject),
        Ok(Action::UnescapeAndRedirect) => Ok(EscapedSlashes::Redirect),
        Ok(Action::UnescapeAndForward) => Ok(EscapedSlashes::Forward),
        Err(_) => Err(at.field("path_with_escaped_slashes_action").error(NOT_A_VALUE)),
    }
}

/// HTTP/2's options; one field cannot be larger than all of a head.
fn http2(
    at: &At<'_>,
    proto: Option<Http2ProtocolOptions>,
    stream_error: bool,
    max_headers_bytes: usize,
) -> Result<Http2Options, ConfigError> {
    let limited = proto.as_ref().is_some_and(|proto| proto.max_header_field_size_kb.is_some());
    let options = Http2Options::parse(at.field("http2_protocol_options"), proto, stream_error)?;
    if limited && options.max_header_field_size > max_headers_bytes {
        return Err(at.error("max_header_field_size_kb must not exceed max_request_headers_kb"));
    }
    Ok(options)
}

//! How a cluster speaks HTTP: `HttpProtocolOptions`, and the deprecated fields of `Cluster` that it replaced.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use filters::config::{At, ConfigError};
use filters::http::HeaderKey;
use filters::ledger;
use filters::matcher::{RegexLimits, ResponsePredicate};

use super::{duration, percent};
use crate::config::hcm::{HeaderCase, header_case};
use crate::config::http2::Http2Options;
use crate::config::route::{hash, mirror};
use crate::route::HashPolicy;
use crate::route::mirror::MirrorPolicy;
use crate::route::retry::RetryPolicy;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" {
    http_filters => Refuse, "upstream HTTP filters are not implemented";
    header_validation_config => Warn, "headers are always validated as by Envoy's default";
    http3_protocol_options => Refuse, "HTTP/3 is not implemented";
} }

ledger! {
    /// What is not implemented.
    pub mod auto_unsupported for "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig" {
    http3_protocol_options => Refuse, "HTTP/3 is not implemented";
    alternate_protocols_cache_options => Warn, "what hosts offer besides is HTTP/3, which is not implemented";
} }

ledger! {
    /// What is not implemented of a cluster's options.
    pub mod common_unsupported for "envoy.config.core.v3.HttpProtocolOptions" {
    max_connection_duration_jitter => Warn, "Envoy does not lengthen the life of upstream connections either; of clients' it is used";
} }

ledger! {
    /// What is not implemented.
    pub mod http1_unsupported for "envoy.config.core.v3.Http1ProtocolOptions" {
    allow_absolute_url => Warn, "it is about requests received, not about an upstream";
    accept_http_10 => Warn, "it is about requests received, not about an upstream";
    default_host_for_http_10 => Warn, "it is about requests received, not about an upstream";
    override_stream_error_on_invalid_http_message => Warn, "a connection with an invalid response is always closed";
    use_balsa_parser => Warn, "there is one parser";
    allow_custom_methods => Warn, "every method that is a token is allowed";
    ignore_http_11_upgrade => Warn, "it is about requests received, not about an upstream";
} }

/// What is spoken to a cluster's hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, without negotiation.
    Http2,
    /// HTTP/2 or HTTP/1.1, as the host chooses (ALPN).
    Auto,
    /// What the downstream request came by.
    UseDownstream,
}

/// HTTP options of a cluster.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// Whatever is spoken.
    pub common: CommonHttpOptions,
    /// When HTTP/1.1 is.
    pub http1: UpstreamHttp1Options,
    /// When HTTP/2 is.
    pub http2: Http2Options,
    /// When and how requests are sent again, whatever their routes say.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What requests are hashed by, whatever their routes say.
    pub hash_policy: Option<Arc<HashPolicy>>,
    /// Where copies of requests are sent, whatever their routes say.
    pub mirrors: Option<Arc<[MirrorPolicy]>>,
    /// What requests say about the servers' names.
    pub auto_names: Option<AutoNames>,
    /// Which answers are errors for outlier detection; `None` takes those with a status of 5xx.
    pub error_matcher: Option<Arc<ResponsePredicate>>,
}

/// What requests say about the names of the servers they go to (`upstream_http_protocol_options`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoNames {
    /// Servers are asked for by the request's host, if that is no address (`auto_sni`).
    pub sni: bool,
    /// Certificates have to be for the request's host (`auto_san_validation`).
    pub san: bool,
    /// A header whose value takes the host's place (`override_auto_sni_header`).
    pub header: Option<HeaderKey>,
}

/// Options of both protocols (`common_http_protocol_options`).
#[derive(Debug, Clone, PartialEq)]
pub struct CommonHttpOptions {
    /// An idle connection is closed after this (1 h); `None` never.
    pub idle_timeout: Option<Duration>,
    /// A connection takes no further request after this; `None` for ever.
    pub max_connection_duration: Option<Duration>,
    /// Headers in a response (100).
    pub max_headers_count: u32,
    /// Bytes of headers in a response; `None` when not given: the codec's default.
    pub max_response_headers_bytes: Option<u32>,
    /// Longest life of a request to this cluster; `None` for ever.
    pub max_stream_duration: Option<Duration>,
    /// What happens to response headers with an underscore in their name.
    pub headers_with_underscores: UnderscoreAction,
    /// Requests on a connection before it is closed; `None` for any number.
    pub max_requests_per_connection: Option<u32>,
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnderscoreAction {
    /// Pass.
    #[default]
    Allow,
    /// Refuse the message.
    Reject,
    /// Remove the header.
    Drop,
}

/// Options of HTTP/1.1 to an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamHttp1Options {
    /// How header names are spelled, and whether the upstream's spelling is kept for clients.
    pub header_case: HeaderCase,
    /// Trailers are passed on.
    pub enable_trailers: bool,
    /// A response with both `content-length` and `transfer-encoding` is accepted.
    pub allow_chunked_length: bool,
    /// The request target is the whole URL.
    pub send_fully_qualified_url: bool,
}

impl Default for CommonHttpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_headers_count: 100,
            max_response_headers_bytes: None,
            max_stream_duration: None,
            headers_with_underscores: UnderscoreAction::Allow,
            max_requests_per_connection: None,
        }
    }
}

/// The deprecated fields of `Cluster` that `HttpProtocolOptions` replaced.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    pub(super) common: Option<core::HttpProtocolOptions>,
    pub(super) upstream: Option<core::UpstreamHttpProtocolOptions>,
    pub(super) http1: Option<core::Http1ProtocolOptions>,
    pub(super) http2: Option<core::Http2ProtocolOptions>,
    pub(super) use_downstream_protocol: bool,
}

impl HttpOptions {
    /// Options by `HttpProtocolOptions`.
    pub(super) fn parse(at: At<'_>, proto: http::HttpProtocolOptions) -> Result<Self, ConfigError> {
        use http::http_protocol_options as options;
        let http::HttpProtocolOptions {
            common_http_protocol_options,
            upstream_http_protocol_options,
            http_filters,
            header_validation_config,
            outlier_detection,
            request_mirror_policies,
            hash_policy,
            retry_policy,
            upstream_protocol_options,
        } = proto;
        upstream_filters(at.field("http_filters"), &http_filters)?;
        at.unsupported(&unsupported::header_validation_config, &header_validation_config)?;
        let error_matcher = match outlier_detection {
            None => None,
            Some(options::OutlierDetection { error_matcher }) => {
                let at = at.field("outlier_detection");
                let matcher = at.required("error_matcher", error_matcher)?;
                let matcher = ResponsePredicate::parse(matcher, at.field("error_matcher"), RegexLimits::default())?;
                Some(Arc::new(matcher))
            }
        };
        let mirrors = mirror::of_cluster(request_mirror_policies, at)?;
        let hash_policy = hash::parse(hash_policy, at.field("hash_policy"), RegexLimits::default())?;
        // The limits on expressions that the runtime may set are for routes.
        let retry = retry_policy
            .map(|policy| RetryPolicy::parse(policy, at.field("retry_policy"), RegexLimits::default()).map(Arc::new))
            .transpose()?;
        let auto_names = AutoNames::parse(at.field("upstream_http_protocol_options"), upstream_http_protocol_options)?;
        let common = common_http_protocol_options;
        let (protocol, http1, http2) = match at.required("upstream_protocol_options", upstream_protocol_options)? {
            options::UpstreamProtocolOptions::ExplicitHttpConfig(options::ExplicitHttpConfig { protocol_config }) => {
                use options::explicit_http_config::ProtocolConfig;
                let at = at.field("explicit_http_config");
                match at.required("protocol_config", protocol_config)? {
                    ProtocolConfig::HttpProtocolOptions(http1) => (UpstreamProtocol::Http1, Some(http1), None),
                    ProtocolConfig::Http2ProtocolOptions(http2) => (UpstreamProtocol::Http2, None, Some(http2)),
                    ProtocolConfig::Http3ProtocolOptions(_) => {
                        at.field("http3_protocol_options").refuse_or_warn(&unsupported::http3_protocol_options)?;
                        (UpstreamProtocol::Http2, None, None)
                    }
                }
            }
            options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(config) => {
                let options::UseDownstreamHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options,
                } = config;
                let at = at.field("use_downstream_protocol_config");
                at.unsupported(&unsupported::http3_protocol_options, &http3_protocol_options)?;
                (UpstreamProtocol::UseDownstream, http_protocol_options, http2_protocol_options)
            }
            options::UpstreamProtocolOptions::AutoConfig(config) => {
                let at = at.field("auto_config");
                let options::AutoHttpConfig {
                    http_protocol_options,
                    http2_protocol_options,
                    http3_protocol_options,
                    alternate_protocols_cache_options,
                } = config;
                at.unsupported(&auto_unsupported::http3_protocol_options, &http3_protocol_options)?;
                at.unsupported(
                    &auto_unsupported::alternate_protocols_cache_options,
                    &alternate_protocols_cache_options,
                )?;
                (UpstreamProtocol::Auto, http_protocol_options, http2_protocol_options)
            }
        };
        let built = Self::build(at, protocol, common, http1, http2)?;
        Ok(Self { retry, hash_policy, mirrors, error_matcher, auto_names, ..built })
    }

    /// Options by the deprecated fields.
    pub(super) fn legacy(at: At<'_>, legacy: Legacy) -> Result<Self, ConfigError> {
        let Legacy { common, upstream, http1, http2, use_downstream_protocol } = legacy;
        let auto_names = AutoNames::parse(at.field("upstream_http_protocol_options"), upstream)?;
        let protocol = match (&http2, use_downstream_protocol) {
            (_, true) => UpstreamProtocol::UseDownstream,
            (Some(_), false) => UpstreamProtocol::Http2,
            (None, false) => UpstreamProtocol::Http1,
        };
        Ok(Self { auto_names, ..Self::build(at, protocol, common, http1, http2)? })
    }

    fn build(
        at: At<'_>,
        protocol: UpstreamProtocol,
        common: Option<core::HttpProtocolOptions>,
        http1: Option<core::Http1ProtocolOptions>,
        http2: Option<core::Http2ProtocolOptions>,
    ) -> Result<Self, ConfigError> {
        let common = common.map(|proto| CommonHttpOptions::parse(at.field("common_http_protocol_options"), proto));
        let http1 = http1.map(|proto| UpstreamHttp1Options::parse(at.field("http_protocol_options"), proto));
        let http2 = Http2Options::parse(at.field("http2_protocol_options"), http2, false)?;
        Ok(Self {
            protocol,
            common: common.transpose()?.unwrap_or_default(),
            http1: http1.transpose()?.unwrap_or_default(),
            http2,
            retry: None,
            hash_policy: None,
            mirrors: None,
            error_matcher: None,
            auto_names: None,
        })
    }
}

/// The codec filter is what there is anyway; any other upstream filter is refused.
fn upstream_filters(
    at: At<'_>,
    filters: &[envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter],
) -> Result<(), ConfigError> {
    let only_codec = filters.iter().all(|filter| filter.name == "envoy.filters.http.upstream_codec");
    if only_codec { Ok(()) } else { at.refuse_or_warn(&unsupported::http_filters) }
}

impl AutoNames {
    fn parse(at: At<'_>, proto: Option<core::UpstreamHttpProtocolOptions>) -> Result<Option<Self>, ConfigError> {
        let core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
            proto.unwrap_or_default();
        let header = match &override_auto_sni_header[..] {
            "" => None,
            name => Some(HeaderKey::parse(name).ok_or_else(|| {
                at.field("override_auto_sni_header").error(format_args!("'{name}' is not a header name"))
            })?),
        };
        Ok((auto_sni || auto_san_validation).then_some(Self { sni: auto_sni, san: auto_san_validation, header }))
    }
}

impl CommonHttpOptions {
    fn parse(at: At<'_>, proto: core::HttpProtocolOptions) -> Result<Self, ConfigError> {
        let core::HttpProtocolOptions {
            idle_timeout,
            max_connection_duration,
            max_connection_duration_jitter,
            max_headers_count,
            max_response_headers_kb,
            max_stream_duration,
            headers_with_underscores_action,
            max_requests_per_connection,
        } = proto;
        if let Some(jitter) = max_connection_duration_jitter {
            percent(at.field("max_connection_duration_jitter"), &jitter)?;
        }
        at.unsupported(&common_unsupported::max_connection_duration_jitter, &max_connection_duration_jitter)?;
        let defaults = Self::default();
        let limit = |name: &str, proto| Ok(duration(at.field(name), proto)?.filter(|limit| !limit.is_zero()));
        let max_response_headers_bytes = match max_response_headers_kb.map(|v| v.value) {
            Some(kb @ 1..=8192) => Some(kb << 10),
            Some(_) => return Err(at.field("max_response_headers_kb").error("value must be inside range (0, 8192]")),
            None => None,
        };
        Ok(Self {
            // Given but zero: never closed for being idle.
            idle_timeout: match duration(at.field("idle_timeout"), idle_timeout)? {
                Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
                None => defaults.idle_timeout,
            },
            max_connection_duration: limit("max_connection_duration", max_connection_duration)?,
            max_headers_count: max_headers_count.map_or(defaults.max_headers_count, |v| v.value),
            max_response_headers_bytes,
            max_stream_duration: limit("max_stream_duration", max_stream_duration)?,
            headers_with_underscores: match headers_with_underscores_action {
                0 => UnderscoreAction::Allow,
                1 => UnderscoreAction::Reject,
                2 => UnderscoreAction::Drop,
                _ => {
                    return Err(at
                        .field("headers_with_underscores_action")
                        .error("value must be one of the defined enum values"));
                }
            },
            max_requests_per_connection: max_requests_per_connection.map(|v| v.value).filter(|&max| max > 0),
        })
    }
}

impl UpstreamHttp1Options {
    fn parse(at: At<'_>, proto: core::Http1ProtocolOptions) -> Result<Self, ConfigError> {
        #[expect(deprecated, reason = "every field is accounted for, deprecated ones too")]
        let core::Http1ProtocolOptions {
            allow_absolute_url,
            accept_http_10,
            default_host_for_http_10,
            header_key_format,
            enable_trailers,
            allow_chunked_length,
            override_stream_error_on_invalid_http_message,
            send_fully_qualified_url,
            use_balsa_parser,
            allow_custom_methods,
            ignore_http_11_upgrade,
        } = proto;
        at.unsupported(&http1_unsupported::allow_absolute_url, &allow_absolute_url)?;
        at.unsupported(&http1_unsupported::accept_http_10, &accept_http_10)?;
        at.unsupported(&http1_unsupported::default_host_for_http_10, &default_host_for_http_10)?;
        at.unsupported(
            &http1_unsupported::override_stream_error_on_invalid_http_message,
            &override_stream_error_on_invalid_http_message,
        )?;
        at.unsupported(&http1_unsupported::use_balsa_parser, &use_balsa_parser)?;
        at.unsupported(&http1_unsupported::allow_custom_methods, &allow_custom_methods)?;
        at.unsupported(&http1_unsupported::ignore_http_11_upgrade, &ignore_http_11_upgrade)?;
        let format = header_key_format.and_then(|format| format.header_format);
        let no_struct = |_: &str, _: &_| Err("a formatter's configuration must be a message of its type".to_owned());
        let header_case = header_case(&at.field("header_key_format"), format, no_struct)?;
        Ok(Self { header_case, enable_trailers, allow_chunked_length, send_fully_qualified_url })
    }
}

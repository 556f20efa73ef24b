//! The fields that decide what a request says about its client and about itself: whose address it carries, whether it is
//! internal, its id, its scheme.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::core::v3::scheme_header_transformation::Transformation;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::custom_header::v3::CustomHeaderConfig;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3::{XffConfig, XffTrustedCidrs};
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use filters::config::{At, ConfigError};
use filters::http::{HeaderName, Scheme};
use filters::matcher::{CidrRange, CidrSet};
use proto::http_connection_manager as nested;

use super::HcmContext;
use super::parse::{NOT_A_VALUE, unsupported};
use super::values::flag;
use crate::config::any;
use crate::http::hygiene::{
    ClientCertDetails, ClientCertMode, Detection, ForwardClientCert, ForwardProto, InternalAddresses,
};

pub(super) fn detections(
    at: &At<'_>,
    protos: Vec<TypedExtensionConfig>,
    context: &HcmContext<'_>,
) -> Result<Vec<Detection>, ConfigError> {
    let at = at.field("original_ip_detection_extensions");
    let mut detections = Vec::new();
    for (n, TypedExtensionConfig { name, typed_config }) in protos.into_iter().enumerate() {
        let here = at.index(n);
        let Some(typed) = typed_config else { return Err(here.unknown_extension(&name, "")) };
        let typed = any::unwrap(&here, typed, context.log.convert)?;
        detections.push(match typed.type_name() {
            "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig" => xff(&here, typed.decode(&here)?)?,
            "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig" => {
                custom_header(&here, typed.decode(&here)?)?
            }
            other if other.starts_with("envoy.extensions.http.original_ip_detection.") => {
                here.refuse_or_warn(&unsupported::original_ip_detection_extensions)?;
                continue;
            }
            other => return Err(here.unknown_extension(&name, other)),
        });
    }
    Ok(detections)
}

fn xff(at: &At<'_>, proto: XffConfig) -> Result<Detection, ConfigError> {
    let XffConfig { xff_num_trusted_hops: hops, xff_trusted_cidrs, skip_xff_append } = proto;
    if hops > 0 && xff_trusted_cidrs.is_some() {
        return Err(at.error("Cannot set both xff_num_trusted_hops and xff_trusted_cidrs"));
    }
    let trusted = xff_trusted_cidrs
        .map(|XffTrustedCidrs { cidrs }| CidrSet::parse(&cidrs, at.field("xff_trusted_cidrs").field("cidrs")))
        .transpose()?;
    Ok(Detection::Xff { hops, trusted, skip_append: flag(skip_xff_append, true) })
}

fn custom_header(at: &At<'_>, proto: CustomHeaderConfig) -> Result<Detection, ConfigError> {
    let CustomHeaderConfig { header_name, allow_extension_to_set_address_as_trusted: trusted, reject_with_status } =
        proto;
    let name = HeaderName::parse(header_name.as_bytes())
        .ok_or_else(|| at.field("header_name").error(format_args!("'{header_name}' is not a header name")))?;
    // A status that is no error would let the request look answered.
    let reject_with = reject_with_status
        .map(|HttpStatus { code }| u16::try_from(code).ok().filter(|code| (400..600).contains(code)).unwrap_or(403));
    Ok(Detection::CustomHeader { name, trusted, reject_with })
}

pub(super) fn internal(at: &At<'_>, proto: nested::InternalAddressConfig) -> Result<InternalAddresses, ConfigError> {
    let nested::InternalAddressConfig { unix_sockets, cidr_ranges } = proto;
    let ranges = if cidr_ranges.is_empty() {
        // RFC 1918 and RFC 4193.
        let private = [
            ([10, 0, 0, 0].into(), 8),
            ([172, 16, 0, 0].into(), 12),
            ([192, 168, 0, 0].into(), 16),
            ([0xfd00_u16, 0, 0, 0, 0, 0, 0, 0].into(), 8),
        ];
        private.into_iter().map(|(address, length)| CidrRange::new(address, length)).collect()
    } else {
        CidrSet::parse(&cidr_ranges, at.field("internal_address_config").field("cidr_ranges"))?
    };
    Ok(InternalAddresses { ranges, unix_sockets })
}

/// Whether the request id carries the trace reason.
pub(super) fn request_id(
    at: &At<'_>,
    proto: Option<proto::RequestIdExtension>,
    context: &HcmContext<'_>,
) -> Result<bool, ConfigError> {
    let Some(proto::RequestIdExtension { typed_config: Some(typed) }) = proto else { return Ok(true) };
    let here = at.field("request_id_extension");
    let typed = any::unwrap(&here, typed, context.log.convert)?;
    match typed.type_name() {
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" => {
            // The second option matters to tracing only.
            let UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling: _ } =
                typed.decode(&here)?;
            Ok(flag(pack_trace_reason, true))
        }
        other => Err(here.error(format_args!("Didn't find a registered implementation for type: '{other}'"))),
    }
}

pub(super) fn scheme_to_overwrite(at: &At<'_>, proto: Option<Transformation>) -> Result<Option<Scheme>, ConfigError> {
    match proto {
        None => Ok(None),
        Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
            "http" => Ok(Some(Scheme::Http)),
            "https" => Ok(Some(Scheme::Https)),
            _ => Err(at
                .field("scheme_header_transformation")
                .field("scheme_to_overwrite")
                .error("value must be in list [http https]")),
        },
    }
}

/// What becomes of `x-forwarded-client-cert`.
pub(super) fn client_cert(
    at: &At<'_>,
    mode: i32,
    details: Option<nested::SetCurrentClientCertDetails>,
) -> Result<ForwardClientCert, ConfigError> {
    use nested::ForwardClientCertDetails as Mode;
    let mode = match Mode::try_from(mode) {
        Ok(Mode::Sanitize) => ClientCertMode::Sanitize,
        Ok(Mode::ForwardOnly) => ClientCertMode::ForwardOnly,
        Ok(Mode::AppendForward) => ClientCertMode::AppendForward,
        Ok(Mode::SanitizeSet) => ClientCertMode::SanitizeSet,
        Ok(Mode::AlwaysForwardOnly) => ClientCertMode::AlwaysForwardOnly,
        Err(_) => return Err(at.field("forward_client_cert_details").error(NOT_A_VALUE)),
    };
    let nested::SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } =
        details.unwrap_or_default();
    let subject = flag(subject, false);
    let json = match nested::ForwardClientCertFormat::try_from(format) {
        Ok(nested::ForwardClientCertFormat::Text) => false,
        Ok(nested::ForwardClientCertFormat::Json) => true,
        Err(_) => return Err(at.field("set_current_client_cert_details").field("format").error(NOT_A_VALUE)),
    };
    Ok(ForwardClientCert { mode, details: ClientCertDetails { subject, cert, chain, dns, uri, issuer, json } })
}

pub(super) fn forward_proto(
    at: &At<'_>,
    proto: Option<proto::ForwardProtoConfig>,
) -> Result<ForwardProto, ConfigError> {
    let proto::ForwardProtoConfig { https_destination_ports, http_destination_ports } = proto.unwrap_or_default();
    let here = at.field("forward_proto_config");
    let ports = |name: &str, ports: Vec<u32>| {
        let port = |port| u16::try_from(port).map_err(|_| here.field(name).error("value must be a port"));
        ports.into_iter().map(port).collect::<Result<Vec<_>, _>>()
    };
    Ok(ForwardProto {
        https_ports: ports("https_destination_ports", https_destination_ports)?,
        http_ports: ports("http_destination_ports", http_destination_ports)?,
    })
}

//! `proxy-status` (RFC 9209): why a response is not what the origin would have said.

use bytes::Bytes;
use filters::flags::ResponseFlags as F;
use filters::http::{Known, ResponseHead};
use filters::stream_info::StreamInfo;

/// `proxy_status_config`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyStatus {
    /// This proxy's name.
    pub name: Bytes,
    /// Whether `details` are told (`remove_details`); the next two are part of them.
    pub details: bool,
    /// Whether how the connection ended is (`remove_connection_termination_details`).
    pub termination_details: bool,
    /// Whether response flags are (`remove_response_flags`).
    pub flags: bool,
    /// Whether the error's recommended status takes the place of the response's (`set_recommended_response_code`).
    pub recommended_status: bool,
}

/// A proxy error type of RFC 9209 section 2.3, with the status it recommends.
type ProxyError = (&'static str, Option<u16>);

const CONNECTION_LIMIT_REACHED: ProxyError = ("connection_limit_reached", Some(503));
const CONNECTION_REFUSED: ProxyError = ("connection_refused", Some(502));
const CONNECTION_TERMINATED: ProxyError = ("connection_terminated", Some(502));
const CONNECTION_TIMEOUT: ProxyError = ("connection_timeout", Some(504));
const DESTINATION_NOT_FOUND: ProxyError = ("destination_not_found", Some(500));
const DESTINATION_UNAVAILABLE: ProxyError = ("destination_unavailable", Some(503));
const DNS_ERROR: ProxyError = ("dns_error", Some(502));
const HTTP_PROTOCOL_ERROR: ProxyError = ("http_protocol_error", Some(502));
const HTTP_REQUEST_ERROR: ProxyError = ("http_request_error", None);
const HTTP_RESPONSE_TIMEOUT: ProxyError = ("http_response_timeout", Some(504));
const PROXY_CONFIGURATION_ERROR: ProxyError = ("proxy_configuration_error", Some(500));

/// Which error stands for a response flag; where several are set, the first of them here.
const ERRORS: [(F, ProxyError); 27] = [
    (F::LOCAL_HEALTH_CHECK_FAILED, DESTINATION_UNAVAILABLE),
    (F::NO_HEALTHY_UPSTREAM, DESTINATION_UNAVAILABLE),
    (F::UPSTREAM_REQUEST_TIMEOUT, HTTP_RESPONSE_TIMEOUT),
    (F::DURATION_TIMEOUT, CONNECTION_TIMEOUT),
    (F::LOCAL_RESET, CONNECTION_TIMEOUT),
    (F::UPSTREAM_REMOTE_RESET, CONNECTION_TERMINATED),
    (F::UPSTREAM_CONNECTION_FAILURE, CONNECTION_REFUSED),
    (F::UNAUTHORIZED_EXTERNAL_SERVICE, CONNECTION_REFUSED),
    (F::UPSTREAM_CONNECTION_TERMINATION, CONNECTION_TERMINATED),
    (F::OVERLOAD_MANAGER, CONNECTION_LIMIT_REACHED),
    (F::DROP_OVERLOAD, CONNECTION_LIMIT_REACHED),
    (F::FAULT_INJECTED, HTTP_REQUEST_ERROR),
    (F::DOWNSTREAM_CONNECTION_TERMINATION, CONNECTION_TERMINATED),
    (F::DOWNSTREAM_REMOTE_RESET, CONNECTION_TERMINATED),
    (F::UPSTREAM_OVERFLOW, CONNECTION_LIMIT_REACHED),
    (F::NO_ROUTE_FOUND, DESTINATION_NOT_FOUND),
    (F::RATE_LIMITED, CONNECTION_LIMIT_REACHED),
    (F::RATE_LIMIT_SERVICE_ERROR, CONNECTION_LIMIT_REACHED),
    (F::UPSTREAM_RETRY_LIMIT_EXCEEDED, DESTINATION_UNAVAILABLE),
    (F::STREAM_IDLE_TIMEOUT, HTTP_RESPONSE_TIMEOUT),
    (F::INVALID_ENVOY_REQUEST_HEADERS, HTTP_REQUEST_ERROR),
    (F::DOWNSTREAM_PROTOCOL_ERROR, HTTP_REQUEST_ERROR),
    (F::UPSTREAM_MAX_STREAM_DURATION_REACHED, HTTP_RESPONSE_TIMEOUT),
    (F::NO_FILTER_CONFIG_FOUND, PROXY_CONFIGURATION_ERROR),
    (F::UPSTREAM_PROTOCOL_ERROR, HTTP_PROTOCOL_ERROR),
    (F::NO_CLUSTER_FOUND, DESTINATION_UNAVAILABLE),
    (F::DNS_RESOLUTION_FAILED, DNS_ERROR),
];

impl ProxyStatus {
    /// Says in a response what went wrong, if anything did, behind what proxies before this one said.
    pub fn apply(&self, head: &mut ResponseHead, info: &StreamInfo) {
        let Some((_, (error, status))) = ERRORS.iter().find(|(flag, _)| info.flags.contains(*flag)) else { return };
        let mut value = match head.headers.value(&Known::ProxyStatus) {
            Some(before) => [&before[..], b", "].concat(),
            None => Vec::new(),
        };
        value.extend_from_slice(&self.name);
        value.extend_from_slice(b"; error=");
        value.extend_from_slice(error.as_bytes());
        if self.details
            && let Some(details) = &info.details
        {
            let flags = info.flags.iter().map(|(short, _)| short).collect::<Vec<_>>().join(",");
            let termination = info.termination_details.as_deref().filter(|_| self.termination_details);
            let parts = [Some(&**details), termination, Some(&*flags).filter(|_| self.flags)];
            value.extend_from_slice(b"; details=\"");
            escape(&mut value, &parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
            value.push(b'"');
        }
        head.headers.set(Known::ProxyStatus, value);
        if self.recommended_status
            && let Some(status) = status
        {
            head.status = *status;
        }
    }
}

/// Appends text that stands between quotes.
fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\'' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0 => out.extend_from_slice(b"\\0"),
            _ => out.push(byte),
        }
    }
}

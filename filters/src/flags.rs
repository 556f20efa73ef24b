//! Every failure has a name: Envoy's response flags and response-code details.

/// A set of Envoy's response flags (`%RESPONSE_FLAGS%`) that remembers in which order they were set: so they are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseFlags {
    set: u32,
    /// Of the first [`ORDERED`] flags the number plus one, five bits each, the first one lowest.
    order: u64,
}

/// How many flags' order is remembered; what a stream sets beyond is printed last. More than a handful never come together.
const ORDERED: u32 = u64::BITS / 5;

macro_rules! response_flags {
    ($($constant:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = concat!("`", $short, "` ", $long)] pub const $constant: Self = Self { set: 1 << $bit, order: $bit + 1 };)*

            /// Every flag with its short and long name.
            pub const ALL: &[(Self, &str, &str)] = &[$((Self::$constant, $short, $long),)*];
        }
    };
}

response_flags! {
    LOCAL_HEALTH_CHECK_FAILED = 0, "LH", "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 2, "URX", "UpstreamRetryLimitExceeded";
    UPSTREAM_REQUEST_TIMEOUT = 3, "UT", "UpstreamRequestTimeout";
    LOCAL_RESET = 4, "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = 5, "UR", "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_FAILURE = 6, "UF", "UpstreamConnectionFailure";
    UPSTREAM_CONNECTION_TERMINATION = 7, "UC", "UpstreamConnectionTermination";
    UPSTREAM_OVERFLOW = 8, "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = 9, "NR", "NoRouteFound";
    DELAY_INJECTED = 10, "DI", "DelayInjected";
    FAULT_INJECTED = 11, "FI", "FaultInjected";
    RATE_LIMITED = 12, "RL", "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE = 13, "UAEX", "UnauthorizedExternalService";
    RATE_LIMIT_SERVICE_ERROR = 14, "RLSE", "RateLimitServiceError";
    DOWNSTREAM_CONNECTION_TERMINATION = 15, "DC", "DownstreamConnectionTermination";
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE_FILTER = 20, "RFCF", "ResponseFromCacheFilter";
    NO_FILTER_CONFIG_FOUND = 21, "NFCF", "NoFilterConfigFound";
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    DNS_RESOLUTION_FAILED = 26, "DF", "DnsResolutionFailed";
    DROP_OVERLOAD = 27, "DO", "DropOverload";
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD = 29, "UDO", "UnconditionalDropOverload";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self { set: 0, order: 0 };

    /// Adds flags, behind those already set.
    pub const fn insert(&mut self, other: Self) {
        let mut order = other.order;
        while order != 0 {
            let number = order & 31;
            let flag = 1 << (number - 1);
            let count = self.set.count_ones();
            if self.set & flag == 0 && count < ORDERED {
                self.order |= number << (5 * count);
            }
            self.set |= flag;
            order >>= 5;
        }
        self.set |= other.set;
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.set & other.set == other.set
    }

    /// Whether no flag is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.set == 0
    }

    /// The flags that are set, in the order in which they were, with short and long name.
    pub fn iter(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let ordered = (0..ORDERED).filter_map(move |n| (self.order >> (5 * n) & 31).checked_sub(1)).map(|bit| 1 << bit);
        let rest = self.set & !ordered.clone().fold(0, |set: u32, flag: u32| set | flag);
        let others = (0..u32::BITS).map(|bit| 1 << bit).filter(move |flag| rest & flag != 0);
        let named = |flag: u32| Self::ALL.iter().find(|(known, ..)| known.set == flag);
        ordered.chain(others).filter_map(named).map(|(_, short, long)| (*short, *long))
    }

    /// The flag with this short name.
    #[must_use]
    pub fn from_short(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, short, _)| *short == name).map(|(flag, ..)| *flag)
    }
}

impl PartialEq for ResponseFlags {
    fn eq(&self, other: &Self) -> bool {
        self.set == other.set
    }
}

impl Eq for ResponseFlags {}

/// Words of a transport as details and access logs have them: without white space.
#[must_use]
pub fn underscored(text: &str) -> String {
    text.replace([' ', '\t', '\r', '\n'], "_")
}

/// `%RESPONSE_CODE_DETAILS%` texts that are fixed. Texts with a variable part are built where they arise.
pub mod details {
    #![allow(missing_docs, reason = "each constant's text is its meaning")]
    pub const ABSOLUTE_PATH_REJECTED: &str = "absolute_path_rejected";
    pub const CLUSTER_NOT_FOUND: &str = "cluster_not_found";
    pub const DIRECT_RESPONSE: &str = "direct_response";
    pub const DOWNSTREAM_FILTER_CHAIN_REMOVED: &str = "downstream_local_disconnect(filter_chain_is_being_removed)";
    pub const DOWNSTREAM_LISTENER_REMOVED: &str =
        "downstream_local_disconnect(purging_socket_that_have_not_progressed_to_connections)";
    pub const DOWNSTREAM_REMOTE_DISCONNECT: &str = "downstream_remote_disconnect";
    pub const DROP_OVERLOAD: &str = "drop_overload";
    pub const FILTER_CHAIN_NOT_FOUND: &str = "filter_chain_not_found";
    pub const HEALTH_CHECK_CACHED: &str = "health_check_cached";
    pub const HEALTH_CHECK_FAILED: &str = "health_check_failed";
    pub const HEALTH_CHECK_FAILED_CLUSTER_EMPTY: &str = "health_check_failed_cluster_empty";
    pub const HEALTH_CHECK_FAILED_CLUSTER_UNHEALTHY: &str = "health_check_failed_cluster_unhealthy";
    pub const HEALTH_CHECK_FAILED_NO_CLUSTER_FOUND: &str = "health_check_failed_no_cluster_found";
    pub const HEALTH_CHECK_OK: &str = "health_check_ok";
    pub const HEALTH_CHECK_OK_CLUSTER_HEALTHY: &str = "health_check_ok_cluster_healthy";
    pub const INTERNAL_REDIRECT: &str = "internal_redirect";
    pub const LOW_VERSION: &str = "low_version";
    pub const MAX_DURATION_TIMEOUT: &str = "max_duration_timeout";
    pub const MISSING_HOST: &str = "missing_host_header";
    pub const MISSING_PATH: &str = "missing_path_rejected";
    pub const NO_HEALTHY_UPSTREAM: &str = "no_healthy_upstream";
    pub const OVERLOAD: &str = "overload";
    pub const PATH_NORMALIZATION_FAILED: &str = "path_normalization_failed";
    pub const REQUEST_HEADER_TIMEOUT: &str = "request_header_timeout";
    pub const REQUEST_HEADERS_FAILED_STRICT_CHECK: &str = "request_headers_failed_strict_check";
    pub const REQUEST_OVERALL_TIMEOUT: &str = "request_overall_timeout";
    pub const REQUEST_PAYLOAD_EXCEEDED_RETRY_BUFFER_LIMIT: &str = "request_payload_exceeded_retry_buffer_limit";
    pub const REQUEST_PAYLOAD_TOO_LARGE: &str = "request_payload_too_large";
    pub const RESPONSE_TIMEOUT: &str = "response_timeout";
    pub const ROUTE_CONFIGURATION_NOT_FOUND: &str = "route_configuration_not_found";
    pub const ROUTE_NOT_FOUND: &str = "route_not_found";
    pub const STREAM_IDLE_TIMEOUT: &str = "stream_idle_timeout";
    pub const UPGRADE_FAILED: &str = "upgrade_failed";
    pub const UPSTREAM_MAX_STREAM_DURATION_REACHED: &str = "upstream_max_stream_duration_reached";
    pub const UPSTREAM_PER_TRY_IDLE_TIMEOUT: &str = "upstream_per_try_idle_timeout";
    pub const UPSTREAM_PER_TRY_TIMEOUT: &str = "upstream_per_try_timeout";
    pub const VIA_UPSTREAM: &str = "via_upstream";
    pub const WEBSOCKET_HANDSHAKE_UNSUCCESSFUL: &str = "websocket_handshake_unsuccessful";
    pub const HTTP_INVALID_AUTHORITY: &str = "http.invalid_authority";
    pub const HTTP1_BODY_DISALLOWED: &str = "http1.body_disallowed";
    pub const HTTP1_CODEC_ERROR: &str = "http1.codec_error";
    pub const HTTP1_CONNECTION_HEADER_REJECTED: &str = "http1.connection_header_rejected";
    pub const HTTP1_CONTENT_LENGTH_AND_CHUNKED: &str = "http1.content_length_and_chunked_not_allowed";
    pub const HTTP1_CONTENT_LENGTH_NOT_ALLOWED: &str = "http1.content_length_not_allowed";
    pub const HTTP1_HEADERS_TOO_LARGE: &str = "http1.headers_too_large";
    pub const HTTP1_HTTPS_URL_ON_PLAINTEXT: &str = "http1.https_url_on_plaintext_connection";
    pub const HTTP1_INVALID_CHARACTERS: &str = "http1.invalid_characters";
    pub const HTTP1_INVALID_SCHEME: &str = "http1.invalid_scheme";
    pub const HTTP1_INVALID_TRANSFER_ENCODING: &str = "http1.invalid_transfer_encoding";
    pub const HTTP1_INVALID_URL: &str = "http1.invalid_url";
    pub const HTTP1_TOO_MANY_HEADERS: &str = "http1.too_many_headers";
    pub const HTTP1_TRANSFER_ENCODING_NOT_ALLOWED: &str = "http1.transfer_encoding_not_allowed";
    pub const HTTP1_UNEXPECTED_UNDERSCORE: &str = "http1.unexpected_underscore";
    pub const HTTP2_REMOTE_RESET: &str = "http2.remote_reset";
    pub const HTTP2_REMOTE_REFUSE: &str = "http2.remote_refuse";
    pub const HTTP2_TOO_MANY_HEADERS: &str = "http2.too_many_headers";
    pub const HTTP2_EMPTY_FRAMES_FLOOD: &str = "http2.inbound_empty_frames_flood";
    pub const HTTP2_HEADER_LIST_TOO_LARGE: &str = "http2.header_list_size_too_large";
    pub const HTTP2_INVALID_HEADER_FIELD: &str = "http2.invalid.header.field";
    pub const HTTP2_UNEXPECTED_UNDERSCORE: &str = "http2.unexpected_underscore";
    /// What the library of Envoy calls by no name of its own.
    pub const HTTP2_UNKNOWN_ERROR: &str = "http2.unknown.nghttp2.error";
    pub const HTTP2_VIOLATION: &str = "http2.violation.of.messaging.rule";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_as_they_were_set() {
        let short = |flags: ResponseFlags| flags.iter().map(|(short, _)| short).collect::<Vec<_>>();
        let mut flags = ResponseFlags::NONE;
        for flag in ["UF", "URX", "UF", "DC"] {
            flags.insert(ResponseFlags::from_short(flag).unwrap());
        }
        assert_eq!(short(flags), ["UF", "URX", "DC"]);
        let mut first = ResponseFlags::LOCAL_HEALTH_CHECK_FAILED;
        first.insert(flags);
        assert_eq!(short(first), ["LH", "UF", "URX", "DC"]);
        assert!(first.contains(flags) && !flags.contains(first));
        assert_eq!(ResponseFlags::from_short("UC"), Some(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION));
    }

    #[test]
    fn all_flags_at_once_are_printed_once_each() {
        let mut flags = ResponseFlags::NONE;
        for (flag, ..) in ResponseFlags::ALL.iter().rev() {
            flags.insert(*flag);
        }
        let mut printed: Vec<_> = flags.iter().map(|(short, _)| short).collect();
        assert_eq!(printed.first(), Some(&"UDO"));
        printed.sort_unstable();
        printed.dedup();
        assert_eq!(printed.len(), ResponseFlags::ALL.len());
    }
}

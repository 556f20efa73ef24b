//! The operators: what they are called, what arguments they take.

use super::time::TimeFormat;
use super::tls::TlsFact;
use super::xfcc::XfccKey;
use crate::http::HeaderKey;

/// One operator with its arguments understood.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// An operator without arguments.
    Fact(Fact),
    /// A text known when the configuration was loaded.
    Constant(Box<[u8]>),
    /// Something this process never knows; always missing.
    Missing,
    Header {
        of: Message,
        name: Option<HeaderKey>,
        alternative: Option<HeaderKey>,
        max: Option<usize>,
    },
    Time {
        emitted: bool,
        format: TimeFormat,
    },
    Details {
        spaces: bool,
    },
    Interval {
        from: Moment,
        to: Moment,
        unit: Unit,
    },
    Address {
        of: Side,
        form: AddressForm,
    },
    GrpcStatus(GrpcForm),
    /// What is known of a TLS session.
    Tls {
        upstream: bool,
        fact: TlsFact,
    },
    /// The first and last moment of the peer's certificate.
    Validity {
        upstream: bool,
        end: bool,
        format: TimeFormat,
    },
    /// `%XFCC_VALUE%`
    Xfcc(XfccKey),
    ServerName {
        sni: Preference,
        host: HostSource,
    },
    QueryParameter {
        name: Box<[u8]>,
        max: Option<usize>,
    },
    Path {
        query: bool,
        source: PathSource,
        max: Option<usize>,
    },
    Query {
        decoded: bool,
    },
    Metadata {
        of: MetadataOf,
        namespace: Box<str>,
        path: Box<[Box<str>]>,
        max: Option<usize>,
    },
    FilterState {
        key: Box<str>,
        form: StateForm,
        max: Option<usize>,
    },
    /// `%COALESCE%`: the first of these that is not missing.
    FirstOf(Box<[Self]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Response,
    Trailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    UpstreamLocal,
    UpstreamRemote,
    DownstreamRemote,
    DownstreamDirectRemote,
    DownstreamLocal,
    DownstreamDirectLocal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressForm {
    Full,
    Port,
    /// Without port, cut to this many bits.
    WithoutPort(Option<u8>),
    EndpointId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    SniOnly,
    SniFirst,
    HostFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostSource {
    Original,
    Current,
    OriginalOrCurrent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathSource {
    Original,
    Current,
    OriginalOrCurrent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataOf {
    Dynamic,
    Cluster,
    Route,
    UpstreamHost,
    VirtualHost,
    /// A kind of metadata that is never there.
    Nothing,
}

/// What is printed of an object of the filter state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StateForm {
    Plain,
    Typed,
    Field,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// A moment of `%COMMON_DURATION%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
    /// A name no filter ever sets.
    Never,
}

macro_rules! facts {
    ($($name:literal => $variant:ident $kind:ident,)*) => {
        /// An operator without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fact {
            $($variant,)*
        }

        impl Fact {
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Whether the value is a number where types matter.
            pub(super) const fn is_number(self) -> bool {
                match self {
                    $(Self::$variant => facts!(@ $kind),)*
                }
            }
        }
    };
    (@ number) => { true };
    (@ text) => { false };
}

facts! {
    "ACCESS_LOG_TYPE" => AccessLogType text,
    "BYTES_RECEIVED" => BytesReceived number,
    "BYTES_SENT" => BytesSent number,
    "CONNECTION_ID" => ConnectionId number,
    "CONNECTION_TERMINATION_DETAILS" => ConnectionTerminationDetails text,
    "CUSTOM_FLAGS" => CustomFlags text,
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" => DownstreamDecompressedHeaderBytesReceived number,
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT" => DownstreamDecompressedHeaderBytesSent number,
    "DOWNSTREAM_HEADER_BYTES_RECEIVED" => DownstreamHeaderBytesReceived number,
    "DOWNSTREAM_HEADER_BYTES_SENT" => DownstreamHeaderBytesSent number,
    "DOWNSTREAM_WIRE_BYTES_RECEIVED" => DownstreamWireBytesReceived number,
    "DOWNSTREAM_WIRE_BYTES_SENT" => DownstreamWireBytesSent number,
    "DURATION" => Duration number,
    "FILTER_CHAIN_NAME" => FilterChainName text,
    "GRPC_STATUS_NUMBER" => GrpcStatusNumber number,
    "LOCAL_REPLY_BODY" => LocalReplyBody text,
    "PROTOCOL" => Protocol text,
    "REQUEST_DURATION" => RequestDuration number,
    "REQUEST_HEADERS_BYTES" => RequestHeadersBytes number,
    "REQUEST_TX_DURATION" => RequestTxDuration number,
    "RESPONSE_CODE" => ResponseCode number,
    "RESPONSE_DURATION" => ResponseDuration number,
    "RESPONSE_FLAGS" => ResponseFlags text,
    "RESPONSE_FLAGS_LONG" => ResponseFlagsLong text,
    "RESPONSE_HEADERS_BYTES" => ResponseHeadersBytes number,
    "RESPONSE_TRAILERS_BYTES" => ResponseTrailersBytes number,
    "RESPONSE_TX_DURATION" => ResponseTxDuration number,
    "ROUTE_NAME" => RouteName text,
    "ROUTE_RESOLUTION_COUNT" => RouteResolutionCount number,
    "SPAN_ID" => SpanId text,
    "STREAM_ID" => StreamId text,
    "TRACE_ID" => TraceId text,
    "UNIQUE_ID" => UniqueId text,
    "UPSTREAM_CLUSTER" => UpstreamCluster text,
    "UPSTREAM_CLUSTER_RAW" => UpstreamClusterRaw text,
    "UPSTREAM_CONNECTION_ID" => UpstreamConnectionId number,
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => UpstreamConnectionIdsAttempted text,
    "UPSTREAM_CONNECTION_POOL_READY_DURATION" => UpstreamPoolReadyDuration number,
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" => UpstreamDecompressedHeaderBytesReceived number,
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT" => UpstreamDecompressedHeaderBytesSent number,
    "UPSTREAM_HEADER_BYTES_RECEIVED" => UpstreamHeaderBytesReceived number,
    "UPSTREAM_HEADER_BYTES_SENT" => UpstreamHeaderBytesSent number,
    "UPSTREAM_HOST" => UpstreamHost text,
    "UPSTREAM_HOSTS_ATTEMPTED" => UpstreamHostsAttempted text,
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => UpstreamHostsAttemptedWithoutPort text,
    "UPSTREAM_HOST_NAME" => UpstreamHostName text,
    "UPSTREAM_HOST_NAMES_ATTEMPTED" => UpstreamHostNamesAttempted text,
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => UpstreamHostNamesAttemptedWithoutPort text,
    "UPSTREAM_HOST_NAME_WITHOUT_PORT" => UpstreamHostNameWithoutPort text,
    "UPSTREAM_PROTOCOL" => UpstreamProtocol text,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT" => UpstreamRequestAttemptCount number,
    "UPSTREAM_TRANSPORT_FAILURE_REASON" => UpstreamTransportFailureReason text,
    "UPSTREAM_WIRE_BYTES_RECEIVED" => UpstreamWireBytesReceived number,
    "UPSTREAM_WIRE_BYTES_SENT" => UpstreamWireBytesSent number,
    "VIRTUAL_CLUSTER_NAME" => VirtualClusterName text,
}

/// Operators that take no argument and name something never known here: fingerprints of hellos, kernel and close facts
/// nobody collects.
pub(super) fn is_never_known(name: &str) -> bool {
    matches!(
        name,
        "BYTES_RETRANSMITTED"
            | "DOWNSTREAM_CX_RTT"
            | "DOWNSTREAM_DETECTED_CLOSE_TYPE"
            | "DOWNSTREAM_HANDSHAKE_DURATION"
            | "DOWNSTREAM_LOCAL_CLOSE_REASON"
            | "PACKETS_RETRANSMITTED"
            | "ROUNDTRIP_DURATION"
            | "ROUTE_RESOLUTION_TIME_US"
            | "TLS_JA3_FINGERPRINT"
            | "TLS_JA4_FINGERPRINT"
            | "UPSTREAM_DETECTED_CLOSE_TYPE"
            | "UPSTREAM_LOCAL_CLOSE_REASON"
    )
}

//! What an operator prints for one stream.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::FormatContext;
use super::command::{
    AddressForm, Command, Fact, GrpcForm, HostSource, Message, MetadataOf, Moment, PathSource, Preference, Side, Unit,
};
use super::json;
use crate::http::{HeaderKey, Headers, Known, RequestHead, ResponseHead};
use crate::matcher::CidrRange;
use crate::stream_info::{Address, StreamInfo, UpstreamInfo};
use crate::uuid;

impl Command {
    /// Appends the text; false, and nothing appended, when the value is missing.
    pub(super) fn append(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) -> bool {
        let info = context.info;
        match self {
            Self::Fact(fact) => fact.append(out, context),
            Self::Constant(text) => text_of(out, Some(text)),
            Self::Missing => false,
            Self::Header { of, name, alternative, max } => {
                let start = out.len();
                let found = [name, alternative].into_iter().flatten().any(|key| header(out, *of, key, context));
                truncate(out, start, *max);
                found
            }
            Self::Time { emitted, format } => {
                format.append_to(out, if *emitted { SystemTime::now() } else { info.start_time });
                true
            }
            Self::Details { spaces } => match info.details.as_deref() {
                Some(details) if *spaces => escaped(out, details.as_bytes()),
                Some(details) => {
                    out.extend(details.bytes().map(|byte| if byte.is_ascii_whitespace() { b'_' } else { byte }));
                    true
                }
                None => false,
            },
            Self::Interval { from, to, unit } => match (from.of(info), to.of(info)) {
                (Some(from), Some(to)) => {
                    let elapsed = to.saturating_duration_since(from);
                    number(
                        out,
                        match unit {
                            Unit::Milliseconds => elapsed.as_millis(),
                            Unit::Microseconds => elapsed.as_micros(),
                            Unit::Nanoseconds => elapsed.as_nanos(),
                        } as u64,
                    )
                }
                _ => false,
            },
            Self::Address { of, form } => match side(*of, info) {
                Some(at) => at.append(out, *form),
                None => false,
            },
            Self::GrpcStatus(form) => match grpc_status(context) {
                Some(status) => {
                    match (*form, GRPC_NAMES.get(status as usize)) {
                        (GrpcForm::Camel, Some((camel, _))) => out.extend_from_slice(camel.as_bytes()),
                        (GrpcForm::Snake, Some((_, snake))) => out.extend_from_slice(snake.as_bytes()),
                        _ => return number(out, status.into()),
                    }
                    true
                }
                None => false,
            },
            Self::ServerName { sni, host } => server_name(out, *sni, *host, context),
            Self::QueryParameter { name, max } => {
                let start = out.len();
                let query = context.request.and_then(|request| query(request));
                let found = query.is_some_and(|query| query_parameter(out, query, name));
                truncate(out, start, *max);
                found
            }
            Self::Query { decoded: false } => text_of(out, context.request.and_then(query)),
            Self::Query { decoded: true } => {
                context.request.and_then(query).is_some_and(|query| decode_visible(out, query))
            }
            Self::Path { query, source, max } => {
                let start = out.len();
                let found = text_of(out, context.request.and_then(|request| path(request, *query, *source)));
                truncate(out, start, *max);
                found
            }
            Self::Metadata { max, .. } => match self.value(context) {
                Some(value) => {
                    let start = out.len();
                    match value {
                        Value::String(text) => {
                            escaped(out, text.as_bytes());
                        }
                        value => json::append_value(out, value),
                    }
                    truncate(out, start, *max);
                    true
                }
                None => false,
            },
            Self::FirstOf(commands) => commands.iter().any(|command| command.append(out, context)),
        }
    }

    /// Appends the value as JSON; false, and nothing appended, when it is missing.
    pub(super) fn append_json(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) -> bool {
        match self {
            Self::FirstOf(commands) => commands.iter().any(|command| command.append_json(out, context)),
            Self::Metadata { max, .. } => match self.value(context) {
                Some(Value::String(_)) if max.is_some() => json::append_quoted(out, |out| self.append(out, context)),
                Some(value) => {
                    json::append_value(out, value);
                    true
                }
                None => false,
            },
            Self::GrpcStatus(GrpcForm::Number)
            | Self::Interval { .. }
            | Self::Address { form: AddressForm::Port, .. } => self.append(out, context),
            Self::Fact(fact) if fact.is_number() => self.append(out, context),
            _ => json::append_quoted(out, |out| self.append(out, context)),
        }
    }

    /// The value of a metadata operator.
    fn value<'a>(&self, context: &FormatContext<'a>) -> Option<&'a Value> {
        let Self::Metadata { of, namespace, path, .. } = self else { return None };
        let upstream = || context.info.upstream.as_deref();
        let metadata = match of {
            MetadataOf::Dynamic => context.info.dynamic_metadata.as_deref(),
            MetadataOf::Route => context.info.route_metadata.as_deref(),
            MetadataOf::VirtualHost => context.info.virtual_host_metadata.as_deref(),
            MetadataOf::Cluster => upstream()?.cluster_metadata.as_deref(),
            MetadataOf::UpstreamHost => upstream()?.host_metadata.as_deref(),
            MetadataOf::Nothing => None,
        }?;
        let found = path.iter().try_fold(metadata.get(&**namespace)?, |value, key| value.get(&**key))?;
        (!found.is_null()).then_some(found)
    }
}

impl Fact {
    fn append(self, out: &mut Vec<u8>, context: &FormatContext<'_>) -> bool {
        let info = context.info;
        let upstream = info.upstream.as_deref();
        let since_start = |moment: Option<Instant>| moment.map(|at| at.saturating_duration_since(info.start));
        match self {
            Self::AccessLogType => text_of(out, Some(context.log_type.as_str().as_bytes())),
            Self::BytesReceived => number(out, info.bytes_received),
            Self::BytesSent => number(out, info.bytes_sent),
            Self::ConnectionId => number(out, info.connection.id),
            Self::ConnectionTerminationDetails => {
                info.termination_details.as_deref().is_some_and(|details| escaped(out, details.as_bytes()))
            }
            Self::CustomFlags => text_of(out, Some(info.custom_flags.as_bytes())),
            Self::DownstreamDecompressedHeaderBytesReceived | Self::DownstreamHeaderBytesReceived => {
                number(out, info.downstream_bytes.header_rx)
            }
            Self::DownstreamDecompressedHeaderBytesSent | Self::DownstreamHeaderBytesSent => {
                number(out, info.downstream_bytes.header_tx)
            }
            Self::DownstreamWireBytesReceived => number(out, info.downstream_bytes.wire_rx),
            Self::DownstreamWireBytesSent => number(out, info.downstream_bytes.wire_tx),
            Self::Duration => {
                let end = info.end.unwrap_or_else(Instant::now);
                milliseconds(out, Some(end.saturating_duration_since(info.start)))
            }
            Self::FilterChainName => nonempty(out, Some(&info.connection.filter_chain_name)),
            Self::GrpcStatusNumber => grpc_status(context).is_some_and(|status| number(out, status.into())),
            Self::LocalReplyBody => text_of(out, Some(context.local_reply_body)),
            Self::Protocol => text_of(out, info.protocol.map(|version| version.as_str().as_bytes())),
            Self::RequestDuration => milliseconds(out, since_start(info.timing.last_downstream_rx)),
            Self::RequestHeadersBytes => number(out, context.request.map_or(0, request_size) as u64),
            Self::RequestTxDuration => milliseconds(out, since_start(info.timing.last_upstream_tx)),
            Self::ResponseCode => number(out, info.response_code.into()),
            Self::ResponseDuration => milliseconds(out, since_start(info.timing.first_upstream_rx)),
            // No flag is a value of its own, where missing values are left out too.
            Self::ResponseFlags | Self::ResponseFlagsLong if info.flags.is_empty() => text_of(out, Some(b"-")),
            Self::ResponseFlags => joined(out, info.flags.iter().map(|(short, _)| short)),
            Self::ResponseFlagsLong => joined(out, info.flags.iter().map(|(_, long)| long)),
            Self::ResponseHeadersBytes => number(out, context.response.map_or(0, response_size) as u64),
            Self::ResponseTrailersBytes => number(out, context.trailers.map_or(0, Headers::byte_size) as u64),
            Self::ResponseTxDuration => match (info.timing.first_upstream_rx, info.timing.last_downstream_tx) {
                (Some(from), Some(to)) => milliseconds(out, Some(to.saturating_duration_since(from))),
                _ => false,
            },
            Self::RouteName => nonempty(out, info.route_name.as_deref()),
            Self::RouteResolutionCount => number(out, info.route_resolutions.into()),
            Self::SpanId => nonempty(out, info.trace.as_ref().map(|trace| trace.1.as_str())),
            Self::TraceId => nonempty(out, info.trace.as_ref().map(|trace| trace.0.as_str())),
            Self::StreamId => {
                let id = context.request.and_then(|request| request.headers.value(&Known::XRequestId));
                match id {
                    Some(id) if !id.is_empty() => text_of(out, Some(id)),
                    _ => number(out, info.stream_id),
                }
            }
            Self::UniqueId => text_of(out, Some(&uuid::v4(&mut fastrand::Rng::new()))),
            Self::UpstreamCluster | Self::UpstreamClusterRaw => {
                nonempty(out, upstream.and_then(|upstream| upstream.cluster.as_deref()))
            }
            Self::UpstreamConnectionId => {
                number(out, upstream.and_then(|upstream| upstream.connection_id).unwrap_or_default())
            }
            Self::UpstreamConnectionIdsAttempted => upstream.is_some_and(|upstream| {
                list(out, &upstream.connection_ids_attempted, |out, id| {
                    number(out, *id);
                })
            }),
            Self::UpstreamPoolReadyDuration => milliseconds(out, upstream.and_then(|upstream| upstream.pool_ready)),
            Self::UpstreamDecompressedHeaderBytesReceived | Self::UpstreamHeaderBytesReceived => {
                number(out, info.upstream_bytes.header_rx)
            }
            Self::UpstreamDecompressedHeaderBytesSent | Self::UpstreamHeaderBytesSent => {
                number(out, info.upstream_bytes.header_tx)
            }
            Self::UpstreamWireBytesReceived => number(out, info.upstream_bytes.wire_rx),
            Self::UpstreamWireBytesSent => number(out, info.upstream_bytes.wire_tx),
            Self::UpstreamHost => match upstream.and_then(|upstream| upstream.host.as_deref()) {
                Some(host) => address(out, host, true),
                None => false,
            },
            Self::UpstreamHostsAttempted | Self::UpstreamHostNamesAttempted => upstream.is_some_and(|upstream| {
                list(out, &upstream.hosts_attempted, |out, host| {
                    address(out, host, true);
                })
            }),
            Self::UpstreamHostsAttemptedWithoutPort | Self::UpstreamHostNamesAttemptedWithoutPort => upstream
                .is_some_and(|upstream| {
                    list(out, &upstream.hosts_attempted, |out, host| {
                        address(out, host, false);
                    })
                }),
            Self::UpstreamHostName => upstream.is_some_and(|upstream| host_name(out, upstream, true)),
            Self::UpstreamHostNameWithoutPort => upstream.is_some_and(|upstream| host_name(out, upstream, false)),
            Self::UpstreamProtocol => {
                let version = upstream.and_then(|upstream| upstream.protocol);
                text_of(out, version.map(|version| version.as_str().as_bytes()))
            }
            Self::UpstreamRequestAttemptCount => number(out, upstream.map_or(0, |upstream| upstream.attempts.into())),
            Self::UpstreamTransportFailureReason => {
                let reason = upstream.and_then(|upstream| upstream.transport_failure.as_deref());
                reason.is_some_and(|reason| {
                    out.extend(reason.bytes().map(|byte| if byte.is_ascii_whitespace() { b'_' } else { byte }));
                    true
                })
            }
            Self::VirtualClusterName => nonempty(out, info.virtual_cluster.as_deref()),
        }
    }
}

impl Moment {
    const fn of(self, info: &StreamInfo) -> Option<Instant> {
        match self {
            Self::DownstreamRxBegin => Some(info.start),
            Self::DownstreamRxEnd => info.timing.last_downstream_rx,
            Self::UpstreamTxBegin => info.timing.first_upstream_tx,
            Self::UpstreamTxEnd => info.timing.last_upstream_tx,
            Self::UpstreamRxBegin => info.timing.first_upstream_rx,
            Self::UpstreamRxEnd => info.timing.last_upstream_rx,
            Self::DownstreamTxBegin => info.timing.first_downstream_tx,
            Self::DownstreamTxEnd => info.timing.last_downstream_tx,
            Self::Never => None,
        }
    }
}

fn text_of(out: &mut Vec<u8>, text: Option<&[u8]>) -> bool {
    let Some(text) = text else { return false };
    out.extend_from_slice(text);
    true
}

fn nonempty(out: &mut Vec<u8>, text: Option<&str>) -> bool {
    text_of(out, text.filter(|text| !text.is_empty()).map(str::as_bytes))
}

/// Appends a text with control characters escaped, so that it cannot end a line or drive a terminal.
fn escaped(out: &mut Vec<u8>, text: &[u8]) -> bool {
    if !text.iter().any(u8::is_ascii_control) {
        return text_of(out, Some(text));
    }
    for byte in text {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.push(b'\t'),
            byte if byte.is_ascii_control() => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            byte => out.push(*byte),
        }
    }
    true
}

fn number(out: &mut Vec<u8>, value: u64) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

fn milliseconds(out: &mut Vec<u8>, elapsed: Option<Duration>) -> bool {
    elapsed.is_some_and(|elapsed| number(out, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)))
}

fn truncate(out: &mut Vec<u8>, start: usize, max: Option<usize>) {
    if let Some(max) = max {
        out.truncate(start.saturating_add(max).min(out.len()));
    }
}

fn joined<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a str>) -> bool {
    let start = out.len();
    for text in texts {
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(text.as_bytes());
    }
    out.len() > start
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut append: impl FnMut(&mut Vec<u8>, &T)) -> bool {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        append(out, item);
    }
    !items.is_empty()
}

fn header(out: &mut Vec<u8>, of: Message, key: &HeaderKey, context: &FormatContext<'_>) -> bool {
    match of {
        Message::Request => text_of(out, context.request.and_then(|head| head.value(key))),
        Message::Response => match (context.response, key) {
            (Some(head), HeaderKey::Status) => number(out, head.status.into()),
            (head, key) => text_of(out, head.and_then(|head| head.value(key))),
        },
        Message::Trailers => match (context.trailers, key) {
            (Some(trailers), HeaderKey::Name(name)) => text_of(out, trailers.value(name).map(|value| &value[..])),
            _ => false,
        },
    }
}

/// An address of one of the four ends, borrowed or as the socket gave it.
enum At<'a> {
    Any(&'a Address),
    Socket(SocketAddr),
}

fn side(side: Side, info: &StreamInfo) -> Option<At<'_>> {
    let connection = &info.connection;
    Some(match side {
        Side::UpstreamLocal => At::Socket(info.upstream.as_ref()?.local?),
        Side::UpstreamRemote => At::Any(info.upstream.as_ref().filter(|upstream| upstream.connected)?.host.as_deref()?),
        Side::DownstreamRemote => At::Any(&info.remote),
        Side::DownstreamDirectRemote => At::Any(&connection.direct_remote),
        Side::DownstreamLocal => At::Any(&connection.local),
        Side::DownstreamDirectLocal => At::Any(&connection.direct_local),
    })
}

impl At<'_> {
    fn append(&self, out: &mut Vec<u8>, form: AddressForm) -> bool {
        let ip = match self {
            At::Any(address) => address.ip(),
            At::Socket(address) => Some(*address),
        };
        match (form, ip, self) {
            (AddressForm::Full, Some(ip), _) => socket(out, ip),
            (AddressForm::WithoutPort(None), Some(at), _) => ip_address(out, at.ip()),
            (AddressForm::WithoutPort(Some(bits)), Some(at), _) => {
                let range = CidrRange::new(at.ip(), bits);
                ip_address(out, range.base());
                out.push(b'/');
                number(out, range.length().into())
            }
            (AddressForm::Port, Some(at), _) => number(out, at.port().into()),
            (AddressForm::Port, None, _) => false,
            (AddressForm::EndpointId, ..) => true,
            (_, None, At::Any(at)) => address(out, at, true),
            (_, None, At::Socket(_)) => false,
        }
    }
}

fn address(out: &mut Vec<u8>, address: &Address, port: bool) -> bool {
    match address {
        Address::Ip(at) if port => socket(out, *at),
        Address::Ip(at) => ip_address(out, at.ip()),
        other => {
            let _ = write!(out, "{other}");
            true
        }
    }
}

fn socket(out: &mut Vec<u8>, at: SocketAddr) -> bool {
    match at.ip() {
        IpAddr::V4(_) => ip_address(out, at.ip()),
        IpAddr::V6(_) => {
            out.push(b'[');
            ip_address(out, at.ip());
            out.push(b']');
            true
        }
    };
    out.push(b':');
    number(out, at.port().into())
}

fn ip_address(out: &mut Vec<u8>, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => list_dotted(out, ip.octets()),
        IpAddr::V6(ip) => {
            let _ = write!(out, "{ip}");
        }
    }
    true
}

fn list_dotted(out: &mut Vec<u8>, octets: [u8; 4]) {
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(out, octet.into());
    }
}

/// The host's name, or its address where it has none.
fn host_name(out: &mut Vec<u8>, upstream: &UpstreamInfo, port: bool) -> bool {
    match (upstream.host_name.as_deref().filter(|name| !name.is_empty()), upstream.host.as_deref()) {
        (Some(name), _) if port => text_of(out, Some(name.as_bytes())),
        (Some(name), _) => text_of(out, Some(without_port(name.as_bytes()))),
        (None, Some(host)) => address(out, host, port),
        (None, None) => false,
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

fn server_name(out: &mut Vec<u8>, sni: Preference, host: HostSource, context: &FormatContext<'_>) -> bool {
    let name = context.info.connection.requested_server_name.as_bytes();
    let by_sni = |out: &mut Vec<u8>| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*');
        out.extend(name.iter().map(|byte| if plain(*byte) { *byte } else { b'_' }));
        !name.is_empty()
    };
    let by_host = |out: &mut Vec<u8>| {
        let request = context.request;
        let original = || request?.headers.value(&Known::XEnvoyOriginalHost).map(|host| &host[..]);
        let current = || request.map(|request| &request.authority[..]).filter(|host| !host.is_empty());
        text_of(
            out,
            match host {
                HostSource::Original => original(),
                HostSource::Current => current(),
                HostSource::OriginalOrCurrent => original().or_else(current),
            },
        )
    };
    match sni {
        Preference::SniOnly => by_sni(out),
        Preference::SniFirst => by_sni(out) || by_host(out),
        Preference::HostFirst => by_host(out) || by_sni(out),
    }
}

fn path(request: &RequestHead, query: bool, source: PathSource) -> Option<&[u8]> {
    let original = || request.headers.value(&Known::XEnvoyOriginalPath).map(|path| &path[..]);
    let current = || Some(&request.path[..]).filter(|path| !path.is_empty());
    let path = match source {
        PathSource::Original => original(),
        PathSource::Current => current(),
        PathSource::OriginalOrCurrent => original().or_else(current),
    }?;
    match memchr::memchr(b'?', path) {
        Some(at) if !query => Some(&path[..at]),
        _ => Some(path),
    }
}

fn query(request: &RequestHead) -> Option<&[u8]> {
    let at = memchr::memchr(b'?', &request.path)?;
    Some(&request.path[at + 1..])
}

/// Appends the first value of a query parameter, decoded.
fn query_parameter(out: &mut Vec<u8>, query: &[u8], name: &[u8]) -> bool {
    for pair in query.split(|byte| *byte == b'&') {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        if percent_encoding::percent_decode(key).eq(name.iter().copied()) {
            let start = out.len();
            out.extend(percent_encoding::percent_decode(value));
            if out[start..].iter().any(u8::is_ascii_control) {
                let decoded = out.split_off(start);
                escaped(out, &decoded);
            }
            return true;
        }
    }
    false
}

/// Appends a query with its escapes of visible characters resolved, except those that would change its structure.
fn decode_visible(out: &mut Vec<u8>, query: &[u8]) -> bool {
    let mut at = 0;
    while at < query.len() {
        let digit = |offset: usize| query.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
        let decoded = match (query[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        match decoded {
            Some(byte) if byte.is_ascii_graphic() && !b"%&=+#".contains(&byte) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(query[at]);
                at += 1;
            }
        }
    }
    true
}

/// What Envoy's `byteSize` says of a request's headers: pseudo headers count.
fn request_size(head: &RequestHead) -> usize {
    let pseudo = |name: &str, value: &[u8]| if value.is_empty() { 0 } else { name.len() + value.len() };
    head.headers.byte_size()
        + pseudo(":authority", &head.authority)
        + pseudo(":path", &head.path)
        + pseudo(":method", head.method.as_bytes())
        + pseudo(":scheme", head.scheme.as_str().as_bytes())
        + pseudo(":protocol", head.protocol.as_deref().unwrap_or_default())
}

fn response_size(head: &ResponseHead) -> usize {
    head.headers.byte_size() + ":status200".len()
}

/// The gRPC status of a gRPC request: from the trailers, the response head, or what the HTTP status means.
fn grpc_status(context: &FormatContext<'_>) -> Option<u32> {
    if !context.request.is_some_and(RequestHead::is_grpc) {
        return None;
    }
    let of = |headers: &Headers| std::str::from_utf8(headers.value(&Known::GrpcStatus)?).ok()?.parse().ok();
    context.trailers.and_then(of).or_else(|| context.response.and_then(|head| of(&head.headers))).or_else(|| {
        Some(match context.info.response_code {
            0 => return None,
            200 => 2,
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        })
    })
}

const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

//! What an operator prints for one stream.

mod address;
mod message;

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use self::address::{address, host_name, side};
use self::message::{GRPC_NAMES, decode_visible, grpc_status, path, query, query_parameter, server_name};
use super::FormatContext;
use super::command::{AddressForm, Command, Fact, GrpcForm, Message, MetadataOf, Moment, StateForm, Unit};
use super::{json, tls};
use crate::http::{HeaderKey, Headers, Known, RequestHead, ResponseHead};
use crate::stream_info::{StreamId, StreamInfo};
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
            Self::Tls { upstream, fact } => {
                let mut text = Vec::new();
                tls::session(*upstream, info).is_some_and(|session| fact.append(&mut text, session))
                    && escaped(out, &text)
            }
            Self::Validity { upstream, end, format } => match tls::validity(*upstream, *end, info) {
                Some(moment) => {
                    format.append_to(out, moment);
                    true
                }
                None => false,
            },
            Self::Xfcc(key) => {
                let header = context.request.and_then(|request| request.headers.value(&Known::XForwardedClientCert));
                header.is_some_and(|header| key.append(out, header))
            }
            Self::Details { spaces } => match info.details.as_deref() {
                Some(details) if *spaces => escaped(out, details.as_bytes()),
                Some(details) => without_spaces(out, details),
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
                    match (*form, usize::try_from(status).ok().and_then(|status| GRPC_NAMES.get(status))) {
                        (GrpcForm::Camel, Some((camel, _))) => out.extend_from_slice(camel.as_bytes()),
                        (GrpcForm::Snake, Some((_, snake))) => out.extend_from_slice(snake.as_bytes()),
                        _ => out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes()),
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
            Self::FilterState { key, form, max } => {
                let start = out.len();
                let found = filter_state(out, key, form, context);
                truncate(out, start, *max);
                found
            }
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
            // Quotes are protection enough.
            Self::Tls { upstream, fact } => match tls::session(*upstream, context.info) {
                Some(session) => json::append_quoted(out, |out| fact.append(out, session)),
                None => false,
            },
            // A message is a structure of its own.
            Self::FilterState { form: StateForm::Typed, max: None, .. } => self.append(out, context),
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
            Self::GrpcStatusNumber => grpc_status(context).is_some_and(|status| {
                out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
                true
            }),
            Self::LocalReplyBody => text_of(out, Some(context.local_reply_body)),
            Self::Protocol => text_of(out, info.protocol.map(|version| version.as_str().as_bytes())),
            Self::RequestDuration => milliseconds(out, since_start(info.timing.last_downstream_rx)),
            Self::RequestHeadersBytes => number(out, context.request.map_or(0, RequestHead::byte_size) as u64),
            Self::RequestTxDuration => milliseconds(out, since_start(info.timing.last_upstream_tx)),
            Self::ResponseCode => number(out, info.response_code.into()),
            Self::ResponseDuration => milliseconds(out, since_start(info.timing.first_upstream_rx)),
            // No flag is a value of its own, where missing values are left out too.
            Self::ResponseFlags | Self::ResponseFlagsLong if info.flags.is_empty() => text_of(out, Some(b"-")),
            Self::ResponseFlags => joined(out, info.flags.iter().map(|(short, _)| short)),
            Self::ResponseFlagsLong => joined(out, info.flags.iter().map(|(_, long)| long)),
            Self::ResponseHeadersBytes => number(out, context.response.map_or(0, ResponseHead::byte_size) as u64),
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
                    _ => match info.stream_id {
                        StreamId::None => false,
                        StreamId::Number(id) => number(out, id),
                        StreamId::Uuid(random) => text_of(out, Some(&uuid::of(random))),
                    },
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
                reason.is_some_and(|reason| without_spaces(out, reason))
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

/// Appends a text with underscores for its spaces, so that it stays one word of a log line.
pub(super) fn without_spaces(out: &mut Vec<u8>, text: &str) -> bool {
    out.extend(text.bytes().map(|byte| if byte.is_ascii_whitespace() { b'_' } else { byte }));
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

/// Appends an object of the connection's filter state; false where there is none, or none in this form.
fn filter_state(out: &mut Vec<u8>, key: &str, form: &StateForm, context: &FormatContext<'_>) -> bool {
    let state = context.info.connection.filter_state.borrow();
    let Some(object) = state.find(key) else { return false };
    match form {
        StateForm::Plain => text_of(out, object.text()),
        // None of the objects has fields of its own.
        StateForm::Field => false,
        StateForm::Typed => {
            json::append_value(out, &object.typed());
            true
        }
    }
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

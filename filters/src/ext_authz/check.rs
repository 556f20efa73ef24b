//! The question: what the service is told about a request (`CheckRequest`).

use std::collections::{BTreeMap, HashMap};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::{ListValue, Struct, Timestamp, Value, value::Kind};

use super::PARTIAL_BODY;
use super::config::ExtAuthzConfig;
use crate::http::{Known, RequestHead, Version};
use crate::stream_info::{Address, ConnectionInfo, Metadata, StreamInfo};
use crate::tls::CertificateFacts;

/// The part of a body that is shown.
pub(super) struct Shown {
    pub(super) body: Vec<u8>,
    /// There is more of it.
    pub(super) partial: bool,
    /// It is bytes, not text.
    pub(super) as_bytes: bool,
}

/// The question about a request; `body` if the service is to see it.
pub(super) fn request(
    config: &ExtAuthzConfig,
    head: &RequestHead,
    info: &StreamInfo,
    context_extensions: BTreeMap<String, String>,
    body: Option<Shown>,
) -> CheckRequest {
    let connection = &*info.connection;
    let with_certificate = config.include_peer_certificate;
    let service = head.headers.value(&Known::XEnvoyDownstreamServiceCluster).map(|name| text(name)).unwrap_or_default();
    let metadata = info.dynamic_metadata.as_deref();
    let route_metadata = info.route_metadata.as_deref();
    let attributes = AttributeContext {
        source: Some(Peer { service, ..source(connection, with_certificate) }),
        destination: Some(Peer { labels: config.labels.clone().into_iter().collect(), ..destination(connection) }),
        request: Some(Request { time: Some(moment(info)), http: Some(http_request(config, head, info, body)) }),
        context_extensions: context_extensions.into_iter().collect(),
        metadata_context: Some(told(metadata, &config.metadata)),
        route_metadata_context: Some(told(route_metadata, &config.route_metadata)),
        tls_session: config.include_tls_session.then(|| tls_session(connection)),
    };
    CheckRequest { attributes: Some(attributes) }
}

/// The client.
fn source(connection: &ConnectionInfo, with_certificate: bool) -> Peer {
    let tls = connection.tls.get();
    let certificate = tls.and_then(|tls| tls.peer.first()).filter(|_| with_certificate);
    Peer {
        address: Some(address(&connection.remote)),
        principal: principal(tls.and_then(|tls| tls.peer_certificate())),
        certificate: certificate.map(|certificate| certificate.encoded_pem()).unwrap_or_default(),
        ..Peer::default()
    }
}

/// This proxy.
fn destination(connection: &ConnectionInfo) -> Peer {
    Peer {
        address: Some(address(&connection.local)),
        principal: principal(connection.tls.get().and_then(|tls| tls.local_certificate())),
        ..Peer::default()
    }
}

/// Whom a certificate names: by URI, else by host, else as its subject.
fn principal(certificate: Option<&CertificateFacts>) -> String {
    let Some(certificate) = certificate else { return String::new() };
    let uri = certificate.uri_sans.first();
    let name = uri.or_else(|| certificate.dns_sans.first()).unwrap_or(&certificate.subject);
    text(name.as_bytes())
}

fn tls_session(connection: &ConnectionInfo) -> TlsSession {
    TlsSession { sni: connection.tls.get().map(|session| session.server_name.clone()).unwrap_or_default() }
}

fn address(address: &Address) -> core::Address {
    use core::address::Address as Kind;
    use core::socket_address::PortSpecifier;
    let kind = match address {
        Address::Ip(address) => Kind::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..core::SocketAddress::default()
        }),
        Address::Pipe(path) => Kind::Pipe(core::Pipe { path: path.to_string(), mode: 0 }),
        Address::Internal(name) => Kind::EnvoyInternalAddress(core::EnvoyInternalAddress {
            endpoint_id: String::new(),
            address_name_specifier: Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(
                name.to_string(),
            )),
        }),
    };
    core::Address { address: Some(kind) }
}

fn moment(info: &StreamInfo) -> Timestamp {
    let since = info.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

fn http_request(config: &ExtAuthzConfig, head: &RequestHead, info: &StreamInfo, body: Option<Shown>) -> HttpRequest {
    let mut request = HttpRequest {
        id: info.stream_id.number().to_string(),
        method: text(head.method.as_bytes()),
        path: text(&head.path),
        host: text(&head.authority),
        scheme: head.scheme.as_str().to_owned(),
        size: i64::try_from(info.bytes_received).unwrap_or(i64::MAX),
        protocol: info.protocol.map_or("", Version::as_str).to_owned(),
        ..HttpRequest::default()
    };
    let mut headers: Vec<(&str, Bytes)> =
        fields(head).into_iter().filter(|(name, _)| *name != PARTIAL_BODY && config.tells(name)).collect();
    if let Some(Shown { body, partial, as_bytes }) = body {
        if as_bytes {
            request.raw_body = body;
        } else {
            request.body = text(&body);
        }
        headers.push((PARTIAL_BODY, Bytes::from_static(if partial { b"true" } else { b"false" })));
    }
    if config.raw_headers {
        let headers = headers.into_iter().map(|(name, value)| core::HeaderValue {
            key: name.to_owned(),
            raw_value: value.to_vec(),
            ..core::HeaderValue::default()
        });
        request.header_map = Some(core::HeaderMap { headers: headers.collect() });
    } else {
        let mut joined = HashMap::<String, String>::with_capacity(headers.len());
        for (name, value) in headers {
            let value = text(&value);
            joined.entry(name.to_owned()).and_modify(|before| *before = format!("{before},{value}")).or_insert(value);
        }
        request.headers = joined;
    }
    request
}

/// The fields of a head, pseudo headers first.
pub(super) fn fields(head: &RequestHead) -> Vec<(&str, Bytes)> {
    let scheme = Bytes::from_static(head.scheme.as_str().as_bytes());
    let method = Bytes::copy_from_slice(head.method.as_bytes());
    let pseudo = [
        (":authority", (!head.authority_missing).then(|| head.authority.clone())),
        (":path", Some(head.path.clone()).filter(|path| !path.is_empty())),
        (":method", Some(method)),
        (":scheme", Some(scheme).filter(|scheme| !scheme.is_empty())),
        (":protocol", head.protocol.clone()),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some((name, value?)));
    pseudo.chain(head.headers.iter().map(|header| (header.name.as_str(), header.value.clone()))).collect()
}

impl ExtAuthzConfig {
    /// Whether the service is told this header.
    fn tells(&self, name: &str) -> bool {
        let matches =
            |matchers: &[crate::matcher::StringMatcher]| matchers.iter().any(|it| it.matches(name.as_bytes()));
        !matches(&self.disallowed_headers) && self.allowed_headers.as_deref().is_none_or(matches)
    }
}

/// The name spaces of metadata that the service is told.
fn told(metadata: Option<&Metadata>, names: &[Box<str>]) -> core::Metadata {
    let found = names.iter().filter_map(|name| {
        let fields = metadata?.get(&**name)?.as_object()?;
        Some((name.to_string(), to_struct(fields)))
    });
    core::Metadata { filter_metadata: found.collect(), ..core::Metadata::default() }
}

/// The message of an object.
fn to_struct(fields: &Metadata) -> Struct {
    Struct { fields: fields.iter().map(|(name, value)| (name.clone(), to_value(value))).collect() }
}

fn to_value(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(truth) => Kind::BoolValue(*truth),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.iter().map(to_value).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}

/// The object of a message.
pub(super) fn to_object(message: Struct) -> Metadata {
    message.fields.into_iter().map(|(name, value)| (name, to_json(value))).collect()
}

fn to_json(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(truth)) => truth.into(),
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(to_json).collect(),
        Some(Kind::StructValue(message)) => serde_json::Value::Object(to_object(message)),
    }
}

/// What protobuf can carry as text: each byte that is not UTF-8 becomes an exclamation mark, as in Envoy.
fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '!'));
    }
    out
}

//! Questions of `envoy.service.auth.v3.Authorization`, as text to compare.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::{Value, value::Kind};
use prost::Message as _;

use super::message::latin1;

/// What the body of a gRPC request asks; `None` if it is no such question.
pub fn question(body: &[u8]) -> Option<String> {
    let request = CheckRequest::decode(body.get(5..)?).ok()?;
    let AttributeContext {
        source,
        destination,
        request,
        context_extensions,
        metadata_context,
        route_metadata_context,
        tls_session,
    } = request.attributes?;
    let mut text = String::from("<check>\n");
    let _ = writeln!(text, "source {}", source.map(peer)?);
    let _ = writeln!(text, "destination {}", destination.map(peer)?);
    let request = request?;
    let _ = writeln!(text, "time {}", request.time.is_some_and(|time| time.seconds > 0));
    http(&mut text, request.http?);
    let _ = writeln!(text, "extensions {:?}", context_extensions.into_iter().collect::<BTreeMap<_, _>>());
    let _ = writeln!(text, "metadata {:?}", metadata_context.map(metadata));
    let _ = writeln!(text, "route {:?}", route_metadata_context.map(metadata));
    let _ = writeln!(text, "tls {tls_session:?}");
    Some(text)
}

fn peer(peer: Peer) -> String {
    let Peer { address, service, labels, principal, certificate } = peer;
    let labels: BTreeMap<_, _> = labels.into_iter().collect();
    let address = address.map(|address| format!("{address:?}")).unwrap_or_default();
    let address = match address.find("PortValue(") {
        // The client's is any, and the proxy's is not the same on both sides.
        Some(at) => format!("{}<port>", address.get(..at).unwrap_or_default()),
        None => address,
    };
    format!("{address} service={service:?} labels={labels:?} principal={principal:?} certificate={certificate:?}")
}

fn http(text: &mut String, request: HttpRequest) {
    let HttpRequest {
        id,
        method,
        headers,
        header_map,
        path,
        host,
        scheme,
        query,
        fragment,
        size,
        protocol,
        body,
        raw_body,
    } = request;
    let _ = writeln!(
        text,
        "http id={} method={method:?} path={path:?} host={host:?} scheme={scheme:?} query={query:?} fragment={fragment:?} \
         size={size} protocol={protocol:?} body={body:?} raw={:?}",
        id.parse::<u64>().is_ok(),
        latin1(&raw_body),
    );
    for (name, value) in headers.into_iter().collect::<BTreeMap<_, _>>() {
        let _ = writeln!(text, "{name}: {value}");
    }
    if let Some(map) = header_map {
        for header in map.headers {
            let _ = writeln!(text, "{}: {}{}", header.key, header.value, latin1(&header.raw_value));
        }
    }
}

fn metadata(metadata: Metadata) -> BTreeMap<String, String> {
    let Metadata { filter_metadata, typed_filter_metadata } = metadata;
    let typed = typed_filter_metadata.into_iter().map(|(name, any)| (name, any.type_url));
    let plain = filter_metadata
        .into_iter()
        .map(|(name, fields)| (name, value(&Value { kind: Some(Kind::StructValue(fields)) })));
    plain.chain(typed).collect()
}

fn value(of: &Value) -> String {
    match &of.kind {
        Some(Kind::StructValue(message)) => {
            let fields: BTreeMap<_, _> = message.fields.iter().map(|(name, it)| (name, value(it))).collect();
            format!("{fields:?}")
        }
        Some(Kind::ListValue(list)) => format!("{:?}", list.values.iter().map(value).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}

//! `envoy.config.core.v3.Metadata` as plain JSON, which is all the log formats need.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as wkt;
use serde_json::{Map, Value};

/// Filter name space to its structure; `None` when there is none.
pub type Metadata = Option<Arc<Map<String, Value>>>;

/// Keeps the structured part. Typed metadata is for extensions that declare a type, of which Legate has none.
pub(crate) fn parse(metadata: core::Metadata) -> Metadata {
    let core::Metadata { filter_metadata, typed_filter_metadata: _ } = metadata;
    if filter_metadata.is_empty() {
        return None;
    }
    let mut spaces: Vec<_> = filter_metadata.into_iter().collect();
    spaces.sort_by(|a, b| a.0.cmp(&b.0));
    Some(Arc::new(spaces.into_iter().map(|(name, fields)| (name, structure(fields))).collect()))
}

fn structure(fields: wkt::Struct) -> Value {
    let mut fields: Vec<_> = fields.fields.into_iter().collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(fields.into_iter().map(|(key, item)| (key, value(item))).collect())
}

fn value(item: wkt::Value) -> Value {
    use wkt::value::Kind;
    match item.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::from(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StructValue(fields)) => structure(fields),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value).collect()),
    }
}

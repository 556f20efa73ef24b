//! Small protobuf values as runtime ones.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, Metadata};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Duration as DurationProto, Struct, Value as ValueProto};
use filters::config::{At, ConfigError, duration};
use serde_json::{Map, Number, Value};

use crate::config::access_log::unsupported_sources;

/// The duration in field `name`; negative ones are refused.
pub(super) fn duration(value: Option<DurationProto>, at: At<'_>, name: &str) -> Result<Option<Duration>, ConfigError> {
    value.map(|proto| duration::duration(&at.field(name), &proto)).transpose()
}

/// Metadata by name space; `None` when there is none. Typed metadata is for extensions only and has no reader.
pub(super) fn metadata(proto: Option<Metadata>) -> Option<Arc<Map<String, Value>>> {
    let Metadata { filter_metadata, typed_filter_metadata: _ } = proto?;
    if filter_metadata.is_empty() {
        return None;
    }
    Some(Arc::new(filter_metadata.into_iter().map(|(name, fields)| (name, object(fields))).collect()))
}

fn object(Struct { fields }: Struct) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name, json(value))).collect())
}

fn json(ValueProto { kind }: ValueProto) -> Value {
    match kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StructValue(fields)) => object(fields),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(json).collect()),
    }
}

/// The bytes of a data source that may hold at most `max`.
pub(super) fn data(source: DataSource, max: u64, at: At<'_>) -> Result<Vec<u8>, ConfigError> {
    let DataSource { watched_directory, specifier } = source;
    at.unsupported(&unsupported_sources::watched_directory, &watched_directory)?;
    let data = match at.required("specifier", specifier)? {
        Specifier::InlineBytes(bytes) => bytes,
        Specifier::InlineString(text) => text.into_bytes(),
        Specifier::EnvironmentVariable(name) => match std::env::var_os(&name) {
            Some(value) => value.into_encoded_bytes(),
            None => return Err(at.error(format_args!("Environment variable doesn't exist: {name}"))),
        },
        Specifier::Filename(path) => {
            let size =
                std::fs::metadata(&path).map_err(|_| at.error(format_args!("file {path} does not exist")))?.len();
            if size > max {
                return Err(at.error(format_args!("file {path} size is {size} bytes; maximum is {max}")));
            }
            std::fs::read(&path).map_err(|error| at.error(format_args!("unable to read file: {path}: {error}")))?
        }
    };
    let size = data.len() as u64;
    if size > max {
        return Err(at.error(format_args!("response body size is {size} bytes; maximum is {max}")));
    }
    Ok(data)
}

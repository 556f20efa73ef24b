//! Typed extension configuration: from an `Any` to the type it carries and that type's bytes.
//!
//! A control plane may wrap a message it has no generated code for as `udpa.type.v1.TypedStruct` or
//! `xds.type.v3.TypedStruct`: the inner type's URL beside its JSON form. [`unwrap`] removes the wrapping, so a parser
//! sees one shape only. The JSON form becomes bytes through an injected function, because that needs the descriptors.

use bytes::Bytes;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use filters::config::{At, ConfigError};
use prost::Message;

/// Converts the JSON form of the message named by a type URL to its binary form.
pub type StructToBytes = fn(&str, &Struct) -> Result<Bytes, String>;

/// What every type URL in use begins with.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// An extension's configuration with the wrapping removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// Type URL as given, `type.googleapis.com/envoy.…`.
    pub type_url: String,
    /// The message in binary form.
    pub value: Bytes,
}

impl Typed {
    /// Full name of the message type, without the URL's host.
    #[must_use]
    pub fn type_name(&self) -> &str {
        type_name(&self.type_url)
    }

    /// The message, decoded as `T`; the caller has looked at [`Self::type_name`].
    ///
    /// # Errors
    /// When the bytes are not a `T`.
    pub fn decode<T: Message + Default>(&self, at: &At<'_>) -> Result<T, ConfigError> {
        T::decode(&self.value[..])
            .map_err(|error| at.error(format_args!("Unable to parse the value as {}: {error}", self.type_name())))
    }
}

/// The message type's full name in a type URL: what follows its last slash.
#[must_use]
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

/// The configuration in `any`, with a `TypedStruct` around it removed.
///
/// # Errors
/// When a `TypedStruct` does not decode or its content does not fit the type it names.
pub fn unwrap(at: &At<'_>, any: Any, convert: StructToBytes) -> Result<Typed, ConfigError> {
    let Any { type_url, value } = any;
    match type_name(&type_url) {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
            let TypedStruct { type_url: inner, value } =
                TypedStruct::decode(&value[..]).map_err(|error| at.error(format_args!("bad TypedStruct: {error}")))?;
            if matches!(type_name(&inner), "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
                return Err(at.error("a TypedStruct may not hold a TypedStruct"));
            }
            let value = convert(&inner, &value.unwrap_or_default()).map_err(|error| at.error(error))?;
            Ok(Typed { type_url: inner, value })
        }
        _ => Ok(Typed { type_url, value: value.into() }),
    }
}

/// Converts the content of a `TypedStruct` into the message it stands for.
///
/// # Errors
/// When it does not fit the type.
pub fn struct_to_bytes(type_url: &str, content: &Struct) -> Result<Bytes, String> {
    let json = struct_to_json(content).to_string();
    let options = xds_client::proto::LoadOptions { source: "TypedStruct", ..Default::default() };
    xds_client::proto::load(json.as_bytes(), xds_client::proto::Format::Json, type_url, &options)
        .map(|document| Bytes::copy_from_slice(document.bytes()))
        .map_err(|error| error.to_string())
}

/// A structure as JSON.
#[must_use]
pub fn struct_to_json(content: &Struct) -> serde_json::Value {
    content.fields.iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect()
}

fn value_to_json(value: &Value) -> serde_json::Value {
    use envoy_types::pb::google::protobuf::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        // A whole number is written as one, so that integer fields take it.
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
        Some(Kind::NumberValue(n)) => (*n).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::BoolValue(b)) => (*b).into(),
        Some(Kind::StructValue(inner)) => struct_to_json(inner),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_to_json).collect(),
    }
}

/// Both `TypedStruct` types: same fields, same numbers.
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

#[cfg(test)]
mod tests {
    use filters::config::Session;

    use super::*;

    fn no_conversion(_: &str, _: &Struct) -> Result<Bytes, String> {
        Err("not expected".to_owned())
    }

    fn upper(type_url: &str, value: &Struct) -> Result<Bytes, String> {
        if value.fields.contains_key("bad") { Err("no such field".into()) } else { Ok(type_url.to_uppercase().into()) }
    }

    #[test]
    fn plain_messages_pass_through() {
        let session = Session::default();
        let any = Any { type_url: "type.googleapis.com/a.B".into(), value: vec![1, 2] };
        let typed = unwrap(&session.root(), any, no_conversion).unwrap();
        assert_eq!((typed.type_name(), &typed.value[..]), ("a.B", &[1, 2][..]));
    }

    #[test]
    fn a_typed_struct_of_either_package_is_unwrapped() {
        let session = Session::default();
        for package in ["udpa.type.v1", "xds.type.v3"] {
            let wrap = |inner: &str, key: &str| {
                let fields = [(key.to_owned(), Value::default())].into();
                let inner = TypedStruct { type_url: inner.into(), value: Some(Struct { fields }) };
                Any { type_url: format!("type.googleapis.com/{package}.TypedStruct"), value: inner.encode_to_vec() }
            };
            let typed = unwrap(&session.root(), wrap("x/a.B", "ok"), upper).unwrap();
            assert_eq!((typed.type_name(), &typed.value[..]), ("a.B", &b"X/A.B"[..]));
            let error = unwrap(&session.root(), wrap("x/a.B", "bad"), upper).unwrap_err();
            assert_eq!(error.message, "no such field");
            assert!(unwrap(&session.root(), wrap("x/udpa.type.v1.TypedStruct", "ok"), upper).is_err(), "no nesting");
        }
    }
}

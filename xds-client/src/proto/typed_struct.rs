//! `xds.type.v3.TypedStruct` and `udpa.type.v1.TypedStruct`: a configuration as a `Struct`, of the type its URL names.
//! Control planes use them for extensions whose protos they were not built with.

use std::sync::Arc;

use super::any::{Depth, Packed, type_name};
use super::descriptors::{self, Lease};
use super::diagnostic::{Diagnostic, Position, UnknownField};
use super::document::UnknownFields;
use super::json_in::Encoder;
use super::node::{Key, Node, Value};
use super::path::Path;
use super::reader::{Malformed, Raw};
use super::schema::{MessageSchema, WellKnown, each, text};

/// Deepest nesting of a `Struct` that is read; each level is three messages.
const MAX_LEVELS: usize = 33;

/// The extension configuration that an `Any` holds, out of its `TypedStruct` if it is in one: type URL and wire bytes.
///
/// An `Any` of any other type comes back as it is. Of a type nobody knows only the URL is left, for the caller to refuse
/// by name. Unknown fields are left out; [`check`](super::check()) reports them.
pub fn unwrap_typed_struct(type_url: &str, value: &[u8]) -> Result<(String, Vec<u8>), Diagnostic> {
    let schema = descriptors::message(type_name(type_url));
    if schema.is_none_or(|schema| schema.well_known != WellKnown::TypedStruct) {
        return Ok((type_url.to_owned(), value.to_vec()));
    }
    let _lease = Lease::new();
    let packed = Packed::parse(value).map_err(|malformed| plain(malformed.to_string()))?;
    let Some(inner) = packed.schema() else {
        return Ok((packed.type_url.to_owned(), Vec::new()));
    };
    let depth = Depth::default().any().map_err(|reason| plain(reason.to_owned()))?;
    let (bytes, _unknown) = encode(inner, packed.value, &Path::ROOT, depth)?;
    Ok((packed.type_url.to_owned(), bytes))
}

/// The wire bytes of the message that the `Struct` in `value` describes, and the members it has no field for.
pub(crate) fn encode(
    schema: &'static MessageSchema,
    value: &[u8],
    path: &Path<'_>,
    depth: Depth,
) -> Result<(Vec<u8>, Vec<UnknownField>), Diagnostic> {
    let node = structure(value, 0).map_err(|malformed| plain(malformed.to_string()))?;
    let mut encoder = Encoder::new("", UnknownFields::Warn);
    let mut bytes = Vec::new();
    encoder.root(schema, &node, path, depth, &mut bytes);
    match encoder.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok((bytes, encoder.unknown.into_iter().map(|(field, _)| field).collect())),
    }
}

fn structure(bytes: &[u8], level: usize) -> Result<Arc<Node>, Malformed> {
    if level > MAX_LEVELS {
        return Err(Malformed::Group);
    }
    let mut pairs: Vec<(Key, Arc<Node>)> = Vec::new();
    each(bytes, |number, raw| {
        if let (1, Raw::Bytes(entry)) = (number, raw) {
            let (mut name, mut node) = (String::new(), leaf(Value::Null));
            each(entry, |number, raw| {
                match (number, raw) {
                    (1, Raw::Bytes(bytes)) => name = text(bytes),
                    (2, Raw::Bytes(bytes)) => node = value(bytes, level)?,
                    _ => {}
                }
                Ok(())
            })?;
            pairs.retain(|(key, _)| *key.name != *name);
            pairs.push((Key { position: Position::default(), name: name.into() }, node));
        }
        Ok(())
    })?;
    Ok(leaf(Value::Mapping(pairs)))
}

fn value(bytes: &[u8], level: usize) -> Result<Arc<Node>, Malformed> {
    let mut node = leaf(Value::Null);
    each(bytes, |number, raw| {
        node = match (number, raw) {
            (1, Raw::Varint(_)) => leaf(Value::Null),
            (2, Raw::Fixed64(bits)) => leaf(Value::Number(f64::from_bits(bits).to_string().into())),
            (3, Raw::Bytes(bytes)) => leaf(Value::String(text(bytes).into())),
            (4, Raw::Varint(value)) => leaf(Value::Bool(value != 0)),
            (5, Raw::Bytes(bytes)) => structure(bytes, level + 1)?,
            (6, Raw::Bytes(bytes)) => list(bytes, level + 1)?,
            _ => return Ok(()),
        };
        Ok(())
    })?;
    Ok(node)
}

fn list(bytes: &[u8], level: usize) -> Result<Arc<Node>, Malformed> {
    if level > MAX_LEVELS {
        return Err(Malformed::Group);
    }
    let mut items = Vec::new();
    each(bytes, |number, raw| {
        if let (1, Raw::Bytes(bytes)) = (number, raw) {
            items.push(value(bytes, level)?);
        }
        Ok(())
    })?;
    Ok(leaf(Value::Sequence(items)))
}

/// A node without a place in a text.
fn leaf(value: Value) -> Arc<Node> {
    Arc::new(Node::new(Position::default(), value))
}

fn plain(message: String) -> Diagnostic {
    Diagnostic { source: String::new(), position: None, path: String::new(), message }
}

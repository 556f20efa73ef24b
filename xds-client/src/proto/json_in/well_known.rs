//! The well-known types, which have JSON forms of their own.

use std::sync::Arc;

use super::{At, Encoder};
use crate::proto::any::{Packed, type_name};
use crate::proto::diagnostic::UnknownType;
use crate::proto::node::{Key, Node, Value};
use crate::proto::path::Segment;
use crate::proto::reader::write;
use crate::proto::rules::Span;
use crate::proto::scalar;
use crate::proto::schema::{MessageSchema, WellKnown};

impl Encoder<'_> {
    pub(super) fn well_known(&mut self, schema: &'static MessageSchema, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        match schema.well_known {
            WellKnown::Any => self.any(node, at, out),
            WellKnown::Struct => self.structure(node, at, out),
            WellKnown::Value => self.value(node, at, out),
            WellKnown::ListValue => self.list(node, at, out),
            WellKnown::Duration => self.span(node, at, scalar::duration, out),
            WellKnown::Timestamp => self.span(node, at, scalar::timestamp, out),
            WellKnown::FieldMask => self.field_mask(node, at, out),
            WellKnown::Wrapper => {
                // Null is the absence of a wrapper; in a list of wrappers it is an empty one.
                if let Some(field) = schema.field_by_number(1).filter(|_| !matches!(node.value, Value::Null)) {
                    self.single(field, node, at, false, out);
                }
            }
            WellKnown::No | WellKnown::TypedStruct => {}
        }
    }

    fn any(&mut self, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        let Value::Mapping(pairs) = &node.value else {
            return self.mismatch(node, at.path, "an object");
        };
        if pairs.is_empty() {
            return;
        }
        let Some((_, type_node)) = pairs.iter().find(|(key, _)| &*key.name == "@type") else {
            return self.error(node.position, at.path, "missing @type in google.protobuf.Any");
        };
        let Value::String(type_url) = &type_node.value else {
            return self.mismatch(type_node, at.path, "a type URL");
        };
        let depth = match at.depth.any() {
            Ok(depth) => depth,
            Err(message) => return self.error(node.position, at.path, message),
        };
        if type_name(type_url).is_empty() {
            return self.error(type_node.position, at.path, "@type is empty");
        }
        write::bytes(1, type_url.as_bytes(), out);
        let packed = Packed { type_url, value: &[] };
        let Some(schema) = packed.schema() else {
            self.unknown_types.push(UnknownType { path: at.path.to_string(), type_url: type_url.to_string() });
            if let Some(value) = opaque(pairs) {
                write::bytes(2, &value, out);
            }
            return;
        };
        let path = at.path.join(Segment::Packed);
        let inside = At { path: &path, depth };
        let mut value = Vec::new();
        if schema.well_known.is_wrapped_in_any() {
            for (key, node) in pairs {
                match &*key.name {
                    "@type" => {}
                    "value" => self.message(schema, node, inside, &mut value),
                    _ => self.unknown_field(schema, key, &path),
                }
            }
        } else {
            self.fields(schema, node, Some("@type"), inside, &mut value);
        }
        if !value.is_empty() {
            write::bytes(2, &value, out);
        }
    }

    fn structure(&mut self, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        let Value::Mapping(pairs) = &node.value else {
            return self.mismatch(node, at.path, "an object");
        };
        // A map's entry and its value are two messages.
        let depth = match at.depth.message().and_then(|depth| depth.message()) {
            Ok(depth) => depth,
            Err(message) => return self.error(node.position, at.path, message),
        };
        for (Key { name, .. }, value) in pairs {
            write::nested(1, out, |out| {
                write::bytes(1, name.as_bytes(), out);
                write::nested(2, out, |out| {
                    self.value(value, At { path: &at.path.join(Segment::Key(name)), depth }, out)
                });
            });
        }
    }

    fn list(&mut self, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        let Value::Sequence(items) = &node.value else {
            return self.mismatch(node, at.path, "a list");
        };
        let depth = match at.depth.message() {
            Ok(depth) => depth,
            Err(message) => return self.error(node.position, at.path, message),
        };
        for (index, item) in items.iter().enumerate() {
            let at = At { path: &at.path.join(Segment::Index(index)), depth };
            write::nested(1, out, |out| self.value(item, at, out));
        }
    }

    /// A `google.protobuf.Value`.
    fn value(&mut self, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        let inner = at.depth.message().map(|depth| At { path: at.path, depth });
        match (&node.value, inner) {
            (Value::Null, _) => {
                write::key(1, 0, out);
                write::varint(0, out);
            }
            (Value::Number(text), _) => match scalar::double(text) {
                Ok(value) => {
                    write::key(2, 1, out);
                    out.extend_from_slice(&value.to_le_bytes());
                }
                Err(reason) => self.bad_value(node, at.path, reason),
            },
            (Value::String(text), _) => write::bytes(3, text.as_bytes(), out),
            (Value::Bool(value), _) => {
                write::key(4, 0, out);
                out.push(u8::from(*value));
            }
            (Value::Mapping(_), Ok(inner)) => write::nested(5, out, |out| self.structure(node, inner, out)),
            (Value::Sequence(_), Ok(inner)) => write::nested(6, out, |out| self.list(node, inner, out)),
            (_, Err(message)) => self.error(node.position, at.path, message),
        }
    }

    /// A `Duration` or a `Timestamp`: seconds and nanoseconds both.
    fn span(&mut self, node: &Node, at: At<'_>, parse: fn(&str) -> Result<Span, &'static str>, out: &mut Vec<u8>) {
        let text = match &node.value {
            Value::String(text) => text,
            Value::Null => return,
            _ => return self.mismatch(node, at.path, "a string (such as \"5s\" for a duration)"),
        };
        match parse(text) {
            Ok(Span { seconds, nanos }) => {
                for (number, value) in [(1, seconds), (2, nanos.into())] {
                    if value != 0 {
                        write::key(number, 0, out);
                        write::varint(value as u64, out);
                    }
                }
            }
            Err(reason) => self.bad_value(node, at.path, reason),
        }
    }

    fn field_mask(&mut self, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        match &node.value {
            Value::String(text) => {
                for path in text.split(',').filter(|path| !path.is_empty()) {
                    write::bytes(1, scalar::snake_case(path).as_bytes(), out);
                }
            }
            Value::Null => {}
            _ => self.mismatch(node, at.path, "a string"),
        }
    }
}

/// The bytes of an `Any` of a type nobody knows, as [`crate::proto::to_json`] writes it.
fn opaque(pairs: &[(Key, Arc<Node>)]) -> Option<Vec<u8>> {
    let [(_, value)] = pairs.iter().filter(|(key, _)| &*key.name != "@type").collect::<Vec<_>>()[..] else {
        return None;
    };
    match (pairs.iter().any(|(key, _)| &*key.name == "value"), &value.value) {
        (true, Value::String(text)) => scalar::bytes(text).ok(),
        _ => None,
    }
}

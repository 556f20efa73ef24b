//! A document's tree into the wire bytes of a message: the JSON mapping of protobuf, with the liberties Envoy's reader
//! takes (enum names in any case, booleans and numbers in quotes, one item for a list of one) and errors that carry the
//! field's path and place.
//!
//! The bytes are canonical: fields in the order of their numbers, defaults of fields without presence left out, lists of
//! numbers packed. Depth is bounded by the tree's own and by what protobuf decoders accept.

mod well_known;

use std::sync::Arc;

use super::any::Depth;
use super::diagnostic::{Diagnostic, Position, UnknownField, UnknownType};
use super::document::UnknownFields;
use super::node::{Key, Node, Value};
use super::path::{Path, Segment};
use super::reader::write;
use super::scalar;
use super::schema::{FieldSchema, Kind, MessageSchema, Presence, WellKnown};

/// Errors beyond this many are not reported: the first few tell the story.
const MAX_DIAGNOSTICS: usize = 50;

/// Writes messages and collects what is wrong with their source.
#[derive(Debug)]
pub(crate) struct Encoder<'s> {
    source: &'s str,
    unknown_fields: UnknownFields,
    /// Values of sensitive fields are not quoted.
    sensitive: bool,
    pub(crate) errors: Vec<Diagnostic>,
    /// Tolerated unknown fields.
    pub(crate) unknown: Vec<(UnknownField, Position)>,
    pub(crate) unknown_types: Vec<UnknownType>,
}

/// Where the encoder is.
#[derive(Clone, Copy)]
struct At<'p> {
    path: &'p Path<'p>,
    depth: Depth,
}

impl<'s> Encoder<'s> {
    pub(crate) fn new(source: &'s str, unknown_fields: UnknownFields) -> Self {
        Self {
            source,
            unknown_fields,
            sensitive: false,
            errors: Vec::new(),
            unknown: Vec::new(),
            unknown_types: Vec::new(),
        }
    }

    /// Appends the fields of a message of type `schema` to `out`.
    pub(crate) fn root(
        &mut self,
        schema: &'static MessageSchema,
        node: &Node,
        path: &Path<'_>,
        depth: Depth,
        out: &mut Vec<u8>,
    ) {
        match depth.message() {
            Ok(depth) => self.message(schema, node, At { path, depth }, out),
            Err(message) => self.error(node.position, path, message),
        }
    }

    fn message(&mut self, schema: &'static MessageSchema, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        match schema.well_known {
            WellKnown::No | WellKnown::TypedStruct => self.fields(schema, node, None, at, out),
            _ => self.well_known(schema, node, at, out),
        }
    }

    /// An object's members as fields; `skip` is a key that is not a field (`@type`).
    fn fields(
        &mut self,
        schema: &'static MessageSchema,
        node: &Node,
        skip: Option<&str>,
        at: At<'_>,
        out: &mut Vec<u8>,
    ) {
        let Value::Mapping(pairs) = &node.value else {
            return self.mismatch(node, at.path, "an object");
        };
        let mut members: Vec<(&'static FieldSchema, &Key, &Arc<Node>)> = Vec::with_capacity(pairs.len());
        let mut oneofs: Vec<u16> = Vec::new();
        for (key, value) in pairs.iter().filter(|(key, _)| Some(&*key.name) != skip) {
            let Some(field) = schema.index_of_name(&key.name).and_then(|index| schema.fields.get(index)) else {
                self.unknown_field(schema, key, at.path);
                continue;
            };
            if matches!(value.value, Value::Null) && !takes_null(field) {
                continue;
            }
            let again = members.iter().any(|(other, ..)| other.number == field.number);
            if again || field.oneof.is_some_and(|oneof| oneofs.contains(&oneof)) {
                let message = format!("'{}' has already been set (either directly or as part of a oneof)", field.name);
                self.error(key.position, &at.path.join(Segment::Field(schema, field)), message);
                continue;
            }
            oneofs.extend(field.oneof);
            members.push((field, key, value));
        }
        members.sort_by_key(|(field, ..)| field.number);
        for (field, _, value) in members {
            let outer = self.sensitive;
            self.sensitive |= field.sensitive;
            self.field(field, value, At { path: &at.path.join(Segment::Field(schema, field)), depth: at.depth }, out);
            self.sensitive = outer;
        }
    }

    fn field(&mut self, field: &'static FieldSchema, node: &Node, at: At<'_>, out: &mut Vec<u8>) {
        if let Some(entry) = field.map_entry() {
            return self.map(field, entry, node, at, out);
        }
        match (field.presence, &node.value) {
            (Presence::Repeated, Value::Sequence(items)) if field.packed => {
                if !items.is_empty() {
                    write::nested(field.number, out, |out| {
                        for (index, item) in items.iter().enumerate() {
                            self.scalar(field, item, &at.path.join(Segment::Index(index)), out);
                        }
                    });
                }
            }
            (Presence::Repeated, Value::Sequence(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.single(
                        field,
                        item,
                        At { path: &at.path.join(Segment::Index(index)), depth: at.depth },
                        true,
                        out,
                    );
                }
            }
            // A list of one may be written without brackets.
            (Presence::Repeated, _) => {
                self.single(field, node, At { path: &at.path.join(Segment::Index(0)), depth: at.depth }, true, out);
            }
            (presence, _) => self.single(field, node, at, presence == Presence::Explicit, out),
        }
    }

    /// One value with its key; a default value is left out unless it is `kept`.
    fn single(&mut self, field: &'static FieldSchema, node: &Node, at: At<'_>, kept: bool, out: &mut Vec<u8>) {
        if let Some(message) = field.message() {
            return match at.depth.message() {
                Ok(depth) => write::nested(field.number, out, |out| {
                    // Nulls in lists stand for empty messages.
                    if !matches!(node.value, Value::Null) || takes_null(field) {
                        self.message(message, node, At { path: at.path, depth }, out);
                    }
                }),
                Err(message) => self.error(node.position, at.path, message),
            };
        }
        let before = out.len();
        write::key(field.number, field.kind.wire_type(), out);
        let value = out.len();
        let written = self.scalar(field, node, at.path, out);
        // Zero, false or a length of zero.
        let is_default = out.get(value..).is_none_or(|value| value.iter().all(|byte| *byte == 0));
        if !written || (!kept && is_default) {
            out.truncate(before);
        }
    }

    fn map(
        &mut self,
        field: &'static FieldSchema,
        entry: &'static MessageSchema,
        node: &Node,
        at: At<'_>,
        out: &mut Vec<u8>,
    ) {
        let Value::Mapping(pairs) = &node.value else {
            return self.mismatch(node, at.path, "an object");
        };
        let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2)) else {
            return;
        };
        let Ok(depth) = at.depth.message() else {
            return self.error(node.position, at.path, "messages are nested too deep");
        };
        for (key, value) in pairs {
            let path = at.path.join(Segment::Key(&key.name));
            write::nested(field.number, out, |out| {
                let name = Node::new(key.position, Value::String(key.name.clone()));
                self.single(key_field, &name, At { path: &path, depth }, true, out);
                self.single(value_field, value, At { path: &path, depth }, true, out);
            });
        }
    }

    /// A scalar's value without its key; `false` when there is nothing to write.
    fn scalar(&mut self, field: &'static FieldSchema, node: &Node, path: &Path<'_>, out: &mut Vec<u8>) -> bool {
        match self.try_scalar(field, node, out) {
            Ok(()) => true,
            Err(Fault::UnknownEnumValue(message)) => {
                self.unknown(node.position, path, field_type(field), message);
                false
            }
            Err(Fault::Mismatch(expected)) => {
                self.mismatch(node, path, expected);
                false
            }
            Err(Fault::Value(reason)) => {
                self.bad_value(node, path, reason);
                false
            }
        }
    }

    fn try_scalar(&mut self, field: &'static FieldSchema, node: &Node, out: &mut Vec<u8>) -> Result<(), Fault> {
        let integer = || match &node.value {
            Value::Number(text) | Value::String(text) => scalar::integer(text).map_err(Fault::Value),
            Value::Null => Ok(0),
            _ => Err(Fault::Mismatch("a number")),
        };
        let double = || match &node.value {
            Value::Number(text) | Value::String(text) => scalar::double(text).map_err(Fault::Value),
            Value::Null => Ok(0.0),
            _ => Err(Fault::Mismatch("a number")),
        };
        match field.kind {
            Kind::Double => out.extend_from_slice(&double()?.to_le_bytes()),
            Kind::Float => {
                let value = double()?;
                if value.is_finite() && value.abs() > f64::from(f32::MAX) {
                    return Err(Fault::Value("number out of range"));
                }
                out.extend_from_slice(&(value as f32).to_le_bytes());
            }
            Kind::Int64 => write::varint(fit::<i64>(integer()?)? as u64, out),
            Kind::Uint64 => write::varint(fit::<u64>(integer()?)?, out),
            Kind::Int32 => write::varint(i64::from(fit::<i32>(integer()?)?) as u64, out),
            Kind::Uint32 => write::varint(fit::<u32>(integer()?)?.into(), out),
            Kind::Sint32 | Kind::Sint64 => {
                let value = integer()?;
                let value = if field.kind == Kind::Sint32 { fit::<i32>(value)?.into() } else { fit::<i64>(value)? };
                write::varint(((value << 1) ^ (value >> 63)) as u64, out);
            }
            Kind::Fixed64 => out.extend_from_slice(&fit::<u64>(integer()?)?.to_le_bytes()),
            Kind::Fixed32 => out.extend_from_slice(&fit::<u32>(integer()?)?.to_le_bytes()),
            Kind::Sfixed32 => out.extend_from_slice(&fit::<i32>(integer()?)?.to_le_bytes()),
            Kind::Sfixed64 => out.extend_from_slice(&fit::<i64>(integer()?)?.to_le_bytes()),
            Kind::Bool => out.push(match &node.value {
                Value::Bool(value) => u8::from(*value),
                Value::String(text) if &**text == "true" => 1,
                Value::String(text) if &**text == "false" => 0,
                Value::Null => 0,
                _ => return Err(Fault::Mismatch("a boolean")),
            }),
            Kind::Enum => write::varint(i64::from(enumeration(field, node)?) as u64, out),
            Kind::String => match &node.value {
                Value::String(text) => text_value(text.as_bytes(), out),
                Value::Null => text_value(&[], out),
                _ => return Err(Fault::Mismatch("a string")),
            },
            Kind::Bytes => match &node.value {
                Value::String(text) => text_value(&scalar::bytes(text).map_err(Fault::Value)?, out),
                Value::Null => text_value(&[], out),
                _ => return Err(Fault::Mismatch("a string")),
            },
            Kind::Message => return Err(Fault::Mismatch("an object")),
        }
        Ok(())
    }

    fn unknown_field(&mut self, schema: &'static MessageSchema, key: &Key, path: &Path<'_>) {
        let mut message = format!("no such field: '{}'", key.name.escape_debug());
        if let Some(close) = similar(schema, &key.name) {
            message.push_str(&format!(" (did you mean '{close}'?)"));
        }
        self.unknown(key.position, &path.join(Segment::Unknown(&key.name)), &schema.name, message);
    }

    /// Something the descriptors do not have: an error or not, as the policy says.
    fn unknown(&mut self, position: Position, path: &Path<'_>, type_name: &str, message: String) {
        match self.unknown_fields {
            UnknownFields::Reject => {
                self.error(
                    position,
                    path,
                    format!("{message}: Protobuf message (type {type_name}) has unknown fields"),
                );
            }
            UnknownFields::Warn => {
                self.unknown.push((UnknownField { path: path.to_string(), message: type_name.to_owned() }, position));
            }
            UnknownFields::Ignore => {}
        }
    }

    fn mismatch(&mut self, node: &Node, path: &Path<'_>, expected: &str) {
        self.error(
            node.position,
            path,
            format!("Unable to parse JSON as proto: expected {expected}, found {}", node.kind()),
        );
    }

    fn bad_value(&mut self, node: &Node, path: &Path<'_>, reason: &str) {
        let quoted = match &node.value {
            Value::Number(text) | Value::String(text) if !self.sensitive && text.len() <= 100 => {
                format!(": '{}'", text.escape_debug())
            }
            _ => String::new(),
        };
        self.error(node.position, path, format!("Unable to parse JSON as proto: {reason}{quoted}"));
    }

    fn error(&mut self, position: Position, path: &Path<'_>, message: impl Into<String>) {
        if self.errors.len() < MAX_DIAGNOSTICS {
            self.errors.push(Diagnostic {
                source: self.source.to_owned(),
                position: Some(position).filter(|position| position.line > 0),
                path: path.to_string(),
                message: message.into(),
            });
        }
    }
}

/// Why a value is not a scalar of its field.
enum Fault {
    Mismatch(&'static str),
    Value(&'static str),
    UnknownEnumValue(String),
}

/// `null` is a value of `google.protobuf.Value` and no value of everything else.
fn takes_null(field: &'static FieldSchema) -> bool {
    field.message().is_some_and(|message| message.well_known == WellKnown::Value)
}

fn fit<T: TryFrom<i128>>(value: i128) -> Result<T, Fault> {
    T::try_from(value).map_err(|_| Fault::Value("integer out of range"))
}

fn enumeration(field: &'static FieldSchema, node: &Node) -> Result<i32, Fault> {
    let text = match &node.value {
        Value::Number(text) | Value::String(text) => text,
        Value::Null => return Ok(0),
        _ => return Err(Fault::Mismatch("an enum's name or number")),
    };
    if let Some(value) = field.enumeration().and_then(|enumeration| enumeration.by_name(text)) {
        return Ok(value.number);
    }
    match scalar::integer(text) {
        Ok(number) => fit(number),
        Err(_) => Err(Fault::UnknownEnumValue(format!("unknown enum value: '{}'", text.escape_debug()))),
    }
}

fn field_type(field: &'static FieldSchema) -> &'static str {
    field.enumeration().map_or("", |enumeration| &enumeration.name)
}

fn text_value(bytes: &[u8], out: &mut Vec<u8>) {
    write::varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The field whose name is one or two slips of the keyboard away.
fn similar<'m>(schema: &'m MessageSchema, name: &str) -> Option<&'m str> {
    let allowed = if name.len() < 5 { 1 } else { 2 };
    let distances = schema.fields.iter().map(|field| (distance(&field.name, name), &*field.name));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, name)| name)
}

/// Levenshtein's distance, for names of fields.
fn distance(left: &str, right: &str) -> usize {
    if left.len().abs_diff(right.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (slot, b) in row.iter_mut().skip(1).zip(right.bytes()) {
            let cost = diagonal + usize::from(a != b);
            diagonal = *slot;
            *slot = cost.min(before + 1).min(diagonal + 1);
            before = *slot;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

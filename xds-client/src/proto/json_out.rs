//! Wire bytes into JSON, as Envoy's admin pages and REST requests write it: `Any` with `@type`, 64-bit integers as
//! strings, durations as `"1.500s"`, enums by name, what is unset left out, secrets replaced.

mod well_known;

use serde_json::{Map, Number, Value};

use super::any::{Depth, type_name};
use super::check::key_text;
use super::descriptors::{self, Lease};
use super::reader::{Malformed, Raw, Reader};
use super::scalar;
use super::schema::{FieldSchema, Kind, MessageSchema, Presence, Scalar, WellKnown};

/// How to write JSON.
#[derive(Clone, Copy, Debug)]
pub struct JsonOptions {
    /// Field names as in the protos (`connect_timeout`), not as in JSON (`connectTimeout`).
    pub snake_case: bool,
    /// Replace what is marked sensitive by `[redacted]`.
    pub redact: bool,
    /// Also write fields without presence that have their default value, empty lists and maps included.
    pub always_print_fields: bool,
}

/// Bytes that cannot be written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// There is no descriptor of the message's type.
    #[error("no descriptor of the message type {0}")]
    UnknownMessage(String),
    /// The bytes are not a message of the type.
    #[error("not a message of type {message}: {reason}")]
    Malformed {
        /// Full name of the type.
        message: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Writes the message of the type `type_url` (or of a bare full name) in `bytes` as JSON.
///
/// An `Any` of a type that is not known, or that does not hold what it says, becomes `{"@type": ..., "value": BASE64}`.
pub fn to_json(type_url: &str, bytes: &[u8], options: &JsonOptions) -> Result<Value, JsonError> {
    let _lease = Lease::new();
    let name = type_name(type_url);
    let schema = descriptors::message(name).ok_or_else(|| JsonError::UnknownMessage(name.to_owned()))?;
    let at = At { depth: Depth::default(), sensitive: false };
    let at = at.message().map_err(|reason| JsonError::Malformed { message: &schema.name, reason: reason.0 })?;
    Printer { options }
        .message(schema, bytes, at)
        .map_err(|reason| JsonError::Malformed { message: &schema.name, reason: reason.0 })
}

impl Default for JsonOptions {
    /// Envoy's for `/config_dump`.
    fn default() -> Self {
        Self { snake_case: true, redact: true, always_print_fields: false }
    }
}

#[derive(Clone, Copy)]
struct Printer<'o> {
    options: &'o JsonOptions,
}

/// How deep the printer is, and whether all it meets is secret.
#[derive(Clone, Copy)]
struct At {
    depth: Depth,
    sensitive: bool,
}

/// Why there is no JSON.
struct Unprintable(String);

/// What stands in for a secret.
const REDACTED: &str = "[redacted]";

impl Printer<'_> {
    fn message(&self, schema: &'static MessageSchema, bytes: &[u8], at: At) -> Result<Value, Unprintable> {
        match schema.well_known {
            WellKnown::No => Ok(Value::Object(self.fields(schema, bytes, at)?)),
            _ => self.well_known(schema, bytes, at),
        }
    }

    fn fields(&self, schema: &'static MessageSchema, bytes: &[u8], at: At) -> Result<Map<String, Value>, Unprintable> {
        let mut met: Vec<(u32, usize, Raw<'_>)> = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.field()? {
            if let Some(index) = schema.index_of_number(number) {
                met.push((number, index, raw));
            }
        }
        forget_overridden(schema, &mut met);
        met.sort_by_key(|(number, ..)| *number);
        let mut object = Map::new();
        for group in met.chunk_by(|a, b| a.0 == b.0) {
            let Some(field) = group.first().and_then(|(_, index, _)| schema.fields.get(*index)) else {
                continue;
            };
            let raws: Vec<Raw<'_>> = group.iter().map(|(.., raw)| *raw).collect();
            let at = At { sensitive: at.sensitive || (self.options.redact && field.sensitive), ..at };
            if let Some(value) = self.field(field, &raws, at)? {
                object.insert(self.name(field), value);
            }
        }
        if self.options.always_print_fields {
            self.defaults(schema, &mut object);
        }
        Ok(object)
    }

    fn name(&self, field: &FieldSchema) -> String {
        if self.options.snake_case { field.name.to_string() } else { field.json_name.to_string() }
    }

    /// What a field's occurrences come to; `None` when that is nothing.
    fn field(&self, field: &'static FieldSchema, raws: &[Raw<'_>], at: At) -> Result<Option<Value>, Unprintable> {
        if let Some(entry) = field.map_entry() {
            return self.map(entry, raws, at).map(Some);
        }
        if field.presence == Presence::Repeated {
            return self.list(field, raws, at);
        }
        if let Some(message) = field.message() {
            let at = at.message()?;
            return match raws {
                [Raw::Bytes(bytes)] => self.message(message, bytes, at).map(Some),
                // Occurrences of one message add up.
                _ => {
                    let parts = raws.iter().flat_map(|raw| if let Raw::Bytes(bytes) = raw { bytes } else { &[][..] });
                    self.message(message, &parts.copied().collect::<Vec<u8>>(), at).map(Some)
                }
            };
        }
        let Some(raw) = raws.last() else {
            return Ok(None);
        };
        if field.presence == Presence::Implicit && *raw == field.kind.default_raw() {
            return Ok(None);
        }
        self.scalar(field, *raw, at)
    }

    fn list(&self, field: &'static FieldSchema, raws: &[Raw<'_>], at: At) -> Result<Option<Value>, Unprintable> {
        let mut items = Vec::new();
        for raw in raws {
            match (field.message(), raw) {
                (Some(message), Raw::Bytes(bytes)) => items.push(self.message(message, bytes, at.message()?)?),
                (None, Raw::Bytes(packed)) if field.kind.wire_type() != 2 => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        items.extend(self.scalar(field, field.kind.packed(&mut reader)?, at)?);
                    }
                }
                _ => items.extend(self.scalar(field, *raw, at)?),
            }
        }
        Ok((!items.is_empty()).then_some(Value::Array(items)))
    }

    fn map(&self, entry: &'static MessageSchema, raws: &[Raw<'_>], at: At) -> Result<Value, Unprintable> {
        let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2)) else {
            return Err(Unprintable("a map's entry has no key or no value".to_owned()));
        };
        let at = at.message()?;
        let mut object = Map::new();
        for raw in raws {
            let Raw::Bytes(bytes) = raw else { continue };
            let (mut key, mut value) = (key_field.kind.default_raw(), value_field.kind.default_raw());
            let mut reader = Reader::new(bytes);
            while let Some((number, raw)) = reader.field()? {
                match number {
                    1 => key = raw,
                    2 => value = raw,
                    _ => {}
                }
            }
            let value = match (value_field.message(), value) {
                (Some(message), Raw::Bytes(bytes)) => Some(self.message(message, bytes, at.message()?)?),
                _ => self.scalar(value_field, value, at)?,
            };
            object.insert(key_text(key_field.kind, key), value.unwrap_or(Value::Null));
        }
        Ok(Value::Object(object))
    }

    /// A value that is no message; a secret number is nothing.
    fn scalar(&self, field: &'static FieldSchema, raw: Raw<'_>, at: At) -> Result<Option<Value>, Unprintable> {
        if let (Kind::String | Kind::Bytes, Raw::Bytes(bytes)) = (field.kind, raw) {
            let bytes = if at.sensitive { REDACTED.as_bytes() } else { bytes };
            return Ok(Some(Value::String(match field.kind {
                Kind::Bytes => scalar::base64(bytes),
                _ => String::from_utf8_lossy(bytes).into_owned(),
            })));
        }
        if at.sensitive {
            return Ok(None);
        }
        let scalar = field
            .kind
            .scalar(raw)
            .ok_or_else(|| Unprintable(format!("the wire type of {} is not the field's", field.name)))?;
        Ok(Some(match scalar {
            Scalar::Signed(value) if field.kind.is_64_bit() => Value::String(value.to_string()),
            Scalar::Unsigned(value) if field.kind.is_64_bit() => Value::String(value.to_string()),
            Scalar::Signed(value) => value.into(),
            Scalar::Unsigned(value) => value.into(),
            Scalar::Bool(value) => value.into(),
            Scalar::Double(value) => double(value),
            // The shortest decimal that reads back as the same float, not the digits of its double.
            Scalar::Float(value) => double(value.to_string().parse().unwrap_or_else(|_| value.into())),
            Scalar::Enum(number) => match field.enumeration() {
                Some(enumeration) if &*enumeration.name == "google.protobuf.NullValue" => Value::Null,
                Some(enumeration) => match enumeration.by_number(number) {
                    Some(value) => Value::String(value.name.to_string()),
                    None => number.into(),
                },
                None => number.into(),
            },
        }))
    }

    fn defaults(&self, schema: &'static MessageSchema, object: &mut Map<String, Value>) {
        for field in &schema.fields {
            let value = match (field.presence, field.map_entry(), field.kind) {
                (Presence::Explicit, ..) => continue,
                (_, Some(_), _) => Value::Object(Map::new()),
                (Presence::Repeated, None, _) => Value::Array(Vec::new()),
                (Presence::Implicit, None, Kind::String | Kind::Bytes) => Value::String(String::new()),
                (Presence::Implicit, None, kind) => {
                    let at = At { depth: Depth::default(), sensitive: false };
                    match self.scalar(field, kind.default_raw(), at) {
                        Ok(Some(value)) => value,
                        _ => continue,
                    }
                }
            };
            object.entry(self.name(field)).or_insert(value);
        }
    }
}

impl At {
    fn message(self) -> Result<Self, Unprintable> {
        Ok(Self { depth: self.depth.message()?, ..self })
    }

    fn any(self) -> Result<Self, Unprintable> {
        Ok(Self { depth: self.depth.any()?, ..self })
    }
}

impl From<Malformed> for Unprintable {
    fn from(malformed: Malformed) -> Self {
        Self(malformed.to_string())
    }
}

impl From<&str> for Unprintable {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

/// Of a oneof's members only the one set last counts.
fn forget_overridden(schema: &MessageSchema, met: &mut Vec<(u32, usize, Raw<'_>)>) {
    if schema.oneofs.is_empty() {
        return;
    }
    let oneof = |index: usize| schema.fields.get(index).and_then(|field| field.oneof);
    let mut last = vec![None; schema.oneofs.len()];
    for (number, index, _) in met.iter() {
        if let Some(slot) = oneof(*index).and_then(|oneof| last.get_mut(usize::from(oneof))) {
            *slot = Some(*number);
        }
    }
    met.retain(|(number, index, _)| {
        let winner = oneof(*index).and_then(|oneof| last.get(usize::from(oneof)).copied().flatten());
        winner.is_none_or(|winner| winner == *number)
    });
}

/// A number as protobuf prints it: whole ones without a fraction, what is not finite as a word.
fn double(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 && !(value == 0.0 && value.is_sign_negative()) {
        return (value as i64).into();
    }
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::String("NaN".to_owned()),
        None if value > 0.0 => Value::String("Infinity".to_owned()),
        None => Value::String("-Infinity".to_owned()),
    }
}

#[cfg(test)]
mod tests;

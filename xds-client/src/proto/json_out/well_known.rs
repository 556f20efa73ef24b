//! The well-known types, which have JSON forms of their own.

use serde_json::{Map, Value};

use super::{At, Printer, REDACTED, Unprintable, double};
use crate::proto::any::Packed;
use crate::proto::check::span;
use crate::proto::reader::{Raw, Reader};
use crate::proto::rules::Span;
use crate::proto::scalar;
use crate::proto::schema::{MessageSchema, WellKnown, text};
use crate::proto::typed_struct;

impl Printer<'_> {
    pub(super) fn well_known(
        &self,
        schema: &'static MessageSchema,
        bytes: &[u8],
        at: At,
    ) -> Result<Value, Unprintable> {
        Ok(match schema.well_known {
            WellKnown::Any => self.any(bytes, at)?,
            WellKnown::Struct => structure(bytes, at)?,
            WellKnown::Value => value(bytes, at)?,
            WellKnown::ListValue => list(bytes, at)?,
            WellKnown::Duration => {
                let nothing = Span { seconds: 0, nanos: 0 };
                let span = if at.sensitive { nothing } else { span(bytes).ok_or("not a duration")? };
                if !scalar::is_duration(span) {
                    return Err(Unprintable("a duration is out of range".to_owned()));
                }
                Value::String(scalar::format_duration(span))
            }
            WellKnown::Timestamp => {
                let nothing = Span { seconds: 0, nanos: 0 };
                let span = if at.sensitive { nothing } else { span(bytes).ok_or("not a timestamp")? };
                Value::String(scalar::format_timestamp(span).ok_or("a timestamp is out of range")?)
            }
            WellKnown::FieldMask => Value::String(field_mask(bytes)?),
            WellKnown::Wrapper => self.wrapper(schema, bytes, at)?,
            WellKnown::TypedStruct => self.typed_struct(schema, bytes, at)?,
            WellKnown::No => Value::Object(self.fields(schema, bytes, at)?),
        })
    }

    fn any(&self, bytes: &[u8], at: At) -> Result<Value, Unprintable> {
        let packed = Packed::parse(bytes)?;
        if packed.type_url.is_empty() && packed.value.is_empty() {
            return Ok(Value::Object(Map::new()));
        }
        let mut object = Map::new();
        object.insert("@type".to_owned(), Value::String(packed.type_url.to_owned()));
        let inside = at.any()?;
        let content = packed
            .schema()
            .and_then(|schema| self.message(schema, packed.value, inside).ok().map(|json| (schema, json)));
        match content {
            Some((schema, Value::Object(fields))) if !schema.well_known.is_wrapped_in_any() => object.extend(fields),
            Some((_, json)) => {
                object.insert("value".to_owned(), json);
            }
            // Not to be read, so not to be searched for secrets either.
            None => {
                let value = if at.sensitive { REDACTED.as_bytes() } else { packed.value };
                object.insert("value".to_owned(), Value::String(scalar::base64(value)));
            }
        }
        Ok(Value::Object(object))
    }

    /// What a `TypedStruct` holds has the secrets of the type it stands for.
    fn typed_struct(&self, schema: &'static MessageSchema, bytes: &[u8], at: At) -> Result<Value, Unprintable> {
        let mut object = self.fields(schema, bytes, at)?;
        let packed = Packed::parse(bytes)?;
        if let (true, Some(inner)) = (self.options.redact, packed.schema()) {
            let path = crate::proto::path::Path::ROOT;
            if let Ok((bytes, _)) = typed_struct::encode(inner, packed.value, &path, at.any()?.depth) {
                object.insert("value".to_owned(), self.message(inner, &bytes, at.any()?)?);
            }
        }
        Ok(Value::Object(object))
    }

    fn wrapper(&self, schema: &'static MessageSchema, bytes: &[u8], at: At) -> Result<Value, Unprintable> {
        let field = schema.field_by_number(1).ok_or("a wrapper without a value")?;
        let mut raw = field.kind.default_raw();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            if number == 1 {
                raw = value;
            }
        }
        Ok(self.scalar(field, raw, at)?.unwrap_or(Value::Null))
    }
}

fn structure(bytes: &[u8], at: At) -> Result<Value, Unprintable> {
    // A map's entry and its value are two messages.
    let at = at.message()?.message()?;
    let mut object = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if let (1, Raw::Bytes(entry)) = (number, raw) {
            let (mut key, mut member) = (String::new(), Value::Null);
            let mut reader = Reader::new(entry);
            while let Some((number, raw)) = reader.field()? {
                match (number, raw) {
                    (1, Raw::Bytes(bytes)) => key = text(bytes),
                    (2, Raw::Bytes(bytes)) => member = value(bytes, at)?,
                    _ => {}
                }
            }
            object.insert(key, member);
        }
    }
    Ok(Value::Object(object))
}

fn list(bytes: &[u8], at: At) -> Result<Value, Unprintable> {
    let at = at.message()?;
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if let (1, Raw::Bytes(bytes)) = (number, raw) {
            items.push(value(bytes, at)?);
        }
    }
    Ok(Value::Array(items))
}

/// A `google.protobuf.Value`; the last member that is set counts.
fn value(bytes: &[u8], at: At) -> Result<Value, Unprintable> {
    let mut json = Value::Null;
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        json = match (number, raw) {
            (3, Raw::Bytes(_)) if at.sensitive => Value::String(REDACTED.to_owned()),
            (2 | 4, _) if at.sensitive => Value::Null,
            (1, Raw::Varint(_)) => Value::Null,
            (2, Raw::Fixed64(bits)) => double(f64::from_bits(bits)),
            (3, Raw::Bytes(bytes)) => Value::String(text(bytes)),
            (4, Raw::Varint(value)) => Value::Bool(value != 0),
            (5, Raw::Bytes(bytes)) => structure(bytes, at.message()?)?,
            (6, Raw::Bytes(bytes)) => list(bytes, at.message()?)?,
            _ => continue,
        };
    }
    Ok(json)
}

fn field_mask(bytes: &[u8]) -> Result<String, Unprintable> {
    let mut paths = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if let (1, Raw::Bytes(path)) = (number, raw) {
            paths.push(scalar::camel_case(&text(path)));
        }
    }
    Ok(paths.join(","))
}

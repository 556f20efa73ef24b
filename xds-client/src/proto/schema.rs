//! What the descriptors say about a message, in the form this module's walkers need: fields by number and by name,
//! kinds, annotations and validation rules.
//!
//! A schema is built straight from the bytes of its `DescriptorProto` when something first asks for that type, and
//! kept: a proxy meets the same hundred types again and again, out of thousands.

mod kind;
mod options;

use std::sync::OnceLock;

pub(crate) use self::kind::{Kind, Scalar, WellKnown};
pub(crate) use self::options::file_is_work_in_progress;
use self::options::{DISALLOWED_ENUM, FieldOptions, MessageOptions, VALIDATE, flag};
use super::descriptors;
use super::reader::{Malformed, Raw, Reader};
use super::rules::Rules;
use super::scalar::camel_case;

/// A message type.
#[derive(Debug)]
pub(crate) struct MessageSchema {
    /// Full name, such as `envoy.config.cluster.v3.Cluster`.
    pub(crate) name: Box<str>,
    /// In the order of the proto file.
    pub(crate) fields: Box<[FieldSchema]>,
    /// Field number and index into `fields`, sorted by number.
    by_number: Box<[(u32, u16)]>,
    pub(crate) oneofs: Box<[OneofSchema]>,
    pub(crate) map_entry: bool,
    pub(crate) well_known: WellKnown,
    /// Some field or oneof has validation rules.
    pub(crate) has_rules: bool,
    pub(crate) work_in_progress: bool,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct FieldSchema {
    pub(crate) name: Box<str>,
    pub(crate) json_name: Box<str>,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
    /// Written packed (whether it is packed when read is the writer's choice).
    pub(crate) packed: bool,
    /// Index into the message's `oneofs`.
    pub(crate) oneof: Option<u16>,
    pub(crate) deprecated: bool,
    /// `envoy.annotations.disallowed_by_default`.
    pub(crate) disallowed: bool,
    /// `udpa.annotations.sensitive`.
    pub(crate) sensitive: bool,
    pub(crate) work_in_progress: bool,
    pub(crate) rules: Option<Box<Rules>>,
    type_name: Box<str>,
    message: OnceLock<Option<&'static MessageSchema>>,
    enumeration: OnceLock<Option<&'static EnumSchema>>,
}

/// A oneof that is not the wrapping of a single `optional` field.
#[derive(Debug)]
pub(crate) struct OneofSchema {
    pub(crate) name: Box<str>,
    pub(crate) required: bool,
}

/// An enumeration.
#[derive(Debug)]
pub(crate) struct EnumSchema {
    pub(crate) name: Box<str>,
    pub(crate) values: Box<[EnumValueSchema]>,
}

/// A value of an enumeration.
#[derive(Debug)]
pub(crate) struct EnumValueSchema {
    pub(crate) name: Box<str>,
    pub(crate) number: i32,
    pub(crate) deprecated: bool,
    pub(crate) disallowed: bool,
}

/// How a field is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A default value and no value are the same.
    Implicit,
    /// A message, an `optional` or a member of a oneof.
    Explicit,
    Repeated,
}

impl MessageSchema {
    /// The name without its package.
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    pub(crate) fn index_of_number(&self, number: u32) -> Option<usize> {
        let at = self.by_number.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.by_number.get(at).map(|(_, index)| usize::from(*index))
    }

    /// By its name in the proto file or its JSON name.
    pub(crate) fn index_of_name(&self, name: &str) -> Option<usize> {
        self.fields
            .iter()
            .position(|field| *field.name == *name)
            .or_else(|| self.fields.iter().position(|field| *field.json_name == *name))
    }

    pub(crate) fn field_by_number(&self, number: u32) -> Option<&FieldSchema> {
        self.index_of_number(number).and_then(|index| self.fields.get(index))
    }

    /// Builds the schema of `name` from the bytes of its descriptor.
    pub(crate) fn parse(
        name: &str,
        descriptor: &[u8],
        proto3: bool,
        work_in_progress: bool,
    ) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        let mut oneofs = Vec::new();
        let mut options = MessageOptions::default();
        each(descriptor, |tag, raw| {
            match (tag, raw) {
                (2, Raw::Bytes(bytes)) => fields.push(FieldSchema::parse(bytes, proto3)?),
                (7, Raw::Bytes(bytes)) => options = MessageOptions::parse(bytes)?,
                (8, Raw::Bytes(bytes)) => oneofs.push(OneofSchema::parse(bytes)?),
                _ => {}
            }
            Ok(())
        })?;
        for field in &mut fields {
            if options.unvalidated {
                field.rules = None;
            }
        }
        let mut by_number: Vec<(u32, u16)> = (0_u16..).zip(&fields).map(|(at, field)| (field.number, at)).collect();
        by_number.sort_unstable();
        let has_rules = fields.iter().any(|field| field.rules.is_some()) || oneofs.iter().any(|oneof| oneof.required);
        Ok(Self {
            name: name.into(),
            fields: fields.into(),
            by_number: by_number.into(),
            oneofs: oneofs.into(),
            map_entry: options.map_entry,
            well_known: WellKnown::of(name),
            has_rules: has_rules && !options.unvalidated,
            work_in_progress: work_in_progress || options.work_in_progress,
        })
    }
}

impl FieldSchema {
    /// The type of a message field; `None` for other kinds.
    pub(crate) fn message(&self) -> Option<&'static MessageSchema> {
        if self.kind != Kind::Message {
            return None;
        }
        *self.message.get_or_init(|| descriptors::message(&self.type_name))
    }

    /// The type of an enum field; `None` for other kinds.
    pub(crate) fn enumeration(&self) -> Option<&'static EnumSchema> {
        if self.kind != Kind::Enum {
            return None;
        }
        *self.enumeration.get_or_init(|| descriptors::enumeration(&self.type_name))
    }

    /// The entry type of a map field.
    pub(crate) fn map_entry(&self) -> Option<&'static MessageSchema> {
        if self.presence != Presence::Repeated {
            return None;
        }
        self.message().filter(|message| message.map_entry)
    }

    fn parse(descriptor: &[u8], proto3: bool) -> Result<Self, Malformed> {
        let (mut name, mut json_name, mut type_name) = (String::new(), None, String::new());
        let (mut number, mut kind, mut repeated, mut required) = (0, Kind::Int32, false, false);
        let (mut oneof, mut optional) = (None, false);
        let mut options = FieldOptions::default();
        each(descriptor, |tag, raw| {
            match (tag, raw) {
                (1, Raw::Bytes(bytes)) => name = text(bytes),
                (3, Raw::Varint(value)) => number = value as u32,
                (4, Raw::Varint(label)) => (required, repeated) = (label == 2, label == 3),
                (5, Raw::Varint(value)) => kind = Kind::of(value).ok_or(Malformed::WireType)?,
                (6, Raw::Bytes(bytes)) => type_name = text(bytes).trim_start_matches('.').to_owned(),
                (8, Raw::Bytes(bytes)) => options = FieldOptions::parse(bytes)?,
                (9, Raw::Varint(index)) => oneof = u16::try_from(index).ok(),
                (10, Raw::Bytes(bytes)) => json_name = Some(text(bytes)),
                (17, Raw::Varint(value)) => optional = value != 0,
                _ => {}
            }
            Ok(())
        })?;
        let presence = match () {
            () if repeated => Presence::Repeated,
            () if kind == Kind::Message || optional || required || oneof.is_some() || !proto3 => Presence::Explicit,
            () => Presence::Implicit,
        };
        let packable = repeated && !matches!(kind, Kind::String | Kind::Bytes | Kind::Message);
        Ok(Self {
            json_name: json_name.unwrap_or_else(|| camel_case(&name)).into(),
            name: name.into(),
            number,
            kind,
            presence,
            packed: packable && options.packed.unwrap_or(proto3),
            oneof: oneof.filter(|_| !optional),
            deprecated: options.deprecated,
            disallowed: options.disallowed,
            sensitive: options.sensitive,
            work_in_progress: options.work_in_progress,
            rules: options.rules,
            type_name: type_name.into(),
            message: OnceLock::new(),
            enumeration: OnceLock::new(),
        })
    }
}

impl OneofSchema {
    fn parse(descriptor: &[u8]) -> Result<Self, Malformed> {
        let (mut name, mut required) = (String::new(), false);
        each(descriptor, |tag, raw| {
            match (tag, raw) {
                (1, Raw::Bytes(bytes)) => name = text(bytes),
                (2, Raw::Bytes(bytes)) => required = flag(bytes, VALIDATE)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self { name: name.into(), required })
    }
}

impl EnumSchema {
    /// Builds the schema of `name` from the bytes of its descriptor.
    pub(crate) fn parse(name: &str, descriptor: &[u8]) -> Result<Self, Malformed> {
        let mut values = Vec::new();
        each(descriptor, |tag, raw| {
            if let (2, Raw::Bytes(bytes)) = (tag, raw) {
                values.push(EnumValueSchema::parse(bytes)?);
            }
            Ok(())
        })?;
        Ok(Self { name: name.into(), values: values.into() })
    }

    pub(crate) fn by_number(&self, number: i32) -> Option<&EnumValueSchema> {
        self.values.iter().find(|value| value.number == number)
    }

    /// By name, in any case, as Envoy's reader accepts it.
    pub(crate) fn by_name(&self, name: &str) -> Option<&EnumValueSchema> {
        let exact = self.values.iter().find(|value| *value.name == *name);
        exact.or_else(|| self.values.iter().find(|value| value.name.eq_ignore_ascii_case(&name.replace('-', "_"))))
    }
}

impl EnumValueSchema {
    fn parse(descriptor: &[u8]) -> Result<Self, Malformed> {
        let (mut name, mut number, mut deprecated, mut disallowed) = (String::new(), 0, false, false);
        each(descriptor, |tag, raw| {
            match (tag, raw) {
                (1, Raw::Bytes(bytes)) => name = text(bytes),
                (2, Raw::Varint(value)) => number = value as i32,
                (3, Raw::Bytes(bytes)) => {
                    deprecated = flag(bytes, 1)?;
                    disallowed = flag(bytes, DISALLOWED_ENUM)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self { name: name.into(), number, deprecated, disallowed })
    }
}

/// Calls `take` with every field of a message.
pub(crate) fn each<'a>(
    bytes: &'a [u8],
    mut take: impl FnMut(u32, Raw<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        take(number, raw)?;
    }
    Ok(())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

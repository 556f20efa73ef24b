//! What the descriptors say about a message, in the form this module's walkers need: fields by number and by name,
//! kinds, annotations and validation rules.
//!
//! A schema is built straight from the bytes of its `DescriptorProto` when something first asks for that type, and
//! kept: a proxy meets the same hundred types again and again, out of thousands.

use std::sync::OnceLock;

use super::descriptors;
use super::reader::{Malformed, Raw, Reader};
use super::rules::Rules;

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

/// A field's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message,
    Bytes,
    Uint32,
    Enum,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

/// Messages with a JSON form of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WellKnown {
    No,
    Any,
    Struct,
    Value,
    ListValue,
    Duration,
    Timestamp,
    FieldMask,
    Wrapper,
    /// `xds.type.v3.TypedStruct` and `udpa.type.v1.TypedStruct`: JSON is as for any message, but the content stands
    /// for another type.
    TypedStruct,
}

/// A scalar's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    Signed(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Bool(bool),
    Enum(i32),
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
            json_name: json_name.unwrap_or_else(|| lower_camel(&name)).into(),
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

impl Kind {
    fn of(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Double,
            2 => Self::Float,
            3 => Self::Int64,
            4 => Self::Uint64,
            5 => Self::Int32,
            6 => Self::Fixed64,
            7 => Self::Fixed32,
            8 => Self::Bool,
            9 => Self::String,
            11 => Self::Message,
            12 => Self::Bytes,
            13 => Self::Uint32,
            14 => Self::Enum,
            15 => Self::Sfixed32,
            16 => Self::Sfixed64,
            17 => Self::Sint32,
            18 => Self::Sint64,
            _ => return None,
        })
    }

    /// 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
    pub(crate) fn wire_type(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => 1,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => 5,
            Self::String | Self::Bytes | Self::Message => 2,
            Self::Int64 | Self::Uint64 | Self::Int32 | Self::Bool | Self::Uint32 | Self::Enum => 0,
            Self::Sint32 | Self::Sint64 => 0,
        }
    }

    /// JSON writes these as strings.
    pub(crate) fn is_64_bit(self) -> bool {
        matches!(self, Self::Int64 | Self::Uint64 | Self::Fixed64 | Self::Sfixed64 | Self::Sint64)
    }

    /// Whether a value on the wire may be of this kind; packed values apart.
    pub(crate) fn accepts(self, raw: Raw<'_>) -> bool {
        match raw {
            Raw::Varint(_) => self.wire_type() == 0,
            Raw::Fixed64(_) => self.wire_type() == 1,
            Raw::Bytes(_) => self.wire_type() == 2,
            Raw::Fixed32(_) => self.wire_type() == 5,
            Raw::Group => false,
        }
    }

    /// What a scalar's wire value means; `None` for strings, bytes and messages and for a wire type of another kind.
    pub(crate) fn scalar(self, raw: Raw<'_>) -> Option<Scalar> {
        Some(match (self, raw) {
            (Self::Double, Raw::Fixed64(bits)) => Scalar::Double(f64::from_bits(bits)),
            (Self::Float, Raw::Fixed32(bits)) => Scalar::Float(f32::from_bits(bits)),
            (Self::Int64, Raw::Varint(value)) | (Self::Sfixed64, Raw::Fixed64(value)) => Scalar::Signed(value as i64),
            (Self::Int32, Raw::Varint(value)) => Scalar::Signed((value as i32).into()),
            (Self::Sfixed32, Raw::Fixed32(value)) => Scalar::Signed((value as i32).into()),
            (Self::Sint32, Raw::Varint(value)) => Scalar::Signed(zigzag(u64::from(value as u32))),
            (Self::Sint64, Raw::Varint(value)) => Scalar::Signed(zigzag(value)),
            (Self::Uint64, Raw::Varint(value)) | (Self::Fixed64, Raw::Fixed64(value)) => Scalar::Unsigned(value),
            (Self::Uint32, Raw::Varint(value)) => Scalar::Unsigned((value as u32).into()),
            (Self::Fixed32, Raw::Fixed32(value)) => Scalar::Unsigned(value.into()),
            (Self::Bool, Raw::Varint(value)) => Scalar::Bool(value != 0),
            (Self::Enum, Raw::Varint(value)) => Scalar::Enum(value as i32),
            _ => return None,
        })
    }

    /// The next value of a packed field.
    pub(crate) fn packed<'a>(self, reader: &mut Reader<'a>) -> Result<Raw<'a>, Malformed> {
        match self.wire_type() {
            0 => reader.varint().map(Raw::Varint),
            1 => reader.fixed64().map(Raw::Fixed64),
            5 => reader.fixed32().map(Raw::Fixed32),
            _ => Err(Malformed::WireType),
        }
    }

    /// The value of an absent field.
    pub(crate) fn default_raw(self) -> Raw<'static> {
        match self.wire_type() {
            0 => Raw::Varint(0),
            1 => Raw::Fixed64(0),
            5 => Raw::Fixed32(0),
            _ => Raw::Bytes(&[]),
        }
    }
}

impl WellKnown {
    fn of(name: &str) -> Self {
        match name {
            "google.protobuf.Any" => Self::Any,
            "google.protobuf.Struct" => Self::Struct,
            "google.protobuf.Value" => Self::Value,
            "google.protobuf.ListValue" => Self::ListValue,
            "google.protobuf.Duration" => Self::Duration,
            "google.protobuf.Timestamp" => Self::Timestamp,
            "google.protobuf.FieldMask" => Self::FieldMask,
            "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct" => Self::TypedStruct,
            "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue" => Self::Wrapper,
            _ => Self::No,
        }
    }

    /// In an `Any`'s JSON the content stands under `value` rather than beside `@type`.
    pub(crate) fn is_wrapped_in_any(self) -> bool {
        !matches!(self, Self::No | Self::TypedStruct)
    }
}

/// Extension numbers of the options this module reads.
const VALIDATE: u32 = 1071;
const VALIDATE_IGNORED: u32 = 1072;
const SENSITIVE: u32 = 76_569_463;
const DISALLOWED: u32 = 189_503_207;
const DISALLOWED_ENUM: u32 = 70_100_853;
const XDS_STATUS: u32 = 226_829_418;
const UDPA_FILE_STATUS: u32 = 222_707_719;

#[derive(Default)]
struct MessageOptions {
    map_entry: bool,
    /// `validate.disabled` or `validate.ignored`.
    unvalidated: bool,
    work_in_progress: bool,
}

impl MessageOptions {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            map_entry: flag(bytes, 7)?,
            unvalidated: flag(bytes, VALIDATE)? || flag(bytes, VALIDATE_IGNORED)?,
            work_in_progress: status(bytes, XDS_STATUS)?,
        })
    }
}

#[derive(Default)]
struct FieldOptions {
    packed: Option<bool>,
    deprecated: bool,
    disallowed: bool,
    sensitive: bool,
    work_in_progress: bool,
    rules: Option<Box<Rules>>,
}

impl FieldOptions {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self { work_in_progress: status(bytes, XDS_STATUS)?, ..Self::default() };
        let mut rules = Vec::new();
        each(bytes, |tag, raw| {
            match (tag, raw) {
                (2, Raw::Varint(value)) => options.packed = Some(value != 0),
                (3, Raw::Varint(value)) => options.deprecated = value != 0,
                (DISALLOWED, Raw::Varint(value)) => options.disallowed = value != 0,
                (SENSITIVE, Raw::Varint(value)) => options.sensitive = value != 0,
                // An option set part by part is several occurrences; concatenated they are one message.
                (VALIDATE, Raw::Bytes(part)) => rules.extend_from_slice(part),
                _ => {}
            }
            Ok(())
        })?;
        if !rules.is_empty() {
            options.rules = Rules::parse(&rules).ok().flatten().map(Box::new);
        }
        Ok(options)
    }
}

/// Whether a file's options say that everything in it is work in progress.
pub(crate) fn file_is_work_in_progress(options: &[u8]) -> Result<bool, Malformed> {
    Ok(status(options, XDS_STATUS)? || status(options, UDPA_FILE_STATUS)?)
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

/// A boolean field.
fn flag(bytes: &[u8], number: u32) -> Result<bool, Malformed> {
    let mut set = false;
    each(bytes, |tag, raw| {
        if let (true, Raw::Varint(value)) = (tag == number, raw) {
            set = value != 0;
        }
        Ok(())
    })?;
    Ok(set)
}

/// `work_in_progress` (field 1) of a status annotation.
fn status(bytes: &[u8], number: u32) -> Result<bool, Malformed> {
    let mut set = false;
    each(bytes, |tag, raw| {
        if let (true, Raw::Bytes(annotation)) = (tag == number, raw) {
            set |= flag(annotation, 1)?;
        }
        Ok(())
    })?;
    Ok(set)
}

fn zigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The JSON name protobuf derives for a field.
fn lower_camel(name: &str) -> String {
    let mut output = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            output.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    output
}

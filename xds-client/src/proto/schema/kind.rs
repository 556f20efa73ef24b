//! What a field can hold: its kind with its form on the wire, the value of a scalar, and the messages whose JSON is unlike
//! that of others.

use super::super::reader::{Malformed, Raw, Reader};

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

impl Kind {
    pub(super) fn of(number: u64) -> Option<Self> {
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
    pub(super) fn of(name: &str) -> Self {
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

fn zigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

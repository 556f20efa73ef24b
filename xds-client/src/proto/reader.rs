//! The protobuf wire format, read field by field without copying.
//!
//! Iterative and bounded: groups are skipped with a counter, not by recursion, and nothing here allocates.

use std::fmt;

/// Nested groups deeper than this are refused (protobuf's own limit for messages).
const MAX_GROUPS: u32 = 100;

/// The value of one field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// A group (proto2), skipped.
    Group,
}

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Truncated,
    Varint,
    FieldNumber,
    WireType,
    Group,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the message is cut short",
            Self::Varint => "a varint is longer than ten bytes",
            Self::FieldNumber => "a field number is out of range",
            Self::WireType => "a wire type does not exist",
            Self::Group => "a group does not end where it should",
        })
    }
}

/// Iterates over the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and value.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let raw = match wire_type {
            3 => {
                self.skip_group(number)?;
                Raw::Group
            }
            4 => return Err(Malformed::Group),
            _ => self.value(wire_type)?,
        };
        Ok(Some((number, raw)))
    }

    /// A bare varint, as packed fields hold them.
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                if index == 9 && *byte > 1 {
                    return Err(Malformed::Varint);
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Malformed::Truncated } else { Malformed::Varint })
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::FieldNumber)?;
        match key >> 3 {
            0 => Err(Malformed::FieldNumber),
            number => Ok((number, (key & 7) as u8)),
        }
    }

    fn value(&mut self, wire_type: u8) -> Result<Raw<'a>, Malformed> {
        Ok(match wire_type {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(self.fixed64()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
                self.rest = rest;
                Raw::Bytes(bytes)
            }
            5 => Raw::Fixed32(self.fixed32()?),
            _ => return Err(Malformed::WireType),
        })
    }

    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        // Only the outermost number is compared: inner ones are skipped, never interpreted.
        let mut open = 1_u32;
        while open > 0 {
            let (inner, wire_type) = self.key()?;
            match wire_type {
                3 if open >= MAX_GROUPS => return Err(Malformed::Group),
                3 => open += 1,
                4 if open == 1 && inner != number => return Err(Malformed::Group),
                4 => open -= 1,
                _ => {
                    self.value(wire_type)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes the wire format.
pub(crate) mod write {
    /// Appends a varint.
    pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push((value as u8) | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// Appends a field's key.
    pub(crate) fn key(number: u32, wire_type: u8, out: &mut Vec<u8>) {
        varint(u64::from(number) << 3 | u64::from(wire_type), out);
    }

    /// Appends a length-delimited field.
    pub(crate) fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
        key(number, 2, out);
        varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }

    /// Appends a length-delimited field whose content `fill` appends.
    pub(crate) fn nested<R>(number: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        key(number, 2, out);
        let start = out.len();
        let result = fill(out);
        let mut length = Vec::with_capacity(5);
        varint((out.len() - start) as u64, &mut length);
        out.splice(start..start, length);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Raw<'_>)>, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.field()? {
            fields.push(field);
        }
        Ok(fields)
    }

    #[test]
    fn fields_of_every_wire_type() {
        assert_eq!(all(&[0x08, 0x96, 0x01]), Ok(vec![(1, Raw::Varint(150))]));
        assert_eq!(all(&[0x12, 1, b'a', 0x1d, 1, 0, 0, 0]), Ok(vec![(2, Raw::Bytes(b"a")), (3, Raw::Fixed32(1))]));
        assert_eq!(all(&[0x21, 1, 0, 0, 0, 0, 0, 0, 0]), Ok(vec![(4, Raw::Fixed64(1))]));
        assert_eq!(all(&[0x0b, 0x13, 0x08, 1, 0x14, 0x0c, 0x08, 2]), Ok(vec![(1, Raw::Group), (1, Raw::Varint(2))]));
    }

    #[test]
    fn what_is_not_a_message() {
        for (bytes, error) in [
            (&[0x08][..], Malformed::Truncated),
            (&[0x12, 5, b'a'], Malformed::Truncated),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Malformed::Truncated),
            (&[0x00], Malformed::FieldNumber),
            (&[0x0e, 0], Malformed::WireType),
            (&[0x0c], Malformed::Group),
            (&[0x0b, 0x14], Malformed::Group),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Malformed::Varint),
            (&[0xff, 0xff, 0xff, 0xff, 0x7f, 0], Malformed::FieldNumber),
        ] {
            assert_eq!(all(bytes), Err(error), "{bytes:?}");
        }
        assert_eq!(all(&[0x0b; 200]), Err(Malformed::Group));
    }
}

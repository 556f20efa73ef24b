//! `google.protobuf.Any`: names in type URLs, and the limit on `Any`s in `Any`s.

use super::descriptors;
use super::reader::{Malformed, Raw};
use super::schema::{MessageSchema, each};

/// How many `Any`s may be packed into each other. Matchers and composite filters nest a few.
pub(crate) const MAX_NESTED: usize = 32;

/// How many messages may be nested in one packed message: the limit of every protobuf decoder.
pub(crate) const MAX_MESSAGES: usize = 100;

/// How many messages may be nested in all, across `Any`s. Keeps the walkers' stack small.
pub(crate) const MAX_TOTAL: usize = 256;

/// How deep a walker is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depth {
    messages: usize,
    nested: usize,
    total: usize,
}

impl Depth {
    /// Into a message of a message.
    pub(crate) fn message(self) -> Result<Self, &'static str> {
        let deeper = Self { messages: self.messages + 1, total: self.total + 1, ..self };
        if deeper.messages > MAX_MESSAGES || deeper.total > MAX_TOTAL {
            return Err("messages are nested too deep");
        }
        Ok(deeper)
    }

    /// Into the message an `Any` holds.
    pub(crate) fn any(self) -> Result<Self, &'static str> {
        let deeper = Self { messages: 1, nested: self.nested + 1, total: self.total + 1 };
        if deeper.nested > MAX_NESTED || deeper.total > MAX_TOTAL {
            return Err("google.protobuf.Any is nested too deep");
        }
        Ok(deeper)
    }
}

/// The two fields of an `Any`, or of a `TypedStruct`, which has the same shape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packed<'a> {
    pub(crate) type_url: &'a str,
    pub(crate) value: &'a [u8],
}

impl<'a> Packed<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut packed = Self::default();
        each(bytes, |number, raw| {
            match (number, raw) {
                (1, Raw::Bytes(url)) => packed.type_url = std::str::from_utf8(url).unwrap_or_default(),
                (2, Raw::Bytes(value)) => packed.value = value,
                _ => {}
            }
            Ok(())
        })?;
        Ok(packed)
    }

    pub(crate) fn schema(&self) -> Option<&'static MessageSchema> {
        descriptors::message(type_name(self.type_url))
    }
}

/// The full name in a type URL: what follows the last slash. A bare name is its own.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// The usual type URL of a full name.
pub fn type_url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

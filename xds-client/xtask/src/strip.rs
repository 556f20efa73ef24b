//! Removes from a descriptor set what is not needed to read, check and print messages.
//!
//! Works on the wire bytes and copies whole fields, so that options this program knows nothing about (validation
//! rules, annotations) survive as they are.

use std::collections::BTreeSet;
use std::error::Error;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// What happens to one field of a descriptor message.
enum Rule {
    Keep,
    Drop,
    /// Drop when the value is what `name` (field 1) gives by protobuf's rule for JSON names.
    DropDefaultJsonName,
    /// A nested message with rules of its own.
    Descend(fn(u32) -> Self),
}

/// The stripped files of one or more descriptor sets, each once.
#[derive(Default)]
pub(crate) struct Files {
    names: BTreeSet<Vec<u8>>,
    output: Vec<u8>,
}

impl Files {
    /// Adds the files of a serialised `google.protobuf.FileDescriptorSet` that are not there yet, in its order
    /// (dependencies first).
    pub(crate) fn add(&mut self, set: &[u8]) -> Result<(), Box<dyn Error>> {
        let mut rest = set;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest)?;
            let body = delimited(&mut rest)?;
            if tag != 1 || wire_type != WireType::LengthDelimited {
                return Err("not a descriptor set".into());
            }
            if self.names.insert(file_name(body)?) {
                append(1, &strip(body, file)?, &mut self.output);
            }
        }
        Ok(())
    }

    /// The serialised set.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.output
    }
}

fn file_name(mut rest: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let (tag, wire_type) = decode_key(&mut rest)?;
    if tag != 1 || wire_type != WireType::LengthDelimited {
        return Err("a file descriptor does not begin with its name".into());
    }
    Ok(delimited(&mut rest)?.to_vec())
}

fn file(tag: u32) -> Rule {
    match tag {
        1 | 2 | 3 | 12 => Rule::Keep, // name, package, dependency, syntax
        4 => Rule::Descend(message),
        5 => Rule::Descend(enumeration),
        7 => Rule::Descend(field),
        8 => Rule::Descend(file_options),
        _ => Rule::Drop, // services, public and weak imports, source information
    }
}

fn file_options(tag: u32) -> Rule {
    // deprecated and the annotations (work in progress, version status); not the options for code generators.
    if tag == 23 || tag >= 1000 { Rule::Keep } else { Rule::Drop }
}

fn message(tag: u32) -> Rule {
    match tag {
        2 | 6 => Rule::Descend(field), // fields, extensions
        3 => Rule::Descend(message),
        4 => Rule::Descend(enumeration),
        1 | 5 | 7 | 8 => Rule::Keep, // name, extension ranges, options, oneofs
        _ => Rule::Drop,             // reserved names and numbers
    }
}

fn enumeration(tag: u32) -> Rule {
    if tag <= 3 { Rule::Keep } else { Rule::Drop }
}

fn field(tag: u32) -> Rule {
    if tag == 10 { Rule::DropDefaultJsonName } else { Rule::Keep }
}

fn strip(bytes: &[u8], rules: impl Fn(u32) -> Rule) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut output = Vec::with_capacity(bytes.len());
    let mut name = String::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire_type) = decode_key(&mut rest)?;
        let mut body: Option<&[u8]> = None;
        if wire_type == WireType::LengthDelimited {
            body = Some(delimited(&mut rest)?);
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        }
        let whole = &start[..start.len() - rest.len()];
        match (rules(tag), body) {
            (Rule::Drop, _) => {}
            (Rule::Descend(inner), Some(body)) => {
                let inner = strip(body, inner)?;
                if !inner.is_empty() {
                    append(tag, &inner, &mut output);
                }
            }
            (Rule::DropDefaultJsonName, Some(body)) if body == lower_camel(&name).as_bytes() => {}
            (_, body) => {
                if let (1, Some(body)) = (tag, body) {
                    name = String::from_utf8_lossy(body).into_owned();
                }
                output.extend_from_slice(whole);
            }
        }
    }
    Ok(output)
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Box<dyn Error>> {
    let length = usize::try_from(decode_varint(rest)?)?;
    let (body, after) = rest.split_at_checked(length).ok_or("a field is cut short")?;
    *rest = after;
    Ok(body)
}

fn append(tag: u32, body: &[u8], output: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, output);
    encode_varint(body.len() as u64, output);
    output.extend_from_slice(body);
}

/// The JSON name protobuf derives for a field: underscores removed, the letter after one in upper case.
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

//! JSON log lines: one object per line, members sorted by name, operators typed.

use std::io::Write;

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value as Proto};
use serde_json::Value;

use super::command::Command;
use super::{Format, FormatContext, FormatOptions, Part};

/// A compiled `json_format`.
#[derive(Debug, Clone)]
pub struct JsonFormat {
    root: Vec<Member>,
    omit_empty: bool,
}

#[derive(Debug, Clone)]
struct Member {
    /// The name as JSON, with the colon.
    name: Box<[u8]>,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Object(Vec<Member>),
    List(Vec<Self>),
    /// `null`, which counts as missing.
    Null,
    /// JSON text that never changes.
    Constant(Box<[u8]>),
    /// An operator alone: keeps its type.
    Operator(Command),
    /// Operators and text together: a string.
    Mixed(Format),
}

impl JsonFormat {
    /// Compiles a `json_format`.
    ///
    /// # Errors
    /// As [`Format::parse`], for any of its strings.
    pub fn parse(format: &Struct, options: &FormatOptions) -> Result<Self, String> {
        Ok(Self { root: members(format, options)?, omit_empty: options.omit_empty_values })
    }

    /// Appends the object of one stream and a newline.
    pub fn append_to(&self, out: &mut Vec<u8>, context: &FormatContext<'_>) {
        self.object(out, &self.root, context);
        out.push(b'\n');
    }

    fn object(&self, out: &mut Vec<u8>, members: &[Member], context: &FormatContext<'_>) {
        out.push(b'{');
        let start = out.len();
        for Member { name, node } in members {
            let before = out.len();
            if before > start {
                out.push(b',');
            }
            out.extend_from_slice(name);
            if !self.node(out, node, context) {
                if self.omit_empty {
                    out.truncate(before);
                } else {
                    out.extend_from_slice(b"null");
                }
            }
        }
        out.push(b'}');
    }

    /// Appends a node; false, and nothing appended, when it is a missing operator.
    fn node(&self, out: &mut Vec<u8>, node: &Node, context: &FormatContext<'_>) -> bool {
        match node {
            Node::Object(members) => self.object(out, members, context),
            Node::List(nodes) => {
                out.push(b'[');
                let start = out.len();
                for node in nodes {
                    let before = out.len();
                    if before > start {
                        out.push(b',');
                    }
                    if !self.node(out, node, context) {
                        if self.omit_empty {
                            out.truncate(before);
                        } else {
                            out.extend_from_slice(b"null");
                        }
                    }
                }
                out.push(b']');
            }
            Node::Null => return false,
            Node::Constant(json) => out.extend_from_slice(json),
            Node::Operator(command) => return command.append_json(out, context),
            Node::Mixed(format) => {
                append_quoted(out, |out| {
                    format.append_to(out, context);
                    true
                });
            }
        }
        true
    }
}

fn members(format: &Struct, options: &FormatOptions) -> Result<Vec<Member>, String> {
    let Struct { fields } = format;
    let mut members = fields
        .iter()
        .map(|(name, value)| {
            let mut json = Vec::new();
            quote(&mut json, name);
            json.push(b':');
            Ok(Member { name: json.into(), node: node(value, options)? })
        })
        .collect::<Result<Vec<_>, String>>()?;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

fn node(value: &Proto, options: &FormatOptions) -> Result<Node, String> {
    let constant = |json: &Value| {
        let mut out = Vec::new();
        append_value(&mut out, json);
        Node::Constant(out.into())
    };
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Node::Null,
        Some(Kind::BoolValue(value)) => constant(&Value::Bool(*value)),
        Some(Kind::NumberValue(value)) => constant(&(*value).into()),
        Some(Kind::StructValue(value)) => Node::Object(members(value, options)?),
        Some(Kind::ListValue(list)) => {
            Node::List(list.values.iter().map(|value| node(value, options)).collect::<Result<_, _>>()?)
        }
        Some(Kind::StringValue(text)) => {
            let format = Format::parse(text, options)?;
            match &format.parts[..] {
                [Part::Command(command)] => Node::Operator(command.clone()),
                _ => match format.literal() {
                    Some(text) => constant(&Value::String(String::from_utf8_lossy(text).into_owned())),
                    None => Node::Mixed(format),
                },
            }
        }
    })
}

/// Appends what `append` writes as a JSON string; false, and nothing appended, when it writes no value.
pub(super) fn append_quoted(out: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let before = out.len();
    out.push(b'"');
    let start = out.len();
    if !append(out) {
        out.truncate(before);
        return false;
    }
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if !out[start..].iter().all(plain) {
        let raw = out.split_off(start);
        escape(out, &raw);
    }
    out.push(b'"');
    true
}

/// Appends a value, its objects sorted by name.
pub(super) fn append_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) => match number.as_f64() {
            Some(value) if number.is_f64() => append_number(out, value),
            _ => {
                let _ = write!(out, "{number}");
            }
        },
        Value::String(text) => quote(out, text),
        Value::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                append_value(out, value);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members = members.iter().collect::<Vec<_>>();
            members.sort_by_key(|(name, _)| name.as_str());
            out.push(b'{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                quote(out, name);
                out.push(b':');
                append_value(out, value);
            }
            out.push(b'}');
        }
    }
}

/// Appends a number in the shorter of its two forms, as C++'s `to_chars` does: `100`, but `1e+20`.
fn append_number(out: &mut Vec<u8>, value: f64) {
    let scientific = format!("{value:e}");
    let scientific = match scientific.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent:0>2}"),
        Some((digits, exponent)) => format!("{digits}e-{:0>2}", exponent.trim_start_matches('-')),
        None => scientific,
    };
    // Whole numbers are exact, beyond the digits that tell them from others.
    let fixed = if value.fract() == 0.0 { format!("{value:.0}") } else { value.to_string() };
    let shorter = if fixed.len() <= scientific.len() { fixed } else { scientific };
    out.extend_from_slice(shorter.as_bytes());
}

fn quote(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text.as_bytes());
    out.push(b'"');
}

/// Escapes what may not stand in a JSON string. A text that is no UTF-8 is taken for Latin-1 and all but plain ASCII of it
/// escaped, as Envoy does: the line stays valid and nothing is lost.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let utf8 = std::str::from_utf8(text).is_ok();
    for byte in text {
        match byte {
            b'"' if utf8 => out.extend_from_slice(b"\\\""),
            b'\\' if utf8 => out.extend_from_slice(b"\\\\"),
            b'\n' if utf8 => out.extend_from_slice(b"\\n"),
            b'\r' if utf8 => out.extend_from_slice(b"\\r"),
            b'\t' if utf8 => out.extend_from_slice(b"\\t"),
            0x08 if utf8 => out.extend_from_slice(b"\\b"),
            0x0c if utf8 => out.extend_from_slice(b"\\f"),
            b'"' | b'\\' | 0..=0x1f => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            0x7f.. if !utf8 => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on Envoy 1.40.
    #[test]
    fn numbers_take_their_shorter_form() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (0.0001, "1e-04"),
            (1e-7, "1e-07"),
            (100.0, "100"),
            (1e15, "1e+15"),
            (1e21, "1e+21"),
            (1_234_567_890_123_456.0, "1234567890123456"),
            (123_456_789_012_345_680.0, "123456789012345680"),
            (18_446_744_073_709_549_568.0, "18446744073709549568"),
            (12_345_678_901_234_567_890.0, "12345678901234567168"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
        ] {
            let mut out = Vec::new();
            append_number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}

//! JSON as Envoy reads it into `google.protobuf.Struct`: stricter than most about what an object means (a member stands there
//! once, numbers are finite doubles, text is UTF-8), and more lenient than the standard about how it is written (a comma may
//! trail, quotes may be single or, around names, missing, and control characters may stand in strings).

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// How deep values may be nested.
const DEPTH: u32 = 100;

/// The members of the object that `text` is; `None` where it is none. `null` stands for an empty object.
pub(super) fn parse(text: &[u8]) -> Option<Map<String, Value>> {
    let mut parser = Parser { text: std::str::from_utf8(text).ok()?, at: 0, depth: DEPTH };
    let members = match parser.value()? {
        Value::Object(members) => members,
        Value::Null => Map::new(),
        _ => return None,
    };
    parser.skip();
    (parser.at == parser.text.len()).then_some(members)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// How many levels more there may be.
    depth: u32,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn skip(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    /// Takes `text`, if it stands here behind any white space.
    fn take(&mut self, text: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn value(&mut self) -> Option<Value> {
        self.skip();
        Some(match self.rest().bytes().next()? {
            b'{' => Value::Object(self.object()?),
            b'[' => Value::Array(self.array()?),
            b'"' | b'\'' => Value::String(self.string()?),
            b'-' | b'0'..=b'9' => Value::Number(self.number()?),
            _ if self.take("true") => Value::Bool(true),
            _ if self.take("false") => Value::Bool(false),
            _ if self.take("null") => Value::Null,
            _ => return None,
        })
    }

    fn object(&mut self) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        self.list("{", "}", |parser| {
            parser.skip();
            let name = match parser.rest().bytes().next()? {
                b'"' | b'\'' => parser.string()?,
                _ => parser.bare_word()?,
            };
            if !parser.take(":") {
                return None;
            }
            let value = parser.value()?;
            members.insert(name, value).is_none().then_some(())
        })?;
        Some(members)
    }

    fn array(&mut self) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        self.list("[", "]", |parser| {
            values.push(parser.value()?);
            Some(())
        })?;
        Some(values)
    }

    fn list(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.depth = self.depth.checked_sub(1)?;
        if !self.take(open) {
            return None;
        }
        let mut comma = true;
        while !self.take(close) {
            if !comma {
                return None;
            }
            item(self)?;
            comma = self.take(",");
        }
        self.depth += 1;
        Some(())
    }

    fn bare_word(&mut self) -> Option<String> {
        let rest = self.rest();
        let len = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let word = rest.get(..len).filter(|word| word.starts_with(|first: char| !first.is_ascii_digit()))?.to_owned();
        if matches!(&*word, "true" | "false" | "null") {
            return None;
        }
        self.at += len;
        Some(word)
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.next()?;
        let mut text = String::new();
        loop {
            match self.next()? {
                end if end == quote => return Some(text),
                '\\' => text.push(self.escape()?),
                other => text.push(other),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            same @ ('"' | '\'' | '\\' | '/') => same,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first);
                }
                if self.next()? != '\\' || self.next()? != 'u' {
                    return None;
                }
                let second = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                return char::from_u32(0x10000 + ((first - 0xd800) << 10 | second));
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |value, _| Some(value << 4 | self.next()?.to_digit(16)?))
    }

    fn number(&mut self) -> Option<Number> {
        let rest = self.rest();
        let len =
            rest.bytes().take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        let text = rest.get(..len)?;
        // The standard's grammar, and a number at all.
        let value: f64 = serde_json::from_str(text).ok()?;
        self.at += len;
        Number::from_f64(value)
    }
}

/// The JSON text of a value as `protobuf` prints it; members sorted by name, so that the same value is the same text.
pub(super) fn print(value: &Value) -> String {
    let mut out = String::new();
    append(&mut out, value);
    out
}

fn append(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => append_number(out, number.as_f64().unwrap_or_default()),
        Value::String(text) => append_text(out, text),
        Value::Array(values) => {
            let mut open = '[';
            for value in values {
                out.push(std::mem::replace(&mut open, ','));
                append(out, value);
            }
            out.push_str(if values.is_empty() { "[]" } else { "]" });
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            let mut open = '{';
            for (name, value) in sorted {
                out.push(std::mem::replace(&mut open, ','));
                append_text(out, name);
                out.push(':');
                append(out, value);
            }
            out.push_str(if members.is_empty() { "{}" } else { "}" });
        }
    }
}

fn append_text(out: &mut String, text: &str) {
    out.push('"');
    for symbol in text.chars() {
        match symbol {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}'
            | '<'
            | '>'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{600}'..='\u{603}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(symbol));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The shortest of 15 and 17 digits that is the number, in the form of C's `%g`.
pub(super) fn append_number(out: &mut String, value: f64) {
    let short = general(value, 15);
    let exact = if short.parse() == Ok(value) { short } else { general(value, 17) };
    out.push_str(&exact);
}

/// C's `%.<digits>g`.
fn general(value: f64, digits: usize) -> String {
    let scientific = format!("{value:.*e}", digits - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let plain = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    if (-4..limit).contains(&exponent) {
        let places = usize::try_from(limit - 1 - exponent).unwrap_or_default();
        return plain(&format!("{value:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", plain(mantissa), exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Measured on Envoy 1.40.
    #[test]
    fn what_envoy_takes_for_an_object() {
        let nested = |n: usize| format!("{{\"c\":{}{}}}", "[".repeat(n), "]".repeat(n));
        for text in [
            r#"{"c":1}"#,
            r#"{"c":1,}"#,
            r#"{"c":[1,],}"#,
            "{'c':1}",
            "{c:1}",
            "{_c1:1}",
            "null",
            "{}",
            " \n{\"c\" : 1}\t",
            r#"{"c":1E2}"#,
            r#"{"c":-0}"#,
            r#"{"c":"\/\b\'\u00e9"}"#,
            "{\"c\":\"a\u{1}\tb\"}",
            &nested(99),
        ] {
            assert!(parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in [
            "",
            "[]",
            "\"x\"",
            "1",
            "{",
            "{,}",
            r#"{"c":1,"c":2}"#,
            r#"{"c":1,,}"#,
            r#"{"c":1 "d":2}"#,
            r#"{"c":1e999}"#,
            r#"{"c":01}"#,
            r#"{"c":+1}"#,
            r#"{"c":.5}"#,
            r#"{"c":5.}"#,
            r#"{"c":-}"#,
            r#"{"c":NaN}"#,
            r#"{"c":Infinity}"#,
            r#"{"c":"\x"}"#,
            r#"{"c":"\ud800"}"#,
            r#"{"c":"\ud800\u0041"}"#,
            r#"{"c":"\udc00"}"#,
            r#"{"c":1 /*x*/}"#,
            r#"{"c":1} x"#,
            r#"{"c":1}{}"#,
            "{1c:1}",
            "{c$:1}",
            "{true:1}",
            "{null:1}",
            "{c}",
            "\u{feff}{\"c\":1}",
            &nested(100),
        ] {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(parse(b"{\"c\":\"\xff\"}").is_none());
    }

    #[test]
    fn values_are_what_they_say() {
        let members = parse(br#"{a: [1, -2.5, "x", true, false, null], "b": {"c": "\ud83d\ude00"}}"#).unwrap();
        let expected = json!({"a": [1.0, -2.5, "x", true, false, null], "b": {"c": "\u{1f600}"}});
        assert_eq!(Value::Object(members), expected);
    }

    /// Measured on Envoy 1.40.
    #[test]
    fn printed_as_protobuf_prints() {
        for (value, text) in [
            (json!({"b": 1.0, "a": [1.5, "x", null, true]}), r#"{"a":[1.5,"x",null,true],"b":1}"#),
            (json!([]), "[]"),
            (json!({}), "{}"),
            (json!("<&'>\u{2028}\u{e9}\u{1}\""), r#""\u003c&'\u003e\u2028é\u0001\"""#),
            (json!(1e21), "1e+21"),
            (json!(1e-7), "1e-07"),
            (json!(123_456_789_012_345_680.0), "1.2345678901234568e+17"),
            (json!(0.1), "0.1"),
            (json!(0.0001), "0.0001"),
            (json!(-0.0), "-0"),
            (json!(100.0), "100"),
            (json!(1e14), "100000000000000"),
            (json!(1e15), "1e+15"),
        ] {
            assert_eq!(print(&value), text);
        }
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes: Vec<u8>) {
            parse(&bytes);
        }

        #[test]
        fn numbers_are_printed_without_loss(value in prop::num::f64::NORMAL) {
            let mut out = String::new();
            append_number(&mut out, value);
            prop_assert_eq!(out.parse(), Ok(value));
        }
    }
}

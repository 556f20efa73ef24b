//! JSON text into a [`Node`]: RFC 8259 with positions, a depth limit, and duplicate names refused.

use std::collections::HashSet;
use std::sync::Arc;

use super::diagnostic::Position;
use super::node::{Key, MAX_DEPTH, Node, SyntaxError, Value};

/// Parses one JSON text.
pub(crate) fn parse(text: &str) -> Result<Arc<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { text, at: 0, line: 1, column: 1, counted: 0 };
    parser.space();
    let node = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.error("text after the end of the document"));
    }
    Ok(node)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    /// Of the byte at `counted`; counted on from there, so that a document of one line costs no more than others.
    column: u32,
    counted: usize,
}

impl<'t> Parser<'t> {
    fn value(&mut self, depth: usize) -> Result<Arc<Node>, SyntaxError> {
        let position = self.position();
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?.into()),
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?.into()),
            Some(b't') if self.eat("true") => Value::Bool(true),
            Some(b'f') if self.eat("false") => Value::Bool(false),
            Some(b'n') if self.eat("null") => Value::Null,
            Some(_) => return Err(self.error("a value is expected here")),
            None => return Err(self.error("the document is cut short")),
        };
        Ok(Arc::new(Node::new(position, value)))
    }

    fn object(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.descend(depth)?;
        let (mut pairs, mut names) = (Vec::new(), HashSet::new());
        while self.more(b'}', pairs.is_empty())? {
            let position = self.position();
            if self.peek() != Some(b'"') {
                return Err(self.error("a name in double quotes is expected here"));
            }
            let name: Box<str> = self.string()?.into();
            if !names.insert(name.clone()) {
                let message = format!("duplicate key '{}'", name.escape_debug());
                return Err(SyntaxError { position: Some(position), message });
            }
            self.space();
            if !self.eat(":") {
                return Err(self.error("':' is expected here"));
            }
            self.space();
            pairs.push((Key { position, name }, self.value(depth + 1)?));
        }
        Ok(Value::Mapping(pairs))
    }

    fn array(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.descend(depth)?;
        let mut items = Vec::new();
        while self.more(b']', items.is_empty())? {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::Sequence(items))
    }

    /// Steps over an opening bracket.
    fn descend(&mut self, depth: usize) -> Result<(), SyntaxError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.at += 1;
        Ok(())
    }

    /// Whether a collection goes on: steps over its closing bracket, or over the comma before the next item.
    fn more(&mut self, close: u8, first: bool) -> Result<bool, SyntaxError> {
        self.space();
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !first => self.at += 1,
            Some(_) if first => return Ok(true),
            Some(_) => {
                return Err(self.error(format!("',' or '{}' is expected here", char::from(close))));
            }
            None => return Err(self.error("the document is cut short")),
        }
        self.space();
        Ok(true)
    }

    fn number(&mut self) -> Result<&'t str, SyntaxError> {
        let start = self.at;
        self.eat("-");
        if !self.eat("0") {
            self.digits()?;
        }
        if self.eat(".") {
            self.digits()?;
        }
        if self.eat("e") || self.eat("E") {
            let _sign = self.eat("+") || self.eat("-");
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("a digit is expected here")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1;
        let mut output = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(length) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) else {
                return Err(self.error("a string does not end"));
            };
            output.push_str(rest.get(..length).unwrap_or_default());
            self.at += length;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(output);
                }
                Some(b'\\') => output.push(self.escape()?),
                _ => return Err(self.error("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let character = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.error("an escape that JSON does not have")),
        };
        self.at += 2;
        Ok(character)
    }

    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.code_unit()?;
        let code = match first {
            0xd800..=0xdbff => match self.code_unit() {
                Ok(second @ 0xdc00..=0xdfff) => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                _ => return Err(self.error("half a surrogate pair")),
            },
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.error("half a surrogate pair"))
    }

    /// Reads `\uXXXX`.
    fn code_unit(&mut self) -> Result<u32, SyntaxError> {
        let digits = self.eat("\\u").then(|| self.text.get(self.at..self.at + 4)).flatten();
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("four hexadecimal digits are expected here"))?;
        self.at += 4;
        Ok(code)
    }

    fn space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => {
                    self.line = self.line.saturating_add(1);
                    (self.column, self.counted) = (1, self.at + 1);
                }
                b' ' | b'\t' | b'\r' => {}
                _ => return,
            }
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(expected));
        if found {
            self.at += expected.len();
        }
        found
    }

    fn position(&mut self) -> Position {
        let characters = self.text.get(self.counted..self.at).map_or(0, |passed| passed.chars().count());
        self.column = self.column.saturating_add(u32::try_from(characters).unwrap_or(u32::MAX));
        self.counted = self.at;
        Position { line: self.line, column: self.column }
    }

    fn error(&mut self, message: impl Into<String>) -> SyntaxError {
        SyntaxError { position: Some(self.position()), message: format!("not JSON: {}", message.into()) }
    }
}

#[cfg(test)]
mod tests;

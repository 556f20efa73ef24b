//! Escapes and character classes: what stands for a character, or for a set of them.

use super::{Last, Reader, push_byte, text};

impl Reader<'_> {
    pub(super) fn escape(&mut self) -> Result<(), String> {
        let Some(next) = self.peek(1) else { return Err("trailing \\".to_owned()) };
        match next {
            b'Q' => {
                self.at += 2;
                while let Some(byte) = self.peek(0) {
                    if self.rest().starts_with(b"\\E") {
                        self.at += 2;
                        break;
                    }
                    self.at += 1;
                    self.literal(byte);
                }
            }
            b'b' | b'B' | b'A' | b'z' => {
                self.at += 1;
                self.piece(&format!("\\{}", char::from(next)));
            }
            b'C' => {
                self.at += 1;
                self.piece("(?s:.)");
            }
            _ => match self.class_escape()? {
                Some(set) => {
                    self.end_prefix();
                    self.out.push('[');
                    self.out.push_str(&set);
                    self.out.push(']');
                    self.set_last(Last::Piece(1));
                }
                None => {
                    let byte = self.character_escape()?;
                    self.literal(byte);
                }
            },
        }
        Ok(())
    }

    /// `\d`, `\pN` and the like, as the inside of a class; `None` when another escape stands here.
    fn class_escape(&mut self) -> Result<Option<String>, String> {
        let Some(next) = self.peek(1) else { return Err("trailing \\".to_owned()) };
        let set = match next {
            b'd' => "0-9".to_owned(),
            b'D' => "^0-9".to_owned(),
            b's' => "\\t\\n\\x0C\\r ".to_owned(),
            b'S' => "^\\t\\n\\x0C\\r ".to_owned(),
            b'w' => "0-9A-Za-z_".to_owned(),
            b'W' => "^0-9A-Za-z_".to_owned(),
            b'p' | b'P' => return self.unicode_class(next == b'P').map(Some),
            _ => return Ok(None),
        };
        self.at += 2;
        Ok(Some(set))
    }

    /// `\pN`, `\p{Greek}`, `\p{^Greek}`: of such a class, the characters that Latin-1 has.
    fn unicode_class(&mut self, mut negated: bool) -> Result<String, String> {
        let rest = self.rest();
        let (name, length) = match rest.get(2) {
            None => return Err(format!("invalid character class range: {}", text(rest))),
            Some(b'{') => match memchr::memchr(b'}', rest) {
                Some(end) => (rest.get(3..end).unwrap_or_default(), end + 1),
                None => return Err(format!("invalid character class range: {}", text(rest))),
            },
            Some(_) => (rest.get(2..3).unwrap_or_default(), 3),
        };
        let all = text(rest.get(..length).unwrap_or_default());
        let name = match name.strip_prefix(b"^") {
            Some(name) => {
                negated = !negated;
                name
            }
            None => name,
        };
        let known = if name == b"Any" {
            regex::Regex::new("(?s)^.$")
        } else {
            regex::Regex::new(&format!("^\\p{{{}}}$", text(name)))
        };
        let class = known.map_err(|_| format!("invalid character class range: {all}"))?;
        let mut set = String::new();
        for byte in 0..=u8::MAX {
            if class.is_match(char::from(byte).encode_utf8(&mut [0; 4])) != negated {
                push_byte(&mut set, byte);
            }
        }
        self.at += length;
        // A class no Latin-1 character is in: everything but everything.
        Ok(if set.is_empty() { "^\\x00-\\xFF".to_owned() } else { set })
    }

    /// An escape that stands for one character.
    fn character_escape(&mut self) -> Result<u8, String> {
        let rest = self.rest();
        let bad = |length: usize| {
            Err(format!("invalid escape sequence: {}", text(rest.get(..length.min(rest.len())).unwrap_or_default())))
        };
        let Some(&next) = rest.get(1) else { return Err("trailing \\".to_owned()) };
        let octal = |at: usize| rest.get(at).filter(|byte| (b'0'..=b'7').contains(byte)).map(|byte| byte - b'0');
        let (byte, length) = match next {
            b'1'..=b'7' if octal(2).is_none() => return bad(2),
            b'0'..=b'7' => {
                let mut value = u32::from(next - b'0');
                let mut length = 2;
                while let Some(digit) = octal(length).filter(|_| length < 4) {
                    value = value * 8 + u32::from(digit);
                    length += 1;
                }
                match u8::try_from(value) {
                    Ok(byte) => (byte, length),
                    Err(_) => return bad(length),
                }
            }
            b'x' => {
                let hex = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
                if rest.get(2) == Some(&b'{') {
                    let mut value = 0_u32;
                    let mut length = 3;
                    while let Some(digit) = hex(length) {
                        value = value * 16 + digit;
                        length += 1;
                        if value > 0xff {
                            return bad(length);
                        }
                    }
                    match (length > 3 && rest.get(length) == Some(&b'}'), u8::try_from(value)) {
                        (true, Ok(byte)) => (byte, length + 1),
                        _ => return bad(length + 1),
                    }
                } else {
                    match (hex(2), hex(3)) {
                        (Some(high), Some(low)) => (u8::try_from(high * 16 + low).unwrap_or(u8::MAX), 4),
                        _ => return bad(4),
                    }
                }
            }
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'a' => (7, 2),
            b'f' => (12, 2),
            b'v' => (11, 2),
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => (other, 2),
            _ => return bad(2),
        };
        self.at += length;
        Ok(byte)
    }

    /// A bracketed class.
    pub(super) fn class(&mut self) -> Result<(), String> {
        self.end_prefix();
        let start = self.at;
        let missing =
            |reader: &Self| Err(format!("missing ]: {}", text(reader.pattern.get(start..).unwrap_or_default())));
        self.take("[");
        if self.peek(0) == Some(b'^') {
            self.take("^");
        }
        let mut first = true;
        loop {
            match self.peek(0) {
                None => return missing(self),
                Some(b']') if !first => break,
                Some(_) => {}
            }
            first = false;
            if self.rest().starts_with(b"[:")
                && let Some(end) = memchr::memmem::find(self.rest(), b":]")
            {
                self.posix_class(end + 2)?;
                continue;
            }
            if self.peek(0) == Some(b'\\')
                && let Some(set) = self.class_escape()?
            {
                self.out.push('[');
                self.out.push_str(&set);
                self.out.push(']');
                continue;
            }
            let range_start = self.at;
            let low = self.class_character(start)?;
            let high = if self.peek(0) == Some(b'-') && self.peek(1).is_some_and(|next| next != b']') {
                self.at += 1;
                self.class_character(start)?
            } else {
                low
            };
            if high < low {
                let range = text(self.pattern.get(range_start..self.at).unwrap_or_default());
                return Err(format!("invalid character class range: {range}"));
            }
            push_byte(&mut self.out, low);
            if high > low {
                self.out.push('-');
                push_byte(&mut self.out, high);
            }
        }
        self.take("]");
        self.set_last(Last::Piece(1));
        Ok(())
    }

    fn class_character(&mut self, start: usize) -> Result<u8, String> {
        match self.peek(0) {
            None => Err(format!("missing ]: {}", text(self.pattern.get(start..).unwrap_or_default()))),
            Some(b'\\') => self.character_escape(),
            Some(byte) => {
                self.at += 1;
                Ok(byte)
            }
        }
    }

    fn posix_class(&mut self, length: usize) -> Result<(), String> {
        let class = self.rest().get(..length).unwrap_or_default();
        let name = class.get(2..length - 2).unwrap_or_default();
        let known: [&[u8]; 14] = [
            b"alnum", b"alpha", b"ascii", b"blank", b"cntrl", b"digit", b"graph", b"lower", b"print", b"punct",
            b"space", b"upper", b"word", b"xdigit",
        ];
        if !known.contains(&name.strip_prefix(b"^").unwrap_or(name)) {
            return Err(format!("invalid character class range: {}", text(class)));
        }
        let spelling = text(class);
        self.out.push_str(&spelling);
        self.at += length;
        Ok(())
    }
}

//! What matters about a header field to those who judge messages: which one it is, and whether its value may stand there.
//!
//! A field is looked at once, when its bytes pass; the dynamic table keeps this judgement instead of the bytes. So a
//! request whose fields all come from tables costs a few comparisons.

use filters::http::is_token_byte;

/// A field, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// Which one it is.
    pub(super) name: Name,
    /// What its value is.
    pub(super) value: Value,
    /// Bytes of its name.
    pub(super) name_len: u32,
    /// Bytes of its value.
    pub(super) value_len: u32,
}

/// The names that have rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Authority,
    Method,
    Path,
    Scheme,
    Protocol,
    Status,
    /// Begins with a colon and is none of those above.
    OtherPseudo,
    Host,
    ContentLength,
    Te,
    /// `connection` and its kin, which have no place in HTTP/2 (RFC 9113 section 8.2.2).
    ConnectionSpecific,
    /// Empty, upper case, or not a token.
    Invalid,
    /// A regular field with an underscore in its name.
    Underscore,
    Regular,
}

/// What is to know of a value, in light of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// May not stand there.
    Bad,
    /// Nothing special.
    Plain,
    /// `:method: CONNECT`
    Connect,
    /// `:method: OPTIONS`
    Options,
    /// A `:path` that begins with a slash.
    Slash,
    /// The same, with a `#` in it.
    Fragment,
    /// `:path: *`
    Star,
    /// `:scheme` `http` or `https`
    Http,
    /// `content-length`, `:status`
    Number(u64),
}

impl Field {
    /// Judges a field by its bytes.
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        Self { name_len: len(name), ..Self { name: Name::of(name), ..Self::PLAIN }.with_value(value) }
    }

    const PLAIN: Self = Self { name: Name::Regular, value: Value::Plain, name_len: 0, value_len: 0 };

    /// The same field with another value.
    pub(super) fn with_value(self, value: &[u8]) -> Self {
        Self { value: Value::of(self.name, value), value_len: len(value), ..self }
    }

    /// Bytes it takes in a table (RFC 7541 section 4.1).
    pub(super) const fn table_size(&self) -> u32 {
        self.size().saturating_add(32)
    }

    /// Bytes it adds to a head, as Envoy counts them.
    pub(super) const fn size(&self) -> u32 {
        self.name_len.saturating_add(self.value_len)
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":protocol" => Self::Protocol,
            b":status" => Self::Status,
            [b':', ..] => Self::OtherPseudo,
            b"host" => Self::Host,
            b"content-length" => Self::ContentLength,
            b"te" => Self::Te,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Self::ConnectionSpecific
            }
            [] => Self::Invalid,
            _ if !name.iter().all(|byte| is_token_byte(*byte) && !byte.is_ascii_uppercase()) => Self::Invalid,
            _ if name.contains(&b'_') => Self::Underscore,
            _ => Self::Regular,
        }
    }

    /// Whether it begins with a colon.
    pub(super) const fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::Authority
                | Self::Method
                | Self::Path
                | Self::Scheme
                | Self::Protocol
                | Self::Status
                | Self::OtherPseudo
        )
    }
}

impl Value {
    fn of(name: Name, value: &[u8]) -> Self {
        let if_valid = |valid: bool, then: Self| if valid { then } else { Self::Bad };
        match name {
            // Without `@`: nobody says in HTTP/2 who they are by userinfo.
            Name::Authority | Name::Host => {
                if_valid(!value.is_empty() && value.iter().all(|byte| is_authority_byte(*byte)), Self::Plain)
            }
            Name::Method => match value {
                b"CONNECT" => Self::Connect,
                b"OPTIONS" => Self::Options,
                _ => if_valid(!value.is_empty() && value.iter().all(|byte| is_token_byte(*byte)), Self::Plain),
            },
            Name::Path => match value {
                b"*" => Self::Star,
                _ if value.is_empty() || value.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) => Self::Bad,
                [b'/', ..] if value.contains(&b'#') => Self::Fragment,
                [b'/', ..] => Self::Slash,
                _ => Self::Plain,
            },
            Name::Scheme if value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https") => Self::Http,
            Name::Scheme => {
                let rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                if_valid(value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(rest), Self::Plain)
            }
            Name::Protocol => {
                let blank = value.iter().all(|byte| matches!(byte, b' ' | b'\t'));
                if_valid(!blank && value.iter().all(|byte| is_value_byte(*byte)), Self::Plain)
            }
            Name::Status => match value {
                [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] if value != b"101" => number(value),
                _ => Self::Bad,
            },
            Name::ContentLength => number(value),
            Name::Te => if_valid(value.eq_ignore_ascii_case(b"trailers"), Self::Plain),
            Name::OtherPseudo | Name::ConnectionSpecific | Name::Invalid => Self::Bad,
            Name::Underscore | Name::Regular => if_valid(value.iter().all(|byte| is_value_byte(*byte)), Self::Plain),
        }
    }
}

fn number(digits: &[u8]) -> Value {
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
    let number = text.and_then(|text| text.parse().ok()).filter(|number| *number <= i64::MAX as u64);
    number.map_or(Value::Bad, Value::Number)
}

const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

const fn is_authority_byte(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'$' | b'%' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
        | b'-' | b'.' | b':' | b';' | b'=' | b'[' | b']' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_judged_by_name_and_value() {
        for (name, value, expected) in [
            (":authority", "a.test:80", (Name::Authority, Value::Plain)),
            (":authority", "u@a", (Name::Authority, Value::Bad)),
            (":authority", "", (Name::Authority, Value::Bad)),
            ("host", "[::1]", (Name::Host, Value::Plain)),
            ("host", "a b", (Name::Host, Value::Bad)),
            (":method", "CONNECT", (Name::Method, Value::Connect)),
            (":method", "G T", (Name::Method, Value::Bad)),
            (":method", "", (Name::Method, Value::Bad)),
            (":path", "/a?b=\"c\"", (Name::Path, Value::Slash)),
            (":path", "/a#b", (Name::Path, Value::Fragment)),
            (":path", "*", (Name::Path, Value::Star)),
            (":path", "a", (Name::Path, Value::Plain)),
            (":path", "/a b", (Name::Path, Value::Bad)),
            (":path", "/\x01", (Name::Path, Value::Bad)),
            (":scheme", "HTTPS", (Name::Scheme, Value::Http)),
            (":scheme", "coap+tcp", (Name::Scheme, Value::Plain)),
            (":scheme", "1a", (Name::Scheme, Value::Bad)),
            (":protocol", "websocket", (Name::Protocol, Value::Plain)),
            (":protocol", " ", (Name::Protocol, Value::Bad)),
            (":status", "204", (Name::Status, Value::Number(204))),
            (":status", "101", (Name::Status, Value::Bad)),
            (":status", "20", (Name::Status, Value::Bad)),
            (":x", "y", (Name::OtherPseudo, Value::Bad)),
            ("content-length", "12", (Name::ContentLength, Value::Number(12))),
            ("content-length", "+1", (Name::ContentLength, Value::Bad)),
            ("content-length", "9223372036854775808", (Name::ContentLength, Value::Bad)),
            ("te", "Trailers", (Name::Te, Value::Plain)),
            ("te", "gzip", (Name::Te, Value::Bad)),
            ("upgrade", "x", (Name::ConnectionSpecific, Value::Bad)),
            ("X-A", "b", (Name::Invalid, Value::Bad)),
            ("x a", "b", (Name::Invalid, Value::Bad)),
            ("", "b", (Name::Invalid, Value::Bad)),
            ("x_a", "b", (Name::Underscore, Value::Plain)),
            ("x-a", " b\t\u{e9} ", (Name::Regular, Value::Plain)),
            ("x-a", "b\rc", (Name::Regular, Value::Bad)),
            ("x-a", "b\0c", (Name::Regular, Value::Bad)),
        ] {
            let field = Field::new(name.as_bytes(), value.as_bytes());
            assert_eq!((field.name, field.value), expected, "{name}: {value}");
            assert_eq!(field.table_size() as usize, name.len() + value.len() + 32);
        }
    }
}

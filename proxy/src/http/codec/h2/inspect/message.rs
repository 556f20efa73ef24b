//! The rules of a head or trailers as a whole (RFC 9113 section 8): which pseudo-header fields there must be, and once.

use super::field::{Field, Name, Value};

/// What has been seen of a message.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Message {
    seen: u16,
    length: Option<u64>,
    status: u16,
}

const AUTHORITY: u16 = 1;
const METHOD: u16 = 1 << 1;
const PATH: u16 = 1 << 2;
const SCHEME: u16 = 1 << 3;
const PROTOCOL: u16 = 1 << 4;
const STATUS: u16 = 1 << 5;
const HOST: u16 = 1 << 6;
const CONNECT: u16 = 1 << 7;
const OPTIONS: u16 = 1 << 8;
const HTTP: u16 = 1 << 9;
const SLASH: u16 = 1 << 10;
const STAR: u16 = 1 << 11;
/// A regular field was seen: no pseudo-header field may follow.
const REGULAR: u16 = 1 << 12;

/// A field that may not stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidField;

/// A message that lacks something or contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation;

impl Message {
    /// A field of a request's head, or of its trailers.
    pub(super) fn request_field(
        &mut self,
        field: &Field,
        trailer: bool,
        extended_connect: bool,
    ) -> Result<(), InvalidField> {
        self.place(field, trailer)?;
        match field.name {
            Name::Authority => self.once(AUTHORITY)?,
            Name::Method => self.once(METHOD)?,
            Name::Path => self.once(PATH)?,
            Name::Scheme => self.once(SCHEME)?,
            Name::Protocol if extended_connect => self.once(PROTOCOL)?,
            Name::Host => self.once(HOST)?,
            Name::Protocol | Name::Status => return Err(InvalidField),
            Name::ContentLength => self.length(field)?,
            _ => {}
        }
        self.seen |= match field.value {
            Value::Connect => CONNECT,
            Value::Options => OPTIONS,
            Value::Http => HTTP,
            Value::Slash | Value::Fragment => SLASH,
            Value::Star => STAR,
            Value::Bad | Value::Plain | Value::Number(_) => 0,
        };
        Ok(())
    }

    /// A field of a response's head, or of its trailers.
    pub(super) fn response_field(&mut self, field: &Field, trailer: bool) -> Result<(), InvalidField> {
        self.place(field, trailer)?;
        match (field.name, field.value) {
            (Name::Status, Value::Number(status)) => {
                self.once(STATUS)?;
                self.status = u16::try_from(status).unwrap_or(0);
            }
            (Name::ContentLength, Value::Number(length)) => {
                // Some servers say `content-length: 0` with 204, and are let.
                if self.status / 100 == 1 || self.status == 204 && length != 0 {
                    return Err(InvalidField);
                }
                self.length(field)?;
            }
            (name, _) if name.is_pseudo() => return Err(InvalidField),
            _ => {}
        }
        Ok(())
    }

    /// The end of a request's head.
    pub(super) fn request_complete(&self, end_stream: bool) -> Result<(), Violation> {
        let has = |flags| self.seen & flags == flags;
        let complete = if self.seen & CONNECT != 0 && self.seen & PROTOCOL == 0 {
            has(AUTHORITY) && self.seen & (SCHEME | PATH) == 0
        } else {
            has(METHOD | PATH | SCHEME)
                && self.seen & (AUTHORITY | HOST) != 0
                && (self.seen & PROTOCOL == 0 || has(CONNECT | AUTHORITY))
                && (self.seen & (HTTP | SLASH) != HTTP || has(OPTIONS | STAR))
        };
        let empty = end_stream && matches!(self.length, Some(1..)) && self.seen & CONNECT == 0;
        if complete && !empty { Ok(()) } else { Err(Violation) }
    }

    /// The end of a response's head; says whether it is the final one.
    pub(super) const fn response_complete(&self) -> Result<bool, Violation> {
        if self.seen & STATUS == 0 { Err(Violation) } else { Ok(self.status >= 200) }
    }

    /// Whether this is the head of a response to which no body belongs.
    pub(super) const fn has_no_body(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// Whether the message may end with this much body: as much as it said, if it did.
    pub(super) fn may_end_with(&self, body: u64) -> bool {
        self.has_no_body() || self.seen & CONNECT != 0 || self.length.is_none_or(|length| length == body)
    }

    /// Pseudo-header fields come first, and only in heads; no field may be bad in itself.
    fn place(&mut self, field: &Field, trailer: bool) -> Result<(), InvalidField> {
        if field.value == Value::Bad {
            return Err(InvalidField);
        }
        if !field.name.is_pseudo() {
            self.seen |= REGULAR;
        } else if trailer || self.seen & REGULAR != 0 {
            return Err(InvalidField);
        }
        Ok(())
    }

    fn once(&mut self, flag: u16) -> Result<(), InvalidField> {
        if self.seen & flag != 0 {
            return Err(InvalidField);
        }
        self.seen |= flag;
        Ok(())
    }

    const fn length(&mut self, field: &Field) -> Result<(), InvalidField> {
        match (self.length, field.value) {
            (None, Value::Number(length)) => {
                self.length = Some(length);
                Ok(())
            }
            _ => Err(InvalidField),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Judged {
        Fine,
        Invalid,
        Violation,
    }

    fn request(fields: &[(&str, &str)], connect: bool, end: bool) -> Judged {
        let mut message = Message::default();
        for (name, value) in fields {
            if message.request_field(&Field::new(name.as_bytes(), value.as_bytes()), false, connect).is_err() {
                return Judged::Invalid;
            }
        }
        if message.request_complete(end).is_ok() { Judged::Fine } else { Judged::Violation }
    }

    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

    #[test]
    fn requests() {
        use Judged::{Fine, Invalid, Violation};
        let with = |more: &[(&'static str, &'static str)]| [&GET, more].concat();
        for (fields, expected) in [
            (with(&[]), Fine),
            (with(&[("content-length", "0")]), Fine),
            (with(&[("content-length", "1")]), Violation),
            (with(&[("content-length", "0"), ("content-length", "0")]), Invalid),
            (with(&[(":path", "/b")]), Invalid),
            (with(&[("x", "y"), (":x", "y")]), Invalid),
            (with(&[(":status", "200")]), Invalid),
            (with(&[("host", "b")]), Fine),
            (with(&[("host", "b"), ("host", "c")]), Invalid),
            (GET[..3].to_vec(), Violation),
            ([&GET[..3], &[("host", "h")]].concat(), Fine),
            (GET[1..].to_vec(), Violation),
            (vec![GET[0], GET[1], GET[3]], Violation),
            (vec![GET[0], GET[1], (":path", "x"), GET[3]], Violation),
            (vec![GET[0], GET[1], (":path", "*"), GET[3]], Violation),
            (vec![(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]], Fine),
            (vec![GET[0], (":scheme", "x"), (":path", "y"), GET[3]], Fine),
            (vec![(":method", "CONNECT"), GET[3]], Fine),
            (vec![(":method", "CONNECT")], Violation),
            (vec![(":method", "CONNECT"), GET[1], GET[2], GET[3]], Violation),
            (vec![(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]], Fine),
            (vec![(":method", "GET"), (":protocol", "websocket"), GET[1], GET[2], GET[3]], Violation),
        ] {
            assert_eq!(request(&fields, true, true), expected, "{fields:?}");
        }
        let extended = [(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]];
        assert_eq!(request(&extended, false, false), Invalid, "not offered");
    }

    #[test]
    fn responses() {
        for (fields, expected) in [
            (&[(":status", "200"), ("content-length", "3")][..], Ok(Ok(true))),
            (&[(":status", "103")], Ok(Ok(false))),
            (&[(":status", "100"), ("content-length", "0")], Err(InvalidField)),
            (&[(":status", "204"), ("content-length", "0")], Ok(Ok(true))),
            (&[(":status", "204"), ("content-length", "1")], Err(InvalidField)),
            (&[(":status", "200"), (":status", "200")], Err(InvalidField)),
            (&[(":status", "200"), (":path", "/")], Err(InvalidField)),
            (&[("x", "y"), (":status", "200")], Err(InvalidField)),
            (&[(":status", "200"), ("connection", "close")], Err(InvalidField)),
            (&[("x", "y")], Ok(Err(Violation))),
        ] {
            let mut message = Message::default();
            let judged = fields
                .iter()
                .try_for_each(|(name, value)| {
                    message.response_field(&Field::new(name.as_bytes(), value.as_bytes()), false)
                })
                .map(|()| message.response_complete());
            assert_eq!(judged, expected, "{fields:?}");
        }
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        let field = |name: &str| Field::new(name.as_bytes(), b"/");
        assert_eq!(Message::default().request_field(&field(":path"), true, false), Err(InvalidField));
        assert_eq!(Message::default().request_field(&field("x-t"), true, false), Ok(()));
        assert_eq!(Message::default().response_field(&field("x-t"), true), Ok(()));
    }
}

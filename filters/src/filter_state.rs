//! Filter state: objects that one filter leaves, by name, for others, for load balancing and for logs.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::http::Headers;

/// The objects of a connection. A handful at most: a scan finds them.
#[derive(Debug, Default)]
pub struct FilterState {
    objects: Vec<(Box<str>, Object)>,
}

/// What is kept under a name.
#[derive(Debug, Clone)]
pub enum Object {
    /// A text.
    Text(Bytes),
    /// A text by which hash policies may choose a host.
    Hashable(Bytes),
    /// The fields of a response or its trailers, with the status first where there is one.
    Fields(Box<[(Bytes, Bytes)]>),
}

impl FilterState {
    /// Keeps `object` under `key`, in the place of what was there.
    pub fn set(&mut self, key: &str, object: Object) {
        match self.objects.iter_mut().find(|(name, _)| &**name == key) {
            Some((_, kept)) => *kept = object,
            None => self.objects.push((key.into(), object)),
        }
    }

    /// What is kept under `key`.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Object> {
        self.objects.iter().find(|(name, _)| &**name == key).map(|(_, object)| object)
    }
}

impl Object {
    /// Fields to keep; a response's with its status.
    #[must_use]
    pub fn fields(status: Option<u16>, headers: &Headers) -> Self {
        let status = status.map(|status| (Bytes::from_static(b":status"), status.to_string().into()));
        let fields = headers
            .iter()
            .map(|header| (Bytes::copy_from_slice(header.name.as_bytes()), Bytes::copy_from_slice(&header.value)));
        Self::Fields(status.into_iter().chain(fields).collect())
    }

    /// What is hashed of it, if it may be.
    #[must_use]
    pub fn hashed(&self) -> Option<&[u8]> {
        match self {
            Self::Hashable(text) => Some(text),
            Self::Text(_) | Self::Fields(_) => None,
        }
    }

    /// Its text, if it has one (`PLAIN`).
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) | Self::Hashable(text) => Some(text),
            Self::Fields(_) => None,
        }
    }

    /// Its message as JSON (`TYPED`).
    #[must_use]
    pub fn typed(&self) -> Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Text(bytes) | Self::Hashable(bytes) => Value::String(text(bytes)),
            Self::Fields(fields) => {
                let field = |(name, value): &(Bytes, Bytes)| json!({"key": text(name), "value": text(value)});
                json!({"headers": fields.iter().map(field).collect::<Vec<_>>()})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeaderName;

    #[test]
    fn an_object_takes_the_place_of_the_one_before() {
        let mut state = FilterState::default();
        assert!(state.find("a").is_none());
        state.set("a", Object::Text("1".into()));
        state.set("b", Object::Hashable("2".into()));
        state.set("a", Object::Text("3".into()));
        assert_eq!(state.find("a").and_then(Object::text), Some(&b"3"[..]));
        assert_eq!(state.find("a").and_then(Object::hashed), None);
        assert_eq!(state.find("b").and_then(Object::hashed), Some(&b"2"[..]));
    }

    #[test]
    fn fields_are_shown_in_their_order() {
        let mut headers = Headers::default();
        headers.append(HeaderName::parse(b"x-a").unwrap(), "b");
        let object = Object::fields(Some(200), &headers);
        assert_eq!(
            object.typed().to_string(),
            r#"{"headers":[{"key":":status","value":"200"},{"key":"x-a","value":"b"}]}"#
        );
        assert_eq!(object.text(), None);
    }
}

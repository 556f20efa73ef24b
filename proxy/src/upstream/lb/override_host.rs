//! Which hosts a request itself asks for, where its cluster lets it (the policy `override_host`).
//!
//! The addresses are read once per request, and each is good for one try: the next try goes to the next one that the
//! cluster has. A host that was asked for is used whatever its health, as in Envoy: who asks for it is taken to know. When
//! none is left, the fallback policy chooses.

use std::cell::{Cell, OnceCell};

use filters::http::RequestHead;
use filters::stream_info::Metadata;
use serde_json::Value;

use crate::config::cluster::{HostSource, MetadataPath, MetadataStep, OverrideHost};

/// A request that may ask for hosts: its parts, and what has been made of them.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// Its head as it goes upstream.
    pub head: &'a RequestHead,
    /// Its dynamic metadata.
    pub metadata: Option<&'a Metadata>,
    /// What it asks for, once a cluster wanted to know.
    pub state: &'a OnceCell<AskedHosts>,
}

/// The addresses that a request asks for, and how many of them were used up.
#[derive(Debug, Default)]
pub struct AskedHosts {
    addresses: Vec<Box<str>>,
    used: Cell<usize>,
}

impl Asking<'_> {
    /// The addresses that are left, one for each call; none of them is used twice.
    pub fn next<'s>(&'s self, policy: &OverrideHost) -> Option<&'s str> {
        let asked = self.state.get_or_init(|| AskedHosts {
            addresses: policy.sources.iter().flat_map(|source| self.addresses(source)).collect(),
            used: Cell::new(0),
        });
        let next = asked.addresses.get(asked.used.get())?;
        asked.used.set(asked.used.get() + 1);
        Some(next)
    }

    fn addresses(&self, source: &HostSource) -> Vec<Box<str>> {
        let text = match source {
            HostSource::Header(key) => self.head.value(key).and_then(|value| std::str::from_utf8(value).ok()),
            HostSource::Metadata(path) => self.metadata.and_then(|metadata| path.text(metadata)),
        };
        let words = text.unwrap_or_default().split(',').map(str::trim_ascii).filter(|word| !word.is_empty());
        words.map(Into::into).collect()
    }
}

impl MetadataPath {
    /// The text that stands there.
    fn text<'m>(&self, metadata: &'m Metadata) -> Option<&'m str> {
        let found = self.path.iter().try_fold(metadata.get(&*self.key)?, |value, step| match step {
            MetadataStep::Field(name) => value.get(&**name),
            MetadataStep::Item(index) => value.get(*index),
        });
        found?.as_str()
    }

    /// Writes a text there. Fields of the name space that it does not name stay as they are.
    pub fn set(&self, metadata: &mut Metadata, text: &str) {
        let mut names = self.path.iter().filter_map(|step| match step {
            MetadataStep::Field(name) => Some(String::from(&**name)),
            MetadataStep::Item(_) => None,
        });
        let Some(first) = names.next() else { return };
        let wrap = |value, name| Value::Object([(name, value)].into_iter().collect());
        let value = names.rev().fold(Value::from(text), wrap);
        let space = metadata.entry(&*self.key).or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(fields) = space {
            fields.insert(first, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use filters::http::{HeaderKey, HeaderName};
    use serde_json::json;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in headers {
            head.headers.append(HeaderName::parse(name.as_bytes()).unwrap(), value.as_bytes().to_vec());
        }
        head
    }

    fn path(key: &str, names: &[&str]) -> MetadataPath {
        let step = |name: &&str| name.parse().map_or_else(|_| MetadataStep::Field((*name).into()), MetadataStep::Item);
        MetadataPath { key: key.into(), path: names.iter().map(step).collect() }
    }

    fn asked(lines: &[(&str, &str)], metadata: Value) -> Vec<String> {
        let policy = OverrideHost {
            sources: Box::new([
                HostSource::Metadata(path("a", &["b", "c"])),
                HostSource::Header(HeaderKey::parse("x-host").unwrap()),
            ]),
            selected_host_key: None,
        };
        let head = request(lines);
        let state = OnceCell::new();
        let asking = Asking { head: &head, metadata: metadata.as_object(), state: &state };
        std::iter::from_fn(|| asking.next(&policy).map(str::to_owned)).collect()
    }

    #[test]
    fn addresses_are_asked_for_in_the_order_of_the_sources() {
        let none = json!({});
        assert!(asked(&[], none.clone()).is_empty());
        assert!(asked(&[("x-host", " , ,")], none.clone()).is_empty());
        assert_eq!(asked(&[("x-host", "1.1.1.1:1, 2.2.2.2:2,,/x")], none.clone()), ["1.1.1.1:1", "2.2.2.2:2", "/x"]);
        assert_eq!(asked(&[("x-host", "a:1"), ("x-host", "b:1")], none), ["a:1"], "the first value counts");
        assert_eq!(asked(&[("x-host", "h:1")], json!({"a": {"b": {"c": "m:1,m:2"}}})), ["m:1", "m:2", "h:1"]);
        assert_eq!(asked(&[("x-host", "h:1")], json!({"a": {"b": {"c": ["m:1"]}}})), ["h:1"], "a list is no text");
        let listed = path("a", &["b", "1"]);
        let metadata = json!({"a": {"b": ["x", "y"]}});
        assert_eq!(listed.text(metadata.as_object().unwrap()), Some("y"));
    }

    #[test]
    fn what_was_chosen_is_noted_beside_what_is_there() {
        let mut metadata = json!({"a": {"x": 1, "b": {"old": 1}}}).as_object().unwrap().clone();
        path("a", &["b", "c"]).set(&mut metadata, "t");
        path("n", &["k"]).set(&mut metadata, "u");
        assert_eq!(Value::Object(metadata), json!({"a": {"x": 1, "b": {"c": "t"}}, "n": {"k": "u"}}));
    }
}

//! What a route says about the hosts its requests may go to: `metadata_match`, the name space `envoy.lb`.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Metadata as MetadataProto;
use envoy_types::pb::google::protobuf::Struct;
use serde_json::Value;

use crate::config::endpoint::struct_json;

/// Keys and the values that a host's metadata has to have for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataMatch {
    criteria: BTreeMap<Box<str>, Value>,
    /// [`subset_name`] of the criteria: looked up with every request.
    subset: Box<str>,
    /// [`selector_name`] of their keys.
    selector: Box<str>,
}

/// The name space of metadata that load balancing reads.
const NAME_SPACE: &str = "envoy.lb";

impl MetadataMatch {
    /// These fields and values.
    #[must_use]
    pub fn new(fields: Struct) -> Self {
        let Value::Object(fields) = struct_json(fields) else { return Self::default() };
        Self::from_criteria(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The part of `metadata` that is about load balancing; `None` when there is none.
    #[must_use]
    pub fn parse(metadata: Option<MetadataProto>) -> Option<Self> {
        metadata?.filter_metadata.remove(NAME_SPACE).map(Self::new)
    }

    fn from_criteria(criteria: BTreeMap<Box<str>, Value>) -> Self {
        let subset = subset_name(criteria.iter().map(|(key, value)| (&**key, value)));
        let selector = selector_name(criteria.keys().map(|key| &**key));
        Self { criteria, subset, selector }
    }

    /// Keys and values, in order of keys.
    pub fn criteria(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.criteria.iter().map(|(key, value)| (&**key, value))
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.criteria.get(key)
    }

    /// Both, `other` winning where both say something.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut criteria = self.criteria.clone();
        criteria.extend(other.criteria.clone());
        Self::from_criteria(criteria)
    }

    /// The same with the fields of a JSON object on top; what is no object has no fields.
    #[must_use]
    pub fn overridden(&self, fields: &Value) -> Self {
        let mut criteria = self.criteria.clone();
        let fields = fields.as_object().into_iter().flatten();
        criteria.extend(fields.map(|(key, value)| (key.as_str().into(), value.clone())));
        Self::from_criteria(criteria)
    }

    /// Those criteria whose key `keep` lets through.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.criteria.iter().filter(|(key, _)| keep(key));
        Self::from_criteria(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The name of the subset of hosts it describes.
    #[must_use]
    pub fn subset_name(&self) -> &str {
        &self.subset
    }

    /// The name of its keys.
    #[must_use]
    pub fn selector_name(&self) -> &str {
        &self.selector
    }

    /// Whether a host's metadata (all name spaces) has all of it in that of load balancing; with `list_as_any` one value of
    /// a list will do.
    #[must_use]
    pub fn matches(&self, metadata: Option<&serde_json::Map<String, Value>>, list_as_any: bool) -> bool {
        self.matches_in(NAME_SPACE, metadata, list_as_any)
    }

    /// The same in another name space.
    #[must_use]
    pub fn matches_in(
        &self,
        name_space: &str,
        metadata: Option<&serde_json::Map<String, Value>>,
        list_as_any: bool,
    ) -> bool {
        if self.criteria.is_empty() {
            return true;
        }
        let Some(fields) = metadata.and_then(|metadata| metadata.get(name_space)?.as_object()) else { return false };
        self.criteria.iter().all(|(key, wanted)| match fields.get(&**key) {
            Some(Value::Array(values)) if list_as_any => values.contains(wanted),
            value => value == Some(wanted),
        })
    }
}

/// The name of a subset by its keys and values, in order of keys; no two have the same.
#[must_use]
pub fn subset_name<'a>(criteria: impl Iterator<Item = (&'a str, &'a Value)>) -> Box<str> {
    let mut name = String::new();
    for (key, value) in criteria {
        name.push_str(&format!("{key:?}={value};"));
    }
    name.into()
}

/// The name of a set of keys, in order.
#[must_use]
pub fn selector_name<'a>(keys: impl Iterator<Item = &'a str>) -> Box<str> {
    let mut name = String::new();
    for key in keys {
        name.push_str(&format!("{key:?};"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> MetadataMatch {
        MetadataMatch::default().overridden(&value)
    }

    #[test]
    fn a_subset_is_named_by_keys_and_values_whatever_their_order() {
        let name = of(json!({"b": "2", "a": 1.0}));
        assert_eq!(name.subset_name(), of(json!({"a": 1.0, "b": "2"})).subset_name());
        assert_ne!(name.subset_name(), of(json!({"a": 1.0, "b": 2.0})).subset_name(), "text is no number");
        assert_ne!(of(json!({"a": "x;\"b\"=1"})).subset_name(), of(json!({"a": "x", "b": 1})).subset_name());
        assert_eq!(name.selector_name(), of(json!({"a": 0, "b": 0})).selector_name());
    }

    #[test]
    fn the_weighted_clusters_word_wins_over_the_routes() {
        let merged = of(json!({"a": "1", "b": "1"})).merged(&of(json!({"b": "2", "c": "2"})));
        assert_eq!(merged, of(json!({"a": "1", "b": "2", "c": "2"})));
        assert_eq!(merged.filtered(|key| key != "b"), of(json!({"a": "1", "c": "2"})));
    }

    #[test]
    fn a_host_has_to_have_every_key() {
        let Value::Object(host) = json!({"envoy.lb": {"a": "1", "l": ["x", "y"]}, "other": {"b": "1"}}) else {
            unreachable!()
        };
        for (wanted, list_as_any, expected) in [
            (json!({}), false, true),
            (json!({"a": "1"}), false, true),
            (json!({"a": "2"}), false, false),
            (json!({"b": "1"}), false, false),
            (json!({"l": "x"}), false, false),
            (json!({"l": "x"}), true, true),
            (json!({"a": "1", "l": "z"}), true, false),
            (json!({"l": ["x", "y"]}), false, true),
        ] {
            assert_eq!(of(wanted.clone()).matches(Some(&host), list_as_any), expected, "{wanted}");
        }
        assert!(!of(json!({"a": "1"})).matches(None, true));
    }
}

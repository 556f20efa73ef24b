//! What there is to serve, with versions.

use std::collections::BTreeMap;

use crate::types::{RESOURCE_TYPES, Resource};

/// All resources, by type and name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    types: BTreeMap<String, Kind>,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    version: u64,
    resources: BTreeMap<String, Resource>,
}

impl Snapshot {
    /// Replaces all resources of a type. Unchanged ones keep their version.
    pub fn set(&mut self, type_url: &str, resources: Vec<Resource>) {
        let kind = self.types.entry(type_url.to_owned()).or_default();
        let old = std::mem::take(&mut kind.resources);
        kind.version += 1;
        for resource in resources {
            kind.put(resource, &old);
        }
    }

    /// Adds or replaces one resource.
    pub fn put(&mut self, type_url: &str, resource: Resource) {
        let kind = self.types.entry(type_url.to_owned()).or_default();
        let old = kind.resources.remove_entry(&resource.name).into_iter().collect();
        kind.version += 1;
        kind.put(resource, &old);
    }

    /// Removes one resource.
    pub fn remove(&mut self, type_url: &str, name: &str) {
        let kind = self.types.entry(type_url.to_owned()).or_default();
        kind.version += 1;
        kind.resources.remove(name);
    }

    /// Whether the type has ever been set (to nothing, perhaps).
    pub fn knows(&self, type_url: &str) -> bool {
        self.types.contains_key(type_url)
    }

    /// The version of a type.
    pub fn version(&self, type_url: &str) -> String {
        self.types.get(type_url).map_or(0, |kind| kind.version).to_string()
    }

    /// One resource.
    pub fn resource(&self, type_url: &str, name: &str) -> Option<&Resource> {
        self.types.get(type_url)?.resources.get(name)
    }

    /// All resources of a type, by name.
    pub fn resources(&self, type_url: &str) -> impl Iterator<Item = &Resource> {
        self.types.get(type_url).into_iter().flat_map(|kind| kind.resources.values())
    }

    /// The position of a type in an orderly push: clusters before endpoints before listeners before routes.
    pub(super) fn rank(type_url: &str) -> usize {
        RESOURCE_TYPES.iter().position(|row| row.type_url == type_url).unwrap_or(RESOURCE_TYPES.len())
    }
}

impl Kind {
    fn put(&mut self, mut resource: Resource, old: &BTreeMap<String, Resource>) {
        let unchanged = old.get(&resource.name).filter(|old| old.body == resource.body && old.ttl == resource.ttl);
        resource.version = unchanged.map_or_else(|| self.version.to_string(), |old| old.version.clone());
        self.resources.insert(resource.name.clone(), resource);
    }
}

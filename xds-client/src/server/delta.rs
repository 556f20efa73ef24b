//! The server's side of a delta stream.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;

use super::snapshot::Snapshot;
use super::wire::wrapper;
use crate::types::Resource;

/// What one client was told on one stream.
#[derive(Debug)]
pub struct DeltaStream {
    identifier: String,
    types: BTreeMap<String, Told>,
    next_nonce: u64,
}

#[derive(Debug, Default)]
struct Told {
    wildcard: bool,
    names: BTreeSet<String>,
    /// The resources the client has, and their versions.
    known: BTreeMap<String, String>,
    /// Names asked for since the last response: each must be answered, with the resource or its absence.
    asked: BTreeSet<String>,
    /// A first response is due even if it is empty.
    introduction: bool,
}

impl DeltaStream {
    /// A stream on which nothing has been said.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), types: BTreeMap::new(), next_nonce: 0 }
    }

    /// A request arrived: the response that is due now, if any.
    pub fn on_request(
        &mut self,
        request: &discovery::DeltaDiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Option<discovery::DeltaDiscoveryResponse> {
        let first = !self.types.contains_key(&request.type_url);
        let told = self.types.entry(request.type_url.clone()).or_default();
        if first {
            told.wildcard = request.resource_names_subscribe.is_empty();
            told.known = request.initial_resource_versions.clone().into_iter().collect();
            told.introduction = told.known.is_empty();
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                told.wildcard = false;
            } else {
                told.names.remove(name);
            }
        }
        for name in &request.resource_names_subscribe {
            if name == "*" {
                told.wildcard = true;
                continue;
            }
            told.names.insert(name.clone());
            if !first {
                // Asking again is asking to be sent it again.
                told.known.remove(name);
            }
            if !told.known.contains_key(name) {
                told.asked.insert(name.clone());
            }
        }
        let (wildcard, names) = (told.wildcard, &told.names);
        told.known.retain(|name, _| wildcard || names.contains(name));
        told.asked.retain(|name| names.contains(name));
        self.due(&request.type_url, snapshot)
    }

    /// The snapshot changed: the responses that are due now.
    pub fn on_change(&mut self, snapshot: &Snapshot) -> Vec<discovery::DeltaDiscoveryResponse> {
        let mut types: Vec<String> = self.types.keys().cloned().collect();
        types.sort_by_key(|type_url| Snapshot::rank(type_url));
        types.iter().filter_map(|type_url| self.due(type_url, snapshot)).collect()
    }

    /// A response that confirms a resource without repeating it.
    pub fn heartbeat(
        &mut self,
        type_url: &str,
        name: &str,
        snapshot: &Snapshot,
    ) -> Option<discovery::DeltaDiscoveryResponse> {
        let resource = snapshot.resource(type_url, name)?;
        self.types.get(type_url)?.known.get(name)?;
        let confirmed = Resource { body: None, ..resource.clone() };
        let resources = vec![wrapper(type_url, &confirmed)];
        Some(self.response(type_url, snapshot, resources, Vec::new()))
    }

    fn due(&mut self, type_url: &str, snapshot: &Snapshot) -> Option<discovery::DeltaDiscoveryResponse> {
        let told = self.types.get_mut(type_url)?;
        let changed: Vec<&Resource> = snapshot
            .resources(type_url)
            .filter(|resource| told.wildcard || told.names.contains(&resource.name))
            .filter(|resource| told.known.get(&resource.name) != Some(&resource.version))
            .collect();
        let mut removed: BTreeSet<String> = std::mem::take(&mut told.asked);
        removed.extend(told.known.keys().cloned());
        removed.retain(|name| snapshot.resource(type_url, name).is_none());
        let introduction = told.introduction && told.wildcard && snapshot.knows(type_url);
        if changed.is_empty() && removed.is_empty() && !introduction {
            return None;
        }
        told.introduction = false;
        for name in &removed {
            told.known.remove(name);
        }
        for resource in &changed {
            told.known.insert(resource.name.clone(), resource.version.clone());
        }
        let resources = changed.into_iter().map(|resource| wrapper(type_url, resource)).collect();
        Some(self.response(type_url, snapshot, resources, removed.into_iter().collect()))
    }

    fn response(
        &mut self,
        type_url: &str,
        snapshot: &Snapshot,
        resources: Vec<discovery::Resource>,
        removed_resources: Vec<String>,
    ) -> discovery::DeltaDiscoveryResponse {
        self.next_nonce += 1;
        discovery::DeltaDiscoveryResponse {
            system_version_info: snapshot.version(type_url),
            resources,
            type_url: type_url.to_owned(),
            removed_resources,
            removed_resource_names: Vec::new(),
            nonce: format!("n{}", self.next_nonce),
            control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
            resource_errors: Vec::new(),
        }
    }
}

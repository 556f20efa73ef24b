//! The server's side of a state-of-the-world stream.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;

use super::snapshot::Snapshot;
use super::wire::{any, wrapped_any};
use crate::types::Resource;

/// What one client was told on one stream.
#[derive(Debug)]
pub struct SotwStream {
    identifier: String,
    types: BTreeMap<String, Told>,
    next_nonce: u64,
}

#[derive(Debug, Default)]
struct Told {
    wildcard: bool,
    names: BTreeSet<String>,
    /// A list with names has been seen: an empty one now means nothing, not everything.
    named_before: bool,
    /// Last nonce sent, and the version it came with.
    nonce: String,
    version: String,
    /// It has been answered.
    answered: bool,
    /// The resources sent and their versions; `None` before the first response.
    known: Option<BTreeMap<String, String>>,
}

impl SotwStream {
    /// A stream on which nothing has been said.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), types: BTreeMap::new(), next_nonce: 0 }
    }

    /// A request arrived: the response that is due now, if any.
    pub fn on_request(
        &mut self,
        request: &discovery::DiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Option<discovery::DiscoveryResponse> {
        let type_url = request.type_url.as_str();
        let told = self.types.entry(type_url.to_owned()).or_default();
        if !request.response_nonce.is_empty() && request.response_nonce != told.nonce {
            // It was sent before our last response was seen; the answer to that one will say the same and more.
            return None;
        }
        let names: BTreeSet<String> = request.resource_names.iter().filter(|name| *name != "*").cloned().collect();
        told.named_before |= !request.resource_names.is_empty();
        let star = names.len() < request.resource_names.len();
        let had_everything =
            std::mem::replace(&mut told.wildcard, star || (request.resource_names.is_empty() && !told.named_before));
        let more = names.iter().any(|name| !told.names.contains(name)) || (told.wildcard && !had_everything);
        let fewer = told.names.iter().any(|name| !names.contains(name)) || (had_everything && !told.wildcard);
        told.names = names;
        if let Some(known) = &mut told.known {
            known.retain(|name, _| told.wildcard || told.names.contains(name));
        }
        // The same question again after its answer: the client has lost the resources (a cluster that warms anew).
        let again = told.answered && !more && !fewer && !told.wildcard && request.error_detail.is_none();
        told.answered = true;
        // Or it says outright that it has something else than it was sent.
        let lost = !request.response_nonce.is_empty()
            && request.error_detail.is_none()
            && request.version_info != told.version;
        if lost || (again && !told.names.is_empty()) {
            told.known = None;
        }
        // A client that comes back with our version has everything of a type it takes as a whole.
        if told.known.is_none()
            && told.wildcard
            && snapshot.knows(type_url)
            && request.version_info == snapshot.version(type_url)
        {
            told.known = Some(current(told, type_url, snapshot));
        }
        self.due(type_url, snapshot)
    }

    /// The snapshot changed: the responses that are due now.
    pub fn on_change(&mut self, snapshot: &Snapshot) -> Vec<discovery::DiscoveryResponse> {
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
    ) -> Option<discovery::DiscoveryResponse> {
        let resource = snapshot.resource(type_url, name)?;
        self.types.get(type_url)?.known.as_ref()?.get(name)?;
        let version = snapshot.version(type_url);
        let confirmed = Resource { body: None, version: version.clone(), ..resource.clone() };
        let wrapped = wrapped_any(type_url, &confirmed);
        Some(self.response(type_url, version, vec![wrapped]))
    }

    fn due(&mut self, type_url: &str, snapshot: &Snapshot) -> Option<discovery::DiscoveryResponse> {
        let told = self.types.get_mut(type_url)?;
        let current = current(told, type_url, snapshot);
        let due = match &told.known {
            // As a whole: whatever differs, be it only that there is nothing.
            known if told.wildcard => snapshot.knows(type_url) && known.as_ref() != Some(&current),
            // By name: there is no way to tell an absence.
            None => !current.is_empty(),
            Some(known) => current.iter().any(|(name, version)| known.get(name) != Some(version)),
        };
        if !due {
            return None;
        }
        let resources = current
            .keys()
            .filter_map(|name| snapshot.resource(type_url, name))
            .map(|resource| match resource.ttl {
                None => any(type_url, resource),
                Some(_) => wrapped_any(type_url, resource),
            })
            .collect();
        told.known = Some(current);
        Some(self.response(type_url, snapshot.version(type_url), resources))
    }

    fn response(&mut self, type_url: &str, version: String, resources: Vec<Any>) -> discovery::DiscoveryResponse {
        self.next_nonce += 1;
        let nonce = format!("n{}", self.next_nonce);
        if let Some(told) = self.types.get_mut(type_url) {
            told.nonce.clone_from(&nonce);
            told.version.clone_from(&version);
            told.answered = false;
        }
        discovery::DiscoveryResponse {
            version_info: version,
            resources,
            canary: false,
            type_url: type_url.to_owned(),
            nonce,
            control_plane: Some(ControlPlane { identifier: self.identifier.clone() }),
            resource_errors: Vec::new(),
        }
    }
}

fn current(told: &Told, type_url: &str, snapshot: &Snapshot) -> BTreeMap<String, String> {
    snapshot
        .resources(type_url)
        .filter(|resource| told.wildcard || told.names.contains(&resource.name))
        .map(|resource| (resource.name.clone(), resource.version.clone()))
        .collect()
}

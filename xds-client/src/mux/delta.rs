//! The delta variant: requests carry differences, responses carry changed and removed resources, and versions belong to
//! resources.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;

use super::ack::{Answer, Record};
use super::sotw::{WILDCARD, status};
use super::{Incoming, duration};
use crate::subscription::{Released, Watches};
use crate::types::Resource;

/// What one type has to remember.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Accepted resources and their versions; survives the stream, and spares the server a repetition on the next.
    versions: HashMap<String, String>,
    /// Last accepted `system_version_info`.
    system_version: String,
    /// Whether this stream has seen a request of the type.
    started: bool,
    /// What the server takes us to be subscribed to on this stream (`*` for everything).
    on_wire: BTreeSet<String>,
    /// Names to subscribe to with the next request. Naming one again makes the server send it again.
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
}

impl Delta {
    pub(crate) fn version(&self) -> &str {
        &self.system_version
    }

    pub(crate) fn subscribed(&mut self, names: &[String]) {
        // Until the first request of the stream the watches themselves are the list.
        if !self.started {
            return;
        }
        for name in names {
            // Asking for a name again makes the server send it again.
            if name != WILDCARD {
                self.unsubscribe.remove(name);
            }
            self.subscribe.insert(name.clone());
        }
    }

    pub(crate) fn released(&mut self, released: &Released, watches: &Watches) {
        let wildcard = released.wildcard.then_some(WILDCARD);
        if self.started {
            for name in released.names.iter().map(String::as_str).chain(wildcard) {
                self.subscribe.remove(name);
                if self.on_wire.contains(name) {
                    self.unsubscribe.insert(name.to_owned());
                }
            }
        }
        if released.wildcard {
            self.versions.retain(|name, _| watches.wants(name));
        } else {
            for name in released.names.iter().filter(|name| !watches.wants(name)) {
                self.versions.remove(name);
            }
        }
    }

    pub(crate) fn accepted(&mut self, record: &Record, overtaken: bool, watches: &Watches) {
        for resource in &record.resources {
            // What was released in the meantime is no longer known.
            if watches.wants(&resource.name) || resource.aliases.iter().any(|alias| watches.wants(alias)) {
                self.versions.insert(resource.name.clone(), resource.version.clone());
            }
        }
        for name in &record.removed {
            self.versions.remove(name);
        }
        if !overtaken {
            self.system_version.clone_from(&record.version);
        }
    }

    pub(crate) fn expired(&mut self, name: &str) {
        self.versions.remove(name);
    }

    pub(crate) fn stream_closed(&mut self) {
        self.started = false;
        self.on_wire.clear();
        self.subscribe.clear();
        self.unsubscribe.clear();
    }

    /// Whether there are changes of subscription to tell.
    pub(crate) fn has_changes(&self) -> bool {
        !self.started || !self.subscribe.is_empty() || !self.unsubscribe.is_empty()
    }

    pub(crate) fn request(
        &mut self,
        type_url: &str,
        watches: &Watches,
        answer: Option<Answer>,
    ) -> discovery::DeltaDiscoveryRequest {
        let mut request = discovery::DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() };
        if let Some(Answer { nonce, error }) = answer {
            request.response_nonce = nonce;
            request.error_detail = error.map(status);
        }
        if self.started {
            let mut subscribe = std::mem::take(&mut self.subscribe);
            // Together they would not tell what is to be sent again: what was given up goes first.
            if !self.unsubscribe.is_empty() && subscribe.remove(WILDCARD) {
                self.subscribe.insert(WILDCARD.to_owned());
            }
            request.resource_names_subscribe = subscribe.into_iter().collect();
            request.resource_names_unsubscribe = std::mem::take(&mut self.unsubscribe).into_iter().collect();
            for name in &request.resource_names_unsubscribe {
                self.on_wire.remove(name);
            }
        } else {
            self.started = true;
            request.initial_resource_versions.clone_from(&self.versions);
            // Subscribing to nothing in the first request of a type means everything; beside names it takes a `*`.
            if watches.wildcard() && watches.has_names() {
                request.resource_names_subscribe.push(WILDCARD.to_owned());
            }
            request.resource_names_subscribe.extend(watches.names().cloned());
            if watches.wildcard() {
                self.on_wire.insert(WILDCARD.to_owned());
            }
        }
        self.on_wire.extend(request.resource_names_subscribe.iter().cloned());
        request
    }

    /// Whether a bodiless resource of this version confirms what we have.
    pub(crate) fn is_current(&self, name: &str, version: &str) -> bool {
        self.versions.get(name).is_some_and(|known| version.is_empty() || known == version)
    }
}

/// Takes a response apart; an error is the detail of the NACK.
pub(crate) fn parse(type_url: &str, response: discovery::DeltaDiscoveryResponse) -> (String, Result<Incoming, String>) {
    let discovery::DeltaDiscoveryResponse {
        system_version_info,
        resources,
        type_url: _,
        removed_resources,
        removed_resource_names,
        nonce,
        control_plane,
        resource_errors,
    } = response;
    let mut removed = removed_resources;
    removed.extend(removed_resource_names.into_iter().map(|locator| locator.name));
    let mut parsed = Vec::with_capacity(resources.len());
    for wrapper in resources {
        match resource(type_url, wrapper) {
            Ok(resource) => parsed.push(resource),
            Err(detail) => return (nonce, Err(detail)),
        }
    }
    if let Err(detail) = check_duplicates(&parsed, &removed) {
        return (nonce, Err(detail));
    }
    let incoming = Incoming {
        version: system_version_info,
        resources: parsed,
        removed,
        full_state: false,
        control_plane: control_plane.map(|control_plane| control_plane.identifier),
        errors: resource_errors,
    };
    (nonce, Ok(incoming))
}

fn resource(type_url: &str, wrapper: discovery::Resource) -> Result<Resource, String> {
    let discovery::Resource {
        name,
        resource_name: locator,
        aliases,
        version,
        resource: inner,
        ttl,
        cache_control: _,
        metadata: _,
    } = wrapper;
    let name = if name.is_empty() { locator.map(|locator| locator.name).unwrap_or_default() } else { name };
    let body = match inner {
        Some(inner) if inner.type_url != type_url => {
            return Err(format!(
                "type URL {} embedded in an individual Any does not match the message-wide type URL {type_url} in \
                 DeltaDiscoveryResponse",
                inner.type_url
            ));
        }
        Some(inner) => Some(Bytes::from(inner.value)),
        None => None,
    };
    let ttl = duration(ttl).map_err(|error| format!("{name}: ttl: {error}"))?;
    Ok(Resource { name, aliases, version, body, ttl })
}

fn check_duplicates(resources: &[Resource], removed: &[String]) -> Result<(), String> {
    let mut seen = HashSet::with_capacity(resources.len() + removed.len());
    for resource in resources {
        if !seen.insert(resource.name.as_str()) {
            return Err(format!("duplicate name {} found among added/updated resources", resource.name));
        }
    }
    for name in removed {
        if !seen.insert(name) {
            return Err(format!("duplicate name {name} found in the union of added+removed resources"));
        }
    }
    Ok(())
}

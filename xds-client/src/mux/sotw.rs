//! The state-of-the-world variant: every request repeats all names, the last accepted version and the last answered
//! nonce; every response of a wildcard type lists everything there is.

use std::collections::BTreeSet;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc;
use prost::Message as _;

use super::ack::{Answer, Record};
use super::{Incoming, duration};
use crate::subscription::{Released, Watches};
use crate::types::{Resource, is_full_state, resource_name};

/// The wrapper a server may put around a resource to give it a TTL.
const RESOURCE_WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// The name that stands for "everything" once names have been used on a stream.
pub(crate) const WILDCARD: &str = "*";

/// gRPC status INTERNAL, the code Envoy puts in every NACK.
const INTERNAL: i32 = 13;

/// What one type has to remember.
#[derive(Debug, Default)]
pub(crate) struct Sotw {
    /// Last accepted version; survives the stream.
    version: String,
    /// Last answered nonce of this stream.
    nonce: String,
    /// Whether this stream has seen a list with names: from then on an empty list means "nothing".
    names_sent: bool,
    /// The next request must make the server send everything again.
    resend: bool,
    /// Both ways of subscribing have been used. A version does not tell which of them it was given for, so a new stream begins
    /// without one.
    used_wildcard: bool,
    used_names: bool,
    /// This stream has seen a request.
    introduced: bool,
    /// Released since the last request.
    given_up: BTreeSet<String>,
}

impl Sotw {
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn accepted(&mut self, record: &Record, overtaken: bool) {
        if !overtaken {
            self.version.clone_from(&record.version);
        }
    }

    /// Somebody subscribes. What had been given up, and the server does not know of it yet, must be sent again; and a first
    /// subscriber has nothing at all. Only a client without a version can ask for that.
    pub(crate) fn subscribed(&mut self, names: &[String], watches: &Watches) {
        let everything = WILDCARD.to_owned();
        let given_up = self.given_up.contains(&everything)
            || (names.contains(&everything) && !self.given_up.is_empty())
            || names.iter().any(|name| self.given_up.contains(name));
        if given_up || watches.is_empty() {
            self.resend |= !self.version.is_empty();
            self.version.clear();
        }
        let wildcard = names.contains(&everything);
        self.used_wildcard |= wildcard;
        self.used_names |= !wildcard;
    }

    pub(crate) fn released(&mut self, released: Released) {
        self.given_up.extend(released.names);
        if released.wildcard {
            self.given_up.insert(WILDCARD.to_owned());
        }
    }

    pub(crate) fn stream_closed(&mut self) {
        self.nonce.clear();
        self.names_sent = false;
        self.introduced = false;
        self.given_up.clear();
    }

    pub(crate) fn request(
        &mut self,
        type_url: &str,
        watches: &Watches,
        answer: Option<Answer>,
    ) -> discovery::DiscoveryRequest {
        let mut error_detail = None;
        if let Some(Answer { nonce, error }) = answer {
            self.nonce = nonce;
            error_detail = error.map(status);
        }
        let mut resource_names = Vec::with_capacity(watches.names().len() + 1);
        if watches.wildcard() && (watches.has_names() || self.names_sent) {
            resource_names.push(WILDCARD.to_owned());
        }
        resource_names.extend(watches.names().cloned());
        self.given_up.clear();
        self.names_sent |= !resource_names.is_empty();
        // A NACK says why, and makes nobody send anything: it leaves the question to the request after it.
        let ask_again = self.resend && error_detail.is_none();
        self.resend &= !ask_again;
        let unsure = !self.introduced && self.used_wildcard && self.used_names;
        self.introduced = true;
        discovery::DiscoveryRequest {
            version_info: if ask_again || unsure { String::new() } else { self.version.clone() },
            node: None,
            resource_names,
            resource_locators: Vec::new(),
            type_url: type_url.to_owned(),
            response_nonce: self.nonce.clone(),
            error_detail,
        }
    }

    /// Whether a bodiless resource of this version confirms what we have.
    pub(crate) fn is_current(&self, version: &str, response_version: &str) -> bool {
        version.is_empty() || version == self.version || version == response_version
    }

    /// Whether a further request has to follow the last one.
    pub(crate) fn has_more(&self) -> bool {
        self.resend
    }

    /// Whether the server has to be told that nothing is wanted any more.
    pub(crate) fn must_empty(&self) -> bool {
        self.names_sent
    }
}

/// The `error_detail` of a NACK.
pub(crate) fn status(message: String) -> rpc::Status {
    rpc::Status { code: INTERNAL, message, details: Vec::new() }
}

/// Takes a response apart; an error is the detail of the NACK.
pub(crate) fn parse(type_url: &str, response: discovery::DiscoveryResponse) -> (String, Result<Incoming, String>) {
    let discovery::DiscoveryResponse {
        version_info,
        resources,
        canary: _,
        type_url: _,
        nonce,
        control_plane,
        resource_errors,
    } = response;
    let mut parsed = Vec::with_capacity(resources.len());
    for any in resources {
        match resource(type_url, any, &version_info) {
            Ok(resource) => parsed.push(resource),
            Err(detail) => return (nonce, Err(detail)),
        }
    }
    // A response of heartbeats alone confirms some resources and says nothing about the others. (Envoy 1.40 takes it for the
    // full state and deletes what it was told to keep.)
    let heartbeats_only = !parsed.is_empty() && parsed.iter().all(|resource| resource.body.is_none());
    let incoming = Incoming {
        version: version_info,
        resources: parsed,
        removed: Vec::new(),
        full_state: is_full_state(type_url) && !heartbeats_only,
        control_plane: control_plane.map(|control_plane| control_plane.identifier),
        errors: resource_errors,
    };
    (nonce, Ok(incoming))
}

fn resource(type_url: &str, any: Any, version: &str) -> Result<Resource, String> {
    if any.type_url != RESOURCE_WRAPPER {
        check_type(type_url, &any.type_url)?;
        let body = Bytes::from(any.value);
        // Bytes without a name would be taken for a resource nobody asked for, and accepted.
        let name = resource_name(&body).ok_or_else(|| {
            format!("Unable to unpack as {}: it does not decode", type_url.rsplit('/').next().unwrap_or(type_url))
        })?;
        return Ok(Resource { name, aliases: Vec::new(), version: version.to_owned(), body: Some(body), ttl: None });
    }
    let wrapper = discovery::Resource::decode(any.value.as_slice())
        .map_err(|error| format!("a Resource wrapper in the DiscoveryResponse does not decode: {error}"))?;
    let discovery::Resource {
        name,
        resource_name: locator,
        aliases,
        version: own_version,
        resource: inner,
        ttl,
        cache_control: _,
        metadata: _,
    } = wrapper;
    let name = if name.is_empty() { locator.map(|locator| locator.name).unwrap_or_default() } else { name };
    let body = match inner {
        Some(inner) => {
            check_type(type_url, &inner.type_url)?;
            Some(Bytes::from(inner.value))
        }
        None => None,
    };
    let inner_name = || body.as_deref().and_then(resource_name).unwrap_or_default();
    let name = if name.is_empty() { inner_name() } else { name };
    if name.is_empty() && body.is_none() {
        return Err("a heartbeat in the DiscoveryResponse names no resource".to_owned());
    }
    let ttl = duration(ttl).map_err(|error| format!("{name}: ttl: {error}"))?;
    Ok(Resource { name, aliases, version: own_version, body, ttl })
}

fn check_type(expected: &str, found: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found} does not match the message-wide type URL {expected} in DiscoveryResponse"))
}

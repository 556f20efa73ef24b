//! A resource as the two kinds of responses carry it.

use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::{Any, Duration};
use prost::{Message as _, Name as _};

use crate::types::Resource;

/// The resource as it is.
pub(super) fn any(type_url: &str, resource: &Resource) -> Any {
    Any { type_url: type_url.to_owned(), value: resource.body.clone().unwrap_or_default().to_vec() }
}

/// The wrapper as state-of-the-world responses carry it: for a resource with a time to live.
pub(super) fn wrapped_any(type_url: &str, resource: &Resource) -> Any {
    Any { type_url: discovery::Resource::type_url(), value: wrapper(type_url, resource).encode_to_vec() }
}

/// The resource in its `Resource` message; without a body it is a heartbeat.
pub(super) fn wrapper(type_url: &str, resource: &Resource) -> discovery::Resource {
    discovery::Resource {
        name: resource.name.clone(),
        aliases: resource.aliases.clone(),
        version: resource.version.clone(),
        resource: resource.body.as_ref().map(|_| any(type_url, resource)),
        ttl: resource.ttl.map(|ttl| Duration {
            seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or_default(),
        }),
        ..Default::default()
    }
}

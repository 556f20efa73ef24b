//! The vocabulary of the crate: which resource types exist and where they are served, what an update carries,
//! and what a consumer may answer.
//!
//! Nothing here knows what a listener or a cluster means: a resource is a type URL, a name, a version and bytes.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::subscription::SubscriptionId;

/// What a source has to tell its consumer.
#[derive(Debug)]
pub enum Event {
    /// Resources changed. The consumer applies them and answers [`Update::ticket`] once, now or later.
    Update(Update),
    /// The client itself refused a response (wrong `Any` type, duplicate names, undecodable file). It has been answered
    /// with a NACK already; what is live stays. Consumers that wait for a first update may stop waiting.
    Rejected {
        /// The type of the refused response.
        type_url: Arc<str>,
        /// What was sent as `error_detail`.
        detail: String,
    },
    /// The TTL of these resources ran out: treat them as removed by the server.
    Expired {
        /// The type of the resources.
        type_url: Arc<str>,
        /// Their names.
        names: Vec<String>,
    },
    /// A subscription heard nothing within its `initial_fetch_timeout`. It stays subscribed.
    InitialFetchTimeout {
        /// The subscription that waited.
        subscription: SubscriptionId,
        /// The type it asked for.
        type_url: Arc<str>,
        /// The names it asked for; empty for a wildcard.
        names: Vec<String>,
    },
    /// A stream to the control plane is open.
    Connected,
    /// The stream (or the attempt to open one) ended. Everything already applied stays as it is.
    Disconnected {
        /// Why, for the log.
        reason: String,
    },
}

/// The content of one response, after the protocol's own checks.
///
/// `Send`, so that decoding and parsing may happen on another thread; only the answer must come back to the client.
#[derive(Debug)]
pub struct Update {
    /// The type of everything in this update.
    pub type_url: Arc<str>,
    /// `version_info` (state of the world) or `system_version_info` (delta).
    pub version: String,
    /// Resources added, changed or confirmed. Names nobody subscribed to have been left out, unless this is a document that
    /// was written for one subscription (a file, a REST response).
    pub resources: Vec<Resource>,
    /// Names the server removed (delta only).
    pub removed: Vec<String>,
    /// State of the world for listeners, clusters and scoped routes: what is absent from `resources` is gone.
    pub full_state: bool,
    /// `control_plane.identifier` of the response, if it had one.
    pub control_plane: Option<String>,
    /// When the response arrived.
    pub received: Instant,
    /// The right and the duty to answer this response once.
    pub ticket: Ticket,
}

/// One resource of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The name the protocol knows it by: the wrapper's in delta, field 1 of the message otherwise.
    pub name: String,
    /// Other names it answers to (virtual hosts on demand).
    pub aliases: Vec<String>,
    /// Its own version (delta) or that of the response.
    pub version: String,
    /// The message; `None` is a heartbeat: the resource is still there and has not changed.
    pub body: Option<Bytes>,
    /// How long it lives unless confirmed again; `None` is for ever.
    pub ttl: Option<Duration>,
}

impl Resource {
    /// A resource without aliases or TTL.
    pub fn new(name: impl Into<String>, version: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { name: name.into(), aliases: Vec::new(), version: version.into(), body: Some(body.into()), ttl: None }
    }

    /// The resource's name and aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

/// The right to answer one response. It cannot be copied, and answering consumes it, so a nonce is never answered twice;
/// one that is dropped unanswered is noticed by its mux and answered with a NACK, so none stays open either.
#[must_use = "every response must be accepted or rejected"]
#[derive(Debug)]
pub struct Ticket {
    pub(crate) type_url: Arc<str>,
    /// Shared with the ledger of the mux that issued it: identity while it lives, a sign of neglect when it is gone.
    pub(crate) seal: Arc<()>,
}

impl Ticket {
    /// The type of the response to be answered.
    pub fn type_url(&self) -> &str {
        &self.type_url
    }
}

/// Why a consumer refuses a response (in whole or in part).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// Every resource that failed, and why (with the field path).
    pub errors: Vec<ResourceError>,
}

/// One failing resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceError {
    /// Its name; empty when the fault is the response's.
    pub name: String,
    /// What is wrong, with the path of the field.
    pub message: String,
}

/// Longest `error_detail.message` we send: long enough to name hundreds of resources, short enough for any server.
const MAX_DETAIL: usize = 64 * 1024;

impl Rejection {
    /// A rejection of a response as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self::resource("", message)
    }

    /// A rejection because of one resource.
    pub fn resource(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { errors: vec![ResourceError { name: name.into(), message: message.into() }] }
    }

    /// The text sent to the control plane, in the shape Envoy uses for the type (control planes match on it).
    pub fn detail(&self, type_url: &str) -> String {
        let (lead, between, end) = match type_url {
            CLUSTER => ("Error adding/updating cluster(s) ", ", ", ""),
            LISTENER => ("Error adding/updating listener(s) ", "\n", "\n"),
            _ => ("", ", ", ""),
        };
        let mut text = String::new();
        if self.errors.iter().any(|error| !error.name.is_empty()) {
            text.push_str(lead);
        }
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                text.push_str(between);
            }
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{error}");
        }
        if text.starts_with(lead) && !lead.is_empty() {
            text.push_str(end);
        }
        truncate(text)
    }
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            write!(f, "{}: ", self.name)?;
        }
        f.write_str(&self.message)
    }
}

fn truncate(mut text: String) -> String {
    if text.len() > MAX_DETAIL {
        let mut end = MAX_DETAIL;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...(truncated)");
    }
    text
}

/// Where the resources of a type are served and how absence reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceType {
    /// The type URL.
    pub type_url: &'static str,
    /// Path of the state-of-the-world gRPC method; `None` if there is none.
    pub sotw_method: Option<&'static str>,
    /// Path of the delta gRPC method.
    pub delta_method: &'static str,
    /// Path of the REST endpoint; `None` if there is none.
    pub rest_path: Option<&'static str>,
    /// Whether the type may be subscribed to as a whole, a state-of-the-world response then being the full state.
    pub wildcard: bool,
}

/// `envoy.config.listener.v3.Listener` (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration` (RDS).
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.route.v3.ScopedRouteConfiguration` (SRDS).
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// `envoy.config.route.v3.VirtualHost` (VHDS).
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// `envoy.config.cluster.v3.Cluster` (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// `envoy.config.endpoint.v3.LbEndpoint` (LEDS).
pub const LB_ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint";
/// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// `envoy.service.runtime.v3.Runtime` (RTDS).
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

/// The aggregated state-of-the-world method.
pub const ADS_SOTW_METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// The aggregated delta method.
pub const ADS_DELTA_METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Every type with a service of its own. Other types work over ADS and files.
pub static RESOURCE_TYPES: [ResourceType; 10] = [
    ResourceType {
        type_url: CLUSTER,
        sotw_method: Some("/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"),
        delta_method: "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
        rest_path: Some("/v3/discovery:clusters"),
        wildcard: true,
    },
    ResourceType {
        type_url: ENDPOINTS,
        sotw_method: Some("/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"),
        delta_method: "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
        rest_path: Some("/v3/discovery:endpoints"),
        wildcard: false,
    },
    ResourceType {
        type_url: LISTENER,
        sotw_method: Some("/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"),
        delta_method: "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
        rest_path: Some("/v3/discovery:listeners"),
        wildcard: true,
    },
    ResourceType {
        type_url: ROUTE,
        sotw_method: Some("/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"),
        delta_method: "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
        rest_path: Some("/v3/discovery:routes"),
        wildcard: false,
    },
    ResourceType {
        type_url: SECRET,
        sotw_method: Some("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"),
        delta_method: "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        rest_path: Some("/v3/discovery:secrets"),
        wildcard: false,
    },
    ResourceType {
        type_url: SCOPED_ROUTE,
        sotw_method: Some("/envoy.service.route.v3.ScopedRoutesDiscoveryService/StreamScopedRoutes"),
        delta_method: "/envoy.service.route.v3.ScopedRoutesDiscoveryService/DeltaScopedRoutes",
        rest_path: Some("/v3/discovery:scoped-routes"),
        wildcard: true,
    },
    ResourceType {
        type_url: RUNTIME,
        sotw_method: Some("/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime"),
        delta_method: "/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime",
        rest_path: Some("/v3/discovery:runtime"),
        wildcard: false,
    },
    ResourceType {
        type_url: EXTENSION_CONFIG,
        sotw_method: Some("/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"),
        delta_method: "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs",
        rest_path: Some("/v3/discovery:extension_configs"),
        wildcard: false,
    },
    ResourceType {
        type_url: VIRTUAL_HOST,
        sotw_method: None,
        delta_method: "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts",
        rest_path: None,
        wildcard: false,
    },
    ResourceType {
        type_url: LB_ENDPOINT,
        sotw_method: None,
        delta_method: "/envoy.service.endpoint.v3.LocalityEndpointDiscoveryService/DeltaLocalityEndpoints",
        rest_path: None,
        wildcard: false,
    },
];

/// The table's row for a type, if it has one.
pub fn resource_type(type_url: &str) -> Option<&'static ResourceType> {
    RESOURCE_TYPES.iter().find(|known| known.type_url == type_url)
}

/// Whether a state-of-the-world response of this type lists everything there is.
pub(crate) fn is_full_state(type_url: &str) -> bool {
    resource_type(type_url).is_some_and(|known| known.wildcard)
}

/// The name inside an encoded resource: field 1 in every xDS resource type (`name`, or `cluster_name` of a load
/// assignment). `None` if the bytes are not a message or the field is not text; whoever decodes it says so properly.
pub fn resource_name(message: &[u8]) -> Option<String> {
    let mut rest = message;
    let mut name = None;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let skip = match key & 7 {
            0 => {
                varint(&mut rest)?;
                0
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            // Groups do not occur in proto3.
            _ => return None,
        };
        let (field, tail) = rest.split_at_checked(skip)?;
        if key == (1 << 3 | 2) {
            // As protobuf has it, the last occurrence of a scalar field counts.
            name = Some(field);
        }
        rest = tail;
    }
    name.map_or_else(|| Some(String::new()), |name| String::from_utf8(name.to_vec()).ok())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use proptest::prelude::*;
    use prost::Message as _;

    #[test]
    fn names_are_read_from_the_wire() {
        let cluster = Cluster { name: "blue".into(), alt_stat_name: "b".into(), ..Default::default() };
        assert_eq!(resource_name(&cluster.encode_to_vec()).as_deref(), Some("blue"));
        let cla = ClusterLoadAssignment { cluster_name: "green".into(), ..Default::default() };
        assert_eq!(resource_name(&cla.encode_to_vec()).as_deref(), Some("green"));
        for (bytes, want) in [
            (&b""[..], Some("")),
            (b"\x0a\x01a\x0a\x01b", Some("b")),
            (b"\x0a\x05a", None),
            (b"\x0a", None),
            (b"\x0a\x01\xff", None),
            (b"\x0b", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x15\x00\x00\x00\x00\x0a\x01a", Some("a")),
        ] {
            assert_eq!(resource_name(bytes).as_deref(), want, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = resource_name(&bytes);
        }
    }

    #[test]
    fn details_read_as_envoys() {
        let two = Rejection {
            errors: vec![
                ResourceError { name: "a".into(), message: "bad".into() },
                ResourceError { name: "b".into(), message: "worse".into() },
            ],
        };
        for (rejection, type_url, want) in [
            (&two, CLUSTER, "Error adding/updating cluster(s) a: bad, b: worse"),
            (&two, LISTENER, "Error adding/updating listener(s) a: bad\nb: worse\n"),
            (&two, ROUTE, "a: bad, b: worse"),
            (&Rejection::whole("no"), CLUSTER, "no"),
        ] {
            assert_eq!(rejection.detail(type_url), want);
        }
        let long = Rejection::whole("é".repeat(MAX_DETAIL)).detail(ROUTE);
        assert!(long.len() < MAX_DETAIL + 20 && long.ends_with("...(truncated)"));
    }
}

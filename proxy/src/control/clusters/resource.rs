//! A cluster resource as it arrives: bytes and what became of them. Parsing may happen on any thread.

use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use filters::config::{At, ConfigError};
use prost::Message;
use xxhash_rust::xxh64::xxh64;

use crate::config::cluster::ClusterConfig;

/// A cluster resource, parsed.
#[derive(Debug, Clone)]
pub struct ClusterResource {
    /// Its name; empty if the bytes do not say.
    pub name: Arc<str>,
    /// The `Cluster` message as it came.
    pub raw: Bytes,
    /// A hash of `raw`: an equal one is no change.
    pub hash: u64,
    /// The configuration, or why there is none.
    pub config: Result<Arc<ClusterConfig>, ConfigError>,
}

impl ClusterResource {
    /// The resource in the bytes of a `Cluster` message.
    #[must_use]
    pub fn parse(at: At<'_>, raw: Bytes) -> Self {
        let hash = xxh64(&raw, 0);
        match Cluster::decode(raw.clone()) {
            Ok(proto) => {
                let name = proto.name.as_str().into();
                Self { name, raw, hash, config: ClusterConfig::parse(at, proto).map(Arc::new) }
            }
            Err(error) => Self {
                name: Arc::default(),
                raw,
                hash,
                config: Err(at.error(format_args!("invalid Cluster: {error}"))),
            },
        }
    }
}

//! Resources of a hostile control plane, as wire bytes: checked, then parsed as the managers do.
#![no_main]

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use filters::config::Session;
use legate::config::cluster::ClusterConfig;
use legate::config::listener::ListenerConfig;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use xds_client::proto::{CheckOptions, UnknownFields, check};

fuzz_target!(|input: &[u8]| {
    let [kind, bytes @ ..] = input else { return };
    let options = CheckOptions { unknown_fields: UnknownFields::Warn, validate: true };
    let session = Session::default();
    if kind & 1 == 0 {
        if check("envoy.config.cluster.v3.Cluster", bytes, &options).is_ok()
            && let Ok(cluster) = Cluster::decode(bytes)
        {
            let _ = ClusterConfig::parse(session.root(), cluster);
        }
    } else if check("envoy.config.listener.v3.Listener", bytes, &options).is_ok() {
        let _ = ListenerConfig::parse(&session.root(), &Bytes::copy_from_slice(bytes));
    }
});

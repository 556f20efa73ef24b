//! Who we are: the bootstrap's node, what the command line overrides, and what Legate says of itself.

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use filters::config::{At, ConfigError};

use crate::cli::{CRYPTOGRAPHY, LEGATE_VERSION, Options};

/// Why a node without a name cannot ask a control plane.
pub const NODE_REQUIRED: &str = "node 'id' and 'cluster' are required. Set it either in 'node' config or via \
                                 --service-node and --service-cluster options.";

/// Command-line values win; user agent and version are always ours: control planes decide by them what they send.
pub(super) fn complete(mut node: Node, options: &Options) -> Node {
    if !options.service_node.is_empty() {
        node.id.clone_from(&options.service_node);
    }
    if !options.service_cluster.is_empty() {
        node.cluster.clone_from(&options.service_cluster);
    }
    if !options.service_zone.is_empty() {
        node.locality.get_or_insert_default().zone.clone_from(&options.service_zone);
    }
    "envoy".clone_into(&mut node.user_agent_name);
    let text = |key: &str, text: &str| (key.to_owned(), Value { kind: Some(Kind::StringValue(text.to_owned())) });
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    let metadata = [
        text("build.type", build),
        text("revision.status", "Clean"),
        text("ssl.version", CRYPTOGRAPHY),
        text("legate.version", LEGATE_VERSION),
    ];
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
        version: Some(SemanticVersion { major_number: 1, minor_number: 40, patch: 0 }),
        metadata: Some(Struct { fields: metadata.into() }),
    }));
    node
}

/// A node that control planes are told about needs a name, and a cluster.
pub(super) fn require(at: At<'_>, node: &Node, needed: bool) -> Result<(), ConfigError> {
    if !needed || (!node.id.is_empty() && !node.cluster.is_empty()) {
        return Ok(());
    }
    Err(at.field("node").error(NODE_REQUIRED))
}

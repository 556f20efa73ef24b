//! `layered_runtime`.

use std::path::PathBuf;

use envoy_types::pb::envoy::config::bootstrap::v3::runtime_layer::{AdminLayer, DiskLayer, LayerSpecifier, RtdsLayer};
use envoy_types::pb::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};
use filters::config::{At, ConfigError};
use filters::matcher::RegexLimits;

use crate::config::config_source::{self, ConfigSource, Files};
use crate::runtime::{Values, flatten, invalid_entry};

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// Its name, unique.
    pub name: String,
    /// Where its values come from.
    pub source: LayerSource,
}

/// Where a layer's values come from.
#[expect(clippy::large_enum_variant, reason = "there are a handful of them, once")]
#[derive(Debug, Clone, PartialEq)]
pub enum LayerSource {
    /// The bootstrap.
    Static(Values),
    /// A directory tree.
    Disk {
        /// The link that is swapped.
        symlink_root: PathBuf,
        /// Below it.
        subdirectory: String,
        /// Below that, the service cluster's name.
        append_service_cluster: bool,
    },
    /// `/runtime_modify`.
    Admin,
    /// A control plane.
    Rtds {
        /// The resource's name.
        resource: String,
        /// Where it comes from; `None` only in tests.
        source: Option<ConfigSource>,
    },
}

pub(super) fn parse(at: At<'_>, proto: LayeredRuntime) -> Result<Vec<LayerConfig>, ConfigError> {
    let LayeredRuntime { layers } = proto;
    let list = at.field("layers");
    let mut parsed: Vec<LayerConfig> = Vec::with_capacity(layers.len());
    for (index, RuntimeLayer { name, layer_specifier }) in layers.into_iter().enumerate() {
        let at = list.index(index);
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        if parsed.iter().any(|layer| layer.name == name) {
            return Err(at.field("name").error(format_args!("Duplicate layer name: {name}")));
        }
        let source = match at.required("layer_specifier", layer_specifier)? {
            LayerSpecifier::StaticLayer(values) => {
                LayerSource::Static(flatten(&values).map_err(|key| at.field("static_layer").error(invalid_entry(key)))?)
            }
            LayerSpecifier::DiskLayer(DiskLayer { symlink_root, subdirectory, append_service_cluster }) => {
                LayerSource::Disk { symlink_root: symlink_root.into(), subdirectory, append_service_cluster }
            }
            LayerSpecifier::AdminLayer(AdminLayer {}) => {
                if parsed.iter().any(|layer| layer.source == LayerSource::Admin) {
                    return Err(
                        at.error("Too many admin layers specified in LayeredRuntime, at most one may be specified")
                    );
                }
                LayerSource::Admin
            }
            LayerSpecifier::RtdsLayer(RtdsLayer { name: resource, rtds_config }) => {
                let at = at.field("rtds_layer");
                let source = at.required("rtds_config", rtds_config)?;
                let source = config_source::parse(at.field("rtds_config"), source, Files::Exist)?;
                LayerSource::Rtds { resource, source: Some(source) }
            }
        };
        parsed.push(LayerConfig { name, source });
    }
    Ok(parsed)
}

/// `re2.max_program_size.*`, needed before any expression is compiled, so from the static layers alone.
pub(super) fn regex_limits(layers: &[LayerConfig]) -> RegexLimits {
    let find = |key: &str| {
        let of_layer = |layer: &LayerConfig| match &layer.source {
            LayerSource::Static(values) => values.get(key).and_then(crate::runtime::Value::integer),
            _ => None,
        };
        layers.iter().rev().find_map(of_layer).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
    };
    let default = RegexLimits::default();
    RegexLimits {
        error_level: find("re2.max_program_size.error_level").unwrap_or(default.error_level),
        warn_level: find("re2.max_program_size.warn_level").unwrap_or(default.warn_level),
    }
}

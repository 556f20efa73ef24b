//! `preconnect_policy`.

use envoy_types::pb::envoy::config::cluster::v3::cluster::PreconnectPolicy;
use envoy_types::pb::google::protobuf::DoubleValue;
use filters::config::{At, ConfigError};
use filters::ledger;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.cluster.v3.Cluster.PreconnectPolicy" {
    preconnect_enabled_metadata => Warn, "connections are opened ahead to every healthy host";
} }

/// How far connections are opened ahead of need. A ratio of 1 opens none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preconnect {
    /// `per_upstream_preconnect_ratio`: streams a host's pool is ready for, per stream it has (1 to 3).
    pub per_host: f64,
    /// `predictive_preconnect_ratio`: streams the cluster is ready for, per stream it has, at the hosts that are likely to
    /// be chosen next (1 to 3).
    pub predictive: f64,
}

impl Default for Preconnect {
    fn default() -> Self {
        Self { per_host: 1.0, predictive: 1.0 }
    }
}

impl Preconnect {
    pub(super) fn parse(at: At<'_>, proto: Option<PreconnectPolicy>) -> Result<Self, ConfigError> {
        let Some(proto) = proto else { return Ok(Self::default()) };
        let PreconnectPolicy {
            per_upstream_preconnect_ratio,
            predictive_preconnect_ratio,
            preconnect_enabled_metadata,
        } = proto;
        at.unsupported(&unsupported::preconnect_enabled_metadata, &preconnect_enabled_metadata)?;
        Ok(Self {
            per_host: ratio(at.field("per_upstream_preconnect_ratio"), per_upstream_preconnect_ratio)?,
            predictive: ratio(at.field("predictive_preconnect_ratio"), predictive_preconnect_ratio)?,
        })
    }
}

fn ratio(at: At<'_>, value: Option<DoubleValue>) -> Result<f64, ConfigError> {
    match value.map_or(1.0, |value| value.value) {
        ratio if (1.0..=3.0).contains(&ratio) => Ok(ratio),
        _ => Err(at.error("value must be inside range [1, 3]")),
    }
}

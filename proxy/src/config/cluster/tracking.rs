//! Statistics of a cluster that are kept only where they are asked for (`track_cluster_stats`).

use envoy_types::pb::envoy::config::cluster::v3 as proto;
use filters::config::{At, ConfigError};
use filters::ledger;

ledger! {
    /// What is not implemented.
    pub mod unsupported for "envoy.config.cluster.v3.TrackClusterStats" {
    per_endpoint_stats => Warn, "endpoints have their statistics on /clusters only";
} }

/// What is measured of a cluster's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tracking {
    /// Which part of its timeouts a request takes.
    pub timeout_budgets: bool,
    /// How large requests and responses are.
    pub request_response_sizes: bool,
}

impl Tracking {
    /// `legacy` is the deprecated `track_timeout_budgets`, which asks for budgets as well.
    pub(super) fn parse(
        at: At<'_>,
        proto: Option<proto::TrackClusterStats>,
        legacy: bool,
    ) -> Result<Self, ConfigError> {
        let proto::TrackClusterStats { timeout_budgets, request_response_sizes, per_endpoint_stats } =
            proto.unwrap_or_default();
        at.unsupported(&unsupported::per_endpoint_stats, &per_endpoint_stats)?;
        Ok(Self { timeout_budgets: timeout_budgets || legacy, request_response_sizes })
    }
}

//! `RouteConfiguration` to a route table.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use filters::config::{At, ConfigError};
use filters::matcher::RegexLimits;
use filters::mutation::ParseFormat;

use crate::route::RouteTable;

/// What parsing a table needs from outside of it.
#[derive(Clone, Copy)]
pub struct RouteEnv<'a> {
    /// Whether a cluster exists; asked when clusters are validated.
    pub cluster_exists: &'a dyn Fn(&str) -> bool,
    /// Whether clusters are validated when `validate_clusters` is unset: true for static tables, false for RDS.
    pub validate_clusters: bool,
    /// The runtime's limits on regular expressions.
    pub regex: RegexLimits,
    /// Compiles `%COMMAND%` texts.
    pub parse_format: ParseFormat,
}

impl RouteTable {
    /// Compiles a table.
    ///
    /// # Errors
    /// Everything Envoy rejects, in its words, and what the support ledger refuses.
    pub fn parse(proto: RouteConfiguration, at: At<'_>, env: &RouteEnv<'_>) -> Result<Self, ConfigError> {
        let _ = (proto, env);
        Err(at.error("pending"))
    }
}

//! A filter chain's HTTP connection manager, joined with its routes.

use std::sync::Arc;

use super::hcm::HcmConfig;
use crate::route::RouteTable;

/// The HTTP connection manager of a filter chain.
#[derive(Debug)]
pub struct HttpChain {
    /// The connection manager.
    pub config: Arc<HcmConfig>,
    /// Its routes.
    pub routes: ChainRoutes,
}

/// Where a chain's routes come from.
#[derive(Debug)]
pub enum ChainRoutes {
    /// Part of the listener.
    Inline(Arc<RouteTable>),
    /// Discovered: the key of the route configuration in the workers' slots.
    Discovered(Arc<str>),
}

//! What serves a filter chain's connections, with everything its configuration refers to joined to it.

use std::sync::Arc;

use bytes::Bytes;

use super::hcm::HcmConfig;
use super::tcp_proxy::TcpProxyConfig;
use crate::observe::access_log::AccessLog;
use crate::route::RouteTable;

/// What serves the connections of a filter chain.
#[derive(Debug)]
pub enum ChainService {
    /// An HTTP connection manager.
    Http(HttpChain),
    /// A TCP proxy.
    Tcp(TcpChain),
    /// A fixed response.
    DirectResponse(Bytes),
    /// What came, sent back.
    Echo,
    /// Nothing: connections are closed as soon as they are there.
    Close,
}

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

/// The TCP proxy of a filter chain.
#[derive(Debug)]
pub struct TcpChain {
    /// The proxy.
    pub config: Arc<TcpProxyConfig>,
    /// Its access logs.
    pub logs: Arc<[AccessLog]>,
}

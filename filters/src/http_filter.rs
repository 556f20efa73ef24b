//! The contract of HTTP filters.
//!
//! A filter is built once for each chain and worker. Every stream that passes the chain gets an instance from each filter
//! that is not switched off for it, as Envoy's filter factories make them. The instances see the request's head in the order of the
//! chain, after its route was found and before anything is done about it; the response's head they see in the opposite
//! order, whoever made it.

use std::sync::Arc;

use crate::cors::CorsPolicy;
use crate::http::ResponseHead;
use crate::matcher::Runtime;

/// What a filter makes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// The next filter decides, in the end the router.
    Continue,
    /// The filter answers by a head alone. It and the filters before it see the answer; those behind it neither that nor
    /// the request.
    Answer {
        /// The response.
        head: ResponseHead,
        /// `%RESPONSE_CODE_DETAILS%`
        details: &'static str,
    },
}

/// What is known about a stream when its filters see its request.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// What the request's route says; `None` where none was found, or where it does not forward.
    pub route: Option<RouteContext<'a>>,
    /// The runtime layers.
    pub runtime: &'a dyn Runtime,
}

/// What a route that forwards says to one filter.
#[derive(Debug)]
pub struct RouteContext<'a> {
    /// The entries of `typed_per_filter_config` under the filter's name, the most specific first.
    pub settings: Vec<&'a FilterSettings>,
    /// `RouteAction.cors` and `VirtualHost.cors`, in this order.
    pub cors: &'a [Arc<CorsPolicy>],
}

/// One entry of `typed_per_filter_config`, by the type it has.
#[derive(Debug, Clone)]
pub enum FilterSettings {
    /// `envoy.extensions.filters.http.cors.v3.CorsPolicy`
    Cors(Arc<CorsPolicy>),
    /// Those of a filter that is not here: chains with such a filter are refused, so that nobody asks.
    Other,
}

//! The contract of HTTP filters.
//!
//! A filter is built once for each chain and worker. Every stream that passes the chain gets an instance from each filter
//! that is not switched off for it, as Envoy's filter factories make them. The instances see the request's head in the order of the
//! chain, after its route was found and before anything is done about it, until one of them answers it; the response's head
//! all of them see in the opposite order, whoever made it and however early.
//!
//! An instance that cannot decide yet says what it needs: the beginning of the body ([`Verdict::Buffer`]), or time for
//! something of its own ([`Verdict::Wait`]), which the stream then drives by polling the instance. Once that is there it is
//! asked again. Meanwhile nothing else happens to the request: what follows of it is read as far as it may be buffered. When
//! the stream ends, for whatever reason, the instances are dropped, and with them what they waited for.
//!
//! Filters open no connections. What they want to know from others they [ask](crate::call) the proxy to ask.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::cors::CorsPolicy;
use crate::ext_authz::RouteSettings;
use crate::flags::ResponseFlags;
use crate::http::{HeaderName, Headers, ResponseHead};
use crate::jwt_authn::RouteRequirement;
use crate::matcher::Runtime;
use crate::mutation::{add, joined_in_responses};
use crate::rbac::RbacConfig;
use crate::stream_info::{Metadata, StreamInfo};

/// What a filter makes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// The next filter decides, in the end the router.
    Continue,
    /// The filter answers by a head alone. Those behind it do not see the request.
    Answer {
        /// The response.
        head: ResponseHead,
        /// `%RESPONSE_CODE_DETAILS%`
        details: &'static str,
    },
    /// The filter answers at once, however much of the request is there. Those behind it do not see the request.
    Reply(Box<Reply>),
    /// The filter takes the request: those behind it do not see it, and what follows of it is thrown away. Once it is
    /// complete the filter is asked for its [`Reply`].
    Take,
    /// The filter wants to see some of the body: it is asked again when that is there.
    Buffer(BodyNeed),
    /// The filter waits: it is polled, and asked again when it is ready.
    Wait,
}

/// How much of a request's body a filter wants to see at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyNeed {
    /// So many bytes.
    pub bytes: usize,
    /// The filter is content with the beginning. Otherwise a body that is longer is too long, and refused.
    pub partial: bool,
}

/// An answer that a filter makes of its own, as the proxy makes others: `local_reply_config` has its way with it, and a
/// gRPC client gets it in its own form.
#[derive(Debug, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body; empty for none.
    pub body: Bytes,
    /// Headers, beside those that the route adds.
    pub headers: Headers,
    /// What is to be done about these and what the route adds to them.
    pub changes: Vec<HeaderChange>,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Cow<'static, str>,
    /// `%RESPONSE_FLAGS%`
    pub flags: ResponseFlags,
    /// What is added to the dynamic metadata once the answer is made: for its log, not for formats of its headers.
    pub metadata: Metadata,
}

/// One change of a response's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// All headers of this name go.
    Remove(HeaderName),
    /// One more header.
    Append(HeaderName, Bytes),
    /// The only header of its name.
    Set(HeaderName, Bytes),
    /// One more header, if there is none of its name.
    AddIfAbsent(HeaderName, Bytes),
    /// The only header of its name, if there is one.
    Overwrite(HeaderName, Bytes),
}

impl HeaderChange {
    /// Makes the change.
    pub fn apply(self, headers: &mut Headers) {
        match self {
            Self::Remove(name) => {
                headers.remove(&name);
            }
            Self::Append(name, value) => add(headers, name, value, joined_in_responses),
            Self::Set(name, value) => put(headers, name, value),
            Self::AddIfAbsent(name, value) if !headers.contains(&name) => headers.append(name, value),
            Self::Overwrite(name, value) if headers.contains(&name) => put(headers, name, value),
            Self::AddIfAbsent(..) | Self::Overwrite(..) => {}
        }
    }
}

/// The only header of its name, behind the others.
fn put(headers: &mut Headers, name: HeaderName, value: Bytes) {
    headers.remove(&name);
    headers.append(name, value);
}

/// What filters may ask about the proxy.
pub trait Server {
    /// Whether it is to say that it takes no requests (`/healthcheck/fail`).
    fn health_check_failed(&self) -> bool;

    /// How many hosts of a cluster are healthy or degraded, and how many there are; `None` if there is no such cluster.
    fn membership(&self, cluster: &str) -> Option<(usize, usize)>;
}

/// A cluster that a request would go to.
pub trait Destination {
    /// Counts below `cluster.<name>.`; what is counted there comes into being with that.
    fn count(&self, name: &str);

    /// Counts a response that a filter gives in its place, as one to a request from inside.
    fn charge(&self, status: u16);
}

/// How many headers a message may have, and how large they may be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLimits {
    /// Headers, pseudo headers among them.
    pub count: usize,
    /// Bytes of their names and values.
    pub bytes: usize,
}

impl Default for HeaderLimits {
    fn default() -> Self {
        Self { count: usize::MAX, bytes: usize::MAX }
    }
}

/// What is known about a stream when its filters see its request.
pub struct RequestContext<'a> {
    /// What the request's route says; `None` where none was found.
    pub route: Option<RouteContext<'a>>,
    /// The runtime layers.
    pub runtime: &'a dyn Runtime,
    /// The proxy.
    pub server: &'a dyn Server,
    /// What is written down about the stream.
    pub info: &'a mut StreamInfo,
    /// How much of the request is there.
    pub body: Body<'a>,
    /// The cluster that its route chose, if there is one.
    pub cluster: Option<&'a dyn Destination>,
    /// What a request may have of headers.
    pub limits: HeaderLimits,
    /// Set by a filter that changed what the route was found by: it is looked for anew (`clear_route_cache`).
    pub route_changed: bool,
}

impl<'a> RequestContext<'a> {
    /// A request of which nothing but the head is known to be there.
    pub fn new(
        route: Option<RouteContext<'a>>,
        runtime: &'a dyn Runtime,
        server: &'a dyn Server,
        info: &'a mut StreamInfo,
    ) -> Self {
        let (body, limits) = (Body::default(), HeaderLimits::default());
        Self { route, runtime, server, info, body, cluster: None, limits, route_changed: false }
    }
}

/// As much of a request's body as is there when a filter is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Body<'a> {
    /// Pieces of it, for a filter that asked for them by [`Verdict::Buffer`].
    pub pieces: &'a [Bytes],
    /// Nothing follows what was received.
    pub complete: bool,
}

/// What a route says to one filter.
#[derive(Debug, Default)]
pub struct RouteContext<'a> {
    /// The entries of `typed_per_filter_config` under the filter's name, the most specific first.
    pub settings: Vec<&'a FilterSettings>,
    /// `RouteAction.cors` and `VirtualHost.cors`, in this order; empty where the route does not forward.
    pub cors: &'a [Arc<CorsPolicy>],
    /// It sends the request to a cluster, rather than answer it.
    pub forwards: bool,
}

/// One entry of `typed_per_filter_config`, by the type it has.
#[derive(Debug, Clone)]
pub enum FilterSettings {
    /// `envoy.extensions.filters.http.cors.v3.CorsPolicy`
    Cors(Arc<CorsPolicy>),
    /// `envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute`
    ExtAuthz(Arc<RouteSettings>),
    /// `envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig`
    JwtAuthn(Arc<RouteRequirement>),
    /// `envoy.extensions.filters.http.rbac.v3.RBACPerRoute`; `None` switches the filter off.
    Rbac(Option<Arc<RbacConfig>>),
    /// Those of a filter that is not here: chains with such a filter are refused, so that nobody asks.
    Other,
}

//! Cross-origin resource sharing: `envoy.filters.http.cors`.
//!
//! The filter has no settings of its own. What is allowed stands in the routes: as `CorsPolicy` under the filter's name, the most
//! specific level first, each value from the first level that has it; else in the routes' own `cors` fields.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::CorsPolicy as RouteProto;
use envoy_types::pb::envoy::config::route::v3::cors_policy::EnabledSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy as Proto;
use envoy_types::pb::google::protobuf::BoolValue;

use crate::config::{At, ConfigError};
use crate::http::{HeaderName, Headers, Known, Method, RequestHead, ResponseHead};
use crate::http_filter::{FilterSettings, RequestContext, Verdict};
use crate::matcher::{RegexLimits, Runtime, RuntimeFraction, StringMatcher};

stats::group! {
    /// `http.<stat_prefix>.cors.`
    pub struct CorsStats {
        counters { origin_invalid, origin_valid }
    }
}

/// `%RESPONSE_CODE_DETAILS%` of an answered preflight request.
const DETAILS: &str = "cors_response";

/// What one level of a route table allows.
#[derive(Debug, Default)]
pub struct CorsPolicy {
    origins: Box<[StringMatcher]>,
    /// Empty where the level says nothing.
    methods: Bytes,
    headers: Bytes,
    expose: Bytes,
    max_age: Bytes,
    credentials: Option<bool>,
    private_network: Option<bool>,
    forward_preflights: Option<bool>,
    enabled: Option<RuntimeFraction>,
    shadow: Option<RuntimeFraction>,
}

impl CorsPolicy {
    /// Compiles a policy of `typed_per_filter_config`.
    ///
    /// # Errors
    /// When a matcher or a fraction is none.
    pub fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        } = proto;
        let origins = at.field("allow_origin_string_match");
        let flag = |value: Option<BoolValue>| value.map(|BoolValue { value }| value);
        let fraction = |name, proto: Option<_>| proto.map(|it| RuntimeFraction::parse(it, at.field(name))).transpose();
        Ok(Self {
            origins: allow_origin_string_match
                .into_iter()
                .enumerate()
                .map(|(n, matcher)| StringMatcher::parse(matcher, origins.index(n), limits))
                .collect::<Result<_, _>>()?,
            methods: allow_methods.into(),
            headers: allow_headers.into(),
            expose: expose_headers.into(),
            max_age: max_age.into(),
            credentials: flag(allow_credentials),
            private_network: flag(allow_private_network_access),
            forward_preflights: flag(forward_not_matching_preflights),
            enabled: fraction("filter_enabled", filter_enabled)?,
            shadow: fraction("shadow_enabled", shadow_enabled)?,
        })
    }

    /// Compiles the `cors` of a virtual host or a route.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_of_route(proto: RouteProto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let RouteProto {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
            enabled_specifier,
        } = proto;
        let filter_enabled = enabled_specifier.map(|EnabledSpecifier::FilterEnabled(fraction)| fraction);
        let proto = Proto {
            allow_origin_string_match,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
            allow_credentials,
            filter_enabled,
            shadow_enabled,
            allow_private_network_access,
            forward_not_matching_preflights,
        };
        Self::parse(proto, at, limits)
    }

    fn is_enabled(&self, runtime: &dyn Runtime) -> bool {
        self.enabled.as_ref().is_none_or(|fraction| fraction.contains(fastrand::u64(..), runtime))
    }

    fn only_counts(&self, runtime: &dyn Runtime) -> bool {
        self.shadow.as_ref().is_some_and(|fraction| fraction.contains(fastrand::u64(..), runtime))
    }
}

/// The filter of a chain on one worker.
pub struct Cors(CorsStats);

impl Cors {
    /// A filter that counts here.
    #[must_use]
    pub fn new(stats: CorsStats) -> Rc<Self> {
        Rc::new(Self(stats))
    }
}

/// The filter of a stream.
pub struct CorsStream {
    filter: Rc<Cors>,
    /// Levels that say something, the most specific first; none when the filter leaves the stream alone.
    policies: Vec<Arc<CorsPolicy>>,
    /// The request's origin, if it may see the response.
    origin: Option<Bytes>,
}

impl CorsStream {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(filter: &Rc<Cors>) -> Self {
        Self { filter: Rc::clone(filter), policies: Vec::new(), origin: None }
    }

    /// Answers a preflight request, and remembers the origin of others.
    pub fn decode_head(&mut self, head: &RequestHead, context: &RequestContext<'_>) -> Verdict {
        let Some(route) = context.route.as_ref().filter(|route| route.forwards) else { return Verdict::Continue };
        let of_filter = route.settings.iter().filter_map(|settings| match settings {
            FilterSettings::Cors(policy) => Some(Arc::clone(policy)),
            _ => None,
        });
        let mut policies: Vec<_> = of_filter.collect();
        if policies.is_empty() {
            policies = route.cors.to_vec();
        }
        let Some(first) = policies.first() else { return Verdict::Continue };
        let enabled = first.is_enabled(context.runtime);
        if !enabled && !first.only_counts(context.runtime) {
            return Verdict::Continue;
        }
        let Some(origin) = head.headers.value(&Known::Origin).filter(|origin| !origin.is_empty()) else {
            return Verdict::Continue;
        };
        let origins = policies.iter().map(|policy| &policy.origins).find(|origins| !origins.is_empty());
        let allowed = origins.is_some_and(|origins| origins.iter().any(|it| it.matches(b"*") || it.matches(origin)));
        match allowed {
            true => self.filter.0.origin_valid().inc(),
            false => self.filter.0.origin_invalid().inc(),
        }
        if !enabled {
            return Verdict::Continue;
        }
        self.origin = allowed.then(|| origin.clone());
        self.policies = policies;
        let asked = head.headers.value(&Known::AccessControlRequestMethod).filter(|method| !method.is_empty());
        match asked {
            Some(method) if head.method == Method::Options && (allowed || !self.forwards_preflights()) => {
                Verdict::Answer { head: self.preflight(head, method), details: DETAILS }
            }
            _ => Verdict::Continue,
        }
    }

    /// Tells the client who may see the response.
    pub fn encode_head(&self, head: &mut ResponseHead) {
        let Some(origin) = &self.origin else { return };
        head.headers.set(Known::AccessControlAllowOrigin, origin.clone());
        self.tell_credentials(&mut head.headers);
        if let Some(expose) = self.text(|policy| &policy.expose) {
            head.headers.set(Known::AccessControlExposeHeaders, expose.clone());
        }
    }

    fn preflight(&self, request: &RequestHead, method: &Bytes) -> ResponseHead {
        let mut head = ResponseHead { status: 200, ..ResponseHead::default() };
        let headers = &mut head.headers;
        let asked = |name: HeaderName| request.headers.value(&name).cloned().unwrap_or_default();
        if let Some(origin) = &self.origin {
            headers.set(Known::AccessControlAllowOrigin, origin.clone());
        }
        self.tell_credentials(headers);
        if let Some(methods) = self.text(|policy| &policy.methods) {
            let any = methods == "*";
            headers.set(Known::AccessControlAllowMethods, if any { method } else { methods }.clone());
        }
        if let Some(names) = self.text(|policy| &policy.headers) {
            let any = names == "*";
            let names = if any { asked(Known::AccessControlRequestHeaders.into()) } else { names.clone() };
            headers.set(Known::AccessControlAllowHeaders, names);
        }
        if let Some(max_age) = self.text(|policy| &policy.max_age) {
            headers.set(Known::AccessControlMaxAge, max_age.clone());
        }
        if self.flag(|policy| policy.private_network).unwrap_or(false) && asked(private_network("request")) == "true" {
            headers.set(private_network("allow"), "true");
        }
        head
    }

    fn tell_credentials(&self, headers: &mut Headers) {
        if self.flag(|policy| policy.credentials).unwrap_or(false) {
            headers.set(Known::AccessControlAllowCredentials, "true");
        }
    }

    fn forwards_preflights(&self) -> bool {
        self.flag(|policy| policy.forward_preflights).unwrap_or(true)
    }

    fn text(&self, of: impl Fn(&CorsPolicy) -> &Bytes) -> Option<&Bytes> {
        self.policies.iter().map(|policy| of(policy)).find(|text| !text.is_empty())
    }

    fn flag(&self, of: impl Fn(&CorsPolicy) -> Option<bool>) -> Option<bool> {
        self.policies.iter().find_map(|policy| of(policy))
    }
}

/// `access-control-request-private-network` and its answer.
fn private_network(verb: &str) -> HeaderName {
    HeaderName::from_lowercase(format!("access-control-{verb}-private-network").into())
}

#[cfg(test)]
mod tests;

//! What the levels of a route table say to HTTP filters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{CorsPolicy as CorsProto, FilterConfig};
use envoy_types::pb::google::protobuf::Any;
use filters::call::config::ParseServices;
use filters::config::{At, ConfigError};
use filters::cors::CorsPolicy;
use filters::ext_authz::RouteSettings;
use filters::http_filter::FilterSettings;
use filters::jwt_authn::RouteRequirement;
use filters::rbac::RbacConfig;
use prost::Message;

use super::{Parser, RouteEnv, retry};
use crate::config::any::{self, Typed};
use crate::route::FilterOverride;
use crate::route::headers::FilterLevel;

const JWT_AUTHN: &str = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";

const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";

/// The settings of a filter to which routes have nothing to say.
const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";

impl Parser<'_> {
    /// One level's `typed_per_filter_config`, out of the `FilterConfig` wrappers.
    pub(super) fn filters(&self, protos: HashMap<String, Any>, at: At<'_>) -> Result<FilterLevel, ConfigError> {
        let here = at.field("typed_per_filter_config");
        let mut level = BTreeMap::new();
        for (name, any) in protos {
            let at = here.key(&name);
            let FilterConfig { config, is_optional, disabled } =
                if any.type_url.ends_with("/envoy.config.route.v3.FilterConfig") {
                    unwrapped(&name, &any, at)?
                } else {
                    FilterConfig { config: Some(any), is_optional: false, disabled: false }
                };
            // Envoy knows a filter by the type of its configuration. Which filters are here is for the chain to say.
            let settings = match config.map(|config| any::unwrap(&at, config, any::struct_to_bytes)) {
                Some(Ok(typed)) if typed.type_name().starts_with("envoy.extensions.filters.http.") => {
                    Some(self.settings(typed, at)?)
                }
                Some(Ok(_) | Err(_)) if is_optional => Some(FilterSettings::Other),
                Some(Ok(typed)) => return Err(at.unknown_extension(&name, typed.type_name())),
                Some(Err(error)) => return Err(error),
                None => None,
            };
            level.insert(name, FilterOverride { settings, disabled });
        }
        Ok(Arc::new(level))
    }

    /// The `cors` of a virtual host or a route.
    pub(super) fn cors(&self, proto: Option<CorsProto>, at: At<'_>) -> Result<Option<Arc<CorsPolicy>>, ConfigError> {
        let parse = |proto| CorsPolicy::parse_of_route(proto, at.field("cors"), self.env.regex).map(Arc::new);
        proto.map(parse).transpose()
    }

    fn settings(&self, typed: Typed, at: At<'_>) -> Result<FilterSettings, ConfigError> {
        Ok(match typed.type_name() {
            CORS => FilterSettings::Cors(Arc::new(CorsPolicy::parse(typed.decode(&at)?, at, self.env.regex)?)),
            EXT_AUTHZ => {
                let RouteEnv { regex: limits, parse_format: format, .. } = self.env;
                let parse = ParseServices { limits, format, retry: retry::of_calls };
                FilterSettings::ExtAuthz(RouteSettings::parse(typed.decode(&at)?, at, &parse)?)
            }
            JWT_AUTHN => FilterSettings::JwtAuthn(Arc::new(RouteRequirement::parse(typed.decode(&at)?, at)?)),
            RBAC => {
                let config = RbacConfig::parse_of_route(typed.decode(&at)?, at, self.env.regex)?;
                FilterSettings::Rbac(config.map(Arc::new))
            }
            HEALTH_CHECK => {
                return Err(at.error("a health_check filter takes no settings of virtual hosts and routes"));
            }
            _ => FilterSettings::Other,
        })
    }
}

/// `envoy.config.route.v3.FilterConfig`
fn unwrapped(name: &str, any: &Any, at: At<'_>) -> Result<FilterConfig, ConfigError> {
    let wrapper = FilterConfig::decode(&any.value[..])
        .map_err(|error| at.error(format_args!("Unable to unpack as envoy.config.route.v3.FilterConfig: {error}")))?;
    if wrapper.config.is_none() && !wrapper.disabled {
        return Err(at.error(format_args!("Empty route/virtual host per filter configuration for {name} filter")));
    }
    Ok(wrapper)
}

//! What the levels of a route table say to HTTP filters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{CorsPolicy as CorsProto, FilterConfig};
use envoy_types::pb::google::protobuf::Any;
use filters::config::{At, ConfigError};
use filters::cors::CorsPolicy;
use filters::http_filter::FilterSettings;
use prost::Message;

use super::Parser;
use crate::config::any::{self, Typed};
use crate::route::FilterOverride;
use crate::route::headers::FilterLevel;

const CORS: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";

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

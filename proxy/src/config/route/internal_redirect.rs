//! `InternalRedirectPolicy`.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3::InternalRedirectPolicy as Proto;
use envoy_types::pb::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use filters::config::{At, ConfigError};
use filters::http::HeaderName;

use crate::config::any;
use crate::route::internal_redirect::{InternalRedirect, RedirectPredicate};

/// Statuses that can be followed; Envoy passes over others that are listed.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

impl InternalRedirect {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Everything Envoy rejects, in its words.
    pub fn parse(proto: Proto, at: At<'_>) -> Result<Self, ConfigError> {
        let Proto {
            max_internal_redirects,
            redirect_response_codes,
            predicates,
            allow_cross_scheme_redirect,
            response_headers_to_copy,
        } = proto;
        let list = at.field("redirect_response_codes");
        if redirect_response_codes.len() > CODES.len() {
            return Err(list.error("value must contain no more than 5 item(s)"));
        }
        let listed = !redirect_response_codes.is_empty();
        let codes = redirect_response_codes.into_iter().filter_map(|code| u16::try_from(code).ok());
        let names = at.field("response_headers_to_copy");
        let copied = response_headers_to_copy.iter().enumerate().map(|(n, name)| {
            if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                return Err(names.index(n).error(format_args!("{name} headers or Host header may not be modified")));
            }
            HeaderName::parse(name.as_bytes())
                .ok_or_else(|| names.index(n).error(format_args!("'{name}' is not a header name")))
        });
        let here = at.field("predicates");
        Ok(Self {
            max: max_internal_redirects.map_or(1, |max| max.value),
            codes: if listed { codes.filter(|code| CODES.contains(code)).collect() } else { Box::new([302]) },
            cross_scheme: allow_cross_scheme_redirect,
            copied: copied.collect::<Result<_, _>>()?,
            predicates: predicates
                .into_iter()
                .enumerate()
                .map(|(n, config)| predicate(config, here.index(n)))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn predicate(proto: TypedExtensionConfig, at: At<'_>) -> Result<RedirectPredicate, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = proto;
    let config = typed_config.ok_or_else(|| at.unknown_extension(&name, ""))?;
    let config = any::unwrap(&at, config, any::struct_to_bytes)?;
    match config.type_name() {
        "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig" => {
            Ok(RedirectPredicate::PreviousRoutes)
        }
        "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig" => {
            Ok(RedirectPredicate::SafeCrossScheme)
        }
        "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig" => {
            let AllowListedRoutesConfig { allowed_route_names } = config.decode(&at)?;
            Ok(RedirectPredicate::Listed(allowed_route_names.into_iter().map(Into::into).collect()))
        }
        other => Err(at.unknown_extension(&name, other)),
    }
}

//! `envoy.extensions.filters.http.jwt_authn.v3`: from messages to what the filter works with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{DataSource, RetryPolicy};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use envoy_types::pb::google::protobuf::Empty;
use proto::jwt_claim_to_header::PathSegment;
use proto::jwt_provider::{JwksSourceSpecifier, NormalizePayload};
use proto::jwt_requirement::RequiresType;
use proto::per_route_config::RequirementSpecifier;
use proto::requirement_rule::RequirementType;

use super::extract::Places;
use super::jwks::Jwks;
use super::provider::{Audiences, CacheSize, Forwarding, Keys, Lifetime, Provider};
use super::remote::RemoteJwks;
use super::requirement::{Forgiven, Nested, Requirement};
use super::rule::RuleMatch;
use crate::call::RetryRules;
use crate::config::duration::duration;
use crate::config::{At, ConfigError};
use crate::filter_state::{FilterState, Object};
use crate::http::{HeaderKey, HeaderName, RequestHead};
use crate::matcher::{RegexLimits, StringMatcher};

/// Seconds by which clocks may differ, and what is remembered, where the configuration does not say.
const CLOCK_SKEW: u64 = 60;
const CACHED_TOKENS: usize = 100;
const CACHED_LENGTH: usize = 4096;

/// The header by which a request says that its tokens were not verified.
const VERIFIED: &str = "x-jwt-signature-verified";

/// What parsing needs from whoever loads the configuration.
#[derive(Clone, Copy)]
pub struct ParseContext<'a> {
    /// Limits of regular expressions.
    pub limits: RegexLimits,
    /// Reads a data source.
    pub read: &'a dyn Fn(&At<'_>, DataSource) -> Result<Bytes, ConfigError>,
    /// Compiles a retry policy with these conditions.
    pub retry: fn(RetryPolicy, &str, At<'_>, RegexLimits) -> Result<RetryRules, ConfigError>,
}

/// Requirements by name.
type Named = BTreeMap<Box<str>, usize>;

/// The settings of a filter; all workers share them.
#[derive(Debug)]
pub struct JwtAuthnConfig {
    providers: Vec<Provider>,
    by_issuer: HashMap<Box<str>, usize>,
    requirements: Vec<Requirement>,
    rules: Vec<(RuleMatch, Option<usize>)>,
    named: Named,
    /// The object of filter state that names a requirement, and what it may name.
    by_state: Option<(Box<str>, Named)>,
    pub(super) bypass_cors_preflight: bool,
    pub(super) strip_failure_response: bool,
    /// Headers that only the filter may set.
    pub(super) own_headers: Vec<HeaderName>,
    stat_prefix: Box<str>,
}

/// What a route says (`PerRouteConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteRequirement {
    /// Nothing is needed.
    Disabled,
    /// The requirement of this name.
    Named(Box<str>),
}

impl JwtAuthnConfig {
    /// Compiles the settings.
    ///
    /// # Errors
    /// When something they name is not there, keys or matchers are none, or something is not implemented.
    pub fn parse(proto: proto::JwtAuthentication, at: At<'_>, context: ParseContext<'_>) -> Result<Self, ConfigError> {
        let proto::JwtAuthentication {
            providers,
            rules,
            filter_state_rules,
            bypass_cors_preflight,
            requirement_map,
            strip_failure_response,
            stat_prefix,
        } = proto;
        let here = at.field("providers");
        let mut names = BTreeMap::new();
        let mut parsed = Vec::with_capacity(providers.len());
        for (name, proto) in providers.into_iter().collect::<BTreeMap<_, _>>() {
            parsed.push(provider(&name, proto, here.key(&name), context)?);
            names.insert(name, parsed.len() - 1);
        }
        let mut by_issuer = HashMap::new();
        for (n, provider) in parsed.iter().enumerate() {
            by_issuer.entry(provider.issuer.clone()).or_insert(n);
        }
        let mut requirements = Requirements { names, providers: &parsed, all: Vec::new() };

        let here = at.field("requirement_map");
        let mut named = BTreeMap::new();
        for (name, proto) in requirement_map.into_iter().collect::<BTreeMap<_, _>>() {
            let requirement = requirements.add(proto, here.key(&name))?;
            named.insert(name.into_boxed_str(), requirement);
        }
        let here = at.field("rules");
        let of_rules = rules.into_iter().enumerate().map(|(n, proto)| {
            let here = here.index(n);
            let proto::RequirementRule { r#match, requirement_type } = proto;
            let condition = here.required("match", r#match)?;
            let condition = RuleMatch::parse(condition, here.field("match"), context.limits)?;
            let requirement = match requirement_type {
                None => None,
                Some(RequirementType::Requires(proto)) => Some(requirements.add(proto, here.field("requires"))?),
                Some(RequirementType::RequirementName(name)) => {
                    let known = named.get(&*name).copied();
                    Some(known.ok_or_else(|| here.field("requirement_name").error(wrong_name(&name, &named)))?)
                }
            };
            Ok((condition, requirement))
        });
        let rules = of_rules.collect::<Result<_, ConfigError>>()?;
        let by_state = match filter_state_rules {
            None => None,
            Some(proto::FilterStateRule { name, requires }) => {
                let here = at.field("filter_state_rules");
                let here = here.field("requires");
                let mut by_value = BTreeMap::new();
                for (value, proto) in requires {
                    let requirement = requirements.add(proto, here.key(&value))?;
                    by_value.insert(value.into_boxed_str(), requirement);
                }
                Some((name.into_boxed_str(), by_value))
            }
        };
        let requirements = requirements.all;
        let own_headers = parsed.iter().flat_map(|provider: &Provider| provider.forwarding.headers().cloned());
        Ok(Self {
            own_headers: own_headers.collect(),
            providers: parsed,
            by_issuer,
            requirements,
            rules,
            named,
            by_state,
            bypass_cors_preflight,
            strip_failure_response,
            stat_prefix: stat_prefix.into(),
        })
    }

    /// What the names of the filter's statistics begin with, below `http.<stat_prefix>.`.
    #[must_use]
    pub fn stat_prefix(&self) -> String {
        if self.stat_prefix.is_empty() { "jwt_authn.".to_owned() } else { format!("jwt_authn.{}.", self.stat_prefix) }
    }

    /// All providers.
    #[must_use]
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    pub(super) fn provider(&self, n: usize) -> Option<&Provider> {
        self.providers.get(n)
    }

    /// The far keys of a provider that has such.
    pub(super) fn remote(&self, n: usize) -> Option<&RemoteJwks> {
        match &self.provider(n)?.keys {
            Keys::Remote(remote) => Some(remote),
            Keys::Local(_) => None,
        }
    }

    /// The provider, if there is one only.
    pub(super) fn only_provider(&self) -> Option<&Provider> {
        if let [only] = &self.providers[..] { Some(only) } else { None }
    }

    /// The provider of an issuer's tokens, or else that of anybody's.
    pub(super) fn provider_of(&self, issuer: &str) -> Option<usize> {
        self.by_issuer.get(issuer).or_else(|| self.by_issuer.get("")).copied()
    }

    pub(super) fn requirement(&self, n: usize) -> Option<&Requirement> {
        self.requirements.get(n)
    }

    /// The requirement for a request that its route says nothing about.
    pub(super) fn requirement_for(&self, head: &RequestHead, state: &FilterState) -> Option<usize> {
        if let Some((_, requirement)) = self.rules.iter().find(|(rule, _)| rule.matches(head)) {
            return *requirement;
        }
        let (name, by_value) = self.by_state.as_ref()?;
        let value = state.find(name).and_then(Object::text)?;
        by_value.get(std::str::from_utf8(value).ok()?).copied()
    }

    /// The requirement that a route names.
    ///
    /// # Errors
    /// With Envoy's words, when there is none of the name.
    pub(super) fn requirement_of(&self, route: &RouteRequirement) -> Result<Option<usize>, String> {
        match route {
            RouteRequirement::Disabled => Ok(None),
            RouteRequirement::Named(name) => match self.named.get(name) {
                Some(requirement) => Ok(Some(*requirement)),
                None => Err(wrong_name(name, &self.named)),
            },
        }
    }
}

impl RouteRequirement {
    /// Understands what a route says.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn parse(proto: proto::PerRouteConfig, at: At<'_>) -> Result<Self, ConfigError> {
        let proto::PerRouteConfig { requirement_specifier } = proto;
        match at.required("requirement_specifier", requirement_specifier)? {
            RequirementSpecifier::Disabled(_) => Ok(Self::Disabled),
            RequirementSpecifier::RequirementName(name) => Ok(Self::Named(name.into())),
        }
    }
}

fn wrong_name(name: &str, named: &BTreeMap<Box<str>, usize>) -> String {
    let all = named.keys().map(|name| &**name).collect::<Vec<_>>().join(",");
    format!("Wrong requirement_name: {name}. It should be one of [{all}]")
}

/// Requirements as they are parsed.
struct Requirements<'p> {
    names: BTreeMap<String, usize>,
    providers: &'p [Provider],
    all: Vec<Requirement>,
}

impl Requirements<'_> {
    fn add(&mut self, proto: proto::JwtRequirement, at: At<'_>) -> Result<usize, ConfigError> {
        let nested = self.nested(proto, at)?;
        self.all.push(Requirement::new(nested, self.providers));
        Ok(self.all.len() - 1)
    }

    fn nested(&self, proto: proto::JwtRequirement, at: At<'_>) -> Result<Nested, ConfigError> {
        let proto::JwtRequirement { requires_type } = proto;
        let provider = |name: &str| {
            let known = self.names.get(name).copied();
            known.ok_or_else(|| at.error(format_args!("Required provider ['{name}'] is not configured.")))
        };
        let several = |protos: Vec<proto::JwtRequirement>, name| {
            let list = at.field(name);
            let list = list.field("requirements");
            let nested = protos.into_iter().enumerate().map(|(n, proto)| self.nested(proto, list.index(n)));
            nested.collect::<Result<Vec<_>, ConfigError>>()
        };
        Ok(match requires_type {
            None => Nested::Nothing,
            Some(RequiresType::ProviderName(name)) => Nested::Provider(provider(&name)?, None),
            Some(RequiresType::ProviderAndAudiences(proto::ProviderWithAudiences { provider_name, audiences })) => {
                let own = (!audiences.is_empty()).then(|| Audiences::new(&audiences));
                Nested::Provider(provider(&provider_name)?, own)
            }
            Some(RequiresType::RequiresAny(proto::JwtRequirementOrList { requirements })) => {
                Nested::Any(several(requirements, "requires_any")?)
            }
            Some(RequiresType::RequiresAll(proto::JwtRequirementAndList { requirements })) => {
                Nested::All(several(requirements, "requires_all")?)
            }
            Some(RequiresType::AllowMissingOrFailed(Empty {})) => Nested::Anybody(Forgiven::Failed),
            Some(RequiresType::AllowMissing(Empty {})) => Nested::Anybody(Forgiven::Missing),
            Some(RequiresType::ExtractOnlyWithoutValidation(only)) => {
                let proto::ExtractOnlyWithoutValidation { verification_status_header } = only;
                let name = Some(verification_status_header).filter(|name| !name.is_empty());
                Nested::Unverified(header(name.as_deref().unwrap_or(VERIFIED), &at)?)
            }
        })
    }
}

fn provider(
    name: &str,
    proto: proto::JwtProvider,
    at: At<'_>,
    context: ParseContext<'_>,
) -> Result<Provider, ConfigError> {
    let proto::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = proto;
    let places = Places {
        headers: from_headers.into_iter().map(|it| place(it, at.field("from_headers"))).collect::<Result<_, _>>()?,
        parameters: from_params.into_iter().map(Into::into).collect(),
        cookies: from_cookies.into_iter().map(Into::into).collect(),
    };
    let optional_header = |field, name: &str| {
        let here: At<'_> = at.field(field);
        if name.is_empty() { Ok(None) } else { header(name, &here).map(Some) }
    };
    let NormalizePayload { space_delimited_claims } = normalize_payload_in_metadata.unwrap_or_default();
    let claims = claim_to_headers.into_iter().map(|it| claim(name, it, &at)).collect::<Result<_, _>>()?;
    let forwarding = Forwarding {
        token: forward,
        payload_header: optional_header("forward_payload_header", &forward_payload_header)?,
        pad_payload: pad_forward_payload_header,
        claims,
        payload_metadata: payload_in_metadata.into(),
        header_metadata: header_in_metadata.into(),
        failure_metadata: failed_status_in_metadata.into(),
        space_delimited: space_delimited_claims.into_iter().map(Into::into).collect(),
        clear_route_cache,
    };
    let max_lifetime = max_lifetime.map(|max| duration(&at.field("max_lifetime"), &max)).transpose()?;
    Ok(Provider {
        issuer: issuer.into(),
        audiences: Audiences::new(&audiences),
        subjects: subjects.map(|it| StringMatcher::parse(it, at.field("subjects"), context.limits)).transpose()?,
        lifetime: max_lifetime.map(Lifetime::Below).or_else(|| require_expiration.then_some(Lifetime::Finite)),
        clock_skew: if clock_skew_seconds == 0 { CLOCK_SKEW } else { clock_skew_seconds.into() },
        places: places.or_usual(),
        keys: keys(name, at.required("jwks_source_specifier", jwks_source_specifier)?, &at, context)?,
        forwarding,
        cache: jwt_cache_config.map(|proto::JwtCacheConfig { jwt_cache_size, jwt_max_token_size }| {
            let or = |n: u32, usual| if n == 0 { usual } else { usize::try_from(n).unwrap_or(usize::MAX) };
            CacheSize { tokens: or(jwt_cache_size, CACHED_TOKENS), token_length: or(jwt_max_token_size, CACHED_LENGTH) }
        }),
    })
}

fn keys(name: &str, source: JwksSourceSpecifier, at: &At<'_>, context: ParseContext<'_>) -> Result<Keys, ConfigError> {
    match source {
        JwksSourceSpecifier::LocalJwks(source) => {
            let text = (context.read)(&at.field("local_jwks"), source)?;
            if text.is_empty() {
                return Ok(Keys::Local(None));
            }
            let jwks = Jwks::parse(&text).map_err(|failure| {
                let why = failure.text();
                at.error(format_args!("Provider '{name}' in jwt_authn config has invalid local jwks: {why}"))
            })?;
            Ok(Keys::Local(Some(Arc::new(jwks))))
        }
        JwksSourceSpecifier::RemoteJwks(proto) => {
            let here = at.field("remote_jwks");
            Ok(Keys::Remote(Box::new(RemoteJwks::parse(name, proto, &here, context)?)))
        }
    }
}

fn place(proto: proto::JwtHeader, at: At<'_>) -> Result<(HeaderKey, Box<str>), ConfigError> {
    let proto::JwtHeader { name, value_prefix } = proto;
    let key = HeaderKey::parse(&name).ok_or_else(|| at.error(format_args!("'{name}' is not a header name")))?;
    Ok((key, value_prefix.into()))
}

fn claim(
    provider: &str,
    proto: proto::JwtClaimToHeader,
    at: &At<'_>,
) -> Result<(Vec<Box<str>>, HeaderName), ConfigError> {
    let proto::JwtClaimToHeader { header_name, claim_name, claim_path } = proto;
    let path: Vec<Box<str>> = match (claim_name.is_empty(), claim_path.is_empty()) {
        (false, true) => claim_name.split('.').map(Into::into).collect(),
        (true, false) => claim_path.into_iter().map(|PathSegment { key }| key.into()).collect(),
        _ => {
            return Err(at.error(format_args!(
                "Provider '{provider}' has a claim_to_headers entry for header '{header_name}' which does not set exactly \
                 one of claim_name and claim_path"
            )));
        }
    };
    Ok((path, header(&header_name, &at.field("claim_to_headers"))?))
}

fn header(name: &str, at: &At<'_>) -> Result<HeaderName, ConfigError> {
    let lower = name.to_ascii_lowercase();
    HeaderName::parse(lower.as_bytes()).ok_or_else(|| at.error(format_args!("'{name}' is not a header name")))
}

/// How long keys are kept that were fetched, where the configuration does not say.
pub(super) const CACHED_KEYS: Duration = Duration::from_secs(600);

#[cfg(test)]
pub(super) mod tests;

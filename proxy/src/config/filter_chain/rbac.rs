//! `envoy.filters.network.rbac`: which connections may speak.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as extension;
use filters::config::duration::duration;
use filters::config::{At, ConfigError};
use filters::matcher::RegexLimits;
use filters::rbac::{Engine, Layer, Scope, joined};

/// The filter.
#[derive(Debug)]
pub struct RbacConfig {
    /// Prefix of `allowed` and `denied`, with its last dot.
    pub prefix: Arc<str>,
    /// Prefix of `shadow_allowed` and `shadow_denied`, with its last dot.
    pub shadow_prefix: Arc<str>,
    /// What is enforced; `None` allows and does not count.
    pub rules: Option<Engine>,
    /// What is only counted.
    pub shadow: Option<Engine>,
    /// Prefix of what the shadow rules leave in the dynamic metadata.
    pub shadow_metadata_prefix: Box<str>,
    /// Asked whenever the client says something (`CONTINUOUS`), not only the first time.
    pub continuous: bool,
    /// How long a denied connection is left waiting for its end; zero: not at all.
    pub delay_deny: Duration,
}

impl RbacConfig {
    /// Parses the filter's configuration.
    pub(super) fn parse(at: &At<'_>, config: extension::Rbac) -> Result<Self, ConfigError> {
        let extension::Rbac {
            rules,
            matcher,
            shadow_rules,
            shadow_matcher,
            shadow_rules_stat_prefix,
            stat_prefix,
            enforcement_type,
            delay_deny,
        } = config;
        if stat_prefix.is_empty() {
            return Err(at.field("stat_prefix").error("value length must be at least 1 characters"));
        }
        let Ok(enforcement) = extension::rbac::EnforcementType::try_from(enforcement_type) else {
            return Err(at.field("enforcement_type").error("value must be one of the defined enum values"));
        };
        let prefix = joined(&stat_prefix, "rbac");
        let shadow_prefix = joined(&prefix, &shadow_rules_stat_prefix);
        let scope = Scope { layer: Layer::Network, limits: RegexLimits::default() };
        Ok(Self {
            prefix: prefix.into(),
            shadow_prefix: shadow_prefix.into(),
            rules: Engine::parse(at, ("rules", rules), ("matcher", matcher), scope)?,
            shadow: Engine::parse(at, ("shadow_rules", shadow_rules), ("shadow_matcher", shadow_matcher), scope)?,
            shadow_metadata_prefix: shadow_rules_stat_prefix.into(),
            continuous: enforcement == extension::rbac::EnforcementType::Continuous,
            delay_deny: match &delay_deny {
                Some(delay) => duration(&at.field("delay_deny"), delay)?,
                None => Duration::ZERO,
            },
        })
    }
}

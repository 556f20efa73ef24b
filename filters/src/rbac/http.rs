//! `envoy.filters.http.rbac`: which requests may pass.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as proto;
use serde_json::{Map, Value, json};
use stats::{GroupHandle, SharedCounter, Store};

use super::{Caller, Engine, Judgement, Layer, RbacShadowStats, RbacStats, Scope, joined};
use crate::config::{At, ConfigError};
use crate::http::RequestHead;
use crate::http_filter::{FilterSettings, Reply, RequestContext, Verdict};
use crate::matcher::RegexLimits;
use crate::stream_info::Metadata;

/// Where verdicts are written down.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// The settings of a filter, or what a route says instead.
#[derive(Debug)]
pub struct RbacConfig {
    rules: Option<Engine>,
    shadow: Option<Engine>,
    rules_prefix: Box<str>,
    shadow_prefix: Box<str>,
    per_policy: bool,
}

impl RbacConfig {
    /// Understands the filter's configuration.
    ///
    /// # Errors
    /// As [`Engine::parse`].
    pub fn parse(proto: proto::Rbac, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let proto::Rbac {
            rules,
            rules_stat_prefix,
            matcher,
            shadow_rules,
            shadow_matcher,
            shadow_rules_stat_prefix,
            track_per_rule_stats,
        } = proto;
        let scope = Scope { layer: Layer::Http, limits };
        Ok(Self {
            rules: Engine::parse(&at, ("rules", rules), ("matcher", matcher), scope)?,
            shadow: Engine::parse(&at, ("shadow_rules", shadow_rules), ("shadow_matcher", shadow_matcher), scope)?,
            rules_prefix: rules_stat_prefix.into(),
            shadow_prefix: shadow_rules_stat_prefix.into(),
            per_policy: track_per_rule_stats,
        })
    }

    /// Understands what a route says; `None` switches the filter off for it.
    ///
    /// # Errors
    /// As [`Engine::parse`].
    pub fn parse_of_route(
        proto: proto::RbacPerRoute,
        at: At<'_>,
        limits: RegexLimits,
    ) -> Result<Option<Self>, ConfigError> {
        let proto::RbacPerRoute { rbac } = proto;
        rbac.map(|rbac| Self::parse(rbac, at.field("rbac"), limits)).transpose()
    }
}

/// The filter of a chain on one worker.
pub struct Rbac {
    config: Arc<RbacConfig>,
    store: Arc<Store>,
    stats: RbacStats,
    shadow: RbacShadowStats,
    /// `….policy.`, with the prefixes of the rules' and of the shadow rules' statistics.
    policies: [String; 2],
    /// Of the policies that matched something, by their names.
    counters: RefCell<HashMap<String, SharedCounter>>,
    _groups: (Arc<GroupHandle<RbacStats>>, Arc<GroupHandle<RbacShadowStats>>),
}

impl Rbac {
    /// A filter that counts under this prefix (`http.<stat_prefix>.`), as the worker of this index.
    #[must_use]
    pub fn new(config: Arc<RbacConfig>, store: &Arc<Store>, prefix: &str, worker: usize) -> Self {
        let prefix = format!("{prefix}rbac.");
        let (enforced, shadow) = (joined(&prefix, &config.rules_prefix), joined(&prefix, &config.shadow_prefix));
        let groups = (store.group::<RbacStats>(&enforced), store.group::<RbacShadowStats>(&shadow));
        Self {
            config,
            store: Arc::clone(store),
            stats: groups.0.shard(worker),
            shadow: groups.1.shard(worker),
            policies: [format!("{enforced}policy."), format!("{shadow}policy.")],
            counters: RefCell::default(),
            _groups: groups,
        }
    }

    /// Decides over a request.
    pub fn decode_head(&self, head: &RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        let settings = context.route.as_ref().and_then(|route| route.settings.first().copied());
        let of_route = match settings {
            Some(FilterSettings::Rbac(None)) => return Verdict::Continue,
            Some(FilterSettings::Rbac(Some(config))) => Some(&**config),
            _ => None,
        };
        let config = of_route.unwrap_or(&self.config);
        let info = &*context.info;
        let mut verdicts = Map::new();
        let shadow = config.shadow.as_ref().map(|rules| rules.judge(&Caller::of(head, info)));
        let enforced = config.rules.as_ref().map(|rules| rules.judge(&Caller::of(head, info)));
        if let Some(judgement) = shadow {
            if judgement.allowed {
                self.shadow.shadow_allowed().inc()
            } else {
                self.shadow.shadow_denied().inc()
            }
            self.note(config, true, &judgement, &mut verdicts);
        }
        if let Some(judgement) = enforced {
            self.note(config, false, &judgement, &mut verdicts);
        }
        let mut metadata = Metadata::new();
        if !verdicts.is_empty() {
            metadata.insert(NAMESPACE.to_owned(), Value::Object(verdicts));
        }
        if let Some(log) = enforced.and_then(|judgement| judgement.log) {
            let mut hint = Metadata::new();
            hint.insert("envoy.common".to_owned(), json!({"access_log_hint": log}));
            context.info.add_metadata(hint);
        }
        let Some(judgement) = enforced.filter(|judgement| !judgement.allowed) else {
            if enforced.is_some() {
                self.stats.allowed().inc();
            }
            context.info.add_metadata(metadata);
            return Verdict::Continue;
        };
        self.stats.denied().inc();
        Verdict::Reply(Box::new(Reply {
            status: 403,
            body: Bytes::from_static(b"RBAC: access denied"),
            details: judgement.details().into(),
            metadata,
            ..Reply::default()
        }))
    }

    /// Writes a judgement down, and counts it by its policy.
    fn note(&self, config: &RbacConfig, shadow: bool, judgement: &Judgement<'_>, verdicts: &mut Map<String, Value>) {
        let (kind, own, default) = if shadow {
            ("shadow", &config.shadow_prefix, &self.config.shadow_prefix)
        } else {
            ("enforced", &config.rules_prefix, &self.config.rules_prefix)
        };
        let prefix = if own.is_empty() { default } else { own };
        let result = if judgement.allowed { "allowed" } else { "denied" };
        if let Some(policy) = judgement.policy {
            verdicts.insert(format!("{prefix}{kind}_effective_policy_id"), policy.into());
        }
        verdicts.insert(format!("{prefix}{kind}_engine_result"), result.into());
        if let Some(policy) = judgement.policy.filter(|_| config.per_policy) {
            let name = format!(
                "{}{policy}.{}{result}",
                self.policies[usize::from(shadow)],
                if shadow { "shadow_" } else { "" }
            );
            let mut counters = self.counters.borrow_mut();
            counters.entry(name).or_insert_with_key(|name| self.store.counter(name)).inc();
        }
    }
}

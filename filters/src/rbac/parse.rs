//! From `envoy.config.rbac.v3` to rules.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher as HeaderProto;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use matcher::filter_state_matcher::Matcher as StateMatcher;
use matcher::path_matcher::Rule as PathRule;

use super::principal::MtlsAuthenticated;
use super::rule::Rule;
use super::{Action, Policy, Rules};
use crate::config::{At, ConfigError};
use crate::ledger;
use crate::matcher::{CidrRange, HeaderMatcher, MetadataMatcher, PathTemplate, RegexLimits, StringMatcher};

/// How deep rules may be nested: configuration comes from outside.
const DEEPEST: u32 = 32;

/// What rules are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Connections.
    Network,
    /// Requests.
    Http,
}

/// Where rules are, and what they may cost.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// What they are asked about.
    pub layer: Layer,
    /// Of their regular expressions.
    pub limits: RegexLimits,
}

ledger! {
    /// What rules may say that Legate does not do.
    pub mod rules_unsupported for "envoy.config.rbac.v3.RBAC" {
        audit_logging_options => Refuse, "nothing would be recorded";
    }
}

ledger! {
    /// What a policy may say that Legate does not do.
    pub mod policy_unsupported for "envoy.config.rbac.v3.Policy" {
        condition => Refuse, "expressions are not evaluated";
        checked_condition => Refuse, "expressions are not evaluated";
        cel_config => Refuse, "expressions are not evaluated";
    }
}

ledger! {
    /// What a permission may say that Legate does not do.
    pub mod permission_unsupported for "envoy.config.rbac.v3.Permission" {
        matcher => Refuse, "extensions of permissions are not there";
    }
}

ledger! {
    /// What a matcher of filter state may say that Legate does not do.
    pub mod state_unsupported for "envoy.type.matcher.v3.FilterStateMatcher" {
        address_match => Refuse, "no object of the filter state is an address";
    }
}

impl Rules {
    /// Understands a set of policies.
    ///
    /// # Errors
    /// In Envoy's words where a rule is not complete, or where it is about something that this layer does not have.
    pub fn parse(at: &At<'_>, rules: proto::Rbac, scope: Scope) -> Result<Self, ConfigError> {
        let proto::Rbac { action, policies, audit_logging_options } = rules;
        at.unsupported(&rules_unsupported::audit_logging_options, &audit_logging_options)?;
        let here = at.field("policies");
        // The first that matches is the one that is named, and names are in order.
        let policies: BTreeMap<_, _> = policies.into_iter().collect();
        let policies = policies.into_iter().map(|(name, policy)| scope.policy(&here.key(&name), &name, policy));
        Ok(Self { action: Action::parse(at, action)?, policies: policies.collect::<Result<_, _>>()? })
    }
}

impl Action {
    pub(super) fn parse(at: &At<'_>, number: i32) -> Result<Self, ConfigError> {
        match proto::rbac::Action::try_from(number) {
            Ok(proto::rbac::Action::Allow) => Ok(Self::Allow),
            Ok(proto::rbac::Action::Deny) => Ok(Self::Deny),
            Ok(proto::rbac::Action::Log) => Ok(Self::Log),
            Err(_) => Err(at.field("action").error("value must be one of the defined enum values")),
        }
    }
}

impl Scope {
    fn policy(self, at: &At<'_>, name: &str, policy: proto::Policy) -> Result<Policy, ConfigError> {
        let proto::Policy { permissions, principals, condition, checked_condition, cel_config } = policy;
        at.unsupported(&policy_unsupported::condition, &condition)?;
        at.unsupported(&policy_unsupported::checked_condition, &checked_condition)?;
        at.unsupported(&policy_unsupported::cel_config, &cel_config)?;
        let (may, who) = (at.field("permissions"), at.field("principals"));
        Ok(Policy {
            name: name.into(),
            permissions: list(&may, permissions, 0, |at, proto, depth| self.permission(at, proto, depth))?,
            principals: list(&who, principals, 0, |at, proto, depth| self.principal(at, proto, depth))?,
        })
    }

    fn permission(self, at: &At<'_>, permission: proto::Permission, depth: u32) -> Result<Rule, ConfigError> {
        use permission_unsupported as unsupported;
        use proto::permission::Rule as Proto;
        let proto::Permission { rule } = permission;
        let set = |name, rules: proto::permission::Set| {
            let at = at.field(name);
            list(&at.field("rules"), rules.rules, depth, |at, proto, depth| self.permission(at, proto, depth))
        };
        Ok(match at.required("rule", rule)? {
            Proto::AndRules(rules) => Rule::All(set("and_rules", rules)?),
            Proto::OrRules(rules) => Rule::Any(set("or_rules", rules)?),
            Proto::NotRule(_) if depth > DEEPEST => return Err(at.error("rules are nested too deep")),
            Proto::NotRule(rule) => Rule::Not(Box::new(self.permission(&at.field("not_rule"), *rule, depth + 1)?)),
            Proto::Any(true) => Rule::Constant(true),
            Proto::Any(false) => return Err(at.field("any").error("value must equal true")),
            Proto::Header(header) => self.header(&at.field("header"), header)?,
            Proto::UrlPath(path) => self.path(&at.field("url_path"), path)?,
            Proto::DestinationIp(range) => Rule::Destination(CidrRange::parse(&range, at.field("destination_ip"))?),
            Proto::DestinationPort(port) if port > 65535 => {
                return Err(at.field("destination_port").error("value must be less than or equal to 65535"));
            }
            Proto::DestinationPort(port) => Rule::DestinationPort(port.into(), i64::from(port) + 1),
            Proto::DestinationPortRange(range) => {
                let (start, end) = (range.start, range.end);
                let at = at.field("destination_port_range");
                if !(0..=65536).contains(&start) {
                    return Err(at.error(format_args!("range start {start} is out of bounds")));
                }
                if !(0..=65536).contains(&end) {
                    return Err(at.error(format_args!("range end {end} is out of bounds")));
                }
                if start >= end {
                    let message = format_args!("range start {start} cannot be greater or equal than range end {end}");
                    return Err(at.error(message));
                }
                Rule::DestinationPort(start.into(), end.into())
            }
            Proto::RequestedServerName(matcher) => {
                Rule::ServerName(StringMatcher::parse(matcher, at.field("requested_server_name"), self.limits)?)
            }
            #[expect(deprecated, reason = "deprecated fields are honoured as well")]
            Proto::Metadata(metadata) => self.dynamic_metadata(at.field("metadata"), metadata)?,
            Proto::SourcedMetadata(metadata) => self.sourced_metadata(&at.field("sourced_metadata"), metadata)?,
            Proto::Matcher(value) => never(at.unsupported(&unsupported::matcher, &Some(value)))?,
            Proto::UriTemplate(value) => Rule::PathTemplate(PathTemplate::parse(&at.field("uri_template"), value)?),
        })
    }

    fn principal(self, at: &At<'_>, principal: proto::Principal, depth: u32) -> Result<Rule, ConfigError> {
        use proto::principal::Identifier as Proto;
        let proto::Principal { identifier } = principal;
        let set = |name, ids: proto::principal::Set| {
            let at = at.field(name);
            list(&at.field("ids"), ids.ids, depth, |at, proto, depth| self.principal(at, proto, depth))
        };
        Ok(match at.required("identifier", identifier)? {
            Proto::AndIds(ids) => Rule::All(set("and_ids", ids)?),
            Proto::OrIds(ids) => Rule::Any(set("or_ids", ids)?),
            Proto::NotId(_) if depth > DEEPEST => return Err(at.error("rules are nested too deep")),
            Proto::NotId(id) => Rule::Not(Box::new(self.principal(&at.field("not_id"), *id, depth + 1)?)),
            Proto::Any(true) => Rule::Constant(true),
            Proto::Any(false) => return Err(at.field("any").error("value must equal true")),
            Proto::Authenticated(proto::principal::Authenticated { principal_name }) => {
                let at = at.field("authenticated");
                let name = |matcher| StringMatcher::parse(matcher, at.field("principal_name"), self.limits);
                Rule::Authenticated(principal_name.map(name).transpose()?)
            }
            #[expect(deprecated, reason = "deprecated fields are honoured as well")]
            Proto::SourceIp(range) => Rule::Source(CidrRange::parse(&range, at.field("source_ip"))?),
            Proto::RemoteIp(range) => Rule::Remote(CidrRange::parse(&range, at.field("remote_ip"))?),
            Proto::DirectRemoteIp(range) => Rule::DirectRemote(CidrRange::parse(&range, at.field("direct_remote_ip"))?),
            Proto::Header(header) => self.header(&at.field("header"), header)?,
            Proto::UrlPath(path) => self.path(&at.field("url_path"), path)?,
            #[expect(deprecated, reason = "deprecated fields are honoured as well")]
            Proto::Metadata(metadata) => self.dynamic_metadata(at.field("metadata"), metadata)?,
            Proto::SourcedMetadata(metadata) => self.sourced_metadata(&at.field("sourced_metadata"), metadata)?,
            Proto::FilterState(state) => self.filter_state(&at.field("filter_state"), state)?,
            Proto::Custom(custom) => {
                Rule::MtlsAuthenticated(MtlsAuthenticated::parse(&at.field("custom"), custom, self.limits)?)
            }
        })
    }

    /// A connection has no headers, and Envoy does not take rules about them there.
    fn header(self, at: &At<'_>, header: HeaderProto) -> Result<Rule, ConfigError> {
        match self.layer {
            Layer::Http => HeaderMatcher::parse(header, *at, self.limits).map(Rule::Header),
            Layer::Network => {
                Err(at.error(format_args!("Found header({}) rule,not supported by RBAC network filter", header.name)))
            }
        }
    }

    fn path(self, at: &At<'_>, path: matcher::PathMatcher) -> Result<Rule, ConfigError> {
        let matcher::PathMatcher { rule } = path;
        match at.required("rule", rule)? {
            PathRule::Path(path) => StringMatcher::parse(path, at.field("path"), self.limits).map(Rule::Path),
        }
    }

    fn dynamic_metadata(self, at: At<'_>, metadata: matcher::MetadataMatcher) -> Result<Rule, ConfigError> {
        MetadataMatcher::parse(metadata, at, self.limits).map(Rule::DynamicMetadata)
    }

    fn sourced_metadata(self, at: &At<'_>, metadata: proto::SourcedMetadata) -> Result<Rule, ConfigError> {
        let proto::SourcedMetadata { metadata_matcher, metadata_source } = metadata;
        let matcher = at.required("metadata_matcher", metadata_matcher)?;
        let matcher = MetadataMatcher::parse(matcher, at.field("metadata_matcher"), self.limits)?;
        match proto::MetadataSource::try_from(metadata_source) {
            Ok(proto::MetadataSource::Dynamic) => Ok(Rule::DynamicMetadata(matcher)),
            Ok(proto::MetadataSource::Route) => Ok(Rule::RouteMetadata(matcher)),
            Err(_) => Err(at.field("metadata_source").error("value must be one of the defined enum values")),
        }
    }

    fn filter_state(self, at: &At<'_>, state: matcher::FilterStateMatcher) -> Result<Rule, ConfigError> {
        let matcher::FilterStateMatcher { key, matcher } = state;
        if key.is_empty() {
            return Err(at.field("key").error("value length must be at least 1 characters"));
        }
        match at.required("matcher", matcher)? {
            StateMatcher::StringMatch(matcher) => {
                let matcher = StringMatcher::parse(matcher, at.field("string_match"), self.limits)?;
                Ok(Rule::FilterState(key.into(), matcher))
            }
            StateMatcher::AddressMatch(value) => never(at.unsupported(&state_unsupported::address_match, &Some(value))),
        }
    }
}

fn list<T>(
    at: &At<'_>,
    protos: Vec<T>,
    depth: u32,
    parse: impl Fn(&At<'_>, T, u32) -> Result<Rule, ConfigError>,
) -> Result<Box<[Rule]>, ConfigError> {
    if protos.is_empty() {
        return Err(at.error("value must contain at least 1 item(s)"));
    }
    if depth > DEEPEST {
        return Err(at.error("rules are nested too deep"));
    }
    protos.into_iter().enumerate().map(|(index, proto)| parse(&at.index(index), proto, depth + 1)).collect()
}

/// A rule the operator chose to load without.
fn never(refused: Result<(), ConfigError>) -> Result<Rule, ConfigError> {
    refused.map(|()| Rule::Constant(false))
}

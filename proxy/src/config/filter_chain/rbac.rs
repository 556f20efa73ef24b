//! `envoy.filters.network.rbac`: which connections may speak, by what is known of a connection without TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as extension;
use filters::config::{At, ConfigError, Entry};
use filters::ledger;
use filters::matcher::{CidrRange, RegexLimits, StringMatcher};
use filters::stream_info::{Address, ConnectionInfo};

/// How deep rules may be nested: configuration comes from outside.
const DEEPEST: u32 = 32;

/// The filter.
#[derive(Debug)]
pub struct RbacConfig {
    /// Prefix of `allowed` and `denied`, with its last dot.
    pub prefix: Arc<str>,
    /// Prefix of `shadow_allowed` and `shadow_denied`, with its last dot.
    pub shadow_prefix: Arc<str>,
    /// What is enforced; `None` allows and does not count.
    pub rules: Option<Rules>,
    /// What is only counted.
    pub shadow: Option<Rules>,
}

/// `RBAC`: policies, and what becomes of a connection that matches one.
#[derive(Debug)]
pub struct Rules {
    action: Action,
    policies: Vec<Policy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Matching connections are allowed, others are not.
    Allow,
    /// Matching connections are denied.
    Deny,
    /// All are allowed.
    Log,
}

#[derive(Debug)]
struct Policy {
    name: String,
    permissions: Vec<Rule>,
    principals: Vec<Rule>,
}

/// A permission or a principal: what either asks of a connection.
#[derive(Debug)]
enum Rule {
    /// Known already: a connection without TLS has no certificate, and no connection has a path.
    Constant(bool),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Destination(CidrRange),
    /// `[start, end)`
    DestinationPort(i64, i64),
    ServerName(StringMatcher),
    Remote(CidrRange),
    DirectRemote(CidrRange),
}

ledger! {
    /// What the filter may say that Legate does not do.
    pub mod unsupported for "envoy.extensions.filters.network.rbac.v3.RBAC" {
        matcher => Refuse, "connections would not be authorised by it";
        shadow_matcher => Refuse, "its verdicts would not be counted";
        enforcement_type => Warn, "what is known of a connection does not change: it is asked once";
        delay_deny => Warn, "a denied connection is closed at once";
    }
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
        metadata => Refuse, "dynamic metadata is not matched";
        sourced_metadata => Refuse, "dynamic metadata is not matched";
        matcher => Refuse, "extensions of permissions are not there";
        uri_template => Refuse, "connections have no path";
    }
}

ledger! {
    /// What a principal may say that Legate does not do.
    pub mod principal_unsupported for "envoy.config.rbac.v3.Principal" {
        metadata => Refuse, "dynamic metadata is not matched";
        sourced_metadata => Refuse, "dynamic metadata is not matched";
        filter_state => Refuse, "there is no filter state to match";
        custom => Refuse, "extensions of principals are not there";
    }
}

/// The rows of the support ledger about this filter.
pub static LEDGER: &[&[&Entry]] = &[
    unsupported::ALL,
    rules_unsupported::ALL,
    policy_unsupported::ALL,
    permission_unsupported::ALL,
    principal_unsupported::ALL,
];

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
        at.unsupported(&unsupported::matcher, &matcher)?;
        at.unsupported(&unsupported::shadow_matcher, &shadow_matcher)?;
        at.unsupported(&unsupported::enforcement_type, &enforcement_type)?;
        at.unsupported(&unsupported::delay_deny, &delay_deny)?;
        let prefix = joined(&stat_prefix, "rbac.");
        let shadow_prefix = match &*shadow_rules_stat_prefix {
            "" => prefix.clone(),
            text => joined(&format!("{prefix}{text}"), ""),
        };
        let parse = |name: &'static str, rules: Option<proto::Rbac>| {
            rules.map(|rules| Rules::parse(&at.field(name), rules)).transpose()
        };
        Ok(Self {
            prefix: prefix.into(),
            shadow_prefix: shadow_prefix.into(),
            rules: parse("rules", rules)?,
            shadow: parse("shadow_rules", shadow_rules)?,
        })
    }
}

/// A prefix and what follows, with one dot between them.
fn joined(prefix: &str, rest: &str) -> String {
    format!("{}.{rest}", prefix.strip_suffix('.').unwrap_or(prefix))
}

impl Rules {
    fn parse(at: &At<'_>, rules: proto::Rbac) -> Result<Self, ConfigError> {
        let proto::Rbac { action, policies, audit_logging_options } = rules;
        at.unsupported(&rules_unsupported::audit_logging_options, &audit_logging_options)?;
        let action = match proto::rbac::Action::try_from(action) {
            Ok(proto::rbac::Action::Allow) => Action::Allow,
            Ok(proto::rbac::Action::Deny) => Action::Deny,
            Ok(proto::rbac::Action::Log) => Action::Log,
            Err(_) => return Err(at.field("action").error("value must be one of the defined enum values")),
        };
        let here = at.field("policies");
        // The first that matches is the one that is named, and names are in order.
        let policies: BTreeMap<_, _> = policies.into_iter().collect();
        let policies = policies.into_iter().map(|(name, policy)| Policy::parse(&here.key(&name), &name, policy));
        Ok(Self { action, policies: policies.collect::<Result<_, _>>()? })
    }

    /// Whether the connection may go on, and the name of the policy it matches.
    #[must_use]
    pub fn judge(&self, info: &ConnectionInfo) -> (bool, Option<&str>) {
        let matched = self.policies.iter().find(|policy| policy.matches(info)).map(|policy| &*policy.name);
        let allowed = match self.action {
            Action::Allow => matched.is_some(),
            Action::Deny => matched.is_none(),
            Action::Log => true,
        };
        (allowed, matched)
    }
}

impl Policy {
    fn parse(at: &At<'_>, name: &str, policy: proto::Policy) -> Result<Self, ConfigError> {
        let proto::Policy { permissions, principals, condition, checked_condition, cel_config } = policy;
        at.unsupported(&policy_unsupported::condition, &condition)?;
        at.unsupported(&policy_unsupported::checked_condition, &checked_condition)?;
        at.unsupported(&policy_unsupported::cel_config, &cel_config)?;
        Ok(Self {
            name: name.to_owned(),
            permissions: list(&at.field("permissions"), permissions, 0, permission)?,
            principals: list(&at.field("principals"), principals, 0, principal)?,
        })
    }

    fn matches(&self, info: &ConnectionInfo) -> bool {
        self.permissions.iter().any(|rule| rule.matches(info)) && self.principals.iter().any(|rule| rule.matches(info))
    }
}

fn list<T>(
    at: &At<'_>,
    protos: Vec<T>,
    depth: u32,
    parse: impl Fn(&At<'_>, T, u32) -> Result<Rule, ConfigError>,
) -> Result<Vec<Rule>, ConfigError> {
    if protos.is_empty() {
        return Err(at.error("value must contain at least 1 item(s)"));
    }
    if depth > DEEPEST {
        return Err(at.error("rules are nested too deep"));
    }
    protos.into_iter().enumerate().map(|(index, proto)| parse(&at.index(index), proto, depth + 1)).collect()
}

fn permission(at: &At<'_>, permission: proto::Permission, depth: u32) -> Result<Rule, ConfigError> {
    use permission_unsupported as unsupported;
    use proto::permission::Rule as Proto;
    let proto::Permission { rule } = permission;
    let set = |name, rules: proto::permission::Set| {
        list(&at.field(name).field("rules"), rules.rules, depth, self::permission)
    };
    Ok(match at.required("rule", rule)? {
        Proto::AndRules(rules) => Rule::All(set("and_rules", rules)?),
        Proto::OrRules(rules) => Rule::Any(set("or_rules", rules)?),
        Proto::NotRule(_) if depth > DEEPEST => return Err(at.error("rules are nested too deep")),
        Proto::NotRule(rule) => Rule::Not(Box::new(self::permission(&at.field("not_rule"), *rule, depth + 1)?)),
        Proto::Any(true) => Rule::Constant(true),
        Proto::Any(false) => return Err(at.field("any").error("value must equal true")),
        Proto::Header(header) => return Err(no_headers(&at.field("header"), &header)),
        // A connection has no path.
        Proto::UrlPath(_) => Rule::Constant(false),
        Proto::DestinationIp(range) => Rule::Destination(CidrRange::parse(&range, at.field("destination_ip"))?),
        Proto::DestinationPort(port) if port > 65535 => {
            return Err(at.field("destination_port").error("value must be less than or equal to 65535"));
        }
        Proto::DestinationPort(port) => Rule::DestinationPort(port.into(), i64::from(port) + 1),
        Proto::DestinationPortRange(range) => {
            let (start, end) = (range.start, range.end);
            let at = at.field("destination_port_range");
            if !(0..=65536).contains(&start) || !(0..=65536).contains(&end) {
                return Err(at.error(format_args!("range [{start}, {end}) is invalid")));
            }
            if start >= end {
                let message = "start must be less than end";
                return Err(at.error(format_args!("Invalid port range: {message} ({start}, {end})")));
            }
            Rule::DestinationPort(start.into(), end.into())
        }
        Proto::RequestedServerName(matcher) => {
            Rule::ServerName(StringMatcher::parse(matcher, at.field("requested_server_name"), RegexLimits::default())?)
        }
        #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
        Proto::Metadata(value) => never(at.unsupported(&unsupported::metadata, &Some(value)))?,
        Proto::SourcedMetadata(value) => never(at.unsupported(&unsupported::sourced_metadata, &Some(value)))?,
        Proto::Matcher(value) => never(at.unsupported(&unsupported::matcher, &Some(value)))?,
        Proto::UriTemplate(value) => never(at.unsupported(&unsupported::uri_template, &Some(value)))?,
    })
}

fn principal(at: &At<'_>, principal: proto::Principal, depth: u32) -> Result<Rule, ConfigError> {
    use principal_unsupported as unsupported;
    use proto::principal::Identifier as Proto;
    let proto::Principal { identifier } = principal;
    let set = |name, ids: proto::principal::Set| list(&at.field(name).field("ids"), ids.ids, depth, self::principal);
    Ok(match at.required("identifier", identifier)? {
        Proto::AndIds(ids) => Rule::All(set("and_ids", ids)?),
        Proto::OrIds(ids) => Rule::Any(set("or_ids", ids)?),
        Proto::NotId(_) if depth > DEEPEST => return Err(at.error("rules are nested too deep")),
        Proto::NotId(id) => Rule::Not(Box::new(self::principal(&at.field("not_id"), *id, depth + 1)?)),
        Proto::Any(true) => Rule::Constant(true),
        Proto::Any(false) => return Err(at.field("any").error("value must equal true")),
        // Who did not show a certificate is nobody.
        Proto::Authenticated(_) => Rule::Constant(false),
        #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
        Proto::SourceIp(range) => Rule::Remote(CidrRange::parse(&range, at.field("source_ip"))?),
        Proto::RemoteIp(range) => Rule::Remote(CidrRange::parse(&range, at.field("remote_ip"))?),
        Proto::DirectRemoteIp(range) => Rule::DirectRemote(CidrRange::parse(&range, at.field("direct_remote_ip"))?),
        Proto::Header(header) => return Err(no_headers(&at.field("header"), &header)),
        Proto::UrlPath(_) => Rule::Constant(false),
        #[expect(deprecated, reason = "deprecated fields are accounted for as well")]
        Proto::Metadata(value) => never(at.unsupported(&unsupported::metadata, &Some(value)))?,
        Proto::SourcedMetadata(value) => never(at.unsupported(&unsupported::sourced_metadata, &Some(value)))?,
        Proto::FilterState(value) => never(at.unsupported(&unsupported::filter_state, &Some(value)))?,
        Proto::Custom(value) => never(at.unsupported(&unsupported::custom, &Some(value)))?,
    })
}

/// A rule the operator chose to load without.
fn never(refused: Result<(), ConfigError>) -> Result<Rule, ConfigError> {
    refused.map(|()| Rule::Constant(false))
}

/// A connection has no headers, and Envoy does not take rules about them.
fn no_headers(at: &At<'_>, header: &HeaderMatcher) -> ConfigError {
    at.error(format_args!("Found header({}) rule,not supported by RBAC network filter", header.name))
}

impl Rule {
    fn matches(&self, info: &ConnectionInfo) -> bool {
        let within = |range: &CidrRange, address: &Address| address.ip().is_some_and(|ip| range.contains(ip.ip()));
        match self {
            Self::Constant(value) => *value,
            Self::All(rules) => rules.iter().all(|rule| rule.matches(info)),
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(info)),
            Self::Not(rule) => !rule.matches(info),
            Self::Destination(range) => within(range, &info.local),
            Self::DestinationPort(start, end) => {
                info.local.ip().is_some_and(|ip| (*start..*end).contains(&i64::from(ip.port())))
            }
            Self::ServerName(matcher) => matcher.matches(info.requested_server_name.as_bytes()),
            Self::Remote(range) => within(range, &info.remote),
            Self::DirectRemote(range) => within(range, &info.direct_remote),
        }
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::CidrRange as CidrProto;
    use envoy_types::pb::envoy::r#type::v3::Int32Range;
    use envoy_types::pb::google::protobuf::UInt32Value;
    use filters::config::Session;
    use proto::permission::Rule as May;
    use proto::principal::Identifier as Who;

    use super::*;

    fn rules(action: proto::rbac::Action, may: May, who: Who) -> Result<Rules, String> {
        let policy = proto::Policy {
            permissions: vec![proto::Permission { rule: Some(may) }],
            principals: vec![proto::Principal { identifier: Some(who) }],
            ..proto::Policy::default()
        };
        let rules = proto::Rbac {
            action: action.into(),
            policies: [("p".to_owned(), policy)].into(),
            audit_logging_options: None,
        };
        Rules::parse(&Session::default().root(), rules).map_err(|error| error.to_string())
    }

    fn range(text: &str, length: u32) -> CidrProto {
        CidrProto { address_prefix: text.into(), prefix_len: Some(UInt32Value { value: length }) }
    }

    fn connection() -> ConnectionInfo {
        let address = |text: &str| Address::Ip(text.parse().expect("address"));
        ConnectionInfo {
            direct_remote: address("9.9.9.9:9"),
            ..ConnectionInfo::between(address("10.0.0.1:5"), address("127.0.0.1:80"))
        }
    }

    #[test]
    fn a_policy_matches_by_what_is_known_of_a_connection() {
        let not = |rule: May| May::NotRule(Box::new(proto::Permission { rule: Some(rule) }));
        let all = |rules: Vec<May>| {
            let rules = rules.into_iter().map(|rule| proto::Permission { rule: Some(rule) }).collect();
            May::AndRules(proto::permission::Set { rules })
        };
        let ports = |start, end| May::DestinationPortRange(Int32Range { start, end });
        for (may, who, matches) in [
            (May::Any(true), Who::Any(true), true),
            (May::DestinationPort(80), Who::Any(true), true),
            (May::DestinationPort(81), Who::Any(true), false),
            (ports(1, 80), Who::Any(true), false),
            (ports(80, 81), Who::Any(true), true),
            (not(May::DestinationPort(81)), Who::Any(true), true),
            (all(vec![May::DestinationPort(80), May::DestinationIp(range("10.0.0.0", 8))]), Who::Any(true), false),
            (all(vec![May::DestinationPort(80), May::DestinationIp(range("127.0.0.0", 8))]), Who::Any(true), true),
            (May::Any(true), Who::RemoteIp(range("10.0.0.0", 8)), true),
            (May::Any(true), Who::DirectRemoteIp(range("10.0.0.0", 8)), false),
            (May::Any(true), Who::DirectRemoteIp(range("9.0.0.0", 8)), true),
            (May::Any(true), Who::Authenticated(proto::principal::Authenticated::default()), false),
        ] {
            let case = format!("{may:?} {who:?}");
            let allow = |action| {
                let rules = rules(action, may.clone(), who.clone()).expect("valid");
                let (allowed, policy) = rules.judge(&connection());
                (allowed, policy.map(str::to_owned))
            };
            let named = matches.then(|| "p".to_owned());
            assert_eq!(allow(proto::rbac::Action::Allow), (matches, named.clone()), "{case}");
            assert_eq!(allow(proto::rbac::Action::Deny), (!matches, named), "{case}");
            assert!(allow(proto::rbac::Action::Log).0, "{case}");
        }
    }

    #[test]
    fn what_a_connection_does_not_have_is_refused() {
        use proto::rbac::Action::Allow;
        let header = HeaderMatcher { name: "x".into(), ..HeaderMatcher::default() };
        for (outcome, expected) in [
            (rules(Allow, May::Header(header.clone()), Who::Any(true)), "not supported by RBAC network filter"),
            (rules(Allow, May::Any(true), Who::Header(header)), "not supported by RBAC network filter"),
            (rules(Allow, May::Any(false), Who::Any(true)), "value must equal true"),
            (rules(Allow, May::DestinationPort(65536), Who::Any(true)), "less than or equal to 65535"),
            (rules(Allow, May::OrRules(proto::permission::Set::default()), Who::Any(true)), "at least 1 item(s)"),
        ] {
            let error = outcome.expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}

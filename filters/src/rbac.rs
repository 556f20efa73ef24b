//! Role-based access control: who may do what, for connections (`envoy.filters.network.rbac`) and requests
//! (`envoy.filters.http.rbac`).
//!
//! Policies are asked in the order of their names, and the first that matches decides: what it permits and whom it means must
//! both hold. Rules look at what the connection and, where there is one, the request say; a rule about something that
//! is not there does not match. `shadow_rules` are asked the same way, but only counted and written down.

mod http;
mod parse;
mod principal;
mod rule;
mod tree;

#[cfg(test)]
mod tests;

use crate::config::Entry;
use crate::http::RequestHead;
use crate::stream_info::{Address, ConnectionInfo, Metadata, StreamInfo};

pub use self::http::{Rbac, RbacConfig};
pub use self::parse::{Layer, Scope};
use self::rule::Rule;
pub use self::tree::{Engine, Tree};

stats::group! {
    /// `<prefix>rbac.[<rules_stat_prefix>.]`: what is enforced.
    pub struct RbacStats {
        counters { allowed, denied }
    }
}

stats::group! {
    /// `<prefix>rbac.[<shadow_rules_stat_prefix>.]`: what would be enforced.
    pub struct RbacShadowStats {
        counters { shadow_allowed, shadow_denied }
    }
}

/// The rows of the support ledger about rules.
pub static LEDGER: &[&[&Entry]] = &[
    parse::rules_unsupported::ALL,
    parse::policy_unsupported::ALL,
    parse::permission_unsupported::ALL,
    parse::state_unsupported::ALL,
];

/// `RBAC`: policies, and what becomes of who matches one.
#[derive(Debug)]
pub struct Rules {
    action: Action,
    policies: Box<[Policy]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Who matches is allowed, others are not.
    Allow,
    /// Who matches is denied.
    Deny,
    /// All are allowed, and whether they match is written down.
    Log,
}

#[derive(Debug)]
struct Policy {
    name: Box<str>,
    permissions: Box<[Rule]>,
    principals: Box<[Rule]>,
}

/// Who is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The connection.
    pub connection: &'a ConnectionInfo,
    /// The request on it; `None` where connections are asked about.
    pub request: Option<(&'a RequestHead, &'a StreamInfo)>,
}

/// What rules say of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement<'r> {
    /// Whether it may go on.
    pub allowed: bool,
    /// The policy that matches it.
    pub policy: Option<&'r str>,
    /// Whether it is to be logged, by rules that do nothing but say so.
    pub log: Option<bool>,
}

impl Rules {
    /// What these rules say of this caller.
    #[must_use]
    pub fn judge(&self, caller: &Caller<'_>) -> Judgement<'_> {
        let policy = self.policies.iter().find(|policy| policy.matches(caller)).map(|policy| &*policy.name);
        let matched = policy.is_some();
        let (allowed, log) = match self.action {
            Action::Allow => (matched, None),
            Action::Deny => (!matched, None),
            Action::Log => (true, Some(matched)),
        };
        Judgement { allowed, policy, log }
    }
}

impl Policy {
    fn matches(&self, caller: &Caller<'_>) -> bool {
        let any = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(caller));
        any(&self.permissions) && any(&self.principals)
    }
}

impl Judgement<'_> {
    /// The details of who is denied, in logs (`%RESPONSE_CODE_DETAILS%`, `%CONNECTION_TERMINATION_DETAILS%`).
    #[must_use]
    pub fn details(&self) -> String {
        let policy = self.policy.unwrap_or("none").replace(|c: char| c.is_ascii_whitespace(), "_");
        format!("rbac_access_denied_matched_policy[{policy}]")
    }
}

impl<'a> Caller<'a> {
    /// Who makes a request.
    #[must_use]
    pub fn of(head: &'a RequestHead, info: &'a StreamInfo) -> Self {
        Self { connection: &info.connection, request: Some((head, info)) }
    }

    /// The address that is trusted to be the client's.
    fn remote(&self) -> &'a Address {
        self.request.map_or(&self.connection.remote, |(_, info)| &info.remote)
    }

    fn dynamic_metadata(&self) -> Option<&'a Metadata> {
        match self.request {
            Some((_, info)) => info.dynamic_metadata.as_deref(),
            None => self.connection.metadata.as_deref(),
        }
    }

    fn route_metadata(&self) -> Option<&'a Metadata> {
        self.request.and_then(|(_, info)| info.route_metadata.as_deref())
    }
}

/// A prefix of statistics with another one behind it, and one dot between them.
#[must_use]
pub fn joined(prefix: &str, rest: &str) -> String {
    let dotted = |text: &str| if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") };
    dotted(prefix) + &dotted(rest)
}

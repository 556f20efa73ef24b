//! `HeaderMutationRules`: which headers of a request others may change.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutationRules as Proto;
use envoy_types::pb::google::protobuf::BoolValue;

use super::decision::is_value;
use crate::config::{At, ConfigError};
use crate::matcher::{Regex, RegexLimits};

/// What is to become of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// It is made.
    Allowed,
    /// It is not made.
    Ignored,
    /// It is an error.
    Failed,
}

/// A change that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    /// The only header of its name gets this value.
    Set(&'a [u8]),
    /// One more value.
    Append(&'a [u8]),
    /// It goes.
    Remove,
}

/// Compiled rules.
#[derive(Debug)]
pub(super) struct MutationRules {
    allow_all_routing: bool,
    allow_envoy: bool,
    disallow_system: bool,
    disallow_all: bool,
    allow_expression: Option<Regex>,
    disallow_expression: Option<Regex>,
    disallow_is_error: bool,
}

impl MutationRules {
    pub(super) fn parse(proto: Proto, at: At<'_>, limits: RegexLimits) -> Result<Self, ConfigError> {
        let Proto {
            allow_all_routing,
            allow_envoy,
            disallow_system,
            disallow_all,
            allow_expression,
            disallow_expression,
            disallow_is_error,
        } = proto;
        let on = |value: Option<BoolValue>| value.is_some_and(|BoolValue { value }| value);
        let regex = |name, proto: Option<_>| proto.map(|it| Regex::parse(it, at.field(name), limits)).transpose();
        Ok(Self {
            allow_all_routing: on(allow_all_routing),
            allow_envoy: on(allow_envoy),
            disallow_system: on(disallow_system),
            disallow_all: on(disallow_all),
            allow_expression: regex("allow_expression", allow_expression)?,
            disallow_expression: regex("disallow_expression", disallow_expression)?,
            disallow_is_error: on(disallow_is_error),
        })
    }

    /// What is to become of a change to the header of this name, in lower case.
    pub(super) fn permit(&self, change: Change<'_>, name: &str) -> Permission {
        let sensible = match change {
            Change::Set(value) | Change::Append(value) => is_sensible(name, value),
            Change::Remove => true,
        };
        if sensible && self.is_allowed(change, name) {
            Permission::Allowed
        } else if self.disallow_is_error {
            Permission::Failed
        } else {
            Permission::Ignored
        }
    }

    fn is_allowed(&self, change: Change<'_>, name: &str) -> bool {
        let pseudo = name.starts_with(':');
        // Without these a request is none.
        if matches!(change, Change::Remove) && (pseudo || name == "host") {
            return false;
        }
        let matches = |regex: &Option<Regex>| regex.as_ref().is_some_and(|it| it.is_match(name.as_bytes()));
        if matches(&self.disallow_expression) {
            return false;
        }
        if matches(&self.allow_expression) {
            return true;
        }
        if self.disallow_all {
            return false;
        }
        if !self.allow_all_routing && matches!(name, ":method" | ":scheme" | ":authority" | "host") {
            return false;
        }
        if pseudo && (self.disallow_system || matches!(change, Change::Append(_))) {
            return false;
        }
        self.allow_envoy || !name.starts_with("x-envoy")
    }
}

fn is_sensible(name: &str, value: &[u8]) -> bool {
    match name {
        ":scheme" => value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https"),
        _ => name.starts_with(':') || is_value(value),
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;

    use super::*;
    use crate::config::Session;

    const ON: Option<BoolValue> = Some(BoolValue { value: true });

    fn permit(proto: Proto, name: &str, change: Change<'_>) -> Permission {
        let session = Session::default();
        MutationRules::parse(proto, session.root(), RegexLimits::default()).unwrap().permit(change, name)
    }

    #[test]
    fn each_rule_has_its_headers() {
        let regex = |text: &str| Some(RegexMatcher { regex: text.into(), engine_type: None });
        let none = Proto::default;
        let (set, append) = (Change::Set(b"v"), Change::Append(b"v"));
        let (yes, no) = (Permission::Allowed, Permission::Ignored);
        for (rules, name, change, expected) in [
            (none(), "x-a", set, yes),
            (none(), "x-a", Change::Set(b"a\nb"), no),
            (none(), ":path", set, yes),
            (none(), ":path", append, no),
            (none(), ":authority", set, no),
            (none(), "host", set, no),
            (none(), "x-envoy-a", Change::Remove, no),
            (Proto { allow_all_routing: ON, ..none() }, ":authority", set, yes),
            (Proto { allow_all_routing: ON, ..none() }, ":scheme", set, no),
            (Proto { allow_all_routing: ON, ..none() }, ":authority", Change::Remove, no),
            (Proto { allow_envoy: ON, ..none() }, "x-envoy-a", set, yes),
            (Proto { disallow_system: ON, ..none() }, ":path", set, no),
            (Proto { disallow_all: ON, disallow_is_error: ON, ..none() }, "x-a", Change::Remove, Permission::Failed),
            (Proto { disallow_expression: regex("x-.*"), ..none() }, "x-a", set, no),
            (Proto { allow_expression: regex("x-.*"), disallow_all: ON, ..none() }, "x-envoy-a", set, yes),
        ] {
            let shown = format!("{rules:?} {name} {change:?}");
            assert_eq!(permit(rules, name, change), expected, "{shown}");
        }
    }
}

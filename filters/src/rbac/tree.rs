//! Rules in the form of a tree: `matcher` and `shadow_matcher`.

use std::borrow::Cow;

use envoy_types::pb::envoy::config::rbac::v3 as proto;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3 as network;
use envoy_types::pb::envoy::extensions::matching::common_inputs::ssl::v3 as ssl;
use envoy_types::pb::envoy::r#type::matcher::v3::HttpRequestHeaderMatchInput;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;

use super::{Action, Caller, Judgement, Layer, Rules, Scope};
use crate::config::{At, ConfigError};
use crate::http::HeaderKey;
use crate::matcher::{Looked, MatchTree, Outcome, Words, decode, type_name};
use crate::stream_info::Address;
use crate::tls::CertificateFacts;

const ACTION: &str = "envoy.config.rbac.v3.Action";

/// Rules in either form.
#[derive(Debug)]
pub enum Engine {
    /// Policies.
    Rules(Rules),
    /// A tree.
    Tree(Tree),
}

/// A tree whose actions say who may go on. Whom it says nothing of may not.
#[derive(Debug)]
pub struct Tree {
    tree: MatchTree<Input, Named>,
    /// One of its actions does nothing but have callers logged.
    logs: bool,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    action: Action,
}

/// What a condition looks at.
#[derive(Debug)]
enum Input {
    DestinationIp,
    DestinationPort,
    SourceIp,
    SourcePort,
    DirectSourceIp,
    ServerName,
    Header(HeaderKey),
    UriSan,
    DnsSan,
    Subject,
}

impl Engine {
    /// Understands rules: policies, a tree, or none. Where there are both the tree wins, as in Envoy.
    ///
    /// # Errors
    /// As [`Rules::parse`], and where a tree looks at something or does something that is not known.
    pub fn parse(
        at: &At<'_>,
        (rules_name, rules): (&str, Option<proto::Rbac>),
        (matcher_name, matcher): (&str, Option<Matcher>),
        scope: Scope,
    ) -> Result<Option<Self>, ConfigError> {
        let tree = matcher.map(|matcher| Tree::parse(&at.field(matcher_name), matcher, scope)).transpose()?;
        let rules = rules.map(|rules| Rules::parse(&at.field(rules_name), rules, scope)).transpose()?;
        Ok(tree.map(Self::Tree).or_else(|| rules.map(Self::Rules)))
    }

    /// What these rules say of this caller.
    #[must_use]
    pub fn judge(&self, caller: &Caller<'_>) -> Judgement<'_> {
        match self {
            Self::Rules(rules) => rules.judge(caller),
            Self::Tree(tree) => tree.judge(caller),
        }
    }
}

impl Tree {
    fn parse(at: &At<'_>, matcher: Matcher, scope: Scope) -> Result<Self, ConfigError> {
        let input = |at: &At<'_>, name: &str, config: &Any| Input::parse(at, name, config, scope.layer);
        let words = Words { limits: scope.limits, input: &input, action: &Named::parse };
        let tree = MatchTree::parse(at, matcher, &words)?;
        let logs = tree.actions().iter().any(|named| named.action == Action::Log);
        Ok(Self { tree, logs })
    }

    fn judge(&self, caller: &Caller<'_>) -> Judgement<'_> {
        match self.tree.find(&|input| input.look(caller)) {
            Outcome::Action(Named { name, action }) => Judgement {
                allowed: *action != Action::Deny,
                policy: Some(name),
                log: self.logs.then_some(*action == Action::Log),
            },
            Outcome::None | Outcome::Unavailable => Judgement { allowed: false, policy: None, log: None },
        }
    }
}

impl Named {
    fn parse(at: &At<'_>, name: &str, config: &Any) -> Result<Self, ConfigError> {
        let kind = type_name(config);
        if kind != ACTION {
            return Err(at.unknown_extension(name, kind));
        }
        let proto::Action { name, action } = decode(at, config)?;
        if name.is_empty() {
            return Err(at.field("name").error("value length must be at least 1 characters"));
        }
        Ok(Self { name: name.into(), action: Action::parse(at, action)? })
    }
}

impl Input {
    fn parse(at: &At<'_>, name: &str, config: &Any, layer: Layer) -> Result<Self, ConfigError> {
        let kind = type_name(config);
        let known = |family| kind.strip_prefix("envoy.extensions.matching.common_inputs.")?.strip_prefix(family);
        Ok(match (known("network.v3."), known("ssl.v3.")) {
            (Some("DestinationIPInput"), _) => {
                let network::DestinationIpInput {} = decode(at, config)?;
                Self::DestinationIp
            }
            (Some("DestinationPortInput"), _) => {
                let network::DestinationPortInput {} = decode(at, config)?;
                Self::DestinationPort
            }
            (Some("SourceIPInput"), _) => {
                let network::SourceIpInput {} = decode(at, config)?;
                Self::SourceIp
            }
            (Some("SourcePortInput"), _) => {
                let network::SourcePortInput {} = decode(at, config)?;
                Self::SourcePort
            }
            (Some("DirectSourceIPInput"), _) => {
                let network::DirectSourceIpInput {} = decode(at, config)?;
                Self::DirectSourceIp
            }
            (Some("ServerNameInput"), _) => {
                let network::ServerNameInput {} = decode(at, config)?;
                Self::ServerName
            }
            (_, Some("UriSanInput")) => {
                let ssl::UriSanInput {} = decode(at, config)?;
                Self::UriSan
            }
            (_, Some("DnsSanInput")) => {
                let ssl::DnsSanInput {} = decode(at, config)?;
                Self::DnsSan
            }
            (_, Some("SubjectInput")) => {
                let ssl::SubjectInput {} = decode(at, config)?;
                Self::Subject
            }
            _ if kind == "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" && layer == Layer::Http => {
                let HttpRequestHeaderMatchInput { header_name } = decode(at, config)?;
                let bad = || at.field("header_name").error("value does not match the pattern of header names");
                Self::Header(HeaderKey::parse(&header_name).ok_or_else(bad)?)
            }
            _ => return Err(at.unknown_extension(name, kind)),
        })
    }

    fn look<'a>(&self, caller: &Caller<'a>) -> Looked<'a> {
        let connection = caller.connection;
        let text = |value: Option<String>| value.map_or(Looked::None, |text| Looked::At(Cow::Owned(text.into_bytes())));
        let ip = |address: &Address| text(address.ip().map(|address| address.ip().to_string()));
        let port = |address: &Address| text(address.ip().map(|address| address.port().to_string()));
        let peer = |fact: fn(&CertificateFacts) -> String| match connection.tls.get() {
            Some(session) => text(session.peer_certificate().map(fact).filter(|fact| !fact.is_empty())),
            None => Looked::Unavailable,
        };
        match self {
            Self::DestinationIp => ip(&connection.local),
            Self::DestinationPort => port(&connection.local),
            Self::SourceIp => ip(caller.remote()),
            Self::SourcePort => port(caller.remote()),
            Self::DirectSourceIp => ip(&connection.direct_remote),
            Self::ServerName => match connection.requested_server_name.as_bytes() {
                [] => Looked::None,
                name => Looked::At(name.into()),
            },
            Self::Header(key) => {
                let Some((head, _)) = caller.request else { return Looked::None };
                match key {
                    HeaderKey::Name(name) if head.headers.values(name).nth(1).is_some() => {
                        let values: Vec<&[u8]> = head.headers.values(name).map(|value| &value[..]).collect();
                        Looked::At(values.join(&b","[..]).into())
                    }
                    key => head.value(key).map_or(Looked::None, |value| Looked::At(Cow::Borrowed(value))),
                }
            }
            Self::UriSan => peer(|facts| facts.uri_sans.join(",")),
            Self::DnsSan => peer(|facts| facts.dns_sans.join(",")),
            Self::Subject => peer(|facts| facts.subject.clone()),
        }
    }
}

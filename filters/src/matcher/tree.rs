//! `xds.type.matcher.v3.Matcher`: from what is known about a connection or a request to an action, by lists of conditions
//! and by tables.
//!
//! What conditions look at and what comes of it is for the user of the tree to say, by `I` and `A`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::extensions::matching::input_matchers::ip::v3::Ip;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher as StringProto;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig;
use envoy_types::pb::xds::r#type::matcher::v3 as proto;
use prost::Message;
use proto::matcher::matcher_list::predicate::single_predicate::Matcher as SingleMatcher;
use proto::matcher::matcher_list::predicate::{MatchType, PredicateList, SinglePredicate};
use proto::matcher::matcher_list::{FieldMatcher, Predicate as PredicateProto};
use proto::matcher::matcher_tree::{MatchMap, TreeType};
use proto::matcher::{MatcherList, MatcherTree, MatcherType, OnMatch as OnMatchProto};

use super::{CidrSet, RegexLimits, StringMatcher};
use crate::config::{At, ConfigError};
use crate::ledger;

/// What follows from which value.
type Entries<I, A> = Vec<(Box<[u8]>, OnMatch<I, A>)>;

/// How deep trees and conditions may be nested: configuration comes from outside.
const DEEPEST: u32 = 32;

const IP: &str = "envoy.extensions.matching.input_matchers.ip.v3.Ip";

ledger! {
    /// What becomes of a match that Legate does not do.
    pub mod unsupported for "xds.type.matcher.v3.Matcher.OnMatch" {
        keep_matching => Refuse, "matches are not collected";
    }
}

ledger! {
    /// Tables that Legate does not have.
    pub mod tree_unsupported for "xds.type.matcher.v3.Matcher.MatcherTree" {
        custom_match => Refuse, "only tables of exact texts and of prefixes are there";
    }
}

/// A tree: what is looked at by `I`, what comes of it `A`.
#[derive(Debug)]
pub struct MatchTree<I, A> {
    kind: Kind<I, A>,
    on_no_match: Option<Box<OnMatch<I, A>>>,
}

#[derive(Debug)]
enum Kind<I, A> {
    Nothing,
    /// The first whose condition holds, and which comes to an action.
    List(Vec<(Predicate<I>, OnMatch<I, A>)>),
    Exact(I, HashMap<Box<[u8]>, OnMatch<I, A>>),
    /// The longest prefix that comes to an action.
    Prefix(I, BTreeMap<Box<[u8]>, OnMatch<I, A>>),
}

#[derive(Debug)]
enum OnMatch<I, A> {
    Tree(Box<MatchTree<I, A>>),
    Action(A),
}

#[derive(Debug)]
enum Predicate<I> {
    Text(I, StringMatcher),
    Ip(I, CidrSet),
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
}

/// What there is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked<'a> {
    /// A value.
    At(Cow<'a, [u8]>),
    /// None: no condition about it holds.
    None,
    /// There cannot be any, and nothing can be said.
    Unavailable,
}

/// What a tree comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a, A> {
    /// An action.
    Action(&'a A),
    /// None.
    None,
    /// Nothing can be said: something that a condition looks at is unavailable.
    Unavailable,
}

/// How a tree's inputs and actions are understood.
pub struct Words<'p, I, A> {
    /// Of regular expressions.
    pub limits: RegexLimits,
    /// What an input looks at.
    pub input: &'p dyn Fn(&At<'_>, &str, &Any) -> Result<I, ConfigError>,
    /// What an action does.
    pub action: &'p dyn Fn(&At<'_>, &str, &Any) -> Result<A, ConfigError>,
}

impl<I, A> MatchTree<I, A> {
    /// Understands a tree.
    ///
    /// # Errors
    /// When a part is missing or nested too deep, or as inputs and actions are understood.
    pub fn parse(at: &At<'_>, proto: proto::Matcher, words: &Words<'_, I, A>) -> Result<Self, ConfigError> {
        words.tree(at, proto, 0)
    }

    /// What it comes to, given what its inputs find.
    pub fn find<'a, 'v>(&'a self, look: &impl Fn(&I) -> Looked<'v>) -> Outcome<'a, A> {
        let outcome = match &self.kind {
            Kind::Nothing => Outcome::None,
            Kind::List(list) => list
                .iter()
                .find_map(|(predicate, on_match)| match predicate.holds(look) {
                    None => Some(Outcome::Unavailable),
                    Some(false) => None,
                    Some(true) => on_match.find(look).decided(),
                })
                .unwrap_or(Outcome::None),
            Kind::Exact(input, map) => match look(input) {
                Looked::Unavailable => Outcome::Unavailable,
                Looked::None => Outcome::None,
                Looked::At(value) => map.get(&*value).map_or(Outcome::None, |on_match| on_match.find(look)),
            },
            Kind::Prefix(input, map) => match look(input) {
                Looked::Unavailable => Outcome::Unavailable,
                Looked::None => Outcome::None,
                Looked::At(value) => (0..=value.len())
                    .rev()
                    .filter_map(|length| map.get(&value[..length]))
                    .find_map(|on_match| on_match.find(look).decided())
                    .unwrap_or(Outcome::None),
            },
        };
        match (outcome, &self.on_no_match) {
            (Outcome::None, Some(on_match)) => on_match.find(look),
            (outcome, _) => outcome,
        }
    }

    /// Every action of it.
    pub fn actions(&self) -> Vec<&A> {
        let mut actions = Vec::new();
        let mut add = |on_match| OnMatch::collect(on_match, &mut actions);
        match &self.kind {
            Kind::Nothing => {}
            Kind::List(list) => list.iter().for_each(|(_, on_match)| add(on_match)),
            Kind::Exact(_, map) => map.values().for_each(&mut add),
            Kind::Prefix(_, map) => map.values().for_each(&mut add),
        }
        if let Some(on_match) = &self.on_no_match {
            add(on_match);
        }
        actions
    }
}

impl<I, A> OnMatch<I, A> {
    fn find<'a, 'v>(&'a self, look: &impl Fn(&I) -> Looked<'v>) -> Outcome<'a, A> {
        match self {
            Self::Tree(tree) => tree.find(look),
            Self::Action(action) => Outcome::Action(action),
        }
    }

    fn collect<'a>(&'a self, actions: &mut Vec<&'a A>) {
        match self {
            Self::Tree(tree) => actions.extend(tree.actions()),
            Self::Action(action) => actions.push(action),
        }
    }
}

impl<A> Outcome<'_, A> {
    fn decided(self) -> Option<Self> {
        (!matches!(self, Self::None)).then_some(self)
    }
}

impl<I> Predicate<I> {
    /// Whether it holds; `None` if that cannot be said.
    fn holds<'v>(&self, look: &impl Fn(&I) -> Looked<'v>) -> Option<bool> {
        let of = |input: &I, matches: &dyn Fn(&[u8]) -> bool| match look(input) {
            Looked::At(value) => Some(matches(&value)),
            Looked::None => Some(false),
            Looked::Unavailable => None,
        };
        match self {
            Self::Text(input, matcher) => of(input, &|value| matcher.matches(value)),
            Self::Ip(input, ranges) => of(input, &|value| {
                let ip = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                ip.is_some_and(|ip| ranges.contains(ip))
            }),
            Self::Not(predicate) => predicate.holds(look).map(|holds| !holds),
            Self::Any(predicates) => Self::decide(predicates, look, true),
            Self::All(predicates) => Self::decide(predicates, look, false),
        }
    }

    /// The first that is `decisive` decides.
    fn decide<'v>(predicates: &[Self], look: &impl Fn(&I) -> Looked<'v>, decisive: bool) -> Option<bool> {
        for predicate in predicates {
            if predicate.holds(look)? == decisive {
                return Some(decisive);
            }
        }
        Some(!decisive)
    }
}

impl<I, A> Words<'_, I, A> {
    fn tree(&self, at: &At<'_>, proto: proto::Matcher, depth: u32) -> Result<MatchTree<I, A>, ConfigError> {
        let proto::Matcher { on_no_match, matcher_type } = proto;
        if depth > DEEPEST {
            return Err(at.error("matchers are nested too deep"));
        }
        let kind = match matcher_type {
            None => Kind::Nothing,
            Some(MatcherType::MatcherList(MatcherList { matchers })) => {
                let at = at.field("matcher_list");
                let at = at.field("matchers");
                if matchers.is_empty() {
                    return Err(at.error("value must contain at least 1 item(s)"));
                }
                let field = |(n, matcher): (usize, FieldMatcher)| {
                    let FieldMatcher { predicate, on_match } = matcher;
                    let at = at.index(n);
                    let predicate = at.required("predicate", predicate)?;
                    let predicate = self.predicate(&at.field("predicate"), predicate, depth + 1)?;
                    Ok((predicate, self.on_match(&at.field("on_match"), at.required("on_match", on_match)?, depth)?))
                };
                Kind::List(matchers.into_iter().enumerate().map(field).collect::<Result<_, _>>()?)
            }
            Some(MatcherType::MatcherTree(MatcherTree { input, tree_type })) => {
                let at = at.field("matcher_tree");
                let input = self.input(&at, input)?;
                match at.required("tree_type", tree_type)? {
                    TreeType::ExactMatchMap(map) => {
                        let at = at.field("exact_match_map");
                        Kind::Exact(input, self.map(&at, map, depth)?.into_iter().collect())
                    }
                    TreeType::PrefixMatchMap(map) => {
                        let at = at.field("prefix_match_map");
                        Kind::Prefix(input, self.map(&at, map, depth)?.into_iter().collect())
                    }
                    TreeType::CustomMatch(value) => {
                        at.unsupported(&tree_unsupported::custom_match, &Some(value))?;
                        Kind::Nothing
                    }
                }
            }
        };
        let on_match = |on_match: Box<OnMatchProto>| self.on_match(&at.field("on_no_match"), *on_match, depth);
        Ok(MatchTree { kind, on_no_match: on_no_match.map(on_match).transpose()?.map(Box::new) })
    }

    fn map(&self, at: &At<'_>, proto: MatchMap, depth: u32) -> Result<Entries<I, A>, ConfigError> {
        let MatchMap { map } = proto;
        let at = at.field("map");
        if map.is_empty() {
            return Err(at.error("value must contain at least 1 pair(s)"));
        }
        let pair = |(key, on_match): (String, OnMatchProto)| {
            let on_match = self.on_match(&at.key(&key), on_match, depth)?;
            Ok((key.into_bytes().into(), on_match))
        };
        map.into_iter().map(pair).collect()
    }

    fn on_match(&self, at: &At<'_>, proto: OnMatchProto, depth: u32) -> Result<OnMatch<I, A>, ConfigError> {
        let OnMatchProto { keep_matching, on_match } = proto;
        at.unsupported(&unsupported::keep_matching, &keep_matching)?;
        Ok(match at.required("on_match", on_match)? {
            proto::matcher::on_match::OnMatch::Matcher(matcher) => {
                OnMatch::Tree(Box::new(self.tree(&at.field("matcher"), *matcher, depth + 1)?))
            }
            proto::matcher::on_match::OnMatch::Action(TypedExtensionConfig { name, typed_config }) => {
                let at = at.field("action");
                let config = at.required("typed_config", typed_config)?;
                OnMatch::Action((self.action)(&at.field("typed_config"), &name, &config)?)
            }
        })
    }

    fn input(&self, at: &At<'_>, input: Option<TypedExtensionConfig>) -> Result<I, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = at.required("input", input)?;
        let at = at.field("input");
        let config = at.required("typed_config", typed_config)?;
        (self.input)(&at.field("typed_config"), &name, &config)
    }

    fn predicate(&self, at: &At<'_>, proto: PredicateProto, depth: u32) -> Result<Predicate<I>, ConfigError> {
        let PredicateProto { match_type } = proto;
        if depth > DEEPEST {
            return Err(at.error("conditions are nested too deep"));
        }
        let list = |name: &'static str, list: PredicateList| {
            let PredicateList { predicate } = list;
            let at = at.field(name);
            let at = at.field("predicate");
            if predicate.len() < 2 {
                return Err(at.error("value must contain at least 2 item(s)"));
            }
            let parse = |(n, proto)| self.predicate(&at.index(n), proto, depth + 1);
            predicate.into_iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(match at.required("match_type", match_type)? {
            MatchType::SinglePredicate(single) => self.single(&at.field("single_predicate"), single)?,
            MatchType::OrMatcher(proto) => Predicate::Any(list("or_matcher", proto)?),
            MatchType::AndMatcher(proto) => Predicate::All(list("and_matcher", proto)?),
            MatchType::NotMatcher(proto) => {
                Predicate::Not(Box::new(self.predicate(&at.field("not_matcher"), *proto, depth + 1)?))
            }
        })
    }

    fn single(&self, at: &At<'_>, proto: SinglePredicate) -> Result<Predicate<I>, ConfigError> {
        let SinglePredicate { input, matcher } = proto;
        let input = self.input(at, input)?;
        match at.required("matcher", matcher)? {
            SingleMatcher::ValueMatch(matcher) => {
                let at = at.field("value_match");
                // The two messages are the same on the wire.
                let matcher = StringProto::decode(&matcher.encode_to_vec()[..]).map_err(|error| at.error(error))?;
                Ok(Predicate::Text(input, StringMatcher::parse(matcher, at, self.limits)?))
            }
            SingleMatcher::CustomMatch(TypedExtensionConfig { name, typed_config }) => {
                let at = at.field("custom_match");
                let config = at.required("typed_config", typed_config)?;
                let kind = type_name(&config);
                if kind != IP {
                    return Err(at.unknown_extension(&name, kind));
                }
                let at = at.field("typed_config");
                let Ip { cidr_ranges, stat_prefix } = decode(&at, &config)?;
                if stat_prefix.is_empty() {
                    return Err(at.field("stat_prefix").error("value length must be at least 1 characters"));
                }
                if cidr_ranges.is_empty() {
                    return Err(at.field("cidr_ranges").error("value must contain at least 1 item(s)"));
                }
                Ok(Predicate::Ip(input, CidrSet::parse(&cidr_ranges, at.field("cidr_ranges"))?))
            }
        }
    }
}

/// The type of an extension's configuration, without what stands before it in the URL.
#[must_use]
pub fn type_name(config: &Any) -> &str {
    config.type_url.rsplit('/').next().unwrap_or_default()
}

/// The configuration of an extension.
///
/// # Errors
/// When it is not what its type says.
pub fn decode<M: Message + Default>(at: &At<'_>, config: &Any) -> Result<M, ConfigError> {
    let kind = type_name(config);
    M::decode(&config.value[..]).map_err(|error| at.error(format_args!("Unable to unpack as {kind}: {error}")))
}

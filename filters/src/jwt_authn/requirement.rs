//! What a request needs to be let through: a tree of requirements, laid out as a list.

use super::extract::Extractor;
use super::provider::{Audiences, Provider};
use crate::http::HeaderName;

/// A tree of requirements. The first node is the root; children stand behind their parents.
#[derive(Debug)]
pub struct Requirement {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: Option<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing is needed.
    Nothing,
    /// Tokens.
    Tokens(Check, Extractor),
    /// One of these, or what `unless` forgives.
    Any { children: Vec<usize>, unless: Option<Forgiven> },
    /// All of these.
    All(Vec<usize>),
}

/// Whose tokens, and what if they are not as they should be.
#[derive(Debug)]
pub(super) enum Check {
    /// This provider's, and they are there and valid; for these audiences instead of the provider's own.
    Provider(usize, Option<Audiences>),
    /// Anybody's.
    Anybody(Forgiven),
    /// Anybody's, and the request says by this header that what it says of tokens is nothing to rely on.
    Unverified(HeaderName),
}

/// What is let through though it is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgiven {
    /// That no token is there.
    Missing,
    /// Anything.
    Failed,
}

/// A requirement as configuration nests it.
pub(super) enum Nested {
    Nothing,
    Provider(usize, Option<Audiences>),
    Anybody(Forgiven),
    Unverified(HeaderName),
    Any(Vec<Self>),
    All(Vec<Self>),
}

impl Requirement {
    pub(super) fn new(nested: Nested, providers: &[Provider]) -> Self {
        let mut nodes = Vec::new();
        add(nested, None, providers, &mut nodes);
        Self { nodes }
    }
}

fn add(nested: Nested, parent: Option<usize>, providers: &[Provider], nodes: &mut Vec<Node>) -> usize {
    let place = nodes.len();
    nodes.push(Node { parent, kind: Kind::Nothing });
    let of_all = || Extractor::new(providers);
    let kind = match nested {
        Nested::Nothing => Kind::Nothing,
        Nested::Provider(provider, audiences) => {
            let extractor = Extractor::new(providers.get(provider));
            Kind::Tokens(Check::Provider(provider, audiences), extractor)
        }
        Nested::Anybody(forgiven) => Kind::Tokens(Check::Anybody(forgiven), of_all()),
        Nested::Unverified(header) => Kind::Tokens(Check::Unverified(header), of_all()),
        Nested::All(nested) => {
            Kind::All(nested.into_iter().map(|child| add(child, Some(place), providers, nodes)).collect())
        }
        Nested::Any(nested) => {
            // What is forgiven is not checked beside others: they are, and their failures may be forgiven.
            let mut unless = None;
            let mut children = Vec::new();
            for child in nested {
                match child {
                    Nested::Anybody(forgiven) if unless != Some(Forgiven::Failed) => unless = Some(forgiven),
                    Nested::Anybody(_) => {}
                    child => children.push(add(child, Some(place), providers, nodes)),
                }
            }
            if let (true, Some(forgiven)) = (children.is_empty(), unless) {
                children.push(add(Nested::Anybody(forgiven), Some(place), providers, nodes));
            }
            Kind::Any { children, unless }
        }
    };
    nodes[place].kind = kind;
    place
}

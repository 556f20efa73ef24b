//! One request's way through its requirement.
//!
//! Requirements are looked at in their order. Where keys have to be fetched first, those that come after are looked at
//! meanwhile; the outcome of a list is known as soon as it cannot change any more. What tokens say goes into the request as each
//! is believed, whatever comes of the others.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::JwtAuthn;
use super::extract::{Extractor, Found};
use super::failure::Failure;
use super::jwks::Jwks;
use super::requirement::{Check, Forgiven, Kind, Requirement};
use super::token::Token;
use crate::http::{HeaderName, RequestHead};
use crate::stream_info::Metadata;

/// Whether something is fulfilled.
pub(super) type Outcome = Result<(), Failure>;

/// What is known about one request's requirement so far.
pub(super) struct Run {
    /// Of each node, in their order.
    outcomes: Vec<Option<Outcome>>,
    waiting: Vec<Waiting>,
    /// What was found out, for dynamic metadata.
    pub(super) metadata: Metadata,
    /// A token changed what the route was found by.
    pub(super) route_changed: bool,
    /// A header that was to have a value which no header can have.
    pub(super) unsayable: Option<HeaderName>,
}

/// The filter, and the request.
pub(super) struct World<'a> {
    pub(super) filter: &'a JwtAuthn,
    pub(super) requirement: &'a Requirement,
    pub(super) head: &'a mut RequestHead,
    pub(super) now: SystemTime,
}

/// Where the keys of a provider are.
pub(super) enum KeysAt {
    Here(Arc<Jwks>),
    /// They have to be fetched.
    Far,
    Nowhere,
}

/// Tokens on their way through one node.
struct Pass<'r> {
    node: usize,
    check: &'r Check,
    extractor: &'r Extractor,
    /// The ones not looked at yet, the next one last.
    rest: Vec<Found>,
    /// Whose the last one was.
    provider: Option<usize>,
    /// There were tokens at all.
    any: bool,
}

/// Tokens that wait for keys.
struct Waiting {
    node: usize,
    provider: usize,
    rest: Vec<Found>,
    found: Found,
    token: Rc<Token>,
}

impl Run {
    /// Looks at everything that can be looked at now.
    pub(super) fn start(world: &mut World<'_>) -> Self {
        let mut run = Self {
            outcomes: vec![None; world.requirement.nodes.len()],
            waiting: Vec::new(),
            metadata: Metadata::new(),
            route_changed: false,
            unsayable: None,
        };
        run.visit(0, world);
        run
    }

    /// The outcome, once it is known.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcomes.first().copied().flatten()
    }

    /// The nodes at which tokens wait, and the providers whose keys they wait for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, usize)> {
        self.waiting.iter().map(|waiting| (waiting.node, waiting.provider))
    }

    /// Goes on at a node where tokens waited: here are their keys, or why there are none.
    pub(super) fn resume(&mut self, node: usize, keys: Result<Arc<Jwks>, Failure>, world: &mut World<'_>) {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.node == node) else { return };
        let Waiting { provider, rest, found, token, .. } = self.waiting.swap_remove(place);
        let requirement = world.requirement;
        let Some(Kind::Tokens(check, extractor)) = requirement.nodes.get(node).map(|node| &node.kind) else { return };
        let pass = Pass { node, check, extractor, rest, provider: Some(provider), any: true };
        let made = keys.and_then(|keys| keys.verify(&token));
        let outcome = made.map(|()| self.believe(&pass, provider, &found, &token, world));
        self.go_on(pass, outcome, world);
    }

    fn visit(&mut self, node: usize, world: &mut World<'_>) {
        let requirement = world.requirement;
        match requirement.nodes.get(node).map(|node| &node.kind) {
            Some(Kind::Tokens(check, extractor)) => {
                extractor.sanitize(world.head);
                let rest = extractor.extract(world.head);
                let any = !rest.is_empty();
                let mut pass = Pass { node, check, extractor, rest, provider: None, any };
                let outcome = if any { self.next(&mut pass, world) } else { Some(Err(Failure::Missing)) };
                if let Some(outcome) = outcome {
                    self.go_on(pass, outcome, world);
                }
            }
            Some(Kind::Any { children, .. } | Kind::All(children)) => {
                for child in children {
                    if self.outcomes[node].is_some() {
                        return;
                    }
                    self.visit(*child, world);
                }
            }
            Some(Kind::Nothing) | None => self.complete(node, Ok(()), world.requirement),
        }
    }

    /// What comes after this outcome of a token.
    fn go_on(&mut self, mut pass: Pass<'_>, mut outcome: Outcome, world: &mut World<'_>) {
        loop {
            if let Err(failure) = outcome {
                self.write_down(&pass, failure, world.filter);
            }
            // All tokens have to be valid: upstream may look at another one than was verified here.
            let strict = matches!(pass.check, Check::Provider(..));
            if pass.rest.is_empty() || strict && outcome.is_err() {
                break;
            }
            match self.next(&mut pass, world) {
                Some(next) => outcome = next,
                None => return,
            }
        }
        let outcome = match pass.check {
            Check::Provider(..) => outcome,
            Check::Anybody(Forgiven::Missing) if outcome == Err(Failure::Missing) => Ok(()),
            Check::Anybody(Forgiven::Missing) => outcome,
            Check::Anybody(Forgiven::Failed) => Ok(()),
            Check::Unverified(header) => {
                // What the client says of it stays where there is nothing to say, as in Envoy.
                if outcome.is_err() && pass.any {
                    world.head.headers.remove(header);
                    world.head.headers.append(header.clone(), &b"false"[..]);
                }
                Ok(())
            }
        };
        self.complete(pass.node, outcome, world.requirement);
    }

    /// The outcome of the next token; `None` when it waits for keys.
    fn next(&mut self, pass: &mut Pass<'_>, world: &mut World<'_>) -> Option<Outcome> {
        let Some(found) = pass.rest.pop() else { return Some(Err(Failure::Missing)) };
        let filter = world.filter;
        let mut known = None;
        if let Check::Provider(provider, _) = pass.check {
            pass.provider = Some(*provider);
            known = filter.known(*provider, &found.text, world.now);
            let stats = filter.stats();
            if known.is_some() { stats.jwt_cache_hit().inc() } else { stats.jwt_cache_miss().inc() }
        }
        let verified = known.is_some();
        let token = match known.map_or_else(|| Token::parse(&found.text).map(Rc::new), Ok) {
            Ok(token) => token,
            Err(failure) => return Some(Err(failure)),
        };
        let provider = match self.claims(pass, &found, &token, world) {
            Ok(provider) => provider,
            Err(failure) => return Some(Err(failure)),
        };
        if verified {
            self.believe(pass, provider, &found, &token, world);
            return Some(Ok(()));
        }
        match filter.keys(provider) {
            KeysAt::Here(keys) => {
                let made = keys.verify(&token);
                Some(made.map(|()| self.believe(pass, provider, &found, &token, world)))
            }
            KeysAt::Nowhere => Some(Err(Failure::JwksNoValidKeys)),
            KeysAt::Far => {
                let rest = std::mem::take(&mut pass.rest);
                self.waiting.push(Waiting { node: pass.node, provider, rest, found, token });
                None
            }
        }
    }

    /// Checks all that a token says; finds out whose it is.
    fn claims(&self, pass: &mut Pass<'_>, found: &Found, token: &Token, world: &World<'_>) -> Result<usize, Failure> {
        let config = world.filter.config();
        if !pass.extractor.may_be_of(found, &token.issuer) {
            return Err(Failure::UnknownIssuer);
        }
        let mut audiences = None;
        match pass.check {
            Check::Provider(_, own) => audiences = own.as_ref(),
            Check::Anybody(_) | Check::Unverified(_) => pass.provider = config.provider_of(&token.issuer),
        }
        let provider = pass.provider.ok_or(Failure::UnknownIssuer)?;
        config.provider(provider).map_or(Err(Failure::UnknownIssuer), |it| it.check(token, audiences, world.now))?;
        Ok(provider)
    }

    /// The token is what it says it is.
    fn believe(&mut self, pass: &Pass<'_>, provider: usize, found: &Found, token: &Rc<Token>, world: &mut World<'_>) {
        let filter = world.filter;
        let Some(config) = filter.config().provider(provider) else { return };
        let forwarding = &config.forwarding;
        match forwarding.add_headers(token, world.head) {
            Ok(changed) => self.route_changed |= changed,
            Err(name) => drop(self.unsayable.get_or_insert(name)),
        }
        if !forwarding.token {
            pass.extractor.remove(found, world.head);
        }
        for (name, value) in forwarding.metadata(token) {
            self.metadata.insert(name.to_owned(), value);
        }
        if let Check::Provider(..) = pass.check {
            filter.remember(provider, &found.text, token);
        }
    }

    /// Dynamic metadata say what was wrong, where the provider wants it. Whose a token is that makes no sense is known if there
    /// is one provider only.
    fn write_down(&mut self, pass: &Pass<'_>, failure: Failure, filter: &JwtAuthn) {
        let config = filter.config();
        let provider = pass.provider.map_or_else(|| config.only_provider(), |provider| config.provider(provider));
        let Some(name) = provider.map(|it| &it.forwarding.failure_metadata).filter(|name| !name.is_empty()) else {
            return;
        };
        let what = json!({"code": f64::from(failure.code()), "message": failure.text()});
        self.metadata.insert(name.to_string(), what);
    }

    /// A node's outcome is known; perhaps that of those above it, too.
    fn complete(&mut self, node: usize, outcome: Outcome, requirement: &Requirement) {
        if self.outcomes[node].is_some() {
            return;
        }
        self.outcomes[node] = Some(outcome);
        let Some(parent) = requirement.nodes[node].parent else {
            self.waiting.clear();
            return;
        };
        let decided = match &requirement.nodes[parent].kind {
            Kind::Any { .. } if outcome.is_ok() => Some(Ok(())),
            Kind::Any { children, unless } => self.none_of(children, *unless),
            Kind::All(_) if outcome.is_err() => Some(outcome),
            Kind::All(children) => children.iter().all(|child| self.outcomes[*child].is_some()).then_some(Ok(())),
            Kind::Nothing | Kind::Tokens(..) => None,
        };
        if let Some(outcome) = decided {
            self.complete(parent, outcome, requirement);
        }
    }

    /// The outcome where all of several failed. A token that is there but not valid says more than one that is somebody else's,
    /// and that more than none.
    fn none_of(&self, children: &[usize], unless: Option<Forgiven>) -> Option<Outcome> {
        let elsewhere = |failure| matches!(failure, Failure::Missing | Failure::UnknownIssuer);
        let mut worst = Failure::Missing;
        for child in children {
            if let Err(failure) = self.outcomes[*child]?
                && (!elsewhere(failure) || worst == Failure::Missing)
            {
                worst = failure;
            }
        }
        let forgiven = match unless {
            Some(Forgiven::Failed) => true,
            Some(Forgiven::Missing) => worst == Failure::Missing,
            None => false,
        };
        Some(if forgiven { Ok(()) } else { Err(worst) })
    }
}

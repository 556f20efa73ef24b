//! Requests need valid JSON Web Tokens: `envoy.filters.http.jwt_authn`.
//!
//! [`config`] makes of the configuration [providers](provider), whose tokens are looked for in [places](extract) of the request,
//! [requirements](requirement), and [rules](rule) that say which of them is for which request. A requirement is met in a
//! run: tokens are [read](token), their claims checked, their signatures verified with [keys](jwks) from the configuration or
//! [fetched](remote) when they are needed first, or ahead of that. What every step decides, and in which words, is Envoy's.
//!
//! Everything but fetching is done when the request comes; a request whose keys are far waits for them.

pub mod config;
pub mod extract;
pub mod failure;
pub mod jwks;
pub mod key;
pub mod provider;
pub mod remote;
pub mod requirement;
pub mod rule;
pub mod token;

mod ahead;
mod base64url;
mod cache;
mod json;
mod run;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use self::ahead::Ahead;
use self::cache::TokenCache;
pub use self::config::{JwtAuthnConfig, ParseContext, RouteRequirement};
use self::failure::Failure;
use self::jwks::Jwks;
use self::provider::Keys;
use self::remote::RemoteJwks;
use self::run::{KeysAt, Outcome, Run, World};
use self::token::Token;
use crate::call::{Calls, Errand, Pending};
use crate::flags::ResponseFlags;
use crate::http::{HeaderName, Headers, Known, Method, RequestHead};
use crate::http_filter::{FilterSettings, Reply, RequestContext, Verdict};

stats::group! {
    /// `http.<stat_prefix>.jwt_authn.`
    pub struct JwtAuthnStats {
        counters {
            allowed, cors_preflight_bypassed, denied, jwks_fetch_failed, jwks_fetch_success, jwt_cache_hit, jwt_cache_miss
        }
    }
}

/// The name space of what dynamic metadata say about tokens.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// How much of a path clients are shown.
const SHOWN_PATH: usize = 256;

/// The filter of a chain on one worker.
pub struct JwtAuthn {
    config: Arc<JwtAuthnConfig>,
    stats: JwtAuthnStats,
    calls: Rc<dyn Calls>,
    /// What it remembers of each provider.
    memory: Vec<Memory>,
    /// Keeps keys at hand.
    errands: OnceCell<Vec<Errand>>,
}

/// What a worker remembers of a provider.
struct Memory {
    tokens: Option<RefCell<TokenCache>>,
    /// Keys that a request fetched, and until when they are good.
    keys: RefCell<Option<(Arc<Jwks>, Instant)>>,
}

impl JwtAuthn {
    /// A filter that counts here, and asks for keys so.
    #[must_use]
    pub fn new(config: Arc<JwtAuthnConfig>, stats: JwtAuthnStats, calls: Rc<dyn Calls>) -> Rc<Self> {
        let memory = config.providers().iter().map(|provider| Memory {
            tokens: provider.cache.map(|size| RefCell::new(TokenCache::new(size))),
            keys: RefCell::default(),
        });
        let memory = memory.collect();
        let filter = Rc::new(Self { config, stats, calls, memory, errands: OnceCell::new() });
        filter.errands.get_or_init(|| ahead::begin(&filter));
        filter
    }

    fn config(&self) -> &JwtAuthnConfig {
        &self.config
    }

    const fn stats(&self) -> &JwtAuthnStats {
        &self.stats
    }

    /// A token of this provider that was verified before.
    fn known(&self, provider: usize, text: &Bytes, now: SystemTime) -> Option<Rc<Token>> {
        self.memory.get(provider)?.tokens.as_ref()?.borrow_mut().find(text, now)
    }

    /// A token of this provider was verified.
    fn remember(&self, provider: usize, text: &Bytes, token: &Rc<Token>) {
        if let Some(tokens) = self.memory.get(provider).and_then(|memory| memory.tokens.as_ref()) {
            tokens.borrow_mut().insert(text, Rc::clone(token));
        }
    }

    /// Where the keys of this provider are.
    fn keys(&self, provider: usize) -> KeysAt {
        let (Some(config), Some(memory)) = (self.config.provider(provider), self.memory.get(provider)) else {
            return KeysAt::Nowhere;
        };
        match &config.keys {
            Keys::Local(Some(keys)) => KeysAt::Here(Arc::clone(keys)),
            Keys::Local(None) => KeysAt::Nowhere,
            Keys::Remote(remote) => match (remote.ahead.as_ref().and_then(Ahead::keys), &*memory.keys.borrow()) {
                (Some(keys), _) => KeysAt::Here(keys),
                (None, Some((keys, until))) if Instant::now() < *until => KeysAt::Here(Arc::clone(keys)),
                (None, _) => KeysAt::Far,
            },
        }
    }

    /// Asks for the keys of this provider.
    fn fetch(&self, provider: usize) -> Option<Pending> {
        let remote = self.config.remote(provider)?;
        Some(self.calls.ask(&remote.service, remote.question()))
    }

    /// Counts a fetch.
    fn count(&self, keys: &Result<Arc<Jwks>, Failure>) {
        let stats = &self.stats;
        if keys.is_ok() { stats.jwks_fetch_success() } else { stats.jwks_fetch_failed() }.inc();
    }

    /// The answer came: other requests need not ask again for a while.
    fn fetched(&self, provider: usize, keys: Result<Arc<Jwks>, Failure>) -> Result<Arc<Jwks>, Failure> {
        self.count(&keys);
        if let (Ok(fetched), Some(memory), Some(remote)) =
            (&keys, self.memory.get(provider), self.config.remote(provider))
        {
            let until = Instant::now().checked_add(remote.cache);
            memory.keys.replace(until.map(|until| (Arc::clone(fetched), until)));
        }
        keys
    }
}

/// The filter of a stream.
pub struct JwtAuthnStream {
    filter: Rc<JwtAuthn>,
    waits: Option<Box<Waits>>,
}

/// A request that waits for keys.
struct Waits {
    requirement: usize,
    run: Run,
    /// What clients are told the token is for.
    realm: String,
    calls: Vec<Call>,
    /// What came for which node.
    arrived: Vec<(usize, Result<Arc<Jwks>, Failure>)>,
}

/// A question on behalf of the tokens that wait at one node.
struct Call {
    node: usize,
    provider: usize,
    answer: Pending,
}

impl JwtAuthnStream {
    /// A stream that has not begun.
    #[must_use]
    pub fn new(filter: &Rc<JwtAuthn>) -> Self {
        Self { filter: Rc::clone(filter), waits: None }
    }

    /// Sees the request.
    pub fn decode_head(&mut self, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        let filter = Rc::clone(&self.filter);
        let config = filter.config();
        extract::sanitize(head, &config.own_headers);
        if config.bypass_cors_preflight && is_preflight(head) {
            filter.stats.cors_preflight_bypassed().inc();
            filter.stats.allowed().inc();
            return Verdict::Continue;
        }
        let of_route = context.route.iter().flat_map(|route| &route.settings).find_map(|settings| match settings {
            FilterSettings::JwtAuthn(requirement) => Some(requirement),
            _ => None,
        });
        let requirement = match of_route {
            Some(route) => match config.requirement_of(route) {
                Ok(requirement) => requirement,
                Err(why) => return self.deny(403, format!("Failed JWT authentication: {why}"), &why, None),
            },
            None => config.requirement_for(head, &context.info.connection.filter_state.borrow()),
        };
        let Some((number, requirement)) = requirement.and_then(|n| Some((n, config.requirement(n)?))) else {
            filter.stats.allowed().inc();
            return Verdict::Continue;
        };
        let realm = realm(head);
        let mut world = World { filter: &filter, requirement, head, now: SystemTime::now() };
        let run = Run::start(&mut world);
        self.goes_on(Waits { requirement: number, run, realm, calls: Vec::new(), arrived: Vec::new() }, context)
    }

    /// Sees the request again, now that keys came.
    pub fn decode_again(&mut self, head: &mut RequestHead, context: &mut RequestContext<'_>) -> Verdict {
        let filter = Rc::clone(&self.filter);
        let Some(mut waits) = self.waits.take() else { return Verdict::Continue };
        let Some(requirement) = filter.config().requirement(waits.requirement) else { return Verdict::Continue };
        for (node, keys) in std::mem::take(&mut waits.arrived) {
            let mut world = World { filter: &filter, requirement, head, now: SystemTime::now() };
            waits.run.resume(node, keys, &mut world);
        }
        self.goes_on(*waits, context)
    }

    /// Drives the fetching of keys; ready when some came.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waits) = &mut self.waits else { return Poll::Ready(()) };
        let (filter, arrived) = (&self.filter, &mut waits.arrived);
        waits.calls.retain_mut(|call| match call.answer.as_mut().poll(cx) {
            Poll::Ready(answer) => {
                arrived.push((call.node, filter.fetched(call.provider, RemoteJwks::keys(answer))));
                false
            }
            Poll::Pending => true,
        });
        if arrived.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// What comes after what was looked at so far.
    fn goes_on(&mut self, mut waits: Waits, context: &mut RequestContext<'_>) -> Verdict {
        context.route_changed |= std::mem::take(&mut waits.run.route_changed);
        let Some(outcome) = waits.run.outcome() else {
            for (node, provider) in waits.run.waiting() {
                if !waits.calls.iter().any(|call| call.node == node)
                    && let Some(answer) = self.filter.fetch(provider)
                {
                    waits.calls.push(Call { node, provider, answer });
                }
            }
            self.waits = Some(Box::new(waits));
            return Verdict::Wait;
        };
        let Waits { run, realm, .. } = waits;
        if !run.metadata.is_empty() {
            let all = context.info.dynamic_metadata.get_or_insert_default();
            let ours = all.entry(NAMESPACE).or_insert_with(|| serde_json::Map::new().into());
            if let Some(ours) = ours.as_object_mut() {
                ours.extend(run.metadata);
            }
        }
        match run.unsayable.filter(|_| outcome.is_ok()) {
            Some(name) => self.cannot_say(&name),
            None => self.answer(outcome, &realm),
        }
    }

    /// The request is let through, but cannot be made: Envoy finds out when it writes it.
    fn cannot_say(&self, name: &HeaderName) -> Verdict {
        self.filter.stats.allowed().inc();
        let name = name.as_str();
        Verdict::Reply(Box::new(Reply {
            status: 503,
            body: format!("invalid header value for: {name}").into(),
            details: format!("filter_removed_required_request_headers{{invalid_header_value_for:_{name}}}").into(),
            flags: ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            ..Reply::default()
        }))
    }

    fn answer(&self, outcome: Outcome, realm: &str) -> Verdict {
        let Err(failure) = outcome else {
            self.filter.stats.allowed().inc();
            return Verdict::Continue;
        };
        let mut challenge = format!("Bearer realm=\"{realm}\"");
        if failure != Failure::Missing {
            challenge.push_str(", error=\"invalid_token\"");
        }
        self.deny(failure.status(), failure.text(), failure.text(), Some(challenge))
    }

    fn deny(&self, status: u16, body: impl Into<Bytes>, why: &str, challenge: Option<String>) -> Verdict {
        self.filter.stats.denied().inc();
        let mut reply = Reply { status, ..Reply::default() };
        if !self.filter.config.strip_failure_response {
            let mut headers = Headers::new();
            if let Some(challenge) = challenge {
                headers.append(Known::WwwAuthenticate, challenge);
            }
            (reply.headers, reply.body) = (headers, body.into());
        }
        let why = why.replace(|symbol: char| symbol.is_ascii_whitespace(), "_");
        reply.details = format!("jwt_authn_access_denied{{{why}}}").into();
        Verdict::Reply(Box::new(reply))
    }
}

/// Whether a browser asks what it may ask, which it does without telling who asks.
fn is_preflight(head: &RequestHead) -> bool {
    let said = |name: &Known| head.headers.value(name).is_some_and(|value| !value.is_empty());
    head.method == Method::Options && said(&Known::Origin) && said(&Known::AccessControlRequestMethod)
}

/// The address the client asked for, as far as it is shown; empty for a CONNECT.
fn realm(head: &RequestHead) -> String {
    if head.path.is_empty() {
        return String::new();
    }
    let path = head.headers.value(&Known::XEnvoyOriginalPath).unwrap_or(&head.path);
    let path = path.get(..SHOWN_PATH).unwrap_or(path);
    let proto = head.headers.value(&Known::XForwardedProto).map_or(&b""[..], |proto| proto);
    // The path may have been cut in the middle of a character.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}://{}{}", text(proto), text(&head.authority), text(path))
}

#[cfg(test)]
mod tests;

//! Keys that are fetched before anybody needs them: `RemoteJwks.async_fetch`.
//!
//! One worker asks for all of them. It asks again before the keys are too old, and soon where there were none; what it got
//! last serves until then, however old. Where it got none yet, requests fetch for themselves.

use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::JwksAsyncFetch;

use super::JwtAuthn;
use super::jwks::Jwks;
use super::remote::RemoteJwks;
use crate::call::Errand;
use crate::config::duration::duration;
use crate::config::{At, ConfigError};

/// How long before they are too old keys are fetched anew.
const EARLY: Duration = Duration::from_secs(5);

/// When fetching is tried again (`failed_refetch_duration`).
const SOON: Duration = Duration::from_secs(1);

/// `JwksAsyncFetch`, and what was fetched.
#[derive(Debug)]
pub struct Ahead {
    /// The next fetch after one that brought keys.
    good: Duration,
    /// The next fetch after another.
    failed: Duration,
    /// Written once in a while, by whoever fetches.
    keys: RwLock<Option<Arc<Jwks>>>,
    /// Somebody fetches.
    taken: AtomicBool,
}

impl Ahead {
    pub(super) fn parse(proto: &JwksAsyncFetch, cache: Duration, at: &At<'_>) -> Result<Self, ConfigError> {
        // Listeners do not wait for keys: a request that comes before them fetches for itself.
        let JwksAsyncFetch { fast_listener: _, failed_refetch_duration } = proto;
        let failed = failed_refetch_duration.as_ref();
        let failed = failed.map(|it| duration(&at.field("failed_refetch_duration"), it)).transpose()?;
        Ok(Self {
            good: if cache > EARLY { cache - EARLY } else { cache },
            failed: failed.unwrap_or(SOON),
            keys: RwLock::default(),
            taken: AtomicBool::new(false),
        })
    }

    /// What was fetched last.
    pub(super) fn keys(&self) -> Option<Arc<Jwks>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who fetches; nobody does once this is gone.
struct Turn(Arc<super::JwtAuthnConfig>, usize);

impl Turn {
    fn take(config: &Arc<super::JwtAuthnConfig>, provider: usize) -> Option<Self> {
        let ahead = config.remote(provider)?.ahead.as_ref()?;
        let free = !ahead.taken.swap(true, Ordering::Relaxed);
        free.then(|| Self(Arc::clone(config), provider))
    }

    fn ahead(&self) -> Option<&Ahead> {
        self.0.remote(self.1)?.ahead.as_ref()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(ahead) = self.ahead() {
            ahead.taken.store(false, Ordering::Relaxed);
        }
    }
}

/// Begins to fetch for all providers that want it and for which no other worker does.
pub(super) fn begin(filter: &Rc<JwtAuthn>) -> Vec<Errand> {
    let turns = (0..filter.config.providers().len()).filter_map(|provider| Turn::take(&filter.config, provider));
    turns.map(|turn| filter.calls.run(Box::pin(keep(Rc::downgrade(filter), turn)))).collect()
}

/// Keeps the keys of a provider at hand, as long as the filter is there.
async fn keep(filter: Weak<JwtAuthn>, turn: Turn) {
    let Some(ahead) = turn.ahead() else { return };
    while let Some(now) = filter.upgrade() {
        let Some(asked) = now.fetch(turn.1) else { return };
        let calls = Rc::clone(&now.calls);
        drop(now);
        let keys = RemoteJwks::keys(asked.await);
        let Some(now) = filter.upgrade() else { return };
        now.count(&keys);
        drop(now);
        let next = match keys {
            Ok(keys) => {
                *ahead.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
                ahead.good
            }
            Err(_) => ahead.failed,
        };
        calls.sleep(next).await;
    }
}

//! Joins what a listener's filter chains refer to: connection managers with their routes, TLS contexts with their secrets,
//! access logs with their files.
//!
//! The listener manager asks before a version may serve. Everything that can be wrong with a chain is found here, so that
//! the listener is refused as a whole and workers only ever see chains that can serve.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use filters::config::{At, ConfigError};
use prost::Message;
use xds_client::SubscribeError;

use super::listeners::{Dependencies, Readiness, Ticket};
use super::parse::ParseEnv;
use super::routes::{Routes, Subscriber};
use super::secrets::{Secrets, SecretsUse, Side};
use crate::config::access_log;
use crate::config::config_source::{self, ConfigSource, Files};
use crate::config::filter_chain::{FilterChain, NetworkFilter, Transport};
use crate::config::hcm::{self, RouteSource};
use crate::config::listener::ListenerConfig;
use crate::config::service::{ChainRoutes, ChainService, HttpChain, TcpChain};
use crate::tls::SecretUser;

/// Knows what listeners wait for.
#[derive(Clone)]
pub struct Join(Rc<Inner>);

struct Inner {
    env: Rc<ParseEnv>,
    routes: Rc<Routes>,
    secrets: Rc<Secrets>,
    subscriber: Rc<dyn Subscriber>,
    /// What each version of a listener uses.
    used: RefCell<HashMap<Ticket, Used>>,
    /// Versions that wait for some of it.
    waiting: RefCell<Vec<Ticket>>,
    /// What is used may be asked for.
    started: Cell<bool>,
}

/// What a version of a listener uses.
#[derive(Default)]
struct Used {
    /// Route configurations.
    routes: Vec<Arc<str>>,
    /// Secrets of its filter chains.
    secrets: Vec<SecretsUse>,
}

impl Used {
    fn is_ready(&self, routes: &Routes) -> bool {
        self.routes.iter().all(|key| routes.is_ready(key)) && self.secrets.iter().all(SecretsUse::is_ready)
    }
}

impl Join {
    /// Nothing is joined yet.
    #[must_use]
    pub fn new(env: Rc<ParseEnv>, routes: Rc<Routes>, secrets: Rc<Secrets>, subscriber: Rc<dyn Subscriber>) -> Self {
        let (used, waiting, started) = (RefCell::default(), RefCell::default(), Cell::new(false));
        Self(Rc::new(Inner { env, routes, secrets, subscriber, used, waiting, started }))
    }

    /// Clusters are there: what listeners use is asked for from now on, and what those there are use at once.
    pub fn start(&self) {
        if self.0.started.replace(true) {
            return;
        }
        for ticket in self.0.waiting.borrow().iter() {
            let used = self.0.used.borrow();
            let Some(used) = used.get(ticket) else { continue };
            if let Err(error) = self.subscribe(used) {
                tracing::error!(target: "config", "routes cannot be subscribed to: {error}");
            }
        }
    }

    /// What a version of a listener waits for, as `/init_dump` calls it.
    #[must_use]
    pub fn awaited(&self, ticket: Ticket) -> Vec<String> {
        let used = self.0.used.borrow();
        let Some(Used { routes, secrets }) = used.get(&ticket) else { return Vec::new() };
        let routes = routes.iter().filter_map(|key| self.0.routes.awaited(key));
        let routes = routes.map(|name| format!("shared target RdsRouteConfigSubscription RDS init {name}"));
        let secrets = secrets.iter().flat_map(SecretsUse::awaited).map(|name| format!("shared target SdsApi {name}"));
        routes.chain(secrets).collect()
    }

    fn subscribe(&self, used: &Used) -> Result<(), SubscribeError> {
        used.routes.iter().try_for_each(|key| self.0.routes.subscribe(&*self.0.subscriber, key))?;
        used.secrets.iter().for_each(SecretsUse::subscribe);
        Ok(())
    }

    /// The versions that need wait no longer; each is answered once.
    #[must_use]
    pub fn take_warmed(&self) -> Vec<Ticket> {
        let used = self.0.used.borrow();
        let ready = |ticket: &Ticket| used.get(ticket).is_none_or(|used| used.is_ready(&self.0.routes));
        let mut waiting = self.0.waiting.borrow_mut();
        let (warmed, rest) = waiting.iter().copied().partition(ready);
        *waiting = rest;
        warmed
    }

    /// Whether no version of a listener waits for anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.waiting.borrow().is_empty()
    }

    fn chain(&self, at: &At<'_>, chain: &FilterChain, keys: &mut Vec<Arc<str>>) -> Result<ChainService, ConfigError> {
        let env = &self.0.env;
        Ok(match &chain.network {
            NetworkFilter::Empty => ChainService::Close,
            NetworkFilter::DirectResponse(response) => ChainService::DirectResponse(response.clone()),
            NetworkFilter::Echo => ChainService::Echo,
            NetworkFilter::TcpProxy(config) => {
                let at = at.field("access_log");
                let logs = access_log::parse_all(&at, config.access_logs.clone(), &env.log())?;
                ChainService::Tcp(TcpChain { config: Arc::clone(config), logs: logs.into() })
            }
            NetworkFilter::Http(manager) => {
                let proto = HttpConnectionManager::decode(manager.config.clone()).map_err(|error| at.error(error))?;
                let config = hcm::parse(at, proto, &env.hcm())?;
                let routes = match &config.routes {
                    RouteSource::Inline(proto) => {
                        let at = at.field("route_config");
                        ChainRoutes::Inline(Arc::new(env.route_table((**proto).clone(), at, true)?))
                    }
                    RouteSource::Rds { source, name } => {
                        let at = at.field("rds");
                        let here = at.field("config_source");
                        let ConfigSource { source, initial_fetch_timeout: timeout } =
                            config_source::parse(here, (**source).clone(), Files::Exist)?;
                        env.check_source(&here, &source, xds_client::ROUTE)?;
                        let name = Arc::from(name.as_str());
                        let key = self.0.routes.require(&name, &source, timeout, &config.stat_prefix);
                        keys.push(Arc::clone(&key));
                        ChainRoutes::Discovered(key)
                    }
                };
                ChainService::Http(HttpChain { config: Arc::new(config), routes })
            }
        })
    }
}

impl Dependencies for Join {
    fn require(&mut self, ticket: Ticket, listener: &Arc<ListenerConfig>) -> Result<Readiness, ConfigError> {
        let session = self.0.env.session();
        let root = session.root();
        let mut used = Used::default();
        let joined = (|| {
            let logs =
                access_log::parse_all(&root.field("access_log"), listener.access_logs.clone(), &self.0.env.log())?;
            // Set by whoever came first: two versions of a listener never share a configuration.
            let _ = listener.logs.set(logs.into());
            for chain in listener.chains.iter() {
                if let Some(ChainService::Http(HttpChain { routes: ChainRoutes::Discovered(key), .. })) =
                    chain.service.get()
                {
                    // Kept from the version before: its routes have one more user.
                    self.0.routes.retain(key);
                    used.routes.push(Arc::clone(key));
                }
                if chain.service.get().is_none() {
                    let service = self.chain(&root.field(&chain.network_path), chain, &mut used.routes)?;
                    let _ = chain.service.set(service);
                }
                if let Transport::Tls(context) = &chain.transport {
                    let owner = format!("listener.{}.", listener.stat_prefix);
                    let context: Arc<dyn SecretUser> = Arc::clone(context) as _;
                    let at = root.field("transport_socket");
                    self.0.secrets.check(&at, &*context)?;
                    used.secrets.push(self.0.secrets.require(&at, &context, &owner, Side::Server)?);
                }
            }
            if self.0.started.get() {
                self.subscribe(&used).map_err(|error| root.error(error))?;
            }
            Ok(())
        })();
        if let Err(error) = joined {
            used.routes.iter().for_each(|key| self.0.routes.release(key));
            return Err(error);
        }
        self.0.env.say(&format!("listener {:?}", listener.name), &session);
        let ready = used.is_ready(&self.0.routes);
        self.0.used.borrow_mut().insert(ticket, used);
        if ready {
            return Ok(Readiness::Ready);
        }
        self.0.waiting.borrow_mut().push(ticket);
        Ok(Readiness::Waiting)
    }

    fn release(&mut self, ticket: Ticket) {
        self.0.waiting.borrow_mut().retain(|waiting| *waiting != ticket);
        let used = self.0.used.borrow_mut().remove(&ticket);
        for key in used.iter().flat_map(|used| &used.routes) {
            self.0.routes.release(key);
        }
    }
}

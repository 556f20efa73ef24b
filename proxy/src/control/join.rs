//! Joins what a listener's filter chains refer to: connection managers with their routes, access logs with their files.
//!
//! The listener manager asks before a version may serve. Everything that can be wrong with a chain is found here, so that
//! the listener is refused as a whole and workers only ever see chains that can serve.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use filters::config::{At, ConfigError};
use prost::Message;

use super::listeners::{Dependencies, Readiness, Ticket};
use super::parse::ParseEnv;
use super::routes::{Routes, Subscriber};
use crate::config::access_log;
use crate::config::config_source::{self, ConfigSource, Files};
use crate::config::filter_chain::{FilterChain, NetworkFilter};
use crate::config::hcm::{self, RouteSource};
use crate::config::listener::ListenerConfig;
use crate::config::service::{ChainRoutes, ChainService, HttpChain, TcpChain};

/// Knows what listeners wait for.
#[derive(Clone)]
pub struct Join(Rc<Inner>);

struct Inner {
    env: Rc<ParseEnv>,
    routes: Rc<Routes>,
    subscriber: Rc<dyn Subscriber>,
    /// The route configurations each version of a listener uses.
    used: RefCell<HashMap<Ticket, Vec<Arc<str>>>>,
    /// Versions that wait for routes.
    waiting: RefCell<Vec<Ticket>>,
}

impl Join {
    /// Nothing is joined yet.
    #[must_use]
    pub fn new(env: Rc<ParseEnv>, routes: Rc<Routes>, subscriber: Rc<dyn Subscriber>) -> Self {
        Self(Rc::new(Inner { env, routes, subscriber, used: RefCell::default(), waiting: RefCell::default() }))
    }

    /// The versions that need wait no longer; each is answered once.
    #[must_use]
    pub fn take_warmed(&self) -> Vec<Ticket> {
        let used = self.0.used.borrow();
        let ready =
            |ticket: &Ticket| used.get(ticket).is_none_or(|keys| keys.iter().all(|key| self.0.routes.is_ready(key)));
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
                        let required =
                            self.0.routes.require(&*self.0.subscriber, &name, &source, timeout, &config.stat_prefix);
                        let key = required.map_err(|error| here.error(error))?;
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
        let mut keys = Vec::new();
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
                    keys.push(Arc::clone(key));
                }
                if chain.service.get().is_none() {
                    let service = self.chain(&root.field(&chain.network_path), chain, &mut keys)?;
                    let _ = chain.service.set(service);
                }
            }
            Ok(())
        })();
        if let Err(error) = joined {
            keys.iter().for_each(|key| self.0.routes.release(key));
            return Err(error);
        }
        self.0.env.say(&format!("listener {:?}", listener.name), &session);
        let ready = keys.iter().all(|key| self.0.routes.is_ready(key));
        self.0.used.borrow_mut().insert(ticket, keys);
        if ready {
            return Ok(Readiness::Ready);
        }
        self.0.waiting.borrow_mut().push(ticket);
        Ok(Readiness::Waiting)
    }

    fn release(&mut self, ticket: Ticket) {
        self.0.waiting.borrow_mut().retain(|waiting| *waiting != ticket);
        let keys = self.0.used.borrow_mut().remove(&ticket);
        for key in keys.into_iter().flatten() {
            self.0.routes.release(&key);
        }
    }
}

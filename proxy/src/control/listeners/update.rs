//! From a resource to a version of a listener: what kind of change it is, whether the change may be, and which sockets and
//! filter chains it takes over from the version that serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use filters::config::{ConfigError, Session};
use filters::stream_info::Address;

use super::contract::{Applied, ApplyError, Dependencies, ListenerSink, Now, Origin, Readiness, Ticket};
use super::sockets::{BoundSocket, ListenSocket, SocketError, SocketSpec};
use super::{Held, ListenerManager, Version};
use crate::config::filter_chain::FilterChain;
use crate::config::listener::ListenerConfig;
use crate::downstream::accept::{ActiveListener, ConnectionBudget, ListenerId};
use crate::downstream::drain::Drain;

impl<S: ListenerSink, D: Dependencies> ListenerManager<S, D> {
    pub(super) fn try_apply(
        &mut self,
        session: &Session,
        origin: Origin,
        raw: &Bytes,
        now: Now,
    ) -> Result<Applied, ApplyError> {
        let mut config = ListenerConfig::parse(&session.root(), raw)?;
        let name = Arc::clone(&config.name);
        let entry = self.listeners.get(&name);
        let latest = entry.and_then(|entry| entry.warming.as_ref().or(entry.active.as_ref()));
        if latest.is_some_and(|version| version.origin == Origin::Static && origin != Origin::Static) {
            return Ok(Applied::Ignored);
        }
        let same = |version: &Version| version.listener.config.fingerprint.whole == config.fingerprint.whole;
        if latest.is_some_and(same) {
            return Ok(Applied::Unchanged);
        }
        let active = entry.and_then(|entry| entry.active.as_ref());
        if active.is_some_and(same) {
            // Back to what serves: the version still warming was a detour.
            self.drop_warming(&name);
            return Ok(Applied::Unchanged);
        }
        let change = match active {
            None => Applied::Added,
            Some(active) if active.listener.config.fingerprint.frame == config.fingerprint.frame => {
                Applied::UpdatedInPlace
            }
            Some(active) => {
                refuse_reuse_port_change(session, &active.listener.config, &config)?;
                Applied::Updated
            }
        };
        let others = self.listeners.values().flat_map(|entry| entry.active.iter().chain(&entry.warming));
        refuse_duplicate(session, &config, others.map(|version| &*version.listener.config))?;
        if let (Applied::UpdatedInPlace, Some(active)) = (change, active) {
            config.chains = keep_chains(&active.listener.config, config.chains);
        }
        let sockets = self.sockets_for(&config, active)?;
        let (config, addresses) = (Arc::new(config), addresses(&sockets));
        let listener = match (change, active) {
            (Applied::UpdatedInPlace, Some(active)) => ActiveListener {
                id: active.listener.id,
                addresses: active.listener.addresses.clone(),
                drain: Arc::clone(&active.listener.drain),
                budget: Arc::clone(&active.listener.budget),
                config,
            },
            _ => ActiveListener {
                id: ListenerId(self.next_number),
                addresses: if config.bind_to_port {
                    addresses
                } else {
                    config.addresses.iter().map(|configured| configured.address.clone()).collect()
                },
                drain: Arc::new(Drain::default()),
                budget: ConnectionBudget::unlimited(),
                config,
            },
        };
        // As in Envoy, which shows a listener that was updated in place under the version it came with.
        let origin = match (change, active) {
            (Applied::UpdatedInPlace, Some(active)) => active.origin.clone(),
            _ => origin,
        };
        let ticket = Ticket(self.next_number);
        self.next_number += 1;
        let config = Arc::clone(&listener.config);
        let updated = now.wall;
        let version = Version {
            ticket,
            origin,
            raw: raw.clone(),
            updated,
            listener: Arc::new(listener),
            change,
            sockets,
            stopped: false,
        };
        let readiness = self.dependencies.require(ticket, &config)?;
        self.drop_warming(&name);
        match change {
            Applied::Added => self.counters.added += 1,
            Applied::UpdatedInPlace => {
                self.counters.modified += 1;
                self.counters.in_place_updated += 1;
            }
            _ => self.counters.modified += 1,
        }
        match readiness {
            Readiness::Ready => self.promote(&name, version, now)?,
            Readiness::Waiting => self.listeners.entry(name).or_default().warming = Some(version),
        }
        Ok(change)
    }

    /// Finds each socket `config` needs: the active version's, one about to be closed, or a new one.
    fn sockets_for(&self, config: &ListenerConfig, active: Option<&Version>) -> Result<Vec<Held>, SocketError> {
        if !config.bind_to_port {
            return Ok(Vec::new());
        }
        let mut own: Vec<_> = active.into_iter().flat_map(Version::listening).collect();
        let closing = || self.closing.iter().flat_map(|(_, sockets)| sockets);
        let find = |spec: SocketSpec| {
            let wanted = &spec.address.address;
            // Port 0 stays the port this listener was given, and never becomes one another listener had.
            let same =
                |socket: &Arc<ListenSocket>| socket.address() == wanted || socket.spec().address.address == *wanted;
            let existing = match own.iter().position(|socket| same(socket)) {
                Some(index) => Some(own.remove(index)),
                None => closing().find(|socket| socket.address() == wanted),
            };
            match existing {
                Some(socket) => Ok(Held::Listening(Arc::clone(socket))),
                None => BoundSocket::bind(spec).map(Held::Bound),
            }
        };
        SocketSpec::of(config).into_iter().map(find).collect()
    }
}

/// Refuses an address that another listener has, by name, whoever holds its socket.
///
/// # Errors
/// Envoy's sentence, with the listener and its addresses.
pub(crate) fn refuse_duplicate<'a>(
    session: &Session,
    config: &ListenerConfig,
    others: impl Iterator<Item = &'a ListenerConfig>,
) -> Result<(), ConfigError> {
    let mut taken = others.filter(|other| other.name != config.name).flat_map(|other| &other.addresses);
    if !taken.any(|other| config.addresses.iter().any(|address| address.clashes(other))) {
        return Ok(());
    }
    let addresses: Vec<_> = config.addresses.iter().map(ToString::to_string).collect();
    Err(session.root().error(format_args!(
        "error adding listener: '{}' has duplicate address '{}' as existing listener, to check if the listener has \
         duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener",
        config.name,
        addresses.join(",")
    )))
}

fn addresses(sockets: &[Held]) -> Vec<Address> {
    let address = |held: &Held| match held {
        Held::Bound(socket) => socket.address().clone(),
        Held::Listening(socket) => socket.address().clone(),
    };
    sockets.iter().map(address).collect()
}

/// Sockets are shared by all workers or not from their making on.
fn refuse_reuse_port_change(session: &Session, old: &ListenerConfig, new: &ListenerConfig) -> Result<(), ConfigError> {
    let shares = old.addresses.iter().any(|address| new.addresses.iter().any(|other| address.clashes(other)));
    if shares && old.reuse_port != new.reuse_port && old.bind_to_port && new.bind_to_port {
        let root = session.root();
        return Err(root.error(format_args!("Listener {}: reuse port cannot be changed during an update", new.name)));
    }
    Ok(())
}

/// Chains that did not change stay the very same ones.
fn keep_chains(
    old: &ListenerConfig,
    chains: crate::downstream::chain_match::ChainIndex,
) -> crate::downstream::chain_match::ChainIndex {
    let mut unchanged: BTreeMap<u64, Vec<Arc<FilterChain>>> = BTreeMap::new();
    for chain in old.chains.iter() {
        unchanged.entry(chain.identity).or_default().push(Arc::clone(chain));
    }
    chains.map(|chain| unchanged.get_mut(&chain.identity).and_then(Vec::pop).unwrap_or(chain))
}

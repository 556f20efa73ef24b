//! What `/listeners` and `/config_dump` show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use filters::stream_info::Address;

use super::draining::{Draining, DrainingListener};
use super::{Entry, Origin, Version};

/// Everything known under one name.
#[derive(Debug)]
pub struct ListenerView<'a> {
    /// The listener's name.
    pub name: &'a str,
    /// What serves.
    pub active: Option<StateView<'a>>,
    /// What will serve once its routes are there.
    pub warming: Option<StateView<'a>>,
    /// What drains; an update may find several.
    pub draining: Vec<StateView<'a>>,
    /// The last update, if it was rejected.
    pub error: Option<&'a ErrorState>,
}

/// One version.
#[derive(Debug)]
pub struct StateView<'a> {
    /// Bootstrap, or the version discovery gave it.
    pub origin: &'a Origin,
    /// The serialised `Listener`.
    pub raw: &'a Bytes,
    /// When it was accepted.
    pub last_updated: SystemTime,
    /// Where it listens, with real ports.
    pub addresses: &'a [Address],
}

/// What is kept of a version that drains.
#[derive(Debug)]
pub struct ListenerState {
    /// Bootstrap, or the version discovery gave it.
    pub origin: Origin,
    /// The serialised `Listener`.
    pub raw: Bytes,
    /// When it was accepted.
    pub updated: SystemTime,
}

/// `UpdateFailureState`: a rejected update.
#[derive(Debug)]
pub struct ErrorState {
    /// Where it came from.
    pub origin: Origin,
    /// The serialised `Listener`.
    pub failed_configuration: Bytes,
    /// Why.
    pub details: String,
    /// When.
    pub last_update_attempt: SystemTime,
}

impl ErrorState {
    pub(super) fn new(origin: Origin, raw: &Bytes, details: String, now: SystemTime) -> Self {
        Self { origin, failed_configuration: raw.clone(), details, last_update_attempt: now }
    }
}

/// By name; names of which only a drain is left come with the others.
pub(super) fn views<'a>(
    listeners: &'a BTreeMap<Arc<str>, Entry>,
    draining: &'a Draining,
    started: bool,
) -> impl Iterator<Item = ListenerView<'a>> {
    let mut views: BTreeMap<&str, ListenerView<'_>> = BTreeMap::new();
    for (name, entry) in listeners {
        let view = views.entry(name).or_insert_with(|| ListenerView::empty(name));
        // Until the workers run, what is not ready counts as what is.
        let (active, warming) = match (&entry.active, &entry.warming) {
            (active, Some(warming)) if !started => {
                let _ = active;
                (Some(warming), None)
            }
            (active, warming) => (active.as_ref(), warming.as_ref()),
        };
        view.active = active.map(StateView::of);
        view.warming = warming.map(StateView::of);
        view.error = entry.error.as_ref();
    }
    for drain in draining.iter() {
        let name = &*drain.listener.config.name;
        views.entry(name).or_insert_with(|| ListenerView::empty(name)).draining.push(StateView::of_draining(drain));
    }
    views.into_values()
}

impl<'a> ListenerView<'a> {
    const fn empty(name: &'a str) -> Self {
        Self { name, active: None, warming: None, draining: Vec::new(), error: None }
    }
}

impl<'a> StateView<'a> {
    fn of(version: &'a Version) -> Self {
        Self {
            origin: &version.origin,
            raw: &version.raw,
            last_updated: version.updated,
            addresses: &version.listener.addresses,
        }
    }

    fn of_draining(drain: &'a DrainingListener) -> Self {
        Self {
            origin: &drain.state.origin,
            raw: &drain.state.raw,
            last_updated: drain.state.updated,
            addresses: &drain.listener.addresses,
        }
    }
}

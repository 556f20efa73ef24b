//! How configuration reaches a worker: a coalescing map, resource to latest, taken whole and applied in dependency order.
//!
//! Control never waits for a worker: it replaces what a worker has not taken yet. A worker takes everything at once, between
//! two polls of its tasks; requests in flight keep what they hold. What is replaced travels back to control to be freed,
//! for dropping a large table takes longer than a request may wait.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use filters::matcher::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::filter_chain::FilterChain;
use crate::control::listeners::sockets::ListenSocket;
use crate::downstream::accept::{ActiveListener, ListenerId};
use crate::route::RouteTable;
use crate::upstream::cluster::ClusterShared;
use crate::upstream::host::HostSet;

/// One worker's mailbox. Control writes, the worker takes.
pub struct Mailbox {
    // The only lock between control and a worker; held to move a few pointers, never on a request's path.
    pending: Mutex<Pending>,
    wake: Notify,
    retired: UnboundedSender<Retired>,
}

/// Something a worker no longer uses, to be freed by control.
pub type Retired = Box<dyn Any + Send>;

/// A cluster with its hosts.
pub(super) type ClusterVersion = (Arc<ClusterShared>, Arc<HostSet>);

/// What a worker has not applied yet.
#[derive(Default)]
pub(super) struct Pending {
    /// New cluster versions; `None` removes.
    pub(super) clusters: BTreeMap<Arc<str>, Option<ClusterVersion>>,
    /// New host sets of clusters the worker has.
    pub(super) hosts: BTreeMap<Arc<str>, Arc<HostSet>>,
    /// Hosts that failed, by cluster and the number of their state.
    pub(super) failed: BTreeSet<(Arc<str>, u64)>,
    /// New discovered route tables; `None` removes.
    pub(super) routes: BTreeMap<Arc<str>, Option<Arc<RouteTable>>>,
    /// Listener changes, in order.
    pub(super) listeners: Vec<ListenerChange>,
    /// The newest runtime snapshot.
    pub(super) runtime: Option<Arc<dyn Runtime + Send + Sync>>,
    /// Whether to stop taking connections from the kernel (overload).
    pub(super) paused: Option<bool>,
    /// Whether every response asks its connection to close (`/healthcheck/fail`).
    pub(super) draining: Option<bool>,
    /// The process ends.
    pub(super) exit: bool,
}

/// A change to the listeners of a worker.
pub enum ListenerChange {
    /// Accept for this version, on these sockets, from now on.
    Activate(Arc<ActiveListener>, Arc<[Arc<ListenSocket>]>),
    /// Accept what is queued and then no more; [`Report::ListenerStopped`](super::Report::ListenerStopped) says when.
    Stop(ListenerId),
    /// The drain time is over: what is left of the listener's connections (or only of those on these chains) closes.
    Close(ListenerId, Option<Arc<[Arc<FilterChain>]>>),
}

impl Mailbox {
    /// An empty mailbox; what the worker stops using goes to `retired`.
    #[must_use]
    pub fn new(retired: UnboundedSender<Retired>) -> Arc<Self> {
        Arc::new(Self { pending: Mutex::default(), wake: Notify::new(), retired })
    }

    /// A new version of a cluster with its hosts.
    pub fn cluster(&self, name: &Arc<str>, cluster: Arc<ClusterShared>, hosts: Arc<HostSet>) {
        self.change(|pending| {
            pending.hosts.remove(name);
            pending.clusters.insert(Arc::clone(name), Some((cluster, hosts)));
        });
    }

    /// A cluster is gone.
    pub fn remove_cluster(&self, name: &Arc<str>) {
        self.change(|pending| {
            pending.hosts.remove(name);
            pending.clusters.insert(Arc::clone(name), None);
        });
    }

    /// A cluster's hosts changed.
    pub fn hosts(&self, name: &Arc<str>, hosts: Arc<HostSet>) {
        self.change(|pending| {
            if let Some(Some((_, newest))) = pending.clusters.get_mut(name) {
                *newest = hosts;
            } else {
                pending.hosts.insert(Arc::clone(name), hosts);
            }
        });
    }

    /// A host of a cluster failed.
    pub fn host_failed(&self, name: &Arc<str>, host: u64) {
        self.change(|pending| {
            pending.failed.insert((Arc::clone(name), host));
        });
    }

    /// A discovered route table, or its end.
    pub fn routes(&self, name: &Arc<str>, table: Option<Arc<RouteTable>>) {
        self.change(|pending| {
            pending.routes.insert(Arc::clone(name), table);
        });
    }

    /// A change to the listeners.
    pub fn listener(&self, change: ListenerChange) {
        self.change(|pending| pending.listeners.push(change));
    }

    /// A new runtime snapshot.
    pub fn runtime(&self, runtime: Arc<dyn Runtime + Send + Sync>) {
        self.change(|pending| pending.runtime = Some(runtime));
    }

    /// Stops or resumes accepting.
    pub fn pause(&self, paused: bool) {
        self.change(|pending| pending.paused = Some(paused));
    }

    /// Every response asks its connection to close, or no longer (`/healthcheck/fail`).
    pub fn draining(&self, draining: bool) {
        self.change(|pending| pending.draining = Some(draining));
    }

    /// Ends the worker.
    pub fn exit(&self) {
        self.change(|pending| pending.exit = true);
    }

    /// Waits for something to apply and takes all of it.
    pub(super) async fn take(&self) -> Pending {
        self.wake.notified().await;
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends what is no longer used to control.
    pub(super) fn retire(&self, what: impl Any + Send) {
        // Without a control thread the process is ending, and it is freed here.
        let _ = self.retired.send(Box::new(what));
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }
}

/// All workers' mailboxes: what control publishes to.
#[derive(Clone)]
pub struct Publisher(Arc<[Arc<Mailbox>]>);

impl Publisher {
    /// A publisher to these workers.
    #[must_use]
    pub fn new(mailboxes: Vec<Arc<Mailbox>>) -> Self {
        Self(mailboxes.into())
    }

    /// Does the same with every worker's mailbox.
    pub fn each(&self, mut publish: impl FnMut(&Mailbox)) {
        for mailbox in &*self.0 {
            publish(mailbox);
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.len()
    }
}

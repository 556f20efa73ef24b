//! Who wants what: the subscriptions of one type, and the set of names they add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::observer::{Accepted, SubscriptionObserver, Unobserved};
use crate::types::Resource;

/// Envoy's `ConfigSource.initial_fetch_timeout` when unset.
pub const DEFAULT_INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Names one subscription of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub(crate) u64);

/// What a subscription asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything of the type.
    Wildcard,
    /// These resources.
    Names(Vec<String>),
}

/// A request to be kept up to date.
#[derive(Clone)]
pub struct Interest {
    /// The type wanted.
    pub type_url: Arc<str>,
    /// Which resources of it.
    pub selection: Selection,
    /// After how long without any update [`Event::InitialFetchTimeout`](crate::Event::InitialFetchTimeout) is raised;
    /// `None` (Envoy's `0s`) waits for ever.
    pub initial_fetch_timeout: Option<Duration>,
    /// Where this subscription is counted.
    pub observer: Rc<dyn SubscriptionObserver>,
}

impl Interest {
    /// Interest in everything of a type, with the default timeout and no statistics.
    pub fn wildcard(type_url: &str) -> Self {
        Self::new(type_url, Selection::Wildcard)
    }

    /// Interest in one resource, with the default timeout and no statistics.
    pub fn name(type_url: &str, name: impl Into<String>) -> Self {
        Self::new(type_url, Selection::Names(vec![name.into()]))
    }

    fn new(type_url: &str, selection: Selection) -> Self {
        Self {
            type_url: type_url.into(),
            selection,
            initial_fetch_timeout: Some(DEFAULT_INITIAL_FETCH_TIMEOUT),
            observer: Rc::new(Unobserved),
        }
    }

    /// The same interest with another timeout.
    pub fn initial_fetch_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.initial_fetch_timeout = timeout;
        self
    }

    /// The same interest, counted there.
    pub fn observed_by(mut self, observer: Rc<dyn SubscriptionObserver>) -> Self {
        self.observer = observer;
        self
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest")
            .field("type_url", &self.type_url)
            .field("selection", &self.selection)
            .field("initial_fetch_timeout", &self.initial_fetch_timeout)
            .finish_non_exhaustive()
    }
}

/// The subscriptions of one type.
#[derive(Default)]
pub(crate) struct Watches {
    watches: BTreeMap<SubscriptionId, Watch>,
    /// Each name wanted, and by whom.
    names: BTreeMap<String, Vec<SubscriptionId>>,
    wildcards: BTreeSet<SubscriptionId>,
    /// The source is asked anew for each answer, so attempts are counted when it is; else one follows each outcome.
    asked_anew: bool,
}

struct Watch {
    names: Vec<String>,
    observer: Rc<dyn SubscriptionObserver>,
    /// Still within its initial fetch.
    waiting: bool,
}

/// What ceased to be wanted by anybody.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) names: Vec<String>,
    pub(crate) wildcard: bool,
}

impl Watches {
    /// No subscription yet, at a source that is asked anew for each answer or not.
    pub(crate) fn new(asked_anew: bool) -> Self {
        Self { asked_anew, ..Self::default() }
    }

    /// The source is asked.
    pub(crate) fn asking(&self) {
        self.watches.values().for_each(|watch| watch.observer.attempt());
    }

    fn begin_anew(&self, observer: &dyn SubscriptionObserver) {
        if !self.asked_anew {
            observer.attempt();
        }
    }

    pub(crate) fn add(&mut self, id: SubscriptionId, interest: Interest) {
        let names = match interest.selection {
            Selection::Wildcard => {
                self.wildcards.insert(id);
                Vec::new()
            }
            Selection::Names(mut names) => {
                names.sort_unstable();
                names.dedup();
                names
            }
        };
        for name in &names {
            self.names.entry(name.clone()).or_default().push(id);
        }
        self.begin_anew(&*interest.observer);
        self.watches.insert(id, Watch { names, observer: interest.observer, waiting: true });
    }

    pub(crate) fn remove(&mut self, id: SubscriptionId) -> Released {
        let mut released = Released::default();
        let Some(watch) = self.watches.remove(&id) else {
            return released;
        };
        for name in watch.names {
            if let Some(owners) = self.names.get_mut(&name) {
                owners.retain(|owner| *owner != id);
                if owners.is_empty() {
                    self.names.remove(&name);
                    released.names.push(name);
                }
            }
        }
        released.wildcard = self.wildcards.remove(&id) && self.wildcards.is_empty();
        released
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    pub(crate) fn wildcard(&self) -> bool {
        !self.wildcards.is_empty()
    }

    /// Every name asked for, in order.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &String> {
        self.names.keys()
    }

    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether anybody wants to hear of this resource.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wildcard() || self.names.contains_key(name)
    }

    /// The subscriptions an update is for: the wildcards, and those that asked for a name in it.
    pub(crate) fn concerned(&self, resources: &[Resource], removed: &[String]) -> Vec<SubscriptionId> {
        let mut concerned: BTreeSet<_> = self.wildcards.clone();
        let names = resources.iter().flat_map(Resource::names);
        for name in names.chain(removed.iter().map(String::as_str)) {
            concerned.extend(self.names.get(name).into_iter().flatten());
        }
        concerned.into_iter().collect()
    }

    /// The subscription's time for a first update is over: its names, if it was still waiting.
    pub(crate) fn fetch_timed_out(&mut self, id: SubscriptionId) -> Option<Vec<String>> {
        let watch = self.watches.get_mut(&id).filter(|watch| watch.waiting)?;
        watch.waiting = false;
        watch.observer.init_fetch_timeout();
        let (names, observer) = (watch.names.clone(), Rc::clone(&watch.observer));
        self.begin_anew(&*observer);
        Some(names)
    }

    pub(crate) fn accepted(&mut self, concerned: &[SubscriptionId], accepted: &Accepted<'_>) {
        for id in concerned {
            if let Some(watch) = self.watches.get_mut(id) {
                watch.waiting = false;
                watch.observer.success(accepted);
                let observer = Rc::clone(&watch.observer);
                self.begin_anew(&*observer);
            }
        }
    }

    /// A response of the type was refused. As in Envoy that is an outcome for every subscription of the type.
    pub(crate) fn rejected(&mut self) {
        self.watches.values_mut().for_each(|watch| watch.waiting = false);
        for watch in self.watches.values() {
            watch.observer.rejected();
            self.begin_anew(&*watch.observer);
        }
    }

    /// There was no response: an outcome, but not one that ends the wait for a first update.
    pub(crate) fn failed(&self) {
        for watch in self.watches.values() {
            watch.observer.failure();
            self.begin_anew(&*watch.observer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Interest {
        let list = list.iter().map(|name| (*name).to_owned()).collect();
        Interest::new("t", Selection::Names(list))
    }

    #[test]
    fn names_live_as_long_as_somebody_wants_them() {
        let mut watches = Watches::default();
        let [one, two, three] = [1, 2, 3].map(SubscriptionId);
        watches.add(one, names(&["b", "a", "a"]));
        watches.add(two, names(&["b"]));
        watches.add(three, Interest::wildcard("t"));
        assert_eq!(watches.names().collect::<Vec<_>>(), ["a", "b"]);
        assert!(watches.wants("other"));
        let released = watches.remove(one);
        assert_eq!(released, Released { names: vec!["a".into()], wildcard: false });
        assert_eq!(watches.remove(one), Released::default(), "only once");
        assert!(watches.remove(three).wildcard);
        assert!(!watches.wants("other") && watches.wants("b"));
        assert_eq!(watches.remove(two).names, ["b"]);
        assert!(watches.is_empty());
    }
}

//! Gauges that nobody keeps: their values are asked for when they are scraped. For what is the case anyway, such as
//! whether a limit is reached, and would cost the hot path a second write.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use crate::collect::{Collector, Family, FamilyCold, lock};
use crate::snapshot::NumberKind;
use crate::store::Store;

/// Who knows the values. Asked by whichever thread scrapes.
pub trait GaugeSource: Send + Sync {
    /// Calls `show` with name below the prefix, value, and whether it was ever anything but untouched; always the same
    /// names in the same order.
    fn gauges(&self, show: &mut dyn FnMut(&str, u64, bool));
}

/// Keeps computed gauges in the scrape.
pub struct ComputedHandle {
    prefix: Box<str>,
    source: Mutex<Option<Weak<dyn GaugeSource>>>,
    cold: FamilyCold,
    store: Weak<Store>,
}

impl ComputedHandle {
    pub(crate) fn new(prefix: &str, store: &Arc<Store>) -> Self {
        let cold = FamilyCold::default();
        Self { prefix: prefix.into(), source: Mutex::default(), cold, store: Arc::downgrade(store) }
    }

    pub(crate) fn replace(&self, source: Weak<dyn GaugeSource>) {
        *lock(&self.source) = Some(source);
    }
}

impl Family for ComputedHandle {
    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn collect(&self, into: &mut Collector<'_>) {
        if !into.wants(NumberKind::Gauge) {
            return;
        }
        let Some(source) = lock(&self.source).as_ref().and_then(Weak::upgrade) else { return };
        let mut key = 0;
        source.gauges(&mut |name, value, used| {
            into.gauge(&self.cold, key, &[&self.prefix, name], value, used);
            key += 1;
        });
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Drop for ComputedHandle {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.forget(TypeId::of::<Self>(), &self.prefix);
        }
    }
}

impl fmt::Debug for ComputedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputedHandle").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    struct Fixed(u64, bool);

    impl GaugeSource for Fixed {
        fn gauges(&self, show: &mut dyn FnMut(&str, u64, bool)) {
            show("open", self.0, self.1);
            show("left", 7, true);
        }
    }

    fn shown(store: &Store) -> Vec<(String, u64, bool)> {
        let snapshot = store.snapshot();
        snapshot.numbers().map(|number| (number.name.to_owned(), number.value, number.used)).collect()
    }

    #[test]
    fn the_newest_source_is_asked_for_as_long_as_handle_and_source_live() {
        let store = Store::new(1, StoreOptions::default());
        let (old, new): (Arc<dyn GaugeSource>, Arc<dyn GaugeSource>) =
            (Arc::new(Fixed(0, false)), Arc::new(Fixed(1, true)));
        let first = store.computed("a.", &old);
        assert_eq!(shown(&store), [("a.left".into(), 7, true), ("a.open".into(), 0, false)]);
        let second = store.computed("a.", &new);
        assert_eq!(shown(&store), [("a.left".into(), 7, true), ("a.open".into(), 1, true)]);
        drop((old, first));
        assert_eq!(shown(&store).len(), 2);
        drop(new);
        assert_eq!(shown(&store), []);
        drop(second);
        assert_eq!(shown(&store), []);
    }
}

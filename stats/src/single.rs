//! Single named statistics that any thread may write, for paths that are not hot.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use crate::collect::{Collector, Family, FamilyCold, lock};
use crate::snapshot::NumberKind;
use crate::store::Store;

/// A counter that any thread may add to. Shown while a clone of it lives.
#[derive(Clone, Debug)]
pub struct SharedCounter(pub(crate) Arc<Single<CounterValue>>);

impl SharedCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.value.0.fetch_add(n, Relaxed);
    }

    /// What it has counted since it began; [`Store::reset_counters`] does not change it.
    pub fn value(&self) -> u64 {
        self.0.value.0.load(Relaxed)
    }
}

/// A gauge that any thread may write: a full `u64`, such as the hash of a version. Shown while a clone of it lives.
#[derive(Clone, Debug)]
pub struct SharedGauge(pub(crate) Arc<Single<GaugeValue>>);

impl SharedGauge {
    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.value.number.store(value, Relaxed);
        self.0.value.used.store(true, Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one off.
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.value.number.fetch_add(n, Relaxed);
        self.0.value.used.store(true, Relaxed);
    }

    /// Takes `n` off.
    pub fn sub(&self, n: u64) {
        self.0.value.number.fetch_sub(n, Relaxed);
        self.0.value.used.store(true, Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.value.number.load(Relaxed)
    }
}

/// A text shown among the statistics, such as a version. Shown while a clone of it lives.
#[derive(Clone, Debug)]
pub struct TextReadout(pub(crate) Arc<Single<TextValue>>);

impl TextReadout {
    /// Sets the text.
    pub fn set(&self, text: impl Into<String>) {
        *lock(&self.0.value.0) = Some(text.into());
    }

    /// The text; empty if it was never set.
    pub fn value(&self) -> String {
        lock(&self.0.value.0).clone().unwrap_or_default()
    }
}

/// A family of one.
pub(crate) struct Single<V: SingleValue> {
    name: Box<str>,
    value: V,
    cold: FamilyCold,
    store: Weak<Store>,
}

/// What tells the kinds apart.
pub(crate) trait SingleValue: Default + fmt::Debug + Send + Sync + 'static {
    fn collect(&self, cold: &FamilyCold, name: &str, into: &mut Collector<'_>);
    fn reset(&self, _cold: &FamilyCold) {}
}

#[derive(Debug, Default)]
pub(crate) struct CounterValue(AtomicU64);

#[derive(Debug, Default)]
pub(crate) struct GaugeValue {
    number: AtomicU64,
    used: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct TextValue(Mutex<Option<String>>);

impl SingleValue for CounterValue {
    fn collect(&self, cold: &FamilyCold, name: &str, into: &mut Collector<'_>) {
        if into.wants(NumberKind::Counter) {
            into.counter(cold, 0, &[name], self.0.load(Relaxed));
        }
    }

    fn reset(&self, cold: &FamilyCold) {
        cold.reset_counters(std::iter::once(self.0.load(Relaxed)));
    }
}

impl SingleValue for GaugeValue {
    fn collect(&self, cold: &FamilyCold, name: &str, into: &mut Collector<'_>) {
        if into.wants(NumberKind::Gauge) {
            into.gauge(cold, 0, &[name], self.number.load(Relaxed), self.used.load(Relaxed));
        }
    }
}

impl SingleValue for TextValue {
    fn collect(&self, cold: &FamilyCold, name: &str, into: &mut Collector<'_>) {
        if into.wants_texts() {
            let value = lock(&self.0).clone();
            let used = value.is_some();
            into.text(cold, &[name], value.unwrap_or_default(), used);
        }
    }
}

impl<V: SingleValue> Single<V> {
    pub(crate) fn new(name: &str, store: &Arc<Store>) -> Self {
        Self { name: name.into(), value: V::default(), cold: FamilyCold::default(), store: Arc::downgrade(store) }
    }
}

impl<V: SingleValue> Family for Single<V> {
    fn prefix(&self) -> &str {
        &self.name
    }

    fn collect(&self, into: &mut Collector<'_>) {
        self.value.collect(&self.cold, &self.name, into);
    }

    fn reset_counters(&self) {
        self.value.reset(&self.cold);
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<V: SingleValue> Drop for Single<V> {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.forget(TypeId::of::<Self>(), &self.name);
        }
    }
}

impl<V: SingleValue> fmt::Debug for Single<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Single").field("name", &self.name).field("value", &self.value).finish_non_exhaustive()
    }
}

//! The registry of everything that counts.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use crate::codes::CodesHandle;
use crate::collect::{Collector, Family, Selection, lock};
use crate::computed::{ComputedHandle, GaugeSource};
use crate::group::{Group, GroupHandle};
use crate::matcher::{HistogramBuckets, StatsMatcher};
use crate::single::{CounterValue, SharedCounter, SharedGauge, Single, SingleValue, TextReadout};
use crate::snapshot::Snapshot;
use crate::tags::TagProducer;

/// The upper bounds of a histogram's buckets unless configured otherwise.
const DEFAULT_BUCKETS: [f64; 19] =
    [0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6, 3.6e6];

/// Envoy's `stats_config`.
#[derive(Debug, Default)]
pub struct StoreOptions {
    /// How tags are taken out of names (`stats_tags`, `use_all_default_tags`).
    pub tags: TagProducer,
    /// Which statistics exist (`stats_matcher`).
    pub matcher: StatsMatcher,
    /// Buckets by histogram name (`histogram_bucket_settings`).
    pub histogram_buckets: Vec<HistogramBuckets>,
}

/// By type and prefix.
type Families = HashMap<(TypeId, Box<str>), Weak<dyn Family>>;

/// Brings statistics up to date that somebody else keeps.
type Refresh = Arc<dyn Fn() + Send + Sync>;

/// All statistics of the process.
pub struct Store {
    shards: usize,
    options: StoreOptions,
    families: Mutex<Families>,
    refreshes: Mutex<Vec<Refresh>>,
}

impl Store {
    /// A store for that many threads that count: workers + 2.
    pub fn new(shards: usize, options: StoreOptions) -> Arc<Self> {
        Arc::new(Self { shards: shards.max(1), options, families: Mutex::default(), refreshes: Mutex::default() })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The shard of the control thread: the last but one.
    pub fn control_shard(&self) -> usize {
        self.shards.saturating_sub(2)
    }

    /// The shard of the admin thread: the last.
    pub fn admin_shard(&self) -> usize {
        self.shards.saturating_sub(1)
    }

    /// The group of that type below `prefix`, which ends with a dot or is empty. While a handle lives, asking again gives the
    /// same one, so values continue across changes of configuration.
    pub fn group<G: Group>(self: &Arc<Self>, prefix: &str) -> Arc<GroupHandle<G>> {
        self.find_or_create(TypeId::of::<G>(), prefix, || GroupHandle::new(prefix, false, self))
    }

    /// As [`group`](Self::group), but shown only once a thread has taken its shard, as Envoy shows what comes into being
    /// with the first connection or request.
    pub fn group_on_first_use<G: Group>(self: &Arc<Self>, prefix: &str) -> Arc<GroupHandle<G>> {
        self.find_or_create(TypeId::of::<G>(), prefix, || GroupHandle::new(prefix, true, self))
    }

    /// The family of response codes of that name, without its final `_`: `cluster.foo.upstream_rq`,
    /// `cluster.foo.external.upstream_rq`. All its names appear on first use; to show `<family>_completed` before, declare it
    /// in a group too: the same name twice is shown once, added up.
    pub fn codes(self: &Arc<Self>, family: &str) -> Arc<CodesHandle> {
        self.find_or_create(TypeId::of::<CodesHandle>(), family, || CodesHandle::new(family, self))
    }

    /// Shows the gauges of `source` below `prefix` while the handle and the source live. A newer source takes the place of
    /// an older one.
    pub fn computed(self: &Arc<Self>, prefix: &str, source: &Arc<dyn GaugeSource>) -> Arc<ComputedHandle> {
        let handle = self.find_or_create(TypeId::of::<ComputedHandle>(), prefix, || ComputedHandle::new(prefix, self));
        handle.replace(Arc::downgrade(source));
        handle
    }

    /// A single counter by its full name.
    pub fn counter(self: &Arc<Self>, name: &str) -> SharedCounter {
        SharedCounter(self.single(name))
    }

    /// The single counters whose names begin with `prefix`, by what follows it: who takes the place of their holder holds
    /// them before it goes, and they continue.
    pub fn counters_below(&self, prefix: &str) -> Vec<(String, SharedCounter)> {
        let families = lock(&self.families);
        let found = families.iter().filter_map(|((kind, name), family)| {
            let rest = name.strip_prefix(prefix).filter(|_| *kind == TypeId::of::<Single<CounterValue>>())?;
            let family: Arc<dyn Any + Send + Sync> = Family::into_any(family.upgrade()?);
            Some((rest.to_owned(), SharedCounter(family.downcast().ok()?)))
        });
        found.collect()
    }

    /// A single gauge by its full name.
    pub fn gauge(self: &Arc<Self>, name: &str) -> SharedGauge {
        SharedGauge(self.single(name))
    }

    /// A single text readout by its full name.
    pub fn text(self: &Arc<Self>, name: &str) -> TextReadout {
        TextReadout(self.single(name))
    }

    /// Calls `refresh` whenever statistics are about to be read, on the thread that reads them: for numbers that are kept
    /// elsewhere because counting them here would cost the thread they come from. It must not read the store.
    pub fn before_reading(&self, refresh: impl Fn() + Send + Sync + 'static) {
        lock(&self.refreshes).push(Arc::new(refresh));
    }

    /// Takes over what histograms have recorded; the interval shown is from the last call to this one. To be called every
    /// `stats_flush_interval` (5 s) by one thread, or before a scrape with `stats_flush_on_admin`.
    pub fn flush(&self) {
        self.live().iter().for_each(|family| family.merge_histograms());
    }

    /// [`flush`](Self::flush), and everything that sinks need, with counters' growth since the last call of this.
    pub fn flush_to_sinks(&self) -> Snapshot {
        self.flush();
        self.collect(Selection { latch: true, ..Selection::ALL })
    }

    /// All statistics now, histograms as of the last flush. Deltas continue.
    pub fn snapshot(&self) -> Snapshot {
        self.collect(Selection::ALL)
    }

    /// Makes all counters begin at zero again (`/reset_counters`). Used counters stay used.
    pub fn reset_counters(&self) {
        self.live().iter().for_each(|family| family.reset_counters());
    }

    /// The upper bounds of a histogram's buckets.
    pub fn buckets(&self, histogram: &str) -> &[f64] {
        let configured = self.options.histogram_buckets.iter().find(|setting| setting.matcher.matches(histogram));
        configured.map_or(&DEFAULT_BUCKETS, |setting| &setting.buckets)
    }

    pub(crate) fn collect(&self, selection: Selection<'_>) -> Snapshot {
        let refreshes = lock(&self.refreshes).clone();
        refreshes.iter().for_each(|refresh| refresh());
        let mut families = self.live();
        families.sort_by(|a, b| a.prefix().cmp(b.prefix()));
        let mut collector = Collector::new(selection, &self.options.matcher, &self.options.tags);
        families.iter().for_each(|family| family.collect(&mut collector));
        collector.finish()
    }

    /// Takes a family that is being dropped off the list, unless another has taken its place.
    pub(crate) fn forget(&self, kind: TypeId, prefix: &str) {
        let mut families = lock(&self.families);
        let key = (kind, Box::from(prefix));
        if families.get(&key).is_some_and(|family| family.strong_count() == 0) {
            families.remove(&key);
        }
    }

    /// The families in use. Not held under the lock: whoever drops the last handle of one takes the lock.
    fn live(&self) -> Vec<Arc<dyn Family>> {
        lock(&self.families).values().filter_map(Weak::upgrade).collect()
    }

    fn single<V: SingleValue>(self: &Arc<Self>, name: &str) -> Arc<Single<V>> {
        self.find_or_create(TypeId::of::<Single<V>>(), name, || Single::new(name, self))
    }

    fn find_or_create<F: Family>(&self, kind: TypeId, prefix: &str, create: impl FnOnce() -> F) -> Arc<F> {
        let mut families = lock(&self.families);
        let key = (kind, Box::from(prefix));
        let found = families.get(&key).and_then(Weak::upgrade).map(Family::into_any);
        if let Some(found) = found.and_then(|family: Arc<dyn Any + Send + Sync>| family.downcast::<F>().ok()) {
            return found;
        }
        let created = Arc::new(create());
        let family: Arc<dyn Family> = Arc::<F>::clone(&created);
        families.insert(key, Arc::downgrade(&family));
        created
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("shards", &self.shards).finish_non_exhaustive()
    }
}

//! The runtime: layers of keys and values that may change while the process runs (Envoy's `layered_runtime`).
//!
//! A [`Loader`] belongs to the control thread and knows the layers in order, later ones winning. Every change makes a new
//! immutable [`Snapshot`], which is published to the workers and answers there as [`filters::matcher::Runtime`].

mod disk;
mod value;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use filters::matcher::{FractionalPercent, Runtime};
use serde_json::json;
use stats::Store;

use crate::config::bootstrap::runtime::{LayerConfig, LayerSource};
use crate::observe::catalogue::RuntimeStats;

pub use self::disk::{DiskLayer, Fingerprint};
pub use self::value::{Value, flatten};

/// The values of one layer by key.
pub type Values = BTreeMap<String, Value>;

/// All values as of one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    values: Values,
}

impl Snapshot {
    /// A switch; `default` when the key is not set or no boolean.
    #[must_use]
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.values.get(key).and_then(Value::boolean).unwrap_or(default)
    }

    /// A number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        self.values.get(key).and_then(Value::number)
    }

    /// Whether any key begins with this.
    #[must_use]
    pub fn has_prefix(&self, prefix: &str) -> bool {
        let mut from = self.values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.next().is_some_and(|(key, _)| key.starts_with(prefix))
    }

    /// The value as text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(Value::raw)
    }
}

impl From<Values> for Snapshot {
    fn from(values: Values) -> Self {
        Self { values }
    }
}

impl Runtime for Snapshot {
    fn fraction(&self, key: &str) -> Option<FractionalPercent> {
        self.values.get(key).and_then(Value::fraction)
    }

    fn integer(&self, key: &str) -> Option<u64> {
        self.values.get(key).and_then(Value::integer)
    }

    fn boolean(&self, key: &str) -> Option<bool> {
        self.values.get(key).and_then(Value::boolean)
    }
}

/// What is said of a value that is none, by its key.
#[must_use]
pub fn invalid_entry(key: String) -> String {
    format!("Invalid runtime entry value for {key}")
}

/// What `/runtime` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeView {
    /// Layer names in order.
    pub layers: Vec<String>,
    /// By key: the value of each layer (empty where it has none) and the final one.
    pub entries: BTreeMap<String, (Vec<String>, String)>,
}

impl RuntimeView {
    /// The page.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let entries: serde_json::Map<_, _> = self
            .entries
            .iter()
            .map(|(key, (layers, last))| (key.clone(), json!({"layer_values": layers, "final_value": last})))
            .collect();
        json!({"layers": self.layers, "entries": entries})
    }
}

/// Owns the layers.
#[derive(Debug)]
pub struct Loader {
    layers: Vec<Layer>,
    snapshot: Arc<Snapshot>,
    stats: RuntimeStats,
    _handle: Arc<stats::GroupHandle<RuntimeStats>>,
}

#[derive(Debug)]
struct Layer {
    name: String,
    kind: Kind,
    values: Values,
}

#[derive(Debug)]
enum Kind {
    Static,
    Disk(DiskLayer, DiskOutcome),
    Admin,
    Rtds,
}

/// What became of the last attempt to read a disk layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiskOutcome {
    Missing,
    Loaded,
    Failed,
}

impl Loader {
    /// Loads all layers. Disk layers that cannot be read are empty and counted, as in Envoy.
    #[must_use]
    pub fn new(layers: Vec<LayerConfig>, service_cluster: &str, store: &Arc<Store>) -> Self {
        let handle = store.group::<RuntimeStats>("runtime.");
        let stats = handle.shard(store.control_shard());
        let layers = layers
            .into_iter()
            .map(|LayerConfig { name, source }| match source {
                LayerSource::Static(values) => Layer { name, kind: Kind::Static, values },
                LayerSource::Admin => Layer { name, kind: Kind::Admin, values: Values::new() },
                LayerSource::Rtds { .. } => Layer { name, kind: Kind::Rtds, values: Values::new() },
                LayerSource::Disk { symlink_root, subdirectory, append_service_cluster } => {
                    let cluster = append_service_cluster.then_some(service_cluster);
                    let disk = DiskLayer::new(symlink_root, &subdirectory, cluster);
                    Layer { name, kind: Kind::Disk(disk, DiskOutcome::Missing), values: Values::new() }
                }
            })
            .collect();
        let mut loader = Self { layers, snapshot: Arc::default(), stats, _handle: handle };
        for layer in &mut loader.layers {
            layer.load_disk();
        }
        loader.rebuild();
        loader
    }

    /// The values now, to be published.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Reads disk layers again whose root was swapped or changed since the last call; true if there is a new snapshot.
    /// To be called once a second, or when a watch on [`Self::disk_roots`] fires.
    pub fn reload_disk(&mut self) -> bool {
        let mut changed = false;
        for layer in &mut self.layers {
            let Kind::Disk(disk, _) = &mut layer.kind else { continue };
            if disk.changed() {
                layer.load_disk();
                changed = true;
            }
        }
        if changed {
            self.rebuild();
        }
        changed
    }

    /// The `symlink_root` of each disk layer.
    pub fn disk_roots(&self) -> impl Iterator<Item = &std::path::Path> {
        self.layers.iter().filter_map(|layer| match &layer.kind {
            Kind::Disk(disk, _) => Some(disk.root()),
            _ => None,
        })
    }

    /// Replaces the values of the RTDS layer `name`; none at all empty it. Layers of other kinds have their own values.
    pub fn set_rtds(&mut self, name: &str, values: Values) {
        let layer = self.layers.iter_mut().find(|layer| layer.name == name && matches!(layer.kind, Kind::Rtds));
        if let Some(layer) = layer {
            layer.values = values;
            self.rebuild();
        }
    }

    /// `/runtime_modify`: an empty value removes the override.
    ///
    /// # Errors
    /// When there is no admin layer.
    pub fn modify(&mut self, changes: Vec<(String, String)>) -> Result<(), String> {
        let layer = self.layers.iter_mut().find(|layer| matches!(layer.kind, Kind::Admin));
        let layer = layer.ok_or("No admin layer specified")?;
        for (key, value) in changes {
            if value.is_empty() {
                layer.values.remove(&key);
            } else {
                layer.values.insert(key, Value::parse(value));
            }
        }
        self.stats.admin_overrides_active().set(u64::from(!layer.values.is_empty()));
        self.rebuild();
        Ok(())
    }

    /// What `/runtime` shows.
    #[must_use]
    pub fn view(&self) -> RuntimeView {
        let layers = self.layers.iter().map(|layer| layer.name.clone()).collect();
        let raw = |layer: &Layer, key: &str| layer.values.get(key).map_or_else(String::new, |v| v.raw().to_owned());
        let entry = |(key, value): (&String, &Value)| {
            let by_layer = self.layers.iter().map(|layer| raw(layer, key)).collect();
            (key.clone(), (by_layer, value.raw().to_owned()))
        };
        RuntimeView { layers, entries: self.snapshot.values.iter().map(entry).collect() }
    }

    fn rebuild(&mut self) {
        let mut values = Values::new();
        for layer in &self.layers {
            values.extend(layer.values.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        self.stats.num_layers().set(self.layers.len() as u64);
        self.stats.num_keys().set(values.len() as u64);
        let disks = |wanted: DiskOutcome| {
            self.layers.iter().filter(|layer| matches!(layer.kind, Kind::Disk(_, outcome) if outcome == wanted)).count()
        };
        // Counted with every snapshot, and only a second directory makes the difference: as Envoy does it.
        let failed = disks(DiskOutcome::Failed) > 0;
        if failed { self.stats.load_error() } else { self.stats.load_success() }.inc();
        let exists = disks(DiskOutcome::Loaded) > 1;
        if exists { self.stats.override_dir_exists() } else { self.stats.override_dir_not_exists() }.inc();
        self.snapshot = Arc::new(Snapshot { values });
    }
}

impl Layer {
    fn load_disk(&mut self) {
        let Kind::Disk(disk, outcome) = &mut self.kind else { return };
        if !disk.path().is_dir() {
            *outcome = DiskOutcome::Missing;
            self.values.clear();
            return;
        }
        match disk.read() {
            Ok(values) => {
                *outcome = DiskOutcome::Loaded;
                self.values = values;
            }
            Err(error) => {
                *outcome = DiskOutcome::Failed;
                tracing::warn!(layer = self.name, %error, "error loading runtime values from disk; the layer keeps what it had");
            }
        }
    }
}

#[cfg(test)]
mod tests;

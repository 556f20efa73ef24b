//! Envoy's statistics for a proxy whose threads share nothing.
//!
//! # Contract
//!
//! - A [`Store`] has a fixed number of *shards*, one per thread that counts: the workers first, then the control thread
//!   ([`Store::control_shard`]), then the admin thread ([`Store::admin_shard`]). A shard has **one writer**: a count is a
//!   relaxed load and a relaxed store, never a locked instruction, a lock, a lookup or an allocation of names.
//! - What is counted is declared once with [`group!`]: a fixed schema of counters, gauges and histograms below a prefix
//!   such as `cluster.foo.`. A [`GroupHandle`] is asked for when configuration is built; a worker then takes its shard of
//!   it ([`GroupHandle::shard`]) and keeps it. Names exist as (prefix, static schema) and are only joined when scraped.
//!   A group may be shown from its first use only ([`Store::group_on_first_use`]).
//! - Response codes are a family of counters that appear on first use ([`Codes`]); rare single values that any thread
//!   may write are [`SharedCounter`], [`SharedGauge`] and [`TextReadout`].
//! - Gauges that follow from a state kept anyway are computed when scraped ([`GaugeSource`]).
//! - Statistics disappear from the scrape when their last handle is dropped.
//! - [`Store::flush`] merges histograms; like Envoy, a scrape shows histograms as of the last flush.
//! - [`render`] prints what a [`Query`] asks for, as Envoy prints it.

mod codes;
mod collect;
mod computed;
mod group;
mod histogram;
mod matcher;
mod query;
mod render;
mod single;
mod snapshot;
mod store;
mod tags;

pub use codes::{Codes, CodesHandle};
pub use computed::{ComputedHandle, GaugeSource};
pub use group::{CellStore, Cells, Counter, Gauge, Group, GroupHandle, Histogram, LazyShard, Schema};
pub use histogram::{Bin, Bins, HistogramCells, HistogramSlot, QUANTILES, Unit};
pub use matcher::{HistogramBuckets, NameMatcher, StatsMatcher};
pub use query::{BucketMode, Format, Hidden, Query, QueryError, StatsType};
pub use render::{Rendered, render, render_html, render_json, render_prometheus, render_text};
pub use single::{SharedCounter, SharedGauge, TextReadout};
pub use snapshot::{HistogramSample, NumberKind, NumberSample, Snapshot, TextSample};
pub use store::{Store, StoreOptions};
pub use tags::{Tag, TagError, TagOptions, TagProducer, TagSet, TagSpecifier, TagValue};

#[doc(hidden)]
pub use group::cell_count;

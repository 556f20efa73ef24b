//! Per-host statistics: a shard per worker, written by that worker alone, summed when read.

use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. One thread writes it, any thread reads it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down. One thread writes it, any thread reads it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        // One writer, so a load and a store cannot lose anything, and cost no locked instruction.
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

macro_rules! host_stats {
    ($($(#[$meta:meta])* $name:ident: $kind:ident,)*) => {
        /// One worker's share of a host's statistics, on cache lines of its own.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct HostShard {
            $($(#[$meta])* pub $name: $kind,)*
        }

        /// A host's statistics over all workers, under the names `/clusters` prints.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct HostStats {
            $($(#[$meta])* pub $name: u64,)*
        }

        impl HostShard {
            /// The values now.
            #[must_use]
            pub fn read(&self) -> HostStats {
                HostStats { $($name: self.$name.0.load(Relaxed),)* }
            }
        }

        impl Sum for HostStats {
            fn sum<I: Iterator<Item = Self>>(shards: I) -> Self {
                shards.fold(Self::default(), |a, b| Self { $($name: a.$name.wrapping_add(b.$name),)* })
            }
        }
    };
}

host_stats! {
    /// Open connections.
    cx_active: Gauge,
    /// Connections that could not be opened.
    cx_connect_fail: Counter,
    /// Connections opened.
    cx_total: Counter,
    /// Requests in flight.
    rq_active: Gauge,
    /// Requests that failed or were answered 5xx.
    rq_error: Counter,
    /// Requests waiting for a connection.
    rq_pending_active: Gauge,
    /// Requests answered below 500.
    rq_success: Counter,
    /// Requests that timed out.
    rq_timeout: Counter,
    /// Requests sent.
    rq_total: Counter,
}

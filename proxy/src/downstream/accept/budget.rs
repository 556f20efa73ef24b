//! How many connections are open, and how many may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Open connections on all workers, and their limit. One for each listener (runtime key
/// `envoy.resource_limits.listener.<name>.connection_limit`) and one for the process (resource monitor
/// `envoy.resource_monitors.global_downstream_max_connections`).
#[derive(Debug)]
pub struct ConnectionBudget {
    open: AtomicU64,
    limit: AtomicU64,
}

/// One open connection; closing it is dropping this.
#[derive(Debug)]
pub struct ConnectionGuard {
    listener: Arc<ConnectionBudget>,
    /// `None` for listeners exempt from the process-wide limit.
    global: Option<Arc<ConnectionBudget>>,
}

impl ConnectionBudget {
    /// Without a limit.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self { open: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) })
    }

    /// Changes the limit; open connections stay. `u64::MAX` is none.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        if self.open.fetch_add(1, Ordering::Relaxed) < self.limit.load(Ordering::Relaxed) {
            return true;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        false
    }
}

/// Which limit refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    Listener,
    Global,
}

impl ConnectionGuard {
    /// Opens a connection if both budgets have room.
    pub(super) fn open(
        listener: &Arc<ConnectionBudget>,
        global: Option<&Arc<ConnectionBudget>>,
    ) -> Result<Self, Exhausted> {
        if !listener.take() {
            return Err(Exhausted::Listener);
        }
        // From here on dropping `guard` gives back what was taken.
        let mut guard = Self { listener: Arc::clone(listener), global: None };
        if let Some(global) = global {
            if !global.take() {
                return Err(Exhausted::Global);
            }
            guard.global = Some(Arc::clone(global));
        }
        Ok(guard)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(global) = &self.global {
            global.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_leaves_both_counts_as_they_were() {
        let (listener, global) = (ConnectionBudget::unlimited(), ConnectionBudget::unlimited());
        global.set_limit(1);
        let first = ConnectionGuard::open(&listener, Some(&global)).expect("room");
        assert_eq!(ConnectionGuard::open(&listener, Some(&global)).expect_err("full"), Exhausted::Global);
        assert_eq!((listener.open(), global.open()), (1, 1));
        let exempt = ConnectionGuard::open(&listener, None).expect("exempt");
        listener.set_limit(2);
        assert_eq!(ConnectionGuard::open(&listener, None).expect_err("full"), Exhausted::Listener);
        drop((first, exempt));
        assert_eq!((listener.open(), global.open()), (0, 0));
    }
}

//! What the process does now and then: statistics of itself, histogram merges, overload, disk layers.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use stats::Store;

use crate::config::bootstrap::{Bootstrap, Flush};
use crate::control::Control;
use crate::observe::catalogue::{OverloadStats, ServerStats};
use crate::overload::{Action, Manager, ProcessMemory};
use crate::worker::Shared;

/// What Envoy says of the days until a certificate expires where there is none: the largest number of 32 bits.
const NO_CERTIFICATE: u64 = u32::MAX as u64;

/// Starts all of it on the control thread.
pub(super) fn spawn(control: &Rc<Control>, shared: &Shared, bootstrap: &Bootstrap, stats: &ServerStats) {
    let store = std::sync::Arc::clone(&shared.store);
    let interval = match bootstrap.stats_flush {
        Flush::Every(interval) => interval,
        // Pages merge histograms themselves then; the process's own numbers are still kept fresh.
        Flush::OnAdmin => Duration::from_secs(5),
    };
    let flushes = matches!(bootstrap.stats_flush, Flush::Every(_));
    let (of, stats) = (Rc::clone(control), stats.clone());
    tokio::task::spawn_local(async move {
        let started = Instant::now();
        let mut tick = tokio::time::interval(interval);
        loop {
            tick.tick().await;
            process(&of, &stats, started);
            if flushes {
                Store::flush(&store);
            }
        }
    });
    overload(control, shared, bootstrap);
    let control = Rc::clone(control);
    tokio::task::spawn_local(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            if control.runtime.borrow_mut().reload_disk() {
                control.publish_runtime();
            }
        }
    });
}

fn process(control: &Control, stats: &ServerStats, started: Instant) {
    stats.uptime().set(started.elapsed().as_secs());
    let memory = ProcessMemory::now().unwrap_or_default();
    stats.memory_allocated().set(memory.allocated);
    stats.memory_heap_size().set(memory.heap_size);
    stats.memory_physical_size().set(memory.physical);
    stats.total_connections().set(control.open_connections());
    let days = control.secrets.days_until_first_expires(SystemTime::now());
    stats.days_until_first_cert_expiring().set(days.unwrap_or(NO_CERTIFICATE));
}

fn overload(control: &Rc<Control>, shared: &Shared, bootstrap: &Bootstrap) {
    let mut manager = Manager::new(&bootstrap.overload, &shared.store);
    let group = shared.store.group::<OverloadStats>("overload.");
    let stats = group.shard(shared.store.control_shard());
    let monitored = !bootstrap.overload.monitors.is_empty();
    let (states, connections) = (std::sync::Arc::clone(&shared.overload), std::sync::Arc::clone(&shared.connections));
    let interval = bootstrap.overload.refresh_interval;
    let control = Rc::clone(control);
    tokio::task::spawn_local(async move {
        let _shown = group;
        let mut tick = tokio::time::interval(interval);
        let mut last = None;
        loop {
            tick.tick().await;
            let now = Instant::now();
            if let Some(last) = last.replace(now).filter(|_| monitored) {
                let delay = now.saturating_duration_since(last);
                stats.refresh_interval_delay().record(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            }
            manager.connections(connections.open());
            let memory = ProcessMemory::now().map(|memory| memory.physical);
            if let Some(changed) = manager.refresh(memory) {
                states.set(changed);
                let paused = changed.saturated(Action::StopAcceptingConnections);
                control.publisher.each(|mailbox| mailbox.pause(paused));
            }
            if manager.states().saturated(Action::ShrinkHeap) {
                // The allocator gives pages back by itself; what is counted is that it was asked to.
                manager.heap_was_shrunk();
            }
        }
    });
}

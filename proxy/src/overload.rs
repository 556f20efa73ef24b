//! The overload manager: resource pressures in, action states out (`envoy.config.overload.v3.OverloadManager`).
//!
//! [`Manager`] is a state machine without clock or sockets: the control thread samples the monitors every
//! `refresh_interval`, feeds the pressures in and publishes the [`States`] that come out; workers look at those. The
//! connection limit is not sampled: every accepted connection asks the process's connection budget, whose count
//! [`Manager::connections`] is told for its gauge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use stats::{SharedCounter, SharedGauge, Store};

/// The monitor of the connection limit.
pub const MAX_CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct OverloadConfig {
    /// `refresh_interval`.
    pub refresh_interval: Duration,
    /// The sampled monitors, by name.
    pub monitors: Vec<(String, Monitor)>,
    /// `global_downstream_max_connections`; `None` is no limit.
    pub max_downstream_connections: Option<u64>,
    /// Actions and what triggers them.
    pub actions: Vec<ActionConfig>,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(1),
            monitors: Vec::new(),
            max_downstream_connections: None,
            actions: Vec::new(),
        }
    }
}

/// A resource whose pressure is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitor {
    /// `fixed_heap`: memory in use against this many bytes.
    FixedHeap {
        /// `max_heap_size_bytes`; never 0.
        max_heap_size_bytes: u64,
    },
}

/// One action and its triggers; the strongest trigger counts.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionConfig {
    /// What is done.
    pub action: Action,
    /// When: a monitor's name, and how its pressure reads.
    pub triggers: Vec<(String, Trigger)>,
}

/// How pressure becomes the strength of an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trigger {
    /// All at once, from this pressure on.
    Threshold(f64),
    /// From nothing at `scaling` to all at `saturation`.
    Scaled {
        /// Pressure above which the action begins.
        scaling: f64,
        /// Pressure from which it is complete; greater than `scaling`.
        saturation: f64,
    },
}

/// What can be done about overload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Requests are answered 503 `envoy overloaded`.
    StopAcceptingRequests,
    /// HTTP/1 connections close after their request, HTTP/2 ones drain.
    DisableHttpKeepalive,
    /// Listeners stop accepting; connections wait in the kernel.
    StopAcceptingConnections,
    /// Connections are accepted and closed.
    RejectIncomingConnections,
    /// Unused memory is given back to the kernel.
    ShrinkHeap,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::StopAcceptingRequests,
        Self::DisableHttpKeepalive,
        Self::StopAcceptingConnections,
        Self::RejectIncomingConnections,
        Self::ShrinkHeap,
    ];

    /// The name in configuration and statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StopAcceptingRequests => "envoy.overload_actions.stop_accepting_requests",
            Self::DisableHttpKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Self::StopAcceptingConnections => "envoy.overload_actions.stop_accepting_connections",
            Self::RejectIncomingConnections => "envoy.overload_actions.reject_incoming_connections",
            Self::ShrinkHeap => "envoy.overload_actions.shrink_heap",
        }
    }

    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

impl Trigger {
    /// The strength, from 0 to 1, that this pressure gives.
    #[must_use]
    pub fn strength(self, pressure: f64) -> f64 {
        match self {
            Self::Threshold(threshold) => f64::from(u8::from(pressure >= threshold)),
            Self::Scaled { scaling, saturation } => ((pressure - scaling) / (saturation - scaling)).clamp(0.0, 1.0),
        }
    }
}

/// How strongly each action is to be taken; small enough to be copied to every worker.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct States([f64; Action::ALL.len()]);

impl States {
    /// From 0 (not at all) to 1.
    #[must_use]
    pub const fn strength(&self, action: Action) -> f64 {
        self.0[action as usize]
    }

    /// Whether the action is taken for one stream or connection with this random value; one in between is taken for
    /// that share of them.
    #[must_use]
    pub fn applies(&self, action: Action, random: u32) -> bool {
        let strength = self.strength(action);
        strength >= 1.0 || (strength > 0.0 && f64::from(random) / 4_294_967_296.0 < strength)
    }

    /// Whether the action is complete.
    #[must_use]
    pub fn saturated(&self, action: Action) -> bool {
        self.strength(action) >= 1.0
    }
}

/// The states as workers read them: one relaxed load, and nothing at all where no action is configured.
#[derive(Debug, Default)]
pub struct Shared([AtomicU32; Action::ALL.len()]);

impl Shared {
    /// Takes new states.
    pub fn set(&self, states: States) {
        for (action, slot) in Action::ALL.into_iter().zip(&self.0) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "strengths are 0 to 1")]
            slot.store((states.strength(action).clamp(0.0, 1.0) * f64::from(Self::FULL)) as u32, Relaxed);
        }
    }

    /// Whether `action` applies now; `random`, uniform in `[0, 1)`, is asked only while it applies in part.
    pub fn applies(&self, action: Action, random: impl FnOnce() -> f64) -> bool {
        match self.0.get(action as usize).map_or(0, |slot| slot.load(Relaxed)) {
            0 => false,
            Self::FULL => true,
            part => random() * f64::from(Self::FULL) < f64::from(part),
        }
    }

    const FULL: u32 = 1 << 20;
}

/// Turns pressures into states.
#[derive(Debug)]
pub struct Manager {
    monitors: Vec<MonitorState>,
    actions: Vec<ActionState>,
    states: States,
    shrink_count: Option<SharedCounter>,
    connections: Option<(u64, SharedGauge, SharedCounter)>,
}

#[derive(Debug)]
struct MonitorState {
    name: String,
    monitor: Monitor,
    pressure: f64,
    gauge: SharedGauge,
    failed: SharedCounter,
    _skipped: SharedCounter,
}

#[derive(Debug)]
struct ActionState {
    config: ActionConfig,
    active: SharedGauge,
    scale_percent: SharedGauge,
}

impl Manager {
    /// A manager without pressure.
    #[must_use]
    pub fn new(config: &OverloadConfig, store: &Arc<Store>) -> Self {
        let monitor = |(name, monitor): &(String, Monitor)| {
            let stat = |leaf: &str| format!("overload.{name}.{leaf}");
            MonitorState {
                name: name.clone(),
                monitor: *monitor,
                pressure: 0.0,
                gauge: store.gauge(&stat("pressure")),
                failed: store.counter(&stat("failed_updates")),
                _skipped: store.counter(&stat("skipped_updates")),
            }
        };
        let action = |config: &ActionConfig| ActionState {
            config: config.clone(),
            active: store.gauge(&format!("overload.{}.active", config.action.name())),
            scale_percent: store.gauge(&format!("overload.{}.scale_percent", config.action.name())),
        };
        let shrinks = config.actions.iter().any(|action| action.action == Action::ShrinkHeap);
        Self {
            monitors: config.monitors.iter().map(monitor).collect(),
            actions: config.actions.iter().map(action).collect(),
            states: States::default(),
            connections: config.max_downstream_connections.map(|max| {
                let stat = |leaf: &str| format!("overload.{MAX_CONNECTIONS}.{leaf}");
                (max, store.gauge(&stat("pressure")), store.counter(&stat("failed_updates")))
            }),
            shrink_count: shrinks.then(|| store.counter("overload.envoy.overload_actions.shrink_heap.shrink_count")),
        }
    }

    /// The states now.
    #[must_use]
    pub const fn states(&self) -> States {
        self.states
    }

    /// Samples every monitor with `memory` (bytes in use, `None` if unknown); the new states if any changed.
    pub fn refresh(&mut self, memory: Option<u64>) -> Option<States> {
        for monitor in &mut self.monitors {
            let Monitor::FixedHeap { max_heap_size_bytes } = monitor.monitor;
            match memory {
                #[expect(clippy::cast_precision_loss, reason = "a ratio of byte counts")]
                Some(bytes) => monitor.set(bytes as f64 / max_heap_size_bytes as f64),
                None => monitor.failed.inc(),
            }
        }
        self.evaluate()
    }

    /// Brings the connection limit's pressure gauge up to date with the number of downstream connections.
    pub fn connections(&self, active: u64) {
        if let Some((max, gauge, _)) = &self.connections {
            gauge.set(active.saturating_mul(100) / (*max).max(1));
        }
    }

    /// The caller has given memory back (`shrink_heap`).
    pub fn heap_was_shrunk(&self) {
        if let Some(counter) = &self.shrink_count {
            counter.inc();
        }
    }

    fn evaluate(&mut self) -> Option<States> {
        let mut states = States::default();
        for action in &self.actions {
            let pressure = |name: &str| self.monitors.iter().find(|m| m.name == name).map_or(0.0, |m| m.pressure);
            let strengths = action.config.triggers.iter().map(|(name, trigger)| trigger.strength(pressure(name)));
            let strength = strengths.fold(0.0, f64::max);
            states.0[action.config.action as usize] = strength;
            action.active.set(u64::from(strength >= 1.0));
            action.scale_percent.set(percent(strength));
        }
        let changed = states != self.states;
        self.states = states;
        changed.then_some(states)
    }
}

impl MonitorState {
    fn set(&mut self, pressure: f64) {
        self.pressure = pressure;
        self.gauge.set(percent(pressure));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; a float cast saturates")]
fn percent(ratio: f64) -> u64 {
    (ratio.max(0.0) * 100.0) as u64
}

/// Memory of this process in bytes, as the kernel sees it: the allocator keeps no books that could be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident and backed by no file: what was allocated and touched.
    pub allocated: u64,
    /// Set aside for data, touched or not.
    pub heap_size: u64,
    /// Resident in all.
    pub physical: u64,
}

impl ProcessMemory {
    /// As of now; `None` if the kernel does not say.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kilobytes * 1024)
        };
        Some(Self { allocated: bytes("RssAnon")?, heap_size: bytes("VmData")?, physical: bytes("VmRSS")? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stats::StoreOptions;

    use super::*;

    fn config() -> OverloadConfig {
        let heap = "envoy.resource_monitors.fixed_heap".to_owned();
        OverloadConfig {
            monitors: vec![(heap.clone(), Monitor::FixedHeap { max_heap_size_bytes: 1000 })],
            actions: vec![
                ActionConfig {
                    action: Action::StopAcceptingRequests,
                    triggers: vec![(heap.clone(), Trigger::Threshold(0.95))],
                },
                ActionConfig {
                    action: Action::DisableHttpKeepalive,
                    triggers: vec![(heap, Trigger::Scaled { scaling: 0.5, saturation: 0.9 })],
                },
            ],
            ..OverloadConfig::default()
        }
    }

    #[test]
    fn the_kernel_says_how_much_memory_there_is() {
        let status = "VmRSS:\t   20 kB\nRssAnon:\t    3 kB\nVmData:\t  100 kB\n";
        let expected = ProcessMemory { allocated: 3 << 10, heap_size: 100 << 10, physical: 20 << 10 };
        assert_eq!(ProcessMemory::parse(status), Some(expected));
        assert_eq!(ProcessMemory::parse("VmRSS: 20 kB\n"), None);
        let now = ProcessMemory::now().unwrap();
        assert!(now.allocated > 0 && now.physical >= now.allocated, "{now:?}");
    }

    #[test]
    fn pressure_becomes_strength() {
        let store = Store::new(3, StoreOptions::default());
        let mut manager = Manager::new(&config(), &store);
        let rows = [(400, 0.0, 0.0), (700, 0.0, 0.5), (900, 0.0, 1.0), (950, 1.0, 1.0), (500, 0.0, 0.0)];
        for (memory, requests, keepalive) in rows {
            manager.refresh(Some(memory));
            let states = manager.states();
            assert_eq!(states.strength(Action::StopAcceptingRequests), requests, "{memory}");
            assert!((states.strength(Action::DisableHttpKeepalive) - keepalive).abs() < 1e-9, "{memory}");
        }
        assert_eq!(manager.refresh(Some(500)), None, "nothing changed");
        assert!(manager.refresh(Some(2000)).is_some());
        manager.refresh(None);
        assert!(manager.states().saturated(Action::StopAcceptingRequests), "an unknown sample changes nothing");
        let stats = stats::render_text(&store, &stats::Query::default());
        for line in [
            "overload.envoy.resource_monitors.fixed_heap.pressure: 200",
            "overload.envoy.resource_monitors.fixed_heap.failed_updates: 1",
            "overload.envoy.overload_actions.stop_accepting_requests.active: 1",
            "overload.envoy.overload_actions.disable_http_keepalive.scale_percent: 100",
        ] {
            assert!(stats.contains(line), "{line} in {stats}");
        }
    }

    #[test]
    fn a_share_of_streams_is_taken() {
        let mut states = States::default();
        assert!(!states.applies(Action::StopAcceptingRequests, 0));
        states.0[Action::StopAcceptingRequests as usize] = 0.25;
        assert!(states.applies(Action::StopAcceptingRequests, u32::MAX / 5));
        assert!(!states.applies(Action::StopAcceptingRequests, u32::MAX / 3));
        states.0[Action::StopAcceptingRequests as usize] = 1.0;
        assert!(states.applies(Action::StopAcceptingRequests, u32::MAX));
    }

    proptest! {
        #[test]
        fn strength_never_falls_with_pressure(a in 0.0..2.0_f64, b in 0.0..2.0_f64, scaling in 0.0..0.9_f64) {
            let (low, high) = (a.min(b), a.max(b));
            for trigger in [Trigger::Threshold(scaling), Trigger::Scaled { scaling, saturation: scaling + 0.1 }] {
                let (weak, strong) = (trigger.strength(low), trigger.strength(high));
                prop_assert!((0.0..=1.0).contains(&weak) && weak <= strong && strong <= 1.0);
            }
        }
    }
}

//! What is printed: of a run, of a comparison, and of both as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::compare::Comparison;
use super::judge::Excuse;
use super::run::Run;

/// What a proxy may keep beyond what it had, in KiB: the allocator does not give back every page that a crowd of stalled
/// requests once needed.
pub(super) const MEMORY_LEFT: u64 = 8 << 10;
/// Wrongs that are told in full.
const TOLD: usize = 10;

/// What is not as it must be with a run; nothing if it passed.
pub(super) fn failings(run: &Run) -> Vec<String> {
    let mut failings = Vec::new();
    if !run.verdict.wrongs.is_empty() {
        failings.push(format!("{} requests lost or harmed that need not have been", run.verdict.wrongs.len()));
    }
    let (memory, descriptors) = (run.memory, run.descriptors);
    // Where the machine stood still, far more was under way at once than ever planned.
    if !run.is_spoilt() && memory.end > memory.start + MEMORY_LEFT {
        failings.push(format!("memory was {} and is {}", mebibytes(memory.start), mebibytes(memory.end)));
    }
    if descriptors.end > descriptors.start {
        failings.push(format!("{} descriptors were open and {} are", descriptors.start, descriptors.end));
    }
    failings.extend(run.stuck.iter().cloned());
    failings
}

/// A run in a few lines.
pub(super) fn text(name: &str, run: &Run) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "{name:8} {:5} seed {:<3} {:6} requests  {:4} failed ({:.3} %)  p50 {}  p99 {}  CPU {:.2} s  memory {} peak {} \
         then {}  descriptors {} then {}",
        run.setting.protocol,
        run.setting.seed,
        run.sent,
        run.failed,
        100.0 * rate(run.failed, run.sent),
        milliseconds(percentile(&run.latencies, 50)),
        milliseconds(percentile(&run.latencies, 99)),
        run.processor.as_secs_f64(),
        mebibytes(run.memory.start),
        mebibytes(run.memory.peak),
        mebibytes(run.memory.end),
        run.descriptors.start,
        run.descriptors.end,
    );
    let excused = Excuse::ALL.into_iter().filter_map(|excuse| {
        let number = run.verdict.excused.get(&excuse)?;
        Some(format!("{number} {}", excuse.text()))
    });
    let excused = excused.collect::<Vec<_>>().join(", ");
    let excused = if excused.is_empty() { "nothing" } else { &excused };
    let _ = writeln!(
        text,
        "         excused: {excused}; {} retries; {} tries reached hosts, {} of them one tried before; \
         sent at most {} late, a processor awaited for {}",
        run.verdict.retries,
        run.verdict.tries,
        run.verdict.repeated,
        milliseconds(run.lag),
        milliseconds(run.kept_waiting),
    );
    for wrong in run.verdict.wrongs.iter().take(TOLD) {
        let _ = writeln!(text, "         WRONG {wrong}");
    }
    for note in run.verdict.notes.iter().take(TOLD) {
        let _ = writeln!(text, "         NOTE {note}");
    }
    for failing in failings(run) {
        let _ = writeln!(text, "         FAILED {failing}");
    }
    text
}

/// The same for programs.
pub(super) fn json(name: &str, run: &Run) -> Value {
    let excused: serde_json::Map<String, Value> = Excuse::ALL
        .into_iter()
        .map(|excuse| (format!("{excuse:?}"), run.verdict.excused.get(&excuse).copied().unwrap_or(0).into()))
        .collect();
    json!({
        "proxy": name,
        "protocol": run.setting.protocol.to_string(),
        "seed": run.setting.seed,
        "requests": run.sent,
        "failed": run.failed,
        "excused": excused,
        "wrongs": run.verdict.wrongs,
        "failings": failings(run),
        "retries": run.verdict.retries,
        "tries": run.verdict.tries,
        "repeated": run.verdict.repeated,
        "p50_ms": 1e3 * percentile(&run.latencies, 50).as_secs_f64(),
        "p99_ms": 1e3 * percentile(&run.latencies, 99).as_secs_f64(),
        "lag_ms": 1e3 * run.lag.as_secs_f64(),
        "kept_waiting_ms": 1e3 * run.kept_waiting.as_secs_f64(),
        "cpu_s": run.processor.as_secs_f64(),
        "memory_kib": { "start": run.memory.start, "peak": run.memory.peak, "end": run.memory.end },
        "descriptors": { "start": run.descriptors.start, "end": run.descriptors.end },
    })
}

/// Two proxies side by side: the pairs of runs that are compared, and how many are not.
pub(super) fn comparison(names: [&str; 2], runs: &[[Run; 2]], spoilt: usize, comparison: &Comparison) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n| {} alternated runs | failed | rate | p50 | p99 | CPU | memory at most |\n|---|---|---|---|---|---|---|",
        comparison.pairs
    );
    for (side, name) in names.into_iter().enumerate() {
        let of: Vec<&Run> = runs.iter().filter_map(|pair| pair.get(side)).collect();
        let sum = |value: fn(&Run) -> u64| of.iter().map(|run| value(run)).sum::<u64>();
        let (failed, sent) = (sum(|run| run.failed), sum(|run| run.sent));
        let mut latencies: Vec<Duration> = of.iter().flat_map(|run| run.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        let processor: Duration = of.iter().map(|run| run.processor).sum();
        let peak = of.iter().map(|run| run.memory.peak).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {name} | {failed} of {sent} | {:.3} % | {} | {} | {:.2} s | {} |",
            100.0 * rate(failed, sent),
            milliseconds(percentile(&latencies, 50)),
            milliseconds(percentile(&latencies, 99)),
            processor.as_secs_f64(),
            mebibytes(peak),
        );
    }
    let _ = writeln!(text, "\n{}", comparison.text(names));
    if spoilt > 0 {
        let _ = writeln!(
            text,
            "{spoilt} more pairs of runs were disturbed by what else this machine did, and are left out"
        );
    }
    text
}

/// The value that `percent` of them do not exceed; they are in ascending order.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// A share.
#[expect(clippy::cast_precision_loss, reason = "counts of a drill are far below 2^52")]
pub(super) fn rate(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", 1e3 * time.as_secs_f64())
}

fn mebibytes(kib: u64) -> String {
    format!("{} MiB", kib / 1024)
}

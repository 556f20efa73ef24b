//! `legate demo --check`: the canary once, with a verdict.

use std::io::Write;
use std::time::{Duration, Instant};

use super::load::{Counts, Flow, Load};
use super::mesh::Mesh;
use super::resources::Weights;
use crate::stage::admin::Statistics;
use crate::stage::http1::Http1;

/// A share may be off by so many standard deviations: a right proxy fails about once in 150,000 runs of one flow.
const DEVIATIONS: f64 = 4.5;
/// How soon traffic must follow new weights.
const FOLLOW: Duration = Duration::from_secs(1);
/// Traffic before and after the weights change, to see the change happen under load.
const AROUND: Duration = Duration::from_millis(200);

/// Plays both phases with `number` requests per flow. Whether everything was as it should be.
pub(super) async fn play(mesh: &Mesh, number: u64, out: &mut impl Write) -> Result<bool, String> {
    let load = Load::new(&mesh.ports);
    let mut report = Report { out, passed: 0, failed: 0 };
    let mut through_sidecar = 0;
    report.line(&format!("  both proxies served {} after their start", milliseconds(mesh.start_time)));

    report.line(&format!("\n  {}", Weights::CANARY));
    load.send(number).await;
    through_sidecar += report.phase(load.take(), Weights::CANARY);

    report.line(&format!("\n  changing to {}, under load", Weights::DONE));
    let ongoing = load.keep_sending(Duration::from_millis(5));
    tokio::time::sleep(AROUND).await;
    let published = Instant::now();
    let accepted = mesh.shift(Weights::DONE).await?;
    tokio::time::sleep(FOLLOW.saturating_sub(published.elapsed()) + AROUND).await;
    ongoing.stop().await;
    report.line(&format!(
        "  accepted by the sidecar after {}, by the gateway after {}",
        milliseconds(accepted.sidecar),
        milliseconds(accepted.gateway)
    ));
    through_sidecar += report.change(load.take(), published);

    report.line(&format!("\n  {}", Weights::DONE));
    load.send(number).await;
    through_sidecar += report.phase(load.take(), Weights::DONE);

    report.line("\n  the proxies' own statistics");
    let statistics = Statistics::fetch(&mut Http1::new(mesh.sidecar.admin_port)).await?;
    let counted = statistics.number("http.egress.downstream_rq_total");
    let text = format!("sidecar: {counted} requests of serviceA counted, {through_sidecar} sent");
    report.verdict(counted == through_sidecar, &text);
    for node in mesh.nodes() {
        let statistics = Statistics::fetch(&mut Http1::new(node.admin_port)).await?;
        let connected = statistics.number("control_plane.connected_state") == 1;
        report.verdict(connected, &format!("{}: connected to its control plane", node.name));
    }
    report.line(&format!("\n{} passed, {} failed", report.passed, report.failed));
    Ok(report.failed == 0)
}

struct Report<'a, W> {
    out: &'a mut W,
    passed: u32,
    failed: u32,
}

impl<W: Write> Report<'_, W> {
    /// One phase with fixed weights. The requests that went through the sidecar's egress listener.
    fn phase(&mut self, flows: [Counts; 3], weights: Weights) -> u64 {
        let mut through_sidecar = 0;
        for (flow, mut counts) in Flow::ALL.into_iter().zip(flows) {
            let sent = counts.answered() + counts.failed;
            let mut text = format!(
                "{:42} {sent:5} requests  {:5.1} % v2  p50 {:>8}  p99 {:>8}",
                flow.title(),
                counts.share_v1().map_or(0.0, |share| 100.0 * (1.0 - share)),
                milliseconds(counts.percentile(50)),
                milliseconds(counts.percentile(99)),
            );
            let right_share = within(counts.v1, counts.answered(), f64::from(weights.v1) / 100.0);
            if !right_share {
                text.push_str("  THE SHARE IS OFF");
            }
            text.push_str(&failures(&counts));
            self.verdict(right_share && counts.failed == 0 && sent > 0, &text);
            through_sidecar += through(flow, sent);
        }
        through_sidecar
    }

    /// The change of weights under load. The requests that went through the sidecar's egress listener.
    fn change(&mut self, flows: [Counts; 3], published: Instant) -> u64 {
        let mut through_sidecar = 0;
        for (flow, counts) in Flow::ALL.into_iter().zip(flows) {
            let sent = counts.answered() + counts.failed;
            let followed = counts.last_v1.map_or(Duration::ZERO, |last| last.saturating_duration_since(published));
            let text = format!(
                "{:42} {sent:5} requests  the last one to serviceB {} after the change{}",
                flow.title(),
                milliseconds(followed),
                failures(&counts)
            );
            self.verdict(followed <= FOLLOW && counts.failed == 0 && sent > 0, &text);
            through_sidecar += through(flow, sent);
        }
        through_sidecar
    }

    fn verdict(&mut self, right: bool, text: &str) {
        if right {
            self.passed += 1
        } else {
            self.failed += 1
        }
        self.line(&format!("  {} {text}", if right { "ok  " } else { "FAIL" }));
    }

    fn line(&mut self, text: &str) {
        // Where nobody reads, the exit code still tells.
        let _ = writeln!(self.out, "{text}");
    }
}

/// Requests of a flow that pass the sidecar's egress listener: the gateway calls `serviceB` itself.
const fn through(flow: Flow, sent: u64) -> u64 {
    match flow {
        Flow::Sidecar | Flow::Chain => sent,
        Flow::Gateway => 0,
    }
}

fn failures(counts: &Counts) -> String {
    match &counts.failure {
        Some(first) => format!("  {} FAILED, the first: {first}", counts.failed),
        None => String::new(),
    }
}

/// Whether `hits` of `number` can be the outcome of a coin that shows heads with probability `share`.
#[expect(clippy::cast_precision_loss, reason = "counts of a demonstration are far below 2^52")]
fn within(hits: u64, number: u64, share: f64) -> bool {
    let (hits, number) = (hits as f64, number as f64);
    (hits - number * share).abs() <= DEVIATIONS * (number * share * (1.0 - share)).sqrt()
}

/// A duration as people read it.
pub(super) fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 100.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_judged_by_chance() {
        // 800 requests at 75 %: 600 are expected, and the standard deviation is 12.2.
        for (hits, right) in [(600, true), (655, true), (545, true), (656, false), (544, false), (800, false)] {
            assert_eq!(within(hits, 800, 0.75), right, "{hits}");
        }
        // Nothing may go where nothing is sent.
        assert!(within(0, 800, 0.0) && !within(1, 800, 0.0));
        assert!(within(800, 800, 1.0) && !within(799, 800, 1.0));
    }

    #[test]
    fn a_wrong_share_or_a_failure_fails_the_report() {
        let verdicts = |counts: Counts| {
            let mut out = Vec::new();
            let mut report = Report { out: &mut out, passed: 0, failed: 0 };
            report.phase([counts, Counts::default(), Counts::default()], Weights::DONE);
            (report.passed, String::from_utf8(out).unwrap())
        };
        assert_eq!(verdicts(Counts { v2: 100, ..Counts::default() }).0, 1);
        assert!(verdicts(Counts { v2: 99, v1: 1, ..Counts::default() }).1.contains("THE SHARE IS OFF"));
        let failed = Counts { v2: 99, failed: 1, failure: Some("reset".to_owned()), ..Counts::default() };
        assert!(verdicts(failed).1.contains("1 FAILED, the first: reset"));
    }
}
